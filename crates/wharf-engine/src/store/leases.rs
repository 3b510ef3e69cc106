//! Leases: which address is whose.
//!
//! A lease's key is the network's name, a zero byte and the address; its value is the container's name. The
//! cursor of a network's subnet is the address handed out last. Beside the cursors are the addresses that were given back,
//! with the hardware address they were at: connection tracking and neighbours may still know their old owners.

use std::net::IpAddr;

use heed::{RoTxn, RwTxn};
use wharf_core::addr::Mac;
use wharf_core::ipam::{self, Pool};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::{NetworkSpec, Subnet};

use super::RunStore;

/// Whose an address was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldOwner {
    /// The hardware address it was at; `None` if nobody knows.
    pub mac: Option<Mac>,
}

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

/// The key that marks an address as used before. No network has an empty name.
fn used(addr: IpAddr) -> Vec<u8> {
    let mut key = vec![0];
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
        net: &NetworkSpec,
        subnet: &Subnet,
        wanted: Option<IpAddr>,
        container: &ContainerName,
    ) -> Result<IpAddr, LeaseError> {
        let addr = match wanted {
            Some(addr) => self.check_wanted(txn, net, subnet, addr)?,
            None => self.next_free(txn, &net.name, subnet)?,
        };
        self.leases
            .put(txn, &key(&net.name, addr), container.as_str())?;
        Ok(addr)
    }

    /// Leases an address of a set of pools to `container`: the one asked for, which one of the pools must offer, or the
    /// next free one. `is_foreign` answers for addresses that another program has handed out.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn lease_of_pools(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        pools: &[Pool],
        wanted: Option<IpAddr>,
        container: &ContainerName,
        is_foreign: impl Fn(IpAddr) -> bool,
    ) -> Result<(Pool, IpAddr), LeaseError> {
        let first = pools.first().ok_or(LeaseError::Empty)?;
        let cursor = key(network, first.first);
        let last = self.cursors.get(txn, &cursor)?.and_then(address);
        let mut failed = None;
        let mut free = |addr: IpAddr| match self.leases.get(txn, &key(network, addr)) {
            Ok(by) => by.is_none() && !is_foreign(addr),
            Err(error) => {
                failed = Some(error);
                true
            }
        };
        let found = match wanted {
            None => ipam::next_of_pools(pools, last, free),
            Some(addr) => pools
                .iter()
                .find(|p| p.offers(addr) && free(addr))
                .map(|p| (p, addr)),
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        let Some((pool, addr)) = found else {
            return Err(match wanted {
                None => LeaseError::Empty,
                Some(addr) if pools.iter().any(|p| p.gateway == addr) => LeaseError::Taken(None),
                Some(addr) if pools.iter().any(|p| p.offers(addr)) => {
                    let by = self.leases.get(txn, &key(network, addr))?;
                    LeaseError::Taken(Some(by.unwrap_or("another program's").to_owned()))
                }
                Some(_) => LeaseError::Unfit,
            });
        };
        let pool = pool.clone();
        if wanted.is_none() {
            self.cursors.put(txn, &cursor, &octets(addr))?;
        }
        self.leases
            .put(txn, &key(network, addr), container.as_str())?;
        Ok((pool, addr))
    }

    /// Leases an address that somebody else chose.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn lease_given(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        addr: IpAddr,
        container: &ContainerName,
    ) -> Result<(), LeaseError> {
        if let Some(by) = self.leases.get(txn, &key(network, addr))? {
            return Err(LeaseError::Taken(Some(by.to_owned())));
        }
        self.leases
            .put(txn, &key(network, addr), container.as_str())?;
        Ok(())
    }

    fn check_wanted(
        &self,
        txn: &RoTxn,
        net: &NetworkSpec,
        subnet: &Subnet,
        addr: IpAddr,
    ) -> Result<IpAddr, LeaseError> {
        if !ipam::is_usable(subnet.subnet, addr) {
            return Err(LeaseError::Unfit);
        }
        // Of another front end's addresses wharf keeps one back only if it has it itself.
        let kept = !net.is_transient() || net.has_gateway_address(subnet.family());
        if addr == subnet.gateway && kept {
            return Err(LeaseError::Taken(None));
        }
        match self.leases.get(txn, &key(&net.name, addr))? {
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

    /// Gives an address back that was at `mac`, where that is known.
    ///
    /// # Errors
    /// LMDB's.
    pub fn release(
        &self,
        txn: &mut RwTxn,
        network: &NetworkName,
        addr: IpAddr,
        mac: Option<Mac>,
    ) -> heed::Result<()> {
        let was_at = mac.map_or(Vec::new(), |mac| mac.0.to_vec());
        self.cursors.put(txn, &used(addr), &was_at)?;
        self.leases.delete(txn, &key(network, addr)).map(|_| ())
    }

    /// Who had the address before, whatever the network was called, if anyone did. It is told once: whoever asks sees
    /// to what is still under way to the old owner, and gives the address back, which marks it again, if that fails.
    ///
    /// # Errors
    /// LMDB's.
    pub fn take_used(&self, txn: &mut RwTxn, addr: IpAddr) -> heed::Result<Option<OldOwner>> {
        let key = used(addr);
        let Some(was_at) = self.cursors.get(txn, &key)? else {
            return Ok(None);
        };
        let mac = was_at.try_into().ok().map(Mac);
        self.cursors.delete(txn, &key)?;
        Ok(Some(OldOwner { mac }))
    }

    /// Whose an address is.
    ///
    /// # Errors
    /// LMDB's.
    pub fn lease_owner(
        &self,
        txn: &RoTxn,
        network: &NetworkName,
        addr: IpAddr,
    ) -> heed::Result<Option<String>> {
        let by = self.leases.get(txn, &key(network, addr))?;
        Ok(by.map(str::to_owned))
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
