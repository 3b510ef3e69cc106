//! Who hangs on the same wire: cables, bridges and what is stacked on links, as if all of it were up.
//!
//! Not here: what of it is broken (`frame`), who answers for an address (`neighbour`).

use std::collections::BTreeSet;

use crate::trace::state::{Link, ObservedState, Place};

/// The most links that are looked at from one place.
const MOST: usize = 20_000;

/// A link on the way, and whether the frame leaves its space there or comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leg {
    pub place: Place,
    pub out: bool,
}

/// A way through links, the first one included.
pub(super) type Way = Vec<Leg>;

/// What a frame sent by one link can reach.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    /// Links where it comes to the IP of a space, the nearest first, with the way there.
    pub stations: Vec<Way>,
    /// Ways that end on a wire whose other end was not read.
    pub open: Vec<Way>,
}

impl Segment {
    /// The way to a link.
    pub fn way_to(&self, place: Place) -> Option<&Way> {
        self.stations.iter().find(|w| last(w) == place)
    }

    /// Bridges that are passed or reached.
    pub fn bridges(&self, state: &ObservedState) -> Vec<Place> {
        let mut all: Vec<Place> = Vec::new();
        for leg in self.stations.iter().chain(&self.open).flatten() {
            if state.link(leg.place).is_some_and(is_bridge) && !all.contains(&leg.place) {
                all.push(leg.place);
            }
        }
        all
    }
}

/// The last link of a way.
pub(super) fn last(way: &Way) -> Place {
    way.last().map_or(Place { space: 0, index: 0 }, |l| l.place)
}

/// Whether it is a bridge.
pub(super) fn is_bridge(link: &Link) -> bool {
    link.bridge.is_some() || link.kind.as_deref() == Some("bridge")
}

fn is_kind(link: &Link, kinds: &[&str]) -> bool {
    link.kind.as_deref().is_some_and(|k| kinds.contains(&k))
}

/// Whether frames pass between it and its like on the same link (`MACVLAN_MODE_BRIDGE`; ipvlan always does).
pub(super) fn switches(link: &Link) -> bool {
    const BRIDGE: u32 = 4;
    link.macvlan.is_none_or(|mode| mode == BRIDGE)
}

/// The link that a stacked one lies on.
pub(super) fn lower(state: &ObservedState, place: Place, link: &Link) -> Option<Place> {
    let near = || {
        let space = link.lower_space.unwrap_or(place.space);
        let index = link.lower?;
        Some(Place { space, index })
    };
    link.peer.or_else(near).filter(|p| state.link(*p).is_some())
}

struct Node {
    leg: Leg,
    tag: Option<u16>,
    before: Option<usize>,
}

struct Search<'a> {
    state: &'a ObservedState,
    nodes: Vec<Node>,
    seen: BTreeSet<(Leg, Option<u16>)>,
    found: Segment,
    /// Links that lie on another one, with that one.
    stacked: Vec<(Place, Place)>,
}

/// Everything that a frame sent by `from` can reach.
pub(super) fn segment(state: &ObservedState, from: Place) -> Segment {
    let mut search = Search {
        state,
        nodes: Vec::new(),
        seen: BTreeSet::new(),
        found: Segment::default(),
        stacked: Vec::new(),
    };
    search.stacked = search.stacked();
    search.push(from, true, None, None);
    let mut at = 0;
    while at < search.nodes.len() && at < MOST {
        search.expand(at);
        at += 1;
    }
    search.found
}

impl Search<'_> {
    fn push(&mut self, place: Place, out: bool, tag: Option<u16>, before: Option<usize>) {
        let leg = Leg { place, out };
        if self.state.link(place).is_some() && self.seen.insert((leg, tag)) {
            self.nodes.push(Node { leg, tag, before });
        }
    }

    fn way(&self, at: usize) -> Way {
        let mut way = Vec::new();
        let mut next = Some(at);
        while let Some(i) = next {
            way.push(self.nodes[i].leg);
            next = self.nodes[i].before;
        }
        way.reverse();
        way
    }

    fn expand(&mut self, at: usize) {
        let Node { leg, tag, .. } = self.nodes[at];
        let Some(link) = self.state.link(leg.place) else {
            return;
        };
        if leg.out {
            self.leave(at, leg.place, link, tag);
        } else {
            self.enter(at, leg.place, link, tag);
        }
    }

    fn leave(&mut self, at: usize, place: Place, link: &Link, tag: Option<u16>) {
        let here = Some(at);
        if is_bridge(link) || is_kind(link, &["bond", "team"]) {
            for port in self.members(place) {
                self.push(port, true, tag, here);
            }
        } else if is_kind(link, &["macvlan", "macvtap", "ipvlan", "vlan"]) {
            let Some(lower) = self.lower(place, link) else {
                let way = self.way(at);
                self.found.open.push(way);
                return;
            };
            let tagged = if is_kind(link, &["vlan"]) {
                link.vlan.or(Some(0))
            } else {
                let switches = |p: Place| self.state.link(p).is_some_and(switches);
                for child in self.children(lower) {
                    if child != place && switches(place) && switches(child) {
                        self.push(child, false, tag, here);
                    }
                }
                tag
            };
            self.push(lower, true, tagged, here);
        } else if is_kind(link, &["vxlan"]) {
            let ends = self.vxlan_ends(place, link);
            if ends.is_empty() {
                let way = self.way(at);
                self.found.open.push(way);
            }
            for end in ends {
                self.push(end, false, tag, here);
            }
        } else if let Some(peer) = link.peer.filter(|p| self.state.link(*p).is_some()) {
            self.push(peer, false, tag, here);
        } else if link.loopback {
            self.push(place, false, tag, here);
        } else if !is_kind(link, &["dummy"]) {
            let way = self.way(at);
            self.found.open.push(way);
        }
    }

    fn enter(&mut self, at: usize, place: Place, link: &Link, tag: Option<u16>) {
        let here = Some(at);
        for child in self.children(place) {
            self.push(child, false, tag, here);
        }
        let master = link.master.map(|index| Place { index, ..place });
        match master.and_then(|m| Some((m, self.state.link(m)?))) {
            Some((m, bridge)) if is_bridge(bridge) => {
                self.push(m, false, tag, here);
                for port in self.members(m) {
                    if port != place {
                        self.push(port, true, tag, here);
                    }
                }
            }
            Some((m, bond)) if is_kind(bond, &["bond", "team"]) => self.push(m, false, tag, here),
            _ => match tag {
                None => {
                    let way = self.way(at);
                    self.found.stations.push(way);
                }
                Some(id) => {
                    for vlan in self.vlans(place, id) {
                        self.push(vlan, false, None, here);
                    }
                }
            },
        }
    }

    fn members(&self, master: Place) -> Vec<Place> {
        self.in_space(master.space, |l| l.master == Some(master.index))
    }

    fn vlans(&self, lower: Place, id: u16) -> Vec<Place> {
        self.in_space(lower.space, |l| {
            is_kind(l, &["vlan"])
                && l.lower == Some(lower.index)
                && (l.vlan == Some(id) || l.vlan.is_none())
        })
    }

    fn in_space(&self, space: usize, fits: impl Fn(&Link) -> bool) -> Vec<Place> {
        self.state.spaces.get(space).map_or(Vec::new(), |s| {
            let index = s.links.iter().filter(|l| fits(l)).map(|l| l.index);
            index.map(|index| Place { space, index }).collect()
        })
    }

    fn lower(&self, place: Place, link: &Link) -> Option<Place> {
        lower(self.state, place, link)
    }

    fn children(&self, lower: Place) -> Vec<Place> {
        let on = self.stacked.iter().filter(|(below, _)| *below == lower);
        on.map(|(_, child)| *child).collect()
    }

    fn stacked(&self) -> Vec<(Place, Place)> {
        let mut all = Vec::new();
        for (space, s) in self.state.spaces.iter().enumerate() {
            for link in &s.links {
                let place = Place {
                    space,
                    index: link.index,
                };
                if is_kind(link, &["macvlan", "macvtap", "ipvlan"])
                    && let Some(lower) = self.lower(place, link)
                {
                    all.push((lower, place));
                }
            }
        }
        all
    }

    fn vxlan_ends(&self, place: Place, link: &Link) -> Vec<Place> {
        let mut all = Vec::new();
        for (space, s) in self.state.spaces.iter().enumerate() {
            for other in &s.links {
                let end = Place {
                    space,
                    index: other.index,
                };
                if end != place && is_kind(other, &["vxlan"]) && other.vni == link.vni {
                    all.push(end);
                }
            }
        }
        all
    }
}
