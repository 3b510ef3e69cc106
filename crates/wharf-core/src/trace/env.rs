//! Between the walker and the rule evaluator: what a hook is given, and what it says.

use std::net::IpAddr;

use crate::trace::packet::{L4, Packet};
use crate::trace::report::Owner;
use crate::trace::ruleset::{Backend, Hook, TableFamily};
use crate::trace::state::{Link, Space, Tuple};

/// Which tables are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer<'a> {
    /// `ip`, `ip6`, `inet`, and iptables-legacy.
    Ip,
    /// `bridge`.
    Bridge,
    /// `arp`.
    Arp,
    /// `netdev` and `inet` ingress/egress, of one device.
    Device(&'a str),
}

/// What conntrack knows of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtState {
    /// Bits: invalid 1, established 2, related 4, new 8, untracked 64.
    pub state: u32,
    /// `IPS_*` bits; dnat is 0x20, snat 0x10.
    pub status: u32,
    /// The packet goes in the direction of answers.
    pub reply_direction: bool,
    /// As the first packet came.
    pub original: Tuple,
    /// As answers come; changed by translation.
    pub reply: Tuple,
    /// `ct mark`.
    pub mark: u32,
    /// The zone in which packets that go on in the first one's direction are looked up.
    pub zone: u16,
    /// The zone in which answers are looked up.
    pub reply_zone: u16,
}

impl Tuple {
    /// A packet's. An echo's identifier stands for both ports, so that the answer's tuple is the inverse here too.
    pub(super) fn of(packet: &Packet) -> Self {
        let dport = match packet.l4 {
            L4::Icmp => packet.sport,
            _ => packet.dport,
        };
        Self {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol(),
            sport: packet.sport,
            dport,
        }
    }

    fn inverse(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// Invalid, new.
const INVALID: u32 = 1;
const NEW: u32 = 8;

impl CtState {
    /// A connection that begins with this packet; an answer without one is invalid, except for UDP.
    #[must_use]
    pub fn begun(packet: &Packet) -> Self {
        let original = Tuple::of(packet);
        let state = if packet.reply && packet.l4 != L4::Udp {
            INVALID
        } else {
            NEW
        };
        Self {
            state,
            // Its first packet confirms it (`IPS_CONFIRMED`) only when it goes on.
            status: 0,
            reply_direction: false,
            reply: original.inverse(),
            original,
            mark: 0,
            zone: 0,
            reply_zone: 0,
        }
    }
}

/// Questions to the routing of the space that rules may ask.
pub trait Fib {
    /// The type of an address (`RTN_*`: 1 unicast, 2 local, 3 broadcast, 5 multicast, …), seen from one link if given.
    fn addr_type(&self, addr: IpAddr, link: Option<u32>) -> u8;
    /// The index of the link by which an address is reached, and whether there is a route.
    fn oif(&self, to: IpAddr, from: Option<IpAddr>, mark: u32, via: Option<u32>) -> Option<u32>;
    /// Whether an open socket would take the packet.
    fn has_socket(&self, packet: &Packet) -> bool;
}

/// Where a packet is when rules see it.
pub struct Env<'a> {
    /// The space.
    pub space: &'a Space,
    /// The hook.
    pub hook: Hook,
    /// Which tables.
    pub layer: Layer<'a>,
    /// The incoming link: for [`Layer::Bridge`] the port.
    pub iif: Option<&'a Link>,
    /// The outgoing link: for [`Layer::Bridge`] the port.
    pub oif: Option<&'a Link>,
    /// The bridge port it came in by, where IP rules see bridged packets or a bridge is `iif`.
    pub port_in: Option<&'a Link>,
    /// The bridge port it will leave by.
    pub port_out: Option<&'a Link>,
    /// Whether the packet is of this space's own making.
    pub local: bool,
    /// Routing.
    pub fib: &'a dyn Fib,
}

/// Which rule, or policy, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// Who keeps it.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain with the rule in it.
    pub chain: String,
    /// The base chain from which it was reached.
    pub base: String,
    /// The rule's handle; `None` is the base chain's policy.
    pub handle: Option<u64>,
    /// The rule's text and comment.
    pub text: String,
    /// The comment by itself.
    pub comment: Option<String>,
    /// Whose it is.
    pub owner: Owner,
}

/// How a hook ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The packet goes on.
    Accept,
    /// It is dropped.
    Drop,
    /// It is refused with an answer.
    Reject,
    /// A rule that cannot be evaluated decides.
    Unknown,
}

/// A translation that a rule made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// Of the source, else of the destination.
    pub source: bool,
    /// The new address.
    pub addr: IpAddr,
    /// The new port, if it is changed.
    pub port: Option<u16>,
    /// By masquerade, redirect, snat, dnat.
    pub how: &'static str,
    /// The rule.
    pub rule: Blame,
}

/// What the chains of one hook did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// Who decided; `None` where every chain's policy accepted.
    pub blame: Option<Blame>,
    /// The packet afterwards: mark, addresses, ports.
    pub packet: Packet,
    /// What was translated here.
    pub translations: Vec<Translation>,
    /// Rules that accepted, marked or jumped in passing, in order, for showing.
    pub seen: Vec<Blame>,
    /// Rules that may hold or not (limits, unread sets, opaque matches) and whose other outcome would change the ending.
    pub maybe: Vec<Blame>,
}
