//! Attacks by source ports: a container that sends out from the number of another's published port, so that answers and
//! what its peer sends next come to it (a port shadow, CVE-2021-3773).

use crate::common::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use wharf_testkit::{Answer, Echo, Host, Netns, addr, require};

/// Where the client outside is, by its own port.
const CLIENT: u16 = 7777;

/// The router outside: its address is the one it sends from.
fn client_at(v6: bool) -> IpAddr {
    match v6 {
        true => addr::ROUTER6,
        false => addr::ROUTER4,
    }
}

fn everywhere(v6: bool) -> IpAddr {
    match v6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn socket(netns: &Netns, v6: bool, port: u16) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((everywhere(v6), port)));
    let socket = socket.unwrap_or_else(|e| panic!("port {port}: {e}"));
    let limit = Some(Duration::from_millis(300));
    socket.set_read_timeout(limit).expect("timeout");
    socket
}

/// Sends the client a datagram from `from`, again if it does not arrive; from where it came, as the client sees it. The
/// first one may be dropped, where the port drawn for it is published too.
fn seen(from: &UdpSocket, client: &UdpSocket, v6: bool) -> Option<u16> {
    let mark = wharf_testkit::frame::random_bytes::<8>();
    for _ in 0..4 {
        let _ = from.send_to(&mark, (client_at(v6), CLIENT));
        let mut buffer = [0; 64];
        while let Ok((count, peer)) = client.recv_from(&mut buffer) {
            if buffer[..count] == mark {
                assert_eq!(peer.ip().to_canonical(), addr::host(v6), "not masqueraded");
                return Some(peer.port());
            }
        }
    }
    None
}

/// Who answers when the client sends to a port of the host from its own port.
fn answered(client: &UdpSocket, v6: bool, port: u16) -> Option<String> {
    client
        .send_to(b"who?", (addr::host(v6), port))
        .expect("send");
    let mut buffer = [0; 64];
    let (count, _) = client.recv_from(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    text.split(' ').next().map(str::to_owned)
}

/// `evil` and `helper` on one network, `victim` on another, with what it publishes.
fn world(options: &str, publish: &str) -> Host {
    let host = host();
    network(&host, "A", 1, options);
    network(&host, "B", 2, "");
    container(&host, "evil", "A", 1, 66, "");
    container(&host, "helper", "A", 1, 67, "");
    container(&host, "victim", "B", 2, 11, publish);
    host
}

fn udp_from(host: &Host, published: u16, inside: u16) {
    let evil = host.container("evil");
    let _server = Echo::udp(&host.container("victim"), "victim", inside);
    for v6 in [false, true] {
        let client = socket(host.outside(), v6, CLIENT);
        let shadow = socket(&evil, v6, published);
        let port = seen(&shadow, &client, v6).expect("the container has its way out");
        assert_ne!(port, published, "IPv6 {v6}: it has the published port");
        let by = answered(&client, v6, published);
        assert_eq!(by.as_deref(), Some("victim"), "IPv6 {v6}");
        let mut buffer = [0; 64];
        let stolen = shadow.recv_from(&mut buffer);
        assert!(
            stolen.is_err(),
            "IPv6 {v6}: {stolen:?} came to the wrong one"
        );
        // Answers do find the way back, from the port that was drawn.
        client
            .send_to(b"answer", (addr::host(v6), port))
            .expect("send");
        assert!(
            shadow.recv_from(&mut buffer).is_ok(),
            "IPv6 {v6}: no answer"
        );
    }
}

#[test]
fn who_sends_from_a_published_port_gets_nothing_meant_for_it() {
    require!();
    let publish =
        "-p 8090:90/udp -p 5060:5060/udp -p 6000-6019:6000-6019/udp -p 7000-7003:7100-7103/udp";
    let host = world("", publish);
    for (published, inside) in [(8090, 90), (5060, 5060), (6007, 6007), (7002, 7102)] {
        udp_from(&host, published, inside);
    }
    // The numbers of others are left as they are, also those that stand for published ports inside.
    for v6 in [false, true] {
        let client = socket(host.outside(), v6, CLIENT);
        for free in [8091, 90, 500, 40000] {
            let sender = socket(&host.container("evil"), v6, free);
            assert_eq!(seen(&sender, &client, v6), Some(free), "IPv6 {v6}");
        }
        // Who publishes a port under its own number sends from it (SIP, IKE).
        for own in [5060, 6007] {
            let publisher = socket(&host.container("victim"), v6, own);
            assert_eq!(seen(&publisher, &client, v6), Some(own), "IPv6 {v6}");
        }
    }
}

#[test]
fn the_same_where_one_address_is_published_or_sources_are_set() {
    require!();
    let v4 = addr::host(false);
    let v6 = addr::host(true);
    let publish = format!(
        "-p {v4}:8090:90/udp -p [{v6}]:8090:90/udp -p {v4}:6000-6019:6000-6019/udp -p [{v6}]:6000-6019:6000-6019/udp"
    );
    for options in [
        String::new(),
        format!("-o host_ipv4={v4} -o host_ipv6={v6}"),
    ] {
        let host = world(&options, &publish);
        udp_from(&host, 8090, 90);
        udp_from(&host, 6007, 6007);
    }
}

/// Another's mapping at another address goes; this one is guarded still.
#[test]
fn ports_of_one_number_at_two_addresses_are_guarded_each() {
    require!();
    let host = world("", &format!("-p {}:8090:90/udp", addr::host(false)));
    container(&host, "second", "B", 2, 12, "-p 10.0.2.3:8090:90/udp");
    let elements = |set| host.sh(&format!("nft list set inet wharf {set}"));
    let are = |number: bool, first: bool, second: bool| {
        let held = elements("held4");
        let found = (
            elements("taken4_bound").contains("udp . 8090"),
            held.contains("10.0.2.2 . udp . 8090"),
            held.contains("10.0.2.3 . udp . 8090"),
        );
        assert_eq!(found, (number, first, second));
    };
    are(true, true, true);
    host.sh("nft flush set inet wharf taken4_bound; nft flush set inet wharf held4");
    are(false, false, false);
    host.w("repair").ok();
    are(true, true, true);
    let again = host.w("repair --dry-run --json").ok().json();
    assert_eq!(again["steps"], serde_json::json!([]));
    host.w("rm -f second").ok();
    are(true, true, false);
    let evil = socket(&host.container("evil"), false, 8090);
    let client = socket(host.outside(), false, CLIENT);
    let port = seen(&evil, &client, false);
    assert!(port.is_some_and(|port| port != 8090), "{port:?}");
    host.w("port rm victim 10.0.2.2:8090:90/udp").ok();
    are(false, false, false);
}

/// Each of two leaves what both have to the other, if both go at once; and who comes finds what another takes away.
#[test]
fn ports_of_one_number_come_and_go_at_the_same_moment() {
    require!();
    let host = world("", "");
    let published = ["10.0.2.2", "10.0.2.3"].map(|at| format!("-p {at}:8090:90/udp"));
    let create = |n: usize| format!("create c{n} --network B {}", published[n]);
    let bound = || host.sh("nft list set inet wharf taken4_bound");
    for round in 0..25 {
        for n in [0, 1] {
            host.w(&create(n)).ok();
        }
        assert!(bound().contains("udp . 8090"), "round {round}");
        std::thread::scope(|scope| {
            let host = &host;
            let gone = [0, 1].map(|n| scope.spawn(move || host.w(&format!("rm -f c{n}"))));
            for gone in gone {
                gone.join().expect("no panic").ok();
            }
        });
        assert!(!bound().contains("8090"), "round {round}: nobody has it");
        host.w(&create(0)).ok();
        std::thread::scope(|scope| {
            let gone = scope.spawn(|| host.w("rm -f c0"));
            let come = scope.spawn(|| host.w(&create(1)));
            gone.join().expect("no panic").ok();
            come.join().expect("no panic").ok();
        });
        assert!(bound().contains("udp . 8090"), "round {round}: c1 has it");
        host.w("rm -f c1").ok();
    }
}

/// Where all other numbers are in use towards one peer, the kernel would give what is left: the published one.
#[test]
fn no_port_is_published_and_drawn() {
    require!();
    let host = world("", "-p 53:53/udp");
    let _server = Echo::udp(&host.container("victim"), "victim", 53);
    for v6 in [false, true] {
        let client = socket(host.outside(), v6, CLIENT);
        let to = (client_at(v6), CLIENT);
        client.set_nonblocking(true).expect("no waiting");
        let (evil, helper) = (host.container("evil"), host.container("helper"));
        // The kernel chooses among 1 to 511 for those who come from there. To the second nothing is left: the kernel
        // drops what he sends, or the rules do.
        let fill = (1..512)
            .filter(|port| *port != 53)
            .map(|port| (&evil, port));
        let more = (100..200).map(|port| (&helper, port));
        let mut ports = BTreeSet::new();
        for (from, port) in fill.chain(more) {
            let _ = socket(from, v6, port).send_to(b"mine", to);
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = client.recv_from(&mut buffer) {
                ports.insert(peer.port());
            }
        }
        client.set_nonblocking(false).expect("waiting");
        assert!(ports.len() > 400, "{} senders came through", ports.len());
        assert!(!ports.contains(&53), "IPv6 {v6}: it was given away");
        let by = answered(&client, v6, 53);
        assert_eq!(by.as_deref(), Some("victim"), "IPv6 {v6}");
    }
}

/// A flow from before the port was published.
#[test]
fn who_had_the_port_before_it_was_published_loses_it() {
    require!();
    let host = world("", "");
    let _server = Echo::udp(&host.container("victim"), "victim", 90);
    for v6 in [false, true] {
        let client = socket(host.outside(), v6, CLIENT);
        let early = socket(&host.container("evil"), v6, 8090);
        assert_eq!(seen(&early, &client, v6), Some(8090), "nobody publishes it");
        client
            .send_to(b"answer", (addr::host(v6), 8090))
            .expect("send");
        assert!(early.recv_from(&mut [0; 64]).is_ok());
        host.w("port add victim 8090:90/udp").ok();
        let port = seen(&early, &client, v6).expect("it still has a way out");
        assert_ne!(port, 8090, "IPv6 {v6}");
        let by = answered(&client, v6, 8090);
        assert_eq!(by.as_deref(), Some("victim"), "IPv6 {v6}");
        host.w("port rm victim 8090:90/udp").ok();
    }
}

/// Everything that connects from a namespace then does so from one port.
fn connects_from(netns: &Netns, port: u16) {
    netns.set_sysctl("net.ipv4.ip_local_port_range", &format!("{port} {port}"));
}

#[test]
fn the_same_over_tcp() {
    require!();
    let host = world("", "-p 8090:90");
    let _server = Echo::tcp(&host.container("victim"), "victim", 90);
    let (evil, outside) = (host.container("evil"), host.outside());
    for v6 in [false, true] {
        for (from, kept) in [(8090, false), (8091, true)] {
            connects_from(&evil, from);
            let listener = outside.run(|| TcpListener::bind((everywhere(v6), 80)));
            let listener = listener.expect("listen");
            let to = (client_at(v6), 80).into();
            let limit = Duration::from_secs(5);
            let stream = evil.run(|| TcpStream::connect_timeout(&to, limit));
            let stream = stream.expect("the container has its way out");
            let (_, peer) = listener.accept().expect("accept");
            assert_eq!(peer.port() == from, kept, "IPv6 {v6}, {from}: {peer}");
            drop(stream);
        }
    }
    // The client does not answer, so that the container's flow waits for it.
    outside.sh(&format!(
        "nft 'add table inet f; add chain inet f i {{ type filter hook input priority 0; }}; \
         add rule inet f i tcp dport {CLIENT} tcp flags & (syn | ack) == syn drop'"
    ));
    connects_from(&evil, 8090);
    connects_from(outside, CLIENT);
    for v6 in [false, true] {
        assert_eq!(evil.tcp_brief(client_at(v6), CLIENT), Answer::Timeout);
        let answer = outside.tcp(addr::host(v6), 8090);
        assert_eq!(answer.by(), Some("victim"), "IPv6 {v6}: {answer}");
    }
}
