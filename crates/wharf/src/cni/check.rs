//! `CHECK`: whether a container still has what it was given.

use wharf_core::attach::{Container, RouteSpec};
use wharf_core::model::RouteMore;
use wharf_core::name::IfName;
use wharf_engine::engine::{Believed, Engine};

use super::call::Call;
use super::config::Input;
use super::error::{CniError, Done, code};
use super::result::{Ip, Outcome, Route};
use super::{chained, delegate, ipam, names, network};

/// Compares the kernel with the record and with the result. The hardware address, the MTU and further routes may be
/// others by now: plugins behind this one change them.
///
/// # Errors
/// Names what is missing.
pub fn check(call: &Call, input: &Input) -> Done<()> {
    let config = &input.config;
    let prev = config.prev_result.as_ref();
    let prev = prev.ok_or_else(|| CniError::config("`prevResult` is missing"))?;
    let prev = Outcome::parse(prev)?;
    let key = call.key(&config.name);
    let mut engine = super::engine()?;
    let mut found = None;
    for name in names::container_names(&key) {
        found = found.or(engine.client_container(&name, &key)?);
    }
    let Some(container) = found else {
        // Behind other plugins there is a record only where something was asked for.
        let attached = chained::is_attached(&prev, call, input.version);
        if attached && !chained::wants_anything(call, config)? && !is_ours(&prev, &mut engine)? {
            return Ok(());
        }
        let msg = format!(
            "container {} is not on network {}",
            call.container, config.name
        );
        return Err(CniError::new(code::CHANGED, msg).with("wharf has no record of it; if its store was lost, `wharf repair --rebuild` makes it again"));
    };
    let Some(at) = prev.inside(&call.ifname) else {
        let msg = format!("`prevResult` does not list interface {}", call.ifname);
        return Err(CniError::config(msg));
    };
    fits(&prev, at, call, &container, &mut engine)?;
    let mut missing = engine.check(&container, &listed(&prev, at))?;
    for port in network::ports(config)? {
        if !container.ports.contains(&port) {
            missing.push(format!("published port {port}"));
        }
    }
    drop(engine);
    missing.dedup();
    if !missing.is_empty() {
        let msg = format!("container {} is not as it was made", call.container);
        return Err(
            CniError::new(code::CHANGED, msg).with(format!("missing: {}", missing.join(", ")))
        );
    }
    match ipam::plugin(config)? {
        "" | "none" | "host-local" | "static" | "wharf" | "dhcp" => Ok(()),
        plugin => delegate::run(call, input, plugin).map(|_| ()),
    }
}

/// Whether a result is that of this attachment, as far as it says.
fn fits(
    prev: &Outcome,
    at: usize,
    call: &Call,
    container: &Container,
    engine: &mut Engine,
) -> Done<()> {
    let sandbox = &prev.interfaces[at].sandbox;
    if *sandbox != call.netns {
        let msg = format!("`prevResult` is of namespace {sandbox}, not {}", call.netns);
        return Err(CniError::config(msg));
    }
    let listed = |name: &IfName| {
        let mut of_host = prev.interfaces.iter().filter(|i| i.sandbox.is_empty());
        of_host.any(|i| i.name == name.as_str())
    };
    let nets = engine.networks()?;
    for a in &container.attachments {
        let net = nets.iter().find(|n| n.spec.name == a.network);
        let Some(net) = net.filter(|n| n.spec.has_own_bridge()) else {
            continue;
        };
        for name in [&net.spec.bridge, &a.host_interface] {
            if !listed(name) {
                let msg = format!("`prevResult` does not list interface {name} of the host");
                return Err(CniError::config(msg));
            }
        }
    }
    Ok(())
}

/// What a result says of the interface at a place of it.
fn listed(prev: &Outcome, at: usize) -> Believed {
    let own = |ip: &&Ip| ip.interface.is_none_or(|i| i == at as i64);
    let addresses = prev.ips.iter().filter(own).map(|ip| ip.address).collect();
    let route = |r: &Route| RouteSpec {
        dst: r.dst,
        via: r.gw,
        metric: r.priority,
        more: RouteMore {
            table: r.table,
            ..RouteMore::default()
        },
    };
    let interface = &prev.interfaces[at];
    Believed {
        addresses,
        routes: prev.routes.iter().map(route).collect(),
        mac: interface.mac.to_ascii_lowercase().parse().ok(),
        mtu: interface.mtu,
    }
}

/// Whether the result's first interface is a bridge of wharf's: then wharf made the container's interface.
fn is_ours(prev: &Outcome, engine: &mut Engine) -> Done<bool> {
    let first = prev.interfaces.first().map(|i| i.name.as_str());
    let nets = engine.networks()?;
    Ok(nets
        .iter()
        .any(|n| !n.spec.adopted && Some(n.spec.bridge.as_str()) == first))
}
