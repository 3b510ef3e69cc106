//! The system calls that the standard library does not offer.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Child;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Index of a link in the calling thread's namespace.
pub fn link_index(name: &str) -> io::Result<u32> {
    let name = c_string(name)?;
    // SAFETY: `name` is a zero-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Name of a link in the calling thread's namespace; an error when there is none.
pub fn link_name(index: u32) -> io::Result<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    let length = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// The calling thread's network namespace.
pub fn current_netns() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Runs `work` in another network namespace and comes back.
///
/// # Panics
/// When the way back is refused: going on in the wrong namespace would be worse.
pub fn inside<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = current_netns()?;
    enter(netns)?;
    let result = work();
    enter(home.as_fd()).expect("the namespace we came from is still open");
    Ok(result)
}

/// Moves the calling thread into a network namespace.
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Gives the calling thread a new network namespace, and a mount namespace of its own if asked.
pub fn unshare(mounts: bool) -> io::Result<()> {
    let flags = libc::CLONE_NEWNET | if mounts { libc::CLONE_NEWNS } else { 0 };
    // SAFETY: no pointers are passed.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// `mount -t KIND SOURCE TARGET`, with raw flags.
pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target, kind) = (c_string(source)?, c_string(target)?, c_string(kind)?);
    // SAFETY: all three are zero-terminated strings that outlive the call; no data is passed.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// Splits the process; true in the child.
///
/// Only for a process with one thread: the child may then go on as if it were the parent.
pub fn fork() -> io::Result<bool> {
    // SAFETY: the caller has one thread, so no lock can be held by a thread that the child lacks.
    check(unsafe { libc::fork() }).map(|pid| pid == 0)
}

/// Leaves the caller's session and its standard streams, so that nobody waits for this process.
pub fn detach_from_caller() {
    // SAFETY: no pointers are passed. Rust's own streams tolerate closed descriptors: writes fail.
    unsafe {
        libc::setsid();
        for stream in 0..3 {
            libc::close(stream);
        }
    }
}

/// Waits until one of two descriptors can be read; true when it is the second.
pub fn wait_readable(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> io::Result<bool> {
    let wish = |fd: BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [wish(first), wish(second)];
    // SAFETY: the pointer and the count are those of `fds`.
    check(unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) })?;
    Ok(fds[0].revents == 0)
}

/// What a finished process used.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Processor time, user and system, of the process and of the children it waited for.
    pub cpu: Duration,
    /// Exit status; `None` after a signal.
    pub status: Option<i32>,
}

/// Waits for `child` with `wait4`, which also tells the processor time.
pub fn wait_with_usage(child: &Child) -> io::Result<Ended> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call.
    check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) })?;
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    Ok(Ended {
        cpu,
        status: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
    })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Makes this process the parent of orphans among its descendants.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: this option takes plain integers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Kills a process (`SIGKILL`).
pub fn kill(pid: libc::pid_t) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, libc::SIGKILL) }).map(drop)
}

/// Collects orphans that have ended. Call it only when no child of one's own is running.
pub fn collect_orphans() {
    // SAFETY: a null status pointer is allowed. Ends when there is no ended child left.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Binds the calling thread, and what it starts later, to one processor.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: all zeroes is a valid, empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set; the macro ignores numbers beyond it.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the size are those of `set`.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .map(drop)
}

/// Makes closing this socket reset the connection, so that no port is kept in TIME_WAIT.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: the option's value is a `linger` that outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    })
    .map(drop)
}

/// Makes a TCP socket send as fast as its window allows (`TCP_CONGESTION` with `reno`, which every Linux has). With
/// others a packet that takes longer also makes the next ones smaller, and what is measured is their estimate of a link.
pub fn unpaced(socket: BorrowedFd<'_>) -> io::Result<()> {
    let name = b"reno";
    // SAFETY: the option's value is as long as told and outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// The processor time that this process has taken, all threads together.
pub fn processor_time() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec to be filled.
    check(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
