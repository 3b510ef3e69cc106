//! The answer to `setup`: what the container got on each network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use wharf_core::addr::Family;
use wharf_core::attach::Attachment;
use wharf_core::ipam::usable;

use super::input::Network;

/// One network's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The interfaces, by name.
    #[serde(default, deserialize_with = "or_none")]
    pub interfaces: BTreeMap<String, Interface>,
    /// Where names are asked for.
    #[serde(default, deserialize_with = "or_none")]
    pub dns_server_ips: Vec<IpAddr>,
    /// Where short names are looked for.
    #[serde(default, deserialize_with = "or_none")]
    pub dns_search_domains: Vec<String>,
}

/// An interface in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interface {
    /// The hardware address.
    pub mac_address: String,
    /// The addresses.
    #[serde(default, deserialize_with = "or_none")]
    pub subnets: Vec<Address>,
}

/// An address, and the gateway beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Address {
    /// With the subnet's prefix length.
    pub ipnet: IpNet,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A plugin may write `null` for what it has nothing of.
fn or_none<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    input: D,
) -> Result<T, D::Error> {
    Option::deserialize(input).map(Option::unwrap_or_default)
}

/// What a container got on a network that wharf serves.
pub fn of(network: &Network, attachment: &Attachment, dns: &[IpAddr], served: bool) -> Status {
    let gateway = |addr: &IpNet| {
        let subnets = network.subnets.iter().flatten();
        let mut own = subnets.filter(|s| s.subnet.contains(&addr.addr()));
        let own = own.next()?;
        // An internal network's gateway is there for the name server only.
        let defined = own
            .gateway
            .filter(|_| !network.internal || network.dns_enabled);
        // Where the definition has none and the container leaves by it, wharf chose one.
        let leaves = attachment.default_routes.contains(&Family::of_net(*addr));
        defined.or_else(|| leaves.then(|| usable(own.subnet.trunc()).0))
    };
    let subnets = attachment.addresses.iter().map(|addr| Address {
        ipnet: *addr,
        gateway: gateway(addr),
    });
    let interface = Interface {
        mac_address: attachment.mac.to_string(),
        subnets: subnets.collect(),
    };
    Status {
        interfaces: BTreeMap::from([(attachment.interface.to_string(), interface)]),
        dns_server_ips: dns.to_vec(),
        dns_search_domains: if served {
            vec![super::dns::SEARCH_DOMAIN.to_owned()]
        } else {
            Vec::new()
        },
    }
}
