//! Raw sockets, on which xtables and ipset answer `getsockopt`. Nothing is ever sent on them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A raw socket in the namespace of the thread that opened it.
pub struct Raw(OwnedFd);

impl Raw {
    /// Opens one.
    ///
    /// # Errors
    /// If the kernel refuses, such as without `CAP_NET_RAW` or without the family.
    pub fn open(family: libc::c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Reads an option into `buffer`, which has the question; returns how much was written.
///
/// # Errors
/// If the kernel refuses.
pub fn get(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let too_long = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let mut len = libc::socklen_t::try_from(buffer.len()).map_err(too_long)?;
    // SAFETY: the kernel writes at most `len` bytes to the buffer, which is that long, and the length to `len`; both
    // live until it returns.
    let result =
        unsafe { libc::getsockopt(fd, level, name, buffer.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(buffer.len().min(len as usize))
}
