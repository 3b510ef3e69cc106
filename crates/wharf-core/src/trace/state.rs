//! What was read of the host and of the namespaces around it, as plain data.
//!
//! Every namespace is a [`Space`]; number 0 is the host. Links refer to each other by index inside a space, and across
//! spaces by [`Place`]. Text that a report shows (names of sysctls, of namespaces) is kept as its own tool writes it.

mod ipsec;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, Mac};
use crate::attach::Container;
use crate::name::NetworkName;
use crate::network::NetworkSpec;
use crate::publish::PortMapping;
use crate::trace::packet::L4;
use crate::trace::report::Owner;
use crate::trace::ruleset::Ruleset;

pub use ipsec::{Ipsec, IpsecDir, IpsecPolicy};

/// The number of a [`Space`] in [`ObservedState::spaces`].
pub type SpaceId = usize;

/// The host's space.
pub const HOST: SpaceId = 0;

/// Everything the walker may look at, read in one pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedState {
    /// The namespaces; the first is the host's.
    pub spaces: Vec<Space>,
    /// The networks wharf knows.
    pub networks: Vec<NetworkSpec>,
    /// The containers wharf knows.
    pub containers: Vec<Container>,
    /// Other tools that are at work on this host, by their traces (chains, files, processes).
    pub tools: Vec<Owner>,
    /// Programs of other tools that are in charge, of those that advice may name.
    pub programs: Vec<&'static str>,
    /// What could not be read, and why; never fatal.
    pub unread: Vec<Unread>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The namespace, by its shown name.
    pub netns: String,
    /// What: `nftables rules`, `neighbours`, …
    pub what: String,
    /// The reason: the kernel's or the decoder's words.
    pub why: String,
}

/// One network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// As reports name it: `host`, a container's name, or the path that was asked with.
    pub name: String,
    /// What stands before a command that is run in it, with a final blank: empty for the host, `ip netns exec c1 `,
    /// `nsenter --net=/proc/17/ns/net `.
    pub enter: String,
    /// The inode of the namespace.
    pub inode: u64,
    /// The wharf container it belongs to, by name.
    pub container: Option<String>,
    /// Whether all was read; else only links and addresses, since it only lies beside the path.
    pub full: bool,
    /// The links.
    pub links: Vec<Link>,
    /// The addresses.
    pub addrs: Vec<Address>,
    /// The routes of all tables, `local` included.
    pub routes: Vec<Route>,
    /// The policy rules (`ip rule`), in the order of their priorities.
    pub rules: Vec<PolicyRule>,
    /// The neighbours.
    pub neighbours: Vec<Neighbour>,
    /// The forwarding tables of bridges.
    pub fdb: Vec<FdbEntry>,
    /// Sysctls by their dotted names (`net.ipv4.conf.br-demo.forwarding`; an interface's dots are slashes, as
    /// `sysctl` writes them), values trimmed.
    pub sysctls: BTreeMap<String, String>,
    /// The packet rules of all tools.
    pub ruleset: Ruleset,
    /// Sockets that listen or are bound.
    pub sockets: Vec<Socket>,
    /// Tracked connections that concern the asked addresses.
    pub flows: Vec<Flow>,
    /// Connections tracked and the most there can be; `None` where it was not read.
    pub conntrack: Option<(u32, u32)>,
    /// IPsec.
    pub ipsec: Ipsec,
    /// Whether some program takes packets from rules that queue them; `None` where it was not read.
    pub queues: Option<bool>,
    /// When it was read, in nanoseconds since 1970; 0 where the clock was not read.
    pub now: u64,
    /// IPv4 ports for outgoing connections (`net.ipv4.ip_local_port_range`), and how many of them are in use.
    pub ports_in_use: u32,
}

/// A link of some space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The space.
    pub space: SpaceId,
    /// The link's index there.
    pub index: u32,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// `ifi_index`.
    pub index: u32,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, `vxlan`, `macvlan`, …; hardware has none. Loopback is `lo`.
    pub kind: Option<String>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// `IFF_UP`: set up by its administrator.
    pub up: bool,
    /// `IFF_LOWER_UP`: connected.
    pub carrier: bool,
    /// `IFF_NOARP`.
    pub noarp: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_PROMISC` or its kin.
    pub promisc: bool,
    /// The index of the bridge (or bond, vrf) it is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair, where its namespace was read.
    pub peer: Option<Place>,
    /// `IFLA_LINK` of a link on another one in the same space (vlan, macvlan), or the peer's index where the peer's space
    /// is not known.
    pub lower: Option<u32>,
    /// The space of `lower`, where that is another one (a macvlan in a container) and was read.
    pub lower_space: Option<SpaceId>,
    /// What a bridge is set to.
    pub bridge: Option<Bridge>,
    /// What a port of a bridge is set to.
    pub port: Option<Port>,
    /// The alias.
    pub alias: Option<String>,
    /// The link group.
    pub group: u32,
    /// An XDP program is attached.
    pub xdp: bool,
    /// tc filters and qdiscs that may drop.
    pub tc: Vec<TrafficControl>,
    /// The mode of a link of kind `macvlan` or `macvtap` (`MACVLAN_MODE_*`: 1 private, 2 vepa, 4 bridge, 8 passthru).
    pub macvlan: Option<u32>,
    /// The VLAN of a link of kind `vlan`.
    pub vlan: Option<u16>,
    /// The network identifier of a link of kind `vxlan`.
    pub vni: Option<u32>,
    /// The routing table of a link of kind `vrf`.
    pub vrf_table: Option<u32>,
}

/// Settings of a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Spanning tree is on.
    pub stp: bool,
    /// `vlan_filtering`.
    pub vlan_filtering: bool,
    /// `nf_call_iptables`, `nf_call_ip6tables` of this bridge (besides the sysctls).
    pub nf_call: (bool, bool),
    /// The VLAN of its own untagged frames, with `vlan_filtering`.
    pub pvid: Option<u16>,
    /// The VLANs of its own frames, and whether untagged.
    pub vlans: Vec<(u16, bool)>,
}

/// State and settings of a bridge port (`IFLA_BRPORT_*`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// `BR_STATE_*`: 0 disabled, 1 listening, 2 learning, 3 forwarding, 4 blocking.
    pub state: u8,
    /// Frames between isolated ports do not pass.
    pub isolated: bool,
    /// Learns addresses.
    pub learning: bool,
    /// Unknown unicast is sent to it.
    pub flood: bool,
    /// Multicast is sent to it.
    pub mcast_flood: bool,
    /// Broadcast is sent to it.
    pub bcast_flood: bool,
    /// Frames may leave by the port they came by.
    pub hairpin: bool,
    /// Only source addresses with a static entry may enter.
    pub locked: bool,
    /// The port answers for neighbours.
    pub proxy_arp: bool,
    /// Neighbour requests are not flooded to it.
    pub neigh_suppress: bool,
    /// The VLAN untagged frames enter, with `vlan_filtering`.
    pub pvid: Option<u16>,
    /// The VLANs it carries, and whether untagged.
    pub vlans: Vec<(u16, bool)>,
}

/// A tc hook that may drop or change packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficControl {
    /// On the way in (`ingress`, `clsact`), else on the way out.
    pub ingress: bool,
    /// As `tc` prints it: `filter parent ffff: protocol all pref 49152 u32 … action drop`.
    pub text: String,
    /// What it does to every packet, where that could be read; `None`: it depends.
    pub drops: Option<TcDrop>,
}

/// Which packets a tc hook drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcDrop {
    /// All of them (a `netem loss 100%`, a matchall with `drop`).
    All,
    /// Those of one Ethernet protocol (matchall under `protocol ip`).
    Ethertype(u16),
    /// Those a u32, flower or basic filter matches: `(offset from the network header, mask, value)` words that must all hold.
    Matching {
        /// The Ethernet protocol; 0x0003 is any.
        ethertype: u16,
        /// 32-bit words in network order.
        words: Vec<(u32, u32, u32)>,
    },
    /// Those for which a BPF program says so.
    Program {
        /// The Ethernet protocol; 0x0003 is any.
        ethertype: u16,
        /// Classic BPF: code, jumps, operand. None where it cannot be read.
        ops: Vec<(u16, u8, u8, u32)>,
    },
    /// Those whose IP packet is larger than so many bytes (a policer, a token bucket too small for a packet).
    Larger(u32),
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address and the on-link prefix.
    pub net: IpNet,
    /// The other end of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// `IFA_F_TENTATIVE`.
    pub tentative: bool,
    /// `IFA_F_DADFAILED`.
    pub dad_failed: bool,
    /// `IFA_F_DEPRECATED`.
    pub deprecated: bool,
    /// `RT_SCOPE_*`: 0 global, 253 link, 254 host.
    pub scope: u8,
}

/// What a route does (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// It is for this space.
    Local,
    /// Broadcast on the link.
    Broadcast,
    /// Anycast.
    Anycast,
    /// Multicast.
    Multicast,
    /// Drops without a word.
    Blackhole,
    /// Refuses: unreachable.
    Unreachable,
    /// Refuses: prohibited.
    Prohibit,
    /// Goes on with the next policy rule.
    Throw,
    /// Any other number.
    Other(u8),
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// The table: 254 main, 255 local, 253 default.
    pub table: u32,
    /// Where to; several for a multipath route, none for one that rejects.
    pub hops: Vec<NextHop>,
    /// The preferred source (`src`).
    pub prefsrc: Option<IpAddr>,
    /// The metric; the least wins.
    pub metric: u32,
    /// `rtm_protocol`: who made it (2 kernel, 3 boot, 4 static, 119 wharf).
    pub protocol: u8,
    /// `rtm_scope`.
    pub scope: u8,
    /// `rtm_tos`.
    pub tos: u8,
    /// `mtu` of the route, in bytes.
    pub mtu: Option<u32>,
    /// IPv6: only for packets from this prefix (`from`).
    pub from: Option<IpNet>,
    /// The nexthop object that it names (`nhid`).
    pub nexthop: Option<u32>,
}

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NextHop {
    /// The gateway; `None` is on-link.
    pub via: Option<IpAddr>,
    /// The outgoing link's index.
    pub link: Option<u32>,
    /// `RTNH_F_ONLINK`.
    pub onlink: bool,
    /// `RTNH_F_DEAD` or `RTNH_F_LINKDOWN`.
    pub dead: bool,
}

/// What a policy rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Looks up a table.
    Table(u32),
    /// Goes on at a priority.
    Goto(u32),
    /// Does nothing.
    Nop,
    /// Drops without a word.
    Blackhole,
    /// Refuses: unreachable.
    Unreachable,
    /// Refuses: prohibited.
    Prohibit,
    /// Any other number.
    Other(u8),
}

/// A policy rule (`ip rule`, `struct fib_rule_hdr`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The family.
    pub family: Family,
    /// The priority; the least comes first.
    pub priority: u32,
    /// Holds when the selectors do not.
    pub invert: bool,
    /// `from`.
    pub src: Option<IpNet>,
    /// `to`.
    pub dst: Option<IpNet>,
    /// `iif`, by name; `lo` is what this space itself sends.
    pub iif: Option<String>,
    /// `oif`, by name.
    pub oif: Option<String>,
    /// `fwmark VALUE/MASK`.
    pub mark: Option<(u32, u32)>,
    /// `tos`.
    pub tos: u8,
    /// `ipproto`.
    pub ip_proto: Option<u8>,
    /// `sport`.
    pub sport: Option<(u16, u16)>,
    /// `dport`.
    pub dport: Option<(u16, u16)>,
    /// `uidrange`.
    pub uids: Option<(u32, u32)>,
    /// `l3mdev`.
    pub l3mdev: bool,
    /// `suppress_prefixlength`: results with a prefix this short or shorter are not taken.
    pub suppress: Option<u32>,
    /// `suppress_ifgroup`: results by a link of that group are not taken.
    pub suppress_group: Option<u32>,
    /// `tun_id`: only what came by a tunnel of that number.
    pub tunnel: bool,
    /// What it does.
    pub action: RuleAction,
    /// `protocol`.
    pub protocol: u8,
}

/// State of a neighbour entry (`NUD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// Asked, not yet answered.
    Incomplete,
    /// Known good.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// Being confirmed.
    Delay,
    /// Being confirmed.
    Probe,
    /// Nobody answered.
    Failed,
    /// Needs no ARP.
    NoArp,
    /// Pinned by hand.
    Permanent,
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub addr: IpAddr,
    /// Where it is.
    pub mac: Option<Mac>,
    /// How sure that is.
    pub state: NeighbourState,
    /// This space answers for it (`NTF_PROXY`).
    pub proxy: bool,
}

/// An entry of a bridge's forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdbEntry {
    /// The index of the port, or of the bridge itself for its own addresses.
    pub link: u32,
    /// The address.
    pub mac: Mac,
    /// The VLAN.
    pub vlan: Option<u16>,
    /// `NTF_SELF` (the device's own table) instead of the bridge's.
    pub own: bool,
    /// Not learned: static or permanent.
    pub fixed: bool,
    /// `permanent`: local to the bridge.
    pub local: bool,
    /// Where a vxlan sends it.
    pub dst: Option<IpAddr>,
}

/// A socket that takes packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The protocol; [`L4::Icmp`] for nothing.
    pub protocol: L4,
    /// The address it is bound to; unspecified for all.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// An IPv6 socket that takes no IPv4.
    pub v6only: bool,
    /// The link it is bound to.
    pub link: Option<u32>,
    /// Connections waiting to be accepted (TCP).
    pub queue: u32,
    /// The most that may wait (TCP).
    pub backlog: u32,
    /// It is connected to this one only (UDP).
    pub remote: Option<(IpAddr, u16)>,
}

/// One direction of a tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, or ICMP id.
    pub sport: u16,
    /// Destination port, or ICMP type and code.
    pub dport: u16,
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As its first packet came.
    pub original: Tuple,
    /// As answers come.
    pub reply: Tuple,
    /// `IPS_*` bits (`linux/netfilter/nf_conntrack_common.h`).
    pub status: u32,
    /// `ct mark`.
    pub mark: u32,
    /// The zone.
    pub zone: u16,
    /// As `conntrack -L` prints it, shortened.
    pub text: String,
}

impl ObservedState {
    /// The host.
    pub fn host(&self) -> &Space {
        &self.spaces[HOST]
    }

    /// Whether a link is a bridge that is wharf's own.
    pub fn own_bridge(&self, place: Place) -> bool {
        let mut own = self.networks.iter().filter(|n| n.has_own_bridge());
        place.space == HOST
            && self
                .link(place)
                .is_some_and(|l| own.any(|n| n.bridge.as_str() == l.name))
    }

    /// A link by its place.
    pub fn link(&self, place: Place) -> Option<&Link> {
        self.spaces.get(place.space)?.link(place.index)
    }

    /// What the host translates for a wharf container.
    pub fn published(&self, container: &Container) -> Vec<(Family, PortMapping)> {
        let network = |name: &NetworkName| self.networks.iter().find(|n| n.name == *name);
        crate::compile::published(container, network)
    }

    /// What of a wharf container's ports answers at its own address.
    pub fn direct(&self, container: &Container) -> Vec<(PortMapping, IpAddr, &NetworkSpec)> {
        let network = |name: &NetworkName| self.networks.iter().find(|n| n.name == *name);
        crate::compile::direct(container, network)
    }

    /// The space of a wharf container.
    pub fn container_space(&self, name: &str) -> Option<SpaceId> {
        self.spaces
            .iter()
            .position(|s| s.container.as_deref() == Some(name))
    }
}

impl Space {
    /// A link by index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }

    /// A link by name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    /// A sysctl as a number; `None` if there is no such.
    pub fn sysctl(&self, name: &str) -> Option<i64> {
        self.sysctls.get(name)?.parse().ok()
    }
}
