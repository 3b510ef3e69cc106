//! What IPsec says of packets (`ip xfrm policy`).

use ipnet::IpNet;

/// What a policy of IPsec is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpsecDir {
    /// Packets for this space.
    In,
    /// Packets that leave, also those that are passed on.
    Out,
    /// Packets that are passed on.
    Forward,
}

/// A policy of IPsec (`struct xfrm_userpolicy_info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpsecPolicy {
    /// Which packets are asked about.
    pub dir: IpsecDir,
    /// `src`.
    pub src: IpNet,
    /// `dst`.
    pub dst: IpNet,
    /// `proto`; 0 is any.
    pub protocol: u8,
    /// `sport`, with its mask; of ICMP the type.
    pub sport: (u16, u16),
    /// `dport`, with its mask; of ICMP the code.
    pub dport: (u16, u16),
    /// `dev`; 0 is any.
    pub link: u32,
    /// `mark`, with its mask.
    pub mark: (u32, u32),
    /// `priority`; the least comes first.
    pub priority: u32,
    /// `action block`.
    pub blocks: bool,
    /// It has templates: packets are encrypted, or must have been.
    pub transforms: bool,
}

/// The policies of a space, and what becomes of packets that none of them speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipsec {
    /// The policies.
    pub policies: Vec<IpsecPolicy>,
    /// The directions in which all others are blocked (`ip xfrm policy getdefault`).
    pub closed: Vec<IpsecDir>,
}
