//! What the tests share.

use serde_json::{Value, json};
use std::net::IpAddr;
use wharf_testkit::{Host, HostOptions};

/// The program under test.
pub const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// A host with the usual choices.
#[track_caller]
pub fn host() -> Host {
    Host::new(WHARF)
}

/// Choices for a host.
pub fn options() -> HostOptions {
    HostOptions::new(WHARF)
}

/// An address.
#[track_caller]
pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is not an address"))
}

/// The `n`-th address of test network `net`: 10.88.NET.n or fd00:88:NET::n.
pub fn at(v6: bool, net: u8, n: u8) -> IpAddr {
    if v6 {
        ip(&format!("fd00:88:{net}::{n}"))
    } else {
        ip(&format!("10.88.{net}.{n}"))
    }
}

/// The options that give network `net` both of its subnets.
pub fn subnets(net: u8) -> String {
    format!("--subnet 10.88.{net}.0/24 --subnet fd00:88:{net}::/64")
}

/// The options that put a container at `n` in network `net`.
pub fn ips(net: u8, n: u8) -> String {
    format!("--ip 10.88.{net}.{n} --ip fd00:88:{net}::{n}")
}

/// A dual-stack network named `name`, number `net`.
#[track_caller]
pub fn network(host: &Host, name: &str, net: u8, more: &str) {
    host.w(&format!("network create {name} {} {more}", subnets(net)))
        .ok();
}

/// A container on the network named `network`, number `net`, at address `n`.
#[track_caller]
pub fn container(host: &Host, name: &str, network: &str, net: u8, n: u8, more: &str) {
    host.w(&format!(
        "create {name} --network {network} {} {more}",
        ips(net, n)
    ))
    .ok();
}

/// Removes containers and networks, which must succeed.
#[track_caller]
pub fn remove(host: &Host, containers: &[&str], networks: &[&str]) {
    if !containers.is_empty() {
        host.w(&format!("rm -f {}", containers.join(" "))).ok();
    }
    if !networks.is_empty() {
        host.w(&format!("network rm {}", networks.join(" "))).ok();
    }
}

/// A text at a path such as `networks/0/mac` inside a JSON value.
#[track_caller]
pub fn text(value: &Value, path: &str) -> String {
    let found = value.pointer(&format!("/{path}")).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no text at {path} in {value:#}"))
        .to_owned()
}

/// The texts of a list at a path inside a JSON value.
#[track_caller]
pub fn texts(value: &Value, path: &str) -> Vec<String> {
    let found = value.pointer(&format!("/{path}")).and_then(Value::as_array);
    let list = found.unwrap_or_else(|| panic!("no list at {path} in {value:#}"));
    list.iter()
        .filter_map(|item| item.as_str().map(String::from))
        .collect()
}

/// The names in the answer of `ps --json` or `network ls --json`, sorted.
#[track_caller]
pub fn names(list: &Value) -> Vec<String> {
    let list = list
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {list:#}"));
    let mut names: Vec<_> = list.iter().map(|item| text(item, "name")).collect();
    names.sort();
    names
}

/// The first address of a container in a family, without the prefix length.
#[track_caller]
pub fn address_of(host: &Host, name: &str, v6: bool) -> IpAddr {
    let container = host.inspect(name);
    let networks = container["networks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let all: Vec<_> = networks
        .iter()
        .flat_map(|network| texts(network, "addresses"))
        .collect();
    let parsed = all
        .iter()
        .filter_map(|net| net.split('/').next()?.parse::<IpAddr>().ok());
    let found = parsed.into_iter().find(|address| address.is_ipv6() == v6);
    found.unwrap_or_else(|| panic!("{name} has no such address: {all:?}"))
}

/// What a bridge's owner would miss: its addresses are compared, the kernel's own of IPv6 apart, not the settings that
/// every bridge with ports has.
pub fn bridge_is(host: &Host, bridge: &str) -> Value {
    let shown = host.netns().ip_json(&format!("addr show dev {bridge}"));
    let addresses = shown[0]["addr_info"].as_array().cloned();
    let global = addresses.unwrap_or_default().into_iter();
    let global = global.filter(|a| a["scope"] == "global");
    let plain = global.map(|a| json!([a["local"], a["prefixlen"]]));
    let up = shown[0]["flags"]
        .as_array()
        .is_some_and(|flags| flags.contains(&json!("UP")));
    json!([
        shown[0]["address"],
        shown[0]["mtu"],
        up,
        plain.collect::<Vec<_>>()
    ])
}
