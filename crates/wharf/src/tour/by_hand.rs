//! The first half: every piece by hand, one at a time, and what is missing without it.

use wharf_core::model::{Link, LinkKind, Netns, Resource};
use wharf_core::nft::build::{rule, saddr};
use wharf_core::nft::{Action, Base, Chain, Hook, Key, Object, Table, Value};
use wharf_core::op::Op;

use super::Step;
use super::stage::Expect::{Fails, Works};
use super::stage::{Stage, addr, cable, ifname, namespace, route};
use crate::output::error::CommandError;

type Scene = Result<Step, CommandError>;

fn sysctl(key: &str, value: &str) -> Op {
    Op::SysctlSet {
        netns: Netns::Host,
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// The host has an uplink, and somebody is beyond it.
pub fn outside(stage: &mut Stage) -> Scene {
    stage.op(Op::LinkUp {
        netns: Netns::Host,
        link: wharf_core::name::IfName::loopback(),
        up: true,
    })?;
    stage.make(namespace("outside"))?;
    stage.make(cable("up0", "outside", None))?;
    stage.make(vec![
        addr("host", "up0", "10.0.2.2/24"),
        addr("outside", "eth0", "10.0.2.1/24"),
    ])?;
    stage.make(vec![route("host", "0.0.0.0/0", "10.0.2.1", "up0")])?;
    stage.ping("host", "10.0.2.1", Works);
    Ok(stage.step(
        "A host, and a world outside",
        "A network namespace has its own links, addresses, routes and firewall. This one is the host; another stands \
         for the world beyond its uplink. A cable between namespaces is a veth pair: what goes in at one end comes \
         out at the other.",
    ))
}

/// Two cables with the same subnet on the host.
pub fn two_cables(stage: &mut Stage) -> Scene {
    for (n, host, inside) in [
        ("0", "172.18.0.11/16", "172.18.0.10/16"),
        ("1", "172.18.0.21/16", "172.18.0.20/16"),
    ] {
        let (veth, netns) = (format!("veth{n}"), format!("netns{n}"));
        stage.make(namespace(&netns))?;
        stage.make(cable(&veth, &netns, None))?;
        stage.make(vec![
            addr("host", &veth, host),
            addr(&netns, "eth0", inside),
        ])?;
    }
    stage.ping("host", "172.18.0.10", Works);
    stage.ping("netns0", "172.18.0.21", Works);
    stage.ping("host", "172.18.0.20", Fails);
    stage.ping("netns1", "172.18.0.21", Fails);
    Ok(stage.step(
        "Two containers, two cables, one subnet",
        "The host now has two routes to 172.18.0.0/16 and takes the first: veth0. What is for netns1 leaves by veth0, \
         where nobody has that address; even netns1's own ping gets no answer, because the answer leaves by veth0. \
         netns0 reaches veth1's address all the same: the host owns it, whichever cable the packet came by.",
    ))
}

/// A bridge instead.
pub fn switch(stage: &mut Stage) -> Scene {
    stage.unmake(|r| match r {
        Resource::Link(l) => l.name.as_str().starts_with("veth"),
        Resource::Addr { link, addr, .. } => {
            link.as_str().starts_with("veth") || addr.to_string().starts_with("172.18.")
        }
        Resource::Up { netns, link } => {
            link.as_str() == "eth0" && *netns != super::stage::netns("outside")
        }
        _ => false,
    })?;
    stage.make(vec![
        Resource::Link(Link {
            netns: Netns::Host,
            name: ifname("br0"),
            kind: LinkKind::Bridge,
            mac: None,
            mtu: None,
            master: None,
            group: 0,
            up: false,
        }),
        Resource::Up {
            netns: Netns::Host,
            link: ifname("br0"),
        },
    ])?;
    for (n, inside) in [("0", "172.18.0.10/16"), ("1", "172.18.0.20/16")] {
        let (veth, netns) = (format!("veth{n}"), format!("netns{n}"));
        stage.make(cable(&veth, &netns, Some("br0")))?;
        stage.make(vec![addr(&netns, "eth0", inside)])?;
    }
    stage.ping("netns0", "172.18.0.20", Works);
    stage.show_neighbours("netns0");
    stage.ping("host", "172.18.0.10", Fails);
    Ok(stage.step(
        "A virtual switch",
        "A bridge is a switch in the kernel; the cables' host ends are its ports. The containers find each other by \
         ARP and talk at layer 2, frame by frame: each now knows the other's hardware address. The host itself is \
         not on that network: its own packets to 172.18.0.10 take the default route to the world outside.",
    ))
}

/// The bridge gets an address.
pub fn gateway(stage: &mut Stage) -> Scene {
    stage.make(vec![addr("host", "br0", "172.18.0.1/16")])?;
    stage.ping("host", "172.18.0.10", Works);
    stage.ping("netns1", "172.18.0.1", Works);
    stage.ping("netns0", "10.0.2.2", Fails);
    Ok(stage.step(
        "The host joins",
        "With 172.18.0.1 on the bridge the host is a member, and has a route to the subnet by br0. A container still \
         knows nothing but its own subnet: for any other address it has no route, and says so at once.",
    ))
}

/// Containers get a default route.
pub fn default_route(stage: &mut Stage) -> Scene {
    stage.make(vec![
        route("netns0", "0.0.0.0/0", "172.18.0.1", "eth0"),
        route("netns1", "0.0.0.0/0", "172.18.0.1", "eth0"),
    ])?;
    stage.ping("netns0", "10.0.2.2", Works);
    stage.ping("netns0", "10.0.2.1", Fails);
    Ok(stage.step(
        "A default route",
        "Everything unknown now goes to the host. The host's own addresses answer. Beyond it nothing does: the host \
         takes packets for itself, but does not pass others on.",
    ))
}

/// The host forwards.
pub fn forwarding(stage: &mut Stage) -> Scene {
    stage.op(sysctl("net/ipv4/ip_forward", "1"))?;
    stage.ping("netns0", "10.0.2.1", Fails);
    Ok(stage.step(
        "Forwarding",
        "Now the host is a router, and the packet does leave by up0. It arrives with the source 172.18.0.10, an address \
         the world has no way back to: the answer never comes.",
    ))
}

/// The host hides the containers.
pub fn masquerade(stage: &mut Stage) -> Scene {
    let own = wharf_core::nft::Match {
        keys: vec![Key::OifName],
        test: wharf_core::nft::Test::Not(Value::Name(ifname("br0"))),
    };
    let chain = Chain {
        table: Table::Inet,
        name: "by-hand".to_owned(),
        base: Some(Base {
            nat: true,
            hook: Hook::Postrouting,
            priority: 100,
        }),
        rules: vec![rule(
            [
                saddr("172.18.0.0/16".parse().expect("a constant prefix")),
                own,
            ],
            Action::Masquerade,
        )],
    };
    stage.make(vec![
        Resource::Nft(Object::Table(Table::Inet)),
        Resource::Nft(Object::Chain(chain)),
    ])?;
    stage.ping("netns0", "10.0.2.1", Works);
    stage.ping("netns1", "10.0.2.1", Works);
    Ok(stage.step(
        "Masquerade",
        "On the way out the source becomes the host's own address, and the host remembers whose flow it is. Answers \
         come to the host and are translated back. The containers have a way out.",
    ))
}

/// What the host lets in meanwhile.
pub fn open_door(stage: &mut Stage) -> Scene {
    stage.serve("netns0", 5000)?;
    stage.make(vec![route("outside", "172.18.0.0/16", "10.0.2.2", "eth0")])?;
    stage.connect("outside", "172.18.0.10:5000", Works);
    Ok(stage.step(
        "The open door",
        "A router routes both ways. Nobody published port 5000 of netns0, but the FORWARD policy is ACCEPT, as the \
         kernel has it: any neighbour who adds one route reaches every port of every container.",
    ))
}
