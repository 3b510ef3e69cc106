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
