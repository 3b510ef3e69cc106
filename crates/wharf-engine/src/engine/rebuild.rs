//! The store made again from the kernel, when it was lost or cannot be read.
//!
//! Cables have an alias that names container and network, namespaces one that says who made them; the rules name the
//! networks and the published ports. What nobody wrote there is lost: labels, options with no trace in the rules,
//! names for other tools. What the store still knows stays as it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::addr::Family;
use wharf_core::attach::{Attachment, ClientKey, Container, ContainerNetns, Phase, RouteSpec};
use wharf_core::model::{Netns, PolicyRule, ROUTE_PROTOCOL, RouteMore, RuleAction};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{Driver, FoundBridge, NetworkSpec, OWNER, Subnet, bridge_mac};
use wharf_core::options::{HostAccess, Isolation, NetworkOptions};
use wharf_core::publish::PortMapping;

use crate::api::{Dirs, Finding, Mode, Note, Outcome, Repaired};
use crate::engine::claims::{Claim, Contest, settle};
use crate::engine::ends::{self, End, Home, Inside};
use crate::engine::gc::{Space, cable_mark};
use crate::engine::host::failed;
use crate::engine::network::{now, random_id};
use crate::engine::{Engine, Networks, identity};
use crate::error::EngineError;
use crate::observe::{LinkInfo, MAIN, OwnNetwork, Published, RouteInfo};
use crate::process::liveness;
use crate::store::{LiveNetwork, RunStore, StateStore, can_be_read};

/// The owner of a container that some front end put into a namespace of its own, where its cable does not say which
/// one. The one that knows it takes it back.
pub(super) const UNKNOWN: &str = "unknown";
/// The label of a network that was made again from the kernel. Whoever knows how it is meant takes it back.
pub const REBUILT_LABEL: &str = "wharf.rebuilt";
/// How many rules let a container use nothing of the host but its answers to pings.
const RULES_FOR_NONE: usize = 3;

impl Engine {
    /// Opens the stores; one that cannot be read is put aside first, and a new one begun.
    ///
    /// # Errors
    /// A store can be neither read nor put aside; as [`Engine::open`].
    pub fn open_anew(dirs: &Dirs) -> Result<(Self, Vec<Finding>), EngineError> {
        let mut aside = Vec::new();
        if !readable(|| RunStore::open(&dirs.run).and_then(|s| s.check()))? {
            aside.extend(put_aside(&dirs.run)?);
        }
        if !readable(|| StateStore::open(&dirs.state).and_then(|s| s.check()))? {
            aside.extend(put_aside(&dirs.state)?);
        }
        Ok((Self::open(dirs)?, aside))
    }

    /// Takes over into the store what the kernel has of wharf and the store does not know, then mends the rest.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn rebuild(&mut self) -> Result<Outcome<Repaired>, EngineError> {
        let _lock = self.lock_host()?;
        let links = self.host_links_now()?;
        let findings = self.rebuild_stores(&links)?;
        let (plan, mut value) = self.mend(Mode::Apply)?;
        value.mended.splice(0..0, findings);
        Ok(Outcome {
            value,
            plan,
            notes: self.take_notes(),
        })
    }

    /// Takes over into the store what the kernel has, and changes nothing there.
    pub(super) fn rebuild_stores(
        &mut self,
        links: &[LinkInfo],
    ) -> Result<Vec<Finding>, EngineError> {
        let mut findings = self.rebuild_networks(links)?;
        findings.extend(self.take_over_containers(links, |_| true)?);
        Ok(findings)
    }

    /// Takes over into the store the containers on its networks that it does not know, of those that are `wanted`.
    pub(super) fn take_over_containers(
        &mut self,
        links: &[LinkInfo],
        wanted: impl Fn(&Container) -> bool,
    ) -> Result<Vec<Finding>, EngineError> {
        let read = |e: std::io::Error| failed("read what the kernel has of wharf", &e);
        let spaces = self.spaces();
        let ports = self.kernel.own_ports().map_err(read)?;
        let nets: Networks = self.run.read(|txn| {
            let all = self.run.networks.iter(txn)?;
            all.map(|i| i.map(|(_, n)| (n.spec.name.clone(), n.spec)))
                .collect()
        })?;
        let mut found = self.cables(links, &spaces, &nets).map_err(read)?;
        found.retain(|_, container| wanted(container));
        for container in found.values_mut() {
            container.ports = ports_of(container, &ports);
        }
        let mut txn = self.run.begin()?;
        // Whoever is removed meanwhile has his record until his cables are gone.
        let links = self.kernel.links(&Netns::Host).map_err(read)?;
        found.retain(|_, container| is_still_there(container, &links));
        let mut findings = Vec::new();
        let mut shared = Vec::new();
        for container in found.values() {
            if self.take_over_container(&mut txn, container, &mut shared)? {
                self.count_new_loopback(&mut txn, &[], container, &nets)?;
                findings.push(Finding {
                    object: format!("container {}", container.name),
                    was: "missing in the store".to_owned(),
                });
            }
        }
        self.run.commit(txn)?;
        self.notes.extend(shared);
        Ok(findings)
    }

    /// Networks that the rules or the cables name, and that the state store knows or whose bridge is there.
    fn rebuild_networks(&mut self, links: &[LinkInfo]) -> Result<Vec<Finding>, EngineError> {
        let read = |e: std::io::Error| failed("read what the kernel has of wharf", &e);
        let mut named = self.kernel.own_networks().map_err(read)?;
        for cable in links {
            let Some(mark) = cable_mark(cable) else {
                continue;
            };
            let bridge = links.iter().find(|l| Some(l.index) == cable.master);
            let bridge = match bridge {
                Some(bridge) => bridge.name.parse().ok(),
                // Without its bridge a cable is in none.
                None => self
                    .state()?
                    .network(mark.network.as_str())?
                    .map(|n| n.bridge),
            };
            if let Some(bridge) = bridge
                && !named.iter().any(|n| n.name == mark.network)
            {
                named.push(OwnNetwork {
                    name: mark.network,
                    bridge,
                    internal: false,
                    icc: cable.group & 1 == 0,
                    open: false,
                    host_rules: None,
                });
            }
        }
        let addrs = self.kernel.addrs(&Netns::Host).map_err(read)?;
        let masqueraded = self.kernel.own_masqueraded().map_err(read)?;
        let inside = self.kernel.own_subnets().map_err(read)?;
        let mut findings = Vec::new();
        for own in named {
            let link = links
                .iter()
                .find(|l| l.name == own.bridge.as_str() && l.kind.as_deref() == Some("bridge"));
            if self.live(&own.name)?.is_some() {
                continue;
            }
            let kept = self.state()?.network(own.name.as_str())?;
            let spec = match (kept, link) {
                (Some(spec), _) => spec,
                (None, Some(link)) => {
                    let spec = network_spec(&own, link, &addrs, (&inside, &masqueraded))?;
                    self.state()?.put(&spec)?;
                    spec
                }
                (None, None) => continue,
            };
            let live = LiveNetwork {
                spec,
                loopback_users: 0,
                busy: false,
            };
            self.run
                .write(|txn| self.run.networks.put(txn, own.name.as_str(), &live))?;
            findings.push(Finding {
                object: format!("network {}", own.name),
                was: "missing in the store".to_owned(),
            });
        }
        self.take_over_host()?;
        Ok(findings)
    }

    /// The containers that cables and namespaces bear witness of.
    fn cables(
        &mut self,
        links: &[LinkInfo],
        spaces: &[Space],
        nets: &Networks,
    ) -> std::io::Result<BTreeMap<ContainerName, Container>> {
        let held = self.kernel.held_of_ports(links)?;
        let ends = ends::ends(links, spaces, nets);
        let insides = ends::insides(&mut self.kernel, &ends);
        let (claims, contests) = settle(&held, &ends::ports(&ends, links, &insides));
        self.tell_of(&contests, &ends);
        let homes = ends::homes(&ends, spaces);
        let mut found: BTreeMap<ContainerName, Container> = BTreeMap::new();
        for (end, claim) in ends.iter().zip(claims) {
            let name = &end.mark.container;
            let Some(home) = homes.get(name) else {
                continue;
            };
            let container = found
                .entry(name.clone())
                .or_insert_with(|| container(name, home));
            let link = end.far.map(|(_, link)| link);
            let Some(interface) = ends::interface(link, &container.attachments) else {
                continue;
            };
            if let Some(owner) = &end.mark.client {
                container.owner.clone_from(owner);
                container.client = Some(ClientKey {
                    network: String::new(),
                    container: name.to_string(),
                    interface: interface.to_string(),
                });
            }
            let Some(mut a) = claim.and_then(|c| attachment(end.net, interface, end.cable, c))
            else {
                continue;
            };
            // What is set elsewhere is not the container's.
            let at_home = end.far.filter(|(space, _)| space.inode == home.space.inode);
            if let Some((space, link)) = at_home
                && let Some(inside) = insides.get(&space.inode)
            {
                routes_of(&mut a, link, inside);
            }
            container.attachments.push(a);
        }
        for space in spaces.iter().filter(|s| s.made_by_wharf) {
            let name = space.path.file_name().and_then(|n| n.to_str());
            if let Some(name) = name.and_then(|n| n.parse::<ContainerName>().ok()) {
                let home = Home {
                    space,
                    path: space.path.clone(),
                    made_by_wharf: true,
                };
                found
                    .entry(name.clone())
                    .or_insert_with(|| container(&name, &home));
            }
        }
        for container in found.values_mut() {
            container
                .attachments
                .sort_by(|a, b| a.interface.cmp(&b.interface));
            if let Ok(id) = random_id() {
                container.id = id.iter().map(|b| format!("{b:02x}")).collect();
            }
        }
        Ok(found)
    }

    /// Of addresses that two have, if the store does not know yet whose they are.
    fn tell_of(&mut self, contests: &[Contest], ends: &[End]) {
        for contest in contests {
            let [first, second] = contest.of.map(|at| &ends[at].mark.container);
            let known = self.run.read(|txn| {
                let known = self.run.containers.get(txn, second.as_str())?;
                Ok(known.is_some())
            });
            if matches!(known, Ok(false)) {
                self.notes.push(Note::AddressShared {
                    addr: contest.addr,
                    network: ends[contest.of[1]].mark.network.clone(),
                    containers: [first.to_string(), second.to_string()],
                });
            }
        }
    }

    /// Writes a container that the store does not know. Whether it did not. An address that one has that the store knows is
    /// told, and stays that one's.
    fn take_over_container(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        shared: &mut Vec<Note>,
    ) -> Result<bool, EngineError> {
        let mut write = |txn: &mut RwTxn| -> heed::Result<bool> {
            if self
                .run
                .containers
                .get(txn, container.name.as_str())?
                .is_some()
            {
                return Ok(false);
            }
            let mut container = container.clone();
            for a in &mut container.attachments {
                for net in std::mem::take(&mut a.addresses) {
                    let by = self.run.lease_owner(txn, &a.network, net.addr())?;
                    match by.filter(|by| *by != container.name.as_str()) {
                        None => {
                            self.run
                                .put_lease(txn, &a.network, net.addr(), &container.name)?;
                            a.addresses.push(net);
                        }
                        Some(by) => shared.push(Note::AddressShared {
                            addr: net.addr(),
                            network: a.network.clone(),
                            containers: [by, container.name.to_string()],
                        }),
                    }
                }
            }
            for mapping in &container.ports {
                self.run.take_port(txn, mapping, &container.name)?;
            }
            self.run.put_container(txn, &container)?;
            Ok(true)
        };
        write(txn).map_err(|e| self.run.fail(e))
    }
}

pub(super) fn readable(
    read: impl FnOnce() -> Result<(), EngineError>,
) -> Result<bool, EngineError> {
    can_be_read(|| read().is_ok()).map_err(|e| failed("look at the store", &e))
}

/// What becomes of a store that cannot be read.
pub(super) fn to_be_put_aside(dir: &Path) -> Option<Finding> {
    let db = dir.join("db");
    let to = aside(dir);
    db.exists().then(|| Finding {
        object: format!("store {}", db.display()),
        was: format!("unreadable, and goes to {}", to.display()),
    })
}

/// A free name for a store that cannot be read.
fn aside(dir: &Path) -> PathBuf {
    let mut names = (1..1000).map(|n| dir.join(format!("db.broken-{n}")));
    let free = names.find(|p| !p.exists());
    free.unwrap_or_else(|| dir.join("db.broken"))
}

fn put_aside(dir: &Path) -> Result<Option<Finding>, EngineError> {
    let (db, to) = (dir.join("db"), aside(dir));
    match std::fs::rename(&db, &to) {
        Ok(()) => Ok(Some(Finding {
            object: format!("store {}", db.display()),
            was: format!("unreadable, and is at {} now", to.display()),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::Store {
            path: db,
            detail: error.to_string(),
        }),
    }
}

fn network_spec(
    own: &OwnNetwork,
    link: &LinkInfo,
    addrs: &[(u32, IpNet)],
    (inside, masqueraded): (&[IpAddr], &[IpAddr]),
) -> Result<NetworkSpec, EngineError> {
    let of_bridge = addrs.iter().filter(|(index, _)| *index == link.index);
    let link_local =
        |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    let mut subnets: Vec<Subnet> = of_bridge
        .filter(|(_, net)| !link_local(net))
        .map(|(_, net)| Subnet {
            subnet: net.trunc(),
            gateway: net.addr(),
            ip_range: None,
        })
        .collect();
    // One that wharf makes has the address that follows from its first gateway.
    let of_gateway = |s: &Subnet| link.mac == Some(bridge_mac(std::slice::from_ref(s), ""));
    let is_wharfs = subnets.is_empty() || subnets.iter().any(of_gateway);
    subnets.sort_by_key(|s| s.gateway.is_ipv6());
    // Others may have given the bridge further addresses. Without rules nobody knows.
    let known = |s: &Subnet| inside.contains(&s.subnet.network());
    if subnets.iter().any(known) {
        subnets.retain(known);
    } else {
        subnets.dedup_by_key(|s| s.gateway.is_ipv6());
    }
    let found = link.mac.filter(|_| !is_wharfs).map(|mac| FoundBridge {
        mac,
        mtu: link.mtu,
        up: true,
        addresses: Vec::new(),
    });
    let masquerade = subnets
        .iter()
        .any(|s| masqueraded.contains(&s.subnet.network()));
    let settings = NetworkOptions {
        isolation: if own.open {
            Isolation::Open
        } else {
            Isolation::default()
        },
        host_access: match own.host_rules {
            None => HostAccess::All,
            Some(RULES_FOR_NONE) => HostAccess::None,
            Some(_) => HostAccess::Dns,
        },
        ..NetworkOptions::default()
    };
    Ok(NetworkSpec {
        name: own.name.clone(),
        owner: OWNER.to_owned(),
        driver: Driver::Bridge,
        routes: Vec::new(),
        dns_port: None,
        adopted: false,
        found,
        id: random_id()?.iter().map(|b| format!("{b:02x}")).collect(),
        bridge: own.bridge.clone(),
        bridge_mac: link
            .mac
            .unwrap_or(wharf_core::addr::Mac([2, 0, 0, 0, 0, 0])),
        subnets,
        internal: own.internal,
        icc: own.icc,
        masquerade: masquerade || own.internal,
        mtu: link.mtu,
        labels: BTreeMap::from([(REBUILT_LABEL.to_owned(), String::new())]),
        options: BTreeMap::new(),
        settings,
        created: now(),
        bridged_as_routed: false,
    })
}

fn container(name: &ContainerName, home: &Home) -> Container {
    let mut members = if home.made_by_wharf && home.space.inhabited {
        liveness::members(home.space.inode)
    } else {
        Vec::new()
    };
    members.sort_by_key(|p| p.start_time);
    let path: PathBuf = home.path.clone();
    let identity = std::fs::metadata(&path).ok().map(|m| (m.dev(), m.ino()));
    Container {
        name: name.clone(),
        id: String::new(),
        owner: match home.made_by_wharf {
            true => OWNER.to_owned(),
            false => UNKNOWN.to_owned(),
        },
        client: None,
        netns: ContainerNetns {
            path,
            identity,
            made_by_wharf: home.made_by_wharf,
        },
        process: members.first().map(|p| identity::process_ref(*p)),
        exit_status: None,
        command: Vec::new(),
        transient: false,
        attachments: Vec::new(),
        ports: Vec::new(),
        labels: Default::default(),
        created: now(),
    }
}

fn is_still_there(container: &Container, links: &[LinkInfo]) -> bool {
    let mut cables = container.attachments.iter().map(|a| &a.host_interface);
    let there = cables.all(|name| links.iter().any(|l| l.name == name.as_str()));
    there && identity::namespace_lives(container)
}

fn attachment(
    net: &NetworkSpec,
    interface: IfName,
    cable: &LinkInfo,
    claim: Claim,
) -> Option<Attachment> {
    let network: NetworkName = net.name.clone();
    Some(Attachment {
        network,
        interface,
        host_interface: cable.name.parse::<IfName>().ok()?,
        mac: claim.mac,
        addresses: claim.addresses,
        gateways: net
            .subnets
            .iter()
            .filter(|s| net.has_gateway_address(s.family()))
            .map(|s| s.gateway)
            .collect(),
        default_routes: Vec::new(),
        gw_priority: 0,
        aliases: Vec::new(),
        routes: Vec::new(),
        own_table: None,
        extras: Box::default(),
        announce: false,
        phase: Phase::Active,
    })
}

/// The routes of an attachment, as they are set in its namespace.
fn routes_of(a: &mut Attachment, link: &LinkInfo, inside: &Inside) {
    let by_it = |f: &Family| {
        inside.routes.iter().any(|r| {
            r.protocol == ROUTE_PROTOCOL
                && r.oif == Some(link.index)
                && (r.dst.prefix_len(), Family::of_net(r.dst)) == (0, *f)
        })
    };
    a.default_routes = Family::BOTH.into_iter().filter(by_it).collect();
    behind_others(a, link, &inside.routes, &inside.rules);
}

/// A default route that gives way to another program's is one of the attachment's own, beside its table.
fn behind_others(a: &mut Attachment, inside: &LinkInfo, all: &[RouteInfo], rules: &[PolicyRule]) {
    let own = |from: IpNet| a.addresses.iter().any(|net| net.addr() == from.addr());
    let mut rules = rules.iter().filter(|r| r.from.is_some_and(own));
    a.own_table = rules.find_map(|r| match r.action {
        RuleAction::Lookup(table) => Some(table),
        _ => None,
    });
    if a.own_table.is_none() {
        return;
    }
    let defaults = all.iter().filter(|r| {
        (r.protocol, r.table, r.oif) == (ROUTE_PROTOCOL, MAIN, Some(inside.index))
            && r.dst.prefix_len() == 0
    });
    a.routes = defaults
        .map(|r| RouteSpec {
            dst: r.dst,
            via: r.gateway,
            metric: r.metric,
            more: RouteMore {
                beside: true,
                ..RouteMore::default()
            },
        })
        .collect();
    a.default_routes.clear();
}

/// What is published at a container's addresses. What is there for one family only, of a container that has both, was
/// asked for so.
fn ports_of(container: &Container, all: &[Published]) -> Vec<PortMapping> {
    let addresses = || container.attachments.iter().flat_map(|a| &a.addresses);
    let both = Family::BOTH
        .into_iter()
        .all(|f| addresses().any(|a| Family::of_net(*a) == f));
    let own = |p: &&Published| addresses().any(|a| a.addr() == p.addr);
    let mut ports: Vec<PortMapping> = Vec::new();
    for published in all.iter().filter(own) {
        let mapping = published.mapping;
        let v6 = published.addr.is_ipv6();
        let twin = all
            .iter()
            .filter(own)
            .any(|p| p.mapping == mapping && p.addr.is_ipv6() != v6);
        let limited = PortMapping {
            host_ip: Some(Family::of(published.addr).any()),
            ..mapping
        };
        let mapping = match mapping.host_ip {
            None if both && !twin => limited,
            _ => mapping,
        };
        if !ports.contains(&mapping) {
            ports.push(mapping);
        }
    }
    ports
}
