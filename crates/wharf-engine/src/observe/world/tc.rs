//! Queueing disciplines that may drop, and the filters behind them (`tc qdisc`, `tc filter`).
//!
//! What is not understood is kept as text, with `drops: None`: whoever reads it must not take it for harmless.

use std::fmt::Write;

use wharf_core::trace::state::{TcDrop, TrafficControl};

use super::attrs::{Attrs, text, word};
use super::tc_filter::{self, Effect};

/// `RTM_GETQDISC`.
pub(super) const GET_QDISC: u16 = 38;
/// `RTM_GETTFILTER`.
pub(super) const GET_FILTER: u16 = 46;
/// `sizeof(struct tcmsg)`.
pub(super) const HEADER: usize = 20;
/// `ffff:fff2` and `ffff:fff3`: where filters of `ingress` and `clsact` hang.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// Those that drop only when a queue is full.
const HARMLESS: &[&str] = &[
    "noqueue",
    "pfifo_fast",
    "pfifo",
    "bfifo",
    "mq",
    "mqprio",
    "fq_codel",
    "fq",
    "cake",
    "sfq",
    "codel",
    "pie",
    "noop_qdisc",
];
/// A tick of the packet scheduler in nanoseconds.
const TICK: u64 = 64;
/// Bytes of an Ethernet header, which disciplines count and IP does not.
const ETHERNET: u32 = 14;

/// A queueing discipline.
pub(super) struct Qdisc {
    /// The link's index.
    pub(super) link: u32,
    handle: u32,
    kind: String,
    tc: Option<TrafficControl>,
}

impl Qdisc {
    /// What it does by itself.
    pub(super) fn take(&mut self) -> Option<TrafficControl> {
        self.tc.take()
    }

    /// Where its filters hang: parent, and whether packets come in there.
    pub(super) fn hooks(&self) -> Vec<(u32, bool)> {
        match self.kind.as_str() {
            "ingress" => vec![(INGRESS, true)],
            "clsact" => vec![(INGRESS, true), (EGRESS, false)],
            kind if HARMLESS.contains(&kind) => Vec::new(),
            _ => vec![(self.handle, false)],
        }
    }
}

/// The question for all queueing disciplines.
pub(super) fn question() -> Vec<u8> {
    vec![0; HEADER]
}

/// The question for the filters at one place.
pub(super) fn filter_question(link: u32, parent: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body
}

/// Reads an `RTM_NEWQDISC`.
pub(super) fn read(body: &[u8]) -> Option<Qdisc> {
    if body.len() < HEADER {
        return None;
    }
    let attrs = Attrs::after(body, HEADER);
    let kind = attrs.get(1).map(text)?;
    let handle = word(body, 8);
    let options = attrs.get(2).unwrap_or_default();
    let mut shown = format!("qdisc {kind} {:x}:", handle >> 16);
    let drops = match kind.as_str() {
        "netem" => Some(netem(options, &mut shown)),
        "tbf" => Some(tbf(Attrs(options), &mut shown)),
        "blackhole" => Some(Some(TcDrop::All)),
        "ingress" | "clsact" => None,
        "bfifo" | "pfifo" => queue(&kind, options, &mut shown).map(Some),
        kind if HARMLESS.contains(&kind) => None,
        // Classes and what hangs in them: it depends.
        _ => Some(None),
    };
    let tc = drops.map(|drops| TrafficControl {
        ingress: false,
        text: shown,
        drops,
    });
    let link = word(body, 4);
    Some(Qdisc {
        link,
        handle,
        kind,
        tc,
    })
}

/// `struct tc_netem_qopt`.
fn netem(options: &[u8], shown: &mut String) -> Option<TcDrop> {
    let (limit, loss) = (word(options, 4), word(options, 8));
    let _ = write!(shown, " limit {limit}");
    if loss == 0 {
        return None;
    }
    let percent = f64::from(loss) * 100.0 / f64::from(u32::MAX);
    let _ = write!(shown, " loss {percent:.0}%");
    (loss == u32::MAX).then_some(TcDrop::All)
}

/// `struct tc_fifo_qopt`: a queue too short for any packet, counted in bytes or in packets.
fn queue(kind: &str, options: &[u8], shown: &mut String) -> Option<TcDrop> {
    let limit = word(options.get(..4)?, 0);
    if kind == "pfifo" {
        let _ = write!(shown, " limit {limit}p");
        return (limit == 0).then_some(TcDrop::All);
    }
    let _ = write!(shown, " limit {limit}b");
    Some(TcDrop::Larger(limit.saturating_sub(ETHERNET)))
}

/// `TCA_TBF_PARMS`: a packet larger than the bucket or than the queue never passes.
fn tbf(attrs: Attrs<'_>, shown: &mut String) -> Option<TcDrop> {
    let parms = attrs.get(1)?;
    let rate = wide(attrs.get(4)).unwrap_or(u64::from(word(parms, 8)));
    let (limit, buffer) = (word(parms, 24), word(parms, 28));
    let burst = bytes(rate, buffer);
    let _ = write!(shown, " rate {}bit burst {burst}b limit {limit}b", rate * 8);
    let most = burst.min(limit).saturating_sub(ETHERNET);
    Some(TcDrop::Larger(most))
}

/// A `u64` attribute.
pub(super) fn wide(value: Option<&[u8]>) -> Option<u64> {
    value?.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

/// How many bytes a rate (in bytes a second) lets through in so many ticks.
pub(super) fn bytes(rate: u64, ticks: u32) -> u32 {
    let nanoseconds = u128::from(ticks) * u128::from(TICK);
    // The kernel keeps time in whole ticks, and so a byte is lost in the one direction: it is rounded up here.
    let all = (u128::from(rate) * nanoseconds).div_ceil(1_000_000_000);
    u32::try_from(all).unwrap_or(u32::MAX)
}

/// The filters of one place, read in order.
pub(super) struct Filters {
    ingress: bool,
    device: String,
    /// A filter before may have taken packets away from those that follow.
    shielded: bool,
    found: Vec<TrafficControl>,
}

impl Filters {
    /// Those of a device, on its way in or out.
    pub(super) fn new(device: &str, ingress: bool) -> Self {
        Self {
            ingress,
            device: device.to_owned(),
            shielded: false,
            found: Vec::new(),
        }
    }

    /// Takes an `RTM_NEWTFILTER`.
    pub(super) fn take(&mut self, body: &[u8]) {
        let Some(filter) = tc_filter::read(body) else {
            return;
        };
        let way = if self.ingress { "ingress" } else { "egress" };
        let shown = format!("filter dev {} {way} {}", self.device, filter.text);
        let drops = match filter.effect {
            Effect::Passes => {
                self.shielded = true;
                return;
            }
            Effect::Nothing => return,
            Effect::Drops(drop) if !self.shielded => Some(drop),
            Effect::Drops(_) | Effect::Depends => None,
        };
        // What is not understood may also let packets pass that a later filter would drop.
        self.shielded |= matches!(drops, None | Some(TcDrop::Program { .. }));
        self.found.push(TrafficControl {
            ingress: self.ingress,
            text: shown,
            drops,
        });
    }

    /// What was found.
    pub(super) fn end(self) -> Vec<TrafficControl> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_out_what_is_larger() {
        // `tc qdisc add dev X root tbf rate 1mbit burst 1000 limit 3000`
        let mut parms = vec![0; 36];
        parms[8..12].copy_from_slice(&125_000_u32.to_ne_bytes());
        parms[24..28].copy_from_slice(&3000_u32.to_ne_bytes());
        parms[28..32].copy_from_slice(&125_000_u32.to_ne_bytes());
        let mut body = vec![40, 0, 1, 0];
        body.extend(parms);
        let mut shown = String::new();
        assert_eq!(
            tbf(Attrs(&body), &mut shown),
            Some(TcDrop::Larger(1000 - ETHERNET))
        );
        assert_eq!(shown, " rate 1000000bit burst 1000b limit 3000b");
    }

    #[test]
    fn only_a_loss_of_all_is_certain() {
        let options = |loss: u32| {
            let mut bytes = vec![0; 24];
            bytes[8..12].copy_from_slice(&loss.to_ne_bytes());
            bytes
        };
        let mut shown = String::new();
        assert_eq!(netem(&options(u32::MAX), &mut shown), Some(TcDrop::All));
        assert!(shown.ends_with("loss 100%"), "{shown}");
        assert_eq!(netem(&options(u32::MAX / 2), &mut shown), None);
    }
}
