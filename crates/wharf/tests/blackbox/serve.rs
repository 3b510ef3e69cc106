//! `wharf serve`: what others remove is there again within a second.

use crate::common::*;
use std::time::{Duration, Instant};
use wharf_testkit::{
    Echo, Flood, ForwardPolicy, Host, Running, Snapshot, addr, eventually, require,
};

/// From the change to the mending.
pub const SOON: Duration = Duration::from_secs(1);

pub fn watched(host: &Host) -> Running {
    let watcher = host.w_spawn("serve");
    eventually("it watches", || {
        watcher.stdout().contains("watching").then_some(())
    });
    watcher
}

#[test]
fn what_others_remove_is_there_again_within_a_second() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    let mut watcher = watched(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    network(&host, "B", 2, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "b1", "B", 2, 11, "");
    let a1 = host.container("a1");
    let _web = Echo::tcp(&a1, "a1", 80);
    let flood = Flood::start(
        &host.container("b1"),
        (at(false, 1, 11), 90).into(),
        b"flood",
    );
    let heard = wharf_testkit::Sniffer::start(&a1, "eth0");
    for (script, mended) in [
        ("nft flush ruleset", "nft list chain inet wharf forward"),
        (
            "nft flush chain inet wharf forward",
            "nft list chain inet wharf forward | grep transit",
        ),
        (
            "nft delete element inet wharf bridges '{ wharf-a }'",
            "nft get element inet wharf bridges '{ wharf-a }'",
        ),
        (
            "ip link del wharf-a",
            "ip link show master wharf-a | grep veth",
        ),
        (
            "ip addr flush dev wharf-a",
            "ip addr show dev wharf-a | grep 10.88.1.1/24",
        ),
        ("ip -4 rule del priority 113", "ip rule | grep ^113:"),
        (
            "ip route flush table 119",
            "ip route show table 119 | grep 10.88.1.0/24",
        ),
        (
            "nft flush ruleset; ip link set wharf-a down",
            "nft list table inet wharf && ip link show up dev wharf-a | grep wharf-a",
        ),
    ] {
        host.sh(script);
        let start = Instant::now();
        while host.command("sh").args(["-c", mended]).run().code != Some(0) {
            let late = start.elapsed();
            assert!(late < SOON, "{script}: not mended after {late:?}");
        }
        eprintln!("`{script}` was mended within {:?}", start.elapsed());
        eventually("all of it is mended", || {
            let left = host.w("repair --dry-run --json").json();
            (left["mended"] == serde_json::json!([])).then_some(())
        });
        for v6 in [false, true] {
            assert_eq!(
                host.outside().tcp(addr::host(v6), 8080).by(),
                Some("a1"),
                "{script}"
            );
        }
    }
    assert!(
        flood.sent() > 100 && heard.count(b"flood") == 0,
        "a packet of the flood got in"
    );
    drop((flood, heard));
    assert!(
        watcher.stdout().contains("mended table inet wharf"),
        "{}",
        watcher.stdout()
    );
    remove(&host, &["a1", "b1"], &["A", "B"]);
    watcher.signal(15);
    watcher.wait_within(SOON).ok();
    bare.assert_same(&host, "watching");
}

/// Docker makes its chains anew when it starts, and firewalls flush them: nobody would pass there.
#[test]
fn doors_of_others_are_opened_again_within_a_second() {
    require!();
    let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "a1", "A", 1, 11, "");
    let a1 = host.container("a1");
    assert!(a1.ping(addr::OUTSIDE4).reached());
    host.sh("iptables-nft -F DOCKER-USER");
    assert!(!a1.ping_brief(addr::OUTSIDE4).reached());
    let planned = host.w("repair --dry-run").ok().stdout;
    assert!(planned.contains("DOCKER-USER 'iifname"), "{planned}");
    host.sh(&planned);
    assert!(a1.ping(addr::OUTSIDE4).reached());
    assert_eq!(
        host.w("repair --json").json()["mended"],
        serde_json::json!([]),
        "the commands do the same"
    );
    let _watcher = watched(&host);
    for script in [
        "iptables-nft -F DOCKER-USER",
        "iptables-nft -D FORWARD -j DOCKER-USER; iptables-nft -F DOCKER-USER; iptables-nft -X DOCKER-USER; iptables-nft -N DOCKER-USER; iptables-nft -I FORWARD -j DOCKER-USER",
    ] {
        host.sh(script);
        let start = Instant::now();
        while !host
            .sh("iptables-nft -S DOCKER-USER")
            .contains("-o wharf-a")
        {
            assert!(start.elapsed() < SOON, "{script}");
        }
        assert!(a1.ping(addr::OUTSIDE4).reached(), "{script}");
    }
}

/// While containers come and go it stays out of the way, and calls nothing damage that is only being made.
#[test]
fn changes_of_wharf_itself_are_no_damage() {
    require!();
    let host = host();
    let mut watcher = watched(&host);
    network(&host, "A", 1, "");
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("c{thread}x{round}");
                    host.w(&format!(
                        "create {name} --network A -p {}:80",
                        9000 + thread * 100 + round
                    ))
                    .ok();
                    host.w(&format!("rm -f {name}")).ok();
                }
            });
        }
    });
    host.w("network rm A").ok();
    std::thread::sleep(Duration::from_millis(600));
    watcher.signal(15);
    let said = watcher.wait_within(SOON).ok();
    assert_eq!(said.stdout, "watching\n", "{}", said.transcript());
}

/// What `serve` has done by children of its own: they are off the kernel's list once they have ended.
#[test]
fn no_ended_child_stays() {
    require!();
    let host = host();
    let watcher = watched(&host);
    network(&host, "A", 1, "--bridge wharf-a");
    let children = format!("/proc/{0}/task/{0}/children", watcher.host_pid());
    let ended = || {
        let states = format!("for p in $(cat {children}); do grep -s ^State /proc/$p/status; done");
        host.sh(&states).matches("zombie").count()
    };
    for round in 0..6u8 {
        container(&host, "c", "A", 1, 11 + round, "");
        host.sh("nft flush ruleset; ip link del $(ls /sys/class/net/wharf-a/brif)");
        eventually("all of it is mended", || {
            let left = host.w("repair --dry-run --json").json();
            (left["mended"] == serde_json::json!([])).then_some(())
        });
        host.w("rm -f c").ok();
    }
    eventually("at most the last one is there", || {
        (ended() <= 1).then_some(())
    });
}
