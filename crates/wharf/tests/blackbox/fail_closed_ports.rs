//! Another tool flushes every packet rule: containers that may not talk to each other still do not, since their bridge
//! passes no frame between isolated ports.

use crate::common::*;
use crate::liar::{bridge_nf_values, v4};
use wharf_testkit::frame::{self, Arp, BROADCAST};
use wharf_testkit::{Echo, Host, Netns, Sniffer, Wire, addr, eventually, require};

fn set_nf_call(host: &Host, on: &str) {
    for family in ["iptables", "ip6tables"] {
        let key = format!("net.bridge.bridge-nf-call-{family}");
        host.netns().set_sysctl(&key, on);
    }
}

/// `n1` has published ports, `n2` and `n3` have none.
fn scene(host: &Host) {
    network(host, "N", 4, "--icc=false --bridge wharf-n");
    container(host, "n1", "N", 4, 11, "-p 8082:80 -p 8092:90/udp");
    container(host, "n2", "N", 4, 12, "");
    container(host, "n3", "N", 4, 13, "");
}

/// What `icc=false` leaves: published ports, the host, the world.
#[track_caller]
fn allowed(host: &Host, what: &str) {
    let inside = ["n1", "n2"].map(|name| host.container(name));
    for v6 in [false, true] {
        for from in [&inside[0], &inside[1], host.outside()] {
            let name = from.name();
            assert_eq!(
                from.tcp(addr::host(v6), 8082).by(),
                Some("n1"),
                "{what}: {name}"
            );
            assert_eq!(
                from.udp(addr::host(v6), 8092).by(),
                Some("n1"),
                "{what}: {name}"
            );
        }
        let out = inside[1].tcp(addr::outside(v6), 80);
        assert_eq!(out.by(), Some("outside"), "{what}");
    }
}

/// Straight, by way of the gateway, and with a frame that asks nobody.
#[track_caller]
fn apart(host: &Host, from: (&Netns, u8), to: (&Netns, u8), what: &str) {
    let heard = Sniffer::start(to.0, "eth0");
    let what = format!("{what}: {} to {}", from.0.name(), to.0.name());
    for v6 in [false, true] {
        let target = at(v6, 4, to.1);
        let tries =
            || from.0.udp_brief(target, 90).reached() || from.0.ping_brief(target).reached();
        assert!(!tries(), "{what}");
        let (ip, len) = if v6 { ("ip -6", 128) } else { ("ip", 32) };
        let way = format!("{target}/{len} via {}", at(v6, 4, 1));
        from.0.sh(&format!("{ip} route add {way}"));
        assert!(!tries(), "{what} by the gateway");
        from.0.sh(&format!("{ip} route del {way}"));
    }
    let (mac, wire) = (from.0.mac("eth0"), Wire::open(from.0, "eth0"));
    for to_mac in [to.0.mac("eth0"), BROADCAST] {
        let (own, theirs) = (at(false, 4, from.1), at(false, 4, to.1));
        wire.send(&frame::udp((mac, to_mac), (own, 9), (theirs, 90), b"who?"));
        wire.send(&frame::arp(&Arp {
            frame_from: mac,
            frame_to: to_mac,
            operation: 2,
            sender: mac,
            sender_ip: v4(own),
            target_ip: v4(theirs),
        }));
    }
    // The host's own frame came later.
    assert!(host.netns().ping(at(false, 4, to.1)).reached(), "{what}");
    let got = heard.frames();
    let theirs: Vec<_> = got.iter().filter(|f| f.get(6..12) == Some(&mac)).collect();
    assert!(theirs.is_empty(), "{what}: {theirs:02x?}");
}

#[test]
fn who_may_not_talk_to_siblings_still_may_not_after_a_flush() {
    require!();
    for nf_call in bridge_nf_values() {
        let host = options().bridge_nf_call(*nf_call).start();
        scene(&host);
        let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| host.container(name));
        let _servers = [
            Echo::tcp(&n1, "n1", 80),
            Echo::udp(&n1, "n1", 90),
            Echo::udp(&n2, "n2", 90),
            Echo::tcp(host.outside(), "outside", 80),
        ];
        let what = format!("nf-call {nf_call}");
        allowed(&host, &what);
        let mut pairs = vec![((&n2, 12), (&n3, 13)), ((&n3, 13), (&n2, 12))];
        for (from, to) in pairs.clone() {
            apart(&host, from, to, &what);
        }
        if !nf_call {
            // Else published ports are served from port to port of the bridge.
            pairs.extend([((&n2, 12), (&n1, 11)), ((&n1, 11), (&n2, 12))]);
        }
        host.sh("nft flush ruleset");
        for (from, to) in pairs {
            apart(&host, from, to, &format!("{what}, flushed"));
        }
        host.w("repair").ok();
        allowed(&host, &format!("{what}, repaired"));
    }
}

/// Whether translated frames pass from port to port is the administrator's choice, and may change.
#[test]
fn ports_follow_what_the_host_does_with_bridged_frames() {
    require!();
    if bridge_nf_values().len() < 2 {
        return;
    }
    let host = host();
    scene(&host);
    let [n1, n2] = ["n1", "n2"].map(|name| host.container(name));
    let _servers = [
        Echo::tcp(&n1, "n1", 80),
        Echo::udp(&n1, "n1", 90),
        Echo::tcp(&n2, "n2", 80),
        Echo::tcp(host.outside(), "outside", 80),
    ];
    allowed(&host, "0");
    set_nf_call(&host, "1");
    let said = host.w("repair").ok();
    assert!(said.stdout.contains("port"), "{}", said.transcript());
    allowed(&host, "1");
    host.w("port add n2 8083:80").ok();
    for v6 in [false, true] {
        let answer = || n1.tcp(addr::host(v6), 8083);
        assert_eq!(answer().by(), Some("n2"), "a port published later");
    }
    host.w("port rm n2 8083:80").ok();
    let left = host.w("repair --dry-run --json").json();
    assert_eq!(
        left["mended"],
        serde_json::json!([]),
        "all is as it is to be"
    );
    set_nf_call(&host, "0");
    let mut watch = host.w_spawn("serve");
    eventually("the watch is there", || {
        watch.stdout().contains("watching").then_some(())
    });
    // Whatever announces itself has the watch look.
    host.sh("ip link add later type veth peer later2; nft add table inet mine");
    eventually("isolated again", || {
        let ports = host.sh("bridge -d link show");
        (ports.matches("isolated on").count() == 3).then_some(())
    });
    allowed(&host, "0 again");
    watch.signal(15);
    drop(watch);
}
