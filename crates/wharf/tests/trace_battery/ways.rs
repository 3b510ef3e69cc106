//! Ways of several kinds: nexthop objects, several ways of one route, policy, the way back, IPv6 as a router.

use crate::bases::*;
use crate::cases;

/// The containers are masqueraded whatever the link.
const MASQUERADE_ANYWHERE: &str = "
    nft 'table ip any { chain post { type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/16 oifname != { br-demo, br-two } masquerade; }; }'";

/// All of sixteen addresses beyond the uplink answer.
const SIXTEEN: &str = "sh:for n in $(seq 50 65); do ip netns exec c1 ping -q -c1 -W1 192.0.2.$n >/dev/null || exit 1; done";
const SIXTEEN_THERE: &str = "ip route del default; ip -6 route del default; for n in $(seq 50 65); do ip addr replace 192.0.2.$n/32 dev lo; done";

/// c1 has a second cable, to br-two.
const TWO_CABLES: &str = "
    ip link add veth-c1b type veth peer name eth1 netns c1; ip link set veth-c1b master br-two up
    ip -n c1 addr add 172.19.0.20/16 dev eth1; ip -n c1 link set eth1 up";

cases! {
    nexthop_object: {
        on: &[BRIDGE, MASQUERADE, "ip nexthop add id 7 via 10.0.2.1 dev up0; ip route replace default nhid 7"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    nexthop_object_to_a_dead_gateway: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 nexthop add id 7 via 172.18.0.77 dev eth0; ip -n c1 route replace default nhid 7",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped wrong-gateway /run/netns/c1 default via 172.18.0.77 dev eth0 | default nhid 7 via 172.18.0.77 dev eth0",
    }
    nexthop_object_that_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip nexthop add id 9 blackhole; ip route add 192.0.2.0/24 nhid 9",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped route-rejects host blackhole 192.0.2.0/24*",
    }
    nexthop_object_that_drops_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 nexthop add id 9 blackhole; ip -n c1 -6 route add 2001:db8::/64 nhid 9",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped|rejected route-rejects /run/netns/c1 blackhole 2001:db8::/64*",
    }
    nexthop_group: {
        on: &[BRIDGE, MASQUERADE, "ip addr add 172.18.0.2/16 dev br-demo; ip -n c1 nexthop add id 1 via 172.18.0.1 dev eth0; ip -n c1 nexthop add id 2 via 172.18.0.2 dev eth0; ip -n c1 nexthop add id 3 group 1/2; ip -n c1 route replace default nhid 3"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    nexthop_group_all_dead: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 nexthop add id 1 via 172.18.0.77 dev eth0; ip -n c1 nexthop add id 2 via 172.18.0.78 dev eth0; ip -n c1 nexthop add id 3 group 1/2; ip -n c1 route replace default nhid 3",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected wrong-gateway /run/netns/c1 default*",
    }
    one_way_of_two_is_dead: {
        on: &[BRIDGE, MASQUERADE],
        outside: SIXTEEN_THERE,
        breaks: "ip -n c1 route replace default nexthop via 172.18.0.1 dev eth0 nexthop via 172.18.0.77 dev eth0",
        ask: "/run/netns/c1 192.0.2.50:80",
        traffic: SIXTEEN, then: SIXTEEN,
        says: "dropped|delivered wrong-gateway /run/netns/c1 *",
    }
    one_way_of_two_is_dead_at_the_host: {
        on: &[BRIDGE, MASQUERADE],
        outside: SIXTEEN_THERE,
        breaks: "ip route replace default nexthop via 10.0.2.99 dev up0 nexthop via 10.0.2.1 dev up0",
        ask: "/run/netns/c1 192.0.2.50",
        traffic: SIXTEEN, then: SIXTEEN,
        says: "dropped|delivered wrong-gateway|neighbour-unreachable host *",
    }
    all_ways_are_dead: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route replace default nexthop via 172.18.0.76 dev eth0 nexthop via 172.18.0.77 dev eth0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped wrong-gateway /run/netns/c1 default*",
    }
    default_route_by_the_other_network: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, TWO_CABLES],
        breaks: "ip -n c1 route replace default via 172.19.0.1; sysctl -qw net.ipv4.conf.br-two.rp_filter=0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    default_route_by_a_network_that_is_cut_off: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE_ANYWHERE, TWO_CABLES],
        breaks: "nft 'table ip cut { chain f { type filter hook forward priority 0; iifname br-two oifname != br-two drop; }; }'; ip -n c1 route replace default via 172.19.0.1",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip cut f handle 2",
    }
    answers_leave_by_the_other_network: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, TWO_CABLES, "
            ip netns exec c1 sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0
            nft 'table ip pub { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8080 dnat to 172.18.0.10:80; }; }'"],
        serves: "c1:80/tcp",
        breaks: "sysctl -qw net.ipv4.conf.br-demo.rp_filter=1 net.ipv4.conf.br-two.rp_filter=1; ip -n c1 route add 192.0.2.0/24 via 172.19.0.1; ip -n c1 route add 10.0.2.0/24 via 172.19.0.1",
        ask: "outside 10.0.2.2:8080",
        says: "unanswered reverse-path-filter host net.ipv4.conf.br-two.rp_filter",
    }
    strict_filter_with_a_rule_for_the_way_back: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_CABLES, "
            ip netns exec c1 sysctl -qw net.ipv4.conf.eth1.rp_filter=1
            ip -n c1 route add 172.18.0.0/16 dev eth1 table 50; ip -n c1 rule add iif eth1 lookup 50 priority 300"],
        serves: "c1:80/tcp",
        ask: "host 172.19.0.20:80",
    }
    // The way back is asked for as if it came in where the packet goes out.
    strict_filter_saved_by_a_rule_for_the_way_out: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            ip netns exec c3 sysctl -qw net.ipv4.conf.eth0.arp_announce=2; ip -n c3 addr add 10.66.0.1/32 dev lo
            ip route add 10.66.0.1 via 172.18.0.20; ip rule add iif br-demo lookup 60 priority 300; ip route add 10.66.0.1 via 172.19.0.10 dev br-two table 60
            ip -n c3 route replace 172.18.0.0/16 via 172.19.0.1 src 10.66.0.1; sysctl -qw net.ipv4.conf.br-two.rp_filter=1"],
        ask: "/run/netns/c3 172.18.0.20",
    }
    strict_filter_not_saved_by_a_rule_for_the_way_in: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            ip netns exec c3 sysctl -qw net.ipv4.conf.eth0.arp_announce=2; ip -n c3 addr add 10.66.0.1/32 dev lo
            ip route add 10.66.0.1 via 172.18.0.20; ip rule add iif br-demo lookup 60 priority 300; ip route add 10.66.0.1 via 172.19.0.10 dev br-two table 60
            ip -n c3 route replace 172.18.0.0/16 via 172.19.0.1 src 10.66.0.1; sysctl -qw net.ipv4.conf.br-two.rp_filter=1"],
        breaks: "ip rule del priority 300; ip rule add iif br-two lookup 60 priority 300",
        ask: "/run/netns/c3 172.18.0.20",
        says: "dropped reverse-path-filter host net.ipv4.conf.br-two.rp_filter",
        no_fix: "the other way back leads nowhere",
    }
    strict_filter_not_saved_by_a_mark: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            ip -n c3 addr add 10.66.0.1/32 dev lo; ip rule add fwmark 5 lookup 60 priority 300; ip route add 10.66.0.1 via 172.19.0.10 dev br-two table 60
            nft 'table ip m { chain pre { type filter hook prerouting priority mangle; iifname br-two meta mark set 5; iifname br-demo meta mark set 5; }; }'
            ip -n c3 route replace 172.18.0.0/16 via 172.19.0.1 src 10.66.0.1"],
        breaks: "sysctl -qw net.ipv4.conf.br-two.rp_filter=1",
        ask: "/run/netns/c3 172.18.0.20",
        says: "dropped reverse-path-filter host net.ipv4.conf.br-two.rp_filter",
    }
    strict_filter_saved_by_a_mark: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            ip netns exec c3 sysctl -qw net.ipv4.conf.eth0.arp_announce=2
            ip -n c3 addr add 10.66.0.1/32 dev lo; ip rule add fwmark 5 lookup 60 priority 300; ip route add 10.66.0.1 via 172.19.0.10 dev br-two table 60
            nft 'table ip m { chain pre { type filter hook prerouting priority mangle; iifname br-two meta mark set 5; iifname br-demo meta mark set 5; }; }'
            ip -n c3 route replace 172.18.0.0/16 via 172.19.0.1 src 10.66.0.1
            sysctl -qw net.ipv4.conf.br-two.rp_filter=1 net.ipv4.conf.br-two.src_valid_mark=1"],
        ask: "/run/netns/c3 172.18.0.20",
    }
    rule_for_a_service: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add iif br-demo ipproto udp dport 53 unreachable priority 400",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "rejected policy-rule host 400: from all iif br-demo ipproto udp dport 53 unreachable",
    }
    rule_to_a_table_that_throws: {
        on: &[BRIDGE, MASQUERADE, "ip route add throw default table 70; ip rule add from 172.18.0.0/16 lookup 70 priority 400"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    rule_to_a_table_that_prohibits: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add prohibit 192.0.2.0/24 table 70; ip rule add from 172.18.0.0/16 lookup 70 priority 400",
        ask: "/run/netns/c1 192.0.2.50",
        says: "rejected policy-rule|route-rejects host 400: from 172.18.0.0/16 lookup 70 | prohibit 192.0.2.0/24 table 70",
    }
    rule_that_skips_the_main_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add priority 400 goto 32767; ip rule add priority 32767 lookup default 2>/dev/null || true",
        ask: "/run/netns/c1 192.0.2.50",
        says: "rejected|dropped policy-rule|no-route host *",
    }
    six_router_by_advertisement: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.conf.up0.accept_ra=1; ip -6 route del default",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped|rejected no-route host 2001:db8::50",
        after_fix: "ip -6 route replace default via 2001:db8:2::1 2>/dev/null || ip -6 route replace default dev up0",
    }
    six_tentative: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv6.conf.eth0.dad_transmits=200 net.ipv6.conf.eth0.accept_dad=1 net.ipv6.conf.all.accept_dad=1
                 ip -n c1 addr del fd00:18::10/64 dev eth0; ip -n c1 addr add fd00:18::10/64 dev eth0; ip -n c1 -6 route replace default via fd00:18::1",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped|rejected|unanswered ipv6-disabled /run/netns/c1 fd00:18::10/64 dev eth0",
    }
    six_tentative_at_the_destination: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv6.conf.eth0.dad_transmits=200 net.ipv6.conf.eth0.accept_dad=1 net.ipv6.conf.all.accept_dad=1
                 ip -n c2 addr del fd00:18::20/64 dev eth0; ip -n c2 addr add fd00:18::20/64 dev eth0; ip -n c1 -6 neigh flush all",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped ipv6-disabled /run/netns/c2 fd00:18::20/64 dev eth0",
    }
    six_forced_for_one_link: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.conf.all.forwarding=0; sysctl -qw net.ipv6.conf.br-demo.forwarding=1; ip -6 route replace default via 2001:db8:2::1 dev up0 2>/dev/null || true",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped forwarding-disabled host net.ipv6.conf.all.forwarding",
    }
    gateway_pinned_in_the_container_for_answers: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 neigh replace 172.18.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered neighbour-wrong /run/netns/c2 172.18.0.1 dev eth0 lladdr 02:00:00:00:00:99",
    }
}
