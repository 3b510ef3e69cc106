//! Causes in the IP of a space: routes, forwarding, filters, connections, sockets.

use wharf_core::addr::Family;
use wharf_core::trace::L4::{Icmp, Tcp, Udp};
use wharf_core::trace::ruleset::{ChainKind, Expr, Hook, Match, NatArg, NatKind, TableFamily};
use wharf_core::trace::state::{Flow, RouteKind, RuleAction, Tuple};

use crate::build::{Case, HOST, World, check, drops, ip, matches, nat, net, policy, rule};

#[test]
fn routes() {
    check(&[
        Case {
            name: "no route on the host",
            change: |w| w.del_routes(HOST, "default"),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "rejected no-route host 192.0.2.50",
        },
        Case {
            name: "no IPv6 address",
            change: |w| {
                let c1 = w.id("c1");
                w.del_addr(c1, "fd00:18::10/64");
            },
            ask: ("c1", "2001:db8::50", Icmp, 0),
            says: "dropped no-address c1 eth0",
        },
        Case {
            name: "IPv6 switched off",
            change: |w| {
                let c1 = w.id("c1");
                w.del_addr(c1, "fd00:18::10/64");
                w.set(c1, "net.ipv6.conf.eth0.disable_ipv6", 1);
            },
            ask: ("c1", "2001:db8::50", Icmp, 0),
            says: "dropped ipv6-disabled c1 net.ipv6.conf.eth0.disable_ipv6",
        },
        Case {
            name: "duplicate detection failed",
            change: |w| {
                let c2 = w.id("c2");
                let addrs = &mut w.state.spaces[c2].addrs;
                let own = addrs.iter_mut().find(|a| a.net == net("fd00:18::20/64"));
                own.unwrap().dad_failed = true;
            },
            ask: ("c1", "fd00:18::20", Icmp, 0),
            says: "dropped ipv6-disabled c2 fd00:18::20/64 dev eth0",
        },
        Case {
            name: "a blackhole on the host",
            change: |w| w.refuse(HOST, RouteKind::Blackhole, "192.0.2.0/24"),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped route-rejects host blackhole 192.0.2.0/24",
        },
        Case {
            name: "a throw route",
            change: |w| {
                let c1 = w.id("c1");
                w.refuse(c1, RouteKind::Throw, "192.0.2.0/24");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped route-rejects c1 throw 192.0.2.0/24",
        },
        Case {
            name: "a policy rule that refuses",
            change: |w| {
                let mut r = policy(Family::V4, 100, RuleAction::Prohibit);
                r.src = Some(net("172.18.0.0/16"));
                w.state.spaces[HOST].rules.push(r);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "rejected policy-rule host 100: from 172.18.0.0/16 prohibit",
        },
        Case {
            name: "a policy rule to a table that refuses",
            change: |w| {
                let mut r = policy(Family::V4, 100, RuleAction::Table(100));
                r.dst = Some(net("192.0.2.0/24"));
                w.state.spaces[HOST].rules.push(r);
                w.refuse(HOST, RouteKind::Blackhole, "default");
                w.state.spaces[HOST].routes.last_mut().unwrap().table = 100;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped policy-rule host 100: from all to 192.0.2.0/24 lookup 100",
        },
        Case {
            name: "a policy rule to a gateway that is not there",
            change: |w| {
                let mut r = policy(Family::V4, 100, RuleAction::Table(100));
                r.src = Some(net("172.18.0.0/16"));
                w.state.spaces[HOST].rules.push(r);
                w.route(HOST, "default", Some("10.0.2.77"), "up0");
                w.state.spaces[HOST].routes.last_mut().unwrap().table = 100;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped policy-rule host 100: from 172.18.0.0/16 lookup 100",
        },
        Case {
            name: "a policy rule to a router that leads nowhere",
            change: |w| {
                let other = w.space("/run/netns/other", "ip netns exec other ");
                w.cable(HOST, "up1", other, "eth0");
                w.addr(HOST, "up1", "10.0.3.2/24");
                w.addr(other, "eth0", "10.0.3.1/24");
                w.set(other, "net.ipv4.ip_forward", 0);
                let mut r = policy(Family::V4, 100, RuleAction::Table(100));
                r.src = Some(net("172.18.0.0/16"));
                w.state.spaces[HOST].rules.push(r);
                w.route(HOST, "default", Some("10.0.3.1"), "up1");
                w.state.spaces[HOST].routes.last_mut().unwrap().table = 100;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped policy-rule host 100: from 172.18.0.0/16 lookup 100",
        },
        Case {
            name: "a route of the host by a container",
            change: |w| {
                let c2 = w.id("c2");
                w.set(c2, "net.ipv4.ip_forward", 0);
                w.route(HOST, "192.0.2.50", Some("172.18.0.20"), "br-demo");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped wrong-gateway host 192.0.2.50 via 172.18.0.20 dev br-demo",
        },
        Case {
            name: "the main table is not looked up",
            change: |w| {
                let c1 = w.id("c1");
                w.state.spaces[c1]
                    .rules
                    .retain(|r| r.action != RuleAction::Table(254));
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped policy-rule c1 lookup main",
        },
        Case {
            name: "IPv6 forwarding off",
            change: |w| w.set(HOST, "net.ipv6.conf.all.forwarding", 0),
            ask: ("c1", "2001:db8::50", Icmp, 0),
            says: "dropped forwarding-disabled host net.ipv6.conf.all.forwarding",
        },
        Case {
            name: "a TTL too small",
            change: |w| {
                let c1 = w.id("c1");
                w.set(c1, "net.ipv4.ip_default_ttl", 1);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped ttl-expired c1 net.ipv4.ip_default_ttl",
        },
        Case {
            name: "a circle",
            change: |w| {
                let out = w.outside();
                w.set(out, "net.ipv4.ip_forward", 1);
                w.route(out, "203.0.113.0/24", Some("10.0.2.2"), "eth0");
            },
            ask: ("c1", "203.0.113.9", Icmp, 0),
            says: "dropped ttl-expired outside 203.0.113.0/24 via 10.0.2.2 dev eth0",
        },
        Case {
            name: "loopback on the wire",
            change: |w| {
                let c1 = w.id("c1");
                w.state.spaces[c1]
                    .routes
                    .retain(|r| r.dst != net("127.0.0.0/8"));
                w.state.spaces[c1]
                    .routes
                    .retain(|r| r.dst != net("127.0.0.1/32"));
                w.route(c1, "127.0.0.0/8", Some("172.18.0.1"), "eth0");
                w.state.spaces[c1]
                    .addrs
                    .retain(|a| a.net != net("127.0.0.1/8"));
                w.listen("host", Tcp, "0.0.0.0", 80);
            },
            ask: ("c1", "127.0.0.1", Tcp, 80),
            says: "dropped martian-address host net.ipv4.conf.br-demo.route_localnet",
        },
    ]);
}

#[test]
fn the_way_back() {
    check(&[
        Case {
            name: "c3 has no route back",
            change: |w| {
                w.bridge(HOST, "br-two");
                w.addr(HOST, "br-two", "172.19.0.1/16");
                let c3 = w.container("c3", "br-two", &["172.19.0.10/16"]);
                w.del_routes(c3, "default");
            },
            ask: ("c1", "172.19.0.10", Icmp, 0),
            says: "unanswered no-return-route c3 172.18.0.10",
        },
        Case {
            name: "a public source that the far side does not know",
            change: |w| {
                w.bridge(HOST, "br-two");
                w.addr(HOST, "br-two", "198.51.100.1/24");
                w.container("c3", "br-two", &["198.51.100.10/24"]);
            },
            ask: ("c3", "192.0.2.50", Icmp, 0),
            says: "unanswered no-return-route outside 198.51.100.10",
        },
        Case {
            name: "a strict filter at the answer",
            change: |w| {
                let c1 = w.id("c1");
                w.bridge(HOST, "br-two");
                w.addr(HOST, "br-two", "172.19.0.1/16");
                w.cable(HOST, "veth-two", c1, "eth1");
                w.plug(HOST, "veth-two", "br-two");
                w.addr(c1, "eth1", "172.19.0.10/16");
                w.set(c1, "net.ipv4.conf.eth0.rp_filter", 1);
                let s = &mut w.state.spaces[c1];
                s.routes.retain(|r| r.dst != net("default"));
                w.route(c1, "192.0.2.50", Some("172.19.0.1"), "eth1");
                let eth1 = w.get(c1, "eth1").index;
                let last = w.state.spaces[c1].routes.last_mut().unwrap();
                last.prefsrc = Some(ip("172.18.0.10"));
                assert_eq!(last.hops[0].link, Some(eth1));
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered reverse-path-filter c1 net.ipv4.conf.eth0.rp_filter",
        },
        Case {
            name: "a hairpin without masquerade",
            change: |w| {
                dnat(w, 8080, "172.18.0.20");
                w.listen("c2", Tcp, "0.0.0.0", 8080);
            },
            ask: ("c1", "10.0.2.2", Tcp, 8080),
            says: "unanswered no-masquerade host br-demo",
        },
        Case {
            name: "a hairpin without masquerade, for an echo, whose answer is taken from anywhere",
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
                let to = nat(NatKind::Destination, Some("172.18.0.20"), None);
                rule(
                    chain,
                    vec![
                        matches(Match::Dst(ip("10.0.2.2"), ip("255.255.255.255"))),
                        to,
                    ],
                    "dnat",
                );
            },
            ask: ("c1", "10.0.2.2", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "a hairpin to itself",
            change: |w| {
                dnat(w, 8080, "172.18.0.10");
                w.listen("c1", Tcp, "0.0.0.0", 8080);
            },
            ask: ("c1", "10.0.2.2", Tcp, 8080),
            says: "dropped no-masquerade host br-demo",
        },
        Case {
            name: "a hairpin without masquerade, but IP rules see the bridge",
            change: |w| {
                dnat(w, 8080, "172.18.0.20");
                w.listen("c2", Tcp, "0.0.0.0", 8080);
                w.set(HOST, "net.bridge.bridge-nf-call-iptables", 1);
            },
            ask: ("c1", "10.0.2.2", Tcp, 8080),
            says: "delivered",
        },
        Case {
            name: "answers are dropped by a policy of the source",
            change: |w| {
                let c1 = w.id("c1");
                w.chain(c1, TableFamily::Ip, "filter", "INPUT", Hook::Input, 0, true);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered firewall-policy c1 ip filter INPUT",
        },
    ]);
}

fn dnat(w: &mut World, port: u16, to: &str) {
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
        matches(Match::Dport(port, port)),
        nat(NatKind::Destination, Some(to), None),
    ];
    rule(chain, exprs, &format!("tcp dport {port} dnat to {to}"));
}

fn flow(src: &str, sport: u16, dst: &str, dport: u16, back: (&str, u16), to: (&str, u16)) -> Flow {
    let tuple = |src: &str, sport, dst: &str, dport| Tuple {
        src: ip(src),
        dst: ip(dst),
        protocol: 17,
        sport,
        dport,
    };
    Flow {
        original: tuple(src, sport, dst, dport),
        reply: tuple(back.0, back.1, to.0, to.1),
        status: 8,
        mark: 0,
        zone: 0,
        text: String::new(),
    }
}

#[test]
fn connections() {
    check(&[
        Case {
            name: "an old entry leads to an address that is gone",
            change: |w| {
                dnat(w, 5353, "172.18.0.20");
                w.listen("c2", Udp, "0.0.0.0", 5353);
                let old = ("172.18.0.77", 5353);
                let f = flow(
                    "192.0.2.50",
                    5000,
                    "10.0.2.2",
                    5353,
                    old,
                    ("192.0.2.50", 5000),
                );
                w.state.spaces[HOST].flows.push(f);
            },
            ask: ("outside", "10.0.2.2", Udp, 5353),
            says: "dropped conntrack-stale host udp src=192.0.2.50 dst=10.0.2.2 sport=5000 dport=5353",
        },
        Case {
            name: "an entry that agrees",
            change: |w| {
                dnat(w, 5353, "172.18.0.20");
                w.listen("c2", Udp, "0.0.0.0", 5353);
                let now = ("172.18.0.20", 5353);
                let f = flow(
                    "192.0.2.50",
                    5000,
                    "10.0.2.2",
                    5353,
                    now,
                    ("192.0.2.50", 5000),
                );
                w.state.spaces[HOST].flows.push(f);
            },
            ask: ("outside", "10.0.2.2", Udp, 5353),
            says: "delivered",
        },
        Case {
            name: "the table is full",
            change: |w| w.state.spaces[HOST].conntrack = Some((1000, 1000)),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped conntrack-full host net.netfilter.nf_conntrack_max",
        },
        Case {
            name: "no local port is left",
            change: |w| {
                let c1 = w.id("c1");
                w.state.spaces[c1].ports_in_use = 28232;
                w.listen("outside", Tcp, "0.0.0.0", 80);
            },
            ask: ("c1", "192.0.2.50", Tcp, 80),
            says: "dropped ports-exhausted c1 net.ipv4.ip_local_port_range",
        },
        Case {
            name: "no port is left for translation",
            change: |w| {
                w.state.spaces[HOST].ruleset.chains.clear();
                let chain = w.chain(
                    HOST,
                    TableFamily::Ip,
                    "masq",
                    "post",
                    Hook::Postrouting,
                    100,
                    false,
                );
                chain.base.as_mut().unwrap().kind = ChainKind::Nat;
                let to = Expr::Nat {
                    kind: NatKind::Masquerade,
                    addr: None,
                    port: Some(NatArg::Ports(5000, 5001)),
                };
                rule(chain, vec![to], "masquerade to :5000-5001");
                w.listen("outside", Udp, "0.0.0.0", 53);
                for port in [5000, 5001] {
                    let back = ("192.0.2.50", 53);
                    let f = flow("172.18.0.20", 9, "192.0.2.50", 53, back, ("10.0.2.2", port));
                    w.state.spaces[HOST].flows.push(f);
                }
            },
            ask: ("c1", "192.0.2.50", Udp, 53),
            says: "dropped ports-exhausted host ip masq post handle 2",
        },
    ]);
}

#[test]
fn sockets() {
    check(&[
        Case {
            name: "the other protocol",
            change: |w| {
                w.listen("c2", Tcp, "0.0.0.0", 53);
            },
            ask: ("c1", "172.18.0.20", Udp, 53),
            says: "rejected listening-elsewhere c2 0.0.0.0:53/tcp",
        },
        Case {
            name: "IPv6 only",
            change: |w| w.listen("c2", Tcp, "::", 80).v6only = true,
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "rejected listening-elsewhere c2 [::]:80",
        },
        Case {
            name: "both families by one socket",
            change: |w| {
                w.listen("c2", Tcp, "::", 80);
            },
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "delivered",
        },
        Case {
            name: "bound to another link",
            change: |w| {
                let lo = w.index(HOST, "lo");
                w.listen("c2", Tcp, "0.0.0.0", 80).link = Some(lo);
            },
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "rejected listening-elsewhere c2 0.0.0.0:80",
        },
        Case {
            name: "a full queue",
            change: |w| {
                let socket = w.listen("c2", Tcp, "0.0.0.0", 80);
                (socket.queue, socket.backlog) = (6, 5);
            },
            ask: ("c1", "172.18.0.20", Tcp, 80),
            says: "dropped accept-queue-full c2 0.0.0.0:80",
        },
        Case {
            name: "no echoes",
            change: |w| {
                let c2 = w.id("c2");
                w.set(c2, "net.ipv4.icmp_echo_ignore_all", 1);
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped echo-ignored c2 net.ipv4.icmp_echo_ignore_all",
        },
        Case {
            name: "no IPv6 echoes",
            change: |w| {
                let c2 = w.id("c2");
                w.set(c2, "net.ipv6.icmp.echo_ignore_all", 1);
            },
            ask: ("c1", "fd00:18::20", Icmp, 0),
            says: "dropped echo-ignored c2 net.ipv6.icmp.echo_ignore_all",
        },
    ]);
}

#[test]
fn further_rules() {
    check(&[
        Case {
            name: "at the source's output",
            change: |w| {
                let c1 = w.id("c1");
                let chain = w.chain(c1, TableFamily::Inet, "f", "out", Hook::Output, 0, false);
                rule(chain, vec![drops()], "drop");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped firewall-rule c1 inet f out handle 2",
        },
        Case {
            name: "at a device",
            change: |w| {
                let chain = w.chain(
                    HOST,
                    TableFamily::Netdev,
                    "f",
                    "in",
                    Hook::Ingress,
                    0,
                    false,
                );
                chain.base.as_mut().unwrap().devices = vec!["up0".to_owned()];
                rule(chain, vec![drops()], "drop");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped firewall-rule host netdev f in handle 2",
        },
        Case {
            name: "a rule nobody can read",
            change: |w| {
                let chain = w.chain(HOST, TableFamily::Inet, "f", "fwd", Hook::Forward, 0, false);
                let exprs = vec![Expr::Opaque("bpf object-pinned x".to_owned()), drops()];
                rule(chain, exprs, "bpf object-pinned x drop");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unknown",
        },
    ]);
}

#[test]
fn mappings() {
    check(&[
        Case {
            name: "to a network that is gone, by a router outside",
            change: |w| dnat(w, 8080, "172.30.0.10"),
            ask: ("outside", "10.0.2.2", Tcp, 8080),
            says: "dropped publish-shadowed host ip hand pre handle 2",
        },
        Case {
            name: "to a network that is gone, back to a wire nobody read",
            change: |w| {
                dnat(w, 8080, "172.30.0.10");
                w.state.spaces.pop();
                w.get(HOST, "up0").peer = None;
            },
            ask: ("outside", "10.0.2.2", Tcp, 8080),
            says: "dropped publish-shadowed host ip hand pre handle 2",
        },
        Case {
            name: "a namespace means the port that rules publish for it",
            change: |w| {
                w.listen("c2", Tcp, "0.0.0.0", 80);
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
                let to = nat(NatKind::Destination, Some("172.18.0.20"), Some(80));
                rule(chain, vec![matches(Match::Dport(8080, 8080)), to], "dnat");
            },
            ask: ("outside", "c2", Tcp, 80),
            says: "delivered",
        },
        Case {
            name: "and without one its own address, which nobody outside knows",
            change: |w| {
                w.listen("c2", Tcp, "0.0.0.0", 80);
            },
            ask: ("outside", "c2", Tcp, 80),
            says: "dropped no-route outside 172.18.0.20",
        },
    ]);
}
