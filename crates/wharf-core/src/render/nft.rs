//! nftables types in nft's own syntax.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::compile::base::MOST;
use crate::nft::{
    Action, AddrType, CT_STATUS_DNAT, CT_STATUS_SNAT, Chain, Change, Data, Element, Field,
    FieldType, Key, Match, Object, Rule, Set, Table, Test, Value, Verdict, ct_state,
};

/// One transaction as a command: one line where it is one statement, else a document for `nft -f`.
pub(super) fn command(changes: &[Change]) -> String {
    let lines = transaction(changes);
    match lines.as_slice() {
        [] => ":".to_owned(),
        [one] if !one.contains('\n') => format!("nft {}", super::quote(one)),
        many => format!("nft -f - <<'EOF'\n{}\nEOF", many.join("\n")),
    }
}

/// One transaction as nft statements. What is referred to comes before what refers to it: among consecutive
/// additions, tables, sets and empty chains come first, then rules, then elements.
pub fn transaction(changes: &[Change]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let adds = rest
            .iter()
            .take_while(|c| matches!(c, Change::Add(_)))
            .count();
        if adds > 0 {
            additions(&mut lines, &rest[..adds]);
            rest = &rest[adds..];
            continue;
        }
        match first {
            Change::Del(object) => lines.push(deletion(object)),
            Change::Rules(chain) => {
                lines.push(format!("flush chain {}", place(chain.table, &chain.name)));
                lines.extend(chain.rules.iter().map(|r| add_rule(chain, r)));
            }
            Change::Add(_) => {}
        }
        rest = &rest[1..];
    }
    with_twin(changes, lines)
}

/// Where elements come or go and their set is there already, it may have been made without this syntax, and be without the
/// set beside it: that is made first.
fn with_twin(changes: &[Change], mut lines: Vec<String>) -> Vec<String> {
    let of_twin = |c: &Change| match c {
        Change::Add(Object::Element(e)) | Change::Del(Object::Element(e)) => {
            has_nd(e.table, &e.set)
        }
        _ => false,
    };
    let of_set = |c: &Change| match c {
        Change::Add(Object::Set(set)) | Change::Del(Object::Set(set)) => {
            has_nd(set.table, &set.name)
        }
        _ => false,
    };
    if changes.iter().any(of_twin) && !changes.iter().any(of_set) {
        let body = nd_body(Some(MOST)).join(" ");
        lines.insert(
            0,
            format!("add set {} {{ {body} }}", place(Table::Bridge, ND)),
        );
    }
    lines
}

fn additions(lines: &mut Vec<String>, changes: &[Change]) {
    let objects: Vec<&Object> = changes
        .iter()
        .filter_map(|c| match c {
            Change::Add(object) => Some(object),
            _ => None,
        })
        .collect();
    let is_element = |o: &Object| matches!(o, Object::Element(_));
    lines.extend(objects.iter().filter(|o| !is_element(o)).map(|o| object(o)));
    for o in &objects {
        if let Object::Chain(chain) = o {
            lines.extend(chain.rules.iter().map(|r| add_rule(chain, r)));
        }
    }
    lines.extend(objects.iter().filter(|o| is_element(o)).map(|o| object(o)));
}

fn place(table: Table, name: &str) -> String {
    format!("{} {} {name}", table.family(), Table::NAME)
}

fn add_rule(chain: &Chain, r: &Rule) -> String {
    format!("add rule {} {}", place(chain.table, &chain.name), rule(r))
}

/// The statement that adds an object; a chain without its rules.
pub fn object(object: &Object) -> String {
    match object {
        Object::Table(table) => format!("add table {} {}", table.family(), Table::NAME),
        Object::Set(set) => {
            let add = |name, body: Vec<String>| {
                let place = place(set.table, name);
                format!("add {} {place} {{ {} }}", sort(set), body.join(" "))
            };
            let mut text = add(&set.name, set_body(set));
            if has_nd(set.table, &set.name) {
                text += &format!("\n{}", add(ND, nd_body(set.size)));
            }
            text
        }
        Object::Chain(chain) => {
            let body = match base(chain) {
                Some(base) => format!(" {{ {base} }}"),
                None => String::new(),
            };
            format!("add chain {}{body}", place(chain.table, &chain.name))
        }
        Object::Element(e) => element_lines("add", e, true),
    }
}

fn deletion(object: &Object) -> String {
    match object {
        Object::Table(table) => format!("delete table {} {}", table.family(), Table::NAME),
        Object::Set(set) => {
            let mut text = format!("delete {} {}", sort(set), place(set.table, &set.name));
            if has_nd(set.table, &set.name) {
                text += &format!("\ndelete set {}", place(set.table, ND));
            }
            text
        }
        Object::Chain(chain) => format!("delete chain {}", place(chain.table, &chain.name)),
        Object::Element(e) => element_lines("delete", e, false),
    }
}

/// nft 1.0.6 compares types by name: where a rule looks up a key without a name ([`Key::NdTarget`]), it wants
/// a set declared with that key. In nft's syntax, and only there, such a set stands beside `guard6` with the
/// same elements.
const ND_OF: &str = "guard6";
pub(super) const ND: &str = "guard6_nd";

pub(super) fn has_nd(table: Table, set: &str) -> bool {
    table == Table::Bridge && set == ND_OF
}

pub(super) fn nd_body(size: Option<u32>) -> Vec<String> {
    let mut body = vec!["typeof @th,208,48 . @th,64,128;".to_owned()];
    body.extend(size.map(|n| format!("size {n};")));
    body
}

/// The address as the number that stands for it in a key without a name.
pub(super) fn nd_element(e: &Element) -> String {
    let part = |f: &Field| match f {
        Field::Addr(addr) => format!("{:#034x}", crate::addr::to_number(*addr)),
        Field::Mac(mac) => format!("0x{}", mac.to_string().replace(':', "")),
        other => field(other),
    };
    e.key.iter().map(part).collect::<Vec<_>>().join(" . ")
}

/// `verb element …`, and the same for the set beside.
fn element_lines(verb: &str, e: &Element, with_data: bool) -> String {
    let place_of = |set| place(e.table, set);
    let mut text = format!(
        "{verb} element {} {{ {} }}",
        place_of(&e.set),
        element(e, with_data)
    );
    if has_nd(e.table, &e.set) {
        let twin = format!("element {} {{ {} }}", place_of(ND), nd_element(e));
        if verb == "delete" {
            // It may not be there.
            text += &format!("\nadd {twin}");
        }
        text += &format!("\n{verb} {twin}");
    }
    text
}

pub(super) fn sort(set: &Set) -> &'static str {
    if set.data.is_empty() { "set" } else { "map" }
}

pub(super) fn set_body(set: &Set) -> Vec<String> {
    let types = |fields: &[FieldType]| -> String {
        fields
            .iter()
            .map(|f| field_type(*f))
            .collect::<Vec<_>>()
            .join(" . ")
    };
    let mut body = vec![match set.data.is_empty() {
        true => format!("type {};", types(&set.key)),
        false => format!("type {} : {};", types(&set.key), types(&set.data)),
    }];
    if let Some(size) = set.size {
        body.push(format!("size {size};"));
    }
    if set.interval {
        body.push("flags interval;".to_owned());
    }
    body
}

fn field_type(field: FieldType) -> &'static str {
    match field {
        FieldType::IfName => "ifname",
        FieldType::Ipv4 => "ipv4_addr",
        FieldType::Ipv6 => "ipv6_addr",
        FieldType::Ether => "ether_addr",
        FieldType::Proto => "inet_proto",
        FieldType::Port => "inet_service",
        FieldType::Verdict => "verdict",
    }
}

pub(super) fn base(chain: &Chain) -> Option<String> {
    let base = chain.base?;
    let kind = if base.nat { "nat" } else { "filter" };
    Some(format!(
        "type {kind} hook {} priority {}; policy accept;",
        base.hook.as_str(),
        base.priority
    ))
}

pub(super) fn element(e: &Element, with_data: bool) -> String {
    let mut text = fields(&e.key);
    match e.data.as_ref().filter(|_| with_data) {
        None => {}
        Some(Data::Verdict(Verdict::Jump(chain))) => text += &format!(" : jump {chain}"),
        Some(Data::Verdict(Verdict::Goto(chain))) => text += &format!(" : goto {chain}"),
        Some(Data::Fields(data)) => text += &format!(" : {}", fields(data)),
    }
    text
}

fn fields(all: &[Field]) -> String {
    all.iter().map(field).collect::<Vec<_>>().join(" . ")
}

fn field(field: &Field) -> String {
    match field {
        Field::Name(name) => interface(name.as_str()),
        Field::Addr(addr) => addr.to_string(),
        Field::Net(net) => prefix(*net),
        Field::Mac(mac) => mac.to_string(),
        Field::Proto(protocol) => protocol.to_string(),
        Field::Ports(ports) => ports.to_string(),
    }
}

/// In quotes; a star at the end would else stand for any rest.
fn interface(name: &str) -> String {
    match name.strip_suffix('*') {
        Some(start) => format!("\"{start}\\*\""),
        None => format!("\"{name}\""),
    }
}

fn prefix(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// A rule without its place.
pub fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(test).collect();
    words.push(action(&rule.action));
    words.join(" ")
}

fn test(m: &Match) -> String {
    let mut key = keys(&m.keys);
    let first = m.keys.first().copied();
    if in_twin(m) {
        // Beside keys without a name, those with one go by their place as well.
        key = key.replace("ether saddr", "@ll,48,48");
    }
    match &m.test {
        Test::Is(v) => format!("{key} {}", value(first, v)),
        Test::Not(v) => format!("{key} != {}", value(first, v)),
        Test::AnyBit(bits) => match first {
            Some(Key::CtState | Key::CtStatus) => {
                format!("{key} {}", bit_names(first, *bits).join(","))
            }
            _ => format!("{key} & {bits:#x} != 0"),
        },
        Test::NoBit(bits) => match first {
            Some(Key::CtState | Key::CtStatus) => {
                let names = bit_names(first, *bits).join(" | ");
                format!("{key} & ({names}) == 0")
            }
            _ => format!("{key} & {bits:#x} == 0"),
        },
        Test::Masked { mask, value } => format!("{key} & {mask:#x} == {value:#x}"),
        Test::In(set) => format!("{key} @{}", looked_up(m, set)),
        Test::NotIn(set) => format!("{key} != @{}", looked_up(m, set)),
    }
}

fn looked_up(m: &Match, set: &'static str) -> &'static str {
    if in_twin(m) { ND } else { set }
}

fn in_twin(m: &Match) -> bool {
    let nameless = [Key::NdTarget, Key::NdLinkAddr];
    matches!(m.test, Test::In(ND_OF) | Test::NotIn(ND_OF))
        && m.keys.iter().any(|key| nameless.contains(key))
}

/// nft's names of connection tracking bits; a bit without one here is shown as a number.
fn bit_names(key: Option<Key>, bits: u32) -> Vec<String> {
    let known: &[(u32, &str)] = match key {
        Some(Key::CtState) => &[
            (ct_state::INVALID, "invalid"),
            (ct_state::ESTABLISHED, "established"),
            (ct_state::RELATED, "related"),
            (ct_state::NEW, "new"),
        ],
        _ => &[(CT_STATUS_SNAT, "snat"), (CT_STATUS_DNAT, "dnat")],
    };
    (0..32)
        .map(|at| 1u32 << at)
        .filter(|bit| bits & bit != 0)
        .map(
            |bit| match known.iter().find(|(number, _)| *number == bit) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("{bit:#x}"),
            },
        )
        .collect()
}

fn value(key: Option<Key>, v: &Value) -> String {
    match (key, v) {
        (_, Value::Name(name)) => interface(name.as_str()),
        (_, Value::Kind(kind)) => format!("\"{kind}\""),
        (_, Value::Addr(addr)) => IpAddr::to_string(addr),
        (_, Value::Net(net)) => prefix(*net),
        (_, Value::Family(Family::V4)) => "ipv4".to_owned(),
        (_, Value::Family(Family::V6)) => "ipv6".to_owned(),
        (_, Value::AddrType(AddrType::Local)) => "local".to_owned(),
        (_, Value::AddrType(AddrType::Broadcast)) => "broadcast".to_owned(),
        (_, Value::AddrType(AddrType::Multicast)) => "multicast".to_owned(),
        (Some(Key::L4Proto), Value::U8(n)) => protocol(*n),
        (Some(Key::EtherType | Key::ArpPtype), Value::U16(n)) => ether_type(*n),
        (Some(Key::Iif), Value::U32(1)) => "lo".to_owned(),
        (Some(Key::IifGroup | Key::Mark), Value::U32(n)) => format!("{n:#x}"),
        (Some(Key::NdOption), Value::U16(n)) => format!("{n:#x}"),
        (_, Value::U8(n)) => n.to_string(),
        (_, Value::U16(n)) => n.to_string(),
        (_, Value::U32(n)) => n.to_string(),
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        2 => "igmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        n => n.to_string(),
    }
}

fn ether_type(number: u16) -> String {
    match number {
        0x0800 => "ip".to_owned(),
        0x0806 => "arp".to_owned(),
        0x86dd => "ip6".to_owned(),
        n => format!("{n:#06x}"),
    }
}

fn keys(all: &[Key]) -> String {
    all.iter().map(|k| key(*k)).collect::<Vec<_>>().join(" . ")
}

fn key(key: Key) -> &'static str {
    match key {
        Key::IifName => "iifname",
        Key::OifName => "oifname",
        Key::Iif => "iif",
        Key::IifKind => "meta iifkind",
        Key::OifKind => "meta oifkind",
        Key::IifGroup => "meta iifgroup",
        Key::NfProto => "meta nfproto",
        Key::L4Proto => "meta l4proto",
        Key::Mark => "meta mark",
        Key::CtState => "ct state",
        Key::CtStatus => "ct status",
        Key::CtOriginalIpSaddr => "ct original ip saddr",
        Key::CtOriginalIp6Saddr => "ct original ip6 saddr",
        Key::FibDaddrType => "fib daddr type",
        Key::FibSaddrType => "fib saddr type",
        Key::IpSaddr => "ip saddr",
        Key::IpDaddr => "ip daddr",
        Key::Ip6Saddr => "ip6 saddr",
        Key::Ip6Daddr => "ip6 daddr",
        Key::ThSport => "th sport",
        Key::ThDport => "th dport",
        Key::EtherSaddr => "ether saddr",
        Key::EtherType => "ether type",
        Key::ArpHtype => "arp htype",
        Key::ArpPtype => "arp ptype",
        Key::ArpSaddrEther => "arp saddr ether",
        Key::ArpSaddrIp => "arp saddr ip",
        Key::IcmpType => "icmp type",
        Key::Icmpv6Type => "icmpv6 type",
        // nft 1.0.6 has no name for it: 16 bytes behind the first 8 (RFC 4861, 4.3).
        Key::NdTarget => "@th,64,128",
        Key::NdLinkAddr => "@th,208,48",
        Key::NdOption => "@th,192,16",
        Key::IgmpType => "igmp type",
        Key::Ip6NextHeader => "ip6 nexthdr",
        Key::Ip6SaddrBare => "@nh,64,128",
    }
}

fn action(action: &Action) -> String {
    let ip = |family: &Family| match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match action {
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Return => "return".to_owned(),
        Action::Jump(chain) => format!("jump {chain}"),
        Action::Goto(chain) => format!("goto {chain}"),
        Action::Vmap(by, map) => format!("{} vmap @{map}", keys(by)),
        Action::DnatMap(family, by, map) => {
            format!("dnat {} to {} map @{map}", ip(family), keys(by))
        }
        Action::SnatMap(family, by, map) => {
            format!("snat {} to {} map @{map}", ip(family), keys(by))
        }
        Action::SnatMapDraw(family, by, map, ports) => {
            let (ip, by) = (ip(family), keys(by));
            format!("snat {ip} to {by} map @{map}:{ports} random")
        }
        Action::Masquerade => "masquerade".to_owned(),
        Action::MasqueradeDraw(ports) => format!("masquerade to :{ports} random"),
        Action::Reject => "reject with icmpx admin-prohibited".to_owned(),
        Action::MarkOr(bit) => format!("meta mark set meta mark | {bit:#x}"),
    }
}
