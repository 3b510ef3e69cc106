//! The source address that the kernel chooses for a destination.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::state::{Address, RouteKind, Space};

use super::route::Chosen;

/// Addresses that are not waiting for, or failed, duplicate detection.
pub(super) fn usable_addresses(space: &Space) -> impl Iterator<Item = &Address> {
    space.addrs.iter().filter(|a| !a.dad_failed && !a.tentative)
}

/// The source address the kernel chooses for a route.
pub(super) fn choose_source(space: &Space, chosen: &Chosen, dst: IpAddr) -> Option<IpAddr> {
    if let Some(src) = chosen.route.prefsrc {
        return Some(src);
    }
    if matches!(chosen.route.kind, RouteKind::Local) {
        return Some(dst);
    }
    let link = chosen.hop.and_then(|h| h.link);
    let near = chosen.hop.and_then(|h| h.via).unwrap_or(dst);
    match Family::of(dst) {
        Family::V4 => source_v4(space, link, near),
        Family::V6 => source_v6(space, link, dst),
    }
}

fn source_v4(space: &Space, link: Option<u32>, near: IpAddr) -> Option<IpAddr> {
    let fit: Vec<&Address> = usable_addresses(space)
        .filter(|a| a.net.addr().is_ipv4() && a.scope < 254)
        .collect();
    let on = |a: &&&Address| Some(a.link) == link;
    fit.iter()
        .filter(on)
        .find(|a| a.net.contains(&near) || a.peer == Some(near))
        .or_else(|| fit.iter().find(on))
        .or_else(|| fit.iter().find(|a| a.scope == 0))
        .map(|a| a.net.addr())
}

/// RFC 6724, section 5, as far as one host's addresses differ.
fn source_v6(space: &Space, link: Option<u32>, dst: IpAddr) -> Option<IpAddr> {
    let narrow = |a: IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let unique = |a: IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unique_local());
    let common = |a: IpAddr| match (a, dst) {
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => 0,
    };
    usable_addresses(space)
        .filter(|a| a.net.addr().is_ipv6() && !a.net.addr().is_loopback())
        .filter(|a| !narrow(a.net.addr()) || Some(a.link) == link)
        .max_by_key(|a| {
            let addr = a.net.addr();
            (
                addr == dst,
                narrow(addr) == narrow(dst),
                !a.deprecated,
                Some(a.link) == link,
                unique(addr) == unique(dst),
                common(addr),
            )
        })
        .map(|a| a.net.addr())
}
