//! `docs/packet-rules.md` shows the rules as `nft` lists them. `packet_rules.md` beside this file is its text, in which a line
//! such as `{{inet chain forward}}` stands for a block of the listing. `UPDATE=1` writes the page.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the page is a file")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use wharf_core::compile;
use wharf_core::render::ruleset;
use wharf_core::topology::Topology;

const TEXT: &str = include_str!("packet_rules.md");

/// The topology that the page shows between its first ```` ```toml ```` and the next fence.
fn example() -> Topology {
    let (_, rest) = TEXT.split_once("```toml\n").unwrap();
    let (toml, _) = rest.split_once("```").unwrap();
    toml::from_str(toml).unwrap()
}

/// The listing's blocks (`chain forward { … }`) by `inet chain forward`, without the tables' indentation.
fn blocks(listing: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let (mut table, mut name, mut block) = ("", String::new(), String::new());
    for line in listing.lines() {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.split(' ').next().unwrap();
        } else if let Some(inner) = line.strip_prefix('\t') {
            if block.is_empty() {
                name = format!("{table} {}", inner.trim_end_matches(" {"));
            }
            block += &inner.replace('\t', "        ");
            block.push('\n');
            if inner == "}" {
                all.insert(std::mem::take(&mut name), std::mem::take(&mut block));
            }
        }
    }
    all
}

#[test]
fn the_page_shows_the_rules_as_they_are() {
    let mut state = compile::base();
    let transit = compile::transit(Some(&compile::Unforwarded {
        links: vec!["eth0".parse().unwrap()],
        families: wharf_core::addr::Family::BOTH.to_vec(),
        wanted: Vec::new(),
        routing: Vec::new(),
    }));
    state.retain(|r| !transit.iter().any(|t| t.key() == r.key()));
    state.extend(transit);
    let docker0 = "docker0".parse::<wharf_core::name::IfName>().unwrap();
    let docker = compile::Docker {
        unguarded: [(wharf_core::addr::Family::V4, docker0.clone())].into(),
        bridges: [docker0].into(),
    };
    state.extend(docker.elements());
    state.extend(common::state(example()));
    let mut blocks = blocks(&ruleset(&state));
    let mut page = String::new();
    for line in TEXT.lines() {
        let place = line.strip_prefix("{{").and_then(|l| l.strip_suffix("}}"));
        match place {
            Some(name) => {
                page += &blocks
                    .remove(name)
                    .unwrap_or_else(|| panic!("`{name}` is not in the listing, or is shown twice"));
            }
            None => {
                page += line;
                page.push('\n');
            }
        }
    }
    let left: Vec<&String> = blocks.keys().collect();
    assert!(left.is_empty(), "packet_rules.md says nothing of {left:#?}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/packet-rules.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/packet-rules.md is out of date (UPDATE=1 writes it)"
    );
}
