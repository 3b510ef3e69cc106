//! Making the kernel what the store says it is: after another tool flushed the rules, after somebody removed a
//! bridge, after a crash.
//!
//! What should be there is compiled from the store and compared with what is there; the difference is applied, rules
//! first. Meanwhile no other process can begin a change; of those that are in the middle of one, what they may have is
//! left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use heed::RoTxn;
use wharf_core::attach::{Container, Phase};
use wharf_core::compile::{self, Unforwarded};
use wharf_core::diff::diff;
use wharf_core::model::{Resource, ResourceKey};
use wharf_core::name::NetworkName;
use wharf_core::network::NetworkSpec;
use wharf_core::nft::{Change, Object, Table};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Step, Undo};

use crate::api::{Finding, Mode, Note, Outcome};
use crate::engine::findings::compare;
use crate::engine::host::{HostPart, backstop, failed, failed_op, learn_of_host, shared_rules};
use crate::engine::{CLIENT_LABEL, Engine, Networks, applies, identity, journal_key};
use crate::error::EngineError;
use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::{Kernel, PlanError};
use crate::observe::{NOBODYS, RulesSeen};
use crate::store::LiveNetwork;

/// How often to begin again because others changed rules meanwhile.
const ROUNDS: u32 = 50;
/// How often to look again whether all is well.
const PASSES: u32 = 4;
const REASON: &str = "it is not as wharf made it";
const NO_WAY_BACK: Undo = Undo::Irreversible("it is how it should be");

/// What the store says.
#[derive(Default)]
struct Desired {
    rules: Vec<Resource>,
    /// Rules that may be there or not: of changes that others are making, and of containers that are dead.
    allowed: Vec<Resource>,
    rest: Vec<Resource>,
    /// Of these, settings that are anybody's once they were made: plugins behind wharf set others.
    left_open: HashMap<ResourceKey, Resource>,
    /// Networks whose count of users of the host's loopback is wrong, with the right one.
    miscounted: Vec<LiveNetwork>,
}

impl Desired {
    /// With what all networks share.
    fn share(&mut self, held: Option<&Unforwarded>, part: &HostPart) {
        self.rules.splice(0..0, shared_rules(held));
        self.rest.splice(0..0, part.sysctls());
        self.rest.splice(0..0, backstop());
    }

    /// What a container has besides rules.
    fn add_rest(&mut self, container: &Container, rest: Vec<Resource>) {
        let of_interface = |r: &&Resource| matches!(r, Resource::Sysctl { link: Some(_), .. });
        if container.client.is_some() {
            let open = rest.iter().filter(of_interface);
            self.left_open.extend(open.map(|r| (r.key(), r.clone())));
        }
        self.rest.extend(rest);
    }

    /// What is there of it, where settings that were left open are right as they are.
    fn seen(&self, kernel: &mut NetlinkKernel) -> std::io::Result<Vec<Resource>> {
        let mut there = kernel.observe(&self.rest)?;
        for resource in &mut there {
            if let Some(wanted) = self.left_open.get(&resource.key()) {
                resource.clone_from(wanted);
            }
        }
        Ok(there)
    }
}

/// What was found to be done.
struct Repairs {
    rules: Vec<Change>,
    generation: u32,
    rest: Plan,
    findings: Vec<Finding>,
}

impl Engine {
    /// Makes everything in the kernel what the store says, without touching what is as it should be.
    ///
    /// # Errors
    /// The kernel's or the store's. What could be mended is mended then.
    pub fn repair(&mut self, mode: Mode) -> Result<Outcome<Vec<Finding>>, EngineError> {
        let (plan, value) = self.mend(mode)?;
        Ok(Outcome {
            value,
            plan,
            notes: self.take_notes(),
        })
    }

    /// As [`Engine::repair`], in the middle of something else.
    pub(super) fn mend(&mut self, mode: Mode) -> Result<(Plan, Vec<Finding>), EngineError> {
        let _lock = self.lock_host()?;
        let (mut plan, mut findings) = (Plan::default(), Vec::new());
        let mut passes = 0;
        for _ in 0..ROUNDS {
            let Some((steps, found)) = self.repair_once(mode)? else {
                continue;
            };
            // One change may undo what was fine before: a bridge with a new hardware address forgets neighbours.
            passes += 1;
            let over = !applies(mode) || steps.is_empty() || passes == PASSES;
            plan.append(steps);
            findings.extend(found);
            if over {
                return Ok((plan, findings));
            }
        }
        Err(EngineError::System {
            verb: "mend wharf's rules".to_owned(),
            detail: "other programs keep changing the ruleset".to_owned(),
            errno: libc::EAGAIN,
        })
    }

    /// Mends what can be mended, for a change that failed. Whether there was anything.
    pub(super) fn mends_something(&mut self) -> Result<bool, EngineError> {
        let (_, mended) = self.mend(Mode::Apply)?;
        let objects = mended.iter().map(|found| found.object.clone());
        self.notes.extend(objects.map(Note::Recovered));
        Ok(!mended.is_empty())
    }

    /// Makes the rules anew if there is anything among them that belongs to nobody.
    pub(super) fn mend_strange(&mut self, mode: Mode) -> Result<(Plan, Vec<Finding>), EngineError> {
        let (plan, mut findings) = self.mend(Mode::DryRun)?;
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
        let (live, part) = self.live_networks()?;
        if live.is_empty() {
            return Ok(false);
        }
        let held = self.held(&part)?;
        let view = self.run.view()?;
        let mut desired = self.desired(&view)?;
        drop(view);
        // Networks of others' bridges need none of it.
        if live.iter().any(NetworkSpec::is_managed) {
            desired.share(held.as_ref(), &part);
        }
        let repairs = self.compare_with_kernel(&desired)?;
        Ok(!repairs.findings.is_empty())
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

    fn compare_with_kernel(&mut self, desired: &Desired) -> Result<Repairs, EngineError> {
        let read = |e: std::io::Error| failed("compare the kernel with the store", &e);
        let seen = self.kernel.observe_rules(&desired.rules, &desired.allowed);
        let seen = seen.map_err(read)?;
        let there = desired.seen(&mut self.kernel).map_err(read)?;
        Ok(repairs(desired, seen, &there))
    }

    /// `None` if the ruleset changed between looking and mending.
    fn repair_once(&mut self, mode: Mode) -> Result<Option<(Plan, Vec<Finding>)>, EngineError> {
        let (live, part) = self.live_networks()?;
        let held = self.held(&part)?;
        if live.is_empty() {
            return Ok(Some((Plan::default(), Vec::new())));
        }
        let mut txn = self.run.begin()?;
        let mut desired = self.desired(&txn)?;
        // Networks of others' bridges need none of it.
        if live.iter().any(NetworkSpec::is_managed) {
            desired.share(held.as_ref(), &part);
        }
        let read = |e: std::io::Error| failed("compare the kernel with the store", &e);
        let seen = self.kernel.observe_rules(&desired.rules, &desired.allowed);
        let seen = seen.map_err(read)?;
        let there = desired.seen(&mut self.kernel).map_err(read)?;
        let repairs = repairs(&desired, seen, &there);
        let mut plan = Plan::default();
        if !repairs.rules.is_empty() {
            plan.push(Op::Nft(repairs.rules.clone()), NO_WAY_BACK, REASON);
        }
        plan.append(repairs.rest.clone());
        if !applies(mode) {
            return Ok(Some((plan, repairs.findings)));
        }
        if !repairs.rules.is_empty() {
            let done = self.kernel.nft_at(repairs.generation, &repairs.rules);
            if !done.map_err(|e| failed_op("mend wharf's rules", &e))? {
                return Ok(None);
            }
        }
        let done = apply_all(&mut self.kernel, &repairs.rest);
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
        done?;
        Ok(Some((plan, repairs.findings)))
    }

    /// What should be there.
    fn desired(&self, txn: &RoTxn) -> Result<Desired, EngineError> {
        let read = || -> heed::Result<_> {
            let networks = self.run.networks.iter(txn)?;
            let networks: Vec<LiveNetwork> = networks
                .map(|i| i.map(|(_, n)| n))
                .collect::<heed::Result<_>>()?;
            let containers = self.run.containers.iter(txn)?;
            let containers: Vec<Container> = containers
                .map(|i| i.map(|(_, c)| c))
                .collect::<heed::Result<_>>()?;
            let journal = self.run.journal.iter(txn)?;
            let journal: HashSet<String> = journal
                .map(|i| i.map(|(k, _)| k.to_owned()))
                .collect::<heed::Result<_>>()?;
            Ok((networks, containers, journal))
        };
        let (networks, containers, journal) = read().map_err(|e| self.run.fail(e))?;
        let mut desired = Desired::default();
        let mut nets: Networks = networks
            .iter()
            .map(|n| (n.spec.name.clone(), n.spec.clone()))
            .collect();
        learn_of_host(nets.values_mut());
        let network = |name: &NetworkName| nets.get(name);
        for live in &networks {
            let (rules, rest) = halves(compile::network(&live.spec));
            if live.busy {
                desired.allowed.extend(rules);
            } else {
                desired.rules.extend(rules);
                desired.rest.extend(rest);
            }
        }
        for container in &containers {
            let key = journal_key(&crate::api::ObjectName::Container(container.name.clone()));
            let (at_work, lives) = (journal.contains(&key), identity::namespace_lives(container));
            let mut whole = container.clone();
            whole
                .attachments
                .iter_mut()
                .for_each(|a| a.phase = Phase::Active);
            let (all, _) = halves(compile::container(&whole, network));
            desired.allowed.extend(all);
            if !lives {
                continue;
            }
            let mut settled = container.clone();
            settled.attachments.retain(|a| a.phase == Phase::Active);
            let (rules, rest) = halves(compile::container(&settled, network));
            desired.rules.extend(rules);
            if !at_work {
                desired.add_rest(container, rest);
            }
        }
        if journal.is_empty() {
            self.count_again(&networks, &containers, &nets, &mut desired);
        }
        Ok(desired)
    }

    /// How many containers need the host's loopback, and what follows from it.
    fn count_again(
        &self,
        networks: &[LiveNetwork],
        containers: &[Container],
        nets: &Networks,
        desired: &mut Desired,
    ) {
        let mut users: BTreeMap<NetworkName, u32> = BTreeMap::new();
        for container in containers {
            for name in self.loopback_networks(container, nets) {
                *users.entry(name).or_default() += 1;
            }
        }
        for live in networks {
            let count = users.get(&live.spec.name).copied().unwrap_or(0);
            // Plugins behind wharf turn it on as well.
            if count > 0 || !live.spec.labels.contains_key(CLIENT_LABEL) {
                let wanted = compile::route_localnet(&live.spec, count > 0);
                desired.rest.push(wanted);
            }
            if count != live.loopback_users {
                desired.miscounted.push(LiveNetwork {
                    loopback_users: count,
                    ..live.clone()
                });
            }
        }
    }
}

/// Rules, and everything else.
fn halves(all: Vec<Resource>) -> (Vec<Resource>, Vec<Resource>) {
    all.into_iter().partition(|r| matches!(r, Resource::Nft(_)))
}

fn repairs(desired: &Desired, seen: RulesSeen, there: &[Resource]) -> Repairs {
    let mut findings = Vec::new();
    for (object, was) in &seen.strange {
        findings.push(Finding {
            object: object.clone(),
            was: (*was).to_owned(),
        });
    }
    compare(&desired.rules, &seen.seen, &mut findings);
    compare(&desired.rest, there, &mut findings);
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
    let steps = diff(&desired.rest, there, REASON).steps.into_iter();
    Repairs {
        rules,
        generation: seen.generation,
        rest: Plan {
            steps: steps
                .map(|s| Step {
                    undo: NO_WAY_BACK,
                    ..s
                })
                .collect(),
        },
        findings,
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

/// Carries out every step, going on after failures; the first of them is the error.
pub(super) fn apply_all(kernel: &mut dyn Kernel, plan: &Plan) -> Result<(), EngineError> {
    let ops: Vec<&Op> = plan.steps.iter().map(|s| &s.op).collect();
    let Err(together) = kernel.apply(&ops) else {
        return Ok(());
    };
    let (mut first, mut done) = (None, 0);
    for (op, applied) in ops.iter().zip(together.applied) {
        if applied {
            done += 1;
            continue;
        }
        match kernel.apply(&[op]) {
            Ok(()) => done += 1,
            Err(failure) => first = first.or(Some(failure.error)),
        }
    }
    match first {
        None => Ok(()),
        Some(error) => Err(EngineError::Plan {
            verb: "mend what is not as wharf made it".to_owned(),
            error: Box::new(PlanError {
                error,
                done,
                undone: 0,
                left: Vec::new(),
            }),
        }),
    }
}
