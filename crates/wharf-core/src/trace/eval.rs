//! Rules at work: what the chains of one hook do with one packet.
//!
//! ```text
//! Ruleset ── order: base chains of the hook by priority ──> machine: rules, jumps, verdicts ──> Run
//!                                                             └ where a test cannot be decided: a copy takes the other way
//! ```
//!
//! * `machine`: chains, rules, jumps and verdicts; `step`: one instruction; `read`: metadata, conntrack, routing;
//! * `regs`, `bytes`, `sets`: values with unknown bits, the packet's bytes, finding keys;
//! * `lookup`: in which zone conntrack looks an answer up;
//! * `matches`: xtables matches; `nat`: translations, `back`: those of answers; `doubt`: ways not taken, and what they would have changed.
//!
//! Not here: translation of later packets of a flow, which conntrack does without rules, and where the packet goes next
//! (the walker's part).

mod back;
mod bytes;
mod doubt;
pub(super) mod lookup;
mod machine;
mod matches;
mod nat;
mod read;
mod regs;
mod sets;
mod step;

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::HashMap;

use crate::trace::env::{CtState, Env, Layer, Run};
use crate::trace::packet::Packet;
use crate::trace::ruleset::{Backend, Base, Chain, ChainKind, Hook, Ruleset, TableFamily};
use sets::Indexed;

/// Where conntrack looks at packets that come in or are made here (`NF_IP_PRI_CONNTRACK`). Of equals the last one to be
/// registered comes first, and that is hardly ever conntrack.
const CONNTRACK: i32 = -200;
/// Where destinations and sources are translated, whatever priority a nat chain has (`NF_IP_PRI_NAT_DST`, `_SRC`).
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;

/// Runs all chains of a hook. `ct` gets marks, zones and translations that rules set.
pub fn run_hook(env: &Env<'_>, packet: Packet, ct: &mut CtState, ruleset: &Ruleset) -> Run {
    Rules::new(ruleset).run(env, packet, ct)
}

type ChainKey<'a> = (Backend, TableFamily, &'a str, &'a str);
type SetKey<'a> = (TableFamily, &'a str, &'a str);

/// A ruleset with indices, for running several packets through it.
pub struct Rules<'a> {
    chains: &'a [Chain],
    ruleset: &'a Ruleset,
    by_name: OnceCell<HashMap<ChainKey<'a>, usize>>,
    sets: OnceCell<HashMap<SetKey<'a>, Indexed<'a>>>,
}

impl<'a> Rules<'a> {
    /// Indices are made when they are first needed.
    pub fn new(ruleset: &'a Ruleset) -> Self {
        Self {
            chains: &ruleset.chains,
            ruleset,
            by_name: OnceCell::new(),
            sets: OnceCell::new(),
        }
    }

    /// Runs all chains of a hook. `ct` gets marks, zones and translations that rules set.
    pub fn run(&self, env: &Env<'_>, packet: Packet, ct: &mut CtState) -> Run {
        doubt::explore(self, env, packet, ct)
    }

    /// A chain of the same table, by name.
    fn chain(&self, near: &'a Chain, name: &'a str) -> Option<usize> {
        let index = self.by_name.get_or_init(|| {
            let key = |c: &'a Chain| -> ChainKey<'a> { (c.backend, c.family, &c.table, &c.name) };
            self.chains
                .iter()
                .enumerate()
                .map(|(i, c)| (key(c), i))
                .collect()
        });
        let key = (near.backend, near.family, near.table.as_str(), name);
        index.get(&key).copied()
    }

    fn set(&self, near: &'a Chain, name: &'a str) -> Option<&Indexed<'a>> {
        let index = self.sets.get_or_init(|| {
            self.ruleset
                .sets
                .iter()
                .map(|s| {
                    (
                        (s.family, s.table.as_str(), s.name.as_str()),
                        Indexed::new(s),
                    )
                })
                .collect()
        });
        index.get(&(near.family, near.table.as_str(), name))
    }

    /// The base chains that see a packet, in order.
    fn order(&self, env: &Env<'_>, packet: &Packet) -> Vec<usize> {
        let runs = |chain: &'a Chain| {
            let base = chain.base.as_ref();
            base.filter(|b| sees(env, packet, chain.family, b))
        };
        let mut order: Vec<(i32, i32, usize)> = self
            .chains
            .iter()
            .enumerate()
            .filter_map(|(i, c)| runs(c).map(|b| (place(b), b.priority, i)))
            .collect();
        // Among equals the kernel calls what came last first; dumps have the oldest first.
        order.sort_by_key(|(place, priority, i)| (*place, *priority, Reverse(*i)));
        order.into_iter().map(|(_, _, i)| i).collect()
    }
}

fn sees(env: &Env<'_>, packet: &Packet, family: TableFamily, base: &Base) -> bool {
    let device = matches!(base.hook, Hook::Ingress | Hook::Egress);
    base.hook == env.hook
        && match (env.layer, family) {
            (Layer::Arp, TableFamily::Arp) => true,
            (Layer::Ip, TableFamily::Inet) => !device,
            (Layer::Ip, TableFamily::Ip) => packet.dst.is_ipv4(),
            (Layer::Ip, TableFamily::Ip6) => packet.dst.is_ipv6(),
            (Layer::Bridge, TableFamily::Bridge) => true,
            (Layer::Device(name), TableFamily::Netdev | TableFamily::Inet) => {
                device && base.devices.iter().any(|d| d == name)
            }
            _ => false,
        }
}

/// The priority at which a base chain really runs: nat chains are called by one hook function, in their own order.
fn place(base: &Base) -> i32 {
    match (base.kind, base.hook) {
        (ChainKind::Nat, Hook::Prerouting | Hook::Output) => NAT_DST,
        (ChainKind::Nat, _) => NAT_SRC,
        _ => base.priority,
    }
}
