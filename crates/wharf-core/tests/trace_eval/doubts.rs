//! What cannot be decided: limits, chance, what was not read.

use wharf_core::trace::env::Ending;
use wharf_core::trace::ruleset::{
    Element, Expr, Hook, Match, Meta, NatArg, NatKind, RuleVerdict, Ruleset, Set, TableFamily,
    Value,
};

use super::{Case, base, chain, eq, handles, ip, jump, rule, rules, verdict};

fn forward(all: Vec<Vec<Expr>>) -> Ruleset {
    let rules_of = all.into_iter().zip(1..).map(|(e, h)| rule(h, e)).collect();
    rules(vec![base(Hook::Forward, 0, rules_of)])
}

fn maybe() -> Expr {
    Expr::Maybe("limit rate 1/second".to_owned())
}

fn opaque() -> Expr {
    Expr::Opaque("-m something".to_owned())
}

#[test]
fn a_limit_is_taken_to_hold_and_named_if_that_matters() {
    let accept = verdict(RuleVerdict::Accept);
    let drop = verdict(RuleVerdict::Drop);
    let run = Case::at(Hook::Forward).run(&forward(vec![
        vec![maybe(), accept.clone()],
        vec![drop.clone()],
    ]));
    assert_eq!((run.ending, handles(&run.maybe)), (Ending::Accept, vec![1]));
    let run = Case::at(Hook::Forward).run(&forward(vec![
        vec![maybe(), Expr::Nothing],
        vec![maybe(), accept.clone()],
        vec![accept.clone()],
    ]));
    assert_eq!((run.ending, run.maybe.len()), (Ending::Accept, 0));
    let over = Expr::Unlikely("limit rate over 1/second".to_owned());
    let run = Case::at(Hook::Forward).run(&forward(vec![vec![over, drop.clone()]]));
    assert_eq!((run.ending, handles(&run.maybe)), (Ending::Accept, vec![1]));
    let xt = |invert| Expr::Match {
        test: Match::Maybe("limit".to_owned()),
        invert,
    };
    for (invert, ending) in [(false, Ending::Drop), (true, Ending::Accept)] {
        let run = Case::at(Hook::Forward).run(&forward(vec![vec![xt(invert), drop.clone()]]));
        assert_eq!((run.ending, handles(&run.maybe)), (ending, vec![1]));
    }
}

#[test]
fn what_was_not_read_leaves_the_ending_unknown() {
    let drop = verdict(RuleVerdict::Drop);
    let ipset = Expr::Match {
        test: Match::Ipset("s".to_owned()),
        invert: true,
    };
    let unread = Expr::Unread { dreg: 0, len: 4 };
    for test in [
        vec![opaque()],
        vec![ipset],
        vec![unread, eq([1, 2, 3, 4])],
        vec![
            Expr::Meta {
                dreg: 0,
                key: Meta::Other(23),
            },
            eq([1, 2, 3, 4]),
        ],
    ] {
        let mut exprs = test;
        exprs.push(drop.clone());
        let run = Case::at(Hook::Forward).run(&forward(vec![Vec::new(), exprs.clone()]));
        assert_eq!(
            (run.ending, handles(&run.maybe)),
            (Ending::Unknown, vec![2])
        );
        assert_eq!(run.blame.unwrap().handle, Some(2));
        let run = Case::at(Hook::Forward).run(&forward(vec![exprs, vec![drop.clone()]]));
        assert_eq!(
            (run.ending, run.maybe.len()),
            (Ending::Drop, 0),
            "dropped anyway"
        );
    }
}

#[test]
fn doubts_behind_doubts_are_found() {
    let first = base(Hook::Forward, 0, vec![rule(1, vec![opaque(), jump("a")])]);
    let a = chain(
        "a",
        vec![rule(2, vec![opaque(), verdict(RuleVerdict::Drop)])],
    );
    let run = Case::at(Hook::Forward).run(&rules(vec![first, a]));
    assert_eq!(
        (run.ending, handles(&run.maybe)),
        (Ending::Unknown, vec![1, 2])
    );
}

#[test]
fn an_unknown_mark_is_remembered() {
    let set = vec![
        Expr::Unread { dreg: 0, len: 4 },
        Expr::MetaSet {
            sreg: 0,
            key: Meta::Mark,
        },
    ];
    let test = Expr::Match {
        test: Match::Mark(1, 1),
        invert: false,
    };
    let run =
        Case::at(Hook::Forward).run(&forward(vec![set, vec![test, verdict(RuleVerdict::Drop)]]));
    assert_eq!(
        (run.ending, handles(&run.maybe)),
        (Ending::Unknown, vec![2])
    );
}

#[test]
fn of_random_values_the_first_is_assumed() {
    let value = |i: u8| Element {
        from: vec![i],
        to: None,
        value: Some(Value::Bytes(vec![10, 0, 0, i])),
    };
    let map = Set {
        family: TableFamily::Inet,
        table: "t".to_owned(),
        name: "m".to_owned(),
        fields: vec![1],
        elements: vec![value(5), value(6)],
        default: None,
        partial: false,
    };
    let exprs = vec![
        Expr::Random { dreg: 0, len: 4 },
        Expr::Lookup {
            set: "m".to_owned(),
            sreg: 0,
            dreg: Some(0),
            invert: false,
            verdict: false,
        },
        Expr::Nat {
            kind: NatKind::Destination,
            addr: Some(NatArg::Reg(0)),
            port: None,
        },
    ];
    let mut ruleset = rules(vec![base(Hook::Prerouting, 0, vec![rule(1, exprs)])]);
    ruleset.sets.push(map);
    let run = Case::at(Hook::Prerouting).run(&ruleset);
    assert_eq!(run.packet.dst, ip("10.0.0.5"));
    assert_eq!((run.ending, handles(&run.maybe)), (Ending::Accept, vec![1]));
}

#[test]
fn a_set_that_was_not_read_whole_may_hold_more() {
    let set = |partial| Set {
        family: TableFamily::Inet,
        table: "t".to_owned(),
        name: "s".to_owned(),
        fields: vec![1],
        elements: Vec::new(),
        default: None,
        partial,
    };
    for (partial, ending) in [(true, Ending::Unknown), (false, Ending::Accept)] {
        let mut ruleset = forward(vec![vec![
            Expr::Immediate {
                dreg: 0,
                data: vec![1],
            },
            Expr::Lookup {
                set: "s".to_owned(),
                sreg: 0,
                dreg: None,
                invert: false,
                verdict: false,
            },
            verdict(RuleVerdict::Drop),
        ]]);
        ruleset.sets.push(set(partial));
        assert_eq!(Case::at(Hook::Forward).run(&ruleset).ending, ending);
    }
}

#[test]
fn many_doubts_are_cut_off_on_the_safe_side() {
    let many = |test: Expr| {
        let mut all = vec![vec![test, verdict(RuleVerdict::Drop)]; 1000];
        all.push(vec![verdict(RuleVerdict::Drop)]);
        forward(all)
    };
    let run = Case::at(Hook::Forward).run(&many(opaque()));
    assert_eq!(run.ending, Ending::Unknown);
    let over = Expr::Unlikely("over".to_owned());
    assert_eq!(
        Case::at(Hook::Forward).run(&many(over)).ending,
        Ending::Drop
    );
}
