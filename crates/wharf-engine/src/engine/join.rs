//! What an attachment becomes: namespace, interface names, addresses, hardware address.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{
    Addressing, AttachRequest, Attachment, Container, ContainerNetns, Phase, RouteSpec,
};
use wharf_core::ipam::Pool;
use wharf_core::model::Netns;
use wharf_core::name::{IfName, NetworkName};
use wharf_core::network::{NetworkSpec, Subnet};

use crate::api::{ContainerRequest, NetnsRequest, ObjectName};
use crate::engine::host::failed;
use crate::engine::{Engine, Networks};
use crate::error::EngineError;
use crate::observe::{MAIN, RouteInfo, UNICAST};
use crate::process::netns::{self, NetnsError};
use crate::store::LeaseError;

/// An address with its prefix length, and its gateway.
type Leased = (IpNet, Option<IpAddr>);

/// What an adopted namespace has before anything is made in it.
#[derive(Default)]
pub(super) struct Found {
    /// Names of interfaces that a request may lead to, and that are taken.
    names: Vec<IfName>,
    /// Loopback needs nothing.
    pub(super) loopback_is_up: bool,
    /// All routes, where a default route is asked for.
    routes: Vec<RouteInfo>,
}

impl Found {
    /// A default route that is there stays the first: new ones of its family come behind it, and what has the new addresses
    /// goes by a table of their own. Its number, if there is need of one.
    fn give_way(&self, routes: &mut [RouteSpec]) -> Option<u32> {
        /// Numbers below are the kernel's and others', by custom.
        const FIRST: u32 = 100;
        let mut behind = false;
        for route in routes.iter_mut().filter(|r| r.is_usual_default()) {
            let there = self.routes.iter().filter(|r| {
                (r.table, r.kind) == (MAIN, UNICAST)
                    && r.dst.prefix_len() == 0
                    && Family::of_net(r.dst) == Family::of_net(route.dst)
            });
            let last = there.map(|r| r.metric.unwrap_or(0)).max();
            if let Some(last) = last {
                route.metric.get_or_insert(last.saturating_add(1));
                behind = true;
            }
        }
        let used = |table: &u32| self.routes.iter().any(|r| r.table == *table);
        (FIRST..).find(|table| !used(table)).filter(|_| behind)
    }
}

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
            why: match (&request.netns, e) {
                (NetnsRequest::Pid(pid), NetnsError::NotFound(_)) => {
                    format!("there is no process {pid}")
                }
                (_, e) => e.to_string(),
            },
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
        found: &Found,
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
        if let Some(mac) = request.mac.filter(|mac| *mac == net.bridge_mac) {
            return Err(EngineError::MacOfNetwork {
                mac,
                network: net.name.clone(),
            });
        }
        if let Some(mac) = request.mac
            && let Some(by) = self
                .run
                .mac_owner(txn, &net.name, mac)
                .map_err(|e| self.run.fail(e))?
        {
            return Err(EngineError::MacTaken {
                mac,
                network: net.name.clone(),
                by,
            });
        }
        let interface = choose_interface(container, request, net, &found.names)?;
        let leased = self.addresses(txn, container, request, net)?;
        let addresses: Vec<IpNet> = leased.iter().map(|(addr, _)| *addr).collect();
        let mac = match (request.mac, addresses.first()) {
            (Some(mac), _) => mac,
            (None, Some(first)) => Mac::from_ip(first.addr(), net.mac_salt()),
            (None, None) => Mac::from_text(&container.id, net.mac_salt()),
        };
        let routes = request.routes.iter();
        let mut routes: Vec<RouteSpec> = routes
            .map(|r| with_gateway(r, &leased, net))
            .filter(|r| !offered(r, net))
            .collect();
        container.attachments.push(Attachment {
            network: net.name.clone(),
            interface,
            host_interface: request
                .host_interface
                .clone()
                .unwrap_or_else(|| host_interface(container, &net.name)),
            mac,
            gateways: leased
                .iter()
                .filter_map(|(addr, gateway)| {
                    gateway.filter(|_| net.has_gateway_address(Family::of_net(*addr)))
                })
                .collect(),
            addresses,
            default_routes: Vec::new(),
            gw_priority: request.gw_priority,
            aliases: request.aliases.clone(),
            own_table: found.give_way(&mut routes),
            routes,
            extras: request.extras.clone(),
            announce: false,
            phase: Phase::Joining,
        });
        Ok(())
    }

    /// What an adopted namespace has already. Only what matters to the requests is asked for, since a list of all links
    /// costs more than a cable.
    pub(super) fn found_inside(
        &mut self,
        container: &Container,
        requests: &[AttachRequest],
        nets: &Networks,
    ) -> Result<Found, EngineError> {
        let netns = &container.netns;
        if netns.made_by_wharf {
            return Ok(Found::default());
        }
        let needed = container.attachments.len() + requests.len();
        let found = self
            .kernel
            .rt(&Netns::Path(netns.path.clone()))
            .and_then(|rt| {
                let mut found = Found::default();
                for request in requests {
                    let mut free = 0;
                    for name in candidates(request, nets.get(&request.network)) {
                        if rt.index(&name)?.is_some() {
                            found.names.push(name);
                        } else {
                            free += 1;
                            if free == needed {
                                break;
                            }
                        }
                    }
                }
                found.loopback_is_up = rt.is_up(&IfName::loopback())?.unwrap_or(false);
                Ok(found)
            });
        let asks_for_default = |r: &AttachRequest| r.routes.iter().any(RouteSpec::is_usual_default);
        let found = found.and_then(|mut found| {
            if requests.iter().any(asks_for_default) {
                found.routes = self.kernel.routes(&Netns::Path(netns.path.clone()))?;
            }
            Ok(found)
        });
        found.map_err(|e| failed(&format!("look into {}", netns.path.display()), &e))
    }

    /// The addresses of an attachment, each with its gateway.
    fn addresses(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        request: &AttachRequest,
        net: &NetworkSpec,
    ) -> Result<Vec<Leased>, EngineError> {
        match &request.addressing {
            Addressing::Subnets => self.lease_all(txn, container, request, net),
            Addressing::Pools { sets, reserved_in } => {
                let reserved = reserved_in.as_deref().filter(|dir| dir.is_dir());
                self.lease_of_sets(txn, container, request, sets, reserved)
            }
            Addressing::Given(given) => {
                // Another program's addresses are that program's to keep apart.
                for (addr, _) in given.iter().filter(|_| !net.adopted) {
                    self.run
                        .lease_given(txn, &net.name, addr.addr(), &container.name)
                        .map_err(|e| self.lease_failed(e, Some(addr.addr()), &net.name, *addr))?;
                }
                Ok(given.clone())
            }
        }
    }

    fn lease_of_sets(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        request: &AttachRequest,
        sets: &[Vec<Pool>],
        reserved: Option<&Path>,
    ) -> Result<Vec<Leased>, EngineError> {
        let network = &request.network;
        let mut wanted = request.ips.clone();
        let mut leased = Vec::new();
        for pools in sets {
            let within = |addr: &IpAddr| pools.iter().any(|p| p.subnet.contains(addr));
            let asked = wanted
                .iter()
                .position(within)
                .map(|at| wanted.swap_remove(at));
            let foreign =
                |addr: IpAddr| reserved.is_some_and(|d| d.join(addr.to_string()).exists());
            let pool = pools
                .first()
                .map_or(IpNet::from(IpAddr::from([0; 4])), |p| p.subnet);
            let (pool, addr) = self
                .run
                .lease_of_pools(txn, network, pools, asked, &container.name, foreign)
                .map_err(|e| match self.lease_failed(e, asked, network, pool) {
                    EngineError::PoolEmpty { network, pool, .. } => EngineError::PoolEmpty {
                        network,
                        pool,
                        ranges: pools.iter().map(|p| (p.first, p.last)).collect(),
                    },
                    other => other,
                })?;
            let addr =
                IpNet::new(addr, pool.subnet.prefix_len()).expect("the subnet's own prefix length");
            leased.push((addr, Some(pool.gateway)));
        }
        match wanted.first() {
            Some(addr) => Err(EngineError::AddressUnfit {
                addr: *addr,
                network: network.clone(),
                why: "it is in none of the ranges, or a range is asked for twice".to_owned(),
            }),
            None => Ok(leased),
        }
    }

    fn lease_failed(
        &self,
        error: LeaseError,
        wanted: Option<IpAddr>,
        network: &NetworkName,
        pool: IpNet,
    ) -> EngineError {
        let network = network.clone();
        match (error, wanted) {
            (LeaseError::Store(e), _) => self.run.fail(e),
            (LeaseError::Taken(by), Some(addr)) => {
                let by = by.map_or("the gateway".to_owned(), |name| {
                    format!("container `{name}`")
                });
                EngineError::AddressTaken { addr, network, by }
            }
            (LeaseError::Unfit, Some(addr)) => {
                let why = format!("it is not a container address of {pool}");
                EngineError::AddressUnfit { addr, network, why }
            }
            _ => EngineError::PoolEmpty {
                network,
                pool,
                ranges: Vec::new(),
            },
        }
    }

    fn lease_all(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        request: &AttachRequest,
        net: &NetworkSpec,
    ) -> Result<Vec<Leased>, EngineError> {
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
                .map_err(|e| {
                    let pool = match e {
                        LeaseError::Empty => subnet.ip_range.unwrap_or(subnet.subnet),
                        _ => subnet.subnet,
                    };
                    self.lease_failed(e, wanted, &net.name, pool)
                })?;
            let addr = IpNet::new(addr, subnet.subnet.prefix_len())
                .expect("the subnet's own prefix length");
            Ok((addr, Some(subnet.gateway)))
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
/// himself chooses the addresses, too: a subnet for which he names none gives none, and one may give several.
fn addresses_wanted<'n>(
    request: &AttachRequest,
    net: &'n NetworkSpec,
) -> Result<Vec<Wanted<'n>>, (IpAddr, String)> {
    if net.is_transient() && !request.ips.is_empty() {
        return chosen_by_owner(request, net);
    }
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
    Ok(wanted)
}

/// As many addresses of each subnet as are named, those of the first subnet first.
fn chosen_by_owner<'n>(
    request: &AttachRequest,
    net: &'n NetworkSpec,
) -> Result<Vec<Wanted<'n>>, (IpAddr, String)> {
    let inside = |addr: &IpAddr| net.subnets.iter().any(|s| s.subnet.contains(addr));
    if let Some(addr) = request.ips.iter().find(|addr| !inside(addr)) {
        return Err((*addr, "it is in none of its subnets".to_owned()));
    }
    let of = |subnet: &'n Subnet| {
        let own = request.ips.iter().filter(|a| subnet.subnet.contains(*a));
        own.map(move |addr| (subnet, Some(*addr)))
    };
    Ok(net.subnets.iter().flat_map(of).collect())
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

/// A route without gateway and scope goes by the gateway of its family's first address, if that has one.
fn with_gateway(route: &RouteSpec, leased: &[Leased], net: &NetworkSpec) -> RouteSpec {
    let family = Family::of_net(route.dst);
    let global = route.more.scope.is_none_or(|scope| scope == 0);
    let gateway = || {
        let (addr, own) = leased.iter().find(|(a, _)| Family::of_net(*a) == family)?;
        own.or_else(|| {
            let subnet = net.subnets.iter().find(|s| s.subnet == addr.trunc())?;
            net.has_gateway_address(family).then_some(subnet.gateway)
        })
    };
    RouteSpec {
        via: route.via.or_else(|| gateway().filter(|_| global)),
        ..route.clone()
    }
}

/// The network gives this default route by itself.
fn offered(route: &RouteSpec, net: &NetworkSpec) -> bool {
    let family = Family::of_net(route.dst);
    let gateway = net.subnet(family).map(|s| s.gateway);
    route.dst.prefix_len() == 0 && net.offers_default_route(family) && route.via == gateway
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
    // On another program's network the interface is that program's, and there.
    let theirs = |name: &IfName| net.adopted && request.interface.as_ref() == Some(name);
    let mut names = candidates(request, Some(net)).peekable();
    let first = names.peek().cloned();
    names
        .find(|name| !taken(name) || theirs(name))
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
