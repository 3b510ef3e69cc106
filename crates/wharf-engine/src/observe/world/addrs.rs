//! Addresses.

use ipnet::IpNet;
use wharf_core::trace::state::Address;

use super::attrs::{Attrs, byte, ip, word};

/// `RTM_GETADDR`.
pub(super) const GET: u16 = 22;
/// `sizeof(struct ifaddrmsg)`.
pub(super) const HEADER: usize = 8;

/// Reads an `RTM_NEWADDR`.
pub(super) fn read(body: &[u8]) -> Option<Address> {
    const TENTATIVE: u32 = 0x40;
    const DEPRECATED: u32 = 0x20;
    const DAD_FAILED: u32 = 8;
    const OPTIMISTIC: u32 = 4;
    let attrs = Attrs::after(body, HEADER);
    // IFA_ADDRESS is the other end where IFA_LOCAL is given and differs.
    let (far, own) = (attrs.get(1).and_then(ip), attrs.get(2).and_then(ip));
    let flags = attrs
        .get(8)
        .map_or(u32::from(byte(body, 2)), |v| word(v, 0));
    Some(Address {
        link: word(body, 4),
        net: IpNet::new(own.or(far)?, byte(body, 1)).ok()?,
        peer: far.filter(|f| own.is_some_and(|o| o != *f)),
        // An optimistic address is used while it is tentative.
        tentative: flags & TENTATIVE != 0 && flags & OPTIMISTIC == 0,
        dad_failed: flags & DAD_FAILED != 0,
        deprecated: flags & DEPRECATED != 0,
        scope: byte(body, 3),
    })
}
