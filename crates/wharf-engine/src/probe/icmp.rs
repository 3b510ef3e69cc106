//! ICMP echo over a raw socket (RFC 792, RFC 4443).

use std::io::{Error, ErrorKind};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::probe::Answer;

/// Between two echoes.
const INTERVAL: Duration = Duration::from_millis(200);
const ECHO_REQUEST: (u8, u8) = (8, 128);
const ECHO_REPLY: (u8, u8) = (0, 129);

/// Sends echoes until one is answered.
pub(super) fn ping(to: IpAddr, patience: Duration) -> Answer {
    match try_ping(to, patience) {
        Ok(true) => Answer::Reached(None),
        Ok(false) => Answer::Silent,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
        Err(e) => Answer::Unreachable(
            e.raw_os_error()
                .map_or_else(|| e.to_string(), super::text_of),
        ),
    }
}

fn try_ping(to: IpAddr, patience: Duration) -> Result<bool, Error> {
    let socket = open(to)?;
    let id = (std::process::id() as u16) ^ 0x7768;
    let end = Instant::now() + patience;
    let mut sequence = 0u16;
    while Instant::now() < end {
        sequence += 1;
        send(&socket, &echo(to, id, sequence))?;
        let round = (Instant::now() + INTERVAL).min(end);
        while let Some(left) = round
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
        {
            if receive(&socket, to, id, left)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A raw socket connected to `to`, so that errors other hosts report come back.
fn open(to: IpAddr) -> Result<OwnedFd, Error> {
    let (family, protocol) = if to.is_ipv4() {
        (libc::AF_INET, libc::IPPROTO_ICMP)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6)
    };
    // SAFETY: a plain system call; the result is checked.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if to.is_ipv4() {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is a live int of the length given.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_IP,
                libc::IP_RECVERR,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            );
        }
    }
    let connected = match to {
        IpAddr::V4(v4) => {
            let addr = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: 0,
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: `addr` is a whole sockaddr_in.
            unsafe {
                libc::connect(
                    fd,
                    (&raw const addr).cast(),
                    size_of::<libc::sockaddr_in>() as u32,
                )
            }
        }
        IpAddr::V6(v6) => {
            let addr = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: `addr` is a whole sockaddr_in6.
            unsafe {
                libc::connect(
                    fd,
                    (&raw const addr).cast(),
                    size_of::<libc::sockaddr_in6>() as u32,
                )
            }
        }
    };
    if connected < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(socket)
    }
}

/// An echo request; the kernel fills in ICMPv6 checksums.
fn echo(to: IpAddr, id: u16, sequence: u16) -> Vec<u8> {
    let kind = if to.is_ipv4() {
        ECHO_REQUEST.0
    } else {
        ECHO_REQUEST.1
    };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(*b"wharf echo");
    if to.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn send(socket: &OwnedFd, packet: &[u8]) -> Result<(), Error> {
    // SAFETY: the pointer and length are those of a live slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
    if sent < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Waits for one packet; whether it is the answer.
fn receive(socket: &OwnedFd, to: IpAddr, id: u16, patience: Duration) -> Result<bool, Error> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = i32::try_from(patience.as_millis())
        .unwrap_or(i32::MAX)
        .max(1);
    // SAFETY: one live pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
    if ready <= 0 {
        return Ok(false);
    }
    let mut buffer = [0u8; 512];
    // SAFETY: the pointer and length are those of a live array.
    let got = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    let Ok(len) = usize::try_from(got) else {
        return Err(Error::last_os_error());
    };
    // A raw IPv4 socket gives the IP header too; its length is in the low half of the first byte.
    let skip = if to.is_ipv4() {
        usize::from(buffer[0] & 15) * 4
    } else {
        0
    };
    let kind = if to.is_ipv4() {
        ECHO_REPLY.0
    } else {
        ECHO_REPLY.1
    };
    let icmp = buffer.get(skip..len).unwrap_or_default();
    Ok(icmp.len() >= 8
        && icmp[0] == kind
        && icmp[4..6] == id.to_be_bytes()
        && to != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
