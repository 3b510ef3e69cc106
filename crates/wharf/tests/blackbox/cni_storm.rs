//! Many calls at once, some of them killed: what is valid stays whole, and of the rest nothing stays.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use wharf_testkit::{Echo, Snapshot, addr, eventually, require};

/// How many calls run at a time.
const WORKERS: usize = 16;
/// Where the published ports of the storm begin.
const PORTS: usize = 9000;

/// Debian's host-local speaks neither version 1.1.0 nor `GC`.
const NUMBERS: &str = r#"#!/bin/sh
conf=$(cat)
case $CNI_COMMAND in
GC)
    for record in DATA/theirs/10.*; do
        id=$(head -n 1 "$record" | tr -d '\r')
        case $conf in *"\"containerID\":\"$id\""*) ;; *) rm -f "$record" ;; esac
    done ;;
*)
    printf %s "$conf" | sed 's/"cniVersion":"1.1.0"/"cniVersion":"1.0.0"/' | /usr/lib/cni/host-local ;;
esac
"#;

/// Numbers that are the same at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Lists whose addresses are wharf's to give, and another plugin's.
fn lists(runtime: &Runtime) -> [Value; 2] {
    let data = data(runtime);
    runtime.script("numbers", &NUMBERS.replace("DATA", &data));
    let ours = json!({"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/22"}], [{"subnet": "fd44::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    let theirs = json!({"type": "numbers", "dataDir": data, "subnet": "10.45.0.0/22", "routes": [{"dst": "0.0.0.0/0"}]});
    let named = |name: &str, bridge: &str, ipam: Value| {
        let mut list = list("1.1.0", &json!({"bridge": bridge, "ipam": ipam}));
        list["name"] = json!(name);
        list
    };
    [named("ours", "cni7", ours), named("theirs", "cni8", theirs)]
}

/// What the only plugin of a list is given.
fn conf(list: &Value, port: usize) -> Value {
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]});
    conf
}

/// Where the other plugin keeps its records.
fn data(runtime: &Runtime) -> String {
    let dir = runtime.host.dir().path().join("records");
    dir.to_str().expect("a path of letters").to_owned()
}

fn id(n: usize) -> String {
    format!("pod{n}")
}

/// Runs `work` for each number, by as many workers as there are.
fn at_once(workers: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    work(n);
                }
            });
        }
    });
}

fn namespaces(runtime: &Runtime, verb: &str, count: usize) {
    let all = count - 1;
    runtime.host.sh(&format!(
        "for n in $(seq 0 {all}); do ip netns {verb} pod$n; done"
    ));
}

/// What a valid attachment is.
struct Valid {
    n: usize,
    result: Value,
}

/// ADDs for containers `0..count`; those that the dice choose are killed on their way. Gives those that are not.
fn storm(runtime: &Runtime, lists: &[Value; 2], count: usize, seed: u64) -> Vec<Valid> {
    let mut dice = Random(seed);
    let fates: Vec<Option<Duration>> = (0..count)
        .map(|_| {
            let longest = [60_000, 350_000][dice.below(2) as usize];
            (dice.below(10) < 7).then(|| Duration::from_micros(dice.below(longest)))
        })
        .collect();
    let killed = AtomicUsize::new(0);
    let valid = Mutex::new(Vec::new());
    at_once(WORKERS, count, |n| {
        let conf = conf(&lists[n % 2], PORTS + n);
        let call = runtime.command("ADD", &id(n), &netns_of(&id(n)), "eth0", &conf);
        let Some(delay) = fates[n] else {
            let result = answer(&call.run()).unwrap_or_else(|e| panic!("ADD {n}: {e}"));
            valid.lock().unwrap().push(Valid { n, result });
            return;
        };
        let mut running = call.spawn();
        thread::sleep(delay);
        running.signal(9);
        killed.fetch_add(
            usize::from(running.wait().code.is_none()),
            Ordering::Relaxed,
        );
    });
    let killed = killed.into_inner();
    assert!(killed > count / 20, "only {killed} were killed in time");
    // An address plugin may have outlived the one that started it.
    eventually("the address plugins have ended", || {
        let all = runtime.host.processes();
        (!all
            .iter()
            .any(|(_, line)| line.contains("numbers") || line.contains("host-local")))
        .then_some(())
    });
    valid.into_inner().unwrap()
}

fn gc(runtime: &Runtime, lists: &[Value; 2], valid: &[Valid]) {
    for (at, list) in lists.iter().enumerate() {
        let ids: Vec<String> = valid
            .iter()
            .filter(|v| v.n % 2 == at)
            .map(|v| id(v.n))
            .collect();
        let ids: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "eth0")).collect();
        runtime.gc(list, &ids).expect("GC");
    }
}

/// Exactly the valid attachments are there.
#[track_caller]
fn assert_only(runtime: &Runtime, valid: &[Valid], count: usize) {
    let host = runtime.host;
    let mut ids: Vec<String> = valid.iter().map(|v| id(v.n)).collect();
    ids.sort();
    assert_eq!(names(&host.w("ps --json").json()), ids);
    let cables: BTreeSet<String> = host
        .netns()
        .interfaces()
        .into_iter()
        .filter(|name| name.starts_with("veth"))
        .collect();
    let listed = valid.iter().map(|v| text(&v.result, "interfaces/1/name"));
    assert_eq!(cables, listed.collect(), "cables");
    for n in 0..count {
        let inside = host.container(&id(n)).interfaces();
        let here = valid.iter().any(|v| v.n == n);
        assert_eq!(inside.len(), if here { 2 } else { 1 }, "{}", id(n));
    }
    let rules = host.sh("nft list ruleset");
    for n in 0..count {
        let here = valid.iter().any(|v| v.n == n);
        let port = (PORTS + n).to_string();
        let words = || rules.split(|c: char| !c.is_ascii_alphanumeric());
        assert_eq!(words().any(|w| w == port), here, "port {port}");
    }
    let known: BTreeSet<String> = addresses(valid, "10.45.").collect();
    let records = host.sh(&format!("ls {}/theirs", data(runtime)));
    let records = records.lines().filter(|l| l.starts_with("10."));
    assert_eq!(records.map(str::to_owned).collect::<BTreeSet<_>>(), known);
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    assert_eq!(host.w("gc --dry-run --json").json()["steps"], json!([]));
}

fn addresses<'v>(valid: &'v [Valid], start: &'v str) -> impl Iterator<Item = String> + 'v {
    let all = valid
        .iter()
        .flat_map(|v| v.result["ips"].as_array().unwrap());
    let plain = all.filter_map(|ip| ip["address"].as_str()?.split('/').next());
    plain
        .filter(move |a| a.starts_with(start))
        .map(str::to_owned)
}

/// Whatever is free in the first addresses of the range can be had, and not one more.
fn assert_free_addresses(runtime: &Runtime, list: &Value, valid: &[Valid], count: usize) {
    const LAST: usize = 40;
    let taken = (2..=LAST)
        .filter(|n| addresses(valid, &format!("10.44.0.{n}")).any(|a| a == format!("10.44.0.{n}")));
    let free = LAST - 1 - taken.count();
    let mut few = list.clone();
    few["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "10.44.0.0/22", "rangeEnd": format!("10.44.0.{LAST}")}], [{"subnet": "fd44::/64"}]]);
    let unused: Vec<usize> = (0..count)
        .filter(|n| valid.iter().all(|v| v.n != *n))
        .collect();
    assert!(free + 1 < unused.len(), "{free} of {}", unused.len());
    at_once(8, free, |n| {
        let done = runtime.add(&few, &id(unused[n]), "eth0", &Value::Null);
        done.unwrap_or_else(|e| panic!("free address {n} of {free}: {e}"));
    });
    let more = runtime.add(&few, &id(unused[free]), "eth0", &Value::Null);
    assert_eq!(code(more), 101, "the range is used up");
    at_once(8, free, |n| {
        let done = runtime.del(&few, &id(unused[n]), "eth0", &Value::Null);
        done.unwrap_or_else(|e| panic!("DEL {n}: {e}"));
    });
}

#[test]
fn a_storm_of_killed_adds_then_gc() {
    require!();
    const COUNT: usize = 208;
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let lists = lists(&runtime);
    namespaces(&runtime, "add", COUNT);
    let valid = storm(&runtime, &lists, COUNT, 3333);
    assert!(valid.len() > 40, "{} stay", valid.len());
    gc(&runtime, &lists, &valid);
    assert_only(&runtime, &valid, COUNT);
    for v in &valid {
        let name = id(v.n);
        let inside = host.container(&name);
        let _web = Echo::tcp(&inside, &name, 80);
        let port = (PORTS + v.n) as u16;
        assert_eq!(
            host.outside().tcp(addr::HOST4, port).by(),
            Some(name.as_str())
        );
        for address in addresses(std::slice::from_ref(v), "") {
            assert_eq!(host.netns().tcp(ip(&address), 80).by(), Some(name.as_str()));
        }
        let conf = with_prev(conf(&lists[v.n % 2], PORTS + v.n), &v.result);
        runtime
            .call("CHECK", &name, &netns_of(&name), "eth0", &conf)
            .unwrap_or_else(|e| panic!("CHECK {name}: {e}"));
    }
    assert_free_addresses(&runtime, &lists[0], &valid, COUNT);
    gc(&runtime, &lists, &[]);
    namespaces(&runtime, "del", COUNT);
    before.assert_same(&host, "a storm");
    assert_eq!(host.w("ps --json").json(), json!([]));
    assert_eq!(host.w("network ls --json").json(), json!([]));
}

fn with_prev(mut conf: Value, prev: &Value) -> Value {
    conf["prevResult"] = prev.clone();
    conf
}

#[test]
fn a_hundred_adds_at_once_then_a_hundred_dels() {
    require!();
    const COUNT: usize = 100;
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let lists = lists(&runtime);
    namespaces(&runtime, "add", COUNT);
    let done = Mutex::new(Vec::new());
    at_once(COUNT, COUNT, |n| {
        let conf = conf(&lists[n % 2], PORTS + n);
        let result = runtime.call("ADD", &id(n), &netns_of(&id(n)), "eth0", &conf);
        let result = result.unwrap_or_else(|e| panic!("ADD {n}: {e}"));
        done.lock().unwrap().push(Valid { n, result });
    });
    let done = done.into_inner().unwrap();
    assert_only(&runtime, &done, COUNT);
    let all: Vec<String> = addresses(&done, "").collect();
    assert_eq!(all.len(), COUNT + COUNT / 2, "both families of ours");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let macs = done.iter().map(|v| text(&v.result, "interfaces/2/mac"));
    assert_eq!(macs.collect::<BTreeSet<_>>().len(), COUNT);
    at_once(COUNT, COUNT, |n| {
        let conf = conf(&lists[n % 2], PORTS + n);
        let done = runtime.call("DEL", &id(n), &netns_of(&id(n)), "eth0", &conf);
        done.unwrap_or_else(|e| panic!("DEL {n}: {e}"));
    });
    assert_only(&runtime, &[], COUNT);
    namespaces(&runtime, "del", COUNT);
    host.w("network rm ours theirs").ok();
    before.assert_same(&host, "a hundred at once");
}

/// Who waits for the lock knows nothing yet of a death of the one who has it, and what that one recorded is not so.
#[test]
fn who_waits_sees_to_what_the_one_before_left() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let lock = host.path("/run/wharf/host.lock");
    for step in 1..12 {
        // The store is there, and nothing else.
        host.w("create first").ok();
        host.w("rm first").ok();
        host.w("network prune").ok();
        let held = std::fs::File::create(&lock).unwrap();
        held.lock().unwrap();
        let dies = host
            .wharf_command(&["network", "create", "a", "--subnet", "10.88.1.0/24"])
            .env("WHARF_FAIL_AT", step.to_string())
            .spawn();
        wait_for_lock(&lock, 1);
        let waits = host.w_spawn("network create b --subnet 10.88.2.0/24");
        wait_for_lock(&lock, 2);
        drop(held);
        let died = dies.wait();
        assert!(died.code.is_none(), "step {step}: {}", died.transcript());
        waits.wait().ok();
        assert_eq!(
            host.w("repair --dry-run --json").json()["steps"],
            json!([]),
            "step {step}"
        );
        let there = names(&host.w("network ls --json").json());
        host.w(&format!("network rm {}", there.join(" "))).ok();
        assert!(there.contains(&"b".to_owned()), "step {step}: {there:?}");
    }
    before.assert_same(&host, "eleven deaths");
}

/// Waits until so many wait for a file's lock.
fn wait_for_lock(path: &std::path::Path, count: usize) {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    eventually("they wait for the lock", || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let waiting = locks
            .lines()
            .filter(|l| l.contains("->") && l.contains(&inode));
        (waiting.count() == count).then_some(())
    });
}
