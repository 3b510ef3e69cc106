//! Containers put on further networks, and taken off them.

use wharf_core::attach::{AttachRequest, Container, Phase, assign_default_routes};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::plan::Plan;

use crate::api::{Mode, ObjectName, Outcome};
use crate::engine::flows::flush_udp;
use crate::engine::{Engine, Networks, applies, journal_key};
use crate::error::EngineError;
use crate::store::Work;

impl Engine {
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
        self.container(name)?;
        let made = applies(mode) && self.makes_default(std::slice::from_ref(request))?;
        let result = self.in_turn(|engine| engine.connect_one(request, name, mode));
        if result.is_err() && made {
            self.forget_default();
        }
        result
    }

    fn connect_one(
        &mut self,
        request: &AttachRequest,
        name: &ContainerName,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let before = self.container(name)?;
        let (joined, mut plan) = self.ensure_up(std::slice::from_ref(&request.network), mode)?;
        let mut nets = self.networks_of(std::slice::from_ref(&before))?;
        nets.extend(joined);
        let found = self.found_inside(&before, std::slice::from_ref(request), &nets)?;
        let mut txn = self.run.begin()?;
        if applies(mode) {
            self.check_turn(&txn, &before)?;
        }
        self.check_live(&txn, std::slice::from_ref(&request.network), mode)?;
        let mut after = before.clone();
        self.join(&mut txn, &mut after, request, &nets, &found)?;
        let joined = after.attachments.get_mut(before.attachments.len()..);
        let mut own = self.forget_old_owners(&mut txn, joined.unwrap_or_default(), &nets)?;
        after.put_last_in_place();
        assign_default_routes(&mut after.attachments, |name| nets.get(name));
        own.append(self.change_plan(
            &txn,
            &before,
            &after,
            &nets,
            &format!("container `{name}` joins network `{}`", request.network),
        )?);
        own.append(flush_udp(&before.ports));
        if applies(mode) {
            self.count_new_loopback(
                &mut txn,
                &self.loopback_networks(&before, &nets),
                &after,
                &nets,
            )?;
            let key = journal_key(&ObjectName::Container(name.clone()));
            self.put(&mut txn, &after, (&key, Work::Attach))?;
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
        let carriers = [lb_before.as_slice(), &lb_after].concat();
        self.write_last(&carriers, None, |engine, txn| {
            if done.is_ok() {
                for name in lb_before.iter().filter(|n| !lb_after.contains(n)) {
                    engine.count_loopback(txn, name, -1)?;
                }
                engine.put_record(txn, &after)?;
            } else {
                for name in lb_after.iter().filter(|n| !lb_before.contains(n)) {
                    engine.count_loopback(txn, name, -1)?;
                }
                for a in after
                    .attachments
                    .iter()
                    .filter(|a| before.attachment(&a.network).is_none())
                {
                    engine.release_addresses(txn, &before.name, a)?;
                }
                engine.put_record(txn, before)?;
            }
            engine.run.journal.delete(txn, &key).map(|_| ())
        })?;
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
        let before = self.container(name)?;
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        let plan = self.in_turn(|engine| engine.disconnect_one(network, name, mode))?;
        let mut after = before.clone();
        after.attachments.retain(|a| a.network != *network);
        let mut notes = self.take_notes();
        notes.extend(Self::no_longer_served(&before, &after, &nets));
        Ok(Outcome {
            value: (),
            plan,
            notes,
        })
    }

    pub(super) fn disconnect_all(
        &mut self,
        network: &NetworkName,
        names: &[ContainerName],
    ) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        for name in names {
            match self.in_turn(|engine| engine.disconnect_one(network, name, Mode::Apply)) {
                Ok(left) => plan.append(left),
                // Somebody was faster.
                Err(EngineError::NotFound(_) | EngineError::NotAttached { .. }) => {}
                Err(error) => return Err(error),
            }
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
        if applies(mode) {
            self.name_cables(std::slice::from_ref(&before))?;
        }
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        let mut after = before.clone();
        after.attachments.retain(|a| a.network != *network);
        assign_default_routes(&mut after.attachments, |name| nets.get(name));
        let because = format!("container `{name}` leaves network `{network}`");
        let txn = self.run.begin()?;
        let mut plan = self.change_plan(&txn, &before, &after, &nets, &because)?;
        // Flows go on to where they were translated to, which may be what is left.
        plan.append(flush_udp(&before.ports));
        if !applies(mode) {
            drop(txn);
            let left: Networks = nets.into_iter().filter(|(n, _)| n == network).collect();
            plan.append(self.preview_release(&left, &[name])?);
            return Ok(plan);
        }
        self.check_turn(&txn, &before)?;
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
        self.put(&mut txn, &leaving, (&key, Work::Attach))?;
        self.run.commit(txn)?;
        let done = self.carry_out(&plan, || {
            format!("disconnect container `{name}` from network `{network}`")
        });
        if done.is_err() {
            self.carry_out_all(&plan);
        }
        self.finish_leave(&before, &after, &nets, &key)?;
        self.release(&nets)?;
        done.map(|()| plan)
    }

    pub(super) fn finish_leave(
        &mut self,
        before: &Container,
        after: &Container,
        nets: &Networks,
        key: &str,
    ) -> Result<(), EngineError> {
        self.finish_change((before, after), None, nets, key, |engine, txn| {
            for a in before
                .attachments
                .iter()
                .filter(|a| after.attachment(&a.network).is_none())
            {
                engine.release_addresses(txn, &before.name, a)?;
            }
            Ok(())
        })
    }
}
