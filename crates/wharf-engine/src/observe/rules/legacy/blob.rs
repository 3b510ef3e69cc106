//! A legacy table as the kernel gives it: entries one after the other, with places where hooks enter.
//!
//! A chain of a hook ends with its policy. A user's chain begins with an entry whose target is `ERROR` and has the
//! chain's name, and ends with an entry that returns. Jumps go to the place after the name. The last entry is an
//! `ERROR` too.

use std::collections::HashMap;

use wharf_core::trace::report::Owner;
use wharf_core::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Expr, Hook, Rule, RuleVerdict, TableFamily,
};

use super::NAME_LEN;
use super::entry::Entry;
use crate::observe::rules::xtables::{self, SetNames, c_string, decode_target};

const HOOKS: [(Hook, &str); 5] = [
    (Hook::Prerouting, "PREROUTING"),
    (Hook::Input, "INPUT"),
    (Hook::Forward, "FORWARD"),
    (Hook::Output, "OUTPUT"),
    (Hook::Postrouting, "POSTROUTING"),
];

/// A table as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Where each hook enters, and where its policy is, if it has that hook.
    pub hooks: [Option<(usize, usize)>; 5],
    /// The length of the entries.
    pub size: usize,
    /// The entries.
    pub entries: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

impl Table {
    /// A table without its entries, from `struct ipt_getinfo`.
    pub fn from_info(family: TableFamily, name: &str, info: &[u8]) -> Option<Self> {
        let number = |at| usize::try_from(u32_at(info, at)?).ok();
        let valid = number(NAME_LEN)?;
        let mut hooks = [None; 5];
        for (n, hook) in hooks.iter_mut().enumerate() {
            let enters = number(NAME_LEN + 4 + n * 4)?;
            let policy = number(NAME_LEN + 24 + n * 4)?;
            *hook = (valid >> n & 1 == 1).then_some((enters, policy));
        }
        Some(Self {
            family,
            name: name.to_owned(),
            hooks,
            size: number(NAME_LEN + 48)?,
            entries: Vec::new(),
        })
    }

    /// The entries with their places; `None` if they do not fill the table.
    fn entries(&self) -> Option<Vec<(usize, Entry<'_>)>> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < self.entries.len() {
            let entry = Entry::parse(self.family, &self.entries[at..])?;
            let next = at + entry.len();
            all.push((at, entry));
            at = next;
        }
        Some(all)
    }

    /// Shows the name and bytes of each match and target.
    pub fn each_blob(&self, mut see: impl FnMut(&str, &[u8])) {
        for (_, entry) in self.entries().unwrap_or_default() {
            for blob in entry.matches.iter().chain([&entry.target]) {
                see(&blob.name, blob.info);
            }
        }
    }

    fn base(&self, n: usize, drops: bool) -> Base {
        let hook = HOOKS[n].0;
        let priority = match (self.name.as_str(), hook) {
            ("raw", _) => -300,
            ("mangle", _) => -150,
            ("nat", Hook::Prerouting | Hook::Output) => -100,
            ("nat", _) => 100,
            ("security", _) => 50,
            _ => 0,
        };
        let kind = match (self.name.as_str(), hook) {
            ("nat", _) => ChainKind::Nat,
            ("mangle", Hook::Output) => ChainKind::Route,
            _ => ChainKind::Filter,
        };
        Base {
            hook,
            priority,
            kind,
            drops,
            devices: Vec::new(),
        }
    }

    fn chain(&self, name: &str, base: Option<Base>) -> Chain {
        Chain {
            backend: Backend::Legacy,
            family: self.family,
            table: self.name.clone(),
            name: name.to_owned(),
            base,
            rules: Vec::new(),
            owner: Owner::User,
        }
    }
}

/// A standard target's number: it has no name.
fn verdict(entry: &Entry<'_>) -> Option<i32> {
    let bytes = entry.target.info.get(..4)?;
    let number = i32::from_ne_bytes(bytes.try_into().ok()?);
    entry.target.name.is_empty().then_some(number)
}

/// The name of the chain that begins after this entry.
fn chain_name(entry: &Entry<'_>) -> Option<String> {
    (entry.target.name == "ERROR").then(|| c_string(entry.target.info))
}

/// The chains of a table; `None` if it makes no sense.
#[must_use]
pub fn parse(table: &Table, sets: &SetNames) -> Option<Vec<Chain>> {
    let entries = table.entries()?;
    let mut names = HashMap::new();
    for pair in entries.windows(2) {
        if let Some(name) = chain_name(&pair[0].1) {
            names.insert(pair[1].0, name);
        }
    }
    let mut chains: Vec<Chain> = Vec::new();
    // The place of the policy of the hook's chain that is being read.
    let mut policy = None;
    let last = entries.len().checked_sub(1)?;
    for (n, (at, entry)) in entries.iter().enumerate() {
        let hook = table
            .hooks
            .iter()
            .position(|h| h.is_some_and(|h| h.0 == *at));
        if let Some(hook) = hook {
            policy = table.hooks[hook].map(|h| h.1);
            chains.push(table.chain(HOOKS[hook].1, Some(table.base(hook, false))));
        }
        if policy == Some(*at) {
            let base = chains.last_mut().and_then(|c| c.base.as_mut())?;
            base.drops = verdict(entry)? == -1;
            policy = None;
        } else if let Some(name) = chain_name(entry) {
            if n != last {
                chains.push(table.chain(&name, None));
            }
        } else {
            // A user's chain ends where the next begins, with an entry that is no rule.
            let ends =
                policy.is_none() && entries.get(n + 1).and_then(|e| chain_name(&e.1)).is_some();
            let chain = chains.last_mut()?;
            if !ends {
                let handle = chain.rules.len() as u64 + 1;
                chain
                    .rules
                    .push(rule(table, *at, entry, &names, handle, sets)?);
            }
        }
    }
    Some(chains)
}

fn rule(
    table: &Table,
    at: usize,
    entry: &Entry<'_>,
    names: &HashMap<usize, String>,
    handle: u64,
    sets: &SetNames,
) -> Option<Rule> {
    let (mut exprs, mut text) = entry.conditions(sets);
    let target = match verdict(entry) {
        Some(number) => {
            let (expr, text) = jump(number, at + entry.len(), entry.is_goto(), names)?;
            exprs.extend(expr);
            text
        }
        None => {
            let t = &entry.target;
            let decoded = decode_target(&t.name, t.rev, t.info, table.family, sets);
            exprs.extend(decoded.exprs);
            decoded.text
        }
    };
    if !text.is_empty() && !target.is_empty() {
        text.push(' ');
    }
    let comment = |m: &super::entry::Blob<'_>| xtables::comment(&m.name, m.info);
    Some(Rule {
        handle,
        exprs,
        comment: entry.matches.iter().find_map(comment),
        text: (text + &target).into(),
    })
}

/// A standard target: a verdict, a jump, or nothing, which is a jump to the next entry.
fn jump(
    number: i32,
    next: usize,
    goto: bool,
    names: &HashMap<usize, String>,
) -> Option<(Option<Expr>, String)> {
    if number < 0 {
        let (verdict, name) = xtables::standard(number)?;
        return Some((Some(Expr::Verdict(verdict)), format!("-j {name}")));
    }
    let to = usize::try_from(number).ok()?;
    let Some(name) = names.get(&to).filter(|_| to != next) else {
        return (to == next).then(|| (None, String::new()));
    };
    let (verdict, letter) = if goto {
        (RuleVerdict::Goto(name.clone()), "-g")
    } else {
        (RuleVerdict::Jump(name.clone()), "-j")
    };
    Some((Some(Expr::Verdict(verdict)), format!("{letter} {name}")))
}
