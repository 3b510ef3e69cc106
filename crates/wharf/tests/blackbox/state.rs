//! Many at once, killed at any moment, restarted: what wharf remembers is what there is.

use crate::common::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};
use wharf_testkit::{Answer, Echo, Host, Snapshot, addr, eventually, require};

/// Every address in use, with who has it.
fn addresses(host: &Host) -> Vec<String> {
    let list = host.w("ps --json").json();
    let all = list.as_array().cloned().unwrap_or_default();
    let networks = all
        .iter()
        .filter_map(|c| c["networks"].as_array())
        .flatten();
    networks
        .flat_map(|network| texts(network, "addresses"))
        .collect()
}

#[test]
fn a_hundred_creates_at_once_give_a_hundred_addresses() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    let start = Instant::now();
    thread::scope(|scope| {
        for n in 0..100 {
            let host = &host;
            scope.spawn(move || {
                host.w(&format!("create c{n} --network A -p {}:80", 9000 + n))
                    .ok()
            });
        }
    });
    eprintln!("100 creates in {:?}", start.elapsed());
    let all = addresses(&host);
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(
        (all.len(), distinct.len()),
        (200, 200),
        "an IPv4 and an IPv6 address each"
    );
    let really: BTreeSet<_> = (0..100)
        .flat_map(|n| host.container(&format!("c{n}")).addresses("eth0"))
        .collect();
    assert_eq!(really.len(), 200);
    let _web = Echo::tcp(&host.container("c42"), "c42", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 9042).by(), Some("c42"));
    thread::scope(|scope| {
        for n in 0..100 {
            let host = &host;
            scope.spawn(move || host.w(&format!("rm -f c{n}")).ok());
        }
    });
    host.w("network rm A").ok();
    before.assert_same(&host, "a hundred containers");
}

#[test]
fn parallel_changes_of_one_thing_have_one_winner() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let race = |line: &(dyn Fn(usize) -> String + Sync)| {
        let codes: Vec<_> = thread::scope(|scope| {
            let host = &host;
            let threads: Vec<_> = (0..8)
                .map(|n| scope.spawn(move || host.w(&line(n)).code))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(
            codes.iter().all(|code| matches!(code, Some(0 | 1))),
            "{codes:?}"
        );
        codes.iter().filter(|code| **code == Some(0)).count()
    };
    assert_eq!(race(&|_| "create same --network A".into()), 1, "one name");
    assert_eq!(
        race(&|n| format!("create ip{n} --network A --ip 10.88.1.99")),
        1,
        "one address"
    );
    assert_eq!(
        race(&|n| format!("create port{n} --network A -p 8080:80")),
        1,
        "one port"
    );
    assert_eq!(
        race(&|_| "network create same --bridge wharf-s".into()),
        1,
        "one network"
    );
    assert_eq!(race(&|_| "rm same".into()), 1, "one removal");
}

/// Kills a command after every delay up to the time it takes; whatever state that leaves, the next commands succeed and
/// nothing remains in the end.
#[track_caller]
fn kill_at_all_moments(prepare: &str, line: &str, mend: &[&str]) {
    let host = host();
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    let with_network = Snapshot::of(&host);
    for step in 0..60 {
        let delay = Duration::from_micros(150 * step);
        prepare
            .split(';')
            .filter(|line| !line.is_empty())
            .for_each(|line| _ = host.w(line).ok());
        let mut running = host.w_spawn(line);
        thread::sleep(delay);
        running.signal(9);
        let ended = running.wait();
        for line in mend {
            let got = host.w(line);
            let fine = got.code == Some(0);
            assert!(
                fine,
                "after {delay:?} of:\n{}\n{}",
                ended.transcript(),
                got.transcript()
            );
        }
        assert_eq!(
            addresses(&host),
            Vec::<String>::new(),
            "after {delay:?}: {}",
            ended.transcript()
        );
        let difference = with_network.difference_on(&host);
        assert!(
            difference.is_empty(),
            "killed after {delay:?}, then mended:\n{difference}"
        );
    }
    host.w("network rm A").ok();
    before.assert_same(&host, "sixty kills");
}

#[test]
fn a_killed_create_is_mended_by_the_next_call() {
    require!();
    kill_at_all_moments(
        "",
        &format!("create c1 --network A {} -p 8080:80", ips(1, 11)),
        &[
            "rm -f c1",
            "create c2 --network A --ip 10.88.1.11 --ip fd00:88:1::11 -p 8080:80",
            "rm -f c2",
        ],
    );
}

#[test]
fn a_killed_rm_is_mended_by_the_next_call() {
    require!();
    kill_at_all_moments(
        "create c1 --network A -p 8080:80",
        "rm -f c1",
        &["rm -f c1", "ps"],
    );
}

#[test]
fn a_killed_network_create_is_mended_by_the_next_call() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    for step in 0..40 {
        let mut running = host.w_spawn("network create N --subnet 10.88.9.0/24 --bridge wharf-n");
        thread::sleep(Duration::from_micros(150 * step));
        running.signal(9);
        let ended = running.wait();
        if names(&host.w("network ls --json").json()).is_empty() {
            host.w("network create N --subnet 10.88.9.0/24 --bridge wharf-n")
                .ok();
        }
        host.w("network rm N").ok();
        let difference = before.difference_on(&host);
        assert!(
            difference.is_empty(),
            "step {step}: {}\n{difference}",
            ended.transcript()
        );
    }
}

#[test]
fn after_a_reboot_networks_are_there_and_containers_are_not() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a --label kept=yes");
    network(&host, "B", 2, "");
    container(&host, "c1", "A", 1, 11, "-p 8080:80");
    host.w("run -d --name c2 --network A --ip 10.88.1.12 -- sleep 1000")
        .ok();
    let spec = host.w("network inspect A --json").json();

    let host = host.reboot();
    let before = Snapshot::of(&host);
    assert_eq!(
        names(&host.w("ps --json").json()),
        Vec::<String>::new(),
        "no ghosts"
    );
    assert_eq!(names(&host.w("network ls --json").json()), ["A", "B"]);
    let mut again = spec.clone();
    again[0]["containers"] = serde_json::json!([]);
    assert_eq!(host.w("network inspect A --json").json(), again);
    container(&host, "c1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    remove(&host, &["c1"], &["A", "B"]);
    before.assert_same(&host, "after a reboot");
}

#[test]
fn the_address_of_a_dead_owner_is_free_again() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let mut shell = host
        .command("unshare")
        .args(["-n", "sleep", "1000"])
        .spawn();
    // The process needs a moment to leave the host's namespace.
    eventually("c1 is there", || {
        let made = host.w(&format!(
            "create c1 --pid {} --network A {} -p 8080:80",
            shell.host_pid(),
            ips(1, 11)
        ));
        (made.code == Some(0)).then_some(())
    });
    shell.signal(9);
    shell.wait();
    eventually("c2 gets the address of the dead c1", || {
        let got = host.w(&format!("create c2 --network A {} -p 8080:80", ips(1, 11)));
        (got.code == Some(0)).then_some(())
    });
    let _web = Echo::tcp(&host.container("c2"), "c2", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c2"));
}

#[test]
fn files_are_private() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    host.w("create c1 --network A").ok();
    let mut dirs = vec![host.state_dir(), host.path("/run/wharf")];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("directory").flatten() {
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() {
                dirs.push(entry.path());
            } else {
                seen += 1;
                let mode = meta.permissions().mode() & 0o777;
                assert_eq!(
                    mode & 0o077,
                    0,
                    "{} has mode {mode:o}",
                    entry.path().display()
                );
            }
        }
    }
    assert!(seen > 0, "there are state files");
}

#[test]
fn nothing_keeps_running_for_a_created_container() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c1", "A", 1, 11, "-p 8080:80");
    assert_eq!(host.processes(), Vec::new());
    assert_eq!(host.container("c1").ping(addr::OUTSIDE4), Answer::Replied);
}
