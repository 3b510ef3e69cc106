//! Below IP: rules for ARP and for bridges by their own tools, links stacked on links, addresses told twice.

use crate::bases::*;
use crate::cases;

/// A switch port `mv0` with a machine behind it (172.25.0.1 in `lan`), and two containers stacked on it in one mode.
const MACVLAN: &str = "
    ip netns add lan; ip link add mv0 type veth peer name e0 netns lan; ip link set mv0 up
    ip -n lan link set lo up; ip -n lan link set e0 up; ip -n lan addr add 172.25.0.1/24 dev e0
    ip addr add 172.25.0.5/24 dev mv0
    for n in 1 2; do
        ip netns add m$n; ip link add link mv0 name mvl$n type macvlan mode bridge
        ip link set mvl$n netns m$n name eth0; ip -n m$n link set lo up; ip -n m$n link set eth0 up
        ip -n m$n addr add 172.25.0.1$n/24 dev eth0
    done";

/// Both forget all neighbours.
const FORGET: &str = "ip neigh flush all; ip -n c1 neigh flush all; ip -n c2 neigh flush all;
    ip -6 neigh flush all; ip -n c1 -6 neigh flush all; ip -n c2 -6 neigh flush all";

cases! {
    arptables_at_the_host: {
        on: &[BRIDGE, MASQUERADE, FORGET],
        breaks: "arptables-nft -A INPUT -s 172.18.0.10 -j DROP; ip -n c1 neigh flush all; ip neigh flush all",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-rule host arp filter INPUT handle *",
    }
    arptables_at_the_gateway: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "arptables-nft -A OUTPUT --opcode 2 -d 172.18.0.10 -j DROP; ip -n c1 neigh flush all; ip neigh flush all",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host arp filter OUTPUT handle *",
    }
    arp_policy_in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 nft 'table arp a { chain i { type filter hook input priority 0; policy drop; arp saddr ip 172.18.0.1 accept; }; }'; ip -n c1 neigh flush all; ip -n c2 neigh flush all",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-policy /run/netns/c2 arp a i",
    }
    arp_not_asked: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 nft 'table arp a { chain o { type filter hook output priority 0; arp operation request drop; }; }'; ip -n c1 neigh flush all; ip -n c2 neigh flush all",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "dropped firewall-rule /run/netns/c1 arp a o handle 2",
    }
    arp_answers_dropped_on_the_bridge: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table bridge b { chain f { type filter hook forward priority 0; iifname veth-c2 ether type arp arp operation reply drop; }; }'; ip -n c1 neigh flush all; ip -n c2 neigh flush all",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped firewall-rule host bridge b f handle 2",
    }
    arp_rules_with_known_neighbours: {
        on: &[BRIDGE, MASQUERADE, "ip -n c1 neigh replace 172.18.0.20 dev eth0 nud permanent lladdr $(ip netns exec c2 cat /sys/class/net/eth0/address)
            ip -n c2 neigh replace 172.18.0.10 dev eth0 nud permanent lladdr $(ip netns exec c1 cat /sys/class/net/eth0/address)
            ip netns exec c2 arptables-nft -P INPUT DROP"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    ebtables_by_address: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A FORWARD -p IPv4 --ip-dst 172.18.0.20 -j DROP",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule host bridge filter FORWARD handle *",
    }
    ebtables_by_port: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A FORWARD -p IPv4 --ip-proto udp --ip-dport 53 -j DROP",
        ask: "/run/netns/c1 172.18.0.20:53/udp",
        says: "dropped firewall-rule host bridge filter FORWARD handle *",
    }
    ebtables_by_port_spares_others: {
        on: &[BRIDGE, MASQUERADE, "ebtables-nft -A FORWARD -p IPv4 --ip-proto udp --ip-dport 53 -j DROP"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    ebtables_policy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -P FORWARD DROP; ebtables-nft -A FORWARD -p ARP -j ACCEPT",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped firewall-policy host bridge filter FORWARD",
    }
    ebtables_against_arp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A FORWARD -p ARP -j DROP; ip -n c1 neigh flush all; ip -n c2 neigh flush all",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule host bridge filter FORWARD handle *",
    }
    ebtables_six_to_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A INPUT -p IPv6 -i veth-c1 -j DROP",
        ask: "/run/netns/c1 [fd00:18::1]:5000",
        says: "dropped firewall-rule host bridge filter INPUT handle *",
    }
    // As libvirt keeps its guests from using others' addresses.
    ebtables_against_strange_macs: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -N I-c1; ebtables-nft -A I-c1 -s 02:00:00:00:00:77 -j RETURN; ebtables-nft -A I-c1 -j DROP; ebtables-nft -A INPUT -i veth-c1 -j I-c1",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host bridge filter I-c1 handle *",
    }
    macvlan_between: { on: &[MACVLAN], serves: "m2:80/tcp", ask: "/run/netns/m1 172.25.0.12:80" }
    macvlan_outwards: { on: &[MACVLAN], serves: "lan:80/tcp", ask: "/run/netns/m1 172.25.0.1:80" }
    macvlan_private: {
        on: &[MACVLAN], serves: "m2:80/tcp",
        breaks: "ip -n m1 link set eth0 type macvlan mode private; ip -n m2 link set eth0 type macvlan mode private",
        ask: "/run/netns/m1 172.25.0.12:80",
        says: "dropped bridge-port-blocked /run/netns/m1|/run/netns/m2 eth0",
    }
    macvlan_vepa: {
        on: &[MACVLAN], serves: "m2:80/tcp",
        breaks: "ip -n m1 link set eth0 type macvlan mode vepa; ip -n m2 link set eth0 type macvlan mode vepa",
        ask: "/run/netns/m1 172.25.0.12",
        says: "dropped bridge-port-blocked /run/netns/m1|/run/netns/m2 eth0",
    }
    macvlan_private_outwards: {
        on: &[MACVLAN, "ip -n m1 link set eth0 type macvlan mode private"], serves: "lan:80/tcp",
        ask: "/run/netns/m1 172.25.0.1:80",
    }
    // The classic: a host does not reach what is stacked on its own link.
    macvlan_from_its_host: {
        on: &[MACVLAN], serves: "m2:80/tcp",
        ask: "host 172.25.0.12:80",
        says: "dropped neighbour-unreachable host 172.25.0.12 dev mv0",
    }
    macvlan_lower_down: {
        on: &[MACVLAN], serves: "lan:80/tcp",
        breaks: "ip link set mv0 down",
        ask: "/run/netns/m1 172.25.0.1:80",
        says: "dropped|rejected link-down host mv0",
    }
    proxy_arp_for_what_is_elsewhere: {
        on: &[BRIDGE, SECOND_BRIDGE, "sysctl -qw net.ipv4.conf.br-demo.proxy_arp=1
            ip -n c1 addr del 172.18.0.10/16 dev eth0; ip -n c1 addr add 172.18.0.10/12 dev eth0; ip -n c1 route replace default via 172.18.0.1"],
        serves: "c3:80/tcp",
        breaks: "sysctl -qw net.ipv4.conf.br-demo.proxy_arp=0; ip -n c1 neigh flush all",
        ask: "/run/netns/c1 172.19.0.10:80",
        says: "dropped wrong-prefix-length /run/netns/c1 *",
    }
    bridges_own_address_sent_to_a_port: {
        on: &[BRIDGE, MASQUERADE, "ip link set br-demo address 02:00:00:00:00:01; ip -n c1 neigh flush all"],
        breaks: "bridge fdb replace 02:00:00:00:00:01 dev veth-c2 master static",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped bridge-port-blocked host 02:00:00:00:00:01 dev veth-c2 master br-demo",
    }
    // It was so decided before, and where the frame came from is not told any more.
    bridge_postrouting_by_incoming_port: {
        on: &[BRIDGE, MASQUERADE, "nft 'table bridge b { chain p { type filter hook postrouting priority 0; iifname veth-c1 drop; }; }'"],
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    egress_by_ether_type: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table netdev d { chain c { type filter hook egress device br-demo priority 0; ether type ip6 drop; }; }'",
        ask: "host [fd00:18::20]:80",
        says: "dropped firewall-rule host netdev d c handle 2",
    }
    no_broadcasts_but_six_is_known: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "bridge link set dev veth-c2 bcast_flood off; ip -n c1 -4 neigh flush all; ip -n c2 -4 neigh flush all; ip netns exec c1 ping -qc1 -W1 fd00:18::20 >/dev/null",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped bridge-port-blocked host veth-c2",
    }
}
