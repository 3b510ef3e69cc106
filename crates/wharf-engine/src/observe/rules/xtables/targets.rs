//! Targets by name, but for those that translate.

use wharf_core::trace::ruleset::{Ct, Expr, Header, Meta, NatArg, RuleVerdict};

use super::info::Info;
use super::matches::set_directions;
use super::nat;
use super::text::{Decoded, bits, quoted};

/// Decodes a target; `None` if it is not known or too short.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "REJECT" => reject(info),
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" | "DNPT" | "SNPT" => {
            nat::decode(name, info)
        }
        "MARK" => mark(info),
        "CONNMARK" => connmark(info),
        "LOG" => log(info),
        "NFLOG" => nflog(info),
        "NFQUEUE" => nfqueue(info),
        "CT" => ct(info),
        "TPROXY" => tproxy(info),
        "TTL" => hops(info, 8),
        "HL" => hops(info, 7),
        "SET" => set(info),
        "ERROR" => Some(error(info)),
        "NOTRACK" | "TRACE" | "TCPMSS" | "CHECKSUM" | "DSCP" | "TOS" | "ECN" | "TCPOPTSTRIP"
        | "AUDIT" | "CLASSIFY" | "TEE" | "IDLETIMER" | "RATEEST" | "SECMARK" | "CONNSECMARK"
        | "LED" => aside(name, info),
        "SYNPROXY" => synproxy(info),
        _ => None,
    }
}

/// A standard target: its number is the verdict, or where a jump goes to.
pub fn standard(verdict: i32) -> Option<(RuleVerdict, &'static str)> {
    match verdict {
        -1 => Some((RuleVerdict::Drop, "DROP")),
        -2 => Some((RuleVerdict::Accept, "ACCEPT")),
        -4 => Some((RuleVerdict::Queue(false), "QUEUE")),
        -5 => Some((RuleVerdict::Return, "RETURN")),
        _ => None,
    }
}

/// `struct xt_error_target`: marks the end of a table; a packet that comes there is dropped.
fn error(info: &Info<'_>) -> Decoded {
    let mut out = Decoded::of_target("ERROR");
    out.word(quoted(&super::info::text(info.bytes)));
    out.push(Expr::Verdict(RuleVerdict::Drop));
    out
}

const REJECT4: &[&str] = &[
    "icmp-net-unreachable",
    "icmp-host-unreachable",
    "icmp-proto-unreachable",
    "icmp-port-unreachable",
    "echo-reply",
    "icmp-net-prohibited",
    "icmp-host-prohibited",
    "tcp-reset",
    "icmp-admin-prohibited",
];

const REJECT6: &[&str] = &[
    "icmp6-no-route",
    "icmp6-adm-prohibited",
    "icmp6-not-neighbour",
    "icmp6-addr-unreachable",
    "icmp6-port-unreachable",
    "echo-reply",
    "tcp-reset",
    "icmp6-policy-fail",
    "icmp6-reject-route",
];

/// `struct ipt_reject_info`, `struct ip6t_reject_info`.
fn reject(info: &Info<'_>) -> Option<Decoded> {
    let names = if info.v6() { REJECT6 } else { REJECT4 };
    let name = names.get(usize::try_from(info.u32(0)?).ok()?)?;
    let mut out = Decoded::of_target("REJECT");
    out.opt(false, "--reject-with", name);
    let reset = *name == "tcp-reset";
    out.push(Expr::Reject { reset });
    Some(out)
}

/// `struct xt_mark_tginfo2`.
fn mark(info: &Info<'_>) -> Option<Decoded> {
    if info.rev != 2 {
        return None;
    }
    let (value, mask) = info.pair32(0)?;
    let mut out = Decoded::of_target("MARK");
    out.opt(false, "--set-xmark", format!("{value:#x}/{mask:#x}"));
    out.push(Expr::SetMark { value, mask });
    Some(out)
}

/// `struct xt_connmark_tginfo1`, and `2` with shifts.
fn connmark(info: &Info<'_>) -> Option<Decoded> {
    let ((value, ctmask), nfmask) = (info.pair32(0)?, info.u32(8)?);
    let (right, shift, mode) = match info.rev {
        1 => (0, 0, info.u8(12)?),
        2 => (info.u8(12)?, info.u8(13)?, info.u8(14)?),
        _ => return None,
    };
    let mut out = Decoded::of_target("CONNMARK");
    match mode {
        0 => out.opt(false, "--set-xmark", format!("{value:#x}/{ctmask:#x}")),
        1 => out.flag(false, "--save-mark"),
        2 => out.flag(false, "--restore-mark"),
        _ => return None,
    }
    if mode != 0 {
        out.opt(false, "--nfmask", format!("{nfmask:#x}"));
        out.opt(false, "--ctmask", format!("{ctmask:#x}"));
    }
    if shift != 0 {
        let option = match right {
            0 => "--left-shift-mark",
            _ => "--right-shift-mark",
        };
        out.opt(false, option, shift);
    }
    // Copying between different bits has no instruction.
    if shift != 0 || (mode != 0 && nfmask != ctmask) {
        return Some(out.opaque_target());
    }
    out.push(Expr::SetConnmark {
        value,
        mask: ctmask,
        save: mode == 1,
        restore: mode == 2,
    });
    Some(out)
}

/// `struct xt_log_info`.
fn log(info: &Info<'_>) -> Option<Decoded> {
    let (level, flags, prefix) = (info.u8(0)?, info.u8(1)?, info.str(2, 30)?);
    let mut out = Decoded::of_target("LOG");
    if !prefix.is_empty() {
        out.opt(false, "--log-prefix", quoted(&prefix));
    }
    if level != 4 {
        out.opt(false, "--log-level", level);
    }
    for (bit, option) in [
        (1, "--log-tcp-sequence"),
        (2, "--log-tcp-options"),
        (4, "--log-ip-options"),
        (8, "--log-uid"),
        (32, "--log-macdecode"),
    ] {
        if flags & bit != 0 {
            out.flag(false, option);
        }
    }
    Some(out.nothing())
}

/// `struct xt_nflog_info`.
fn nflog(info: &Info<'_>) -> Option<Decoded> {
    let (len, (group, threshold)) = (info.u32(0)?, info.pair16(4)?);
    let (flags, prefix) = (info.u16(8)?, info.str(12, 64)?);
    let mut out = Decoded::of_target("NFLOG");
    if !prefix.is_empty() {
        out.opt(false, "--nflog-prefix", quoted(&prefix));
    }
    if group != 0 {
        out.opt(false, "--nflog-group", group);
    }
    if flags & 1 != 0 {
        out.opt(false, "--nflog-size", len);
    } else if len != 0 {
        out.opt(false, "--nflog-range", len);
    }
    if threshold != 0 {
        out.opt(false, "--nflog-threshold", threshold);
    }
    Some(out.nothing())
}

/// `struct xt_NFQ_info` to `_v3`.
fn nfqueue(info: &Info<'_>) -> Option<Decoded> {
    let first = info.u16(0)?;
    let total = if info.rev >= 1 { info.u16(2)? } else { 1 };
    let flags = if info.rev >= 2 { info.u16(4)? } else { 0 };
    let mut out = Decoded::of_target("NFQUEUE");
    if total > 1 {
        let last = first.saturating_add(total - 1);
        out.opt(false, "--queue-balance", format!("{first}:{last}"));
    } else {
        out.opt(false, "--queue-num", first);
    }
    if flags & 1 != 0 {
        out.flag(false, "--queue-bypass");
    }
    if info.rev >= 3 && flags & 2 != 0 {
        out.flag(false, "--queue-cpu-fanout");
    }
    out.push(Expr::Verdict(RuleVerdict::Queue(flags & 1 != 0)));
    Some(out)
}

const CT_EVENTS: &[&str] = &[
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "natseqinfo",
    "secmark",
];

/// `struct xt_ct_target_info`, and `_v1` with a timeout policy.
fn ct(info: &Info<'_>) -> Option<Decoded> {
    let (flags, zone) = info.pair16(0)?;
    let (events, expected) = info.pair32(4)?;
    let helper = info.str(12, 16)?;
    let timeout = match info.rev {
        0 => String::new(),
        _ => info.str(28, 32)?,
    };
    if flags & 2 != 0 {
        let mut out = Decoded::of_target("NOTRACK");
        out.push(Expr::Notrack);
        return Some(out);
    }
    let mut out = Decoded::of_target("CT");
    if flags & 1 != 0 {
        out.flag(false, "--notrack");
    }
    for (option, value) in [
        ("--helper", helper),
        ("--timeout", timeout),
        ("--ctevents", bits(events, CT_EVENTS)),
        ("--expevents", bits(expected, &["new"])),
    ] {
        if !value.is_empty() {
            out.opt(false, option, value);
        }
    }
    let from_mark = flags & 16 != 0;
    if from_mark || zone != 0 {
        let option = match flags & 12 {
            4 => "--zone-orig",
            8 => "--zone-reply",
            _ => "--zone",
        };
        let value = if from_mark {
            "mark".to_owned()
        } else {
            zone.to_string()
        };
        out.opt(false, option, value);
    }
    if flags & 1 != 0 {
        out.push(Expr::Notrack);
    } else if from_mark || zone != 0 {
        out.push(match from_mark {
            true => Expr::Meta {
                dreg: 0,
                key: Meta::Mark,
            },
            false => Expr::Immediate {
                dreg: 0,
                data: zone.to_ne_bytes().to_vec(),
            },
        });
        let key = match flags & 12 {
            4 => Ct::ZoneOf { reply: false },
            8 => Ct::ZoneOf { reply: true },
            _ => Ct::Zone,
        };
        out.push(Expr::CtSet { sreg: 0, key });
    } else {
        return Some(out.nothing());
    }
    Some(out)
}

/// `struct xt_tproxy_target_info`, and `_v1` with addresses of both families.
fn tproxy(info: &Info<'_>) -> Option<Decoded> {
    let (mask, value) = info.pair32(0)?;
    let (addr, port) = match info.rev {
        0 => (info.v4_addr(8)?, info.be16(12)?),
        _ => (info.addr(8)?, info.be16(24)?),
    };
    let mut out = Decoded::of_target("TPROXY");
    out.opt(false, "--on-port", port);
    out.opt(false, "--on-ip", addr);
    out.opt(false, "--tproxy-mark", format!("{value:#x}/{mask:#x}"));
    out.push(Expr::SetMark { value, mask });
    out.push(Expr::Tproxy {
        port: (port != 0).then_some(NatArg::Port(port)),
        drops: true,
    });
    Some(out)
}

/// `struct ipt_TTL_info`, `struct ip6t_HL_info`; the byte is at `offset` of the IP header.
fn hops(info: &Info<'_>, offset: u32) -> Option<Decoded> {
    let (mode, value) = (info.u8(0)?, info.u8(1)?);
    let (name, letters) = if offset == 8 {
        ("TTL", "ttl")
    } else {
        ("HL", "hl")
    };
    let mut out = Decoded::of_target(name);
    let how = *["set", "inc", "dec"].get(usize::from(mode))?;
    out.opt(false, &format!("--{letters}-{how}"), value);
    match mode {
        0 => {
            out.push(Expr::Immediate {
                dreg: 0,
                data: vec![value],
            });
            out.push(Expr::PayloadSet {
                sreg: 0,
                header: Header::Network,
                offset,
                len: 1,
            });
            Some(out)
        }
        1 => Some(out.nothing()),
        // It drops the packet when it counts to zero.
        _ => Some(out.opaque_target()),
    }
}

/// `struct xt_set_info_target_v1` to `v3`.
fn set(info: &Info<'_>) -> Option<Decoded> {
    let map = info.rev == 3;
    let tail = if map { 12 } else { 8 };
    let (flags, timeout) = match info.rev {
        1 => (0, u32::MAX),
        2 | 3 => info.pair32(tail)?,
        _ => return None,
    };
    let mut out = Decoded::of_target("SET");
    for (at, option) in [(0, "--add-set"), (4, "--del-set"), (8, "--map-set")] {
        if at == 8 && !map {
            continue;
        }
        let number = info.u16(at)?;
        if number == u16::MAX {
            continue;
        }
        out.opt(false, option, info.set_name(number));
        out.word(set_directions(info.u8(at + 2)?, info.u8(at + 3)?));
        if at == 0 {
            if flags & 1 != 0 {
                out.flag(false, "--exist");
            }
            if timeout != u32::MAX {
                out.opt(false, "--timeout", timeout);
            }
        }
    }
    for (bit, option) in [
        (1 << 8, "--map-mark"),
        (1 << 9, "--map-prio"),
        (1 << 10, "--map-queue"),
    ] {
        if flags & bit != 0 {
            out.flag(false, option);
        }
    }
    // A map gives the packet a mark that only the set knows.
    if map && info.u16(8)? != u16::MAX {
        return Some(out.opaque_target());
    }
    Some(out.nothing())
}

/// `struct nf_synproxy_info`: it answers in place of the server.
fn synproxy(info: &Info<'_>) -> Option<Decoded> {
    let (options, wscale, mss) = (info.u8(0)?, info.u8(1)?, info.u16(2)?);
    let mut out = Decoded::of_target("SYNPROXY");
    if options & 4 != 0 {
        out.flag(false, "--sack-perm");
    }
    if options & 8 != 0 {
        out.flag(false, "--timestamp");
    }
    if options & 2 != 0 {
        out.opt(false, "--wscale", wscale);
    }
    if options & 1 != 0 {
        out.opt(false, "--mss", mss);
    }
    if options & 16 != 0 {
        out.flag(false, "--ecn");
    }
    Some(out.opaque_target())
}

/// Targets after which the packet goes on, with nothing changed that a rule or route looks at.
fn aside(name: &str, info: &Info<'_>) -> Option<Decoded> {
    let mut out = Decoded::of_target(name);
    match name {
        "NOTRACK" => {
            out.push(Expr::Notrack);
            return Some(out);
        }
        "TRACE" => {}
        "TCPMSS" => match info.u16(0)? {
            u16::MAX => out.flag(false, "--clamp-mss-to-pmtu"),
            mss => out.opt(false, "--set-mss", mss),
        },
        "CHECKSUM" => {
            if info.u8(0)? & 1 != 0 {
                out.flag(false, "--checksum-fill");
            }
        }
        "DSCP" => out.opt(false, "--set-dscp", format!("{:#04x}", info.u8(0)?)),
        "TOS" => {
            let (value, mask) = (info.u8(0)?, info.u8(1)?);
            let text = match info.rev {
                0 => format!("{value:#04x}"),
                _ => format!("{value:#04x}/{mask:#04x}"),
            };
            out.opt(false, "--set-tos", text);
        }
        "ECN" => ecn(info, &mut out)?,
        "TCPOPTSTRIP" => {
            let word = |n: usize| info.u32(n / 32 * 4);
            word(255)?;
            let set = |n: &usize| word(*n).is_some_and(|w| w >> (n % 32) & 1 == 1);
            let list: Vec<String> = (0..256).filter(set).map(|n| n.to_string()).collect();
            out.opt(false, "--strip-options", list.join(","));
        }
        "AUDIT" => {
            let kind = ["accept", "drop", "reject"];
            out.opt(false, "--type", kind.get(usize::from(info.u8(0)?))?);
        }
        "CLASSIFY" => {
            let class = info.u32(0)?;
            let text = format!("{:04x}:{:04x}", class >> 16, class & 0xffff);
            out.opt(false, "--set-class", text);
        }
        "TEE" => {
            out.opt(false, "--gateway", info.addr(0)?);
            let oif = info.str(16, 16)?;
            if !oif.is_empty() {
                out.opt(false, "--oif", oif);
            }
        }
        "IDLETIMER" => {
            out.opt(false, "--timeout", info.u32(0)?);
            out.opt(false, "--label", info.str(4, 28)?);
        }
        _ => out = out.more(),
    }
    Some(out.nothing())
}

/// `struct ipt_ECN_info`.
fn ecn(info: &Info<'_>, out: &mut Decoded) -> Option<()> {
    let (ops, ect, tcp) = (info.u8(0)?, info.u8(1)?, info.u8(2)?);
    if ops & 0x30 == 0x30 && tcp & 3 == 0 {
        out.flag(false, "--ecn-tcp-remove");
    } else {
        for (bit, value, option) in [
            (0x10, tcp & 1, "--ecn-tcp-ece"),
            (0x20, tcp >> 1 & 1, "--ecn-tcp-cwr"),
        ] {
            if ops & bit != 0 {
                out.opt(false, option, value);
            }
        }
    }
    if ops & 1 != 0 {
        out.opt(false, "--ecn-ip-ect", ect);
    }
    Some(())
}
