//! Matches on IPv6 extension headers. The walked packet has none, so what asks for one does not hold.

use wharf_core::trace::ruleset::Expr;

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{Decoded, span};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "frag" => frag(info),
        "rt" => routing(info),
        "hbh" | "dst" => options(info, name),
        "mh" => mobility(info),
        "srh" => segment(info),
        "eui64" => Some(Decoded::of_match(name).opaque()),
        "ipv6header" => headers(info),
        _ => None,
    }
}

/// Reads a header that is not there.
fn absent(mut out: Decoded) -> Decoded {
    out.push(Expr::ExtHdr {
        dreg: 0,
        exists: false,
    });
    out
}

/// `struct ip6t_frag`.
fn frag(info: &Info<'_>) -> Option<Decoded> {
    let (ids, len) = (info.pair32(0)?, info.u32(8)?);
    let (flags, inv) = (info.u8(12)?, info.u8(13)?);
    let mut out = Decoded::of_match("frag");
    if flags & 1 != 0 {
        out.opt(inv & 1 != 0, "--fragid", span(ids, ':'));
    }
    if flags & 2 != 0 {
        out.opt(inv & 2 != 0, "--fraglen", len);
    }
    for (bit, option) in [
        (4, "--fragres"),
        (8, "--fragfirst"),
        (16, "--fragmore"),
        (32, "--fraglast"),
    ] {
        if flags & bit != 0 {
            out.flag(false, option);
        }
    }
    Some(absent(out))
}

/// `struct ip6t_rt`.
fn routing(info: &Info<'_>) -> Option<Decoded> {
    let (kind, left, len) = (info.u32(0)?, info.pair32(4)?, info.u32(12)?);
    let (flags, inv) = (info.u8(16)?, info.u8(17)?);
    let mut out = Decoded::of_match("rt");
    if flags & 1 != 0 {
        out.opt(inv & 1 != 0, "--rt-type", kind);
    }
    if flags & 2 != 0 {
        out.opt(inv & 2 != 0, "--rt-segsleft", span(left, ':'));
    }
    if flags & 4 != 0 {
        out.opt(inv & 4 != 0, "--rt-len", len);
    }
    if flags & 0x38 != 0 {
        out = out.more();
    }
    Some(absent(out))
}

/// `struct ip6t_opts`.
fn options(info: &Info<'_>, name: &str) -> Option<Decoded> {
    let (len, flags, inv) = (info.u32(0)?, info.u8(4)?, info.u8(5)?);
    let mut out = Decoded::of_match(name);
    if flags & 1 != 0 {
        out.opt(inv & 1 != 0, &format!("--{name}-len"), len);
    }
    if flags & 2 != 0 {
        let mut list = Vec::new();
        for n in 0..usize::from(info.u8(38)?).min(16) {
            let [kind, len] = info.u16(6 + n * 2)?.to_be_bytes();
            list.push(match len {
                u8::MAX => kind.to_string(),
                len => format!("{kind}:{len}"),
            });
        }
        out.opt(false, &format!("--{name}-opts"), list.join(","));
    }
    Some(absent(out))
}

/// `struct ip6t_mh`.
fn mobility(info: &Info<'_>) -> Option<Decoded> {
    let (first, last, inv) = (info.u8(0)?, info.u8(1)?, info.u8(2)?);
    let mut out = Decoded::of_match("mh");
    if (first, last) != (0, u8::MAX) || inv & 1 != 0 {
        out.opt(inv & 1 != 0, "--mh-type", span((first, last), ':'));
    }
    Some(absent(out))
}

/// `struct ip6t_srh`, `struct ip6t_srh1`.
fn segment(info: &Info<'_>) -> Option<Decoded> {
    let at = if info.rev == 0 { 6 } else { 104 };
    let (next, flags, inv) = (info.u8(0)?, info.u16(at)?, info.u16(at + 2)?);
    let mut out = Decoded::of_match("srh");
    if flags & 1 != 0 {
        out.opt(inv & 1 != 0, "--srh-next-hdr", next);
    }
    if flags & !1 != 0 {
        out = out.more();
    }
    Some(absent(out))
}

const HEADERS: &[(u8, &str)] = &[
    (128, "hopopt"),
    (64, "ipv6-opts"),
    (32, "ipv6-route"),
    (16, "ipv6-frag"),
    (8, "ah"),
    (4, "esp"),
    (2, "ipv6-nonxt"),
    (1, "prot"),
];

/// `struct ip6t_ipv6header_info`.
fn headers(info: &Info<'_>) -> Option<Decoded> {
    let (wanted, inv, soft) = (info.u8(0)?, info.u8(1)?, info.u8(2)?);
    let mut out = Decoded::of_match("ipv6header");
    let set = HEADERS.iter().filter(|(bit, _)| wanted & bit != 0);
    let names: Vec<&str> = set.map(|(_, name)| *name).collect();
    out.opt(inv != 0, "--header", names.join(","));
    if soft != 0 {
        out.flag(false, "--soft");
    }
    Some(out.opaque())
}
