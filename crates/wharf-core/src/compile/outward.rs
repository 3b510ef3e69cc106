//! Sources of what goes out. A flow whose source port becomes a published host port would get what its peer sends to that
//! port afterwards, in place of whom it is published for: connection tracking is asked before the published ports are.
//!
//! No translation can say "any port but these", so there are two steps. First, who sends from the number of a published
//! port gets another ([`NEW_PORTS`]), unless it is his own. Then what came of it is looked at: the new port is a random
//! one and may be published, and where a source port is in use towards the same peer the kernel takes any other
//! (`nf_nat_l4proto_unique_tuple`, `net/netfilter/nf_nat_core.c`). Such a packet is dropped before its connection is
//! kept, and the flow's next packet draws again.

use std::net::IpAddr;

use super::base::{NAT_SRC, chain, jump, set};
use super::{by_family, element, single};
use crate::addr::Family;
use crate::nft::build::{hidden, is, rule, starts, within};
use crate::nft::{
    Action, Chain, Element, Field, FieldType, Hook, Key, Match, Rule, Set, Table, Test, Value,
};
use crate::publish::{PortMapping, PortRange, Protocol};

/// From which ports one is drawn. Ranges that are published (media, passive FTP) mostly begin at 10000; of what is
/// published, this range is to hold little.
const NEW_PORTS: (u16, u16) = (1024, 9999);

/// After the translation of sources.
const DONE: i32 = NAT_SRC + 1;

/// How the sets of a family are called.
struct Names {
    /// Ports published at all addresses of the host.
    taken: &'static str,
    taken_range: &'static str,
    /// Ports published at one address, whichever; and with the address.
    bound: &'static str,
    held: &'static str,
    /// Containers with the ports they publish at all addresses under the same number.
    own: &'static str,
    own_range: &'static str,
    source: Key,
    original: Key,
}

const V4: Names = Names {
    taken: "taken4",
    taken_range: "taken4_range",
    bound: "taken4_bound",
    held: "held4",
    own: "own4",
    own_range: "own4_range",
    source: Key::IpSaddr,
    original: Key::CtOriginalIpSaddr,
};

const V6: Names = Names {
    taken: "taken6",
    taken_range: "taken6_range",
    bound: "taken6_bound",
    held: "held6",
    own: "own6",
    own_range: "own6_range",
    source: Key::Ip6Saddr,
    original: Key::CtOriginalIp6Saddr,
};

fn names(family: Family) -> &'static Names {
    match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    }
}

pub(super) fn sets(family: Family) -> [Set; 6] {
    use FieldType::{Port, Proto};
    let (n, addr) = (names(family), FieldType::addr(family));
    let inet = |name, key: &[FieldType], interval| set(Table::Inet, name, key, &[], interval);
    [
        inet(n.taken, &[Proto, Port], false),
        inet(n.taken_range, &[Proto, Port], true),
        inet(n.bound, &[Proto, Port], false),
        inet(n.held, &[addr, Proto, Port], true),
        inet(n.own, &[addr, Proto, Port], false),
        inet(n.own_range, &[addr, Proto, Port], true),
    ]
}

/// In the chain of translations, before those that keep the port.
pub(super) fn move_on() -> Vec<Rule> {
    Family::BOTH
        .into_iter()
        .flat_map(|family| {
            let n = names(family);
            let of = move |set| rule([of(family), sent_from(set)], jump("move_on"));
            [n.taken, n.taken_range, n.bound].map(of)
        })
        .collect()
}

/// What is for a published port, whoever's address it is published at.
pub(super) fn published() -> impl Iterator<Item = [Match; 2]> {
    Family::BOTH.into_iter().flat_map(|family| {
        let n = names(family);
        let asked = |set| within(&[Key::L4Proto, Key::ThDport], set);
        [n.taken, n.taken_range, n.bound].map(|set| [of(family), asked(set)])
    })
}

/// The chains: who calls comes after who is called.
pub(super) fn chains() -> Vec<Chain> {
    let outside = Match {
        keys: vec![Key::OifName],
        test: Test::NotIn("bridges"),
    };
    let from_network = within(&[Key::IifName], "bridges");
    vec![
        chain(Table::Inet, "move_on", None, draw()),
        chain(Table::Inet, "drawn", None, drawn()),
        chain(
            Table::Inet,
            "outward",
            Some((false, Hook::Postrouting, DONE)),
            vec![rule(
                [starts(), hidden(), from_network, outside],
                jump("drawn"),
            )],
        ),
    ]
}

fn of(family: Family) -> Match {
    is(Key::NfProto, Value::Family(family))
}

fn sent_from(set: &'static str) -> Match {
    within(&[Key::L4Proto, Key::ThSport], set)
}

/// Who publishes the port himself goes on.
fn own(source: fn(&Names) -> Key) -> Vec<Rule> {
    let of = |n: &'static Names| {
        [n.own, n.own_range].map(|set| {
            let keys = [source(n), Key::L4Proto, Key::ThSport];
            rule([within(&keys, set)], Action::Return)
        })
    };
    [&V4, &V6].into_iter().flat_map(of).collect()
}

fn draw() -> Vec<Rule> {
    let ports = PortRange::new(NEW_PORTS.0, NEW_PORTS.1).expect("a constant range");
    let mut rules = own(|n| n.source);
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let l4 = || is(Key::L4Proto, Value::U8(protocol.number()));
        for family in Family::BOTH {
            let source = names(family).source;
            let snat = by_family(family, "snat4", "snat6");
            let masquerade = by_family(family, "masquerade4", "masquerade6");
            rules.extend([
                rule(
                    [l4()],
                    Action::SnatMapDraw(family, vec![source], snat, ports),
                ),
                rule(
                    [l4(), within(&[source], masquerade)],
                    Action::MasqueradeDraw(ports),
                ),
            ]);
        }
    }
    rules
}

fn drawn() -> Vec<Rule> {
    let mut rules = own(|n| n.original);
    for family in Family::BOTH {
        let n = names(family);
        for set in [n.taken, n.taken_range] {
            rules.push(rule([of(family), sent_from(set)], Action::Drop));
        }
        let keys = [n.source, Key::L4Proto, Key::ThSport];
        rules.push(rule([within(&keys, n.held)], Action::Drop));
    }
    rules
}

/// The elements that keep others from the host ports of `mapping`, which is served at `addr`. On the host's loopback nobody
/// from outside is met.
pub(super) fn elements(mapping: &PortMapping, family: Family, addr: IpAddr) -> Vec<Element> {
    let n = names(family);
    let key = |addr: Option<IpAddr>, ports| {
        let mut key: Vec<Field> = addr.map(Field::Addr).into_iter().collect();
        key.extend([Field::Proto(mapping.protocol), Field::Ports(ports)]);
        key
    };
    let of = |set: &str, key| element(Table::Inet, set, key, None);
    let ports = mapping.host;
    let pick = |one, range| if ports.is_single() { one } else { range };
    match mapping.bound_to() {
        Some(host) if host.is_loopback() => Vec::new(),
        Some(host) => {
            let mut all = shared(mapping);
            all.push(of(n.held, key(Some(host), ports)));
            all
        }
        None => {
            let mut all = vec![of(pick(n.taken, n.taken_range), key(None, ports))];
            if mapping.is_identity() {
                all.push(of(pick(n.own, n.own_range), key(Some(addr), ports)));
            }
            all
        }
    }
}

/// Those elements of it that others may have as well: they may publish some of these ports at other addresses of the host.
/// One per port, since ranges in one set must not overlap.
pub fn shared(mapping: &PortMapping) -> Vec<Element> {
    let Some(host) = mapping.bound_to().filter(|host| !host.is_loopback()) else {
        return Vec::new();
    };
    let set = names(Family::of(host)).bound;
    let of = |port| {
        let key = vec![Field::Proto(mapping.protocol), Field::Ports(single(port))];
        element(Table::Inet, set, key, None)
    };
    (mapping.host.first()..=mapping.host.last())
        .map(of)
        .collect()
}

/// Whether others may have the same element, so that it must not go with one of them.
pub fn is_shared(e: &Element) -> bool {
    [V4.bound, V6.bound].contains(&e.set.as_str())
}
