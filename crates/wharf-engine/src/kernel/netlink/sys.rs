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

/// `SIOCETHTOOL` with `ETHTOOL_GLINK`: whether a link has a carrier. Before the kernel answers it does what it has put
/// off since the carrier changed (`ethtool_op_get_link` in `net/ethtool/ioctl.c`).
pub(super) fn link_carrier(socket: RawFd, name: &IfName) -> io::Result<bool> {
    // `struct ethtool_value` of linux/ethtool.h.
    let mut value = [ETHTOOL_GLINK, 0];
    let mut request = about(name);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    put(socket, SIOCETHTOOL, &mut request)?;
    Ok(value[1] != 0)
}

/// linux/ethtool.h.
const ETHTOOL_GLINK: u32 = 0x0a;
/// linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

fn ask(socket: RawFd, question: libc::c_ulong, name: &IfName) -> io::Result<libc::ifreq> {
    let mut request = about(name);
    put(socket, question, &mut request)?;
    Ok(request)
}

/// A question about a link.
fn about(name: &IfName) -> libc::ifreq {
    // SAFETY: zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so a zero stays behind it.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn put(socket: RawFd, question: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the pointer is to a live ifreq, which these questions read and write, and so is what it points to.
    let done = unsafe { libc::ioctl(socket, question as _, &raw mut *request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
