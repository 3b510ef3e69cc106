//! Set elements (`enum nft_set_elem_attributes`) and ranges of them.

use crate::expr::Expr;
use crate::set::{IntervalStyle, Set};
use crate::set_codec::{get_set_exprs, put_set_exprs};
use crate::types::flags;
use crate::userdata::Userdata;
use crate::verdict::{Data, get_value, put_value};
use crate::wire::{Attrs, Malformed, Writer};

const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
const EXPIRATION: u16 = 5;
const USERDATA: u16 = 6;
const EXPR: u16 = 7;
const OBJREF: u16 = 9;
const KEY_END: u16 = 10;
const EXPRESSIONS: u16 = 11;

flags! {
    /// `enum nft_set_elem_flags`.
    ElementFlags { INTERVAL_END = 1 "NFT_SET_ELEM_INTERVAL_END", CATCHALL = 2 "NFT_SET_ELEM_CATCHALL" }
}

/// An element as the kernel holds it. A range in a set of single-field intervals is two of them, see [`Interval`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// `NFTA_SET_ELEM_KEY`; empty for the catch-all element.
    pub key: Vec<u8>,
    /// `NFTA_SET_ELEM_KEY_END`, included in the range.
    pub key_end: Option<Vec<u8>>,
    /// `NFTA_SET_ELEM_DATA` of a map.
    pub data: Option<Data>,
    /// `NFTA_SET_ELEM_OBJREF` of a map to objects.
    pub object: Option<String>,
    /// `NFTA_SET_ELEM_FLAGS`.
    pub flags: ElementFlags,
    /// `NFTA_SET_ELEM_TIMEOUT` in milliseconds.
    pub timeout: Option<u64>,
    /// `NFTA_SET_ELEM_EXPIRATION`, what is left, in milliseconds.
    pub expiration: Option<u64>,
    /// `NFTA_SET_ELEM_EXPR`, `NFTA_SET_ELEM_EXPRESSIONS`.
    pub exprs: Vec<Expr>,
    /// `NFTA_SET_ELEM_USERDATA`.
    pub userdata: Userdata,
}

impl Element {
    /// An element with a single key.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }

    /// `*`: matches what no other element does.
    #[must_use]
    pub fn catch_all() -> Self {
        Self {
            flags: ElementFlags::CATCHALL,
            ..Self::default()
        }
    }

    /// The keys from `first` to `last`, both included, as `set` holds them. For a concatenation both are whole keys,
    /// and the range is taken per field. Keys are compared as big-endian bytes.
    #[must_use]
    pub fn range(set: &Set, first: impl Into<Vec<u8>>, last: impl Into<Vec<u8>>) -> Interval {
        let (mut start, last) = (Self::new(first), last.into());
        let mut end = None;
        match set.interval_style() {
            IntervalStyle::None => {}
            IntervalStyle::KeyEnd => start.key_end = Some(last),
            IntervalStyle::EndElement => {
                end = successor(last).map(|key| Self {
                    flags: ElementFlags::INTERVAL_END,
                    ..Self::new(key)
                });
            }
        }
        Interval { start, end }
    }

    /// The addresses that share the first `len` bits of `addr`.
    #[must_use]
    pub fn prefix(set: &Set, addr: impl Into<Vec<u8>>, len: u32) -> Interval {
        let mut first = addr.into();
        let mut last = first.clone();
        for (i, (low, high)) in first.iter_mut().zip(&mut last).enumerate() {
            let bits = len
                .saturating_sub(u32::try_from(i).unwrap_or(u32::MAX).saturating_mul(8))
                .min(8);
            let host = u8::try_from(0xff_u32 >> bits).unwrap_or_default();
            *low &= !host;
            *high |= host;
        }
        Self::range(set, first, last)
    }

    /// With what a map gives for it.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Data>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// With a comment that `nft list` shows.
    #[must_use]
    pub fn with_comment(mut self, text: &str) -> Self {
        self.userdata = Userdata::comment(text);
        self
    }

    /// That is gone after `millis`; the set needs [`crate::SetFlags::TIMEOUT`].
    #[must_use]
    pub fn with_timeout(mut self, millis: u64) -> Self {
        self.timeout = Some(millis);
        self
    }

    /// The comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        self.userdata.read_comment()
    }

    /// Whether it only ends a range.
    #[must_use]
    pub fn is_interval_end(&self) -> bool {
        self.flags.has(ElementFlags::INTERVAL_END)
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        if !self.flags.has(ElementFlags::CATCHALL) {
            put_value(KEY, &self.key, w);
        }
        if let Some(end) = &self.key_end {
            put_value(KEY_END, end, w);
        }
        if let Some(data) = &self.data {
            data.put(DATA, w);
        }
        if let Some(object) = &self.object {
            w.str(OBJREF, object);
        }
        if self.flags.0 != 0 {
            w.u32(FLAGS, self.flags.0);
        }
        if let Some(timeout) = self.timeout {
            w.u64(TIMEOUT, timeout);
        }
        if let Some(expiration) = self.expiration {
            w.u64(EXPIRATION, expiration);
        }
        self.userdata.put(USERDATA, w);
        put_set_exprs(w, EXPR, EXPRESSIONS, &self.exprs);
    }

    pub(crate) fn decode(attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            key: get_value(attrs, KEY)?.unwrap_or_default(),
            key_end: get_value(attrs, KEY_END)?,
            data: attrs
                .nested(DATA)?
                .map(|data| Data::decode(&data))
                .transpose()?,
            object: attrs.str(OBJREF)?,
            flags: ElementFlags(attrs.u32(FLAGS)?.unwrap_or_default()),
            timeout: attrs.u64(TIMEOUT)?,
            expiration: attrs.u64(EXPIRATION)?,
            exprs: get_set_exprs(attrs, EXPR, EXPRESSIONS)?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}

/// A range of keys: one element or two, made by [`Element::range`]. To remove it, remove the same.
///
/// Neighbouring ranges each bring their own end: the kernel accepts an end and a start with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    start: Element,
    end: Option<Element>,
}

impl Interval {
    /// With what a map gives for the range.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Data>) -> Self {
        self.start.data = Some(data.into());
        self
    }

    /// With a comment that `nft list` shows.
    #[must_use]
    pub fn with_comment(mut self, text: &str) -> Self {
        self.start.userdata = Userdata::comment(text);
        self
    }
}

impl IntoIterator for Interval {
    type Item = Element;
    type IntoIter = std::iter::Chain<std::iter::Once<Element>, std::option::IntoIter<Element>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.start).chain(self.end)
    }
}

/// Reads the elements of `set` as ranges with both ends included: first key, last key, the element with the data.
/// Single keys are ranges of one; the catch-all element is left out.
#[must_use]
pub fn intervals<'a>(set: &Set, elements: &'a [Element]) -> Vec<(&'a [u8], Vec<u8>, &'a Element)> {
    let mut sorted: Vec<&Element> = elements
        .iter()
        .filter(|e| !e.flags.has(ElementFlags::CATCHALL))
        .collect();
    if set.interval_style() != IntervalStyle::EndElement {
        let last = |e: &Element| e.key_end.clone().unwrap_or_else(|| e.key.clone());
        return sorted
            .into_iter()
            .map(|e| (e.key.as_slice(), last(e), e))
            .collect();
    }
    sorted.sort_by(|a, b| {
        a.key
            .cmp(&b.key)
            .then(b.is_interval_end().cmp(&a.is_interval_end()))
    });
    let starts = sorted
        .iter()
        .enumerate()
        .filter(|(_, e)| !e.is_interval_end());
    let range = |(i, e): (usize, &&'a Element)| {
        let next = sorted
            .get(i + 1)
            .and_then(|next| predecessor(next.key.clone()));
        (
            e.key.as_slice(),
            next.unwrap_or_else(|| vec![0xff; e.key.len()]),
            *e,
        )
    };
    starts.map(range).collect()
}

/// The next number, big-endian; `None` after the greatest.
fn successor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(key);
        }
    }
    None
}

/// The number before, big-endian; `None` before zero.
fn predecessor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        let (next, borrow) = byte.overflowing_sub(1);
        *byte = next;
        if !borrow {
            return Some(key);
        }
    }
    None
}

/// Attributes of one element list (`enum nft_set_elem_list_attributes`).
pub(crate) mod list {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
}
