//! `setup`: a container is put on networks, all or none.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use wharf_core::attach::{AttachRequest, Container};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{Driver, NetworkError, NetworkSpec};
use wharf_core::publish::PortMapping;
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest, Note, ObjectName};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use crate::output::Printer;

use super::dns::Servers;
use super::error::Failure;
use super::input::{Input, Network, NetworkOptions};
use super::plugin::Plugin;
use super::status::{self, Status};
use super::{Call, OWNER, dns, log, plugin, translate};

/// How often it is tried again when a network goes with its last container in that moment.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// One network of a call.
pub struct Wanted {
    /// As Podman defines it.
    pub network: Network,
    /// What is asked for on it.
    pub options: NetworkOptions,
    /// The program that serves it, if wharf does not.
    pub plugin: Option<Plugin>,
}

/// The networks of a call, in order.
pub fn wanted(call: &Call, input: &Input) -> Result<Vec<Wanted>, Failure> {
    let mut all = Vec::new();
    for (name, options) in &input.networks.0 {
        let missing = || Failure::new(format!("network {name}: no definition is given"));
        let defined = input.network_info.get(name).ok_or_else(missing)?;
        let bad = |e: serde_json::Error| {
            Failure::new(format!(
                "failed to load network options: network {name}: {e}"
            ))
        };
        let network: Network = serde_json::from_value(defined.clone()).map_err(bad)?;
        let options_read: NetworkOptions = serde_json::from_value(options.clone()).map_err(bad)?;
        let plugin = match network.driver.as_str() {
            "bridge" | "macvlan" | "ipvlan" => None,
            driver => Some(plugin::find(&call.plugins, driver, defined, options)?),
        };
        all.push(Wanted {
            network,
            options: options_read,
            plugin,
        });
    }
    Ok(all)
}

/// Puts the container on the networks; the answer for Podman.
pub fn setup(call: &Call, netns: &Path, input: &Input) -> Result<String, Failure> {
    if let Err(error) = std::fs::File::open(netns) {
        return Err(Failure::new(format!(
            "invalid namespace path: IO error: {error}"
        )));
    }
    log::say(log::Level::Info, "Using nftables firewall driver");
    let wanted = wanted(call, input)?;
    let ports = translate::ports(input.port_mappings.as_deref().unwrap_or_default())?;
    let own: Vec<&Wanted> = wanted.iter().filter(|w| w.plugin.is_none()).collect();
    let (container, servers) = match own.is_empty() {
        true => (None, Servers::default()),
        false => {
            let mut work = Work {
                engine: call.engine()?,
                netns,
                input,
                ports,
            };
            let servers = dns::servers(call, &wanted, input, &mut work.engine)?;
            // The engine ends here: no program that is started inherits its files.
            (Some(work.join(&own)?), servers)
        }
    };
    let mut answers: BTreeMap<&str, Status> = BTreeMap::new();
    for w in &own {
        let found = container
            .as_ref()
            .and_then(|(c, names)| c.attachment(names.get(w.network.name.as_str())?));
        if let Some(attachment) = found {
            let dns = servers.for_network(&w.network.name);
            answers.insert(
                &w.network.name,
                status::of(&w.network, attachment, &dns.0, dns.1),
            );
        }
    }
    let mut plugged: Vec<&Wanted> = Vec::new();
    let rest = (|| {
        for w in &wanted {
            if let Some(plugin) = &w.plugin {
                answers.insert(&w.network.name, plugin.setup(netns, input)?);
                plugged.push(w);
            }
        }
        servers.add(call, input, &answers)
    })();
    if let Err(failure) = rest {
        for w in plugged.iter().filter_map(|w| w.plugin.as_ref()) {
            let _ = w.teardown(netns, input);
        }
        let _ = dns::remove(call, input, &wanted);
        if let Some((container, names)) = &container {
            let names: Vec<NetworkName> = names.values().cloned().collect();
            if let Ok(mut engine) = call.engine() {
                let _ = super::teardown::leave(&mut engine, container, &names);
            }
        }
        return Err(failure);
    }
    serde_json::to_string(&answers).map_err(|e| Failure::new(e.to_string()))
}

/// What joining networks takes.
struct Work<'a> {
    engine: Engine,
    netns: &'a Path,
    input: &'a Input,
    ports: Vec<PortMapping>,
}

/// A container, and the names of its networks in wharf by Podman's.
type Joined<'a> = (Container, BTreeMap<&'a str, NetworkName>);

impl Work<'_> {
    fn join<'w>(&mut self, wanted: &[&'w Wanted]) -> Result<Joined<'w>, Failure> {
        let mut left = ATTEMPTS;
        loop {
            let mut specs: Vec<NetworkSpec> = Vec::new();
            let done = self.try_join(wanted, &mut specs);
            if done.is_err() {
                self.engine.release_unused(&specs)?;
            }
            match done {
                Err(Refused::Engine(error)) if left > 0 && is_passing(&error) => {
                    left -= 1;
                    std::thread::sleep(PAUSE);
                }
                Err(Refused::Engine(error)) => return Err(error.into()),
                Err(Refused::Input(failure)) => return Err(failure),
                Ok(joined) => return Ok(joined),
            }
        }
    }

    fn try_join<'w>(
        &mut self,
        wanted: &[&'w Wanted],
        specs: &mut Vec<NetworkSpec>,
    ) -> Result<Joined<'w>, Refused> {
        // Everything is read before anything is done.
        for w in wanted {
            let name = translate::network_names(&w.network)?.remove(0);
            let request = translate::network(&w.network, &name)?;
            if request.driver == Driver::Unmanaged {
                self.check_bridge(request.bridge.as_ref())?;
            }
            translate::attachment(&w.network, &name, &w.options)?;
        }
        let mut requests = Vec::new();
        let mut names = BTreeMap::new();
        for w in wanted {
            let spec = self.ensure(&w.network)?;
            requests.push(translate::attachment(&w.network, &spec.name, &w.options)?);
            names.insert(w.network.name.as_str(), spec.name.clone());
            specs.push(spec);
        }
        let known =
            translate::container_names(&self.input.container_name, &self.input.container_id)?;
        let there = self
            .engine
            .container_by_id(OWNER, &self.input.container_id, &known[0])?;
        let container = match there {
            Some(container) if is_in(&container, self.netns) => {
                self.connect(&container, &requests)?
            }
            // It ended without a teardown, and starts again in a new namespace.
            Some(dead) => {
                self.engine.remove(&[dead.name], true, Mode::Apply)?;
                return self.try_join(wanted, specs);
            }
            None => self.create(&known, &requests)?,
        };
        Ok((container, names))
    }

    /// Somebody else's bridge is there.
    fn check_bridge(&mut self, bridge: Option<&IfName>) -> Result<(), Refused> {
        let links = self.engine.host_facts()?.interfaces;
        if bridge.is_some_and(|name| links.contains(name)) {
            return Ok(());
        }
        let text = "in unmanaged mode, the bridge must already exist on the host: Netlink error: No such device (os error 19)";
        Err(Failure::new(text).into())
    }

    /// The network, up; under another name where its own is somebody else's.
    fn ensure(&mut self, network: &Network) -> Result<NetworkSpec, Refused> {
        let names = translate::network_names(network)?;
        let mut taken = None;
        for name in &names {
            match self
                .engine
                .transient_ensure(&translate::network(network, name)?)
            {
                Err(
                    error @ EngineError::Network {
                        error: NetworkError::Exists(_),
                        ..
                    },
                ) => {
                    taken = Some(error);
                }
                done => return Ok(done?),
            }
        }
        Err(taken.map_or_else(
            || {
                Refused::Input(Failure::new(format!(
                    "network {}: no name fits",
                    network.name
                )))
            },
            Refused::Engine,
        ))
    }

    fn create(
        &mut self,
        names: &[ContainerName],
        networks: &[AttachRequest],
    ) -> Result<Container, Refused> {
        let mut request = ContainerRequest {
            name: names[0].clone(),
            id: Some(self.input.container_id.clone()),
            owner: OWNER.to_owned(),
            client: None,
            netns: NetnsRequest::Path(self.netns.to_owned()),
            networks: networks.to_vec(),
            ports: self.ports.iter().copied().map(Into::into).collect(),
            ports_held: true,
            labels: Default::default(),
            command: Vec::new(),
            transient: false,
        };
        let mut taken = None;
        for name in names {
            request.name = name.clone();
            match self.engine.create(&request, Mode::Apply) {
                Err(error @ EngineError::Exists(_)) => taken = Some(error),
                done => {
                    let outcome = done?;
                    warn(&outcome.notes);
                    return Ok(outcome.value);
                }
            }
        }
        Err(taken.map_or_else(
            || Refused::Input(Failure::new("the container has no name")),
            Refused::Engine,
        ))
    }

    /// Further networks of a container that is there. Its ports stay: Podman sends them again, and never others.
    fn connect(
        &mut self,
        container: &Container,
        requests: &[AttachRequest],
    ) -> Result<Container, Refused> {
        let mut done: Vec<NetworkName> = Vec::new();
        let result = (|| {
            for request in requests {
                self.engine.connect(request, &container.name, Mode::Apply)?;
                done.push(request.network.clone());
            }
            self.engine.container(&container.name)
        })();
        if result.is_err() {
            for network in done.iter().rev() {
                self.engine
                    .disconnect(network, &container.name, Mode::Apply)?;
            }
        }
        Ok(result?)
    }
}

/// Why a container could not join.
enum Refused {
    /// What Podman wrote cannot be.
    Input(Failure),
    /// The engine's word.
    Engine(EngineError),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Input(failure)
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Podman shows its user what stands on the standard error: only what keeps packets from passing.
fn warn(notes: &[Note]) {
    let grave = |n: &&Note| matches!(n, Note::ForwardPolicyDrop { .. } | Note::MissingFeature(_));
    let grave: Vec<Note> = notes.iter().filter(grave).cloned().collect();
    Printer::new(false).notes(&grave);
}

/// Whether the container's namespace is the one at this path.
fn is_in(container: &Container, netns: &Path) -> bool {
    let there = std::fs::metadata(netns).ok().map(|m| (m.dev(), m.ino()));
    there.is_some() && there == container.netns.identity
}

/// A network that is just going, or that another process is at work on.
fn is_passing(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Busy(_) | EngineError::NotFound(ObjectName::Network(_))
    )
}
