//! Sound networks that look broken: nothing may be blamed.

use crate::bases::*;
use crate::cases;

/// Rules of a program that has to do with neither the addresses nor the ports.
const IRRELEVANT: &str = "
    { echo 'table inet noise { chain f { type filter hook forward priority 0; policy accept;'
      for i in $(seq 1 400); do echo \"ip saddr 198.18.$((i / 200)).$((i % 200)) tcp dport $i drop\"; done
      echo '}'; echo '}'; } | nft -f -
    for i in $(seq 1 60); do echo \"-A FORWARD -s 198.19.0.$i/32 -p udp -m udp --dport $i -j DROP\"; done | { echo '*filter'; cat; echo COMMIT; } | iptables-legacy-restore -n";

/// Another table has all routes, chosen by a rule for the containers' addresses.
const POLICY: &str = "
    ip route add default via 10.0.2.1 dev up0 table 100; ip route add 172.18.0.0/16 dev br-demo table 100
    ip rule add from 172.18.0.0/16 lookup 100 priority 100; ip rule add to 172.18.0.0/16 lookup 100 priority 101
    ip route del default; ip route add default via 10.0.2.1 dev up0 metric 4000";

/// The answer comes back by another link of c1 than the question left.
const TWO_CABLES: &str = "
    ip link add veth-c1b type veth peer name eth1 netns c1; ip link set veth-c1b master br-two up
    ip -n c1 addr add 172.19.0.20/16 dev eth1; ip -n c1 link set eth1 up
    for n in all eth0 eth1; do ip netns exec c1 sysctl -qw net.ipv4.conf.$n.rp_filter=0; done
    for n in all br-demo br-two; do sysctl -qw net.ipv4.conf.$n.rp_filter=0; done";

cases! {
    hundreds_of_irrelevant_rules: { on: &[BRIDGE, MASQUERADE, IRRELEVANT], ask: "/run/netns/c1 192.0.2.50:80" }
    hundreds_of_irrelevant_rules_udp: { on: &[BRIDGE, MASQUERADE, IRRELEVANT], ask: "/run/netns/c1 192.0.2.50:53/udp" }
    policy_routing: { on: &[BRIDGE, MASQUERADE, POLICY], ask: "/run/netns/c1 192.0.2.50:80" }
    policy_routing_and_published: { on: &[BRIDGE, MASQUERADE, PUBLISH, POLICY], ask: "outside 10.0.2.2:8080" }
    answer_by_another_cable: {
        on: &[BRIDGE, SECOND_BRIDGE, TWO_CABLES, "ip route add 172.19.0.20/32 via 172.18.0.10"],
        ask: "/run/netns/c1 172.19.0.10:80", serves: "c3:80/tcp",
    }
    rule_suppresses_the_default: {
        on: &[BRIDGE, MASQUERADE, "ip rule add lookup main suppress_prefixlength 0 priority 50; ip route add default via 10.0.2.1 table 51; ip rule add lookup 51 priority 51"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    throw_that_leads_on: {
        on: &[BRIDGE, MASQUERADE, "ip rule add lookup 60 priority 60; ip route add throw 192.0.2.0/24 table 60; ip route add blackhole default table 60; ip rule add to 172.18.0.0/16 lookup main priority 59; ip rule add to 10.0.2.0/24 lookup main priority 59"],
        ask: "/run/netns/c1 192.0.2.50:53/udp",
    }
    unusual_sizes: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 link set eth0 mtu 1280; ip link set veth-c1 mtu 1280; ip link set br-demo mtu 1280; ip -n c2 link set eth0 mtu 1280; ip link set veth-c2 mtu 1280"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    large_frames: {
        on: &[BRIDGE, MASQUERADE, "for n in 1 2; do ip link set veth-c$n mtu 9000; ip -n c$n link set eth0 mtu 9000; done; ip link set br-demo mtu 9000"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    marks_kept_with_the_connection: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip m { chain pre { type filter hook prerouting priority mangle; meta mark set ct mark; meta mark 0 iifname br-demo meta mark set 3; ct mark set meta mark; }; chain f { type filter hook forward priority 0; policy drop; ct mark 3 accept; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    marks_kept_by_iptables: {
        on: &[BRIDGE, MASQUERADE, "
            iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark
            iptables-nft -t mangle -A PREROUTING -i br-demo -m mark --mark 0 -j MARK --set-mark 9
            iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark
            iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m connmark --mark 9 -j ACCEPT"],
        ask: "/run/netns/c1 192.0.2.50:53/udp",
    }
    not_tracked_at_all: {
        on: &[BRIDGE, SECOND_BRIDGE, "nft 'table ip u { chain pre { type filter hook prerouting priority raw; notrack; }; chain o { type filter hook output priority raw; notrack; }; chain f { type filter hook forward priority 0; policy drop; ct state untracked accept; }; }'"],
        ask: "/run/netns/c3 172.18.0.20:80",
    }
    source_checked_by_rules: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet rpf { chain pre { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; fib saddr type local iifname != lo drop; }; }'"],
        ask: "/run/netns/c1 [2001:db8::50]:80",
    }
    concatenated_sets_and_timeouts: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet s { set ok { type ipv4_addr . inet_proto . inet_service; flags interval, timeout; elements = { 172.18.0.0/24 . tcp . 80 timeout 1h, 172.18.0.0/24 . udp . 50-60 timeout 1h }; }; chain f { type filter hook forward priority 0; policy drop; ct state established,related accept; ip saddr . meta l4proto . th dport @ok accept; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:53/udp",
    }
    jumps_gotos_and_returns: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet j { chain d { tcp dport 81 drop; return; drop; }; chain c { jump d; tcp dport vmap { 80 : accept, 82 : drop }; }; chain f { type filter hook forward priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; iifname vmap { br-demo : goto c }; drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    ingress_and_bridge_rules_for_others: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table netdev n { chain i { type filter hook ingress device veth-c1 priority 0; policy accept; ip saddr != 172.18.0.10 drop; ether type arp accept; }; }'
            nft 'table bridge b { chain f { type filter hook forward priority 0; policy drop; ether type { arp, ip, ip6 } accept; }; chain i { type filter hook input priority 0; iifname veth-c1 ip saddr != 172.18.0.10 drop; }; }'"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    ebtables_and_arptables_for_others: {
        on: &[BRIDGE, MASQUERADE, "
            ebtables-nft -A FORWARD -p IPv4 --ip-src 172.18.0.99 -j DROP; ebtables-nft -P FORWARD ACCEPT; ebtables-nft -A FORWARD -p ARP --arp-ip-src 172.18.0.98 -j DROP
            arptables-nft -A INPUT -s 172.18.0.97 -j DROP; ip netns exec c2 arptables-nft -A INPUT -s 172.18.0.96 -j DROP
            ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0"],
        ask: "/run/netns/c1 172.18.0.20",
    }
    legacy_beside_nft: {
        on: &[BRIDGE, MASQUERADE, "
            iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i br-demo -j ACCEPT; iptables-legacy -A FORWARD -o br-demo -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
            iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i br-demo -m comment --comment x -j ACCEPT; iptables-nft -A FORWARD -o br-demo -m state --state ESTABLISHED -j ACCEPT"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    legacy_six_beside_nft: {
        on: &[BRIDGE, MASQUERADE, "
            ip6tables-legacy -P FORWARD DROP; ip6tables-legacy -A FORWARD -p ipv6-icmp -j ACCEPT; ip6tables-legacy -A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT; ip6tables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"],
        ask: "/run/netns/c1 [2001:db8::50]:80",
    }
    mangled_sizes_and_ttl: {
        on: &[BRIDGE, MASQUERADE, "iptables-nft -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu; iptables-nft -t mangle -A POSTROUTING -o up0 -j TTL --ttl-set 64"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    logged_counted_and_limited: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet l { chain f { type filter hook forward priority 0; counter; log prefix \"x\" limit rate 5/second; limit rate over 10000/second drop; ct count over 5000 drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    pinned_rightly: {
        on: &[BRIDGE, MASQUERADE, "
            ip -n c1 neigh replace 172.18.0.1 lladdr $(cat /sys/class/net/br-demo/address) dev eth0 nud permanent
            ip neigh replace 172.18.0.10 lladdr $(ip netns exec c1 cat /sys/class/net/eth0/address) dev br-demo nud permanent
            ip link set dev br-demo address $(cat /sys/class/net/br-demo/address)"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    two_default_routes: { on: &[BRIDGE, MASQUERADE, "ip link add d0 type bridge; ip link set d0 up; ip addr add 10.9.9.1/24 dev d0; ip route add default via 10.9.9.9 metric 900"], ask: "/run/netns/c1 192.0.2.50:80" }
    same_priority_first_accepts: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table ip one { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8081 dnat to 172.18.0.77:80; }; }'
            nft 'table ip two { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8081 dnat to 172.18.0.20:80; }; }'"],
        ask: "outside 10.0.2.2:8081",
    }
    proxied_neighbour: {
        on: &[BRIDGE, SECOND_BRIDGE, "
            ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/8 dev eth0; sysctl -qw net.ipv4.conf.br-demo.proxy_arp=1 net.ipv4.neigh.br-demo.proxy_delay=0"],
        ask: "/run/netns/c1 172.19.0.10:80", serves: "c3:80/tcp",
    }
    point_to_point: {
        on: &["
            ip netns add p; ip link add pv type veth peer name eth0 netns p; ip link set pv up; ip -n p link set eth0 up; ip -n p link set lo up
            ip addr add 169.254.1.1/32 dev pv; ip route add 10.60.0.2/32 dev pv; ip -n p addr add 10.60.0.2/32 dev eth0
            ip -n p route add 169.254.1.1 dev eth0; ip -n p route add default via 169.254.1.1; sysctl -qw net.ipv4.ip_forward=1
            nft 'table ip n { chain p { type nat hook postrouting priority srcnat; oifname up0 masquerade; }; }'"],
        ask: "/run/netns/p 192.0.2.50:80",
    }
}
