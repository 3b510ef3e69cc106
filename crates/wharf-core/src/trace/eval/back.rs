//! Answers are translated back between the chains, where conntrack's nat has its place: those behind it see the addresses
//! of the question.

use super::machine::{Machine, World, source_side};
use super::{NAT_DST, NAT_SRC};
use crate::trace::env::Layer;
use crate::trace::packet::L4;
use crate::trace::ruleset::{Chain, ChainKind, Hook};

/// `IPS_SRC_NAT` and `IPS_DST_NAT`.
const SRC_NAT: u32 = 0x10;
const DST_NAT: u32 = 0x20;
/// Untracked.
const UNTRACKED: u32 = 64;

impl Machine<'_> {
    /// Translates an answer back if the chain that comes next stands behind nat.
    pub(super) fn answer_back(&mut self, world: &World<'_, '_>, next: &Chain) {
        let hook = world.env.hook;
        let ct = &self.ct;
        let plain = world.env.layer != Layer::Ip || !ct.reply_direction;
        if plain || ct.state & UNTRACKED != 0 || hook == Hook::Forward {
            return;
        }
        let source = source_side(hook);
        let (place, bit) = if source {
            (NAT_SRC, DST_NAT)
        } else {
            (NAT_DST, SRC_NAT)
        };
        let behind = next
            .base
            .as_ref()
            .is_some_and(|b| b.kind != ChainKind::Nat && b.priority > place);
        if !behind || ct.status & bit == 0 {
            return;
        }
        let question = ct.original.clone();
        let ports = self.packet.l4 != L4::Icmp;
        let packet = &mut self.packet;
        if source {
            packet.src = question.dst;
            packet.sport = if ports { question.dport } else { packet.sport };
        } else {
            packet.dst = question.src;
            packet.dport = if ports { question.sport } else { packet.dport };
        }
        self.changed();
    }
}
