//! The lock for changes to what all networks share: base rules, forwarding, bridges.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Waits for the lock; dropping the file gives it back, and so does the death of the process. Who has it already
    /// gets it again.
    ///
    /// Whoever had it before may have died with it, long after this engine was opened: what the store says of the
    /// host's part would not be so. That is seen to first.
    pub(super) fn lock_host(&mut self) -> Result<Rc<File>, EngineError> {
        let held = self.host_lock.borrow().upgrade();
        if let Some(held) = held {
            return Ok(held);
        }
        let lock = self.wait_for_host()?;
        if self.recover_dead()? {
            self.recover_transient()?;
        }
        Ok(lock)
    }

    /// The lock as it is found.
    pub(super) fn wait_for_host(&self) -> Result<Rc<File>, EngineError> {
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
        let file = Rc::new(file);
        *self.host_lock.borrow_mut() = Rc::downgrade(&file);
        Ok(file)
    }
}
