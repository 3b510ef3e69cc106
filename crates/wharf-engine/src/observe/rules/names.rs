//! Names of what rules read.

use std::borrow::Cow;

use wharf_nft::expr::{Ct, CtKey, Fib, FibResult, Meta, MetaKey, Payload, PayloadBase};

use super::values::Kind;

/// One thing that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// nft's words for it.
    pub text: Cow<'static, str>,
    /// What its bytes mean.
    pub kind: Kind,
    /// How many they are.
    pub len: usize,
}

impl Field {
    pub fn new(text: impl Into<Cow<'static, str>>, kind: Kind, len: usize) -> Self {
        Self {
            text: text.into(),
            kind,
            len,
        }
    }
}

/// The protocols that a rule has settled so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settled {
    /// 2 or 10.
    pub nfproto: Option<u8>,
    /// The protocol above IP.
    pub l4: Option<u8>,
}

type Names = &'static [(u32, u32, &'static str, Kind)];

const ETHER: Names = &[
    (0, 6, "ether daddr", Kind::Mac),
    (6, 6, "ether saddr", Kind::Mac),
    (12, 2, "ether type", Kind::EtherType),
];
const IP: Names = &[
    (1, 1, "ip dscp", Kind::Dscp),
    (2, 2, "ip length", Kind::Net),
    (4, 2, "ip id", Kind::Net),
    (6, 2, "ip frag-off", Kind::Net),
    (8, 1, "ip ttl", Kind::Net),
    (9, 1, "ip protocol", Kind::Proto),
    (10, 2, "ip checksum", Kind::Net),
    (12, 4, "ip saddr", Kind::Ip4),
    (16, 4, "ip daddr", Kind::Ip4),
];
const IP6: Names = &[
    (4, 2, "ip6 length", Kind::Net),
    (6, 1, "ip6 nexthdr", Kind::Proto),
    (7, 1, "ip6 hoplimit", Kind::Net),
    (8, 16, "ip6 saddr", Kind::Ip6),
    (24, 16, "ip6 daddr", Kind::Ip6),
];
const TCP: Names = &[
    (0, 2, "tcp sport", Kind::Net),
    (2, 2, "tcp dport", Kind::Net),
    (4, 4, "tcp sequence", Kind::Net),
    (8, 4, "tcp ackseq", Kind::Net),
    (13, 1, "tcp flags", Kind::TcpFlags),
    (14, 2, "tcp window", Kind::Net),
];
const UDP: Names = &[
    (0, 2, "udp sport", Kind::Net),
    (2, 2, "udp dport", Kind::Net),
    (4, 2, "udp length", Kind::Net),
    (6, 2, "udp checksum", Kind::Net),
];
const SCTP: Names = &[
    (0, 2, "sctp sport", Kind::Net),
    (2, 2, "sctp dport", Kind::Net),
];
const ANY: Names = &[(0, 2, "th sport", Kind::Net), (2, 2, "th dport", Kind::Net)];
const ICMP: Names = &[
    (0, 1, "icmp type", Kind::Icmp),
    (1, 1, "icmp code", Kind::Net),
    (4, 2, "icmp id", Kind::Net),
];
const ICMP6: Names = &[
    (0, 1, "icmpv6 type", Kind::Icmp6),
    (1, 1, "icmpv6 code", Kind::Net),
    (4, 2, "icmpv6 id", Kind::Net),
];

/// What a payload load reads; several fields if they lie side by side.
pub fn payload(e: &Payload, settled: Settled) -> Vec<Field> {
    let (base, names) = match e.base {
        PayloadBase::LinkLayer => ("ll", ETHER),
        PayloadBase::Network if settled.nfproto == Some(10) => ("nh", IP6),
        PayloadBase::Network => ("nh", IP),
        PayloadBase::Transport => match settled.l4 {
            Some(1) => ("th", ICMP),
            Some(6) => ("th", TCP),
            Some(17) => ("th", UDP),
            Some(58) => ("th", ICMP6),
            Some(132) => ("th", SCTP),
            _ => ("th", ANY),
        },
        _ => ("ih", &[] as Names),
    };
    let mut fields = Vec::new();
    let (mut at, end) = (e.offset, e.offset.saturating_add(e.len));
    while at < end {
        let found = names.iter().find(|(offset, ..)| *offset == at);
        let Some((_, len, text, kind)) = found else {
            break;
        };
        // The first bytes of an address are a prefix.
        let part = (*len).min(end - at);
        if part < *len && !matches!(kind, Kind::Ip4 | Kind::Ip6) {
            break;
        }
        fields.push(Field::new(*text, *kind, part as usize));
        at += part;
    }
    if at == end && !fields.is_empty() {
        return fields;
    }
    let raw = format!(
        "@{base},{},{}",
        u64::from(e.offset) * 8,
        u64::from(e.len) * 8
    );
    vec![Field::new(raw, Kind::Net, e.len as usize)]
}

/// What `meta` reads.
pub fn meta(e: &Meta) -> Field {
    let (text, kind, len) = match e.key {
        MetaKey::Len => ("meta length", Kind::Host, 4),
        MetaKey::Protocol => ("meta protocol", Kind::EtherType, 2),
        MetaKey::Priority => ("meta priority", Kind::Mark, 4),
        MetaKey::Mark => ("meta mark", Kind::Mark, 4),
        MetaKey::Iif => ("iif", Kind::Host, 4),
        MetaKey::Oif => ("oif", Kind::Host, 4),
        MetaKey::IifName => ("iifname", Kind::Name, 16),
        MetaKey::OifName => ("oifname", Kind::Name, 16),
        MetaKey::IifType => ("iiftype", Kind::Hardware, 2),
        MetaKey::OifType => ("oiftype", Kind::Hardware, 2),
        MetaKey::SkUid => ("meta skuid", Kind::Host, 4),
        MetaKey::SkGid => ("meta skgid", Kind::Host, 4),
        MetaKey::NfTrace => ("meta nftrace", Kind::Host, 1),
        MetaKey::RtClassId => ("meta rtclassid", Kind::Host, 4),
        MetaKey::NfProto => ("meta nfproto", Kind::NfProto, 1),
        MetaKey::L4Proto => ("meta l4proto", Kind::Proto, 1),
        MetaKey::BriIifName => ("meta ibrname", Kind::Name, 16),
        MetaKey::BriOifName => ("meta obrname", Kind::Name, 16),
        MetaKey::PktType => ("meta pkttype", Kind::PktType, 1),
        MetaKey::Cpu => ("meta cpu", Kind::Host, 4),
        MetaKey::IifGroup => ("iifgroup", Kind::Group, 4),
        MetaKey::OifGroup => ("oifgroup", Kind::Group, 4),
        MetaKey::Cgroup => ("meta cgroup", Kind::Host, 4),
        MetaKey::PRandom => ("meta random", Kind::Host, 4),
        MetaKey::SecPath => ("meta ipsec", Kind::Exists, 1),
        MetaKey::IifKind => ("meta iifkind", Kind::Name, 16),
        MetaKey::OifKind => ("meta oifkind", Kind::Name, 16),
        MetaKey::TimeNs => ("meta time", Kind::Host, 8),
        MetaKey::TimeDay => ("meta day", Kind::Host, 1),
        MetaKey::TimeHour => ("meta hour", Kind::Host, 4),
        other => {
            let number: u32 = other.into();
            return Field::new(format!("meta #{number}"), Kind::Host, 4);
        }
    };
    Field::new(text, kind, len)
}

/// What `ct` reads.
pub fn ct(e: &Ct, settled: Settled) -> Field {
    let six = settled.nfproto == Some(10);
    let (text, kind, len) = match e.key {
        CtKey::State => ("ct state", Kind::CtState, 4),
        CtKey::Direction => ("ct direction", Kind::CtDir, 1),
        CtKey::Status => ("ct status", Kind::CtStatus, 4),
        CtKey::Mark => ("ct mark", Kind::Mark, 4),
        CtKey::Expiration => ("ct expiration", Kind::Host, 4),
        CtKey::Helper => ("ct helper", Kind::Name, 16),
        CtKey::L3Protocol => ("ct l3proto", Kind::NfProto, 1),
        CtKey::Src if six => ("ct saddr", Kind::Ip6, 16),
        CtKey::Src => ("ct saddr", Kind::Ip4, 4),
        CtKey::Dst if six => ("ct daddr", Kind::Ip6, 16),
        CtKey::Dst => ("ct daddr", Kind::Ip4, 4),
        CtKey::SrcIp => ("ct ip saddr", Kind::Ip4, 4),
        CtKey::DstIp => ("ct ip daddr", Kind::Ip4, 4),
        CtKey::SrcIp6 => ("ct ip6 saddr", Kind::Ip6, 16),
        CtKey::DstIp6 => ("ct ip6 daddr", Kind::Ip6, 16),
        CtKey::Protocol => ("ct protocol", Kind::Proto, 1),
        CtKey::ProtoSrc => ("ct proto-src", Kind::Net, 2),
        CtKey::ProtoDst => ("ct proto-dst", Kind::Net, 2),
        CtKey::Zone => ("ct zone", Kind::Host, 2),
        CtKey::Bytes => ("ct bytes", Kind::Host, 8),
        CtKey::Packets => ("ct packets", Kind::Host, 8),
        CtKey::Labels => ("ct label", Kind::Host, 16),
        CtKey::AvgPkt => ("ct avgpkt", Kind::Host, 8),
        _ => ("ct id", Kind::Host, 4),
    };
    match e.dir {
        None => Field::new(text, kind, len),
        Some(dir) => {
            let dir = if dir == 0 { "original" } else { "reply" };
            Field::new(text.replacen("ct", &format!("ct {dir}"), 1), kind, len)
        }
    }
}

/// What `fib` asks.
pub fn fib(e: &Fib) -> Field {
    let flags = [
        (Fib::SADDR, "saddr"),
        (Fib::DADDR, "daddr"),
        (Fib::MARK, "mark"),
        (Fib::IIF, "iif"),
        (Fib::OIF, "oif"),
    ];
    let asked: Vec<&str> = flags
        .iter()
        .filter(|(flag, _)| e.flags.has(*flag))
        .map(|(_, name)| *name)
        .collect();
    let (result, kind, len) = match e.result {
        _ if e.flags.has(Fib::PRESENT) => ("oif", Kind::Exists, 1),
        FibResult::OifName => ("oifname", Kind::Name, 16),
        FibResult::AddrType => ("type", Kind::AddrType, 4),
        _ => ("oif", Kind::Host, 4),
    };
    Field::new(format!("fib {} {result}", asked.join(" . ")), kind, len)
}
