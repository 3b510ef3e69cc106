//! Matches of xtables, decoded.

use std::net::IpAddr;

use super::Cmp;

/// A decoded xtables match; [`Expr::Match`](super::Expr::Match) says whether it is inverted.
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
        /// Of the source.
        src: bool,
        /// Of the destination.
        dst: bool,
        /// Inclusive ranges.
        ports: Vec<(u16, u16)>,
    },
    /// `--tcp-flags MASK COMP`.
    TcpFlags(u8, u8),
    /// `--icmp-type`: type, first and last code.
    IcmpType(u8, u8, u8),
    /// `conntrack --ctstate`: bits as [`Ct::State`](super::Ct::State), and with 0x100 `DNAT`, 0x200 `SNAT` status.
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
        /// Of the source.
        src: bool,
        /// The set of types.
        types: u32,
        /// Limited to the incoming interface.
        limit_iif: bool,
        /// Limited to the outgoing interface.
        limit_oif: bool,
    },
    /// `physdev`: incoming and outgoing bridge port by name (with prefix mark), and whether it is, comes from, goes to a port.
    Physdev {
        /// The incoming port, and whether that is only the beginning of its name.
        iif: Option<(String, bool)>,
        /// The outgoing port, likewise.
        oif: Option<(String, bool)>,
        /// Whether it came in by a port.
        is_in: Option<bool>,
        /// Whether it goes out by a port.
        is_out: Option<bool>,
        /// Whether it goes from port to port.
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
    /// `rpfilter`: loose, accept_local, invert is in [`Expr::Match`](super::Expr::Match).
    RpFilter {
        /// Whether any interface will do for the way back.
        loose: bool,
        /// Whether the way back is looked up with the packet's mark.
        mark: bool,
    },
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
