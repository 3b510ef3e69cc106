//! `wharf network …`: what is made, how it is shown, and how it goes.

use crate::common::*;
use std::time::Instant;
use wharf_testkit::{Answer, Echo, Snapshot, addr, require};

#[test]
fn create_inspect_ls_rm() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let args = "network create front --subnet 10.88.1.0/24 --gateway 10.88.1.254 --ip-range 10.88.1.128/26 \
                --subnet fd00:88:1::/64 --bridge wharf-f --mtu 1400 --icc=false --masquerade=false \
                --label team=blue --label empty= -o com.docker.network.bridge.host_binding_ipv4=10.0.2.2";
    host.w(args).ok();
    let front = host.inspect_network("front");
    assert_eq!(text(&front, "name"), "front");
    assert_eq!(text(&front, "bridge"), "wharf-f");
    assert_eq!(text(&front, "subnets/0/subnet"), "10.88.1.0/24");
    assert_eq!(text(&front, "subnets/0/gateway"), "10.88.1.254");
    assert_eq!(text(&front, "subnets/0/ip_range"), "10.88.1.128/26");
    assert_eq!(text(&front, "subnets/1/gateway"), "fd00:88:1::1");
    assert_eq!(
        (&front["internal"], &front["icc"], &front["masquerade"]),
        (&false.into(), &false.into(), &false.into())
    );
    assert_eq!(
        (&front["mtu"], &front["ipv6"]),
        (&1400.into(), &true.into())
    );
    assert_eq!(text(&front, "labels/team"), "blue");
    assert_eq!(
        text(
            &front,
            "options/com.docker.network.bridge.host_binding_ipv4"
        ),
        "10.0.2.2"
    );
    assert_eq!(texts(&front, "containers"), Vec::<String>::new());
    assert_eq!(
        host.w("network ls --json").json()[0],
        front,
        "ls shows the same"
    );
    let seen = host.w("network ls").ok();
    assert!(
        seen.stdout.contains("front") && seen.stdout.contains("10.88.1.0/24"),
        "{}",
        seen.transcript()
    );

    host.w("create c1 --network front").ok();
    let got = address_of(&host, "c1", false);
    assert!(
        (128..192).any(|n| got == at(false, 1, n)),
        "{got} is not in the range"
    );
    let routes = host.container("c1").ip("route show default");
    assert!(routes.contains("via 10.88.1.254"), "{routes}");
    assert!(
        host.container("c1")
            .ip("link show dev eth0")
            .contains("mtu 1400")
    );
    host.w("network rm front").fails(1).says("c1");
    remove(&host, &["c1"], &["front"]);
    host.w("network rm front").fails(1).says("front");
    before.assert_same(&host, "a network with every option");
}

#[test]
fn the_default_network_is_made_on_first_use() {
    require!();
    let host = host();
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
    host.w("create c1").ok();
    assert_eq!(text(&host.inspect("c1"), "networks/0/network"), "default");
    assert_eq!(text(&host.inspect_network("default"), "bridge"), "wharf0");
    assert!(host.container("c1").ping(addr::OUTSIDE4).reached());
}

#[test]
fn prune_removes_what_nobody_uses() {
    require!();
    let host = host();
    for (name, net) in [("A", 1), ("B", 2), ("C", 3)] {
        network(&host, name, net, "");
    }
    host.w("create c1 --network B").ok();
    host.w("network prune").ok();
    assert_eq!(names(&host.w("network ls --json").json()), ["B"]);
    remove(&host, &["c1"], &["B"]);
}

#[test]
fn automatic_subnets_avoid_every_route_of_the_host() {
    require!();
    let host = host();
    host.sh("ip route add 10.0.0.0/8 via 10.0.2.1
         ip route add 172.16.0.0/13 via 10.0.2.1 table 77
         ip route add blackhole 172.24.0.0/14
         ip -6 route add fd00::/9 via 2001:db8:2::1");
    let taken: [(u32, u32); 4] = [
        (0x0a00_0000, 8),
        (0xac10_0000, 13),
        (0xac18_0000, 14),
        (0xc0a8_0000, 23),
    ];
    let mut given = Vec::new();
    for n in 0..6 {
        host.w(&format!("network create auto{n} --ipv6")).ok();
        let network = host.inspect_network(&format!("auto{n}"));
        for side in ["0", "1"] {
            let subnet = text(&network, &format!("subnets/{side}/subnet"));
            assert!(!given.contains(&subnet), "{subnet} twice");
            given.push(subnet);
        }
    }
    let v4 = given.iter().filter_map(|net| {
        let (base, length) = net.split_once('/')?;
        Some((
            u32::from(base.parse::<std::net::Ipv4Addr>().ok()?),
            length.parse::<u32>().ok()?,
        ))
    });
    for (base, length) in v4 {
        for (other, other_length) in taken {
            let shift = 32 - length.min(other_length);
            assert!(
                base >> shift != other >> shift,
                "{given:?} overlaps a route"
            );
        }
    }
    assert!(
        given
            .iter()
            .all(|net| !net.starts_with("fd0") && !net.starts_with("fd7")),
        "{given:?}"
    );
}

#[test]
fn forwarding_is_on_while_there_is_a_network_and_then_as_before() {
    require!();
    let host = host();
    let forwarding = || {
        let read = |key| host.netns().sysctl(key).expect("sysctl");
        read("net.ipv4.ip_forward") + &read("net.ipv6.conf.all.forwarding")
    };
    let default_route = || host.netns().ip("-6 route show default");
    let before = (Snapshot::of(&host), default_route());
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    container(&host, "a1", "A", 1, 11, "");
    assert_eq!(forwarding(), "11");
    remove(&host, &["a1"], &["A"]);
    container(&host, "b1", "B", 2, 11, "");
    assert_eq!(forwarding(), "11", "another network needs it");
    remove(&host, &["b1"], &["B"]);
    assert_eq!(forwarding(), "00");
    assert_eq!(default_route(), before.1);
    before.0.assert_same(&host, "forwarding");
}

#[test]
fn ipv6_is_off_inside_ipv4_networks() {
    require!();
    let host = host();
    host.w("network create four --subnet 10.88.1.0/24 --bridge wharf-4")
        .ok();
    host.w("create c1 --network four").ok();
    let c1 = host.container("c1");
    assert_eq!(
        c1.sysctl("net.ipv6.conf.eth0.disable_ipv6").as_deref(),
        Some("1")
    );
    assert_eq!(c1.ip("-6 addr show dev eth0").trim(), "");
    assert_eq!(
        host.netns().ip("-6 addr show dev wharf-4").trim(),
        "",
        "nor on the bridge"
    );
}

#[test]
fn an_ipv6_only_network_works_without_ipv4() {
    require!();
    let host = host();
    host.w("network create six --subnet fd00:88:1::/64").ok();
    host.w("create c1 --network six --ip fd00:88:1::11 -p 8080:80")
        .ok();
    host.w("create c2 --network six --ip fd00:88:1::12").ok();
    let (c1, c2) = (host.container("c1"), host.container("c2"));
    assert_eq!(c1.ip("-4 addr show dev eth0").trim(), "");
    let _web = wharf_testkit::Echo::tcp(&c1, "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST6, 8080).by(), Some("c1"));
    assert_eq!(c2.tcp(at(true, 1, 11), 80).source(), Some(at(true, 1, 12)));
    assert!(c1.ping(addr::OUTSIDE6).reached());
    assert!(!host.outside().tcp_brief(addr::HOST4, 8080).reached());
}

#[test]
fn the_bridge_keeps_its_mac_address() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    let mac = host.netns().mac("wharf-a");
    for n in 11..15 {
        container(&host, &format!("c{n}"), "A", 1, n, "");
        assert_eq!(host.netns().mac("wharf-a"), mac);
    }
    remove(&host, &["c11", "c12", "c13", "c14"], &[]);
    assert_eq!(host.netns().mac("wharf-a"), mac);
}

#[test]
fn mtu_follows_the_uplink() {
    require!();
    let host = options().uplink_mtu(1420).start();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "");
    assert_eq!(host.inspect_network("A")["mtu"], 1420);
    for (netns, link) in [(host.netns(), "wharf-a"), (&host.container("a1"), "eth0")] {
        let shown = netns.ip(&format!("link show dev {link}"));
        assert!(shown.contains("mtu 1420"), "{shown}");
    }
}

#[test]
fn a_network_of_many_is_removed_together() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "");
    let all: Vec<_> = (10..60).map(|n| format!("c{n}")).collect();
    all.iter()
        .zip(10..)
        .for_each(|(name, n)| container(&host, name, "A", 1, n, ""));
    assert_eq!(
        host.inspect_network("A")["containers"]
            .as_array()
            .map(Vec::len),
        Some(50)
    );
    let start = Instant::now();
    host.w(&format!("rm -f {}", all.join(" "))).ok();
    eprintln!("50 containers removed in {:?}", start.elapsed());
    host.w("network rm A").ok();
    before.assert_same(&host, "fifty containers");
}

#[test]
fn a_network_made_after_a_flush_brings_back_the_rules_of_all() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    let before = Snapshot::of(&host);
    host.sh("nft flush ruleset");
    network(&host, "B", 2, "");
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
    let rules = host.sh("nft list chain inet wharf net-B-raw");
    assert_eq!(rules.matches("10.88.2.0/24").count(), 1, "{rules}");
    host.w("network rm B").ok();
    before.assert_same(&host, "a network made after a flush");
}

/// The kernel changes other settings along with forwarding: a host that was hardened, or routed by single links, is so
/// again.
#[test]
fn what_forwarding_changes_along_is_as_it_was() {
    require!();
    let host = host();
    let settings = [
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.default.forwarding", "1"),
        ("net.ipv6.conf.default.forwarding", "1"),
        ("net.ipv6.conf.up0.forwarding", "1"),
    ];
    for (key, value) in settings {
        host.sh(&format!("sysctl -qw {key}={value}"));
    }
    let are_as_set = || {
        for (key, value) in settings {
            assert_eq!(host.netns().sysctl(key).as_deref(), Some(value), "{key}");
        }
    };
    host.w("network create N --ipv6").ok();
    assert_eq!(
        host.netns().sysctl("net.ipv4.ip_forward").as_deref(),
        Some("1")
    );
    let plan = host.w("repair --dry-run --json").ok().json();
    assert_eq!(plan["steps"], serde_json::json!([]));
    host.w("network rm N").ok();
    assert_eq!(
        host.netns().sysctl("net.ipv4.ip_forward").as_deref(),
        Some("0")
    );
    are_as_set();
}

/// Who had the bridge's hardware address would be taken for the gateway by everybody.
#[test]
fn the_networks_own_hardware_address_is_nobody_elses() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a", "A", 1, 11, "");
    let bridge = text(&host.inspect_network("A"), "bridge");
    let mac = host.sh(&format!("cat /sys/class/net/{bridge}/address"));
    let out = host.w(&format!("create b --network A:mac={}", mac.trim()));
    assert_eq!(out.code, Some(1), "{}", out.transcript());
    assert!(
        out.stderr.contains("is that of network `A` itself"),
        "{}",
        out.transcript()
    );
    assert_eq!(host.container("a").ping(ip("10.88.1.1")), Answer::Replied);
    host.w("create b --network A:mac=02:00:00:00:00:77").ok();
}

/// Forwarding is turned on for one family: what the host forwards in the other, or by single links, it goes on forwarding.
#[test]
fn what_was_forwarded_before_still_is() {
    require!();
    let host = host();
    host.sh(
        "ip netns add virt; ip link add virbr0 type bridge; ip addr add 10.5.0.1/24 dev virbr0; ip link set virbr0 up
         ip link add vv type veth peer name eth0 netns virt; ip link set vv master virbr0 up
         ip -n virt addr add 10.5.0.2/24 dev eth0; ip -n virt link set eth0 up
         ip -n virt route add default via 10.5.0.1",
    );
    host.outside()
        .ip(&format!("route add 10.5.0.0/24 via {}", addr::HOST4));
    let virt = host.container("virt");
    assert!(!virt.ping_brief(addr::OUTSIDE4).reached());
    for (on, off, create) in [
        ("net.ipv4.ip_forward=1", "net.ipv4.ip_forward=0", "--ipv6"),
        (
            "net.ipv4.conf.virbr0.forwarding=1 net.ipv4.conf.up0.forwarding=1",
            "net.ipv4.conf.virbr0.forwarding=0 net.ipv4.conf.up0.forwarding=0",
            "",
        ),
    ] {
        host.sh(&format!("sysctl -qw {on}"));
        for step in [
            format!("network create N {create}"),
            "network rm N".to_owned(),
        ] {
            assert_eq!(virt.ping(addr::OUTSIDE4), Answer::Replied, "before {step}");
            host.w(&step).ok();
            assert_eq!(virt.ping(addr::OUTSIDE4), Answer::Replied, "after {step}");
            let plan = host.w("repair --dry-run --json").ok().json();
            assert_eq!(plan["steps"], serde_json::json!([]), "after {step}");
        }
        host.sh(&format!("sysctl -qw {off}"));
    }
    // What was not forwarded is not.
    host.w("network create N").ok();
    assert!(!virt.ping_brief(addr::OUTSIDE4).reached());
}
