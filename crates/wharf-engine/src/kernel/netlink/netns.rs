//! Namespaces: from paths to names, and errors.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::process::netns::{self as named, NetnsError};

/// The thread is in the namespace until the guard is dropped.
pub(crate) fn enter(netns: &named::Netns) -> io::Result<named::Guard> {
    named::enter(netns.as_fd()).map_err(to_io)
}

/// As an error of the system where there is a number, else as text.
pub(crate) fn to_io(error: NetnsError) -> io::Error {
    let errno = match &error {
        NetnsError::System { errno, .. } => errno.0,
        NetnsError::NotFound(_) => libc::ENOENT,
        NetnsError::Exists(_) => libc::EEXIST,
        _ => return io::Error::other(error.to_string()),
    };
    io::Error::from_raw_os_error(errno)
}

/// The name that belongs to a path.
fn name(path: &Path) -> io::Result<&str> {
    let known = [named::DIRECTORY, "/var/run/netns"];
    path.parent()
        .filter(|parent| known.iter().any(|d| Path::new(d) == *parent))
        .and_then(|_| path.file_name()?.to_str())
        .ok_or_else(|| {
            io::Error::other(format!(
                "{} is not in {}: wharf makes and removes only named namespaces",
                path.display(),
                named::DIRECTORY
            ))
        })
}

/// `ip netns add`.
pub(super) fn create(path: &Path) -> io::Result<named::Netns> {
    named::create(name(path)?).map_err(to_io)
}

/// `ip netns del`.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    named::delete(name(path)?).map_err(to_io)
}
