//! Giving back what belongs to nobody: containers whose namespace is gone, and whatever bears wharf's mark and is in
//! no record.
//!
//! What somebody still lives in is left alone, also when the store does not know it: `repair --rebuild` takes that over.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use heed::RwTxn;
use wharf_core::attach::{Attachment, Container};
use wharf_core::compile;
use wharf_core::model::{Netns, Resource, netns_alias};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::publish::PortMapping;

use crate::api::{Finding, Mode, Outcome};
use crate::engine::ends::end_in;
use crate::engine::findings::describe;
use crate::engine::foreign::shut;
use crate::engine::host::{backstop, failed};
use crate::engine::refused::apply_all;
use crate::engine::renamed::is_cable_of;
use crate::engine::{Engine, applies};
use crate::error::EngineError;
use crate::observe::LinkInfo;
use crate::process::{liveness, netns};

const NO_WAY_BACK: Undo = Undo::Irreversible("nobody knows whose it was");

/// A network namespace that can be looked into.
pub(super) struct Space {
    /// How to get there.
    pub(super) path: PathBuf,
    /// Its number.
    pub(super) inode: u64,
    /// It bears a name that wharf gave it.
    pub(super) made_by_wharf: bool,
    /// Processes are in it.
    pub(super) inhabited: bool,
    /// Its links.
    pub(super) links: Vec<LinkInfo>,
    /// By which the host's links name it, if one of them has its other end there.
    pub(super) number: Option<i32>,
}

/// Leases and ports that are nobody's.
#[derive(Default)]
struct Entries {
    leases: Vec<(NetworkName, IpAddr)>,
    ports: Vec<PortMapping>,
}

/// What was found, and what is to be done about it.
#[derive(Default)]
struct Garbage {
    plan: Plan,
    findings: Vec<Finding>,
}

impl Garbage {
    fn find(&mut self, object: String, was: &str) {
        self.findings.push(Finding {
            object,
            was: was.to_owned(),
        });
    }
}

impl Engine {
    /// Removes what belongs to nobody.
    ///
    /// # Errors
    /// The kernel's or the store's. What could be removed is removed then.
    pub fn gc(&mut self, mode: Mode) -> Result<Outcome<Vec<Finding>>, EngineError> {
        let _lock = self.lock_host()?;
        let mut garbage = Garbage::default();
        let dead = self.dead_containers()?;
        if !dead.is_empty() {
            garbage.plan.append(self.remove(&dead, true, mode)?.plan);
            for name in &dead {
                garbage.find(format!("container {name}"), "its namespace is gone");
            }
        }
        let mut unknown = Garbage::default();
        let (spaces, neighbours) = (self.spaces(), self.neighbours_of_bridges()?);
        let txn = self.run.begin()?;
        let all = self.run.containers.iter(&txn);
        let containers: Vec<Container> = all
            .and_then(|all| all.map(|i| i.map(|(_, c)| c)).collect())
            .map_err(|e| self.run.fail(e))?;
        let links = self.kernel.links(&Netns::Host);
        let links = links.map_err(|e| failed("list links", &e))?;
        lost_cables(&links, &spaces, &containers, &mut unknown);
        lost_namespaces(&spaces, &containers, &mut unknown);
        lost_neighbours(&neighbours, &links, &containers, &mut unknown);
        let living = |c: &&Container| !dead.contains(&c.name);
        let owners: HashMap<&ContainerName, &Container> = containers
            .iter()
            .filter(living)
            .map(|c| (&c.name, c))
            .collect();
        let entries = self.lost_entries(&txn, &owners, &dead, &mut unknown);
        let entries = entries.map_err(|e| self.run.fail(e))?;
        let done = if applies(mode) {
            let done = apply_all(&mut self.kernel, &unknown.plan);
            self.forget_entries(txn, &entries)?;
            done
        } else {
            drop(txn);
            Ok(())
        };
        garbage.plan.append(unknown.plan);
        garbage.findings.extend(unknown.findings);
        let rules = self.mend_strange(mode)?;
        garbage.plan.append(rules.0);
        garbage.findings.extend(rules.1);
        let routing = self.lost_routing(mode)?;
        garbage.plan.append(routing.plan);
        garbage.findings.extend(routing.findings);
        let doors = self.lost_doors(mode)?;
        garbage.plan.append(doors.plan);
        garbage.findings.extend(doors.findings);
        let host = self.lost_host(mode)?;
        garbage.plan.append(host.plan);
        garbage.findings.extend(host.findings);
        done?;
        Ok(Outcome {
            value: garbage.findings,
            plan: garbage.plan,
            notes: self.take_notes(),
        })
    }

    /// Without networks wharf needs nothing of the host. Bridges that its tables name are somebody's all the same.
    fn lost_host(&mut self, mode: Mode) -> Result<Garbage, EngineError> {
        let mut garbage = Garbage::default();
        let networks = self.run.read(|txn| self.run.networks.is_empty(txn))?;
        if !networks || !self.has_own_tables() || !self.bridges_in_rules()?.is_empty() {
            return Ok(garbage);
        }
        garbage.plan = self.release_host()?;
        garbage.find(
            "what networks share on the host".to_owned(),
            "there is no network",
        );
        if applies(mode) {
            apply_all(&mut self.kernel, &garbage.plan)?;
            self.run.write(|txn| self.forget_host(txn))?;
        }
        Ok(garbage)
    }

    /// Routing rules and ways to nowhere of networks that are not there.
    fn lost_routing(&mut self, mode: Mode) -> Result<Garbage, EngineError> {
        let wanted: Vec<Resource> = self.run.read(|txn| {
            let mut all = Vec::new();
            let mut managed = false;
            for item in self.run.networks.iter(txn)? {
                let net = item?.1.spec;
                managed |= net.is_managed();
                all.extend(compile::backstop::network(&net));
            }
            // A network without addresses of its own has only what all share.
            if managed {
                all.extend(backstop());
            }
            Ok(all)
        })?;
        let there = self.kernel.own_routing(compile::backstop::TABLE);
        let there = there.map_err(|e| failed("look for routing rules", &e))?;
        let mut garbage = Garbage::default();
        for resource in there.iter().filter(|r| !wanted.contains(r)) {
            if let Some(op) = Op::remove(resource) {
                garbage.plan.push(op, NO_WAY_BACK, "its network is gone");
                garbage.find(describe(resource), "its network is gone");
            }
        }
        if applies(mode) {
            apply_all(&mut self.kernel, &garbage.plan)?;
        }
        Ok(garbage)
    }

    /// Rules in other tools' chains that let pass what is no bridge of a network.
    fn lost_doors(&mut self, mode: Mode) -> Result<Garbage, EngineError> {
        let bridges = self.run.read(|txn| {
            let all = self.run.networks.iter(txn)?;
            all.map(|i| i.map(|(_, n)| n.spec.bridge))
                .collect::<heed::Result<BTreeSet<IfName>>>()
        })?;
        let mut garbage = Garbage::default();
        for door in self.doors_to_shut(|link| !bridges.contains(link)) {
            garbage.findings.push(shut(&door));
            garbage.plan.push(door, NO_WAY_BACK, "its network is gone");
        }
        if applies(mode) {
            apply_all(&mut self.kernel, &garbage.plan)?;
        }
        Ok(garbage)
    }

    /// Permanent neighbours of wharf's on the bridges of networks, with the number of the bridge.
    fn neighbours_of_bridges(&mut self) -> Result<Vec<(IfName, u32, IpAddr)>, EngineError> {
        let read = |e: std::io::Error| failed("list neighbours", &e);
        let bridges: Vec<IfName> = self.run.read(|txn| {
            let all = self.run.networks.iter(txn)?;
            all.map(|i| i.map(|(_, n)| n.spec.bridge)).collect()
        })?;
        let links = self.kernel.links(&Netns::Host).map_err(read)?;
        let all = self.kernel.own_neighbours().map_err(read)?;
        let on_bridge = |(index, addr): (u32, IpAddr)| {
            let link = links.iter().find(|l| l.index == index)?;
            let bridge = bridges.iter().find(|b| b.as_str() == link.name)?;
            Some((bridge.clone(), index, addr))
        };
        Ok(all.into_iter().filter_map(on_bridge).collect())
    }

    /// Every namespace that has a name or processes, the own one apart.
    pub(super) fn spaces(&mut self) -> Vec<Space> {
        let inhabited = liveness::namespaces();
        let own = netns::current().map(|n| n.inode()).unwrap_or(0);
        let mut seen = BTreeSet::from([own]);
        let mut spaces = Vec::new();
        let named = std::fs::read_dir(netns::DIRECTORY)
            .into_iter()
            .flatten()
            .flatten();
        let named = named.map(|entry| entry.path());
        let of_processes = inhabited
            .values()
            .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        for path in named.chain(of_processes) {
            let Ok(inode) = netns::netns_inode(&path) else {
                continue;
            };
            if !seen.insert(inode) {
                continue;
            }
            let links = self
                .kernel
                .links(&Netns::Path(path.clone()))
                .unwrap_or_default();
            let mark = netns_alias(&path);
            let marked = |l: &LinkInfo| l.name == "lo" && l.alias.as_deref() == Some(mark.as_str());
            spaces.push(Space {
                made_by_wharf: path.starts_with(netns::DIRECTORY) && links.iter().any(marked),
                inhabited: inhabited.contains_key(&inode),
                path,
                inode,
                links,
                number: None,
            });
        }
        let paths: Vec<&Path> = spaces.iter().map(|s| s.path.as_path()).collect();
        let numbers = self.kernel.space_numbers(&paths).unwrap_or_default();
        for space in &mut spaces {
            space.number = numbers.get(&space.inode).copied();
        }
        spaces
    }

    fn lost_entries(
        &self,
        txn: &RwTxn,
        owners: &HashMap<&ContainerName, &Container>,
        dead: &[ContainerName],
        garbage: &mut Garbage,
    ) -> heed::Result<Entries> {
        let mut entries = Entries::default();
        for (network, addr, container) in self.run.all_leases(txn)? {
            let Ok(network) = network.parse::<NetworkName>() else {
                continue;
            };
            let name = container.parse::<ContainerName>().ok();
            if name.as_ref().is_some_and(|n| dead.contains(n)) {
                continue;
            }
            let held = name.and_then(|n| owners.get(&n).copied()).is_some_and(|c| {
                let a = c.attachment(&network);
                a.is_some_and(|a| a.addresses.iter().any(|net| net.addr() == addr))
            });
            if !held {
                garbage.find(
                    format!("address {addr} of network {network}"),
                    "its container is gone",
                );
                entries.leases.push((network, addr));
            }
        }
        for (name, mapping) in self.run.all_ports(txn)? {
            let held = owners
                .get(&name)
                .is_some_and(|c| c.ports.contains(&mapping));
            if !held && !dead.contains(&name) {
                garbage.find(format!("port {mapping}"), "its container is gone");
                entries.ports.push(mapping);
            }
        }
        Ok(entries)
    }

    fn forget_entries(&self, mut txn: RwTxn, entries: &Entries) -> Result<(), EngineError> {
        if entries.leases.is_empty() && entries.ports.is_empty() {
            return Ok(());
        }
        let write = (|| {
            for (network, addr) in &entries.leases {
                self.run.release(&mut txn, network, *addr, None)?;
            }
            for mapping in &entries.ports {
                self.run.free_port(&mut txn, mapping)?;
            }
            Ok(())
        })();
        write.map_err(|e| self.run.fail(e))?;
        self.run.commit(txn)
    }
}

/// Cables with wharf's mark that are in no record. One whose other end is in a namespace somebody lives in, or that
/// has a name of another tool, is not nobody's.
fn lost_cables(
    links: &[LinkInfo],
    spaces: &[Space],
    containers: &[Container],
    garbage: &mut Garbage,
) {
    for link in links {
        let Some(mark) = cable_mark(link) else {
            continue;
        };
        let (container, network) = (mark.container, mark.network);
        let is_there = |name: &IfName| links.iter().any(|l| l.name == name.as_str());
        let known = containers.iter().any(|c| {
            let own = |a: &Attachment| {
                a.host_interface.as_str() == link.name
                    || !is_there(&a.host_interface) && is_cable_of(link, c, a)
            };
            c.attachments.iter().any(own)
        });
        let owner = spaces.iter().find(|s| end_in(s, link).is_some());
        let in_use = owner.is_some_and(|s| s.inhabited || !s.made_by_wharf && is_named(&s.path));
        let Ok(name) = link.name.parse::<IfName>() else {
            continue;
        };
        if known || in_use {
            continue;
        }
        let op = Op::LinkDel {
            netns: Netns::Host,
            link: name,
        };
        let because = format!("it is marked as container `{container}`'s, which nobody knows");
        garbage.plan.push(op, NO_WAY_BACK, because);
        garbage.find(
            format!("link {} of {container} on {network}", link.name),
            "its container is gone",
        );
    }
}

/// Entries of networks' bridges for addresses that no container has.
fn lost_neighbours(
    neighbours: &[(IfName, u32, IpAddr)],
    links: &[LinkInfo],
    containers: &[Container],
    garbage: &mut Garbage,
) {
    for (bridge, index, addr) in neighbours {
        let still = links
            .iter()
            .any(|l| l.index == *index && l.name == bridge.as_str());
        let has = |c: &Container| {
            let mut addresses = c.attachments.iter().flat_map(|a| &a.addresses);
            addresses.any(|net| net.addr() == *addr)
        };
        if !still || containers.iter().any(has) {
            continue;
        }
        let op = Op::NeighDel {
            link: bridge.clone(),
            addr: *addr,
        };
        garbage
            .plan
            .push(op, NO_WAY_BACK, "no container has the address");
        garbage.find(
            format!("neighbour {addr} on {bridge}"),
            "its container is gone",
        );
    }
}

fn lost_namespaces(spaces: &[Space], containers: &[Container], garbage: &mut Garbage) {
    let unknown = |s: &&Space| {
        let known = containers
            .iter()
            .any(|c| c.netns.path == s.path || c.netns.identity.is_some_and(|(_, i)| i == s.inode));
        // It may have gone with its container since.
        let still = netns::netns_inode(&s.path).is_ok_and(|inode| inode == s.inode);
        s.made_by_wharf && !s.inhabited && !known && still
    };
    for space in spaces.iter().filter(unknown) {
        let because = "wharf made it for a container that nobody knows";
        garbage
            .plan
            .push(Op::NetnsDel(space.path.clone()), NO_WAY_BACK, because);
        let object = format!("namespace {}", space.path.display());
        garbage.find(object, "its container is gone");
    }
}

/// What a cable's alias says.
pub(super) struct CableMark {
    pub(super) container: ContainerName,
    pub(super) network: NetworkName,
    /// Whose it is, if the owner knows it by names of his own.
    pub(super) client: Option<String>,
    /// Somebody else made the namespace.
    pub(super) adopted: bool,
}

/// What a cable's alias says, if it is wharf's.
pub(super) fn cable_mark(link: &LinkInfo) -> Option<CableMark> {
    let mark = link.alias.as_deref()?.strip_prefix("wharf:")?;
    let (container, rest) = mark.split_once(':')?;
    let (network, client) = match rest.split_once(':') {
        Some((network, client)) => (network, Some(client)),
        None => (rest, None),
    };
    // A bridge has the word for a container.
    let is_bridge = container == "network" && link.kind.as_deref() == Some("bridge");
    (!is_bridge).then_some(CableMark {
        container: container.parse().ok()?,
        network: network.parse().ok()?,
        client: client.filter(|c| !c.is_empty()).map(str::to_owned),
        adopted: client.is_some(),
    })
}

fn is_named(path: &Path) -> bool {
    path.starts_with(netns::DIRECTORY)
}
