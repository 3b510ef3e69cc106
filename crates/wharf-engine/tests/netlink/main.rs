//! The real kernel in namespaces of its own, with `ip`, `bridge` and `nft` as witnesses.
//!
//! Needs root; says so and passes without.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod attach;
mod evaluate;
mod extras;
mod failures;
mod rules;
#[path = "../../../wharf-core/tests/common/mod.rs"]
mod state;

use std::process::Command;

/// Takes the calling thread into a network and a mount namespace of its own, with an empty `/run`.
pub fn alone() -> bool {
    // SAFETY: unshare takes no pointers; it concerns this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) } != 0 {
        println!("SKIPPED: unshare needs root");
        return false;
    }
    sh(
        "mount --make-rprivate / && mount -t tmpfs run /run && mount -t sysfs sys /sys && ip link set lo up",
    );
    true
}

/// Runs a shell script; its output.
pub fn sh(script: &str) -> String {
    let (ok, text) = try_sh(script);
    assert!(ok, "{script}\n{text}");
    text
}

/// Runs a shell script; whether it succeeded, and its output.
pub fn try_sh(script: &str) -> (bool, String) {
    let out = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (
        out.status.success(),
        text + &String::from_utf8_lossy(&out.stderr),
    )
}
