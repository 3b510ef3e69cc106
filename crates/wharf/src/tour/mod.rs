//! The tour: container networking, built and explained step by step.
//!
//! It plays in namespaces of its own. The first half is made by hand, operation by operation, so that one sees
//! what each is for; steps that fail really fail. The second half is what wharf makes of the same host. Both run
//! through the real engine.

use std::io::{BufRead, IsTerminal};

use clap::Args;
use serde::Serialize;
use wharf_core::ErrorKind;
use wharf_engine::private;

use crate::cli::{Context, Done};
use crate::output::error::CommandError;

mod by_hand;
mod by_wharf;
mod stage;

use stage::Stage;

/// How the tour is taken.
#[derive(Debug, Args)]
pub struct TourArgs {
    /// Wait for the return key after each step
    #[arg(long)]
    step: bool,
}

/// One step of the tour.
#[derive(Debug, Serialize)]
struct Step {
    title: &'static str,
    /// What one would type.
    commands: Vec<String>,
    tries: Vec<Try>,
    why: &'static str,
}

/// Something tried, and what became of it.
#[derive(Debug, Serialize)]
struct Try {
    what: String,
    expected: &'static str,
    happened: String,
    as_expected: bool,
}

type Scene = fn(&mut Stage) -> Result<Step, CommandError>;

/// The steps in order.
const SCENES: [Scene; 12] = [
    by_hand::outside,
    by_hand::two_cables,
    by_hand::switch,
    by_hand::gateway,
    by_hand::default_route,
    by_hand::forwarding,
    by_hand::masquerade,
    by_hand::open_door,
    by_wharf::network,
    by_wharf::publish,
    by_wharf::apart,
    by_wharf::gone,
];

/// Takes the tour. Status 1 if anything went otherwise than told.
///
/// # Errors
/// The namespaces cannot be made, or an operation fails that should not.
pub fn run(args: TourArgs, ctx: &Context) -> Done {
    private::enter().map_err(|e| {
        let denied = CommandError::new(ErrorKind::Permission, "the tour needs network namespaces of its own");
        denied.cause(e.to_string()).hint("run it as root, or allow unprivileged user namespaces: `sysctl kernel.unprivileged_userns_clone`")
    })?;
    let mut stage = Stage::new()?;
    let mut steps = Vec::new();
    let json = ctx.printer.json();
    for (at, scene) in SCENES.iter().enumerate() {
        ctx.printer
            .progress(&format!("step {} of {} …", at + 1, SCENES.len()));
        let step = scene(&mut stage)?;
        if !json {
            ctx.printer.text(&text(at + 1, &step))?;
            if args.step && at + 1 < SCENES.len() {
                wait_for_key(ctx);
            }
        }
        steps.push(step);
    }
    let odd = steps
        .iter()
        .flat_map(|s| &s.tries)
        .filter(|t| !t.as_expected)
        .count();
    if json {
        ctx.printer
            .value(&serde_json::json!({ "steps": steps, "unexpected": odd }))?;
    } else {
        ctx.printer.line(match odd {
            0 => "Everything went as told.".to_owned(),
            n => format!("{n} of the tries went otherwise than told."),
        })?;
    }
    Ok(u8::from(odd != 0))
}

fn wait_for_key(ctx: &Context) {
    ctx.printer.help("-- press return to go on -- ");
    let mut line = String::new();
    if std::io::stdin().is_terminal() {
        let _ = std::io::stdin().lock().read_line(&mut line);
    }
}

/// A step as it is read.
fn text(number: usize, step: &Step) -> String {
    let mut text = format!("{number}. {}\n", step.title);
    for command in step.commands.iter().flat_map(|c| c.lines()) {
        text.push_str(&format!("   $ {command}\n"));
    }
    for t in &step.tries {
        let mark = if t.as_expected {
            ""
        } else {
            "   <-- NOT as told"
        };
        text.push_str(&format!("   ? {}: {}{mark}\n", t.what, t.happened));
    }
    for line in wrap(step.why, 86) {
        text.push_str(&format!("   {line}\n"));
    }
    text.push('\n');
    text
}

/// Breaks a text into lines of at most `width` characters, at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}
