//! What is in the kernel, read back.
//!
//! Everything here is a method of [`NetlinkKernel`], so that it uses sockets that are open already.

mod firewall;
#[cfg(test)]
mod fuzz;
mod held;
mod listen;
pub(crate) mod networkd;
mod own;
mod own_rules;
pub mod rules;
mod state;
pub(crate) mod sysctl_files;
pub mod world;
pub mod xtables;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoPortData,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo as Info, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHop};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use wharf_core::addr::{Family, Mac};
use wharf_core::extras::Traits;
use wharf_core::model::{Netns, PORT_GROUPS};
use wharf_core::name::IfName;

use crate::kernel::netlink::{NetlinkKernel, message, socket::Request};

pub use firewall::ForwardDrop;
pub use held::Held;
pub use listen::{Listener, listener_on};
pub use own::{OwnNetwork, Published};
pub(crate) use own::{link_name, verdict_of};
pub use own_rules::{NOBODYS, RulesSeen};

/// `RT_TABLE_MAIN`.
pub(crate) const MAIN: u32 = 254;
/// `RT_TABLE_LOCAL`.
pub(crate) const LOCAL: u32 = 255;
/// `RTN_UNICAST`.
pub(crate) const UNICAST: u8 = 1;

/// How a bridge treats a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortInfo {
    /// Only frames from known hardware addresses come in.
    pub locked: bool,
    /// Hardware addresses are learnt.
    pub learning: bool,
    /// Frames may go back where they came from.
    pub hairpin: bool,
    /// Frames do not pass to other such ports.
    pub isolated: bool,
    /// `BR_STATE_FORWARDING`, or nothing to forward to.
    pub forwards: bool,
    /// Everything else is as the kernel makes it, and [`PORT_GROUPS`] as wharf does.
    pub plain: bool,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The number.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The kind, such as `bridge`; hardware has none.
    pub kind: Option<String>,
    /// The hardware address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// The number of the bridge it is a port of.
    pub master: Option<u32>,
    /// The number of a cable's other end, in that one's namespace.
    pub peer: Option<u32>,
    /// The number of that namespace, as this one counts them; `None` if it is this one.
    pub peer_space: Option<i32>,
    /// Its settings as a port.
    pub port: Option<PortInfo>,
    /// The alias.
    pub alias: Option<String>,
    /// The discipline by which packets leave.
    pub qdisc: Option<String>,
    /// Its settings.
    pub traits: Traits,
    /// The link group.
    pub group: u32,
    /// Set up (`IFF_UP`).
    pub up: bool,
    /// Up and connected (`IFF_LOWER_UP`).
    pub carrier: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The destination.
    pub dst: IpNet,
    /// The table.
    pub table: u32,
    /// The number of the outgoing link.
    pub oif: Option<u32>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// `rtm_type`: 1 is unicast.
    pub kind: u8,
    /// `rtm_protocol`: who made it.
    pub protocol: u8,
    /// The metric.
    pub metric: Option<u32>,
}

fn link_info(message: &LinkMessage) -> LinkInfo {
    let flags = message.header.flags;
    let mut info = LinkInfo {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        master: None,
        peer: None,
        peer_space: None,
        port: None,
        alias: None,
        qdisc: None,
        traits: Traits {
            promisc: Some(flags.contains(LinkFlags::Promisc)),
            allmulti: Some(flags.contains(LinkFlags::Allmulti)),
            arp: Some(!flags.contains(LinkFlags::Noarp)),
            ..Traits::default()
        },
        group: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => info.alias = Some(alias.clone()),
            LinkAttribute::Mtu(mtu) => {
                info.mtu = *mtu;
                info.traits.mtu = Some(*mtu);
            }
            LinkAttribute::Qdisc(kind) => info.qdisc = Some(kind.clone()),
            LinkAttribute::TxQueueLen(length) => info.traits.tx_queue = Some(*length),
            LinkAttribute::Group(group) => info.group = *group,
            LinkAttribute::Controller(master) => info.master = Some(*master),
            LinkAttribute::Link(peer) => info.peer = Some(*peer),
            LinkAttribute::LinkNetNsId(number) => info.peer_space = Some(*number),
            LinkAttribute::Address(bytes) => {
                info.mac = bytes.as_slice().try_into().ok().map(Mac);
                info.traits.mac = info.mac;
            }
            LinkAttribute::LinkInfo(infos) => {
                info.kind = infos.iter().find_map(|i| match i {
                    Info::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                info.port = infos.iter().find_map(port_info);
                info.traits.stp = infos.iter().find_map(spanning_tree);
            }
            _ => {}
        }
    }
    if let Some(port) = &mut info.port {
        // Disabled while nobody is at the other end.
        port.forwards |= !flags.contains(LinkFlags::Running);
    }
    info
}

fn spanning_tree(info: &Info) -> Option<bool> {
    let Info::Data(InfoData::Bridge(settings)) = info else {
        return None;
    };
    settings.iter().find_map(|s| match s {
        InfoBridge::StpState(state) => Some(*state != BridgeStpState::Disabled),
        _ => None,
    })
}

fn port_info(info: &Info) -> Option<PortInfo> {
    let Info::PortData(InfoPortData::BridgePort(settings)) = info else {
        return None;
    };
    let mut port = PortInfo {
        plain: true,
        ..PortInfo::default()
    };
    for setting in settings {
        match setting {
            InfoBridgePort::Locked(on) => port.locked = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::State(state) => {
                port.forwards = *state == BridgePortState::Forwarding;
            }
            InfoBridgePort::UnicastFlood(on)
            | InfoBridgePort::MulticastFlood(on)
            | InfoBridgePort::BroadcastFlood(on) => port.plain &= *on,
            InfoBridgePort::Guard(on)
            | InfoBridgePort::Protect(on)
            | InfoBridgePort::NeighSupress(on) => port.plain &= !*on,
            InfoBridgePort::GroupFwdMask(mask) => port.plain &= *mask == PORT_GROUPS,
            _ => {}
        }
    }
    Some(port)
}

fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let (mut local, mut plain) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => plain = Some(*addr),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(plain)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

/// A route, or one for each of its ways.
fn ways(message: &RouteMessage) -> Vec<RouteInfo> {
    let Some(info) = route(message) else {
        return Vec::new();
    };
    let several = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::MultiPath(ways) => Some(ways),
        _ => None,
    });
    let Some(several) = several else {
        return vec![info];
    };
    let way = |way: &RouteNextHop| RouteInfo {
        oif: Some(way.interface_index),
        gateway: way.attributes.iter().find_map(|a| match a {
            RouteAttribute::Gateway(addr) => ip(addr),
            _ => None,
        }),
        ..info.clone()
    };
    several.iter().map(way).collect()
}

fn route(message: &RouteMessage) -> Option<RouteInfo> {
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut dst = family.any();
    let mut info = RouteInfo {
        dst: IpNet::new(dst, 0).ok()?,
        table: message.header.table.into(),
        oif: None,
        gateway: None,
        kind: message.header.kind.into(),
        protocol: message.header.protocol.into(),
        metric: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dst = ip(addr)?,
            RouteAttribute::Table(table) => info.table = *table,
            RouteAttribute::Oif(oif) => info.oif = Some(*oif),
            RouteAttribute::Gateway(addr) => info.gateway = ip(addr),
            RouteAttribute::Priority(metric) => info.metric = Some(*metric),
            _ => {}
        }
    }
    info.dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(info)
}

impl NetlinkKernel {
    /// One link, by name.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn link(&mut self, place: &Netns, name: &IfName) -> io::Result<Option<LinkInfo>> {
        let Request { message, .. } = message::link_get(name);
        Ok(match self.rt(place)?.get(message)? {
            Some(Message::NewLink(link)) => Some(link_info(&link)),
            _ => None,
        })
    }

    /// All links.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn links(&mut self, place: &Netns) -> io::Result<Vec<LinkInfo>> {
        let mut ask = LinkMessage::default();
        let mask = vec![LinkExtentMask::SkipStats];
        ask.attributes.push(LinkAttribute::ExtMask(mask));
        let answers = self.rt(place)?.dump(&Message::GetLink(ask))?;
        Ok(answers
            .iter()
            .filter_map(|m| match m {
                Message::NewLink(link) => Some(link_info(link)),
                _ => None,
            })
            .collect())
    }

    /// All addresses, with the number of their link.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn addrs(&mut self, place: &Netns) -> io::Result<Vec<(u32, IpNet)>> {
        let ask = Message::GetAddress(AddressMessage::default());
        let answers = self.rt(place)?.dump(&ask)?;
        Ok(answers
            .iter()
            .filter_map(|m| match m {
                Message::NewAddress(message) => address(message),
                _ => None,
            })
            .collect())
    }

    /// All routes of all tables; one with several ways is several.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn routes(&mut self, place: &Netns) -> io::Result<Vec<RouteInfo>> {
        let ask = Message::GetRoute(RouteMessage::default());
        let answers = self.rt(place)?.dump(&ask)?;
        Ok(answers
            .iter()
            .flat_map(|m| match m {
                Message::NewRoute(message) => ways(message),
                _ => Vec::new(),
            })
            .collect())
    }

    /// The host's link to the outside: that of its default route with the least metric. `None` without one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn default_link(&mut self) -> io::Result<Option<LinkInfo>> {
        let routes = self.routes(&Netns::Host)?;
        let best = routes
            .iter()
            .filter(|r| r.dst.prefix_len() == 0 && r.kind == UNICAST && r.oif.is_some())
            .min_by_key(|r| (r.metric.unwrap_or(0), r.dst.addr().is_ipv6()));
        let Some(oif) = best.and_then(|r| r.oif) else {
            return Ok(None);
        };
        let links = self.links(&Netns::Host)?;
        Ok(links.into_iter().find(|l| l.index == oif))
    }

    /// A sysctl; `None` if there is no such.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the file cannot be read.
    pub fn sysctl(&mut self, place: &Netns, key: &str) -> io::Result<Option<String>> {
        match self.inside(place, || crate::kernel::netlink::sysctl::get(key)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
