//! Neighbour discovery and group management, in the details: what is claimed in which option, in whose name, by whom.

use crate::common::*;
use crate::liar::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use wharf_testkit::frame::{self, Mac};
use wharf_testkit::{Wire, addr, eventually, require};

const NONCE: u8 = 14;
const TARGET: u8 = 2;
const SOURCE: u8 = 1;

fn own() -> Ipv6Addr {
    v6(at(true, 1, 66))
}

fn victim() -> Ipv6Addr {
    v6(at(true, 1, 11))
}

fn unspecified() -> Ipv6Addr {
    Ipv6Addr::UNSPECIFIED
}

/// A solicitation or advertisement with options of six bytes each.
fn message(kind: u8, target: Ipv6Addr, options: &[(u8, Mac)]) -> Vec<u8> {
    let flags = if kind == 136 { 0x20 } else { 0 };
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    for (option, mac) in options {
        message.extend([*option, 1]);
        message.extend(mac);
    }
    message
}

/// A frame, and the part of it that tells whether it arrived.
fn of(w: &World, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let frame = frame::icmpv6(w.macs(), from, to, message);
    let mark = frame[54..54 + message.len()].to_vec();
    (frame, mark)
}

#[test]
fn options_and_targets_are_the_senders_own() {
    require!();
    in_both_worlds(|w| {
        let (mine, other, gateway) = (w.evil_mac, FALSE_MAC, v6(at(true, 1, 1)));
        let link = frame::link_local(w.evil_mac);
        let lies = [
            (
                "another MAC behind an option with the own one",
                own(),
                136,
                own(),
                vec![(NONCE, mine), (TARGET, other)],
            ),
            (
                "another MAC in the wrong option first",
                own(),
                136,
                own(),
                vec![(SOURCE, mine), (TARGET, other)],
            ),
            ("the gateway, without a MAC", own(), 136, gateway, vec![]),
            (
                "a sibling's true MAC",
                own(),
                136,
                victim(),
                vec![(TARGET, w.victim_mac)],
            ),
            (
                "by the link-local address for the gateway",
                link,
                136,
                gateway,
                vec![(TARGET, mine)],
            ),
            (
                "a question with another MAC",
                own(),
                135,
                victim(),
                vec![(SOURCE, other)],
            ),
            (
                "a question with the victim's MAC",
                own(),
                135,
                victim(),
                vec![(SOURCE, w.victim_mac)],
            ),
            (
                "a question with a nonce first",
                own(),
                135,
                victim(),
                vec![(NONCE, mine), (SOURCE, other)],
            ),
            (
                "a claim to the victim's address",
                unspecified(),
                135,
                victim(),
                vec![],
            ),
            (
                "a claim to the gateway's address",
                unspecified(),
                135,
                gateway,
                vec![],
            ),
        ];
        for (what, from, kind, target, options) in lies {
            let (frame, mark) = of(w, from, victim(), &message(kind, target, &options));
            w.refuses(what, &[frame], &mark);
        }
        let honest = [
            ("an advertisement", own(), 136, own(), vec![(TARGET, mine)]),
            (
                "one without a MAC, as answers may be",
                own(),
                136,
                own(),
                vec![],
            ),
            ("a question", own(), 135, victim(), vec![(SOURCE, mine)]),
            (
                "a question of one who has asked before",
                own(),
                135,
                victim(),
                vec![],
            ),
            (
                "a claim to the own address",
                unspecified(),
                135,
                own(),
                vec![],
            ),
            (
                "the link-local address",
                link,
                136,
                link,
                vec![(TARGET, mine)],
            ),
        ];
        for (what, from, kind, target, options) in honest {
            let (frame, mark) = of(w, from, victim(), &message(kind, target, &options));
            w.allows(what, &[frame], &mark);
        }
    });
}

#[test]
fn a_container_is_no_multicast_router() {
    require!();
    in_both_worlds(|w| {
        let own4 = at(false, 1, 66);
        let igmp = |kind: u8, group: [u8; 4]| {
            let mut message = vec![kind, 10, 0, 0];
            message.extend(group);
            let sum = frame::checksum(&message, 0);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let group = std::net::Ipv4Addr::from(if group == [0; 4] {
                [224, 0, 0, 1]
            } else {
                group
            });
            let macs = (w.evil_mac, [1, 0, 0x5e, 0, 0, 1]);
            frame::ip(macs, own4, group.into(), 2, 1, &message)
        };
        let query = igmp(0x11, [0; 4]);
        w.refuses(
            "an IGMP query",
            std::slice::from_ref(&query),
            &query[20..42],
        );
        let router = igmp(0x30, [0; 4]);
        w.refuses(
            "a multicast router",
            std::slice::from_ref(&router),
            &router[20..42],
        );
        let macs = (w.evil_mac, [1, 0, 0x5e, 0, 0, 13]);
        let hello = frame::ip(
            macs,
            own4,
            ip("224.0.0.13"),
            103,
            1,
            b"\x20\x00\x00\x00a PIM hello",
        );
        w.refuses("a PIM hello", &[hello], b"a PIM hello");
        let link = frame::link_local(w.evil_mac);
        for (what, kind) in [("an MLD query", 130), ("a multicast router", 151)] {
            let body = [&[kind, 0, 0, 0, 3, 0xe8, 0, 0][..], &[0; 16]].concat();
            let (frame, _) = of(w, link, v6(ip("ff02::1")), &body);
            w.refuses(
                &format!("{what} in IPv6"),
                std::slice::from_ref(&frame),
                &frame[14..54],
            );
        }
        let report = igmp(0x16, [239, 1, 2, 3]);
        w.allows("membership", std::slice::from_ref(&report), &report[20..42]);
        let group = v6(ip("ff02::1:2:3"));
        let body = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
        let (frame, mark) = of(w, link, v6(ip("ff02::1")), &body);
        w.allows("membership in IPv6", &[frame], &mark);
    });
}

/// With addresses of nobody asked for by way of the gateway, the host's table of neighbours would fill up (RFC 6583).
#[test]
fn the_hosts_table_of_neighbours_is_not_filled() {
    require!();
    in_both_worlds(|w| {
        let host = w.host.netns();
        let macs = (w.evil_mac, w.bridge_mac);
        w.host
            .w("network create W --subnet 10.90.0.0/16 --bridge wharf-w")
            .ok();
        w.host.w("network connect W evil --ip 10.90.0.66").ok();
        let wide = Wire::open(&w.evil, "eth1");
        let wide_macs = (w.evil.mac("eth1"), host.mac("wharf-w"));
        for n in 0..3000_u16 {
            let to = Ipv6Addr::from(0xfd00_0088_0001_0000_0000_0000_ffff_0000_u128 + u128::from(n));
            w.wire.send(&frame::udp(
                macs,
                (own().into(), 9),
                (to.into(), 9),
                b"nobody",
            ));
            let to = Ipv4Addr::from(0x0a5a_1000 + u32::from(n));
            wide.send(&frame::udp(
                wide_macs,
                (ip("10.90.0.66"), 9),
                (to.into(), 9),
                b"nobody",
            ));
        }
        w.settle(true);
        for link in ["wharf-a", "wharf-w"] {
            let waiting = host.ip(&format!("neigh show dev {link} nud incomplete"));
            assert_eq!(waiting.lines().count(), 0, "the host waits for {waiting}");
        }
        // Who is new to the host is still found.
        host.ip("neigh flush dev up0");
        eventually("the router is found again", || {
            let found =
                w.evil.ping(addr::OUTSIDE4).reached() && w.evil.ping(addr::OUTSIDE6).reached();
            found.then_some(())
        });
        assert!(w.evil.ping(at(true, 1, 11)).reached());
    });
}

#[test]
fn the_bridges_table_is_not_filled() {
    require!();
    in_both_worlds(|w| {
        let host = w.host.netns();
        let entries = || host.sh("bridge fdb show br wharf-a | wc -l");
        let before = entries();
        for _ in 0..3000 {
            let mut mac = frame::random_bytes::<6>();
            mac[0] = 2;
            w.wire.send(&frame::udp(
                (mac, w.victim_mac),
                (at(false, 1, 66), 9),
                (at(false, 1, 11), 9),
                b"many",
            ));
        }
        w.settle(false);
        assert_eq!(entries(), before, "the bridge learned");
        assert_eq!(w.heard.count(b"many"), 0);
        for v6 in [false, true] {
            assert!(w.evil.ping(at(v6, 1, 11)).reached() && w.victim.ping(at(v6, 1, 1)).reached());
        }
    });
}

/// Nobody answers them here, and the host would believe the hardware address in them.
#[test]
fn solicitations_of_routers_go_nowhere() {
    require!();
    in_both_worlds(|w| {
        let link = frame::link_local(w.evil_mac);
        let all_routers: Ipv6Addr = "ff02::2".parse().expect("an address");
        let macs = (w.evil_mac, [0x33, 0x33, 0, 0, 0, 2]);
        for (from, options) in [
            (link, vec![(SOURCE, FALSE_MAC)]),
            (link, vec![(SOURCE, w.evil_mac)]),
            (unspecified(), vec![]),
        ] {
            let mut solicitation = vec![133, 0, 0, 0, 0, 0, 0, 0];
            for (option, mac) in options {
                solicitation.extend([option, 1]);
                solicitation.extend(mac);
            }
            let sent = frame::icmpv6(macs, from, all_routers, &solicitation);
            let mark = sent[54..54 + solicitation.len()].to_vec();
            w.refuses("a solicitation of routers", &[sent], &mark);
            let known = w.host.netns().ip("-6 neigh show dev wharf-a");
            assert!(!known.contains("02:ba:d0"), "{known}");
        }
    });
}
