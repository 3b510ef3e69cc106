//! The real kernel, by netlink.
//!
//! Operations that follow each other in one namespace go out in one system call. In between it stops only where an
//! operation needs the number of a link that is not known yet, and at sysctls, nftables and deletions of links.
//!
//! Not here: what should be done (the core), and reading (`crate::observe`).

mod announce;
mod child;
mod delete;
pub(crate) mod door;
pub(crate) mod message;
pub(crate) mod netns;
pub(crate) mod nft_apply;
pub(crate) mod nft_encode;
pub(crate) mod nft_expr;
mod run;
mod shape;
pub(crate) mod socket;
mod sys;
pub(crate) mod sysctl;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use wharf_core::model::Netns;
use wharf_core::op::Op;
use wharf_nft::NfSocket;

use super::{ApplyError, Kernel, OpError};
use crate::process::netns as named;
use child::{Children, Job};
use run::Run;
use socket::Rt;

pub use sysctl::{bridged_as_routed, has_ipv6};

/// A namespace other than the own, open.
pub(crate) struct Space {
    pub(crate) netns: named::Netns,
    rt: Option<Rt>,
}

/// The kernel of the thread's network namespace, which is called the host here.
///
/// Sockets are opened when they are needed first and kept. Use it from the thread (or a thread of the same namespace)
/// that made it.
#[derive(Default)]
pub struct NetlinkKernel {
    host: Option<Rt>,
    spaces: HashMap<PathBuf, Space>,
    /// Closing it waits until the kernel has freed what was deleted: see [`Drop`].
    nf: Option<NfSocket>,
    nf_deleted: bool,
    /// Kept for the same reason.
    conntrack: Option<wharf_nft::conntrack::Conntrack>,
    wait: bool,
    children: Children,
    /// Sysctls that could not be written, and that nothing depends on.
    pub(crate) kept: BTreeSet<String>,
}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) struct Failure {
    at: usize,
    errno: i32,
    detail: Option<String>,
}

impl Failure {
    fn new(at: usize, errno: i32, detail: impl Into<Option<String>>) -> Self {
        Self {
            at,
            errno,
            detail: detail.into(),
        }
    }

    fn io(at: usize, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(at, errno, None),
            None => Self::new(at, 0, error.to_string()),
        }
    }
}

impl NetlinkKernel {
    /// Opens nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a deletion of links is waited for to its end (some 20 ms of waiting for a grace period), or only to its
    /// announcement, when the link is no longer there. The default is `false`: the rest is left to a child process.
    pub fn wait_for_deletions(&mut self, wait: bool) {
        self.wait = wait;
    }

    /// The sockets whose closing may wait.
    fn slow_to_close(&self) -> Vec<RawFd> {
        let nf = self.nf.as_ref().map(|nf| nf.as_fd().as_raw_fd());
        let conntrack = self.conntrack.as_ref().map(|ct| ct.as_fd().as_raw_fd());
        nf.into_iter().chain(conntrack).collect()
    }

    /// The rtnetlink socket of a namespace.
    pub(crate) fn rt(&mut self, place: &Netns) -> io::Result<&mut Rt> {
        match place {
            Netns::Host => {
                if self.host.is_none() {
                    self.host = Some(Rt::open()?);
                }
                self.host.as_mut()
            }
            Netns::Path(_) => {
                let space = self.space(place)?;
                if space.rt.is_none() {
                    let _guard = netns::enter(&space.netns)?;
                    space.rt = Some(Rt::open()?);
                }
                space.rt.as_mut()
            }
        }
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Runs something in a namespace.
    pub(crate) fn inside<T>(
        &mut self,
        place: &Netns,
        what: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        if *place == Netns::Host {
            return what();
        }
        let space = self.space(place)?;
        let _guard = netns::enter(&space.netns)?;
        // Who is in there will want to talk there: better now than to come again.
        if space.rt.is_none() {
            space.rt = Some(Rt::open()?);
        }
        what()
    }

    fn space(&mut self, place: &Netns) -> io::Result<&mut Space> {
        use std::collections::hash_map::Entry;
        let Netns::Path(path) = place else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        Ok(match self.spaces.entry(path.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let netns = named::open(path).map_err(netns::to_io)?;
                entry.insert(Space { netns, rt: None })
            }
        })
    }

    /// The nfnetlink socket of the host.
    pub(crate) fn nf(&mut self) -> io::Result<&mut NfSocket> {
        if self.nf.is_none() {
            self.nf = Some(NfSocket::open().map_err(nft_apply::to_io)?);
        }
        self.nf
            .as_mut()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

impl Kernel for NetlinkKernel {
    fn apply(&mut self, ops: &[&Op]) -> Result<(), ApplyError> {
        const ROUNDS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(5);
        let mut applied = vec![false; ops.len()];
        let mut rounds = ROUNDS;
        loop {
            let left: Vec<usize> = (0..ops.len()).filter(|at| !applied[*at]).collect();
            let rest: Vec<&Op> = left.iter().map(|at| ops[*at]).collect();
            let mut run = Run::new(self, &rest);
            let done = run.all();
            for (at, is) in left.iter().zip(run.into_applied()) {
                applied[*at] |= is;
            }
            let Err(failure) = done else { return Ok(()) };
            let op = rest[failure.at];
            if rounds > 0 && awaits_carrier(op, failure.errno) {
                rounds -= 1;
                std::thread::sleep(PAUSE);
                continue;
            }
            let error = OpError {
                op: Box::new(op.clone()),
                netns: run::place(op).clone(),
                errno: failure.errno,
                detail: failure.detail,
            };
            return Err(ApplyError { error, applied });
        }
    }
}

/// On a busy machine the IPv6 routes of a link may be there only a moment after it is up, when the kernel has noticed
/// its carrier: until then the gateway seems to be nowhere.
fn awaits_carrier(op: &Op, errno: i32) -> bool {
    matches!(op, Op::RouteAdd(route) if route.dst.addr().is_ipv6() && errno == libc::EHOSTUNREACH)
}

impl Drop for NetlinkKernel {
    /// The last close of a socket of nftables waits until what was deleted is freed; unless deletions are to be waited
    /// for, a child does it.
    fn drop(&mut self) {
        if self.nf.is_some() && self.nf_deleted && !self.wait && !self.children.hold_nf() {
            let hold = self.slow_to_close();
            // Without a child closing waits: nothing is lost.
            drop(self.children.start(Job { ask: None, hold }, true));
        }
    }
}
