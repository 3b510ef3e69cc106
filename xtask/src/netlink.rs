//! A netlink message builder and a blocking socket, as small as they can be.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Large enough for any acknowledgement or link announcement.
const RECEIVE: usize = 16 * 1024;
const HEADER: usize = 16;

/// Several messages that travel in one `send`.
///
/// Only messages made with `NLM_F_ACK` are acknowledged; the kernel always reports one that failed.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    start: usize,
    sequence: u32,
    awaited: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(1024),
            ..Self::default()
        }
    }

    /// Starts the next message; `family_header` is the fixed structure that follows the netlink header.
    pub fn message(&mut self, kind: u16, flags: i32, family_header: &[u8]) -> &mut Self {
        self.start = self.bytes.len();
        self.sequence += 1;
        if flags & libc::NLM_F_ACK != 0 {
            self.awaited = self.sequence;
        }
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("netlink flags are 16 bits");
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.raw(family_header)
    }

    /// Appends bytes as they are: the fixed header inside a nested attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends one attribute.
    pub fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.nested_as(kind, |batch| {
            batch.bytes.extend_from_slice(payload);
        })
    }

    /// Appends an attribute in host byte order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute in network byte order, as nf_tables wants all its numbers.
    pub fn attr_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a zero-terminated string.
    pub fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nested_as(kind, |batch| {
            batch.bytes.extend_from_slice(value.as_bytes());
            batch.bytes.push(0);
        })
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        const NESTED: u16 = 1 << 15;
        self.nested_as(kind | NESTED, fill)
    }

    fn nested_as(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - at).expect("an attribute stays below 64 KiB");
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
        self
    }

    /// Pads to four bytes and corrects the length in the current message's header.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length =
            u32::try_from(self.bytes.len() - self.start).expect("a message stays below 4 GiB");
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A blocking netlink socket in the namespace in which it was opened.
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket for rtnetlink.
    pub fn route() -> io::Result<Self> {
        Self::open(libc::NETLINK_ROUTE)
    }

    /// Opens a socket for nf_tables.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(libc::NETLINK_NETFILTER)
    }

    /// Opens a socket that hears of links that come, change and go.
    pub fn link_monitor() -> io::Result<Self> {
        let socket = Self::route()?;
        // SAFETY: all zeroes is a valid `sockaddr_nl`.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is a `sockaddr_nl` of `length` bytes and outlives the call.
        let bound =
            unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(socket)
        }
    }

    fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Lets one `send` carry more than the usual 200 KiB; for filling large maps.
    pub fn allow_large_sends(&self) -> io::Result<()> {
        let bytes: libc::c_int = 16 << 20;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let fd = self.0.as_raw_fd();
        // SAFETY: the option's value is an int that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_SNDBUFFORCE,
                (&raw const bytes).cast(),
                length,
            )
        };
        if set < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Sends the batch and waits until the last message that asked for it is acknowledged.
    /// The first refusal ends the wait and is the error.
    pub fn request(&self, batch: &Batch) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of `batch.bytes`.
        let sent = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                batch.bytes.as_ptr().cast(),
                batch.bytes.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut acknowledged = batch.awaited == 0;
        while !acknowledged {
            self.receive(|kind, sequence, payload| {
                if i32::from(kind) != libc::NLMSG_ERROR {
                    return Ok(());
                }
                match payload
                    .first_chunk()
                    .map_or(0, |errno| i32::from_ne_bytes(*errno))
                {
                    0 => acknowledged |= sequence == batch.awaited,
                    errno => return Err(io::Error::from_raw_os_error(-errno)),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Receives one datagram and shows each message in it: type, sequence number, payload.
    pub fn receive(
        &self,
        mut each: impl FnMut(u16, u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = [0u8; RECEIVE];
        // SAFETY: the pointer and the length are those of `buffer`.
        let received = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        let mut rest = match usize::try_from(received) {
            Ok(length) => &buffer[..length],
            Err(_) => return Err(io::Error::last_os_error()),
        };
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            if length < HEADER || length > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            each(kind, sequence, &rest[HEADER..length])?;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
