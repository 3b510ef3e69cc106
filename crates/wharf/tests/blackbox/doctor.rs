//! `wharf doctor`: what it finds is broken, what it advises mends it, and sound hosts are left in peace.

use crate::common::*;
use serde_json::Value;
use wharf_testkit::skip::Need;
use wharf_testkit::{Echo, Host, addr, require};

/// Two networks; `web` is published and answers, `cache` is its sibling, `db` is on the other network.
pub fn stage() -> Host {
    let host = options().bridge_nf_call(false).start();
    network(&host, "front", 1, "--bridge br-front");
    network(&host, "back", 2, "--bridge br-back");
    container(&host, "web", "front", 1, 11, "-p 8080:80");
    container(&host, "cache", "front", 1, 12, "");
    container(&host, "db", "back", 2, 11, "");
    host
}

fn findings(host: &Host) -> Vec<Value> {
    let out = host.w("doctor --json");
    let said: Value = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
    let all = said["findings"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("{said:#}"));
    let unwell = all.iter().any(|f| f["severity"] != "info");
    out.exits(if unwell { 1 } else { 0 });
    all
}

/// Errors and warnings.
pub fn faults(host: &Host) -> Vec<Value> {
    let mut all = findings(host);
    all.retain(|f| f["severity"] != "info");
    all
}

/// Does what findings advise.
pub fn mend(host: &Host, faults: &[Value]) {
    for finding in faults {
        for fix in texts(finding, "fix") {
            // After `wharf repair` single steps may be done already.
            let fix = fix.replace("wharf ", &format!("{WHARF} "));
            host.sh(&format!("{fix} || true"));
        }
    }
}

/// Breaks something, has it found, does what is advised, and sees whether traffic flows again.
#[track_caller]
fn broken(host: &Host, breaks: &str, code: &str, works: &dyn Fn() -> bool) {
    assert!(works(), "before: {breaks}");
    host.sh(breaks);
    assert!(!works(), "nothing is broken by: {breaks}");
    let found = faults(host);
    let named = found.iter().any(|f| f["code"] == code);
    assert!(named, "{breaks}: {found:#?}");
    mend(host, &found);
    // A port that was blocked takes a moment.
    let flows = (0..10).any(|_| works());
    assert!(flows, "{breaks}: not mended by {found:#?}");
    let left = faults(host);
    assert!(left.is_empty(), "{breaks}: {left:#?}");
}

/// The host's end of a container's cable.
fn cable(host: &Host, name: &str) -> String {
    text(&host.inspect(name), "networks/0/host_interface")
}

#[test]
fn links_bridges_and_addresses() {
    require!();
    let host = stage();
    let [web, cache] = ["web", "cache"].map(|name| host.container(name));
    let (veth, other) = (cable(&host, "web"), cable(&host, "cache"));
    let near = || cache.ping_brief(at(false, 1, 11)).reached();
    let near6 = || cache.ping_brief(at(true, 1, 11)).reached();
    let far = || web.ping_brief(addr::OUTSIDE4).reached();
    let cases: &[(&str, &str, &dyn Fn() -> bool)] = &[
        (&format!("ip link set {veth} down"), "link-down", &near),
        (
            &format!("ip link set {veth} nomaster"),
            "not-on-bridge",
            &near,
        ),
        ("ip link set br-front down", "bridge-down", &far),
        ("ip link del br-front", "not-on-bridge", &far),
        ("ip link set br-front name theirs", "not-on-bridge", &far),
        (
            "ip link set br-front arp off; ip -n web neigh flush all",
            "neighbour-unreachable",
            &far,
        ),
        (
            &format!("bridge link set dev {veth} state 0"),
            "bridge-port-blocked",
            &far,
        ),
        (
            &format!(
                "ip link set br-front type bridge stp_state 1; ip link set {veth} down; ip link set {veth} up"
            ),
            "bridge-port-blocked",
            &far,
        ),
        ("ip link set up0 master br-front", "not-on-bridge", &far),
        ("ip route del 10.88.1.0/24 dev br-front", "no-route", &far),
        (&format!("ip link del {veth}"), "no-carrier", &far),
        (
            &format!(
                "bridge link set dev {veth} isolated on; bridge link set dev {other} isolated on"
            ),
            "bridge-port-blocked",
            &near,
        ),
        ("ip -n web link set eth0 down", "link-down", &near),
        (
            "ip -n web addr del 10.88.1.11/24 dev eth0",
            "no-address",
            &near,
        ),
        ("ip -n web route del default", "no-route", &far),
        (
            "ip -n web route replace default via 10.88.1.12",
            "wrong-gateway",
            &far,
        ),
        (
            "ip -n web link set eth0 address 02:00:00:00:00:99",
            "spoof-guard",
            &far,
        ),
        (
            "ip netns exec cache ip neigh replace 10.88.1.11 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
            "neighbour-wrong",
            &near,
        ),
        (
            "ip netns exec web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
            "ipv6-disabled",
            &near6,
        ),
        (
            "ip netns exec web sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
            "echo-ignored",
            &near,
        ),
    ];
    for (breaks, code, works) in cases {
        broken(&host, breaks, code, works);
    }
}

#[test]
fn what_is_there_twice() {
    require!();
    let host = stage();
    let cache = host.container("cache");
    // wharf's guard keeps the true owner reachable; the copy is found all the same.
    for (breaks, code) in [
        (
            "ip -n cache addr add 10.88.1.11/24 dev eth0",
            "duplicate-address",
        ),
        (
            "ip -n cache link set eth0 address $(ip -n web -j link show eth0 | jq -r '.[0].address')",
            "duplicate-mac",
        ),
    ] {
        host.sh(breaks);
        let found = faults(&host);
        let named = found
            .iter()
            .any(|f| f["code"] == code && f["netns"] == "cache");
        assert!(named, "{breaks}: {found:#?}");
        mend(&host, &found);
        assert!(faults(&host).is_empty(), "{breaks}");
        assert!(cache.ping(at(false, 1, 11)).reached(), "{breaks}");
    }
    let host_has =
        "ip link add vpn0 type bridge; ip addr add 10.88.1.11/32 dev vpn0; ip link set vpn0 up";
    let ping = || cache.ping_brief(at(false, 1, 1)).reached();
    assert!(ping());
    host.sh(host_has);
    let found = faults(&host);
    assert!(
        found.iter().any(|f| f["code"] == "route-conflict"),
        "{found:#?}"
    );
    mend(&host, &found);
    assert!(faults(&host).is_empty());
}

#[test]
fn routes_and_switches_of_the_host() {
    require!();
    let host = stage();
    let web = host.container("web");
    let _server = Echo::tcp(&web, "web", 80);
    let far = || web.ping_brief(addr::OUTSIDE4).reached();
    let far6 = || web.ping_brief(addr::OUTSIDE6).reached();
    let from_host = || host.netns().ping_brief(at(false, 1, 11)).reached();
    let published = || host.outside().tcp_brief(addr::HOST4, 8080).reached();
    let cases: &[(&str, &str, &dyn Fn() -> bool)] = &[
        (
            "sysctl -qw net.ipv4.ip_forward=0",
            "forwarding-disabled",
            &far,
        ),
        (
            "sysctl -qw net.ipv6.conf.all.forwarding=0",
            "forwarding-disabled",
            &far6,
        ),
        ("ip route add blackhole 192.0.2.0/24", "route-rejects", &far),
        (
            "ip rule add from 10.88.1.0/24 lookup 77 prio 50; ip route add unreachable default table 77",
            "policy-rule",
            &far,
        ),
        (
            "ip link add other type bridge; ip link set other up; ip route add 10.88.1.0/25 dev other",
            "route-conflict",
            &from_host,
        ),
        (
            "ip netns exec web sysctl -qw net.ipv4.ip_default_ttl=1",
            "ttl-expired",
            &far,
        ),
        ("nft delete table inet wharf", "rules-changed", &published),
        (
            "nft flush map inet wharf publish4",
            "rules-changed",
            &published,
        ),
        (
            "nft 'add table inet q; add chain inet q f { type filter hook forward priority 0; policy drop; }'",
            "firewall-policy",
            &far,
        ),
        ("iptables -P FORWARD DROP", "firewall-policy", &published),
        (
            "nft 'add table inet r; add chain inet r f { type filter hook forward priority 0; }; add rule inet r f iifname br-front drop'",
            "firewall-rule",
            &far,
        ),
        (
            "nft 'add table ip mine; add chain ip mine pre { type nat hook prerouting priority -110; }; add rule ip mine pre tcp dport 8080 dnat to 10.88.1.12:80'",
            "publish-shadowed",
            &published,
        ),
    ];
    for (breaks, code, works) in cases {
        broken(&host, breaks, code, works);
    }
}

/// What is advised opens the containers' bridge, not the link to the outside, and by the program that has the rules.
#[test]
fn a_policy_is_opened_for_bridges_alone() {
    require!(Need::Program("iptables-legacy"));
    for program in ["iptables-nft", "iptables-legacy"] {
        let host = stage();
        let _servers = [
            Echo::tcp(&host.container("web"), "web", 80),
            Echo::tcp(host.outside(), "outside", 80),
        ];
        let door = if program == "iptables-legacy" {
            "DOCKER-USER"
        } else {
            "FORWARD"
        };
        host.sh(&format!(
            "{program} -P FORWARD DROP; {program} -N DOCKER-USER; {program} -A DOCKER-USER -j RETURN
             [ {door} = FORWARD ] || {program} -A FORWARD -j DOCKER-USER"
        ));
        let published = || host.outside().tcp_brief(addr::HOST4, 8080);
        assert!(!published().reached());
        let said = host.w("exposure").stdout;
        let fixes: Vec<&str> = said
            .lines()
            .filter_map(|line| line.trim().strip_prefix("fix: "))
            .collect();
        let tool = if door == "FORWARD" {
            "iptables"
        } else {
            program
        };
        let opens = format!("{tool} -I {door} -o br-front -j ACCEPT");
        assert!(fixes.contains(&opens.as_str()), "{said}");
        assert!(!fixes.iter().any(|f| f.contains("up0")), "{said}");
        let found = faults(&host);
        mend(&host, &found);
        assert_eq!(published().by(), Some("web"), "{found:#?}");
        let out = host.container("web").tcp(addr::OUTSIDE4, 80);
        assert_eq!(out.by(), Some("outside"), "{found:#?}");
    }
}

#[test]
fn what_will_break_is_told() {
    require!();
    let host = stage();
    let veth = cable(&host, "web");
    for (breaks, code, undo) in [
        (
            "ip link add other type bridge; ip link set other up; ip addr add 10.88.1.200/24 dev other",
            "subnet-collision",
            "ip link del other",
        ),
        (&format!("ip link set {veth} mtu 1400"), "mtu-exceeded", ""),
        ("ip -n web link set eth0 mtu 1400", "mtu-exceeded", ""),
        ("ip -n web link set lo down", "link-down", ""),
        (
            "nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; }; add rule inet fw in tcp dport 8080 drop'",
            "firewall-bypassed",
            "",
        ),
    ] {
        host.sh(breaks);
        let found = faults(&host);
        let named = found.iter().any(|f| f["code"] == code);
        assert!(named, "{breaks}: {found:#?}");
        mend(&host, &found);
        let left = faults(&host);
        assert!(left.is_empty(), "{breaks}: {left:#?}");
        host.sh(undo);
    }
    // A program of the host whose port was taken from it.
    host.w("port rm web 127.0.0.1:8080:80").ok();
    host.w("port add web 8081:80").ok();
    let _listener = Echo::tcp(host.netns(), "host", 8081);
    let found = faults(&host);
    assert!(
        found.iter().any(|f| f["code"] == "publish-shadowed"),
        "{found:#?}"
    );
    mend(&host, &found);
    assert!(faults(&host).is_empty());
    // What is left of a container whose namespace is gone.
    host.sh("ip netns del db");
    let found = faults(&host);
    assert!(found.iter().any(|f| f["code"] == "leftover"), "{found:#?}");
    mend(&host, &found);
    assert!(faults(&host).is_empty());
    let all = host.w("ps --json").json();
    assert_eq!(names(&all), ["cache", "web"]);
}

#[test]
fn sound_hosts_are_left_in_peace() {
    require!();
    let host = stage();
    let quiet = |what: &str| {
        let found = faults(&host);
        assert!(found.is_empty(), "{what}: {found:#?}");
    };
    quiet("as made");
    for (what, script) in [
        (
            "Docker's chains and bridge",
            "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
             iptables -N DOCKER; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER
             iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -o docker0 -j DOCKER
             iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
             iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        ),
        (
            "ufw's way to close the host",
            "iptables -N ufw-before-input; iptables -A INPUT -j ufw-before-input
             iptables -A ufw-before-input -i lo -j ACCEPT
             iptables -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
             iptables -A ufw-before-input -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP",
        ),
        (
            "other routes, rules and ways",
            "ip route add 10.0.0.0/8 via 10.0.2.1; ip rule add from 10.9.0.0/16 lookup 100 prio 90
             ip route add default via 10.0.2.1 table 100
             ip route add default via 10.0.2.1 dev up0 metric 500; sysctl -qw net.ipv4.conf.all.rp_filter=2",
        ),
        (
            "other bridges",
            "ip link add virbr0 type bridge stp_state 1; ip addr add 192.168.122.1/24 dev virbr0; ip link set virbr0 up",
        ),
        ("frames shown to IP rules", "sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true"),
        ("no way out", "ip route flush exact default; ip -6 route del default"),
    ] {
        host.sh(script);
        // Of Docker's bridges wharf's rules are told.
        host.w("repair").ok();
        quiet(what);
    }
}

#[test]
fn networks_of_all_kinds_are_sound() {
    require!();
    let host = stage();
    host.w("network create odd --mtu 1280 --subnet 10.88.9.0/24")
        .ok();
    host.w("network create inside --internal").ok();
    host.w("network create apart --icc=false").ok();
    host.w("network create plain --masquerade=false --subnet 10.88.20.0/24")
        .ok();
    // Its IPv6 subnet is a random one.
    host.w("network create any --ipv6").ok();
    for (name, net) in [
        ("a1", "any"),
        ("a2", "any"),
        ("o1", "odd"),
        ("o2", "odd"),
        ("i1", "inside"),
        ("n1", "apart"),
        ("n2", "apart"),
        ("m1", "plain"),
    ] {
        host.w(&format!("create {name} --network {net}")).ok();
    }
    host.w("network connect inside web").ok();
    host.w("port add o1 7000-7003:7000-7003/udp").ok();
    let found = faults(&host);
    assert!(found.is_empty(), "{found:#?}");
    // A port that nobody serves yet is to know, not to mend.
    let all = findings(&host);
    assert!(all.iter().any(|f| f["code"] == "not-listening"), "{all:#?}");
}

/// Each on a host of its own, with containers and without: nothing is wrong, missing or left.
#[test]
fn networks_of_each_kind_alone_are_sound() {
    require!();
    for options in [
        "",
        "--ipv6 --mtu 1280",
        "--mtu 9000",
        "--mtu 576",
        "--internal --ipv6",
        "--icc=false --ipv6",
        "--masquerade=false",
        "--subnet fd00:77::/64",
        "-o host-access=none --ipv6",
        "-o isolate=false -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected",
        "-o com.docker.network.bridge.gateway_mode_ipv4=routed --ipv6",
        "-o com.docker.network.bridge.gateway_mode_ipv6=routed --ipv6",
        "-o com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
        "-o com.docker.network.bridge.trusted_host_interfaces=eth0",
        "-o com.docker.network.host_ipv4=10.0.2.3",
        "-o hairpin=true -o promisc=true",
        "-o masquerade-published=true --ipv6",
    ] {
        let host = host();
        let sound = |when: &str| {
            let found = faults(&host);
            assert!(found.is_empty(), "{options} {when}: {found:#?}");
            for what in ["repair", "gc"] {
                let plan = host.w(&format!("{what} --dry-run --json")).ok().json();
                let none = serde_json::json!([]);
                assert_eq!(plan["steps"], none, "{options} {when}: {what}");
            }
        };
        host.w(&format!("network create net {options}")).ok();
        sound("without containers");
        host.w("create a --network net -p 8080:80 -p 9000-9003:9000-9003/udp")
            .ok();
        host.w("create b --network net").ok();
        sound("with containers");
        host.w("rm -f a b").ok();
        sound("without containers again");
    }
}

#[test]
fn people_read_it_at_a_glance() {
    require!();
    let host = stage();
    let shown = host.w("doctor").exits(0).stdout;
    assert!(shown.ends_with("nothing is wrong\n"), "{shown}");
    host.sh("sysctl -qw net.ipv4.ip_forward=0");
    let shown = host.w("doctor").exits(1).stdout;
    assert!(
        shown.starts_with("error: forwarding-disabled in host: "),
        "{shown}"
    );
    assert!(
        shown.contains("\n  fix: sysctl -w net.ipv4.ip_forward=1\n"),
        "{shown}"
    );
    let prose = shown.lines().filter(|line| !line.starts_with("  fix: "));
    assert!(
        prose.into_iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    host.w("doctor web").exits(2);
}

/// A connection that is ending is nobody's any more, though its container is gone.
#[test]
fn connections_that_ended_are_no_finding() {
    require!(Need::Program("conntrack"));
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let web = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
    drop(web);
    host.w("rm -f a1").ok();
    let flows = host.sh("conntrack -L -p tcp");
    assert!(flows.contains("src=10.88.1.11"), "none is left: {flows}");
    let found: Value = serde_json::from_str(&host.w("doctor --json").stdout).expect("JSON");
    assert!(!found.to_string().contains("conntrack-stale"), "{found:#}");
}

/// What is inside is its owner's: `wharf repair` alone mends none of it, and is not all that is advised.
#[test]
fn what_somebody_changed_inside_is_mended_by_what_is_advised() {
    require!();
    let host = stage();
    let web = host.container("web");
    let far = || web.ping_brief(addr::OUTSIDE4).reached();
    let near = || {
        host.container("cache")
            .ping_brief(at(true, 1, 11))
            .reached()
    };
    let both = || far() && near();
    for (breaks, code) in [
        (
            "ip -n web link set eth0 address 02:00:00:00:00:09",
            "spoof-guard",
        ),
        (
            "ip -n web link set eth0 down; ip -n web link set eth0 name other; ip -n web link set other up",
            "no-address",
        ),
        (
            "ip -n web link set eth0 netns cache name away",
            "no-address",
        ),
    ] {
        broken(&host, breaks, code, &both);
    }
    host.sh("ip -n web link set eth0 address 02:00:00:00:00:09");
    let guard = faults(&host);
    assert!(!guard.is_empty());
    for fault in &guard {
        assert_ne!(texts(fault, "fix"), ["wharf repair"], "{fault:#}");
    }
}
