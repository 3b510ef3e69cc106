//! Arrival: whether the packet came to the namespace, and by the mapping, that was meant.

use std::net::{IpAddr, Ipv4Addr};

use crate::publish::PortRange;
use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::state::{HOST, Place, SpaceId};

use super::ends::{Ends, show_end};
use super::fault::Fault;
use super::owner::holders;
use super::route;
use super::rules::object;
use super::{Arrival, Walk};

/// Where the packet arrived.
#[derive(Debug, Clone)]
pub(super) enum Arrived {
    In {
        space: SpaceId,
        iif: u32,
        packet: Packet,
    },
    Outside {
        from: Place,
        packet: Packet,
    },
}

impl<'a> Walk<'a> {
    /// Judges where the packet came to.
    pub(super) fn arrive(&mut self, ends: &Ends<'a>, end: Arrival) -> Option<Arrived> {
        match end {
            Arrival::Lost => {
                if self.causes.is_empty() {
                    self.unknown = true;
                }
                None
            }
            Arrival::Outside { from, packet } => Some(Arrived::Outside { from, packet }),
            Arrival::Local { space, iif, packet } => {
                if let Some((verdict, fault)) = self.kept_by_route(space, iif, &packet) {
                    self.blame(verdict, "route", fault);
                    return None;
                }
                self.check_place(ends, space, &packet);
                if self.check_doubled(ends, space, &packet) {
                    return None;
                }
                self.socket(space, iif, &packet);
                Some(Arrived::In { space, iif, packet })
            }
        }
    }

    /// Both places of one address, where they hang on one segment: the space's own and the other one's.
    fn shared(&self, space: SpaceId, other: SpaceId, addr: IpAddr) -> Option<(Place, Place)> {
        let all = holders(self.state, addr);
        let here = all.iter().find(|p| p.space == space)?;
        let there = all.iter().find(|p| p.space == other)?;
        let seg = super::segment::segment(self.state, *here);
        seg.way_to(*there).map(|_| (*here, *there))
    }

    /// The sender keeps the packet to itself, since it has the address of the one that was meant.
    fn check_doubled(&mut self, ends: &Ends<'a>, space: SpaceId, packet: &Packet) -> bool {
        if self.origin != Some(space) || packet.dst.is_loopback() {
            return false;
        }
        let takes = packet.l4 == L4::Icmp
            || super::socket::takes(self.space(space), packet, None).is_some();
        let others: Vec<SpaceId> = match ends.to {
            Some(to) => vec![to],
            None if takes => Vec::new(),
            None => holders(self.state, packet.dst)
                .iter()
                .map(|p| p.space)
                .collect(),
        };
        let found = others
            .into_iter()
            .filter(|other| *other != space)
            .find_map(|other| self.shared(space, other, packet.dst));
        let Some((here, there)) = found else {
            return false;
        };
        let fault = self.duplicate(packet.dst, there, here);
        let verdict = if takes {
            Verdict::Dropped
        } else {
            Verdict::Rejected
        };
        self.blame(verdict, "route", fault);
        true
    }

    /// Is it the space that was meant?
    fn check_place(&mut self, ends: &Ends<'a>, space: SpaceId, packet: &Packet) {
        let Some(sent) = &ends.packet else {
            return;
        };
        if let Some((meant, name)) = self.publishes_port(sent)
            && meant != space
            && self.origin != Some(meant)
        {
            let fault = self.shadowed(space, sent, &name);
            self.blame(Verdict::Dropped, "published", fault);
            return;
        }
        let Some(to) = ends.to.filter(|to| *to != space && packet.dst == sent.dst) else {
            return;
        };
        if self.shared(space, to, packet.dst).is_some() {
            return;
        }
        let (here, there) = (self.space(space), self.space(to));
        let both = holders(self.state, packet.dst);
        if !both.iter().any(|p| p.space == to) || !both.iter().any(|p| p.space == space) {
            return;
        }
        let dev = both.iter().find(|p| p.space == space).copied();
        let dev = dev
            .and_then(|p| self.state.link(p))
            .map_or("?", |l| l.name.as_str());
        let shown = format!("{} dev {dev}", packet.dst);
        let what = format!(
            "{} is an address of {} and of {}.",
            packet.dst, here.name, there.name
        );
        let fault = Fault::new(Code::RouteConflict, space, shown.clone(), what)
            .evidence(format!(
                "{}ip addr show dev {dev}: {}",
                here.enter, packet.dst
            ))
            .fix(format!("{}ip addr del {shown}", here.enter));
        self.blame(Verdict::Dropped, "route", fault);
    }

    /// The wharf container that publishes the asked host port.
    fn publishes_port(&self, sent: &Packet) -> Option<(SpaceId, String)> {
        if sent.l4 == L4::Icmp || !route::is_local(self.state.host(), sent.dst) {
            return None;
        }
        // Of loopback only the host itself is promised something.
        let promised = sent.dst == IpAddr::V4(Ipv4Addr::LOCALHOST) && self.origin == Some(HOST);
        if sent.dst.is_loopback() && !promised {
            return None;
        }
        let within = |r: PortRange| (r.first()..=r.last()).contains(&sent.dport);
        let container = self.state.containers.iter().find(|c| {
            self.state.published(c).iter().any(|(family, m)| {
                m.protocol.number() == sent.protocol()
                    && *family == sent.family()
                    && m.bound_to().is_none_or(|ip| ip == sent.dst)
                    && within(m.host)
            })
        })?;
        let name = container.name.to_string();
        Some((self.state.container_space(&name)?, name))
    }

    fn shadowed(&self, space: SpaceId, sent: &Packet, name: &str) -> Fault {
        let shown = show_end(sent.dst, sent.dport);
        let host = self.state.host();
        match &self.dnat {
            Some((at, rule, addr)) => {
                let what = format!(
                    "{} takes {shown} to {addr} before wharf's mapping to {name}.",
                    object(rule)
                );
                Fault::new(Code::PublishShadowed, *at, object(rule), what)
                    .owner(rule.owner)
                    .evidence(format!("{}nft -a list ruleset: {}", host.enter, rule.text))
                    .evidence(format!("wharf port ls {name}"))
                    .fix(super::rules::removed(host, rule))
            }
            None => {
                let taken = self.space(space);
                let what = format!(
                    "{shown} is published for {name}, but the packet stays in {}.",
                    taken.name
                );
                Fault::new(Code::PublishShadowed, space, shown.clone(), what)
                    .owner(Owner::Wharf)
                    .evidence(format!("wharf port ls {name}"))
                    .evidence(format!(
                        "{}nft list table inet wharf: no translation",
                        host.enter
                    ))
                    .fix("wharf repair")
            }
        }
    }
}
