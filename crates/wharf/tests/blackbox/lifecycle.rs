//! Containers without a program: create, adopt, connect, inspect, remove; and that each removes all it made.

use crate::common::*;
use wharf_testkit::{Answer, Echo, Snapshot, addr, require};

#[test]
fn create_inspect_rm() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    host.w(&format!(
        "create c1 --network A {} -p 5005:5000 -p 10.0.2.2:8000-8010:8000-8010/udp",
        ips(1, 11)
    ))
    .ok();
    let c1 = host.inspect("c1");
    assert_eq!(text(&c1, "name"), "c1");
    assert!(text(&c1, "id").len() >= 12, "{c1:#}");
    assert_eq!(text(&c1, "netns"), "/run/netns/c1");
    assert!(c1["pid"].is_null() || c1["pid"] == 0, "{c1:#}");
    assert_eq!(text(&c1, "networks/0/network"), "A");
    assert_eq!(text(&c1, "networks/0/interface"), "eth0");
    assert_eq!(
        texts(&c1, "networks/0/addresses"),
        ["10.88.1.11/24", "fd00:88:1::11/64"]
    );
    assert_eq!(
        texts(&c1, "networks/0/gateways"),
        ["10.88.1.1", "fd00:88:1::1"]
    );
    let inside = host.container("c1");
    assert_eq!(
        text(&c1, "networks/0/mac"),
        inside
            .mac("eth0")
            .map(|byte| format!("{byte:02x}"))
            .join(":")
    );
    let cable = text(&c1, "networks/0/host_interface");
    assert!(
        host.netns()
            .ip(&format!("link show dev {cable}"))
            .contains("master wharf-a")
    );
    let port = |n: usize, key: &str| text(&c1, &format!("ports/{n}/{key}"));
    let keys = ["host_ip", "host_port", "container_port", "protocol"];
    assert_eq!(keys.map(|key| port(0, key)), ["", "5005", "5000", "tcp"]);
    assert_eq!(
        keys.map(|key| port(1, key)),
        ["10.0.2.2", "8000-8010", "8000-8010", "udp"]
    );
    assert_eq!(host.w("ps --json").json()[0], c1, "ps shows the same");
    let seen = host.w("ps").ok();
    assert!(
        seen.stdout.contains("c1") && seen.stdout.contains("5005"),
        "{}",
        seen.transcript()
    );
    assert_eq!(text(&host.inspect_network("A"), "containers/0"), "c1");

    host.w("rm c1").ok();
    host.w("rm c1").fails(1).says("c1");
    host.w("rm -f c1").ok();
    host.w("network rm A").ok();
    before.assert_same(&host, "one container");
}

#[test]
fn names_are_unique_and_lists_take_several() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    host.w("create c1 --network A").ok();
    let before = Snapshot::of(&host);
    host.w("create c1 --network A").fails(1).says("c1");
    before.assert_same(&host, "a name in use");
    host.w("create c2 --network A").ok();
    let both = host.w("inspect c1 c2 --json").json();
    assert_eq!(names(&both), ["c1", "c2"]);
    host.w("inspect c1 nobody --json").fails(1).says("nobody");
    host.w("rm c1 c2").ok();
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
}

#[test]
fn adopts_a_namespace_by_path_and_by_pid_and_leaves_it_to_its_owner() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let mut shell = host
        .command("unshare")
        .args(["-n", "sleep", "1000"])
        .spawn();
    let pid = shell.host_pid();
    host.sh("ip netns add mine; ip -n mine link set lo up; ip -n mine link add keep type bridge");
    let before = Snapshot::of(&host);
    let mine_before = Snapshot::of_netns(&host.container("mine"));

    host.w(&format!(
        "create by-path --netns /run/netns/mine --network A {} -p 8080:80",
        ips(1, 11)
    ))
    .ok();
    host.w(&format!(
        "create by-pid --pid {pid} --network A {} -p 8081:80",
        ips(1, 12)
    ))
    .ok();
    let (mine, theirs) = (host.container("mine"), host.netns_of(pid));
    let _servers = (
        Echo::tcp(&mine, "by-path", 80),
        Echo::tcp(&theirs, "by-pid", 80),
    );
    assert_eq!(text(&host.inspect("by-path"), "netns"), "/run/netns/mine");
    for v6 in [false, true] {
        assert_eq!(
            host.outside().tcp(addr::host(v6), 8080).by(),
            Some("by-path")
        );
        assert_eq!(
            host.outside().tcp(addr::host(v6), 8081).by(),
            Some("by-pid")
        );
        assert_eq!(mine.tcp(at(v6, 1, 12), 80).source(), Some(at(v6, 1, 11)));
    }
    host.w("create again --netns /run/netns/mine --network A")
        .fails(1);
    host.w("exec by-pid -- true").ok();

    host.w("rm -f by-path by-pid").ok();
    assert!(shell.is_running(), "the process belongs to somebody else");
    let difference = mine_before.difference(&Snapshot::of_netns(&mine));
    assert!(
        difference.is_empty(),
        "the adopted namespace before and after:\n{difference}"
    );
    before.assert_same(&host, "two adopted namespaces");
}

#[test]
fn connect_and_disconnect_a_running_container() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    container(&host, "c1", "A", 1, 11, "");
    container(&host, "b1", "B", 2, 12, "");
    let (c1, b1) = (host.container("c1"), host.container("b1"));
    let before = (Snapshot::of(&host), Snapshot::of_netns(&c1));
    assert!(!c1.ping_brief(at(false, 2, 12)).reached());

    host.w(&format!("network connect B c1 {}", ips(2, 11))).ok();
    assert_eq!(c1.addresses("eth1"), [at(false, 2, 11), at(true, 2, 11)]);
    for v6 in [false, true] {
        assert_eq!(c1.ping(at(v6, 2, 12)), Answer::Replied);
        assert_eq!(b1.ping(at(v6, 2, 11)), Answer::Replied);
        assert_eq!(
            c1.ping(addr::outside(v6)),
            Answer::Replied,
            "the default route stays where it was"
        );
    }
    assert_eq!(text(&host.inspect("c1"), "networks/1/network"), "B");
    assert_eq!(texts(&host.inspect_network("B"), "containers").len(), 2);
    host.w("network connect B c1").fails(1);
    host.w("network rm B").fails(1);

    host.w("network disconnect B c1").ok();
    assert!(!c1.ping_brief(at(false, 2, 12)).reached());
    let difference = before.1.difference(&Snapshot::of_netns(&c1));
    assert!(
        difference.is_empty(),
        "inside, before and after:\n{difference}"
    );
    before.0.assert_same(&host, "connect and disconnect");
    host.w("network disconnect B c1").fails(1);
    host.w("network disconnect A c1").ok();
    assert_eq!(c1.interfaces(), ["lo"]);
    host.w(&format!("network connect A c1 {}", ips(1, 11))).ok();
    assert_eq!(
        c1.ping(addr::OUTSIDE4),
        Answer::Replied,
        "the default route is back"
    );
}

#[test]
fn several_networks_and_the_default_route() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    network(&host, "I", 3, "--internal");
    host.w("create c1 --network I:ip=10.88.3.11 --network A:ip=10.88.1.11 --network B:ip=10.88.2.11 -p 8080:80").ok();
    let c1 = host.container("c1");
    assert_eq!(c1.interfaces(), ["lo", "eth0", "eth1", "eth2"]);
    let gateway = |v6: bool| {
        c1.ip(if v6 {
            "-6 route show default"
        } else {
            "-4 route show default"
        })
    };
    assert!(
        gateway(false).contains("via 10.88.1.1 dev eth1"),
        "the first that leads out: {}",
        gateway(false)
    );
    let _web = Echo::tcp(&c1, "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    host.w("network disconnect A c1").ok();
    assert!(
        gateway(false).contains("via 10.88.2.1"),
        "the next takes over: {}",
        gateway(false)
    );
    assert_eq!(c1.ping(addr::OUTSIDE4), Answer::Replied);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("c1"),
        "ports follow the default route"
    );
    host.w("rm -f c1").ok();
    host.w("create c2 --network A --network B:gw-priority=10")
        .ok();
    let routes = host.container("c2").ip("-4 route show default");
    assert!(
        routes.contains("via 10.88.2.1"),
        "priority decides: {routes}"
    );
}

#[test]
fn rm_mends_what_others_broke() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    for (n, damage) in [
        (11, "ip netns del c11"),
        (
            12,
            "ip link del $(ip -o link show master wharf-a | head -1 | sed 's/^[0-9]*: //; s/@.*//')",
        ),
        (13, "nft flush ruleset"),
        (14, "ip link del wharf-a"),
        (15, "rm -r /run/wharf"),
    ] {
        container(&host, &format!("c{n}"), "A", 1, n, "-p 8080:80");
        host.sh(damage);
        let got = host.w(&format!("rm -f c{n}"));
        assert_eq!(got.code, Some(0), "after `{damage}`: {}", got.transcript());
    }
    host.w("network rm A").ok();
    host.sh("ip netns list | grep -q . && ip netns del c15 || true");
    before.assert_same(&host, "five kinds of damage");
}

#[test]
fn a_flushed_ruleset_is_restored_by_the_next_change() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    host.sh("nft flush ruleset");
    container(&host, "a2", "A", 1, 12, "");
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("a1"),
        "the older container's port as well"
    );
    assert!(
        !host.outside().tcp_brief(at(false, 1, 11), 80).reached(),
        "and the guard"
    );
}

/// What other tools' users type at `connect`, `ps` and `rm`.
#[test]
fn words_of_other_tools_are_understood() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    container(&host, "c", "A", 1, 11, "");
    host.w("network connect --alias db --alias sql --gw-priority 5 B c")
        .ok();
    let shown = host.inspect("c");
    assert_eq!(texts(&shown, "networks/1/aliases"), ["db", "sql"]);
    let routes = host.container("c").ip("-4 route show default");
    assert!(routes.contains("dev eth1"), "{routes}");
    host.w("network disconnect B c").ok();
    host.w("network connect B:gw-priority=7 c --gw-priority -1")
        .ok();
    let routes = host.container("c").ip("-4 route show default");
    assert!(routes.contains("dev eth0"), "{routes}");
    assert_eq!(host.w("ps -a --no-trunc -q").ok().stdout, "c\n");
    host.w("rm -fv c").ok();
    host.w("create webserver --network A").ok();
    for line in [
        "inspect websever",
        "rm webservre",
        "network inspect websever",
        "exec websrver -- true",
    ] {
        let got = host.w(line);
        let slip = !line.starts_with("network");
        let told = got.stderr.contains("did you mean `webserver`?");
        assert_eq!(told, slip, "{}", got.transcript());
    }
    for (line, said) in [
        ("stop c", "wharf rm -f NAME"),
        ("port rm c 5000", "such as 5000:5000"),
        ("inspect c --format x", "--json"),
        ("run --network-alias x -- true", "alias=NAME"),
    ] {
        host.w(line).fails(2).says(said);
    }
    host.w("run --network host -- true")
        .fails(125)
        .says("no such modes");
}

/// Labels are kept and shown, and containers and networks found by them.
#[test]
fn labels_are_kept_shown_and_found() {
    require!();
    let host = host();
    host.w("network create n --subnet 10.88.1.0/24 --label env=test")
        .ok();
    host.w("create a --network n --label team=x -l bare").ok();
    host.w("run -d --name b --network n --label team=y -- sleep 30")
        .ok();
    assert_eq!(
        host.inspect("a")["labels"],
        serde_json::json!({"bare": "", "team": "x"})
    );
    assert!(host.w("inspect a").ok().stdout.contains("bare=, team=x"));
    for (filters, found) in [
        ("-f label=team", "a\nb\n"),
        ("--filter label=team=x", "a\n"),
        ("-f label=team -f label=bare", "a\n"),
        ("-f name=a -f name=b", "a\nb\n"),
        ("-f status=running -f name=a -f name=b", "b\n"),
        ("-f network=n -f status=created", "a\n"),
        ("-f network=m", ""),
        ("-f owner=cli", "a\nb\n"),
    ] {
        assert_eq!(
            host.w(&format!("ps -q {filters}")).ok().stdout,
            found,
            "{filters}"
        );
    }
    let json = host.w("ps --json -f label=team=y").json();
    assert_eq!(names(&json), ["b"]);
    assert_eq!(host.w("network ls -q -f label=env").ok().stdout, "n\n");
    assert_eq!(host.w("network ls -q -f label=env=x").ok().stdout, "");
    host.w("ps -f colour=red").fails(2).says("no filter");
    host.w("network ls -f status=running")
        .fails(2)
        .says("label");

    let text = |team: &str| {
        format!("containers: {{c: {{networks: [n], labels: {{team: {team}, v: 1.0}}}}}}\n")
    };
    let file = host.dir().write("t.yaml", &text("z"));
    host.w(&format!("apply {file}")).ok();
    assert_eq!(
        host.inspect("c")["labels"],
        serde_json::json!({"team": "z", "v": "1.0"})
    );
    let plan = host.w(&format!("plan {file} --json")).json();
    assert_eq!(plan["steps"], serde_json::json!([]));
    host.dir().write("t.yaml", &text("q"));
    host.w(&format!("apply {file}")).ok();
    assert_eq!(
        host.inspect("c")["labels"],
        serde_json::json!({"team": "q", "v": "1.0"})
    );
}

/// Bridges have `network` in the place where cables have a container's name.
#[test]
fn a_container_that_is_not_there_takes_no_bridge_with_it() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "c", "A", 1, 11, "");
    let bridge = || host.sh("cat /sys/class/net/wharf-a/ifindex");
    let before = bridge();
    let shown = host.w("rm -f network --dry-run --json").ok().json();
    assert_eq!(
        shown["steps"].as_array().map(Vec::len),
        Some(0),
        "{shown:#}"
    );
    host.w("rm -f network").ok();
    assert_eq!(bridge(), before);
}
