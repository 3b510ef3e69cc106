//! What stands between a file and the host.

use std::collections::BTreeMap;

use wharf_core::ErrorKind;
use wharf_core::attach::{Addressing, AttachRequest, Attachment, Container};
use wharf_core::name::NetworkName;
use wharf_core::network::{DEFAULT_NETWORK, NetworkRequest};
use wharf_core::topology::{
    ContainerChange, ContainerSpec, container_changes, network_differences,
};
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest, NetworkView, ObjectName};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use super::change::{Action, Change};
use super::source::Wanted;
use crate::cli::container::OWNER;
use crate::output::error::CommandError;

/// The changes that make the host what the file says; networks first.
///
/// # Errors
/// The file asks for something that cannot be; nothing has been changed.
pub fn to_apply(wanted: &Wanted, engine: &mut Engine) -> Result<Vec<Action>, CommandError> {
    let (networks, containers) = (engine.networks()?, engine.containers()?);
    check_networks(wanted, &networks)?;
    let mut actions = Vec::new();
    for request in &wanted.networks {
        match networks.iter().find(|v| v.spec.name == request.name) {
            Some(view) => actions.extend(network_again(request, view)?),
            None => {
                // Conflicts with the host are better known before the first change.
                engine.network_create(request, Mode::DryRun)?;
                actions.push(network_new(request, "is not there"));
            }
        }
    }
    if makes_default(wanted, engine)? {
        let name = DEFAULT_NETWORK.parse().expect("a valid name");
        actions.push(network_new(&NetworkRequest::new(name), "is not there"));
    }
    for spec in &wanted.containers {
        match containers.iter().find(|c| c.name == spec.name) {
            Some(container) if !engine.is_there(container) => {
                actions.push(Action {
                    change: Change::Remove(vec![spec.name.clone()], true),
                    undo: None,
                    because: format!("- container `{}`: its namespace is gone", spec.name),
                });
                actions.push(container_new(spec, "is made anew"));
            }
            Some(container) => {
                check_labels(spec, container)?;
                actions.extend(container_again(spec, container));
            }
            None => actions.push(container_new(spec, "is not there")),
        }
    }
    // Ports and addresses that one container gives up may be what another one wants.
    actions.sort_by_key(|action| match action.change {
        Change::NetworkRemove(..) | Change::NetworkCreate(_) => 0,
        Change::PortRemove(..) | Change::Disconnect(..) | Change::Remove(..) => 1,
        _ => 2,
    });
    Ok(actions)
}

/// The changes that remove what the file names, in reverse order.
///
/// # Errors
/// Somebody else is on one of the networks; nothing has been changed.
pub fn to_destroy(
    wanted: &Wanted,
    force: bool,
    engine: &mut Engine,
) -> Result<Vec<Action>, CommandError> {
    let (networks, containers) = (engine.networks()?, engine.containers()?);
    let there = |spec: &&ContainerSpec| containers.iter().any(|c| c.name == spec.name);
    let names: Vec<_> = wanted
        .containers
        .iter()
        .rev()
        .filter(there)
        .map(|spec| spec.name.clone())
        .collect();
    let mut gone = Vec::new();
    for request in wanted.networks.iter().rev() {
        let Some(view) = networks.iter().find(|v| v.spec.name == request.name) else {
            continue;
        };
        let others: Vec<_> = view
            .containers
            .iter()
            .filter(|c| !names.contains(c))
            .cloned()
            .collect();
        if !others.is_empty() && !force {
            return Err(EngineError::NetworkInUse {
                network: request.name.clone(),
                containers: others,
            }
            .into());
        }
        gone.push(request.name.clone());
    }
    let mut actions = Vec::new();
    if !names.is_empty() {
        actions.push(Action {
            change: Change::Remove(names, force),
            undo: None,
            because: "- containers of the file".to_owned(),
        });
    }
    if !gone.is_empty() {
        actions.push(Action {
            change: Change::NetworkRemove(gone, force),
            undo: None,
            because: "- networks of the file".to_owned(),
        });
    }
    Ok(actions)
}

/// Whether a container is to be on the default network, which is neither there nor in the file. It is made as a change of
/// its own, so that it goes again when a later one fails.
fn makes_default(wanted: &Wanted, engine: &mut Engine) -> Result<bool, CommandError> {
    if wanted
        .networks
        .iter()
        .any(|r| r.name.as_str() == DEFAULT_NETWORK)
    {
        return Ok(false);
    }
    for spec in &wanted.containers {
        if engine.makes_default(&spec.networks)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Every network that a container asks for is in the file or there.
fn check_networks(wanted: &Wanted, networks: &[NetworkView]) -> Result<(), CommandError> {
    let known = |name: &NetworkName| {
        name.as_str() == DEFAULT_NETWORK
            || wanted.networks.iter().any(|r| r.name == *name)
            || networks.iter().any(|v| v.spec.name == *name)
    };
    for spec in &wanted.containers {
        if let Some(request) = spec.networks.iter().find(|r| !known(&r.network)) {
            let missing = ObjectName::Network(request.network.clone());
            let error = CommandError::from(EngineError::NotFound(missing));
            return Err(error.cause(format!("container `{}` is to be on it", spec.name)));
        }
    }
    Ok(())
}

fn network_new(request: &NetworkRequest, why: &str) -> Action {
    Action {
        change: Change::NetworkCreate(request.clone()),
        undo: Some(Change::NetworkRemove(vec![request.name.clone()], false)),
        because: format!("+ network `{}` {why}", request.name),
    }
}

/// A network cannot change; without containers it can be made anew.
fn network_again(
    request: &NetworkRequest,
    view: &NetworkView,
) -> Result<Vec<Action>, CommandError> {
    let differences: Vec<String> = network_differences(request, &view.spec)
        .iter()
        .map(|d| {
            let or = |text: &'_ str, none: &str| match text {
                "" => none.to_owned(),
                text => text.to_owned(),
            };
            let (found, wanted) = (or(&d.found, "unset"), or(&d.wanted, "none"));
            format!("{} is {found}, and {wanted} is asked for", d.key)
        })
        .collect();
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let name = &request.name;
    if !view.containers.is_empty() {
        let message = format!("network `{name}` is not as the file asks, and containers are on it");
        let mut error = CommandError::new(ErrorKind::Conflict, message).hint(format!(
            "change the file, or take its containers off and remove it first: `wharf network rm -f {name}`"
        ));
        error.causes = differences;
        return Err(error);
    }
    let gone = Action {
        change: Change::NetworkRemove(vec![name.clone()], false),
        undo: None,
        because: format!("- network `{name}`: {}", differences.join("; ")),
    };
    Ok(vec![gone, network_new(request, "is made anew")])
}

/// The labels of a container are those it was made with.
fn check_labels(spec: &ContainerSpec, container: &Container) -> Result<(), CommandError> {
    if spec.labels == container.labels {
        return Ok(());
    }
    let name = &container.name;
    let shown = |labels: &BTreeMap<String, String>| match labels.is_empty() {
        true => "none".to_owned(),
        false => {
            let all: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            all.join(" ")
        }
    };
    let message = format!("container `{name}` has other labels than the file asks for");
    let (has, asked) = (shown(&container.labels), shown(&spec.labels));
    Err(CommandError::new(ErrorKind::Conflict, message)
        .cause(format!("the labels are {has}, and {asked} is asked for"))
        .hint(format!(
            "change the file, or remove the container first: `wharf rm {name}`"
        )))
}

fn container_new(spec: &ContainerSpec, why: &str) -> Action {
    let request = ContainerRequest {
        name: spec.name.clone(),
        owner: OWNER.to_owned(),
        client: None,
        netns: match &spec.netns {
            Some(path) => NetnsRequest::Path(path.clone()),
            None => NetnsRequest::New,
        },
        networks: spec.networks.clone(),
        ports: spec.ports.iter().copied().map(Into::into).collect(),
        labels: spec.labels.clone(),
        id: None,
        ports_held: false,
        command: Vec::new(),
        transient: false,
    };
    Action {
        change: Change::Create(request),
        undo: Some(Change::Remove(vec![spec.name.clone()], true)),
        because: format!("+ container `{}` {why}", spec.name),
    }
}

fn container_again(spec: &ContainerSpec, container: &Container) -> Vec<Action> {
    let name = &container.name;
    let mut actions = Vec::new();
    for change in container_changes(spec, container) {
        let action = |change, undo, what: String| Action {
            change,
            undo,
            because: format!("~ container `{name}` {what}"),
        };
        match change {
            ContainerChange::Netns(path) => {
                let what = format!("is to have the namespace {}", path.display());
                let gone = Change::Remove(vec![name.clone()], false);
                actions.push(action(gone, None, what));
                actions.push(container_new(spec, "is made anew"));
            }
            ContainerChange::PortRemove(port) => actions.push(action(
                Change::PortRemove(name.clone(), port),
                Some(Change::PortAdd(name.clone(), port)),
                format!("is not to publish {port}"),
            )),
            ContainerChange::PortAdd(port) => actions.push(action(
                Change::PortAdd(name.clone(), port),
                Some(Change::PortRemove(name.clone(), port)),
                format!("is to publish {port}"),
            )),
            ContainerChange::Disconnect(network) => {
                let back = container.attachment(&network).map(as_it_was);
                actions.push(action(
                    Change::Disconnect(network.clone(), name.clone()),
                    back.map(|request| Change::Connect(request, name.clone())),
                    format!("is not on network `{network}` as the file asks"),
                ));
            }
            ContainerChange::Connect(request) => actions.push(action(
                Change::Connect(request.clone(), name.clone()),
                Some(Change::Disconnect(request.network.clone(), name.clone())),
                format!("is to be on network `{}`", request.network),
            )),
        }
    }
    actions
}

/// The request that gives an attachment again.
fn as_it_was(attachment: &Attachment) -> AttachRequest {
    AttachRequest {
        network: attachment.network.clone(),
        ips: attachment.addresses.iter().map(|net| net.addr()).collect(),
        mac: Some(attachment.mac),
        interface: Some(attachment.interface.clone()),
        host_interface: Some(attachment.host_interface.clone()),
        gw_priority: attachment.gw_priority,
        aliases: attachment.aliases.clone(),
        addressing: Addressing::Subnets,
        routes: attachment.routes.clone(),
        extras: attachment.extras.clone(),
    }
}
