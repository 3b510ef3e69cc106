//! From what should be and what is to a plan.
//!
//! Adds come before deletes; deletes run in the opposite order of making; what vanishes with something else
//! is not deleted by itself; consecutive nftables changes become one transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::{Link, Resource, ResourceKey, cable_ends};
use crate::name::IfName;
use crate::nft;
use crate::op::{Op, RouteOp};
use crate::plan::{Plan, Step, Undo};

/// The plan that turns `observed` into `desired`. Both list resources in the order in which they are made.
///
/// The result is empty when both hold the same.
pub fn diff(desired: &[Resource], observed: &[Resource], because: &str) -> Plan {
    let mut is: HashMap<ResourceKey, &Resource> = observed.iter().map(|r| (r.key(), r)).collect();
    let wanted: HashSet<ResourceKey> = desired.iter().map(Resource::key).collect();
    let dwellers = Dwellers::of(observed);
    let mut plan = Plan::default();
    let mut replaced: HashSet<ResourceKey> = HashSet::new();
    for resource in desired {
        match is.get(&resource.key()).copied() {
            None => match observed
                .iter()
                .find(|old| in_the_way(resource, old) && !wanted.contains(&old.key()))
            {
                Some(old) => {
                    replaced.insert(old.key());
                    replace(&mut plan, old, resource, because);
                }
                None => add(&mut plan, resource, because),
            },
            Some(old) if old == resource => {}
            Some(old) if changes_in_place(old, resource) => {
                change(&mut plan, old, resource, because);
            }
            Some(old) => {
                // What lives in it goes with it, and is made again when its turn comes.
                let along = dwellers.go_with(old);
                let along: Vec<&Resource> = along
                    .into_iter()
                    .filter(|r| is.remove(&r.key()).is_some())
                    .collect();
                delete(&mut plan, old, &along, because);
                add(&mut plan, resource, because);
            }
        }
    }
    let mut gone: Vec<&Resource> = observed
        .iter()
        .filter(|r| !wanted.contains(&r.key()) && !replaced.contains(&r.key()))
        .filter(|r| is.contains_key(&r.key()))
        .collect();
    let ends: HashSet<ResourceKey> = gone.iter().flat_map(|r| cable_ends(r)).collect();
    while let Some(resource) = gone.pop() {
        if resource.lives_in().iter().any(|key| ends.contains(key)) {
            continue;
        }
        let along = dwellers.go_with(resource);
        let along: Vec<&Resource> = along
            .into_iter()
            .filter(|r| is.remove(&r.key()).is_some())
            .collect();
        delete(&mut plan, resource, &along, because);
    }
    join_transactions(plan)
}

/// Resources by what they live in, so that a plan for hundreds of containers looks at each only once.
struct Dwellers<'a> {
    all: &'a [Resource],
    within: HashMap<ResourceKey, Vec<usize>>,
}

impl<'a> Dwellers<'a> {
    fn of(all: &'a [Resource]) -> Self {
        let mut within: HashMap<ResourceKey, Vec<usize>> = HashMap::new();
        for (at, resource) in all.iter().enumerate() {
            for key in resource.lives_in() {
                within.entry(key).or_default().push(at);
            }
        }
        Self { all, within }
    }

    /// What vanishes with a resource, in the order of making.
    fn go_with(&self, resource: &Resource) -> Vec<&'a Resource> {
        let mut along = BTreeSet::new();
        let ends = |r: &Resource, from: usize| cable_ends(r).into_iter().map(move |k| (k, from));
        let mut left: Vec<(ResourceKey, usize)> = ends(resource, 0).collect();
        while let Some((key, from)) = left.pop() {
            for at in self.within.get(&key).into_iter().flatten() {
                // Whatever lives in another is made after it.
                if *at >= from && along.insert(*at) {
                    left.extend(ends(&self.all[*at], at + 1));
                }
            }
        }
        along.into_iter().map(|at| &self.all[at]).collect()
    }
}

fn add(plan: &mut Plan, resource: &Resource, because: &str) {
    let undo = match Op::remove(resource) {
        Some(op) => Undo::Ops(vec![op]),
        None => Undo::Irreversible("the setting goes with its link"),
    };
    plan.push(Op::make(resource), undo, because);
}

/// Two routes to one destination with one metric exclude each other.
fn in_the_way(new: &Resource, old: &Resource) -> bool {
    match (new, old) {
        (
            Resource::Route {
                netns: a,
                dst: b,
                metric: c,
                more: d,
                ..
            },
            Resource::Route {
                netns: x,
                dst: y,
                metric: z,
                more: w,
                ..
            },
        ) => (a, b, c, d.table) == (x, y, z, w.table) && !d.beside,
        _ => false,
    }
}

/// One operation, so that there is no moment without a route.
fn replace(plan: &mut Plan, old: &Resource, new: &Resource, because: &str) {
    plan.push(instead(new), Undo::Ops(vec![instead(old)]), because);
}

/// Makes a resource; a route takes the place of another that is in its way.
fn instead(resource: &Resource) -> Op {
    match Op::make(resource) {
        Op::RouteAdd(route) => Op::RouteAdd(RouteOp {
            replace: true,
            ..route
        }),
        op => op,
    }
}

fn changes_in_place(old: &Resource, new: &Resource) -> bool {
    match (old, new) {
        (Resource::Nft(nft::Object::Chain(a)), Resource::Nft(nft::Object::Chain(b))) => {
            a.base == b.base
        }
        (Resource::Link(a), Resource::Link(b)) => a.kind == b.kind,
        (Resource::Traits { before: a, .. }, Resource::Traits { before: b, .. }) => a == b,
        (Resource::Port(_) | Resource::Sysctl { .. } | Resource::Neigh { .. }, _) => true,
        _ => false,
    }
}

fn change(plan: &mut Plan, old: &Resource, new: &Resource, because: &str) {
    let (op, undo) = match (old, new) {
        (Resource::Nft(nft::Object::Chain(a)), Resource::Nft(nft::Object::Chain(b))) => {
            let rules = |c: &nft::Chain| Op::Nft(vec![nft::Change::Rules(c.clone())]);
            (rules(b), rules(a))
        }
        (Resource::Link(a), Resource::Link(b)) => (link_set(a, b), link_set(b, a)),
        _ => (Op::make(new), Op::make(old)),
    };
    plan.push(op, Undo::Ops(vec![undo]), because);
}

/// Only what differs is set: a hardware address that is set anew, even to itself, has the kernel forget neighbours.
fn link_set(old: &Link, new: &Link) -> Op {
    Op::LinkSet(Link {
        mac: new.mac.filter(|_| old.mac != new.mac),
        mtu: new.mtu.filter(|_| old.mtu != new.mtu),
        ..new.clone()
    })
}

/// Deletes a resource; the way back makes it and what vanished with it.
fn delete(plan: &mut Plan, resource: &Resource, along: &[&Resource], because: &str) {
    if let Resource::Up { link, .. } = resource
        && *link == IfName::loopback()
    {
        // A namespace is of no use without it, and whoever owns the namespace may have come to need it.
        return;
    }
    let Some(op) = Op::remove(resource) else {
        return;
    };
    let mut undo: Vec<Op> = Vec::new();
    for made in std::iter::once(Op::make(resource)).chain(along.iter().map(|r| instead(r))) {
        match (undo.last_mut(), made) {
            (Some(Op::Nft(before)), Op::Nft(changes)) => before.extend(changes),
            (_, made) => undo.push(made),
        }
    }
    plan.push(op, Undo::Ops(undo), because);
}

/// Makes one transaction of nftables changes that follow each other.
fn join_transactions(plan: Plan) -> Plan {
    let mut joined = Plan::default();
    let mut steps = plan.steps.into_iter().peekable();
    while let Some(mut step) = steps.next() {
        if let Some((changes, undo)) = transaction(&mut step) {
            // What is done last is undone first: gathered backwards, and turned round at the end.
            undo.reverse();
            while let Some((more, more_undo)) = steps.peek_mut().and_then(transaction) {
                changes.append(more);
                undo.extend(more_undo.drain(..).rev());
                steps.next();
            }
            undo.reverse();
        }
        joined.steps.push(step);
    }
    joined
}

/// The changes of a step that is a transaction, and those of the transaction that undoes it.
fn transaction(step: &mut Step) -> Option<(&mut Vec<nft::Change>, &mut Vec<nft::Change>)> {
    match (&mut step.op, &mut step.undo) {
        (Op::Nft(changes), Undo::Ops(undo)) => match undo.as_mut_slice() {
            [Op::Nft(undo)] => Some((changes, undo)),
            _ => None,
        },
        _ => None,
    }
}
