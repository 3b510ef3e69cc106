//! The one packet, from an ordinary socket: a connection that is broken off at once, a datagram, an echo.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::trace::L4;

use super::capture::set;
use super::flow::{Flow, MARK};
use super::join::Told;

/// `TCP_REPAIR_OFF_NO_WP`: ends the mode without a packet.
const REPAIR_END: libc::c_int = -1;
/// `TCP_SEND_QUEUE`.
const SEND_QUEUE: libc::c_int = 2;
/// Length of an echo's header.
const ICMP_HEADER: usize = 8;

/// The socket.
pub(super) struct Sender {
    fd: OwnedFd,
    l4: L4,
}

impl Sender {
    /// Opens a socket in the calling thread's namespace and gives the flow its port. A connection gets the sequence
    /// number by which it is known again.
    pub(super) fn open(flow: &mut Flow, from: Option<IpAddr>) -> io::Result<Self> {
        let this = Self::bound(flow, from, 0)?;
        if flow.l4 != L4::Icmp {
            flow.own = this.port()?;
        }
        Ok(this)
    }

    /// Makes it fit to send the same again: a connection that was not answered begins anew, as it would by itself later.
    pub(super) fn renew(&mut self, flow: &Flow, from: Option<IpAddr>) -> io::Result<()> {
        if flow.l4 == L4::Tcp {
            // The port is free again only when the old socket is closed.
            let placeholder = std::fs::File::open("/dev/null")?;
            self.fd = placeholder.into();
            *self = Self::bound(flow, from, flow.own)?;
        }
        Ok(())
    }

    fn bound(flow: &Flow, from: Option<IpAddr>, port: u16) -> io::Result<Self> {
        let family = if flow.v6() {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let (kind, protocol) = match flow.l4 {
            L4::Tcp => (libc::SOCK_STREAM, 0),
            L4::Udp => (libc::SOCK_DGRAM, 0),
            L4::Icmp => (libc::SOCK_RAW, i32::from(flow.protocol())),
        };
        let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a plain system call; the result is checked.
        let raw = unsafe { libc::socket(family, kind, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let this = Self { fd, l4: flow.l4 };
        let on: libc::c_int = 1;
        let (level, name) = match flow.v6() {
            true => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            false => (libc::IPPROTO_IP, libc::IP_RECVERR),
        };
        set(&this.fd, level, name, &on)?;
        if flow.l4 == L4::Tcp {
            this.begin_at(flow.first)?;
        }
        this.bind(flow, from, port)?;
        Ok(this)
    }

    pub(super) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Whether it is a connection, which can be written to once it is there.
    pub(super) fn is_connection(&self) -> bool {
        self.l4 == L4::Tcp
    }

    /// The mode for moving connections between machines lets a socket be told where to begin.
    fn begin_at(&self, first: u32) -> io::Result<()> {
        let tcp = libc::IPPROTO_TCP;
        let on: libc::c_int = 1;
        set(&self.fd, tcp, libc::TCP_REPAIR, &on)?;
        let begun = set(&self.fd, tcp, libc::TCP_REPAIR_QUEUE, &SEND_QUEUE)
            .and_then(|()| set(&self.fd, tcp, libc::TCP_QUEUE_SEQ, &first));
        set(&self.fd, tcp, libc::TCP_REPAIR, &REPAIR_END)?;
        begun
    }

    fn bind(&self, flow: &Flow, from: Option<IpAddr>, port: u16) -> io::Result<()> {
        if flow.l4 == L4::Icmp && from.is_none() {
            return Ok(());
        }
        let any: IpAddr = match flow.v6() {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let (addr, len) = address(from.unwrap_or(any), port);
        // SAFETY: the pointer is to a live sockaddr_storage, of which `len` bytes are set.
        if unsafe { libc::bind(self.raw(), (&raw const addr).cast(), len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn port(&self) -> io::Result<u16> {
        // SAFETY: sockaddr_in6 is plain data, for which zero bytes are valid.
        let mut addr: libc::sockaddr_in6 = unsafe { zeroed() };
        let mut len = size_of::<libc::sockaddr_in6>() as u32;
        // SAFETY: the pointers are to live objects, and `len` is the size of the first.
        let rc = unsafe { libc::getsockname(self.raw(), (&raw mut addr).cast(), &raw mut len) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        // The port is at the same place in both families.
        Ok(u16::from_be(addr.sin6_port))
    }

    /// Sends the packet.
    pub(super) fn send(&self, flow: &Flow) -> Told {
        let port = if flow.l4 == L4::Icmp { 0 } else { flow.port };
        let (addr, len) = address(flow.to, port);
        // SAFETY: the pointer is to a live sockaddr_storage, of which `len` bytes are set.
        let rc = unsafe { libc::connect(self.raw(), (&raw const addr).cast(), len) };
        if rc < 0 {
            return match errno() {
                libc::EINPROGRESS => Told::Nothing,
                libc::ECONNREFUSED => Told::Refused(libc::ECONNREFUSED),
                errno => Told::NotSent(errno),
            };
        }
        if flow.l4 == L4::Tcp {
            return Told::Answered;
        }
        let packet = match flow.l4 {
            L4::Icmp => echo(flow),
            _ => flow.payload(),
        };
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.raw(), packet.as_ptr().cast(), packet.len(), 0) };
        match sent < 0 {
            true => Told::NotSent(errno()),
            false => Told::Nothing,
        }
    }

    /// What there is to know by now; never waits.
    pub(super) fn told(&self, flow: &Flow) -> Told {
        if flow.l4 == L4::Tcp {
            return self.connected();
        }
        let mut buffer = [0_u8; 2048];
        loop {
            // SAFETY: the pointer and length are those of a live array.
            let got = unsafe {
                libc::recv(
                    self.raw(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(got) {
                Ok(len) if flow.l4 == L4::Udp || is_reply(flow, &buffer[..len]) => {
                    return Told::Answered;
                }
                // Raw sockets get everybody's echoes.
                Ok(_) => {}
                Err(_) => match errno() {
                    libc::EAGAIN | libc::EINTR => return Told::Nothing,
                    errno => return Told::Refused(errno),
                },
            }
        }
    }

    fn connected(&self) -> Told {
        let mut poll = libc::pollfd {
            fd: self.raw(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, 0) } <= 0 {
            return Told::Nothing;
        }
        let mut error: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as u32;
        // SAFETY: the pointers are to live objects, and `len` is the size of the first.
        let rc = unsafe {
            libc::getsockopt(
                self.raw(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut len,
            )
        };
        match (rc, error) {
            (0, 0) => Told::Answered,
            (0, libc::ETIMEDOUT) => Told::Nothing,
            (0, errno) => Told::Refused(errno),
            _ => Told::Nothing,
        }
    }

    /// Ends a connection by a reset, so that the far side keeps nothing.
    pub(super) fn close(self) {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // Where it cannot be set, the connection is closed in the usual way.
        let _ = set(&self.fd, libc::SOL_SOCKET, libc::SO_LINGER, &now);
    }
}

fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

fn address(addr: IpAddr, port: u16) -> (libc::sockaddr_storage, u32) {
    // SAFETY: sockaddr_storage is plain data, for which zero bytes are valid.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    match addr {
        IpAddr::V4(v4) => {
            let addr = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage has room and alignment for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(addr) };
            (storage, size_of::<libc::sockaddr_in>() as u32)
        }
        IpAddr::V6(v6) => {
            let addr = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(addr) };
            (storage, size_of::<libc::sockaddr_in6>() as u32)
        }
    }
}

/// An echo request; the kernel fills in checksums of ICMPv6.
fn echo(flow: &Flow) -> Vec<u8> {
    let kind = if flow.v6() { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(flow.own.to_be_bytes());
    packet.extend(1_u16.to_be_bytes());
    packet.extend(flow.payload());
    if !flow.v6() {
        let sum = crate::probe::icmp::checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether what a raw socket got is the reply; of IPv4 it gets the IP header too.
fn is_reply(flow: &Flow, bytes: &[u8]) -> bool {
    let (skip, kind) = match (flow.v6(), bytes.first()) {
        (true, _) => (0, 129),
        (false, Some(first)) => (usize::from(first & 15) * 4, 0),
        (false, None) => return false,
    };
    let icmp = bytes.get(skip..).unwrap_or_default();
    icmp.first() == Some(&kind) && icmp.get(ICMP_HEADER..ICMP_HEADER + MARK) == Some(&flow.mark)
}
