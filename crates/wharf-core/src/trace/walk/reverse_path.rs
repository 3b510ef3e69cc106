//! The reverse path filter (`rp_filter`): has the source of a packet a way back by the link it came in by?

use crate::trace::packet::Packet;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{HOST, Link, Route, RouteKind, Space, SpaceId};

use super::Walk;
use super::fault::Fault;
use super::host::{leads_by, six};
use super::noroute::jumping_over_main;
use super::owner;
use super::route::{self, Ask, Found, Refuser, Skip, sysctl_name};
use super::show::{self, deletable};

impl<'a> Walk<'a> {
    /// `rp_filter`: the way back to the source must (1) leave by the same link, or (2) exist. `out` is the link by which
    /// the packet is passed on.
    pub(super) fn check_reverse_path(
        &mut self,
        id: SpaceId,
        link: &'a Link,
        packet: &Packet,
        out: Option<&'a Link>,
    ) {
        if link.loopback || reverse_path_holds(self.space(id), link, packet, out) {
            return;
        }
        let fault = self.reverse_path(id, link, packet, out);
        self.blame(Verdict::Dropped, "route", fault);
    }

    /// Why the reverse path filter of a link drops a packet.
    pub(super) fn reverse_path(
        &self,
        id: SpaceId,
        link: &Link,
        packet: &Packet,
        out: Option<&Link>,
    ) -> Fault {
        if let Some(fault) = self.behind_filter(id, link, packet, out) {
            return fault;
        }
        let space = self.space(id);
        let own = format!("net.ipv4.conf.{}.rp_filter", sysctl_name(&link.name));
        let all = "net.ipv4.conf.all.rp_filter".to_owned();
        let (at_link, at_all) = (
            space.sysctl(&own).unwrap_or(0),
            space.sysctl(&all).unwrap_or(0),
        );
        let (name, value) = if at_link >= at_all {
            (own.clone(), at_link)
        } else {
            (all, at_all)
        };
        let mut ask = Ask::to(packet.src);
        (ask.src, ask.iif) = (Some(packet.dst), out);
        let back = match route::lookup(space, &ask, &Skip::default()) {
            Found::Route(c) => show::show_route(space, c.route, c.hop),
            Found::Refused(Refuser::Rule(rule) | Refuser::Route(_, Some(rule))) => {
                let how = format!(
                    "which refuses the way back to {}, so that {name} drops what comes from there",
                    packet.src
                );
                return self.policy(id, rule, &how);
            }
            Found::Refused(Refuser::Route(_, None)) | Found::Nothing => "no route".to_owned(),
        };
        let what = format!(
            "{} drops packets from {} that come in by {}, since the way back is another ({back}).",
            space.name, packet.src, link.name
        );
        let mend = if value == 1 { 2 } else { 0 };
        // With 2 for the link the greater of both is 2, whatever is set for all.
        let set = if mend == 2 { &own } else { &name };
        Fault::new(Code::ReversePathFilter, id, name.clone(), what)
            .evidence(format!("{}sysctl {name}: {value}", space.enter))
            .evidence(format!(
                "{}ip route get {}: {back}",
                space.enter, packet.src
            ))
            .fix(format!("{}sysctl -w {set}={mend}", space.enter))
    }

    /// What took the way back from a container. On wharf's own bridges the filter is what keeps packets in that the rules
    /// did not let pass: it is never what is wrong, and to loosen it would let them out.
    fn behind_filter(
        &self,
        id: SpaceId,
        link: &Link,
        packet: &Packet,
        out: Option<&Link>,
    ) -> Option<Fault> {
        let net = self.network_of_bridge(Some(link.index).filter(|_| id == HOST))?;
        let own = net
            .subnets
            .iter()
            .find(|s| s.subnet.contains(&packet.src))?;
        let (space, src) = (self.space(id), packet.src);
        let thrown = |r: &&'a Route| {
            r.kind == RouteKind::Throw && r.table == route::MAIN && r.dst.contains(&src)
        };
        let mut fault = match way_back(space, link, packet, out) {
            Found::Refused(by) => self.refused(id, by).1,
            Found::Nothing => {
                if let Some(rule) = jumping_over_main(space, src) {
                    self.policy(id, rule, "which goes past the table main")
                } else if let Some(r) = space.routes.iter().find(thrown) {
                    self.refused(id, Refuser::Route(r, None)).1
                } else {
                    self.lost_route(net, own)
                }
            }
            Found::Route(c) => match c.rule {
                Some(rule) => self.policy(id, rule, "which leads it elsewhere"),
                // What is left catches everything: the network's own route is not there.
                None if c.route.dst.prefix_len() < own.subnet.prefix_len() => {
                    self.lost_route(net, own)
                }
                None => {
                    let shown = show::show_route(space, c.route, c.hop);
                    let what = format!(
                        "{src} is at wharf's bridge {}, and the host's route to it leads elsewhere: {shown}.",
                        link.name
                    );
                    Fault::new(Code::RouteConflict, id, shown.clone(), what)
                        .owner(owner::of_route(c.route))
                        .evidence(format!("ip {}route get {src}: {shown}", six(src)))
                        .fix(format!("ip {}route del {}", six(src), deletable(&shown)))
                }
            },
        };
        fault = fault.evidence(format!(
            "sysctl net.ipv4.conf.{}.rp_filter: a source without a way back is dropped",
            sysctl_name(&link.name)
        ));
        Some(fault)
    }
}

/// The greater of two settings of IPv4, for a link and for all.
fn either(space: &Space, link: &Link, what: &str) -> i64 {
    let value = |l: &str| space.sysctl(&format!("net.ipv4.conf.{l}.{what}"));
    let (all, own) = (value("all"), value(&sysctl_name(&link.name)));
    all.unwrap_or(0).max(own.unwrap_or(0))
}

/// As the filter looks up the way back to a packet's source.
fn way_back<'a>(space: &'a Space, link: &Link, packet: &Packet, out: Option<&Link>) -> Found<'a> {
    let mut ask = Ask::back(packet);
    ask.iif = out;
    if either(space, link, "src_valid_mark") == 1 {
        ask.mark = packet.mark;
    }
    route::lookup(space, &ask, &Skip::default())
}

/// Whether the reverse path filter of a link lets a packet in. The way back is asked for as if it came in by `out`, the
/// link by which the packet is passed on (`fib_validate_source`).
pub(super) fn reverse_path_holds(
    space: &Space,
    link: &Link,
    packet: &Packet,
    out: Option<&Link>,
) -> bool {
    if packet.src.is_ipv6() || packet.src.is_unspecified() {
        return true;
    }
    let filter = either(space, link, "rp_filter");
    if filter == 0 {
        return true;
    }
    let Found::Route(back) = way_back(space, link, packet, out) else {
        return false;
    };
    if back.route.kind != RouteKind::Unicast {
        // Its own address as a source is another matter.
        return true;
    }
    let vrf = link.master.is_some_and(|m| leads_by(&back.route.hops, m));
    if leads_by(&back.route.hops, link.index) || vrf {
        return true;
    }
    let addressed = space
        .addrs
        .iter()
        .any(|a| a.link == link.index && a.net.addr().is_ipv4());
    filter == 2 && addressed
}
