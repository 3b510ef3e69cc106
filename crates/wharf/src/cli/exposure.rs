//! `exposure`: who really reaches which published port.

use clap::Args;
use wharf_core::trace::exposure::exposure;
use wharf_engine::observe::world;

use super::{Context, Done};
use crate::output::exposure as output;

#[derive(Debug, Args)]
#[command(after_help = "\
Each published port, also those that other tools publish, is asked for from every side: the host's
loopback, each address of the host, beyond each of its links, other networks, siblings. What is said is what
the rules of all tools do to such a packet now; nothing is sent. Of a range the first port stands for all.
A difference is where a firewall, or the mapping itself, says otherwise: a port that a firewall closes
and that goes past it, a port bound to one address that answers on others, a port nobody reaches.

Exit status: 0 nothing differs, 1 something does, 2 wrong usage.")]
pub struct ExposureArgs {}

pub fn run(_args: &ExposureArgs, ctx: &Context) -> Done {
    // Without privileges nothing is known of ports, which is not to look like none.
    let mut engine = ctx.engine()?;
    let ask = engine.ask()?;
    let state = world::world(&ask.about_all());
    let mut found = exposure(&state);
    if found.is_of_rules() {
        found.settle(&state, &engine.changed_rules()?);
    }
    if ctx.printer.json() {
        ctx.printer.value(&found)?;
    } else {
        ctx.printer.text(&output::text(&found))?;
    }
    let differs = found.ports.iter().any(|p| !p.differs.is_empty());
    Ok(u8::from(differs))
}
