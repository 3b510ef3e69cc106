//! The packet that is walked: headers as values, and as the bytes that rules look at.

use std::net::IpAddr;

use serde::Serialize;

use crate::addr::{Family, Mac};

/// What is asked about above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum L4 {
    /// ICMP or ICMPv6 echo.
    Icmp,
    /// A TCP connection's first packet.
    Tcp,
    /// A UDP datagram.
    Udp,
}

impl L4 {
    /// The IP protocol number for a family.
    pub fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Icmp, Family::V4) => 1,
            (Self::Icmp, Family::V6) => 58,
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
        }
    }
}

/// A packet on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The protocol.
    pub l4: L4,
    /// Source port; the identifier of an echo.
    pub sport: u16,
    /// Destination port; 0 for an echo, type and code (`type << 8 | code`) of any other ICMP message.
    pub dport: u16,
    /// It is the answer: an echo reply, a SYN-ACK, a datagram back.
    pub reply: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet in bytes.
    pub len: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// Type of service.
    pub tos: u8,
    /// Source hardware address on the current link.
    pub src_mac: Option<Mac>,
    /// Destination hardware address on the current link.
    pub dst_mac: Option<Mac>,
    /// It is no IP packet but an ARP message with this operation (1 asks, 2 answers) about these addresses.
    pub arp: Option<u16>,
}

impl Packet {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.dst)
    }

    /// The IP protocol number.
    pub fn protocol(&self) -> u8 {
        self.l4.number(self.family())
    }
}
