//! Rules whose effect depends on more than the packet: queues, quotas, limits, sets that fill, maps, marks, the hour.

use crate::bases::*;
use crate::cases;

/// A server at port 81 of c2 that greets, and ends no connection by itself.
const HOLDS: &str = "ip netns exec c2 setsid -f python3 -c '
import socket
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((\"172.18.0.20\",81)); s.listen(50); keep=[]
while True:
    c,a=s.accept(); c.send((\"c2 %s\" % a[0]).encode()); keep.append(c)
' >/dev/null 2>&1 </dev/null; sleep 0.5";

cases! {
    queued_for_nobody: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -p tcp --dport 80 -j NFQUEUE --queue-num 3",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    queued_for_nobody_legacy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -A INPUT -p udp --dport 5053 -j NFQUEUE --queue-num 3",
        ask: "/run/netns/c1 172.18.0.1:5053/udp",
        says: "dropped firewall-rule host ip filter INPUT rule 1 | -A INPUT -p udp *",
    }
    queued_or_else_passed: {
        on: &[BRIDGE, MASQUERADE, "iptables-nft -A FORWARD -p tcp --dport 80 -j NFQUEUE --queue-num 3 --queue-bypass"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    quota_used_up: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip q { chain f { type filter hook forward priority 0; ip daddr 192.0.2.50 quota over 100 bytes drop; }; }'; ip netns exec c1 ping -q -c3 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip q f handle 2",
    }
    quota_that_is_not: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip q { chain f { type filter hook forward priority 0; ip daddr 192.0.2.50 quota over 100 mbytes drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    quota_by_name_used_up: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip q { quota small { over 100 bytes; }; chain f { type filter hook forward priority 0; ip daddr 192.0.2.50 quota name small drop; }; }'; ip netns exec c1 ping -q -c3 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip q f handle *",
    }
    quota_that_let_pass: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -s 172.18.0.10 -m quota --quota 1 -j ACCEPT; iptables-nft -A FORWARD -s 172.18.0.10 -j DROP; ip netns exec c1 ping -q -c2 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        offline: "delivered",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    limit_used_up: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip l { chain f { type filter hook forward priority 0; ip daddr 192.0.2.50 limit rate over 1/hour burst 1 packets drop; }; }'; ip netns exec c1 ping -q -c3 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        offline: "delivered",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip l f handle 2",
    }
    too_many_connections: {
        on: &[BRIDGE, SECOND_BRIDGE, HOLDS],
        breaks: "nft 'table ip l { chain f { type filter hook forward priority 0; ct state established accept; ip daddr 172.18.0.20 tcp dport 81 ct count over 2 reject; }; }'
            ip netns exec c3 setsid -f python3 -c '
import socket,time
keep=[socket.create_connection((\"172.18.0.20\",81)) for _ in range(2)]; time.sleep(60)' >/dev/null 2>&1 </dev/null; sleep 0.5",
        offline: "delivered",
        ask: "/run/netns/c3 172.18.0.20:81",
        says: "rejected firewall-rule host ip l f handle *",
    }
    banned_by_a_set_that_fills: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip b { set bad { type ipv4_addr; flags dynamic,timeout; timeout 10m; }; chain f { type filter hook forward priority 0; ip saddr @bad drop; ip daddr 192.0.2.50 add @bad { ip saddr }; }; }'; ip netns exec c1 ping -q -c2 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip b f handle *",
    }
    allowed_by_a_set_no_more: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip a { set good { type ipv4_addr; flags timeout; elements = { 172.18.0.10 timeout 4s }; }; chain f { type filter hook forward priority 0; policy drop; ct state established accept; ip saddr @good accept; }; }'"],
        breaks: "sleep 4.2; conntrack -F 2>/dev/null",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-policy host ip a f",
    }
    in_a_verdict_map_of_pairs: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet v { map m { type ipv4_addr . inet_service : verdict; elements = { 192.0.2.50 . 80 : drop, 192.0.2.51 . 80 : accept }; }; chain f { type filter hook forward priority 0; ip daddr . tcp dport vmap @m; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host inet v f handle *",
    }
    in_a_verdict_map_of_links: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet v { chain strict { ct state established,related accept; drop; }; chain f { type filter hook forward priority 0; iifname vmap { \"br-demo\" : jump strict, \"up0\" : accept }; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host inet v strict handle *",
    }
    in_a_range_of_addresses: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table inet v { map m { type ipv4_addr : verdict; flags interval; elements = { 192.0.2.0-192.0.2.99 : drop }; }; chain f { type filter hook forward priority 0; ip daddr vmap @m; }; }'",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped firewall-rule host inet v f handle *",
    }
    at_this_hour: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip t { chain f { type filter hook forward priority 0; meta hour \"00:00\"-\"23:59\" ip daddr 192.0.2.50 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip t f handle 2",
    }
    in_those_years: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip t { chain f { type filter hook forward priority 0; meta time \"2001-01-01\"-\"2002-01-01\" drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50",
    }
    raw_bytes: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip r { chain f { type filter hook forward priority 0; meta l4proto tcp @th,16,16 80 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip r f handle 2",
    }
    by_user: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip u { chain o { type filter hook output priority 0; ip daddr 172.18.0.20 meta skuid 0 reject; }; }'",
        ask: "host 172.18.0.20:80",
        says: "rejected firewall-rule host ip u o handle 2",
    }
    by_u32: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -m u32 --u32 '6&0xFF=17' -d 192.0.2.50 -j DROP",
        offline: "unknown",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    by_length: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -p icmp -m length --length 20:100 -j DROP",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    by_connections_of_an_address: {
        on: &[BRIDGE, MASQUERADE, HOLDS],
        breaks: "ip netns exec c2 iptables-nft -A INPUT -p tcp --syn --dport 81 -m connlimit --connlimit-above 2 -j REJECT --reject-with tcp-reset
            ip netns exec c1 setsid -f python3 -c '
import socket,time
keep=[socket.create_connection((\"172.18.0.20\",81)) for _ in range(2)]; time.sleep(60)' >/dev/null 2>&1 </dev/null; sleep 0.7",
        offline: "delivered",
        ask: "/run/netns/c1 172.18.0.20:81",
        says: "rejected firewall-rule /run/netns/c2 ip filter INPUT handle *",
    }
    by_hashlimit: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -d 192.0.2.50 -m hashlimit --hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name h -j DROP; ip netns exec c1 ping -q -c3 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        offline: "delivered",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    banned_by_recent: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -s 172.18.0.10 -m recent --name ban --update --seconds 600 -j DROP; iptables-nft -A FORWARD -s 172.18.0.10 -m recent --name ban --set; ip netns exec c1 ping -q -c2 -i 0.2 -W1 192.0.2.50 >/dev/null || true",
        offline: "delivered",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    // Without a program the rule does not hold.
    tproxy_without_a_program: {
        on: &[BRIDGE, MASQUERADE, "ip rule add fwmark 1 lookup 100 priority 90; ip route add local default dev lo table 100
            nft 'table ip x { chain pre { type filter hook prerouting priority mangle; iifname br-demo tcp dport 80 tproxy to 127.0.0.1:9999 meta mark set 1; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    tproxy_of_iptables_without_a_program: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip rule add fwmark 1 lookup 100 priority 90; ip route add local default dev lo table 100
            iptables-nft -t mangle -A PREROUTING -i br-demo -p tcp --dport 80 -j TPROXY --on-port 9999 --on-ip 127.0.0.1 --tproxy-mark 1",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip mangle PREROUTING handle *",
    }
    mark_that_masquerade_waits_for: {
        on: &[BRIDGE, "nft 'table ip n { chain f { type filter hook forward priority mangle; iifname br-demo meta mark set 0x66; }; chain post { type nat hook postrouting priority srcnat; meta mark 0x66 oifname up0 masquerade; }; }'"],
        breaks: "nft flush chain ip n f",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    not_tracked_and_not_masqueraded: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip raw { chain pre { type filter hook prerouting priority raw; iifname br-demo notrack; }; }'; conntrack -F 2>/dev/null",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered no-masquerade|firewall-rule host up0 | ip raw pre handle 2",
    }
    not_tracked_by_iptables: {
        on: &[BRIDGE, MASQUERADE_IPTABLES],
        breaks: "iptables-nft -t raw -A PREROUTING -i br-demo -j CT --notrack; conntrack -F 2>/dev/null",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "unanswered no-masquerade|firewall-rule host up0 | ip raw PREROUTING handle *",
    }
    helper_for_a_service: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip h { ct helper ftp { type \"ftp\" protocol tcp; }; chain pre { type filter hook prerouting priority 0; tcp dport 80 ct helper set \"ftp\"; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    legacy_beside_nft_drops: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet f { chain fw { type filter hook forward priority 0; policy accept; ct state established,related accept; iifname br-demo accept; }; }'"],
        breaks: "iptables-legacy -A FORWARD -i br-demo -p tcp --dport 80 -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter FORWARD rule 1 | -A FORWARD -i br-demo *",
    }
    legacy_policy_beside_nft: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -P FORWARD DROP; nft 'table inet f { chain fw { type filter hook forward priority 0; accept; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-policy host ip filter FORWARD",
    }
    both_mangle_the_mark: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -t mangle -A PREROUTING -i br-demo -j MARK --set-mark 9; nft 'table ip m { chain f { type filter hook forward priority 0; meta mark 9 drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip m f handle *",
    }
    // At conntrack's own priority rules come before it.
    zone_beside_conntrack: {
        on: &[BRIDGE, MASQUERADE, "nft 'table inet d { chain c { type filter hook prerouting priority -200; iifname != lo ct zone 0 drop; }; }'"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    // Of the first packet nothing is confirmed before it leaves.
    confirmed_connections_dropped: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -A FORWARD -m conntrack --ctstatus CONFIRMED -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host ip filter FORWARD rule 1",
    }
}
