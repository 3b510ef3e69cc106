//! Odd ways of cabling, routing and translating: whole ones, and the same ones broken.

use crate::bases::*;
use crate::cases;

/// c4 hangs on a bridge of its own that a cable joins to the other.
const JOINED: &str = "
    ip link add br-far type bridge; ip link set br-far up
    ip link add join0 type veth peer name join1; ip link set join0 master br-demo up; ip link set join1 master br-far up
    ip netns add c4; ip link add veth-c4 type veth peer name eth0 netns c4; ip link set veth-c4 master br-far up
    ip -n c4 link set lo up; ip -n c4 addr add 172.18.0.40/16 dev eth0; ip -n c4 link set eth0 up; ip -n c4 route add default via 172.18.0.1";

cases! {
    joined_bridges: { on: &[BRIDGE, MASQUERADE, JOINED], ask: "/run/netns/c4 172.18.0.20:80" }
    joined_bridges_outwards: { on: &[BRIDGE, MASQUERADE, JOINED], ask: "/run/netns/c4 192.0.2.50:53/udp" }
    joint_shut: {
        on: &[BRIDGE, MASQUERADE, JOINED],
        breaks: "ip link set join1 down",
        ask: "/run/netns/c4 172.18.0.20:80",
        says: "dropped link-down host join1",
    }
    joint_pulled: {
        on: &[BRIDGE, MASQUERADE, JOINED],
        breaks: "ip link set join0 nomaster",
        ask: "/run/netns/c1 172.18.0.40",
        says: "dropped not-on-bridge host join0",
    }
    rule_by_port_that_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add iif br-demo ipproto tcp dport 80 blackhole priority 90",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped policy-rule host *",
    }
    rule_by_source_that_refuses: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add from 172.18.0.10 to 192.0.2.0/24 prohibit priority 90",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "rejected policy-rule host *",
    }
    rule_by_protocol_to_an_empty_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add ipproto udp from 172.18.0.0/16 lookup 99 priority 90; ip route add unreachable default table 99",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "rejected route-rejects|policy-rule host *",
    }
    rules_for_others: {
        on: &[BRIDGE, MASQUERADE, "ip rule add not from all fwmark 0/1 blackhole priority 80; ip rule add ipproto tcp dport 81-90 blackhole priority 81; ip rule add iif lo ipproto udp prohibit priority 82; ip rule add from 172.18.0.64/26 blackhole priority 83
            ip rule add tun_id 7 blackhole priority 84; ip link set up0 group 9; ip route add unreachable default table 61
            ip rule add lookup 62 suppress_ifgroup 9 priority 85; ip route add 192.0.2.0/24 via 10.0.2.99 dev up0 onlink table 62"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    dead_gateway_of_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add 192.0.2.0/24 via 10.0.2.77",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected wrong-gateway|neighbour-unreachable|route-conflict host 192.0.2.0/24 via 10.0.2.77 dev up0 | 10.0.2.77 dev up0",
    }
    host_route_with_a_size: { on: &[BRIDGE, MASQUERADE, "ip route add 192.0.2.50 via 10.0.2.1 mtu lock 900"], ask: "/run/netns/c1 192.0.2.50:80" }
    lone_address_and_gateway: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/32 dev eth0; ip -n c1 route add default via 172.18.0.1 dev eth0 onlink"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    source_of_another_net: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 addr add 10.44.0.1/32 dev lo; ip -n c1 route replace default via 172.18.0.1 src 10.44.0.1",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|unanswered reverse-path-filter|no-return-route|no-masquerade host *",
        no_fix: "the address is nobody's to route",
    }
    translation_left_out_by_an_earlier_rule: {
        on: &[BRIDGE, MASQUERADE_IPTABLES],
        breaks: "iptables-nft -t nat -I POSTROUTING -s 172.18.0.0/16 -d 192.0.2.0/24 -j ACCEPT",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    translation_left_out_by_a_younger_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip keep { chain post { type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/16 snat to 172.18.0.10; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    translated_to_an_address_of_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -t nat -I POSTROUTING -s 172.18.0.0/16 -o up0 -j SNAT --to-source 10.0.2.99",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade|no-return-route|neighbour-unreachable host *",
    }
    sent_astray_on_the_way_out: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -t nat -A PREROUTING -i br-demo -p udp --dport 53 -j DNAT --to-destination 172.18.0.99:53",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped|rejected publish-shadowed host ip nat PREROUTING handle *",
    }
    sent_astray_by_the_source: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 iptables-nft -t nat -A OUTPUT -p tcp --dport 80 -j DNAT --to-destination 172.18.0.99",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected publish-shadowed /run/netns/c1 ip nat OUTPUT handle *",
    }
    bridge_of_its_own_netfilter: {
        on: &[BRIDGE, MASQUERADE, "ip link set br-demo type bridge nf_call_iptables 1"],
        bridge_nf_call: false,
        breaks: "iptables-nft -A FORWARD -p tcp --dport 80 -j DROP",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-netfilter host br-demo nf_call_iptables",
    }
    no_multicast_for_discovery: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 mcast_flood off; for n in c1 c2; do ip -n $n -6 neigh flush dev eth0; done; ip link set br-demo type bridge mcast_snooping 0",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped bridge-port-blocked host veth-c2",
    }
    neighbours_suppressed_and_known: {
        on: &[BRIDGE, MASQUERADE, "sysctl -qw net.ipv4.conf.all.arp_filter=1 net.ipv4.conf.all.arp_announce=2; ip netns exec c1 sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=1"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    six_alone: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 addr flush dev eth0 scope global; ip -n c1 -6 addr add fd00:18::10/64 dev eth0 nodad; ip -n c1 -6 route replace default via fd00:18::1"],
        ask: "/run/netns/c1 [2001:db8::50]:80",
    }
    no_four_at_all: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 addr flush dev eth0 scope global",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected no-address /run/netns/c1 eth0",
    }
}
