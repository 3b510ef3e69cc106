//! Requests that are well-formed and still cannot be: taken, full, gone, forbidden. Nothing changes, and a failure in the
//! middle takes back what was done.

use crate::common::*;
use crate::errors::all_refused;
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, Snapshot, addr, require};

#[test]
fn what_is_taken_stays_with_its_owner() {
    require!();
    let host = host();
    host.sh("ip link add theirs type bridge; ip link add dummy7 type bridge; ip netns add foreign");
    network(&host, "A", 1, "--bridge wharf-a");
    container(
        &host,
        "c1",
        "A",
        1,
        11,
        "-p 8080:80 -p 10.0.2.2:8081:80 -p 9000-9010:9000-9010",
    );
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    all_refused(
        &host,
        &[
            ("network create A --subnet 10.88.9.0/24", "A"),
            ("network create N --bridge wharf-a", "wharf-a"),
            ("network create N --bridge theirs", "theirs"),
            ("network create N --bridge dummy7", "dummy7"),
            ("network create N --bridge up0", "up0"),
            ("create c1 --network A", "c1"),
            ("create foreign --network A", "foreign"),
            ("create c2 --network A --ip 10.88.1.11", "10.88.1.11"),
            ("create c2 --network A --ip fd00:88:1::11", "fd00:88:1::11"),
            ("create c2 --network A -p 8080:80", "8080"),
            ("create c2 --network A -p 10.0.2.3:8080:80", "8080"),
            ("create c2 --network A -p 8081:80", "8081"),
            ("create c2 --network A -p 9005:80", "9005"),
            ("create c2 --network A -p 8999-9000:80-81", "9000"),
            ("create c2 --network A -p 7000:80 -p 7000:81", "7000"),
            ("port add c1 8080:81", "8080"),
            ("network rm A", "c1"),
        ],
    );
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    container(
        &host,
        "c2",
        "A",
        1,
        12,
        "-p 8080:80/udp -p 10.0.2.3:8081:80",
    );
}

#[test]
fn a_port_on_which_a_host_process_listens_is_refused() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c0", "A", 1, 10, "");
    let _servers = (
        Echo::tcp(host.netns(), "host", 8080),
        Echo::udp(host.netns(), "host", 8090),
        Echo::tcp_at(host.netns(), "host", ip("127.0.0.1"), 8081),
        Echo::tcp_at(host.netns(), "host", ip("10.0.2.3"), 8082),
    );
    all_refused(
        &host,
        &[
            ("create c1 --network A -p 8080:80", "8080"),
            ("create c1 --network A -p 10.0.2.2:8080:80", "8080"),
            ("create c1 --network A -p 8079-8083:79-83", "808"),
            ("create c1 --network A -p 8090:80/udp", "8090"),
            ("create c1 --network A -p 8081:80", "8081"),
            ("create c1 --network A -p 10.0.2.3:8082:80", "8082"),
            ("port add c0 8080:80", "8080"),
        ],
    );
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("host"));
    container(
        &host,
        "c1",
        "A",
        1,
        11,
        "-p 8080:80/udp -p 10.0.2.2:8082:80 -p 8090:80",
    );
    let _c1 = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8082).by(),
        Some("c1"),
        "the listener is at another address"
    );
    assert_eq!(host.outside().tcp(addr::HOST4_B, 8082).by(), Some("host"));
}

#[test]
fn an_exhausted_pool_says_so_and_serves_again_when_something_is_free() {
    require!();
    let host = host();
    host.w("network create tiny --subnet 10.88.9.0/29").ok();
    for n in 1..=5 {
        host.w(&format!("create c{n} --network tiny")).ok();
    }
    all_refused(&host, &[("create c6 --network tiny", "tiny")]);
    host.w("rm -f c3").ok();
    host.w("create c6 --network tiny").ok();
    host.w("network create range --subnet 10.88.10.0/24 --ip-range 10.88.10.128/31")
        .ok();
    host.w("create r1 --network range").ok();
    host.w("create r2 --network range").ok();
    all_refused(&host, &[("create r3 --network range", "range")]);
    host.w("create r3 --network range --ip 10.88.10.5").ok();
}

#[test]
fn without_privileges() {
    require!(Need::Program("setpriv"));
    let host = host();
    network(&host, "A", 1, "");
    let before = Snapshot::of(&host);
    // A copy where any user can reach it.
    let wharf = host
        .dir()
        .path()
        .join("wharf-copy")
        .to_string_lossy()
        .into_owned();
    let original = std::env::var("WHARF_BIN").unwrap_or_else(|_| WHARF.into());
    std::fs::copy(original, &wharf).expect("copy the program");
    for line in ["network create N", "create c1 --network A", "network rm A"] {
        let demote = [
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            "-all",
            &wharf,
        ];
        let got = host
            .command("setpriv")
            .args(demote)
            .args(line.split(' '))
            .run();
        if got.stderr.contains("setpriv:") {
            return wharf_testkit::skip::skipped("there is no other user to become here");
        }
        let got = got.fails(1);
        let lower = got.stderr.to_lowercase();
        assert!(
            lower.contains("permission") || lower.contains("privilege") || lower.contains("root"),
            "{}",
            got.transcript()
        );
        before.assert_same(&host, line);
    }
}

#[test]
fn with_root_but_without_net_admin() {
    require!(Need::Program("setpriv"));
    let host = host();
    network(&host, "A", 1, "");
    let before = Snapshot::of(&host);
    let wharf = std::env::var("WHARF_BIN").unwrap_or_else(|_| WHARF.into());
    for line in [
        "network create N --subnet 10.88.9.0/24",
        "create c1 --network A -p 8080:80",
    ] {
        let drop = [
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
            &wharf,
        ];
        let got = host
            .command("setpriv")
            .args(drop)
            .args(line.split(' '))
            .run()
            .fails(1);
        let lower = got.stderr.to_lowercase();
        assert!(
            lower.contains("eperm") || lower.contains("cap_net_admin") || lower.contains("permi"),
            "{}",
            got.transcript()
        );
        before.assert_same(&host, line);
    }
    assert_eq!(names(&host.w("network ls --json").json()), ["A"]);
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
}

#[test]
fn a_failure_in_the_middle_takes_back_what_was_done() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    // The container's namespace already has what the last steps would make.
    host.sh("ip netns add busy; ip -n busy link set lo up; ip -n busy link add eth0 type bridge");
    host.sh(
        "ip netns add routed; ip -n routed link set lo up; ip -n routed link add d0 type bridge; ip -n routed link set d0 up
         ip -n routed addr add 10.99.0.2/24 dev d0; ip -n routed route add default via 10.99.0.1",
    );
    let before = Snapshot::of(&host);
    let inside = |name: &str| Snapshot::of_netns(&host.container(name));
    for (name, interface) in [("busy", ",interface=eth0"), ("routed", "")] {
        let was = inside(name);
        let line = format!(
            "create c1 --netns /run/netns/{name} --network A:ip=10.88.1.11{interface} -p 8080:80"
        );
        let got = host.w(&line).exits(1);
        before.assert_same(&host, &line);
        let difference = was.difference(&inside(name));
        assert!(
            difference.is_empty(),
            "{name} before and after: {}\n{difference}",
            got.transcript()
        );
    }
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
    container(&host, "c1", "A", 1, 11, "-p 8080:80");
    assert_eq!(
        host.container("c1").ping(addr::OUTSIDE4),
        Answer::Replied,
        "address and port are free"
    );
}

#[test]
fn read_only_sysctls_are_named() {
    require!();
    let host = host();
    host.sh("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys");
    let before = Snapshot::of(&host);
    let got = host
        .w("network create N --subnet 10.88.9.0/24")
        .fails(1)
        .says("/proc/sys");
    before.assert_same(&host, &got.transcript());
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
}

/// As in a container that another program runs: forwarding is on, and no sysctl can be changed.
#[test]
fn read_only_sysctls_that_are_right_do() {
    require!();
    let host = host();
    host.sh("sysctl -qw net.ipv4.ip_forward=1");
    host.sh("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys");
    let got = host.w("network create N --subnet 10.88.9.0/24").ok();
    assert!(
        got.stderr.contains("read-only") && got.stderr.contains("accept_redirects"),
        "what stays as it is, is told: {}",
        got.transcript()
    );
    host.w("create c1 --network N").ok();
    let plan = host.w("repair --dry-run --json").json();
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(0), "{plan}");
    let inside = host.container("c1");
    let out = wharf_testkit::Echo::tcp(host.outside(), "out", 90);
    assert!(inside.tcp(wharf_testkit::addr::OUTSIDE4, 90).reached());
    drop(out);
    host.w("rm -f c1").ok();
    // Ports need what cannot be set.
    let got = host.w("create c1 --network N -p 8080:80").fails(1);
    assert!(
        got.stderr.contains("route_localnet has to be 1"),
        "{}",
        got.transcript()
    );
    host.w("network rm N").ok();
    // IPv6 on a network needs what cannot be set.
    let got = host.w("network create S --subnet fd88:9::/64").fails(1);
    assert!(got.stderr.contains("/proc/sys"), "{}", got.transcript());
}

#[test]
fn a_kernel_refusal_shows_the_command_and_the_reason() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    host.sh("ip netns add busy; ip -n busy link set lo up; ip -n busy link add eth0 type bridge");
    let line = "create c1 --netns /run/netns/busy --network A:interface=eth0 --json";
    let error = host.w(line).error();
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("eth0")),
        "{error:#}"
    );
    assert!(
        !error["hint"].is_null() || !error["command"].is_null(),
        "what to do, or what was done: {error:#}"
    );
}

#[test]
fn damaged_state_is_named_and_not_deleted() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let files: Vec<_> = std::fs::read_dir(host.state_dir().join("db"))
        .expect("state")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let largest = files
        .iter()
        .filter(|file| file.is_file() && file.ends_with("data.mdb"))
        .max_by_key(|file| file.metadata().map_or(0, |meta| meta.len()));
    let file = largest.expect("a state file").clone();
    std::fs::write(&file, vec![0xa5; 8192]).expect("write");
    let got = host.w("network ls").fails(1);
    assert!(
        got.stderr.contains("state") || got.stderr.contains(file.to_string_lossy().as_ref()),
        "{}",
        got.transcript()
    );
    assert!(file.exists(), "it may be all somebody has");
}

/// Pages in the middle are not what they were: the hint names what helps.
#[test]
fn a_store_damaged_in_the_middle_is_called_so() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c", "A", 1, 11, "");
    host.sh("tr '\\0' '\\245' < /dev/zero | dd of=/run/wharf/db/data.mdb bs=4096 seek=2 count=10 conv=notrunc iflag=fullblock status=none");
    host.w("ps").fails(1).says("repair --rebuild");
    host.w("repair --rebuild").ok();
    host.w("ps").ok();
    assert_eq!(host.w("inspect c --json").json()[0]["name"], "c");
}

/// The default network is made for the first container; where that cannot be, it is not made either.
#[test]
fn a_container_that_cannot_be_leaves_no_default_network() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    for line in [
        "create c -p 203.0.113.1:80:80",
        "create c --ip 1.2.3.4",
        "create c --netns /nope",
    ] {
        host.w(line).exits(1);
        before.assert_same(&host, line);
        assert_eq!(
            host.w("network ls --json").ok().json(),
            serde_json::json!([]),
            "{line}"
        );
    }
}
