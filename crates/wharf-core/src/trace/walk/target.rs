//! Addresses of both ends: which one is meant, and why there is none.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::state::{Address, Place, SpaceId};

use super::Walk;
use super::ends::{addresses, port_range};
use super::fault::Fault;
use super::route::sysctl_name;

impl<'a> Walk<'a> {
    /// All ports for outgoing connections may be taken.
    pub(super) fn local_ports(&mut self, id: SpaceId) {
        let space = self.space(id);
        let (lowest, highest) = port_range(space);
        let most = u32::from(highest - lowest) + 1;
        if space.ports_in_use >= most {
            let name = "net.ipv4.ip_local_port_range";
            let fault = Fault::new(
                Code::PortsExhausted,
                id,
                name,
                "All local ports are taken, so that no new connection can be made.",
            )
            .evidence(format!("{}sysctl {name}: {lowest} {highest}", space.enter))
            .evidence(format!(
                "{}ss -tan: {} ports in use",
                space.enter, space.ports_in_use
            ))
            .fix(format!("{}sysctl -w {name}=\"1024 65535\"", space.enter));
            self.blame(Verdict::Dropped, "source", fault);
        }
    }

    pub(super) fn without_address(
        &self,
        id: SpaceId,
        asked: Option<IpAddr>,
        family: Family,
    ) -> Fault {
        let space = self.space(id);
        let links: Vec<_> = space.links.iter().filter(|l| !l.loopback).collect();
        if asked.is_none() && family == Family::V6 {
            if let Some(fault) = self.without_v6(id) {
                return fault;
            }
            if let Some(fault) = self.v6_off(id) {
                let link = links.first().map_or(0, |l| l.index);
                let more = match fault.fix.len() {
                    1 => self.readdress(id, link, None, Family::V6),
                    _ => Vec::new(),
                };
                return fault.fixes(more);
            }
            if let [link] = links[..]
                && !link.up
            {
                return self.link_down(Place {
                    space: id,
                    index: link.index,
                });
            }
        }
        let object = asked
            .map(|a| a.to_string())
            .or(links.first().map(|l| l.name.clone()))
            .unwrap_or_else(|| "lo".to_owned());
        let what = match asked {
            Some(addr) => format!("{} does not have the address {addr}.", space.name),
            None => format!("{} has no {family} address to send from.", space.name),
        };
        let flag = if family == Family::V4 { "-4" } else { "-6" };
        let mut fault = Fault::new(Code::NoAddress, id, object, what)
            .evidence(format!("{}ip {flag} addr: no such address", space.enter));
        if let Some(c) = space.container.as_deref().and_then(|n| self.container(n))
            && asked.is_none()
            && let Some(a) = c.attachments.first()
        {
            fault = match a.address(family) {
                Some(net) => fault.fix(format!(
                    "{}ip addr add {net} dev {}",
                    space.enter, a.interface
                )),
                None => fault
                    .fix("wharf network create dual --ipv6")
                    .fix(format!("wharf network connect dual {}", c.name)),
            };
        } else if let (Some(link), None) = (links.first(), asked) {
            fault = fault.fixes(self.readdress(id, link.index, None, family));
        }
        if fault.fix.is_empty() {
            fault = fault.fix(format!("{}ip addr show", space.enter));
        }
        fault
    }

    /// A container whose networks have no IPv6; wharf switches it off there.
    fn without_v6(&self, id: SpaceId) -> Option<Fault> {
        let space = self.space(id);
        let container = self.container(space.container.as_deref()?)?;
        let first = container.attachments.first()?;
        let has = |a: &crate::attach::Attachment| a.address(Family::V6).is_some();
        if container.attachments.iter().any(has) {
            return None;
        }
        let (name, net) = (&container.name, &first.network);
        let sysctl = format!(
            "net.ipv6.conf.{}.disable_ipv6",
            sysctl_name(first.interface.as_str())
        );
        if space.sysctl(&sysctl) != Some(1) {
            return None;
        }
        let what = format!("The network {net} of {name} has no IPv6.");
        Some(
            Fault::new(Code::Ipv6Disabled, id, sysctl.clone(), what)
                .owner(Owner::Wharf)
                .evidence(format!("wharf network inspect {net}: no IPv6 subnet"))
                .evidence(format!("{}sysctl {sysctl}: 1", space.enter))
                .fix(format!("wharf network create {net}-v6 --ipv6"))
                .fix(format!("wharf network connect {net}-v6 {name}")),
        )
    }

    /// IPv6 is switched off, or its addresses are not usable.
    pub(super) fn v6_off(&self, id: SpaceId) -> Option<Fault> {
        let space = self.space(id);
        for link in space.links.iter().filter(|l| !l.loopback) {
            if let Some(fault) = self.disabled_on(id, &link.name) {
                return Some(fault);
            }
        }
        let waiting = space
            .addrs
            .iter()
            .find(|a| a.net.addr().is_ipv6() && a.scope == 0 && (a.tentative || a.dad_failed))?;
        Some(self.address_waits(id, waiting))
    }

    /// `disable_ipv6` of one link.
    pub(super) fn disabled_on(&self, id: SpaceId, link: &str) -> Option<Fault> {
        let space = self.space(id);
        let name = format!("net.ipv6.conf.{}.disable_ipv6", sysctl_name(link));
        if space.sysctl(&name) != Some(1) {
            return None;
        }
        let what = format!("IPv6 is switched off on {link} in {}.", space.name);
        Some(
            Fault::new(Code::Ipv6Disabled, id, name.clone(), what)
                .evidence(format!("{}sysctl {name}: 1", space.enter))
                .fix(format!("{}sysctl -w {name}=0", space.enter)),
        )
    }

    /// An address in or after failed duplicate detection.
    pub(super) fn address_waits(&self, id: SpaceId, addr: &Address) -> Fault {
        let space = self.space(id);
        let link = space.link(addr.link).map_or("?", |l| l.name.as_str());
        let (word, what) = if addr.dad_failed {
            ("dadfailed", "another host on the segment has it")
        } else {
            ("tentative", "duplicate detection has not ended")
        };
        let net = addr.net;
        Fault::new(
            Code::Ipv6Disabled,
            id,
            format!("{net} dev {link}"),
            format!("The address {} is not usable: {what}.", net.addr()),
        )
        .evidence(format!("{}ip -6 addr show dev {link}: {word}", space.enter))
        .fixes(self.settle_address(id, addr))
    }

    /// An address that waits is taken without asking; one that somebody else has is exchanged for a free one.
    fn settle_address(&self, id: SpaceId, addr: &Address) -> Vec<String> {
        let space = self.space(id);
        let link = space.link(addr.link).map_or("?", |l| l.name.as_str());
        let net = addr.net;
        let mut all = vec![format!("{}ip addr del {net} dev {link}", space.enter)];
        let others = super::owner::holders(self.state, net.addr());
        let taken = others.iter().any(|p| p.space != id);
        let free = if taken {
            self.readdress(id, addr.link, None, Family::of_net(net))
        } else {
            Vec::new()
        };
        if free.is_empty() {
            all.push(format!("{}ip addr add {net} dev {link} nodad", space.enter));
        }
        all.extend(free);
        all
    }

    pub(super) fn family_of(&self, id: SpaceId, asked: Option<IpAddr>) -> Family {
        let v4 = addresses(self.space(id), Family::V4).next().is_some();
        let v6 = addresses(self.space(id), Family::V6).next().is_some();
        match asked {
            Some(addr) => Family::of(addr),
            None if v6 && !v4 => Family::V6,
            None => Family::V4,
        }
    }

    /// The address of a namespace that another one would use.
    pub(super) fn target(
        &mut self,
        from: SpaceId,
        asked: Option<IpAddr>,
        to: SpaceId,
    ) -> Option<IpAddr> {
        let first = self.family_of(from, asked);
        let mut families = vec![first];
        if asked.is_none() {
            families.extend(Family::BOTH.into_iter().filter(|f| *f != first));
        }
        for family in families {
            if let Some(addr) = self.target_of(from, to, family) {
                return Some(addr);
            }
        }
        self.blame_unaddressed(to, first);
        None
    }

    pub(super) fn target_of(&self, from: SpaceId, to: SpaceId, family: Family) -> Option<IpAddr> {
        let (here, there) = (self.space(from), self.space(to));
        let near = |a: &&Address| {
            addresses(here, family)
                .any(|own| own.net.contains(&a.net.addr()) || a.net.contains(&own.net.addr()))
        };
        let wharf = || {
            let name = there.container.as_deref()?;
            let all = &self.container(name)?.attachments;
            let shared = all.iter().filter_map(|a| a.address(family));
            let mut near: Vec<_> = shared.collect();
            near.sort_by_key(|n| !addresses(here, family).any(|o| o.net.contains(&n.addr())));
            near.first().map(|n| n.addr())
        };
        let waiting = || {
            let all = there.addrs.iter();
            all.filter(|a| Family::of_net(a.net) == family && a.scope == 0)
                .map(|a| a.net.addr())
                .find(|a| !a.is_loopback())
        };
        addresses(there, family)
            .find(|a| near(a) && !self.avoid.contains(&a.net.addr()))
            .or_else(|| addresses(there, family).next())
            .map(|a| a.net.addr())
            .or_else(wharf)
            .or_else(waiting)
    }

    pub(super) fn blame_unaddressed(&mut self, to: SpaceId, family: Family) {
        let space = self.space(to);
        let link = space.links.iter().find(|l| !l.loopback);
        let object = link.map_or("lo".to_owned(), |l| l.name.clone());
        let what = format!("{} has no {family} address.", space.name);
        let mut fault = Fault::new(Code::NoSuchDestination, to, object, what)
            .evidence(format!("{}ip addr: no address", space.enter))
            .fixes(link.map_or(Vec::new(), |l| self.readdress(to, l.index, None, family)));
        if fault.fix.is_empty() {
            fault = fault.fix(format!("{}ip addr show", space.enter));
        }
        self.blame(Verdict::Dropped, "source", fault);
    }
}
