//! Questions about a link by `ioctl`, for a socket's namespace (netdevice(7)).

use std::io;
use std::os::fd::RawFd;

use wharf_core::name::IfName;

/// `SIOCGIFINDEX`: the number of a link.
pub(super) fn link_index(socket: RawFd, name: &IfName) -> io::Result<u32> {
    let answer = ask(socket, libc::SIOCGIFINDEX, name)?;
    // SAFETY: the kernel has filled this member.
    Ok(unsafe { answer.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// `SIOCGIFFLAGS`: the lower 16 `IFF_*` bits of a link.
pub(super) fn link_flags(socket: RawFd, name: &IfName) -> io::Result<i32> {
    let answer = ask(socket, libc::SIOCGIFFLAGS, name)?;
    // SAFETY: the kernel has filled this member.
    Ok(i32::from(unsafe { answer.ifr_ifru.ifru_flags }))
}

fn ask(socket: RawFd, question: libc::c_ulong, name: &IfName) -> io::Result<libc::ifreq> {
    // SAFETY: zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so a zero stays behind it.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the pointer is to a live ifreq, which these questions read and write.
    let done = unsafe { libc::ioctl(socket, question as _, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}
