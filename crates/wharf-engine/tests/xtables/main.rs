//! Rules that iptables writes, read back, with iptables-save as the witness: equal text proves the decoding.
//!
//! Each test is in a network namespace of its own. Needs root, and both kinds of iptables.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ipset;
mod legacy;
mod nft;
mod values;

use std::process::Command;

use wharf_testkit::skip::{Need, require, skipped};

/// Rules with every match and target that Debian's iptables offers and a usual kernel takes.
pub const V4: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xtables/rules/v4.rules");
/// The same for IPv6.
pub const V6: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xtables/rules/v6.rules");

/// Takes the calling thread into a network and a mount namespace of its own; `false` where the test cannot run.
pub fn alone() -> bool {
    let needs = [
        Need::Root,
        Need::Program("iptables-legacy-restore"),
        Need::Program("iptables-nft-restore"),
    ];
    if let Err(reason) = require(&needs) {
        skipped(&reason);
        return false;
    }
    // SAFETY: unshare takes no pointers; it concerns this thread only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    sh("mount --make-rprivate / && mount -t tmpfs run /run");
    true
}

/// Runs a shell script; its output.
pub fn sh(script: &str) -> String {
    let out = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}\n{text}{errors}");
    text
}
