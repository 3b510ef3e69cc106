//! Operations as rtnetlink messages.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecBridge, AfSpecInet6, AfSpecUnspec, BridgeStpState, BridgeVlanInfo, BridgeVlanInfoFlags,
    In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    MacVlanMode,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use wharf_core::addr::{Family, Mac};
use wharf_core::extras::Traits;
use wharf_core::model::{
    FIRST_VLAN, Hop, Link, LinkKind, PORT_GROUPS, PolicyRule, Port, ROUTE_PROTOCOL,
    RuleAction as Action,
};
use wharf_core::name::IfName;
use wharf_core::network::MacvlanMode;
use wharf_core::op::RouteOp;

use super::socket::Request;

/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;

fn request(message: Message, flags: u16) -> Request {
    Request { message, flags }
}

fn by_name(name: &IfName) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes
        .push(LinkAttribute::IfName(name.as_str().to_owned()));
    link
}

/// `RTM_GETLINK` by name, without statistics.
pub(crate) fn link_get(name: &IfName) -> Request {
    let mut link = by_name(name);
    link.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request(Message::GetLink(link), 0)
}

/// `RTM_NEWLINK` of one that is new, with the number of its master or parent, and the namespace of a cable's other end or
/// of a sub-interface.
pub(crate) fn link_add(link: &Link, other: Option<u32>, netns: Option<RawFd>) -> Request {
    let mut message = by_name(&link.name);
    let attributes = &mut message.attributes;
    let mut info = Vec::new();
    attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let mtu = link.mtu.filter(|_| link.bridge_mtu().is_none());
    attributes.extend(mtu.map(LinkAttribute::Mtu));
    attributes.extend(other.map(|index| match link.kind {
        LinkKind::Macvlan { .. } => LinkAttribute::Link(index),
        _ => LinkAttribute::Controller(index),
    }));
    if link.group != 0 {
        attributes.push(LinkAttribute::Group(link.group));
    }
    match &link.kind {
        LinkKind::Bridge => info.push(LinkInfo::Kind(InfoKind::Bridge)),
        LinkKind::Macvlan { .. } => {}
        LinkKind::Ifb => info.push(LinkInfo::Kind(InfoKind::Ifb)),
        LinkKind::Veth { peer, peer_mac, .. } => {
            // One queue instead of one for each processor: else the driver shrinks them again, and waits.
            let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
            attributes.extend(queues.clone());
            let mut other = by_name(peer);
            other.attributes.extend(queues);
            other
                .attributes
                .extend(peer_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            other.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
            other.attributes.extend(netns.map(LinkAttribute::NetNsFd));
            info.push(LinkInfo::Kind(InfoKind::Veth));
            info.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))));
        }
    }
    if let LinkKind::Macvlan { mode, .. } = link.kind {
        let mode = match mode {
            MacvlanMode::Private => MacVlanMode::Private,
            MacvlanMode::Vepa => MacVlanMode::Vepa,
            MacvlanMode::Bridge => MacVlanMode::Bridge,
            MacvlanMode::Passthru => MacVlanMode::Passthrough,
            MacvlanMode::Source => MacVlanMode::Source,
        };
        attributes.extend(netns.map(LinkAttribute::NetNsFd));
        info.push(LinkInfo::Kind(InfoKind::MacVlan));
        info.push(LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
            mode,
        )])));
    }
    attributes.push(LinkAttribute::LinkInfo(info));
    if link.up {
        set_up(&mut message, true);
    }
    request(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// `RTM_NEWLINK` on a link that is there.
pub(crate) fn link_set(link: &Link, master: Option<u32>) -> Request {
    let mut message = by_name(&link.name);
    let attributes = &mut message.attributes;
    attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    attributes.push(LinkAttribute::Group(link.group));
    attributes.extend(master.map(LinkAttribute::Controller));
    if link.up {
        set_up(&mut message, true);
    }
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on one that is there: its MTU.
pub(crate) fn mtu_set(name: &IfName, mtu: u32) -> Request {
    let mut message = by_name(name);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on the loopback interface: its alias, by which the namespace is known.
pub(crate) fn loopback_alias(alias: String) -> Request {
    let mut message = by_name(&IfName::loopback());
    message.attributes.push(LinkAttribute::IfAlias(alias));
    request(Message::NewLink(message), 0)
}

fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up {
        LinkFlags::Up
    } else {
        LinkFlags::empty()
    };
}

/// `RTM_NEWLINK` on a link that is there: up or down.
pub(crate) fn link_up(name: &IfName, up: bool) -> Request {
    let mut message = by_name(name);
    set_up(&mut message, up);
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on a link that is there: another name.
pub(crate) fn link_rename(index: u32, to: &IfName) -> Request {
    let mut message = by_name(to);
    message.header.index = index;
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on a link that is there: its hardware address.
pub(crate) fn link_address(name: &IfName, mac: Mac) -> Request {
    let mut message = by_name(name);
    let address = LinkAttribute::Address(mac.0.to_vec());
    message.attributes.push(address);
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on a link that is there: out of its bridge.
pub(crate) fn unplug(name: &IfName) -> Request {
    let mut message = by_name(name);
    message.attributes.push(LinkAttribute::Controller(0));
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on a link that is there: its settings.
pub(crate) fn link_traits(name: &IfName, traits: &Traits) -> Request {
    let mut message = by_name(name);
    for (flag, on) in [
        (LinkFlags::Promisc, traits.promisc),
        (LinkFlags::Allmulti, traits.allmulti),
        (LinkFlags::Noarp, traits.arp.map(|on| !on)),
    ] {
        if let Some(on) = on {
            message.header.change_mask |= flag;
            message.header.flags.set(flag, on);
        }
    }
    let attributes = &mut message.attributes;
    attributes.extend(traits.tx_queue.map(LinkAttribute::TxQueueLen));
    attributes.extend(traits.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(traits.mtu.map(LinkAttribute::Mtu));
    if let Some(on) = traits.stp {
        let state = match on {
            true => BridgeStpState::KernelStp,
            false => BridgeStpState::Disabled,
        };
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(state)])),
        ]));
    }
    request(Message::NewLink(message), 0)
}

/// `RTM_NEWLINK` on a bridge port: the kernel makes the settings, then raises the link. It has no addresses, so the
/// kernel is kept from making one.
pub(crate) fn port_set(port: &Port, ipv6: bool) -> Request {
    let mut message = by_name(&port.link);
    set_up(&mut message, true);
    let mut settings = vec![
        InfoBridgePort::HairpinMode(port.hairpin),
        InfoBridgePort::Learning(port.learning),
        InfoBridgePort::Locked(port.locked),
        InfoBridgePort::Isolated(port.isolated),
    ];
    if port.locked {
        settings.push(InfoBridgePort::GroupFwdMask(PORT_GROUPS));
    }
    message.attributes.extend([
        LinkAttribute::IfAlias(port.alias.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)),
        ]),
    ]);
    if ipv6 && port.ipv6 {
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
            )]));
    }
    request(Message::NewLink(message), 0)
}

/// A port's one VLAN: what comes from the container is in it, and what goes there leaves it. The VLAN every port
/// begins in is taken away.
pub(crate) fn vlan_set(index: u32, id: u16) -> Vec<Request> {
    let about = |flags, vid| {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = index;
        let info = AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        message
            .attributes
            .push(LinkAttribute::AfSpecBridge(vec![info]));
        message
    };
    let own = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let mut all = vec![request(Message::SetLink(about(own, id)), 0)];
    if id != FIRST_VLAN {
        let first = about(BridgeVlanInfoFlags::empty(), FIRST_VLAN);
        all.push(request(Message::DelLink(first), 0));
    }
    all
}

/// `RTM_SETLINK`: the group.
pub(crate) fn group_set(index: u32, group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Group(group));
    request(Message::SetLink(message), 0)
}

/// `RTM_DELLINK` of one link.
pub(crate) fn link_del(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request(Message::DelLink(message), 0)
}

/// `RTM_DELLINK` of a whole group.
pub(crate) fn group_del(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    request(Message::DelLink(message), 0)
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address(index: u32, addr: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(addr.addr());
    message.header.prefix_len = addr.prefix_len();
    message.header.index = index;
    message.header.scope = match addr.addr().is_loopback() {
        true => AddressScope::Host,
        false => AddressScope::Universe,
    };
    message.attributes.extend([
        AddressAttribute::Local(addr.addr()),
        AddressAttribute::Address(addr.addr()),
    ]);
    message
}

/// `RTM_NEWADDR`. Duplicates are not looked for: wharf hands each address out once.
pub(crate) fn addr_add(index: u32, addr: IpNet) -> Request {
    let mut message = address(index, addr);
    if addr.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// `RTM_DELADDR`.
pub(crate) fn addr_del(index: u32, addr: IpNet) -> Request {
    request(Message::DelAddress(address(index, addr)), 0)
}

fn route(index: u32, op: &RouteOp) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(op.dst.addr());
    message.header.destination_prefix_length = op.dst.prefix_len();
    message.header.table = MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    // A route to the link itself reaches no farther (ip-route(8)); IPv6 knows no scopes.
    message.header.scope = match (op.more.scope, op.hop) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, Hop::Link) if op.dst.addr().is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.header.kind = match op.hop {
        Hop::Via(_) | Hop::Link => RouteType::Unicast,
        Hop::Blackhole => RouteType::BlackHole,
        Hop::Unreachable => RouteType::Unreachable,
        Hop::Prohibit => RouteType::Prohibit,
    };
    if op.dst.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(op.dst.network().into()));
    }
    let attributes = &mut message.attributes;
    if let Hop::Via(gateway) = op.hop {
        attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if op.hop.refusal().is_none() && !op.more.any_link {
        attributes.push(RouteAttribute::Oif(index));
    }
    attributes.extend(op.metric.map(RouteAttribute::Priority));
    if let Some(table) = op.more.table {
        // The header has one byte; numbers above go by the attribute alone (`RT_TABLE_UNSPEC`).
        message.header.table = u8::try_from(table).unwrap_or(0);
        attributes.push(RouteAttribute::Table(table));
    }
    let mut metrics = Vec::new();
    metrics.extend(op.more.mtu.map(RouteMetric::Mtu));
    metrics.extend(op.more.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// `RTM_NEWROUTE`.
pub(crate) fn route_add(index: u32, op: &RouteOp) -> Request {
    request(
        Message::NewRoute(route(index, op)),
        NLM_F_CREATE
            | match (op.replace, op.more.beside) {
                (true, _) => NLM_F_REPLACE,
                (false, true) => 0,
                (false, false) => NLM_F_EXCL,
            },
    )
}

/// `RTM_DELROUTE`.
pub(crate) fn route_del(index: u32, op: &RouteOp) -> Request {
    request(Message::DelRoute(route(index, op)), 0)
}

fn rule(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(
        ROUTE_PROTOCOL,
    )));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.addr()));
    }
    attributes.extend(
        rule.iif
            .iter()
            .map(|iif| RuleAttribute::Iifname(iif.as_str().to_owned())),
    );
    if let Some(mark) = rule.mark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mark)]);
    }
    message.header.action = match rule.action {
        Action::Goto(to) => {
            attributes.push(RuleAttribute::Goto(to));
            RuleAction::Goto
        }
        Action::Lookup(table) => {
            attributes.push(RuleAttribute::Table(table));
            RuleAction::ToTable
        }
        Action::Nop => RuleAction::Nop,
        Action::Blackhole => RuleAction::Blackhole,
    };
    message
}

/// `RTM_NEWRULE`.
pub(crate) fn rule_add(r: &PolicyRule) -> Request {
    request(Message::NewRule(rule(r)), NLM_F_CREATE | NLM_F_EXCL)
}

/// `RTM_DELRULE`.
pub(crate) fn rule_del(r: &PolicyRule) -> Request {
    request(Message::DelRule(rule(r)), 0)
}

fn blackhole(dst: IpNet, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes.extend([
        RouteAttribute::Destination(dst.network().into()),
        RouteAttribute::Table(table),
    ]);
    message
}

/// `RTM_NEWROUTE` to nowhere.
pub(crate) fn blackhole_add(dst: IpNet, table: u32) -> Request {
    request(
        Message::NewRoute(blackhole(dst, table)),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_DELROUTE` of one to nowhere.
pub(crate) fn blackhole_del(dst: IpNet, table: u32) -> Request {
    request(Message::DelRoute(blackhole(dst, table)), 0)
}

fn neighbour(index: u32, addr: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let addr = match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(addr));
    message
        .attributes
        .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

/// `RTM_NEWNEIGH`, replacing what is there.
pub(crate) fn neigh_add(index: u32, addr: IpAddr, mac: Mac) -> Request {
    let mut message = neighbour(index, addr, Some(mac));
    let by = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.attributes.push(NeighbourAttribute::Protocol(by));
    request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// `RTM_DELNEIGH`.
pub(crate) fn neigh_del(index: u32, addr: IpAddr) -> Request {
    request(Message::DelNeighbour(neighbour(index, addr, None)), 0)
}

fn forwarding(index: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// `RTM_NEWNEIGH` in a bridge's table (`NTF_MASTER`, `NUD_NOARP`: static).
pub(crate) fn fdb_add(index: u32, mac: Mac) -> Request {
    request(
        Message::NewNeighbour(forwarding(index, mac)),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// `RTM_NEWNEIGH` of a bridge's own address in its table (`NTF_SELF`, `NUD_PERMANENT`).
pub(crate) fn fdb_own(index: u32, mac: Mac) -> Request {
    let mut message = forwarding(index, mac);
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// `RTM_DELNEIGH` in a bridge's table.
pub(crate) fn fdb_del(index: u32, mac: Mac) -> Request {
    request(Message::DelNeighbour(forwarding(index, mac)), 0)
}
