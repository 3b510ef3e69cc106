//! `wharf run` and `wharf exec`: what the program sees, signals, exit status, leaving nothing behind.

use crate::common::*;
use std::time::{Duration, Instant};
use wharf_testkit::{Host, Snapshot, eventually, require};

/// The names of a shell script that runs in a container.
fn sh<'a>(script: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--rm"], more, &["--", "sh", "-c", script]].concat()
}

#[test]
fn output_input_and_status_pass_through() {
    require!();
    let host = host();
    let got = host
        .wharf(&sh("echo out; echo err >&2; exit 7", &[]))
        .exits(7);
    assert_eq!(got.stdout, "out\n");
    assert!(got.stderr.contains("err"), "{}", got.transcript());
    let got = host
        .wharf_command(&["run", "--rm", "--", "cat"])
        .input("typed")
        .run()
        .ok();
    assert_eq!(got.stdout, "typed");
    let got = host
        .wharf(&[
            "run", "--rm", "--", "printf", "%s|", "a b", "--rm", "$HOME", "",
        ])
        .ok();
    assert_eq!(
        got.stdout, "a b|--rm|$HOME||",
        "arguments arrive as they are"
    );
}

#[test]
fn statuses_are_dockers() {
    require!();
    let host = host();
    let plain = host.dir().write("plain-file", "not a program");
    for prefix in [&["run", "--rm", "--"][..], &["exec", "c1", "--"][..]] {
        if prefix[0] == "exec" {
            host.w("create c1").ok();
        }
        host.wharf(&[prefix, &["/no/such/program"]].concat())
            .fails(127);
        host.wharf(&[prefix, &["no-such-program"]].concat())
            .fails(127);
        host.wharf(&[prefix, &[&plain]].concat()).fails(126);
        host.wharf(&[prefix, &["/tmp"]].concat()).fails(126);
        host.wharf(&[prefix, &["sh", "-c", "exit 42"]].concat())
            .exits(42);
        host.wharf(&[prefix, &["sh", "-c", "kill -KILL $$"]].concat())
            .exits(128 + 9);
    }
    host.wharf(&["run", "--rm", "--network", "nowhere", "--", "true"])
        .fails(125)
        .says("nowhere");
    let code = host
        .wharf(&["exec", "nobody", "--", "true"])
        .says("nobody")
        .code;
    assert!(
        matches!(code, Some(1 | 125)),
        "exec in no container: {code:?}"
    );
    assert_eq!(
        names(&host.w("ps --json").json()),
        ["c1"],
        "failed runs leave no container"
    );
}

#[test]
fn signals_reach_the_program() {
    require!();
    let host = host();
    let script = "trap 'echo got TERM; exit 5' TERM; trap 'echo got INT; exit 6' INT; echo ready; while :; do sleep 0.02; done";
    for (signal, said, code) in [(libc_term(), "got TERM", 5), (libc_int(), "got INT", 6)] {
        let mut running = host.wharf_command(&sh(script, &[])).spawn();
        eventually("the program runs", || {
            running.stdout().contains("ready").then_some(())
        });
        running.signal(signal);
        let got = running.wait_within(Duration::from_secs(10)).exits(code);
        assert!(got.stdout.contains(said), "{}", got.transcript());
    }
    eventually("nothing is left", || {
        names(&host.w("ps --json").json()).is_empty().then_some(())
    });
}

fn libc_term() -> i32 {
    15
}

fn libc_int() -> i32 {
    2
}

#[test]
fn detached_it_returns_at_once_and_the_program_goes_on() {
    require!();
    let host = host();
    let start = Instant::now();
    let got = host.w("run -d --name sleeper -- sleep 1000").ok();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(
        got.stdout.lines().count(),
        1,
        "it prints the id or the name: {}",
        got.transcript()
    );
    let inspected = host.inspect("sleeper");
    let pid = inspected["pid"].as_i64().expect("a pid") as i32;
    assert!(
        host.processes()
            .iter()
            .any(|(other, line)| *other == pid && line.contains("sleep 1000"))
    );
    assert_eq!(
        host.netns_of(pid).interfaces(),
        host.container("sleeper").interfaces(),
        "one namespace, two names"
    );
    assert_eq!(
        host.sh("ip netns exec sleeper cat /proc/net/dev | grep -c eth0")
            .trim(),
        "1",
        "`ip netns exec` works"
    );
    let refused = host.w("rm sleeper").fails(1);
    assert!(
        refused.stderr.contains("-f"),
        "a running container needs -f: {}",
        refused.transcript()
    );
    host.w("rm -f sleeper").ok();
    assert!(
        !host
            .processes()
            .iter()
            .any(|(_, line)| line.contains("sleep 1000")),
        "{:?}",
        host.processes()
    );
}

/// Whatever runs in the container, not only what was started first; what runs in a namespace of somebody else's stays.
#[test]
fn what_the_program_has_started_ends_with_the_container() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let sleepers = || {
        let all = host.processes();
        let number = |line: &str| line.strip_prefix("sleep ").map(str::to_owned);
        let mut found: Vec<_> = all.iter().filter_map(|(_, line)| number(line)).collect();
        found.sort();
        found
    };
    let script = "setsid sleep 1001 & sleep 1002 & exec sleep 1003";
    let run = [
        "run",
        "-d",
        "--name",
        "a",
        "--network",
        "A",
        "--",
        "sh",
        "-c",
        script,
    ];
    host.wharf(&run).ok();
    host.w("exec -d a -- sleep 1004").ok();
    host.sh("ip netns add own");
    host.w("create b --network A --netns /run/netns/own").ok();
    host.w("create c --network A").ok();
    host.w("exec -d b -- sleep 2001").ok();
    host.w("exec -d c -- sleep 1005").ok();
    let all = ["1001", "1002", "1003", "1004", "1005", "2001"];
    eventually("all of them run", || (sleepers() == all).then_some(()));
    host.w("rm -f a b c").ok();
    assert_eq!(sleepers(), ["2001"]);
    let script = "setsid sleep 1001 & sleep 1002 & exit 3";
    host.wharf(&["run", "--rm", "--network", "A", "--", "sh", "-c", script])
        .exits(3);
    assert_eq!(sleepers(), ["2001"]);
}

#[test]
fn a_detached_program_that_ends_is_cleaned_up_with_rm() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let before = Snapshot::of(&host);
    host.w("run -d --rm --name short --network A -p 8080:80 -- sleep 0.2")
        .ok();
    eventually("--rm after the end", || {
        names(&host.w("ps --json").json()).is_empty().then_some(())
    });
    eventually("the host is as before", || {
        before
            .difference(&Snapshot::of(&host))
            .is_empty()
            .then_some(())
    });
    host.w("run -d --rm --name short --network A -p 8080:80 -- sleep 1000")
        .ok();
    host.w("rm -f short").ok();
}

#[test]
fn the_program_has_its_own_net_mount_and_uts_namespace() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let hostname = host.sh("hostname");
    let script = "hostname; hostname changed; mount -t tmpfs none /mnt; ls -A /mnt; readlink /proc/self/ns/net \
                  /proc/self/ns/mnt /proc/self/ns/uts; ip -br link | wc -l; cat /sys/class/net/lo/ifindex; ls /sys/class/net";
    let got = host.wharf(&sh(script, &["--name", "web"])).ok();
    let lines: Vec<_> = got.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "web",
        "the hostname is the container's name: {}",
        got.transcript()
    );
    let own = host.sh("readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/uts");
    for namespace in own.lines() {
        assert!(
            !lines.contains(&namespace),
            "{namespace} is shared with the host: {}",
            got.transcript()
        );
    }
    assert!(
        lines.contains(&"eth0") && lines.contains(&"lo") && !lines.contains(&"up0"),
        "{}",
        got.transcript()
    );
    assert_eq!(
        host.sh("hostname").trim(),
        hostname.trim(),
        "the host keeps its name"
    );
    host.w("network rm default").ok();
    before.assert_same(&host, "one run");
}

#[test]
fn hosts_and_resolv_conf_make_sense() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let host_files = host.sh("cat /etc/hosts /etc/resolv.conf");
    let args = [
        "--name",
        "web",
        "--network",
        "A",
        "--ip",
        "10.88.1.11",
        "--ip",
        "fd00:88:1::11",
    ];
    let got = host
        .wharf(&sh("cat /etc/hosts; echo ==; cat /etc/resolv.conf", &args))
        .ok()
        .stdout;
    let (hosts, resolv) = got.split_once("==\n").expect("both files");
    let line_of = |address: &str| {
        hosts
            .lines()
            .find(|line| line.split_whitespace().next() == Some(address))
    };
    for address in ["10.88.1.11", "fd00:88:1::11"] {
        let line = line_of(address).unwrap_or_else(|| panic!("no line for {address} in\n{hosts}"));
        assert!(line.split_whitespace().any(|word| word == "web"), "{line}");
    }
    assert!(
        line_of("127.0.0.1").is_some_and(|line| line.contains("localhost")),
        "{hosts}"
    );
    assert!(
        !hosts.contains("private-host"),
        "the host's own names are not the container's:\n{hosts}"
    );
    assert!(resolv.contains("nameserver 192.0.2.50"), "{resolv}");
    assert!(resolv.contains("example.test"), "{resolv}");
    assert_eq!(
        host.sh("cat /etc/hosts /etc/resolv.conf"),
        host_files,
        "the host's files are untouched"
    );
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_not_given_to_the_container() {
    require!();
    let host = host();
    host.sh("echo 'nameserver 127.0.0.53' > /etc/resolv.conf");
    let got = host
        .wharf(&sh("cat /etc/resolv.conf; echo shown", &[]))
        .ok();
    assert!(got.stdout.ends_with("shown\n"), "{}", got.transcript());
    assert!(
        !got.stdout.contains("nameserver 127."),
        "nobody answers there: {}",
        got.transcript()
    );
}

#[test]
fn exec_joins_the_namespaces_of_the_program() {
    require!();
    let host = host();
    host.w("run -d --name web -- sleep 1000").ok();
    let look =
        "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/uts; hostname; cat /etc/hosts";
    let pid = host.inspect("web")["pid"].as_i64().expect("a pid");
    let theirs = host.sh(&format!("cd /proc/{pid}/ns; readlink net mnt uts"));
    let got = host.wharf(&["exec", "web", "--", "sh", "-c", look]).ok();
    assert!(
        got.stdout.starts_with(&theirs),
        "not {theirs}: {}",
        got.transcript()
    );
    assert_eq!(got.stdout.lines().nth(3), Some("web"));
    host.w("create empty").ok();
    let got = host
        .wharf(&["exec", "empty", "--", "cat", "/sys/class/net/eth0/carrier"])
        .ok();
    assert_eq!(got.stdout, "1\n", "exec in a namespace without a program");
}

#[test]
fn a_failed_run_leaves_nothing() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    host.w("create taken --network A -p 8080:80").ok();
    let before = Snapshot::of(&host);
    for args in [
        "run --network A -p 8080:80 -- true",
        "run --network A --network nowhere -- true",
    ] {
        host.w(args).fails(125);
        before.assert_same(&host, args);
    }
    host.w("run --name gone --network A -- /no/such/program")
        .fails(127);
    check_gone(&host, "gone");
    before.assert_same(&host, "a program that does not exist");
}

#[track_caller]
fn check_gone(host: &Host, name: &str) {
    let left = names(&host.w("ps --json").json());
    assert!(!left.contains(&name.to_owned()), "{left:?}");
}

/// The one that waited for it is killed: what it would have removed is free for the next, and `gc` removes it.
#[test]
fn a_transient_container_whose_waiter_was_killed_is_nobodys() {
    require!();
    let host = host();
    host.w("network create N --subnet 10.88.9.0/24").ok();
    let run = |name: &str| {
        let mut running = host.w_spawn(&format!(
            "run --rm --name {name} --network N -p 7070:70 -- sleep 40"
        ));
        eventually("it runs", || {
            let all = host.w("ps --json").ok().json();
            let one = all.as_array()?.iter().find(|c| c["name"] == name)?.clone();
            (one["status"] == "running").then_some(())
        });
        running.signal(9);
        let _ = running.wait();
    };
    run("one");
    eventually("the port is free", || {
        (host.w("create other --network N -p 7070:70").code == Some(0)).then_some(())
    });
    assert_eq!(names(&host.w("ps --all --json").json()), ["other"]);
    host.w("rm -f other").ok();
    run("two");
    eventually("it is removed", || {
        host.w("gc").ok();
        names(&host.w("ps --all --json").json())
            .is_empty()
            .then_some(())
    });
}

/// What fails leaves nothing, the network `default` that was made by the way included.
#[test]
fn the_default_network_goes_with_a_change_that_fails() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let file = host.dir().write(
        "t.yaml",
        "containers: {c: {}, d: {ports: ['192.0.2.77:80:80']}}\n",
    );
    host.w("network create other --subnet 10.88.1.0/24").ok();
    host.w("create there --network other").ok();
    let with = Snapshot::of(&host);
    for (line, code) in [
        ("run -- /no/such/program".to_owned(), 127),
        ("run -d -- /no/such/program".to_owned(), 127),
        ("run -- /etc/passwd".to_owned(), 126),
        ("run --workdir /no/such -- true".to_owned(), 125),
        ("run -p 192.0.2.77:80:80 -- true".to_owned(), 125),
        ("run --ip 192.0.2.77 -- true".to_owned(), 125),
        ("run -p x -- true".to_owned(), 2),
        ("network connect default:ip=192.0.2.77 there".to_owned(), 1),
        (format!("apply {file}"), 1),
    ] {
        host.w(&line).fails(code);
        assert_eq!(
            names(&host.w("network ls --json").json()),
            ["other"],
            "{line}"
        );
        assert_eq!(names(&host.w("ps --json").json()), ["there"], "{line}");
        with.assert_same(&host, &line);
    }
    remove(&host, &["there"], &["other"]);
    before.assert_same(&host, "all");
    host.w("run --rm -- true").ok();
    assert_eq!(names(&host.w("network ls --json").json()), ["default"]);
}
