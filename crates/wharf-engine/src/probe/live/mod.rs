//! One real packet, sent from a namespace and followed through all others on its way.
//!
//! ```text
//! send ─> packet rules (trace_rule) and frames on links (capture) in each namespace, drop reasons (drops) ─> join ─> Seen
//! ```
//!
//! One packet of the kind asked about, of a connection its handshake and its end. Where it is lost without a word, the
//! same once more, with the kernel's reasons for drops recorded: beginning to record is cheap, ending is not. What is put in place for that lasts as
//! long as the process at most: descriptors, and a table that the kernel removes with its socket. Entries of connection
//! tracking that the packet made are removed again.
//!
//! Not here: what follows from what was seen (the core's `trace::verdict`).

mod capture;
mod drops;
mod flow;
mod join;
mod send;
mod trace_rule;
mod tracked;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use wharf_core::trace::query::{Query, Source, Target};
use wharf_core::trace::report::Report;
use wharf_core::trace::seen::{Outcome, Seen};
use wharf_core::trace::state::{HOST, ObservedState, SpaceId};

use crate::process::netns::{self, Netns};
use flow::Flow;
use send::Sender;
use watch::{Post, Watch};

/// The most namespaces that are watched.
const MOST: usize = 12;

/// Sends the packet that was asked about from its namespace and follows it. `path` tells where a namespace is, and
/// `waiting` is called once if an answer is long in coming.
///
/// # Errors
/// No packet could be sent; why.
pub fn probe(
    state: &ObservedState,
    query: &Query,
    report: &Report,
    path: impl Fn(SpaceId) -> Option<PathBuf>,
    waiting: impl FnOnce(),
) -> Result<Seen, String> {
    let Source::Space(source, from) = query.source else {
        return Err("it would have to be sent from elsewhere".to_owned());
    };
    let to: IpAddr = match report.destination.address.as_deref().map(str::parse) {
        Some(Ok(to)) => to,
        _ => return Err("there is no address to send it to".to_owned()),
    };
    let port = report.destination.port.unwrap_or_default();
    let random = random().map_err(|e| format!("no random number: {e}"))?;
    let mut flow = Flow::new(query.l4, to, port, random);
    let mut unable = Vec::new();
    let mut doors = Doors::default();
    for space in watched(state, query, report, source, to) {
        match doors.open(state, space, path(space)) {
            Ok(()) => {}
            Err(error) if space == source => return Err(error.to_string()),
            Err(error) => unable.push(format!("{} is not watched: {error}", name(state, space))),
        }
    }
    let sender = doors
        .inside(source, || Sender::open(&mut flow, from))
        .map_err(|e| format!("{}: {e}", name(state, source)))?;
    let mut watch = Watch::new(&flow, from, doors.get(source));
    for space in doors.spaces() {
        // Two traces at once have tables of their own.
        let number = (random >> 20) as u32;
        let opened = doors.inside(space, || {
            watch.add(Post::open(state, space, &flow, number, &mut unable));
            Ok(())
        });
        if let Err(error) = opened {
            unable.push(format!("{} is not watched: {error}", name(state, space)));
        }
    }
    let began = Instant::now();
    let told = watch.follow(sender, waiting);
    let waited = began.elapsed();
    let (mut seen, posts) = watch.seen(state, source, told, &mut unable);
    if !matches!(seen.outcome, Outcome::NotSent(_)) {
        seen.waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    }
    seen.unable.extend(unable);
    for space in doors.spaces() {
        let known = watch::connections(&posts, space);
        // What stays is gone by itself soon.
        let found = doors.inside(space, || Ok(tracked::take(&flow, space, &seen, &known)));
        seen.tracked.extend(found.unwrap_or_default());
    }
    Ok(seen)
}

/// The namespaces on the way, the sender's first.
fn watched(
    state: &ObservedState,
    query: &Query,
    report: &Report,
    source: SpaceId,
    to: IpAddr,
) -> Vec<SpaceId> {
    let mut all = vec![source, HOST];
    if let Target::Space(target) = query.target {
        all.push(target);
    }
    let named = |name: &str| state.spaces.iter().position(|s| s.name == name);
    all.extend(report.hops.iter().filter_map(|hop| named(&hop.netns)));
    let owns = |s: &wharf_core::trace::Space| s.addrs.iter().any(|a| a.net.addr() == to);
    let owners = state.spaces.iter().enumerate().filter(|(_, s)| owns(s));
    if !to.is_loopback() {
        all.extend(owners.map(|(id, _)| id));
    }
    let mut once = BTreeSet::new();
    all.retain(|id| *id < state.spaces.len() && once.insert(*id));
    all.truncate(MOST);
    all
}

fn name(state: &ObservedState, space: SpaceId) -> &str {
    state.spaces.get(space).map_or("", |s| s.name.as_str())
}

/// Open namespaces; `None` is where we are.
#[derive(Default)]
struct Doors(Vec<(SpaceId, Option<Netns>)>);

impl Doors {
    /// Opens a namespace, if it is still the one that was read.
    fn open(
        &mut self,
        state: &ObservedState,
        space: SpaceId,
        path: Option<PathBuf>,
    ) -> io::Result<()> {
        let door = match path {
            None if space == HOST => None,
            None => return Err(io::Error::other("it is not known where it is")),
            Some(path) => Some(netns::open(&path).map_err(io::Error::other)?),
        };
        let other = |door: &Netns| door.inode() != state.spaces[space].inode;
        if door.as_ref().is_some_and(other) {
            return Err(io::Error::other("it is another namespace by now"));
        }
        self.0.push((space, door));
        Ok(())
    }

    fn spaces(&self) -> impl Iterator<Item = SpaceId> + '_ {
        self.0.iter().map(|(space, _)| *space)
    }

    fn get(&self, space: SpaceId) -> Option<&Netns> {
        let door = self.0.iter().find(|(id, _)| *id == space);
        door.and_then(|(_, door)| door.as_ref())
    }

    /// Runs `f` in a namespace.
    fn inside<T>(&self, space: SpaceId, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.spaces().any(|id| id == space) {
            return Err(io::Error::other("it could not be opened"));
        }
        let door = self.get(space);
        let _back = door
            .map(|door| netns::enter(door.as_fd()).map_err(io::Error::other))
            .transpose()?;
        f()
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer and length are those of a live array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}
