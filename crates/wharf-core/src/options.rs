//! Network options (`-o KEY=VALUE`): Docker's and Netavark's names with their meaning.
//!
//! An option is read once, here; nothing later looks at the text again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::name::IfName;
use crate::nearest::nearest;

/// How a network's addresses are seen from outside (Docker's `gateway_mode_ipv4`/`_ipv6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Masqueraded outward, published ports inward.
    #[default]
    Nat,
    /// As `nat`, but every port of a container may be addressed directly.
    NatUnprotected,
    /// No translation: container addresses are routed, and published container ports are open directly.
    Routed,
    /// The bridge has no address; only with an internal network.
    Isolated,
}

/// Which of the host's own services a network's containers may use (`host-access`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAccess {
    /// All; the host's own firewall decides.
    #[default]
    All,
    /// Name service (port 53) and ICMP only.
    Dns,
    /// ICMP only.
    None,
}

/// Which other networks may start connections to this one (Netavark's `isolate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// No other network; `true` and `strict` mean this.
    #[default]
    Strict,
    /// Networks that are themselves `isolate=false`.
    Open,
}

/// All options, read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkOptions {
    /// The bridge's name.
    pub bridge: Option<IfName>,
    /// Traffic between the network's own containers.
    pub icc: Option<bool>,
    /// Masquerade on the way out.
    pub masquerade: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// The host address for published ports that name none.
    pub host_binding: Option<Ipv4Addr>,
    /// IPv4 mode.
    pub gateway_mode_v4: GatewayMode,
    /// IPv6 mode.
    pub gateway_mode_v6: GatewayMode,
    /// Source address outward instead of masquerade, IPv4.
    pub snat_v4: Option<Ipv4Addr>,
    /// Source address outward instead of masquerade, IPv6.
    pub snat_v6: Option<Ipv6Addr>,
    /// Host interfaces from which published container ports may be addressed directly.
    pub trusted_interfaces: Vec<IfName>,
    /// No IPv4 address on the bridge.
    pub inhibit_ipv4: bool,
    /// First part of interface names in the container; `eth` unless given.
    pub interface_prefix: Option<String>,
    /// Isolation from other networks.
    pub isolation: Isolation,
    /// Metric of the default route in containers; the kernel's default unless given.
    pub metric: Option<u32>,
    /// Containers get no default route from this network.
    pub no_default_route: bool,
    /// Access to the host's services.
    pub host_access: HostAccess,
    /// Everybody who comes in by a published port appears as the gateway, not only those who must: for containers that
    /// cannot answer strangers, because their default route leads elsewhere.
    pub masquerade_published: bool,
    /// The VLAN of the containers' ports, on a bridge that filters VLANs.
    pub vlan: Option<u16>,
    /// Frames may go back to the port they came from, also of containers that publish nothing.
    pub hairpin: bool,
    /// The bridge itself takes all frames.
    pub promisc: bool,
    /// The containers' ends of the cables are left down, for whoever sets them up.
    pub interfaces_down: bool,
}

/// Why an option is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("unknown network option `{0}`")]
    Unknown(String),
    /// One option by two of its names, with different values.
    #[error("network options `{0}` and `{1}` are one option: leave one of them out")]
    Twice(String, String),
    /// A value the option does not take.
    #[error("network option `{key}={value}`: {expected} is expected")]
    Value {
        /// The option.
        key: String,
        /// The value given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A known option that needs what wharf or this kernel does not have.
    #[error("network option `{key}` is not supported: {why}")]
    Unsupported {
        /// The option.
        key: String,
        /// The reason.
        why: &'static str,
    },
}

/// The options by their short names; Docker's others have `com.docker.network.` before `bridge.` and more.
const NAMES: [&str; 27] = [
    "icc",
    "masquerade",
    "mtu",
    "isolate",
    "metric",
    "no_default_route",
    "outbound_addr4",
    "outbound_addr6",
    "host-access",
    "hairpin",
    "promisc",
    "masquerade-published",
    "interfaces-down",
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.driver.mtu",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
    "com.docker.network.container_iface_prefix",
    "ip-masq",
    "vlan",
];

impl OptionError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let Self::Unknown(key) = self else {
            return None;
        };
        Some(match nearest(key, &NAMES) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("there are: {}", NAMES.join(", ")),
        })
    }
}

impl NetworkOptions {
    /// Reads options by their Docker, Netavark or wharf names.
    ///
    /// # Errors
    /// The first option that is unknown, unsupported or has a bad value.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        let mut seen: BTreeMap<&str, (&String, &String)> = BTreeMap::new();
        for (key, value) in options {
            parsed.set(key, value)?;
            let earlier = seen.insert(one_name(key), (key, value));
            if let Some((other, was)) = earlier.filter(|(_, was)| *was != value) {
                let pair = |key: &str, value: &str| format!("{key}={value}");
                return Err(OptionError::Twice(pair(other, was), pair(key, value)));
            }
        }
        Ok(parsed)
    }

    /// Whether two have the same effect, apart from what a network also has keys of its own for: the bridge's name, the MTU,
    /// `icc` and `masquerade`.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let rest = |it: &Self| Self {
            bridge: None,
            icc: None,
            masquerade: None,
            mtu: None,
            ..it.clone()
        };
        rest(self) == rest(other)
    }

    /// The gateway mode of a family.
    pub fn gateway_mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.gateway_mode_v4,
            Family::V6 => self.gateway_mode_v6,
        }
    }

    /// The chosen source address outward for a family.
    pub fn snat(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.snat_v4.map(IpAddr::V4),
            Family::V6 => self.snat_v6.map(IpAddr::V6),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let short = key.strip_prefix("com.docker.network.").unwrap_or(key);
        match short {
            "bridge.name" => self.bridge = Some(read(key, value, "an interface name")?),
            "bridge.enable_icc" | "icc" => self.icc = Some(boolean(key, value)?),
            "bridge.enable_ip_masquerade" | "ip-masq" | "masquerade" => {
                self.masquerade = Some(boolean(key, value)?)
            }
            "driver.mtu" | "mtu" => {
                self.mtu = Some(read(key, value, "a number of bytes")?).filter(|mtu| *mtu != 0)
            }
            "bridge.host_binding_ipv4" => {
                let ip: Ipv4Addr = read(key, value, "an IPv4 address")?;
                if ip.is_multicast() || ip.is_broadcast() {
                    return Err(bad(key, value, "an IPv4 address that a host can have"));
                }
                self.host_binding = Some(ip).filter(|ip| !ip.is_unspecified());
            }
            "bridge.gateway_mode_ipv4" => self.gateway_mode_v4 = gateway_mode(key, value)?,
            "bridge.gateway_mode_ipv6" => self.gateway_mode_v6 = gateway_mode(key, value)?,
            "host_ipv4" | "outbound_addr4" => {
                let expected = "an IPv4 address that a host can have";
                self.snat_v4 = Some(read(key, value, expected)?).filter(|ip| is_host4(*ip));
                self.snat_v4.ok_or_else(|| bad(key, value, expected))?;
            }
            "host_ipv6" | "outbound_addr6" => {
                let expected = "an IPv6 address that a host can have";
                self.snat_v6 = Some(read(key, value, expected)?).filter(|ip| is_host6(*ip));
                self.snat_v6.ok_or_else(|| bad(key, value, expected))?;
            }
            "bridge.trusted_host_interfaces" => {
                self.trusted_interfaces = value
                    .split(':')
                    .map(|name| read(key, name, "interface names with colons between"))
                    .collect::<Result<_, _>>()?;
            }
            "bridge.inhibit_ipv4" => self.inhibit_ipv4 = boolean(key, value)?,
            "container_iface_prefix" => self.interface_prefix = Some(interface_prefix(key, value)?),
            "isolate" => {
                self.isolation = match value {
                    "strict" => Isolation::Strict,
                    _ if boolean(key, value)? => Isolation::Strict,
                    _ => Isolation::Open,
                }
            }
            "metric" => self.metric = Some(read(key, value, "a number")?),
            "no_default_route" => self.no_default_route = boolean(key, value)?,
            "host-access" | "host_access" => self.host_access = host_access(key, value)?,
            "promisc" if key == short => self.promisc = boolean(key, value)?,
            "hairpin" if key == short => self.hairpin = boolean(key, value)?,
            "masquerade-published" if key == short => {
                self.masquerade_published = boolean(key, value)?;
            }
            "interfaces-down" if key == short => self.interfaces_down = boolean(key, value)?,
            "vrf" if key == short => {
                return Err(OptionError::Unsupported {
                    key: key.to_owned(),
                    why: "wharf judges packets by the bridge they come from, which a VRF hides",
                });
            }
            "vlan" if key == short => self.vlan = Some(vlan(key, value)?),
            "mode" if key == short => {
                return Err(OptionError::Unsupported {
                    key: key.to_owned(),
                    why: "wharf makes one bridge per network and manages it itself",
                });
            }
            _ => return Err(OptionError::Unknown(key.to_owned())),
        }
        Ok(())
    }
}

/// The first of these options that does something to one family only, which is not `has`: it would be for nothing.
pub fn without_family(
    options: &BTreeMap<String, String>,
    has: impl Fn(Family) -> bool,
) -> Option<(&str, Family)> {
    let idle = |key: &String, value: &String| {
        let alone = BTreeMap::from([(key.clone(), value.clone())]);
        NetworkOptions::parse(&alone).is_ok_and(|read| read == NetworkOptions::default())
    };
    options.iter().find_map(|(key, value)| {
        let family = match one_name(key) {
            "outbound_addr4"
            | "bridge.host_binding_ipv4"
            | "bridge.gateway_mode_ipv4"
            | "bridge.inhibit_ipv4" => Family::V4,
            "outbound_addr6" | "bridge.gateway_mode_ipv6" => Family::V6,
            _ => return None,
        };
        (!has(family) && !idle(key, value)).then_some((key.as_str(), family))
    })
}

/// One name for what has several.
fn one_name(key: &str) -> &str {
    match key.strip_prefix("com.docker.network.").unwrap_or(key) {
        "bridge.enable_icc" => "icc",
        "bridge.enable_ip_masquerade" | "ip-masq" => "masquerade",
        "driver.mtu" => "mtu",
        "host_ipv4" => "outbound_addr4",
        "host_ipv6" => "outbound_addr6",
        "host_access" => "host-access",
        other => other,
    }
}

/// Whether packets can leave with it.
fn is_host4(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

fn is_host6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

fn bad(key: &str, value: &str, expected: &'static str) -> OptionError {
    OptionError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        expected,
    }
}

fn read<T: FromStr>(key: &str, value: &str, expected: &'static str) -> Result<T, OptionError> {
    value.parse().map_err(|_| bad(key, value, expected))
}

/// Go's `strconv.ParseBool`, which Docker uses; an option without value counts as true there too.
fn boolean(key: &str, value: &str) -> Result<bool, OptionError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(bad(key, value, "true or false")),
    }
}

/// 0 and 4095 are no VLANs (IEEE 802.1Q).
fn vlan(key: &str, value: &str) -> Result<u16, OptionError> {
    let expected = "a number from 1 to 4094";
    match read(key, value, expected)? {
        id @ 1..=4094 => Ok(id),
        _ => Err(bad(key, value, expected)),
    }
}

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode, OptionError> {
    match value {
        "nat" | "" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(bad(key, value, "nat, nat-unprotected, routed or isolated")),
    }
}

fn host_access(key: &str, value: &str) -> Result<HostAccess, OptionError> {
    match value {
        "all" => Ok(HostAccess::All),
        "dns" => Ok(HostAccess::Dns),
        "none" => Ok(HostAccess::None),
        _ => Err(bad(key, value, "all, dns or none")),
    }
}

/// A prefix leaves room for a number behind it.
fn interface_prefix(key: &str, value: &str) -> Result<String, OptionError> {
    let ok =
        !value.is_empty() && value.len() <= 12 && format!("{value}0").parse::<IfName>().is_ok();
    ok.then(|| value.to_owned())
        .ok_or_else(|| bad(key, value, "up to 12 characters of an interface name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<NetworkOptions, OptionError> {
        NetworkOptions::parse(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn docker_and_netavark_names_mean_the_same() {
        let docker = parse(&[
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.host_ipv4", "10.0.0.1"),
        ])
        .unwrap();
        let netavark = parse(&[("mtu", "1400"), ("outbound_addr4", "10.0.0.1")]).unwrap();
        assert_eq!(docker, netavark);
        assert_eq!(
            parse(&[("isolate", "false")]).unwrap().isolation,
            Isolation::Open
        );
        assert_eq!(parse(&[("mtu", "0")]).unwrap().mtu, None);
    }

    #[test]
    fn bad_values_name_the_option() {
        for (key, value) in [
            ("mtu", "-1"),
            ("isolate", "maybe"),
            ("com.docker.network.bridge.enable_icc", "2"),
            ("host-access", "some"),
            ("outbound_addr4", "fd00::1"),
            ("outbound_addr4", "0.0.0.0"),
            ("com.docker.network.host_ipv4", "127.0.0.1"),
            ("outbound_addr6", "ff02::1"),
            ("com.docker.network.bridge.host_binding_ipv4", "224.0.0.1"),
        ] {
            assert!(
                matches!(parse(&[(key, value)]), Err(OptionError::Value { key: k, .. }) if k == key)
            );
        }
        let twice = parse(&[("mtu", "1300"), ("com.docker.network.driver.mtu", "1400")]);
        assert!(matches!(twice, Err(OptionError::Twice(..))), "{twice:?}");
        assert_eq!(
            parse(&[("com.docker.network.driver.mtv", "1")]),
            Err(OptionError::Unknown(
                "com.docker.network.driver.mtv".to_owned()
            ))
        );
    }

    #[test]
    fn the_names_that_are_shown_are_options() {
        for name in NAMES {
            let error = parse(&[(name, "?")]);
            assert!(!matches!(error, Err(OptionError::Unknown(_))), "{name}");
        }
        let hint = |key: &str| OptionError::Unknown(key.to_owned()).hint().unwrap();
        assert_eq!(hint("isolat"), "did you mean `isolate`?");
        assert!(hint("foo").contains("com.docker.network.bridge.name"));
    }
}
