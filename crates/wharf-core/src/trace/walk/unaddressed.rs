//! A bridge of wharf's without an address of its network: the host has no route to the containers.

use std::net::IpAddr;

use crate::addr::Family;
use crate::network::{NetworkSpec, Subnet};
use crate::trace::report::Code;
use crate::trace::state::{HOST, Place, SpaceId};

use super::Walk;
use super::ends::wharf;
use super::fault::Fault;
use super::host::{Out, six};
use super::route::{self, Ask};

impl<'a> Walk<'a> {
    /// Blames a bridge without address, where the way that was found (by a link, by a prefix of a length) passes it by.
    pub(super) fn bridge_without_address(
        &self,
        id: SpaceId,
        dst: IpAddr,
        found: Option<(Option<u32>, u8)>,
    ) -> Option<(Fault, Option<Out<'a>>)> {
        let (space, family) = (self.space(id), Family::of(dst));
        let (net, subnet) = self.state.networks.iter().find_map(|net| {
            let mut own = net.subnets.iter();
            let subnet = own.find(|s| s.subnet.contains(&dst))?;
            (id == HOST && net.has_own_bridge()).then_some((net, subnet))
        })?;
        let Some(bridge) = space.link_named(net.bridge.as_str()) else {
            let wider = found.is_none_or(|(_, length)| length < subnet.subnet.prefix_len());
            return self
                .bridge_gone(dst)
                .filter(|_| wider)
                .map(|fault| (fault, None));
        };
        let passes = found.is_none_or(|(link, length)| {
            link != Some(bridge.index) && length < subnet.subnet.prefix_len()
        });
        let mut addrs = space.addrs.iter().filter(|a| a.link == bridge.index);
        if !passes || dst == subnet.gateway {
            return None;
        }
        if !bridge.up {
            // With it went its routes, and in IPv6 its addresses.
            let place = Place {
                space: id,
                index: bridge.index,
            };
            let fault = self.link_down(place).fix("wharf repair");
            return Some((fault, Some(self.on_link(id, bridge.index, dst))));
        }
        if addrs.any(|a| a.net.contains(&dst)) {
            // A policy rule may lead past a route that is there.
            let there = route::in_main(space, &Ask::to(dst))
                .is_some_and(|r| r.hops.iter().any(|h| h.link == Some(bridge.index)));
            let out = self.on_link(id, bridge.index, dst);
            return (!there).then(|| (self.lost_route(net, subnet), Some(out)));
        }
        let (dev, own) = (&bridge.name, subnet.gateway_net());
        let object = format!("{} dev {dev}", subnet.subnet);
        // Where there is another way, the packet takes it.
        let code = match found {
            Some(_) => Code::RouteConflict,
            None => Code::NoRoute,
        };
        let fault = if net.has_gateway_address(family) {
            let what = format!(
                "The bridge {dev} lost the address {own} that wharf gave it, and the host its route to the containers of {}.",
                net.name
            );
            Fault::new(code, id, object, what).fix("wharf repair")
        } else {
            let what = format!(
                "The network {} is set to have no {family} address on its bridge {dev}, so that the host has no route to its containers.",
                net.name
            );
            Fault::new(code, id, object, what)
                .evidence(format!("wharf network inspect {}: options", net.name))
                .fix(format!("ip {}addr add {own} dev {dev}", six(dst)))
        };
        let fault = wharf(fault).evidence(format!("ip {}addr show dev {dev}: no {own}", six(dst)));
        Some((fault, Some(self.on_link(id, bridge.index, dst))))
    }

    /// Blames a bridge that lost a gateway's address, which is looked for on its segment.
    pub(super) fn lost_gateway_address(&self, addr: IpAddr) -> Option<Fault> {
        let (net, subnet) = self.state.networks.iter().find_map(|net| {
            let subnet = net.subnets.iter().find(|s| s.gateway == addr)?;
            let has = net.has_gateway_address(Family::of(addr));
            (has && net.has_own_bridge()).then_some((net, subnet))
        })?;
        let (dev, own) = (net.bridge.as_str(), subnet.gateway_net());
        let what = format!(
            "The bridge {dev} lost the address {own} that wharf gave it as the gateway of {}.",
            net.name
        );
        let fault = Fault::new(Code::NoSuchDestination, HOST, addr.to_string(), what)
            .evidence(format!("ip {}addr show dev {dev}: no {own}", six(addr)))
            .fix("wharf repair");
        Some(wharf(fault))
    }

    /// Blames a bridge of wharf's that is not there, on whose network an address is.
    pub(super) fn bridge_gone(&self, addr: IpAddr) -> Option<Fault> {
        let mut own = self.state.networks.iter().filter(|n| n.has_own_bridge());
        let net = own.find(|n| n.subnets.iter().any(|s| s.subnet.contains(&addr)))?;
        let dev = net.bridge.as_str();
        if self.space(HOST).link_named(dev).is_some() {
            return None;
        }
        let what = format!("The bridge {dev} of the network {} is gone.", net.name);
        let fault = Fault::new(Code::NotOnBridge, HOST, dev, what)
            .evidence(format!("ip link show {dev}: does not exist"))
            .fix("wharf repair");
        Some(wharf(fault))
    }

    /// The host lost the route that came with the address of a bridge of wharf's.
    pub(super) fn lost_route(&self, net: &NetworkSpec, subnet: &Subnet) -> Fault {
        let (dev, to) = (net.bridge.as_str(), subnet.subnet);
        let what = format!("The host lost its route to {to}, which is at wharf's bridge {dev}.");
        let fault = Fault::new(Code::NoRoute, HOST, format!("{to} dev {dev}"), what)
            .evidence(format!(
                "ip {}route show dev {dev}: no {to}",
                six(to.addr())
            ))
            .fix("wharf repair");
        wharf(fault)
    }
}
