//! One entry of a legacy table: `struct ipt_entry` or `struct ip6t_entry`, its matches and its target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_core::trace::ruleset::{Cmp, Expr, Header, Match, TableFamily};

use crate::observe::rules::xtables::{
    SetNames, c_string, decode_match, interface, interface_text, network, protocol,
};

/// Where things are in an entry; all numbers are bytes.
struct Layout {
    /// Length of an address.
    addr: usize,
    /// Names of interfaces begin here: in, out, mask of in, mask of out.
    names: usize,
    proto: usize,
    flags: usize,
    inverse: usize,
    /// The place of the target, and the length of the entry follow each other.
    offsets: usize,
    /// Length of the head, after which the matches begin.
    head: usize,
    /// The flag of `-g`.
    goto: u8,
}

const V4: Layout = Layout {
    addr: 4,
    names: 16,
    proto: 80,
    flags: 82,
    inverse: 83,
    offsets: 88,
    head: 112,
    goto: 2,
};

const V6: Layout = Layout {
    addr: 16,
    names: 64,
    proto: 128,
    flags: 131,
    inverse: 132,
    offsets: 140,
    head: 168,
    goto: 4,
};

/// `struct xt_entry_match`, `struct xt_entry_target`: length, name, revision, then the blob.
pub struct Blob<'a> {
    /// The name.
    pub name: String,
    /// The revision.
    pub rev: u32,
    /// The bytes.
    pub info: &'a [u8],
}

const NAME_LEN: usize = 29;
const BLOB_HEAD: usize = 32;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(two.try_into().ok()?))
}

/// A match or target at the beginning of `bytes`, and how long it is with its head.
fn blob(bytes: &[u8]) -> Option<(Blob<'_>, usize)> {
    let len = usize::from(u16_at(bytes, 0)?);
    let blob = Blob {
        name: c_string(bytes.get(2..2 + NAME_LEN)?),
        rev: (*bytes.get(BLOB_HEAD - 1)?).into(),
        info: bytes.get(BLOB_HEAD..len)?,
    };
    Some((blob, len))
}

/// An entry.
pub struct Entry<'a> {
    family: TableFamily,
    layout: &'static Layout,
    bytes: &'a [u8],
    /// The matches.
    pub matches: Vec<Blob<'a>>,
    /// The target.
    pub target: Blob<'a>,
}

impl<'a> Entry<'a> {
    /// The entry at the beginning of `bytes`; `None` if it does not fit in there.
    pub fn parse(family: TableFamily, bytes: &'a [u8]) -> Option<Self> {
        let layout = if family == TableFamily::Ip6 { &V6 } else { &V4 };
        let target_at = usize::from(u16_at(bytes, layout.offsets)?);
        let len = usize::from(u16_at(bytes, layout.offsets + 2)?);
        let bytes = bytes.get(..len)?;
        let mut rest = bytes.get(layout.head..target_at)?;
        let mut matches = Vec::new();
        while !rest.is_empty() {
            let (found, len) = blob(rest)?;
            matches.push(found);
            rest = rest.get(len..)?;
        }
        let (target, _) = blob(bytes.get(target_at..)?)?;
        Some(Self {
            family,
            layout,
            bytes,
            matches,
            target,
        })
    }

    /// The length.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// It goes where it jumps to for good.
    pub fn is_goto(&self) -> bool {
        self.byte(self.layout.flags) & self.layout.goto != 0
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// The n-th of source, destination and their masks.
    fn addr(&self, n: usize) -> Option<IpAddr> {
        let len = self.layout.addr;
        let bytes = self.bytes.get(n * len..(n + 1) * len)?;
        Some(if len == 4 {
            Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()
        } else {
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
        })
    }

    fn interface(&self, n: usize) -> Option<(String, bool)> {
        let name = self.layout.names + n * 16;
        let mask = name + 32;
        interface(
            self.bytes.get(name..name + 16)?,
            self.bytes.get(mask..mask + 16)?,
        )
    }

    /// What it asks of the packet: instructions and text, the head's first, then the matches'.
    pub fn conditions(&self, sets: &SetNames) -> (Vec<Expr>, String) {
        let mut out = Conditions::default();
        let inverse = self.byte(self.layout.inverse);
        for (n, option, bit) in [(0, "-s", 8), (1, "-d", 16)] {
            let (Some(addr), Some(mask)) = (self.addr(n), self.addr(n + 2)) else {
                continue;
            };
            let invert = inverse & bit != 0;
            if mask.is_unspecified() && !invert {
                continue;
            }
            let test = if n == 0 { Match::Src } else { Match::Dst };
            out.add(invert, option, &network(addr, mask), test(addr, mask));
        }
        for (n, option, bit) in [(0, "-i", 1), (1, "-o", 2)] {
            if let Some(name) = self.interface(n) {
                let text = interface_text(&name);
                let test = if n == 0 { Match::Iif } else { Match::Oif };
                out.add(inverse & bit != 0, option, &text, test(name.0, name.1));
            }
        }
        let proto = u16_at(self.bytes, self.layout.proto).unwrap_or(0);
        if let Ok(proto @ 1..) = u8::try_from(proto) {
            let test = Match::Proto(proto);
            out.add(inverse & 64 != 0, "-p", &protocol(proto), test);
        }
        self.flags(&mut out, inverse);
        for m in &self.matches {
            let decoded = decode_match(&m.name, m.rev, m.info, self.family, sets);
            out.exprs.extend(decoded.exprs);
            out.words.push(decoded.text);
        }
        (out.exprs, out.words.join(" "))
    }

    /// Fragments (IPv4) and the traffic class (IPv6, which no program sets).
    fn flags(&self, out: &mut Conditions, inverse: u8) {
        let flags = self.byte(self.layout.flags);
        if self.family != TableFamily::Ip6 && flags & 1 != 0 {
            let invert = inverse & 32 != 0;
            out.words
                .push(if invert { "! -f" } else { "-f" }.to_owned());
            out.exprs.extend(fragment(invert));
        }
        if self.family == TableFamily::Ip6 && flags & 2 != 0 {
            let text = format!("tos {:#04x}", self.byte(self.layout.proto + 2));
            let test = Match::Opaque(text);
            let invert = inverse & 4 != 0;
            out.exprs.push(Expr::Match { test, invert });
        }
    }
}

#[derive(Default)]
struct Conditions {
    exprs: Vec<Expr>,
    words: Vec<String>,
}

impl Conditions {
    fn add(&mut self, invert: bool, option: &str, value: &str, test: Match) {
        let not = if invert { "! " } else { "" };
        self.words.push(format!("{not}{option} {value}"));
        self.exprs.push(Expr::Match { test, invert });
    }
}

/// Tests for a fragment that is not the first: its offset is not zero.
fn fragment(invert: bool) -> [Expr; 3] {
    let payload = Expr::Payload {
        dreg: 0,
        header: Header::Network,
        offset: 6,
        len: 2,
    };
    let bitwise = Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: vec![0x1f, 0xff],
        xor: vec![0, 0],
    };
    let cmp = Expr::Cmp {
        sreg: 0,
        op: if invert { Cmp::Eq } else { Cmp::Ne },
        data: vec![0, 0],
    };
    [payload, bitwise, cmp]
}
