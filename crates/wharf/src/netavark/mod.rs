//! The protocol Podman speaks to Netavark: the same binary, called by the name `netavark`.
//!
//! Each submodule reads one command's input and makes the engine's requests of it. Podman defines the networks
//! and chooses the addresses, in every call; wharf holds a network as long as containers are on it.

mod create;
mod dns;
mod error;
mod input;
mod log;
mod plugin;
mod setup;
mod status;
mod teardown;
mod translate;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use serde::de::DeserializeOwned;
use wharf_engine::api::{Dirs, Mode};
use wharf_engine::engine::Engine;

use crate::cli::{Context, rootless_dirs};
use crate::output::Printer;
use error::Failure;

/// The front end's name in the store.
pub const OWNER: &str = "netavark";

/// Where the name server's program is when the caller does not say; Podman always does.
const AARDVARK: [&str; 2] = [
    "/usr/libexec/podman/aardvark-dns",
    "/usr/lib/podman/aardvark-dns",
];

/// The network backend of Podman, in its own protocol
#[derive(Debug, Parser)]
#[command(name = "netavark", version = VERSION, disable_help_subcommand = true)]
pub struct Cli {
    /// Read the input from this file instead of the standard input
    #[arg(short, long, global = true, value_name = "FILE")]
    file: Option<OsString>,

    /// Directory of the files for the name server
    #[arg(short, long, global = true, value_name = "DIR")]
    config: Option<OsString>,

    /// Podman runs without privileges on the host
    #[arg(short, long, global = true, value_name = "BOOL", action = ArgAction::Set)]
    rootless: Option<bool>,

    /// The name server's program
    #[arg(short, long, global = true, value_name = "PATH")]
    aardvark_binary: Option<OsString>,

    /// Accepted and not used: rules are always nftables'
    #[arg(long, global = true, value_name = "DRIVER")]
    firewall_driver: Option<String>,

    /// Where to look for drivers that are not built in; may be given several times
    #[arg(long, global = true, value_name = "DIR")]
    plugin_directory: Vec<OsString>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Complete the definition of a new network
    Create,
    /// Put a container on networks
    Setup {
        /// The container's network namespace
        netns: PathBuf,
    },
    /// Take a container off networks
    Teardown {
        /// The container's network namespace
        netns: PathBuf,
    },
    /// Change a network's name servers
    Update {
        /// The network
        network: String,
        /// Name servers with commas between; empty for none
        #[arg(long, value_name = "LIST")]
        network_dns_servers: Option<String>,
    },
    /// Make all rules again
    FirewallReload,
    /// Print the version
    Version,
}

/// The surroundings of one call.
pub struct Call {
    config: Option<PathBuf>,
    rootless: bool,
    aardvark: Option<PathBuf>,
    plugins: Vec<PathBuf>,
    dirs: Dirs,
}

impl Call {
    fn new(cli: &Cli) -> Self {
        let mut dirs = Context::new(Printer::new(false)).dirs;
        let rootless = cli.rootless.unwrap_or(false);
        // Podman gives an empty text for what it does not have.
        let path = |given: &OsString| (!given.is_empty()).then(|| PathBuf::from(given));
        let config = cli.config.as_ref().and_then(path);
        if rootless && let Some(config) = &config {
            let own = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let podmans = rootless_dirs(config);
            if !own("WHARF_RUN_DIR") {
                dirs.run = podmans.run;
            }
            if !own("WHARF_STATE_DIR") {
                dirs.state = podmans.state;
            }
        }
        Self {
            config,
            rootless,
            aardvark: match &cli.aardvark_binary {
                Some(given) => path(given),
                None => AARDVARK.iter().map(PathBuf::from).find(|p| p.is_file()),
            },
            plugins: cli.plugin_directory.iter().filter_map(path).collect(),
            dirs,
        }
    }

    fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::open(&self.dirs)?)
    }

    fn config(&self) -> Result<&PathBuf, Failure> {
        let given = self.config.as_ref();
        given.ok_or_else(|| Failure::new("the option --config is required for this command"))
    }
}

/// The version of Netavark whose protocol this is, and wharf's own behind it: clients compare the first.
const VERSION: &str = concat!("2.1.0+wharf.", env!("CARGO_PKG_VERSION"));

/// Reads the command line, does what it says, and gives the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let call = Call::new(&cli);
    let line = match dispatch(cli, &call) {
        Ok(None) => return 0,
        Ok(Some(line)) => return print(&line, 0),
        Err(failure) => failure.json(),
    };
    print(&line, 1)
}

fn print(line: &str, status: u8) -> u8 {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
    {
        Ok(()) => status,
        Err(_) => 1,
    }
}

fn dispatch(cli: Cli, call: &Call) -> Result<Option<String>, Failure> {
    match cli.command {
        Command::Create => {
            let input = read(cli.file.as_deref(), "failed to load network config")?;
            create::create(call, input).map(Some)
        }
        Command::Setup { netns } => {
            let input = read(cli.file.as_deref(), "failed to load network options")?;
            setup::setup(call, &netns, &input).map(Some)
        }
        Command::Teardown { netns } => {
            let input = read(cli.file.as_deref(), "failed to load network options")?;
            teardown::teardown(call, &netns, &input).map(|()| None)
        }
        Command::Update {
            network,
            network_dns_servers,
        } => dns::update(call, &network, network_dns_servers.as_deref()).map(|()| None),
        Command::FirewallReload => call
            .engine()?
            .repair(Mode::Apply)
            .map(|_| None)
            .map_err(Failure::from),
        Command::Version => Ok(Some(version())),
    }
}

fn version() -> String {
    let version = serde_json::json!({
        "version": VERSION,
        "commit": "",
        "build_time": build_time(),
        "target": format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        "default_fw_driver": "nftables",
    });
    format!("{version:#}")
}

/// When the program's file was written.
fn build_time() -> String {
    let file = std::fs::metadata("/proc/self/exe").and_then(|m| m.modified());
    let since = file.map(|t| t.duration_since(std::time::UNIX_EPOCH).unwrap_or_default());
    since.map_or_else(
        |_| String::new(),
        |t| create::rfc3339(t.as_secs(), t.subsec_nanos()),
    )
}

fn read<T: DeserializeOwned>(file: Option<&OsStr>, what: &str) -> Result<T, Failure> {
    let text = match file {
        Some(path) if path != "-" => std::fs::read_to_string(path),
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
    };
    let text = text.map_err(|e| Failure::new(format!("{what}: IO error: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Failure::new(format!("{what}: IO error: {e}")))
}
