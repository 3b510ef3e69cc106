//! Rules (`enum nft_rule_attributes`).

use crate::expr::{CmpOp, Expr, Meta, MetaKey, Payload, PayloadBase, get_exprs, put_exprs};
use crate::types::Family;
use crate::userdata::Userdata;
use crate::wire::{Attrs, Malformed, Writer};

pub(crate) const TABLE: u16 = 1;
pub(crate) const CHAIN: u16 = 2;
pub(crate) const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
const COMPAT: u16 = 5;
const POSITION: u16 = 6;
const USERDATA: u16 = 7;
const COMPAT_PROTO: u16 = 1;
const COMPAT_FLAGS: u16 = 2;
/// `NFT_RULE_COMPAT_F_INV`.
const COMPAT_INVERT: u32 = 2;

/// The protocol an xtables rule is about (`enum nft_rule_compat_attributes`): some matches insist on it. The kernel
/// takes it but does not give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compat {
    /// `NFTA_RULE_COMPAT_PROTO`.
    pub proto: u32,
    /// `NFTA_RULE_COMPAT_FLAGS`.
    pub flags: u32,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// `NFTA_RULE_TABLE`.
    pub table: String,
    /// `NFTA_RULE_CHAIN`.
    pub chain: String,
    /// `NFTA_RULE_EXPRESSIONS`.
    pub exprs: Vec<Expr>,
    /// `NFTA_RULE_HANDLE`; only from the kernel.
    pub handle: Option<u64>,
    /// `NFTA_RULE_POSITION`: handle of the rule after which to add or before which to insert; from the kernel, the
    /// handle of the rule before.
    pub position: Option<u64>,
    /// `NFTA_RULE_COMPAT`.
    pub compat: Option<Compat>,
    /// `NFTA_RULE_USERDATA`.
    pub userdata: Userdata,
}

impl Rule {
    /// A rule without comment.
    #[must_use]
    pub fn new(
        family: Family,
        table: impl Into<String>,
        chain: impl Into<String>,
        exprs: Vec<Expr>,
    ) -> Self {
        Self {
            family,
            table: table.into(),
            chain: chain.into(),
            exprs,
            handle: None,
            position: None,
            compat: None,
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

    /// The protocol for which xtables matches and targets of this rule are checked, as the rule itself tests it:
    /// `meta l4proto`, or the protocol field of IPv4. For writing a rule again that was read from the kernel, which
    /// does not give [`Rule::compat`] back.
    #[must_use]
    pub fn infer_compat(&self) -> Option<Compat> {
        if self.compat.is_some()
            || !self
                .exprs
                .iter()
                .any(|e| matches!(e, Expr::Match(_) | Expr::Target(_)))
        {
            return self.compat;
        }
        let proto = self.exprs.windows(2).find_map(|pair| match pair {
            [
                Expr::Meta(Meta {
                    key: MetaKey::L4Proto,
                    ..
                }),
                Expr::Cmp(cmp),
            ] => Some(cmp),
            [
                Expr::Payload(Payload {
                    base: PayloadBase::Network,
                    offset: 9,
                    len: 1,
                    ..
                }),
                Expr::Cmp(cmp),
            ] if self.family == Family::Ip => Some(cmp),
            _ => None,
        })?;
        let flags = if proto.op == CmpOp::Neq {
            COMPAT_INVERT
        } else {
            0
        };
        Some(Compat {
            proto: u32::from(*proto.data.first()?),
            flags,
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.str(TABLE, &self.table);
        w.str(CHAIN, &self.chain);
        put_exprs(EXPRESSIONS, &self.exprs, w);
        if let Some(compat) = self.compat {
            w.nest(COMPAT, |w| {
                w.u32(COMPAT_PROTO, compat.proto);
                w.u32(COMPAT_FLAGS, compat.flags);
            });
        }
        if let Some(position) = self.position {
            w.u64(POSITION, position);
        }
        self.userdata.put(USERDATA, w);
    }

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let compat = attrs.nested(COMPAT)?.map(|c| -> Result<_, Malformed> {
            Ok(Compat {
                proto: c.u32(COMPAT_PROTO)?.unwrap_or_default(),
                flags: c.u32(COMPAT_FLAGS)?.unwrap_or_default(),
            })
        });
        Ok(Self {
            family,
            table: attrs.need_str(TABLE)?,
            chain: attrs.need_str(CHAIN)?,
            exprs: get_exprs(attrs, EXPRESSIONS)?,
            handle: attrs.u64(HANDLE)?,
            position: attrs.u64(POSITION)?,
            compat: compat.transpose()?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}
