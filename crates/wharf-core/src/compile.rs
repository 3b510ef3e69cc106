//! From intent to desired state: which objects a kernel must hold for the host, a network, an attachment.
//!
//! The packet rules are here, in three parts: [`base`] (once), [`network`] (per network), [`attachment`]
//! and [`ports`] (per container, elements only). `docs/packet-rules.md` shows them as nft lists them.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::addr::Family;
use crate::attach::{Attachment, Container};
use crate::extras::Traits;
use crate::model::{BRIDGE_GROUP, Link, LinkKind, Netns, Resource};
use crate::network::{IPV6_MIN_MTU, NetworkSpec};
use crate::nft::{Data, Element, Field, Object, Table, Verdict};
use crate::options::{GatewayMode, Isolation};
use crate::publish::{PortMapping, PortRange, Protocol};

mod attachment;
pub mod backstop;
pub(crate) mod base;
mod docker;
mod guard;
mod outward;
mod rules;

pub use attachment::{attachment, default_routes, port};
pub use base::{Unforwarded, base, transit};
pub use docker::Docker;
pub use outward::{is_shared, shared};

/// Everything of a network on the host: its rules first, then the bridge, its settings, its addresses, up.
///
/// Of a network that another program made, wharf has the rules that published ports need, and those that keep it apart
/// from others if it is to be.
pub fn network(net: &NetworkSpec) -> Vec<Resource> {
    if !net.is_managed() {
        return Vec::new();
    }
    if net.adopted {
        return adopted(net);
    }
    let mut all: Vec<Resource> = rules::network_chains(net)
        .into_iter()
        .map(|c| Resource::Nft(Object::Chain(c)))
        .collect();
    all.extend(
        network_elements(net)
            .into_iter()
            .map(|e| Resource::Nft(Object::Element(e))),
    );
    all.extend(backstop::network(net));
    all.push(Resource::Link(Link {
        netns: Netns::Host,
        name: net.bridge.clone(),
        kind: LinkKind::Bridge,
        mac: Some(net.bridge_mac),
        mtu: Some(net.mtu),
        master: None,
        group: match net.found {
            Some(_) => 0,
            None => BRIDGE_GROUP,
        },
        up: false,
    }));
    if net.settings.promisc {
        all.push(Resource::Traits {
            netns: Netns::Host,
            link: net.bridge.clone(),
            traits: Traits {
                promisc: Some(true),
                ..Traits::default()
            },
            before: Traits::default(),
        });
    }
    all.extend(bridge_sysctls(net));
    for subnet in &net.subnets {
        if net.has_gateway_address(subnet.family()) {
            all.push(Resource::Addr {
                netns: Netns::Host,
                link: net.bridge.clone(),
                addr: subnet.gateway_net(),
            });
        }
    }
    all.push(Resource::Up {
        netns: Netns::Host,
        link: net.bridge.clone(),
    });
    all
}

fn adopted(net: &NetworkSpec) -> Vec<Resource> {
    let nat = rules::nat_chain(net);
    let jump = element(
        Table::Inet,
        "nat_in",
        vec![Field::Name(net.bridge.clone())],
        Some(Data::Verdict(Verdict::Goto(nat.name.clone()))),
    );
    let mut all = vec![
        Resource::Nft(Object::Chain(nat)),
        Resource::Nft(Object::Element(jump)),
    ];
    if net.settings.isolation == Isolation::Strict {
        let apart = rules::adopted_chain(net);
        let name = || vec![Field::Name(net.bridge.clone())];
        let enter = Some(Data::Verdict(Verdict::Goto(apart.name.clone())));
        all.push(Resource::Nft(Object::Chain(apart)));
        for e in [
            element(Table::Inet, "bridges", name(), None),
            element(Table::Inet, "forward_in", name(), enter),
        ] {
            all.push(Resource::Nft(Object::Element(e)));
        }
    }
    all
}

/// The alias by which a network's bridge is known as wharf's.
pub fn bridge_alias(net: &NetworkSpec) -> String {
    format!("wharf:network:{}", net.name)
}

/// The alias by which a container's cable is known as wharf's; with the owner if he speaks of attachments by names of
/// his own, and may ask for all of them without the store; with nothing in his place if somebody else made the namespace.
pub fn port_alias(container: &Container, attachment: &Attachment) -> String {
    let plain = format!("wharf:{}:{}", container.name, attachment.network);
    match (&container.client, container.netns.made_by_wharf) {
        (Some(_), _) => format!("{plain}:{}", container.owner),
        (None, false) => format!("{plain}:"),
        (None, true) => plain,
    }
}

/// The sysctl that lets the host's own 127.0.0.0/8 reach published ports on a network.
pub fn route_localnet(net: &NetworkSpec, on: bool) -> Resource {
    bridge_sysctl(net, "ipv4", "route_localnet", if on { "1" } else { "0" })
}

fn bridge_sysctl(net: &NetworkSpec, family: &str, name: &str, value: &str) -> Resource {
    Resource::Sysctl {
        netns: Netns::Host,
        key: format!("net/{family}/conf/{}/{name}", net.bridge),
        value: value.to_owned(),
        link: Some(net.bridge.clone()),
    }
}

/// The host knows its containers' hardware addresses. In a subnet with more addresses than its table of neighbours takes
/// (`gc_thresh3`, 1024), it asks for no others: a container that sends to all of them would else fill it (RFC 6583).
fn no_questions(net: &NetworkSpec, subnet: IpNet) -> Option<Resource> {
    let family = match subnet {
        IpNet::V4(subnet) if subnet.prefix_len() >= 24 => return None,
        IpNet::V4(_) => "ipv4",
        IpNet::V6(_) => "ipv6",
    };
    Some(Resource::Sysctl {
        netns: Netns::Host,
        key: format!("net/{family}/neigh/{}/mcast_solicit", net.bridge),
        value: "0".to_owned(),
        link: Some(net.bridge.clone()),
    })
}

/// Before the bridge is up: it believes no router, and has no IPv6 where the network has none.
fn bridge_sysctls(net: &NetworkSpec) -> Vec<Resource> {
    let mut all = vec![
        bridge_sysctl(net, "ipv4", "accept_redirects", "0"),
        bridge_sysctl(net, "ipv4", "send_redirects", "0"),
    ];
    let mut quiet: Vec<Resource> = net
        .subnets
        .iter()
        .filter_map(|s| no_questions(net, s.subnet))
        .collect();
    // Of several subnets of one family the first is enough.
    quiet.dedup();
    all.extend(quiet);
    if !net.internal && net.subnet(Family::V4).is_some() {
        // The host's default for new links may be off.
        all.push(bridge_sysctl(net, "ipv4", "forwarding", "1"));
    }
    for (name, value) in backstop::bridge_settings(net) {
        all.push(bridge_sysctl(net, "ipv4", name, value));
    }
    if net.has_v6() {
        for (name, value) in [
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("accept_redirects", "0"),
            ("accept_dad", "0"),
            // No link-local address: nobody needs it, and it comes only when the first port is up.
            ("addr_gen_mode", "1"),
            // The host's default for new links may be to have none. Last: the bridge may be up, without IPv6 so far.
            ("disable_ipv6", "0"),
        ] {
            all.push(bridge_sysctl(net, "ipv6", name, value));
        }
    } else if net.mtu >= IPV6_MIN_MTU {
        all.push(bridge_sysctl(net, "ipv6", "disable_ipv6", "1"));
    }
    all
}

fn element(table: Table, set: &str, key: Vec<Field>, data: Option<Data>) -> Element {
    Element {
        table,
        set: set.to_owned(),
        key,
        data,
    }
}

fn by_family<'a>(family: Family, v4: &'a str, v6: &'a str) -> &'a str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn network_elements(net: &NetworkSpec) -> Vec<Element> {
    let name = || Field::Name(net.bridge.clone());
    let jump = |chain: String| Some(Data::Verdict(Verdict::Jump(chain)));
    let goto = |chain: String| Some(Data::Verdict(Verdict::Goto(chain)));
    let mut all = vec![element(Table::Inet, "bridges", vec![name()], None)];
    // Where containers choose their own addresses there is nothing to compare with.
    if !net.subnets.is_empty() {
        let raw = goto(rules::chain_name(net, "raw"));
        all.push(element(Table::Inet, "raw_in", vec![name()], raw));
    }
    all.extend([
        element(
            Table::Inet,
            "seen_by",
            vec![name()],
            goto(rules::chain_name(net, "seen")),
        ),
        element(
            Table::Inet,
            "forward_in",
            vec![name()],
            goto(rules::chain_name(net, "in")),
        ),
        element(
            Table::Inet,
            "nat_in",
            vec![name()],
            goto(rules::chain_name(net, "nat")),
        ),
    ]);
    if net.internal {
        all.push(element(
            Table::Inet,
            "forward_out",
            vec![name()],
            jump(rules::chain_name(net, "out")),
        ));
    }
    if rules::narrows_host_access(net) {
        all.push(element(
            Table::Inet,
            "host_in",
            vec![name()],
            jump(rules::chain_name(net, "host")),
        ));
    }
    if net.settings.isolation == Isolation::Open {
        all.push(element(Table::Inet, "open", vec![name()], None));
    }
    for subnet in &net.subnets {
        let family = subnet.family();
        all.push(element(
            Table::Inet,
            by_family(family, "inside4", "inside6"),
            vec![Field::Net(subnet.subnet)],
            None,
        ));
        if rules::is_direct(net, family) {
            all.push(element(
                Table::Inet,
                by_family(family, "direct_nets4", "direct_nets6"),
                vec![Field::Net(subnet.subnet)],
                None,
            ));
        }
        if net.has_gateway_address(family) {
            all.extend(name_server(net, subnet.gateway));
        }
        let translated = matches!(
            net.settings.gateway_mode(family),
            GatewayMode::Nat | GatewayMode::NatUnprotected
        );
        if translated && net.masquerade && !net.internal {
            let (set, data) = match net.settings.snat(family) {
                Some(addr) => (
                    by_family(family, "snat4", "snat6"),
                    Some(Data::Fields(vec![Field::Addr(addr)])),
                ),
                None => (by_family(family, "masquerade4", "masquerade6"), None),
            };
            all.push(element(
                Table::Inet,
                set,
                vec![Field::Net(subnet.subnet)],
                data,
            ));
        }
    }
    all
}

/// Questions to port 53 of a gateway go to where the name server is.
fn name_server(net: &NetworkSpec, gateway: IpAddr) -> Vec<Element> {
    let single = |port| PortRange::new(port, port);
    let (Some(asked), Some(served)) = (single(53), net.dns_port.and_then(single)) else {
        return Vec::new();
    };
    let set = by_family(Family::of(gateway), "publish4_host", "publish6_host");
    let to = |protocol| {
        let key = vec![
            Field::Addr(gateway),
            Field::Proto(protocol),
            Field::Ports(asked),
        ];
        let data = Data::Fields(vec![Field::Addr(gateway), Field::Ports(served)]);
        element(Table::Inet, set, key, Some(data))
    };
    [Protocol::Udp, Protocol::Tcp].map(to).to_vec()
}

/// The elements that publish `mapping` at `addr`, a container's address on `net`; empty if the mapping does
/// not serve the address's family, or if the network is internal.
///
/// A range that keeps its numbers is one element; one that shifts them is an element per port, since nftables
/// translates to one port per element.
pub fn ports(net: &NetworkSpec, mapping: &PortMapping, addr: IpAddr) -> Vec<Resource> {
    let family = Family::of(addr);
    let mapping = bind(net, mapping);
    if net.internal || !mapping.serves(family) {
        return Vec::new();
    }
    let mode = net.settings.gateway_mode(family);
    let direct = mode == GatewayMode::Routed || !net.settings.trusted_interfaces.is_empty();
    let mut all = Vec::new();
    if direct {
        let key = vec![
            Field::Addr(addr),
            Field::Proto(mapping.protocol),
            Field::Ports(mapping.container),
        ];
        all.push(element(
            Table::Inet,
            by_family(family, "direct4", "direct6"),
            key,
            None,
        ));
    }
    if mode != GatewayMode::Routed {
        all.extend(publish_elements(&mapping, family, addr));
        all.extend(outward::elements(&mapping, family, addr));
    }
    all.into_iter()
        .map(|e| Resource::Nft(Object::Element(e)))
        .collect()
}

/// A mapping without host address is bound to the network's host address, if the network has one.
pub fn bind(net: &NetworkSpec, mapping: &PortMapping) -> PortMapping {
    let host_ip = mapping
        .host_ip
        .or_else(|| net.settings.host_binding.map(IpAddr::V4));
    PortMapping {
        host_ip,
        ..*mapping
    }
}

fn single(port: u16) -> PortRange {
    PortRange::new(port, port).expect("taken from a range, which holds no 0")
}

fn publish_elements(mapping: &PortMapping, family: Family, addr: IpAddr) -> Vec<Element> {
    let key = |ports| {
        let mut key: Vec<Field> = mapping.bound_to().map(Field::Addr).into_iter().collect();
        key.extend([Field::Proto(mapping.protocol), Field::Ports(ports)]);
        key
    };
    let bound = mapping.bound_to().is_some();
    if mapping.is_identity() && !mapping.host.is_single() {
        let set = match bound {
            true => by_family(family, "range4_host", "range6_host"),
            false => by_family(family, "range4", "range6"),
        };
        return vec![element(
            Table::Inet,
            set,
            key(mapping.host),
            Some(Data::Fields(vec![Field::Addr(addr)])),
        )];
    }
    let set = match bound {
        true => by_family(family, "publish4_host", "publish6_host"),
        false => by_family(family, "publish4", "publish6"),
    };
    (mapping.host.first()..=mapping.host.last())
        .zip(mapping.container.first()..=mapping.container.last())
        .map(|(host, inside)| {
            let data = Data::Fields(vec![Field::Addr(addr), Field::Ports(single(inside))]);
            element(Table::Inet, set, key(single(host)), Some(data))
        })
        .collect()
}

/// The loopback interface of a namespace wharf made, up.
pub fn loopback(netns: &Path) -> Resource {
    Resource::Up {
        netns: Netns::Path(netns.to_owned()),
        link: crate::name::IfName::loopback(),
    }
}

/// Everything of a container: its namespace if wharf made it, its attachments, its published ports. In the
/// order of making, with like next to like, so that one message or transaction serves many.
///
/// `network` answers for the networks; an attachment to one it does not know is passed over.
pub fn container<'a>(
    c: &Container,
    network: impl Fn(&crate::name::NetworkName) -> Option<&'a NetworkSpec>,
) -> Vec<Resource> {
    let mut all = Vec::new();
    if c.netns.made_by_wharf {
        all.push(Resource::Netns(c.netns.path.clone()));
    }
    all.push(loopback(&c.netns.path));
    let carriers = port_carriers(c, &network);
    for (_, net, addr) in &carriers {
        all.extend(
            c.ports
                .iter()
                .flat_map(|mapping| ports(net, mapping, *addr)),
        );
    }
    for a in &c.attachments {
        if let Some(net) = network(&a.network) {
            let hairpin = net.settings.hairpin
                || !c.ports.is_empty()
                    && carriers
                        .iter()
                        .any(|(carrier, ..)| carrier.network == a.network);
            all.extend(attachment(net, c, a, hairpin));
        }
    }
    all.sort_by_key(rank);
    all
}

/// By which attachment, on which network and at which address a container's ports of each family are served.
pub fn port_carriers<'a, 'c>(
    c: &'c Container,
    network: impl Fn(&crate::name::NetworkName) -> Option<&'a NetworkSpec>,
) -> Vec<(&'c Attachment, &'a NetworkSpec, IpAddr)> {
    let closed = |name: &crate::name::NetworkName| {
        network(name).is_none_or(|n| n.internal || !n.is_managed())
    };
    let carrier = |family| {
        let a = c.port_carrier(family, closed)?;
        Some((a, network(&a.network)?, a.address(family)?.addr()))
    };
    Family::BOTH.into_iter().filter_map(carrier).collect()
}

/// A container's published ports as the host translates them in each family: bound to the address that the network binds
/// them to; none where the network hands packets on untranslated.
pub fn published<'a>(
    c: &Container,
    network: impl Fn(&crate::name::NetworkName) -> Option<&'a NetworkSpec>,
) -> Vec<(Family, PortMapping)> {
    let carriers = port_carriers(c, network);
    let carried = carriers.into_iter().flat_map(|(_, net, addr)| {
        let family = Family::of(addr);
        let translates = net.settings.gateway_mode(family) != GatewayMode::Routed;
        let bound = c.ports.iter().map(|mapping| bind(net, mapping));
        let served = bound.filter(move |m| translates && m.serves(family));
        served.map(move |m| (family, m))
    });
    carried.collect()
}

/// A container's published ports that answer untranslated, at its own address: where its network hands packets on as they
/// are.
pub fn direct<'a>(
    c: &Container,
    network: impl Fn(&crate::name::NetworkName) -> Option<&'a NetworkSpec>,
) -> Vec<(PortMapping, IpAddr, &'a NetworkSpec)> {
    let carriers = port_carriers(c, network).into_iter();
    let routed = carriers.filter(|(_, net, addr)| {
        net.settings.gateway_mode(Family::of(*addr)) == GatewayMode::Routed
    });
    let ports = routed.flat_map(|(_, net, addr)| {
        let bound = c.ports.iter().map(|mapping| bind(net, mapping));
        let served = bound.filter(move |m| m.serves(Family::of(addr)));
        served.map(move |m| (m, addr, net))
    });
    ports.collect()
}

/// Those of `ports` that would answer nobody, as their networks bind them: no network carries the container's ports in
/// their family.
pub fn unserved<'a>(
    c: &Container,
    ports: &[PortMapping],
    network: impl Fn(&crate::name::NetworkName) -> Option<&'a NetworkSpec>,
) -> Vec<PortMapping> {
    let carriers = port_carriers(c, network);
    let bound = |mapping: &PortMapping| match carriers.first() {
        Some((_, net, _)) => bind(net, mapping),
        None => *mapping,
    };
    let served = |mapping: &&PortMapping| {
        let mut all = carriers.iter();
        all.any(|(_, net, addr)| bind(net, mapping).serves(Family::of(*addr)))
    };
    let lost = ports.iter().filter(|mapping| !served(mapping));
    lost.map(bound).collect()
}

/// The order in which kinds of resources are made. The sort by it is stable: within a kind the order stays.
pub fn rank(resource: &Resource) -> u8 {
    match resource {
        Resource::Netns(_) => 0,
        Resource::Nft(_) => 1,
        Resource::Sysctl {
            netns: Netns::Host, ..
        } => 2,
        Resource::Link(_) => 3,
        Resource::Port(_) => 4,
        Resource::Fdb { .. } => 5,
        Resource::Neigh { .. } | Resource::Shaper { .. } | Resource::Detour { .. } => 6,
        // Inside, sysctls are files; behind them messages follow messages.
        Resource::Sysctl { .. } => 7,
        _ => 8,
    }
}
