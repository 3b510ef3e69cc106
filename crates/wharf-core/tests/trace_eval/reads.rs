//! `meta`, `ct`, `fib` and the instructions that calculate.

use wharf_core::trace::env::Layer;
use wharf_core::trace::ruleset::{Cmp, Ct, Expr, FibResult, Hook, Meta};

use super::{Case, base, cmp, eq, ip, packet6, rule, rules};

fn meta(case: &mut Case, key: Meta, bytes: impl Into<Vec<u8>>) -> bool {
    case.holds(&[Expr::Meta { dreg: 0, key }, eq(bytes)])
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

#[test]
fn metadata() {
    let case = &mut Case::at(Hook::Forward);
    case.packet.mark = 7;
    let word = |n: u32| n.to_ne_bytes().to_vec();
    for (key, bytes) in [
        (Meta::Length, word(60)),
        (Meta::Protocol, vec![8, 0]),
        (Meta::NfProto, vec![2]),
        (Meta::L4Proto, vec![6]),
        (Meta::Mark, word(7)),
        (Meta::Iif, word(3)),
        (Meta::Oif, word(2)),
        (Meta::IifName, name("br0")),
        (Meta::OifName, name("eth0")),
        (Meta::IifName, b"br".to_vec()),
        (Meta::IifType, 1u16.to_ne_bytes().to_vec()),
        (Meta::IifKind, name("bridge")),
        (Meta::IifGroup, word(30)),
        (Meta::OifGroup, word(20)),
        (Meta::PktType, vec![0]),
        (Meta::Other(25), vec![0]),
    ] {
        assert!(meta(case, key, bytes), "{key:?}");
    }
    // Hardware has no kind, and a forwarded packet no socket.
    for key in [Meta::OifKind, Meta::SkUid, Meta::SkGid, Meta::BridgeIifName] {
        let any = [Expr::Meta { dreg: 0, key }, cmp(Cmp::Ge, [0])];
        assert!(!case.holds(&any), "{key:?}");
    }
    let six = &mut Case::with(Hook::Forward, packet6());
    assert!(meta(six, Meta::NfProto, [10]));
    assert!(meta(six, Meta::Protocol, [0x86, 0xdd]));
    let local = &mut Case::at(Hook::Output);
    assert!(meta(local, Meta::SkUid, word(0)));
    assert!(meta(local, Meta::IifName, name("")));
    assert!(meta(local, Meta::Iif, word(0)));
    local.packet.dst = ip("224.0.0.1");
    assert!(meta(local, Meta::PktType, [2]));
}

#[test]
fn bridge_metadata() {
    use wharf_core::trace::ruleset::TableFamily;
    let case = &mut Case::at(Hook::Forward);
    (case.layer, case.iif, case.oif) = (Layer::Bridge, 4, 4);
    let holds = |case: &mut Case, key, bytes: Vec<u8>| {
        let drop = super::verdict(wharf_core::trace::ruleset::RuleVerdict::Drop);
        let mut chain = base(
            Hook::Forward,
            0,
            vec![rule(1, vec![Expr::Meta { dreg: 0, key }, eq(bytes), drop])],
        );
        chain.family = TableFamily::Bridge;
        case.run(&rules(vec![chain])).blame.is_some()
    };
    assert!(holds(case, Meta::BridgeIifName, name("br0")));
    assert!(holds(case, Meta::BridgeOifName, name("br0")));
    assert!(holds(case, Meta::IifName, name("veth1")));
    assert!(
        holds(case, Meta::PktType, vec![3]),
        "not the port's address"
    );
    case.packet.dst_mac = case.space.link(4).unwrap().mac;
    assert!(holds(case, Meta::PktType, vec![0]));
}

#[test]
fn conntrack() {
    let case = &mut Case::at(Hook::Forward);
    (case.ct.mark, case.ct.zone, case.ct.status) = (5, 3, 0x20);
    case.ct.reply.src = ip("10.9.9.9");
    let ct = |key, reply| Expr::Ct {
        dreg: 0,
        key,
        reply,
    };
    let word = |n: u32| n.to_ne_bytes().to_vec();
    for (key, reply, bytes) in [
        (Ct::State, None, word(8)),
        (Ct::Direction, None, vec![0]),
        (Ct::Status, None, word(0x20)),
        (Ct::Mark, None, word(5)),
        (Ct::L3Proto, None, vec![2]),
        (Ct::Protocol, Some(false), vec![6]),
        (Ct::Src, Some(false), vec![10, 0, 0, 2]),
        (Ct::Src, Some(true), vec![10, 9, 9, 9]),
        (Ct::Dst, Some(false), vec![203, 0, 113, 5]),
        (Ct::ProtoSrc, Some(false), vec![0x9c, 0x40]),
        (Ct::ProtoDst, Some(false), vec![0, 80]),
        (Ct::Zone, None, vec![3, 0]),
    ] {
        assert!(case.holds(&[ct(key, reply), eq(bytes)]), "{key:?}");
    }
    case.ct.state = 0x40;
    assert!(case.holds(&[ct(Ct::State, None), eq(word(0x40))]));
    assert!(!case.holds(&[ct(Ct::Mark, None), cmp(Cmp::Ge, [0])]));
}

#[test]
fn before_conntrack_there_is_no_state() {
    use wharf_core::trace::ruleset::RuleVerdict;
    let invalid = vec![
        Expr::Ct {
            dreg: 0,
            key: Ct::State,
            reply: None,
        },
        eq(1u32.to_ne_bytes()),
        super::verdict(RuleVerdict::Drop),
    ];
    let at = |priority| {
        rules(vec![base(
            Hook::Prerouting,
            priority,
            vec![rule(1, invalid.clone())],
        )])
    };
    let case = &mut Case::at(Hook::Prerouting);
    assert!(case.run(&at(-300)).blame.is_some());
    assert!(case.run(&at(-150)).blame.is_none());
    // What comes by loopback was seen when it was sent.
    case.iif = 1;
    assert!(case.run(&at(-300)).blame.is_none());
}

#[test]
fn untracked_stays_so() {
    let untracked = vec![
        Expr::Ct {
            dreg: 0,
            key: Ct::State,
            reply: None,
        },
        eq(0x40u32.to_ne_bytes()),
        super::verdict(wharf_core::trace::ruleset::RuleVerdict::Drop),
    ];
    let ruleset = rules(vec![
        base(Hook::Prerouting, -300, vec![rule(1, vec![Expr::Notrack])]),
        base(Hook::Prerouting, 0, vec![rule(2, untracked)]),
    ]);
    let mut case = Case::at(Hook::Prerouting);
    assert_eq!(case.run(&ruleset).blame.unwrap().handle, Some(2));
    assert_eq!(case.ct.state, 0x40);
}

#[test]
fn marks_are_set_and_kept() {
    let word = |n: u32| n.to_ne_bytes();
    let load = |n: u32| Expr::Immediate {
        dreg: 0,
        data: word(n).to_vec(),
    };
    let rule_of = |h, exprs| rule(h, exprs);
    let ruleset = rules(vec![base(
        Hook::Forward,
        0,
        vec![
            rule_of(
                1,
                vec![
                    load(0x10),
                    Expr::MetaSet {
                        sreg: 0,
                        key: Meta::Mark,
                    },
                    Expr::CtSet {
                        sreg: 0,
                        key: Ct::Mark,
                    },
                ],
            ),
            rule_of(
                2,
                vec![Expr::SetMark {
                    value: 1,
                    mask: 0xf,
                }],
            ),
            rule_of(
                3,
                vec![Expr::SetConnmark {
                    value: 0,
                    mask: 0xff,
                    save: true,
                    restore: false,
                }],
            ),
            rule_of(
                4,
                vec![Expr::SetMark {
                    value: 0,
                    mask: u32::MAX,
                }],
            ),
            rule_of(
                5,
                vec![Expr::SetConnmark {
                    value: 0,
                    mask: 0xf,
                    save: false,
                    restore: true,
                }],
            ),
        ],
    )]);
    let mut case = Case::at(Hook::Forward);
    let run = case.run(&ruleset);
    assert_eq!((run.packet.mark, case.ct.mark), (0x1, 0x11));
    assert_eq!(super::handles(&run.seen), [1, 2, 3, 4, 5]);
}

#[test]
fn routing_is_asked() {
    let fib = |result, flags| Expr::Fib {
        dreg: 0,
        result,
        flags,
    };
    let word = |n: u32| n.to_ne_bytes().to_vec();
    let case = &mut Case::at(Hook::Prerouting);
    for (result, flags, bytes) in [
        (FibResult::AddrType, 2, word(1)),
        (FibResult::Oif, 1, word(3)),
        (FibResult::Oif, 2, word(2)),
        (FibResult::Oif, 1 | 8, word(3)),
        (FibResult::OifName, 1, name("br0")),
        (FibResult::Oif, 1 | 32, vec![1]),
    ] {
        assert!(
            case.holds(&[fib(result, flags), eq(bytes)]),
            "{result:?} {flags}"
        );
    }
    // By another link than the one it came by, from an address of this host, with a mark that has no route.
    case.iif = 2;
    assert!(case.holds(&[fib(FibResult::Oif, 1 | 8), eq(word(0))]));
    case.packet.mark = 99;
    assert!(case.holds(&[fib(FibResult::Oif, 1 | 4 | 32), eq([0])]));
    case.packet.src = ip("192.0.2.1");
    assert!(case.holds(&[fib(FibResult::Oif, 1), eq(word(0))]));
    case.packet.dst = ip("192.0.2.1");
    assert!(case.holds(&[fib(FibResult::AddrType, 2), eq(word(2))]));
    assert!(case.holds(&[fib(FibResult::AddrType, 2 | 8), eq(word(2))]));
    case.iif = 3;
    assert!(case.holds(&[fib(FibResult::AddrType, 2 | 8), eq(word(1))]));
}

#[test]
fn calculations_and_ranges() {
    let case = &mut Case::at(Hook::Forward);
    let load = |bytes: &[u8]| Expr::Immediate {
        dreg: 0,
        data: bytes.to_vec(),
    };
    let range = |outside, from: u8, to: u8| Expr::Range {
        sreg: 0,
        outside,
        from: vec![from],
        to: vec![to],
    };
    assert!(case.holds(&[load(&[5]), range(false, 5, 6)]));
    assert!(!case.holds(&[load(&[5]), range(false, 6, 7)]));
    assert!(case.holds(&[load(&[5]), range(true, 6, 7)]));
    let mask = Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: vec![0xf0],
        xor: vec![1],
    };
    assert!(case.holds(&[load(&[0xab]), mask, eq([0xa1])]));
    let shift = Expr::Shift {
        sreg: 0,
        dreg: 0,
        len: 4,
        bits: 1,
    };
    let (one, two) = (1u32.to_ne_bytes(), 2u32.to_ne_bytes());
    assert!(case.holds(&[load(&one), shift, eq(two)]));
    let swap = Expr::Byteorder {
        sreg: 0,
        dreg: 0,
        len: 4,
        size: 4,
    };
    assert!(case.holds(&[load(&one), swap, eq([0, 0, 0, 1])]));
    for (exists, holds) in [(true, true), (false, false)] {
        assert_eq!(
            case.holds(&[Expr::ExtHdr { dreg: 0, exists }, eq([0])]),
            holds
        );
    }
    assert!(case.holds(&[Expr::Nothing]));
}
