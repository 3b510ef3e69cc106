//! Translations.

use std::net::IpAddr;

use wharf_core::trace::env::{Ending, Run};
use wharf_core::trace::packet::L4;
use wharf_core::trace::ruleset::{
    ChainKind, Expr, Hook, NatArg, NatKind, Rule, RuleVerdict, Ruleset,
};

use super::{Case, base, ip, packet, packet6, rule, rules, verdict};

fn nat(kind: NatKind, addr: Option<NatArg>, port: Option<NatArg>) -> Expr {
    Expr::Nat { kind, addr, port }
}

fn table(hook: Hook, all: Vec<Rule>) -> Ruleset {
    let mut chain = base(hook, -100, all);
    chain.base.as_mut().unwrap().kind = ChainKind::Nat;
    rules(vec![chain])
}

fn run(case: &mut Case, exprs: Vec<Expr>) -> Run {
    let hook = case.hook;
    case.run(&table(hook, vec![rule(1, exprs)]))
}

/// What the packet's ends are afterwards, without ports.
fn ends(run: &Run) -> (IpAddr, IpAddr) {
    (run.packet.src, run.packet.dst)
}

#[test]
fn a_destination_from_registers() {
    let case = &mut Case::at(Hook::Prerouting);
    let load = |dreg, data: &[u8]| Expr::Immediate {
        dreg,
        data: data.to_vec(),
    };
    let exprs = vec![
        load(0, &[10, 0, 0, 7]),
        load(16, &[0x1f, 0x90]),
        nat(
            NatKind::Destination,
            Some(NatArg::Reg(0)),
            Some(NatArg::Reg(16)),
        ),
    ];
    let out = run(case, exprs);
    assert_eq!(ends(&out), (packet().src, ip("10.0.0.7")));
    assert_eq!((out.packet.dport, out.packet.sport), (8080, 40000));
    let made = &out.translations[0];
    assert_eq!(
        (made.source, made.addr, made.port),
        (false, ip("10.0.0.7"), Some(8080))
    );
    assert_eq!((made.how, made.rule.handle), ("dnat", Some(1)));
    assert_eq!(
        (case.ct.reply.src, case.ct.reply.sport),
        (ip("10.0.0.7"), 8080)
    );
    assert_eq!(
        (case.ct.original.dst, case.ct.status),
        (packet().dst, 0x120)
    );
}

#[test]
fn the_first_translation_is_the_only_one() {
    let dnat = |to: &str| nat(NatKind::Destination, Some(NatArg::Addr(ip(to))), None);
    let mut two = table(Hook::Prerouting, vec![rule(1, vec![dnat("10.0.0.7")])]);
    two.chains
        .extend(table(Hook::Prerouting, vec![rule(2, vec![dnat("10.0.0.8")])]).chains);
    let case = &mut Case::at(Hook::Prerouting);
    let out = case.run(&two);
    // Of chains of one priority the kernel calls the youngest first.
    assert_eq!(
        (out.packet.dst, out.translations.len()),
        (ip("10.0.0.8"), 1)
    );
    let again = case.run(&two);
    assert_eq!(
        (again.packet.dst, again.translations.len()),
        (packet().dst, 0),
        "settled"
    );
    // A hook where no rule translates settles it too.
    let none = table(
        Hook::Prerouting,
        vec![rule(1, vec![verdict(RuleVerdict::Return)])],
    );
    let case = &mut Case::at(Hook::Prerouting);
    case.run(&none);
    assert_eq!(case.run(&two).translations.len(), 0);
}

#[test]
fn later_chains_of_the_hook_see_the_new_address() {
    let dnat = nat(
        NatKind::Destination,
        Some(NatArg::Addr(ip("10.0.0.7"))),
        None,
    );
    let mut ruleset = table(Hook::Prerouting, vec![rule(1, vec![dnat])]);
    let dst = wharf_core::trace::ruleset::Match::Dst(ip("10.0.0.7"), ip("255.255.255.255"));
    let test = Expr::Match {
        test: dst,
        invert: false,
    };
    ruleset.chains.push(base(
        Hook::Prerouting,
        0,
        vec![rule(2, vec![test, verdict(RuleVerdict::Drop)])],
    ));
    let out = Case::at(Hook::Prerouting).run(&ruleset);
    assert_eq!(out.blame.unwrap().handle, Some(2));
}

#[test]
fn masquerade_takes_the_address_next_to_the_next_hop() {
    let masquerade = vec![nat(NatKind::Masquerade, None, None)];
    let case = &mut Case::at(Hook::Postrouting);
    assert_eq!(run(case, masquerade.clone()).packet.src, ip("198.51.100.1"));
    assert_eq!(case.ct.reply.dst, ip("198.51.100.1"));
    let mut near = packet();
    near.dst = ip("192.0.2.77");
    let case = &mut Case::with(Hook::Postrouting, near);
    assert_eq!(
        run(case, masquerade.clone()).packet.src,
        ip("198.51.100.1"),
        "by the route"
    );
    case.ct = super::fresh(&case.packet);
    case.space.routes.clear();
    assert_eq!(run(case, masquerade.clone()).packet.src, ip("192.0.2.1"));
    let case = &mut Case::with(Hook::Postrouting, packet6());
    assert_eq!(run(case, masquerade.clone()).packet.src, ip("2001:db8::2"));
    let case = &mut Case::at(Hook::Postrouting);
    case.space.addrs.clear();
    assert_eq!(run(case, masquerade).ending, Ending::Drop);
}

#[test]
fn redirect_takes_an_address_of_this_host() {
    let redirect = vec![nat(NatKind::Redirect, None, Some(NatArg::Port(3128)))];
    let out = run(&mut Case::at(Hook::Prerouting), redirect.clone());
    assert_eq!((out.packet.dst, out.packet.dport), (ip("10.0.0.1"), 3128));
    let out = run(
        &mut Case::with(Hook::Prerouting, packet6()),
        redirect.clone(),
    );
    assert_eq!(out.packet.dst, ip("fd00::1"));
    let out = run(&mut Case::at(Hook::Output), redirect.clone());
    assert_eq!(out.packet.dst, ip("127.0.0.1"));
    let out = run(&mut Case::with(Hook::Output, packet6()), redirect);
    assert_eq!(out.packet.dst, ip("::1"));
}

#[test]
fn prefixes_keep_the_host_part() {
    let net = NatKind::Netmap("172.16.0.0/16".parse().unwrap());
    let out = run(
        &mut Case::at(Hook::Prerouting),
        vec![nat(net.clone(), None, None)],
    );
    assert_eq!(out.packet.dst, ip("172.16.113.5"));
    let out = run(&mut Case::at(Hook::Postrouting), vec![nat(net, None, None)]);
    assert_eq!(ends(&out), (ip("172.16.0.2"), packet().dst));
    let load = |dreg, data: [u8; 4]| Expr::Immediate {
        dreg,
        data: data.to_vec(),
    };
    let exprs = vec![
        load(0, [10, 8, 0, 0]),
        load(16, [10, 8, 0, 255]),
        nat(
            NatKind::Prefix { source: true },
            Some(NatArg::Regs(0, 16)),
            None,
        ),
    ];
    assert_eq!(
        run(&mut Case::at(Hook::Postrouting), exprs).packet.src,
        ip("10.8.0.2")
    );
}

#[test]
fn ranges_keep_what_lies_inside() {
    let addrs = |a: &str, b: &str| Some(NatArg::Addrs(ip(a), ip(b)));
    let snat = nat(
        NatKind::Source,
        addrs("10.0.0.1", "10.0.0.9"),
        Some(NatArg::Ports(1, 50000)),
    );
    let out = run(&mut Case::at(Hook::Postrouting), vec![snat]);
    assert_eq!((out.packet.src, out.packet.sport), (packet().src, 40000));
    assert!(out.translations.is_empty() && out.maybe.is_empty());
    let dnat = nat(NatKind::Destination, addrs("10.0.0.1", "10.0.0.9"), None);
    let out = run(&mut Case::at(Hook::Prerouting), vec![dnat]);
    assert_eq!((out.packet.dst, out.maybe.len()), (ip("10.0.0.1"), 1));
    let mut echo = packet();
    echo.l4 = L4::Icmp;
    let dnat = nat(NatKind::Destination, None, Some(NatArg::Port(5)));
    let out = run(&mut Case::with(Hook::Prerouting, echo.clone()), vec![dnat]);
    assert_eq!(out.packet, echo, "an echo has no ports");
}

#[test]
fn an_unread_target_cannot_be_told() {
    let exprs = vec![
        Expr::Unread { dreg: 0, len: 4 },
        nat(NatKind::Destination, Some(NatArg::Reg(0)), None),
    ];
    assert_eq!(
        run(&mut Case::at(Hook::Prerouting), exprs).ending,
        Ending::Unknown
    );
}
