//! Sockets of the host that wait for packets from outside.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::publish::{PortRange, Protocol};

use crate::kernel::netlink::NetlinkKernel;

/// `TCP_LISTEN` and, for UDP, `TCP_CLOSE` (not connected), as the files show them.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The protocol: TCP or UDP.
    pub protocol: Protocol,
    /// The local address; unspecified means all.
    pub addr: IpAddr,
    /// The local port.
    pub port: u16,
    /// Of an IPv6 socket: whether it leaves IPv4 alone. `None` if it is not known (the files do not tell).
    pub v6only: Option<bool>,
}

impl Listener {
    /// Whether it gets packets to `host_ip` (`None`: to some address of the host).
    #[must_use]
    pub fn covers(&self, host_ip: Option<IpAddr>) -> bool {
        let Some(wanted) = host_ip else {
            return true;
        };
        let (own, wanted) = (self.addr.to_canonical(), wanted.to_canonical());
        let same_family = own.is_ipv4() == wanted.is_ipv4();
        if own.is_unspecified() {
            // A socket on :: may serve IPv4 as well; what it does cannot be seen in the files.
            return same_family || (own.is_ipv6() && self.v6only != Some(true));
        }
        own == wanted || (same_family && wanted.is_unspecified())
    }
}

/// Reads one of the files, of which each line is a socket: number, local address, remote address, state, …
fn read(file: &str, protocol: Protocol, wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Listener>> {
    let text = match std::fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let state = match protocol {
        Protocol::Tcp => TCP_LISTEN,
        _ => UDP_UNCONNECTED,
    };
    let found = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _remote, is) = (words.next()?, words.next()?, words.next()?);
        let (addr, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        if is != state || !wanted(port) {
            return None;
        }
        let addr = address(addr)?;
        let v6only = addr.is_ipv4().then_some(false);
        Some(Listener {
            protocol,
            addr,
            port,
            v6only,
        })
    };
    Ok(text.lines().skip(1).filter_map(found).collect())
}

/// Words of four bytes in the host's order, as hexadecimal numbers.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let text = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes)
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut octets = [0; 16];
    for (at, part) in octets.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at)?);
    }
    Some(Ipv6Addr::from(octets).into())
}

pub(super) fn of_protocol(
    protocol: Protocol,
    wanted: impl Fn(u16) -> bool,
) -> io::Result<Vec<Listener>> {
    let files = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
        // Not in files of this form.
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let mut all = Vec::new();
    for file in files {
        all.extend(read(file, protocol, &wanted)?);
    }
    Ok(all)
}

impl NetlinkKernel {
    /// All sockets of the host on which TCP connections or UDP packets of anybody arrive.
    ///
    /// # Errors
    /// If the kernel's files cannot be read.
    pub fn listeners(&mut self) -> io::Result<Vec<Listener>> {
        let mut all = of_protocol(Protocol::Tcp, |_| true)?;
        all.extend(of_protocol(Protocol::Udp, |_| true)?);
        Ok(all)
    }
}

/// The first socket of the host that would lose its packets to a published port.
///
/// Few ports are tried by binding to them: the kernel's list of sockets takes it a walk through the whole of
/// a hash table. Only when that fails, or for many ports, is the list read.
///
/// # Errors
/// If the kernel's files cannot be read.
pub fn listener_on(
    protocol: Protocol,
    range: PortRange,
    host_ip: Option<IpAddr>,
) -> io::Result<Option<Listener>> {
    const FEW: u32 = 256;
    let ports = range.first()..=range.last();
    if range.count() <= FEW && ports.clone().all(|port| is_free(protocol, port, host_ip)) {
        return Ok(None);
    }
    let all = of_protocol(protocol, |port| ports.contains(&port))?;
    Ok(all.into_iter().find(|l| l.covers(host_ip)))
}

/// Whether the port can be bound at every address a mapping covers; a port that only ended connections still hold
/// is free.
fn is_free(protocol: Protocol, port: u16, host_ip: Option<IpAddr>) -> bool {
    let addresses: &[IpAddr] = match &host_ip {
        Some(ip) => std::slice::from_ref(ip),
        None => &[
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    };
    let taken = |ip: &IpAddr| {
        let bound = try_bind(protocol, *ip, port);
        bound.is_err_and(|e| e.raw_os_error() == Some(libc::EADDRINUSE))
    };
    !addresses.iter().any(taken)
}

/// Binds a socket of its own and closes it again, without ever listening. SCTP has no sockets on many kernels.
fn try_bind(protocol: Protocol, ip: IpAddr, port: u16) -> io::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => libc::SOCK_STREAM,
        Protocol::Udp => libc::SOCK_DGRAM,
        Protocol::Sctp => return Ok(()),
    };
    let family = if ip.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: a plain system call; the result is checked.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let set = |level, name| {
        let on: libc::c_int = 1;
        // SAFETY: the value is a live int of the length given.
        unsafe {
            libc::setsockopt(
                fd,
                level,
                name,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        }
    };
    if protocol == Protocol::Tcp {
        // A listener is in the way all the same; connections that are ending are not.
        set(libc::SOL_SOCKET, libc::SO_REUSEADDR);
    }
    let done = match ip {
        IpAddr::V4(v4) => {
            let at = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: `at` is a whole sockaddr_in.
            unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const at).cast(),
                    size_of::<libc::sockaddr_in>() as u32,
                )
            }
        }
        IpAddr::V6(v6) => {
            set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
            let at = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: `at` is a whole sockaddr_in6.
            unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const at).cast(),
                    size_of::<libc::sockaddr_in6>() as u32,
                )
            }
        }
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_word_by_word() {
        let hex = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(address(&hex([127, 0, 0, 1])), "127.0.0.1".parse().ok());
        let six = [[0xfe, 0x80, 0, 0], [0; 4], [0; 4], [0, 0, 0, 1]]
            .map(hex)
            .concat();
        assert_eq!(address(&six), "fe80::1".parse().ok());
    }

    #[test]
    fn a_socket_on_all_addresses_is_in_the_way_of_each() {
        let on = |addr: &str, v6only| Listener {
            protocol: Protocol::Tcp,
            addr: addr.parse().expect("an address"),
            port: 80,
            v6only,
        };
        let ip = |text: &str| text.parse().ok();
        assert!(on("0.0.0.0", None).covers(ip("10.0.0.1")));
        assert!(!on("0.0.0.0", None).covers(ip("fd00::1")));
        assert!(on("::", None).covers(ip("10.0.0.1")));
        assert!(!on("::", Some(true)).covers(ip("10.0.0.1")));
        assert!(on("127.0.0.1", None).covers(ip("0.0.0.0")));
        assert!(!on("127.0.0.1", None).covers(ip("10.0.0.1")));
    }
}
