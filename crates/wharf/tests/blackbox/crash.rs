//! Commands that die at every step they make, and at random ones: the next command finishes or undoes, nothing is
//! left and nothing that was acknowledged is lost.
//!
//! A build with debug assertions ends at the step whose number is in `WHARF_FAIL_AT`. `WHARF_CRASH_ROUNDS` asks for
//! more random rounds than the usual ones.

use crate::common::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use wharf_testkit::frame::random_bytes;
use wharf_testkit::{Echo, Host, Output, Snapshot, addr, require};

/// More steps than any command makes.
const MOST: u64 = 400;
/// Random rounds of the usual suite, over all threads.
const ROUNDS: u64 = 400;

fn dying_at(host: &Host, step: u64, line: &str) -> Output {
    let args: Vec<_> = line.split_whitespace().collect();
    host.wharf_command(&args)
        .env("WHARF_FAIL_AT", step.to_string())
        .run()
}

/// What scripts see: the containers without their numbers of processes, and the networks.
fn known(host: &Host) -> Value {
    let mut containers = host.w("ps --json").json();
    for container in containers.as_array_mut().into_iter().flatten() {
        for key in ["id", "pid", "created"] {
            container[key] = Value::Null;
        }
        for network in container["networks"].as_array_mut().into_iter().flatten() {
            network["host_interface"] = Value::Null;
        }
    }
    json!([containers, names(&host.w("network ls --json").json())])
}

/// Store and kernel agree, and nothing is nobody's.
#[track_caller]
fn sound(host: &Host, what: &str) {
    let mended = host.w("repair --json").ok();
    assert_eq!(
        mended.stdout.split_whitespace().collect::<String>(),
        r#"{"mended":[]}"#,
        "{what}"
    );
    let removed = host.w("gc --json").ok();
    assert_eq!(
        removed.stdout.split_whitespace().collect::<String>(),
        r#"{"removed":[]}"#,
        "{what}"
    );
}

/// Runs `line` again and again, dying one step later each time. After each death the next command leaves either what
/// was before or what would have been after; then `back` makes it as before.
#[track_caller]
fn die_at_every_step(scene: &[&str], line: &str, back: &[&str]) {
    let host = host();
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    network(&host, "B", 2, "--bridge wharf-b");
    container(&host, "kept", "A", 1, 99, "-p 7000:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    for command in scene {
        host.w(command).ok();
    }
    let (mut before, known_before) = (Snapshot::of(&host), known(&host));
    let mut deaths = 0;
    for step in 1..MOST {
        let got = dying_at(&host, step, line);
        let what = format!("`{line}` at step {step}");
        if got.code.is_some() {
            assert_eq!(got.code, Some(0), "{what}: {}", got.transcript());
            break;
        }
        deaths += 1;
        // Dies as well, in the middle of mending.
        if step % 3 == 0 {
            dying_at(&host, 1 + step % 7, "ps");
        }
        let known_now = known(&host);
        sound(&host, &what);
        if known_now == known_before {
            let difference = before.difference_on(&host);
            assert!(difference.is_empty(), "{what}, undone:\n{difference}");
            continue;
        }
        for command in back {
            host.w(command).ok();
        }
        assert_eq!(known(&host), known_before, "{what}, and back");
        // New cables have new names and hardware addresses.
        let difference = before.difference_on(&host);
        let lines = difference.lines().iter();
        let lines: Vec<_> = lines.filter(|line| !line.contains("veth")).collect();
        assert!(lines.is_empty(), "{what}, finished, and back:\n{lines:#?}");
        before = Snapshot::of(&host);
    }
    assert!(
        deaths > 3,
        "`{line}` died only {deaths} times: is this a release build?"
    );
    assert!(deaths < MOST - 2, "`{line}` never came to its end");
    eprintln!("`{line}` died at each of {deaths} steps");
    assert_eq!(
        host.outside().tcp(addr::HOST4, 7000).by(),
        Some("kept"),
        "after {line}"
    );
    let all = names(&host.w("ps --json").json());
    host.w(&format!("rm -f {}", all.join(" "))).ok();
    let all = names(&host.w("network ls --json").json());
    host.w(&format!("network rm {}", all.join(" "))).ok();
    bare.assert_same(&host, line);
}

#[test]
fn create() {
    require!();
    die_at_every_step(
        &[],
        "create c1 --network A --network B -p 8080:80 -p 8000-8003:8000-8003/udp",
        &["rm -f c1"],
    );
}

#[test]
fn create_on_the_first_network() {
    require!();
    die_at_every_step(&[], "create c1", &["rm -f c1", "network rm default"]);
}

#[test]
fn rm() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11 --network B:ip=10.88.2.11,ip=fd00:88:2::11 -p 8080:80";
    die_at_every_step(&[make], "rm -f c1", &[make]);
}

/// All or none: they are in the store's same transactions.
#[test]
fn rm_of_several() {
    require!();
    let make =
        |n: u8| format!("create c{n} --network A:ip=10.88.1.1{n},ip=fd00:88:1::1{n} -p 808{n}:80");
    let (one, two) = (make(1), make(2));
    die_at_every_step(&[&one, &two], "rm -f c1 c2", &[&one, &two]);
}

#[test]
fn connect() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11 -p 8080:80";
    die_at_every_step(
        &[make],
        "network connect B c1 --ip 10.88.2.11 --ip fd00:88:2::11",
        &["network disconnect B c1"],
    );
}

#[test]
fn update() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11 --network B:ip=10.88.2.11,ip=fd00:88:2::11 -p 8080:80 -p 53:53/udp";
    die_at_every_step(
        &[make],
        "update c1 --network B --network A --label-add k=v",
        &["update c1 --network A --network B --label-rm k"],
    );
}

#[test]
fn disconnect() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11 -p 8080:80";
    let join = "network connect B c1 --ip 10.88.2.11 --ip fd00:88:2::11";
    die_at_every_step(&[make, join], "network disconnect B c1", &[join]);
}

#[test]
fn port_add() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11";
    die_at_every_step(
        &[make],
        "port add c1 8080:80 8000-8003:8000-8003/udp",
        &["port rm c1 8080:80 8000-8003:8000-8003/udp"],
    );
}

#[test]
fn port_rm() {
    require!();
    let make = "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11 -p 8080:80";
    die_at_every_step(&[make], "port rm c1 8080:80", &["port add c1 8080:80"]);
}

#[test]
fn network_create() {
    require!();
    die_at_every_step(
        &[],
        "network create N --subnet 10.88.9.0/24 --bridge wharf-n --icc=false",
        &["network rm N"],
    );
}

#[test]
fn network_rm() {
    require!();
    let make = "network create N --subnet 10.88.9.0/24 --bridge wharf-n";
    die_at_every_step(&[make], "network rm N", &[make]);
}

/// The first network changes the host, and the last gives it back.
#[test]
fn the_first_network_and_the_last() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    let make = format!("network create N {} --bridge wharf-n", subnets(9));
    for line in [make.as_str(), "network rm N"] {
        for step in 1..MOST {
            if line != make {
                host.w(&make);
            }
            let got = dying_at(&host, step, line);
            let there = names(&host.w("network ls --json").json());
            sound(&host, line);
            if there.contains(&"N".to_owned()) {
                host.w("network rm N").ok();
            }
            let difference = bare.difference_on(&host);
            assert!(
                difference.is_empty(),
                "`{line}` at step {step}:\n{difference}"
            );
            if got.code.is_some() {
                assert!(step > 5, "`{line}`: {}", got.transcript());
                break;
            }
        }
    }
}

/// Everything holds together, and nothing is another way than it was.
#[track_caller]
fn as_before(host: &Host, before: &Snapshot, what: &str) {
    sound(host, what);
    let difference = before.difference_on(host);
    assert!(difference.is_empty(), "{what}:\n{difference}");
}

#[test]
fn repair_and_gc() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "kept", "A", 1, 99, "-p 7000:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    let before = Snapshot::of(&host);
    for step in 1..MOST {
        host.sh("nft flush ruleset; ip link del wharf-a");
        let got = dying_at(&host, step, "repair");
        host.w("repair").ok();
        as_before(&host, &before, &format!("repair at step {step}"));
        if got.code.is_some() {
            assert!(step > 5, "{}", got.transcript());
            break;
        }
    }
    assert_eq!(host.outside().tcp(addr::HOST4, 7000).by(), Some("kept"));
    for step in 1..MOST {
        host.w("create dead --network A -p 8080:80").ok();
        host.sh("ip netns del dead");
        let gone = || {
            before
                .difference_on(&host)
                .lines()
                .iter()
                .all(|l| !l.contains("veth"))
        };
        wharf_testkit::eventually("its cable is gone", || gone().then_some(()));
        let got = dying_at(&host, step, "gc");
        host.w("gc").ok();
        sound(&host, &format!("gc at step {step}"));
        let difference = before.difference_on(&host);
        assert!(difference.is_empty(), "gc at step {step}:\n{difference}");
        if got.code.is_some() {
            assert!(step > 3, "{}", got.transcript());
            break;
        }
    }
}

fn rounds() -> u64 {
    let asked = std::env::var("WHARF_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok());
    asked.unwrap_or(ROUNDS)
}

fn random(below: u64) -> u64 {
    u64::from_ne_bytes(random_bytes::<8>()) % below
}

/// One thread's containers: what it was told is there.
struct Owner<'a> {
    host: &'a Host,
    thread: u64,
    acknowledged: BTreeSet<String>,
    uncertain: BTreeSet<String>,
}

impl Owner<'_> {
    fn round(&mut self, round: u64) {
        let name = format!("t{}x{}", self.thread, random(4));
        let there = self.acknowledged.contains(&name);
        let port = 8000 + self.thread * 100 + random(50);
        let line = match (there, random(12)) {
            (_, 0) => "repair".to_owned(),
            (_, 1) => "gc".to_owned(),
            (false, _) => format!("create {name} --network A -p {port}:80"),
            (true, 2..6) => format!("port add {name} {port}:81"),
            (true, _) => format!("rm -f {name}"),
        };
        // Most die at a step, some by a signal at any moment, some not at all.
        let code = match random(4) {
            0 => {
                let mut running = self.host.w_spawn(&line);
                thread::sleep(std::time::Duration::from_micros(random(20_000)));
                running.signal(9);
                running.wait().code
            }
            1 => self.host.w(&line).code,
            _ => dying_at(self.host, 1 + random(45), &line).code,
        };
        let (makes, removes) = (line.starts_with("create"), line.starts_with("rm"));
        match code {
            Some(0) if makes => {
                self.acknowledged.insert(name.clone());
                self.uncertain.remove(&name);
            }
            Some(0) if removes => {
                self.acknowledged.remove(&name);
                self.uncertain.remove(&name);
            }
            // Killed: it may be either. A create that failed found what an earlier one had finished.
            None if makes || removes => {
                self.acknowledged.remove(&name);
                self.uncertain.insert(name);
            }
            Some(code) if makes => {
                assert!(code == 1, "round {round}: {line}: {code}");
                self.uncertain.insert(name);
            }
            _ => {}
        }
    }
}

#[test]
fn at_random_moments_in_parallel() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "kept", "A", 1, 99, "-p 7000:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    let with_network = Snapshot::of(&host);
    let told = Mutex::new((BTreeSet::new(), BTreeSet::new()));
    let (threads, all) = (4, rounds());
    thread::scope(|scope| {
        for thread in 0..threads {
            let (host, told) = (&host, &told);
            scope.spawn(move || {
                let mut owner = Owner {
                    host,
                    thread,
                    acknowledged: BTreeSet::new(),
                    uncertain: BTreeSet::new(),
                };
                for round in 0..all / threads {
                    owner.round(round);
                }
                let mut told = told.lock().expect("no panic");
                told.0.extend(owner.acknowledged);
                told.1.extend(owner.uncertain);
            });
        }
    });
    let (acknowledged, uncertain) = told.into_inner().expect("no panic");
    let there: BTreeSet<String> = names(&host.w("ps --json").json()).into_iter().collect();
    for name in &acknowledged {
        assert!(there.contains(name), "{name} was acknowledged and is lost");
    }
    for name in &there {
        let explained = acknowledged.contains(name) || uncertain.contains(name) || name == "kept";
        assert!(explained, "{name} was removed and is there");
    }
    sound(&host, "after all rounds");
    assert_eq!(host.outside().tcp(addr::HOST4, 7000).by(), Some("kept"));
    for name in there.iter().filter(|name| *name != "kept") {
        host.w(&format!("rm -f {name}")).ok();
    }
    with_network.assert_same(&host, "random deaths");
    remove(&host, &["kept"], &["A"]);
    bare.assert_same(&host, "random deaths");
}

#[test]
fn run_in_the_background() {
    require!();
    die_at_every_step(
        &[],
        "run -d --name c1 --network A -p 8080:80 -- sleep 1000",
        &["rm -f c1"],
    );
}

#[test]
fn adopt() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    host.sh("ip netns add mine; ip netns exec mine ip link set lo up");
    let before = Snapshot::of(&host);
    let inside = Snapshot::of_netns(&host.container("mine"));
    for step in 1..MOST {
        let line = "create c1 --netns /run/netns/mine --network A -p 8080:80";
        let got = dying_at(&host, step, line);
        host.w("rm -f c1").ok();
        sound(&host, &format!("step {step}"));
        let difference = before.difference_on(&host);
        assert!(difference.is_empty(), "step {step}:\n{difference}");
        let difference = inside.difference(&Snapshot::of_netns(&host.container("mine")));
        assert!(difference.is_empty(), "inside, step {step}:\n{difference}");
        if got.code.is_some() {
            assert!(step > 5, "{}", got.transcript());
            return;
        }
    }
    panic!("it never came to its end");
}

#[test]
fn rebuild() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "kept", "A", 1, 99, "-p 7000:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    let before = Snapshot::of(&host);
    let stores = format!("/run/wharf/db {}/db", host.state_dir().display());
    for step in 1..MOST {
        host.sh(&format!("rm -r {stores}"));
        let got = dying_at(&host, step, "repair --rebuild");
        host.w("repair --rebuild").ok();
        assert_eq!(names(&host.w("ps --json").json()), ["kept"], "step {step}");
        as_before(&host, &before, &format!("rebuild at step {step}"));
        if got.code.is_some() {
            assert!(step > 5, "{}", got.transcript());
            break;
        }
    }
    assert_eq!(host.outside().tcp(addr::HOST4, 7000).by(), Some("kept"));
    remove(&host, &["kept"], &["A"]);
}
