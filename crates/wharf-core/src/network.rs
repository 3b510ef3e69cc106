//! A network: what was asked for, and what it became.
//!
//! [`NetworkRequest`] is what a front end read; [`resolve`] fills in everything that was left open, checks
//! the whole, and gives a [`NetworkSpec`], which is stored and never doubted again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Mac, overlap};
use crate::error::ErrorKind;
use crate::ipam;
use crate::name::{IfName, NetworkName};
use crate::options::{GatewayMode, NetworkOptions, OptionError};

mod same;

pub use same::{Differences, differences};

/// The network that is used when none is named.
pub const DEFAULT_NETWORK: &str = "default";
/// The bridge of the default network.
pub const DEFAULT_BRIDGE: &str = "wharf0";
/// Smallest MTU: IPv4 needs 68 (RFC 791), IPv6 1280 (RFC 8200, section 5).
const MTU_MIN: (u32, u32) = (68, 1280);
/// Largest MTU of a bridge and a veth (`ETH_MAX_MTU`).
const MTU_MAX: u32 = 65535;

/// A network as asked for; what is `None` or empty is left to wharf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// The name.
    pub name: NetworkName,
    /// Subnets, one per family at most.
    pub subnets: Vec<IpNet>,
    /// Gateways, each inside one of the subnets.
    pub gateways: Vec<IpAddr>,
    /// Ranges that addresses are taken from, each inside one of the subnets.
    pub ip_ranges: Vec<IpNet>,
    /// The bridge's name.
    pub bridge: Option<IfName>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// IPv4 too, when only an IPv6 subnet is given.
    pub ipv4: Option<bool>,
    /// IPv6 as well.
    pub ipv6: bool,
    /// No way out and none in.
    pub internal: bool,
    /// Traffic between the network's own containers.
    pub icc: Option<bool>,
    /// Masquerade on the way out.
    pub masquerade: Option<bool>,
    /// Labels, kept and shown.
    pub labels: BTreeMap<String, String>,
    /// Options by their Docker, Netavark or wharf names.
    pub options: BTreeMap<String, String>,
    /// Whose it is.
    pub kind: NetworkKind,
}

/// How much of a network is wharf's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkKind {
    /// All: subnets are chosen where none are given, one per family at most.
    #[default]
    Own,
    /// Its addresses follow from what its client says: any number of subnets, or none.
    Numbered,
    /// The bridge is another program's, and stays as it is; wharf publishes ports of its containers.
    Adopted,
}

impl NetworkRequest {
    /// A request that leaves everything open.
    pub fn new(name: NetworkName) -> Self {
        Self {
            name,
            subnets: Vec::new(),
            gateways: Vec::new(),
            ip_ranges: Vec::new(),
            bridge: None,
            mtu: None,
            ipv4: None,
            ipv6: false,
            internal: false,
            icc: None,
            masquerade: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            kind: NetworkKind::Own,
        }
    }
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The prefix.
    pub subnet: IpNet,
    /// The bridge's address in it.
    pub gateway: IpAddr,
    /// The part addresses are taken from; all of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
}

impl Subnet {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of_net(self.subnet)
    }

    /// The gateway with the subnet's prefix length.
    pub fn gateway_net(&self) -> IpNet {
        IpNet::new(self.gateway, self.subnet.prefix_len())
            .expect("the prefix length is the subnet's own")
    }
}

/// A network, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The name.
    pub name: NetworkName,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The bridge's name.
    pub bridge: IfName,
    /// The bridge's MAC address, fixed for its life.
    pub bridge_mac: Mac,
    /// The subnets, IPv4 first.
    pub subnets: Vec<Subnet>,
    /// No way out and none in.
    pub internal: bool,
    /// Traffic between the network's own containers.
    pub icc: bool,
    /// Masquerade on the way out.
    pub masquerade: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options as given, for showing.
    pub options: BTreeMap<String, String>,
    /// Options as read.
    pub settings: NetworkOptions,
    /// The bridge is another program's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Seconds since 1970.
    pub created: u64,
}

impl NetworkSpec {
    /// The subnet of a family.
    pub fn subnet(&self, family: Family) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.family() == family)
    }

    /// Whether it has IPv6.
    pub fn has_v6(&self) -> bool {
        self.subnet(Family::V6).is_some()
    }

    /// The bridge carries the gateway address of this family.
    pub fn has_gateway_address(&self, family: Family) -> bool {
        self.settings.gateway_mode(family) != GatewayMode::Isolated
            && !(family == Family::V4 && self.settings.inhibit_ipv4)
    }

    /// Containers may take a default route of this family from it.
    pub fn offers_default_route(&self, family: Family) -> bool {
        !self.internal
            && !self.settings.no_default_route
            && self.has_gateway_address(family)
            && self.subnet(family).is_some()
    }

    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// A byte that keeps hardware addresses of networks with equal subnets apart.
    pub fn mac_salt(&self) -> u8 {
        self.bridge_mac.0[5]
    }
}

/// A network with further subnets of families that it has.
///
/// # Errors
/// One of them cannot be.
pub fn grow(
    spec: &NetworkSpec,
    further: &NetworkRequest,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<NetworkSpec, NetworkError> {
    let mut grown = spec.clone();
    let mut subnets = choose_subnets(further, existing, host)?;
    grown.subnets.append(&mut subnets);
    grown.subnets.sort_by_key(Subnet::family);
    Ok(grown)
}

/// What of the host a network's resolution needs to know.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// Destinations of all routes of all tables, and prefixes of all addresses.
    pub routes: Vec<IpNet>,
    /// Prefixes that are on a link of the host: a subnet that overlaps one cannot work.
    pub on_link: Vec<(IpNet, IfName)>,
    /// All interface names.
    pub interfaces: Vec<IfName>,
    /// MTU of the link that carries the default route.
    pub egress_mtu: Option<u32>,
    /// 32 random bytes.
    pub id: [u8; 32],
    /// Seconds since 1970.
    pub now: u64,
}

/// Why a network cannot be as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The name is in use.
    #[error("network `{0}` exists already")]
    Exists(NetworkName),
    /// The bridge belongs to another network of wharf.
    #[error("bridge `{bridge}` belongs to network `{network}`")]
    BridgeOfNetwork {
        /// The bridge.
        bridge: IfName,
        /// Its network.
        network: NetworkName,
    },
    /// An interface of that name was not made by wharf.
    #[error("an interface `{0}` exists already and was not made by wharf")]
    BridgeTaken(IfName),
    /// A bridge named twice, differently.
    #[error("two names for the bridge: `{0}` and `{1}`")]
    BridgeTwice(IfName, IfName),
    /// A subnet with bits set behind the prefix.
    #[error("`{given}` has bits set behind its prefix: did you mean {meant}?")]
    HostBits {
        /// As given.
        given: IpNet,
        /// Without the bits.
        meant: IpNet,
    },
    /// Too small, too large, or of a kind that containers cannot have.
    #[error("`{0}` cannot be a container subnet: {1}")]
    Unfit(IpNet, &'static str),
    /// Two subnets of one family.
    #[error("a network has one {0} subnet at most")]
    TwoSubnets(Family),
    /// Overlap with another network of wharf.
    #[error("subnet {subnet} overlaps {other} of network `{network}`")]
    OverlapsNetwork {
        /// Asked for.
        subnet: IpNet,
        /// In the way.
        other: IpNet,
        /// Its network.
        network: NetworkName,
    },
    /// Overlap with an address of the host.
    #[error("subnet {subnet} overlaps {other}, which is on the host's own link `{dev}`")]
    OverlapsLink {
        /// Asked for.
        subnet: IpNet,
        /// In the way.
        other: IpNet,
        /// Where it is.
        dev: IfName,
    },
    /// No automatic subnet is free.
    #[error("no automatic {0} subnet is free of the host's routes; give one with --subnet")]
    NoPool(Family),
    /// A gateway or range outside every subnet.
    #[error("{what} {text} is not inside a subnet of the network")]
    Outside {
        /// "gateway" or "address range".
        what: &'static str,
        /// As given.
        text: String,
    },
    /// A second gateway or range for one subnet.
    #[error("two {what}s for subnet {subnet}")]
    Twice {
        /// "gateway" or "address range".
        what: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A gateway that is the network or broadcast address.
    #[error("{0} cannot be a gateway: it is the first or last address of {1}")]
    GatewayUnfit(IpAddr, IpNet),
    /// MTU out of range.
    #[error("MTU {mtu} is out of range: {min} to {max} here")]
    Mtu {
        /// Asked for.
        mtu: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// An option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Two settings that exclude each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

impl NetworkError {
    /// The coarse kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists(_)
            | Self::BridgeOfNetwork { .. }
            | Self::BridgeTaken(_)
            | Self::OverlapsNetwork { .. }
            | Self::OverlapsLink { .. } => ErrorKind::Conflict,
            Self::NoPool(_) => ErrorKind::Conflict,
            Self::Option(OptionError::Unsupported { .. }) => ErrorKind::Unsupported,
            _ => ErrorKind::Config,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(name) => Some(format!("`wharf network inspect {name}` shows it")),
            Self::BridgeTaken(name) => Some(format!(
                "choose another name with --bridge, or remove it with `ip link del {name}` if nobody needs it"
            )),
            Self::OverlapsNetwork { .. } | Self::OverlapsLink { .. } => Some(
                "choose another subnet, or leave --subnet out and wharf picks a free one"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Completes and checks a request against the networks there are and the host.
///
/// # Errors
/// The first thing found that cannot be.
pub fn resolve(
    request: &NetworkRequest,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<NetworkSpec, NetworkError> {
    if existing.iter().any(|n| n.name == request.name) {
        return Err(NetworkError::Exists(request.name.clone()));
    }
    let settings = NetworkOptions::parse(&request.options)?;
    let id: String = host.id.iter().map(|b| format!("{b:02x}")).collect();
    let bridge = choose_bridge(request, &settings, &id, existing, host)?;
    let subnets = choose_subnets(request, existing, host)?;
    let spec = NetworkSpec {
        name: request.name.clone(),
        bridge,
        bridge_mac: bridge_mac(&subnets, &host.id),
        adopted: request.kind == NetworkKind::Adopted,
        internal: request.internal,
        icc: request.icc.or(settings.icc).unwrap_or(true),
        masquerade: request.masquerade.or(settings.masquerade).unwrap_or(true),
        mtu: request
            .mtu
            .or(settings.mtu)
            .or(host.egress_mtu)
            .unwrap_or(1500),
        labels: request.labels.clone(),
        options: request.options.clone(),
        created: host.now,
        id,
        subnets,
        settings,
    };
    check_whole(&spec)?;
    Ok(spec)
}

/// Follows from the first gateway, so that a network made again is at the same hardware address.
fn bridge_mac(subnets: &[Subnet], id: &[u8; 32]) -> Mac {
    const SALT: u8 = 0x77;
    match subnets.first() {
        Some(subnet) => Mac::from_ip(subnet.gateway, SALT),
        None => Mac::local([SALT, id[0], id[1], id[2], id[3]]),
    }
}

fn check_whole(spec: &NetworkSpec) -> Result<(), NetworkError> {
    let min = if spec.has_v6() { MTU_MIN.1 } else { MTU_MIN.0 };
    if !(min..=MTU_MAX).contains(&spec.mtu) {
        return Err(NetworkError::Mtu {
            mtu: spec.mtu,
            min,
            max: MTU_MAX,
        });
    }
    let isolated = Family::BOTH
        .iter()
        .any(|f| spec.settings.gateway_mode(*f) == GatewayMode::Isolated);
    if isolated && !spec.internal {
        return Err(NetworkError::Contradiction(
            "gateway mode `isolated` is for internal networks only: add --internal",
        ));
    }
    Ok(())
}

fn choose_bridge(
    request: &NetworkRequest,
    settings: &NetworkOptions,
    id: &str,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<IfName, NetworkError> {
    if let (Some(a), Some(b)) = (&request.bridge, &settings.bridge)
        && a != b
    {
        return Err(NetworkError::BridgeTwice(a.clone(), b.clone()));
    }
    let automatic = || {
        let text = if request.name.as_str() == DEFAULT_NETWORK {
            DEFAULT_BRIDGE.to_owned()
        } else {
            format!("br-{}", &id[..12])
        };
        text.parse().expect("made of a short prefix and digits")
    };
    let bridge = request
        .bridge
        .clone()
        .or_else(|| settings.bridge.clone())
        .unwrap_or_else(automatic);
    let adopted = request.kind == NetworkKind::Adopted;
    if let Some(other) = existing.iter().find(|n| n.bridge == bridge) {
        return Err(NetworkError::BridgeOfNetwork {
            bridge,
            network: other.name.clone(),
        });
    }
    if host.interfaces.contains(&bridge) && !adopted {
        return Err(NetworkError::BridgeTaken(bridge));
    }
    Ok(bridge)
}

fn choose_subnets(
    request: &NetworkRequest,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<Vec<Subnet>, NetworkError> {
    if request.kind != NetworkKind::Adopted {
        for net in &request.subnets {
            check_subnet(*net, existing, host)?;
        }
    }
    let numbered = request.kind != NetworkKind::Own;
    let mut chosen = Vec::new();
    for family in Family::BOTH {
        let mut of_family = request
            .subnets
            .iter()
            .copied()
            .filter(|n| Family::of_net(*n) == family);
        if numbered {
            chosen.extend(of_family);
            continue;
        }
        let given = of_family.next();
        if of_family.next().is_some() {
            return Err(NetworkError::TwoSubnets(family));
        }
        // As Podman has it: the families are those of the subnets given, and `--ipv6` asks for both.
        let wanted = match family {
            Family::V4 => request
                .ipv4
                .unwrap_or(request.subnets.is_empty() || request.ipv6),
            Family::V6 => request.ipv6,
        };
        if let Some(net) = given {
            chosen.push(net);
        } else if wanted {
            chosen.push(automatic_subnet(family, existing, host)?);
        }
    }
    if chosen.is_empty() && !numbered {
        return Err(NetworkError::Contradiction("a network needs IPv4 or IPv6"));
    }
    let subnets = place(
        &chosen,
        &request.gateways,
        "gateway",
        |a, net| net.contains(a),
        |a| a.to_string(),
    )?;
    let ranges = place(
        &chosen,
        &request.ip_ranges,
        "address range",
        |r, net| net.contains(r),
        |r| r.to_string(),
    )?;
    chosen
        .iter()
        .zip(subnets.into_iter().zip(ranges))
        .map(|(net, (gateway, ip_range))| {
            let gateway = gateway.unwrap_or_else(|| ipam::usable(*net).0);
            if !ipam::is_usable(*net, gateway) {
                return Err(NetworkError::GatewayUnfit(gateway, *net));
            }
            Ok(Subnet {
                subnet: *net,
                gateway,
                ip_range: ip_range.map(|r| r.trunc()),
            })
        })
        .collect()
}

fn automatic_subnet(
    family: Family,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<IpNet, NetworkError> {
    let mut taken = host.routes.clone();
    taken.extend(
        existing
            .iter()
            .flat_map(|n| n.subnets.iter().map(|s| s.subnet)),
    );
    let picked = match family {
        Family::V4 => ipam::pick_subnet_v4(&taken),
        Family::V6 => ipam::pick_subnet_v6(&host.id, &taken),
    };
    picked.ok_or(NetworkError::NoPool(family))
}

/// Puts each of `items` to the subnet it is inside of.
fn place<T: Copy>(
    subnets: &[IpNet],
    items: &[T],
    what: &'static str,
    inside: impl Fn(&T, &IpNet) -> bool,
    show: impl Fn(&T) -> String,
) -> Result<Vec<Option<T>>, NetworkError> {
    let mut placed: Vec<Option<T>> = subnets.iter().map(|_| None).collect();
    for item in items {
        let at = subnets
            .iter()
            .position(|net| inside(item, net))
            .ok_or_else(|| NetworkError::Outside {
                what,
                text: show(item),
            })?;
        if placed[at].replace(*item).is_some() {
            return Err(NetworkError::Twice {
                what,
                subnet: subnets[at],
            });
        }
    }
    Ok(placed)
}

fn check_subnet(
    net: IpNet,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<(), NetworkError> {
    if net.trunc() != net {
        return Err(NetworkError::HostBits {
            given: net,
            meant: net.trunc(),
        });
    }
    let longest = Family::of_net(net).bits() - 2;
    if net.prefix_len() > longest {
        return Err(NetworkError::Unfit(
            net,
            "it has no room for a gateway and a container",
        ));
    }
    if net.prefix_len() < 8 {
        return Err(NetworkError::Unfit(net, "it is wider than /8"));
    }
    let addr = net.network();
    let special = match addr {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                || v4.octets()[0] >= 240
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfe80
                || v6.segments()[0] == 0
        }
    };
    if special {
        return Err(NetworkError::Unfit(
            net,
            "loopback, link-local, multicast and reserved addresses are not for containers",
        ));
    }
    for other in existing {
        if let Some(theirs) = other.subnets.iter().find(|s| overlap(s.subnet, net)) {
            return Err(NetworkError::OverlapsNetwork {
                subnet: net,
                other: theirs.subnet,
                network: other.name.clone(),
            });
        }
    }
    if let Some((theirs, dev)) = host.on_link.iter().find(|(n, _)| overlap(*n, net)) {
        return Err(NetworkError::OverlapsLink {
            subnet: net,
            other: *theirs,
            dev: dev.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
