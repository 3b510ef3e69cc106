//! A container that lies about its addresses gets nowhere. Each attack has an honest twin which does get through, so that
//! a test cannot pass because the packet was malformed.

use crate::common::*;
use crate::liar::*;
use std::net::IpAddr;
use wharf_testkit::frame::{self, Arp, BROADCAST};
use wharf_testkit::{Sniffer, addr, eventually, require};

#[test]
fn a_foreign_source_mac_is_dropped() {
    require!();
    in_both_worlds(|w| {
        for v6 in [false, true] {
            for (what, mac) in [
                ("false-mac", FALSE_MAC),
                ("mac-of-victim", w.victim_mac),
                ("mac-of-bridge", w.bridge_mac),
            ] {
                let payload = format!("{what}-{v6}");
                let to = (at(v6, 1, 11), 9);
                w.wire.send(&frame::udp(
                    (mac, w.victim_mac),
                    (at(v6, 1, 66), 9),
                    to,
                    payload.as_bytes(),
                ));
                w.settle(v6);
                assert_eq!(w.heard.count(payload.as_bytes()), 0, "{what} got through");
            }
        }
        let fdb = w
            .host
            .netns()
            .command("bridge")
            .args(["fdb", "show"])
            .run()
            .ok()
            .stdout;
        assert!(
            !fdb.contains("02:ba:d0:00:00:01"),
            "the bridge learned a false address:\n{fdb}"
        );
        assert!(
            w.victim.ping(at(false, 1, 1)).reached(),
            "the victim still gets its own frames"
        );
    });
}

#[test]
fn a_foreign_source_address_is_dropped() {
    require!();
    in_both_worlds(|w| {
        let outside = Sniffer::start(w.host.outside(), "down0");
        for v6 in [false, true] {
            let foreign = if v6 {
                ip("2001:db8:bad::9")
            } else {
                ip("198.51.100.9")
            };
            let cases = [
                ("foreign", foreign),
                ("sibling's", at(v6, 1, 12)),
                ("victim's", at(v6, 1, 11)),
                ("gateway's", at(v6, 1, 1)),
                ("host's", addr::host(v6)),
            ];
            for (what, source) in cases {
                let (near, far) = (format!("near {what} {v6}"), format!("far {what} {v6}"));
                let to = (at(v6, 1, 11), 9);
                w.wire.send(&frame::udp(
                    (w.evil_mac, w.victim_mac),
                    (source, 9),
                    to,
                    near.as_bytes(),
                ));
                let to = (addr::outside(v6), 9);
                w.wire.send(&frame::udp(
                    (w.evil_mac, w.bridge_mac),
                    (source, 9),
                    to,
                    far.as_bytes(),
                ));
                w.settle(v6);
                assert_eq!(
                    w.heard.count(near.as_bytes()),
                    0,
                    "{what} address {source} reached a sibling"
                );
            }
            let honest = format!("far honest {v6}");
            let to = (addr::outside(v6), 9);
            w.wire.send(&frame::udp(
                (w.evil_mac, w.bridge_mac),
                (at(v6, 1, 66), 9),
                to,
                honest.as_bytes(),
            ));
            outside.wait_for("an honest datagram outside", honest.as_bytes());
            for (what, source) in cases {
                let far = format!("far {what} {v6}");
                assert_eq!(
                    outside.count(far.as_bytes()),
                    0,
                    "{what} address {source} left the host"
                );
            }
        }
    });
}

#[test]
fn arp_lies_are_dropped() {
    require!();
    in_both_worlds(|w| {
        let gateway = v4(at(false, 1, 1));
        let honest = Arp {
            frame_from: w.evil_mac,
            frame_to: BROADCAST,
            operation: 2,
            sender: w.evil_mac,
            sender_ip: v4(at(false, 1, 66)),
            target_ip: v4(at(false, 1, 66)),
        };
        let lies = [
            (
                "answers for the gateway",
                Arp {
                    sender_ip: gateway,
                    target_ip: v4(at(false, 1, 11)),
                    ..honest
                },
            ),
            (
                "announces the gateway",
                Arp {
                    sender_ip: gateway,
                    target_ip: gateway,
                    ..honest
                },
            ),
            (
                "asks as the gateway",
                Arp {
                    operation: 1,
                    sender_ip: gateway,
                    target_ip: v4(at(false, 1, 11)),
                    ..honest
                },
            ),
            (
                "answers with another MAC",
                Arp {
                    sender: FALSE_MAC,
                    ..honest
                },
            ),
            (
                "answers for a sibling",
                Arp {
                    sender_ip: v4(at(false, 1, 12)),
                    ..honest
                },
            ),
        ];
        let before = w.victim.ip("-4 neigh show 10.88.1.1");
        for (what, lie) in lies {
            let bytes = frame::arp(&lie);
            w.wire.send(&bytes);
            w.wire.send(&frame::arp(&Arp {
                frame_to: w.victim_mac,
                ..lie
            }));
            w.settle(false);
            assert_eq!(
                w.heard.count(&bytes[14..42]),
                0,
                "{what}: the victim heard it"
            );
        }
        let after = w.victim.ip("-4 neigh show 10.88.1.1");
        let mac = |line: &str| {
            line.split_whitespace()
                .skip_while(|word| *word != "lladdr")
                .nth(1)
                .map(String::from)
        };
        assert_eq!(
            mac(&after),
            mac(&before),
            "the victim's idea of its gateway"
        );
        let bytes = frame::arp(&honest);
        w.wire.send(&bytes);
        w.heard.wait_for("an honest announcement", &bytes[14..42]);
    });
}

#[test]
fn neighbour_discovery_lies_are_dropped() {
    require!();
    in_both_worlds(|w| {
        let (evil, victim, gateway) =
            (v6(at(true, 1, 66)), v6(at(true, 1, 11)), v6(at(true, 1, 1)));
        let macs = (w.evil_mac, w.victim_mac);
        let router = v6(ip("fe80::1"));
        let lies = [
            (
                "advertises the gateway",
                frame::neighbour_advertisement(macs, evil, victim, gateway, w.evil_mac),
            ),
            (
                "advertises as the gateway",
                frame::neighbour_advertisement(macs, gateway, victim, gateway, w.evil_mac),
            ),
            (
                "advertises another MAC",
                frame::neighbour_advertisement(macs, evil, victim, evil, FALSE_MAC),
            ),
            (
                "asks as the gateway",
                frame::neighbour_solicitation(macs, gateway, victim, victim, w.evil_mac),
            ),
            (
                "advertises a router",
                frame::router_advertisement(w.evil_mac, frame::link_local(w.evil_mac), router),
            ),
        ];
        for (what, lie) in lies {
            w.wire.send(&lie);
            w.settle(true);
            assert_eq!(w.heard.count(&lie[14..]), 0, "{what}: the victim heard it");
        }
        let honest = frame::neighbour_advertisement(macs, evil, victim, evil, w.evil_mac);
        w.wire.send(&honest);
        w.heard.wait_for("an honest advertisement", &honest[14..]);
        assert!(w.victim.ping(gateway.into()).reached());
    });
}

#[test]
fn a_router_advertisement_moves_neither_host_nor_sibling() {
    require!();
    in_both_worlds(|w| {
        let from = frame::link_local(w.evil_mac);
        let prefix = v6(ip("2001:db8:bad::"));
        for _ in 0..3 {
            w.wire
                .send(&frame::router_advertisement(w.evil_mac, from, prefix));
        }
        w.settle(true);
        for netns in [w.host.netns(), &w.victim] {
            let routes = netns.ip("-6 route show table all");
            assert!(
                !routes.contains("2001:db8:bad"),
                "{} took a prefix:\n{routes}",
                netns.name()
            );
            assert!(
                !routes.contains(&from.to_string()),
                "{} took a router:\n{routes}",
                netns.name()
            );
        }
        for key in ["accept_ra", "autoconf"] {
            let value = w
                .host
                .netns()
                .sysctl(&format!("net.ipv6.conf.wharf-a.{key}"));
            assert_eq!(value.as_deref(), Some("0"), "{key} of the bridge");
        }
        assert_eq!(
            w.victim.sysctl("net.ipv6.conf.eth0.accept_ra").as_deref(),
            Some("0")
        );
    });
}

#[test]
fn a_container_is_no_dhcp_server() {
    require!();
    in_both_worlds(|w| {
        let everybody = ip("255.255.255.255");
        let macs = (w.evil_mac, BROADCAST);
        w.wire.send(&frame::udp(
            macs,
            (at(false, 1, 66), 67),
            (everybody, 68),
            b"a false offer",
        ));
        let nodes = ip("ff02::1");
        let macs6 = (w.evil_mac, frame::ALL_NODES);
        let own = IpAddr::V6(frame::link_local(w.evil_mac));
        w.wire.send(&frame::udp(
            macs6,
            (own, 547),
            (nodes, 546),
            b"a false advertise",
        ));
        w.settle(false);
        assert_eq!(
            w.heard.count(b"a false offer") + w.heard.count(b"a false advertise"),
            0
        );
    });
}

#[test]
fn a_container_does_not_reach_services_on_the_hosts_loopback() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "evil", "A", 1, 66, "-p 127.0.0.1:8082:82");
    let evil = host.container("evil");
    let secret = wharf_testkit::Echo::tcp_at(host.netns(), "secret", ip("127.0.0.1"), 9999);
    evil.give_loopback_away("10.88.1.1", "10.88.1.66");
    for port in [9999, 8082] {
        let answer = evil.tcp_brief(ip("127.0.0.1"), port);
        assert!(!answer.reached(), "port {port}: {answer}");
    }
    assert_eq!(secret.served(), 0, "not even the first packet may arrive");
}

#[test]
fn the_guard_survives_a_changed_mac_inside_the_container() {
    require!();
    in_both_worlds(|w| {
        w.evil.sh("ip link set eth0 address 02:ba:d0:00:00:01");
        let answer = w.evil.ping_brief(at(false, 1, 11));
        assert!(
            !answer.reached(),
            "a container that changed its MAC: {answer}"
        );
        let original = w.evil_mac.map(|byte| format!("{byte:02x}")).join(":");
        w.evil.sh(&format!("ip link set eth0 address {original}"));
        eventually("it reaches others again with its own", || {
            w.evil.ping(at(false, 1, 11)).reached().then_some(())
        });
    });
}
