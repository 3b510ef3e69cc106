//! The time between sending and knowing: waiting, looking at all namespaces at once, sending once more.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use wharf_core::trace::L4;
use wharf_core::trace::ruleset::TableFamily;
use wharf_core::trace::seen::Seen;
use wharf_core::trace::state::{ObservedState, SpaceId};
use wharf_nft::Family;

use super::capture::{Capture, Caught};
use super::drops::Drops;
use super::flow::Flow;
use super::join::{self, Told, Trail};
use super::send::Sender;
use super::trace_rule::{self, Traced};
use crate::process::netns::{self, Netns};

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

/// A namespace that is watched.
pub(super) struct Post {
    pub(super) space: SpaceId,
    pub(super) capture: Option<Capture>,
    pub(super) caught: Vec<Caught>,
    pub(super) traced: Option<Traced>,
    pub(super) trail: Trail,
    /// The addresses that are at home there.
    home: Vec<IpAddr>,
}

/// The numbers of the packet's connections in a namespace, as trace messages gave them.
pub(super) fn connections(posts: &[Post], space: SpaceId) -> BTreeSet<u32> {
    let posts = posts.iter().filter(|p| p.space == space);
    posts.flat_map(|p| p.trail.connections.clone()).collect()
}

impl Post {
    /// Watches the namespace the thread is in.
    pub(super) fn open(
        state: &ObservedState,
        space: SpaceId,
        flow: &Flow,
        number: u32,
        unable: &mut Vec<String>,
    ) -> Self {
        let here = &state.spaces[space].name;
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
            home: state.spaces[space]
                .addrs
                .iter()
                .map(|a| a.net.addr())
                .collect(),
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
pub(super) struct Watch<'a> {
    flow: &'a Flow,
    from: Option<IpAddr>,
    source: Option<&'a Netns>,
    posts: Vec<Post>,
    drops: Option<io::Result<Drops>>,
    /// Packets that were sent.
    sent: usize,
}

impl<'a> Watch<'a> {
    /// For a flow that is sent from a namespace; `None` is where we are.
    pub(super) fn new(flow: &'a Flow, from: Option<IpAddr>, source: Option<&'a Netns>) -> Self {
        Self {
            flow,
            from,
            source,
            posts: Vec::new(),
            drops: None,
            sent: 1,
        }
    }

    /// Watches one more namespace.
    pub(super) fn add(&mut self, post: Post) {
        self.posts.push(post);
    }

    /// Sends, and waits for an answer, a refusal, a rule that stops it, or the end of patience.
    pub(super) fn follow(&mut self, mut sender: Sender, waiting: impl FnOnce()) -> Told {
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

    /// Takes everything away, and tells what was seen.
    pub(super) fn seen(
        mut self,
        state: &ObservedState,
        source: SpaceId,
        told: Told,
        unable: &mut Vec<String>,
    ) -> (Seen, Vec<Post>) {
        for post in &mut self.posts {
            if let Some(Err(error)) = post.traced.as_mut().map(Traced::stop) {
                let here = &state.spaces[post.space].name;
                unable.push(format!("the trace rule in {here} goes only now: {error}"));
            }
        }
        let mut seen = join::seen(self.flow, source, &self.posts, told, self.sent);
        match self.drops {
            None => {}
            Some(Ok(drops)) => {
                seen.drops = drops.stop(state, self.flow, &join::by_time(&self.posts));
            }
            Some(Err(error)) => unable.push(format!(
                "the kernel's reasons for drops are not told: {error}"
            )),
        }
        (seen, self.posts)
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

    /// Whether the packet was seen last where it came in and its destination is at home.
    fn has_arrived(&self) -> bool {
        let all = self
            .posts
            .iter()
            .flat_map(|p| p.caught.iter().map(move |c| (p, c)));
        let own = all.filter_map(|(post, c)| {
            let (_, header) = self.flow.classify(&c.bytes)?;
            Some((post, c, header.dst))
        });
        let last = own.max_by_key(|(_, c, _)| c.at);
        last.is_some_and(|(post, c, dst)| !c.out && (dst.is_loopback() || post.home.contains(&dst)))
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
