//! Containers: `create`, `ps`, `inspect`, `rm`.

use std::path::PathBuf;

use clap::Args;
use wharf_core::attach::Container;
use wharf_core::name::ContainerName;
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest};

use super::args::{AttachArgs, ChangeArgs, pid};
use super::filter::{self, Filter};
use super::{Context, Done, files};
use crate::output::error::CommandError;
use crate::output::json::{ContainerJson, running, status, visible};
use crate::output::table::{fields, list, table};

/// The front end's name in the store.
pub const OWNER: &str = "cli";

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the container, and of its namespace below /run/netns
    #[arg(value_parser = ContainerName::given)]
    pub name: ContainerName,

    /// Adopt the network namespace at this path, which stays its owner's
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    netns: Option<PathBuf>,

    /// Adopt the network namespace of this process
    #[arg(long, value_name = "PID", value_parser = pid)]
    pid: Option<i32>,

    #[command(flatten)]
    pub attach: AttachArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,

    /// Only those with label=KEY[=VALUE], name=PART, network=NAME, status=WORD or owner=NAME (may be given again)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,

    /// Accepted for habit's sake: all containers are always listed
    #[arg(short, long, hide = true)]
    all: bool,

    /// Accepted for habit's sake: nothing is cut off
    #[arg(long, hide = true)]
    no_trunc: bool,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names of the containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ContainerName>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// End a program that still runs; a container that is not there is no error
    #[arg(short, long)]
    force: bool,

    /// Accepted for habit's sake: there are no volumes
    #[arg(short, long, hide = true)]
    volumes: bool,

    /// Names of the containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ContainerName>,

    #[command(flatten)]
    change: ChangeArgs,
}

pub fn create(args: CreateArgs, ctx: &Context) -> Done {
    let request = ContainerRequest {
        networks: args.attach.requests()?,
        labels: args.attach.labels(),
        name: args.name,
        owner: OWNER.to_owned(),
        client: None,
        netns: match (args.netns, args.pid) {
            (Some(path), _) => NetnsRequest::Path(path),
            (None, Some(pid)) => NetnsRequest::Pid(pid),
            (None, None) => NetnsRequest::New,
        },
        ports: args.attach.ports,
        id: None,
        ports_held: false,
        command: Vec::new(),
        transient: false,
    };
    let mode = args.change.mode();
    let outcome = ctx.engine()?.create(&request, mode)?;
    if let Some(container) = ctx.outcome(outcome, mode)? {
        if ctx.printer.json() {
            ctx.printer.value(&ContainerJson::from(&container))?;
        } else {
            ctx.printer.line(&container.name)?;
        }
    }
    Ok(0)
}

pub fn ps(args: &PsArgs, ctx: &Context) -> Done {
    let mut containers = ctx.engine()?.containers()?;
    containers.retain(|c| filter::fits(&args.filters, |f| is_as_asked(c, f)));
    if ctx.printer.json() {
        let values: Vec<_> = containers.iter().map(ContainerJson::from).collect();
        ctx.printer.value(&values)?;
    } else if args.quiet {
        let names: String = containers.iter().map(|c| format!("{}\n", c.name)).collect();
        ctx.printer.text(&names)?;
    } else {
        let rows: Vec<_> = containers.iter().map(row).collect();
        let heading = [
            "NAME",
            "STATUS",
            "PID",
            "NETWORKS",
            "ADDRESSES",
            "PORTS",
            "OWNER",
        ];
        ctx.printer.text(&table(heading, &rows))?;
    }
    Ok(0)
}

fn is_as_asked(container: &Container, filter: &Filter) -> bool {
    match filter {
        Filter::Label(label) => label.is_among(&container.labels),
        Filter::Name(part) => container.name.as_str().contains(part),
        Filter::Network(name) => visible(container).any(|a| a.network.as_str() == name),
        Filter::Status(word) => status(container, running(container).is_some()) == word,
        Filter::Owner(name) => container.owner == *name,
    }
}

fn row(container: &Container) -> [String; 7] {
    let process = running(container);
    let state = status(container, process.is_some());
    [
        container.name.to_string(),
        match container.exit_status {
            Some(code) if state == "exited" => format!("{state} ({code})"),
            _ => state.to_owned(),
        },
        list(process.map(|p| p.pid)),
        list(visible(container).map(|a| &a.network)),
        list(visible(container).flat_map(|a| a.addresses.iter().map(|net| net.addr()))),
        list(&container.ports),
        container.owner.clone(),
    ]
}

pub fn inspect(args: &InspectArgs, ctx: &Context) -> Done {
    let mut engine = ctx.engine()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.names {
        match engine.container(name) {
            Ok(container) => found.push(container),
            Err(error) => missing.push(CommandError::from(error)),
        }
    }
    if ctx.printer.json() {
        let values: Vec<_> = found.iter().map(ContainerJson::from).collect();
        ctx.printer.value(&values)?;
    } else {
        let texts: Vec<String> = found.iter().map(|c| details(c, ctx)).collect();
        ctx.printer.text(&texts.join("\n"))?;
    }
    // A store is open once in a process.
    drop(engine);
    Ok(report(&missing, ctx))
}

/// Prints errors of single names, and gives the exit status of them all.
pub fn report(errors: &[CommandError], ctx: &Context) -> u8 {
    for error in errors {
        ctx.error(error);
    }
    errors
        .iter()
        .map(CommandError::exit_status)
        .max()
        .unwrap_or(0)
}

fn details(container: &Container, ctx: &Context) -> String {
    let process = running(container);
    let mut lines = vec![
        ("id", container.id.clone()),
        ("owner", container.owner.clone()),
        ("status", row(container)[1].clone()),
        ("pid", list(process.map(|p| p.pid))),
        ("netns", container.netns.path.display().to_string()),
        ("ports", list(&container.ports)),
    ];
    if let Some(key) = &container.client {
        let known = format!("{} on {}, {}", key.container, key.network, key.interface);
        lines.push(("owner's name", known));
    }
    if !container.labels.is_empty() {
        let labels = container.labels.iter().map(|(k, v)| format!("{k}={v}"));
        lines.push(("labels", list(labels)));
    }
    if !container.command.is_empty() {
        lines.push(("command", container.command.join(" ")));
    }
    if let Some(log) = files::existing_log(&ctx.dirs, &container.name) {
        lines.push(("log", log.display().to_string()));
    }
    let mut text = format!("container {}\n{}", container.name, fields(&lines));
    for attachment in visible(container) {
        text += &format!("  network {}\n", attachment.network);
        let lines = fields(&[
            ("interface", attachment.interface.to_string()),
            ("host interface", attachment.host_interface.to_string()),
            ("mac", attachment.mac.to_string()),
            ("addresses", list(&attachment.addresses)),
            ("gateways", list(&attachment.gateways)),
            ("default route", list(&attachment.default_routes)),
        ]);
        for line in lines.lines() {
            text += &format!("  {line}\n");
        }
    }
    text
}

pub fn rm(args: &RmArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let mut engine = ctx.engine()?;
    let outcome = engine.remove(&args.names, args.force, mode)?;
    if mode == Mode::Apply {
        for name in &args.names {
            files::forget_log(&ctx.dirs, name);
        }
    }
    // By force, what is gone already is as asked for, as with `rm -f` for files.
    if let Some(names) = ctx.outcome(outcome, mode)? {
        removed(&names, ctx)?;
    }
    Ok(0)
}

/// Prints what was removed: the names, or `{removed: [names]}`.
pub fn removed<T: AsRef<str>>(names: &[T], ctx: &Context) -> Result<(), CommandError> {
    if ctx.printer.json() {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        return ctx.printer.value(&serde_json::json!({"removed": names}));
    }
    let text: String = names.iter().map(|n| format!("{}\n", n.as_ref())).collect();
    ctx.printer.text(&text)
}
