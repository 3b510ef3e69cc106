//! Removing what a file names: all that can be refused is refused before anything goes, since a namespace that is gone
//! cannot be made again; what fails later keeps nothing else from going.

use wharf_core::name::{ContainerName, NetworkName};
use wharf_engine::api::{Mode, ObjectName};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use super::change::{Action, Change};
use super::difference::check_owners;
use super::source::Wanted;
use crate::cli::{Context, files};
use crate::output::error::CommandError;

/// What goes, containers before networks, each in the reverse order of the file.
#[derive(Debug)]
pub struct Removal {
    containers: Vec<ContainerName>,
    networks: Vec<NetworkName>,
    force: bool,
}

/// What is left, and why.
type Left = (ObjectName, CommandError);

impl Removal {
    /// What of a file is there.
    ///
    /// # Errors
    /// It cannot go: somebody else is on one of the networks, a program runs, a name is somebody else's, privileges are
    /// missing. Nothing has been changed.
    pub fn of(wanted: &Wanted, force: bool, engine: &mut Engine) -> Result<Self, CommandError> {
        let (networks, containers) = (engine.networks()?, engine.containers()?);
        check_owners(wanted, &networks, &containers)?;
        let named = wanted.containers.iter().rev().map(|spec| spec.name.clone());
        let going: Vec<_> = named
            .filter(|n| containers.iter().any(|c| c.name == *n))
            .collect();
        let mut gone = Vec::new();
        for request in wanted.networks.iter().rev() {
            let Some(view) = networks.iter().find(|v| v.spec.name == request.name) else {
                continue;
            };
            let mut others = view.containers.clone();
            others.retain(|c| !going.contains(c));
            if !others.is_empty() && !force {
                return Err(EngineError::NetworkInUse {
                    network: request.name.clone(),
                    containers: others,
                }
                .into());
            }
            gone.push(request.name.clone());
        }
        let removal = Self {
            containers: going,
            networks: gone,
            force,
        };
        if !removal.actions().is_empty() {
            engine.check_privileges()?;
            engine.remove(&removal.containers, force, Mode::DryRun)?;
        }
        Ok(removal)
    }

    /// As changes, for showing.
    pub fn actions(&self) -> Vec<Action> {
        let action = |change, because: &str| Action {
            change,
            undo: Vec::new(),
            because: because.to_owned(),
        };
        let containers = Change::Remove(self.containers.clone(), self.force);
        let networks = Change::NetworkRemove(self.networks.clone(), self.force);
        let mut all = Vec::new();
        if !self.containers.is_empty() {
            all.push(action(containers, "- containers of the file"));
        }
        if !self.networks.is_empty() {
            all.push(action(networks, "- networks of the file"));
        }
        all
    }

    /// Removes it all, or as much as can be.
    ///
    /// # Errors
    /// Something is left; the error says what and why.
    pub fn carry_out(&self, engine: &mut Engine, ctx: &Context) -> Result<(), CommandError> {
        let mut left = self.remove_containers(engine, ctx);
        left.extend(self.remove_networks(engine, ctx));
        if left.is_empty() {
            return Ok(());
        }
        Err(all_left(&left))
    }

    /// All at once, which takes the kernel's time once; if that fails one by one.
    fn remove_containers(&self, engine: &mut Engine, ctx: &Context) -> Vec<Left> {
        if self.containers.is_empty() {
            return Vec::new();
        }
        if let Ok(outcome) = engine.remove(&self.containers, self.force, Mode::Apply) {
            ctx.printer.notes(&outcome.notes);
            forget_logs(&self.containers, ctx);
            return Vec::new();
        }
        let mut left = Vec::new();
        for name in &self.containers {
            let one = std::slice::from_ref(name);
            match engine.remove(one, self.force, Mode::Apply) {
                Ok(outcome) => {
                    ctx.printer.notes(&outcome.notes);
                    forget_logs(one, ctx);
                }
                // It went with the first attempt.
                Err(EngineError::NotFound(_)) => forget_logs(one, ctx),
                Err(error) => left.push((ObjectName::Container(name.clone()), error.into())),
            }
        }
        left
    }

    fn remove_networks(&self, engine: &mut Engine, ctx: &Context) -> Vec<Left> {
        let mut left = Vec::new();
        for name in &self.networks {
            match engine.network_remove(std::slice::from_ref(name), self.force, Mode::Apply) {
                Ok(outcome) => ctx.printer.notes(&outcome.notes),
                Err(EngineError::NotFound(_)) => {}
                Err(error) => left.push((ObjectName::Network(name.clone()), error.into())),
            }
        }
        left
    }
}

fn forget_logs(names: &[ContainerName], ctx: &Context) {
    for name in names {
        files::forget_log(&ctx.dirs, name);
    }
}

/// One error for all that is left; a single one is that one's.
fn all_left(left: &[Left]) -> CommandError {
    let names: Vec<String> = left.iter().map(|(object, _)| object.to_string()).collect();
    let mut all = CommandError::new(
        left[0].1.kind,
        format!(
            "could not remove {}; everything else is removed",
            names.join(", ")
        ),
    );
    for (_, error) in left {
        let causes = error.causes.iter().map(|c| format!(": {c}"));
        all.causes
            .push(error.message.clone() + &causes.collect::<String>());
    }
    let commands: Vec<&str> = left
        .iter()
        .filter_map(|(_, e)| e.command.as_deref())
        .collect();
    all.command = Some(commands.join("\n")).filter(|text| !text.is_empty());
    let hint = left.iter().find_map(|(_, e)| e.hint.clone());
    all.hint = hint.or_else(|| Some("`wharf gc` removes what belongs to nobody".to_owned()));
    all
}
