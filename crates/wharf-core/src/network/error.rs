//! Why a network cannot be as asked for.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::error::ErrorKind;
use crate::name::{IfName, NetworkName};
use crate::options::OptionError;

/// Why a network cannot be as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The name is in use.
    #[error("network `{0}` exists already")]
    Exists(NetworkName),
    /// The bridge belongs to another network of wharf.
    #[error("bridge `{bridge}` belongs to network `{network}`")]
    BridgeOfNetwork {
        /// The bridge.
        bridge: IfName,
        /// Its network.
        network: NetworkName,
    },
    /// An interface of that name was not made by wharf.
    #[error("an interface `{0}` exists already and was not made by wharf")]
    BridgeTaken(IfName),
    /// Somebody else's bridge has another address than the gateway's.
    #[error("bridge `{bridge}`, which was not made by wharf, has the address {has}")]
    BridgeAddress {
        /// The bridge.
        bridge: IfName,
        /// The address.
        has: IpNet,
    },
    /// A link of the host that a network is to use is not there.
    #[error("there is no interface `{0}` on this host")]
    LinkMissing(IfName),
    /// No link of the host is named, and none carries a default route.
    #[error("no interface of the host is named for it")]
    NoLink,
    /// A bridge named twice, differently.
    #[error("two names for the bridge: `{0}` and `{1}`")]
    BridgeTwice(IfName, IfName),
    /// A subnet with bits set behind the prefix.
    #[error("`{given}` has bits set behind its prefix: did you mean {meant}?")]
    HostBits {
        /// As given.
        given: IpNet,
        /// Without the bits.
        meant: IpNet,
    },
    /// Too small, too large, or of a kind that containers cannot have.
    #[error("`{0}` cannot be a container subnet: {1}")]
    Unfit(IpNet, &'static str),
    /// Two subnets of one family.
    #[error("a network has one {0} subnet at most")]
    TwoSubnets(Family),
    /// Overlap with another network of wharf.
    #[error("subnet {subnet} overlaps {other} of network `{network}`")]
    OverlapsNetwork {
        /// Asked for.
        subnet: IpNet,
        /// In the way.
        other: IpNet,
        /// Its network.
        network: NetworkName,
    },
    /// Overlap with an address of the host.
    #[error("subnet {subnet} overlaps {other}, which is on the host's own link `{dev}`")]
    OverlapsLink {
        /// Asked for.
        subnet: IpNet,
        /// In the way.
        other: IpNet,
        /// Where it is.
        dev: IfName,
    },
    /// No automatic subnet is free.
    #[error("no automatic {0} subnet is free of the host's routes; give one with --subnet")]
    NoPool(Family),
    /// A gateway or range outside every subnet.
    #[error("{what} {text} is not inside a subnet of the network")]
    Outside {
        /// "gateway" or "address range".
        what: &'static str,
        /// As given.
        text: String,
    },
    /// A second gateway or range for one subnet.
    #[error("two {what}s for subnet {subnet}")]
    Twice {
        /// "gateway" or "address range".
        what: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A gateway that is the network or broadcast address.
    #[error("{0} cannot be a gateway: it is the first or last address of {1}")]
    GatewayUnfit(IpAddr, IpNet),
    /// MTU out of range.
    #[error("MTU {mtu} is out of range: {min} to {max} here")]
    Mtu {
        /// Asked for.
        mtu: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// An option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// An option that does something to a family only which the network does not have.
    #[error("network option `{key}` is for {family}, which the network does not have")]
    OptionWithoutFamily {
        /// The option.
        key: String,
        /// The family.
        family: Family,
    },
    /// Two settings that exclude each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

impl NetworkError {
    /// The coarse kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists(_)
            | Self::BridgeOfNetwork { .. }
            | Self::BridgeTaken(_)
            | Self::BridgeAddress { .. }
            | Self::OverlapsNetwork { .. }
            | Self::OverlapsLink { .. } => ErrorKind::Conflict,
            Self::NoPool(_) => ErrorKind::Conflict,
            Self::Option(OptionError::Unsupported { .. }) => ErrorKind::Unsupported,
            _ => ErrorKind::Config,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(name) => Some(format!("`wharf network inspect {name}` shows it")),
            Self::BridgeTaken(name) => Some(format!(
                "choose another name with --bridge, or remove it with `ip link del {name}` if nobody needs it"
            )),
            Self::Option(error) => error.hint(),
            Self::OptionWithoutFamily { family, .. } => Some(format!(
                "leave it out, or give the network an {family} subnet"
            )),
            Self::OverlapsNetwork { .. } | Self::OverlapsLink { .. } => Some(
                "choose another subnet, or leave --subnet out and wharf picks a free one"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
