//! The part of nftables that wharf writes, as types: tables, chains, rules, sets and elements.
//!
//! A value here has two faces: nft's own syntax ([`crate::render`]) and netlink messages (the engine).
//! Not for: reading other tools' rules, which come in every form; `wharf-nft` decodes those.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, Mac};
use crate::name::IfName;
use crate::publish::{PortRange, Protocol};

/// The two tables of wharf, both named `wharf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `inet wharf`: routing decisions, translation.
    Inet,
    /// `bridge wharf`: the guard of bridge ports.
    Bridge,
}

impl Table {
    /// Both.
    pub const ALL: [Table; 2] = [Table::Inet, Table::Bridge];
    /// The name of either.
    pub const NAME: &str = "wharf";

    /// nft's word for the family.
    pub fn family(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Every packet that comes in.
    Prerouting,
    /// Packets for the host.
    Input,
    /// Packets passed on.
    Forward,
    /// Packets made by the host.
    Output,
    /// Every packet that goes out.
    Postrouting,
}

impl Hook {
    /// nft's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// What makes a chain a base chain. The policy is always accept: wharf denies by rule, and only what
/// concerns its own bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// A `nat` chain, else `filter`.
    pub nat: bool,
    /// The hook.
    pub hook: Hook,
    /// The priority, as a number (`linux/netfilter_ipv4.h`, `linux/netfilter_bridge.h`).
    pub priority: i32,
}

/// A chain with its rules in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The table.
    pub table: Table,
    /// The name.
    pub name: String,
    /// The hook, for a base chain.
    pub base: Option<Base>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule: all of `matches`, then `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What a packet must be.
    pub matches: Vec<Match>,
    /// What happens to it.
    pub action: Action,
}

/// A thing of a packet that can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Input interface name.
    IifName,
    /// Output interface name.
    OifName,
    /// Input interface index.
    Iif,
    /// Kind of the input interface (`bridge`, `veth`, …).
    IifKind,
    /// Kind of the output interface.
    OifKind,
    /// Group of the input interface.
    IifGroup,
    /// IPv4 or IPv6, in an inet table.
    NfProto,
    /// Transport protocol.
    L4Proto,
    /// The packet mark.
    Mark,
    /// Connection tracking state, a bit set.
    CtState,
    /// Connection tracking status, a bit set.
    CtStatus,
    /// The IPv4 source of a connection's first packet, before any translation.
    CtOriginalIpSaddr,
    /// Its IPv6 source.
    CtOriginalIp6Saddr,
    /// What the routing table says of the destination address.
    FibDaddrType,
    /// What it says of the source address.
    FibSaddrType,
    /// IPv4 source.
    IpSaddr,
    /// IPv4 destination.
    IpDaddr,
    /// IPv6 source.
    Ip6Saddr,
    /// IPv6 destination.
    Ip6Daddr,
    /// Transport source port.
    ThSport,
    /// Transport destination port.
    ThDport,
    /// Ethernet source.
    EtherSaddr,
    /// Ethernet type, in a bridge table.
    EtherType,
    /// ARP hardware type.
    ArpHtype,
    /// ARP protocol type.
    ArpPtype,
    /// ARP sender's hardware address.
    ArpSaddrEther,
    /// ARP sender's IPv4 address.
    ArpSaddrIp,
    /// ICMP type.
    IcmpType,
    /// ICMPv6 type.
    Icmpv6Type,
    /// IGMP type; it does not look at the protocol.
    IgmpType,
    /// The header that follows the IPv6 header.
    Ip6NextHeader,
    /// IPv6 source, in a chain that only sees IPv6: it does not look at the Ethernet type.
    Ip6SaddrBare,
    /// The target of a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4).
    NdTarget,
    /// The link-layer address in the first option of a neighbour advertisement or solicitation (RFC 4861, 4.6.1).
    NdLinkAddr,
    /// Type and length of that option.
    NdOption,
}

/// Connection tracking state bits (`NF_CT_STATE_BIT`, `linux/netfilter/nf_conntrack_common.h`).
pub mod ct_state {
    /// INVALID: of no flow, and beginning none.
    pub const INVALID: u32 = 1;
    /// ESTABLISHED.
    pub const ESTABLISHED: u32 = 2;
    /// RELATED.
    pub const RELATED: u32 = 4;
    /// NEW.
    pub const NEW: u32 = 8;
}

/// `IPS_SRC_NAT` (`linux/netfilter/nf_conntrack_common.h`).
pub const CT_STATUS_SNAT: u32 = 1 << 4;

/// `IPS_DST_NAT` (`linux/netfilter/nf_conntrack_common.h`).
pub const CT_STATUS_DNAT: u32 = 1 << 5;

/// How a key is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It equals the value; a prefix is compared under its mask.
    Is(Value),
    /// It does not.
    Not(Value),
    /// At least one of these bits is set.
    AnyBit(u32),
    /// None of these bits is set.
    NoBit(u32),
    /// Under the mask it equals the value.
    Masked {
        /// The mask.
        mask: u32,
        /// The value.
        value: u32,
    },
    /// The keys, concatenated, are an element of the set.
    In(&'static str),
    /// They are not.
    NotIn(&'static str),
}

/// A test of one key, or of several concatenated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The keys.
    pub keys: Vec<Key>,
    /// The test.
    pub test: Test,
}

/// A constant in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An interface name.
    Name(IfName),
    /// A link kind.
    Kind(&'static str),
    /// An address.
    Addr(IpAddr),
    /// A prefix.
    Net(IpNet),
    /// IPv4 or IPv6.
    Family(Family),
    /// A number of one byte: a protocol, an ICMP type.
    U8(u8),
    /// A number of two bytes: a port, an Ethernet type.
    U16(u16),
    /// A number of four bytes in host order: an interface index, a group.
    U32(u32),
    /// What the routing table says of an address.
    AddrType(AddrType),
}

/// Kinds of addresses (`RTN_*`, `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AddrType {
    /// An address of this host.
    Local = 2,
    /// The broadcast address of a link's subnet, or of every one.
    Broadcast = 3,
    /// Of a group.
    Multicast = 5,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End this base chain.
    Accept,
    /// Drop the packet.
    Drop,
    /// Go back to the calling chain.
    Return,
    /// Call a chain.
    Jump(String),
    /// Go to a chain and not come back here.
    Goto(String),
    /// Look the keys up in a verdict map.
    Vmap(Vec<Key>, &'static str),
    /// Translate the destination to what the map gives for the keys: an address and a port, or an address.
    DnatMap(Family, Vec<Key>, &'static str),
    /// Translate the source to what the map gives for the key.
    SnatMap(Family, Vec<Key>, &'static str),
    /// The same, with a port drawn at random from these. The rule must have tested the transport protocol.
    SnatMapDraw(Family, Vec<Key>, &'static str, PortRange),
    /// Translate the source to the outgoing interface's address.
    Masquerade,
    /// The same, with a port drawn at random from these. The rule must have tested the transport protocol.
    MasqueradeDraw(PortRange),
    /// Refuse with ICMP "administratively prohibited".
    Reject,
    /// Set a bit of the packet mark.
    MarkOr(u32),
}

/// The type of one part of a set's key, or of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Interface name.
    IfName,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Hardware address.
    Ether,
    /// Transport protocol.
    Proto,
    /// Port.
    Port,
    /// Verdict; data only.
    Verdict,
}

impl FieldType {
    /// The address type of a family.
    pub fn addr(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }
}

/// A set, or a map when it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The table.
    pub table: Table,
    /// The name.
    pub name: String,
    /// The parts of the key.
    pub key: Vec<FieldType>,
    /// The parts of the data; empty for a set.
    pub data: Vec<FieldType>,
    /// Elements may be ranges and prefixes.
    pub interval: bool,
    /// The most elements it takes; the kernel uses a plain hash table when it knows.
    pub size: Option<u32>,
}

/// One part of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Interface name.
    Name(IfName),
    /// Address.
    Addr(IpAddr),
    /// Prefix.
    Net(IpNet),
    /// Hardware address.
    Mac(Mac),
    /// Transport protocol.
    Proto(Protocol),
    /// Port or range.
    Ports(PortRange),
}

/// What a verdict map says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Call a chain.
    Jump(String),
    /// Go to a chain.
    Goto(String),
}

/// The data of a map's element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// A verdict.
    Verdict(Verdict),
    /// Values.
    Fields(Vec<Field>),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The table.
    pub table: Table,
    /// The set.
    pub set: String,
    /// The key.
    pub key: Vec<Field>,
    /// The data, for a map.
    pub data: Option<Data>,
}

/// One object of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// The table itself.
    Table(Table),
    /// A set or map.
    Set(Set),
    /// A chain with its rules.
    Chain(Chain),
    /// An element.
    Element(Element),
}

/// One change inside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make the object; a chain comes with its rules. Making a table, set or element that is there is fine.
    Add(Object),
    /// Remove the object; a table goes with all it holds.
    Del(Object),
    /// Give a chain these rules instead of those it has.
    Rules(Chain),
}

impl Change {
    /// The change that takes this one back. `Rules` needs to know what was there before.
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::Add(object) => Some(Self::Del(object.clone())),
            Self::Del(object) => Some(Self::Add(object.clone())),
            Self::Rules(_) => None,
        }
    }
}

/// Shorthand for rules, read as nft reads.
pub mod build {
    use super::*;

    /// A rule.
    pub fn rule(matches: impl IntoIterator<Item = Match>, action: Action) -> Rule {
        Rule {
            matches: matches.into_iter().collect(),
            action,
        }
    }

    /// `KEY VALUE`.
    pub fn is(key: Key, value: Value) -> Match {
        Match {
            keys: vec![key],
            test: Test::Is(value),
        }
    }

    /// `KEY != VALUE`.
    pub fn not(key: Key, value: Value) -> Match {
        Match {
            keys: vec![key],
            test: Test::Not(value),
        }
    }

    /// `KEY . KEY @SET`.
    pub fn within(keys: &[Key], set: &'static str) -> Match {
        Match {
            keys: keys.to_vec(),
            test: Test::In(set),
        }
    }

    /// `ct state established,related`.
    pub fn answers() -> Match {
        Match {
            keys: vec![Key::CtState],
            test: Test::AnyBit(ct_state::ESTABLISHED | ct_state::RELATED),
        }
    }

    /// `ct state invalid`.
    pub fn stray() -> Match {
        Match {
            keys: vec![Key::CtState],
            test: Test::AnyBit(ct_state::INVALID),
        }
    }

    /// `ct status dnat`.
    pub fn translated() -> Match {
        Match {
            keys: vec![Key::CtStatus],
            test: Test::AnyBit(CT_STATUS_DNAT),
        }
    }

    /// `ct state new`.
    pub fn starts() -> Match {
        Match {
            keys: vec![Key::CtState],
            test: Test::AnyBit(ct_state::NEW),
        }
    }

    /// `ct status snat`.
    pub fn hidden() -> Match {
        Match {
            keys: vec![Key::CtStatus],
            test: Test::AnyBit(CT_STATUS_SNAT),
        }
    }

    /// `ip saddr ADDR` or `ip6 saddr ADDR`, by the value's family.
    pub fn saddr(net: IpNet) -> Match {
        let key = if net.addr().is_ipv4() {
            Key::IpSaddr
        } else {
            Key::Ip6Saddr
        };
        is(key, Value::Net(net))
    }

    /// `ip daddr ADDR` or `ip6 daddr ADDR`, by the value's family.
    pub fn daddr(net: IpNet) -> Match {
        let key = if net.addr().is_ipv4() {
            Key::IpDaddr
        } else {
            Key::Ip6Daddr
        };
        is(key, Value::Net(net))
    }
}
