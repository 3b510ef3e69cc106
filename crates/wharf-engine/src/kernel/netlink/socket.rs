//! One rtnetlink socket: many messages out in one system call, one answer in for each.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use wharf_core::name::IfName;

use super::sys;

/// Room for one datagram of the kernel; dumps come in pieces of at most 32 KB.
const BUFFER: usize = 64 * 1024;
/// Messages in one system call: the acknowledgements must fit the socket's receive buffer.
pub(crate) const MOST: usize = 64;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`.
const DUMP_INTR: u16 = 0x10;
/// `NLM_F_CAPPED`.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const TEXT: u16 = 1;
/// How often a dump is begun again because the kernel says that it changed meanwhile.
const ATTEMPTS: usize = 10;

/// What the kernel said to one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0, or the error number.
    pub(crate) errno: i32,
    /// The kernel's words.
    pub(crate) detail: Option<String>,
}

/// A request, without its flags for sequence and acknowledgement.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The message.
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_CREATE` and the like.
    pub(crate) flags: u16,
}

/// A socket of the namespace in which it was opened.
pub(crate) struct Rt {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Rt {
    /// Opens a socket in the thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Self::bound(0)
    }

    /// Opens a socket of another protocol than rtnetlink in the thread's namespace.
    pub(crate) fn of_protocol(protocol: isize) -> io::Result<Self> {
        Self::with(protocol, 0)
    }

    /// Opens a socket that hears of changes to links.
    pub(crate) fn hearing_links() -> io::Result<Self> {
        /// `RTMGRP_LINK`.
        const LINKS: u32 = 1;
        Self::bound(LINKS)
    }

    fn bound(groups: u32) -> io::Result<Self> {
        Self::with(NETLINK_ROUTE, groups)
    }

    fn with(protocol: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        // Neither is worth failing for: only the kernel's words would be missing.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            seq: 1,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// The number of a link; `None` if there is no such. Cheaper than `RTM_GETLINK`, which describes the whole link
    /// and settles its carrier first.
    pub(crate) fn index(&self, name: &IfName) -> io::Result<Option<u32>> {
        match sys::link_index(self.socket.as_raw_fd(), name) {
            Ok(index) => Ok(Some(index)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a link is set up; `None` if there is no such.
    pub(crate) fn is_up(&self, name: &IfName) -> io::Result<Option<bool>> {
        match sys::link_flags(self.socket.as_raw_fd(), name) {
            Ok(flags) => Ok(Some(flags & libc::IFF_UP != 0)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a link has a carrier; what the kernel has put off since it changed is done then.
    pub(crate) fn carrier(&self, name: &IfName) -> io::Result<bool> {
        sys::link_carrier(self.socket.as_raw_fd(), name)
    }

    /// The bytes of a request that asks for an acknowledgement.
    pub(crate) fn encode(request: Request, seq: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, request, seq, NLM_F_ACK);
        bytes
    }

    /// Sends the requests together and collects an answer to each. All are carried out, whatever becomes of one.
    pub(crate) fn exchange(&mut self, requests: Vec<Request>) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let first = self.seq;
            let mut bytes = Vec::with_capacity(512);
            for request in requests.by_ref().take(MOST) {
                append(&mut bytes, request, self.seq, NLM_F_ACK);
                self.seq = self.seq.wrapping_add(1);
            }
            if bytes.is_empty() {
                return Ok(answers);
            }
            let count = self.seq.wrapping_sub(first) as usize;
            self.send(&bytes)?;
            answers.extend(self.collect(first, count)?);
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
            }
        }
    }

    /// The next datagram, as it is.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            // Not zeroed first: most answers are short, and a page that is not touched costs nothing.
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(&self.buffer),
            }
        }
    }

    fn collect(&mut self, first: u32, count: usize) -> io::Result<Vec<Answer>> {
        let mut answers = vec![Answer::default(); count];
        let mut open = count;
        while open > 0 {
            for message in messages(self.receive()?) {
                let at = message.seq.wrapping_sub(first) as usize;
                let Some(answer) = answers.get_mut(at) else {
                    continue;
                };
                if message.kind == ERROR {
                    (answer.errno, answer.detail) = message.error();
                    open -= 1;
                }
            }
        }
        Ok(answers)
    }

    /// All answers to a dump request.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            if let Some(all) = self.dump_once(message.clone(), NLM_F_DUMP)? {
                return Ok(all);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// The answer to a request about one object; `None` if it is not there.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        match self.dump_once(message, NLM_F_ACK) {
            Ok(all) => Ok(all.unwrap_or_default().into_iter().next()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All answers to a dump request, undecoded: type and body. `true` where the kernel says that things changed meanwhile.
    pub(crate) fn dump_raw(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let mut bytes = Vec::with_capacity(HEADER + body.len() + 4);
        append_raw(&mut bytes, kind, body, seq, NLM_F_DUMP);
        self.send(&bytes)?;
        let mut torn = false;
        loop {
            for message in messages(self.receive()?).filter(|m| m.seq == seq) {
                torn |= message.flags & DUMP_INTR != 0;
                match message.kind {
                    // A dump that fails half way ends with a negative error number.
                    DONE => {
                        let errno = word(message.body, 0).cast_signed().wrapping_neg();
                        return match errno {
                            ..=0 => Ok(torn),
                            n => Err(io::Error::from_raw_os_error(n)),
                        };
                    }
                    ERROR => {
                        let (errno, detail) = message.error();
                        return match errno {
                            0 => Ok(torn),
                            n => Err(refused(n, detail)),
                        };
                    }
                    kind => each(kind, message.body),
                }
            }
        }
    }

    /// The one answer to each of many small questions, undecoded; `None` where the kernel refuses.
    pub(crate) fn ask_raw(
        &mut self,
        kind: u16,
        bodies: &[Vec<u8>],
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> io::Result<()> {
        for (round, part) in bodies.chunks(MOST).enumerate() {
            let first = self.seq;
            let mut bytes = Vec::new();
            for body in part {
                append_raw(&mut bytes, kind, body, self.seq, 0);
                self.seq = self.seq.wrapping_add(1);
            }
            self.send(&bytes)?;
            let mut open = part.len();
            while open > 0 {
                for message in messages(self.receive()?) {
                    let at = message.seq.wrapping_sub(first) as usize;
                    if at < part.len() {
                        open = open.saturating_sub(1);
                        let body = (message.kind != ERROR).then_some(message.body);
                        each(round * MOST + at, body);
                    }
                }
            }
        }
        Ok(())
    }

    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let mut bytes = Vec::new();
        append(&mut bytes, Request { message, flags: 0 }, seq, flags);
        self.send(&bytes)?;
        let (mut all, mut torn) = (Vec::new(), false);
        loop {
            for message in messages(self.receive()?).filter(|m| m.seq == seq) {
                torn |= message.flags & DUMP_INTR != 0;
                match message.kind {
                    DONE => return Ok((!torn).then_some(all)),
                    ERROR => {
                        let (errno, detail) = message.error();
                        return match errno {
                            0 => Ok(Some(all)),
                            n => Err(refused(n, detail)),
                        };
                    }
                    // What this library cannot read is something newer than it.
                    _ => all.extend(message.decode()),
                }
            }
        }
    }
}

fn refused(errno: i32, detail: Option<String>) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    match detail {
        Some(text) if errno != libc::ENODEV => {
            io::Error::new(error.kind(), format!("{text} ({error})"))
        }
        _ => error,
    }
}

fn append(bytes: &mut Vec<u8>, request: Request, seq: u32, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | request.flags | flags;
    header.sequence_number = seq;
    let mut message = NetlinkMessage::new(header, request.message.into());
    message.finalize();
    let at = bytes.len();
    bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[at..]);
}

fn append_raw(bytes: &mut Vec<u8>, kind: u16, body: &[u8], seq: u32, flags: u16) {
    let length = (HEADER + body.len()) as u32;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message as it came.
pub(crate) struct Raw<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_seq`.
    pub(crate) seq: u32,
    flags: u16,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = word(header, 0) as usize;
        let body = bytes.get(HEADER..length)?;
        let message = Raw {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: word(header, 8),
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

impl Raw<'_> {
    /// Error number and text of an `NLMSG_ERROR`.
    pub(crate) fn error(&self) -> (i32, Option<String>) {
        let errno = word(self.body, 0).cast_signed().wrapping_neg();
        if self.flags & ACK_TLVS == 0 {
            return (errno, None);
        }
        let quoted = match self.flags & CAPPED {
            0 => word(self.body, 4) as usize,
            _ => HEADER,
        };
        let mut rest = self
            .body
            .get(4 + quoted.next_multiple_of(4)..)
            .unwrap_or_default();
        while let Some([a, b, c, d]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            let Some(value) = rest.get(4..length) else {
                break;
            };
            if u16::from_ne_bytes([*c, *d]) == TEXT {
                let text = String::from_utf8_lossy(value);
                return (errno, Some(text.trim_end_matches('\0').to_owned()));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        (errno, None)
    }

    /// Family and index, if it announces that a link is gone.
    pub(crate) fn gone(&self) -> Option<(u8, u32)> {
        (self.kind == libc::RTM_DELLINK)
            .then(|| (self.body.first().copied().unwrap_or(0), word(self.body, 4)))
    }

    pub(crate) fn decode(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, self.body).ok()
    }
}
