//! For clients that describe a network at each call, and know containers by names of their own.

use std::collections::HashSet;
use std::path::Path;

use wharf_core::addr::Mac;
use wharf_core::attach::{ClientKey, Container};
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::extras::Traits;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{
    NetworkError, NetworkKind, NetworkRequest, NetworkSpec, differences, grow, resolve,
};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};

use crate::api::{Mode, Note, ObjectName};
use crate::engine::gc::{CableMark, cable_mark};
use crate::engine::host::failed;
use crate::engine::lost::removal;
use crate::engine::{Engine, journal_key, rebuild};
use crate::error::EngineError;
use crate::observe::LinkInfo;
use crate::store::{LiveNetwork, Work};

/// The label that says which client a network was made for.
pub const CLIENT_LABEL: &str = "wharf.client";

/// The front end whose network it is.
pub fn owner_of(spec: &NetworkSpec) -> &str {
    spec.labels.get(CLIENT_LABEL).unwrap_or(&spec.owner)
}

impl Engine {
    /// Sees to it that there is a network as described, and says whether it was made now. One that the same client described otherwise is made anew while
    /// nobody is on it; further subnets are added to it at any time.
    ///
    /// # Errors
    /// It differs and is in use, or is not this client's; see [`Engine::network_create`] for the rest.
    pub fn network_ensure(
        &mut self,
        request: &NetworkRequest,
    ) -> Result<(NetworkSpec, bool), EngineError> {
        const ROUNDS: u32 = 8;
        let mut looked = false;
        for _ in 0..ROUNDS {
            let Some(spec) = self.known_network(&request.name)? else {
                match self.network_create(request, Mode::Apply) {
                    // Another process was faster.
                    Err(EngineError::Network {
                        error: NetworkError::Exists(_),
                        ..
                    }) => continue,
                    Err(EngineError::Network {
                        error:
                            NetworkError::BridgeOfNetwork { network, .. }
                            | NetworkError::OverlapsNetwork { network, .. },
                        ..
                    }) if self.is_idle_of_client(&network, request)? => {
                        self.network_remove(&[network], false, Mode::Apply)?;
                        continue;
                    }
                    // The bridge is this network's, and the store was lost.
                    Err(EngineError::Network {
                        error: NetworkError::BridgeTaken(_),
                        ..
                    }) if !looked && request.labels.contains_key(CLIENT_LABEL) => {
                        looked = true;
                        let client = request.labels[CLIENT_LABEL].clone();
                        self.rebuild_if_lost(&client, &request.name)?;
                        continue;
                    }
                    made => {
                        let outcome = made?;
                        let told = |n: &Note| matches!(n, Note::MissingFeature(_));
                        self.notes.extend(outcome.notes.into_iter().filter(told));
                        return Ok((outcome.value, true));
                    }
                }
            };
            let client = |labels: &std::collections::BTreeMap<String, String>| {
                labels.get(CLIENT_LABEL).cloned()
            };
            if spec.labels.contains_key(rebuild::REBUILT_LABEL)
                && let Some(spec) = self.take_back(request, &spec)?
            {
                return Ok((spec, false));
            }
            let same_client = client(&spec.labels) == client(&request.labels);
            let found = differences(&spec, request, same_client);
            if found.is_empty() {
                return Ok((spec, false));
            }
            if found.fixed.is_empty() && same_client && self.live(&request.name)?.is_some() {
                return self.grow(request).map(|spec| (spec, false));
            }
            let in_use = !self.network(&request.name)?.containers.is_empty();
            if !same_client || in_use {
                return Err(EngineError::NetworkDiffers {
                    network: request.name.clone(),
                    differences: found.fixed,
                });
            }
            self.network_remove(std::slice::from_ref(&request.name), false, Mode::Apply)?;
        }
        Err(EngineError::Busy(ObjectName::Network(request.name.clone())))
    }

    /// Which of two names a client's network has: the one of the description, unless a front end that defines its networks
    /// itself has another network of that name, or had one when the client's was made.
    ///
    /// # Errors
    /// The store's.
    pub fn client_network_name(
        &mut self,
        request: &NetworkRequest,
        other: NetworkName,
    ) -> Result<NetworkName, EngineError> {
        let client = request.labels.get(CLIENT_LABEL);
        let live = self.live(&request.name)?.map(|live| live.spec);
        if live
            .as_ref()
            .is_some_and(|n| n.labels.get(CLIENT_LABEL) == client)
        {
            return Ok(request.name.clone());
        }
        let anothers = live.is_some_and(|spec| {
            spec.is_transient() && !differences(&spec, request, false).is_empty()
        });
        match anothers || self.known_network(&other)?.is_some() {
            true => Ok(other),
            false => Ok(request.name.clone()),
        }
    }

    /// Whether the same client made this network, and nobody is on it: the client does not say when it needs one no
    /// more, so that it is in nobody's way.
    fn is_idle_of_client(
        &mut self,
        name: &NetworkName,
        request: &NetworkRequest,
    ) -> Result<bool, EngineError> {
        let client = request.labels.get(CLIENT_LABEL);
        let view = self.network(name)?;
        let same = client.is_some() && view.spec.labels.get(CLIENT_LABEL) == client;
        Ok(same && view.containers.is_empty())
    }

    /// A network that was made again from the kernel becomes what its client says it is, if that can be: with the same
    /// bridge and subnets.
    fn take_back(
        &mut self,
        request: &NetworkRequest,
        rebuilt: &NetworkSpec,
    ) -> Result<Option<NetworkSpec>, EngineError> {
        let _lock = self.lock_host()?;
        let mut existing: Vec<NetworkSpec> = self.networks()?.into_iter().map(|v| v.spec).collect();
        existing.retain(|n| n.name != rebuilt.name);
        let mut facts = self.host_facts()?;
        facts.forget_link(&rebuilt.bridge);
        let own = |net: &ipnet::IpNet| rebuilt.subnets.iter().any(|s| s.subnet == *net);
        facts.routes.retain(|net| !own(net));
        let Ok(spec) = resolve(request, &existing, &facts) else {
            return Ok(None);
        };
        let nets = |n: &NetworkSpec| n.subnets.iter().map(|s| s.subnet).collect::<Vec<_>>();
        let same = (&spec.bridge, spec.bridge_mac, nets(&spec))
            == (&rebuilt.bridge, rebuilt.bridge_mac, nets(rebuilt));
        if !same {
            return Ok(None);
        }
        self.adopt(&spec)?;
        self.state()?.put(&spec)?;
        self.mend(Mode::Apply)?;
        Ok(Some(spec))
    }

    /// A network that is up, or is kept for when it is needed.
    fn known_network(&mut self, name: &NetworkName) -> Result<Option<NetworkSpec>, EngineError> {
        match self.live(name)? {
            Some(live) => Ok(Some(live.spec)),
            None => self.state()?.network(name.as_str()),
        }
    }

    /// Whether of a network wharf has but the rules for another program's bridge, and nobody is on it.
    ///
    /// # Errors
    /// The store's.
    pub fn is_adopted_and_idle(&mut self, name: &NetworkName) -> Result<bool, EngineError> {
        let adopted = self.known_network(name)?.is_some_and(|net| net.adopted);
        Ok(adopted && !self.has_users(name)?)
    }

    /// Adds the subnets of a description that a network does not have. The store knows them first: a process that dies
    /// on the way leaves a journal entry, by which the next one makes them.
    fn grow(&mut self, request: &NetworkRequest) -> Result<NetworkSpec, EngineError> {
        let _lock = self.lock_host()?;
        let name = &request.name;
        let live = self
            .live(name)?
            .ok_or_else(|| EngineError::NotFound(ObjectName::Network(name.clone())))?;
        let missing = differences(&live.spec, request, true).missing;
        if missing.is_empty() {
            return Ok(live.spec);
        }
        let mut further = NetworkRequest::new(name.clone());
        further.kind = match live.spec.adopted {
            true => NetworkKind::Adopted,
            false => NetworkKind::Numbered,
        };
        further.subnets = missing.iter().map(|at| request.subnets[*at]).collect();
        let inside =
            |gateway: &std::net::IpAddr| further.subnets.iter().any(|s| s.contains(gateway));
        further.gateways = request.gateways.iter().copied().filter(inside).collect();
        let existing: Vec<NetworkSpec> = self.networks()?.into_iter().map(|v| v.spec).collect();
        let facts = self.host_facts()?;
        let spec = grow(&live.spec, &further, &existing, &facts).map_err(|error| {
            EngineError::Network {
                name: name.clone(),
                error,
            }
        })?;
        let part = self.prepare_host(&spec)?;
        let mut plan = part.plan.clone();
        plan.append(diff(
            &compile::network(&spec),
            &compile::network(&live.spec),
            &format!("network `{name}` has more subnets"),
        ));
        let key = journal_key(&ObjectName::Network(name.clone()));
        let put = |engine: &Self, spec: &NetworkSpec, work: Option<Work>| {
            engine.run.write(|txn| {
                let users = engine.run.networks.get(txn, name.as_str())?;
                let now = LiveNetwork {
                    spec: spec.clone(),
                    ..users.unwrap_or_else(|| live.clone())
                };
                engine.run.networks.put(txn, name.as_str(), &now)?;
                match work {
                    Some(work) => {
                        engine.run.journal.put(txn, &key, &engine.journal(work))?;
                        engine.record_host(txn, &part)
                    }
                    None => engine.run.journal.delete(txn, &key).map(|_| ()),
                }
            })
        };
        put(self, &spec, Some(Work::NetworkGrow))?;
        let done = self.carry_out(&plan, || format!("add subnets to network `{name}`"));
        let done = done.and_then(|()| self.state()?.put(&spec));
        put(self, if done.is_ok() { &spec } else { &live.spec }, None)?;
        done.map(|()| spec)
    }

    /// Makes sure of the rules and addresses of a network whose growing was cut off.
    pub(super) fn finish_growing(
        &mut self,
        spec: &NetworkSpec,
        key: &str,
    ) -> Result<(), EngineError> {
        for resource in compile::network(spec) {
            if matches!(resource, Resource::Addr { .. }) {
                let mut plan = Plan::default();
                plan.push(Op::make(&resource), Undo::Irreversible(""), "");
                self.carry_out_all(&plan);
            }
        }
        self.mend(Mode::Apply)?;
        self.state()?.put(spec)?;
        self.run
            .write(|txn| self.run.journal.delete(txn, key).map(|_| ()))
    }

    /// The container of this name, if it is the one its client knows so.
    ///
    /// # Errors
    /// The store's.
    pub fn client_container(
        &mut self,
        name: &ContainerName,
        key: &ClientKey,
    ) -> Result<Option<Container>, EngineError> {
        let is_it = |c: &Container| match &c.client {
            Some(known) if known.is_made_again() => known.interface == key.interface,
            Some(known) => known == key,
            None => c.owner == rebuild::UNKNOWN,
        };
        match self.container(name) {
            Ok(container) => Ok(Some(container).filter(is_it)),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a cable that is marked as this client's container on this network and that the store knows nothing of, and
    /// the interface that it took a way round by.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn remove_lost(
        &mut self,
        client: &str,
        name: &ContainerName,
        network: &NetworkName,
        detour: Option<&IfName>,
    ) -> Result<(), EngineError> {
        let links = self.host_links_now()?;
        if !matches!(self.container(name), Err(EngineError::NotFound(_))) {
            return Ok(());
        }
        let is_its = |link: &LinkInfo| {
            cable_mark(link).is_some_and(|m| {
                (&m.container, &m.network) == (name, network) && m.client.as_deref() == Some(client)
            })
        };
        let is_detour = |l: &LinkInfo| {
            l.kind.as_deref() == Some("ifb") && detour.is_some_and(|d| d.as_str() == l.name)
        };
        let plan = removal(&links, |link| is_its(link) || is_detour(link));
        self.remove_cables(&plan)
    }

    /// Makes the store again if a cable on this network is marked as a container's of this client that it does not know:
    /// whoever decides what goes must know of all that is there.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn rebuild_if_lost(
        &mut self,
        client: &str,
        network: &NetworkName,
    ) -> Result<(), EngineError> {
        self.rebuild_where(|mark| {
            mark.client.as_deref() == Some(client) && mark.network == *network
        })
    }

    /// The same for a container by one of its names, whosever it is.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn rebuild_for(&mut self, names: &[ContainerName]) -> Result<(), EngineError> {
        self.rebuild_where(|mark| names.contains(&mark.container))
    }

    /// Makes the store again if it does not know the container of one of these cables.
    fn rebuild_where(&mut self, asked: impl Fn(&CableMark) -> bool) -> Result<(), EngineError> {
        let links = self.host_links_now()?;
        let known = self.container_names()?;
        let is_lost = |mark: CableMark| asked(&mark) && !known.contains(&mark.container);
        if links.iter().any(|l| cable_mark(l).is_some_and(is_lost)) {
            self.rebuild()?;
        }
        Ok(())
    }

    fn container_names(&mut self) -> Result<HashSet<ContainerName>, EngineError> {
        let all = self.containers()?;
        Ok(all.into_iter().map(|c| c.name).collect())
    }

    /// Removes the cables on a network that are marked as a client's and whose containers the store does not know, nor
    /// the client by one of the names in `valid`.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn remove_all_lost(
        &mut self,
        client: &str,
        network: &NetworkName,
        valid: &HashSet<ContainerName>,
    ) -> Result<(), EngineError> {
        let links = self.host_links_now()?;
        let known = self.container_names()?;
        let is_lost = |mark: CableMark| {
            mark.client.as_deref() == Some(client)
                && mark.network == *network
                && !known.contains(&mark.container)
                && !valid.contains(&mark.container)
        };
        let plan = removal(&links, |link| cable_mark(link).is_some_and(is_lost));
        self.remove_cables(&plan)
    }

    fn remove_cables(&mut self, plan: &Plan) -> Result<(), EngineError> {
        if plan.is_empty() {
            return Ok(());
        }
        self.carry_out_all(plan);
        self.mend(Mode::Apply).map(|_| ())
    }

    /// The hardware address of a link of the host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link_mac(&mut self, name: &IfName) -> Result<Option<Mac>, EngineError> {
        let link = self
            .kernel
            .link(&Netns::Host, name)
            .map_err(|e| failed("look for a link", &e))?;
        Ok(link.and_then(|l| l.mac))
    }

    /// A container's interface, and the host's end of its cable if it is one.
    ///
    /// # Errors
    /// There is no such interface; the kernel's.
    pub fn cable(&mut self, path: &Path, name: &IfName) -> Result<Cable, EngineError> {
        let place = Netns::Path(path.to_owned());
        let look = |e: std::io::Error| failed("look for the container's interface", &e);
        let inside = self.kernel.link(&place, name).map_err(look)?;
        let inside = inside.ok_or_else(|| EngineError::System {
            verb: format!("find interface `{name}` in {}", path.display()),
            detail: "it is not there".to_owned(),
            errno: libc::ENODEV,
        })?;
        let mut host = None;
        if inside.kind.as_deref() == Some("veth") {
            let links = self.kernel.links(&Netns::Host).map_err(look)?;
            host = links
                .iter()
                .find(|l| Some(l.index) == inside.peer && l.peer == Some(inside.index))
                .and_then(|l| l.name.parse().ok());
        }
        Ok(Cable {
            inside: CableEnd(inside.traits),
            host,
        })
    }
}

/// What [`Engine::cable`] found.
#[derive(Debug, Clone)]
pub struct Cable {
    /// The container's end.
    pub inside: CableEnd,
    /// The host's end.
    pub host: Option<IfName>,
}

/// The settings of a cable's end.
#[derive(Debug, Clone)]
pub struct CableEnd(Traits);

impl CableEnd {
    /// The settings that others set.
    pub fn only_what(&self, others: &Traits) -> Traits {
        Traits {
            promisc: self.0.promisc.filter(|_| others.promisc.is_some()),
            allmulti: self.0.allmulti.filter(|_| others.allmulti.is_some()),
            tx_queue: self.0.tx_queue.filter(|_| others.tx_queue.is_some()),
            mac: self.0.mac.filter(|_| others.mac.is_some()),
            mtu: self.0.mtu.filter(|_| others.mtu.is_some()),
            arp: None,
            stp: None,
        }
    }
}
