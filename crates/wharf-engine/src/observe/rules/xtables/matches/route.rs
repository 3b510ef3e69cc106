//! Matches on where the packet comes from and goes to: routing, bridge ports, IPsec policies, ipsets.

use wharf_core::trace::ruleset::{Cmp, Expr, Match, Meta};

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{self, Decoded, bits};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "addrtype" => addrtype(info),
        "physdev" => physdev(info),
        "rpfilter" => rpfilter(info),
        "devgroup" => devgroup(info),
        "realm" => realm(info),
        "policy" => policy(info),
        "set" => set(info),
        _ => None,
    }
}

const TYPES: &[&str] = &[
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

/// `struct xt_addrtype_info`, and `_v1` with flags.
fn addrtype(info: &Info<'_>) -> Option<Decoded> {
    let (source, dest) = info.pair16(0)?;
    let flags = match info.rev {
        0 => {
            let (source, dest) = info.pair32(4)?;
            u32::from(source != 0) | u32::from(dest != 0) << 1
        }
        1 => info.u32(4)?,
        _ => return None,
    };
    let (limit_iif, limit_oif) = (flags & 4 != 0, flags & 8 != 0);
    let mut out = Decoded::of_match("addrtype");
    for (src, types, option, invert) in [
        (true, source, "--src-type", flags & 1 != 0),
        (false, dest, "--dst-type", flags & 2 != 0),
    ] {
        if types == 0 {
            continue;
        }
        out.opt(invert, option, bits(types.into(), TYPES));
        let test = Match::AddrType {
            src,
            types: types.into(),
            limit_iif,
            limit_oif,
        };
        out.test(test, invert);
    }
    for (set, option) in [
        (limit_iif, "--limit-iface-in"),
        (limit_oif, "--limit-iface-out"),
    ] {
        if set {
            out.flag(false, option);
        }
    }
    Some(out)
}

/// A name with its mask: the name, and whether it is only the beginning of one.
pub fn interface(name: &[u8], mask: &[u8]) -> Option<(String, bool)> {
    let care = mask.iter().take_while(|b| **b != 0).count();
    let name = super::super::info::text(name.get(..care)?);
    // A whole name is compared with its zero byte.
    let begins = care <= name.len();
    (care > 0).then_some((name, begins))
}

/// A name as iptables takes it.
pub fn interface_text((name, begins): &(String, bool)) -> String {
    format!("{name}{}", if *begins { "+" } else { "" })
}

/// Tests nothing.
fn any_port() -> Match {
    Match::Physdev {
        iif: None,
        oif: None,
        is_in: None,
        is_out: None,
        is_bridged: None,
    }
}

/// `struct xt_physdev_info`.
fn physdev(info: &Info<'_>) -> Option<Decoded> {
    let (inv, ops) = (info.u8(64)?, info.u8(65)?);
    let name = |at| interface(info.slice(at, 16)?, info.slice(at + 16, 16)?);
    let mut out = Decoded::of_match("physdev");
    for (bit, option) in [
        (8, "--physdev-is-in"),
        (1, "--physdev-in"),
        (16, "--physdev-is-out"),
        (2, "--physdev-out"),
        (4, "--physdev-is-bridged"),
    ] {
        if ops & bit == 0 {
            continue;
        }
        let invert = inv & bit != 0;
        let port = match bit {
            1 => name(0),
            2 => name(32),
            _ => None,
        };
        match &port {
            Some(port) => out.opt(invert, option, interface_text(port)),
            None => out.flag(invert, option),
        }
        let mut test = any_port();
        if let Match::Physdev {
            iif,
            oif,
            is_in,
            is_out,
            is_bridged,
        } = &mut test
        {
            match bit {
                1 => *iif = port,
                2 => *oif = port,
                4 => *is_bridged = Some(!invert),
                8 => *is_in = Some(!invert),
                _ => *is_out = Some(!invert),
            }
        }
        out.test(test, invert && matches!(bit, 1 | 2));
    }
    Some(out)
}

/// `struct xt_rpfilter_info`.
fn rpfilter(info: &Info<'_>) -> Option<Decoded> {
    let flags = info.u8(0)?;
    let mut out = Decoded::of_match("rpfilter");
    let options = ["--loose", "--validmark", "--accept-local", "--invert"];
    for (at, option) in options.into_iter().enumerate() {
        if flags >> at & 1 == 1 {
            out.flag(false, option);
        }
    }
    let test = Match::RpFilter {
        loose: flags & 1 != 0,
        mark: flags & 2 != 0,
    };
    out.test(test, flags & 8 != 0);
    Some(out)
}

/// `struct xt_devgroup_info`, as what nftables would test.
fn devgroup(info: &Info<'_>) -> Option<Decoded> {
    let flags = info.u32(0)?;
    let mut out = Decoded::of_match("devgroup");
    for (bit, at, key, option) in [
        (1, 4, Meta::IifGroup, "--src-group"),
        (4, 12, Meta::OifGroup, "--dst-group"),
    ] {
        if flags & bit == 0 {
            continue;
        }
        let invert = flags & bit << 1 != 0;
        let (group, mask) = info.pair32(at)?;
        out.opt(invert, option, text::mark(group, mask));
        out.push(Expr::Meta { dreg: 0, key });
        out.push(Expr::Bitwise {
            sreg: 0,
            dreg: 0,
            mask: mask.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        });
        out.push(Expr::Cmp {
            sreg: 0,
            op: if invert { Cmp::Ne } else { Cmp::Eq },
            data: group.to_ne_bytes().to_vec(),
        });
    }
    Some(out)
}

/// `struct xt_realm_info`: realms of routes are not read.
fn realm(info: &Info<'_>) -> Option<Decoded> {
    let ((id, mask), invert) = (info.pair32(0)?, info.u8(8)? != 0);
    let mut out = Decoded::of_match("realm");
    out.opt(invert, "--realm", text::mark(id, mask));
    Some(out.opaque())
}

const POLICY_PROTOCOLS: &[(u8, &str)] = &[(50, "esp"), (51, "ah"), (108, "ipcomp")];

/// One `struct xt_policy_elem`, 76 bytes from `at`.
fn policy_element(info: &Info<'_>, out: &mut Decoded, at: usize) -> Option<()> {
    let (set, inv) = (info.u8(at + 74)?, info.u8(at + 75)?);
    let not = |bit: u8| inv & bit != 0;
    if set & 32 != 0 {
        out.opt(not(32), "--reqid", info.u32(at + 68)?);
    }
    if set & 16 != 0 {
        let spi = info.u32(at + 64)?;
        out.opt(not(16), "--spi", format!("{spi:#x}"));
    }
    if set & 4 != 0 {
        let proto = info.u8(at + 72)?;
        let name = POLICY_PROTOCOLS.iter().find(|(n, _)| *n == proto);
        let name = name.map_or(proto.to_string(), |(_, name)| (*name).to_owned());
        out.opt(not(4), "--proto", name);
    }
    if set & 8 != 0 {
        let mode = match info.u8(at + 73)? {
            0 => "transport",
            _ => "tunnel",
        };
        out.opt(not(8), "--mode", mode);
    }
    for (bit, option, place) in [(2, "--tunnel-dst", 32), (1, "--tunnel-src", 0)] {
        if set & bit != 0 {
            let (addr, mask) = (info.addr(at + place)?, info.addr(at + place + 16)?);
            out.opt(not(bit), option, format!("{addr}{}", text::mask(mask)));
        }
    }
    Some(())
}

/// `struct xt_policy_info`: IPsec is not read.
fn policy(info: &Info<'_>) -> Option<Decoded> {
    let (flags, len) = info.pair16(304)?;
    let mut out = Decoded::of_match("policy");
    out.opt(false, "--dir", if flags & 1 == 0 { "out" } else { "in" });
    let none = flags & 4 != 0;
    out.opt(false, "--pol", if none { "none" } else { "ipsec" });
    if flags & 8 != 0 {
        out.flag(false, "--strict");
    }
    for n in 0..usize::from(len.min(4)) {
        if n > 0 {
            out.flag(false, "--next");
        }
        policy_element(info, &mut out, n * 76)?;
    }
    Some(out.opaque())
}

/// `src,dst` of a `struct xt_set_info`, whose first byte of flags counts from bit 1.
pub fn set_directions(dim: u8, flags: u8) -> String {
    let side = |n: u8| if flags >> n & 1 == 1 { "src" } else { "dst" };
    let sides: Vec<&str> = (1..=dim.min(6)).map(side).collect();
    sides.join(",")
}

/// Comparisons of an ipset's counters (`enum` of `IPSET_COUNTER_*`): option, and whether it is inverted.
fn set_counter(out: &mut Decoded, what: &str, op: u8, value: u64) {
    let (invert, suffix) = match op {
        1 => (false, "-eq"),
        2 => (true, "-eq"),
        3 => (false, "-lt"),
        4 => (false, "-gt"),
        _ => return,
    };
    out.opt(invert, &format!("--{what}{suffix}"), value);
}

/// `struct xt_set_info_match_v1`, `_v3`, `_v4`; 2 is 1 with another flag.
fn set(info: &Info<'_>) -> Option<Decoded> {
    if !(1..=4).contains(&info.rev) {
        return None;
    }
    let (number, dim, flags) = (info.u16(0)?, info.u8(2)?, info.u8(3)?);
    let name = info.set_name(number);
    let mut out = Decoded::of_match("set");
    let invert = flags & 1 != 0;
    out.opt(invert, "--match-set", &name);
    out.word(set_directions(dim, flags));
    let more = match info.rev {
        3 => Some((info.u32(40)?, (8, 16), (24, 32))),
        4 => Some((info.u32(40)?, (16, 8), (32, 24))),
        _ => None,
    };
    let mut counts = false;
    let later = more.map_or(0, |(flags, ..)| flags);
    if (u32::from(flags) | later) & 0x80 != 0 {
        out.flag(false, "--return-nomatch");
    }
    if let Some((flags, packets, bytes)) = more {
        if flags & 8 != 0 {
            out.flag(true, "--update-counters");
        }
        if flags & 16 != 0 {
            out.flag(true, "--update-subcounters");
        }
        for (what, (op, value)) in [("packets", packets), ("bytes", bytes)] {
            let op = info.u8(op)?;
            counts |= op != 0;
            set_counter(&mut out, what, op, info.u64(value)?);
        }
    }
    if counts {
        return Some(out.opaque());
    }
    out.test(Match::Ipset(name), invert);
    Some(out)
}
