//! Routes, policy rules, neighbours and forwarding tables.

use std::collections::BTreeSet;

use ipnet::IpNet;
use wharf_core::addr::Family;
use wharf_core::trace::Space;
use wharf_core::trace::state::{NextHop, Route, RouteKind, RuleAction};

use crate::{alone, json, see, sh, word};

const STAGE: &str = "
    ip link add up0 type veth peer name down0
    ip link add up1 type veth peer name down1
    for l in up0 down0 up1 down1; do ip link set $l up; done
    ip addr add 10.9.0.1/24 dev up0
    ip -6 addr add fd00:9::1/64 dev up0 nodad
    ip addr add 10.8.0.1/24 dev up1
";

fn link_name(space: &Space, index: Option<u32>) -> String {
    let link = index.and_then(|i| space.link(i));
    link.map(|l| l.name.clone()).unwrap_or_default()
}

/// A route in the words of `ip -j route`.
fn words(space: &Space, route: &Route) -> String {
    let family = Family::of_net(route.dst);
    let dst = match route.dst.prefix_len() {
        0 => "default".to_owned(),
        n if n == family.bits() => route.dst.addr().to_string(),
        _ => route.dst.to_string(),
    };
    let kind = format!("{:?}", route.kind).to_lowercase();
    let hop = |h: &NextHop| {
        let via = h.via.map(|a| a.to_string()).unwrap_or_default();
        let flags = [(h.onlink, " onlink"), (h.dead, " dead")];
        let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        format!("[{via} {}{flags}]", link_name(space, h.link))
    };
    let hops: String = route.hops.iter().map(hop).collect();
    let from = route.from.map(|n| n.to_string()).unwrap_or_default();
    let src = route.prefsrc.map(|a| a.to_string()).unwrap_or_default();
    let (table, metric, mtu) = (route.table, route.metric, route.mtu);
    format!("{kind} {dst} from={from} table={table} metric={metric} src={src} mtu={mtu:?} {hops}")
}

/// The same from `ip -N -j -d route`.
fn shown(there: &serde_json::Value, rejects: bool) -> String {
    let or = |key: &str, other: &str| match word(there, key) {
        text if text.is_empty() => other.to_owned(),
        text => text,
    };
    let hop = |value: &serde_json::Value| {
        let mut via = word(value, "gateway");
        if let Some(host) = value["via"]["host"].as_str() {
            host.clone_into(&mut via);
        }
        let flags = value["flags"].to_string();
        let onlink = if flags.contains("onlink") {
            " onlink"
        } else {
            ""
        };
        let dead = flags.contains("dead") || flags.contains("linkdown");
        let dead = if dead { " dead" } else { "" };
        format!("[{via} {}{onlink}{dead}]", word(value, "dev"))
    };
    let hops: String = match there["nexthops"].as_array() {
        Some(list) => list.iter().map(hop).collect(),
        None if rejects => String::new(),
        None => hop(there),
    };
    let mtu = there["metrics"][0]["mtu"].as_u64();
    let (kind, dst, table) = (
        or("type", "unicast"),
        word(there, "dst"),
        or("table", "254"),
    );
    let kind = match kind.as_str() {
        "1" => "unicast",
        "2" => "local",
        "3" => "broadcast",
        "4" => "anycast",
        "5" => "multicast",
        "6" => "blackhole",
        "7" => "unreachable",
        "8" => "prohibit",
        "9" => "throw",
        text => text,
    };
    let (from, metric, src) = (
        word(there, "from"),
        or("metric", "0"),
        word(there, "prefsrc"),
    );
    format!("{kind} {dst} from={from} table={table} metric={metric} src={src} mtu={mtu:?} {hops}")
}

#[test]
fn routes_are_as_ip_shows_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh("ip route add default via 10.9.0.254 metric 50
        ip route add 10.20.0.0/16 via 10.99.0.1 dev up0 onlink table 100 mtu 1300 src 10.9.0.1
        ip route add 10.21.0.0/16 nexthop via 10.9.0.2 dev up0 nexthop via 10.8.0.2 dev up1
        ip route add blackhole 10.22.0.0/16
        ip route add unreachable 10.23.0.0/16 metric 9
        ip route add prohibit 10.24.0.0/16
        ip route add throw 10.25.0.0/16 table 7
        ip route add 10.26.0.0/16 via inet6 fe80::1 dev up0
        ip -6 route add default via fd00:9::fe dev up0
        ip -6 route add fd00:30::/48 from fd00:9::/64 via fd00:9::2
        ip -6 route add fd00:31::/48 nexthop via fd00:9::2 nexthop via fd00:9::3
        ip -6 route add unreachable fd00:32::/48
        ip nexthop add id 1 via 10.9.0.7 dev up0
        ip nexthop add id 2 via 10.9.0.8 dev up0
        ip nexthop add id 3 group 1/2
        ip nexthop add id 4 blackhole
        ip route add 10.27.0.0/16 nhid 1
        ip route add 10.28.0.0/16 nhid 3
        ip route add 10.29.0.0/16 nhid 4
        ip link set down1 down
        # The kernel notices in its own time.
        for i in $(seq 100); do ip -6 route | grep linkdown && break; sleep 0.05; done");
    for compat in ["1", "0"] {
        // Without compatibility the kernel names objects only.
        sh(&format!("sysctl -qw net.ipv4.nexthop_compat_mode={compat}"));
        let state = see(&[]);
        let host = state.host();
        let mut theirs = BTreeSet::new();
        sh("sysctl -qw net.ipv4.nexthop_compat_mode=1");
        for family in ["-4", "-6"] {
            for there in json(&format!("ip -N -j -d {family} route show table all")) {
                let kind = word(&there, "type");
                let rejects = ["6", "7", "8", "9"].contains(&kind.as_str());
                theirs.insert(shown(&there, rejects));
            }
        }
        let ours: BTreeSet<String> = host.routes.iter().map(|r| words(host, r)).collect();
        let (missing, more): (Vec<_>, Vec<_>) = (
            theirs.difference(&ours).collect(),
            ours.difference(&theirs).collect(),
        );
        assert!(
            missing.is_empty() && more.is_empty(),
            "{missing:#?}\n{more:#?}"
        );
        assert!(ours.len() > 20);
        let of = |dst: &str| {
            let dst: IpNet = dst.parse().unwrap();
            host.routes.iter().find(|r| r.dst == dst).unwrap()
        };
        assert_eq!(of("10.29.0.0/16").kind, RouteKind::Blackhole);
        assert_eq!(of("10.28.0.0/16").hops.len(), 2);
        assert_eq!(of("10.22.0.0/16").hops, []);
        assert_eq!(of("10.20.0.0/16").mtu, Some(1300));
        assert!(of("10.8.0.0/24").hops[0].dead, "its link has no carrier");
    }
}

#[test]
fn policy_rules_are_as_ip_shows_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh(
        "ip rule add pref 100 from 10.1.0.0/16 to 10.2.0.1 iif up0 oif up1 lookup 77
        ip rule add pref 101 fwmark 0x10/0xf0 ipproto tcp sport 1000-2000 dport 80 lookup 78
        ip rule add pref 102 not from 10.3.0.0/16 blackhole
        ip rule add pref 103 uidrange 5-9 prohibit
        ip rule add pref 104 lookup main suppress_prefixlength 0
        ip rule add pref 105 iif lo goto 32766
        ip rule add pref 106 tos 0x10 unreachable
        ip rule add pref 109 lookup main suppress_ifgroup 6
        ip rule add pref 110 tun_id 7 blackhole
        ip -6 rule add pref 107 from fd00:1::/64 lookup 79
        ip -6 rule add pref 108 l3mdev",
    );
    let state = see(&[]);
    let rules = &state.host().rules;
    let mut count = 0;
    for family in [Family::V4, Family::V6] {
        let flag = if family == Family::V4 { "-4" } else { "-6" };
        for there in json(&format!("ip -N -j {flag} rule show")) {
            let priority = word(&there, "priority");
            let seen = |r: &&wharf_core::trace::state::PolicyRule| {
                r.family == family && r.priority.to_string() == priority
            };
            let rule = rules.iter().find(seen).unwrap();
            if let RuleAction::Table(table) = rule.action
                && !rule.l3mdev
            {
                assert_eq!(table.to_string(), word(&there, "table"));
            }
            let iif = rule.iif.clone().unwrap_or_default();
            assert_eq!(iif, word(&there, "iif"));
            count += 1;
        }
    }
    assert_eq!(rules.len(), count);
    assert!(rules.is_sorted_by_key(|r| r.priority));
    let at = |pref: u32| rules.iter().find(|r| r.priority == pref).unwrap();
    assert_eq!(at(100).src, "10.1.0.0/16".parse().ok());
    assert_eq!(at(100).dst, "10.2.0.1/32".parse().ok());
    assert_eq!(at(100).oif.as_deref(), Some("up1"));
    assert_eq!(at(101).mark, Some((0x10, 0xf0)));
    assert_eq!(
        (at(101).ip_proto, at(101).sport),
        (Some(6), Some((1000, 2000)))
    );
    assert_eq!(at(101).dport, Some((80, 80)));
    assert_eq!(
        (at(102).invert, at(102).action),
        (true, RuleAction::Blackhole)
    );
    assert_eq!(
        (at(103).uids, at(103).action),
        (Some((5, 9)), RuleAction::Prohibit)
    );
    assert_eq!((at(104).suppress, at(100).suppress), (Some(0), None));
    assert_eq!(at(109).suppress_group, Some(6));
    assert_eq!((at(110).tunnel, at(104).tunnel), (true, false));
    assert_eq!(at(105).action, RuleAction::Goto(32766));
    assert_eq!(
        (at(106).tos, at(106).action),
        (0x10, RuleAction::Unreachable)
    );
    assert!(at(108).l3mdev && at(107).family == Family::V6);
}

#[test]
fn neighbours_and_forwarding_tables_are_as_ip_and_bridge_show_them() {
    if !alone() {
        return;
    }
    sh(STAGE);
    sh("ip link add br0 type bridge
        ip link set br0 up
        ip link set down0 master br0
        ip neigh add 10.9.0.5 lladdr 02:00:00:00:00:05 dev up0 nud permanent
        ip neigh add 10.9.0.6 lladdr 02:00:00:00:00:06 dev up0 nud stale
        ip neigh add 10.9.0.7 dev up0 nud failed
        ip neigh add 10.9.0.8 lladdr 02:00:00:00:00:08 dev up0 nud noarp
        ip neigh add fd00:9::5 lladdr 02:00:00:00:00:05 dev up0 nud reachable
        ip neigh add proxy 10.9.0.99 dev up0
        bridge fdb add 02:00:00:00:00:aa dev down0 master static
        bridge fdb add 02:00:00:00:00:bb dev down0 master permanent
        bridge fdb add 02:00:00:00:00:cc dev down0 self");
    let state = see(&[]);
    let host = state.host();
    let mut theirs = BTreeSet::new();
    for there in json("ip -j neigh show nud all") {
        let dst = word(&there, "dst");
        let multicast = dst.parse::<std::net::IpAddr>().unwrap().is_multicast();
        let kind = there["state"][0].as_str().unwrap_or("").to_lowercase();
        if !multicast && kind != "none" {
            theirs.insert(format!("{dst} {} {kind}", word(&there, "lladdr")));
        }
    }
    let ours: BTreeSet<String> = host
        .neighbours
        .iter()
        .filter(|n| !n.proxy)
        .map(|n| {
            let mac = n.mac.map(|m| m.to_string()).unwrap_or_default();
            let kind = format!("{:?}", n.state).to_lowercase();
            format!("{} {mac} {kind}", n.addr)
        })
        .collect();
    assert_eq!(ours, theirs);
    assert!(ours.contains("10.9.0.7  failed"));
    let proxies: Vec<_> = host.neighbours.iter().filter(|n| n.proxy).collect();
    assert_eq!(proxies.len(), 1);
    assert_eq!(proxies[0].addr.to_string(), "10.9.0.99");

    let mut theirs = BTreeSet::new();
    for there in json("bridge -j fdb show") {
        let flags = there["flags"].to_string();
        let (mac, dev) = (word(&there, "mac"), word(&there, "ifname"));
        let (own, kind) = (flags.contains("self"), word(&there, "state"));
        let fixed = kind == "permanent" || kind == "static";
        let vlan = word(&there, "vlan");
        theirs.insert(format!(
            "{mac} {dev} {own} {fixed} {} {vlan}",
            kind == "permanent"
        ));
    }
    let ours: BTreeSet<String> = host
        .fdb
        .iter()
        .map(|e| {
            let dev = link_name(host, Some(e.link));
            let vlan = e.vlan.map(|v| v.to_string()).unwrap_or_default();
            format!("{} {dev} {} {} {} {vlan}", e.mac, e.own, e.fixed, e.local)
        })
        .collect();
    assert_eq!(ours, theirs);
}
