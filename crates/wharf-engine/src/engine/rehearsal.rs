//! `repair --rebuild` without changing anything: the stores are copied, and the copies made again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::api::{Dirs, Finding, Mode, Note, Outcome, Repaired};
use crate::engine::host::failed;
use crate::engine::network::random_id;
use crate::engine::rebuild::{readable, to_be_put_aside};
use crate::engine::{Engine, identity};
use crate::error::EngineError;
use crate::store::{RunStore, StateStore};

/// How often to copy a store that cannot be read: another process may have been writing to it.
const TRIES: u32 = 3;

/// A directory that goes with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new() -> Result<Self, EngineError> {
        let id = random_id()?;
        let digits: String = id[..8].iter().map(|b| format!("{b:02x}")).collect();
        let path = std::env::temp_dir().join(format!("wharf-{digits}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| failed("make a directory for a copy of the stores", &e))?;
        Ok(Self(path))
    }

    /// Copies the store in a directory, to one of this name. Whether it can be read; one that is not there can.
    fn copy(
        &self,
        dir: &Path,
        name: &str,
        check: impl Fn(&Path) -> Result<(), EngineError>,
    ) -> Result<bool, EngineError> {
        let copy = self.0.join(name);
        for _ in 0..TRIES {
            let copied = copy_store(&dir.join("db"), &copy.join("db"));
            copied.map_err(|e| failed("copy a store", &e))?;
            if readable(|| check(&copy))? {
                return Ok(true);
            }
            let _ = fs::remove_dir_all(&copy);
        }
        Ok(false)
    }
}

/// The files of a store, but for the one by which processes wait for each other.
fn copy_store(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != "lock.mdb" {
            fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

impl Engine {
    /// What [`Engine::open_anew`] and [`Engine::rebuild`] would write to the stores, and then do.
    ///
    /// # Errors
    /// As theirs.
    pub fn rehearse_rebuild(dirs: &Dirs) -> Result<Outcome<Repaired>, EngineError> {
        // Nobody changes networks meanwhile, if anybody ever did.
        let lock = File::open(dirs.run.join("host.lock")).ok();
        if let Some(lock) = &lock {
            lock.lock().map_err(|e| failed("wait for others", &e))?;
        }
        let scratch = Scratch::new()?;
        let mut findings = Vec::new();
        if !scratch.copy(&dirs.run, "run", |d| RunStore::open(d)?.check())? {
            findings.extend(to_be_put_aside(&dirs.run));
        }
        if !scratch.copy(&dirs.state, "state", |d| StateStore::open(d)?.check())? {
            findings.extend(to_be_put_aside(&dirs.state));
        }
        let copies = Dirs {
            run: scratch.0.join("run"),
            state: scratch.0.join("state"),
        };
        let mut engine = Self::on(&copies)?;
        // With it, the journal's entries stay as they are: to see to them would change the kernel.
        let _lock = engine.wait_for_host()?;
        engine.settle_copy(dirs)?;
        let before = engine.known()?;
        engine.take_over_if_lost()?;
        let links = engine.host_links_now()?;
        engine.rebuild_stores(&links)?;
        let new = engine.known()?;
        let new = new.into_iter().filter(|object| !before.contains(object));
        findings.extend(new.map(|object| Finding {
            object,
            was: "missing in the store".to_owned(),
        }));
        let (plan, mut value) = engine.mend(Mode::DryRun)?;
        value.mended.splice(0..0, findings);
        let mut notes = engine.take_notes();
        notes.retain(|note| !matches!(note, Note::Recovered(_)));
        Ok(Outcome { value, plan, notes })
    }

    /// The networks and containers that the run store knows, as findings name them.
    fn known(&mut self) -> Result<BTreeSet<String>, EngineError> {
        self.run.read(|txn| {
            let mut all = BTreeSet::new();
            for item in self.run.networks.iter(txn)? {
                all.insert(format!("network {}", item?.0));
            }
            for item in self.run.containers.iter(txn)? {
                all.insert(format!("container {}", item?.0));
            }
            Ok(all)
        })
    }

    /// As [`Engine::settle`], for a copy of what is in `dirs`.
    fn settle_copy(&mut self, dirs: &Dirs) -> Result<(), EngineError> {
        let here = identity::here()?;
        self.own_netns = here.1;
        let known = self.known_place()?;
        self.refuse_anothers(known.as_ref(), &here, &dirs.run)?;
        if known.is_some_and(|known| known != here) {
            self.run.clear()?;
        }
        Ok(())
    }

    fn take_over_if_lost(&mut self) -> Result<(), EngineError> {
        match self.known_place()? {
            Some(_) => Ok(()),
            None => self.take_over(),
        }
    }
}
