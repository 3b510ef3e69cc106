//! Which of the objects that should be in the kernel are there, and as what.
//!
//! Not here: tables of nftables (`rules`), and what to do about a difference (the core's `diff`).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::rule::{RuleAction as Action, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use wharf_core::addr::{Family, Mac};
use wharf_core::extras::Traits;
use wharf_core::model::{
    Hop, Link, LinkKind, Netns, PORT_GROUP, PolicyRule, Port, ROUTE_PROTOCOL, Resource, RuleAction,
};
use wharf_core::name::IfName;

use super::{LOCAL, LinkInfo, MAIN, RouteInfo};
use crate::kernel::netlink::{NetlinkKernel, sysctl};
use crate::process::netns;

/// `RTN_BLACKHOLE`.
const BLACKHOLE: u8 = 6;
/// `RTN_UNREACHABLE`.
const UNREACHABLE: u8 = 7;
/// `RTN_PROHIBIT`.
const PROHIBIT: u8 = 8;

/// One namespace as it is. Empty if it cannot be entered.
#[derive(Default)]
struct Place {
    links: HashMap<String, LinkInfo>,
    addrs: HashSet<(u32, IpNet)>,
    routes: Vec<RouteInfo>,
    neighbours: HashMap<(u32, IpAddr), Mac>,
    forwarding: HashSet<(u32, Mac)>,
    /// Links of which what comes in is filtered; looked for where it matters.
    taps: HashSet<u32>,
}

impl Place {
    fn index(&self, link: &IfName) -> Option<u32> {
        self.links.get(link.as_str()).map(|l| l.index)
    }

    /// Whether a port of wharf's own bridge has settings that wharf does not make, and that keep frames from it or let them
    /// past the rules. It counts as not plugged in: plugged in anew it has none of them.
    fn spoilt(&self, link: &LinkInfo) -> bool {
        let (Some(port), Some(master)) = (link.port, link.master) else {
            return false;
        };
        let mut bridges = self.links.values();
        let stands = bridges.any(|b| b.index == master && b.up && b.traits.stp == Some(false));
        link.group & !1 == PORT_GROUP && (!port.plain || !port.forwards && stands && link.up)
    }

    fn rename(&mut self, names: &[(&IfName, &IfName)]) {
        for (from, to) in names {
            if let Some(mut link) = self.links.remove(from.as_str()) {
                link.name = to.to_string();
                self.links.insert(to.to_string(), link);
            }
        }
    }
}

impl NetlinkKernel {
    /// What of `wanted` the kernel holds; of an object that is there in another form, that form. Objects of
    /// nftables are passed over.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn observe(&mut self, wanted: &[Resource]) -> io::Result<Vec<Resource>> {
        self.observe_renamed(wanted, &[])
    }

    /// As [`NetlinkKernel::observe`], as it will be when links of the host have the names that come second instead of those
    /// that come first.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn observe_renamed(
        &mut self,
        wanted: &[Resource],
        names: &[(&IfName, &IfName)],
    ) -> io::Result<Vec<Resource>> {
        let mut places: HashMap<Netns, Place> = HashMap::new();
        let mut seen = Vec::new();
        let tables: HashSet<u32> = wanted.iter().filter_map(own_table).collect();
        let mut rules: HashMap<Netns, Vec<PolicyRule>> = HashMap::new();
        // Ends of cables that are there, but not under their name where they were put: their owner's doing.
        let mut hidden: HashSet<(Netns, IfName)> = HashSet::new();
        for resource in wanted {
            for place in places_of(resource) {
                if let Entry::Vacant(entry) = places.entry(place) {
                    let mut found = self.place(entry.key())?;
                    if *entry.key() == Netns::Host {
                        found.rename(names);
                    }
                    entry.insert(found);
                }
            }
            if matches!(resource, Resource::Detour { .. })
                && let Some(host) = places.get_mut(&Netns::Host)
                && host.taps.is_empty()
            {
                host.taps = self.taps()?;
            }
            let found = match resource {
                Resource::Nft(_) => None,
                Resource::Netns(path) => netns::open(path).is_ok().then(|| resource.clone()),
                Resource::Rule(rule) => {
                    let all = match rules.entry(rule.netns.clone()) {
                        Entry::Occupied(all) => all.into_mut(),
                        Entry::Vacant(entry) => {
                            let all = self.rules(entry.key());
                            // A namespace that is gone has none.
                            let gone = rule.netns != Netns::Host && all.is_err();
                            entry.insert(if gone { Vec::new() } else { all? })
                        }
                    };
                    all.contains(rule).then(|| resource.clone())
                }
                Resource::Sysctl {
                    netns,
                    key,
                    link,
                    value: wanted,
                } => {
                    let of_link = |(_, to): &&(&IfName, &IfName)| link.as_ref() == Some(*to);
                    let path = match names.iter().find(of_link) {
                        Some((from, to)) => key.replace(&format!("/{to}/"), &format!("/{from}/")),
                        None => key.clone(),
                    };
                    let value = self.sysctl(netns, &path).unwrap_or_default();
                    let value = value.map(|v| v.split_whitespace().collect::<Vec<_>>().join(" "));
                    let mut out_of_reach =
                        || self.inside(netns, || Ok(sysctl::is_out_of_reach(&path, wanted)));
                    if value.as_ref().is_some_and(|is| is != wanted) && out_of_reach()? {
                        Some(resource.clone())
                    } else {
                        value.map(|value| Resource::Sysctl {
                            netns: netns.clone(),
                            key: key.clone(),
                            value,
                            link: link.clone(),
                        })
                    }
                }
                other => find(other, &places, &tables),
            };
            if let (Some(_), Some((netns, peer))) = (&found, far_end(resource))
                && places.get(&netns).is_none_or(|p| p.index(&peer).is_none())
            {
                hidden.insert((netns, peer));
            }
            let found = found.or_else(|| {
                let out_of_reach = inside_of(resource).is_some_and(|end| hidden.contains(&end));
                out_of_reach.then(|| resource.clone())
            });
            seen.extend(found);
        }
        Ok(seen)
    }

    /// The host's links with an `ingress` discipline.
    fn taps(&mut self) -> io::Result<HashSet<u32>> {
        const INGRESS: u32 = 0xffff_fff1;
        // struct tcmsg: family, link, handle, parent, info.
        const SIZE: usize = 20;
        let mut found = HashSet::new();
        let rt = self.rt(&Netns::Host)?;
        rt.dump_raw(libc::RTM_GETQDISC, &[0; SIZE], |kind, body| {
            let word = |at: usize| {
                let bytes = body.get(at..at + 4).and_then(|b| b.try_into().ok());
                bytes.map_or(0, u32::from_ne_bytes)
            };
            if kind == libc::RTM_NEWQDISC && word(12) == INGRESS {
                found.insert(word(4));
            }
        })?;
        Ok(found)
    }

    fn place(&mut self, place: &Netns) -> io::Result<Place> {
        let links = match self.links(place) {
            Ok(links) => links,
            Err(_) if *place != Netns::Host => return Ok(Place::default()),
            Err(error) => return Err(error),
        };
        let mut found = Place {
            links: links.into_iter().map(|l| (l.name.clone(), l)).collect(),
            addrs: self.addrs(place)?.into_iter().collect(),
            ..Place::default()
        };
        if *place == Netns::Host {
            for message in self.neighbours(AddressFamily::Unspec)? {
                found.neighbours.extend(neighbour(&message));
            }
            for message in self.neighbours(AddressFamily::Bridge)? {
                found.forwarding.extend(forwarding(&message));
            }
        }
        found.routes = self.routes(place)?;
        Ok(found)
    }

    /// Of these bridges of the host, by their hardware addresses, those that do not take frames as their own: the entry for
    /// themselves is not in their table.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn deaf_bridges<'a>(
        &mut self,
        bridges: impl Iterator<Item = (&'a IfName, Mac)>,
    ) -> io::Result<Vec<(&'a IfName, Mac)>> {
        let messages = self.neighbours(AddressFamily::Bridge)?;
        let permanent = messages
            .iter()
            .filter(|m| m.header.state == NeighbourState::Permanent);
        let own: HashSet<(u32, Mac)> = permanent
            .filter_map(|m| Some((m.header.ifindex, hardware(m)?)))
            .collect();
        let links = self.links(&Netns::Host)?;
        let deaf = |(name, mac): &(&IfName, Mac)| {
            let link = links.iter().find(|l| l.name == name.as_str());
            link.is_some_and(|l| l.mac == Some(*mac) && !own.contains(&(l.index, *mac)))
        };
        Ok(bridges.filter(deaf).collect())
    }

    /// Wharf's rules of policy routing, and its destinations without a way in `table`.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_routing(&mut self, table: u32) -> io::Result<Vec<Resource>> {
        let rules = self.rules(&Netns::Host)?.into_iter();
        let rules = rules.map(Resource::Rule);
        let routes = self.routes(&Netns::Host)?.into_iter();
        let ours =
            routes.filter(|r| (r.table, r.kind, r.protocol) == (table, BLACKHOLE, ROUTE_PROTOCOL));
        let ours = ours.map(|r| Resource::Blackhole { dst: r.dst, table });
        Ok(rules.chain(ours).collect())
    }

    /// Wharf's rules of policy routing in one namespace.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn rules(&mut self, place: &Netns) -> io::Result<Vec<PolicyRule>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RuleMessage::default();
            ask.header.family = family;
            let answers = match self.rt(place)?.dump(&Message::GetRule(ask)) {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                other => other?,
            };
            all.extend(answers.iter().filter_map(|m| match m {
                Message::NewRule(message) => policy_rule(place, message),
                _ => None,
            }));
        }
        Ok(all)
    }

    /// The permanent neighbours of the host that wharf made, by their protocol number, with the number of their link.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_neighbours(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let all = self.neighbours(AddressFamily::Unspec)?;
        let by_wharf = |a: &NeighbourAttribute| matches!(a, NeighbourAttribute::Protocol(by) if u8::from(*by) == ROUTE_PROTOCOL);
        let own = all.iter().filter(|m| m.attributes.iter().any(by_wharf));
        Ok(own.filter_map(neighbour).map(|(at, _)| at).collect())
    }

    pub(super) fn neighbours(
        &mut self,
        family: AddressFamily,
    ) -> io::Result<Vec<NeighbourMessage>> {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family;
        let answers = self.rt(&Netns::Host)?.dump(&Message::GetNeighbour(ask))?;
        let own = |m| match m {
            Message::NewNeighbour(message) => Some(message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(own).collect())
    }
}

/// A rule of wharf's, by its protocol number.
fn policy_rule(place: &Netns, message: &RuleMessage) -> Option<PolicyRule> {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let (mut from, mut iif, mut mark, mut to, mut ours) = (None, None, None, None, false);
    let (mut priority, mut table) = (0, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Source(addr) => {
                from = IpNet::new(*addr, message.header.src_len).ok();
            }
            RuleAttribute::Iifname(name) if name == "lo" => iif = Some(IfName::loopback()),
            RuleAttribute::Iifname(name) => iif = name.parse::<IfName>().ok(),
            RuleAttribute::FwMark(bits) if *bits != 0 => mark = Some(*bits),
            RuleAttribute::Goto(number) => to = Some(*number),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Protocol(by) => ours = u8::from(*by) == ROUTE_PROTOCOL,
            _ => {}
        }
    }
    let action = match (message.header.action, to) {
        (Action::Goto, Some(to)) => RuleAction::Goto(to),
        (Action::ToTable, _) => RuleAction::Lookup(table),
        (Action::Nop, _) => RuleAction::Nop,
        (Action::Blackhole, _) => RuleAction::Blackhole,
        _ => return None,
    };
    ours.then_some(PolicyRule {
        netns: place.clone(),
        family,
        priority,
        from,
        iif,
        mark,
        action,
    })
}

/// The container's end of a cable.
fn far_end(resource: &Resource) -> Option<(Netns, IfName)> {
    match resource {
        Resource::Link(Link {
            kind: LinkKind::Veth {
                peer, peer_netns, ..
            },
            ..
        }) => Some((peer_netns.clone(), peer.clone())),
        _ => None,
    }
}

/// The link that a setting belongs to.
fn inside_of(resource: &Resource) -> Option<(Netns, IfName)> {
    match resource {
        Resource::Up { netns, link }
        | Resource::Addr { netns, link, .. }
        | Resource::Route { netns, link, .. }
        | Resource::Traits { netns, link, .. }
        | Resource::Sysctl {
            netns,
            link: Some(link),
            ..
        } => Some((netns.clone(), link.clone())),
        _ => None,
    }
}

fn places_of(resource: &Resource) -> Vec<Netns> {
    match resource {
        Resource::Link(Link {
            netns,
            kind: LinkKind::Veth { peer_netns, .. },
            ..
        }) => vec![netns.clone(), peer_netns.clone()],
        Resource::Link(Link { netns, .. })
        | Resource::Up { netns, .. }
        | Resource::Addr { netns, .. }
        | Resource::Traits { netns, .. }
        | Resource::Route { netns, .. } => vec![netns.clone()],
        Resource::Netns(_) | Resource::Sysctl { .. } | Resource::Nft(_) | Resource::Rule(_) => {
            Vec::new()
        }
        _ => vec![Netns::Host],
    }
}

fn hardware(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

/// A permanent entry.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let addr = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    Some(((message.header.ifindex, addr), hardware(message)?))
}

/// A static entry of a bridge's table, for no VLAN.
pub(super) fn forwarding(message: &NeighbourMessage) -> Option<(u32, Mac)> {
    let of_bridge = message
        .attributes
        .iter()
        .any(|a| matches!(a, NeighbourAttribute::Controller(_)));
    let of_vlan = message
        .attributes
        .iter()
        .any(|a| matches!(a, NeighbourAttribute::Vlan(vlan) if *vlan != 0));
    if !of_bridge || of_vlan || message.header.state != NeighbourState::Noarp {
        return None;
    }
    Some((message.header.ifindex, hardware(message)?))
}

fn find(
    wanted: &Resource,
    places: &HashMap<Netns, Place>,
    tables: &HashSet<u32>,
) -> Option<Resource> {
    let host = places.get(&Netns::Host);
    let there = match wanted {
        Resource::Link(link) => return link_as_it_is(link, places).map(Resource::Link),
        Resource::Port(port) => {
            let link = host?.links.get(port.link.as_str())?;
            let is = link.port.unwrap_or_default();
            // Setting a port raises it: one that is down has not been set.
            return (link.up && !host?.spoilt(link)).then(|| {
                Resource::Port(Port {
                    link: port.link.clone(),
                    locked: is.locked,
                    learning: is.learning,
                    hairpin: is.hairpin,
                    isolated: is.isolated,
                    vlan: port.vlan,
                    ipv6: port.ipv6,
                    alias: link.alias.clone().unwrap_or_default(),
                })
            });
        }
        Resource::Up { netns, link } => places.get(netns)?.links.get(link.as_str())?.up,
        Resource::Addr { netns, link, addr } => {
            let place = places.get(netns)?;
            place.addrs.contains(&(place.index(link)?, *addr))
        }
        Resource::Route { netns, .. } => has_route(places.get(netns)?, wanted, tables),
        Resource::Shaper { link, .. } => {
            host?.links.get(link.as_str())?.qdisc.as_deref() == Some("tbf")
        }
        // Its filter hangs on the one and leads to the other, and goes with either.
        Resource::Detour { from, by } => {
            let place = host?;
            place.index(by).is_some() && place.taps.contains(&place.index(from)?)
        }
        Resource::Traits {
            netns,
            link,
            traits,
            before,
        } => {
            let is = &places.get(netns)?.links.get(link.as_str())?.traits;
            return Some(Resource::Traits {
                netns: netns.clone(),
                link: link.clone(),
                traits: asked_of(traits, is),
                before: before.clone(),
            });
        }
        Resource::Neigh { link, addr, .. } => {
            let place = host?;
            let is = place.neighbours.get(&(place.index(link)?, *addr))?;
            return Some(Resource::Neigh {
                link: link.clone(),
                addr: *addr,
                mac: *is,
            });
        }
        Resource::Fdb { link, mac } => {
            let place = host?;
            let port = place.links.get(link.as_str())?;
            place.forwarding.contains(&(port.index, *mac)) && !place.spoilt(port)
        }
        Resource::Blackhole { dst, table } => host?
            .routes
            .iter()
            .any(|r| (r.table, r.dst, r.kind) == (*table, *dst, BLACKHOLE)),
        Resource::Netns(_) | Resource::Sysctl { .. } | Resource::Nft(_) | Resource::Rule(_) => {
            false
        }
    };
    there.then(|| wanted.clone())
}

/// The table that a route is wanted in, where that is not the main one.
fn own_table(resource: &Resource) -> Option<u32> {
    match resource {
        Resource::Route { more, .. } => more.table,
        _ => None,
    }
}

/// Whether a route is there: to the same destination, the same way, in the same table. One of a container may have been
/// moved from the main table to one of those that are not wharf's: source-based routing does so.
fn has_route(place: &Place, wanted: &Resource, tables: &HashSet<u32>) -> bool {
    let Resource::Route {
        netns,
        dst,
        hop,
        link,
        metric,
        more,
    } = wanted
    else {
        return false;
    };
    let oif = place.index(link);
    let way = |r: &RouteInfo| match hop {
        Hop::Via(gateway) if more.any_link => r.gateway == Some(*gateway),
        Hop::Via(gateway) => oif.is_some() && (r.gateway, r.oif) == (Some(*gateway), oif),
        Hop::Link => oif.is_some() && (r.gateway, r.oif) == (None, oif),
        Hop::Blackhole => r.kind == BLACKHOLE,
        Hop::Unreachable => r.kind == UNREACHABLE,
        Hop::Prohibit => r.kind == PROHIBIT,
    };
    let table = more.table.unwrap_or(MAIN);
    let moved = |r: &RouteInfo| {
        table == MAIN && *netns != Netns::Host && r.table != LOCAL && !tables.contains(&r.table)
    };
    place.routes.iter().any(|r| {
        r.dst == *dst
            && (r.table == table || moved(r))
            && way(r)
            && metric.is_none_or(|m| r.metric == Some(m))
    })
}

/// Of settings as they are, those that are asked for.
fn asked_of(wanted: &Traits, is: &Traits) -> Traits {
    Traits {
        promisc: wanted.promisc.and(is.promisc),
        allmulti: wanted.allmulti.and(is.allmulti),
        tx_queue: wanted.tx_queue.and(is.tx_queue),
        mac: wanted.mac.and(is.mac),
        mtu: wanted.mtu.and(is.mtu),
        arp: wanted.arp.and(is.arp),
        stp: wanted.stp.and(is.stp),
    }
}

/// The inside of a cable is its container's: the host's end is compared.
fn link_as_it_is(wanted: &Link, places: &HashMap<Netns, Place>) -> Option<Link> {
    let place = places.get(&wanted.netns)?;
    let is = place.links.get(wanted.name.as_str())?;
    let right_kind = match &wanted.kind {
        LinkKind::Bridge => is.kind.as_deref() == Some("bridge"),
        LinkKind::Veth { .. } => is.kind.as_deref() == Some("veth"),
        LinkKind::Ifb => is.kind.as_deref() == Some("ifb"),
        LinkKind::Macvlan { .. } => is.kind.as_deref() == Some("macvlan"),
    };
    if !right_kind {
        return None;
    }
    let master = is.master.filter(|_| !place.spoilt(is));
    let master = master.and_then(|index| {
        let bridge = place.links.values().find(|l| l.index == index)?;
        bridge.name.parse::<IfName>().ok()
    });
    Some(Link {
        mac: wanted.mac.and(is.mac),
        mtu: wanted.mtu.map(|_| is.mtu),
        master,
        // A bridge's group may be somebody else's, and wharf does without.
        group: match wanted.kind {
            LinkKind::Bridge => wanted.group,
            _ => is.group,
        },
        // A bridge is raised by itself.
        up: wanted.up && is.up,
        ..wanted.clone()
    })
}
