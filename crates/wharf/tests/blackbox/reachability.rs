//! Who reaches whom: 43 rows, in IPv4 and IPv6, with bridge-nf-call 0 and 1, with a foreign FORWARD policy of ACCEPT and
//! of DROP. Each case builds the topology once, sends every probe, and lists all deviations together.
//!
//! Networks: A (1), B (2), I internal (3), N icc off (4), M no masquerade (5), H bound to the host's address (6), and V
//! without IPv6 (7). Containers are at .11 and .12; the gateways at .1.

use crate::common::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wharf_testkit::skip::Need;
use wharf_testkit::{
    Echo, ForwardPolicy, Host, Matrix, Netns, Protocol, SctpEcho, Snapshot, Want, addr, require,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const SERVICE: u16 = 7000;

struct World {
    host: Host,
    a1: Netns,
    a2: Netns,
    b1: Netns,
    i1: Netns,
    n1: Netns,
    n2: Netns,
    m1: Netns,
    _servers: Vec<Echo>,
    _sctp: SctpEcho,
}

fn build(bridge_nf_call: bool, forward: ForwardPolicy) -> World {
    let host = options()
        .bridge_nf_call(bridge_nf_call)
        .forward(forward)
        .neighbour()
        .start();
    for (name, net, more) in [
        ("A", 1, ""),
        ("B", 2, ""),
        ("I", 3, "--internal"),
        ("N", 4, "--icc=false"),
        ("M", 5, "--masquerade=false"),
        ("H", 6, ""),
    ] {
        network(&host, name, net, more);
    }
    host.w("network create V --subnet 10.88.7.0/24").ok();
    container(
        &host,
        "a1",
        "A",
        1,
        11,
        "-p 8080:80 -p 127.0.0.1:8082:82 -p 8090:90/udp -p 8095:95/sctp",
    );
    container(&host, "a2", "A", 1, 12, "");
    container(&host, "b1", "B", 2, 11, "-p 8180:80");
    container(&host, "i1", "I", 3, 11, "-p 8680:80");
    container(&host, "i2", "I", 3, 12, "");
    container(&host, "n1", "N", 4, 11, "-p 8380:80");
    container(&host, "n2", "N", 4, 12, "");
    container(&host, "m1", "M", 5, 11, "-p 8480:80");
    container(
        &host,
        "h1",
        "H",
        6,
        11,
        "-p 10.0.2.2:8580:80 -p [2001:db8:2::2]:8580:80",
    );
    host.w("create v1 --network V --ip 10.88.7.11 -p 8880:80")
        .ok();

    let mut servers = Vec::new();
    for name in ["a1", "a2", "b1", "i1", "i2", "n1", "n2", "m1", "h1", "v1"] {
        let netns = host.container(name);
        servers.extend(Echo::many(&netns, name, Protocol::Tcp, &[80, 81]));
        servers.extend(Echo::many(&netns, name, Protocol::Udp, &[90, 91]));
    }
    let a1 = host.container("a1");
    servers.push(Echo::tcp(&a1, "a1", 82));
    servers.push(Echo::tcp(host.netns(), "host", SERVICE));
    servers.push(Echo::udp(host.netns(), "host", SERVICE));
    servers.push(Echo::tcp(host.outside(), "outside", 80));
    servers.push(Echo::udp(host.outside(), "outside", 90));
    let at = |name| host.container(name);
    World {
        _sctp: SctpEcho::new(&a1, "a1", 95),
        a2: at("a2"),
        b1: at("b1"),
        i1: at("i1"),
        n1: at("n1"),
        n2: at("n2"),
        m1: at("m1"),
        a1,
        host,
        _servers: servers,
    }
}

fn from_host(m: &mut Matrix, world: &World, v6: bool) {
    let (host, here) = (world.host.netns(), addr::host(v6));
    for (label, port) in [("1 published", 80), ("1 not published", 81)] {
        m.tcp(label, host, at(v6, 1, 11), port, Want::Reach("a1"));
    }
    m.ping("1 ping", host, at(v6, 1, 11), Want::Reply);
    m.tcp("2 own address", host, here, 8080, Want::Reach("a1"));
    if v6 {
        m.tcp("3 [::1]", host, LOOPBACK6, 8080, Want::ReachOrRefused("a1"));
        m.tcp(
            "4 [::1] of an IPv4 container",
            host,
            LOOPBACK6,
            8880,
            Want::ReachOrRefused("v1"),
        );
    } else {
        m.tcp("3 127.0.0.1", host, LOOPBACK, 8080, Want::Reach("a1"));
        m.tcp(
            "4 127.0.0.1 of an IPv4 container",
            host,
            LOOPBACK,
            8880,
            Want::Reach("v1"),
        );
        m.tcp(
            "6 loopback mapping",
            host,
            LOOPBACK,
            8082,
            Want::Reach("a1"),
        );
        m.udp("8 udp 127.0.0.1", host, LOOPBACK, 8090, Want::Reach("a1"));
    }
    m.tcp(
        "5 gateway address",
        host,
        at(v6, 1, 1),
        8080,
        Want::Reach("a1"),
    );
    m.tcp(
        "7 loopback mapping elsewhere",
        host,
        here,
        8082,
        Want::Refused,
    );
    m.udp("8 udp own address", host, here, 8090, Want::Reach("a1"));
    m.tcp(
        "9 internal container",
        host,
        at(v6, 3, 11),
        80,
        Want::Reach("i1"),
    );
    m.tcp(
        "10 port of an internal network",
        host,
        here,
        8680,
        Want::Refused,
    );
}

fn from_networks(m: &mut Matrix, world: &World, v6: bool) {
    let (a1, i1, here) = (&world.a1, &world.i1, addr::host(v6));
    let outside = addr::outside(v6);
    m.tcp(
        "11 out, masqueraded",
        a1,
        outside,
        80,
        Want::ReachAs("outside", here),
    );
    m.udp(
        "11 out, masqueraded",
        a1,
        outside,
        90,
        Want::ReachAs("outside", here),
    );
    m.ping("11 out, ping", a1, outside, Want::Reply);
    m.tcp(
        "12 out, not masqueraded",
        &world.m1,
        outside,
        80,
        Want::ReachAs("outside", at(v6, 5, 11)),
    );
    for (label, to) in [
        ("host address", here),
        ("own gateway", at(v6, 1, 1)),
        ("other gateway", at(v6, 2, 1)),
    ] {
        m.tcp(
            &format!("13 host service at {label}"),
            a1,
            to,
            SERVICE,
            Want::ReachAs("host", at(v6, 1, 11)),
        );
        m.udp(
            &format!("13 host service at {label}"),
            a1,
            to,
            SERVICE,
            Want::ReachAs("host", at(v6, 1, 11)),
        );
    }
    m.tcp("14 internal to outside", i1, outside, 80, Want::RefusedFast);
    m.ping("14 internal to outside", i1, outside, Want::RefusedFast);
    m.tcp(
        "15 internal to own gateway",
        i1,
        at(v6, 3, 1),
        SERVICE,
        Want::Reach("host"),
    );
    m.tcp(
        "16 internal to host address",
        i1,
        here,
        SERVICE,
        Want::RefusedFast,
    );
    m.tcp(
        "17 internal to another network's port",
        i1,
        here,
        8080,
        Want::No,
    );
    m.tcp(
        "17 internal, by own gateway",
        i1,
        at(v6, 3, 1),
        8080,
        Want::No,
    );
    m.tcp(
        "18 internal to sibling",
        i1,
        at(v6, 3, 12),
        80,
        Want::Reach("i2"),
    );
    m.tcp(
        "24 other network, published",
        a1,
        at(v6, 2, 11),
        80,
        Want::No,
    );
    m.tcp(
        "24 other network, not published",
        a1,
        at(v6, 2, 11),
        81,
        Want::No,
    );
    m.udp("24 other network, udp", a1, at(v6, 2, 11), 91, Want::No);
    m.ping("24 other network, ping", a1, at(v6, 2, 11), Want::No);
    m.tcp("24 and back", &world.b1, at(v6, 1, 11), 81, Want::No);
    for (label, to) in [
        ("host address", here),
        ("own gateway", at(v6, 1, 1)),
        ("B's gateway", at(v6, 2, 1)),
    ] {
        m.tcp(
            &format!("25 b1's port by {label}"),
            a1,
            to,
            8180,
            Want::Reach("b1"),
        );
    }
    m.tcp(
        "26 port bound to the host address",
        a1,
        here,
        8580,
        Want::Reach("h1"),
    );
    m.tcp("26 port of M", a1, here, 8480, Want::Reach("m1"));
    m.tcp("27 internal container", a1, at(v6, 3, 11), 80, Want::No);
    m.ping("27 internal container", a1, at(v6, 3, 11), Want::No);
    m.tcp(
        "28 host at the internal gateway",
        a1,
        at(v6, 3, 1),
        SERVICE,
        Want::Reach("host"),
    );
}

fn from_siblings(m: &mut Matrix, world: &World, v6: bool) {
    let (a1, a2, here) = (&world.a1, &world.a2, addr::host(v6));
    let (gateway, n_gateway) = (at(v6, 1, 1), at(v6, 4, 1));
    for port in [80, 81] {
        m.tcp(
            "19 sibling",
            a2,
            at(v6, 1, 11),
            port,
            Want::ReachAs("a1", at(v6, 1, 12)),
        );
    }
    m.udp(
        "19 sibling",
        a2,
        at(v6, 1, 11),
        91,
        Want::ReachAs("a1", at(v6, 1, 12)),
    );
    m.ping("19 sibling", a2, at(v6, 1, 11), Want::Reply);
    for to in [here, gateway] {
        m.tcp(
            "20 sibling's port",
            a2,
            to,
            8080,
            Want::ReachAs("a1", gateway),
        );
    }
    m.sctp(
        "20 sibling's port",
        a2,
        here,
        8095,
        Want::ReachAs("a1", gateway),
    );
    m.udp(
        "21 sibling's udp port",
        a2,
        here,
        8090,
        Want::ReachAs("a1", gateway),
    );
    m.tcp("22 loopback mapping", a2, here, 8082, Want::Refused);
    m.tcp("23 own port", a1, here, 8080, Want::ReachAs("a1", gateway));
    m.tcp("29 icc off", &world.n2, at(v6, 4, 11), 80, Want::No);
    m.udp("29 icc off", &world.n2, at(v6, 4, 11), 90, Want::No);
    m.ping("29 icc off", &world.n2, at(v6, 4, 11), Want::No);
    m.tcp(
        "30 icc off, published",
        &world.n2,
        here,
        8380,
        Want::ReachAs("n1", n_gateway),
    );
    m.tcp("31 from A to N's port", a1, here, 8380, Want::Reach("n1"));
    m.tcp(
        "31 from N to A's port",
        &world.n1,
        here,
        8080,
        Want::Reach("a1"),
    );
    let loopback = if v6 { LOOPBACK6 } else { LOOPBACK };
    m.tcp("42 own loopback", a1, loopback, 8080, Want::Refused);
}

fn from_outside(m: &mut Matrix, world: &World, v6: bool) {
    let (outside, here) = (world.host.outside(), addr::host(v6));
    let source = if v6 { addr::ROUTER6 } else { addr::ROUTER4 };
    m.tcp(
        "32 published",
        outside,
        here,
        8080,
        Want::ReachAs("a1", source),
    );
    m.udp(
        "32 published",
        outside,
        here,
        8090,
        Want::ReachAs("a1", source),
    );
    m.sctp(
        "32 published",
        outside,
        here,
        8095,
        Want::ReachAs("a1", source),
    );
    m.tcp("33 loopback mapping", outside, here, 8082, Want::Refused);
    m.tcp(
        "35 container, published port",
        outside,
        at(v6, 1, 11),
        80,
        Want::No,
    );
    m.udp(
        "35 container, published port",
        outside,
        at(v6, 1, 11),
        90,
        Want::No,
    );
    m.tcp(
        "36 container, other port",
        outside,
        at(v6, 1, 11),
        81,
        Want::No,
    );
    m.udp(
        "36 container, other port",
        outside,
        at(v6, 1, 11),
        91,
        Want::No,
    );
    m.ping("36 container, ping", outside, at(v6, 1, 11), Want::No);
    m.tcp(
        "36 unmasqueraded container",
        outside,
        at(v6, 5, 11),
        81,
        Want::No,
    );
    m.tcp(
        "38 internal container",
        outside,
        at(v6, 3, 11),
        80,
        Want::No,
    );
    m.tcp(
        "39 host at the internal gateway",
        outside,
        at(v6, 3, 1),
        SERVICE,
        Want::No,
    );
    m.tcp(
        "39 host at A's gateway",
        outside,
        at(v6, 1, 1),
        SERVICE,
        Want::No,
    );
    m.tcp(
        "40 port of the icc-off network",
        outside,
        here,
        8380,
        Want::ReachAs("n1", source),
    );
    m.tcp(
        "41 port bound to the host address",
        outside,
        here,
        8580,
        Want::ReachAs("h1", source),
    );
    if !v6 {
        m.tcp(
            "41 the same port elsewhere",
            outside,
            addr::HOST4_B,
            8580,
            Want::Refused,
        );
        m.tcp(
            "32 second host address",
            outside,
            addr::HOST4_B,
            8080,
            Want::Reach("a1"),
        );
        // The neighbour gives its own loopback addresses away, to reach ours.
        let neighbour = world.host.neighbour();
        m.tcp(
            "34 loopback mapping from the wire",
            neighbour,
            LOOPBACK,
            8082,
            Want::No,
        );
        m.tcp(
            "34 any mapping from the wire",
            neighbour,
            LOOPBACK,
            8080,
            Want::No,
        );
        m.tcp(
            "34 host service from the wire",
            neighbour,
            LOOPBACK,
            SERVICE,
            Want::No,
        );
    }
}

#[track_caller]
fn check(bridge_nf_call: bool, forward: ForwardPolicy) {
    let world = build(bridge_nf_call, forward);
    world
        .host
        .neighbour()
        .give_loopback_away("10.0.3.2", "10.0.3.1");
    let mut matrix = Matrix::new();
    for v6 in [false, true] {
        from_host(&mut matrix, &world, v6);
        from_networks(&mut matrix, &world, v6);
        from_siblings(&mut matrix, &world, v6);
        from_outside(&mut matrix, &world, v6);
    }
    matrix.check();
}

#[test]
fn table_with_bridge_nf_call_0_and_forward_accept() {
    require!(Need::Program("iptables-nft"), Need::BridgeNetfilter);
    check(false, ForwardPolicy::Accept);
}

#[test]
fn table_with_bridge_nf_call_1_and_forward_accept() {
    require!(Need::Program("iptables-nft"), Need::BridgeNetfilter);
    check(true, ForwardPolicy::Accept);
}

#[test]
fn table_with_bridge_nf_call_0_and_forward_drop() {
    require!(Need::Program("iptables-nft"), Need::BridgeNetfilter);
    check(false, ForwardPolicy::DropWithDockerUser);
}

#[test]
fn table_with_bridge_nf_call_1_and_forward_drop() {
    require!(Need::Program("iptables-nft"), Need::BridgeNetfilter);
    check(true, ForwardPolicy::DropWithDockerUser);
}

#[test]
fn forward_drop_without_a_door_is_named_with_its_fix() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::Drop).start();
    let before = host.sh("iptables-nft -S; ip6tables-nft -S");
    network(&host, "A", 1, "");
    let made = host
        .w(&format!("create a1 --network A {} -p 8080:80", ips(1, 11)))
        .ok()
        .says("FORWARD");
    let fix = made.stderr.contains("iptables -") || made.stderr.contains("nft ");
    assert!(
        fix,
        "it should name the command that helps: {}",
        made.transcript()
    );
    assert_eq!(
        host.sh("iptables-nft -S; ip6tables-nft -S"),
        before,
        "another tool's policy is not wharf's to change"
    );
}

#[test]
fn docker_user_is_as_before_when_all_is_removed() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
    remove(&host, &["a1"], &["A"]);
    before.assert_same(&host, "a network beside Docker");
}
