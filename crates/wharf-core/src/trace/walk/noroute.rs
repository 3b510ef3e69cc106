//! No route, a route that refuses, a policy rule in the way, a link that took its routes down with it.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::packet::Packet;
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::state::{
    Address, HOST, Link, Place, PolicyRule, Route, RouteKind, RuleAction, Space, SpaceId,
};

use super::Walk;
use super::fault::Fault;
use super::host::{Out, six};
use super::owner;
use super::route::{self, Ask, Chosen, Refuser};
use super::segment::is_bridge;
use super::show::{show_route, show_rule};

impl<'a> Walk<'a> {
    /// A link that is down took its routes with it, and a wider route now catches the packet.
    pub(super) fn hidden_by_down_link(
        &self,
        id: SpaceId,
        dst: IpAddr,
        chosen: &Chosen<'a>,
    ) -> Option<&'a Address> {
        if chosen.route.kind != RouteKind::Unicast {
            return None;
        }
        let space = self.space(id);
        space.addrs.iter().find(|a| {
            let down = space.link(a.link).is_some_and(|l| !l.up && !l.loopback);
            down && route::same_family(a.net, dst)
                && a.net.contains(&dst)
                && a.net.prefix_len() > chosen.route.dst.prefix_len()
        })
    }

    pub(super) fn refused(&self, id: SpaceId, by: Refuser<'a>) -> (Verdict, Fault) {
        let space = self.space(id);
        let quiet = |silent: bool| {
            if silent {
                Verdict::Dropped
            } else {
                Verdict::Rejected
            }
        };
        match by {
            Refuser::Route(r, None) => {
                let shown = show_route(space, r, None);
                let six = six(r.dst.addr());
                let what = format!("A route of {} refuses the destination: {shown}", space.name);
                let fault = Fault::new(Code::RouteRejects, id, shown.clone(), what)
                    .owner(owner::of_route(r))
                    .evidence(format!(
                        "{}ip {six}route show table all: {shown}",
                        space.enter
                    ))
                    .fix(match r.nexthop {
                        // For the tool such a route is a usual one, and the object is what drops.
                        Some(_) => format!(
                            "{}ip {six}route del {} table {}",
                            space.enter,
                            super::show::show_prefix(r.dst),
                            r.table
                        ),
                        None => format!("{}ip {six}route del {shown}", space.enter),
                    });
                (quiet(r.kind == RouteKind::Blackhole), fault)
            }
            Refuser::Route(r, Some(rule)) => {
                let shown = show_route(space, r, None);
                let fault = self
                    .policy(id, rule, &format!("which holds the route {shown}"))
                    .evidence(format!(
                        "{}ip {}route show table {}: {shown}",
                        space.enter,
                        six(r.dst.addr()),
                        r.table
                    ));
                (quiet(r.kind == RouteKind::Blackhole), fault)
            }
            Refuser::Rule(rule) => {
                let silent = rule.action == crate::trace::state::RuleAction::Blackhole;
                (quiet(silent), self.policy(id, rule, "which refuses it"))
            }
        }
    }

    /// A policy rule is to blame.
    pub(super) fn policy(&self, id: SpaceId, rule: &PolicyRule, how: &str) -> Fault {
        let space = self.space(id);
        let shown = show_rule(rule);
        let flag = if rule.family == Family::V6 { "-6 " } else { "" };
        if rule.protocol == owner::WHARF && id == HOST {
            let what = format!(
                "wharf's packet rules did not see the packet, and it has no way without ({shown})."
            );
            return Fault::new(Code::PolicyRule, id, shown.clone(), what)
                .owner(Owner::Wharf)
                .evidence(format!("ip {flag}rule: {}: {shown}", rule.priority))
                .evidence("nft list table inet wharf: something is missing")
                .fix("wharf repair");
        }
        let what = format!(
            "A policy rule of {} takes the packet: {shown}, {how}.",
            space.name
        );
        Fault::new(Code::PolicyRule, id, shown.clone(), what)
            .evidence(format!("{}ip {flag}rule: {shown}", space.enter))
            .fix(format!(
                "{}ip {flag}rule del priority {}",
                space.enter, rule.priority
            ))
    }

    /// There is no route: why, and which way the packet would go if there were.
    pub(super) fn no_route(&mut self, id: SpaceId, packet: &Packet) -> (Fault, Option<Out<'a>>) {
        let dst = packet.dst;
        let (space, six) = (self.space(id), six(dst));
        if let Some(place) = self.only_down_link(id, dst) {
            return self.went_with_link(id, place, dst);
        }
        if dst.is_ipv6()
            && super::ends::addresses(space, Family::V6).next().is_none()
            && let Some(fault) = self.v6_off(id)
        {
            return (fault, None);
        }
        if self.reply
            && let Some(fault) = self.no_way_back(id, packet)
        {
            return (fault, None);
        }
        let thrown = |r: &&Route| {
            r.kind == RouteKind::Throw && r.table == route::MAIN && r.dst.contains(&dst)
        };
        let guess = self.likely_gateway(id, dst);
        let out = guess.map(|(link, via)| Out {
            next: via,
            gateway: true,
            ..self.on_link(id, link, dst)
        });
        if let Some(r) = space.routes.iter().find(thrown) {
            return (self.refused(id, Refuser::Route(r, None)).1, out);
        }
        if let Some(net) = self.internal_only(id) {
            let what = format!(
                "The network {net} of {} is internal and has no way out.",
                space.name
            );
            let fault =
                super::ends::wharf(Fault::new(Code::InternalNetwork, id, net.clone(), what))
                    .evidence(format!("wharf network inspect {net}: internal"))
                    .evidence(format!(
                        "{}ip {six}route get {dst}: unreachable",
                        space.enter
                    ))
                    .fix(format!("wharf network connect default {}", space.name));
            return (fault, None);
        }
        let ask = Ask::of(packet, None);
        if let Some(r) = route::in_main(space, &ask) {
            let shown = show_route(space, r, None);
            if let Some(rule) = jumping_over_main(space, dst) {
                let how = format!("which goes past the table main with the route {shown}");
                return (self.policy(id, rule, &how), out);
            }
            let what = format!(
                "{} has the route {shown}, but no policy rule looks it up.",
                space.name
            );
            let fault = Fault::new(Code::PolicyRule, id, "lookup main", what)
                .evidence(format!(
                    "{}ip {six}rule: no rule for the main table",
                    space.enter
                ))
                .fix(format!(
                    "{}ip {six}rule add priority 32766 lookup main",
                    space.enter
                ));
            return (fault, out);
        }
        if let Some(found) = self.short_prefix(id, dst) {
            return found;
        }
        let what = format!("{} has no route to {dst}.", space.name);
        let mut fault = Fault::new(Code::NoRoute, id, dst.to_string(), what).evidence(format!(
            "{}ip {six}route get {dst}: unreachable",
            space.enter
        ));
        let lost = || self.lost_gateway(id, dst);
        fault = match guess.or_else(lost) {
            Some((_, via)) => fault.fix(self.default_route(id, via)),
            None => fault.fix(format!("{}ip {six}route show table all", space.enter)),
        };
        (fault, out)
    }

    /// The destination is on the segment of one of the space's links, whose prefix does not hold it.
    fn short_prefix(&self, id: SpaceId, dst: IpAddr) -> Option<(Fault, Option<Out<'a>>)> {
        let owners = owner::holders(self.state, dst);
        let space = self.space(id);
        super::ends::addresses(space, Family::of(dst)).find_map(|own| {
            let place = Place {
                space: id,
                index: own.link,
            };
            let seg = super::segment::segment(self.state, place);
            let at = owners
                .iter()
                .find(|o| o.space != id && seg.way_to(**o).is_some())?;
            let far = self.space(at.space).addrs.iter();
            let far = far.into_iter().find(|a| a.net.addr() == dst)?;
            if !far.net.contains(&own.net.addr()) {
                return None;
            }
            let dev = self.link_name(place);
            let shown = format!("{} dev {dev}", own.net);
            let what =
                format!("The prefix of {shown} does not hold {dst}, which is on that segment.");
            let net = format!("{}/{}", own.net.addr(), far.net.prefix_len());
            let nodad = if dst.is_ipv6() { " nodad" } else { "" };
            let mut fault = Fault::new(Code::WrongPrefixLength, id, shown.clone(), what)
                .evidence(format!(
                    "{}ip {}route get {dst}: unreachable",
                    space.enter,
                    six(dst)
                ))
                .evidence(format!(
                    "{}ip addr show dev {dev}: {}",
                    space.enter, own.net
                ))
                .fix(format!("{}ip addr del {} dev {dev}", space.enter, own.net))
                .fix(format!("{}ip addr add {net} dev {dev}{nodad}", space.enter));
            if let Some((_, via)) = self.likely_gateway(id, dst) {
                fault = fault.fix(self.default_route(id, via));
            }
            Some((fault, Some(self.on_link(id, own.link, dst))))
        })
    }

    /// The route went with a link that is down. The kernel makes only the link's own prefix anew.
    fn went_with_link(&self, id: SpaceId, place: Place, dst: IpAddr) -> (Fault, Option<Out<'a>>) {
        let space = self.space(id);
        let mut own = space
            .addrs
            .iter()
            .filter(|a| a.link == place.index && route::same_family(a.net, dst));
        let on_link = self.on_link(id, place.index, dst);
        let fault = self.link_down(place);
        if own.clone().any(|a| a.net.contains(&dst)) {
            return (fault, Some(on_link));
        }
        let Some(via) = own.find_map(|a| self.router_near(id, a)) else {
            let lost = self.lost_gateway(id, dst).map(|(_, via)| via);
            let fix = lost.map(|via| self.default_route(id, via));
            return (fault.fixes(fix), None);
        };
        let fault = fault.fix(self.default_route(id, via));
        let out = Out {
            next: via,
            gateway: true,
            ..on_link
        };
        (fault, Some(out))
    }

    /// The link that would carry the packet, if the only thing wrong is that it is down.
    pub(super) fn only_down_link(&self, id: SpaceId, dst: IpAddr) -> Option<Place> {
        let space = self.space(id);
        let mut down = space.links.iter().filter(|l| !l.up && !l.loopback);
        let addressed = |l: &Link| {
            space
                .addrs
                .iter()
                .any(|a| a.link == l.index && a.scope == 0)
        };
        let leads_out = |l: &Link| {
            let mut routes = space.routes.iter();
            routes.any(|r| {
                let mut hops = r.hops.iter();
                route::same_family(r.dst, dst)
                    && hops.any(|h| h.link == Some(l.index) && h.via.is_some())
            })
        };
        // A link that is down has no routes, and not even IPv6 addresses.
        let lost = down.clone().find(|l| addressed(l) && !is_bridge(l));
        let up = space.links.iter().any(|l| {
            let mut addrs = space.addrs.iter();
            let fits =
                addrs.any(|a| a.link == l.index && route::same_family(a.net, dst) && a.scope == 0);
            // A bridge of containers is no way out.
            l.up && !l.loopback && !is_bridge(l) && fits && (lost.is_none() || leads_out(l))
        });
        let covers = |l: &&Link| {
            space
                .addrs
                .iter()
                .any(|a| a.link == l.index && a.net.contains(&dst))
        };
        let first = lost.or(down.clone().next());
        let link = down.find(covers).or(first.filter(|_| !up))?;
        Some(Place {
            space: id,
            index: link.index,
        })
    }

    pub(super) fn internal_only(&self, id: SpaceId) -> Option<String> {
        let container = self.container(self.space(id).container.as_deref()?)?;
        let nets: Vec<_> = container
            .attachments
            .iter()
            .filter_map(|a| self.network(a.network.as_str()))
            .collect();
        let all = !nets.is_empty() && nets.iter().all(|n| n.internal);
        all.then(|| nets[0].name.to_string())
    }

    /// A link that is administratively down.
    pub(super) fn link_down(&self, place: Place) -> Fault {
        let space = self.space(place.space);
        let link = self.state.link(place);
        let name = link.map_or("?", |l| l.name.as_str());
        let (code, what) = if link.is_some_and(is_bridge) {
            (Code::BridgeDown, format!("The bridge {name} is down."))
        } else {
            (Code::LinkDown, format!("{name} in {} is down.", space.name))
        };
        let mut fault = Fault::new(code, place.space, name, what)
            .owner(owner::of_link(self.state, place))
            .evidence(format!("{}ip link show {name}: state DOWN", space.enter))
            .fix(format!("{}ip link set {name} up", space.enter));
        let peer = link.and_then(|l| l.peer);
        if let Some(other) = peer.and_then(|p| self.state.link(p)) {
            fault = fault.evidence(format!("its other end {} shows NO-CARRIER", other.name));
        }
        fault
    }

    /// A router on one of the space's links.
    pub(super) fn likely_gateway(&self, id: SpaceId, dst: IpAddr) -> Option<(u32, IpAddr)> {
        let space = self.space(id);
        let family = Family::of(dst);
        let own = super::ends::addresses(space, family);
        own.into_iter()
            .find_map(|a| Some((a.link, self.router_near(id, a)?)))
    }
}

/// A policy rule that goes on behind the one for the main table.
pub(super) fn jumping_over_main(space: &Space, dst: IpAddr) -> Option<&PolicyRule> {
    let family = Family::of(dst);
    let main = RuleAction::Table(route::MAIN);
    let mut rules = space.rules.iter().filter(|r| r.family == family);
    let at = rules.clone().find(|r| r.action == main)?.priority;
    rules.find(|r| r.priority < at && matches!(r.action, RuleAction::Goto(to) if to > at))
}
