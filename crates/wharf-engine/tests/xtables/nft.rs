//! iptables-nft: what it leaves to xtables is in `match` and `target` expressions, between native ones.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::trace::ruleset::{Expr as Lowered, Match, RuleVerdict, TableFamily};
use wharf_engine::observe::rules::xtables::{
    SetNames, as_saved, lower_match, lower_target, text_of_match, text_of_target,
};
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

/// What is not decoded to the last option, and says so.
fn shortened(theirs: &str, ours: &str) -> bool {
    let begins = ours.strip_suffix(" ...");
    begins.is_some_and(|begins| theirs.starts_with(begins))
}

#[test]
fn whole_rules_are_as_iptables_save_prints_them() {
    if !alone() {
        return;
    }
    sh(&format!(
        "iptables-nft-restore < {V4}; ip6tables-nft-restore < {V6}; iptables-nft -A T -j TRACE"
    ));
    let none = SetNames::new();
    for (family, program) in [
        (Family::Ip, "iptables-nft-save"),
        (Family::Ip6, "ip6tables-nft-save"),
    ] {
        let saved = saved(program);
        let mut at: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for rule in NfSocket::open().unwrap().dump_rules().unwrap() {
            if rule.family != family {
                continue;
            }
            let place = (rule.table.clone(), rule.chain.clone());
            let n = at.entry(place.clone()).or_default();
            let theirs = saved[&place][*n].trim_end();
            *n += 1;
            let text = as_saved(&rule, &none).unwrap_or_else(|| panic!("{theirs}\n{rule:#?}"));
            let ours = format!("-A {} {text}", rule.chain);
            if theirs != ours.trim_end() && !shortened(theirs, &ours) {
                wrong.push(format!("{theirs}\n  {ours}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(at.values().sum::<usize>() > 190, "{at:?}");
    }
}

#[test]
fn a_rule_of_nft_itself_has_no_such_text() {
    if !alone() {
        return;
    }
    sh("nft add table ip filter; nft add chain ip filter c
        nft add rule ip filter c tcp dport 80 drop
        nft add rule ip filter c tcp dport { 80, 81 } counter drop
        nft add rule ip filter c ct state new counter drop
        nft add rule ip filter c th dport 80 counter drop
        nft add rule ip filter c meta mark set 5 counter");
    let rules = NfSocket::open().unwrap().dump_rules().unwrap();
    assert_eq!(rules.len(), 5);
    for rule in rules {
        assert_eq!(as_saved(&rule, &SetNames::new()), None, "{rule:?}");
    }
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

#[test]
fn rules_of_ebtables_are_decoded() {
    if !alone() {
        return;
    }
    sh("ebtables-nft -A FORWARD -p IPv4 --ip-src 10.0.0.1 --ip-dst ! 10.0.0.0/8 --ip-proto tcp --ip-dport 80:90 -j DROP
        ebtables-nft -A FORWARD -p IPv4 --ip-tos 0x10 --ip-proto udp --ip-sport ! 53 -j DROP
        ebtables-nft -A FORWARD -p IPv4 --ip-proto icmp --ip-icmp-type 8 -j DROP
        ebtables-nft -A FORWARD -p IPv6 --ip6-src fd00::1 --ip6-proto ! tcp -j DROP
        ebtables-nft -A FORWARD --mark ! 5/0xff -j DROP
        ebtables-nft -A FORWARD --mark 5 -j DROP
        ebtables-nft -A FORWARD --pkttype-type ! broadcast -j DROP
        ebtables-nft -A FORWARD -j mark --mark-or 0x5 --mark-target ACCEPT
        ebtables-nft -A FORWARD -j mark --mark-set 0x5 --mark-target CONTINUE
        ebtables-nft -t nat -A POSTROUTING -j snat --to-src 02:00:00:00:00:02 --snat-arp
        ebtables-nft -t nat -A PREROUTING -j dnat --to-dst 02:00:00:00:00:02");
    let saved = sh("ebtables-nft-save");
    let bridge = TableFamily::Bridge;
    let (mut all, mut seen) = (Vec::new(), 0);
    for rule in NfSocket::open().unwrap().dump_rules().unwrap() {
        for expr in &rule.exprs {
            let text = match expr {
                Expr::Match(m) => {
                    all.extend(lower_match(&m.name, m.rev, &m.info.0, bridge));
                    text_of_match(&m.name, m.rev, &m.info.0, bridge)
                }
                Expr::Target(t) => {
                    all.extend(lower_target(&t.name, t.rev, &t.info.0, bridge));
                    text_of_target(&t.name, t.rev, &t.info.0, bridge)
                }
                _ => continue,
            };
            // Types of ICMP have names there.
            let text = text.replace("type 8/0", "type echo-request");
            assert!(saved.contains(&format!(" {text}")), "{text}\n{saved}");
            seen += 1;
        }
    }
    assert_eq!(seen, 11);
    for (test, invert) in [
        (Match::Dport(80, 90), false),
        (Match::Sport(53, 53), true),
        (Match::IcmpType(8, 0, 0), false),
        (Match::Proto(6), true),
        (Match::Mark(5, 0xff), true),
        (Match::Mark(5, u32::MAX), false),
        (Match::PktType(1), true),
    ] {
        let wanted = Lowered::Match { test, invert };
        assert!(all.contains(&wanted), "{wanted:?} {all:#?}");
    }
    let (value, mask) = (5, 5);
    let mark = [
        Lowered::SetMark { value, mask },
        Lowered::Verdict(RuleVerdict::Accept),
    ];
    assert!(all.windows(2).any(|w| w == mark), "{all:#?}");
}
