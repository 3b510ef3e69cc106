//! Links and bridges by hand: cables that are shut, unplugged or on the wrong switch, ports that do not forward.

use crate::bases::*;
use crate::cases;

cases! {
    container_link_down: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c2 link set eth0 down",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped link-down /run/netns/c2 eth0",
    }
    container_link_down_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c2 down",
        ask: "host [fd00:18::20]:80",
        says: "dropped link-down host veth-c2",
    }
    source_link_down: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 link set eth0 down",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected link-down /run/netns/c1 eth0",
    }
    source_host_side_down: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c1 down",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped|rejected link-down host veth-c1",
    }
    loopback_down: {
        on: &[BRIDGE],
        breaks: "ip -n c2 link set lo down",
        serves: "c2:80/tcp",
        ask: "/run/netns/c2 172.18.0.20:80",
        says: "dropped|rejected link-down /run/netns/c2 lo",
    }
    uplink_down: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set up0 down",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected link-down host up0",
        after_fix: "ip route replace default via 10.0.2.1",
    }
    uplink_unplugged: {
        on: &[BRIDGE, MASQUERADE],
        outside: "ip route replace default via 10.0.2.2; ip link set down0 up",
        breaks: "ip link del up0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected no-route host 192.0.2.50",
        no_fix: "the cable is gone",
    }
    bridge_down: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set br-demo down",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-down host br-demo",
    }
    bridge_down_to_outside: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set br-demo down",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped bridge-down host br-demo",
    }
    bridge_down_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set br-demo down",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped bridge-down host br-demo",
    }
    bridge_down_from_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set br-demo down",
        ask: "host 172.18.0.20:80",
        says: "dropped|rejected bridge-down|link-down host br-demo",
    }
    on_no_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c2 nomaster",
        ask: "host 172.18.0.20:80",
        says: "dropped not-on-bridge host veth-c2",
    }
    source_on_no_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c1 nomaster",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped|unanswered not-on-bridge host veth-c1",
    }
    on_another_bridge: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c2 master br-two",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "dropped not-on-bridge host veth-c2",
    }
    source_on_another_bridge: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c1 master br-two",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|unanswered not-on-bridge host veth-c1",
    }
    source_on_another_bridge_remembers_the_old_one: {
        // The bridge had the cable's address, which is the least, and has another one without it.
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set veth-c1 address 02:00:00:00:00:01"],
        breaks: "ip link set veth-c1 master br-two",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|unanswered not-on-bridge host veth-c1",
    }
    published_to_one_off_the_bridge: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "ip link set veth-c2 nomaster",
        ask: "outside 10.0.2.2:8080",
        says: "dropped not-on-bridge host veth-c2",
    }
    ports_isolated: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c1 isolated on; bridge link set dev veth-c2 isolated on",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-port-blocked host veth-c1 | veth-c2",
    }
    ports_isolated_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c1 isolated on; bridge link set dev veth-c2 isolated on",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped bridge-port-blocked host veth-c1 | veth-c2",
    }
    one_port_isolated: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c1 isolated on",
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    port_disabled: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sleep 1.2; bridge link set dev veth-c1 state 0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped bridge-port-blocked host veth-c1",
    }
    port_listening: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set br-demo type bridge stp_state 1 forward_delay 3000
                 ip link set veth-c2 down; ip link set veth-c2 up; sleep 0.1",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    port_locked: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c1 learning off locked on; bridge fdb flush dev veth-c1 2>/dev/null || bridge fdb del $(ip netns exec c1 cat /sys/class/net/eth0/address) dev veth-c1 master",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-port-blocked host veth-c1",
    }
    port_without_flooding: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 flood off bcast_flood off mcast_flood off; ip -n c1 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    port_without_flooding_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 flood off bcast_flood off mcast_flood off; ip -n c1 -6 neigh flush dev eth0",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    port_that_knows_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 learning off flood off
                 bridge fdb del $(ip netns exec c2 cat /sys/class/net/eth0/address) dev veth-c2 master",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    port_without_broadcasts: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 bcast_flood off; for n in c1 c2; do ip -n $n neigh flush dev eth0; done",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    switch_entry_at_the_wrong_port: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set veth-c3 master br-demo"],
        breaks: "bridge fdb replace $(ip netns exec c2 cat /sys/class/net/eth0/address) dev veth-c3 master static sticky",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-port-blocked|neighbour-wrong host *",
    }
    peer_taken_away: {
        on: &[BRIDGE, MASQUERADE, "ip netns add store"],
        breaks: "ip -n c2 link set eth0 netns store",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped no-carrier|no-such-destination|link-down * *",
        no_fix: "the link is in a namespace that has nothing to do with it, and its addresses are gone",
    }
    uplink_peer_down: {
        on: &[BRIDGE, MASQUERADE, "ip link del up0; ip netns add isp; ip link add up0 type veth peer name e0 netns isp
            ip addr add 10.0.2.2/24 dev up0; ip link set up0 up; ip -n isp link set lo up; ip -n isp link set e0 up
            ip -n isp addr add 10.0.2.1/24 dev e0; ip -n isp addr add 192.0.2.50/32 dev lo; ip route add default via 10.0.2.1"],
        serves: "",
        breaks: "ip -n isp link set e0 down",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped link-down|no-carrier /run/netns/isp e0",
        after_fix: "sleep 1.2",
    }
    tap_without_a_reader: {
        on: &[BRIDGE, MASQUERADE, "
            ip tuntap add dev tap9 mode tap; ip addr add 172.30.0.1/24 dev tap9; ip link set tap9 up"],
        serves: "",
        ask: "/run/netns/c1 172.30.0.9",
        says: "dropped no-carrier host tap9",
        no_fix: "a program has to open it",
    }
}
