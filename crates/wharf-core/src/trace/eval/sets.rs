//! Finding keys in sets. Large sets are indexed when they are first asked.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::regs::Key;
use crate::trace::ruleset::{Element, Set, Value};

/// Elements up to which looking through them is as good as an index.
const SMALL: usize = 8;

/// A set with its index.
pub(super) struct Indexed<'a> {
    set: &'a Set,
    index: OnceCell<Index<'a>>,
}

struct Index<'a> {
    /// Single keys.
    exact: HashMap<&'a [u8], &'a Element>,
    /// Ranges of plain keys, sorted; they do not overlap.
    ranges: Vec<(&'a [u8], &'a [u8], &'a Element)>,
    /// Ranges of concatenations.
    boxes: Vec<&'a Element>,
}

/// What a set says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// It is not there.
    No,
    /// It is there, with what a map gives.
    Yes(Option<&'a Value>),
    /// It may be each of these, or none of them if `none`.
    Maybe(Vec<Option<&'a Value>>, bool),
}

impl<'a> Indexed<'a> {
    pub fn new(set: &'a Set) -> Self {
        Self {
            set,
            index: OnceCell::new(),
        }
    }

    /// Bytes of a key in registers.
    pub fn key_len(&self) -> usize {
        match self.set.fields.as_slice() {
            [one] => *one as usize,
            many => many
                .iter()
                .map(|f| (*f as usize).next_multiple_of(4))
                .fold(0, usize::saturating_add),
        }
    }

    /// Looks a key up; of those it may be, at most `most` are named.
    pub fn find(&self, key: Key<'_>, most: usize) -> Answer<'a> {
        let sure = if key.known() {
            self.exactly(key)
        } else {
            match self.candidates(key, most) {
                Answer::No => None,
                Answer::Yes(value) => return Answer::Yes(value),
                maybe @ Answer::Maybe(..) => return maybe,
            }
        };
        match (sure, &self.set.default) {
            (Some(element), _) => Answer::Yes(element.value.as_ref()),
            (None, Some(value)) => Answer::Yes(value.as_ref()),
            (None, None) if self.set.partial => Answer::Maybe(vec![None], true),
            (None, None) => Answer::No,
        }
    }

    fn exactly(&self, key: Key<'_>) -> Option<&'a Element> {
        let set: &'a Set = self.set;
        if set.elements.len() <= SMALL {
            return set
                .elements
                .iter()
                .find(|e| self.holds(e, key) == Some(true));
        }
        let index = self.index.get_or_init(|| self.build());
        if let Some(element) = index.exact.get(key.bits) {
            return Some(element);
        }
        let after = index.ranges.partition_point(|(from, ..)| *from <= key.bits);
        let range = after.checked_sub(1).and_then(|i| index.ranges.get(i));
        if let Some((_, to, element)) = range
            && key.bits <= *to
        {
            return Some(element);
        }
        let boxes = index.boxes.iter().copied();
        boxes.into_iter().find(|e| self.holds(e, key) == Some(true))
    }

    fn build(&self) -> Index<'a> {
        let set: &'a Set = self.set;
        let mut index = Index {
            exact: HashMap::with_capacity(set.elements.len()),
            ranges: Vec::new(),
            boxes: Vec::new(),
        };
        for element in &set.elements {
            match &element.to {
                Some(to) if *to != element.from && set.fields.len() == 1 => {
                    index.ranges.push((&element.from, to, element));
                }
                Some(to) if *to != element.from => index.boxes.push(element),
                _ => {
                    index.exact.entry(&element.from).or_insert(element);
                }
            }
        }
        index.ranges.sort_by_key(|(from, ..)| *from);
        index
    }

    /// Whether `element` holds a key.
    fn holds(&self, element: &Element, key: Key<'_>) -> Option<bool> {
        let Some(to) = &element.to else {
            return whole(&element.from, key).and_then(|()| key.equals(&element.from));
        };
        let mut sure = Some(true);
        let mut start = 0;
        for field in &self.set.fields {
            let end = start + *field as usize;
            let (Some(low), Some(high)) = (element.from.get(start..end), to.get(start..end)) else {
                return Some(false);
            };
            match key.part(start, *field as usize).within(low, high) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => sure = None,
            }
            start = end.next_multiple_of(4);
        }
        sure
    }

    fn candidates(&self, key: Key<'_>, most: usize) -> Answer<'a> {
        let set: &'a Set = self.set;
        let mut found = Vec::new();
        for element in &set.elements {
            match self.holds(element, key) {
                Some(true) => return Answer::Yes(element.value.as_ref()),
                Some(false) => {}
                None if found.contains(&element.value.as_ref()) => {}
                None if found.len() < most => found.push(element.value.as_ref()),
                None => {}
            }
        }
        if found.is_empty() {
            return Answer::No;
        }
        if let Some(default) = &set.default {
            found.push(default.as_ref());
        }
        Answer::Maybe(found, set.default.is_none())
    }
}

/// `None` if the key is not as long as the element's.
fn whole(element: &[u8], key: Key<'_>) -> Option<()> {
    (element.len() <= key.bits.len()).then_some(())
}
