//! The text of matches and targets as iptables-save writes it, built beside the instructions.

use std::fmt::Display;
use std::fmt::Write as _;
use std::net::IpAddr;

use wharf_core::trace::ruleset::{Expr, Match};

/// A match or target: what it does, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The instructions.
    pub exprs: Vec<Expr>,
    /// As iptables-save prints it, from `-m` or `-j` on.
    pub text: String,
}

impl Decoded {
    /// A match without options.
    pub fn of_match(name: &str) -> Self {
        Self::new("-m", name)
    }

    /// A target without options.
    pub fn of_target(name: &str) -> Self {
        Self::new("-j", name)
    }

    /// What begins with these words.
    pub fn bare(text: &str) -> Self {
        Self {
            exprs: Vec::new(),
            text: text.to_owned(),
        }
    }

    fn new(letter: &str, name: &str) -> Self {
        Self {
            exprs: Vec::new(),
            text: format!("{letter} {name}"),
        }
    }

    /// Writes an option with its value.
    pub fn opt(&mut self, invert: bool, name: &str, value: impl Display) {
        self.flag(invert, name);
        self.word(value);
    }

    /// Writes an option without a value.
    pub fn flag(&mut self, invert: bool, name: &str) {
        self.text += if invert { " ! " } else { " " };
        self.text += name;
    }

    /// Writes a word.
    pub fn word(&mut self, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, " {value}");
    }

    /// Adds a test.
    pub fn test(&mut self, test: Match, invert: bool) {
        self.exprs.push(Expr::Match { test, invert });
    }

    /// Adds an instruction.
    pub fn push(&mut self, expr: Expr) {
        self.exprs.push(expr);
    }

    /// Ends a match that may hold or not, and holds or not (`alone`) for a packet that comes alone.
    pub fn maybe(mut self, alone: bool) -> Self {
        self.test(Match::Maybe(self.text.clone()), !alone);
        self
    }

    /// Ends a match that cannot be evaluated.
    pub fn opaque(mut self) -> Self {
        self.test(Match::Opaque(self.text.clone()), false);
        self
    }

    /// Ends a target that cannot be evaluated.
    pub fn opaque_target(mut self) -> Self {
        self.push(Expr::Opaque(self.text.clone()));
        self
    }

    /// Ends a target that lets the packet go on as it is.
    pub fn nothing(mut self) -> Self {
        self.push(Expr::Nothing);
        self
    }

    /// Says that there is more to it than the text tells.
    pub fn more(mut self) -> Self {
        self.text += " ...";
        self
    }
}

/// A value, or first and last of a range with `between`.
pub fn span<T: Display + PartialEq>((first, last): (T, T), between: char) -> String {
    if first == last {
        return first.to_string();
    }
    format!("{first}{between}{last}")
}

/// A mark in hexadecimal, with its mask where it has one.
pub fn mark(value: u32, mask: u32) -> String {
    if mask == u32::MAX {
        return format!("{value:#x}");
    }
    format!("{value:#x}/{mask:#x}")
}

/// How many leading bits a mask has; `None` if they are not contiguous.
pub fn prefix(mask: IpAddr) -> Option<u8> {
    ipnet::ip_mask_to_prefix(mask).ok()
}

/// `/24`, or `/255.0.255.0` for a mask that is no prefix; nothing for a whole address.
pub fn mask(mask: IpAddr) -> String {
    match (prefix(mask), mask) {
        (Some(32), IpAddr::V4(_)) | (Some(128), IpAddr::V6(_)) => String::new(),
        (Some(bits), _) => format!("/{bits}"),
        (None, mask) => format!("/{mask}"),
    }
}

/// A string that is quoted if it has anything but letters, digits, `_` and `-`.
pub fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut out = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Those names whose bit is set, with commas; bit 0 has the first name.
pub fn bits(value: u32, names: &[&str]) -> String {
    let names = names.iter().enumerate();
    let set: Vec<&str> = names
        .filter(|(at, _)| value >> at & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    set.join(",")
}

/// An address with its mask, which is always written.
pub fn network(addr: IpAddr, mask: IpAddr) -> String {
    match self::mask(mask) {
        whole if whole.is_empty() => format!("{addr}/{}", if addr.is_ipv4() { 32 } else { 128 }),
        mask => format!("{addr}{mask}"),
    }
}

/// Names as `/etc/protocols` has them.
const PROTOCOLS: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (89, "ospf"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (132, "sctp"),
    (135, "mobility-header"),
    (136, "udplite"),
];

/// The name of a protocol, or its number.
pub fn protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(n, _)| *n == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

const TCP_FLAGS: &[&str] = &["FIN", "SYN", "RST", "PSH", "ACK", "URG"];

/// Names of TCP flags, with commas.
pub fn tcp_flags(flags: u8) -> String {
    if flags == 0 {
        return "NONE".to_owned();
    }
    bits(flags.into(), TCP_FLAGS)
}
