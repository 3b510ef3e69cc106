//! Routes of all tables, and nexthop objects.

use std::collections::HashMap;

use ipnet::IpNet;
use wharf_core::addr::Family;
use wharf_core::trace::state::{NextHop, Route, RouteKind};

use super::attrs::{Attrs, byte, ip, short, word};

/// `RTM_GETROUTE`.
pub(super) const GET: u16 = 26;
/// `sizeof(struct rtmsg)`.
pub(super) const HEADER: usize = 12;
/// `RTM_GETNEXTHOP`.
pub(super) const GET_NEXTHOP: u16 = 106;
/// `sizeof(struct nhmsg)`.
pub(super) const NEXTHOP_HEADER: usize = 8;
const RTNH_F_DEAD: u8 = 1;
const RTNH_F_ONLINK: u8 = 4;
const RTNH_F_LINKDOWN: u8 = 16;

/// The family of a number.
pub(super) fn family(number: u8) -> Option<Family> {
    match i32::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// A prefix; all addresses of the family where there is no address.
pub(super) fn prefix(family: Family, addr: Option<&[u8]>, length: u8) -> Option<IpNet> {
    let addr = addr.and_then(ip).unwrap_or_else(|| family.any());
    IpNet::new(addr, length).ok()
}

/// A route, and the nexthop object it names.
pub(super) struct Row {
    pub(super) route: Route,
    /// `RTA_NH_ID`, where the kernel did not spell the object out.
    pub(super) nexthop: Option<u32>,
}

fn kind(number: u8) -> RouteKind {
    match number {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        4 => RouteKind::Anycast,
        5 => RouteKind::Multicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        9 => RouteKind::Throw,
        n => RouteKind::Other(n),
    }
}

fn rejects(kind: RouteKind) -> bool {
    use RouteKind::{Blackhole, Prohibit, Throw, Unreachable};
    matches!(kind, Blackhole | Unreachable | Prohibit | Throw)
}

/// Reads an `RTM_NEWROUTE`.
pub(super) fn read(body: &[u8]) -> Option<Row> {
    /// `RTM_F_CLONED`: a remembered exception, no route of the table.
    const CLONED: u32 = 0x200;
    if body.len() < HEADER || word(body, 8) & CLONED != 0 {
        return None;
    }
    let family = family(body[0])?;
    let attrs = Attrs::after(body, HEADER);
    let number = |kind| attrs.get(kind).map(|v| word(v, 0));
    let what = kind(body[7]);
    let mut route = Route {
        dst: prefix(family, attrs.get(1), body[1])?,
        kind: what,
        table: number(15).unwrap_or(u32::from(body[4])),
        hops: Vec::new(),
        prefsrc: attrs.get(7).and_then(ip),
        metric: number(6).unwrap_or(0),
        protocol: body[5],
        scope: body[6],
        tos: body[3],
        // RTA_METRICS: RTAX_MTU
        mtu: attrs.nested(8).get(2).map(|v| word(v, 0)),
        from: prefix(family, attrs.get(2), body[2]).filter(|n| n.prefix_len() > 0),
        nexthop: number(30),
    };
    if !rejects(what) {
        route.hops = match attrs.get(9) {
            Some(list) => multipath(list),
            None => {
                let hop = hop(attrs, number(4), body[8]);
                let empty = hop.link.is_none() && hop.via.is_none();
                (!empty).then_some(hop).into_iter().collect()
            }
        };
    }
    let nexthop = route.nexthop.filter(|_| route.hops.is_empty());
    Some(Row { route, nexthop })
}

fn hop(attrs: Attrs<'_>, link: Option<u32>, flags: u8) -> NextHop {
    // RTA_GATEWAY, or RTA_VIA with a family before it.
    let via = attrs.get(18).and_then(|v| ip(v.get(2..)?));
    NextHop {
        via: attrs.get(5).and_then(ip).or(via),
        link,
        onlink: flags & RTNH_F_ONLINK != 0,
        dead: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
    }
}

/// `RTA_MULTIPATH`: `struct rtnexthop` each with attributes.
fn multipath(mut list: &[u8]) -> Vec<NextHop> {
    const HEADER: usize = 8;
    let mut hops = Vec::new();
    while list.len() >= HEADER {
        let length = usize::from(short(list, 0));
        let Some(one) = list.get(..length).filter(|o| o.len() >= HEADER) else {
            break;
        };
        hops.push(hop(
            Attrs::after(one, HEADER),
            Some(word(one, 4)),
            byte(one, 2),
        ));
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// A nexthop object.
pub(super) enum Object {
    /// One way.
    Way(NextHop),
    /// It drops.
    Blackhole,
    /// Several others.
    Group(Vec<u32>),
}

/// Reads an `RTM_NEWNEXTHOP`.
pub(super) fn read_nexthop(body: &[u8]) -> Option<(u32, Object)> {
    let attrs = Attrs::after(body, NEXTHOP_HEADER);
    let id = word(attrs.get(1)?, 0);
    let object = if attrs.get(4).is_some() {
        Object::Blackhole
    } else if let Some(group) = attrs.get(2) {
        // struct nexthop_grp is id, weight and room: eight bytes.
        Object::Group(group.chunks_exact(8).map(|g| word(g, 0)).collect())
    } else {
        let flags = word(body, 4) as u8;
        Object::Way(NextHop {
            via: attrs.get(6).and_then(ip),
            link: attrs.get(5).map(|v| word(v, 0)),
            onlink: flags & RTNH_F_ONLINK != 0,
            dead: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
        })
    };
    Some((id, object))
}

/// The route with its object spelled out.
pub(super) fn spell_out(row: Row, objects: &HashMap<u32, Object>) -> Route {
    let mut route = row.route;
    match row.nexthop.and_then(|id| objects.get(&id)) {
        Some(Object::Way(hop)) => route.hops.push(hop.clone()),
        Some(Object::Blackhole) => route.kind = RouteKind::Blackhole,
        Some(Object::Group(ids)) => {
            let hops = ids.iter().filter_map(|id| match objects.get(id) {
                Some(Object::Way(hop)) => Some(hop.clone()),
                _ => None,
            });
            route.hops.extend(hops);
        }
        None => {}
    }
    route
}
