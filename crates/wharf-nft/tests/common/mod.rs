//! A private network namespace for each test, and `nft` as independent witness.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Moves this thread (and what it starts) into a network namespace of its own. Prints SKIPPED and returns false where
/// that is not allowed. As somebody else than root, run the tests under `unshare -Ur`: a test runs in a thread, and a
/// process with threads cannot make a user namespace by itself.
pub fn private_netns() -> bool {
    // SAFETY: unshare takes no pointers.
    let allowed = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    if !allowed {
        println!(
            "SKIPPED: no network namespace: {}; try unshare -Ur",
            std::io::Error::last_os_error()
        );
    }
    allowed
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

/// Loads a ruleset; what `nft` says if it refuses.
pub fn try_nft(rules: &str) -> Option<String> {
    let path = std::env::temp_dir().join(format!("wharf-nft-{}.nft", std::process::id()));
    std::fs::write(&path, rules).expect("write rules");
    let output = Command::new("nft")
        .arg("-f")
        .arg(&path)
        .output()
        .expect("start nft");
    std::fs::remove_file(&path).expect("remove rules");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Loads what this kernel and this nft can do of the corpus, line by line where the whole is refused.
pub fn load_corpus() {
    let mut lines: Vec<&str> = include_str!("../corpus.nft").lines().collect();
    loop {
        let text = lines.join("\n");
        let Some(error) = try_nft(&text) else {
            return;
        };
        // nft names the line as "/dev/stdin:12:9-20: Error: …" (from 1).
        let line = error
            .split(':')
            .nth(1)
            .and_then(|n| n.parse::<usize>().ok());
        let Some(line) = line.filter(|n| (1..=lines.len()).contains(n)) else {
            panic!("{error}")
        };
        let why = error.lines().next().unwrap_or_default();
        println!("not here: {} ({why})", lines[line - 1].trim());
        assert!(!lines[line - 1].trim().is_empty(), "{error}");
        lines[line - 1] = "";
    }
}
