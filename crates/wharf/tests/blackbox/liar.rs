//! A container that lies, beside one that listens.

use crate::common::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wharf_testkit::frame::{self, Mac};
use wharf_testkit::skip::{self, Need};
use wharf_testkit::{Host, Netns, Sniffer, Wire};

/// Both values of `bridge-nf-call-*`; only 0 where the kernel has no br_netfilter, which is said.
pub fn bridge_nf_values() -> &'static [bool] {
    match skip::require(&[Need::BridgeNetfilter]) {
        Ok(()) => &[false, true],
        Err(reason) => {
            skip::skipped(&reason);
            &[false]
        }
    }
}

/// A hardware address nobody has.
pub const FALSE_MAC: Mac = [0x02, 0xba, 0xd0, 0, 0, 1];

/// The container that lies, and who is lied to.
pub struct World {
    pub host: Host,
    pub evil: Netns,
    pub victim: Netns,
    pub evil_mac: Mac,
    pub victim_mac: Mac,
    pub bridge_mac: Mac,
    pub wire: Wire,
    pub heard: Sniffer,
}

/// `evil` at .66 and `victim` at .11 of one network; what arrives at the victim is heard.
pub fn world(bridge_nf: bool) -> World {
    let host = options().bridge_nf_call(bridge_nf).start();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "evil", "A", 1, 66, "");
    container(&host, "victim", "A", 1, 11, "");
    let (evil, victim) = (host.container("evil"), host.container("victim"));
    for v6 in [false, true] {
        assert!(evil.ping(at(v6, 1, 11)).reached() && victim.ping(at(v6, 1, 1)).reached());
    }
    World {
        evil_mac: evil.mac("eth0"),
        victim_mac: victim.mac("eth0"),
        bridge_mac: host.netns().mac("wharf-a"),
        wire: Wire::open(&evil, "eth0"),
        heard: Sniffer::start(&victim, "eth0"),
        host,
        evil,
        victim,
    }
}

/// Runs a test with `bridge-nf-call-*` at 0 and at 1.
#[track_caller]
pub fn in_both_worlds(test: impl Fn(&World)) {
    for on in bridge_nf_values() {
        eprintln!("bridge-nf-call {on}");
        test(&world(*on));
    }
}

pub fn v4(address: IpAddr) -> Ipv4Addr {
    if let IpAddr::V4(address) = address {
        address
    } else {
        panic!("{address} is not IPv4")
    }
}

pub fn v6(address: IpAddr) -> Ipv6Addr {
    if let IpAddr::V6(address) = address {
        address
    } else {
        panic!("{address} is not IPv6")
    }
}

impl World {
    /// Sends frames that lie and asserts that the victim hears nothing with these bytes.
    #[track_caller]
    pub fn refuses(&self, what: &str, frames: &[Vec<u8>], mark: &[u8]) {
        self.try_lie(frames);
        assert_eq!(self.heard.count(mark), 0, "{what}: the victim heard it");
    }

    /// Sends honest frames and waits until the victim hears these bytes.
    #[track_caller]
    pub fn allows(&self, what: &str, frames: &[Vec<u8>], mark: &[u8]) {
        frames.iter().for_each(|frame| self.wire.send(frame));
        self.heard.wait_for(what, mark);
    }

    /// Sends frames and waits until they had their time.
    #[track_caller]
    pub fn try_lie(&self, frames: &[Vec<u8>]) {
        frames.iter().for_each(|frame| self.wire.send(frame));
        self.settle(false);
    }

    /// The hardware addresses of a frame from the liar to his victim.
    pub fn macs(&self) -> (Mac, Mac) {
        (self.evil_mac, self.victim_mac)
    }

    /// Sends an honest datagram with a text of its own, and waits for it: all frames sent before have had their time.
    #[track_caller]
    pub fn settle(&self, v6: bool) {
        let mark = format!("honest-{:02x?}", frame::random_bytes::<6>());
        let macs = (self.evil_mac, self.victim_mac);
        self.wire.send(&frame::udp(
            macs,
            (at(v6, 1, 66), 9),
            (at(v6, 1, 11), 9),
            mark.as_bytes(),
        ));
        self.heard.wait_for("an honest datagram", mark.as_bytes());
    }
}
