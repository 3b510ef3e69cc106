//! A namespace on the way: routes, rules, neighbours, tc, sysctls, sockets, connections, packet rules.
//!
//! The last two take long where there are many, and are read apart from the rest.

use std::collections::HashMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use wharf_core::trace::ruleset::Chain;
use wharf_core::trace::state::Unread;
use wharf_nft::{NfSocket, NftError, Undecoded};

use super::links::{self, Row};
use super::spaces::Known;
use super::{OrNote, flows, ipsec, list, neighbours, policy, routes, sockets, sysctls, tc, unread};
use crate::kernel::netlink::socket::Rt;
use crate::observe::rules;

/// Packet rules as the kernel gives them: those of nftables, and those of iptables-legacy.
pub(super) struct Dump {
    nft: Result<Undecoded, NftError>,
    legacy: io::Result<Vec<Chain>>,
}

/// Reads the rest of a namespace whose links and addresses are known, but for connections and packet rules.
pub(super) fn read(one: &mut Known, notes: &mut Vec<Unread>) {
    one.space.full = true;
    if let Some(mut rt) = one.rt.take() {
        over_rtnetlink(one, &mut rt, notes);
        one.rt = Some(rt);
    }
    match one.enter() {
        Ok(_guard) => inside(one, notes),
        Err(error) => notes.push(unread(&one.space.name, "sysctls and sockets", error)),
    }
}

/// Reads connections and packet rules of a namespace whose rest was read.
pub(super) fn rules_and_flows(one: &mut Known, wanted: &flows::Wanted, notes: &mut Vec<Unread>) {
    match one.enter() {
        Ok(_guard) => {
            take(one, flows::read(wanted), dump(), notes);
        }
        Err(error) => {
            let what = "connections and packet rules";
            notes.push(unread(&one.space.name, what, error));
        }
    }
}

/// Takes over what was read of connections and packet rules.
pub(super) fn take(
    one: &mut Known,
    flows: Result<flows::Found, NftError>,
    dump: Dump,
    notes: &mut Vec<Unread>,
) {
    let space = &mut one.space;
    match flows {
        Ok(found) => {
            let most = space.sysctls.get("net.netfilter.nf_conntrack_max");
            let most = most.and_then(|text| text.parse().ok());
            space.conntrack = most.map(|most| (found.count, most));
            space.flows = found.flows;
            if found.cut {
                let why = "there are more than can be shown";
                notes.push(unread(&space.name, "some tracked connections", why));
            }
        }
        Err(error) => notes.push(unread(&space.name, "tracked connections", error)),
    }
    let decoded = dump.nft.and_then(|dump| Ok(dump.decode()?));
    match decoded {
        Ok(nft) => space.ruleset = rules::ruleset(nft),
        Err(error) => notes.push(unread(&space.name, "nftables rules", error)),
    }
    match dump.legacy {
        Ok(chains) => space.ruleset.chains.extend(chains),
        Err(error) => notes.push(unread(&space.name, "rules of iptables-legacy", error)),
    }
}

fn over_rtnetlink(one: &mut Known, rt: &mut Rt, notes: &mut Vec<Unread>) {
    let space = &mut one.space;
    let name = space.name.clone();
    let rows = list(rt, routes::GET, &[0; routes::HEADER], routes::read)
        .unwrap_or_note(&name, "routes", notes);
    let objects = nexthops(rt, &rows, &name, notes);
    space.routes = rows
        .into_iter()
        .map(|row| routes::spell_out(row, &objects))
        .collect();
    space.rules = list(rt, policy::GET, &[0; policy::HEADER], policy::read).unwrap_or_note(
        &name,
        "policy rules",
        notes,
    );
    space.rules.sort_by_key(|rule| rule.priority);
    let (ask, proxies) = (neighbours::question(), neighbours::proxy_question());
    space.neighbours = list(rt, neighbours::GET, &ask, neighbours::read).unwrap_or_note(
        &name,
        "neighbours",
        notes,
    );
    let more = list(rt, neighbours::GET, &proxies, neighbours::read);
    let more = more.unwrap_or_note(&name, "proxied neighbours", notes);
    space.neighbours.extend(more);
    let has = |kinds: &[&str]| {
        let kind = |r: &Row| kinds.contains(&r.link.kind.as_deref().unwrap_or_default());
        one.rows.iter().any(kind)
    };
    if has(&["bridge", "vxlan"]) {
        let ask = neighbours::fdb_question();
        space.fdb = list(rt, neighbours::GET, &ask, neighbours::read_fdb).unwrap_or_note(
            &name,
            "forwarding tables of bridges",
            notes,
        );
    }
    vlans(&mut one.rows, rt, &name, notes);
    traffic_control(&mut one.rows, rt, &name, notes);
}

/// The objects that routes name, where the kernel does not spell them out.
fn nexthops(
    rt: &mut Rt,
    rows: &[routes::Row],
    name: &str,
    notes: &mut Vec<Unread>,
) -> HashMap<u32, routes::Object> {
    if rows.iter().all(|row| row.nexthop.is_none()) {
        return HashMap::new();
    }
    let ask = [0; routes::NEXTHOP_HEADER];
    let all = list(rt, routes::GET_NEXTHOP, &ask, routes::read_nexthop);
    all.unwrap_or_note(name, "nexthop objects", notes)
        .into_iter()
        .collect()
}

fn vlans(rows: &mut [Row], rt: &mut Rt, name: &str, notes: &mut Vec<Unread>) {
    let filters = |r: &Row| r.link.bridge.as_ref().is_some_and(|b| b.vlan_filtering);
    if !rows.iter().any(filters) {
        return;
    }
    let all = list(rt, links::GET, &links::vlan_question(), links::read_vlans);
    for vlans in all.unwrap_or_note(name, "VLANs of bridges", notes) {
        let Some(row) = rows.iter_mut().find(|r| r.link.index == vlans.link) else {
            continue;
        };
        if let Some(bridge) = &mut row.link.bridge {
            bridge.pvid = vlans.pvid;
            bridge.vlans.clone_from(&vlans.list);
        }
        if let Some(port) = &mut row.link.port {
            port.pvid = vlans.pvid;
            port.vlans = vlans.list;
        }
    }
}

fn traffic_control(rows: &mut [Row], rt: &mut Rt, name: &str, notes: &mut Vec<Unread>) {
    let mut qdiscs = match list(rt, tc::GET_QDISC, &tc::question(), tc::read) {
        // A kernel without traffic control.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
        all => all.unwrap_or_note(name, "queueing disciplines", notes),
    };
    for qdisc in &mut qdiscs {
        let Some(row) = rows.iter_mut().find(|r| r.link.index == qdisc.link) else {
            continue;
        };
        row.link.tc.extend(qdisc.take());
        for (parent, ingress) in qdisc.hooks() {
            let ask = tc::filter_question(qdisc.link, parent);
            let mut filters = tc::Filters::new(&row.link.name, ingress);
            // Taken as they come, since what stands first keeps packets from what follows.
            let all = list(rt, tc::GET_FILTER, &ask, |body| Some(body.to_vec()));
            match all {
                // A discipline that takes no filters.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                all => {
                    let what = format!("tc filters of {}", row.link.name);
                    for body in all.unwrap_or_note(name, &what, notes) {
                        filters.take(&body);
                    }
                }
            }
            row.link.tc.extend(filters.end());
        }
    }
}

/// What follows the thread's namespace.
fn inside(one: &mut Known, notes: &mut Vec<Unread>) {
    let space = &mut one.space;
    let name = space.name.clone();
    sysctls::read(&name, &mut space.sysctls, notes);
    let bridges = one.rows.iter().map(|row| &row.link);
    let bridges = bridges.filter(|l| l.kind.as_deref() == Some("bridge"));
    sysctls::of_bridges(bridges.map(|l| l.name.as_str()), &mut space.sysctls);
    match sockets::read() {
        Ok(found) => {
            let range = space.sysctls.get("net.ipv4.ip_local_port_range");
            space.ports_in_use = found.in_use(range.map(String::as_str));
            space.sockets = found.sockets;
        }
        Err(error) => notes.push(unread(&name, "sockets", error)),
    }
    space.ipsec = ipsec::read(&name, notes);
    space.queues = queues();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    space.now = now.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0));
}

/// Whether a program takes packets from queues (one line each). A kernel without queues has no such file.
fn queues() -> Option<bool> {
    match std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(text) => Some(!text.trim().is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Takes the packet rules of all tools out of the thread's namespace. What they mean is told later, by the main thread:
/// it has less to do, and gets memory more cheaply.
pub(super) fn dump() -> Dump {
    Dump {
        nft: NfSocket::open().and_then(|mut socket| socket.undecoded()),
        legacy: rules::legacy::read(),
    }
}
