//! The last station: listeners, queues, echoes; and what conntrack and traffic control do before it.

use crate::bases::*;
use crate::cases;

cases! {
    nothing_listens: {
        on: &[BRIDGE, MASQUERADE],
        serves: "",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "rejected not-listening /run/netns/c2 80/tcp",
        no_fix: "a program has to listen",
    }
    nothing_listens_six: {
        on: &[BRIDGE, MASQUERADE],
        serves: "",
        ask: "/run/netns/c1 [fd00:18::20]:53/udp",
        says: "rejected not-listening /run/netns/c2 53/udp",
        no_fix: "a program has to listen",
    }
    nothing_listens_behind_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        serves: "c2:81/tcp",
        ask: "outside 10.0.2.2:8080",
        says: "rejected not-listening /run/netns/c2 80/tcp",
        no_fix: "a program has to listen",
    }
    udp_only: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:53/udp",
        ask: "/run/netns/c1 172.18.0.20:53",
        says: "rejected listening-elsewhere /run/netns/c2 0.0.0.0:53/udp | [::]:53/udp",
        no_fix: "a program has to listen",
    }
    tcp_only: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:80/tcp",
        ask: "/run/netns/c1 172.18.0.20:80/udp",
        says: "rejected listening-elsewhere /run/netns/c2 0.0.0.0:80/tcp | [::]:80/tcp",
        no_fix: "a program has to listen",
    }
    loopback_only_in_a_container: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:5432/tcp@127.0.0.1",
        ask: "/run/netns/c1 172.18.0.20:5432",
        says: "rejected listening-elsewhere /run/netns/c2 127.0.0.1:5432",
        after_fix: "sleep 0.3",
    }
    loopback_only_six: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:5432/tcp@::1",
        ask: "/run/netns/c1 [fd00:18::20]:5432",
        says: "rejected listening-elsewhere /run/netns/c2 [::1]:5432",
        after_fix: "sleep 0.3",
    }
    loopback_only_udp: {
        on: &[BRIDGE, MASQUERADE],
        serves: "host:53/udp@127.0.0.1",
        ask: "/run/netns/c1 172.18.0.1:53/udp",
        says: "rejected listening-elsewhere host 127.0.0.1:53",
        after_fix: "sleep 0.3",
    }
    loopback_only_behind_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        serves: "c2:80/tcp@127.0.0.1",
        ask: "outside 10.0.2.2:8080",
        says: "rejected listening-elsewhere /run/netns/c2 127.0.0.1:80",
        after_fix: "sleep 0.3",
    }
    only_the_other_family: {
        on: &[BRIDGE, MASQUERADE],
        serves: "c2:80/tcp@0.0.0.0",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "rejected listening-elsewhere /run/netns/c2 0.0.0.0:80",
        after_fix: "sleep 0.3",
    }
    six_only: {
        on: &[BRIDGE, MASQUERADE, "ip netns exec c2 sysctl -qw net.ipv6.bindv6only=1"],
        serves: "c2:80/tcp@fd00:18::20",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "rejected listening-elsewhere /run/netns/c2 [fd00:18::20]:80",
        after_fix: "sleep 0.3",
    }
    another_address: {
        on: &[BRIDGE, MASQUERADE, "ip -n c2 addr add 172.18.0.21/16 dev eth0"],
        serves: "c2:80/tcp@172.18.0.21",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "rejected listening-elsewhere /run/netns/c2 172.18.0.21:80",
        after_fix: "sleep 0.3",
    }
    bound_to_a_link: {
        on: &[BRIDGE, MASQUERADE, "
            ip netns exec c2 setsid -f python3 -c '
import socket,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b\"lo\"); s.bind((\"\",81)); s.listen(9); time.sleep(60)' >/dev/null 2>&1 </dev/null; sleep 0.5"],
        ask: "/run/netns/c1 172.18.0.20:81",
        says: "rejected listening-elsewhere /run/netns/c2 *",
        no_fix: "the program has bound itself to a link",
    }
    queue_full: {
        on: &[BRIDGE, MASQUERADE, "
            ip netns exec c2 setsid -f python3 -c '
import socket,time
s=socket.socket(); s.bind((\"\",81)); s.listen(1)
keep=[socket.create_connection((\"127.0.0.1\",81)) for _ in range(2)]; time.sleep(60)' >/dev/null 2>&1 </dev/null; sleep 0.7"],
        ask: "/run/netns/c1 172.18.0.20:81",
        says: "dropped accept-queue-full /run/netns/c2 0.0.0.0:81",
        no_fix: "the program has to accept",
    }
    echoes_ignored: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped|unanswered echo-ignored /run/netns/c2 net.ipv4.icmp_echo_ignore_all",
    }
    echoes_ignored_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "sysctl -qw net.ipv6.icmp.echo_ignore_all=1",
        ask: "/run/netns/c1 fd00:18::1",
        says: "dropped|unanswered echo-ignored host net.ipv6.icmp.echo_ignore_all",
    }
    echoes_ignored_but_tcp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    no_local_port_left: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 sysctl -qw net.ipv4.ip_local_port_range='40000 40000'
            ip netns exec c1 setsid -f python3 -c '
import socket,time
s=socket.socket(); s.bind((\"\",40000)); s.listen(1); time.sleep(60)' >/dev/null 2>&1 </dev/null; sleep 0.5",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped|rejected ports-exhausted /run/netns/c1 net.ipv4.ip_local_port_range",
    }
    // The first datagram takes the only port.
    no_translated_port_left: {
        on: &[BRIDGE, "nft 'table ip n { chain post { type nat hook postrouting priority srcnat; oifname up0 ip saddr 172.18.0.0/16 meta l4proto { tcp, udp } masquerade to :40000-40000; }; }'"],
        breaks: "conntrack -L -p udp 2>/dev/null | grep -q dport=40000",
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "dropped ports-exhausted host ip n post handle *",
    }
    old_connection_entry: {
        on: &[BRIDGE, MASQUERADE, "
            nft 'table ip p { chain pre { type nat hook prerouting priority dstnat; iifname up0 udp dport 8053 dnat to 172.18.0.20:53; }; }'"],
        breaks: "conntrack -F 2>/dev/null; conntrack -I -p udp -s 192.0.2.50 -d 10.0.2.2 --sport 5555 --dport 8053 --reply-src 172.18.0.77 --reply-dst 192.0.2.50 --reply-port-src 53 --reply-port-dst 5555 --timeout 300 >/dev/null",
        ask: "outside:192.0.2.50 10.0.2.2:8053/udp",
        traffic: "sh:! conntrack -L -p udp 2>/dev/null | grep -q src=172.18.0.77",
        says: "dropped conntrack-stale host *",
    }
    tc_filter: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev veth-c1 clsact; tc filter add dev veth-c1 ingress protocol ip prio 1 bpf da bytecode '1,6 0 0 2,'",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped traffic-control host *",
    }
    tc_filter_that_looks: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev veth-c1 clsact; tc filter add dev veth-c1 ingress protocol ip prio 1 bpf da bytecode '6,40 0 0 12,21 0 3 2048,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295,'",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped traffic-control host filter dev veth-c1 ingress*",
    }
    tc_filter_for_others: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev veth-c1 clsact; tc filter add dev veth-c1 ingress protocol ip prio 1 bpf da bytecode '6,40 0 0 12,21 0 3 2048,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295,'",
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    tc_blackhole: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev up0 root blackhole",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped traffic-control host qdisc blackhole*",
    }
    tc_blackhole_in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc -n c1 qdisc add dev eth0 root blackhole",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped traffic-control /run/netns/c1 qdisc blackhole*",
    }
    tc_blackhole_for_answers: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc -n c2 qdisc add dev eth0 root blackhole",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "unanswered traffic-control /run/netns/c2 qdisc blackhole*",
    }
    tc_queue_of_nothing: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev up0 root bfifo limit 1",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped traffic-control host qdisc bfifo*",
    }
    tc_bucket_too_small: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev veth-c2 root tbf rate 1mbit burst 30 limit 3000",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped traffic-control host qdisc tbf*",
    }
    tc_that_only_shapes: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "tc qdisc add dev veth-c2 root tbf rate 10mbit burst 32kbit latency 400ms; tc qdisc add dev up0 root handle 1: htb default 10; tc class add dev up0 parent 1: classid 1:10 htb rate 100mbit",
        ask: "/run/netns/c1 172.18.0.20:80",
    }
    xdp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "python3 -c '
import ctypes,struct,subprocess,os,platform
libc=ctypes.CDLL(None,use_errno=True)
insns=struct.pack(\"<BBhi\",0xb7,0,0,1)+struct.pack(\"<BBhi\",0x95,0,0,0)
buf=ctypes.create_string_buffer(insns); lic=ctypes.create_string_buffer(b\"GPL\")
attr=struct.pack(\"<IIQQIIQIIII\",6,2,ctypes.addressof(buf),ctypes.addressof(lic),0,0,0,0,0,0,0)+b\"\\0\"*64
a=ctypes.create_string_buffer(attr,len(attr))
fd=libc.syscall(321,5,a,len(attr))
assert fd>=0, ctypes.get_errno()
import socket
s=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,0)
idx=socket.if_nametoindex(\"veth-c1\")
xdp=struct.pack(\"<HHi\",8,1,fd)+struct.pack(\"<HHI\",8,3,2)
nest=struct.pack(\"<HH\",4+len(xdp),43|0x8000)+xdp
body=struct.pack(\"<BxHiII\",0,0,idx,0,0)+nest
s.send(struct.pack(\"<IHHII\",16+len(body),19,5,1,0)+body)
r=s.recv(4096); e=struct.unpack(\"<i\",r[16:20])[0]; assert e==0,e
'",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped|unknown traffic-control host *",
    }
}
