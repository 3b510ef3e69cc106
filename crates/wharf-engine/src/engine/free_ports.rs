//! Ports of the host that are left to wharf: those asked for become mappings, with free ports where none were named.
//!
//! The lowest that nobody has is taken, so that a dry run tells what a call just behind it does. Ports that were asked for
//! by number are judged in `ports.rs`.

use std::io;

use heed::RoTxn;
use wharf_core::compile;
use wharf_core::network::NetworkSpec;
use wharf_core::publish::{HostPorts, PortMapping, PortRange, PortRequest};

use crate::api::Note;
use crate::engine::host::failed;
use crate::engine::{Engine, Networks};
use crate::error::EngineError;
use crate::kernel::netlink::sysctl;
use crate::observe::{Listener, listener_on};

impl Engine {
    /// What these ports are published as. Chosen while `txn` keeps everybody else from taking ports.
    pub(super) fn choose_ports(
        &self,
        txn: &RoTxn,
        wanted: &[PortRequest],
        nets: &Networks,
    ) -> Result<Vec<PortMapping>, EngineError> {
        let mut taken: Vec<PortMapping> = exact(wanted);
        let mut ports = Vec::new();
        for request in wanted {
            let mapping = match request.exact() {
                Some(mapping) => mapping,
                None => {
                    let chosen = self.choose(txn, request, &taken, nets)?;
                    taken.push(chosen);
                    chosen
                }
            };
            ports.push(mapping);
        }
        Ok(ports)
    }

    fn choose(
        &self,
        txn: &RoTxn,
        request: &PortRequest,
        taken: &[PortMapping],
        nets: &Networks,
    ) -> Result<PortMapping, EngineError> {
        let any = ports_for_anybody();
        let among = match request.host {
            HostPorts::These(host) | HostPorts::OneOf(host) => host,
            HostPorts::Any => any,
        };
        let held = self.run.ports_within(txn, request.protocol, among);
        let held = held.map_err(|e| self.run.fail(e))?;
        let held: Vec<PortMapping> = held.into_iter().map(|(_, mapping)| mapping).collect();
        let binding = binding(nets);
        for mapping in request.choices(any) {
            let theirs = held.iter().chain(taken);
            if theirs.clone().any(|other| other.conflicts_with(&mapping)) {
                continue;
            }
            let listener = listener(&mapping, binding);
            if listener
                .map_err(|e| failed("list the host's listeners", &e))?
                .is_none()
            {
                return Ok(mapping);
            }
        }
        Err(EngineError::NoFreePort {
            wanted: *request,
            among,
        })
    }
}

/// Who of the host's processes would lose packets to a mapping.
pub(super) fn listener(
    mapping: &PortMapping,
    binding: Option<&NetworkSpec>,
) -> io::Result<Option<Listener>> {
    let bound = binding.map_or(*mapping, |net| compile::bind(net, mapping));
    listener_on(bound.protocol, bound.host, bound.host_ip)
}

/// The ports that the host gives to programs that ask for none (Documentation/networking/ip-sysctl.rst).
fn ports_for_anybody() -> PortRange {
    const KERNELS: (u16, u16) = (32768, 60999);
    let set = sysctl::get("net/ipv4/ip_local_port_range").ok();
    let set = set.and_then(|text| {
        let mut ends = text.split_whitespace().map(str::parse);
        PortRange::new(ends.next()?.ok()?, ends.next()?.ok()?)
    });
    let (first, last) = KERNELS;
    set.or_else(|| PortRange::new(first, last))
        .expect("a range of ports")
}

/// Those of which nothing is left to be chosen.
pub(super) fn exact(wanted: &[PortRequest]) -> Vec<PortMapping> {
    wanted.iter().filter_map(PortRequest::exact).collect()
}

/// The network that says at which of the host's addresses ports are published.
pub(super) fn binding(nets: &Networks) -> Option<&NetworkSpec> {
    nets.values().find(|net| !net.internal)
}

/// What is to be told of ports that were chosen.
pub(super) fn chosen(wanted: &[PortRequest], ports: &[PortMapping]) -> Vec<Note> {
    let pairs = wanted.iter().zip(ports);
    let left = pairs.filter(|(request, _)| request.exact().is_none());
    left.map(|(request, mapping)| Note::PortChosen(*request, *mapping))
        .collect()
}
