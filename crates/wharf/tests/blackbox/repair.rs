//! `wharf repair`: whatever was damaged is as before, and running containers have not noticed.

use crate::common::*;
use serde_json::Value;
use wharf_testkit::{Echo, Host, Netns, Snapshot, addr, require};

/// Damage to a host with [`scene`], as a script, and whether it takes away anything inside a container.
const DAMAGE: &[(&str, &str)] = &[
    ("all rules flushed", "nft flush ruleset"),
    ("a table deleted", "nft delete table inet wharf"),
    (
        "a table switched off",
        "nft add table inet wharf '{ flags dormant; }'",
    ),
    (
        "a bridge does not know itself",
        "bridge fdb del $(ip -br link show wharf-a | awk '{ print $3 }') dev wharf-a self",
    ),
    ("a chain emptied", "nft flush chain inet wharf forward"),
    (
        "a rule that lets everything in",
        "nft insert rule inet wharf net-A-in accept",
    ),
    (
        "elements gone",
        "nft flush set inet wharf bridges; nft flush map inet wharf publish4; nft flush set bridge wharf guard6",
    ),
    (
        "strange elements",
        "nft add element inet wharf publish4 '{ tcp . 99 : 10.88.1.12 . 99 }'; nft add chain inet wharf mine",
    ),
    ("a bridge deleted", "ip link del wharf-a"),
    (
        "a bridge down",
        "ip link set wharf-a down; ip addr flush dev wharf-a",
    ),
    ("a port unplugged", "ip link set $PORT nomaster"),
    (
        "a port with other settings",
        "ip link set $PORT mtu 1400 group 7; bridge link set dev $PORT locked off learning on; ip link set $PORT alias mine",
    ),
    ("a cable with another name", "ip link set $PORT name mine"),
    (
        "a bridge with another name",
        "ip link set wharf-a name mine",
    ),
    (
        "other names, and everything flushed",
        "nft flush ruleset; ip link set wharf-a name mine; ip link set $PORT name mine2",
    ),
    ("a bridge without ARP", "ip link set wharf-a arp off"),
    (
        "a spanning tree",
        "ip link set wharf-a type bridge stp_state 1; ip link set $PORT down; ip link set $PORT up",
    ),
    (
        "a port that forwards nothing",
        "bridge link set dev $PORT state 0",
    ),
    (
        "a port that nobody finds",
        "bridge link set dev $PORT bcast_flood off mcast_flood off guard on; ip link set $PORT type bridge_slave group_fwd_mask 0",
    ),
    (
        "a bridge that does not forward",
        "sysctl -qw net.ipv4.conf.wharf-a.forwarding=0",
    ),
    ("a cable down", "ip link set $PORT down"),
    (
        "entries gone",
        "bridge fdb del $MAC dev $PORT master; ip neigh flush dev wharf-a nud permanent",
    ),
    (
        "sysctls changed",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.wharf-a.route_localnet=0 net.ipv6.conf.wharf-a.accept_ra=1",
    ),
    (
        "everything at once",
        "nft flush ruleset; ip link del wharf-a; sysctl -qw net.ipv4.ip_forward=0",
    ),
];

fn scene(host: &Host) {
    network(host, "A", 1, "--bridge wharf-a");
    network(
        host,
        "N",
        4,
        "--bridge wharf-n --icc=false -o host-access=dns",
    );
    network(host, "I", 3, "--bridge wharf-i --internal");
    container(
        host,
        "a1",
        "A",
        1,
        11,
        "-p 8080:80 -p 8000-8010:8000-8010 -p 10.0.2.2:90-91:190-191/udp",
    );
    container(host, "a2", "A", 1, 12, "");
    container(host, "n1", "N", 4, 11, "");
    host.w("network connect I a2").ok();
}

fn mended(host: &Host, line: &str) -> Vec<Value> {
    let said = host.w(line).json();
    said["mended"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("{said:#}"))
}

/// Numbers of the interfaces: other ones would be other interfaces.
fn interfaces(inside: &Netns) -> Vec<(String, u64)> {
    let list = inside.ip_json("link show");
    let all = list.as_array().cloned().unwrap_or_default();
    let one = |link: &Value| (text(link, "ifname"), link["ifindex"].as_u64().unwrap_or(0));
    all.iter().map(one).collect()
}

/// As before, but for the order in which nftables lists its objects: that of their making.
#[track_caller]
fn as_before(before: &Snapshot, host: &Host, what: &str) {
    let difference = before.difference_on(host);
    let lines: Vec<_> = difference
        .lines()
        .iter()
        .filter(|line| !line.contains("in another order"))
        .collect();
    assert!(lines.is_empty(), "{what}: {lines:#?}");
}

#[track_caller]
fn everything_works(host: &Host, what: &str) {
    for v6 in [false, true] {
        assert_eq!(
            host.outside().tcp(addr::host(v6), 8080).by(),
            Some("a1"),
            "{what}"
        );
        let a2 = host.container("a2");
        assert_eq!(a2.tcp(at(v6, 1, 11), 80).by(), Some("a1"), "{what}");
        assert!(a2.ping(addr::outside(v6)).reached(), "{what}");
        assert!(
            !host.outside().tcp_brief(at(v6, 1, 11), 80).reached(),
            "{what}"
        );
        assert!(
            !host.container("n1").tcp_brief(at(v6, 1, 11), 80).reached(),
            "{what}"
        );
    }
    assert_eq!(
        host.netns().tcp(ip("127.0.0.1"), 8080).by(),
        Some("a1"),
        "{what}"
    );
}

#[test]
fn whatever_was_damaged_is_as_before() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    scene(&host);
    let a1 = host.container("a1");
    let _web = Echo::tcp(&a1, "a1", 80);
    assert_eq!(
        mended(&host, "repair --json"),
        Vec::<Value>::new(),
        "nothing is damaged"
    );
    let before = Snapshot::of(&host);
    let inside = ["a1", "a2", "n1"].map(|name| interfaces(&host.container(name)));
    let port = text(&host.inspect("a1"), "networks/0/host_interface");
    let mac = text(&host.inspect("a1"), "networks/0/mac");
    for (what, script) in DAMAGE {
        host.sh(&format!("PORT={port}; MAC={mac}; {script}"));
        let damaged = before.difference_on(&host);
        assert!(!damaged.is_empty(), "{what}: the script changed nothing");
        let planned = host.w("repair --dry-run --json").json();
        assert_ne!(planned["steps"], serde_json::json!([]), "{what}");
        assert_eq!(
            damaged.lines(),
            before.difference_on(&host).lines(),
            "{what}: a dry run"
        );
        let said = host.w("repair").ok();
        assert!(
            said.stdout.starts_with("mended "),
            "{what}: {}",
            said.transcript()
        );
        as_before(&before, &host, what);
        assert_eq!(
            mended(&host, "repair --json"),
            Vec::<Value>::new(),
            "{what}: again"
        );
        let now = ["a1", "a2", "n1"].map(|name| interfaces(&host.container(name)));
        assert_eq!(now, inside, "{what}: the containers' interfaces");
        everything_works(&host, what);
    }
    remove(&host, &["a1", "a2", "n1"], &["A", "N", "I"]);
    bare.assert_same(&host, "damage and repair");
}

/// The commands a dry run shows do the same.
#[test]
fn the_commands_of_a_dry_run_mend_too() {
    require!();
    let host = host();
    scene(&host);
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    let port = text(&host.inspect("a1"), "networks/0/host_interface");
    for damage in [
        "nft flush ruleset; ip link del wharf-a".to_owned(),
        format!("ip link set wharf-a name mine; ip link set {port} name mine2"),
        format!("bridge link set dev {port} state 0; ip link set wharf-a arp off"),
        "ip link set wharf-a type bridge stp_state 1; ip -n a1 route replace default via 10.88.1.99"
            .to_owned(),
    ] {
        host.sh(&damage);
        let script = host.w("repair --dry-run").ok().stdout;
        host.sh(&script);
        everything_works(&host, &damage);
    }
}

/// Inside a container, without removing what its owner may have put there.
#[test]
fn damage_inside_a_container_is_mended() {
    require!();
    let host = host();
    scene(&host);
    let a1 = host.container("a1");
    let _web = Echo::tcp(&a1, "a1", 80);
    for damage in [
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        "ip route replace default via 10.88.1.99; ip -6 route replace default via fd00:88:1::99",
        "ip route replace blackhole default",
        "ip route del default; ip route del 10.88.1.0/24; ip -6 route del fd00:88:1::/64 dev eth0",
        "ip link set eth0 down; sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
    ] {
        a1.sh(damage);
        host.w("repair").ok();
        everything_works(&host, damage);
        assert!(a1.ping(addr::outside(false)).reached(), "{damage}");
        assert!(a1.ping(addr::outside(true)).reached(), "{damage}");
        assert_eq!(
            mended(&host, "repair --json"),
            Vec::<Value>::new(),
            "{damage}"
        );
    }
}

/// The kernel makes them with the addresses, and not again.
#[test]
fn the_way_from_the_host_to_a_network_is_mended() {
    require!();
    let host = host();
    scene(&host);
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    for damage in [
        "ip route del 10.88.1.0/24 dev wharf-a; ip -6 route del fd00:88:1::/64 dev wharf-a",
        "ip route replace 10.88.1.0/24 via 10.0.2.1",
        "ip route del 10.88.1.0/24 dev wharf-a; ip route add blackhole 10.88.1.0/24",
    ] {
        host.sh(damage);
        host.w("repair").ok();
        everything_works(&host, damage);
        assert_eq!(
            mended(&host, "repair --json"),
            Vec::<Value>::new(),
            "{damage}"
        );
    }
}

/// With an MTU below IPv6's its link has no IPv6, and that is its owner's choice.
#[test]
fn one_that_cannot_be_mended_is_told_and_the_rest_is_mended() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    network(&host, "B", 2, "--bridge wharf-b");
    container(&host, "a1", "A", 1, 11, "");
    container(&host, "b1", "B", 2, 11, "-p 8080:80");
    let (a1, b1) = (host.container("a1"), host.container("b1"));
    let _web = Echo::tcp(&b1, "b1", 80);
    a1.sh("ip link set eth0 mtu 1000");
    for line in ["repair", "repair --json"] {
        host.sh("nft flush ruleset; ip link del wharf-b");
        b1.sh("ip route del default");
        let said = host.w(line);
        assert_eq!(said.code, Some(1), "{}", said.transcript());
        for word in ["container `a1`", "net.ipv6.conf.eth0", "ENOENT"] {
            assert!(said.stderr.contains(word), "{word}: {}", said.transcript());
        }
        assert!(!said.stderr.contains("b1") && !said.stderr.contains("undone:"));
        assert!(
            said.stdout.contains("link wharf-b"),
            "{}",
            said.transcript()
        );
        assert!(!said.stdout.contains("netns/a1"), "{}", said.transcript());
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("b1"));
        assert!(b1.ping(addr::outside(true)).reached());
    }
    let said: Value = serde_json::from_str(&host.w("repair --json").stdout).expect("JSON");
    assert_eq!(said["mended"], serde_json::json!([]));
    assert_eq!(text(&said, "left/0/whose"), "container a1");
    // Changes of others go on meanwhile.
    host.sh("nft flush ruleset");
    container(&host, "b2", "B", 2, 12, "-p 8081:80");
    a1.sh("ip link set eth0 mtu 1500");
    host.w("repair").ok();
    assert!(a1.ping(addr::outside(true)).reached());
}

/// A live cable under another name is nobody's to cut, and goes with its container.
#[test]
fn links_with_other_names_stay_and_go_with_their_owner() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "");
    container(&host, "a2", "A", 1, 12, "");
    host.sh("ip netns add theirs");
    host.w("create a3 --network A --netns /run/netns/theirs")
        .ok();
    let rename = || {
        for (name, to) in [("a1", "x1"), ("a2", "x2"), ("a3", "x3")] {
            let port = text(&host.inspect(name), "networks/0/host_interface");
            host.sh(&format!("ip link set {port} name {to}"));
        }
        host.sh("ip link set wharf-a name mine");
    };
    rename();
    assert_eq!(host.w("gc --json").json()["removed"], serde_json::json!([]));
    host.sh("ip link show x1; ip link show mine");
    let found: Value = serde_json::from_str(&host.w("doctor --json").stdout).expect("JSON");
    assert!(
        found.to_string().contains("ip link set mine name wharf-a"),
        "{found:#}"
    );
    assert!(!found.to_string().contains("ip addr del"), "{found:#}");
    host.w("repair").ok();
    assert!(host.container("a1").ping(at(false, 1, 12)).reached());
    rename();
    host.w("network disconnect A a2").ok();
    remove(&host, &["a1", "a2", "a3"], &["A"]);
    host.sh("ip netns del theirs");
    bare.assert_same(&host, "other names");
}

#[test]
fn a_cut_cable_is_laid_again() {
    require!();
    let host = host();
    scene(&host);
    let a1 = host.container("a1");
    let web = Echo::tcp(&a1, "a1", 80);
    let port = text(&host.inspect("a1"), "networks/0/host_interface");
    host.sh(&format!("ip link del {port}"));
    host.w("repair").ok();
    everything_works(&host, "a new cable");
    a1.sh("ip addr flush dev eth0; ip link set eth0 down; ip link set eth0 up");
    host.w("repair").ok();
    everything_works(&host, "addresses flushed inside");
    drop(web);
}

/// Changes go on while rules are flushed and mended, and none is lost.
#[test]
fn repair_and_changes_at_once() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mender = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                host.w("repair").ok();
            }
        });
        let makers: Vec<_> = (0..4)
            .map(|thread| {
                let host = &host;
                scope.spawn(move || {
                    for round in 0..8 {
                        let name = format!("c{thread}x{round}");
                        let port = 9000 + thread * 100 + round;
                        host.w(&format!("create {name} --network A -p {port}:80"))
                            .ok();
                        if round % 2 == 0 {
                            host.w(&format!("rm {name}")).ok();
                        }
                    }
                })
            })
            .collect();
        makers
            .into_iter()
            .for_each(|maker| maker.join().expect("no panic"));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        mender.join().expect("no panic");
    });
    assert_eq!(mended(&host, "repair --json"), Vec::<Value>::new());
    let _web = Echo::tcp(&host.container("c3x7"), "c3x7", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 9307).by(), Some("c3x7"));
}

/// A create after another tool flushed the rules finds them made again.
#[test]
fn the_next_change_finds_the_rules_again() {
    require!();
    let host = host();
    scene(&host);
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    host.sh("nft flush ruleset");
    host.w("network create late --subnet 10.88.9.0/24").ok();
    everything_works(&host, "after a new network");
    host.sh("nft flush ruleset");
    host.w("port add a2 8081:81").ok();
    everything_works(&host, "after a new port");
    assert_eq!(mended(&host, "repair --json"), Vec::<Value>::new());
}

#[test]
fn a_lost_store_is_made_again_from_the_kernel() {
    require!();
    for lost in ["/run/wharf/db", "/run/wharf/db $STATE/db"] {
        for flushed in [false, true] {
            let host = host();
            let bare = Snapshot::of(&host);
            scene(&host);
            host.w("run -d --name job --network A -- sleep 1000").ok();
            let names_of = |line: &str| names(&host.w(line).json());
            let addresses = |name: &str| texts(&host.inspect(name), "networks/0/addresses");
            let (all, a1) = (names_of("ps --json"), addresses("a1"));
            host.sh(&format!(
                "STATE={}; rm -r {lost}",
                host.state_dir().display()
            ));
            if flushed && !lost.contains("STATE") {
                host.sh("nft flush ruleset");
            }
            host.w("repair --rebuild").ok();
            assert_eq!(names_of("ps --json"), all, "{lost}");
            assert_eq!(names_of("network ls --json"), ["A", "I", "N"], "{lost}");
            assert_eq!(addresses("a1"), a1, "{lost}");
            assert_eq!(
                mended(&host, "repair --json"),
                Vec::<Value>::new(),
                "{lost}"
            );
            let taken = host.w("create x --network A --ip 10.88.1.11");
            assert_eq!(
                taken.code,
                Some(1),
                "the address is a1's: {}",
                taken.transcript()
            );
            if !flushed {
                let _web = Echo::tcp(&host.container("a1"), "a1", 80);
                everything_works(&host, lost);
                let taken = host.w("create x --network A -p 8080:80");
                assert_eq!(
                    taken.code,
                    Some(1),
                    "the port is a1's: {}",
                    taken.transcript()
                );
            }
            remove(&host, &["a1", "a2", "n1", "job"], &["A", "N", "I"]);
            // Without store and rules nobody knows that wharf turned forwarding on.
            if !flushed || lost.contains("STATE") {
                bare.assert_same(&host, lost);
            }
        }
    }
}

/// Store and rules are lost at once: the ordinary commands take away what is left.
#[test]
fn without_store_and_rules_the_ordinary_commands_leave_nothing() {
    require!();
    // Whether wharf turned forwarding on only the rules told.
    let host = options().ip_forward(true).start();
    host.sh("sysctl -qw net.ipv6.conf.all.forwarding=1");
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    host.sh("rm -r /run/wharf/db; nft flush ruleset");
    remove(&host, &["a1"], &["A"]);
    bare.assert_same(&host, "after the loss");
}

#[test]
fn a_bridge_that_is_lost_with_the_store_is_made_again() {
    require!();
    for (flush, rebuild) in [("", true), ("nft flush ruleset;", true), ("", false)] {
        let host = host();
        network(&host, "A", 1, "--bridge wharf-a");
        container(&host, "a1", "A", 1, 11, "-p 8080:80");
        let _web = Echo::tcp(&host.container("a1"), "a1", 80);
        host.sh(&format!("{flush} rm -r /run/wharf/db; ip link del wharf-a"));
        if rebuild {
            host.w("repair --rebuild").ok();
            assert!(host.container("a1").ping(addr::OUTSIDE4).reached());
        }
        // The first command that needs the network finds it.
        container(&host, "a2", "A", 1, 12, "");
        assert!(host.container("a2").ping(addr::OUTSIDE4).reached());
        if rebuild {
            let a2 = host.container("a2");
            assert_eq!(a2.tcp(at(false, 1, 11), 80).by(), Some("a1"));
        }
        if rebuild && flush.is_empty() {
            assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
        }
    }
}

/// What an administrator set for links to come is not for those of wharf.
#[test]
fn the_hosts_defaults_for_new_links_do_not_matter() {
    require!();
    let host = options().ip_forward(true).start();
    host.sh(
        "sysctl -qw net.ipv4.conf.default.forwarding=0 net.ipv4.conf.default.route_localnet=1 net.ipv6.conf.default.disable_ipv6=1",
    );
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "");
    host.sh("ip netns add theirs");
    let theirs = host.container("theirs");
    theirs.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    host.w("create a2 --network A --netns /run/netns/theirs")
        .ok();
    assert!(host.container("a1").ping(addr::outside(true)).reached());
    assert!(theirs.ping(addr::outside(true)).reached());
    assert_eq!(
        host.netns().sysctl("net.ipv4.conf.wharf-a.route_localnet"),
        Some("0".to_owned())
    );
    assert_eq!(mended(&host, "repair --json"), Vec::<Value>::new());
    let said = host.w("doctor");
    assert!(
        said.stdout.ends_with("nothing is wrong\n"),
        "{}",
        said.transcript()
    );
    remove(&host, &["a1", "a2"], &["A"]);
    host.sh("ip netns del theirs");
    bare.assert_same(&host, "other defaults");
}
