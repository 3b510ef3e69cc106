//! `doctor`: what is wrong with this host, without a question about a flow.

use clap::Args;
use serde_json::json;
use wharf_core::trace::Owner;
use wharf_core::trace::doctor::{self, Differences, Finding, HostCode, Severity};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;
use wharf_engine::observe::world::{self, Ask};

use super::{Context, Done, trace};
use crate::output::doctor as output;

#[derive(Debug, Args)]
#[command(after_help = "\
Looked at are wharf's networks and containers, whichever front end made them, and what other tools do to
them: links, addresses, routes, neighbours, sysctls, packet rules of all tables, sockets, and what wharf
remembers. Nothing is sent and nothing is changed. An error does not work, a warning will not or is hardly
meant so, an info is to know.

Exit status: 0 no errors and no warnings, 1 some, 2 wrong usage.")]
pub struct DoctorArgs {}

pub fn run(_args: &DoctorArgs, ctx: &Context) -> Done {
    let mut damaged = None;
    let (ask, differences) = match Engine::open(&ctx.dirs) {
        Ok(mut engine) => {
            ctx.printer.notes(&engine.take_notes());
            (engine.ask()?, engine.differences()?)
        }
        Err(error @ EngineError::StoreDamaged { .. }) => {
            damaged = Some(store_damaged(&error));
            let ask = Ask {
                processes: true,
                ..Ask::default()
            };
            (ask, Differences::default())
        }
        // Who may not look at the store is told so, and the rest is looked at all the same.
        Err(error) => {
            let ask = trace::known(ctx)?;
            damaged = Some(store_unread(&error));
            (ask, Differences::default())
        }
    };
    let state = world::world(&ask.about_all());
    let mut findings = differences.join(doctor::diagnose(&state));
    findings.splice(0..0, damaged);
    if ctx.printer.json() {
        ctx.printer.value(&json!({ "findings": findings }))?;
    } else {
        ctx.printer.text(&output::text(&findings))?;
    }
    Ok(u8::from(doctor::is_unwell(&findings)))
}

fn store_unread(error: &EngineError) -> Finding {
    Finding::new(
        Severity::Warning,
        HostCode::Unread,
        "host",
        "store",
        "wharf's networks and containers are not known, so that nothing can be said of them.",
    )
    .owner(Owner::Kernel)
    .evidence(error.to_string())
}

fn store_damaged(error: &EngineError) -> Finding {
    Finding::new(
        Severity::Error,
        HostCode::StoreDamaged,
        "host",
        "store",
        "What wharf remembers of its networks and containers cannot be read.",
    )
    .owner(Owner::Wharf)
    .evidence(error.to_string())
    .fix("wharf repair --rebuild")
}
