//! The rules of a namespace, from the kernel's form into the one that the core evaluates.
//!
//! ```text
//! wharf_nft::Ruleset (tables, chains, rules, sets) ── ruleset() ──> wharf_core::trace::ruleset::Ruleset
//! ```
//!
//! Not here: reading them (`wharf-nft`), and running packets through them (the core's `trace::eval`).

pub mod ipset;
pub mod legacy;
mod names;
mod native;
pub mod owner;
mod sets;
mod sockopt;
mod text;
mod values;
pub mod xtables;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use wharf_core::trace::report::Owner;
use wharf_core::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Hook, Rule, RuleText, RuleVerdict, Ruleset, TableFamily,
    Texts, Value,
};
use wharf_nft::{ChainType, Data, Family, Policy, TableFlags, Verdict};

/// Objects of one table are found by this.
type Key<'a> = (Family, &'a str, &'a str);

/// A dump with indices.
struct Dump<'a> {
    /// Names of ipsets by number, as the xtables rules of this dump need them.
    ipsets: &'a xtables::SetNames,
    sets: HashMap<Key<'a>, &'a (wharf_nft::Set, Vec<wharf_nft::Element>)>,
    objects: HashMap<Key<'a>, &'a wharf_nft::Object>,
}

impl<'a> Dump<'a> {
    fn of(nft: &'a wharf_nft::Ruleset, ipsets: &'a xtables::SetNames) -> Self {
        let sets = nft.sets.iter().map(|entry| {
            let set = &entry.0;
            ((set.family, set.table.as_str(), set.name.as_str()), entry)
        });
        let objects = nft
            .objects
            .iter()
            .map(|o| ((o.family, o.table.as_str(), o.name.as_str()), o));
        Self {
            ipsets,
            sets: sets.collect(),
            objects: objects.collect(),
        }
    }

    /// A set of the rule's table.
    fn set(
        &self,
        rule: &'a wharf_nft::Rule,
        name: &'a str,
    ) -> Option<&'a (wharf_nft::Set, Vec<wharf_nft::Element>)> {
        self.sets.get(&(rule.family, &rule.table, name)).copied()
    }

    /// An object of the rule's table.
    fn object(&self, rule: &'a wharf_nft::Rule, name: &'a str) -> Option<&'a wharf_nft::Object> {
        self.objects.get(&(rule.family, &rule.table, name)).copied()
    }
}

/// What was dumped, for the text of its rules.
struct Kept {
    nft: wharf_nft::Ruleset,
    ipsets: xtables::SetNames,
    /// Those that were asked for, by the rule's number: who looks over a whole host meets the same ones all the time.
    made: Vec<OnceLock<String>>,
}

impl Texts for Kept {
    fn text(&self, number: usize) -> String {
        let (Some(rule), Some(made)) = (self.nft.rules.get(number), self.made.get(number)) else {
            return String::new();
        };
        let make = || {
            xtables::as_saved(rule, &self.ipsets)
                .unwrap_or_else(|| text::rule(&Dump::of(&self.nft, &self.ipsets), rule))
        };
        made.get_or_init(make).clone()
    }
}

/// What nftables keeps, in the core's form.
#[must_use]
pub fn ruleset(nft: wharf_nft::Ruleset) -> Ruleset {
    let ipsets = ipsets(&nft.rules);
    let made = vec![OnceLock::new(); nft.rules.len()];
    let kept = Arc::new(Kept { nft, ipsets, made });
    let nft = &kept.nft;
    let dump = Dump::of(nft, &kept.ipsets);
    let dormant: Vec<&wharf_nft::Table> = nft
        .tables
        .iter()
        .filter(|t| t.flags.has(TableFlags::DORMANT))
        .collect();
    let sleeps = |family: Family, table: &str| {
        dormant
            .iter()
            .any(|t| t.family == family && t.name == table)
    };
    let mut chains: Vec<Chain> = Vec::with_capacity(nft.chains.len());
    let mut by_name: HashMap<Key<'_>, usize> = HashMap::with_capacity(nft.chains.len());
    for chain in &nft.chains {
        if let Some(lowered) = lower_chain(chain).filter(|_| !sleeps(chain.family, &chain.table)) {
            by_name.insert((chain.family, &chain.table, &chain.name), chains.len());
            chains.push(lowered);
        }
    }
    for (number, rule) in nft.rules.iter().enumerate() {
        let place = by_name.get(&(rule.family, rule.table.as_str(), rule.chain.as_str()));
        if let Some(index) = place {
            chains[*index].rules.push(Rule {
                handle: rule.handle.unwrap_or_default(),
                exprs: native::exprs(&dump, rule),
                comment: rule.comment().or_else(|| xt_comment(rule)),
                text: RuleText::later(Arc::<Kept>::clone(&kept), number),
            });
        }
    }
    owner::assign(&mut chains);
    Ruleset {
        chains,
        sets: nft.sets.iter().filter_map(sets::lower).collect(),
        dormant: dormant
            .iter()
            .map(|t| format!("{} {}", t.family, t.name))
            .collect(),
    }
}

/// iptables keeps comments in a match.
fn xt_comment(rule: &wharf_nft::Rule) -> Option<String> {
    rule.exprs.iter().find_map(|expr| match expr {
        wharf_nft::Expr::Match(m) => xtables::comment(&m.name, &m.info.0),
        _ => None,
    })
}

/// What cannot be asked for is shown by its number.
fn ipsets(rules: &[wharf_nft::Rule]) -> xtables::SetNames {
    use wharf_nft::Expr;
    let numbers = rules
        .iter()
        .flat_map(|r| &r.exprs)
        .flat_map(|expr| match expr {
            Expr::Match(m) => ipset::numbers(&m.name, &m.info.0),
            Expr::Target(t) => ipset::numbers(&t.name, &t.info.0),
            _ => Vec::new(),
        });
    ipset::names(numbers).unwrap_or_default()
}

fn lower_chain(chain: &wharf_nft::Chain) -> Option<Chain> {
    Some(Chain {
        backend: Backend::Nft,
        family: table_family(chain.family)?,
        table: chain.table.clone(),
        name: chain.name.clone(),
        base: chain.base.as_ref().and_then(lower_base),
        rules: Vec::new(),
        // Assigned when all chains are there.
        owner: Owner::User,
    })
}

fn lower_base(base: &wharf_nft::BaseChain) -> Option<Base> {
    Some(Base {
        hook: match base.hook {
            wharf_nft::Hook::Prerouting => Hook::Prerouting,
            wharf_nft::Hook::Input => Hook::Input,
            wharf_nft::Hook::Forward => Hook::Forward,
            wharf_nft::Hook::Output => Hook::Output,
            wharf_nft::Hook::Postrouting => Hook::Postrouting,
            wharf_nft::Hook::Ingress => Hook::Ingress,
            wharf_nft::Hook::Egress => Hook::Egress,
            wharf_nft::Hook::Other(_) => return None,
        },
        priority: base.priority,
        kind: match base.kind {
            ChainType::Nat => ChainKind::Nat,
            ChainType::Route => ChainKind::Route,
            ChainType::Filter | ChainType::Other(_) => ChainKind::Filter,
        },
        drops: base.policy == Policy::Drop,
        devices: base.devices.clone(),
    })
}

fn table_family(family: Family) -> Option<TableFamily> {
    Some(match family {
        Family::Inet => TableFamily::Inet,
        Family::Ip => TableFamily::Ip,
        Family::Ip6 => TableFamily::Ip6,
        Family::Arp => TableFamily::Arp,
        Family::Bridge => TableFamily::Bridge,
        Family::Netdev => TableFamily::Netdev,
        Family::Other(_) => return None,
    })
}

fn value(data: &Data) -> Value {
    match data {
        Data::Value(bytes) => Value::Bytes(bytes.clone()),
        Data::Verdict(verdict) => Value::Verdict(lower_verdict(verdict)),
    }
}

fn lower_verdict(verdict: &Verdict) -> RuleVerdict {
    /// `NF_QUEUE` and `NF_VERDICT_FLAG_QUEUE_BYPASS`.
    const QUEUE: i32 = 3;
    const BYPASS: i32 = 0x8000;
    match verdict {
        Verdict::Accept => RuleVerdict::Accept,
        Verdict::Drop => RuleVerdict::Drop,
        Verdict::Continue | Verdict::Break => RuleVerdict::Continue,
        Verdict::Return => RuleVerdict::Return,
        Verdict::Jump(chain) => RuleVerdict::Jump(chain.clone()),
        Verdict::Goto(chain) => RuleVerdict::Goto(chain.clone()),
        Verdict::Queue(_) => RuleVerdict::Queue(false),
        Verdict::Other(code) if code & 0xff == QUEUE => RuleVerdict::Queue(code & BYPASS != 0),
        Verdict::Other(_) => RuleVerdict::Stolen,
    }
}
