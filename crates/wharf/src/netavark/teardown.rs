//! `teardown`: a container is taken off networks. What is gone already is as asked for.

use std::path::Path;

use wharf_core::attach::Container;
use wharf_core::name::NetworkName;
use wharf_engine::api::Mode;
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use super::error::Failure;
use super::input::Input;
use super::setup::Wanted;
use super::{Call, OWNER, dns, setup, translate};

/// Takes the container off the networks, going on after failures.
pub fn teardown(call: &Call, netns: &Path, input: &Input) -> Result<(), Failure> {
    // Half a removal would stay for ever: nobody calls again.
    wharf_engine::process::outlast_termination();
    let wanted = setup::wanted(call, input)?;
    let mut failures = Vec::new();
    for plugin in wanted.iter().filter_map(|w| w.plugin.as_ref()) {
        failures.extend(plugin.teardown(netns, input).err());
    }
    failures.extend(dns::remove(call, input, &wanted).err());
    if wanted.iter().any(|w| w.plugin.is_none()) {
        let left = call
            .engine()
            .and_then(|mut engine| leave_all(&mut engine, input, &wanted));
        failures.extend(left.err());
    }
    Failure::all(failures)
}

fn leave_all(engine: &mut Engine, input: &Input, wanted: &[Wanted]) -> Result<(), Failure> {
    let names = translate::container_names(&input.container_name, &input.container_id)?;
    let found = engine.container_by_id(OWNER, &input.container_id, &names[0])?;
    if found.is_none() {
        // Where the store was lost, its networks are to be known too, so that they go with their last container.
        engine.rebuild_for(&names)?;
    }
    let (mut specs, mut made_again) = (Vec::new(), Vec::new());
    for w in wanted.iter().filter(|w| w.plugin.is_none()) {
        let known = engine.network_by_id(OWNER, &w.network.id)?;
        if known.is_none() {
            let bridge = w.network.network_interface.as_deref().unwrap_or_default();
            for name in translate::network_names(&w.network)? {
                made_again.extend(engine.network_made_again(&name, bridge)?);
            }
        }
        specs.extend(known);
    }
    match engine.container_by_id(OWNER, &input.container_id, &names[0])? {
        Some(container) => {
            let all = specs.iter().chain(&made_again);
            let networks: Vec<NetworkName> = all.map(|n| n.name.clone()).collect();
            leave(engine, &container, &networks)?;
        }
        // It could not be made again; what carries the mark of a name that nobody has is the container's.
        None => {
            for name in &names {
                if matches!(engine.container(name), Err(EngineError::NotFound(_))) {
                    engine.remove(std::slice::from_ref(name), true, Mode::Apply)?;
                }
            }
        }
    }
    // A setup may have been ended between its network and its container.
    engine.release_unused(&specs)?;
    // What nobody but Podman defines goes with its last container, also where the store does not know so any more.
    for network in made_again {
        match engine.network_remove(std::slice::from_ref(&network.name), false, Mode::Apply) {
            Ok(_) | Err(EngineError::NetworkInUse { .. } | EngineError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes a container off networks; with the last one it goes itself.
pub fn leave(
    engine: &mut Engine,
    container: &Container,
    networks: &[NetworkName],
) -> Result<(), Failure> {
    let stays = container
        .attachments
        .iter()
        .any(|a| !networks.contains(&a.network));
    if !stays {
        let name = std::slice::from_ref(&container.name);
        return match engine.remove(name, true, Mode::Apply) {
            Ok(_) | Err(EngineError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let mut failures = Vec::new();
    for network in networks
        .iter()
        .filter(|n| container.attachment(n).is_some())
    {
        let left = engine.disconnect(network, &container.name, Mode::Apply);
        failures.extend(left.err().map(Failure::from));
    }
    Failure::all(failures)
}
