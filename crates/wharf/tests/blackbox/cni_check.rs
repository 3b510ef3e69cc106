//! `CHECK`: each kind of damage is seen and named, and what other plugins may change is none.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::require;

/// What is done to an attachment, and what `CHECK` says of it. `NS` is the container's namespace, `CABLE` the host's end
/// of its cable, `DETOUR` the way round of what it sends.
const DAMAGE: &[(&str, &str)] = &[
    ("ip -n NS link set eth0 down", "`eth0` up"),
    ("ip -n NS link set eth0 name other", "interface `eth0`"),
    ("ip -n NS link del eth0", "host interface"),
    (
        "ip -n NS addr del 10.44.0.2/24 dev eth0",
        "address 10.44.0.2/24",
    ),
    (
        "ip -n NS addr del fd44::2/64 dev eth0",
        "address fd44::2/64",
    ),
    ("ip -n NS route del default", "route to 0.0.0.0/0"),
    ("ip -n NS -6 route del default", "route to ::/0"),
    (
        "ip -n NS link set eth0 address 02:00:00:00:00:99",
        "hardware address",
    ),
    ("ip -n NS link set eth0 mtu 1400", "MTU 1500 of `eth0`"),
    ("ip -n NS link set eth0 promisc off", "promisc"),
    ("ip -n NS link set eth0 allmulticast off", "allmulti"),
    (
        "ip netns exec NS sysctl -qw net.ipv4.conf.eth0.arp_filter=0",
        "arp_filter",
    ),
    ("ip link set CABLE nomaster", "in bridge `cni7`"),
    ("ip link set CABLE down", "up"),
    ("ip link set CABLE mtu 1400", "link CABLE"),
    ("ip link set CABLE alias mine", "the mark of `CABLE`"),
    ("ip link set CABLE group 0", "link CABLE"),
    (
        "bridge link set dev CABLE locked off",
        "port settings of CABLE",
    ),
    (
        "bridge fdb del $(ip -n NS -j link show eth0 | sed 's/.*address\":\"//; s/\".*//') dev CABLE master",
        "forwarding entry",
    ),
    ("tc qdisc del dev CABLE root", "limit of CABLE"),
    ("tc qdisc del dev CABLE ingress", "way round of CABLE"),
    ("tc qdisc del dev DETOUR root", "limit of DETOUR"),
    ("ip link del DETOUR", "DETOUR"),
    ("ip link set cni7 down", "bridge `cni7` up"),
    ("ip link del cni7", "bridge `cni7`"),
    (
        "ip addr del 10.44.0.1/24 dev cni7",
        "address 10.44.0.1/24 on cni7",
    ),
    (
        "ip addr del fd44::1/64 dev cni7",
        "address fd44::1/64 on cni7",
    ),
    (
        "ip route del 10.44.0.0/24 dev cni7",
        "route 10.44.0.0/24 dev cni7",
    ),
    (
        "ip -6 route del fd44::/64 dev cni7",
        "route fd44::/64 dev cni7",
    ),
    (
        "ip link set cni7 type bridge stp_state 1",
        "settings of cni7",
    ),
    ("ip neigh del 10.44.0.2 dev cni7", "neighbour 10.44.0.2"),
    ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward"),
    (
        "sysctl -qw net.ipv4.conf.cni7.route_localnet=0",
        "route_localnet",
    ),
    ("nft flush map inet wharf publish4", "a rule in `publish4`"),
    (
        "nft flush chain inet wharf net-mynet-nat",
        "chain inet wharf net-mynet-nat",
    ),
    (
        "nft flush chain inet wharf net-mynet-in",
        "chain inet wharf net-mynet-in",
    ),
    ("nft flush chain inet wharf raw", "chain inet wharf raw"),
    (
        "nft flush chain inet wharf forward",
        "chain inet wharf forward",
    ),
    (
        "nft flush chain bridge wharf ports",
        "chain bridge wharf ports",
    ),
    ("nft delete table inet wharf", "table inet wharf"),
    ("nft delete table bridge wharf", "table bridge wharf"),
    ("nft flush ruleset", "table inet wharf"),
];

fn everything() -> (Value, Value) {
    let list = list(
        "1.1.0",
        &json!({"promisc": true, "allmulti": true, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}),
    );
    let capabilities = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000},
    });
    (list, capabilities)
}

#[test]
fn every_damage_is_seen() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let (list, wanted) = everything();
    let mut unseen = Vec::new();
    for (at, (damage, word)) in DAMAGE.iter().enumerate() {
        let id = format!("c{at}");
        runtime.netns(&id);
        let result = runtime.add(&list, &id, "eth0", &wanted).expect("ADD");
        runtime
            .check(&list, &id, "eth0", &wanted)
            .unwrap_or_else(|e| panic!("before {damage}: {e}"));
        let (cable, detour) = (
            text(&result, "interfaces/1/name"),
            text(&result, "interfaces/3/name"),
        );
        let address = text(&result, "ips/0/address");
        let number = address
            .trim_start_matches("10.44.0.")
            .trim_end_matches("/24");
        let named = |text: &str| {
            let text = text.replace("NS", &id).replace("CABLE", &cable);
            let text = text.replace("DETOUR", &detour);
            text.replace("10.44.0.2", &format!("10.44.0.{number}"))
                .replace("fd44::2", &text_of_v6(&result))
        };
        host.sh(&named(damage));
        match runtime.check(&list, &id, "eth0", &wanted) {
            Ok(_) => unseen.push(format!("{damage}: nothing")),
            Err(error)
                if error["details"]
                    .as_str()
                    .is_some_and(|d| d.contains(&named(word))) => {}
            Err(error) => unseen.push(format!("{damage}: {error}")),
        }
        runtime.del(&list, &id, "eth0", &wanted).expect("DEL");
        host.sh(&format!("ip netns del {id}"));
        host.w("repair").ok();
    }
    assert!(unseen.is_empty(), "{unseen:#?}");
}

fn text_of_v6(result: &Value) -> String {
    let address = text(result, "ips/1/address");
    address.trim_end_matches("/64").to_owned()
}

#[test]
fn a_result_of_something_else_does_not_fit() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let (list, _) = everything();
    for id in ["c1", "c2"] {
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &Value::Null).expect("ADD");
    }
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    let good = runtime.cached(&list, "c1", "eth0");
    let check = |prev: &Value| {
        let mut conf = conf.clone();
        conf["prevResult"] = prev.clone();
        runtime.call("CHECK", "c1", &netns_of("c1"), "eth0", &conf)
    };
    check(&good).expect("its own");
    check(&runtime.cached(&list, "c2", "eth0")).expect_err("of another container");
    for (path, value) in [
        ("/interfaces/0/name", json!("cni9")),
        ("/interfaces/1/name", json!("veth0")),
        ("/interfaces/2/name", json!("eth1")),
        ("/interfaces/2/mac", json!("02:00:00:00:00:99")),
        ("/interfaces/2/mtu", json!(9000)),
        ("/interfaces/2/sandbox", json!("/run/netns/c2")),
        ("/ips/0/address", json!("10.44.0.99/24")),
        ("/ips/0/address", json!("10.44.0.2/16")),
        ("/routes/0/dst", json!("10.99.0.0/16")),
        ("/routes/0/gw", json!("10.44.0.99")),
        ("/interfaces", json!([])),
        ("/ips", json!("x")),
    ] {
        let mut bad = good.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() {
            &mut bad
        } else {
            bad.pointer_mut(parent).unwrap()
        };
        parent[key] = value.clone();
        check(&bad).expect_err(&format!("{path} = {value}"));
    }
    // What was not said is not missed, and what was added since is nobody's business.
    let mut less = good.clone();
    for path in ["/interfaces/2/mac", "/interfaces/2/mtu"] {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = less.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.unwrap().remove(key);
    }
    host.sh(
        "ip -n c1 addr add 10.99.0.1/24 dev eth0; ip -n c1 route add 10.98.0.0/16 via 10.44.0.1",
    );
    check(&less).expect("as far as it says");
}
