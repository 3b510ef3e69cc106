//! Tracked connections that concern the asked addresses.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use wharf_core::trace::state::{Flow, Tuple};
use wharf_nft::conntrack::{Conntrack, ConntrackFilter, Entry};
use wharf_nft::{Family, NftError};

/// Up to so many entries the whole table is read in one go; above, the kernel sorts out once for each address.
const FEW: u32 = 4_000;
/// More than this nobody looks through.
const MOST: usize = 1_000;

/// Which entries are of interest.
#[derive(Clone)]
pub(super) enum Wanted {
    /// Those with one of the addresses.
    Of(Vec<IpAddr>),
    /// All, if they are few.
    All,
    /// None.
    Nothing,
}

/// What was found.
pub(super) struct Found {
    pub(super) flows: Vec<Flow>,
    /// Entries in the table.
    pub(super) count: u32,
    /// There were more than could be kept.
    pub(super) cut: bool,
}

/// Reads the wanted entries of the thread's namespace.
pub(super) fn read(wanted: &Wanted) -> Result<Found, NftError> {
    let mut table = Conntrack::open()?;
    let count = table.count()?;
    let mut entries = match wanted {
        Wanted::Of(addrs) => of(addrs, &mut table, count)?,
        Wanted::All if count > 0 && count <= FEW => table.dump()?,
        Wanted::All | Wanted::Nothing => Vec::new(),
    };
    let cut = entries.len() > MOST;
    entries.truncate(MOST);
    Ok(Found {
        flows: entries.iter().map(flow).collect(),
        count,
        cut,
    })
}

fn of(addrs: &[IpAddr], table: &mut Conntrack, count: u32) -> Result<Vec<Entry>, NftError> {
    let mut entries = Vec::new();
    if count == 0 || addrs.is_empty() {
        // Nothing to look for.
    } else if count <= FEW {
        entries = table.dump()?;
        entries.retain(|e| addrs.iter().any(|a| concerns(e, *a)));
    } else {
        let mut seen = HashSet::new();
        for addr in addrs {
            for filter in filters(*addr) {
                let more = table.dump_matching(&filter)?;
                entries.extend(more.into_iter().filter(|e| seen.insert((e.id, e.orig))));
            }
        }
    }
    Ok(entries)
}

fn concerns(entry: &Entry, addr: IpAddr) -> bool {
    let (there, back) = (&entry.orig, &entry.reply);
    [there.src, there.dst, back.src, back.dst].contains(&addr)
}

fn filters(addr: IpAddr) -> [ConntrackFilter; 4] {
    let family = if addr.is_ipv4() {
        Family::Ip
    } else {
        Family::Ip6
    };
    let mut all = [(); 4].map(|()| ConntrackFilter::new(family));
    all[0].orig_src = Some(addr);
    all[1].orig_dst = Some(addr);
    all[2].reply_src = Some(addr);
    all[3].reply_dst = Some(addr);
    all
}

fn flow(entry: &Entry) -> Flow {
    Flow {
        original: tuple(&entry.orig),
        reply: tuple(&entry.reply),
        status: entry.status,
        mark: entry.mark.unwrap_or(0),
        zone: entry.zone.unwrap_or(0),
        text: text(entry),
    }
}

fn tuple(t: &wharf_nft::conntrack::Tuple) -> Tuple {
    let (sport, dport) = match &t.icmp {
        Some(icmp) => (icmp.id, u16::from_be_bytes([icmp.kind, icmp.code])),
        None => (t.sport.unwrap_or(0), t.dport.unwrap_or(0)),
    };
    Tuple {
        src: t.src,
        dst: t.dst,
        protocol: t.proto,
        sport,
        dport,
    }
}

/// As `conntrack -L` prints it, without counters.
fn text(entry: &Entry) -> String {
    const TCP: [&str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    let name = match entry.orig.proto {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        _ => "unknown",
    };
    let mut out = format!("{name} {}", entry.orig.proto);
    if let Some(seconds) = entry.timeout {
        let _ = write!(out, " {seconds}");
    }
    if let Some(state) = entry.tcp_state.and_then(|s| TCP.get(usize::from(s))) {
        let _ = write!(out, " {state}");
    }
    for (at, t) in [&entry.orig, &entry.reply].into_iter().enumerate() {
        let _ = write!(out, " src={} dst={}", t.src, t.dst);
        if let (Some(sport), Some(dport)) = (t.sport, t.dport) {
            let _ = write!(out, " sport={sport} dport={dport}");
        }
        if let Some(icmp) = &t.icmp {
            let (kind, code, id) = (icmp.kind, icmp.code, icmp.id);
            let _ = write!(out, " type={kind} code={code} id={id}");
        }
        if at == 0 && entry.status & Entry::SEEN_REPLY == 0 {
            out += " [UNREPLIED]";
        }
    }
    if entry.status & Entry::ASSURED != 0 {
        out += " [ASSURED]";
    }
    let _ = write!(out, " mark={}", entry.mark.unwrap_or(0));
    if let Some(zone) = entry.zone.filter(|z| *z != 0) {
        let _ = write!(out, " zone={zone}");
    }
    out
}
