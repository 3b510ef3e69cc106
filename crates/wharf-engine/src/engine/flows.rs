//! Flows that connection tracking knows and that must be judged anew. Not for: telling who reaches whom, that is in the rules.

use heed::RwTxn;
use wharf_core::attach::Attachment;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::publish::{PortMapping, Protocol};

use crate::engine::Engine;
use crate::error::EngineError;

const NO_WAY_BACK: Undo = Undo::Irreversible("flows are tracked again by themselves");

/// UDP has no handshake: a flow that went to the host itself before goes on past a new mapping until its
/// connection tracking entry is gone.
pub(super) fn flush_udp(ports: &[PortMapping]) -> Plan {
    flush(
        ports.iter().filter(|p| p.protocol == Protocol::Udp),
        "flows from before the mapping",
    )
}

/// Flows that came by a mapping end with it.
pub(super) fn flush_all(ports: &[PortMapping]) -> Plan {
    flush(ports.iter(), "flows of the mapping")
}

impl Engine {
    /// Of addresses that were others' before, neighbours hear when they are there, and what is still under way to those is forgotten before anything of the new
    /// owner is made. Not when the old one goes: connection tracking has to be gone through from end to end, and most
    /// addresses are never used again.
    pub(super) fn forget_old_owners(
        &self,
        txn: &mut RwTxn,
        attachments: &mut [Attachment],
    ) -> Result<Plan, EngineError> {
        let mut addrs = Vec::new();
        for a in attachments {
            for addr in &a.addresses {
                let used = self.run.take_used(txn, addr.addr());
                if used.map_err(|e| self.run.fail(e))? {
                    addrs.push(addr.addr());
                    a.announce = true;
                }
            }
        }
        let mut plan = Plan::default();
        if !addrs.is_empty() {
            plan.push(
                Op::ConntrackForget(addrs),
                NO_WAY_BACK,
                "the addresses were others' before",
            );
        }
        Ok(plan)
    }
}

fn flush<'a>(ports: impl Iterator<Item = &'a PortMapping>, because: &str) -> Plan {
    let mut plan = Plan::default();
    for mapping in ports {
        let op = Op::ConntrackFlush {
            protocol: mapping.protocol,
            host_ip: mapping.bound_to(),
            first: mapping.host.first(),
            last: mapping.host.last(),
        };
        plan.push(op, NO_WAY_BACK, because);
    }
    plan
}
