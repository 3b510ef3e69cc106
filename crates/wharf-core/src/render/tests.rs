use super::*;
use crate::extras::Traits;
use crate::model::{Hop, Link, LinkKind, Port, RouteMore};
use crate::op::{DoorChange, RouteOp};

fn link(netns: &str) -> Link {
    Link {
        netns: Netns::Host,
        name: "v$(x)'".parse().unwrap(),
        kind: LinkKind::Veth {
            peer: "eth0".parse().unwrap(),
            peer_netns: Netns::Path(netns.into()),
            peer_mac: Some("02:00:00:00:00:01".parse().unwrap()),
        },
        mac: None,
        mtu: Some(1500),
        master: Some("wharf0".parse().unwrap()),
        group: crate::model::PORT_GROUP,
        up: true,
    }
}

#[test]
fn names_from_users_are_quoted() {
    assert_eq!(
        command(&Op::LinkAdd(link("/run/netns/web"))),
        r"ip link add name 'v$(x)'\''' up mtu 1500 numtxqueues 1 numrxqueues 1 group 0x7768 master wharf0 type veth peer name eth0 mtu 1500 address 02:00:00:00:00:01 numtxqueues 1 numrxqueues 1 netns web"
    );
    assert!(command(&Op::LinkAdd(link("/proc/12/ns/net"))).ends_with(" netns /proc/12/ns/net"));
    let sysctl = |netns, key: &str| {
        command(&Op::SysctlSet {
            netns,
            key: key.to_owned(),
            value: "1".to_owned(),
        })
    };
    assert_eq!(
        sysctl(Netns::Host, "net/ipv4/conf/a.1/rp_filter"),
        "sysctl -qw net/ipv4/conf/a.1/rp_filter=1"
    );
    assert_eq!(
        sysctl(Netns::Path("/tmp/a b".into()), "net/ipv4/ip_forward"),
        "nsenter --net='/tmp/a b' sysctl -qw net.ipv4.ip_forward=1"
    );
}

#[test]
fn a_port_in_a_vlan_leaves_the_first() {
    let port = |vlan| {
        command(&Op::PortSet(Port {
            link: "v0".parse().unwrap(),
            locked: false,
            learning: true,
            hairpin: false,
            isolated: false,
            vlan,
            ipv6: true,
            alias: "wharf:web:lan".to_owned(),
        }))
    };
    let plain = port(None);
    assert_eq!(
        port(Some(7)),
        format!(
            "bridge vlan add dev v0 vid 7 pvid untagged\nbridge vlan del dev v0 vid 1\n{plain}"
        )
    );
    assert!(!port(Some(1)).contains("vlan del"));
}

#[test]
fn routes_and_sub_interfaces_are_written_as_ip_takes_them() {
    let inside = Netns::Path("/run/netns/web".into());
    let route = |hop| {
        command(&Op::RouteAdd(RouteOp {
            netns: inside.clone(),
            dst: "198.51.100.0/24".parse().unwrap(),
            hop,
            link: "eth0".parse().unwrap(),
            metric: Some(7),
            more: RouteMore::default(),
            replace: false,
        }))
    };
    assert_eq!(
        route(Hop::Via("10.0.0.1".parse().unwrap())),
        "ip -n web route add 198.51.100.0/24 via 10.0.0.1 dev eth0 proto 119 metric 7"
    );
    assert_eq!(
        route(Hop::Link),
        "ip -n web route add 198.51.100.0/24 dev eth0 proto 119 metric 7"
    );
    assert_eq!(
        route(Hop::Blackhole),
        "ip -n web route add blackhole 198.51.100.0/24 proto 119 metric 7"
    );
    let macvlan = Link {
        netns: inside.clone(),
        name: "eth0".parse().unwrap(),
        kind: LinkKind::Macvlan {
            parent: "up0".parse().unwrap(),
            mode: crate::network::MacvlanMode::Vepa,
        },
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        mtu: Some(1400),
        master: None,
        group: 0,
        up: false,
    };
    assert_eq!(
        command(&Op::LinkAdd(macvlan)),
        "ip link add link up0 name eth0 mtu 1400 address 02:00:00:00:00:01 netns web type macvlan mode vepa"
    );
}

#[test]
fn what_others_changed_is_changed_back() {
    let name = |text: &str| text.parse::<IfName>().unwrap();
    let door = Op::Door {
        family: Family::V6,
        chain: "DOCKER-USER".to_owned(),
        link: name("br-a"),
        inward: false,
        change: DoorChange::Open,
    };
    let traits = Traits {
        arp: Some(true),
        stp: Some(false),
        ..Traits::default()
    };
    let alone = Op::LinkTraits {
        netns: Netns::Host,
        link: name("br-a"),
        traits,
        back: false,
    };
    let rename = Op::LinkRename {
        from: name("mine"),
        to: name("br-a"),
    };
    // Before the return that ends the chain, if there is one.
    let rule = r#"'oifname "br-a" counter accept comment "wharf"'"#;
    for at in ["insert", "handle \"$end\"", "add"] {
        assert!(command(&door).contains(at), "{at}");
    }
    assert_eq!(command(&door).matches(rule).count(), 2);
    let Op::Door {
        family,
        chain,
        link,
        inward,
        ..
    } = door
    else {
        unreachable!("it is a door")
    };
    let change = DoorChange::Shut;
    let shut = command(&Op::Door {
        family,
        chain,
        link,
        inward,
        change,
    });
    assert_eq!(
        shut,
        "ip6tables -D DOCKER-USER -o br-a -m comment --comment wharf -j ACCEPT"
    );
    for (op, text) in [
        (alone, "ip link set dev br-a arp on type bridge stp_state 0"),
        (rename, "ip link set dev mine name br-a"),
        (Op::PortUnplug(name("v0")), "ip link set dev v0 nomaster"),
    ] {
        assert_eq!(command(&op), text);
    }
}
