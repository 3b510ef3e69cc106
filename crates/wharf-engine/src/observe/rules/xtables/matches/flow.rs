//! Matches on the packet's connection, marks and socket.

use wharf_core::trace::ruleset::Match;

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{self, Decoded, bits, quoted, span};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "conntrack" => conntrack(info),
        "state" => state(info),
        "mark" | "connmark" => mark(info, name),
        "connlabel" => connlabel(info),
        "helper" => helper(info),
        "socket" => socket(info),
        _ => None,
    }
}

/// States in the order of iptables-save: name, bit in `struct xt_conntrack_mtinfo3`, bit in [`Match::CtState`].
const STATES: &[(&str, u32, u32)] = &[
    ("INVALID", 1, 1),
    ("NEW", 8, 8),
    ("RELATED", 4, 4),
    ("ESTABLISHED", 2, 2),
    ("UNTRACKED", 0x100, 64),
    ("SNAT", 64, 0x200),
    ("DNAT", 128, 0x100),
];

/// The states of a mask: their text and their bits.
fn states(mask: u32) -> (String, u32) {
    let set = STATES.iter().filter(|(_, bit, _)| mask & bit != 0);
    let names: Vec<&str> = set.clone().map(|(name, ..)| *name).collect();
    (names.join(","), set.fold(0, |all, (_, _, bit)| all | bit))
}

/// `struct xt_state_info`: the obsolete match itself; newer iptables writes `conntrack` for it.
fn state(info: &Info<'_>) -> Option<Decoded> {
    let mask = info.u32(0)?;
    let untracked = if mask & 64 == 0 { 0 } else { 0x100 };
    let (names, bits) = states(mask & 15 | untracked);
    let mut out = Decoded::of_match("state");
    out.opt(false, "--state", names);
    out.test(Match::CtState(bits), false);
    Some(out)
}

const CT_STATE: u16 = 1;
const CT_PROTO: u16 = 1 << 1;
const CT_STATUS: u16 = 1 << 6;
const CT_EXPIRES: u16 = 1 << 7;
const CT_DIRECTION: u16 = 1 << 12;
const CT_STATE_ALIAS: u16 = 1 << 13;

/// Addresses: bit, option, place, whether of the answer, whether the destination.
const ADDRESSES: &[(u16, &str, usize, bool, bool)] = &[
    (1 << 2, "--ctorigsrc", 0, false, false),
    (1 << 3, "--ctorigdst", 32, false, true),
    (1 << 4, "--ctreplsrc", 64, true, false),
    (1 << 5, "--ctrepldst", 96, true, true),
];

/// Ports: as addresses.
const PORTS: &[(u16, &str, usize, bool, bool)] = &[
    (1 << 8, "--ctorigsrcport", 0, false, false),
    (1 << 9, "--ctorigdstport", 2, false, true),
    (1 << 10, "--ctreplsrcport", 4, true, false),
    (1 << 11, "--ctrepldstport", 6, true, true),
];

/// `struct xt_conntrack_mtinfo1` to `3`: masks grew in 2, port ranges came in 3.
fn conntrack(info: &Info<'_>) -> Option<Decoded> {
    if !(1..=3).contains(&info.rev) {
        return None;
    }
    let (flags, inv) = (info.u16(146)?, info.u16(148)?);
    let not = |flag: u16| inv & flag != 0;
    let (state, status) = match info.rev {
        1 => (info.u8(150)?.into(), info.u8(151)?.into()),
        _ => (info.u16(150)?.into(), info.u16(152)?.into()),
    };
    let alias = flags & CT_STATE_ALIAS != 0;
    let mut out = Decoded::of_match(if alias { "state" } else { "conntrack" });
    if flags & CT_STATE != 0 {
        let (names, bits) = states(state);
        let option = if alias { "--state" } else { "--ctstate" };
        out.opt(not(CT_STATE), option, names);
        out.test(Match::CtState(bits), not(CT_STATE));
    }
    if flags & CT_PROTO != 0 {
        let proto = info.u16(136)?;
        out.opt(not(CT_PROTO), "--ctproto", proto);
        let proto = u8::try_from(proto).ok()?;
        out.test(Match::CtProto(proto), not(CT_PROTO));
    }
    tuples(info, &mut out, flags, inv)?;
    if flags & CT_STATUS != 0 {
        let names = bits(status, &["EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"]);
        let names = if status == 0 {
            "NONE".to_owned()
        } else {
            names
        };
        out.opt(not(CT_STATUS), "--ctstatus", names);
        out.test(Match::CtStatus(status), not(CT_STATUS));
    }
    if flags & CT_EXPIRES != 0 {
        let range = span(info.pair32(128)?, ':');
        let test = Match::Maybe(format!("--ctexpire {range}"));
        out.opt(not(CT_EXPIRES), "--ctexpire", range);
        out.test(test, not(CT_EXPIRES));
    }
    if flags & CT_DIRECTION != 0 {
        let reply = not(CT_DIRECTION);
        out.opt(false, "--ctdir", if reply { "REPLY" } else { "ORIGINAL" });
        out.test(Match::CtDirReply(reply), false);
    }
    Some(out)
}

/// Addresses and ports of the connection.
fn tuples(info: &Info<'_>, out: &mut Decoded, flags: u16, inv: u16) -> Option<()> {
    for (flag, option, at, reply, dst) in ADDRESSES {
        if flags & flag == 0 {
            continue;
        }
        let (addr, mask) = (info.addr(*at)?, info.addr(at + 16)?);
        let invert = inv & flag != 0;
        out.opt(invert, option, format!("{addr}{}", text::mask(mask)));
        out.test(Match::CtAddr(*reply, *dst, addr, mask), invert);
    }
    for (flag, option, at, reply, dst) in PORTS {
        if flags & flag == 0 {
            continue;
        }
        let (first, last) = if info.rev >= 3 {
            (info.u16(138 + at)?, info.u16(154 + at)?)
        } else {
            (info.be16(138 + at)?, info.be16(138 + at)?)
        };
        let invert = inv & flag != 0;
        out.opt(invert, option, span((first, last), ':'));
        out.test(Match::CtPort(*reply, *dst, first, last), invert);
    }
    Some(())
}

/// `struct xt_mark_mtinfo1`, `struct xt_connmark_mtinfo1`.
fn mark(info: &Info<'_>, name: &str) -> Option<Decoded> {
    if info.rev != 1 {
        return None;
    }
    let ((mark, mask), invert) = (info.pair32(0)?, info.u8(8)? != 0);
    let mut out = Decoded::of_match(name);
    out.opt(invert, "--mark", text::mark(mark, mask));
    let test = match name {
        "mark" => Match::Mark(mark, mask),
        _ => Match::Connmark(mark, mask),
    };
    out.test(test, invert);
    Some(out)
}

/// `struct xt_connlabel_mtinfo`.
fn connlabel(info: &Info<'_>) -> Option<Decoded> {
    let (bit, options) = info.pair16(0)?;
    let mut out = Decoded::of_match("connlabel");
    out.opt(options & 1 != 0, "--label", format!("\"{bit}\""));
    if options & 2 != 0 {
        out.flag(false, "--set");
    }
    Some(out.opaque())
}

/// `struct xt_helper_info`.
fn helper(info: &Info<'_>) -> Option<Decoded> {
    let (invert, name) = (info.u32(0)? != 0, info.str(4, 30)?);
    let mut out = Decoded::of_match("helper");
    out.opt(invert, "--helper", quoted(&name));
    Some(out.opaque())
}

/// `struct xt_socket_mtinfo1` to `3`; revision 0 has no options. A transparent socket is not told from others.
fn socket(info: &Info<'_>) -> Option<Decoded> {
    let flags = if info.rev == 0 { 0 } else { info.u8(0)? };
    let mut out = Decoded::of_match("socket");
    let options = ["--transparent", "--nowildcard", "--restore-skmark"];
    for (at, option) in options.into_iter().enumerate() {
        if flags >> at & 1 == 1 {
            out.flag(false, option);
        }
    }
    if flags != 0 {
        return Some(out.opaque());
    }
    out.test(Match::Socket, false);
    Some(out)
}
