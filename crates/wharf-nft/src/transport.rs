//! The netlink socket (`NETLINK_NETFILTER`): the only place with system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::error::NftError;
use crate::wire::{Attrs, HEADER, Message, Writer, text};

/// How long the kernel may take to answer; it answers before `send` returns, so this only ends a hang.
const ANSWER: Duration = Duration::from_secs(10);
/// Large enough for a dump message (the kernel uses up to 32 KB) and for a batch's errors.
const RECV_BUFFER: usize = 256 * 1024;
/// `NLMSGERR_ATTR_MSG`.
const EXT_ACK_MSG: u16 = 1;
/// `NLM_F_CAPPED`: only the header of the refused message is repeated.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: extended acknowledgement follows.
const ACK_TLVS: u16 = 0x200;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the data changed during the dump.
const DUMP_INTR: u16 = 0x10;
/// `NLMSG_ERROR`.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`.
const NLMSG_DONE: u16 = 3;
/// `NLMSG_MIN_TYPE`.
pub(crate) const FIRST_TYPE: u16 = 0x10;

/// An open socket and the sequence number of the next message.
#[derive(Debug)]
pub(crate) struct Transport {
    fd: OwnedFd,
    pub(crate) seq: u32,
    buffer: Vec<u8>,
    send_size: usize,
}

/// An acknowledgement: errno 0 or an error.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) errno: i32,
    pub(crate) ext_ack: Option<String>,
}

impl Transport {
    pub(crate) fn open() -> Result<Self, NftError> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes no pointers.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) };
        if raw < 0 {
            return Err(NftError::socket("open"));
        }
        // SAFETY: `raw` was just returned by socket and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let this = Self {
            fd,
            seq: 1,
            buffer: vec![0; RECV_BUFFER],
            send_size: 0,
        };
        this.set(
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            1,
            "ask for error texts",
        )?;
        this.set(
            libc::SOL_NETLINK,
            libc::NETLINK_CAP_ACK,
            1,
            "ask for short answers",
        )?;
        this.bind()?;
        Ok(this)
    }

    /// Binding is needed before joining a group: an unbound socket silently receives nothing.
    fn bind(&self) -> Result<(), NftError> {
        // SAFETY: sockaddr_nl is plain data, for which zero bytes are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family =
            libc::sa_family_t::try_from(libc::AF_NETLINK).expect("AF_NETLINK is 16");
        let len = socklen::<libc::sockaddr_nl>();
        // SAFETY: the pointer is to a live sockaddr_nl of the length given.
        let rc = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        if rc < 0 {
            Err(NftError::socket("bind"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn set(
        &self,
        level: i32,
        option: i32,
        value: i32,
        action: &'static str,
    ) -> Result<(), NftError> {
        let len = socklen::<i32>();
        // SAFETY: the pointer is to a live i32 of the length given.
        let rc = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                len,
            )
        };
        if rc < 0 {
            Err(NftError::socket(action))
        } else {
            Ok(())
        }
    }

    pub(crate) fn join(&self, group: i32) -> Result<(), NftError> {
        self.set(
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group,
            "join the group",
        )
    }

    /// Enlarges a buffer: by force if privileged, else as far as allowed.
    pub(crate) fn enlarge(&self, forced: i32, polite: i32, bytes: usize) {
        let value = i32::try_from(bytes).unwrap_or(i32::MAX / 2);
        if self
            .set(libc::SOL_SOCKET, forced, value, "enlarge the buffer")
            .is_err()
        {
            // Best effort: if it is not enough, the send itself says so.
            let _ = self.set(libc::SOL_SOCKET, polite, value, "enlarge the buffer");
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), NftError> {
        let wanted = bytes.len().saturating_add(4096);
        if wanted > self.send_size.max(128 * 1024) {
            self.enlarge(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, wanted);
            self.send_size = wanted;
        }
        loop {
            // SAFETY: pointer and length describe the live slice.
            let sent =
                unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EMSGSIZE) => return Err(NftError::TooLarge { bytes: bytes.len() }),
                _ => {
                    return Err(NftError::Socket {
                        action: "send",
                        source: error,
                    });
                }
            }
        }
    }

    /// The next datagram. `None` after `timeout` without one, or if the kernel dropped some (`ENOBUFS`).
    pub(crate) fn recv(&mut self, timeout: Duration) -> Result<Option<&[u8]>, NftError> {
        if !self.wait(timeout)? {
            return Ok(None);
        }
        let (pointer, len) = (self.buffer.as_mut_ptr(), self.buffer.len());
        // SAFETY: pointer and length describe the live buffer.
        let got =
            unsafe { libc::recv(self.fd.as_raw_fd(), pointer.cast(), len, libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(got) => Ok(self.buffer.get(..got)),
            Err(_) => {
                let source = io::Error::last_os_error();
                match source.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => Ok(None),
                    _ => Err(NftError::Socket {
                        action: "receive",
                        source,
                    }),
                }
            }
        }
    }

    fn wait(&self, timeout: Duration) -> Result<bool, NftError> {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        loop {
            // SAFETY: one live pollfd.
            match unsafe { libc::poll(&raw mut poll, 1, millis) } {
                0 => return Ok(false),
                n if n > 0 => return Ok(true),
                _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                _ => return Err(NftError::socket("wait")),
            }
        }
    }

    /// Takes the next sequence number.
    pub(crate) fn next_seq(&mut self) -> u32 {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        seq
    }

    /// Sends one request and gives every message of the answer to `each`. Returns whether the kernel says that the
    /// data changed meanwhile (`NLM_F_DUMP_INTR`).
    pub(crate) fn request(
        &mut self,
        request: &Request<'_>,
        mut each: impl FnMut(&Message<'_>) -> Result<(), NftError>,
    ) -> Result<bool, NftError> {
        let seq = self.next_seq();
        let mut w = Writer::default();
        let at = w.start(
            request.kind,
            REQUEST | request.flags,
            seq,
            request.family,
            0,
        );
        w.buf.extend_from_slice(&request.attrs.buf);
        w.finish(at);
        self.send(&w.buf)?;
        let mut interrupted = false;
        loop {
            let Some(mut bytes) = self.recv(ANSWER)? else {
                return Err(NftError::NoAnswer {
                    label: request.label.to_owned(),
                });
            };
            while let Some((message, rest)) = Message::split(bytes)? {
                bytes = rest;
                if message.seq != seq {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => return done(&message, request.label).map(|()| interrupted),
                    NLMSG_ERROR => {
                        let answer = Answer::read(&message)?;
                        return refuse(answer, request.label).map(|()| interrupted);
                    }
                    kind if kind >= FIRST_TYPE => each(&message)?,
                    _ => {}
                }
            }
        }
    }
}

/// A request outside a batch.
pub(crate) struct Request<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) family: u8,
    pub(crate) attrs: Writer,
    pub(crate) label: &'a str,
}

impl Answer {
    pub(crate) fn read(message: &Message<'_>) -> Result<Self, NftError> {
        let Some((code, rest)) = message.body.split_first_chunk::<4>() else {
            return Err(crate::wire::Malformed("error message without code").into());
        };
        let mut ext_ack = None;
        if message.flags & ACK_TLVS != 0 {
            let skip = match message.flags & CAPPED {
                0 => rest
                    .first_chunk::<4>()
                    .map_or(0, |len| u32::from_ne_bytes(*len) as usize),
                _ => HEADER,
            };
            let tlvs = rest.get(skip.next_multiple_of(4)..).unwrap_or_default();
            let attrs = Attrs::parse(tlvs)?;
            ext_ack = attrs.get(EXT_ACK_MSG).and_then(|t| text(t).ok());
        }
        Ok(Self {
            errno: i32::from_ne_bytes(*code).wrapping_neg(),
            ext_ack,
        })
    }
}

fn refuse(answer: Answer, label: &str) -> Result<(), NftError> {
    match answer.errno {
        0 => Ok(()),
        errno => Err(NftError::Refused {
            index: None,
            label: label.to_owned(),
            errno,
            ext_ack: answer.ext_ack,
        }),
    }
}

/// The end of a dump may carry an error code.
fn done(message: &Message<'_>, label: &str) -> Result<(), NftError> {
    let code = message
        .body
        .first_chunk::<4>()
        .map_or(0, |c| i32::from_ne_bytes(*c));
    let errno = if code < 0 { code.wrapping_neg() } else { 0 };
    refuse(
        Answer {
            errno,
            ext_ack: None,
        },
        label,
    )
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("these structures are a few bytes long")
}
