//! Elements of packet rules that several containers have: which ports are published at one address of the host or another
//! (`core/compile/outward.rs`). Such an element comes with the first of them and goes with the last.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use heed::RoTxn;
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{Attachment, Container};
use wharf_core::compile;
use wharf_core::model::Resource;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::nft::{Change, Element, Field, Object};
use wharf_core::op::Op;
use wharf_core::plan::Plan;
use wharf_core::publish::{PortMapping, PortRange, Protocol};

use crate::engine::{Engine, Networks};

/// Ports that were withdrawn.
#[derive(Clone, Copy)]
pub(super) struct Withdrawn<'a> {
    /// The ports.
    pub(super) ports: &'a [PortMapping],
    /// By what they were, and so which elements went; none when publishing them failed and was taken back, with all of
    /// theirs.
    pub(super) plan: Option<&'a Plan>,
}

impl Engine {
    /// What is made for a container and goes with it.
    pub(super) fn resources(
        &self,
        txn: &RoTxn,
        container: &Container,
        nets: &Networks,
    ) -> heed::Result<Vec<Resource>> {
        let network = |name: &NetworkName| nets.get(name);
        let mut all = compile::container(container, network);
        self.keep_shared(txn, &[&container.name], &mut all)?;
        Ok(all)
    }

    /// Takes out of `all`, which is these containers', what others have as well.
    ///
    /// Of those only the published ports are asked for, not whether their networks serve them: at worst an element stays
    /// too long, and keeps flows from a port that is free, until `repair`.
    pub(super) fn keep_shared(
        &self,
        txn: &RoTxn,
        containers: &[&ContainerName],
        all: &mut Vec<Resource>,
    ) -> heed::Result<()> {
        let mut theirs = HashSet::new();
        for (protocol, ports) in asked_for(all) {
            for (owner, mapping) in self.run.ports_within(txn, protocol, ports)? {
                if !containers.contains(&&owner) {
                    let elements = compile::shared(&mapping).into_iter();
                    theirs.extend(elements.map(|e| (e.set, e.key)));
                }
            }
        }
        all.retain(|r| shared(r).is_none_or(|e| !theirs.contains(&(e.set.clone(), e.key.clone()))));
        self.keep_link_local(txn, containers, all)
    }

    /// Takes out of `all` what the guard knows of link-local addresses that others have as well: on different networks two
    /// may have one hardware address. One that follows from the container's IPv4 address is nobody else's.
    fn keep_link_local(
        &self,
        txn: &RoTxn,
        containers: &[&ContainerName],
        all: &mut Vec<Resource>,
    ) -> heed::Result<()> {
        let derived: HashSet<Mac> = all.iter().filter_map(follows_from_ipv4).collect();
        let asked = |r: &Resource| link_local_of(r).filter(|mac| !derived.contains(mac));
        if !all.iter().any(|r| asked(r).is_some()) {
            return Ok(());
        }
        let asked_for: HashSet<Mac> = all.iter().filter_map(asked).collect();
        let mut theirs = HashSet::new();
        for mac in asked_for {
            let others = self.run.with_mac(txn, mac)?;
            let mut others = others.iter().filter(|c| !containers.contains(&&c.name));
            let numbered = |a: &Attachment| a.mac == mac && a.address(Family::V6).is_some();
            if others.any(|other| other.attachments.iter().any(numbered)) {
                theirs.insert(mac);
            }
        }
        all.retain(|r| asked(r).is_none_or(|mac| !theirs.contains(&mac)));
        Ok(())
    }

    /// What makes shared elements right where others came or went since the plan was made: two that went at once have
    /// each left an element to the other, or one that came has found the element that was about to go. To be asked and
    /// done where nobody else writes to the store: whoever comes later makes his elements later.
    pub(super) fn shared_amiss(
        &self,
        txn: &RoTxn,
        withdrawn: Withdrawn<'_>,
    ) -> heed::Result<Vec<Op>> {
        let gone = withdrawn.plan.map(gone_with);
        let mut amiss = Vec::new();
        for mapping in withdrawn.ports {
            let own = compile::shared(mapping);
            if own.is_empty() {
                continue;
            }
            let there = self.run.ports_within(txn, mapping.protocol, mapping.host)?;
            let theirs = there.iter().flat_map(|(_, other)| compile::shared(other));
            let theirs: HashSet<_> = theirs.map(|e| (e.set, e.key)).collect();
            for element in own {
                let id = (element.set.clone(), element.key.clone());
                let object = Object::Element(element);
                let is_gone = gone.as_ref().is_none_or(|gone| gone.contains(&id));
                match (theirs.contains(&id), is_gone) {
                    (true, true) => amiss.push(Op::Nft(vec![Change::Add(object)])),
                    (false, false) => amiss.push(Op::Nft(vec![Change::Del(object)])),
                    _ => {}
                }
            }
        }
        Ok(amiss)
    }
}

/// The shared elements that a plan removes.
fn gone_with(plan: &Plan) -> HashSet<(String, Vec<Field>)> {
    let changes = plan.steps.iter().filter_map(|step| match &step.op {
        Op::Nft(changes) => Some(changes),
        _ => None,
    });
    let removed = changes.flatten().filter_map(|change| match change {
        Change::Del(Object::Element(e)) if compile::is_shared(e) => Some(e),
        _ => None,
    });
    removed.map(|e| (e.set.clone(), e.key.clone())).collect()
}

/// The ports that the shared ones among `all` are about: of each protocol from the lowest to the highest.
fn asked_for(all: &[Resource]) -> HashMap<Protocol, PortRange> {
    let mut asked: HashMap<Protocol, PortRange> = HashMap::new();
    for element in all.iter().filter_map(shared) {
        if let [Field::Proto(protocol), Field::Ports(ports)] = element.key[..] {
            let so_far = asked.entry(protocol).or_insert(ports);
            *so_far = so_far.hull(ports);
        }
    }
    asked
}

/// The hardware address, where it was made of the IPv4 address that the guard knows with it ([`Mac::from_ip`]).
fn follows_from_ipv4(resource: &Resource) -> Option<Mac> {
    let Resource::Nft(Object::Element(e)) = resource else {
        return None;
    };
    match e.key[..] {
        [Field::Mac(mac), Field::Addr(IpAddr::V4(addr))] => {
            (mac == Mac::from_ip(addr.into(), mac.0[1])).then_some(mac)
        }
        _ => None,
    }
}

/// The hardware address of which an element is the link-local address.
fn link_local_of(resource: &Resource) -> Option<Mac> {
    let Resource::Nft(Object::Element(e)) = resource else {
        return None;
    };
    match e.key[..] {
        [Field::Mac(mac), Field::Addr(IpAddr::V6(addr))] => {
            addr.is_unicast_link_local().then_some(mac)
        }
        _ => None,
    }
}

fn shared(resource: &Resource) -> Option<&Element> {
    match resource {
        Resource::Nft(Object::Element(e)) if compile::is_shared(e) => Some(e),
        _ => None,
    }
}
