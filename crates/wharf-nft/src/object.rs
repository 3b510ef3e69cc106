//! Stateful objects (`enum nft_object_attributes`).

use crate::expr::{Expr, Field, codes};
use crate::types::Family;
use crate::userdata::Userdata;
use crate::wire::{Attrs, Malformed, Writer};

pub(crate) const TABLE: u16 = 1;
pub(crate) const NAME: u16 = 2;
pub(crate) const TYPE: u16 = 3;
const DATA: u16 = 4;
pub(crate) const HANDLE: u16 = 6;
const USERDATA: u16 = 8;

codes! {
    /// `NFT_OBJECT_*`.
    ObjectKind {
        Counter = 1, Quota = 2, CtHelper = 3, Limit = 4, Connlimit = 5, Tunnel = 6, CtTimeout = 7, SecMark = 8,
        CtExpect = 9, Synproxy = 10,
    }
}

impl ObjectKind {
    /// The name of the expression with the same attributes, or a name no expression has.
    fn expr_name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Quota => "quota",
            Self::Limit => "limit",
            Self::Connlimit => "connlimit",
            Self::Synproxy => "synproxy",
            _ => "object",
        }
    }
}

/// A named counter, quota, limit or the like. Its data has the attributes of the expression of that name; other kinds
/// keep theirs as [`Expr::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Address family.
    pub family: Family,
    /// `NFTA_OBJ_TABLE`.
    pub table: String,
    /// `NFTA_OBJ_NAME`.
    pub name: String,
    /// `NFTA_OBJ_TYPE`.
    pub kind: ObjectKind,
    /// `NFTA_OBJ_DATA`.
    pub data: Expr,
    /// `NFTA_OBJ_HANDLE`; only from the kernel.
    pub handle: Option<u64>,
    /// `NFTA_OBJ_USERDATA`.
    pub userdata: Userdata,
}

impl Object {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.str(TABLE, &self.table);
        w.str(NAME, &self.name);
        w.u32(TYPE, self.kind.into());
        w.nest(DATA, |w| self.data.encode_data(w));
        self.userdata.put(USERDATA, w);
    }

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let kind = ObjectKind::from(attrs.u32(TYPE)?.ok_or(Malformed("object without type"))?);
        let name = kind.expr_name();
        let raw = attrs.get(DATA).unwrap_or_default();
        let data = match attrs
            .deeper(raw)
            .and_then(|data| Expr::decode_data(name, &data))
        {
            Ok(Some(expr)) => expr,
            Ok(None) | Err(_) => Expr::Unknown {
                name: name.to_owned(),
                raw: Some(raw.to_vec()),
            },
        };
        Ok(Self {
            family,
            table: attrs.need_str(TABLE)?,
            name: attrs.need_str(NAME)?,
            kind,
            data,
            handle: attrs.u64(HANDLE)?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}
