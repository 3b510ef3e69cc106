//! Passing on: forwarding, impossible addresses, the reverse path filter, TTL, and the rules between in and out.

use std::net::IpAddr;

use crate::trace::packet::Packet;
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{HOST, Link, Place, RouteKind, SpaceId};

use super::fault::Fault;
use super::hooks::{Site, Sort};
use super::host::six;
use super::owner::{holders, meant_for};
use super::route::{self, Ask, Found, Skip, sysctl_name};
use super::show;
use super::source;
use super::{Arrival, Passed, Step, Walk};

impl<'a> Walk<'a> {
    /// A packet that is not for this space.
    pub(super) fn forward(
        &mut self,
        id: SpaceId,
        link: &'a Link,
        port: Option<u32>,
        packet: Packet,
    ) -> Step<'a> {
        let station = (id, link.index, packet.src, packet.dst);
        if self.circle.contains(&station) {
            return self.goes_round(id, &packet);
        }
        self.circle.push(station);
        if let Some(fault) = self.not_local(id, packet.dst) {
            self.blame(Verdict::Dropped, "route", fault);
            return Step::End(Arrival::Lost);
        }
        if let Some(fault) = self.forwarding_off(id, link, &packet) {
            let fault = self.wrong_router(id, packet.dst).unwrap_or(fault);
            self.blame(Verdict::Dropped, "forward", fault);
        }
        let way = self.leaves_by(id, link, &packet);
        self.check_reverse_path(id, link, &packet, way);
        let src = packet.src;
        let Some(out) = self.route(id, &packet, Some(link)) else {
            return Step::End(Arrival::Lost);
        };
        if self.turned.is_some() {
            return Step::Emit(out.emit(id, packet));
        }
        let mut packet = packet;
        if packet.ttl <= 1 {
            let fault = self.ttl_spent(id, &packet);
            self.blame(Verdict::Dropped, "forward", fault);
            packet.ttl = 64;
        }
        packet.ttl -= 1;
        let mut site = Site::new(id, Hook::Forward, Sort::Ip);
        (site.iif, site.oif, site.port_in) = (Some(link.index), Some(out.link), port);
        self.ipsec_passing(site, &packet);
        if out.mtu < self.full {
            self.check_too_big(id, link, &out, &packet);
        }
        self.full = self.full.min(out.mtu);
        let before = self.rules(site, packet);
        site.hook = Hook::Postrouting;
        let packet = self.rules(site, before.clone());
        self.ipsec_leaving(site, Some(&before), &packet);
        self.passed.push(Passed {
            space: id,
            iif: link.index,
            oif: out.link,
            gateway: out.gateway,
            src,
            translated: packet.src != src,
        });
        self.dispatch(id, out, packet)
    }

    /// Forwarding is off: IPv4 asks the incoming link, IPv6 the space (before `force_forwarding`).
    fn forwarding_off(&self, id: SpaceId, link: &Link, packet: &Packet) -> Option<Fault> {
        let space = self.space(id);
        let own = sysctl_name(&link.name);
        let (name, off) = if packet.dst.is_ipv4() {
            let per_link = format!("net.ipv4.conf.{own}.forwarding");
            let all = space
                .sysctl("net.ipv4.ip_forward")
                .or_else(|| space.sysctl("net.ipv4.conf.all.forwarding"));
            let value = space.sysctl(&per_link).or(all);
            let name = if all == Some(0) {
                "net.ipv4.ip_forward".to_owned()
            } else {
                per_link
            };
            (name, value == Some(0))
        } else {
            let name = "net.ipv6.conf.all.forwarding".to_owned();
            let forced = space.sysctl(&format!("net.ipv6.conf.{own}.force_forwarding")) == Some(1);
            let off = space.sysctl(&name) == Some(0) && !forced;
            (name, off)
        };
        if !off {
            return None;
        }
        let what = format!(
            "{} passes no packets on: {name} is 0, and {} came in by {}.",
            space.name, packet.dst, link.name
        );
        Some(
            Fault::new(Code::ForwardingDisabled, id, name.clone(), what)
                .evidence(format!("{}sysctl {name}: 0", space.enter))
                .fix(format!("{}sysctl -w {name}=1", space.enter)),
        )
    }

    /// What was used as a gateway is none, and there is another one.
    fn wrong_router(&self, id: SpaceId, dst: IpAddr) -> Option<Fault> {
        let (from, text, place) = self.sender.clone()?;
        if id == HOST {
            return None;
        }
        let own = self
            .space(from)
            .addrs
            .iter()
            .find(|a| a.link == place.index && route::same_family(a.net, dst))?;
        let used = text.split(" via ").nth(1).and_then(|t| t.split(' ').next());
        let right = self
            .router_near(from, own)
            .filter(|r| Some(r.to_string().as_str()) != used);
        // Where the sender is the only router itself, another of its routes is the right one.
        if right.is_none() && !self.has_other_route(from, &text, dst) {
            return None;
        }
        Some(self.wrong_gateway(from, &text, dst, right))
    }

    pub(super) fn has_other_route(&self, id: SpaceId, text: &str, dst: IpAddr) -> bool {
        let space = self.space(id);
        space.routes.iter().any(|r| {
            r.kind == RouteKind::Unicast
                && r.table == route::MAIN
                && r.dst.contains(&dst)
                && show::show_route(space, r, None) != text
        })
    }

    /// Whether a space is one that others may use as a gateway: the host, or one between several links. That a container
    /// would pass packets on says nothing, since the setting is inherited.
    pub(super) fn is_router(&self, id: SpaceId, dst: IpAddr) -> bool {
        let links = self.space(id).links.iter().filter(|l| !l.loopback);
        id == HOST || self.routes(id, dst) && links.count() > 1
    }

    /// Whether a space passes packets of the address's family on.
    pub(super) fn routes(&self, id: SpaceId, dst: IpAddr) -> bool {
        let name = if dst.is_ipv4() {
            "net.ipv4.ip_forward"
        } else {
            "net.ipv6.conf.all.forwarding"
        };
        self.space(id).sysctl(name) == Some(1)
    }

    /// An address of the space itself, of which the table `local` has lost the route.
    fn not_local(&self, id: SpaceId, dst: IpAddr) -> Option<Fault> {
        let space = self.space(id);
        let own = source::usable_addresses(space).find(|a| a.net.addr() == dst)?;
        if route::has_local_route(space, dst) {
            return None;
        }
        let dev = space.link(own.link).map_or("?", |l| l.name.as_str());
        let (enter, six) = (&space.enter, six(dst));
        let what = format!(
            "{dst} is an address of {}, and its table local has no route for it.",
            space.name
        );
        let again =
            format!("{enter}ip {six}route add local {dst} dev {dev} table local proto kernel");
        Some(
            Fault::new(Code::NoRoute, id, format!("local {dst} dev {dev}"), what)
                .evidence(format!("{enter}ip {six}route show table local: no {dst}"))
                .fix(again),
        )
    }

    /// The link by which a packet would be passed on.
    fn leaves_by(&self, id: SpaceId, link: &'a Link, packet: &Packet) -> Option<&'a Link> {
        let skip = self.skip.get(&id).cloned().unwrap_or_default();
        match route::lookup(self.space(id), &Ask::of(packet, Some(link)), &skip) {
            Found::Route(c) => self.space(id).link(c.hop?.link?),
            _ => None,
        }
    }

    /// Addresses that must not come in by a wire. `before` is the packet as it came, before translation.
    pub(super) fn check_martian(
        &mut self,
        id: SpaceId,
        link: &'a Link,
        before: &Packet,
        packet: &Packet,
    ) {
        let space = self.space(id);
        let (src, dst) = (packet.src, packet.dst);
        let loopback = src.is_loopback() || dst.is_loopback();
        let allowed = dst.is_ipv4() && self.either(id, &link.name, "route_localnet");
        if loopback && !allowed || src.is_multicast() {
            let fault = self.martian(id, link, packet);
            self.blame(Verdict::Dropped, "route", fault);
            return;
        }
        let own = dst.is_ipv4() && route::is_local(space, src) && !src.is_loopback();
        if !own || self.either(id, &link.name, "accept_local") {
            return;
        }
        let here_before = self.passed.iter().any(|p| p.space == id)
            || self.reply && Some(id) == self.replier
            || Some(id) == self.origin
                && self.dnat.is_none()
                && !self.reply
                && !self.passed.is_empty();
        if here_before && let Some((at, text, _)) = self.sender.clone() {
            // It was here already, and left with this source.
            let fault = self.round_trip(at, &text);
            self.blame(Verdict::Dropped, "route", fault);
            return;
        }
        if let Some(fault) = self.dangling() {
            self.blame(Verdict::Dropped, "route", fault);
            return;
        }
        let fault = match self.dnat.clone() {
            // Its own packet comes back to it, translated on the way.
            Some((router, rule, _)) if Some(id) == self.origin => {
                self.not_masqueraded_inside(router, &rule, before)
            }
            _ => {
                let all = holders(self.state, src);
                let other = all.iter().find(|p| p.space != id);
                let what = match other {
                    Some(p) => format!(
                        "{src} is an address of {} and of {}.",
                        space.name,
                        self.space(p.space).name
                    ),
                    None => format!("{} got a packet from its own address {src}.", space.name),
                };
                let code = match other {
                    Some(_) => Code::DuplicateAddress,
                    None => Code::MartianAddress,
                };
                // The one that is not whose wharf gave it to, or not the host's, is the one too many.
                let given = meant_for(self.state, src).map(|(space, _)| space);
                let here = all.iter().copied().find(|p| p.space == id);
                let at = match other {
                    Some(p) if given == Some(p.space) => here,
                    _ => other.copied().filter(|_| id == HOST).or(here),
                };
                let at = at.unwrap_or(Place {
                    space: id,
                    index: link.index,
                });
                let (owner, dev) = (self.space(at.space), self.link_name(at));
                let net = owner.addrs.iter().find(|a| a.net.addr() == src);
                let net = net.map_or(src.to_string(), |a| a.net.to_string());
                Fault::new(code, at.space, format!("{net} dev {dev}"), what)
                    .evidence(format!("{}ip addr show dev {dev}: {net}", owner.enter))
                    .fix(format!("{}ip addr del {net} dev {dev}", owner.enter))
            }
        };
        self.blame(Verdict::Dropped, "route", fault);
    }

    /// A loopback address, or one nobody can have, where it cannot be.
    pub(super) fn martian(&self, id: SpaceId, link: &Link, packet: &Packet) -> Fault {
        let space = self.space(id);
        let (src, dst) = (packet.src, packet.dst);
        if dst.is_ipv6() || src.is_multicast() {
            let odd = if src.is_loopback() || src.is_multicast() {
                src
            } else {
                dst
            };
            let what = format!("{odd} cannot come or go by {}.", link.name);
            return Fault::new(Code::MartianAddress, id, odd.to_string(), what)
                .owner(Owner::Kernel)
                .evidence(format!("{src} -> {dst} at {} in {}", link.name, space.name))
                .fix(format!("{}ip addr show", space.enter));
        }
        let name = format!("net.ipv4.conf.{}.route_localnet", sysctl_name(&link.name));
        let odd = if src.is_loopback() { src } else { dst };
        let what = format!(
            "Loopback addresses such as {odd} do not pass {} unless {name} is 1.",
            link.name
        );
        Fault::new(Code::MartianAddress, id, name.clone(), what)
            .evidence(format!("{}sysctl {name}: 0", space.enter))
            .fix(format!("{}sysctl -w {name}=1", space.enter))
    }

    fn ttl_spent(&self, id: SpaceId, packet: &Packet) -> Fault {
        let from = if self.reply {
            self.replier
        } else {
            self.origin
        };
        if let Some((site, rule)) = &self.ttl_by {
            let shown = super::rules::object(rule);
            let what = format!(
                "{shown} sets the TTL too low for the way to {}.",
                packet.dst
            );
            let as_rule = self.fault_of_rule(*site, rule, packet);
            return Fault {
                code: Code::TtlExpired,
                summary: what,
                ..as_rule
            };
        }
        let at = from.unwrap_or(id);
        let space = self.space(at);
        let name = if packet.dst.is_ipv4() {
            "net.ipv4.ip_default_ttl".to_owned()
        } else {
            let by = self.sent_by.filter(|(at_space, _)| *at_space == at);
            let link = by.and_then(|(_, link)| space.link(link));
            let link = link.map_or("all".to_owned(), |l| sysctl_name(&l.name));
            format!("net.ipv6.conf.{link}.hop_limit")
        };
        let what = format!(
            "The TTL of packets from {} does not last for the way to {}.",
            space.name, packet.dst
        );
        Fault::new(Code::TtlExpired, at, name.clone(), what)
            .evidence(format!("{}sysctl {name}", space.enter))
            .fix(format!("{}sysctl -w {name}=64", space.enter))
    }

    fn round_trip(&self, id: SpaceId, route: &str) -> Fault {
        let what =
            format!("The packet goes in circles between routers until its TTL is spent ({route}).");
        let enter = &self.space(id).enter;
        Fault::new(Code::TtlExpired, id, route, what)
            .evidence(format!("{enter}ip route show: {route}"))
            .fix(format!("{enter}ip route del {}", show::deletable(route)))
    }

    /// The packet comes by a second time.
    fn goes_round(&mut self, id: SpaceId, packet: &Packet) -> Step<'a> {
        let mut ask = Ask::of(packet, None);
        ask.src = None;
        // Of the routes that lead round the most special one is the one that somebody made for this destination.
        let others = self.circle.iter().map(|(at, ..)| *at);
        let routes = std::iter::once(id).chain(others).filter_map(|at| {
            match route::lookup(self.space(at), &ask, &Skip::default()) {
                Found::Route(c) => Some((at, c)),
                _ => None,
            }
        });
        let special = routes.reduce(|best, next| {
            if next.1.route.dst.prefix_len() > best.1.route.dst.prefix_len() {
                next
            } else {
                best
            }
        });
        let (at, shown) = match special {
            Some((at, c)) => (at, show::show_route(self.space(at), c.route, c.hop)),
            None => (id, packet.dst.to_string()),
        };
        let fault = self.round_trip(at, &shown);
        self.blame(Verdict::Dropped, "forward", fault);
        Step::End(Arrival::Lost)
    }
}
