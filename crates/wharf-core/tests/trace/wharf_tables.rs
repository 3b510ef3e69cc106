//! wharf's own rules, as it compiles them: what passes, and what a drop is called.

use wharf_core::trace::L4::{Icmp, Tcp};
use wharf_core::trace::Owner;
use wharf_core::trace::state::Link;

use crate::build::{HOST, World, line, matches, nat, rule};
use crate::compiled::world;

const TWO: &str = r#"
[networks.blue]
subnets = ["172.18.0.0/16"]

[networks.green]
subnets = ["172.19.0.0/16", "fd00:19::/64"]
icc = false

[networks.back]
subnets = ["172.20.0.0/16"]
internal = true

[containers.api]
networks = ["blue"]
ports = ["8080:80", "127.0.0.1:9090:90"]

[containers.db]
networks = ["blue"]

[containers.g1]
networks = ["green"]

[containers.g2]
networks = ["green"]
ports = ["5353:53/udp", "7000:70"]

[containers.b1]
networks = ["back"]

[containers.b2]
networks = ["back"]
"#;

fn two() -> World {
    let mut w = world(TWO);
    for (name, port) in [
        ("api", 80),
        ("api", 90),
        ("db", 5432),
        ("g2", 70),
        ("b2", 80),
    ] {
        w.listen(name, Tcp, "0.0.0.0", port);
    }
    w.listen("outside", Tcp, "0.0.0.0", 443);
    w.listen("host", Tcp, "0.0.0.0", 22);
    w
}

fn says(src: &str, dst: &str, port: u16, expected: &str) {
    for nf_call in [0, 1] {
        let mut w = two();
        w.set(HOST, "net.bridge.bridge-nf-call-iptables", nf_call);
        w.set(HOST, "net.bridge.bridge-nf-call-ip6tables", nf_call);
        let l4 = if port == 0 { Icmp } else { Tcp };
        let report = w.ask(src, dst, l4, port);
        assert_eq!(
            line(&report),
            expected,
            "{src} to {dst}:{port}, bridge-nf-call {nf_call}\n{report:#?}"
        );
        for cause in report.cause.iter().chain(&report.also) {
            assert!(
                !cause.fix.is_empty() && !cause.evidence.is_empty(),
                "{cause:#?}"
            );
        }
    }
}

#[test]
fn what_passes() {
    for (src, dst, port) in [
        ("api", "192.0.2.50", 443),
        ("g1", "192.0.2.50", 443),
        ("api", "db", 5432),
        ("db", "api", 80),
        ("outside", "api", 80),
        ("outside", "api", 8080),
        ("outside", "10.0.2.2", 8080),
        ("host", "api", 80),
        ("host", "127.0.0.1", 8080),
        ("host", "10.0.2.2", 8080),
        // A sibling, the container itself and another network, by the published port.
        ("db", "10.0.2.2", 8080),
        ("api", "10.0.2.2", 8080),
        ("g1", "10.0.2.2", 8080),
        ("g1", "api", 8080),
        // Between containers that are kept apart, by the published port.
        ("g1", "10.0.2.2", 7000),
        ("api", "172.18.0.1", 22),
        ("outside", "10.0.2.2", 22),
        ("b1", "b2", 80),
        ("host", "api", 0),
        ("db", "api", 0),
    ] {
        says(src, dst, port, "delivered");
    }
}

#[test]
fn what_does_not() {
    says("outside", "api", 81, "dropped not-published host 81/tcp");
    says("outside", "api", 90, "dropped not-published host 90/tcp");
    says(
        "outside",
        "172.18.0.2",
        80,
        "dropped not-published host 80/tcp",
    );
    says(
        "outside",
        "10.0.2.2",
        81,
        "rejected not-listening host 81/tcp",
    );
    says("outside", "b2", 80, "dropped internal-network host back");
    says(
        "g1",
        "api",
        80,
        "dropped network-isolation host inet wharf net-blue-in handle 5",
    );
    says(
        "g1",
        "g2",
        71,
        "dropped network-isolation host bridge wharf net-green-apart handle 2",
    );
    says("b1", "192.0.2.50", 443, "dropped internal-network b1 back");
    says(
        "outside",
        "172.18.0.1",
        22,
        "dropped not-published host inet wharf host handle 9",
    );
}

#[test]
fn the_fix_for_an_unpublished_port() {
    let report = two().ask("outside", "api", Tcp, 81);
    let cause = report.cause.unwrap();
    assert_eq!(cause.owner, Owner::Wharf);
    assert_eq!(cause.fix, ["wharf port add api 8081:81"]);
    assert_eq!(report.also.len(), 1, "nothing listens there either");
    let report = two().ask("g1", "api", Tcp, 80);
    assert_eq!(report.cause.unwrap().fix, ["wharf network connect blue g1"]);
}

/// Another tool's rule that comes before wharf's takes the port.
#[test]
fn a_port_that_is_taken() {
    use wharf_core::trace::ruleset::{ChainKind, Hook, Match, NatKind, TableFamily};
    let mut w = two();
    let chain = w.chain(
        HOST,
        TableFamily::Ip,
        "hand",
        "pre",
        Hook::Prerouting,
        -110,
        false,
    );
    chain.base.as_mut().unwrap().kind = ChainKind::Nat;
    let to = nat(NatKind::Destination, Some("172.18.0.3"), Some(5432));
    rule(
        chain,
        vec![matches(Match::Dport(8080, 8080)), to],
        "dnat to 172.18.0.3:5432",
    );
    let report = w.ask("outside", "10.0.2.2", Tcp, 8080);
    assert_eq!(
        line(&report),
        "dropped publish-shadowed host ip hand pre handle 2",
        "{report:#?}"
    );
    let report = w.ask("outside", "api", Tcp, 80);
    assert_eq!(
        line(&report),
        "dropped publish-shadowed host ip hand pre handle 2"
    );
}

#[test]
fn spoofed_addresses() {
    let mut w = two();
    let api = w.id("api");
    w.del_addr(api, "172.18.0.2/16");
    w.addr(api, "eth0", "172.18.0.77/16");
    let report = w.ask("api", "db", Tcp, 5432);
    let says = line(&report);
    assert!(
        says.starts_with("dropped spoof-guard host bridge wharf guard"),
        "{report:#?}"
    );

    let mut w = two();
    let api = w.id("api");
    w.get(api, "eth0").mac = Some(wharf_core::addr::Mac([2, 9, 9, 9, 9, 9]));
    let report = w.ask("api", "192.0.2.50", Tcp, 443);
    assert!(
        line(&report).starts_with("dropped spoof-guard host bridge wharf guard"),
        "{report:#?}"
    );
}

/// A link of wharf's that somebody shut is wharf's, and says so.
#[test]
fn whose_link_it_is() {
    let mut w = two();
    let cable = |l: &&mut Link| l.port.is_some();
    let links = &mut w.state.spaces[HOST].links;
    let name = {
        let link = links.iter_mut().find(cable).unwrap();
        link.up = false;
        link.name.clone()
    };
    let report = w.ask("host", "api", Tcp, 80);
    assert_eq!(line(&report), format!("dropped link-down host {name}"));
    assert_eq!(report.cause.unwrap().owner, Owner::Wharf);
}

/// Without rules the ports still keep them apart; what that is called is the same.
#[test]
fn isolated_ports_are_a_networks_own_wish() {
    let mut w = two();
    let mut names = Vec::new();
    for link in &mut w.state.spaces[HOST].links {
        if let Some(port) = link.port.as_mut() {
            port.isolated = true;
            names.push(link.name.clone());
        }
    }
    assert!(names.len() > 4, "{names:?}");
    let report = w.ask("g1", "g2", Tcp, 70);
    let cause = report.cause.as_ref().unwrap();
    assert!(
        line(&report).starts_with("dropped network-isolation host "),
        "{cause:#?}"
    );
    assert_eq!(cause.owner, Owner::Wharf);
    assert!(
        cause.fix[0].starts_with("wharf network create"),
        "{cause:#?}"
    );
    // Where containers may talk to each other it is somebody's mistake.
    let report = w.ask("api", "db", Tcp, 5432);
    assert!(
        line(&report).starts_with("dropped bridge-port-blocked host "),
        "{report:#?}"
    );
}
