//! One batch of operations on its way into the kernel.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use wharf_core::model::{LinkKind, Netns};
use wharf_core::name::IfName;
use wharf_core::op::Op;

use crate::failpoint;

use super::socket::Request;
use super::{Failure, NetlinkKernel, message, netns, shape, sysctl};

/// `LOOPBACK_IFINDEX` (`net/core/dev.c`): the first link of every namespace.
const LOOPBACK: u32 = 1;

/// The state between the first operation and the last.
pub(super) struct Run<'a> {
    pub(super) kernel: &'a mut NetlinkKernel,
    pub(super) ops: &'a [&'a Op],
    pub(super) applied: Vec<bool>,
    /// Not sent yet, all for `place`.
    waiting: Vec<(usize, Request)>,
    place: Netns,
    /// Numbers of links. Only for this batch: others may delete and make links between batches.
    pub(super) known: HashMap<(Netns, IfName), u32>,
    ipv6: Option<bool>,
}

/// Where an operation is asked for.
pub(super) fn place(op: &Op) -> &Netns {
    match op {
        // Made beside its parent, and put where it belongs at once.
        Op::LinkAdd(link) if matches!(link.kind, LinkKind::Macvlan { .. }) => &Netns::Host,
        op => op.netns(),
    }
}

/// The link whose number the message needs.
fn needs(op: &Op) -> Option<&IfName> {
    match op {
        Op::LinkAdd(link) | Op::LinkSet(link) => match &link.kind {
            LinkKind::Macvlan { parent, .. } => Some(parent),
            _ => link.master.as_ref(),
        },
        Op::PortSet(port) => port.vlan.map(|_| &port.link),
        Op::LinkRename { from: link, .. }
        | Op::AddrAdd { link, .. }
        | Op::AddrDel { link, .. }
        | Op::NeighAdd { link, .. }
        | Op::NeighDel { link, .. }
        | Op::FdbAdd { link, .. }
        | Op::FdbDel { link, .. }
        | Op::FdbOwn { link, .. }
        | Op::Shape { link, .. }
        | Op::Detour { from: link, .. } => Some(link),
        Op::RouteAdd(route) | Op::RouteDel(route) => {
            let bound = route.hop.refusal().is_none() && !route.more.any_link;
            bound.then_some(&route.link)
        }
        _ => None,
    }
}

/// Whether the operation takes something away; what is not there is then no error.
fn removes(op: &Op) -> bool {
    matches!(
        op,
        Op::NetnsDel(_)
            | Op::LinkDel { .. }
            | Op::LinkUp { up: false, .. }
            | Op::AddrDel { .. }
            | Op::RouteDel(_)
            | Op::RuleDel(_)
            | Op::BlackholeDel { .. }
            | Op::NeighDel { .. }
            | Op::FdbDel { .. }
            | Op::LinkTraits { back: true, .. }
    )
}

/// Whether the error says that there was nothing to remove. A link that is no port (any more) has no entries.
fn nothing_there(op: &Op, errno: i32) -> bool {
    removes(op)
        && (missing(errno) || (matches!(op, Op::FdbDel { .. }) && errno == libc::EOPNOTSUPP))
}

/// Routing rules and ways to nowhere are only wharf's: one that is there is as good as a new one.
fn there_already(op: &Op, errno: i32) -> bool {
    matches!(op, Op::RuleAdd(_) | Op::BlackholeAdd { .. }) && errno == libc::EEXIST
}

/// The ways in which the kernel says "not there".
fn missing(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL
    )
}

impl<'a> Run<'a> {
    pub(super) fn new(kernel: &'a mut NetlinkKernel, ops: &'a [&'a Op]) -> Self {
        Self {
            kernel,
            ops,
            applied: vec![false; ops.len()],
            waiting: Vec::new(),
            place: Netns::Host,
            known: HashMap::new(),
            ipv6: None,
        }
    }

    pub(super) fn into_applied(self) -> Vec<bool> {
        self.applied
    }

    pub(super) fn all(&mut self) -> Result<(), Failure> {
        let mut at = 0;
        while at < self.ops.len() {
            failpoint::step();
            at = self.step(at)?;
            if failpoint::is_armed() {
                self.flush()?;
            }
        }
        self.flush()?;
        failpoint::step();
        super::announce::all(self.kernel, self.ops);
        Ok(())
    }

    /// Carries out, or puts on the pile, the operation at `at` and perhaps others behind it; where to go on.
    fn step(&mut self, at: usize) -> Result<usize, Failure> {
        match self.ops[at] {
            Op::NetnsAdd(path) => {
                self.flush()?;
                self.netns_add(path).map_err(|e| Failure::io(at, &e))?;
                // Goes out with the first messages for it, and tells from then on who made it.
                self.place = Netns::Path(path.clone());
                let alias = wharf_core::model::netns_alias(path);
                self.waiting.push((at, message::loopback_alias(alias)));
            }
            Op::NetnsDel(path) => {
                self.flush()?;
                // An open descriptor would keep it alive.
                self.kernel.spaces.remove(path);
                self.known.clear();
                netns::delete(path).map_err(|e| Failure::io(at, &e))?;
            }
            Op::SysctlSet { .. } => {
                self.flush()?;
                return self.sysctls(at);
            }
            Op::LinkDel { .. } => {
                self.flush()?;
                return self.delete_links(at);
            }
            Op::Nft(changes) => {
                self.flush()?;
                self.kernel
                    .nft(changes)
                    .map_err(|(errno, detail)| Failure::new(at, errno, detail))?;
            }
            Op::Door {
                family,
                chain,
                link,
                inward,
                change,
            } => {
                self.flush()?;
                super::door::set_door(self.kernel, (*family, chain), (link, *inward), *change)
                    .map_err(|(errno, detail)| Failure::new(at, errno, detail))?;
            }
            Op::ConntrackFlush {
                protocol,
                host_ip,
                first,
                last,
            } => {
                self.flush()?;
                super::nft_apply::forget(self.kernel, *protocol, *host_ip, *first..=*last)
                    .map_err(|(errno, detail)| Failure::new(at, errno, detail))?;
            }
            Op::ConntrackForget(addrs) => {
                self.flush()?;
                super::nft_apply::forget_addrs(self.kernel, addrs)
                    .map_err(|(errno, detail)| Failure::new(at, errno, detail))?;
            }
            op => {
                self.rtnetlink(at, op)?;
                return Ok(at + 1);
            }
        }
        self.applied[at] = true;
        Ok(at + 1)
    }

    /// How many operations from `at` on are of one kind.
    pub(super) fn stretch(&self, at: usize, of_kind: impl Fn(&Op) -> bool) -> usize {
        self.ops[at..].iter().take_while(|op| of_kind(op)).count()
    }

    fn netns_add(&mut self, path: &Path) -> io::Result<()> {
        let netns = netns::create(path)?;
        let space = super::Space { netns, rt: None };
        self.kernel.spaces.insert(path.to_owned(), space);
        Ok(())
    }

    fn sysctls(&mut self, at: usize) -> Result<usize, Failure> {
        let place = place(self.ops[at]);
        let of_kind = |op: &Op| matches!(op, Op::SysctlSet { netns, .. } if netns == place);
        let count = self.stretch(at, of_kind);
        let (ops, applied) = (&self.ops[at..at + count], &mut self.applied[at..]);
        let (mut reached, mut kept) = (at, Vec::new());
        let set_all = || {
            for (i, op) in ops.iter().enumerate() {
                reached = at + i;
                if let Op::SysctlSet { key, value, .. } = op {
                    failpoint::step();
                    if !sysctl::set(key, value)? {
                        kept.push(key.replace('/', "."));
                    }
                    applied[i] = true;
                }
            }
            Ok(())
        };
        let result = self.kernel.inside(place, set_all);
        self.kernel.kept.extend(kept);
        result.map_err(|e| Failure::io(reached, &e))?;
        Ok(at + count)
    }

    /// Puts a message on the pile.
    fn rtnetlink(&mut self, at: usize, op: &'a Op) -> Result<(), Failure> {
        let place = place(op);
        if *place != self.place {
            self.flush()?;
            self.place = place.clone();
        }
        let index = match needs(op) {
            None => 0,
            Some(name) => match self.index(at, name) {
                Ok(Some(index)) => index,
                Ok(None) if removes(op) => {
                    self.applied[at] = true;
                    return Ok(());
                }
                Ok(None) => {
                    let detail = format!("there is no link {name}");
                    return Err(Failure::new(at, libc::ENODEV, detail));
                }
                // The namespace itself is gone.
                Err(failure) if failure.at == at && removes(op) && missing(failure.errno) => {
                    self.applied[at] = true;
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            },
        };
        let request = match op {
            Op::LinkAdd(link) => {
                let (netns, name) = match &link.kind {
                    LinkKind::Veth {
                        peer, peer_netns, ..
                    } => (peer_netns, peer),
                    _ => (&link.netns, &link.name),
                };
                self.known.remove(&(netns.clone(), name.clone()));
                let mut inside = None;
                if *netns != Netns::Host && !matches!(link.kind, LinkKind::Bridge) {
                    let space = self.kernel.space(netns);
                    let space = space.map_err(|e| Failure::io(at, &e))?;
                    inside = Some(space.netns.as_fd().as_raw_fd());
                }
                self.known.remove(&(link.netns.clone(), link.name.clone()));
                let add = message::link_add(link, needs(op).is_some().then_some(index), inside);
                match link.bridge_mtu() {
                    Some(mtu) => {
                        self.waiting.push((at, add));
                        message::mtu_set(&link.name, mtu)
                    }
                    None => add,
                }
            }
            Op::LinkSet(link) => message::link_set(link, link.master.is_some().then_some(index)),
            Op::LinkUp { link, up, .. } => message::link_up(link, *up),
            Op::PortUnplug(link) => message::unplug(link),
            Op::LinkRename { to, .. } => {
                self.known.clear();
                message::link_rename(index, to)
            }
            Op::PortSet(port) => {
                let vlan = port.vlan.map(|id| message::vlan_set(index, id));
                let settings = vlan.into_iter().flatten().map(|request| (at, request));
                self.waiting.extend(settings);
                let ipv6 = *self.ipv6.get_or_insert_with(sysctl::has_ipv6);
                message::port_set(port, ipv6)
            }
            Op::AddrAdd { addr, .. } => message::addr_add(index, *addr),
            Op::AddrDel { addr, .. } => message::addr_del(index, *addr),
            Op::RouteAdd(route) => message::route_add(index, route),
            Op::RouteDel(route) => message::route_del(index, route),
            Op::RuleAdd(rule) => message::rule_add(rule),
            Op::RuleDel(rule) => message::rule_del(rule),
            Op::BlackholeAdd { dst, table } => message::blackhole_add(*dst, *table),
            Op::BlackholeDel { dst, table } => message::blackhole_del(*dst, *table),
            Op::NeighAdd { addr, mac, .. } => message::neigh_add(index, *addr, *mac),
            Op::NeighDel { addr, .. } => message::neigh_del(index, *addr),
            Op::FdbAdd { mac, .. } => message::fdb_add(index, *mac),
            Op::FdbDel { mac, .. } => message::fdb_del(index, *mac),
            Op::FdbOwn { mac, .. } => message::fdb_own(index, *mac),
            Op::Shape { limit, .. } => shape::bucket(index, *limit),
            Op::Detour { by, .. } => {
                let Some(by) = self.index(at, by)? else {
                    let detail = format!("there is no link {by}");
                    return Err(Failure::new(at, libc::ENODEV, detail));
                };
                self.waiting.push((at, shape::ingress(index)));
                shape::redirect(index, by)
            }
            Op::LinkTraits { link, traits, .. } => message::link_traits(link, traits),
            Op::NetnsAdd(_)
            | Op::NetnsDel(_)
            | Op::LinkDel { .. }
            | Op::SysctlSet { .. }
            | Op::Nft(_)
            | Op::Door { .. }
            | Op::ConntrackFlush { .. }
            | Op::ConntrackForget(_) => unreachable!("not by rtnetlink"),
        };
        self.waiting.push((at, request));
        Ok(())
    }

    /// The number of a link at the present place, after what waits is done.
    fn index(&mut self, at: usize, name: &IfName) -> Result<Option<u32>, Failure> {
        if *name == IfName::loopback() {
            return Ok(Some(LOOPBACK));
        }
        let key = (self.place.clone(), name.clone());
        if let Some(index) = self.known.get(&key) {
            return Ok(Some(*index));
        }
        self.flush()?;
        let asked = self.kernel.rt(&self.place).and_then(|rt| rt.index(name));
        let index = asked.map_err(|e| Failure::io(at, &e))?;
        if let Some(index) = index {
            self.known.insert(key, index);
        }
        Ok(index)
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let (places, requests): (Vec<usize>, Vec<Request>) =
            std::mem::take(&mut self.waiting).into_iter().unzip();
        let fail = |e: io::Error| Failure::io(places[0], &e);
        let answers = match self.kernel.rt(&self.place) {
            Ok(rt) => rt.exchange(requests).map_err(fail)?,
            // Only removals may find the namespace gone, and only if none but removals wait.
            Err(error) => return self.without_namespace(&places, &error),
        };
        let mut failed = None;
        for (at, answer) in places.into_iter().zip(answers) {
            let op = self.ops[at];
            let fine = answer.errno == 0
                || nothing_there(op, answer.errno)
                || there_already(op, answer.errno);
            // A namespace is there, even if its mark could not be set.
            self.applied[at] = fine || matches!(self.ops[at], Op::NetnsAdd(_));
            if !fine && failed.is_none() {
                failed = Some(Failure::new(at, answer.errno, answer.detail));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn without_namespace(&mut self, places: &[usize], error: &io::Error) -> Result<(), Failure> {
        let gone = error.raw_os_error().is_some_and(missing);
        for at in places {
            if !(gone && removes(self.ops[*at])) {
                return Err(Failure::io(*at, error));
            }
            self.applied[*at] = true;
        }
        Ok(())
    }
}
