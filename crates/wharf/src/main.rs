//! The `wharf` command.
//!
//! One binary, several callers: the name it is called by, or the caller's environment, chooses the front end.
//! The front ends return an exit status; only `main` ends the process.

use std::process::ExitCode;

mod cli;
mod cni;
mod output;
mod tour;

fn main() -> ExitCode {
    // Further front ends get their arm here; the command line serves every other name.
    let status = match called_as().as_str() {
        _ if cni::is_called() => cni::main(),
        _ => cli::main(),
    };
    ExitCode::from(status)
}

/// The last part of the name the program was called by.
pub(crate) fn called_as() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&name)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
