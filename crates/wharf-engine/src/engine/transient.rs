//! Networks whose definition is kept by a front end's caller: there as long as containers are on them.

use std::net::IpAddr;

use heed::types::Bytes;
use wharf_core::attach::Container;
use wharf_core::model::Netns;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{NetworkError, NetworkRequest, NetworkSpec, resolve};

use crate::api::{Mode, ObjectName};
use crate::engine::host::failed;
use crate::engine::{Engine, Networks, rebuild};
use crate::error::EngineError;
use crate::store::LiveNetwork;

impl Engine {
    /// Sees to it that a network is up as its owner defines it, and gives its definition. By its id it is known
    /// again; one that is in use stays as it is.
    ///
    /// # Errors
    /// It cannot be as defined, or the name is another network's; the kernel's, the store's.
    pub fn transient_ensure(
        &mut self,
        request: &NetworkRequest,
    ) -> Result<NetworkSpec, EngineError> {
        let id = request.id.as_deref().unwrap_or_default();
        if let Some(live) = self.live_by_id(&request.owner, id)? {
            if live.busy {
                return Err(EngineError::Busy(ObjectName::Network(live.spec.name)));
            }
            if is_as_asked(&live.spec, request) || self.has_users(&live.spec.name)? {
                return Ok(live.spec);
            }
            self.remove_one(&live.spec)?;
        }
        let lock = self.lock_host()?;
        // Whoever had the lock may have made it.
        if let Some(live) = self.live_by_id(&request.owner, id)? {
            return Ok(live.spec);
        }
        let mut existing: Vec<NetworkSpec> = self.networks()?.into_iter().map(|v| v.spec).collect();
        // It is the one that was made again from the kernel, without knowledge of its owner.
        let rebuilt = |n: &NetworkSpec| {
            n.name == request.name
                && request.bridge.as_ref() == Some(&n.bridge)
                && n.labels.contains_key(rebuild::REBUILT_LABEL)
        };
        let taken_back = existing.iter().any(rebuilt);
        existing.retain(|n| !rebuilt(n));
        let mut facts = self.host_facts()?;
        let named = |error| EngineError::Network {
            name: request.name.clone(),
            error,
        };
        match (resolve(request, &existing, &facts), &request.bridge) {
            (Ok(spec), _) => self.bring_up(&spec, Mode::Apply, false).map(|_| spec),
            (Err(error @ NetworkError::BridgeTaken(_)), Some(bridge))
            | (Err(error @ NetworkError::OverlapsLink { .. }), Some(bridge)) => {
                let mut without = facts.clone();
                without.forget_link(bridge);
                let spec = resolve(request, &existing, &without).map_err(named)?;
                if !self.was_made_by_wharf(&spec)? {
                    let found = self.resolve_on_found(request, bridge, &existing, &mut facts)?;
                    let spec = match found {
                        Err(NetworkError::BridgeTaken(_)) => return Err(named(error)),
                        found => found.map_err(named)?,
                    };
                    return self.bring_up(&spec, Mode::Apply, false).map(|_| spec);
                }
                self.adopt(&spec)?;
                if taken_back {
                    self.state()?.delete(spec.name.as_str())?;
                }
                drop(lock);
                self.mend(Mode::Apply)?;
                Ok(spec)
            }
            (Err(error), _) => Err(named(error)),
        }
    }

    /// The bridge is one that the lost store knew: it has the address that wharf gives.
    fn was_made_by_wharf(&mut self, spec: &NetworkSpec) -> Result<bool, EngineError> {
        let link = self
            .kernel
            .link(&Netns::Host, &spec.bridge)
            .map_err(|e| failed("look for a bridge", &e))?;
        Ok(link
            .is_some_and(|l| l.kind.as_deref() == Some("bridge") && l.mac == Some(spec.bridge_mac)))
    }

    /// The network that an owner knows by this id, if it is up.
    ///
    /// # Errors
    /// The store's.
    pub fn network_by_id(
        &mut self,
        owner: &str,
        id: &str,
    ) -> Result<Option<NetworkSpec>, EngineError> {
        Ok(self.live_by_id(owner, id)?.map(|live| live.spec))
    }

    /// The network of this name and bridge, if it was made again from the kernel, without knowledge of its owner.
    ///
    /// # Errors
    /// The store's.
    pub fn network_made_again(
        &mut self,
        name: &NetworkName,
        bridge: &str,
    ) -> Result<Option<NetworkSpec>, EngineError> {
        let live = self.live(name)?.map(|live| live.spec);
        Ok(live.filter(|n| {
            n.labels.contains_key(rebuild::REBUILT_LABEL) && n.bridge.as_str() == bridge
        }))
    }

    fn live_by_id(&self, owner: &str, id: &str) -> Result<Option<LiveNetwork>, EngineError> {
        self.run.read(|txn| {
            for item in self.run.networks.iter(txn)? {
                let live = item?.1;
                if live.spec.owner == owner && live.spec.id == id {
                    return Ok(Some(live));
                }
            }
            Ok(None)
        })
    }

    pub(super) fn has_users(&self, name: &NetworkName) -> Result<bool, EngineError> {
        self.run.read(|txn| {
            for item in self.run.containers.iter(txn)? {
                if item?.1.attachment(name).is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// The container that an owner knows by this id.
    ///
    /// # Errors
    /// The store's.
    pub fn container_by_id(
        &mut self,
        owner: &str,
        id: &str,
        likely: &ContainerName,
    ) -> Result<Option<Container>, EngineError> {
        let is_it = |c: &Container| c.owner == owner && c.id == id;
        self.run.read(|txn| {
            if let Some(found) = self.run.containers.get(txn, likely.as_str())?
                && (is_it(&found) || found.owner == rebuild::UNKNOWN)
            {
                return Ok(Some(found));
            }
            // Most records are not read in full: the id stands in them as it is.
            let raw = self.run.containers.remap_data_type::<Bytes>();
            for item in raw.iter(txn)? {
                let (name, record) = item?;
                if record
                    .windows(id.len().max(1))
                    .any(|part| part == id.as_bytes())
                    && let Some(container) = self.run.containers.get(txn, name)?
                    && is_it(&container)
                {
                    return Ok(Some(container));
                }
            }
            Ok(None)
        })
    }

    /// The addresses of a link of the host, link-local ones apart.
    ///
    /// # Errors
    /// The kernel's.
    pub fn host_addresses(&mut self, name: &IfName) -> Result<Vec<IpAddr>, EngineError> {
        let failed = |e: std::io::Error| failed("read the host's addresses", &e);
        let link = self.kernel.link(&Netns::Host, name).map_err(failed)?;
        let all = self.kernel.addrs(&Netns::Host).map_err(failed)?;
        let of_link = all
            .iter()
            .filter(|(index, _)| link.as_ref().is_some_and(|l| l.index == *index));
        let local = |addr: &IpAddr| match addr {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let addresses = of_link.map(|(_, net)| net.addr());
        Ok(addresses.filter(|addr| !local(addr)).collect())
    }

    /// Removes those of `nets` that go with their last container and have none.
    ///
    /// # Errors
    /// The kernel's, the store's.
    pub fn release_unused(&mut self, nets: &[NetworkSpec]) -> Result<(), EngineError> {
        for spec in nets.iter().filter(|n| n.is_transient()) {
            let live = self.live(&spec.name)?;
            if live.is_none_or(|l| l.busy || l.spec.id != spec.id) || self.has_users(&spec.name)? {
                continue;
            }
            match self.remove_one(spec) {
                // Somebody came in between, or is doing the same.
                Ok(_) | Err(EngineError::NetworkInUse { .. } | EngineError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, nets: &Networks) -> Result<(), EngineError> {
        let nets: Vec<NetworkSpec> = nets.values().cloned().collect();
        self.release_unused(&nets)
    }
}

/// Whether nothing that a definition says has changed.
fn is_as_asked(spec: &NetworkSpec, request: &NetworkRequest) -> bool {
    let subnets: Vec<_> = spec.subnets.iter().map(|s| s.subnet).collect();
    spec.driver == request.driver
        && spec.internal == request.internal
        && spec.options == request.options
        && spec.routes == request.routes
        && spec.dns_port == request.dns_port
        && request.bridge.as_ref().is_none_or(|b| *b == spec.bridge)
        && request.subnets.len() == subnets.len()
        && request.subnets.iter().all(|net| subnets.contains(net))
        && request
            .gateways
            .iter()
            .all(|gateway| spec.subnets.iter().any(|s| s.gateway == *gateway))
}
