//! The text of rules against the text that `nft` prints.

use std::collections::BTreeMap;

use wharf_engine::observe::rules;

use super::super::{alone, sh};
use super::cases;

/// Rules by table and handle, as `nft` lists them.
fn listed() -> BTreeMap<(String, u64), String> {
    let (mut table, mut chain) = (String::new(), false);
    let mut all = BTreeMap::new();
    for line in sh("nft -s -a list ruleset").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.rsplit_once(" # handle "), words.as_slice()) {
            (Some(_), ["table", family, name, ..]) => table = format!("{family} {name}"),
            (Some(_), ["chain", ..]) => chain = true,
            (Some(_), ["set" | "map" | "counter" | "limit" | "quota", _, "{", ..]) => chain = false,
            (Some((text, handle)), _) if chain => {
                let handle = handle.trim().parse().unwrap();
                all.insert((table.clone(), handle), text.trim().to_owned());
            }
            _ => {}
        }
    }
    all
}

fn ours() -> BTreeMap<(String, u64), String> {
    let loaded = wharf_nft::NfSocket::open().unwrap().ruleset().unwrap();
    let lowered = rules::ruleset(loaded);
    let mut all = BTreeMap::new();
    for chain in lowered.chains {
        let family = format!("{:?}", chain.family).to_lowercase();
        for rule in chain.rules {
            all.insert(
                (format!("{family} {}", chain.table), rule.handle),
                rule.text.get(),
            );
        }
    }
    all
}

#[test]
fn rules_read_as_nft_prints_them() {
    if !alone() {
        return;
    }
    sh("ip link add va type veth peer name vb");
    let index = sh("cat /sys/class/net/va/ifindex /sys/class/net/vb/ifindex");
    let index: Vec<&str> = index.split_whitespace().collect();
    // Names of links are not in the dump.
    let numbered = |text: &str| {
        text.replace("if \"va\"", &format!("if {}", index[0]))
            .replace("if \"vb\"", &format!("if {}", index[1]))
    };
    let mut different = Vec::new();
    let mut same = 0;
    for (_, text) in cases::NFT.iter().chain(cases::TEXTS) {
        sh("nft flush ruleset");
        sh(&format!("nft -f - <<'EOF'\n{text}\nEOF"));
        let ours = ours();
        for (key, theirs) in listed() {
            match ours.get(&key) {
                Some(text) if *text == numbered(&theirs) => same += 1,
                // Of a table that sleeps no rules are kept.
                None if key.0 == "inet asleep" => {}
                other => different.push(format!("{theirs}\n  {other:?}")),
            }
        }
    }
    assert!(
        different.is_empty(),
        "{same} are as nft prints them; not:\n{}",
        different.join("\n")
    );
    assert!(same > 100, "{same}");
}
