//! Addresses of CNI attachments: asked for, by wharf's own address plugin, and by somebody else's.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Answer, Echo, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

#[test]
fn addresses_as_asked_for() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let ranges = json!({"ipam": {"type": "host-local", "ranges": [
        [{"subnet": "10.44.0.0/24", "rangeStart": "10.44.0.10", "rangeEnd": "10.44.0.11"},
         {"subnet": "10.46.0.0/24", "rangeStart": "10.46.0.20", "rangeEnd": "10.46.0.20", "gateway": "10.46.0.9"}],
        [{"subnet": "10.45.0.0/24", "gateway": "10.45.0.254"}]
    ]}, "isDefaultGateway": true});
    let list = list("1.0.0", &ranges);
    let mut seen = Vec::new();
    for id in ["a", "b", "c"] {
        runtime.netns(id);
        let result = runtime.add(&list, id, "eth0", &no()).expect("ADD");
        seen.push((
            text(&result, "ips/0/address"),
            text(&result, "ips/0/gateway"),
            text(&result, "ips/1/address"),
        ));
    }
    let want = [
        ("10.44.0.10/24", "10.44.0.1", "10.45.0.1/24"),
        ("10.44.0.11/24", "10.44.0.1", "10.45.0.2/24"),
        ("10.46.0.20/24", "10.46.0.9", "10.45.0.3/24"),
    ];
    let want = want.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(seen, want);
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert!(
        host.container("c").tcp(addr::OUTSIDE4, 90).reached()
            || host.container("a").tcp(addr::OUTSIDE4, 90).reached()
    );
    runtime.netns("d");
    let error = runtime.add(&list, "d", "eth0", &no());
    let error = error.expect_err("the range is used up");
    assert_eq!(
        (&error["code"], text(&error, "msg").as_str()),
        (
            &json!(101),
            "no IP addresses available in range set: 10.44.0.10-10.44.0.11,10.46.0.20-10.46.0.20"
        ),
        "{error}"
    );
    runtime.del(&list, "a", "eth0", &no()).expect("DEL");
    let ips = json!({"ips": ["10.44.0.10/24"], "mac": "C2:11:22:33:44:55"});
    let result = runtime
        .add(&list, "d", "eth0", &ips)
        .expect("ADD with address");
    assert_eq!(text(&result, "ips/0/address"), "10.44.0.10/24");
    assert_eq!(text(&result, "interfaces/2/mac"), "c2:11:22:33:44:55");
    let d = host.container("d").ip_json("link show dev eth0");
    assert_eq!(text(&d, "0/address"), "c2:11:22:33:44:55");
    runtime.netns("e");
    assert_eq!(
        code(runtime.add(&list, "e", "eth0", &ips)),
        101,
        "it is taken"
    );
    for id in ["b", "c", "d", "e"] {
        runtime.del(&list, id, "eth0", &no()).expect("DEL");
    }
    host.sh("for n in a b c d e; do ip netns del $n; done");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "addresses");
}

/// Lists name the default routes of both families for all their networks.
#[test]
fn routes_of_a_family_without_address_lead_nowhere() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    for (id, subnet, carried, lost) in [
        ("a", "10.44.0.0/24", "0.0.0.0/0", "-6"),
        ("b", "fd44::/64", "::/0", "-4"),
    ] {
        let list = list(
            "1.0.0",
            &json!({"bridge": format!("br{id}"), "ipam":
                {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": routes}}),
        );
        let mut list = list;
        list["name"] = json!(format!("net{id}"));
        runtime.netns(id);
        let result = runtime.add(&list, id, "eth0", &no()).expect("ADD");
        assert_eq!(result["routes"], json!([{"dst": carried}]));
        let default = host
            .container(id)
            .ip_json(&format!("{lost} route show default"));
        assert_eq!(default, json!([]), "{subnet}");
        runtime.check(&list, id, "eth0", &no()).expect("CHECK");
        runtime.del(&list, id, "eth0", &no()).expect("DEL");
    }
}

/// An address plugin that keeps one address, and writes down how it was called.
const ADDRESS_PLUGIN: &str = r#"#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>"$(dirname "$0")/calls"
cat >"$(dirname "$0")/input"
case $CNI_COMMAND in
ADD) cat "$(dirname "$0")/answer" ;;
STATUS) test ! -e "$(dirname "$0")/full" || { echo '{"code":50,"msg":"no address left"}'; exit 1; } ;;
esac
"#;

#[test]
fn addresses_of_another_plugin() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let bin = host.dir().path().join("bin");
    runtime.script("ours", ADDRESS_PLUGIN);
    let answer_with = |text: &str| std::fs::write(bin.join("answer"), text).expect("answer");
    let calls = || {
        let text = std::fs::read_to_string(bin.join("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(bin.join("calls"));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let list = list(
        "1.1.0",
        &json!({"isDefaultGateway": true, "ipam": {"type": "ours", "secret": 5}}),
    );
    runtime.netns("c1");
    answer_with(
        r#"{"cniVersion":"1.1.0","ips":[{"address":"10.50.0.7/24","gateway":"10.50.0.1"}],"routes":[{"dst":"203.0.113.0/24"}],"dns":{"nameservers":["10.50.0.1"]}}"#,
    );
    let result = runtime.add(&list, "c1", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "ips/0/address"), "10.50.0.7/24");
    assert_eq!(
        result["routes"].to_string(),
        r#"[{"dst":"203.0.113.0/24"},{"dst":"0.0.0.0/0","gw":"10.50.0.1"}]"#
    );
    assert_eq!(text(&result, "dns/nameservers/0"), "10.50.0.1");
    let input = std::fs::read_to_string(bin.join("input")).expect("input");
    let input: Value = serde_json::from_str(&input).expect("the whole configuration");
    assert_eq!(
        (&input["ipam"]["secret"], &input["bridge"]),
        (&json!(5), &json!("cni7"))
    );
    let routes = host.container("c1").ip("route");
    assert!(
        routes.contains("203.0.113.0/24 via 10.50.0.1") && routes.contains("default via 10.50.0.1"),
        "{routes}"
    );
    runtime.check(&list, "c1", "eth0", &no()).expect("CHECK");
    assert_eq!(code(runtime.add(&list, "c1", "eth0", &no())), 101);
    assert_eq!(
        calls(),
        ["ADD c1 eth0", "CHECK c1 eth0"],
        "a second ADD asks for nothing and gives nothing back"
    );
    runtime.gc(&list, &[("c1", "eth0")]).expect("GC");
    assert_eq!(calls(), ["GC  "]);
    runtime.del(&list, "c1", "eth0", &no()).expect("DEL");
    assert_eq!(calls(), ["DEL c1 eth0"]);
    // What goes wrong afterwards gives the address back.
    runtime.netns("c2");
    host.sh("ip -n c2 link add eth0 type bridge");
    assert_eq!(code(runtime.add(&list, "c2", "eth0", &no())), 101);
    assert_eq!(calls(), ["ADD c2 eth0", "DEL c2 eth0"]);
    // So does an answer that is none: the plugin succeeded, and may have given an address.
    answer_with("nonsense");
    assert_eq!(code(runtime.add(&list, "c1", "eth0", &no())), 6);
    assert_eq!(calls(), ["ADD c1 eth0", "DEL c1 eth0"]);
    answer_with(r#"{"ips":null,"routes":null,"dns":null}"#);
    let error = runtime.add(&list, "c1", "eth0", &no());
    let error = error.map_or_else(|e| e.to_string(), |_| String::new());
    assert!(!error.contains("null"), "as if it were not there: {error}");
    let _ = runtime.del(&list, "c1", "eth0", &no());
    answer_with(r#"{"ips":[{"address":"10.51.0.7/24","gateway":null}],"routes":null}"#);
    let result = runtime
        .add(&list, "c1", "eth0", &no())
        .expect("another subnet");
    assert_eq!(
        text(&result, "ips/0/gateway"),
        "10.51.0.1",
        "the bridge is the gateway"
    );
    let status = || {
        let mut conf = list["plugins"][0].clone();
        conf["name"] = json!("mynet");
        conf["cniVersion"] = json!("1.1.0");
        runtime.call("STATUS", "", "", "", &conf)
    };
    status().expect("STATUS");
    std::fs::write(bin.join("full"), "").expect("a mark");
    assert_eq!(code(status()), 50);
    // Without the plugin there is nothing to give back with, which is told once.
    std::fs::remove_file(bin.join("ours")).expect("plugin removed");
    assert_eq!(code(runtime.del(&list, "c1", "eth0", &no())), 7);
    runtime
        .del(&list, "c1", "eth0", &no())
        .expect("DEL of nothing");
    host.sh("ip netns del c1; ip netns del c2");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "another plugin's addresses");
}

#[test]
fn fixed_addresses_and_none() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let fixed = json!({"ipam": {"type": "static", "addresses": [{"address": "10.52.0.5/24", "gateway": "10.52.0.1"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"search": ["example"]}}});
    let first = list("1.0.0", &fixed);
    runtime.netns("c1");
    runtime.netns("c2");
    let result = runtime.add(&first, "c1", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "ips/0/address"), "10.52.0.5/24");
    assert_eq!(text(&result, "dns/search/0"), "example");
    assert_eq!(
        code(runtime.add(&first, "c2", "eth0", &no())),
        101,
        "the address is taken"
    );
    // A further subnet on a network that is in use.
    let ips = json!({"ips": ["10.53.0.5/24"]});
    let result = runtime
        .add(&first, "c2", "eth0", &ips)
        .expect("ADD in another subnet");
    assert_eq!(text(&result, "ips/0/gateway"), "10.53.0.1");
    let _web = Echo::tcp(&host.container("c2"), "c2", 80);
    assert_eq!(
        host.container("c1").tcp(ip("10.53.0.5"), 80).by(),
        Some("c2"),
        "by the host"
    );
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(
        host.container("c2").tcp(addr::OUTSIDE4, 90).source(),
        Some(addr::HOST4)
    );
    drop(_web);
    for id in ["c1", "c2"] {
        runtime.del(&first, id, "eth0", &no()).expect("DEL");
    }
    // Other settings with nobody on it: made anew.
    let mut bare = list(
        "1.0.0",
        &json!({"ipam": {}, "isGateway": false, "ipMasq": false}),
    );
    bare["plugins"][0]["bridge"] = json!("cni6");
    for id in ["c1", "c2"] {
        let result = runtime
            .add(&bare, id, "eth0", &no())
            .expect("ADD without addresses");
        assert!(
            result.get("ips").is_none() && result["interfaces"][2]["name"] == "eth0",
            "{result}"
        );
    }
    assert!(!host.netns().interfaces().contains(&"cni7".to_owned()));
    host.sh("ip -n c1 addr add 192.0.2.1/25 dev eth0; ip -n c2 addr add 192.0.2.2/25 dev eth0");
    assert_eq!(
        host.container("c1").ping(ip("192.0.2.2")),
        Answer::Replied,
        "who numbers himself"
    );
    assert_eq!(
        code(runtime.add(&first, "c1", "eth9", &no())),
        101,
        "in use with other settings"
    );
    for id in ["c1", "c2"] {
        runtime.del(&bare, id, "eth0", &no()).expect("DEL");
    }
    host.sh("ip netns del c1; ip netns del c2");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "fixed addresses");
}

#[test]
fn a_network_gets_ipv6_while_a_container_is_on_it() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let of = |ranges: Value| {
        list(
            "1.0.0",
            &json!({"isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": ranges}}),
        )
    };
    let first = of(json!([[{"subnet": "10.44.0.0/24"}]]));
    let both = of(json!([[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd44::/64"}]]));
    runtime.netns("old");
    runtime.netns("new");
    runtime.add(&first, "old", "eth0", &no()).expect("ADD");
    let result = runtime.add(&both, "new", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "ips/1/address"), "fd44::2/64");
    runtime.check(&first, "old", "eth0", &no()).expect("CHECK");
    runtime.check(&both, "new", "eth0", &no()).expect("CHECK");
    assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
    let link_local = host.netns().ip_json("-6 addr show dev cni7 scope link");
    assert_eq!(link_local, json!([]), "as on a network made with IPv6");
    let (old, new) = (host.container("old"), host.container("new"));
    let _web = Echo::tcp(&new, "new", 80);
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(old.tcp(ip("10.44.0.3"), 80).by(), Some("new"));
    assert_eq!(host.netns().tcp(ip("fd44::2"), 80).by(), Some("new"));
    for v6 in [false, true] {
        let source = new.tcp(addr::outside(v6), 90).source();
        assert_eq!(source, Some(addr::host(v6)));
    }
    assert!(old.tcp(addr::OUTSIDE4, 90).reached());
    drop((_web, _out));
    for (list, id) in [(&first, "old"), (&both, "new")] {
        runtime.del(list, id, "eth0", &no()).expect("DEL");
    }
    host.sh("ip netns del old; ip netns del new");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "a further family");
}

#[test]
fn pods_may_have_addresses_that_were_reserved() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list(
        "1.0.0",
        &json!({"isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "240.10.0.0/16"}]]}}),
    );
    for id in ["a", "b"] {
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &no()).expect("ADD");
        runtime.check(&list, id, "eth0", &no()).expect("CHECK");
    }
    let (a, b) = (host.container("a"), host.container("b"));
    let _web = Echo::tcp(&b, "b", 80);
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(a.tcp(ip("240.10.0.3"), 80).by(), Some("b"));
    assert_eq!(a.tcp(addr::OUTSIDE4, 90).source(), Some(addr::HOST4));
    drop((_web, _out));
    for id in ["a", "b"] {
        runtime.del(&list, id, "eth0", &no()).expect("DEL");
    }
}
