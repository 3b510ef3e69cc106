//! Links, peers, ports, addresses, and the sysctls that come with links.

use std::collections::BTreeSet;

use wharf_core::trace::state::{HOST, Link, Place};

use crate::{alone, json, see, sh, space, word};

/// Two containers on a bridge, a router beyond a veth pair, and a pair inside the host.
const STAGE: &str = "
    for n in c1 c2 out; do ip netns add $n; ip -n $n link set lo up; done
    ip link add br.0 type bridge stp_state 1
    ip addr add 10.9.0.1/24 dev br.0
    ip -6 addr add fd00:9::1/64 dev br.0 nodad
    ip link set br.0 up
    for n in 1 2; do
        ip link add h$n type veth peer name eth0 netns c$n
        ip link set h$n master br.0 up alias \"port $n\" group 7
        ip -n c$n addr add 10.9.0.1$n/24 dev eth0
        ip -n c$n link set eth0 up
    done
    bridge link set dev h1 isolated on hairpin on learning off flood off
    ip link add up0 mtu 1400 type veth peer name down0 mtu 1400 netns out
    ip addr add 192.0.2.2/30 dev up0
    ip addr add 10.1.1.1 peer 10.1.1.2/32 dev up0
    ip link set up0 up
    ip -n out addr add 192.0.2.1/30 dev down0
    ip -n out link set down0 up
    ip link add va type veth peer name vb
    ip link set va up
    ip link add vx type vxlan id 77 dstport 4789
";

fn master(links: &[Link], link: &Link) -> String {
    let found = links.iter().find(|l| Some(l.index) == link.master);
    found.map(|l| l.name.clone()).unwrap_or_default()
}

fn compare_links(state: &wharf_core::trace::ObservedState, name: &str, enter: &str) {
    let space = space(state, name);
    let shown = json(&format!("{enter}ip -j -d link show"));
    assert_eq!(space.links.len(), shown.len(), "{name}");
    for (link, there) in space.links.iter().zip(&shown) {
        let flags: BTreeSet<&str> = there["flags"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|f| f.as_str())
            .collect();
        assert_eq!(link.index.to_string(), word(there, "ifindex"));
        assert_eq!(link.name, word(there, "ifname"));
        assert_eq!(link.mtu.to_string(), word(there, "mtu"), "{}", link.name);
        assert_eq!(link.up, flags.contains("UP"), "{}", link.name);
        assert_eq!(link.carrier, flags.contains("LOWER_UP"), "{}", link.name);
        assert_eq!(
            link.alias.clone().unwrap_or_default(),
            word(there, "ifalias")
        );
        let promiscuity = there["promiscuity"].as_u64().unwrap_or(0);
        assert_eq!(link.promisc, promiscuity > 0, "{}", link.name);
        assert_eq!(master(&space.links, link), word(there, "master"));
        if !link.loopback {
            let mac = link.mac.unwrap().to_string();
            assert_eq!(mac, word(there, "address"), "{}", link.name);
            let kind = link.kind.clone().unwrap_or_default();
            assert_eq!(kind, word(&there["linkinfo"], "info_kind"));
        }
    }
}

#[test]
fn links_are_as_ip_shows_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    let state = see(&["c1"]);
    compare_links(&state, "host", "");
    compare_links(&state, "c1", "ip netns exec c1 ");
    compare_links(&state, "/run/netns/c2", "ip netns exec c2 ");
    compare_links(&state, "/run/netns/out", "ip netns exec out ");
    assert_eq!(space(&state, "c1").enter, "ip netns exec c1 ");
    assert_eq!(space(&state, "host").enter, "");
    let tunnel = state.host().link_named("vx").unwrap();
    assert_eq!((tunnel.vni, tunnel.vlan), (Some(77), None));
    let groups = json("ip -j link show group 7");
    let host = state.host();
    let seen = host.links.iter().filter(|l| l.group == 7);
    assert_eq!((seen.count(), groups.len()), (2, 2));
}

#[test]
fn the_other_end_of_each_cable_is_known() {
    if !alone() {
        return;
    }
    sh(STAGE);
    let state = see(&["c1"]);
    let host = state.host();
    let at = |space: &str, link: &str| {
        let id = state.spaces.iter().position(|s| s.name == space).unwrap();
        let index = state.spaces[id].link_named(link).unwrap().index;
        Place { space: id, index }
    };
    for (near, far) in [
        (("host", "h1"), ("c1", "eth0")),
        (("host", "h2"), ("/run/netns/c2", "eth0")),
        (("host", "up0"), ("/run/netns/out", "down0")),
        (("host", "va"), ("host", "vb")),
    ] {
        let (near, far) = (at(near.0, near.1), at(far.0, far.1));
        assert_eq!(state.link(near).unwrap().peer, Some(far));
        assert_eq!(state.link(far).unwrap().peer, Some(near));
        assert_eq!(state.link(far).unwrap().lower, None);
    }
    assert!(host.full && space(&state, "c1").full);
    // No container of wharf's: a router, for all that is known.
    assert!(space(&state, "/run/netns/out").full);
}

#[test]
fn a_cable_into_the_dark_and_a_link_on_another_namespace() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh("ip netns add dark
        ip link add d0 type veth peer name d1 netns dark
        ip link add mv0 link up0 netns c1 type macvlan");
    // It lives on without a name.
    let _held = std::fs::File::open("/run/netns/dark").unwrap();
    sh("ip netns del dark");
    let state = see(&["c1"]);
    let dark = state.host().link_named("d0").unwrap();
    assert!(dark.peer.is_none() && dark.lower.is_some());
    let on = space(&state, "c1").link_named("mv0").unwrap();
    let up0 = state.host().link_named("up0").unwrap();
    assert_eq!((on.peer, on.lower), (None, Some(up0.index)));
    assert_eq!(on.lower_space, Some(HOST));
}

#[test]
fn ports_and_bridges_are_as_bridge_shows_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    let state = see(&[]);
    let host = state.host();
    let bridge = host.link_named("br.0").unwrap().bridge.clone().unwrap();
    assert!(bridge.stp && !bridge.vlan_filtering);
    for there in json("bridge -j -d link show") {
        let name = word(&there, "ifname");
        let port = host.link_named(&name).unwrap().port.clone().unwrap();
        let flag = |key: &str| there[key].as_bool().unwrap();
        assert_eq!(port.isolated, flag("isolated"), "{name}");
        assert_eq!(port.hairpin, flag("hairpin"), "{name}");
        assert_eq!(port.learning, flag("learning"), "{name}");
        assert_eq!(port.flood, flag("flood"), "{name}");
        assert_eq!(port.mcast_flood, flag("mcast_flood"), "{name}");
        assert_eq!(port.bcast_flood, flag("bcast_flood"), "{name}");
        assert_eq!(port.neigh_suppress, flag("neigh_suppress"), "{name}");
        assert_eq!(port.locked, flag("locked"), "{name}");
        let state = [
            "disabled",
            "listening",
            "learning",
            "forwarding",
            "blocking",
        ];
        assert_eq!(state[usize::from(port.state)], word(&there, "state"));
    }
    assert!(
        host.link_named("h1")
            .unwrap()
            .port
            .clone()
            .unwrap()
            .isolated
    );
}

#[test]
fn addresses_are_as_ip_shows_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh("sysctl -qw net.ipv6.conf.va.accept_dad=1
        ip link set vb up
        ip -6 addr add fd00:77::1/64 dev va");
    let state = see(&[]);
    let host = state.host();
    let mut count = 0;
    for there in json("ip -j addr show") {
        for addr in there["addr_info"].as_array().unwrap() {
            let local = word(addr, "local");
            let seen = host
                .addrs
                .iter()
                .find(|a| a.net.addr().to_string() == local)
                .unwrap_or_else(|| panic!("{local} was not seen"));
            assert_eq!(seen.link.to_string(), word(&there, "ifindex"));
            assert_eq!(seen.net.prefix_len().to_string(), word(addr, "prefixlen"));
            let peer = seen.peer.map(|p| p.to_string()).unwrap_or_default();
            assert_eq!(peer, word(addr, "address"), "{local}");
            let scope = match seen.scope {
                0 => "global",
                253 => "link",
                254 => "host",
                _ => "other",
            };
            assert_eq!(scope, word(addr, "scope"), "{local}");
            count += 1;
        }
    }
    assert_eq!(host.addrs.len(), count);
    assert!(
        host.addrs
            .iter()
            .any(|a| a.net.addr().to_string() == "fd00:77::1" && a.tentative)
    );
}

#[test]
fn sysctls_are_as_their_files() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh("cd /proc/sys/net
        echo 2 > ipv4/conf/h1/rp_filter; echo 1 > ipv4/conf/h1/arp_filter; echo 1 > ipv4/conf/h1/disable_policy
        echo 2 > ipv4/conf/br.0/arp_announce; echo 8 > ipv4/conf/br.0/arp_ignore; echo 1 > ipv4/conf/br.0/accept_local
        echo 1 > ipv4/conf/up0/route_localnet; echo 1 > ipv4/conf/up0/proxy_arp; echo 1 > ipv4/conf/up0/src_valid_mark
        echo 1 > ipv4/conf/up0/proxy_arp_pvlan; echo 1 > ipv4/conf/up0/ignore_routes_with_linkdown
        echo 1 > ipv4/conf/up0/bc_forwarding; echo 1 > ipv4/conf/h2/forwarding
        echo 1 > ipv6/conf/h2/disable_ipv6; echo 2 > ipv6/conf/up0/accept_ra; echo 1 > ipv6/conf/up0/proxy_ndp
        echo 1 > ipv6/conf/up0/forwarding; echo 2 > ipv6/conf/up0/accept_dad; echo 1 > ipv6/conf/up0/disable_policy
        echo 1 > ipv6/conf/va/ignore_routes_with_linkdown; echo 1 > ipv4/icmp_echo_ignore_all");
    sh("ip netns exec c1 sysctl -qw net.ipv4.ip_forward=1 net.ipv4.ip_default_ttl=7");
    let state = see(&["c1"]);
    for (name, enter, least) in [("host", "", 150), ("c1", "ip netns exec c1 ", 60)] {
        let space = space(&state, name);
        let script: String = space
            .sysctls
            .keys()
            // `sysctl` swaps dots and slashes.
            .map(|key| {
                let path: String = key
                    .chars()
                    .map(|c| match c {
                        '.' => '/',
                        '/' => '.',
                        c => c,
                    })
                    .collect();
                format!("{key} /proc/sys/{path}\n")
            })
            .collect();
        std::fs::write("/run/list", script).unwrap();
        let shown = sh(&format!(
            "{enter}sh -c 'while read k f; do echo \"$k $(cat $f | tr \"\\t\" \" \")\"; done < /run/list'"
        ));
        assert!(space.sysctls.len() > least, "{}", space.sysctls.len());
        for line in shown.lines() {
            let (key, value) = line.split_once(' ').unwrap();
            // It changes as connections come and go.
            if key != "net.netfilter.nf_conntrack_count" {
                assert_eq!(
                    space.sysctls[key].replace('\t', " "),
                    value,
                    "{name}: {key}"
                );
            }
        }
        assert_eq!(shown.lines().count(), space.sysctls.len());
    }
    assert_eq!(
        space(&state, "c1").sysctl("net.ipv4.ip_default_ttl"),
        Some(7)
    );
    assert_eq!(
        state.host().sysctl("net.ipv4.conf.br/0.arp_ignore"),
        Some(8)
    );
}
