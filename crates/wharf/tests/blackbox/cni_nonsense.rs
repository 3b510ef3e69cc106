//! Input for `wharf` as a CNI plugin that no runtime would send.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Snapshot, require};

/// Bytes that follow from a seed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

/// Puts something else in the place of one part of a value.
fn spoil(value: &mut Value, dice: &mut Dice) {
    let nonsense = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("\u{0}/../x"),
        json!([[[]]]),
        json!({"a": {}}),
        json!(""),
        json!(true),
        json!("fd00::/64"),
        json!(u64::MAX),
        json!("x".repeat(5000)),
    ];
    match value {
        Value::Object(map) if !map.is_empty() && dice.roll(8) > 0 => {
            let at = dice.roll(map.len());
            if let Some(inner) = map.values_mut().nth(at) {
                spoil(inner, dice);
            }
        }
        Value::Array(list) if !list.is_empty() && dice.roll(8) > 0 => {
            let at = dice.roll(list.len());
            spoil(&mut list[at], dice);
        }
        other => *other = nonsense[dice.roll(nonsense.len())].clone(),
    }
}

#[test]
fn nonsense_is_answered_and_changes_nothing() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list(
        "1.1.0",
        &json!({"sysctl": {"net.core.somaxconn": "128"}, "dns": {"nameservers": ["192.0.2.53"]}}),
    );
    let mut good = list["plugins"][0].clone();
    good["name"] = json!("mynet");
    good["cniVersion"] = json!("1.1.0");
    good["runtimeConfig"] = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "ips": ["10.44.0.9"], "mac": "02:00:00:00:00:09"});
    good["prevResult"] = json!({"interfaces": [{"name": "lo", "sandbox": "/x"}], "ips": [{"address": "127.0.0.1/8", "interface": 0}]});
    good["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
    runtime.netns("c1");
    let before = Snapshot::of(&host);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut done) = (0, 0);
    for round in 0..250 {
        let mut conf = good.clone();
        for _ in 0..=dice.roll(2) {
            spoil(&mut conf, &mut dice);
        }
        let verb = ["ADD", "ADD", "ADD", "CHECK", "STATUS", "GC"][dice.roll(6)];
        let command = runtime.command(verb, "c1", "/run/netns/c1", "eth0", &good);
        let output = command.input(&conf.to_string()).run();
        let outcome = answer(&output);
        match (verb, &outcome) {
            ("ADD", Ok(_)) => {
                done += 1;
                // By whatever name of the network it was.
                for name in names(&host.w("ps --json").json()) {
                    host.w(&format!("rm -f {name}")).ok();
                }
                host.w("network prune").ok();
            }
            (_, Err(error)) => {
                refused += 1;
                assert!(
                    error["code"]
                        .as_u64()
                        .is_some_and(|c| (1..=103).contains(&c)),
                    "{error}"
                );
            }
            _ => {}
        }
        assert_eq!(
            host.container("c1").interfaces(),
            ["lo"],
            "round {round}: {conf}"
        );
    }
    assert!(refused > 50 && done > 10, "{refused} refused, {done} done");
    host.w("network prune").ok();
    before.assert_same(&host, "nonsense");
}
