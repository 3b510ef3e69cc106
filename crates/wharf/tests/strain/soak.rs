//! A host that is watched by `wharf serve` while containers come and go: nothing grows.

use crate::common::*;
use crate::size;
use wharf_testkit::{Echo, Host, addr, eventually, require};

/// What could grow: of the kernel, and of the watching process.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    links: usize,
    rules: usize,
    policy: usize,
    routes: usize,
    neighbours: usize,
    forwarding: usize,
    mounts: usize,
    named: usize,
    processes: usize,
    descriptors: usize,
    threads: usize,
}

fn seen(host: &Host, pid: i32) -> Seen {
    let lines = |script: &str| host.sh(script).lines().count();
    Seen {
        links: lines("ip -o link"),
        rules: lines("nft -s list ruleset | sed 's/, /\\n/g'"),
        policy: lines("ip rule; ip -6 rule"),
        routes: lines("ip route show table all; ip -6 route show table all"),
        neighbours: lines("ip neigh show nud permanent"),
        forwarding: lines("bridge fdb show"),
        mounts: host.mounts().lines().count(),
        named: lines("ls /run/netns"),
        processes: host.processes().len(),
        descriptors: lines(&format!("ls /proc/{pid}/fd")),
        threads: lines(&format!("ls /proc/{pid}/task")),
    }
}

/// Anonymous memory in KiB.
fn memory(host: &Host, pid: i32) -> usize {
    let said = host.sh(&format!("sed -n 's/RssAnon: *//p' /proc/{pid}/status"));
    let number = said.split_whitespace().next();
    number
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{said}"))
}

fn cycle(host: &Host, n: usize) {
    let port = 9000 + n % 100;
    host.w(&format!("create c --network A -p {port}:80")).ok();
    host.w("network connect B c").ok();
    host.w(&format!(
        "port add c {}:80/tcp 7000-7010:7000-7010/udp",
        port + 500
    ))
    .ok();
    if n.is_multiple_of(25) {
        let inside = host.container("c");
        let _web = Echo::tcp(&inside, "c", 80);
        let port = u16::try_from(port).unwrap();
        for port in [port, port + 500] {
            assert_eq!(host.outside().tcp(addr::HOST4, port).by(), Some("c"));
        }
        // Damage is mended meanwhile.
        host.sh("nft flush chain inet wharf forward");
        eventually("mended", || {
            let chain = host.sh("nft list chain inet wharf forward");
            chain.contains("transit").then_some(())
        });
    }
    host.w(&format!("port rm c {port}:80")).ok();
    host.w("rm -f c").ok();
}

#[test]
fn nothing_grows_on_a_watched_host() {
    require!();
    let cycles = size("WHARF_STRAIN_CYCLES", 150);
    let host = host();
    let mut watcher = host.w_spawn("serve");
    eventually("it watches", || {
        watcher.stdout().contains("watching").then_some(())
    });
    network(&host, "A", 1, "");
    network(&host, "B", 2, "--icc=false");
    container(&host, "stays", "A", 1, 99, "-p 8080:80");
    let pid = watcher.host_pid();
    // What is allocated once is there after these.
    (0..25).for_each(|n| cycle(&host, n));
    let settled = || {
        let mut last = seen(&host, pid);
        eventually("it is quiet", || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let now = seen(&host, pid);
            let same = now == last;
            last = now;
            same.then_some(())
        });
        (last, memory(&host, pid))
    };
    let (before, memory_before) = settled();
    (0..cycles).for_each(|n| cycle(&host, n));
    let (after, memory_after) = settled();
    eprintln!("{cycles} cycles: {before:?}, {memory_before} KiB, then {memory_after} KiB");
    assert_eq!(after, before, "after {cycles} cycles");
    assert!(
        memory_after <= memory_before + 512,
        "{memory_before} KiB became {memory_after} KiB in {cycles} cycles"
    );
    assert!(watcher.is_running());
    let tracked = host.sh("conntrack -C").trim().parse::<usize>().unwrap();
    assert!(tracked < 100, "{tracked} flows are remembered");
    watcher.signal(15);
    watcher.wait_within(std::time::Duration::from_secs(2)).ok();
}
