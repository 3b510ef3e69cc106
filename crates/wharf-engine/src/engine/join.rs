//! What an attachment becomes: namespace, interface names, addresses, hardware address.

use std::net::IpAddr;
use std::path::PathBuf;

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{AttachRequest, Attachment, Container, ContainerNetns, Phase};
use wharf_core::model::Netns;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::NetworkSpec;

use crate::api::{ContainerRequest, NetnsRequest, ObjectName};
use crate::engine::host::failed;
use crate::engine::{Engine, Networks};
use crate::error::EngineError;
use crate::process::netns;
use crate::store::LeaseError;

impl Engine {
    pub(super) fn choose_netns(
        &mut self,
        request: &ContainerRequest,
    ) -> Result<ContainerNetns, EngineError> {
        let (path, made_by_wharf) = match &request.netns {
            NetnsRequest::New => (
                PathBuf::from("/run/netns").join(request.name.as_str()),
                true,
            ),
            NetnsRequest::Path(path) => (path.clone(), false),
            NetnsRequest::Pid(pid) => (PathBuf::from(format!("/proc/{pid}/ns/net")), false),
        };
        if made_by_wharf {
            if self
                .run
                .read(|txn| self.run.containers.get(txn, request.name.as_str()))?
                .is_some()
            {
                return Err(EngineError::Exists(ObjectName::Container(
                    request.name.clone(),
                )));
            }
            if netns::open(&path).is_ok() {
                let why = "a namespace of that name exists and was not made by wharf; adopt it with --netns".to_owned();
                return Err(EngineError::NetnsUnfit { path, why });
            }
            return Ok(ContainerNetns {
                path,
                identity: None,
                made_by_wharf,
            });
        }
        let opened = netns::open(&path).map_err(|e| EngineError::NotANetns {
            path: path.clone(),
            why: e.to_string(),
        })?;
        if self.own_netns == opened.inode() {
            return Err(EngineError::NetnsUnfit {
                path,
                why: "it is the host's own".to_owned(),
            });
        }
        Ok(ContainerNetns {
            path,
            identity: Some(opened.identity()),
            made_by_wharf,
        })
    }

    /// Adds an attachment to the record: interface name, addresses, MAC address.
    pub(super) fn join(
        &self,
        txn: &mut RwTxn,
        container: &mut Container,
        request: &AttachRequest,
        nets: &Networks,
        foreign: &[IfName],
    ) -> Result<(), EngineError> {
        let net = nets
            .get(&request.network)
            .ok_or_else(|| EngineError::NotFound(ObjectName::Network(request.network.clone())))?;
        if container.attachment(&net.name).is_some() {
            return Err(EngineError::Attached {
                container: container.name.clone(),
                network: net.name.clone(),
            });
        }
        let live = self
            .run
            .networks
            .get(txn, net.name.as_str())
            .map_err(|e| self.run.fail(e))?;
        if live.is_some_and(|l| l.busy) {
            return Err(EngineError::Busy(ObjectName::Network(net.name.clone())));
        }
        if let Some(mac) = request.mac
            && let Some(by) = self
                .mac_owner(txn, &net.name, mac)
                .map_err(|e| self.run.fail(e))?
        {
            return Err(EngineError::MacTaken {
                mac,
                network: net.name.clone(),
                by,
            });
        }
        let interface = choose_interface(container, request, net, foreign)?;
        let addresses = self.lease_all(txn, container, request, net)?;
        let first = addresses
            .first()
            .map_or(IpAddr::from([0, 0, 0, 0]), IpNet::addr);
        container.attachments.push(Attachment {
            network: net.name.clone(),
            interface,
            host_interface: request
                .host_interface
                .clone()
                .unwrap_or_else(|| host_interface(container, &net.name)),
            mac: request
                .mac
                .unwrap_or_else(|| Mac::from_ip(first, net.mac_salt())),
            gateways: net
                .subnets
                .iter()
                .filter(|s| net.has_gateway_address(s.family()))
                .map(|s| s.gateway)
                .collect(),
            addresses,
            default_routes: Vec::new(),
            gw_priority: request.gw_priority,
            aliases: request.aliases.clone(),
            phase: Phase::Joining,
        });
        Ok(())
    }

    pub(super) fn mac_owner(
        &self,
        txn: &RwTxn,
        network: &NetworkName,
        mac: Mac,
    ) -> heed::Result<Option<ContainerName>> {
        for item in self.run.containers.iter(txn)? {
            let (_, container) = item?;
            if container.attachment(network).is_some_and(|a| a.mac == mac) {
                return Ok(Some(container.name));
            }
        }
        Ok(None)
    }

    /// What an adopted namespace has already: of the names that the requests may lead to those that are taken, and
    /// whether loopback is up. Only these are asked for, since a list of all links costs more than a cable.
    pub(super) fn found_inside(
        &mut self,
        container: &Container,
        requests: &[AttachRequest],
        nets: &Networks,
    ) -> Result<(Vec<IfName>, bool), EngineError> {
        let netns = &container.netns;
        if netns.made_by_wharf {
            return Ok((Vec::new(), false));
        }
        let needed = container.attachments.len() + requests.len();
        let found = self
            .kernel
            .rt(&Netns::Path(netns.path.clone()))
            .and_then(|rt| {
                let mut taken = Vec::new();
                for request in requests {
                    let mut free = 0;
                    for name in candidates(request, nets.get(&request.network)) {
                        if rt.index(&name)?.is_some() {
                            taken.push(name);
                        } else {
                            free += 1;
                            if free == needed {
                                break;
                            }
                        }
                    }
                }
                Ok((taken, rt.is_up(&IfName::loopback())?.unwrap_or(false)))
            });
        found.map_err(|e| failed(&format!("look into {}", netns.path.display()), &e))
    }

    pub(super) fn lease_all(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        request: &AttachRequest,
        net: &NetworkSpec,
    ) -> Result<Vec<IpNet>, EngineError> {
        for addr in &request.ips {
            let of_family = request
                .ips
                .iter()
                .filter(|a| a.is_ipv4() == addr.is_ipv4())
                .count();
            let why = match net.subnet(Family::of(*addr)) {
                None => format!("it has no {} subnet", Family::of(*addr)),
                Some(_) if of_family > 1 => "one address per family at most".to_owned(),
                Some(_) => continue,
            };
            return Err(EngineError::AddressUnfit {
                addr: *addr,
                network: net.name.clone(),
                why,
            });
        }
        let lease = |subnet: &wharf_core::network::Subnet, txn: &mut RwTxn| {
            let wanted = request
                .ips
                .iter()
                .copied()
                .find(|a| Family::of(*a) == subnet.family());
            let addr = self
                .run
                .lease(txn, &net.name, subnet, wanted, &container.name)
                .map_err(|e| match (e, wanted) {
                    (LeaseError::Store(e), _) => self.run.fail(e),
                    (LeaseError::Taken(by), Some(addr)) => {
                        let by = by.map_or("the gateway".to_owned(), |name| {
                            format!("container `{name}`")
                        });
                        EngineError::AddressTaken {
                            addr,
                            network: net.name.clone(),
                            by,
                        }
                    }
                    (LeaseError::Unfit, Some(addr)) => {
                        let why = format!("it is not a container address of {}", subnet.subnet);
                        EngineError::AddressUnfit {
                            addr,
                            network: net.name.clone(),
                            why,
                        }
                    }
                    _ => EngineError::PoolEmpty {
                        network: net.name.clone(),
                        pool: subnet.ip_range.unwrap_or(subnet.subnet),
                    },
                })?;
            Ok(IpNet::new(addr, subnet.subnet.prefix_len())
                .expect("the subnet's own prefix length"))
        };
        net.subnets
            .iter()
            .map(|subnet| lease(subnet, txn))
            .collect()
    }
}

/// The interface names that may be given: the one asked for, or the prefix with numbers.
fn candidates(request: &AttachRequest, net: Option<&NetworkSpec>) -> impl Iterator<Item = IfName> {
    const MOST: u32 = 1024;
    let asked = request.interface.clone();
    let numbers = if asked.is_some() { 0..0 } else { 0..MOST };
    let prefix = net.and_then(|n| n.settings.interface_prefix.clone());
    let prefix = prefix.unwrap_or_else(|| "eth".to_owned());
    asked
        .into_iter()
        .chain(numbers.filter_map(move |n| format!("{prefix}{n}").parse().ok()))
}

/// The interface name asked for, or the first free one.
fn choose_interface(
    container: &Container,
    request: &AttachRequest,
    net: &NetworkSpec,
    foreign: &[IfName],
) -> Result<IfName, EngineError> {
    let taken = |name: &IfName| {
        foreign.contains(name) || container.attachments.iter().any(|a| a.interface == *name)
    };
    let mut names = candidates(request, Some(net)).peekable();
    let first = names.peek().cloned();
    names
        .find(|name| !taken(name))
        .ok_or_else(|| EngineError::InterfaceTaken {
            interface: first.expect("the prefix was checked"),
            netns: container.netns.path.clone(),
        })
}

/// The host's end of a cable: `veth` and digits that follow from the container's id and the network, so that
/// two processes at once do not choose the same.
fn host_interface(container: &Container, network: &NetworkName) -> IfName {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in container.id.bytes().chain(network.as_str().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("veth{:011x}", hash & 0xfff_ffff_ffff)
        .parse()
        .expect("15 bytes of letters and digits")
}
