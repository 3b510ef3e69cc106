//! Chains, rules, jumps and verdicts.

use super::bytes::Headers;
use super::doubt::{Explorer, Flip, JUMP, Kind};
use super::regs::Regs;
use super::{CONNTRACK, Rules, lookup};
use crate::trace::env::{CtState, Ending, Env, Layer};
use crate::trace::packet::Packet;
use crate::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Hook, RegByte, Rule, RuleVerdict, Value,
};

/// `NFT_JUMP_STACK_SIZE`: the kernel drops what would jump deeper.
const DEPTH: usize = 16;
/// iptables allows as many as there are chains; nobody nests so many.
const LEGACY_DEPTH: usize = 1024;
/// Of rules for showing, so many are kept.
const SEEN: usize = 4096;

pub(super) const CT_NEW: u32 = 8;
pub(super) const SRC_NAT_DONE: u32 = 0x80;
pub(super) const DST_NAT_DONE: u32 = 0x100;

/// What stays the same while a hook is run.
pub(super) struct World<'w, 'a> {
    pub env: &'w Env<'w>,
    pub rules: &'w Rules<'a>,
    /// The base chains, in order.
    pub order: Vec<usize>,
}

/// A rule, or the policy of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub chain: usize,
    pub base: usize,
    /// `None` is the policy.
    pub rule: Option<usize>,
}

/// A translation, and the rule that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub source: bool,
    pub addr: std::net::IpAddr,
    pub port: Option<u16>,
    pub how: &'static str,
    pub site: Site,
}

/// Where the evaluation is in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub chain: usize,
    pub rule: usize,
}

/// What follows an instruction.
pub(super) enum Step<'a> {
    /// The next instruction.
    Go,
    /// The next rule.
    Break,
    /// The next base chain.
    Accept,
    Return,
    Jump(&'a str),
    Goto(&'a str),
    /// Nothing more.
    End(Ending),
    /// It cannot be told: the first is assumed.
    Doubt {
        kind: Kind,
        first: Fate<'a>,
        others: Vec<Fate<'a>>,
    },
}

/// A way that an instruction may go.
#[derive(Debug, Clone)]
pub(super) enum Fate<'a> {
    Holds,
    Fails,
    /// A set or map gives this.
    Gives(Option<&'a Value>, Option<RegByte>),
    Passes,
    Dies,
}

/// One packet's evaluation; a copy is another way it may have gone.
#[derive(Clone)]
pub(super) struct Machine<'a> {
    pub packet: Packet,
    pub ct: CtState,
    /// The zones of the connection that the packet belongs to if it is looked up in the right one.
    pub(super) awaited: Option<(u16, u16)>,
    /// The packet's, the connection's mark was set to something unknown.
    pub dark_mark: (bool, bool),
    pub translations: Vec<Made>,
    pub seen: Vec<Site>,
    /// Rules that chose among several addresses or ports.
    pub vague: Vec<Site>,
    /// The doubtful instructions that went another way than assumed.
    pub flips: Vec<Flip>,
    pub regs: Regs,
    accepted: Option<Site>,
    turn: usize,
    stack: Vec<Frame>,
    expr: usize,
    fate: Option<Fate<'a>>,
    headers: Option<Headers>,
}

impl<'a> Machine<'a> {
    pub fn new(env: &Env<'_>, packet: Packet, mut ct: CtState) -> Self {
        let awaited = lookup::awaits(env, &mut ct);
        Self {
            awaited,
            packet,
            ct,
            dark_mark: (false, false),
            translations: Vec::new(),
            seen: Vec::new(),
            vague: Vec::new(),
            flips: Vec::new(),
            regs: Regs::default(),
            accepted: None,
            turn: 0,
            stack: Vec::new(),
            expr: 0,
            fate: None,
            headers: None,
        }
    }

    /// A copy that takes another way at the instruction just read.
    pub fn other_way(&self, fate: Fate<'a>, flip: Flip) -> Self {
        let mut other = self.clone();
        other.fate = Some(fate);
        other.flips.push(flip);
        other
    }

    /// Where it is, for telling doubts apart.
    pub fn position(&self) -> (usize, Vec<Frame>, usize) {
        (self.turn, self.stack.clone(), self.expr)
    }

    /// The rule it is at.
    pub fn site(&self, world: &World<'_, 'a>) -> Site {
        let frame = self.stack.last();
        let base = world.order.get(self.turn).copied().unwrap_or_default();
        Site {
            chain: frame.map_or(base, |f| f.chain),
            base,
            rule: frame.map(|f| f.rule),
        }
    }

    /// The chain it is in.
    pub fn chain(&self, world: &World<'_, 'a>) -> &'a Chain {
        &world.rules.chains[self.site(world).chain]
    }

    fn base(&self, world: &World<'_, 'a>) -> Option<&'a Base> {
        world.rules.chains[*world.order.get(self.turn)?]
            .base
            .as_ref()
    }

    /// Whether conntrack has seen the packet when this base chain runs.
    pub fn tracked(&self, world: &World<'_, 'a>) -> bool {
        let env = world.env;
        let early = match env.hook {
            Hook::Ingress => true,
            Hook::Prerouting => {
                let again = env.layer == Layer::Ip && env.iif.is_some_and(|l| l.loopback);
                !again && self.base(world).is_some_and(|b| b.priority <= CONNTRACK)
            }
            Hook::Output => self.base(world).is_some_and(|b| b.priority <= CONNTRACK),
            _ => false,
        };
        !early && self.ct.state & 0x41 == 0
    }

    /// The packet's bytes.
    pub fn headers(&mut self, world: &World<'_, 'a>) -> &Headers {
        let link = world.env.layer != Layer::Ip || !world.env.local;
        let packet = &self.packet;
        self.headers
            .get_or_insert_with(|| Headers::of(packet, link))
    }

    /// The packet was changed.
    pub fn changed(&mut self) {
        self.headers = None;
    }

    /// For showing: a rule that did something in passing.
    pub fn note(&mut self, world: &World<'_, 'a>) {
        let site = self.site(world);
        if self.seen.len() < SEEN && self.seen.last() != Some(&site) {
            self.seen.push(site);
        }
    }

    /// Runs to the end: how it ends, and by which rule.
    pub fn run(
        &mut self,
        world: &World<'_, 'a>,
        explorer: &mut Explorer<'a>,
    ) -> (Ending, Option<Site>) {
        loop {
            let Some(frame) = self.stack.last().copied() else {
                if self.enter(world) {
                    continue;
                }
                self.look_up(None);
                return (Ending::Accept, self.accepted);
            };
            let Some(rule) = world.rules.chains[frame.chain].rules.get(frame.rule) else {
                match self.leave(world) {
                    Some(site) => return (Ending::Drop, Some(site)),
                    None => continue,
                }
            };
            let step = self.rule(world, explorer, rule);
            let jumps = matches!(step, Step::Jump(_) | Step::Goto(_));
            if !explorer.spend(if jumps { JUMP } else { 1 }) {
                return (Ending::Unknown, Some(self.site(world)));
            }
            if let Some(end) = self.follow(world, step) {
                return end;
            }
        }
    }

    /// Begins the next base chain that runs for this packet.
    fn enter(&mut self, world: &World<'_, 'a>) -> bool {
        while let Some(index) = world.order.get(self.turn) {
            self.look_up(Some(&world.rules.chains[*index]));
            self.answer_back(world, &world.rules.chains[*index]);
            let nat = self.base(world).is_some_and(|b| b.kind == ChainKind::Nat);
            if !nat || self.translatable(world) {
                self.stack.push(Frame {
                    chain: *index,
                    rule: 0,
                });
                return true;
            }
            self.turn += 1;
        }
        false
    }

    /// Nat chains see the first packet of a connection only, until one of them has translated.
    fn translatable(&self, world: &World<'_, 'a>) -> bool {
        let done = if source_side(world.env.hook) {
            SRC_NAT_DONE
        } else {
            DST_NAT_DONE
        };
        self.ct.state & CT_NEW != 0 && !self.ct.reply_direction && self.ct.status & done == 0
    }

    /// The end of a chain: back to the caller, or the policy; the policy's place if that drops.
    fn leave(&mut self, world: &World<'_, 'a>) -> Option<Site> {
        self.stack.pop();
        if !self.stack.is_empty() {
            return None;
        }
        if self.base(world).is_some_and(|b| b.drops) {
            return Some(self.site(world));
        }
        self.turn += 1;
        None
    }

    fn rule(
        &mut self,
        world: &World<'_, 'a>,
        explorer: &mut Explorer<'a>,
        rule: &'a Rule,
    ) -> Step<'a> {
        let mut step = match self.fate.take() {
            Some(fate) => self.apply(world, fate),
            None => {
                self.expr = 0;
                Step::Go
            }
        };
        loop {
            match step {
                Step::Go => {}
                Step::Doubt {
                    kind,
                    first,
                    others,
                } => {
                    explorer.fork(self, world, rule, kind, others);
                    step = self.apply(world, first);
                    continue;
                }
                step => return step,
            }
            let Some(expr) = rule.exprs.get(self.expr) else {
                return Step::Break;
            };
            self.expr += 1;
            step = self.eval(world, expr);
        }
    }

    /// The rest of the rule, from the instruction after the one just read.
    pub fn rest<'r>(&self, rule: &'r Rule) -> &'r [crate::trace::ruleset::Expr] {
        rule.exprs.get(self.expr..).unwrap_or_default()
    }

    fn apply(&mut self, world: &World<'_, 'a>, fate: Fate<'a>) -> Step<'a> {
        match fate {
            Fate::Holds => Step::Go,
            Fate::Fails => Step::Break,
            Fate::Passes => Step::Accept,
            Fate::Dies => Step::End(Ending::Drop),
            Fate::Gives(Some(Value::Verdict(verdict)), _) => verdict_step(verdict, world),
            Fate::Gives(Some(Value::Bytes(bytes)), Some(dreg)) => {
                self.regs.store(dreg, bytes);
                Step::Go
            }
            Fate::Gives(..) => Step::Go,
        }
    }

    fn follow(&mut self, world: &World<'_, 'a>, step: Step<'a>) -> Option<(Ending, Option<Site>)> {
        let site = self.site(world);
        match step {
            Step::Go | Step::Break | Step::Doubt { .. } => self.next_rule(),
            Step::Accept => {
                self.note(world);
                if self.base(world).is_some_and(|b| b.kind != ChainKind::Nat) {
                    self.accepted = Some(site);
                }
                self.stack.clear();
                self.turn += 1;
            }
            Step::Return => {
                if let Some(policy) = self.leave(world) {
                    return Some((Ending::Drop, Some(policy)));
                }
            }
            Step::Jump(name) | Step::Goto(name) => {
                self.note(world);
                let Some(chain) = world.rules.chain(self.chain(world), name) else {
                    return Some((Ending::Unknown, Some(site)));
                };
                if matches!(step, Step::Goto(_)) {
                    self.stack.pop();
                } else if self.stack.len() > depth(self.chain(world).backend) {
                    return Some((Ending::Drop, Some(site)));
                } else {
                    self.next_rule();
                }
                self.stack.push(Frame { chain, rule: 0 });
            }
            Step::End(ending) => return Some((ending, Some(site))),
        }
        None
    }

    fn next_rule(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.rule += 1;
        }
    }
}

/// What a verdict means.
pub(super) fn verdict_step<'a>(verdict: &'a RuleVerdict, world: &World<'_, '_>) -> Step<'a> {
    match verdict {
        RuleVerdict::Accept => Step::Accept,
        RuleVerdict::Drop => Step::End(Ending::Drop),
        RuleVerdict::Continue => Step::Go,
        RuleVerdict::Return => Step::Return,
        RuleVerdict::Jump(name) => Step::Jump(name),
        RuleVerdict::Goto(name) => Step::Goto(name),
        // With nobody to take it the packet goes on, or is lost.
        RuleVerdict::Queue(true) if world.env.space.queues == Some(false) => Step::Accept,
        RuleVerdict::Queue(false) if world.env.space.queues == Some(false) => {
            Step::End(Ending::Drop)
        }
        RuleVerdict::Queue(true) => Step::Doubt {
            kind: Kind::Limit,
            first: Fate::Passes,
            others: vec![Fate::Dies],
        },
        RuleVerdict::Queue(false) | RuleVerdict::Stolen => Step::End(Ending::Unknown),
    }
}

/// Whether this hook translates sources.
pub(super) fn source_side(hook: Hook) -> bool {
    matches!(hook, Hook::Postrouting | Hook::Input)
}

fn depth(backend: Backend) -> usize {
    match backend {
        Backend::Nft => DEPTH,
        Backend::Legacy => LEGACY_DEPTH,
    }
}
