//! `gc`: what belongs to nobody.

use clap::Args;
use serde_json::json;

use super::args::ChangeArgs;
use super::{Context, Done, repair};

#[derive(Debug, Args)]
#[command(after_help = "\
Removed are containers whose namespace is gone, and what bears wharf's mark and is in no record: links,
namespaces, addresses, ports and rules. What processes still live in stays; `wharf repair --rebuild` takes
that over.")]
pub struct GcArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

pub fn run(args: &GcArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let outcome = ctx.engine()?.gc(mode)?;
    repair::report(outcome, mode, "removed", json!({}), ctx)
}
