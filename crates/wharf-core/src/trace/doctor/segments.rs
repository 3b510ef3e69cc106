//! The segment of each network: addresses and hardware addresses that are there twice, and neighbour entries that point
//! at the wrong one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Family, Mac};
use crate::network::NetworkSpec;
use crate::trace::report::Code;
use crate::trace::state::{HOST, Link, Neighbour, NeighbourState, Place, Space};
use crate::trace::walk::outlook;

use super::Severity::{Error, Info, Warning};
use super::{Finding, Findings, Scene, host_place};

/// Links that share the hardware address of the one below.
const STACKED: [&str; 3] = ["ipvlan", "vlan", "bond"];

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for net in &scene.state.networks {
        let Some(bridge) = scene.bridge(net) else {
            continue;
        };
        let own = host_place(bridge.index);
        let mut ends = vec![own];
        ends.extend(outlook::stations(scene.state, own));
        let owners = same_address(scene, net, &ends, found);
        same_mac(scene, &ends, found);
        for place in &ends {
            let space = &scene.state.spaces[place.space];
            if space.full {
                neighbours(scene, *place, &owners, found);
            }
        }
    }
    on_the_host_too(scene, found);
}

fn link<'a>(scene: &Scene<'a>, place: Place) -> (&'a Space, Option<&'a Link>) {
    (&scene.state.spaces[place.space], scene.state.link(place))
}

/// Who has which address; those that two have are found.
fn same_address(
    scene: &Scene,
    net: &NetworkSpec,
    ends: &[Place],
    found: &mut Findings,
) -> BTreeMap<IpAddr, Vec<Place>> {
    let mut owners: BTreeMap<IpAddr, Vec<Place>> = BTreeMap::new();
    for place in ends {
        let space = &scene.state.spaces[place.space];
        let own = space.addrs.iter().filter(|a| a.link == place.index);
        for addr in own.filter(|a| a.scope == 0).map(|a| a.net.addr()) {
            let all = owners.entry(addr).or_default();
            if !all.contains(place) {
                all.push(*place);
            }
        }
    }
    for (addr, places) in owners.iter().filter(|(_, p)| p.len() > 1) {
        let rightful = |p: &&Place| {
            let name = scene.state.spaces[p.space].container.as_deref();
            let gateway = net.subnets.iter().any(|s| s.gateway == *addr);
            gateway && p.space == HOST
                || scene.of_net(net).any(|m| {
                    Some(m.name()) == name
                        && m.attachment.addresses.iter().any(|n| n.addr() == *addr)
                })
        };
        let right = places.iter().find(rightful);
        let Some(wrong) = places.iter().find(|p| Some(*p) != right) else {
            continue;
        };
        let other = right.or(places.iter().find(|p| *p != wrong));
        let (space, dev) = link(scene, *wrong);
        let dev = dev.map_or("?", |l| l.name.as_str());
        let near = other.map_or("?", |p| scene.state.spaces[p.space].name.as_str());
        let net_there = space.addrs.iter().find(|a| a.net.addr() == *addr);
        let shown = net_there.map_or(addr.to_string(), |a| a.net.to_string());
        let what = format!("{addr} is an address of {near} and of {}.", space.name);
        found.add(
            Finding::new(
                Error,
                Code::DuplicateAddress,
                &space.name,
                format!("{addr} dev {dev}"),
                what,
            )
            .evidence(format!("{}ip addr show dev {dev}: {shown}", space.enter))
            .fix(format!("{}ip addr del {shown} dev {dev}", space.enter))
            // Bridges and neighbours remember who spoke last.
            .fix(format!("ip neigh flush dev {} {addr}", net.bridge))
            .fix("wharf repair"),
        );
    }
    owners
}

fn same_mac(scene: &Scene, ends: &[Place], found: &mut Findings) {
    let mut all: BTreeMap<Mac, Vec<Place>> = BTreeMap::new();
    for place in ends {
        let Some(link) = scene.state.link(*place) else {
            continue;
        };
        let stacked = link.kind.as_deref().is_some_and(|k| STACKED.contains(&k));
        if let Some(mac) = link.mac.filter(|_| !stacked && !link.noarp) {
            all.entry(mac).or_default().push(*place);
        }
    }
    for (mac, places) in &all {
        let Some((first, rest)) = places.split_first() else {
            continue;
        };
        let Some(other) = rest.iter().find(|p| p.space != first.space) else {
            continue;
        };
        // The one that wharf gave another address is the one that was changed.
        let given = |p: &Place| {
            let members = scene.members.iter();
            members
                .filter(|m| m.place() == Some(*p))
                .map(|m| m.attachment.mac)
                .next()
        };
        let changed = [other, first]
            .into_iter()
            .find(|p| given(p).is_some_and(|g| g != *mac));
        let wrong = changed.unwrap_or(other);
        let near = if wrong == other { first } else { other };
        let ((space, dev), (beside, _)) = (link(scene, *wrong), link(scene, *near));
        let dev = dev.map_or("?", |l| l.name.as_str());
        let fresh = given(wrong).filter(|g| g != mac).unwrap_or_else(|| {
            let mut bytes = mac.0;
            bytes[0] = (bytes[0] | 2) & !1;
            bytes[5] ^= 0x55;
            Mac(bytes)
        });
        let what = format!(
            "{dev} in {} and a link in {} use one MAC address, {mac}; a bridge sends to whoever spoke last.",
            space.name, beside.name
        );
        found.add(
            Finding::new(
                Error,
                Code::DuplicateMac,
                &space.name,
                format!("{dev} {mac}"),
                what,
            )
            .evidence(format!("{}ip link show {dev}: {mac}", space.enter))
            .fix(format!("{}ip link set {dev} address {fresh}", space.enter)),
        );
    }
}

/// Entries that name another hardware address than the owner of the address has.
fn neighbours(
    scene: &Scene,
    at: Place,
    owners: &BTreeMap<IpAddr, Vec<Place>>,
    found: &mut Findings,
) {
    let (space, dev) = link(scene, at);
    // Without ARP all neighbours seem to be at the link itself.
    if dev.is_some_and(|l| l.noarp) {
        return;
    }
    let dev = dev.map_or("?", |l| l.name.as_str());
    for n in space
        .neighbours
        .iter()
        .filter(|n| n.link == at.index && !n.proxy)
    {
        let Some(owner) = owners.get(&n.addr).filter(|o| o.len() == 1 && o[0] != at) else {
            continue;
        };
        let right = scene.state.link(owner[0]).and_then(|l| l.mac);
        let (Some(right), Some(mac)) = (right, n.mac) else {
            continue;
        };
        let severity = match n.state {
            NeighbourState::Permanent | NeighbourState::NoArp => Error,
            NeighbourState::Reachable => Warning,
            // Asked again when it is needed.
            NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Info,
            NeighbourState::Incomplete | NeighbourState::Failed => continue,
        };
        // What wharf gave stands in the entry, and the interface was changed: that is found there.
        let given = scene.members.iter().any(|m| {
            let mut own = m.attachment.addresses.iter();
            m.attachment.mac == mac && own.any(|net| net.addr() == n.addr)
        });
        if mac != right && !given {
            found.add(wrong_neighbour(space, dev, n, (mac, right), severity));
        }
    }
}

fn wrong_neighbour(
    space: &Space,
    dev: &str,
    n: &Neighbour,
    (mac, right): (Mac, Mac),
    severity: super::Severity,
) -> Finding {
    let six = if Family::of(n.addr) == Family::V6 {
        "-6 "
    } else {
        ""
    };
    let (addr, enter) = (n.addr, &space.enter);
    let what = format!(
        "{} takes {addr} to be at {mac}, but it is at {right}.",
        space.name
    );
    let finding = Finding::new(
        severity,
        Code::NeighbourWrong,
        &space.name,
        format!("{addr} dev {dev} lladdr {mac}"),
        what,
    )
    .evidence(format!("{enter}ip {six}neigh show {addr} dev {dev}: {mac}"))
    .fix(format!("{enter}ip {six}neigh del {addr} dev {dev}"));
    // The host's own entries for containers are wharf's.
    if space.name == "host" {
        return finding.fix("wharf repair");
    }
    finding
}

/// An address of a container that the host has as well: its packets never leave the host.
fn on_the_host_too(scene: &Scene, found: &mut Findings) {
    let host = scene.host();
    for member in &scene.members {
        let bridge = scene.bridge(member.net).map(|b| b.index);
        for net in &member.attachment.addresses {
            let mut own = host.addrs.iter();
            let Some(same) = own.find(|a| a.net.addr() == net.addr() && Some(a.link) != bridge)
            else {
                continue;
            };
            let dev = host.link(same.link).map_or("?", |l| l.name.as_str());
            let what = format!(
                "{} of {} is an address of the host as well, on {dev}, and the host keeps it to itself.",
                net.addr(),
                member.name()
            );
            found.add(
                Finding::new(
                    Error,
                    Code::RouteConflict,
                    "host",
                    format!("{} dev {dev}", same.net),
                    what,
                )
                .evidence(format!("ip addr show dev {dev}: {}", same.net))
                .fix(format!("ip addr del {} dev {dev}", same.net)),
            );
        }
    }
}
