//! `wharf` as a CNI plugin that stands alone: what it answers, and what it leaves.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::thread;
use wharf_testkit::{Echo, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

#[test]
fn one_object_does_the_work_of_four() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.0.0", &json!({}));
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]});
    runtime.netns("c1");
    let result = runtime.add(&list, "c1", "eth0", &ports).expect("ADD");
    let names: Vec<String> = (0..3)
        .map(|n| text(&result, &format!("interfaces/{n}/name")))
        .collect();
    assert_eq!((names[0].as_str(), names[2].as_str()), ("cni7", "eth0"));
    assert!(names[1].starts_with("veth"), "{names:?}");
    assert_eq!(text(&result, "interfaces/2/sandbox"), "/run/netns/c1");
    assert!(result["interfaces"][0].get("sandbox").is_none());
    let c1 = host.container("c1");
    for (at, net) in [(0, host.netns()), (1, host.netns()), (2, &c1)] {
        let shown = net.ip_json(&format!("link show dev {}", names[at]));
        assert_eq!(
            text(&shown, "0/address"),
            text(&result, &format!("interfaces/{at}/mac"))
        );
    }
    assert_eq!(
        result["ips"].to_string(),
        r#"[{"interface":2,"address":"10.44.0.2/24","gateway":"10.44.0.1"},{"interface":2,"address":"fd44::2/64","gateway":"fd44::1"}]"#
    );
    assert_eq!(
        result["routes"].to_string(),
        r#"[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]"#
    );
    let _web = Echo::tcp(&c1, "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("c1"));
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(
        c1.tcp(addr::OUTSIDE4, 90).source(),
        Some(addr::HOST4),
        "masqueraded"
    );
    let shown = host.inspect("c1");
    assert_eq!(text(&shown, "owner"), "cni");
    assert_eq!(text(&shown, "networks/0/network"), "mynet");
    runtime.check(&list, "c1", "eth0", &ports).expect("CHECK");
    assert_eq!(
        code(runtime.add(&list, "c1", "eth0", &ports)),
        101,
        "a second time"
    );
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("c1"),
        "the first one is untouched"
    );
    drop(_web);
    for round in 0..3 {
        runtime
            .del(&list, "c1", "eth0", &ports)
            .unwrap_or_else(|e| panic!("DEL {round}: {e}"));
    }
    assert_eq!(c1.interfaces(), ["lo"]);
    host.sh("ip netns del c1");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "ADD and DEL");
}

#[test]
fn versions_and_bad_calls() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    runtime.netns("c1");
    let conf = |version: &str| {
        let list = list(version, &json!({}));
        let mut conf = list["plugins"][0].clone();
        conf["name"] = json!("mynet");
        conf["cniVersion"] = json!(version);
        conf
    };
    let answer = runtime
        .call("VERSION", "", "", "", &json!({"cniVersion": "0.4.0"}))
        .expect("VERSION");
    assert_eq!(text(&answer, "cniVersion"), "0.4.0");
    assert_eq!(
        texts(&answer, "supportedVersions"),
        [
            "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
        ]
    );
    let call = |verb: &str, id: &str, netns: &str, ifname: &str, conf: &Value| {
        code(runtime.call(verb, id, netns, ifname, conf))
    };
    let (ns, good) = ("/run/netns/c1", conf("1.0.0"));
    assert_eq!(call("FROB", "c1", ns, "eth0", &good), 4);
    assert_eq!(call("ADD", "", ns, "eth0", &good), 4);
    assert_eq!(call("ADD", "-bad/", ns, "eth0", &good), 4);
    assert_eq!(call("ADD", "c1", ns, "interface-too-long", &good), 4);
    assert_eq!(call("ADD", "c1", "", "eth0", &good), 4);
    assert_eq!(call("ADD", "c1", ns, "eth0", &conf("9.9.9")), 1);
    assert_eq!(call("CHECK", "c1", ns, "eth0", &conf("0.3.1")), 1);
    assert_eq!(call("CHECK", "c1", ns, "eth0", &good), 7, "no prevResult");
    assert_eq!(call("GC", "", "", "", &good), 1);
    assert_eq!(call("STATUS", "", "", "", &good), 1);
    assert_eq!(call("ADD", "c1", "/run/netns/none", "eth0", &good), 8);
    assert_eq!(
        call("ADD", "c1", "/proc/self/ns/net", "eth0", &good),
        8,
        "the host's own"
    );
    assert_eq!(
        call("ADD", "c1", "/etc/hostname", "eth0", &good),
        8,
        "no namespace"
    );
    let mut bad = good.clone();
    bad["name"] = json!("-x/");
    assert_eq!(call("ADD", "c1", ns, "eth0", &bad), 7);
    for text in ["", "{", "[]", "\u{1}", "{\"cniVersion\":{}}"] {
        let output = runtime
            .command("ADD", "c1", ns, "eth0", &good)
            .input(text)
            .run();
        assert_eq!(code(cni_answer(&output)), 6, "{text:?}");
    }
    let host_range = json!({"type": "host-local", "subnet": "10.0.2.0/24"});
    for (key, value, number) in [
        ("ipam", host_range, 101),
        ("ipam", json!({"type": "dhcp"}), 2),
        ("ipam", json!({"type": "nobody-has-this"}), 7),
        ("vlan", json!(5), 2),
        ("mtu", json!(67), 7),
        ("bridge", json!("up0"), 101),
        (
            "runtimeConfig",
            json!({"portMappings": [{"hostPort": 0, "containerPort": 80}]}),
            7,
        ),
        ("runtimeConfig", json!({"ips": ["10.44.0.1"]}), 101),
        ("runtimeConfig", json!({"ips": ["10.45.0.9"]}), 7),
        ("runtimeConfig", json!({"mac": "01:00:00:00:00:00"}), 7),
    ] {
        let mut bad = good.clone();
        bad[key] = value.clone();
        assert_eq!(
            call("ADD", "c1", ns, "eth0", &bad),
            number,
            "{key}: {value}"
        );
    }
    assert_eq!(host.container("c1").interfaces(), ["lo"]);
    runtime
        .call("STATUS", "", "", "", &conf("1.1.0"))
        .expect("STATUS");
    host.sh("ip netns del c1");
    before.assert_same(&host, "bad calls");
}

fn cni_answer(output: &wharf_testkit::Output) -> Outcome {
    answer(output)
}

#[test]
fn results_of_every_version() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    for (at, version) in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ]
    .into_iter()
    .enumerate()
    {
        let list = list(version, &json!({}));
        let id = format!("c{at}");
        runtime.netns(&id);
        let result = runtime.add(&list, &id, "eth0", &no()).expect("ADD");
        assert_eq!(text(&result, "cniVersion"), version);
        let (v4, v6) = (
            format!("10.44.0.{}/24", at + 2),
            format!("fd44::{}/64", at + 2),
        );
        if at < 2 {
            assert_eq!(text(&result, "ip4/ip"), v4);
            assert_eq!(text(&result, "ip4/gateway"), "10.44.0.1");
            assert_eq!(text(&result, "ip4/routes/0/dst"), "0.0.0.0/0");
            assert_eq!(text(&result, "ip6/ip"), v6);
            assert!(result.get("interfaces").is_none(), "{result}");
        } else {
            assert_eq!(
                (
                    text(&result, "ips/0/address"),
                    text(&result, "ips/1/address")
                ),
                (v4, v6)
            );
            let said = result["ips"][1]["version"].as_str();
            assert_eq!(said, (at < 5).then_some("6"), "{version}");
            let mtu = result["interfaces"][2]["mtu"].as_u64();
            assert_eq!(mtu, (version == "1.1.0").then_some(1500));
        }
        if at >= 4 {
            runtime.check(&list, &id, "eth0", &no()).expect("CHECK");
        }
        runtime.del(&list, &id, "eth0", &no()).expect("DEL");
        assert_eq!(host.container(&id).interfaces(), ["lo"]);
    }
    // No version at all is the first.
    let mut list = list("", &json!({}));
    list.as_object_mut()
        .expect("an object")
        .remove("cniVersion");
    runtime.netns("old");
    let result = runtime.add(&list, "old", "eth0", &no()).expect("ADD");
    assert!(result["ip4"].is_object(), "{result}");
    runtime.del(&list, "old", "eth0", &no()).expect("DEL");
}

#[test]
fn arguments_go_before_one_another() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.0.0", &json!({"args": {"cni": {"ips": ["10.44.0.60"]}}}));
    runtime.netns("c1");
    let mut conf = list["plugins"][0].clone();
    conf["name"] = json!("mynet");
    conf["cniVersion"] = json!("1.0.0");
    let add = |conf: &Value| {
        let command = runtime.command("ADD", "c1", "/run/netns/c1", "eth0", conf);
        let result = answer(
            &command
                .env("CNI_ARGS", "IP=10.44.0.50;K8S_POD_NAME=x")
                .run(),
        )
        .expect("ADD");
        runtime.call("DEL", "c1", "", "eth0", conf).expect("DEL");
        text(&result, "ips/0/address")
    };
    assert_eq!(add(&conf), "10.44.0.60/24");
    conf["runtimeConfig"] = json!({"ips": ["10.44.0.70"]});
    assert_eq!(add(&conf), "10.44.0.70/24");
    conf["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.47.0.0/24"}]]});
    conf["args"] = json!({});
    assert_eq!(add(&conf), "10.47.0.1/24".replace(".1/", ".2/"));
}

/// containerd's types do not say how their fields are written, and the reference plugins read any case.
#[test]
fn keys_as_containerd_writes_them() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let more = json!({"ipam": {"type": "host-local"}, "isDefaultGateway": true});
    let list = list("1.0.0", &more);
    let sent = json!({
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
        "ipRanges": [[{"Subnet": "10.47.0.0/24", "RangeStart": "", "RangeEnd": "10.47.0.20", "Gateway": ""}]],
        "bandwidth": {"IngressRate": 80_000_000, "IngressBurst": 8_000_000, "EgressRate": 0, "EgressBurst": 0},
        "dns": {"Servers": ["10.0.0.53"], "Searches": ["cluster.local"], "Options": []},
    });
    runtime.netns("c1");
    let result = runtime.add(&list, "c1", "eth0", &sent).expect("ADD");
    assert_eq!(text(&result, "ips/0/address"), "10.47.0.2/24");
    assert_eq!(text(&result, "dns/nameservers/0"), "10.0.0.53");
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.netns().tcp(addr::HOST4, 8080).by(), Some("c1"));
    let cable = text(&result, "interfaces/1/name");
    assert!(
        host.sh(&format!("tc qdisc show dev {cable}"))
            .contains("tbf")
    );
    runtime.check(&list, "c1", "eth0", &sent).expect("CHECK");
    runtime.del(&list, "c1", "eth0", &sent).expect("DEL");
}

#[test]
fn many_at_once() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.0.0", &json!({}));
    let ids: Vec<String> = (0..40)
        .map(|n| format!("{n:02}{}", "f".repeat(62)))
        .collect();
    for id in &ids {
        runtime.netns(id);
    }
    let results: Vec<Value> = thread::scope(|scope| {
        let add = |(n, id): (usize, &String)| {
            let (runtime, list, id) = (&runtime, &list, id.clone());
            let ports = json!({"portMappings": [{"hostPort": 9000 + n, "containerPort": 80, "protocol": "TCP"}]});
            scope.spawn(move || {
                runtime
                    .add(list, &id, "eth0", &ports)
                    .unwrap_or_else(|e| panic!("ADD {id}: {e}"))
            })
        };
        let threads: Vec<_> = ids.iter().enumerate().map(add).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    for path in [
        "ips/0/address",
        "ips/1/address",
        "interfaces/1/name",
        "interfaces/2/mac",
    ] {
        let distinct: BTreeSet<String> = results.iter().map(|r| text(r, path)).collect();
        assert_eq!(distinct.len(), ids.len(), "{path}");
    }
    assert_eq!(
        names(&host.w("ps --json").json()),
        ids,
        "the runtime's own ids"
    );
    thread::scope(|scope| {
        for id in &ids {
            let (runtime, list) = (&runtime, &list);
            scope.spawn(move || {
                runtime
                    .del(list, id, "eth0", &no())
                    .unwrap_or_else(|e| panic!("DEL {id}: {e}"))
            });
        }
    });
    host.sh("for n in $(ls /run/netns); do ip netns del $n; done");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "forty at once");
}

#[test]
fn several_interfaces_of_one_container() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let first = list("1.1.0", &json!({}));
    let mut second = list(
        "1.1.0",
        &json!({"bridge": "cni8", "ipam": {"type": "host-local", "subnet": "10.48.0.0/24"}}),
    );
    second["name"] = json!("other");
    runtime.netns("pod");
    runtime.add(&first, "pod", "eth0", &no()).expect("eth0");
    runtime.add(&second, "pod", "net1", &no()).expect("net1");
    // The same network a second time, with a default route that is there already.
    runtime.add(&first, "pod", "net2", &no()).expect("net2");
    assert_eq!(
        names(&host.w("ps --json").json()),
        ["pod", "pod-net1", "pod-net2"]
    );
    for (list, ifname) in [(&first, "eth0"), (&second, "net1"), (&first, "net2")] {
        runtime
            .check(list, "pod", ifname, &no())
            .unwrap_or_else(|e| panic!("CHECK {ifname}: {e}"));
    }
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert!(host.container("pod").tcp(addr::OUTSIDE4, 90).reached());
    // One that is there, of whomever it is.
    host.sh("ip -n pod link add name br9 type bridge");
    assert_eq!(code(runtime.add(&second, "pod", "br9", &no())), 101);
    host.sh("ip -n pod link del br9");
    runtime.del(&first, "pod", "eth0", &no()).expect("DEL eth0");
    assert_eq!(
        host.container("pod").interfaces().len(),
        3,
        "the others stay"
    );
    runtime
        .check(&second, "pod", "net1", &no())
        .expect("CHECK net1");
    runtime.gc(&first, &[("pod", "net2")]).expect("GC");
    runtime
        .check(&first, "pod", "net2", &no())
        .expect("CHECK net2");
    runtime.gc(&first, &[("pod", "eth0")]).expect("GC");
    assert_eq!(host.container("pod").interfaces().len(), 2);
    runtime
        .check(&second, "pod", "net1", &no())
        .expect("another network's is untouched");
    runtime
        .del(&second, "pod", "net1", &no())
        .expect("DEL net1");
    host.sh("ip netns del pod");
    host.w("network prune").ok();
    before.assert_same(&host, "three interfaces");
}

#[test]
fn nobody_takes_what_is_anothers() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    network(&host, "mine", 1, "");
    container(&host, "web", "mine", 1, 11, "-p 8080:80");
    runtime.netns("pod");
    runtime.add(&list, "pod", "eth0", &no()).expect("ADD");
    // The same name, another's container.
    runtime
        .del(&list, "web", "eth0", &no())
        .expect("DEL of nothing");
    runtime.gc(&list, &[]).expect("GC");
    assert_eq!(names(&host.w("ps --json").json()), ["web"]);
    assert_eq!(
        names(&host.w("network ls --json").json()),
        ["mine"],
        "GC took its own empty network"
    );
    let _web = Echo::tcp(&host.container("web"), "web", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    assert_eq!(
        code(runtime.add(&list, "pod", "eth0", &ports)),
        101,
        "the port is taken"
    );
    assert_eq!(host.container("pod").interfaces(), ["lo"]);
    // A container of the runtime with the name of one of the command line.
    runtime.netns("web2");
    host.w("create web3").ok();
    let conf = &list["plugins"][0];
    let mut conf = conf.clone();
    conf["name"] = json!("mynet");
    conf["cniVersion"] = json!("1.1.0");
    runtime
        .call("ADD", "web3", "/run/netns/web2", "eth0", &conf)
        .expect("ADD");
    let all = names(&host.w("ps --json").json());
    assert_eq!(all.len(), 3, "{all:?}");
    runtime.call("DEL", "web3", "", "eth0", &conf).expect("DEL");
    assert_eq!(names(&host.w("ps --json").json()), ["web", "web3"]);
    // No list of valid attachments is not an empty list.
    runtime
        .call("ADD", "x", "/run/netns/web2", "eth0", &conf)
        .expect("ADD");
    runtime.call("GC", "", "", "", &conf).expect("GC");
    assert_eq!(host.container("web2").interfaces().len(), 2);
}

#[test]
fn a_network_of_the_command_line_is_used_as_it_is() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    network(&host, "mine", 1, "--bridge br-mine");
    container(&host, "web", "mine", 1, 11, "");
    let list = |more: Value| {
        let mut plugin = json!({"type": "wharf", "ipam": {"type": "wharf"}});
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            plugin[key] = value;
        }
        json!({"cniVersion": "1.1.0", "name": "mine", "plugins": [plugin]})
    };
    let _web = Echo::tcp(&host.container("web"), "web", 80);
    let _out = Echo::tcp(host.outside(), "out", 90);
    for (id, more) in [
        ("a", json!({})),
        ("b", json!({"isDefaultGateway": true, "ipMasq": true})),
    ] {
        let list = list(more);
        runtime.netns(id);
        let result = runtime.add(&list, id, "eth0", &no()).expect("ADD");
        assert_eq!(text(&result, "interfaces/0/name"), "br-mine");
        assert_eq!(
            result["routes"][0].to_string(),
            r#"{"dst":"0.0.0.0/0","gw":"10.88.1.1"}"#
        );
        let inside = host.container(id);
        assert_eq!(inside.tcp(ip("10.88.1.11"), 80).by(), Some("web"));
        assert!(inside.tcp(addr::OUTSIDE4, 90).reached());
        runtime.check(&list, id, "eth0", &no()).expect("CHECK");
    }
    let other = list(json!({"bridge": "cni0"}));
    assert_eq!(
        code(runtime.add(&other, "b", "eth1", &no())),
        101,
        "it has another bridge"
    );
    runtime.gc(&list(json!({})), &[]).expect("GC");
    assert_eq!(names(&host.w("ps --json").json()), ["web"]);
    assert_eq!(
        names(&host.w("network ls --json").json()),
        ["mine"],
        "it stays its owner's"
    );
}

/// Two lists may name one bridge, one after the other.
#[test]
fn an_idle_network_makes_room() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let first = list("1.0.0", &json!({}));
    let mut second = first.clone();
    second["name"] = json!("other");
    runtime.netns("c1");
    runtime.add(&first, "c1", "eth0", &no()).expect("ADD");
    runtime.del(&first, "c1", "eth0", &no()).expect("DEL");
    runtime
        .add(&second, "c1", "eth0", &no())
        .expect("ADD by another list");
    runtime.del(&second, "c1", "eth0", &no()).expect("DEL");
}

/// As with the reference plugin, a mapping at an address of a family that the network lacks is no failure; wharf says so.
#[test]
fn a_port_of_a_family_that_is_not_there_is_noted() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list(
        "1.0.0",
        &json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}]]}}),
    );
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp",
        "hostIP": addr::HOST6.to_string()}]});
    runtime.netns("c1");
    let mut plugin = list["plugins"][0].clone();
    for key in ["cniVersion", "name"] {
        plugin[key] = list[key].clone();
    }
    plugin["runtimeConfig"] = ports;
    runtime
        .command("ADD", "c1", "/run/netns/c1", "eth0", &plugin)
        .run()
        .ok()
        .says("answers to nobody");
}
