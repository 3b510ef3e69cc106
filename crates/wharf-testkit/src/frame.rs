//! Frames as bytes: what a well-behaved machine would not send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A MAC address.
pub type Mac = [u8; 6];
/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// To all IPv6 nodes.
pub const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// `N` bytes nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    use std::io::Read;
    let mut bytes = [0; N];
    let file = std::fs::File::open("/dev/urandom");
    file.and_then(|mut file| file.read_exact(&mut bytes))
        .expect("/dev/urandom");
    bytes
}

/// The internet checksum of `bytes`, on top of a partial sum.
pub fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or_default(),
        ]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn pseudo_sum(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u32 {
    let mut header = octets(from);
    header.extend(octets(to));
    header.extend([0, protocol]);
    header.extend((length as u16).to_be_bytes());
    u32::from(!checksum(&header, 0))
}

/// An Ethernet frame.
pub fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// What an ARP packet claims.
#[derive(Debug, Clone, Copy)]
pub struct Arp {
    /// The MAC address in the Ethernet header.
    pub frame_from: Mac,
    /// Where the frame goes.
    pub frame_to: Mac,
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// The MAC address the sender claims.
    pub sender: Mac,
    /// The address the sender claims.
    pub sender_ip: Ipv4Addr,
    /// The address it asks for or answers to.
    pub target_ip: Ipv4Addr,
}

/// The frame of an ARP packet.
pub fn arp(arp: &Arp) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(arp.operation.to_be_bytes());
    packet.extend(arp.sender);
    packet.extend(arp.sender_ip.octets());
    packet.extend([0; 6]);
    packet.extend(arp.target_ip.octets());
    ethernet(arp.frame_from, arp.frame_to, ARP, &packet)
}

/// The frame of an IP packet of either family.
pub fn ip(
    macs: (Mac, Mac),
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    let kind = if from.is_ipv4() {
        packet.extend([0x45, 0]);
        packet.extend((20 + payload.len() as u16).to_be_bytes());
        packet.extend(random_bytes::<2>());
        packet.extend([0, 0, hops, protocol, 0, 0]);
        packet.extend(octets(from));
        packet.extend(octets(to));
        let sum = checksum(&packet, 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        IPV4
    } else {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([protocol, hops]);
        packet.extend(octets(from));
        packet.extend(octets(to));
        IPV6
    };
    packet.extend(payload);
    ethernet(macs.0, macs.1, kind, &packet)
}

/// The frame of a UDP datagram.
pub fn udp(macs: (Mac, Mac), from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len();
    let mut datagram = Vec::new();
    datagram.extend(from.1.to_be_bytes());
    datagram.extend(to.1.to_be_bytes());
    datagram.extend((length as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = checksum(&datagram, pseudo_sum(from.0, to.0, UDP, length));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from.0, to.0, UDP, 64, &datagram)
}

/// The frame of the first packet of a TCP connection.
pub fn tcp_syn(macs: (Mac, Mac), from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(random_bytes::<4>());
    segment.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(&segment, pseudo_sum(from.0, to.0, TCP, segment.len()));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from.0, to.0, TCP, 64, &segment)
}

/// The frame of an ICMPv6 message, with its checksum filled in.
pub fn icmpv6(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum(
        &message,
        pseudo_sum(from.into(), to.into(), ICMPV6, message.len()),
    );
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from.into(), to.into(), ICMPV6, 255, &message)
}

/// An unsolicited neighbour advertisement: `target` is at `claimed`.
pub fn neighbour_advertisement(
    macs: (Mac, Mac),
    from: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    claimed: Mac,
) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(claimed);
    icmpv6(macs, from, to, &message)
}

/// A neighbour solicitation that claims `from` is at `claimed`.
pub fn neighbour_solicitation(
    macs: (Mac, Mac),
    from: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    claimed: Mac,
) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(claimed);
    icmpv6(macs, from, to, &message)
}

/// A router advertisement for `prefix`/64 with a router lifetime.
pub fn router_advertisement(mac: Mac, from: Ipv6Addr, prefix: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(prefix.octets());
    message.extend([1, 1]);
    message.extend(mac);
    icmpv6(
        (mac, ALL_NODES),
        from,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        &message,
    )
}

/// The link-local address that belongs to a MAC address.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0),
            !0xddf2
        );
    }

    #[test]
    fn link_local_by_eui_64() {
        assert_eq!(
            link_local([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]).to_string(),
            "fe80::11:22ff:fe33:4455"
        );
    }
}
