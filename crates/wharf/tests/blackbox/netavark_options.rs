//! What a definition may say beyond subnets, by what it does: drivers, options, routes, plugins, reload.

use crate::common::*;
use crate::netavark::*;
use serde_json::{Value, json};
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, ForwardPolicy, Snapshot, addr, require};

/// A network with one option more.
fn with(mut network: Value, key: &str, value: Value) -> Value {
    network[key] = value;
    network
}

fn with_option(network: Value, key: &str, value: &str) -> Value {
    with(network, "options", json!({key: value}))
}

#[test]
fn rules_come_back_with_firewall_reload() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let before = Snapshot::of(&host);
    let a = publish(&input("a", 10, &[bridge("one", 1)]), "", 8080, 80);
    setup(&host, "a", &a);
    let inside = host.container("a");
    let _web = Echo::tcp(&inside, "a", 80);
    let up = Snapshot::of(&host);
    for flush in ["nft flush ruleset", "true"] {
        host.sh(flush);
        call(&host, &["firewall-reload"], &Value::Null).ok();
        up.assert_same(&host, flush);
    }
    // One table made again stands behind the other: the same rules in another order.
    host.sh("nft delete table inet wharf");
    call(&host, &["firewall-reload"], &Value::Null).ok();
    for v6 in [false, true] {
        assert_eq!(host.outside().tcp(addr::host(v6), 8080).by(), Some("a"));
        assert_eq!(inside.ping(addr::outside(v6)), Answer::Replied);
        assert!(!host.outside().tcp_brief(at(v6, 1, 10), 80).reached());
    }
    teardown(&host, "a", &a);
    before.assert_same(&host, "reload");
}

#[test]
fn a_foreign_policy_that_drops_is_named() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::Drop).start();
    namespaces(&host, &["a"]);
    let a = input("a", 10, &[bridge("one", 1)]);
    let out = call(&host, &["setup", "/run/netns/a"], &a).ok();
    assert!(
        out.stderr.contains("ip filter FORWARD"),
        "{}",
        out.transcript()
    );
    teardown(&host, "a", &a);
}

#[test]
fn isolation_is_as_the_option_says() {
    require!();
    let host = host();
    let kinds = ["", "true", "strict", "false", "false"];
    let before = Snapshot::of(&host);
    let mut inputs = Vec::new();
    for (n, kind) in (1u8..).zip(kinds) {
        let name = format!("n{n}");
        namespaces(&host, &[&name]);
        let network = match kind {
            "" => bridge(&name, n),
            kind => with_option(bridge(&name, n), "isolate", kind),
        };
        let input = publish(&input(&name, 10, &[network]), "", 8080 + u16::from(n), 80);
        let input = with(input, "container_id", json!(format!("{n:064x}")));
        setup(&host, &name, &input);
        inputs.push((name, input));
    }
    let netns: Vec<_> = inputs
        .iter()
        .map(|(name, _)| host.container(name))
        .collect();
    let _servers: Vec<_> = netns.iter().map(|n| Echo::tcp(n, n.name(), 80)).collect();
    for (from, source) in netns.iter().enumerate() {
        for (to, _) in netns.iter().enumerate().filter(|(to, _)| *to != from) {
            let open = kinds[from] == "false" && kinds[to] == "false";
            let address = at(false, u8::try_from(to + 1).unwrap(), 10);
            let reached = source.tcp_brief(address, 80).reached();
            assert_eq!(reached, open, "from {:?} to {:?}", kinds[from], kinds[to]);
        }
        let other = (from + 1) % netns.len();
        let port = 8081 + u16::try_from(other).unwrap();
        let by_host = source.tcp(addr::HOST4, port);
        assert_eq!(
            by_host.by(),
            Some(netns[other].name()),
            "by the published port"
        );
    }
    for (name, input) in &inputs {
        teardown(&host, name, input);
        host.sh(&format!("ip netns del {name}"));
    }
    before.assert_same(&host, "isolation");
}

#[test]
fn routes_metric_and_interface_names() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    let before = Snapshot::of(&host);
    let b_before = Snapshot::of_netns(&host.container("b"));
    let one = with(
        with_option(bridge("one", 1), "metric", "200"),
        "routes",
        json!([
            {"destination": "192.0.2.128/25", "gateway": "10.88.1.99"},
            {"destination": "2001:db8:9::/64", "gateway": "fd00:88:1::99", "metric": 7},
            {"destination": "198.51.100.0/24", "route_type": "blackhole"},
            {"destination": "198.51.101.0/24", "route_type": "unreachable", "metric": 9},
            {"destination": "2001:db8:a::/64", "route_type": "prohibit"},
        ]),
    );
    let two = with_option(bridge("two", 2), "no_default_route", "true");
    let mut a = input("a", 10, std::slice::from_ref(&one));
    a["networks"]["one"]["options"] = json!({"host_interface_name": "to-a"});
    setup(&host, "a", &a);
    let inside = host.container("a");
    assert!(host.netns().interfaces().contains(&"to-a".to_owned()));
    let routes = inside.ip("route show");
    for expected in [
        "default via 10.88.1.1 dev eth0 proto 119 metric 200",
        "192.0.2.128/25 via 10.88.1.99 dev eth0",
        "blackhole 198.51.100.0/24",
        "unreachable 198.51.101.0/24 proto 119 metric 9",
    ] {
        assert!(routes.contains(expected), "{expected} in {routes}");
    }
    let routes = inside.ip("-6 route show");
    assert!(
        routes.contains("2001:db8:9::/64 via fd00:88:1::99 dev eth0 proto 119 metric 7"),
        "{routes}"
    );
    assert!(routes.contains("prohibit 2001:db8:a::/64"), "{routes}");

    let mut b = input("b", 11, &[two.clone(), one.clone()]);
    setup(&host, "b", &b);
    let in_b = host.container("b");
    let default = in_b.ip("route show default");
    assert!(
        default.contains("dev eth1") && !default.contains("eth0"),
        "{default}"
    );
    b["networks"].as_object_mut().unwrap().remove("two");
    teardown(&host, "b", &b);
    let routes = in_b.ip("route show");
    assert!(
        !routes.contains("blackhole"),
        "it went with its network: {routes}"
    );
    assert_eq!(in_b.ip("route show default").trim(), "");
    teardown(&host, "b", &input("b", 11, &[two]));
    let difference = b_before
        .difference(&Snapshot::of_netns(&in_b))
        .lines()
        .join("\n");
    let left = ["eth", "blackhole", "unreachable", "prohibit"];
    assert!(
        !left.iter().any(|word| difference.contains(word)),
        "{difference}"
    );
    teardown(&host, "a", &a);
    before.assert_same(&host, "routes");
}

#[test]
fn outbound_addresses_and_internal_networks_without_gateway() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b", "c"]);
    let before = Snapshot::of(&host);
    let chosen = with_option(bridge("one", 1), "outbound_addr4", "10.0.2.3");
    setup(&host, "a", &input("a", 10, std::slice::from_ref(&chosen)));
    let far = Echo::tcp(host.outside(), "outside", 80);
    let seen = host.container("a").tcp(addr::OUTSIDE4, 80);
    assert_eq!(seen.source(), Some(addr::HOST4_B));
    drop(far);

    let mut inner = with(bridge("inner", 2), "internal", json!(true));
    inner["subnets"] = json!([{"subnet": "10.88.2.0/24"}]);
    let mut b = input("b", 10, std::slice::from_ref(&inner));
    b["container_id"] = json!("b".repeat(64));
    b["networks"]["inner"]["static_ips"] = json!(["10.88.2.1"]);
    let answer = setup(&host, "b", &b);
    assert_eq!(
        answer["inner"]["interfaces"]["eth0"]["subnets"],
        json!([{"ipnet": "10.88.2.1/24"}])
    );
    let c = with(
        input("c", 11, std::slice::from_ref(&inner)),
        "container_id",
        json!("c".repeat(64)),
    );
    setup(&host, "c", &c);
    assert_eq!(
        host.netns().addresses("podman2"),
        Vec::<std::net::IpAddr>::new()
    );
    let in_b = host.container("b");
    assert_eq!(in_b.ping(ip("10.88.2.11")), Answer::Replied);
    assert!(!in_b.ping_brief(addr::OUTSIDE4).reached());
    for (name, input) in [("c", &c), ("b", &b), ("a", &input("a", 10, &[chosen]))] {
        teardown(&host, name, input);
    }
    before.assert_same(&host, "outbound address, no gateway");
}

#[test]
fn somebody_elses_bridge_is_used_as_it_is() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    host.sh("ip link add lan0 address 02:00:00:00:01:01 type bridge; ip link set lan0 addrgenmode none; ip link set lan0 up; ip addr add 10.88.1.1/24 dev lan0");
    let mut network = with_option(bridge("lan", 1), "mode", "unmanaged");
    network["network_interface"] = json!("lan0");
    network["subnets"] = json!([{"subnet": "10.88.1.0/24", "gateway": "10.88.1.1"}]);
    let before = Snapshot::of(&host);
    let a = publish(
        &input("a", 10, std::slice::from_ref(&network)),
        "",
        8080,
        80,
    );
    let b = input("b", 11, std::slice::from_ref(&network));
    setup(&host, "a", &a);
    setup(&host, "b", &b);
    assert_eq!(host.sh("nft list tables").trim(), "", "no rules");
    let in_a = host.container("a");
    let _web = Echo::tcp(&in_a, "a", 80);
    assert_eq!(
        host.container("b").tcp(ip("10.88.1.10"), 80).by(),
        Some("a")
    );
    assert_eq!(in_a.ping(ip("10.88.1.1")), Answer::Replied);
    let routes = in_a.ip("route show default");
    assert!(routes.contains("via 10.88.1.1"), "{routes}");
    assert_eq!(text(&host.inspect_network("lan"), "driver"), "unmanaged");
    // A network of wharf's own beside it, and away again.
    network_beside(&host);
    assert_eq!(
        host.container("b").tcp(ip("10.88.1.10"), 80).by(),
        Some("a")
    );
    teardown(&host, "a", &a);
    teardown(&host, "b", &b);
    before.assert_same(&host, "somebody else's bridge");
    let tagged = with(
        network.clone(),
        "options",
        json!({"mode": "unmanaged", "vlan": "7"}),
    );
    let out = call(
        &host,
        &["setup", "/run/netns/a"],
        &input("a", 10, std::slice::from_ref(&tagged)),
    );
    if out.code == Some(0) {
        // A kernel that filters VLANs.
        assert!(
            host.sh("bridge vlan show")
                .contains(" 7 PVID Egress Untagged")
        );
        teardown(&host, "a", &input("a", 10, &[tagged]));
    } else {
        let said = refused(out);
        assert!(said.contains("cannot filter VLANs"), "{said}");
    }
    before.assert_same(&host, "a VLAN on somebody else's bridge");
    let gone = with(network, "network_interface", json!("lan1"));
    let said = refused(call(
        &host,
        &["setup", "/run/netns/a"],
        &input("a", 10, &[gone]),
    ));
    assert!(said.contains("must already exist"), "{said}");
}

fn network_beside(host: &wharf_testkit::Host) {
    network(host, "own", 5, "");
    container(host, "own1", "own", 5, 11, "");
    assert_eq!(host.container("own1").ping(addr::OUTSIDE4), Answer::Replied);
    remove(host, &["own1"], &["own"]);
}

/// Beside macvlan nothing of wharf is on the host, and nothing is missing there; the parent is not wharf's.
fn repairs_macvlan_alone(host: &wharf_testkit::Host, inside: &wharf_testkit::Netns) {
    host.sh("sysctl -qw net.ipv4.conf.pmv0.route_localnet=1");
    let mended = || host.w("repair --json").json()["mended"].clone();
    assert_eq!(mended(), json!([]));
    inside.sh("ip addr flush dev eth0");
    assert_ne!(mended(), json!([]));
    assert_eq!(inside.ping(ip("10.91.0.1")), Answer::Replied);
    assert_eq!(host.sh("nft list tables; ip rule show prio 113").trim(), "");
    let parent = host.netns().sysctl("net.ipv4.conf.pmv0.route_localnet");
    assert_eq!(parent.as_deref(), Some("1"));
    host.sh("sysctl -qw net.ipv4.conf.pmv0.route_localnet=0");
}

#[test]
fn macvlan_on_a_link_of_the_host() {
    require!();
    let host = host();
    namespaces(&host, &["p5", "b"]);
    host.sh("ip link add pmv0 type veth peer name far; ip netns add lan; ip link set far netns lan
             ip link set pmv0 up; ip -n lan link set far up; ip -n lan addr add 10.91.0.1/24 dev far");
    let (p5, expected) = message("run-macvlan");
    let before = Snapshot::of(&host);
    let inside_before = Snapshot::of_netns(&host.container("p5"));
    let answer = setup(&host, "p5", &p5);
    assert_eq!(
        answer["pnmac"]["interfaces"]["eth0"]["subnets"],
        expected["pnmac"]["interfaces"]["eth0"]["subnets"]
    );
    assert_eq!(
        answer["pnmac"]["dns_server_ips"],
        json!([]),
        "its definition may say so, but nobody listens"
    );
    assert_eq!(host.sh("nft list tables").trim(), "", "no rules");
    let inside = host.container("p5");
    assert_eq!(inside.ping(ip("10.91.0.1")), Answer::Replied);
    let link = inside.ip("-d link show dev eth0");
    assert!(
        link.contains("macvlan mode bridge") && link.contains("mtu 1400"),
        "{link}"
    );
    assert!(
        inside
            .ip("route show default")
            .contains("via 10.91.0.1 dev eth0")
    );
    let mut b = p5.clone();
    b["container_id"] = json!("b".repeat(64));
    b["container_name"] = json!("b");
    b["networks"]["pnmac"]["static_ips"] = json!(["10.91.0.3"]);
    setup(&host, "b", &b);
    assert_eq!(host.container("b").ping(ip("10.91.0.2")), Answer::Replied);
    assert_eq!(names(&host.w("ps --json").json()), ["b", "p5"]);
    assert_eq!(text(&host.inspect_network("pnmac"), "driver"), "macvlan");
    repairs_macvlan_alone(&host, &inside);
    teardown(&host, "b", &b);
    teardown(&host, "p5", &p5);
    before.assert_same(&host, "macvlan");
    let difference = inside_before
        .difference(&Snapshot::of_netns(&inside))
        .lines()
        .join("\n");
    assert!(!difference.contains("eth0"), "{difference}");
    let mut gone = p5;
    gone["network_info"]["pnmac"]["network_interface"] = json!("pmv9");
    let said = refused(call(&host, &["setup", "/run/netns/p5"], &gone));
    assert!(said.contains("pmv9"), "{said}");
    before.assert_same(&host, "a parent that is not there");
}

#[test]
fn a_driver_in_a_plugin_directory() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let dir = host.dir().path().join("plugins");
    std::fs::create_dir_all(&dir).unwrap();
    let log = dir.join("log");
    // It answers every verb, and refuses containers named `refused`.
    let script = format!(
        r#"#!/usr/bin/env python3
import json,sys
given=json.load(sys.stdin) if sys.argv[1] != 'info' else None
print(json.dumps([sys.argv[1:], given]), file=open({log:?},'a'))
if sys.argv[1] == 'create':
    given['network_interface']='frob0'; print(json.dumps(given))
elif given['container_name'] == 'refused' and sys.argv[1] == 'setup':
    print(json.dumps({{'error': 'not this one'}})); sys.exit(1)
elif sys.argv[1] == 'setup':
    print(json.dumps({{'interfaces': {{given['network_options']['interface_name']: {{'mac_address': '02:00:00:00:00:01', 'subnets': []}}}}}}))
"#
    );
    std::fs::write(dir.join("frob"), script).unwrap();
    host.sh(&format!("chmod +x {}/frob", dir.display()));
    let plugins = format!("--plugin-directory={}", dir.display());
    let mut frob = json!({"name": "odd", "id": "f".repeat(64), "driver": "frob", "extra": [1]});
    let made = call(
        &host,
        &[&plugins, "create"],
        &json!({"network": frob, "used": {}, "options": {}}),
    )
    .json();
    assert_eq!(
        (text(&made, "network_interface"), made["extra"].clone()),
        ("frob0".to_owned(), json!([1]))
    );
    frob = made;

    let before = Snapshot::of(&host);
    let both = publish(
        &input("a", 10, &[bridge("one", 1), frob.clone()]),
        "",
        8080,
        80,
    );
    let run = |verb: &str, input: &Value| call(&host, &[&plugins, verb, "/run/netns/a"], input);
    let answer = run("setup", &both).json();
    assert_eq!(
        text(&answer, "odd/interfaces/eth1/mac_address"),
        "02:00:00:00:00:01"
    );
    assert_eq!(answer["one"]["interfaces"].as_object().unwrap().len(), 1);
    assert_eq!(run("teardown", &both).ok().stdout, "");
    before.assert_same(&host, "a plugin's network beside wharf's");
    let lines = std::fs::read_to_string(&log).unwrap();
    let calls: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(calls[1][0], json!(["setup", "/run/netns/a"]));
    assert_eq!(calls[1][1]["network"], frob);
    assert_eq!(calls[1][1]["network_options"], both["networks"]["odd"]);
    assert_eq!(calls[1][1]["port_mappings"], both["port_mappings"]);
    assert_eq!(calls[2][0][0], "teardown");

    let refused_one = with(both, "container_name", json!("refused"));
    let said = refused(run("setup", &refused_one));
    assert!(said.contains("not this one"), "{said}");
    before.assert_same(
        &host,
        "a plugin that refuses: the other network is taken back",
    );
    let unknown = refused(call(&host, &["setup", "/run/netns/a"], &refused_one));
    assert_eq!(unknown, "plugin directory not provided");
}

#[test]
fn several_subnets_of_one_family() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    let before = Snapshot::of(&host);
    let mut network = bridge("many", 1);
    network["subnets"] = json!([
        {"subnet": "10.88.1.0/24", "gateway": "10.88.1.1"},
        {"subnet": "10.88.2.0/24", "gateway": "10.88.2.1"},
        {"subnet": "fd00:88:1::/64", "gateway": "fd00:88:1::1"},
        {"subnet": "fd00:88:2::/64", "gateway": "fd00:88:2::1"},
    ]);
    let a = publish(
        &input("a", 10, std::slice::from_ref(&network)),
        "",
        8080,
        80,
    );
    let answer = setup(&host, "a", &a);
    assert_eq!(
        answer["many"]["interfaces"]["eth0"]["subnets"],
        json!([
            {"ipnet": "10.88.1.10/24", "gateway": "10.88.1.1"},
            {"ipnet": "10.88.2.10/24", "gateway": "10.88.2.1"},
            {"ipnet": "fd00:88:1::10/64", "gateway": "fd00:88:1::1"},
            {"ipnet": "fd00:88:2::10/64", "gateway": "fd00:88:2::1"},
        ])
    );
    let mut b = input("b", 11, &[network]);
    b["networks"]["many"]["static_ips"] = json!(["10.88.2.11"]);
    setup(&host, "b", &b);
    let (in_a, in_b) = (host.container("a"), host.container("b"));
    assert_eq!(
        in_b.addresses("eth0"),
        [ip("10.88.2.11")],
        "what Podman gave"
    );
    for to in [ip("10.88.1.10"), ip("10.88.2.10")] {
        assert_eq!(in_b.ping(to), Answer::Replied);
    }
    let _web = Echo::tcp(&in_a, "a", 80);
    for v6 in [false, true] {
        assert_eq!(in_a.ping(addr::outside(v6)), Answer::Replied);
        assert_eq!(host.outside().tcp(addr::host(v6), 8080).by(), Some("a"));
        assert!(!host.outside().tcp_brief(at(v6, 2, 10), 80).reached());
    }
    teardown(&host, "a", &a);
    teardown(&host, "b", &b);
    before.assert_same(&host, "several subnets");
}

#[test]
fn without_privileges_the_state_is_beside_podmans() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let config = host.dir().path().join("rootless");
    let input = input("a", 10, &[bridge("one", 1)]);
    for verb in ["setup", "teardown"] {
        host.command(helpers(&host).join("netavark").to_str().unwrap())
            .arg("--config")
            .arg(&config)
            .args([
                "--rootless=true",
                "--aardvark-binary=",
                verb,
                "/run/netns/a",
            ])
            .env("WHARF_RUN_DIR", "")
            .env("WHARF_STATE_DIR", "")
            .input(&input.to_string())
            .run()
            .ok();
        assert!(config.join("wharf/run/db/data.mdb").exists());
    }
    assert!(!host.path("/run/wharf").exists());
}

#[test]
fn a_gateway_that_nobody_defined_is_told() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let mut one = bridge("one", 1);
    one["subnets"] = json!([{"subnet": "10.88.1.0/24"}, {"subnet": "fd00:88:1::/64"}]);
    let a = input("a", 10, &[one]);
    let answer = setup(&host, "a", &a);
    let subnets = &answer["one"]["interfaces"]["eth0"]["subnets"];
    let routes = host.container("a").ip("route show default");
    assert_eq!(subnets[0]["gateway"], json!("10.88.1.1"), "{subnets}");
    assert_eq!(subnets[1]["gateway"], json!("fd00:88:1::1"), "{subnets}");
    assert!(routes.contains("via 10.88.1.1"), "{routes}");
    teardown(&host, "a", &a);
}
