//! Cables without their bridge, links in the wrong place, routes by which packets come to nobody.

use crate::bases::*;
use crate::cases;

/// The kernel takes up to a second until a cable that was shut carries again.
const BOTH_CARRY: &str = "
    for n in $(seq 20); do
        [ $(bridge link | grep -c 'state forwarding') = 2 ] && break
        sleep 0.1
    done";

const SERVES: &str = "web:80/tcp cache:80/tcp outside:80/tcp";

/// The host's end of web's cable.
macro_rules! cable {
    ($command:literal, $rest:literal) => {
        concat!(
            $command,
            " $(wharf inspect web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"networks\"][0][\"host_interface\"])')",
            $rest
        )
    };
}

cases! {
    a_bridge_that_is_gone: {
        on: &[BRIDGE],
        breaks: "ip link del br-demo",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped not-on-bridge host veth-c1",
    }
    a_bridge_that_is_gone_outwards: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link del br-demo",
        ask: "/run/netns/c1 192.0.2.50:80",
        // Its gateway's hardware address is remembered, and may be that of the cable.
        says: "dropped|unanswered not-on-bridge host veth-c1",
    }
    a_bridge_that_is_gone_and_cables_shut: {
        on: &[BRIDGE],
        breaks: "ip link del br-demo; ip link set veth-c1 down; ip link set veth-c2 down",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped link-down host veth-c1",
        also: &["not-on-bridge"],
        after_fix: BOTH_CARRY,
    }
    both_cables_shut: {
        on: &[BRIDGE],
        breaks: "ip link set veth-c1 down; ip link set veth-c2 down",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped link-down host veth-c1",
        after_fix: BOTH_CARRY,
    }
    who_hangs_on_the_hosts_bridge_is_no_router: {
        on: &[BRIDGE, MASQUERADE, "ip netns del c2; ip netns exec c1 sysctl -qw net.ipv4.ip_forward=0"],
        breaks: "ip addr flush dev up0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected no-route host 192.0.2.50",
        after_fix: "ip addr add 10.0.2.2/24 dev up0; ip route replace default via 10.0.2.1",
    }
    the_uplink_in_a_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link add brx type bridge; ip link set brx up; ip link set up0 master brx; ip neigh flush dev up0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped not-on-bridge host up0",
    }
    a_port_that_does_not_turn_frames: {
        on: &[WHARF], serves: SERVES, bridge_nf_call: true,
        breaks: cable!("bridge link set dev", " hairpin off"),
        ask: "web 10.0.2.2:8080",
        says: "dropped bridge-port-blocked host *",
        owner: "wharf",
    }
    a_route_to_loopback: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add 192.0.2.50 dev lo",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped route-conflict /run/netns/c1 192.0.2.50 dev lo",
    }
    a_route_that_keeps_packets: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip route add local 172.18.0.20 dev lo",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "rejected route-conflict host local 172.18.0.20 dev lo",
    }
    a_route_that_keeps_packets_of_the_host: {
        on: &[BRIDGE],
        breaks: "ip route add local 172.18.0.20 dev lo",
        ask: "host 172.18.0.20:80",
        says: "rejected route-conflict host local 172.18.0.20 dev lo",
    }
    a_route_as_if_for_everybody: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip route add broadcast 172.18.0.20 dev lo",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "dropped route-conflict host broadcast 172.18.0.20 dev lo",
    }
    the_uplink_asks_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set up0 arp off",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped neighbour-unreachable host up0",
    }
    a_routing_rule_of_wharfs_is_gone: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip rule del pref 112",
        ask: "host 10.88.1.11:80",
        says: "dropped|rejected policy-rule host *",
        owner: "wharf",
    }
}
