//! What a namespace has learned and will learn anew is no more than a sign where a cable was moved.

use crate::trace::report::{Cause, Code, HopVerdict, Verdict};

use super::Walk;

impl Walk<'_> {
    /// Puts wrong neighbour entries that nobody pinned behind the cable that is on another bridge than it should: who
    /// was moved remembers the old segment until it asks again.
    pub(super) fn settle_learned(&mut self) {
        let off = |c: &Cause| c.code == Code::NotOnBridge;
        let Some(moved) = self.causes.iter().position(|(c, _)| off(c)) else {
            return;
        };
        let learned =
            |c: &Cause| c.code == Code::NeighbourWrong && self.learned.contains(&c.object);
        let before: Vec<(Cause, Verdict)> = self.causes.drain(..moved).collect();
        let (signs, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|(c, _)| learned(c));
        let first = others.is_empty();
        let right = self.causes[0].0.clone();
        self.causes.splice(1..1, signs.iter().cloned());
        self.causes.splice(0..0, others);
        if let Some((sign, _)) = signs.first().filter(|_| first) {
            let shown = self.hops.iter_mut().find(|h| {
                h.verdict == HopVerdict::Drop && h.netns == sign.netns && h.object == sign.object
            });
            if let Some(hop) = shown {
                hop.netns = right.netns;
                hop.object = right.object;
                hop.detail = right.summary;
            }
        }
    }
}
