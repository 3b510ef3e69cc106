//! Odd but sound: nothing is to be found where nothing is wrong.

use wharf_core::addr::Family;
use wharf_core::trace::L4::{Icmp, Tcp, Udp};
use wharf_core::trace::Verdict;
use wharf_core::trace::ruleset::{Hook, Match, TableFamily};
use wharf_core::trace::state::{NextHop, RuleAction};

use crate::build::{
    Case, HOST, World, accepts, also, check, drops, ip, matches, net, policy, rule,
};

#[test]
fn nothing_is_found() {
    check(&[
        Case {
            name: "to the outside",
            change: |_| {},
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "to the outside over IPv6",
            change: |_| {},
            ask: ("c1", "2001:db8::50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "to a wire nobody read",
            change: |w| {
                w.state.spaces.pop();
                w.get(HOST, "up0").peer = None;
            },
            ask: ("c1", "192.0.2.50", Tcp, 443),
            says: "delivered",
        },
        Case {
            name: "from outside, unread, to a service of the host",
            change: |w| {
                w.state.spaces.pop();
                w.get(HOST, "up0").peer = None;
                w.listen("host", Tcp, "0.0.0.0", 22);
            },
            ask: ("outside", "10.0.2.2", Tcp, 22),
            says: "delivered",
        },
        Case {
            name: "between containers",
            change: |w| {
                w.listen("c2", Udp, "0.0.0.0", 53);
            },
            ask: ("c1", "c2", Udp, 53),
            says: "delivered",
        },
        Case {
            name: "to oneself",
            change: |w| {
                w.listen("c1", Tcp, "127.0.0.1", 80);
            },
            ask: ("c1", "127.0.0.1", Tcp, 80),
            says: "delivered",
        },
        Case {
            name: "the host to a container",
            change: |_| {},
            ask: ("host", "c2", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a policy rule to another table that works",
            change: |w| {
                let mut r = policy(Family::V4, 100, RuleAction::Table(100));
                r.src = Some(net("172.18.0.0/16"));
                w.state.spaces[HOST].rules.push(r);
                w.route(HOST, "default", Some("10.0.2.1"), "up0");
                w.state.spaces[HOST].routes.last_mut().unwrap().table = 100;
                let mut short = policy(Family::V4, 50, RuleAction::Table(254));
                short.suppress = Some(0);
                w.state.spaces[HOST].rules.push(short);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "one of two ways is dead",
            change: |w| {
                w.del_routes(HOST, "default");
                w.route(HOST, "default", Some("10.0.2.1"), "up0");
                let link = w.index(HOST, "veth-c1");
                let hops = &mut w.state.spaces[HOST].routes.last_mut().unwrap().hops;
                let dead = NextHop {
                    via: Some(ip("10.0.9.1")),
                    link: Some(link),
                    onlink: false,
                    dead: true,
                };
                hops.insert(0, dead);
                w.set(HOST, "net.ipv4.conf.all.ignore_routes_with_linkdown", 1);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a narrow prefix in the container goes by the gateway",
            change: |w| {
                w.container("c3", "br-demo", &["172.18.5.30/16"]);
                let c1 = w.id("c1");
                w.del_addr(c1, "172.18.0.10/16");
                w.addr(c1, "eth0", "172.18.0.10/24");
            },
            ask: ("c1", "172.18.5.30", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a strict filter where the way back is the same",
            change: |w| w.set(HOST, "net.ipv4.conf.all.rp_filter", 1),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a policy of drop with the right rules",
            change: |w| {
                let chain = w.forward_policy_drop();
                rule(
                    chain,
                    vec![matches(Match::CtState(2)), accepts()],
                    "-m conntrack",
                );
                let out = vec![matches(Match::Iif("br-demo".to_owned(), false)), accepts()];
                rule(chain, out, "-i br-demo -j ACCEPT");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "br_netfilter with a rule that accepts the bridge",
            change: |w| {
                w.set(HOST, "net.bridge.bridge-nf-call-iptables", 1);
                let chain = w.forward_policy_drop();
                let inside = vec![matches(Match::Iif("br-demo".to_owned(), false)), accepts()];
                rule(chain, inside, "-i br-demo -j ACCEPT");
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a foreign route to another network",
            change: |w| w.route(HOST, "172.18.0.0/15", Some("10.0.2.1"), "up0"),
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "an unused bridge that is down, with another prefix",
            change: |w| {
                w.bridge(HOST, "br-old");
                w.addr(HOST, "br-old", "172.30.0.1/16");
                w.get(HOST, "br-old").up = false;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "delivered",
        },
    ]);
}

#[test]
fn an_odd_mtu_alone_is_no_fault() {
    let mut w = World::demo();
    for id in 0..w.state.spaces.len() {
        for link in &mut w.state.spaces[id].links {
            if link.name != "up0" && !link.loopback {
                link.mtu = 1400;
            }
        }
    }
    w.get(HOST, "up0").mtu = 1300;
    let out = w.outside();
    w.get(out, "eth0").mtu = 1300;
    let report = w.ask("c1", "192.0.2.50", Icmp, 0);
    assert_eq!(report.verdict, Verdict::Delivered);
    assert!(also(&report).is_empty(), "{report:#?}");
}

/// Unless the message that says so is dropped.
#[test]
fn a_narrow_uplink_that_nobody_tells_of() {
    let narrow = |w: &mut World| {
        w.get(HOST, "up0").mtu = 1300;
        let out = w.outside();
        w.get(out, "eth0").mtu = 1300;
    };
    let mut w = World::demo();
    narrow(&mut w);
    assert!(
        also(&w.ask("c1", "192.0.2.50", Udp, 53))
            .iter()
            .all(|c| c != "mtu-exceeded")
    );
    let c1 = w.id("c1");
    let chain = w.chain(c1, TableFamily::Inet, "f", "in", Hook::Input, 0, false);
    let test = vec![
        matches(Match::Proto(1)),
        matches(Match::IcmpType(3, 0, 255)),
        drops(),
    ];
    rule(chain, test, "icmp type destination-unreachable drop");
    w.listen("outside", Udp, "0.0.0.0", 53);
    let report = w.ask("c1", "192.0.2.50", Udp, 53);
    assert_eq!(report.verdict, Verdict::Delivered, "{report:#?}");
    assert_eq!(also(&report), ["mtu-exceeded"]);
    assert_eq!(report.also[0].object, "inet f in handle 2");
    // Echoes pass that rule, and answers to them too.
    assert_eq!(also(&w.ask("c1", "192.0.2.50", Icmp, 0)), ["mtu-exceeded"]);
    // A connection keeps to the smaller end's size and needs no message.
    w.listen("outside", Tcp, "0.0.0.0", 80);
    assert!(also(&w.ask("c1", "192.0.2.50", Tcp, 80)).is_empty());
}

/// What only the program can know is a note.
#[test]
fn an_answer_from_another_address() {
    let mut w = World::demo();
    w.listen("host", Udp, "0.0.0.0", 53);
    let report = w.ask("c1", "10.0.2.2", Udp, 53);
    assert_eq!(report.verdict, Verdict::Delivered);
    assert!(
        report.notes[0].contains("answers from 172.18.0.1"),
        "{report:#?}"
    );
    assert!(w.ask("c1", "172.18.0.1", Udp, 53).notes.is_empty());
}

#[test]
fn hundreds_of_other_rules_change_nothing() {
    let mut w = World::demo();
    let chain = w.chain(HOST, TableFamily::Inet, "f", "fwd", Hook::Forward, 0, false);
    for n in 0..500u16 {
        let test = vec![
            matches(Match::Proto(6)),
            matches(Match::Dport(n, n)),
            drops(),
        ];
        rule(chain, test, "tcp dport N drop");
    }
    w.listen("outside", Tcp, "0.0.0.0", 8080);
    let report = w.ask("c1", "192.0.2.50", Tcp, 8080);
    assert_eq!(report.verdict, Verdict::Delivered, "{report:#?}");
    assert!(also(&report).is_empty());
}

/// The hops tell the way there and back, and where addresses were changed.
#[test]
fn the_way_is_told() {
    let report = World::demo().ask("c1", "192.0.2.50", Icmp, 0);
    let stages: Vec<&str> = report
        .hops
        .iter()
        .filter(|h| !h.reply)
        .map(|h| h.stage.as_str())
        .collect();
    assert_eq!(
        stages,
        [
            "source",
            "route",
            "neighbour",
            "bridge",
            "route",
            "nat",
            "neighbour",
            "socket"
        ]
    );
    assert!(report.hops.iter().any(|h| h.reply && h.stage == "nat"));
}
