//! The system calls of this module, each behind a safe function that keeps errno.
//!
//! What is not safe to call at all times is `fork`; it stays `unsafe` and says what a caller owes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use libc::{c_char, c_int, c_long, c_ulong, c_void, pid_t};

use super::error::Errno;

fn check(result: c_int) -> Result<c_int, Errno> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

fn check_long(result: c_long) -> Result<c_long, Errno> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

/// Takes ownership of a descriptor that a system call just returned.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: called only with the fresh, valid result of a system call; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A pipe, both ends closed on exec: (read, write).
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(fds[0]), owned(fds[1])))
}

/// `open(2)`, always with `O_CLOEXEC`.
pub(super) fn open(path: &CStr, flags: c_int, mode: libc::mode_t) -> Result<OwnedFd, Errno> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe {
        libc::open(
            path.as_ptr(),
            flags | libc::O_CLOEXEC,
            libc::c_uint::from(mode),
        )
    })
    .map(owned)
}

/// Writes everything, across short writes and interruptions.
pub(super) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) if Errno::last().0 == libc::EINTR => {}
            Err(_) => return Err(Errno::last()),
        }
    }
    Ok(())
}

/// Reads until end of file.
pub(super) fn read_to_end(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        // SAFETY: pointer and length are those of `buffer`.
        let n = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(n) {
            Ok(0) => return Ok(out),
            Ok(n) => out.extend(&buffer[..n]),
            Err(_) if Errno::last().0 == libc::EINTR => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

/// In which of the two processes `fork` returned.
pub(super) enum Fork {
    Child,
    Parent(pid_t),
}

/// `fork(2)`.
///
/// # Safety
///
/// The child has one thread and copies of whatever locks the others held. It must end in `exit_now` or `execve`,
/// never return into the caller's frames, and touch nothing that another thread of the parent may have had locked
/// (the allocator is fine: libc takes its lock around the fork).
pub(super) unsafe fn fork() -> Result<Fork, Errno> {
    // SAFETY: passed on to the caller.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process at once: no destructors, no flushing of the parent's buffers.
pub(super) fn exit_now(code: c_int) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends in the program, or in the reason why not.
pub(super) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    fn pointers(strings: &[CString]) -> Vec<*const c_char> {
        let mut out: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        out.push(std::ptr::null());
        out
    }
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end in a null pointer, and all strings live on in the borrowed slices.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::last()
}

pub(super) fn setsid() -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

pub(super) fn getpid() -> pid_t {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::getpid() }
}

pub(super) fn getppid() -> pid_t {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::getppid() }
}

/// Whether the calling process leads its session.
pub(super) fn leads_session() -> bool {
    // SAFETY: takes no pointers and cannot fail for the caller itself.
    (unsafe { libc::getsid(0) }) == getpid()
}

pub(super) fn setns(fd: BorrowedFd<'_>, kind: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }).map(drop)
}

pub(super) fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub(super) fn sethostname(name: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length are those of a live slice.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub(super) fn chdir(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// Makes `target` (0, 1 or 2) a copy of `fd` that stays open on exec.
pub(super) fn dup2(fd: BorrowedFd<'_>, target: RawFd) -> Result<(), Errno> {
    // SAFETY: takes no pointers; `target` is a standard stream, which no `OwnedFd` of ours owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map(drop)
}

/// `mount(2)`; what is not needed for the kind of call is `None`.
pub(super) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> Result<(), Errno> {
    fn pointer(string: Option<&CStr>) -> *const c_char {
        string.map_or(std::ptr::null(), CStr::as_ptr)
    }
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    check(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast::<c_void>(),
        )
    })
    .map(drop)
}

/// Takes the topmost mount at `target` away, also when in use. Does not follow a symbolic link.
pub(super) fn detach_mount(target: &CStr) -> Result<(), Errno> {
    // SAFETY: `target` is NUL-terminated.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })
        .map(drop)
}

/// Whether the file system at `path` is mounted read-only.
pub(super) fn is_read_only(path: &CStr) -> bool {
    // SAFETY: all-zero is a valid `statvfs`, a struct of integers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated, `stat` is ours to write.
    check(unsafe { libc::statvfs(path.as_ptr(), &mut stat) }).is_ok()
        && stat.f_flag & libc::ST_RDONLY != 0
}

/// Whether `fd` lies on the file system of namespaces.
pub(super) fn is_namespace(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: all-zero is a valid `statfs`, a struct of integers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat.f_type as u64 == libc::NSFS_MAGIC as u64)
}

/// The `CLONE_NEW…` kind of an open namespace.
pub(super) fn namespace_kind(fd: BorrowedFd<'_>) -> Result<c_int, Errno> {
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: this request takes no argument; the cast fits both glibc's and musl's type of it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// An exclusive lock on an open file; waits for it if `wait`, else `EWOULDBLOCK`.
pub(super) fn lock(fd: BorrowedFd<'_>, wait: bool) -> Result<(), Errno> {
    let operation = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
    loop {
        // SAFETY: takes no pointers.
        match check(unsafe { libc::flock(fd.as_raw_fd(), operation) }) {
            Err(Errno(libc::EINTR)) => {}
            other => return other.map(drop),
        }
    }
}

/// From the next `execve` on, every descriptor above the standard streams is closed.
pub(super) fn close_others_on_exec() {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    // SAFETY: takes no pointers; nothing is closed before the exec, which ends all owners.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    for fd in open_descriptors() {
        // SAFETY: takes no pointers.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Closes every descriptor above the standard streams but those in `keep`.
///
/// For a process that has just been forked and never returns: whatever in its memory thinks it owns one of the
/// descriptors must not be used or dropped any more.
pub(super) fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first: u32 = 3;
    let mut supported = true;
    for end in keep.iter().map(|&fd| fd as u32).chain([u32::MAX]) {
        if end > first {
            // SAFETY: takes no pointers; see above for the owners.
            let done = unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0u32) };
            supported &= done == 0;
        }
        first = first.max(end.saturating_add(1));
    }
    if supported {
        return;
    }
    for fd in open_descriptors() {
        if !keep.contains(&fd) {
            // SAFETY: takes no pointers; see above for the owners.
            unsafe { libc::close(fd) };
        }
    }
}

fn open_descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd > 2)
        .collect()
}

/// Sends `signal` to the process when its parent (the thread that forked it) dies.
pub(super) fn die_with_parent(signal: c_int) -> Result<(), Errno> {
    // SAFETY: this option takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong) }).map(drop)
}

/// Names the process for `ps` and `top`; the kernel keeps 15 bytes.
pub(super) fn set_name(name: &CStr) {
    // SAFETY: this option takes a NUL-terminated string. It cannot fail.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// What `waitpid` saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// No change, or none to report.
    Nothing,
    Exited(c_int),
    Killed(c_int),
    Stopped(c_int),
}

/// Collects one change of a child; with `wait` blocks for its end.
pub(super) fn wait_for(pid: pid_t, wait: bool) -> Result<Waited, Errno> {
    let mut status = 0;
    let flags = if wait {
        0
    } else {
        libc::WNOHANG | libc::WUNTRACED
    };
    loop {
        // SAFETY: `status` is ours to write.
        match check(unsafe { libc::waitpid(pid, &mut status, flags) }) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(Waited::Nothing),
            Ok(_) if libc::WIFEXITED(status) => {
                return Ok(Waited::Exited(libc::WEXITSTATUS(status)));
            }
            Ok(_) if libc::WIFSIGNALED(status) => {
                return Ok(Waited::Killed(libc::WTERMSIG(status)));
            }
            Ok(_) => return Ok(Waited::Stopped(libc::WSTOPSIG(status))),
        }
    }
}

pub(super) fn kill(pid: pid_t, signal: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// A descriptor of a process, which never comes to mean another one.
pub(super) fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0u32) })
        .map(|fd| owned(fd as RawFd))
}

pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<(), Errno> {
    // SAFETY: a null `siginfo` is allowed and means what `kill` sends.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0u32,
        )
    })
    .map(drop)
}

/// Waits until one of the descriptors can be read, or the time is over; says which can.
pub(super) fn poll<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N], Errno> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut set = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    loop {
        let millis = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            left.as_micros().div_ceil(1000).min(c_int::MAX as u128) as c_int
        });
        // SAFETY: pointer and length are those of `set`.
        match check(unsafe { libc::poll(set.as_mut_ptr(), N as libc::nfds_t, millis) }) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(set.map(|entry| entry.revents != 0)),
        }
    }
}
