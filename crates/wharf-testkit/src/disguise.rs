//! Frames in disguise: what they carry is behind tags, options, extension headers or in several pieces, so that a guard
//! which looks at fixed places does not see it.

use crate::frame::{Mac, checksum, random_bytes};

const ETHERNET: usize = 14;
const HEADER4: usize = 20;
const HEADER6: usize = 40;

/// 802.1Q.
pub const VLAN: u16 = 0x8100;
/// 802.1ad.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// A fragment of an IPv6 packet (RFC 8200, 4.5).
pub const FRAGMENT: u8 = 44;
/// Options for every hop.
pub const HOP_BY_HOP: u8 = 0;
/// Options for the destination.
pub const DESTINATION: u8 = 60;

/// The same frame to another hardware address.
pub fn redirected(frame: &[u8], to: Mac) -> Vec<u8> {
    [&to[..], &frame[6..]].concat()
}

/// The frame with VLAN tags of these kinds and numbers, outermost first.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    for (kind, number) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(&frame[12..]);
    bytes
}

/// The frame with its packet in an 802.2 SNAP header (RFC 1042) instead of behind an Ethernet type.
pub fn snap(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend((frame.len() as u16 - 6).to_be_bytes());
    bytes.extend([0xaa, 0xaa, 3, 0, 0, 0]);
    bytes.extend(&frame[12..]);
    bytes
}

/// A configuration BPDU that claims the best bridge of all (802.1D).
pub fn bpdu(from: Mac) -> Vec<u8> {
    let mut bytes = vec![0x01, 0x80, 0xc2, 0, 0, 0];
    bytes.extend(from);
    bytes.extend([0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0]);
    bytes.extend(from);
    bytes.extend([0, 0, 0, 0, 0, 0]);
    bytes.extend(from);
    bytes.extend([0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
    bytes.resize(60, 0);
    bytes
}

fn fix_header4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet[10..12].fill(0);
    let sum = checksum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The packet of an IPv4 frame without Ethernet's padding.
fn packet4(frame: &[u8]) -> Vec<u8> {
    let length = u16::from_be_bytes([frame[16], frame[17]]);
    frame[ETHERNET..ETHERNET + usize::from(length)].to_vec()
}

fn ethernet_of(frame: &[u8], packet: &[u8]) -> Vec<u8> {
    [&frame[..ETHERNET], packet].concat()
}

/// An IPv4 frame with these options (a multiple of 4 bytes) in its header.
pub fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = packet4(frame);
    packet.splice(HEADER4..HEADER4, options.iter().copied());
    packet[0] = 0x45 + (options.len() / 4) as u8;
    fix_header4(&mut packet);
    ethernet_of(frame, &packet)
}

/// A loose source route by way of one address (RFC 791).
pub fn source_route(via: std::net::Ipv4Addr) -> Vec<u8> {
    let mut option = vec![131, 7, 4];
    option.extend(via.octets());
    option.push(0);
    option
}

/// An IPv4 frame in two fragments, cut behind `at` bytes of its payload (a multiple of 8).
pub fn fragments4(frame: &[u8], at: usize) -> [Vec<u8>; 2] {
    let packet = packet4(frame);
    let (first, second) = packet[HEADER4..].split_at(at);
    let piece = |payload: &[u8], flags: u16| {
        let mut bytes = [&packet[..HEADER4], payload].concat();
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        fix_header4(&mut bytes);
        ethernet_of(frame, &bytes)
    };
    [piece(first, 0x2000), piece(second, (at / 8) as u16)]
}

/// An IPv6 frame with these extension headers, each of 8 bytes, before its payload.
pub fn with_headers(frame: &[u8], kinds: &[u8]) -> Vec<u8> {
    let (header, payload) = parts6(frame);
    let mut next: Vec<u8> = kinds.to_vec();
    next.push(header[6]);
    let mut chain = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        chain.extend(extension(*kind, next[at + 1]));
    }
    packet6(frame, next[0], &[chain, payload].concat())
}

/// An IPv6 frame in two fragments. `headers` stand behind the fragment header; the cut is `at` bytes (a multiple of 8)
/// behind it, so that with 8 and one header the payload's own header is in the second fragment only.
pub fn fragments6(frame: &[u8], headers: &[u8], at: usize) -> [Vec<u8>; 2] {
    let inner = with_headers(frame, headers);
    let (header, payload) = parts6(&inner);
    let (first, second) = payload.split_at(at);
    let id = random_bytes::<4>();
    let piece = |bytes: &[u8], offset: u16, more: u16| {
        let mut fragment = vec![header[6], 0];
        fragment.extend((offset | more).to_be_bytes());
        fragment.extend(id);
        fragment.extend(bytes);
        packet6(frame, FRAGMENT, &fragment)
    };
    [piece(first, 0, 1), piece(second, at as u16, 0)]
}

/// Header and payload of an IPv6 frame, without Ethernet's padding.
fn parts6(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let packet = &frame[ETHERNET..];
    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    (
        packet[..HEADER6].to_vec(),
        packet[HEADER6..HEADER6 + length].to_vec(),
    )
}

fn packet6(frame: &[u8], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = frame[ETHERNET..ETHERNET + HEADER6].to_vec();
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next;
    packet.extend(payload);
    ethernet_of(frame, &packet)
}

fn extension(kind: u8, next: u8) -> [u8; 8] {
    match kind {
        // Offset 0 and nothing to follow: an atomic fragment (RFC 6946).
        FRAGMENT => [next, 0, 0, 0, 0xca, 0xfe, 0xba, 0xbe],
        // One option that fills the header (PadN).
        _ => [next, 0, 1, 4, 0, 0, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn udp(v6: bool) -> Vec<u8> {
        let (from, to) = if v6 {
            ("fd00::1", "fd00::2")
        } else {
            ("10.0.0.1", "10.0.0.2")
        };
        let end = |text: &str| (text.parse().expect("an address"), 9);
        frame::udp(MACS, end(from), end(to), b"twenty-four bytes inside")
    }

    #[test]
    fn a_header_with_options_sums_to_zero() {
        let frame = with_options(&udp(false), &source_route([10, 0, 0, 9].into()));
        assert_eq!(frame[14], 0x47);
        assert_eq!(checksum(&frame[14..14 + 28], 0), 0);
        assert_eq!(frame.len(), 14 + 28 + 8 + 24);
    }

    #[test]
    fn fragments_are_the_whole() {
        let whole = udp(false);
        let [first, second] = fragments4(&whole, 8);
        assert_eq!((first.len(), second.len()), (14 + 28, 14 + 44));
        assert_eq!([&first[34..], &second[34..]].concat(), whole[34..]);
        let whole = udp(true);
        let [first, second] = fragments6(&whole, &[DESTINATION], 8);
        assert_eq!((first[20], first[54]), (FRAGMENT, DESTINATION));
        assert_eq!(first[62], 17, "UDP comes next, in the other fragment");
        assert_eq!(second[62..], whole[54..]);
    }

    #[test]
    fn extension_headers_are_a_chain() {
        let frame = with_headers(&udp(true), &[HOP_BY_HOP, FRAGMENT]);
        assert_eq!(
            (frame[20], frame[54], frame[62]),
            (HOP_BY_HOP, FRAGMENT, 17)
        );
    }
}
