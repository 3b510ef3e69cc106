//! What answers, from where, and as whom; connections that were begun under other rules; sizes.

use crate::bases::*;
use crate::cases;

/// The host has two addresses on the containers' segment, and a plain datagram server on all of them.
const PLAIN_SERVER: &str = "
    ip addr add 172.18.0.2/16 dev br-demo
    setsid -f python3 -c '
import socket
s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\",5300))
while True:
    d,a=s.recvfrom(2000); s.sendto((\"host %s\" % a[0]).encode(),a)
' >/dev/null 2>&1 </dev/null; sleep 0.5";

/// Port 8080 goes to port 81 of c1 by a rule that is changed later.
const HAND_PUBLISHED: &str = "
    nft 'table ip p { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8080 dnat to 172.18.0.20:80; }; }'";

/// A container whose namespace has no name: only a process holds it.
const NAMELESS: &str = "
    setsid -f unshare -n sh -c 'ip link set lo up; exec sleep 300' >/dev/null 2>&1 </dev/null; sleep 0.3
    pid=$(for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" = 'sleep 300 ' ] && [ $(readlink $p/ns/net) != $(readlink /proc/self/ns/net) ] && basename $p; done | head -1)
    ip link add veth-n type veth peer name eth0 netns $pid; ip link set veth-n master br-demo up
    nsenter --net=/proc/$pid/ns/net sh -euc 'ip addr add 172.18.0.60/16 dev eth0; ip link set eth0 up; ip route add default via 172.18.0.1'
    setsid -f nsenter --net=/proc/$pid/ns/net python3 -c '
import socket
s=socket.socket(); s.bind((\"\",80)); s.listen(9)
while True:
    c,a=s.accept(); c.send((\"n %s\" % a[0]).encode()); c.close()
' >/dev/null 2>&1 </dev/null; sleep 0.5
    nft 'table ip p { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8081 dnat to 172.18.0.60:80; }; }'";

cases! {
    datagrams_answered_from_the_first_address: { on: &[BRIDGE, PLAIN_SERVER], ask: "/run/netns/c1 172.18.0.1:5300/udp" }
    datagrams_answered_from_another_address: {
        on: &[BRIDGE, PLAIN_SERVER],
        offline: "delivered",
        ask: "/run/netns/c1 172.18.0.2:5300/udp",
        says: "unanswered listening-elsewhere host 0.0.0.0:5300",
        after_fix: "sleep 0.3",
    }
    old_connection_of_tcp: {
        on: &[BRIDGE, MASQUERADE, HAND_PUBLISHED],
        breaks: "conntrack -F 2>/dev/null; conntrack -I -p tcp -s 192.0.2.50 -d 10.0.2.2 --sport 5555 --dport 8080 --reply-src 172.18.0.77 --reply-dst 192.0.2.50 --reply-port-src 80 --reply-port-dst 5555 --state ESTABLISHED --timeout 300 >/dev/null",
        ask: "outside:192.0.2.50 10.0.2.2:8080",
    }
    nameless_namespace_published: { on: &[BRIDGE, MASQUERADE, NAMELESS], ask: "outside 10.0.2.2:8081" }
    nameless_namespace: { on: &[BRIDGE, MASQUERADE, NAMELESS], ask: "/run/netns/c1 172.18.0.60:80" }
    nameless_namespace_drops: {
        on: &[BRIDGE, MASQUERADE, NAMELESS],
        breaks: "pid=$(for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" = 'sleep 300 ' ] && basename $p; done | head -1); nsenter --net=/proc/$pid/ns/net iptables-nft -A INPUT -p tcp --dport 80 -j DROP",
        ask: "outside 10.0.2.2:8081",
        says: "dropped firewall-rule * ip filter INPUT handle *",
    }
    published_listener_on_loopback: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip p { chain pre { type nat hook prerouting priority dstnat; iifname up0 tcp dport 8080 redirect to :5000; }; }'"],
        serves: "host:5000/tcp@127.0.0.1",
        ask: "outside 10.0.2.2:8080",
        says: "rejected listening-elsewhere host 127.0.0.1:5000",
        after_fix: "sleep 0.3",
    }
    published_to_a_listener_of_the_other_family: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        serves: "c2:80/tcp@fd00:18::20",
        ask: "outside 10.0.2.2:8080",
        says: "rejected listening-elsewhere /run/netns/c2 [fd00:18::20]:80",
        after_fix: "sleep 0.3",
    }
    published_udp_for_a_listener_of_tcp: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip p { chain pre { type nat hook prerouting priority dstnat; iifname up0 udp dport 8053 dnat to 172.18.0.20:80; }; }'"],
        serves: "c2:80/tcp",
        ask: "outside 10.0.2.2:8053/udp",
        says: "rejected listening-elsewhere /run/netns/c2 [::]:80/tcp | 0.0.0.0:80/tcp",
        no_fix: "a program has to listen",
    }
    answer_dropped_by_the_firewall_of_the_asker: {
        on: &[BRIDGE, SECOND_BRIDGE],
        breaks: "ip netns exec c3 iptables-nft -A INPUT -p udp --sport 53 -j DROP",
        ask: "/run/netns/c3 172.18.0.20:53/udp",
        says: "unanswered firewall-rule /run/netns/c3 ip filter INPUT handle *",
    }
    output_of_the_server_drops: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 iptables-nft -P OUTPUT DROP; ip netns exec c2 iptables-nft -A OUTPUT -o lo -j ACCEPT",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "unanswered firewall-policy /run/netns/c2 ip filter OUTPUT",
    }
}
