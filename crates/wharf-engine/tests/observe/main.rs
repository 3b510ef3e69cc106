//! What the reader for `wharf trace` sees, with `ip`, `bridge`, `tc`, `ss`, `conntrack` and the files of `/proc/sys` as
//! witnesses.
//!
//! Needs root; says so and passes without.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod links;
mod names;
mod rest;
mod routes;

use std::process::Command;

use serde_json::Value;
use wharf_core::trace::{ObservedState, Space};
use wharf_engine::observe::world::{Ask, Wanted, world};

/// Takes the calling thread into a network and a mount namespace of its own, with an empty `/run`.
pub fn alone() -> bool {
    // SAFETY: unshare takes no pointers; it concerns this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) } != 0 {
        println!("SKIPPED: unshare needs root");
        return false;
    }
    sh("mount --make-rprivate /
        mount -t tmpfs run /run
        mount -t sysfs sys /sys
        sysctl -qw net.ipv6.conf.default.accept_dad=0
        ip link set lo up");
    true
}

/// Runs a shell script, which must succeed; its output.
#[track_caller]
pub fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}\n{text}{errors}");
    text
}

/// What a command prints as JSON.
#[track_caller]
pub fn json(command: &str) -> Vec<Value> {
    let text = sh(command);
    let text = if text.trim().is_empty() { "[]" } else { &text };
    let Value::Array(list) = serde_json::from_str(text).unwrap() else {
        panic!("{command} prints no list: {text}");
    };
    // `ip` prints empty objects for what a selection leaves out.
    list.into_iter()
        .filter(|v| v.as_object().is_none_or(|o| !o.is_empty()))
        .collect()
}

/// Reads the world with named namespaces in full.
pub fn see(names: &[&str]) -> ObservedState {
    let wanted = names.iter().map(|name| Wanted {
        name: (*name).to_owned(),
        path: format!("/run/netns/{name}").into(),
    });
    world(&Ask {
        wanted: wanted.collect(),
        ..Ask::default()
    })
}

/// A namespace by its shown name.
#[track_caller]
pub fn space<'a>(state: &'a ObservedState, name: &str) -> &'a Space {
    let found = state.spaces.iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("there is no space {name}"))
}

/// A member of a JSON object as text; empty if it is not there.
pub fn word(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
