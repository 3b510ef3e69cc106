//! Neighbours, proxies, and the forwarding tables of bridges.

use wharf_core::trace::state::{FdbEntry, Neighbour, NeighbourState};

use super::attrs::{Attrs, byte, ip, mac, short, word};

/// `RTM_GETNEIGH`.
pub(super) const GET: u16 = 30;
/// `sizeof(struct ndmsg)`.
const HEADER: usize = 12;
const AF_BRIDGE: u8 = 7;
const NTF_SELF: u8 = 2;
const NTF_PROXY: u8 = 8;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// The question for neighbours.
pub(super) fn question() -> Vec<u8> {
    vec![0; HEADER]
}

/// The question for addresses this space answers for.
pub(super) fn proxy_question() -> Vec<u8> {
    let mut body = question();
    body[10] = NTF_PROXY;
    body
}

/// The question for forwarding tables.
pub(super) fn fdb_question() -> Vec<u8> {
    let mut body = question();
    body[0] = AF_BRIDGE;
    body
}

/// Reads an `RTM_NEWNEIGH`. Multicast addresses, which map by themselves, are left out.
pub(super) fn read(body: &[u8]) -> Option<Neighbour> {
    let attrs = Attrs::after(body, HEADER);
    let addr = attrs.get(1).and_then(ip)?;
    let proxy = byte(body, 10) & NTF_PROXY != 0;
    let state = match short(body, 8) {
        1 => NeighbourState::Incomplete,
        2 => NeighbourState::Reachable,
        4 => NeighbourState::Stale,
        8 => NeighbourState::Delay,
        16 => NeighbourState::Probe,
        32 => NeighbourState::Failed,
        NUD_NOARP => NeighbourState::NoArp,
        NUD_PERMANENT => NeighbourState::Permanent,
        _ if proxy => NeighbourState::Permanent,
        _ => return None,
    };
    (!addr.is_multicast()).then(|| Neighbour {
        link: word(body, 4),
        addr,
        mac: attrs.get(2).and_then(mac),
        state,
        proxy,
    })
}

/// Reads an entry of a forwarding table.
pub(super) fn read_fdb(body: &[u8]) -> Option<FdbEntry> {
    if byte(body, 0) != AF_BRIDGE {
        return None;
    }
    let attrs = Attrs::after(body, HEADER);
    let state = short(body, 8);
    Some(FdbEntry {
        link: word(body, 4),
        mac: attrs.get(2).and_then(mac)?,
        vlan: attrs.get(5).map(|v| short(v, 0)),
        own: byte(body, 10) & NTF_SELF != 0,
        fixed: state & (NUD_NOARP | NUD_PERMANENT) != 0,
        local: state & NUD_PERMANENT != 0,
        dst: attrs.get(1).and_then(ip),
    })
}
