//! What the kernel should have by what the store says: of networks and containers that nobody is at work on.

use std::collections::{BTreeMap, HashMap, HashSet};

use heed::RoTxn;
use wharf_core::attach::{Container, Phase};
use wharf_core::compile::{self, Unforwarded};
use wharf_core::extras::Traits;
use wharf_core::model::{Hop, Netns, Resource, ResourceKey, RouteMore};
use wharf_core::name::NetworkName;
use wharf_core::network::NetworkSpec;

use crate::engine::docker::{docker, given, known};
use crate::engine::host::{HostPart, backstop, learn_of_host, shared_rules};
use crate::engine::{CLIENT_LABEL, Engine, Networks, identity, journal_key};
use crate::error::EngineError;
use crate::kernel::netlink::NetlinkKernel;
use crate::store::LiveNetwork;

/// What the store says.
#[derive(Default)]
pub(super) struct Desired {
    pub(super) rules: Vec<Resource>,
    /// Rules that may be there or not: of changes that others are making, and of containers that are dead.
    pub(super) allowed: Vec<Resource>,
    /// Of the rules, those that tell of Docker's bridges, and what is told of them and no longer so.
    pub(super) docker: Vec<Resource>,
    pub(super) stale: Vec<Resource>,
    pub(super) rest: Vec<Resource>,
    /// Of these, settings that are anybody's once they were made: plugins behind wharf set others.
    left_open: HashMap<ResourceKey, Resource>,
    /// The routes that the kernel makes with addresses, each with the address and the link that must be there for it.
    pub(super) connected: Vec<Connected>,
    /// Who owns what is refused, and who may have given links other names.
    pub(super) containers: Vec<Container>,
    pub(super) networks: Vec<NetworkSpec>,
    /// Networks whose count of users of the host's loopback is wrong, with the right one.
    pub(super) miscounted: Vec<LiveNetwork>,
}

impl Desired {
    /// With what all networks share.
    pub(super) fn share(&mut self, held: Option<&Unforwarded>, part: &HostPart) {
        self.rules.splice(0..0, shared_rules(held));
        self.rest.splice(0..0, part.sysctls());
        self.rest.splice(0..0, backstop());
    }

    /// With what the rules know of Docker's bridges.
    pub(super) fn beside_docker(&mut self, kernel: &mut NetlinkKernel, held: Option<&Unforwarded>) {
        let found = docker(kernel);
        self.docker = found.elements();
        self.stale = known(kernel);
        self.stale.retain(|r| !self.docker.contains(r));
        if let Some(held) = held {
            self.stale.extend(given(kernel, &found, &held.links));
        }
        self.allowed.extend(self.stale.iter().cloned());
        self.rules.extend(self.docker.iter().cloned());
    }

    /// What a container has besides rules.
    fn add_rest(&mut self, container: &Container, rest: Vec<Resource>) {
        let of_interface = |r: &&Resource| matches!(r, Resource::Sysctl { link: Some(_), .. });
        if container.client.is_some() {
            let open = rest.iter().filter(of_interface);
            self.left_open.extend(open.map(|r| (r.key(), r.clone())));
        }
        self.rest.extend(rest);
    }

    /// Of what is there, settings that were left open are right as they are.
    pub(super) fn leave_open(&self, there: &mut [Resource]) {
        for resource in there {
            if let Some(wanted) = self.left_open.get(&resource.key()) {
                resource.clone_from(wanted);
            }
        }
    }
}

/// A route that the kernel makes when an address is set on a link that is up. Nobody makes it again.
pub(super) struct Connected {
    pub(super) route: Resource,
    pub(super) needs: [ResourceKey; 2],
}

impl Engine {
    /// What should be there.
    pub(super) fn desired(&self, txn: &RoTxn) -> Result<Desired, EngineError> {
        let read = || -> heed::Result<_> {
            let networks = self.run.networks.iter(txn)?;
            let networks: Vec<LiveNetwork> = networks
                .map(|i| i.map(|(_, n)| n))
                .collect::<heed::Result<_>>()?;
            let containers = self.run.containers.iter(txn)?;
            let containers: Vec<Container> = containers
                .map(|i| i.map(|(_, c)| c))
                .collect::<heed::Result<_>>()?;
            let journal = self.run.journal.iter(txn)?;
            let journal: HashSet<String> = journal
                .map(|i| i.map(|(k, _)| k.to_owned()))
                .collect::<heed::Result<_>>()?;
            Ok((networks, containers, journal))
        };
        let (networks, containers, journal) = read().map_err(|e| self.run.fail(e))?;
        let mut desired = Desired::default();
        let mut nets: Networks = networks
            .iter()
            .map(|n| (n.spec.name.clone(), n.spec.clone()))
            .collect();
        learn_of_host(nets.values_mut());
        let network = |name: &NetworkName| nets.get(name);
        for live in &networks {
            let (rules, mut rest) = halves(compile::network(&live.spec));
            as_made(&live.spec, &mut rest);
            if live.busy {
                desired.allowed.extend(rules);
            } else {
                desired.rules.extend(rules);
                desired.connected.extend(connected(&rest));
                desired.rest.extend(rest);
                desired.networks.push(live.spec.clone());
            }
        }
        for container in &containers {
            let key = journal_key(&crate::api::ObjectName::Container(container.name.clone()));
            let (at_work, lives) = (journal.contains(&key), identity::namespace_lives(container));
            let mut whole = container.clone();
            whole
                .attachments
                .iter_mut()
                .for_each(|a| a.phase = Phase::Active);
            let (all, _) = halves(compile::container(&whole, network));
            desired.allowed.extend(all);
            if !lives {
                continue;
            }
            let mut settled = container.clone();
            settled.attachments.retain(|a| a.phase == Phase::Active);
            let (rules, rest) = halves(compile::container(&settled, network));
            desired.rules.extend(rules);
            if !at_work {
                desired.connected.extend(connected(&rest));
                desired.add_rest(container, rest);
                desired.containers.push(settled);
            }
        }
        if journal.is_empty() {
            self.count_again(&networks, &containers, &nets, &mut desired);
        }
        Ok(desired)
    }

    /// How many containers need the host's loopback, and what follows from it.
    fn count_again(
        &self,
        networks: &[LiveNetwork],
        containers: &[Container],
        nets: &Networks,
        desired: &mut Desired,
    ) {
        let mut users: BTreeMap<NetworkName, u32> = BTreeMap::new();
        for container in containers {
            for name in self.loopback_networks(container, nets) {
                *users.entry(name).or_default() += 1;
            }
        }
        for live in networks {
            let count = users.get(&live.spec.name).copied().unwrap_or(0);
            // Plugins behind wharf turn it on as well. A bridge of others', or a parent, has the host's default while nobody
            // needs it.
            let anybodys =
                live.spec.labels.contains_key(CLIENT_LABEL) || !live.spec.has_own_bridge();
            if count > 0 || !anybodys {
                let wanted = compile::route_localnet(&live.spec, count > 0);
                desired.rest.push(wanted);
            }
            if count != live.loopback_users {
                desired.miscounted.push(LiveNetwork {
                    loopback_users: count,
                    ..live.clone()
                });
            }
        }
    }
}

/// Rules, and everything else.
fn halves(all: Vec<Resource>) -> (Vec<Resource>, Vec<Resource>) {
    all.into_iter().partition(|r| matches!(r, Resource::Nft(_)))
}

/// What a bridge is by itself when wharf makes it, and others may have changed. One that was there before is its owner's.
pub(super) fn as_made(net: &NetworkSpec, rest: &mut Vec<Resource>) {
    let link = |r: &Resource| matches!(r, Resource::Link(l) if l.name == net.bridge);
    let Some(at) = rest.iter().position(link).filter(|_| net.found.is_none()) else {
        return;
    };
    let own = Traits {
        arp: Some(true),
        stp: Some(false),
        ..Traits::default()
    };
    match rest.get_mut(at + 1) {
        Some(Resource::Traits { traits, .. }) => {
            *traits = Traits {
                arp: own.arp,
                stp: own.stp,
                ..traits.clone()
            };
        }
        _ => rest.insert(
            at + 1,
            Resource::Traits {
                netns: Netns::Host,
                link: net.bridge.clone(),
                traits: own,
                before: Traits::default(),
            },
        ),
    }
}

/// The routes that the kernel makes with the addresses among `all`.
pub(super) fn connected(all: &[Resource]) -> Vec<Connected> {
    /// `IP6_RT_PRIO_ADDRCONF`.
    const METRIC: u32 = 256;
    let route = |resource: &Resource| {
        let Resource::Addr { netns, link, addr } = resource else {
            return None;
        };
        let up = ResourceKey::Up(netns.clone(), link.clone());
        let route = Resource::Route {
            netns: netns.clone(),
            dst: addr.trunc(),
            hop: Hop::Link,
            link: link.clone(),
            metric: addr.addr().is_ipv6().then_some(METRIC),
            more: RouteMore::default(),
        };
        let whole = addr.prefix_len() == addr.max_prefix_len();
        (!whole).then(|| Connected {
            route,
            needs: [resource.key(), up],
        })
    };
    all.iter().filter_map(route).collect()
}
