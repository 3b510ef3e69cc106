//! What can go wrong, as data: the step, the path and the kernel's errno.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::netns::NetnsError;

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's last error.
    pub(crate) fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// The error number inside a standard library error, or `EIO` where it has none.
    pub(crate) fn from_io(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

/// A step on the way from the caller to the running program.
///
/// The numbers travel through a pipe between two copies of the same program, so they mean nothing outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// Open the pipes and descriptors that parent and child talk over.
    Plumbing,
    /// Start a new process.
    Fork,
    /// Start a session of its own, away from the caller's terminal.
    Session,
    /// Open the files that take the program's output, and put them in place.
    Log,
    /// Enter the container's network namespace.
    EnterNetns,
    /// Enter the mount or UTS namespace of the container's first program.
    Join,
    /// Make new mount and UTS namespaces.
    NewNamespaces,
    /// Stop mounts made here from reaching the host.
    Propagation,
    /// Set the host name.
    Hostname,
    /// Put the container's own file over one of `/etc`.
    CoverFile,
    /// Mount a `/sys` that shows the container's interfaces.
    Sysfs,
    /// Change to the working directory.
    WorkingDirectory,
    /// Give signals their default meaning, and tie the program's life to its parent's.
    Signals,
    /// Replace the child with the program.
    Exec,
    /// Wait for the program to end.
    Wait,
}

impl Step {
    /// Every step; the index is the number that travels.
    const ALL: [Self; 15] = [
        Self::Plumbing,
        Self::Fork,
        Self::Session,
        Self::Log,
        Self::EnterNetns,
        Self::Join,
        Self::NewNamespaces,
        Self::Propagation,
        Self::Hostname,
        Self::CoverFile,
        Self::Sysfs,
        Self::WorkingDirectory,
        Self::Signals,
        Self::Exec,
        Self::Wait,
    ];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plumbing => "open pipes to the new process",
            Self::Fork => "start a process",
            Self::Session => "start a session",
            Self::Log => "open the log",
            Self::EnterNetns => "enter the network namespace",
            Self::Join => "join the container's mount and UTS namespaces",
            Self::NewNamespaces => "make mount and UTS namespaces",
            Self::Propagation => "separate the mounts from the host's",
            Self::Hostname => "set the host name",
            Self::CoverFile => "cover a file",
            Self::Sysfs => "mount sysfs",
            Self::WorkingDirectory => "change the working directory",
            Self::Signals => "set up signals",
            Self::Exec => "execute the command",
            Self::Wait => "wait for the command",
        })
    }
}

/// Something that did not work, without which the program runs all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What was tried.
    pub step: Step,
    /// On which file, where there is one.
    pub path: Option<PathBuf>,
    /// What the kernel said.
    pub errno: Errno,
}

/// Why a program was not started, or not waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// The argument vector is empty.
    #[error("no command was given")]
    EmptyCommand,
    /// A string holds a NUL byte, which no system call can take.
    #[error("{what} holds a NUL byte: {value:?}")]
    NulByte {
        /// Which string it is.
        what: &'static str,
        /// The string.
        value: OsString,
    },
    /// No such program. Exit status 127.
    #[error("command not found: {}", command.display())]
    CommandNotFound {
        /// The first word of the command.
        command: OsString,
        /// What the kernel said (`ENOENT` also if the program's interpreter is missing).
        errno: Errno,
    },
    /// The program is there, but the kernel does not execute it. Exit status 126.
    #[error("cannot execute {}: {errno}", command.display())]
    NotExecutable {
        /// The first word of the command.
        command: OsString,
        /// What the kernel said.
        errno: Errno,
    },
    /// The container's network namespace cannot be opened.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A step before the program's start failed. Exit status 125.
    #[error("cannot {step}{}: {errno}", path.as_ref().map(|p| format!(" ({})", p.display())).unwrap_or_default())]
    Setup {
        /// Which one.
        step: Step,
        /// On which file, where there is one.
        path: Option<PathBuf>,
        /// What the kernel said.
        errno: Errno,
    },
    /// The child was killed before it could say how it went.
    #[error("the new process ended before it could report")]
    Vanished,
}

impl ProcessError {
    /// A failed step without a path.
    pub(super) fn at(step: Step) -> impl Fn(Errno) -> Self {
        move |errno| Self::Setup {
            step,
            path: None,
            errno,
        }
    }

    /// The exit status that Docker's command line gives such a failure.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_numbers_are_indices() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(step as u8), index, "{step:?}");
            assert_eq!(Step::from_number(step as u8), Some(step));
        }
        assert_eq!(Step::from_number(Step::ALL.len() as u8), None);
    }
}
