//! Operations: one change to a kernel each, as data, named object then verb as in `ip link add`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::addr::{Family, Mac};
use crate::extras::{Limit, Traits};
use crate::model::{Hop, Link, Netns, PolicyRule, Port, Resource, RouteMore};
use crate::name::IfName;
use crate::nft;
use crate::publish::Protocol;

/// What becomes of a rule that lets a bridge pass in another tool's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorChange {
    /// It is made.
    Open,
    /// It is there, but before rules of the user's.
    Move,
    /// It goes.
    Shut,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `ip netns add`
    NetnsAdd(PathBuf),
    /// `ip netns del`
    NetnsDel(PathBuf),
    /// `ip link add`
    LinkAdd(Link),
    /// `ip link del`
    LinkDel {
        /// Where.
        netns: Netns,
        /// Which.
        link: IfName,
    },
    /// `ip link set`: an existing link gets the addresses, sizes, group and bridge that are given
    LinkSet(Link),
    /// `ip link set … up` or `down`
    LinkUp {
        /// Where.
        netns: Netns,
        /// Which.
        link: IfName,
        /// Up, else down.
        up: bool,
    },
    /// `ip link set … name …`, of a link of the host
    LinkRename {
        /// As it is called.
        from: IfName,
        /// As it is to be called.
        to: IfName,
    },
    /// `ip link set … nomaster`: with its place in the bridge a link loses all its settings as a port.
    PortUnplug(IfName),
    /// `bridge link set`
    PortSet(Port),
    /// `ip addr add`
    AddrAdd {
        /// Where.
        netns: Netns,
        /// On which link.
        link: IfName,
        /// The address.
        addr: IpNet,
    },
    /// `ip addr del`
    AddrDel {
        /// Where.
        netns: Netns,
        /// On which link.
        link: IfName,
        /// The address.
        addr: IpNet,
    },
    /// `ip route add`
    RouteAdd(RouteOp),
    /// `ip route del`
    RouteDel(RouteOp),
    /// `ip rule add`
    RuleAdd(PolicyRule),
    /// `ip rule del`
    RuleDel(PolicyRule),
    /// `ip route add blackhole`
    BlackholeAdd {
        /// The destination.
        dst: IpNet,
        /// The table.
        table: u32,
    },
    /// `ip route del blackhole`
    BlackholeDel {
        /// The destination.
        dst: IpNet,
        /// The table.
        table: u32,
    },
    /// `ip neigh replace … nud permanent`
    NeighAdd {
        /// On which link.
        link: IfName,
        /// Whose address.
        addr: IpAddr,
        /// The hardware address.
        mac: Mac,
    },
    /// `ip neigh del`
    NeighDel {
        /// On which link.
        link: IfName,
        /// Whose address.
        addr: IpAddr,
    },
    /// `bridge fdb replace … static`
    FdbAdd {
        /// The port.
        link: IfName,
        /// The hardware address.
        mac: Mac,
    },
    /// `bridge fdb replace … self permanent`: by which a bridge takes frames as its own. The kernel makes the entry with the
    /// bridge, and who flushes the table takes it away.
    FdbOwn {
        /// The bridge.
        link: IfName,
        /// Its hardware address.
        mac: Mac,
    },
    /// `bridge fdb del`
    FdbDel {
        /// The port.
        link: IfName,
        /// The hardware address.
        mac: Mac,
    },
    /// `sysctl -w`
    SysctlSet {
        /// Where.
        netns: Netns,
        /// The path below `/proc/sys`, with slashes.
        key: String,
        /// The value.
        value: String,
    },
    /// `tc qdisc replace … tbf`
    Shape {
        /// Which link of the host.
        link: IfName,
        /// The limit.
        limit: Limit,
    },
    /// `tc qdisc add … ingress` and `tc filter add … mirred`
    Detour {
        /// Which link of the host.
        from: IfName,
        /// By which other.
        by: IfName,
    },
    /// `ip link set … promisc on` and the like.
    LinkTraits {
        /// Where.
        netns: Netns,
        /// Which.
        link: IfName,
        /// What is set.
        traits: Traits,
        /// It is given back; a link that is gone needs nothing.
        back: bool,
    },
    /// `nft -f`: one transaction.
    Nft(Vec<nft::Change>),
    /// `nft add rule`: a bridge passes at another tool's chain for users' rules, behind those; or no longer.
    Door {
        /// Of which family's table `filter`.
        family: Family,
        /// The chain.
        chain: String,
        /// The bridge.
        link: IfName,
        /// What comes in by the bridge, else what leaves by it.
        inward: bool,
        /// What becomes of the rule.
        change: DoorChange,
    },
    /// `conntrack -D`: forget flows that came by a host port, so that they are judged anew; over UDP also those that
    /// go out from it.
    ConntrackFlush {
        /// The protocol.
        protocol: Protocol,
        /// The host address the flows went to, if the mapping is bound to one.
        host_ip: Option<IpAddr>,
        /// The first host port.
        first: u16,
        /// The last host port.
        last: u16,
    },
    /// `conntrack -D`: forget the flows of addresses that go to somebody else.
    ConntrackForget(Vec<IpAddr>),
}

/// A route, to add or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOp {
    /// Where.
    pub netns: Netns,
    /// The destination.
    pub dst: IpNet,
    /// Where its packets go.
    pub hop: Hop,
    /// By which link, if they go by one.
    pub link: IfName,
    /// The metric, if not the kernel's default.
    pub metric: Option<u32>,
    /// What few routes have.
    pub more: RouteMore,
    /// Instead of a route to the same destination with the same metric, if there is one.
    pub replace: bool,
}

impl Op {
    /// The operation that makes a resource.
    pub fn make(resource: &Resource) -> Self {
        match resource.clone() {
            Resource::Netns(path) => Self::NetnsAdd(path),
            Resource::Link(link) => Self::LinkAdd(link),
            Resource::Port(port) => Self::PortSet(port),
            Resource::Up { netns, link } => Self::LinkUp {
                netns,
                link,
                up: true,
            },
            Resource::Addr { netns, link, addr } => Self::AddrAdd { netns, link, addr },
            Resource::Route {
                netns,
                dst,
                hop,
                link,
                metric,
                more,
            } => Self::RouteAdd(RouteOp {
                netns,
                dst,
                hop,
                link,
                metric,
                more,
                replace: false,
            }),
            Resource::Rule(rule) => Self::RuleAdd(rule),
            Resource::Blackhole { dst, table } => Self::BlackholeAdd { dst, table },
            Resource::Neigh { link, addr, mac } => Self::NeighAdd { link, addr, mac },
            Resource::Fdb { link, mac } => Self::FdbAdd { link, mac },
            Resource::Sysctl {
                netns, key, value, ..
            } => Self::SysctlSet { netns, key, value },
            Resource::Shaper { link, limit } => Self::Shape { link, limit },
            Resource::Detour { from, by } => Self::Detour { from, by },
            Resource::Traits {
                netns,
                link,
                traits,
                ..
            } => Self::LinkTraits {
                netns,
                link,
                traits,
                back: false,
            },
            Resource::Nft(object) => Self::Nft(vec![nft::Change::Add(object)]),
        }
    }

    /// Where it takes effect.
    pub fn netns(&self) -> &Netns {
        match self {
            Self::LinkAdd(link) | Self::LinkSet(link) => &link.netns,
            Self::LinkDel { netns, .. }
            | Self::LinkUp { netns, .. }
            | Self::AddrAdd { netns, .. }
            | Self::AddrDel { netns, .. }
            | Self::LinkTraits { netns, .. }
            | Self::SysctlSet { netns, .. } => netns,
            Self::RouteAdd(route) | Self::RouteDel(route) => &route.netns,
            Self::RuleAdd(rule) | Self::RuleDel(rule) => &rule.netns,
            _ => &Netns::Host,
        }
    }

    /// The link it is about, if it is about one.
    pub fn link(&self) -> Option<&IfName> {
        match self {
            Self::LinkAdd(link) | Self::LinkSet(link) => Some(&link.name),
            Self::PortSet(port) => Some(&port.link),
            Self::RouteAdd(route) | Self::RouteDel(route) => Some(&route.link),
            Self::PortUnplug(link)
            | Self::LinkRename { to: link, .. }
            | Self::LinkDel { link, .. }
            | Self::LinkUp { link, .. }
            | Self::LinkTraits { link, .. }
            | Self::AddrAdd { link, .. }
            | Self::AddrDel { link, .. }
            | Self::NeighAdd { link, .. }
            | Self::NeighDel { link, .. }
            | Self::FdbAdd { link, .. }
            | Self::FdbDel { link, .. }
            | Self::FdbOwn { link, .. }
            | Self::Shape { link, .. }
            | Self::Detour { from: link, .. }
            | Self::Door { link, .. } => Some(link),
            Self::NetnsAdd(_)
            | Self::NetnsDel(_)
            | Self::RuleAdd(_)
            | Self::RuleDel(_)
            | Self::BlackholeAdd { .. }
            | Self::BlackholeDel { .. }
            | Self::SysctlSet { .. }
            | Self::Nft(_)
            | Self::ConntrackFlush { .. }
            | Self::ConntrackForget(_) => None,
        }
    }

    /// The operation that removes a resource, if it can be removed by itself: settings of a link go with it.
    pub fn remove(resource: &Resource) -> Option<Self> {
        Some(match resource.clone() {
            Resource::Netns(path) => Self::NetnsDel(path),
            Resource::Link(link) => Self::LinkDel {
                netns: link.netns,
                link: link.name,
            },
            Resource::Up { netns, link } => Self::LinkUp {
                netns,
                link,
                up: false,
            },
            Resource::Addr { netns, link, addr } => Self::AddrDel { netns, link, addr },
            Resource::Route {
                netns,
                dst,
                hop,
                link,
                metric,
                more,
            } => Self::RouteDel(RouteOp {
                netns,
                dst,
                hop,
                link,
                metric,
                more,
                replace: false,
            }),
            Resource::Rule(rule) => Self::RuleDel(rule),
            Resource::Blackhole { dst, table } => Self::BlackholeDel { dst, table },
            Resource::Neigh { link, addr, .. } => Self::NeighDel { link, addr },
            Resource::Fdb { link, mac } => Self::FdbDel { link, mac },
            Resource::Nft(object) => Self::Nft(vec![nft::Change::Del(object)]),
            Resource::Traits {
                netns,
                link,
                before,
                ..
            } if !before.is_empty() => Self::LinkTraits {
                netns,
                link,
                traits: before,
                back: true,
            },
            Resource::Port(_)
            | Resource::Sysctl { .. }
            | Resource::Shaper { .. }
            | Resource::Detour { .. }
            | Resource::Traits { .. } => return None,
        })
    }
}
