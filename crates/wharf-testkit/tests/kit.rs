//! The kit tried against networks made by hand.

use std::net::IpAddr;
use std::time::{Duration, Instant};
use wharf_testkit::skip::Need;
use wharf_testkit::{
    Answer, Echo, Flood, ForwardPolicy, Host, HostOptions, Matrix, Netns, Protocol, SctpEcho,
    Snapshot, Sniffer, Want, Wire, addr, eventually, frame, probe, require,
};

/// A container made by hand: `c1` at 10.88.0.2 and fd88::2, port 8080 of the host published to its 80.
const CONTAINER: &str = "
    ip netns add c1
    ip link add br0 type bridge
    ip addr add 10.88.0.1/24 dev br0
    ip -6 addr add fd88::1/64 dev br0 nodad
    ip link set br0 up
    ip link add v1 type veth peer name eth0 netns c1
    ip link set v1 master br0 up
    ip -n c1 addr add 10.88.0.2/24 dev eth0
    ip -n c1 -6 addr add fd88::2/64 dev eth0 nodad
    ip -n c1 link set lo up
    ip -n c1 link set eth0 up
    ip -n c1 route add default via 10.88.0.1
    ip -n c1 -6 route add default via fd88::1
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    nft -f - <<'END'
        table inet by-hand {
            chain pre { type nat hook prerouting priority dstnat
                fib daddr type local meta l4proto { tcp, udp, sctp } th dport 8080 dnat ip to 10.88.0.2:80
                fib daddr type local meta l4proto { tcp, udp, sctp } th dport 8080 dnat ip6 to [fd88::2]:80
            }
            chain post { type nat hook postrouting priority srcnat
                oifname up0 masquerade
            }
        }
END
";

const CONTAINER_ENDS: &str = "
    nft delete table inet by-hand
    ip netns del c1
    ip link del br0
    sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
";

fn host() -> Host {
    Host::new("/bin/false")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn host_reaches_the_outside_and_back() {
    require!(Need::Program("ip"));
    let host = host();
    let _web = Echo::many(host.outside(), "outside", Protocol::Tcp, &[80, 81]);
    let _dns = Echo::udp(host.outside(), "outside", 53);
    for v6 in [false, true] {
        assert_eq!(
            host.netns().tcp(addr::outside(v6), 80).source(),
            Some(addr::host(v6))
        );
        assert_eq!(
            host.netns().udp(addr::outside(v6), 53).source(),
            Some(addr::host(v6))
        );
        assert_eq!(host.netns().ping(addr::outside(v6)), Answer::Replied);
        assert_eq!(host.netns().tcp(addr::outside(v6), 82), Answer::Refused);
        assert_eq!(host.netns().udp(addr::outside(v6), 82), Answer::Refused);
        assert_eq!(host.outside().tcp(addr::host(v6), 80), Answer::Refused);
    }
    assert_eq!(
        Netns::new("lonely").tcp(addr::OUTSIDE4, 80),
        Answer::Unreachable
    );
    host.sh("nft add table inet t; nft add chain inet t o '{ type filter hook input priority 0; policy drop; }'");
    assert_eq!(host.outside().tcp_brief(addr::HOST4, 80), Answer::Timeout);
    assert_eq!(host.outside().ping_brief(addr::HOST6), Answer::Timeout);
}

#[test]
fn probes_see_names_and_sources_through_nat() {
    require!(Need::Program("nft"));
    let host = host();
    host.sh(CONTAINER);
    let c1 = host.container("c1");
    let _servers = (
        Echo::tcp(&c1, "c1", 80),
        Echo::udp(&c1, "c1", 80),
        SctpEcho::new(&c1, "c1", 80),
    );
    let _outside = (
        Echo::tcp(host.outside(), "outside", 80),
        SctpEcho::new(host.outside(), "outside", 80),
    );
    let mut matrix = Matrix::new();
    for v6 in [false, true] {
        let (outside, here) = (addr::outside(v6), addr::host(v6));
        let router = if v6 { addr::ROUTER6 } else { addr::ROUTER4 };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            matrix.add(
                "published",
                host.outside(),
                protocol,
                (here, 8080),
                Want::ReachAs("c1", router),
            );
        }
        matrix.tcp("not published", host.outside(), here, 8081, Want::Refused);
        matrix.tcp(
            "masqueraded",
            &c1,
            outside,
            80,
            Want::ReachAs("outside", here),
        );
        matrix.sctp(
            "masqueraded",
            &c1,
            outside,
            80,
            Want::ReachAs("outside", here),
        );
        matrix.ping("masqueraded", &c1, outside, Want::Reply);
        matrix.ping(
            "ping nobody",
            &c1,
            ip(if v6 { "fd88::99" } else { "10.88.0.99" }),
            Want::No,
        );
    }
    matrix.check();
    let mut wrong = Matrix::new();
    wrong.tcp(
        "meant to be wrong",
        &c1,
        addr::OUTSIDE4,
        80,
        Want::Reach("somebody else"),
    );
    let lines = wrong.deviations();
    assert!(
        lines.len() == 1 && lines[0].contains("reached outside, which saw 10.0.2.2"),
        "{lines:?}"
    );
}

#[test]
fn a_hundred_probes_that_time_out_take_a_few_seconds() {
    require!(Need::Program("nft"));
    let host = host();
    host.sh("nft add table inet t; nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'");
    let mut matrix = Matrix::new();
    (0..100).for_each(|port| {
        matrix.tcp(
            "dropped",
            host.outside(),
            addr::HOST4,
            1000 + port,
            Want::No,
        )
    });
    let start = Instant::now();
    matrix.check();
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn snapshot_sees_what_stays_and_what_is_restored() {
    require!(Need::Program("nft"));
    let host = host();
    let before = Snapshot::of(&host);
    host.sh(CONTAINER);
    let with = Snapshot::of(&host);
    let text = before.difference(&with).to_string();
    for part in [
        "+ link: ",
        "+ address: ",
        "+ route: ",
        "+ route6: ",
        "+ fdb: ",
        "+ nft: table inet by-hand",
        "+ /run/netns: c1",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    for part in [
        "- sysctl: net.ipv4.ip_forward = 0",
        "+ sysctl: net.ipv4.ip_forward = 1",
        "+ mount: /run/netns/c1 nsfs",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let sleeper = host.command("sleep").arg("1000").spawn();
    host.sh(CONTAINER_ENDS);
    let difference = before.difference(&Snapshot::of(&host));
    assert_eq!(difference.lines(), ["+ process: sleep 1000"]);
    drop(sleeper);
    before.assert_same(&host, "by hand");
}

#[test]
fn commands_report_status_signal_and_pid() {
    require!(Need::Program("sh"));
    let host = host();
    host.command("sh")
        .args(["-c", "echo no >&2; exit 3"])
        .run()
        .fails(3)
        .says("NO");
    assert_eq!(
        host.command("cat").input("hello").run().ok().stdout,
        "hello"
    );
    let mut shell = host
        .command("sh")
        .args([
            "-c",
            "echo $$; trap 'exit 7' TERM; while :; do sleep 0.01; done",
        ])
        .spawn();
    let pid: i32 = eventually("the pid", || shell.stdout().trim().parse().ok());
    assert_eq!(shell.host_pid(), pid);
    assert!(host.processes().iter().any(|(other, _)| *other == pid));
    assert_eq!(host.netns_of(pid).interfaces(), host.netns().interfaces());
    shell.signal(libc::SIGTERM);
    shell.wait().exits(7);
    let mut sleeper = host.command("sleep").arg("1000").spawn();
    sleeper.signal(libc::SIGKILL);
    assert_eq!(sleeper.wait().signal, Some(libc::SIGKILL));
}

#[test]
fn nothing_is_left_of_a_host_even_after_a_panic() {
    require!(Need::Program("ip"));
    let mark = format!("{}", 100_000 + std::process::id());
    let (inner, path) = (mark.clone(), std::sync::Mutex::new(None));
    let shared = &path;
    let result = std::thread::scope(|scope| {
        let work = move || {
            let host = host();
            *shared.lock().expect("lock") = Some(host.dir().path().to_owned());
            host.sh(&format!(
                "ip netns add c1; setsid sleep {inner} </dev/null >/dev/null 2>&1 &"
            ));
            eventually("the sleeper", || {
                host.processes()
                    .iter()
                    .any(|(_, line)| line.contains(&inner))
                    .then_some(())
            });
            panic!("on purpose");
        };
        scope.spawn(work).join()
    });
    assert!(result.is_err());
    let path = path.into_inner().expect("lock").expect("path");
    assert!(!path.exists(), "{} is left", path.display());
    let left = Netns::new("any")
        .command("pgrep")
        .args(["-f", &format!("sleep {mark}")])
        .run();
    assert_eq!(left.code, Some(1), "{}", left.transcript());
}

#[test]
fn reboot_keeps_the_durable_state_only() {
    require!(Need::Program("ip"));
    let host = host();
    host.sh("echo kept > $WHARF_STATE_DIR/a; mkdir -p $WHARF_RUN_DIR; echo lost > $WHARF_RUN_DIR/b; ip netns add c1");
    let host = host.reboot();
    assert_eq!(
        host.sh("cat $WHARF_STATE_DIR/a; ls /run/netns /run/wharf 2>/dev/null || true"),
        "kept\n"
    );
    assert!(host.processes().is_empty());
    assert_eq!(host.netns().ping(addr::OUTSIDE4), Answer::Replied);
}

#[test]
fn frames_are_sent_and_caught() {
    require!(Need::Program("nft"));
    let host = host();
    host.sh(CONTAINER);
    let c1 = host.container("c1");
    let sniffer = Sniffer::start(host.netns(), "v1");
    let wire = Wire::open(&c1, "eth0");
    let macs = (c1.mac("eth0"), host.netns().mac("br0"));
    let server = Echo::udp(host.netns(), "host", 7);
    for (from, to) in [("10.88.0.2", "10.88.0.1"), ("fd88::2", "fd88::1")] {
        let served = server.served();
        let payload = format!("hello from {from}");
        wire.send(&frame::udp(
            macs,
            (ip(from), 9),
            (ip(to), 7),
            payload.as_bytes(),
        ));
        sniffer.wait_for("the frame", payload.as_bytes());
        eventually("the datagram passed all checksums", || {
            (server.served() > served).then_some(())
        });
    }
    let advertisement = frame::neighbour_advertisement(
        (macs.0, macs.1),
        "fd88::2".parse().expect("address"),
        "fd88::1".parse().expect("address"),
        "fd88::2".parse().expect("address"),
        [2, 0, 0, 0, 0, 0x77],
    );
    eventually("the host believes a neighbour advertisement", || {
        wire.send(&advertisement);
        host.netns()
            .ip("-6 neigh show fd88::2")
            .contains("02:00:00:00:00:77")
            .then_some(())
    });
    let flood = Flood::start(&c1, (ip("10.88.0.1"), 7).into(), b"flood");
    eventually("a flood", || {
        (sniffer.count(b"flood") > 100 && flood.sent() > 100).then_some(())
    });
}

#[test]
fn firewall_and_sysctls_are_as_asked() {
    require!(Need::Program("iptables-nft"), Need::BridgeNetfilter);
    let host = HostOptions::new("/bin/false")
        .bridge_nf_call(true)
        .forward(ForwardPolicy::DropWithDockerUser)
        .ip_forward(true)
        .neighbour()
        .start();
    assert_eq!(
        host.netns()
            .sysctl("net.bridge.bridge-nf-call-ip6tables")
            .as_deref(),
        Some("1")
    );
    assert!(
        host.sh("iptables-nft -S")
            .contains("-A FORWARD -j DOCKER-USER")
    );
    assert_eq!(host.neighbour().ping_brief(addr::OUTSIDE4), Answer::Timeout);
    host.sh("iptables-nft -I DOCKER-USER -j ACCEPT");
    assert_eq!(host.neighbour().ping(addr::OUTSIDE4), Answer::Replied);
    assert_eq!(host.neighbour().ping(addr::HOST4_UP1), Answer::Replied);
    let closed = HostOptions::new("/bin/false").neighbour().start();
    assert!(
        !probe(
            closed.neighbour(),
            Protocol::Ping,
            (addr::OUTSIDE4, 0).into(),
            probe::BRIEF
        )
        .reached()
    );
}
