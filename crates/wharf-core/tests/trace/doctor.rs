//! The doctor and the exposure over what wharf compiles a topology to: sound as made, and one fault is one finding.

use wharf_core::trace::doctor::{Differences, Finding, Severity, diagnose, is_unwell};
use wharf_core::trace::exposure::{Side, exposure};
use wharf_core::trace::ruleset::{Hook, TableFamily};
use wharf_core::trace::{L4, Owner, Verdict};

use crate::build::{HOST, World, drops, rule};
use crate::compiled::world;

const LAB: &str = r#"
[networks.blue]
subnets = ["172.18.0.0/16", "fd00:18::/64"]

[networks.green]
subnets = ["172.19.0.0/16"]
icc = false

[networks.back]
subnets = ["172.20.0.0/16"]
internal = true

[containers.api]
networks = ["blue", "back"]
ports = ["8080:80", "127.0.0.1:9090:90"]

[containers.db]
networks = ["blue"]

[containers.g1]
networks = ["green"]

[containers.g2]
networks = ["green"]
ports = ["5353:53/udp"]
"#;

/// The topology, compiled.
pub fn lab() -> World {
    world(LAB)
}

/// Code, namespace and object of what is no mere info.
fn faults(w: &World) -> Vec<String> {
    let found = diagnose(&w.state);
    let shown = |f: &Finding| {
        let json = serde_json::to_value(f).unwrap();
        format!(
            "{} in {}: {}",
            json["code"].as_str().unwrap(),
            f.netns,
            f.object
        )
    };
    let faults = found.iter().filter(|f| f.severity != Severity::Info);
    let all: Vec<String> = faults.map(shown).collect();
    assert_eq!(is_unwell(&found), !all.is_empty());
    all
}

#[test]
fn what_was_made_is_sound() {
    assert_eq!(faults(&world(LAB)), Vec::<String>::new());
    assert_eq!(faults(&World::demo()), Vec::<String>::new());
    assert_eq!(faults(&World::empty()), Vec::<String>::new());
}

#[test]
fn one_fault_is_one_finding() {
    type Change = fn(&mut World);
    let cases: [(&str, Change); 7] = [
        ("link-down in host: veth", |w| {
            let name = cable(w, "db");
            w.get(HOST, &name).up = false;
        }),
        ("not-on-bridge in host: veth", |w| {
            let name = cable(w, "db");
            w.get(HOST, &name).master = None;
        }),
        ("no-route in db: default", |w| {
            let id = w.id("db");
            w.del_routes(id, "default");
        }),
        ("forwarding-disabled in host: net.ipv4.ip_forward", |w| {
            w.set(HOST, "net.ipv4.ip_forward", 0);
        }),
        (
            "conntrack-full in host: net.netfilter.nf_conntrack_max",
            |w| {
                w.state.spaces[HOST].conntrack = Some((95, 100));
            },
        ),
        ("ports-exhausted in db: net.ipv4.ip_local_port_range", |w| {
            let id = w.id("db");
            w.state.spaces[id].ports_in_use = 28_000;
        }),
        ("accept-queue-full in api: 0.0.0.0:80", |w| {
            let socket = w.listen("api", L4::Tcp, "0.0.0.0", 80);
            (socket.queue, socket.backlog) = (6, 5);
        }),
    ];
    for (says, change) in cases {
        let mut w = world(LAB);
        change(&mut w);
        let found = faults(&w);
        assert!(
            found.len() == 1 && found[0].starts_with(says),
            "{says}: {found:#?}"
        );
    }
}

fn cable(w: &World, name: &str) -> String {
    let mut all = w.state.containers.iter();
    let found = all.find(|c| c.name.as_str() == name).unwrap();
    found.attachments[0].host_interface.to_string()
}

#[test]
fn a_policy_is_told_once_for_all_networks() {
    let mut w = world(LAB);
    w.forward_policy_drop();
    let found = diagnose(&w.state);
    let policies: Vec<_> = found
        .iter()
        .filter(|f| f.object == "ip filter FORWARD")
        .collect();
    assert_eq!(policies.len(), 1, "{found:#?}");
    for net in w.state.networks.iter().filter(|n| !n.internal) {
        let opens = format!("iptables -I FORWARD -i {} -j ACCEPT", net.bridge);
        assert!(policies[0].fix.contains(&opens), "{policies:#?}");
    }
}

#[test]
fn what_the_engine_compared_is_joined() {
    let w = world(LAB);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let differences = Differences {
        changed: vec![
            pair("chain inet wharf forward", "different"),
            pair("3 elements of set inet wharf publish4", "missing"),
            pair("link wharf9", "missing"),
        ],
        left: vec![pair("container old", "its namespace is gone")],
        ..Differences::default()
    };
    let all = differences.join(diagnose(&w.state));
    let faults: Vec<_> = all
        .iter()
        .filter(|f| f.severity != Severity::Info)
        .collect();
    let fixes: Vec<_> = faults.iter().map(|f| f.fix.join("; ")).collect();
    assert_eq!(
        fixes,
        ["wharf repair", "wharf repair", "wharf gc"],
        "{faults:#?}"
    );
    assert!(faults[0].evidence.iter().any(|e| e.contains("publish4")));
}

#[test]
fn who_reaches_what() {
    let mut w = world(LAB);
    w.listen("api", L4::Tcp, "0.0.0.0", 80);
    w.listen("api", L4::Tcp, "0.0.0.0", 90);
    let found = exposure(&w.state);
    let of = |port: &str| found.ports.iter().find(|p| p.host_port == port).unwrap();
    let open = |port: &str, from: Side| {
        let all = of(port).reach.iter().filter(|r| r.from == from);
        all.map(|r| r.open).collect::<Vec<bool>>()
    };
    assert_eq!(open("8080", Side::Loopback), [true]);
    assert_eq!(open("8080", Side::Outside), [true]);
    assert_eq!(open("8080", Side::Sibling), [true]);
    assert_eq!(open("8080", Side::Network), [true]);
    assert_eq!(open("9090", Side::Loopback), [true]);
    assert_eq!(open("9090", Side::Outside), [false, false]);
    assert!(of("8080").differs.is_empty() && of("9090").differs.is_empty());
    // Nobody listens: the network is open, and nobody is answered.
    assert_eq!(open("5353", Side::Outside), [true]);
    assert!(
        of("5353")
            .reach
            .iter()
            .all(|r| r.verdict != Verdict::Delivered)
    );
    assert_eq!(of("5353").differs.len(), 1);
}

#[test]
fn a_firewall_that_says_closed_is_contradicted() {
    let mut w = world(LAB);
    w.listen("api", L4::Tcp, "0.0.0.0", 80);
    let chain = w.chain(
        HOST,
        TableFamily::Ip,
        "fw",
        "ufw-user-input",
        Hook::Input,
        0,
        false,
    );
    chain.owner = Owner::Ufw;
    rule(chain, vec![drops()], "drop");
    let found = exposure(&w.state);
    let port = found.ports.iter().find(|p| p.host_port == "8080").unwrap();
    assert!(port.claims.iter().all(|c| !c.open && c.owner == Owner::Ufw));
    assert!(
        port.differs.iter().any(|d| d.owner == Owner::Ufw),
        "{port:#?}"
    );
    let bypassed = faults(&w);
    assert!(
        bypassed
            .iter()
            .any(|f| f.starts_with("firewall-bypassed in host: ip fw")),
        "{bypassed:?}"
    );
}
