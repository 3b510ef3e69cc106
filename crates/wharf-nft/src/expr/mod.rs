//! Expressions: the instructions a rule consists of (`enum nft_expr_attributes` and the enumerations named at each).
//!
//! Every expression is one table line per attribute, from which both directions are made, so that they cannot differ.
//! An expression with an attribute that is not in its table stays [`Expr::Unknown`]: rather that than a wrong reading.

mod codes;
mod defs;
mod field;
mod make;
mod reg;

pub use codes::*;
pub use defs::*;
pub use field::{Bits, Raw};
pub(crate) use field::{Field, codes, get_exprs, put_exprs};
pub use reg::Reg;

pub(crate) const EXPR_NAME: u16 = 1;
pub(crate) const EXPR_DATA: u16 = 2;

impl Expr {
    /// Writes `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(crate) fn encode(&self, w: &mut crate::wire::Writer) {
        w.str(EXPR_NAME, self.name());
        if let Self::Unknown { raw: None, .. } | Self::Notrack(_) = self {
            return;
        }
        w.nest(EXPR_DATA, |w| self.encode_data(w));
    }

    /// Reads one expression. Fails only if the name is missing.
    pub(crate) fn decode(attrs: &crate::wire::Attrs<'_>) -> Result<Self, crate::wire::Malformed> {
        let name = attrs.name(EXPR_NAME)?;
        let raw = attrs.get(EXPR_DATA);
        let data = attrs.deeper(raw.unwrap_or_default());
        Ok(match data.and_then(|data| Self::decode_data(name, &data)) {
            Ok(Some(expr)) => expr,
            Ok(None) | Err(_) => Self::Unknown {
                name: name.to_owned(),
                raw: raw.map(<[u8]>::to_vec),
            },
        })
    }
}
