//! A program in the background, and the monitor that waits for it.
//!
//! ```text
//! caller ── fork ── (leader of a new session, exits at once) ── fork ── monitor ── fork ── program
//! ```
//!
//! The monitor keeps nothing of the caller's but a pipe, is deaf to the terminal, and lives as long as the program. The
//! program leads a session of its own. If the monitor is killed the program goes on, and nobody records its end:
//! [`ProcessId::is_alive`] then tells.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::child::{Plan, Tie};
use super::error::{Errno, ProcessError, Step, Warning};
use super::foreground;
use super::signals::{self, Blocked, Role};
use super::sys::{self, Fork};
use super::wire::{self, Report};
use super::{ContainerProcess, ExitStatus, ProcessId};

/// Where a detached program's output goes. Its input is always `/dev/null`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Nowhere.
    #[default]
    Null,
    /// To the end of these files, which may be one and the same; new ones get mode 0600.
    Files {
        /// For the standard output.
        stdout: PathBuf,
        /// For the standard error.
        stderr: PathBuf,
    },
}

/// A program that runs in the background.
///
/// The callback is not run before this is dropped (or the caller has ended): so the caller can record that the program
/// has started before the monitor records that it has ended. A caller that dies before has recorded nothing: then the
/// monitor ends the program, since nobody would know of it.
#[derive(Debug)]
pub struct Detached {
    id: ProcessId,
    monitor: ProcessId,
    warnings: Vec<Warning>,
    /// A byte in it says that the program is to stay; its closing lets the monitor go on.
    release: OwnedFd,
    unwanted: bool,
}

impl Drop for Detached {
    fn drop(&mut self) {
        if !self.unwanted {
            // Without it the monitor ends the program, which is the right thing then.
            let _ = sys::write_all(self.release.as_fd(), b"y");
        }
    }
}

impl Detached {
    /// The program's process: its number and start time.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The program could not be recorded: the monitor ends it.
    pub fn abandon(mut self) {
        self.unwanted = true;
    }

    /// The monitor's process. It ends after the program, when the callback has returned.
    #[must_use]
    pub fn monitor(&self) -> ProcessId {
        self.monitor
    }

    /// What had to be left out of the container's file system.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl LogTarget {
    /// Standard input, output and error.
    fn open(&self) -> Result<[OwnedFd; 3], ProcessError> {
        let null = || open_log(Path::new("/dev/null"), false);
        Ok(match self {
            Self::Null => [null()?, null()?, null()?],
            Self::Files { stdout, stderr } => {
                [null()?, open_log(stdout, true)?, open_log(stderr, true)?]
            }
        })
    }
}

fn open_log(path: &Path, append: bool) -> Result<OwnedFd, ProcessError> {
    let file: std::io::Result<File> = if append {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    } else {
        OpenOptions::new().read(true).write(true).open(path)
    };
    file.map(OwnedFd::from)
        .map_err(|error| ProcessError::Setup {
            step: Step::Log,
            path: Some(path.to_owned()),
            errno: Errno::from_io(&error),
        })
}

impl ContainerProcess {
    /// Starts the program in the background, and returns when it runs.
    ///
    /// `on_exit` runs in the monitor, a copy of the caller in the caller's namespaces, after the program's end. All
    /// descriptors but the standard streams (which are `/dev/null`) are closed there: it must open anew what it needs,
    /// databases and sockets above all, and must own nothing that closes a descriptor. It is not run when this
    /// function returns an error.
    ///
    /// # Errors
    ///
    /// [`ProcessError`], as for [`ContainerProcess::spawn`]. No process is left then.
    pub fn spawn_detached(
        &self,
        log: &LogTarget,
        on_exit: impl FnOnce(ExitStatus),
    ) -> Result<Detached, ProcessError> {
        let plumbing = ProcessError::at(Step::Plumbing);
        let mut plan = Plan::new(self)?;
        plan.stdio = Some(log.open()?);
        let (reader, writer) = sys::pipe().map_err(&plumbing)?;
        let (released, release) = sys::pipe().map_err(&plumbing)?;
        let blocked = Blocked::new().map_err(ProcessError::at(Step::Signals))?;
        // SAFETY: the child and its children exit or become the program. Their locks are the allocator's, which libc
        // keeps usable; what the callback does is documented above.
        let leader = match unsafe { sys::fork() }.map_err(ProcessError::at(Step::Fork))? {
            Fork::Child => {
                let monitor = Monitor {
                    plan: &plan,
                    blocked: &blocked,
                    report: writer.as_fd(),
                    released: released.as_fd(),
                };
                let _ = catch_unwind(AssertUnwindSafe(|| monitor.lead(on_exit)));
                sys::exit_now(1)
            }
            Fork::Parent(pid) => pid,
        };
        drop((writer, released));
        let _ = sys::wait_for(leader, true);
        let bytes = sys::read_to_end(reader.as_fd()).map_err(&plumbing)?;
        let report = Report::parse(&bytes);
        let (id, monitor) = (report.started, report.monitor);
        let warnings = plan.judge(report)?;
        match (id, monitor) {
            (Some(id), Some(monitor)) => Ok(Detached {
                id,
                monitor,
                warnings,
                release,
                unwanted: false,
            }),
            _ => Err(ProcessError::Vanished),
        }
    }
}

/// What the processes between caller and program share. All of it belongs to the caller's copy, and is never dropped.
struct Monitor<'a> {
    plan: &'a Plan,
    blocked: &'a Blocked,
    report: BorrowedFd<'a>,
    released: BorrowedFd<'a>,
}

impl Monitor<'_> {
    /// The first child: a new session, whose leader ends so that the monitor can never get a terminal.
    fn lead(&self, on_exit: impl FnOnce(ExitStatus)) {
        if let Err(errno) = sys::setsid() {
            return self.give_up(Step::Session, errno);
        }
        // SAFETY: as for the first fork, of which this is the only thread.
        match unsafe { sys::fork() } {
            Ok(Fork::Child) => self.watch(on_exit),
            Ok(Fork::Parent(_)) => {}
            Err(errno) => self.give_up(Step::Fork, errno),
        }
    }

    fn give_up(&self, step: Step, errno: Errno) {
        wire::send_failure(self.report, &super::child::plain(step)(errno));
    }

    /// The second child: starts the program, tells the caller, waits, and runs the callback.
    fn watch(&self, on_exit: impl FnOnce(ExitStatus)) {
        signals::ignore_hangup();
        sys::set_name(c"wharf-monitor");
        let (mut child, report) = match foreground::start(self.plan, Tie::Free) {
            Ok(started) => started,
            Err(ProcessError::Setup { step, errno, .. }) => return self.give_up(step, errno),
            Err(_) => return self.give_up(Step::Fork, Errno(libc::EIO)),
        };
        for warning in &report.warnings {
            wire::send_warning(self.report, warning);
        }
        if let Some(failure) = &report.failure {
            return wire::send_failure(self.report, failure);
        }
        wire::send_started(self.report, child.id);
        if let Some(me) = ProcessId::of(sys::getpid().unsigned_abs()) {
            wire::send_monitor(self.report, me);
        }
        self.let_go(&child);
        // End of file: the caller has recorded the start, or died before.
        let said = sys::read_to_end(self.released);
        if said.is_ok_and(|bytes| bytes.is_empty()) {
            // It leads its group, and its number is kept until it is waited for.
            let _ = sys::kill(-child.id.pid.cast_signed(), libc::SIGKILL);
        }
        let status = child.wait(self.blocked, Role::Monitor);
        if let Ok(status) = status {
            on_exit(status);
        }
    }

    /// Holds on to nothing of the caller's: no terminal, no lock, no directory, no end of its pipes.
    fn let_go(&self, child: &foreground::Child) {
        if let Some([null, ..]) = &self.plan.stdio {
            for target in 0..3 {
                let _ = sys::dup2(null.as_fd(), target);
            }
        }
        let _ = sys::chdir(c"/");
        let mut keep = vec![self.released.as_raw_fd(), self.blocked.fd().as_raw_fd()];
        keep.extend(child.pidfd().map(|fd| fd.as_raw_fd()));
        // The report last: its closing lets the caller go on, who may count on all else being closed.
        let mut first = keep.clone();
        first.push(self.report.as_raw_fd());
        sys::close_all_but(&mut first);
        sys::close_all_but(&mut keep);
    }
}
