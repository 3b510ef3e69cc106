//! User data: bytes the kernel stores for `nft` without reading them. `nft` keeps comments and byte orders there as
//! type-length-value (`libnftnl/udata.h`); the whole is kept, so that what others wrote survives a round trip.

/// `NFTNL_UDATA_COMMENT_MAXLEN`, with the closing NUL.
const COMMENT_MAX: usize = 128;
/// Comment of a rule, table, chain, object or set element (`NFTNL_UDATA_*_COMMENT`).
const COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`.
const SET_KEY_BYTEORDER: u8 = 0;
/// `NFTNL_UDATA_SET_DATABYTEORDER`.
const SET_DATA_BYTEORDER: u8 = 1;
/// `NFTNL_UDATA_SET_MERGE_ELEMENTS`: `auto-merge`.
const SET_MERGE_ELEMENTS: u8 = 2;
/// `NFTNL_UDATA_SET_DATA_INTERVAL`.
const SET_DATA_INTERVAL: u8 = 6;
/// `NFTNL_UDATA_SET_COMMENT`.
const SET_COMMENT: u8 = 7;

/// The user data of an object, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Userdata(pub Vec<u8>);

impl Userdata {
    /// A comment as `nft` writes it for everything but sets.
    #[must_use]
    pub fn comment(text: &str) -> Self {
        let mut data = Self::default();
        data.push_comment(COMMENT, text);
        data
    }

    /// The byte orders (and comment) of a set, without which `nft list` misprints host-order keys.
    pub(crate) fn set(key_order: u32, data_order: Option<u32>) -> Self {
        let mut data = Self::default();
        data.push(SET_KEY_BYTEORDER, &key_order.to_ne_bytes());
        if let Some(order) = data_order {
            data.push(SET_DATA_BYTEORDER, &order.to_ne_bytes());
            data.push(SET_DATA_INTERVAL, &0u32.to_ne_bytes());
        }
        data
    }

    pub(crate) fn push_set_comment(&mut self, text: &str) {
        self.push_comment(SET_COMMENT, text);
    }

    pub(crate) fn push_auto_merge(&mut self) {
        self.push(SET_MERGE_ELEMENTS, &1u32.to_ne_bytes());
    }

    /// Comments longer than `nft` allows (127 bytes) are cut at a character boundary.
    fn push_comment(&mut self, kind: u8, text: &str) {
        let end = (0..=text.len().min(COMMENT_MAX - 1))
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        let mut bytes = text.as_bytes()[..end].to_vec();
        bytes.push(0);
        self.push(kind, &bytes);
    }

    fn push(&mut self, kind: u8, value: &[u8]) {
        let len = u8::try_from(value.len()).expect("values are at most COMMENT_MAX long");
        self.0.extend_from_slice(&[kind, len]);
        self.0.extend_from_slice(value);
    }

    /// The comment of a rule, table, chain, object or set element.
    #[must_use]
    pub fn read_comment(&self) -> Option<String> {
        self.read_text(COMMENT)
    }

    pub(crate) fn read_set_comment(&self) -> Option<String> {
        self.read_text(SET_COMMENT)
    }

    fn read_text(&self, kind: u8) -> Option<String> {
        crate::wire::text(self.find(kind)?).ok()
    }

    fn find(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = self.0.as_slice();
        while let Some((&[found, len], tail)) = rest.split_first_chunk::<2>() {
            let value = tail.get(..usize::from(len))?;
            if found == kind {
                return Some(value);
            }
            rest = tail.get(usize::from(len)..)?;
        }
        None
    }

    pub(crate) fn put(&self, id: u16, w: &mut crate::wire::Writer) {
        if !self.0.is_empty() {
            w.attr(id, &self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_comments_end_at_a_character() {
        for text in [
            "",
            "short",
            &"x".repeat(500),
            &("x".to_owned() + &"é".repeat(300)),
        ] {
            let read = Userdata::comment(text).read_comment().expect("a comment");
            assert!(
                text.starts_with(&read) && read.len() <= 127 && (read.len() >= 126 || read == text),
                "{read}"
            );
        }
    }
}
