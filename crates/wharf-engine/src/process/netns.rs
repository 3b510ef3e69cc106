//! Network namespaces: open, enter, and the named ones that `ip netns` shows.
//!
//! A name is a file in `/run/netns` with the namespace mounted on it. A crash between the two leaves a plain file; the
//! next `create` of that name recognises and uses it. The file is locked while its namespace is made, so that a
//! creation in progress is never taken for a leftover.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Errno;
use super::sys;
use crate::failpoint;

/// Where named namespaces are.
pub const DIRECTORY: &str = "/run/netns";
const DIRECTORY_C: &CStr = c"/run/netns";
const OWN: &CStr = c"/proc/thread-self/ns/net";
const OWN_PATH: &str = "/proc/thread-self/ns/net";

/// What was being done to a named namespace when the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetnsStep {
    /// Make `/run/netns`, or make it a shared mount point.
    Directory,
    /// Make the file that bears the name.
    File,
    /// Start the thread that makes the namespace.
    Thread,
    /// `unshare(CLONE_NEWNET)`.
    Unshare,
    /// Mount the namespace on its file.
    Mount,
    /// Unmount the namespace from its file.
    Unmount,
    /// Remove the file.
    Remove,
    /// Open the namespace.
    Open,
    /// Enter the namespace.
    Enter,
}

/// Why a network namespace could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetnsError {
    /// The name cannot be a file name.
    #[error("{0:?} cannot name a network namespace")]
    InvalidName(String),
    /// A namespace of this name is there, or is being made at this moment.
    #[error("network namespace {0:?} exists already")]
    Exists(String),
    /// There is nothing at this path.
    #[error("there is no network namespace at {}", .0.display())]
    NotFound(PathBuf),
    /// There is something at this path that is no namespace (or a leftover, with nothing mounted on it).
    #[error("{} is no namespace", .0.display())]
    NotNamespace(PathBuf),
    /// The path leads to a namespace of another kind.
    #[error("{} is a namespace, but not of the network (kind {kind:#x})", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// Its `CLONE_NEW…` constant.
        kind: i32,
    },
    /// The calling thread could enter, but not come back: its own namespace belongs to another user namespace.
    #[error("the present network namespace could not be entered again: {0}")]
    NoWayBack(Errno),
    /// The kernel refused.
    #[error("{step:?} of network namespace {} failed: {errno}", path.display())]
    System {
        /// What was being done.
        step: NetnsStep,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

fn system(step: NetnsStep, path: &Path) -> impl Fn(Errno) -> NetnsError {
    move |errno| NetnsError::System {
        step,
        path: path.to_owned(),
        errno,
    }
}

fn system_io(step: NetnsStep, path: &Path) -> impl Fn(std::io::Error) -> NetnsError {
    move |error| system(step, path)(Errno::from_io(&error))
}

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    file: File,
    device: u64,
    inode: u64,
}

impl Netns {
    /// The namespace's number, as in `readlink /proc/self/ns/net`. Unique among those that exist, used again later.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Device and inode of its file in `nsfs`: the namespace itself, whatever path leads to it.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.file.into()
    }
}

/// The path that a named namespace has or would have.
///
/// # Errors
///
/// [`NetnsError::InvalidName`].
pub fn path(name: &str) -> Result<PathBuf, NetnsError> {
    let valid = !matches!(name, "" | "." | "..") && name.len() <= 255;
    if !valid || name.bytes().any(|b| b == b'/' || b == 0) {
        return Err(NetnsError::InvalidName(name.to_owned()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Opens a network namespace, and makes sure that it is one.
///
/// # Errors
///
/// One variant each for nothing there, something else there, and another kind of namespace.
pub fn open(path: &Path) -> Result<Netns, NetnsError> {
    // Without O_NONBLOCK a FIFO at this path would block.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => NetnsError::NotFound(path.to_owned()),
            _ => system_io(NetnsStep::Open, path)(error),
        })?;
    let failed = system(NetnsStep::Open, path);
    if !sys::is_namespace(file.as_fd()).map_err(&failed)? {
        return Err(NetnsError::NotNamespace(path.to_owned()));
    }
    match sys::namespace_kind(file.as_fd()).map_err(&failed)? {
        libc::CLONE_NEWNET => {}
        kind => {
            return Err(NetnsError::WrongKind {
                path: path.to_owned(),
                kind,
            });
        }
    }
    let meta = file.metadata().map_err(system_io(NetnsStep::Open, path))?;
    let (device, inode) = (meta.dev(), meta.ino());
    Ok(Netns {
        file,
        device,
        inode,
    })
}

/// Opens the network namespace of the calling thread.
///
/// # Errors
///
/// As [`open`]; in practice only if `/proc` is not mounted.
pub fn current() -> Result<Netns, NetnsError> {
    open(Path::new(OWN_PATH))
}

/// The number of the network namespace at `path`.
///
/// # Errors
///
/// As [`open`].
pub fn netns_inode(path: &Path) -> Result<u64, NetnsError> {
    open(path).map(|netns| netns.inode)
}

/// The calling thread is in another network namespace until this is dropped.
///
/// It belongs to the thread, hence `!Send`. If the way back fails on drop the process aborts: to go on in the wrong
/// namespace would be to change the wrong network. ([`enter`] tries the way back first, so only lack of memory is left.)
#[derive(Debug)]
#[must_use = "the thread goes back at once when the guard is dropped"]
pub struct Guard {
    back: OwnedFd,
    not_send: PhantomData<*const ()>,
}

/// Moves the calling thread, and only it, into a network namespace.
///
/// # Errors
///
/// [`NetnsError::NoWayBack`] if it could not return; else [`NetnsError::System`] with [`NetnsStep::Enter`].
pub fn enter(netns: BorrowedFd<'_>) -> Result<Guard, NetnsError> {
    let failed = system(NetnsStep::Enter, Path::new(OWN_PATH));
    let back = sys::open(OWN, libc::O_RDONLY, 0).map_err(&failed)?;
    sys::setns(back.as_fd(), libc::CLONE_NEWNET).map_err(NetnsError::NoWayBack)?;
    sys::setns(netns, libc::CLONE_NEWNET).map_err(failed)?;
    Ok(Guard {
        back,
        not_send: PhantomData,
    })
}

impl Drop for Guard {
    fn drop(&mut self) {
        if sys::setns(self.back.as_fd(), libc::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

/// Makes a network namespace with a name, as `ip netns add` does (the loopback interface is down in it).
///
/// The calling thread stays where it is.
///
/// # Errors
///
/// [`NetnsError::Exists`], [`NetnsError::InvalidName`], or [`NetnsError::System`]; nothing is left behind then.
pub fn create(name: &str) -> Result<Netns, NetnsError> {
    let path = path(name)?;
    prepare_directory()?;
    // Held, and with it the lock, until the namespace is mounted.
    failpoint::step();
    let _claim = claim(name, &path)?;
    failpoint::step();
    let made = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn_scoped(scope, || unshare_and_mount(&path))
            .map_err(system_io(NetnsStep::Thread, &path))?
            .join()
            .unwrap_or(Err(system(NetnsStep::Thread, &path)(Errno(libc::EIO))))
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&path);
    }
    made
}

/// Runs in a thread of its own, which ends with its namespace the new one.
fn unshare_and_mount(path: &Path) -> Result<Netns, NetnsError> {
    sys::unshare(libc::CLONE_NEWNET).map_err(system(NetnsStep::Unshare, path))?;
    let netns = current()?;
    sys::mount(
        Some(OWN),
        &c_path(path)?,
        Some(c"none"),
        libc::MS_BIND,
        None,
    )
    .map_err(system(NetnsStep::Mount, path))?;
    Ok(netns)
}

/// Makes the file that bears the name, or takes a leftover; locked either way.
fn claim(name: &str, path: &Path) -> Result<File, NetnsError> {
    let failed = system_io(NetnsStep::File, path);
    let exists = || NetnsError::Exists(name.to_owned());
    let create = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path);
    let file = match create {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                // A symbolic link, or deleted in between by somebody who also uses this name.
                Some(libc::ELOOP | libc::ENOENT) => exists(),
                _ => failed(error),
            })?,
        Err(error) => return Err(failed(error)),
    };
    if sys::is_namespace(file.as_fd()).map_err(system(NetnsStep::File, path))?
        || sys::lock(file.as_fd(), false).is_err()
    {
        return Err(exists());
    }
    // Between the open and the lock another creation may have ended: then the path leads to its namespace by now.
    let (ours, there) = (file.metadata(), std::fs::symlink_metadata(path));
    let (ours, there) = (ours.map_err(&failed)?, there.map_err(|_| exists())?);
    let leftover = ours.is_file() && ours.len() == 0;
    if !leftover || (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
        return Err(exists());
    }
    Ok(file)
}

/// Makes `/run/netns` a shared mount point, so that names made here are seen by, and go away in, every mount
/// namespace that follows this one.
fn prepare_directory() -> Result<(), NetnsError> {
    let directory = Path::new(DIRECTORY);
    let share = || sys::mount(None, DIRECTORY_C, None, libc::MS_SHARED, None);
    match share() {
        Ok(()) => return Ok(()),
        Err(Errno(libc::ENOENT)) => DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(system_io(NetnsStep::Directory, directory))?,
        // Not a mount point yet.
        Err(Errno(libc::EINVAL)) => {}
        Err(errno) => return Err(system(NetnsStep::Directory, directory)(errno)),
    }
    // `ip netns` takes the same lock for the same reason: two mounts on top of each other would hide names.
    let failed = system(NetnsStep::Directory, directory);
    let lock = sys::open(DIRECTORY_C, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(&failed)?;
    sys::lock(lock.as_fd(), true).map_err(&failed)?;
    if share().is_ok() {
        return Ok(());
    }
    let bind = libc::MS_BIND | libc::MS_REC;
    sys::mount(Some(DIRECTORY_C), DIRECTORY_C, Some(c"none"), bind, None).map_err(&failed)?;
    share().map_err(failed)
}

/// Takes a name away. The namespace itself goes when nothing is in it any more. No such name is no error.
///
/// # Errors
///
/// [`NetnsError::InvalidName`] or [`NetnsError::System`].
pub fn delete(name: &str) -> Result<(), NetnsError> {
    let path = path(name)?;
    let target = c_path(&path)?;
    loop {
        match sys::detach_mount(&target) {
            Ok(()) => failpoint::step(),
            Err(Errno(libc::ENOENT)) => return Ok(()),
            // Not, or no longer, a mount point.
            Err(Errno(libc::EINVAL)) => break,
            Err(errno) => return Err(system(NetnsStep::Unmount, &path)(errno)),
        }
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(system_io(NetnsStep::Remove, &path)(error))
        }
        _ => Ok(()),
    }
}

fn c_path(path: &Path) -> Result<CString, NetnsError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| NetnsError::InvalidName(path.display().to_string()))
}
