//! Leases: which address is whose.
//!
//! A lease's key is the network's name, a zero byte and the address; its value is the container's name. The
//! cursor of a network's subnet is the address handed out last.

use std::net::IpAddr;

use heed::{RoTxn, RwTxn};
use wharf_core::ipam;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::Subnet;

use super::RunStore;

/// Why an address cannot be leased.
#[derive(Debug)]
pub enum LeaseError {
    /// It is somebody's: a container's name, or `None` for the gateway.
    Taken(Option<String>),
    /// It is not an address of the subnet that a container can have.
    Unfit,
    /// All are taken.
    Empty,
    /// LMDB's.
    Store(heed::Error),
}

impl From<heed::Error> for LeaseError {
    fn from(error: heed::Error) -> Self {
        Self::Store(error)
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn key(network: &NetworkName, addr: IpAddr) -> Vec<u8> {
    let mut key = network.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend(octets(addr));
    key
}

impl RunStore {
    /// Leases an address of `subnet` to `container`: the one asked for, or the next free one.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn lease(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        subnet: &Subnet,
        wanted: Option<IpAddr>,
        container: &ContainerName,
    ) -> Result<IpAddr, LeaseError> {
        let addr = match wanted {
            Some(addr) => self.check_wanted(txn, network, subnet, addr)?,
            None => self.next_free(txn, network, subnet)?,
        };
        self.leases
            .put(txn, &key(network, addr), container.as_str())?;
        Ok(addr)
    }

    fn check_wanted(
        &self,
        txn: &RoTxn,
        network: &NetworkName,
        subnet: &Subnet,
        addr: IpAddr,
    ) -> Result<IpAddr, LeaseError> {
        if !ipam::is_usable(subnet.subnet, addr) {
            return Err(LeaseError::Unfit);
        }
        if addr == subnet.gateway {
            return Err(LeaseError::Taken(None));
        }
        match self.leases.get(txn, &key(network, addr))? {
            Some(by) => Err(LeaseError::Taken(Some(by.to_owned()))),
            None => Ok(addr),
        }
    }

    fn next_free(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        subnet: &Subnet,
    ) -> Result<IpAddr, LeaseError> {
        let cursor = key(network, subnet.subnet.network());
        let last = self.cursors.get(txn, &cursor)?.and_then(address);
        let mut failed = None;
        let free = ipam::next_address(subnet.subnet, subnet.ip_range, last, |addr| {
            addr != subnet.gateway
                && match self.leases.get(txn, &key(network, addr)) {
                    Ok(by) => by.is_none(),
                    Err(error) => {
                        failed = Some(error);
                        true
                    }
                }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let addr = free.ok_or(LeaseError::Empty)?;
        self.cursors.put(txn, &cursor, &octets(addr))?;
        Ok(addr)
    }

    /// Gives an address back.
    ///
    /// # Errors
    /// LMDB's.
    pub fn release(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        addr: IpAddr,
    ) -> heed::Result<()> {
        self.leases.delete(txn, &key(network, addr)).map(|_| ())
    }

    /// Writes down whose an address is.
    ///
    /// # Errors
    /// LMDB's.
    pub fn put_lease(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        addr: IpAddr,
        container: &ContainerName,
    ) -> heed::Result<()> {
        self.leases
            .put(txn, &key(network, addr), container.as_str())
    }

    /// Every lease: network, address, container.
    ///
    /// # Errors
    /// LMDB's.
    pub fn all_leases(&self, txn: &RoTxn) -> heed::Result<Vec<(String, IpAddr, String)>> {
        let mut all = Vec::new();
        for item in self.leases.iter(txn)? {
            let (key, container) = item?;
            let split = key.iter().position(|byte| *byte == 0);
            let parts = split.and_then(|at| Some((key.get(..at)?, address(key.get(at + 1..)?)?)));
            if let Some((network, addr)) = parts {
                let network = String::from_utf8_lossy(network).into_owned();
                all.push((network, addr, container.to_owned()));
            }
        }
        Ok(all)
    }
}
