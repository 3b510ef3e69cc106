//! Published ports of containers that are there already: `port add`, `rm`, `ls`.

use clap::{Args, Subcommand};
use serde::Serialize;
use wharf_core::name::ContainerName;
use wharf_core::publish::{PortMapping, PortRequest};
use wharf_engine::api::{Mode, Outcome};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use super::args::ChangeArgs;
use super::{Context, Done};
use crate::output::json::{ContainerJson, PortJson};
use crate::output::table::table;

#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Publish further ports of a container
    Add(AddArgs),
    /// Publish ports of a container no longer
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// List the published ports
    #[command(visible_alias = "list")]
    Ls(LsArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// The container
    name: ContainerName,

    /// [HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp]; without HOSTPORT wharf chooses one
    #[arg(required = true, value_name = "SPEC")]
    ports: Vec<PortRequest>,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// The container
    name: ContainerName,

    /// [HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp]
    #[arg(required = true, value_name = "SPEC")]
    ports: Vec<PortMapping>,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only those of this container
    name: Option<ContainerName>,
}

#[derive(Serialize)]
struct PublishedJson<'a> {
    container: &'a str,
    #[serde(flatten)]
    port: PortJson,
}

pub fn run(command: PortCommand, ctx: &Context) -> Done {
    match command {
        PortCommand::Add(args) => {
            let add = |engine: &mut Engine, mode| engine.port_add(&args.name, &args.ports, mode);
            change(&args.name, args.change.mode(), ctx, add)
        }
        PortCommand::Rm(args) => {
            let rm = |engine: &mut Engine, mode| engine.port_remove(&args.name, &args.ports, mode);
            change(&args.name, args.change.mode(), ctx, rm)
        }
        PortCommand::Ls(args) => ls(&args, ctx),
    }
}

fn change(
    name: &ContainerName,
    mode: Mode,
    ctx: &Context,
    change: impl FnOnce(&mut Engine, Mode) -> Result<Outcome<()>, EngineError>,
) -> Done {
    let mut engine = ctx.engine()?;
    let outcome = change(&mut engine, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() && ctx.printer.json() {
        let container = engine.container(name)?;
        ctx.printer.value(&ContainerJson::from(&container))?;
    }
    Ok(0)
}

fn ls(args: &LsArgs, ctx: &Context) -> Done {
    let mut engine = ctx.engine()?;
    let containers = match &args.name {
        Some(name) => vec![engine.container(name)?],
        None => engine.containers()?,
    };
    let ports = containers
        .iter()
        .flat_map(|c| c.ports.iter().map(move |port| (c.name.as_str(), port)));
    if ctx.printer.json() {
        let values: Vec<_> = ports
            .map(|(container, port)| PublishedJson {
                container,
                port: PortJson::from(port),
            })
            .collect();
        ctx.printer.value(&values)?;
    } else {
        let rows: Vec<_> = ports
            .map(|(container, port)| {
                let host = match port.host_ip {
                    Some(ip) => std::net::SocketAddr::new(ip, port.host.first()).to_string(),
                    None => format!("*:{}", port.host.first()),
                };
                let end = match port.host.is_single() {
                    true => String::new(),
                    false => format!("-{}", port.host.last()),
                };
                [
                    container.to_owned(),
                    format!("{host}{end}/{}", port.protocol),
                    port.container.to_string(),
                ]
            })
            .collect();
        ctx.printer
            .text(&table(["CONTAINER", "HOST", "PORT"], &rows))?;
    }
    Ok(0)
}
