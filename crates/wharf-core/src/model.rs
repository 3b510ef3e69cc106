//! What wharf puts into a kernel, as one flat kind of thing.
//!
//! A [`Resource`] is one object: a link, an address, a chain. A state is a list of them in the order in
//! which they are made. Each knows its key (what makes it the same object), and what it lives inside of.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Mac};
use crate::extras::{Limit, Traits};
use crate::name::IfName;
use crate::network::MacvlanMode;
use crate::nft;

/// The routing protocol number of wharf's routes (`rtm_protocol`): free in `linux/rtnetlink.h` and in
/// iproute2's list.
pub const ROUTE_PROTOCOL: u8 = 119;
/// The link group of bridge ports (`IFLA_GROUP`), by which the guard knows them.
pub const PORT_GROUP: u32 = 0x7768;
/// The link group of ports on networks whose containers may not talk to each other: differs in the last bit.
pub const PORT_GROUP_APART: u32 = PORT_GROUP | 1;
/// The link group of bridges that wharf makes. It is for speed alone: what comes from a bridge is known by one comparison.
/// A bridge without it is known by its name, which takes a lookup.
pub const BRIDGE_GROUP: u32 = 0x776a;

/// The VLAN every new bridge port is in (`BRIDGE_VLAN_INFO_PVID` of `default_pvid`).
pub const FIRST_VLAN: u16 = 1;
/// The alias of the loopback interface by which a namespace is known as made by wharf.
pub fn netns_alias(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("wharf:{}", name.to_string_lossy())
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The one wharf runs in.
    Host,
    /// The one at this path.
    Path(PathBuf),
}

/// What sort of link, and what belongs to the sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// An interface that what comes in at another is sent by, so that it can be held back.
    Ifb,
    /// A virtual cable, of which the link is the host's end.
    Veth {
        /// The other end's name.
        peer: IfName,
        /// The other end's namespace.
        peer_netns: Netns,
        /// The other end's MAC address.
        peer_mac: Option<Mac>,
    },
    /// A sub-interface of a link of the host.
    Macvlan {
        /// The host's link.
        parent: IfName,
        /// How it sees its siblings.
        mode: MacvlanMode,
    },
}

/// Where a route's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hop {
    /// To this gateway.
    Via(IpAddr),
    /// To the destination itself, which is on the link.
    Link,
    /// Nowhere, without a word.
    Blackhole,
    /// Nowhere; the sender is told that the host is unreachable.
    Unreachable,
    /// Nowhere; the sender is told that it is forbidden.
    Prohibit,
}

impl Hop {
    /// As `ip route` writes the type of a route that leads nowhere.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Via(_) | Self::Link => None,
            Self::Blackhole => Some("blackhole"),
            Self::Unreachable => Some("unreachable"),
            Self::Prohibit => Some("prohibit"),
        }
    }
}

impl From<Option<IpAddr>> for Hop {
    fn from(gateway: Option<IpAddr>) -> Self {
        gateway.map_or(Self::Link, Self::Via)
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it is.
    pub netns: Netns,
    /// The name.
    pub name: IfName,
    /// The sort.
    pub kind: LinkKind,
    /// The MAC address, if it is not left to the kernel.
    pub mac: Option<Mac>,
    /// MTU in bytes; the other end of a cable has the same.
    pub mtu: Option<u32>,
    /// The bridge it is a port of.
    pub master: Option<IfName>,
    /// The link group (`IFLA_GROUP`); 0 is the kernel's default.
    pub group: u32,
    /// Up from the start. Bridges and their ports are raised later, when their settings are made.
    pub up: bool,
}

impl Link {
    /// The MTU of a bridge that has to be set when the bridge is there. One that it is made with, the kernel takes for the
    /// bridge's own choice, and changes it with each port that comes or goes (`br_mtu_auto_adjust`), back to 1500 with the
    /// last.
    pub fn bridge_mtu(&self) -> Option<u32> {
        const ETH_DATA_LEN: u32 = 1500;
        let own = matches!(self.kind, LinkKind::Bridge);
        self.mtu.filter(|mtu| own && *mtu != ETH_DATA_LEN)
    }
}

/// The groups 01:80:c2:00:00:0X, by X, whose frames a port treats as any other's (`IFLA_BRPORT_GROUP_FWD_MASK`). A bridge
/// else hands most of them to the port's own link, past the rules for bridged frames. :01 is dropped in any case, and the
/// kernel refuses its bit.
pub const PORT_GROUPS: u16 = !2;

/// How a bridge treats one port. Setting it raises the link: whoever is at the other end of the cable and raises that
/// first meets no port that is not locked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The port's link, in the host's namespace.
    pub link: IfName,
    /// wharf's own: only frames from known hardware addresses come in (`IFLA_BRPORT_LOCKED`), of all [`PORT_GROUPS`].
    pub locked: bool,
    /// Learn hardware addresses from frames (`IFLA_BRPORT_LEARNING`).
    pub learning: bool,
    /// Frames may go back where they came from (`IFLA_BRPORT_MODE`).
    pub hairpin: bool,
    /// Frames do not pass to other ports that are isolated too (`IFLA_BRPORT_ISOLATED`).
    pub isolated: bool,
    /// The one VLAN of the port, untagged in the container.
    pub vlan: Option<u16>,
    /// The link may have IPv6, and then gives itself no address. With an MTU below IPv6's it has none.
    pub ipv6: bool,
    /// The link's alias (`IFLA_IFALIAS`), which tells whose it is.
    pub alias: String,
}

/// What few routes have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteMore {
    /// The table; the main one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// `RTAX_MTU`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// `rtm_scope`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// A route to the same destination may be there already, and stays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub beside: bool,
    /// The gateway is not on the link: whichever leads to it is taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_link: bool,
}

/// What policy routing does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Go on at the rule of this priority.
    Goto(u32),
    /// Look the destination up in this table.
    Lookup(u32),
    /// Nothing: a place to go to.
    Nop,
    /// There is no way, and nobody is told.
    Blackhole,
}

/// A rule of policy routing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRule {
    /// Where.
    pub netns: Netns,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Lower ones come first.
    pub priority: u32,
    /// The source.
    pub from: Option<IpNet>,
    /// The link it came by; loopback stands for the host's own packets.
    pub iif: Option<IfName>,
    /// A bit of the packet mark that is set.
    pub mark: Option<u32>,
    /// What follows.
    pub action: RuleAction,
}

/// One object in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A named network namespace.
    Netns(PathBuf),
    /// A link.
    Link(Link),
    /// A bridge port's settings.
    Port(Port),
    /// A link being up.
    Up {
        /// Where.
        netns: Netns,
        /// Which.
        link: IfName,
    },
    /// An address. Never checked for duplicates by the kernel: wharf hands each out once.
    Addr {
        /// Where.
        netns: Netns,
        /// On which link.
        link: IfName,
        /// The address with its prefix length.
        addr: IpNet,
    },
    /// A route, protocol [`ROUTE_PROTOCOL`].
    Route {
        /// Where.
        netns: Netns,
        /// The destination.
        dst: IpNet,
        /// Where its packets go.
        hop: Hop,
        /// By which link, if they go by one.
        link: IfName,
        /// The metric, if not the kernel's default.
        metric: Option<u32>,
        /// What few routes have.
        more: RouteMore,
    },
    /// A rule of policy routing.
    Rule(PolicyRule),
    /// A destination to which there is no way, in a routing table of the host.
    Blackhole {
        /// The destination.
        dst: IpNet,
        /// The table.
        table: u32,
    },
    /// A permanent neighbour entry.
    Neigh {
        /// On which link of the host.
        link: IfName,
        /// The neighbour's address.
        addr: IpAddr,
        /// Its hardware address.
        mac: Mac,
    },
    /// A static forwarding entry of a bridge port.
    Fdb {
        /// The port.
        link: IfName,
        /// The hardware address behind it.
        mac: Mac,
    },
    /// A sysctl with a value.
    Sysctl {
        /// Where.
        netns: Netns,
        /// The path below `/proc/sys`, with slashes.
        key: String,
        /// The value.
        value: String,
        /// The link it belongs to, with which it goes.
        link: Option<IfName>,
    },
    /// A limit of what leaves by a link of the host.
    Shaper {
        /// The link.
        link: IfName,
        /// The limit.
        limit: Limit,
    },
    /// What comes in at a link of the host takes a way round by another.
    Detour {
        /// The link.
        from: IfName,
        /// The other.
        by: IfName,
    },
    /// Settings of a link.
    Traits {
        /// Where.
        netns: Netns,
        /// Which.
        link: IfName,
        /// What is set.
        traits: Traits,
        /// What was set before, of a link that stays.
        before: Traits,
    },
    /// An object of nftables.
    Nft(nft::Object),
}

/// What makes a resource the same object as another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// A namespace.
    Netns(PathBuf),
    /// A link.
    Link(Netns, IfName),
    /// A port's settings.
    Port(IfName),
    /// A link being up.
    Up(Netns, IfName),
    /// An address.
    Addr(Netns, IfName, IpNet),
    /// A route.
    Route(Netns, IpNet, Hop, IfName, Option<u32>, Option<u32>),
    /// A rule of policy routing.
    Rule(PolicyRule),
    /// A destination without a way.
    Blackhole(IpNet, u32),
    /// A neighbour.
    Neigh(IfName, IpAddr),
    /// A forwarding entry.
    Fdb(IfName, Mac),
    /// A sysctl.
    Sysctl(Netns, String),
    /// A limit.
    Shaper(IfName),
    /// A way round.
    Detour(IfName),
    /// Settings of a link.
    Traits(Netns, IfName),
    /// A table.
    Table(nft::Table),
    /// A set.
    Set(nft::Table, String),
    /// A chain.
    Chain(nft::Table, String),
    /// An element.
    Element(nft::Table, String, Vec<nft::Field>),
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Netns(path) => ResourceKey::Netns(path.clone()),
            Self::Link(link) => ResourceKey::Link(link.netns.clone(), link.name.clone()),
            Self::Port(port) => ResourceKey::Port(port.link.clone()),
            Self::Rule(rule) => ResourceKey::Rule(rule.clone()),
            Self::Blackhole { dst, table } => ResourceKey::Blackhole(*dst, *table),
            Self::Up { netns, link } => ResourceKey::Up(netns.clone(), link.clone()),
            Self::Addr { netns, link, addr } => {
                ResourceKey::Addr(netns.clone(), link.clone(), *addr)
            }
            Self::Route {
                netns,
                dst,
                hop,
                link,
                metric,
                more,
            } => ResourceKey::Route(netns.clone(), *dst, *hop, link.clone(), *metric, more.table),
            Self::Neigh { link, addr, .. } => ResourceKey::Neigh(link.clone(), *addr),
            Self::Fdb { link, mac } => ResourceKey::Fdb(link.clone(), *mac),
            Self::Sysctl { netns, key, .. } => ResourceKey::Sysctl(netns.clone(), key.clone()),
            Self::Shaper { link, .. } => ResourceKey::Shaper(link.clone()),
            Self::Detour { from, .. } => ResourceKey::Detour(from.clone()),
            Self::Traits { netns, link, .. } => ResourceKey::Traits(netns.clone(), link.clone()),
            Self::Nft(nft::Object::Table(table)) => ResourceKey::Table(*table),
            Self::Nft(nft::Object::Set(set)) => ResourceKey::Set(set.table, set.name.clone()),
            Self::Nft(nft::Object::Chain(chain)) => {
                ResourceKey::Chain(chain.table, chain.name.clone())
            }
            Self::Nft(nft::Object::Element(e)) => {
                ResourceKey::Element(e.table, e.set.clone(), e.key.clone())
            }
        }
    }

    /// What it vanishes with, so that it need not be removed by itself.
    pub fn lives_in(&self) -> Vec<ResourceKey> {
        let link =
            |netns: &Netns, link: &IfName| vec![ResourceKey::Link(netns.clone(), link.clone())];
        match self {
            Self::Netns(_)
            | Self::Rule(_)
            | Self::Blackhole { .. }
            | Self::Nft(nft::Object::Table(_)) => vec![],
            Self::Link(l) => match &l.netns {
                Netns::Path(path) => vec![ResourceKey::Netns(path.clone())],
                Netns::Host => vec![],
            },
            Self::Port(port) => link(&Netns::Host, &port.link),
            // It belongs to no link, and outlives it.
            Self::Route {
                netns, hop, more, ..
            } if hop.refusal().is_some() || more.any_link => match netns {
                Netns::Path(path) => vec![ResourceKey::Netns(path.clone())],
                Netns::Host => vec![],
            },
            Self::Up { netns, link: l }
            | Self::Addr { netns, link: l, .. }
            | Self::Route { netns, link: l, .. } => {
                let mut in_ = link(netns, l);
                if let Netns::Path(path) = netns {
                    in_.push(ResourceKey::Netns(path.clone()));
                }
                in_
            }
            Self::Traits { netns, link: l, .. } => link(netns, l),
            Self::Detour { from, by } => {
                let mut both = link(&Netns::Host, from);
                both.extend(link(&Netns::Host, by));
                both
            }
            Self::Neigh { link: l, .. }
            | Self::Fdb { link: l, .. }
            | Self::Shaper { link: l, .. } => link(&Netns::Host, l),
            Self::Sysctl { netns, link: l, .. } => l.iter().flat_map(|l| link(netns, l)).collect(),
            Self::Nft(nft::Object::Set(set)) => vec![ResourceKey::Table(set.table)],
            Self::Nft(nft::Object::Chain(chain)) => vec![ResourceKey::Table(chain.table)],
            Self::Nft(nft::Object::Element(e)) => vec![
                ResourceKey::Table(e.table),
                ResourceKey::Set(e.table, e.set.clone()),
            ],
        }
    }
}

/// The two ends of a cable go together: the keys by which the container's end is known.
pub fn cable_ends(resource: &Resource) -> Vec<ResourceKey> {
    let mut keys = vec![resource.key()];
    if let Resource::Link(Link {
        kind: LinkKind::Veth {
            peer, peer_netns, ..
        },
        ..
    }) = resource
    {
        keys.push(ResourceKey::Link(peer_netns.clone(), peer.clone()));
    }
    keys
}
