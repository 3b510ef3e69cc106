//! Ports that nobody reaches because wharf's rules are not as it made them.

use crate::trace::changed::{Changed, Passing, behind, may_follow};
use crate::trace::state::ObservedState;

use super::{Exposure, PublishedPort, Reach, differs};

impl Exposure {
    /// Whether rules that are not as they should be could be why something is closed.
    pub fn is_of_rules(&self) -> bool {
        let mut reach = self.ports.iter().flat_map(|p| &p.reach);
        reach.any(|r| r.cause.as_ref().is_some_and(may_follow))
    }

    /// Puts the changed rules in the place of what follows from them.
    pub fn settle(&mut self, state: &ObservedState, changed: &[Changed]) {
        for port in &mut self.ports {
            let found: Vec<_> = port
                .reach
                .iter()
                .map(|reach| {
                    let cause = reach.cause.as_ref()?;
                    behind(cause, &passing(state, port, reach), changed)
                })
                .collect();
            for (reach, cause) in port.reach.iter_mut().zip(found) {
                reach.cause = cause.or(reach.cause.take());
            }
            port.differs = differs::all(state, port);
        }
    }
}

fn passing(state: &ObservedState, port: &PublishedPort, reach: &Reach) -> Passing {
    let Some(l4) = port.asked.l4 else {
        return Passing::default();
    };
    let ports = [port.asked.port, port.asked.inside];
    let mut passing = Passing::to(l4, &ports).at(reach.ip);
    for name in port.container.iter().chain(&reach.by) {
        passing.by(state, name);
    }
    passing
}
