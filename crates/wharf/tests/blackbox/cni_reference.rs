//! Cases that the reference plugins are tested by, as far as a runtime or a container sees them.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Snapshot, require};

/// Configurations that are refused: what is added to the plugin's object, and the number of the error.
fn refused() -> Vec<(&'static str, Value, u64)> {
    let ipam = |more: Value| {
        let mut ipam = json!({"type": "host-local", "subnet": "10.44.0.0/24"});
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            ipam[key] = value;
        }
        json!({"ipam": ipam})
    };
    let ports = |port: Value| json!({"runtimeConfig": {"portMappings": [port]}});
    vec![
        (
            "hairpin and promiscuous",
            json!({"hairpinMode": true, "promiscMode": true}),
            7,
        ),
        ("VLAN 4095", json!({"vlan": 4095}), 7),
        ("policy", json!({"ingressPolicy": "nobody-knows"}), 7),
        (
            "rate without burst",
            json!({"ingressRate": 8000, "ingressBurst": 0}),
            7,
        ),
        (
            "burst without rate",
            json!({"egressRate": 0, "egressBurst": 8000}),
            7,
        ),
        (
            "burst of 4 GB",
            json!({"egressRate": 8000, "egressBurst": 34_359_738_368_u64}),
            7,
        ),
        (
            "limits for some",
            json!({"egressRate": 8000, "egressBurst": 8000, "shapedSubnets": ["10.0.0.0/8"]}),
            2,
        ),
        (
            "limits but for some",
            json!({"egressRate": 8000, "egressBurst": 8000, "unshapedSubnets": ["10.0.0.0/8"]}),
            2,
        ),
        (
            "sysctl of the machine",
            json!({"sysctl": {"kernel.panic": "1"}}),
            7,
        ),
        (
            "sysctl by a detour",
            json!({"sysctl": {"net.ipv4.../../kernel/panic": "1"}}),
            7,
        ),
        (
            "bad hardware address",
            json!({"runtimeConfig": {"mac": "not a mac"}}),
            7,
        ),
        (
            "host port 0",
            ports(json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        (
            "host port -1",
            ports(json!({"hostPort": -1, "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        (
            "bad host address",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "x"})),
            7,
        ),
        (
            "mark bit and chain",
            json!({"markMasqBit": 5, "externalSetMarkChain": "KUBE-MARK"}),
            7,
        ),
        (
            "address outside of the range",
            json!({"runtimeConfig": {"ips": ["10.45.0.2"]}, "ipam": ipam(json!({}))["ipam"]}),
            7,
        ),
        (
            "the gateway's address",
            json!({"runtimeConfig": {"ips": ["10.44.0.1"]}, "ipam": ipam(json!({}))["ipam"]}),
            101,
        ),
        (
            "range outside of the subnet",
            ipam(json!({"rangeStart": "10.45.0.1"})),
            7,
        ),
        (
            "range upside down",
            ipam(json!({"rangeStart": "10.44.0.9", "rangeEnd": "10.44.0.8"})),
            7,
        ),
        (
            "no such file of name servers",
            ipam(json!({"resolvConf": "/nonexistent"})),
            7,
        ),
    ]
}

fn conf(more: &Value) -> Value {
    let list = list("1.0.0", more);
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf
}

#[test]
fn what_is_refused() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    runtime.netns("c1");
    let before = Snapshot::of(&host);
    for (what, more, number) in refused() {
        let outcome = runtime.call("ADD", "c1", &netns_of("c1"), "eth0", &conf(&more));
        let error = outcome.expect_err(what);
        assert_eq!(error["code"], number, "{what}: {error}");
        before.assert_same(&host, what);
        // Who asked must be able to clear up.
        runtime
            .call("DEL", "c1", &netns_of("c1"), "eth0", &conf(&json!({})))
            .unwrap_or_else(|e| panic!("DEL after {what}: {e}"));
    }
    let mut twice = conf(&json!({})).to_string();
    twice.insert_str(
        1,
        r#""sysctl":{"net.core.somaxconn":"1","net.core.somaxconn":"2"},"#,
    );
    let command = runtime.command("ADD", "c1", &netns_of("c1"), "eth0", &conf(&json!({})));
    assert_eq!(
        code(answer(&command.input(&twice).run())),
        7,
        "a sysctl twice"
    );
    before.assert_same(&host, "all of them");
}

/// What is added to the plugin's object, a command, and what it prints then.
fn accepted() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let limits = |rate: u64| json!({"ingressRate": rate, "ingressBurst": 800_000});
    let both = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "runtimeConfig": {"bandwidth": limits(1_000_000)}});
    vec![
        (
            "the fixed limit goes before the runtime's",
            both,
            "tc qdisc show dev CABLE",
            "rate 8Mbit",
        ),
        (
            "the runtime's limit",
            json!({"runtimeConfig": {"bandwidth": limits(1_000_000)}}),
            "tc qdisc show dev CABLE",
            "rate 1Mbit",
        ),
        (
            "a limit of 0 is none",
            json!({"ingressRate": 0, "ingressBurst": 0, "runtimeConfig": {"bandwidth": limits(1_000_000)}}),
            "tc qdisc show dev CABLE",
            "noqueue",
        ),
        (
            "sysctl",
            json!({"sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1"}}),
            "ip netns exec c1 sysctl -n net.ipv4.conf.eth0.log_martians",
            "1",
        ),
        (
            "sysctl by argument",
            json!({"args": {"cni": {"sysctl": {"net.core.somaxconn": "500"}}}}),
            "ip netns exec c1 sysctl -n net.core.somaxconn",
            "500",
        ),
        (
            "argument before key",
            json!({"sysctl": {"net.core.somaxconn": "400"}, "args": {"cni": {"sysctl": {"net.core.somaxconn": "500"}}}}),
            "ip netns exec c1 sysctl -n net.core.somaxconn",
            "500",
        ),
        (
            "promiscuous by argument",
            json!({"args": {"cni": {"promisc": true}}}),
            "ip -n c1 -d link show eth0",
            "promiscuity 1",
        ),
        (
            "not promiscuous by argument",
            json!({"promisc": true, "args": {"cni": {"promisc": false}}}),
            "ip -n c1 -d link show eth0",
            "promiscuity 0",
        ),
        (
            "all multicast by argument",
            json!({"args": {"cni": {"allmulti": true}}}),
            "ip -n c1 link show eth0",
            "ALLMULTI",
        ),
        (
            "MTU by argument",
            json!({"args": {"cni": {"mtu": 1454}}}),
            "ip -n c1 link show eth0",
            "mtu 1454",
        ),
        (
            "hardware address by argument",
            json!({"args": {"cni": {"mac": "c2:11:22:33:44:66"}}}),
            "ip -n c1 link show eth0",
            "c2:11:22:33:44:66",
        ),
        (
            "hardware address by the runtime",
            json!({"mac": "c2:11:22:33:44:66", "runtimeConfig": {"mac": "c2:11:22:33:44:77"}}),
            "ip -n c1 link show eth0",
            "c2:11:22:33:44:77",
        ),
        (
            "queue length",
            json!({"txQLen": 777}),
            "ip -n c1 link show eth0",
            "qlen 777",
        ),
        (
            "promiscuous bridge",
            json!({"hairpinMode": false, "promiscMode": true}),
            "ip -d link show cni7",
            "promiscuity 1",
        ),
        (
            "no address plugin",
            json!({"ipam": {}, "isGateway": false, "ipMasq": false}),
            "ip -n c1 link show eth0",
            "state UP",
        ),
    ]
}

#[test]
fn what_is_accepted() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    runtime.netns("c1");
    let before = Snapshot::of(&host);
    for (what, more, command, word) in accepted() {
        let conf = conf(&more);
        let call =
            |verb: &str, conf: &Value| runtime.call(verb, "c1", &netns_of("c1"), "eth0", conf);
        let result = call("ADD", &conf).unwrap_or_else(|e| panic!("{what}: {e}"));
        let cable = text(&result, "interfaces/1/name");
        let shown = host.sh(&command.replace("CABLE", &cable));
        assert!(shown.contains(word), "{what}: {shown}");
        let mut checked = conf.clone();
        checked["prevResult"] = result;
        call("CHECK", &checked).unwrap_or_else(|e| panic!("{what}: CHECK: {e}"));
        for _ in 0..2 {
            call("DEL", &checked).unwrap_or_else(|e| panic!("{what}: DEL: {e}"));
        }
        host.sh("ip netns del c1; ip netns add c1");
        host.w("network rm mynet").ok();
    }
    before.assert_same(&host, "all of them");
}
