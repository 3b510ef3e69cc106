//! Matches on any bytes of the packet: none is evaluated, all are shown.

use crate::observe::rules::xtables::info::{self, Info};
use crate::observe::rules::xtables::text::{Decoded, span};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "string" => string(info),
        "u32" => u32(info),
        "bpf" => bpf(info),
        _ => None,
    }
}

/// `struct xt_string_info`; revision 0 has the inversion where 1 has flags.
fn string(info: &Info<'_>) -> Option<Decoded> {
    let (from, to) = info.pair16(0)?;
    let len = usize::from(info.u8(148)?).min(128);
    let (pattern, flags) = (info.slice(20, len)?, info.u8(149)?);
    let mut out = Decoded::of_match("string");
    let printable = pattern.iter().all(|b| matches!(b, b' '..=b'~'));
    if printable && pattern.last() != Some(&b'\\') {
        let text = info::text(pattern);
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        out.opt(flags & 1 != 0, "--string", format!("\"{text}\""));
    } else {
        let hex: String = pattern.iter().map(|b| format!("{b:02x}")).collect();
        out.opt(flags & 1 != 0, "--hex-string", format!("\"|{hex}|\""));
    }
    out.opt(false, "--algo", info.str(4, 16)?);
    if from != 0 {
        out.opt(false, "--from", from);
    }
    if to != 0 && to != u16::MAX {
        out.opt(false, "--to", to);
    }
    if info.rev >= 1 && flags & 2 != 0 {
        out.flag(false, "--icase");
    }
    Some(out.opaque())
}

/// One `struct xt_u32_test`, 180 bytes from `at`.
fn u32_test(info: &Info<'_>, at: usize) -> Option<String> {
    let (places, values) = (info.u8(at + 176)?, info.u8(at + 177)?);
    let mut out = String::new();
    for n in 0..usize::from(places).min(11) {
        if n > 0 {
            out += match info.u8(at + n * 8 + 4)? {
                0 => "&",
                1 => "<<",
                2 => ">>",
                3 => "@",
                _ => return None,
            };
        }
        out += &format!("{:#x}", info.u32(at + n * 8)?);
    }
    let hex = |v| format!("{v:#x}");
    let mut ranges = Vec::new();
    for n in 0..usize::from(values).min(11) {
        let (min, max) = info.pair32(at + 88 + n * 8)?;
        ranges.push(span((hex(min), hex(max)), ':'));
    }
    Some(format!("{out}={}", ranges.join(",")))
}

/// `struct xt_u32`.
fn u32(info: &Info<'_>) -> Option<Decoded> {
    let (count, invert) = (info.u8(1980)?, info.u8(1981)? != 0);
    let count = usize::from(count).min(11);
    let tests: Option<Vec<String>> = (0..count).map(|n| u32_test(info, n * 180)).collect();
    let mut out = Decoded::of_match("u32");
    out.opt(invert, "--u32", format!("\"{}\"", tests?.join("&&")));
    Some(out.opaque())
}

/// `struct xt_bpf_info`, and `_v1`, which may name a pinned program.
fn bpf(info: &Info<'_>) -> Option<Decoded> {
    let mut out = Decoded::of_match("bpf");
    let (count, start) = match (info.rev, info.u16(0)?) {
        (0, count) => (count, 4),
        (1, 0) => (info.u16(2)?, 8),
        (1, _) => {
            out.opt(false, "--object-pinned", info.str(8, 512)?);
            return Some(out.opaque());
        }
        _ => return None,
    };
    let count = count.min(64);
    let mut program = count.to_string();
    for at in (0..usize::from(count)).map(|n| start + n * 8) {
        let (code, k) = (info.u16(at)?, info.u32(at + 4)?);
        let (jt, jf) = (info.u8(at + 2)?, info.u8(at + 3)?);
        program += &format!(",{code} {jt} {jf} {k}");
    }
    out.opt(false, "--bytecode", format!("\"{program}\""));
    Some(out.opaque())
}
