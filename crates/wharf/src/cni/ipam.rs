//! Who numbers the containers: wharf itself by the keys of `host-local`, `static` or its own, or another plugin.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use wharf_core::addr::{Family, to_number};
use wharf_core::attach::Addressing;
use wharf_core::ipam::{Pool, usable};

use super::call::{Call, is_identifier};
use super::config::{Config, Input};
use super::error::{CniError, Done};
use super::result::{Dns, Outcome, Route, Version};

/// The part of the configuration that address plugins read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct IpamConfig {
    #[serde(rename = "type")]
    plugin: String,
    ranges: Vec<Vec<Range>>,
    routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
    addresses: Vec<StaticAddress>,
    dns: Dns,
    ipv6: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    subnet: IpNet,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
struct StaticAddress {
    address: IpNet,
    gateway: Option<IpAddr>,
}

/// Where the addresses of a container come from, and what goes with them.
#[derive(Debug, Clone, Default)]
pub struct Numbering {
    /// Subnets and gateways that the network must have; without any, and with `automatic`, wharf picks them.
    pub subnets: Vec<(IpNet, IpAddr)>,
    /// wharf picks the subnets.
    pub automatic: bool,
    /// IPv6 as well, where wharf picks.
    pub ipv6: bool,
    /// As the engine takes it.
    pub addressing: Addressing,
    /// Addresses asked for.
    pub wanted: Vec<IpAddr>,
    /// Routes of the container.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
}

/// Who numbers.
#[derive(Debug)]
pub enum Ipam {
    /// Nobody: the network is one of hardware addresses.
    None,
    /// wharf.
    Inside(Box<Numbering>),
    /// The plugin of this name.
    Plugin(String),
}

/// The kind of address plugin asked for.
///
/// # Errors
/// A name that is none.
pub fn plugin(config: &Config) -> Done<&str> {
    match config.ipam.get("type") {
        None => Ok(""),
        Some(Value::String(name)) if name.is_empty() || is_identifier(name) => Ok(name),
        Some(other) => {
            Err(CniError::config("`ipam.type` is not a plugin's name").with(other.to_string()))
        }
    }
}

/// Reads who numbers.
///
/// # Errors
/// A value that cannot be.
pub fn read(call: &Call, input: &Input) -> Done<Ipam> {
    let config = &input.config;
    let kind = plugin(config)?;
    match kind {
        "" | "none" => return Ok(Ipam::None),
        "dhcp" => {
            let why = "a container's interface has its addresses before it is up";
            return Err(CniError::unsupported("ipam.type", "`dhcp`", why));
        }
        "host-local" | "static" | "wharf" => {}
        other => return Ok(Ipam::Plugin(other.to_owned())),
    }
    let bad = |e: serde_json::Error| {
        CniError::config(format!("`ipam` of type `{kind}` cannot be read")).with(e.to_string())
    };
    let ipam: IpamConfig =
        serde_json::from_value(Value::Object(config.ipam.clone())).map_err(bad)?;
    let numbering = match kind {
        "static" => fixed(call, config, &ipam)?,
        _ => ranges(call, input, &ipam)?,
    };
    Ok(Ipam::Inside(Box::new(numbering)))
}

/// Addresses asked for: `CNI_ARGS`, then `args.cni`, then the runtime's; the last that has any.
fn asked(call: &Call, config: &Config) -> Vec<String> {
    if !config.runtime_config.ips.is_empty() {
        return config.runtime_config.ips.clone();
    }
    if !config.args.cni.ips.is_empty() {
        return config.args.cni.ips.clone();
    }
    let list = call.arg("IP").unwrap_or_default().split(',');
    list.map(str::trim)
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

fn address(text: &str) -> Done<(IpAddr, Option<u8>)> {
    let bad = || CniError::config(format!("`{text}` is not an address"));
    match text.split_once('/') {
        None => Ok((text.parse().map_err(|_| bad())?, None)),
        Some(_) => {
            let net: IpNet = text.parse().map_err(|_| bad())?;
            Ok((net.addr(), Some(net.prefix_len())))
        }
    }
}

fn ranges(call: &Call, input: &Input, ipam: &IpamConfig) -> Done<Numbering> {
    let config = &input.config;
    let bad = |e: serde_json::Error| {
        CniError::config("an address range cannot be read").with(e.to_string())
    };
    let mut sets: Vec<Vec<Range>> = Vec::new();
    for set in &config.runtime_config.ip_ranges {
        let set: Result<Vec<Range>, _> = set.iter().cloned().map(serde_json::from_value).collect();
        sets.push(set.map_err(bad)?);
    }
    if config.ipam.get("subnet").is_some_and(|s| s != "") {
        let one = serde_json::from_value(Value::Object(config.ipam.clone())).map_err(bad)?;
        sets.push(vec![one]);
    }
    sets.extend(ipam.ranges.iter().filter(|set| !set.is_empty()).cloned());
    let sets = sets
        .iter()
        .map(|set| set.iter().map(pool).collect())
        .collect::<Done<Vec<Vec<Pool>>>>()?;
    check_sets(&sets, input.version)?;
    let mut wanted = Vec::new();
    for text in asked(call, config) {
        wanted.push(address(&text)?.0);
    }
    let mut subnets: Vec<(IpNet, IpAddr)> = Vec::new();
    for pool in sets.iter().flatten() {
        if !subnets.contains(&(pool.subnet, pool.gateway)) {
            subnets.push((pool.subnet, pool.gateway));
        }
    }
    if sets.is_empty() && ipam.plugin != "wharf" {
        return Err(CniError::config("`ipam`: no address range is given"));
    }
    let dns = match &ipam.resolv_conf {
        Some(path) => resolv_conf(path)?,
        None => Dns::default(),
    };
    let automatic = sets.is_empty();
    Ok(Numbering {
        subnets,
        automatic,
        ipv6: ipam.ipv6,
        addressing: match automatic {
            true => Addressing::Subnets,
            false => Addressing::Pools {
                sets,
                reserved_in: Some(records_of_host_local(config)),
            },
        },
        wanted,
        routes: ipam.routes.clone(),
        dns,
    })
}

fn pool(range: &Range) -> Done<Pool> {
    let subnet = range.subnet;
    if subnet.trunc() != subnet {
        let msg = format!("subnet {subnet} has bits set behind its prefix");
        return Err(CniError::config(msg).with(format!("did you mean {}?", subnet.trunc())));
    }
    if subnet.prefix_len() > Family::of_net(subnet).bits() - 2 {
        let msg = format!("subnet {subnet} is too small");
        return Err(CniError::config(msg));
    }
    let (first, last) = usable(subnet);
    let pool = Pool {
        subnet,
        first: range.range_start.unwrap_or(first),
        last: range.range_end.unwrap_or(last),
        gateway: range.gateway.unwrap_or(first),
    };
    for (key, addr) in [("rangeStart", pool.first), ("rangeEnd", pool.last)] {
        if !subnet.contains(&addr) {
            return Err(CniError::config(format!(
                "`{key}` {addr} is not in {subnet}"
            )));
        }
    }
    if to_number(pool.first) > to_number(pool.last) {
        let msg = format!(
            "`rangeStart` {} is behind `rangeEnd` {}",
            pool.first, pool.last
        );
        return Err(CniError::config(msg));
    }
    // The network's own address and the broadcast address are nobody's, whatever the range says.
    let within = |addr: IpAddr| {
        let low = to_number(addr).max(to_number(first)).min(to_number(last));
        wharf_core::addr::from_number(Family::of_net(subnet), low)
    };
    Ok(Pool {
        first: within(pool.first),
        last: within(pool.last),
        ..pool
    })
}

fn check_sets(sets: &[Vec<Pool>], version: Version) -> Done<()> {
    let overlap = |a: &Pool, b: &Pool| {
        Family::of_net(a.subnet) == Family::of_net(b.subnet)
            && to_number(a.first) <= to_number(b.last)
            && to_number(b.first) <= to_number(a.last)
    };
    let all: Vec<&Pool> = sets.iter().flatten().collect();
    for (at, a) in all.iter().enumerate() {
        if let Some(b) = all[..at].iter().find(|b| overlap(a, b)) {
            let msg = format!(
                "address ranges {}-{} and {}-{} overlap",
                b.first, b.last, a.first, a.last
            );
            return Err(CniError::config(msg));
        }
    }
    for set in sets {
        let family = |p: &Pool| Family::of_net(p.subnet);
        if set.iter().any(|p| family(p) != family(&set[0])) {
            let msg = "the ranges of one set are of different families";
            return Err(CniError::config(msg));
        }
    }
    if version < Version::INTERFACES {
        for family in Family::BOTH {
            let of_family = |set: &&Vec<Pool>| {
                set.first()
                    .is_some_and(|p| Family::of_net(p.subnet) == family)
            };
            if sets.iter().filter(of_family).count() > 1 {
                let msg = format!(
                    "version {} has one {family} address at most",
                    version.as_str()
                );
                return Err(CniError::config(msg));
            }
        }
    }
    Ok(())
}

fn fixed(call: &Call, config: &Config, ipam: &IpamConfig) -> Done<Numbering> {
    let mut given: Vec<(IpNet, Option<IpAddr>)> = Vec::new();
    for text in asked(call, config) {
        let (addr, Some(prefix)) = address(&text)? else {
            let msg = format!("address `{text}` needs a prefix length");
            return Err(CniError::config(msg));
        };
        let net = IpNet::new(addr, prefix)
            .map_err(|_| CniError::config(format!("`{text}` is not an address")))?;
        given.push((net, None));
    }
    if given.is_empty() {
        given = ipam
            .addresses
            .iter()
            .map(|a| (a.address, a.gateway))
            .collect();
    }
    if let Some(text) = call.arg("GATEWAY") {
        for gateway in text.split(',') {
            let gateway = address(gateway.trim())?.0;
            let of = given.iter_mut().find(|(net, _)| net.contains(&gateway));
            if let Some((_, place)) = of {
                *place = Some(gateway);
            }
        }
    }
    if given.is_empty() {
        return Err(CniError::config(
            "`ipam` of type `static`: no address is given",
        ));
    }
    Ok(from_outside(given, ipam.routes.clone(), ipam.dns.clone()))
}

/// Addresses that are not wharf's choice.
fn from_outside(given: Vec<(IpNet, Option<IpAddr>)>, routes: Vec<Route>, dns: Dns) -> Numbering {
    let mut subnets: Vec<(IpNet, IpAddr)> = Vec::new();
    for (net, gateway) in &given {
        let subnet = net.trunc();
        if !subnets.iter().any(|(s, _)| *s == subnet) {
            subnets.push((subnet, gateway.unwrap_or(usable(subnet).0)));
        }
    }
    Numbering {
        subnets,
        addressing: Addressing::Given(given),
        routes,
        dns,
        ..Numbering::default()
    }
}

/// Where the plugin host-local keeps a file for each address of this network.
pub fn records_of_host_local(config: &Config) -> PathBuf {
    let dir = config.ipam.get("dataDir").and_then(Value::as_str);
    let dir = dir
        .filter(|d| !d.is_empty())
        .unwrap_or("/var/lib/cni/networks");
    PathBuf::from(dir).join(&config.name)
}

/// What another plugin answered.
pub fn from_plugin(result: Outcome) -> Numbering {
    let given = result
        .ips
        .iter()
        .map(|ip| (ip.address, ip.gateway))
        .collect();
    from_outside(given, result.routes, result.dns)
}

/// `resolv.conf(5)`
fn resolv_conf(path: &std::path::Path) -> Done<Dns> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        CniError::config(format!("`ipam.resolvConf`: cannot read {}", path.display()))
            .with(e.to_string())
    })?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::call::Verb;

    fn ipam(text: &str) -> Done<Ipam> {
        let call = Call {
            verb: Verb::Add,
            container: "c".to_owned(),
            netns: "/n".to_owned(),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            path: Vec::new(),
        };
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","ipam":{text}}}"#);
        read(&call, &Input::read(text.into_bytes()).unwrap())
    }

    fn inside(text: &str) -> Numbering {
        match ipam(text).unwrap() {
            Ipam::Inside(numbering) => *numbering,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_of_a_range() {
        let n = inside(r#"{"type":"host-local","subnet":"10.1.0.0/24"}"#);
        let Addressing::Pools { sets, .. } = n.addressing else {
            panic!("not pools")
        };
        let pool = &sets[0][0];
        assert_eq!(
            (pool.first.to_string(), pool.last.to_string()),
            ("10.1.0.1".to_owned(), "10.1.0.254".to_owned())
        );
        assert_eq!(pool.gateway.to_string(), "10.1.0.1");
        assert_eq!(n.subnets.len(), 1);
    }

    #[test]
    fn ranges_that_cannot_be() {
        for bad in [
            r#"{"type":"host-local"}"#,
            r#"{"type":"host-local","subnet":"10.1.0.5/24"}"#,
            r#"{"type":"host-local","subnet":"10.1.0.0/31"}"#,
            r#"{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.2.0.1"}"#,
            r#"{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.8"}"#,
            r#"{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.1.0.0/25"}]]}"#,
            r#"{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"},{"subnet":"fd00::/64"}]]}"#,
            r#"{"type":"host-local","ranges":[[{"subnet":"x"}]]}"#,
            r#"{"type":"static"}"#,
            r#"{"type":"../x"}"#,
            r#"{"type":5}"#,
        ] {
            assert_eq!(ipam(bad).unwrap_err().code, 7, "{bad}");
        }
        assert_eq!(ipam(r#"{"type":"dhcp"}"#).unwrap_err().code, 2);
    }

    #[test]
    fn who_numbers() {
        assert!(matches!(ipam("{}").unwrap(), Ipam::None));
        assert!(matches!(ipam(r#"{"type":"none"}"#).unwrap(), Ipam::None));
        assert!(matches!(
            ipam(r#"{"type":"whereabouts"}"#).unwrap(),
            Ipam::Plugin(_)
        ));
        assert!(inside(r#"{"type":"wharf"}"#).automatic);
        let n = inside(r#"{"type":"static","addresses":[{"address":"10.1.0.5/24"}]}"#);
        assert_eq!(n.subnets[0].1.to_string(), "10.1.0.1");
    }
}
