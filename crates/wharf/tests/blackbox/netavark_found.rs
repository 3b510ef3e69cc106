//! A network whose bridge somebody else made: used where nobody is on it, and left as it was.

use crate::common::*;
use crate::netavark::*;
use wharf_testkit::{Echo, Snapshot, addr, require};

#[test]
fn a_bridge_that_nobody_is_on_is_used() {
    require!();
    let host = host();
    let nothing = Snapshot::of(&host);
    let add = "ip link add podman1 address 02:00:00:00:77:01 type bridge";
    for (what, make) in [
        ("bare and down", add.to_owned()),
        (
            "left by Netavark",
            format!(
                "{add}; ip link set podman1 up; ip addr add 10.88.1.1/24 dev podman1; \
                 ip addr add fd00:88:1::1/64 dev podman1 nodad"
            ),
        ),
    ] {
        host.sh(&make);
        let bridge_was = bridge_is(&host, "podman1");
        namespaces(&host, &["a"]);
        let a = publish(&input("a", 10, &[bridge("one", 1)]), "", 8080, 80);
        setup(&host, "a", &a);
        let inside = host.container("a");
        let web = Echo::tcp(&inside, "a", 80);
        let out = Echo::tcp(host.outside(), "out", 90);
        for v6 in [false, true] {
            let by = host.outside().tcp(addr::host(v6), 8080);
            assert_eq!(by.by(), Some("a"), "{what}");
            let source = inside.tcp(addr::outside(v6), 90).source();
            assert_eq!(source, Some(addr::host(v6)), "{what}");
        }
        drop((web, out));
        teardown(&host, "a", &a);
        assert_eq!(bridge_is(&host, "podman1"), bridge_was, "{what}");
        host.sh("ip netns del a; ip link del podman1");
        nothing.assert_same(&host, what);
    }
}

#[test]
fn one_with_ports_or_other_addresses_stays_as_it_is() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let a = input("a", 10, &[bridge("one", 1)]);
    let bridge = "ip link add podman1 type bridge";
    for (make, word) in [
        (
            format!("{bridge}; ip link add port7 master podman1 type veth peer name port8"),
            "exists already",
        ),
        (
            "ip link add podman1 type veth peer name port7".to_owned(),
            "exists already",
        ),
        (
            format!("{bridge}; ip addr add 10.99.0.1/24 dev podman1"),
            "10.99.0.1/24",
        ),
    ] {
        host.sh(&make);
        let before = Snapshot::of(&host);
        let said = refused(call(&host, &["setup", "/run/netns/a"], &a));
        assert!(said.contains(word), "{make}: {said}");
        assert_eq!(host.container("a").interfaces(), ["lo"]);
        before.assert_same(&host, &make);
        host.sh("ip link del podman1; ip link del port7 2>/dev/null || true");
    }
}
