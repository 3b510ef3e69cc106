//! Attacks by way of the host: source routes, addresses that mean the host's loopback in disguise, false sources at published
//! ports, gateways as a way in, a container that plays router.

use crate::common::*;
use crate::liar::*;
use std::net::IpAddr;
use wharf_testkit::disguise;
use wharf_testkit::frame::{self, Mac};
use wharf_testkit::{Echo, Sniffer, Wire, addr, require};

/// Also on a host whose administrator allows source routes.
#[test]
fn source_routes_lead_nowhere() {
    require!();
    in_both_worlds(|w| {
        w.host.sh("for link in all default up0 wharf-a; do sysctl -qw net.ipv4.conf.$link.accept_source_route=1; done");
        network(&w.host, "B", 2, "--bridge wharf-b");
        container(&w.host, "other", "B", 2, 11, "");
        let other = Sniffer::start(&w.host.container("other"), "eth0");
        let outside = Wire::open(w.host.outside(), "down0");
        let macs = (w.host.outside().mac("down0"), w.host.netns().mac("up0"));
        let from_evil = (w.evil_mac, w.bridge_mac);
        let cases = [
            (
                &w.wire,
                from_evil,
                at(false, 1, 66),
                at(false, 1, 1),
                at(false, 2, 11),
            ),
            (
                &w.wire,
                from_evil,
                at(false, 1, 66),
                addr::HOST4,
                at(false, 2, 11),
            ),
            (
                &outside,
                macs,
                addr::OUTSIDE4,
                addr::HOST4,
                at(false, 2, 11),
            ),
            (
                &outside,
                macs,
                addr::OUTSIDE4,
                addr::HOST4,
                at(false, 1, 11),
            ),
        ];
        for (wire, macs, from, first, then) in cases {
            let text = format!("by {first} to {then}");
            let plain = frame::udp(macs, (from, 9), (first, 9), text.as_bytes());
            let routed = disguise::with_options(&plain, &disguise::source_route(v4(then)));
            wire.send(&routed);
            w.settle(false);
            let honest = w.host.netns().udp_brief(at(false, 2, 11), 9);
            assert!(!honest.reached(), "nobody listens there: {honest}");
            assert_eq!(
                other.count(text.as_bytes()) + w.heard.count(text.as_bytes()),
                0,
                "{text}"
            );
        }
        other.wait_for("the host's own datagrams", b"who?");
    });
}

/// 127.0.0.1 and ::1, plain, mapped into IPv6, and by 6to4; from a container and from the wire, while a port published at
/// 127.0.0.1 has `route_localnet` on. A name that resolves to 127.0.0.1 is the container's own loopback.
#[test]
fn no_address_means_the_hosts_loopback() {
    require!();
    in_both_worlds(|w| {
        w.host.w("port add victim 127.0.0.1:8082:82").ok();
        w.host
            .sh("for link in all up0; do sysctl -qw net.ipv4.conf.$link.route_localnet=1; done");
        let host = w.host.netns();
        let secret = [
            Echo::udp_at(host, "secret", ip("127.0.0.1"), 9999),
            Echo::udp_at(host, "secret", ip("::1"), 9999),
        ];
        let web = Echo::udp(&w.victim, "victim", 82);
        let outside = Wire::open(w.host.outside(), "down0");
        let wire = (w.host.outside().mac("down0"), host.mac("up0"));
        for to in [
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "::",
            "0.0.0.0",
        ] {
            let to = ip(to);
            for port in [9999, 8082] {
                let source = at(to.is_ipv6(), 1, 66);
                w.wire.send(&frame::udp(
                    (w.evil_mac, w.bridge_mac),
                    (source, 9),
                    (to, port),
                    b"who?",
                ));
                let source = addr::outside(to.is_ipv6());
                outside.send(&frame::udp(wire, (source, 9), (to, port), b"who?"));
            }
        }
        w.settle(false);
        assert_eq!(
            w.evil.tcp_brief(ip("127.0.0.1"), 9999),
            wharf_testkit::Answer::Refused,
            "its own loopback"
        );
        assert_eq!(
            secret.iter().map(Echo::served).sum::<u64>() + web.served(),
            0
        );
        for (loopback, server) in [("127.0.0.1", &secret[0]), ("::1", &secret[1])] {
            assert_eq!(host.udp(ip(loopback), 9999).by(), Some("secret"));
            assert_eq!(server.served(), 1);
        }
    });
}

#[test]
fn a_published_port_serves_no_false_source() {
    require!();
    in_both_worlds(|w| {
        w.host.w("port add victim 8090:90/udp").ok();
        let server = Echo::udp(&w.victim, "victim", 90);
        let wire = Wire::open(w.host.outside(), "down0");
        let macs = (w.host.outside().mac("down0"), w.host.netns().mac("up0"));
        let false_ones = [
            "10.88.1.11",
            "10.88.1.66",
            "10.88.1.1",
            "10.88.1.200",
            "127.0.0.1",
            "10.0.2.2",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "fd00:88:1::11",
            "fd00:88:1::66",
            "fd00:88:1::1",
            "::1",
            "2001:db8:2::2",
            "::ffff:127.0.0.1",
            "::ffff:10.88.1.66",
            "ff02::1",
        ];
        for from in false_ones {
            let to = (addr::host(ip(from).is_ipv6()), 8090);
            wire.send(&frame::udp(
                macs,
                (ip(from), 9),
                to,
                format!("from {from}.").as_bytes(),
            ));
        }
        for v6 in [false, true] {
            assert_eq!(
                w.host.outside().udp(addr::host(v6), 8090).by(),
                Some("victim"),
                "honest, after the false ones"
            );
            assert_eq!(
                w.evil.udp(addr::host(v6), 8090).by(),
                Some("victim"),
                "a sibling"
            );
        }
        for from in false_ones {
            assert_eq!(
                w.heard.count(format!("from {from}.").as_bytes()),
                0,
                "from {from}"
            );
        }
        assert_eq!(server.served(), 4);
    });
}

/// The weak host model: an address of the host on one link is answered for on all.
#[test]
fn gateways_are_closed_from_elsewhere() {
    require!();
    in_both_worlds(|w| {
        network(&w.host, "B", 2, "-o host-access=none --bridge wharf-b");
        container(&w.host, "other", "B", 2, 11, "");
        let other = w.host.container("other");
        let server = Echo::tcp(w.host.netns(), "host", 7000);
        let datagrams = Echo::udp(w.host.netns(), "host", 7000);
        let (host_mac, wire) = (
            w.host.netns().mac("up0"),
            Wire::open(w.host.outside(), "down0"),
        );
        let mine = w.host.outside().mac("down0");
        let inner = (Wire::open(&other, "eth0"), other.mac("eth0"));
        for v6 in [false, true] {
            for net in [1, 2] {
                let gateway = at(v6, net, 1);
                assert!(
                    !w.host.outside().tcp_brief(gateway, 7000).reached(),
                    "{gateway} from outside"
                );
                // The kernel takes a subnet's broadcast address, and the anycast address of its routers (RFC 4291,
                // 2.6.1), for the host as well.
                for to in [gateway, at(v6, net, if v6 { 0 } else { 255 })] {
                    for to_mac in [host_mac, frame::BROADCAST] {
                        let from = (addr::outside(v6), 9);
                        wire.send(&frame::udp((mine, to_mac), from, (to, 7000), b"who?"));
                    }
                }
            }
            for to in [at(v6, 1, 1), at(v6, 2, 1), addr::host(v6)] {
                assert!(
                    !other.tcp_brief(to, 7000).reached(),
                    "{to} with host-access=none"
                );
                for mac in [
                    w.host.netns().mac("wharf-b"),
                    w.bridge_mac,
                    host_mac,
                    [0xff; 6],
                ] {
                    inner.0.send(&frame::udp(
                        (inner.1, mac),
                        (at(v6, 2, 11), 9),
                        (to, 7000),
                        b"who?",
                    ));
                }
            }
        }
        w.settle(false);
        assert_eq!(server.served() + datagrams.served(), 0);
        for v6 in [false, true] {
            assert_eq!(
                w.evil.tcp(at(v6, 1, 1), 7000).by(),
                Some("host"),
                "its own gateway is open"
            );
            assert_eq!(
                w.host.outside().tcp(addr::host(v6), 7000).by(),
                Some("host")
            );
        }
    });
}

/// A container takes its sibling's address, the gateway's, and one nobody has.
#[test]
fn addresses_a_container_gives_itself_are_worth_nothing() {
    require!();
    in_both_worlds(|w| {
        let thief = Echo::tcp(&w.evil, "thief", 80);
        let gateway = Echo::tcp(w.host.netns(), "host", 80);
        let server = Echo::tcp(&w.victim, "victim", 80);
        let take = |n: u8| {
            w.evil.sh(&format!(
                "ip addr add 10.88.1.{n}/24 dev eth0; ip -6 addr add fd00:88:1::{n}/64 dev eth0 nodad"
            ));
        };
        take(11);
        take(99);
        w.victim
            .sh("ip neigh flush dev eth0; ip -6 neigh flush dev eth0");
        for v6 in [false, true] {
            let lie = |n: u8| {
                let from = at(v6, 1, n);
                let options = if v6 { "-6 -I" } else { "-4 -I" };
                let line = format!(
                    "ping {options} {from} -c1 -W1 {} || true",
                    addr::outside(v6)
                );
                w.evil.sh(&line).contains("1 received")
            };
            // The honest one first: the others leave the container without an answer from its gateway for a while.
            let answered = [66, 11, 99].map(lie);
            assert_eq!(
                answered,
                [true, false, false],
                "who answers to .66, .11, .99"
            );
        }
        take(1);
        for v6 in [false, true] {
            assert_eq!(w.victim.tcp(at(v6, 1, 1), 80).by(), Some("host"));
            assert_eq!(w.host.netns().tcp(at(v6, 1, 11), 80).by(), Some("victim"));
            for from in [&w.victim, w.host.netns()] {
                assert!(!from.tcp_brief(at(v6, 1, 99), 80).reached());
            }
        }
        assert_eq!(
            (thief.served(), gateway.served(), server.served()),
            (0, 2, 2)
        );
    });
}

/// A sibling that takes a container for its router gets nothing through it, and neither does the container's own network
/// behind it; unless the container translates, as a router of its own would.
#[test]
fn a_container_is_no_router_for_others() {
    require!();
    in_both_worlds(|w| {
        let far = [
            Echo::tcp(w.host.outside(), "outside", 80),
            Echo::udp(w.host.outside(), "outside", 90),
        ];
        let behind = wharf_testkit::Netns::new("behind");
        w.evil.sh(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add inner type veth peer name eth0 netns {}
             ip addr add 10.99.0.1/24 dev inner; ip -6 addr add fd00:99::1/64 dev inner nodad; ip link set inner up",
            behind.path()
        ));
        behind.sh(
            "ip addr add 10.99.0.2/24 dev eth0; ip -6 addr add fd00:99::2/64 dev eth0 nodad
             ip link set eth0 up
             ip route add default via 10.99.0.1; ip -6 route add default via fd00:99::1",
        );
        w.victim.sh("ip route replace 192.0.2.50 via 10.88.1.66
             ip -6 route replace 2001:db8::50 via fd00:88:1::66");
        for v6 in [false, true] {
            for from in [&w.victim, &behind] {
                let answers = [
                    from.tcp_brief(addr::outside(v6), 80),
                    from.udp_brief(addr::outside(v6), 90),
                ];
                assert!(
                    !answers.iter().any(|a| a.reached()),
                    "{}: {answers:?}",
                    from.name()
                );
            }
        }
        assert_eq!(far.iter().map(Echo::served).sum::<u64>(), 0);
        w.evil.sh("nft add table inet own; nft add chain inet own post '{ type nat hook postrouting priority 100; }'
                   nft add rule inet own post oifname eth0 masquerade");
        for v6 in [false, true] {
            let source: Option<IpAddr> = behind.tcp(addr::outside(v6), 80).source();
            assert_eq!(
                source,
                Some(addr::host(v6)),
                "what is behind it goes out as itself"
            );
        }
    });
}

/// An address goes from one container to another; what is under way to the first must not reach the second.
#[test]
fn nothing_for_the_old_tenant_reaches_the_new_one() {
    require!();
    for on in bridge_nf_values() {
        let host = options().bridge_nf_call(*on).start();
        // The address's next owner is on the same network, or on one of another name.
        for (v6, next) in [(false, "A"), (true, "A"), (false, "B"), (true, "B")] {
            network(&host, "A", 1, "");
            container(&host, "old", "A", 1, 11, "");
            let server = host
                .outside()
                .run(|| std::net::UdpSocket::bind((addr::outside(v6), 90)))
                .expect("socket");
            let old = host.container("old");
            let client = old
                .run(|| std::net::UdpSocket::bind((at(v6, 1, 11), 5000)))
                .expect("socket");
            let mut buffer = [0; 64];
            client
                .send_to(b"what is new?", (addr::outside(v6), 90))
                .expect("send");
            let (_, from) = server.recv_from(&mut buffer).expect("receive");
            server.send_to(b"first", from).expect("send");
            client.recv(&mut buffer).expect("an answer");
            drop((client, old));
            host.w("rm -f old").ok();
            if next != "A" {
                host.w("network rm A").ok();
                network(&host, next, 1, "");
            }
            container(&host, "new", next, 1, 11, "");
            let new = host.container("new");
            let heard = Sniffer::start(&new, "eth0");
            for _ in 0..20 {
                server.send_to(b"for the old one only", from).expect("send");
            }
            assert!(new.ping(addr::outside(v6)).reached());
            assert_eq!(
                heard.count(b"for the old one only"),
                0,
                "bridge-nf-call {on}, IPv6 {v6}, on {next}"
            );
            host.w("rm -f new").ok();
            host.w(&format!("network rm {next}")).ok();
        }
    }
}

/// Where the bridge has no address the host is not there, also for frames sent to the bridge itself.
#[test]
fn an_isolated_network_has_no_host() {
    require!();
    for on in bridge_nf_values() {
        let host = options().bridge_nf_call(*on).start();
        let isolated = "-o com.docker.network.bridge.gateway_mode_ipv4=isolated \
                        -o com.docker.network.bridge.gateway_mode_ipv6=isolated";
        network(
            &host,
            "I",
            3,
            &format!("--internal --bridge wharf-i {isolated}"),
        );
        network(&host, "A", 1, "--bridge wharf-a");
        container(&host, "evil", "I", 3, 66, "");
        container(&host, "sibling", "I", 3, 11, "");
        container(&host, "honest", "A", 1, 11, "");
        let evil = host.container("evil");
        let service = Echo::udp(host.netns(), "host", 7000);
        let wire = Wire::open(&evil, "eth0");
        let macs = (evil.mac("eth0"), host.netns().mac("wharf-i"));
        for v6 in [false, true] {
            for to in [
                addr::host(v6),
                at(v6, 3, 1),
                at(v6, 1, 1),
                ip(if v6 { "ff02::1" } else { "224.0.0.1" }),
            ] {
                wire.send(&frame::udp(macs, (at(v6, 3, 66), 9), (to, 7000), b"who?"));
            }
            assert!(evil.ping(at(v6, 3, 11)).reached(), "a sibling");
        }
        assert_eq!(service.served(), 0, "a datagram reached the host");
        for v6 in [false, true] {
            assert_eq!(
                host.container("honest").udp(addr::host(v6), 7000).by(),
                Some("host")
            );
        }
    }
}

/// Errors about packets that nobody sent are believed by nobody: the host would send less at once to whoever they name.
#[test]
fn errors_of_no_flow_change_no_route() {
    require!();
    in_both_worlds(|w| {
        let macs = (w.evil_mac, w.bridge_mac);
        for v6 in [false, true] {
            // An echo's answer from the host to the outside, on which nobody waits for an error.
            let echo = [if v6 { 129 } else { 0 }, 0, 0xff, 0xff, 0, 0, 0, 0];
            let protocol = if v6 { 58 } else { 1 };
            let told = frame::ip(macs, addr::host(v6), addr::outside(v6), protocol, 64, &echo);
            let mut error = match v6 {
                false => vec![3, 4, 0, 0, 0, 0, 2, 0x58],
                true => vec![2, 0, 0, 0, 0, 0, 5, 0x14],
            };
            error.extend(&told[14..]);
            let all: (IpAddr, Mac) = match v6 {
                false => (ip("255.255.255.255"), [0xff; 6]),
                true => (ip("ff02::1"), [0x33, 0x33, 0, 0, 0, 1]),
            };
            let one = |to| (to, w.bridge_mac);
            for promisc in ["off", "on"] {
                w.host
                    .netns()
                    .ip(&format!("link set wharf-a promisc {promisc}"));
                for (to, mac) in [one(at(v6, 1, 1)), one(addr::host(v6)), all] {
                    let macs = (w.evil_mac, mac);
                    let source = at(v6, 1, 66);
                    let lie = match (source, to) {
                        (IpAddr::V6(from), IpAddr::V6(to)) => frame::icmpv6(macs, from, to, &error),
                        _ => {
                            let mut error = error.clone();
                            let sum = frame::checksum(&error, 0);
                            error[2..4].copy_from_slice(&sum.to_be_bytes());
                            frame::ip(macs, source, to, 1, 64, &error)
                        }
                    };
                    w.wire.send(&lie);
                    w.settle(v6);
                    let route = format!("route get {}", addr::outside(v6));
                    let route = w.host.netns().ip(&route);
                    assert!(
                        !route.contains("mtu"),
                        "by {to}, promisc {promisc}: {route}"
                    );
                }
            }
        }
    });
}

/// Somebody runs `tcpdump` on the bridge: the host hears its neighbours as before.
#[test]
fn a_bridge_that_listens_to_everything_serves_as_before() {
    require!();
    in_both_worlds(|w| {
        let host = w.host.netns();
        host.ip("link set wharf-a promisc on");
        for v6 in [false, true] {
            w.victim.ip("neigh flush all");
            host.ip("neigh flush all");
            assert!(w.victim.ping(at(v6, 1, 1)).reached(), "IPv6 {v6}");
            assert!(w.victim.ping(addr::outside(v6)).reached(), "IPv6 {v6}");
            assert!(host.ping(at(v6, 1, 11)).reached(), "IPv6 {v6}");
        }
        let heard = Sniffer::start(host, "wharf-a");
        let server = host.run(|| std::net::UdpSocket::bind("0.0.0.0:5000").unwrap());
        server
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let (from, to) = ((at(false, 1, 66), 9), (ip("10.88.1.255"), 5000));
        let macs = (w.evil_mac, [0xff; 6]);
        w.wire.send(&frame::udp(macs, from, to, b"to everybody"));
        heard.wait_for("a broadcast", b"to everybody");
        let mut text = [0; 32];
        let count = server.recv(&mut text).expect("the host's socket has it");
        assert_eq!(&text[..count], b"to everybody");
    });
}
