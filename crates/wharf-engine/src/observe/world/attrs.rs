//! Attributes of netlink messages, as they lie in memory.
//!
//! What is too short is read as nothing: a reader of a running host must survive whatever a newer kernel says.

use std::net::IpAddr;

use wharf_core::addr::Mac;

/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER` are no part of the type.
const TYPE: u16 = 0x3fff;

/// The attributes in a stretch of bytes: type and value.
#[derive(Clone, Copy)]
pub(super) struct Attrs<'a>(pub(super) &'a [u8]);

impl<'a> Attrs<'a> {
    /// Those after a message's own header.
    pub(super) fn after(body: &'a [u8], header: usize) -> Self {
        Self(body.get(header..).unwrap_or_default())
    }

    /// The value of the first attribute of a type.
    pub(super) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes inside the first one of a type.
    pub(super) fn nested(self, kind: u16) -> Attrs<'a> {
        Attrs(self.get(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE, value))
    }
}

/// A byte at a place.
pub(super) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Two bytes in the host's order.
pub(super) fn short(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_ne_bytes)
}

/// Four bytes in the host's order.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// Two bytes in the network's order.
pub(super) fn be_short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be(short(bytes, at))
}

/// Four bytes in the network's order.
pub(super) fn be_word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be(word(bytes, at))
}

/// Text up to its final zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An address, whose family its length tells.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| IpAddr::from(*b)),
        16 => bytes.first_chunk::<16>().map(|b| IpAddr::from(*b)),
        _ => None,
    }
}

/// A hardware address of six bytes.
pub(super) fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// The bytes of an attribute.
#[cfg(test)]
pub(super) fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_may_be_cut_short() {
        let bytes = [attr(3, b"lo\0"), attr(0x8004, &[1, 0, 0, 0])].concat();
        let all = Attrs(&bytes);
        assert_eq!(all.get(3).map(text).as_deref(), Some("lo"));
        assert_eq!(all.get(4).map(|v| word(v, 0)), Some(1));
        assert_eq!(Attrs(&bytes[..bytes.len() - 1]).get(4), None);
        assert_eq!(Attrs(&[9, 0]).count(), 0);
        assert_eq!((word(&[1], 0), short(&[], 4), byte(&[], 0)), (0, 0, 0));
    }
}
