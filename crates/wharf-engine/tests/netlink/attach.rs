//! Networks and containers as they are used.

use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::op::Op;
use wharf_core::topology::Topology;
use wharf_engine::kernel::netlink::NetlinkKernel;
use wharf_engine::kernel::{Kernel, execute};
use wharf_engine::observe::listener_on;

use super::{alone, sh, state, try_sh};

pub const TOPOLOGY: &str = r#"
[networks.net]
subnet = ["172.30.1.0/24", "fd00:30:1::/64"]
[containers.web]
networks = ["net"]
ports = ["8080:80"]
[containers.other]
networks = ["net"]
"#;

/// Somebody outside, at 198.51.100.2; this host is at 198.51.100.1.
pub const OUTSIDE: &str = "
ip netns add outside
ip link add out0 type veth peer name eth0 netns outside
ip addr add 198.51.100.1/24 dev out0; ip link set out0 up
ip -n outside addr add 198.51.100.2/24 dev eth0; ip -n outside link set eth0 up
sysctl -qw net.ipv4.ip_forward=1
";

pub fn desired() -> Vec<Resource> {
    let topology: Topology = toml::from_str(TOPOLOGY).unwrap();
    let mut all = compile::base();
    all.extend(state::state(topology));
    all
}

/// What somebody sees who looks.
fn look() -> String {
    sh(
        "ip -d -o link | sed 's/@if[0-9]*//'; ip -o addr | sed 's/tentative *//; s/valid_lft.*//'; ip route; ip netns; nft list ruleset",
    )
}

#[test]
fn a_published_container_is_reached_and_goes_without_a_trace() {
    if !alone() {
        return;
    }
    sh(OUTSIDE);
    let before = look();
    let all = desired();
    let mut kernel = NetlinkKernel::new();
    execute(&mut kernel, &diff(&all, &[], "")).unwrap();

    let ports = sh("bridge -d link");
    assert_eq!(ports.matches("locked on").count(), 2, "{ports}");
    assert_eq!(ports.matches("learning off").count(), 2, "{ports}");
    assert_eq!(ports.matches("hairpin on").count(), 1, "{ports}");
    let link = sh("ip -d link show veth0-0");
    assert!(link.contains("alias wharf:"), "{link}");
    assert!(link.contains("addrgenmode none"), "{link}");
    assert!(link.contains("numtxqueues 1 numrxqueues 1"), "{link}");
    assert!(link.contains("group 30568"), "{link}");
    let fdb = sh("bridge fdb show dev veth0-0");
    assert!(fdb.contains("master") && fdb.contains("static"), "{fdb}");
    let neigh = sh("ip neigh");
    assert_eq!(neigh.matches("PERMANENT").count(), 4, "{neigh}");
    let route = sh("ip -n web route; ip -n web -6 route; ip -n web -d link");
    assert_eq!(route.matches("default via").count(), 2, "{route}");

    sh("ip netns exec web ping -c1 -W2 172.30.1.1");
    sh("ip netns exec other ping -c1 -W2 172.30.1.2");
    sh("ip netns exec other ping -c1 -W2 fd00:30:1::2");
    sh("ip netns exec web ping -c1 -W2 198.51.100.2");
    let serve = "ip netns exec web socat -T5 TCP-LISTEN:80,fork,reuseaddr SYSTEM:'echo hello' >/dev/null 2>&1 & echo $!";
    let pid = sh(serve);
    let from = |netns: &str, to: &str| {
        sh(&format!(
            "for i in 1 2 3 4 5; do {netns} socat -T2 - TCP:{to},connect-timeout=2 </dev/null && exit 0; sleep 0.2; done; exit 1"
        ))
    };
    assert!(from("ip netns exec outside", "198.51.100.1:8080").contains("hello"));
    assert!(from("", "198.51.100.1:8080").contains("hello"));
    assert!(from("ip netns exec other", "198.51.100.1:8080").contains("hello"));
    assert!(from("ip netns exec web", "198.51.100.1:8080").contains("hello"));
    assert!(!try_sh("ip -n outside route add 172.30.1.0/24 via 198.51.100.1; ip netns exec outside ping -c1 -W1 172.30.1.2").0);
    sh("ip -n outside route del 172.30.1.0/24");
    for (first, last) in [(8080, 8080), (8079, 8081)] {
        sh(
            "ip netns exec outside socat -T1 - TCP:198.51.100.1:8080,connect-timeout=1 </dev/null || true",
        );
        let entries = || sh("conntrack -L -p tcp --orig-port-dst 8080 2>/dev/null");
        assert!(entries().contains("dport=8080"));
        let forget = Op::ConntrackFlush {
            protocol: wharf_core::publish::Protocol::Tcp,
            host_ip: None,
            first,
            last,
        };
        kernel.apply(&[&forget]).unwrap();
        assert_eq!(entries(), "");
    }
    sh(&format!("kill {pid}"));

    execute(&mut kernel, &diff(&[], &all, "")).unwrap();
    drop(kernel);
    assert_eq!(before, look());
}

#[test]
fn what_was_made_is_seen() {
    if !alone() {
        return;
    }
    sh(OUTSIDE);
    sh("ip route add default via 198.51.100.2; ip link set out0 mtu 1400");
    sh(
        "nft 'add table ip x; add chain ip x f { type filter hook forward priority 0; policy drop; }; add chain ip x DOCKER-USER'",
    );
    let all = desired();
    let mut kernel = NetlinkKernel::new();
    execute(&mut kernel, &diff(&all, &[], "")).unwrap();
    let inside = Netns::Path("/run/netns/web".into());
    let links = kernel.links(&Netns::Host).unwrap();
    let bridge = links
        .iter()
        .find(|l| l.kind.as_deref() == Some("bridge"))
        .unwrap();
    assert!(
        bridge.up && bridge.carrier && bridge.mac.is_some(),
        "{bridge:?}"
    );
    let port = kernel.link(&Netns::Host, &"veth0-0".parse().unwrap());
    let port = port.unwrap().unwrap();
    assert_eq!(port.master, Some(bridge.index));
    assert_eq!(port.group, 0x7768);
    assert_eq!(port.kind.as_deref(), Some("veth"));
    assert!(port.alias.unwrap().starts_with("wharf:"));
    assert_eq!(
        kernel
            .link(&Netns::Host, &"nothing".parse().unwrap())
            .unwrap(),
        None
    );
    let addrs = kernel.addrs(&inside).unwrap();
    assert!(
        addrs.iter().any(|(_, a)| a.to_string() == "172.30.1.2/24"),
        "{addrs:?}"
    );
    let routes = kernel.routes(&inside).unwrap();
    let ours = routes.iter().filter(|r| r.protocol == 119).count();
    assert_eq!(ours, 2, "{routes:?}");
    assert_eq!(kernel.default_link().unwrap().map(|l| l.mtu), Some(1400));
    let key = "net/ipv6/conf/eth0/accept_ra";
    assert_eq!(kernel.sysctl(&inside, key).unwrap().as_deref(), Some("0"));
    assert_eq!(kernel.sysctl(&inside, "net/nothing").unwrap(), None);
    let drops = kernel.forward_policy_drops().unwrap();
    assert_eq!(drops.len(), 1);
    assert_eq!(drops[0].table, "x");
    assert!(kernel.has_docker_user().unwrap());
    let socket = std::net::TcpListener::bind("198.51.100.1:8090").unwrap();
    let range = |a, b| wharf_core::publish::PortRange::new(a, b).unwrap();
    let tcp = wharf_core::publish::Protocol::Tcp;
    let found = listener_on(tcp, range(8000, 8100), None).unwrap();
    assert_eq!(found.unwrap().port, 8090);
    let ip = "127.0.0.1".parse().ok();
    assert_eq!(listener_on(tcp, range(8090, 8090), ip).unwrap(), None);
    assert_eq!(kernel.listeners().unwrap().len(), 1);
    drop(socket);
}
