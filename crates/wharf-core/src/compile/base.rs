//! The rules that are there once, whatever the networks: sets and maps, and the base chains that look
//! things up in them.

use ipnet::IpNet;

use super::backstop::MARK_SEEN;
use crate::addr::Family;
use crate::model::{BRIDGE_GROUP, Resource};
use crate::name::IfName;
use crate::nft::build::{answers, daddr, is, not, rule, saddr, stray, translated, within};
use crate::nft::{
    Action, AddrType, Base, Chain, Element, Field, FieldType, Hook, Key, Match, Object, Rule, Set,
    Table, Test, Value,
};

/// Elements of sets whose size the kernel must know to use a plain hash table.
pub(crate) const MOST: u32 = 65536;
/// `NF_IP_PRI_RAW`: before connection tracking.
const RAW: i32 = -300;
/// `NF_IP_PRI_NAT_DST`.
const NAT_DST: i32 = -100;
/// After the translation of destinations, the last thing before routing.
const SEEN: i32 = -90;
/// Before the translation of destinations: the host's own packets are routed anew by it.
const SEEN_HOST: i32 = -101;
/// `NF_IP_PRI_NAT_SRC`.
pub(super) const NAT_SRC: i32 = 100;

/// Both tables with everything that does not belong to one network.
pub fn base() -> Vec<Resource> {
    let mut all: Vec<Resource> = Table::ALL
        .into_iter()
        .map(|t| Resource::Nft(Object::Table(t)))
        .collect();
    all.extend(sets().into_iter().map(|s| Resource::Nft(Object::Set(s))));
    all.extend(
        inet_chains()
            .into_iter()
            .chain(super::guard::chains())
            .map(|c| Resource::Nft(Object::Chain(c))),
    );
    all
}

pub(super) fn set(
    table: Table,
    name: &str,
    key: &[FieldType],
    data: &[FieldType],
    interval: bool,
) -> Set {
    let hashed = !interval && key != [FieldType::IfName];
    Set {
        table,
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
        interval,
        size: (hashed && table == Table::Bridge).then_some(MOST),
    }
}

fn sets() -> Vec<Set> {
    use FieldType::{Ether, IfName, Port, Proto, Verdict};
    let inet = |name: &str, key: &[FieldType], data: &[FieldType], interval| {
        set(Table::Inet, name, key, data, interval)
    };
    let mut all = vec![
        inet("bridges", &[IfName], &[], false),
        inet("open", &[IfName], &[], false),
        inet("host_links", &[IfName], &[], false),
        inet("raw_in", &[IfName], &[Verdict], false),
        inet("forward_in", &[IfName], &[Verdict], false),
        inet("forward_out", &[IfName], &[Verdict], false),
        inet("host_in", &[IfName], &[Verdict], false),
        inet("nat_in", &[IfName], &[Verdict], false),
        inet("seen_by", &[IfName], &[Verdict], false),
    ];
    for (family, n) in [(Family::V4, 4), (Family::V6, 6)] {
        let addr = FieldType::addr(family);
        all.extend([
            inet(&format!("inside{n}"), &[addr], &[], true),
            inet(&format!("direct_nets{n}"), &[addr], &[], true),
            inet(&format!("masquerade{n}"), &[addr], &[], true),
            inet(&format!("snat{n}"), &[addr], &[addr], true),
            inet(&format!("publish{n}"), &[Proto, Port], &[addr, Port], false),
            inet(
                &format!("publish{n}_host"),
                &[addr, Proto, Port],
                &[addr, Port],
                false,
            ),
            inet(&format!("range{n}"), &[Proto, Port], &[addr], true),
            inet(
                &format!("range{n}_host"),
                &[addr, Proto, Port],
                &[addr],
                true,
            ),
            inet(&format!("direct{n}"), &[addr, Proto, Port], &[], true),
            set(
                Table::Bridge,
                &format!("guard{n}"),
                &[Ether, addr],
                &[],
                false,
            ),
        ]);
        all.extend(super::outward::sets(family));
    }
    all.extend(super::docker::sets());
    all
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().expect("a constant prefix")
}

pub(super) fn chain(
    table: Table,
    name: &str,
    base: Option<(bool, Hook, i32)>,
    rules: Vec<Rule>,
) -> Chain {
    let base = base.map(|(nat, hook, priority)| Base {
        nat,
        hook,
        priority,
    });
    Chain {
        table,
        name: name.to_owned(),
        base,
        rules,
    }
}

pub(super) fn jump(name: &str) -> Action {
    Action::Jump(name.to_owned())
}

pub(super) fn goto(name: &str) -> Action {
    Action::Goto(name.to_owned())
}

/// Chains that are called come before those that call them.
fn inet_chains() -> Vec<Chain> {
    let local = || is(Key::FibDaddrType, Value::AddrType(AddrType::Local));
    let outside = || Match {
        keys: vec![Key::IifName],
        test: Test::NotIn("bridges"),
    };
    let mut all = seen_chains();
    all.extend(super::outward::chains());
    all.push(chain(Table::Inet, "strays_to_many", None, strays_to_many()));
    all.push(chain(Table::Inet, "strays", None, strays()));
    all.extend(vec![
        publish(Family::V6),
        publish(Family::V4),
        chain(
            Table::Inet,
            "raw",
            Some((false, Hook::Prerouting, RAW)),
            raw_rules(),
        ),
        chain(
            Table::Inet,
            "publish_in",
            Some((true, Hook::Prerouting, NAT_DST)),
            vec![rule([local()], jump("publish"))],
        ),
        chain(
            Table::Inet,
            "publish_host",
            Some((true, Hook::Output, NAT_DST)),
            vec![
                // Nothing is translated to ::1, so that it is refused at once instead of left without answer.
                rule([daddr(net("::1/128"))], Action::Return),
                rule([local()], jump("publish")),
            ],
        ),
        chain(
            Table::Inet,
            "host",
            Some((false, Hook::Input, 0)),
            vec![
                rule([is(Key::Iif, Value::U32(1))], Action::Accept),
                rule([answers()], Action::Accept),
                rule([stray()], jump("strays")),
                rule([], Action::Vmap(vec![Key::IifName], "host_in")),
                rule([within(&[Key::IifName], "bridges")], Action::Accept),
                rule([within(&[Key::IpSaddr], "inside4")], Action::Drop),
                rule([within(&[Key::Ip6Saddr], "inside6")], Action::Drop),
                // Gateways, and what the kernel takes for the host beside them: a subnet's broadcast and anycast addresses.
                rule([within(&[Key::IpDaddr], "inside4")], Action::Drop),
                rule([within(&[Key::Ip6Daddr], "inside6")], Action::Drop),
            ],
        ),
        chain(Table::Inet, "transit", None, vec![]),
        super::docker::chain(),
        chain(
            Table::Inet,
            "forward",
            Some((false, Hook::Forward, 0)),
            vec![
                rule([answers()], Action::Accept),
                // Of no flow, and so with nobody's address but the container's own.
                rule(
                    [stray(), within(&[Key::IpSaddr], "masquerade4")],
                    Action::Drop,
                ),
                rule(
                    [stray(), within(&[Key::Ip6Saddr], "masquerade6")],
                    Action::Drop,
                ),
                rule([], Action::Vmap(vec![Key::IifName], "forward_out")),
                // Container addresses come from the containers' bridges only.
                rule(
                    [outside(), within(&[Key::IpSaddr], "inside4")],
                    Action::Drop,
                ),
                rule(
                    [outside(), within(&[Key::Ip6Saddr], "inside6")],
                    Action::Drop,
                ),
                rule([], Action::Vmap(vec![Key::OifName], "forward_in")),
                rule([within(&[Key::OifName], "docker")], jump("to_docker")),
                rule([within(&[Key::IifName], "bridges")], Action::Accept),
                rule([], jump("transit")),
            ],
        ),
        chain(
            Table::Inet,
            "nat",
            Some((true, Hook::Postrouting, NAT_SRC)),
            nat_rules(),
        ),
    ]);
    all
}

/// Packets for the host that belong to no flow. Containers have none to send: errors about flows that do not exist would
/// change the host's routes. To a published port it was not the host that was spoken to: its refusal would end the client's
/// connection.
///
/// What a bridge that listens to everything (somebody runs `tcpdump` on it) takes up for many is of no flow any more where
/// its packets were tracked before (`net.bridge.bridge-nf-call-iptables`): neighbours would look for the host in vain.
fn strays() -> Vec<Rule> {
    let to = |kind| is(Key::FibDaddrType, Value::AddrType(kind));
    let mut rules = vec![
        rule([to(AddrType::Multicast)], goto("strays_to_many")),
        rule([to(AddrType::Broadcast)], Action::Return),
        rule([within(&[Key::IifName], "bridges")], Action::Drop),
    ];
    rules.extend(super::outward::published().map(|m| rule(m, Action::Drop)));
    rules
}

/// Errors about flows (RFC 4443, 3) are believed also where they are sent to a group; of IPv4's the kernel sees to that.
fn strays_to_many() -> Vec<Rule> {
    const ICMPV6: u8 = 58;
    let error = |kind| {
        let of = is(Key::L4Proto, Value::U8(ICMPV6));
        rule([of, is(Key::Icmpv6Type, Value::U8(kind))], Action::Drop)
    };
    (1..=4).map(error).collect()
}

fn nat_rules() -> Vec<Rule> {
    let mut rules = vec![rule([], Action::Vmap(vec![Key::OifName], "nat_in"))];
    rules.extend(super::outward::move_on());
    rules.extend([
        rule([], Action::SnatMap(Family::V4, vec![Key::IpSaddr], "snat4")),
        rule(
            [],
            Action::SnatMap(Family::V6, vec![Key::Ip6Saddr], "snat6"),
        ),
        rule([within(&[Key::IpSaddr], "masquerade4")], Action::Masquerade),
        rule(
            [within(&[Key::Ip6Saddr], "masquerade6")],
            Action::Masquerade,
        ),
    ]);
    rules
}

/// Marks what may be passed on, before it is routed: without the mark there is no way (`backstop`). Who may not come
/// in is not marked even for a moment, so that he stays out when the rules go while his packet is between hooks.
fn seen_chains() -> Vec<Chain> {
    let seen = || goto("mark_seen");
    vec![
        chain(
            Table::Inet,
            "mark_seen",
            None,
            vec![rule([], Action::MarkOr(MARK_SEEN))],
        ),
        chain(
            Table::Inet,
            "seen_in",
            None,
            vec![
                rule([answers()], seen()),
                rule([translated()], seen()),
                rule([within(&[Key::IpDaddr], "direct_nets4")], seen()),
                rule([within(&[Key::Ip6Daddr], "direct_nets6")], seen()),
            ],
        ),
        chain(
            Table::Inet,
            "seen_out",
            None,
            vec![
                rule([answers()], seen()),
                rule([translated()], seen()),
                rule([], Action::Vmap(vec![Key::IifName], "seen_by")),
            ],
        ),
        chain(
            Table::Inet,
            "seen",
            Some((false, Hook::Prerouting, SEEN)),
            vec![
                rule(
                    [is(Key::IifGroup, Value::U32(BRIDGE_GROUP))],
                    goto("seen_out"),
                ),
                rule([within(&[Key::IifName], "bridges")], goto("seen_out")),
                rule([within(&[Key::IpDaddr], "inside4")], goto("seen_in")),
                rule([within(&[Key::Ip6Daddr], "inside6")], goto("seen_in")),
            ],
        ),
        chain(
            Table::Inet,
            "seen_host",
            Some((false, Hook::Output, SEEN_HOST)),
            vec![rule([saddr(net("127.0.0.0/8"))], seen())],
        ),
    ]
}

/// One lookup per kind of mapping, however many ports are published: bound to the address asked for first.
fn publish(family: Family) -> Chain {
    let (name, daddr, sets) = match family {
        Family::V4 => (
            "publish",
            Key::IpDaddr,
            ["publish4_host", "publish4", "range4_host", "range4"],
        ),
        Family::V6 => (
            "publish6",
            Key::Ip6Daddr,
            ["publish6_host", "publish6", "range6_host", "range6"],
        ),
    };
    let mut rules = Vec::new();
    if family == Family::V4 {
        rules.push(rule(
            [is(Key::NfProto, Value::Family(Family::V6))],
            goto("publish6"),
        ));
    }
    for (at, set) in sets.into_iter().enumerate() {
        let mut keys = vec![Key::L4Proto, Key::ThDport];
        if at % 2 == 0 {
            keys.insert(0, daddr);
        }
        rules.push(rule([], Action::DnatMap(family, keys, set)));
    }
    chain(Table::Inet, name, None, rules)
}

/// Loopback addresses never come in from a wire (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3), also where
/// `route_localnet` would let them. Neither do IPv4 addresses in IPv6 clothes (`::ffff:127.0.0.1`): a server would take
/// them for what they mean.
/// Packets of networks are judged by their network's chain, which knows about loopback addresses too.
fn raw_rules() -> Vec<Rule> {
    vec![
        // First what containers send: it is what there is most of.
        rule([], Action::Vmap(vec![Key::IifName], "raw_in")),
        rule([is(Key::Iif, Value::U32(1))], Action::Accept),
        rule([daddr(loopback(Family::V4))], Action::Drop),
        rule([saddr(loopback(Family::V4))], Action::Drop),
        rule([daddr(loopback(Family::V6))], Action::Drop),
        rule(
            [
                saddr(loopback(Family::V6)),
                not(Key::Ip6Saddr, Value::Net(net("::/128"))),
            ],
            Action::Drop,
        ),
    ]
}

/// What is never on a wire: the host's own loopback addresses, and IPv4-compatible ones (RFC 4291, 2.5.3 and 2.5.5.1).
pub(super) fn loopback(family: Family) -> IpNet {
    net(match family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::/80",
    })
}

/// What the host did not forward before wharf turned that on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unforwarded {
    /// The links that there were.
    pub links: Vec<IfName>,
    /// The families for which it was turned on; not empty.
    pub families: Vec<Family>,
    /// Of these, those in which the administrator wants it for everybody: nothing is held back.
    pub wanted: Vec<Family>,
    /// Links for which forwarding was on by itself: what comes in by them was forwarded.
    pub routing: Vec<(Family, IfName)>,
}

/// While wharf has forwarding turned on, flows that have nothing to do with wharf stay unforwarded, as they
/// were: between links that were there when it was turned on, and between any links that are neither bridges nor cables
/// to other namespaces (one that appears later belongs to a tool which forwards by its own will).
///
/// `None` when forwarding was on without wharf: nothing is held back. Where the administrator wants it, only Docker's
/// containers stay as closed as Docker would have them.
pub fn transit(held: Option<&Unforwarded>) -> Vec<Resource> {
    let Some(held) = held else {
        return vec![Resource::Nft(Object::Chain(chain(
            Table::Inet,
            "transit",
            None,
            vec![],
        )))];
    };
    let of = |family| is(Key::NfProto, Value::Family(family));
    let mut families = held.families.clone();
    families.retain(|family| !held.wanted.contains(family));
    let routed = held.routing.iter().filter(|(f, _)| families.contains(f));
    let routed = routed.map(|(family, link)| {
        let from = is(Key::IifName, Value::Name(link.clone()));
        rule([of(*family), from], Action::Accept)
    });
    let mut rules: Vec<Rule> = routed.collect();
    let which = match families[..] {
        [family] => Some(of(family)),
        _ => None,
    };
    if !families.is_empty() {
        rules.extend(held_back().map(|m| rule(which.clone().into_iter().chain(m), Action::Drop)));
    }
    rules.extend(super::docker::transit(&held.families));
    let mut all = vec![Resource::Nft(Object::Chain(chain(
        Table::Inet,
        "transit",
        None,
        rules,
    )))];
    all.extend(held.links.iter().map(|name| link_in("host_links", name)));
    all
}

/// What is not passed on: between links that were there, and between any that are neither bridges nor cables.
fn held_back() -> impl Iterator<Item = Vec<Match>> {
    let others = |key| ["bridge", "veth"].map(|kind| not(key, Value::Kind(kind)));
    let known = |key| within(&[key], "host_links");
    [
        vec![known(Key::IifName), known(Key::OifName)],
        [others(Key::IifKind), others(Key::OifKind)].concat(),
    ]
    .into_iter()
}

/// A link as an element of a set.
pub(super) fn link_in(set: &str, name: &IfName) -> Resource {
    Resource::Nft(Object::Element(Element {
        table: Table::Inet,
        set: set.to_owned(),
        key: vec![Field::Name(name.clone())],
        data: None,
    }))
}
