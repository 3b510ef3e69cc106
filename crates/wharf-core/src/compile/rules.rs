//! The chains of one network.

use ipnet::IpNet;

use super::base::loopback;
use crate::addr::Family;
use crate::model::PORT_GROUP_APART;
use crate::network::NetworkSpec;
use crate::nft::build::{daddr, is, not, rule, saddr, translated, within};
use crate::nft::{Action, AddrType, Base, Chain, Hook, Key, Match, Rule, Table, Test, Value};
use crate::options::{GatewayMode, HostAccess, Isolation};

/// The bit of the packet mark that says "came by a published port", for frames that br_netfilter sends
/// from port to port of one bridge.
pub const MARK_PUBLISHED: u32 = 1 << 30;

/// The name of a network's chain.
pub fn chain_name(net: &NetworkSpec, part: &str) -> String {
    format!("net-{}-{part}", net.name)
}

/// Whether its containers may not use all of the host's services.
pub fn narrows_host_access(net: &NetworkSpec) -> bool {
    net.settings.host_access != HostAccess::All || isolated(net).next().is_some()
}

/// The families in which the bridge has no address, so that nobody meets the host there. The host would still take a
/// frame to the bridge itself for any of its addresses.
fn isolated(net: &NetworkSpec) -> impl Iterator<Item = Family> {
    let families = net.subnets.iter().map(|s| s.family());
    families.filter(|f| net.settings.gateway_mode(*f) == GatewayMode::Isolated)
}

/// A network's chains; those that are called by map elements, and base chains of their own where the
/// network needs what others do not pay for.
pub fn network_chains(net: &NetworkSpec) -> Vec<Chain> {
    let chain = |part: &str, rules| Chain {
        table: Table::Inet,
        name: chain_name(net, part),
        base: None,
        rules,
    };
    let mut all = vec![
        chain("raw", raw(net)),
        chain("seen", seen(net)),
        chain("in", inward(net)),
        nat_chain(net),
    ];
    if net.internal {
        let own = not(Key::OifName, Value::Name(net.bridge.clone()));
        all.push(chain("out", vec![rule([own], Action::Reject)]));
    }
    if narrows_host_access(net) {
        all.push(chain("host", host(net)));
    }
    if !net.icc {
        all.extend(apart(net));
    }
    all
}

/// The chain for packets that leave by the network's bridge.
pub fn nat_chain(net: &NetworkSpec) -> Chain {
    Chain {
        table: Table::Inet,
        name: chain_name(net, "nat"),
        base: None,
        rules: nat(net),
    }
}

/// What may come to containers on another program's bridge: everything but what other networks start, and what the
/// containers start among themselves if they may not.
pub fn adopted_chain(net: &NetworkSpec) -> Chain {
    let own = is(Key::IifName, Value::Name(net.bridge.clone()));
    let among = if net.icc {
        Action::Accept
    } else {
        Action::Drop
    };
    Chain {
        table: Table::Inet,
        name: chain_name(net, "in"),
        base: None,
        rules: vec![
            rule([translated()], Action::Accept),
            rule([own], among),
            rule([within(&[Key::IifName], "bridges")], Action::Drop),
            rule([], Action::Accept),
        ],
    }
}

/// Only the network's own addresses come from its bridge, and nothing for the host's loopback addresses, also where
/// `route_localnet` would let it. IPv6 also uses link-local addresses and, before it has one, none (RFC 4291, 2.5.2 and
/// 2.5.6).
fn raw(net: &NetworkSpec) -> Vec<Rule> {
    // Without subnets nobody knows which addresses those are.
    if net.subnets.is_empty() {
        return Vec::new();
    }
    let early = ["fe80::/10", "::/128"].map(|s| s.parse().expect("a constant prefix"));
    let early = early.into_iter().filter(|_| net.has_v6());
    let own = net.subnets.iter().map(|s| s.subnet).chain(early);
    let mut rules: Vec<Rule> = own
        .map(|subnet| {
            let (key, family) = match subnet {
                IpNet::V4(_) => (Key::IpDaddr, Family::V4),
                IpNet::V6(_) => (Key::Ip6Daddr, Family::V6),
            };
            let on_wire = not(key, Value::Net(loopback(family)));
            rule([saddr(subnet), on_wire], Action::Accept)
        })
        .collect();
    rules.push(rule([], Action::Drop));
    rules
}

/// Where packets from the bridge may go beside answers and published ports: to the own network, to others that are as
/// open as this one, and out.
fn seen(net: &NetworkSpec) -> Vec<Rule> {
    let mark = || Action::Goto("mark_seen".to_owned());
    let mut rules = Vec::new();
    if net.icc {
        rules.extend(net.subnets.iter().map(|s| rule([daddr(s.subnet)], mark())));
    }
    if net.internal {
        return rules;
    }
    if net.settings.isolation == Isolation::Strict {
        for (key, set) in [(Key::IpDaddr, "inside4"), (Key::Ip6Daddr, "inside6")] {
            rules.push(rule([within(&[key], set)], Action::Return));
        }
    }
    rules.push(rule([], mark()));
    rules
}

/// Whether containers may be addressed directly from outside, all of them or those with published ports.
pub fn is_direct(net: &NetworkSpec, family: Family) -> bool {
    !net.internal
        && (!net.settings.trusted_interfaces.is_empty()
            || matches!(
                net.settings.gateway_mode(family),
                GatewayMode::Routed | GatewayMode::NatUnprotected
            ))
}

/// What may come to a container: answers passed before; what was published; its own network, if it may.
fn inward(net: &NetworkSpec) -> Vec<Rule> {
    let own = || is(Key::IifName, Value::Name(net.bridge.clone()));
    if net.internal {
        let last = if net.icc {
            Action::Accept
        } else {
            Action::Drop
        };
        return vec![rule([own()], last), rule([], Action::Drop)];
    }
    // The host's own packets are not forwarded; in IPv6 the kernel takes its addresses as a source from anywhere.
    let from_host = is(Key::FibSaddrType, Value::AddrType(AddrType::Local));
    let mut rules = vec![
        rule([from_host], Action::Drop),
        rule([translated()], Action::Accept),
    ];
    if net.icc {
        rules.push(rule([own()], Action::Accept));
    } else {
        rules.push(rule([own()], Action::Drop));
    }
    if net.settings.isolation == Isolation::Open {
        rules.push(rule([within(&[Key::IifName], "open")], Action::Accept));
    }
    for subnet in &net.subnets {
        rules.extend(direct(net, subnet.family()));
    }
    rules.push(rule([], Action::Drop));
    rules
}

/// Container addresses used directly, where the network's options open them. Other networks of wharf stay out.
fn direct(net: &NetworkSpec, family: Family) -> Vec<Rule> {
    let of_family = || is(Key::NfProto, Value::Family(family));
    let foreign = || Match {
        keys: vec![Key::IifName],
        test: Test::NotIn("bridges"),
    };
    let (daddr, set, icmp) = match family {
        Family::V4 => (Key::IpDaddr, "direct4", 1),
        Family::V6 => (Key::Ip6Daddr, "direct6", 58),
    };
    let published = || within(&[daddr, Key::L4Proto, Key::ThDport], set);
    match net.settings.gateway_mode(family) {
        GatewayMode::NatUnprotected => vec![rule([of_family(), foreign()], Action::Accept)],
        GatewayMode::Routed => vec![
            rule(
                [of_family(), is(Key::L4Proto, Value::U8(icmp)), foreign()],
                Action::Accept,
            ),
            rule([published(), foreign()], Action::Accept),
        ],
        GatewayMode::Nat | GatewayMode::Isolated => {
            let from = |name: &crate::name::IfName| {
                rule(
                    [is(Key::IifName, Value::Name(name.clone())), published()],
                    Action::Accept,
                )
            };
            net.settings.trusted_interfaces.iter().map(from).collect()
        }
    }
}

/// Sources of packets that leave by the network's bridge. Who comes in by a published port and sits on the same network, on
/// another that the container is on too, or on the host's loopback, would get the answer past the host: he appears as the
/// gateway. Everybody else keeps his address, unless the network is set to have nobody keep it.
fn nat(net: &NetworkSpec) -> Vec<Rule> {
    let mut rules = Vec::new();
    for subnet in &net.subnets {
        let whose = match net.settings.masquerade_published {
            true => is(Key::NfProto, Value::Family(subnet.family())),
            // Another program's network is not among wharf's.
            false if net.adopted => saddr(subnet.subnet),
            false => match subnet.family() {
                Family::V4 => within(&[Key::IpSaddr], "inside4"),
                Family::V6 => within(&[Key::Ip6Saddr], "inside6"),
            },
        };
        rules.push(rule([translated(), whose], Action::Masquerade));
        if subnet.family() == Family::V4 {
            let loopback = saddr("127.0.0.0/8".parse().expect("a constant prefix"));
            rules.push(rule([loopback], Action::Masquerade));
        }
    }
    rules
}

/// What containers may ask of the host itself.
fn host(net: &NetworkSpec) -> Vec<Rule> {
    let l4 = |proto| is(Key::L4Proto, Value::U8(proto));
    let of = |family| is(Key::NfProto, Value::Family(family));
    let mut rules: Vec<Rule> = isolated(net)
        .map(|family| rule([of(family)], Action::Drop))
        .collect();
    if net.settings.host_access == HostAccess::All {
        return rules;
    }
    rules.extend([
        rule([l4(1)], Action::Accept),
        rule([l4(58)], Action::Accept),
    ]);
    if net.settings.host_access == HostAccess::Dns {
        for proto in [6, 17] {
            rules.push(rule(
                [l4(proto), is(Key::ThDport, Value::U16(53))],
                Action::Accept,
            ));
        }
    }
    rules.push(rule([], Action::Drop));
    rules
}

/// Containers that may not talk to each other: frames do not pass from port to port. With
/// `bridge-nf-call-iptables` on, flows to published ports do pass there, already translated; they carry a mark.
fn apart(net: &NetworkSpec) -> [Chain; 2] {
    let own = is(Key::IifName, Value::Name(net.bridge.clone()));
    let port = is(Key::IifGroup, Value::U32(PORT_GROUP_APART));
    let unmarked = Match {
        keys: vec![Key::Mark],
        test: Test::NoBit(MARK_PUBLISHED),
    };
    [
        Chain {
            table: Table::Inet,
            name: chain_name(net, "mark"),
            base: Some(Base {
                nat: false,
                hook: Hook::Prerouting,
                priority: -95,
            }),
            rules: vec![rule([own, translated()], Action::MarkOr(MARK_PUBLISHED))],
        },
        Chain {
            table: Table::Bridge,
            name: chain_name(net, "apart"),
            base: Some(Base {
                nat: false,
                hook: Hook::Forward,
                priority: -250,
            }),
            rules: vec![rule([port, unmarked], Action::Drop)],
        },
    ]
}
