//! The store is lost while a container lies about itself: what it has is what the host knows of it.

use crate::common::*;
use serde_json::{Value, json};
use std::net::IpAddr;
use wharf_testkit::{Echo, Host, Running, addr, eventually, require};

/// What is lost beside the run store: nothing; the rules.
const LOSSES: [&str; 2] = ["true", "nft flush ruleset"];
/// All that tells network addresses.
const ALL: &str = "nft flush ruleset; ip neigh flush dev wa nud permanent";

/// `evil` at .66 and `victim` at .77 of one network, who publishes a port.
fn world() -> Host {
    let host = host();
    network(&host, "A", 1, "--bridge wa");
    container(&host, "evil", "A", 1, 66, "");
    container(&host, "victim", "A", 1, 77, "-p 8080:80");
    host
}

fn lose(host: &Host, more: &str) {
    host.sh(&format!("rm -r /run/wharf/db; {more}"));
    host.w("repair").ok();
    if more.contains("nft flush") {
        // What is published only the rules know.
        host.w("port add victim 8080:80").ok();
    }
}

/// All that is known of a container, but what is drawn anew.
fn record(host: &Host, name: &str) -> Value {
    let mut record = host.inspect(name);
    for drawn in ["id", "created"] {
        record[drawn] = Value::Null;
    }
    record
}

/// Nothing is left to mend, and mending did not change that.
#[track_caller]
fn is_settled(host: &Host, case: &str) {
    for command in ["repair --dry-run --json", "gc --dry-run --json"] {
        let steps = host.w(command).json();
        assert_eq!(steps["steps"], json!([]), "{case}: {command}");
    }
}

/// Each has its own, and nobody else gets it.
#[track_caller]
fn all_have_their_own(host: &Host, case: &str) {
    let mac = |n: u8| format!("02:01:0a:58:01:{n:02x}");
    for (name, n) in [("evil", 66), ("victim", 77)] {
        let network = &host.inspect(name)["networks"][0];
        let addresses: Vec<String> = texts(network, "addresses");
        let own = [false, true].map(|v6| at(v6, 1, n));
        let is: Vec<IpAddr> = addresses
            .iter()
            .map(|a| ip(a.split('/').next().unwrap()))
            .collect();
        assert_eq!(is, own, "{case}: {name}");
        assert!(
            text(network, "mac").ends_with(&format!(":{n:02x}")),
            "{case}: {name}"
        );
        assert_eq!(
            text(&host.inspect(name), "netns"),
            format!("/run/netns/{name}")
        );
        let entries = host.sh(&format!(
            "bridge fdb show br wa | grep -i {} || true",
            &mac(n)[6..]
        ));
        assert_eq!(entries.lines().count(), 1, "{case}: {entries}");
    }
    for set in ["guard4", "guard6"] {
        let table = host.sh(&format!("nft list set bridge wharf {set}"));
        let of = |addr: IpAddr| table.matches(&format!(". {addr}")).count();
        for n in [1, 200] {
            let addr = at(set == "guard6", 1, n);
            let exact =
                table.contains(&format!(". {addr},")) || table.contains(&format!(". {addr} "));
            assert!(!exact, "{case}: {addr}: {table}");
        }
        assert_eq!(of(at(set == "guard6", 1, 77)), 1, "{case}: {table}");
    }
    let known = host.sh("ip neigh show dev wa nud permanent");
    for n in [1, 200] {
        for v6 in [false, true] {
            let addr = format!("{} ", at(v6, 1, n));
            assert!(
                !known.lines().any(|l| l.starts_with(&addr)),
                "{case}: {known}"
            );
        }
    }
    assert_eq!(host.inspect("evil")["ports"], json!([]), "{case}");
    is_settled(host, case);
}

/// Whoever is removed takes only his own with him.
#[track_caller]
fn evil_goes_alone(host: &Host, case: &str) {
    let _web = Echo::tcp(&host.container("victim"), "victim", 80);
    host.w("rm -f evil").ok();
    for v6 in [false, true] {
        let reached = host.outside().tcp(addr::host(v6), 8080);
        assert_eq!(reached.by(), Some("victim"), "{case}: {v6}");
    }
    assert!(!host.sh("ls /run/netns").contains("evil"), "{case}");
    for line in [
        "create new --network A --ip 10.88.1.77",
        "create new --network A --ip fd00:88:1::77",
        "create new --network A -p 8080:80",
    ] {
        let taken = host.w(line);
        assert!(
            taken.stderr.contains("victim"),
            "{case}: {}",
            taken.transcript()
        );
    }
    container(host, "evil", "A", 1, 66, "");
    assert!(
        host.container("evil").tcp(at(true, 1, 77), 80).by() == Some("victim"),
        "{case}"
    );
}

/// A namespace that nobody but a process holds.
fn child(host: &Host) -> Running {
    let process = host
        .command("unshare")
        .args(["-n", "sleep", "1000"])
        .spawn();
    let pid = process.host_pid();
    eventually("the process has its own namespace", || {
        let same = host.sh(&format!(
            "[ $(readlink /proc/{pid}/ns/net) = $(readlink /proc/self/ns/net) ] && echo same || true"
        ));
        same.is_empty().then_some(())
    });
    process
}

#[test]
fn addresses_that_nobody_gave_are_not_taken_over() {
    require!();
    let host = world();
    for loss in LOSSES {
        let more = ["10.88.1.77/24", "10.88.1.1/24", "10.88.1.200/24"]
            .into_iter()
            .chain(["fd00:88:1::77/64", "fd00:88:1::1/64", "fd00:88:1::200/64"]);
        for addr in more {
            host.container("evil")
                .sh(&format!("ip addr add {addr} dev eth0 nodad"));
        }
        lose(&host, loss);
        all_have_their_own(&host, loss);
        evil_goes_alone(&host, loss);
    }
}

#[test]
fn who_says_that_a_siblings_address_is_his_does_not_get_it() {
    require!();
    let host = world();
    for loss in LOSSES {
        host.container("evil")
            .sh("ip addr flush dev eth0; ip addr add 10.88.1.77/24 dev eth0
             ip addr add fd00:88:1::77/64 dev eth0 nodad");
        lose(&host, loss);
        let addresses = texts(&host.inspect("victim"), "networks/0/addresses");
        assert_eq!(addresses, ["10.88.1.77/24", "fd00:88:1::77/64"], "{loss}");
        let first = texts(&host.inspect("evil"), "networks/0/addresses");
        assert_eq!(first[0], "10.88.1.66/24", "{loss}");
        evil_goes_alone(&host, loss);
    }
}

/// Hardware addresses follow from IPv4 addresses: of these the host knows whose they are. Of the others it knows nothing more.
#[test]
fn what_two_say_is_neithers_where_the_host_knows_nothing() {
    require!();
    let host = world();
    host.container("evil")
        .sh("ip addr flush dev eth0; ip addr add 10.88.1.77/24 dev eth0
         ip addr add 10.88.1.1/24 dev eth0
         ip addr add fd00:88:1::77/64 dev eth0 nodad
         ip addr add fd00:88:1::1/64 dev eth0 nodad");
    host.sh(&format!("rm -r /run/wharf/db; {ALL}"));
    let told = host.w("repair");
    for word in ["fd00:88:1::77", "`evil`", "`victim`"] {
        assert!(told.stderr.contains(word), "{word}: {}", told.transcript());
    }
    for (name, addr) in [("evil", "10.88.1.66/24"), ("victim", "10.88.1.77/24")] {
        assert_eq!(
            texts(&host.inspect(name), "networks/0/addresses"),
            [addr],
            "{name}"
        );
    }
    is_settled(&host, "all is lost");
    let taken = host.w("create new --network A --ip 10.88.1.77");
    assert!(taken.stderr.contains("victim"), "{}", taken.transcript());
    host.w("network disconnect A victim").ok();
    host.w("network connect A victim --ip 10.88.1.77 --ip fd00:88:1::77")
        .ok();
    let _web = Echo::tcp(&host.container("victim"), "victim", 80);
    assert_eq!(host.netns().tcp(at(true, 1, 77), 80).by(), Some("victim"));
}

#[test]
fn a_hardware_address_is_what_the_host_knows_it_to_be() {
    require!();
    let host = world();
    let victims = host.container("victim").mac("eth0");
    let bridges = host.netns().mac("wa");
    for loss in LOSSES {
        for mac in [victims, bridges] {
            let mac = mac.map(|b| format!("{b:02x}")).join(":");
            host.container("evil")
                .sh(&format!("ip link set eth0 address {mac}"));
            lose(&host, loss);
            all_have_their_own(&host, &format!("{loss}: {mac}"));
            evil_goes_alone(&host, loss);
        }
    }
}

/// A container chooses names and numbers of its links.
#[test]
fn a_link_that_looks_like_a_siblings_is_not_its() {
    require!();
    let host = world();
    let owner = child(&host);
    let below = child(&host);
    let (pid, lower) = (owner.host_pid(), below.host_pid());
    host.w("rm -f victim").ok();
    host.w(&format!(
        "create victim --pid {pid} --network A {} -p 8080:80",
        ips(1, 77)
    ))
    .ok();
    let mut before = record(&host, "victim");
    // Whoever gave the namespace is not written on the cable.
    before["owner"] = json!("unknown");
    let links = host.netns_of(pid).ip_json("link show eth0");
    let (own, peer) = (&links[0]["ifindex"], &links[0]["link_index"]);
    host.sh(&format!(
        "ip -n evil link set eth0 netns {lower}
         ip -n evil link add fake index {own} type veth peer name p2 index {peer} netns {lower}
         ip -n evil addr add 10.88.1.77/24 dev fake"
    ));
    for loss in LOSSES {
        lose(&host, loss);
        assert_eq!(record(&host, "victim"), before, "{loss}");
        let _web = Echo::tcp(&host.netns_of(pid), "victim", 80);
        assert_eq!(
            host.outside().tcp(addr::HOST4, 8080).by(),
            Some("victim"),
            "{loss}"
        );
        is_settled(&host, loss);
    }
    for mut process in [owner, below] {
        process.signal(9);
        process.wait();
    }
}

#[test]
fn who_moves_his_interface_away_stays_what_he_is() {
    require!();
    let host = world();
    let mut before = record(&host, "evil");
    // An interface that moves loses its routes.
    before["networks"][0]["default_route"] = json!(false);
    let mut below = child(&host);
    let pid = below.host_pid();
    host.sh(&format!(
        "ip -n evil link set eth0 netns {pid}; ip -n evil link set lo alias ''"
    ));
    host.netns_of(pid)
        .sh("ip link set eth0 up; ip addr add 10.88.1.250/24 dev eth0
         ip addr add fd00:88:1::250/64 dev eth0 nodad");
    for loss in LOSSES {
        lose(&host, loss);
        assert_eq!(record(&host, "evil"), before, "{loss}");
    }
    let taken = host.w("create new --network A --ip 10.88.1.66");
    assert!(taken.stderr.contains("evil"), "{}", taken.transcript());
    host.w("rm -f evil").ok();
    assert!(!host.sh("ls /run/netns").contains("evil"));
    below.signal(9);
    below.wait();
}

#[test]
fn whose_a_namespace_is_the_container_does_not_say() {
    require!();
    let host = world();
    host.sh("ip netns add mine; ip -n mine link set lo alias wharf:mine");
    host.w("create mine --netns /run/netns/mine --network A")
        .ok();
    for alias in ["wharf:victim", ""] {
        let before = record(&host, "evil");
        host.sh(&format!("ip -n evil link set lo alias '{alias}'"));
        lose(&host, "true");
        assert_eq!(record(&host, "evil"), before, "{alias}");
        evil_goes_alone(&host, alias);
    }
    host.w("rm -f mine").ok();
    assert!(
        host.sh("ls /run/netns").contains("mine"),
        "it is somebody else's"
    );
}

/// Containers that say of themselves what is so.
#[test]
fn who_tells_no_lie_is_taken_over_as_he_was() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wa");
    network(&host, "B", 2, "--bridge wb");
    host.w("network create six --bridge w6 --subnet fd00:88:3::/64 --ipv4=false")
        .ok();
    let mut owner = child(&host);
    let mac = "02:11:22:33:44:55";
    for line in [
        "create both --network A:ip=10.88.1.20,ip=fd00:88:1::20 --network B:ip=10.88.2.20 -p 8080:80"
            .to_owned(),
        format!(
            "create chosen --network A:ip=10.88.1.21,mac={mac} --network B:mac={mac} -p 8081:80"
        ),
        "create six --network six -p 8082:80".to_owned(),
        format!(
            "create pid --pid {} --network A -p 8083:80",
            owner.host_pid()
        ),
    ] {
        host.w(&line).ok();
    }
    let names = ["both", "chosen", "six", "pid"];
    let mut before = names.map(|name| record(&host, name));
    before[3]["owner"] = json!("unknown");
    let all = "ip neigh flush dev wa nud permanent; ip neigh flush dev wb nud permanent; ip neigh flush dev w6 nud permanent";
    for loss in [
        "true",
        all,
        "nft flush ruleset",
        &format!("nft flush ruleset; {all}"),
    ] {
        host.sh(&format!("rm -r /run/wharf/db; {loss}"));
        host.w("repair").ok();
        for (name, before) in names.iter().zip(&before) {
            let mut after = record(&host, name);
            if loss.contains("nft flush") {
                // The rules are gone that knew them.
                after["ports"].clone_from(&before["ports"]);
            }
            assert_eq!(after, *before, "{loss}: {name}");
        }
        is_settled(&host, loss);
        if loss.contains("nft flush") {
            continue;
        }
        let _web = Echo::tcp(&host.container("both"), "both", 80);
        assert_eq!(
            host.outside().tcp(addr::HOST4, 8080).by(),
            Some("both"),
            "{loss}"
        );
    }
    owner.signal(9);
    owner.wait();
}
