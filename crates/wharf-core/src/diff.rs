//! From what should be and what is to a plan.
//!
//! Adds come before deletes; deletes run in the opposite order of making; what vanishes with something else
//! is not deleted by itself; consecutive nftables changes become one transaction.

use std::collections::{HashMap, HashSet};

use crate::model::{Resource, ResourceKey, cable_ends};
use crate::nft;
use crate::op::{Op, RouteOp};
use crate::plan::{Plan, Undo};

/// The plan that turns `observed` into `desired`. Both list resources in the order in which they are made.
///
/// The result is empty when both hold the same.
pub fn diff(desired: &[Resource], observed: &[Resource], because: &str) -> Plan {
    let is: HashMap<ResourceKey, &Resource> = observed.iter().map(|r| (r.key(), r)).collect();
    let wanted: HashSet<ResourceKey> = desired.iter().map(Resource::key).collect();
    let mut plan = Plan::default();
    let mut replaced: HashSet<ResourceKey> = HashSet::new();
    for resource in desired {
        match is.get(&resource.key()) {
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
            Some(old) if *old != resource => change(&mut plan, old, resource, because),
            Some(_) => {}
        }
    }
    let gone: Vec<&Resource> = observed
        .iter()
        .filter(|r| !wanted.contains(&r.key()) && !replaced.contains(&r.key()))
        .collect();
    let takes_along: HashSet<ResourceKey> = gone.iter().flat_map(|r| cable_ends(r)).collect();
    for resource in gone.iter().rev() {
        if !resource
            .lives_in()
            .iter()
            .any(|key| takes_along.contains(key))
        {
            delete(&mut plan, resource, because);
        }
    }
    join_transactions(plan)
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
                ..
            },
            Resource::Route {
                netns: x,
                dst: y,
                metric: z,
                ..
            },
        ) => (a, b, c) == (x, y, z),
        _ => false,
    }
}

/// One operation, so that there is no moment without a route.
fn replace(plan: &mut Plan, old: &Resource, new: &Resource, because: &str) {
    let instead = |resource| match Op::make(resource) {
        Op::RouteAdd(route) => Op::RouteAdd(RouteOp {
            replace: true,
            ..route
        }),
        op => op,
    };
    plan.push(instead(new), Undo::Ops(vec![instead(old)]), because);
}

fn change(plan: &mut Plan, old: &Resource, new: &Resource, because: &str) {
    match (old, new) {
        (Resource::Nft(nft::Object::Chain(a)), Resource::Nft(nft::Object::Chain(b)))
            if a.base == b.base =>
        {
            let undo = Undo::Ops(vec![Op::Nft(vec![nft::Change::Rules(a.clone())])]);
            plan.push(Op::Nft(vec![nft::Change::Rules(b.clone())]), undo, because);
        }
        (Resource::Port(_), _) | (Resource::Sysctl { .. }, _) | (Resource::Neigh { .. }, _) => {
            plan.push(Op::make(new), Undo::Ops(vec![Op::make(old)]), because);
        }
        _ => {
            delete(plan, old, because);
            add(plan, new, because);
        }
    }
}

fn delete(plan: &mut Plan, resource: &Resource, because: &str) {
    if let Some(op) = Op::remove(resource) {
        plan.push(op, Undo::Ops(vec![Op::make(resource)]), because);
    }
}

/// Makes one transaction of nftables changes that follow each other.
fn join_transactions(plan: Plan) -> Plan {
    let mut joined = Plan::default();
    for step in plan.steps {
        if let (Op::Nft(changes), Some(last)) = (&step.op, joined.steps.last_mut())
            && let Op::Nft(before) = &mut last.op
            && let (Undo::Ops(undo), Undo::Ops(undo_before)) = (&step.undo, &mut last.undo)
            && let ([Op::Nft(undo)], [Op::Nft(undo_before)]) =
                (undo.as_slice(), undo_before.as_mut_slice())
        {
            before.extend(changes.iter().cloned());
            undo_before.splice(0..0, undo.iter().cloned());
            continue;
        }
        joined.steps.push(step);
    }
    joined
}
