//! `--dry-run` prints what an administrator would type: run by `sh` on a second host it gives the same network, and on the
//! first host it changes nothing.

use crate::common::*;
use serde_json::Value;
use std::collections::BTreeSet;
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

/// What was chosen at random and may differ: MAC addresses.
fn comparable(host: &Host, containers: &[&str]) -> Vec<Snapshot> {
    // nft's syntax wants a set of its own for keys without a name; netlink does not.
    let mut views = vec![
        Snapshot::of(host)
            .without(&["mount", "process", "/run"])
            .with_set_as("guard6_nd", "guard6"),
    ];
    views.extend(
        containers
            .iter()
            .map(|name| Snapshot::of_netns(&host.container(name))),
    );
    views.into_iter().map(without_macs).collect()
}

/// Random MAC addresses (the second digit is 2, 6, a or e) and the link-local addresses made from them become one word.
fn without_macs(snapshot: Snapshot) -> Snapshot {
    let mut found = BTreeSet::new();
    let text: String = ["link", "fdb", "neighbour", "address", "route6"]
        .iter()
        .flat_map(|section| snapshot.section(section))
        .chain([snapshot.nft()])
        .collect::<Vec<_>>()
        .join(" ");
    for word in text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':')) {
        let is_mac = word.len() == 17
            && word.split(':').all(|part| part.len() == 2)
            && word.split(':').count() == 6;
        let is_link_local = word.starts_with("fe80::") && word.len() > 6;
        if (is_mac && word != "ff:ff:ff:ff:ff:ff" && word != "00:00:00:00:00:00") || is_link_local {
            found.insert(word.to_owned());
        }
    }
    // The longest first, since an address may begin as another does.
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let pairs: Vec<_> = found.iter().map(|word| (word.as_str(), "RANDOM")).collect();
    snapshot.replace(&pairs)
}

/// The plan as JSON and as a script; nothing may change by asking.
#[track_caller]
fn plan(host: &Host, line: &str) -> (Value, String) {
    let before = Snapshot::of(host);
    let kept = ["ps --json", "network ls --json"].map(|line| host.w(line).ok().stdout);
    let json = host.w(&format!("{line} --dry-run --json")).json();
    let script = host.w(&format!("{line} --dry-run")).ok().stdout;
    before.assert_same(host, &format!("`wharf {line} --dry-run`"));
    assert_eq!(
        ["ps --json", "network ls --json"].map(|line| host.w(line).ok().stdout),
        kept,
        "{line}"
    );
    let steps = json["steps"]
        .as_array()
        .unwrap_or_else(|| panic!("no list `steps` in {json:#}"));
    for step in steps {
        for key in ["op", "command", "because"] {
            assert!(!step[key].is_null(), "no `{key}` in {step:#}");
        }
        assert!(step.get("undo").is_some(), "no `undo` in {step:#}");
    }
    (json, script)
}

/// Does `line` on one host, and what its dry run prints on the other: both must be alike.
#[track_caller]
fn play(real: &Host, copy: &Host, line: &str, compared: bool) {
    let (json, script) = plan(real, line);
    assert!(
        json["steps"]
            .as_array()
            .is_some_and(|steps| !steps.is_empty()),
        "an empty plan for {line}"
    );
    let there = |host: &Host| -> Vec<&str> {
        ["c1", "c2"]
            .into_iter()
            .filter(|name| host.path(&format!("/run/netns/{name}")).exists())
            .collect()
    };
    let played = copy.command("sh").arg("-eu").input(&script).run();
    assert_eq!(
        played.code,
        Some(0),
        "{line}\n{script}\n{}",
        played.transcript()
    );
    real.w(line).ok();
    assert_eq!(
        there(copy),
        there(real),
        "namespaces after {line}\n{script}"
    );
    if !compared {
        return;
    }
    let containers = there(real);
    let pairs = comparable(real, &containers)
        .into_iter()
        .zip(comparable(copy, &containers));
    for (number, (wanted, got)) in pairs.enumerate() {
        let place = if number == 0 {
            "host"
        } else {
            containers[number - 1]
        };
        let difference = wanted.difference(&got);
        assert!(
            difference.is_empty(),
            "{line}\n- is wharf, + is the script, on {place}:\n{difference}\n\n{script}"
        );
    }
}

#[test]
fn dry_run_executed_by_sh_gives_the_same_network() {
    require!();
    let (real, copy) = (host(), host());
    let start = Snapshot::of(&copy);
    let steps = [
        "network create A --subnet 10.88.1.0/24 --subnet fd00:88:1::/64 --bridge wharf-a --label a=b",
        "network create B --subnet 10.88.2.0/24 --bridge wharf-b --icc=false --mtu 1400",
        "network create I --subnet 10.88.3.0/24 --internal --bridge wharf-i",
        "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11,mac=02:00:00:00:01:11,host-interface=vc1 -p 8080:80 -p 127.0.0.1:8082:82 -p 8090-8099:90-99/udp",
        "create c2 --network I:ip=10.88.3.12,mac=02:00:00:00:01:12,host-interface=vc2",
        "network connect B c2 --ip 10.88.2.12",
        "port add c1 10.0.2.2:8081:81/sctp",
        "port rm c1 8080:80",
        "network disconnect B c2",
        "rm -f c2",
        "rm -f c1",
        "network rm I B",
        "network rm A",
    ];
    for line in steps {
        // What `network connect` calls its host end is made up anew each time.
        let named =
            !(line.starts_with("network connect") || line.starts_with("network disconnect"));
        play(&real, &copy, line, named);
    }
    start.assert_same(
        &copy,
        "all scripts, the last ones removing what the first ones made",
    );
}

#[test]
fn a_network_made_by_script_carries_traffic() {
    require!();
    let (real, copy) = (host(), host());
    for line in [
        "network create A --subnet 10.88.1.0/24 --subnet fd00:88:1::/64 --bridge wharf-a",
        "create c1 --network A:ip=10.88.1.11,ip=fd00:88:1::11,host-interface=vc1 -p 8080:80",
    ] {
        let (_, script) = plan(&real, line);
        real.w(line).ok();
        copy.command("sh").arg("-eu").input(&script).run().ok();
    }
    let c1 = copy.container("c1");
    let _servers = (
        Echo::tcp(&c1, "c1", 80),
        Echo::tcp(copy.outside(), "outside", 80),
    );
    for v6 in [false, true] {
        assert_eq!(copy.outside().tcp(addr::host(v6), 8080).by(), Some("c1"));
        assert_eq!(c1.tcp(addr::outside(v6), 80).source(), Some(addr::host(v6)));
        assert!(!copy.outside().tcp_brief(at(v6, 1, 11), 80).reached());
    }
}

#[test]
fn every_change_has_a_dry_run_and_an_error_is_the_same_error() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c1", "A", 1, 11, "-p 8080:80");
    for line in [
        "create c2 --network A",
        "rm -f c1",
        "network create N",
        "network prune",
        "network disconnect A c1",
        "port add c1 8081:80",
        "port rm c1 8080:80",
    ] {
        plan(&host, line);
    }
    let before = Snapshot::of(&host);
    let got = host
        .w("run --dry-run --network A -- touch /tmp/must-not-exist")
        .ok();
    assert!(!got.stdout.is_empty());
    before.assert_same(&host, "run --dry-run");
    for line in [
        "create c1 --network A",
        "create c2 --network A -p 8080:80",
        "network rm A",
        "network create A",
    ] {
        host.w(&format!("{line} --dry-run")).fails(1);
    }
}

/// Several at once: each step follows from those before, down to the last network, with which the host's part goes.
#[test]
fn a_dry_run_of_several_changes_counts_those_before() {
    require!();
    for last in [
        "network rm -f A B C",
        "rm -f c1 c2; network rm C B A",
        "rm -f c1 c2; network prune",
    ] {
        let (real, copy) = (host(), host());
        let start = Snapshot::of(&copy);
        let steps = [
            "network create A --subnet 10.88.1.0/24 --subnet fd00:88:1::/64 --bridge wharf-a",
            "network create B --subnet 10.88.2.0/24 --bridge wharf-b --masquerade=false",
            "network create C --subnet 10.88.3.0/24 --bridge wharf-c -o com.docker.network.bridge.gateway_mode_ipv4=routed",
            "create c1 --network A:host-interface=vc1a --network B:host-interface=vc1b -p 8080:80",
            "create c2 --network B:host-interface=vc2b --network A:host-interface=vc2a -p 127.0.0.1:8081:81 -p 8090:8090/udp",
            "network connect C:host-interface=vc1c,gw-priority=7 c1",
            "port add c1 8090:8090/tcp 9000-9002:90-92",
            "port rm c1 9000-9002:90-92",
            "network disconnect A c1",
            "network connect A:host-interface=vc1a c1",
        ];
        for line in steps {
            play(&real, &copy, line, last.contains("-f A"));
        }
        for line in last.split("; ") {
            play(&real, &copy, line, true);
        }
        real.w("rm -f c1 c2").ok();
        copy.sh("for c in c1 c2; do ip netns del $c 2>/dev/null || true; done");
        start.assert_same(&copy, last);
    }
}

/// After a reboot networks come up with their first container: what they share on the host is done once.
#[test]
fn a_dry_run_brings_several_networks_up() {
    require!();
    let real = host();
    for line in [
        "network create A --subnet 10.88.1.0/24 --bridge wharf-a",
        "network create B --subnet 10.88.2.0/24 --bridge wharf-b",
        "network create V --subnet fd00:88:3::/64 --bridge wharf-v",
    ] {
        real.w(line).ok();
    }
    let (real, copy) = (real.reboot(), host());
    play(
        &real,
        &copy,
        "create c1 --network A:host-interface=va --network V:host-interface=vv --network B:host-interface=vb -p 8080:80",
        true,
    );
}

/// What a dry run prints can be typed where wharf itself made all the rest.
#[test]
fn a_dry_run_can_be_typed_where_wharf_made_the_rest() {
    require!();
    let before = [
        "network create A --subnet 10.88.1.0/24 --subnet fd00:88:1::/64 --bridge wharf-a",
        "network create B --subnet 10.88.2.0/24 --subnet fd00:88:2::/64 --bridge wharf-b --icc=false",
        "create c1 --network A:host-interface=vc1a -p 8080:80 -p 8090-8092:90-92/udp",
    ];
    for line in [
        "create c2 --network B:host-interface=vc2b -p 127.0.0.1:8081:80",
        "network connect B:host-interface=vc1b c1",
        "port add c1 8082:82",
        "port rm c1 8080:80",
        "network disconnect A c1",
        "network create C --subnet fd00:88:3::/64 --bridge wharf-c",
        "rm c1",
        "network rm B",
        "network rm -f A B",
    ] {
        let (real, copy) = (host(), host());
        for made in before {
            real.w(made).ok();
            copy.w(made).ok();
        }
        play(&real, &copy, line, true);
    }
}

/// What the store would have again is told, and no store is touched, be it lost, damaged or whole.
#[test]
fn a_rebuild_is_shown() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "web", "A", 1, 11, "-p 8080:80");
    let state = host.state_dir().display().to_string();
    let files = || {
        host.sh(&format!(
            "find /run/wharf {state} -type f ! -name lock.mdb | sort | xargs -r md5sum; find /run/wharf {state} | sort"
        ))
    };
    let found = |line: &str| -> Vec<String> {
        let said = host.w(line).ok().json();
        let list = said["mended"].as_array().cloned().unwrap_or_default();
        list.iter().map(|f| text(f, "object")).collect()
    };
    let all = ["container web", "network A"];
    let run = "/run/wharf/db/data.mdb";
    for (damage, first) in [
        ("true", None),
        ("rm -r /run/wharf/db", Some("")),
        (&format!("rm -r /run/wharf/db {state}/db"), Some("")),
        (
            &format!("head -c 5000 /dev/urandom > {run}"),
            Some("store /run/wharf/db"),
        ),
    ] {
        host.sh(damage);
        let before = (files(), Snapshot::of(&host));
        let shown = found("repair --rebuild --dry-run --json");
        let text = host.w("repair --rebuild --dry-run").ok().stdout;
        assert_eq!(files(), before.0, "{damage}");
        before.1.assert_same(&host, damage);
        let Some(first) = first else {
            assert!(shown.is_empty(), "{shown:?}");
            continue;
        };
        let expected: Vec<&str> = [first]
            .into_iter()
            .chain(all)
            .filter(|o| !o.is_empty())
            .collect();
        assert_eq!(shown, expected, "{damage}");
        for object in expected {
            assert!(text.contains(&format!("# {object} (")), "{object}: {text}");
        }
        host.w("repair --rebuild").ok();
        assert_eq!(names(&host.w("ps --json").json()), ["web"], "{damage}");
        assert!(
            found("repair --rebuild --dry-run --json").is_empty(),
            "{damage}"
        );
    }
}

/// Rules in other tools' chains are part of what is shown, and are not made by the showing.
#[test]
fn doors_are_shown_and_stay_shut() {
    require!();
    let host = host();
    for program in ["iptables", "ip6tables"] {
        host.sh(&format!(
            "{program} -N DOCKER-USER; {program} -I FORWARD -j DOCKER-USER; {program} -P FORWARD DROP"
        ));
    }
    let before = Snapshot::of(&host);
    let shown = |line: &str| {
        let text = host.w(line).ok().stdout;
        before.assert_same(&host, line);
        text
    };
    let doors_in = |line: &str| {
        let steps = host.w(&format!("{line} --json")).json()["steps"].clone();
        let of_door = |step: &&Value| step["command"].to_string().contains("DOCKER-USER");
        let steps = steps.as_array().cloned().unwrap_or_default();
        steps.iter().filter(of_door).count()
    };
    let create = "network create n --bridge wn --subnet 10.88.9.0/24 --subnet fd00:88:9::/64";
    assert!(shown(&format!("{create} --dry-run")).contains("DOCKER-USER"));
    assert_eq!(doors_in(&format!("{create} --dry-run")), 4);
    let file = "networks:\n  n:\n    bridge: wn\n    subnet: [10.88.9.0/24]\n";
    let file = host.dir().write("t.yaml", file);
    shown(&format!("plan {file}"));
    shown(&format!("apply {file} --dry-run"));
    shown("create c --dry-run");
    host.w(create).ok();
    let doors = || host.sh("iptables -S DOCKER-USER; ip6tables -S DOCKER-USER");
    let open = doors();
    assert_eq!(open.matches("wn").count(), 4, "{open}");
    host.sh("iptables -F DOCKER-USER");
    let before = Snapshot::of(&host);
    assert_eq!(doors_in("create c --network n --dry-run"), 2);
    before.assert_same(&host, "a door that somebody shut");
    host.w("create c --network n").ok();
    assert_eq!(doors(), open);
}
