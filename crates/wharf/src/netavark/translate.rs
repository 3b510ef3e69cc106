//! Podman's definitions as the engine's requests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharf_core::addr::Family;
use wharf_core::attach::AttachRequest;
use wharf_core::model::Hop;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::{Driver, IfThere, MacvlanMode, NetworkKind, NetworkRequest, StaticRoute};
use wharf_core::options::OptionError;
use wharf_core::publish::{PortMapping, PortRange, Protocol};

use super::error::Failure;
use super::input::{self, Network, NetworkOptions};
use super::{OWNER, dns};

/// How much of an id makes a name unlike another.
const SHORT_ID: usize = 12;

/// A name that wharf can use, with the name and the id of Podman's: the name itself, and one to fall back on where
/// that is somebody else's.
fn names(name: &str, id: &str) -> (Option<String>, String) {
    let id = id.get(..SHORT_ID).unwrap_or(id);
    let head: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    let fits = name.parse::<NetworkName>().is_ok();
    (fits.then(|| name.to_owned()), format!("{head}.{id}"))
}

/// The names under which a network may be known.
pub fn network_names(network: &Network) -> Result<Vec<NetworkName>, Failure> {
    let (own, other) = names(&network.name, &network.id);
    let all = own.into_iter().chain([other]).map(|name| name.parse());
    all.collect::<Result<_, _>>()
        .map_err(|e| Failure::new(format!("network {}: {e}", network.name)))
}

/// The names under which a container may be known.
pub fn container_names(name: &str, id: &str) -> Result<Vec<ContainerName>, Failure> {
    let (own, other) = names(name, id);
    let all = own.into_iter().chain([other]).map(|name| name.parse());
    all.collect::<Result<_, _>>()
        .map_err(|e| Failure::new(format!("container {name}: {e}")))
}

/// How a network's frames are carried, and its options, of which none may be unknown.
pub fn driver_and_options(
    network: &Network,
) -> Result<(Driver, BTreeMap<String, String>), Failure> {
    Ok((driver(network)?, options(network)?))
}

/// What a network is, as the engine is asked for it.
pub fn network(network: &Network, name: &NetworkName) -> Result<NetworkRequest, Failure> {
    let failed = |text: String| Failure::new(format!("network {}: {text}", network.name));
    let subnets = network.subnets.as_deref().unwrap_or_default();
    let mut request = NetworkRequest {
        owner: OWNER.to_owned(),
        id: Some(network.id.clone()),
        driver: driver(network)?,
        kind: NetworkKind::Numbered,
        // As Netavark, but not where others are on it: they would come under rules that nobody asked for.
        if_there: IfThere::Use {
            force_address: false,
        },
        internal: network.internal,
        dns_port: Some(dns::port()).filter(|port| *port != dns::DNS && network.dns_enabled),
        labels: network.labels.clone().unwrap_or_default(),
        subnets: subnets.iter().map(|s| s.subnet).collect(),
        gateways: subnets.iter().filter_map(|s| s.gateway).collect(),
        ..NetworkRequest::new(name.clone())
    };
    apart(subnets)?;
    match network.ipam() {
        // Nobody's addresses: the bridge's owner gives them, or the container itself.
        "host-local" if subnets.is_empty() && request.driver == Driver::Unmanaged => {}
        "dhcp" if request.driver == Driver::Bridge => {
            return Err(Failure::new(
                "cannot use dhcp ipam driver without using the option mode=unmanaged",
            ));
        }
        "host-local" if subnets.is_empty() => {
            return Err(failed(
                "no subnet, and its addresses are to be host-local".to_owned(),
            ));
        }
        "host-local" => {}
        "none" => {
            request.subnets.clear();
            request.gateways.clear();
        }
        "dhcp" => {
            return Err(failed(
                "addresses by DHCP are not supported: wharf has no DHCP proxy".to_owned(),
            ));
        }
        other => return Err(Failure::new(format!("unsupported ipam driver {other}"))),
    }
    if let Some(bridge) = network
        .network_interface
        .as_deref()
        .filter(|n| !n.is_empty())
    {
        request.bridge = Some(bridge.parse().map_err(|e| failed(format!("{e}")))?);
    }
    request.options = options(network)?;
    for subnet in subnets
        .iter()
        .filter(|s| s.gateway.is_none() && network.internal)
    {
        let mode = match Family::of_net(subnet.subnet) {
            Family::V4 => "com.docker.network.bridge.gateway_mode_ipv4",
            Family::V6 => "com.docker.network.bridge.gateway_mode_ipv6",
        };
        // No gateway is given: the bridge has no address there.
        request
            .options
            .insert(mode.to_owned(), "isolated".to_owned());
    }
    for route in network.routes.iter().flatten() {
        request.routes.push(static_route(route)?);
    }
    Ok(request)
}

fn driver(network: &Network) -> Result<Driver, Failure> {
    let mode = network.option("mode");
    let unknown = |mode: &str| {
        Failure::new(format!(
            "network {}: invalid {} mode: {mode}",
            network.name, network.driver
        ))
    };
    match (network.driver.as_str(), mode) {
        ("bridge", None | Some("" | "managed")) => Ok(Driver::Bridge),
        ("bridge", Some("unmanaged")) => Ok(Driver::Unmanaged),
        ("macvlan", None | Some("" | "bridge")) => Ok(Driver::Macvlan(MacvlanMode::Bridge)),
        ("macvlan", Some("private")) => Ok(Driver::Macvlan(MacvlanMode::Private)),
        ("macvlan", Some("vepa")) => Ok(Driver::Macvlan(MacvlanMode::Vepa)),
        ("macvlan", Some("passthru")) => Ok(Driver::Macvlan(MacvlanMode::Passthru)),
        ("macvlan", Some("source")) => Ok(Driver::Macvlan(MacvlanMode::Source)),
        ("bridge" | "macvlan", Some(mode)) => Err(unknown(mode)),
        (other, _) => Err(Failure::new(format!(
            "network {}: driver {other} is not supported by wharf",
            network.name
        ))),
    }
}

/// Options that the engine reads by Netavark's names; `mode` is the driver's.
fn options(network: &Network) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = network.options.clone().unwrap_or_default();
    all.remove("mode");
    // Netavark's own; a parent's network before a bridge.
    let metric = if network.driver == "bridge" {
        "100"
    } else {
        "99"
    };
    all.entry("metric".to_owned())
        .or_insert_with(|| metric.to_owned());
    match wharf_core::options::NetworkOptions::parse(&all) {
        Ok(_) => Ok(all),
        Err(OptionError::Unknown(key)) => Err(Failure::new(format!(
            "unsupported {} network option: {key}",
            network.driver
        ))),
        Err(error) => Err(known_number(&all)
            .unwrap_or_else(|| Failure::new(format!("network {}: {error}", network.name)))),
    }
}

/// What Netavark says of numbers that are none, since its users look for that.
fn known_number(options: &BTreeMap<String, String>) -> Option<Failure> {
    for key in ["mtu", "metric", "vlan"] {
        match options.get(key).map(|text| text.parse::<u32>()) {
            Some(Err(e)) => return Some(Failure::new(format!("unable to parse \"{key}\": {e}"))),
            Some(Ok(4095..)) if key == "vlan" => {
                return Some(Failure::new("vlan must be between 0 and 4094"));
            }
            _ => {}
        }
    }
    None
}

/// Refuses subnets of one network that meet.
pub fn apart(subnets: &[input::Subnet]) -> Result<(), Failure> {
    for (at, one) in subnets.iter().enumerate() {
        for other in &subnets[..at] {
            let (a, b) = (other.subnet.trunc(), one.subnet.trunc());
            if a == b {
                return Err(Failure::new(format!("duplicate subnet defined: {a}")));
            }
            if wharf_core::addr::overlap(a, b) {
                return Err(Failure::new(format!("overlapping subnets: {a} and {b}")));
            }
        }
    }
    Ok(())
}

fn static_route(route: &input::Route) -> Result<StaticRoute, Failure> {
    let kind = route.route_type.as_deref().unwrap_or("unicast");
    let refused = |text: &str| Failure::new(format!("route {} {text}", route.destination));
    let hop = match (kind, route.gateway) {
        ("unicast" | "", Some(gateway)) => Hop::Via(gateway),
        ("unicast" | "", None) => return Err(refused("requires a gateway for type unicast")),
        ("blackhole", None) => Hop::Blackhole,
        ("unreachable", None) => Hop::Unreachable,
        ("prohibit", None) => Hop::Prohibit,
        ("blackhole" | "unreachable" | "prohibit", Some(_)) => {
            return Err(refused(&format!("must not have a gateway for type {kind}")));
        }
        (other, _) => return Err(refused(&format!("has the unknown type {other}"))),
    };
    if let Hop::Via(gateway) = hop
        && Family::of(gateway) != Family::of_net(route.destination)
    {
        return Err(refused("has a gateway of another family"));
    }
    Ok(StaticRoute {
        destination: route.destination.trunc(),
        hop,
        metric: route.metric,
    })
}

/// A container's place on a network, as the engine is asked for it.
pub fn attachment(
    network: &Network,
    name: &NetworkName,
    options: &NetworkOptions,
) -> Result<AttachRequest, Failure> {
    let failed = |text: String| Failure::new(format!("network {}: {text}", network.name));
    let mut request = AttachRequest::new(name.clone());
    request.interface = Some(match options.interface_name.as_str() {
        "" => return Err(failed("the container's interface has no name".to_owned())),
        text => text.parse().map_err(|e| failed(format!("{e}")))?,
    });
    let numbered = network.subnets.as_ref().is_some_and(|s| !s.is_empty());
    if network.ipam() == "host-local" && (numbered || driver(network)? != Driver::Unmanaged) {
        let ips = options.static_ips.clone().unwrap_or_default();
        if ips.is_empty() {
            return Err(failed("no static ips provided".to_owned()));
        }
        let subnets = network.subnets.as_deref().unwrap_or_default();
        let in_one = |ip: &&IpAddr| subnets.iter().any(|s| s.subnet.contains(*ip));
        let fitting = ips.iter().filter(in_one).count();
        if fitting < ips.len() {
            let all = ips.len();
            return Err(failed(format!(
                "not all static IPs matched a subnet: expected {all}, got {fitting}"
            )));
        }
        request.ips = ips;
    }
    if let Some(mac) = options.static_mac.as_deref().filter(|m| !m.is_empty()) {
        request.mac = Some(mac.parse().map_err(|e| failed(format!("{e}")))?);
    }
    request.aliases = options.aliases.clone().unwrap_or_default();
    for (key, value) in options.options.iter().flatten() {
        match key.as_str() {
            "host_interface_name" => {
                request.host_interface = Some(value.parse().map_err(|e| failed(format!("{e}")))?);
            }
            _ => return Err(failed(format!("unsupported per-container option: {key}"))),
        }
    }
    Ok(request)
}

/// Published ports. `[::1]` is left out: the kernel does not translate packets to it, and Podman's own socket is
/// there.
pub fn ports(mappings: &[input::PortMapping]) -> Result<Vec<PortMapping>, Failure> {
    let mut all: Vec<PortMapping> = Vec::new();
    for mapping in mappings {
        let failed = |text: &str| {
            Failure::new(format!(
                "invalid port mapping {}:{}:{}: {text}",
                mapping.host_ip, mapping.host_port, mapping.container_port
            ))
        };
        let host_ip: Option<IpAddr> = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let port = mapping.host_port;
                Failure::new(format!("invalid host ip {text:?} provided for port {port}"))
            })?),
        };
        if host_ip.is_some_and(|ip| ip.is_ipv6() && ip.is_loopback()) {
            continue;
        }
        let range = |first: u16| {
            let last = first.checked_add(mapping.range.max(1) - 1)?;
            PortRange::new(first, last)
        };
        let (Some(host), Some(container)) =
            (range(mapping.host_port), range(mapping.container_port))
        else {
            return Err(failed("ports are from 1 to 65535"));
        };
        for protocol in mapping.protocol.split(',') {
            let protocol: Protocol = protocol
                .trim()
                .parse()
                .map_err(|_| failed(&format!("unknown protocol {protocol}")))?;
            let mapping = PortMapping {
                host_ip,
                host,
                container,
                protocol,
            };
            if !all.contains(&mapping) {
                all.push(mapping);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
