//! iptables-nft: what it leaves to xtables is in `match` and `target` expressions, between native ones.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::trace::ruleset::TableFamily;
use wharf_engine::observe::rules::xtables::{text_of_match, text_of_target};
use wharf_nft::{Expr, Family, NfSocket};

use super::{V4, V6, alone, sh};

/// The rules that iptables-save writes, by table and chain.
fn saved(program: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut all: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in sh(program).lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().unwrap().to_owned();
            let rules = all.entry((table.clone(), chain)).or_default();
            rules.push(format!("{line} "));
        }
    }
    all
}

/// Looks for each decoded text in its rule's line; the names that were seen.
fn compare(family: Family, save: &str) -> BTreeSet<String> {
    let saved = saved(save);
    let mut at: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    let v = match family {
        Family::Ip => TableFamily::Ip,
        _ => TableFamily::Ip6,
    };
    for rule in NfSocket::open().unwrap().dump_rules().unwrap() {
        if rule.family != family {
            continue;
        }
        let place = (rule.table.clone(), rule.chain.clone());
        let n = at.entry(place.clone()).or_default();
        let line = &saved[&place][*n];
        *n += 1;
        for expr in &rule.exprs {
            let (name, text) = match expr {
                Expr::Match(m) => {
                    let name = m.name.clone();
                    let info = &m.info.0;
                    let text = text_of_match(&name, m.rev, info, v);
                    (name, text)
                }
                Expr::Target(t) => {
                    let name = t.name.clone();
                    let info = &t.info.0;
                    let text = text_of_target(&name, t.rev, info, v);
                    (name, text)
                }
                _ => continue,
            };
            let whole = match text.strip_suffix(" ...") {
                Some(begin) => format!(" {begin} "),
                None => format!(" {text} "),
            };
            if !line.contains(&whole) {
                wrong.push(format!("{line}\n  {text}"));
            }
            names.insert(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = saved
        .iter()
        .map(|(place, rules)| (place.clone(), rules.len()));
    assert_eq!(at, all.collect::<BTreeMap<_, _>>(), "all rules were seen");
    names
}

#[test]
fn matches_and_targets_are_as_iptables_save_prints_them() {
    if !alone() {
        return;
    }
    sh(&format!(
        "iptables-nft-restore < {V4}; ip6tables-nft-restore < {V6}"
    ));
    let names = compare(Family::Ip, "iptables-nft-save");
    let wanted = [
        "addrtype",
        "conntrack",
        "comment",
        "physdev",
        "multiport",
        "icmp",
        "REJECT",
        "DNAT",
        "MARK",
    ];
    for name in wanted {
        assert!(names.contains(name), "{name} of {names:?}");
    }
    assert!(names.len() > 60, "{names:?}");
    let names = compare(Family::Ip6, "ip6tables-nft-save");
    assert!(names.contains("icmp6") && names.contains("hl"), "{names:?}");
}
