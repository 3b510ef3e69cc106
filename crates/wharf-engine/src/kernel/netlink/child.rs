//! Child processes that wait for the kernel in this process's place, and that hold a descriptor so that closing it here
//! does not wait.
//!
//! A child shares this process's memory (`CLONE_VM`) and has a stack of its own: to copy a process's page tables and
//! then each page that either side writes to costs a third of a millisecond, more than the deletion that is waited
//! for. What it owes for that: it makes system calls, and touches nothing but its [`Job`] and its stack.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

/// What a child does before it ends.
pub(super) struct Job {
    /// A request to send, if it is not only there to hold descriptors.
    pub(super) ask: Option<Ask>,
    /// Descriptors that it keeps until it ends, beside those it needs.
    pub(super) hold: Vec<RawFd>,
}

/// A request whose answer takes long.
pub(super) struct Ask {
    /// Where it is sent, and the answer comes.
    pub(super) socket: RawFd,
    /// Where the answer's error number goes, in the machine's byte order.
    pub(super) report: RawFd,
    /// One netlink message.
    pub(super) request: Vec<u8>,
}

/// The children that may still be there.
#[derive(Default)]
pub(super) struct Children(Vec<Child>);

struct Child {
    pid: libc::pid_t,
    /// Whether it holds the socket of nftables.
    holds_nf: bool,
    /// Its own until it has ended, so nothing here frees it before.
    memory: *mut Memory,
}

// SAFETY: the memory is its child's, and after that whoever's who has seen the child end; nothing in it is a thread's.
unsafe impl Send for Child {}

/// Children that were there when their [`Children`] went: a process that stays has them on its list until somebody looks.
static LEFT: Mutex<Vec<Child>> = Mutex::new(Vec::new());

impl Drop for Children {
    fn drop(&mut self) {
        self.reap();
        if !self.0.is_empty() {
            let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
            left.append(&mut self.0);
        }
    }
}

impl Child {
    /// Whether it has not ended; when it has, what it used is free.
    fn is_there(&self) -> bool {
        // SAFETY: a null status pointer is allowed.
        let there = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) == 0 };
        if !there {
            // SAFETY: made by `Box::into_raw` in `start`, and the child that used it is no more. Who hears that a child
            // has ended forgets it.
            drop(unsafe { Box::from_raw(self.memory) });
        }
        there
    }
}

/// What a child uses of this process's memory.
struct Memory {
    job: Job,
    /// Not filled in: of the pages that it could have, the child touches one.
    stack: Box<[MaybeUninit<u8>]>,
}

/// The child's frames take less than 2 KiB.
const STACK: usize = 32 << 10;

impl Children {
    /// Forgets those that have ended.
    pub(super) fn reap(&mut self) {
        self.0.retain(Child::is_there);
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(Child::is_there);
    }

    /// Whether a child holds the socket of nftables.
    pub(super) fn hold_nf(&mut self) -> bool {
        self.reap();
        self.0.iter().any(|child| child.holds_nf)
    }

    /// Starts a child. The descriptors in its job may be closed here as soon as this returns.
    pub(super) fn start(&mut self, mut job: Job, holds_nf: bool) -> io::Result<()> {
        self.reap();
        if let Some(ask) = &job.ask {
            job.hold.extend([ask.socket, ask.report]);
        }
        job.hold.sort_unstable();
        let stack = Box::new_uninit_slice(STACK);
        let memory = Box::into_raw(Box::new(Memory { job, stack }));
        // Handlers of this process's must not run in the child, where they would find this one's memory.
        let before = block_all_signals();
        // SAFETY: the stack is the child's alone, its top a multiple of 16 as all architectures ask; `memory` lives
        // until the child has ended. What the C library keeps per thread (errno) is shared as well: this process goes
        // straight on to wait for the announcement and reads errno for no call that can fail meanwhile; the child's
        // calls can fail only before the announcement (an old kernel has no close_range) or not at all.
        let pid = unsafe {
            let top = (*memory).stack.as_mut_ptr_range().end.cast::<u8>();
            let top = top.sub(top.addr() % 16);
            let flags = libc::CLONE_VM | libc::SIGCHLD;
            libc::clone(child, top.cast(), flags, memory.cast())
        };
        let started = if pid < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        // SAFETY: the set was filled in by `block_all_signals`.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
        match started {
            Ok(()) => self.0.push(Child {
                pid,
                holds_nf,
                memory,
            }),
            // SAFETY: no child was made, so it is nobody else's.
            Err(_) => drop(unsafe { Box::from_raw(memory) }),
        }
        started
    }
}

/// Blocks what can be blocked; says what was before.
fn block_all_signals() -> libc::sigset_t {
    // SAFETY: a signal set is integers, and both are filled in before they are read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before);
        before
    }
}

/// What the child runs: leaves the parent's session, so that its terminal's signals go past it, sends, waits for the
/// answer, reports it. No allocation, no locks, no signal (all are blocked; a report that nobody reads is an error,
/// which is nobody's matter). Calls go by `syscall`: the C library's own look at this process's threads.
extern "C" fn child(memory: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes what it has just made, and leaves it alone until this process has ended.
    let job = unsafe { &(*memory.cast::<Memory>()).job };
    // SAFETY: takes no pointers.
    unsafe { libc::syscall(libc::SYS_setsid) };
    let mut from = 0;
    for fd in &job.hold {
        close_range(from, *fd - 1);
        from = *fd + 1;
    }
    close_range(from, RawFd::MAX);
    if let Some(ask) = &job.ask {
        let word = answer(ask).to_ne_bytes();
        // SAFETY: pointer and length are those of `word`.
        unsafe { libc::syscall(libc::SYS_write, ask.report, word.as_ptr(), word.len()) };
    }
    // SAFETY: takes no pointers and does not return: nothing of the parent's is torn down.
    unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    0
}

/// Sends the request; the error number of the answer, `EIO` where there is none.
fn answer(ask: &Ask) -> i32 {
    const NOBODY: usize = 0;
    let mut buffer = [0u8; 1024];
    let (request, length) = (ask.request.as_ptr(), ask.request.len());
    // SAFETY: pointers and lengths are those of live slices.
    let got = unsafe {
        if libc::syscall(libc::SYS_sendto, ask.socket, request, length, 0, NOBODY, 0) < 0 {
            return libc::EIO;
        }
        let (pointer, length) = (buffer.as_mut_ptr(), buffer.len());
        libc::syscall(
            libc::SYS_recvfrom,
            ask.socket,
            pointer,
            length,
            0,
            NOBODY,
            NOBODY,
        )
    };
    // struct nlmsghdr is 16 bytes, then comes the negative error number.
    match buffer[16..20].try_into() {
        Ok(word) if got >= 20 => i32::from_ne_bytes(word).wrapping_neg(),
        _ => libc::EIO,
    }
}

fn close_range(from: RawFd, to: RawFd) {
    if from > to {
        return;
    }
    // SAFETY: only numbers are passed, and nothing in this process uses the descriptors any more.
    let done = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    if done < 0 {
        for fd in from..=to.min(4096) {
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_close, fd) };
        }
    }
}
