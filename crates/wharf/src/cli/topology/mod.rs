//! A whole file at once: `plan`, `apply`, `destroy`.
//!
//! The difference between file and host is a list of changes, each one verb of the engine. What is shown is
//! the `wharf` command of each: a network that is still to be made has no kernel objects that later steps
//! could name.

mod change;
mod destroy;
mod difference;
mod source;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use wharf_engine::engine::Engine;

use super::args::ChangeArgs;
use super::{Context, Done, files};
use crate::output::error::CommandError;
use change::{Action, Change};
use destroy::Removal;

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The file, TOML or YAML; - for the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file, TOML or YAML; - for the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct DestroyArgs {
    /// The file, TOML or YAML; - for the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// End programs that still run, and remove other containers from the networks
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

pub fn plan(args: &PlanArgs, ctx: &Context) -> Done {
    let wanted = source::read(&args.file)?;
    let actions = difference::to_apply(&wanted, &mut ctx.engine()?)?;
    show(&actions, ctx)?;
    Ok(0)
}

pub fn apply(args: &ApplyArgs, ctx: &Context) -> Done {
    let wanted = source::read(&args.file)?;
    let mut engine = ctx.engine()?;
    let actions = difference::to_apply(&wanted, &mut engine)?;
    carry_out(&actions, &mut engine, args.change, ctx)
}

pub fn destroy(args: &DestroyArgs, ctx: &Context) -> Done {
    let wanted = source::read(&args.file)?;
    let mut engine = ctx.engine()?;
    let removal = Removal::of(&wanted, args.force, &mut engine)?;
    let actions = removal.actions();
    if args.change.dry_run || !ctx.printer.json() {
        show(&actions, ctx)?;
    }
    if args.change.dry_run {
        return Ok(0);
    }
    removal.carry_out(&mut engine, ctx)?;
    if ctx.printer.json() {
        show(&actions, ctx)?;
    }
    Ok(0)
}

/// Shows the difference, then does it; JSON is printed once it is done.
fn carry_out(actions: &[Action], engine: &mut Engine, change: ChangeArgs, ctx: &Context) -> Done {
    if change.dry_run {
        show(actions, ctx)?;
        return Ok(0);
    }
    if !ctx.printer.json() {
        show(actions, ctx)?;
    }
    for (at, action) in actions.iter().enumerate() {
        let count = actions.len();
        ctx.printer
            .progress(&format!("[{}/{count}] {}", at + 1, action.change.command()));
        match action.change.apply(engine) {
            Ok(notes) => ctx.printer.notes(&notes),
            Err(error) => {
                let done = &actions[..at];
                return Err(take_back(CommandError::from(error), action, done, engine));
            }
        }
        if let Change::Remove(names, _) = &action.change {
            for name in names {
                files::forget_log(&ctx.dirs, name);
            }
        }
    }
    if ctx.printer.json() {
        show(actions, ctx)?;
    }
    Ok(0)
}

/// Takes earlier changes back, the last first, and adds to the error how that went.
fn take_back(
    error: CommandError,
    failed: &Action,
    done: &[Action],
    engine: &mut Engine,
) -> CommandError {
    let mut left = Vec::new();
    for action in done.iter().rev() {
        if action.undo.is_empty() {
            left.push(format!("`{}` is not taken back", action.change.command()));
        }
        let failure = action.undo.iter().find_map(|undo| undo.apply(engine).err());
        if let Some(failure) = failure {
            left.push(format!("`{}`: {failure}", action.change.command()));
        }
    }
    left.reverse();
    let mut error = error;
    if error.command.is_none() {
        error.command = Some(failed.change.command());
    }
    let count = format!(
        "{} of {} earlier changes",
        done.len() - left.len(),
        done.len()
    );
    error.undone(match (done.is_empty(), left.is_empty()) {
        (true, _) => "nothing had been changed".to_owned(),
        (false, true) => format!("{count}; the host is as before"),
        (false, false) => format!("{count}; done already:\n{}", left.join("\n")),
    })
}

/// Prints the changes: as commands with their reasons, or as `{steps: [{op, command, because, undo}]}`.
fn show(actions: &[Action], ctx: &Context) -> Result<(), CommandError> {
    if ctx.printer.json() {
        let steps: Vec<_> = actions
            .iter()
            .map(|action| {
                let undo: Vec<String> = action.undo.iter().map(Change::command).collect();
                json!({
                    "op": action.change.op(),
                    "command": action.change.command(),
                    "because": action.because,
                    "undo": undo,
                })
            })
            .collect();
        return ctx.printer.value(&json!({"steps": steps}));
    }
    if actions.is_empty() {
        return ctx.printer.line("# nothing to do: it is so already");
    }
    let text: String = actions
        .iter()
        .map(|action| format!("# {}\n{}\n", action.because, action.change.command()))
        .collect();
    ctx.printer.text(&text)
}
