//! A program in a container: its namespaces, its start, its signals, its end. And named network namespaces.
//!
//! There is no daemon. A foreground program is the caller's child ([`ContainerProcess::spawn`]); a detached one
//! ([`ContainerProcess::spawn_detached`]) has a monitor, a copy of the caller which waits for it and then runs what the
//! caller gave it to run. The program gets the container's network namespace, and new mount and UTS namespaces in which a
//! few files of `/etc` and `/sys` are the container's own; or those of a program that is already in the container.
//!
//! This is not a sandbox: the program has the caller's user, capabilities, file system and process table.
//!
//! Start from a process with one thread. Signals are blocked for the calling thread only, and what is sent to a process
//! may be given to any of its threads.

mod child;
mod detached;
mod error;
mod foreground;
pub mod liveness;
mod mounts;
pub mod netns;
mod signals;
mod sys;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;

pub use detached::{Detached, LogTarget};
pub use error::{Errno, ProcessError, Step, Warning};
pub use foreground::Running;
pub use liveness::ProcessId;
pub use signals::{hang_up, outlast_termination};

/// A program to be started in a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerProcess {
    /// The container's network namespace: a named one, or any path that leads to one.
    pub netns: PathBuf,
    /// The host name in the new UTS namespace; it also covers `/etc/hostname`.
    pub hostname: String,
    /// What covers `/etc/hosts`.
    pub hosts: String,
    /// What covers `/etc/resolv.conf`; `None` leaves the host's.
    pub resolv_conf: Option<String>,
    /// The command and its arguments. Without a slash the command is looked up in `env`'s `PATH`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; `None` is the caller's.
    pub cwd: Option<PathBuf>,
    /// A process of the container whose mount and UTS namespaces the program joins; then `hostname`, `hosts` and
    /// `resolv_conf` are what it has. If it has ended, the program gets namespaces of its own as if this were `None`.
    pub join: Option<ProcessId>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal of this number killed it.
    Killed(i32),
}

impl ExitStatus {
    /// The code a shell would report: the program's own, or 128 and the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}
