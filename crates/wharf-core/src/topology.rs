//! The file of `wharf plan`, `apply` and `destroy`: networks and containers by name.
//!
//! ```toml
//! [networks.blue]
//! subnet = "172.18.0.0/16"
//!
//! [containers.web]
//! networks = ["blue"]
//! ports = ["5005:5000"]
//! ```
//!
//! The types take any serde format (TOML, YAML, JSON) and are strict about keys, in kebab-case or snake_case;
//! values are read by the same parsers as the command line's, and an error names its place. Not here: reading
//! files, and completing what is left open ([`crate::network::resolve`]).

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::attach::AttachRequest;
use crate::name::{ContainerName, HostName, NetworkName};
use crate::network::NetworkRequest;
use crate::publish::PortMapping;

mod compare;
mod text;

pub use compare::{
    ContainerChange, NetworkDifference, container_changes, network_differences, network_matches,
    with_own,
};
use text::{Attachments, Named, Text, Texts};

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    #[serde(default)]
    networks: Named<NetworkEntry>,
    #[serde(default)]
    containers: Named<ContainerEntry>,
}

/// A network in the file; every part may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct NetworkEntry {
    #[serde(alias = "subnets")]
    subnet: Texts,
    #[serde(alias = "gateways")]
    gateway: Texts,
    #[serde(alias = "ip_range", alias = "ip-ranges", alias = "ip_ranges")]
    ip_range: Texts,
    bridge: Option<Text>,
    mtu: Option<Text>,
    ipv4: Option<Text>,
    ipv6: Option<Text>,
    internal: Option<Text>,
    icc: Option<Text>,
    masquerade: Option<Text>,
    labels: Named<Text>,
    options: Named<Text>,
}

/// A container in the file; every part may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ContainerEntry {
    #[serde(alias = "network")]
    networks: Attachments,
    #[serde(alias = "port")]
    ports: Texts,
    netns: Option<Text>,
    labels: Named<Text>,
}

/// A container's place on one network, in the long form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct AttachEntry {
    #[serde(alias = "ips")]
    ip: Texts,
    #[serde(alias = "mac-address", alias = "mac_address")]
    mac: Option<Text>,
    interface: Option<Text>,
    #[serde(alias = "host_interface")]
    host_interface: Option<Text>,
    #[serde(alias = "gw_priority")]
    gw_priority: Option<Text>,
    #[serde(alias = "alias")]
    aliases: Texts,
}

/// A container as a file asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The name.
    pub name: ContainerName,
    /// The namespace to adopt; wharf makes one when there is none.
    pub netns: Option<PathBuf>,
    /// Its networks, in order; the default network when empty.
    pub networks: Vec<AttachRequest>,
    /// Its published ports.
    pub ports: Vec<PortMapping>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A value that cannot be, and where it is: `networks.blue.subnet: …`.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct TopologyError {
    /// The keys from the top, with dots.
    pub place: String,
    /// What is wrong there.
    pub cause: Box<dyn Error + Send + Sync>,
}

impl TopologyError {
    fn new(place: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            place: place.into(),
            cause: cause.into(),
        }
    }
}

impl Topology {
    /// Reads every value and checks what can be checked without knowing the host.
    ///
    /// # Errors
    /// The first value that cannot be, with its place.
    pub fn into_requests(self) -> Result<(Vec<NetworkRequest>, Vec<ContainerSpec>), TopologyError> {
        let networks = self
            .networks
            .0
            .iter()
            .map(|(name, entry)| entry.request(name))
            .collect::<Result<Vec<_>, _>>()?;
        let containers = self
            .containers
            .0
            .iter()
            .map(|(name, entry)| entry.spec(name))
            .collect::<Result<Vec<_>, _>>()?;
        check_ports(&containers)?;
        check_addresses(&containers)?;
        Ok((networks, containers))
    }
}

/// Reads `text` as a `T`, or says what was expected at `place`.
fn read<T: FromStr>(place: &str, text: &str, expected: &str) -> Result<T, TopologyError> {
    text.parse()
        .map_err(|_| TopologyError::new(place, format!("`{text}` is not {expected}")))
}

/// Reads `text` by one of the core's parsers, whose errors say enough.
fn parse<T>(place: &str, text: &str) -> Result<T, TopologyError>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|e: T::Err| TopologyError::new(place, e))
}

fn all<T>(
    place: &str,
    texts: &Texts,
    one: impl Fn(&str, &str) -> Result<T, TopologyError>,
) -> Result<Vec<T>, TopologyError> {
    texts.0.iter().map(|t| one(place, &t.0)).collect()
}

fn pairs(named: &Named<Text>) -> BTreeMap<String, String> {
    named
        .0
        .iter()
        .map(|(k, v)| (k.clone(), v.0.clone()))
        .collect()
}

/// As YAML 1.2 has them; `yes`, `on` and their like are no booleans in it.
fn flag(place: &str, text: &str) -> Result<bool, TopologyError> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(TopologyError::new(
            place,
            format!("`{text}` is not true or false"),
        )),
    }
}

fn subnet(place: &str, text: &str) -> Result<IpNet, TopologyError> {
    read(place, text, "a subnet: ADDRESS/LENGTH")
}

fn address(place: &str, text: &str) -> Result<IpAddr, TopologyError> {
    read(place, text, "an address")
}

impl NetworkEntry {
    fn request(&self, name: &str) -> Result<NetworkRequest, TopologyError> {
        let at = |key: &str| format!("networks.{name}.{key}");
        let flag = |key: &str, value: &Option<Text>| {
            let read = |v: &Text| flag(&at(key), &v.0);
            value.as_ref().map(read).transpose()
        };
        Ok(NetworkRequest {
            subnets: all(&at("subnet"), &self.subnet, subnet)?,
            gateways: all(&at("gateway"), &self.gateway, address)?,
            ip_ranges: all(&at("ip-range"), &self.ip_range, subnet)?,
            bridge: self
                .bridge
                .as_ref()
                .map(|b| parse(&at("bridge"), &b.0))
                .transpose()?,
            mtu: self
                .mtu
                .as_ref()
                .map(|m| read(&at("mtu"), &m.0, "a number of bytes"))
                .transpose()?,
            ipv4: flag("ipv4", &self.ipv4)?,
            ipv6: flag("ipv6", &self.ipv6)?,
            internal: flag("internal", &self.internal)?.unwrap_or(false),
            icc: flag("icc", &self.icc)?,
            masquerade: flag("masquerade", &self.masquerade)?,
            labels: pairs(&self.labels),
            options: self.options(&at("options"))?,
            ..NetworkRequest::new(parse::<NetworkName>("networks", name)?)
        })
    }

    fn options(&self, place: &str) -> Result<BTreeMap<String, String>, TopologyError> {
        let options = pairs(&self.options);
        crate::options::NetworkOptions::parse(&options)
            .map_err(|e| TopologyError::new(place, e))?;
        Ok(options)
    }
}

impl ContainerEntry {
    fn spec(&self, name: &str) -> Result<ContainerSpec, TopologyError> {
        let at = |key: &str| format!("containers.{name}.{key}");
        let networks: Vec<AttachRequest> = match &self.networks {
            Attachments::List(list) => all(&at("networks"), list, parse)?,
            Attachments::Map(map) => map
                .0
                .iter()
                .map(|(network, entry)| entry.request(&at("networks"), network))
                .collect::<Result<_, _>>()?,
        };
        for (n, request) in networks.iter().enumerate() {
            if networks[..n].iter().any(|r| r.network == request.network) {
                let text = format!("network `{}` is named twice", request.network);
                return Err(TopologyError::new(at("networks"), text));
            }
        }
        let netns = match &self.netns {
            None => None,
            Some(path) if path.0.starts_with('/') => Some(PathBuf::from(&path.0)),
            Some(path) => {
                let text = format!("`{}` is not a path from the root", path.0);
                return Err(TopologyError::new(at("netns"), text));
            }
        };
        Ok(ContainerSpec {
            name: parse("containers", name)?,
            netns,
            networks,
            ports: all(&at("ports"), &self.ports, parse)?,
            labels: pairs(&self.labels),
        })
    }
}

impl AttachEntry {
    fn request(&self, place: &str, network: &str) -> Result<AttachRequest, TopologyError> {
        let at = |key: &str| format!("{place}.{network}.{key}");
        let mut request = AttachRequest::new(parse(place, network)?);
        request.ips = all(&at("ip"), &self.ip, address)?;
        if let Some(mac) = &self.mac {
            request.mac = Some(parse(&at("mac"), &mac.0)?);
        }
        if let Some(name) = &self.interface {
            request.interface = Some(parse(&at("interface"), &name.0)?);
        }
        if let Some(name) = &self.host_interface {
            request.host_interface = Some(parse(&at("host-interface"), &name.0)?);
        }
        if let Some(number) = &self.gw_priority {
            request.gw_priority = read(&at("gw-priority"), &number.0, "a whole number")?;
        }
        let aliases = all(&at("aliases"), &self.aliases, parse::<HostName>)?;
        request.aliases = aliases.into_iter().map(String::from).collect();
        Ok(request)
    }
}

/// No two mappings of the file may want the same host port.
fn check_ports(containers: &[ContainerSpec]) -> Result<(), TopologyError> {
    let mut seen: Vec<(&ContainerName, &PortMapping)> = Vec::new();
    for container in containers {
        for port in &container.ports {
            if let Some((other, taken)) = seen.iter().find(|(_, p)| p.conflicts_with(port)) {
                let text =
                    format!("`{port}` and `{taken}` of container `{other}` exclude each other");
                let place = format!("containers.{}.ports", container.name);
                return Err(TopologyError::new(place, text));
            }
            seen.push((&container.name, port));
        }
    }
    Ok(())
}

/// No two containers of the file may want the same address on one network.
fn check_addresses(containers: &[ContainerSpec]) -> Result<(), TopologyError> {
    let mut seen: BTreeMap<(&NetworkName, IpAddr), &ContainerName> = BTreeMap::new();
    for container in containers {
        for request in &container.networks {
            for ip in &request.ips {
                if let Some(other) = seen.insert((&request.network, *ip), &container.name) {
                    let place =
                        format!("containers.{}.networks.{}", container.name, request.network);
                    let text = format!("{ip} is asked for by container `{other}` too");
                    return Err(TopologyError::new(place, text));
                }
            }
        }
    }
    Ok(())
}
