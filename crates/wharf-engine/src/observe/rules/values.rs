//! Values as `nft` prints them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    Ip4,
    /// An IPv6 address.
    Ip6,
    /// A hardware address.
    Mac,
    /// A protocol above IP.
    Proto,
    /// `meta nfproto`.
    NfProto,
    /// An Ethernet protocol.
    EtherType,
    /// `ct state`.
    CtState,
    /// `ct status`.
    CtStatus,
    /// `ct direction`.
    CtDir,
    /// A mark.
    Mark,
    /// A mark that was put in network order.
    MarkNet,
    /// The group of a link.
    Group,
    /// The upper six bits of the type of service.
    Dscp,
    /// A number in host order.
    Host,
    /// A number in network order.
    Net,
    /// A name, padded with zeros.
    Name,
    /// `meta pkttype`.
    PktType,
    /// An ICMP type.
    Icmp,
    /// An ICMPv6 type.
    Icmp6,
    /// TCP flags.
    TcpFlags,
    /// The type of an address.
    AddrType,
    /// Whether there is one.
    Exists,
    /// The hardware's type.
    Hardware,
}

const PROTOCOLS: &[(u64, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (132, "sctp"),
    (136, "udplite"),
];
const NFPROTOS: &[(u64, &str)] = &[(2, "ipv4"), (10, "ipv6")];
const ETHERTYPES: &[(u64, &str)] = &[
    (0x0800, "ip"),
    (0x0806, "arp"),
    (0x86dd, "ip6"),
    (0x8100, "8021q"),
];
const CT_STATES: &[(u64, &str)] = &[
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "untracked"),
];
const CT_STATUSES: &[(u64, &str)] = &[
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];
const DIRECTIONS: &[(u64, &str)] = &[(0, "original"), (1, "reply")];
const PKTTYPES: &[(u64, &str)] = &[
    (0, "host"),
    (1, "broadcast"),
    (2, "multicast"),
    (3, "other"),
];
const ICMP: &[(u64, &str)] = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
];
const ICMP6: &[(u64, &str)] = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (143, "mld2-listener-report"),
];
const TCP_FLAGS: &[(u64, &str)] = &[
    (1, "fin"),
    (2, "syn"),
    (4, "rst"),
    (8, "psh"),
    (16, "ack"),
    (32, "urg"),
    (64, "ecn"),
    (128, "cwr"),
];
const ADDR_TYPES: &[(u64, &str)] = &[
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];
const GROUPS: &[(u64, &str)] = &[(0, "\"default\"")];
const DSCP: &[(u64, &str)] = &[
    (0x00, "cs0"),
    (0x08, "cs1"),
    (0x10, "cs2"),
    (0x18, "cs3"),
    (0x20, "cs4"),
    (0x28, "cs5"),
    (0x30, "cs6"),
    (0x38, "cs7"),
    (0x0a, "af11"),
    (0x0c, "af12"),
    (0x0e, "af13"),
    (0x12, "af21"),
    (0x14, "af22"),
    (0x16, "af23"),
    (0x1a, "af31"),
    (0x1c, "af32"),
    (0x1e, "af33"),
    (0x22, "af41"),
    (0x24, "af42"),
    (0x26, "af43"),
    (0x2e, "ef"),
];
const EXISTS: &[(u64, &str)] = &[(0, "missing"), (1, "exists")];
const HARDWARE: &[(u64, &str)] = &[(1, "ether"), (772, "loopback"), (512, "ppp")];

fn table(kind: Kind) -> &'static [(u64, &'static str)] {
    match kind {
        Kind::Proto => PROTOCOLS,
        Kind::NfProto => NFPROTOS,
        Kind::EtherType => ETHERTYPES,
        Kind::CtState => CT_STATES,
        Kind::CtStatus => CT_STATUSES,
        Kind::CtDir => DIRECTIONS,
        Kind::PktType => PKTTYPES,
        Kind::Icmp => ICMP,
        Kind::Icmp6 => ICMP6,
        Kind::TcpFlags => TCP_FLAGS,
        Kind::AddrType => ADDR_TYPES,
        Kind::Exists => EXISTS,
        Kind::Hardware => HARDWARE,
        Kind::Group => GROUPS,
        Kind::Dscp => DSCP,
        _ => &[],
    }
}

impl Kind {
    /// Whether the bytes are a number in the host's order.
    fn host_order(self) -> bool {
        matches!(
            self,
            Self::CtState
                | Self::CtStatus
                | Self::Mark
                | Self::Group
                | Self::Host
                | Self::AddrType
                | Self::Hardware
        )
    }

    /// The bytes as a number.
    pub fn number(self, bytes: &[u8]) -> u64 {
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        if self.host_order() && cfg!(target_endian = "little") {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        }
    }

    /// Whether a value is a set of bits.
    pub fn is_flags(self) -> bool {
        matches!(self, Self::CtState | Self::CtStatus | Self::TcpFlags)
    }
}

/// A value.
pub fn value(kind: Kind, bytes: &[u8]) -> String {
    match (kind, bytes.len()) {
        (Kind::Ip4, 4) => <[u8; 4]>::try_from(bytes)
            .map_or_else(|_| hex(bytes), |b| Ipv4Addr::from(b).to_string()),
        (Kind::Ip6, 16) => <[u8; 16]>::try_from(bytes)
            .map_or_else(|_| hex(bytes), |b| Ipv6Addr::from(b).to_string()),
        (Kind::Ip4 | Kind::Ip6, len) => {
            // A prefix of whole bytes.
            let mut whole = bytes.to_vec();
            whole.resize(if kind == Kind::Ip4 { 4 } else { 16 }, 0);
            format!("{}/{}", value(kind, &whole), len * 8)
        }
        (Kind::Mac, _) => {
            let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            pairs.join(":")
        }
        (Kind::Name, len) => {
            let end = bytes.iter().position(|b| *b == 0);
            let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(len)]);
            let more = if end.is_none() && len < 16 { "*" } else { "" };
            format!("\"{text}{more}\"")
        }
        (_, len) if len > 8 => hex(bytes),
        (Kind::Dscp, _) => named(kind, kind.number(bytes) >> 2),
        (Kind::Mark | Kind::MarkNet, _) => format!("0x{:08x}", kind.number(bytes)),
        _ => named(kind, kind.number(bytes)),
    }
}

fn named(kind: Kind, number: u64) -> String {
    let names = table(kind);
    if let Some((_, name)) = names.iter().find(|(n, _)| *n == number) {
        return (*name).to_owned();
    }
    let bits = |sep: &str| {
        let set = names.iter().filter(|(n, _)| number & n != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(sep)
    };
    let known = names.iter().fold(0, |all, (n, _)| all | n);
    if kind.is_flags() && number != 0 && number & !known == 0 {
        bits(",")
    } else if kind == Kind::TcpFlags || kind == Kind::CtState || kind == Kind::CtStatus {
        format!("0x{number:x}")
    } else {
        number.to_string()
    }
}

/// What map data of nft's type `id` means (`datatype.h`).
pub fn of_type(id: u32) -> Kind {
    match id {
        7 => Kind::Ip4,
        8 => Kind::Ip6,
        9 => Kind::Mac,
        12 => Kind::Proto,
        19 => Kind::Mark,
        20 => Kind::Host,
        41 => Kind::Name,
        _ => Kind::Net,
    }
}

/// Bytes that mean nothing known.
pub fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("0x{digits}")
}

/// From the first to the last, as a prefix where it is one.
pub fn range(kind: Kind, from: &[u8], to: &[u8]) -> String {
    if from == to {
        return value(kind, from);
    }
    let mask: Vec<u8> = from.iter().zip(to).map(|(a, b)| !(a ^ b)).collect();
    let host_bits_clear = from.iter().zip(&mask).all(|(f, m)| f & !m == 0);
    let prefix = prefix_len(&mask).filter(|_| host_bits_clear);
    match (kind, prefix) {
        (Kind::Ip4 | Kind::Ip6, Some(len)) => format!("{}/{len}", value(kind, from)),
        (Kind::Name, Some(len)) if len % 8 == 0 => value(kind, &from[..len / 8]),
        _ => format!("{}-{}", value(kind, from), value(kind, to)),
    }
}

/// The length of a mask of leading ones.
pub fn prefix_len(mask: &[u8]) -> Option<usize> {
    let ones = mask.iter().map(|b| b.leading_ones() as usize);
    let len: usize = mask
        .iter()
        .position(|b| *b != 0xff)
        .map_or(mask.len() * 8, |i| i * 8 + ones.clone().nth(i).unwrap_or(0));
    let total: usize = mask.iter().map(|b| b.count_ones() as usize).sum();
    (total == len).then_some(len)
}
