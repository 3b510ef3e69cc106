//! The verbs: each reads the store, decides with the core, writes the journal, changes the kernel, and
//! writes the result.
//!
//! A verb that fails takes back what it did. A process that dies in the middle leaves a journal entry; the
//! next engine that opens finishes or undoes its work (`recover`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Weak;

use wharf_core::attach::{Container, ProcessRef};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::NetworkSpec;
use wharf_core::op::Op;
use wharf_core::plan::Plan;
use wharf_core::trace::doctor::Differences;

use crate::api::{Dirs, Mode, NetworkView, Note, ObjectName};
use crate::error::EngineError;
use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::{Kernel, PlanError, execute};
use crate::observe::world::Ask;
use crate::store::{JournalEntry, RunStore, StateStore, Work};

mod check;
mod claims;
mod client;
mod connect;
mod container;
mod desired;
mod docker;
mod ends;
mod findings;
mod flows;
mod foreign;
mod forwarding;
mod free_ports;
mod gc;
mod host;
mod identity;
mod join;
mod lock;
mod lost;
mod managed;
mod network;
mod ports;
mod preview;
mod programs;
mod rebuild;
mod recover;
mod refused;
mod rehearsal;
mod renamed;
mod repair;
mod serve;
mod served;
mod settings;
mod shared;
mod transient;
mod turn;
mod update;

pub use check::Believed;
pub use client::{CLIENT_LABEL, owner_of};
pub use rebuild::REBUILT_LABEL;
pub use serve::{Event, serve};
pub use update::Update;

/// Networks by name, as a verb sees them.
pub(crate) type Networks = BTreeMap<NetworkName, NetworkSpec>;

/// The engine: its stores and its way to the kernel.
pub struct Engine {
    dirs: Dirs,
    run: RunStore,
    state: Option<StateStore>,
    kernel: NetlinkKernel,
    me: ProcessRef,
    /// The inode of the namespace that is the host.
    own_netns: u64,
    notes: Vec<Note>,
    host_lock: RefCell<Weak<File>>,
}

impl Engine {
    /// Opens the run store, and sees to what dead processes left.
    ///
    /// # Errors
    /// The store cannot be used, belongs to another network namespace that lives, or privileges are missing.
    pub fn open(dirs: &Dirs) -> Result<Self, EngineError> {
        let mut engine = Self::on(dirs)?;
        engine.settle()?;
        engine.recover()?;
        Ok(engine)
    }

    /// With a run store that has not been looked at.
    fn on(dirs: &Dirs) -> Result<Self, EngineError> {
        Ok(Self {
            dirs: dirs.clone(),
            run: RunStore::open(&dirs.run).map_err(identity::explain_denied)?,
            state: None,
            kernel: NetlinkKernel::new(),
            me: identity::this_process()?,
            own_netns: 0,
            notes: Vec::new(),
            host_lock: RefCell::default(),
        })
    }

    /// What happened that nobody asked for: work of dead processes that was finished or undone.
    pub fn take_notes(&mut self) -> Vec<Note> {
        let kept: Vec<String> = std::mem::take(&mut self.kernel.kept).into_iter().collect();
        if !kept.is_empty() {
            self.notes.push(Note::MissingFeature(format!(
                "/proc/sys is mounted read-only here: the packet rules do without these settings, which stay as they are: {}",
                kept.join(", ")
            )));
        }
        std::mem::take(&mut self.notes)
    }

    /// All containers, by name.
    ///
    /// # Errors
    /// The store's.
    pub fn containers(&mut self) -> Result<Vec<Container>, EngineError> {
        self.run.read(|txn| {
            self.run
                .containers
                .iter(txn)?
                .map(|item| item.map(|(_, c)| c))
                .collect()
        })
    }

    /// One container.
    ///
    /// # Errors
    /// There is none of that name; the store's.
    pub fn container(&mut self, name: &ContainerName) -> Result<Container, EngineError> {
        let found = self
            .run
            .read(|txn| self.run.containers.get(txn, name.as_str()))?;
        found.ok_or_else(|| EngineError::NotFound(ObjectName::Container(name.clone())))
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// The store's.
    pub fn networks(&mut self) -> Result<Vec<NetworkView>, EngineError> {
        let mut views: BTreeMap<NetworkName, NetworkView> = BTreeMap::new();
        let live: Vec<NetworkSpec> = self.run.read(|txn| {
            self.run
                .networks
                .iter(txn)?
                .map(|item| item.map(|(_, n)| n.spec))
                .collect()
        })?;
        for spec in self.state()?.networks()?.into_iter().chain(live) {
            views.entry(spec.name.clone()).or_insert(NetworkView {
                spec,
                containers: Vec::new(),
            });
        }
        for container in self.containers()? {
            for attachment in &container.attachments {
                if let Some(view) = views.get_mut(&attachment.network) {
                    view.containers.push(container.name.clone());
                }
            }
        }
        Ok(views.into_values().collect())
    }

    /// One network.
    ///
    /// # Errors
    /// There is none of that name; the store's.
    pub fn network(&mut self, name: &NetworkName) -> Result<NetworkView, EngineError> {
        let found = self.networks()?.into_iter().find(|v| v.spec.name == *name);
        found.ok_or_else(|| EngineError::NotFound(ObjectName::Network(name.clone())))
    }

    /// The start of a question about packets: what wharf knows of networks and containers.
    ///
    /// # Errors
    /// The store's.
    pub fn ask(&mut self) -> Result<Ask, EngineError> {
        Ok(Ask {
            networks: self.networks()?.into_iter().map(|v| v.spec).collect(),
            containers: self.containers()?,
            processes: true,
            ..Ask::default()
        })
    }

    /// What the kernel has and the store does not know, and the other way round. Nothing is changed.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn differences(&mut self) -> Result<Differences, EngineError> {
        let pairs = |found: Vec<crate::api::Finding>| {
            found.into_iter().map(|f| (f.object, f.was)).collect()
        };
        Ok(Differences {
            changed: pairs(self.repair(Mode::DryRun)?.value.mended),
            left: pairs(self.gc(Mode::DryRun)?.value),
            managed: self.managed()?,
            rules_at_risk: self.rules_at_risk()?,
        })
    }

    fn state(&mut self) -> Result<&StateStore, EngineError> {
        if self.state.is_none() {
            self.state =
                Some(StateStore::open(&self.dirs.state).map_err(identity::explain_denied)?);
        }
        Ok(self.state.as_ref().expect("just opened"))
    }

    fn journal(&self, work: Work) -> JournalEntry {
        JournalEntry {
            process: self.me,
            work,
        }
    }

    /// Carries out a plan. When wharf's tables are not there (another tool flushed them), they are made
    /// again from the store, and the plan is tried once more.
    fn carry_out(&mut self, plan: &Plan, verb: impl FnOnce() -> String) -> Result<(), EngineError> {
        let Err(mut error) = execute(&mut self.kernel, plan) else {
            return Ok(());
        };
        if rules_missing(&error) && error.left.is_empty() && self.mend(Mode::Apply).is_ok() {
            match execute(&mut self.kernel, plan) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        Err(EngineError::Plan {
            verb: verb(),
            error,
        })
    }

    /// Removes what a plan names, going on after failures: for the way back, where the first error is known.
    fn carry_out_all(&mut self, plan: &Plan) {
        if execute(&mut self.kernel, plan).is_err() {
            for step in &plan.steps {
                let _ = self.kernel.apply(&[&step.op]);
            }
        }
    }
}

/// The failed step spoke to a table, chain or set that is not there.
fn rules_missing(error: &PlanError) -> bool {
    matches!(*error.error.op, Op::Nft(_)) && error.error.errno == libc::ENOENT
}

/// In a dry run nothing is written.
fn applies(mode: Mode) -> bool {
    mode == Mode::Apply
}

/// The text of a journal key.
fn journal_key(name: &ObjectName) -> String {
    match name {
        ObjectName::Network(name) => format!("network/{name}"),
        ObjectName::Container(name) => format!("container/{name}"),
    }
}
