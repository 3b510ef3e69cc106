//! Packet rules of all tools in one form: nftables' register machine, with decoded xtables matches and targets as further
//! instructions. iptables-legacy tables come in the same form.
//!
//! The engine translates what the kernel dumps into this; `trace::eval` runs packets through it. An instruction that
//! cannot be evaluated is [`Expr::Opaque`], with the text to show.

mod instruction;
mod xtables;

use std::net::IpAddr;

use crate::trace::report::Owner;

pub use instruction::{Expr, NatKind};
pub use xtables::Match;

pub use crate::trace::rule_text::{RuleText, Texts};

/// The rules of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// All chains, base chains and others.
    pub chains: Vec<Chain>,
    /// All sets and maps.
    pub sets: Vec<Set>,
    /// Tables that are dormant hold chains that are not run; those are left out. Their names, for the doctor.
    pub dormant: Vec<String>,
}

/// Who keeps the rules in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// nf_tables.
    Nft,
    /// ip_tables, ip6_tables (iptables-legacy).
    Legacy,
}

/// Family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// ARP.
    Arp,
    /// Bridge.
    Bridge,
    /// Per device.
    Netdev,
}

/// Where base chains are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Per device, before all others.
    Ingress,
    /// Per device, after all others.
    Egress,
    /// Before routing.
    Prerouting,
    /// To this space.
    Input,
    /// Through this space.
    Forward,
    /// From this space.
    Output,
    /// After routing.
    Postrouting,
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Any packet.
    Filter,
    /// First packets of connections only.
    Nat,
    /// May reroute.
    Route,
}

/// A base chain's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// The priority; the least runs first.
    pub priority: i32,
    /// What it is for.
    pub kind: ChainKind,
    /// Drops what no rule decided.
    pub drops: bool,
    /// The devices of a netdev or ingress chain.
    pub devices: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Who keeps it.
    pub backend: Backend,
    /// Its table's family.
    pub family: TableFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its place, if it has one.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
    /// Whose it is.
    pub owner: Owner,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The handle; for iptables-legacy the number in its chain, from 1.
    pub handle: u64,
    /// The instructions.
    pub exprs: Vec<Expr>,
    /// The comment, if there is one.
    pub comment: Option<String>,
    /// As its own tool prints it, as far as that can be told: `tcp dport 80 drop`, `-p tcp --dport 80 -j DROP`.
    pub text: RuleText,
}

/// A register's place in bytes: 16 bytes of verdict (never read), then 16 registers of 4 bytes. `NFT_REG_1` is bytes
/// 0 to 15 here, `NFT_REG32_00` is byte 0.
pub type RegByte = u8;

/// Comparisons (`NFT_CMP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// What `meta` reads or sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// `length`: bytes from the network header on.
    Length,
    /// `protocol`: the Ethernet protocol.
    Protocol,
    /// `nfproto`: 2 or 10.
    NfProto,
    /// `l4proto`.
    L4Proto,
    /// `mark`.
    Mark,
    /// `iif`.
    Iif,
    /// `oif`.
    Oif,
    /// `iifname`, 16 bytes.
    IifName,
    /// `oifname`, 16 bytes.
    OifName,
    /// `iiftype`: `ARPHRD_*`.
    IifType,
    /// `oiftype`.
    OifType,
    /// `iifkind`: the rtnl kind's name, 16 bytes.
    IifKind,
    /// `oifkind`.
    OifKind,
    /// `iifgroup`.
    IifGroup,
    /// `oifgroup`.
    OifGroup,
    /// `pkttype`: 0 unicast to us, 1 broadcast, 2 multicast, 3 other host.
    PktType,
    /// `ibrname` of the bridge family.
    BridgeIifName,
    /// `obrname` of the bridge family.
    BridgeOifName,
    /// `skuid`; the packet's sender, where it is a local program (root is assumed).
    SkUid,
    /// `skgid`.
    SkGid,
    /// `nftrace`, `priority`, `rtclassid` and others that decide nothing by themselves.
    Other(u32),
}

/// Which header `payload` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Ethernet.
    Link,
    /// IP.
    Network,
    /// TCP, UDP, ICMP.
    Transport,
    /// An inner one, which the walker does not have.
    Inner,
}

/// What `ct` reads or sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ct {
    /// `state`: bits invalid 1, established 2, related 4, new 8, untracked 64.
    State,
    /// `direction`: 0 original, 1 reply.
    Direction,
    /// `status`: `IPS_*`.
    Status,
    /// `mark`.
    Mark,
    /// `l3proto`.
    L3Proto,
    /// `protocol`.
    Protocol,
    /// `saddr` of a direction.
    Src,
    /// `daddr` of a direction.
    Dst,
    /// `proto-src` of a direction.
    ProtoSrc,
    /// `proto-dst` of a direction.
    ProtoDst,
    /// `zone`.
    Zone,
    /// `zone`, set for one direction alone: that of answers, or the other.
    ZoneOf {
        /// Of answers.
        reply: bool,
    },
    /// Others.
    Other(u32),
}

/// What `fib` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FibResult {
    /// The outgoing interface's index.
    Oif,
    /// Its name.
    OifName,
    /// The type of the address (`RTN_*`).
    AddrType,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleVerdict {
    /// Passes this base chain.
    Accept,
    /// Ends.
    Drop,
    /// Goes on with the next rule.
    Continue,
    /// Back to the calling chain; in a base chain: the policy.
    Return,
    /// To a chain, and back.
    Jump(String),
    /// To a chain, and back to the caller's caller.
    Goto(String),
    /// To a program; `true` if it passes when there is none (`bypass`).
    Queue(bool),
    /// Taken away.
    Stolen,
}

/// A value that an element or an `immediate` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes as in the register.
    Bytes(Vec<u8>),
    /// A verdict.
    Verdict(RuleVerdict),
}

/// Where a translation takes addresses and ports from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatArg {
    /// A register.
    Reg(RegByte),
    /// An address that is in the rule (xtables).
    Addr(IpAddr),
    /// A port that is in the rule (xtables).
    Port(u16),
    /// Registers with the first and the last of a range.
    Regs(RegByte, RegByte),
    /// The first and the last address of a range that is in the rule (xtables).
    Addrs(IpAddr, IpAddr),
    /// The first and the last port of a range that is in the rule (xtables).
    Ports(u16, u16),
    /// Port `base` becomes `first`, the next the next, and after `last` again `first` (xtables).
    PortShift {
        /// The first new port.
        first: u16,
        /// The last new port.
        last: u16,
        /// The old port that becomes the first.
        base: u16,
    },
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its table's family.
    pub family: TableFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Bytes of each field of a concatenation; one for a plain key. Fields start at multiples of 4.
    pub fields: Vec<u32>,
    /// The elements.
    pub elements: Vec<Element>,
    /// What a map gives where nothing else matches (the catch-all element).
    pub default: Option<Option<Value>>,
    /// Elements could not be read whole.
    pub partial: bool,
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key, or the first of a range, fields padded to 4 bytes in concatenations.
    pub from: Vec<u8>,
    /// The last of a range, inclusive.
    pub to: Option<Vec<u8>>,
    /// A map's value.
    pub value: Option<Value>,
}
