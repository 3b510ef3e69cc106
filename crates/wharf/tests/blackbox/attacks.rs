//! Lies in disguise: behind VLAN tags, in groups that bridges keep to themselves, behind extension headers, in pieces.
//! Each has an honest twin in the same disguise which gets through, where there is an honest use for it.

use crate::common::*;
use crate::liar::*;
use std::net::{IpAddr, Ipv6Addr};
use wharf_testkit::disguise::{self, DESTINATION, FRAGMENT, HOP_BY_HOP, SERVICE_VLAN, VLAN};
use wharf_testkit::frame::{self, Arp, BROADCAST, Mac};
use wharf_testkit::{Echo, addr, require};

/// An address that is not the liar's.
fn false_source(v6: bool) -> IpAddr {
    ip(if v6 {
        "2001:db8:bad::9"
    } else {
        "198.51.100.9"
    })
}

fn own(v6: bool) -> IpAddr {
    at(v6, 1, 66)
}

fn datagram(macs: (Mac, Mac), from: IpAddr, to: (IpAddr, u16), text: &str) -> Vec<u8> {
    frame::udp(macs, (from, 9), to, text.as_bytes())
}

/// An ARP packet that takes the gateway's address.
fn arp_lie(w: &World) -> Vec<u8> {
    frame::arp(&Arp {
        frame_from: w.evil_mac,
        frame_to: BROADCAST,
        operation: 2,
        sender: w.evil_mac,
        sender_ip: v4(at(false, 1, 1)),
        target_ip: v4(at(false, 1, 11)),
    })
}

fn bad_prefix() -> Ipv6Addr {
    v6(ip("2001:db8:bad::"))
}

fn router_lie(w: &World) -> Vec<u8> {
    frame::router_advertisement(w.evil_mac, frame::link_local(w.evil_mac), bad_prefix())
}

#[test]
fn vlan_tags_and_other_wrappings_hide_nothing() {
    require!();
    in_both_worlds(|w| {
        let tags: [(&str, &[(u16, u16)]); 5] = [
            ("802.1Q", &[(VLAN, 5)]),
            ("a priority tag", &[(VLAN, 0xe000)]),
            ("802.1ad", &[(SERVICE_VLAN, 5)]),
            ("802.1ad and 802.1Q", &[(SERVICE_VLAN, 5), (VLAN, 5)]),
            ("two priority tags", &[(VLAN, 0), (VLAN, 0)]),
        ];
        let arp = arp_lie(w);
        let router = router_lie(w);
        for (name, tags) in tags {
            let wrapped = |frame: &[u8]| [disguise::tagged(frame, tags)];
            for v6 in [false, true] {
                let text = format!("wrapped in {name}, {v6}");
                let lie = datagram(w.macs(), false_source(v6), (at(v6, 1, 11), 9), &text);
                w.refuses(&text, &wrapped(&lie), text.as_bytes());
            }
            w.refuses(&format!("ARP in {name}"), &wrapped(&arp), &arp[14..42]);
            w.refuses(
                &format!("RA in {name}"),
                &wrapped(&router),
                &bad_prefix().octets(),
            );
        }
        w.refuses("ARP in SNAP", &[disguise::snap(&arp)], &arp[14..42]);
        let text = "in SNAP";
        let lie = datagram(w.macs(), false_source(false), (at(false, 1, 11), 9), text);
        w.refuses(text, &[disguise::snap(&lie)], text.as_bytes());
    });
}

/// A bridge hands frames to 01:80:c2:00:00:0X to the port's own link, past all rules for bridged frames, unless told not to.
#[test]
fn groups_for_bridges_alone_are_no_way_round_the_guard() {
    require!();
    in_both_worlds(|w| {
        let host = w.host.netns();
        let server = Echo::udp(host, "host", 7000);
        let bpdu = disguise::bpdu(w.evil_mac);
        w.refuses("a BPDU", std::slice::from_ref(&bpdu), &bpdu[17..40]);
        for last in 0..16 {
            let group = [0x01, 0x80, 0xc2, 0, 0, last];
            let lldp = frame::ethernet(w.evil_mac, group, 0x88cc, b"neither LLDP nor the like");
            w.refuses(
                &format!("LLDP to :{last:02x}"),
                &[lldp],
                b"neither LLDP nor the like",
            );
            for v6 in [false, true] {
                for to in [
                    addr::host(v6),
                    at(v6, 1, 1),
                    ip(if v6 { "ff02::1" } else { "224.0.0.1" }),
                ] {
                    w.try_lie(&[datagram(
                        (w.evil_mac, group),
                        false_source(v6),
                        (to, 7000),
                        "who?",
                    )]);
                }
                let text = format!("false to :{last:02x} {v6}");
                let lie = datagram(
                    (w.evil_mac, group),
                    false_source(v6),
                    (at(v6, 1, 11), 9),
                    &text,
                );
                w.refuses(&text, &[lie], text.as_bytes());
            }
            for sender in ["10.88.1.77", "10.0.2.1", "198.51.100.77"] {
                let ask = Arp {
                    frame_from: w.evil_mac,
                    frame_to: group,
                    operation: 1,
                    sender: w.evil_mac,
                    sender_ip: v4(ip(sender)),
                    target_ip: v4(addr::HOST4),
                };
                w.try_lie(&[frame::arp(&ask)]);
            }
            w.try_lie(&[disguise::redirected(&router_lie(w), group)]);
        }
        assert_eq!(
            server.served(),
            0,
            "a false source reached a service of the host"
        );
        let mac = w.evil_mac.map(|byte| format!("{byte:02x}")).join(":");
        let neighbours = host.ip("neigh show");
        let false_ones: Vec<_> = neighbours
            .lines()
            .filter(|line| line.contains(&mac) && !line.contains("PERMANENT"))
            .collect();
        assert!(false_ones.is_empty(), "the host believed {false_ones:?}");
        let routes = host.ip("-6 route show table all");
        assert!(
            !routes.contains("2001:db8:bad") && !routes.contains(" ra "),
            "{routes}"
        );
        for v6 in [false, true] {
            assert_eq!(w.evil.udp(addr::host(v6), 7000).by(), Some("host"));
        }
    });
}

#[test]
fn extension_headers_hide_neither_router_nor_neighbour() {
    require!();
    in_both_worlds(|w| {
        let (own, victim, gateway) = (v6(own(true)), v6(at(true, 1, 11)), v6(at(true, 1, 1)));
        let nodes = v6(ip("ff02::1"));
        let link = frame::link_local(w.evil_mac);
        let mut redirect = vec![137, 0, 0, 0, 0, 0, 0, 0];
        redirect.extend(own.octets());
        redirect.extend(v6(addr::OUTSIDE6).octets());
        let lies = [
            ("a router", router_lie(w), bad_prefix().octets().to_vec()),
            (
                "the gateway",
                frame::neighbour_advertisement(w.macs(), own, victim, gateway, w.evil_mac),
                [&gateway.octets()[..], &[2, 1], &w.evil_mac[..]].concat(),
            ),
            (
                "a better way",
                frame::icmpv6(w.macs(), link, victim, &redirect),
                v6(addr::OUTSIDE6).octets().to_vec(),
            ),
            (
                "a DHCPv6 server",
                frame::udp(
                    (w.evil_mac, frame::ALL_NODES),
                    (link.into(), 547),
                    (nodes.into(), 546),
                    b"an advertise",
                ),
                b"an advertise".to_vec(),
            ),
        ];
        let chains: [&[u8]; 7] = [
            &[HOP_BY_HOP],
            &[DESTINATION],
            &[FRAGMENT],
            &[HOP_BY_HOP, DESTINATION],
            &[DESTINATION, FRAGMENT],
            &[FRAGMENT, DESTINATION],
            &[HOP_BY_HOP, DESTINATION, FRAGMENT, DESTINATION, DESTINATION],
        ];
        for (what, lie, mark) in &lies {
            for chain in chains {
                let frame = disguise::with_headers(lie, chain);
                w.refuses(&format!("{what} behind {chain:?}"), &[frame], mark);
            }
            for (headers, cut) in [
                (&[][..], 8),
                (&[DESTINATION][..], 8),
                (&[DESTINATION, DESTINATION][..], 16),
            ] {
                let pieces = disguise::fragments6(lie, headers, cut);
                w.try_lie(&pieces);
                let heard = pieces.each_ref().map(|piece| w.heard.count(&piece[54..]));
                assert!(
                    heard.contains(&0),
                    "{what}: in pieces with {headers:?} cut at {cut}"
                );
            }
        }
        for chain in chains {
            let text = format!("honest behind {chain:?}");
            let honest = datagram(w.macs(), own.into(), (victim.into(), 9), &text);
            w.allows(
                &text,
                &[disguise::with_headers(&honest, chain)],
                text.as_bytes(),
            );
        }
        let text = "an honest datagram in two pieces";
        let honest = datagram(w.macs(), own.into(), (victim.into(), 9), text);
        let pieces = disguise::fragments6(&honest, &[], 8);
        w.allows(text, &pieces, text.as_bytes());
        let big = w
            .victim
            .command("ping")
            .args(["-c1", "-W2", "-s3000", "fd00:88:1::66"])
            .run();
        big.ok();
    });
}

#[test]
fn fragments_and_options_hide_nothing() {
    require!();
    in_both_worlds(|w| {
        let (own, victim) = (own(false), at(false, 1, 11));
        let offer = frame::udp(
            (w.evil_mac, BROADCAST),
            (own, 67),
            (ip("255.255.255.255"), 68),
            b"offer in pieces",
        );
        let pieces = disguise::fragments4(&offer, 8);
        w.try_lie(&pieces);
        assert_eq!(
            w.heard.count(&pieces[0][26..]),
            0,
            "the first piece of an offer"
        );
        let text = "a false source in pieces";
        let lie = datagram(w.macs(), false_source(false), (victim, 9), text);
        w.refuses(text, &disguise::fragments4(&lie, 8), text.as_bytes());
        let mut redirect = vec![5, 1, 0, 0];
        redirect.extend(v4(own).octets());
        redirect.extend(b"the header of a packet that is sent elsewhere");
        let sum = frame::checksum(&redirect, 0);
        redirect[2..4].copy_from_slice(&sum.to_be_bytes());
        let redirect = frame::ip(w.macs(), own, victim, 1, 64, &redirect);
        let mark = b"the header of a packet";
        w.refuses("a redirect", std::slice::from_ref(&redirect), mark);
        let option = disguise::source_route(v4(at(false, 1, 1)));
        let routed = disguise::with_options(&redirect, &option);
        w.refuses("a redirect with options", &[routed], mark);
        let pieces = disguise::fragments4(&redirect, 8);
        w.try_lie(&pieces);
        assert_eq!(
            w.heard.count(&pieces[0][26..]),
            0,
            "the first piece of a redirect"
        );
        let text = "a false source with a route";
        let lie = datagram(w.macs(), false_source(false), (victim, 9), text);
        w.refuses(
            text,
            &[disguise::with_options(&lie, &option)],
            text.as_bytes(),
        );
        let text = "an offer with options";
        let offer = frame::udp(
            (w.evil_mac, BROADCAST),
            (own, 67),
            (ip("255.255.255.255"), 68),
            text.as_bytes(),
        );
        w.refuses(
            text,
            &[disguise::with_options(&offer, &[1, 1, 1, 0])],
            text.as_bytes(),
        );

        let text = "an honest one in pieces";
        let honest = datagram(w.macs(), own, (victim, 9), text);
        w.allows(text, &disguise::fragments4(&honest, 8), text.as_bytes());
        let text = "an honest one with options";
        let honest = datagram(w.macs(), own, (victim, 9), text);
        w.allows(
            text,
            &[disguise::with_options(&honest, &[1, 1, 1, 0])],
            text.as_bytes(),
        );
    });
}

#[test]
fn a_dhcp_server_is_known_by_whom_it_speaks_to() {
    require!();
    in_both_worlds(|w| {
        let everybody = ip("255.255.255.255");
        let link = IpAddr::V6(frame::link_local(w.evil_mac));
        for port in [67, 547, 68, 12345] {
            let text = format!("an offer from {port}");
            let lie = frame::udp(
                (w.evil_mac, BROADCAST),
                (own(false), port),
                (everybody, 68),
                text.as_bytes(),
            );
            w.refuses(&text, &[lie], text.as_bytes());
            let text = format!("to the victim alone from {port}");
            let lie = frame::udp(
                w.macs(),
                (own(false), port),
                (at(false, 1, 11), 68),
                text.as_bytes(),
            );
            w.refuses(&text, &[lie], text.as_bytes());
            let text = format!("an advertise from {port}");
            let lie = frame::udp(
                w.macs(),
                (link, port),
                (at(true, 1, 11), 546),
                text.as_bytes(),
            );
            w.refuses(&text, &[lie], text.as_bytes());
        }
        let ask = frame::udp(
            (w.evil_mac, BROADCAST),
            (own(false), 68),
            (everybody, 67),
            b"a discover",
        );
        w.allows("a question to servers", &[ask], b"a discover");
        let ask = frame::udp(
            (w.evil_mac, frame::ALL_NODES),
            (link, 546),
            (ip("ff02::1"), 547),
            b"a solicit",
        );
        w.allows("the same in IPv6", &[ask], b"a solicit");
    });
}
