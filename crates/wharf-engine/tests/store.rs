//! The store against a model that could not be simpler: a map of addresses and a list of mappings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use wharf_core::ipam;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::{HostFacts, NetworkRequest, NetworkSpec, Subnet, resolve};
use wharf_core::publish::PortMapping;
use wharf_engine::store::{LeaseError, RunStore};

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wharf-store-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// An address: the n-th of the subnet, or any.
    Lease {
        net: usize,
        who: usize,
        wanted: Option<u8>,
    },
    Release {
        net: usize,
        n: u8,
    },
    Take {
        who: usize,
        mapping: usize,
    },
    Free {
        mapping: usize,
    },
    /// What the next step does is not committed.
    Abort,
    /// The process ends and another begins.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..3usize, prop::option::of(0..9u8)).prop_map(|(net, who, wanted)| Step::Lease { net, who, wanted }),
        3 => (0..3usize, 0..9u8).prop_map(|(net, n)| Step::Release { net, n }),
        4 => (0..3usize, 0..MAPPINGS.len()).prop_map(|(who, mapping)| Step::Take { who, mapping }),
        3 => (0..MAPPINGS.len()).prop_map(|mapping| Step::Free { mapping }),
        1 => Just(Step::Abort),
        1 => Just(Step::Reopen),
    ]
}

const MAPPINGS: &[&str] = &[
    "80:80",
    "80:81",
    "80:80/udp",
    "127.0.0.1:80:80",
    "127.0.0.2:80:80",
    "[fd00::1]:80:80",
    "0.0.0.0:80:80",
    "[::]:80:80",
    "70-90:70-90",
    "70-79:70-79",
    "90-99:90-99/udp",
    "127.0.0.1:75-85:75-85",
    "81:80",
    "65535:1",
    "65000-65535:1000-1535",
    "1:1",
];

/// Names of which one begins as another does.
const NETWORKS: [(&str, &str); 3] = [
    ("a", "10.0.0.0/29"),
    ("ab", "10.0.0.0/29"),
    ("a.b", "fd00::/125"),
];

fn subnet(net: usize) -> Subnet {
    let subnet: ipnet::IpNet = NETWORKS[net].1.parse().unwrap();
    Subnet {
        subnet,
        gateway: ipam::usable(subnet).0,
        ip_range: None,
    }
}

fn nth(net: usize, n: u8) -> IpAddr {
    let number = wharf_core::addr::to_number(subnet(net).subnet.network()) + u128::from(n);
    wharf_core::addr::from_number(wharf_core::addr::Family::of(subnet(net).gateway), number)
}

fn name(who: usize) -> ContainerName {
    format!("c{who}").parse().unwrap()
}

fn network(net: usize) -> NetworkName {
    NETWORKS[net].0.parse().unwrap()
}

fn spec(net: usize) -> NetworkSpec {
    let mut request = NetworkRequest::new(network(net));
    request.subnets = vec![subnet(net).subnet];
    resolve(&request, &[], &HostFacts::default()).unwrap()
}

/// What should be so.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    leases: BTreeMap<(usize, IpAddr), usize>,
    ports: Vec<(usize, PortMapping)>,
}

impl Model {
    fn free(&self, net: usize) -> bool {
        (0..8).any(|n| self.may_have(net, nth(net, n)))
    }

    fn may_have(&self, net: usize, addr: IpAddr) -> bool {
        let s = subnet(net);
        ipam::is_usable(s.subnet, addr)
            && addr != s.gateway
            && !self.leases.contains_key(&(net, addr))
    }
}

fn carry_out(
    store: &RunStore,
    model: &mut Model,
    step: &Step,
    commit: bool,
) -> Result<(), TestCaseError> {
    let mut txn = store.begin().unwrap();
    let before = model.clone();
    match step {
        Step::Lease { net, who, wanted } => {
            let wanted = wanted.map(|n| nth(*net, n));
            let got = store.lease(&mut txn, &spec(*net), &subnet(*net), wanted, &name(*who));
            match (got, wanted) {
                (Ok(addr), _) => {
                    prop_assert!(model.may_have(*net, addr), "{addr} was not free");
                    prop_assert!(wanted.is_none_or(|w| w == addr));
                    model.leases.insert((*net, addr), *who);
                }
                (Err(LeaseError::Empty), None) => prop_assert!(!model.free(*net)),
                (Err(LeaseError::Taken(by)), Some(addr)) => {
                    let holder = model
                        .leases
                        .get(&(*net, addr))
                        .map(|who| name(*who).to_string());
                    prop_assert_eq!(by, holder);
                }
                (Err(LeaseError::Unfit), Some(addr)) => {
                    prop_assert!(!ipam::is_usable(subnet(*net).subnet, addr))
                }
                (Err(error), wanted) => prop_assert!(false, "{:?} for {:?}", error, wanted),
            }
        }
        Step::Release { net, n } => {
            store
                .release(&mut txn, &network(*net), nth(*net, *n), None)
                .unwrap();
            model.leases.remove(&(*net, nth(*net, *n)));
        }
        Step::Take { who, mapping } => {
            let mapping: PortMapping = MAPPINGS[*mapping].parse().unwrap();
            let holder = store.port_holder(&txn, &mapping).unwrap();
            let expected = model.ports.iter().any(|(_, m)| m.conflicts_with(&mapping));
            prop_assert_eq!(holder.is_some(), expected, "{:?} for {}", holder, mapping);
            if let Some((by, theirs)) = holder {
                prop_assert!(theirs.conflicts_with(&mapping));
                prop_assert!(
                    model
                        .ports
                        .iter()
                        .any(|(who, m)| name(*who) == by && *m == theirs)
                );
            } else {
                store.take_port(&mut txn, &mapping, &name(*who)).unwrap();
                model.ports.push((*who, mapping));
            }
        }
        Step::Free { mapping } => {
            let mapping: PortMapping = MAPPINGS[*mapping].parse().unwrap();
            store.free_port(&mut txn, &mapping).unwrap();
            let key = |m: &PortMapping| (m.protocol, m.host, m.host_ip);
            model.ports.retain(|(_, m)| key(m) != key(&mapping));
        }
        Step::Abort | Step::Reopen => {}
    }
    if commit {
        store.commit(txn).unwrap();
    } else {
        drop(txn);
        *model = before;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let dir = Dir::new();
        let mut store = RunStore::open(&dir.0).unwrap();
        let mut model = Model::default();
        let mut commit = true;
        for step in &steps {
            match step {
                Step::Abort => commit = false,
                Step::Reopen => {
                    drop(store);
                    store = RunStore::open(&dir.0).unwrap();
                }
                step => {
                    carry_out(&store, &mut model, step, commit)?;
                    commit = true;
                }
            }
        }
        // At the end each address and port is asked for once more.
        for net in 0..NETWORKS.len() {
            for n in 0..8 {
                carry_out(&store, &mut model, &Step::Lease { net, who: 0, wanted: Some(n) }, true)?;
            }
            carry_out(&store, &mut model, &Step::Lease { net, who: 0, wanted: None }, true)?;
        }
        for mapping in 0..MAPPINGS.len() {
            carry_out(&store, &mut model, &Step::Take { who: 0, mapping }, true)?;
        }
    }
}
