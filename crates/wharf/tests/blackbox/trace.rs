//! `wharf trace`: what it says is what packets meet, and what it advises mends it.

use crate::common::*;
use serde_json::Value;
use wharf_testkit::{Echo, Host, addr, require};

/// Two networks with a container each, and a second one on the first.
fn stage() -> Host {
    let host = host();
    network(&host, "front", 1, "");
    network(&host, "back", 2, "");
    container(&host, "web", "front", 1, 11, "-p 8080:80");
    container(&host, "cache", "front", 1, 12, "");
    container(&host, "db", "back", 2, 11, "");
    host
}

/// Traces, and gives verdict, cause and the whole report; what a real packet meets must be the same.
#[track_caller]
fn trace(host: &Host, line: &str) -> (String, String, Value) {
    let offline = traced(host, &format!("{line} --offline"));
    let live = traced(host, line);
    let said = |(verdict, code, _): &(String, String, Value)| (verdict.clone(), code.clone());
    assert_eq!(said(&live), said(&offline), "{line}: {:#}", live.2);
    offline
}

#[track_caller]
fn traced(host: &Host, line: &str) -> (String, String, Value) {
    let out = host.w(&format!("trace {line} --json"));
    let report: Value = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
    let delivered = report["verdict"] == "delivered";
    out.exits(if delivered { 0 } else { 1 });
    let code = report["cause"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (text(&report, "verdict"), code, report)
}

#[test]
fn what_arrives_is_delivered() {
    require!();
    let host = stage();
    let [web, cache] = ["web", "cache"].map(|name| host.container(name));
    let _server = Echo::tcp(&web, "web", 80);
    let (four, six) = (at(false, 1, 11), at(true, 1, 11));
    for (line, arrives) in [
        ("cache web", cache.ping(four).reached()),
        ("cache web:80", cache.tcp(four, 80).reached()),
        ("cache [fd00:88:1::11]:80", cache.tcp(six, 80).reached()),
        ("cache fd00:88:1::11", cache.ping(six).reached()),
        ("host web:80/tcp", host.netns().tcp(four, 80).reached()),
        ("cache host:8080", cache.tcp(addr::HOST4, 8080).reached()),
        (
            "outside host:8080",
            host.outside().tcp(addr::HOST4, 8080).reached(),
        ),
        ("outside:192.0.2.50 10.0.2.2:8080", true),
        ("web 192.0.2.50", web.ping(addr::OUTSIDE4).reached()),
    ] {
        assert!(arrives, "{line}");
        let (verdict, _, report) = trace(&host, line);
        assert_eq!(verdict, "delivered", "{line}: {report:#}");
        assert!(report["cause"].is_null(), "{line}: {report:#}");
    }
}

#[test]
fn what_wharf_keeps_apart_is_named() {
    require!();
    let host = stage();
    let _web = Echo::tcp(&host.container("web"), "web", 80);
    let _db = Echo::tcp(&host.container("db"), "db", 80);
    let cache = host.container("cache");
    for (line, code, reached) in [
        (
            "cache db:80",
            "network-isolation",
            cache.tcp_brief(at(false, 2, 11), 80).reached(),
        ),
        (
            "outside web:81",
            "not-published",
            host.outside().tcp_brief(at(false, 1, 11), 81).reached(),
        ),
        (
            "cache web:81",
            "not-listening",
            cache.tcp(at(false, 1, 11), 81).reached(),
        ),
        (
            "cache web:80/udp",
            "listening-elsewhere",
            cache.udp_brief(at(false, 1, 11), 80).reached(),
        ),
    ] {
        assert!(!reached, "{line}");
        let (verdict, said, report) = trace(&host, line);
        assert_eq!(said, code, "{line}: {report:#}");
        assert_ne!(verdict, "delivered", "{line}");
    }
}

/// Breaks something, has it explained, does what is advised, and sees whether that mends it.
#[track_caller]
fn broken(host: &Host, breaks: &str, line: &str, code: &str, arrives: impl Fn() -> bool) {
    assert!(arrives(), "before: {breaks}");
    host.sh(breaks);
    assert!(!arrives(), "nothing is broken by: {breaks}");
    let (verdict, said, report) = trace(host, line);
    assert_eq!(said, code, "{breaks}: {report:#}");
    assert_ne!(verdict, "delivered", "{breaks}");
    for fix in texts(&report, "cause/fix") {
        host.sh(&fix);
    }
    assert!(arrives(), "{breaks}: not mended: {report:#}");
    let (verdict, _, report) = trace(host, line);
    assert_eq!(verdict, "delivered", "{breaks}: {report:#}");
}

#[test]
fn what_is_advised_mends_what_was_broken() {
    require!();
    let host = stage();
    let [web, cache] = ["web", "cache"].map(|name| host.container(name));
    let echo = || cache.ping_brief(at(false, 1, 11)).reached();
    let away = || web.ping_brief(addr::OUTSIDE4).reached();
    let veth = text(&host.inspect("web"), "networks/0/host_interface");
    let bridge = text(&host.inspect_network("front"), "bridge");
    let down = format!("ip link set {veth} down");
    broken(&host, &down, "cache web", "link-down", echo);
    let apart = format!("ip link set {veth} nomaster");
    broken(&host, &apart, "cache web", "not-on-bridge", echo);
    let isolated = format!("bridge link set dev {veth} isolated on");
    let other = text(&host.inspect("cache"), "networks/0/host_interface");
    let isolated = format!("{isolated}; bridge link set dev {other} isolated on");
    host.sh(&isolated);
    let (_, code, report) = trace(&host, "cache web");
    assert_eq!(code, "bridge-port-blocked", "{report:#}");
    host.sh(&format!(
        "bridge link set dev {veth} isolated off; bridge link set dev {other} isolated off"
    ));
    broken(
        &host,
        "ip netns exec web sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
        "cache web",
        "echo-ignored",
        echo,
    );
    broken(
        &host,
        "ip netns exec cache ip neigh replace 10.88.1.11 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "cache web",
        "neighbour-wrong",
        echo,
    );
    broken(
        &host,
        "ip netns exec web ip route add blackhole 192.0.2.0/24",
        "web 192.0.2.50",
        "route-rejects",
        away,
    );
    broken(
        &host,
        "sysctl -qw net.ipv4.ip_forward=0",
        "web 192.0.2.50",
        "forwarding-disabled",
        away,
    );
    broken(
        &host,
        &format!(
            "nft 'add table inet other; add chain inet other f {{ type filter hook forward priority 0; }}; add rule inet other f iifname {bridge} drop'"
        ),
        "web 192.0.2.50",
        "firewall-rule",
        away,
    );
}

#[test]
fn people_see_the_way_and_mistakes_are_answered() {
    require!();
    let host = stage();
    let out = host.w("trace cache web");
    let shown = out.exits(0).stdout;
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(shown.starts_with("an echo from cache (10.88.1.12) to web (10.88.1.11)\n"));
    let (_, end) = shown.rsplit_once("\n\n").expect("the end stands apart");
    assert!(
        end.starts_with("delivered: it arrives, and the answer comes back\nprobe: "),
        "{shown}"
    );
    assert!(
        end.contains(" from 10.88.1.12 to 10.88.1.11: answered within "),
        "{shown}"
    );
    host.w("trace cache web:0").exits(2);
    host.w("trace cache").exits(2);
    host.w("trace cache outside:x").exits(2);
    let zone = host.w("trace host fe80::1%eth0 --json").exits(2).error();
    assert!(text(&zone, "message").contains("one link only"), "{zone:#}");
    let many = host
        .w("trace host 255.255.255.255 --offline --json")
        .exits(1);
    assert!(many.stdout.contains("\"unknown\""), "{}", many.transcript());
    let error = host.w("trace cahce web --json").exits(1).error();
    assert_eq!(text(&error, "kind"), "not_found");
    assert_eq!(text(&error, "hint"), "did you mean `cache`?");
    // Anybody may ask, and is told what was not read.
    let out = host
        .command("setpriv")
        .args([
            "--reuid",
            "65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ])
        .args([WHARF, "trace", "host", "192.0.2.50"])
        .run();
    let said = out.transcript();
    assert!(said.contains("without privileges"), "{said}");
    assert!(said.contains("note: "), "{said}");
}

/// What could not be read is not taken to be absent.
#[test]
fn who_may_read_nothing_is_told_nothing_else() {
    require!();
    let host = stage();
    let nobody = |args: &[&str]| {
        let command = host.command("setpriv").args([
            "--reuid",
            "65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            WHARF,
        ]);
        command.args(args).run()
    };
    for (from, to) in [
        ("web", "cache:80"),
        ("host", "web:80"),
        ("web", "192.0.2.50"),
        ("outside", "10.0.2.2:8080"),
    ] {
        let out = nobody(&["trace", "--json", from, to]).exits(1);
        let said: Value = serde_json::from_str(&out.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
        assert_eq!(said["verdict"], "unknown", "{from} {to}: {said:#}");
    }
    let doctor = nobody(&["doctor"]).exits(1);
    assert!(
        !doctor.stdout.contains("nothing is wrong"),
        "{}",
        doctor.transcript()
    );
    let exposure = nobody(&["exposure"]).exits(1);
    assert!(
        !exposure.stdout.contains("no port"),
        "{}",
        exposure.transcript()
    );
}
