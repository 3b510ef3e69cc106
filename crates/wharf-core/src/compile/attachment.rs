//! What a container's place on one network is on the host and in the container.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, Mac, link_local};
use crate::attach::{Attachment, Container};
use crate::model::{
    Hop, Link, LinkKind, Netns, PORT_GROUP, PORT_GROUP_APART, PolicyRule, Port, Resource,
    RouteMore, RuleAction,
};
use crate::network::{Driver, IPV6_MIN_MTU, NetworkSpec, Subnet};
use crate::nft::{Element, Field, Object, Table};

use super::{by_family, element, port_alias};

/// The priority of rules for an attachment's own table: before the main table, behind what others ask for.
const OWN_TABLE_RULE: u32 = 32_700;

/// What of a container's attachment the host and the container hold, published ports apart.
///
/// The order is that of making: what lets packets pass or keeps them out comes before the cable is up.
pub fn attachment(
    net: &NetworkSpec,
    container: &Container,
    a: &Attachment,
    hairpin: bool,
) -> Vec<Resource> {
    let inside = Netns::Path(container.netns.path.clone());
    if net.adopted {
        return a.extras.resources(&inside, a, net.mtu);
    }
    let mut all = match net.driver {
        Driver::Bridge => guarded_port(net, container, a, hairpin),
        Driver::Unmanaged => vec![
            cable(net, &inside, a, 0),
            Resource::Port(Port {
                link: a.host_interface.clone(),
                locked: false,
                learning: true,
                hairpin: false,
                isolated: false,
                vlan: net.settings.vlan,
                ipv6: net.mtu >= IPV6_MIN_MTU,
                alias: port_alias(container, a),
            }),
        ],
        Driver::Macvlan(mode) => vec![Resource::Link(Link {
            netns: inside.clone(),
            name: a.interface.clone(),
            kind: LinkKind::Macvlan {
                parent: net.bridge.clone(),
                mode,
            },
            mac: Some(a.mac),
            mtu: net.settings.mtu,
            master: None,
            group: 0,
            up: false,
        })],
    };
    all.extend(inside_sysctls(net, &inside, a));
    for addr in &a.addresses {
        all.push(Resource::Addr {
            netns: inside.clone(),
            link: a.interface.clone(),
            addr: *addr,
        });
    }
    all.extend(a.extras.resources(&inside, a, net.mtu));
    if !net.settings.interfaces_down {
        all.push(Resource::Up {
            netns: inside.clone(),
            link: a.interface.clone(),
        });
    }
    all.extend(default_routes(net, &inside, a));
    all.extend(net.routes.iter().map(|route| Resource::Route {
        netns: inside.clone(),
        dst: route.destination,
        hop: route.hop,
        link: a.interface.clone(),
        metric: route.metric,
        more: RouteMore {
            any_link: leads_elsewhere(net, route.hop),
            ..RouteMore::default()
        },
    }));
    all.extend(own_routes(&inside, a));
    all.extend(own_table(&inside, a));
    all
}

/// Whether a gateway is not on this network: the container may have another way to it.
fn leads_elsewhere(net: &NetworkSpec, hop: Hop) -> bool {
    let Hop::Via(gateway) = hop else { return false };
    !net.subnets.is_empty() && !net.subnets.iter().any(|s| s.subnet.contains(&gateway))
}

/// A port of wharf's own bridge: the guard's elements, the cable, what is known of who is behind it.
fn guarded_port(
    net: &NetworkSpec,
    container: &Container,
    a: &Attachment,
    hairpin: bool,
) -> Vec<Resource> {
    let mut all: Vec<Resource> = guard_elements(a)
        .into_iter()
        .map(|e| Resource::Nft(Object::Element(e)))
        .collect();
    let inside = Netns::Path(container.netns.path.clone());
    all.push(cable(net, &inside, a, port_group(net)));
    all.push(port(net, container, a, hairpin));
    all.push(Resource::Fdb {
        link: a.host_interface.clone(),
        mac: a.mac,
    });
    for addr in &a.addresses {
        all.push(Resource::Neigh {
            link: net.bridge.clone(),
            addr: addr.addr(),
            mac: a.mac,
        });
    }
    all
}

/// The guard knows a port's addresses; where wharf gives none, it knows none, and leaves the port alone.
fn port_group(net: &NetworkSpec) -> u32 {
    match (net.subnets.is_empty(), net.icc) {
        (true, _) => 0,
        (false, true) => PORT_GROUP,
        (false, false) => PORT_GROUP_APART,
    }
}

/// The cable from a bridge to a container.
fn cable(net: &NetworkSpec, inside: &Netns, a: &Attachment, group: u32) -> Resource {
    Resource::Link(Link {
        netns: Netns::Host,
        name: a.host_interface.clone(),
        kind: LinkKind::Veth {
            peer: a.interface.clone(),
            peer_netns: inside.clone(),
            peer_mac: Some(a.mac),
        },
        mac: None,
        mtu: Some(net.mtu),
        master: Some(net.bridge.clone()),
        group,
        up: false,
    })
}

/// The settings of an attachment's bridge port. A container with published ports may reach itself by them:
/// with `bridge-nf-call-iptables` on, the translated frame goes back to the port it came from.
///
/// Where containers may not talk to each other the ports are isolated, which holds without rules. Not where the translated
/// frames pass from port to port: there the rules alone tell them from others.
pub fn port(net: &NetworkSpec, container: &Container, a: &Attachment, hairpin: bool) -> Resource {
    Resource::Port(Port {
        link: a.host_interface.clone(),
        locked: true,
        learning: false,
        hairpin,
        isolated: !(net.icc || hairpin && net.bridged_as_routed),
        vlan: None,
        ipv6: net.mtu >= IPV6_MIN_MTU,
        alias: port_alias(container, a),
    })
}

/// The default routes an attachment carries.
pub fn default_routes(net: &NetworkSpec, inside: &Netns, a: &Attachment) -> Vec<Resource> {
    let route = |family: &Family| {
        // With several subnets, the gateway is that of the container's own.
        let own = |s: &&Subnet| a.addresses.iter().any(|x| s.subnet.contains(&x.addr()));
        let mut subnets = net.subnets.iter().filter(|s| s.family() == *family);
        let via = subnets.find(own)?.gateway;
        let dst = IpNet::new(family.any(), 0).expect("0 is a prefix length");
        Some(Resource::Route {
            netns: inside.clone(),
            dst,
            hop: Hop::Via(via),
            link: a.interface.clone(),
            metric: net.settings.metric,
            more: RouteMore::default(),
        })
    };
    a.default_routes.iter().filter_map(route).collect()
}

/// The routes that were asked for beside the default route.
fn own_routes<'a>(inside: &'a Netns, a: &'a Attachment) -> impl Iterator<Item = Resource> + 'a {
    a.routes.iter().map(|route| Resource::Route {
        netns: inside.clone(),
        dst: route.dst,
        hop: route.via.into(),
        link: a.interface.clone(),
        metric: route.metric,
        more: route.more.clone(),
    })
}

/// Where the container's default route leads elsewhere, answers leave by the network that was asked: no other one takes
/// them with these addresses. What is not for the outside goes by the attachment's own subnets all the same.
fn own_table(inside: &Netns, a: &Attachment) -> Vec<Resource> {
    let Some(table) = a.own_table else {
        return Vec::new();
    };
    let route = |dst: IpNet, hop: Hop, more: &RouteMore| Resource::Route {
        netns: inside.clone(),
        dst,
        hop,
        link: a.interface.clone(),
        metric: None,
        more: RouteMore {
            table: Some(table),
            ..more.clone()
        },
    };
    let mut all = Vec::new();
    for default in a.routes.iter().filter(|r| r.is_usual_default()) {
        let family = Family::of_net(default.dst);
        let own = a.addresses.iter().filter(|x| Family::of_net(**x) == family);
        for addr in own.clone() {
            let subnet = route(addr.trunc(), Hop::Link, &RouteMore::default());
            if !all.contains(&subnet) {
                all.push(subnet);
            }
        }
        all.push(route(default.dst, default.via.into(), &default.more));
        all.extend(own.map(|addr| {
            Resource::Rule(PolicyRule {
                netns: inside.clone(),
                family,
                priority: OWN_TABLE_RULE,
                from: Some(addr.addr().into()),
                iif: None,
                mark: None,
                action: RuleAction::Lookup(table),
            })
        }));
    }
    all
}

/// Before the container's end is up: no router is believed, and no IPv6 where the network has none.
fn inside_sysctls(net: &NetworkSpec, inside: &Netns, a: &Attachment) -> Vec<Resource> {
    let own_addresses = net.subnets.is_empty() || !net.is_managed();
    let values: &[(&str, &str)] = if net.mtu < IPV6_MIN_MTU {
        &[]
    } else if own_addresses && !net.has_v6() {
        match net.subnets.is_empty() {
            true => &[],
            // Who numbers the containers does so alone.
            false => &[("autoconf", "0")],
        }
    } else if net.has_v6() {
        &[
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("accept_dad", "0"),
            ("router_solicitations", "0"),
        ]
    } else {
        &[("disable_ipv6", "1")]
    };
    let sysctl = |(name, value): &(&str, &str)| Resource::Sysctl {
        netns: inside.clone(),
        key: format!("net/ipv6/conf/{}/{name}", a.interface),
        value: (*value).to_owned(),
        link: Some(a.interface.clone()),
    };
    // What was asked for stands.
    let asked = |r: &Resource| match r {
        Resource::Sysctl { key, .. } => a.extras.sysctls.contains_key(key),
        _ => false,
    };
    let all = values.iter().map(sysctl).chain(tells(inside, a));
    all.filter(|r| !asked(r)).collect()
}

/// Who knows the address as another's hears of its new owner when the link is up: by gratuitous ARP and unsolicited
/// neighbour advertisements.
fn tells<'a>(inside: &'a Netns, a: &'a Attachment) -> impl Iterator<Item = Resource> + 'a {
    let families = Family::BOTH.into_iter();
    let numbered = families.filter(|family| a.announce && a.address(*family).is_some());
    numbered.map(|family| {
        let protocol = by_family(family, "ipv4", "ipv6");
        let name = by_family(family, "arp_notify", "ndisc_notify");
        Resource::Sysctl {
            netns: inside.clone(),
            key: format!("net/{protocol}/conf/{}/{name}", a.interface),
            value: "1".to_owned(),
            link: Some(a.interface.clone()),
        }
    })
}

/// Which hardware and network addresses belong together, for the guard.
fn guard_elements(a: &Attachment) -> Vec<Element> {
    let pair = |addr: IpAddr, mac: Mac| {
        let set = by_family(Family::of(addr), "guard4", "guard6");
        element(
            Table::Bridge,
            set,
            vec![Field::Mac(mac), Field::Addr(addr)],
            None,
        )
    };
    let mut all: Vec<Element> = a
        .addresses
        .iter()
        .map(|addr| pair(addr.addr(), a.mac))
        .collect();
    if a.address(Family::V6).is_some() {
        all.push(pair(link_local(a.mac).into(), a.mac));
    }
    all
}
