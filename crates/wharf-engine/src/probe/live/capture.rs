//! Frames on all links of a namespace, by one packet socket that lets only frames of the flow through.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::trace::L4;

use super::flow::{ADVERTISEMENT, ERRORS4, ERRORS6, Flow, SOLICITATION};

/// Longer than any header and quote that is looked at.
const BUFFER: usize = 2048;
/// The most frames taken in one go; more would not be one packet's.
const MOST: usize = 256;
/// `PACKET_OTHERHOST`, `PACKET_OUTGOING`.
const OTHERHOST: u8 = 3;
const OUTGOING: u8 = 4;
const ETH_IP: u32 = 0x800;
const ETH_ARP: u32 = 0x806;
const ETH_IP6: u32 = 0x86dd;

/// A frame as it was caught.
#[derive(Debug, Clone)]
pub(super) struct Caught {
    /// The link's index.
    pub(super) link: u32,
    pub(super) out: bool,
    pub(super) foreign: bool,
    /// The Ethernet protocol.
    pub(super) protocol: u16,
    /// Nanoseconds of the wall clock.
    pub(super) at: u64,
    /// From the network header on.
    pub(super) bytes: Vec<u8>,
    /// Length from the network header on.
    pub(super) len: usize,
}

/// A packet socket of one namespace.
pub(super) struct Capture {
    fd: OwnedFd,
}

impl Capture {
    /// Catches on every link of the calling thread's namespace.
    pub(super) fn open(flow: &Flow) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // With protocol 0 nothing is caught before the filter is in place.
        // SAFETY: a plain system call; the result is checked.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut program = filter(flow);
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(io::Error::other)?,
            filter: program.as_mut_ptr(),
        };
        set(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        let on: libc::c_int = 1;
        set(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)?;
        // SAFETY: sockaddr_ll is plain data, for which zero bytes are valid.
        let mut addr: libc::sockaddr_ll = unsafe { zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let len = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the pointer is to a live sockaddr_ll of the length given.
        if unsafe { libc::bind(raw, (&raw const addr).cast(), len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd })
    }

    pub(super) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// What has been caught; never waits.
    pub(super) fn take(&self, into: &mut Vec<Caught>) {
        for _ in 0..MOST {
            match self.next() {
                Some(caught) => into.push(caught),
                None => return,
            }
        }
    }

    fn next(&self) -> Option<Caught> {
        let mut buffer = [0_u8; BUFFER];
        let mut control = [0_u64; 16];
        // SAFETY: sockaddr_ll is plain data, for which zero bytes are valid.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: msghdr is plain data, for which zero bytes are valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every pointer in `message` is to a live object of the length given beside it.
        let got = unsafe { libc::recvmsg(self.raw(), &raw mut message, flags) };
        let len = usize::try_from(got).ok()?;
        Some(Caught {
            link: u32::try_from(from.sll_ifindex).ok()?,
            out: from.sll_pkttype == OUTGOING,
            foreign: from.sll_pkttype == OTHERHOST,
            protocol: u16::from_be(from.sll_protocol),
            at: time_of(&message),
            bytes: buffer[..len.min(BUFFER)].to_vec(),
            len,
        })
    }
}

/// The kernel's time stamp.
fn time_of(message: &libc::msghdr) -> u64 {
    // SAFETY: the kernel filled in the control data of `message`, whose buffer is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie whole inside the buffer.
        let header = unsafe { &*next };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SO_TIMESTAMPNS {
            // SAFETY: the data of this kind is a timespec; it need not be aligned.
            let time: libc::timespec =
                unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(next).cast()) };
            return (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64;
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    0
}

pub(super) fn set<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as u32;
    // SAFETY: the pointer is to a live value of the length given.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

type Program = Vec<libc::sock_filter>;

fn code(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on if the value is `k`, else past `skip` instructions.
fn only(k: u32, skip: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: u8::try_from(skip).expect("the program has less than a hundred instructions"),
        k,
    }
}

fn give(all: bool) -> libc::sock_filter {
    code(
        libc::BPF_RET | libc::BPF_K,
        if all { BUFFER as u32 } else { 0 },
    )
}

/// `if VALUE == k { body }`.
fn when(k: u32, body: &[libc::sock_filter]) -> Program {
    let mut all = vec![only(k, body.len())];
    all.extend(body);
    all
}

/// Loads 1, 2 or 4 bytes, from the beginning or behind the IP header (in X).
fn load(size: u32, from: u32, at: u32) -> libc::sock_filter {
    code(libc::BPF_LD | size | from, at)
}

/// Lets frames of the flow through, ICMP errors, and questions for neighbours. Offsets count from the network header.
fn filter(flow: &Flow) -> Program {
    // SKF_AD_OFF + SKF_AD_PROTOCOL: not in the frame, but kept beside it.
    let protocol = load(libc::BPF_H, libc::BPF_ABS, (-0x1000_i32).cast_unsigned());
    let mut ip = Vec::new();
    let (ether, next, icmp) = if flow.v6() {
        ip.push(code(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 40));
        (ETH_IP6, 6, 58)
    } else {
        ip.push(code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0));
        (ETH_IP, 9, 1)
    };
    ip.push(load(libc::BPF_B, libc::BPF_ABS, next));
    if flow.l4 != L4::Icmp {
        let mut body = transport(flow);
        body.push(give(false));
        ip.extend(when(flow.protocol().into(), &body));
    }
    ip.extend(when(icmp, &icmp_part(flow)));
    ip.push(give(false));
    let mut all = vec![protocol];
    all.extend(when(ETH_ARP, &[give(!flow.v6())]));
    all.extend(when(ether, &ip));
    all.push(give(false));
    all
}

fn transport(flow: &Flow) -> Program {
    let mut all = Vec::new();
    if flow.l4 == L4::Tcp {
        all.push(load(libc::BPF_W, libc::BPF_IND, 4));
        all.extend(when(flow.first, &[give(true)]));
        all.push(load(libc::BPF_W, libc::BPF_IND, 8));
        all.extend(when(flow.first.wrapping_add(1), &[give(true)]));
    } else {
        all.push(load(libc::BPF_H, libc::BPF_IND, 2));
        all.extend(when(flow.own.into(), &[give(true)]));
        all.extend(marked(flow));
    }
    all
}

/// The last eight bytes of the mark: those that are random.
fn marked(flow: &Flow) -> Program {
    let word = |at: usize| {
        let bytes = [0, 1, 2, 3].map(|i| flow.mark[at + i]);
        u32::from_be_bytes(bytes)
    };
    let mut last = vec![load(libc::BPF_W, libc::BPF_IND, 16)];
    last.extend(when(word(8), &[give(true)]));
    let mut all = vec![load(libc::BPF_W, libc::BPF_IND, 12)];
    all.extend(when(word(4), &last));
    all
}

fn icmp_part(flow: &Flow) -> Program {
    let mut all = vec![load(libc::BPF_B, libc::BPF_IND, 0)];
    let errors: &[u8] = if flow.v6() { &ERRORS6 } else { &ERRORS4 };
    let neighbours: &[u8] = if flow.v6() {
        &[SOLICITATION, ADVERTISEMENT]
    } else {
        &[]
    };
    for kind in errors.iter().chain(neighbours) {
        all.extend(when((*kind).into(), &[give(true)]));
    }
    if flow.l4 == L4::Icmp {
        all.extend(marked(flow));
    }
    all.push(give(false));
    all
}
