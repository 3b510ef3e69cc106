//! `wharf gc`: what is nobody's goes, and nothing else.

use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Host, Snapshot, eventually, require};

fn removed(host: &Host, line: &str) -> Vec<String> {
    let said = host.w(line).json();
    let list = said["removed"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("{said:#}"));
    list.iter()
        .map(|found: &Value| text(found, "object"))
        .collect()
}

#[test]
fn a_dead_container_is_removed_and_a_living_one_is_not() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "alive", "A", 1, 12, "-p 8081:80");
    host.w("run -d --name job --network A --ip 10.88.1.13 -- sleep 1000")
        .ok();
    let before = Snapshot::of(&host);
    let mut owner = host
        .command("unshare")
        .args(["-n", "sleep", "1000"])
        .spawn();
    eventually("the process has its own namespace", || {
        let line = format!(
            "create dead --pid {} --network A {} -p 8080:80",
            owner.host_pid(),
            ips(1, 11)
        );
        (host.w(&line).code == Some(0)).then_some(())
    });
    assert_eq!(
        removed(&host, "gc --json"),
        Vec::<String>::new(),
        "its owner lives"
    );
    owner.signal(9);
    owner.wait();
    eventually("gc finds it", || {
        let found = removed(&host, "gc --dry-run --json");
        (found == ["container dead"]).then_some(())
    });
    assert_eq!(
        names(&host.w("ps --json").json()),
        ["alive", "dead", "job"],
        "a dry run"
    );
    assert_eq!(removed(&host, "gc --json"), ["container dead"]);
    before.assert_same(&host, "gc");
    assert_eq!(names(&host.w("ps --json").json()), ["alive", "job"]);
    assert_eq!(removed(&host, "gc --json"), Vec::<String>::new());
    container(&host, "next", "A", 1, 11, "-p 8080:80");
}

/// Without networks wharf has nothing on the host.
#[test]
fn what_networks_shared_goes_when_there_is_none() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    host.sh(&format!(
        "rm -r /run/wharf/db {}/db; nft flush ruleset; ip link del wharf-a",
        host.state_dir().display()
    ));
    let found = removed(&host, "gc --json");
    let named = |part: &str| found.iter().any(|object| object.contains(part));
    assert!(
        named("routing rule 113") && named("blackhole 10.88.1.0/24"),
        "{found:?}"
    );
    let rules = host.sh("ip rule; ip -6 rule; nft list tables");
    assert!(
        !rules.contains("119") && !rules.contains("wharf"),
        "{rules}"
    );
    // The next network finds nothing in its way, be it what a lost one left.
    host.sh("ip -4 rule add priority 119 nop protocol 119");
    network(&host, "A", 1, "--bridge wharf-a");
    host.w("network rm A").ok();
    let difference = bare.difference_on(&host);
    let lines = difference.lines().iter();
    // Nobody knew any more that wharf had turned it on.
    let lines: Vec<_> = lines
        .filter(|line| {
            !line.contains("forward")
                && !line.contains("redirects")
                && !line.contains("anycast")
                && !line.contains("accept_ra")
        })
        .collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

/// Records are put back to an earlier state: what was made since is in no record, what was removed is in one.
#[test]
fn what_is_in_no_record_is_removed() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "kept", "A", 1, 12, "-p 8081:80");
    let before = Snapshot::of(&host);
    host.sh("cp -a /run/wharf/db /run/wharf/old");
    container(&host, "forgotten", "A", 1, 11, "-p 8080:80");
    host.w("run -d --name busy --network A --ip 10.88.1.14 -- sleep 1000")
        .ok();
    host.sh("ip netns add mine; rm -r /run/wharf/db; mv /run/wharf/old /run/wharf/db");
    let found = removed(&host, "gc --json");
    let named = |part: &str| found.iter().any(|object| object.contains(part));
    assert!(
        named("of forgotten on A") && named("namespace /run/netns/forgotten"),
        "{found:?}"
    );
    assert!(
        named("publish4") && named("guard4") && named("guard6"),
        "{found:?}"
    );
    assert!(
        !named("kept") && !named("busy") && !named("mine"),
        "{found:?}"
    );
    assert_eq!(
        host.container("mine").interfaces(),
        ["lo"],
        "another's namespace"
    );
    assert_eq!(
        host.container("busy").interfaces().len(),
        2,
        "somebody lives there"
    );
    assert_eq!(host.w("repair --json").json(), json!({"mended": []}));
    host.w("repair --rebuild").ok();
    assert_eq!(names(&host.w("ps --json").json()), ["busy", "kept"]);
    host.w("rm -f busy").ok();
    host.sh("ip netns del mine");
    before.assert_same(&host, "gc");
}

/// Somebody else has made a namespace where a container's was: it is his.
#[test]
fn a_namespace_made_anew_by_another_stays() {
    require!();
    let host = host();
    host.w("network create N --subnet 10.88.9.0/24").ok();
    for (name, command) in [("a", "rm -f a"), ("b", "gc")] {
        host.w(&format!("create {name} --network N")).ok();
        host.sh(&format!("ip netns del {name}; ip netns add {name}"));
        host.sh(&format!(
            "ip -n {name} link add keep type veth peer name keep2"
        ));
        // The kernel takes its time to end the old one, and until then it may be somebody's.
        eventually("the container is gone", || {
            host.w(command).ok();
            let left = names(&host.w("ps --all --json").json());
            (!left.contains(&name.to_owned())).then_some(())
        });
        assert!(
            host.sh(&format!("ip -n {name} link show keep"))
                .contains("keep")
        );
        host.sh(&format!("ip netns del {name}"));
    }
}

/// Neighbours that the administrator set for good on a bridge of his are his, on one that wharf made too.
#[test]
fn neighbours_of_others_stay() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "c", "A", 1, 11, "");
    let old = host.sh("cp -a /run/wharf/db /run/wharf/old; ip neigh show nud permanent");
    container(&host, "forgotten", "A", 1, 12, "");
    host.sh("ip neigh add 10.88.1.77 lladdr 02:00:00:00:00:77 dev wharf-a nud permanent");
    host.sh("rm -r /run/wharf/db; mv /run/wharf/old /run/wharf/db; ip netns del forgotten");
    let found = removed(&host, "gc --json");
    let named = |part: &str| found.iter().any(|object| object.contains(part));
    assert!(named("neighbour 10.88.1.12 on wharf-a"), "{found:?}");
    assert!(!named("10.88.1.77"), "{found:?}");
    let left = host.sh("ip neigh show nud permanent");
    assert!(left.contains("10.88.1.77"), "{left}");
    assert_eq!(left.lines().count(), old.lines().count() + 1, "{left}");
}
