//! One instruction.

use super::bytes::Found;
use super::doubt::Kind;
use super::machine::{Fate, Machine, Step, World, verdict_step};
use super::sets::Answer;
use crate::trace::env::Ending;
use crate::trace::packet::L4;
use crate::trace::ruleset::{Ct, Expr, Header, Meta, RegByte};

/// Values of a map that are tried where the key is not known.
const VALUES: usize = 32;

/// A test: what follows if it holds, does not, or cannot be decided. Then it is taken not to hold.
pub(super) fn test<'a>(holds: Option<bool>) -> Step<'a> {
    match holds {
        Some(true) => Step::Go,
        Some(false) => Step::Break,
        None => Step::Doubt {
            kind: Kind::Unread,
            first: Fate::Fails,
            others: vec![Fate::Holds],
        },
    }
}

/// A test that depends on other packets, and what is taken for one that comes alone.
pub(super) fn limit<'a>(holds: bool) -> Step<'a> {
    let (first, other) = if holds {
        (Fate::Holds, Fate::Fails)
    } else {
        (Fate::Fails, Fate::Holds)
    };
    Step::Doubt {
        kind: Kind::Limit,
        first,
        others: vec![other],
    }
}

impl<'a> Machine<'a> {
    /// Runs one instruction.
    pub fn eval(&mut self, world: &World<'_, 'a>, expr: &'a Expr) -> Step<'a> {
        match expr {
            Expr::Cmp { sreg, op, data } => {
                self.doubtful(*sreg, data.len(), |m| m.regs.cmp(*sreg, *op, data))
            }
            Expr::Range {
                sreg,
                outside,
                from,
                to,
            } => self.doubtful(*sreg, from.len(), |m| {
                let inside = m.regs.key(*sreg, from.len()).within(from, to);
                inside.map(|i| i != *outside)
            }),
            Expr::Lookup {
                set,
                sreg,
                dreg,
                invert,
                verdict,
            } => self.lookup(world, set, *sreg, *dreg, *invert, *verdict),
            Expr::Verdict(verdict) => verdict_step(verdict, world),
            // What is no TCP packet cannot be reset, and vanishes.
            Expr::Reject { reset: true } if self.packet.l4 != L4::Tcp => Step::End(Ending::Drop),
            Expr::Reject { .. } => Step::End(Ending::Reject),
            Expr::Nat { kind, addr, port } => {
                self.translate(world, kind, addr.as_ref(), port.as_ref())
            }
            Expr::Tproxy { port, drops } => match self.has_proxy(world, port.as_ref()) {
                Some(false) if *drops => Step::End(Ending::Drop),
                Some(false) => Step::Break,
                _ => Step::End(Ending::Unknown),
            },
            Expr::Maybe(_) => limit(true),
            Expr::Unlikely(_) => limit(false),
            Expr::Nothing => Step::Go,
            Expr::Opaque(_) => test(None),
            Expr::Match { test, invert } => self.matches(world, test, *invert),
            Expr::MetaSet { .. }
            | Expr::PayloadSet { .. }
            | Expr::CtSet { .. }
            | Expr::Notrack
            | Expr::SetMark { .. }
            | Expr::SetConnmark { .. } => {
                self.set(world, expr);
                Step::Go
            }
            _ => self.load(world, expr),
        }
    }

    /// A test of a register, of which the unknown bits may be random.
    fn doubtful(
        &self,
        sreg: RegByte,
        len: usize,
        holds: impl Fn(&Self) -> Option<bool>,
    ) -> Step<'a> {
        match holds(self) {
            None if self.regs.key(sreg, len).random => limit(true),
            holds => test(holds),
        }
    }

    /// Instructions that load or change a register.
    fn load(&mut self, world: &World<'_, 'a>, expr: &'a Expr) -> Step<'a> {
        match expr {
            Expr::Meta { dreg, key } => return self.read_meta(world, *dreg, *key),
            Expr::Ct { dreg, key, reply } => return self.read_ct(world, *dreg, *key, *reply),
            Expr::Fib {
                dreg,
                result,
                flags,
            } => return self.read_fib(world, *dreg, *result, *flags),
            Expr::Payload {
                dreg,
                header,
                offset,
                len,
            } => return self.payload(world, *dreg, *header, *offset, *len),
            Expr::ExtHdr { dreg, exists } => {
                if !exists {
                    return Step::Break;
                }
                self.regs.store(*dreg, &[0]);
            }
            Expr::Unread { dreg, len } => self.regs.forget(*dreg, *len as usize, false),
            Expr::Random { dreg, len } => self.regs.forget(*dreg, *len as usize, true),
            Expr::Immediate { dreg, data } => self.regs.store(*dreg, data),
            Expr::Bitwise {
                sreg,
                dreg,
                mask,
                xor,
            } => self.regs.bitwise(*sreg, *dreg, mask, xor),
            Expr::Shift {
                sreg,
                dreg,
                len,
                bits,
            } => self.regs.shift(*sreg, *dreg, *len as usize, *bits),
            Expr::Byteorder {
                sreg,
                dreg,
                len,
                size,
            } => self
                .regs
                .byteorder(*sreg, *dreg, *len as usize, *size as usize),
            _ => {}
        }
        Step::Go
    }

    fn payload(
        &mut self,
        world: &World<'_, 'a>,
        dreg: RegByte,
        header: Header,
        offset: u32,
        len: u32,
    ) -> Step<'a> {
        self.headers(world);
        let mut regs = std::mem::take(&mut self.regs);
        let step = match self.headers(world).read(header, offset, len) {
            Found::Missing => Step::Break,
            Found::Dark => {
                regs.forget(dreg, len as usize, false);
                Step::Go
            }
            Found::Bytes(bits, dark) => {
                regs.store_partly(dreg, bits, dark);
                Step::Go
            }
        };
        self.regs = regs;
        step
    }

    fn lookup(
        &self,
        world: &World<'_, 'a>,
        name: &'a str,
        sreg: RegByte,
        dreg: Option<RegByte>,
        invert: bool,
        verdict: bool,
    ) -> Step<'a> {
        let Some(set) = world.rules.set(self.chain(world), name) else {
            return test(None);
        };
        let key = self.regs.key(sreg, set.key_len());
        let gives = dreg.is_some() || verdict;
        match set.find(key, VALUES) {
            Answer::No if invert => Step::Go,
            Answer::No => Step::Break,
            Answer::Yes(_) if invert => Step::Break,
            Answer::Yes(value) if gives => given(Fate::Gives(value, dreg), world),
            Answer::Yes(_) => Step::Go,
            Answer::Maybe(values, none) if gives => {
                let mut ways: Vec<Fate<'a>> =
                    values.into_iter().map(|v| Fate::Gives(v, dreg)).collect();
                // Of random keys a rule has an element for each; of unread ones nothing is assumed.
                let at = if key.random { ways.len() } else { 0 };
                if none {
                    ways.insert(at, Fate::Fails);
                }
                let kind = if key.random {
                    Kind::Limit
                } else {
                    Kind::Unread
                };
                let first = ways.remove(0);
                Step::Doubt {
                    kind,
                    first,
                    others: ways,
                }
            }
            Answer::Maybe(..) if key.random => limit(!invert),
            Answer::Maybe(_, false) => test(Some(!invert)),
            Answer::Maybe(_, true) => test(None),
        }
    }

    /// Instructions that change the packet or the connection.
    fn set(&mut self, world: &World<'_, 'a>, expr: &Expr) {
        match expr {
            Expr::MetaSet {
                sreg,
                key: Meta::Mark,
            } => {
                let (mark, dark) = self.word(*sreg);
                self.set_mark(world, mark, dark);
            }
            // Before the packet is looked up: where.
            Expr::CtSet {
                sreg,
                key: key @ (Ct::Zone | Ct::ZoneOf { .. }),
            } => {
                // A zone takes two bytes.
                let bytes = self.regs.key(*sreg, 2).bits.try_into();
                let zone = bytes.map_or(0, u16::from_ne_bytes);
                let reply = *key != Ct::ZoneOf { reply: false };
                self.ct.zone = if *key == (Ct::ZoneOf { reply: true }) {
                    0
                } else {
                    zone
                };
                self.ct.reply_zone = if reply { zone } else { 0 };
                self.note(world);
            }
            Expr::CtSet {
                sreg,
                key: Ct::Mark,
            } if self.tracked(world) => {
                let (word, dark) = self.word(*sreg);
                self.ct.mark = word;
                self.dark_mark.1 = dark;
                self.note(world);
            }
            Expr::PayloadSet {
                sreg,
                header,
                offset,
                len,
            } => self.write(world, *sreg, *header, *offset, *len),
            Expr::Notrack if !self.tracked(world) => {
                self.ct.state = 0x40;
                self.note(world);
            }
            Expr::SetMark { value, mask } => {
                let mark = (self.packet.mark & !mask) ^ value;
                let dark = self.dark_mark.0 && *mask != u32::MAX;
                self.set_mark(world, mark, dark);
            }
            Expr::SetConnmark {
                value,
                mask,
                save,
                restore,
            } if self.tracked(world) => self.connmark(world, *value, *mask, *save, *restore),
            _ => {}
        }
    }

    fn connmark(
        &mut self,
        world: &World<'_, 'a>,
        value: u32,
        mask: u32,
        save: bool,
        restore: bool,
    ) {
        if restore {
            let mark = (self.packet.mark & !mask) ^ (self.ct.mark & mask);
            let dark = self.dark_mark.1 || (self.dark_mark.0 && mask != u32::MAX);
            return self.set_mark(world, mark, dark);
        }
        let kept = self.ct.mark & !mask;
        if save {
            self.ct.mark = kept ^ (self.packet.mark & mask);
            self.dark_mark.1 = self.dark_mark.0 || (self.dark_mark.1 && mask != u32::MAX);
        } else {
            self.ct.mark = kept ^ value;
            self.dark_mark.1 &= mask != u32::MAX;
        }
        self.note(world);
    }

    fn set_mark(&mut self, world: &World<'_, 'a>, mark: u32, dark: bool) {
        self.packet.mark = mark;
        self.dark_mark.0 = dark;
        self.note(world);
    }

    /// Four bytes of a register, and whether some are not known.
    fn word(&self, sreg: RegByte) -> (u32, bool) {
        let key = self.regs.key(sreg, 4);
        let word = key.bits.try_into().map_or(0, u32::from_ne_bytes);
        (word, !key.known())
    }

    fn write(
        &mut self,
        world: &World<'_, 'a>,
        sreg: RegByte,
        header: Header,
        offset: u32,
        len: u32,
    ) {
        let key = self.regs.key(sreg, len as usize);
        if !key.known() || key.bits.len() < len as usize {
            return;
        }
        let bytes = key.bits.to_vec();
        let headers = self.headers(world).clone();
        headers.write(&mut self.packet, header, offset, &bytes);
        self.changed();
        self.note(world);
    }
}

/// Applies what a map gives, where that needs no doubt.
fn given<'a>(fate: Fate<'a>, world: &World<'_, 'a>) -> Step<'a> {
    match fate {
        Fate::Gives(Some(crate::trace::ruleset::Value::Verdict(verdict)), _) => {
            verdict_step(verdict, world)
        }
        fate => Step::Doubt {
            kind: Kind::Limit,
            first: fate,
            others: Vec::new(),
        },
    }
}
