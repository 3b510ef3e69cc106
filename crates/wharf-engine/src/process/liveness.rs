//! Is it still the same process? And its end.
//!
//! A pid is used again; a pid with its start time is not (within one boot, hence [`boot_id`]).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::error::Errno;
use super::sys;

/// A process, told from all others of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

/// How [`kill_and_wait`] found or made the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It had ended before.
    AlreadyGone,
    /// It ended within the time.
    Terminated,
    /// It had to be killed.
    Killed,
}

/// Why a process was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KillError {
    /// The kernel refused.
    #[error("cannot end process {pid}: {errno}")]
    Refused {
        /// The process.
        pid: u32,
        /// What the kernel said.
        errno: Errno,
    },
    /// Killed, but it is still there: it hangs inside the kernel.
    #[error("process {pid} is still there after SIGKILL")]
    StillThere {
        /// The process.
        pid: u32,
    },
}

/// How long a killed process may take to disappear.
const AFTER_SIGKILL: Duration = Duration::from_secs(10);

impl ProcessId {
    /// Looks up which process has this number now. `None` if none has.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let (_, start_time) = parse_stat(&stat)?;
        Some(Self { pid, start_time })
    }

    /// Whether this very process still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match self.open() {
            Ok(Some(pidfd)) => !has_ended(pidfd.as_fd()),
            Ok(None) => false,
            // No pidfd on this kernel, or no descriptor left: ask /proc.
            Err(_) => self.is_there(),
        }
    }

    /// Asks the process to end (`SIGTERM`), and kills it when `timeout` is over. Returns when it has ended.
    ///
    /// A stopped process is continued, so that it can hear.
    ///
    /// # Errors
    ///
    /// [`KillError`].
    pub fn kill_and_wait(self, timeout: Duration) -> Result<Ending, KillError> {
        let pid = self.pid;
        let refused = |errno| KillError::Refused { pid, errno };
        let Some(pidfd) = self.open().map_err(refused)? else {
            return Ok(Ending::AlreadyGone);
        };
        let pidfd = pidfd.as_fd();
        if has_ended(pidfd) {
            return Ok(Ending::AlreadyGone);
        }
        let signal = |signal| match sys::pidfd_signal(pidfd, signal) {
            Err(Errno(libc::ESRCH)) => Ok(()),
            other => other.map_err(refused),
        };
        signal(libc::SIGTERM)?;
        signal(libc::SIGCONT)?;
        if ends_within(pidfd, timeout).map_err(refused)? {
            return Ok(Ending::Terminated);
        }
        signal(libc::SIGKILL)?;
        if ends_within(pidfd, AFTER_SIGKILL).map_err(refused)? {
            return Ok(Ending::Killed);
        }
        Err(KillError::StillThere { pid })
    }

    /// A descriptor of this very process; `None` if it is gone.
    pub(super) fn open(self) -> Result<Option<OwnedFd>, Errno> {
        match sys::pidfd_open(self.pid) {
            // First the descriptor, then the look: whoever has the number now is whom the descriptor means.
            Ok(pidfd) => Ok((Self::of(self.pid) == Some(self)).then_some(pidfd)),
            // EINVAL: 0, or the number of a thread that leads no process.
            Err(Errno(libc::ESRCH | libc::EINVAL)) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn is_there(self) -> bool {
        std::fs::read(format!("/proc/{}/stat", self.pid))
            .ok()
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(state, start)| start == self.start_time && !b"ZX".contains(&state))
    }
}

/// Whether the process is stopped by a signal (or a debugger).
pub(super) fn is_stopped(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| parse_stat(&stat))
        .is_some_and(|(state, _)| state.eq_ignore_ascii_case(&b't'))
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    ends_within(pidfd, Duration::ZERO).unwrap_or(false)
}

/// A pidfd becomes readable when the last thread has ended.
fn ends_within(pidfd: BorrowedFd<'_>, time: Duration) -> Result<bool, Errno> {
    sys::poll([Some(pidfd)], Some(time)).map(|[ended]| ended)
}

/// State and start time, from `/proc/PID/stat`. The second field, the name, may hold spaces and brackets.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The state is field 3; after it, field 22 is the nineteenth.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

/// Whether the process with this number and start time still runs: [`ProcessId::is_alive`].
#[must_use]
pub fn is_alive(pid: u32, start_time: u64) -> bool {
    ProcessId { pid, start_time }.is_alive()
}

/// Ends a process: [`ProcessId::kill_and_wait`].
///
/// # Errors
///
/// [`KillError`].
pub fn kill_and_wait(pid: u32, start_time: u64, timeout: Duration) -> Result<Ending, KillError> {
    ProcessId { pid, start_time }.kill_and_wait(timeout)
}

/// The processes whose main thread is in this network namespace, as far as the caller may look.
///
/// Programs leave children behind; a container without a pid namespace has ended when this is empty. Threads that
/// entered on their own (as wharf's do) are not listed.
#[must_use]
pub fn members(netns_inode: u64) -> Vec<ProcessId> {
    members_of(&BTreeSet::from([netns_inode]))
}

/// As [`members`], of several namespaces.
#[must_use]
pub fn members_of(netns_inodes: &BTreeSet<u64>) -> Vec<ProcessId> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(ProcessId::of)
        .filter(|id| {
            std::fs::metadata(format!("/proc/{}/ns/net", id.pid))
                .is_ok_and(|netns| netns_inodes.contains(&netns.ino()))
        })
        .collect()
}

/// The network namespaces that processes are in, each with one of the processes.
#[must_use]
pub fn namespaces() -> std::collections::BTreeMap<u64, u32> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let netns = std::fs::metadata(entry.path().join("ns/net"));
        if let (Some(pid), Ok(netns)) = (pid, netns) {
            found.entry(netns.ino()).or_insert(pid);
        }
    }
    found
}

/// The number of this boot; process ids and namespace inodes recorded under another one mean nothing.
///
/// # Errors
///
/// If `/proc` is not there.
pub fn boot_id() -> Result<String, Errno> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim_end().to_owned())
        .map_err(|error| Errno::from_io(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line =
            b"4242 (a) S 1 ) (b)) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 991234 20 21\n";
        assert_eq!(parse_stat(line), Some((b'T', 991_234)));
        assert_eq!(parse_stat(b"4242 (x) S 1 2"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let me = ProcessId::of(std::process::id()).expect("this process");
        assert!(me.is_alive());
        let earlier = ProcessId {
            start_time: me.start_time - 1,
            ..me
        };
        assert!(!earlier.is_alive());
        assert_eq!(
            earlier.kill_and_wait(Duration::ZERO),
            Ok(Ending::AlreadyGone)
        );
        assert!(!is_alive(0, 0));
        assert!(!is_alive(u32::MAX, 0));
    }
}
