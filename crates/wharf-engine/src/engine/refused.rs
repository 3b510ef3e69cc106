//! Going on after what the kernel refuses, and telling whose it is.

use wharf_core::attach::Container;
use wharf_core::model::Netns;
use wharf_core::network::NetworkSpec;
use wharf_core::op::Op;
use wharf_core::plan::Plan;

use crate::api::Unmended;
use crate::error::EngineError;
use crate::kernel::{Kernel, OpError};

/// Carries out every step, going on after failures, which it gives.
pub(super) fn apply_each(kernel: &mut dyn Kernel, plan: &Plan) -> Vec<OpError> {
    let ops: Vec<&Op> = plan.steps.iter().map(|s| &s.op).collect();
    let Err(together) = kernel.apply(&ops) else {
        return Vec::new();
    };
    let left = ops.iter().zip(together.applied).filter(|(_, done)| !done);
    let again = left.map(|(op, _)| kernel.apply(&[op]));
    again
        .filter_map(|done| done.err().map(|e| e.error))
        .collect()
}

/// Carries out every step, going on after failures, of which the first of each owner is the error.
pub(super) fn apply_all(kernel: &mut dyn Kernel, plan: &Plan) -> Result<(), EngineError> {
    let refused = apply_each(kernel, plan);
    match refused.is_empty() {
        true => Ok(()),
        false => Err(EngineError::Left {
            verb: "remove".to_owned(),
            left: unmended(&refused, &[], &[]),
        }),
    }
}

/// The first refusal of each owner: others of the same are likely to follow from it.
pub(super) fn unmended(
    refused: &[OpError],
    containers: &[Container],
    networks: &[NetworkSpec],
) -> Vec<Unmended> {
    let mut left: Vec<Unmended> = Vec::new();
    for error in refused {
        let whose = whose(&error.op, containers, networks);
        if !left.iter().any(|l| l.whose == whose) {
            let error = error.clone();
            left.push(Unmended { whose, error });
        }
    }
    left
}

fn whose(op: &Op, containers: &[Container], networks: &[NetworkSpec]) -> String {
    let place = op.netns();
    let link = op.link();
    let mut nets = networks.iter();
    let has = |c: &&Container| {
        let inside = matches!(place, Netns::Path(path) if *path == c.netns.path);
        let mut own = c.attachments.iter();
        inside || *place == Netns::Host && own.any(|a| Some(&a.host_interface) == link)
    };
    if let Some(container) = containers.iter().find(has) {
        return format!("container `{}`", container.name);
    }
    match nets.find(|n| *place == Netns::Host && Some(&n.bridge) == link) {
        Some(net) => format!("network `{}`", net.name),
        None => "the host".to_owned(),
    }
}
