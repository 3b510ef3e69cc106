//! Networks in which all is well, odd as they look: nothing may be blamed.

use crate::bases::*;
use crate::cases;

/// A second way from c1, by br-two.
const TWO_WAYS: &str = "
    ip link add veth-c1b type veth peer name eth1 netns c1; ip link set veth-c1b master br-two up
    ip -n c1 addr add 172.19.0.20/16 dev eth1; ip -n c1 link set eth1 up";

cases! {
    echo: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c1 172.18.0.20" }
    echo_six: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c1 fd00:18::20" }
    echo_of_the_host: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c1 172.18.0.1" }
    echo_of_the_uplink: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c1 10.0.2.2" }
    to_itself: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c2 172.18.0.20:80" }
    to_its_loopback: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c2 127.0.0.1:80" }
    to_its_loopback_six: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c2 [::1]:80" }
    host_to_itself: { on: &[BRIDGE, MASQUERADE], ask: "host 10.0.2.2:5000" }
    host_to_a_container: { on: &[BRIDGE, MASQUERADE], ask: "host [fd00:18::20]:80" }
    host_to_the_outside: { on: &[BRIDGE, MASQUERADE], ask: "host 192.0.2.50:80" }
    container_to_host: { on: &[BRIDGE, MASQUERADE], ask: "/run/netns/c1 172.18.0.1:5053/udp" }
    outside_to_host: { on: &[BRIDGE, MASQUERADE], ask: "outside 10.0.2.2:5000" }
    outside_six: { on: &[BRIDGE, MASQUERADE], outside: "", ask: "/run/netns/c1 [2001:db8::50]:80" }
    published: { on: &[BRIDGE, MASQUERADE, PUBLISH], ask: "outside 10.0.2.2:8080" }
    published_six: { on: &[BRIDGE, MASQUERADE, PUBLISH], outside: "", ask: "outside [2001:db8:2::2]:8080" }
    published_to_itself: { on: &[BRIDGE, MASQUERADE, PUBLISH], ask: "/run/netns/c2 10.0.2.2:8080" }
    published_from_another: { on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, PUBLISH], ask: "/run/netns/c3 10.0.2.2:8080" }
    published_from_a_neighbour: { on: &[BRIDGE, MASQUERADE, PUBLISH], ask: "/run/netns/c1 10.0.2.2:8080" }
    between_bridges: { on: &[BRIDGE, SECOND_BRIDGE], ask: "/run/netns/c3 172.18.0.20:80" }
    between_bridges_six: { on: &[BRIDGE, SECOND_BRIDGE], ask: "/run/netns/c3 fd00:18::20" }
    odd_mtus: {
        on: &[BRIDGE, MASQUERADE, "ip link set veth-c1 mtu 1400; ip -n c1 link set eth0 mtu 1400"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    large_mtus: {
        on: &[BRIDGE, MASQUERADE, "for n in 1 2; do ip link set veth-c$n mtu 9000; ip -n c$n link set eth0 mtu 9000; done"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    asymmetric_without_filter: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_WAYS, MASQUERADE, "
            for l in all br-two br-demo default; do sysctl -qw net.ipv4.conf.$l.rp_filter=0; done
            ip netns exec c1 sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0
            ip -n c1 route add 192.0.2.50 via 172.19.0.1 src 172.18.0.10"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    asymmetric_with_loose_filter: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_WAYS, MASQUERADE, "
            sysctl -qw net.ipv4.conf.br-two.rp_filter=2; sysctl -qw net.ipv4.conf.all.rp_filter=0
            ip -n c1 route add 192.0.2.50 via 172.19.0.1 src 172.18.0.10"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    policy_routing: {
        on: &[BRIDGE, MASQUERADE, "
            ip route add default via 10.0.2.1 table 77; ip rule add from 172.18.0.0/16 lookup 77 priority 700
            ip route del default"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    policy_routing_by_mark: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table ip m { chain pre { type filter hook prerouting priority mangle; iifname br-demo meta mark set 9; }; }'
            ip route add 192.0.2.0/24 via 10.0.2.1 table 9; ip rule add fwmark 9 lookup 9; ip route add blackhole 192.0.2.0/24 metric 5000"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    rule_with_suppressed_default: {
        on: &[BRIDGE, MASQUERADE, "
            ip rule add lookup main suppress_prefixlength 0 priority 100; ip route add default via 10.0.2.1 table 50; ip rule add lookup 50 priority 200"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    blackhole_for_others: {
        on: &[BRIDGE, MASQUERADE, "ip route add blackhole 192.0.0.0/16; ip route add 192.0.2.0/24 via 10.0.2.1; ip -n c1 route add unreachable 10.0.0.0/8"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    thrown_and_caught: {
        on: &[BRIDGE, MASQUERADE, "ip route add throw 192.0.2.0/24 table 60; ip rule add lookup 60 priority 60"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    two_default_routes: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 route add default via 172.18.0.77 metric 500"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    many_ways: {
        on: &[BRIDGE, MASQUERADE, "ip route replace default nexthop via 10.0.2.1 dev up0 weight 1"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    wider_prefix_in_one: {
        on: &[BRIDGE, "ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/12 dev eth0"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    narrower_prefix_by_the_router: {
        on: &[BRIDGE, "ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/28 dev eth0; ip -n c1 route add default via 172.18.0.1
            sysctl -qw net.ipv4.conf.br-demo.send_redirects=0"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    point_to_point: {
        on: &["
            sysctl -qw net.ipv4.ip_forward=1; ip netns add c1; ip netns add c2
            for n in 1 2; do
                ip link add cali$n type veth peer name eth0 netns c$n; ip link set cali$n up; ip -n c$n link set lo up; ip -n c$n link set eth0 up
                sysctl -qw net.ipv4.conf.cali$n.proxy_arp=1
                ip -n c$n addr add 10.65.0.$n/32 dev eth0; ip -n c$n route add 169.254.1.1 dev eth0; ip -n c$n route add default via 169.254.1.1
                ip route add 10.65.0.$n dev cali$n
            done"],
        ask: "/run/netns/c1 10.65.0.2:80",
    }
    tentative_no_more: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 -6 addr add fd00:18::11/64 dev eth0 nodad; ip -n c1 -6 addr change fd00:18::10/64 dev eth0 preferred_lft 0"],
        ask: "/run/netns/c1 fd00:18::20",
    }
    hundreds_of_rules: {
        on: &[BRIDGE, MASQUERADE, "
            { echo '*filter'; echo ':FORWARD ACCEPT [0:0]'; for n in $(seq 1 250); do echo \"-A FORWARD -s 10.99.$n.0/24 -p tcp -m tcp --dport $n -j DROP\"; done; echo COMMIT; } | iptables-nft-restore --noflush
            { echo 'table inet noise { chain fw { type filter hook forward priority 5;'; for n in $(seq 1 250); do echo \"ip saddr 10.98.$n.1 tcp dport { $n, 9$n } drop\"; done; echo '}; }'; } | nft -f -"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    legacy_beside: {
        on: &[BRIDGE, MASQUERADE, "
            iptables-legacy -A FORWARD -s 10.9.0.0/16 -j DROP; iptables-legacy -A INPUT -p tcp --dport 22 -j DROP
            iptables-legacy -t nat -A POSTROUTING -s 10.9.0.0/16 -j MASQUERADE; ip6tables-legacy -A FORWARD -s fd99::/16 -j REJECT"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    own_tables_of_others: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; ct state { established, related } accept; ct status dnat accept; iifname br-demo accept; oifname br-demo ct state new accept; reject with icmpx admin-prohibited; }; }'
            nft 'table ip libvirt { chain guest { iifname virbr0 counter reject; oifname virbr0 reject; }; chain fw { type filter hook forward priority 0; jump guest; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    drop_policy_with_exceptions: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table inet f { set ok { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }; chain est { ct state vmap { established : accept, related : accept, invalid : drop }; }; chain fw { type filter hook forward priority 0; policy drop; jump est; iifname br-demo ip daddr @ok tcp dport { 80, 443 } accept; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    limits_that_suffice: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table inet f { chain fw { type filter hook forward priority 0; policy drop; ct state established accept; limit rate 1000/second burst 500 packets accept; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    connections_limited: {
        on: &[BRIDGE, MASQUERADE, "iptables-nft -A FORWARD -p tcp --syn -m connlimit --connlimit-above 500 -j REJECT; iptables-nft -A FORWARD -m recent --name x --rcheck --seconds 60 --hitcount 10 -j DROP"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    translated_twice: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "
            nft 'table ip t { chain pre { type nat hook prerouting priority dstnat; iifname br-two ip daddr 203.0.113.9 tcp dport 90 dnat to 172.18.0.20:80; }; chain post { type nat hook postrouting priority srcnat; oifname br-demo ip daddr 172.18.0.20 snat to 172.18.0.1; }; }'"],
        ask: "/run/netns/c3 203.0.113.9:90",
    }
    redirected: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip t { chain pre { type nat hook prerouting priority dstnat; iifname br-demo tcp dport 8888 redirect to :5000; }; }'"],
        ask: "/run/netns/c1 198.51.100.7:8888",
    }
    not_tracked: {
        on: &[BRIDGE, SECOND_BRIDGE, "nft 'table ip r { chain pre { type filter hook prerouting priority raw; notrack; }; chain out { type filter hook output priority raw; notrack; }; }'"],
        ask: "/run/netns/c3 172.18.0.20:80",
    }
    zones: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip z { chain pre { type filter hook prerouting priority raw; ip saddr 10.50.0.0/16 ct zone set 5; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    bridge_rules_for_others: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table bridge b { chain f { type filter hook forward priority 0; policy drop; ether type arp accept; ip saddr 172.18.0.0/16 accept; ip6 saddr fd00:18::/64 accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }'"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    arp_rules_for_others: {
        on: &[BRIDGE, MASQUERADE, "
            ip netns exec c2 nft 'table arp a { chain i { type filter hook input priority 0; policy drop; arp saddr ip 172.18.0.0/16 accept; }; }'; ip -n c1 neigh flush dev eth0"],
        ask: "/run/netns/c1 172.18.0.20",
    }
    stale_neighbours: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 neigh flush dev eth0; ip -n c1 neigh replace 172.18.0.1 lladdr $(cat /sys/class/net/br-demo/address) dev eth0 nud stale"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    same_address_elsewhere: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set br-two down; ip addr flush dev br-two; ip -n c3 addr add 172.18.0.20/16 dev eth0"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    an_idle_link_is_down: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "ip link set veth-c3 down; ip link add spare type veth peer name eraps; ip link add empty type bridge; ip addr add 172.30.0.1/16 dev empty; ip link set empty up"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    without_forwarding_inside: {
        on: &[BRIDGE, "sysctl -qw net.ipv4.ip_forward=0"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    strict_filter: {
        on: &[BRIDGE, MASQUERADE, PUBLISH, "for l in all default up0 br-demo; do sysctl -qw net.ipv4.conf.$l.rp_filter=1; done"],
        ask: "outside 10.0.2.2:8080",
    }
    port_on_one_address: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:80/tcp@172.18.0.20 c2:81/tcp@127.0.0.1",
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    learning_off_but_flooding: {
        on: &[BRIDGE, MASQUERADE, "bridge link set dev veth-c2 learning off; bridge link set dev veth-c1 hairpin on"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    spanning_tree: {
        on: &[BRIDGE, MASQUERADE, "ip link set br-demo type bridge stp_state 1 forward_delay 200; ip link set br-demo type bridge stp_state 0"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    unread_links_elsewhere: {
        on: &[BRIDGE, MASQUERADE, "for n in $(seq 20); do ip netns add idle$n; done; ip netns exec idle1 nft 'table inet f { chain i { type filter hook input priority 0; policy drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    isolated_but_routed: {
        on: &[BRIDGE, SECOND_BRIDGE, "bridge link set dev veth-c1 isolated on; bridge link set dev veth-c3 isolated on"],
        ask: "/run/netns/c1 172.19.0.10",
    }
    icmp_errors_dropped_but_fits: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip q { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
}
