//! What users write, at random: every parser takes it or refuses it, and what it takes it writes the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Display;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use wharf_core::addr::Mac;
use wharf_core::attach::AttachRequest;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::ipam;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{HostFacts, NetworkSpec, resolve};
use wharf_core::publish::{PortMapping, PortRange, Protocol};
use wharf_core::render;
use wharf_core::topology::Topology;

const TIME: Duration = Duration::from_secs(2);
const ITERATIONS: usize = 20_000;

/// The words of all these small languages. A byte of input stands for one of them.
const WORDS: &[&str] = &[
    "80",
    ":",
    "-",
    "/",
    "tcp",
    "udp",
    "sctp",
    "[",
    "]",
    "::",
    "::1",
    "127.0.0.1",
    "0",
    "65535",
    "65536",
    "8000",
    "8010",
    ",",
    "=",
    "ip",
    "mac",
    "interface",
    "host-interface",
    "default",
    "02:00:00:00:00:01",
    ".",
    "a",
    "Z",
    "_",
    " ",
    "%",
    "é",
    "\u{0}",
    "..",
    "1",
    "255.255.255.255",
    "fd00::2",
    "/24",
    "/64",
    "alias",
    "no-default-route",
    "true",
    "*",
    "\n",
    "+",
    "00000080",
    "0x50",
    "80:80",
    "8000-8010:9000-9010",
    "8000-8010",
    "127.0.0.1:",
    "[fd00::1]:",
    "/udp",
    "blue",
    "br0",
    ":ip=10.0.0.1",
];

/// Either the bytes as they are, or the words they stand for.
fn text(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((first, rest)) if first % 4 != 0 => rest
            .iter()
            .map(|byte| WORDS[usize::from(*byte) % WORDS.len()])
            .collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// What is taken is written in a form that is taken for the same. Returns whether it was taken.
fn there_and_back<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> bool {
    let parsed = text.parse::<T>();
    if let Ok(value) = &parsed {
        let written = value.to_string();
        assert_eq!(
            written.parse::<T>().ok().as_ref(),
            Some(value),
            "{text:?} is written as {written:?}"
        );
    }
    parsed.is_ok()
}

#[test]
fn words_are_read_or_refused() {
    /// How many texts each parser took: a test that only sees refusals shows nothing.
    static TAKEN: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];
    bolero::check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_max_len(24)
        .for_each(|bytes: &[u8]| {
            let text = text(bytes);
            let taken = [
                there_and_back::<PortMapping>(&text),
                there_and_back::<PortRange>(&text),
                there_and_back::<Protocol>(&text),
                there_and_back::<Mac>(&text),
                there_and_back::<IfName>(&text),
                there_and_back::<NetworkName>(&text),
                there_and_back::<ContainerName>(&text),
                text.parse::<AttachRequest>().is_ok(),
            ];
            for (taken, count) in taken.iter().zip(&TAKEN) {
                count.fetch_add(usize::from(*taken), Relaxed);
            }
        });
    let taken = TAKEN.each_ref().map(|count| count.load(Relaxed));
    assert!(
        !taken.contains(&0),
        "of some kind nothing was ever taken: {taken:?}"
    );
}

/// Names end up in paths, sysctls and rules.
#[test]
fn a_name_is_never_a_path() {
    bolero::check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_max_len(24)
        .for_each(|bytes: &[u8]| {
            let text = text(bytes);
            let harmless = |name: &str| {
                assert!(!name.is_empty() && !matches!(name, "." | ".."), "{name:?}");
                assert!(!name.contains(['/', '\0', '\n', ' ', '"', '%']), "{name:?}");
            };
            if let Ok(name) = text.parse::<IfName>() {
                harmless(name.as_str());
                assert!(name.as_str().len() < 16);
            }
            if let Ok(name) = text.parse::<NetworkName>() {
                harmless(name.as_str());
            }
            if let Ok(name) = text.parse::<ContainerName>() {
                harmless(name.as_str());
            }
        });
}

/// A topology from pieces: the bytes choose lines.
fn topology(bytes: &[u8]) -> String {
    const LINES: &[&str] = &[
        "[networks.a]",
        "[networks.b]",
        "[containers.c]",
        "[containers.d]",
        "subnet = '10.1.0.0/24'",
        "subnet = '10.1.0.0/32'",
        "subnet = '255.255.255.255/32'",
        "subnet = ['10.2.0.0/16', 'fd00::/64']",
        "subnet = '::/0'",
        "subnet = '0.0.0.0/0'",
        "subnet = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127'",
        "gateway = '10.1.0.9'",
        "gateway = ['10.2.0.1', 'fd00::1']",
        "ip_range = '10.1.0.128/25'",
        "internal = true",
        "icc = false",
        "masquerade = false",
        "ipv6 = true",
        "mtu = 68",
        "mtu = 1280",
        "bridge = 'br0'",
        "bridge = '..'",
        "networks = ['a']",
        "networks = ['a', 'b']",
        "networks = ['a:ip=10.1.0.3']",
        "networks = ['a', 'a']",
        "ports = ['80:80']",
        "ports = ['80-90:80-90/udp', '[::]:1:1']",
        "ports = ['127.0.0.1:1-3:5-7']",
        "netns = '/proc/1/ns/net'",
        "options = { host-access = 'dns' }",
        "options = { isolate = 'false', gateway_mode_ipv4 = 'routed' }",
        "options = { metric = '0' }",
        "labels = { a = 'b' }",
        "networks = []",
        "[networks.a]\nsubnet = '10.1.0.0/24'\n[containers.c]\nnetworks = ['a']\nports = ['80:80']",
    ];
    match bytes.split_first() {
        Some((first, rest)) if first % 4 != 0 => {
            let lines = rest
                .iter()
                .map(|byte| LINES[usize::from(*byte) % LINES.len()]);
            lines.collect::<Vec<_>>().join("\n")
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The networks of a file on a host without any, if it can be.
fn resolved(topology: Topology) -> Option<Vec<NetworkSpec>> {
    let (requests, _) = topology.into_requests().ok()?;
    let mut networks = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        let host = HostFacts {
            id: [at as u8 + 1; 32],
            ..HostFacts::default()
        };
        networks.push(resolve(request, &networks, &host).ok()?);
    }
    Some(networks)
}

/// What can be read as a topology and resolved can be compiled, compared and shown.
#[test]
fn topologies_are_read_or_refused() {
    static RESOLVED: AtomicUsize = AtomicUsize::new(0);
    bolero::check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_max_len(512)
        .for_each(|bytes: &[u8]| {
            let text = topology(bytes);
            let read: Option<Topology> = toml::from_str(&text).ok();
            let yaml: Option<Topology> = serde_saphyr::from_str(&text).ok();
            for topology in [read, yaml].into_iter().flatten() {
                let Some(networks) = resolved(topology).filter(|all| !all.is_empty()) else {
                    continue;
                };
                RESOLVED.fetch_add(1, Relaxed);
                let mut all = compile::base();
                all.extend(networks.iter().flat_map(compile::network));
                let plan = diff(&all, &[], "test");
                assert!(diff(&all, &all, "test").is_empty());
                for step in &plan.steps {
                    let _ = render::command(&step.op);
                }
            }
        });
    assert!(RESOLVED.load(Relaxed) > 0, "no topology ever made sense");
}

/// Addresses against the simplest model: the set of those handed out.
#[test]
fn addresses_are_handed_out_as_a_set_would() {
    type Input = (u128, u8, bool, Vec<u8>);
    bolero::check!()
        .with_type::<Input>()
        .with_iterations(2_000)
        .with_test_time(TIME)
        .for_each(|(base, len, v6, taken)| {
            let subnet: ipnet::IpNet = match v6 {
                true => ipnet::Ipv6Net::new((*base).into(), 112 + len % 17)
                    .unwrap()
                    .trunc()
                    .into(),
                false => ipnet::Ipv4Net::new((*base as u32).into(), 20 + len % 13)
                    .unwrap()
                    .trunc()
                    .into(),
            };
            let (first, last) = ipam::usable(subnet);
            let number = wharf_core::addr::to_number;
            assert!(
                subnet.contains(&first) && subnet.contains(&last)
                    || subnet.prefix_len() >= subnet.max_prefix_len() - 1,
                "{subnet}"
            );
            let mut out = std::collections::BTreeSet::new();
            let mut previous = None;
            for give_back in taken.iter().take(40) {
                let next = ipam::next_address(subnet, None, previous, |addr| !out.contains(&addr));
                let size = number(last).saturating_sub(number(first)) + 1;
                let Some(addr) = next else {
                    assert_eq!(
                        out.len() as u128,
                        size,
                        "{subnet}: none is left only when all are out"
                    );
                    break;
                };
                assert!(ipam::is_usable(subnet, addr), "{addr} of {subnet}");
                assert!(out.insert(addr), "{addr} twice");
                previous = Some(addr);
                if give_back % 3 == 0 {
                    out.pop_first();
                }
            }
        });
}
