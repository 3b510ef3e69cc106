//! The bytes of an xtables match or target, read with their length checked.
//!
//! Every reader gives `None` beyond the end, so a blob that is too short for its name and revision is not decoded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_core::trace::ruleset::TableFamily;

/// Names of ipsets by their number in the kernel.
pub type SetNames = HashMap<u16, String>;

/// A blob, with what its meaning depends on.
#[derive(Clone, Copy)]
pub struct Info<'a> {
    /// The revision of the match or target.
    pub rev: u32,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The family of the table.
    pub family: TableFamily,
    /// Names for numbers of ipsets.
    pub sets: &'a SetNames,
}

impl Info<'_> {
    /// Addresses are IPv6.
    pub fn v6(&self) -> bool {
        self.family == TableFamily::Ip6
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    /// `len` bytes.
    pub fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// A byte.
    pub fn u8(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// A number of two bytes.
    pub fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    /// A number of two bytes in network order.
    pub fn be16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// A number of four bytes.
    pub fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    /// A number of eight bytes.
    pub fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }

    /// Two numbers of two bytes.
    pub fn pair16(&self, at: usize) -> Option<(u16, u16)> {
        Some((self.u16(at)?, self.u16(at + 2)?))
    }

    /// Two numbers of four bytes.
    pub fn pair32(&self, at: usize) -> Option<(u32, u32)> {
        Some((self.u32(at)?, self.u32(at + 4)?))
    }

    /// An IPv4 address.
    pub fn v4_addr(&self, at: usize) -> Option<IpAddr> {
        self.array::<4>(at).map(|b| Ipv4Addr::from(b).into())
    }

    /// An address in the kernel's union of both families, which is 16 bytes long.
    pub fn addr(&self, at: usize) -> Option<IpAddr> {
        let all = self.array::<16>(at)?;
        if self.v6() {
            return Some(Ipv6Addr::from(all).into());
        }
        self.v4_addr(at)
    }

    /// Text up to its zero byte or `len`.
    pub fn str(&self, at: usize, len: usize) -> Option<String> {
        Some(text(self.slice(at, len)?))
    }

    /// The name of the ipset of that number.
    pub fn set_name(&self, number: u16) -> String {
        let name = self.sets.get(&number).cloned();
        name.unwrap_or_else(|| format!("#{number}"))
    }
}

/// Text up to its zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
