//! Sockets of the host that wait for packets from outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

fn of_protocol(protocol: Protocol, wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Listener>> {
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

    /// The first socket of the host that would lose its packets to a published port.
    ///
    /// # Errors
    /// If the kernel's files cannot be read.
    pub fn listener_on(
        &mut self,
        protocol: Protocol,
        range: PortRange,
        host_ip: Option<IpAddr>,
    ) -> io::Result<Option<Listener>> {
        let within = |port| (range.first()..=range.last()).contains(&port);
        let all = of_protocol(protocol, within)?;
        Ok(all.into_iter().find(|l| l.covers(host_ip)))
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
