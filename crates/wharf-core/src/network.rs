//! A network: what was asked for, and what it became.
//!
//! [`NetworkRequest`] is what a front end read; [`resolve`] fills in everything that was left open, checks
//! the whole, and gives a [`NetworkSpec`], which is stored and never doubted again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Mac};
use crate::name::{IfName, NetworkName};
use crate::options::{GatewayMode, NetworkOptions, OptionError, without_family};

mod driver;
mod error;
mod found;
mod same;
mod subnets;
#[cfg(test)]
mod tests;

pub use driver::{Driver, MacvlanMode, StaticRoute};
pub use error::NetworkError;
pub use found::{FoundBridge, IfThere};
pub use same::{Differences, differences};
use subnets::choose_subnets;

/// The owner of networks that wharf's own command makes.
pub const OWNER: &str = "cli";

/// The network that is used when none is named.
pub const DEFAULT_NETWORK: &str = "default";
/// The bridge of the default network.
pub const DEFAULT_BRIDGE: &str = "wharf0";
/// Smallest MTU: IPv4 needs 68 (RFC 791), IPv6 1280 (RFC 8200, section 5).
const MTU_MIN: (u32, u32) = (68, IPV6_MIN_MTU);
/// `IPV6_MIN_MTU` (`net/ipv6.h`): links with less have no IPv6 at all, nor its sysctls.
pub const IPV6_MIN_MTU: u32 = 1280;
/// Largest MTU of a bridge and a veth (`ETH_MAX_MTU`).
const MTU_MAX: u32 = 65535;

/// A network as asked for; what is `None` or empty is left to wharf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// The name.
    pub name: NetworkName,
    /// The front end whose network it is.
    pub owner: String,
    /// 64 hexadecimal digits; random unless given.
    pub id: Option<String>,
    /// How frames are carried.
    pub driver: Driver,
    /// Further routes of its containers.
    pub routes: Vec<StaticRoute>,
    /// The port at which a name server answers on the gateways, where that is not 53.
    pub dns_port: Option<u16>,
    /// Subnets, one per family at most unless the network is [`NetworkKind::Numbered`].
    pub subnets: Vec<IpNet>,
    /// Gateways, each inside one of the subnets.
    pub gateways: Vec<IpAddr>,
    /// Ranges that addresses are taken from, each inside one of the subnets.
    pub ip_ranges: Vec<IpNet>,
    /// The bridge's name.
    pub bridge: Option<IfName>,
    /// What becomes of a bridge of that name that somebody else made.
    pub if_there: IfThere,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// IPv4 too, when only an IPv6 subnet is given.
    pub ipv4: Option<bool>,
    /// IPv6 as well.
    pub ipv6: Option<bool>,
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
    /// Its addresses follow from what its client says: any number of subnets that do not overlap, or none.
    Numbered,
    /// The bridge is another program's, and stays as it is; wharf publishes ports of its containers.
    Adopted,
}

impl NetworkRequest {
    /// A request that leaves everything open.
    pub fn new(name: NetworkName) -> Self {
        Self {
            name,
            owner: OWNER.to_owned(),
            id: None,
            driver: Driver::Bridge,
            routes: Vec::new(),
            dns_port: None,
            subnets: Vec::new(),
            gateways: Vec::new(),
            ip_ranges: Vec::new(),
            bridge: None,
            if_there: IfThere::Refuse,
            mtu: None,
            ipv4: None,
            ipv6: None,
            internal: false,
            icc: None,
            masquerade: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            kind: NetworkKind::Own,
        }
    }
}

impl NetworkRequest {
    /// Whether it asks for addresses of a family. As Podman has it: the families are those of the subnets given, and
    /// `--ipv6` asks for both.
    pub fn has(&self, family: Family) -> bool {
        let given = self.subnets.iter().any(|s| Family::of_net(*s) == family);
        given
            || match family {
                Family::V4 => {
                    let both = self.ipv6 == Some(true);
                    self.ipv4.unwrap_or(self.subnets.is_empty() || both)
                }
                Family::V6 => self.ipv6 == Some(true),
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
    /// The front end whose network it is. Only its own command's networks does wharf keep; another's goes with
    /// its last container, and comes again with the definition its owner keeps.
    #[serde(default = "own")]
    pub owner: String,
    /// How frames are carried.
    #[serde(default)]
    pub driver: Driver,
    /// Further routes of its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    /// The port at which a name server answers on the gateways, where that is not 53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_port: Option<u16>,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The bridge's name; for macvlan the parent's.
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
    /// The bridge was there before, as this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundBridge>,
    /// Seconds since 1970.
    pub created: u64,
    /// What its bridge passes from port to port is judged, and translated, as what the host routes
    /// (`bridge-nf-call-iptables`). A fact of the host at this moment.
    #[serde(skip)]
    pub bridged_as_routed: bool,
}

fn own() -> String {
    OWNER.to_owned()
}

impl NetworkSpec {
    /// It goes with its last container.
    pub fn is_transient(&self) -> bool {
        self.owner != OWNER
    }

    /// wharf has packet rules for it.
    pub fn is_managed(&self) -> bool {
        self.driver == Driver::Bridge
    }

    /// Its bridge is wharf's.
    pub fn has_own_bridge(&self) -> bool {
        self.is_managed() && !self.adopted
    }

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
    /// The link that carries the default route.
    pub egress: Option<IfName>,
    /// Its MTU.
    pub egress_mtu: Option<u32>,
    /// 32 random bytes.
    pub id: [u8; 32],
    /// Seconds since 1970.
    pub now: u64,
}

impl HostFacts {
    /// As if a link were not there: the one of a network that is defined anew.
    pub fn forget_link(&mut self, name: &IfName) {
        self.interfaces.retain(|other| other != name);
        self.on_link.retain(|(_, link)| link != name);
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
    check_request(request, &settings)?;
    let id = match &request.id {
        Some(id) => id.clone(),
        None => host.id.iter().map(|b| format!("{b:02x}")).collect(),
    };
    let bridge = choose_bridge(request, &settings, &id, existing, host)?;
    let subnets = choose_subnets(request, existing, host)?;
    let (mut found, force_address) = match &request.if_there {
        IfThere::Found {
            bridge,
            force_address,
        } => (Some(bridge.clone()), *force_address),
        _ => (None, false),
    };
    // A bridge has no address after its last port left.
    let has = found.as_ref().map(|f| f.mac).filter(|m| *m != Mac([0; 6]));
    let mac = has.unwrap_or_else(|| bridge_mac(&subnets, &id));
    if let Some(found) = &mut found {
        found.mac = mac;
    }
    let spec = NetworkSpec {
        name: request.name.clone(),
        owner: request.owner.clone(),
        driver: request.driver,
        routes: request.routes.clone(),
        dns_port: request.dns_port,
        bridge,
        bridge_mac: mac,
        adopted: request.kind == NetworkKind::Adopted,
        internal: request.internal,
        icc: request.icc.or(settings.icc).unwrap_or(true),
        masquerade: request.masquerade.or(settings.masquerade).unwrap_or(true),
        mtu: request
            .mtu
            .or(settings.mtu)
            .or(found.as_ref().map(|f| f.mtu))
            .or(host.egress_mtu)
            .unwrap_or(1500),
        labels: request.labels.clone(),
        options: request.options.clone(),
        created: host.now,
        bridged_as_routed: false,
        id,
        subnets,
        settings,
        found,
    };
    check_whole(&spec)?;
    found::check(&spec, force_address)?;
    Ok(spec)
}

/// What a request says twice it says alike.
fn check_request(request: &NetworkRequest, settings: &NetworkOptions) -> Result<(), NetworkError> {
    fn differ<T: PartialEq>(key: Option<T>, option: Option<T>) -> bool {
        key.zip(option).is_some_and(|(a, b)| a != b)
    }
    let given = |family| {
        let mut all = request.subnets.iter();
        all.any(|s| Family::of_net(*s) == family)
    };
    let contradictions = [
        (
            request.ipv4 == Some(false) && given(Family::V4),
            "an IPv4 subnet is given, and no IPv4 is asked for",
        ),
        (
            request.ipv6 == Some(false) && given(Family::V6),
            "an IPv6 subnet is given, and no IPv6 is asked for",
        ),
        (
            differ(request.mtu, settings.mtu),
            "the MTU and the option for it differ: leave one of them out",
        ),
        (
            differ(request.icc, settings.icc),
            "`icc` and the option for it differ: leave one of them out",
        ),
        (
            differ(request.masquerade, settings.masquerade),
            "`masquerade` and the option for it differ: leave one of them out",
        ),
    ];
    if let Some((_, what)) = contradictions.iter().find(|(is, _)| *is) {
        return Err(NetworkError::Contradiction(what));
    }
    // Of other front ends' networks the options come from files that were written for programs which pass over them.
    let own = request.owner == OWNER && request.kind == NetworkKind::Own;
    match without_family(&request.options, |f| !own || request.has(f)) {
        None => Ok(()),
        Some((key, family)) => Err(NetworkError::OptionWithoutFamily {
            key: key.to_owned(),
            family,
        }),
    }
}

/// Follows from the first gateway, so that a network made again is at the same hardware address.
pub fn bridge_mac(subnets: &[Subnet], id: &str) -> Mac {
    const SALT: u8 = 0x77;
    match subnets.first() {
        Some(subnet) => Mac::from_ip(subnet.gateway, SALT),
        None => Mac::from_text(id, SALT),
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
    check_vlan(&spec.settings, spec.driver)?;
    if spec.settings.interfaces_down && !spec.subnets.is_empty() {
        return Err(NetworkError::Contradiction(
            "interfaces that are left down have no routes: the option `interfaces-down` is for networks without subnets",
        ));
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

/// Whether a network of this driver can be in a VLAN, if one is asked for.
///
/// # Errors
/// It cannot.
pub fn check_vlan(settings: &NetworkOptions, driver: Driver) -> Result<(), NetworkError> {
    if settings.vlan.is_none() || driver == Driver::Unmanaged {
        return Ok(());
    }
    Err(NetworkError::Option(OptionError::Unsupported {
        key: "vlan".to_owned(),
        why: "a bridge of wharf's own carries one network; only networks of Podman's on a bridge that is somebody else's (its `mode=unmanaged`) have VLANs",
    }))
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
    let given = request.bridge.clone().or_else(|| settings.bridge.clone());
    if request.driver != Driver::Bridge {
        return foreign_link(request, given, host);
    }
    let bridge = given.unwrap_or_else(automatic);
    let adopted = request.kind == NetworkKind::Adopted;
    if let Some(other) = existing
        .iter()
        .find(|n| n.is_managed() && n.bridge == bridge)
    {
        return Err(NetworkError::BridgeOfNetwork {
            bridge,
            network: other.name.clone(),
        });
    }
    let found = matches!(request.if_there, IfThere::Found { .. });
    if host.interfaces.contains(&bridge) && !adopted && !found {
        return Err(NetworkError::BridgeTaken(bridge));
    }
    Ok(bridge)
}

/// A link of the host that a network uses as it is; several networks may.
fn foreign_link(
    request: &NetworkRequest,
    given: Option<IfName>,
    host: &HostFacts,
) -> Result<IfName, NetworkError> {
    let macvlan = matches!(request.driver, Driver::Macvlan(_));
    let egress = || host.egress.clone().filter(|_| macvlan);
    let link = given.or_else(egress).ok_or(NetworkError::NoLink)?;
    if host.interfaces.contains(&link) {
        Ok(link)
    } else {
        Err(NetworkError::LinkMissing(link))
    }
}
