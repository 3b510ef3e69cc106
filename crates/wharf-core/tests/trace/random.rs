//! Whatever the state is, the walk ends, and says something that holds together.

use proptest::prelude::*;
use wharf_core::trace::L4::{Icmp, Tcp, Udp};
use wharf_core::trace::doctor::{Severity, diagnose};
use wharf_core::trace::exposure::exposure;
use wharf_core::trace::ruleset::{ChainKind, Expr, Hook, Match, NatKind, TableFamily};
use wharf_core::trace::state::RouteKind;
use wharf_core::trace::{Query, Source, Target, Verdict, trace};

use crate::build::{World, accepts, drops, ip, matches, nat, rule};

/// One thing that is changed; numbers choose what and where.
type Change = (u8, u8, u8, u8);

const ADDRS: [&str; 8] = [
    "172.18.0.1/16",
    "172.18.0.10/16",
    "172.18.0.20/24",
    "172.19.0.1/8",
    "10.0.2.1/24",
    "192.0.2.50/32",
    "fd00:18::1/64",
    "2001:db8::50/128",
];
const SYSCTLS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.conf.all.proxy_arp",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.conf.all.accept_local",
    "net.ipv4.conf.all.route_localnet",
];
const HOOKS: [Hook; 7] = [
    Hook::Ingress,
    Hook::Egress,
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];

fn pick<T: Copy>(all: &[T], n: u8) -> T {
    all[usize::from(n) % all.len()]
}

fn change(w: &mut World, (what, a, b, c): Change) {
    let space = usize::from(a) % w.state.spaces.len();
    let links = w.state.spaces[space].links.len();
    let at = usize::from(b) % links;
    let name = w.state.spaces[space].links[at].name.clone();
    let addr = pick(&ADDRS, c);
    match what % 16 {
        0 => w.addr(space, &name, addr),
        1 => w.del_addr(space, addr),
        2 => {
            let via = addr.split('/').next();
            let dst = if addr.contains(':') {
                "default6"
            } else {
                "default"
            };
            w.route(space, dst, via, &name);
        }
        3 => {
            let kinds = [
                RouteKind::Blackhole,
                RouteKind::Unreachable,
                RouteKind::Throw,
            ];
            w.refuse(space, pick(&kinds, b), addr);
        }
        4 => w.state.spaces[space].links[at].up = false,
        5 => w.state.spaces[space].links[at].carrier = false,
        6 => {
            let master = usize::from(c) % links;
            w.state.spaces[space].links[at].master =
                Some(w.state.spaces[space].links[master].index);
        }
        7 => w.set(space, pick(&SYSCTLS, b), i64::from(c % 3)),
        8 => {
            let kinds = ["macvlan", "vlan", "vxlan", "bond", "tun", "bridge"];
            w.state.spaces[space].links[at].kind = Some(pick(&kinds, c).to_owned());
            w.state.spaces[space].links[at].lower = Some(u32::from(c));
        }
        9 => w.state.spaces[space].links[at].peer = None,
        10 => w.state.spaces[space].full = false,
        11 | 12 => {
            let hook = pick(&HOOKS, b);
            let chain = w.chain(
                space,
                TableFamily::Inet,
                "r",
                "r",
                hook,
                i32::from(c),
                c % 5 == 0,
            );
            let exprs = match c % 4 {
                0 => vec![drops()],
                1 => vec![matches(Match::Proto(6)), accepts()],
                2 => vec![Expr::Opaque("?".to_owned()), drops()],
                _ => {
                    chain.base.as_mut().unwrap().kind = ChainKind::Nat;
                    let to = addr.split('/').next();
                    match hook {
                        Hook::Postrouting => vec![nat(NatKind::Source, to, None)],
                        _ => vec![nat(NatKind::Destination, to, Some(80))],
                    }
                }
            };
            rule(chain, exprs, "random");
        }
        13 => w.state.spaces[space]
            .routes
            .retain(|r| r.metric != 0 || r.table == 255),
        14 => w.state.spaces[space].rules.clear(),
        _ => w.state.spaces[space].links[at].mtu = u32::from(c) * 8,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_ends(
        changes in prop::collection::vec(any::<Change>(), 0..12),
        ends in any::<(u8, u8, u8, bool)>(),
    ) {
        let mut w = World::demo();
        w.listen("c2", Tcp, "0.0.0.0", 80);
        for c in &changes {
            change(&mut w, *c);
        }
        let (from, to, l4, v6) = ends;
        let spaces = w.state.spaces.len();
        // One number past the spaces there are is asked too.
        let source = match from % 6 {
            5 => Source::Outside(None),
            n => Source::Space(usize::from(n) % (spaces + 1), None),
        };
        let target = match to % 8 {
            7 => Target::Outside(None),
            6 => Target::Address(ip(if v6 { "2001:db8::50" } else { "192.0.2.50" })),
            5 => Target::Address(ip(if v6 { "fd00:18::20" } else { "127.0.0.1" })),
            n => Target::Space(usize::from(n) % (spaces + 1)),
        };
        let l4 = pick(&[Icmp, Tcp, Udp], l4);
        let query = Query { source, target, l4, port: if l4 == Icmp { 0 } else { 80 } };
        let report = trace(&w.state, &query);
        prop_assert_eq!(&report, &trace(&w.state, &query));
        prop_assert!(report.also.len() < 16 && report.hops.len() < 1000);
        let whole = report.verdict == Verdict::Delivered || report.verdict == Verdict::Unknown;
        prop_assert!(whole || report.cause.is_some(), "{:#?}", report);
        prop_assert!(report.verdict != Verdict::Delivered || report.cause.is_none());
        for cause in report.cause.iter().chain(&report.also) {
            prop_assert!(!cause.object.is_empty() && !cause.summary.is_empty(), "{:#?}", cause);
            prop_assert!(!cause.evidence.is_empty() && !cause.fix.is_empty(), "{:#?}", cause);
        }
    }

    #[test]
    fn the_doctor_says_something_that_holds_together(
        changes in prop::collection::vec(any::<Change>(), 0..12),
    ) {
        let mut w = crate::doctor::lab();
        for c in &changes {
            change(&mut w, *c);
        }
        let found = diagnose(&w.state);
        prop_assert_eq!(&found, &diagnose(&w.state));
        for f in &found {
            prop_assert!(!f.object.is_empty() && !f.summary.is_empty(), "{:#?}", f);
            prop_assert!(!f.evidence.is_empty(), "{:#?}", f);
            prop_assert!(f.severity == Severity::Info || !f.fix.is_empty(), "{:#?}", f);
        }
        let ports = exposure(&w.state).ports;
        prop_assert!(ports.len() >= 3);
    }
}
