//! Ports that other tools publish: which port of the host their rules translate to a container's.

use std::net::IpAddr;

use crate::publish::PortMapping;
use crate::trace::doctor::walked;
use crate::trace::env::CtState;
use crate::trace::packet::{L4, Packet};
use crate::trace::report::Code;
use crate::trace::ruleset::{Expr, Hook, Match};
use crate::trace::state::{HOST, SpaceId};

use super::Walk;
use super::ends::show_end;
use super::fault::Fault;
use super::hooks::{Site, Sort, without};
use super::outside;
use super::owner::holders;
use super::route::is_local;
use super::rules::{object, removed};
use super::socket::takes;

/// The most host ports that are tried.
const MOST: usize = 64;

impl<'a> Walk<'a> {
    /// The host's address and port that its rules translate to a port of a namespace, seen from outside.
    pub(super) fn published_by_rules(&self, id: SpaceId, src: IpAddr) -> Option<(IpAddr, u16)> {
        let port = self.query.port;
        let family = crate::addr::Family::of(src);
        let addr = outside::host_address(self.state, family)?;
        if self.query.l4 == L4::Icmp {
            return None;
        }
        let entrance = outside::entrance(self.state, addr)?;
        let mut tried = vec![port];
        tried.extend(self.ports_in_rules());
        let mut site = Site::new(HOST, Hook::Prerouting, Sort::Ip);
        site.iif = Some(entrance);
        tried.into_iter().find_map(|host_port| {
            let packet = self.packet(HOST, src, addr, host_port);
            let mut ct = CtState::begun(&packet);
            let to = self.translated_to(site, packet, &mut ct);
            let hit = is_local(self.space(id), to.dst) && to.dport == port && to.dst != addr;
            hit.then_some((addr, host_port))
        })
    }

    /// A rule has sent the packet to where nobody listens, and without it somebody would have had it: behind another
    /// rule, or in this space.
    pub(super) fn taken_before(&self, id: SpaceId) -> Option<Fault> {
        let (at, rule, _) = self.dnat.as_ref().filter(|_| !self.reply)?;
        let (site, before) = self.dnat_at.as_ref()?;
        let space = self.space(*at);
        let mut rules = space.ruleset.clone();
        if before.l4 == L4::Icmp || !without(&mut rules, rule) {
            return None;
        }
        let mut ct = CtState::begun(before);
        let other = self.evaluate(*site, before.clone(), &mut ct, &rules).packet;
        let place = match is_local(space, other.dst) {
            true => *at,
            false => holders(self.state, other.dst).first()?.space,
        };
        takes(self.space(place), &other, None)?;
        let shown = object(rule);
        let (asked, to) = (
            show_end(before.dst, before.dport),
            show_end(other.dst, other.dport),
        );
        let what = format!(
            "{shown} takes {asked} to {}, where nobody listens; without it {to} in {} would have it.",
            self.space(id).name,
            self.space(place).name
        );
        let fault = Fault::new(Code::PublishShadowed, *at, shown.clone(), what)
            .owner(rule.owner)
            .evidence(format!("{shown}: {}", rule.text));
        Some(fault.fix(removed(space, rule)))
    }

    /// A port of the host is asked for that a container publishes at its own address instead.
    pub(super) fn published_directly(&self, id: SpaceId, packet: &Packet) -> Option<Fault> {
        let fits = |m: &PortMapping| {
            walked(m.protocol) == Some(packet.l4)
                && (m.host.first()..=m.host.last()).contains(&packet.dport)
        };
        let (container, (mapping, addr, net)) = self.state.containers.iter().find_map(|c| {
            let mut ports = self.state.direct(c).into_iter();
            let found =
                ports.find(|(m, addr, _)| fits(m) && addr.is_ipv4() == packet.dst.is_ipv4());
            found.filter(|_| id == HOST).map(|f| (c, f))
        })?;
        let inside = mapping.container.first() + (packet.dport - mapping.host.first());
        let (port, proto) = (packet.dport, mapping.protocol);
        let what = format!(
            "Nothing in host listens on {proto} port {port}: the network {} routes packets untranslated, and {} publishes that port at its own address, {}.",
            net.name,
            container.name,
            show_end(addr, inside)
        );
        let fault = Fault::new(Code::NotListening, id, format!("{port}/{proto}"), what)
            .evidence(format!("wharf network inspect {}: options", net.name))
            .evidence(format!("wharf port ls {}: {mapping}", container.name));
        Some(fault.fix(format!(
            "wharf trace outside {}/{proto}",
            show_end(addr, inside)
        )))
    }

    fn translated_to(&self, site: Site, packet: Packet, ct: &mut CtState) -> Packet {
        let rules = &self.space(site.space).ruleset;
        self.evaluate(site, packet, ct, rules).packet
    }

    /// Numbers in the host's rules and sets that may be ports.
    fn ports_in_rules(&self) -> Vec<u16> {
        let rules = &self.state.host().ruleset;
        let two = |b: &[u8]| b.try_into().ok().map(u16::from_be_bytes);
        let exprs = rules
            .chains
            .iter()
            .flat_map(|c| &c.rules)
            .flat_map(|r| &r.exprs);
        let in_rules = exprs.filter_map(|e| match e {
            Expr::Match {
                test: Match::Dport(a, _),
                ..
            } => Some(*a),
            Expr::Cmp { data, .. } => two(data),
            _ => None,
        });
        let in_sets = rules.sets.iter().flat_map(|s| {
            let mut at = 0;
            let several = s.fields.len() > 1;
            let place = s.fields.iter().find_map(|len| {
                let here = at;
                at += if several { len.div_ceil(4) * 4 } else { *len };
                (*len == 2).then_some(here as usize)
            });
            s.elements
                .iter()
                .filter_map(move |e| two(e.from.get(place?..place? + 2)?))
        });
        let mut all = Vec::new();
        for port in in_rules.chain(in_sets).filter(|p| *p != 0) {
            if all.len() < MOST && !all.contains(&port) {
                all.push(port);
            }
        }
        all
    }
}
