//! Sockets, tracked connections, traffic control.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use wharf_core::trace::state::TcDrop;
use wharf_core::trace::{L4, Owner};
use wharf_engine::observe::world::{Ask, world};

use crate::{alone, json, see, sh};

#[test]
fn sockets_are_as_ss_shows_them() {
    if !alone() {
        return;
    }
    let tcp = TcpListener::bind("127.0.0.1:4001").unwrap();
    let _six = TcpListener::bind("[::1]:4002").unwrap();
    let _any = TcpListener::bind("[::]:4003").unwrap();
    let _udp = UdpSocket::bind("0.0.0.0:4004").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:4005").unwrap();
    connected.connect("127.0.0.1:4004").unwrap();
    let _waiting = [(); 3].map(|()| TcpStream::connect("127.0.0.1:4001").unwrap());
    let state = see(&[]);
    let host = state.host();
    assert!(!state.unread.iter().any(|u| u.what == "sockets"));
    let mut lines = 0;
    for line in sh("ss -Hltn; ss -Huan").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (addr, port) = words[3].rsplit_once(':').unwrap();
        let addr = addr.trim_matches(['[', ']']).replace('*', "::");
        let socket = host
            .sockets
            .iter()
            .find(|s| s.port.to_string() == port)
            .unwrap_or_else(|| panic!("{line}"));
        assert_eq!(socket.addr.to_string(), addr, "{line}");
        if words[0] == "LISTEN" {
            assert_eq!(socket.protocol, L4::Tcp);
            assert_eq!(socket.queue.to_string(), words[1], "{line}");
            assert_eq!(socket.backlog.to_string(), words[2], "{line}");
        } else {
            assert_eq!(socket.protocol, L4::Udp);
            let remote = socket.remote.map(|(a, p)| format!("{a}:{p}"));
            assert_eq!(remote.is_some(), words[0] == "ESTAB");
            assert!(remote.is_none_or(|r| r == words[4]));
        }
        lines += 1;
    }
    assert_eq!((host.sockets.len(), lines), (5, 5));
    let at = |port| host.sockets.iter().find(|s| s.port == port).unwrap();
    assert_eq!((at(4001).queue, at(4003).v6only), (3, false));
    assert_eq!(at(4005).remote.map(|r| r.1), Some(4004));
    // The three clients; the listener's port is not in the range.
    assert_eq!(host.ports_in_use, 3);
    drop(tcp);
}

#[test]
fn connections_of_the_addresses_asked_about() {
    if !alone() {
        return;
    }
    let add = |src: &str, dst: &str, more: &str| {
        sh(&format!(
            "conntrack -I -p tcp -s {src} -d {dst} --sport 1234 --dport 80 --state ESTABLISHED -t 300 {more}"
        ))
    };
    add("10.1.0.1", "10.1.0.2", "-m 5");
    add("10.1.0.3", "10.1.0.4", "");
    add("10.1.0.5", "192.0.2.1", "-g 10.1.0.2:8080");
    add("fd00::1", "fd00::2", "");
    let mut ask = Ask::default();
    let two: IpAddr = "10.1.0.2".parse().unwrap();
    ask.addrs.push(two);
    let host = world(&ask).spaces.swap_remove(0);
    let shown = sh("conntrack -L 2>/dev/null");
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert_eq!(host.conntrack.map(|(count, _)| count), Some(4));
    let most: u32 = sh("cat /proc/sys/net/netfilter/nf_conntrack_max")
        .trim()
        .parse()
        .unwrap();
    assert_eq!(host.conntrack.map(|(_, most)| most), Some(most));
    assert_eq!(host.flows.len(), 2, "{:#?}", host.flows);
    let marked = host.flows.iter().find(|f| f.mark == 5).unwrap();
    assert_eq!((marked.original.dst, marked.original.dport), (two, 80));
    let moved = host.flows.iter().find(|f| f.mark == 0).unwrap();
    assert_eq!((moved.reply.src, moved.reply.sport), (two, 8080));
    assert_ne!(moved.status & 0x20, 0, "the destination is translated");
    for flow in &host.flows {
        // The seconds left may have changed; `conntrack` shows a counter of uses behind.
        let mut words: Vec<&str> = flow.text.split_whitespace().collect();
        words.remove(2);
        let line = shown.lines().find(|line| {
            let mut there: Vec<&str> = line.split_whitespace().collect();
            there.remove(2);
            there.starts_with(&words)
        });
        assert!(line.is_some(), "{}\n{shown}", flow.text);
    }
}

#[test]
fn a_bucket_too_small_for_a_packet() {
    if !alone() {
        return;
    }
    sh("ip link add va type veth peer name vb
        tc qdisc add dev va root tbf rate 1mbit burst 1000 limit 3000
        tc qdisc add dev vb clsact");
    let state = see(&[]);
    let host = state.host();
    let tc = &host.link_named("va").unwrap().tc;
    assert_eq!(tc.len(), 1);
    assert!(!tc[0].ingress);
    // 1000 bytes with the Ethernet header.
    assert_eq!(tc[0].drops, Some(TcDrop::Larger(986)));
    let shown = json("tc -j qdisc show dev va");
    assert_eq!(shown[0]["options"]["burst"], 1000);
    assert!(tc[0].text.contains("burst 1000b"), "{}", tc[0].text);
    assert_eq!(host.link_named("vb").unwrap().tc, []);
    assert_eq!(state.unread, []);
}

#[test]
fn packet_rules_are_as_nft_lists_them() {
    if !alone() {
        return;
    }
    sh("ip link add docker0 type bridge
        nft -f - <<'END'
        table ip filter {
            chain FORWARD { type filter hook forward priority 0; policy drop; tcp dport 80 accept; counter; }
            chain DOCKER-USER { return; }
        }
        table inet mine { set s { type ipv4_addr; elements = { 10.0.0.1 }; }; }
END");
    let state = see(&[]);
    let rules = &state.host().ruleset;
    let shown = json("nft -j -a list ruleset | sed 's/^{\"nftables\": //; s/}$//'");
    let handles: Vec<u64> = shown
        .iter()
        .filter_map(|o| o["rule"]["handle"].as_u64())
        .collect();
    let ours: Vec<u64> = rules
        .chains
        .iter()
        .flat_map(|c| c.rules.iter().map(|r| r.handle))
        .collect();
    assert_eq!(ours, handles);
    assert_eq!((rules.chains.len(), rules.sets.len()), (2, 1));
    assert!(
        rules
            .chains
            .iter()
            .any(|c| c.base.as_ref().is_some_and(|b| b.drops))
    );
    assert_eq!(state.tools, [Owner::Docker]);
    assert_eq!(state.unread, []);
}
