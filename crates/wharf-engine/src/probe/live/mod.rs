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

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wharf_core::trace::L4;
use wharf_core::trace::query::{Query, Source, Target};
use wharf_core::trace::report::Report;
use wharf_core::trace::ruleset::TableFamily;
use wharf_core::trace::seen::{Outcome, Seen};
use wharf_core::trace::state::{HOST, ObservedState, SpaceId};
use wharf_nft::Family;
use wharf_nft::conntrack::{Conntrack, ConntrackFilter};

use crate::process::netns::{self, Netns};
use capture::{Capture, Caught};
use drops::Drops;
use flow::Flow;
use join::{Told, Trail};
use send::Sender;
use trace_rule::Traced;

/// How long an answer is waited for: less than a second, after which TCP would send again.
const PATIENCE: Duration = Duration::from_millis(900);
/// When a packet without an answer is sent once more.
const AGAIN: Duration = Duration::from_millis(150);
/// How long a datagram's answer is waited for after it arrived: most need none.
const ARRIVED: Duration = Duration::from_millis(500);
/// After a rule stopped the packet: only who refuses it may still say so.
const REFUSAL: Duration = Duration::from_millis(60);
/// After the end: what is still in queues.
const SETTLE: Duration = Duration::from_millis(3);
/// When somebody who watches should be told that this takes longer.
const LONG: Duration = Duration::from_millis(300);
/// The most namespaces that are watched.
const MOST: usize = 12;

/// A namespace that is watched.
struct Post {
    space: SpaceId,
    capture: Option<Capture>,
    caught: Vec<Caught>,
    traced: Option<Traced>,
    trail: Trail,
}

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
    let mut doors = Vec::new();
    for space in watched(state, query, report, source, to) {
        match door(state, space, path(space)) {
            Ok(door) => doors.push((space, door)),
            Err(error) if space == source => return Err(error.to_string()),
            Err(error) => unable.push(format!("{} is not watched: {error}", name(state, space))),
        }
    }
    let sender = inside(&doors, source, || Sender::open(&mut flow, from))
        .map_err(|e| format!("{}: {e}", name(state, source)))?;
    let number = (random >> 20) as u32;
    let mut posts: Vec<Post> = Vec::new();
    for (space, _) in &doors {
        let opened = inside(&doors, *space, || {
            Ok(Post::open(state, *space, &flow, number, &mut unable))
        });
        match opened {
            Ok(post) => posts.push(post),
            Err(error) => unable.push(format!("{} is not watched: {error}", name(state, *space))),
        }
    }
    let began = Instant::now();
    let mut watch = Watch {
        flow: &flow,
        from,
        source: door_of(&doors, source),
        posts,
        drops: None,
        sent: 1,
    };
    let told = watch.follow(sender, waiting);
    let waited = began.elapsed();
    let Watch {
        mut posts,
        drops,
        sent,
        ..
    } = watch;
    for post in &mut posts {
        if let Some(traced) = &mut post.traced
            && let Err(error) = traced.stop()
        {
            unable.push(format!(
                "the trace rule in {} goes only now: {error}",
                name(state, post.space)
            ));
        }
    }
    let mut seen = join::seen(&flow, source, &posts, told, sent);
    match drops {
        None => {}
        Some(Ok(drops)) => seen.drops = drops.stop(state, &flow, &join::by_time(&posts)),
        Some(Err(error)) => unable.push(format!(
            "the kernel's reasons for drops are not told: {error}"
        )),
    }
    seen.waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    seen.unable.extend(unable);
    for (space, _) in &doors {
        // What stays is gone by itself soon.
        let _ = inside(&doors, *space, || {
            forget(&flow, *space, &seen);
            Ok(())
        });
    }
    if matches!(&seen.outcome, Outcome::NotSent(_)) {
        seen.waited = 0;
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

/// Opens a namespace, if it is still the one that was read; `None` is where we are.
fn door(state: &ObservedState, space: SpaceId, path: Option<PathBuf>) -> io::Result<Option<Netns>> {
    let Some(path) = path else {
        return match space {
            HOST => Ok(None),
            _ => Err(io::Error::other("it is not known where it is")),
        };
    };
    let door = netns::open(&path).map_err(io::Error::other)?;
    if door.inode() != state.spaces[space].inode {
        return Err(io::Error::other("it is another namespace by now"));
    }
    Ok(Some(door))
}

/// Runs `f` in a namespace.
fn inside<T>(
    doors: &[(SpaceId, Option<Netns>)],
    space: SpaceId,
    f: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let door = doors.iter().find(|(id, _)| *id == space);
    let _back = match door {
        Some((_, Some(door))) => Some(netns::enter(door.as_fd()).map_err(io::Error::other)?),
        Some((_, None)) => None,
        None => return Err(io::Error::other("it could not be opened")),
    };
    f()
}

fn door_of(doors: &[(SpaceId, Option<Netns>)], space: SpaceId) -> Option<&Netns> {
    let door = doors.iter().find(|(id, _)| *id == space);
    door.and_then(|(_, door)| door.as_ref())
}

impl Post {
    /// Watches the namespace the thread is in.
    fn open(
        state: &ObservedState,
        space: SpaceId,
        flow: &Flow,
        number: u32,
        unable: &mut Vec<String>,
    ) -> Self {
        let here = name(state, space);
        let capture = Capture::open(flow)
            .map_err(|e| unable.push(format!("frames in {here} are not seen: {e}")));
        if let Err(error) = trace_rule::sweep(&left(state, space)) {
            unable.push(format!("an old trace rule in {here} stays: {error}"));
        }
        let bridged = state.spaces[space].links.iter().any(|l| l.bridge.is_some());
        let traced = Traced::start(flow, number, bridged)
            .map_err(|e| unable.push(format!("packet rules of {here} are not followed: {e}")));
        Self {
            space,
            capture: capture.ok(),
            caught: Vec::new(),
            traced: traced.ok(),
            trail: Trail::default(),
        }
    }

    /// Takes what there is; whether a rule stopped the packet or its answer.
    fn take(&mut self, flow: &Flow) -> bool {
        if let Some(capture) = &self.capture {
            capture.take(&mut self.caught);
        }
        let mut events = Vec::new();
        if let Some(traced) = &mut self.traced {
            traced.take(&mut events);
        }
        for event in &events {
            self.trail.add(self.space, flow, event);
        }
        self.trail.stopped()
    }
}

/// Trace tables that were there when the state was read.
fn left(state: &ObservedState, space: SpaceId) -> Vec<(Family, String)> {
    let chains = state.spaces[space].ruleset.chains.iter();
    let own = chains.filter(|c| Traced::is_own(&c.table));
    let all: BTreeSet<(Family, String)> = own
        .map(|c| {
            let family = match c.family {
                TableFamily::Bridge => Family::Bridge,
                _ => Family::Inet,
            };
            (family, c.table.clone())
        })
        .collect();
    all.into_iter().collect()
}

/// Everything that is watched, while the packet is on its way.
struct Watch<'a> {
    flow: &'a Flow,
    from: Option<IpAddr>,
    source: Option<&'a Netns>,
    posts: Vec<Post>,
    drops: Option<io::Result<Drops>>,
    /// Packets that were sent.
    sent: usize,
}

impl Watch<'_> {
    /// Sends, and waits for an answer, a refusal, a rule that stops it, or the end of patience.
    fn follow(&mut self, mut sender: Sender, waiting: impl FnOnce()) -> Told {
        let began = Instant::now();
        let mut waiting = Some(waiting);
        let mut end = began + PATIENCE;
        let mut told = sender.send(self.flow);
        let mut stopped = false;
        while told == Told::Nothing && Instant::now() < end {
            let passed = began.elapsed();
            if passed >= LONG
                && let Some(tell) = waiting.take()
            {
                tell();
            }
            if passed >= AGAIN && self.sent == 1 && !stopped {
                if self.flow.l4 == L4::Udp && self.has_arrived() {
                    end = end.min(began + ARRIVED);
                    self.sent = 0;
                } else if let Some(told_again) = self.again(&mut sender) {
                    told = told_again;
                    continue;
                }
            }
            let next = [AGAIN, LONG].into_iter().find(|at| *at > passed);
            let most = next.map_or(end, |at| (began + at).min(end));
            wait(
                &sender,
                &self.posts,
                most.saturating_duration_since(Instant::now()),
            );
            told = sender.told(self.flow);
            if self.take() && !std::mem::replace(&mut stopped, true) {
                end = end.min(Instant::now() + REFUSAL);
            }
        }
        self.sent = self.sent.max(1);
        sender.close();
        std::thread::sleep(SETTLE);
        self.take();
        told
    }

    /// Sends the same once more; `None` if that cannot be done, and nothing has changed.
    fn again(&mut self, sender: &mut Sender) -> Option<Told> {
        self.sent = 0;
        let _back = match self.source {
            Some(door) => Some(netns::enter(door.as_fd()).ok()?),
            None => None,
        };
        self.drops = Some(Drops::start(self.flow));
        sender.renew(self.flow, self.from).ok()?;
        self.sent = 2;
        Some(sender.send(self.flow))
    }

    /// Whether the packet came in where nothing of it went on.
    fn has_arrived(&self) -> bool {
        let last = self.posts.iter().flat_map(|p| &p.caught);
        let last = last.filter(|c| self.flow.classify(&c.bytes).is_some());
        last.max_by_key(|c| c.at).is_some_and(|c| !c.out)
    }

    fn take(&mut self) -> bool {
        let flow = self.flow;
        self.posts
            .iter_mut()
            .fold(false, |any, p| p.take(flow) | any)
    }
}

/// Sleeps until there is something to read.
fn wait(sender: &Sender, posts: &[Post], most: Duration) {
    let events = match sender.is_connection() {
        true => libc::POLLOUT,
        false => libc::POLLIN,
    };
    let entry = |fd: i32, events: i16| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let mut all = vec![entry(sender.raw(), events)];
    for post in posts {
        all.extend(post.capture.iter().map(|c| entry(c.raw(), libc::POLLIN)));
        all.extend(post.traced.iter().map(|t| entry(t.raw(), libc::POLLIN)));
    }
    let millis = i32::try_from(most.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the pointer and length are those of a live vector. An interruption only ends the wait early.
    unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, millis) };
}

/// Removes entries of connection tracking that the packet made in the namespace the thread is in.
fn forget(flow: &Flow, space: SpaceId, seen: &Seen) {
    let headers: BTreeSet<_> = join::questions(seen, space).collect();
    let Some(mut conntrack) = (!headers.is_empty())
        .then(Conntrack::open)
        .and_then(Result::ok)
    else {
        return;
    };
    for header in headers {
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
        for entry in conntrack.dump_matching(&filter).unwrap_or_default() {
            if entry.orig.proto == flow.protocol()
                && entry.orig.icmp.is_none_or(|icmp| icmp.id == flow.own)
            {
                let tuple = wharf_nft::conntrack::Tuple {
                    zone: entry.zone,
                    ..entry.orig
                };
                // It may be gone by now.
                let _ = conntrack.delete(&tuple, entry.id);
            }
        }
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
