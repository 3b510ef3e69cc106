//! The connection that the packet made in each namespace: what it was translated to, and its removal afterwards.

use std::collections::BTreeSet;

use wharf_core::trace::seen::{Header, Leg, Seen, Tracked};
use wharf_core::trace::state::SpaceId;
use wharf_nft::Family;
use wharf_nft::conntrack::{Conntrack, ConntrackFilter, Entry, Tuple};

use super::flow::Flow;
use super::join;

/// Tells the connections that the packet made in the namespace the thread is in, and removes them. `known` are the
/// numbers that trace messages gave; without those the addresses have to do.
pub(super) fn take(
    flow: &Flow,
    space: SpaceId,
    seen: &Seen,
    known: &BTreeSet<u32>,
) -> Vec<Tracked> {
    let headers: BTreeSet<_> = join::headers(seen, space, Leg::Question).collect();
    let Ok(mut conntrack) = Conntrack::open() else {
        return Vec::new();
    };
    // Mostly there are none but on the host, and counting is cheap.
    if headers.is_empty() || conntrack.count().is_ok_and(|count| count == 0) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for header in headers {
        let filter = filter(flow, header);
        for entry in conntrack.dump_matching(&filter).unwrap_or_default() {
            if !is_own(flow, &entry, known) {
                continue;
            }
            all.push(Tracked {
                space,
                original: shown(&entry.orig),
                reply: shown(&entry.reply),
                answered: entry.status & Entry::SEEN_REPLY != 0,
            });
            // It may be gone by now.
            let _ = conntrack.delete_entry(&entry);
        }
    }
    // Answers that were not known for answers began connections of their own.
    let strays: BTreeSet<_> = join::headers(seen, space, Leg::Answer).collect();
    for header in strays.into_iter().filter(|header| header.dport != 0) {
        let found = conntrack.dump_matching(&filter(flow, header));
        for entry in found.unwrap_or_default() {
            let _ = conntrack.delete_entry(&entry);
        }
    }
    all
}

fn filter(flow: &Flow, header: Header) -> ConntrackFilter {
    let mut filter = ConntrackFilter::new(match flow.v6() {
        true => Family::Ip6,
        false => Family::Ip,
    });
    filter.orig_src = Some(header.src);
    filter.orig_dst = Some(header.dst);
    if header.dport != 0 {
        filter.proto = Some(flow.protocol());
        filter.orig_sport = Some(header.sport);
        filter.orig_dport = Some(header.dport);
    }
    filter
}

fn is_own(flow: &Flow, entry: &Entry, known: &BTreeSet<u32>) -> bool {
    let by_number = entry.id.is_some_and(|id| known.contains(&id));
    let like_it = entry.orig.proto == flow.protocol()
        && entry.orig.icmp.is_none_or(|icmp| icmp.id == flow.own);
    by_number || like_it
}

fn shown(tuple: &Tuple) -> Header {
    Header {
        src: tuple.src,
        dst: tuple.dst,
        sport: tuple.sport.unwrap_or_default(),
        dport: tuple.dport.unwrap_or_default(),
    }
}
