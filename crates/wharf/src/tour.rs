//! The tour: container networking, built and explained step by step. Still to be written.

use clap::Args;
use wharf_core::ErrorKind;

use crate::cli::{Context, Done};
use crate::output::error::CommandError;

/// How the tour is taken.
#[derive(Debug, Args)]
pub struct TourArgs {
    /// Wait for a key after each step
    #[arg(long)]
    step: bool,
}

/// Takes the tour.
///
/// # Errors
/// Always, until it is written.
pub fn run(args: TourArgs, _ctx: &Context) -> Done {
    let _ = args.step;
    Err(CommandError::new(
        ErrorKind::Unsupported,
        "the tour is not part of this build",
    ))
}
