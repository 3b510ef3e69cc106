//! A kernel in memory: it holds resources, refuses what a real one refuses, and fails when told to.
//!
//! For tests of everything that applies plans. Not a model of packets.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use wharf_core::extras::Traits;
use wharf_core::model::{Link, LinkKind, Netns, Resource, ResourceKey, cable_ends};
use wharf_core::name::IfName;
use wharf_core::nft::{Action, Change, Data, Element, Object, Table, Test, Verdict};
use wharf_core::op::{Op, RouteOp};

use super::{ApplyError, Kernel, OpError};

type State = BTreeMap<ResourceKey, Resource>;

/// A kernel in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    state: State,
    namespaces: HashSet<PathBuf>,
    /// Operations tried since the beginning.
    pub tried: usize,
    /// The operation that fails, once, counted from 0 since the beginning.
    pub fail_at: Option<usize>,
    /// Consecutive rtnetlink operations are sent together: those behind a failing one are tried too.
    pub batches: bool,
}

impl FakeKernel {
    /// An empty kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// A kernel that holds `resources`.
    pub fn holding(resources: &[Resource]) -> Self {
        Self {
            state: resources.iter().map(|r| (r.key(), r.clone())).collect(),
            ..Self::default()
        }
    }

    /// Adds a namespace that somebody else made.
    pub fn add_namespace(&mut self, path: PathBuf) {
        self.namespaces.insert(path);
    }

    /// What it holds, by key.
    pub fn state(&self) -> &BTreeMap<ResourceKey, Resource> {
        &self.state
    }

    /// What it holds, in the order of `order`, behind it whatever else there is.
    pub fn observed(&self, order: &[Resource]) -> Vec<Resource> {
        let mut rest = self.state.clone();
        let mut all: Vec<Resource> = order.iter().filter_map(|r| rest.remove(&r.key())).collect();
        all.extend(rest.into_values());
        all
    }

    fn one(&mut self, op: &Op) -> Result<(), i32> {
        let at = self.tried;
        self.tried += 1;
        if self.fail_at == Some(at) {
            self.fail_at = None;
            return Err(libc::ENOMEM);
        }
        match op {
            Op::NetnsAdd(path) => self.insert(Resource::Netns(path.clone())),
            Op::NetnsDel(path) => {
                self.remove(&ResourceKey::Netns(path.clone()));
                Ok(())
            }
            Op::LinkAdd(link) => self.link_add(link),
            Op::Nft(changes) => {
                self.state = transaction(self.state.clone(), changes)?;
                Ok(())
            }
            Op::ConntrackFlush { .. } | Op::ConntrackForget(_) => Ok(()),
            other => self.setting(other),
        }
    }

    fn setting(&mut self, op: &Op) -> Result<(), i32> {
        let host = Netns::Host;
        match op.clone() {
            Op::LinkDel { netns, link } => self.link_del(&netns, &link),
            Op::LinkUp { netns, link, up } => return self.link_up(netns, link, up),
            Op::LinkSet(link) => {
                let key = ResourceKey::Link(link.netns.clone(), link.name.clone());
                let Some(Resource::Link(is)) = self.state.get(&key).cloned() else {
                    return Err(libc::ENODEV);
                };
                self.replace(Resource::Link(Link {
                    mac: link.mac.or(is.mac),
                    mtu: link.mtu.or(is.mtu),
                    ..link
                }));
            }
            Op::PortSet(port) => {
                self.need_link(&host, &port.link)?;
                self.replace(Resource::Port(port));
            }
            Op::AddrAdd { netns, link, addr } => {
                self.need_link(&netns, &link)?;
                return self.insert(Resource::Addr { netns, link, addr });
            }
            Op::AddrDel { netns, link, addr } => {
                self.remove(&ResourceKey::Addr(netns, link, addr));
            }
            Op::RouteAdd(r) => {
                self.need_link(&r.netns, &r.link)?;
                let up = ResourceKey::Up(r.netns.clone(), r.link.clone());
                if !self.state.contains_key(&up) {
                    return Err(libc::ENETDOWN);
                }
                if r.replace {
                    let same = |old: &Resource| matches!(old, Resource::Route { netns, dst, metric, .. } if *netns == r.netns && *dst == r.dst && *metric == r.metric);
                    let old: Vec<ResourceKey> = self
                        .state
                        .iter()
                        .filter(|(_, v)| same(v))
                        .map(|(k, _)| k.clone())
                        .collect();
                    for key in old {
                        self.remove(&key);
                    }
                }
                return self.insert(route(r));
            }
            Op::RouteDel(r) => self.remove(&route(r).key()),
            Op::RuleAdd(rule) => return self.insert(Resource::Rule(rule)),
            Op::RuleDel(rule) => self.remove(&ResourceKey::Rule(rule)),
            Op::BlackholeAdd { dst, table } => {
                return self.insert(Resource::Blackhole { dst, table });
            }
            Op::BlackholeDel { dst, table } => self.remove(&ResourceKey::Blackhole(dst, table)),
            Op::NeighAdd { link, addr, mac } => {
                self.need_link(&host, &link)?;
                self.replace(Resource::Neigh { link, addr, mac });
            }
            Op::NeighDel { link, addr } => self.remove(&ResourceKey::Neigh(link, addr)),
            Op::FdbAdd { link, mac } => {
                self.need_link(&host, &link)?;
                return self.insert(Resource::Fdb { link, mac });
            }
            Op::FdbDel { link, mac } => self.remove(&ResourceKey::Fdb(link, mac)),
            Op::SysctlSet { netns, key, value } => {
                let link = sysctl_link(&key);
                if let Some(link) = &link {
                    self.need_link(&netns, link)?;
                }
                self.replace(Resource::Sysctl {
                    netns,
                    key,
                    value,
                    link,
                });
            }
            Op::Shape { link, limit } => {
                self.need_link(&host, &link)?;
                self.replace(Resource::Shaper { link, limit });
            }
            Op::Detour { from, by } => {
                self.need_link(&host, &from)?;
                self.need_link(&host, &by)?;
                return self.insert(Resource::Detour { from, by });
            }
            Op::LinkTraits {
                netns,
                link,
                traits,
                back,
            } => {
                if back {
                    self.remove(&ResourceKey::Traits(netns, link));
                    return Ok(());
                }
                self.need_link(&netns, &link)?;
                self.replace(Resource::Traits {
                    netns,
                    link,
                    traits,
                    before: Traits::default(),
                });
            }
            _ => return Err(libc::EINVAL),
        }
        Ok(())
    }

    fn insert(&mut self, resource: Resource) -> Result<(), i32> {
        if self.state.contains_key(&resource.key()) {
            return Err(libc::EEXIST);
        }
        self.replace(resource);
        Ok(())
    }

    fn replace(&mut self, resource: Resource) {
        self.state.insert(resource.key(), resource);
    }

    /// Removes an object and whatever lives in it, at both ends of a cable.
    fn remove(&mut self, key: &ResourceKey) {
        let Some(resource) = self.state.remove(key) else {
            return;
        };
        remove_inside(&mut self.state, &resource);
    }

    fn has_link(&self, netns: &Netns, name: &IfName) -> bool {
        let key = ResourceKey::Link(netns.clone(), name.clone());
        let is_end = |r: &Resource| matches!(r, Resource::Link(_)) && cable_ends(r).contains(&key);
        *name == IfName::loopback() || self.state.values().any(is_end)
    }

    fn need_netns(&self, netns: &Netns) -> Result<(), i32> {
        let there = match netns {
            Netns::Host => true,
            Netns::Path(path) => {
                self.namespaces.contains(path)
                    || self.state.contains_key(&ResourceKey::Netns(path.clone()))
            }
        };
        if there { Ok(()) } else { Err(libc::ENOENT) }
    }

    fn need_link(&self, netns: &Netns, name: &IfName) -> Result<(), i32> {
        self.need_netns(netns)?;
        if self.has_link(netns, name) {
            Ok(())
        } else {
            Err(libc::ENODEV)
        }
    }

    fn link_add(&mut self, link: &Link) -> Result<(), i32> {
        let mut ends = vec![(&link.netns, &link.name)];
        if let LinkKind::Veth {
            peer, peer_netns, ..
        } = &link.kind
        {
            ends.push((peer_netns, peer));
        }
        for (netns, name) in ends {
            self.need_netns(netns)?;
            if self.has_link(netns, name) {
                return Err(libc::EEXIST);
            }
        }
        if let Some(master) = &link.master {
            self.need_link(&link.netns, master)?;
        }
        if let LinkKind::Macvlan { parent, .. } = &link.kind {
            self.need_link(&Netns::Host, parent)?;
        }
        self.insert(Resource::Link(link.clone()))
    }

    fn link_del(&mut self, netns: &Netns, name: &IfName) {
        let key = ResourceKey::Link(netns.clone(), name.clone());
        let found = self
            .state
            .values()
            .find(|r| matches!(r, Resource::Link(_)) && cable_ends(r).contains(&key))
            .map(Resource::key);
        if let Some(found) = found {
            self.remove(&found);
        }
    }

    /// Routes go when their link goes down.
    fn link_up(&mut self, netns: Netns, link: IfName, up: bool) -> Result<(), i32> {
        self.need_link(&netns, &link)?;
        if up {
            self.replace(Resource::Up { netns, link });
            return Ok(());
        }
        self.state
            .remove(&ResourceKey::Up(netns.clone(), link.clone()));
        self.state.retain(
            |key, _| !matches!(key, ResourceKey::Route(n, _, _, l, ..) if *n == netns && *l == link),
        );
        Ok(())
    }
}

impl Kernel for FakeKernel {
    fn apply(&mut self, ops: &[&Op]) -> Result<(), ApplyError> {
        let mut applied = vec![false; ops.len()];
        let mut first = None;
        for (at, op) in ops.iter().enumerate() {
            if first.is_some() && !(self.batches && is_rtnetlink(op)) {
                break;
            }
            match self.one(op) {
                Ok(()) => applied[at] = true,
                Err(errno) => {
                    first.get_or_insert(OpError {
                        op: Box::new((*op).clone()),
                        netns: Netns::Host,
                        errno,
                        detail: None,
                    });
                    if !is_rtnetlink(op) {
                        break;
                    }
                }
            }
        }
        match first {
            None => Ok(()),
            Some(error) => Err(ApplyError { error, applied }),
        }
    }
}

/// What can be sent in one message with its neighbours.
fn is_rtnetlink(op: &Op) -> bool {
    !matches!(
        op,
        Op::NetnsAdd(_)
            | Op::NetnsDel(_)
            | Op::SysctlSet { .. }
            | Op::Nft(_)
            | Op::ConntrackFlush { .. }
            | Op::ConntrackForget(_)
    )
}

fn route(r: RouteOp) -> Resource {
    Resource::Route {
        netns: r.netns,
        dst: r.dst,
        hop: r.hop,
        link: r.link,
        metric: r.metric,
        more: r.more,
    }
}

/// `net/ipv4/conf/LINK/name` and `net/ipv4/neigh/LINK/name` belong to the link.
fn sysctl_link(key: &str) -> Option<IfName> {
    let mut parts = key.split('/');
    let of_link = parts.next() == Some("net") && matches!(parts.nth(1), Some("conf" | "neigh"));
    let link = parts.next().filter(|_| of_link)?;
    link.parse().ok()
}

fn remove_inside(state: &mut State, resource: &Resource) {
    let mut ends = cable_ends(resource);
    loop {
        let lives_there = |r: &Resource| {
            let peer_there = cable_ends(r)[1..].iter().any(|end| match end {
                ResourceKey::Link(Netns::Path(path), _) => {
                    ends.contains(&ResourceKey::Netns(path.clone()))
                }
                _ => false,
            });
            peer_there || r.lives_in().iter().any(|key| ends.contains(key))
        };
        let Some(key) = state.values().find(|r| lives_there(r)).map(Resource::key) else {
            return;
        };
        if let Some(gone) = state.remove(&key) {
            ends.extend(cable_ends(&gone));
        }
    }
}

/// All of the changes, or none.
fn transaction(mut state: State, changes: &[Change]) -> Result<State, i32> {
    for change in changes {
        match change {
            Change::Add(object) => {
                let resource = Resource::Nft(object.clone());
                let old = state.insert(resource.key(), resource.clone());
                let fresh = match object {
                    Object::Chain(_) => old.is_none(),
                    _ => old.is_none_or(|old| old == resource),
                };
                if !fresh {
                    return Err(libc::EEXIST);
                }
            }
            Change::Del(object) => {
                let key = Resource::Nft(object.clone()).key();
                if let Some(gone) = state.remove(&key) {
                    remove_inside(&mut state, &gone);
                }
            }
            Change::Rules(chain) => {
                let resource = Resource::Nft(Object::Chain(chain.clone()));
                if state.insert(resource.key(), resource).is_none() {
                    return Err(libc::ENOENT);
                }
            }
        }
    }
    let whole = state.values().all(|r| match r {
        Resource::Nft(object) => refers_to(object).iter().all(|k| state.contains_key(k)),
        _ => true,
    });
    if whole { Ok(state) } else { Err(libc::ENOENT) }
}

/// What an object of nftables cannot be without.
fn refers_to(object: &Object) -> Vec<ResourceKey> {
    match object {
        Object::Table(_) => vec![],
        Object::Set(set) => vec![ResourceKey::Table(set.table)],
        Object::Element(e) => element_refers_to(e),
        Object::Chain(chain) => {
            let set = |name: &str| ResourceKey::Set(chain.table, name.to_owned());
            let mut all = vec![ResourceKey::Table(chain.table)];
            for rule in &chain.rules {
                for m in &rule.matches {
                    if let Test::In(name) | Test::NotIn(name) = m.test {
                        all.push(set(name));
                    }
                }
                match &rule.action {
                    Action::Jump(to) | Action::Goto(to) => all.push(chain_key(chain.table, to)),
                    Action::Vmap(_, map)
                    | Action::DnatMap(_, _, map)
                    | Action::SnatMap(_, _, map) => all.push(set(map)),
                    _ => {}
                }
            }
            all
        }
    }
}

fn element_refers_to(e: &Element) -> Vec<ResourceKey> {
    let mut all = vec![ResourceKey::Set(e.table, e.set.clone())];
    if let Some(Data::Verdict(Verdict::Jump(to) | Verdict::Goto(to))) = &e.data {
        all.push(chain_key(e.table, to));
    }
    all
}

fn chain_key(table: Table, name: &str) -> ResourceKey {
    ResourceKey::Chain(table, name.to_owned())
}
