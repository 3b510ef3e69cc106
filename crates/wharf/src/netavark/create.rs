//! `create`: the definition of a new network, completed. Podman keeps the file; nothing is made yet.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wharf_core::addr::{Family, overlap};
use wharf_core::ipam;
use wharf_core::name::IfName;
use wharf_core::network::{Driver, HostFacts, check_vlan};
use wharf_core::options::NetworkOptions;

use super::error::Failure;
use super::input::Network;
use super::{Call, plugin, translate};

/// The input of `create`.
#[derive(Debug, Deserialize)]
pub struct Input {
    network: Map<String, Value>,
    #[serde(default)]
    used: Used,
    #[serde(default)]
    options: Options,
}

/// What Podman's other networks have.
#[derive(Debug, Default, Deserialize)]
struct Used {
    #[serde(default)]
    interfaces: Option<Vec<String>>,
    #[serde(default)]
    names: Option<BTreeMap<String, String>>,
    #[serde(default)]
    subnets: Option<Vec<IpNet>>,
}

/// Podman's configuration.
#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    subnet_pools: Option<Vec<Pool>>,
    #[serde(default)]
    default_interface_name: Option<String>,
    #[serde(default)]
    check_used_subnets: bool,
}

/// Where automatic subnets come from.
#[derive(Debug, Deserialize)]
struct Pool {
    base: IpNet,
    size: u8,
}

/// Completes the definition.
pub fn create(call: &Call, mut input: Input) -> Result<String, Failure> {
    docker_options(&mut input.network);
    let given = read(&input.network)?;
    named(&given)?;
    if input
        .used
        .names
        .iter()
        .flatten()
        .any(|(name, _)| *name == given.name)
    {
        return Err(Failure::new(format!(
            "network already exists {}",
            given.name
        )));
    }
    if !matches!(given.driver.as_str(), "bridge" | "macvlan" | "ipvlan") {
        return by_plugin(call, &given, &input.network);
    }
    if given.driver == "ipvlan" && given.subnets.as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::new(
            "ipam driver dhcp is not supported with ipvlan",
        ));
    }
    let (driver, options) = translate::driver_and_options(&given)?;
    refuse_vlan(&given, driver, &options)?;
    let mut draft = Draft {
        facts: call.engine()?.host_facts()?,
        driver,
        given,
        input,
    };
    let ipam = draft.ipam()?;
    draft.interface()?;
    match ipam {
        "host-local" => draft.subnets()?,
        _ => {
            if ipam == "none" && draft.given.subnets.as_ref().is_some_and(|s| !s.is_empty()) {
                return Err(Failure::new(
                    "None ipam driver is set but subnets are given",
                ));
            }
        }
    }
    draft.names(ipam)?;
    draft.finish(ipam)
}

/// What `setup` would refuse is refused here, before Podman writes the definition.
fn refuse_vlan(
    given: &Network,
    driver: Driver,
    options: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(format!("network {}: {text}", given.name));
    let settings = NetworkOptions::parse(options).map_err(|e| failed(e.to_string()))?;
    check_vlan(&settings, driver).map_err(|e| failed(e.to_string()))
}

/// Podman's own rule for names, which is not wharf's.
fn named(given: &Network) -> Result<(), Failure> {
    let mut chars = given.name.chars();
    let starts = chars.next().map(|c| c.is_ascii_alphanumeric());
    let goes_on = chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    match starts {
        None => Err(Failure::new("Network name must be supplied")),
        Some(true) if goes_on && given.id.is_empty() => {
            Err(Failure::new("Network id must be supplied"))
        }
        Some(true) if goes_on => Ok(()),
        Some(_) => Err(Failure::new(format!(
            "Invalid characters in network name {:?}: must match [a-zA-Z0-9][a-zA-Z0-9_.-]*",
            given.name
        ))),
    }
}

fn read(network: &Map<String, Value>) -> Result<Network, Failure> {
    serde_json::from_value(Value::Object(network.clone()))
        .map_err(|e| Failure::new(format!("failed to load network config: {e}")))
}

/// Docker's names for what has a place or a name of its own.
fn docker_options(network: &mut Map<String, Value>) {
    let Some(options) = network.get_mut("options").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(mtu) = options.remove("com.docker.network.driver.mtu") {
        options.insert("mtu".to_owned(), mtu);
    }
    let bridge = options.remove("com.docker.network.bridge.name");
    if let Some(bridge) = bridge {
        network.insert("network_interface".to_owned(), bridge);
    }
}

fn by_plugin(
    call: &Call,
    given: &Network,
    network: &Map<String, Value>,
) -> Result<String, Failure> {
    let program = plugin::program(&call.plugins, &given.driver)?;
    let answer = plugin::run(
        &program,
        &[OsStr::new("create")],
        &Value::Object(network.clone()),
    )?;
    let bad = |text: &str| Failure::new(format!("plugin {}: {text}", program.display()));
    let made: Map<String, Value> =
        serde_json::from_str(&answer).map_err(|e| bad(&e.to_string()))?;
    for key in ["name", "id", "driver"] {
        if made.get(key) != network.get(key) {
            return Err(bad(&format!("it changed the network's {key}")));
        }
    }
    serde_json::to_string(&made).map_err(|e| bad(&e.to_string()))
}

/// A definition on its way.
struct Draft {
    facts: HostFacts,
    driver: Driver,
    given: Network,
    input: Input,
}

impl Draft {
    fn set(&mut self, key: &str, value: Value) {
        self.input.network.insert(key.to_owned(), value);
    }

    fn is_bridge(&self) -> bool {
        self.given.driver == "bridge"
    }

    /// Who gives the addresses: without a subnet, a parent's network does.
    fn ipam(&self) -> Result<&'static str, Failure> {
        let named = self
            .given
            .ipam_options
            .as_ref()
            .and_then(|o| o.get("driver"));
        let no_subnet = self.given.subnets.as_ref().is_none_or(Vec::is_empty);
        match named.map(String::as_str) {
            None | Some("") if !self.is_bridge() && no_subnet => Ok("dhcp"),
            None | Some("" | "host-local") => Ok("host-local"),
            Some("none") => Ok("none"),
            Some("dhcp") if self.driver == Driver::Bridge => Err(Failure::new(
                "ipam driver dhcp is only supported for unmanaged bridges and macvlan",
            )),
            Some("dhcp") => Ok("dhcp"),
            Some(other) => Err(Failure::new(format!("unsupported ipam driver {other}"))),
        }
    }

    /// The bridge's name, or the parent, which must be there.
    fn interface(&mut self) -> Result<(), Failure> {
        let named = self
            .given
            .network_interface
            .clone()
            .filter(|n| !n.is_empty());
        let live = |name: &str| self.facts.interfaces.iter().any(|i| i.as_str() == name);
        let used = self.input.used.interfaces.as_deref().unwrap_or_default();
        if let Some(name) = named {
            let parsed: IfName = name.parse().map_err(|e| Failure::new(format!("{e}")))?;
            return match self.driver {
                Driver::Bridge if used.contains(&name) => {
                    Err(Failure::new(format!("bridge name {name} already in use")))
                }
                Driver::Bridge => Ok(()),
                _ if live(parsed.as_str()) => Ok(()),
                _ => Err(Failure::new(format!(
                    "parent interface {name} does not exist"
                ))),
            };
        }
        match self.driver {
            Driver::Bridge => {}
            Driver::Unmanaged => {
                return Err(Failure::new(
                    "an unmanaged bridge must be named by network_interface",
                ));
            }
            Driver::Macvlan(_) => return Ok(()),
        }
        let prefix = self.input.options.default_interface_name.as_deref();
        let prefix = prefix.unwrap_or("podman");
        let names = self.input.used.names.as_ref();
        let free = |name: &String| {
            !live(name) && !used.contains(name) && !names.is_some_and(|n| n.contains_key(name))
        };
        let name = (1..u32::from(u16::MAX))
            .map(|n| format!("{prefix}{n}"))
            .find(free);
        let name = name.ok_or_else(|| Failure::new("no free bridge name"))?;
        let _: IfName = name.parse().map_err(|e| Failure::new(format!("{e}")))?;
        self.set("network_interface", json!(name));
        Ok(())
    }

    /// Subnets and gateways: what is given is checked, what is missing chosen.
    fn subnets(&mut self) -> Result<(), Failure> {
        let given = self.input.network.remove("subnets");
        let mut all: Vec<Map<String, Value>> = match given {
            None | Some(Value::Null) => Vec::new(),
            Some(value) => serde_json::from_value(value)
                .map_err(|e| Failure::new(format!("failed to load network config: {e}")))?,
        };
        translate::apart(self.given.subnets.as_deref().unwrap_or_default())?;
        let mut taken: Vec<IpNet> = self.input.used.subnets.clone().unwrap_or_default();
        if self.input.options.check_used_subnets {
            let host = self.facts.routes.iter().copied();
            taken.extend(host.filter(|net| net.prefix_len() != 0));
        }
        let shared = self.driver != Driver::Bridge || self.given.option("vlan").is_some();
        for subnet in self.given.subnets.iter().flatten() {
            if !shared && taken.iter().any(|other| overlap(*other, subnet.subnet)) {
                return Err(Failure::new(format!(
                    "subnet {} is already used on the host or by another config",
                    subnet.subnet
                )));
            }
        }
        let has = |family| {
            self.given
                .subnets
                .iter()
                .flatten()
                .any(|s| Family::of_net(s.subnet) == family)
        };
        let (v4, v6) = (has(Family::V4), has(Family::V6));
        let mut chosen: Vec<IpNet> = Vec::new();
        if (all.is_empty() || self.given.ipv6_enabled) && !v4 {
            chosen.push(self.free_v4(&taken)?);
        }
        if self.given.ipv6_enabled && !v6 {
            let none = || Failure::new("could not find free IPv6 subnet");
            chosen.push(ipam::pick_subnet_v6(&self.facts.id, &taken).ok_or_else(none)?);
        }
        for subnet in chosen {
            all.push(Map::from_iter([("subnet".to_owned(), json!(subnet))]));
        }
        for subnet in &mut all {
            self.gateway(subnet)?;
        }
        if v6 {
            self.set("ipv6_enabled", json!(true));
        }
        self.set("subnets", json!(all));
        Ok(())
    }

    fn free_v4(&self, taken: &[IpNet]) -> Result<IpNet, Failure> {
        for pool in self.input.options.subnet_pools.iter().flatten() {
            // Subnets of the other family are random, and from no pool.
            let IpNet::V4(base) = pool.base else { continue };
            let Ok(mut subnets) = base.subnets(pool.size) else {
                continue;
            };
            if let Some(net) = subnets.find(|net| !taken.iter().any(|t| overlap(*t, (*net).into())))
            {
                return Ok(net.into());
            }
        }
        Err(Failure::new("could not find free subnet from subnet pools"))
    }

    fn gateway(&self, subnet: &mut Map<String, Value>) -> Result<(), Failure> {
        let bad =
            |e: serde_json::Error| Failure::new(format!("failed to load network config: {e}"));
        let read = |value: Option<&Value>| value.filter(|v| !v.is_null()).cloned();
        let net: IpNet = serde_json::from_value(json!(subnet.get("subnet"))).map_err(bad)?;
        subnet.insert("subnet".to_owned(), json!(net.trunc()));
        match read(subnet.get("gateway")) {
            Some(value) => {
                let gateway: IpAddr = serde_json::from_value(value).map_err(bad)?;
                if !net.contains(&gateway) {
                    return Err(Failure::new(format!(
                        "gateway {gateway} not in subnet {net}"
                    )));
                }
            }
            None if self.given.internal && !(self.given.dns_enabled && self.is_bridge()) => {
                subnet.remove("gateway");
            }
            None if net.prefix_len() + 1 >= net.max_prefix_len() => {
                return Err(Failure::new(format!(
                    "could not create gateway for subnet {net} because it has a 31 or greater subnet prefix"
                )));
            }
            None => {
                subnet.insert("gateway".to_owned(), json!(ipam::usable(net).0));
            }
        }
        for key in ["start_ip", "end_ip"] {
            let Some(value) = read(subnet.get("lease_range").and_then(|r| r.get(key))) else {
                continue;
            };
            let addr: IpAddr = serde_json::from_value(value).map_err(bad)?;
            if !net.contains(&addr) {
                return Err(Failure::new(format!(
                    "lease range {key} {addr} not in subnet {net}"
                )));
            }
        }
        Ok(())
    }

    /// Name service needs addresses, and a bridge to listen on.
    fn names(&mut self, ipam: &str) -> Result<(), Failure> {
        let dns = self.given.dns_enabled && self.is_bridge() && ipam == "host-local";
        self.set("dns_enabled", json!(dns));
        let servers = self.given.network_dns_servers.as_ref();
        if !dns && servers.is_some_and(|s| !s.is_empty()) {
            return Err(Failure::new(
                "cannot set network_dns_servers if DNS is not enabled for the network",
            ));
        }
        Ok(())
    }

    fn finish(mut self, ipam: &str) -> Result<String, Failure> {
        let mut options = self.given.ipam_options.clone().unwrap_or_default();
        options.insert("driver".to_owned(), ipam.to_owned());
        self.set("ipam_options", json!(options));
        let written = self
            .input
            .network
            .get("created")
            .is_some_and(|v| !v.is_null());
        if !written {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.set("created", json!(rfc3339(now.as_secs(), now.subsec_nanos())));
        }
        self.input.network.retain(|_, value| !value.is_null());
        // What cannot be set up later is better refused now.
        let complete = read(&self.input.network)?;
        if ipam != "dhcp" {
            let name = translate::network_names(&complete)?.remove(0);
            translate::network(&complete, &name)?;
        }
        serde_json::to_string(&self.input.network).map_err(|e| Failure::new(e.to_string()))
    }
}

/// A moment in UTC, as RFC 3339 writes it.
pub fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days since 0000-03-01, in eras of 400 years (146097 days).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_704_067_199, 0), "2023-12-31T23:59:59.000000000Z");
        assert_eq!(rfc3339(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }
}
