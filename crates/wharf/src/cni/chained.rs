//! Behind other plugins: the container has its interface, and wharf does only what is asked for beside that.

use serde_json::Value;
use wharf_core::attach::{Addressing, AttachRequest, Container};
use wharf_core::extras::Extras;
use wharf_core::name::{IfName, NetworkName};
use wharf_core::network::{NetworkKind, NetworkRequest};
use wharf_core::publish::{PortMapping, PortRequest};
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest};
use wharf_engine::engine::Engine;

use super::call::Call;
use super::config::{Config, Input};
use super::error::{CniError, Done, code};
use super::result::{Outcome, Version};
use super::{add, extras, names, network};

/// Whether a plugin before this one has made the interface. The old forms of results list no interfaces.
pub fn is_attached(prev: &Outcome, call: &Call, version: Version) -> bool {
    prev.inside(&call.ifname).is_some()
        || version < Version::INTERFACES && prev.interfaces.is_empty() && !prev.ips.is_empty()
}

/// What is asked for beside the interface.
struct Wishes {
    ports: Vec<PortMapping>,
    extras: Extras,
    /// Who may start connections to the container.
    policy: Option<String>,
}

impl Wishes {
    fn read(call: &Call, config: &Config) -> Done<Self> {
        let policy = config.ingress_policy.clone();
        if config.masq_all {
            // It would be the bridge's, and with it that of containers of other lists.
            let why = "behind another plugin wharf keeps the sources of those who come in by a published port";
            return Err(CniError::unsupported("masqAll", true, why));
        }
        Ok(Self {
            ports: network::ports(config)?,
            extras: extras::read(call, config, false)?,
            policy: policy.filter(|p| matches!(p.as_str(), "same-bridge" | "isolated")),
        })
    }

    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.extras.is_empty() && self.policy.is_none()
    }
}

/// Whether anything is asked for, so that there must be a record of it.
///
/// # Errors
/// A value that cannot be.
pub fn wants_anything(call: &Call, config: &Config) -> Done<bool> {
    Wishes::read(call, config).map(|wishes| !wishes.is_empty())
}

/// Does what is asked for beside the interface, and hands the result on.
///
/// # Errors
/// Something cannot be had; nothing is left behind.
pub fn add(call: &Call, input: &Input, prev: &Outcome) -> Done<Value> {
    let wishes = Wishes::read(call, &input.config)?;
    if wishes.is_empty() {
        return prev.json(input.version);
    }
    let key = call.key(&input.config.name);
    let mut engine = super::engine()?;
    // It may be wharf itself that stands before.
    for name in names::container_names(&key) {
        if let Some(container) = engine.client_container(&name, &key)? {
            if !wishes.extras.is_empty() {
                let msg =
                    "limits and settings belong to the first object of type wharf in the list";
                return Err(CniError::config(msg));
            }
            publish_more(&mut engine, &container, &wishes.ports)?;
            return prev.json(input.version);
        }
    }
    let adopted = adopted(call, input, prev, &wishes)?;
    let done = attach(&mut engine, call, input, prev, &adopted, wishes);
    if done.is_err() {
        forget_unused(&mut engine, &adopted.name);
    }
    done
}

fn attach(
    engine: &mut Engine,
    call: &Call,
    input: &Input,
    prev: &Outcome,
    adopted: &NetworkRequest,
    wishes: Wishes,
) -> Done<Value> {
    let mut extras = wishes.extras;
    let key = call.key(&input.config.name);
    let ifname: IfName = call.ifname.parse().map_err(add::bad_name)?;
    let cable = engine.cable(call.netns.as_ref(), &ifname)?;
    if extras.shaping.is_some() && cable.host.is_none() {
        let msg = format!("interface {ifname} has no other end on the host to limit it at");
        return Err(CniError::new(code::UNSUPPORTED, msg));
    }
    extras.before = cable.inside.only_what(&extras.traits);
    let name = add::free_name(engine, &key)?;
    let mut attach = AttachRequest::new(adopted.name.clone());
    attach.interface = Some(ifname);
    attach.host_interface = cable.host;
    *attach.extras = extras;
    attach.mac = prev
        .inside(&call.ifname)
        .and_then(|at| prev.interfaces[at].mac.parse().ok());
    attach.addressing = Addressing::Given(addresses(prev, call));
    let request = ContainerRequest {
        id: None,
        ports_held: false,
        name,
        owner: network::OWNER.to_owned(),
        client: Some(key),
        netns: NetnsRequest::Path(call.netns.clone().into()),
        networks: vec![attach],
        ports: wishes.ports.into_iter().map(Into::into).collect(),
        labels: Default::default(),
        command: Vec::new(),
        transient: false,
    };
    let (_, container) = network::create(engine, adopted, |_| request.clone())?;
    let done = result(engine, &container, call, input, prev);
    if done.is_err() {
        add::take_back(engine, &request.name);
    }
    done
}

/// The result with what was changed.
fn result(
    engine: &mut Engine,
    container: &Container,
    call: &Call,
    input: &Input,
    prev: &Outcome,
) -> Done<Value> {
    let mut outcome = prev.clone();
    for a in &container.attachments {
        outcome.interfaces.extend(add::detour(engine, a)?);
        if let (Some(at), Some(mac)) = (prev.inside(&call.ifname), a.extras.traits.mac) {
            outcome.interfaces[at].mac = mac.to_string();
        }
        if let (Some(at), Some(mtu)) = (prev.inside(&call.ifname), a.extras.traits.mtu) {
            // Who lists none lists none of the others.
            let listed = &mut outcome.interfaces[at].mtu;
            *listed = listed.map(|_| mtu);
        }
    }
    outcome.json(input.version)
}

fn publish_more(engine: &mut Engine, container: &Container, ports: &[PortMapping]) -> Done<()> {
    let new: Vec<PortRequest> = ports
        .iter()
        .filter(|p| !container.ports.contains(p))
        .map(|p| (*p).into())
        .collect();
    if new.len() < ports.len() {
        let msg = "a port is published by this container already";
        return Err(CniError::new(code::CONFLICT, msg));
    }
    let outcome = engine.port_add(&container.name, &new, Mode::Apply)?;
    super::remarks(&outcome.notes);
    Ok(())
}

type GivenAddress = (ipnet::IpNet, Option<std::net::IpAddr>);

/// The addresses of the container's interface: the first of each family.
fn addresses(prev: &Outcome, call: &Call) -> Vec<GivenAddress> {
    let at = prev.inside(&call.ifname).map(|at| at as i64);
    let own = |ip: &&super::result::Ip| ip.interface.is_none() || ip.interface == at;
    prev.ips
        .iter()
        .filter(own)
        .map(|ip| (ip.address, ip.gateway))
        .collect()
}

/// The other program's bridge, or whatever link of the host leads to the container: the first that it lists.
fn adopted(call: &Call, input: &Input, prev: &Outcome, wishes: &Wishes) -> Done<NetworkRequest> {
    let listed = prev.interfaces.iter().find(|i| i.sandbox.is_empty());
    let link = match listed {
        Some(i) => i.name.clone(),
        // A name that no link has: nothing is to be found by it.
        None if wishes.ports.is_empty() && wishes.policy.is_none() => format!(
            "no{}",
            names::detour(&call.key(&input.config.name))
                .map(|n| n.to_string())
                .unwrap_or_default()
                .trim_start_matches("bwp")
        ),
        None => {
            let msg = "no rules can be made: the result lists no interface of the host";
            return Err(CniError::new(code::UNSUPPORTED, msg).with(call.ifname.as_str()));
        }
    };
    let bridge: IfName = link.parse().map_err(|e: wharf_core::name::NameError| {
        CniError::new(code::DECODE, "an interface of the result has no name").with(e.to_string())
    })?;
    let mut request = NetworkRequest::new(adopted_name(&bridge)?);
    request.kind = NetworkKind::Adopted;
    request.bridge = Some(bridge);
    request.masquerade = Some(false);
    request.icc = Some(wishes.policy.as_deref() != Some("isolated"));
    request.labels = network::labels();
    let apart = if wishes.policy.is_some() {
        "true"
    } else {
        "false"
    };
    request.options = [("no_default_route", "true"), ("isolate", apart)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    request.subnets = addresses(prev, call)
        .iter()
        .map(|(net, _)| net.trunc())
        .collect();
    Ok(request)
}

/// By the bridge alone: several of the runtime's networks may be on one.
fn adopted_name(bridge: &IfName) -> Done<NetworkName> {
    let plain = bridge.as_str().replace(
        |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')),
        "_",
    );
    let name = format!("on-{plain}").parse();
    name.map_err(|e: wharf_core::name::NameError| CniError::new(code::FAILED, e.to_string()))
}

/// What wharf has of another program's bridge goes with the last container.
pub fn forget_unused(engine: &mut Engine, name: &NetworkName) {
    if engine.is_adopted_and_idle(name).is_ok_and(|idle| idle) {
        let done = engine.network_remove(std::slice::from_ref(name), false, Mode::Apply);
        if let Err(error) = done {
            super::remark(&format!("note: network `{name}` stays: {error}\n"));
        }
    }
}
