//! Whose which addresses are when the store is lost: a function of what the host holds and what containers say.
//!
//! A container can say anything. What the host holds decides: the static entry of a port's bridge tells the hardware address
//! behind it, the guard and the permanent neighbours tell which addresses belong to that one. What a container says counts
//! where it agrees, and where the host has nothing left; never for what the host knows as its own or as another's.
//! Ports are taken in the order in which the host made them.
//!
//! Not here: which namespace a cable ends in (`ends`), and reading any of it (`observe/held.rs`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::network::NetworkSpec;

use crate::observe::Held;

/// The host's end of a cable.
pub(super) struct Port<'a> {
    /// The network, as the host says.
    pub(super) net: &'a NetworkSpec,
    /// The link's number.
    pub(super) index: u32,
    /// The number of the network's bridge, if that is there.
    pub(super) bridge: Option<u32>,
    /// What the container says.
    pub(super) said: Said,
}

/// What a container says of its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) mac: Option<Mac>,
    pub(super) addresses: Vec<IpNet>,
}

/// What a port has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) mac: Mac,
    /// With the subnets' prefix lengths, IPv4 first.
    pub(super) addresses: Vec<IpNet>,
}

/// An address of two. Where the host does not know whose it is, neither has it, and there is one of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) addr: IpAddr,
    /// The ports, by their places in the list: who has it, and who does not get it.
    pub(super) of: [usize; 2],
}

/// What each port has, in the order of the list. Of `None` nobody knows what is behind it.
pub(super) fn settle(held: &Held, ports: &[Port]) -> (Vec<Option<Claim>>, Vec<Contest>) {
    let mut order: Vec<usize> = (0..ports.len()).collect();
    order.sort_by_key(|at| ports[*at].index);
    let mut table = Table {
        held,
        ports,
        order,
        macs: ports.iter().map(|p| by_entry(held, p)).collect(),
        addresses: vec![Vec::new(); ports.len()],
        contests: Vec::new(),
    };
    let certain: Vec<bool> = table.macs.iter().map(Option::is_some).collect();
    table.find_macs();
    table.give_what_is_known();
    let asked = table.unknown();
    table.give_what_follows(&asked, &certain);
    table.ask(&asked);
    let claims = (0..ports.len()).map(|at| table.claim(at)).collect();
    (claims, table.contests)
}

struct Table<'a> {
    held: &'a Held,
    ports: &'a [Port<'a>],
    /// The ports as the host made them.
    order: Vec<usize>,
    macs: Vec<Option<Mac>>,
    addresses: Vec<Vec<IpAddr>>,
    contests: Vec<Contest>,
}

/// The hardware address that the bridge's table has for a port. Of several, one whose addresses the host knows, and the one
/// that the container has.
fn by_entry(held: &Held, port: &Port) -> Option<Mac> {
    let entries = held.forwarding.get(&port.index)?;
    let others = |mac: &&Mac| !is_hosts(held, port, **mac);
    let mut entries: Vec<Mac> = entries.iter().filter(others).copied().collect();
    entries.sort_by_key(|mac| {
        let known = known_of(held, port, *mac).next().is_some();
        (!known, port.said.mac != Some(*mac), *mac)
    });
    entries.first().copied()
}

/// The host's own are nobody else's.
fn is_hosts(held: &Held, port: &Port, mac: Mac) -> bool {
    mac == port.net.bridge_mac || held.macs.contains(&mac)
}

fn is_inside(port: &Port, addr: IpAddr) -> bool {
    port.net.subnets.iter().any(|s| s.subnet.contains(&addr))
}

/// Gateways are the host's, also where it has not got them.
fn is_reserved(held: &Held, port: &Port, addr: IpAddr) -> bool {
    held.addresses.contains(&addr) || port.net.subnets.iter().any(|s| s.gateway == addr)
}

/// The addresses of the port's network that the host knows at a hardware address.
fn known_of(held: &Held, port: &Port, mac: Mac) -> impl Iterator<Item = IpAddr> {
    let guarded = held.guarded.iter().filter(move |(m, _)| *m == mac);
    let guarded = guarded.map(|(_, addr)| *addr);
    let bridge = port.bridge;
    let neighbours = held.neighbours.iter();
    let neighbours = neighbours
        .filter(move |((link, _), m)| Some(*link) == bridge && **m == mac)
        .map(|((_, addr), _)| *addr);
    guarded
        .chain(neighbours)
        .filter(|addr| is_inside(port, *addr) && !is_reserved(held, port, *addr))
}

/// The first address of a subnet and the last of an IPv4 one are no container's to choose.
fn is_edge(net: IpNet, addr: IpAddr) -> bool {
    let wide = net.max_prefix_len() - net.prefix_len() > 1;
    wide && (addr == net.network() || addr.is_ipv4() && addr == net.broadcast())
}

impl Table<'_> {
    /// The ports on the same network as one, that one apart.
    fn siblings(&self, at: usize) -> impl Iterator<Item = usize> {
        let net = &self.ports[at].net.name;
        let same = move |other: &usize| *other != at && self.ports[*other].net.name == *net;
        (0..self.ports.len()).filter(same)
    }

    fn is_anothers_mac(&self, at: usize, mac: Mac) -> bool {
        self.siblings(at).any(|other| self.macs[other] == Some(mac))
    }

    /// The hardware addresses of ports that no bridge's table tells: of those that the host knows on the network and that are
    /// nobody's, the one that the container has; without any, the one it has. What two say is neither's.
    fn find_macs(&mut self) {
        let open: Vec<usize> = (0..self.ports.len())
            .filter(|at| self.macs[*at].is_none())
            .collect();
        let found: Vec<Option<Mac>> = open.iter().map(|at| self.find_mac(*at)).collect();
        for (at, mac) in open.into_iter().zip(found) {
            self.macs[at] = mac;
        }
    }

    fn find_mac(&self, at: usize) -> Option<Mac> {
        let port = &self.ports[at];
        let left = self.unclaimed(at);
        let is_open = |other: &usize| self.macs[*other].is_none();
        let rivals: Vec<usize> = self.siblings(at).filter(is_open).collect();
        if let (Some(only), 1, true) = (left.first(), left.len(), rivals.is_empty()) {
            return Some(*only);
        }
        let said = port.said.mac?;
        let free = match left.is_empty() {
            true => !is_hosts(self.held, port, said) && !self.is_anothers_mac(at, said),
            false => left.contains(&said),
        };
        let says = |other: &usize| self.ports[*other].said.mac == Some(said);
        let alone = !rivals.iter().any(says);
        (free && alone).then_some(said)
    }

    /// The hardware addresses that the host knows on a port's network and at none of its ports.
    fn unclaimed(&self, at: usize) -> BTreeSet<Mac> {
        let port = &self.ports[at];
        let held = self.held;
        let guarded = held.guarded.iter().map(|(mac, addr)| (*mac, *addr));
        let on_bridge = held.neighbours.iter();
        let on_bridge = on_bridge.filter(|((link, _), _)| Some(*link) == port.bridge);
        let on_bridge = on_bridge.map(|((_, addr), mac)| (*mac, *addr));
        let all = guarded.chain(on_bridge);
        let all = all.filter(|(_, a)| is_inside(port, *a) && !is_reserved(held, port, *a));
        all.map(|(mac, _)| mac)
            .filter(|mac| !is_hosts(held, port, *mac) && !self.is_anothers_mac(at, *mac))
            .collect()
    }

    /// What the host knows of each hardware address. An address at several is whose the neighbours say, or the first's.
    fn give_what_is_known(&mut self) {
        for at in self.order.clone() {
            let Some(mac) = self.macs[at] else { continue };
            let port = &self.ports[at];
            let known: BTreeSet<IpAddr> = known_of(self.held, port, mac).collect();
            for addr in known {
                let neighbour = port
                    .bridge
                    .and_then(|b| self.held.neighbours.get(&(b, addr)));
                let by_neighbour = neighbour.filter(|m| **m != mac).and_then(|m| {
                    let mut siblings = self.siblings(at);
                    siblings.find(|other| self.macs[*other] == Some(*m))
                });
                match by_neighbour.or_else(|| self.owner(at, addr)) {
                    Some(owner) => self.contests.push(Contest {
                        addr,
                        of: [owner, at],
                    }),
                    None => self.addresses[at].push(addr),
                }
            }
        }
    }

    fn owner(&self, at: usize, addr: IpAddr) -> Option<usize> {
        self.siblings(at)
            .find(|other| self.addresses[*other].contains(&addr))
    }

    /// The ports, in order, of whose addresses the host knows nothing at all.
    fn unknown(&self) -> Vec<usize> {
        let nothing = |at: &usize| {
            let mac = self.macs[*at];
            mac.is_some_and(|mac| known_of(self.held, &self.ports[*at], mac).next().is_none())
        };
        self.order.iter().copied().filter(nothing).collect()
    }

    /// Hardware addresses follow from addresses, unless somebody chose them: where the host knows the one, it knows the other.
    fn give_what_follows(&mut self, asked: &[usize], certain: &[bool]) {
        for at in asked.iter().copied().filter(|at| certain[*at]) {
            let port = &self.ports[at];
            let (mac, salt) = (self.macs[at], port.net.mac_salt());
            let from_it = |addr: &IpAddr| Some(Mac::from_ip(*addr, salt)) == mac;
            let v4 = mac.and_then(Mac::ipv4).map(IpAddr::V4);
            let said = port.said.addresses.iter().map(IpNet::addr);
            let all: Vec<IpAddr> = v4.into_iter().chain(said).filter(from_it).collect();
            for addr in all {
                if self.is_free(at, addr) {
                    self.addresses[at].push(addr);
                }
            }
        }
    }

    /// What containers say, where the host knows nothing: one address of each subnet at most. What two say is neither's.
    fn ask(&mut self, asked: &[usize]) {
        let mut wanted: Vec<(usize, IpAddr)> = Vec::new();
        for at in asked.iter().copied() {
            for subnet in self.ports[at].net.subnets.iter().map(|s| s.subnet) {
                let said = self.ports[at].said.addresses.iter().map(IpNet::addr);
                let mut own = said.filter(|addr| subnet.contains(addr));
                let addr = own.find(|addr| self.is_free(at, *addr));
                wanted.extend(addr.map(|addr| (at, addr)));
            }
        }
        for (at, addr) in &wanted {
            let rival = self
                .siblings(*at)
                .find(|other| wanted.contains(&(*other, *addr)));
            match rival {
                Some(other) => self.contests.push(Contest {
                    addr: *addr,
                    of: [other, *at],
                }),
                None => self.addresses[*at].push(*addr),
            }
        }
    }

    /// Whether a port may have an address that the host does not know as its own: it has none of that subnet, and nobody
    /// else has it.
    fn is_free(&self, at: usize, addr: IpAddr) -> bool {
        let port = &self.ports[at];
        let Some(subnet) = port.net.subnets.iter().find(|s| s.subnet.contains(&addr)) else {
            return false;
        };
        let has_one = self.addresses[at].iter().any(|a| subnet.subnet.contains(a));
        !has_one
            && !is_edge(subnet.subnet, addr)
            && !is_reserved(self.held, port, addr)
            && self.owner(at, addr).is_none()
            && !self.is_known_as_anothers(at, addr)
    }

    /// Whether the host knows an address, or another port has the hardware address that follows from it.
    fn is_known_as_anothers(&self, at: usize, addr: IpAddr) -> bool {
        let port = &self.ports[at];
        let mac = self.macs[at];
        let at_bridge = port
            .bridge
            .and_then(|b| self.held.neighbours.get(&(b, addr)));
        let derived = Mac::from_ip(addr, port.net.mac_salt());
        at_bridge.is_some_and(|m| Some(*m) != mac)
            || self
                .held
                .guarded
                .iter()
                .any(|(m, a)| *a == addr && Some(*m) != mac)
            || self.is_anothers_mac(at, derived)
    }

    fn claim(&self, at: usize) -> Option<Claim> {
        let port = &self.ports[at];
        let said = &port.said.addresses;
        let place = |addr: &IpAddr| said.iter().position(|net| net.addr() == *addr);
        let mut addresses = self.addresses[at].clone();
        addresses.sort_by_key(|a| (Family::of(*a), place(a).unwrap_or(usize::MAX), *a));
        let whole = |addr: IpAddr| {
            let subnet = port.net.subnets.iter().find(|s| s.subnet.contains(&addr))?;
            let length = subnet.subnet.prefix_len();
            let own = place(&addr).map_or(length, |p| said[p].prefix_len());
            IpNet::new(addr, own).ok()
        };
        Some(Claim {
            mac: self.macs[at]?,
            addresses: addresses.into_iter().filter_map(whole).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::network::{HostFacts, NetworkRequest, resolve};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 9, 9, 9, 9, last])
    }

    /// 10.88.1.0/24 and fd00:88:1::/64, with the bridge at link 7.
    fn net() -> NetworkSpec {
        let mut request = NetworkRequest::new("a".parse().unwrap());
        request.subnets = ["10.88.1.0/24", "fd00:88:1::/64"]
            .map(|s| s.parse().unwrap())
            .into();
        resolve(&request, &[], &HostFacts::default()).unwrap()
    }

    fn port<'a>(net: &'a NetworkSpec, index: u32, mac: Mac, says: &[&str]) -> Port<'a> {
        Port {
            net,
            index,
            bridge: Some(7),
            said: Said {
                mac: Some(mac),
                addresses: says.iter().map(|s| s.parse().unwrap()).collect(),
            },
        }
    }

    /// Ports 11 and 12 with the hardware addresses 1 and 2, at .66 and .77 of both families.
    fn held() -> Held {
        let mut held = Held::default();
        for (index, last, n) in [(11, 1, 66), (12, 2, 77)] {
            held.forwarding.insert(index, vec![mac(last)]);
            for addr in [format!("10.88.1.{n}"), format!("fd00:88:1::{n}")] {
                held.guarded.insert((mac(last), ip(&addr)));
                held.neighbours.insert((7, ip(&addr)), mac(last));
            }
            held.guarded.insert((mac(last), ip(&format!("fe80::{n}"))));
        }
        held.addresses.extend([ip("10.88.1.1"), ip("fd00:88:1::1")]);
        held
    }

    fn texts(claim: &Option<Claim>) -> Vec<String> {
        let all = claim.iter().flat_map(|c| &c.addresses);
        all.map(ToString::to_string).collect()
    }

    const LIES: [&str; 5] = [
        "10.88.1.77/24",
        "10.88.1.1/24",
        "10.88.1.200/24",
        "fd00:88:1::77/64",
        "fd00:88:1::1/64",
    ];

    #[test]
    fn what_the_host_knows_decides() {
        let net = net();
        let parts: [fn(&mut Held); 4] = [
            |_| {},
            |h| h.guarded.clear(),
            |h| h.neighbours.clear(),
            |h| h.forwarding.clear(),
        ];
        for (case, lose) in parts.into_iter().enumerate() {
            let mut held = held();
            lose(&mut held);
            let said = if case == 3 { mac(1) } else { mac(2) };
            let ports = [port(&net, 11, said, &LIES), port(&net, 12, mac(2), &[])];
            let (claims, contests) = settle(&held, &ports);
            assert_eq!(
                texts(&claims[0]),
                ["10.88.1.66/24", "fd00:88:1::66/64"],
                "{case}"
            );
            assert_eq!(
                texts(&claims[1]),
                ["10.88.1.77/24", "fd00:88:1::77/64"],
                "{case}"
            );
            assert_eq!(claims[0].as_ref().unwrap().mac, mac(1), "{case}");
            assert_eq!(contests, [], "{case}");
        }
    }

    #[test]
    fn where_no_entry_tells_two_do_not_say_the_same() {
        let net = net();
        let mut held = held();
        held.forwarding.clear();
        let ports = [port(&net, 11, mac(2), &[]), port(&net, 12, mac(2), &[])];
        assert_eq!(settle(&held, &ports).0, [None, None]);
        // The one whose entry is gone is the one that is left.
        held.forwarding.insert(12, vec![mac(2)]);
        let (claims, _) = settle(&held, &ports);
        assert_eq!(texts(&claims[0]), ["10.88.1.66/24", "fd00:88:1::66/64"]);
        // Nobody has what the host has, nor what another has.
        let mut held = Held::default();
        held.forwarding.insert(12, vec![mac(2)]);
        held.macs.insert(mac(3));
        for other in [mac(2), mac(3), net.bridge_mac] {
            let ports = [port(&net, 11, other, &[]), port(&net, 12, mac(2), &[])];
            assert_eq!(settle(&held, &ports).0[0], None, "{other}");
        }
        let ports = [port(&net, 11, mac(4), &[]), port(&net, 12, mac(2), &[])];
        let free = settle(&held, &ports).0[0].clone();
        assert_eq!(free.map(|c| c.mac), Some(mac(4)));
    }

    #[test]
    fn where_nothing_is_left_one_address_of_each_subnet_is_believed() {
        let net = net();
        let mut held = held();
        held.guarded.clear();
        held.neighbours.clear();
        held.guarded.insert((mac(2), ip("10.88.1.77")));
        let more = [
            "10.88.1.0/24",
            "10.88.1.255/24",
            "10.99.0.1/24",
            "10.88.1.66/16",
            "fd00:88:1::66/64",
        ];
        let says: Vec<&str> = LIES[..2].iter().copied().chain(more).chain(LIES).collect();
        let ports = [port(&net, 11, mac(1), &says), port(&net, 12, mac(2), &[])];
        let (claims, _) = settle(&held, &ports);
        assert_eq!(texts(&claims[0]), ["10.88.1.66/16", "fd00:88:1::66/64"]);
        assert_eq!(texts(&claims[1]), ["10.88.1.77/24"]);
    }

    /// A hardware address follows from an address, and the port's entry tells it.
    #[test]
    fn who_is_at_the_address_of_his_hardware_address_keeps_it() {
        let net = net();
        let own = |n: u8| Mac::from_ip(ip(&format!("10.88.1.{n}")), net.mac_salt());
        let mut held = Held::default();
        held.forwarding.insert(11, vec![own(66)]);
        held.forwarding.insert(12, vec![own(77)]);
        let ports = [port(&net, 11, own(66), &LIES), port(&net, 12, own(77), &[])];
        let (claims, contests) = settle(&held, &ports);
        assert_eq!(texts(&claims[1]), ["10.88.1.77/24"]);
        assert_eq!(texts(&claims[0])[0], "10.88.1.66/24");
        assert_eq!(contests, []);
        // Without an entry it is only said to be so.
        held.forwarding.remove(&11);
        let ports = [port(&net, 11, own(200), &[]), port(&net, 12, own(77), &[])];
        assert_eq!(texts(&settle(&held, &ports).0[0]), Vec::<String>::new());
    }

    #[test]
    fn what_two_say_is_neithers() {
        let net = net();
        let mut held = Held::default();
        held.forwarding
            .extend([(11, vec![mac(1)]), (12, vec![mac(2)])]);
        let both = ["10.88.1.77/24", "fd00:88:1::77/64"];
        let ports = [
            port(
                &net,
                11,
                mac(1),
                &["10.88.1.77/24", "fd00:88:1::66/64", both[1]],
            ),
            port(&net, 12, mac(2), &both),
        ];
        let (claims, contests) = settle(&held, &ports);
        assert_eq!(texts(&claims[0]), ["fd00:88:1::66/64"]);
        assert_eq!(texts(&claims[1]), ["fd00:88:1::77/64"]);
        let of: Vec<_> = contests.iter().map(|c| (c.addr, c.of)).collect();
        let addr = ip("10.88.1.77");
        assert_eq!(of, [(addr, [1, 0]), (addr, [0, 1])]);
    }

    #[test]
    fn of_two_at_one_address_the_neighbours_tell_whose_it_is() {
        let net = net();
        let shared = ip("10.88.1.66");
        let mut held = held();
        held.guarded.insert((mac(2), shared));
        let ports = [port(&net, 12, mac(2), &[]), port(&net, 11, mac(1), &[])];
        let two = |held: &Held| {
            let (claims, contests) = settle(held, &ports);
            assert_eq!(contests.len(), 1);
            assert_eq!(contests[0].addr, shared);
            let loser = &claims[contests[0].of[1]];
            assert!(!texts(loser).contains(&"10.88.1.66/24".to_owned()));
            contests[0].of
        };
        assert_eq!(two(&held), [1, 0]);
        held.neighbours.insert((7, shared), mac(2));
        assert_eq!(two(&held), [0, 1]);
        // Neither: who was there first.
        held.neighbours.remove(&(7, shared));
        assert_eq!(two(&held), [1, 0]);
    }

    #[test]
    fn of_several_entries_the_known_one_is_the_ports() {
        let net = net();
        let mut held = held();
        held.forwarding
            .insert(11, vec![mac(0), net.bridge_mac, mac(1), mac(9)]);
        let ports = [port(&net, 11, mac(9), &[]), port(&net, 12, mac(2), &[])];
        assert_eq!(
            settle(&held, &ports).0[0].as_ref().map(|c| c.mac),
            Some(mac(1))
        );
    }

    /// A chosen hardware address may be on several networks, and addresses come in the order they were set.
    #[test]
    fn networks_are_apart() {
        let (a, mut b) = (net(), net());
        b.name = "b".parse().unwrap();
        for subnet in &mut b.subnets {
            let text = subnet.subnet.to_string().replace("88", "89");
            subnet.subnet = text.parse().unwrap();
        }
        let mut held = Held::default();
        held.forwarding
            .extend([(11, vec![mac(1)]), (12, vec![mac(1)])]);
        for addr in ["10.88.1.5", "10.88.1.9", "10.89.1.5"] {
            held.guarded.insert((mac(1), ip(addr)));
        }
        let ports = [
            port(&a, 11, mac(1), &["10.88.1.9/24", "10.88.1.5/24"]),
            Port {
                bridge: Some(8),
                ..port(&b, 12, mac(1), &[])
            },
        ];
        let (claims, _) = settle(&held, &ports);
        assert_eq!(texts(&claims[0]), ["10.88.1.9/24", "10.88.1.5/24"]);
        assert_eq!(texts(&claims[1]), ["10.89.1.5/24"]);
    }
}
