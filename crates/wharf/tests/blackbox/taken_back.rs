//! The store is lost and made again from the kernel, which does not tell whose containers and networks are. Their
//! owners take them back.

use crate::cni_runtime::*;
use crate::common::*;
use crate::netavark::{bridge, input, namespaces, publish, setup, teardown};
use serde_json::{Value, json};
use wharf_testkit::{Echo, Host, Snapshot, addr, require};

fn lose_the_store(host: &Host) {
    let dir = host.state_dir().display().to_string();
    host.sh(&format!("rm -r /run/wharf/db; rm -rf {dir}/db"));
    host.w("repair --rebuild").ok();
}

#[test]
fn podman_takes_its_containers_back() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    let before = Snapshot::of(&host);
    let a = publish(&input("a", 10, &[bridge("one", 1)]), "", 8080, 80);
    let b = input("b", 20, &[bridge("one", 1)]);
    setup(&host, "a", &a);
    lose_the_store(&host);
    let inside = host.container("a");
    let _web = Echo::tcp(&inside, "a", 80);
    assert_eq!(host.outside().tcp(addr::host(false), 8080).by(), Some("a"));
    // The network is Podman's again, and goes with its last container.
    setup(&host, "b", &b);
    assert_eq!(host.outside().tcp(addr::host(true), 8080).by(), Some("a"));
    teardown(&host, "a", &a);
    teardown(&host, "b", &b);
    before.assert_same(&host, "lost and taken back");
}

#[test]
fn a_cni_runtime_takes_its_attachments_back() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    for id in ["c1", "c2"] {
        runtime.netns(id);
    }
    let before = Snapshot::of(&host);
    runtime.add(&list, "c1", "eth0", &Value::Null).expect("ADD");
    lose_the_store(&host);
    runtime
        .check(&list, "c1", "eth0", &Value::Null)
        .expect("CHECK");
    runtime
        .add(&list, "c2", "eth0", &Value::Null)
        .expect("ADD of another");
    runtime.del(&list, "c1", "eth0", &Value::Null).expect("DEL");
    assert_eq!(names(&host.w("ps --json").json()), ["c2"]);
    runtime.del(&list, "c2", "eth0", &Value::Null).expect("DEL");
    host.w("network rm mynet").ok();
    before.assert_same(&host, "lost and taken back");
}

/// A list of what is valid decides about what is the runtime's, and about nothing else.
#[test]
fn gc_after_a_rebuild() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    for id in ["c1", "c2", "mine", "pod"] {
        runtime.netns(id);
    }
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    runtime.add(&list, "c1", "eth0", &ports).expect("ADD c1");
    let without = Snapshot::of(&host);
    runtime.add(&list, "c2", "net1", &Value::Null).expect("ADD");
    host.w("create mine --netns /run/netns/mine --network mynet")
        .ok();
    setup(&host, "pod", &input("pod", 10, &[bridge("one", 1)]));
    lose_the_store(&host);
    runtime.gc(&list, &[("c1", "eth0")]).expect("GC");
    assert_eq!(names(&host.w("ps --json").json()), ["c1", "mine", "pod"]);
    assert_eq!(host.container("c2").interfaces(), ["lo"]);
    for id in ["mine", "pod"] {
        assert_eq!(host.container(id).interfaces().len(), 2, "{id}");
    }
    host.w("rm -f mine pod").ok();
    host.w("network rm one").ok();
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    runtime
        .check(&list, "c1", "eth0", &Value::Null)
        .expect("CHECK");
    without.assert_same(&host, "only what is valid");
    runtime.gc(&list, &[]).expect("GC of all");
    assert_eq!(host.container("c1").interfaces(), ["lo"]);
    assert!(!host.netns().interfaces().contains(&"cni7".to_owned()));
}

/// Nobody made the store again before the list came.
#[test]
fn gc_without_a_store() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    for id in ["c1", "c2", "mine"] {
        runtime.netns(id);
    }
    for id in ["c1", "c2"] {
        runtime.add(&list, id, "eth0", &Value::Null).expect("ADD");
    }
    host.w("create mine --netns /run/netns/mine --network mynet")
        .ok();
    host.sh("rm -r /run/wharf/db");
    runtime.gc(&list, &[("c1", "eth0")]).expect("GC");
    assert_eq!(host.container("c2").interfaces(), ["lo"]);
    for id in ["c1", "mine"] {
        assert_eq!(host.container(id).interfaces().len(), 2, "{id}");
    }
    assert_eq!(names(&host.w("ps --json").json()), ["c1", "mine"]);
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.netns().tcp(ip("10.44.0.2"), 80).by(), Some("c1"));
}
