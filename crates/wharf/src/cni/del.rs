//! `DEL` and `GC`: what was made goes, whatever else is gone already.

use std::collections::{BTreeSet, HashSet};

use wharf_core::attach::{ClientKey, Container};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_engine::api::Mode;
use wharf_engine::engine::{CLIENT_LABEL, Engine, REBUILT_LABEL};
use wharf_engine::error::EngineError;

use super::call::Call;
use super::config::{self, Config, Input};
use super::error::{CniError, Done, code};
use super::{chained, delegate, ipam, names, network};

/// Detaches a container. Succeeds when there is nothing to do.
///
/// # Errors
/// The kernel's or the store's; the address plugin's.
pub fn del(call: &Call, input: &Input) -> Done<()> {
    let config = &input.config;
    let key = call.key(&config.name);
    let mut engine = super::engine()?;
    let found = find(&mut engine, &key)?;
    let done = match &found {
        Some(container) => remove(&mut engine, container).and_then(|()| {
            // A record made again from the kernel does not know the way round.
            let again = container.client.as_ref();
            match again.is_some_and(ClientKey::is_made_again) {
                true => remove_lost(&mut engine, &key),
                false => Ok(()),
            }
        }),
        None => {
            forget_host_local(call, &ipam::records_of_host_local(config));
            remove_lost(&mut engine, &key)
        }
    };
    drop(engine);
    // The address plugin's part goes even if ours does not; it may be gone from the disk when ours is.
    let theirs = match ipam::plugin(config)? {
        "" | "none" | "host-local" | "static" | "wharf" | "dhcp" => Ok(()),
        plugin => delegate::run(call, input, plugin).map(|_| ()),
    };
    done?;
    match theirs {
        Err(error) if found.is_none() => {
            super::remark(&format!("note: {}\n", error.msg));
            Ok(())
        }
        theirs => theirs,
    }
}

fn find(engine: &mut Engine, key: &ClientKey) -> Done<Option<Container>> {
    for name in names::container_names(key) {
        if let Some(container) = engine.client_container(&name, key)? {
            return Ok(Some(container));
        }
    }
    Ok(None)
}

fn remove(engine: &mut Engine, container: &Container) -> Done<()> {
    match engine.remove(std::slice::from_ref(&container.name), true, Mode::Apply) {
        Ok(outcome) => super::remarks(&outcome.notes),
        // Somebody was faster.
        Err(EngineError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    forget_networks(engine, std::slice::from_ref(container));
    Ok(())
}

/// Removes many at once, or one by one where that cannot be; what went wrong with single ones.
fn remove_all(engine: &mut Engine, containers: &[Container]) -> Vec<String> {
    if containers.len() > 1 {
        let names: Vec<ContainerName> = containers.iter().map(|c| c.name.clone()).collect();
        if let Ok(outcome) = engine.remove(&names, true, Mode::Apply) {
            super::remarks(&outcome.notes);
            forget_networks(engine, containers);
            return Vec::new();
        }
    }
    let failure = |container: &Container| match remove(engine, container) {
        Ok(()) => None,
        Err(error) => Some(format!("container `{}`: {}", container.name, error.msg)),
    };
    containers.iter().filter_map(failure).collect()
}

fn forget_networks(engine: &mut Engine, containers: &[Container]) {
    let all = containers.iter().flat_map(|c| &c.attachments);
    let networks: BTreeSet<_> = all.map(|a| &a.network).collect();
    for network in networks {
        chained::forget_unused(engine, network);
    }
}

/// On a host where host-local numbered before wharf did, its record of this attachment goes with the attachment.
fn forget_host_local(call: &Call, dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let is_address = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<std::net::IpAddr>().is_ok());
        if !is_address {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        let ours = lines.next() == Some(call.container.as_str())
            && lines.next().is_none_or(|ifname| ifname == call.ifname);
        if ours {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Without a record there may still be a cable with the mark of this attachment.
fn remove_lost(engine: &mut Engine, key: &ClientKey) -> Done<()> {
    let detour = names::detour(key);
    for network in names::network_names(&key.network) {
        for name in names::container_names(key) {
            engine.remove_lost(network::OWNER, &name, &network, detour.as_ref())?;
        }
    }
    Ok(())
}

/// Removes every attachment to this network that is not listed. Goes on after failures.
///
/// # Errors
/// Those of single attachments, together.
pub fn gc(call: &Call, input: &Input) -> Done<()> {
    let config = &input.config;
    let plugin = ipam::plugin(config)?.to_owned();
    let Some(valid) = config.valid_attachments() else {
        return Ok(());
    };
    let mut failures: Vec<String> = Vec::new();
    let mut engine = super::engine()?;
    let valid = Valid::new(&config.name, &valid);
    let networks = names::network_names(&config.name);
    let gone = |c: &Container| {
        c.owner == network::OWNER
            && c.client
                .as_ref()
                .is_some_and(|key| match key.is_made_again() {
                    // It is known by the name of its record alone.
                    true => {
                        networks.iter().any(|n| c.attachment(n).is_some())
                            && !valid.names.contains(&c.name)
                    }
                    false => key.network == config.name && !valid.keys.contains(key),
                })
    };
    for network in &networks {
        if let Err(error) = engine.rebuild_if_lost(network::OWNER, network) {
            failures.push(error.to_string());
        }
    }
    let all: Vec<Container> = engine.containers()?.into_iter().filter(gone).collect();
    failures.extend(remove_all(&mut engine, &all));
    for network in &networks {
        if let Err(error) = sweep(&mut engine, config, network, &valid.names) {
            failures.push(error.msg);
        }
    }
    drop(engine);
    let inside = ["", "none", "host-local", "static", "wharf", "dhcp"];
    if !inside.contains(&plugin.as_str())
        && let Err(error) = delegate::run(call, input, &plugin)
    {
        failures.push(error.msg);
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(
            CniError::new(code::FAILED, "not everything could be removed")
                .with(failures.join("; ")),
        ),
    }
}

/// The attachments that stay.
struct Valid {
    keys: HashSet<ClientKey>,
    /// All names that their records may have.
    names: HashSet<ContainerName>,
}

impl Valid {
    fn new(network: &str, list: &[config::Valid]) -> Self {
        let key = |valid: &config::Valid| ClientKey {
            network: network.to_owned(),
            container: valid.container.clone(),
            interface: valid.ifname.clone(),
        };
        let keys: HashSet<ClientKey> = list.iter().map(key).collect();
        let names = keys.iter().flat_map(names::container_names).collect();
        Self { keys, names }
    }
}

/// Cables nobody knows, and the network when nobody is on it any more.
fn sweep(
    engine: &mut Engine,
    config: &Config,
    network: &NetworkName,
    valid: &HashSet<ContainerName>,
) -> Done<()> {
    engine.remove_all_lost(network::OWNER, network, valid)?;
    let view = match engine.network(network) {
        Ok(view) => view,
        Err(EngineError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let labels = &view.spec.labels;
    let ours = match labels.get(CLIENT_LABEL) {
        Some(client) => client == network::OWNER,
        // Made again from the kernel, without knowledge of whose it is.
        None => {
            labels.contains_key(REBUILT_LABEL)
                && config.bridge.as_deref() == Some(view.spec.bridge.as_str())
        }
    };
    if ours && view.containers.is_empty() {
        engine.network_remove(std::slice::from_ref(network), false, Mode::Apply)?;
    }
    Ok(())
}
