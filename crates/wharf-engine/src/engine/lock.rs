//! The lock for changes to what all networks share: base rules, forwarding, bridges.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use crate::engine::Engine;
use crate::error::EngineError;

/// The lock; dropping it gives it back, and so does the death of the process.
pub(super) struct HostLock {
    /// None where this process had the lock already: who took it first gives it back.
    file: Option<File>,
    held: Rc<Cell<bool>>,
}

impl Drop for HostLock {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.held.set(false);
        }
    }
}

impl Engine {
    /// Waits for the lock.
    pub(super) fn lock_host(&self) -> Result<HostLock, EngineError> {
        let held = Rc::clone(&self.host_lock);
        if held.get() {
            return Ok(HostLock { file: None, held });
        }
        let path = self.dirs.run.join("host.lock");
        let failed = |e: std::io::Error| EngineError::Store {
            path: path.clone(),
            detail: e.to_string(),
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        held.set(true);
        Ok(HostLock {
            file: Some(file),
            held,
        })
    }
}
