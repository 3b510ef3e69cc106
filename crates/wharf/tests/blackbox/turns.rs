//! Many commands that change the same container at once.

use crate::common::*;
use std::thread;
use wharf_testkit::{Host, Snapshot, require};

/// Runs all commands at the same time; those in `may_fail` may find the container gone.
#[track_caller]
fn at_once(host: &Host, must: &[String], may_fail: &[String]) {
    thread::scope(|scope| {
        for line in must {
            scope.spawn(move || host.w(line).ok());
        }
        for line in may_fail {
            scope.spawn(move || host.w(line));
        }
    });
}

#[track_caller]
fn sound(host: &Host) {
    for line in ["repair --dry-run --json", "gc --dry-run --json"] {
        let steps = &host.w(line).json()["steps"];
        assert!(
            steps.as_array().is_none_or(Vec::is_empty),
            "{line}: {steps:#}"
        );
    }
}

fn lines(count: u16, line: impl Fn(u16) -> String) -> Vec<String> {
    (1..=count).map(line).collect()
}

#[test]
fn whoever_changes_a_container_loses_nothing_of_the_others() {
    require!();
    let host = host();
    network(&host, "blue", 1, "");
    for n in 2..8 {
        network(&host, &format!("n{n}"), n, "");
    }
    container(&host, "web", "blue", 1, 10, "");
    let publish = lines(10, |n| format!("port add web {}:80", 7000 + n));
    let connect = lines(6, |n| format!("network connect n{} web", n + 1));
    at_once(&host, &[publish, connect].concat(), &[]);
    let web = host.inspect("web");
    assert_eq!(web["ports"].as_array().map(Vec::len), Some(10), "{web:#}");
    assert_eq!(web["networks"].as_array().map(Vec::len), Some(7), "{web:#}");
    sound(&host);

    let close = lines(10, |n| format!("port rm web {}:80", 7000 + n));
    let leave = lines(6, |n| format!("network disconnect n{} web", n + 1));
    at_once(&host, &[close, leave].concat(), &[]);
    let web = host.inspect("web");
    assert_eq!(web["ports"].as_array().map(Vec::len), Some(0), "{web:#}");
    assert_eq!(web["networks"].as_array().map(Vec::len), Some(1), "{web:#}");
    sound(&host);
}

#[test]
fn who_is_removed_leaves_nothing_of_what_others_gave_him() {
    require!();
    let host = host();
    network(&host, "blue", 1, "");
    network(&host, "green", 2, "");
    let without = Snapshot::of(&host);
    for _ in 0..6 {
        container(&host, "web", "blue", 1, 10, "");
        let mut change = lines(5, |n| format!("port add web {}:80", 7000 + n));
        change.push("network connect green web".to_owned());
        at_once(&host, &["rm -f web".to_owned()], &change);
        sound(&host);
        without.assert_same(&host, "the container is gone");
    }
}

#[test]
fn a_network_goes_by_force_whoever_comes_meanwhile() {
    require!();
    let host = host();
    for _ in 0..6 {
        network(&host, "blue", 1, "");
        let come = lines(8, |n| format!("create c{n} --network blue"));
        at_once(&host, &["network rm -f blue".to_owned()], &come);
        sound(&host);
        let there = names(&host.w("ps --json").json());
        if !there.is_empty() {
            host.w(&format!("rm -f {}", there.join(" "))).ok();
        }
    }
}

#[test]
fn who_dies_in_his_turn_keeps_nobody_from_his() {
    require!();
    let host = host();
    network(&host, "blue", 1, "");
    container(&host, "web", "blue", 1, 10, "");
    for step in 2..8 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let line = ["port", "add", "web", "7000:80"];
                let step = step.to_string();
                host.wharf_command(&line).env("WHARF_FAIL_AT", step).run()
            });
            for n in 1..4 {
                let host = &host;
                scope.spawn(move || host.w(&format!("port add web {}:80", 7000 + n)).ok());
            }
        });
        let web = host.inspect("web");
        let ports = web["ports"].as_array().map_or(0, Vec::len);
        assert!(ports >= 3, "step {step}: {web:#}");
        sound(&host);
        host.w("port rm web 7001:80 7002:80 7003:80").ok();
        host.w("port rm web 7000:80");
    }
}
