//! Matches and targets of ebtables-nft (family `bridge`), which have structures of their own (`ebt_*.h`).
//!
//! Those of ARP, VLAN tags, spanning tree and 802.3 frames come behind a test of the Ethernet type that no IP packet
//! passes; they are named only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_core::trace::ruleset::{Cmp, Expr, Header, Match, RuleVerdict};

use super::info::Info;
use super::text::{Decoded, mask as mask_text, protocol, span};

/// Decodes a match; `None` if it is not known or too short.
pub fn decode_match(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "ip" => ip(info, &V4),
        "ip6" => ip(info, &V6),
        "mark_m" => mark_m(info),
        "pkttype" => pkttype(info),
        "arp" | "vlan" | "stp" | "802_3" => Some(Decoded::bare(&format!("--{name} ...")).opaque()),
        _ => None,
    }
}

/// Decodes a target; `None` if it is not known or too short.
pub fn decode_target(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "mark" => mark(info),
        "dnat" => mac(info, "dnat", "dst", 0),
        "snat" => mac(info, "snat", "src", 6),
        "log" => Some(Decoded::bare("--log ...").nothing()),
        "nflog" => Some(Decoded::bare("--nflog ...").nothing()),
        "redirect" | "arpreply" => Some(Decoded::of_target(name).opaque_target()),
        _ => None,
    }
}

/// An option, with the sign of inversion behind it.
fn opt(out: &mut Decoded, invert: bool, option: &str, value: &str) {
    if !out.text.is_empty() {
        out.text.push(' ');
    }
    out.text += option;
    out.text += if invert { " ! " } else { " " };
    out.text += value;
}

/// Where `struct ebt_ip_info` and `struct ebt_ip6_info` differ.
struct Layout {
    addr: usize,
    option: &'static str,
    class: &'static str,
    icmp: &'static str,
}

const V4: Layout = Layout {
    addr: 4,
    option: "--ip-",
    class: "tos",
    icmp: "icmp-type",
};

const V6: Layout = Layout {
    addr: 16,
    option: "--ip6-",
    class: "tclass",
    icmp: "icmp-type",
};

fn address(info: &Info<'_>, at: usize, len: usize) -> Option<IpAddr> {
    let bytes = info.slice(at, len)?;
    if len == 4 {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// `struct ebt_ip_info`, `struct ebt_ip6_info`.
fn ip(info: &Info<'_>, layout: &Layout) -> Option<Decoded> {
    let tail = layout.addr * 4;
    let (class, proto) = (info.u8(tail)?, info.u8(tail + 1)?);
    let (set, inv) = (info.u8(tail + 2)?, info.u8(tail + 3)?);
    let name = |option: &str| format!("{}{option}", layout.option);
    let mut out = Decoded::bare("");
    for (bit, option, at) in [(1, "src", 0), (2, "dst", layout.addr)] {
        if set & bit == 0 {
            continue;
        }
        let invert = inv & bit != 0;
        let addr = address(info, at, layout.addr)?;
        let mask = address(info, at + layout.addr * 2, layout.addr)?;
        let value = format!("{addr}{}", mask_text(mask));
        opt(&mut out, invert, &name(option), &value);
        let test = if bit == 1 { Match::Src } else { Match::Dst };
        out.test(test(addr, mask), invert);
    }
    if set & 4 != 0 {
        let value = format!("{class:#04x}");
        opt(&mut out, inv & 4 != 0, &name(layout.class), &value);
        out.exprs.extend(traffic_class(layout, class, inv & 4 != 0));
    }
    if set & 8 != 0 {
        let invert = inv & 8 != 0;
        opt(&mut out, invert, &name("proto"), &protocol(proto));
        out.test(Match::Proto(proto), invert);
    }
    for (bit, option, at) in [(16, "sport", tail + 4), (32, "dport", tail + 8)] {
        if set & bit == 0 {
            continue;
        }
        let invert = inv & bit != 0;
        let (first, last) = info.pair16(at)?;
        opt(&mut out, invert, &name(option), &span((first, last), ':'));
        let test = if bit == 16 {
            Match::Sport
        } else {
            Match::Dport
        };
        out.test(test(first, last), invert);
    }
    if set & 0xc0 != 0 {
        icmp(info, layout, tail + 4, &mut out)?;
    }
    Some(out)
}

/// Types and codes of ICMP, each from first to last; IGMP, which is not walked.
fn icmp(info: &Info<'_>, layout: &Layout, at: usize, out: &mut Decoded) -> Option<()> {
    let (set, inv) = (info.u8(at - 2)?, info.u8(at - 1)?);
    let kinds = (info.u8(at)?, info.u8(at + 1)?);
    if set & 0x80 != 0 {
        let option = format!("{}igmp-type", layout.option);
        opt(out, inv & 0x80 != 0, &option, &span(kinds, ':'));
        let test = Match::Opaque("--ip-igmp-type".to_owned());
        out.test(test, inv & 0x80 != 0);
        return Some(());
    }
    let codes = (info.u8(at + 2)?, info.u8(at + 3)?);
    let mut value = span(kinds, ':');
    if codes != (0, u8::MAX) {
        value += &format!("/{}", span(codes, ':'));
    }
    let option = format!("{}{}", layout.option, layout.icmp);
    let invert = inv & 0x40 != 0;
    opt(out, invert, &option, &value);
    let test = if kinds.0 == kinds.1 {
        Match::IcmpType(kinds.0, codes.0, codes.1)
    } else {
        Match::Opaque(format!("{option} {value}"))
    };
    out.test(test, invert);
    Some(())
}

/// The whole byte of DSCP and ECN, which lies across two bytes in IPv6.
fn traffic_class(layout: &Layout, class: u8, invert: bool) -> [Expr; 3] {
    let v6 = layout.addr == 16;
    let spread = |byte: u8| {
        if v6 {
            (u16::from(byte) << 4).to_be_bytes().to_vec()
        } else {
            vec![byte]
        }
    };
    let (offset, len) = if v6 { (0, 2) } else { (1, 1) };
    [
        Expr::Payload {
            dreg: 0,
            header: Header::Network,
            offset,
            len,
        },
        Expr::Bitwise {
            sreg: 0,
            dreg: 0,
            mask: spread(u8::MAX),
            xor: spread(0),
        },
        Expr::Cmp {
            sreg: 0,
            op: if invert { Cmp::Ne } else { Cmp::Eq },
            data: spread(class),
        },
    ]
}

/// A number of the kernel's `unsigned long`, of which the low 32 bits are used.
fn long(info: &Info<'_>, at: usize) -> Option<u32> {
    u32::try_from(info.u64(at)? & u64::from(u32::MAX)).ok()
}

/// `struct ebt_mark_m_info`: the marked bits are compared, or any of them must be set.
fn mark_m(info: &Info<'_>) -> Option<Decoded> {
    let (mark, mask) = (long(info, 0)?, long(info, 8)?);
    let (invert, any) = (info.u8(16)? != 0, info.u8(17)? & 2 != 0);
    let mut out = Decoded::bare("");
    if any {
        opt(&mut out, invert, "--mark", &format!("/{mask:#x}"));
        out.test(Match::Mark(0, mask), !invert);
    } else {
        let value = super::text::mark(mark, mask);
        opt(&mut out, invert, "--mark", &value);
        out.test(Match::Mark(mark, mask), invert);
    }
    Some(out)
}

/// `struct ebt_pkttype_info`.
fn pkttype(info: &Info<'_>) -> Option<Decoded> {
    let (kind, invert) = (info.u8(0)?, info.u8(1)? != 0);
    let names = ["host", "broadcast", "multicast", "otherhost"];
    let name = names.get(usize::from(kind));
    let name = name.map_or_else(|| kind.to_string(), |n| (*n).to_owned());
    let mut out = Decoded::bare("");
    opt(&mut out, invert, "--pkttype-type", &name);
    out.test(Match::PktType(kind), invert);
    Some(out)
}

/// What follows a target: the low bits of a negative number.
fn verdict(number: u32) -> Option<(RuleVerdict, &'static str)> {
    match (number | !0xf).cast_signed() {
        -1 => Some((RuleVerdict::Accept, "ACCEPT")),
        -2 => Some((RuleVerdict::Drop, "DROP")),
        -3 => Some((RuleVerdict::Continue, "CONTINUE")),
        -4 => Some((RuleVerdict::Return, "RETURN")),
        _ => None,
    }
}

/// `struct ebt_mark_t_info`: what is done with the mark is in the high bits of the verdict.
fn mark(info: &Info<'_>) -> Option<Decoded> {
    let (number, target) = (long(info, 0)?, info.u32(8)?);
    let (option, value, mask) = match target & !0xf {
        0xffff_fff0 => ("set", number, u32::MAX),
        0xffff_ffe0 => ("or", number, number),
        0xffff_ffd0 => ("and", 0, !number),
        0xffff_ffc0 => ("xor", number, 0),
        _ => return None,
    };
    let (verdict, name) = verdict(target)?;
    let mut out = Decoded::of_target("mark");
    let option = format!("--mark-{option}");
    opt(&mut out, false, &option, &format!("{number:#x}"));
    opt(&mut out, false, "--mark-target", name);
    out.push(Expr::SetMark { value, mask });
    out.push(Expr::Verdict(verdict));
    Some(out)
}

/// `struct ebt_nat_info`: another hardware address, at `offset` of the frame.
fn mac(info: &Info<'_>, name: &str, side: &str, offset: u32) -> Option<Decoded> {
    let data = info.slice(0, 6)?.to_vec();
    let target = info.u32(8)?;
    let (verdict, word) = verdict(target)?;
    let text: Vec<String> = data.iter().map(|b| format!("{b:02x}")).collect();
    let mut out = Decoded::of_target(name);
    opt(&mut out, false, &format!("--to-{side}"), &text.join(":"));
    // A bit of snat's verdict asks for the address inside ARP to be changed too.
    if name == "snat" && target & 0x10 == 0 {
        out.flag(false, "--snat-arp");
    }
    opt(&mut out, false, &format!("--{name}-target"), word);
    out.push(Expr::Immediate { dreg: 0, data });
    out.push(Expr::PayloadSet {
        sreg: 0,
        header: Header::Link,
        offset,
        len: 6,
    });
    out.push(Expr::Verdict(verdict));
    Some(out)
}
