//! A packet's headers as bytes: what `payload` reads, and what rewriting them means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Family, Mac};
use crate::trace::packet::{L4, Packet};
use crate::trace::ruleset::Header;

const LINK: usize = 14;
/// Types of ICMPv6: a neighbour solicitation and a neighbour advertisement.
const SOLICITS: u8 = 135;
const ADVERTISES: u8 = 136;

/// The headers of a packet. Bits that a walked packet does not settle (identifiers, checksums, sequence numbers) are dark.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    bits: Vec<u8>,
    dark: Vec<u8>,
    /// Where the headers above IP begin.
    transport: usize,
    /// The whole length, with the Ethernet header.
    total: usize,
    /// Whether there is an Ethernet header.
    link: bool,
}

/// What is found in the packet.
pub(super) enum Found<'a> {
    /// The packet is shorter.
    Missing,
    /// It is there, but not known.
    Dark,
    /// Values, and the bits that are not known.
    Bytes(&'a [u8], &'a [u8]),
}

impl Headers {
    /// The headers of `packet`; with an Ethernet header if `link`.
    pub fn of(packet: &Packet, link: bool) -> Self {
        let mut headers = Self {
            bits: Vec::with_capacity(96),
            dark: Vec::with_capacity(96),
            transport: 0,
            total: 0,
            link,
        };
        headers.ethernet(packet);
        if let Some(operation) = packet.arp {
            headers.arp(packet, operation);
            headers.transport = headers.bits.len();
            headers.total = headers.bits.len();
            return headers;
        }
        match (packet.src, packet.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => headers.ipv6(packet, src, dst),
            (src, dst) => headers.ipv4(packet, v4(src), v4(dst)),
        }
        headers.transport = headers.bits.len();
        match packet.l4 {
            L4::Tcp => headers.tcp(packet),
            L4::Udp => headers.udp(packet),
            L4::Icmp => headers.icmp(packet),
        }
        headers.total = headers.bits.len().max(LINK + packet.len as usize);
        headers
    }

    fn known(&mut self, bytes: &[u8]) {
        self.bits.extend_from_slice(bytes);
        self.dark.resize(self.bits.len(), 0);
    }

    fn unknown(&mut self, len: usize) {
        self.bits.resize(self.bits.len() + len, 0);
        self.dark.resize(self.bits.len(), 0xff);
    }

    fn mac(&mut self, mac: Option<Mac>) {
        match mac {
            Some(Mac(bytes)) => self.known(&bytes),
            None => self.unknown(6),
        }
    }

    fn ethernet(&mut self, packet: &Packet) {
        match packet.dst_mac {
            None if packet.arp.is_some() => self.known(&[0xff; 6]),
            mac => self.mac(mac),
        }
        self.mac(packet.src_mac);
        self.known(&ethertype(packet).to_be_bytes());
    }

    /// RFC 826, with Ethernet and IPv4.
    fn arp(&mut self, packet: &Packet, operation: u16) {
        self.known(&[0, 1, 8, 0, 6, 4]);
        self.known(&operation.to_be_bytes());
        self.mac(packet.src_mac);
        self.known(&v4(packet.src).octets());
        match packet.dst_mac {
            None => self.known(&[0; 6]),
            mac => self.mac(mac),
        }
        self.known(&v4(packet.dst).octets());
    }

    fn ipv4(&mut self, packet: &Packet, src: Ipv4Addr, dst: Ipv4Addr) {
        self.known(&[0x45, packet.tos]);
        self.known(&short(packet.len).to_be_bytes());
        self.unknown(2);
        self.known(&[0, 0]);
        // "Don't fragment" is up to the sender.
        let flags = self.dark.len() - 2;
        self.dark[flags] = 0x40;
        self.known(&[packet.ttl, packet.protocol()]);
        self.unknown(2);
        self.known(&src.octets());
        self.known(&dst.octets());
    }

    fn ipv6(&mut self, packet: &Packet, src: Ipv6Addr, dst: Ipv6Addr) {
        self.known(&[0x60 | packet.tos >> 4, packet.tos << 4]);
        let label = self.dark.len() - 1;
        self.dark[label] = 0x0f;
        self.unknown(2);
        self.known(&short(packet.len.saturating_sub(40)).to_be_bytes());
        self.known(&[packet.protocol(), packet.ttl]);
        self.known(&src.octets());
        self.known(&dst.octets());
    }

    fn ports(&mut self, packet: &Packet) {
        self.known(&packet.sport.to_be_bytes());
        self.known(&packet.dport.to_be_bytes());
    }

    fn tcp(&mut self, packet: &Packet) {
        self.ports(packet);
        self.unknown(4);
        if packet.reply {
            self.unknown(4);
        } else {
            self.known(&[0; 4]);
        }
        self.known(&[0, tcp_flags(packet)]);
        let offset = self.dark.len() - 2;
        self.dark[offset] = 0xf0;
        self.unknown(4);
        self.known(&[0, 0]);
    }

    fn udp(&mut self, packet: &Packet) {
        self.ports(packet);
        let ip = self.transport.saturating_sub(LINK) as u32;
        self.known(&short(packet.len.saturating_sub(ip)).to_be_bytes());
        self.unknown(2);
    }

    fn icmp(&mut self, packet: &Packet) {
        self.known(&[icmp_type(packet), icmp_code(packet)]);
        self.unknown(2);
        if let (IpAddr::V6(src), kind @ (SOLICITS | ADVERTISES)) = (packet.src, icmp_type(packet)) {
            return self.discovery(packet, src, kind);
        }
        let id = if packet.sport == 0 {
            packet.dport
        } else {
            packet.sport
        };
        self.known(&id.to_be_bytes());
        self.unknown(2);
    }

    /// Neighbour discovery (RFC 4861, 4.3 and 4.4) as the kernel does it: with the sender's hardware address.
    fn discovery(&mut self, packet: &Packet, src: Ipv6Addr, kind: u8) {
        const SOURCE: u8 = 1;
        const TARGET: u8 = 2;
        if kind == SOLICITS {
            self.known(&[0; 4]);
            // The destination has the last bytes of it only.
            self.unknown(16);
            self.known(&[SOURCE, 1]);
        } else {
            self.unknown(4);
            self.known(&src.octets());
            self.known(&[TARGET, 1]);
        }
        self.mac(packet.src_mac);
    }

    fn start(&self, header: Header) -> Option<usize> {
        match header {
            Header::Link => self.link.then_some(0),
            Header::Network => Some(LINK),
            Header::Transport => Some(self.transport),
            Header::Inner => None,
        }
    }

    /// `len` bytes at `offset` from the header.
    pub fn read(&self, header: Header, offset: u32, len: u32) -> Found<'_> {
        let Some(start) = self.start(header) else {
            return Found::Missing;
        };
        let start = start.saturating_add(offset as usize);
        let end = start.saturating_add(len as usize);
        if end > self.total {
            return Found::Missing;
        }
        match (self.bits.get(start..end), self.dark.get(start..end)) {
            (Some(bits), Some(dark)) => Found::Bytes(bits, dark),
            _ => Found::Dark,
        }
    }

    /// Writes bytes, and gives `packet` the addresses, ports, ttl and type of service that then stand there.
    pub fn write(mut self, packet: &mut Packet, header: Header, offset: u32, bytes: &[u8]) {
        let Some(start) = self.start(header) else {
            return;
        };
        let start = start.saturating_add(offset as usize);
        let Some(place) = self.bits.get_mut(start..start.saturating_add(bytes.len())) else {
            return;
        };
        place.copy_from_slice(bytes);
        self.dark[start..start + bytes.len()].fill(0);
        let mac = |at: usize| -> Option<Mac> {
            let known = self.dark[at..at + 6].iter().all(|d| *d == 0);
            known.then(|| self.bits[at..at + 6].try_into().ok().map(Mac))?
        };
        (packet.dst_mac, packet.src_mac) = (mac(0), mac(6));
        let ip = &self.bits[LINK..];
        if packet.family() == Family::V4 {
            (packet.tos, packet.ttl) = (ip[1], ip[8]);
            packet.src = addr(&ip[12..16]).unwrap_or(packet.src);
            packet.dst = addr(&ip[16..20]).unwrap_or(packet.dst);
        } else {
            (packet.tos, packet.ttl) = (ip[0] << 4 | ip[1] >> 4, ip[7]);
            packet.src = addr(&ip[8..24]).unwrap_or(packet.src);
            packet.dst = addr(&ip[24..40]).unwrap_or(packet.dst);
        }
        if packet.l4 != L4::Icmp {
            let port = |at: usize| {
                u16::from_be_bytes([
                    self.bits[self.transport + at],
                    self.bits[self.transport + at + 1],
                ])
            };
            (packet.sport, packet.dport) = (port(0), port(2));
        }
    }
}

/// The TCP flags of the packet.
pub(super) fn tcp_flags(packet: &Packet) -> u8 {
    if packet.reply { 0x12 } else { 0x02 }
}

/// The ICMP type of the packet.
pub(super) fn icmp_type(packet: &Packet) -> u8 {
    match (packet.family(), packet.reply) {
        _ if packet.dport != 0 => packet.dport.to_be_bytes()[0],
        (Family::V4, false) => 8,
        (Family::V4, true) => 0,
        (Family::V6, false) => 128,
        (Family::V6, true) => 129,
    }
}

/// The code of an ICMP packet; an echo's is 0.
pub(super) fn icmp_code(packet: &Packet) -> u8 {
    packet.dport.to_be_bytes()[1]
}

/// The Ethernet protocol.
pub(super) fn ethertype(packet: &Packet) -> u16 {
    match packet.family() {
        _ if packet.arp.is_some() => 0x0806,
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    }
}

/// An address from 4 or 16 bytes.
pub(super) fn addr(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The bytes of an address.
pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn short(len: u32) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// A packet has addresses of one family; a mixed one, which nobody makes, counts as IPv4.
fn v4(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
