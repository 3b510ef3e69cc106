//! The rules as this writes them, against those that nft writes from text.

use std::process::{Command, Stdio};

use wharf_core::addr::Family;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::Resource;
use wharf_core::render;
use wharf_core::topology::Topology;
use wharf_engine::kernel::execute;
use wharf_engine::kernel::netlink::NetlinkKernel;

use super::{alone, sh, state};

/// One network of each kind of option, containers with each kind of port.
const ALL_KINDS: &str = r#"
[networks.plain]
[networks.both]
subnet = ["172.30.1.0/24", "fd00:30:1::/64"]
[networks.six]
subnet = "fd00:30:2::/64"
[networks.odd]
subnet = "172.30.4.0/23"
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
    all.extend(state::state(topology));
    all.retain(|r| matches!(r, Resource::Nft(_)));
    all
}

/// The lines of a listing, elements of a set in alphabetical order (hash tables have none).
fn lines(listing: &str) -> Vec<String> {
    let (mut lines, mut elements) = (Vec::new(), None::<String>);
    for line in listing.lines().map(str::trim) {
        if line.starts_with("elements = {") {
            elements = Some(String::new());
        }
        let Some(list) = &mut elements else {
            lines.push(line.to_owned());
            continue;
        };
        list.push_str(line);
        list.push(' ');
        if line.ends_with('}') {
            let inner = list
                .trim_start_matches("elements = {")
                .trim()
                .trim_end_matches('}');
            let mut each: Vec<&str> = inner.split(',').map(str::trim).collect();
            each.sort_unstable();
            lines.push(format!("elements = {}", each.join(", ")));
            elements = None;
        }
    }
    lines
}

/// nft 1.0.6 cannot say that 16 bytes are an address: in its text the set is there twice, once of numbers.
fn without_twin(listing: &str) -> String {
    let (before, rest) = listing.split_once("\tset guard6_nd {").unwrap();
    let (_, after) = rest.split_once("\t}\n\n").unwrap();
    format!("{before}{}", after.replace("@guard6_nd", "@guard6"))
}

fn by_nft(text: &str) -> String {
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-ec", "nft -f - && nft -s list ruleset"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn nft_lists_what_it_would_have_written() {
    if !alone() {
        return;
    }
    let all = everything();
    let mut kernel = NetlinkKernel::new();
    if let Err(error) = execute(&mut kernel, &diff(&all, &[], "")) {
        panic!("{}", error.error);
    }
    let (ours, theirs) = (
        sh("nft -s list ruleset"),
        without_twin(&by_nft(&render::ruleset(&all))),
    );
    let (mut a, mut b) = (lines(&ours), lines(&theirs));
    assert!(a.len() > 300, "{ours}");
    a.sort();
    b.sort();
    for line in a.iter().filter(|l| !b.contains(l)) {
        println!("only by netlink: {line}");
    }
    for line in b.iter().filter(|l| !a.contains(l)) {
        println!("only by nft: {line}");
    }
    assert!(a == b);
    // In order, with the blocks of chains as they are.
    let chains = |text: &str| {
        let mut blocks: Vec<String> = text.split("\n\t}").map(str::to_owned).collect();
        blocks.retain(|b| b.contains("chain "));
        blocks.sort();
        blocks
    };
    assert_eq!(chains(&ours), chains(&theirs));
    let removed = execute(&mut kernel, &diff(&[], &all, ""));
    assert!(removed.is_ok());
    assert_eq!(sh("nft list ruleset"), "");
}
