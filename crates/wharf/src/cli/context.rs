//! What every command needs: the printer, and the engine when it comes to that.

use std::env;
use std::path::{Path, PathBuf};

use wharf_core::nearest::nearest;
use wharf_engine::api::{Dirs, Mode, ObjectName, Outcome};
use wharf_engine::engine::Engine;

use crate::output::Printer;
use crate::output::error::CommandError;

/// The surroundings of one command.
pub struct Context {
    /// Where it prints.
    pub printer: Printer,
    /// Where wharf keeps what it knows.
    pub dirs: Dirs,
}

/// Where wharf keeps what it knows under Podman without privileges, which may not write at the usual places: in Podman's
/// own directory of networks, which lives as long as they do.
pub fn rootless_dirs(networks: &Path) -> Dirs {
    Dirs {
        state: networks.join("wharf/state"),
        run: networks.join("wharf/run"),
    }
}

impl Context {
    /// The surroundings as the environment has them.
    pub fn new(printer: Printer) -> Self {
        let chosen = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        // What `podman unshare` sets: this is Podman without privileges, whose networks are asked for.
        let podman = chosen("CONTAINERS_RUNROOT").map(|root| rootless_dirs(&root.join("networks")));
        let mut dirs = podman.filter(|d| d.run.is_dir()).unwrap_or_default();
        if let Some(path) = chosen("WHARF_STATE_DIR") {
            dirs.state = path;
        }
        if let Some(path) = chosen("WHARF_RUN_DIR") {
            dirs.run = path;
        }
        Self { printer, dirs }
    }

    /// Opens the engine, and says what it had to mend.
    ///
    /// # Errors
    /// The store or the privileges.
    pub fn engine(&self) -> Result<Engine, CommandError> {
        let mut engine = Engine::open(&self.dirs)?;
        self.printer.notes(&engine.take_notes());
        Ok(engine)
    }

    /// Prints an error; of a name that is not there with the one that was likely meant.
    pub fn error(&self, error: &CommandError) {
        let mut error = error.clone();
        let meant = error.missing.as_ref().and_then(|object| self.meant(object));
        if let Some(name) = meant {
            error.hint = Some(format!("did you mean `{name}`?"));
        }
        self.printer.error(&error);
    }

    /// The name that one which is not there is likely a slip of.
    fn meant(&self, missing: &ObjectName) -> Option<String> {
        let mut engine = Engine::open(&self.dirs).ok()?;
        let (given, names): (&str, Vec<String>) = match missing {
            ObjectName::Network(name) => {
                let all = engine.networks().ok()?.into_iter();
                (
                    name.as_str(),
                    all.map(|v| v.spec.name.to_string()).collect(),
                )
            }
            ObjectName::Container(name) => {
                let all = engine.containers().ok()?.into_iter();
                (name.as_str(), all.map(|c| c.name.to_string()).collect())
            }
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        nearest(given, &names).map(str::to_owned)
    }

    /// Ends a change: prints its notes, and for a dry run its plan instead of a result.
    ///
    /// # Errors
    /// Those of printing.
    pub fn outcome<T>(&self, outcome: Outcome<T>, mode: Mode) -> Result<Option<T>, CommandError> {
        self.printer.notes(&outcome.notes);
        match mode {
            Mode::Apply => Ok(Some(outcome.value)),
            Mode::DryRun => {
                self.printer.plan(&outcome.plan)?;
                Ok(None)
            }
        }
    }
}
