//! The core's nftables objects as those of `wharf-nft`.

use std::net::IpAddr;
use std::sync::OnceLock;

use wharf_core::compile;
use wharf_core::model::Resource;
use wharf_core::nft::Verdict as CoreVerdict;
use wharf_core::nft::{
    Base, Chain, Change, Data, Element, Field, FieldType, Hook, Object, Set, Table,
};
use wharf_nft as nf;
use wharf_nft::{BaseChain, Batch, ChainFlags, ChainType, DataType, Policy, SetRef, Verdict};

use super::nft_expr::{name_bytes, rule};

/// The family of a table.
pub(crate) fn family(table: Table) -> nf::Family {
    match table {
        Table::Inet => nf::Family::Inet,
        Table::Bridge => nf::Family::Bridge,
    }
}

/// A transaction, and for each of its messages the change it belongs to. Among additions that follow each other,
/// tables, sets and empty chains come first, then rules, then elements: what is named is there before who names it.
pub(super) fn batch(changes: &[(usize, &Change)]) -> (Batch, Vec<usize>) {
    let (mut batch, mut origin) = (Batch::new(), Vec::new());
    for stretch in changes.chunk_by(|(_, a), (_, b)| adds(a) && adds(b)) {
        for pass in Pass::ALL {
            for (at, change) in stretch {
                push(&mut batch, pass, change);
                origin.resize(batch.len(), *at);
            }
        }
    }
    (batch, origin)
}

fn adds(change: &Change) -> bool {
    matches!(change, Change::Add(_))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Objects,
    Rules,
    Elements,
}

impl Pass {
    const ALL: [Self; 3] = [Self::Objects, Self::Rules, Self::Elements];
}

fn push(batch: &mut Batch, pass: Pass, change: &Change) {
    match (pass, change) {
        (Pass::Objects, Change::Add(Object::Table(t))) => {
            batch.add_table(&nf::Table::new(family(*t), Table::NAME));
        }
        (Pass::Objects, Change::Add(Object::Set(s))) => {
            batch.add_set(&set(s));
        }
        (Pass::Objects, Change::Add(Object::Chain(c))) => {
            batch.create_chain(&chain(c));
        }
        (Pass::Rules, Change::Add(Object::Chain(c))) => rules(batch, c),
        (Pass::Elements, Change::Add(Object::Element(e))) => {
            batch.add_elements(&set_ref(e.table, &e.set), &elements(e));
        }
        (Pass::Objects, Change::Del(object)) => delete(batch, object),
        (Pass::Objects, Change::Rules(c)) => {
            batch.flush_chain(family(c.table), Table::NAME, &c.name);
            rules(batch, c);
        }
        _ => {}
    }
}

fn delete(batch: &mut Batch, object: &Object) {
    match object {
        Object::Table(t) => batch.del_table(family(*t), Table::NAME),
        Object::Set(s) => batch.del_set(&set_ref(s.table, &s.name)),
        Object::Chain(c) => batch
            .flush_chain(family(c.table), Table::NAME, &c.name)
            .del_chain(family(c.table), Table::NAME, &c.name),
        Object::Element(e) => batch.del_elements(&set_ref(e.table, &e.set), &elements(e)),
    };
}

/// A set of the core's, by name: an element and a rule do not tell what the set is like.
pub(super) fn known(table: Table, name: &str) -> Option<&'static Set> {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    let sets = SETS.get_or_init(|| {
        let set = |resource| match resource {
            Resource::Nft(Object::Set(set)) => Some(set),
            _ => None,
        };
        compile::base().into_iter().filter_map(set).collect()
    });
    sets.iter().find(|s| s.table == table && s.name == name)
}

fn set_ref(table: Table, name: &str) -> SetRef {
    SetRef::new(family(table), Table::NAME, name)
}

pub(crate) fn chain(c: &Chain) -> nf::Chain {
    let base = c.base.map(
        |Base {
             nat,
             hook,
             priority,
         }| BaseChain {
            kind: if nat {
                ChainType::Nat
            } else {
                ChainType::Filter
            },
            hook: match hook {
                Hook::Prerouting => nf::Hook::Prerouting,
                Hook::Input => nf::Hook::Input,
                Hook::Forward => nf::Hook::Forward,
                Hook::Output => nf::Hook::Output,
                Hook::Postrouting => nf::Hook::Postrouting,
            },
            priority,
            policy: Policy::Accept,
            devices: Vec::new(),
        },
    );
    nf::Chain {
        family: family(c.table),
        table: Table::NAME.to_owned(),
        name: c.name.clone(),
        base,
        flags: ChainFlags::default(),
        handle: None,
        uses: None,
        userdata: nf::Userdata::default(),
    }
}

fn rules(batch: &mut Batch, c: &Chain) {
    for r in &c.rules {
        let exprs = rule(c.table, r);
        batch.add_rule(&nf::Rule::new(family(c.table), Table::NAME, &c.name, exprs));
    }
}

fn data_type(fields: &[FieldType]) -> DataType {
    let one = |field: &FieldType| match field {
        FieldType::IfName => DataType::ifname(),
        FieldType::Ipv4 => DataType::ipv4_addr(),
        FieldType::Ipv6 => DataType::ipv6_addr(),
        FieldType::Ether => DataType::ether_addr(),
        FieldType::Proto => DataType::inet_proto(),
        FieldType::Port => DataType::inet_service(),
        FieldType::Verdict => DataType::verdict(),
    };
    match fields {
        [single] => one(single),
        many => DataType::concat(&many.iter().map(one).collect::<Vec<_>>()),
    }
}

pub(crate) fn set(s: &Set) -> nf::Set {
    let (family, key) = (family(s.table), data_type(&s.key));
    let mut set = match s.data.as_slice() {
        [] => nf::Set::new(family, Table::NAME, &s.name, &key),
        data => nf::Set::map(family, Table::NAME, &s.name, &key, &data_type(data)),
    };
    if s.interval {
        set = set.with_intervals();
    }
    set.size = s.size;
    set
}

/// The elements of the kernel that make one of the core: two for a prefix in a set of single prefixes.
pub(crate) fn elements(e: &Element) -> Vec<nf::Element> {
    let data = e.data.as_ref().map(data);
    let mut made = match e.key.as_slice() {
        [Field::Net(net)] => {
            let key = data_type(&[FieldType::addr(wharf_core::addr::Family::of_net(*net))]);
            let set = nf::Set::new(family(e.table), Table::NAME, &e.set, &key).with_intervals();
            let octets = octets(net.network());
            nf::Element::prefix(&set, octets, net.prefix_len().into())
                .into_iter()
                .collect()
        }
        [single] => vec![nf::Element::new(bytes(single, End::First))],
        fields => {
            let (first, last) = (concat(fields, End::First), concat(fields, End::Last));
            let mut element = nf::Element::new(first.clone());
            // A key that is no range ends with itself; nft misreads a list in which the end is left out.
            let ranges = known(e.table, &e.set).is_some_and(|set| set.interval);
            element.key_end = (ranges || first != last).then_some(last);
            vec![element]
        }
    };
    if let Some(start) = made.first_mut() {
        start.data = data;
    }
    made
}

fn data(data: &Data) -> nf::Data {
    match data {
        Data::Verdict(CoreVerdict::Jump(chain)) => Verdict::Jump(chain.clone()).into(),
        Data::Verdict(CoreVerdict::Goto(chain)) => Verdict::Goto(chain.clone()).into(),
        Data::Fields(fields) => match fields.as_slice() {
            [single] => bytes(single, End::First).into(),
            many => concat(many, End::First).into(),
        },
    }
}

/// Which end of a range.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Fields side by side, each filled up to a multiple of 4 bytes.
fn concat(fields: &[Field], end: End) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    for field in fields {
        key.extend(bytes(field, end));
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

fn bytes(field: &Field, end: End) -> Vec<u8> {
    match field {
        Field::Name(name) => name_bytes(name.as_str()),
        Field::Addr(addr) => octets(*addr),
        Field::Net(net) => match end {
            End::First => octets(net.network()),
            End::Last => octets(net.broadcast()),
        },
        Field::Mac(mac) => mac.0.to_vec(),
        Field::Proto(protocol) => vec![protocol.number()],
        Field::Ports(ports) => match end {
            End::First => ports.first().to_be_bytes().to_vec(),
            End::Last => ports.last().to_be_bytes().to_vec(),
        },
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}
