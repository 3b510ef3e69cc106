//! Policies of IPsec (`ip xfrm policy`), by `NETLINK_XFRM`.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::trace::state::{Ipsec, IpsecDir, IpsecPolicy, Unread};

use super::attrs::{Attrs, byte, short, word};
use super::{OrNote, list, unread};
use crate::kernel::netlink::socket::Rt;

/// `NETLINK_XFRM`.
const XFRM: isize = 6;
/// `XFRM_MSG_GETPOLICY`.
const GET: u16 = 0x15;
/// `XFRM_MSG_GETDEFAULT`.
const GET_DEFAULT: u16 = 0x28;
/// `sizeof(struct xfrm_userpolicy_default)`: in, forward, out.
const DEFAULTS: usize = 3;
/// `XFRM_USERPOLICY_BLOCK` as a default.
const CLOSED: u8 = 1;
/// `sizeof(struct xfrm_userpolicy_info)`.
const HEADER: usize = 168;
/// `XFRMA_TMPL`.
const TEMPLATES: u16 = 5;
/// `sizeof(struct xfrm_user_tmpl)`, and where it says that it is optional (`level use`).
const TEMPLATE: usize = 64;
const OPTIONAL: usize = 50;
/// `XFRMA_MARK`.
const MARK: u16 = 21;
/// `XFRMA_IF_ID`.
const INTERFACE: u16 = 31;

/// Reads what holds in the thread's namespace; nothing where the kernel has no IPsec.
pub(super) fn read(netns: &str, notes: &mut Vec<Unread>) -> Ipsec {
    let none = |error: &io::Error| error.raw_os_error() == Some(libc::EPROTONOSUPPORT);
    let mut socket = match Rt::of_protocol(XFRM) {
        Ok(socket) => socket,
        Err(error) => {
            if !none(&error) {
                notes.push(unread(netns, "IPsec policies", error));
            }
            return Ipsec::default();
        }
    };
    let policies = list(&mut socket, GET, &[], policy);
    let mut closed = Vec::new();
    // Older kernels have no defaults, and refuse.
    let asked = socket.ask_raw(GET_DEFAULT, &[vec![0; DEFAULTS]], |_, body| {
        closed.extend(body.into_iter().flat_map(defaults));
    });
    if let Err(error) = asked {
        notes.push(unread(netns, "IPsec defaults", error));
    }
    Ipsec {
        policies: policies.unwrap_or_note(netns, "IPsec policies", notes),
        closed,
    }
}

/// `struct xfrm_userpolicy_default`.
fn defaults(body: &[u8]) -> impl Iterator<Item = IpsecDir> {
    let all = [IpsecDir::In, IpsecDir::Forward, IpsecDir::Out];
    all.into_iter()
        .zip(body)
        .filter(|(_, is)| **is == CLOSED)
        .map(|(dir, _)| dir)
}

/// `struct xfrm_userpolicy_info`, which begins with a `struct xfrm_selector`.
fn policy(body: &[u8]) -> Option<IpsecPolicy> {
    if body.len() < HEADER {
        return None;
    }
    let family = short(body, 40);
    let net = |at: usize, len: u8| -> Option<IpNet> {
        let addr: IpAddr = match i32::from(family) {
            libc::AF_INET => <[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?.into(),
            libc::AF_INET6 => <[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?.into(),
            _ => return None,
        };
        IpNet::new(addr, len).ok()
    };
    // Ports are in the network's order.
    let port = |at: usize| {
        (
            u16::from_be(short(body, at)),
            u16::from_be(short(body, at + 2)),
        )
    };
    let dir = match byte(body, 160) {
        0 => IpsecDir::In,
        1 => IpsecDir::Out,
        2 => IpsecDir::Forward,
        // Those of single sockets.
        _ => return None,
    };
    let attrs = Attrs::after(body, HEADER);
    let number = |kind| attrs.get(kind).map_or((0, 0), |v| (word(v, 0), word(v, 4)));
    // Of interfaces of IPsec, by which nothing is followed.
    if number(INTERFACE).0 != 0 {
        return None;
    }
    let templates = attrs.get(TEMPLATES).unwrap_or_default();
    let mut templates = templates.chunks(TEMPLATE);
    Some(IpsecPolicy {
        dst: net(0, byte(body, 42))?,
        src: net(16, byte(body, 43))?,
        dport: port(32),
        sport: port(36),
        protocol: byte(body, 44),
        link: word(body, 48),
        priority: word(body, 152),
        dir,
        mark: number(MARK),
        blocks: byte(body, 161) == 1,
        // What comes in may be plain where it is only to be encrypted if it can.
        transforms: templates.any(|t| dir == IpsecDir::Out || byte(t, OPTIONAL) == 0),
    })
}
