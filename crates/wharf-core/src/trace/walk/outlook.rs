//! What the doctor and the exposure ask of the walk besides whole traces: a client at one wire, what one hook's rules
//! say, who hangs on a segment.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::env::{Blame, CtState, Ending};
use crate::trace::packet::Packet;
use crate::trace::query::Query;
use crate::trace::report::{Cause, Report};
use crate::trace::ruleset::Hook;
use crate::trace::state::{Address, HOST, Link, ObservedState, Place, Route, Space};

use super::hooks::{Site, Sort};
use super::segment::{last, segment};
use super::{Tracer, Walk};
use super::{ends, outside, owner, route, rules};

/// Walks a packet of a client that is on the wire of a link of the host.
pub(in crate::trace) fn by_wire(tracer: &Tracer, query: &Query, link: u32) -> Report {
    let mut walk = Walk::new(tracer, query);
    walk.wire = Some(link);
    walk.through(false)
}

/// What the IP rules of one hook of the host do with a first packet.
pub(in crate::trace) struct Judged {
    /// How it ends.
    pub ending: Ending,
    /// The rule or policy that decided.
    pub blame: Option<Blame>,
    /// The same, as a cause, where the packet is stopped.
    pub cause: Option<Cause>,
    /// The packet afterwards.
    pub packet: Packet,
    /// The rule that translated its destination.
    pub translated: Option<Blame>,
}

/// Where a packet is judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::trace) struct At {
    /// The hook.
    pub hook: Hook,
    /// The incoming link.
    pub iif: Option<u32>,
    /// The outgoing link.
    pub oif: Option<u32>,
}

/// Judges a packet from `src` to `dst`, as the query's protocol and port have it.
pub(in crate::trace) fn judge(
    tracer: &Tracer,
    query: &Query,
    at: At,
    src: IpAddr,
    dst: IpAddr,
) -> Judged {
    let state = tracer.state;
    let walk = Walk::new(tracer, query);
    let packet = walk.packet(HOST, src, dst, query.port);
    let mut site = Site::new(HOST, at.hook, Sort::Ip);
    (site.iif, site.oif) = (at.iif, at.oif);
    site.local = at.hook == Hook::Output;
    let mut ct = CtState::begun(&packet);
    let run = walk.evaluate(site, packet, &mut ct, &state.host().ruleset);
    let stopped = matches!(run.ending, Ending::Drop | Ending::Reject);
    let cause = run.blame.as_ref().filter(|_| stopped).map(|blame| {
        walk.fault_of_rule(site, blame, &run.packet)
            .cause(&state.host().name)
    });
    let translated = run.translations.iter().rfind(|t| !t.source);
    Judged {
        ending: run.ending,
        cause,
        translated: translated.map(|t| t.rule.clone()),
        packet: run.packet,
        blame: run.blame,
    }
}

/// A rule or a policy, as its tool names it.
pub(in crate::trace) fn shown(blame: &Blame) -> String {
    rules::object(blame)
}

/// Links to which frames from a link come, the link itself apart.
pub(in crate::trace) fn stations(state: &ObservedState, from: Place) -> Vec<Place> {
    let mut all: Vec<Place> = segment(state, from).stations.iter().map(last).collect();
    all.retain(|p| *p != from);
    all.dedup();
    all
}

/// Links of the host to the outside, those of default routes first.
pub(in crate::trace) fn uplinks(state: &ObservedState, family: Family) -> Vec<u32> {
    outside::uplinks(state, family)
}

/// A client's address that comes in by the default route, or, without one, a neighbour's.
pub(in crate::trace) fn stranger(state: &ObservedState, family: Family) -> IpAddr {
    outside::stranger(state, family)
}

/// Usable global addresses of a space.
pub(in crate::trace) fn addresses(space: &Space, family: Family) -> impl Iterator<Item = &Address> {
    ends::addresses(space, family)
}

/// Whether the space has a way to everybody, be it one that refuses.
pub(in crate::trace) fn leads_out(space: &Space, family: Family) -> bool {
    // Addresses that nobody has (RFC 5737, RFC 3849).
    let far: IpAddr = match family {
        Family::V4 => std::net::Ipv4Addr::new(192, 0, 2, 50).into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50).into(),
    };
    !matches!(
        route::lookup(space, &route::Ask::to(far), &route::Skip::default()),
        route::Found::Nothing
    )
}

/// Whose a link is.
pub(in crate::trace) fn owner_of(
    state: &ObservedState,
    place: Place,
) -> crate::trace::report::Owner {
    owner::of_link(state, place)
}

/// A route as `ip route` prints it.
pub(in crate::trace) fn show_route(space: &Space, route: &Route) -> String {
    super::show::show_route(space, route, None)
}

/// An address with a port.
pub(in crate::trace) fn show_end(addr: IpAddr, port: u16) -> String {
    ends::show_end(addr, port)
}

/// A link's name as a part of a sysctl's.
pub(in crate::trace) fn sysctl_name(link: &Link) -> String {
    route::sysctl_name(&link.name)
}

/// `net.ipv4.ip_local_port_range`.
pub(in crate::trace) fn port_range(space: &Space) -> (u16, u16) {
    ends::port_range(space)
}

/// Whether the space takes packets to this address as its own.
pub(in crate::trace) fn is_local(space: &Space, addr: IpAddr) -> bool {
    route::is_local(space, addr)
}
