//! The topology file in TOML and YAML, and its comparison with what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use wharf_core::attach::Container;
use wharf_core::network::{HostFacts, resolve};
use wharf_core::topology::{
    ContainerChange, Topology, container_changes, network_differences, network_matches,
};

const TOML: &str = r#"
[networks.blue]
subnets = ["172.18.0.0/16", "fd00:18::/64"]
gateway = "172.18.0.1"
ip_range = "172.18.4.0/24"
mtu = 1400
icc = false
options = { "host-access" = "dns", metric = 100 }

[networks.back]
internal = true

[containers.web]
networks = ["blue:ip=172.18.0.10", "back"]
ports = ["5005:5000", "127.0.0.1:53:53/udp"]

[containers.db]
netns = "/run/netns/db"

[containers.db.networks.back]
gw-priority = 3
aliases = "sql"
"#;

const YAML: &str = "
networks:
  blue:
    subnet: [172.18.0.0/16, 'fd00:18::/64']
    gateways: [172.18.0.1]
    ip-range: 172.18.4.0/24
    mtu: 1400
    icc: false
    options:
      host-access: dns
      metric: 100
  back:
    internal: true
containers:
  web:
    networks: ['blue:ip=172.18.0.10', back]
    ports:
      - 5005:5000
      - 127.0.0.1:53:53/udp
  db:
    netns: /run/netns/db
    networks:
      back:
        gw_priority: 3
        aliases: [sql]
";

fn toml(text: &str) -> Topology {
    toml::from_str(text).unwrap()
}

fn place(text: &str) -> String {
    toml(text).into_requests().unwrap_err().to_string()
}

#[test]
fn toml_and_yaml_say_the_same() {
    let (mut networks, mut containers) = toml(TOML).into_requests().unwrap();
    let yaml: Topology = serde_saphyr::from_str(YAML).unwrap();
    let (mut networks2, mut containers2) = yaml.into_requests().unwrap();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks2.sort_by(|a, b| a.name.cmp(&b.name));
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    containers2.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!((&networks, &containers), (&networks2, &containers2));
    assert_eq!(networks[1].options["metric"], "100");
    assert_eq!(containers[0].networks[0].gw_priority, 3);
    assert_eq!(containers[1].networks[0].ips[0].to_string(), "172.18.0.10");
    assert_eq!(containers[1].ports.len(), 2);
}

#[test]
fn nothing_is_a_default() {
    let yaml: Topology = serde_saphyr::from_str(
        "networks:\n  blue:\ncontainers:\n  web:\n  db:\n    networks:\n      blue:\n",
    )
    .unwrap();
    let (networks, containers) = yaml.into_requests().unwrap();
    assert_eq!((networks.len(), containers.len()), (1, 2));
    assert_eq!(containers[1].networks[0].network.as_str(), "blue");
}

#[test]
fn errors_name_their_place() {
    for (text, start) in [
        (
            "[networks.blue]\nsubnet = '10.0.0/8'",
            "networks.blue.subnet: ",
        ),
        ("[networks.blue]\nmtu = 'big'", "networks.blue.mtu: "),
        ("[networks.blue]\nicc = 'maybe'", "networks.blue.icc: "),
        ("[networks.'b/d']", "networks: "),
        (
            "[networks.blue]\noptions.colour = 'red'",
            "networks.blue.options: ",
        ),
        ("[containers.web]\nports = ['80']", "containers.web.ports: "),
        ("[containers.web]\nports = [80]", "containers.web.ports: "),
        (
            "[containers.web]\nnetworks = ['a', 'a']",
            "containers.web.networks: ",
        ),
        (
            "[containers.web.networks.a]\nmac = 'x'",
            "containers.web.networks.a.mac: ",
        ),
        ("[containers.web]\nnetns = 'web'", "containers.web.netns: "),
        (
            "[containers.a]\nports = ['80:80']\n[containers.b]\nports = ['80:81']",
            "containers.b.ports: ",
        ),
        (
            "[containers.a]\nnetworks = ['n:ip=10.0.0.2']\n[containers.b]\nnetworks = ['n:ip=10.0.0.2']",
            "containers.b.networks.n: ",
        ),
    ] {
        let error = place(text);
        assert!(error.starts_with(start), "{text}\n{error}");
    }
    for unknown in [
        "[network.blue]",
        "[networks.blue]\nsubnett = '10.0.0.0/8'",
        "[containers.web]\nprots = []",
    ] {
        let error = toml::from_str::<Topology>(unknown).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}

#[test]
fn what_was_made_from_a_request_matches_it() {
    let (networks, _) = toml(TOML).into_requests().unwrap();
    let host = HostFacts {
        id: [7; 32],
        ..HostFacts::default()
    };
    for request in &networks {
        let spec = resolve(request, &[], &host).unwrap();
        assert!(network_matches(request, &spec));
        let mut other = request.clone();
        other.mtu = Some(1399);
        other.subnets.retain(|s| s.addr().is_ipv6());
        other.subnets.push("10.9.0.0/24".parse().unwrap());
        let keys: Vec<_> = network_differences(&other, &spec)
            .iter()
            .map(|d| d.key)
            .collect();
        assert_eq!(keys, ["subnet", "mtu"]);
    }
}

/// What a file once said and says no longer is a difference too, where a network has a value all the same.
#[test]
fn a_key_that_was_dropped_is_a_difference() {
    let text = "[networks.a]\nsubnet = \"10.1.0.0/24\"\nip-range = \"10.1.0.0/25\"\nipv6 = true\nicc = false\n\
                masquerade = false\nmtu = 1400\nbridge = \"bra\"\ngateway = \"10.1.0.9\"\n\
                labels = { l = \"m\" }\noptions = { isolate = \"false\", hairpin = true }\n";
    let request = |text: &str| toml(text).into_requests().unwrap().0.remove(0);
    let host = HostFacts {
        id: [7; 32],
        ..HostFacts::default()
    };
    let mut spec = resolve(&request(text), &[], &host).unwrap();
    // wharf's own marks are not the file's.
    let mark = ("wharf.rebuilt".to_owned(), "true".to_owned());
    spec.labels.extend([mark]);
    let keys = |text: &str| {
        let found = network_differences(&request(text), &spec);
        found.iter().map(|d| d.key).collect::<Vec<_>>()
    };
    for (dropped, expected) in [
        ("nothing", vec![]),
        ("ip-range = \"10.1.0.0/25\"\n", vec!["ip-range"]),
        ("ipv6 = true\n", vec!["ipv6"]),
        ("icc = false\n", vec!["icc"]),
        ("masquerade = false\n", vec!["masquerade"]),
        ("labels = { l = \"m\" }\n", vec!["labels"]),
        ("isolate = \"false\", ", vec!["options"]),
        // wharf's choice where it is left open.
        ("mtu = 1400\n", vec![]),
        ("bridge = \"bra\"\n", vec![]),
        ("gateway = \"10.1.0.9\"\n", vec![]),
    ] {
        assert_eq!(keys(&text.replace(dropped, "")), expected, "{dropped}");
    }
    let otherwise_said = text
        .replace("icc = false\n", "")
        .replace("hairpin = true", "hairpin = \"1\", icc = false");
    assert_eq!(keys(&otherwise_said), Vec::<&str>::new());
}

/// The order of networks chooses the default route: it is the file's in both formats.
#[test]
fn networks_keep_the_order_of_the_file() {
    let inline = "[containers.db]\nnetworks = { green = {}, blue = {} }\n";
    let tables = "[containers.db.networks.green]\n[containers.db.networks.blue]\n";
    let yaml = serde_saphyr::from_str("containers: {db: {networks: {green: , blue: }}}").unwrap();
    for topology in [toml(inline), toml(tables), yaml] {
        let (_, containers) = topology.into_requests().unwrap();
        let all = containers[0].networks.iter();
        let names: Vec<_> = all.map(|r| r.network.as_str()).collect();
        assert_eq!(names, ["green", "blue"]);
    }
    let (networks, _) = toml("[networks.z]\n[networks.a]\n")
        .into_requests()
        .unwrap();
    assert_eq!(networks[0].name.as_str(), "z");
}

/// Text in a YAML file stays what it is; where a list may stand, what is not text must be quoted.
#[test]
fn names_in_yaml_are_text() {
    let text = "{networks: {n: {labels: {v: 1.0, on: off}}, 010: {icc: True}, yes: },
                 containers: {no: {networks: [n, 010]}, 1.10: {networks: {yes: {alias: [off]}}}}}";
    let topology: Topology = serde_saphyr::from_str(text).unwrap();
    let (networks, containers) = topology.into_requests().unwrap();
    let names: Vec<_> = networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["n", "010", "yes"]);
    assert_eq!(networks[0].labels["v"], "1.0");
    assert_eq!(networks[0].labels["on"], "off");
    assert_eq!(networks[1].icc, Some(true));
    let names: Vec<_> = containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["no", "1.10"]);
    assert_eq!(containers[0].networks[1].network.as_str(), "010");
    assert_eq!(containers[1].networks[0].aliases, ["off"]);
    for bad in ["n", "010", "1.0"] {
        let text = format!("containers: {{c: {{networks: {bad}}}}}");
        let error = serde_saphyr::from_str::<Topology>(&text).unwrap_err();
        assert!(error.to_string().contains("write it in quotes"), "{error}");
    }
    let error = toml::from_str::<Topology>("[networks.a.labels]\nv = 1.10\n").unwrap_err();
    assert!(error.to_string().contains("write it in quotes"), "{error}");
    let topology: Topology = serde_saphyr::from_str("networks: {a: {icc: yes}}").unwrap();
    let error = topology.into_requests().unwrap_err().to_string();
    assert_eq!(error, "networks.a.icc: `yes` is not true or false");
}

#[test]
fn a_container_as_asked_for_needs_no_change() {
    let container: Container = serde_json::from_value(serde_json::json!({
        "name": "web", "id": "0", "owner": "cli", "process": null, "created": 0,
        "netns": {"path": "/run/netns/web", "identity": null, "made_by_wharf": true},
        "attachments": [{
            "network": "blue", "interface": "eth0", "host_interface": "v0",
            "mac": "02:00:00:00:00:01", "addresses": ["172.18.0.10/16"],
            "gateways": ["172.18.0.1"], "default_routes": ["v4"], "gw_priority": 0,
            "phase": "active"
        }],
        "ports": [{"host_ip": null, "host": "5005", "container": "5000", "protocol": "tcp"}]
    }))
    .unwrap();
    let changes = |text: &str| {
        let (_, specs) = toml(text).into_requests().unwrap();
        container_changes(&specs[0], &container, |_| None)
    };
    let web = |rest: &str| format!("[containers.web]\n{rest}");
    for same in [
        "networks = ['blue']\nports = ['5005:5000']",
        "networks = ['blue:ip=172.18.0.10,interface=eth0']\nports = ['5005:5000/tcp']\nnetns = '/run/netns/web'",
    ] {
        assert_eq!(changes(&web(same)), [], "{same}");
    }
    let other = changes(&web(
        "networks = ['blue:ip=172.18.0.11', 'red']\nports = ['80:80']",
    ));
    assert!(matches!(
        other.as_slice(),
        [
            ContainerChange::PortRemove(_),
            ContainerChange::Disconnect(_, None),
            ContainerChange::Connect(_),
            ContainerChange::Connect(_),
            ContainerChange::PortAdd(_),
        ]
    ));
    let moved = changes(&web("networks = ['blue']\nnetns = '/run/netns/other'"));
    assert!(matches!(moved.as_slice(), [ContainerChange::Netns(_)]));
}

/// Order, priorities, further names and labels change without a cable being pulled, and come back as they were.
#[test]
fn the_order_of_networks_is_a_change_of_its_own() {
    let attachment = |network: &str, interface: &str, n: u8| {
        serde_json::json!({
            "network": network, "interface": interface, "host_interface": format!("v{n}"),
            "mac": format!("02:00:00:00:00:0{n}"), "addresses": [format!("10.{n}.0.10/16")],
            "gateways": [format!("10.{n}.0.1")], "default_routes": [], "gw_priority": 0,
            "phase": "active"
        })
    };
    let container = |made_by_wharf: bool| -> Container {
        serde_json::from_value(serde_json::json!({
            "name": "web", "id": "0", "owner": "cli", "process": null, "created": 0,
            "netns": {"path": "/run/netns/web", "identity": null, "made_by_wharf": made_by_wharf},
            "attachments": [attachment("b", "eth1", 1), attachment("a", "eth0", 2)],
            "ports": [], "labels": {"wharf.rebuilt": "1", "team": "x"}
        }))
        .unwrap()
    };
    let changes = |rest: &str, made_by_wharf| {
        let text = format!("[containers.web]\nlabels = {{ team = 'x' }}\n{rest}");
        let (_, specs) = toml(&text).into_requests().unwrap();
        container_changes(&specs[0], &container(made_by_wharf), |_| None)
    };
    let order = |places: &[wharf_core::attach::Place]| -> String {
        let names = places.iter().map(|p| p.network.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(changes("networks = ['b', 'a']", true), []);
    for (text, wanted) in [
        ("networks = ['a', 'b']", "a b"),
        ("networks = ['b:gw-priority=2', 'a']", "b a"),
        ("networks = ['b', 'a:alias=x']", "b a"),
    ] {
        let found = changes(text, true);
        let [ContainerChange::Arrange { from, to }] = found.as_slice() else {
            panic!("{text}: {found:?}");
        };
        assert_eq!((order(from).as_str(), order(to).as_str()), ("b a", wanted));
    }
    // Who leaves comes back by the number of his interface: the order from before is to be made again.
    let found = changes("networks = ['b:ip=10.1.0.11', 'a']", true);
    let [
        ContainerChange::Disconnect(_, Some(back)),
        ContainerChange::Connect(_),
        ContainerChange::Arrange { from, to },
    ] = found.as_slice()
    else {
        panic!("{found:?}");
    };
    assert_eq!(
        (order(back), order(from), order(to)),
        ("b a".into(), "a b".into(), "b a".into())
    );
    let found = changes("networks = ['b', 'a:ip=10.2.0.11']", true);
    assert!(
        matches!(
            found.as_slice(),
            [
                ContainerChange::Disconnect(_, Some(_)),
                ContainerChange::Connect(_),
                ContainerChange::Arrange { .. }
            ]
        ),
        "{found:?}"
    );
    // A further network comes last by itself.
    let found = changes("networks = ['b', 'a', 'c']", false);
    assert!(
        matches!(found.as_slice(), [ContainerChange::Connect(_)]),
        "{found:?}"
    );
}
