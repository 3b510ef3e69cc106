//! Registers (`enum nft_registers`).

/// A register. The four 16-byte registers and the sixteen 4-byte ones are the same memory: `NFT_REG_1` begins where
/// `NFT_REG32_00` does. A register is therefore kept as the index of its first 4-byte slot, and written the way the
/// kernel prints it (16-byte name where one begins there). Equality is equality of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(u8);

const VERDICT_SLOT: u8 = 0xff;
const SLOTS: u8 = 16;

impl Reg {
    /// `NFT_REG_VERDICT`: a verdict put here ends the rule.
    pub const VERDICT: Self = Self(VERDICT_SLOT);
    /// `NFT_REG_1`, slots 0 to 3.
    pub const R1: Self = Self(0);
    /// `NFT_REG_2`, slots 4 to 7.
    pub const R2: Self = Self(4);
    /// `NFT_REG_3`, slots 8 to 11.
    pub const R3: Self = Self(8);
    /// `NFT_REG_4`, slots 12 to 15.
    pub const R4: Self = Self(12);

    /// `NFT_REG32_00` to `NFT_REG32_15`; `None` beyond.
    #[must_use]
    pub const fn slot(index: u8) -> Option<Self> {
        if index < SLOTS {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The 4-byte slot `bytes` further on, for the next field of a concatenation; fields start at multiples of 4.
    #[must_use]
    pub const fn after(self, bytes: u8) -> Option<Self> {
        if self.0 == VERDICT_SLOT {
            None
        } else {
            Self::slot(self.0.saturating_add(bytes.div_ceil(4)))
        }
    }

    /// Index of the first 4-byte slot; `None` for the verdict register.
    #[must_use]
    pub const fn index(self) -> Option<u8> {
        if self.0 == VERDICT_SLOT {
            None
        } else {
            Some(self.0)
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self.0 {
            VERDICT_SLOT => 0,
            slot if slot % 4 == 0 => 1 + slot as u32 / 4,
            slot => 8 + slot as u32,
        }
    }

    /// The register with the kernel's number `n`.
    #[must_use]
    pub const fn from_number(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::VERDICT),
            1 => Some(Self::R1),
            2 => Some(Self::R2),
            3 => Some(Self::R3),
            4 => Some(Self::R4),
            8..24 => Some(Self((n - 8) as u8)),
            _ => None,
        }
    }
}
