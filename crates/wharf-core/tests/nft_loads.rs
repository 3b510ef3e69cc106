//! Everything the core can write in nft's syntax is loaded by nft, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the tests run programs and say when they cannot"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use wharf_core::addr::Family;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::Resource;
use wharf_core::nft;
use wharf_core::op::Op;
use wharf_core::render;
use wharf_core::topology::Topology;

/// One network of each kind of option, containers with each kind of port.
const ALL_KINDS: &str = r#"
[networks.plain]
[networks.both]
subnet = ["172.30.1.0/24", "fd00:30:1::/64"]
[networks.six]
subnet = "fd00:30:2::/64"
[networks.inner]
internal = true
ipv6 = true
[networks.inner-apart]
internal = true
icc = false
[networks.isolated]
internal = true
options = { "com.docker.network.bridge.gateway_mode_ipv4" = "isolated" }
[networks."a.part_x"]
icc = false
ipv6 = true
[networks.narrow]
options = { "host-access" = "dns" }
[networks.none]
options = { "host-access" = "none" }
[networks.open]
options = { isolate = "false" }
[networks.routed]
ipv6 = true
options = { "com.docker.network.bridge.gateway_mode_ipv4" = "routed", "com.docker.network.bridge.gateway_mode_ipv6" = "routed" }
[networks.unprotected]
options = { "com.docker.network.bridge.gateway_mode_ipv4" = "nat-unprotected" }
[networks.trusting]
options = { "com.docker.network.bridge.trusted_host_interfaces" = "eth7:eth8" }
[networks.snat]
ipv6 = true
options = { outbound_addr4 = "198.51.100.7", outbound_addr6 = "2001:db8::7" }
[networks.nomasq]
masquerade = false

[containers.web]
networks = ["both"]
ports = ["80:80", "127.0.0.1:81:8081/udp", "8000-8010:8000-8010", "192.0.2.1:8100-8110:8100-8110/sctp", "8200-8202:9200-9202", "[2001:db8::5]:90:90", "[2001:db8::5]:91-92:91-92"]
[containers.r]
networks = ["routed"]
ports = ["82:82", "83-84:83-84"]
[containers.t]
networks = ["trusting"]
ports = ["85:85"]
[containers.x]
networks = ["a.part_x", "six"]
"#;

/// Runs `script` with `sh` in a network namespace of its own; `None` where there can be none.
fn run(script: &str) -> Option<(bool, String)> {
    let can = Command::new("unshare")
        .args(["-Urn", "nft", "list", "ruleset"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|s| s.success()) {
        println!("SKIPPED: `unshare -Urn nft list ruleset` does not work here");
        return None;
    }
    let mut child = Command::new("unshare")
        .args(["-Urn", "sh", "-e"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Some((out.status.success(), text))
}

fn everything() -> Vec<Resource> {
    let topology: Topology = toml::from_str(ALL_KINDS).unwrap();
    let mut all = compile::base();
    let transit = compile::transit(Some(&compile::Unforwarded {
        links: vec!["eth0".parse().unwrap(), "wlan*".parse().unwrap()],
        families: vec![Family::V6],
        wanted: Vec::new(),
        routing: vec![(Family::V4, "eth0".parse().unwrap())],
    }));
    all.retain(|r| !transit.iter().any(|t| t.key() == r.key()));
    all.extend(transit);
    all.extend(common::state(topology));
    all.retain(|r| matches!(r, Resource::Nft(_)));
    all
}

fn ops(plan: &wharf_core::plan::Plan) -> String {
    plan.steps
        .iter()
        .map(|s| render::command(&s.op) + "\n")
        .collect()
}

#[test]
fn everything_loads_and_goes() {
    let all = everything();
    let make = ops(&diff(&all, &[], "all"));
    let remove = ops(&diff(&compile::base(), &all, "all but the base"));
    let script =
        format!("{make}nft list ruleset\n{remove}nft list ruleset | grep -c net- || true\n");
    let Some((ok, text)) = run(&script) else {
        return;
    };
    assert!(ok, "{text}");
    assert!(text.ends_with("\n0\n"), "{text}");
    let lists = text.matches("elements = {").count();
    assert!(lists > 20, "{lists} sets have elements:\n{text}");
}

#[test]
fn one_by_one_as_the_engine_may_send_them() {
    let all = everything();
    let chains = |with_rules: bool| {
        all.iter().filter_map(move |r| match r {
            Resource::Nft(nft::Object::Chain(c)) if with_rules => {
                Some(Op::Nft(vec![nft::Change::Rules(c.clone())]))
            }
            Resource::Nft(nft::Object::Chain(c)) => {
                let mut empty = c.clone();
                empty.rules.clear();
                let object = nft::Object::Chain(empty);
                Some(Op::Nft(vec![nft::Change::Add(object)]))
            }
            _ => None,
        })
    };
    let others = |elements: bool| {
        all.iter().filter(move |r| match r {
            Resource::Nft(nft::Object::Chain(_)) => false,
            Resource::Nft(nft::Object::Element(_)) => elements,
            _ => !elements,
        })
    };
    let script: String = others(false)
        .map(Op::make)
        .chain(chains(false))
        .chain(chains(true))
        .chain(others(true).map(Op::make))
        .map(|op| render::command(&op) + "\n")
        .collect();
    let Some((ok, text)) = run(&script) else {
        return;
    };
    assert!(ok, "{text}");
}

#[test]
fn the_listing_loads_and_reads_as_the_transaction_does() {
    let all = everything();
    let listing = format!(
        "nft -f - <<'EOF'\n{}EOF\nnft -s list ruleset\n",
        render::ruleset(&all)
    );
    let made = format!("{}nft -s list ruleset\n", ops(&diff(&all, &[], "all")));
    let (Some((ok, a)), Some((ok2, b))) = (run(&listing), run(&made)) else {
        return;
    };
    assert!(ok && ok2, "{a}\n{b}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&a), sorted(&b));
}
