//! What is in the kernel and not in the store, or the other way round: dead owners, lost state, damage.

use std::path::Path;

use wharf_core::addr::Family;
use wharf_core::attach::{Container, Phase};
use wharf_core::compile;
use wharf_core::model::{Netns, netns_alias};
use wharf_core::name::{ContainerName, IfName};
use wharf_core::network::NetworkSpec;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_nft::{Family as NftFamily, SetRef};

use crate::api::{Mode, Note};
use crate::engine::docker::docker;
use crate::engine::forwarding::HostLinks;
use crate::engine::gc::cable_mark;
use crate::engine::host::failed;
use crate::engine::{Engine, identity};
use crate::error::EngineError;
use crate::observe::{LinkInfo, link_name};
use crate::process::{liveness, netns};
use crate::store::LiveNetwork;

impl Engine {
    /// Removes containers whose namespace is provably gone: its path leads to no namespace or to another one,
    /// and the host's ends of their cables have vanished with it. Whether there were any.
    pub(super) fn reclaim_dead(&mut self) -> Result<bool, EngineError> {
        let dead = self.dead_containers()?;
        if dead.is_empty() {
            return Ok(false);
        }
        self.remove(&dead, true, Mode::Apply)?;
        self.notes.extend(
            dead.iter()
                .map(|name| Note::Recovered(format!("container/{name}"))),
        );
        Ok(true)
    }

    pub(super) fn dead_containers(&mut self) -> Result<Vec<ContainerName>, EngineError> {
        let mut dead = Vec::new();
        for container in self.containers()? {
            if self.is_dead(&container)? {
                dead.push(container.name);
            }
        }
        Ok(dead)
    }

    fn is_dead(&mut self, container: &Container) -> Result<bool, EngineError> {
        // Somebody is at work on it.
        if container
            .attachments
            .iter()
            .any(|a| a.phase != Phase::Active)
        {
            return Ok(false);
        }
        // Whoever waited for its process to end was killed.
        let ended = container.process.is_some_and(|p| !identity::lives(p));
        if container.transient && ended {
            return Ok(true);
        }
        if identity::namespace_lives(container) {
            return Ok(false);
        }
        for a in &container.attachments {
            let link = self
                .kernel
                .link(&Netns::Host, &a.host_interface)
                .map_err(|e| failed("look for a link", &e))?;
            if link.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is there of a container that the store does not know: its cables, by their aliases, and the namespace that
    /// wharf made for it, if nobody is in it.
    pub(super) fn lost_parts(&mut self, name: &ContainerName) -> Result<Plan, EngineError> {
        let links = self.host_links_now()?;
        let is_its = |link: &LinkInfo| cable_mark(link).is_some_and(|m| m.container == *name);
        let mut plan = removal(&links, is_its);
        let path = Path::new(netns::DIRECTORY).join(name.as_str());
        let inside = self.kernel.links(&Netns::Path(path.clone()));
        let mark = netns_alias(&path);
        let marked = |l: &LinkInfo| l.name == "lo" && alias(l) == mark;
        let empty = || {
            let inode = netns::netns_inode(&path);
            inode.is_ok_and(|inode| !liveness::namespaces().contains_key(&inode))
        };
        if inside.unwrap_or_default().iter().any(marked) && empty() {
            let because = "wharf made it for the container";
            let undo = Undo::Irreversible("the store does not know what was in it");
            plan.push(Op::NetnsDel(path), undo, because);
        }
        Ok(plan)
    }

    /// The host's links. Whoever asks the store which of them it knows asks after this: a container's record is there
    /// before its links are.
    pub(super) fn host_links_now(&mut self) -> Result<Vec<LinkInfo>, EngineError> {
        let links = self.kernel.links(&Netns::Host);
        links.map_err(|e| failed("list links", &e))
    }

    /// Whether there is a table of wharf.
    pub(super) fn has_own_tables(&mut self) -> bool {
        let ours = |t: &wharf_nft::Table| {
            matches!(t.family, NftFamily::Inet | NftFamily::Bridge)
                && t.name == wharf_core::nft::Table::NAME
        };
        let tables = self.kernel.nftables().and_then(|nft| nft.dump_tables());
        tables.unwrap_or_default().iter().any(ours)
    }

    fn has_own_routing(&mut self) -> Result<bool, EngineError> {
        let all = self.kernel.own_routing(compile::backstop::TABLE);
        let all = all.map_err(|e| failed("look for routing rules", &e))?;
        Ok(!all.is_empty())
    }

    /// Links that are there and that wharf's rules know as bridges of its networks.
    pub(super) fn bridges_in_rules(&mut self) -> Result<Vec<IfName>, EngineError> {
        let set = SetRef::new(NftFamily::Inet, wharf_core::nft::Table::NAME, "bridges");
        let elements = self
            .kernel
            .nftables()
            .and_then(|nft| nft.dump_elements(&set))
            .unwrap_or_default();
        let links = self
            .kernel
            .links(&Netns::Host)
            .map_err(|e| failed("list links", &e))?;
        let named: Vec<IfName> = elements.iter().filter_map(|e| link_name(&e.key)).collect();
        let is_there = |name: &IfName| links.iter().any(|l| l.name == name.as_str());
        Ok(named.into_iter().filter(is_there).collect())
    }

    /// `accept_ra` of the links that were told to hear routers though the host forwards.
    fn heard_routers(
        &mut self,
        host_links: &[IfName],
        routed: &[Family],
    ) -> Result<Vec<String>, EngineError> {
        let mut heard = Vec::new();
        if routed.contains(&Family::V6) {
            for key in self.accept_ra_keys()? {
                let name = key.split('/').nth(3).unwrap_or_default();
                if host_links.iter().any(|l| l.as_str() == name)
                    && self.sysctl(&key).as_deref() == Some("2")
                {
                    heard.push(key);
                }
            }
        }
        Ok(heard)
    }

    /// A network that the lost store knew is taken over. Its rules are made by the caller.
    pub(super) fn adopt(&mut self, spec: &NetworkSpec) -> Result<(), EngineError> {
        let part = self.prepare_host(spec)?;
        let mut settings = part.plan.clone();
        settings.steps.retain(|s| !matches!(s.op, Op::Nft(_)));
        self.carry_out_all(&settings);
        self.run.write(|txn| {
            let name = spec.name.as_str();
            // One that was made again from the kernel has its users.
            let known = self.run.networks.get(txn, name)?;
            let live = LiveNetwork {
                spec: spec.clone(),
                loopback_users: known.map_or(0, |l| l.loopback_users),
                busy: false,
            };
            self.run.networks.put(txn, name, &live)?;
            self.record_host(txn, &part)
        })
    }

    /// With an empty run store, what the kernel still holds of wharf is taken over: networks whose bridge is
    /// there, with the hardware address they were given, forwarding that wharf turned on, and the containers on them, so
    /// that nobody gets an address or a port that one of them has.
    pub(super) fn take_over(&mut self) -> Result<(), EngineError> {
        let links = self.host_links_now()?;
        let cables = links.iter().any(|l| cable_mark(l).is_some());
        // Rules may have been flushed; what stands behind them is no firewall's.
        let tables = self.has_own_tables();
        if !cables && !tables && !self.has_own_routing()? {
            return Ok(());
        }
        let is_there = |n: &NetworkSpec| {
            links
                .iter()
                .any(|l| l.name == n.bridge.as_str() && l.mac == Some(n.bridge_mac))
        };
        let nets: Vec<NetworkSpec> = self
            .state()?
            .networks()?
            .into_iter()
            .filter(is_there)
            .collect();
        if !tables && nets.is_empty() {
            // Routing that nobody stands behind: the next network makes all of it, `gc` removes it.
            return Ok(());
        }
        self.run.write(|txn| {
            for spec in &nets {
                // Who died while taking over has counted its containers.
                if self.run.networks.get(txn, spec.name.as_str())?.is_some() {
                    continue;
                }
                let live = LiveNetwork {
                    spec: spec.clone(),
                    loopback_users: 0,
                    busy: false,
                };
                self.run.networks.put(txn, spec.name.as_str(), &live)?;
            }
            Ok(())
        })?;
        self.take_over_host()?;
        self.notes.extend(
            nets.iter()
                .map(|n| Note::Recovered(format!("network/{}", n.name))),
        );
        let containers = self.take_over_containers(&links, |c| !c.attachments.is_empty())?;
        if !containers.is_empty() {
            let text = format!("{} containers that the lost store knew", containers.len());
            self.notes.push(Note::Recovered(text));
        }
        Ok(())
    }
}

impl Engine {
    /// Takes over what wharf borrowed of the host, as far as the kernel tells: what the rules hold back is what was not
    /// forwarded before wharf turned that on.
    pub(super) fn take_over_host(&mut self) -> Result<(), EngineError> {
        let read = |e: std::io::Error| failed("read what the kernel has of wharf", &e);
        let held = self.kernel.own_transit().map_err(read)?;
        let families = held.as_ref().map_or(&[][..], |h| &h.families);
        let links = held.as_ref().map_or(&[][..], |h| &h.links);
        let heard = self.heard_routers(links, families)?;
        // Those that are held back were closed, for others would not be.
        let docker = docker(&mut self.kernel).bridges;
        let links = held.as_ref().map(|held| HostLinks {
            all: held.links.clone(),
            shut: held
                .links
                .iter()
                .filter(|link| docker.contains(link))
                .cloned()
                .collect(),
        });
        self.run
            .write(|txn| self.record_taken_over(txn, held.as_ref(), links, &heard))
    }
}

/// The removal of links that the store knows nothing of.
pub(super) fn removal(links: &[LinkInfo], is_lost: impl Fn(&LinkInfo) -> bool) -> Plan {
    let mut plan = Plan::default();
    for link in links.iter().filter(|l| is_lost(l)) {
        let Ok(link) = link.name.parse::<IfName>() else {
            continue;
        };
        let netns = Netns::Host;
        plan.push(
            Op::LinkDel { netns, link },
            Undo::Irreversible("the store does not know what it was"),
            "it is marked as a container's of wharf",
        );
    }
    plan
}

/// A link's alias, or nothing.
pub(super) fn alias(link: &LinkInfo) -> &str {
    link.alias.as_deref().unwrap_or_default()
}
