//! What was asked: from where, to where, with what.

use std::net::IpAddr;

use crate::trace::packet::L4;
use crate::trace::state::SpaceId;

/// Where the packet starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A namespace on this host, with an address of its own if one was asked for.
    Space(SpaceId, Option<IpAddr>),
    /// A client beyond the uplink; with no address one is chosen that is routed by the default route.
    Outside(Option<IpAddr>),
}

/// Where it is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address, wherever that is.
    Address(IpAddr),
    /// A namespace; the address that the source would use is chosen. From outside, or to a port it publishes and not
    /// reachable otherwise, the published port is meant.
    Space(SpaceId),
    /// A host beyond the uplink.
    Outside(Option<IpAddr>),
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// From.
    pub source: Source,
    /// To.
    pub target: Target,
    /// With: an echo, a connection, a datagram.
    pub l4: L4,
    /// To which port; 0 for an echo.
    pub port: u16,
}
