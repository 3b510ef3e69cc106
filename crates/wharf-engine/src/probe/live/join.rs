//! From frames, trace messages and the sender's socket to one story in order of time.

use std::collections::{BTreeSet, HashMap};

use wharf_core::trace::L4;
use wharf_core::trace::ruleset::TableFamily;
use wharf_core::trace::seen::{Act, Asked, Frame, Header, Judged, Leg, Outcome, Seen};
use wharf_core::trace::state::{Place, SpaceId};
use wharf_nft::{Family, Policy, TraceEvent, TraceKind, Verdict};

use super::capture::Caught;
use super::flow::{self, Flow};
use super::trace_rule::Traced;
use super::watch::Post;

/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const NEW: u32 = 8;

/// What the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet.
    Nothing,
    /// An answer came.
    Answered,
    /// A TCP reset, or an ICMP error that the system gave as this error.
    Refused(i32),
    /// The packet was not sent.
    NotSent(i32),
}

/// What is known of one packet from the first message about it in a base chain.
#[derive(Debug, Clone)]
struct Met {
    leg: Leg,
    header: Header,
    iif: Option<u32>,
    oif: Option<u32>,
    base: String,
}

/// What the rules of one namespace did, as it is told bit by bit.
#[derive(Debug, Default)]
pub(super) struct Trail {
    met: HashMap<u32, Met>,
    pub(super) judged: Vec<Judged>,
    /// Numbers of the connections that the packet opened (`NFTA_TRACE_CT_ID`).
    pub(super) connections: BTreeSet<u32>,
}

impl Trail {
    /// Adds a trace message; those about packets of others are left out.
    pub(super) fn add(&mut self, space: SpaceId, flow: &Flow, event: &TraceEvent) {
        let Some(family) = family(event.family) else {
            return;
        };
        let chain = event.chain.clone().unwrap_or_default();
        if let Some(network) = &event.network_header {
            let transport = event.transport_header.as_deref().unwrap_or_default();
            match flow.of_headers(network, transport) {
                Some((leg, header)) => {
                    let (iif, oif) = (event.iif, event.oif);
                    let base = chain.clone();
                    let met = Met {
                        leg,
                        header,
                        iif,
                        oif,
                        base,
                    };
                    self.met.insert(event.id, met);
                }
                None => _ = self.met.remove(&event.id),
            }
        }
        let Some(met) = self.met.get(&event.id) else {
            return;
        };
        // Only what is new with the packet goes with it.
        let opened = event
            .ct
            .filter(|ct| ct.state == Some(NEW) && met.leg == Leg::Question);
        self.connections.extend(opened.and_then(|ct| ct.id));
        let table = event.table.clone().unwrap_or_default();
        let (act, handle) = match (event.kind, &event.verdict, event.policy) {
            (TraceKind::Rule, _, _) if Traced::is_own(&table) => (Act::Entered, event.rule),
            (TraceKind::Policy, _, _) if Traced::is_own(&table) => return,
            (TraceKind::Rule, Some(Verdict::Drop), _) => (Act::Stopped, event.rule),
            (TraceKind::Policy, _, Some(Policy::Drop)) => (Act::Stopped, None),
            (TraceKind::Rule, Some(Verdict::Accept), _) => (Act::Passed, event.rule),
            (TraceKind::Policy, _, Some(Policy::Accept)) => (Act::Passed, None),
            _ => return,
        };
        self.judged.push(Judged {
            space,
            family,
            table,
            chain,
            base: met.base.clone(),
            handle,
            act,
            leg: met.leg,
            header: met.header,
            iif: met.iif,
            oif: met.oif,
        });
    }

    /// Whether a rule stopped the packet or its answer.
    pub(super) fn stopped(&self) -> bool {
        self.judged.iter().any(|j| j.act == Act::Stopped)
    }
}

fn family(family: Family) -> Option<TableFamily> {
    Some(match family {
        Family::Inet => TableFamily::Inet,
        Family::Ip => TableFamily::Ip,
        Family::Ip6 => TableFamily::Ip6,
        Family::Arp => TableFamily::Arp,
        Family::Bridge => TableFamily::Bridge,
        Family::Netdev => TableFamily::Netdev,
        Family::Other(_) => return None,
    })
}

/// All frames in order of time.
pub(super) fn by_time(posts: &[Post]) -> Vec<(SpaceId, &Caught)> {
    let mut all: Vec<(SpaceId, &Caught)> = posts
        .iter()
        .flat_map(|post| post.caught.iter().map(move |c| (post.space, c)))
        .collect();
    // Within a namespace the order of catching decides where the clock does not.
    all.sort_by_key(|(_, caught)| caught.at);
    all
}

/// Everything together.
pub(super) fn seen(
    flow: &Flow,
    source: SpaceId,
    posts: &[Post],
    told: Told,
    packets: usize,
) -> Seen {
    let all = by_time(posts);
    let frames = frames(flow, &all);
    let mut rules: Vec<Judged> = posts.iter().flat_map(|p| p.trail.judged.clone()).collect();
    let asked: BTreeSet<Header> = frames
        .iter()
        .filter(|f| f.leg == Leg::Question)
        .map(|f| f.header)
        .chain(
            rules
                .iter()
                .filter(|j| j.leg == Leg::Question)
                .map(|j| j.header),
        )
        .collect();
    // A datagram to the sender's port answers only if it comes from where the question went. A program that was asked at
    // one address of its host may answer from another.
    let as_another = |header: Header| {
        let back = header.turned();
        let like = |q: &Header| (q.src, q.sport, q.dport) == (back.src, back.sport, back.dport);
        flow.l4 == L4::Udp && asked.iter().any(like)
    };
    let answers = |leg, header: Header| {
        leg != Leg::Answer || asked.contains(&header.turned()) || as_another(header)
    };
    let frames: Vec<Frame> = frames
        .into_iter()
        .filter(|f| answers(f.leg, f.header))
        .collect();
    rules.retain(|j| answers(j.leg, j.header));
    let outcome = outcome(flow, source, &all, told);
    let with = |f: fn(&Post) -> bool| -> Vec<SpaceId> {
        posts.iter().filter(|p| f(p)).map(|p| p.space).collect()
    };
    Seen {
        sent: sent(flow, source, &frames, packets),
        waited: 0,
        outcome,
        rules,
        drops: Vec::new(),
        tracked: Vec::new(),
        asked: neighbours(&all),
        watched: with(|p| p.capture.is_some()),
        followed: with(|p| p.traced.is_some()),
        unable: Vec::new(),
        frames,
    }
}

fn frames(flow: &Flow, all: &[(SpaceId, &Caught)]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for (space, caught) in all {
        let Some((mut leg, header)) = flow.classify(&caught.bytes) else {
            continue;
        };
        if leg == Leg::Error && flow::is_redirect(&caught.bytes) {
            continue;
        }
        // An echo service gives a datagram back as it came.
        let before = |f: &Frame| f.leg == Leg::Question && f.header == header.turned();
        if flow.l4 == L4::Udp && leg == Leg::Question && frames.iter().any(before) {
            leg = Leg::Answer;
        }
        frames.push(Frame {
            place: Place {
                space: *space,
                index: caught.link,
            },
            out: caught.out,
            foreign: caught.foreign,
            leg,
            header,
        });
    }
    frames
}

/// The headers that the packet had in a namespace.
pub(super) fn headers(
    seen: &Seen,
    space: SpaceId,
    wanted: Leg,
) -> impl Iterator<Item = Header> + '_ {
    let frames = seen.frames.iter().filter(move |f| f.place.space == space);
    let rules = seen.rules.iter().filter(move |j| j.space == space);
    let frames = frames.map(|f| (f.leg, f.header));
    frames
        .chain(rules.map(|j| (j.leg, j.header)))
        .filter(move |(leg, _)| *leg == wanted)
        .map(|(_, header)| header)
}

fn outcome(flow: &Flow, source: SpaceId, all: &[(SpaceId, &Caught)], told: Told) -> Outcome {
    // An ICMP error that came back to the sender.
    let error = all.iter().find_map(|(space, caught)| {
        let (leg, header) = flow.classify(&caught.bytes)?;
        let back = *space == source && !caught.out && !flow::is_redirect(&caught.bytes);
        (leg == Leg::Error && back).then(|| Outcome::Refused {
            by: Some(header.src),
            how: flow::refusal(&caught.bytes),
        })
    });
    match told {
        Told::Answered => Outcome::Answered,
        Told::NotSent(errno) => Outcome::NotSent(crate::probe::text_of(errno)),
        Told::Refused(errno) => error.unwrap_or_else(|| {
            let reset = flow.l4 == L4::Tcp && errno == libc::ECONNREFUSED;
            Outcome::Refused {
                by: reset.then_some(flow.to),
                how: match reset {
                    true => "a TCP reset".to_owned(),
                    false => crate::probe::text_of(errno),
                },
            }
        }),
        Told::Nothing => error.unwrap_or(Outcome::Silent),
    }
}

/// Neighbours asked for from watched namespaces; each once.
fn neighbours(all: &[(SpaceId, &Caught)]) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    for (space, caught) in all {
        let Some((addr, answer)) = flow::neighbour(caught.protocol, &caught.bytes) else {
            continue;
        };
        let place = Place {
            space: *space,
            index: caught.link,
        };
        let known = asked
            .iter_mut()
            .find(|a| a.place == place && a.addr == addr);
        match known {
            Some(known) => known.answered |= answer && !caught.out,
            None if !answer && caught.out => asked.push(Asked {
                place,
                addr,
                answered: false,
            }),
            None => {}
        }
    }
    asked
}

fn sent(flow: &Flow, source: SpaceId, frames: &[Frame], packets: usize) -> String {
    let what = match flow.l4 {
        L4::Icmp => "echo request",
        L4::Tcp => "TCP SYN",
        L4::Udp => "UDP datagram",
    };
    let what = match packets {
        1 => format!("one {what}"),
        _ => format!("{packets} {what}s"),
    };
    let first = frames
        .iter()
        .find(|f| f.leg == Leg::Question && f.place.space == source);
    let from = first.map_or(String::new(), |f| format!(" from {}", f.header.src));
    let port = match flow.l4 {
        L4::Icmp => String::new(),
        _ => format!(" port {}", flow.port),
    };
    format!("{what}{from} to {}{port}", flow.to)
}
