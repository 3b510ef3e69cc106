//! Containers written, and found by hardware address.
//!
//! A hardware address that follows from an IPv4 address of the same attachment is found by that address's lease. Of the
//! others `meta` holds a key for each address and container, so that asking costs the same however many there are.

use std::collections::BTreeSet;

use heed::types::DecodeIgnore;
use heed::{RoTxn, RwTxn};
use wharf_core::addr::{Family, Mac};
use wharf_core::attach::{Attachment, Container};
use wharf_core::name::{ContainerName, NetworkName};

use super::RunStore;

/// Where those keys begin; the hardware address and the container's name follow.
const MAC: &str = "mac ";

fn key(mac: Mac, name: &ContainerName) -> String {
    format!("{MAC}{mac} {name}")
}

impl RunStore {
    /// Writes a container, in place of what was known of it.
    ///
    /// # Errors
    /// LMDB's.
    pub fn put_container(&self, txn: &mut RwTxn, container: &Container) -> heed::Result<()> {
        let name = &container.name;
        let before = self.containers.get(txn, name.as_str())?;
        let now: Vec<Mac> = unforeseen(container).collect();
        for mac in before.iter().flat_map(unforeseen) {
            if !now.contains(&mac) {
                self.meta.delete(txn, &key(mac, name))?;
            }
        }
        for mac in now {
            self.meta.put(txn, &key(mac, name), "")?;
        }
        self.containers.put(txn, name.as_str(), container)
    }

    /// Forgets a container; false if none of that name is known.
    ///
    /// # Errors
    /// LMDB's.
    pub fn delete_container(&self, txn: &mut RwTxn, name: &ContainerName) -> heed::Result<bool> {
        let Some(before) = self.containers.get(txn, name.as_str())? else {
            return Ok(false);
        };
        for mac in unforeseen(&before) {
            self.meta.delete(txn, &key(mac, name))?;
        }
        self.containers.delete(txn, name.as_str())
    }

    /// The container that has this hardware address on this network.
    ///
    /// # Errors
    /// LMDB's.
    pub fn mac_owner(
        &self,
        txn: &RoTxn,
        network: &NetworkName,
        mac: Mac,
    ) -> heed::Result<Option<ContainerName>> {
        let has = |c: &Container| c.attachment(network).is_some_and(|a| a.mac == mac);
        let mut names = self.named_with(txn, mac)?;
        if let Some(addr) = mac.ipv4() {
            names.extend(self.lease_owner(txn, network, addr.into())?);
        }
        for name in names {
            let found = self.containers.get(txn, &name)?.filter(has);
            if let Some(container) = found {
                return Ok(Some(container.name));
            }
        }
        Ok(None)
    }

    /// The containers that have this hardware address on some network.
    ///
    /// # Errors
    /// LMDB's.
    pub fn with_mac(&self, txn: &RoTxn, mac: Mac) -> heed::Result<Vec<Container>> {
        let mut names: BTreeSet<String> = self.named_with(txn, mac)?.into_iter().collect();
        if let Some(addr) = mac.ipv4() {
            for item in self.networks.remap_data_type::<DecodeIgnore>().iter(txn)? {
                let Ok(network) = item?.0.parse() else {
                    continue;
                };
                names.extend(self.lease_owner(txn, &network, addr.into())?);
            }
        }
        let has = |c: &Container| c.attachments.iter().any(|a| a.mac == mac);
        let mut found = Vec::new();
        for name in names {
            found.extend(self.containers.get(txn, &name)?.filter(has));
        }
        Ok(found)
    }

    fn named_with(&self, txn: &RoTxn, mac: Mac) -> heed::Result<Vec<String>> {
        let prefix = format!("{MAC}{mac} ");
        let keys = self.meta.prefix_iter(txn, &prefix)?;
        keys.map(|item| Ok(item?.0[prefix.len()..].to_owned()))
            .collect()
    }
}

/// The hardware addresses of a container that do not follow from its IPv4 addresses.
fn unforeseen(container: &Container) -> impl Iterator<Item = Mac> + '_ {
    let follows = |a: &&Attachment| {
        let addr = a.address(Family::V4).map(|net| net.addr());
        addr.is_some_and(|addr| a.mac == Mac::from_ip(addr, a.mac.0[1]))
    };
    let others = container.attachments.iter().filter(move |a| !follows(a));
    others.map(|a| a.mac)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;
    use wharf_core::network::{HostFacts, NetworkRequest, resolve};

    use super::*;
    use crate::store::LiveNetwork;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn store(name: &str) -> (Dir, RunStore) {
        let name = format!("wharf-containers-{}-{name}", std::process::id());
        let dir = Dir(std::env::temp_dir().join(name));
        let store = RunStore::open(&dir.0).unwrap();
        (dir, store)
    }

    /// A container with one attachment for each network, hardware address and address.
    fn container(name: &str, joined: &[(&str, &str, &str)]) -> Container {
        let attachments: Vec<_> = joined
            .iter()
            .map(|(network, mac, addr)| {
                json!({
                    "network": network, "interface": "eth0", "host_interface": "v0", "mac": mac,
                    "addresses": [addr], "gateways": [], "default_routes": [], "gw_priority": 0, "phase": "active",
                })
            })
            .collect();
        let record = json!({
            "name": name, "id": "0", "owner": "cli", "process": null, "ports": [], "created": 0,
            "netns": {"path": "/n", "identity": null, "made_by_wharf": false},
            "attachments": attachments,
        });
        serde_json::from_value(record).unwrap()
    }

    fn put(store: &RunStore, container: &Container) {
        let written = store.write(|txn| {
            for a in &container.attachments {
                for addr in &a.addresses {
                    store.put_lease(txn, &a.network, addr.addr(), &container.name)?;
                }
            }
            store.put_container(txn, container)
        });
        written.unwrap();
    }

    fn owner(store: &RunStore, network: &str, mac: &str) -> Option<String> {
        let (network, mac) = (network.parse().unwrap(), mac.parse().unwrap());
        let owner = store.read(|txn| store.mac_owner(txn, &network, mac));
        owner.unwrap().map(|name| name.to_string())
    }

    fn with(store: &RunStore, mac: &str) -> Vec<String> {
        let found = store.read(|txn| store.with_mac(txn, mac.parse().unwrap()));
        found.unwrap().iter().map(|c| c.name.to_string()).collect()
    }

    #[test]
    fn hardware_addresses_have_owners() {
        const DERIVED: &str = "02:07:0a:00:00:02";
        const CHOSEN: &str = "0e:00:00:00:00:01";
        let (_dir, store) = store("owners");
        for name in ["n", "m"] {
            let mut request = NetworkRequest::new(name.parse().unwrap());
            request.subnets = vec!["10.0.0.0/24".parse().unwrap()];
            let live = LiveNetwork {
                spec: resolve(&request, &[], &HostFacts::default()).unwrap(),
                loopback_users: 0,
                busy: false,
            };
            store
                .write(|txn| store.networks.put(txn, name, &live))
                .unwrap();
        }
        put(&store, &container("a", &[("n", DERIVED, "10.0.0.2/24")]));
        put(&store, &container("b", &[("n", CHOSEN, "10.0.0.3/24")]));
        let of_c = [("m", CHOSEN, "10.0.0.2/24"), ("n", DERIVED, "fd00::2/64")];
        put(&store, &container("c", &of_c));
        assert_eq!(owner(&store, "n", CHOSEN).as_deref(), Some("b"));
        assert_eq!(owner(&store, "m", CHOSEN).as_deref(), Some("c"));
        assert_eq!(owner(&store, "m", DERIVED), None);
        assert_eq!(with(&store, CHOSEN), ["b", "c"]);
        assert_eq!(with(&store, DERIVED), ["a", "c"]);
        // A network is left, a container goes.
        put(&store, &container("c", &of_c[..1]));
        assert_eq!(with(&store, DERIVED), ["a"]);
        let b = "b".parse().unwrap();
        let gone = |txn: &mut RwTxn| store.delete_container(txn, &b);
        assert!(store.write(gone).unwrap());
        assert!(!store.write(gone).unwrap());
        assert_eq!(with(&store, CHOSEN), ["c"]);
        assert_eq!(owner(&store, "n", CHOSEN), None);
        // Nothing of it is left.
        for name in ["a", "c"] {
            let name = name.parse().unwrap();
            store
                .write(|txn| store.delete_container(txn, &name))
                .unwrap();
        }
        assert_eq!(store.read(|txn| store.meta.len(txn)).unwrap(), 0);
    }
}
