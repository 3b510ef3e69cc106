//! Elements of packet rules that several containers have: which ports are published at one address of the host or another
//! (`core/compile/outward.rs`). Such an element comes with the first of them and goes with the last.

use std::collections::{HashMap, HashSet};

use heed::RoTxn;
use wharf_core::attach::Container;
use wharf_core::compile;
use wharf_core::model::Resource;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::nft::{Element, Field, Object};
use wharf_core::publish::{PortRange, Protocol};

use crate::engine::{Engine, Networks};

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
        Ok(())
    }
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

fn shared(resource: &Resource) -> Option<&Element> {
    match resource {
        Resource::Nft(Object::Element(e)) if compile::is_shared(e) => Some(e),
        _ => None,
    }
}
