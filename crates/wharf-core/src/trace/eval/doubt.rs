//! Ways not taken. Where an instruction cannot be decided one outcome is assumed, and a copy of the evaluation takes each
//! other one; if that ends differently, the rule is named.
//!
//! A limit or a number nobody can foretell leaves the ending as assumed; a test of something that was not read, and whose
//! other outcome ends differently, leaves it unknown.

use std::collections::{HashSet, VecDeque};

use super::Rules;
use super::machine::{
    CT_NEW, DST_NAT_DONE, Fate, Frame, Machine, SRC_NAT_DONE, Site, World, source_side,
};
use crate::trace::env::{Blame, CtState, Ending, Env, Layer, Run, Translation};
use crate::trace::packet::Packet;
use crate::trace::ruleset::{Backend, Chain, ChainKind, Expr, Meta, Rule, RuleVerdict};

/// Other ways that are looked at.
const FORKS: usize = 256;
/// Rules that are run in all, main way and others together: enough for 10,000 rules and each other way.
const STEPS: usize = 2_000_000;
/// A jump counts as so many rules, so that chains that go round end soon.
pub(super) const JUMP: usize = 32;

/// Why something cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It depends on other packets, or on chance.
    Limit,
    /// It was not read, or cannot be evaluated.
    Unread,
}

/// An instruction that went another way than assumed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flip {
    kind: Kind,
    site: Site,
}

/// Keeps the ways that are still to be looked at.
pub(super) struct Explorer<'a> {
    pending: VecDeque<Machine<'a>>,
    known: HashSet<(usize, Vec<Frame>, usize)>,
    forks: usize,
    steps: usize,
    /// A test of something unread of which the other outcome was not looked at, there being too many.
    left: Option<Site>,
}

impl<'a> Explorer<'a> {
    /// Counts rules; `false` when there were too many.
    pub fn spend(&mut self, rules: usize) -> bool {
        self.steps = self.steps.saturating_sub(rules);
        self.steps > 0
    }

    /// Keeps other ways from where `machine` is, unless the rule does nothing from there on.
    pub fn fork(
        &mut self,
        machine: &Machine<'a>,
        world: &World<'_, 'a>,
        rule: &Rule,
        kind: Kind,
        others: Vec<Fate<'a>>,
    ) {
        let decided = |f: &Fate<'_>| !matches!(f, Fate::Holds | Fate::Fails);
        if others.is_empty() || !others.iter().any(decided) && !machine.rest(rule).iter().any(acts)
        {
            return;
        }
        if !self.known.insert(machine.position()) {
            return;
        }
        let site = machine.site(world);
        for fate in others {
            if self.forks == FORKS {
                if kind == Kind::Unread {
                    self.left.get_or_insert(site);
                }
                return;
            }
            self.forks += 1;
            let flip = Flip { kind, site };
            self.pending.push_back(machine.other_way(fate, flip));
        }
    }
}

/// Whether an instruction changes what becomes of the packet.
fn acts(expr: &Expr) -> bool {
    match expr {
        Expr::Verdict(verdict) => *verdict != RuleVerdict::Continue,
        Expr::Lookup { verdict, .. } => *verdict,
        Expr::MetaSet { key, .. } => *key == Meta::Mark,
        Expr::PayloadSet { .. }
        | Expr::CtSet { .. }
        | Expr::Reject { .. }
        | Expr::Nat { .. }
        | Expr::Notrack
        | Expr::SetMark { .. }
        | Expr::SetConnmark { .. }
        | Expr::Tproxy { .. } => true,
        _ => false,
    }
}

/// Runs a packet through the hook, all ways it may go, and sums up.
pub(super) fn explore(rules: &Rules<'_>, env: &Env<'_>, packet: Packet, ct: &mut CtState) -> Run {
    let order = rules.order(env, &packet);
    let world = World { env, rules, order };
    let mut explorer = Explorer {
        pending: VecDeque::new(),
        known: HashSet::new(),
        forks: 0,
        steps: STEPS,
        left: None,
    };
    let mut main = Machine::new(env, packet, ct.clone());
    let (assumed, mut blame) = main.run(&world, &mut explorer);
    let mut ending = assumed;
    let mut maybe = std::mem::take(&mut main.vague);
    while let Some(mut other) = explorer.pending.pop_front() {
        let (end, _) = other.run(&world, &mut explorer);
        let same = end == assumed
            && other.packet == main.packet
            && other.translations == main.translations
            && other.ct.mark == main.ct.mark;
        if same {
            continue;
        }
        maybe.extend(other.flips.iter().map(|f| f.site));
        let unread = other.flips.iter().find(|f| f.kind == Kind::Unread);
        if let Some(flip) = unread.filter(|_| end != assumed && ending != Ending::Unknown) {
            (ending, blame) = (Ending::Unknown, Some(flip.site));
        }
    }
    if let Some(site) = explorer.left.filter(|_| ending != Ending::Unknown) {
        (ending, blame) = (Ending::Unknown, Some(site));
    }
    *ct = main.ct.clone();
    settle(&world, ct);
    report(&world, main, (ending, blame), maybe)
}

/// A connection whose first packet has passed the nat chains of a hook is settled there, translated or not.
fn settle(world: &World<'_, '_>, ct: &mut CtState) {
    let nat = |i: &usize| {
        let base = world.rules.chains[*i].base.as_ref();
        base.is_some_and(|b| b.kind == ChainKind::Nat)
    };
    let first = ct.state & CT_NEW != 0 && !ct.reply_direction;
    if world.env.layer == Layer::Ip && first && world.order.iter().any(nat) {
        ct.status |= if source_side(world.env.hook) {
            SRC_NAT_DONE
        } else {
            DST_NAT_DONE
        };
    }
}

fn report(
    world: &World<'_, '_>,
    main: Machine<'_>,
    (ending, blame): (Ending, Option<Site>),
    maybe: Vec<Site>,
) -> Run {
    let mut named = HashSet::new();
    let maybe: Vec<Site> = maybe.into_iter().filter(|s| named.insert(*s)).collect();
    let blames = |sites: &[Site]| sites.iter().map(|s| to_blame(world, *s)).collect();
    let translations = main.translations.iter().map(|made| Translation {
        source: made.source,
        addr: made.addr,
        port: made.port,
        how: made.how,
        rule: to_blame(world, made.site),
    });
    Run {
        ending,
        blame: blame.map(|site| to_blame(world, site)),
        translations: translations.collect(),
        seen: blames(&main.seen),
        maybe: blames(&maybe),
        packet: main.packet,
    }
}

fn to_blame(world: &World<'_, '_>, site: Site) -> Blame {
    let (chain, base) = (
        &world.rules.chains[site.chain],
        &world.rules.chains[site.base],
    );
    let rule = site.rule.and_then(|i| chain.rules.get(i));
    Blame {
        backend: chain.backend,
        family: chain.family,
        table: chain.table.clone(),
        chain: chain.name.clone(),
        base: base.name.clone(),
        handle: rule.map(|r| r.handle),
        text: rule.map_or_else(|| policy(base), |r| r.text.get()),
        comment: rule.and_then(|r| r.comment.clone()),
        owner: rule.map_or(base.owner, |r| chain.owner_of(r)),
    }
}

/// A base chain's policy as its own tool prints it.
fn policy(chain: &Chain) -> String {
    let drops = chain.base.as_ref().is_some_and(|b| b.drops);
    match (chain.backend, drops) {
        (Backend::Nft, true) => "policy drop".to_owned(),
        (Backend::Nft, false) => "policy accept".to_owned(),
        (Backend::Legacy, true) => format!("-P {} DROP", chain.name),
        (Backend::Legacy, false) => format!("-P {} ACCEPT", chain.name),
    }
}
