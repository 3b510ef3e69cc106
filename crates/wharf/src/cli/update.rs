//! What of a container or network changes while it stays: `update`, `network update`.

use std::collections::BTreeMap;

use clap::Args;
use wharf_core::attach::{AttachRequest, Place};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_engine::engine::Update;

use super::args::{ChangeArgs, label};
use super::{Context, Done};
use crate::output::error::CommandError;
use crate::output::json::{ContainerJson, NetworkJson};

/// Labels that come and go.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// Set a label (may be given again)
    #[arg(short = 'l', long = "label-add", alias = "label", value_name = "KEY=VALUE", value_parser = label)]
    add: Vec<(String, String)>,

    /// Remove a label (may be given again)
    #[arg(long = "label-rm", value_name = "KEY")]
    rm: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Name of the container
    #[arg(value_name = "NAME")]
    name: ContainerName,

    /// Its networks, all of them, in the order in which they are to be (may be given again)
    ///
    /// The first carries the default route and the published ports, unless gw-priority says otherwise. Behind the name,
    /// `:` and options with commas between: gw-priority=N, alias=NAME. What is not named is 0, and none.
    #[arg(
        long = "network",
        visible_alias = "net",
        value_name = "NET[:gw-priority=N,…]"
    )]
    networks: Vec<AttachRequest>,

    #[command(flatten)]
    labels: LabelArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct NetworkUpdateArgs {
    /// Name of the network
    #[arg(value_name = "NAME")]
    name: NetworkName,

    #[command(flatten)]
    labels: LabelArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

impl LabelArgs {
    /// Labels as they are then; none if nothing is asked for.
    fn of(&self, labels: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
        if self.add.is_empty() && self.rm.is_empty() {
            return None;
        }
        let mut labels = labels.clone();
        labels.retain(|key, _| !self.rm.contains(key));
        labels.extend(self.add.iter().cloned());
        Some(labels)
    }
}

pub fn update(args: &UpdateArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let places: Vec<Place> = args.networks.iter().map(place).collect::<Result<_, _>>()?;
    let mut engine = ctx.engine()?;
    let labels = args.labels.of(&engine.container(&args.name)?.labels);
    if places.is_empty() && labels.is_none() {
        return Err(nothing());
    }
    let update = Update {
        places: Some(places).filter(|all| !all.is_empty()),
        labels,
    };
    let outcome = engine.update(&args.name, &update, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() && ctx.printer.json() {
        let container = engine.container(&args.name)?;
        ctx.printer.value(&ContainerJson::from(&container))?;
    }
    Ok(0)
}

pub fn network_update(args: &NetworkUpdateArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let mut engine = ctx.engine()?;
    let view = engine.network(&args.name)?;
    let labels = args.labels.of(&view.spec.labels).ok_or_else(nothing)?;
    let outcome = engine.network_update(&args.name, &labels, mode)?;
    if ctx.outcome(outcome, mode)?.is_some() && ctx.printer.json() {
        let view = engine.network(&args.name)?;
        ctx.printer.value(&NetworkJson::from(&view))?;
    }
    Ok(0)
}

fn nothing() -> CommandError {
    CommandError::usage("nothing is asked for").hint("`--help` shows what can be changed")
}

/// The place that is asked for; the rest of an attachment is for its cable's life.
fn place(request: &AttachRequest) -> Result<Place, CommandError> {
    let place = Place {
        network: request.network.clone(),
        gw_priority: request.gw_priority,
        aliases: request.aliases.clone(),
    };
    let mut bare = AttachRequest::new(request.network.clone());
    bare.gw_priority = request.gw_priority;
    bare.aliases.clone_from(&request.aliases);
    if bare == *request {
        return Ok(place);
    }
    let network = &request.network;
    let message = format!("only gw-priority and alias of network `{network}` can be changed");
    let hint =
        "`wharf network disconnect` and `wharf network connect` give another address or interface";
    Err(CommandError::usage(message).hint(hint))
}
