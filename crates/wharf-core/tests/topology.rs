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
        other.subnets = vec!["10.9.0.0/24".parse().unwrap()];
        let keys: Vec<_> = network_differences(&other, &spec)
            .iter()
            .map(|d| d.key)
            .collect();
        assert_eq!(keys, ["subnet", "mtu"]);
    }
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
        container_changes(&specs[0], &container)
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
            ContainerChange::Disconnect(_),
            ContainerChange::Connect(_),
            ContainerChange::Connect(_),
            ContainerChange::PortAdd(_),
        ]
    ));
    let moved = changes(&web("networks = ['blue']\nnetns = '/run/netns/other'"));
    assert!(matches!(moved.as_slice(), [ContainerChange::Netns(_)]));
}
