//! `wharf` among other CNI plugins: before them, behind them, and beside them.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Echo, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

fn ports(host: u16) -> Value {
    json!({"portMappings": [{"hostPort": host, "containerPort": 80, "protocol": "tcp"}]})
}

/// The reference plugins, with `wharf` in the place of portmap.
fn behind(host: &wharf_testkit::Host, version: &str, first: &str) -> Value {
    let data = host.dir().path().join("host-local");
    json!({"cniVersion": version, "name": "chain", "plugins": [
        {"type": first, "bridge": "cni9", "isGateway": true, "ipMasq": true,
         "ipam": {"type": "host-local", "dataDir": data.display().to_string(), "ranges": [[{"subnet": "10.49.0.0/24"}], [{"subnet": "fd49::/64"}]],
                  "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
        {"type": "wharf", "capabilities": {"portMappings": true}}
    ]})
}

#[test]
fn publishes_for_the_reference_bridge() {
    require!();
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        let host = host();
        let runtime = Runtime::new(&host);
        let list = behind(&host, version, "bridge");
        runtime.netns("c1");
        // The bridge stays when its plugin is done.
        runtime
            .add(&list, "c1", "eth0", &no())
            .expect("ADD without ports");
        runtime.del(&list, "c1", "eth0", &no()).expect("DEL");
        assert_eq!(
            names(&host.w("network ls --json").json()),
            Vec::<String>::new()
        );
        let before = Snapshot::of(&host).without(&["cni9"]);
        if version == "0.2.0" {
            // The old results tell no interface that could be published for.
            assert_eq!(code(runtime.add(&list, "c1", "eth0", &ports(8080))), 2);
            runtime.del(&list, "c1", "eth0", &ports(8080)).expect("DEL");
            continue;
        }
        let result = runtime.add(&list, "c1", "eth0", &ports(8080)).expect("ADD");
        assert_eq!(text(&result, "interfaces/0/name"), "cni9");
        let c1 = host.container("c1");
        let _web = Echo::tcp(&c1, "c1", 80);
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
        assert_eq!(host.outside().tcp(addr::HOST6, 8080).by(), Some("c1"));
        assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("c1"));
        assert_eq!(
            c1.tcp(addr::HOST4, 8080).by(),
            Some("c1"),
            "itself, by its own port"
        );
        assert_eq!(text(&host.inspect("c1"), "owner"), "cni");
        runtime
            .check(&list, "c1", "eth0", &ports(8080))
            .expect("CHECK");
        drop(_web);
        runtime.del(&list, "c1", "eth0", &ports(8080)).expect("DEL");
        runtime
            .del(&list, "c1", "eth0", &ports(8080))
            .expect("DEL again");
        let difference = before.difference_on(&host).to_string();
        let left: Vec<&str> = difference
            .lines()
            .filter(|l| l.contains("wharf") || l.contains("8080"))
            .collect();
        assert!(left.is_empty(), "{difference}");
        assert!(
            !host.sh("nft list tables").contains("wharf"),
            "no table is left"
        );
    }
}

#[test]
fn publishes_for_ptp() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = behind(&host, "1.0.0", "ptp");
    for (id, port) in [("c1", 8081), ("c2", 8082)] {
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &ports(port)).expect("ADD");
    }
    for (id, port) in [("c1", 8081), ("c2", 8082)] {
        let _web = Echo::tcp(&host.container(id), id, 80);
        assert_eq!(host.outside().tcp(addr::HOST4, port).by(), Some(id));
    }
    for (id, port) in [("c1", 8081), ("c2", 8082)] {
        runtime.del(&list, id, "eth0", &ports(port)).expect("DEL");
    }
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
    // What was lost of a chain is found by GC.
    let mut conf = list["plugins"][1].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = json!("1.1.0");
    runtime.add(&list, "c1", "eth0", &ports(8081)).expect("ADD");
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    runtime.call("GC", "", "", "", &conf).expect("GC");
    assert_eq!(names(&host.w("ps --json").json()), ["c1"]);
    conf["cni.dev/valid-attachments"] = json!([]);
    runtime.call("GC", "", "", "", &conf).expect("GC");
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
    assert!(!host.sh("nft list tables").contains("wharf"));
}

#[test]
fn the_reference_plugins_work_behind_it() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let mut chain = list("1.0.0", &json!({"capabilities": {}}));
    let data = host.dir().path().join("tuning").display().to_string();
    let further = json!([
        {"type": "tuning", "dataDir": data, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "promisc": true},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall", "backend": "iptables"},
        {"type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 100_000_000, "egressRate": 100_000_000, "egressBurst": 100_000_000}
    ]);
    let plugins = chain["plugins"].as_array_mut().expect("a list");
    plugins.extend(further.as_array().cloned().expect("a list"));
    runtime.netns("c1");
    let result = runtime
        .add(&chain, "c1", "eth0", &ports(8080))
        .expect("ADD");
    assert_eq!(
        result["interfaces"].as_array().map(Vec::len),
        Some(4),
        "{result}"
    );
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("c1"),
        "by portmap's rules"
    );
    runtime
        .call(
            "CHECK",
            "c1",
            "/run/netns/c1",
            "eth0",
            &with_prev(&chain, &result),
        )
        .expect("CHECK");
    drop(_web);
    runtime
        .del(&chain, "c1", "eth0", &ports(8080))
        .expect("DEL");
    host.sh("ip netns del c1");
    host.w("network rm mynet").ok();
    let difference = before.difference_on(&host).to_string();
    assert!(!difference.contains("wharf"), "{difference}");
    assert!(
        !host
            .netns()
            .interfaces()
            .iter()
            .any(|i| i.starts_with("bwp") || i == "cni7")
    );
}

/// What plugins behind wharf change is no damage: nobody takes it back, and nobody calls it wrong.
#[test]
fn what_plugins_behind_it_change_stays() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let data = host.dir().path().join("tuning").display().to_string();
    let tuning = json!({"type": "tuning", "dataDir": data, "promisc": true, "allmulti": true, "mtu": 1400,
        "sysctl": {"net.ipv6.conf.eth0.accept_ra": "2", "net.ipv6.conf.eth0.autoconf": "1"}});
    let chain = |further: &[Value]| {
        let mut chain = list("1.0.0", &json!({"capabilities": {}}));
        let plugins = chain["plugins"].as_array_mut().expect("a list");
        plugins.extend(further.iter().cloned());
        chain
    };
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    for (id, port, list) in [
        ("c1", 8080, chain(&[tuning, portmap])),
        ("c2", 8081, chain(&[json!({"type": "sbr"})])),
    ] {
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &ports(port)).expect("ADD");
        let told = host.w("doctor --json").json();
        let told = told["findings"].as_array().cloned().unwrap_or_default();
        let faults: Vec<_> = told.iter().filter(|f| f["severity"] != "info").collect();
        assert!(faults.is_empty(), "{faults:#?}");
        assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
        host.w("repair").ok();
        let conf = with_prev(&list, &runtime.cached(&list, id, "eth0"));
        runtime
            .call("CHECK", id, &netns_of(id), "eth0", &conf)
            .expect("CHECK");
    }
    let [c1, c2] = ["c1", "c2"].map(|id| host.container(id));
    assert_eq!(
        c1.sysctl("net.ipv6.conf.eth0.accept_ra").as_deref(),
        Some("2")
    );
    assert!(c1.ip("link show dev eth0").contains("PROMISC"));
    assert_eq!(c2.ip("route show default").trim(), "", "sbr moved it");
    let _web = Echo::tcp(&c1, "c1", 80);
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("c1"));
    // One that is really gone is made again.
    c1.ip("route del default");
    host.w("repair").ok();
    assert!(c1.ip("route show default").contains("10.44.0.1"));
}

/// Frames from an address that was set behind wharf do not pass its guard: CHECK says so, and what to do.
#[test]
fn a_hardware_address_is_for_wharf_to_give() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let data = host.dir().path().join("tuning").display().to_string();
    let mut chain = list("1.0.0", &json!({"capabilities": {}}));
    let tuning = json!({"type": "tuning", "dataDir": data, "mac": "0e:11:22:33:44:55"});
    let plugins = chain["plugins"].as_array_mut().expect("a list");
    plugins.push(tuning);
    runtime.netns("c1");
    runtime.add(&chain, "c1", "eth0", &no()).expect("ADD");
    assert!(!host.netns().ping_brief(ip("10.44.0.2")).reached());
    let error = runtime
        .check(&chain, "c1", "eth0", &no())
        .expect_err("CHECK");
    assert!(
        error.to_string().contains("give `mac` to the object"),
        "{error}"
    );
    runtime.del(&chain, "c1", "eth0", &no()).expect("DEL");
    chain["plugins"][0]["mac"] = json!("0e:11:22:33:44:55");
    runtime.add(&chain, "c1", "eth0", &no()).expect("ADD");
    runtime.check(&chain, "c1", "eth0", &no()).expect("CHECK");
    assert!(host.netns().ping(ip("10.44.0.3")).reached());
}

/// Its containers have cables that lead to no bridge, and wharf turned forwarding on before they came.
#[test]
fn the_reference_ptp_works_beside_it() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    network(&host, "mine", 1, "");
    container(&host, "own", "mine", 1, 11, "");
    let alone = |list: &Value| {
        let mut list = list.clone();
        list["plugins"].as_array_mut().expect("a list").truncate(1);
        list
    };
    let list = behind(&host, "1.0.0", "ptp");
    for id in ["p1", "p2"] {
        runtime.netns(id);
    }
    runtime.add(&list, "p1", "eth0", &ports(8080)).expect("ADD");
    runtime
        .add(&alone(&list), "p2", "eth0", &no())
        .expect("ADD");
    let [p1, p2] = ["p1", "p2"].map(|id| host.container(id));
    let _web = Echo::tcp(&p1, "p1", 80);
    let _out = Echo::tcp(host.outside(), "out", 90);
    for (to, out) in [(addr::HOST4, addr::OUTSIDE4), (addr::HOST6, addr::OUTSIDE6)] {
        assert_eq!(host.outside().tcp(to, 8080).by(), Some("p1"), "{to}");
        assert!(
            p1.tcp(out, 90).reached() && p2.tcp(out, 90).reached(),
            "{out}"
        );
    }
    let told = host.w("doctor --json").json();
    assert_eq!(told["findings"], json!([]), "{told:#}");
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    // It stays no router between what it did not forward between.
    assert!(
        host.sh("nft list chain inet wharf transit")
            .contains("drop")
    );
}

fn with_prev(list: &Value, prev: &Value) -> Value {
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["prevResult"] = prev.clone();
    conf
}

#[test]
fn the_host_routes_only_when_asked() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let conf = |name: &str, bridge: &str, net: u8, more: Value| {
        let mut list = list("1.0.0", &more);
        list["name"] = json!(name);
        list["plugins"][0]["bridge"] = json!(bridge);
        list["plugins"][0]["ipam"] = json!({"type": "host-local", "subnet": format!("10.5{net}.0.0/24"), "routes": [{"dst": "0.0.0.0/0"}]});
        list["plugins"][0]
            .as_object_mut()
            .expect("an object")
            .remove("ingressPolicy");
        list
    };
    let routed = conf("routed", "cni4", 4, json!({"ipMasq": false}));
    let closed = conf("closed", "cni5", 5, json!({}));
    let inside = conf("inside", "cni6", 6, json!({"isGateway": false}));
    let _out = Echo::tcp(host.outside(), "out", 90);
    let mut webs = Vec::new();
    for (list, id) in [(&routed, "r"), (&closed, "c"), (&inside, "i")] {
        runtime.netns(id);
        runtime.add(list, id, "eth0", &no()).expect("ADD");
        webs.push(Echo::tcp(&host.container(id), id, 80));
    }
    let at = |net: u8| ip(&format!("10.5{net}.0.2"));
    assert_eq!(
        host.container("r").tcp(addr::OUTSIDE4, 90).source(),
        Some(at(4)),
        "with its own address"
    );
    assert_eq!(
        host.outside().tcp(at(4), 80).by(),
        Some("r"),
        "and found by it"
    );
    assert_eq!(
        host.container("c").tcp(addr::OUTSIDE4, 90).source(),
        Some(addr::HOST4)
    );
    assert!(!host.outside().tcp_brief(at(5), 80).reached());
    assert!(!host.container("i").tcp_brief(addr::OUTSIDE4, 90).reached());
    assert!(!host.outside().tcp_brief(at(6), 80).reached());
    assert!(
        !host.container("c").tcp_brief(at(4), 80).reached(),
        "networks are apart"
    );
}

#[test]
fn takes_over_from_host_local() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let data = host.dir().path().join("host-local");
    let ipam = json!({"type": "host-local", "dataDir": data.display().to_string(), "subnet": "10.44.0.0/24"});
    let old = json!({"cniVersion": "1.0.0", "name": "mynet", "plugins": [{"type": "bridge", "bridge": "cni9", "ipam": ipam}]});
    runtime.netns("old");
    let result = runtime
        .add(&old, "old", "eth0", &no())
        .expect("ADD by the reference plugins");
    assert_eq!(text(&result, "ips/0/address"), "10.44.0.2/24");
    let new = list("1.0.0", &json!({"ipam": ipam}));
    runtime.netns("new");
    let result = runtime.add(&new, "new", "eth0", &no()).expect("ADD");
    assert_eq!(
        text(&result, "ips/0/address"),
        "10.44.0.3/24",
        "the other one is taken"
    );
    let ips = json!({"ips": ["10.44.0.2"]});
    runtime.netns("third");
    assert_eq!(code(runtime.add(&new, "third", "eth0", &ips)), 101);
    runtime
        .del(&new, "old", "eth0", &no())
        .expect("DEL of what the reference plugins made");
    runtime.add(&new, "third", "eth0", &ips).expect("ADD");
    // Called for addresses only, wharf says so, and does nothing.
    let asked = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp", "ipam": {"type": "wharf"}}]});
    runtime.netns("fourth");
    assert_eq!(
        runtime
            .add(&asked, "fourth", "eth0", &no())
            .expect_err("refused")["code"],
        2
    );
    runtime.del(&asked, "fourth", "eth0", &no()).expect("DEL");
    assert_eq!(host.container("fourth").interfaces(), ["lo"]);
}

#[test]
fn keeps_the_reference_bridge_apart() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let data = host.dir().path().join("host-local").display().to_string();
    let list = |name: &str, bridge: &str, net: u8, policy: &str| {
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true,
             "ipam": {"type": "host-local", "dataDir": data, "subnet": format!("10.5{net}.0.0/24"), "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "wharf", "ingressPolicy": policy, "capabilities": {"portMappings": true}}
        ]})
    };
    let (red, blue, open) = (
        list("red", "cni4", 4, "same-bridge"),
        list("blue", "cni5", 5, "same-bridge"),
        list("open", "cni6", 6, "open"),
    );
    let mut webs = Vec::new();
    for (list, id) in [(&red, "r1"), (&red, "r2"), (&blue, "b"), (&open, "o")] {
        runtime.netns(id);
        let capabilities = if id == "b" { ports(8080) } else { no() };
        runtime.add(list, id, "eth0", &capabilities).expect("ADD");
        runtime
            .check(list, id, "eth0", &capabilities)
            .expect("CHECK");
        webs.push(Echo::tcp(&host.container(id), id, 80));
    }
    let (r1, b) = (host.container("r1"), host.container("b"));
    assert_eq!(
        r1.tcp(ip("10.54.0.3"), 80).by(),
        Some("r2"),
        "the same bridge"
    );
    assert!(
        !r1.tcp_brief(ip("10.55.0.2"), 80).reached(),
        "another bridge"
    );
    assert!(!b.tcp_brief(ip("10.54.0.2"), 80).reached(), "and back");
    assert_eq!(
        r1.tcp(ip("10.56.0.2"), 80).by(),
        Some("o"),
        "one that is open"
    );
    assert_eq!(
        host.netns().tcp(ip("10.54.0.2"), 80).by(),
        Some("r1"),
        "the host"
    );
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("b"),
        "a published port"
    );
    assert_eq!(
        r1.tcp(addr::HOST4, 8080).by(),
        Some("b"),
        "also from another bridge"
    );
    for (list, id) in [(&red, "r1"), (&red, "r2"), (&blue, "b"), (&open, "o")] {
        runtime.del(list, id, "eth0", &no()).expect("DEL");
    }
    assert!(!host.sh("nft list tables").contains("wharf"));
}

#[test]
fn comings_and_goings_on_the_reference_bridge() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = behind(&host, "1.0.0", "bridge");
    for n in 0..8 {
        runtime.netns(&format!("c{n}"));
    }
    // The last to go takes wharf's rules along, while others come.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (runtime, list) = (&runtime, &list);
            scope.spawn(move || {
                let (id, ports) = (format!("c{n}"), ports(9000 + n));
                for round in 0..5 {
                    runtime
                        .add(list, &id, "eth0", &ports)
                        .unwrap_or_else(|e| panic!("ADD {id} {round}: {e}"));
                    runtime
                        .del(list, &id, "eth0", &ports)
                        .unwrap_or_else(|e| panic!("DEL {id} {round}: {e}"));
                }
            });
        }
    });
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
    assert!(!host.sh("nft list tables").contains("wharf"));
}
