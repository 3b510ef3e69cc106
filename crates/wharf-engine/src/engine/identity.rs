//! Whose run store it is: which boot, which network namespace; and who asks.

use std::path::Path;

use wharf_core::attach::{Container, ProcessRef};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::process::liveness::{self, ProcessId};
use crate::process::netns;

/// A refusal by the file system to somebody without privileges is a matter of privileges. Root of a user namespace has
/// them, and only needs another directory.
pub(super) fn explain_denied(error: EngineError) -> EngineError {
    match error {
        EngineError::Store { ref detail, .. }
            if detail.contains("ermission denied") && !is_privileged() =>
        {
            EngineError::Privileges
        }
        other => other,
    }
}

/// Whether this process has the capabilities that wharf needs (`linux/capability.h`).
fn is_privileged() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const NEEDED: u64 = CAP_NET_ADMIN | CAP_SYS_ADMIN;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.unwrap_or(0) & NEEDED == NEEDED
}

/// This process, for the journal.
pub(super) fn this_process() -> Result<ProcessRef, EngineError> {
    let id = ProcessId::of(std::process::id()).ok_or_else(|| EngineError::System {
        verb: "read /proc/self/stat".to_owned(),
        detail: "is /proc mounted?".to_owned(),
        errno: 0,
    })?;
    Ok(process_ref(id))
}

/// The stored form of a process.
pub(super) fn process_ref(id: ProcessId) -> ProcessRef {
    ProcessRef {
        pid: id.pid as i32,
        start_time: id.start_time,
    }
}

/// Whether the process still runs.
pub(super) fn lives(process: ProcessRef) -> bool {
    liveness::is_alive(process.pid as u32, process.start_time)
}

/// Whether a container's path still leads to the namespace it was made with.
pub(super) fn namespace_lives(container: &Container) -> bool {
    match (
        netns::netns_inode(&container.netns.path),
        container.netns.identity,
    ) {
        (Ok(is), Some((_, was))) => is == was,
        (Ok(_), None) => true,
        (Err(_), _) => false,
    }
}

/// A container whose namespace somebody else has made anew at the same place: it is not wharf's to remove.
pub(super) fn without_anothers(mut container: Container) -> Container {
    let is = netns::netns_inode(&container.netns.path);
    if let (Ok(is), Some((_, was))) = (is, container.netns.identity) {
        container.netns.made_by_wharf &= is == was;
    }
    container
}

/// A boot, and the inode of a network namespace.
pub(super) type Place = (String, u64);

/// This boot, and the namespace that is the host.
pub(super) fn here() -> Result<Place, EngineError> {
    let netns = netns::current().map_err(|e| EngineError::System {
        verb: "find the own network namespace".to_owned(),
        detail: e.to_string(),
        errno: 0,
    })?;
    Ok((liveness::boot_id().unwrap_or_default(), netns.inode()))
}

impl Engine {
    /// For changes that cannot be taken back, before the first.
    ///
    /// # Errors
    /// This process lacks what changes need.
    pub fn check_privileges(&self) -> Result<(), EngineError> {
        match is_privileged() {
            true => Ok(()),
            false => Err(EngineError::Privileges),
        }
    }

    /// A run store of another boot, or of a namespace that is gone, holds ghosts: it is cleared. One of
    /// another namespace that lives is somebody else's.
    pub(super) fn settle(&mut self) -> Result<(), EngineError> {
        let here = here()?;
        self.own_netns = here.1;
        let known = self.known_place()?;
        if known.as_ref() == Some(&here) {
            return Ok(());
        }
        self.refuse_anothers(known.as_ref(), &here, &self.dirs.run)?;
        // One of several that come at once takes over; the others find it done.
        let _lock = self.wait_for_host()?;
        if self.known_place()? != known {
            return Ok(());
        }
        if known.is_some() {
            self.run.clear()?;
        }
        self.take_over()?;
        self.own_place(&here)
    }

    /// A run store of another namespace that lives is somebody else's.
    pub(super) fn refuse_anothers(
        &self,
        known: Option<&Place>,
        here: &Place,
        path: &Path,
    ) -> Result<(), EngineError> {
        let elsewhere = known.filter(|known| known.0 == here.0 && known.1 != here.1);
        match elsewhere {
            Some((_, netns)) if self.in_use()? && !liveness::members(*netns).is_empty() => {
                Err(EngineError::Store {
                    path: path.to_owned(),
                    detail: "it belongs to another network namespace, which is in use; set WHARF_RUN_DIR".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The store is this boot's and this namespace's from now on.
    fn own_place(&self, (boot, inode): &Place) -> Result<(), EngineError> {
        self.run.write(|txn| {
            self.run.meta.put(txn, "boot", boot)?;
            self.run.meta.put(txn, "netns", &inode.to_string())
        })
    }

    /// The boot and the namespace that the store is of.
    pub(super) fn known_place(&self) -> Result<Option<Place>, EngineError> {
        self.run.read(|txn| {
            let boot = self.run.meta.get(txn, "boot")?.map(str::to_owned);
            let netns = self
                .run
                .meta
                .get(txn, "netns")?
                .and_then(|text| text.parse().ok());
            Ok(boot.zip(netns))
        })
    }

    fn in_use(&self) -> Result<bool, EngineError> {
        self.run.read(|txn| {
            Ok(!self.run.networks.is_empty(txn)? || !self.run.containers.is_empty(txn)?)
        })
    }
}
