//! What a live probe saw of one real packet and of its answer, as plain data.
//!
//! Not here: sending and capturing (the engine's `probe::live`), and what follows from it (`verdict`).

use std::net::IpAddr;

use crate::trace::ruleset::TableFamily;
use crate::trace::state::{Place, SpaceId};

/// What a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leg {
    /// The packet asked about.
    Question,
    /// What the far side answered: an echo reply, a SYN-ACK or a reset, a datagram.
    Answer,
    /// An ICMP error about the packet.
    Error,
}

/// The addresses and ports a packet had somewhere; ports are 0 for ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Header {
    /// As the answer to it has them.
    pub fn turned(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// A frame on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The link.
    pub place: Place,
    /// On its way out of that link, else in by it.
    pub out: bool,
    /// It came in for another machine's hardware address.
    pub foreign: bool,
    /// What it is.
    pub leg: Leg,
    /// What it bore.
    pub header: Header,
}

/// What a packet rule did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The packet came to the first hook where its way can be followed.
    Entered,
    /// It went on.
    Passed,
    /// It was dropped, silently or with an answer.
    Stopped,
}

/// A rule or a policy that the packet met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Where.
    pub space: SpaceId,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain with the rule in it.
    pub chain: String,
    /// The base chain from which it was reached.
    pub base: String,
    /// The rule's handle; `None` is the policy.
    pub handle: Option<u64>,
    /// What was done.
    pub act: Act,
    /// Which packet it was.
    pub leg: Leg,
    /// What the packet bore when it came to the chain.
    pub header: Header,
    /// The link it came in by, where that was told.
    pub iif: Option<u32>,
    /// The link it was to leave by.
    pub oif: Option<u32>,
}

/// A drop that the kernel gave a reason for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The link on which the packet was last seen before.
    pub place: Option<Place>,
    /// Which packet it was.
    pub leg: Leg,
    /// The kernel's word (`enum skb_drop_reason`), such as `IP_RPFILTER`.
    pub reason: String,
    /// The kernel function that dropped it, where its name could be read.
    pub function: Option<String>,
}

/// A tracked connection that the packet opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Where.
    pub space: SpaceId,
    /// As the packet came.
    pub original: Header,
    /// As answers were to come; translation shows here.
    pub reply: Header,
    /// One did.
    pub answered: bool,
}

/// A neighbour that was asked for while the packet was on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The link by which the question left.
    pub place: Place,
    /// The address asked for.
    pub addr: IpAddr,
    /// Somebody answered.
    pub answered: bool,
}

/// What the sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The far side answered.
    Answered,
    /// Somebody refused.
    Refused {
        /// Who, where that was told.
        by: Option<IpAddr>,
        /// How: `a TCP reset`, `ICMP host unreachable`.
        how: String,
    },
    /// The sender's own namespace would not send it; the system's words.
    NotSent(String),
    /// Nothing came back.
    Silent,
}

/// Everything a live probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was sent, in words: `one TCP SYN from 172.18.0.10 to 172.18.0.20 port 80`.
    pub sent: String,
    /// How long an answer was waited for, in milliseconds.
    pub waited: u64,
    /// What the sender was told.
    pub outcome: Outcome,
    /// Where the packet and its answer were seen, in order of time.
    pub frames: Vec<Frame>,
    /// The rules they met; in order within each space.
    pub rules: Vec<Judged>,
    /// Drops with a reason of the kernel's.
    pub drops: Vec<Dropped>,
    /// The connections that it opened.
    pub tracked: Vec<Tracked>,
    /// Neighbours asked for.
    pub asked: Vec<Asked>,
    /// Spaces in which frames were watched.
    pub watched: Vec<SpaceId>,
    /// Spaces in which packet rules could be followed.
    pub followed: Vec<SpaceId>,
    /// What could not be done, and why.
    pub unable: Vec<String>,
}
