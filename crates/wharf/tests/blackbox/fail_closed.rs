//! Another tool flushes every packet rule: what was forbidden stays forbidden, and `wharf repair` brings back the rest.

use crate::common::*;
use wharf_testkit::{Echo, Flood, Host, Sniffer, Wire, addr, eventually, frame, require};

fn scene(host: &Host) {
    network(host, "A", 1, "--bridge wharf-a");
    network(host, "B", 2, "--bridge wharf-b");
    network(host, "I", 3, "--bridge wharf-i --internal");
    network(
        host,
        "U",
        4,
        "--bridge wharf-u -o com.docker.network.bridge.gateway_mode_ipv4=routed",
    );
    container(host, "a1", "A", 1, 11, "-p 8080:80 -p 8090:90/udp");
    container(host, "a2", "A", 1, 12, "");
    container(host, "b1", "B", 2, 11, "");
    container(host, "i1", "I", 3, 11, "");
    container(host, "u1", "U", 4, 11, "-p 8081:80");
}

/// What must work as long as the rules are there.
#[track_caller]
fn allowed(host: &Host, what: &str) {
    for v6 in [false, true] {
        let (outside, a2) = (host.outside(), host.container("a2"));
        assert_eq!(
            outside.tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}: published"
        );
        assert_eq!(
            outside.udp(addr::host(v6), 8090).by(),
            Some("a1"),
            "{what}: published"
        );
        assert_eq!(
            a2.tcp(at(v6, 1, 11), 80).by(),
            Some("a1"),
            "{what}: sibling"
        );
        assert_eq!(
            a2.tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}: sibling by the port"
        );
        assert_eq!(
            host.container("a1").tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}: itself"
        );
        assert_eq!(
            host.container("b1").tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}: other network"
        );
        assert_eq!(
            a2.tcp(addr::outside(v6), 80).by(),
            Some("outside"),
            "{what}: way out"
        );
        assert_eq!(
            host.netns().tcp(at(v6, 1, 11), 80).by(),
            Some("a1"),
            "{what}: the host"
        );
        assert_eq!(
            host.netns().tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}: the host"
        );
        assert!(
            a2.ping(addr::host(v6)).reached(),
            "{what}: the host's own address"
        );
    }
    assert_eq!(
        host.netns().tcp(ip("127.0.0.1"), 8080).by(),
        Some("a1"),
        "{what}: loopback"
    );
    assert_eq!(
        host.outside().tcp(at(false, 4, 11), 80).by(),
        Some("u1"),
        "{what}: routed"
    );
}

/// What must never work.
#[track_caller]
fn forbidden(host: &Host, loopback: &Echo, what: &str) {
    let (outside, a1, b1, i1) = (
        host.outside(),
        host.container("a1"),
        host.container("b1"),
        host.container("i1"),
    );
    let heard = [&a1, &b1, &i1].map(|c| Sniffer::start(c, "eth0"));
    let heard_outside = Sniffer::start(outside, "down0");
    for v6 in [false, true] {
        for net in [1, 2, 3] {
            assert!(
                !outside.udp_brief(at(v6, net, 11), 90).reached(),
                "{what}: outside to {net}"
            );
            assert!(
                !outside.tcp_brief(at(v6, net, 11), 80).reached(),
                "{what}: outside to {net}"
            );
        }
        assert!(!a1.udp_brief(at(v6, 2, 11), 90).reached(), "{what}: A to B");
        assert!(!b1.udp_brief(at(v6, 1, 11), 90).reached(), "{what}: B to A");
        assert!(!a1.udp_brief(at(v6, 3, 11), 90).reached(), "{what}: A to I");
        i1.sh(
            "ip route replace default via 10.88.3.1; ip -6 route replace default via fd00:88:3::1",
        );
        assert!(
            !i1.udp_brief(addr::outside(v6), 90).reached(),
            "{what}: I to outside"
        );
        assert!(!i1.udp_brief(at(v6, 1, 11), 90).reached(), "{what}: I to A");
        i1.sh("ip route del default; ip -6 route del default");
    }
    // To the host's loopback, from addresses that are nobody's here, and as somebody outside.
    let wire = Wire::open(&a1, "eth0");
    let macs = (a1.mac("eth0"), host.netns().mac("wharf-a"));
    let served = loopback.served();
    for (from, to) in [
        ("10.88.1.11", "127.0.0.1"),
        ("192.0.2.50", "127.0.0.1"),
        ("127.0.0.1", "10.0.2.2"),
        ("198.51.100.7", "192.0.2.50"),
        ("10.88.2.11", "192.0.2.50"),
        ("2001:db8:77::7", "2001:db8::50"),
        ("fd00:88:2::11", "2001:db8::50"),
    ] {
        wire.send(&frame::udp(
            macs,
            (ip(from), 7),
            (ip(to), 7777),
            b"false source",
        ));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(loopback.served(), served, "{what}: the host's 127.0.0.1");
    assert_eq!(
        heard_outside.count(b"false source"),
        0,
        "{what}: false sources outside"
    );
    let from_internal = |f: &&Vec<u8>| f.get(26..29) == Some(&[10, 88, 3]);
    let left = heard_outside.frames();
    assert_eq!(
        left.iter().filter(from_internal).count(),
        0,
        "{what}: internal"
    );
    for (sniffer, name) in heard.iter().zip(["a1", "b1", "i1"]) {
        let own = host.container(name).mac("eth0");
        let frames = sniffer.frames();
        let question =
            |f: &&Vec<u8>| is_udp(f) && contains(f, b"who?") && f.get(6..12) != Some(&own);
        let others = frames.iter().filter(question).count();
        assert_eq!(others, 0, "{what}: {name} heard a question");
    }
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

/// Not an ICMP error that quotes one.
fn is_udp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&17),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&17),
        _ => false,
    }
}

#[track_caller]
fn flush_and_repair(nf_call: bool, rp_filter: &str) {
    let host = options().bridge_nf_call(nf_call).start();
    for key in ["all", "default", "up0"] {
        host.netns()
            .set_sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), rp_filter);
    }
    scene(&host);
    let servers: Vec<_> = ["a1", "b1", "i1", "u1"]
        .iter()
        .flat_map(|name| {
            let c = host.container(name);
            [Echo::tcp(&c, name, 80), Echo::udp(&c, name, 90)]
        })
        .collect();
    let _far = (
        Echo::tcp(host.outside(), "outside", 80),
        Echo::udp(host.outside(), "outside", 90),
    );
    let loopback = Echo::udp_at(host.netns(), "loopback", ip("127.0.0.1"), 7777);
    let what = format!("nf-call {nf_call}, rp_filter {rp_filter}");
    allowed(&host, &what);
    host.sh("nft flush ruleset");
    forbidden(&host, &loopback, &format!("{what}, flushed"));
    assert!(
        !host.outside().tcp_brief(at(false, 4, 11), 80).reached(),
        "{what}: routed, flushed"
    );
    for v6 in [false, true] {
        assert_eq!(
            host.netns().tcp(at(v6, 1, 11), 80).by(),
            Some("a1"),
            "{what}: the host may"
        );
        assert_eq!(
            host.container("a2").tcp(at(v6, 1, 11), 80).by(),
            Some("a1"),
            "{what}: a sibling may"
        );
    }
    host.w("repair").ok();
    allowed(&host, &format!("{what}, repaired"));
    drop(servers);
}

#[test]
fn a_flush_opens_nothing_and_repair_brings_all_back() {
    require!();
    flush_and_repair(false, "0");
}

#[test]
fn the_same_with_bridge_nf_call_and_where_sources_are_looked_up() {
    require!();
    flush_and_repair(true, "1");
}

/// Floods from outside and from another network while rules are flushed and mended again and again.
#[test]
fn no_packet_gets_in_while_rules_are_flushed_and_mended() {
    require!();
    let host = host();
    scene(&host);
    let a1 = host.container("a1");
    let heard = Sniffer::start(&a1, "eth0");
    let floods: Vec<_> = [
        (host.outside().path(), false),
        (host.outside().path(), true),
    ]
    .iter()
    .map(|(_, v6)| Flood::start(host.outside(), (at(*v6, 1, 11), 90).into(), b"flood"))
    .chain(
        [false, true]
            .map(|v6| Flood::start(&host.container("b1"), (at(v6, 1, 11), 90).into(), b"flood")),
    )
    .collect();
    eventually("the floods run", || {
        floods.iter().all(|f| f.sent() > 10).then_some(())
    });
    for round in 0..15 {
        let sent: Vec<_> = floods.iter().map(Flood::sent).collect();
        host.sh("nft flush ruleset");
        if round % 3 == 1 {
            container(&host, "extra", "A", 1, 30, "-p 9000:90/udp");
            host.w("rm -f extra").ok();
        }
        if round % 3 == 2 {
            host.sh("ip link del wharf-a");
        }
        host.w("repair").ok();
        // Both tables made anew in one transaction.
        host.sh("nft add chain inet wharf mine");
        let said = host.w("repair").ok();
        assert!(
            said.stdout.contains("mended chain inet wharf mine"),
            "{}",
            said.transcript()
        );
        eventually("more of the floods", || {
            let more = floods.iter().zip(&sent).all(|(f, was)| f.sent() > was + 20);
            more.then_some(())
        });
        assert_eq!(heard.count(b"flood"), 0, "round {round}");
    }
    let sent: u64 = floods.iter().map(Flood::sent).sum();
    eprintln!("{sent} packets sent, none heard");
}

/// The last network takes the backstop with it.
#[test]
fn nothing_of_the_backstop_stays() {
    require!();
    let host = host();
    let before = wharf_testkit::Snapshot::of(&host);
    network(&host, "A", 1, "");
    let rules = host.sh("ip rule; ip -6 rule; ip route show table 119; ip -6 route show table 119");
    for part in [
        "fwmark 0x20000000",
        "blackhole 10.88.1.0/24",
        "blackhole fd00:88:1::/64",
    ] {
        assert!(rules.contains(part), "{part} in {rules}");
    }
    host.w("network rm A").ok();
    before.assert_same(&host, "the backstop");
}
