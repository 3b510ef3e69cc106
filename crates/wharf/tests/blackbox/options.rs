//! Network and attachment options by what they do to traffic.

use crate::common::*;
use wharf_testkit::{Answer, Echo, Matrix, SctpEcho, Snapshot, Want, addr, require};

#[test]
fn host_access_none_and_dns_close_the_hosts_services() {
    require!();
    let host = host();
    let _servers = (
        Echo::tcp(host.netns(), "host", 7000),
        Echo::udp(host.netns(), "host", 7000),
        Echo::tcp(host.netns(), "host", 53),
        Echo::udp(host.netns(), "host", 53),
        SctpEcho::new(host.netns(), "host", 7000),
    );
    let _far = Echo::tcp(host.outside(), "outside", 80);
    for (name, net) in [("none", 1), ("dns", 2), ("all", 3)] {
        network(&host, name, net, &format!("-o host-access={name}"));
        container(
            &host,
            &format!("c-{name}"),
            name,
            net,
            11,
            &format!("-p 808{net}:80"),
        );
    }
    let none = host.container("c-none");
    let _none = Echo::tcp(&none, "c-none", 80);
    let mut m = Matrix::new();
    for v6 in [false, true] {
        for (name, net) in [("none", 1), ("dns", 2), ("all", 3)] {
            let from = host.container(&format!("c-{name}"));
            let want = |open: bool| if open { Want::Reach("host") } else { Want::No };
            for to in [addr::host(v6), at(v6, net, 1), at(v6, 3, 1)] {
                m.tcp(
                    &format!("{name}: service"),
                    &from,
                    to,
                    7000,
                    want(name == "all"),
                );
                m.udp(
                    &format!("{name}: service"),
                    &from,
                    to,
                    7000,
                    want(name == "all"),
                );
            }
            for to in [addr::host(v6), at(v6, net, 1)] {
                m.tcp(
                    &format!("{name}: port 53"),
                    &from,
                    to,
                    53,
                    want(name != "none"),
                );
                m.udp(
                    &format!("{name}: port 53"),
                    &from,
                    to,
                    53,
                    want(name != "none"),
                );
            }
            m.ping(
                &format!("{name}: gateway answers pings"),
                &from,
                at(v6, net, 1),
                Want::Reply,
            );
            m.tcp(
                &format!("{name}: outside"),
                &from,
                addr::outside(v6),
                80,
                Want::Reach("outside"),
            );
            m.tcp(
                &format!("{name}: published port"),
                &from,
                addr::host(v6),
                8081,
                Want::Reach("c-none"),
            );
        }
        m.tcp(
            "the host itself",
            host.netns(),
            at(v6, 1, 11),
            80,
            Want::Reach("c-none"),
        );
    }
    m.check();
}

#[test]
fn routed_mode_opens_published_container_ports_directly() {
    require!();
    let host = host();
    let routed = "-o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.gateway_mode_ipv6=routed";
    network(&host, "R", 1, routed);
    container(&host, "r1", "R", 1, 11, "-p 8080:80");
    let r1 = host.container("r1");
    let _servers = (
        Echo::tcp(&r1, "r1", 80),
        Echo::tcp(&r1, "r1", 81),
        Echo::tcp(host.outside(), "outside", 80),
    );
    let mut m = Matrix::new();
    for v6 in [false, true] {
        let source = if v6 { addr::ROUTER6 } else { addr::ROUTER4 };
        m.tcp(
            "published container port",
            host.outside(),
            at(v6, 1, 11),
            80,
            Want::ReachAs("r1", source),
        );
        m.tcp(
            "other container port",
            host.outside(),
            at(v6, 1, 11),
            81,
            Want::No,
        );
        m.tcp(
            "not translated",
            host.outside(),
            addr::host(v6),
            8080,
            Want::Refused,
        );
        m.ping("ping", host.outside(), at(v6, 1, 11), Want::Reply);
        m.tcp(
            "out with its own address",
            &r1,
            addr::outside(v6),
            80,
            Want::ReachAs("outside", at(v6, 1, 11)),
        );
    }
    m.check();
}

#[test]
fn isolate_false_on_both_sides_opens_networks_to_each_other() {
    require!();
    let host = host();
    network(&host, "A", 1, "-o isolate=false");
    network(&host, "B", 2, "-o isolate=false");
    network(&host, "C", 3, "");
    for (name, network, net) in [("a1", "A", 1), ("b1", "B", 2), ("c1", "C", 3)] {
        container(&host, name, network, net, 11, "");
    }
    let _servers = ["a1", "b1", "c1"].map(|name| Echo::tcp(&host.container(name), name, 80));
    let (a1, c1) = (host.container("a1"), host.container("c1"));
    let mut m = Matrix::new();
    for v6 in [false, true] {
        m.tcp("open to open", &a1, at(v6, 2, 11), 80, Want::Reach("b1"));
        m.tcp("open to closed", &a1, at(v6, 3, 11), 80, Want::No);
        m.tcp("closed to open", &c1, at(v6, 1, 11), 80, Want::No);
    }
    m.check();
}

#[test]
fn isolated_gateway_mode_has_no_address_on_the_bridge() {
    require!();
    let host = host();
    let isolated = "--internal --bridge wharf-i -o com.docker.network.bridge.gateway_mode_ipv4=isolated \
                    -o com.docker.network.bridge.gateway_mode_ipv6=isolated";
    network(&host, "I", 1, isolated);
    container(&host, "i1", "I", 1, 11, "");
    container(&host, "i2", "I", 1, 12, "");
    let (i1, i2) = (host.container("i1"), host.container("i2"));
    let _servers = (
        Echo::tcp(&i1, "i1", 80),
        Echo::tcp(host.netns(), "host", 7000),
    );
    assert_eq!(
        host.netns().addresses("wharf-i"),
        Vec::<std::net::IpAddr>::new()
    );
    for v6 in [false, true] {
        assert_eq!(i2.tcp(at(v6, 1, 11), 80).by(), Some("i1"));
        assert!(!i2.tcp_brief(at(v6, 1, 1), 7000).reached());
        assert!(!host.netns().tcp_brief(at(v6, 1, 11), 80).reached());
    }
}

#[test]
fn static_mac_and_address() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    host.w(
        "create c1 --network A:ip=10.88.1.77,ip=fd00:88:1::77,mac=02:00:5e:00:00:77,interface=lan0",
    )
    .ok();
    let c1 = host.container("c1");
    assert_eq!(c1.mac("lan0"), [2, 0, 0x5e, 0, 0, 0x77]);
    assert_eq!(c1.addresses("lan0"), [at(false, 1, 77), at(true, 1, 77)]);
    assert_eq!(
        c1.ping(addr::OUTSIDE6),
        Answer::Replied,
        "the guard knows the chosen MAC"
    );
    host.w("create c2 --network A:mac=02:00:5e:00:00:77")
        .fails(1);
}

#[test]
fn an_address_is_not_given_again_at_once() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let mut seen = Vec::new();
    for n in 0..10 {
        host.w(&format!("create c{n} --network A")).ok();
        let address = address_of(&host, &format!("c{n}"), false);
        assert!(!seen.contains(&address), "{address} again, after {seen:?}");
        seen.push(address);
        host.w(&format!("rm -f c{n}")).ok();
    }
}

#[test]
fn a_new_owner_of_an_address_is_reached_at_once() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "peer", "A", 1, 50, "");
    for round in 0..3 {
        container(&host, "c1", "A", 1, 11, "-p 8080:80");
        let c1 = host.container("c1");
        let _web = Echo::tcp(&c1, "c1", 80);
        for v6 in [false, true] {
            assert_eq!(
                host.container("peer").tcp_brief(at(v6, 1, 11), 80).by(),
                Some("c1"),
                "round {round}"
            );
            assert_eq!(
                host.outside().tcp_brief(addr::host(v6), 8080).by(),
                Some("c1"),
                "round {round}"
            );
        }
        host.w("rm -f c1").ok();
    }
}

/// What `peer` knew of an address is another's by then: it hears so from the new owner, before it asks for anything.
#[test]
fn neighbours_are_told_of_a_new_owner() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "peer", "A", 1, 50, "");
    let peer = host.container("peer");
    for n in 1..=3 {
        let mac = format!("02:77:00:00:00:0{n}");
        container(&host, "c1", "A", 1, 11, &format!("--mac-address {mac}"));
        // A broadcast that nobody needs would go to every container.
        let notifies = host.container("c1").sysctl("net/ipv4/conf/eth0/arp_notify");
        assert_eq!(notifies.as_deref() == Some("1"), n > 1, "owner {n}");
        for v6 in [false, true] {
            let family = if v6 { "-6" } else { "-4" };
            let to = at(v6, 1, 11);
            let known = || peer.ip(&format!("{family} neigh show {to}"));
            if n > 1 {
                wharf_testkit::eventually("the new owner", || known().contains(&mac).then_some(()));
            }
            assert!(peer.ping(to).reached(), "{to} of {mac}");
            assert!(known().contains(&mac), "{}", known());
        }
        host.w("rm -f c1").ok();
    }
}

#[test]
fn snat_address_is_used_outward() {
    require!();
    let host = host();
    network(&host, "A", 1, "-o com.docker.network.host_ipv4=10.0.2.3");
    container(&host, "a1", "A", 1, 11, "");
    let _far = Echo::tcp(host.outside(), "outside", 80);
    assert_eq!(
        host.container("a1").tcp(addr::OUTSIDE4, 80).source(),
        Some(addr::HOST4_B)
    );
    assert_eq!(
        host.container("a1").tcp(addr::OUTSIDE6, 80).source(),
        Some(addr::HOST6)
    );
}

#[test]
fn metric_and_no_default_route() {
    require!();
    let host = host();
    network(&host, "A", 1, "-o metric=250");
    network(&host, "B", 2, "-o no_default_route=true");
    container(&host, "a1", "A", 1, 11, "");
    container(&host, "b1", "B", 2, 11, "");
    let a1 = host.container("a1");
    for family in ["-4", "-6"] {
        let routes = a1.ip(&format!("{family} route show default"));
        assert!(routes.contains("metric 250"), "{routes}");
        assert_eq!(
            host.container("b1")
                .ip(&format!("{family} route show default"))
                .trim(),
            ""
        );
    }
}

#[test]
fn what_is_nobodys_business_is_left_alone() {
    require!();
    let host = host();
    host.sh("ip link add foreign type bridge; ip addr add 10.99.0.1/24 dev foreign; ip link set foreign up
         ip netns add vm; ip link add v1 type veth peer name eth0 netns vm; ip link set v1 master foreign up
         ip -n vm addr add 10.99.0.2/24 dev eth0; ip -n vm link set eth0 up; ip -n vm route add default via 10.99.0.1
         nft add table inet theirs; nft add chain inet theirs input '{ type filter hook input priority 0; }'
         nft add rule inet theirs input tcp dport 22 accept; ip rule add fwmark 0x99 lookup 99");
    let before = Snapshot::of(&host);
    let _host = Echo::tcp(host.netns(), "host", 7000);
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let vm = host.container("vm");
    assert_eq!(
        vm.tcp(ip("10.99.0.1"), 7000).source(),
        Some(ip("10.99.0.2"))
    );
    assert_eq!(host.netns().ping(ip("10.99.0.2")), Answer::Replied);
    assert!(Snapshot::of(&host).nft().contains("table inet theirs"));
    remove(&host, &["a1"], &["A"]);
    before.assert_same(&host, "beside a foreign bridge, table and rule");
}

#[test]
fn who_comes_in_by_a_published_port_appears_as_the_gateway_where_asked_for() {
    require!();
    let host = host();
    for (name, net, option) in [
        ("A", 1, "-o masquerade-published=true"),
        ("B", 2, "-o masquerade-published=false"),
    ] {
        network(&host, name, net, option);
        let port = format!("-p 808{net}:80");
        container(&host, &format!("c-{name}"), name, net, 11, &port);
        // It answers its gateway's networks only, as one whose default route leads elsewhere.
        for family in ["-4", "-6"] {
            let c = host.container(&format!("c-{name}"));
            c.ip(&format!("{family} route del default"));
        }
    }
    let _servers =
        ["A", "B"].map(|name| Echo::tcp(&host.container(&format!("c-{name}")), name, 80));
    for (to, v6) in [(addr::HOST4, false), (addr::HOST6, true)] {
        let answer = host.outside().tcp(to, 8081);
        assert_eq!(answer.by(), Some("A"));
        assert_eq!(answer.source(), Some(at(v6, 1, 1)), "the gateway");
        assert_eq!(host.outside().tcp_brief(to, 8082).by(), None, "{to}");
    }
}

/// What is said twice and differently, what cannot be, and a slip: one error, and nothing is made.
#[test]
fn options_that_cannot_be_are_refused() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    for (options, said) in [
        (
            "--mtu 1400 -o mtu=1300",
            "the MTU and the option for it differ",
        ),
        (
            "-o mtu=1400 -o com.docker.network.driver.mtu=1300",
            "are one option",
        ),
        ("--icc=true -o icc=false", "`icc` and the option for it"),
        (
            "--masquerade=true -o com.docker.network.bridge.enable_ip_masquerade=false",
            "`masquerade` and the option for it",
        ),
        (
            "--ipv6=false --subnet fd00:88::/64",
            "an IPv6 subnet is given, and no IPv6",
        ),
        ("-o outbound_addr4=fd00::1", "IPv4 address that a host can"),
        ("-o outbound_addr4=x", "IPv4 address that a host can have"),
        (
            "-o com.docker.network.host_ipv4=0.0.0.0",
            "IPv4 address that a host can have",
        ),
        ("-o outbound_addr6=10.0.2.2", "IPv6 address that a host can"),
        (
            "-o com.docker.network.bridge.host_binding_ipv4=224.0.0.1",
            "IPv4 address that a host can have",
        ),
        ("-o vlan=5", "only networks of Podman's"),
        ("-o isolat=true", "did you mean `isolate`?"),
        ("-o colour=red", "there are: icc, masquerade"),
    ] {
        host.w(&format!("network create x {options}"))
            .fails(1)
            .says(said);
    }
    host.w("network create x --subnet 10.1.0.0")
        .fails(2)
        .says("ADDRESS/LENGTH is expected");
    before.assert_same(&host, "what was refused");
    // Twice the same is no contradiction; an address may come later, or be routed here.
    host.w("network create x --mtu 1400 -o mtu=1400 -o com.docker.network.driver.mtu=1400")
        .ok();
    host.w("network create y --ipv6=false -o outbound_addr4=192.0.2.77")
        .ok()
        .says("no address of this host");
    let own = host.w(&format!(
        "network create z -o com.docker.network.host_ipv4={}",
        addr::HOST4
    ));
    assert_eq!(own.ok().stderr, "");
}

/// Who is not kept apart from other networks reaches what the outside reaches there, and no more.
#[test]
fn open_networks_do_not_reach_into_routed_ones() {
    require!();
    let host = host();
    let routed = "-o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.gateway_mode_ipv6=routed";
    network(&host, "R", 1, routed);
    network(&host, "O", 2, "-o isolate=false");
    container(&host, "r1", "R", 1, 11, "-p 8080:80");
    container(&host, "o1", "O", 2, 11, "");
    let (r1, o1) = (host.container("r1"), host.container("o1"));
    let _servers = (Echo::tcp(&r1, "r1", 80), Echo::tcp(&r1, "r1", 81));
    let mut m = Matrix::new();
    for v6 in [false, true] {
        let to = at(v6, 1, 11);
        m.tcp("a published port", &o1, to, 80, Want::No);
        m.tcp("another port", &o1, to, 81, Want::No);
        m.ping("ping", &o1, to, Want::No);
        let source = if v6 { addr::ROUTER6 } else { addr::ROUTER4 };
        let want = Want::ReachAs("r1", source);
        m.tcp("from outside", host.outside(), to, 80, want);
    }
    m.check();
}
