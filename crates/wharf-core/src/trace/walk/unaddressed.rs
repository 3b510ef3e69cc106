//! A bridge of wharf's without an address of its network: the host has no route to the containers.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::Code;
use crate::trace::state::{HOST, SpaceId};

use super::Walk;
use super::ends::wharf;
use super::fault::Fault;
use super::host::{Out, six};

impl<'a> Walk<'a> {
    /// Blames a bridge without address, where the way that was found (by a link, by a prefix of a length) passes it by.
    pub(super) fn bridge_without_address(
        &self,
        id: SpaceId,
        dst: IpAddr,
        found: Option<(Option<u32>, u8)>,
    ) -> Option<(Fault, Out<'a>)> {
        let (space, family) = (self.space(id), Family::of(dst));
        let (net, subnet) = self.state.networks.iter().find_map(|net| {
            let mut own = net.subnets.iter();
            let subnet = own.find(|s| s.subnet.contains(&dst))?;
            (id == HOST && net.has_own_bridge()).then_some((net, subnet))
        })?;
        let bridge = space.link_named(net.bridge.as_str())?;
        let passes = found.is_none_or(|(link, length)| {
            link != Some(bridge.index) && length < subnet.subnet.prefix_len()
        });
        let mut addrs = space.addrs.iter().filter(|a| a.link == bridge.index);
        if !passes || dst == subnet.gateway || addrs.any(|a| a.net.contains(&dst)) {
            return None;
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
        Some((fault, self.on_link(id, bridge.index, dst)))
    }
}
