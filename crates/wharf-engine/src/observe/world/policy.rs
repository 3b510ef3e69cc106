//! Policy rules (`ip rule`).

use wharf_core::trace::state::{PolicyRule, RuleAction};

use super::attrs::{Attrs, byte, short, text, word};
use super::routes::{family, prefix};

/// `RTM_GETRULE`.
pub(super) const GET: u16 = 34;
/// `sizeof(struct fib_rule_hdr)`.
pub(super) const HEADER: usize = 12;

/// Reads an `RTM_NEWRULE`.
pub(super) fn read(body: &[u8]) -> Option<PolicyRule> {
    const INVERT: u32 = 2;
    const NONE: u32 = u32::MAX;
    if body.len() < HEADER {
        return None;
    }
    let family = family(body[0])?;
    let attrs = Attrs::after(body, HEADER);
    let number = |kind| attrs.get(kind).map(|v| word(v, 0));
    let range = |kind| attrs.get(kind).map(|v| (short(v, 0), short(v, 2)));
    let side = |kind, length: u8| match attrs.get(kind) {
        None if length == 0 => None,
        addr => prefix(family, addr, length),
    };
    let mask = number(16);
    let mark = number(10).unwrap_or(0);
    Some(PolicyRule {
        family,
        priority: number(6).unwrap_or(0),
        invert: word(body, 8) & INVERT != 0,
        src: side(2, body[2]),
        dst: side(1, body[1]),
        iif: attrs.get(3).map(text),
        oif: attrs.get(17).map(text),
        mark: match mask {
            Some(0) | None if mark == 0 => None,
            mask => Some((mark, mask.unwrap_or(u32::MAX))),
        },
        tos: attrs.get(25).map_or(body[3], |v| byte(v, 0) << 2),
        tunnel: attrs.get(12).is_some_and(|v| v.iter().any(|b| *b != 0)),
        ip_proto: attrs.get(22).map(|v| byte(v, 0)),
        sport: range(23),
        dport: range(24),
        uids: attrs.get(20).map(|v| (word(v, 0), word(v, 4))),
        l3mdev: attrs.get(19).is_some_and(|v| byte(v, 0) != 0),
        suppress: number(14).filter(|n| *n != NONE),
        suppress_group: number(13).filter(|n| *n != NONE),
        action: match body[7] {
            1 => RuleAction::Table(number(15).unwrap_or(u32::from(body[4]))),
            2 => RuleAction::Goto(number(4).unwrap_or(0)),
            3 => RuleAction::Nop,
            6 => RuleAction::Blackhole,
            7 => RuleAction::Unreachable,
            8 => RuleAction::Prohibit,
            n => RuleAction::Other(n),
        },
        protocol: attrs.get(21).map_or(0, |v| byte(v, 0)),
    })
}
