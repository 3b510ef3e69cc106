//! `serve`: a small process that mends by itself.

use clap::Args;
use serde_json::json;
use wharf_engine::engine::{Event, serve};

use super::{Context, Done};
use crate::output::error::CommandError;

#[derive(Debug, Args)]
#[command(after_help = "\
Every command works without it. With it, what another tool removes or changes of wharf's rules, bridges and
ports is mended within a second. It ends at SIGTERM; `dist/wharf.service` is a unit for systemd.")]
pub struct ServeArgs {}

pub fn run(_: &ServeArgs, ctx: &Context) -> Done {
    serve(&ctx.dirs, |event| {
        let told = match event {
            Event::Ready if ctx.printer.json() => ctx.printer.value(&json!({"ready": true})),
            Event::Ready => ctx.printer.line("watching"),
            Event::Mended(findings) if ctx.printer.json() => {
                let list: Vec<_> = findings
                    .iter()
                    .map(|f| json!({"object": f.object, "was": f.was}))
                    .collect();
                ctx.printer.value(&json!({ "mended": list }))
            }
            Event::Mended(findings) => {
                let lines = findings
                    .iter()
                    .map(|f| format!("mended {} ({})\n", f.object, f.was));
                ctx.printer.text(&lines.collect::<String>())
            }
            Event::Failed(error) => {
                ctx.printer.error(&CommandError::from(error));
                Ok(())
            }
        };
        // Whoever read it may have gone; the work goes on.
        let _ = told;
    })?;
    Ok(0)
}
