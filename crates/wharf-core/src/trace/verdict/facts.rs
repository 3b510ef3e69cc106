//! What the frames and rules of a probe show: how far the packet came, and what stopped it.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::packet::L4;
use crate::trace::query::{Query, Source};
use crate::trace::report::{Cause, Code, HopVerdict, Owner, Report, Verdict};
use crate::trace::seen::{Act, Asked, Dropped, Frame, Judged, Leg, Outcome, Seen};
use crate::trace::state::{ObservedState, Place, SpaceId};
use crate::trace::walk::seen::{RuleSeen, rule};

use super::reason;

/// How it ended.
pub(super) enum Finding {
    /// It was answered.
    Delivered,
    /// A rule stopped it.
    Rule(RuleSeen, Verdict),
    /// The kernel gave a reason that names the cause.
    Reason(Cause, Verdict),
    /// Somebody said no.
    Refused {
        /// The sender's own namespace did, before anything was sent.
        at_once: bool,
    },
    /// A datagram arrived; nobody said anything.
    Taken,
    /// It arrived, and the answer got lost.
    Unanswered,
    /// It arrived, and no answer was made.
    Ignored,
    /// It left for where nobody watches, and nothing came back.
    Beyond,
    /// It got lost on the way.
    Lost,
    /// Nothing could be watched.
    Nothing,
}

/// What was seen, with what is needed to judge it.
pub(super) struct Facts<'a> {
    pub state: &'a ObservedState,
    pub query: &'a Query,
    pub seen: &'a Seen,
    /// Namespaces that were to give the packet another destination.
    translating: Vec<String>,
    /// Where it arrived.
    pub arrived: Option<Place>,
}

impl<'a> Facts<'a> {
    pub fn new(
        state: &'a ObservedState,
        query: &'a Query,
        report: &Report,
        seen: &'a Seen,
    ) -> Self {
        let translating = report
            .hops
            .iter()
            .filter(|h| h.verdict == HopVerdict::Translate && !h.reply)
            .filter(|h| h.detail.contains("the destination becomes"))
            .map(|h| h.netns.clone())
            .collect();
        let mut facts = Self {
            state,
            query,
            seen,
            translating,
            arrived: None,
        };
        let arrived = facts.frames(Leg::Question).rfind(|f| facts.is_for_here(f));
        facts.arrived = arrived.map(|f| f.place);
        facts
    }

    /// Frames of one kind that concern whoever got them.
    pub fn frames(&self, leg: Leg) -> impl DoubleEndedIterator<Item = &'a Frame> {
        // A bridge port gets frames for everybody.
        let port = |f: &Frame| {
            let link = self.state.link(f.place);
            link.is_some_and(|l| l.master.is_some())
        };
        let frames = self.seen.frames.iter();
        frames.filter(move |f| f.leg == leg && (!f.foreign || port(f)))
    }

    /// The packet's last place.
    pub fn last(&self, leg: Leg) -> Option<&'a Frame> {
        self.frames(leg).next_back()
    }

    /// Whether a frame came in where its destination is at home.
    fn is_for_here(&self, frame: &Frame) -> bool {
        let Some(space) = self.state.spaces.get(frame.place.space) else {
            return false;
        };
        // Where its connection was seen, that tells; else what the state suggests.
        let mut tracked = self.seen.tracked.iter();
        let tracked = tracked.find(|t| t.space == frame.place.space);
        let moves = match tracked {
            Some(t) => t.reply.src != t.original.dst,
            None => self.translating.contains(&space.name),
        };
        let home = space.addrs.iter().any(|a| a.net.addr() == frame.header.dst)
            || frame.header.dst.is_loopback();
        // A bridge port shows what the host's IP never gets.
        home && !frame.out && !frame.foreign && !moves
    }

    /// Whether the packet is for a namespace, by the addresses it bore.
    pub fn is_meant(&self, space: SpaceId) -> bool {
        let Some(space) = self.state.spaces.get(space) else {
            return false;
        };
        let frames = self.seen.frames.iter();
        let mut sent = frames
            .filter(|f| f.leg == Leg::Question)
            .map(|f| f.header.dst);
        sent.any(|dst| space.addrs.iter().any(|a| a.net.addr() == dst))
    }

    pub fn name(&self, space: SpaceId) -> &'a str {
        let space = self.state.spaces.get(space);
        space.map_or("", |s| s.name.as_str())
    }

    /// Whether the packet arrived in a namespace.
    pub fn is_end(&self, netns: &str) -> bool {
        self.arrived
            .is_some_and(|place| self.name(place.space) == netns)
    }

    pub fn finding(&self) -> Finding {
        if self.seen.outcome == Outcome::Answered {
            return Finding::Delivered;
        }
        if let Some((rule, verdict)) = self.stopper() {
            return Finding::Rule(rule, verdict);
        }
        if let Some((cause, verdict)) = self.reason() {
            return Finding::Reason(cause, verdict);
        }
        match (&self.seen.outcome, self.last(Leg::Answer).is_some()) {
            (Outcome::NotSent(_), _) => return Finding::Refused { at_once: true },
            (Outcome::Refused { .. }, _) => return Finding::Refused { at_once: false },
            _ if self.seen.watched.is_empty() => return Finding::Nothing,
            (_, true) => return Finding::Unanswered,
            _ => {}
        }
        match (self.arrived, self.query.l4) {
            (Some(_), L4::Udp) => Finding::Taken,
            (Some(_), _) => Finding::Ignored,
            (None, _) if self.is_beyond() => Finding::Beyond,
            (None, _) => Finding::Lost,
        }
    }

    /// The rule that stopped the packet, or else its answer. A flooded frame may be stopped at ports that it is not for.
    fn stopper(&self) -> Option<(RuleSeen, Verdict)> {
        let stops = |leg: Leg| {
            let all = self.seen.rules.iter().rev();
            all.filter(move |j| j.act == Act::Stopped && j.leg == leg)
        };
        let counts = |j: &&Judged| self.arrived.is_none_or(|place| place.space == j.space);
        let question = stops(Leg::Question).find(counts);
        let judged = question.or_else(|| stops(Leg::Answer).next())?;
        let rule = rule(self.state, self.query, judged)?;
        let told = self.is_refused();
        let verdict = match judged.leg {
            Leg::Question if rule.rejects || told => Verdict::Rejected,
            Leg::Question => Verdict::Dropped,
            _ => Verdict::Unanswered,
        };
        Some((rule, verdict))
    }

    /// The last drop of the packet whose reason names a cause, or else of its answer.
    fn reason(&self) -> Option<(Cause, Verdict)> {
        // Copies that a bridge floods are dropped elsewhere, too.
        let counts = |d: &&Dropped| {
            let space = d.place.map(|p| p.space);
            d.leg == Leg::Answer || self.arrived.is_none_or(|p| Some(p.space) == space)
        };
        let of = |leg: Leg| {
            let drops = self.seen.drops.iter().rev().filter(|d| d.leg == leg);
            drops.filter(counts).find_map(|d| reason::cause(self, d))
        };
        let told = self.is_refused();
        // What was answered arrived, whatever became of its copies.
        let lost = self.last(Leg::Answer).is_none();
        match of(Leg::Question).filter(|_| lost) {
            Some(cause) if told => Some((cause, Verdict::Rejected)),
            Some(cause) => Some((cause, Verdict::Dropped)),
            None => Some((of(Leg::Answer)?, Verdict::Unanswered)),
        }
    }

    /// Whether somebody refused the packet.
    fn is_refused(&self) -> bool {
        matches!(self.seen.outcome, Outcome::Refused { .. }) && !self.is_silence()
    }

    /// Whether it was refused with those words at the end.
    fn is_told(&self, words: &str) -> bool {
        matches!(&self.seen.outcome, Outcome::Refused { how, .. } if how.ends_with(words))
    }

    /// Whether what was said is no refusal, but that a neighbour is silent or the TTL spent. The packet is lost all the
    /// same, and whether a kernel says so in time depends on when it asked.
    pub fn is_silence(&self) -> bool {
        let stopped = |j: &Judged| j.act == Act::Stopped && j.leg == Leg::Question;
        self.is_told("time exceeded")
            || (self.is_told("host unreachable") || self.is_told("address unreachable"))
                && !self.seen.rules.iter().any(stopped)
    }

    /// Whether the packet left by a link whose other end nobody watched.
    fn is_beyond(&self) -> bool {
        let Some(last) = self.last(Leg::Question).filter(|f| f.out) else {
            return false;
        };
        let peer = self.state.link(last.place).and_then(|l| l.peer);
        peer.is_none_or(|peer| !self.seen.watched.contains(&peer.space))
    }

    /// Whether the packet was seen behind what a cause would have stopped it at.
    pub fn past(&self, cause: &Cause) -> bool {
        // It was sent from an address that serves on its own link only, for want of another.
        let no_address = matches!(cause.code, Code::NoAddress | Code::Ipv6Disabled);
        if no_address && self.frames(Leg::Question).any(|f| stays(f.header.src)) {
            return false;
        }
        if let Some(place) = self.arrived {
            return self.name(place.space) != cause.netns;
        }
        if !of_ip(cause.code) {
            return false;
        }
        // It left the namespace: by a link that is no port of a bridge, or at least by another than it came by.
        let here = |f: &&Frame| self.name(f.place.space) == cause.netns;
        let came = self.frames(Leg::Question).find(|f| !f.out && here(f));
        let mut out = self.frames(Leg::Question).filter(|f| f.out && here(f));
        out.any(|f| came.is_none_or(|c| c.place != f.place))
    }

    /// A router that said that the TTL was spent there.
    fn spent(&self) -> Option<Cause> {
        let last = self
            .last(Leg::Question)
            .filter(|_| self.is_told("time exceeded"))?;
        let space = self.state.spaces.get(last.place.space)?;
        let link = self.state.link(last.place)?;
        let dst = last.header.dst;
        let six = if dst.is_ipv6() { "-6 " } else { "" };
        Some(Cause {
            code: Code::TtlExpired,
            netns: space.name.clone(),
            object: link.name.clone(),
            owner: Owner::User,
            summary: format!(
                "The TTL was spent when the packet came in by {}.",
                link.name
            ),
            evidence: vec![format!("{}ip {six}route get {dst}", space.enter)],
            fix: vec![format!("{}ip {six}route get {dst}", space.enter)],
        })
    }

    /// Who refused, where that is the destination itself or a router at which the TTL was spent.
    pub fn refuser(&self) -> Option<Cause> {
        if let Some(cause) = self.spent() {
            return Some(cause);
        }
        let Outcome::Refused { by, how } = &self.seen.outcome else {
            return None;
        };
        let (l4, port) = match self.query.l4 {
            L4::Icmp => return None,
            L4::Tcp => ("tcp", self.last(Leg::Question)?.header.dport),
            L4::Udp => ("udp", self.last(Leg::Question)?.header.dport),
        };
        let last = self.last(Leg::Question)?;
        let usual = how == "a TCP reset" || how == "ICMP port unreachable";
        let own = by.is_some_and(|by| by == last.header.dst || self.arrived.is_some());
        if !usual || !own && !self.is_beyond() {
            return None;
        }
        let (netns, firewall) = match self.arrived {
            Some(place) => (self.name(place.space).to_owned(), ""),
            None if self.is_beyond() => ("outside".to_owned(), ", or a firewall there answers so"),
            None => return None,
        };
        Some(Cause {
            code: Code::NotListening,
            netns,
            object: format!("{port}/{l4}"),
            owner: Owner::User,
            summary: format!(
                "{} refused with {how}: nothing listens on its port {port}/{l4}{firewall}.",
                last.header.dst
            ),
            evidence: Vec::new(),
            fix: vec![format!("start what is to listen on port {port}/{l4}")],
        })
    }

    /// What remains as the cause where the packet got lost, if only one thing does.
    pub fn guess(&self, leg: Leg) -> Option<Cause> {
        self.program(leg).or_else(|| match leg {
            Leg::Question => self.silent_neighbour(),
            _ => None,
        })
    }

    /// A tc filter or program that could not be read, between the last place where the packet was and the next one
    /// where it would have been seen.
    fn program(&self, leg: Leg) -> Option<Cause> {
        let last = self.last(leg)?;
        let link = self.state.link(last.place)?;
        let followed = |space: &SpaceId| self.seen.followed.contains(space);
        let entered = self
            .seen
            .rules
            .iter()
            .any(|j| j.space == last.place.space && j.leg == leg && j.act == Act::Entered);
        // Frames are caught before tc on the way in, and the rules come after it.
        if !last.out && followed(&last.place.space) && !entered {
            let tc = link.tc.iter().find(|t| t.ingress && t.drops.is_none())?;
            return Some(reason::traffic_control(self, last.place, &tc.text));
        }
        let peer = link.peer.filter(|_| last.out)?;
        let other = self.state.link(peer)?;
        if self.seen.watched.contains(&peer.space) && other.xdp && other.up {
            return Some(reason::traffic_control(self, peer, "an XDP program"));
        }
        None
    }

    /// A neighbour that the packet waited for in vain.
    fn silent_neighbour(&self) -> Option<Cause> {
        let last = self.last(Leg::Question);
        if last.is_some_and(|f| f.out) {
            return None;
        }
        let v6 = self.query_is_v6();
        // What was seen on no link is where it was made.
        let at = match (last, &self.query.source) {
            (Some(frame), _) => Some(frame.place.space),
            (None, Source::Space(id, _)) => Some(*id),
            (None, _) => None,
        };
        let here = |a: &&Asked| at.is_none_or(|space| space == a.place.space);
        // Out of a bridge's port the question is a flooded copy: whoever is asked is elsewhere.
        let flooded = |a: &&Asked| {
            let link = self.state.link(a.place);
            link.is_some_and(|l| l.master.is_some())
        };
        let asked = self.seen.asked.iter().filter(|a| !a.answered);
        let mut silent = asked.filter(|a| !flooded(a));
        let asked = silent.find(|a| here(a) && (Family::of(a.addr) == Family::V6) == v6)?;
        let space = self.state.spaces.get(asked.place.space)?;
        let link = self.state.link(asked.place)?;
        let object = format!("{} dev {}", asked.addr, link.name);
        Some(Cause {
            code: Code::NeighbourUnreachable,
            netns: space.name.clone(),
            summary: format!(
                "{} was asked for on {} in {}, and nobody answered.",
                asked.addr, link.name, space.name
            ),
            evidence: vec![format!(
                "{}ip neigh show {} dev {}",
                space.enter, asked.addr, link.name
            )],
            fix: vec![format!(
                "{}ip neigh flush {} dev {}",
                space.enter, asked.addr, link.name
            )],
            owner: Owner::User,
            object,
        })
    }

    pub fn query_is_v6(&self) -> bool {
        let first = self.seen.frames.iter().find(|f| f.leg == Leg::Question);
        match first {
            Some(frame) => frame.header.dst.is_ipv6(),
            None => self.seen.asked.iter().any(|a| a.addr.is_ipv6()),
        }
    }
}

/// Whether an address serves on one link or in one namespace only.
fn stays(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// Causes in packet rules.
pub(super) fn by_rules(code: Code) -> bool {
    matches!(
        code,
        Code::NotPublished
            | Code::NetworkIsolation
            | Code::InternalNetwork
            | Code::SpoofGuard
            | Code::FirewallRule
            | Code::FirewallPolicy
            | Code::BridgeNetfilter
    )
}

/// Causes that a packet is past once it has left the namespace.
fn of_ip(code: Code) -> bool {
    by_rules(code)
        || matches!(
            code,
            Code::NoAddress
                | Code::NoRoute
                | Code::RouteRejects
                | Code::PolicyRule
                | Code::ForwardingDisabled
                | Code::ReversePathFilter
                | Code::MartianAddress
                | Code::ConntrackFull
                | Code::Ipv6Disabled
                | Code::PortsExhausted
        )
}
