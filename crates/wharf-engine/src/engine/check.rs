//! Whether a container still has in the kernel what it was given.

use std::collections::BTreeMap;

use ipnet::IpNet;
use wharf_core::addr::Mac;
use wharf_core::attach::{Attachment, Container, RouteSpec};
use wharf_core::compile;
use wharf_core::model::{Link, Netns, Resource};
use wharf_core::network::NetworkSpec;
use wharf_core::nft::{Element, Object, Table};
use wharf_nft::SetRef;

use crate::engine::desired::{as_made, connected};
use crate::engine::findings::compare;
use crate::engine::host::{HostPart, backstop, failed, shared_rules};
use crate::engine::{Engine, Networks};
use crate::error::EngineError;
use crate::kernel::netlink::nft_encode;
use crate::observe::LinkInfo;

/// What somebody believes of a container's first interface, besides what its record says.
#[derive(Debug, Clone, Default)]
pub struct Believed {
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its routes.
    pub routes: Vec<RouteSpec>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: Option<u32>,
}

impl Engine {
    /// What a container lacks in the kernel, in words; empty when it has all.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn check(
        &mut self,
        container: &Container,
        believed: &Believed,
    ) -> Result<Vec<String>, EngineError> {
        let nets = self.networks_of(std::slice::from_ref(container))?;
        let mut missing = Vec::new();
        for (at, a) in container.attachments.iter().enumerate() {
            let Some(net) = nets.get(&a.network) else {
                missing.push(format!("network `{}`", a.network));
                continue;
            };
            if net.has_own_bridge() {
                self.check_cable(container, a, net, &mut missing)?;
            }
            let mut all = Believed::default();
            if at == 0 {
                all = believed.clone();
            }
            let new = |n: &&IpNet| !believed.addresses.contains(n);
            all.addresses.extend(a.addresses.iter().filter(new));
            all.routes.extend(a.routes.iter().cloned());
            self.check_inside(container, (a, net), &all, &mut missing)?;
        }
        self.check_elements(container, &nets, &mut missing)?;
        self.check_surroundings(container, &nets, &mut missing)?;
        Ok(missing)
    }

    /// What the networks and the host need, and what of the cables has not been looked at by the other checks. Others
    /// may have changed the container's interface, as plugins behind this one do.
    fn check_surroundings(
        &mut self,
        container: &Container,
        nets: &Networks,
        missing: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        let own = |r: &Resource| {
            matches!(
                r,
                Resource::Link(Link {
                    netns: Netns::Host,
                    ..
                }) | Resource::Port(_)
                    | Resource::Fdb { .. }
                    | Resource::Neigh { .. }
                    | Resource::Shaper { .. }
                    | Resource::Detour { .. }
                    | Resource::Traits { .. }
                    | Resource::Rule(_)
            )
        };
        let specs: Vec<NetworkSpec> = nets.values().cloned().collect();
        let managed = specs.iter().any(NetworkSpec::is_managed);
        let mut wanted: Vec<Resource> = Vec::new();
        if managed {
            let held = self.held(&HostPart::default())?;
            wanted.extend(shared_rules(held.as_ref()));
            wanted.extend(backstop());
            wanted.extend(self.host_needs(&specs)?.sysctls());
        }
        for spec in &specs {
            let mut all = compile::network(spec);
            as_made(spec, &mut all);
            wanted.extend(connected(&all).into_iter().map(|c| c.route));
            wanted.extend(all);
        }
        let of_container = compile::container(container, |name| nets.get(name));
        wanted.extend(of_container.into_iter().filter(own));
        let carriers = self.loopback_networks(container, nets);
        let carriers = carriers.iter().filter_map(|name| nets.get(name));
        wanted.extend(carriers.map(|net| compile::route_localnet(net, true)));
        let (rules, rest): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|r| matches!(r, Resource::Nft(_)));
        let read = |e: std::io::Error| failed("compare the kernel with the record", &e);
        let seen = self.kernel.observe_rules(&rules, &[]).map_err(read)?.seen;
        let there = self.kernel.observe(&rest).map_err(read)?;
        let mut findings = Vec::new();
        compare(&rules, &seen, &mut findings);
        compare(&rest, &there, &mut findings);
        for finding in findings {
            missing.push(format!("{} ({})", finding.object, finding.was));
        }
        Ok(())
    }

    fn check_cable(
        &mut self,
        container: &Container,
        a: &Attachment,
        net: &wharf_core::network::NetworkSpec,
        missing: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        let look = |e: std::io::Error| failed("look for a link", &e);
        let host = Netns::Host;
        let link = self.kernel.link(&host, &a.host_interface).map_err(look)?;
        let Some(link) = link else {
            missing.push(format!("host interface `{}`", a.host_interface));
            return Ok(());
        };
        if link.alias.as_deref() != Some(compile::port_alias(container, a).as_str()) {
            missing.push(format!("the mark of `{}`", a.host_interface));
        }
        if !link.up {
            missing.push(format!("`{}` up", a.host_interface));
        }
        let bridge = self.kernel.link(&host, &net.bridge).map_err(look)?;
        match bridge {
            None => missing.push(format!("bridge `{}`", net.bridge)),
            Some(b) if link.master != Some(b.index) => {
                missing.push(format!("`{}` in bridge `{}`", a.host_interface, net.bridge));
            }
            Some(b) if !b.up => missing.push(format!("bridge `{}` up", net.bridge)),
            Some(_) => {}
        }
        Ok(())
    }

    fn check_inside(
        &mut self,
        container: &Container,
        (a, net): (&Attachment, &NetworkSpec),
        believed: &Believed,
        missing: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        let place = Netns::Path(container.netns.path.clone());
        let Ok(link) = self.kernel.link(&place, &a.interface) else {
            missing.push(format!("namespace {}", container.netns.path.display()));
            return Ok(());
        };
        let Some(link) = link else {
            missing.push(format!("interface `{}`", a.interface));
            return Ok(());
        };
        if !link.up && !net.settings.interfaces_down {
            missing.push(format!("`{}` up", a.interface));
        }
        if let Some(mac) = believed.mac.filter(|mac| link.mac != Some(*mac)) {
            missing.push(format!("hardware address {mac} of `{}`", a.interface));
        }
        // A plugin behind wharf may set another one; the guard does not know it.
        let known = link.mac.is_none_or(|mac| mac == a.mac) || !net.has_own_bridge();
        if !known && believed.mac.is_none_or(|mac| link.mac == Some(mac)) {
            missing.push(format!(
                "hardware address {} of `{}`, from which alone wharf takes frames: give `mac` to the object of type wharf",
                a.mac, a.interface
            ));
        }
        if let Some(mtu) = believed.mtu.filter(|mtu| link.mtu != *mtu) {
            missing.push(format!("MTU {mtu} of `{}`", a.interface));
        }
        self.check_extras(&place, &link, a, missing);
        let read = |e: std::io::Error| failed("read the container's addresses and routes", &e);
        let there = self.kernel.addrs(&place).map_err(read)?;
        for addr in &believed.addresses {
            if !there.contains(&(link.index, *addr)) {
                missing.push(format!("address {addr} on `{}`", a.interface));
            }
        }
        if believed.routes.is_empty() {
            return Ok(());
        }
        let there = self.kernel.routes(&place).map_err(read)?;
        for route in &believed.routes {
            let same = |r: &crate::observe::RouteInfo| {
                r.dst == route.dst.trunc()
                    && (route.via.is_none() || r.gateway == route.via)
                    && route.more.table.is_none_or(|t| t == r.table)
                    && route.metric.is_none_or(|m| r.metric == Some(m))
            };
            if !there.iter().any(same) {
                missing.push(format!("route to {}", route.dst));
            }
        }
        Ok(())
    }

    fn check_extras(
        &mut self,
        place: &Netns,
        link: &LinkInfo,
        a: &Attachment,
        missing: &mut Vec<String>,
    ) {
        for (key, value) in &a.extras.sysctls {
            let is = self.kernel.sysctl(place, key).ok().flatten();
            if is.is_none_or(|is| !is.split_whitespace().eq(value.split_whitespace())) {
                missing.push(format!("sysctl {key} = {value}"));
            }
        }
        for (what, is, wanted) in [
            ("promisc", link.traits.promisc, a.extras.traits.promisc),
            ("allmulti", link.traits.allmulti, a.extras.traits.allmulti),
        ] {
            if wanted.is_some() && is != wanted {
                missing.push(format!("{what} of `{}`", a.interface));
            }
        }
        if let Some(shaping) = a.extras.shaping.as_ref().filter(|s| s.outward.is_some())
            && !matches!(self.kernel.link(&Netns::Host, &shaping.detour), Ok(Some(_)))
        {
            missing.push(format!("interface `{}`", shaping.detour));
        }
    }

    /// The elements of the guard and of published ports.
    fn check_elements(
        &mut self,
        container: &Container,
        nets: &Networks,
        missing: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        let mut sets: BTreeMap<(Table, String), Vec<Element>> = BTreeMap::new();
        for resource in compile::container(container, |name| nets.get(name)) {
            if let Resource::Nft(Object::Element(e)) = resource {
                sets.entry((e.table, e.set.clone())).or_default().push(e);
            }
        }
        for ((table, name), wanted) in sets {
            let set = SetRef::new(nft_encode::family(table), Table::NAME, &name);
            let there = self
                .kernel
                .nftables()
                .and_then(|nft| nft.dump_elements(&set))
                .unwrap_or_default();
            for element in &wanted {
                let made = nft_encode::elements(element);
                let same = |m: &wharf_nft::Element| {
                    there.iter().any(|t| t.key == m.key && t.data == m.data)
                };
                if !made.iter().all(same) {
                    missing.push(format!("a rule in `{name}`"));
                }
            }
        }
        Ok(())
    }
}
