//! Sets and maps, small and large.

use wharf_core::trace::env::Ending;
use wharf_core::trace::ruleset::{
    Element, Expr, Header, Hook, RuleVerdict, Ruleset, Set, TableFamily, Value,
};

use super::{Case, base, rule};

fn set(fields: &[u32], elements: Vec<Element>) -> Set {
    Set {
        family: TableFamily::Inet,
        table: "t".to_owned(),
        name: "s".to_owned(),
        fields: fields.to_vec(),
        elements,
        default: None,
        partial: false,
    }
}

fn element(from: &[u8], to: Option<&[u8]>) -> Element {
    Element {
        from: from.to_vec(),
        to: to.map(<[u8]>::to_vec),
        value: None,
    }
}

fn load(dreg: u8, header: Header, offset: u32, len: u32) -> Expr {
    Expr::Payload {
        dreg,
        header,
        offset,
        len,
    }
}

fn lookup(invert: bool) -> Expr {
    Expr::Lookup {
        set: "s".to_owned(),
        sreg: 0,
        dreg: None,
        invert,
        verdict: false,
    }
}

/// So many elements that an index is used.
fn padding(len: usize) -> Vec<Element> {
    (0..50u8).map(|i| element(&vec![i; len], None)).collect()
}

#[test]
fn keys_and_ranges() {
    let dport = load(0, Header::Transport, 2, 2);
    for pad in [Vec::new(), padding(2)] {
        let with = |e: Element| {
            let mut all = pad.clone();
            all.push(e);
            vec![set(&[2], all)]
        };
        for (e, holds) in [
            (element(&[0, 80], None), true),
            (element(&[0, 81], None), false),
            (element(&[0, 70], Some(&[0, 80])), true),
            (element(&[0, 80], Some(&[0, 90])), true),
            (element(&[0, 81], Some(&[0, 90])), false),
            (element(&[0, 70], Some(&[0, 79])), false),
        ] {
            let case = &mut Case::at(Hook::Forward);
            let there = case.holds_with(&[dport.clone(), lookup(false)], with(e.clone()));
            let not = case.holds_with(&[dport.clone(), lookup(true)], with(e.clone()));
            assert_eq!((there, not), (holds, !holds), "{e:?}");
        }
    }
}

#[test]
fn concatenations_with_ranges_in_each_field() {
    let exprs = [
        load(0, Header::Network, 16, 4),
        load(4, Header::Transport, 2, 2),
        lookup(false),
    ];
    for pad in [Vec::new(), padding(8)] {
        for (from, to, holds) in [
            (
                [203, 0, 113, 0, 0, 80, 0, 0],
                [203, 0, 113, 255, 0, 90, 0, 0],
                true,
            ),
            (
                [203, 0, 113, 5, 0, 80, 0, 0],
                [203, 0, 113, 5, 0, 80, 0, 0],
                true,
            ),
            (
                [203, 0, 113, 0, 0, 81, 0, 0],
                [203, 0, 114, 0, 0, 90, 0, 0],
                false,
            ),
            (
                [203, 0, 113, 6, 0, 0, 0, 0],
                [203, 0, 113, 9, 255, 255, 0, 0],
                false,
            ),
        ] {
            let mut all = pad.clone();
            all.push(element(&from, Some(&to)));
            let case = &mut Case::at(Hook::Forward);
            assert_eq!(
                case.holds_with(&exprs, vec![set(&[4, 2], all)]),
                holds,
                "{from:?}"
            );
        }
    }
}

fn map(values: &[(u8, Value)], default: Option<Value>, dreg: Option<u8>) -> Ruleset {
    let mut maps = set(&[1], Vec::new());
    maps.default = default.map(Some);
    maps.elements = values
        .iter()
        .map(|(key, value)| Element {
            value: Some(value.clone()),
            ..element(&[*key], None)
        })
        .collect();
    let find = Expr::Lookup {
        set: "s".to_owned(),
        sreg: 0,
        dreg,
        invert: false,
        verdict: dreg.is_none(),
    };
    let mut exprs = vec![load(0, Header::Network, 9, 1), find];
    if dreg.is_some() {
        exprs.extend([super::eq([7, 7]), super::verdict(RuleVerdict::Drop)]);
    }
    Ruleset {
        chains: vec![
            base(
                Hook::Forward,
                0,
                vec![rule(1, exprs), rule(2, vec![Expr::Reject { reset: false }])],
            ),
            super::chain(
                "c",
                vec![rule(3, vec![super::verdict(RuleVerdict::Accept)])],
            ),
        ],
        sets: vec![maps],
        dormant: Vec::new(),
    }
}

#[test]
fn maps_give_values_and_verdicts() {
    let ending = |ruleset: &Ruleset| Case::at(Hook::Forward).run(ruleset).ending;
    let verdict = Value::Verdict;
    let to_c = RuleVerdict::Jump("c".to_owned());
    assert_eq!(
        ending(&map(&[(6, verdict(to_c.clone()))], None, None)),
        Ending::Accept
    );
    assert_eq!(
        ending(&map(&[(6, verdict(RuleVerdict::Drop))], None, None)),
        Ending::Drop
    );
    assert_eq!(
        ending(&map(&[(17, verdict(RuleVerdict::Drop))], None, None)),
        Ending::Reject
    );
    let other = Some(verdict(RuleVerdict::Drop));
    assert_eq!(
        ending(&map(&[(17, verdict(to_c))], other, None)),
        Ending::Drop
    );
    let bytes = |b: u8| Value::Bytes(vec![b, b]);
    assert_eq!(ending(&map(&[(6, bytes(7))], None, Some(0))), Ending::Drop);
    assert_eq!(
        ending(&map(&[(6, bytes(8))], None, Some(0))),
        Ending::Reject
    );
    assert_eq!(ending(&map(&[], Some(bytes(7)), Some(0))), Ending::Drop);
}
