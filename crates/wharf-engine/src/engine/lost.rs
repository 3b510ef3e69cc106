//! What is in the kernel and not in the store, or the other way round: dead owners, lost state, damage.

use wharf_core::addr::Family;
use wharf_core::attach::{Container, Phase};
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::{DEFAULT_NETWORK, NetworkSpec};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_nft::{Family as NftFamily, SetRef};

use crate::api::{ContainerRequest, Mode, Note};
use crate::engine::Engine;
use crate::engine::host::failed;
use crate::error::EngineError;
use crate::observe::LinkInfo;
use crate::process::netns;
use crate::store::LiveNetwork;

impl Engine {
    /// Removes containers whose namespace is provably gone: its path leads to no namespace or to another one,
    /// and the host's ends of their cables have vanished with it. Whether there were any.
    pub(super) fn reclaim_dead(&mut self) -> Result<bool, EngineError> {
        let mut dead = Vec::new();
        for container in self.containers()? {
            if self.is_dead(&container)? {
                dead.push(container.name);
            }
        }
        if dead.is_empty() {
            return Ok(false);
        }
        self.remove(&dead, true, Mode::Apply)?;
        self.notes.extend(
            dead.iter()
                .map(|name| Note::Recovered(format!("container/{name}"))),
        );
        Ok(true)
    }

    fn is_dead(&mut self, container: &Container) -> Result<bool, EngineError> {
        // Somebody is at work on it.
        if container
            .attachments
            .iter()
            .any(|a| a.phase != Phase::Active)
        {
            return Ok(false);
        }
        let lives = match (
            netns::netns_inode(&container.netns.path),
            container.netns.identity,
        ) {
            (Ok(is), Some((_, was))) => is == was,
            (Ok(_), None) => true,
            (Err(_), _) => false,
        };
        if lives {
            return Ok(false);
        }
        for a in &container.attachments {
            let link = self
                .kernel
                .link(&Netns::Host, &a.host_interface)
                .map_err(|e| failed("look for a link", &e))?;
            if link.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The cables of a container that the store does not know, by their aliases.
    pub(super) fn lost_links(&mut self, name: &ContainerName) -> Result<Plan, EngineError> {
        let mark = format!("wharf:{name}:");
        let links = self.host_links_now()?;
        Ok(removal(&links, |link| alias(link).starts_with(&mark)))
    }

    /// The host's links. Whoever asks the store which of them it knows asks after this: a container's record is there
    /// before its links are.
    pub(super) fn host_links_now(&mut self) -> Result<Vec<LinkInfo>, EngineError> {
        let links = self.kernel.links(&Netns::Host);
        links.map_err(|e| failed("list links", &e))
    }

    /// Makes the bridges of a request's networks again if somebody removed them. Whether any was.
    pub(super) fn mend_bridges(&mut self, request: &ContainerRequest) -> Result<bool, EngineError> {
        let default: NetworkName = DEFAULT_NETWORK.parse().expect("a valid name");
        let mut names: Vec<NetworkName> =
            request.networks.iter().map(|a| a.network.clone()).collect();
        if names.is_empty() {
            names.push(default);
        }
        let mut mended = false;
        for name in names {
            let Some(live) = self.live(&name)? else {
                continue;
            };
            let _lock = self.lock_host()?;
            let bridge = self
                .kernel
                .link(&Netns::Host, &live.spec.bridge)
                .map_err(|e| failed("look for a bridge", &e))?;
            if bridge.is_none() {
                let parts: Vec<Resource> = compile::network(&live.spec)
                    .into_iter()
                    .filter(|r| !matches!(r, Resource::Nft(_)))
                    .collect();
                self.carry_out(&diff(&parts, &[], "the bridge is gone"), || {
                    format!("make the bridge of network `{name}` again")
                })?;
                self.run.write(|txn| {
                    self.run.networks.put(
                        txn,
                        name.as_str(),
                        &LiveNetwork {
                            loopback_users: 0,
                            ..live.clone()
                        },
                    )
                })?;
                self.notes.push(Note::Recovered(format!("network/{name}")));
                mended = true;
            }
        }
        Ok(mended)
    }

    /// With an empty run store, what the kernel still holds of wharf is taken over: networks whose bridge is
    /// there, with the hardware address they were given, and forwarding that wharf turned on.
    pub(super) fn take_over(&mut self) -> Result<(), EngineError> {
        let ours = |t: &wharf_nft::Table| {
            t.family == NftFamily::Inet && t.name == wharf_core::nft::Table::NAME
        };
        let tables = self
            .kernel
            .nftables()
            .and_then(|nft| nft.dump_tables())
            .unwrap_or_default();
        if !tables.iter().any(ours) {
            return Ok(());
        }
        let links = self
            .kernel
            .links(&Netns::Host)
            .map_err(|e| failed("list links", &e))?;
        let is_there = |n: &NetworkSpec| {
            links
                .iter()
                .any(|l| l.name == n.bridge.as_str() && l.mac == Some(n.bridge_mac))
        };
        let nets: Vec<NetworkSpec> = self
            .state()?
            .networks()?
            .into_iter()
            .filter(is_there)
            .collect();
        let set = SetRef::new(NftFamily::Inet, wharf_core::nft::Table::NAME, "host_links");
        let elements = self
            .kernel
            .nftables()
            .and_then(|nft| nft.dump_elements(&set))
            .unwrap_or_default();
        let name = |key: &[u8]| {
            String::from_utf8_lossy(key)
                .trim_end_matches('\0')
                .parse::<IfName>()
                .ok()
        };
        let host_links: Vec<IfName> = elements.iter().filter_map(|e| name(&e.key)).collect();
        let routed: Vec<Family> = Family::BOTH
            .into_iter()
            .filter(|f| {
                !host_links.is_empty() && nets.iter().any(|n| !n.internal && n.subnet(*f).is_some())
            })
            .collect();
        let mut heard = Vec::new();
        if routed.contains(&Family::V6) {
            for key in self.accept_ra_keys()? {
                let name = key.split('/').nth(3).unwrap_or_default();
                if host_links.iter().any(|l| l.as_str() == name)
                    && self.sysctl(&key).as_deref() == Some("2")
                {
                    heard.push(key);
                }
            }
        }
        self.run.write(|txn| {
            for spec in &nets {
                let live = LiveNetwork {
                    spec: spec.clone(),
                    loopback_users: 0,
                    busy: false,
                };
                self.run.networks.put(txn, spec.name.as_str(), &live)?;
            }
            self.record_taken_over(txn, &host_links, &routed, &heard)
        })?;
        self.notes.extend(
            nets.iter()
                .map(|n| Note::Recovered(format!("network/{}", n.name))),
        );
        Ok(())
    }
}

/// The removal of links that the store knows nothing of.
pub(super) fn removal(links: &[LinkInfo], is_lost: impl Fn(&LinkInfo) -> bool) -> Plan {
    let mut plan = Plan::default();
    for link in links.iter().filter(|l| is_lost(l)) {
        let Ok(link) = link.name.parse::<IfName>() else {
            continue;
        };
        let netns = Netns::Host;
        plan.push(
            Op::LinkDel { netns, link },
            Undo::Irreversible("the store does not know what it was"),
            "it is marked as a container's of wharf",
        );
    }
    plan
}

/// A link's alias, or nothing.
pub(super) fn alias(link: &LinkInfo) -> &str {
    link.alias.as_deref().unwrap_or_default()
}
