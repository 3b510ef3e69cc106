//! Policies of IPsec (`ip xfrm policy`), by `NETLINK_XFRM`.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::trace::state::{IpsecDir, IpsecPolicy};

use super::attrs::{Attrs, byte, short, word};
use super::{List, list};
use crate::kernel::netlink::socket::Rt;

/// `NETLINK_XFRM`.
const XFRM: isize = 6;
/// `XFRM_MSG_GETPOLICY`.
const GET: u16 = 0x15;
/// `sizeof(struct xfrm_userpolicy_info)`.
const HEADER: usize = 168;
/// `XFRMA_TMPL`.
const TEMPLATES: u16 = 5;

/// Reads the policies of the thread's namespace; none where the kernel has no IPsec.
pub(super) fn read() -> io::Result<List<IpsecPolicy>> {
    let none = |error: &io::Error| error.raw_os_error() == Some(libc::EPROTONOSUPPORT);
    let mut socket = match Rt::of_protocol(XFRM) {
        Err(error) if none(&error) => return Ok(List::empty()),
        socket => socket?,
    };
    list(&mut socket, GET, &[], policy)
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
    Some(IpsecPolicy {
        dst: net(0, byte(body, 42))?,
        src: net(16, byte(body, 43))?,
        dport: port(32),
        sport: port(36),
        protocol: byte(body, 44),
        link: word(body, 48),
        priority: word(body, 152),
        dir: match byte(body, 160) {
            0 => IpsecDir::In,
            1 => IpsecDir::Out,
            2 => IpsecDir::Forward,
            // Those of single sockets.
            _ => return None,
        },
        blocks: byte(body, 161) == 1,
        transforms: Attrs::after(body, HEADER).get(TEMPLATES).is_some(),
    })
}
