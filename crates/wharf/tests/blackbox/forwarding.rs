//! Forwarding: for whom it is on while wharf needs it, and who has it afterwards.

use crate::common::*;
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

const SYSCTLS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

fn forwards(host: &Host) -> [bool; 2] {
    SYSCTLS.map(|key| host.netns().sysctl(key).as_deref() == Some("1"))
}

/// The neighbour gets through the host to the outside, or does not, in IPv4 and in IPv6.
#[track_caller]
fn passes(host: &Host, want: [bool; 2], when: &str) {
    for (v6, want) in [false, true].into_iter().zip(want) {
        let (to, from) = (addr::outside(v6), host.neighbour());
        let answer = if want {
            from.tcp(to, 80)
        } else {
            from.tcp_brief(to, 80)
        };
        assert_eq!(answer.reached(), want, "IPv6 {v6}, {when}: {answer}");
    }
}

/// What an administrator writes who wants a router is believed as long as it is there.
#[test]
fn who_turns_it_on_in_his_files_has_a_router() {
    require!();
    let host = options().neighbour().start();
    let _far = Echo::tcp(host.outside(), "outside", 80);
    let before = Snapshot::of(&host);
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "");
    let _a1 = Echo::tcp(&host.container("a1"), "a1", 80);
    passes(&host, [false; 2], "as before");
    let lines = SYSCTLS.map(|key| format!("echo '{key} = 1' >> /etc/sysctl.d/90-router.conf"));
    for (v6, line) in lines.iter().enumerate() {
        let asked = format!("trace outside {}", [addr::NEIGHBOUR4, addr::NEIGHBOUR6][v6]);
        let advice = host.w(&asked).stdout;
        assert!(advice.contains(line), "{advice}");
        host.sh(line);
        let told = host.w("doctor").stdout;
        assert!(told.contains("transit"), "{told}");
        host.w("repair").ok();
        passes(&host, [true, v6 == 1], line);
    }
    container(&host, "a2", "A", 1, 12, "");
    network(&host, "B", 2, "");
    host.w("repair").ok();
    passes(&host, [true; 2], "what wharf does later leaves it");
    for v6 in [false, true] {
        let to = at(v6, 1, 11);
        assert!(
            !host.outside().tcp_brief(to, 80).reached(),
            "containers stay closed"
        );
    }
    host.sh("rm /etc/sysctl.d/90-router.conf");
    host.w("repair").ok();
    passes(&host, [false; 2], "without the file");
    remove(&host, &["a1", "a2"], &["A", "B"]);
    before.assert_same(&host, "a router for a while");
}

/// It stays on when the last network goes, and with it what keeps the host from being deaf to routers.
#[test]
fn it_stays_on_for_who_has_it_in_his_files() {
    require!();
    let host = options().neighbour().start();
    let _far = Echo::tcp(host.outside(), "outside", 80);
    let hears = "net.ipv6.conf.up0.accept_ra";
    host.netns().set_sysctl(hears, "1");
    network(&host, "A", 1, "");
    host.sh("echo 'net/ipv6/conf/all/forwarding=1' > /usr/lib/sysctl.d/50-vendor.conf");
    host.w("network rm A")
        .ok()
        .says("/usr/lib/sysctl.d/50-vendor.conf turns");
    assert_eq!(forwards(&host), [false, true]);
    assert_eq!(host.netns().sysctl(hears).as_deref(), Some("2"));
    passes(&host, [false, true], "without wharf");
    // The administrator's own file says the opposite: what it was goes for the next network.
    host.sh("echo > /etc/sysctl.d/50-vendor.conf");
    host.netns().set_sysctl(SYSCTLS[1], "0");
    host.netns().set_sysctl(hears, "1");
    network(&host, "A", 1, "");
    passes(&host, [false; 2], "hidden by an empty file");
    remove(&host, &[], &["A"]);
    assert_eq!(forwards(&host), [false; 2]);
    assert_eq!(host.netns().sysctl(hears).as_deref(), Some("1"));
}

/// Another's bridge keeps it on only in the family in which it has addresses.
#[test]
fn a_bridge_keeps_it_on_for_its_own_addresses() {
    require!();
    for (address, on) in [
        ("172.17.0.1/16", [true, false]),
        ("fd00:d::1/64", [false, true]),
    ] {
        let host = host();
        let hears = "net.ipv6.conf.up0.accept_ra";
        host.netns().set_sysctl(hears, "1");
        network(&host, "A", 1, "");
        host.sh(&format!(
            "ip link add other0 type bridge; ip addr add {address} dev other0; ip link set other0 up"
        ));
        host.w("network rm A").ok().says("other0 may need it");
        assert_eq!(forwards(&host), on, "{address}");
        let heard = if on[1] { "2" } else { "1" };
        assert_eq!(
            host.netns().sysctl(hears).as_deref(),
            Some(heard),
            "{address}"
        );
    }
}
