//! What Podman writes to the standard input: one object, of which unknown fields are ignored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The input of `setup` and `teardown`.
#[derive(Debug, Clone, Deserialize)]
pub struct Input {
    /// What Podman knows the container by.
    pub container_id: String,
    /// Its name, or its pod's.
    pub container_name: String,
    /// The networks to put it on or take it off, in order.
    pub networks: Networks,
    /// Their definitions, by name.
    pub network_info: BTreeMap<String, Value>,
    /// All published ports of the container, whichever networks are asked about.
    #[serde(default)]
    pub port_mappings: Option<Vec<PortMapping>>,
    /// Name servers of the container.
    #[serde(default)]
    pub dns_servers: Option<Vec<IpAddr>>,
}

/// Options per network, the one with the default route first: up to Podman 5 an object by name, from 6 on a list.
#[derive(Debug, Clone, Default)]
pub struct Networks(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Networks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("networks by name, or a list of networks")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Networks, M::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                // Podman writes the names sorted, which means nothing; its interfaces are numbered as asked for.
                all.sort_by_cached_key(|(_, options): &(String, Value)| {
                    let name = options.get("interface_name").and_then(Value::as_str);
                    name.map(|name| (name.len(), name.to_owned()))
                });
                Ok(Networks(all))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Networks, S::Error> {
                let mut all = Vec::new();
                while let Some(options) = seq.next_element::<Value>()? {
                    let name = options.get("name").and_then(Value::as_str);
                    let name = name.ok_or_else(|| serde::de::Error::missing_field("name"))?;
                    all.push((name.to_owned(), options));
                }
                Ok(Networks(all))
            }
        }
        input.deserialize_any(Either)
    }
}

/// What is asked for on one network.
#[derive(Debug, Clone, Deserialize)]
pub struct NetworkOptions {
    /// The interface in the container.
    pub interface_name: String,
    /// Addresses, chosen by Podman.
    #[serde(default)]
    pub static_ips: Option<Vec<IpAddr>>,
    /// The hardware address.
    #[serde(default)]
    pub static_mac: Option<String>,
    /// Further names.
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    /// Per container: `host_interface_name`.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}

/// A network's definition, as it is in Podman's file.
#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    /// The name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// `bridge`, `macvlan`, or a plugin's name.
    pub driver: String,
    /// The bridge, or the parent.
    #[serde(default)]
    pub network_interface: Option<String>,
    /// Subnets.
    #[serde(default)]
    pub subnets: Option<Vec<Subnet>>,
    /// Further routes of the containers.
    #[serde(default)]
    pub routes: Option<Vec<Route>>,
    /// No way out and none in.
    #[serde(default)]
    pub internal: bool,
    /// Containers find each other by name.
    #[serde(default)]
    pub dns_enabled: bool,
    /// IPv6 as well.
    #[serde(default)]
    pub ipv6_enabled: bool,
    /// Where the network's unknown names are asked for.
    #[serde(default)]
    pub network_dns_servers: Option<Vec<IpAddr>>,
    /// Labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Options of the driver.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// `driver`: `host-local`, `dhcp` or `none`.
    #[serde(default)]
    pub ipam_options: Option<BTreeMap<String, String>>,
}

impl Network {
    /// Who chooses addresses: `host-local` unless said otherwise.
    pub fn ipam(&self) -> &str {
        let given = self.ipam_options.as_ref().and_then(|o| o.get("driver"));
        given.map_or("host-local", String::as_str)
    }

    /// An option's value.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.as_ref()?.get(key).map(String::as_str)
    }
}

/// A subnet of a definition.
#[derive(Debug, Clone, Deserialize)]
pub struct Subnet {
    /// The prefix.
    pub subnet: IpNet,
    /// The gateway; none on an internal network without name service.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A route of a definition.
#[derive(Debug, Clone, Deserialize)]
pub struct Route {
    /// The destination.
    pub destination: IpNet,
    /// The gateway, for a route that leads somewhere.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The metric.
    #[serde(default)]
    pub metric: Option<u32>,
    /// `unicast`, `blackhole`, `unreachable` or `prohibit`.
    #[serde(default)]
    pub route_type: Option<String>,
}

/// A published port, or a range of them.
#[derive(Debug, Clone, Deserialize)]
pub struct PortMapping {
    /// The host's address; empty for all.
    #[serde(default)]
    pub host_ip: String,
    /// The first port in the container.
    pub container_port: u16,
    /// The first port on the host.
    pub host_port: u16,
    /// How many; 0 means 1.
    #[serde(default)]
    pub range: u16,
    /// Protocols with commas between.
    pub protocol: String,
}
