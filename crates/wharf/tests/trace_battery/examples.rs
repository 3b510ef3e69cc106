//! The worked examples: sixteen faults with the answers that are known to be right.

use crate::bases::*;
use crate::cases;

cases! {
    forwarding_off: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv4.ip_forward=0",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
        owner: "user",
    }
    forwarding_off_for_one_link: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv4.conf.br-demo.forwarding=0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped forwarding-disabled host net.ipv4.conf.br-demo.forwarding",
    }
    no_masquerade: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft delete table ip hand-nat",
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered no-masquerade host up0",
    }
    no_default_route: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route del default",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected no-route /run/netns/c1 192.0.2.50",
    }
    two_cables_one_subnet: {
        on: &[TWO_CABLES],
        ask: "host 172.18.0.20",
        says: "dropped route-conflict host 172.18.0.0/16 dev veth0",
    }
    two_cables_one_subnet_from_inside: {
        on: &[TWO_CABLES],
        ask: "/run/netns/c2 172.18.0.21",
        says: "unanswered route-conflict host 172.18.0.0/16 dev veth0",
    }
    off_the_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link del br-demo; ip link add br-demo type bridge; ip addr add 172.18.0.1/16 dev br-demo
                 ip link set br-demo up; ip link set veth-c1 master br-demo",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped not-on-bridge host veth-c2",
    }
    shut_by_hand: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c2 down",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped link-down host veth-c2",
    }
    policy_of_docker: {
        on: &[BRIDGE, MASQUERADE_IPTABLES],
        breaks: "iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN
                 iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -N DOCKER; iptables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-policy host ip filter FORWARD",
        owner: "docker",
    }
    a_rule: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fwd-in { type filter hook forward priority 0; tcp dport 80 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host inet f fwd-in handle 2 | inet f fwd-in handle 3 | inet f fwd-in handle 4",
        owner: "user",
    }
    a_rule_that_rejects: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fwd-in { type filter hook forward priority 0; tcp dport 80 reject; }; }'",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "rejected firewall-rule host inet f fwd-in handle 2",
    }
    a_rule_for_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet f { chain fwd-in { type filter hook forward priority 0; tcp sport 80 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host inet f fwd-in handle 2",
    }
    a_rule_in_a_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 nft 'table inet f { chain o { type filter hook output priority 0; tcp dport 80 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected firewall-rule /run/netns/c1 inet f o handle 2",
    }
    loopback_only: {
        on: &[BRIDGE, MASQUERADE],
        serves: "host:5432/tcp@127.0.0.1",
        ask: "/run/netns/c1 172.18.0.1:5432",
        says: "rejected listening-elsewhere host 127.0.0.1:5432",
        after_fix: "sleep 0.3",
    }
    no_listener: {
        on: &[BRIDGE, MASQUERADE],
        ask: "/run/netns/c1 172.18.0.1:5432",
        says: "rejected not-listening host 5432/tcp",
        no_fix: "a program has to listen",
    }
    reverse_path: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        neighbour: true,
        outside: "ip route replace default via 10.0.2.2",
        breaks: "sysctl -qw net.ipv4.conf.up1.rp_filter=1",
        ask: "outside:192.0.2.50 10.0.3.2:8080",
        says: "dropped reverse-path-filter host net.ipv4.conf.up1.rp_filter",
        traffic: "sh:test $(sysctl -n net.ipv4.conf.up1.rp_filter) != 1",
    }
    pinned_neighbour: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 neigh replace fd00:18::1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ask: "/run/netns/c1 2001:db8::50",
        says: "dropped neighbour-wrong /run/netns/c1 fd00:18::1 dev eth0 lladdr 02:00:00:00:00:99",
    }
    pinned_neighbour_of_the_other_family: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 -6 neigh replace fd00:18::1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ask: "/run/netns/c1 192.0.2.50",
    }
    bridge_netfilter: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "iptables-legacy -A FORWARD -p udp -j DROP",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
    }
    bridge_netfilter_is_off: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -A FORWARD -p udp -j DROP",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
    }
    bridge_netfilter_lets_the_bridge_through: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "iptables-legacy -A FORWARD -i br-demo -o br-demo -j ACCEPT; iptables-legacy -A FORWARD -p udp -j DROP",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
    }
    not_published: {
        on: &[WHARF],
        outside: "",
        serves: "web:80/tcp web:81/tcp",
        ask: "outside web:81",
        traffic: "outside 10.88.1.11:81",
        says: "dropped|rejected not-published host *",
        owner: "wharf",
        then: "outside 10.0.2.2:8081",
    }
    other_network: {
        on: &[WHARF],
        serves: "db:80/tcp",
        ask: "cache db:80",
        traffic: "cache 10.88.2.11:80",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
    }
    old_address: {
        on: &[BRIDGE, MASQUERADE, "
            ip -n c2 addr add 172.18.0.30/16 dev eth0
            nft 'table ip hand { chain pre { type nat hook prerouting priority dstnat; dnat to tcp dport map { 8080 : 172.18.0.30 }; }; }'"],
        serves: "c2:8080/tcp",
        breaks: "ip -n c2 addr del 172.18.0.30/16 dev eth0",
        ask: "outside 10.0.2.2:8080",
        says: "dropped publish-shadowed host ip hand pre handle 3",
    }
    too_large: {
        on: &[BRIDGE, VXLAN],
        ask: "/run/netns/c1 172.18.0.20",
        says: "delivered but",
        also: &["mtu-exceeded"],
        traffic: "sh:ip netns exec c1 ping -q -c1 -W1 -M dont -s 1472 172.18.0.20",
    }
    two_at_once: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route add unreachable 172.18.0.20",
        ask: "/run/netns/c1 172.18.0.20:81",
        traffic: "/run/netns/c1 172.18.0.20:80",
        says: "rejected|dropped route-rejects /run/netns/c1 unreachable 172.18.0.20",
        also: &["not-listening"],
        then: "/run/netns/c1 172.18.0.20:80",
    }
}

const TWO_CABLES: &str = "
    for n in 0 1; do
        m=$((n+1))
        ip netns add c$m
        ip link add veth$n type veth peer name eth0 netns c$m
        ip addr add 172.18.0.${m}1/16 dev veth$n
        ip link set veth$n up
        ip -n c$m link set lo up
        ip -n c$m addr add 172.18.0.${m}0/16 dev eth0
        ip -n c$m link set eth0 up
    done";

const VXLAN: &str = "
    ip link set veth-c2 nomaster
    ip link add br-b type bridge
    ip link add br-link type veth peer name br-knil
    ip addr add 10.9.0.1/24 dev br-link
    ip netns add far
    ip link set br-knil netns far
    ip -n far addr add 10.9.0.2/24 dev br-knil
    ip link set br-link up
    ip -n far link set br-knil up
    ip link add vx-a type vxlan id 7 local 10.9.0.1 remote 10.9.0.2 dstport 4789 dev br-link
    ip link set vx-a master br-demo up
    ip -n far link add br-b type bridge
    ip -n far link set br-b up
    ip -n far link add vx-b type vxlan id 7 local 10.9.0.2 remote 10.9.0.1 dstport 4789 dev br-knil
    ip -n far link set vx-b master br-b up
    ip link del br-b
    ip link set veth-c2 netns far
    ip -n far link set veth-c2 master br-b up";
