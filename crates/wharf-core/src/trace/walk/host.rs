//! The IP of one space: packets it makes, packets that come in, and the routing of both.

use std::net::IpAddr;

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Owner, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{Link, NextHop, Place, PolicyRule, RouteKind, SpaceId};

use super::hooks::{Site, Sort};
use super::route::{self, Ask, Chosen, Found, Refuser};
use super::show::{show_route, show_rule};
use super::{Arrival, Emit, Enter, Step, Walk};

/// How often a lookup is made again without what was blamed.
const MOST_LOOKUPS: usize = 8;

/// Where routing sends a packet.
#[derive(Debug, Clone)]
pub(super) struct Out<'a> {
    pub link: u32,
    pub next: IpAddr,
    pub gateway: bool,
    /// The space itself is the destination.
    pub local: bool,
    pub mtu: u32,
    pub text: String,
    pub rule: Option<&'a PolicyRule>,
}

impl<'a> Out<'a> {
    pub(super) fn emit(self, space: SpaceId, packet: Packet) -> Emit<'a> {
        Emit {
            space,
            link: self.link,
            next: self.next,
            gateway: self.gateway,
            text: self.text,
            rule: self.rule,
            packet,
        }
    }
}

impl<'a> Walk<'a> {
    /// A packet that the space makes.
    pub(super) fn originate(&mut self, id: SpaceId, packet: Packet) -> Step<'a> {
        let Some(mut out) = self.route(id, &packet, None) else {
            return Step::End(Arrival::Lost);
        };
        self.sent_by = Some((id, out.link));
        self.full = out.mtu.min(self.most);
        if !self.reply && packet.l4 == L4::Tcp {
            self.most = out.mtu;
        }
        if packet.dst.is_ipv6() && !out.local {
            self.check_disabled(id, out.link);
        }
        let mut site = Site::new(id, Hook::Output, Sort::Ip);
        (site.local, site.oif) = (true, Some(out.link));
        self.ipsec_leaving(site, None, &packet);
        let mut sent = self.rules(site, packet.clone());
        if (sent.dst, sent.mark, sent.src) != (packet.dst, packet.mark, packet.src) {
            // The kernel asks again when a rule changed the destination or the mark.
            match self.route(id, &sent, None) {
                Some(again) => out = again,
                None => return Step::End(Arrival::Lost),
            }
            self.check_loopback_source(id, &sent, &out);
        }
        site = Site::new(id, Hook::Postrouting, Sort::Ip);
        (site.local, site.oif) = (true, Some(out.link));
        self.ipsec_leaving(site, Some(&packet), &sent);
        let before = sent.clone();
        sent = self.rules(site, sent);
        self.ipsec_leaving(site, Some(&before), &sent);
        self.dispatch(id, out, sent)
    }

    /// A packet whose way out is known, past all IP rules.
    pub(super) fn dispatch(&mut self, id: SpaceId, out: Out<'a>, packet: Packet) -> Step<'a> {
        let mut site = Site::new(id, Hook::Egress, Sort::Device);
        site.oif = Some(out.link);
        let packet = self.rules(site, packet);
        let loopback = self.space(id).link(out.link).is_some_and(|l| l.loopback);
        if loopback && !out.local && !route::is_local(self.space(id), packet.dst) {
            let fault = self.by_loopback(id, &out, &packet);
            self.blame(Verdict::Dropped, "route", fault);
            return Step::End(Arrival::Lost);
        }
        if out.local || loopback {
            let lo = self.space(id).links.iter().find(|l| l.loopback);
            let index = lo.map_or(out.link, |l| l.index);
            if let Some(l) = lo.filter(|l| !l.up) {
                let place = Place {
                    space: id,
                    index: l.index,
                };
                let fault = self.link_down(place);
                self.blame(Verdict::Dropped, "link", fault);
            }
            let place = Place { space: id, index };
            return Step::Enter(Enter {
                place,
                port: None,
                packet,
            });
        }
        Step::Emit(out.emit(id, packet))
    }

    /// A rule that sends a packet of 127.0.0.1 to a link sends it nowhere unless `route_localnet` is on.
    fn check_loopback_source(&mut self, id: SpaceId, packet: &Packet, out: &Out<'a>) {
        if !packet.src.is_loopback() || out.local {
            return;
        }
        let Some(link) = self.space(id).link(out.link) else {
            return;
        };
        if packet.src.is_ipv4() && self.either(id, &link.name, "route_localnet") {
            return;
        }
        let fault = self.martian(id, link, packet);
        self.blame(Verdict::Dropped, "route", fault);
    }

    fn check_disabled(&mut self, id: SpaceId, link: u32) {
        let name = self.space(id).link(link).map(|l| l.name.clone());
        if let Some(fault) = name.and_then(|n| self.disabled_on(id, &n)) {
            self.blame(Verdict::Dropped, "link", fault);
        }
    }

    /// A sysctl of a link that also holds when it is set for all.
    pub(super) fn either(&self, id: SpaceId, link: &str, what: &str) -> bool {
        let space = self.space(id);
        ["all".to_owned(), route::sysctl_name(link)]
            .iter()
            .any(|l| space.sysctl(&format!("net.ipv4.conf.{l}.{what}")) == Some(1))
    }

    /// Routes a packet. What refuses it is blamed and left out; `None` where there is no way at all.
    pub(super) fn route(
        &mut self,
        id: SpaceId,
        packet: &Packet,
        iif: Option<&'a Link>,
    ) -> Option<Out<'a>> {
        let space = self.space(id);
        for _ in 0..MOST_LOOKUPS {
            let skip = self.skip.get(&id).cloned().unwrap_or_default();
            let mut ask = Ask::of(packet, iif);
            ask.way = self.way;
            match route::lookup(space, &ask, &skip) {
                Found::Route(chosen) => {
                    self.ways = self.ways.max(chosen.others + 1);
                    if let Some(addr) = self.hidden_by_down_link(id, packet.dst, &chosen) {
                        let place = Place {
                            space: id,
                            index: addr.link,
                        };
                        let fault = self.link_down(place);
                        self.blame(Verdict::Dropped, "route", fault);
                        return Some(self.on_link(id, addr.link, packet.dst));
                    }
                    let found = chosen.hop.and_then(|h| h.link);
                    let found = Some((found, chosen.route.dst.prefix_len()));
                    if let Some((fault, out)) = self.bridge_without_address(id, packet.dst, found) {
                        self.blame(Verdict::Dropped, "route", fault);
                        return out;
                    }
                    self.notice_diversion(id, packet, &chosen);
                    return Some(self.out(id, &chosen, packet.dst));
                }
                Found::Refused(by) => {
                    let (verdict, fault) = self.refused(id, by);
                    if fault.owner == Owner::Wharf && self.rules_will_tell(id) {
                        // Its rules drop the packet too, and say why.
                        let verdict = match self.reply {
                            true => Verdict::Unanswered,
                            false => verdict,
                        };
                        self.held.get_or_insert((verdict, fault));
                    } else {
                        self.blame(verdict, "route", fault);
                    }
                    let skip = self.skip.entry(id).or_default();
                    match by {
                        Refuser::Route(r, _) => skip.routes.push(r),
                        Refuser::Rule(r) => skip.rules.push(r),
                    }
                }
                Found::Nothing => break,
            }
        }
        let verdict = if iif.is_some() {
            Verdict::Rejected
        } else {
            Verdict::Dropped
        };
        let (fault, guess) = match self.bridge_without_address(id, packet.dst, None) {
            Some(found) => found,
            None => self.no_route(id, packet),
        };
        self.blame(verdict, "route", fault);
        guess
    }

    /// wharf's own rules are there.
    fn rules_will_tell(&self, id: SpaceId) -> bool {
        let mut chains = self.space(id).ruleset.chains.iter();
        chains.any(|c| c.owner == Owner::Wharf && c.name == "forward" && !c.rules.is_empty())
    }

    /// Remembers a policy rule that leads elsewhere than the main table would.
    fn notice_diversion(&mut self, id: SpaceId, packet: &Packet, chosen: &Chosen<'a>) {
        let Some(rule) = chosen.rule else {
            return;
        };
        let space = self.space(id);
        let other = route::in_main(space, &Ask::of(packet, None));
        if let Some(r) = other.filter(|r| r.hops.first() != chosen.hop) {
            let (taken, usual) = (
                show_route(space, chosen.route, chosen.hop),
                show_route(space, r, None),
            );
            let how = format!("which sends it by {taken}; the main table has {usual}");
            self.diverted = Some((id, self.policy(id, rule, &how)));
        }
    }

    fn out(&mut self, id: SpaceId, chosen: &Chosen<'a>, dst: IpAddr) -> Out<'a> {
        let space = self.space(id);
        let text = show_route(space, chosen.route, chosen.hop);
        let local = !matches!(chosen.route.kind, RouteKind::Unicast | RouteKind::Other(_));
        let hop = chosen.hop.cloned().unwrap_or_default();
        let link = hop.link.unwrap_or(0);
        let mtu = space.link(link).map_or(u32::MAX, |l| l.mtu);
        if !local {
            let detail = match chosen.rule {
                Some(rule) => format!("by the policy rule {}", show_rule(rule)),
                None if chosen.others > 0 => format!("one of {} ways", chosen.others + 1),
                None => String::new(),
            };
            self.hop(id, "route", &text, &detail);
        }
        Out {
            link,
            next: hop.via.unwrap_or(dst),
            gateway: hop.via.is_some(),
            local,
            mtu: chosen.route.mtu.map_or(mtu, |m| m.min(mtu)),
            text,
            rule: chosen.rule,
        }
    }

    /// As if the destination were on a link.
    pub(super) fn on_link(&self, id: SpaceId, link: u32, dst: IpAddr) -> Out<'a> {
        let l = self.space(id).link(link);
        Out {
            link,
            next: dst,
            gateway: false,
            local: false,
            mtu: l.map_or(1500, |l| l.mtu),
            text: l.map_or(String::new(), |l| format!("{dst} dev {}", l.name)),
            rule: None,
        }
    }

    /// A packet that comes in by a link.
    pub(super) fn enter(&mut self, enter: Enter) -> Step<'a> {
        let Enter {
            place,
            port,
            packet,
        } = enter;
        let id = place.space;
        let space = self.space(id);
        let Some(link) = space.link(place.index) else {
            return Step::End(Arrival::Lost);
        };
        if !space.full {
            self.note(format!(
                "{}: not everything was read, the way ends there",
                space.name
            ));
            self.unknown = true;
            let own = space.addrs.iter().find(|a| a.link == link.index);
            self.missed.extend(own.map(|a| a.net.addr()));
            return Step::End(Arrival::Lost);
        }
        if packet.dst.is_ipv6() && !link.loopback {
            self.check_disabled(id, link.index);
        }
        if let Some(fault) = self.taken_by_bridge(place) {
            self.blame(Verdict::Dropped, "link", fault);
        }
        let mut site = Site::new(id, Hook::Ingress, Sort::Device);
        (site.iif, site.port_in) = (Some(link.index), port);
        let packet = self.rules(site, packet);
        (site.hook, site.sort) = (Hook::Prerouting, Sort::Ip);
        let before = packet.clone();
        let packet = self.rules(site, packet);
        if !link.loopback {
            self.check_martian(id, link, &before, &packet);
        }
        let skip = self.skip.get(&id).cloned().unwrap_or_default();
        let found = route::lookup(space, &Ask::of(&packet, Some(link)), &skip);
        let local = match &found {
            Found::Route(c) => c.route.kind != RouteKind::Unicast,
            _ => route::is_local(space, packet.dst),
        };
        let packet = self.turn(&before, packet, &found);
        if !local {
            return self.forward(id, link, port, packet);
        }
        if !link.loopback {
            self.check_reverse_path(id, link, &packet, None);
        }
        site.hook = Hook::Input;
        let packet = self.rules(site, packet);
        self.ipsec_arriving(id, link, &packet);
        Step::End(Arrival::Local {
            space: id,
            iif: link.index,
            packet,
        })
    }
}

/// `-6 ` for IPv6.
pub(super) fn six(addr: IpAddr) -> &'static str {
    if addr.is_ipv6() { "-6 " } else { "" }
}

/// For lookups in tests of what a hop is.
pub(super) fn leads_by(hops: &[NextHop], link: u32) -> bool {
    hops.iter().any(|h| h.link == Some(link))
}
