//! Matches on ports, types and numbers of transport headers.

use wharf_core::trace::ruleset::Match;

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{Decoded, bits, span, tcp_flags};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "tcp" => tcp(info),
        "udp" => udp(info),
        "sctp" => sctp(info),
        "dccp" => dccp(info),
        "multiport" => multiport(info),
        "icmp" => icmp(info, "icmp", "--icmp-type"),
        "icmp6" => icmp(info, "icmp6", "--icmpv6-type"),
        "ah" if info.v6() => ah6(info),
        "ah" => spi(info, "ah", "--ahspi"),
        "esp" => spi(info, "esp", "--espspi"),
        "ipcomp" => spi(info, "ipcomp", "--ipcompspi"),
        _ => None,
    }
}

const ALL: (u16, u16) = (0, u16::MAX);

/// Source and destination ports with their inversions.
fn ports(out: &mut Decoded, src: (u16, u16), dst: (u16, u16), not_src: bool, not_dst: bool) {
    if src != ALL {
        out.opt(not_src, "--sport", span(src, ':'));
    }
    if dst != ALL {
        out.opt(not_dst, "--dport", span(dst, ':'));
    }
    if src != ALL || not_src {
        out.test(Match::Sport(src.0, src.1), not_src);
    }
    if dst != ALL || not_dst {
        out.test(Match::Dport(dst.0, dst.1), not_dst);
    }
}

/// `struct xt_tcp`.
fn tcp(info: &Info<'_>) -> Option<Decoded> {
    let (src, dst) = (info.pair16(0)?, info.pair16(4)?);
    let (option, mask, comp, inv) = (info.u8(8)?, info.u8(9)?, info.u8(10)?, info.u8(11)?);
    let mut out = Decoded::of_match("tcp");
    ports(&mut out, src, dst, inv & 1 != 0, inv & 2 != 0);
    if option != 0 || inv & 8 != 0 {
        out.opt(inv & 8 != 0, "--tcp-option", option);
        out.test(
            Match::Opaque(format!("--tcp-option {option}")),
            inv & 8 != 0,
        );
    }
    if mask != 0 || inv & 4 != 0 {
        out.opt(inv & 4 != 0, "--tcp-flags", tcp_flags(mask));
        out.word(tcp_flags(comp));
        out.test(Match::TcpFlags(mask, comp), inv & 4 != 0);
    }
    Some(out)
}

/// `struct xt_udp`.
fn udp(info: &Info<'_>) -> Option<Decoded> {
    let (src, dst, inv) = (info.pair16(0)?, info.pair16(4)?, info.u8(8)?);
    let mut out = Decoded::of_match("udp");
    ports(&mut out, src, dst, inv & 1 != 0, inv & 2 != 0);
    Some(out)
}

/// Names of chunks, and the letters of their flags from the highest bit on.
const CHUNKS: &[(u8, &str, &str)] = &[
    (0, "DATA", "----IUBE"),
    (1, "INIT", "--------"),
    (2, "INIT_ACK", "--------"),
    (3, "SACK", "--------"),
    (4, "HEARTBEAT", "--------"),
    (5, "HEARTBEAT_ACK", "--------"),
    (6, "ABORT", "-------T"),
    (7, "SHUTDOWN", "--------"),
    (8, "SHUTDOWN_ACK", "--------"),
    (9, "ERROR", "--------"),
    (10, "COOKIE_ECHO", "--------"),
    (11, "COOKIE_ACK", "--------"),
    (12, "ECN_ECNE", "--------"),
    (13, "ECN_CWR", "--------"),
    (14, "SHUTDOWN_COMPLETE", "-------T"),
    (128, "ASCONF_ACK", "--------"),
    (192, "FORWARD_TSN", "--------"),
    (193, "ASCONF", "--------"),
];

/// The flags of a chunk type: upper case is set, lower case is not.
fn chunk_flags(info: &Info<'_>, chunk: u8, letters: &str) -> Option<String> {
    let count = info.u32(280)?.min(4) as usize;
    for at in (0..count).map(|n| 268 + n * 3) {
        if info.u8(at)? != chunk {
            continue;
        }
        let (flags, mask) = (info.u8(at + 1)?, info.u8(at + 2)?);
        let letter = |(at, c): (usize, char)| {
            let bit = 0x80_u8 >> at;
            let case = if flags & bit == 0 {
                c.to_ascii_lowercase()
            } else {
                c
            };
            (mask & bit != 0).then_some(case)
        };
        let flags: String = letters.chars().enumerate().filter_map(letter).collect();
        return Some(format!(":{flags}"));
    }
    Some(String::new())
}

fn chunks(info: &Info<'_>) -> Option<String> {
    let map = info.slice(8, 32)?;
    if map.iter().all(|b| *b == u8::MAX) {
        return Some("ALL".to_owned());
    }
    let mut names = Vec::new();
    for chunk in 0..=u8::MAX {
        let word = info.u32(8 + usize::from(chunk) / 32 * 4)?;
        if word >> (chunk % 32) & 1 == 0 {
            continue;
        }
        match CHUNKS.iter().find(|(number, ..)| *number == chunk) {
            Some((_, name, letters)) => {
                names.push(format!("{name}{}", chunk_flags(info, chunk, letters)?));
            }
            None => names.push(chunk.to_string()),
        }
    }
    Some(if names.is_empty() {
        "NONE".to_owned()
    } else {
        names.join(",")
    })
}

/// `struct xt_sctp_info`: here the destination comes first, and the map of chunks has 64 words, of which 8 are used.
fn sctp(info: &Info<'_>) -> Option<Decoded> {
    let (dst, src) = (info.pair16(0)?, info.pair16(4)?);
    let (flags, inv) = (info.u32(284)?, info.u32(288)?);
    let mut out = Decoded::of_match("sctp");
    let src = if flags & 1 == 0 { ALL } else { src };
    let dst = if flags & 2 == 0 { ALL } else { dst };
    ports(&mut out, src, dst, inv & 1 != 0, inv & 2 != 0);
    if flags & 4 != 0 {
        let how = match info.u32(264)? {
            1 => "any",
            2 => "all",
            _ => "only",
        };
        out.opt(inv & 4 != 0, "--chunk-types", how);
        out.word(chunks(info)?);
        return Some(out.opaque());
    }
    Some(out)
}

const DCCP_TYPES: &[&str] = &[
    "REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC",
    "SYNCACK", "INVALID",
];

/// `struct xt_dccp_info`.
fn dccp(info: &Info<'_>) -> Option<Decoded> {
    let (dst, src) = (info.pair16(0)?, info.pair16(4)?);
    let (flags, inv, types) = (info.u16(8)?, info.u16(10)?, info.u16(12)?);
    let option = info.u8(14)?;
    let mut out = Decoded::of_match("dccp");
    let src = if flags & 1 == 0 { ALL } else { src };
    let dst = if flags & 2 == 0 { ALL } else { dst };
    ports(&mut out, src, dst, inv & 1 != 0, inv & 2 != 0);
    if flags & 4 != 0 {
        out.opt(inv & 4 != 0, "--dccp-types", bits(types.into(), DCCP_TYPES));
    }
    if flags & 8 != 0 {
        out.opt(inv & 8 != 0, "--dccp-option", option);
    }
    Some(if flags & 12 == 0 { out } else { out.opaque() })
}

/// `struct xt_multiport` and `struct xt_multiport_v1`, which has ranges and inversion.
fn multiport(info: &Info<'_>) -> Option<Decoded> {
    let (flags, count) = (info.u8(0)?, usize::from(info.u8(1)?.min(15)));
    let invert = info.rev >= 1 && info.u8(47)? != 0;
    let mut list = Vec::new();
    let mut at = 0;
    while at < count {
        let first = info.u16(2 + at * 2)?;
        let starts = info.rev >= 1 && info.u8(32 + at)? != 0 && at + 1 < count;
        at += if starts { 2 } else { 1 };
        list.push((first, info.u16(at * 2)?));
    }
    let words: Vec<String> = list.iter().map(|p| span(*p, ':')).collect();
    let name = match flags {
        0 => "--sports",
        1 => "--dports",
        _ => "--ports",
    };
    let mut out = Decoded::of_match("multiport");
    out.opt(invert, name, words.join(","));
    let test = Match::Multiport {
        src: flags != 1,
        dst: flags != 0,
        ports: list,
    };
    out.test(test, invert);
    Some(out)
}

/// `struct ipt_icmp`, `struct ip6t_icmp`. Type 255 is any in IPv4.
fn icmp(info: &Info<'_>, name: &str, option: &str) -> Option<Decoded> {
    let (kind, first, last) = (info.u8(0)?, info.u8(1)?, info.u8(2)?);
    let invert = info.u8(3)? & 1 != 0;
    let mut out = Decoded::of_match(name);
    if kind == u8::MAX {
        out.opt(invert, option, "any");
        if invert {
            out.test(Match::IcmpType(kind, first, last), false);
        }
        return Some(out);
    }
    let code = match (first, last) {
        (0, u8::MAX) => String::new(),
        _ => format!("/{first}"),
    };
    out.opt(invert, option, format!("{kind}{code}"));
    out.test(Match::IcmpType(kind, first, last), invert);
    Some(out)
}

fn spi_option(out: &mut Decoded, range: (u32, u32), invert: bool, option: &str) {
    if range != (0, u32::MAX) || invert {
        out.opt(invert, option, span(range, ':'));
    }
}

/// `struct ipt_ah`, `struct xt_esp`, `struct xt_ipcomp`.
fn spi(info: &Info<'_>, name: &str, option: &str) -> Option<Decoded> {
    let mut out = Decoded::of_match(name);
    spi_option(&mut out, info.pair32(0)?, info.u8(8)? & 1 != 0, option);
    Some(out.opaque())
}

/// `struct ip6t_ah`.
fn ah6(info: &Info<'_>) -> Option<Decoded> {
    let (len, reserved, inv) = (info.u32(8)?, info.u8(12)?, info.u8(13)?);
    let mut out = Decoded::of_match("ah");
    spi_option(&mut out, info.pair32(0)?, inv & 1 != 0, "--ahspi");
    if len != 0 || inv & 2 != 0 {
        out.opt(inv & 2 != 0, "--ahlen", len);
    }
    if reserved != 0 {
        out.flag(false, "--ahres");
    }
    Some(out.opaque())
}
