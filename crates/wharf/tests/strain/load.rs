//! Many containers and many ports.

use crate::common::*;
use crate::size;
use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

/// Runs `line(n)` for every number, in so many processes at a time.
fn at_once(host: &Host, processes: usize, all: usize, line: impl Fn(usize) -> String + Sync) {
    thread::scope(|scope| {
        for first in 0..processes {
            let line = &line;
            scope.spawn(move || {
                for n in (first..all).step_by(processes) {
                    host.w(&line(n)).ok();
                }
            });
        }
    });
}

#[test]
fn many_containers_made_and_removed_by_sixteen_processes() {
    require!();
    let all = size("WHARF_STRAIN_CONTAINERS", 500);
    let host = host();
    let bare = Snapshot::of(&host);
    host.w("network create A --subnet 10.88.0.0/20 --subnet fd00:88::/64")
        .ok();
    let empty = Snapshot::of(&host);
    let start = Instant::now();
    at_once(&host, 16, all, |n| {
        format!("create c{n} --network A -p {}:80", 10_000 + n)
    });
    eprintln!("{all} containers made in {:?}", start.elapsed());
    let shown = host.w("ps --json").json();
    let shown = shown.as_array().expect("a list");
    assert_eq!(shown.len(), all);
    let addresses: BTreeSet<String> = shown
        .iter()
        .flat_map(|c| texts(c, "networks/0/addresses"))
        .collect();
    assert_eq!(
        addresses.len(),
        2 * all,
        "two addresses each, and no two alike"
    );
    let macs: BTreeSet<String> = shown.iter().map(|c| text(c, "networks/0/mac")).collect();
    assert_eq!(macs.len(), all, "no two hardware addresses alike");
    let left = host.w("repair --dry-run --json").json();
    assert_eq!(
        left["mended"],
        serde_json::json!([]),
        "all is as it is to be"
    );
    for n in [0, all / 2, all - 1] {
        let name = format!("c{n}");
        let _web = Echo::tcp(&host.container(&name), &name, 80);
        for v6 in [false, true] {
            let port = 10_000 + u16::try_from(n).unwrap();
            assert_eq!(host.outside().tcp(addr::host(v6), port).by(), Some(&*name));
        }
    }
    let start = Instant::now();
    at_once(&host, 16, all, |n| format!("rm -f c{n}"));
    eprintln!("and removed in {:?}", start.elapsed());
    empty.assert_same(&host, "as many removed");
    host.w("network rm A").ok();
    bare.assert_same(&host, "and their network");
}

/// Of ten thousand published ports a thousand are published one by one, the others as ranges.
#[test]
fn ten_thousand_ports_on_many_networks() {
    const NETWORKS: usize = 5;
    const SINGLE: usize = 1000;
    const RANGES: usize = 9000;
    require!();
    let all = size("WHARF_STRAIN_PORTS", 100);
    assert!(
        all >= NETWORKS && SINGLE.is_multiple_of(all),
        "a divisor of {SINGLE}"
    );
    let (single, range) = (SINGLE / all, RANGES / all);
    let host = host();
    let bare = Snapshot::of(&host);
    for net in 0..NETWORKS {
        host.w(&format!(
            "network create N{net} --subnet 10.88.{}.0/24 --subnet fd00:88:{net}::/64",
            net + 1
        ))
        .ok();
    }
    let start = Instant::now();
    let first_of = |n: usize| (10_000 + n * single, 20_000 + n * range);
    at_once(&host, 4, all, |n| {
        let (one, many) = first_of(n);
        let mut line = format!("create c{n} --network N{}", n % NETWORKS);
        for port in one..one + single {
            line += &format!(" -p {port}:{}", 1000 + port - one);
        }
        let last = many + range - 1;
        line + &format!(" -p {many}-{last}:{many}-{last}/udp")
    });
    eprintln!("{all} containers with 10000 ports in {:?}", start.elapsed());
    let listed = host.w("port ls --json").json();
    let listed = listed.as_array().map_or(0, Vec::len);
    assert_eq!(listed, SINGLE + all, "mappings listed");
    let left = host.w("repair --dry-run --json").json();
    assert_eq!(
        left["mended"],
        serde_json::json!([]),
        "all is as it is to be"
    );
    for n in [0, 1, all / 2, all - 2, all - 1] {
        spot_check(&host, n, first_of(n), (single, range));
    }
    let refused = 10_000 + u16::try_from(SINGLE).unwrap();
    assert!(!host.outside().tcp_brief(addr::HOST4, refused).reached());
    let start = Instant::now();
    at_once(&host, 4, all, |n| format!("rm -f c{n}"));
    eprintln!("removed in {:?}", start.elapsed());
    let networks: Vec<String> = (0..NETWORKS).map(|net| format!("N{net}")).collect();
    let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
    remove(&host, &[], &networks);
    bare.assert_same(&host, "ten thousand ports");
}

/// The first and the last of a container's ports are answered by it.
#[track_caller]
fn spot_check(host: &Host, n: usize, first: (usize, usize), count: (usize, usize)) {
    let name = format!("c{n}");
    let inside = host.container(&name);
    let port = |n: usize| u16::try_from(n).unwrap();
    for at in BTreeSet::from([0, count.0 - 1]) {
        let _web = Echo::tcp(&inside, &name, port(1000 + at));
        for v6 in [false, true] {
            let answer = host.outside().tcp(addr::host(v6), port(first.0 + at));
            assert_eq!(answer.by(), Some(&*name), "single port {at}");
        }
    }
    for at in [0, count.1 / 2, count.1 - 1] {
        let _server = Echo::udp(&inside, &name, port(first.1 + at));
        for v6 in [false, true] {
            let answer = host.outside().udp(addr::host(v6), port(first.1 + at));
            assert_eq!(answer.by(), Some(&*name), "port {at} of a range");
        }
    }
}
