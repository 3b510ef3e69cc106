//! Why the kernel dropped a packet: its own reason (`enum skb_drop_reason`), by the tracepoint `skb:kfree_skb`.
//!
//! That tells a buffer's address and no packet. Two others tell the address along with link and length, and those are
//! known of every frame that was caught: so a drop is joined to the last frame that lay in the same buffer before.
//!
//! The tracepoints are read by descriptors, and end with them.

mod perf;
mod tracefs;

use std::io;

use wharf_core::trace::seen::{Dropped, Leg};
use wharf_core::trace::state::{ObservedState, Place, SpaceId};

use super::capture::Caught;
use super::flow::Flow;
use perf::{Rings, Sample};
use tracefs::{Format, Tracefs};

/// Between a frame's time stamp and the tracepoint beside it; clocks are compared once.
const BESIDE: u64 = 300_000;
/// The longest that a packet lies in a queue; later the buffer may have become another's.
const QUEUED: u64 = 5_000_000;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// What is no drop, or says nothing.
const EMPTY: [&str; 2] = ["NOT_SPECIFIED", "CONSUMED"];

/// The tracepoints, being recorded.
pub(super) struct Drops {
    rings: Rings,
    freed: Format,
    came: Format,
    left: Format,
}

/// A buffer at some moment.
struct Moment {
    buffer: u64,
    at: u64,
}

impl Drops {
    /// Begins to record, on all processors.
    pub(super) fn start(flow: &Flow) -> io::Result<Self> {
        let tracefs = Tracefs::open()?;
        let freed = tracefs.format("skb/kfree_skb")?;
        let came = tracefs.format("net/netif_receive_skb")?;
        let left = tracefs.format("net/net_dev_start_xmit")?;
        let ether = if flow.v6() { 0x86dd } else { 0x800 };
        // Neither the packet nor any answer that stops it is long.
        let short = "len > 30 && len < 400".to_owned();
        let rings = Rings::start(&[
            (freed.id, format!("protocol == {ether}")),
            (came.id, short.clone()),
            (left.id, short),
        ])?;
        Ok(Self {
            rings,
            freed,
            came,
            left,
        })
    }

    /// Ends, and tells the drops of what was caught.
    pub(super) fn stop(
        self,
        state: &ObservedState,
        flow: &Flow,
        all: &[(SpaceId, &Caught)],
    ) -> Vec<Dropped> {
        let samples = self.rings.stop();
        let mut dropped: Vec<(u64, Dropped)> = Vec::new();
        let frames: Vec<(Place, Leg, &Caught, Vec<Moment>)> = all
            .iter()
            .filter_map(|(space, caught)| {
                let (leg, _) = flow.classify(&caught.bytes)?;
                let place = Place {
                    space: *space,
                    index: caught.link,
                };
                let name = &state.link(place)?.name;
                Some((place, leg, *caught, self.beside(&samples, name, caught)))
            })
            .collect();
        let own = frames.iter().map(|(_, _, caught, _)| caught.len);
        let lens: Vec<u64> = own
            .flat_map(|len| [len as u64, (len + ETHERNET) as u64])
            .collect();
        for sample in samples.iter().filter(|s| s.kind == self.freed.id) {
            let Some(reason) = self.reason(sample) else {
                continue;
            };
            let buffer = self.freed.number(&sample.raw, "skbaddr");
            // The last frame in that buffer before.
            let last = frames
                .iter()
                .flat_map(|(place, leg, _, moments)| moments.iter().map(move |m| (place, leg, m)))
                .filter(|(_, _, m)| Some(m.buffer) == buffer && m.at <= sample.at)
                .filter(|(_, _, m)| sample.at - m.at < QUEUED)
                .max_by_key(|(_, _, m)| m.at);
            let Some((place, leg, moment)) = last else {
                continue;
            };
            if self.is_used_again(&samples, &lens, moment, sample.at) {
                continue;
            }
            let drop = Dropped {
                place: Some(*place),
                leg: *leg,
                reason,
                function: None,
            };
            dropped.push((sample.at, drop));
        }
        dropped.sort_by_key(|(at, _)| *at);
        dropped.dedup();
        dropped.into_iter().map(|(_, d)| d).collect()
    }

    fn reason(&self, sample: &Sample) -> Option<String> {
        let number = self.freed.number(&sample.raw, "reason")?;
        let word = self.freed.symbols.get(&number)?;
        (!EMPTY.contains(&word.as_str())).then(|| word.clone())
    }

    /// Buffers in which a caught frame may have lain.
    fn beside(&self, samples: &[Sample], name: &str, caught: &Caught) -> Vec<Moment> {
        let (format, extra) = match caught.out {
            true => (&self.left, ETHERNET),
            false => (&self.came, 0),
        };
        let len = (caught.len + extra) as u64;
        samples
            .iter()
            .filter(|s| s.kind == format.id && s.at.abs_diff(caught.at) < BESIDE)
            .filter(|s| format.number(&s.raw, "len") == Some(len))
            .filter(|s| format.text(&s.raw, "name").as_deref() == Some(name))
            .filter_map(|s| {
                Some(Moment {
                    buffer: format.number(&s.raw, "skbaddr")?,
                    at: s.at,
                })
            })
            .collect()
    }

    /// Whether the buffer became another packet's between a frame and a drop.
    fn is_used_again(&self, samples: &[Sample], lens: &[u64], moment: &Moment, at: u64) -> bool {
        let between = samples.iter().filter(|s| s.at > moment.at && s.at < at);
        let mut other = between.filter(|s| {
            let format = match s.kind {
                kind if kind == self.came.id => &self.came,
                kind if kind == self.left.id => &self.left,
                _ => &self.freed,
            };
            let same = format.number(&s.raw, "skbaddr") == Some(moment.buffer);
            let len = format.number(&s.raw, "len");
            same && len.is_none_or(|len| !lens.contains(&len))
        });
        other.next().is_some()
    }
}
