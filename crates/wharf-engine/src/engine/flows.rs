//! Flows that connection tracking knows and that must be judged anew. Not for: telling who reaches whom, that is in the rules.

use wharf_core::attach::Attachment;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::publish::{PortMapping, Protocol};

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

/// Addresses go to others: what is still under way to their old owner does not.
pub(super) fn forget_addresses<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Plan {
    let addrs: Vec<_> = attachments
        .flat_map(|a| a.addresses.iter().map(|addr| addr.addr()))
        .collect();
    let mut plan = Plan::default();
    if !addrs.is_empty() {
        plan.push(
            Op::ConntrackForget(addrs),
            Undo::Irreversible("flows are tracked again by themselves"),
            "the addresses are free for others",
        );
    }
    plan
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
        plan.push(
            op,
            Undo::Irreversible("flows are tracked again by themselves"),
            because,
        );
    }
    plan
}
