//! From a question to its report: the walk itself, and the walks by other ways and to other addresses that belong to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::segment::{self, Segment};
use super::{Walk, ends};
use crate::trace::env::{CtState, Env, Run};
use crate::trace::eval::Rules;
use crate::trace::packet::Packet;
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Report, Verdict};
use crate::trace::state::{ObservedState, Place, SpaceId};

/// The most addresses of one namespace that are tried.
const MOST_ADDRESSES: usize = 4;
/// The most ways of one route that are tried.
const MOST_WAYS: usize = 8;

/// Walks one packet and its answer.
pub fn trace(state: &ObservedState, query: &Query) -> Report {
    Tracer::new(state).trace(query)
}

/// Walks several packets over one state: what is looked up in rules, and who hangs on which wire, is put in order once.
pub struct Tracer<'a> {
    pub(super) state: &'a ObservedState,
    rules: Vec<Rules<'a>>,
    segments: RefCell<BTreeMap<Place, Rc<Segment>>>,
}

impl<'a> Tracer<'a> {
    /// For a state.
    pub fn new(state: &'a ObservedState) -> Self {
        let rules = state
            .spaces
            .iter()
            .map(|s| Rules::new(&s.ruleset))
            .collect();
        Self {
            state,
            rules,
            segments: RefCell::default(),
        }
    }

    /// Walks one packet and its answer.
    pub fn trace(&self, query: &Query) -> Report {
        walked(self, query)
    }
}

/// What a walk needs of a [`Tracer`].
pub(super) trait Whole {
    fn run(&self, space: SpaceId, env: &Env<'_>, packet: Packet, ct: &mut CtState) -> Run;
    fn segment(&self, from: Place) -> Rc<Segment>;
}

impl Whole for Tracer<'_> {
    fn run(&self, space: SpaceId, env: &Env<'_>, packet: Packet, ct: &mut CtState) -> Run {
        self.rules[space].run(env, packet, ct)
    }

    fn segment(&self, from: Place) -> Rc<Segment> {
        let known = self.segments.borrow().get(&from).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(segment::segment(self.state, from));
            self.segments.borrow_mut().insert(from, Rc::clone(&found));
            found
        })
    }
}

fn walked(tracer: &Tracer, query: &Query) -> Report {
    let state = tracer.state;
    if state.spaces.is_empty() {
        return ends::nothing_read(query);
    }
    let mut walk = Walk::new(tracer, query);
    let first = walk.through(false);
    let first = by_every_way(tracer, query, first, walk.ways);
    // To a port that the target publishes, and not to be had directly, the published one is meant.
    if first.verdict != Verdict::Delivered
        && ends::publishes(state, query)
        && matches!(
            (&query.source, &query.target),
            (Source::Space(_, _), Target::Space(_))
        )
    {
        return Walk::new(tracer, query).through(true);
    }
    by_another_address(tracer, query, &first).unwrap_or(first)
}

/// Where a route has several ways, one that is not whole is told of: some packets take it.
fn by_every_way(tracer: &Tracer, query: &Query, first: Report, ways: usize) -> Report {
    let whole = |r: &Report| r.verdict == Verdict::Delivered;
    let mut all = vec![first];
    for way in 1..ways.min(MOST_WAYS) {
        let mut walk = Walk::new(tracer, query);
        walk.way = way;
        all.push(walk.through(false));
    }
    let one_is_whole = all.iter().any(whole);
    let mut taken = match all.iter().position(|r| !whole(r) && r.cause.is_some()) {
        Some(broken) if one_is_whole => all.swap_remove(broken),
        _ => return all.swap_remove(0),
    };
    taken.some_pass = true;
    taken.notes.push(format!(
        "{ways} ways serve the same route, and not all are whole; which one a packet takes depends on its addresses"
    ));
    taken
}

/// A namespace that shares several segments with the sender may be had at another of its addresses.
fn by_another_address(tracer: &Tracer, query: &Query, first: &Report) -> Option<Report> {
    let (Source::Space(_, _), Target::Space(_)) = (&query.source, &query.target) else {
        return None;
    };
    let mut avoid = Vec::new();
    let mut last = first.clone();
    for _ in 0..MOST_ADDRESSES {
        if last.verdict == Verdict::Delivered {
            return Some(last);
        }
        avoid.push(last.destination.address.as_deref()?.parse().ok()?);
        let mut walk = Walk::new(tracer, query);
        walk.avoid.clone_from(&avoid);
        last = walk.through(false);
        let again = last.destination.address.as_deref()?.parse().ok()?;
        if avoid.contains(&again) {
            return None;
        }
    }
    None
}

/// Addresses whose spaces would have to be read to follow the packet further.
pub fn unread_ends(state: &ObservedState, query: &Query) -> Vec<IpAddr> {
    let tracer = Tracer::new(state);
    let mut walk = Walk::new(&tracer, query);
    let ends = walk.ends(false);
    if let Some(start) = ends.start.clone() {
        let there = walk.run(start);
        let arrived = walk.arrive(&ends, there);
        walk.way_back(&ends, arrived);
    }
    walk.missed
}
