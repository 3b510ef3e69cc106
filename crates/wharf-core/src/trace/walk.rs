//! The walk: a packet's way through spaces, links and rules, and its answer's way back.
//!
//! ```text
//! ends ──> originate ─> [ emit ─> neighbour ─> frame ]* ─> enter ─> forward ─> emit … ─> socket ──> the answer, alike
//! ```
//!
//! What stops the packet is written down, and the walk goes on as if it were mended, so that what would bite next is
//! found too. Everything is bounded. Not here: reading the state, evaluating rules (`eval`).

mod advice;
mod arrival;
mod astray;
mod bridge;
mod conntrack;
mod doors;
mod ends;
mod fault;
mod forward;
mod frame;
mod gateway;
mod hooks;
mod host;
mod ipsec;
mod learned;
mod loose;
mod missing;
mod mtu;
mod nearer;
mod neighbour;
mod noroute;
pub(in crate::trace) mod outlook;
mod outside;
mod owner;
mod program;
mod published;
mod reply;
mod resolve;
mod reverse_path;
mod route;
mod rules;
pub(in crate::trace) mod seen;
mod segment;
mod show;
mod socket;
mod source;
mod stacked;
mod target;
mod tracer;
mod turned;
mod unaddressed;
mod wharf_rules;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::trace::env::{Blame, CtState};
use crate::trace::packet::Packet;
use crate::trace::query::Query;
use crate::trace::report::{Cause, Code, Hop, HopVerdict, Report, Verdict};
use crate::trace::ruleset::Ruleset;
use crate::trace::state::{ObservedState, Place, PolicyRule, Space, SpaceId};

use fault::Fault;
use route::Skip;
use tracer::Whole;

pub use tracer::{Tracer, trace, unread_ends};

/// Stations after which a packet is taken to go in circles; more than a TTL lasts on one host.
const MOST_STEPS: usize = 300;
/// The most causes that are collected.
const MOST_CAUSES: usize = 8;

/// A frame that is to leave a space.
#[derive(Debug, Clone)]
struct Emit<'a> {
    space: SpaceId,
    link: u32,
    next: IpAddr,
    /// The next hop is a gateway, not the destination.
    gateway: bool,
    /// The route, as `ip route` prints it.
    text: String,
    /// The policy rule that chose the route, if it is not one of the usual ones.
    rule: Option<&'a PolicyRule>,
    packet: Packet,
}

/// A packet that comes in by a link.
#[derive(Debug, Clone)]
struct Enter {
    place: Place,
    /// The bridge port it came by, where the link is a bridge.
    port: Option<u32>,
    packet: Packet,
}

/// Where a packet ends.
#[derive(Debug, Clone)]
enum Arrival {
    /// It is for this space.
    Local {
        space: SpaceId,
        iif: u32,
        packet: Packet,
    },
    /// It left by a link whose other end was not read.
    Outside { from: Place, packet: Packet },
    /// It cannot be followed further.
    Lost,
}

/// What comes next.
#[derive(Debug, Clone)]
enum Step<'a> {
    Emit(Emit<'a>),
    Enter(Enter),
    End(Arrival),
}

/// A space that passed the packet on.
#[derive(Debug, Clone)]
struct Passed {
    space: SpaceId,
    iif: u32,
    oif: u32,
    /// The next hop was a gateway.
    gateway: bool,
    src: IpAddr,
    /// The source was translated there.
    translated: bool,
}

/// The walk so far.
struct Walk<'a> {
    /// What is the same in all walks of a state.
    whole: &'a dyn Whole,
    state: &'a ObservedState,
    query: &'a Query,
    causes: Vec<(Cause, Verdict)>,
    hops: Vec<Hop>,
    notes: Vec<String>,
    /// Something that cannot be evaluated decides.
    unknown: bool,
    /// On the way back.
    reply: bool,
    steps: usize,
    /// Connections, by space.
    tracked: BTreeMap<SpaceId, Vec<CtState>>,
    /// Which of them the packet belongs to, by space.
    current: BTreeMap<SpaceId, usize>,
    /// The last rule that translated the destination, and to what.
    dnat: Option<(SpaceId, Blame, IpAddr)>,
    /// Where that was, and the packet before.
    dnat_at: Option<(hooks::Site, Packet)>,
    /// The last rule that translated the source, and to what.
    snat: Option<(SpaceId, Blame, IpAddr)>,
    /// Rules without those already blamed.
    mended: BTreeMap<SpaceId, Ruleset>,
    skip: BTreeMap<SpaceId, Skip<'a>>,
    /// Spaces that passed the packet on, in order.
    passed: Vec<Passed>,
    /// A policy rule that chose another way than the main table has, and its space.
    diverted: Option<(SpaceId, Fault)>,
    /// The space and route by which the frame that now arrives was sent.
    sender: Option<(SpaceId, String, Place)>,
    /// The largest packet the sender would send this way.
    full: u32,
    /// What the client of a TCP connection takes at most.
    most: u32,
    /// The link by which the question, or the answer, is sent.
    sent_by: Option<(SpaceId, u32)>,
    /// The space that sends, if it was read.
    origin: Option<SpaceId>,
    /// The space that answers.
    replier: Option<SpaceId>,
    /// Places where packets of that size vanish, and what passes there.
    narrow: Vec<(u32, Fault)>,
    /// Where a rule or the kernel changed the TTL, for blaming it.
    ttl_by: Option<(hooks::Site, Blame)>,
    /// Addresses of the asked namespace that were tried already.
    avoid: Vec<IpAddr>,
    /// Addresses of spaces that were not read fully, and that the packet came to.
    missed: Vec<IpAddr>,
    /// Who asked for whom, and knows it since.
    resolved: Vec<(Place, Place)>,
    /// What wharf's routing would refuse, if its packet rules do not say it better.
    held: Option<(Verdict, Fault)>,
    /// The link by which a client comes in whose namespace is not looked for.
    wire: Option<u32>,
    /// Forwardings already done, to notice circles.
    circle: Vec<(SpaceId, u32, IpAddr, IpAddr)>,
    /// Which of several ways of one route is taken.
    way: usize,
    /// The most ways that a route on the way had.
    ways: usize,
    /// The rule by which a connection is not tracked, and its space.
    untracked_by: Option<(SpaceId, Blame)>,
    /// The rules that had the connection looked up in zones, and their space.
    zoned_by: Vec<(SpaceId, Blame)>,
    /// Wrong neighbour entries that nobody pinned.
    learned: Vec<String>,
    /// A frame inside a bridge that shows it to IP rules before it goes up.
    inside: Option<turned::Inside>,
    /// One that those rules turned round.
    turned: Option<turned::Inside>,
}

impl<'a> Walk<'a> {
    fn new(tracer: &'a Tracer<'_>, query: &'a Query) -> Self {
        Self {
            whole: tracer,
            state: tracer.state,
            query,
            causes: Vec::new(),
            hops: Vec::new(),
            notes: Vec::new(),
            unknown: false,
            reply: false,
            steps: 0,
            tracked: BTreeMap::new(),
            current: BTreeMap::new(),
            dnat: None,
            dnat_at: None,
            snat: None,
            mended: BTreeMap::new(),
            skip: BTreeMap::new(),
            passed: Vec::new(),
            diverted: None,
            sender: None,
            full: 0,
            most: u32::MAX,
            sent_by: None,
            origin: None,
            replier: None,
            narrow: Vec::new(),
            ttl_by: None,
            avoid: Vec::new(),
            missed: Vec::new(),
            resolved: Vec::new(),
            held: None,
            wire: None,
            circle: Vec::new(),
            way: 0,
            ways: 1,
            untracked_by: None,
            zoned_by: Vec::new(),
            learned: Vec::new(),
            inside: None,
            turned: None,
        }
    }

    /// The whole question; `published` goes to the port that the target publishes instead of the target itself.
    fn through(&mut self, published: bool) -> Report {
        let ends = self.ends(published);
        if let Some(start) = ends.start.clone() {
            let there = self.run(start);
            let arrived = self.arrive(&ends, there);
            self.judge_size(&arrived);
            self.way_back(&ends, arrived);
        }
        self.finish(ends)
    }

    fn space(&self, id: SpaceId) -> &'a Space {
        &self.state.spaces[id]
    }

    /// Follows the packet until it ends.
    fn run(&mut self, start: Step<'a>) -> Arrival {
        let mut step = start;
        loop {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.note("the way is too long to follow it to its end".to_owned());
                self.unknown = true;
                return Arrival::Lost;
            }
            step = match step {
                Step::Emit(emit) => self.emit(emit),
                Step::Enter(enter) => self.enter(enter),
                Step::End(arrival) => return arrival,
            };
        }
    }

    fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn hop(&mut self, space: SpaceId, stage: &str, object: &str, detail: &str) {
        self.hop_with(space, stage, object, detail, HopVerdict::Pass);
    }

    fn hop_with(
        &mut self,
        space: SpaceId,
        stage: &str,
        object: &str,
        detail: &str,
        verdict: HopVerdict,
    ) {
        let hop = Hop {
            netns: self.space(space).name.clone(),
            stage: stage.to_owned(),
            object: object.to_owned(),
            detail: detail.to_owned(),
            verdict,
            reply: self.reply,
        };
        // After the first cause the way shown would be one that no packet goes.
        if self.causes.is_empty() || verdict != HopVerdict::Pass {
            self.hops.push(hop);
        }
    }

    /// Writes down what stops the packet; before it what led it there, if that is why.
    fn blame(&mut self, verdict: Verdict, stage: &str, fault: Fault) {
        let lost = matches!(
            fault.code,
            Code::NoRoute
                | Code::ForwardingDisabled
                | Code::NoSuchDestination
                | Code::NeighbourUnreachable
                | Code::WrongGateway
                | Code::TtlExpired
        );
        if lost && let Some(mapping) = self.dangling() {
            return self.put_down(verdict, stage, mapping);
        }
        if let Some((at, diversion)) = self.diverted.clone()
            && lost
            && (at != fault.space || fault.code == Code::WrongGateway)
        {
            self.put_down(verdict, "route", diversion);
        }
        self.put_down(verdict, stage, fault);
    }

    fn put_down(&mut self, verdict: Verdict, stage: &str, fault: Fault) {
        let known = self.causes.iter().any(|(c, _)| {
            c.code == fault.code
                && c.object == fault.object
                && c.netns == self.space(fault.space).name
        });
        if known || self.causes.len() >= MOST_CAUSES {
            return;
        }
        let shown = match verdict {
            Verdict::Rejected => HopVerdict::Reject,
            Verdict::Unknown => HopVerdict::Unknown,
            _ => HopVerdict::Drop,
        };
        let verdict = match verdict {
            Verdict::Dropped | Verdict::Rejected if self.reply => Verdict::Unanswered,
            other => other,
        };
        if self.causes.is_empty() {
            self.hop_with(fault.space, stage, &fault.object, &fault.summary, shown);
        }
        let cause = fault.cause(&self.space(fault.space).name);
        self.causes.push((cause, verdict));
    }

    /// Something that could have stopped the packet was not read.
    fn way_unread(&self, ends: &ends::Ends<'a>) -> bool {
        let v6 = ends.packet.as_ref().is_some_and(|p| p.dst.is_ipv6());
        let other = if v6 { " iptables" } else { " ip6tables" };
        self.state.unread.iter().any(|u| {
            let what = format!(" {}", u.what);
            [
                "rules",
                "tables",
                "routes",
                "links",
                "policies",
                "the namespace",
            ]
            .iter()
            .any(|w| what.contains(w))
                && !what.contains(other)
                && self.hops.iter().any(|h| h.netns == u.netns)
        })
    }

    /// Whether something of a space was not read.
    fn unread(&self, id: SpaceId, what: &str) -> bool {
        let name = &self.space(id).name;
        let mut all = self.state.unread.iter();
        all.any(|u| u.netns == *name && u.what.contains(what))
    }

    /// Whether a cause is that something is absent from where it could not be read. What was shown of it is taken back.
    fn is_blind(&mut self, cause: &Cause) -> bool {
        let absent = matches!(
            cause.code,
            Code::NoAddress | Code::NoSuchDestination | Code::NoRoute | Code::NoReturnRoute
        );
        let mut unread = self.state.unread.iter().filter(|u| u.netns == cause.netns);
        let unread = unread.find(|u| {
            matches!(
                u.what.as_str(),
                "links and addresses" | "links" | "addresses" | "routes"
            )
        });
        let Some(unread) = unread.filter(|_| absent) else {
            return false;
        };
        for hop in self
            .hops
            .iter_mut()
            .filter(|h| h.netns == cause.netns && h.verdict != HopVerdict::Pass)
        {
            hop.verdict = HopVerdict::Unknown;
            hop.detail = format!("its {} could not be read", unread.what);
        }
        true
    }

    fn finish(&mut self, ends: ends::Ends<'a>) -> Report {
        // Where a rule that could not be evaluated may have kept wharf's from the packet, nobody knows whether it is refused.
        let told = !self.causes.is_empty() || self.unknown;
        if let Some((verdict, fault)) = self.held.take().filter(|_| !told) {
            // The question may have been held though its answer was walked.
            self.reply = verdict == Verdict::Unanswered;
            self.blame(verdict, "route", fault);
        }
        self.settle_learned();
        for unread in &self.state.unread {
            let text = format!(
                "{} of {} could not be read: {}",
                unread.what, unread.netns, unread.why
            );
            if self.hops.iter().any(|h| h.netns == unread.netns) {
                self.note(text);
            }
        }
        let (mut verdict, mut cause, mut also) = (Verdict::Delivered, None, Vec::new());
        if self.unknown || self.way_unread(&ends) {
            verdict = Verdict::Unknown;
        }
        let mut causes = std::mem::take(&mut self.causes).into_iter();
        if let Some((first, how)) = causes.next() {
            (verdict, cause) = (how, Some(first));
        }
        also.extend(causes.map(|(c, _)| c));
        // Rules that were not read may lead to where somebody listens.
        if cause.as_ref().is_some_and(|c| of_listener(c.code)) && self.way_unread(&ends) {
            verdict = Verdict::Unknown;
        }
        if cause.as_ref().is_some_and(|c| self.is_blind(c)) {
            (verdict, cause) = (Verdict::Unknown, None);
            also.clear();
        }
        let name = cause
            .as_ref()
            .map(|c| (c.code, c.netns.clone(), c.object.clone()));
        for (_, fault) in std::mem::take(&mut self.narrow) {
            let cause = fault.cause(&self.state.spaces[fault.space].name);
            let shown = (cause.code, cause.netns.clone(), cause.object.clone());
            if Some(&shown) != name.as_ref() && !also.contains(&cause) {
                also.push(cause);
            }
        }
        Report {
            source: ends.source,
            destination: ends.destination,
            protocol: self.query.l4,
            verdict,
            cause,
            also,
            hops: std::mem::take(&mut self.hops),
            probe: Vec::new(),
            notes: std::mem::take(&mut self.notes),
            some_pass: false,
        }
    }
}

/// What is said of a program that does not listen.
fn of_listener(code: Code) -> bool {
    matches!(code, Code::NotListening | Code::ListeningElsewhere)
}
