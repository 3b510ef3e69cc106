//! The worked examples, as far as they need no live host.

use wharf_core::addr::Mac;
use wharf_core::trace::L4::{Icmp, Tcp, Udp};
use wharf_core::trace::report::Owner;
use wharf_core::trace::ruleset::{
    Backend, ChainKind, Expr, Hook, Match, NatKind, RuleVerdict, TableFamily,
};
use wharf_core::trace::state::{Neighbour, NeighbourState, RouteKind};

use crate::build::{Case, HOST, World, also, check, drops, ip, line, matches, nat, rule};

/// 7 to 12 and the simple ones, on the demo host.
#[test]
fn on_the_demo_host() {
    check(&[
        Case {
            name: "1: forwarding off",
            change: |w| w.set(HOST, "net.ipv4.ip_forward", 0),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped forwarding-disabled host net.ipv4.ip_forward",
        },
        Case {
            name: "1: off for one interface",
            change: |w| w.set(HOST, "net.ipv4.conf.br-demo.forwarding", 0),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped forwarding-disabled host net.ipv4.conf.br-demo.forwarding",
        },
        Case {
            name: "2: no masquerade",
            change: |w| w.state.spaces[HOST].ruleset.chains.clear(),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered no-masquerade host up0",
        },
        Case {
            name: "2: no masquerade, towards a wire nobody read",
            change: |w| {
                w.state.spaces[HOST].ruleset.chains.clear();
                w.state.spaces.pop();
                w.get(HOST, "up0").peer = None;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered no-masquerade host up0",
        },
        Case {
            name: "3: no default route",
            change: |w| {
                let c1 = w.id("c1");
                w.del_routes(c1, "default");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped no-route c1 192.0.2.50",
        },
        Case {
            name: "5: off the bridge",
            change: |w| w.get(HOST, "veth-c2").master = None,
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "dropped not-on-bridge host veth-c2",
        },
        Case {
            name: "5: on another bridge",
            change: |w| {
                w.bridge(HOST, "br-old");
                w.plug(HOST, "veth-c2", "br-old");
            },
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "dropped not-on-bridge host veth-c2",
        },
        Case {
            name: "6: shut by hand",
            change: |w| {
                w.get(HOST, "veth-c2").up = false;
                w.get(HOST, "veth-c2").carrier = false;
                let c2 = w.id("c2");
                w.get(c2, "eth0").carrier = false;
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped link-down host veth-c2",
        },
        Case {
            name: "7: Docker's policy",
            change: |w| {
                let chain = w.forward_policy_drop();
                chain.owner = Owner::Docker;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped firewall-policy host ip filter FORWARD",
        },
        Case {
            name: "8: a rule",
            change: |w| {
                w.listen("outside", Tcp, "0.0.0.0", 80);
                let chain = w.chain(
                    HOST,
                    TableFamily::Inet,
                    "f",
                    "fwd-in",
                    Hook::Forward,
                    0,
                    false,
                );
                let test = vec![
                    matches(Match::Proto(6)),
                    matches(Match::Dport(80, 80)),
                    drops(),
                ];
                rule(chain, test, "tcp dport 80 drop").handle = 4;
            },
            ask: ("c1", "192.0.2.50", Tcp, 80),
            says: "dropped firewall-rule host inet f fwd-in handle 4",
        },
        Case {
            name: "8: a reject",
            change: |w| {
                w.listen("outside", Tcp, "0.0.0.0", 80);
                let chain = w.chain(
                    HOST,
                    TableFamily::Inet,
                    "f",
                    "fwd-in",
                    Hook::Forward,
                    0,
                    false,
                );
                rule(chain, vec![Expr::Reject { reset: true }], "reject").handle = 4;
            },
            ask: ("c1", "192.0.2.50", Tcp, 80),
            says: "rejected firewall-rule host inet f fwd-in handle 4",
        },
        Case {
            name: "8: a rule for the answer only",
            change: |w| {
                w.listen("outside", Tcp, "0.0.0.0", 80);
                let chain = w.chain(
                    HOST,
                    TableFamily::Inet,
                    "f",
                    "fwd-in",
                    Hook::Forward,
                    0,
                    false,
                );
                let test = vec![
                    matches(Match::Proto(6)),
                    matches(Match::Sport(80, 80)),
                    drops(),
                ];
                rule(chain, test, "tcp sport 80 drop").handle = 4;
            },
            ask: ("c1", "192.0.2.50", Tcp, 80),
            says: "unanswered firewall-rule host inet f fwd-in handle 4",
        },
        Case {
            name: "8: a rule inside the container",
            change: |w| {
                w.listen("c2", Tcp, "0.0.0.0", 80);
                let c2 = w.id("c2");
                let chain = w.chain(c2, TableFamily::Inet, "f", "in", Hook::Input, 0, false);
                rule(chain, vec![drops()], "drop").handle = 4;
            },
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "dropped firewall-rule c2 inet f in handle 4",
        },
        Case {
            name: "9: loopback only",
            change: |w| {
                w.listen("host", Tcp, "127.0.0.1", 5432);
            },
            ask: ("c1", "172.18.0.1", Tcp, 5432),
            says: "rejected listening-elsewhere host 127.0.0.1:5432",
        },
        Case {
            name: "9: nothing",
            change: |_| {},
            ask: ("c1", "172.18.0.1", Tcp, 5432),
            says: "rejected not-listening host 5432/tcp",
        },
        Case {
            name: "11: pinned neighbour",
            change: |w| {
                let c1 = w.id("c1");
                let link = w.index(c1, "eth0");
                w.state.spaces[c1].neighbours.push(Neighbour {
                    link,
                    addr: ip("fd00:18::1"),
                    mac: Some(Mac([2, 0, 0, 0, 0, 0x99])),
                    state: NeighbourState::Permanent,
                    proxy: false,
                });
            },
            ask: ("c1", "2001:db8::50", Icmp, 0),
            says: "dropped neighbour-wrong c1 fd00:18::1 dev eth0 lladdr 02:00:00:00:00:99",
        },
        Case {
            name: "12: bridge netfilter",
            change: |w| {
                w.listen("c2", Udp, "0.0.0.0", 53);
                w.set(HOST, "net.bridge.bridge-nf-call-iptables", 1);
                let chain = w.chain(
                    HOST,
                    TableFamily::Ip,
                    "filter",
                    "FORWARD",
                    Hook::Forward,
                    0,
                    false,
                );
                chain.backend = Backend::Legacy;
                rule(
                    chain,
                    vec![matches(Match::Proto(17)), drops()],
                    "-p udp -j DROP",
                );
            },
            ask: ("c1", "172.18.0.20", Udp, 53),
            says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
        },
        Case {
            name: "12: at 0",
            change: |w| {
                w.listen("c2", Udp, "0.0.0.0", 53);
                let chain = w.chain(
                    HOST,
                    TableFamily::Ip,
                    "filter",
                    "FORWARD",
                    Hook::Forward,
                    0,
                    false,
                );
                rule(
                    chain,
                    vec![matches(Match::Proto(17)), drops()],
                    "-p udp -j DROP",
                );
            },
            ask: ("c1", "172.18.0.20", Udp, 53),
            says: "delivered",
        },
        Case {
            name: "14: old address",
            change: |w| {
                let chain = w.chain(
                    HOST,
                    TableFamily::Ip,
                    "hand",
                    "pre",
                    Hook::Prerouting,
                    -100,
                    false,
                );
                chain.base.as_mut().unwrap().kind = ChainKind::Nat;
                let exprs = vec![
                    matches(Match::Proto(6)),
                    matches(Match::Dport(8080, 8080)),
                    nat(NatKind::Destination, Some("172.18.0.77"), None),
                ];
                rule(chain, exprs, "dnat to tcp dport map { 8080 : 172.18.0.77 }").handle = 3;
            },
            ask: ("outside", "10.0.2.2", Tcp, 8080),
            says: "dropped publish-shadowed host ip hand pre handle 3",
        },
    ]);
}

#[test]
fn fixes_are_commands_that_mend() {
    let mut w = World::demo();
    let c1 = w.id("c1");
    w.del_routes(c1, "default");
    let report = w.ask("c1", "192.0.2.50", Icmp, 0);
    let fix = report.cause.unwrap().fix;
    assert_eq!(
        fix,
        ["ip netns exec c1 ip route add default via 172.18.0.1"]
    );

    let mut w = World::demo();
    let chain = w.forward_policy_drop();
    chain.owner = Owner::Docker;
    let mut user = chain.clone();
    (user.name, user.base) = ("DOCKER-USER".to_owned(), None);
    let jump = Expr::Verdict(RuleVerdict::Jump(user.name.clone()));
    rule(chain, vec![jump], "-j DOCKER-USER");
    w.state.spaces[HOST].ruleset.chains.push(user);
    let fix = w.ask("c1", "192.0.2.50", Icmp, 0).cause.unwrap().fix;
    assert_eq!(
        fix,
        [
            "iptables -I DOCKER-USER -i br-demo -j ACCEPT",
            "iptables -I DOCKER-USER -o br-demo -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ]
    );

    let mut w = World::demo();
    w.get(HOST, "veth-c2").master = None;
    let fix = w.ask("c1", "172.18.0.20", Tcp, 80).cause.unwrap().fix;
    assert_eq!(fix, ["ip link set veth-c2 master br-demo"]);
}

/// 4: no bridge, two cables with one prefix.
#[test]
fn two_cables_one_subnet() {
    let mut w = World::empty();
    for (name, own, addr) in [
        ("1", "172.18.0.11/16", "172.18.0.10/16"),
        ("2", "172.18.0.21/16", "172.18.0.20/16"),
    ] {
        let id = w.space(
            &format!("/run/netns/c{name}"),
            &format!("ip netns exec c{name} "),
        );
        w.cable(
            HOST,
            &format!("veth{}", if name == "1" { 0 } else { 1 }),
            id,
            "eth0",
        );
        w.addr(
            HOST,
            &format!("veth{}", if name == "1" { 0 } else { 1 }),
            own,
        );
        w.addr(id, "eth0", addr);
    }
    let report = w.ask("host", "172.18.0.20", Icmp, 0);
    assert_eq!(
        line(&report),
        "dropped route-conflict host 172.18.0.0/16 dev veth0"
    );
    let report = w.ask("c2", "172.18.0.21", Icmp, 0);
    assert_eq!(
        line(&report),
        "unanswered route-conflict host 172.18.0.0/16 dev veth0"
    );
    assert_eq!(line(&w.ask("c1", "172.18.0.11", Icmp, 0)), "delivered");
}

/// 10: a second uplink with a strict filter.
#[test]
fn reverse_path() {
    let world = |filter| {
        let mut w = World::demo();
        let out = w.outside();
        w.cable(HOST, "up1", out, "eth1");
        w.addr(HOST, "up1", "10.0.3.2/24");
        w.addr(out, "eth1", "10.0.3.1/24");
        w.set(HOST, "net.ipv4.conf.up1.rp_filter", filter);
        w.listen("host", Tcp, "0.0.0.0", 8080);
        w.ask("outside:192.0.2.50", "10.0.3.2", Tcp, 8080)
    };
    let says = "dropped reverse-path-filter host net.ipv4.conf.up1.rp_filter";
    assert_eq!(line(&world(1)), says);
    assert_eq!(line(&world(0)), "delivered");
    assert_eq!(line(&world(2)), "delivered");
}

/// 15: two bridges joined by a vxlan of a smaller MTU.
#[test]
fn too_large() {
    let mut w = World::demo();
    w.bridge(HOST, "br-two");
    w.container("c3", "br-two", &["172.18.0.30/16"]);
    for (name, bridge) in [("vx1", "br-demo"), ("vx2", "br-two")] {
        w.link(HOST, name, Some("vxlan"));
        w.plug(HOST, name, bridge);
        w.get(HOST, name).mtu = 1450;
        w.get(HOST, name).vni = Some(42);
    }
    let report = w.ask("c1", "172.18.0.30", Icmp, 0);
    assert_eq!(line(&report), "delivered", "{report:#?}");
    assert!(
        also(&report).contains(&"mtu-exceeded".to_owned()),
        "{report:#?}"
    );
    assert!(report.also.iter().any(|c| c.object == "vx1"), "{report:#?}");
}

/// 16: two at once.
#[test]
fn two_at_once() {
    let mut w = World::demo();
    let c1 = w.id("c1");
    w.refuse(c1, RouteKind::Unreachable, "172.18.0.20");
    let report = w.ask("c1", "172.18.0.20", Tcp, 80);
    assert_eq!(
        line(&report),
        "rejected route-rejects c1 unreachable 172.18.0.20"
    );
    assert_eq!(also(&report), ["not-listening"]);
    assert_eq!(report.also[0].netns, "/run/netns/c2");
}
