//! The other ends of veth pairs, and links on links of other namespaces.
//!
//! A link tells the index of the other one, and a number for its namespace that holds in its own namespace only
//! (`IFLA_LINK_NETNSID`). The numbers are asked for (`RTM_GETNSID`) where links have such.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};

use wharf_core::trace::state::{Place, SpaceId};

use super::attrs::{Attrs, word};
use super::spaces::Known;
use crate::process::netns as named;

/// `RTM_GETNSID`.
const GET: u16 = 90;
/// `NETNSA_NSID`, `NETNSA_FD`.
const NSID: u16 = 1;
const FD: u16 = 3;

/// Fills in `peer`, `lower` and `lower_space` of all links.
pub(super) fn resolve(known: &mut [Known]) {
    let host = named::current().ok();
    for here in 0..known.len() {
        within(&mut known[here], here);
        let open = |k: &Known| k.rows.iter().any(|r| r.nsid.is_some() && is_open(r));
        if !open(&known[here]) {
            continue;
        }
        let numbers = numbers(known, here, host.as_ref());
        for at in 0..known[here].rows.len() {
            let row = &known[here].rows[at];
            let (Some(iflink), Some(nsid)) = (row.iflink, row.nsid) else {
                continue;
            };
            let Some(&there) = numbers.get(&nsid) else {
                continue;
            };
            join(
                known,
                Place {
                    space: here,
                    index: row.link.index,
                },
                Place {
                    space: there,
                    index: iflink,
                },
            );
        }
    }
}

fn is_open(row: &super::links::Row) -> bool {
    row.link.peer.is_none() && row.link.lower_space.is_none()
}

/// Links whose other end is in the same namespace, and what is known without asking.
fn within(known: &mut Known, here: SpaceId) {
    for row in &mut known.rows {
        let is_veth = row.link.kind.as_deref() == Some("veth");
        match row.iflink {
            Some(index) if index == row.link.index && row.nsid.is_none() => {}
            Some(index) if is_veth && row.nsid.is_none() => {
                row.link.peer = Some(Place { space: here, index });
            }
            other if row.link.peer.is_none() => row.link.lower = other,
            _ => {}
        }
    }
}

/// Notes a link's other end, and of a veth pair both.
fn join(known: &mut [Known], near: Place, far: Place) {
    let end = |known: &mut [Known], place: Place, other: Place| {
        let rows = &mut known[place.space].rows;
        let Some(row) = rows.iter_mut().find(|r| r.link.index == place.index) else {
            return false;
        };
        let is_veth = row.link.kind.as_deref() == Some("veth");
        if is_veth && row.iflink == Some(other.index) {
            row.link.peer = Some(other);
            row.link.lower = None;
        }
        is_veth
    };
    let there = known[far.space]
        .rows
        .iter()
        .any(|r| r.link.index == far.index);
    if !there {
        return;
    }
    if end(known, near, far) {
        end(known, far, near);
    } else if let Some(row) = known[near.space]
        .rows
        .iter_mut()
        .find(|r| r.link.index == near.index)
    {
        row.link.lower_space = Some(far.space);
    }
}

/// The numbers by which one namespace knows the others.
fn numbers(
    known: &mut [Known],
    here: SpaceId,
    host: Option<&named::Netns>,
) -> HashMap<i32, SpaceId> {
    let mut spaces = Vec::new();
    let mut questions = Vec::new();
    for (space, other) in known.iter().enumerate().filter(|(at, _)| *at != here) {
        let Some(door) = other.door.as_ref().or(host) else {
            continue;
        };
        // struct rtgenmsg, padded.
        let mut body = vec![0; 4];
        body.extend(8_u16.to_ne_bytes());
        body.extend(FD.to_ne_bytes());
        body.extend(door.as_fd().as_raw_fd().to_ne_bytes());
        questions.push(body);
        spaces.push(space);
    }
    let mut numbers = HashMap::new();
    let Some(rt) = known[here].rt.as_mut() else {
        return numbers;
    };
    // A namespace without a number here has no link to here.
    let _ = rt.ask_raw(GET, &questions, |at, body| {
        let number = body.and_then(|b| Attrs::after(b, 4).get(NSID));
        let number = number.map(|v| word(v, 0).cast_signed());
        if let (Some(number @ 0..), Some(space)) = (number, spaces.get(at)) {
            numbers.insert(number, *space);
        }
    });
    numbers
}
