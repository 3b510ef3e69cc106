//! Addresses on a segment: pinned, doubled, missing and misunderstood.

use crate::bases::*;
use crate::cases;

cases! {
    pinned_in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 neigh replace 172.18.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped neighbour-wrong /run/netns/c1 172.18.0.1 dev eth0 lladdr 02:00:00:00:00:99",
    }
    pinned_at_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip neigh replace 172.18.0.20 lladdr 02:00:00:00:00:99 dev br-demo nud permanent",
        ask: "host 172.18.0.20:80",
        says: "dropped neighbour-wrong host 172.18.0.20 dev br-demo lladdr 02:00:00:00:00:99",
    }
    pinned_at_the_host_for_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip neigh replace 172.18.0.10 lladdr 02:00:00:00:00:99 dev br-demo nud permanent",
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered neighbour-wrong host 172.18.0.10 dev br-demo lladdr 02:00:00:00:00:99",
    }
    pinned_at_the_host_for_answers_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip neigh replace fd00:18::10 lladdr 02:00:00:00:00:99 dev br-demo nud permanent",
        ask: "/run/netns/c1 [2001:db8::50]:53/udp",
        says: "unanswered neighbour-wrong host fd00:18::10 dev br-demo lladdr 02:00:00:00:00:99",
    }
    pinned_to_somebody_else: {
        on: &[BRIDGE, MASQUERADE, "ip netns exec c2 sysctl -qw net.ipv4.ip_forward=0"],
        breaks: "ip -n c1 neigh replace 172.18.0.1 dev eth0 nud permanent lladdr $(ip netns exec c2 cat /sys/class/net/eth0/address)",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped neighbour-wrong /run/netns/c1 *",
    }
    pinned_rightly: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 neigh replace 172.18.0.1 dev eth0 nud permanent lladdr $(cat /sys/class/net/br-demo/address)",
        ask: "/run/netns/c1 192.0.2.50",
    }
    pinned_at_the_host_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "ip neigh replace 172.18.0.20 lladdr 02:00:00:00:00:99 dev br-demo nud permanent",
        ask: "outside 10.0.2.2:8080",
        says: "dropped neighbour-wrong host 172.18.0.20 dev br-demo lladdr 02:00:00:00:00:99",
    }
    address_doubled_by_the_asker: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 addr add 172.18.0.20/16 dev eth0",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "rejected|dropped duplicate-address * *",
    }
    address_doubled_by_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip addr add 172.18.0.20/16 dev br-demo; ip -n c1 neigh flush dev eth0",
        ask: "host 172.18.0.20:80",
        says: "rejected|dropped duplicate-address * *",
    }
    address_doubled_by_another: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set veth-c3 master br-demo"],
        breaks: "ip -n c3 addr add 172.18.0.20/16 dev eth0; ip -n c2 link set eth0 down; ip -n c1 neigh flush dev eth0
                 ip netns exec c1 ping -c1 -W1 -q 172.18.0.20 >/dev/null || true; ip -n c2 link set eth0 up",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "rejected|dropped duplicate-address * *",
    }
    // The switch learns at one port only, so that it does not matter who speaks when.
    mac_doubled: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set veth-c3 master br-demo; ip -n c3 addr add 172.18.0.30/16 dev eth0"],
        breaks: "ip netns exec c3 sysctl -qw net.ipv4.ip_forward=0
                 ip -n c3 link set eth0 address $(ip netns exec c2 cat /sys/class/net/eth0/address)
                 bridge link set dev veth-c2 learning off
                 ip netns exec c3 ping -q -c2 -i 0.2 -W1 172.18.0.1 >/dev/null 2>&1 || true",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped duplicate-mac * *",
        after_fix: "bridge link set dev veth-c2 learning on; ip netns exec c2 ping -q -c1 -W1 172.18.0.1 >/dev/null 2>&1 || true",
    }
    nobody_has_it: {
        on: &[BRIDGE, MASQUERADE],
        ask: "/run/netns/c1 172.18.0.99:80",
        says: "dropped no-such-destination|neighbour-unreachable * 172.18.0.99",
    }
    a_stranger_has_it: {
        on: &[BRIDGE, MASQUERADE, "ip netns add apart; ip -n apart link add d0 type bridge; ip -n apart addr add 172.18.0.99/16 dev d0; ip -n apart link set d0 up"],
        ask: "/run/netns/c1 172.18.0.99:80",
        says: "dropped no-such-destination|neighbour-unreachable * 172.18.0.99",
        no_fix: "nobody has the address",
    }
    nobody_has_it_six: {
        on: &[BRIDGE, MASQUERADE],
        ask: "host fd00:18::99",
        says: "dropped no-such-destination|neighbour-unreachable * fd00:18::99",
        no_fix: "nobody has the address",
    }
    address_removed: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c2 addr del 172.18.0.20/16 dev eth0",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped no-such-destination * 172.18.0.20",
    }
    answers_no_arp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c2 link set eth0 arp off; ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped neighbour-unreachable * *",
    }
    asks_no_arp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 link set eth0 arp off; ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped neighbour-unreachable * *",
    }
    arp_ignored: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv4.conf.eth0.arp_ignore=8; ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "dropped neighbour-unreachable * *",
    }
    arp_dropped_by_a_rule: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 nft 'table arp a { chain i { type filter hook input priority 0; drop; }; }'; ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped firewall-rule /run/netns/c2 arp a i handle 2",
    }
    arp_dropped_on_the_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook forward priority 0; ether type arp drop; }; }'; ip -n c1 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped firewall-rule host bridge b f handle 2",
    }
    neighbour_discovery_dropped: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 ip6tables-nft -A INPUT -p icmpv6 -j DROP; ip -n c1 -6 neigh flush dev eth0",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped firewall-rule /run/netns/c2 ip6 filter INPUT handle 2 | -A INPUT -p ipv6-icmp -j DROP | ip6 filter INPUT handle 5",
    }
    router_beyond_is_gone: {
        on: &[BRIDGE, MASQUERADE, "ip link del up0; ip netns add isp; ip link add up0 type veth peer name e0 netns isp
            ip addr add 10.0.2.2/24 dev up0; ip link set up0 up; ip -n isp link set lo up; ip -n isp link set e0 up
            ip -n isp addr add 10.0.2.1/24 dev e0; ip -n isp addr add 192.0.2.50/32 dev lo; ip route add default via 10.0.2.1"],
        serves: "",
        breaks: "ip -n isp addr del 10.0.2.1/24 dev e0; ip neigh flush dev up0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped neighbour-unreachable|wrong-gateway host *",
    }
    six_never_given: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 addr flush dev eth0 scope global",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped|rejected|unanswered no-address|no-route /run/netns/c1 *",
    }
    four_taken_away: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 addr flush dev eth0 scope global",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected no-address /run/netns/c1 *",
    }
    six_off_in_the_source: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped|rejected ipv6-disabled /run/netns/c1 *",
    }
    six_off_at_the_destination: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip -n c1 -6 neigh flush dev eth0",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped ipv6-disabled /run/netns/c2 net.ipv6.conf.eth0.disable_ipv6",
    }
    six_off_on_the_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.conf.br-demo.disable_ipv6=1",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped ipv6-disabled host net.ipv6.conf.br-demo.disable_ipv6",
    }
    six_doubled_and_failed: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1
                 ip -n c1 addr del fd00:18::10/64 dev eth0; ip -n c1 addr add fd00:18::20/64 dev eth0
                 for i in $(seq 40); do ip -n c1 addr show dev eth0 dadfailed | grep -q fd00:18::20 && break; sleep 0.1; done",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped|rejected|unanswered ipv6-disabled|duplicate-address /run/netns/c1 *",
    }
    silent_but_pinned: {
        on: &[BRIDGE, MASQUERADE, "ip neigh replace 172.18.0.20 dev br-demo lladdr $(ip netns exec c2 cat /sys/class/net/eth0/address) nud permanent
            ip netns exec c2 sysctl -qw net.ipv4.conf.eth0.arp_ignore=8"],
        ask: "host 172.18.0.20:80",
    }
}
