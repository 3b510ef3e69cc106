//! The command, a CNI runtime and Podman on one store, and their processes die at any moment.

use crate::cni_runtime::{Runtime, list};
use crate::common::*;
use crate::podman;
use crate::size;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use wharf_testkit::{Echo, Host, HostCommand, Snapshot, addr, frame, require};

fn random(below: u64) -> u64 {
    u64::from_ne_bytes(frame::random_bytes::<8>()) % below
}

/// Runs a command that may be killed at a moment, or dies at a step; its status, if it lived.
fn perhaps_dies(command: HostCommand) -> Option<i32> {
    match random(3) {
        0 => {
            let mut running = command.spawn();
            thread::sleep(Duration::from_micros(random(25_000)));
            running.signal(9);
            running.wait().code
        }
        1 => command.run().code,
        _ => {
            command
                .env("WHARF_FAIL_AT", (1 + random(40)).to_string())
                .run()
                .code
        }
    }
}

/// One owner's way to make its container and to be rid of it.
trait Front: Sync {
    fn add(&self, n: usize) -> HostCommand;
    fn del(&self, n: usize) -> HostCommand;
}

struct Command<'a>(&'a Host);
struct Cni<'a>(Runtime<'a>, Value);
struct Podman<'a>(&'a Host);

impl Front for Command<'_> {
    fn add(&self, n: usize) -> HostCommand {
        let line = format!("create cli{n} --network A -p {}:80", 8000 + n);
        self.0.wharf_command(&line.split(' ').collect::<Vec<_>>())
    }
    fn del(&self, n: usize) -> HostCommand {
        self.0.wharf_command(&["rm", "-f", &format!("cli{n}")])
    }
}

impl Cni<'_> {
    fn call(&self, verb: &str, n: usize) -> HostCommand {
        let mut conf = self.1["plugins"][0].clone();
        conf["name"] = self.1["name"].clone();
        conf["cniVersion"] = self.1["cniVersion"].clone();
        conf["runtimeConfig"] = json!({"portMappings": [{"hostPort": 8100 + n, "containerPort": 80, "protocol": "tcp"}]});
        let id = format!("cni{n}");
        self.0
            .command(verb, &id, &format!("/run/netns/{id}"), "eth0", &conf)
    }
}

impl Front for Cni<'_> {
    fn add(&self, n: usize) -> HostCommand {
        self.call("ADD", n)
    }
    fn del(&self, n: usize) -> HostCommand {
        self.call("DEL", n)
    }
}

impl Podman<'_> {
    fn call(&self, verb: &str, n: usize) -> HostCommand {
        let last = u8::try_from(n + 10).unwrap();
        let input = podman::container(&format!("pod{n}"), 5, last, 8200 + last as u16);
        podman::netavark(self.0, &[verb, &format!("/run/netns/pod{n}")], &input)
    }
}

impl Front for Podman<'_> {
    fn add(&self, n: usize) -> HostCommand {
        self.call("setup", n)
    }
    fn del(&self, n: usize) -> HostCommand {
        self.call("teardown", n)
    }
}

/// Makes and removes one container; whatever died, what lives on afterwards is done without a mistake.
fn round(front: &dyn Front, n: usize) {
    let made = perhaps_dies(front.add(n));
    if made == Some(0) && random(2) == 0 {
        perhaps_dies(front.del(n));
    }
    let out = front.del(n).run();
    assert_eq!(out.code, Some(0), "{}", out.transcript());
}

/// Store and kernel agree, and nothing is nobody's.
#[track_caller]
fn sound(host: &Host) {
    for (line, key) in [("repair --json", "mended"), ("gc --json", "removed")] {
        let said = host.w(line).json();
        assert_eq!(said[key], json!([]), "{line}");
    }
}

#[test]
fn front_ends_that_die_leave_each_other_whole() {
    require!();
    let rounds = size("WHARF_STRAIN_ROUNDS", 12);
    let host = host();
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "kept", "A", 1, 99, "-p 7000:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    for n in 0..2 {
        host.sh(&format!("ip netns add cni{n}; ip netns add pod{n}"));
    }
    let before = Snapshot::of(&host);
    let fronts: [Box<dyn Front>; 3] = [
        Box::new(Command(&host)),
        Box::new(Cni(Runtime::new(&host), list("1.0.0", &json!({})))),
        Box::new(Podman(&host)),
    ];
    thread::scope(|scope| {
        for front in &fronts {
            for n in 0..2 {
                scope.spawn(move || (0..rounds).for_each(|_| round(&**front, n)));
            }
        }
        let host = &host;
        scope.spawn(move || {
            for n in 0..rounds {
                let verb = ["repair", "gc", "repair --dry-run"][n % 3];
                perhaps_dies(host.wharf_command(&verb.split(' ').collect::<Vec<_>>()));
            }
        });
    });
    assert_eq!(names(&host.w("ps --json").json()), ["kept"]);
    let networks = names(&host.w("network ls --json").json());
    sound(&host);
    assert_eq!(host.outside().tcp(addr::HOST4, 7000).by(), Some("kept"));
    if networks.contains(&"mynet".to_owned()) {
        host.w("network rm mynet").ok();
    }
    before.assert_same(&host, "deaths of three front ends");
    host.sh("ip netns del cni0; ip netns del cni1; ip netns del pod0; ip netns del pod1");
    remove(&host, &["kept"], &["A"]);
    bare.assert_same(&host, "all gone");
}
