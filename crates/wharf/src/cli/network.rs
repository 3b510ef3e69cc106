//! Networks: `network create`, `ls`, `inspect`, `rm`, `prune`, `connect`, `disconnect`.

use std::net::IpAddr;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use wharf_core::addr::Mac;
use wharf_core::attach::AttachRequest;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{NetworkRequest, NetworkSpec};
use wharf_engine::api::NetworkView;

use super::args::{ChangeArgs, key_value, label, subnet};
use super::container::{removed, report};
use super::filter::{self, Filter};
use super::update::{NetworkUpdateArgs, network_update};
use super::{Context, Done};
use crate::output::error::CommandError;
use crate::output::json::{ContainerJson, NetworkJson};
use crate::output::table::{fields, list, table};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show networks in full
    Inspect(InspectArgs),
    /// Change a network's labels
    Update(NetworkUpdateArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all networks that no container is on
    Prune(PruneArgs),
    /// Put a container on a further network
    Connect(ConnectArgs),
    /// Take a container off a network
    Disconnect(DisconnectArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the network
    name: NetworkName,

    /// Subnet, such as 172.18.0.0/16 (one IPv4 and one IPv6 may be given); a free one if not given
    #[arg(long = "subnet", value_name = "CIDR", value_parser = subnet)]
    subnets: Vec<IpNet>,

    /// The bridge's address in a subnet; its first address if not given
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,

    /// Part of a subnet that containers' addresses are taken from
    #[arg(long = "ip-range", value_name = "CIDR", value_parser = subnet)]
    ip_ranges: Vec<IpNet>,

    /// Name of the bridge interface
    #[arg(long, value_name = "IFNAME")]
    bridge: Option<IfName>,

    /// Largest packet in bytes; that of the host's way out if not given
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,

    /// IPv4, also beside an IPv6 subnet
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    ipv4: Option<bool>,

    /// IPv6 as well
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    ipv6: Option<bool>,

    /// No way out and none in
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", hide_default_value = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    internal: bool,

    /// Whether the network's containers may talk to each other; true if not given
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new())]
    icc: Option<bool>,

    /// Whether containers go out with the host's address; true if not given
    #[arg(long, alias = "ip-masq", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    masquerade: Option<bool>,

    /// Label, kept and shown (may be given again)
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Option by its Docker, Netavark or wharf name (may be given again)
    ///
    /// For example host-access=all|dns|none, isolate=false, mtu=1400, masquerade-published=true,
    /// com.docker.network.bridge.host_binding_ipv4=127.0.0.1.
    #[arg(short = 'o', long = "opt", alias = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,

    /// Accepted for habit's sake: `bridge` is the one there is
    #[arg(short = 'd', long, hide = true, value_parser = ["bridge"])]
    driver: Option<String>,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only those with label=KEY[=VALUE], name=PART or owner=NAME (may be given again)
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = Filter::of_networks)]
    filters: Vec<Filter>,

    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names of the networks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<NetworkName>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Take the containers on it off first; they stay
    #[arg(short, long)]
    force: bool,

    /// Names of the networks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<NetworkName>,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Accepted for habit's sake: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The network, with options behind it as for `wharf create --network`
    #[arg(value_name = "NET")]
    network: AttachRequest,

    /// The container
    #[arg(value_name = "NAME")]
    container: ContainerName,

    /// Address on the network (IPv4 or IPv6; one of each may be given)
    #[arg(long = "ip", alias = "ip6", value_name = "ADDRESS")]
    ips: Vec<IpAddr>,

    /// MAC address on the network
    #[arg(long = "mac-address", alias = "mac", value_name = "MAC")]
    mac: Option<Mac>,

    /// Name of the interface in the container; the first free eth0, eth1, … if not given
    #[arg(long, value_name = "IFNAME")]
    interface: Option<IfName>,

    /// Further name of the container on the network (may be given again)
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,

    /// The network with the highest number carries the default route; 0 if not given
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    gw_priority: Option<i32>,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// The network
    #[arg(value_name = "NET")]
    network: NetworkName,

    /// The container
    #[arg(value_name = "NAME")]
    container: ContainerName,

    /// Accepted for habit's sake
    #[arg(short, long, hide = true)]
    force: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

pub fn run(command: NetworkCommand, ctx: &Context) -> Done {
    match command {
        NetworkCommand::Create(args) => create(args, ctx),
        NetworkCommand::Ls(args) => ls(&args, ctx),
        NetworkCommand::Inspect(args) => inspect(&args, ctx),
        NetworkCommand::Update(args) => network_update(&args, ctx),
        NetworkCommand::Rm(args) => rm(&args, ctx),
        NetworkCommand::Prune(args) => prune(&args, ctx),
        NetworkCommand::Connect(args) => connect(args, ctx),
        NetworkCommand::Disconnect(args) => disconnect(&args, ctx),
    }
}

fn create(args: CreateArgs, ctx: &Context) -> Done {
    let request = NetworkRequest {
        subnets: args.subnets,
        gateways: args.gateways,
        ip_ranges: args.ip_ranges,
        bridge: args.bridge,
        mtu: args.mtu,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        internal: args.internal,
        icc: args.icc,
        masquerade: args.masquerade,
        labels: args.labels.into_iter().collect(),
        options: args.options.into_iter().collect(),
        ..NetworkRequest::new(args.name)
    };
    let mode = args.change.mode();
    let outcome = ctx.engine()?.network_create(&request, mode)?;
    if let Some(spec) = ctx.outcome(outcome, mode)? {
        let view = NetworkView {
            spec,
            containers: Vec::new(),
        };
        if ctx.printer.json() {
            ctx.printer.value(&NetworkJson::from(&view))?;
        } else {
            ctx.printer.line(&view.spec.name)?;
        }
    }
    Ok(0)
}

fn ls(args: &LsArgs, ctx: &Context) -> Done {
    let mut views = ctx.engine()?.networks()?;
    views.retain(|v| filter::fits(&args.filters, |f| is_as_asked(&v.spec, f)));
    if ctx.printer.json() {
        let values: Vec<_> = views.iter().map(NetworkJson::from).collect();
        ctx.printer.value(&values)?;
    } else if args.quiet {
        let names: String = views.iter().map(|v| format!("{}\n", v.spec.name)).collect();
        ctx.printer.text(&names)?;
    } else {
        let rows: Vec<_> = views
            .iter()
            .map(|view| {
                [
                    view.spec.name.to_string(),
                    view.spec.bridge.to_string(),
                    list(view.spec.subnets.iter().map(|s| s.subnet)),
                    view.containers.len().to_string(),
                    list(traits(view)),
                ]
            })
            .collect();
        let heading = ["NAME", "BRIDGE", "SUBNETS", "CONTAINERS", "SETTINGS"];
        ctx.printer.text(&table(heading, &rows))?;
    }
    Ok(0)
}

fn is_as_asked(spec: &NetworkSpec, filter: &Filter) -> bool {
    match filter {
        Filter::Label(label) => label.is_among(&spec.labels),
        Filter::Name(part) => spec.name.as_str().contains(part),
        Filter::Owner(name) => spec.owner == *name,
        Filter::Network(_) | Filter::Status(_) => false,
    }
}

/// What is out of the ordinary about a network.
fn traits(view: &NetworkView) -> Vec<&'static str> {
    let spec = &view.spec;
    let all = [
        (!spec.is_managed(), spec.driver.as_str()),
        (spec.internal, "internal"),
        (!spec.icc, "icc off"),
        (!spec.masquerade && !spec.internal, "masquerade off"),
    ];
    all.iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| *word)
        .collect()
}

fn inspect(args: &InspectArgs, ctx: &Context) -> Done {
    let mut engine = ctx.engine()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.names {
        match engine.network(name) {
            Ok(view) => found.push(view),
            Err(error) => missing.push(CommandError::from(error)),
        }
    }
    if ctx.printer.json() {
        let values: Vec<_> = found.iter().map(NetworkJson::from).collect();
        ctx.printer.value(&values)?;
    } else {
        let texts: Vec<String> = found.iter().map(details).collect();
        ctx.printer.text(&texts.join("\n"))?;
    }
    // A store is open once in a process.
    drop(engine);
    Ok(report(&missing, ctx))
}

fn details(view: &NetworkView) -> String {
    let spec = &view.spec;
    let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        list(map.iter().map(|(key, value)| format!("{key}={value}")))
    };
    let mut lines = vec![
        ("id", spec.id.clone()),
        ("owner", spec.owner.clone()),
        ("driver", spec.driver.as_str().to_owned()),
        ("bridge", spec.bridge.to_string()),
    ];
    for subnet in &spec.subnets {
        let range = subnet.ip_range.map(|r| format!(", addresses from {r}"));
        let text = format!("{}, gateway {}", subnet.subnet, subnet.gateway);
        lines.push(("subnet", text + &range.unwrap_or_default()));
    }
    lines.extend([
        ("internal", yes(spec.internal)),
        ("icc", yes(spec.icc)),
        ("masquerade", yes(spec.masquerade)),
        ("mtu", spec.mtu.to_string()),
        ("labels", pairs(&spec.labels)),
        ("options", pairs(&spec.options)),
        ("containers", list(&view.containers)),
    ]);
    format!("network {}\n{}", spec.name, fields(&lines))
}

fn rm(args: &RmArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let outcome = ctx
        .engine()?
        .network_remove(&args.names, args.force, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() {
        removed(&args.names, ctx)?;
    }
    Ok(0)
}

fn prune(args: &PruneArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let outcome = ctx.engine()?.network_prune(mode)?;
    if let Some(names) = ctx.outcome(outcome, mode)? {
        removed(&names, ctx)?;
    }
    Ok(0)
}

fn connect(args: ConnectArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let mut request = args.network;
    request.ips.extend(args.ips);
    request.mac = args.mac.or(request.mac);
    request.interface = args.interface.or(request.interface);
    request.aliases.extend(args.aliases);
    request.gw_priority = args.gw_priority.unwrap_or(request.gw_priority);
    let mut engine = ctx.engine()?;
    let outcome = engine.connect(&request, &args.container, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() && ctx.printer.json() {
        let container = engine.container(&args.container)?;
        ctx.printer.value(&ContainerJson::from(&container))?;
    }
    Ok(0)
}

fn disconnect(args: &DisconnectArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let mut engine = ctx.engine()?;
    let outcome = engine.disconnect(&args.network, &args.container, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() && ctx.printer.json() {
        let container = engine.container(&args.container)?;
        ctx.printer.value(&ContainerJson::from(&container))?;
    }
    Ok(0)
}
