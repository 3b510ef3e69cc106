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

/// Podman comes for the last time.
#[test]
fn podman_takes_down_what_was_made_again() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    let before = Snapshot::of(&host);
    let a = publish(&input("a", 10, &[bridge("one", 1)]), "", 8080, 80);
    let b = input("b", 20, &[bridge("one", 1)]);
    for mended_first in [true, false] {
        setup(&host, "a", &a);
        setup(&host, "b", &b);
        match mended_first {
            true => lose_the_store(&host),
            false => drop(host.sh("rm -r /run/wharf")),
        }
        teardown(&host, "a", &a);
        assert_eq!(host.container("a").interfaces(), ["lo"]);
        let web = Echo::tcp(&host.container("b"), "b", 80);
        assert_eq!(host.netns().tcp(ip("10.88.1.20"), 80).by(), Some("b"));
        drop(web);
        teardown(&host, "b", &b);
        before.assert_same(&host, "lost and taken down");
    }
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

/// Somebody cleared the run directory, and whoever comes next does not repair first.
#[test]
fn nobody_gets_what_a_living_container_has() {
    require!();
    let host = host();
    network(&host, "mine", 1, "");
    container(&host, "web", "mine", 1, 2, "-p 8080:80");
    let runtime = Runtime::new(&host);
    let list = list("1.1.0", &json!({}));
    for id in ["c1", "c2"] {
        runtime.netns(id);
    }
    runtime.add(&list, "c1", "eth0", &Value::Null).expect("ADD");
    let [_web, _c1] = ["web", "c1"].map(|name| Echo::tcp(&host.container(name), name, 80));
    for flush in ["", "nft flush ruleset"] {
        host.sh(&format!("rm -r /run/wharf; {flush}"));
        let result = runtime.add(&list, "c2", "eth0", &Value::Null).expect("ADD");
        assert_eq!(text(&result, "ips/0/address"), "10.44.0.3/24", "{flush}");
        host.w("create other --network mine").ok();
        assert_eq!(address_of(&host, "other", false), ip("10.88.1.3"));
        assert_eq!(
            names(&host.w("ps --json").json()),
            ["c1", "c2", "other", "web"]
        );
        runtime
            .check(&list, "c1", "eth0", &Value::Null)
            .expect("CHECK");
        assert_eq!(host.netns().tcp(ip("10.44.0.2"), 80).by(), Some("c1"));
        if flush.is_empty() {
            assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
            assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("web"));
            let taken = host.w("create third --network mine -p 8080:80");
            assert!(taken.stderr.contains("web"), "{}", taken.transcript());
            assert_eq!(host.w("repair --dry-run --json").json()["steps"], json!([]));
        }
        runtime.del(&list, "c2", "eth0", &Value::Null).expect("DEL");
        host.w("rm other").ok();
    }
}

/// As it was handed out twice by a version that did not look. The host's neighbours tell whose it is.
#[test]
fn an_address_of_two_is_told_and_stays_the_firsts() {
    require!();
    let host = host();
    network(&host, "mine", 1, "--bridge wm");
    container(&host, "web", "mine", 1, 2, "");
    container(&host, "app", "mine", 1, 3, "");
    let mac = text(&host.inspect("app"), "networks/0/mac");
    host.sh(&format!(
        "nft add element bridge wharf guard4 '{{ {mac} . 10.88.1.2 }}'
         nft delete element bridge wharf guard4 '{{ {mac} . 10.88.1.3 }}'
         ip neigh del 10.88.1.3 dev wm; rm -r /run/wharf"
    ));
    let told = host.w("repair --rebuild");
    for word in [
        "10.88.1.2",
        "`web`",
        "`app`",
        "wharf network disconnect mine app",
    ] {
        assert!(told.stderr.contains(word), "{word}: {}", told.transcript());
    }
    host.w("network disconnect mine app").ok();
    host.w("network connect mine app").ok();
    let own = address_of(&host, "app", false);
    assert_ne!(own, ip("10.88.1.2"));
    let taken = host.w("create third --network mine --ip 10.88.1.2");
    assert!(taken.stderr.contains("web"), "{}", taken.transcript());
    let _web = Echo::tcp(&host.container("web"), "web", 80);
    assert_eq!(host.netns().tcp(ip("10.88.1.2"), 80).by(), Some("web"));
}

/// What is forbidden stays forbidden: the rules tell it. Networks without containers are there too.
#[test]
fn networks_are_rebuilt_as_closed_as_they_were() {
    require!();
    let host = host();
    let bare = Snapshot::of(&host);
    for options in [
        "inner --internal --subnet 10.51.0.0/24",
        "none -o host-access=none --subnet 10.52.0.0/24",
        "dns -o host-access=dns --subnet 10.53.0.0/24",
        "open -o isolate=false --subnet 10.54.0.0/24",
        "empty --icc=false --subnet 10.55.0.0/24",
        "plain --masquerade=false --subnet 10.56.0.0/24",
    ] {
        host.w(&format!("network create {options}")).ok();
    }
    for network in ["inner", "none", "dns"] {
        host.w(&format!("create in-{network} --network {network}"))
            .ok();
    }
    let before = Snapshot::of(&host);
    lose_the_store(&host);
    before.assert_same(&host, "rebuilt");
    host.w("network create more --subnet 10.57.0.0/24").ok();
    host.w("network rm more").ok();
    before.assert_same(&host, "with a change more");
    host.w("rm -f in-inner in-none in-dns").ok();
    host.w("network rm inner none dns open empty plain").ok();
    bare.assert_same(&host, "rebuilt and removed");
}

/// Forwarding of one family, and from one link, was on before wharf came: that is as it was, and stays so.
#[test]
fn what_the_host_forwarded_before_is_known_without_the_store() {
    require!();
    let host = host();
    host.sh("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.conf.up0.forwarding=1");
    let bare = Snapshot::of(&host);
    network(&host, "A", 1, "");
    container(&host, "c", "A", 1, 11, "");
    let before = Snapshot::of(&host);
    for rebuild in [false, true] {
        match rebuild {
            true => lose_the_store(&host),
            false => drop(host.sh("rm -r /run/wharf")),
        }
        let shown = host.w("repair --dry-run --json").ok().json();
        assert_eq!(shown["steps"], json!([]), "{shown:#}");
        before.assert_same(&host, "the store was lost");
    }
    remove(&host, &["c"], &["A"]);
    bare.assert_same(&host, "removed");
}

/// A network may have several subnets of one family.
#[test]
fn further_subnets_are_known_without_the_store() {
    require!();
    let host = host();
    let runtime = Runtime::new(&host);
    let ranges = json!([[{"subnet": "10.45.0.0/24"}], [{"subnet": "10.46.0.0/24"}]]);
    let list = list(
        "1.1.0",
        &json!({"hairpinMode": false, "ipam": {"type": "host-local", "ranges": ranges}}),
    );
    for id in ["c1", "c2"] {
        runtime.netns(id);
    }
    runtime.add(&list, "c1", "eth0", &Value::Null).expect("ADD");
    // Somebody else's.
    host.sh("ip addr add 10.47.0.1/24 dev cni7");
    let before = Snapshot::of(&host);
    lose_the_store(&host);
    before.assert_same(&host, "rebuilt");
    runtime
        .add(&list, "c2", "eth0", &Value::Null)
        .expect("ADD of another");
    let far = host.container("c2").ping(ip("10.46.0.2"));
    assert!(far.reached());
    for id in ["c1", "c2"] {
        runtime.del(&list, id, "eth0", &Value::Null).expect("DEL");
    }
}

/// The rules of a host are taken over without any network, and somebody flushes them.
#[test]
fn a_network_is_made_where_nothing_is_left_but_the_memory_of_rules() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    let state = host.state_dir().display().to_string();
    host.sh(&format!(
        "rm -r /run/wharf/db {state}/db; ip link del wharf-a"
    ));
    host.w("ps").ok();
    host.sh("nft flush ruleset");
    network(&host, "B", 2, "");
    container(&host, "b", "B", 2, 11, "");
    assert!(host.container("b").ping(addr::OUTSIDE4).reached());
}
