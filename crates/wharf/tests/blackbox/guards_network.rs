//! The host between networks: no open router, no hijacked traffic, no gap while things come and go.

use crate::common::*;
use wharf_testkit::frame;
use wharf_testkit::{Answer, Echo, Flood, Sniffer, Wire, addr, eventually, require};

#[test]
fn the_host_does_not_become_a_router_for_others() {
    require!();
    let host = options().neighbour().start();
    let _far = Echo::tcp(host.outside(), "outside", 80);
    let (neighbour, outside) = (host.neighbour(), host.outside());
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _a1 = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(
        host.netns().sysctl("net.ipv4.ip_forward").as_deref(),
        Some("1"),
        "wharf needs it"
    );
    for v6 in [false, true] {
        let there = if v6 {
            addr::NEIGHBOUR6
        } else {
            addr::NEIGHBOUR4
        };
        assert!(
            !neighbour.tcp_brief(addr::outside(v6), 80).reached(),
            "neighbour to outside through the host"
        );
        assert!(
            !neighbour.ping_brief(addr::outside(v6)).reached(),
            "neighbour pings outside through the host"
        );
        assert!(
            !outside.ping_brief(there).reached(),
            "outside pings the neighbour through the host"
        );
        assert_eq!(
            neighbour.tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "published ports are for the neighbour too"
        );
    }
    remove(&host, &["a1"], &["A"]);
    assert_eq!(
        host.netns().sysctl("net.ipv4.ip_forward").as_deref(),
        Some("0")
    );
    assert_eq!(
        host.netns()
            .sysctl("net.ipv6.conf.all.forwarding")
            .as_deref(),
        Some("0")
    );
}

#[test]
fn a_host_that_was_a_router_stays_one() {
    require!();
    let host = options().neighbour().ip_forward(true).start();
    let _far = Echo::tcp(host.outside(), "outside", 80);
    for stage in ["before", "with a network", "after"] {
        match stage {
            "with a network" => {
                network(&host, "A", 1, "");
                container(&host, "a1", "A", 1, 11, "");
                assert!(host.container("a1").ping(addr::OUTSIDE4).reached());
            }
            "after" => remove(&host, &["a1"], &["A"]),
            _ => {}
        }
        for v6 in [false, true] {
            let source = if v6 {
                addr::NEIGHBOUR6
            } else {
                addr::NEIGHBOUR4
            };
            let answer = host.neighbour().tcp(addr::outside(v6), 80);
            assert_eq!(
                answer.source(),
                Some(source),
                "neighbour to outside, {stage}: {answer}"
            );
        }
    }
    assert_eq!(
        host.netns().sysctl("net.ipv4.ip_forward").as_deref(),
        Some("1")
    );
}

/// CVE-2025-67499: a published port must not catch traffic that only passes through.
#[test]
fn a_published_port_does_not_catch_what_others_send_elsewhere() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    container(&host, "thief", "A", 1, 11, "-p 80:80 -p 53:53/udp");
    container(&host, "b1", "B", 2, 11, "");
    let thief = host.container("thief");
    let _thief = (
        Echo::tcp(&thief, "thief", 80),
        Echo::udp(&thief, "thief", 53),
    );
    let _far = (
        Echo::tcp(host.outside(), "outside", 80),
        Echo::udp(host.outside(), "outside", 53),
    );
    for v6 in [false, true] {
        for from in [&host.container("b1"), &thief, host.netns()] {
            assert_eq!(
                from.tcp(addr::outside(v6), 80).by(),
                Some("outside"),
                "{} over TCP",
                from.name()
            );
            assert_eq!(
                from.udp(addr::outside(v6), 53).by(),
                Some("outside"),
                "{} over UDP",
                from.name()
            );
        }
        assert_eq!(host.outside().tcp(addr::host(v6), 80).by(), Some("thief"));
    }
}

/// Containers with icc off must not meet by way of the gateway either.
#[test]
fn icc_off_cannot_be_bounced_off_the_gateway() {
    require!();
    let host = host();
    network(&host, "N", 4, "--icc=false");
    for (name, n, other) in [("n1", 11, 12), ("n2", 12, 11)] {
        container(&host, name, "N", 4, n, "");
        host.container(name).sh(&format!(
            "ip route add 10.88.4.{other}/32 via 10.88.4.1
             ip -6 route add fd00:88:4::{other}/128 via fd00:88:4::1"
        ));
    }
    let (n1, n2) = (host.container("n1"), host.container("n2"));
    let server = (Echo::tcp(&n1, "n1", 80), Echo::udp(&n1, "n1", 90));
    for v6 in [false, true] {
        let to = at(v6, 4, 11);
        let reached = n2.tcp_brief(to, 80).reached()
            || n2.udp_brief(to, 90).reached()
            || n2.ping_brief(to).reached();
        assert!(!reached, "{to} was reached");
    }
    assert_eq!(server.0.served() + server.1.served(), 0, "not even one way");
}

#[test]
fn nothing_gets_into_an_internal_network_even_one_way() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "I", 3, "--internal");
    container(&host, "a1", "A", 1, 11, "");
    container(&host, "i1", "I", 3, 11, "");
    let i1 = host.container("i1");
    let server = Echo::udp(&i1, "i1", 90);
    let heard = Sniffer::start(&i1, "eth0");
    for v6 in [false, true] {
        for from in [host.outside(), &host.container("a1")] {
            assert!(!from.udp_brief(at(v6, 3, 11), 90).reached());
            assert!(!from.tcp_brief(at(v6, 3, 11), 80).reached());
        }
    }
    assert_eq!(
        (server.served(), heard.count(b"who?")),
        (0, 0),
        "a datagram arrived inside"
    );
    assert_eq!(
        host.netns().udp(at(false, 3, 11), 90).by(),
        Some("i1"),
        "the host itself may"
    );
    heard.wait_for("the host's datagram", b"who?");
}

#[test]
fn no_packet_gets_in_while_containers_come_and_go() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let floods: Vec<_> = [at(false, 1, 11), at(true, 1, 11)]
        .map(|to| Flood::start(host.outside(), (to, 90).into(), b"flood"))
        .into();
    eventually("the flood runs", || {
        floods.iter().all(|flood| flood.sent() > 10).then_some(())
    });
    for round in 0..20 {
        container(&host, "a1", "A", 1, 11, "-p 8090:90/udp");
        let heard = Sniffer::start(&host.container("a1"), "eth0");
        let sent = floods[0].sent();
        eventually("some more of the flood", || {
            (floods[0].sent() > sent + 50).then_some(())
        });
        assert_eq!(heard.count(b"flood"), 0, "the flood got in, round {round}");
        host.w("rm -f a1").ok();
        assert_eq!(
            heard.count(b"flood"),
            0,
            "the flood got in at the end, round {round}"
        );
    }
}

/// A container's own namespace sees what its interface saw, so a counter in it tells of every early packet.
#[test]
fn no_packet_is_counted_before_the_rules_are_there() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let _flood = Flood::start(host.outside(), (at(false, 1, 11), 90).into(), b"flood");
    for _ in 0..10 {
        host.sh("ip netns add mine
             ip netns exec mine nft -f - <<'END'
             table netdev t { chain c { type filter hook ingress device lo priority 0; }; }
             table inet t { counter early { };
                 chain c { type filter hook prerouting priority -300; udp dport 90 counter name early; }; }
END");
        host.w(&format!(
            "create a1 --netns /run/netns/mine --network A {}",
            ips(1, 11)
        ))
        .ok();
        host.w("rm -f a1").ok();
        let counted =
            host.sh("ip netns exec mine nft list counter inet t early; ip netns del mine");
        assert!(counted.contains("packets 0 "), "{counted}");
    }
}

#[test]
fn loopback_sources_from_the_wire_are_dropped() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8090:90/udp");
    let a1 = host.container("a1");
    let (server, heard) = (Echo::udp(&a1, "a1", 90), Sniffer::start(&a1, "eth0"));
    assert_eq!(host.outside().udp(addr::HOST4, 8090).by(), Some("a1"));
    let served = server.served();
    let wire = Wire::open(host.outside(), "down0");
    let macs = (host.outside().mac("down0"), host.netns().mac("up0"));
    for (from, to) in [
        ("127.0.0.1", addr::HOST4),
        ("10.88.1.12", addr::HOST4),
        ("::1", addr::HOST6),
    ] {
        wire.send(&frame::udp(
            macs,
            (ip(from), 9),
            (to, 8090),
            b"from a false source",
        ));
    }
    assert_eq!(
        host.outside().udp(addr::HOST6, 8090).by(),
        Some("a1"),
        "honest, after the false ones"
    );
    assert_eq!(heard.count(b"from a false source"), 0);
    assert_eq!(server.served(), served + 1);
}

#[test]
fn a_stale_udp_flow_moves_to_the_new_owner_of_a_port() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "");
    container(&host, "a2", "A", 1, 12, "");
    let _servers = ["a1", "a2"].map(|name| Echo::udp(&host.container(name), name, 90));
    // One socket all along: the same flow as far as connection tracking is concerned.
    let ask = |v6: bool| {
        let client = host
            .outside()
            .run(|| std::net::UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }));
        let client = client.expect("socket");
        client.connect((addr::host(v6), 8090)).expect("connect");
        client
            .set_read_timeout(Some(std::time::Duration::from_millis(400)))
            .expect("timeout");
        client
    };
    let asked = |client: &std::net::UdpSocket| {
        let mut buffer = [0; 256];
        let answer = client.send(b"who?").and_then(|_| client.recv(&mut buffer));
        answer
            .ok()
            .map(|count| String::from_utf8_lossy(&buffer[..count])[..2].to_owned())
    };
    for v6 in [false, true] {
        let client = ask(v6);
        assert_eq!(asked(&client), None, "nobody has the port");
        host.w("port add a1 8090:90/udp").ok();
        eventually("a1 answers", || {
            (asked(&client).as_deref() == Some("a1")).then_some(())
        });
        host.w("port rm a1 8090:90/udp").ok();
        assert_eq!(asked(&client), None, "nobody has the port any more");
        host.w("port add a2 8090:90/udp").ok();
        eventually("a2 answers", || {
            (asked(&client).as_deref() == Some("a2")).then_some(())
        });
        host.w("port rm a2 8090:90/udp").ok();
    }
}

#[test]
fn ping_to_a_published_host_is_the_hosts_own() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let web = Echo::tcp(&host.container("a1"), "a1", 80);
    for v6 in [false, true] {
        assert_eq!(host.outside().tcp(addr::host(v6), 8080).by(), Some("a1"));
    }
    drop(web);
    for v6 in [false, true] {
        assert_eq!(host.outside().ping(addr::host(v6)), Answer::Replied);
        assert_eq!(
            host.outside().tcp(addr::host(v6), 8080),
            Answer::Refused,
            "nobody listens in the container"
        );
    }
}
