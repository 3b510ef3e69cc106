//! How each kind of expression attribute is written and read; one implementation serves both directions.

use std::num::NonZeroU64;

use super::{Expr, Reg};
#[cfg(test)]
use crate::fuzz::Random;
#[cfg(test)]
use crate::verdict::Verdict;
use crate::verdict::{Data, get_value, put_value};
use crate::wire::{Attrs, Malformed, Writer};

const LIST_ELEM: u16 = 1;
const MISSING: Malformed = Malformed("an attribute is missing");

/// A value that is one attribute of an expression.
pub(crate) trait Field: Sized {
    fn put(&self, id: u16, w: &mut Writer);
    /// `None` if the attribute is absent.
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed>;
    fn get(attrs: &Attrs<'_>, id: u16) -> Result<Self, Malformed> {
        Self::find(attrs, id)?.ok_or(MISSING)
    }
    /// Any value, for tests.
    #[cfg(test)]
    fn any(random: &mut Random) -> Self;
}

impl<T: Field> Field for Option<T> {
    fn put(&self, id: u16, w: &mut Writer) {
        if let Some(value) = self {
            value.put(id, w);
        }
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        T::find(attrs, id).map(Some)
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        random.flip().then(|| T::any(random))
    }
}

macro_rules! numbers {
    ($($t:ident)*) => { $(
        impl Field for $t {
            fn put(&self, id: u16, w: &mut Writer) {
                w.$t(id, *self);
            }
            fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
                attrs.$t(id)
            }
            #[cfg(test)]
            fn any(random: &mut Random) -> Self {
                random.next() as $t
            }
        }
    )* };
}
numbers! { u8 u16 u32 u64 }

/// A number of which the kernel prints zero for "none", but does not take zero.
impl Field for NonZeroU64 {
    fn put(&self, id: u16, w: &mut Writer) {
        w.u64(id, self.get());
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        Ok(attrs.u64(id)?.and_then(Self::new))
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        Self::MIN.saturating_add(random.next())
    }
}

/// Flag bits: absent and zero are the same, and zero is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bits(pub u32);

impl Bits {
    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Bits {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Field for Bits {
    fn put(&self, id: u16, w: &mut Writer) {
        if self.0 != 0 {
            w.u32(id, self.0);
        }
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        Ok(Some(Self(attrs.u32(id)?.unwrap_or_default())))
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        Self(u32::any(random) & 7)
    }
}

/// Bytes stored without a wrapping (`NLA_BINARY`), such as the private data of an xtables match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Raw(pub Vec<u8>);

impl Field for Raw {
    fn put(&self, id: u16, w: &mut Writer) {
        w.attr(id, &self.0);
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        Ok(attrs.get(id).map(|p| Self(p.to_vec())))
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        Self(Vec::any(random))
    }
}

/// A value as it lies in registers (`NFTA_DATA_VALUE`).
impl Field for Vec<u8> {
    fn put(&self, id: u16, w: &mut Writer) {
        put_value(id, self, w);
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        get_value(attrs, id)
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        (0..random.below(40)).map(|_| u8::any(random)).collect()
    }
}

impl Field for String {
    fn put(&self, id: u16, w: &mut Writer) {
        w.str(id, self);
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        attrs.str(id)
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        (0..random.below(20))
            .map(|_| random.pick(&['a', '_', '9', 'é']))
            .collect()
    }
}

impl Field for Reg {
    fn put(&self, id: u16, w: &mut Writer) {
        w.u32(id, self.number());
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        let known = |n| Reg::from_number(n).ok_or(Malformed("no such register"));
        attrs.u32(id)?.map(known).transpose()
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        Self::from_number(u32::any(random) % 5).expect("0 to 4 are registers")
    }
}

impl Field for Data {
    fn put(&self, id: u16, w: &mut Writer) {
        Data::put(self, id, w);
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        attrs.nested(id)?.map(|a| Data::decode(&a)).transpose()
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Value(Vec::any(random)),
            1 => Verdict::Jump(String::any(random)).into(),
            2 => Verdict::Queue(u16::any(random)).into(),
            _ => random
                .pick(&[
                    Verdict::Accept,
                    Verdict::Drop,
                    Verdict::Return,
                    Verdict::Continue,
                ])
                .into(),
        }
    }
}

impl Field for Box<Expr> {
    fn put(&self, id: u16, w: &mut Writer) {
        w.nest(id, |w| self.encode(w));
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        attrs
            .nested(id)?
            .map(|a| Expr::decode(&a).map(Box::new))
            .transpose()
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        Self::new(Expr::any(random))
    }
}

/// A list of expressions; absent and empty are the same.
impl Field for Vec<Expr> {
    fn put(&self, id: u16, w: &mut Writer) {
        if !self.is_empty() {
            put_exprs(id, self, w);
        }
    }
    fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
        get_exprs(attrs, id).map(Some)
    }
    #[cfg(test)]
    fn any(random: &mut Random) -> Self {
        (0..random.below(3)).map(|_| Expr::any(random)).collect()
    }
}

pub(crate) fn put_exprs(id: u16, exprs: &[Expr], w: &mut Writer) {
    w.nest(id, |w| {
        exprs
            .iter()
            .for_each(|expr| w.nest(LIST_ELEM, |w| expr.encode(w)))
    });
}

pub(crate) fn get_exprs(attrs: &Attrs<'_>, id: u16) -> Result<Vec<Expr>, Malformed> {
    attrs.list(id)?.map(|one| Expr::decode(&one?)).collect()
}

/// Defines an enumeration of kernel codes that keeps codes it does not know.
macro_rules! codes {
    ($( $(#[$m:meta])* $name:ident { $( $v:ident = $n:literal ),* $(,)? } )*) => { $(
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( #[doc = concat!("Code ", $n, ".")] $v, )*
            /// A code this crate has no name for.
            Other(u32),
        }
        impl From<u32> for $name {
            fn from(n: u32) -> Self {
                match n { $( $n => Self::$v, )* n => Self::Other(n) }
            }
        }
        impl From<$name> for u32 {
            fn from(v: $name) -> u32 {
                match v { $( $name::$v => $n, )* $name::Other(n) => n }
            }
        }
        impl Field for $name {
            fn put(&self, id: u16, w: &mut Writer) {
                w.u32(id, u32::from(*self));
            }
            fn find(attrs: &Attrs<'_>, id: u16) -> Result<Option<Self>, Malformed> {
                Ok(attrs.u32(id)?.map(Self::from))
            }
            #[cfg(test)]
            fn any(random: &mut $crate::fuzz::Random) -> Self {
                Self::from(u32::any(random) % 40)
            }
        }
    )* };
}
pub(crate) use codes;
