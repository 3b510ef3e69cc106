//! One change of a container at a time, and none of one that is no longer as it was when the change was thought out.
//!
//! A verb reads the record, looks at the kernel, and only then writes. Others may have been faster: then it begins anew.

use std::time::Duration;

use heed::{RoTxn, RwTxn};
use wharf_core::attach::Container;
use wharf_core::name::ContainerName;

use crate::api::ObjectName;
use crate::engine::{Engine, identity, journal_key};
use crate::error::EngineError;

/// How often to begin anew, and how long to wait before.
const ROUNDS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

impl Engine {
    /// Makes a change of containers, again while others are at work on one of them.
    pub(super) fn in_turn<T>(
        &mut self,
        mut change: impl FnMut(&mut Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        for _ in 0..ROUNDS {
            match change(self) {
                Err(EngineError::Busy(ObjectName::Container(_))) => {}
                done => return done,
            }
            std::thread::sleep(PAUSE);
            // Whoever was at work may have died.
            self.recover()?;
        }
        change(self)
    }

    /// Refuses a change of a container that is not as it was `seen`, or that another process is at work on.
    pub(super) fn check_turn(&self, txn: &RoTxn, seen: &Container) -> Result<(), EngineError> {
        let refusal = self.whose_turn(txn, seen, false);
        match refusal.map_err(|e| self.run.fail(e))? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// As [`Engine::check_turn`]; with `rid` the container goes as a whole, also what a dead process left of it.
    pub(super) fn whose_turn(
        &self,
        txn: &RoTxn,
        seen: &Container,
        rid: bool,
    ) -> heed::Result<Option<EngineError>> {
        let object = || ObjectName::Container(seen.name.clone());
        let Some(is) = self.run.containers.get(txn, seen.name.as_str())? else {
            return Ok(Some(EngineError::NotFound(object())));
        };
        let as_seen =
            (&is.id, &is.attachments, &is.ports) == (&seen.id, &seen.attachments, &seen.ports);
        let entry = self.run.journal.get(txn, &journal_key(&object()))?;
        let anothers =
            entry.is_some_and(|e| e.process != self.me && (!rid || identity::lives(e.process)));
        Ok((anothers || !as_seen).then(|| EngineError::Busy(object())))
    }

    /// Writes a container's record. What became of its process meanwhile stays.
    pub(super) fn put_record(&self, txn: &mut RwTxn, container: &Container) -> heed::Result<()> {
        let mut record = container.clone();
        if let Some(is) = self.run.containers.get(txn, record.name.as_str())? {
            (record.process, record.exit_status) = (is.process, is.exit_status);
        }
        self.run.put_container(txn, &record)
    }

    /// Changes a container's record and nothing else, if there is one.
    pub(super) fn update_record(
        &self,
        name: &ContainerName,
        change: impl FnOnce(&mut Container),
    ) -> Result<(), EngineError> {
        let there = self.run.write(|txn| {
            let Some(mut record) = self.run.containers.get(txn, name.as_str())? else {
                return Ok(false);
            };
            change(&mut record);
            self.run.put_container(txn, &record)?;
            Ok(true)
        })?;
        match there {
            true => Ok(()),
            false => Err(EngineError::NotFound(ObjectName::Container(name.clone()))),
        }
    }
}
