//! Beyond the uplink: clients and servers whose namespaces may not have been read, and what is published to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Family;
use crate::options::GatewayMode;
use crate::publish::{PortMapping, PortRange};
use crate::trace::packet::L4;
use crate::trace::query::Query;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{HOST, Link, ObservedState, Place, RouteKind, SpaceId};

use super::Walk;
use super::ends::{Ends, addresses, wharf};
use super::fault::Fault;
use super::route::{self, MAIN};
use super::segment::{is_bridge, last, segment};

/// Links by which the host reaches the outside: those of default routes first, then others with addresses.
pub(super) fn uplinks(state: &ObservedState, family: Family) -> Vec<u32> {
    let host = state.host();
    let is_default = |r: &&crate::trace::state::Route| {
        r.dst.prefix_len() == 0 && Family::of_net(r.dst) == family && r.kind == RouteKind::Unicast
    };
    let mut defaults: Vec<_> = host.routes.iter().filter(is_default).collect();
    defaults.sort_by_key(|r| (r.table != MAIN, r.metric));
    let mut all: Vec<u32> = defaults
        .iter()
        .flat_map(|r| r.hops.iter().filter_map(|h| h.link))
        .collect();
    let plain = |l: &&Link| !l.loopback && !is_bridge(l) && l.master.is_none();
    for link in host.links.iter().filter(plain) {
        if addresses(host, family).any(|a| a.link == link.index) {
            all.push(link.index);
        }
    }
    let mut seen = Vec::new();
    all.retain(|l| !seen.contains(l) && (seen.push(*l), true).1);
    all
}

/// Namespaces on the far side of a link that belong to no container.
fn beyond(state: &ObservedState, index: u32) -> Vec<SpaceId> {
    let mut all = Vec::new();
    for way in segment(state, Place { space: HOST, index }).stations {
        let id = last(&way).space;
        if id != HOST && state.spaces[id].container.is_none() && !all.contains(&id) {
            all.push(id);
        }
    }
    all
}

/// A client's namespace and address, if it was read.
pub(super) fn client(
    state: &ObservedState,
    asked: Option<IpAddr>,
    dst: IpAddr,
) -> Option<(SpaceId, IpAddr)> {
    let family = Family::of(dst);
    for link in uplinks(state, family) {
        for id in beyond(state, link) {
            let space = &state.spaces[id];
            match asked {
                Some(addr) if route::is_local(space, addr) => return Some((id, addr)),
                Some(_) => {}
                None => {
                    if let Some(addr) = farthest(state, id, family) {
                        return Some((id, addr));
                    }
                }
            }
        }
    }
    None
}

/// An address of an outside namespace, preferably one that is not on a link of the host.
fn farthest(state: &ObservedState, id: SpaceId, family: Family) -> Option<IpAddr> {
    let host = state.host();
    let on_link = |addr: IpAddr| addresses(host, family).any(|a| a.net.contains(&addr));
    let mut all: Vec<IpAddr> = addresses(&state.spaces[id], family)
        .map(|a| a.net.addr())
        .collect();
    all.sort_by_key(|a| on_link(*a));
    all.first().copied()
}

/// A host beyond the uplink, for packets to there.
pub(super) fn server(state: &ObservedState, family: Family) -> IpAddr {
    uplinks(state, family)
        .into_iter()
        .flat_map(|l| beyond(state, l))
        .find_map(|id| farthest(state, id, family))
        .unwrap_or_else(|| stranger(state, family))
}

/// An address that the default route leads to (RFC 5737, RFC 3849); without one, a neighbour's.
pub(super) fn stranger(state: &ObservedState, family: Family) -> IpAddr {
    let host = state.host();
    let default = host
        .routes
        .iter()
        .any(|r| r.dst.prefix_len() == 0 && Family::of_net(r.dst) == family);
    let near = uplinks(state, family).into_iter().find_map(|index| {
        let own = addresses(host, family).find(|a| a.link == index)?;
        own.net.hosts().find(|h| *h != own.net.addr())
    });
    match (default, family) {
        (false, _) if near.is_some() => near.unwrap_or(family.any()),
        (_, Family::V4) => Ipv4Addr::new(192, 0, 2, 50).into(),
        (_, Family::V6) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50).into(),
    }
}

/// The link by which an unread client's packet to `dst` comes in.
pub(super) fn entrance(state: &ObservedState, dst: IpAddr) -> Option<u32> {
    let host = state.host();
    let all = uplinks(state, Family::of(dst));
    let own = host
        .addrs
        .iter()
        .find(|a| a.net.addr() == dst && all.contains(&a.link));
    own.map(|a| a.link).or(all.first().copied())
}

/// The host's address that outside clients use.
pub(super) fn host_address(state: &ObservedState, family: Family) -> Option<IpAddr> {
    let host = state.host();
    uplinks(state, family).into_iter().find_map(|index| {
        addresses(host, family)
            .find(|a| a.link == index)
            .map(|a| a.net.addr())
    })
}

/// Where a port of a wharf container is published: the container's port is looked for first, then the host's.
pub(super) fn published(
    state: &ObservedState,
    id: SpaceId,
    query: &Query,
) -> Option<(IpAddr, u16)> {
    let name = state.spaces.get(id)?.container.as_deref()?;
    let container = state.containers.iter().find(|c| c.name.as_str() == name)?;
    let (port, l4) = (query.port, query.l4);
    let published = state.published(container);
    let fits = |m: &&PortMapping| {
        l4 != L4::Icmp
            && m.protocol.number() == l4.number(Family::V4)
            && !m.bound_to().is_some_and(|ip| ip.is_loopback())
    };
    let within = |r: PortRange| (r.first()..=r.last()).contains(&port);
    let all: Vec<_> = published.iter().map(|(_, m)| m).filter(fits).collect();
    let inner = all.iter().find(|m| within(m.container));
    let outer = all.iter().find(|m| within(m.host));
    let (mapping, shown) = match (inner, outer) {
        (Some(m), _) => (m, m.host.first() + (port - m.container.first())),
        (None, Some(m)) => (m, port),
        (None, None) => return None,
    };
    let addr = mapping.bound_to().or_else(|| {
        let families = Family::BOTH.into_iter().filter(|f| mapping.serves(*f));
        families.into_iter().find_map(|f| host_address(state, f))
    })?;
    Some((addr, shown))
}

impl<'a> Walk<'a> {
    /// What a client beyond the uplink means by a namespace.
    pub(super) fn target_from_outside(
        &mut self,
        asked: Option<IpAddr>,
        id: SpaceId,
        ends: &mut Ends<'a>,
    ) -> Option<(IpAddr, u16)> {
        let port = self.query.port;
        let family = asked.map_or(Family::V4, Family::of);
        if id == HOST {
            let addr = host_address(self.state, family);
            if addr.is_none() {
                self.blame_unaddressed(HOST, family);
            }
            return Some((addr?, port));
        }
        if let Some(found) = published(self.state, id, self.query) {
            return Some(found);
        }
        let own = addresses(self.space(id), family)
            .next()
            .map(|a| a.net.addr());
        let addr = own.or_else(|| self.target(HOST, asked, id))?;
        let client = asked.unwrap_or_else(|| stranger(self.state, Family::of(addr)));
        if Family::of(client) == Family::of(addr)
            && let Some(found) = self.published_by_rules(id, client)
        {
            return Some(found);
        }
        if self.is_closed(id, addr) {
            let fault = self.not_published(id, addr);
            self.blame(Verdict::Dropped, "published", fault);
            ends.stays = true;
        }
        Some((addr, port))
    }

    /// wharf lets nobody in from outside at that container's own address.
    fn is_closed(&self, id: SpaceId, addr: IpAddr) -> bool {
        let container = self.space(id).container.as_deref();
        let Some(c) = container.and_then(|n| self.container(n)) else {
            return false;
        };
        let of = c
            .attachments
            .iter()
            .find(|a| a.addresses.iter().any(|n| n.addr() == addr));
        let net = of.and_then(|a| self.state.networks.iter().find(|n| n.name == a.network));
        net.is_some_and(|n| {
            let mode = n.settings.gateway_mode(Family::of(addr));
            n.is_managed() && mode == GatewayMode::Nat && n.settings.trusted_interfaces.is_empty()
        })
    }

    /// No mapping leads to that port of that container.
    pub(super) fn not_published(&self, id: SpaceId, addr: IpAddr) -> Fault {
        let name = self.space(id).container.clone().unwrap_or_default();
        let (port, l4) = (self.query.port, self.query.l4);
        let container = self.container(&name);
        let internal = container.is_some_and(|c| {
            c.attachments.iter().all(|a| {
                let net = self.state.networks.iter().find(|n| n.name == a.network);
                net.is_some_and(|n| n.internal)
            })
        });
        if internal {
            let net = container.and_then(|c| c.attachments.first());
            let net = net.map_or(String::new(), |a| a.network.to_string());
            let what =
                format!("The network {net} of {name} is internal: nobody comes in from outside.");
            return wharf(Fault::new(Code::InternalNetwork, HOST, net.clone(), what))
                .evidence(format!("wharf network inspect {net}: internal"))
                .fix(format!("wharf network connect default {name}"));
        }
        if l4 == L4::Icmp {
            let what = format!("wharf lets no echo from outside through to {name} ({addr}).");
            return wharf(Fault::new(Code::NotPublished, HOST, addr.to_string(), what))
                .evidence(format!("wharf port ls {name}"))
                .fix(format!("wharf port add {name} 8080:80"));
        }
        let word = if l4 == L4::Udp { "udp" } else { "tcp" };
        let suffix = if l4 == L4::Udp { "/udp" } else { "" };
        let what = format!(
            "Port {port}/{word} of {name} is not published, and what is not published is closed."
        );
        let free = self.free_port(port, l4);
        wharf(Fault::new(
            Code::NotPublished,
            HOST,
            format!("{port}/{word}"),
            what,
        ))
        .evidence(format!(
            "wharf port ls {name}: no mapping for {port}/{word}"
        ))
        .fix(format!("wharf port add {name} {free}:{port}{suffix}"))
    }

    /// A host port that nobody has.
    fn free_port(&self, port: u16, l4: L4) -> u16 {
        let taken = |p: u16| {
            let mapped = self.state.containers.iter().flat_map(|c| &c.ports);
            let listens = &self.state.host().sockets;
            mapped
                .filter(|m| m.protocol.number() == l4.number(Family::V4))
                .any(|m| (m.host.first()..=m.host.last()).contains(&p))
                || listens.iter().any(|s| s.protocol == l4 && s.port == p)
        };
        let wish = if port < 1024 { 8000 + port } else { port };
        (wish..=u16::MAX).find(|p| !taken(*p)).unwrap_or(wish)
    }
}
