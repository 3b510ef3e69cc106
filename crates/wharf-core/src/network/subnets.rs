//! The subnets of a network: those asked for, checked, and those that wharf picks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, overlap};
use crate::ipam;

use super::{Driver, HostFacts, NetworkError, NetworkKind, NetworkRequest, NetworkSpec, Subnet};

/// The subnets, each with its gateway and its range.
pub(super) fn choose_subnets(
    request: &NetworkRequest,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<Vec<Subnet>, NetworkError> {
    let numbered = request.kind != NetworkKind::Own;
    if request.kind != NetworkKind::Adopted {
        for (at, net) in request.subnets.iter().enumerate() {
            check_subnet(*net)?;
            let earlier = &request.subnets[..at];
            if numbered && earlier.iter().any(|other| overlap(*other, *net)) {
                return Err(NetworkError::Unfit(
                    *net,
                    "it overlaps another subnet of the same network",
                ));
            }
            // On somebody else's link the subnet is the one that is there already.
            if request.driver == Driver::Bridge {
                check_overlap(*net, existing, host)?;
            }
        }
    }
    let mut chosen = Vec::new();
    for family in Family::BOTH {
        let mut of_family = request
            .subnets
            .iter()
            .copied()
            .filter(|n| Family::of_net(*n) == family);
        if numbered {
            chosen.extend(of_family);
            continue;
        }
        let given = of_family.next();
        if of_family.next().is_some() {
            return Err(NetworkError::TwoSubnets(family));
        }
        if let Some(net) = given {
            chosen.push(net);
        } else if request.has(family) {
            chosen.push(automatic_subnet(family, existing, host)?);
        }
    }
    if chosen.is_empty() && !numbered {
        return Err(NetworkError::Contradiction("a network needs IPv4 or IPv6"));
    }
    let subnets = place(
        &chosen,
        &request.gateways,
        "gateway",
        |a, net| net.contains(a),
        |a| a.to_string(),
    )?;
    let ranges = place(
        &chosen,
        &request.ip_ranges,
        "address range",
        |r, net| net.contains(r),
        |r| r.to_string(),
    )?;
    chosen
        .iter()
        .zip(subnets.into_iter().zip(ranges))
        .map(|(net, (gateway, ip_range))| {
            let gateway = gateway.unwrap_or_else(|| ipam::usable(*net).0);
            if !ipam::is_usable(*net, gateway) {
                return Err(NetworkError::GatewayUnfit(gateway, *net));
            }
            Ok(Subnet {
                subnet: *net,
                gateway,
                ip_range: ip_range.map(|r| r.trunc()),
            })
        })
        .collect()
}

fn automatic_subnet(
    family: Family,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<IpNet, NetworkError> {
    let mut taken = host.routes.clone();
    taken.extend(
        existing
            .iter()
            .flat_map(|n| n.subnets.iter().map(|s| s.subnet)),
    );
    let picked = match family {
        Family::V4 => ipam::pick_subnet_v4(&taken),
        Family::V6 => ipam::pick_subnet_v6(&host.id, &taken),
    };
    picked.ok_or(NetworkError::NoPool(family))
}

/// Puts each of `items` to the subnet it is inside of.
fn place<T: Copy>(
    subnets: &[IpNet],
    items: &[T],
    what: &'static str,
    inside: impl Fn(&T, &IpNet) -> bool,
    show: impl Fn(&T) -> String,
) -> Result<Vec<Option<T>>, NetworkError> {
    let mut placed: Vec<Option<T>> = subnets.iter().map(|_| None).collect();
    for item in items {
        let at = subnets
            .iter()
            .position(|net| inside(item, net))
            .ok_or_else(|| NetworkError::Outside {
                what,
                text: show(item),
            })?;
        if placed[at].replace(*item).is_some() {
            return Err(NetworkError::Twice {
                what,
                subnet: subnets[at],
            });
        }
    }
    Ok(placed)
}

fn check_subnet(net: IpNet) -> Result<(), NetworkError> {
    if net.trunc() != net {
        return Err(NetworkError::HostBits {
            given: net,
            meant: net.trunc(),
        });
    }
    let longest = Family::of_net(net).bits() - 2;
    if net.prefix_len() > longest {
        return Err(NetworkError::Unfit(
            net,
            "it has no room for a gateway and a container",
        ));
    }
    if net.prefix_len() < 8 {
        return Err(NetworkError::Unfit(net, "it is wider than /8"));
    }
    let addr = net.network();
    let special = match addr {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                // 240.0.0.0/4 was reserved for later; the kernel routes it, and some number pods so.
                || v4.octets()[0] == 255
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfe80
                || v6.segments()[0] == 0
        }
    };
    if special {
        return Err(NetworkError::Unfit(
            net,
            "loopback, link-local, multicast and broadcast addresses are not for containers",
        ));
    }
    Ok(())
}

fn check_overlap(
    net: IpNet,
    existing: &[NetworkSpec],
    host: &HostFacts,
) -> Result<(), NetworkError> {
    for other in existing.iter().filter(|n| n.is_managed()) {
        if let Some(theirs) = other.subnets.iter().find(|s| overlap(s.subnet, net)) {
            return Err(NetworkError::OverlapsNetwork {
                subnet: net,
                other: theirs.subnet,
                network: other.name.clone(),
            });
        }
    }
    if let Some((theirs, dev)) = host.on_link.iter().find(|(n, _)| overlap(*n, net)) {
        return Err(NetworkError::OverlapsLink {
            subnet: net,
            other: *theirs,
            dev: dev.clone(),
        });
    }
    Ok(())
}
