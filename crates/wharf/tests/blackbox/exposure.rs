//! `wharf exposure`: who reaches a published port is who really does, and claims to the contrary are told.

use crate::common::*;
use serde_json::Value;
use wharf_testkit::{Echo, Host, addr, require};

fn ports(host: &Host) -> Vec<Value> {
    let out = host.w("exposure --json");
    let said: Value = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
    let all = said["ports"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("{said:#}"));
    let differs = |p: &Value| p["differs"].as_array().is_some_and(|d| !d.is_empty());
    out.exits(if all.iter().any(differs) { 1 } else { 0 });
    all
}

#[track_caller]
fn port<'a>(all: &'a [Value], host_port: &str) -> &'a Value {
    let found = all.iter().find(|p| p["host_port"] == host_port);
    found.unwrap_or_else(|| panic!("no port {host_port} in {all:#?}"))
}

/// The verdict of one side at one address.
#[track_caller]
fn reach<'a>(port: &'a Value, from: &str, address: &str) -> &'a str {
    let all = port["reach"].as_array().expect("a list");
    let found = all
        .iter()
        .find(|r| r["from"] == from && r["address"] == address);
    let found = found.unwrap_or_else(|| panic!("no {from} at {address} in {port:#}"));
    found["verdict"].as_str().expect("a verdict")
}

fn differences(port: &Value) -> Vec<String> {
    let all = port["differs"].as_array().expect("a list");
    all.iter().map(|d| text(d, "summary")).collect()
}

fn stage() -> Host {
    let host = options().bridge_nf_call(false).start();
    network(&host, "front", 1, "--bridge br-front");
    network(&host, "back", 2, "--bridge br-back");
    container(
        &host,
        "web",
        "front",
        1,
        11,
        "-p 8080:80 -p 127.0.0.1:9090:90",
    );
    container(&host, "cache", "front", 1, 12, "");
    container(&host, "db", "back", 2, 11, "");
    host
}

#[test]
fn who_is_said_to_reach_a_port_does() {
    require!();
    let host = stage();
    let [web, cache, db] = ["web", "cache", "db"].map(|name| host.container(name));
    let _open = Echo::tcp(&web, "web", 80);
    let _bound = Echo::tcp(&web, "web", 90);
    let all = ports(&host);
    let open = port(&all, "8080");
    let local = ip("127.0.0.1");
    for (from, address, arrives) in [
        (
            "loopback",
            "127.0.0.1:8080",
            host.netns().tcp(local, 8080).reached(),
        ),
        (
            "host",
            "10.0.2.2:8080",
            host.netns().tcp(addr::HOST4, 8080).reached(),
        ),
        (
            "outside",
            "10.0.2.2:8080",
            host.outside().tcp(addr::HOST4, 8080).reached(),
        ),
        (
            "outside",
            "10.0.2.3:8080",
            host.outside().tcp(addr::HOST4_B, 8080).reached(),
        ),
        (
            "outside",
            "[2001:db8:2::2]:8080",
            host.outside().tcp(addr::HOST6, 8080).reached(),
        ),
        (
            "sibling",
            "10.0.2.2:8080",
            cache.tcp(addr::HOST4, 8080).reached(),
        ),
        (
            "network",
            "10.0.2.2:8080",
            db.tcp(addr::HOST4, 8080).reached(),
        ),
    ] {
        assert!(arrives, "{from} {address}");
        assert_eq!(reach(open, from, address), "delivered", "{open:#}");
    }
    assert_eq!(differences(open), Vec::<String>::new());
    let bound = port(&all, "9090");
    assert!(host.netns().tcp(local, 9090).reached());
    assert_eq!(reach(bound, "loopback", "127.0.0.1:9090"), "delivered");
    assert!(!host.outside().tcp_brief(addr::HOST4, 9090).reached());
    assert_ne!(reach(bound, "outside", "10.0.2.2:9090"), "delivered");
    assert_ne!(reach(bound, "outside", "127.0.0.1:9090"), "delivered");
    assert_eq!(differences(bound), Vec::<String>::new(), "{bound:#}");
}

#[test]
fn a_firewall_that_is_passed_by_is_told() {
    require!();
    let host = stage();
    let web = host.container("web");
    let _servers = [80, 90].map(|p| Echo::tcp(&web, "web", p));
    host.sh(
        "iptables -N ufw-user-input; iptables -A INPUT -j ufw-user-input
             iptables -A ufw-user-input -p tcp --dport 8080 -j DROP",
    );
    assert!(host.outside().tcp(addr::HOST4, 8080).reached());
    let all = ports(&host);
    let open = port(&all, "8080");
    assert_eq!(text(open, "claims/0/owner"), "ufw", "{open:#}");
    assert_eq!(open["claims"][0]["open"], false);
    let told = differences(open);
    assert!(told.iter().any(|d| d.contains("goes past it")), "{told:?}");
    let shown = host.w("exposure").exits(1).stdout;
    assert!(
        shown.contains("firewall: ufw closes 10.0.2.2:8080"),
        "{shown}"
    );
    let prose = shown.lines().filter(|line| !line.starts_with("    fix: "));
    assert!(
        prose.into_iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
}

#[test]
fn a_port_that_nobody_reaches_is_told_with_the_cause() {
    require!();
    let host = stage();
    let web = host.container("web");
    let all = ports(&host);
    let told = differences(port(&all, "8080"));
    assert!(
        told.iter().any(|d| d.contains("nobody reaches it")),
        "{told:?}"
    );
    let _servers = [80, 90].map(|p| Echo::tcp(&web, "web", p));
    assert!(ports(&host).iter().all(|p| differences(p).is_empty()));
    host.sh("nft 'add table inet r; add chain inet r f { type filter hook forward priority 0; }; add rule inet r f iifname up0 drop'");
    assert!(!host.outside().tcp_brief(addr::HOST4, 8080).reached());
    let all = ports(&host);
    let open = port(&all, "8080");
    assert_eq!(reach(open, "outside", "10.0.2.2:8080"), "dropped");
    assert_eq!(reach(open, "loopback", "127.0.0.1:8080"), "delivered");
    let told = differences(open);
    assert!(
        told.iter().any(|d| d.contains("not reached from outside")),
        "{told:?}"
    );
    assert_eq!(text(open, "differs/0/cause/code"), "firewall-rule");
}

#[test]
fn a_port_bound_to_loopback_that_leaks_is_told() {
    require!();
    let host = stage();
    let web = host.container("web");
    let _servers = [80, 90].map(|p| Echo::tcp(&web, "web", p));
    host.sh("nft 'add table ip leak; add chain ip leak pre { type nat hook prerouting priority -110; }; add rule ip leak pre tcp dport 9090 dnat to 10.88.1.11:90'");
    assert!(host.outside().tcp(addr::HOST4, 9090).reached());
    let all = ports(&host);
    let bound = port(&all, "9090");
    assert_eq!(reach(bound, "outside", "10.0.2.2:9090"), "delivered");
    let told = differences(bound);
    assert!(
        told.iter().any(|d| d.contains("on 127.0.0.1 only")),
        "{told:?}"
    );
}

#[test]
fn ports_that_others_publish_are_seen() {
    require!();
    let host = stage();
    host.sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
             ip netns add theirs; ip link add their0 type veth peer name eth0 netns theirs
             ip link set their0 master docker0 up; ip -n theirs addr add 172.17.0.2/16 dev eth0
             ip -n theirs link set eth0 up; ip -n theirs route add default via 172.17.0.1
             iptables -t nat -N DOCKER; iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
             iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8888 -j DNAT --to-destination 172.17.0.2:80");
    let theirs = host.container("theirs");
    let _server = Echo::tcp(&theirs, "theirs", 80);
    assert!(host.outside().tcp(addr::HOST4, 8888).reached());
    let all = ports(&host);
    let found = port(&all, "8888");
    assert_eq!(text(found, "owner"), "docker");
    assert_eq!(text(found, "container_port"), "80");
    assert!(text(found, "container").ends_with("theirs"));
    assert_eq!(
        reach(found, "outside", "10.0.2.2:8888"),
        "delivered",
        "{found:#}"
    );
    assert_eq!(differences(found), Vec::<String>::new(), "{found:#}");
    host.sh("iptables -t nat -F DOCKER; ip netns del theirs; ip link del docker0");
}

/// The first address of an IPv6 prefix is the host's own there: nobody else asks from it.
#[test]
fn a_neighbour_beside_the_default_route_reaches_six() {
    require!();
    let host = options().bridge_nf_call(false).neighbour().start();
    host.w("network create front --subnet 10.88.1.0/24 --subnet fd00:88:1::/64")
        .ok();
    host.w("create web --network front -p 8080:80").ok();
    let _open = Echo::tcp(&host.container("web"), "web", 80);
    let all = ports(&host);
    let six = "[2001:db8:3::2]:8080";
    assert!(host.neighbour().tcp(ip("2001:db8:3::2"), 8080).reached());
    assert_eq!(reach(port(&all, "8080"), "outside", six), "delivered");
    assert!(differences(port(&all, "8080")).is_empty());
}

#[test]
fn what_a_rule_publishes_is_not_closed_by_that_rule() {
    require!();
    let host = stage();
    let _other = Echo::tcp(&host.container("cache"), "cache", 80);
    let _own = Echo::tcp(&host.container("web"), "web", 80);
    host.sh("iptables-legacy -t nat -I OUTPUT -p tcp --dport 8080 -j DNAT --to-destination 10.88.1.12:80");
    assert_eq!(host.netns().tcp(ip("10.0.2.2"), 8080).by(), Some("cache"));
    let all = ports(&host);
    let own = |p: &&Value| p["owner"] == "user" && p["host_port"] == "8080";
    let foreign = all.iter().find(own).unwrap_or_else(|| panic!("{all:#?}"));
    for row in foreign["reach"].as_array().expect("a list") {
        let here = row["from"] == "host" || row["from"] == "loopback";
        assert_eq!(row["open"], here, "{row:#}");
    }
    let web = all
        .iter()
        .find(|p| p["container"] == "web" && p["host_port"] == "8080");
    let web = web.unwrap_or_else(|| panic!("{all:#?}"));
    assert_eq!(reach(web, "host", "10.0.2.2:8080"), "dropped", "{web:#}");
}

/// Both publish a port, and wharf's mapping comes first.
#[test]
fn what_wharf_takes_from_others_is_told() {
    require!();
    let host = stage();
    let _own = Echo::tcp(&host.container("web"), "web", 80);
    let _other = Echo::tcp(&host.container("cache"), "cache", 80);
    host.sh("nft 'table ip theirs { chain pre { type nat hook prerouting priority dstnat + 1; tcp dport 8080 dnat to 10.88.1.12:80; }; }'");
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    let all = ports(&host);
    let entry = |container: &str| {
        let of = |p: &&Value| p["container"] == container && p["host_port"] == "8080";
        let found = all.iter().find(of);
        found.unwrap_or_else(|| panic!("{all:#?}"))
    };
    assert!(differences(entry("web")).is_empty(), "{:#}", entry("web"));
    let theirs = entry("cache");
    assert_eq!(theirs["owner"], "user");
    let told = differences(theirs);
    let says = "wharf's mapping to web takes 10.0.2.2:8080 before that rule sees it";
    assert!(told.iter().any(|d| d.contains(says)), "{theirs:#}");
    host.w("port rm web 8080:80/tcp").ok();
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("cache"));
}

#[test]
fn nothing_is_published() {
    require!();
    let host = host();
    assert_eq!(host.w("exposure").exits(0).stdout, "no port is published\n");
    assert!(ports(&host).is_empty());
}

/// Where a network routes packets untranslated, its containers' ports answer at their own addresses, and are asked there.
#[test]
fn a_port_of_a_routed_network_is_asked_at_the_containers_address() {
    require!();
    let host = options().bridge_nf_call(false).start();
    let routed = "-o com.docker.network.bridge.gateway_mode_ipv4=routed";
    network(&host, "r", 3, routed);
    container(&host, "c", "r", 3, 11, "-p 8080:80");
    let c = host.container("c");
    let _server = Echo::tcp(&c, "c", 80);
    let own = at(false, 3, 11);
    assert_eq!(host.outside().tcp(own, 80).by(), Some("c"));
    assert_eq!(host.outside().tcp(addr::HOST6, 8080).by(), Some("c"));
    let all = ports(&host);
    let found = port(&all, "8080");
    assert_eq!(texts(found, "direct"), ["10.88.3.11"]);
    assert_eq!(reach(found, "outside", "10.88.3.11:80"), "delivered");
    assert_eq!(reach(found, "host", "10.88.3.11:80"), "delivered");
    assert_eq!(
        reach(found, "outside", &format!("[{}]:8080", addr::HOST6)),
        "delivered"
    );
    let asked: Vec<_> = texts_of(found, "address");
    assert!(
        !asked.iter().any(|a| a.starts_with("10.0.2.2")),
        "{asked:?}"
    );
    assert_eq!(differences(found), Vec::<String>::new());
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = one_line(host.w("exposure").ok().stdout);
    assert!(
        shown.contains("and port 80 at its own address 10.88.3.11"),
        "{shown}"
    );
    // At the host's address nobody is, and that is why.
    host.w("trace outside 10.0.2.2:8080 --offline").exits(1);
    let told = one_line(host.w("trace outside 10.0.2.2:8080 --offline").stdout);
    assert!(
        told.contains("c publishes that port at its own address, 10.88.3.11:80"),
        "{told}"
    );
}

fn texts_of(port: &Value, key: &str) -> Vec<String> {
    let all = port["reach"].as_array().expect("a list");
    all.iter().map(|r| text(r, key)).collect()
}
