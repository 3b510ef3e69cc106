//! Matches on the packet itself: addresses, length, hop limit, traffic class, sender.

use std::net::IpAddr;

use wharf_core::trace::ruleset::{Cmp, Expr, Header, Match};

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{Decoded, span};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "iprange" => iprange(info),
        "pkttype" => pkttype(info),
        "length" => length(info),
        "ttl" | "hl" => hops(info, name),
        "mac" => mac(info),
        "owner" => owner(info),
        "dscp" => dscp(info),
        "tos" => tos(info),
        "ecn" => ecn(info),
        "tcpmss" => tcpmss(info),
        "cgroup" => cgroup(info),
        _ => None,
    }
}

/// `struct xt_iprange_mtinfo`; revision 0 has another form, which no kernel of today takes.
fn iprange(info: &Info<'_>) -> Option<Decoded> {
    if info.rev != 1 {
        return None;
    }
    let flags = info.u8(64)?;
    let mut out = Decoded::of_match("iprange");
    for (src, at, option) in [(true, 0, "--src-range"), (false, 32, "--dst-range")] {
        let bit = if src { 1 } else { 2 };
        if flags & bit == 0 {
            continue;
        }
        let invert = flags & bit << 4 != 0;
        let (first, last): (IpAddr, IpAddr) = (info.addr(at)?, info.addr(at + 16)?);
        out.opt(invert, option, format!("{first}-{last}"));
        out.test(Match::IpRange(src, first, last), invert);
    }
    Some(out)
}

/// `struct xt_pkttype_info`.
fn pkttype(info: &Info<'_>) -> Option<Decoded> {
    let (kind, invert) = info.pair32(0)?;
    let kind = u8::try_from(kind).ok()?;
    let mut out = Decoded::of_match("pkttype");
    let name = ["unicast", "broadcast", "multicast"];
    let name = name.get(usize::from(kind));
    let name = name.map_or_else(|| kind.to_string(), |n| (*n).to_owned());
    out.opt(invert != 0, "--pkt-type", name);
    out.test(Match::PktType(kind), invert != 0);
    Some(out)
}

/// `struct xt_length_info`.
fn length(info: &Info<'_>) -> Option<Decoded> {
    let ((min, max), invert) = (info.pair16(0)?, info.u8(4)? != 0);
    let mut out = Decoded::of_match("length");
    out.opt(invert, "--length", span((min, max), ':'));
    out.test(Match::Length(min, max), invert);
    Some(out)
}

/// `struct ipt_ttl_info`, `struct ip6t_hl_info`.
fn hops(info: &Info<'_>, name: &str) -> Option<Decoded> {
    let (mode, value) = (info.u8(0)?, info.u8(1)?);
    let (suffix, cmp, invert) = match mode {
        0 => ("eq", Cmp::Eq, false),
        1 => ("eq", Cmp::Eq, true),
        2 => ("lt", Cmp::Lt, false),
        3 => ("gt", Cmp::Gt, false),
        _ => return None,
    };
    let mut out = Decoded::of_match(name);
    out.opt(invert, &format!("--{name}-{suffix}"), value);
    out.test(Match::Ttl(cmp, value), invert);
    Some(out)
}

/// `struct xt_mac_info`.
fn mac(info: &Info<'_>) -> Option<Decoded> {
    let mac: [u8; 6] = info.slice(0, 6)?.try_into().ok()?;
    let invert = info.u32(8)? != 0;
    let mut out = Decoded::of_match("mac");
    let text: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
    out.opt(invert, "--mac-source", text.join(":"));
    out.test(Match::MacSource(mac), invert);
    Some(out)
}

/// `struct xt_owner_match_info`.
fn owner(info: &Info<'_>) -> Option<Decoded> {
    let (uid, gid) = (info.pair32(0)?, info.pair32(8)?);
    let (set, inv) = (info.u8(16)?, info.u8(17)?);
    let mut out = Decoded::of_match("owner");
    if set & 4 != 0 {
        out.flag(inv & 4 != 0, "--socket-exists");
        let test = Match::Opaque("--socket-exists".to_owned());
        out.test(test, inv & 4 != 0);
    }
    if set & 1 != 0 {
        out.opt(inv & 1 != 0, "--uid-owner", span(uid, '-'));
        out.test(Match::OwnerUid(uid.0, uid.1), inv & 1 != 0);
    }
    if set & 2 != 0 {
        out.opt(inv & 2 != 0, "--gid-owner", span(gid, '-'));
        out.test(Match::OwnerGid(gid.0, gid.1), inv & 2 != 0);
    }
    if set & 8 != 0 {
        out.flag(inv & 8 != 0, "--suppl-groups");
    }
    Some(out)
}

/// Tests bits of the byte that holds DSCP and ECN, which lies across two bytes in IPv6.
fn traffic_class(info: &Info<'_>, out: &mut Decoded, mask: u8, value: u8, invert: bool) {
    let spread = |byte: u8| {
        if info.v6() {
            (u16::from(byte) << 4).to_be_bytes().to_vec()
        } else {
            vec![byte]
        }
    };
    let (offset, len) = if info.v6() { (0, 2) } else { (1, 1) };
    out.push(Expr::Payload {
        dreg: 0,
        header: Header::Network,
        offset,
        len,
    });
    out.push(Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: spread(mask),
        xor: spread(0),
    });
    out.push(Expr::Cmp {
        sreg: 0,
        op: if invert { Cmp::Ne } else { Cmp::Eq },
        data: spread(value),
    });
}

/// `struct xt_dscp_info`.
fn dscp(info: &Info<'_>) -> Option<Decoded> {
    let (dscp, invert) = (info.u8(0)?, info.u8(1)? != 0);
    let mut out = Decoded::of_match("dscp");
    out.opt(invert, "--dscp", format!("{dscp:#04x}"));
    traffic_class(info, &mut out, 0xfc, dscp << 2, invert);
    Some(out)
}

/// `struct xt_tos_match_info`, and before it `struct ipt_tos_info`, which has no mask.
fn tos(info: &Info<'_>) -> Option<Decoded> {
    let (mask, value, invert) = match info.rev {
        0 => (u8::MAX, info.u8(0)?, info.u8(1)? != 0),
        _ => (info.u8(0)?, info.u8(1)?, info.u8(2)? != 0),
    };
    let mut out = Decoded::of_match("tos");
    let text = match info.rev {
        0 => format!("{value:#04x}"),
        _ => format!("{value:#04x}/{mask:#04x}"),
    };
    out.opt(invert, "--tos", text);
    traffic_class(info, &mut out, mask, value, invert);
    Some(out)
}

/// `struct xt_ecn_info`: bits of the TCP header, and of the IP header.
fn ecn(info: &Info<'_>) -> Option<Decoded> {
    let (ops, inv, ect) = (info.u8(0)?, info.u8(1)?, info.u8(2)?);
    let mut out = Decoded::of_match("ecn");
    for (bit, flag, option) in [(0x10, 0x40, "--ecn-tcp-ece"), (0x20, 0x80, "--ecn-tcp-cwr")] {
        if ops & bit != 0 {
            out.flag(inv & bit != 0, option);
            out.test(Match::TcpFlags(flag, flag), inv & bit != 0);
        }
    }
    if ops & 1 != 0 {
        out.opt(inv & 1 != 0, "--ecn-ip-ect", ect);
        traffic_class(info, &mut out, 3, ect & 3, inv & 1 != 0);
    }
    Some(out)
}

/// `struct xt_tcpmss_match_info`: the option is not among what the walked packet has.
fn tcpmss(info: &Info<'_>) -> Option<Decoded> {
    let (range, invert) = (info.pair16(0)?, info.u8(4)? != 0);
    let mut out = Decoded::of_match("tcpmss");
    out.opt(invert, "--mss", span(range, ':'));
    Some(out.opaque())
}

/// `struct xt_cgroup_info_v0` to `v2`.
fn cgroup(info: &Info<'_>) -> Option<Decoded> {
    let mut out = Decoded::of_match("cgroup");
    if info.rev == 0 {
        let (id, invert) = info.pair32(0)?;
        out.opt(invert != 0, "--cgroup", id);
        return Some(out.opaque());
    }
    let (len, class) = match info.rev {
        1 => (4096, 4100),
        2 => (512, 4),
        _ => return None,
    };
    if info.u8(0)? != 0 {
        out.opt(info.u8(2)? != 0, "--path", info.str(4, len)?);
    }
    if info.u8(1)? != 0 {
        out.opt(info.u8(3)? != 0, "--cgroup", info.u32(class)?);
    }
    Some(out.opaque())
}
