//! Forbidden packets are sent without a pause while something changes: not one passes, from the first moment to the last.

use crate::cni_runtime::{Runtime, list};
use crate::common::*;
use crate::liar::bridge_nf_values;
use crate::podman;
use crate::size;
use serde_json::{Value, json};
use wharf_testkit::{Echo, Flood, Host, Netns, addr, eventually, require};

/// The container that is not to be reached: at this address of network 1.
const N: u8 = 20;
const USUAL: usize = 4;
/// How it comes to its network, by the words of the command.
const CREATE: &str = "create v --netns /run/netns/v --network A";

fn target() -> String {
    ips(1, N)
}

/// What is done to the host, and undone. `v` is a namespace that stays; it counts every packet to its port 90.
struct Case {
    name: &'static str,
    /// Once, before the flood begins.
    prepare: fn(&Host),
    there: fn(&Host),
    back: fn(&Host),
}

fn nothing(_: &Host) {}

fn w(host: &Host, line: &str) {
    host.w(line).ok();
}

fn network_a(host: &Host) {
    network(host, "A", 1, "--icc=false --bridge wharf-a");
}

fn create(host: &Host) {
    w(host, &format!("{CREATE} {} -p 8091:91/udp", target()));
}

fn remove_v(host: &Host) {
    w(host, "rm -f v");
}

fn settled(host: &Host) {
    network_a(host);
    create(host);
}

const TOPOLOGY: &str = r#"
[networks.A]
subnets = ["10.88.1.0/24", "fd00:88:1::/64"]
bridge = "wharf-a"
icc = false

[containers.v]
netns = "/run/netns/v"
ports = ["8091:91/udp"]
networks = ["A:ip=10.88.1.20,ip=fd00:88:1::20"]
"#;

fn file(host: &Host) -> String {
    let path = host.dir().path().join("t.toml");
    path.to_str().expect("UTF-8").to_owned()
}

fn cni(host: &Host, verb: &str) {
    let ranges = json!([[{"subnet": "10.88.1.0/24"}], [{"subnet": "fd00:88:1::/64"}]]);
    let ipam = json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    let list = list("1.0.0", &json!({"ipam": ipam, "ingressPolicy": "isolated"}));
    let more = json!({
        "ips": [at(false, 1, N), at(true, 1, N)],
        "portMappings": [{"hostPort": 8091, "containerPort": 91, "protocol": "udp", "hostIP": ""}],
    });
    let runtime = Runtime::new(host);
    let done = match verb {
        "ADD" => runtime.add(&list, "v", "eth0", &more),
        _ => runtime.del(&list, "v", "eth0", &more),
    };
    done.unwrap_or_else(|e| panic!("{verb}: {e}"));
}

fn netavark(host: &Host, verb: &str) {
    let input = podman::container("v", 1, N, 8091);
    podman::netavark(host, &[verb, "/run/netns/v"], &input)
        .run()
        .ok();
}

const CASES: &[Case] = &[
    Case {
        name: "create and rm",
        prepare: network_a,
        there: create,
        back: remove_v,
    },
    Case {
        name: "connect and disconnect",
        prepare: |host| {
            network_a(host);
            network(host, "C", 3, "");
            w(
                host,
                &format!(
                    "create v --netns /run/netns/v --network C {} -p 8091:91/udp",
                    ips(3, 3)
                ),
            );
        },
        there: |host| w(host, &format!("network connect A v {}", target())),
        back: |host| w(host, "network disconnect A v"),
    },
    Case {
        name: "port add and rm",
        prepare: |host| {
            network_a(host);
            w(host, &format!("{CREATE} {}", target()));
        },
        there: |host| w(host, "port add v 8091:91/udp 8100-8110:8100-8110/udp"),
        back: |host| w(host, "port rm v 8091:91/udp 8100-8110:8100-8110/udp"),
    },
    Case {
        name: "network create and rm",
        prepare: nothing,
        there: settled,
        back: |host| remove(host, &["v"], &["A"]),
    },
    Case {
        name: "another network with all of them",
        prepare: settled,
        there: |host| network(host, "C", 3, "-o isolate=false"),
        back: |host| w(host, "network rm C"),
    },
    Case {
        name: "flush and repair",
        prepare: settled,
        there: |host| w(host, "repair"),
        back: |host| drop(host.sh("nft flush ruleset")),
    },
    Case {
        name: "a bridge that was removed",
        prepare: settled,
        there: |host| w(host, "repair"),
        back: |host| drop(host.sh("ip link del wharf-a")),
    },
    Case {
        name: "a store that was lost",
        prepare: settled,
        there: |host| w(host, "repair --rebuild"),
        back: |host| drop(host.sh("rm -r /run/wharf/db")),
    },
    Case {
        name: "apply and destroy",
        prepare: |host| std::fs::write(file(host), TOPOLOGY).unwrap(),
        there: |host| w(host, &format!("apply {}", file(host))),
        back: |host| w(host, &format!("destroy {}", file(host))),
    },
    Case {
        name: "CNI ADD and DEL",
        prepare: nothing,
        there: |host| cni(host, "ADD"),
        back: |host| cni(host, "DEL"),
    },
    Case {
        name: "netavark setup and teardown",
        prepare: nothing,
        there: |host| netavark(host, "setup"),
        back: |host| netavark(host, "teardown"),
    },
    Case {
        name: "flush and netavark firewall-reload",
        prepare: |host| netavark(host, "setup"),
        there: |host| {
            drop(
                podman::netavark(host, &["firewall-reload"], &Value::Null)
                    .run()
                    .ok(),
            )
        },
        back: |host| drop(host.sh("nft flush ruleset")),
    },
];

/// `v` counts from before its first interface comes.
fn counting(host: &Host) -> Netns {
    host.sh("ip netns add v; ip netns exec v ip link set lo up
         ip netns exec v nft -f - <<'END'
         table inet t { counter forbidden { };
             chain c { type filter hook prerouting priority -400; udp dport 90 counter name forbidden; }; }
END");
    host.container("v")
}

fn counted(v: &Netns) -> u64 {
    let said = v.sh("nft list counter inet t forbidden");
    let words = said.split("packets ").nth(1);
    let number = words.and_then(|rest| rest.split(' ').next());
    number
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{said}"))
}

fn try_one(case: &Case, nf_call: bool, rounds: usize) {
    let host = options().bridge_nf_call(nf_call).start();
    network(&host, "B", 2, "");
    container(&host, "b1", "B", 2, 11, "");
    let v = counting(&host);
    (case.prepare)(&host);
    let b1 = host.container("b1");
    let floods: Vec<Flood> = [
        (host.outside(), false),
        (host.outside(), true),
        (&b1, false),
        (&b1, true),
    ]
    .into_iter()
    .map(|(from, v6)| Flood::start(from, (at(v6, 1, N), 90).into(), b"forbidden"))
    .collect();
    let more = |by: u64| {
        let sent: Vec<u64> = floods.iter().map(Flood::sent).collect();
        eventually("more of the flood", || {
            let more = floods.iter().zip(&sent).all(|(f, was)| f.sent() > was + by);
            more.then_some(())
        });
    };
    more(10);
    for round in 0..rounds {
        (case.there)(&host);
        more(20);
        assert_eq!(counted(&v), 0, "{}: round {round}, there", case.name);
        if round + 1 < rounds {
            (case.back)(&host);
            more(20);
            assert_eq!(counted(&v), 0, "{}: round {round}, and back", case.name);
        }
    }
    let sent: u64 = floods.iter().map(Flood::sent).sum();
    drop(floods);
    let _server = Echo::udp(&v, "v", 91);
    for v6 in [false, true] {
        assert_eq!(
            host.outside().udp(addr::host(v6), 8091).by(),
            Some("v"),
            "{}",
            case.name
        );
    }
    // What may come is counted.
    let _ = host.netns().udp_brief(at(false, 1, N), 90);
    assert!(counted(&v) > 0, "{}: it does not count", case.name);
    eprintln!(
        "{} (nf-call {nf_call}): {sent} sent, none passed",
        case.name
    );
}

#[test]
fn nothing_forbidden_passes_while_anything_changes() {
    require!();
    let rounds = size("WHARF_STRAIN_ROUNDS", USUAL);
    let values = bridge_nf_values();
    for (n, case) in CASES.iter().enumerate() {
        // Each with one of the two, all with both when more is asked for.
        let both = values.iter().cycle().skip(n);
        for nf_call in both.take(if rounds > USUAL { values.len() } else { 1 }) {
            try_one(case, *nf_call, rounds);
        }
    }
}
