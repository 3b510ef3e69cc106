//! Routes and policy: missing, wrong, refusing, and ways back.

use crate::bases::*;
use crate::cases;

/// A machine beyond up0 whose namespace can be read, in place of the one that cannot.
const SEEN: &str = "
    ip link del up0; ip netns add isp; ip link add up0 type veth peer name e0 netns isp
    ip addr add 10.0.2.2/24 dev up0; ip -6 addr add 2001:db8:2::2/64 dev up0 nodad; ip link set up0 up
    ip -n isp link set lo up; ip -n isp link set e0 up
    ip -n isp addr add 10.0.2.1/24 dev e0; ip -n isp -6 addr add 2001:db8:2::1/64 dev e0 nodad
    ip -n isp addr add 192.0.2.50/32 dev lo; ip -n isp -6 addr add 2001:db8::50/128 dev lo nodad
    ip route add default via 10.0.2.1; ip -6 route add default via 2001:db8:2::1";

/// c1 has a second cable, to br-two.
const TWO_WAYS: &str = "
    ip link add veth-c1b type veth peer name eth1 netns c1; ip link set veth-c1b master br-two up
    ip -n c1 addr add 172.19.0.20/16 dev eth1; ip -n c1 link set eth1 up";

cases! {
    no_default_route_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 route del default",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped|rejected no-route /run/netns/c1 2001:db8::50",
    }
    host_without_default_route: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route del default",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected no-route host 192.0.2.50",
        after_fix: "ip route replace default via 10.0.2.1",
    }
    host_without_default_route_seen: {
        on: &[BRIDGE, MASQUERADE, SEEN],
        serves: "isp:80/tcp",
        breaks: "ip route del default",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected no-route host 192.0.2.50",
    }
    no_masquerade_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft delete table ip6 hand-nat",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "unanswered no-masquerade host up0",
    }
    no_masquerade_seen: {
        on: &[BRIDGE, MASQUERADE, SEEN],
        serves: "isp:80/tcp",
        breaks: "nft delete table ip hand-nat",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    masquerade_for_another_subnet: {
        on: &[BRIDGE, "iptables-nft -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-demo -j MASQUERADE"],
        breaks: "iptables-nft -t nat -F; iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o br-demo -j MASQUERADE",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "unanswered no-masquerade host up0",
    }
    no_way_back: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 route del default",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered no-return-route /run/netns/c2 *",
    }
    no_way_back_six: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 -6 route del default",
        ask: "/run/netns/c3 fd00:18::20",
        says: "unanswered no-return-route /run/netns/c2 *",
    }
    no_way_back_for_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "ip -n c2 route del default",
        ask: "outside 10.0.2.2:8080",
        says: "unanswered no-return-route /run/netns/c2 *",
    }
    way_back_is_refused: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 route add blackhole 172.19.0.0/16",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered route-rejects /run/netns/c2 blackhole 172.19.0.0/16",
    }
    way_back_by_a_dead_gateway: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 route replace default via 172.18.0.77",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered wrong-gateway /run/netns/c2 *",
    }
    gateway_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route replace default via 172.18.0.77",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway /run/netns/c1 default via 172.18.0.77 dev eth0",
    }
    gateway_nobody_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 route replace default via fd00:18::77",
        ask: "/run/netns/c1 [2001:db8::50]:53/udp",
        says: "dropped wrong-gateway /run/netns/c1 default via fd00:18::77 dev eth0",
    }
    gateway_is_a_container: {
        on: &[BRIDGE, MASQUERADE, "ip netns exec c2 sysctl -qw net.ipv4.ip_forward=0"],
        breaks: "ip -n c1 route replace default via 172.18.0.20",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway /run/netns/c1 default via 172.18.0.20 dev eth0",
    }
    gateway_off_the_segment: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route replace default via 10.99.0.1 dev eth0 onlink",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway /run/netns/c1 default via 10.99.0.1 dev eth0 onlink",
    }
    no_gateway_at_all: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route replace default dev eth0; sysctl -qw net.ipv4.conf.br-demo.proxy_arp=0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway|no-such-destination|wrong-prefix-length /run/netns/c1 default dev eth0 scope link | default dev eth0",
    }
    gateway_of_the_bridge_gone: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip addr del 172.18.0.1/16 dev br-demo",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|unanswered wrong-gateway|neighbour-unreachable|no-address * *",
    }
    dead_nexthop_more_specific: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add 192.0.2.0/24 via 172.18.0.77",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway|neighbour-unreachable /run/netns/c1 192.0.2.0/24 via 172.18.0.77 dev eth0",
    }
    better_metric_to_a_dead_gateway: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 route del default; ip -n c1 route add default via 172.18.0.1 metric 200"],
        breaks: "ip -n c1 route add default via 172.18.0.88 metric 50",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped wrong-gateway|route-conflict /run/netns/c1 default via 172.18.0.88 dev eth0 metric 50",
    }
    prefix_too_wide: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/12 dev eth0
                 ip -n c1 route replace default via 172.18.0.1",
        ask: "/run/netns/c1 172.19.0.10",
        says: "dropped wrong-prefix-length /run/netns/c1 172.16.0.0/12 dev eth0 | 172.18.0.10/12 dev eth0 | 172.18.0.10/12",
    }
    prefix_too_wide_six: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c1 addr del fd00:18::10/64 dev eth0; ip -n c1 addr add fd00:18::10/16 dev eth0 nodad",
        ask: "/run/netns/c1 [fd00:19::10]:80",
        serves: "c3:80/tcp",
        says: "dropped wrong-prefix-length /run/netns/c1 *",
    }
    prefix_too_wide_at_the_far_end: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip -n c2 addr del 172.18.0.20/16 dev eth0; ip -n c2 addr add 172.18.0.20/8 dev eth0; ip -n c2 route replace default via 172.18.0.1",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered wrong-prefix-length /run/netns/c2 *",
    }
    prefix_too_narrow: {
        on: &[BRIDGE],
        breaks: "ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/28 dev eth0",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped|rejected wrong-prefix-length /run/netns/c1 *",
    }
    prefix_too_narrow_at_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip addr del 172.18.0.1/16 dev br-demo; ip addr add 172.18.0.1/28 dev br-demo",
        ask: "host 172.18.0.20:80",
        says: "dropped|rejected|unanswered wrong-prefix-length host *",
    }
    blackhole: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add blackhole 192.0.2.0/24",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected route-rejects /run/netns/c1 blackhole 192.0.2.0/24",
    }
    prohibit_at_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add prohibit 192.0.2.50",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "rejected route-rejects host prohibit 192.0.2.50",
    }
    unreachable_at_the_host_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -6 route add unreachable 2001:db8::50",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "rejected route-rejects host unreachable 2001:db8::50 dev lo metric 1024 pref medium | unreachable 2001:db8::50 dev lo metric 1024 | unreachable 2001:db8::50",
    }
    blackhole_at_the_host_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -6 route add blackhole 2001:db8::/48",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped route-rejects host *",
    }
    throw_with_nothing_after: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add throw 192.0.2.0/24",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected route-rejects /run/netns/c1 throw 192.0.2.0/24",
    }
    rule_to_an_empty_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add blackhole default table 100; ip -n c1 rule add from 172.18.0.10 lookup 100",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected policy-rule /run/netns/c1 32765: from 172.18.0.10 lookup 100",
    }
    rule_to_a_dead_gateway: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add default via 10.0.2.99 table 200; ip rule add from 172.18.0.0/16 lookup 200 priority 1000",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped policy-rule|wrong-gateway|neighbour-unreachable host 1000: from 172.18.0.0/16 lookup 200",
        outside: "",
    }
    rule_that_prohibits: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add iif br-demo to 192.0.2.0/24 prohibit priority 500",
        ask: "/run/netns/c1 192.0.2.50",
        says: "rejected policy-rule host 500: from all to 192.0.2.0/24 iif br-demo prohibit",
    }
    rule_that_blackholes_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -6 rule add from fd00:18::/64 blackhole priority 500",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped policy-rule host 500: from fd00:18::/64 blackhole",
    }
    rule_for_a_port: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 rule add ipproto tcp dport 80 unreachable priority 700",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "rejected|dropped policy-rule /run/netns/c1 700: from all ipproto tcp dport 80 unreachable",
    }
    rule_by_mark: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add blackhole default table 300; ip rule add fwmark 0x7 lookup 300 priority 900
                 nft 'table ip m { chain pre { type filter hook prerouting priority mangle; iifname br-demo meta mark set 7; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped policy-rule host 900: from all fwmark 0x7 lookup 300",
    }
    rule_for_answers: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip rule add from 172.18.0.20 blackhole priority 800",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered policy-rule host 800: from 172.18.0.20 blackhole",
    }
    main_table_not_asked: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 rule del priority 32766",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped|rejected policy-rule|no-route /run/netns/c1 *",
    }
    two_bridges_one_subnet: {
        on: &[BRIDGE],
        breaks: "ip link add br-old type bridge; ip link set br-old up; ip addr flush dev br-demo; ip addr add 172.18.0.1/16 dev br-old
                 ip addr add 172.18.0.2/16 dev br-demo; ip netns add cx; ip link add vx type veth peer name eth0 netns cx; ip link set vx master br-old up; ip -n cx link set eth0 up",
        ask: "host 172.18.0.20:80",
        says: "dropped route-conflict host 172.18.0.0/16 dev br-old",
    }
    host_route_to_the_wrong_bridge: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip route add 172.18.0.20 dev br-two",
        ask: "host 172.18.0.20",
        says: "dropped route-conflict host 172.18.0.20 dev br-two",
    }
    two_links_of_one_container: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_WAYS],
        breaks: "ip -n c1 route add 172.19.0.10 dev eth0",
        ask: "/run/netns/c1 172.19.0.10",
        says: "dropped route-conflict|wrong-prefix-length /run/netns/c1 172.19.0.10 dev eth0",
    }
    circle: {
        on: &[BRIDGE, MASQUERADE, "ip netns exec c2 sysctl -qw net.ipv4.ip_forward=1; ip route add 10.77.0.0/16 via 172.18.0.20; ip -n c2 addr add 10.77.0.1/16 dev lo"],
        breaks: "ip -n c2 addr del 10.77.0.1/16 dev lo",
        ask: "host 10.77.0.1",
        says: "dropped ttl-expired * *",
        no_fix: "nobody has the address any more",
    }
    ttl_of_one: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv4.ip_default_ttl=1",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped ttl-expired /run/netns/c1 net.ipv4.ip_default_ttl",
    }
    hop_limit_of_one: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv6.conf.eth0.hop_limit=1",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped ttl-expired /run/netns/c1 net.ipv6.conf.eth0.hop_limit",
    }
    ttl_of_the_answer: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv4.ip_default_ttl=1",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered ttl-expired /run/netns/c2 net.ipv4.ip_default_ttl",
    }
    ttl_set_by_a_rule: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip m { chain pre { type filter hook prerouting priority mangle; iifname br-demo ip ttl set 1; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped ttl-expired host ip m pre handle 2",
    }
    ttl_set_by_iptables: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -t mangle -A PREROUTING -i br-demo -j TTL --ttl-set 1",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped ttl-expired host *",
    }
    martian_loopback_published: {
        on: &[BRIDGE, MASQUERADE, "sysctl -qw net.ipv4.conf.all.route_localnet=1
            nft 'table ip h { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 7000 dnat to 127.0.0.1:5000; }; }'"],
        breaks: "sysctl -qw net.ipv4.conf.all.route_localnet=0",
        ask: "outside 10.0.2.2:7000",
        says: "dropped martian-address host net.ipv4.conf.up0.route_localnet",
    }
    martian_source: {
        on: &[BRIDGE, MASQUERADE, "ip addr add 172.18.9.9/32 dev lo"],
        breaks: "ip -n c1 addr add 172.18.9.9/16 dev eth0; ip -n c1 route replace default via 172.18.0.1 src 172.18.9.9",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|unanswered martian-address|duplicate-address * *",
        after_fix: "ip -n c1 route replace default via 172.18.0.1",
    }
    reverse_path_all: {
        breaks: "sysctl -qw net.ipv4.conf.all.rp_filter=1
                 ip -n c1 route add 192.0.2.50 via 172.19.0.1 src 172.18.0.10",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped reverse-path-filter host net.ipv4.conf.all.rp_filter",
        on: &[BRIDGE, SECOND_BRIDGE, TWO_WAYS, MASQUERADE],
    }
    reverse_path_in_a_container: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_WAYS],
        breaks: "ip netns exec c1 sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
        ask: "/run/netns/c2 172.19.0.20",
        says: "dropped reverse-path-filter /run/netns/c1 net.ipv4.conf.eth1.rp_filter",
    }
    forwarding_off_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.conf.all.forwarding=0; ip -6 route replace default via 2001:db8:2::1",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped forwarding-disabled host net.ipv6.conf.all.forwarding",
    }
    forwarding_off_between_bridges: {
        on: &[BRIDGE, SECOND_BRIDGE],
        serves: "c3:80/tcp c3:53/udp",
        breaks: "sysctl -qw net.ipv4.conf.all.forwarding=0",
        ask: "/run/netns/c1 172.19.0.10:53/udp",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
    }
    forwarding_off_for_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv4.conf.up0.forwarding=0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered forwarding-disabled host net.ipv4.conf.up0.forwarding",
    }
    forwarding_off_for_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "sysctl -qw net.ipv4.ip_forward=0",
        ask: "outside 10.0.2.2:8080",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
    }
    uplink_too_small_and_silent: {
        on: &[BRIDGE, MASQUERADE, "ip link set up0 mtu 1400"],
        outside: "ip route del default; ip link set down0 mtu 1400",
        breaks: "ip netns exec c1 ip route flush cache
                 nft 'table ip q { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "delivered but",
        also: &["mtu-exceeded"],
        traffic: "sh:ip netns exec c1 ping -q -c2 -W1 -i 0.3 -M want -s 1472 192.0.2.50",
    }
    uplink_too_small_and_told: {
        on: &[BRIDGE, MASQUERADE, "ip link set up0 mtu 1400"],
        outside: "ip route del default; ip link set down0 mtu 1400",
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    port_of_a_bridge_too_small: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c2 link set eth0 mtu 1300; ip link set veth-c2 mtu 1300; ip link set br-demo mtu 1500",
        ask: "/run/netns/c1 172.18.0.20",
        says: "delivered but",
        also: &["mtu-exceeded"],
        traffic: "sh:ip netns exec c1 ping -q -c1 -W1 -s 1472 172.18.0.20",
    }
    // The reverse path filter asks so, also for the question for the gateway.
    rule_for_own_packets_and_reverse_path: {
        on: &[BRIDGE, MASQUERADE, "sysctl -qw net.ipv4.conf.br-demo.rp_filter=1"],
        breaks: "ip rule add iif lo priority 109 unreachable; ip neigh flush all; ip -n c1 neigh flush all",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped policy-rule host 109: from all iif lo unreachable",
        after_fix: "ip -n c1 neigh flush all",
    }
    rule_that_leads_nowhere: {
        on: &[BRIDGE, MASQUERADE, "ip -6 rule add goto 32767 priority 32760; ip rule add goto 40000 priority 109"],
        ask: "host [fd00:18::20]:80",
    }
    rule_that_leads_nowhere_four: {
        on: &[BRIDGE, MASQUERADE, "ip rule add goto 40000 priority 109"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    route_onto_the_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip route add 192.0.2.50 dev br-demo",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected route-conflict host 192.0.2.50 dev br-demo",
    }
}
