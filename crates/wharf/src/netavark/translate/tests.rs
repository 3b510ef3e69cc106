use serde_json::{Value, json};

use super::*;

fn defined(edit: &dyn Fn(&mut Value)) -> Network {
    let mut value = json!({
        "name": "one", "id": "1".repeat(64), "driver": "bridge", "network_interface": "podman1",
        "subnets": [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}],
        "ipam_options": {"driver": "host-local"},
    });
    edit(&mut value);
    serde_json::from_value(value).unwrap()
}

fn translated(edit: &dyn Fn(&mut Value)) -> Result<NetworkRequest, Failure> {
    network(&defined(edit), &"one".parse().unwrap())
}

#[test]
fn names_are_kept_where_they_can_be() {
    let name = |text: &str| network_names(&defined(&|n| n["name"] = json!(text))).unwrap();
    let names = name("one");
    assert_eq!(
        (names[0].as_str(), names[1].as_str()),
        ("one", "one.111111111111")
    );
    let long = name(&"x".repeat(80));
    assert_eq!(long.len(), 1);
    assert_eq!(long[0].as_str(), format!("{}.111111111111", "x".repeat(40)));
    let known = container_names("web", "abc").unwrap();
    assert_eq!(known[1].as_str(), "web.abc");
    assert!(container_names("", "").is_err());
}

#[test]
fn drivers_options_and_addresses() {
    assert_eq!(translated(&|_| ()).unwrap().driver, Driver::Bridge);
    let mode = |driver: &str, mode: &str| {
        translated(&|n| {
            n["driver"] = json!(driver);
            n["options"] = json!({"mode": mode});
        })
    };
    assert_eq!(
        mode("bridge", "unmanaged").unwrap().driver,
        Driver::Unmanaged
    );
    assert_eq!(
        mode("macvlan", "vepa").unwrap().driver,
        Driver::Macvlan(MacvlanMode::Vepa)
    );
    assert!(mode("bridge", "vepa").is_err() && mode("ipvlan", "l2").is_err());
    let none = translated(&|n| {
        n["subnets"] = Value::Null;
        n["ipam_options"] = json!({"driver": "none"});
    });
    assert!(none.unwrap().subnets.is_empty());
    assert!(translated(&|n| n["subnets"] = json!([])).is_err());
    let inner = translated(&|n| {
        n["internal"] = json!(true);
        n["subnets"] = json!([{"subnet": "10.1.0.0/24"}]);
    });
    let inner = inner.unwrap();
    assert!(inner.gateways.is_empty() && inner.options.values().any(|v| v == "isolated"));
    let unknown = translated(&|n| n["options"] = json!({"frob": "1"})).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "unsupported bridge network option: frob"
    );
}

#[test]
fn routes_that_cannot_be_are_refused() {
    let route = |value: Value| translated(&|n| n["routes"] = json!([value])).map(|r| r.routes);
    let good = json!({"destination": "10.9.0.1/16", "gateway": "10.1.0.9", "metric": 3});
    let read = route(good).unwrap();
    assert_eq!(
        (read[0].destination.to_string().as_str(), read[0].metric),
        ("10.9.0.0/16", Some(3))
    );
    let unreachable = json!({"destination": "10.9.0.0/16", "route_type": "unreachable"});
    assert_eq!(route(unreachable).unwrap()[0].hop, Hop::Unreachable);
    for bad in [
        json!({"destination": "10.9.0.0/16"}),
        json!({"destination": "10.9.0.0/16", "gateway": "fd00::1"}),
        json!({"destination": "10.9.0.0/16", "gateway": "10.1.0.9", "route_type": "blackhole"}),
        json!({"destination": "10.9.0.0/16", "route_type": "odd"}),
    ] {
        assert!(route(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn ports_as_podman_counts_them() {
    let read = |value: Value| {
        let mappings: Vec<input::PortMapping> = serde_json::from_value(value).unwrap();
        ports(&mappings).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let one = |host_ip: &str, host: u16, inside: u16, range: u16, protocol: &str| json!({"host_ip": host_ip, "host_port": host, "container_port": inside, "range": range, "protocol": protocol});
    assert_eq!(
        read(json!([
            one("", 8080, 80, 2, "tcp,udp"),
            one("127.0.0.1", 90, 9, 0, "sctp"),
            one("::", 91, 9, 1, "tcp"),
            one("::1", 92, 9, 1, "tcp"),
        ]))
        .unwrap(),
        [
            "8080-8081:80-81/tcp",
            "8080-8081:80-81/udp",
            "127.0.0.1:90:9/sctp",
            "[::]:91:9/tcp"
        ]
    );
    for bad in [
        one("", 65535, 80, 2, "tcp"),
        one("", 0, 80, 1, "tcp"),
        one("x", 80, 80, 1, "tcp"),
        one("", 80, 80, 1, "icmp"),
    ] {
        assert!(read(json!([bad.clone()])).is_err(), "{bad}");
    }
}
