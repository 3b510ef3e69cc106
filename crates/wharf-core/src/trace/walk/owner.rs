//! Whose a link, an address or a route is, by the marks their makers leave.

use std::net::IpAddr;

use crate::trace::report::Owner;
use crate::trace::state::{HOST, Link, ObservedState, Place, Route, SpaceId};

use super::segment::lower;

/// `rtm_protocol` of wharf's routes and routing rules.
pub(super) const WHARF: u8 = 119;

/// Whose a link is.
pub(super) fn of_link(state: &ObservedState, place: Place) -> Owner {
    let Some(link) = state.link(place) else {
        return Owner::User;
    };
    let name = link.name.as_str();
    if place.space == HOST {
        let mut bridges = state.networks.iter().filter(|n| n.has_own_bridge());
        let bridge = bridges.any(|n| n.bridge.as_str() == name);
        let cable = state
            .containers
            .iter()
            .flat_map(|c| &c.attachments)
            .any(|a| a.host_interface.as_str() == name);
        if bridge || cable {
            return Owner::Wharf;
        }
        return by_name(state, link);
    }
    let container = state.spaces[place.space].container.as_deref();
    let ours = state
        .containers
        .iter()
        .filter(|c| Some(c.name.as_str()) == container)
        .flat_map(|c| &c.attachments)
        .any(|a| a.interface.as_str() == name);
    if ours { Owner::Wharf } else { Owner::User }
}

fn by_name(state: &ObservedState, link: &Link) -> Owner {
    let hex = |t: &str| t.len() == 12 && t.bytes().all(|b| b.is_ascii_hexdigit());
    let name = link.name.as_str();
    let docker = name == "docker0" || name.strip_prefix("br-").is_some_and(hex);
    match () {
        () if docker && state.tools.contains(&Owner::Docker) => Owner::Docker,
        () if name.starts_with("virbr") => Owner::Libvirt,
        () if name.starts_with("cni") || name.starts_with("flannel") => Owner::Kubernetes,
        () if name.starts_with("podman") => Owner::Podman,
        () => Owner::User,
    }
}

/// Whose a route is.
pub(super) fn of_route(route: &Route) -> Owner {
    if route.protocol == WHARF {
        Owner::Wharf
    } else {
        Owner::User
    }
}

/// All links that carry an address, in all spaces.
pub(super) fn holders(state: &ObservedState, addr: IpAddr) -> Vec<Place> {
    let mut all = Vec::new();
    for (space, s) in state.spaces.iter().enumerate() {
        for a in s.addrs.iter().filter(|a| a.net.addr() == addr) {
            let place = Place {
                space,
                index: a.link,
            };
            if !all.contains(&place) {
                all.push(place);
            }
        }
    }
    all
}

/// Whether links lead from one space to another, over whichever others.
pub(super) fn linked(state: &ObservedState, from: SpaceId, to: SpaceId) -> bool {
    let mut pairs = Vec::new();
    for (space, s) in state.spaces.iter().enumerate() {
        for link in &s.links {
            let index = link.index;
            let other = lower(state, Place { space, index }, link);
            pairs.extend(other.filter(|p| p.space != space).map(|p| (space, p.space)));
        }
    }
    let mut known = vec![from];
    let mut at = 0;
    while let Some(here) = known.get(at).copied() {
        for (a, b) in &pairs {
            for (near, far) in [(a, b), (b, a)] {
                if *near == here && !known.contains(far) {
                    known.push(*far);
                }
            }
        }
        at += 1;
    }
    known.contains(&to)
}

/// The space that a wharf container's address belongs to, by what wharf gave it.
pub(super) fn meant_for(state: &ObservedState, addr: IpAddr) -> Option<(SpaceId, String)> {
    state.containers.iter().find_map(|c| {
        let a = c
            .attachments
            .iter()
            .find(|a| a.addresses.iter().any(|n| n.addr() == addr))?;
        let space = state.container_space(c.name.as_str())?;
        Some((space, a.interface.as_str().to_owned()))
    })
}
