//! Tables (`enum nft_table_attributes`).

use crate::types::{Family, flags};
use crate::userdata::Userdata;
use crate::wire::{Attrs, Malformed, Writer};

pub(crate) const NAME: u16 = 1;
const FLAGS: u16 = 2;
const USE: u16 = 3;
pub(crate) const HANDLE: u16 = 4;
const USERDATA: u16 = 6;
const OWNER: u16 = 7;

flags! {
    /// `enum nft_table_flags`.
    TableFlags { DORMANT = 1 "NFT_TABLE_F_DORMANT", OWNER = 2 "NFT_TABLE_F_OWNER", PERSIST = 4 "NFT_TABLE_F_PERSIST" }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Address family.
    pub family: Family,
    /// `NFTA_TABLE_NAME`.
    pub name: String,
    /// `NFTA_TABLE_FLAGS`.
    pub flags: TableFlags,
    /// `NFTA_TABLE_HANDLE`; only from the kernel.
    pub handle: Option<u64>,
    /// `NFTA_TABLE_OWNER`, port id of the owning socket; only from the kernel.
    pub owner: Option<u32>,
    /// `NFTA_TABLE_USE`, how many objects it holds; only from the kernel.
    pub uses: Option<u32>,
    /// `NFTA_TABLE_USERDATA`.
    pub userdata: Userdata,
}

impl Table {
    /// A table without flags or comment.
    #[must_use]
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            flags: TableFlags::default(),
            handle: None,
            owner: None,
            uses: None,
            userdata: Userdata::default(),
        }
    }

    /// With a comment that `nft list` shows.
    #[must_use]
    pub fn with_comment(mut self, text: &str) -> Self {
        self.userdata = Userdata::comment(text);
        self
    }

    /// The comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        self.userdata.read_comment()
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.str(NAME, &self.name);
        w.u32(FLAGS, self.flags.0);
        self.userdata.put(USERDATA, w);
    }

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            family,
            name: attrs.need_str(NAME)?,
            flags: TableFlags(attrs.u32(FLAGS)?.unwrap_or_default()),
            handle: attrs.u64(HANDLE)?,
            owner: attrs.u32(OWNER)?,
            uses: attrs.u32(USE)?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}
