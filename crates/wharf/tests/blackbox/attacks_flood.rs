//! One container against all: it fills the host's connection tracking.

use crate::common::*;
use crate::liar::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use wharf_testkit::{Echo, Netns, addr, frame, require};

/// A connection between two namespaces, both ends.
pub fn connection(
    from: &Netns,
    to: &Netns,
    listen: SocketAddr,
    dial: SocketAddr,
) -> [TcpStream; 2] {
    let listener = to.run(|| TcpListener::bind(listen)).expect("listen");
    let near = from.run(|| TcpStream::connect_timeout(&dial, Duration::from_secs(3)));
    let (far, _) = listener.accept().expect("accept");
    let ends = [near.expect("connect"), far];
    for end in &ends {
        end.set_read_timeout(Some(Duration::from_secs(3)))
            .expect("timeout");
    }
    ends
}

/// Says something in both directions.
#[track_caller]
pub fn converse([near, far]: &mut [TcpStream; 2]) {
    let mut said = [0; 5];
    near.write_all(b"hello")
        .and_then(|()| far.read_exact(&mut said))
        .expect("there");
    far.write_all(b"hello")
        .and_then(|()| near.read_exact(&mut said))
        .expect("and back");
}

/// Flows to everywhere that nobody answers, more than the host keeps track of.
fn flood(w: &World, most: u32) {
    let macs = (w.evil_mac, w.bridge_mac);
    for last in 0..=(most / 0xffff + 1) {
        let to = Ipv4Addr::new(203, 0, 113, last as u8);
        let mut frame = frame::udp(macs, (at(false, 1, 66), 9), (to.into(), 9), b"nobody");
        // No checksum (RFC 768).
        frame[40..42].fill(0);
        for port in 1..=u16::MAX {
            frame[36..38].copy_from_slice(&port.to_be_bytes());
            w.wire.send(&frame);
        }
    }
}

/// Of a full table the kernel forgets flows without an answer first (`early_drop` in `nf_conntrack_core.c`): they keep nobody
/// else from connecting, and end no connection there is.
#[test]
fn a_full_table_of_connections_stops_nobody_else() {
    require!();
    let w = world(false);
    let (outside, victim) = (w.host.outside(), &w.victim);
    w.host.w("port add victim 8080:80").ok();
    let _servers = [
        Echo::tcp(victim, "victim", 80),
        Echo::tcp(outside, "outside", 80),
    ];
    let mut lasting = connection(
        victim,
        outside,
        (addr::OUTSIDE4, 5000).into(),
        (addr::OUTSIDE4, 5000).into(),
    );
    converse(&mut lasting);
    let number = |key| {
        w.host
            .netns()
            .sysctl(key)
            .and_then(|text| text.parse::<u32>().ok())
    };
    let most = number("net.netfilter.nf_conntrack_max").expect("connection tracking");
    flood(&w, most);
    let count = number("net.netfilter.nf_conntrack_count").expect("a number");
    assert!(
        count > most / 10 * 9,
        "the table is full: {count} of {most}"
    );
    converse(&mut lasting);
    for _ in 0..10 {
        assert_eq!(victim.tcp(addr::OUTSIDE4, 80).by(), Some("outside"));
        assert_eq!(outside.tcp(addr::HOST4, 8080).by(), Some("victim"));
    }
    converse(&mut lasting);
}
