//! Published ports: taken, checked against the host, added to and removed from running containers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use heed::{RoTxn, RwTxn};
use wharf_core::addr::Family;
use wharf_core::attach::Container;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::publish::{PortMapping, PortRequest};

use crate::api::{Mode, ObjectName, Outcome};
use crate::engine::flows::{flush_all, flush_udp};
use crate::engine::free_ports;
use crate::engine::host::{failed, failed_op};
use crate::engine::shared::Withdrawn;
use crate::engine::{Engine, Networks, applies, journal_key};
use crate::error::EngineError;
use crate::kernel::Kernel;
use crate::store::{LiveNetwork, Work};

impl Engine {
    /// Publishes further ports of a running container.
    ///
    /// # Errors
    /// A port is taken; the kernel refused, and all is as before.
    pub fn port_add(
        &mut self,
        name: &ContainerName,
        ports: &[PortRequest],
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        self.in_turn(|engine| engine.try_port_add(name, ports, mode))
    }

    fn try_port_add(
        &mut self,
        name: &ContainerName,
        ports: &[PortRequest],
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let before = self.container(name)?;
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        let there = |p: &PortRequest| p.exact().is_some_and(|p| before.ports.contains(&p));
        let new: Vec<PortRequest> = ports.iter().copied().filter(|p| !there(p)).collect();
        self.check_listeners(&free_ports::exact(&new), &nets)?;
        let mut txn = self.run.begin()?;
        if applies(mode) {
            self.check_turn(&txn, &before)?;
        }
        let wanted = new;
        let new = self.choose_ports(&txn, &wanted, &nets)?;
        let mut about = free_ports::chosen(&wanted, &new);
        about.extend(self.check_served(&before, &new, &nets)?);
        let mut after = before.clone();
        after.ports.extend(&new);
        self.take_ports(&mut txn, name, &new)?;
        let mut plan = self.change_plan(
            &txn,
            &before,
            &after,
            &nets,
            &format!("container `{name}` publishes more ports"),
        )?;
        plan.append(flush_udp(&new));
        if applies(mode) && !new.is_empty() {
            let key = journal_key(&ObjectName::Container(name.clone()));
            self.count_new_loopback(
                &mut txn,
                &self.loopback_networks(&before, &nets),
                &after,
                &nets,
            )?;
            self.put(&mut txn, &after, (&key, Work::PortAdd(new.clone())))?;
            self.run.commit(txn)?;
            let done = self.carry_out(&plan, || format!("publish ports of container `{name}`"));
            let keep = if done.is_ok() { &after } else { &before };
            let withdrawn = Withdrawn {
                ports: if done.is_ok() { &[] } else { &new },
                plan: None,
            };
            self.finish_ports(&after, keep, withdrawn, &nets, &key)?;
            done?;
        } else {
            drop(txn);
        }
        let mut notes = self.take_notes();
        notes.extend(about);
        Ok(Outcome {
            value: (),
            plan,
            notes,
        })
    }

    /// Closes published ports of a running container, and ends the flows that came by them.
    ///
    /// # Errors
    /// The container does not publish one of them; the kernel refused.
    pub fn port_remove(
        &mut self,
        name: &ContainerName,
        ports: &[PortMapping],
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        self.in_turn(|engine| engine.try_port_remove(name, ports, mode))
    }

    fn try_port_remove(
        &mut self,
        name: &ContainerName,
        ports: &[PortMapping],
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let before = self.container(name)?;
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        for mapping in ports {
            if !before.ports.contains(mapping) {
                return Err(EngineError::PortNotFound {
                    container: name.clone(),
                    mapping: *mapping,
                });
            }
        }
        let mut after = before.clone();
        after.ports.retain(|p| !ports.contains(p));
        let mut txn = self.run.begin()?;
        if applies(mode) {
            self.check_turn(&txn, &before)?;
        }
        let mut plan = self.change_plan(
            &txn,
            &before,
            &after,
            &nets,
            &format!("container `{name}` publishes fewer ports"),
        )?;
        plan.append(flush_all(ports));
        if applies(mode) {
            let key = journal_key(&ObjectName::Container(name.clone()));
            self.put(&mut txn, &before, (&key, Work::PortRemove(ports.to_vec())))?;
            self.run.commit(txn)?;
            let done = self.carry_out(&plan, || format!("close ports of container `{name}`"));
            if done.is_err() {
                self.carry_out_all(&plan);
            }
            let withdrawn = Withdrawn {
                ports,
                plan: Some(&plan),
            };
            self.finish_ports(&before, &after, withdrawn, &nets, &key)?;
            done?;
        } else {
            drop(txn);
        }
        let notes = self.take_notes();
        Ok(Outcome {
            value: (),
            plan,
            notes,
        })
    }

    pub(super) fn finish_ports(
        &mut self,
        was: &Container,
        is: &Container,
        dropped: Withdrawn<'_>,
        nets: &Networks,
        key: &str,
    ) -> Result<(), EngineError> {
        self.finish_change((was, is), Some(dropped), nets, key, |engine, txn| {
            for mapping in dropped.ports {
                engine.run.free_port(txn, mapping)?;
            }
            Ok(())
        })
    }

    /// The last of a change from one state of a container to another: who needs the host's loopback, what the change gives
    /// back besides, the record, and the end of the journal's entry.
    pub(super) fn finish_change(
        &mut self,
        (was, is): (&Container, &Container),
        withdrawn: Option<Withdrawn<'_>>,
        nets: &Networks,
        key: &str,
        give_back: impl FnOnce(&Self, &mut RwTxn) -> heed::Result<()>,
    ) -> Result<(), EngineError> {
        let (before, after) = (
            self.loopback_networks(was, nets),
            self.loopback_networks(is, nets),
        );
        let carriers = [before.as_slice(), &after].concat();
        self.write_last(&carriers, withdrawn, |engine, txn| {
            for name in before.iter().filter(|n| !after.contains(n)) {
                engine.count_loopback(txn, name, -1)?;
            }
            give_back(engine, txn)?;
            engine.put_record(txn, is)?;
            engine.run.journal.delete(txn, key).map(|_| ())
        })
    }

    /// From one state of a container to another; counts what newly needs the host's loopback.
    pub(super) fn change_plan(
        &self,
        txn: &RwTxn,
        before: &Container,
        after: &Container,
        nets: &Networks,
        because: &str,
    ) -> Result<Plan, EngineError> {
        let old = self.loopback_networks(before, nets);
        let mut plan = self.loopback_plan(
            txn,
            self.loopback_networks(after, nets)
                .into_iter()
                .filter(|n| !old.contains(n)),
            nets,
        )?;
        let resources = |c| self.resources(txn, c, nets).map_err(|e| self.run.fail(e));
        plan.append(diff(&resources(after)?, &resources(before)?, because));
        if !old.is_empty() {
            let new = self.loopback_networks(after, nets);
            let off = self.loopback_off_plan(txn, std::slice::from_ref(before), nets, &new);
            plan.append(off.map_err(|e| self.run.fail(e))?);
        }
        Ok(plan)
    }

    /// Takes ports for a container in the store.
    pub(super) fn take_ports(
        &self,
        txn: &mut RwTxn,
        name: &ContainerName,
        ports: &[PortMapping],
    ) -> Result<(), EngineError> {
        for (at, mapping) in ports.iter().enumerate() {
            if let Some(other) = ports[..at]
                .iter()
                .find(|other| other.conflicts_with(mapping))
            {
                return Err(EngineError::PortsClash(*other, *mapping));
            }
            let holder = self
                .run
                .port_holder(txn, mapping)
                .map_err(|e| self.run.fail(e))?;
            if let Some((by, theirs)) = holder {
                return Err(EngineError::PortTaken {
                    wanted: *mapping,
                    by,
                    theirs,
                });
            }
        }
        for mapping in ports {
            self.run
                .take_port(txn, mapping, name)
                .map_err(|e| self.run.fail(e))?;
        }
        Ok(())
    }

    /// A port that a process of the host listens on would be taken from it, and a host address that the host
    /// does not have would never be asked.
    pub(super) fn check_listeners(
        &mut self,
        ports: &[PortMapping],
        nets: &Networks,
    ) -> Result<(), EngineError> {
        if ports.is_empty() || nets.values().all(|n| n.internal) {
            return Ok(());
        }
        let binding = free_ports::binding(nets);
        for mapping in ports {
            let bound = binding.map_or(*mapping, |net| compile::bind(net, mapping));
            if let Some(addr) = bound.bound_to().filter(|a| !a.is_loopback()) {
                self.check_host_ip(mapping, addr)?;
            }
            let found = free_ports::listener(mapping, binding);
            if let Some(listener) = found.map_err(|e| failed("list the host's listeners", &e))? {
                return Err(EngineError::PortListening {
                    wanted: *mapping,
                    listener: std::net::SocketAddr::new(listener.addr, listener.port),
                });
            }
        }
        Ok(())
    }

    fn check_host_ip(&mut self, mapping: &PortMapping, addr: IpAddr) -> Result<(), EngineError> {
        let addrs = self
            .kernel
            .addrs(&Netns::Host)
            .map_err(|e| failed("list the host's addresses", &e))?;
        if addrs.iter().any(|(_, net)| net.addr() == addr) {
            return Ok(());
        }
        Err(EngineError::HostIpMissing {
            wanted: *mapping,
            addr,
        })
    }

    /// The networks by which a container publishes ports that answer on the host's loopback.
    pub(super) fn loopback_networks(
        &self,
        container: &Container,
        nets: &Networks,
    ) -> Vec<NetworkName> {
        let carriers = compile::port_carriers(container, |name| nets.get(name));
        let v4 = carriers
            .into_iter()
            .filter(|(.., addr)| Family::of(*addr) == Family::V4);
        v4.filter(|(_, net, _)| {
            container
                .ports
                .iter()
                .any(|p| compile::bind(net, p).needs_loopback())
        })
        .map(|(a, ..)| a.network.clone())
        .collect()
    }

    pub(super) fn turn_loopback_on(
        &self,
        txn: &RwTxn,
        container: &Container,
        nets: &Networks,
    ) -> Result<Plan, EngineError> {
        self.loopback_plan(
            txn,
            self.loopback_networks(container, nets).into_iter(),
            nets,
        )
    }

    /// The first publish that answers on 127.0.0.0/8 turns `route_localnet` on; the guard against loopback
    /// addresses from the wire is part of the base rules, which are there before.
    fn loopback_plan(
        &self,
        txn: &RwTxn,
        names: impl Iterator<Item = NetworkName>,
        nets: &Networks,
    ) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        for name in names {
            let live = self
                .run
                .networks
                .get(txn, name.as_str())
                .map_err(|e| self.run.fail(e))?;
            if live.is_none_or(|l| l.loopback_users == 0)
                && let Some(net) = nets.get(&name)
            {
                let on = Op::make(&compile::route_localnet(net, true));
                let off = Op::make(&compile::route_localnet(net, false));
                plan.push(
                    on,
                    Undo::Ops(vec![off]),
                    "a published port answers on the host's 127.0.0.1",
                );
            }
        }
        Ok(plan)
    }

    /// The steps that turn `route_localnet` off where these containers are the last that need it, and do not stay.
    pub(super) fn loopback_off_plan(
        &self,
        txn: &RoTxn,
        leaving: &[Container],
        nets: &Networks,
        stay: &[NetworkName],
    ) -> heed::Result<Plan> {
        let mut plan = Plan::default();
        for (name, count) in self.loopback_users(leaving, nets) {
            if stay.contains(&name) {
                continue;
            }
            let Some(net) = nets.get(&name) else { continue };
            let live = self.run.networks.get(txn, name.as_str())?;
            let users = live.map_or(0, |l| l.loopback_users);
            if users <= count {
                let (on, off) = (
                    compile::route_localnet(net, true),
                    compile::route_localnet(net, false),
                );
                let because = "no published port answers on the host's 127.0.0.1 any more";
                plan.push(Op::make(&off), Undo::Ops(vec![Op::make(&on)]), because);
            }
        }
        Ok(plan)
    }

    /// Changes how many containers of a network publish on the host's loopback.
    pub(super) fn count_loopback(
        &self,
        txn: &mut RwTxn,
        name: &NetworkName,
        by: i32,
    ) -> heed::Result<()> {
        let live: Option<LiveNetwork> = self.run.networks.get(txn as &RoTxn, name.as_str())?;
        let Some(mut live) = live else { return Ok(()) };
        live.loopback_users = live.loopback_users.saturating_add_signed(by);
        self.run.networks.put(txn, name.as_str(), &live)
    }

    /// Counts a container in where it newly publishes on the host's loopback.
    pub(super) fn count_new_loopback(
        &self,
        txn: &mut RwTxn,
        before: &[NetworkName],
        after: &Container,
        nets: &Networks,
    ) -> Result<(), EngineError> {
        for name in self
            .loopback_networks(after, nets)
            .iter()
            .filter(|n| !before.contains(n))
        {
            self.count_loopback(txn, name, 1)
                .map_err(|e| self.run.fail(e))?;
        }
        Ok(())
    }

    /// How many of these containers publish on the host's loopback, by network.
    pub(super) fn loopback_users(
        &self,
        containers: &[Container],
        nets: &Networks,
    ) -> BTreeMap<NetworkName, u32> {
        let mut users = BTreeMap::new();
        for name in containers
            .iter()
            .flat_map(|c| self.loopback_networks(c, nets))
        {
            *users.entry(name).or_default() += 1;
        }
        users
    }

    /// Those of `carriers` whose `route_localnet` may not be as the store says, when so many containers leave each and
    /// nothing was turned off for them. Where no other process is in the middle of a change, or died there, it is on
    /// since the first container that needs it: reading it costs more with each namespace that there is.
    pub(super) fn unsettled(
        &self,
        carriers: impl Iterator<Item = (NetworkName, u32)>,
    ) -> Result<Vec<NetworkName>, EngineError> {
        self.run.read(|txn| {
            for item in self.run.journal.iter(txn)? {
                if item?.1.process != self.me {
                    return Ok(carriers.map(|(name, _)| name).collect());
                }
            }
            let mut last = Vec::new();
            for (name, leaving) in carriers {
                let live = self.run.networks.get(txn, name.as_str())?;
                if live.is_some_and(|l| l.loopback_users <= leaving) {
                    last.push(name);
                }
            }
            Ok(last)
        })
    }

    /// Ends a change: writes what became of it, and sets `route_localnet` and elements that several have as those who are
    /// left need them. All in one, since others come and go meanwhile: whoever counts himself in after this finds it off,
    /// and turns it on.
    pub(super) fn write_last(
        &mut self,
        carriers: &[NetworkName],
        withdrawn: Option<Withdrawn<'_>>,
        write: impl FnOnce(&Self, &mut RwTxn) -> heed::Result<()>,
    ) -> Result<(), EngineError> {
        let mut txn = self.run.begin()?;
        write(self, &mut txn).map_err(|e| self.run.fail(e))?;
        if let Some(withdrawn) = withdrawn {
            let amiss = self.shared_amiss(&txn, withdrawn);
            for op in amiss.map_err(|e| self.run.fail(e))? {
                // Somebody may have flushed the rules: then it is for `repair`.
                let _ = self.kernel.apply(&[&op]);
            }
        }
        for name in carriers {
            let live = self.run.networks.get(&txn, name.as_str());
            let Some(live) = live.map_err(|e| self.run.fail(e))? else {
                continue;
            };
            let wanted = compile::route_localnet(&live.spec, live.loopback_users > 0);
            let Resource::Sysctl { key, value, .. } = &wanted else {
                continue;
            };
            let is = self.kernel.sysctl(&Netns::Host, key).ok().flatten();
            if is.is_some_and(|is| is != *value) {
                let done = self.kernel.apply(&[&Op::make(&wanted)]);
                done.map_err(|e| failed_op("set route_localnet", &e.error))?;
            }
        }
        self.run.commit(txn)
    }
}
