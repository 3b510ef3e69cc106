//! Published ports: who has which, found by key.
//!
//! A mapping's key is the protocol, the first host port, the last and the host address; its value the
//! container's name and the mapping's text. Single ports and ranges are kept apart, so that asking for a port
//! looks at the ports asked for and at the ranges, of which there are few.

use std::net::IpAddr;
use std::ops::Bound;

use heed::types::{Bytes, Str};
use heed::{Database, RoTxn, RwTxn};
use wharf_core::name::ContainerName;
use wharf_core::publish::{PortMapping, PortRange, Protocol};

use super::RunStore;

fn key(mapping: &PortMapping) -> Vec<u8> {
    let mut key = vec![mapping.protocol.number()];
    key.extend(mapping.host.first().to_be_bytes());
    key.extend(mapping.host.last().to_be_bytes());
    match mapping.host_ip {
        None => {}
        Some(IpAddr::V4(ip)) => key.extend(ip.octets()),
        Some(IpAddr::V6(ip)) => key.extend(ip.octets()),
    }
    key
}

fn parse(value: &str) -> Option<(ContainerName, PortMapping)> {
    let (container, mapping) = value.split_once(' ')?;
    Some((container.parse().ok()?, mapping.parse().ok()?))
}

impl RunStore {
    fn table(&self, mapping: &PortMapping) -> Database<Bytes, Str> {
        if mapping.host.is_single() {
            self.ports
        } else {
            self.port_ranges
        }
    }

    /// The holder of a mapping that excludes this one.
    ///
    /// # Errors
    /// LMDB's.
    pub fn port_holder(
        &self,
        txn: &RoTxn,
        wanted: &PortMapping,
    ) -> heed::Result<Option<(ContainerName, PortMapping)>> {
        let there = self.ports_within(txn, wanted.protocol, wanted.host)?;
        Ok(there
            .into_iter()
            .find(|(_, theirs)| theirs.conflicts_with(wanted)))
    }

    /// The mappings of host ports of which at least one is among these, at whatever address of the host.
    ///
    /// # Errors
    /// LMDB's.
    pub fn ports_within(
        &self,
        txn: &RoTxn,
        protocol: Protocol,
        ports: PortRange,
    ) -> heed::Result<Vec<(ContainerName, PortMapping)>> {
        let proto = protocol.number();
        let bound = |port: u16, tail: u8| {
            let [hi, lo] = port.to_be_bytes();
            let mut key = vec![proto, hi, lo];
            key.extend([tail; 19]);
            key
        };
        let (low, high) = (bound(ports.first(), 0), bound(ports.last(), 0xff));
        let singles = (Bound::Included(&low[..3]), Bound::Included(high.as_slice()));
        let mut there = Vec::new();
        for item in self.ports.range(txn, &singles)? {
            there.extend(parse(item?.1));
        }
        for item in self.port_ranges.prefix_iter(txn, &[proto])? {
            there.extend(parse(item?.1).filter(|(_, theirs)| theirs.host.overlaps(ports)));
        }
        Ok(there)
    }

    /// Records a mapping as a container's.
    ///
    /// # Errors
    /// LMDB's.
    pub fn take_port(
        &self,
        txn: &mut RwTxn,
        mapping: &PortMapping,
        container: &ContainerName,
    ) -> heed::Result<()> {
        self.table(mapping)
            .put(txn, &key(mapping), &format!("{container} {mapping}"))
    }

    /// Forgets a mapping.
    ///
    /// # Errors
    /// LMDB's.
    pub fn free_port(&self, txn: &mut RwTxn, mapping: &PortMapping) -> heed::Result<()> {
        self.table(mapping).delete(txn, &key(mapping)).map(|_| ())
    }

    /// Every mapping with its container.
    ///
    /// # Errors
    /// LMDB's.
    pub fn all_ports(&self, txn: &RoTxn) -> heed::Result<Vec<(ContainerName, PortMapping)>> {
        let mut all = Vec::new();
        for table in [self.ports, self.port_ranges] {
            for item in table.iter(txn)? {
                all.extend(parse(item?.1));
            }
        }
        Ok(all)
    }
}
