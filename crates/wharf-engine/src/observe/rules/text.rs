//! Rules as `nft -s list ruleset` prints them, as far as their meaning is known; the rest in a readable form.

use wharf_nft::expr::{self, Bits, CmpOp, Expr, MetaKey, RangeOp};
use wharf_nft::{Data, Family, Reg, Rule};

use super::Dump;
use super::names::{self, Field, Settled};
use super::values::{Kind, hex, prefix_len, range, value};

mod acts;

/// Elements of a set without a name that are shown.
const ELEMENTS: usize = 16;

/// What stands in a register.
#[derive(Debug, Clone)]
enum Operand {
    /// Something read.
    Fields(Vec<Field>),
    /// With a mask, and then xored.
    Masked(Field, Vec<u8>, Vec<u8>),
    /// A constant.
    Bytes(Vec<u8>),
}

/// What a test of a protocol is needed for; it is not printed where a later test implies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Network,
    Transport,
    Link,
}

/// Writes one rule.
struct Writer<'d, 'a> {
    dump: &'d Dump<'a>,
    rule: &'a Rule,
    parts: Vec<(String, Option<Needed>)>,
    regs: [Option<Operand>; SLOTS],
    settled: Settled,
}

/// The rule's text, with its comment.
pub fn rule<'a>(dump: &Dump<'a>, rule: &'a Rule) -> String {
    let mut writer = Writer {
        dump,
        rule,
        parts: Vec::new(),
        regs: [const { None }; SLOTS],
        settled: Settled {
            nfproto: match rule.family {
                Family::Ip => Some(2),
                Family::Ip6 => Some(10),
                _ => None,
            },
            l4: None,
        },
    };
    let mut rest = rule.exprs.as_slice();
    while let Some((first, others)) = rest.split_first() {
        rest = writer.one(first, others);
    }
    if let Some(comment) = rule.comment() {
        writer.say(format!("comment \"{comment}\""));
    }
    let words: Vec<String> = writer.parts.into_iter().map(|(text, _)| text).collect();
    words.join(" ")
}

/// Registers of 4 bytes.
const SLOTS: usize = 16;

fn slot(reg: Reg) -> usize {
    reg.index().map_or(SLOTS, usize::from)
}

impl<'a> Writer<'_, 'a> {
    fn say(&mut self, text: impl Into<String>) {
        self.parts.push((text.into(), None));
    }

    /// Writes an expression; what is left after it.
    fn one<'e>(&mut self, expr: &'a Expr, others: &'e [Expr]) -> &'e [Expr] {
        match expr {
            Expr::Meta(e) => match (e.dreg, e.sreg) {
                (Some(dreg), _) => {
                    if e.key == MetaKey::Protocol {
                        self.imply(&[Needed::Link]);
                    }
                    self.load(dreg, vec![names::meta(e)]);
                }
                (None, Some(sreg)) => self.assign(names::meta(e), sreg),
                (None, None) => {}
            },
            Expr::Ct(e) => match (e.dreg, e.sreg) {
                (Some(dreg), _) => self.load(dreg, vec![names::ct(e, self.settled)]),
                (None, Some(sreg)) => self.assign(names::ct(e, self.settled), sreg),
                (None, None) => {}
            },
            Expr::Payload(e) => self.payload(e),
            Expr::Fib(e) => self.load(e.dreg, vec![names::fib(e)]),
            Expr::Bitwise(e) => self.bitwise(e),
            // Only the order of bytes changes; what is compared then is in network order.
            Expr::Byteorder(e) => self.byteorder(e),
            Expr::Immediate(e) => match &e.data {
                Data::Value(bytes) => {
                    self.put(e.dreg, Operand::Bytes(bytes.clone()));
                }
                Data::Verdict(verdict) => self.say(acts::verdict(verdict)),
            },
            Expr::Cmp(e) => return self.cmp(e, others),
            Expr::Range(e) => {
                let field = self.field(e.sreg, e.from.len());
                let op = if e.op == RangeOp::Neq { "!= " } else { "" };
                self.say(format!(
                    "{} {op}{}",
                    field.text,
                    range(field.kind, &e.from, &e.to)
                ));
            }
            Expr::Lookup(e) => self.lookup(e),
            other => self.act(other),
        }
        others
    }

    fn put(&mut self, dreg: Reg, operand: Operand) {
        if let Some(place) = self.regs.get_mut(slot(dreg)) {
            *place = Some(operand);
        }
    }

    fn get(&self, slot: usize) -> Option<&Operand> {
        self.regs.get(slot)?.as_ref()
    }

    fn load(&mut self, dreg: Reg, fields: Vec<Field>) {
        self.put(dreg, Operand::Fields(fields));
    }

    fn payload(&mut self, e: &expr::Payload) {
        let fields = names::payload(e, self.settled);
        // Without a known protocol nft prints `th dport`, which implies nothing.
        let named = !fields[0].text.starts_with("th ") && !fields[0].text.starts_with('@');
        if named {
            match e.base {
                expr::PayloadBase::LinkLayer => self.imply(&[Needed::Link]),
                expr::PayloadBase::Network => self.imply(&[Needed::Network]),
                _ if fields[0].text.starts_with("icmp") => {
                    self.imply(&[Needed::Transport, Needed::Network]);
                }
                _ => self.imply(&[Needed::Transport]),
            }
        }
        match (e.dreg, e.sreg) {
            (Some(dreg), _) => self.load(dreg, fields),
            (None, Some(sreg)) => self.assign(fields[0].clone(), sreg),
            (None, None) => {}
        }
    }

    fn imply(&mut self, needed: &[Needed]) {
        self.parts
            .retain(|(_, dep)| dep.is_none_or(|d| !needed.contains(&d)));
    }

    fn bitwise(&mut self, e: &expr::Bitwise) {
        let len = e.len as usize;
        let operand = match (self.get(slot(e.sreg)), &e.mask, &e.xor) {
            (Some(Operand::Fields(fields)), Some(mask), Some(xor)) if fields.len() == 1 => {
                Operand::Masked(fields[0].clone(), mask.clone(), xor.clone())
            }
            _ => {
                let field = self.field(e.sreg, len);
                let by = e.data.as_deref().map_or(0, |d| Kind::Host.number(d));
                let op = match e.op {
                    Some(expr::BitwiseOp::LShift) => "<<",
                    Some(expr::BitwiseOp::RShift) => ">>",
                    _ => "&",
                };
                let text = format!("{} {op} {by}", field.text);
                Operand::Fields(vec![Field::new(text, field.kind, len)])
            }
        };
        self.put(e.dreg, operand);
    }

    fn byteorder(&mut self, e: &expr::Byteorder) {
        let mut field = self.field(e.sreg, e.len as usize);
        field.kind = match field.kind {
            Kind::Host => Kind::Net,
            Kind::Mark => Kind::MarkNet,
            kind => kind,
        };
        self.load(e.dreg, vec![field]);
    }

    /// What a register holds, as one field.
    fn field(&self, reg: Reg, len: usize) -> Field {
        match self.get(slot(reg)) {
            Some(Operand::Fields(fields)) if fields.len() == 1 => fields[0].clone(),
            Some(Operand::Fields(fields)) => {
                let texts: Vec<&str> = fields.iter().map(|f| f.text.as_ref()).collect();
                Field::new(texts.join(" . "), Kind::Net, len)
            }
            Some(Operand::Masked(field, mask, xor)) => {
                Field::new(calculated(field, mask, xor), field.kind, len)
            }
            Some(Operand::Bytes(bytes)) => Field::new(hex(bytes), Kind::Net, len),
            None => Field::new(format!("reg {}", reg.number()), Kind::Net, len),
        }
    }

    fn cmp<'e>(&mut self, e: &expr::Cmp, others: &'e [Expr]) -> &'e [Expr] {
        let operand = self.get(slot(e.sreg)).cloned();
        if let Some(Operand::Masked(field, mask, xor)) = &operand {
            self.say(masked(field, mask, xor, e.op, &e.data));
            return others;
        }
        // From … to.
        if let (CmpOp::Gte, Some((Expr::Cmp(next), rest))) = (e.op, others.split_first())
            && (next.op, next.sreg) == (CmpOp::Lte, e.sreg)
        {
            let field = self.field(e.sreg, e.data.len());
            self.say(format!(
                "{} {}",
                field.text,
                range(field.kind, &e.data, &next.data)
            ));
            return rest;
        }
        let fields = match operand {
            Some(Operand::Fields(fields)) if e.op == CmpOp::Eq => fields,
            _ => vec![self.field(e.sreg, e.data.len())],
        };
        let mut data = e.data.as_slice();
        let single = fields.len() == 1;
        for field in &fields {
            let (this, rest) = data.split_at(if single {
                data.len()
            } else {
                field.len.min(data.len())
            });
            data = rest;
            let text = format!("{} {}{}", field.text, sign(e.op), value(field.kind, this));
            let needed = self.settle(e.op, field, this);
            self.parts.push((text, needed));
        }
        others
    }

    /// Remembers which protocol a comparison settles.
    fn settle(&mut self, op: CmpOp, field: &Field, data: &[u8]) -> Option<Needed> {
        if op != CmpOp::Eq {
            return None;
        }
        match field.text.as_ref() {
            "meta l4proto" => {
                self.settled.l4 = data.first().copied();
                Some(Needed::Transport)
            }
            "meta nfproto" => {
                self.settled.nfproto = data.first().copied();
                Some(Needed::Network)
            }
            "meta protocol" => {
                self.settled.nfproto = match data {
                    [0x08, 0x00] => Some(2),
                    [0x86, 0xdd] => Some(10),
                    _ => None,
                };
                Some(Needed::Network)
            }
            "iiftype" => Some(Needed::Link),
            _ => None,
        }
    }

    fn assign(&mut self, to: Field, sreg: Reg) {
        let text = match self.get(slot(sreg)) {
            Some(Operand::Bytes(bytes)) => value(to.kind, bytes),
            _ => self.field(sreg, to.len).text.into_owned(),
        };
        let meta = to.text.starts_with("meta ") || to.text.contains(' ');
        let word = if meta { "" } else { "meta " };
        self.say(format!("{word}{} set {text}", to.text));
    }

    /// The key that a set is asked with: the fields from a register on.
    fn key(&self, sreg: Reg, len: usize) -> Vec<Field> {
        let mut at = slot(sreg);
        let (mut fields, mut got) = (Vec::new(), 0);
        while got < len.max(1) {
            let field = match self.get(at) {
                Some(Operand::Fields(several)) if several.len() > 1 => {
                    fields.extend(several.clone());
                    let bytes: usize = several.iter().map(|f| f.len.next_multiple_of(4)).sum();
                    got += bytes;
                    at += bytes / 4;
                    continue;
                }
                Some(_) => match u8::try_from(at).ok().and_then(Reg::slot) {
                    Some(reg) => self.field(reg, len),
                    None => break,
                },
                None => break,
            };
            let bytes = field.len.next_multiple_of(4).max(4);
            got += bytes;
            at += bytes / 4;
            fields.push(field);
        }
        fields
    }

    fn lookup(&mut self, e: &'a expr::Lookup) {
        let entry = self.dump.set(self.rule, &e.set);
        let len = entry.map_or(4, |(set, _)| set.key_len as usize);
        let fields = self.key(e.sreg, len);
        let key: Vec<&str> = fields.iter().map(|f| f.text.as_ref()).collect();
        let key = key.join(" . ");
        let set = entry.map_or_else(
            || format!("@{}", e.set),
            |entry| acts::set(entry, &fields, ELEMENTS),
        );
        let invert = e.flags.has(expr::Lookup::INVERT);
        match e.dreg {
            Some(Reg::VERDICT) => self.say(format!("{key} vmap {set}")),
            Some(dreg) => {
                let field = Field::new(format!("{key} map {set}"), Kind::Net, 4);
                self.load(dreg, vec![field]);
            }
            None if invert => self.say(format!("{key} != {set}")),
            None => self.say(format!("{key} {set}")),
        }
    }
}

fn sign(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Neq => "!= ",
        CmpOp::Lt => "< ",
        CmpOp::Lte => "<= ",
        CmpOp::Gt => "> ",
        CmpOp::Gte => ">= ",
        _ => "",
    }
}

/// A masked field, compared.
fn masked(field: &Field, mask: &[u8], xor: &[u8], op: CmpOp, data: &[u8]) -> String {
    let zero = data.iter().all(|b| *b == 0);
    let plain = xor.iter().all(|b| *b == 0);
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    match (field.kind, prefix_len(mask)) {
        (Kind::Ip4 | Kind::Ip6, Some(len)) if plain && equality => {
            format!(
                "{} {}{}/{len}",
                field.text,
                sign(op),
                value(field.kind, data)
            )
        }
        (Kind::Dscp, _) if plain && equality => {
            format!("{} {}{}", field.text, sign(op), value(field.kind, data))
        }
        (kind, _) if kind.is_flags() && plain && zero && op == CmpOp::Neq => {
            format!("{} {}", field.text, value(kind, mask))
        }
        (Kind::TcpFlags, _) if plain && equality && !zero => format!(
            "{} {}{} / {}",
            field.text,
            sign(op),
            value(field.kind, data),
            value(field.kind, mask)
        ),
        _ => {
            let op = if op == CmpOp::Eq { "== " } else { sign(op) };
            format!(
                "{} {op}{}",
                calculated(field, mask, xor),
                value(field.kind, data)
            )
        }
    }
}

/// `& mask`, `| bits`, `^ bits`, or what there is of them.
fn calculated(field: &Field, mask: &[u8], xor: &[u8]) -> String {
    let (name, kind) = (&field.text, field.kind);
    let no_xor = xor.iter().all(|b| *b == 0);
    let no_mask = mask.iter().all(|b| *b == 0xff);
    let or = mask.iter().zip(xor).all(|(m, x)| *m == !*x);
    match (no_xor, no_mask) {
        (true, _) => format!("{name} & {}", value(kind, mask)),
        _ if or => format!("{name} | {}", value(kind, xor)),
        (_, true) => format!("{name} ^ {}", value(kind, xor)),
        _ => format!("{name} & {} ^ {}", value(kind, mask), value(kind, xor)),
    }
}

/// `NFT_LIMIT_F_INV` and its kin.
const OVER: Bits = Bits(1);
