//! Addresses of the host that wharf was told to use, and that the host does not have.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::{Cause, Code, Owner};
use crate::trace::state::ObservedState;
use crate::trace::walk::outlook;

use super::Severity::{Error, Warning};
use super::{Finding, Findings, Scene};

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for container in &scene.state.containers {
        for (family, mapping) in scene.state.published(container) {
            let bound = mapping.bound_to().filter(|ip| Family::of(*ip) == family);
            let Some(cause) = bound.and_then(|ip| nobodys(scene.state, ip)) else {
                continue;
            };
            let seen = format!("wharf port ls {}: {mapping}", container.name);
            found.add(Finding::of(cause, Error).evidence(seen));
        }
    }
    for net in &scene.state.networks {
        for family in Family::BOTH {
            let from = net.settings.snat(family).filter(|_| !net.internal);
            // Others may have a route for it.
            if let Some(cause) = from.and_then(|ip| nobodys(scene.state, ip)) {
                let seen = format!(
                    "wharf network inspect {}: its containers go out with it",
                    net.name
                );
                found.add(Finding::of(cause, Warning).evidence(seen));
            }
        }
    }
}

/// That the host does not have an address, if it has not.
pub(in crate::trace) fn nobodys(state: &ObservedState, ip: IpAddr) -> Option<Cause> {
    let host = state.host();
    let unread = state
        .unread
        .iter()
        .any(|u| u.netns == host.name && u.what.contains("addresses"));
    if unread || ip.is_unspecified() || outlook::is_local(host, ip) {
        return None;
    }
    let own = host.addrs.iter().find(|a| a.net.contains(&ip));
    let link = own.and_then(|a| Some((a.net.prefix_len(), host.link(a.link)?)));
    let fix = match link {
        Some((len, link)) => format!("ip addr add {ip}/{len} dev {}", link.name),
        None => "ip addr show".to_owned(),
    };
    Some(Cause {
        code: Code::NoSuchDestination,
        netns: host.name.clone(),
        object: ip.to_string(),
        owner: Owner::User,
        summary: format!("The host does not have the address {ip}."),
        evidence: vec![format!("ip addr show: no {ip}")],
        fix: vec![fix],
    })
}
