//! The instructions of rules. Not for: matches of xtables, which are one instruction ([`Match`]), and for running them,
//! which `trace::eval` does.

use ipnet::IpNet;

use super::{Cmp, Ct, FibResult, Header, Match, Meta, NatArg, RegByte, RuleVerdict};

/// Kinds of translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatKind {
    /// `snat to`.
    Source,
    /// `dnat to`.
    Destination,
    /// `masquerade`.
    Masquerade,
    /// `redirect`.
    Redirect,
    /// A whole prefix is mapped (`NETMAP`); of the source where sources are translated, else of the destination.
    Netmap(IpNet),
    /// A whole prefix is mapped, whose first and last address are in registers (`snat prefix to`, else `dnat prefix to`).
    Prefix {
        /// Whether of the source.
        source: bool,
    },
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Reads metadata into a register.
    Meta {
        /// The register it is loaded into.
        dreg: RegByte,
        /// Which.
        key: Meta,
    },
    /// Sets metadata from a register.
    MetaSet {
        /// The register it is taken from.
        sreg: RegByte,
        /// Which.
        key: Meta,
    },
    /// Reads header bytes into a register; the rule ends where the packet has none there.
    Payload {
        /// The register it is loaded into.
        dreg: RegByte,
        /// Which header.
        header: Header,
        /// Where, in bytes from the beginning of the header.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
    /// Rewrites header bytes, which the walker follows only for addresses, ports and ttl.
    PayloadSet {
        /// The register it is taken from.
        sreg: RegByte,
        /// Which header.
        header: Header,
        /// Where, in bytes from the beginning of the header.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
    /// Reads an extension header or something else that the walked packet has not (a tunnel, IPsec); `exists` tests for it.
    ExtHdr {
        /// The register it is loaded into.
        dreg: RegByte,
        /// Only whether there is one.
        exists: bool,
    },
    /// Loads bytes nobody has read: a TCP option, a socket's cgroup, the time.
    Unread {
        /// The register it is loaded into.
        dreg: RegByte,
        /// How many bytes.
        len: u32,
    },
    /// Loads bytes nobody can foretell: `numgen`, `jhash`.
    Random {
        /// The register it is loaded into.
        dreg: RegByte,
        /// How many bytes.
        len: u32,
    },
    /// Ends the rule unless it holds.
    Cmp {
        /// The register it is taken from.
        sreg: RegByte,
        /// How.
        op: Cmp,
        /// What with.
        data: Vec<u8>,
    },
    /// Ends the rule unless the register is inside (or outside).
    Range {
        /// The register it is taken from.
        sreg: RegByte,
        /// Whether it must be outside.
        outside: bool,
        /// The first value inside.
        from: Vec<u8>,
        /// The last value inside.
        to: Vec<u8>,
    },
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        /// The register it is taken from.
        sreg: RegByte,
        /// The register it is loaded into.
        dreg: RegByte,
        /// The bits that stay.
        mask: Vec<u8>,
        /// The bits that are turned.
        xor: Vec<u8>,
    },
    /// Shifts left (positive) or right by bits.
    Shift {
        /// The register it is taken from.
        sreg: RegByte,
        /// The register it is loaded into.
        dreg: RegByte,
        /// How many bytes.
        len: u32,
        /// By how many, to the left if positive.
        bits: i32,
    },
    /// Changes byte order of words of `size` bytes.
    Byteorder {
        /// The register it is taken from.
        sreg: RegByte,
        /// The register it is loaded into.
        dreg: RegByte,
        /// How many bytes.
        len: u32,
        /// Bytes of a word.
        size: u32,
    },
    /// Looks up a set; with `dreg`, a map. `None` as `dreg` of a verdict map gives a verdict.
    Lookup {
        /// Its name.
        set: String,
        /// The register it is taken from.
        sreg: RegByte,
        /// The register it is loaded into.
        dreg: Option<RegByte>,
        /// Whether it must not be there.
        invert: bool,
        /// Whether it is a verdict map.
        verdict: bool,
    },
    /// Loads bytes.
    Immediate {
        /// The register it is loaded into.
        dreg: RegByte,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Reads conntrack data.
    Ct {
        /// The register it is loaded into.
        dreg: RegByte,
        /// Which datum.
        key: Ct,
        /// The direction asked for, if one: `true` is the answers'.
        reply: Option<bool>,
    },
    /// Sets conntrack data.
    CtSet {
        /// The register it is taken from.
        sreg: RegByte,
        /// Which.
        key: Ct,
    },
    /// Asks the routing table; flags as in `NFTA_FIB_F_*`: 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 presence only.
    Fib {
        /// The register it is loaded into.
        dreg: RegByte,
        /// What of the answer.
        result: FibResult,
        /// What is asked with.
        flags: u32,
    },
    /// Decides.
    Verdict(RuleVerdict),
    /// Refuses: `true` by a TCP reset.
    Reject {
        /// Whether by a TCP reset.
        reset: bool,
    },
    /// Translates.
    Nat {
        /// Which translation.
        kind: NatKind,
        /// The new address, if it is told.
        addr: Option<NatArg>,
        /// The new port, if it is told.
        port: Option<NatArg>,
    },
    /// The connection is not tracked.
    Notrack,
    /// May or may not hold, and does for a packet that comes alone: a limit, a quota. The text names it.
    Maybe(String),
    /// May or may not hold, and does not for a packet that comes alone: `limit rate over`, `ct count over`.
    Unlikely(String),
    /// Does nothing to the packet: counter, log, comment, dynset that adds.
    Nothing,
    /// A decoded xtables match.
    Match {
        /// What is looked at.
        test: Match,
        /// Whether it must not hold.
        invert: bool,
    },
    /// Marks the packet: `mark = (mark & !mask) ^ value`.
    SetMark {
        /// The bits that are set.
        value: u32,
        /// The bits that are replaced.
        mask: u32,
    },
    /// Marks the connection; `restore` copies it to the packet, `save` the packet's to it.
    SetConnmark {
        /// The bits that are set.
        value: u32,
        /// The bits that are replaced.
        mask: u32,
        /// Whether the packet's mark is kept.
        save: bool,
        /// Whether the packet gets it.
        restore: bool,
    },
    /// Hands the packet to a local proxy; without one the rule does not hold, or (`drops`, xtables) the packet is lost.
    Tproxy {
        /// Its port, if it is told.
        port: Option<NatArg>,
        /// Whether the packet is lost without one.
        drops: bool,
    },
    /// Cannot be evaluated; as its tool prints it.
    Opaque(String),
}
