//! `payload`: the packet as bytes, and rewriting it.

use wharf_core::trace::env::Layer;
use wharf_core::trace::packet::L4;
use wharf_core::trace::ruleset::{Cmp, Expr, Header, Hook, RuleVerdict};

use super::{Case, base, cmp, eq, ip, packet, packet6, rule, rules, verdict};

fn at(header: Header, offset: u32, len: u32) -> Expr {
    Expr::Payload {
        dreg: 0,
        header,
        offset,
        len,
    }
}

/// Whether bytes of the forwarded packet are these.
fn reads(case: &mut Case, header: Header, offset: u32, bytes: &[u8]) -> bool {
    let len = bytes.len() as u32;
    case.holds(&[at(header, offset, len), eq(bytes)])
}

#[test]
fn ipv4_and_tcp() {
    let case = &mut Case::at(Hook::Forward);
    for (header, offset, bytes) in [
        (Header::Link, 0, [2, 0, 0, 0, 0, 3].as_slice()),
        (Header::Link, 6, &[2, 0, 0, 0, 0, 9]),
        (Header::Link, 12, &[8, 0]),
        (Header::Network, 0, &[0x45, 0x10, 0, 60]),
        (Header::Network, 8, &[64, 6]),
        (Header::Network, 12, &[10, 0, 0, 2, 203, 0, 113, 5]),
        (Header::Network, 20, &[0x9c, 0x40, 0, 80]),
        (Header::Transport, 0, &[0x9c, 0x40]),
        (Header::Transport, 2, &[0, 80]),
        (Header::Transport, 13, &[2]),
    ] {
        assert!(reads(case, header, offset, bytes), "{header:?} {offset}");
    }
    assert!(!reads(case, Header::Transport, 2, &[0, 81]));
    // "Don't fragment" is not known, the offset is zero.
    let offset = Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: vec![0x1f, 0xff],
        xor: vec![0, 0],
    };
    assert!(case.holds(&[at(Header::Network, 6, 2), offset, eq([0, 0])]));
    case.packet.reply = true;
    assert!(reads(case, Header::Transport, 13, &[0x12]));
    // Not there: 60 bytes in all, no inner header, and what is made here has no Ethernet header yet.
    assert!(!case.holds(&[at(Header::Network, 60, 1), cmp(Cmp::Ge, [0])]));
    assert!(!case.holds(&[at(Header::Inner, 0, 1), cmp(Cmp::Ge, [0])]));
    assert!(case.holds(&[at(Header::Network, 59, 1), cmp(Cmp::Ge, [0])]));
    let local = &mut Case::at(Hook::Output);
    assert!(!local.holds(&[at(Header::Link, 0, 6), cmp(Cmp::Ge, [0])]));
}

#[test]
fn ipv6_udp_and_echo() {
    let mut six = packet6();
    six.l4 = L4::Udp;
    let case = &mut Case::with(Hook::Forward, six);
    assert!(reads(case, Header::Network, 0, &[0x61]));
    assert!(reads(case, Header::Network, 4, &[0, 40, 17, 64]));
    assert!(reads(case, Header::Network, 38, &[0, 5]));
    assert!(reads(case, Header::Transport, 2, &[0, 80, 0, 40]));
    (case.packet.l4, case.packet.dport) = (L4::Icmp, 0);
    assert!(reads(case, Header::Network, 6, &[58]));
    assert!(reads(case, Header::Transport, 0, &[128, 0]));
    assert!(reads(case, Header::Transport, 4, &[0x9c, 0x40]));
    let case = &mut Case::at(Hook::Forward);
    (case.packet.l4, case.packet.dport) = (L4::Icmp, 0);
    assert!(reads(case, Header::Transport, 0, &[8, 0]));
    case.packet.reply = true;
    assert!(reads(case, Header::Transport, 0, &[0, 0]));
    // Fragmentation needed.
    case.packet.dport = 0x0304;
    assert!(reads(case, Header::Transport, 0, &[3, 4]));
}

#[test]
fn what_is_rewritten_is_seen_afterwards() {
    let write = |header, offset, bytes: &[u8]| {
        vec![
            Expr::Immediate {
                dreg: 0,
                data: bytes.to_vec(),
            },
            Expr::PayloadSet {
                sreg: 0,
                header,
                offset,
                len: bytes.len() as u32,
            },
        ]
    };
    let ruleset = rules(vec![base(
        Hook::Forward,
        0,
        vec![
            rule(1, write(Header::Network, 16, &[10, 9, 8, 7])),
            rule(2, write(Header::Network, 8, &[1])),
            rule(3, write(Header::Transport, 2, &[0x1f, 0x90])),
            rule(4, write(Header::Link, 6, &[2, 2, 2, 2, 2, 2])),
            rule(
                5,
                vec![
                    at(Header::Transport, 2, 2),
                    eq([0x1f, 0x90]),
                    verdict(RuleVerdict::Accept),
                ],
            ),
        ],
    )]);
    let run = Case::at(Hook::Forward).run(&ruleset);
    assert_eq!(run.blame.unwrap().handle, Some(5));
    let changed = run.packet;
    assert_eq!((changed.dst, changed.ttl), (ip("10.9.8.7"), 1));
    assert_eq!((changed.sport, changed.dport), (40000, 8080));
    assert_eq!(changed.src, packet().src);
    assert_eq!(changed.src_mac.unwrap().0, [2; 6]);
}

#[test]
fn at_a_device_frames_have_their_header() {
    let mut case = Case::at(Hook::Ingress);
    case.layer = Layer::Device("veth1");
    let mut chain = base(
        Hook::Ingress,
        0,
        vec![rule(
            1,
            vec![
                at(Header::Link, 12, 2),
                eq([8, 0]),
                verdict(RuleVerdict::Drop),
            ],
        )],
    );
    chain.base.as_mut().unwrap().devices = vec!["veth1".to_owned()];
    let ruleset = rules(vec![chain]);
    assert_eq!(case.run(&ruleset).blame.unwrap().handle, Some(1));
    case.layer = Layer::Device("veth2");
    assert_eq!(case.run(&ruleset).blame, None);
}
