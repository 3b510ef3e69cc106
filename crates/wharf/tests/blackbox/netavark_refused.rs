//! What cannot be set up as `netavark`: one clear error, and everything as it was.

use crate::common::*;
use crate::netavark::*;
use serde_json::{Value, json};
use wharf_testkit::{Answer, Snapshot, require};

#[test]
fn a_setup_that_fails_leaves_everything_as_it_was() {
    require!();
    let host = host();
    namespaces(&host, &["a", "b"]);
    let (one, two) = (bridge("one", 1), bridge("two", 2));
    let before = Snapshot::of(&host);
    let path = "/run/netns/a";
    let case = |what: &str, args: &[&str], input: &Value, says: &str| {
        let said = refused(call(&host, args, input));
        assert!(said.contains(says), "{what}: {said}");
        before.assert_same(&host, what);
    };
    let good = input("a", 10, &[one.clone(), two.clone()]);
    case(
        "no namespace",
        &["setup", "/run/netns/nope"],
        &good,
        "invalid namespace path: IO error: No such file or directory (os error 2)",
    );
    case(
        "no fields",
        &["setup", path],
        &json!({"a": 1}),
        "failed to load network options: IO error: missing field `container_id` at line 1 column 7",
    );
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut input = good.clone();
        edit(&mut input);
        input
    };
    type Case<'c> = (&'c str, &'c dyn Fn(&mut Value), &'c str);
    let cases: [Case; 9] = [
        (
            "address outside",
            &|i| i["networks"]["two"]["static_ips"] = json!(["10.99.0.1"]),
            "not all static IPs matched a subnet: expected 1, got 0",
        ),
        (
            "gateway's address",
            &|i| i["networks"]["two"]["static_ips"] = json!(["10.88.2.1"]),
            "10.88.2.1",
        ),
        (
            "no address",
            &|i| i["networks"]["two"]["static_ips"] = json!([]),
            "no static ips",
        ),
        (
            "no interface name",
            &|i| i["networks"]["two"]["interface_name"] = json!(""),
            "no name",
        ),
        (
            "one name twice",
            &|i| i["networks"]["two"]["interface_name"] = json!("eth0"),
            "eth0",
        ),
        (
            "overlap",
            &|i| {
                i["network_info"]["two"]["subnets"][0] = json!({"subnet": "10.88.1.0/24"});
                i["networks"]["two"]["static_ips"][0] = json!("10.88.1.11");
            },
            "overlaps",
        ),
        (
            "host's own subnet",
            &|i| {
                i["network_info"]["two"]["subnets"][0] = json!({"subnet": "10.0.2.0/24"});
                i["networks"]["two"]["static_ips"][0] = json!("10.0.2.11");
            },
            "overlaps",
        ),
        (
            "no definition",
            &|i| i["network_info"] = json!({}),
            "no definition",
        ),
        (
            "unknown driver",
            &|i| i["network_info"]["two"]["driver"] = json!("frob"),
            "plugin directory not provided",
        ),
    ];
    for (what, edit, says) in cases {
        case(what, &["setup", path], &edited(edit), says);
    }
    for (key, value) in [
        ("vlan", "7"),
        ("vlan", "4095"),
        ("vrf", "blue"),
        ("frob", "1"),
        ("isolate", "perhaps"),
        ("mode", "odd"),
    ] {
        let input = edited(&|i| i["network_info"]["two"]["options"] = json!({key: value}));
        case(
            key,
            &["setup", path],
            &input,
            if key == "mode" { "odd" } else { key },
        );
    }
    let ipam = |driver: &str| {
        edited(&|i| i["network_info"]["two"]["ipam_options"] = json!({"driver": driver}))
    };
    case(
        "someDriver",
        &["setup", path],
        &ipam("someDriver"),
        "unsupported ipam driver someDriver",
    );
    host.sh("ip -n a link add eth1 type bridge");
    let there = Snapshot::of(&host);
    let said = refused(call(&host, &["setup", path], &good));
    assert!(said.contains("eth1"), "{said}");
    there.assert_same(&host, "an interface that is there");
    host.sh("ip -n a link del eth1");
    let dhcp = edited(&|i| i["network_info"]["two"]["ipam_options"] = json!({"driver": "dhcp"}));
    case("dhcp", &["setup", path], &dhcp, "mode=unmanaged");

    host.sh("ip link add podman2 type bridge; ip link add port7 master podman2 type veth peer name port8");
    let foreign = Snapshot::of(&host);
    let said = refused(call(&host, &["setup", path], &good));
    assert!(said.contains("ip link del podman2"), "{said}");
    teardown(&host, "a", &good);
    foreign.assert_same(&host, "a bridge that is not wharf's");
    host.sh("ip link del podman2; ip link del port7");

    setup(&host, "a", &good);
    let up = Snapshot::of(&host);
    let said = refused(call(&host, &["setup", path], &good));
    assert!(said.contains("already"), "{said}");
    let taken = refused(call(&host, &["setup", "/run/netns/b"], &{
        let mut other = input("b", 11, std::slice::from_ref(&one));
        other["networks"]["one"]["static_ips"] = json!(["10.88.1.10"]);
        other
    }));
    assert!(taken.contains("10.88.1.10"), "{taken}");
    up.assert_same(&host, "a second setup");
    assert_eq!(host.container("a").ping(at(false, 1, 1)), Answer::Replied);
    teardown(&host, "a", &good);
    before.assert_same(&host, "the setup that worked");
}

#[test]
fn what_setup_refuses_is_not_defined() {
    require!();
    let host = host();
    let network = |options: Value| {
        let mut network = bridge("one", 1);
        network["options"] = options;
        json!({"network": network, "used": {"interfaces": [], "names": {}, "subnets": []},
            "options": {"subnet_pools": [], "default_interface_name": "podman", "check_used_subnets": false}})
    };
    let said = refused(call(&host, &["create"], &network(json!({"vlan": "100"}))));
    assert!(said.contains("vlan"), "{said}");
    let got = call(&host, &["create"], &network(json!({"mtu": "1400"})));
    assert_eq!(got.code, Some(0), "{}", got.transcript());
}

#[test]
fn a_name_on_the_host_that_is_taken_is_told() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    host.sh("ip link add to-a type bridge");
    let before = Snapshot::of(&host);
    let mut a = input("a", 10, &[bridge("one", 1)]);
    a["networks"]["one"]["options"] = json!({"host_interface_name": "to-a"});
    let said = refused(call(&host, &["setup", "/run/netns/a"], &a));
    assert!(
        said.contains("an interface `to-a` exists already"),
        "{said}"
    );
    before.assert_same(&host, "a name that is taken");
}

#[test]
fn a_name_server_that_is_no_program_is_told() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let before = Snapshot::of(&host);
    let mut one = bridge("one", 1);
    one["dns_enabled"] = json!(true);
    let a = input("a", 10, &[one]);
    let said = refused(call_with(&host, "/etc", &["setup", "/run/netns/a"], &a));
    assert!(said.contains("aardvark-dns failed to start"), "{said}");
    before.assert_same(&host, "no program");
}
