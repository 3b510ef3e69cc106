//! Packet rules of all tools in one form: nftables' register machine, with decoded xtables matches and targets as further
//! instructions. iptables-legacy tables come in the same form.
//!
//! The engine translates what the kernel dumps into this; `trace::eval` runs packets through it. An instruction that
//! cannot be evaluated is [`Expr::Opaque`], with the text to show.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::trace::report::Owner;

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

/// Kinds of translation.
#[allow(
    missing_docs,
    reason = "the line above a variant says what its fields are"
)]
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
    Prefix { source: bool },
}

/// An instruction.
#[allow(
    missing_docs,
    reason = "the line above a variant says what its fields are"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Reads metadata into a register.
    Meta { dreg: RegByte, key: Meta },
    /// Sets metadata from a register.
    MetaSet { sreg: RegByte, key: Meta },
    /// Reads header bytes into a register; the rule ends where the packet has none there.
    Payload {
        dreg: RegByte,
        header: Header,
        offset: u32,
        len: u32,
    },
    /// Rewrites header bytes, which the walker follows only for addresses, ports and ttl.
    PayloadSet {
        sreg: RegByte,
        header: Header,
        offset: u32,
        len: u32,
    },
    /// Reads an extension header or something else that the walked packet has not (a tunnel, IPsec); `exists` tests for it.
    ExtHdr { dreg: RegByte, exists: bool },
    /// Loads bytes nobody has read: a TCP option, a socket's cgroup, the time.
    Unread { dreg: RegByte, len: u32 },
    /// Loads bytes nobody can foretell: `numgen`, `jhash`.
    Random { dreg: RegByte, len: u32 },
    /// Ends the rule unless it holds.
    Cmp {
        sreg: RegByte,
        op: Cmp,
        data: Vec<u8>,
    },
    /// Ends the rule unless the register is inside (or outside).
    Range {
        sreg: RegByte,
        outside: bool,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        sreg: RegByte,
        dreg: RegByte,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Shifts left (positive) or right by bits.
    Shift {
        sreg: RegByte,
        dreg: RegByte,
        len: u32,
        bits: i32,
    },
    /// Changes byte order of words of `size` bytes.
    Byteorder {
        sreg: RegByte,
        dreg: RegByte,
        len: u32,
        size: u32,
    },
    /// Looks up a set; with `dreg`, a map. `None` as `dreg` of a verdict map gives a verdict.
    Lookup {
        set: String,
        sreg: RegByte,
        dreg: Option<RegByte>,
        invert: bool,
        verdict: bool,
    },
    /// Loads bytes.
    Immediate { dreg: RegByte, data: Vec<u8> },
    /// Reads conntrack data.
    Ct {
        dreg: RegByte,
        key: Ct,
        reply: Option<bool>,
    },
    /// Sets conntrack data.
    CtSet { sreg: RegByte, key: Ct },
    /// Asks the routing table; flags as in `NFTA_FIB_F_*`: 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 presence only.
    Fib {
        dreg: RegByte,
        result: FibResult,
        flags: u32,
    },
    /// Decides.
    Verdict(RuleVerdict),
    /// Refuses: `true` by a TCP reset.
    Reject { reset: bool },
    /// Translates.
    Nat {
        kind: NatKind,
        addr: Option<NatArg>,
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
    Match { test: Match, invert: bool },
    /// Marks the packet: `mark = (mark & !mask) ^ value`.
    SetMark { value: u32, mask: u32 },
    /// Marks the connection; `restore` copies it to the packet, `save` the packet's to it.
    SetConnmark {
        value: u32,
        mask: u32,
        save: bool,
        restore: bool,
    },
    /// Hands the packet to a local proxy; without one the rule does not hold, or (`drops`, xtables) the packet is lost.
    Tproxy { port: Option<NatArg>, drops: bool },
    /// Cannot be evaluated; as its tool prints it.
    Opaque(String),
}

/// A decoded xtables match; [`Expr::Match`] says whether it is inverted.
#[allow(
    missing_docs,
    reason = "the line above a variant says what its fields are"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `-s`, `-d`: address and mask.
    Src(IpAddr, IpAddr),
    /// See above.
    Dst(IpAddr, IpAddr),
    /// `-i`: a name, or the beginning of one (`true`).
    Iif(String, bool),
    /// `-o`.
    Oif(String, bool),
    /// `-p`.
    Proto(u8),
    /// `--sport`, inclusive.
    Sport(u16, u16),
    /// `--dport`, inclusive.
    Dport(u16, u16),
    /// `multiport`: source, destination, or either; inclusive ranges.
    Multiport {
        src: bool,
        dst: bool,
        ports: Vec<(u16, u16)>,
    },
    /// `--tcp-flags MASK COMP`.
    TcpFlags(u8, u8),
    /// `--icmp-type`: type, first and last code.
    IcmpType(u8, u8, u8),
    /// `conntrack --ctstate`: bits as [`Ct::State`], and with 0x100 `DNAT`, 0x200 `SNAT` status.
    CtState(u32),
    /// `conntrack --ctstatus`: `IPS_*` bits.
    CtStatus(u32),
    /// `--ctorigsrc`, `--ctorigdst`, `--ctreplsrc`, `--ctrepldst`: (reply, destination, address, mask).
    CtAddr(bool, bool, IpAddr, IpAddr),
    /// `--ctorigdstport` and kin: (reply, destination, first, last).
    CtPort(bool, bool, u16, u16),
    /// `--ctdir REPLY`.
    CtDirReply(bool),
    /// `--ctproto`.
    CtProto(u8),
    /// `mark --mark VALUE/MASK`.
    Mark(u32, u32),
    /// `connmark --mark VALUE/MASK`.
    Connmark(u32, u32),
    /// `addrtype`: (source, set of `1 << RTN_*`, limited to the incoming, the outgoing interface).
    AddrType {
        src: bool,
        types: u32,
        limit_iif: bool,
        limit_oif: bool,
    },
    /// `physdev`: incoming and outgoing bridge port by name (with prefix mark), and whether it is, comes from, goes to a port.
    Physdev {
        iif: Option<(String, bool)>,
        oif: Option<(String, bool)>,
        is_in: Option<bool>,
        is_out: Option<bool>,
        is_bridged: Option<bool>,
    },
    /// `iprange`: source, first, last.
    IpRange(bool, IpAddr, IpAddr),
    /// `pkttype`.
    PktType(u8),
    /// `length`.
    Length(u16, u16),
    /// `ttl`/`hl`: equal, less, greater: as [`Cmp`].
    Ttl(Cmp, u8),
    /// `mac --mac-source`.
    MacSource([u8; 6]),
    /// `owner`: the sender's uid range; root is assumed.
    OwnerUid(u32, u32),
    /// `owner`: the sender's gid range; root is assumed.
    OwnerGid(u32, u32),
    /// `rpfilter`: loose, accept_local, invert is in [`Expr::Match`].
    RpFilter { loose: bool, mark: bool },
    /// `socket`: an open socket takes it.
    Socket,
    /// `set`: membership of an ipset, which is not read.
    Ipset(String),
    /// `meta nfproto`: 2 or 10.
    NfProto(u8),
    /// May hold or not: `limit`, `hashlimit`, `statistic`, `recent`, `time`, `quota`, `connlimit`. It is taken to hold;
    /// inverted, not to.
    Maybe(String),
    /// A match that is not decoded.
    Opaque(String),
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
