//! A transaction being collected (`enum nf_tables_msg_types`). Nothing here touches the kernel.

use crate::chain::{self, Chain};
use crate::element::{Element, list};
use crate::msg::{self, NFTABLES};
use crate::object::{self, Object, ObjectKind};
use crate::rule::{self, Rule};
use crate::set::Set;
use crate::set_codec;
use crate::table::{self, Table};
use crate::types::Family;
use crate::wire::Writer;

/// Element lists are split before they reach the 64 KB an attribute can hold.
const LIST_LIMIT: usize = 60_000;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_CREATE`: fine if it exists already.
const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: must not exist yet.
const EXCL: u16 = 0x200;
/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;

/// Names a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetRef {
    /// Address family.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl SetRef {
    /// The set `name` of `table`.
    #[must_use]
    pub fn new(family: Family, table: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
        }
    }
}

impl From<&Set> for SetRef {
    fn from(set: &Set) -> Self {
        Self::new(set.family, &set.table, &set.name)
    }
}

/// Where a message begins, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: usize,
    pub(crate) label: String,
}

/// Changes for one transaction, in order. `add_*` is content with what exists, `create_*` is not; `del_*` insists that
/// it exists, `destroy_*` (Linux 6.3) does not.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) writer: Writer,
    pub(crate) entries: Vec<Entry>,
    pub(crate) generation: Option<u32>,
    pub(crate) broken: Option<(usize, &'static str)>,
    set_ids: u32,
}

impl Batch {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What each message is, in order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.label.as_str())
    }

    /// Fails with [`crate::NftError::StaleGeneration`] if the ruleset has changed since `generation`.
    pub fn expect_generation(&mut self, generation: u32) -> &mut Self {
        self.generation = Some(generation);
        self
    }

    fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        label: String,
        fill: impl FnOnce(&mut Writer),
    ) -> &mut Self {
        let index = self.entries.len();
        let offset = self
            .writer
            .start(NFTABLES | kind, REQUEST | flags, 0, family.number(), 0);
        fill(&mut self.writer);
        self.writer.finish(offset);
        if std::mem::take(&mut self.writer.overflow) {
            self.broken
                .get_or_insert((index, "an attribute is longer than 64 KB"));
        }
        self.entries.push(Entry { offset, label });
        self
    }

    /// `add table`. Existing flags are replaced.
    pub fn add_table(&mut self, table: &Table) -> &mut Self {
        self.push_table(table, CREATE, "add")
    }

    /// `create table`.
    pub fn create_table(&mut self, table: &Table) -> &mut Self {
        self.push_table(table, CREATE | EXCL, "create")
    }

    fn push_table(&mut self, table: &Table, flags: u16, verb: &str) -> &mut Self {
        let label = format!("{verb} table {} {}", table.family, table.name);
        self.push(msg::NEWTABLE, flags, table.family, label, |w| {
            table.encode(w)
        })
    }

    /// `delete table`, with all it holds.
    pub fn del_table(&mut self, family: Family, name: &str) -> &mut Self {
        let label = format!("delete table {family} {name}");
        self.push(msg::DELTABLE, 0, family, label, |w| {
            w.str(table::NAME, name)
        })
    }

    /// `destroy table`.
    pub fn destroy_table(&mut self, family: Family, name: &str) -> &mut Self {
        let label = format!("destroy table {family} {name}");
        self.push(msg::DESTROYTABLE, 0, family, label, |w| {
            w.str(table::NAME, name)
        })
    }

    /// `add chain`. The policy of an existing chain is replaced.
    pub fn add_chain(&mut self, chain: &Chain) -> &mut Self {
        self.push_chain(chain, CREATE, "add")
    }

    /// `create chain`.
    pub fn create_chain(&mut self, chain: &Chain) -> &mut Self {
        self.push_chain(chain, CREATE | EXCL, "create")
    }

    fn push_chain(&mut self, chain: &Chain, flags: u16, verb: &str) -> &mut Self {
        let label = format!(
            "{verb} chain {} {} {}",
            chain.family, chain.table, chain.name
        );
        let mut result = Ok(());
        self.push(msg::NEWCHAIN, flags, chain.family, label, |w| {
            result = chain.encode(w)
        });
        if let Err(reason) = result {
            self.broken.get_or_insert((self.entries.len() - 1, reason));
        }
        self
    }

    /// `delete chain`; it must have no rules and no jumps to it.
    pub fn del_chain(&mut self, family: Family, table: &str, name: &str) -> &mut Self {
        self.chain_message(msg::DELCHAIN, "delete", family, table, name)
    }

    /// `destroy chain`.
    pub fn destroy_chain(&mut self, family: Family, table: &str, name: &str) -> &mut Self {
        self.chain_message(msg::DESTROYCHAIN, "destroy", family, table, name)
    }

    fn chain_message(
        &mut self,
        kind: u16,
        verb: &str,
        family: Family,
        table: &str,
        name: &str,
    ) -> &mut Self {
        let label = format!("{verb} chain {family} {table} {name}");
        self.push(kind, 0, family, label, |w| {
            w.str(chain::TABLE, table);
            w.str(chain::NAME, name);
        })
    }

    /// `flush chain`: removes its rules.
    pub fn flush_chain(&mut self, family: Family, table: &str, name: &str) -> &mut Self {
        let label = format!("flush chain {family} {table} {name}");
        self.push(msg::DELRULE, 0, family, label, |w| {
            w.str(rule::TABLE, table);
            w.str(rule::CHAIN, name);
        })
    }

    /// `add rule`: at the end, or after [`Rule::position`].
    pub fn add_rule(&mut self, rule: &Rule) -> &mut Self {
        self.push_rule(rule, CREATE | APPEND, "add")
    }

    /// `insert rule`: at the beginning, or before [`Rule::position`].
    pub fn insert_rule(&mut self, rule: &Rule) -> &mut Self {
        self.push_rule(rule, CREATE, "insert")
    }

    fn push_rule(&mut self, rule: &Rule, flags: u16, verb: &str) -> &mut Self {
        let mut label = format!("{verb} rule {} {} {}", rule.family, rule.table, rule.chain);
        if let Some(comment) = rule.comment() {
            label += &format!(" comment \"{comment}\"");
        }
        self.push(msg::NEWRULE, flags, rule.family, label, |w| rule.encode(w))
    }

    /// `delete rule … handle`.
    pub fn del_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) -> &mut Self {
        self.rule_message(msg::DELRULE, "delete", family, (table, chain), handle)
    }

    /// `destroy rule … handle`.
    pub fn destroy_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        handle: u64,
    ) -> &mut Self {
        self.rule_message(msg::DESTROYRULE, "destroy", family, (table, chain), handle)
    }

    fn rule_message(
        &mut self,
        kind: u16,
        verb: &str,
        family: Family,
        place: (&str, &str),
        handle: u64,
    ) -> &mut Self {
        let (table, chain) = place;
        let label = format!("{verb} rule {family} {table} {chain} handle {handle}");
        self.push(kind, 0, family, label, |w| {
            w.str(rule::TABLE, table);
            w.str(rule::CHAIN, chain);
            w.u64(rule::HANDLE, handle);
        })
    }

    /// `add set` or `add map`.
    pub fn add_set(&mut self, set: &Set) -> &mut Self {
        self.push_set(set, CREATE, "add")
    }

    /// `create set` or `create map`.
    pub fn create_set(&mut self, set: &Set) -> &mut Self {
        self.push_set(set, CREATE | EXCL, "create")
    }

    fn push_set(&mut self, set: &Set, flags: u16, verb: &str) -> &mut Self {
        let what = if set.data_type.is_some() || set.object_type.is_some() {
            "map"
        } else {
            "set"
        };
        let label = format!("{verb} {what} {} {} {}", set.family, set.table, set.name);
        self.set_ids += 1;
        let id = self.set_ids;
        self.push(msg::NEWSET, flags, set.family, label, |w| set.encode(id, w))
    }

    /// `delete set`.
    pub fn del_set(&mut self, set: &SetRef) -> &mut Self {
        self.set_message(msg::DELSET, "delete", set)
    }

    /// `destroy set`.
    pub fn destroy_set(&mut self, set: &SetRef) -> &mut Self {
        self.set_message(msg::DESTROYSET, "destroy", set)
    }

    fn set_message(&mut self, kind: u16, verb: &str, set: &SetRef) -> &mut Self {
        let label = format!("{verb} set {} {} {}", set.family, set.table, set.name);
        self.push(kind, 0, set.family, label, |w| {
            w.str(set_codec::TABLE, &set.table);
            w.str(set_codec::NAME, &set.name);
        })
    }

    /// `flush set`: removes its elements.
    pub fn flush_set(&mut self, set: &SetRef) -> &mut Self {
        let label = format!("flush set {} {} {}", set.family, set.table, set.name);
        self.push(msg::DELSETELEM, 0, set.family, label, |w| {
            w.str(list::TABLE, &set.table);
            w.str(list::SET, &set.name);
        })
    }

    /// `add element`. One message per 60 KB of elements.
    pub fn add_elements(&mut self, set: &SetRef, elements: &[Element]) -> &mut Self {
        self.element_messages(msg::NEWSETELEM, CREATE, "add", set, elements)
    }

    /// `create element`: none may exist yet.
    pub fn create_elements(&mut self, set: &SetRef, elements: &[Element]) -> &mut Self {
        self.element_messages(msg::NEWSETELEM, CREATE | EXCL, "create", set, elements)
    }

    /// `delete element`: all must exist. A range is deleted by the same elements that made it.
    pub fn del_elements(&mut self, set: &SetRef, elements: &[Element]) -> &mut Self {
        self.element_messages(msg::DELSETELEM, 0, "delete", set, elements)
    }

    /// `destroy element`.
    pub fn destroy_elements(&mut self, set: &SetRef, elements: &[Element]) -> &mut Self {
        self.element_messages(msg::DESTROYSETELEM, 0, "destroy", set, elements)
    }

    fn element_messages(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &str,
        set: &SetRef,
        elements: &[Element],
    ) -> &mut Self {
        let mut rest = elements;
        while !rest.is_empty() {
            let label = format!("{verb} element {} {} {}", set.family, set.table, set.name);
            self.push(kind, flags, set.family, label, |w| {
                w.str(list::TABLE, &set.table);
                w.str(list::SET, &set.name);
                w.nest(list::ELEMENTS, |w| rest = fill_list(w, rest));
            });
        }
        self
    }

    /// `add counter` and the like.
    pub fn add_object(&mut self, object: &Object) -> &mut Self {
        let label = format!(
            "add object {} {} {}",
            object.family, object.table, object.name
        );
        self.push(msg::NEWOBJ, CREATE, object.family, label, |w| {
            object.encode(w)
        })
    }

    /// `delete counter` and the like.
    pub fn del_object(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        kind: ObjectKind,
    ) -> &mut Self {
        self.object_message(msg::DELOBJ, "delete", family, (table, name), kind)
    }

    /// `destroy counter` and the like.
    pub fn destroy_object(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        kind: ObjectKind,
    ) -> &mut Self {
        self.object_message(msg::DESTROYOBJ, "destroy", family, (table, name), kind)
    }

    fn object_message(
        &mut self,
        m: u16,
        verb: &str,
        family: Family,
        at: (&str, &str),
        kind: ObjectKind,
    ) -> &mut Self {
        let (table, name) = at;
        let label = format!("{verb} object {family} {table} {name}");
        self.push(m, 0, family, label, |w| {
            w.str(object::TABLE, table);
            w.str(object::NAME, name);
            w.u32(object::TYPE, kind.into());
        })
    }
}

/// Writes as many elements as the limit allows, at least one; returns the others.
fn fill_list<'a>(w: &mut Writer, elements: &'a [Element]) -> &'a [Element] {
    let start = w.buf.len();
    for (i, element) in elements.iter().enumerate() {
        let before = w.buf.len();
        w.nest(1, |w| element.encode(w));
        if w.buf.len() - start > LIST_LIMIT && i > 0 {
            w.buf.truncate(before);
            return &elements[i..];
        }
    }
    &[]
}
