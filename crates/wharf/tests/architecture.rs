//! The arrows of ARCHITECTURE.md: who may depend on whom, where `unsafe` may stand, how long a file may be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the workspace's crates are built from. What only their tests use is not listed.
const ALLOWED: &[(&str, &[&str])] = &[
    ("wharf-core", &["ipnet", "serde", "thiserror"]),
    ("wharf-nft", &["libc", "thiserror"]),
    (
        "wharf-engine",
        &[
            "heed",
            "ipnet",
            "libc",
            "netlink-packet-core",
            "netlink-packet-route",
            "netlink-sys",
            "serde",
            "serde_json",
            "thiserror",
            "wharf-core",
            "wharf-nft",
        ],
    ),
    (
        "wharf",
        &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "ipnet",
            "libc",
            "serde",
            "serde-saphyr",
            "serde_json",
            "thiserror",
            "toml",
            "wharf-core",
            "wharf-engine",
            "wharf-nft",
        ],
    ),
    ("wharf-testkit", &["libc", "serde_json"]),
    ("xtask", &["libc", "serde_json"]),
];

/// Crates that others may use in tests only, and the binary, which nobody may use.
const NEVER_BUILT_IN: &[&str] = &["wharf", "wharf-testkit", "xtask"];

/// A file is at most this long, so that it is read in one go.
const LINES: usize = 600;

/// Files that are longer, and must not grow; an entry goes when its file has been divided.
const LONGER: &[(&str, usize)] = &[("crates/wharf-core/src/network.rs", 730)];

/// A dependency as its manifest names it.
struct Dependency {
    name: String,
    dev: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn workspace() -> BTreeMap<String, Vec<Dependency>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let dependency = |d: &serde_json::Value| Dependency {
        name: text(&d["name"]),
        dev: d["kind"].as_str() == Some("dev"),
    };
    let package = |p: &serde_json::Value| {
        let dependencies = p["dependencies"].as_array().unwrap();
        let dependencies = dependencies.iter().map(dependency).collect();
        (text(&p["name"]), dependencies)
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(package).collect()
}

#[test]
fn crates_are_built_from_what_is_listed() {
    let workspace = workspace();
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = workspace.keys().map(String::as_str).collect();
    assert_eq!(there, listed, "the crates of the workspace");
    for (name, allowed) in ALLOWED {
        for d in workspace[*name].iter().filter(|d| !d.dev) {
            assert!(
                allowed.contains(&d.name.as_str()),
                "{name} may not depend on {}; see ARCHITECTURE.md",
                d.name
            );
        }
    }
}

#[test]
fn tests_may_use_the_kit_and_nobody_the_binary() {
    for (name, dependencies) in workspace() {
        for d in dependencies {
            let in_a_test = d.dev && d.name == "wharf-testkit";
            assert!(
                in_a_test || !NEVER_BUILT_IN.contains(&d.name.as_str()),
                "{name} may not depend on {}",
                d.name
            );
        }
    }
}

/// Every Rust file below `dir`, with its text.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            all.push((path, text));
        }
    }
    all
}

#[test]
fn unsafe_stays_in_the_codec_and_the_engine() {
    for part in ["crates/wharf/src", "crates/wharf-core/src"] {
        for (path, text) in sources(&root().join(part)) {
            let code = text.lines().map(|l| l.split("//").next().unwrap_or(l));
            let mut words = code.flat_map(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_'));
            assert!(!words.any(|w| w == "unsafe"), "{}", path.display());
        }
    }
}

#[test]
fn files_are_read_in_one_go() {
    let root = root();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        for (path, text) in sources(&entry.unwrap().path().join("src")) {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let limit = LONGER
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(LINES, |(_, limit)| *limit);
            let lines = text.lines().count();
            if lines > limit {
                wrong.push(format!("{name}: {lines} lines, at most {limit}"));
            }
            if limit > LINES && lines <= LINES {
                wrong.push(format!("{name}: no longer too long; take it off the list"));
            }
            seen += 1;
        }
    }
    assert!(seen > 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let all = sources(&root().join("crates"));
    let mut seen = 0;
    for named in page.split('`').skip(1).step_by(2) {
        let Some((module, test)) = named.split_once("::").filter(|(_, test)| *test != "*") else {
            continue;
        };
        let head = format!("#[test]\nfn {test}(");
        let found = all.iter().any(|(path, text)| {
            let name = path.file_stem().and_then(|stem| stem.to_str());
            name == Some(module) && text.contains(&head)
        });
        assert!(found, "SECURITY.md names `{named}`");
        seen += 1;
    }
    assert!(seen > 30, "only {seen} tests are named");
}
