//! Trace messages of real packets, sent from and to the loopback device of a private namespace.

mod common;

use common::{nft_load, private_netns, run};
use std::time::Duration;
use wharf_nft::conntrack::Conntrack;
use wharf_nft::{Family, NfSocket, Policy, TraceEvent, TraceKind, Verdict};

const RULES: &str = r#"
table inet t {
    chain hit {
        udp dport 9 counter return comment "leave"
    }
    chain in {
        type filter hook input priority 0; policy drop;
        meta mark set 0x2a
        jump hit
    }
    chain out {
        type filter hook output priority 0;
        udp dport 9 meta nftrace set 1
        ct state new accept
    }
}
"#;

#[test]
fn a_packet_is_followed_to_the_policy_that_drops_it() {
    if !private_netns() {
        return;
    }
    run("ip", &["link", "set", "lo", "up"], "");
    nft_load(RULES);
    let mut socket = NfSocket::open().unwrap();
    socket.subscribe_trace().unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"hello", "127.0.0.1:9").unwrap();
    let mut events: Vec<TraceEvent> = Vec::new();
    while let Some(event) = socket.recv_trace(Duration::from_millis(300)).unwrap() {
        events.push(event);
    }
    let steps: Vec<_> = events
        .iter()
        .map(|e| (e.chain.as_deref().unwrap(), e.kind, e.verdict.clone()))
        .collect();
    let rule = |chain, verdict| (chain, TraceKind::Rule, Some(verdict));
    let wanted = [
        rule("out", Verdict::Continue),
        rule("out", Verdict::Accept),
        rule("in", Verdict::Continue),
        rule("in", Verdict::Jump("hit".to_owned())),
        rule("hit", Verdict::Return),
        // The end of the chain, then its policy.
        rule("in", Verdict::Continue),
        ("in", TraceKind::Policy, None),
    ];
    assert_eq!(steps, wanted);
    let (first, last) = (&events[0], events.last().unwrap());
    assert_eq!(
        (first.family, first.table.as_deref()),
        (Family::Inet, Some("t"))
    );
    assert_eq!(events[5].rule, None, "no rule made the end of the chain");
    assert_eq!(
        (events[1].id, events[2].id == first.id),
        (first.id, false),
        "another interface is another id"
    );
    assert!(events[2..].iter().all(|e| e.id == last.id));
    assert_eq!((last.policy, last.mark), (Some(Policy::Drop), Some(0x2a)));
    let headers: Vec<_> = events
        .iter()
        .filter_map(|e| e.network_header.as_deref())
        .collect();
    assert_eq!(headers[0].get(16..20), Some(&[127, 0, 0, 1][..]));
    assert_eq!(
        first.transport_header.as_deref().unwrap().get(2..4),
        Some(&[0, 9][..])
    );
    assert_eq!((first.oif, first.nfproto), (Some(1), Some(2)));
    let rules = NfSocket::open().unwrap().ruleset().unwrap();
    let returned = rules
        .rules
        .iter()
        .find(|r| r.handle == events[4].rule && r.chain == "hit")
        .unwrap();
    assert_eq!(returned.comment().as_deref(), Some("leave"));
    match first.ct {
        None => println!("SKIPPED part: kernel before 6.16 does not trace connections"),
        Some(ct) => assert!(
            ct.id.is_some() && ct.direction == Some(0) && ct.state == Some(8),
            "{ct:?}"
        ),
    }
}

#[test]
fn a_trace_names_the_entry_of_its_connection() {
    if !private_netns() {
        return;
    }
    run("ip", &["link", "set", "lo", "up"], "");
    nft_load(&RULES.replace("policy drop", "policy accept"));
    let mut socket = NfSocket::open().unwrap();
    socket.subscribe_trace().unwrap();
    let receiver = std::net::UdpSocket::bind("127.0.0.1:9").unwrap();
    receiver.connect("127.0.0.1:40000").unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:40000").unwrap();
    sender.send_to(b"hello", "127.0.0.1:9").unwrap();
    let Some(ct) = socket
        .recv_trace(Duration::from_secs(2))
        .unwrap()
        .unwrap()
        .ct
    else {
        return println!("SKIPPED: kernel before 6.16 does not trace connections");
    };
    let entries = Conntrack::open().unwrap().dump().unwrap();
    assert_eq!(entries.iter().map(|e| e.id).collect::<Vec<_>>(), [ct.id]);
}
