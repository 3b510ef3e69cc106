//! Sets and maps, and the types of their keys (`enum nft_set_attributes`; type numbers from nft's `datatype.h`).

use crate::expr::Expr;
use crate::types::{Family, flags};
use crate::userdata::Userdata;

flags! {
    /// `enum nft_set_flags`.
    SetFlags {
        ANONYMOUS = 0x1 "NFT_SET_ANONYMOUS", CONSTANT = 0x2 "NFT_SET_CONSTANT", INTERVAL = 0x4 "NFT_SET_INTERVAL",
        MAP = 0x8 "NFT_SET_MAP", TIMEOUT = 0x10 "NFT_SET_TIMEOUT", EVAL = 0x20 "NFT_SET_EVAL",
        OBJECT = 0x40 "NFT_SET_OBJECT", CONCAT = 0x80 "NFT_SET_CONCAT", EXPR = 0x100 "NFT_SET_EXPR",
    }
}

/// Bits per type in the number of a concatenation (`TYPE_BITS`).
const TYPE_BITS: u32 = 6;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;

/// In which order the bytes of a value lie (`enum byteorder` of nft).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Mixed = 0,
    Host = 1,
    Network = 2,
}

/// The type of a key or of map data. The kernel needs only the length; the number is for `nft list`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataType {
    id: u32,
    order: Order,
    /// Length of each field, unpadded.
    fields: Vec<u8>,
}

macro_rules! data_types {
    ($( $(#[$m:meta])* $name:ident = $id:literal $order:ident $len:literal; )*) => { $(
        $(#[$m])*
        #[must_use]
        pub fn $name() -> Self {
            Self { id: $id, order: Order::$order, fields: vec![$len] }
        }
    )* };
}

impl DataType {
    data_types! {
        /// `ipv4_addr`, 4 bytes.
        ipv4_addr = 7 Network 4;
        /// `ipv6_addr`, 16 bytes.
        ipv6_addr = 8 Network 16;
        /// `ether_addr`, 6 bytes.
        ether_addr = 9 Network 6;
        /// `inet_proto`, 1 byte.
        inet_proto = 12 Network 1;
        /// `inet_service`, a port, 2 bytes.
        inet_service = 13 Network 2;
        /// `mark`, 4 bytes in host order.
        mark = 19 Host 4;
        /// `iface_index`, 4 bytes in host order.
        iface_index = 20 Host 4;
        /// `ifname`, 16 bytes, padded with NUL.
        ifname = 41 Host 16;
        /// `ether_type`, 2 bytes.
        ether_type = 10 Network 2;
        /// `ct_state`, 4 bytes in host order.
        ct_state = 26 Host 4;
        /// `nf_proto`, 1 byte.
        nf_proto = 2 Host 1;
    }

    /// `verdict`, data of a verdict map.
    #[must_use]
    pub fn verdict() -> Self {
        Self {
            id: VERDICT,
            order: Order::Mixed,
            fields: vec![0],
        }
    }

    /// A concatenation, such as `inet_proto . inet_service`: each field padded to 4 bytes in keys.
    #[must_use]
    pub fn concat(types: &[Self]) -> Self {
        let id = types.iter().fold(0, |id, t| (id << TYPE_BITS) | t.id);
        let fields = types
            .iter()
            .flat_map(|t| t.fields.iter().copied())
            .collect();
        Self {
            id,
            order: Order::Mixed,
            fields,
        }
    }

    /// nft's type number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Unpadded length of each field.
    #[must_use]
    pub fn field_lens(&self) -> &[u8] {
        &self.fields
    }

    /// Length of a key: that of a single field, or of all padded fields of a concatenation.
    #[must_use]
    pub fn key_len(&self) -> u32 {
        match self.fields.as_slice() {
            [one] => u32::from(*one),
            many => many
                .iter()
                .map(|len| u32::from(*len).next_multiple_of(4))
                .sum(),
        }
    }
}

/// How a set holds ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntervalStyle {
    /// It holds none.
    None,
    /// One element starts the range, another one past its end ends it (`NFT_SET_ELEM_INTERVAL_END`).
    EndElement,
    /// One element with both ends included (`NFTA_SET_ELEM_KEY_END`).
    KeyEnd,
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Address family.
    pub family: Family,
    /// `NFTA_SET_TABLE`.
    pub table: String,
    /// `NFTA_SET_NAME`.
    pub name: String,
    /// `NFTA_SET_FLAGS`.
    pub flags: SetFlags,
    /// `NFTA_SET_KEY_TYPE`, see [`DataType::id`].
    pub key_type: u32,
    /// `NFTA_SET_KEY_LEN`.
    pub key_len: u32,
    /// `NFTA_SET_DESC_CONCAT`: unpadded lengths of the fields of a key; only for interval concatenations.
    pub fields: Vec<u32>,
    /// `NFTA_SET_DATA_TYPE`, if this is a map.
    pub data_type: Option<u32>,
    /// `NFTA_SET_DATA_LEN`, if this is a map of values.
    pub data_len: Option<u32>,
    /// `NFTA_SET_OBJ_TYPE`, if this is a map to objects.
    pub object_type: Option<u32>,
    /// `NFTA_SET_POLICY`: 1 for low memory use.
    pub policy: Option<u32>,
    /// `NFTA_SET_DESC_SIZE`: most elements it may have.
    pub size: Option<u32>,
    /// `NFTA_SET_TIMEOUT` of elements without their own, in milliseconds.
    pub timeout: Option<u64>,
    /// `NFTA_SET_GC_INTERVAL` in milliseconds.
    pub gc_interval: Option<u32>,
    /// `NFTA_SET_EXPR`, `NFTA_SET_EXPRESSIONS`: given to each new element.
    pub exprs: Vec<Expr>,
    /// `NFTA_SET_HANDLE`; only from the kernel.
    pub handle: Option<u64>,
    /// `NFTA_SET_USERDATA`.
    pub userdata: Userdata,
}

impl Set {
    /// A set of `key`s.
    #[must_use]
    pub fn new(
        family: Family,
        table: impl Into<String>,
        name: impl Into<String>,
        key: &DataType,
    ) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            flags: SetFlags::default(),
            key_type: key.id,
            key_len: key.key_len(),
            fields: key.concat_fields(),
            data_type: None,
            data_len: None,
            object_type: None,
            policy: None,
            size: None,
            timeout: None,
            gc_interval: None,
            exprs: Vec::new(),
            handle: None,
            userdata: Userdata::set(key.order as u32, None),
        }
    }

    /// A map from `key` to `data` ([`DataType::verdict`] for a verdict map).
    #[must_use]
    pub fn map(
        family: Family,
        table: impl Into<String>,
        name: impl Into<String>,
        key: &DataType,
        data: &DataType,
    ) -> Self {
        let set = Self::new(family, table, name, key);
        Self {
            flags: SetFlags::MAP,
            data_type: Some(data.id),
            data_len: Some(data.key_len()),
            userdata: Userdata::set(key.order as u32, Some(data.order as u32)),
            ..set
        }
    }

    /// With ranges. A concatenation then also gets `NFT_SET_CONCAT`.
    #[must_use]
    pub fn with_intervals(mut self) -> Self {
        self.flags |= SetFlags::INTERVAL;
        if !self.fields.is_empty() {
            self.flags |= SetFlags::CONCAT;
        }
        self
    }

    /// With further flags.
    #[must_use]
    pub fn with_flags(mut self, flags: SetFlags) -> Self {
        self.flags |= flags;
        self
    }

    /// With `auto-merge`, which only `nft` acts on.
    #[must_use]
    pub fn with_auto_merge(mut self) -> Self {
        self.userdata.push_auto_merge();
        self
    }

    /// With a comment that `nft list` shows.
    #[must_use]
    pub fn with_comment(mut self, text: &str) -> Self {
        self.userdata.push_set_comment(text);
        self
    }

    /// The comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        self.userdata.read_set_comment()
    }

    /// How this set holds ranges.
    #[must_use]
    pub fn interval_style(&self) -> IntervalStyle {
        match (
            self.flags.has(SetFlags::INTERVAL),
            self.flags.has(SetFlags::CONCAT),
        ) {
            (false, _) => IntervalStyle::None,
            (true, false) => IntervalStyle::EndElement,
            (true, true) => IntervalStyle::KeyEnd,
        }
    }

    /// Whether this is a verdict map.
    #[must_use]
    pub fn is_verdict_map(&self) -> bool {
        self.data_type == Some(VERDICT)
    }
}

impl DataType {
    /// Field lengths for `NFTA_SET_DESC_CONCAT`; none for a single field.
    fn concat_fields(&self) -> Vec<u32> {
        match self.fields.len() {
            0 | 1 => Vec::new(),
            _ => self.fields.iter().map(|len| u32::from(*len)).collect(),
        }
    }
}
