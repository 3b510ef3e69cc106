//! A runtime that dies, plugins that are killed, a host that restarts: `DEL` and `GC` leave exactly what is valid.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use wharf_testkit::{Echo, Snapshot, addr, require};

fn no() -> Value {
    Value::Null
}

/// The configuration of the only plugin of a list, for calls by hand.
fn conf(list: &Value) -> Value {
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]});
    conf
}

/// Kills a call after every delay up to the time it takes; what `mend` does then succeeds, and leaves nothing.
#[track_caller]
fn kill_at_all_moments(verb: &str, mend: impl Fn(&Runtime, &Value, &Value)) {
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    let conf = conf(&list);
    runtime.netns("other");
    runtime
        .add(&list, "other", "eth0", &no())
        .expect("ADD of another");
    runtime.netns("c1");
    let with_other = Snapshot::of(&host);
    for step in 0..50 {
        let delay = Duration::from_micros(180 * step);
        if verb == "DEL" {
            runtime
                .call("ADD", "c1", "/run/netns/c1", "eth0", &conf)
                .expect("ADD");
        }
        let mut running = runtime
            .command(verb, "c1", "/run/netns/c1", "eth0", &conf)
            .spawn();
        thread::sleep(delay);
        running.signal(9);
        let _ = running.wait();
        mend(&runtime, &list, &conf);
        let difference = with_other.difference_on(&host);
        assert!(
            difference.is_empty(),
            "killed after {delay:?}, then mended:\n{difference}"
        );
        assert_eq!(
            names(&host.w("ps --json").json()),
            ["other"],
            "after {delay:?}"
        );
    }
    runtime
        .check(&list, "other", "eth0", &no())
        .expect("CHECK of the other");
    runtime
        .del(&list, "other", "eth0", &no())
        .expect("DEL of the other");
    host.sh("ip netns del c1; ip netns del other");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "fifty kills");
}

#[test]
fn a_killed_add_then_del() {
    require!();
    kill_at_all_moments("ADD", |runtime, _, conf| {
        runtime
            .call("DEL", "c1", "/run/netns/c1", "eth0", conf)
            .expect("DEL");
    });
}

#[test]
fn a_killed_add_then_gc() {
    require!();
    kill_at_all_moments("ADD", |runtime, list, _| {
        runtime.gc(list, &[("other", "eth0")]).expect("GC");
    });
}

#[test]
fn a_killed_del_then_del_or_gc() {
    require!();
    kill_at_all_moments("DEL", |runtime, _, conf| {
        runtime.call("DEL", "c1", "", "eth0", conf).expect("DEL");
    });
    kill_at_all_moments("DEL", |runtime, list, _| {
        runtime.gc(list, &[("other", "eth0")]).expect("GC");
    });
}

#[test]
fn what_is_gone_by_itself_is_no_failure() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    let conf = conf(&list);
    let add = |id: &str| {
        runtime.netns(id);
        runtime
            .call("ADD", id, &netns_of(id), "eth0", &conf)
            .expect("ADD")
    };
    let del = |id: &str| {
        runtime
            .call("DEL", id, &netns_of(id), "eth0", &conf)
            .unwrap_or_else(|e| panic!("DEL {id}: {e}"))
    };
    // The namespace.
    add("a");
    host.sh("ip netns del a");
    del("a");
    // The interface.
    add("b");
    host.sh("ip -n b link del eth0");
    del("b");
    // The rules.
    add("c");
    host.sh("nft flush ruleset");
    del("c");
    // The bridge.
    add("d");
    host.sh("ip link del cni7");
    del("d");
    // The network, by force.
    add("e");
    host.w("network rm -f mynet").ok();
    del("e");
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
    // All at once, found by GC.
    add("f");
    host.sh("ip netns del f; ip link del cni7; nft flush ruleset");
    runtime.gc(&list, &[]).expect("GC");
    host.sh("for n in b c d e; do ip netns del $n; done");
    before.assert_same(&host, "losses");
}

#[test]
fn without_its_store_a_cable_is_known_by_its_mark() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    for id in ["a", "b", "c"] {
        runtime.netns(id);
        runtime.add(&list, id, "eth0", &no()).expect("ADD");
    }
    host.sh("rm -rf /run/wharf");
    runtime.del(&list, "a", "eth0", &no()).expect("DEL");
    assert_eq!(host.container("a").interfaces(), ["lo"]);
    assert_eq!(
        host.container("b").interfaces().len(),
        2,
        "only what was asked for"
    );
    runtime.gc(&list, &[]).expect("GC");
    for id in ["b", "c"] {
        assert_eq!(host.container(id).interfaces(), ["lo"]);
    }
    host.sh("ip netns del a; ip netns del b; ip netns del c");
    host.w("network prune").ok();
    before.assert_same(&host, "a lost store");
}

#[test]
fn a_restarted_host_has_all_its_addresses() {
    require!();
    let host = host();
    let few = json!({"ipam": {"type": "host-local", "subnet": "10.44.0.0/30"}});
    let list = list("1.1.0", &few);
    {
        let runtime = Runtime::new(&host);
        runtime.netns("a");
        runtime.add(&list, "a", "eth0", &no()).expect("ADD");
        runtime.netns("b");
        assert_eq!(
            code(runtime.add(&list, "b", "eth0", &no())),
            101,
            "there is one address"
        );
    }
    let host = host.reboot();
    let runtime = Runtime::new(&host);
    // The runtime clears up by names of before, or does not.
    runtime.del(&list, "z", "eth0", &no()).expect("DEL");
    runtime.netns("c");
    let result = runtime.add(&list, "c", "eth0", &no()).expect("ADD");
    assert_eq!(text(&result, "ips/0/address"), "10.44.0.2/30");
    runtime.gc(&list, &[("c", "eth0")]).expect("GC");
    let _web = Echo::tcp(&host.container("c"), "c", 80);
    assert_eq!(host.netns().tcp(ip("10.44.0.2"), 80).by(), Some("c"));
    assert!(!host.outside().tcp_brief(addr::HOST4, 80).reached());
}

#[test]
fn a_further_container_comes_onto_a_network_whose_store_is_lost() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.0.0", &json!({}));
    for id in ["a", "b"] {
        runtime.netns(id);
    }
    runtime.add(&list, "a", "eth0", &Value::Null).expect("ADD");
    host.sh("rm -rf /run/wharf");
    std::fs::remove_dir_all(host.state_dir()).expect("both stores are lost");
    let result = runtime.add(&list, "b", "eth0", &Value::Null).expect("ADD");
    assert_ne!(text(&result, "ips/0/address"), "10.44.0.2/24");
    for id in ["a", "b"] {
        let checked = runtime.check(&list, id, "eth0", &Value::Null);
        checked.unwrap_or_else(|e| panic!("{id}: {e}"));
        runtime.del(&list, id, "eth0", &Value::Null).expect("DEL");
    }
}
