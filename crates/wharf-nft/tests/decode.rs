//! What `nft` and `iptables` load, as the crate reads it; and read, removed, written again, it must list the same.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{assert_same, nft_list, nft_load, private_netns, run};
use wharf_nft::expr::*;
use wharf_nft::*;

const CORPUS: &str = r#"
table inet wharf {
    comment "all kinds"
    counter hits { packets 3 bytes 300 comment "named" }
    quota lots { over 10 mbytes }
    limit slow { rate 5/minute burst 7 packets }
    map to {
        type inet_proto . inet_service : ipv4_addr . inet_service
        flags interval
        elements = { tcp . 80 : 10.0.0.1 . 8080, udp . 1000-2000 : 10.0.0.2 . 1000 }
    }
    set typed {
        typeof ip saddr . tcp dport
        elements = { 10.0.0.1 . 80 comment "one" }
    }
    set nets {
        type ipv4_addr
        flags interval
        auto-merge
        comment "ranges"
        elements = { 0.0.0.0/8, 10.0.0.0/8, 192.168.0.1-192.168.0.9, 224.0.0.0/3 }
    }
    set six { type ipv6_addr; flags interval; elements = { fd00::/8, 2001:db8::1 } }
    set macs { type ether_addr; size 100; policy memory; elements = { 02:00:00:00:00:01 } }
    set aging { type ipv4_addr; flags dynamic,timeout; timeout 1h; gc-interval 5m; size 65535; }
    set metered { type ipv4_addr; size 1000; flags dynamic; counter; }
    map verdicts { type ifname : verdict; elements = { "lo" : accept, "eth*" : jump sub, "wharf0" : goto sub } ; flags interval; }
    map objects { type ipv4_addr : counter; elements = { 10.0.0.1 : "hits" } }
    map any { type mark : verdict; elements = { 0x1 : drop, * : accept } }
    chain sub {
        comment "reached by jump"
        return
    }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state vmap { invalid : drop, established : accept, related : accept }
        ct state new,untracked ct status dnat ct mark and 0xff == 0x1 ct direction original accept
        meta l4proto tcp ct original ip saddr 10.0.0.1 ct original proto-dst 80
        ct zone 3 counter packets 1 bytes 2
        ct mark set meta mark
        meta mark set ct mark and 0xff
        meta mark set 0x10 meta priority set 1:2 meta nftrace set 1
        iifname "eth0" oifname != "eth1" iif "lo" meta skuid 0 meta skgid 1-5 meta pkttype broadcast
        iifname { "a", "b" } tcp dport { 22, 80-90 } accept comment "ports"
        tcp flags syn / fin,syn,rst,ack tcp sport 1024-65535 drop
        ip dscp set cs1 ip ttl 64 ip length > 100 ip frag-off & 0x1fff != 0
        ip6 nexthdr udp ip6 hoplimit set 5 ip6 saddr @six exthdr frag exists
        icmp type { echo-request, echo-reply }
        icmpv6 type nd-neighbor-solicit accept
        fib daddr type local fib saddr . iif oif missing drop
        fib daddr . mark oifname "x" counter
        ether saddr @macs ip daddr @nets ip saddr != @nets iifname vmap @verdicts
        ip saddr . tcp dport @typed counter name "hits"
        counter name ip saddr map @objects
        limit rate over 10/second burst 5 packets drop
        limit rate 1 mbytes/second quota over 100 mbytes drop
        limit name "slow" quota name "lots"
        add @aging { ip saddr timeout 10m } update @metered { ip daddr counter } delete @aging { ip daddr }
        log prefix "gone: " level warn flags all
        log group 3 snaplen 64 queue-threshold 2
        reject with icmpx port-unreachable
        meta l4proto tcp reject with tcp reset
        meta nfproto ipv4 reject with icmp host-prohibited
        ct count over 20 reject
        meta mark set jhash ip saddr . tcp sport mod 4 seed 0x1234 offset 1
        meta mark set symhash mod 2
        meta mark set numgen random mod 10 offset 5
        socket transparent 1 socket mark 0x1 rt classid 5
        rt ip nexthop 10.0.0.1 @th,16,16 80 @nh,0,4 4
        ip version 4 ip hdrlength 5 meta day "Monday" meta hour "10:00"
        meta mark vmap @any
        jump sub
    }
    chain raw {
        type filter hook prerouting priority raw; policy accept;
        udp dport 53 notrack
    }
    chain tp {
        type filter hook prerouting priority mangle; policy accept;
        meta nfproto ipv4 tcp dport 80 tproxy ip to 127.0.0.1:8080 meta mark set 1 accept
        tcp dport 81 tproxy to :8081
    }
    chain pre {
        type nat hook prerouting priority dstnat; policy accept;
        meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @to
        meta l4proto tcp dnat ip to tcp dport map { 80 : 10.0.0.1 . 8080 }
        tcp dport 80 dnat ip to 10.0.0.1:8080 random,persistent
        dnat ip to ip daddr map { 1.2.3.4 : 10.0.0.1, 1.2.3.5 : 10.0.0.2 }
        meta l4proto tcp dnat ip6 to [fd00::1]:80-90
        dnat ip prefix to ip daddr map { 1.2.4.0/24 : 10.2.4.0/24 }
        udp dport 53 redirect to :5353
    }
    chain post {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" meta l4proto tcp masquerade to :1024-65535 fully-random
        meta nfproto ipv4 snat ip to 10.0.0.1-10.0.0.9
        masquerade
    }
    chain anonymous {
        type filter hook output priority 5; policy accept;
        ip daddr 10.0.0.1 jump {
            counter accept
        }
    }
}
table ip four {
    chain c {
        type route hook output priority mangle; policy accept;
        ip daddr 10.0.0.1 meta mark set 1
    }
    chain f {
        type filter hook forward priority -5; policy drop;
        tcp flags & (syn | ack) == syn tcp option maxseg size set rt mtu
        ip protocol tcp synproxy mss 1460 wscale 7 timestamp sack-perm
        dup to 10.0.0.1 device "lo"
        osf name "Linux" counter
        meta ipsec exists ipsec in reqid 1 counter
    }
}
table netdev n {
    chain in {
        type filter hook ingress device "lo" priority 0; policy accept;
        arp operation request arp saddr ip 10.0.0.1 drop
        vlan id 5 ether type ip accept
        fwd to "lo"
    }
}
table bridge b {
    chain f {
        type filter hook forward priority filter; policy accept;
        ether type arp arp saddr ether != 02:00:00:00:00:01 drop
        meta ibrname "br0" accept
    }
}
table arp a {
    chain in {
        type filter hook input priority filter; policy accept;
        arp operation reply counter
    }
}
"#;

/// Loads what this kernel and this nft can do of the corpus, line by line where the whole is refused.
fn load_corpus() {
    let mut lines: Vec<&str> = CORPUS.lines().collect();
    loop {
        let text = lines.join("\n");
        let Some(error) = common::try_nft(&text) else {
            return;
        };
        // nft names the line as "/dev/stdin:12:9-20: Error: …" (from 1).
        let line = error
            .split(':')
            .nth(1)
            .and_then(|n| n.parse::<usize>().ok());
        let Some(line) = line.filter(|n| (1..=lines.len()).contains(n)) else {
            panic!("{error}")
        };
        let why = error.lines().next().unwrap_or_default();
        println!("not here: {} ({why})", lines[line - 1].trim());
        assert!(!lines[line - 1].trim().is_empty(), "{error}");
        lines[line - 1] = "";
    }
}

/// A batch that makes `ruleset` again after its tables are deleted.
fn replay(ruleset: &Ruleset) -> Batch {
    let mut batch = Batch::new();
    for table in &ruleset.tables {
        batch.del_table(table.family, &table.name).add_table(table);
    }
    for object in &ruleset.objects {
        batch.add_object(object);
    }
    for (set, _) in &ruleset.sets {
        batch.add_set(set);
    }
    for chain in &ruleset.chains {
        batch.add_chain(chain);
    }
    for (set, elements) in &ruleset.sets {
        batch.add_elements(&set.into(), elements);
    }
    // The kernel takes rules of an anonymous chain only until a rule jumps to it.
    let anonymous = |r: &&Rule| {
        ruleset
            .chain(r.family, &r.table, &r.chain)
            .is_some_and(|c| c.flags.has(ChainFlags::BINDING))
    };
    let (first, then): (Vec<_>, Vec<_>) = ruleset.rules.iter().partition(anonymous);
    for rule in first.into_iter().chain(then) {
        batch.add_rule(&Rule {
            position: None,
            compat: rule.infer_compat(),
            ..rule.clone()
        });
    }
    batch
}

/// Without what differs each time it is loaded.
fn stable(mut ruleset: Ruleset) -> Ruleset {
    ruleset.generation = 0;
    ruleset.tables.iter_mut().for_each(|t| t.handle = None);
    ruleset.chains.iter_mut().for_each(|c| c.handle = None);
    ruleset.objects.iter_mut().for_each(|o| o.handle = None);
    for rule in &mut ruleset.rules {
        (rule.handle, rule.position) = (None, None);
    }
    for (set, elements) in &mut ruleset.sets {
        set.handle = None;
        elements.sort_by(|a, b| (&a.key, a.flags.0).cmp(&(&b.key, b.flags.0)));
    }
    ruleset
}

#[track_caller]
fn assert_survives() {
    let mut socket = NfSocket::open().unwrap();
    let (before, listed) = (socket.ruleset().unwrap(), nft_list());
    let unknown = before
        .rules
        .iter()
        .flat_map(|r| &r.exprs)
        .find(|e| matches!(e, Expr::Unknown { .. }));
    assert!(unknown.is_none(), "not decoded: {unknown:?}");
    socket.commit(&replay(&before)).unwrap();
    assert_same(&nft_list(), &listed);
    assert_eq!(stable(socket.ruleset().unwrap()), stable(before));
}

#[test]
fn everything_survives_being_read_and_written() {
    if !private_netns() {
        return;
    }
    load_corpus();
    assert_survives();
}

#[test]
fn published_ports_are_read_as_they_are_meant() {
    if !private_netns() {
        return;
    }
    load_corpus();
    let mut socket = NfSocket::open().unwrap();
    // meta nfproto ipv4 dnat ip to meta l4proto . th dport map @to, which nft 1.0.6 prints but does not take.
    let (r1, port) = (Reg::R1, Reg::slot(1).unwrap());
    let dnat = vec![
        Expr::meta(MetaKey::NfProto, r1),
        Expr::cmp(r1, CmpOp::Eq, [2]),
        Expr::meta(MetaKey::L4Proto, r1),
        Expr::payload(PayloadBase::Transport, 2, 2, port),
        Expr::lookup_map("to", r1, r1),
        Expr::dnat(Family::Ip, r1, Some(port)),
    ];
    let mut batch = Batch::new();
    batch.insert_rule(
        &Rule::new(Family::Inet, "wharf", "pre", dnat.clone()).with_comment("published"),
    );
    socket.commit(&batch).unwrap();
    let ruleset = socket.ruleset().unwrap();
    let rule = ruleset
        .rules_of(Family::Inet, "wharf", "pre")
        .next()
        .unwrap();
    assert_eq!(rule.comment().as_deref(), Some("published"));
    assert_eq!(rule.exprs[..5], dnat[..5]);
    let Expr::Nat(nat) = &rule.exprs[5] else {
        panic!("{rule:?}")
    };
    assert_eq!(
        (nat.kind, nat.addr_min, nat.proto_min),
        (NatType::Dnat, Some(r1), Some(port))
    );
    println!("what the kernel adds to dnat: {nat:?}");
    let (map, elements) = ruleset.set(Family::Inet, "wharf", "to").unwrap();
    assert_eq!(map.interval_style(), IntervalStyle::KeyEnd);
    assert_eq!(map.fields, [1, 2]);
    let mut ranges = intervals(map, elements);
    ranges.sort_by_key(|(first, ..)| first.to_vec());
    let (first, last, element) = &ranges[1];
    assert_eq!(
        (*first, last.as_slice()),
        (
            &[17, 0, 0, 0, 3, 232, 0, 0][..],
            &[17, 0, 0, 0, 7, 208, 0, 0][..]
        )
    );
    assert_eq!(
        element.data,
        Some(Data::Value(vec![10, 0, 0, 2, 3, 232, 0, 0]))
    );
    let (nets, elements) = ruleset.set(Family::Inet, "wharf", "nets").unwrap();
    let ranges: Vec<_> = intervals(nets, elements)
        .into_iter()
        .map(|(a, b, _)| (a.to_vec(), b))
        .collect();
    assert_eq!(
        ranges,
        [
            (vec![0, 0, 0, 0], vec![0, 255, 255, 255]),
            (vec![10, 0, 0, 0], vec![10, 255, 255, 255]),
            (vec![192, 168, 0, 1], vec![192, 168, 0, 9]),
            (vec![224, 0, 0, 0], vec![255, 255, 255, 255]),
        ]
    );
    assert_eq!(nets.comment().as_deref(), Some("ranges"));
    let chain = ruleset
        .chain(Family::Ip, "four", "f")
        .unwrap()
        .base
        .as_ref()
        .unwrap();
    assert_eq!(
        (chain.hook, chain.priority, chain.policy),
        (Hook::Forward, -5, Policy::Drop)
    );
    let verdicts = &ruleset.set(Family::Inet, "wharf", "verdicts").unwrap().1;
    assert!(
        verdicts
            .iter()
            .any(|e| e.data == Some(Verdict::Jump("sub".to_owned()).into()))
    );
}

#[test]
fn iptables_rules_survive() {
    if !private_netns() {
        return;
    }
    for line in [
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp -m multiport --dports 80,443,8000:8010 -m comment --comment web -j ACCEPT",
        "-A INPUT -m mark --mark 0x1/0xff -j MARK --set-mark 0x10",
        "-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
        "-t nat -A POSTROUTING -s 10.0.0.0/8 ! -o wharf0 -j MASQUERADE",
        "-A INPUT -p tcp --syn -m limit --limit 5/min -j LOG --log-prefix iptables:",
        "-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable",
        "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        run("iptables-nft", &args, "");
    }
    let six = "-A FORWARD -m conntrack --ctstate NEW -m addrtype --dst-type UNICAST -p tcp -m multiport --ports 1,2 -j DROP";
    run("ip6tables-nft", &six.split(' ').collect::<Vec<_>>(), "");
    let rules = NfSocket::open().unwrap().dump_rules().unwrap();
    let find = |name: &str| {
        let exprs = rules.iter().flat_map(|r| &r.exprs);
        exprs
            .filter_map(|e| {
                if let Expr::Match(m) = e {
                    Some(m)
                } else {
                    None
                }
            })
            .find(|m| m.name == name)
    };
    for name in ["addrtype", "conntrack", "multiport", "physdev"] {
        assert!(find(name).is_some_and(|m| !m.info.0.is_empty()), "{name}");
    }
    let before = run("iptables-nft-save", &[], "") + &run("ip6tables-nft-save", &[], "");
    assert_survives();
    let without_dates = |s: &str| {
        s.lines()
            .filter(|l| !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let after = run("iptables-nft-save", &[], "") + &run("ip6tables-nft-save", &[], "");
    assert_same(&without_dates(&after), &without_dates(&before));
}

#[test]
fn a_ruleset_is_read_at_one_generation_while_others_write() {
    if !private_netns() {
        return;
    }
    let mut writer = NfSocket::open().unwrap();
    let mut reader = NfSocket::open().unwrap();
    let family = Family::Inet;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::spawn(move || {
        for n in 0_u32.. {
            if seen.load(std::sync::atomic::Ordering::Relaxed) {
                return n;
            }
            let mut batch = Batch::new();
            batch
                .add_table(&Table::new(family, "t"))
                .del_table(family, "t")
                .add_table(&Table::new(family, "t"));
            for name in ["a", "b"] {
                let set = Set::new(family, "t", name, &DataType::mark());
                batch
                    .add_set(&set)
                    .add_elements(&(&set).into(), &[Element::new(n.to_ne_bytes())]);
            }
            writer.commit(&batch).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        0
    });
    let (mut good, mut unsettled) = (0, 0);
    for _ in 0..200 {
        match reader.ruleset() {
            Ok(ruleset) if ruleset.sets.is_empty() => {}
            Ok(ruleset) => {
                assert_eq!(
                    ruleset.sets[0].1, ruleset.sets[1].1,
                    "two sets of different generations"
                );
                good += 1;
            }
            Err(NftError::Unsettled) => unsettled += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    println!(
        "{good} read, {unsettled} gave up, {} writes",
        thread.join().unwrap()
    );
    assert!(good > 0);
    nft_load("flush ruleset");
}
