//! What an attachment becomes: namespace, interface names, addresses, hardware address.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{AttachRequest, Attachment, Container, ContainerNetns, Phase};
use wharf_core::model::Netns;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{NetworkSpec, Subnet};

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
        if netns::current().is_ok_and(|own| own.inode() == opened.inode()) {
            return Err(EngineError::NetnsUnfit {
                path,
                why: "it is the host's own".to_owned(),
            });
        }
        let identity = std::fs::metadata(&path).ok().map(|m| (m.dev(), m.ino()));
        Ok(ContainerNetns {
            path,
            identity,
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
        let made_up = match addresses.first() {
            Some(first) => Mac::from_ip(first.addr(), net.mac_salt()),
            None => Mac::from_text(&container.id, net.mac_salt()),
        };
        container.attachments.push(Attachment {
            network: net.name.clone(),
            interface,
            host_interface: request
                .host_interface
                .clone()
                .unwrap_or_else(|| host_interface(container, &net.name)),
            mac: request.mac.unwrap_or(made_up),
            gateways: net
                .subnets
                .iter()
                .filter(|s| net.has_gateway_address(s.family()))
                .filter(|s| addresses.iter().any(|a| s.subnet.contains(&a.addr())))
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

    /// What an adopted namespace has already: the names of its interfaces, and whether loopback is up.
    pub(super) fn found_inside(
        &mut self,
        netns: &ContainerNetns,
    ) -> Result<(Vec<IfName>, bool), EngineError> {
        if netns.made_by_wharf {
            return Ok((Vec::new(), false));
        }
        let links = self.kernel.links(&Netns::Path(netns.path.clone()));
        let links = links
            .map_err(|e| failed(&format!("list the links of {}", netns.path.display()), &e))?;
        let loopback = links
            .iter()
            .any(|l| l.name == IfName::loopback().as_str() && l.up);
        Ok((
            links
                .into_iter()
                .filter_map(|l| l.name.parse().ok())
                .collect(),
            loopback,
        ))
    }

    pub(super) fn lease_all(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        request: &AttachRequest,
        net: &NetworkSpec,
    ) -> Result<Vec<IpNet>, EngineError> {
        let wanted =
            addresses_wanted(request, net).map_err(|(addr, why)| EngineError::AddressUnfit {
                addr,
                network: net.name.clone(),
                why,
            })?;
        let lease = |subnet: &Subnet, wanted: Option<IpAddr>, txn: &mut RwTxn| {
            let addr = self
                .run
                .lease(txn, net, subnet, wanted, &container.name)
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
        wanted
            .into_iter()
            .map(|(subnet, addr)| lease(subnet, addr, txn))
            .collect()
    }
}

/// A subnet, and the address asked for in it.
type Wanted<'n> = (&'n Subnet, Option<IpAddr>);

/// From which subnets a container gets an address, and which one if it is asked for. Who defines the network
/// himself chooses the addresses, too: a subnet for which he names none gives none.
fn addresses_wanted<'n>(
    request: &AttachRequest,
    net: &'n NetworkSpec,
) -> Result<Vec<Wanted<'n>>, (IpAddr, String)> {
    let mut wanted: Vec<Wanted> = net.subnets.iter().map(|subnet| (subnet, None)).collect();
    for addr in &request.ips {
        let of_family: Vec<usize> = (0..wanted.len())
            .filter(|at| wanted[*at].0.family() == Family::of(*addr))
            .collect();
        let at = match of_family.as_slice() {
            [] => return Err((*addr, format!("it has no {} subnet", Family::of(*addr)))),
            [one] => *one,
            several => {
                let inside = several
                    .iter()
                    .find(|at| wanted[**at].0.subnet.contains(addr));
                *inside.ok_or_else(|| (*addr, "it is in none of its subnets".to_owned()))?
            }
        };
        if wanted[at].1.replace(*addr).is_some() {
            return Err((*addr, "one address per family at most".to_owned()));
        }
    }
    let chosen_by_owner = net.is_transient() && !request.ips.is_empty();
    wanted.retain(|(_, addr)| addr.is_some() || !chosen_by_owner);
    Ok(wanted)
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
    let refuse = |interface: IfName| EngineError::InterfaceTaken {
        interface,
        netns: container.netns.path.clone(),
    };
    if let Some(name) = &request.interface {
        return if taken(name) {
            Err(refuse(name.clone()))
        } else {
            Ok(name.clone())
        };
    }
    let prefix = net.settings.interface_prefix.as_deref().unwrap_or("eth");
    let nth = |n: u32| format!("{prefix}{n}").parse::<IfName>().ok();
    (0..1024)
        .filter_map(nth)
        .find(|name| !taken(name))
        .ok_or_else(|| refuse(nth(0).expect("the prefix was checked")))
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
