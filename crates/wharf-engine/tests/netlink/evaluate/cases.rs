//! Rulesets. Rules that decide count, so that it can be seen which one did.

/// By `nft -f`.
pub const NFT: &[(&str, &str)] = &[
    (
        "ports, protocols, policies",
        r#"table inet t {
            chain f { type filter hook forward priority 0; policy drop;
                tcp dport { 80, 443 } counter accept
                udp dport 50-60 counter accept
                ip protocol icmp counter drop
            }
            chain i { type filter hook input priority 0
                tcp dport 22 counter reject with tcp reset
                meta l4proto udp counter accept
            }
            chain o { type filter hook output priority 0
                meta skuid 0 udp sport >= 1024 counter accept
                ip daddr 10.0.2.0/24 tcp dport != 8080 counter drop
            }
        }"#,
    ),
    (
        "sets of ranges, concatenations, maps",
        r#"table inet t {
            set nets { type ipv4_addr; flags interval; elements = { 10.0.1.0/25, 10.9.0.0/16, 10.0.9.1-10.0.9.77 } }
            set many { type inet_service; flags interval; elements = { 1-9, 20-30, 50-53, 79-81, 100, 200, 300, 400, 500, 600 } }
            set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.2.0/24 . 8000-8999, 10.0.3.0/24 . 1-9 } }
            set exact { type inet_proto . inet_service . ipv6_addr; elements = { tcp . 80 . fd00:2::2 } }
            map links { type ifname : verdict; elements = { "va" : jump from_a, * : drop } }
            map marks { type inet_service : mark; elements = { 53 : 0x53, 80 : 0x80 } }
            chain from_a {
                ip saddr @nets tcp dport @many counter meta mark set tcp dport map @marks accept
                ip daddr . tcp dport @pairs counter drop
                meta l4proto . th dport . ip6 daddr @exact counter accept
                meta nfproto ipv6 counter return
                meta l4proto { icmp, udp } counter accept
                counter drop
            }
            chain f { type filter hook forward priority 0; policy drop;
                iifname vmap @links
                udp dport 53 meta mark set udp dport map { 53 : 0x7, 54 : 0x8 } counter accept
            }
        }"#,
    ),
    (
        "wildcards in names, marks, priorities",
        r#"table inet t {
            chain early { type filter hook prerouting priority -300
                ct state invalid counter meta mark set 0x100
                iifname "v*" meta mark set meta mark | 0x1
                ip ttl 64 meta mark set meta mark ^ 0x10
            }
            chain late { type filter hook prerouting priority -150
                meta mark & 0x100 == 0x100 meta mark set meta mark & 0xff
                ct mark set meta mark
            }
            chain f { type filter hook forward priority 0
                ct mark 0x11 ip ttl < 64 counter accept
                oifname { "vb", "vc" } meta mark 0x1 meta mark set 0x2
                iifname != "vx*" counter drop
            }
            chain f2 { type filter hook forward priority 5
                tcp flags & (syn | ack) == syn tcp dport 8080 counter drop
                tcp flags syn,ack / syn,ack counter drop
                meta length 60 counter meta mark set 0x60
            }
        }"#,
    ),
    (
        "jumps, gotos, returns",
        r#"table inet t {
            chain d { udp dport 53 counter return; tcp dport 80 counter accept; }
            chain c { jump d; meta l4proto icmp counter drop; }
            chain g { counter return; }
            chain f { type filter hook forward priority 0; policy drop;
                jump c
                ip6 daddr fd00:2::2 goto g
                ip daddr 10.0.2.2 meta l4proto udp counter accept
            }
            chain i { type filter hook input priority 0; policy accept;
                goto d
                counter drop
            }
        }"#,
    ),
    (
        "conntrack",
        r#"table inet t {
            chain raw { type filter hook prerouting priority raw; udp dport 53 ip daddr 10.0.2.2 notrack; }
            chain f { type filter hook forward priority 0
                ct state untracked counter meta mark set 0x40
                ct state vmap { new : continue, invalid : drop, established : accept }
                meta l4proto tcp ct original ip daddr 10.0.2.2 ct original proto-dst 80 counter drop
                ct direction original ct l3proto ipv6 meta mark set 0x6
                ct status dnat counter drop
                ct state new meta l4proto tcp ct original proto-src 40002 counter meta mark set 0x9
            }
        }"#,
    ),
    (
        "routing and types",
        r#"table inet t {
            chain p { type filter hook prerouting priority -50
                fib saddr . iif oif missing counter drop
                fib daddr type local tcp dport 22 counter meta mark set 0x22
                fib daddr . iif type local udp dport 53 counter drop
                fib daddr oif "vb" meta mark set meta mark | 0x2
                fib daddr oifname "vb" ip protocol icmp counter meta mark set meta mark | 0x4
                fib saddr type unicast meta mark set meta mark | 0x80
            }
            chain o { type filter hook output priority 0
                fib saddr type local counter meta mark set 0x7
            }
        }"#,
    ),
    (
        "link headers, packet types",
        r#"table inet t {
            chain p { type filter hook prerouting priority 0
                ether saddr 02:00:00:00:01:02 meta mark set 0x1
                ether daddr 02:00:00:00:01:01 ether type ip meta mark set 0x2
                meta pkttype host udp dport 53 meta mark set meta mark | 0x10
                iiftype ether meta protocol ip6 counter meta mark set meta mark | 0x20
                meta iifkind "veth" meta mark set meta mark | 0x40
                iif "va" iifgroup default meta mark set meta mark | 0x80
                ip frag-off & 0x1fff != 0 counter drop
                tcp option maxseg size set 1200
                exthdr frag exists counter drop
            }
            chain o { type filter hook output priority 0
                ether saddr 02:00:00:00:01:02 counter drop
                oif "vb" udp length 12 meta mark set 0x12
            }
        }"#,
    ),
    (
        "destinations",
        r#"table inet t {
            map to { type inet_service : ipv4_addr; elements = { 80 : 10.0.2.3 } }
            chain p { type nat hook prerouting priority dstnat
                iifname "va" dnat ip to tcp dport map @to
                tcp dport 8080 dnat ip to 10.0.2.3:81
                udp dport 53 ip daddr 10.0.2.2 redirect to :5353
                ip6 daddr fd00:2::2 udp dport 53 dnat ip6 to [fd00:1::1]:54
            }
            chain p2 { type nat hook prerouting priority -90; meta l4proto icmp dnat ip to 10.0.1.1; tcp dport 81 dnat ip to 10.0.2.4; }
            chain o { type nat hook output priority -100; udp dport 53 dnat ip to 10.0.2.3:55; }
            chain f { type filter hook forward priority 0; ct status dnat counter meta mark set 0xd; }
            chain i { type filter hook input priority 0; meta mark set 0x1; ct original ip daddr 10.0.2.2 counter meta mark set 0x2; }
        }"#,
    ),
    (
        "sources",
        r#"table inet t {
            chain s { type nat hook postrouting priority srcnat
                oifname "vb" meta l4proto udp masquerade
                oifname "vb" ip saddr 10.0.1.0/24 tcp dport 80 snat ip to 10.0.2.9
                oifname "vb" tcp dport 8080 snat ip to 10.0.2.9:1000
                ip saddr 10.0.1.0/24 meta l4proto icmp snat ip prefix to 10.0.7.0/24
                ip6 saddr fd00:1::/64 snat ip6 to fd00:2::99
            }
            chain late { type filter hook postrouting priority 200; ct status snat meta mark set 0x5; ip saddr 10.0.2.9 counter meta mark set 0x9; }
            chain i { type nat hook input priority 100; udp dport 53 ip saddr 10.0.1.2 snat ip to 10.0.1.77; }
        }"#,
    ),
    (
        "prefixes, redirects without ports",
        r#"table ip t {
            chain p { type nat hook prerouting priority -100
                ip daddr 10.0.2.0/24 tcp dport 80 redirect
                dnat ip prefix to ip daddr map { 10.0.2.0/25 : 10.0.2.128/25 }
            }
        }
        table ip6 t { chain f { type filter hook forward priority 0; ip6 nexthdr tcp counter drop; }
        }"#,
    ),
    (
        "limits, quotas, numbers that are certain",
        r#"table inet t {
            limit slow { rate over 1000/second burst 1000 packets }
            quota small { over 1 mbytes }
            counter everything { }
            set metered { type ipv4_addr; size 100; flags dynamic; }
            chain f { type filter hook forward priority 0
                counter name "everything" limit name "slow" counter drop
                quota name "small" counter drop
                limit rate over 1000/second burst 1000 packets counter drop
                limit rate 1000/second burst 1000 packets tcp dport 80 counter drop
                ct count over 1000 counter drop
                add @metered { ip saddr limit rate over 1000/second burst 1000 packets } counter drop
                log prefix "seen " meta mark set numgen inc mod 1
                numgen inc mod 1 == 0 tcp dport 8080 counter drop
            }
        }"#,
    ),
    (
        "dormant tables and ranges outside",
        r#"table inet asleep { flags dormant; chain f { type filter hook forward priority -500; policy drop; }
        }
        table inet t { chain f { type filter hook forward priority 0
            tcp dport != 81-90 tcp sport 40001-40003 counter drop
            ip saddr != { 10.0.1.2, 10.0.1.3 } counter drop
            udp sport != 40000-40010 counter drop
            ip saddr & 255.255.0.255 == 10.0.0.2 counter meta mark set 0x2
            ip dscp 0 counter meta mark set meta mark << 2
            meta mark >= 8 counter drop
        }
        }"#,
    ),
];

/// By `iptables`, on nf_tables; matches that nf_tables has instructions for.
pub const IPTABLES: &[(&str, &str)] = &[(
    "iptables: addresses, links, chains, policies",
    "iptables-nft -P FORWARD DROP; iptables-nft -N c; iptables-nft -N d
        iptables-nft -A FORWARD -i va -o vb -j c
        iptables-nft -A FORWARD -s 10.0.0.0/8 ! -d 10.0.2.2 -j ACCEPT
        iptables-nft -A FORWARD -p udp -g d
        iptables-nft -A c -p icmp -j ACCEPT; iptables-nft -A c -p tcp --dport 8000:8100 -j DROP
        iptables-nft -A c ! -p tcp -j RETURN
        iptables-nft -A c -s 10.0.1.2/31 -d 10.0.2.0/24 -j ACCEPT
        iptables-nft -A d -i v+ -j ACCEPT
        iptables-nft -A INPUT ! -i lo -p udp -j DROP
        ip6tables-nft -A FORWARD -d fd00:2::/64 -p tcp -j DROP",
)];

/// For their text only.
pub const TEXTS: &[(&str, &str)] = &[(
    "of each kind one",
    r#"table inet t {
  set ports { type inet_service; flags interval; elements = { 22, 80-90, 443 } }
  set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.0/24 } }
  set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 80-90 } }
  map m { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.2 } }
  map vm { type ifname : verdict; elements = { "a" : jump c, * : drop } }
  chain c { tcp dport 80 accept comment "hello" ; ip saddr != 10.0.0.0/8 counter drop; }
  chain f { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    ct state vmap { new : jump c, invalid : drop }
    iifname vmap @vm
    iifname "br*" oifname != "eth0" accept
    tcp dport @ports ip saddr @nets ip daddr . tcp dport @pairs accept
    tcp flags & (fin|syn|rst|ack) == syn accept
    meta mark & 0xff == 0x10 meta mark set meta mark | 0x1 ct mark set mark
    limit rate over 10/second burst 5 packets drop
    fib saddr . iif oif missing drop
    fib daddr type local reject
    icmp type echo-request accept
    icmpv6 type { nd-neighbor-solicit, nd-router-advert } accept
    ip6 saddr fe80::/10 reject with icmpx admin-prohibited
    tcp dport 25 reject with tcp reset
    ip ttl < 5 drop
    meta l4proto { tcp, udp } th dport 53 drop
    udp dport 1-1024 log prefix "x" drop
    numgen random mod 2 vmap { 0 : accept, 1 : drop }
    ct original ip daddr 10.0.0.1 accept
    meta pkttype broadcast drop
    ether saddr 02:00:00:00:00:01 drop
  }
  chain d { type nat hook prerouting priority dstnat; dnat ip to tcp dport map @m; tcp dport 81 dnat ip to 10.0.0.3:8080; tcp dport 82 redirect to :90; dnat ip prefix to ip daddr map { 10.1.0.0/16 : 10.2.0.0/16 };
 }
  chain s { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; ip saddr 10.0.0.0/24 snat ip to 192.0.2.1-192.0.2.3;
 }
}"#,
)];
