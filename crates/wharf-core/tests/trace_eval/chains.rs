//! Base chains in order, jumps, policies, verdicts.

use wharf_core::trace::env::{Ending, Layer};
use wharf_core::trace::ruleset::{Backend, Chain, ChainKind, Expr, Hook, RuleVerdict, TableFamily};

use super::{Case, base, chain, handles, jump, packet6, rule, rules, verdict};

fn one(handle: u64, what: RuleVerdict) -> Vec<wharf_core::trace::ruleset::Rule> {
    vec![rule(handle, vec![verdict(what)])]
}

#[test]
fn an_accept_ends_its_base_chain_only() {
    let ruleset = rules(vec![
        base(Hook::Forward, 10, one(3, RuleVerdict::Drop)),
        base(Hook::Forward, -10, one(1, RuleVerdict::Accept)),
        base(Hook::Forward, 0, one(2, RuleVerdict::Accept)),
        base(Hook::Input, -20, one(4, RuleVerdict::Drop)),
    ]);
    let run = Case::at(Hook::Forward).run(&ruleset);
    assert_eq!(run.ending, Ending::Drop);
    assert_eq!(handles(&run.seen), [1, 2]);
    let blame = run.blame.unwrap();
    assert_eq!((blame.handle, blame.base.as_str()), (Some(3), "base10"));
    let run = Case::at(Hook::Input).run(&ruleset);
    assert_eq!(run.blame.unwrap().handle, Some(4));
    let run = Case::at(Hook::Output).run(&ruleset);
    assert_eq!((run.ending, run.blame), (Ending::Accept, None));
}

#[test]
fn policies_of_both_kinds_have_their_text() {
    let mut nft = base(Hook::Forward, 0, Vec::new());
    nft.base.as_mut().unwrap().drops = true;
    let legacy = Chain {
        backend: Backend::Legacy,
        family: TableFamily::Ip,
        name: "FORWARD".to_owned(),
        ..nft.clone()
    };
    let run = Case::at(Hook::Forward).run(&rules(vec![nft.clone()]));
    let blame = run.blame.unwrap();
    assert_eq!((run.ending, blame.handle), (Ending::Drop, None));
    assert_eq!(blame.text, "policy drop");
    let run = Case::at(Hook::Forward).run(&rules(vec![legacy.clone()]));
    assert_eq!(run.blame.unwrap().text, "-P FORWARD DROP");
    let run = Case::with(Hook::Forward, packet6()).run(&rules(vec![legacy]));
    assert_eq!(run.ending, Ending::Accept, "an IPv4 table");
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let goto = |to: &str| verdict(RuleVerdict::Goto(to.to_owned()));
    let mut first = base(
        Hook::Forward,
        0,
        vec![
            rule(1, vec![jump("a")]),
            rule(2, vec![verdict(RuleVerdict::Drop)]),
        ],
    );
    let ruleset = |first: &Chain, a: Expr, b: RuleVerdict| {
        let a = vec![
            rule(3, vec![a]),
            rule(4, vec![Expr::Reject { reset: true }]),
        ];
        rules(vec![first.clone(), chain("a", a), chain("b", one(5, b))])
    };
    let ending = |r: &_| Case::at(Hook::Forward).run(r).ending;
    let go_on = RuleVerdict::Continue;
    assert_eq!(
        ending(&ruleset(&first, jump("b"), go_on.clone())),
        Ending::Reject
    );
    assert_eq!(
        ending(&ruleset(&first, goto("b"), go_on.clone())),
        Ending::Drop
    );
    let back = RuleVerdict::Return;
    assert_eq!(
        ending(&ruleset(&first, jump("b"), back.clone())),
        Ending::Reject
    );
    assert_eq!(
        ending(&ruleset(&first, verdict(back.clone()), go_on.clone())),
        Ending::Drop
    );
    assert_eq!(
        ending(&ruleset(&first, jump("b"), RuleVerdict::Accept)),
        Ending::Accept
    );
    // From a base chain: a goto that ends leads to the policy, and so does a return.
    first.rules[0].exprs = vec![goto("b")];
    assert_eq!(
        ending(&ruleset(&first, jump("b"), go_on.clone())),
        Ending::Accept
    );
    first.rules[0].exprs = vec![verdict(back)];
    first.base.as_mut().unwrap().drops = true;
    let run = Case::at(Hook::Forward).run(&ruleset(&first, jump("b"), go_on));
    assert_eq!(run.blame.unwrap().handle, None);
}

/// Chains `0`, `1`, … each of which jumps to the next, the last of which accepts.
fn nested(depth: usize) -> wharf_core::trace::ruleset::Ruleset {
    let mut chains = vec![base(Hook::Forward, 0, vec![rule(1, vec![jump("0")])])];
    for i in 0..depth {
        let next = if i + 1 == depth {
            verdict(RuleVerdict::Accept)
        } else {
            jump(&(i + 1).to_string())
        };
        chains.push(chain(&i.to_string(), vec![rule(1, vec![next])]));
    }
    rules(chains)
}

#[test]
fn sixteen_jumps_and_no_more() {
    assert_eq!(
        Case::at(Hook::Forward).run(&nested(16)).ending,
        Ending::Accept
    );
    assert_eq!(
        Case::at(Hook::Forward).run(&nested(17)).ending,
        Ending::Drop
    );
    let mut legacy = nested(17);
    for chain in &mut legacy.chains {
        (chain.backend, chain.family) = (Backend::Legacy, TableFamily::Ip);
    }
    assert_eq!(Case::at(Hook::Forward).run(&legacy).ending, Ending::Accept);
}

#[test]
fn loops_end() {
    let round = rules(vec![
        base(Hook::Forward, 0, vec![rule(1, vec![jump("a")])]),
        chain(
            "a",
            vec![rule(2, vec![verdict(RuleVerdict::Goto("a".to_owned()))])],
        ),
    ]);
    assert_eq!(Case::at(Hook::Forward).run(&round).ending, Ending::Unknown);
}

#[test]
fn what_leaves_the_rules_cannot_be_told() {
    for (expr, ending, doubts) in [
        (verdict(RuleVerdict::Queue(false)), Ending::Unknown, 0),
        (verdict(RuleVerdict::Queue(true)), Ending::Accept, 1),
        (verdict(RuleVerdict::Stolen), Ending::Unknown, 0),
        (
            Expr::Tproxy {
                port: None,
                drops: true,
            },
            Ending::Drop,
            0,
        ),
        (Expr::Reject { reset: true }, Ending::Reject, 0),
    ] {
        let ruleset = rules(vec![base(Hook::Forward, 0, vec![rule(1, vec![expr])])]);
        let run = Case::at(Hook::Forward).run(&ruleset);
        assert_eq!((run.ending, run.maybe.len()), (ending, doubts));
        assert_eq!(run.blame.unwrap().handle, Some(1));
    }
}

#[test]
fn layers_and_families_see_their_own() {
    let drops = |family| Chain {
        family,
        ..base(Hook::Forward, 0, one(1, RuleVerdict::Drop))
    };
    for (family, layer, sees) in [
        (TableFamily::Inet, Layer::Ip, true),
        (TableFamily::Ip, Layer::Ip, true),
        (TableFamily::Ip6, Layer::Ip, false),
        (TableFamily::Bridge, Layer::Ip, false),
        (TableFamily::Arp, Layer::Ip, false),
        (TableFamily::Bridge, Layer::Bridge, true),
        (TableFamily::Inet, Layer::Bridge, false),
        (TableFamily::Inet, Layer::Device("veth1"), false),
    ] {
        let mut case = Case::at(Hook::Forward);
        case.layer = layer;
        let ending = case.run(&rules(vec![drops(family)])).ending;
        assert_eq!(ending == Ending::Drop, sees, "{family:?} {layer:?}");
    }
}

#[test]
fn nat_chains_run_where_nat_does_and_for_first_packets() {
    let mut nat = base(Hook::Postrouting, 0, one(1, RuleVerdict::Drop));
    nat.base.as_mut().unwrap().kind = ChainKind::Nat;
    let late = base(Hook::Postrouting, 50, one(2, RuleVerdict::Drop));
    let ruleset = rules(vec![nat, late]);
    let run = Case::at(Hook::Postrouting).run(&ruleset);
    assert_eq!(
        run.blame.unwrap().handle,
        Some(2),
        "nat is at 100, whatever its priority"
    );
    let only = rules(vec![ruleset.chains[0].clone()]);
    let mut case = Case::at(Hook::Postrouting);
    assert_eq!(case.run(&only).ending, Ending::Drop);
    case.ct = super::fresh(&case.packet);
    case.ct.state = 2;
    assert_eq!(case.run(&only).ending, Ending::Accept);
}
