//! The few system calls the standard library does not have. All `unsafe` of the kit is here.

use std::ffi::CString;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Moves the calling thread into the network namespace behind `fd`.
pub fn enter_net(fd: RawFd) -> io::Result<()> {
    // SAFETY: setns takes plain integers and changes only the calling thread.
    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a new network namespace.
pub fn unshare_net() -> io::Result<()> {
    // SAFETY: unshare takes plain integers and changes only the calling thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The namespaces a command of a host enters.
#[derive(Clone)]
pub struct HostFds {
    pub net: Arc<OwnedFd>,
    pub mnt: Arc<OwnedFd>,
    pub pid: Arc<OwnedFd>,
}

/// Makes `command` start in the network namespace only.
pub fn start_in_net(command: &mut Command, net: Arc<OwnedFd>) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(move || enter_net(net.as_raw_fd())) };
}

/// Makes `command` start in all namespaces of a host. Entering a process namespace takes a second fork: the first
/// child stays outside, writes the pid of the real one to `report`, waits, and ends the way the real one ended.
pub fn start_in_host(command: &mut Command, fds: HostFds, report: RawFd) {
    let enter = move || {
        let kinds = [
            (fds.pid.as_raw_fd(), libc::CLONE_NEWPID),
            (fds.net.as_raw_fd(), libc::CLONE_NEWNET),
            (fds.mnt.as_raw_fd(), libc::CLONE_NEWNS),
        ];
        for (fd, kind) in kinds {
            // SAFETY: plain integers.
            check(unsafe { libc::setns(fd, kind) })?;
        }
        // SAFETY: the process is single-threaded here, between fork and exec.
        let child = check(unsafe { libc::fork() })?;
        if child > 0 {
            stand_in(child, report)
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

fn stand_in(child: libc::pid_t, report: RawFd) -> ! {
    let mut status = 0;
    // SAFETY: system calls on integers and on locals that outlive them; the process ends inside this block.
    unsafe {
        libc::write(report, (&raw const child).cast(), size_of_val(&child));
        libc::close_range(0, u32::MAX, 0);
        while libc::waitpid(child, &raw mut status, 0) < 0 {
            if *libc::__errno_location() != libc::EINTR {
                libc::_exit(124);
            }
        }
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            libc::kill(libc::getpid(), signal);
        }
        libc::_exit(libc::WEXITSTATUS(status))
    }
}

/// Sends a signal to one process.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    assert!(pid > 1, "will not signal pid {pid}");
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Our user id.
pub fn euid() -> u32 {
    // SAFETY: never fails.
    unsafe { libc::geteuid() }
}

/// A pipe that no started program inherits.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors, which are fresh and owned by nobody else.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the descriptor is fresh and owned by nobody else.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::socket(
            domain,
            kind | libc::SOCK_CLOEXEC,
            protocol,
        ))?))
    }
}

/// A raw IP socket. `UdpSocket` is only the standard library's handle for datagrams of any kind.
pub fn raw_ip(v6: bool, protocol: i32) -> io::Result<UdpSocket> {
    let fd = socket(
        if v6 { libc::AF_INET6 } else { libc::AF_INET },
        libc::SOCK_RAW,
        protocol,
    )?;
    Ok(UdpSocket::from(fd))
}

/// Whether the kernel has SCTP sockets.
pub fn has_sctp_sockets() -> bool {
    socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP).is_ok()
}

fn set_option(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) }).map(drop)
}

/// Has ICMP errors reported as errors of the socket.
pub fn report_errors(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    set_option(socket.as_raw_fd(), level, option, 1)
}

/// The index of an interface of the calling thread's namespace.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: a valid C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(index)
    }
}

/// A socket for whole frames on one interface of the calling thread's namespace; it does not see what it sends.
pub fn packet_socket(interface: &str) -> io::Result<UdpSocket> {
    const EVERY_PROTOCOL: u16 = (libc::ETH_P_ALL as u16).to_be();
    const SOL_PACKET: i32 = 263;
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    set_option(fd.as_raw_fd(), SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 8 << 20)?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = EVERY_PROTOCOL;
    address.sll_ifindex = interface_index(interface)? as i32;
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `address`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(UdpSocket::from(fd))
}

/// Wakes a thread that waits in `accept`.
pub fn stop_listening(fd: RawFd) {
    // SAFETY: plain integers.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Room for one control message with a destination address.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn pktinfo(v6: bool) -> (i32, i32, i32) {
    if v6 {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_PKTINFO,
        )
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_PKTINFO)
    }
}

/// A socket on all addresses that knows to which of them a datagram came, and answers from there.
pub struct AnyAddress {
    socket: UdpSocket,
    v6: bool,
}

/// Where an answer goes.
pub struct Peer {
    name: libc::sockaddr_storage,
    name_length: libc::socklen_t,
    control: Control,
    control_length: usize,
    /// The address of the peer.
    pub ip: std::net::IpAddr,
}

impl AnyAddress {
    /// Takes over a bound socket of the given family.
    pub fn new(socket: UdpSocket, v6: bool) -> io::Result<Self> {
        let (level, option, _) = pktinfo(v6);
        set_option(socket.as_raw_fd(), level, option, 1)?;
        Ok(Self { socket, v6 })
    }

    /// Waits for a datagram.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        // SAFETY: all-zero is valid for both structures.
        let (name, mut header): (libc::sockaddr_storage, libc::msghdr) =
            unsafe { std::mem::zeroed() };
        let ip = std::net::Ipv4Addr::UNSPECIFIED.into();
        let control = Control([0; 64]);
        let mut peer = Peer {
            name,
            name_length: 0,
            control,
            control_length: 0,
            ip,
        };
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        header.msg_name = (&raw mut peer.name).cast();
        header.msg_namelen = size_of_val(&peer.name) as libc::socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut peer.control).cast();
        header.msg_controllen = size_of_val(&peer.control);
        // SAFETY: every pointer in the header is to a live local of the length given beside it.
        let count = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        peer.name_length = header.msg_namelen;
        peer.control_length = header.msg_controllen;
        peer.ip = if self.v6 {
            // SAFETY: the kernel filled in a sockaddr_in6, which fits into a sockaddr_storage.
            let name: libc::sockaddr_in6 = unsafe { *(&raw const peer.name).cast() };
            std::net::Ipv6Addr::from(name.sin6_addr.s6_addr).to_canonical()
        } else {
            // SAFETY: the kernel filled in a sockaddr_in, which fits into a sockaddr_storage.
            let name: libc::sockaddr_in = unsafe { *(&raw const peer.name).cast() };
            std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)).into()
        };
        Ok((count as usize, peer))
    }

    /// Answers, from the address the datagram came to.
    pub fn answer(&self, bytes: &[u8], mut peer: Peer) -> io::Result<()> {
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        header.msg_name = (&raw mut peer.name).cast();
        header.msg_namelen = peer.name_length;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut peer.control).cast();
        header.msg_controllen = peer.control_length;
        let (_, _, kind) = pktinfo(self.v6);
        // SAFETY: the control buffer holds what recvmsg wrote; only an in_pktinfo of the right size is changed.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            if !self.v6 && !message.is_null() && (*message).cmsg_type == kind {
                let info: *mut libc::in_pktinfo = libc::CMSG_DATA(message).cast();
                (*info).ipi_spec_dst = (*info).ipi_addr;
                (*info).ipi_ifindex = 0;
            } else if self.v6 && !message.is_null() && (*message).cmsg_type == kind {
                let info: *mut libc::in6_pktinfo = libc::CMSG_DATA(message).cast();
                let address = (*info).ipi6_addr;
                if address.s6_addr[..2] != [0xfe, 0x80] {
                    (*info).ipi6_ifindex = 0;
                }
            }
            let sent = libc::sendmsg(self.socket.as_raw_fd(), &raw const header, 0);
            if sent < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        }
    }
}
