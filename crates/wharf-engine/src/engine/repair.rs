//! Making the kernel what the store says it is: after another tool flushed the rules, after somebody removed a
//! bridge, after a crash.
//!
//! What should be there is compiled from the store and compared with what is there; the difference is applied, rules
//! first. Meanwhile no other process can begin a change; of those that are in the middle of one, what they may have is
//! left alone. What the kernel refuses is told in the end, by whose it is; everything else is mended all the same.

use std::collections::{BTreeSet, HashSet};

use wharf_core::addr::Mac;
use wharf_core::diff::diff;
use wharf_core::model::{Link, Netns, Resource, ResourceKey};
use wharf_core::name::IfName;
use wharf_core::network::NetworkSpec;
use wharf_core::nft::{Change, Object, Table};
use wharf_core::op::{Op, RouteOp};
use wharf_core::plan::{Plan, Step, Undo};
use wharf_core::trace::changed::Changed;

use crate::api::{Finding, Mode, Note, Outcome, Repaired};
use crate::engine::desired::Desired;
use crate::engine::docker::told_wrong;
use crate::engine::findings::{changed, compare};
use crate::engine::foreign::{shut, shut_doors};
use crate::engine::host::{HostPart, failed, failed_op};
use crate::engine::refused::{apply_each, unmended};
use crate::engine::renamed::{Renamed, renamed};
use crate::engine::{Engine, applies};
use crate::error::EngineError;
use crate::kernel::OpError;
use crate::kernel::netlink::NetlinkKernel;
use crate::observe::{NOBODYS, RulesSeen};

/// How often to begin again because others changed rules meanwhile.
const ROUNDS: u32 = 50;
/// How often to look again whether all is well.
const PASSES: u32 = 4;
const REASON: &str = "it is not as wharf made it";
const NO_WAY_BACK: Undo = Undo::Irreversible("it is how it should be");

/// What was found to be done.
struct Repairs {
    rules: Vec<Change>,
    generation: u32,
    rest: Plan,
    findings: Vec<Finding>,
}

/// One look, and what was mended in it.
#[derive(Default)]
struct Pass {
    plan: Plan,
    findings: Vec<Finding>,
    refused: Vec<OpError>,
}

impl Engine {
    /// Makes everything in the kernel what the store says, without touching what is as it should be. What could not be
    /// mended is in the result.
    ///
    /// # Errors
    /// The kernel's, if it does not tell how it is or refuses the rules; the store's.
    pub fn repair(&mut self, mode: Mode) -> Result<Outcome<Repaired>, EngineError> {
        let (plan, value) = self.mend(mode)?;
        Ok(Outcome {
            value,
            plan,
            notes: self.take_notes(),
        })
    }

    /// As [`Engine::repair`], in the middle of something else.
    pub(super) fn mend(&mut self, mode: Mode) -> Result<(Plan, Repaired), EngineError> {
        let _lock = self.lock_host()?;
        let mut all = Pass::default();
        let mut passes = 0;
        for _ in 0..ROUNDS {
            let Some(pass) = self.repair_once(mode)? else {
                continue;
            };
            // One change may undo what was fine before: a bridge with a new hardware address forgets neighbours.
            passes += 1;
            let idle = pass.plan.steps.len() == pass.refused.len();
            all.plan.append(pass.plan);
            all.refused = pass.refused;
            for finding in pass.findings {
                if !all.findings.contains(&finding) {
                    all.findings.push(finding);
                }
            }
            if !applies(mode) || idle || passes == PASSES {
                return self.came_to(all);
            }
        }
        Err(EngineError::System {
            verb: "mend wharf's rules".to_owned(),
            detail: "other programs keep changing the ruleset".to_owned(),
            errno: libc::EAGAIN,
        })
    }

    /// What was refused is told by owner, and what follows from it is not called mended.
    fn came_to(&mut self, all: Pass) -> Result<(Plan, Repaired), EngineError> {
        let mut repaired = Repaired {
            mended: all.findings,
            left: Vec::new(),
        };
        if !all.refused.is_empty() {
            let still = self.repair_once(Mode::DryRun)?.unwrap_or_default().findings;
            repaired.mended.retain(|f| !still.contains(f));
            let view = self.run.view()?;
            let desired = self.desired(&view)?;
            repaired.left = unmended(&all.refused, &desired.containers, &desired.networks);
        }
        Ok((all.plan, repaired))
    }

    /// Mends what can be mended, for a change that failed. Whether there was anything.
    pub(super) fn mends_something(&mut self) -> Result<bool, EngineError> {
        let (_, Repaired { mended, .. }) = self.mend(Mode::Apply)?;
        let objects = mended.iter().map(|found| found.object.clone());
        self.notes.extend(objects.map(Note::Recovered));
        Ok(!mended.is_empty())
    }

    /// Makes the rules anew if there is anything among them that belongs to nobody.
    pub(super) fn mend_strange(&mut self, mode: Mode) -> Result<(Plan, Vec<Finding>), EngineError> {
        let (plan, repaired) = self.mend(Mode::DryRun)?;
        let mut findings = repaired.mended;
        findings.retain(|f| f.was == NOBODYS);
        if findings.is_empty() {
            return Ok((Plan::default(), findings));
        }
        if applies(mode) {
            self.mend(mode)?;
        }
        let rules = plan
            .steps
            .into_iter()
            .filter(|s| matches!(s.op, Op::Nft(_)));
        let steps = rules.collect();
        Ok((Plan { steps }, findings))
    }

    /// A look without locks: it may take for damage what others are changing at this moment.
    pub(super) fn is_damaged(&mut self) -> Result<bool, EngineError> {
        let (live, desired) = self.desired_now()?;
        if live.is_empty() {
            return Ok(false);
        }
        let kernel = &mut self.kernel;
        Ok(!renamed_links(kernel, &desired)?.is_empty()
            || !shut_doors(kernel, &live).is_empty()
            || !deaf(kernel, &live)?.is_empty()
            || !compared(kernel, &desired, &[])?.findings.is_empty())
    }

    /// What should be there, by a look without locks; nothing where there is no network.
    fn desired_now(&mut self) -> Result<(Vec<NetworkSpec>, Desired), EngineError> {
        let (live, part) = self.live_networks()?;
        if live.is_empty() {
            return Ok((live, Desired::default()));
        }
        let held = self.held(&part)?;
        let view = self.run.view()?;
        let mut desired = self.desired(&view)?;
        drop(view);
        // Networks of others' bridges need none of it.
        if live.iter().any(NetworkSpec::is_managed) {
            desired.share(held.as_ref(), &part);
            desired.beside_docker(&mut self.kernel, held.as_ref());
        }
        Ok((live, desired))
    }

    /// The packet rules that are not as the store says, by a look without locks.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn changed_rules(&mut self) -> Result<Vec<Changed>, EngineError> {
        let (live, desired) = self.desired_now()?;
        if live.is_empty() {
            return Ok(Vec::new());
        }
        let seen = self
            .kernel
            .observe_rules(&desired.rules, &desired.allowed)
            .map_err(|e| failed("compare the kernel with the store", &e))?;
        let own = desired.rules.iter().filter(|r| !desired.docker.contains(r));
        Ok(changed(own, &seen.seen))
    }

    fn live_networks(&mut self) -> Result<(Vec<NetworkSpec>, HostPart), EngineError> {
        let live: Vec<NetworkSpec> = self.run.read(|txn| {
            let all = self.run.networks.iter(txn)?;
            let all = all
                .map(|i| i.map(|(_, n)| n))
                .collect::<heed::Result<Vec<_>>>()?;
            Ok(all
                .into_iter()
                .filter(|n| !n.busy)
                .map(|n| n.spec)
                .collect())
        })?;
        let part = self.host_needs(&live)?;
        Ok((live, part))
    }

    /// `None` if the ruleset changed between looking and mending.
    fn repair_once(&mut self, mode: Mode) -> Result<Option<Pass>, EngineError> {
        let (live, part) = self.live_networks()?;
        let held = self.held(&part)?;
        if live.is_empty() {
            return Ok(Some(Pass::default()));
        }
        let mut txn = self.run.begin()?;
        let mut desired = self.desired(&txn)?;
        // Networks of others' bridges need none of it.
        if live.iter().any(NetworkSpec::is_managed) {
            desired.share(held.as_ref(), &part);
            desired.beside_docker(&mut self.kernel, held.as_ref());
        }
        let mut pass = Pass::default();
        let mut renamed = renamed_links(&mut self.kernel, &desired)?;
        for link in &renamed {
            pass.plan.push(link.op(), NO_WAY_BACK, REASON);
            pass.findings.push(link.finding());
        }
        if applies(mode) {
            let undone = renamed.iter().map(|link| link.undo(&mut self.kernel));
            pass.refused.extend(undone.filter_map(Result::err));
            renamed.clear();
        }
        let repairs = compared(&mut self.kernel, &desired, &renamed)?;
        if !repairs.rules.is_empty() {
            pass.plan
                .push(Op::Nft(repairs.rules.clone()), NO_WAY_BACK, REASON);
        }
        let mut rest = repairs.rest;
        pass.findings.extend(repairs.findings);
        for door in shut_doors(&mut self.kernel, &live) {
            pass.findings.push(shut(&door));
            rest.push(door, NO_WAY_BACK, "bridges of wharf's pass there");
        }
        for (bridge, mac) in deaf(&mut self.kernel, &live)? {
            pass.findings.push(Finding {
                object: format!("forwarding entry {mac} of {bridge} itself"),
                was: "missing".to_owned(),
            });
            let link = bridge.clone();
            rest.push(Op::FdbOwn { link, mac }, NO_WAY_BACK, REASON);
        }
        pass.plan.append(rest.clone());
        if applies(mode) && !repairs.rules.is_empty() {
            let done = self.kernel.nft_at(repairs.generation, &repairs.rules);
            if !done.map_err(|e| failed_op("mend wharf's rules", &e))? {
                return Ok(None);
            }
        }
        if !applies(mode) {
            return Ok(Some(pass));
        }
        pass.refused.extend(apply_each(&mut self.kernel, &rest));
        let write = (|| {
            for network in &desired.miscounted {
                let name = network.spec.name.as_str();
                self.run.networks.put(&mut txn, name, network)?;
            }
            self.record_host_anew(&mut txn, &part)
        })();
        write.map_err(|e| self.run.fail(e))?;
        self.run.commit(txn)?;
        for net in &live {
            self.open_doors(net);
        }
        Ok(Some(pass))
    }
}

fn renamed_links(
    kernel: &mut NetlinkKernel,
    desired: &Desired,
) -> Result<Vec<Renamed>, EngineError> {
    let links = kernel.links(&Netns::Host);
    let links = links.map_err(|e| failed("list links", &e))?;
    Ok(renamed(&links, &desired.networks, &desired.containers))
}

/// What the kernel has of what should be there, as it will be when links have their names again.
fn compared(
    kernel: &mut NetlinkKernel,
    desired: &Desired,
    renamed: &[Renamed],
) -> Result<Repairs, EngineError> {
    let read = |e: std::io::Error| failed("compare the kernel with the store", &e);
    let seen = kernel.observe_rules(&desired.rules, &desired.allowed);
    let mut seen = seen.map_err(read)?;
    seen.seen.extend(desired.stale.iter().cloned());
    let names: Vec<_> = renamed.iter().map(|r| (&r.from, &r.to)).collect();
    let routes = desired.connected.iter().map(|c| &c.route);
    let all: Vec<Resource> = desired.rest.iter().chain(routes).cloned().collect();
    let mut there = kernel.observe_renamed(&all, &names).map_err(read)?;
    desired.leave_open(&mut there);
    Ok(repairs(desired, seen, &there))
}

fn repairs(desired: &Desired, seen: RulesSeen, there: &[Resource]) -> Repairs {
    let mut findings = Vec::new();
    for (object, was) in &seen.strange {
        findings.push(Finding {
            object: object.clone(),
            was: (*was).to_owned(),
        });
    }
    let keys: HashSet<ResourceKey> = there.iter().map(Resource::key).collect();
    let routes = desired.connected.iter();
    let routes = routes.filter(|c| c.needs.iter().all(|key| keys.contains(key)));
    // Before the routes that lead over them.
    let rest: Vec<Resource> = routes
        .map(|c| &c.route)
        .chain(&desired.rest)
        .cloned()
        .collect();
    let others = desired.rules.iter().filter(|r| !desired.docker.contains(r));
    let others: Vec<Resource> = others.cloned().collect();
    compare(&others, &seen.seen, &mut findings);
    if seen
        .seen
        .iter()
        .any(|r| r.key() == ResourceKey::Table(Table::Inet))
    {
        let told = |r: &&Resource| !seen.seen.contains(r);
        let new = desired.docker.iter().filter(told);
        findings.extend(new.map(|r| told_wrong(r, "the rules do not know it")));
    }
    let stale = desired.stale.iter();
    findings.extend(stale.map(|r| told_wrong(r, "it is no longer as the rules know it")));
    compare(&rest, there, &mut findings);
    let rules = if seen.strange.is_empty() {
        let plan = diff(&desired.rules, &seen.seen, REASON);
        let changes = plan.steps.into_iter().filter_map(|s| match s.op {
            Op::Nft(changes) => Some(changes),
            _ => None,
        });
        changes.flatten().collect()
    } else {
        anew(&desired.rules, &desired.allowed, &seen)
    };
    let mut plan = Plan::default();
    for step in diff(&rest, there, REASON).steps {
        if let Op::LinkSet(link) = &step.op
            && is_unplugged(link, there)
        {
            plan.push(Op::PortUnplug(link.name.clone()), NO_WAY_BACK, REASON);
        }
        plan.steps.push(instead(step));
    }
    Repairs {
        rules,
        generation: seen.generation,
        rest: plan,
        findings,
    }
}

/// Bridges of wharf's that take no frames as their own.
fn deaf<'a>(
    kernel: &mut NetlinkKernel,
    live: &'a [NetworkSpec],
) -> Result<Vec<(&'a IfName, Mac)>, EngineError> {
    let own = live
        .iter()
        .filter(|n| n.has_own_bridge() && n.found.is_none());
    kernel
        .deaf_bridges(own.map(|n| (&n.bridge, n.bridge_mac)))
        .map_err(|e| failed("read the bridges' tables", &e))
}

/// A port that counts as not plugged in may be, with settings that go when it is unplugged.
fn is_unplugged(link: &Link, there: &[Resource]) -> bool {
    let is = |r: &Resource| matches!(r, Resource::Link(l) if l.name == link.name && l.netns == link.netns && l.master.is_none());
    link.master.is_some() && there.iter().any(is)
}

/// A route takes the place of one that somebody put there.
fn instead(step: Step) -> Step {
    let op = match step.op {
        Op::RouteAdd(route) => Op::RouteAdd(RouteOp {
            replace: !route.more.beside,
            ..route
        }),
        op => op,
    };
    Step {
        op,
        undo: NO_WAY_BACK,
        ..step
    }
}

/// Both tables made again in one transaction, so that there is no moment without rules.
fn anew(rules: &[Resource], allowed: &[Resource], seen: &RulesSeen) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for table in Table::ALL {
        changes.extend([
            Change::Add(Object::Table(table)),
            Change::Del(Object::Table(table)),
        ]);
    }
    let mut done: HashSet<ResourceKey> = HashSet::new();
    let chains: BTreeSet<ResourceKey> = seen.seen.iter().map(Resource::key).collect();
    let still = allowed.iter().filter(|r| chains.contains(&r.key()));
    for resource in rules.iter().chain(still) {
        if let Resource::Nft(object) = resource
            && done.insert(resource.key())
        {
            changes.push(Change::Add(object.clone()));
        }
    }
    changes
}
