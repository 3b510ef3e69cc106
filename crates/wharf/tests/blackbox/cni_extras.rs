//! Limits of speed and settings of the interface, as keys of `"type": "wharf"`.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use wharf_testkit::{Answer, Echo, Host, Netns, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

/// How long it takes to send this many bytes from one namespace to another.
#[track_caller]
fn seconds(from: &Netns, to: &Netns, at: std::net::IpAddr, bytes: usize) -> f64 {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(at, 0)).expect("listen"));
    let target = listener.local_addr().expect("an address");
    let mut out =
        from.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(3)).expect("connect"));
    let (mut inside, _) = listener.accept().expect("accept");
    let start = Instant::now();
    let writer = std::thread::spawn(move || out.write_all(&vec![7; bytes]).expect("write"));
    let mut got = vec![0; bytes];
    inside
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("time-out");
    inside.read_exact(&mut got).expect("read");
    writer.join().expect("no panic");
    start.elapsed().as_secs_f64()
}

fn qdiscs(host: &Host, dev: &str) -> String {
    host.netns()
        .command("tc")
        .args(["qdisc", "show", "dev", dev])
        .run()
        .ok()
        .stdout
}

#[test]
fn speed_is_limited_both_ways() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.0.0", &json!({}));
    let limits = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000}});
    runtime.netns("c1");
    let result = runtime.add(&list, "c1", "eth0", &limits).expect("ADD");
    let detour = text(&result, "interfaces/3/name");
    assert!(detour.starts_with("bwp"), "{result}");
    let shown = host.netns().ip_json(&format!("link show dev {detour}"));
    assert_eq!(text(&shown, "0/address"), text(&result, "interfaces/3/mac"));
    let inward = qdiscs(&host, &text(&result, "interfaces/1/name"));
    assert!(
        inward.contains("tbf") && inward.contains("rate 8Mbit") && inward.contains("ingress"),
        "{inward}"
    );
    let outward = qdiscs(&host, &detour);
    assert!(
        outward.contains("rate 16Mbit") && outward.contains("burst 200000b"),
        "{outward}"
    );
    runtime.check(&list, "c1", "eth0", &limits).expect("CHECK");
    let c1 = host.container("c1");
    // A megabyte at a megabyte a second, and at two.
    let (there, back) = (
        seconds(host.netns(), &c1, ip("10.44.0.2"), 1_000_000),
        seconds(&c1, host.netns(), ip("10.44.0.1"), 1_000_000),
    );
    assert!(
        (0.6..3.0).contains(&there),
        "toward the container: {there} s"
    );
    assert!((0.25..1.5).contains(&back), "from the container: {back} s");
    host.sh(&format!("ip link del {detour}"));
    let error = runtime
        .check(&list, "c1", "eth0", &limits)
        .expect_err("the way round is gone");
    assert!(text(&error, "details").contains(&detour), "{error}");
    runtime.del(&list, "c1", "eth0", &limits).expect("DEL");
    // With the store lost, the way round is found by its name.
    runtime.add(&list, "c1", "eth0", &limits).expect("ADD");
    host.sh("rm -rf /run/wharf");
    runtime.del(&list, "c1", "eth0", &limits).expect("DEL");
    assert!(!host.netns().interfaces().contains(&detour));
    let one_way = json!({"bandwidth": {"ingressRate": 8_000_000}});
    assert_eq!(code(runtime.add(&list, "c1", "eth0", &one_way)), 7);
    host.sh("ip netns del c1");
    host.w("network prune").ok();
    before.assert_same(&host, "limits");
}

#[test]
fn settings_of_the_interface() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let settings = json!({"promisc": true, "allmulti": true, "txQLen": 500, "mtu": 1400, "promiscMode": true, "hairpinMode": false,
        "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1"}});
    let first = list("1.0.0", &settings);
    runtime.netns("c1");
    let c1 = host.container("c1");
    let was = c1.sysctl("net.core.somaxconn");
    runtime.add(&first, "c1", "eth0", &no()).expect("ADD");
    let link = c1.ip("-d link show dev eth0");
    for word in ["PROMISC", "ALLMULTI", "qlen 500", "mtu 1400"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    assert!(host.netns().ip("link show dev cni7").contains("PROMISC"));
    assert_eq!(c1.sysctl("net.core.somaxconn").as_deref(), Some("500"));
    assert_eq!(
        c1.sysctl("net.ipv4.conf.eth0.arp_filter").as_deref(),
        Some("1")
    );
    runtime.check(&first, "c1", "eth0", &no()).expect("CHECK");
    c1.set_sysctl("net.core.somaxconn", "501");
    assert_eq!(code(runtime.check(&first, "c1", "eth0", &no())), 102);
    runtime.del(&first, "c1", "eth0", &no()).expect("DEL");
    for bad in [
        json!({"kernel.panic": "1"}),
        json!({"net.core.there_is_none": "1"}),
        json!({"net.core.somaxconn": "many"}),
    ] {
        let list = list(
            "1.0.0",
            &json!({"mtu": 1400, "promiscMode": true, "hairpinMode": false, "sysctl": bad}),
        );
        let number = code(runtime.add(&list, "c1", "eth0", &no()));
        assert!(matches!(number, 7 | 100), "{bad}: {number}");
        assert_eq!(c1.interfaces(), ["lo"], "{bad}");
    }
    // A step behind fails: what was set is as before.
    runtime.netns("c2");
    let c2 = host.container("c2");
    let list = list(
        "1.0.0",
        &json!({"mtu": 1400, "promiscMode": true, "hairpinMode": false, "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.there_is_none": "1"}}),
    );
    assert_eq!(code(runtime.add(&list, "c2", "eth0", &no())), 100);
    assert_eq!(c2.sysctl("net.core.somaxconn"), was);
    host.sh("ip netns del c1; ip netns del c2");
    host.w("network prune").ok();
    before.assert_same(&host, "settings");
}

#[test]
fn behind_the_reference_bridge() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let data = host.dir().path().join("host-local").display().to_string();
    let list = json!({"cniVersion": "1.0.0", "name": "chain", "plugins": [
        {"type": "bridge", "bridge": "cni9", "isGateway": true, "ipam": {"type": "host-local", "dataDir": data, "subnet": "10.49.0.0/24"}},
        {"type": "wharf", "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000,
         "promisc": true, "mtu": 1300, "mac": "c2:11:22:33:44:55", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}
    ]});
    runtime.netns("c1");
    let result = runtime.add(&list, "c1", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "interfaces/2/mac"), "c2:11:22:33:44:55");
    let detour = text(&result, "interfaces/3/name");
    let c1 = host.container("c1");
    let link = c1.ip("link show dev eth0");
    for word in ["PROMISC", "mtu 1300", "c2:11:22:33:44:55"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    assert!(qdiscs(&host, &text(&result, "interfaces/1/name")).contains("tbf"));
    runtime.check(&list, "c1", "eth0", &no()).expect("CHECK");
    let told = host.w("doctor --json").json();
    assert_eq!(told["findings"], json!([]), "all of it was asked for");
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    // Only wharf's part goes; the interface is as it was.
    let mut conf = list["plugins"][1].clone();
    conf["name"] = json!("chain");
    conf["cniVersion"] = json!("1.0.0");
    runtime
        .call("DEL", "c1", "/run/netns/c1", "eth0", &conf)
        .expect("DEL");
    let link = c1.ip("link show dev eth0");
    assert!(
        !link.contains("PROMISC") && link.contains("mtu 1500") && !link.contains("c2:11"),
        "{link}"
    );
    assert!(!host.netns().interfaces().contains(&detour));
    runtime.del(&list, "c1", "eth0", &no()).expect("DEL");
    assert!(!host.sh("nft list tables").contains("wharf"));
    // The namespace may be gone before.
    runtime.add(&list, "c1", "eth0", &no()).expect("ADD");
    host.sh("ip netns del c1");
    runtime.del(&list, "c1", "eth0", &no()).expect("DEL");
    assert!(
        !host
            .netns()
            .interfaces()
            .iter()
            .any(|i| i.starts_with("bwp"))
    );
}

#[test]
fn masq_all_has_strangers_answered_by_a_container_without_routes() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd44::/64"}]]});
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    for (masq_all, v4, v6) in [
        (true, Some(ip("10.44.0.1")), Some(ip("fd44::1"))),
        (false, None, None),
    ] {
        let list = list("1.0.0", &json!({"masqAll": masq_all, "ipam": ipam}));
        let id = if masq_all { "c1" } else { "c2" };
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &ports).expect("ADD");
        let _web = Echo::tcp(&host.container(id), id, 80);
        let from_outside = |to| host.outside().tcp_brief(to, 8080).source();
        assert_eq!(from_outside(addr::HOST4), v4, "masqAll {masq_all}");
        assert_eq!(from_outside(addr::HOST6), v6, "masqAll {masq_all}");
        runtime.del(&list, id, "eth0", &ports).expect("DEL");
        host.w("network prune").ok();
    }
}

#[test]
fn the_interface_is_left_down_where_that_is_asked_for() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let wish = json!({"disableContainerInterface": true});
    runtime.netns("c1");
    let refused = runtime.add(&list("1.0.0", &wish), "c1", "eth0", &no());
    assert_eq!(code(refused), 7, "with addresses");
    let wish =
        json!({"disableContainerInterface": true, "isGateway": false, "ipMasq": false, "ipam": {}});
    let alone = list("1.0.0", &wish);
    let result = runtime.add(&alone, "c1", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "interfaces/2/name"), "eth0");
    assert!(result.get("ips").is_none(), "{result}");
    let c1 = host.container("c1");
    let state = |c: &Netns| c.ip("link show dev eth0");
    assert!(state(&c1).contains("state DOWN"), "{}", state(&c1));
    let port = host.netns().ip(&format!(
        "link show dev {}",
        text(&result, "interfaces/1/name")
    ));
    assert!(
        port.contains("master cni7") && port.contains(",UP"),
        "{port}"
    );
    runtime.check(&alone, "c1", "eth0", &no()).expect("CHECK");
    assert_eq!(host.w("doctor").ok().stdout.trim(), "nothing is wrong");
    // Whoever set it up finds a cable that works.
    runtime.netns("c2");
    runtime.add(&alone, "c2", "eth0", &no()).expect("ADD");
    let c2 = host.container("c2");
    for (c, address) in [(&c1, "10.7.0.1/24"), (&c2, "10.7.0.2/24")] {
        c.ip("link set eth0 up");
        c.ip(&format!("addr add {address} dev eth0"));
    }
    assert_eq!(c1.ping(ip("10.7.0.2")), Answer::Replied);
    host.w("repair").ok();
    assert_eq!(c1.ping(ip("10.7.0.2")), Answer::Replied);
    for container in ["c1", "c2"] {
        runtime.del(&alone, container, "eth0", &no()).expect("DEL");
        host.sh(&format!("ip netns del {container}"));
    }
    host.w("network prune").ok();
    before.assert_same(&host, "interfaces left down");
}
