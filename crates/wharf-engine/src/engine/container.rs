//! Containers: made, removed, put on networks and taken off them.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{
    AttachRequest, Attachment, Container, ContainerNetns, Phase, ProcessRef, assign_default_routes,
};
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::Netns;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{DEFAULT_NETWORK, NetworkSpec};
use wharf_core::plan::Plan;

use crate::api::{ContainerRequest, Mode, NetnsRequest, Note, ObjectName, Outcome};
use crate::engine::host::failed;
use crate::engine::network::{now, random_id};
use crate::engine::{Engine, Networks, applies, identity, journal_key};
use crate::error::EngineError;
use crate::process::netns;
use crate::store::{LeaseError, Work};

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
        match self.try_create(request, mode) {
            // What is taken may be a dead owner's.
            Err(error) if is_shortage(&error) && applies(mode) && self.reclaim_dead()? => {
                self.try_create(request, mode)
            }
            Err(error)
                if network_damaged(&error) && applies(mode) && self.mend_bridges(request)? =>
            {
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
        let netns = self.choose_netns(request)?;
        let names: Vec<NetworkName> = wanted.iter().map(|a| a.network.clone()).collect();
        let (nets, mut plan) = self.ensure_up(&names, mode)?;
        let mut container = Container {
            name: request.name.clone(),
            id: random_id()?.iter().map(|b| format!("{b:02x}")).collect(),
            owner: request.owner.clone(),
            netns,
            process: None,
            exit_status: None,
            command: request.command.clone(),
            attachments: Vec::new(),
            ports: request.ports.clone(),
            created: now(),
        };
        self.check_listeners(&container.ports, &nets)?;
        let (foreign, loopback) = self.found_inside(&container.netns)?;
        let mut txn = self.run.begin()?;
        self.check_new(&txn, &container)?;
        for a in wanted {
            self.join(&mut txn, &mut container, a, &nets, &foreign)?;
        }
        assign_default_routes(&mut container.attachments, |name| nets.get(name));
        self.take_ports(&mut txn, &container.name, &container.ports)?;
        let own = self.create_plan(&txn, &container, &nets, loopback)?;
        if !applies(mode) {
            drop(txn);
            plan.append(own);
            let notes = self.notes_of_create(&container, &nets);
            return Ok(Outcome {
                value: container,
                plan,
                notes,
            });
        }
        self.count_new_loopback(&mut txn, &[], &container, &nets)?;
        let key = journal_key(&ObjectName::Container(container.name.clone()));
        self.put(&mut txn, &container, Some((&key, Work::Create)))?;
        self.run.commit(txn)?;
        if let Err(error) = self.carry_out(&own, || verb_create(&container)) {
            self.forget_container(&container, &nets, &key)?;
            return Err(error);
        }
        for a in &mut container.attachments {
            a.phase = Phase::Active;
        }
        container.netns.identity = std::fs::metadata(&container.netns.path)
            .ok()
            .map(|m| (m.dev(), m.ino()));
        self.run.write(|txn| {
            self.run
                .containers
                .put(txn, container.name.as_str(), &container)?;
            self.run.journal.delete(txn, &key)
        })?;
        plan.append(own);
        let notes = self.notes_of_create(&container, &nets);
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
        plan.append(diff(
            &compile::container(container, |name| nets.get(name)),
            &there,
            &because,
        ));
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

    fn choose_netns(&mut self, request: &ContainerRequest) -> Result<ContainerNetns, EngineError> {
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
    fn join(
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

    fn mac_owner(
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
    fn found_inside(&mut self, netns: &ContainerNetns) -> Result<(Vec<IfName>, bool), EngineError> {
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

    fn lease_all(
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

    /// Writes a container's record, and the journal's entry if there is work.
    pub(super) fn put(
        &self,
        txn: &mut RwTxn,
        container: &Container,
        work: Option<(&str, Work)>,
    ) -> Result<(), EngineError> {
        let put = (|| {
            if let Some((key, work)) = work {
                self.run.journal.put(txn, key, &self.journal(work))?;
            }
            self.run
                .containers
                .put(txn, container.name.as_str(), container)
        })();
        put.map_err(|e| self.run.fail(e))
    }

    /// Gives back everything a container's record holds, and the record.
    pub(super) fn forget_container(
        &mut self,
        container: &Container,
        nets: &Networks,
        key: &str,
    ) -> Result<(), EngineError> {
        let carriers: Vec<NetworkName> = self.loopback_networks(container, nets);
        self.run.write(|txn| {
            for a in &container.attachments {
                self.release_addresses(txn, a)?;
            }
            for mapping in &container.ports {
                self.run.free_port(txn, mapping)?;
            }
            for name in &carriers {
                self.count_loopback(txn, name, -1)?;
            }
            self.run.containers.delete(txn, container.name.as_str())?;
            self.run.journal.delete(txn, key).map(|_| ())
        })
    }

    pub(super) fn release_addresses(&self, txn: &mut RwTxn, a: &Attachment) -> heed::Result<()> {
        for addr in &a.addresses {
            self.run.release(txn, &a.network, addr.addr())?;
        }
        Ok(())
    }

    /// Removes containers.
    ///
    /// # Errors
    /// One does not exist, or its process runs and `force` is not given: then none is removed.
    pub fn remove(
        &mut self,
        names: &[ContainerName],
        force: bool,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        const ROUNDS: u32 = 250;
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
        for _ in 0..ROUNDS {
            match self.try_remove(names, force, mode) {
                // By force: whoever is at work on it will be done in a moment.
                Err(EngineError::Busy(_)) if force => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
        self.try_remove(names, force, mode)
    }

    fn try_remove(
        &mut self,
        names: &[ContainerName],
        force: bool,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let mut containers = Vec::new();
        let mut lost = Plan::default();
        for name in names {
            let container = match self.container(name) {
                Err(EngineError::NotFound(_)) if force => {
                    lost.append(self.lost_links(name)?);
                    continue;
                }
                found => found?,
            };
            if !force && container.process.is_some_and(identity::lives) {
                return Err(EngineError::Running(name.clone()));
            }
            containers.push(container);
        }
        let nets = self.networks_of(&containers)?;
        let mut all: Vec<_> = containers
            .iter()
            .flat_map(|c| compile::container(c, |name| nets.get(name)))
            .collect();
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
        plan.append(
            self.run
                .read(|txn| self.loopback_off_plan(txn, &containers, &nets))?,
        );
        if applies(mode) {
            self.remove_for_real(containers, &nets, &plan)?;
            if !lost.is_empty() {
                self.carry_out_all(&lost);
                self.rebuild_rules()?;
            }
        }
        plan.append(lost);
        Ok(Outcome {
            value: (),
            plan,
            notes: self.take_notes(),
        })
    }

    fn remove_for_real(
        &mut self,
        mut containers: Vec<Container>,
        nets: &Networks,
        plan: &Plan,
    ) -> Result<(), EngineError> {
        for container in &containers {
            self.end_process(container)?;
        }
        let taken = self.run.write(|txn| {
            for container in &containers {
                if let Some(other) = self.worked_on(txn, &container.name)? {
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
                self.run
                    .containers
                    .put(txn, container.name.as_str(), container)?;
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
        for container in &containers {
            let key = journal_key(&ObjectName::Container(container.name.clone()));
            let mut as_it_was = container.clone();
            as_it_was
                .attachments
                .iter_mut()
                .for_each(|a| a.phase = Phase::Active);
            self.forget_container(&as_it_was, nets, &key)?;
        }
        self.turn_loopback_off(nets)
    }

    /// Whether somebody else was faster: the container is gone, or another process is at work on it.
    fn worked_on(&self, txn: &RwTxn, name: &ContainerName) -> heed::Result<Option<EngineError>> {
        let object = || ObjectName::Container(name.clone());
        if self.run.containers.get(txn, name.as_str())?.is_none() {
            return Ok(Some(EngineError::NotFound(object())));
        }
        let entry = self.run.journal.get(txn, &journal_key(&object()))?;
        Ok(entry
            .filter(|e| e.process != self.me && identity::lives(e.process))
            .map(|_| EngineError::Busy(object())))
    }

    /// Puts a container on one more network.
    ///
    /// # Errors
    /// It is on it already, or something asked for cannot be had; the kernel refused, and all is as before.
    pub fn connect(
        &mut self,
        request: &AttachRequest,
        name: &ContainerName,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let before = self.container(name)?;
        let (joined, mut plan) = self.ensure_up(std::slice::from_ref(&request.network), mode)?;
        let mut nets = self.networks_of(std::slice::from_ref(&before))?;
        nets.extend(joined);
        let (foreign, _) = self.found_inside(&before.netns)?;
        let mut txn = self.run.begin()?;
        let mut after = before.clone();
        self.join(&mut txn, &mut after, request, &nets, &foreign)?;
        assign_default_routes(&mut after.attachments, |name| nets.get(name));
        let own = self.change_plan(
            &txn,
            &before,
            &after,
            &nets,
            &format!("container `{name}` joins network `{}`", request.network),
        )?;
        if applies(mode) {
            self.count_new_loopback(
                &mut txn,
                &self.loopback_networks(&before, &nets),
                &after,
                &nets,
            )?;
            let key = journal_key(&ObjectName::Container(name.clone()));
            self.put(&mut txn, &after, Some((&key, Work::Attach)))?;
            self.run.commit(txn)?;
            let done = self.carry_out(&own, || {
                format!(
                    "connect container `{name}` to network `{}`",
                    request.network
                )
            });
            self.finish_attach(&before, after, &nets, done)?;
        } else {
            drop(txn);
        }
        plan.append(own);
        let notes = self.take_notes();
        Ok(Outcome {
            value: (),
            plan,
            notes,
        })
    }

    /// The record as it is after an attempt to join.
    fn finish_attach(
        &mut self,
        before: &Container,
        mut after: Container,
        nets: &Networks,
        done: Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let key = journal_key(&ObjectName::Container(before.name.clone()));
        if done.is_ok() {
            after
                .attachments
                .iter_mut()
                .for_each(|a| a.phase = Phase::Active);
        }
        let (lb_before, lb_after) = (
            self.loopback_networks(before, nets),
            self.loopback_networks(&after, nets),
        );
        self.run.write(|txn| {
            if done.is_ok() {
                for name in lb_before.iter().filter(|n| !lb_after.contains(n)) {
                    self.count_loopback(txn, name, -1)?;
                }
                self.run.containers.put(txn, after.name.as_str(), &after)?;
            } else {
                for name in lb_after.iter().filter(|n| !lb_before.contains(n)) {
                    self.count_loopback(txn, name, -1)?;
                }
                for a in after
                    .attachments
                    .iter()
                    .filter(|a| before.attachment(&a.network).is_none())
                {
                    self.release_addresses(txn, a)?;
                }
                self.run.containers.put(txn, before.name.as_str(), before)?;
            }
            self.run.journal.delete(txn, &key)
        })?;
        self.turn_loopback_off(nets)?;
        done
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// It is not on it; the kernel refused.
    pub fn disconnect(
        &mut self,
        network: &NetworkName,
        name: &ContainerName,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let plan = self.disconnect_one(network, name, mode)?;
        Ok(Outcome {
            value: (),
            plan,
            notes: self.take_notes(),
        })
    }

    pub(super) fn disconnect_all(
        &mut self,
        network: &NetworkName,
        names: &[ContainerName],
        mode: Mode,
    ) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        for name in names {
            plan.append(self.disconnect_one(network, name, mode)?);
        }
        Ok(plan)
    }

    fn disconnect_one(
        &mut self,
        network: &NetworkName,
        name: &ContainerName,
        mode: Mode,
    ) -> Result<Plan, EngineError> {
        let before = self.container(name)?;
        if before.attachment(network).is_none() {
            if self.live(network)?.is_none() {
                self.network(network)?;
            }
            return Err(EngineError::NotAttached {
                container: name.clone(),
                network: network.clone(),
            });
        }
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        let mut after = before.clone();
        after.attachments.retain(|a| a.network != *network);
        assign_default_routes(&mut after.attachments, |name| nets.get(name));
        let because = format!("container `{name}` leaves network `{network}`");
        let txn = self.run.begin()?;
        let plan = self.change_plan(&txn, &before, &after, &nets, &because)?;
        if !applies(mode) {
            return Ok(plan);
        }
        let mut txn = txn;
        let key = journal_key(&ObjectName::Container(name.clone()));
        self.count_new_loopback(
            &mut txn,
            &self.loopback_networks(&before, &nets),
            &after,
            &nets,
        )?;
        let mut leaving = before.clone();
        leaving
            .attachments
            .iter_mut()
            .filter(|a| a.network == *network)
            .for_each(|a| a.phase = Phase::Leaving);
        self.put(&mut txn, &leaving, Some((&key, Work::Attach)))?;
        self.run.commit(txn)?;
        let done = self.carry_out(&plan, || {
            format!("disconnect container `{name}` from network `{network}`")
        });
        if done.is_err() {
            self.carry_out_all(&plan);
        }
        self.finish_leave(&before, &after, &nets, &key)?;
        done.map(|()| plan)
    }

    pub(super) fn finish_leave(
        &mut self,
        before: &Container,
        after: &Container,
        nets: &Networks,
        key: &str,
    ) -> Result<(), EngineError> {
        let (lb_before, lb_after) = (
            self.loopback_networks(before, nets),
            self.loopback_networks(after, nets),
        );
        self.run.write(|txn| {
            for name in lb_before.iter().filter(|n| !lb_after.contains(n)) {
                self.count_loopback(txn, name, -1)?;
            }
            for a in before
                .attachments
                .iter()
                .filter(|a| after.attachment(&a.network).is_none())
            {
                self.release_addresses(txn, a)?;
            }
            self.run.containers.put(txn, after.name.as_str(), after)?;
            self.run.journal.delete(txn, key)
        })?;
        self.turn_loopback_off(nets)
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
        let mut container = self.container(name)?;
        container.process = process;
        container.exit_status = exit_status;
        self.run
            .write(|txn| self.run.containers.put(txn, name.as_str(), &container))
    }

    /// The definitions of the networks these containers are on.
    pub(super) fn networks_of(
        &mut self,
        containers: &[Container],
    ) -> Result<Networks, EngineError> {
        let names = containers
            .iter()
            .flat_map(|c| c.attachments.iter().map(|a| &a.network));
        self.run.read(|txn| {
            let mut nets = Networks::new();
            for name in names {
                if !nets.contains_key(name)
                    && let Some(live) = self.run.networks.get(txn, name.as_str())?
                {
                    nets.insert(name.clone(), live.spec);
                }
            }
            Ok(nets)
        })
    }

    fn notes_of_create(&mut self, container: &Container, nets: &Networks) -> Vec<Note> {
        let mut notes = self.take_notes();
        if !container.ports.is_empty()
            && compile::port_carriers(container, |n| nets.get(n)).is_empty()
        {
            notes.push(Note::PortsIgnored(container.name.clone()));
        }
        for net in nets.values() {
            notes.extend(self.closed_doors(net));
        }
        notes
    }

    /// A process that wharf started in the container is ended: asked first, then forced.
    fn end_process(&self, container: &Container) -> Result<(), EngineError> {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
        let Some(process) = container.process.filter(|p| identity::lives(*p)) else {
            return Ok(());
        };
        let ended = crate::process::liveness::kill_and_wait(
            process.pid as u32,
            process.start_time,
            PATIENCE,
        );
        ended.map(|_| ()).map_err(|e| EngineError::System {
            verb: format!(
                "end process {} of container `{}`",
                process.pid, container.name
            ),
            detail: e.to_string(),
            errno: 0,
        })
    }
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

/// UDP has no handshake: a flow that went to the host itself before goes on past a new mapping until its
/// connection tracking entry is gone.
pub(super) fn flush_udp(ports: &[wharf_core::publish::PortMapping]) -> Plan {
    flush(
        ports
            .iter()
            .filter(|p| p.protocol == wharf_core::publish::Protocol::Udp),
        "flows from before the mapping",
    )
}

/// Flows that came by a mapping end with it.
pub(super) fn flush_all(ports: &[wharf_core::publish::PortMapping]) -> Plan {
    flush(ports.iter(), "flows of the mapping")
}

fn flush<'a>(
    ports: impl Iterator<Item = &'a wharf_core::publish::PortMapping>,
    because: &str,
) -> Plan {
    let mut plan = Plan::default();
    for mapping in ports {
        let op = wharf_core::op::Op::ConntrackFlush {
            protocol: mapping.protocol,
            host_ip: mapping.bound_to(),
            first: mapping.host.first(),
            last: mapping.host.last(),
        };
        plan.push(
            op,
            wharf_core::plan::Undo::Irreversible("flows are tracked again by themselves"),
            because,
        );
    }
    plan
}
