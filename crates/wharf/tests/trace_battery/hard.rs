//! Broken networks that lead astray: the sign is in one place and the fault in another.

use crate::bases::*;
use crate::cases;

/// A mark is put on new connections, kept with them, and given back to all their packets.
const MARKS: &str = "
    nft -f - <<'END'
    table ip marks {
        chain pre {
            type filter hook prerouting priority mangle
            meta mark set ct mark
            meta mark != 0 return
            iifname br-demo ct state new meta mark set 0x11
            ct mark set meta mark
        }
    }
END";

/// c4, in the bridge of c1 and c2, is their router.
const ROUTER: &str = "
    ip netns add c4; ip link add veth-c4 type veth peer name eth0 netns c4; ip link set veth-c4 master br-demo up
    ip -n c4 link set lo up; ip -n c4 link set eth0 up; ip -n c4 addr add 172.18.0.40/16 dev eth0; ip -n c4 route add default via 172.18.0.1
    ip netns exec c4 sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
    ip -n c1 route replace default via 172.18.0.40";

cases! {
    way_back_of_the_host_leads_to_the_server: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br-two.rp_filter=0; ip route add 172.19.0.10 via 172.18.0.20",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered wrong-gateway|route-conflict|ttl-expired|no-return-route host 172.19.0.10 via 172.18.0.20 dev br-demo",
    }
    marked_connections_to_a_table_with_nothing: {
        on: &[BRIDGE, MASQUERADE, MARKS, "ip route add default via 10.0.2.1 dev up0 table 77; ip route add 172.18.0.0/16 dev br-demo table 77; ip rule add fwmark 0x11 lookup 77 priority 500"],
        breaks: "ip route replace blackhole default table 77",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped route-rejects|policy-rule host blackhole default table 77 | blackhole default | *fwmark 0x11* | 500: from all fwmark 0x11 lookup 77",
    }
    marked_connections_dropped_by_mark: {
        on: &[BRIDGE, MASQUERADE, MARKS],
        breaks: "iptables-nft -A FORWARD -m mark --mark 0x11 -j DROP",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    router_in_a_container_forgot_to_forward: {
        on: &[BRIDGE, MASQUERADE, ROUTER],
        breaks: "ip netns exec c4 sysctl -qw net.ipv4.ip_forward=0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped forwarding-disabled|wrong-gateway /run/netns/c4|/run/netns/c1 net.ipv4.ip_forward | default via 172.18.0.40 dev eth0",
    }
    router_in_a_container_drops: {
        on: &[BRIDGE, MASQUERADE, ROUTER],
        breaks: "ip netns exec c4 iptables-legacy -P FORWARD DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-policy /run/netns/c4 ip filter FORWARD",
    }
    router_in_a_container_pins_the_host: {
        on: &[BRIDGE, MASQUERADE, ROUTER],
        breaks: "ip -n c4 neigh replace 172.18.0.1 lladdr 02:00:00:00:00:77 dev eth0 nud permanent",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped neighbour-wrong /run/netns/c4 172.18.0.1 dev eth0 lladdr 02:00:00:00:00:77",
    }
    host_pins_the_answer: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip neigh replace 172.18.0.10 lladdr 02:00:00:00:00:78 dev br-demo nud permanent",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "unanswered neighbour-wrong host 172.18.0.10 dev br-demo lladdr 02:00:00:00:00:78",
    }
    host_pins_the_answer_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -6 neigh replace fd00:18::10 lladdr 02:00:00:00:00:78 dev br-demo nud permanent",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "unanswered neighbour-wrong host fd00:18::10 dev br-demo lladdr 02:00:00:00:00:78",
    }
    icmp_of_six_dropped: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 ip6tables-nft -A INPUT -p ipv6-icmp -j DROP; ip -n c1 -6 neigh flush dev eth0; ip -n c2 -6 neigh flush dev eth0",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped firewall-rule|neighbour-unreachable /run/netns/c2 *",
    }
    arptables_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 arptables-nft -A INPUT -s 172.18.0.10 -j DROP; ip -n c1 neigh flush dev eth0; ip -n c2 neigh flush dev eth0",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule|neighbour-unreachable /run/netns/c2 *",
    }
    ebtables_drops_the_port: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A FORWARD -p IPv4 --ip-proto tcp --ip-dport 80 -j DROP",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule host bridge filter FORWARD handle *",
    }
    ebtables_drops_on_the_way_in: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ebtables-nft -A INPUT -i veth-c1 -p IPv4 -j DROP",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host bridge filter INPUT handle *",
    }
    vmap_that_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet v { map m { type ifname . inet_service : verdict; elements = { br-demo . 80 : drop, br-demo . 443 : accept }; }; chain f { type filter hook forward priority 0; meta l4proto tcp iifname . tcp dport vmap @m; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host inet v f handle *",
    }
    interval_set_that_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip v { set bad { type ipv4_addr . inet_service; flags interval, timeout; elements = { 192.0.2.0/24 . 70-90 timeout 1h }; }; chain f { type filter hook forward priority 0; ip daddr . tcp dport @bad drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip v f handle *",
    }
    goto_past_the_accept: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet g { chain inner { tcp dport 443 accept; }; chain f { type filter hook forward priority 0; policy drop; iifname br-demo goto inner; accept; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-policy host inet g f",
    }
    netdev_at_the_uplink: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table netdev n { chain i { type filter hook ingress device up0 priority 0; ip saddr 192.0.2.50 udp sport 53 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "unanswered firewall-rule host netdev n i handle *",
    }
    fib_says_not_local: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft 'table inet fw { chain pre { type filter hook prerouting priority raw; iifname up0 fib saddr . iif oif missing drop; iifname up0 fib daddr type local tcp dport 8080 drop; }; }'",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-rule host inet fw pre handle *",
    }
    accepted_in_one_table_dropped_in_another: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet a { chain f { type filter hook forward priority -10; accept; }; }'; iptables-legacy -A FORWARD -i br-demo -o up0 -j REJECT",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "rejected firewall-rule host ip filter FORWARD rule 1",
    }
    mangle_drops_the_answer: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -t mangle -A PREROUTING -i up0 -p tcp --sport 80 -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host ip mangle PREROUTING rule 1",
    }
    owner_of_the_socket: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 iptables-nft -A OUTPUT -d 192.0.2.50 -j REJECT --reject-with icmp-host-prohibited",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped|rejected firewall-rule /run/netns/c1 ip filter OUTPUT handle *",
    }
    published_twice: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft 'table ip early { chain pre { type nat hook prerouting priority -110; tcp dport 8080 dnat to 172.18.0.66:80; }; }'",
        ask: "outside 10.0.2.2:8080",
        says: "dropped publish-shadowed host ip early pre handle *",
    }
    published_and_redirected: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "iptables-nft -t nat -I PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9",
        ask: "outside 10.0.2.2:8080",
        says: "rejected publish-shadowed host ip nat PREROUTING handle *",
    }
    own_service_behind_a_rule_for_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip taken { chain pre { type nat hook prerouting priority dstnat; tcp dport 5000 dnat to 172.18.0.10:80; }; }'",
        ask: "outside 10.0.2.2:5000",
        says: "rejected publish-shadowed host ip taken pre handle *",
    }
    published_and_the_container_has_no_way: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "ip -n c2 route replace default via 172.18.0.10; ip netns exec c1 sysctl -qw net.ipv4.ip_forward=0",
        ask: "outside 10.0.2.2:8080",
        says: "unanswered wrong-gateway /run/netns/c2 default via 172.18.0.10 dev eth0",
    }
    own_published_port: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft delete chain ip hand-pub post",
        ask: "/run/netns/c2 172.18.0.1:8080",
        says: "dropped|unanswered no-masquerade|martian-address host|/run/netns/c2 *",
    }
    own_published_port_six: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: "nft flush chain ip6 hand-pub post",
        ask: "/run/netns/c1 [fd00:18::1]:8080",
        says: "dropped|unanswered no-masquerade host *",
    }
    two_faults_route_and_firewall: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 route replace default via 172.18.0.99; iptables-nft -A FORWARD -i br-demo -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped wrong-gateway /run/netns/c1 default via 172.18.0.99 dev eth0",
        also: &["firewall-rule"],
    }
    two_faults_forwarding_and_masquerade: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv4.ip_forward=0; nft delete table ip hand-nat",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
        also: &["no-masquerade"],
    }
    two_faults_at_one_cable: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip link set veth-c2 nomaster; ip link set veth-c2 down",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped not-on-bridge|link-down host veth-c2",
    }
    three_faults: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip netns exec c3 iptables-nft -A OUTPUT -p tcp --dport 80 -j DROP; sysctl -qw net.ipv4.conf.br-two.forwarding=0; ip -n c2 route del default",
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "dropped firewall-rule /run/netns/c3 ip filter OUTPUT handle *",
        also: &["forwarding-disabled", "no-return-route"],
    }
    six_forwarding_of_one_link: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.conf.all.forwarding=0",
        ask: "/run/netns/c1 [2001:db8::50]:53/udp",
        says: "dropped|rejected forwarding-disabled host net.ipv6.conf.all.forwarding",
        after_fix: "ip -6 route replace default via 2001:db8:2::1 dev up0",
    }
    six_disabled_at_the_server: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
        ask: "/run/netns/c3 [fd00:18::20]:80",
        says: "dropped|rejected ipv6-disabled /run/netns/c2 net.ipv6.conf.eth0.disable_ipv6",
        then: "/run/netns/c3 [fd00:18::20]:80",
        after_fix: "ip -n c2 -6 addr replace fd00:18::20/64 dev eth0 nodad; ip -n c2 -6 route replace default via fd00:18::1",
    }
    ttl_of_one: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv4.ip_default_ttl=1",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected ttl-expired * *",
    }
    ttl_by_a_rule: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip t { chain pre { type filter hook prerouting priority mangle; iifname br-demo ip ttl set 1; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected ttl-expired host *",
    }
    echo_ignored_by_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.icmp.echo_ignore_all=1",
        ask: "/run/netns/c1 fd00:18::1",
        says: "dropped|unanswered echo-ignored host net.ipv6.icmp.echo_ignore_all",
    }
    circle_by_a_special_route: {
        on: &[BRIDGE, MASQUERADE, "ip netns exec c2 sysctl -qw net.ipv4.ip_forward=1"],
        breaks: "ip route add 192.0.2.0/24 via 172.18.0.20",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|rejected ttl-expired|wrong-gateway host 192.0.2.0/24 via 172.18.0.20 dev br-demo",
    }
    the_later_of_two_tables_of_one_priority: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip old { chain f { type filter hook forward priority 0; meta mark 7 drop; }; }'"],
        breaks: "nft 'table ip new { chain f { type filter hook forward priority 0; tcp dport 80 meta mark set 7; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip old f handle *",
    }
    legacy_output_policy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -P OUTPUT DROP",
        ask: "host 172.18.0.20:53/udp",
        says: "dropped|rejected firewall-policy host ip filter OUTPUT",
    }
    bridge_netfilter_six_policy: {
        on: &[BRIDGE, MASQUERADE, "sysctl -qw net.bridge.bridge-nf-call-ip6tables=1"],
        bridge_nf_call: true,
        breaks: "ip6tables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-ip6tables",
    }
    quota_used_up: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip q { quota cap { over 20 bytes used 20 bytes; }; chain f { type filter hook forward priority 0; iifname br-demo quota name \"cap\" drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip q f handle *",
    }
    quota_of_iptables_used_up: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -i br-demo -m quota --quota 10 -j ACCEPT; iptables-nft -A FORWARD -i br-demo -j DROP; ip netns exec c1 ping -q -c2 -W1 192.0.2.50 >/dev/null || true",
        offline: "delivered",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    too_many_connections: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip q { chain f { type filter hook forward priority 0; tcp dport 80 ct count over 0 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip q f handle *",
    }
    source_translated_to_the_routers_address: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip d { chain c { type nat hook postrouting priority 90; oifname up0 snat to 10.0.2.1; }; }'",
        ask: "host 192.0.2.50",
        says: "dropped|unanswered no-return-route host ip d c handle 2",
    }
}
