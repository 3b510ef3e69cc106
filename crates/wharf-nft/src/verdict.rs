//! Verdicts and data (`enum nft_verdicts`, `NF_*` of `linux/netfilter.h`, `enum nft_data_attributes`).

use crate::wire::{Attrs, Malformed, Writer};

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const NF_QUEUE: i32 = 3;

/// What happens to the packet or the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// `NF_ACCEPT`: done with this base chain.
    Accept,
    /// `NF_DROP`.
    Drop,
    /// `NFT_CONTINUE`: next expression or rule.
    Continue,
    /// `NFT_BREAK`: rest of the rule is skipped.
    Break,
    /// `NFT_RETURN`: back to the caller, or the policy.
    Return,
    /// `NFT_JUMP` to a chain of the same table.
    Jump(String),
    /// `NFT_GOTO` a chain of the same table.
    Goto(String),
    /// `NF_QUEUE` to user space, by queue number.
    Queue(u16),
    /// `NF_STOLEN`, `NF_REPEAT`, `NF_STOP` or something newer.
    Other(i32),
}

impl Verdict {
    /// The kernel's code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Queue(n) => i32::from_ne_bytes((u32::from(*n) << 16).to_ne_bytes()) | NF_QUEUE,
            Self::Continue => -1,
            Self::Break => -2,
            Self::Jump(_) => JUMP,
            Self::Goto(_) => GOTO,
            Self::Return => -5,
            Self::Other(code) => *code,
        }
    }

    /// The verdict for a code that names no chain.
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Drop,
            1 => Self::Accept,
            -1 => Self::Continue,
            -2 => Self::Break,
            -5 => Self::Return,
            code if code & 0xffff == NF_QUEUE => {
                Self::Queue(u16::try_from((code.cast_unsigned()) >> 16).unwrap_or_default())
            }
            code => Self::Other(code),
        }
    }

    pub(crate) fn put(&self, id: u16, w: &mut Writer) {
        w.nest(id, |w| {
            w.u32(VERDICT_CODE, self.code().cast_unsigned());
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                w.str(VERDICT_CHAIN, chain);
            }
        });
    }

    pub(crate) fn decode(attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let code = attrs
            .u32(VERDICT_CODE)?
            .ok_or(Malformed("verdict without code"))?
            .cast_signed();
        Ok(match code {
            JUMP => Self::Jump(attrs.need_str(VERDICT_CHAIN)?),
            GOTO => Self::Goto(attrs.need_str(VERDICT_CHAIN)?),
            code => Self::from_code(code),
        })
    }
}

/// A value or a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Data {
    /// Bytes as they lie in registers.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

impl Data {
    pub(crate) fn put(&self, id: u16, w: &mut Writer) {
        w.nest(id, |w| match self {
            Self::Value(bytes) => w.attr(DATA_VALUE, bytes),
            Self::Verdict(verdict) => verdict.put(DATA_VERDICT, w),
        });
    }

    pub(crate) fn decode(attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        if let Some(value) = attrs.get(DATA_VALUE) {
            return Ok(Self::Value(value.to_vec()));
        }
        let verdict = attrs
            .nested(DATA_VERDICT)?
            .ok_or(Malformed("data without value"))?;
        Verdict::decode(&verdict).map(Self::Verdict)
    }
}

impl From<Verdict> for Data {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Value(bytes)
    }
}

/// Writes bytes as `NFTA_DATA_VALUE` inside attribute `id`.
pub(crate) fn put_value(id: u16, bytes: &[u8], w: &mut Writer) {
    w.nest(id, |w| w.attr(DATA_VALUE, bytes));
}

pub(crate) fn get_value(attrs: &Attrs<'_>, id: u16) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(nested) = attrs.nested(id)? else {
        return Ok(None);
    };
    let value = nested
        .get(DATA_VALUE)
        .ok_or(Malformed("data without value"))?;
    Ok(Some(value.to_vec()))
}
