//! Signals: blocked before the fork, read from a descriptor afterwards, so that none falls in between.
//!
//! The program shares the caller's process group in the foreground. What the terminal sends (Ctrl-C, Ctrl-\, a change
//! of the window's size) the kernel delivers to the whole group; passing it on would deliver it twice. What another
//! process sends with `kill` reaches one process only, and is passed on. `si_code` tells the two apart. A `kill` of the
//! whole group cannot be told from a `kill` of one process: then the program gets the signal twice.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::error::Errno;
use super::sys;

/// Not blocked: the kernel raises them for a fault in the process itself.
const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// The highest signal number of Linux on all but MIPS.
const LAST_SIGNAL: c_int = 64;

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_mask(set: &libc::sigset_t) -> Result<libc::sigset_t, Errno> {
    let mut old = empty_set();
    // SAFETY: both sets are initialised and live.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, &mut old) } {
        0 => Ok(old),
        errno => Err(Errno(errno)),
    }
}

fn set_action(signal: c_int, action: libc::sighandler_t) -> Option<libc::sighandler_t> {
    // SAFETY: the action is SIG_DFL or SIG_IGN, never a function of ours.
    let old = unsafe { libc::signal(signal, action) };
    (old != libc::SIG_ERR).then_some(old)
}

extern "C" fn go_on(_: c_int) {}

/// From now on SIGTERM and SIGINT do not end this process; programs it starts get them as usual.
pub fn outlast_termination() {
    let mut action: libc::sigaction = {
        // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask, the default action.
        unsafe { std::mem::zeroed() }
    };
    action.sa_sigaction = go_on as extern "C" fn(c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the action is initialised, and its function does nothing.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Sends SIGHUP; whether there was such a process.
pub fn hang_up(pid: i32) -> bool {
    // SAFETY: only numbers are passed. 0 and below would name whole groups.
    pid > 0 && unsafe { libc::kill(pid, libc::SIGHUP) } == 0
}

/// The calling thread's signals, blocked until this is dropped.
#[derive(Debug)]
pub(super) struct Blocked {
    old_mask: libc::sigset_t,
    old_child_action: Option<libc::sighandler_t>,
    fd: OwnedFd,
}

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub signal: c_int,
    /// A process sent it, not the terminal or the kernel.
    pub by_process: bool,
}

impl Blocked {
    /// Blocks all signals but faults.
    ///
    /// `SIGCHLD` gets its default action, too: inherited as ignored it would make the kernel reap the program and
    /// lose its exit status.
    pub(super) fn new() -> Result<Self, Errno> {
        let mut set = empty_set();
        // SAFETY: `set` is initialised; filling it and deleting valid signals cannot fail.
        unsafe {
            libc::sigfillset(&mut set);
            for fault in FAULTS {
                libc::sigdelset(&mut set, fault);
            }
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let old_mask = set_mask(&set)?;
        Ok(Self {
            old_mask,
            old_child_action: set_action(libc::SIGCHLD, libc::SIG_DFL),
            fd,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next signal that has arrived, without waiting.
    pub(super) fn next(&self) -> Option<Arrived> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for one record of that size.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if n != size as isize {
            return None;
        }
        // SAFETY: the kernel has written a whole record.
        let info = unsafe { info.assume_init() };
        Some(Arrived {
            signal: info.ssi_signo as c_int,
            by_process: matches!(
                info.ssi_code,
                libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL
            ),
        })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // What came while the program ran was for the program. Left pending, it would kill the caller now, before it
        // could tidy up or report the program's status.
        while self.next().is_some() {}
        if let Some(action) = self.old_child_action {
            set_action(libc::SIGCHLD, action);
        }
        let _ = set_mask(&self.old_mask);
    }
}

/// Who stands between the sender and the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Same terminal and process group as the program.
    Foreground {
        /// A hang-up of the terminal is told to the session's leader alone.
        leads_session: bool,
    },
    /// Apart from the program and from any terminal.
    Monitor,
}

/// Whether a signal that the waiting parent got should be sent to the program.
pub(super) fn passes_on(arrived: Arrived, role: Role) -> bool {
    match (arrived.signal, role) {
        (libc::SIGCHLD | libc::SIGPIPE, _) => false,
        (libc::SIGHUP, Role::Monitor) => false,
        (libc::SIGHUP, Role::Foreground { leads_session }) => arrived.by_process || leads_session,
        _ => arrived.by_process,
    }
}

/// Whether a program stopped by this signal was stopped by its terminal, so that the shell must see its job stop.
pub(super) fn is_terminal_stop(signal: c_int) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// In the child: every signal has its default action and none is blocked, whatever the caller inherited.
///
/// A signal that was passed on meanwhile takes effect here.
pub(super) fn reset_for_program() -> Result<(), Errno> {
    // Not through libc, which refuses the two or three signals that it keeps for itself; a caller's caller may ignore
    // them all the same. All-zero is the default action, without flags, and with nothing blocked.
    let default = [0u64; 8];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: `default` is larger than the kernel's `sigaction`; the old action may be null. Fails for SIGKILL and
        // SIGSTOP, which need nothing. No handler of this process is lost that it could still run: it becomes another.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    set_mask(&empty_set()).map(drop)
}

/// In the monitor: neither a closing terminal nor a reader that went away ends it.
pub(super) fn ignore_hangup() {
    set_action(libc::SIGHUP, libc::SIG_IGN);
    set_action(libc::SIGPIPE, libc::SIG_IGN);
}

/// Stops the calling process until somebody continues it.
pub(super) fn stop_self() {
    let _ = sys::kill(sys::getpid(), libc::SIGSTOP);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(signal: c_int, by_process: bool, role: Role) -> bool {
        passes_on(Arrived { signal, by_process }, role)
    }

    #[test]
    fn the_terminal_is_not_repeated() {
        let foreground = Role::Foreground {
            leads_session: false,
        };
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGWINCH, libc::SIGHUP] {
            assert!(!passes(signal, false, foreground));
            assert!(passes(signal, true, foreground));
        }
        assert!(passes(
            libc::SIGHUP,
            false,
            Role::Foreground {
                leads_session: true
            }
        ));
        assert!(!passes(libc::SIGHUP, true, Role::Monitor));
        assert!(passes(libc::SIGTERM, true, Role::Monitor));
        assert!(!passes(libc::SIGCHLD, true, foreground));
    }
}
