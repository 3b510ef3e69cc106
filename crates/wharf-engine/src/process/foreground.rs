//! A program in the foreground: the caller's child, on the caller's terminal.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::child::{Plan, Tie};
use super::error::{Errno, ProcessError, Step, Warning};
use super::liveness;
use super::signals::{self, Arrived, Blocked, Role};
use super::sys::{self, Fork, Waited};
use super::wire::Report;
use super::{ContainerProcess, ExitStatus, ProcessId};

/// A program that runs in the foreground.
///
/// Signals are blocked until [`Running::wait`] returns or this is dropped; `wait` passes them on, also those that
/// arrive before it is called. Dropped without `wait`, the program is killed.
///
/// The program is in the caller's process group, so that the terminal is its own; when the caller is killed it is
/// killed, too (`PR_SET_PDEATHSIG`; a set-user-id program clears that).
#[derive(Debug)]
pub struct Running {
    child: Child,
    warnings: Vec<Warning>,
    blocked: Blocked,
    not_send: PhantomData<*const ()>,
}

impl ContainerProcess {
    /// Starts the program as a child, and returns when it runs.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; [`ProcessError::exit_code`] is what Docker would exit with. No process is left then.
    pub fn spawn(&self) -> Result<Running, ProcessError> {
        let plan = Plan::new(self)?;
        let blocked = Blocked::new().map_err(ProcessError::at(Step::Signals))?;
        let (child, report) = start(&plan, Tie::DiesWith(sys::getpid()))?;
        let warnings = plan.judge(report)?;
        Ok(Running {
            child,
            warnings,
            blocked,
            not_send: PhantomData,
        })
    }
}

impl Running {
    /// The program's process: its number and start time.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.child.id
    }

    /// What had to be left out of the container's file system.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Waits for the program's end and passes signals on to it meanwhile.
    ///
    /// When the terminal stops the program (Ctrl-Z), the caller stops as well, for the shell to see.
    ///
    /// # Errors
    ///
    /// [`Step::Wait`], if somebody else has collected the program's exit status.
    pub fn wait(mut self) -> Result<ExitStatus, ProcessError> {
        let role = Role::Foreground {
            leads_session: sys::leads_session(),
        };
        self.child
            .wait(&self.blocked, role)
            .map_err(ProcessError::at(Step::Wait))
    }
}

/// Forks, and reads the child's report until the program runs or the child has given up.
///
/// After a failure the child has been collected, and must not be waited for.
pub(super) fn start(plan: &Plan, tie: Tie) -> Result<(Child, Report), ProcessError> {
    let (reader, writer) = sys::pipe().map_err(ProcessError::at(Step::Plumbing))?;
    // SAFETY: the child becomes the program or exits; the lock that it might miss is the allocator's, which libc keeps
    // usable. What else it calls (files, formatting) has no locks.
    let pid = match unsafe { sys::fork() }.map_err(ProcessError::at(Step::Fork))? {
        Fork::Child => plan.become_program(tie, writer.as_fd()),
        Fork::Parent(pid) => pid,
    };
    drop(writer);
    let mut child = Child::new(pid);
    // Dropped on error: killed and collected.
    let bytes = sys::read_to_end(reader.as_fd()).map_err(ProcessError::at(Step::Plumbing))?;
    let report = Report::parse(&bytes);
    if report.failure.is_some() {
        let _ = child.collect();
    }
    Ok((child, report))
}

/// A child that has not been collected yet; killed when dropped before.
#[derive(Debug)]
pub(super) struct Child {
    pub id: ProcessId,
    pidfd: Option<OwnedFd>,
    collected: bool,
}

impl Child {
    fn new(pid: libc::pid_t) -> Self {
        let pid = pid.unsigned_abs();
        Self {
            // It cannot be gone: not collected, it is at least a zombie.
            id: ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }),
            // Old kernels have none; then SIGCHLD has to do.
            pidfd: sys::pidfd_open(pid).ok(),
            collected: false,
        }
    }

    fn pid(&self) -> libc::pid_t {
        self.id.pid.cast_signed()
    }

    /// What becomes readable at the child's end.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    fn collect(&mut self) -> Result<Waited, Errno> {
        let waited = sys::wait_for(self.pid(), true);
        self.collected = true;
        waited
    }

    /// Waits for the end, and passes signals on.
    pub(super) fn wait(&mut self, blocked: &Blocked, role: Role) -> Result<ExitStatus, Errno> {
        loop {
            while let Some(arrived) = blocked.next() {
                self.pass_on(arrived, role);
            }
            let waited = sys::wait_for(self.pid(), false).inspect_err(|_| self.collected = true)?;
            match waited {
                Waited::Exited(code) => {
                    self.collected = true;
                    return Ok(ExitStatus::Exited(code));
                }
                Waited::Killed(signal) => {
                    self.collected = true;
                    return Ok(ExitStatus::Killed(signal));
                }
                Waited::Stopped(signal) => {
                    if role != Role::Monitor && signals::is_terminal_stop(signal) {
                        signals::stop_self();
                    }
                }
                Waited::Nothing => {
                    sys::poll([Some(blocked.fd()), self.pidfd()], None)?;
                }
            }
        }
    }

    fn pass_on(&self, arrived: Arrived, role: Role) {
        if !signals::passes_on(arrived, role) {
            return;
        }
        // A shell's `fg` continues the whole group: the program had it already, unless it is still stopped.
        if arrived.signal == libc::SIGCONT && !liveness::is_stopped(self.id.pid) {
            return;
        }
        // Not collected, so the number is still this child's. It may have ended; then there is nobody to tell.
        let _ = sys::kill(self.pid(), arrived.signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.collected {
            let _ = sys::kill(self.pid(), libc::SIGKILL);
            let _ = self.collect();
        }
    }
}
