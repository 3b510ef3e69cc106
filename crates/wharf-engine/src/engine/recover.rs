//! Finishing or undoing what dead processes left.
//!
//! A journal entry says what its process had begun. If the process is gone, the work is undone when it was
//! making something (nobody was told that it is there), and finished when it was removing something.

use wharf_core::attach::{Container, Phase, assign_default_routes};
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::Netns;

use crate::api::Note;
use crate::engine::flows::flush_all;
use crate::engine::shared::Withdrawn;
use crate::engine::{Engine, identity};
use crate::error::EngineError;
use crate::kernel::Kernel;
use crate::store::{JournalEntry, Work};

impl Engine {
    /// Looks through the journal; in the usual case it is empty or its processes live.
    pub(super) fn recover(&mut self) -> Result<(), EngineError> {
        if !self.dead_entries(false)?.is_empty() {
            self.lock_host()?;
        }
        Ok(())
    }

    /// Sees to the journal's entries whose processes are dead; whether there were any. The host lock is held.
    pub(super) fn recover_dead(&mut self) -> Result<bool, EngineError> {
        let mut any = false;
        for (key, entry) in self.dead_entries(true)? {
            // It may have ended well between the look at the journal and the look at the process; now that it is
            // known to have ended, the journal tells.
            let still = self.run.read(|txn| self.run.journal.get(txn, &key))?;
            if still.as_ref() != Some(&entry) {
                continue;
            }
            match key.split_once('/') {
                Some(("network", name)) => self.recover_network(&key, name, &entry)?,
                Some(("container", name)) => self.recover_container(&key, name, &entry)?,
                _ => self
                    .run
                    .write(|txn| self.run.journal.delete(txn, &key).map(|_| ()))?,
            }
            self.notes.push(Note::Recovered(key));
            any = true;
        }
        Ok(any)
    }

    /// Entries whose processes are dead. Networks are worked on under the host lock only: for whoever has it, their
    /// entries are of dead processes. One that dies gives the lock back a moment before it is seen to be dead.
    fn dead_entries(&self, locked: bool) -> Result<Vec<(String, JournalEntry)>, EngineError> {
        let all: Vec<(String, JournalEntry)> = self.run.read(|txn| {
            self.run
                .journal
                .iter(txn)?
                .map(|i| i.map(|(k, e)| (k.to_owned(), e)))
                .collect()
        })?;
        Ok(all
            .into_iter()
            .filter(|(key, e)| {
                let cut_off = locked && key.starts_with("network/");
                e.process != self.me && (cut_off || !identity::lives(e.process))
            })
            .collect())
    }

    /// A network half made or half removed goes; one that was being brought up only comes up again when needed.
    fn recover_network(
        &mut self,
        key: &str,
        name: &str,
        entry: &JournalEntry,
    ) -> Result<(), EngineError> {
        let live = self.run.read(|txn| self.run.networks.get(txn, name))?;
        // What its owner defines is not in the state store.
        let kept = live.as_ref().is_none_or(|l| !l.spec.is_transient());
        if entry.work == Work::NetworkDown && kept {
            self.state()?.delete(name)?;
        }
        let Some(live) = live else {
            return self
                .run
                .write(|txn| self.run.journal.delete(txn, key).map(|_| ()));
        };
        if entry.work == Work::NetworkGrow {
            return self.finish_growing(&live.spec, key);
        }
        let plan = self.take_down_plan(&live.spec, &[])?;
        self.carry_out_all(&plan);
        self.forget_network(&live.spec, key)
    }

    fn recover_container(
        &mut self,
        key: &str,
        name: &str,
        entry: &JournalEntry,
    ) -> Result<(), EngineError> {
        let found = self.run.read(|txn| self.run.containers.get(txn, name))?;
        let Some(container) = found else {
            return self
                .run
                .write(|txn| self.run.journal.delete(txn, key).map(|_| ()));
        };
        let nets = self.networks_of(std::slice::from_ref(&container))?;
        // As it was before phases were set, so that everything it may have is named.
        let mut whole = container.clone();
        whole
            .attachments
            .iter_mut()
            .for_each(|a| a.phase = Phase::Active);
        match &entry.work {
            Work::PortAdd(ports) | Work::PortRemove(ports) => {
                let mut after = whole.clone();
                after.ports.retain(|p| !ports.contains(p));
                whole
                    .ports
                    .extend(ports.iter().filter(|p| !container.ports.contains(p)));
                let resources = |c| self.run.read(|txn| self.resources(txn, c, &nets));
                let plan = diff(&resources(&after)?, &resources(&whole)?, "");
                self.carry_out_all(&plan);
                self.carry_out_all(&flush_all(ports));
                let withdrawn = Withdrawn {
                    ports,
                    plan: Some(&plan),
                };
                self.finish_ports(&whole, &after, withdrawn, &nets, key)
            }
            Work::Attach => {
                let mut after = container.clone();
                after.attachments.retain(|a| a.phase == Phase::Active);
                assign_default_routes(&mut after.attachments, |n| nets.get(n));
                self.mend_attachments(&whole, &after, key, &nets)
            }
            Work::Update(wanted) => {
                let resources = |c| self.run.read(|txn| self.resources(txn, c, &nets));
                let plan = diff(&resources(&container)?, &resources(wanted)?, "");
                self.carry_out_all(&plan);
                self.finish_update(wanted, &container, &nets, key)
            }
            _ => {
                let all = self.run.read(|txn| self.resources(txn, &whole, &nets))?;
                let plan = diff(&[], &all, "");
                self.carry_out_all(&plan);
                self.carry_out_all(&flush_all(&whole.ports));
                self.forget_container(&whole, &nets, Some(&plan))
            }
        }
    }

    /// What recovery left without containers and should not be without.
    pub(super) fn recover_transient(&mut self) -> Result<(), EngineError> {
        let live: Vec<_> = self.run.read(|txn| {
            let all = self.run.networks.iter(txn)?;
            all.map(|i| i.map(|(_, n)| (n.spec.name.clone(), n.spec)))
                .collect()
        })?;
        self.release(&live.into_iter().collect())
    }

    /// Takes away what is not to be, and makes sure of the ports and default routes of what is.
    fn mend_attachments(
        &mut self,
        whole: &Container,
        after: &Container,
        key: &str,
        nets: &super::Networks,
    ) -> Result<(), EngineError> {
        let resources = |c| self.run.read(|txn| self.resources(txn, c, nets));
        let plan = diff(&resources(after)?, &resources(whole)?, "");
        self.carry_out_all(&plan);
        let inside = Netns::Path(after.netns.path.clone());
        for a in &after.attachments {
            let Some(net) = nets.get(&a.network) else {
                continue;
            };
            let routes = compile::default_routes(net, &inside, a);
            let again = routes.iter().map(|r| match wharf_core::op::Op::make(r) {
                wharf_core::op::Op::RouteAdd(route) => {
                    wharf_core::op::Op::RouteAdd(wharf_core::op::RouteOp {
                        replace: true,
                        ..route
                    })
                }
                op => op,
            });
            for op in again {
                let _ = self.kernel.apply(&[&op]);
            }
        }
        let again: Vec<_> = compile::container(after, |n| nets.get(n))
            .into_iter()
            .filter(|r| {
                matches!(
                    r,
                    wharf_core::model::Resource::Nft(_) | wharf_core::model::Resource::Port(_)
                )
            })
            .collect();
        self.carry_out_all(&diff(&again, &[], ""));
        self.finish_leave(whole, after, nets, key)
    }
}
