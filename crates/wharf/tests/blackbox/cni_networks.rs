//! Containers on several networks of a runtime, and networks of several clients beside each other.

use crate::cni_runtime::*;
use crate::common::*;
use crate::netavark::{bridge, input, namespaces, setup, teardown};
use serde_json::{Value, json};
use wharf_testkit::{Echo, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

fn port(host: u16) -> Value {
    json!({"portMappings": [{"hostPort": host, "containerPort": 80, "protocol": "tcp"}]})
}

/// A list with both families and a default route of each: number `net` by the address plugin's routes, or by the bridge.
fn routed(name: &str, net: u8, by_bridge: bool) -> Value {
    let mut ipam = json!({"type": "host-local", "ranges":
        [[{"subnet": format!("10.{net}.0.0/24")}], [{"subnet": format!("fd{net}::/64")}]]});
    if !by_bridge {
        ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    }
    let more = json!({"bridge": format!("br{net}"), "ipam": ipam, "isDefaultGateway": by_bridge});
    let mut list = list("1.0.0", &more);
    list["name"] = json!(name);
    list
}

/// The interfaces of a container's default routes in the main table, the first choice first.
fn defaults(c: &wharf_testkit::Netns, family: &str) -> Vec<String> {
    let routes = c.ip_json(&format!("{family} route show default"));
    let mut all: Vec<(u64, String)> = routes
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| (r["metric"].as_u64().unwrap_or(0), text(r, "dev")))
        .collect();
    all.sort();
    all.into_iter().map(|(_, dev)| dev).collect()
}

#[test]
fn the_first_default_route_stays_and_every_port_answers() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    runtime.netns("pod");
    let lists = [
        (routed("one", 44, false), "eth0", 8080),
        (routed("two", 45, false), "net1", 8081),
        (routed("three", 46, true), "net2", 8082),
    ];
    for (list, ifname, number) in &lists {
        runtime
            .add(list, "pod", ifname, &port(*number))
            .unwrap_or_else(|e| panic!("{ifname}: {e}"));
    }
    let pod = host.container("pod");
    let web = Echo::tcp(&pod, "pod", 80);
    for family in ["-4", "-6"] {
        assert_eq!(defaults(&pod, family), ["eth0", "net1", "net2"]);
    }
    for (list, ifname, number) in &lists {
        // The kernel draws among ways of the same metric: once would be luck.
        for _ in 0..6 {
            for to in [addr::HOST4, addr::HOST6] {
                let answer = host.outside().tcp(to, *number);
                assert_eq!(answer.by(), Some("pod"), "{ifname} by {to}");
            }
        }
        runtime
            .check(list, "pod", ifname, &port(*number))
            .unwrap_or_else(|e| panic!("{ifname}: {e}"));
    }
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    let doctor = host.w("doctor --json").json();
    assert_eq!(doctor["findings"], json!([]), "{doctor:#}");
    // What the first one leaves, the second one takes over.
    let (first, second) = (&lists[0], &lists[1]);
    runtime
        .del(&first.0, "pod", "eth0", &port(first.2))
        .expect("DEL");
    assert_eq!(defaults(&pod, "-4"), ["net1", "net2"]);
    runtime
        .add(&first.0, "pod", "eth0", &port(first.2))
        .expect("ADD again");
    assert_eq!(defaults(&pod, "-6"), ["net1", "net2", "eth0"]);
    for number in [8080, 8081] {
        assert_eq!(host.outside().tcp(addr::HOST6, number).by(), Some("pod"));
    }
    // A rule that somebody removed is missed, and made again.
    pod.ip("-6 rule del priority 32700");
    let missing = runtime.check(&lists[2].0, "pod", "net2", &port(8082));
    let other = runtime.check(&second.0, "pod", "net1", &port(8081));
    let third = runtime.check(&first.0, "pod", "eth0", &port(8080));
    assert!(missing.is_err() || other.is_err() || third.is_err());
    host.w("repair").ok();
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    // A lost store does not lose them either.
    host.sh("rm -r /run/wharf");
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    pod.ip("rule del priority 32700");
    let plan = host.w("repair --dry-run --json").json();
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(1), "{plan:#}");
    host.w("repair").ok();
    drop(web);
    for (list, ifname, number) in &lists {
        runtime
            .del(list, "pod", ifname, &port(*number))
            .unwrap_or_else(|e| panic!("{ifname}: {e}"));
    }
    assert!(!pod.ip("rule").contains("32700"), "{}", pod.ip("rule"));
    host.sh("ip netns del pod");
    host.w("network rm one two three").ok();
    before.assert_same(&host, "three networks");
}

/// As the reference plugins make it, and wharf did before: one route of two ways.
#[test]
fn ways_of_one_route_are_each_seen() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    runtime.netns("pod");
    let list = routed("one", 44, false);
    runtime.add(&list, "pod", "eth0", &no()).expect("ADD");
    let pod = host.container("pod");
    pod.sh("ip link add side0 type veth peer name side1; ip link set side0 up; ip link set side1 up; ip addr add fd77::2/64 dev side0 nodad; ip -6 route append default via fd77::1 dev side0");
    let routes = pod.ip("-6 route show default");
    assert!(routes.contains("nexthop via fd44::1"), "{routes}");
    runtime.check(&list, "pod", "eth0", &no()).expect("CHECK");
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    pod.ip("-6 route del default via fd44::1 dev eth0");
    runtime
        .check(&list, "pod", "eth0", &no())
        .expect_err("its own way is gone");
    host.w("repair").ok();
    runtime.check(&list, "pod", "eth0", &no()).expect("CHECK");
}

/// Podman's network and the runtime's have one name, whoever comes first.
#[test]
fn a_network_of_podmans_has_the_same_name() {
    require!();
    for podman_first in [true, false] {
        let host = host();
        let runtime = Runtime::new(&host);
        let list = list("1.1.0", &json!({}));
        let theirs = input("box", 10, &[bridge("mynet", 1)]);
        namespaces(&host, &["box"]);
        for id in ["c1", "c2"] {
            runtime.netns(id);
        }
        let before = Snapshot::of(&host);
        if podman_first {
            setup(&host, "box", &theirs);
        }
        runtime.add(&list, "c1", "eth0", &port(8080)).expect("ADD");
        if !podman_first {
            setup(&host, "box", &theirs);
        }
        let (c1, in_box) = (host.container("c1"), host.container("box"));
        let servers = (Echo::tcp(&c1, "c1", 80), Echo::tcp(&in_box, "box", 80));
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
        assert_eq!(host.netns().tcp(ip("10.88.1.10"), 80).by(), Some("box"));
        runtime
            .check(&list, "c1", "eth0", &port(8080))
            .expect("CHECK");
        // What one of them does is nothing to the other, and stays so when Podman's is gone.
        teardown(&host, "box", &theirs);
        runtime.add(&list, "c2", "eth0", &no()).expect("ADD");
        assert_eq!(
            host.container("c2").tcp(ip("10.44.0.2"), 80).by(),
            Some("c1")
        );
        setup(&host, "box", &theirs);
        runtime.gc(&list, &[("c1", "eth0")]).expect("GC");
        assert_eq!(host.container("c2").interfaces(), ["lo"]);
        assert_eq!(host.netns().tcp(ip("10.88.1.10"), 80).by(), Some("box"));
        teardown(&host, "box", &theirs);
        // Also without the store.
        host.sh("rm -r /run/wharf");
        runtime.del(&list, "c1", "eth0", &port(8080)).expect("DEL");
        assert_eq!(c1.interfaces(), ["lo"]);
        runtime.gc(&list, &[]).expect("GC");
        drop(servers);
        let left = host.w("network ls --json").json();
        assert_eq!(left, json!([]), "{left:#}");
        before.assert_same(&host, "Podman's and the runtime's");
    }
}
