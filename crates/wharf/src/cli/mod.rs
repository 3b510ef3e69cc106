//! The command line: what may be typed, and which verb of the engine it becomes.
//!
//! Each submodule has the arguments of its commands and a `run` for each. Not here: layout of results and
//! errors (`output`), decisions (`wharf-core`), effects (`wharf-engine`).

mod args;
mod complete;
mod container;
mod context;
mod doctor;
mod exposure;
mod files;
mod filter;
mod gc;
mod habits;
mod install;
mod lazy;
mod manual;
mod names;
mod network;
mod port;
mod process;
mod repair;
mod serve;
mod topology;
mod trace;
mod update;

use clap::error::ErrorKind as ClapKind;
use clap::{Parser, Subcommand};
use wharf_core::ErrorKind;

use crate::output::Printer;
use crate::output::error::CommandError;
use crate::tour;
pub use context::{Context, rootless_dirs};
use lazy::Lazy;

/// What a command ends with: an exit status, or an error to be printed.
pub type Done = Result<u8, CommandError>;

/// Container networking for one host: virtual switches, published ports, default deny
#[derive(Debug, Parser)]
#[command(
    name = "wharf",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "\
Exit status: 0 done, 1 it failed, 2 wrong usage; `run` and `exec` end with the command's own status,
or 125 (wharf failed), 126 (the command cannot be executed), 127 (there is no such command).

WHARF_STATE_DIR and WHARF_RUN_DIR choose where wharf keeps what it knows
(/var/lib/wharf and /run/wharf)."
)]
pub struct Cli {
    /// Print results and errors as JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program in a new container
    Run(Lazy<process::RunArgs>),
    /// Make a container without a program, or adopt a network namespace
    Create(Lazy<container::CreateArgs>),
    /// Run a further program in a container
    Exec(Lazy<process::ExecArgs>),
    /// List the containers
    #[command(visible_alias = "ls", alias = "list")]
    Ps(Lazy<container::PsArgs>),
    /// Show containers in full
    Inspect(Lazy<container::InspectArgs>),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(Lazy<container::RmArgs>),
    /// Change the order of a container's networks, or its labels
    Update(Lazy<update::UpdateArgs>),
    /// Make, show and remove networks, and put containers on them
    #[command(subcommand, visible_alias = "net")]
    Network(Lazy<network::NetworkCommand>),
    /// Publish ports of containers that are there already
    #[command(subcommand)]
    Port(Lazy<port::PortCommand>),
    /// Show what `apply` would change
    Plan(Lazy<topology::PlanArgs>),
    /// Make the networks and containers of a file what the file says
    Apply(Lazy<topology::ApplyArgs>),
    /// Remove the networks and containers of a file
    Destroy(Lazy<topology::DestroyArgs>),
    /// Put wharf where container engines look for it
    Install(Lazy<install::InstallArgs>),
    /// Take away what `install` put in place
    Uninstall(Lazy<install::InstallArgs>),
    /// Say whether a packet would arrive, and if not, what is to blame
    Trace(Lazy<trace::TraceArgs>),
    /// Look for what is wrong with this host's container networking
    Doctor(Lazy<doctor::DoctorArgs>),
    /// Show who can really reach each published port
    Exposure(Lazy<exposure::ExposureArgs>),
    /// Mend in the kernel what is not as wharf made it
    Repair(Lazy<repair::RepairArgs>),
    /// Remove what belongs to nobody: what dead containers and lost records left
    Gc(Lazy<gc::GcArgs>),
    /// Watch, and mend at once what others change of wharf's
    Serve(Lazy<serve::ServeArgs>),
    /// See container networking grow step by step, in private namespaces
    Tour(Lazy<tour::TourArgs>),
    /// Print a completion script for a shell
    Completions(Lazy<manual::CompletionsArgs>),
    /// Print the manual page
    Man,
    /// Speak to Podman as Netavark does
    #[command(hide = true, disable_help_flag = true)]
    Netavark {
        /// As Podman gives them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Print the reference of the command line as Markdown
    #[command(hide = true)]
    Docs,
    /// Print the names that may come next, for completion scripts
    #[command(hide = true)]
    Names(Lazy<complete::NamesArgs>),
}

/// Reads the command line, does what it says, and gives the exit status.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            habits::tip(&mut error);
            return usage(&error);
        }
    };
    let printer = Printer::new(cli.json);
    let ctx = Context::new(printer);
    match dispatch(cli.command, &ctx) {
        Ok(status) => status,
        Err(error) => {
            ctx.error(&error);
            error.exit_status()
        }
    }
}

fn dispatch(command: Command, ctx: &Context) -> Done {
    match command {
        Command::Run(Lazy(args)) => process::run(args, ctx),
        Command::Create(Lazy(args)) => container::create(args, ctx),
        Command::Exec(Lazy(args)) => process::exec(args, ctx),
        Command::Ps(Lazy(args)) => container::ps(&args, ctx),
        Command::Inspect(Lazy(args)) => container::inspect(&args, ctx),
        Command::Rm(Lazy(args)) => container::rm(&args, ctx),
        Command::Update(Lazy(args)) => update::update(&args, ctx),
        Command::Network(Lazy(command)) => network::run(command, ctx),
        Command::Port(Lazy(command)) => port::run(command, ctx),
        Command::Plan(Lazy(args)) => topology::plan(&args, ctx),
        Command::Apply(Lazy(args)) => topology::apply(&args, ctx),
        Command::Destroy(Lazy(args)) => topology::destroy(&args, ctx),
        Command::Install(Lazy(args)) => install::install(&args, ctx),
        Command::Uninstall(Lazy(args)) => install::uninstall(&args, ctx),
        Command::Trace(Lazy(args)) => trace::run(&args, ctx),
        Command::Doctor(Lazy(args)) => doctor::run(&args, ctx),
        Command::Exposure(Lazy(args)) => exposure::run(&args, ctx),
        Command::Repair(Lazy(args)) => repair::run(&args, ctx),
        Command::Serve(Lazy(args)) => serve::run(&args, ctx),
        Command::Gc(Lazy(args)) => gc::run(&args, ctx),
        Command::Tour(Lazy(args)) => tour::run(args, ctx),
        Command::Completions(Lazy(args)) => manual::completions(&args, ctx),
        Command::Man => manual::man(ctx),
        Command::Netavark { args } => {
            let name = std::iter::once("netavark".into());
            Ok(crate::netavark::main(name.chain(args)))
        }
        Command::Docs => manual::docs(ctx),
        Command::Names(Lazy(args)) => complete::names(&args, ctx),
    }
}

/// Help and version are results; the rest is wrong usage.
fn usage(error: &clap::Error) -> u8 {
    let json = std::env::args_os()
        .skip(1)
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json");
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
            match Printer::new(false).text(&error.render().to_string()) {
                Ok(()) => 0,
                Err(failure) => failure.exit_status(),
            }
        }
        _ => {
            let text = error.render().to_string();
            if json {
                Printer::new(true).error(&usage_error(&text));
            } else {
                Printer::new(false).help(&text);
            }
            ErrorKind::Usage.exit_status()
        }
    }
}

/// clap's text (`error: …`, `tip: …`, `Usage: …`) as an error of ours.
fn usage_error(text: &str) -> CommandError {
    let part = |prefix: &str| {
        text.lines()
            .find_map(|line| line.trim_start().strip_prefix(prefix))
            .map(str::trim)
    };
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = match first.strip_prefix("error: ") {
        Some(message) => message.split_whitespace().collect::<Vec<_>>().join(" "),
        None => "a command is needed".to_owned(),
    };
    let error = CommandError::usage(message);
    match part("tip: ").or_else(|| part("Usage: ")) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests;
