//! What stands between a file and the host.

use std::collections::BTreeMap;

use wharf_core::ErrorKind;
use wharf_core::attach::{Addressing, AttachRequest, Attachment, Container, Place};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::{DEFAULT_NETWORK, NetworkRequest};
use wharf_core::options::NetworkOptions;
use wharf_core::topology::{
    ContainerChange, ContainerSpec, container_changes, network_differences, with_own,
};
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest, NetworkView, ObjectName};
use wharf_engine::engine::{Engine, owner_of};
use wharf_engine::error::EngineError;

use super::change::{Action, Change, Labels};
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
    check_owners(wanted, &networks, &containers)?;
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
    let prefixes = prefixes(wanted, &networks);
    let prefix = |name: &NetworkName| prefixes.get(name).map(String::as_str);
    for spec in &wanted.containers {
        match containers.iter().find(|c| c.name == spec.name) {
            Some(container) if !engine.is_there(container) => {
                actions.push(Action {
                    change: Change::Remove(vec![spec.name.clone()], true),
                    undo: Vec::new(),
                    because: format!("- container `{}`: its namespace is gone", spec.name),
                });
                actions.push(container_new(spec, "is made anew"));
            }
            Some(container) => actions.extend(container_again(spec, container, prefix)),
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

/// What the file names and is there is the command's own, not one that an engine of containers came with.
///
/// # Errors
/// The first that is somebody else's.
pub fn check_owners(
    wanted: &Wanted,
    networks: &[NetworkView],
    containers: &[Container],
) -> Result<(), EngineError> {
    let named = |name: &NetworkName| wanted.networks.iter().any(|r| r.name == *name);
    let network = networks
        .iter()
        .map(|v| &v.spec)
        .find(|n| owner_of(n) != OWNER && named(&n.name));
    if let Some(network) = network {
        return Err(EngineError::Anothers {
            object: ObjectName::Network(network.name.clone()),
            owner: owner_of(network).to_owned(),
        });
    }
    let named = |name: &ContainerName| wanted.containers.iter().any(|spec| spec.name == *name);
    match containers
        .iter()
        .find(|c| c.owner != OWNER && named(&c.name))
    {
        None => Ok(()),
        Some(container) => Err(EngineError::Anothers {
            object: ObjectName::Container(container.name.clone()),
            owner: container.owner.clone(),
        }),
    }
}

fn network_new(request: &NetworkRequest, why: &str) -> Action {
    Action {
        change: Change::NetworkCreate(request.clone()),
        undo: vec![Change::NetworkRemove(vec![request.name.clone()], false)],
        because: format!("+ network `{}` {why}", request.name),
    }
}

/// Labels apart, a network cannot change; without containers it can be made anew.
fn network_again(
    request: &NetworkRequest,
    view: &NetworkView,
) -> Result<Vec<Action>, CommandError> {
    let name = &request.name;
    let all = network_differences(request, &view.spec);
    let differences: Vec<String> = all
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
    if all.iter().all(|d| d.key == "labels") {
        let labels = Labels {
            to: with_own(&request.labels, &view.spec.labels),
            from: view.spec.labels.clone(),
        };
        return Ok(vec![Action {
            undo: vec![Change::NetworkLabels(name.clone(), labels.back())],
            change: Change::NetworkLabels(name.clone(), labels),
            because: format!("~ network `{name}`: {}", differences.join("; ")),
        }]);
    }
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
        undo: Vec::new(),
        because: format!("- network `{name}`: {}", differences.join("; ")),
    };
    Ok(vec![gone, network_new(request, "is made anew")])
}

/// How the interfaces of networks are called, where that is not `eth`.
fn prefixes(wanted: &Wanted, networks: &[NetworkView]) -> BTreeMap<NetworkName, String> {
    let there = networks
        .iter()
        .map(|v| (&v.spec.name, v.spec.settings.clone()));
    let new = wanted.networks.iter().map(|r| {
        let settings = NetworkOptions::parse(&r.options).unwrap_or_default();
        (&r.name, settings)
    });
    let all = there.chain(new);
    all.filter_map(|(name, settings)| Some((name.clone(), settings.interface_prefix?)))
        .collect()
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
        undo: vec![Change::Remove(vec![spec.name.clone()], true)],
        because: format!("+ container `{}` {why}", spec.name),
    }
}

fn container_again<'a>(
    spec: &ContainerSpec,
    container: &Container,
    prefix: impl Fn(&NetworkName) -> Option<&'a str>,
) -> Vec<Action> {
    let name = &container.name;
    let mut actions = Vec::new();
    for change in container_changes(spec, container, prefix) {
        if let ContainerChange::Netns(path) = change {
            actions.push(Action {
                change: Change::Remove(vec![name.clone()], false),
                undo: Vec::new(),
                because: format!(
                    "~ container `{name}` is to have the namespace {}",
                    path.display()
                ),
            });
            actions.push(container_new(spec, "is made anew"));
        } else {
            let (change, undo, what) = stays(change, container);
            actions.push(Action {
                change,
                undo,
                because: format!("~ container `{name}` {what}"),
            });
        }
    }
    actions
}

/// A change of a container that stays, how it is taken back, and what it is, in words.
fn stays(change: ContainerChange, container: &Container) -> (Change, Vec<Change>, String) {
    let name = || container.name.clone();
    match change {
        ContainerChange::PortRemove(port) => (
            Change::PortRemove(name(), port),
            vec![Change::PortAdd(name(), port)],
            format!("is not to publish {port}"),
        ),
        ContainerChange::PortAdd(port) => (
            Change::PortAdd(name(), port),
            vec![Change::PortRemove(name(), port)],
            format!("is to publish {port}"),
        ),
        ContainerChange::Disconnect(network, order) => {
            let back = container.attachment(&network).map(as_it_was);
            let back = back.map(|request| Change::Connect(request, name()));
            let order = order.map(|places| Change::Arrange(name(), places));
            (
                Change::Disconnect(network.clone(), name()),
                back.into_iter().chain(order).collect(),
                format!("is not on network `{network}` as the file asks"),
            )
        }
        ContainerChange::Connect(request) => (
            Change::Connect(request.clone(), name()),
            vec![Change::Disconnect(request.network.clone(), name())],
            format!("is to be on network `{}`", request.network),
        ),
        ContainerChange::Arrange { from, to } => {
            let what = rearranged(&from, &to);
            (
                Change::Arrange(name(), to),
                vec![Change::Arrange(name(), from)],
                what,
            )
        }
        ContainerChange::Labels(to) => {
            let labels = Labels {
                from: container.labels.clone(),
                to,
            };
            let back = Change::Labels(name(), labels.back());
            let what = "is to have other labels".to_owned();
            (Change::Labels(name(), labels), vec![back], what)
        }
        ContainerChange::Netns(_) => unreachable!("it is made anew"),
    }
}

/// What is new about an order of networks.
fn rearranged(from: &[Place], to: &[Place]) -> String {
    let names = |places: &[Place]| -> Vec<String> {
        places.iter().map(|p| format!("`{}`", p.network)).collect()
    };
    let (was, is) = (names(from), names(to));
    if was != is {
        return format!("is to have its networks in the order {}", is.join(", "));
    }
    let differs = |p: &&Place| !from.contains(p);
    let changed: Vec<String> = to
        .iter()
        .filter(differs)
        .map(|p| format!("`{}`", p.network))
        .collect();
    match changed.is_empty() {
        true => format!("is to have its networks in the order {}", is.join(", ")),
        false => format!(
            "is to have another priority or name on {}",
            changed.join(", ")
        ),
    }
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
