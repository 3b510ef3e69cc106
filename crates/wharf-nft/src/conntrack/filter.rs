//! Selecting entries, in the kernel (`CTA_FILTER`, flags from `net/netfilter/nf_internals.h`) and here.

use std::net::IpAddr;

use super::codec::{Entry, MARK, Part, STATUS, TUPLE_ORIG, TUPLE_REPLY, Tuple, put_part};
use crate::error::NftError;
use crate::types::Family;
use crate::wire::Writer;

const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
/// `CTA_FILTER_ORIG_FLAGS`.
const ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_REPLY_FLAGS`.
const REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC`.
const F_SRC: u32 = 1;
/// `CTA_FILTER_F_CTA_IP_DST`.
const F_DST: u32 = 1 << 1;
/// `CTA_FILTER_F_CTA_PROTO_NUM`.
const F_PROTO: u32 = 1 << 3;
/// `CTA_FILTER_F_CTA_PROTO_SRC_PORT`.
const F_SPORT: u32 = 1 << 4;
/// `CTA_FILTER_F_CTA_PROTO_DST_PORT`.
const F_DPORT: u32 = 1 << 5;

/// Which entries: all conditions that are given hold. Ports need `proto`, and addresses must be of `family`; a filter
/// that mixes this up is refused rather than taken for less. Nothing but a family selects every entry of that family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackFilter {
    /// [`Family::Ip`] or [`Family::Ip6`].
    pub family: Family,
    /// `IPPROTO_*`.
    pub proto: Option<u8>,
    /// Source address of the original direction.
    pub orig_src: Option<IpAddr>,
    /// Destination address of the original direction.
    pub orig_dst: Option<IpAddr>,
    /// Source port of the original direction.
    pub orig_sport: Option<u16>,
    /// Destination port of the original direction.
    pub orig_dport: Option<u16>,
    /// Source address of answers: the server behind a destination translation.
    pub reply_src: Option<IpAddr>,
    /// Destination address of answers: what a source translation put in.
    pub reply_dst: Option<IpAddr>,
    /// Source port of answers.
    pub reply_sport: Option<u16>,
    /// Destination port of answers.
    pub reply_dport: Option<u16>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Bits of [`Entry::status`] that must be set; the kernel wants at least one.
    pub status: Option<u32>,
}

impl ConntrackFilter {
    /// Every entry of `family`, to be narrowed.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            proto: None,
            orig_src: None,
            orig_dst: None,
            orig_sport: None,
            orig_dport: None,
            reply_src: None,
            reply_dst: None,
            reply_sport: None,
            reply_dport: None,
            mark: None,
            status: None,
        }
    }

    fn orig(&self) -> Part {
        let (sport, dport) = (self.orig_sport, self.orig_dport);
        Part {
            src: self.orig_src,
            dst: self.orig_dst,
            proto: self.proto,
            sport,
            dport,
            icmp: None,
        }
    }

    fn reply(&self) -> Part {
        let (sport, dport) = (self.reply_sport, self.reply_dport);
        let ports = sport.is_some() || dport.is_some();
        let proto = self.proto.filter(|_| ports);
        Part {
            src: self.reply_src,
            dst: self.reply_dst,
            proto,
            sport,
            dport,
            icmp: None,
        }
    }

    /// Whether the kernel selects by this as it should. It does not by IPv6 addresses: there it takes the entries that do
    /// not have them for those that do (`ctnetlink_filter_match_tuple`, up to Linux 6.18 at least).
    pub(crate) fn is_sound(&self) -> bool {
        let addrs = [self.orig_src, self.orig_dst, self.reply_src, self.reply_dst];
        addrs.iter().flatten().all(IpAddr::is_ipv4)
    }

    /// The part of it that the kernel may be asked with; more entries than are selected.
    pub(crate) fn sound_part(&self) -> Self {
        match self.is_sound() {
            true => self.clone(),
            false => Self {
                orig_src: None,
                orig_dst: None,
                reply_src: None,
                reply_dst: None,
                ..self.clone()
            },
        }
    }

    /// Refuses what the kernel cannot compare.
    pub(crate) fn check(&self) -> Result<(), NftError> {
        let ports = [
            self.orig_sport,
            self.orig_dport,
            self.reply_sport,
            self.reply_dport,
        ];
        if self.proto.is_none() && ports.iter().any(Option::is_some) {
            return Err(NftError::Filter("a port needs a protocol"));
        }
        let v4 = match self.family {
            Family::Ip => true,
            Family::Ip6 => false,
            _ => return Err(NftError::Filter("the family must be ip or ip6")),
        };
        let addrs = [self.orig_src, self.orig_dst, self.reply_src, self.reply_dst];
        match addrs.iter().flatten().all(|a| a.is_ipv4() == v4) {
            true => Ok(()),
            false => Err(NftError::Filter("an address is of the other family")),
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        let parts = [
            (TUPLE_ORIG, ORIG_FLAGS, self.orig()),
            (TUPLE_REPLY, REPLY_FLAGS, self.reply()),
        ];
        for (tuple, _, part) in &parts {
            if flags(part) != 0 {
                put_part(*tuple, part, w);
            }
        }
        w.nest(FILTER, |w| {
            for (_, id, part) in &parts {
                if flags(part) != 0 {
                    // The one number here in host byte order.
                    w.attr(*id, &flags(part).to_ne_bytes());
                }
            }
        });
        if let Some((mark, mask)) = self.mark {
            w.u32(MARK, mark);
            w.u32(MARK_MASK, mask);
        }
        if let Some(status) = self.status {
            w.u32(STATUS, status);
            w.u32(STATUS_MASK, status);
        }
    }

    /// Whether `entry` is selected.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        self.family == entry.family
            && holds(&self.orig(), &entry.orig)
            && holds(&self.reply(), &entry.reply)
            && self
                .mark
                .is_none_or(|(mark, mask)| entry.mark.unwrap_or_default() & mask == mark)
            && self.status.is_none_or(|bits| entry.status & bits == bits)
    }
}

/// Which attributes of a tuple the kernel is to compare.
fn flags(part: &Part) -> u32 {
    [
        (part.src.is_some(), F_SRC),
        (part.dst.is_some(), F_DST),
        (part.proto.is_some(), F_PROTO),
        (part.sport.is_some(), F_SPORT),
        (part.dport.is_some(), F_DPORT),
    ]
    .into_iter()
    .filter(|(given, _)| *given)
    .fold(0, |all, (_, flag)| all | flag)
}

fn holds(part: &Part, tuple: &Tuple) -> bool {
    part.src.is_none_or(|a| a == tuple.src)
        && part.dst.is_none_or(|a| a == tuple.dst)
        && part.proto.is_none_or(|p| p == tuple.proto)
        && part.sport.is_none_or(|p| Some(p) == tuple.sport)
        && part.dport.is_none_or(|p| Some(p) == tuple.dport)
}
