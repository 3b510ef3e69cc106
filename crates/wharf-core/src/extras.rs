//! What few attachments have: limits of speed, and settings of the interface and its namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::addr::Mac;
use crate::attach::Attachment;
use crate::model::{Link, LinkKind, Netns, Resource};
use crate::name::IfName;

/// A limit of speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may go at once.
    pub burst: u32,
}

/// Limits of speed. What a container sends cannot be held back where it comes in, so it takes a way round by an
/// interface of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaping {
    /// Toward the container.
    pub inward: Option<Limit>,
    /// From the container.
    pub outward: Option<Limit>,
    /// The interface for the way round.
    pub detour: IfName,
}

/// Settings of an interface; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Traits {
    /// Takes all frames.
    pub promisc: Option<bool>,
    /// Takes all multicast frames.
    pub allmulti: Option<bool>,
    /// The length of the queue outward.
    pub tx_queue: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// Asks and answers for addresses, by ARP and neighbour discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp: Option<bool>,
    /// A bridge's spanning tree, which keeps ports from forwarding for a while or for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stp: Option<bool>,
}

impl Traits {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What few attachments have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Limits of speed.
    pub shaping: Option<Shaping>,
    /// Settings of the container's interface.
    pub traits: Traits,
    /// The settings as they were, of an interface that another program made.
    pub before: Traits,
    /// Sysctls of the container's namespace: the path below `/proc/sys`, with slashes, and the value.
    pub sysctls: BTreeMap<String, String>,
}

impl Extras {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The objects they are, in the order of making.
    pub fn resources(&self, inside: &Netns, a: &Attachment, mtu: u32) -> Vec<Resource> {
        let mut all = Vec::new();
        if let Some(shaping) = &self.shaping {
            all.extend(shaping.resources(&a.host_interface, mtu));
        }
        for (key, value) in &self.sysctls {
            all.push(Resource::Sysctl {
                netns: inside.clone(),
                key: key.clone(),
                value: value.clone(),
                link: None,
            });
        }
        if !self.traits.is_empty() {
            all.push(Resource::Traits {
                netns: inside.clone(),
                link: a.interface.clone(),
                traits: self.traits.clone(),
                before: self.before.clone(),
            });
        }
        all
    }
}

impl Shaping {
    fn resources(&self, host_interface: &IfName, mtu: u32) -> Vec<Resource> {
        let mut all = Vec::new();
        if let Some(limit) = self.inward {
            all.push(Resource::Shaper {
                link: host_interface.clone(),
                limit,
            });
        }
        if let Some(limit) = self.outward {
            all.push(Resource::Link(Link {
                netns: Netns::Host,
                name: self.detour.clone(),
                kind: LinkKind::Ifb,
                mac: None,
                mtu: Some(mtu),
                master: None,
                group: 0,
                up: true,
            }));
            all.push(Resource::Shaper {
                link: self.detour.clone(),
                limit,
            });
            all.push(Resource::Detour {
                from: host_interface.clone(),
                by: self.detour.clone(),
            });
        }
        all
    }
}
