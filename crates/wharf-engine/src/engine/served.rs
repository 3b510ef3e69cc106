//! Published ports that would answer nobody: no network of the container carries their family.

use wharf_core::attach::Container;
use wharf_core::compile;
use wharf_core::network::OWNER;
use wharf_core::publish::PortMapping;

use crate::api::Note;
use crate::engine::{Engine, Networks};
use crate::error::EngineError;

impl Engine {
    /// Refuses ports of which none would answer anybody. Clients get a note instead, as their users are used to, and so
    /// does who publishes on internal networks, where ports are accepted as Docker accepts them.
    pub(super) fn check_served(
        &self,
        container: &Container,
        ports: &[PortMapping],
        nets: &Networks,
    ) -> Result<Vec<Note>, EngineError> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let mut own = container.attachments.iter();
        if own.all(|a| nets.get(&a.network).is_some_and(|n| n.internal)) {
            return Ok(vec![Note::PortsIgnored(container.name.clone())]);
        }
        let unserved = compile::unserved(container, ports, |name| nets.get(name));
        if unserved.len() == ports.len() && container.owner == OWNER {
            return Err(EngineError::PortUnserved {
                container: container.name.clone(),
                mapping: unserved[0],
            });
        }
        let note = |mapping| Note::PortUnserved(container.name.clone(), mapping);
        Ok(unserved.into_iter().map(note).collect())
    }

    /// The ports that a container's change of networks leaves without anybody who reaches them.
    pub(super) fn no_longer_served(
        before: &Container,
        after: &Container,
        nets: &Networks,
    ) -> Vec<Note> {
        let unserved = |c| compile::unserved(c, &after.ports, |name| nets.get(name));
        let earlier = unserved(before);
        let lost = unserved(after).into_iter().filter(|p| !earlier.contains(p));
        lost.map(|mapping| Note::PortUnserved(after.name.clone(), mapping))
            .collect()
    }
}
