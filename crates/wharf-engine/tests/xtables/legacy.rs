//! iptables-legacy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use wharf_core::trace::report::Owner;
use wharf_core::trace::ruleset::{
    Backend, Chain, ChainKind, Expr, Hook, Match, RuleVerdict, TableFamily,
};
use wharf_engine::observe::rules::legacy;
use wharf_engine::observe::rules::xtables::SetNames;

use super::{V4, V6, alone, sh};

/// What iptables-save writes of each table, without counters: chains with their policies, then rules.
fn saved(program: &str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in sh(program).lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if line.starts_with(':') {
            let chain = line.rsplit_once(" [").unwrap().0.to_owned();
            tables.entry(table.clone()).or_default().push(chain);
        } else if line.starts_with("-A") {
            tables
                .entry(table.clone())
                .or_default()
                .push(line.to_owned());
        }
    }
    tables
}

/// The same from what was read.
fn written(chains: &[Chain], family: TableFamily) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for chain in chains.iter().filter(|c| c.family == family) {
        let policy = match &chain.base {
            None => "-",
            Some(base) if base.drops => "DROP",
            Some(_) => "ACCEPT",
        };
        let head = format!(":{} {policy}", chain.name);
        tables.entry(chain.table.clone()).or_default().push(head);
    }
    for chain in chains.iter().filter(|c| c.family == family) {
        for rule in &chain.rules {
            let line = format!("-A {} {}", chain.name, rule.text);
            let line = line.trim_end().to_owned();
            tables.entry(chain.table.clone()).or_default().push(line);
        }
    }
    tables
}

/// What is not decoded to the last option, and says so.
const SHORTENED: &[&str] = &["rateest", "RATEEST", "HMARK"];

/// Compares line by line; how many lines were equal.
fn compare(
    saved: &BTreeMap<String, Vec<String>>,
    written: &BTreeMap<String, Vec<String>>,
) -> usize {
    let names = |tables: &BTreeMap<String, Vec<String>>| -> Vec<String> {
        tables.keys().cloned().collect()
    };
    assert_eq!(names(saved), names(written));
    let mut wrong = Vec::new();
    let mut right = 0;
    for (table, lines) in saved {
        let ours = &written[table];
        assert_eq!(lines.len(), ours.len(), "{table}: {lines:#?} {ours:#?}");
        for (theirs, ours) in lines.iter().zip(ours) {
            let shortened = SHORTENED.iter().any(|s| theirs.contains(&format!(" {s} ")));
            let begin = ours.strip_suffix(" ...");
            match begin {
                Some(begin) if shortened && theirs.starts_with(begin) => {}
                _ if theirs == ours => right += 1,
                _ => wrong.push(format!("{table}\n  {theirs}\n  {ours}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    right
}

#[test]
fn each_line_is_as_iptables_save_prints_it() {
    if !alone() {
        return;
    }
    sh(&format!(
        "iptables-legacy-restore < {V4}; ip6tables-legacy-restore < {V6}"
    ));
    let chains = legacy::read().unwrap();
    let right = compare(
        &saved("iptables-legacy-save"),
        &written(&chains, TableFamily::Ip),
    );
    assert!(right > 190, "{right}");
    let right = compare(
        &saved("ip6tables-legacy-save"),
        &written(&chains, TableFamily::Ip6),
    );
    assert!(right > 190, "{right}");
}

#[test]
fn chains_have_hooks_policies_and_jumps() {
    if !alone() {
        return;
    }
    sh("iptables-legacy -P FORWARD DROP; iptables-legacy -N DOCKER-USER; iptables-legacy -N empty
        iptables-legacy -A FORWARD -j DOCKER-USER; iptables-legacy -A FORWARD -i br0 -g empty
        iptables-legacy -A DOCKER-USER -p udp -m comment --comment 'no udp' -j DROP
        iptables-legacy -A DOCKER-USER
        iptables-legacy -A DOCKER-USER -j RETURN
        iptables-legacy -t nat -A PREROUTING -j ACCEPT; iptables-legacy -t mangle -A OUTPUT -j ACCEPT");
    let chains = legacy::read().unwrap();
    assert!(chains.iter().all(|c| c.backend == Backend::Legacy));
    let find = |table: &str, name: &str| {
        let found = chains.iter().find(|c| c.table == table && c.name == name);
        found.unwrap_or_else(|| panic!("{table} {name}")).clone()
    };
    let forward = find("filter", "FORWARD");
    let base = forward.base.clone().unwrap();
    assert_eq!(
        (base.hook, base.priority, base.drops),
        (Hook::Forward, 0, true)
    );
    assert_eq!(forward.owner, Owner::Docker);
    let jump = Expr::Verdict(RuleVerdict::Jump("DOCKER-USER".to_owned()));
    assert_eq!(forward.rules[0].exprs, [jump]);
    let iif = Match::Iif("br0".to_owned(), false);
    let iif = Expr::Match {
        test: iif,
        invert: false,
    };
    let goto = Expr::Verdict(RuleVerdict::Goto("empty".to_owned()));
    assert_eq!(forward.rules[1].exprs, [iif, goto]);
    assert_eq!(forward.rules[1].handle, 2);

    let user = find("filter", "DOCKER-USER");
    assert_eq!((user.base.clone(), user.rules.len()), (None, 3));
    assert_eq!(user.rules[0].comment.as_deref(), Some("no udp"));
    assert_eq!(user.owner_of(&user.rules[0]), Owner::User);
    assert!(user.rules[1].exprs.is_empty());
    assert_eq!(find("filter", "empty").rules, []);
    assert!(!find("filter", "INPUT").base.unwrap().drops);

    let nat = find("nat", "PREROUTING").base.unwrap();
    assert_eq!((nat.priority, nat.kind), (-100, ChainKind::Nat));
    assert_eq!(find("nat", "POSTROUTING").base.unwrap().priority, 100);
    let output = find("mangle", "OUTPUT").base.unwrap();
    assert_eq!((output.priority, output.kind), (-150, ChainKind::Route));
}

#[test]
fn reading_makes_no_table() {
    if !alone() {
        return;
    }
    assert_eq!(legacy::read().unwrap(), []);
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        assert_eq!(names, "", "{file}");
    }
    sh("iptables-legacy -t raw -A PREROUTING -j ACCEPT");
    let tables: BTreeSet<String> = legacy::read()
        .unwrap()
        .into_iter()
        .map(|c| c.table)
        .collect();
    assert_eq!(tables, BTreeSet::from(["raw".to_owned()]));
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap();
    assert_eq!(names, "raw\n");
}

#[test]
fn a_table_that_changes_is_read_whole() {
    if !alone() {
        return;
    }
    // A chain whose rules are always two, written anew all the time with another length.
    let change = "i=0; while [ $i -lt 150 ]; do i=$((i+1))
        printf '*filter\\n:T - [0:0]\\n-A T -s 10.0.0.1/32 -j DROP\\n-A T -j DROP\\nCOMMIT\\n' | iptables-legacy-restore
        printf '*filter\\n:T - [0:0]\\n-A T -p tcp -m tcp --dport 1 -m mark --mark 1 -j DROP\\n-A T -j DROP\\nCOMMIT\\n' | iptables-legacy-restore
        done";
    sh("iptables-legacy -N T; iptables-legacy -A T -j DROP; iptables-legacy -A T -j DROP");
    let mut changer = std::process::Command::new("timeout")
        .args(["60", "sh", "-ec", change])
        .spawn()
        .unwrap();
    let mut reads = 0;
    while changer.try_wait().unwrap().is_none() {
        let chains = legacy::read().unwrap();
        let chain = chains.iter().find(|c| c.name == "T").unwrap();
        assert_eq!(chain.rules.len(), 2);
        reads += 1;
    }
    assert!(reads > 100, "{reads}");
}

#[test]
fn a_damaged_table_is_refused_or_read_but_never_a_panic() {
    if !alone() {
        return;
    }
    sh(
        "iptables-legacy -N T; iptables-legacy -A T -p tcp -m tcp --dport 80 -m mark --mark 1 -j LOG; iptables-legacy -A INPUT -j T",
    );
    let table = legacy::read_raw(TableFamily::Ip, "filter")
        .unwrap()
        .unwrap();
    let none = SetNames::new();
    assert!(legacy::parse(&table, &none).is_some());
    let mut refused = 0;
    for at in 0..table.entries.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut damaged = table.clone();
            damaged.entries[at] = byte;
            refused += usize::from(legacy::parse(&damaged, &none).is_none());
        }
        let mut short = table.clone();
        short.entries.truncate(at);
        refused += usize::from(legacy::parse(&short, &none).is_none());
    }
    assert!(refused > table.entries.len() / 2, "{refused}");
}
