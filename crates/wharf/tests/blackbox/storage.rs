//! Full disks, read-only directories, damaged files: a clear error, and nothing is lost.

use crate::common::*;
use std::fs;
use wharf_testkit::frame::random_bytes;
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

#[track_caller]
fn clear_error(host: &Host, line: &str, what: &str) {
    let got = host.w(line);
    assert_eq!(got.code, Some(1), "{what}: {}", got.transcript());
    let said =
        got.stderr.lines().any(|line| line.starts_with("error: ")) && got.stderr.contains("wharf");
    assert!(said, "{what}: {}", got.transcript());
    assert!(
        !got.stderr.contains("panicked"),
        "{what}: {}",
        got.transcript()
    );
}

/// The run store on a file system that fills up while containers are made.
#[test]
fn a_full_disk_loses_nothing() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    for size in ["150k", "220k", "300k"] {
        host.sh(&format!(
            "mkdir -p /run/wharf; mount -t tmpfs -o mode=700,size={size} tmpfs /run/wharf"
        ));
        let mut made = Vec::new();
        let mut failed = None;
        if host
            .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
            .code
            == Some(0)
        {
            for n in 0..400 {
                let got = host.w(&format!("create c{n} --network A -p {}:80", 9000 + n));
                if got.code != Some(0) {
                    failed = Some(got);
                    break;
                }
                made.push(format!("c{n}"));
            }
            let failed = failed.expect("400 containers do not fit");
            assert_eq!(failed.code, Some(1), "{}", failed.transcript());
            assert!(failed.stderr.contains("pace"), "{}", failed.transcript());
        }
        host.sh("mount -o remount,size=4m /run/wharf");
        let there = names(&host.w("ps --json").json());
        for name in &made {
            assert!(
                there.contains(name),
                "{size}: {name} was acknowledged and is lost"
            );
        }
        assert_eq!(there.len(), made.len(), "{size}: {there:?}");
        assert_eq!(
            host.w("repair --json").json(),
            serde_json::json!({"mended": []}),
            "{size}"
        );
        assert_eq!(
            host.w("gc --json").json(),
            serde_json::json!({"removed": []}),
            "{size}"
        );
        if !made.is_empty() {
            host.w(&format!("rm -f {}", made.join(" "))).ok();
        }
        let networks = names(&host.w("network ls --json").json());
        host.w(&format!("network rm {}", networks.join(" ")));
        host.sh("umount -l /run/wharf; rmdir /run/wharf");
        bare.assert_same(&host, size);
        eprintln!("{size}: {} containers", made.len());
    }
}

/// The state store on a file system that fills up while networks are made.
#[test]
fn a_full_state_directory_leaves_no_half_networks() {
    require!();
    let host = host();
    let state = host.state_dir();
    host.sh(&format!(
        "mount -t tmpfs -o mode=700,size=64k tmpfs {}",
        state.display()
    ));
    let mut made = Vec::new();
    let mut failed = None;
    for n in 0..60 {
        let before = Snapshot::of(&host);
        let got = host.w(&format!("network create n{n} --subnet 10.99.{n}.0/24"));
        if got.code != Some(0) {
            before.assert_same(&host, "a network that could not be kept");
            failed = Some(got);
            break;
        }
        made.push(format!("n{n}"));
    }
    let failed = failed.expect("60 networks do not fit");
    assert_eq!(failed.code, Some(1), "{}", failed.transcript());
    assert!(failed.stderr.contains("pace"), "{}", failed.transcript());
    let mut there = names(&host.w("network ls --json").json());
    there.sort();
    made.sort();
    assert_eq!(there, made);
    assert_eq!(
        host.w("repair --json").json(),
        serde_json::json!({"mended": []})
    );
    host.sh(&format!("mount -o remount,size=4m {}", state.display()));
    host.w(&format!("network rm {}", made.join(" "))).ok();
}

#[test]
fn a_read_only_state_directory_changes_nothing() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    let state = host.state_dir();
    let before = Snapshot::of(&host);
    host.sh(&format!(
        "mount --bind {0} {0}; mount -o remount,ro,bind {0}",
        state.display()
    ));
    for line in ["network create B", "network rm -f A"] {
        clear_error(&host, line, line);
    }
    host.sh(&format!("umount {}", state.display()));
    before.assert_same(&host, "a read-only state directory");
    assert_eq!(names(&host.w("network ls --json").json()), ["A"]);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
}

#[test]
fn damaged_stores_are_told_and_made_again() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    let before = Snapshot::of(&host);
    for (store, reader) in [
        (host.path("/run/wharf/db/data.mdb"), "ps"),
        (host.state_dir().join("db/data.mdb"), "network ls"),
    ] {
        let whole = fs::read(&store).expect("the store");
        let mut damages = vec![
            ("empty".to_owned(), Vec::new()),
            ("one byte".to_owned(), vec![1]),
            ("half".to_owned(), whole[..whole.len() / 2].to_vec()),
            (
                "page missing at the end".to_owned(),
                whole[..whole.len() - 4096].to_vec(),
            ),
            ("random".to_owned(), random_bytes::<8192>().to_vec()),
        ];
        for page in 2..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].copy_from_slice(&random_bytes::<4096>());
            damages.push((format!("page {page}"), bytes));
        }
        for (what, bytes) in damages {
            let what = format!("{}: {what}", store.display());
            fs::write(&store, &bytes).expect("damaged");
            // A page that nobody needs any more may be anything.
            let got = host.w(reader);
            if !what.contains(": page") || got.code != Some(0) {
                clear_error(&host, reader, &what);
            }
            host.w("repair --rebuild").ok();
            assert_eq!(names(&host.w("ps --json").json()), ["a1", "a2"], "{what}");
            assert_eq!(names(&host.w("network ls --json").json()), ["A"], "{what}");
            assert_eq!(
                host.w("repair --json").json(),
                serde_json::json!({"mended": []}),
                "{what}"
            );
            assert_eq!(
                host.outside().tcp(addr::HOST4, 8080).by(),
                Some("a1"),
                "{what}"
            );
        }
        assert_eq!(
            host.w("gc --json").json(),
            serde_json::json!({"removed": []})
        );
    }
    let difference = before.difference_on(&host);
    let lines = difference.lines().iter();
    let lines: Vec<_> = lines
        .filter(|line| !line.contains("in another order"))
        .collect();
    assert!(lines.is_empty(), "{lines:#?}");
    remove(&host, &["a1", "a2"], &["A"]);
}
