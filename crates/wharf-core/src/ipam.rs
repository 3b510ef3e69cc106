//! Address management as functions: which subnet, which address. What is taken comes in as a value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{Family, from_number, overlap, to_number};

/// Prefix length of automatic IPv4 subnets: 1022 addresses, as many as a bridge has ports (`BR_MAX_PORTS`).
const AUTO_V4_PREFIX: u8 = 22;

/// Where automatic IPv4 subnets come from, in this order: private space (RFC 1918) away from what homes,
/// VPNs, Docker (172.17–172.31), Podman (10.88–10.89) and Kubernetes (10.96, 10.244) take by themselves.
const AUTO_V4_POOLS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 201, 0, 0), 16),
    (Ipv4Addr::new(10, 202, 0, 0), 15),
    (Ipv4Addr::new(10, 204, 0, 0), 14),
    (Ipv4Addr::new(192, 168, 128, 0), 17),
];

/// The first automatic IPv4 subnet that shares no address with any of `taken`; a default route counts for
/// nothing there. `None` when every pool is used up.
pub fn pick_subnet_v4(taken: &[IpNet]) -> Option<IpNet> {
    AUTO_V4_POOLS
        .iter()
        .flat_map(|(base, len)| {
            Ipv4Net::new_assert(*base, *len)
                .subnets(AUTO_V4_PREFIX)
                .into_iter()
                .flatten()
        })
        .map(IpNet::V4)
        .find(|net| {
            !taken
                .iter()
                .any(|t| t.prefix_len() != 0 && overlap(*t, *net))
        })
}

/// A unique local /64 (RFC 4193) from a network's random id; `None` if all that the id gives are taken.
pub fn pick_subnet_v6(id: &[u8; 32], taken: &[IpNet]) -> Option<IpNet> {
    let from = |at: usize| {
        let mut octets = [0u8; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&id[at..at + 5]);
        // Every second try lies in the other half of the space.
        octets[1] ^= ((at & 1) as u8) << 7;
        octets[7] = id[at + 5];
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
    };
    let free = |net: &IpNet| {
        !taken
            .iter()
            .any(|t| t.prefix_len() != 0 && overlap(*t, *net))
    };
    (8..26).map(from).find(free)
}

/// The lowest and highest address a container may have: not the network's own and, in IPv4, not the
/// broadcast address. In IPv6 the all-zero address is the subnet-router anycast address (RFC 4291, 2.6.1).
pub fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    let family = Family::of_net(subnet);
    let first = to_number(subnet.network()) + 1;
    let last = match family {
        Family::V4 => to_number(subnet.broadcast()).saturating_sub(1),
        Family::V6 => to_number(subnet.broadcast()),
    };
    (
        from_number(family, first),
        from_number(family, last.max(first)),
    )
}

/// Whether a container or gateway may have this address in this subnet.
pub fn is_usable(subnet: IpNet, addr: IpAddr) -> bool {
    let (first, last) = usable(subnet);
    Family::of(addr) == Family::of_net(subnet)
        && (to_number(first)..=to_number(last)).contains(&to_number(addr))
}

/// The next free address of `pool` after `last`, going round at the end, so that an address given back is
/// handed out again as late as possible. `is_free` also refuses the gateway.
///
/// The cost is one question per address that is taken in a row; `None` once every address was asked about
/// or 2^20 in a row are taken.
pub fn next_address(
    subnet: IpNet,
    pool: Option<IpNet>,
    last: Option<IpAddr>,
    mut is_free: impl FnMut(IpAddr) -> bool,
) -> Option<IpAddr> {
    const MOST: u128 = 1 << 20;
    let family = Family::of_net(subnet);
    let (mut low, mut high) = {
        let (a, b) = usable(subnet);
        (to_number(a), to_number(b))
    };
    if let Some(pool) = pool {
        low = low.max(to_number(pool.network()));
        high = high.min(to_number(pool.broadcast()));
    }
    if low > high {
        return None;
    }
    let size = high - low + 1;
    let start = match last.map(to_number) {
        Some(n) if (low..high).contains(&n) => n + 1,
        _ => low,
    };
    (0..size.min(MOST))
        .map(|i| from_number(family, low + (start - low + i) % size))
        .find(|addr| is_free(*addr))
}

/// A run of addresses of one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The subnet.
    pub subnet: IpNet,
    /// The lowest address.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
    /// The subnet's gateway, which is nobody's.
    pub gateway: IpAddr,
}

impl Pool {
    /// Whether the address is one of the pool's, and not the gateway.
    pub fn offers(&self, addr: IpAddr) -> bool {
        self.holds(addr) && addr != self.gateway
    }

    fn holds(&self, addr: IpAddr) -> bool {
        Family::of(addr) == Family::of_net(self.subnet)
            && (to_number(self.first)..=to_number(self.last)).contains(&to_number(addr))
    }
}

/// The next free address of pools that are one after the other, with the pool it is of: the one behind `last`,
/// going round at the end. See [`next_address`] for the cost.
pub fn next_of_pools(
    pools: &[Pool],
    last: Option<IpAddr>,
    mut is_free: impl FnMut(IpAddr) -> bool,
) -> Option<(&Pool, IpAddr)> {
    let start = last.and_then(|l| pools.iter().position(|p| p.holds(l)));
    let count = pools.len();
    // The pool that `last` is of comes a second time, for the addresses before it.
    for turn in 0..=count {
        let at = (start.unwrap_or(0) + turn) % count.max(1);
        let pool = pools.get(at)?;
        let behind = last.filter(|_| turn == 0 && start.is_some());
        let found = next_in(pool, behind, |addr| pool.offers(addr) && is_free(addr));
        if let Some(addr) = found {
            return Some((pool, addr));
        }
    }
    None
}

/// The first free address of a pool, or the first behind one of its addresses.
fn next_in(
    pool: &Pool,
    behind: Option<IpAddr>,
    is_free: impl FnMut(IpAddr) -> bool,
) -> Option<IpAddr> {
    const MOST: u128 = 1 << 20;
    let family = Family::of_net(pool.subnet);
    let low = behind.map_or(to_number(pool.first), |b| to_number(b).saturating_add(1));
    let high = to_number(pool.last).min(low.saturating_add(MOST));
    (low..=high).map(|n| from_number(family, n)).find({
        let mut is_free = is_free;
        move |addr| is_free(*addr)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn automatic_subnets_avoid_what_is_taken() {
        assert_eq!(pick_subnet_v4(&[]), Some(net("10.201.0.0/22")));
        assert_eq!(
            pick_subnet_v4(&[net("0.0.0.0/0"), net("10.201.0.0/22")]),
            Some(net("10.201.4.0/22"))
        );
        assert_eq!(
            pick_subnet_v4(&[net("10.0.0.0/8")]),
            Some(net("192.168.128.0/22"))
        );
        assert_eq!(
            pick_subnet_v4(&[net("10.0.0.0/8"), net("192.168.0.0/16")]),
            None
        );
    }

    #[test]
    fn goes_round_and_skips_what_is_taken() {
        let subnet = net("10.0.0.0/29");
        let free = |taken: &[&str]| {
            let t: Vec<_> = taken.iter().map(|t| ip(t)).collect();
            move |a: IpAddr| !t.contains(&a)
        };
        assert_eq!(
            next_address(subnet, None, None, free(&["10.0.0.1"])),
            Some(ip("10.0.0.2"))
        );
        assert_eq!(
            next_address(subnet, None, Some(ip("10.0.0.6")), free(&["10.0.0.1"])),
            Some(ip("10.0.0.2"))
        );
        assert_eq!(
            next_address(
                subnet,
                Some(net("10.0.0.4/30")),
                Some(ip("10.0.0.2")),
                free(&[])
            ),
            Some(ip("10.0.0.4"))
        );
        assert_eq!(
            next_address(subnet, None, Some(ip("10.0.0.3")), |_| false),
            None
        );
    }

    #[test]
    fn pools_are_one_ring() {
        let pool = |subnet: &str, first: &str, last: &str| Pool {
            subnet: net(subnet),
            first: ip(first),
            last: ip(last),
            gateway: ipam_gateway(net(subnet)),
        };
        let pools = [
            pool("10.0.0.0/29", "10.0.0.1", "10.0.0.3"),
            pool("10.0.1.0/29", "10.0.1.5", "10.0.1.6"),
        ];
        let next = |last: Option<&str>, taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|t| ip(t)).collect();
            next_of_pools(&pools, last.map(ip), |a| !taken.contains(&a)).map(|(_, a)| a)
        };
        assert_eq!(next(None, &[]), Some(ip("10.0.0.2")));
        assert_eq!(next(Some("10.0.0.3"), &[]), Some(ip("10.0.1.5")));
        assert_eq!(next(Some("10.0.1.6"), &[]), Some(ip("10.0.0.2")));
        assert_eq!(
            next(Some("10.0.1.5"), &["10.0.1.6", "10.0.0.2"]),
            Some(ip("10.0.0.3"))
        );
        assert_eq!(
            next(Some("10.0.0.3"), &["10.0.1.5", "10.0.1.6", "10.0.0.3"]),
            Some(ip("10.0.0.2"))
        );
        let all = ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"];
        assert_eq!(next(Some("10.0.0.2"), &all), None);
        assert_eq!(next_of_pools(&[], None, |_| true), None);
    }

    fn ipam_gateway(subnet: IpNet) -> IpAddr {
        usable(subnet).0
    }

    #[test]
    fn hands_out_every_address_once() {
        for text in ["10.0.0.0/28", "fd00::/124", "10.9.8.252/30"] {
            let subnet = net(text);
            let mut taken = BTreeSet::new();
            let mut last = None;
            while let Some(addr) = next_address(subnet, None, last, |a| !taken.contains(&a)) {
                assert!(is_usable(subnet, addr));
                assert!(taken.insert(addr));
                last = Some(addr);
            }
            let (first, end) = usable(subnet);
            assert_eq!(
                taken.len() as u128,
                to_number(end) - to_number(first) + 1,
                "{text}"
            );
        }
    }
}
