//! Any ruleset ends, without a panic, and the same way each time.

use proptest::prelude::*;
use wharf_core::trace::env::{Ending, Layer};
use wharf_core::trace::ruleset::{
    Cmp, Ct, Element, Expr, FibResult, Header, Hook, Match, Meta, NatArg, NatKind, Rule,
    RuleVerdict, Ruleset, Set, TableFamily, Value,
};

use super::{Case, base, chain, ip, packet, packet6, rule};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn name() -> impl Strategy<Value = String> {
    (0..4u8).prop_map(|i| format!("c{i}"))
}

fn verdicts() -> impl Strategy<Value = RuleVerdict> {
    prop_oneof![
        Just(RuleVerdict::Accept),
        Just(RuleVerdict::Drop),
        Just(RuleVerdict::Continue),
        Just(RuleVerdict::Return),
        name().prop_map(RuleVerdict::Jump),
        name().prop_map(RuleVerdict::Goto),
        any::<bool>().prop_map(RuleVerdict::Queue),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        Just(Header::Link),
        Just(Header::Network),
        Just(Header::Transport),
        Just(Header::Inner)
    ]
}

fn loads() -> impl Strategy<Value = Expr> {
    let size = || prop_oneof![0..40u32, any::<u32>()];
    let meta = prop_oneof![
        Just(Meta::Mark),
        Just(Meta::L4Proto),
        Just(Meta::IifName),
        Just(Meta::PktType),
        Just(Meta::OifKind),
        Just(Meta::Other(3))
    ];
    let ct = prop_oneof![
        Just(Ct::State),
        Just(Ct::Src),
        Just(Ct::Mark),
        Just(Ct::Zone)
    ];
    prop_oneof![
        (any::<u8>(), meta).prop_map(|(dreg, key)| Expr::Meta { dreg, key }),
        (any::<u8>(), ct, any::<Option<bool>>()).prop_map(|(dreg, key, reply)| Expr::Ct {
            dreg,
            key,
            reply
        }),
        (any::<u8>(), header(), size(), size()).prop_map(|(dreg, header, offset, len)| {
            Expr::Payload {
                dreg,
                header,
                offset,
                len,
            }
        }),
        (any::<u8>(), bytes()).prop_map(|(dreg, data)| Expr::Immediate { dreg, data }),
        (any::<u8>(), 0..64u32).prop_map(|(dreg, flags)| Expr::Fib {
            dreg,
            result: FibResult::Oif,
            flags
        }),
        (any::<u8>(), size()).prop_map(|(dreg, len)| Expr::Random { dreg, len }),
        (any::<u8>(), size()).prop_map(|(dreg, len)| Expr::Unread { dreg, len }),
        (any::<u8>(), any::<u8>(), bytes(), bytes()).prop_map(|(sreg, dreg, mask, xor)| {
            Expr::Bitwise {
                sreg,
                dreg,
                mask,
                xor,
            }
        }),
        (any::<u8>(), any::<u8>(), size(), any::<i32>()).prop_map(|(sreg, dreg, len, bits)| {
            Expr::Shift {
                sreg,
                dreg,
                len,
                bits,
            }
        }),
        (any::<u8>(), any::<u8>(), size(), size()).prop_map(|(sreg, dreg, len, size)| {
            Expr::Byteorder {
                sreg,
                dreg,
                len,
                size,
            }
        }),
    ]
}

fn tests() -> impl Strategy<Value = Expr> {
    let op = prop_oneof![Just(Cmp::Eq), Just(Cmp::Ne), Just(Cmp::Lt), Just(Cmp::Ge)];
    let matches = prop_oneof![
        any::<u32>().prop_map(Match::CtState),
        Just(Match::Iif("br".to_owned(), true)),
        Just(Match::Ipset("x".to_owned())),
        Just(Match::Maybe("limit".to_owned())),
        any::<(u16, u16)>().prop_map(|(a, b)| Match::Dport(a, b)),
        any::<u32>().prop_map(|types| Match::AddrType {
            src: false,
            types,
            limit_iif: true,
            limit_oif: false
        }),
    ];
    let lookup = (any::<u8>(), any::<Option<u8>>(), any::<(bool, bool)>());
    prop_oneof![
        (any::<u8>(), op, bytes()).prop_map(|(sreg, op, data)| Expr::Cmp { sreg, op, data }),
        (any::<u8>(), any::<bool>(), bytes(), bytes()).prop_map(|(sreg, outside, from, to)| {
            Expr::Range {
                sreg,
                outside,
                from,
                to,
            }
        }),
        lookup.prop_map(|(sreg, dreg, (invert, verdict))| Expr::Lookup {
            set: "s".to_owned(),
            sreg,
            dreg,
            invert,
            verdict
        }),
        (matches, any::<bool>()).prop_map(|(test, invert)| Expr::Match { test, invert }),
        Just(Expr::Opaque("x".to_owned())),
        Just(Expr::Maybe("x".to_owned())),
    ]
}

fn acts() -> impl Strategy<Value = Expr> {
    let kind = prop_oneof![
        Just(NatKind::Source),
        Just(NatKind::Destination),
        Just(NatKind::Masquerade),
        Just(NatKind::Redirect),
        Just(NatKind::Prefix { source: true }),
        Just(NatKind::Netmap("10.0.0.0/8".parse().unwrap())),
    ];
    let addr = prop_oneof![
        Just(None),
        any::<u8>().prop_map(|r| Some(NatArg::Reg(r))),
        Just(Some(NatArg::Addr(ip("10.1.1.1")))),
        Just(Some(NatArg::Port(9))),
    ];
    prop_oneof![
        4 => verdicts().prop_map(Expr::Verdict),
        1 => (kind, addr.clone(), addr).prop_map(|(kind, addr, port)| Expr::Nat { kind, addr, port }),
        1 => (any::<u8>(), header(), 0..80u32, any::<u32>())
            .prop_map(|(sreg, header, offset, len)| Expr::PayloadSet { sreg, header, offset, len }),
        1 => any::<u8>().prop_map(|sreg| Expr::MetaSet { sreg, key: Meta::Mark }),
        1 => Just(Expr::Notrack),
        1 => Just(Expr::Reject { reset: false }),
    ]
}

fn rule_strategy() -> impl Strategy<Value = Rule> {
    let middle = prop::collection::vec(prop_oneof![loads(), tests()], 0..6);
    (middle, acts()).prop_map(|(mut exprs, last)| {
        exprs.push(last);
        rule(1, exprs)
    })
}

fn ruleset(hook: Hook) -> impl Strategy<Value = Ruleset> {
    let chain_rules = || prop::collection::vec(rule_strategy(), 0..8);
    let element = (
        bytes(),
        prop::option::of(bytes()),
        prop::option::of(verdicts()),
    );
    let elements = prop::collection::vec(element, 0..12);
    let fields = prop::collection::vec(0..20u32, 0..4);
    (prop::array::uniform5(chain_rules()), elements, fields).prop_map(
        move |(all, elements, fields)| {
            let chains = all.into_iter().enumerate().map(|(i, rules)| match i {
                0 => base(hook, 0, rules),
                i => chain(&format!("c{}", i - 1), rules),
            });
            let element = |(from, to, verdict): (_, _, Option<RuleVerdict>)| Element {
                from,
                to,
                value: verdict.map(Value::Verdict),
            };
            let set = Set {
                family: TableFamily::Inet,
                table: "t".to_owned(),
                name: "s".to_owned(),
                fields,
                elements: elements.into_iter().map(element).collect(),
                default: None,
                partial: false,
            };
            Ruleset {
                chains: chains.collect(),
                sets: vec![set],
                dormant: Vec::new(),
            }
        },
    )
}

fn hooks() -> impl Strategy<Value = Hook> {
    prop_oneof![
        Just(Hook::Prerouting),
        Just(Hook::Input),
        Just(Hook::Forward),
        Just(Hook::Output),
        Just(Hook::Postrouting)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_ruleset_ends((hook, ruleset) in hooks().prop_flat_map(|h| (Just(h), ruleset(h))), six in any::<bool>()) {
        let packet = if six { packet6() } else { packet() };
        let first = Case::with(hook, packet.clone()).run(&ruleset);
        let again = Case::with(hook, packet).run(&ruleset);
        prop_assert_eq!(&first, &again);
        prop_assert!(first.ending == Ending::Accept || first.blame.is_some());
        let mut bridge = Case::at(hook);
        bridge.layer = Layer::Bridge;
        prop_assert_eq!(bridge.run(&ruleset).ending, Ending::Accept, "an inet table");
    }
}
