//! Entries and tuples as attributes (`enum ctattr_type`, `ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`).

use std::net::IpAddr;

use crate::types::Family;
use crate::wire::{Attrs, Malformed, Writer};

pub(crate) const TUPLE_ORIG: u16 = 1;
pub(crate) const TUPLE_REPLY: u16 = 2;
pub(crate) const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
pub(crate) const MARK: u16 = 8;
pub(crate) const ID: u16 = 12;
pub(crate) const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
/// `CTA_PROTO_ICMP_ID`, followed by `_TYPE` and `_CODE`.
const PROTO_ICMP_ID: u16 = 4;
/// `CTA_PROTO_ICMPV6_ID`, followed by `_TYPE` and `_CODE`.
const PROTO_ICMPV6_ID: u16 = 7;
/// `CTA_PROTOINFO_TCP`.
const PROTOINFO_TCP: u16 = 1;
/// `CTA_PROTOINFO_TCP_STATE`.
const TCP_STATE: u16 = 1;

/// What takes the place of ports in ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// `CTA_PROTO_ICMP_ID` or `CTA_PROTO_ICMPV6_ID`.
    pub id: u16,
    /// `CTA_PROTO_ICMP_TYPE` or `CTA_PROTO_ICMPV6_TYPE`.
    pub kind: u8,
    /// `CTA_PROTO_ICMP_CODE` or `CTA_PROTO_ICMPV6_CODE`.
    pub code: u8,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// `CTA_PROTO_NUM`: `IPPROTO_*`.
    pub proto: u8,
    /// `CTA_PROTO_SRC_PORT`.
    pub sport: Option<u16>,
    /// `CTA_PROTO_DST_PORT`.
    pub dport: Option<u16>,
    /// ICMP instead of ports.
    pub icmp: Option<Icmp>,
    /// `CTA_TUPLE_ZONE`: zone of this direction only. In a call of `delete`, the zone of the entry.
    pub zone: Option<u16>,
}

impl Tuple {
    /// A TCP, UDP or SCTP tuple.
    #[must_use]
    pub fn ports(proto: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        let (sport, dport) = (Some(src.1), Some(dst.1));
        Self {
            src: src.0,
            dst: dst.0,
            proto,
            sport,
            dport,
            icmp: None,
            zone: None,
        }
    }

    /// [`Family::Ip`] or [`Family::Ip6`].
    #[must_use]
    pub fn family(&self) -> Family {
        if self.src.is_ipv4() {
            Family::Ip
        } else {
            Family::Ip6
        }
    }

    fn decode(attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let ip = attrs
            .nested(TUPLE_IP)?
            .ok_or(Malformed("tuple without addresses"))?;
        let proto = attrs
            .nested(TUPLE_PROTO)?
            .ok_or(Malformed("tuple without protocol"))?;
        let address = |v4, v6| -> Result<IpAddr, Malformed> {
            let v4 = ip.fixed::<4>(v4)?.map(IpAddr::from);
            let v6 = ip.fixed::<16>(v6)?.map(IpAddr::from);
            v4.or(v6).ok_or(Malformed("tuple without address"))
        };
        Ok(Self {
            src: address(IP_V4_SRC, IP_V6_SRC)?,
            dst: address(IP_V4_DST, IP_V6_DST)?,
            proto: proto.u8(PROTO_NUM)?.unwrap_or_default(),
            sport: proto.u16(PROTO_SRC_PORT)?,
            dport: proto.u16(PROTO_DST_PORT)?,
            icmp: Icmp::decode(&proto, PROTO_ICMP_ID)?.or(Icmp::decode(&proto, PROTO_ICMPV6_ID)?),
            zone: attrs.u16(TUPLE_ZONE)?,
        })
    }
}

impl Icmp {
    fn decode(proto: &Attrs<'_>, first: u16) -> Result<Option<Self>, Malformed> {
        let Some(id) = proto.u16(first)? else {
            return Ok(None);
        };
        let kind = proto.u8(first + 1)?.unwrap_or_default();
        let code = proto.u8(first + 2)?.unwrap_or_default();
        Ok(Some(Self { id, kind, code }))
    }
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// [`Family::Ip`] or [`Family::Ip6`].
    pub family: Family,
    /// `CTA_TUPLE_ORIG`: as the first packet came.
    pub orig: Tuple,
    /// `CTA_TUPLE_REPLY`: as answers are expected; translation shows here.
    pub reply: Tuple,
    /// `CTA_STATUS`: `IPS_*` bits, see the constants here.
    pub status: u32,
    /// `CTA_MARK`.
    pub mark: Option<u32>,
    /// `CTA_TIMEOUT`: seconds left.
    pub timeout: Option<u32>,
    /// `CTA_ID`.
    pub id: Option<u32>,
    /// `CTA_ZONE`.
    pub zone: Option<u16>,
    /// `CTA_PROTOINFO_TCP_STATE` (`enum tcp_conntrack`).
    pub tcp_state: Option<u8>,
}

impl Entry {
    /// `IPS_SEEN_REPLY`: packets went both ways.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// `IPS_ASSURED`.
    pub const ASSURED: u32 = 1 << 2;
    /// `IPS_SRC_NAT`: the source is translated.
    pub const SRC_NAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`: the destination is translated.
    pub const DST_NAT: u32 = 1 << 5;

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let tuple = |id| {
            let tuple = attrs.nested(id)?.ok_or(Malformed("entry without tuple"))?;
            Tuple::decode(&tuple)
        };
        let tcp = match attrs.nested(PROTOINFO)? {
            Some(info) => info.nested(PROTOINFO_TCP)?,
            None => None,
        };
        Ok(Self {
            family,
            orig: tuple(TUPLE_ORIG)?,
            reply: tuple(TUPLE_REPLY)?,
            status: attrs.u32(STATUS)?.unwrap_or_default(),
            mark: attrs.u32(MARK)?,
            timeout: attrs.u32(TIMEOUT)?,
            id: attrs.u32(ID)?,
            zone: attrs.u16(ZONE)?,
            tcp_state: tcp.map(|tcp| tcp.u8(TCP_STATE)).transpose()?.flatten(),
        })
    }
}

/// What is known of a tuple.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    pub(crate) src: Option<IpAddr>,
    pub(crate) dst: Option<IpAddr>,
    pub(crate) proto: Option<u8>,
    pub(crate) sport: Option<u16>,
    pub(crate) dport: Option<u16>,
    pub(crate) icmp: Option<Icmp>,
}

pub(crate) fn put_tuple(id: u16, tuple: &Tuple, w: &mut Writer) {
    let Tuple {
        src,
        dst,
        proto,
        sport,
        dport,
        icmp,
        ..
    } = *tuple;
    put_part(
        id,
        &Part {
            src: Some(src),
            dst: Some(dst),
            proto: Some(proto),
            sport,
            dport,
            icmp,
        },
        w,
    );
}

/// The tuple of an entry, with the zone that is its direction's alone.
pub(crate) fn put_zoned(id: u16, tuple: &Tuple, w: &mut Writer) {
    let mut inner = Writer::default();
    put_tuple(id, tuple, &mut inner);
    w.nest(id, |w| {
        // What stands after the attribute's header.
        w.buf
            .extend_from_slice(inner.buf.get(4..).unwrap_or_default());
        if let Some(zone) = tuple.zone {
            w.u16(TUPLE_ZONE, zone);
        }
    });
}

pub(crate) fn put_part(id: u16, part: &Part, w: &mut Writer) {
    w.nest(id, |w| {
        if part.src.is_some() || part.dst.is_some() {
            w.nest(TUPLE_IP, |w| {
                put_addr(IP_V4_SRC, IP_V6_SRC, part.src, w);
                put_addr(IP_V4_DST, IP_V6_DST, part.dst, w);
            });
        }
        let Some(proto) = part.proto else { return };
        w.nest(TUPLE_PROTO, |w| {
            w.u8(PROTO_NUM, proto);
            if let Some(port) = part.sport {
                w.u16(PROTO_SRC_PORT, port);
            }
            if let Some(port) = part.dport {
                w.u16(PROTO_DST_PORT, port);
            }
            if let Some(icmp) = part.icmp {
                let v6 = i32::from(proto) == libc::IPPROTO_ICMPV6;
                let first = if v6 { PROTO_ICMPV6_ID } else { PROTO_ICMP_ID };
                w.u16(first, icmp.id);
                w.u8(first + 1, icmp.kind);
                w.u8(first + 2, icmp.code);
            }
        });
    });
}

fn put_addr(v4: u16, v6: u16, addr: Option<IpAddr>, w: &mut Writer) {
    match addr {
        Some(IpAddr::V4(a)) => w.attr(v4, &a.octets()),
        Some(IpAddr::V6(a)) => w.attr(v6, &a.octets()),
        None => {}
    }
}
