//! Causes below IP: links, bridges, neighbours, addresses.

use wharf_core::addr::Mac;
use wharf_core::trace::L4::{Icmp, Tcp};
use wharf_core::trace::ruleset::{Hook, TableFamily};
use wharf_core::trace::state::{FdbEntry, Neighbour, NeighbourState, TcDrop, TrafficControl};

use crate::build::{Case, HOST, World, check, drops, ip, line, rule};

fn neighbour(w: &mut World, space: &str, link: &str, addr: &str, state: NeighbourState) {
    let id = w.id(space);
    let link = w.index(id, link);
    w.state.spaces[id].neighbours.push(Neighbour {
        link,
        addr: ip(addr),
        mac: Some(Mac([2, 0, 0, 0, 0, 0x99])),
        state,
        proxy: false,
    });
}

/// c1's cable is in a bridge of another network.
fn to_another_bridge(w: &mut World) {
    w.bridge(HOST, "br-two");
    w.addr(HOST, "br-two", "172.19.0.1/16");
    w.plug(HOST, "veth-c1", "br-two");
}

#[test]
fn links() {
    check(&[
        Case {
            name: "the container's own end is down",
            change: |w| {
                let c1 = w.id("c1");
                w.get(c1, "eth0").up = false;
                w.get(HOST, "veth-c1").carrier = false;
                // The kernel takes the routes of a link that goes down.
                w.state.spaces[c1].routes.retain(|r| r.table == 255);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped link-down c1 eth0",
        },
        Case {
            name: "the target's end is down, asked from the host",
            change: |w| {
                let c2 = w.id("c2");
                w.get(c2, "eth0").up = false;
                w.state.spaces[c2].routes.retain(|r| r.table == 255);
            },
            ask: ("host", "172.18.0.20", Icmp, 0),
            says: "dropped link-down c2 eth0",
        },
        Case {
            name: "the uplink is down",
            change: |w| {
                w.get(HOST, "up0").up = false;
                let up0 = w.index(HOST, "up0");
                let gone = |r: &wharf_core::trace::state::Route| {
                    r.table == 254 && r.hops.iter().any(|h| h.link == Some(up0))
                };
                w.state.spaces[HOST].routes.retain(|r| !gone(r));
            },
            ask: ("c1", "10.0.2.1", Icmp, 0),
            says: "rejected link-down host up0",
        },
        Case {
            name: "the other end is gone",
            change: |w| {
                w.state.spaces.pop();
                w.get(HOST, "up0").peer = None;
                w.get(HOST, "up0").carrier = false;
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped no-carrier host up0",
        },
        Case {
            name: "the bridge is down, between containers",
            change: |w| w.get(HOST, "br-demo").up = false,
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-down host br-demo",
        },
        Case {
            name: "the bridge is down, from the host, with its routes gone",
            change: |w| {
                w.get(HOST, "br-demo").up = false;
                w.del_routes(HOST, "172.18.0.0/16");
            },
            ask: ("host", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-down host br-demo",
        },
        Case {
            name: "the sender's own cable is off the bridge, and the filter is strict",
            change: |w| {
                w.get(HOST, "veth-c1").master = None;
                w.set(HOST, "net.ipv4.conf.all.rp_filter", 2);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped not-on-bridge host veth-c1",
        },
        Case {
            name: "the sender's own cable is off the bridge, and no filter minds",
            change: |w| w.get(HOST, "veth-c1").master = None,
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered not-on-bridge host veth-c1",
        },
        Case {
            name: "the sender's own cable is in another bridge, and it remembers who is in the right one",
            change: |w| {
                to_another_bridge(w);
                neighbour(w, "c1", "eth0", "172.18.0.1", NeighbourState::Stale);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered not-on-bridge host veth-c1",
        },
        Case {
            name: "the sender's own cable is in another bridge, and somebody pinned what is wrong in both",
            change: |w| {
                to_another_bridge(w);
                neighbour(w, "c1", "eth0", "172.18.0.1", NeighbourState::Permanent);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped neighbour-wrong c1 172.18.0.1 dev eth0 lladdr 02:00:00:00:00:99",
        },
        Case {
            name: "a tc filter that drops all",
            change: |w| {
                w.get(HOST, "veth-c2").tc.push(TrafficControl {
                    ingress: false,
                    text: "qdisc netem 8001: root refcnt 2 limit 1000 loss 100%".to_owned(),
                    drops: Some(TcDrop::All),
                });
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped traffic-control host qdisc netem 8001: root refcnt 2 limit 1000 loss 100%",
        },
        Case {
            name: "a u32 filter for one destination",
            change: |w| {
                w.get(HOST, "up0").tc.push(TrafficControl {
                    ingress: false,
                    text: "filter parent ffff: protocol ip u32 action drop".to_owned(),
                    drops: Some(TcDrop::Matching {
                        ethertype: 0x0800,
                        words: vec![(16, u32::MAX, 0xc000_0232)],
                    }),
                });
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped traffic-control host filter parent ffff: protocol ip u32 action drop",
        },
        Case {
            name: "an XDP program",
            change: |w| w.get(HOST, "up0").xdp = true,
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unknown traffic-control host up0 xdp",
        },
    ]);
}

#[test]
fn bridges() {
    check(&[
        Case {
            name: "a blocking port",
            change: |w| w.get(HOST, "veth-c2").port.as_mut().unwrap().state = 4,
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c2",
        },
        Case {
            name: "isolated ports",
            change: |w| {
                for port in ["veth-c1", "veth-c2"] {
                    w.get(HOST, port).port.as_mut().unwrap().isolated = true;
                }
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c2",
        },
        Case {
            name: "a locked port without an entry",
            change: |w| w.get(HOST, "veth-c1").port.as_mut().unwrap().locked = true,
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c1",
        },
        Case {
            name: "no broadcasts, so no ARP",
            change: |w| w.get(HOST, "veth-c2").port.as_mut().unwrap().bcast_flood = false,
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c2",
        },
        Case {
            name: "no unknown unicast, which ARP makes known",
            change: |w| w.get(HOST, "veth-c2").port.as_mut().unwrap().flood = false,
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "neither learned nor flooded",
            change: |w| {
                let port = w.get(HOST, "veth-c2").port.as_mut().unwrap();
                (port.learning, port.flood) = (false, false);
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c2",
        },
        Case {
            name: "a fixed entry that points to another port",
            change: |w| {
                let c2 = w.id("c2");
                let mac = w.get(c2, "eth0").mac.unwrap();
                let link = w.index(HOST, "veth-c1");
                w.get(HOST, "veth-c2").port.as_mut().unwrap().learning = false;
                w.state.spaces[HOST].fdb.push(FdbEntry {
                    link,
                    mac,
                    vlan: None,
                    own: false,
                    fixed: true,
                    local: false,
                    dst: None,
                });
            },
            ask: ("host", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host 02:00:00:00:02:08 dev veth-c1 master br-demo",
        },
        Case {
            name: "another VLAN",
            change: |w| {
                w.get(HOST, "br-demo")
                    .bridge
                    .as_mut()
                    .unwrap()
                    .vlan_filtering = true;
                let port = w.get(HOST, "veth-c2").port.as_mut().unwrap();
                (port.pvid, port.vlans) = (Some(20), vec![(20, true)]);
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped bridge-port-blocked host veth-c2",
        },
        Case {
            name: "a rule of the bridge family",
            change: |w| {
                let chain = w.chain(
                    HOST,
                    TableFamily::Bridge,
                    "b",
                    "fwd",
                    Hook::Forward,
                    0,
                    false,
                );
                rule(chain, vec![drops()], "drop");
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped firewall-rule host bridge b fwd handle 2",
        },
    ]);
}

#[test]
fn neighbours() {
    check(&[
        Case {
            name: "a poisoned entry",
            change: |w| neighbour(w, "c1", "eth0", "172.18.0.20", NeighbourState::Reachable),
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped neighbour-wrong c1 172.18.0.20 dev eth0 lladdr 02:00:00:00:00:99",
        },
        Case {
            name: "a poisoned entry on the way back",
            change: |w| neighbour(w, "host", "br-demo", "172.18.0.10", NeighbourState::Stale),
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "unanswered neighbour-wrong host 172.18.0.10 dev br-demo lladdr 02:00:00:00:00:99",
        },
        Case {
            name: "an entry that failed once says nothing",
            change: |w| neighbour(w, "c1", "eth0", "172.18.0.20", NeighbourState::Failed),
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "delivered",
        },
        Case {
            name: "one address twice",
            change: |w| {
                w.container("c3", "br-demo", &["172.18.0.20/16"]);
            },
            ask: ("c1", "c2", Icmp, 0),
            says: "dropped duplicate-address c3 172.18.0.20/16 dev eth0",
        },
        Case {
            name: "the sender's address twice",
            change: |w| {
                w.container("c3", "br-demo", &["172.18.0.10/16"]);
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "unanswered duplicate-address c3 172.18.0.10/16 dev eth0",
        },
        Case {
            name: "one MAC address twice",
            change: |w| {
                let (c2, c3) = (
                    w.id("c2"),
                    w.container("c3", "br-demo", &["172.18.0.30/16"]),
                );
                w.get(c3, "eth0").mac = w.get(c2, "eth0").mac;
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped duplicate-mac c3 eth0 02:00:00:00:02:08",
        },
        Case {
            name: "ARP off",
            change: |w| {
                let c2 = w.id("c2");
                w.get(c2, "eth0").noarp = true;
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped neighbour-unreachable c2 eth0",
        },
        Case {
            name: "ARP off at the sender",
            change: |w| {
                let c1 = w.id("c1");
                w.get(c1, "eth0").noarp = true;
            },
            ask: ("c1", "172.18.0.20", Icmp, 0),
            says: "dropped neighbour-unreachable c1 eth0",
        },
        Case {
            name: "IPv6 off at the target",
            change: |w| {
                let c2 = w.id("c2");
                w.del_addr(c2, "fd00:18::20/64");
                w.set(c2, "net.ipv6.conf.eth0.disable_ipv6", 1);
            },
            ask: ("c1", "fd00:18::20", Icmp, 0),
            says: "dropped ipv6-disabled c2 net.ipv6.conf.eth0.disable_ipv6",
        },
        Case {
            name: "the gateway lost its address",
            change: |w| {
                w.del_addr(HOST, "172.18.0.1/16");
                w.route(HOST, "172.18.0.0/16", None, "br-demo");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped neighbour-unreachable c1 172.18.0.1 dev eth0",
        },
        Case {
            name: "a gateway nobody is",
            change: |w| {
                let c1 = w.id("c1");
                w.del_routes(c1, "default");
                w.route(c1, "default", Some("172.18.0.254"), "eth0");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped wrong-gateway c1 default via 172.18.0.254 dev eth0",
        },
        Case {
            name: "a gateway that is another container",
            change: |w| {
                let (c1, c2) = (w.id("c1"), w.id("c2"));
                w.del_routes(c1, "default");
                w.route(c1, "default", Some("172.18.0.20"), "eth0");
                w.set(c2, "net.ipv4.ip_forward", 0);
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped wrong-gateway c1 default via 172.18.0.20 dev eth0",
        },
        Case {
            name: "nobody has it",
            change: |_| {},
            ask: ("c1", "172.18.0.99", Icmp, 0),
            says: "dropped no-such-destination c1 172.18.0.99",
        },
        Case {
            name: "a prefix too wide",
            change: |w| {
                let c1 = w.id("c1");
                w.del_addr(c1, "172.18.0.10/16");
                w.addr(c1, "eth0", "172.18.0.10/8");
                w.bridge(HOST, "br-two");
                w.addr(HOST, "br-two", "172.19.0.1/16");
                w.container("c3", "br-two", &["172.19.0.10/16"]);
            },
            ask: ("c1", "172.19.0.10", Icmp, 0),
            says: "dropped wrong-prefix-length c1 172.18.0.10/8 dev eth0",
        },
        Case {
            name: "a prefix too wide for an address outside",
            change: |w| {
                let c1 = w.id("c1");
                w.del_addr(c1, "172.18.0.10/16");
                w.addr(c1, "eth0", "172.18.0.10/1");
            },
            ask: ("c1", "192.0.2.50", Icmp, 0),
            says: "dropped wrong-prefix-length c1 172.18.0.10/1 dev eth0",
        },
    ]);
}

/// The way out of an unread wire is not taken for an address that a bridge has.
#[test]
fn prefix_too_narrow() {
    let mut w = World::demo();
    w.state.spaces.pop();
    w.get(HOST, "up0").peer = None;
    w.container("c3", "br-demo", &["172.18.5.30/16"]);
    w.del_addr(HOST, "172.18.0.1/16");
    w.addr(HOST, "br-demo", "172.18.0.1/24");
    let report = w.ask("host", "172.18.5.30", Tcp, 80);
    assert_eq!(
        line(&report),
        "dropped wrong-prefix-length host 172.18.0.1/24 dev br-demo",
        "{report:#?}"
    );
}
