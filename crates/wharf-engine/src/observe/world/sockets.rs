//! Sockets that take packets, with their queues (`NETLINK_SOCK_DIAG`); by the files of `/proc` where the kernel has no
//! such thing.

use std::collections::BTreeSet;
use std::io;

use wharf_core::publish::Protocol;
use wharf_core::trace::packet::L4;
use wharf_core::trace::state::Socket;

use super::attrs::{Attrs, be_short, byte, ip, word};
use crate::kernel::netlink::socket::Rt;
use crate::observe::listen;

/// `NETLINK_SOCK_DIAG`.
const SOCK_DIAG: isize = 4;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `sizeof(struct inet_diag_req_v2)` and `struct inet_diag_msg`.
const QUESTION: usize = 56;
const HEADER: usize = 72;
/// `TCP_ESTABLISHED`, `TCP_CLOSE` and `TCP_LISTEN`.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Those that listen or are bound.
    pub(super) sockets: Vec<Socket>,
    /// Local IPv4 ports of TCP, listening or not.
    pub(super) ports: BTreeSet<u16>,
}

impl Found {
    /// How many of them are in the range for outgoing connections.
    pub(super) fn in_use(&self, range: Option<&str>) -> u32 {
        let ends = range.and_then(|text| {
            let mut ends = text.split_whitespace().map(str::parse::<u16>);
            Some((ends.next()?.ok()?, ends.next()?.ok()?))
        });
        match ends {
            Some((low, high)) if low <= high => self.ports.range(low..=high).count() as u32,
            _ => 0,
        }
    }
}

/// Reads the sockets of the thread's namespace.
pub(super) fn read() -> io::Result<Found> {
    match diag() {
        // Not built in, or not allowed here.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EACCES)
            ) =>
        {
            files()
        }
        other => other,
    }
}

fn diag() -> io::Result<Found> {
    let mut rt = Rt::of_protocol(SOCK_DIAG)?;
    let mut found = Found::default();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        for (number, protocol) in [(6, L4::Tcp), (17, L4::Udp)] {
            let states = match protocol {
                L4::Tcp if family == libc::AF_INET as u8 => u32::MAX,
                L4::Tcp => 1 << LISTEN,
                _ => 1 << CLOSE | 1 << ESTABLISHED,
            };
            let mut question = vec![0; QUESTION];
            question[0] = family;
            question[1] = number;
            question[4..8].copy_from_slice(&states.to_ne_bytes());
            // Sockets come and go all the time: a list is never of one piece.
            rt.dump_raw(BY_FAMILY, &question, |_, body| {
                one(body, protocol, &mut found);
            })?;
        }
    }
    Ok(found)
}

/// Reads a `struct inet_diag_msg`.
fn one(body: &[u8], protocol: L4, found: &mut Found) {
    /// `INET_DIAG_SKV6ONLY`.
    const V6ONLY: u16 = 11;
    if body.len() < HEADER {
        return;
    }
    let (family, state) = (body[0], body[1]);
    let width = if i32::from(family) == libc::AF_INET {
        4
    } else {
        16
    };
    let (port, far_port) = (be_short(body, 4), be_short(body, 6));
    let (Some(addr), Some(far)) = (ip(&body[8..8 + width]), ip(&body[24..24 + width])) else {
        return;
    };
    if protocol == L4::Tcp {
        if addr.is_ipv4() && port != 0 {
            found.ports.insert(port);
        }
        if state != LISTEN {
            return;
        }
    }
    let only = Attrs::after(body, HEADER).get(V6ONLY);
    found.sockets.push(Socket {
        protocol,
        addr,
        port,
        v6only: addr.is_ipv6() && only.is_some_and(|v| byte(v, 0) != 0),
        link: Some(word(body, 40)).filter(|index| *index != 0),
        // Of a listener: connections waiting, and the most there may be.
        queue: word(body, 56),
        backlog: if protocol == L4::Tcp {
            word(body, 60)
        } else {
            0
        },
        remote: (state == ESTABLISHED).then_some((far, far_port)),
    });
}

/// The same by files, which tell neither queues nor `v6only`.
fn files() -> io::Result<Found> {
    let mut found = Found::default();
    for (protocol, l4) in [(Protocol::Tcp, L4::Tcp), (Protocol::Udp, L4::Udp)] {
        for listener in listen::of_protocol(protocol, |_| true)? {
            found.sockets.push(Socket {
                protocol: l4,
                addr: listener.addr,
                port: listener.port,
                v6only: listener.v6only.unwrap_or(false),
                link: None,
                queue: 0,
                backlog: 0,
                remote: None,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_of_the_range_count() {
        let found = Found {
            ports: [80, 32768, 40000, 61000].into(),
            ..Found::default()
        };
        assert_eq!(found.in_use(Some("32768\t60999")), 2);
        assert_eq!(found.in_use(Some("9 1")), 0);
        assert_eq!(found.in_use(None), 0);
    }
}
