//! The answer's way back.

use std::net::IpAddr;

use crate::network::NetworkSpec;
use crate::options::GatewayMode;
use crate::trace::env::Blame;
use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::state::{HOST, Place, SpaceId};

use super::arrival::Arrived;
use super::ends::{Ends, show_end};
use super::fault::Fault;
use super::host::six;
use super::neighbour::is_private;
use super::route;
use super::rules::object;
use super::{Arrival, Enter, Passed, Step, Walk};

impl<'a> Walk<'a> {
    /// The answer.
    pub(super) fn way_back(&mut self, ends: &Ends<'a>, arrived: Option<Arrived>) {
        let (Some(arrived), Some(sent), false) = (arrived, &ends.packet, ends.stays) else {
            return;
        };
        self.reply = true;
        self.steps = 0;
        self.circle.clear();
        (self.sender, self.diverted) = (None, None);
        self.ttl_by = None;
        self.full = 0;
        let start = match arrived {
            Arrived::In { space, packet, .. } => {
                self.replier = Some(space);
                let back = self.answer(space, &packet);
                self.originate(space, back)
            }
            Arrived::Outside { from, packet } => {
                if let Some(fault) = self.cannot_return(from, &packet) {
                    self.blame(Verdict::Unanswered, "outside", fault);
                    return;
                }
                let back = self.answer(from.space, &packet);
                Step::Enter(Enter {
                    place: from,
                    port: None,
                    packet: back,
                })
            }
        };
        let end = self.run(start);
        self.check_return(ends, sent, end);
    }

    fn answer(&self, space: SpaceId, packet: &Packet) -> Packet {
        // The identifier of an echo is the same both ways, and kept as the source port.
        let (sport, dport) = match packet.l4 {
            L4::Icmp => (packet.sport, 0),
            _ => (packet.dport, packet.sport),
        };
        Packet {
            src: packet.dst,
            dst: packet.src,
            sport,
            dport,
            reply: true,
            ttl: self.first_ttl(space, packet.src),
            mark: 0,
            tos: 0,
            src_mac: None,
            dst_mac: None,
            ..packet.clone()
        }
    }

    /// Did the answer come to who asked, from whom was asked?
    fn check_return(&mut self, ends: &Ends<'a>, sent: &Packet, end: Arrival) {
        let as_asked = |p: &Packet| {
            (p.src, p.dst) == (sent.dst, sent.src)
                && (sent.l4 == L4::Icmp || (p.sport, p.dport) == (sent.dport, sent.sport))
        };
        match end {
            Arrival::Local { space, packet, .. } if Some(space) == ends.from => {
                // A ping takes its answer from whatever address it comes.
                let echo = sent.l4 == L4::Icmp && packet.dst == sent.src;
                if echo && !as_asked(&packet) {
                    self.note(format!("{} was asked and {} answers", sent.dst, packet.src));
                }
                if as_asked(&packet) || echo {
                    let text = format!("{} answers", show_end(packet.src, packet.sport));
                    self.hop(space, "socket", &packet.dst.to_string(), &text);
                } else {
                    self.past_translation(sent, &packet);
                }
            }
            Arrival::Outside { packet, .. } if ends.from.is_none() => {
                if !as_asked(&packet) {
                    self.past_translation(sent, &packet);
                }
            }
            Arrival::Local { space, packet, .. } => {
                self.strayed(self.space(space).name.clone(), &packet)
            }
            Arrival::Outside { packet, .. } => self.strayed("the outside".to_owned(), &packet),
            Arrival::Lost => {
                if self.causes.is_empty() {
                    self.unknown = true;
                }
            }
        }
    }

    /// The answer ended somewhere else.
    fn strayed(&mut self, place: String, packet: &Packet) {
        if let Some(fault) = self.in_another_zone() {
            return self.blame(Verdict::Unanswered, "conntrack", fault);
        }
        let at = self.replier.unwrap_or(HOST);
        let mut fault = self.no_way_back(at, packet);
        if fault.is_none() {
            let what = format!("The answer to {} ends in {place}.", packet.dst);
            let space = self.space(at);
            fault = Some(
                Fault::new(Code::NoReturnRoute, at, packet.dst.to_string(), what)
                    .evidence(format!("{}ip route get {}", space.enter, packet.dst))
                    .fix(match self.likely_gateway(at, packet.dst) {
                        Some((_, via)) => {
                            format!(
                                "{}ip {}route replace {} via {via}",
                                space.enter,
                                six(via),
                                packet.dst
                            )
                        }
                        None => format!(
                            "{}ip {}route get {}",
                            space.enter,
                            six(packet.dst),
                            packet.dst
                        ),
                    }),
            );
        }
        if let Some(fault) = fault {
            self.blame(Verdict::Unanswered, "route", fault);
        }
    }

    /// The answer went past the space that had translated the question.
    fn past_translation(&mut self, sent: &Packet, got: &Packet) {
        if let Some(fault) = self.in_another_zone() {
            return self.blame(Verdict::Unanswered, "conntrack", fault);
        }
        let fault = match self.dnat.clone() {
            Some((router, rule, _)) => self.not_masqueraded_inside(router, &rule, sent),
            None => {
                let what = format!(
                    "{} was asked and {} answers: the answer went past the translation.",
                    show_end(sent.dst, sent.dport),
                    show_end(got.src, got.sport)
                );
                Fault::new(
                    Code::NoReturnRoute,
                    self.replier.unwrap_or(HOST),
                    got.dst.to_string(),
                    what,
                )
                .evidence("the way back differs from the way there")
                .fix({
                    let at = self.replier.unwrap_or(HOST);
                    let via = self.likely_gateway(at, got.dst).map(|(_, via)| via);
                    let enter = &self.space(at).enter;
                    match via {
                        Some(via) => {
                            format!("{enter}ip {}route replace {} via {via}", six(via), got.dst)
                        }
                        None => format!("{enter}ip {}route get {}", six(got.dst), got.dst),
                    }
                })
            }
        };
        self.blame(Verdict::Unanswered, "nat", fault);
    }

    /// A destination was translated into the client's own segment, and the source was not.
    pub(super) fn not_masqueraded_inside(
        &self,
        router: SpaceId,
        rule: &Blame,
        sent: &Packet,
    ) -> Fault {
        let space = self.space(router);
        let (shown, client) = (object(rule), sent.src);
        let what = format!(
            "{shown} translates the destination only, so that the answer goes straight to {client} and past the translation."
        );
        let out = self.leads(router, client).and_then(|l| space.link(l));
        let dev = out.map_or(shown.clone(), |l| l.name.clone());
        Fault::new(Code::NoMasquerade, router, dev.clone(), what)
            .owner(rule.owner)
            .evidence(format!("{}nft -a list ruleset: {}", space.enter, rule.text))
            .fixes(self.masquerade(router, client, &dev, "ct status dnat "))
    }

    /// Beyond an unread wire: can an answer to this source come back?
    fn cannot_return(&self, from: Place, packet: &Packet) -> Option<Fault> {
        let space = self.space(from.space);
        let src = packet.src;
        let on_link = space
            .addrs
            .iter()
            .any(|a| a.link == from.index && a.net.contains(&src));
        if route::is_local(space, src) {
            return None;
        }
        if let Some(fault) = self.strange_source(from, src) {
            return Some(fault);
        }
        if on_link || !is_private(src) {
            return None;
        }
        Some(self.untranslated(from, src))
    }

    /// The source was translated to an address that the translating space does not have, and answers for on no link.
    fn strange_source(&self, from: Place, src: IpAddr) -> Option<Fault> {
        let space = self.space(from.space);
        let answered = space
            .neighbours
            .iter()
            .any(|n| n.proxy && n.addr == src && n.link == from.index);
        let (id, rule, to) = self.snat.as_ref()?;
        if *id != from.space || *to != src || answered {
            return None;
        }
        let shown = object(rule);
        let what = format!(
            "{shown} translates the source to {src}, which {} does not have, so that answers do not come back.",
            space.name
        );
        let dev = self.link_name(from);
        let own = space
            .addrs
            .iter()
            .find(|a| a.link == from.index && route::same_family(a.net, src));
        let bits = crate::addr::Family::of(src).bits();
        let fault = Fault::new(Code::NoReturnRoute, *id, shown, what)
            .owner(rule.owner)
            .evidence(format!("{}nft -a list ruleset: {}", space.enter, rule.text))
            .evidence(format!("{}ip addr show: no {src}", space.enter));
        let has = rule.text.contains(&src.to_string());
        Some(match own.filter(|_| has) {
            Some(own) => fault.fixes(super::rules::rewritten(space, rule, src, own.net.addr())),
            None => fault.fix(format!("{}ip addr add {src}/{bits} dev {dev}", space.enter)),
        })
    }

    /// The answering space has no way to a source that nobody translated.
    pub(super) fn no_way_back(&self, id: SpaceId, packet: &Packet) -> Option<Fault> {
        let there: Vec<&Passed> = self.passed.iter().filter(|p| p.src == packet.dst).collect();
        let last = there
            .last()
            .filter(|p| !p.translated && Some(id) == self.replier);
        if let Some(p) = last
            && is_private(packet.dst)
            && (p.gateway || self.by_default_route(p))
        {
            let place = Place {
                space: p.space,
                index: p.oif,
            };
            return Some(self.untranslated(place, packet.dst));
        }
        if Some(id) != self.replier || id == HOST && self.passed.is_empty() {
            return None;
        }
        let (space, dst) = (self.space(id), packet.dst);
        let what = format!("{} has no route back to {dst}.", space.name);
        let six = six(dst);
        let fault = Fault::new(Code::NoReturnRoute, id, dst.to_string(), what).evidence(format!(
            "{}ip {six}route get {dst}: unreachable",
            space.enter
        ));
        Some(match self.likely_gateway(id, dst) {
            Some((_, via)) => fault.fix(format!(
                "{}ip {six}route add default via {via}",
                space.enter
            )),
            None => match self.lost_gateway(id, dst) {
                Some((_, via)) => fault.fix(self.default_route(id, via)),
                None => fault.fix(format!("{}ip {six}route show table all", space.enter)),
            },
        })
    }

    fn by_default_route(&self, passed: &Passed) -> bool {
        self.space(passed.space)
            .routes
            .iter()
            .any(|r| r.dst.prefix_len() == 0 && r.hops.iter().any(|h| h.link == Some(passed.oif)))
    }

    /// A private source left by a link that leads outside.
    fn untranslated(&self, place: Place, src: IpAddr) -> Fault {
        let space = self.space(place.space);
        let dev = self.state.link(place).map_or("?", |l| l.name.as_str());
        let net = self
            .state
            .networks
            .iter()
            .find(|n| n.subnets.iter().any(|s| s.subnet.contains(&src)));
        let family = crate::addr::Family::of(src);
        let mode = |n: &NetworkSpec| n.settings.gateway_mode(family);
        let translates = |n: &NetworkSpec| n.masquerade && mode(n) == GatewayMode::Nat;
        if let Some(net) = net.filter(|n| n.is_managed() && !translates(n)) {
            let name = &net.name;
            let why = match net.masquerade {
                true => "options: a gateway mode without translation",
                false => "masquerade false",
            };
            let what = format!(
                "The network {name} is not masqueraded, and the far side has no route back to {src}."
            );
            return Fault::new(Code::NoReturnRoute, place.space, src.to_string(), what)
                .owner(Owner::Wharf)
                .evidence(format!("wharf network inspect {name}: {why}"))
                .fixes(match self.name_of(src) {
                    Some(container) => {
                        super::wharf_rules::moved(&format!("{name}-masqueraded"), "", &container)
                    }
                    None => vec![format!("wharf network inspect {name}")],
                });
        }
        let what = format!(
            "{src} leaves by {dev} untranslated, and nobody outside can answer a private address."
        );
        let fault = Fault::new(Code::NoMasquerade, place.space, dev, what).evidence(format!(
            "{}nft list ruleset: no masquerade for {src}",
            space.enter
        ));
        // A rule for it may be there, and not be asked.
        if let Some((_, rule)) = self
            .untracked_by
            .as_ref()
            .filter(|(at, _)| *at == place.space)
        {
            return fault
                .owner(rule.owner)
                .evidence(format!("{}: {}", object(rule), rule.text))
                .fix(super::rules::removed(space, rule));
        }
        match net {
            Some(_) => fault.owner(Owner::Wharf).fix("wharf repair"),
            None => fault.fixes(self.masquerade(place.space, src, dev, "")),
        }
    }

    /// Commands for a masquerade rule in a table of its own, for the source's whole segment.
    fn masquerade(&self, id: SpaceId, src: IpAddr, dev: &str, more: &str) -> Vec<String> {
        let space = self.space(id);
        let enter = &space.enter;
        let family = if src.is_ipv4() { "ip" } else { "ip6" };
        let near = space.addrs.iter().find(|a| a.net.contains(&src));
        let from = near.map_or(src.to_string(), |a| a.net.trunc().to_string());
        let chain = "{ type nat hook postrouting priority 100; }";
        vec![
            format!("{enter}nft add table {family} masq"),
            format!("{enter}nft 'add chain {family} masq postrouting {chain}'"),
            format!(
                "{enter}nft add rule {family} masq postrouting {more}{family} saddr {from} oifname {dev} masquerade"
            ),
        ]
    }
}
