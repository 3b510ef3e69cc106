//! What wharf compiles a topology to, put into a state for the walker: links, addresses, and its packet rules as the
//! evaluator reads them.

use std::net::IpAddr;

use wharf_core::addr::Family;
use wharf_core::compile;
use wharf_core::model::{Hop, LinkKind, Netns, Resource, RuleAction as Does};
use wharf_core::nft;
use wharf_core::nft::{Action, Data, Field, FieldType, Key, Object, Table, Test};
use wharf_core::trace::Owner;
use wharf_core::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Cmp, Ct, Element, Expr, FibResult, Header, Hook, Meta, NatArg,
    NatKind, Rule, RuleVerdict, Set, TableFamily, Value,
};
use wharf_core::trace::state::{
    FdbEntry, Neighbour, NeighbourState, PolicyRule, RouteKind, RuleAction,
};

use crate::build::{HOST, World, policy};
use crate::common;

/// A host with an uplink to the outside, and everything of the topology.
pub fn world(toml: &str) -> World {
    let mut w = World::empty();
    let out = w.space("/run/netns/outside", "ip netns exec outside ");
    w.cable(HOST, "up0", out, "eth0");
    w.addr(HOST, "up0", "10.0.2.2/24");
    w.addr(out, "eth0", "10.0.2.1/24");
    w.addr(out, "lo", "192.0.2.50/32");
    w.route(HOST, "default", Some("10.0.2.1"), "up0");
    w.route(out, "default", Some("10.0.2.2"), "eth0");
    let (networks, containers, resources) = common::parts(toml::from_str(toml).unwrap());
    for c in &containers {
        let id = w.space(c.name.as_str(), &format!("ip netns exec {} ", c.name));
        w.state.spaces[id].container = Some(c.name.to_string());
    }
    w.state.networks = networks;
    w.state.containers = containers;
    let routing = compile::backstop::shared(&Family::BOTH);
    for resource in compile::base().iter().chain(&routing).chain(&resources) {
        add(&mut w, resource);
    }
    // As the engine does where a port is published on the host's own loopback.
    for net in w.state.networks.clone() {
        add(&mut w, &compile::route_localnet(&net, true));
    }
    w
}

fn place(w: &World, netns: &Netns) -> usize {
    match netns {
        Netns::Host => HOST,
        Netns::Path(path) => w.id(path.file_name().unwrap().to_str().unwrap()),
    }
}

fn add(w: &mut World, resource: &Resource) {
    match resource {
        Resource::Link(link) => add_link(w, link),
        Resource::Port(port) => {
            let settings = w.get(HOST, port.link.as_str()).port.as_mut().unwrap();
            settings.locked = port.locked;
            settings.learning = port.learning;
            settings.hairpin = port.hairpin;
        }
        Resource::Addr { netns, link, addr } => {
            let id = place(w, netns);
            w.addr(id, link.as_str(), &addr.to_string());
        }
        Resource::Route {
            netns,
            dst,
            hop,
            link,
            ..
        } => {
            let id = place(w, netns);
            let via = match hop {
                Hop::Via(gateway) => Some(gateway.to_string()),
                Hop::Link => None,
                _ => unreachable!("all routes lead somewhere here"),
            };
            w.route(id, &dst.to_string(), via.as_deref(), link.as_str());
            w.state.spaces[id].routes.last_mut().unwrap().protocol = 119;
        }
        Resource::Neigh { link, addr, mac } => {
            let link = w.index(HOST, link.as_str());
            w.state.spaces[HOST].neighbours.push(Neighbour {
                link,
                addr: *addr,
                mac: Some(*mac),
                state: NeighbourState::Permanent,
                proxy: false,
            });
        }
        Resource::Fdb { link, mac } => {
            let link = w.index(HOST, link.as_str());
            w.state.spaces[HOST].fdb.push(FdbEntry {
                link,
                mac: *mac,
                vlan: None,
                own: false,
                fixed: true,
                local: false,
                dst: None,
            });
        }
        Resource::Sysctl {
            netns, key, value, ..
        } => {
            let id = place(w, netns);
            let name = key.replace('/', ".");
            w.state.spaces[id].sysctls.insert(name, value.clone());
        }
        Resource::Nft(object) => add_nft(w, object),
        Resource::Rule(rule) => add_rule(w, rule),
        Resource::Blackhole { dst, table } => {
            w.refuse(HOST, RouteKind::Blackhole, &dst.to_string());
            let route = w.state.spaces[HOST].routes.last_mut().unwrap();
            (route.table, route.protocol) = (*table, 119);
        }
        Resource::Netns(_)
        | Resource::Up { .. }
        | Resource::Shaper { .. }
        | Resource::Detour { .. }
        | Resource::Traits { .. } => {}
    }
}

/// With the rules that every namespace has.
fn add_rule(w: &mut World, rule: &wharf_core::model::PolicyRule) {
    let family = rule.family;
    let rules = &mut w.state.spaces[HOST].rules;
    if !rules.iter().any(|r| r.family == family) {
        for (priority, table) in [(0, 255), (32766, 254), (32767, 253)] {
            rules.push(policy(family, priority, RuleAction::Table(table)));
        }
    }
    let action = match rule.action {
        Does::Lookup(table) => RuleAction::Table(table),
        Does::Goto(to) => RuleAction::Goto(to),
        Does::Nop => RuleAction::Nop,
        Does::Blackhole => RuleAction::Blackhole,
    };
    rules.push(PolicyRule {
        src: rule.from,
        iif: rule.iif.as_ref().map(|l| l.as_str().to_owned()),
        mark: rule.mark.map(|m| (m, m)),
        protocol: 119,
        ..policy(family, rule.priority, action)
    });
    rules.sort_by_key(|r| r.priority);
}

fn add_link(w: &mut World, link: &wharf_core::model::Link) {
    let name = link.name.as_str();
    match &link.kind {
        LinkKind::Bridge => w.bridge(HOST, name),
        LinkKind::Ifb => unreachable!("no speed is limited here"),
        LinkKind::Macvlan { .. } => unreachable!("all networks are bridges here"),
        LinkKind::Veth {
            peer,
            peer_netns,
            peer_mac,
        } => {
            let id = place(w, peer_netns);
            w.cable(HOST, name, id, peer.as_str());
            w.get(id, peer.as_str()).mac = *peer_mac;
        }
    }
    if let Some(mac) = link.mac {
        w.get(HOST, name).mac = Some(mac);
    }
    if let (LinkKind::Bridge, Some(mac)) = (&link.kind, link.mac) {
        // The kernel's own doing.
        let link = w.index(HOST, name);
        w.state.spaces[HOST].fdb.push(FdbEntry {
            link,
            mac,
            vlan: None,
            own: false,
            fixed: true,
            local: true,
            dst: None,
        });
    }
    w.get(HOST, name).group = link.group;
    if let Some(master) = &link.master {
        w.plug(HOST, name, master.as_str());
    }
}

fn add_nft(w: &mut World, object: &Object) {
    let rules = &mut w.state.spaces[HOST].ruleset;
    match object {
        Object::Table(_) => {}
        Object::Set(set) => rules.sets.push(Set {
            family: family(set.table),
            table: "wharf".to_owned(),
            name: set.name.clone(),
            fields: set.key.iter().map(|f| size(*f)).collect(),
            elements: Vec::new(),
            default: None,
            partial: false,
        }),
        Object::Chain(chain) => rules.chains.push(Chain {
            backend: Backend::Nft,
            family: family(chain.table),
            table: "wharf".to_owned(),
            name: chain.name.clone(),
            base: chain.base.map(base),
            rules: chain
                .rules
                .iter()
                .enumerate()
                .map(|(n, r)| rule(n, r))
                .collect(),
            owner: Owner::Wharf,
        }),
        Object::Element(element) => {
            let set = rules
                .sets
                .iter_mut()
                .find(|s| s.name == element.set && s.family == family(element.table));
            set.unwrap().elements.push(element_of(element));
        }
    }
}

fn family(table: Table) -> TableFamily {
    match table {
        Table::Inet => TableFamily::Inet,
        Table::Bridge => TableFamily::Bridge,
    }
}

fn base(base: nft::Base) -> Base {
    Base {
        hook: match base.hook {
            nft::Hook::Prerouting => Hook::Prerouting,
            nft::Hook::Input => Hook::Input,
            nft::Hook::Forward => Hook::Forward,
            nft::Hook::Output => Hook::Output,
            nft::Hook::Postrouting => Hook::Postrouting,
        },
        priority: base.priority,
        kind: if base.nat {
            ChainKind::Nat
        } else {
            ChainKind::Filter
        },
        drops: false,
        devices: Vec::new(),
    }
}

fn size(field: FieldType) -> u32 {
    match field {
        FieldType::IfName | FieldType::Ipv6 => 16,
        FieldType::Ipv4 => 4,
        FieldType::Ether => 6,
        FieldType::Proto => 1,
        FieldType::Port => 2,
        FieldType::Verdict => 0,
    }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The first and the last value of a field.
fn ends(field: &Field) -> (Vec<u8>, Vec<u8>) {
    let same = |b: Vec<u8>| (b.clone(), b);
    match field {
        Field::Name(n) => same(name(n.as_str())),
        Field::Addr(a) => same(octets(*a)),
        Field::Net(n) => (octets(n.network()), octets(n.broadcast())),
        Field::Mac(m) => same(m.0.to_vec()),
        Field::Proto(p) => same(vec![p.number()]),
        Field::Ports(r) => (
            r.first().to_be_bytes().to_vec(),
            r.last().to_be_bytes().to_vec(),
        ),
    }
}

/// Concatenated fields start at multiples of four bytes.
fn join(parts: impl Iterator<Item = Vec<u8>>, several: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        all.extend(part);
        while several && !all.len().is_multiple_of(4) {
            all.push(0);
        }
    }
    all
}

fn element_of(element: &nft::Element) -> Element {
    let several = element.key.len() > 1;
    let from = join(element.key.iter().map(|f| ends(f).0), several);
    let to = join(element.key.iter().map(|f| ends(f).1), several);
    let value = element.data.as_ref().map(|d| match d {
        Data::Verdict(nft::Verdict::Jump(c)) => Value::Verdict(RuleVerdict::Jump(c.clone())),
        Data::Verdict(nft::Verdict::Goto(c)) => Value::Verdict(RuleVerdict::Goto(c.clone())),
        Data::Fields(f) => Value::Bytes(join(f.iter().map(|f| ends(f).0), f.len() > 1)),
    });
    Element {
        to: (to != from).then_some(to),
        from,
        value,
    }
}

/// Loads a key into a register's bytes; gives its length.
fn load(key: Key, dreg: u8, out: &mut Vec<Expr>) -> u8 {
    let meta = |key| Expr::Meta { dreg, key };
    let bytes = |header, offset, len| Expr::Payload {
        dreg,
        header,
        offset,
        len,
    };
    let proto = |out: &mut Vec<Expr>, n: u8| {
        out.push(Expr::Meta {
            dreg,
            key: Meta::NfProto,
        });
        out.push(cmp(dreg, Cmp::Eq, vec![n]));
    };
    let original = |key| Expr::Ct {
        dreg,
        key,
        reply: Some(false),
    };
    let (expr, len) = match key {
        Key::IifName => (meta(Meta::IifName), 16),
        Key::OifName => (meta(Meta::OifName), 16),
        Key::Iif => (meta(Meta::Iif), 4),
        Key::IifKind => (meta(Meta::IifKind), 16),
        Key::OifKind => (meta(Meta::OifKind), 16),
        Key::IifGroup => (meta(Meta::IifGroup), 4),
        Key::NfProto => (meta(Meta::NfProto), 1),
        Key::L4Proto => (meta(Meta::L4Proto), 1),
        Key::Mark => (meta(Meta::Mark), 4),
        Key::CtState => (ct(dreg, Ct::State), 4),
        Key::CtStatus => (ct(dreg, Ct::Status), 4),
        Key::FibDaddrType | Key::FibSaddrType => (
            Expr::Fib {
                dreg,
                result: FibResult::AddrType,
                flags: if key == Key::FibSaddrType { 1 } else { 2 },
            },
            4,
        ),
        Key::IpSaddr | Key::IpDaddr => {
            proto(out, 2);
            let offset = if key == Key::IpSaddr { 12 } else { 16 };
            (bytes(Header::Network, offset, 4), 4)
        }
        Key::Ip6Saddr | Key::Ip6Daddr => {
            proto(out, 10);
            let offset = if key == Key::Ip6Saddr { 8 } else { 24 };
            (bytes(Header::Network, offset, 16), 16)
        }
        Key::ThSport => (bytes(Header::Transport, 0, 2), 2),
        Key::ThDport => (bytes(Header::Transport, 2, 2), 2),
        Key::EtherSaddr => (bytes(Header::Link, 6, 6), 6),
        Key::EtherType => (meta(Meta::Protocol), 2),
        Key::IcmpType | Key::Icmpv6Type | Key::IgmpType => (bytes(Header::Transport, 0, 1), 1),
        Key::Ip6NextHeader => (bytes(Header::Network, 6, 1), 1),
        Key::Ip6SaddrBare => (bytes(Header::Network, 8, 16), 16),
        Key::NdOption => (bytes(Header::Transport, 24, 2), 2),
        Key::NdTarget => (bytes(Header::Transport, 8, 16), 16),
        Key::NdLinkAddr => (bytes(Header::Transport, 26, 6), 6),
        Key::ArpHtype => (bytes(Header::Network, 0, 2), 2),
        Key::ArpPtype => (bytes(Header::Network, 2, 2), 2),
        Key::ArpSaddrEther => (bytes(Header::Network, 8, 6), 6),
        Key::CtOriginalIpSaddr => (original(Ct::Src), 4),
        Key::CtOriginalIp6Saddr => (original(Ct::Src), 16),
        Key::ArpSaddrIp => (bytes(Header::Network, 14, 4), 4),
    };
    out.push(expr);
    len
}

fn ct(dreg: u8, key: Ct) -> Expr {
    Expr::Ct {
        dreg,
        key,
        reply: None,
    }
}

fn cmp(sreg: u8, op: Cmp, data: Vec<u8>) -> Expr {
    Expr::Cmp { sreg, op, data }
}

fn loads(keys: &[Key], out: &mut Vec<Expr>) {
    let mut at = 0;
    for key in keys {
        let len = load(*key, at, out);
        at += len.div_ceil(4) * 4;
    }
}

fn value(value: &nft::Value) -> Vec<u8> {
    match value {
        nft::Value::Name(n) => name(n.as_str()),
        nft::Value::Kind(k) => name(k),
        nft::Value::Addr(a) => octets(*a),
        nft::Value::Net(n) => octets(n.network()),
        nft::Value::Family(Family::V4) => vec![2],
        nft::Value::Family(Family::V6) => vec![10],
        nft::Value::U8(n) => vec![*n],
        nft::Value::U16(n) => n.to_be_bytes().to_vec(),
        nft::Value::U32(n) => n.to_ne_bytes().to_vec(),
        nft::Value::AddrType(kind) => (*kind as u32).to_ne_bytes().to_vec(),
    }
}

fn masked(mask: Vec<u8>, out: &mut Vec<Expr>) {
    out.push(Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        xor: vec![0; mask.len()],
        mask,
    });
}

fn test(m: &nft::Match, out: &mut Vec<Expr>) {
    loads(&m.keys, out);
    let zero = || vec![0; 4];
    let lookup = |set: &str, invert| Expr::Lookup {
        set: set.to_owned(),
        sreg: 0,
        dreg: None,
        invert,
        verdict: false,
    };
    match &m.test {
        Test::Is(v) | Test::Not(v) => {
            if let nft::Value::Net(n) = v {
                masked(octets(n.netmask()), out);
            }
            let op = if matches!(m.test, Test::Is(_)) {
                Cmp::Eq
            } else {
                Cmp::Ne
            };
            out.push(cmp(0, op, value(v)));
        }
        Test::AnyBit(bits) => {
            masked(bits.to_ne_bytes().to_vec(), out);
            out.push(cmp(0, Cmp::Ne, zero()));
        }
        Test::NoBit(bits) => {
            masked(bits.to_ne_bytes().to_vec(), out);
            out.push(cmp(0, Cmp::Eq, zero()));
        }
        Test::Masked { mask, value } => {
            masked(mask.to_ne_bytes().to_vec(), out);
            out.push(cmp(0, Cmp::Eq, value.to_ne_bytes().to_vec()));
        }
        Test::In(set) => out.push(lookup(set, false)),
        Test::NotIn(set) => out.push(lookup(set, true)),
    }
}

fn rule(at: usize, rule: &nft::Rule) -> Rule {
    let mut exprs = Vec::new();
    for m in &rule.matches {
        test(m, &mut exprs);
    }
    let verdict = |v| Expr::Verdict(v);
    let map = |set: &str| Expr::Lookup {
        set: set.to_owned(),
        sreg: 0,
        dreg: Some(32),
        invert: false,
        verdict: false,
    };
    match &rule.action {
        Action::Accept => exprs.push(verdict(RuleVerdict::Accept)),
        Action::Drop => exprs.push(verdict(RuleVerdict::Drop)),
        Action::Return => exprs.push(verdict(RuleVerdict::Return)),
        Action::Jump(c) => exprs.push(verdict(RuleVerdict::Jump(c.clone()))),
        Action::Goto(c) => exprs.push(verdict(RuleVerdict::Goto(c.clone()))),
        Action::Vmap(keys, set) => {
            loads(keys, &mut exprs);
            exprs.push(Expr::Lookup {
                set: (*set).to_owned(),
                sreg: 0,
                dreg: None,
                invert: false,
                verdict: true,
            });
        }
        Action::DnatMap(family, keys, set) => {
            loads(keys, &mut exprs);
            exprs.push(map(set));
            let port = if *family == Family::V4 { 36 } else { 48 };
            exprs.push(Expr::Nat {
                kind: NatKind::Destination,
                addr: Some(NatArg::Reg(32)),
                port: set.starts_with("publish").then_some(NatArg::Reg(port)),
            });
        }
        Action::SnatMap(_, keys, set) => {
            loads(keys, &mut exprs);
            exprs.push(map(set));
            exprs.push(Expr::Nat {
                kind: NatKind::Source,
                addr: Some(NatArg::Reg(32)),
                port: None,
            });
        }
        Action::SnatMapDraw(_, keys, set, ports) => {
            loads(keys, &mut exprs);
            exprs.push(map(set));
            exprs.push(Expr::Nat {
                kind: NatKind::Source,
                addr: Some(NatArg::Reg(32)),
                port: Some(NatArg::Ports(ports.first(), ports.last())),
            });
        }
        Action::MasqueradeDraw(ports) => exprs.push(Expr::Nat {
            kind: NatKind::Masquerade,
            addr: None,
            port: Some(NatArg::Ports(ports.first(), ports.last())),
        }),
        Action::Masquerade => exprs.push(Expr::Nat {
            kind: NatKind::Masquerade,
            addr: None,
            port: None,
        }),
        Action::Reject => exprs.push(Expr::Reject { reset: false }),
        Action::MarkOr(bit) => {
            let (value, mask) = (*bit, *bit);
            exprs.push(Expr::SetMark { value, mask });
        }
    }
    Rule {
        handle: at as u64 + 2,
        exprs,
        comment: None,
        text: format!("{:?}", rule.action).into(),
    }
}
