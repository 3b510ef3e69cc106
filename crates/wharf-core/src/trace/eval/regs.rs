//! Registers: 64 bytes, of which some bits may not be known. A comparison gives `None` where those matter.

use std::ops::Range;

use crate::trace::ruleset::{Cmp, RegByte};

const SIZE: usize = 64;

/// The registers of one packet's evaluation.
#[derive(Debug, Clone)]
pub(super) struct Regs {
    /// Values; zero where not known.
    bits: [u8; SIZE],
    /// Bits that are not known.
    dark: [u8; SIZE],
    /// Bytes, by bit, that are not known because nobody can foretell them.
    random: u64,
}

impl Default for Regs {
    fn default() -> Self {
        Self {
            bits: [0; SIZE],
            dark: [0xff; SIZE],
            random: 0,
        }
    }
}

/// What stands in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub bits: &'a [u8],
    pub dark: &'a [u8],
    /// What is not known of it is random.
    pub random: bool,
}

impl Key<'_> {
    /// Whether it is wholly known.
    pub fn known(&self) -> bool {
        self.dark.iter().all(|d| *d == 0)
    }

    /// Whether it is `data`.
    pub fn equals(&self, data: &[u8]) -> Option<bool> {
        let mut sure = true;
        for ((bits, dark), want) in self.bits.iter().zip(self.dark).zip(data) {
            if (bits ^ want) & !dark != 0 {
                return Some(false);
            }
            sure &= *dark == 0;
        }
        (sure && self.bits.len() >= data.len()).then_some(true)
    }

    /// Whether it is between `from` and `to`, both included, as big-endian numbers.
    pub fn within(&self, from: &[u8], to: &[u8]) -> Option<bool> {
        if self.bits.len() < from.len() {
            return None;
        }
        let high = || self.bits.iter().zip(self.dark).map(|(b, d)| b | d);
        let low = || self.bits.iter().copied();
        let (from, to) = (|| from.iter().copied(), || to.iter().copied());
        if high().lt(from()) || low().gt(to()) {
            return Some(false);
        }
        (low().ge(from()) && high().le(to())).then_some(true)
    }

    /// A part; what is beyond is not there.
    pub fn part(&self, start: usize, len: usize) -> Key<'_> {
        let end = (start + len).min(self.bits.len());
        let start = start.min(end);
        Key {
            bits: &self.bits[start..end],
            dark: &self.dark[start..end],
            random: self.random,
        }
    }
}

fn span(reg: RegByte, len: usize) -> Range<usize> {
    let start = usize::from(reg).min(SIZE);
    start..start.saturating_add(len).min(SIZE)
}

fn bytes_mask(span: Range<usize>) -> u64 {
    span.fold(0, |mask, i| mask | 1 << i)
}

impl Regs {
    /// Stores known bytes, zeros up to a multiple of four, as the kernel does.
    pub fn store(&mut self, reg: RegByte, bytes: &[u8]) {
        self.store_partly(reg, bytes, &[]);
    }

    /// Stores bytes of which the bits of `dark` are not known; a missing mask is zero.
    pub fn store_partly(&mut self, reg: RegByte, bytes: &[u8], dark: &[u8]) {
        let span = span(reg, bytes.len().next_multiple_of(4));
        self.random &= !bytes_mask(span.clone());
        for (i, at) in span.enumerate() {
            self.dark[at] = dark.get(i).copied().unwrap_or(0);
            self.bits[at] = bytes.get(i).copied().unwrap_or(0) & !self.dark[at];
        }
    }

    /// Bytes that are not known. As where they are, the rest of the last register is zero.
    pub fn forget(&mut self, reg: RegByte, len: usize, random: bool) {
        self.store_partly(reg, &vec![0; len], &[]);
        let span = span(reg, len);
        let mask = bytes_mask(span.clone());
        self.random = if random {
            self.random | mask
        } else {
            self.random & !mask
        };
        self.bits[span.clone()].fill(0);
        self.dark[span].fill(0xff);
    }

    /// What stands there; shorter where the registers end.
    pub fn key(&self, reg: RegByte, len: usize) -> Key<'_> {
        let span = span(reg, len);
        Key {
            bits: &self.bits[span.clone()],
            dark: &self.dark[span.clone()],
            random: self.random & bytes_mask(span) != 0,
        }
    }

    /// A comparison.
    pub fn cmp(&self, reg: RegByte, op: Cmp, data: &[u8]) -> Option<bool> {
        let key = self.key(reg, data.len());
        if key.bits.len() < data.len() {
            return None;
        }
        let most = vec![0xff; data.len()];
        let least = vec![0; data.len()];
        match op {
            Cmp::Eq => key.equals(data),
            Cmp::Ne => key.equals(data).map(|e| !e),
            Cmp::Le => key.within(&least, data),
            Cmp::Gt => key.within(&least, data).map(|e| !e),
            Cmp::Ge => key.within(data, &most),
            Cmp::Lt => key.within(data, &most).map(|e| !e),
        }
    }

    /// Whether what stands in `sreg` is random.
    fn copy(&self, sreg: RegByte, len: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let key = self.key(sreg, len);
        (key.bits.to_vec(), key.dark.to_vec(), key.random)
    }

    fn put(&mut self, dreg: RegByte, bits: &[u8], dark: &[u8], random: bool) {
        self.store_partly(dreg, bits, dark);
        if random {
            self.random |= bytes_mask(span(dreg, bits.len()));
        }
    }

    /// `dreg = (sreg & mask) ^ xor`.
    pub fn bitwise(&mut self, sreg: RegByte, dreg: RegByte, mask: &[u8], xor: &[u8]) {
        let (mut bits, mut dark, random) = self.copy(sreg, mask.len());
        for (i, (b, d)) in bits.iter_mut().zip(&mut dark).enumerate() {
            *d &= mask[i];
            *b = (*b & mask[i]) ^ (xor.get(i).copied().unwrap_or(0) & !*d);
        }
        self.put(dreg, &bits, &dark, random);
    }

    /// Shifts by `by` bits, to the left if positive, words of four bytes in host order with carry, as the kernel does.
    pub fn shift(&mut self, sreg: RegByte, dreg: RegByte, len: usize, by: i32) {
        let (bits, dark, random) = self.copy(sreg, len.next_multiple_of(4));
        let (bits, dark) = (shifted(&bits, by), shifted(&dark, by));
        self.put(dreg, &bits, &dark, random);
    }

    /// Turns the bytes of words of `size` round, on a little-endian host.
    pub fn byteorder(&mut self, sreg: RegByte, dreg: RegByte, len: usize, size: usize) {
        let (mut bits, mut dark, random) = self.copy(sreg, len);
        if cfg!(target_endian = "little") && size > 0 {
            bits.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            dark.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        self.put(dreg, &bits, &dark, random);
    }
}

fn shifted(bytes: &[u8], by: i32) -> Vec<u8> {
    let word = |c: &[u8]| c.try_into().map_or(0, u32::from_ne_bytes);
    let mut words: Vec<u32> = bytes.chunks(4).map(word).collect();
    let count = by.unsigned_abs().min(31);
    if count > 0 {
        let mut carry = 0;
        if by > 0 {
            for w in words.iter_mut().rev() {
                (*w, carry) = ((*w << count) | carry, *w >> (32 - count));
            }
        } else {
            for w in &mut words {
                (*w, carry) = ((*w >> count) | carry, *w << (32 - count));
            }
        }
    }
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_decides_nothing_unless_the_rest_does() {
        let mut regs = Regs::default();
        assert_eq!(regs.cmp(0, Cmp::Eq, &[1]), None, "nothing was loaded");
        regs.store_partly(0, &[0x10, 0x20, 0, 0], &[0, 0x0f, 0, 0]);
        assert_eq!(regs.cmp(0, Cmp::Eq, &[0x10, 0x21]), None);
        assert_eq!(regs.cmp(0, Cmp::Eq, &[0x11, 0x21]), Some(false));
        assert_eq!(regs.cmp(0, Cmp::Ne, &[0x10, 0x30]), Some(true));
        assert_eq!(regs.cmp(0, Cmp::Lt, &[0x10, 0x30]), Some(true));
        assert_eq!(regs.cmp(0, Cmp::Ge, &[0x10, 0x20]), Some(true));
        assert_eq!(regs.cmp(0, Cmp::Gt, &[0x10, 0x20]), None);
        assert_eq!(regs.cmp(0, Cmp::Le, &[0x10, 0x2f]), Some(true));
        regs.bitwise(0, 0, &[0xff, 0xf0, 0, 0], &[0, 1, 0, 0]);
        assert_eq!(regs.cmp(0, Cmp::Eq, &[0x10, 0x21]), Some(true));
        assert_eq!(regs.cmp(62, Cmp::Eq, &[0; 8]), None, "beyond the end");
    }

    #[test]
    fn words_are_shifted_and_turned() {
        let mut regs = Regs::default();
        regs.store(0, &0x0102_0304_u32.to_ne_bytes());
        regs.shift(0, 4, 4, 8);
        assert_eq!(
            regs.cmp(4, Cmp::Eq, &0x0203_0400_u32.to_ne_bytes()),
            Some(true)
        );
        regs.shift(0, 4, 4, -16);
        assert_eq!(regs.cmp(4, Cmp::Eq, &0x0102_u32.to_ne_bytes()), Some(true));
        regs.byteorder(0, 8, 4, 4);
        assert_eq!(regs.cmp(8, Cmp::Eq, &[1, 2, 3, 4]), Some(true));
        regs.store(12, &[1, 2, 3, 4]);
        regs.byteorder(12, 12, 4, 2);
        let turned = if cfg!(target_endian = "little") {
            [2, 1, 4, 3]
        } else {
            [1, 2, 3, 4]
        };
        assert_eq!(regs.cmp(12, Cmp::Eq, &turned), Some(true));
    }

    #[test]
    fn random_stays_random_until_overwritten() {
        let mut regs = Regs::default();
        regs.forget(0, 4, true);
        assert!(regs.key(0, 4).random);
        regs.byteorder(0, 4, 4, 4);
        assert!(regs.key(4, 4).random);
        regs.store(0, &[1]);
        assert!(!regs.key(0, 4).random);
        assert!(regs.key(0, 4).known(), "padded with zeros");
    }
}
