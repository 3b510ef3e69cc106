//! Limits of speed, settings of interfaces and uncommon routes: by messages and by commands the same.

use wharf_core::diff::diff;
use wharf_core::extras::{Limit, Traits};
use wharf_core::model::{Hop, Link, LinkKind, Netns, Resource, RouteMore};
use wharf_core::name::IfName;
use wharf_engine::kernel::netlink::NetlinkKernel;
use wharf_engine::kernel::script::ScriptKernel;
use wharf_engine::kernel::{Kernel, execute};

use super::{alone, sh};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn inside() -> Netns {
    Netns::Path("/run/netns/in".into())
}

fn resources() -> Vec<Resource> {
    let link = |name: IfName, kind| {
        Resource::Link(Link {
            netns: Netns::Host,
            name,
            kind,
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu: Some(1400),
            master: None,
            group: 0,
            up: true,
        })
    };
    let limit = |rate| Limit {
        rate,
        burst: 200_000,
    };
    let cable = LinkKind::Veth {
        peer: name("eth0"),
        peer_netns: inside(),
        peer_mac: Some("02:00:00:00:00:02".parse().unwrap()),
    };
    let route = |dst: &str, via: Option<&str>, metric, more| Resource::Route {
        netns: inside(),
        dst: dst.parse().unwrap(),
        hop: via.map(|v| v.parse().unwrap()).into(),
        link: name("eth0"),
        metric,
        more,
    };
    let own_table = RouteMore {
        table: Some(1000),
        mtu: Some(1300),
        advmss: Some(1200),
        ..RouteMore::default()
    };
    vec![
        link(name("host0"), cable),
        link(name("round0"), LinkKind::Ifb),
        Resource::Shaper {
            link: name("host0"),
            limit: limit(1_000_000),
        },
        Resource::Shaper {
            link: name("round0"),
            limit: limit(2_000_000_000),
        },
        Resource::Detour {
            from: name("host0"),
            by: name("round0"),
        },
        Resource::Addr {
            netns: inside(),
            link: name("eth0"),
            addr: "10.9.0.2/24".parse().unwrap(),
        },
        Resource::Traits {
            netns: inside(),
            link: name("eth0"),
            traits: Traits {
                promisc: Some(true),
                allmulti: Some(true),
                tx_queue: Some(77),
                mac: Some("02:00:00:00:00:03".parse().unwrap()),
                mtu: Some(1350),
                ..Traits::default()
            },
            before: Traits::default(),
        },
        Resource::Up {
            netns: inside(),
            link: name("eth0"),
        },
        route("0.0.0.0/0", Some("10.9.0.1"), None, RouteMore::default()),
        route("192.0.2.0/24", None, Some(7), RouteMore::default()),
        route("198.51.100.0/24", Some("10.9.0.1"), None, own_table),
    ]
}

/// What somebody sees who looks; the numbers of interfaces differ from time to time.
fn look() -> String {
    sh("for dev in host0 round0; do tc qdisc show dev $dev; tc filter show dev $dev parent ffff: 2>/dev/null; done | sed 's/ index [0-9]*//; s/fh [^ ]* *//g'
        ip -n in -d -o link show dev eth0 | sed 's/@if[0-9]*//; s/^[0-9]*: //'
        ip -n in route show table all type unicast")
}

fn round(kernel: &mut dyn Kernel) -> String {
    sh("ip netns add in");
    let before = sh("ip -o link | wc -l");
    execute(kernel, &diff(&resources(), &[], "")).unwrap();
    let seen = look();
    execute(kernel, &diff(&[], &resources(), "")).unwrap();
    assert_eq!(sh("ip -o link | wc -l"), before, "nothing is left");
    sh("ip netns del in");
    seen
}

#[test]
fn by_messages_and_by_commands() {
    if !alone() {
        return;
    }
    let mut netlink = NetlinkKernel::new();
    netlink.wait_for_deletions(true);
    let messages = round(&mut netlink);
    drop(netlink);
    let commands = round(&mut ScriptKernel::running());
    assert_eq!(messages, commands);
    for word in [
        "rate 8Mbit",
        "rate 16Gbit",
        "burst 200000b",
        "mirred",
        "PROMISC",
        "ALLMULTI",
        "qlen 77",
        "mtu 1350",
        "02:00:00:00:00:03",
        "198.51.100.0/24 via 10.9.0.1 dev eth0 table 1000",
        "mtu 1300 advmss 1200",
        "192.0.2.0/24 dev eth0 proto 119 scope link metric 7",
    ] {
        assert!(messages.contains(word), "{word}: {messages}");
    }
}

#[test]
fn a_second_route_beside_one_that_is_there() {
    if !alone() {
        return;
    }
    sh("ip netns add in; ip -n in link add eth0 type bridge; ip -n in addr add 10.9.0.2/24 dev eth0; ip -n in link set eth0 up
        ip -n in link add eth1 type bridge; ip -n in addr add 10.8.0.2/24 dev eth1; ip -n in link set eth1 up");
    let mut kernel = NetlinkKernel::new();
    for (link, via) in [("eth0", "10.9.0.1"), ("eth1", "10.8.0.1")] {
        let route = Resource::Route {
            netns: inside(),
            dst: "0.0.0.0/0".parse().unwrap(),
            hop: Hop::Via(via.parse().unwrap()),
            link: name(link),
            metric: None,
            more: RouteMore {
                beside: true,
                ..RouteMore::default()
            },
        };
        execute(&mut kernel, &diff(&[route], &[], "")).unwrap();
    }
    let routes = sh("ip -n in route");
    assert_eq!(routes.matches("default via").count(), 2, "{routes}");
}
