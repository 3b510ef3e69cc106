//! A bridge of the name in the configuration that somebody else made: used where nobody is on it, and left as it was.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

fn ports() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
}

/// Makes the bridge, and attaches a container that must work; when it and its network are gone, all is as before.
#[track_caller]
fn used(host: &Host, what: &str, make: &str, more: &Value) {
    host.sh(make);
    let before = Snapshot::of(host);
    let bridge_was = bridge_is(host, "cni7");
    let runtime = Runtime::new(host);
    let list = list("1.1.0", more);
    runtime.netns("c1");
    let result = runtime
        .add(&list, "c1", "eth0", &ports())
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let bridge = host.netns().ip_json("link show dev cni7");
    let (is, listed) = (
        text(&bridge, "0/address"),
        text(&result, "interfaces/0/mac"),
    );
    assert_eq!(is, listed, "{what}");
    let inside = host.container("c1");
    let web = Echo::tcp(&inside, "c1", 80);
    let out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("c1"),
        "{what}"
    );
    assert_eq!(
        inside.tcp(addr::OUTSIDE4, 90).source(),
        Some(addr::HOST4),
        "{what}"
    );
    runtime
        .check(&list, "c1", "eth0", &ports())
        .unwrap_or_else(|e| panic!("{what}: CHECK: {e}"));
    assert_eq!(
        host.w("repair --dry-run --json").json()["steps"],
        json!([]),
        "{what}"
    );
    runtime.del(&list, "c1", "eth0", &ports()).expect("DEL");
    drop((web, out));
    host.sh("ip netns del c1");
    host.w("network rm mynet").ok();
    let difference = before.difference_on(host);
    let lines = difference.lines().iter();
    let lines: Vec<_> = lines.filter(|l| !l.contains("cni7")).collect();
    assert!(lines.is_empty(), "{what}: {lines:#?}");
    assert_eq!(bridge_is(host, "cni7"), bridge_was, "{what}");
    host.sh("ip link del cni7");
}

#[test]
fn one_that_nobody_is_on_is_used() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let add = "ip link add cni7 address 02:00:00:00:77:01 type bridge; ip link set cni7 mtu 1400";
    let with = |more: &str| format!("{add}; ip link set cni7 up; {more}");
    used(&host, "bare and down", add, &json!({}));
    let left = with("ip addr add 10.44.0.1/24 dev cni7; ip addr add fd44::1/64 dev cni7 nodad");
    used(&host, "left by the reference plugin", &left, &json!({}));
    let further = with("ip addr add fd99::1/64 dev cni7 nodad");
    used(&host, "a further prefix of IPv6", &further, &json!({}));
    let other = with("ip addr add 10.99.0.1/24 dev cni7");
    used(&host, "by force", &other, &json!({"forceAddress": true}));
    before.assert_same(&host, "bridges of somebody else");
}

#[test]
fn one_that_cannot_be_used_stays_as_it_is() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    runtime.netns("c1");
    for (make, word) in [
        (
            "ip link add cni7 type veth peer name port7",
            "exists already",
        ),
        (
            "ip link add cni7 type bridge; ip link add port7 master cni7 type veth peer name port8",
            "exists already",
        ),
        (
            "ip link add cni7 type bridge; ip addr add 10.99.0.1/24 dev cni7",
            "10.99.0.1/24",
        ),
        (
            "ip link add cni7 type bridge; ip addr add 10.44.0.9/24 dev cni7",
            "10.44.0.9/24",
        ),
        (
            "ip link add cni7 type bridge; ip addr add fd44::9/64 dev cni7",
            "fd44::9/64",
        ),
    ] {
        host.sh(make);
        let before = Snapshot::of(&host);
        let error = runtime.add(&list, "c1", "eth0", &ports()).expect_err(make);
        assert_eq!(error["code"], 101, "{make}: {error}");
        assert!(error.to_string().contains(word), "{make}: {error}");
        assert_eq!(host.container("c1").interfaces(), ["lo"]);
        before.assert_same(&host, make);
        host.sh("ip link del cni7; ip link del port7 2>/dev/null || true");
    }
}

/// Somebody removes it while a container is on it: the next one finds a bridge again, and so does the first.
#[test]
fn one_that_goes_meanwhile_is_made_again() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    host.sh("ip link add cni7 type bridge");
    for id in ["c1", "c2"] {
        runtime.netns(id);
    }
    runtime.add(&list, "c1", "eth0", &ports()).expect("ADD");
    host.sh("ip link del cni7");
    runtime
        .add(&list, "c2", "eth0", &Value::Null)
        .expect("ADD of another");
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    assert_eq!(
        host.container("c2").tcp(ip("10.44.0.2"), 80).by(),
        Some("c1")
    );
}

/// The kernel has the hardware address of a bridge that nobody gave one follow its ports.
#[test]
fn its_hardware_address_stays() {
    require!();
    for left_by_ports in [false, true] {
        let host = host();
        let runtime = Runtime::new(&host);
        let list = list("1.1.0", &json!({}));
        host.sh("ip link add cni7 type bridge; ip link set cni7 up");
        if left_by_ports {
            host.sh(
                "ip link add p0 type veth peer name p1; ip link set p0 master cni7; ip link del p0",
            );
        }
        let mac = || text(&host.netns().ip_json("link show dev cni7"), "0/address");
        let was = mac();
        let ids: Vec<String> = (0..4).map(|n| format!("c{n}")).collect();
        for id in &ids {
            runtime.netns(id);
            let result = runtime.add(&list, id, "eth0", &Value::Null).expect("ADD");
            assert_eq!(text(&result, "interfaces/0/mac"), mac(), "{id}");
        }
        if !left_by_ports {
            assert_eq!(mac(), was);
        }
        for id in &ids {
            runtime
                .check(&list, id, "eth0", &Value::Null)
                .unwrap_or_else(|e| panic!("{id}: {e}"));
        }
        let fixed = mac();
        for id in &ids {
            assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
            runtime.del(&list, id, "eth0", &Value::Null).expect("DEL");
            assert_eq!(mac(), fixed, "without {id}");
        }
        host.w("network rm mynet").ok();
        assert_eq!(mac(), fixed);
    }
}
