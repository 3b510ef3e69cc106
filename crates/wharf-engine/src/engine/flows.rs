//! What is still known of others: flows that must be judged anew, and neighbours that must be told. Not for: telling who
//! reaches whom, that is in the rules.

use heed::RwTxn;
use ipnet::IpNet;
use wharf_core::attach::Attachment;
use wharf_core::network::NetworkSpec;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::publish::{PortMapping, Protocol};

use crate::engine::{Engine, Networks};
use crate::error::EngineError;

const NO_WAY_BACK: Undo = Undo::Irreversible("flows are tracked again by themselves");

/// UDP has no handshake: a flow that went to the host itself before goes on past a new mapping until its
/// connection tracking entry is gone, and so does one that another container has out from this port. Over TCP and SCTP a
/// peer begins nothing new between ports that have a connection.
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
    /// Of addresses that were others' before, what is still under way to those is forgotten before anything of the new
    /// owner is made. Not when the old one goes: connection tracking has to be gone through from end to end, and most
    /// addresses are never used again.
    ///
    /// Whether neighbours know the address at another hardware address is written into the attachment. On a bridge of
    /// wharf's own an address is nearly always at the same one ([`Mac::from_ip`](wharf_core::addr::Mac::from_ip)), and a
    /// broadcast that nobody needs goes to each container there is.
    pub(super) fn forget_old_owners(
        &self,
        txn: &mut RwTxn,
        attachments: &mut [Attachment],
        nets: &Networks,
    ) -> Result<Plan, EngineError> {
        let mut addrs = Vec::new();
        for a in attachments {
            let net = nets.get(&a.network);
            a.announce = !net.is_some_and(NetworkSpec::is_managed);
            for addr in a.addresses.iter().map(IpNet::addr) {
                let old = self.run.take_used(txn, addr);
                if let Some(old) = old.map_err(|e| self.run.fail(e))? {
                    addrs.push(addr);
                    a.announce |= old.mac != Some(a.mac);
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
