//! One filter of tc: which packets it matches, and what its actions do with them.

use wharf_core::trace::state::TcDrop;

use super::attrs::{Attrs, be_short, be_word, byte, text, word};
use super::tc::{HEADER, bytes, wide};

/// `ETH_P_ALL`, `ETH_P_IP`, `ETH_P_IPV6`.
const ALL: u16 = 3;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What a filter does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It drops these.
    Drops(TcDrop),
    /// It lets through what it matches, before the filters that follow.
    Passes,
    /// It is a table or a mark in passing, and keeps nothing.
    Nothing,
    /// It cannot be told.
    Depends,
}

/// A filter.
pub(super) struct Filter {
    /// `protocol ip pref 10 u32 … action drop`.
    pub(super) text: String,
    pub(super) effect: Effect,
}

/// Which packets are matched.
enum Match {
    Every,
    Words(Vec<(u32, u32, u32)>),
    Unknown,
}

/// What actions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Drop,
    Larger(u32),
    Pass,
    Continue,
    Unknown,
}

/// Reads an `RTM_NEWTFILTER`.
pub(super) fn read(body: &[u8]) -> Option<Filter> {
    if body.len() < HEADER {
        return None;
    }
    let attrs = Attrs::after(body, HEADER);
    let kind = attrs.get(1).map(text)?;
    let info = word(body, 16);
    let (pref, protocol) = (info >> 16, u16::from_be(info as u16));
    let options = attrs.nested(2);
    // TCA_…_ACT, and the word a filter without actions has for its class.
    let (matched, actions) = match kind.as_str() {
        "matchall" => (Match::Every, options.get(2)),
        "u32" => {
            let Some(sel) = options.get(5) else {
                return Some(nothing());
            };
            (u32_keys(sel), options.get(7))
        }
        "flower" => (flower(options), options.get(3)),
        "basic" if options.get(2).is_none() => (Match::Every, options.get(3)),
        "basic" => (Match::Unknown, options.get(3)),
        _ => (Match::Unknown, None),
    };
    let (action, words) = match actions {
        Some(list) => act(Attrs(list)),
        None if kind == "bpf" => return Some(bpf(options, info, word(body, 8))),
        // Without actions it only sorts into classes.
        None => (Action::Continue, String::new()),
    };
    let shown = protocol_name(protocol);
    // Another chain than 0 is only run where some action jumps to it.
    let chain = attrs.get(11).map_or(0, |v| word(v, 0));
    let effect = match effect(&matched, action, protocol) {
        Effect::Drops(_) | Effect::Passes if chain != 0 => Effect::Depends,
        other => other,
    };
    let handle = match word(body, 8) {
        0 => String::new(),
        n => format!(" handle {n:#x}"),
    };
    Some(Filter {
        text: format!("protocol {shown} pref {pref} {kind}{handle}{words}"),
        effect,
    })
}

/// A program that decides by itself (`direct-action`), or only sorts into classes.
fn bpf(options: Attrs<'_>, info: u32, handle: u32) -> Filter {
    /// `TCA_BPF_FLAG_ACT_DIRECT`.
    const DIRECT: u32 = 1;
    if options.get(8).is_none_or(|v| word(v, 0) & DIRECT == 0) {
        return nothing();
    }
    let (pref, protocol) = (info >> 16, u16::from_be(info as u16));
    let ops = options.get(5).unwrap_or_default().chunks_exact(8);
    let ops: Vec<_> = ops
        .map(|op| {
            let code = u16::from_ne_bytes([op[0], op[1]]);
            (code, op[2], op[3], word(op, 4))
        })
        .collect();
    let text = format!(
        "protocol {} pref {pref} bpf handle {handle:#x} direct-action",
        protocol_name(protocol)
    );
    Filter {
        text,
        effect: Effect::Drops(TcDrop::Program {
            ethertype: protocol,
            ops,
        }),
    }
}

fn nothing() -> Filter {
    Filter {
        text: String::new(),
        effect: Effect::Nothing,
    }
}

fn effect(matched: &Match, action: Action, protocol: u16) -> Effect {
    match (action, matched) {
        (Action::Continue, _) => Effect::Nothing,
        (Action::Pass, _) => Effect::Passes,
        (Action::Drop, Match::Every) if protocol == ALL => Effect::Drops(TcDrop::All),
        (Action::Drop, Match::Every) => Effect::Drops(TcDrop::Ethertype(protocol)),
        (Action::Drop, Match::Words(words)) => Effect::Drops(TcDrop::Matching {
            ethertype: protocol,
            words: words.clone(),
        }),
        (Action::Larger(most), Match::Every) if protocol == ALL => {
            Effect::Drops(TcDrop::Larger(most))
        }
        _ => Effect::Depends,
    }
}

fn protocol_name(number: u16) -> String {
    match number {
        ALL => "all".to_owned(),
        IPV4 => "ip".to_owned(),
        IPV6 => "ipv6".to_owned(),
        0x0806 => "arp".to_owned(),
        0x8100 => "802.1Q".to_owned(),
        n => format!("[{n}]"),
    }
}

/// `struct tc_u32_sel`: keys at fixed places; what hangs on another header's length is not followed.
fn u32_keys(sel: &[u8]) -> Match {
    const FIXED: usize = 16;
    const KEY: usize = 16;
    /// `TC_U32_OFFSET | TC_U32_VAROFFSET | TC_U32_EAT`.
    const MOVES: u8 = 2 | 4 | 8;
    let count = usize::from(byte(sel, 2));
    let keys = sel.get(FIXED..).unwrap_or_default();
    if byte(sel, 0) & MOVES != 0 || keys.len() < count * KEY {
        return Match::Unknown;
    }
    let mut words = Vec::new();
    for key in keys.chunks_exact(KEY).take(count) {
        let (mask, value) = (be_word(key, 0), be_word(key, 4));
        let (at, moved) = (word(key, 8).cast_signed(), word(key, 12));
        let Some(at) = u32::try_from(at).ok().filter(|_| moved == 0) else {
            return Match::Unknown;
        };
        if mask != 0 {
            words.push((at, mask, value));
        }
    }
    match words.is_empty() {
        true => Match::Every,
        false => Match::Words(words),
    }
}

/// `TCA_FLOWER_KEY_*`, as words of the packet. Ports are looked for behind an IPv4 header without options.
fn flower(options: Attrs<'_>) -> Match {
    let six = options.get(8).is_some_and(|v| be_short(v, 0) == IPV6);
    let ports = if six { 40 } else { 20 };
    let mut words = Vec::new();
    let port = |kind: u16, mask: u16, high: bool| {
        let value = options.get(kind)?;
        let mask = options.get(mask).map_or(u16::MAX, |v| be_short(v, 0));
        let shift = if high { 16 } else { 0 };
        let at = |n: u16| u32::from(n) << shift;
        Some((ports, at(mask), at(be_short(value, 0))))
    };
    for (kind, value) in options {
        match kind {
            // Class, actions, the type (which is the protocol), masks, and flags of the filter itself.
            1 | 3 | 8 | 11 | 13 | 15 | 17 | 22 | 35..=38 | 86 => {}
            9 if six => words.push((4, 0xff00, u32::from(byte(value, 0)) << 8)),
            9 => words.push((8, 0x00ff_0000, u32::from(byte(value, 0)) << 16)),
            10 | 12 | 14 | 16 => {
                let at = match kind {
                    10 => 12,
                    12 => 16,
                    14 => 8,
                    _ => 24,
                };
                let mask = options.get(kind + 1);
                for n in (0..value.len()).step_by(4) {
                    let mask = mask.map_or(u32::MAX, |m| be_word(m, n));
                    if mask != 0 {
                        words.push((at + n as u32, mask, be_word(value, n)));
                    }
                }
            }
            18 => words.extend(port(18, 35, true)),
            19 => words.extend(port(19, 36, false)),
            20 => words.extend(port(20, 37, true)),
            21 => words.extend(port(21, 38, false)),
            _ => return Match::Unknown,
        }
    }
    match words.is_empty() {
        true => Match::Every,
        false => Match::Words(words),
    }
}

/// The actions in order, until one ends it.
fn act(list: Attrs<'_>) -> (Action, String) {
    let mut words = String::new();
    for (_, one) in list {
        let attrs = Attrs(one);
        let kind = attrs.get(1).map(text).unwrap_or_default();
        let options = attrs.nested(2);
        let (action, shown) = match kind.as_str() {
            "gact" => gact(options),
            "police" => police(options),
            // They change or copy the packet and go on, unless their own verdict says otherwise.
            "skbedit" | "sample" => match options.get(2).map(|v| word(v, 8)) {
                Some(3) => (Action::Continue, format!(" action {kind} pipe")),
                _ => (Action::Unknown, format!(" action {kind}")),
            },
            _ => (Action::Unknown, format!(" action {kind}")),
        };
        words += &shown;
        if action != Action::Continue {
            return (action, words);
        }
    }
    (Action::Continue, words)
}

fn verdict(number: i32) -> Action {
    match number {
        // TC_ACT_SHOT, TC_ACT_OK, TC_ACT_PIPE
        2 => Action::Drop,
        0 => Action::Pass,
        3 => Action::Continue,
        // TC_ACT_UNSPEC goes on with the next filter.
        -1 => Action::Continue,
        _ => Action::Unknown,
    }
}

/// `TCA_GACT_PARMS`, `TCA_GACT_PROB`.
fn gact(options: Attrs<'_>) -> (Action, String) {
    let parms = options.get(2).unwrap_or_default();
    let action = verdict(word(parms, 8).cast_signed());
    let name = match action {
        Action::Drop => "drop",
        Action::Pass => "pass",
        Action::Continue => "continue",
        _ => "other",
    };
    match options.get(3) {
        // Only now and then.
        Some(_) => (Action::Unknown, format!(" action gact {name} random")),
        None => (action, format!(" action {name}")),
    }
}

/// `TCA_POLICE_TBF`: what exceeds the rate meets its fate; a packet larger than the burst always does.
fn police(options: Attrs<'_>) -> (Action, String) {
    let parms = options.get(1).unwrap_or_default();
    let exceed = verdict(word(parms, 4).cast_signed());
    let conform = options.get(5).map(|v| verdict(word(v, 0).cast_signed()));
    let rate = wide(options.get(8)).unwrap_or(u64::from(word(parms, 28)));
    let (burst, mtu) = (bytes(rate, word(parms, 12)), word(parms, 16));
    let text = format!(
        " action police rate {}bit burst {burst}b mtu {mtu}b",
        rate * 8
    );
    let action = match (exceed, conform) {
        (Action::Drop, Some(Action::Drop)) => Action::Drop,
        (Action::Drop, None | Some(Action::Pass | Action::Continue)) => {
            let sizes = [burst, mtu].into_iter().filter(|n| *n != 0);
            sizes.min().map_or(Action::Unknown, Action::Larger)
        }
        _ => Action::Unknown,
    };
    (action, text)
}

#[cfg(test)]
mod tests {
    use super::super::attrs::attr;
    use super::super::tc::Filters;
    use super::*;

    const DROP: i32 = 2;
    const PASS: i32 = 0;

    fn filter(protocol: u16, kind: &str, options: &[u8]) -> Vec<u8> {
        let mut body = vec![0; HEADER];
        let info = 49152 << 16 | u32::from(protocol.to_be());
        body[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        body[16..20].copy_from_slice(&info.to_ne_bytes());
        body.extend(attr(1, format!("{kind}\0").as_bytes()));
        body.extend(attr(2, options));
        body
    }

    fn gact(verdict: i32) -> Vec<u8> {
        let mut parms = vec![0; 20];
        parms[8..12].copy_from_slice(&verdict.to_ne_bytes());
        let action = [attr(1, b"gact\0"), attr(2, &attr(2, &parms))].concat();
        attr(1, &action)
    }

    fn effect_of(body: &[u8]) -> (Effect, String) {
        let filter = read(body).expect("a filter");
        (filter.effect, filter.text)
    }

    #[test]
    fn a_matchall_drops_everything_of_its_protocol() {
        let all = filter(ALL, "matchall", &attr(2, &gact(DROP)));
        let (effect, text) = effect_of(&all);
        assert_eq!(effect, Effect::Drops(TcDrop::All));
        assert_eq!(
            text,
            "protocol all pref 49152 matchall handle 0x1 action drop"
        );
        let ip = filter(IPV4, "matchall", &attr(2, &gact(DROP)));
        assert_eq!(effect_of(&ip).0, Effect::Drops(TcDrop::Ethertype(IPV4)));
        let class_only = filter(IPV4, "matchall", &attr(1, &[1, 0, 0, 0]));
        assert_eq!(effect_of(&class_only).0, Effect::Nothing);
    }

    #[test]
    fn the_keys_of_u32_are_words() {
        // `u32 match ip dst 1.2.3.4 action drop`
        let mut sel = vec![1, 0, 1, 0];
        sel.resize(16, 0);
        sel.extend([255; 4]);
        sel.extend([1, 2, 3, 4]);
        sel.extend(16_i32.to_ne_bytes());
        sel.extend(0_i32.to_ne_bytes());
        let options = |sel: &[u8]| [attr(5, sel), attr(7, &gact(DROP))].concat();
        let body = filter(IPV4, "u32", &options(&sel));
        let words = vec![(16, u32::MAX, 0x0102_0304)];
        let drops = TcDrop::Matching {
            ethertype: IPV4,
            words,
        };
        assert_eq!(effect_of(&body).0, Effect::Drops(drops));
        // Before the network header, and behind a header of variable length.
        for (at, bytes) in [(24, (-14_i32).to_ne_bytes()), (28, (-1_i32).to_ne_bytes())] {
            let mut sel = sel.clone();
            sel[at..at + 4].copy_from_slice(&bytes);
            let body = filter(IPV4, "u32", &options(&sel));
            assert_eq!(effect_of(&body).0, Effect::Depends);
        }
        let table = filter(IPV4, "u32", &attr(4, &[1, 0, 0, 0]));
        assert_eq!(effect_of(&table).0, Effect::Nothing);
    }

    #[test]
    fn the_keys_of_flower_are_words() {
        // `flower ip_proto tcp dst_ip 10.0.0.0/8 dst_port 80 action drop`
        let keys = [
            attr(3, &gact(DROP)),
            attr(8, &IPV4.to_be_bytes()),
            attr(9, &[6]),
            attr(12, &[10, 0, 0, 0]),
            attr(13, &[255, 0, 0, 0]),
            attr(19, &80_u16.to_be_bytes()),
            attr(36, &[255, 255]),
        ];
        let body = filter(IPV4, "flower", &keys.concat());
        let words = vec![
            (8, 0x00ff_0000, 0x0006_0000),
            (16, 0xff00_0000, 0x0a00_0000),
            (20, 0xffff, 80),
        ];
        let ethertype = IPV4;
        let drops = TcDrop::Matching { ethertype, words };
        assert_eq!(effect_of(&body).0, Effect::Drops(drops));
        let mac = [keys.concat(), attr(4, &[2, 0, 0, 0, 0, 1])].concat();
        let body = filter(IPV4, "flower", &mac);
        assert_eq!(effect_of(&body).0, Effect::Depends);
    }

    #[test]
    fn a_policer_keeps_out_what_exceeds_its_burst() {
        // `matchall action police rate 1mbit burst 1000 drop`
        let mut parms = vec![0; 56];
        parms[4..8].copy_from_slice(&DROP.to_ne_bytes());
        parms[12..16].copy_from_slice(&125_000_u32.to_ne_bytes());
        parms[16..20].copy_from_slice(&2047_u32.to_ne_bytes());
        parms[28..32].copy_from_slice(&125_000_u32.to_ne_bytes());
        let action = [attr(1, b"police\0"), attr(2, &attr(1, &parms))].concat();
        let body = filter(ALL, "matchall", &attr(2, &attr(1, &action)));
        let (effect, text) = effect_of(&body);
        assert_eq!(effect, Effect::Drops(TcDrop::Larger(1000)));
        assert!(
            text.ends_with("police rate 1000000bit burst 1000b mtu 2047b"),
            "{text}"
        );
    }

    #[test]
    fn what_passes_first_shields_the_rest() {
        let drop = filter(ALL, "matchall", &attr(2, &gact(DROP)));
        let pass = filter(IPV4, "matchall", &attr(2, &gact(PASS)));
        let program = filter(ALL, "bpf", &attr(8, &1_u32.to_ne_bytes()));
        let classes = filter(ALL, "bpf", &[]);
        let drops = |bodies: &[&Vec<u8>]| {
            let mut filters = Filters::new("eth0", true);
            for body in bodies {
                filters.take(body);
            }
            let all = filters.end();
            all.into_iter().map(|tc| tc.drops).collect::<Vec<_>>()
        };
        assert_eq!(drops(&[&drop]), [Some(TcDrop::All)]);
        assert_eq!(drops(&[&pass, &drop]), [None]);
        let unread = TcDrop::Program {
            ethertype: ALL,
            ops: Vec::new(),
        };
        assert_eq!(drops(&[&program, &drop]), [Some(unread), None]);
        assert_eq!(drops(&[&classes, &drop]), [Some(TcDrop::All)]);
        assert_eq!(drops(&[&pass]), []);
    }
}
