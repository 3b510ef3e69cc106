//! Which of wharf's own rules are in the kernel, and what else is in its tables.
//!
//! What should be there is encoded as it is sent, and compared with what the kernel gives back.

use std::collections::{HashMap, HashSet};
use std::io;

use wharf_core::model::Resource;
use wharf_core::nft::{Chain, Object, Table};
use wharf_nft::expr::BitwiseOp;
use wharf_nft::{self as nf, SetRef, TableFlags};

use crate::kernel::netlink::nft_apply::to_io;
use crate::kernel::netlink::{NetlinkKernel, nft_encode as encode, nft_expr};

/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`: that there are addresses and ports.
const RANGES: u32 = 3;

/// How something is called that there is no reason for.
pub const NOBODYS: &str = "nobody's";

/// What was found of wharf's rules.
#[derive(Debug, Clone, Default)]
pub struct RulesSeen {
    /// The ruleset's generation it was found at.
    pub generation: u32,
    /// What is there of what was asked for; a chain with other rules is here without rules.
    pub seen: Vec<Resource>,
    /// What is there beside it, or in a form that only making everything anew can mend: what, and how it is.
    pub strange: Vec<(String, &'static str)>,
}

/// What the kernel holds in wharf's tables.
#[derive(Default)]
struct Held {
    tables: HashMap<&'static str, TableFlags>,
    chains: HashMap<(&'static str, String), nf::Chain>,
    rules: HashMap<(&'static str, String), Vec<Vec<nf::Expr>>>,
    sets: HashMap<(&'static str, String), nf::Set>,
    elements: HashMap<(&'static str, String), HashSet<Key>>,
}

/// What makes an element what it is: its key, the end of its range, its data, whether it ends a range.
type Key = (Vec<u8>, Option<Vec<u8>>, Option<nf::Data>, u32);

fn key(e: &nf::Element) -> Key {
    let end = e.key_end.clone().filter(|end| *end != e.key);
    (e.key.clone(), end, e.data.clone(), e.flags.0)
}

impl NetlinkKernel {
    /// What of `wanted` is in wharf's tables, and what is there beside `wanted` and `allowed`.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn observe_rules(
        &mut self,
        wanted: &[Resource],
        allowed: &[Resource],
    ) -> io::Result<RulesSeen> {
        let (generation, held) = self.held_at_once()?;
        let mut found = RulesSeen {
            generation,
            ..RulesSeen::default()
        };
        let mut explained = Explained::default();
        for object in objects(wanted) {
            if let Some(is) = compare(object, &held, &mut found.strange) {
                found.seen.push(Resource::Nft(is));
            }
            explained.add(object);
        }
        objects(allowed).for_each(|object| explained.add(object));
        explained.rest(&held, &mut found.strange);
        found.strange.sort();
        Ok(found)
    }

    /// The ruleset's generation, and what wharf's tables hold. A table that another program removes between two of the
    /// questions is `ENOENT`: then all are asked again.
    fn held_at_once(&mut self) -> io::Result<(u32, Held)> {
        const ROUNDS: u32 = 50;
        for _ in 0..ROUNDS {
            let generation = self.nf()?.generation().map_err(to_io)?;
            match self.held() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                held => return Ok((generation, held?)),
            }
        }
        let generation = self.nf()?.generation().map_err(to_io)?;
        Ok((generation, self.held()?))
    }

    fn held(&mut self) -> io::Result<Held> {
        let nft = self.nf()?;
        let mut held = Held::default();
        let ours = |family: nf::Family, table: &str| {
            let of_family = |t: &&Table| encode::family(**t) == family;
            let known = Table::ALL.iter().find(of_family)?;
            (table == Table::NAME).then(|| known.family())
        };
        for table in nft.dump_tables().map_err(to_io)? {
            if let Some(t) = ours(table.family, &table.name) {
                held.tables.insert(t, table.flags);
            }
        }
        if held.tables.is_empty() {
            return Ok(held);
        }
        for chain in nft.dump_chains().map_err(to_io)? {
            if let Some(t) = ours(chain.family, &chain.table) {
                held.chains.insert((t, chain.name.clone()), chain);
            }
        }
        for table in Table::ALL {
            if !held.tables.contains_key(table.family()) {
                continue;
            }
            let rules = nft.dump_table_rules(encode::family(table), Table::NAME);
            for rule in rules.map_err(to_io)? {
                let of_chain = held.rules.entry((table.family(), rule.chain)).or_default();
                of_chain.push(rule.exprs.into_iter().map(as_sent).collect());
            }
        }
        for set in nft.dump_sets().map_err(to_io)? {
            if let Some(t) = ours(set.family, &set.table) {
                let elements = nft.dump_elements(&SetRef::from(&set)).map_err(to_io)?;
                let name = (t, set.name.clone());
                held.elements
                    .insert(name.clone(), elements.iter().map(key).collect());
                held.sets.insert(name, set);
            }
        }
        Ok(held)
    }
}

fn objects(all: &[Resource]) -> impl Iterator<Item = &Object> {
    all.iter().filter_map(|r| match r {
        Resource::Nft(object) => Some(object),
        _ => None,
    })
}

/// The kernel fills in what follows from the rest: which operation, the other end of a range of one.
fn as_sent(expr: nf::Expr) -> nf::Expr {
    match expr {
        nf::Expr::Bitwise(mut b) => {
            b.op = b.op.filter(|op| *op != BitwiseOp::MaskXor);
            b.into()
        }
        nf::Expr::Nat(mut n) => {
            n.addr_max = n.addr_max.filter(|end| Some(*end) != n.addr_min);
            n.proto_max = n.proto_max.filter(|end| Some(*end) != n.proto_min);
            n.flags.0 &= !RANGES;
            n.into()
        }
        other => other,
    }
}

/// The object as the kernel has it; `None` if it is not there.
fn compare(
    object: &Object,
    held: &Held,
    strange: &mut Vec<(String, &'static str)>,
) -> Option<Object> {
    match object {
        Object::Table(table) => {
            let flags = held.tables.get(table.family())?;
            if flags.0 != 0 {
                strange.push((format!("table {} wharf", table.family()), "switched off"));
            }
        }
        Object::Set(set) => {
            let is = held.sets.get(&(set.table.family(), set.name.clone()))?;
            let should = encode::set(set);
            // A verdict has no length of its own.
            let long = should.data_len.filter(|length| *length > 0);
            let fits = long.is_none() || is.data_len == long;
            if (is.flags, is.key_len) != (should.flags, should.key_len) || !fits {
                let name = format!("set {} wharf {}", set.table.family(), set.name);
                strange.push((name, "of another form"));
            }
        }
        Object::Chain(chain) => {
            let name = (chain.table.family(), chain.name.clone());
            let is = held.chains.get(&name)?;
            if is.base != encode::chain(chain).base {
                let name = format!("chain {} wharf {}", chain.table.family(), chain.name);
                strange.push((name, "hooked in elsewhere"));
            }
            let should = chain.rules.iter().map(|r| nft_expr::rule(chain.table, r));
            let none = Vec::new();
            let is = held.rules.get(&name).unwrap_or(&none);
            if !should.eq(is.iter().cloned()) {
                return Some(Object::Chain(Chain {
                    rules: Vec::new(),
                    ..chain.clone()
                }));
            }
        }
        Object::Element(e) => {
            let is = held.elements.get(&(e.table.family(), e.set.clone()))?;
            if !encode::elements(e).iter().all(|e| is.contains(&key(e))) {
                return None;
            }
        }
    }
    Some(object.clone())
}

/// The names and elements that there is a reason for.
#[derive(Default)]
struct Explained {
    names: HashSet<(&'static str, &'static str, String)>,
    elements: HashMap<(&'static str, String), HashSet<Key>>,
}

impl Explained {
    fn add(&mut self, object: &Object) {
        match object {
            Object::Table(_) => {}
            Object::Set(set) => {
                self.names
                    .insert((set.table.family(), "set", set.name.clone()));
            }
            Object::Chain(chain) => {
                self.names
                    .insert((chain.table.family(), "chain", chain.name.clone()));
            }
            Object::Element(e) => {
                let of_set = self.elements.entry((e.table.family(), e.set.clone()));
                of_set
                    .or_default()
                    .extend(encode::elements(e).iter().map(key));
            }
        }
    }

    fn rest(&self, held: &Held, strange: &mut Vec<(String, &'static str)>) {
        let named =
            |t: &'static str, kind, name: &String| self.names.contains(&(t, kind, name.clone()));
        for (t, name) in held.chains.keys() {
            if !named(t, "chain", name) {
                strange.push((format!("chain {t} wharf {name}"), NOBODYS));
            }
        }
        for (t, name) in held.sets.keys() {
            if !named(t, "set", name) {
                strange.push((format!("set {t} wharf {name}"), NOBODYS));
            }
        }
        for (set, elements) in &held.elements {
            let none = HashSet::new();
            let explained = self.elements.get(set).unwrap_or(&none);
            let count = elements.difference(explained).count();
            if count > 0 {
                let (t, name) = set;
                let what = match count {
                    1 => format!("an element of set {t} wharf {name}"),
                    _ => format!("{count} elements of set {t} wharf {name}"),
                };
                strange.push((what, NOBODYS));
            }
        }
    }
}
