//! The core's nftables types as expressions and messages.
//!
//! A rule carries the same dependencies that `nft` puts in (`meta nfproto` before an IPv4 address in an inet
//! table, …), so that `nft list ruleset` prints it as it would print its own.

use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::addr::Family;
use wharf_core::nft::{self, Action, Change, FieldType, Hook, Key, Object, Test, Value};
use wharf_nft::expr::{Bits, CmpOp, CtKey, FibResult, MetaKey, PayloadBase, Reg};
use wharf_nft::{
    Batch, Chain, ChainType, Data, DataType, Element, Expr, Policy, Rule, Set, SetRef, Table,
    Verdict,
};

/// `NFTA_FIB_F_DADDR`.
const FIB_DADDR: u32 = 2;
/// `RTN_LOCAL` (`linux/rtnetlink.h`).
const RTN_LOCAL: u32 = 2;
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
const ADMIN_PROHIBITED: u8 = 3;

/// Puts a transaction's changes into a batch.
pub fn encode(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change {
            Change::Add(object) => add(&mut batch, object),
            Change::Del(object) => del(&mut batch, object),
            Change::Rules(chain) => {
                batch.flush_chain(family(chain.table), nft::Table::NAME, &chain.name);
                add_rules(&mut batch, chain);
            }
        }
    }
    batch
}

fn family(table: nft::Table) -> wharf_nft::Family {
    match table {
        nft::Table::Inet => wharf_nft::Family::Inet,
        nft::Table::Bridge => wharf_nft::Family::Bridge,
    }
}

fn add(batch: &mut Batch, object: &Object) {
    match object {
        Object::Table(table) => {
            batch.add_table(&Table::new(family(*table), nft::Table::NAME));
        }
        Object::Set(set) => {
            batch.add_set(&encode_set(set));
        }
        Object::Chain(chain) => {
            let mut made = Chain::new(family(chain.table), nft::Table::NAME, chain.name.as_str());
            if let Some(base) = chain.base {
                let kind = if base.nat {
                    ChainType::Nat
                } else {
                    ChainType::Filter
                };
                made = made.with_base(kind, hook(base.hook), base.priority, Policy::Accept);
            }
            batch.add_chain(&made);
            add_rules(batch, chain);
        }
        Object::Element(element) => {
            batch.add_elements(&set_ref(element), &encode_element(element));
        }
    }
}

fn del(batch: &mut Batch, object: &Object) {
    match object {
        Object::Table(table) => {
            batch.del_table(family(*table), nft::Table::NAME);
        }
        Object::Set(set) => {
            batch.del_set(&SetRef::new(
                family(set.table),
                nft::Table::NAME,
                set.name.as_str(),
            ));
        }
        Object::Chain(chain) => {
            batch.flush_chain(family(chain.table), nft::Table::NAME, &chain.name);
            batch.del_chain(family(chain.table), nft::Table::NAME, &chain.name);
        }
        Object::Element(element) => {
            batch.del_elements(&set_ref(element), &encode_element(element));
        }
    }
}

fn add_rules(batch: &mut Batch, chain: &nft::Chain) {
    for rule in &chain.rules {
        let exprs = encode_rule(chain.table, rule);
        batch.add_rule(&Rule::new(
            family(chain.table),
            nft::Table::NAME,
            chain.name.as_str(),
            exprs,
        ));
    }
}

fn hook(hook: Hook) -> wharf_nft::Hook {
    match hook {
        Hook::Prerouting => wharf_nft::Hook::Prerouting,
        Hook::Input => wharf_nft::Hook::Input,
        Hook::Forward => wharf_nft::Hook::Forward,
        Hook::Output => wharf_nft::Hook::Output,
        Hook::Postrouting => wharf_nft::Hook::Postrouting,
    }
}

fn set_ref(element: &nft::Element) -> SetRef {
    SetRef::new(
        family(element.table),
        nft::Table::NAME,
        element.set.as_str(),
    )
}

fn field_type(field: FieldType) -> DataType {
    match field {
        FieldType::IfName => DataType::ifname(),
        FieldType::Ipv4 => DataType::ipv4_addr(),
        FieldType::Ipv6 => DataType::ipv6_addr(),
        FieldType::Ether => DataType::ether_addr(),
        FieldType::Proto => DataType::inet_proto(),
        FieldType::Port => DataType::inet_service(),
        FieldType::Verdict => DataType::verdict(),
    }
}

fn data_type(fields: &[FieldType]) -> DataType {
    match fields {
        [one] => field_type(*one),
        many => DataType::concat(&many.iter().copied().map(field_type).collect::<Vec<_>>()),
    }
}

fn encode_set(set: &nft::Set) -> Set {
    let (family, name, key) = (family(set.table), set.name.as_str(), data_type(&set.key));
    let mut made = match set.data.as_slice() {
        [] => Set::new(family, nft::Table::NAME, name, &key),
        data => Set::map(family, nft::Table::NAME, name, &key, &data_type(data)),
    };
    if set.interval {
        made = made.with_intervals();
    }
    made.size = set.size;
    made
}

/// First and last value of a field, as bytes.
fn field_bounds(field: &nft::Field) -> (Vec<u8>, Vec<u8>) {
    let same = |bytes: Vec<u8>| (bytes.clone(), bytes);
    match field {
        nft::Field::Name(name) => same(name_bytes(name.as_str())),
        nft::Field::Addr(addr) => same(octets(*addr)),
        nft::Field::Net(net) => (octets(net.network()), octets(net.broadcast())),
        nft::Field::Mac(mac) => same(mac.0.to_vec()),
        nft::Field::Proto(proto) => same(vec![proto.number()]),
        nft::Field::Ports(ports) => (
            ports.first().to_be_bytes().to_vec(),
            ports.last().to_be_bytes().to_vec(),
        ),
    }
}

/// Fields of a concatenation are padded to four bytes, a single field is not.
fn join(fields: Vec<Vec<u8>>) -> Vec<u8> {
    let single = fields.len() == 1;
    let mut all = Vec::new();
    for field in fields {
        all.extend(field);
        while !single && all.len() % 4 != 0 {
            all.push(0);
        }
    }
    all
}

fn encode_element(element: &nft::Element) -> Vec<Element> {
    let (first, last): (Vec<_>, Vec<_>) = element.key.iter().map(field_bounds).unzip();
    let (first, last) = (join(first), join(last));
    let data = element.data.as_ref().map(|data| match data {
        nft::Data::Verdict(nft::Verdict::Jump(chain)) => {
            Data::Verdict(Verdict::Jump(chain.clone()))
        }
        nft::Data::Verdict(nft::Verdict::Goto(chain)) => {
            Data::Verdict(Verdict::Goto(chain.clone()))
        }
        nft::Data::Fields(fields) => {
            Data::Value(join(fields.iter().map(|f| field_bounds(f).0).collect()))
        }
    });
    match interval_set(element) {
        Some(set) => {
            let mut range = Element::range(&set, first, last);
            if let Some(data) = data {
                range = range.with_data(data);
            }
            range.into_iter().collect()
        }
        None => {
            let made = Element::new(first);
            vec![match data {
                Some(data) => made.with_data(data),
                None => made,
            }]
        }
    }
}

/// The sets whose elements are ranges, with what tells how a range is written there: one of the base's, by
/// name, since an element names its set only.
fn interval_set(element: &nft::Element) -> Option<Set> {
    const PREFIXES: [&str; 4] = ["masquerade", "snat", "range", "direct"];
    if element.table != nft::Table::Inet || !PREFIXES.iter().any(|p| element.set.starts_with(p)) {
        return None;
    }
    let kind = |field: &nft::Field| match field {
        nft::Field::Name(_) => FieldType::IfName,
        nft::Field::Addr(addr) => FieldType::addr(Family::of(*addr)),
        nft::Field::Net(net) => FieldType::addr(Family::of_net(*net)),
        nft::Field::Mac(_) => FieldType::Ether,
        nft::Field::Proto(_) => FieldType::Proto,
        nft::Field::Ports(_) => FieldType::Port,
    };
    let key: Vec<FieldType> = element.key.iter().map(kind).collect();
    Some(
        Set::new(
            wharf_nft::Family::Inet,
            nft::Table::NAME,
            element.set.as_str(),
            &data_type(&key),
        )
        .with_intervals(),
    )
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An interface or kind name as it lies in registers: `IFNAMSIZ` bytes.
fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn encode_rule(table: nft::Table, rule: &nft::Rule) -> Vec<Expr> {
    let mut exprs = Vec::new();
    let mut known = Vec::new();
    for m in &rule.matches {
        for key in &m.keys {
            depend(table, *key, &mut known, &mut exprs);
        }
        encode_match(m, &mut exprs);
        known.extend(m.keys.iter().copied());
    }
    encode_action(table, &rule.action, &mut known, &mut exprs);
    exprs
}

/// What must be known of a packet before a key means what it says.
fn depend(table: nft::Table, key: Key, known: &mut Vec<Key>, exprs: &mut Vec<Expr>) {
    let (needs, value) = match (table, key) {
        (nft::Table::Inet, Key::IpSaddr | Key::IpDaddr) => {
            (Key::NfProto, Value::Family(Family::V4))
        }
        (nft::Table::Inet, Key::Ip6Saddr | Key::Ip6Daddr) => {
            (Key::NfProto, Value::Family(Family::V6))
        }
        (nft::Table::Bridge, Key::IpSaddr | Key::IpDaddr) => (Key::EtherType, Value::U16(0x0800)),
        (nft::Table::Bridge, Key::Ip6Saddr | Key::Ip6Daddr) => (Key::EtherType, Value::U16(0x86dd)),
        (_, Key::IcmpType) => (Key::L4Proto, Value::U8(1)),
        (_, Key::Icmpv6Type | Key::NdTarget) => (Key::L4Proto, Value::U8(58)),
        _ => return,
    };
    if !known.contains(&needs) {
        known.push(needs);
        encode_match(
            &nft::Match {
                keys: vec![needs],
                test: Test::Is(value),
            },
            exprs,
        );
    }
}

/// Loads keys side by side, from the first register on; each takes whole four-byte slots.
fn load(keys: &[Key], exprs: &mut Vec<Expr>) {
    let mut slot = 0;
    for key in keys {
        let reg = Reg::slot(slot).expect("wharf's keys are shorter than the register file");
        let (expr, len) = load_one(*key, reg);
        exprs.push(expr);
        slot += len.div_ceil(4) as u8;
    }
}

fn load_one(key: Key, reg: Reg) -> (Expr, u32) {
    let meta = |key, len| (Expr::meta(key, reg), len);
    let payload = |base, offset, len| (Expr::payload(base, offset, len, reg), len);
    let (link, net, trans) = (
        PayloadBase::LinkLayer,
        PayloadBase::Network,
        PayloadBase::Transport,
    );
    match key {
        Key::IifName => meta(MetaKey::IifName, 16),
        Key::OifName => meta(MetaKey::OifName, 16),
        Key::Iif => meta(MetaKey::Iif, 4),
        Key::IifKind => meta(MetaKey::IifKind, 16),
        Key::OifKind => meta(MetaKey::OifKind, 16),
        Key::IifGroup => meta(MetaKey::IifGroup, 4),
        Key::NfProto => meta(MetaKey::NfProto, 1),
        Key::L4Proto => meta(MetaKey::L4Proto, 1),
        Key::Mark => meta(MetaKey::Mark, 4),
        Key::CtState => (Expr::ct(CtKey::State, None, reg), 4),
        Key::CtStatus => (Expr::ct(CtKey::Status, None, reg), 4),
        Key::FibDaddrType => (Expr::fib(FibResult::AddrType, Bits(FIB_DADDR), reg), 4),
        Key::IpSaddr => payload(net, 12, 4),
        Key::IpDaddr => payload(net, 16, 4),
        Key::Ip6Saddr => payload(net, 8, 16),
        Key::Ip6Daddr => payload(net, 24, 16),
        Key::ThSport => payload(trans, 0, 2),
        Key::ThDport => payload(trans, 2, 2),
        Key::EtherSaddr => payload(link, 6, 6),
        Key::EtherType => payload(link, 12, 2),
        Key::ArpHtype => payload(net, 0, 2),
        Key::ArpPtype => payload(net, 2, 2),
        Key::ArpSaddrEther => payload(net, 8, 6),
        Key::ArpSaddrIp => payload(net, 14, 4),
        Key::IcmpType | Key::Icmpv6Type => payload(trans, 0, 1),
        Key::NdTarget => payload(trans, 8, 16),
    }
}

fn encode_match(m: &nft::Match, exprs: &mut Vec<Expr>) {
    if let ([key], Test::Is(Value::Net(net)) | Test::Not(Value::Net(net))) =
        (m.keys.as_slice(), &m.test)
    {
        let op = if matches!(m.test, Test::Is(_)) {
            CmpOp::Eq
        } else {
            CmpOp::Neq
        };
        return encode_prefix(*key, *net, op, exprs);
    }
    load(&m.keys, exprs);
    match &m.test {
        Test::Is(value) => exprs.push(Expr::cmp(Reg::R1, CmpOp::Eq, value_bytes(value))),
        Test::Not(value) => exprs.push(Expr::cmp(Reg::R1, CmpOp::Neq, value_bytes(value))),
        Test::AnyBit(bits) => {
            exprs.push(Expr::mask(Reg::R1, bits.to_ne_bytes()));
            exprs.push(Expr::cmp(Reg::R1, CmpOp::Neq, [0; 4]));
        }
        Test::NoBit(bits) => {
            exprs.push(Expr::mask(Reg::R1, bits.to_ne_bytes()));
            exprs.push(Expr::cmp(Reg::R1, CmpOp::Eq, [0; 4]));
        }
        Test::Masked { mask, value } => {
            exprs.push(Expr::mask(Reg::R1, mask.to_ne_bytes()));
            exprs.push(Expr::cmp(Reg::R1, CmpOp::Eq, value.to_ne_bytes()));
        }
        Test::In(set) => exprs.push(Expr::lookup(*set, Reg::R1)),
        Test::NotIn(set) => exprs.push(Expr::lookup_not(*set, Reg::R1)),
    }
}

/// A prefix of whole bytes is compared by loading only those, as nft does.
fn encode_prefix(key: Key, net: IpNet, op: CmpOp, exprs: &mut Vec<Expr>) {
    let (bytes, len) = (octets(net.network()), usize::from(net.prefix_len()));
    let (mut loaded, full) = load_one(key, Reg::R1);
    if len % 8 == 0
        && len != 0
        && let Expr::Payload(payload) = &mut loaded
    {
        payload.len = (len / 8) as u32;
        exprs.push(loaded);
        exprs.push(Expr::cmp(Reg::R1, op, bytes[..len / 8].to_vec()));
        return;
    }
    exprs.push(loaded);
    exprs.push(Expr::mask(Reg::R1, octets(net.netmask())));
    exprs.push(Expr::cmp(Reg::R1, op, bytes[..full as usize].to_vec()));
}

fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Name(name) => name_bytes(name.as_str()),
        Value::Kind(kind) => name_bytes(kind),
        Value::Addr(addr) => octets(*addr),
        Value::Net(net) => octets(net.addr()),
        Value::Family(Family::V4) => vec![wharf_nft::Family::Ip.number()],
        Value::Family(Family::V6) => vec![wharf_nft::Family::Ip6.number()],
        Value::U8(n) => vec![*n],
        Value::U16(n) => n.to_be_bytes().to_vec(),
        Value::U32(n) => n.to_ne_bytes().to_vec(),
        Value::LocalAddr => RTN_LOCAL.to_ne_bytes().to_vec(),
    }
}

fn encode_action(table: nft::Table, action: &Action, known: &mut Vec<Key>, exprs: &mut Vec<Expr>) {
    let of = |f: &Family| {
        if *f == Family::V4 {
            wharf_nft::Family::Ip
        } else {
            wharf_nft::Family::Ip6
        }
    };
    match action {
        Action::Accept => exprs.push(Expr::verdict(Verdict::Accept)),
        Action::Drop => exprs.push(Expr::verdict(Verdict::Drop)),
        Action::Return => exprs.push(Expr::verdict(Verdict::Return)),
        Action::Jump(chain) => exprs.push(Expr::verdict(Verdict::Jump(chain.clone()))),
        Action::Goto(chain) => exprs.push(Expr::verdict(Verdict::Goto(chain.clone()))),
        Action::Vmap(keys, map) => {
            load(keys, exprs);
            exprs.push(Expr::lookup_map(*map, Reg::R1, Reg::VERDICT));
        }
        Action::DnatMap(family, keys, map) => {
            keys.iter()
                .for_each(|key| depend(table, *key, known, exprs));
            load(keys, exprs);
            exprs.push(Expr::lookup_map(*map, Reg::R1, Reg::R1));
            // The port lies behind the address; maps of ranges give an address only.
            let behind = if *family == Family::V4 { 1 } else { 4 };
            let port = map
                .starts_with("publish")
                .then(|| Reg::slot(behind))
                .flatten();
            exprs.push(Expr::dnat(of(family), Reg::R1, port));
        }
        Action::SnatMap(family, keys, map) => {
            keys.iter()
                .for_each(|key| depend(table, *key, known, exprs));
            load(keys, exprs);
            exprs.push(Expr::lookup_map(*map, Reg::R1, Reg::R1));
            exprs.push(Expr::snat(of(family), Reg::R1, None));
        }
        Action::Masquerade => exprs.push(Expr::masquerade(Bits(0))),
        Action::Reject => exprs.push(Expr::reject_icmpx(ADMIN_PROHIBITED)),
        Action::MarkOr(bit) => {
            exprs.push(Expr::meta(MetaKey::Mark, Reg::R1));
            exprs.push(Expr::mask_xor(
                Reg::R1,
                (!bit).to_ne_bytes(),
                bit.to_ne_bytes(),
            ));
            exprs.push(Expr::meta_set(MetaKey::Mark, Reg::R1));
        }
    }
}
