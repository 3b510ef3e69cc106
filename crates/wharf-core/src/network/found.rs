//! A bridge that was there before its network: somebody made it and nobody is on it.
//!
//! wharf treats it as its own while the network is, and leaves it as it found it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NetworkError, NetworkSpec};
use crate::addr::{Family, Mac};
use crate::model::{Netns, Resource};

/// What a network's bridge was when wharf found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundBridge {
    /// Its hardware address, which it keeps.
    pub mac: Mac,
    /// Its MTU, which it keeps.
    pub mtu: u32,
    /// It was up.
    pub up: bool,
    /// Its addresses, link-local ones apart.
    pub addresses: Vec<IpNet>,
}

/// What a client that names a bridge wants of one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IfThere {
    /// A bridge of that name is in the way.
    #[default]
    Refuse,
    /// It is to be used if nobody is on it; with addresses other than the gateways only if they may go meanwhile.
    Use {
        /// Addresses that are in the gateways' way go.
        force_address: bool,
    },
    /// It was looked at.
    Found {
        /// The bridge.
        bridge: FoundBridge,
        /// Addresses that are in the gateways' way go.
        force_address: bool,
    },
}

impl NetworkSpec {
    /// Addresses that the bridge had and that exclude one of the gateways: any other of IPv4, one of the same prefix of
    /// IPv6. The reference plugin decides so.
    pub fn in_the_gateways_way(&self) -> Vec<IpNet> {
        let all = self.found.iter().flat_map(|f| &f.addresses);
        let gateways = || {
            let own = self.subnets.iter();
            own.filter(|s| self.has_gateway_address(s.family()))
                .map(super::Subnet::gateway_net)
        };
        let excludes = |has: &IpNet, wanted: &IpNet| {
            Family::of_net(*has) == Family::of_net(*wanted)
                && (!has.addr().is_ipv6()
                    || has.contains(&wanted.addr())
                    || wanted.contains(&has.addr()))
        };
        all.filter(|has| !gateways().any(|g| g == **has))
            .filter(|has| gateways().any(|g| excludes(has, &g)))
            .copied()
            .collect()
    }

    /// What is there when the network begins. The kernel has a bridge's hardware address follow its ports until somebody
    /// sets it: then neighbours would send to nobody, and results of before would not be true any more.
    pub fn found_at_first(&self, all: &[Resource]) -> Vec<Resource> {
        let mut there = self.found_resources(all);
        for resource in &mut there {
            if let Resource::Link(link) = resource {
                link.mac = None;
            }
        }
        there
    }

    /// What of the bridge was there before the network, of all that the network has; then what is in its way.
    pub fn found_resources(&self, all: &[Resource]) -> Vec<Resource> {
        let Some(found) = &self.found else {
            return Vec::new();
        };
        let was_there = |r: &&Resource| match r {
            Resource::Link(link) => link.name == self.bridge,
            Resource::Addr { addr, .. } => found.addresses.contains(addr),
            Resource::Up { .. } => found.up,
            _ => false,
        };
        let mut there: Vec<Resource> = all.iter().filter(was_there).cloned().collect();
        let way = self.in_the_gateways_way();
        there.extend(way.into_iter().map(|addr| Resource::Addr {
            netns: Netns::Host,
            link: self.bridge.clone(),
            addr,
        }));
        there
    }
}

/// Whether the gateways can be on the bridge.
pub(super) fn check(spec: &NetworkSpec, force_address: bool) -> Result<(), NetworkError> {
    match spec.in_the_gateways_way().first() {
        Some(has) if !force_address => Err(NetworkError::BridgeAddress {
            bridge: spec.bridge.clone(),
            has: *has,
        }),
        _ => Ok(()),
    }
}
