//! `ADD`: a container is attached, or all is as before.

use serde_json::Value;
use wharf_core::addr::Family;
use wharf_core::attach::{Addressing, AttachRequest, Attachment, ClientKey, Container, RouteSpec};
use wharf_core::model::RouteMore;
use wharf_core::name::ContainerName;
use wharf_core::network::NetworkSpec;
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest};
use wharf_engine::engine::Engine;

use super::call::Call;
use super::config::{Config, Input};
use super::error::{CniError, Done, code};
use super::ipam::{self, Ipam, Numbering};
use super::result::{Dns, Interface, Ip, Outcome, Route, Version};
use super::{chained, delegate, extras, names, network};

/// Attaches a container, and gives the result.
///
/// # Errors
/// Something cannot be had; nothing is left behind.
pub fn add(call: &Call, input: &Input) -> Done<Value> {
    let config = &input.config;
    config.check()?;
    check_own_netns(call)?;
    for text in config.remarks() {
        super::remark(&format!("note: {text}\n"));
    }
    let prev = config
        .prev_result
        .as_ref()
        .map(Outcome::parse)
        .transpose()?;
    if let Some(prev) = &prev
        && chained::is_attached(prev, call, input.version)
    {
        return chained::add(call, input, prev);
    }
    let key = call.key(&config.name);
    let mut engine = super::engine()?;
    let name = free_name(&mut engine, &key)?;
    let (numbering, plugin) = match ipam::read(call, input)? {
        Ipam::None => (None, None),
        Ipam::Inside(numbering) => (Some(*numbering), None),
        Ipam::Plugin(plugin) => {
            let result = delegate::add(call, input, &plugin)?;
            (Some(ipam::from_plugin(result)), Some(plugin))
        }
    };
    let work = Work {
        call,
        input,
        key,
        name,
        numbering,
        prev: prev.unwrap_or_default(),
    };
    let done = work.attach(&mut engine);
    if let (Err(_), Some(plugin)) = (&done, &plugin) {
        delegate::give_back(call, input, plugin);
    }
    done
}

/// A name for the record of a new attachment.
///
/// # Errors
/// The attachment is there already.
pub fn free_name(engine: &mut Engine, key: &ClientKey) -> Done<ContainerName> {
    let candidates = names::container_names(key);
    for name in &candidates {
        if engine.client_container(name, key)?.is_some() {
            let msg = format!(
                "container {} has interface {} on network {} already",
                key.container, key.interface, key.network
            );
            return Err(CniError::new(code::CONFLICT, msg));
        }
    }
    for name in candidates {
        match engine.container(&name) {
            Ok(_) => {}
            Err(wharf_engine::error::EngineError::NotFound(_)) => return Ok(name),
            Err(error) => return Err(error.into()),
        }
    }
    Err(CniError::new(
        code::CONFLICT,
        "no name is free for the container",
    ))
}

/// A namespace that is none is told by the engine; one that cannot be opened is worth its own number.
fn check_own_netns(call: &Call) -> Done<()> {
    match std::fs::metadata(&call.netns) {
        Ok(_) => Ok(()),
        Err(e) => Err(CniError::new(
            code::NETNS,
            format!("failed to open netns {:?}", call.netns),
        )
        .with(e.to_string())),
    }
}

/// What is needed to attach.
struct Work<'a> {
    call: &'a Call,
    input: &'a Input,
    key: ClientKey,
    name: ContainerName,
    numbering: Option<Numbering>,
    prev: Outcome,
}

impl Work<'_> {
    fn config(&self) -> &Config {
        &self.input.config
    }

    fn attach(&self, engine: &mut Engine) -> Done<Value> {
        let config = self.config();
        let mut request = network::request(config, self.numbering.as_ref())?;
        network::settle_name(engine, config, &mut request)?;
        let mac = network::mac(self.call, config)?;
        let ports = network::ports(config)?;
        let extras = extras::read(self.call, config, true)?;
        let mut attach = AttachRequest::new(request.name.clone());
        attach.mac = mac;
        *attach.extras = extras;
        attach.interface = Some(self.call.ifname.parse().map_err(bad_name)?);
        attach.aliases = network::aliases(config);
        if let Some(n) = &self.numbering {
            attach.ips.clone_from(&n.wanted);
            attach.addressing = n.addressing.clone();
        }
        let container = |spec: &NetworkSpec| {
            let mut attach = attach.clone();
            attach.routes = self.kernel_routes(spec);
            ContainerRequest {
                id: None,
                ports_held: false,
                name: self.name.clone(),
                owner: network::OWNER.to_owned(),
                client: Some(self.key.clone()),
                netns: NetnsRequest::Path(self.call.netns.clone().into()),
                networks: vec![attach],
                ports: ports.iter().copied().map(Into::into).collect(),
                labels: Default::default(),
                command: Vec::new(),
                transient: false,
            }
        };
        let (spec, container) = network::create(engine, &request, container)?;
        let done = self.result(engine, &container, &spec);
        if done.is_err() {
            take_back(engine, &self.name);
        }
        done
    }

    /// Whether the container gets an address of a family here.
    fn carries(&self, spec: &NetworkSpec, family: Family) -> bool {
        let of_family = |net: &ipnet::IpNet| Family::of_net(*net) == family;
        match self.numbering.as_ref().map(|n| &n.addressing) {
            None => false,
            Some(Addressing::Given(given)) => given.iter().any(|(net, _)| of_family(net)),
            Some(Addressing::Pools { sets, .. }) => {
                sets.iter().flatten().any(|p| of_family(&p.subnet))
            }
            Some(Addressing::Subnets) => spec.subnet(family).is_some(),
        }
    }

    /// The address plugin's routes. One of a family that the container has no address of would lead nowhere, and lists
    /// name both families for all their networks.
    fn given_routes(&self, spec: &NetworkSpec) -> impl Iterator<Item = &Route> {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| self.carries(spec, family));
        let carried = move |route: &&Route| match Family::of_net(route.dst) {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        let all = self.numbering.iter().flat_map(|n| &n.routes);
        all.filter(carried)
    }

    /// The families whose default route `isDefaultGateway` asks for: those that the address plugin gives none.
    fn default_routes(&self, spec: &NetworkSpec) -> Vec<Family> {
        if !self.config().is_default_gateway {
            return Vec::new();
        }
        let there = |family: Family| {
            let mut all = self.given_routes(spec).map(|r| r.dst);
            all.any(|dst| dst.prefix_len() == 0 && Family::of_net(dst) == family)
        };
        let wanted = |family: &Family| self.carries(spec, *family) && !there(*family);
        Family::BOTH.into_iter().filter(wanted).collect()
    }

    /// The routes for the kernel; the engine knows the gateway of those without.
    fn kernel_routes(&self, spec: &NetworkSpec) -> Vec<RouteSpec> {
        let make = |route: &Route| RouteSpec {
            dst: route.dst.trunc(),
            via: route.gw,
            metric: route.priority,
            more: RouteMore {
                table: route.table,
                mtu: route.mtu,
                advmss: route.advmss,
                scope: route.scope,
                beside: true,
                any_link: false,
            },
        };
        let plugins = self.given_routes(spec).map(make);
        let defaults = self.default_routes(spec);
        let defaults = defaults.iter().map(|f| make(&Route::to_all(f.any())));
        let mut all: Vec<RouteSpec> = Vec::new();
        for route in plugins.chain(defaults.map(|r| RouteSpec { via: None, ..r })) {
            if !all.contains(&route) {
                all.push(route);
            }
        }
        all
    }

    fn result(
        &self,
        engine: &mut Engine,
        container: &Container,
        spec: &NetworkSpec,
    ) -> Done<Value> {
        let [a] = container.attachments.as_slice() else {
            return Err(CniError::new(
                code::FAILED,
                "the record has not one attachment",
            ));
        };
        let host_mac = engine.link_mac(&a.host_interface)?;
        let mut outcome = self.prev.clone();
        let newest = self.input.version == Version::NEWEST;
        let interface = |name: &str, mac: String, sandbox: &str| Interface {
            name: name.to_owned(),
            mac,
            mtu: newest.then_some(spec.mtu),
            sandbox: sandbox.to_owned(),
            more: serde_json::Map::new(),
        };
        let host_mac = host_mac.map(|m| m.to_string()).unwrap_or_default();
        outcome.interfaces.extend([
            interface(spec.bridge.as_str(), spec.bridge_mac.to_string(), ""),
            interface(a.host_interface.as_str(), host_mac, ""),
            interface(a.interface.as_str(), a.mac.to_string(), &self.call.netns),
        ]);
        if let (Some(mtu), Some(inside)) = (a.extras.traits.mtu, outcome.interfaces.last_mut()) {
            inside.mtu = newest.then_some(mtu);
        }
        let at = outcome.interfaces.len() as i64 - 1;
        outcome.ips.extend(a.addresses.iter().map(|address| Ip {
            interface: Some(at),
            address: *address,
            gateway: self.gateway_of(spec, *address),
        }));
        outcome.routes.extend(self.given_routes(spec).cloned());
        self.list_default_routes(&mut outcome, a, spec, at);
        if let Some(detour) = detour(engine, a)? {
            outcome.interfaces.push(detour);
        }
        outcome.dns = self.dns();
        outcome.json(self.input.version)
    }

    /// Default routes that no address plugin gave: those asked for, and those of a network that somebody made with them.
    fn list_default_routes(
        &self,
        outcome: &mut Outcome,
        a: &Attachment,
        spec: &NetworkSpec,
        at: i64,
    ) {
        let mut families = self.default_routes(spec);
        families.extend(&a.default_routes);
        families.sort_unstable();
        families.dedup();
        for family in families {
            let there = |r: &Route| r.dst.prefix_len() == 0 && Family::of_net(r.dst) == family;
            let own = |ip: &&Ip| ip.interface == Some(at) && Family::of_net(ip.address) == family;
            let gateway = outcome.ips.iter().find(own).and_then(|ip| ip.gateway);
            if let Some(gateway) = gateway.filter(|_| !outcome.routes.iter().any(there)) {
                outcome.routes.push(Route::to_all(gateway));
            }
        }
    }

    /// The gateway of an address, as its plugin says; where the bridge is the gateway, there is always one.
    fn gateway_of(&self, spec: &NetworkSpec, address: ipnet::IpNet) -> Option<std::net::IpAddr> {
        let given = match self.numbering.as_ref().map(|n| &n.addressing) {
            Some(Addressing::Given(given)) => {
                let own = given.iter().find(|(net, _)| *net == address);
                return own.and_then(|(_, g)| *g).or_else(|| {
                    let subnet = spec.subnets.iter().find(|s| s.subnet == address.trunc());
                    subnet.map(|s| s.gateway).filter(|_| self.config().routes())
                });
            }
            Some(Addressing::Pools { sets, .. }) => {
                let mut pools = sets.iter().flatten();
                pools
                    .find(|p| p.subnet == address.trunc())
                    .map(|p| p.gateway)
            }
            _ => None,
        };
        let subnet = spec.subnets.iter().find(|s| s.subnet == address.trunc());
        given.or_else(|| subnet.map(|s| s.gateway))
    }

    /// The configuration's name service before the address plugin's; the runtime's before both.
    fn dns(&self) -> Dns {
        let config = self.config();
        let runtime = &config.runtime_config.dns;
        let mut dns = if config.dns != Dns::default() {
            config.dns.clone()
        } else {
            self.numbering
                .as_ref()
                .map(|n| n.dns.clone())
                .unwrap_or_default()
        };
        if !runtime.servers.is_empty() {
            dns.nameservers.clone_from(&runtime.servers);
        }
        if !runtime.searches.is_empty() {
            dns.search.clone_from(&runtime.searches);
        }
        if !runtime.options.is_empty() {
            dns.options.clone_from(&runtime.options);
        }
        dns
    }
}

/// The interface by which what a container sends is held back, as results list it.
pub fn detour(engine: &mut Engine, a: &Attachment) -> Done<Option<Interface>> {
    let shaping = a.extras.shaping.as_ref().filter(|s| s.outward.is_some());
    let Some(shaping) = shaping else {
        return Ok(None);
    };
    let mac = engine.link_mac(&shaping.detour)?;
    Ok(Some(Interface {
        name: shaping.detour.to_string(),
        mac: mac.map(|m| m.to_string()).unwrap_or_default(),
        mtu: None,
        sandbox: String::new(),
        more: serde_json::Map::new(),
    }))
}

/// Removes what was made, on the way back from a failure.
pub fn take_back(engine: &mut Engine, name: &ContainerName) {
    if let Err(error) = engine.remove(std::slice::from_ref(name), true, Mode::Apply) {
        super::remark(&format!("error: on the way back: {error}\n"));
    }
}

/// An interface name was checked with the call.
pub fn bad_name(error: wharf_core::name::NameError) -> CniError {
    CniError::new(code::ENVIRONMENT, error.to_string())
}
