//! Networks: made, brought up when first needed, removed.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use heed::RoTxn;
use wharf_core::addr::Family;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{
    DEFAULT_NETWORK, FoundBridge, HostFacts, IfThere, NetworkError, NetworkRequest, NetworkSpec,
    resolve,
};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Step, Undo};

use crate::api::{Mode, NetworkView, Note, ObjectName, Outcome};
use crate::engine::foreign::opened;
use crate::engine::host::{HostPart, failed, learn_of_host};
use crate::engine::renamed::{Renamed, renamed};
use crate::engine::{Engine, Networks, applies, journal_key};
use crate::error::EngineError;
use crate::store::{LiveNetwork, Work};

impl Engine {
    /// Makes a network.
    ///
    /// # Errors
    /// It cannot be as asked for; the kernel refused; the store's.
    pub fn network_create(
        &mut self,
        request: &NetworkRequest,
        mode: Mode,
    ) -> Result<Outcome<NetworkSpec>, EngineError> {
        let lock = self.lock_host()?;
        let spec = self.resolve(request)?;
        let mut plan = self.bring_up(&spec, mode, true)?;
        drop(lock);
        if !applies(mode) {
            plan.append(self.beside_others(std::slice::from_ref(&spec)));
        }
        let mut notes = self.notes_of_forwarding(&spec, mode)?;
        notes.extend(self.foreign_sources(&spec)?);
        Ok(Outcome {
            value: spec,
            plan,
            notes,
        })
    }

    fn resolve(&mut self, request: &NetworkRequest) -> Result<NetworkSpec, EngineError> {
        let existing: Vec<NetworkSpec> = self.networks()?.into_iter().map(|v| v.spec).collect();
        let mut facts = self.host_facts()?;
        let resolved = match resolve(request, &existing, &facts) {
            Err(NetworkError::BridgeTaken(bridge)) => {
                self.resolve_on_found(request, &bridge, &existing, &mut facts)?
            }
            resolved => resolved,
        };
        resolved.map_err(|error| EngineError::Network {
            name: request.name.clone(),
            error,
        })
    }

    /// The network on a bridge that is there, where that is asked for and nobody is on it.
    pub(super) fn resolve_on_found(
        &mut self,
        request: &NetworkRequest,
        bridge: &IfName,
        existing: &[NetworkSpec],
        facts: &mut HostFacts,
    ) -> Result<Result<NetworkSpec, NetworkError>, EngineError> {
        let found = match request.if_there {
            IfThere::Use { force_address } => self.idle_bridge(bridge)?.map(|b| (b, force_address)),
            _ => None,
        };
        let Some((found, force_address)) = found else {
            return Ok(Err(NetworkError::BridgeTaken(bridge.clone())));
        };
        facts.forget_link(bridge);
        let own = |net: &ipnet::IpNet| found.addresses.iter().any(|a| a.trunc() == *net);
        facts.routes.retain(|net| !own(net));
        let mut request = request.clone();
        request.if_there = IfThere::Found {
            bridge: found,
            force_address,
        };
        Ok(resolve(&request, existing, facts))
    }

    /// A bridge that is nobody's port and has none: rules for it concern nobody yet.
    fn idle_bridge(&mut self, name: &IfName) -> Result<Option<FoundBridge>, EngineError> {
        let read = |e: std::io::Error| failed("look at a bridge", &e);
        let links = self.kernel.links(&Netns::Host).map_err(read)?;
        let Some(link) = links.iter().find(|l| l.name == name.as_str()) else {
            return Ok(None);
        };
        let is_bridge = link.kind.as_deref() == Some("bridge");
        let has_ports = links.iter().any(|l| l.master == Some(link.index));
        let Some(mac) = link
            .mac
            .filter(|_| is_bridge && !has_ports && link.master.is_none())
        else {
            return Ok(None);
        };
        let addrs = self.kernel.addrs(&Netns::Host).map_err(read)?;
        let own = addrs.into_iter().filter(|(index, _)| *index == link.index);
        let link_local = |net: &ipnet::IpNet| matches!(net.addr(), std::net::IpAddr::V6(a) if a.is_unicast_link_local());
        Ok(Some(FoundBridge {
            mac,
            mtu: link.mtu,
            up: link.up,
            addresses: own.map(|(_, net)| net).filter(|n| !link_local(n)).collect(),
        }))
    }

    /// A network that goes with its last container may have gone since it was looked at.
    pub(super) fn check_live(
        &self,
        txn: &RoTxn,
        names: &[NetworkName],
        mode: Mode,
    ) -> Result<(), EngineError> {
        for name in names.iter().filter(|_| applies(mode)) {
            let live = self.run.networks.get(txn, name.as_str());
            if live.map_err(|e| self.run.fail(e))?.is_none() {
                return Err(EngineError::NotFound(ObjectName::Network(name.clone())));
            }
        }
        Ok(())
    }

    /// Sees to it that networks exist and are up; the default network is made on first use.
    ///
    /// Returns their definitions, and in a dry run the steps that bringing them up would take.
    pub(super) fn ensure_up(
        &mut self,
        names: &[NetworkName],
        mode: Mode,
    ) -> Result<(Networks, Plan), EngineError> {
        let mut nets = Networks::new();
        let mut plan = Plan::default();
        let mut host = HostPart::default();
        for name in names {
            let (spec, steps) = match self.live(name)? {
                Some(live) if !live.busy => (live.spec, Plan::default()),
                _ => self.bring_up_named(name, mode, &mut host)?,
            };
            nets.insert(name.clone(), spec);
            plan.append(steps);
        }
        learn_of_host(nets.values_mut());
        Ok((nets, plan))
    }

    fn bring_up_named(
        &mut self,
        name: &NetworkName,
        mode: Mode,
        host: &mut HostPart,
    ) -> Result<(NetworkSpec, Plan), EngineError> {
        let _lock = self.lock_host()?;
        if let Some(live) = self.live(name)? {
            return if live.busy {
                Err(EngineError::Busy(ObjectName::Network(name.clone())))
            } else {
                Ok((live.spec, Plan::default()))
            };
        }
        let (spec, new) = match self.state()?.network(name.as_str())? {
            Some(spec) => (spec, false),
            None if name.as_str() == DEFAULT_NETWORK => {
                (self.resolve(&NetworkRequest::new(name.clone()))?, true)
            }
            None => return Err(EngineError::NotFound(ObjectName::Network(name.clone()))),
        };
        if applies(mode) {
            let plan = self.bring_up(&spec, mode, new)?;
            return Ok((spec, plan));
        }
        // In a dry run the store does not tell what the networks before would have done to the host.
        let part = self.prepare_host_after(host, &spec)?;
        let plan = Self::up_plan(&spec, &part);
        *host = host.and(&part);
        Ok((spec, plan))
    }

    pub(super) fn live(&self, name: &NetworkName) -> Result<Option<LiveNetwork>, EngineError> {
        self.run
            .read(|txn| self.run.networks.get(txn, name.as_str()))
    }

    /// Makes a network's rules and bridge. The host lock is held. A new one is kept in the state store last,
    /// so that it is there only when it works.
    pub(super) fn bring_up(
        &mut self,
        spec: &NetworkSpec,
        mode: Mode,
        new: bool,
    ) -> Result<Plan, EngineError> {
        let part = self.prepare_host(spec)?;
        let plan = Self::up_plan(spec, &part);
        if !applies(mode) {
            return Ok(plan);
        }
        let key = journal_key(&ObjectName::Network(spec.name.clone()));
        let mut live = LiveNetwork {
            spec: spec.clone(),
            loopback_users: 0,
            busy: true,
        };
        self.run.write(|txn| {
            self.run
                .journal
                .put(txn, &key, &self.journal(Work::NetworkUp))?;
            self.run.networks.put(txn, spec.name.as_str(), &live)?;
            self.record_host(txn, &part)
        })?;
        let verb = || format!("create network `{}`", spec.name);
        let mut done = self.carry_out(&plan, verb);
        if rules_there(&done) {
            // Nobody's: the network was not up.
            let mut rules = compile::network(spec);
            rules.retain(|r| matches!(r, Resource::Nft(_)));
            self.carry_out_all(&diff(&[], &rules, "a lost store knew the network"));
            done = self.carry_out(&plan, verb);
        }
        let kept = done.and_then(|()| if new { self.state()?.put(spec) } else { Ok(()) });
        if let Err(error) = kept {
            self.take_down_failed(spec, &key)?;
            return Err(error);
        }
        self.learn_of_docker();
        self.open_doors(spec);
        live.busy = false;
        self.run.write(|txn| {
            self.run.networks.put(txn, spec.name.as_str(), &live)?;
            self.run.journal.delete(txn, &key)
        })?;
        Ok(plan)
    }

    fn up_plan(spec: &NetworkSpec, part: &HostPart) -> Plan {
        let mut plan = part.plan.clone();
        let all = compile::network(spec);
        plan.append(diff(
            &all,
            &spec.found_at_first(&all),
            &format!("network `{}` is new on this host", spec.name),
        ));
        if spec.has_own_bridge() {
            // The host's default for new links may be another.
            let closed = compile::route_localnet(spec, false);
            plan.append(diff(&[closed], &[], "nobody needs the host's loopback yet"));
        }
        plan
    }

    /// After a failure: whatever is there of the network goes, and of the host's part if nobody else needs it.
    fn take_down_failed(&mut self, spec: &NetworkSpec, key: &str) -> Result<(), EngineError> {
        let plan = self.take_down_plan(spec, &[])?;
        self.carry_out_all(&plan);
        self.forget_network(spec, key)
    }

    /// The way to be rid of a network, when those in `gone` are gone already.
    pub(super) fn take_down_plan(
        &mut self,
        spec: &NetworkSpec,
        gone: &[NetworkName],
    ) -> Result<Plan, EngineError> {
        let all = compile::network(spec);
        let mut plan = diff(
            &spec.found_resources(&all),
            &all,
            &format!("network `{}` is removed", spec.name),
        );
        let because = "no bridge of wharf's passes there";
        let doors = self.doors_to_shut(|link| spec.is_managed() && *link == spec.bridge);
        for (at, door) in doors.into_iter().enumerate() {
            let undo = Undo::Ops(vec![opened(&door)]);
            let because = because.to_owned();
            let step = Step {
                op: door,
                undo,
                because,
            };
            plan.steps.insert(at, step);
        }
        if let Some(renamed) = self.renamed_bridge(spec)? {
            let undo = Undo::Ops(vec![renamed.back().op()]);
            let step = Step {
                op: renamed.op(),
                undo,
                because: "somebody gave the bridge another name".to_owned(),
            };
            plan.steps.insert(0, step);
        }
        if self.bridge_is_anothers(spec)? {
            let deletes = |op: &Op| matches!(op, Op::LinkDel { netns: Netns::Host, link } if *link == spec.bridge);
            plan.steps.retain(|step| !deletes(&step.op));
        }
        if self.is_last(spec, gone)? {
            plan.append(self.release_host()?);
        }
        Ok(plan)
    }

    fn renamed_bridge(&mut self, spec: &NetworkSpec) -> Result<Option<Renamed>, EngineError> {
        let there = self.kernel.link(&Netns::Host, &spec.bridge);
        let there = there.map_err(|e| super::host::failed("look at the bridge", &e))?;
        if there.is_some() {
            return Ok(None);
        }
        let links = self.host_links_now()?;
        Ok(renamed(&links, std::slice::from_ref(spec), &[]).pop())
    }

    /// Whether somebody removed the bridge and made a link of his own under its name: the hardware address that wharf
    /// gave is the mark.
    fn bridge_is_anothers(&mut self, spec: &NetworkSpec) -> Result<bool, EngineError> {
        let link = self.kernel.link(&Netns::Host, &spec.bridge);
        let link = link.map_err(|e| super::host::failed("look at the bridge", &e))?;
        let ours = |l: &crate::observe::LinkInfo| {
            l.kind.as_deref() == Some("bridge") && l.mac == Some(spec.bridge_mac)
        };
        Ok(spec.is_managed() && link.is_some_and(|l| !ours(&l)))
    }

    /// Whether no other network needs the host's part.
    fn is_last(&self, spec: &NetworkSpec, gone: &[NetworkName]) -> Result<bool, EngineError> {
        if !spec.is_managed() {
            return Ok(false);
        }
        self.run.read(|txn| {
            for item in self.run.networks.iter(txn)? {
                let (name, other) = item?;
                let stays = name != spec.name.as_str() && !gone.contains(&other.spec.name);
                if stays && other.spec.is_managed() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    pub(super) fn forget_network(
        &mut self,
        spec: &NetworkSpec,
        key: &str,
    ) -> Result<(), EngineError> {
        let last = self.is_last(spec, &[])?;
        self.run.write(|txn| {
            self.run.networks.delete(txn, spec.name.as_str())?;
            self.run.journal.delete(txn, key)?;
            if last { self.forget_host(txn) } else { Ok(()) }
        })
    }

    /// Removes networks; with `force` their containers are disconnected first.
    ///
    /// # Errors
    /// One does not exist or is in use: then none is removed. The kernel's, the store's.
    pub fn network_remove(
        &mut self,
        names: &[NetworkName],
        force: bool,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let mut views: Vec<NetworkView> = Vec::new();
        for name in names {
            let view = self.network(name)?;
            if views.contains(&view) {
                continue;
            }
            if !force && !view.containers.is_empty() {
                return Err(EngineError::NetworkInUse {
                    network: name.clone(),
                    containers: view.containers,
                });
            }
            views.push(view);
        }
        let plan = match mode {
            Mode::Apply => self.remove_all(&views, force)?,
            Mode::DryRun => self.preview_remove(&views)?,
        };
        Ok(Outcome {
            value: (),
            plan,
            notes: self.take_notes(),
        })
    }

    fn remove_all(&mut self, views: &[NetworkView], force: bool) -> Result<Plan, EngineError> {
        /// How often somebody may come in between.
        const ROUNDS: u32 = 50;
        let mut plan = Plan::default();
        for view in views {
            let mut users = view.containers.clone();
            for round in 0.. {
                plan.append(self.disconnect_all(&view.spec.name, &users)?);
                match self.remove_one(&view.spec) {
                    Err(EngineError::NetworkInUse { containers, .. })
                        if force && round < ROUNDS =>
                    {
                        users = containers;
                    }
                    removed => {
                        plan.append(removed?);
                        break;
                    }
                }
            }
        }
        Ok(plan)
    }

    fn preview_remove(&mut self, views: &[NetworkView]) -> Result<Plan, EngineError> {
        let mut plan = self.preview_disconnects(views)?;
        let mut gone = Vec::new();
        for view in views {
            let name = &view.spec.name;
            if self.live(name)?.is_some() && !gone.contains(name) {
                plan.append(self.take_down_plan(&view.spec, &gone)?);
            }
            gone.push(name.clone());
        }
        Ok(plan)
    }

    pub(super) fn remove_one(&mut self, spec: &NetworkSpec) -> Result<Plan, EngineError> {
        let _lock = self.lock_host()?;
        let name = &spec.name;
        if self.live(name)?.is_none() {
            if !spec.is_transient() {
                self.state()?.delete(name.as_str())?;
            }
            return Ok(Plan::default());
        }
        let plan = self.take_down_plan(spec, &[])?;
        let key = journal_key(&ObjectName::Network(name.clone()));
        let users = self.run.write(|txn| {
            let users = self.users(txn, name)?;
            if users.is_empty() {
                self.run
                    .journal
                    .put(txn, &key, &self.journal(Work::NetworkDown))?;
                if let Some(live) = self.run.networks.get(txn, name.as_str())? {
                    self.run.networks.put(
                        txn,
                        name.as_str(),
                        &LiveNetwork { busy: true, ..live },
                    )?;
                }
            }
            Ok(users)
        })?;
        if !users.is_empty() {
            return Err(EngineError::NetworkInUse {
                network: name.clone(),
                containers: users,
            });
        }
        if !spec.is_transient() {
            self.state()?.delete(name.as_str())?;
        }
        let done = self.carry_out(&plan, || format!("remove network `{name}`"));
        if done.is_err() {
            self.carry_out_all(&plan);
        }
        self.forget_network(spec, &key)?;
        done.map(|()| plan)
    }

    pub(super) fn users(
        &self,
        txn: &RoTxn,
        name: &NetworkName,
    ) -> heed::Result<Vec<ContainerName>> {
        let mut users = Vec::new();
        for item in self.run.containers.iter(txn)? {
            let (_, container) = item?;
            if container.attachment(name).is_some() {
                users.push(container.name);
            }
        }
        Ok(users)
    }

    /// Removes every network that has no container.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn network_prune(&mut self, mode: Mode) -> Result<Outcome<Vec<NetworkName>>, EngineError> {
        let unused: Vec<NetworkName> = self
            .networks()?
            .into_iter()
            .filter(|v| v.containers.is_empty())
            .map(|v| v.spec.name)
            .collect();
        let outcome = self.network_remove(&unused, false, mode)?;
        Ok(Outcome {
            value: unused,
            plan: outcome.plan,
            notes: outcome.notes,
        })
    }

    /// What of the host a network's definition depends on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn host_facts(&mut self) -> Result<HostFacts, EngineError> {
        let host = Netns::Host;
        let read = |e: std::io::Error| failed("read the host's links and routes", &e);
        let links = self.kernel.links(&host).map_err(read)?;
        let addrs = self.kernel.addrs(&host).map_err(read)?;
        let routes = self.kernel.routes(&host).map_err(read)?;
        let name_of = |index: u32| {
            links
                .iter()
                .find(|l| l.index == index)
                .and_then(|l| l.name.parse::<IfName>().ok())
        };
        let on_link: Vec<_> = addrs
            .iter()
            .filter_map(|(index, net)| Some((net.trunc(), name_of(*index)?)))
            .collect();
        let egress = self.kernel.default_link().ok().flatten();
        let mut taken: Vec<_> = routes.iter().map(|r| r.dst).collect();
        taken.extend(on_link.iter().map(|(net, _)| *net));
        Ok(HostFacts {
            routes: taken,
            on_link: on_link
                .into_iter()
                .filter(|(net, _)| net.prefix_len() < Family::of_net(*net).bits())
                .collect(),
            interfaces: links.iter().filter_map(|l| l.name.parse().ok()).collect(),
            egress: egress.as_ref().and_then(|l| l.name.parse().ok()),
            egress_mtu: egress.map(|l| l.mtu),
            id: random_id()?,
            now: now(),
        })
    }

    /// The host may get such an address later, or have it routed: it is no error, as it is none for Docker and Podman.
    fn foreign_sources(&mut self, spec: &NetworkSpec) -> Result<Vec<Note>, EngineError> {
        let chosen = spec.subnets.iter().map(|s| s.family());
        let chosen: Vec<_> = chosen.filter_map(|f| spec.settings.snat(f)).collect();
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let addrs = self.kernel.addrs(&Netns::Host);
        let addrs = addrs.map_err(|e| failed("list the host's addresses", &e))?;
        let has = |addr: &IpAddr| addrs.iter().any(|(_, net)| net.addr() == *addr);
        let foreign = chosen.into_iter().filter(|addr| !has(addr));
        Ok(foreign
            .map(|addr| Note::ForeignSource(spec.name.clone(), addr))
            .collect())
    }
}

/// 32 random bytes from the kernel.
pub(super) fn random_id() -> Result<[u8; 32], EngineError> {
    let mut id = [0u8; 32];
    // SAFETY: the pointer and length are those of a live, writable array.
    let got = unsafe { libc::getrandom(id.as_mut_ptr().cast(), id.len(), 0) };
    if got == id.len() as isize {
        return Ok(id);
    }
    let errno = std::io::Error::last_os_error();
    Err(EngineError::System {
        verb: "get random bytes".to_owned(),
        detail: errno.to_string(),
        errno: errno.raw_os_error().unwrap_or(0),
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Whether rules could not be made since they are there already.
fn rules_there(done: &Result<(), EngineError>) -> bool {
    let Err(EngineError::Plan { error, .. }) = done else {
        return false;
    };
    matches!(*error.error.op, Op::Nft(_)) && error.error.errno == libc::EEXIST
}
