//! Matches that depend on how much passed before, when, and on what processor: they may hold or not.

use wharf_core::trace::ruleset::Expr;

use crate::observe::rules::xtables::info::Info;
use crate::observe::rules::xtables::text::{Decoded, bits, prefix};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "limit" => limit(info),
        "hashlimit" => hashlimit(info),
        "recent" => recent(info),
        "statistic" => statistic(info),
        "connlimit" => connlimit(info),
        "connbytes" => connbytes(info),
        "time" => time(info),
        "quota" => quota(info),
        "cpu" => cpu(info),
        "cluster" => cluster(info),
        _ => None,
    }
}

/// Units of a rate in seconds.
const UNITS: &[(&str, u64)] = &[("day", 86400), ("hour", 3600), ("min", 60), ("sec", 1)];

/// A rate from the time between two packets in 1/`scale` seconds: its text, and the seconds of its unit.
fn rate(period: u64, scale: u64) -> (String, u64) {
    let period = period.max(1);
    let fits = |(_, seconds): &&(&str, u64)| {
        let unit = seconds * scale;
        period <= unit && unit / period >= unit % period
    };
    let (mut name, mut seconds) = UNITS[0];
    for unit in UNITS.iter().skip(1).take_while(fits) {
        (name, seconds) = *unit;
    }
    (format!("{}/{name}", seconds * scale / period), seconds)
}

const BURST: u64 = 5;

/// `struct xt_rateinfo`.
fn limit(info: &Info<'_>) -> Option<Decoded> {
    let (avg, burst) = info.pair32(0)?;
    let mut out = Decoded::of_match("limit");
    out.opt(false, "--limit", rate(avg.into(), 10_000).0);
    if u64::from(burst) != BURST {
        out.opt(false, "--limit-burst", burst);
    }
    Some(out.maybe(true))
}

/// What the revisions of `struct hashlimit_cfg` have in common.
struct HashLimit {
    name: String,
    avg: u64,
    burst: u64,
    scale: u64,
    mode: u32,
    size: u32,
    max: u32,
    gc: u32,
    expire: u32,
    masks: (u8, u8),
}

/// `struct xt_hashlimit_mtinfo1` to `3`.
fn hash_config(info: &Info<'_>) -> Option<HashLimit> {
    let (tail, masks) = match info.rev {
        1 => (28, 44),
        2 => (276, 292),
        3 => (276, 296),
        _ => return None,
    };
    let old = info.rev == 1;
    Some(HashLimit {
        name: info.str(0, if old { 16 } else { 255 })?,
        avg: if old {
            info.u32(20)?.into()
        } else {
            info.u64(256)?
        },
        burst: if old {
            info.u32(24)?.into()
        } else {
            info.u64(264)?
        },
        scale: if old { 10_000 } else { 1_000_000 },
        mode: info.u32(if old { 16 } else { 272 })?,
        size: info.u32(tail)?,
        max: info.u32(tail + 4)?,
        gc: info.u32(tail + 8)?,
        expire: info.u32(tail + 12)?,
        masks: (info.u8(masks)?, info.u8(masks + 1)?),
    })
}

/// A rate of bytes from its cost, and `burst` times as much. The unit is the largest that gives the same cost again.
fn byte_rate(cost: u64, burst: u64) -> (String, String) {
    let most = u64::from(u32::MAX);
    let rate = most.checked_div(cost).unwrap_or(most).saturating_sub(1) << 4;
    let same = |unit: u64| rate >= unit && most / (((rate / unit * unit) >> 4) + 1) == cost;
    let (name, unit) = match () {
        () if same(1 << 20) => ("mb", 1 << 20),
        () if same(1 << 10) => ("kb", 1 << 10),
        () => ("b", 1),
    };
    let burst = rate.saturating_mul(burst) / unit;
    (format!("{}{name}/s", rate / unit), format!("{burst}{name}"))
}

fn hashlimit(info: &Info<'_>) -> Option<Decoded> {
    let hash = hash_config(info)?;
    let mut out = Decoded::of_match("hashlimit");
    let option = match hash.mode & 16 {
        0 => "--hashlimit-upto",
        _ => "--hashlimit-above",
    };
    let mut seconds = 15;
    if hash.mode & 32 == 0 {
        let (text, unit) = rate(hash.avg, hash.scale);
        seconds = unit;
        out.opt(false, option, text);
        out.opt(false, "--hashlimit-burst", hash.burst);
    } else {
        let (rate, burst) = byte_rate(hash.avg, hash.burst);
        out.opt(false, option, rate);
        if hash.burst != 0 {
            seconds = 60;
            out.opt(false, "--hashlimit-burst", burst);
        }
    }
    hash_table(&mut out, &hash, seconds, if info.v6() { 128 } else { 32 });
    Some(out.maybe(hash.mode & 16 == 0))
}

/// The options of the table, as far as they are not the default.
fn hash_table(out: &mut Decoded, hash: &HashLimit, seconds: u64, whole: u8) {
    let fields = [(4, "srcip"), (8, "srcport"), (1, "dstip"), (2, "dstport")];
    let set = fields.iter().filter(|(bit, _)| hash.mode & bit != 0);
    let modes: Vec<&str> = set.map(|(_, name)| *name).collect();
    if !modes.is_empty() {
        out.opt(false, "--hashlimit-mode", modes.join(","));
    }
    out.opt(false, "--hashlimit-name", &hash.name);
    let expire = u64::from(hash.expire);
    for (name, value, default) in [
        ("--hashlimit-htable-size", hash.size.into(), 0),
        ("--hashlimit-htable-max", hash.max.into(), 0),
        ("--hashlimit-htable-gcinterval", hash.gc.into(), 1000),
        ("--hashlimit-htable-expire", expire, seconds * 1000),
        ("--hashlimit-srcmask", hash.masks.0.into(), whole.into()),
        ("--hashlimit-dstmask", hash.masks.1.into(), whole.into()),
    ] {
        if value != default {
            out.opt(false, name, value);
        }
    }
}

/// `struct xt_recent_mtinfo`, and `_v1` with a mask. `--set` alone always holds.
fn recent(info: &Info<'_>) -> Option<Decoded> {
    let ((seconds, hits), ops) = (info.pair32(0)?, info.u8(8)?);
    let (invert, side) = (info.u8(9)? != 0, info.u8(210)?);
    let mut out = Decoded::of_match("recent");
    for (bit, option) in [
        (2, "--set"),
        (1, "--rcheck"),
        (4, "--update"),
        (8, "--remove"),
    ] {
        if ops & bit != 0 {
            out.flag(invert, option);
        }
    }
    for (value, option) in [(seconds, "--seconds"), (hits, "--hitcount")] {
        if value != 0 {
            out.opt(false, option, value);
        }
    }
    for (bit, option) in [(32, "--reap"), (16, "--rttl")] {
        if ops & bit != 0 {
            out.flag(false, option);
        }
    }
    out.opt(false, "--name", info.str(10, 200)?);
    if info.rev >= 1 {
        out.opt(false, "--mask", info.addr(212)?);
    }
    out.flag(false, if side == 0 { "--rsource" } else { "--rdest" });
    if ops & 15 == 2 && !invert {
        out.push(Expr::Nothing);
        return Some(out);
    }
    // Who was not seen before is not in the list, but can be entered.
    Some(out.maybe((ops & 2 != 0) != invert))
}

/// `struct xt_statistic_info`.
fn statistic(info: &Info<'_>) -> Option<Decoded> {
    let (mode, flags) = info.pair16(0)?;
    let invert = flags & 1 != 0;
    let mut out = Decoded::of_match("statistic");
    if mode == 0 {
        out.opt(false, "--mode", "random");
        let share = f64::from(info.u32(4)?) / f64::from(1_u32 << 31);
        out.opt(invert, "--probability", format!("{share:.11}"));
    } else {
        let (every, packet) = info.pair32(4)?;
        out.opt(false, "--mode", "nth");
        out.opt(invert, "--every", every.saturating_add(1));
        out.opt(false, "--packet", packet);
    }
    Some(out.maybe(!invert))
}

/// `struct xt_connlimit_info`; revision 0 has no flags, and a number for the inversion.
fn connlimit(info: &Info<'_>) -> Option<Decoded> {
    let (limit, flags) = (info.u32(16)?, info.u32(20)?);
    let bits = prefix(info.addr(0)?)?;
    let mut out = Decoded::of_match("connlimit");
    let option = match flags & 1 {
        0 => "--connlimit-above",
        _ => "--connlimit-upto",
    };
    out.opt(false, option, limit);
    out.opt(false, "--connlimit-mask", bits);
    if info.rev >= 1 {
        let side = match flags & 2 {
            0 => "--connlimit-saddr",
            _ => "--connlimit-daddr",
        };
        out.flag(false, side);
    }
    Some(out.maybe(flags & 1 != 0))
}

/// `struct xt_connbytes_info`: the range is turned round to invert it.
fn connbytes(info: &Info<'_>) -> Option<Decoded> {
    let (from, to) = (info.u64(0)?, info.u64(8)?);
    let invert = from > to;
    let (first, last) = if invert { (to, from) } else { (from, to) };
    let mut out = Decoded::of_match("connbytes");
    let range = match last {
        u64::MAX => first.to_string(),
        last => format!("{first}:{last}"),
    };
    out.opt(invert, "--connbytes", range);
    let mode = ["packets", "bytes", "avgpkt"];
    let mode = mode.get(usize::from(info.u8(16)?))?;
    out.opt(false, "--connbytes-mode", mode);
    let way = ["original", "reply", "both"];
    let way = way.get(usize::from(info.u8(17)?))?;
    out.opt(false, "--connbytes-dir", way);
    // A connection begins with nothing counted.
    Some(out.maybe((first == 0) != invert))
}

const DAY: u32 = 86400;
const DAYS: &[&str] = &["", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

fn clock(seconds: u32) -> String {
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}", seconds % 60)
}

/// The date of a time since 1970, by counting whole years and months.
fn date(seconds: u32) -> String {
    let leap = |y: u32| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut days = seconds / DAY;
    let mut year = 1970;
    while days >= 365 + u32::from(leap(year)) {
        days -= 365 + u32::from(leap(year));
        year += 1;
    }
    let february = 28 + u32::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let clock = clock(seconds % DAY);
    format!("{year}-{month:02}-{:02}T{clock}", days + 1)
}

/// `struct xt_time_info`.
fn time(info: &Info<'_>) -> Option<Decoded> {
    let ((from, to), (start, stop)) = (info.pair32(0)?, info.pair32(8)?);
    let (month, week, flags) = (info.u32(16)?, info.u8(20)?, info.u8(21)?);
    let mut out = Decoded::of_match("time");
    if start != 0 || stop != DAY - 1 {
        out.opt(false, "--timestart", clock(start));
        out.opt(false, "--timestop", clock(stop));
    }
    if month != 0xffff_fffe {
        let days = (1..32).filter(|day| month >> day & 1 == 1);
        let days: Vec<String> = days.map(|day: u32| day.to_string()).collect();
        out.opt(false, "--monthdays", days.join(","));
    }
    if week != 0xfe {
        out.opt(false, "--weekdays", bits((week & 0xfe).into(), DAYS));
    }
    if from != 0 {
        out.opt(false, "--datestart", date(from));
    }
    if to != u32::MAX {
        out.opt(false, "--datestop", date(to));
    }
    for (bit, option) in [(1, "--kerneltz"), (2, "--contiguous")] {
        if flags & bit != 0 {
            out.flag(false, option);
        }
    }
    Some(out.maybe(true))
}

/// `struct xt_quota_info`.
fn quota(info: &Info<'_>) -> Option<Decoded> {
    let invert = info.u32(0)? & 1 != 0;
    let mut out = Decoded::of_match("quota");
    out.opt(invert, "--quota", info.u64(8)?);
    Some(out.maybe(!invert))
}

/// `struct xt_cpu_info`.
fn cpu(info: &Info<'_>) -> Option<Decoded> {
    let (cpu, invert) = info.pair32(0)?;
    let mut out = Decoded::of_match("cpu");
    out.opt(invert != 0, "--cpu", cpu);
    Some(out.maybe(invert == 0))
}

/// `struct xt_cluster_match_info`.
fn cluster(info: &Info<'_>) -> Option<Decoded> {
    let ((total, mask), (seed, flags)) = (info.pair32(0)?, info.pair32(8)?);
    let mut out = Decoded::of_match("cluster");
    let option = "--cluster-local-nodemask";
    out.opt(flags & 1 != 0, option, format!("{mask:#010x}"));
    out.opt(false, "--cluster-total-nodes", total);
    out.opt(false, "--cluster-hash-seed", format!("{seed:#010x}"));
    Some(out.maybe(flags & 1 == 0))
}

#[cfg(test)]
mod tests {
    use super::{date, rate};

    #[test]
    fn a_time_is_written_as_a_date() {
        assert_eq!(date(0), "1970-01-01T00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(date(i32::MAX as u32), "2038-01-19T03:14:07");
        assert_eq!(date(u32::MAX), "2106-02-07T06:28:15");
    }

    #[test]
    fn a_rate_has_the_unit_that_fits() {
        assert_eq!(rate(10_000, 10_000).0, "1/sec");
        assert_eq!(rate(120_000, 10_000).0, "5/min");
        assert_eq!(rate(0, 10_000).0, "10000/sec");
    }
}
