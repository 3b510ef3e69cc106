//! Containers: made, removed, put on networks and taken off them.

use std::os::unix::fs::MetadataExt;

use heed::RwTxn;
use wharf_core::attach::{
    AttachRequest, Attachment, Container, Phase, ProcessRef, assign_default_routes,
};
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::{DEFAULT_NETWORK, NetworkSpec};
use wharf_core::plan::Plan;
use wharf_core::publish::PortMapping;

use crate::api::{ContainerRequest, Mode, Note, ObjectName, Outcome};
use crate::engine::flows::flush_udp;
use crate::engine::free_ports;
use crate::engine::host::learn_of_host;
use crate::engine::network::{now, random_id};
use crate::engine::shared::Withdrawn;
use crate::engine::{Engine, Networks, applies, identity, journal_key, programs, settings};
use crate::error::EngineError;
use crate::store::Work;

impl Engine {
    /// Makes a container: its namespace if asked for, its attachments, its ports.
    ///
    /// # Errors
    /// Something asked for cannot be had; the kernel refused, and everything is as before.
    pub fn create(
        &mut self,
        request: &ContainerRequest,
        mode: Mode,
    ) -> Result<Outcome<Container>, EngineError> {
        let made = applies(mode) && self.makes_default(&request.networks)?;
        let result = self.create_or_mend(request, mode);
        if result.is_err() && made {
            self.forget_default();
        }
        result
    }

    /// Whether the default network is to be made for a container on these networks.
    ///
    /// # Errors
    /// The store's.
    pub fn makes_default(&mut self, networks: &[AttachRequest]) -> Result<bool, EngineError> {
        let default: NetworkName = DEFAULT_NETWORK.parse().expect("a valid name");
        let asked = networks.is_empty() || networks.iter().any(|a| a.network == default);
        if !asked || self.live(&default)?.is_some() {
            return Ok(false);
        }
        Ok(self.state()?.network(DEFAULT_NETWORK)?.is_none())
    }

    /// Takes the default network back that was made for a container which could not be; who came meanwhile keeps it.
    pub fn forget_default(&mut self) {
        let default = DEFAULT_NETWORK.parse().expect("a valid name");
        let _ = self.network_remove(&[default], false, Mode::Apply);
    }

    fn create_or_mend(
        &mut self,
        request: &ContainerRequest,
        mode: Mode,
    ) -> Result<Outcome<Container>, EngineError> {
        match self.try_create(request, mode) {
            // What is taken may be a dead owner's.
            Err(error) if is_shortage(&error) && applies(mode) && self.reclaim_dead()? => {
                self.try_create(request, mode)
            }
            Err(error) if network_damaged(&error) && applies(mode) && self.mends_something()? => {
                self.try_create(request, mode)
            }
            result => result,
        }
    }

    fn try_create(
        &mut self,
        request: &ContainerRequest,
        mode: Mode,
    ) -> Result<Outcome<Container>, EngineError> {
        let default = [AttachRequest::new(
            DEFAULT_NETWORK.parse().expect("a valid name"),
        )];
        let wanted = if request.networks.is_empty() {
            &default[..]
        } else {
            &request.networks[..]
        };
        let names: Vec<NetworkName> = wanted.iter().map(|a| a.network.clone()).collect();
        if let Some(at) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
            return Err(EngineError::NetworkTwice(names[at].clone()));
        }
        let netns = self.choose_netns(request)?;
        let (nets, mut plan) = self.ensure_up(&names, mode)?;
        let mut container = Container {
            name: request.name.clone(),
            id: match &request.id {
                Some(id) => id.clone(),
                None => random_id()?.iter().map(|b| format!("{b:02x}")).collect(),
            },
            owner: request.owner.clone(),
            client: request.client.clone(),
            netns,
            process: None,
            exit_status: None,
            command: request.command.clone(),
            transient: request.transient,
            attachments: Vec::new(),
            ports: Vec::new(),
            labels: request.labels.clone(),
            created: now(),
        };
        if !request.ports_held {
            self.check_listeners(&free_ports::exact(&request.ports), &nets)?;
        }
        let found = self.found_inside(&container, wanted, &nets)?;
        let sysctls = self.sysctls_before(&container.netns.path, wanted)?;
        let mut txn = self.run.begin()?;
        self.check_new(&txn, &container)?;
        self.check_live(&txn, &names, mode)?;
        for a in wanted {
            self.join(&mut txn, &mut container, a, &nets, &found)?;
        }
        assign_default_routes(&mut container.attachments, |name| nets.get(name));
        container.ports = self.choose_ports(&txn, &request.ports, &nets)?;
        let mut about = free_ports::chosen(&request.ports, &container.ports);
        about.extend(self.check_served(&container, &container.ports, &nets)?);
        self.take_ports(&mut txn, &container.name, &container.ports)?;
        let mut own = self.forget_old_owners(&mut txn, &mut container.attachments, &nets)?;
        own.append(self.create_plan(&txn, &container, &nets, found.loopback_is_up)?);
        settings::give_back(&mut own, &sysctls);
        if !applies(mode) {
            drop(txn);
            plan.append(own);
            let beside: Vec<NetworkSpec> = nets.values().cloned().collect();
            plan.append(self.beside_others(&beside));
            let notes = self.notes_of_create(about, &nets, mode);
            return Ok(Outcome {
                value: container,
                plan,
                notes,
            });
        }
        self.count_new_loopback(&mut txn, &[], &container, &nets)?;
        let key = journal_key(&ObjectName::Container(container.name.clone()));
        self.put(&mut txn, &container, (&key, Work::Create))?;
        self.run.commit(txn)?;
        if let Err(error) = self.carry_out(&own, || verb_create(&container)) {
            self.forget_container(&container, &nets, None)?;
            return Err(error);
        }
        for a in &mut container.attachments {
            a.phase = Phase::Active;
        }
        // One that is adopted was looked at before.
        if container.netns.identity.is_none() {
            container.netns.identity = std::fs::metadata(&container.netns.path)
                .ok()
                .map(|m| (m.dev(), m.ino()));
        }
        let carriers = self.loopback_networks(&container, &nets);
        let carriers = self.unsettled(carriers.into_iter().map(|name| (name, 0)))?;
        self.write_last(&carriers, None, |engine, txn| {
            engine.run.put_container(txn, &container)?;
            engine.run.journal.delete(txn, &key).map(|_| ())
        })?;
        plan.append(own);
        let notes = self.notes_of_create(about, &nets, mode);
        Ok(Outcome {
            value: container,
            plan,
            notes,
        })
    }

    fn create_plan(
        &self,
        txn: &RwTxn,
        container: &Container,
        nets: &Networks,
        loopback_is_up: bool,
    ) -> Result<Plan, EngineError> {
        let mut plan = self.turn_loopback_on(txn, container, nets)?;
        let because = format!("container `{}` is new", container.name);
        let there: Vec<_> = loopback_is_up
            .then(|| compile::loopback(&container.netns.path))
            .into_iter()
            .collect();
        let all = self.resources(txn, container, nets);
        let all = all.map_err(|e| self.run.fail(e))?;
        plan.append(diff(&all, &there, &because));
        plan.append(flush_udp(&container.ports));
        Ok(plan)
    }

    fn check_new(&self, txn: &RwTxn, container: &Container) -> Result<(), EngineError> {
        let there = self
            .run
            .containers
            .get(txn, container.name.as_str())
            .map_err(|e| self.run.fail(e))?;
        match there {
            Some(_) => Err(EngineError::Exists(ObjectName::Container(
                container.name.clone(),
            ))),
            None => Ok(()),
        }
    }

    /// Writes a container's record and the journal's entry of the work on it.
    pub(super) fn put(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        (key, work): (&str, Work),
    ) -> Result<(), EngineError> {
        let put = (|| {
            self.run.journal.put(txn, key, &self.journal(work))?;
            self.put_record(txn, container)
        })();
        put.map_err(|e| self.run.fail(e))
    }

    /// Gives back everything a container's record holds, and the record. `plan` is by what its resources went; none if they
    /// were taken back.
    pub(super) fn forget_container(
        &mut self,
        container: &Container,
        nets: &Networks,
        plan: Option<&Plan>,
    ) -> Result<(), EngineError> {
        let settle = self.loopback_networks(container, nets);
        self.forget_and_settle(std::slice::from_ref(container), nets, &settle, plan)
    }

    /// As [`Engine::forget_container`], for many in one transaction.
    fn forget_and_settle(
        &mut self,
        containers: &[Container],
        nets: &Networks,
        settle: &[NetworkName],
        plan: Option<&Plan>,
    ) -> Result<(), EngineError> {
        let carriers = self.loopback_users(containers, nets);
        let ports: Vec<PortMapping> = containers.iter().flat_map(|c| c.ports.clone()).collect();
        let withdrawn = Withdrawn {
            ports: &ports,
            plan,
        };
        self.write_last(settle, Some(withdrawn), |engine, txn| {
            for container in containers {
                for a in &container.attachments {
                    engine.release_addresses(txn, &container.name, a)?;
                }
                for mapping in &container.ports {
                    engine.run.free_port(txn, mapping)?;
                }
                let key = journal_key(&ObjectName::Container(container.name.clone()));
                engine.run.delete_container(txn, &container.name)?;
                engine.run.journal.delete(txn, &key)?;
            }
            for (name, users) in &carriers {
                engine.count_loopback(txn, name, -users.cast_signed())?;
            }
            Ok(())
        })
    }

    /// Gives an attachment's addresses back, but for those that are another's: a lost store had them handed out again.
    pub(super) fn release_addresses(
        &self,
        txn: &mut RwTxn,
        container: &ContainerName,
        a: &Attachment,
    ) -> heed::Result<()> {
        for addr in a.addresses.iter().map(|net| net.addr()) {
            let by = self.run.lease_owner(txn, &a.network, addr)?;
            if by.is_none_or(|by| by == container.as_str()) {
                self.run.release(txn, &a.network, addr, Some(a.mac))?;
            }
        }
        Ok(())
    }

    /// Removes containers; the value names those that were there, or of whom something was.
    ///
    /// # Errors
    /// One does not exist, or its process runs and `force` is not given: then none is removed.
    pub fn remove(
        &mut self,
        names: &[ContainerName],
        force: bool,
        mode: Mode,
    ) -> Result<Outcome<Vec<ContainerName>>, EngineError> {
        self.in_turn(|engine| engine.try_remove(names, force, mode))
    }

    fn try_remove(
        &mut self,
        names: &[ContainerName],
        force: bool,
        mode: Mode,
    ) -> Result<Outcome<Vec<ContainerName>>, EngineError> {
        let mut containers = Vec::new();
        let mut lost = Plan::default();
        let mut removed = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                continue;
            }
            let container = match self.container(name) {
                Err(EngineError::NotFound(_)) if force => {
                    let links = self.lost_parts(name)?;
                    if !links.is_empty() {
                        removed.push(name.clone());
                    }
                    lost.append(links);
                    continue;
                }
                found => found?,
            };
            if !force && container.process.is_some_and(identity::lives) {
                return Err(EngineError::Running(name.clone()));
            }
            removed.push(name.clone());
            containers.push(identity::without_anothers(container));
        }
        if applies(mode) {
            self.name_cables(&containers)?;
        }
        let nets = self.networks_of(&containers)?;
        let mut all: Vec<_> = containers
            .iter()
            .flat_map(|c| compile::container(c, |name| nets.get(name)))
            .collect();
        let going: Vec<_> = containers.iter().map(|c| &c.name).collect();
        self.run
            .read(|txn| self.keep_shared(txn, &going, &mut all))?;
        // Links next to links: one message removes them all.
        all.sort_by_key(compile::rank);
        let because = match names {
            [one] => format!("container `{one}` is removed"),
            _ => format!("{} containers are removed", names.len()),
        };
        let mut plan = diff(&[], &all, &because);
        for container in &containers {
            // The flows of other protocols end by themselves: nobody is there to answer.
            plan.append(flush_udp(&container.ports));
        }
        let off = self
            .run
            .read(|txn| self.loopback_off_plan(txn, &containers, &nets, &[]))?;
        if applies(mode) {
            self.remove_for_real(containers.clone(), &nets, &plan, force)?;
            if !lost.is_empty() {
                self.carry_out_all(&lost);
                self.mend(Mode::Apply)?;
            }
        }
        // It went with the last record, if still nobody needed it then.
        plan.append(off);
        plan.append(lost);
        if !applies(mode) {
            let going: Vec<_> = containers.iter().map(|c| &c.name).collect();
            plan.append(self.preview_release(&nets, &going)?);
        }
        Ok(Outcome {
            value: removed,
            plan,
            notes: self.take_notes(),
        })
    }

    fn remove_for_real(
        &mut self,
        mut containers: Vec<Container>,
        nets: &Networks,
        plan: &Plan,
        force: bool,
    ) -> Result<(), EngineError> {
        programs::end(&containers, force)?;
        let taken = self.run.write(|txn| {
            for container in &containers {
                if let Some(other) = self.whose_turn(txn, container, true)? {
                    return Ok(Some(other));
                }
            }
            for container in &mut containers {
                let key = journal_key(&ObjectName::Container(container.name.clone()));
                container
                    .attachments
                    .iter_mut()
                    .for_each(|a| a.phase = Phase::Leaving);
                self.run
                    .journal
                    .put(txn, &key, &self.journal(Work::Remove))?;
                self.run.put_container(txn, container)?;
            }
            Ok(None)
        })?;
        if let Some(error) = taken {
            return Err(error);
        }
        let done = self.carry_out(plan, || match containers.as_slice() {
            [one] => format!("remove container `{}`", one.name),
            many => format!("remove {} containers", many.len()),
        });
        // What is being removed stays removed: a step back would only bring half of it again.
        if done.is_err() {
            self.carry_out_all(plan);
        }
        for a in containers.iter_mut().flat_map(|c| &mut c.attachments) {
            a.phase = Phase::Active;
        }
        let settle = self.unsettled(self.loopback_users(&containers, nets).into_iter())?;
        self.forget_and_settle(&containers, nets, &settle, Some(plan))?;
        self.release(nets)
    }

    /// Whether a container's namespace is still the one it was made with.
    pub fn is_there(&self, container: &Container) -> bool {
        identity::namespace_lives(container)
    }

    /// Records a container's process, and how it ended.
    ///
    /// # Errors
    /// There is no such container; the store's.
    pub fn set_process(
        &mut self,
        name: &ContainerName,
        process: Option<ProcessRef>,
        exit_status: Option<i32>,
    ) -> Result<(), EngineError> {
        self.update_record(name, |record| {
            // A program may have ended before it is known that it began.
            if process.is_none() || record.exit_status.is_none() {
                (record.process, record.exit_status) = (process, exit_status);
            }
        })
    }

    /// The definitions of the networks these containers are on.
    pub(super) fn networks_of(
        &mut self,
        containers: &[Container],
    ) -> Result<Networks, EngineError> {
        let names = containers
            .iter()
            .flat_map(|c| c.attachments.iter().map(|a| &a.network));
        let mut nets = self.run.read(|txn| {
            let mut nets = Networks::new();
            for name in names {
                if !nets.contains_key(name)
                    && let Some(live) = self.run.networks.get(txn, name.as_str())?
                {
                    nets.insert(name.clone(), live.spec);
                }
            }
            Ok(nets)
        })?;
        learn_of_host(nets.values_mut());
        Ok(nets)
    }

    fn notes_of_create(&mut self, about: Vec<Note>, nets: &Networks, mode: Mode) -> Vec<Note> {
        let mut notes = self.take_notes();
        notes.extend(about);
        if applies(mode) {
            self.learn_of_docker();
        }
        for net in nets.values() {
            notes.extend(self.closed_doors(net, mode));
        }
        notes
    }
}

/// Something asked for is somebody's.
fn is_shortage(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::AddressTaken { .. }
            | EngineError::PortTaken { .. }
            | EngineError::PoolEmpty { .. }
            | EngineError::MacTaken { .. }
    )
}

/// A link or file of the network is not there.
fn network_damaged(error: &EngineError) -> bool {
    matches!(error, EngineError::Plan { error, .. } if matches!(error.error.errno, libc::ENODEV | libc::ENOENT))
}

fn verb_create(container: &Container) -> String {
    let nets: Vec<String> = container
        .attachments
        .iter()
        .map(|a| format!("`{}`", a.network))
        .collect();
    format!(
        "create container `{}` on network {}",
        container.name,
        nets.join(", ")
    )
}
