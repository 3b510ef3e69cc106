//! Packet rules of every family, hook and form, by nft.

use crate::bases::*;
use crate::cases;

cases! {
    raw_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip r { chain pre { type filter hook prerouting priority raw; iifname br-demo udp dport 53 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped firewall-rule host ip r pre handle 2",
    }
    mangle_table_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip6 m { chain post { type filter hook postrouting priority mangle; oifname up0 tcp dport 80 drop; }; }'",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped firewall-rule host ip6 m post handle 2",
    }
    ingress_of_a_port: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table netdev d { chain i { type filter hook ingress device veth-c1 priority 0; ip protocol icmp drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped firewall-rule host netdev d i handle 2",
    }
    ingress_of_the_uplink: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft 'table netdev d { chain i { type filter hook ingress device up0 priority 0; tcp dport 8080 drop; }; }'",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-rule host netdev d i handle 2",
    }
    egress_of_the_uplink: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table netdev d { chain e { type filter hook egress device up0 priority 0; ip daddr 192.0.2.50 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host netdev d e handle 2",
    }
    ingress_in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 nft 'table netdev d { chain i { type filter hook ingress device eth0 priority 0; tcp dport 80 drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule /run/netns/c2 netdev d i handle 2",
    }
    bridge_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook forward priority 0; ip daddr 172.18.0.20 tcp dport 80 drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule host bridge b f handle 2",
    }
    bridge_table_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook prerouting priority 0; iifname veth-c1 icmpv6 type echo-request drop; }; }'",
        ask: "/run/netns/c1 fd00:18::20",
        says: "dropped firewall-rule host bridge b f handle 2",
    }
    bridge_table_for_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook forward priority 0; iifname veth-c2 tcp sport 80 drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "unanswered firewall-rule host bridge b f handle 2",
    }
    bridge_policy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook forward priority 0; policy drop; ether type arp accept; tcp dport 22 accept; }; }'",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-policy host bridge b f",
    }
    bridge_table_to_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain i { type filter hook input priority 0; udp dport 5053 drop; }; }'",
        ask: "/run/netns/c1 172.18.0.1:5053/udp",
        says: "dropped firewall-rule host bridge b i handle 2",
    }
    input_policy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }'",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-policy host inet f in",
    }
    input_policy_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip6 f { chain in { type filter hook input priority 0; policy drop; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }'",
        ask: "/run/netns/c1 [fd00:18::1]:5000",
        says: "dropped firewall-policy host ip6 f in",
    }
    forward_policy_without_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; policy drop; iifname br-demo oifname up0 accept; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered firewall-policy host inet f fw",
    }
    output_rejected_in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 nft 'table ip f { chain o { type filter hook output priority 0; ip daddr 192.0.2.0/24 reject; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "rejected firewall-rule /run/netns/c1 ip f o handle 2",
    }
    reset: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; tcp dport 80 reject with tcp reset; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "rejected firewall-rule host inet f fw handle 2",
    }
    not_tracked_and_stateful: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            nft 'table inet s { chain f { type filter hook forward priority 0; ct state established,related accept; ip daddr 172.18.0.20 tcp dport 80 accept; ip saddr 172.18.0.20 drop; }; }'"],
        breaks: "nft 'table ip n { chain pre { type filter hook prerouting priority raw; ip saddr 172.18.0.20 notrack; }; }'",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered firewall-rule host inet s f handle 4 | ip n pre handle 2",
    }
    in_a_set: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { set bad { type ipv4_addr; flags interval,timeout; elements = { 192.0.2.0/24 timeout 1h }; }; chain fw { type filter hook forward priority 0; ip daddr @bad drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet f fw handle 3",
    }
    in_a_set_of_pairs: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip f { set bad { type ipv4_addr . inet_service; elements = { 192.0.2.50 . 80 }; }; chain fw { type filter hook forward priority 0; ip daddr . tcp dport @bad drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip f fw handle 3",
    }
    by_a_verdict_map: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain web { drop; }; chain fw { type filter hook forward priority 0; tcp dport vmap { 22 : accept, 80 : jump web }; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host inet f web handle *",
    }
    by_a_jump_and_a_return: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain a { ip daddr 198.51.100.0/24 accept; return; }; chain fw { type filter hook forward priority 0; policy drop; ct state established accept; jump a; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-policy host inet f fw",
    }
    by_mark: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain pre { type filter hook prerouting priority mangle; iifname br-demo meta mark set 0x55; }; chain fw { type filter hook forward priority 0; meta mark 0x55 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet f fw handle 4 | inet f fw handle 3",
    }
    later_priority: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet ok { chain fw { type filter hook forward priority 0; accept; }; }'
                 nft 'table inet late { chain fw { type filter hook forward priority 50; icmp type echo-request drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet late fw handle 2",
    }
    by_size: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; meta length < 100 meta l4proto icmp drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet f fw handle 2",
        traffic: "sh:ip netns exec c1 ping -c1 -W1 -q 192.0.2.50",
    }
    by_mac: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft \"table inet f { chain fw { type filter hook forward priority 0; ether saddr $(ip netns exec c1 cat /sys/class/net/eth0/address) drop; }; }\"",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet f fw handle 2",
    }
    by_reverse_path: {
        on: &[BRIDGE, SECOND_BRIDGE, MASQUERADE, "
            ip link add veth-c1b type veth peer name eth1 netns c1; ip link set veth-c1b master br-two up
            ip -n c1 addr add 172.19.0.20/16 dev eth1; ip -n c1 link set eth1 up
            ip -n c1 route add 192.0.2.50 via 172.19.0.1 src 172.18.0.10"],
        breaks: "nft 'table inet f { chain pre { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet f pre handle 2",
    }
    answers_by_port: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 nft 'table inet f { chain o { type filter hook output priority 0; tcp sport 80 drop; }; }'",
        ask: "host 172.18.0.20:80",
        says: "unanswered firewall-rule /run/netns/c2 inet f o handle 2",
    }
    answers_dropped_by_the_asker: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 nft 'table inet f { chain i { type filter hook input priority 0; udp sport 53 drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "unanswered firewall-rule /run/netns/c1 inet f i handle 2",
    }
    published_and_dropped: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; ct status dnat drop; }; }'",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-rule host inet f fw handle 2",
    }
    published_and_dropped_six: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        outside: "",
        breaks: "nft 'table ip6 f { chain fw { type filter hook forward priority 0; ip6 daddr fd00:18::20 tcp dport 80 reject; }; }'",
        ask: "outside [2001:db8:2::2]:8080",
        says: "rejected firewall-rule host ip6 f fw handle 2",
    }
    original_port: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft 'table ip f { chain fw { type filter hook forward priority 0; meta l4proto tcp ct original proto-dst 8080 drop; }; }'",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-rule host ip f fw handle 2",
    }
    own_packets_of_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain o { type filter hook output priority 0; oifname br-demo ip daddr 172.18.0.20 tcp dport 80 drop; }; }'",
        ask: "host 172.18.0.20:80",
        says: "dropped|rejected firewall-rule host inet f o handle 2",
    }
    loopback_input: {
        on: &[BRIDGE],
        breaks: "nft 'table inet f { chain i { type filter hook input priority 0; iif lo tcp dport 5000 drop; }; }'",
        ask: "host 127.0.0.1:5000",
        says: "dropped firewall-rule host inet f i handle 2",
    }
    two_rules: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; tcp dport 80 drop; ip daddr 192.0.2.50 reject; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host inet f fw handle 2",
        also: &["firewall-rule"],
    }
}
