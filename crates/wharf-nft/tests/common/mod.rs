//! A private network namespace for each test, and `nft` as independent witness.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Moves this thread (and what it starts) into a network namespace of its own; as somebody else than root, into a
/// user namespace too. Prints SKIPPED and returns false where neither is allowed.
pub fn private_netns() -> bool {
    // SAFETY: unshare takes no pointers, geteuid neither.
    let unshare = |flags| unsafe { libc::unshare(flags) } == 0;
    if unshare(libc::CLONE_NEWNET) {
        return true;
    }
    // SAFETY: geteuid and getegid always succeed.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if !unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) {
        println!(
            "SKIPPED: no network namespace: {}",
            std::io::Error::last_os_error()
        );
        return false;
    }
    std::fs::write("/proc/self/setgroups", "deny").expect("write setgroups");
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("write uid_map");
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("write gid_map");
    true
}

/// Runs a command, gives it `input`, returns what it prints; fails the test if the command fails.
pub fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(input.as_bytes())
        .expect("write input");
    let output = child.wait_with_output().expect("wait");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?} failed: {errors}\n{input}"
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Loads a ruleset with `nft -f`.
pub fn nft_load(rules: &str) {
    run("nft", &["-f", "-"], rules);
}

/// `nft -s list ruleset`: without counters' values.
pub fn nft_list() -> String {
    run("nft", &["-s", "list", "ruleset"], "")
}

/// Compares line by line without regard to indentation and empty lines.
#[track_caller]
pub fn assert_same(got: &str, wanted: &str) {
    let clean = |s: &str| {
        s.lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        clean(got),
        clean(wanted),
        "\n--- got\n{got}\n--- wanted\n{wanted}"
    );
}
