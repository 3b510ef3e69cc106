//! How a network's frames are carried, and the routes that go with it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::Hop;

/// How frames are carried between containers and beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge that wharf makes, with rules and guards.
    #[default]
    Bridge,
    /// Somebody else's bridge, into which wharf plugs cables, as it is: no rules, no addresses, no settings on it.
    Unmanaged,
    /// Sub-interfaces of one of the host's links; the host sees nothing of the traffic.
    Macvlan(MacvlanMode),
}

impl Driver {
    /// Its name, as Netavark and Docker have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Unmanaged => "unmanaged",
            Self::Macvlan(_) => "macvlan",
        }
    }
}

/// How the sub-interfaces of one parent see each other (`IFLA_MACVLAN_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By the switch the parent is connected to.
    Vepa,
    /// There is one only, and it has the parent to itself.
    Passthru,
    /// From listed senders only; the list is somebody else's.
    Source,
}

impl MacvlanMode {
    /// As `ip link` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
            Self::Source => "source",
        }
    }
}

/// A further route of a network's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// The destination.
    pub destination: IpNet,
    /// Where its packets go.
    pub hop: Hop,
    /// The metric, if not the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

impl StaticRoute {
    /// A route by a gateway.
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        Self {
            destination,
            hop: Hop::Via(gateway),
            metric: None,
        }
    }
}
