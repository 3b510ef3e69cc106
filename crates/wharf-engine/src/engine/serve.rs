//! Watching: when somebody else changes what is wharf's in the kernel, it is mended at once.
//!
//! The kernel announces changes to rules, links, addresses, routes and routing rules. Most are wharf's own; a look
//! that takes no lock tells whether anything is missing, and only then everything is mended. Announcements that come
//! close together are looked at once.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols};

use crate::api::{Dirs, Finding, Mode, Repaired};
use crate::engine::Engine;
use crate::engine::host::failed;
use crate::error::EngineError;

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;
/// `RTNLGRP_LINK`, `RTNLGRP_NEIGH`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_RULE`,
/// `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV6_RULE`.
const ROUTING: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
/// Announcements that come this close together are one.
const SETTLE: Duration = Duration::from_millis(20);
/// From one look to the next, so that a busy host is not kept busier.
const PAUSE: Duration = Duration::from_millis(250);
/// From a failure to the next try.
const SOON: Duration = Duration::from_secs(1);
/// What is not announced, such as sysctls, is looked at this often.
const ROUND: Duration = Duration::from_secs(10);

/// What the watcher has to tell.
#[derive(Debug)]
pub enum Event {
    /// It watches from now on.
    Ready,
    /// Something was mended.
    Mended(Vec<Finding>),
    /// Something could not be mended; it is tried again.
    Failed(EngineError),
}

/// Watches until the process is asked to end (SIGTERM, SIGINT).
///
/// # Errors
/// The kernel's, when its announcements cannot be heard.
pub fn serve(dirs: &Dirs, mut tell: impl FnMut(Event)) -> Result<(), EngineError> {
    let hear = |e: io::Error| failed("listen to the kernel", &e);
    let asked = asked_to_end().map_err(hear)?;
    let rules = listener(protocols::NETLINK_NETFILTER, &[NFTABLES]).map_err(hear)?;
    let routing = listener(protocols::NETLINK_ROUTE, &ROUTING).map_err(hear)?;
    tell(Event::Ready);
    let mut told: Option<String> = None;
    loop {
        // Before the look, so that what happens during it is heard behind it.
        drain(&rules);
        drain(&routing);
        let failed = match look(dirs) {
            Ok(Repaired { mended, left }) => {
                if !mended.is_empty() {
                    tell(Event::Mended(mended));
                }
                let verb = "mend".to_owned();
                (!left.is_empty()).then_some((EngineError::Left { verb, left }, ROUND))
            }
            Err(error) => Some((error, SOON)),
        };
        let patience = failed.as_ref().map_or(ROUND, |(_, patience)| *patience);
        // Told once, and tried again in a while.
        let text = failed.as_ref().map(|(error, _)| error.to_string());
        if let Some((error, _)) = failed.filter(|_| text != told) {
            tell(Event::Failed(error));
        }
        told = text;
        let looked = Instant::now();
        if wait(&asked, Some((&rules, &routing)), patience).map_err(hear)? == Woken::ToEnd {
            return Ok(());
        }
        let rest = PAUSE.saturating_sub(looked.elapsed()).max(SETTLE);
        if wait(&asked, None, rest).map_err(hear)? == Woken::ToEnd {
            return Ok(());
        }
    }
}

/// Looks, and mends what is to be mended. The stores are opened for it only.
fn look(dirs: &Dirs) -> Result<Repaired, EngineError> {
    // Where nothing was ever made, nothing is.
    if !dirs.run.join("db").exists() {
        return Ok(Repaired::default());
    }
    let mut engine = Engine::open(dirs)?;
    if !engine.is_damaged()? {
        return Ok(Repaired::default());
    }
    Ok(engine.repair(Mode::Apply)?.value)
}

fn listener(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Reads away what was announced. A full queue (`ENOBUFS`) is read like any other.
fn drain(socket: &Socket) {
    let mut buffer = [0u8; 8192];
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A descriptor that becomes readable when the process is asked to end.
fn asked_to_end() -> io::Result<OwnedFd> {
    // SAFETY: a signal set is plain data, for which zero bytes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to a live signal set of this function.
    let fd = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    ToEnd,
    ToLook,
}

fn wait(
    asked: &OwnedFd,
    announcements: Option<(&Socket, &Socket)>,
    patience: Duration,
) -> io::Result<Woken> {
    let poll = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // A negative descriptor is passed over.
    let (rules, routing) = announcements.map_or((-1, -1), |(a, b)| (a.as_raw_fd(), b.as_raw_fd()));
    let mut fds = [poll(asked.as_raw_fd()), poll(rules), poll(routing)];
    let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the count are those of a live array.
    let got = unsafe { libc::poll(fds.as_mut_ptr(), 3, millis) };
    if got < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(Woken::ToLook),
            _ => Err(error),
        };
    }
    Ok(match fds[0].revents {
        0 => Woken::ToLook,
        _ => Woken::ToEnd,
    })
}
