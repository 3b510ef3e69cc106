//! Each folder in `cases` has a `request.toml`, with the topology `before` and the one `after`, and the
//! commands that lead from one to the other. A new case is a new folder; `UPDATE=1` writes the commands.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the cases are files")]

mod common;

use std::path::Path;

use serde::Deserialize;
use wharf_core::diff::diff;
use wharf_core::render::{plan_json, script};
use wharf_core::topology::Topology;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    before: Topology,
    #[serde(default)]
    after: Topology,
}

#[test]
fn plans_are_the_commands_written_down() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(cases).unwrap() {
        let dir = entry.unwrap().path();
        let text = std::fs::read_to_string(dir.join("request.toml")).unwrap();
        let case: Case = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let plan = diff(
            &common::state(case.after),
            &common::state(case.before),
            "the case",
        );
        let made = script(&plan);
        let json = serde_json::to_value(plan_json(&plan)).unwrap();
        assert_eq!(json["steps"].as_array().unwrap().len(), plan.steps.len());
        seen += 1;
        let file = dir.join("commands.txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        if written != made {
            wrong.push(format!("{}:\n{made}", dir.display()));
        }
    }
    assert!(seen > 0);
    assert!(
        wrong.is_empty(),
        "other commands than written down (UPDATE=1 accepts them):\n{}",
        wrong.join("\n")
    );
}
