//! `repair`: the kernel made what the store says.

use clap::Args;
use serde_json::{Value, json};
use wharf_core::render::{command, plan_json};
use wharf_engine::api::{Finding, Mode, Outcome, Repaired, Unmended};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use super::args::ChangeArgs;
use super::{Context, Done};
use crate::output::error::op_cause;

#[derive(Debug, Args)]
#[command(after_help = "\
What should be there follows from what wharf remembers. Running containers are not touched: what is missing
around them is made again, what is different is set, what is nobody's in wharf's tables goes.

Exit status: 0 everything is as it should be, 1 something could not be mended: whose it is and why is told,
everything else is mended all the same.")]
pub struct RepairArgs {
    /// Make the store again from the kernel first: for a store that was lost or cannot be read
    ///
    /// A store that cannot be read is put aside. Labels, and options that leave no trace in the kernel, are lost.
    #[arg(long)]
    rebuild: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

pub fn run(args: &RepairArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let outcome = if args.rebuild && mode == Mode::DryRun {
        Engine::rehearse_rebuild(&ctx.dirs)?
    } else if args.rebuild {
        let (mut engine, aside) = Engine::open_anew(&ctx.dirs)?;
        let mut outcome = engine.rebuild()?;
        outcome.value.mended.splice(0..0, aside);
        outcome
    } else {
        ctx.engine()?.repair(mode)?
    };
    let Repaired { mended, left } = outcome.value;
    let outcome = Outcome {
        value: mended,
        plan: outcome.plan,
        notes: outcome.notes,
    };
    let more = match left.is_empty() {
        true => json!({}),
        false => json!({ "left": left.iter().map(unmended).collect::<Vec<_>>() }),
    };
    report(outcome, mode, "mended", more, ctx)?;
    match left.is_empty() {
        true => Ok(0),
        false => Err(EngineError::Left {
            verb: "mend".to_owned(),
            left,
        }
        .into()),
    }
}

fn unmended(left: &Unmended) -> Value {
    json!({
        "whose": left.whose.replace('`', ""),
        "why": op_cause(&left.error),
        "command": command(&left.error.op),
    })
}

/// Prints what was found and what was done about it: lines, or `{WORD: [{object, was}]}`; for a dry run the plan, in
/// which what is in the store only shows as comments. `more` is for JSON.
pub fn report(
    outcome: Outcome<Vec<Finding>>,
    mode: Mode,
    word: &str,
    more: Value,
    ctx: &Context,
) -> Done {
    ctx.printer.notes(&outcome.notes);
    let findings = &outcome.value;
    if ctx.printer.json() {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"object": f.object, "was": f.was}))
            .collect();
        let mut value = more;
        value[word] = json!(list);
        if mode == Mode::DryRun {
            value["steps"] = json!(plan_json(&outcome.plan).steps);
        }
        ctx.printer.value(&value)?;
        return Ok(0);
    }
    if mode == Mode::Apply {
        let lines = findings
            .iter()
            .map(|f| format!("{word} {} ({})\n", f.object, f.was));
        ctx.printer.text(&lines.collect::<String>())?;
        return Ok(0);
    }
    let comments = findings
        .iter()
        .map(|f| format!("# {} ({})\n", f.object, f.was));
    ctx.printer.text(&comments.collect::<String>())?;
    if findings.is_empty() || !outcome.plan.is_empty() {
        ctx.printer.plan(&outcome.plan)?;
    }
    Ok(0)
}
