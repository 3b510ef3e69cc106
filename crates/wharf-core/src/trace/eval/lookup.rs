//! Conntrack looks an answer up in the zone that rules before it chose; in another one than the question's nothing is
//! known of it.

use super::CONNTRACK;
use super::machine::Machine;
use crate::trace::env::{CtState, Env, Layer};
use crate::trace::packet::Packet;
use crate::trace::ruleset::{Chain, ChainKind, Hook};

/// Whether a packet is looked up at a hook: where it comes in or is made, and over loopback not a second time.
fn is_entry(env: &Env<'_>) -> bool {
    let again = env.iif.is_some_and(|l| l.loopback);
    match env.hook {
        Hook::Prerouting => env.layer == Layer::Ip && !again,
        Hook::Output => env.layer == Layer::Ip,
        _ => false,
    }
}

/// The zones of the connection whose answer is to be looked up; until rules choose one it is in none.
pub(super) fn awaits(env: &Env<'_>, ct: &mut CtState) -> Option<(u16, u16)> {
    let zones = (is_entry(env) && ct.reply_direction).then_some((ct.zone, ct.reply_zone))?;
    (ct.zone, ct.reply_zone) = (0, 0);
    Some(zones)
}

/// An answer in the zone that `ct` has now, to a connection with these zones: its own state, or one that begins.
pub(in crate::trace) fn found(ct: &mut CtState, zones: (u16, u16), packet: &Packet) {
    if ct.reply_zone == zones.1 {
        (ct.zone, ct.reply_zone) = zones;
        return;
    }
    *ct = CtState {
        zone: ct.zone,
        reply_zone: ct.reply_zone,
        ..CtState::begun(packet)
    };
}

impl Machine<'_> {
    /// Looks the packet up, if the chain that comes next stands behind conntrack.
    pub(super) fn look_up(&mut self, next: Option<&Chain>) {
        /// `IP_CT_UNTRACKED`, as a bit.
        const UNTRACKED: u32 = 64;
        let base = next.and_then(|chain| chain.base.as_ref());
        if base.is_some_and(|b| b.kind != ChainKind::Nat && b.priority <= CONNTRACK) {
            return;
        }
        if let Some(zones) = self.awaited.take()
            && self.ct.state & UNTRACKED == 0
        {
            found(&mut self.ct, zones, &self.packet);
        }
    }
}
