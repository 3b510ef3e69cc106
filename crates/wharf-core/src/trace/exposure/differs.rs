//! Where a port is not as its mapping, or a firewall, says.

use std::net::IpAddr;

use serde::Serialize;

use crate::addr::Family;
use crate::trace::doctor::{nobodys, of_program};
use crate::trace::report::{Cause, Owner};
use crate::trace::state::ObservedState;
use crate::trace::walk::outlook;

use super::{PublishedPort, Reach, Side};

/// Something that is not as somebody says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Who says otherwise: the firewall, or who publishes the port.
    pub owner: Owner,
    /// Whom it is about.
    pub from: Side,
    /// The address and port.
    pub address: String,
    /// One sentence.
    pub summary: String,
    /// What is to blame, where something is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// All differences of a port.
pub(super) fn all(state: &ObservedState, port: &PublishedPort) -> Vec<Difference> {
    let mut all = Vec::new();
    past_firewalls(port, &mut all);
    wider(port, &mut all);
    narrower(port, &mut all);
    all.extend(at_nobodys(state, port));
    all
}

fn name(port: &PublishedPort) -> String {
    let to = match &port.container {
        Some(container) => format!(" for {container}"),
        None => String::new(),
    };
    format!("port {}/{}{to}", port.host_port, port.protocol)
}

/// Whether the mapping is to answer at an address.
fn is_meant(port: &PublishedPort, ip: IpAddr) -> bool {
    port.direct.contains(&ip) || port.asked.bound.is_none_or(|bound| bound == ip)
}

/// A firewall says closed, and it is open; or open, and it is closed.
fn past_firewalls(port: &PublishedPort, all: &mut Vec<Difference>) {
    for claim in &port.claims {
        let outside = |r: &&Reach| r.from == Side::Outside && r.ip == claim.ip;
        let Some(reach) = port.reach.iter().find(outside) else {
            continue;
        };
        let summary = match (claim.open, reach.open) {
            (false, true) => format!(
                "The firewall closes {} ({}), but {} goes past it and is open.",
                claim.address,
                claim.rule,
                name(port)
            ),
            // What accepts everything says nothing about this port.
            (true, false) if claim.explicit && is_meant(port, claim.ip) => format!(
                "The firewall opens {} ({}), but {} is closed.",
                claim.address,
                claim.rule,
                name(port)
            ),
            _ => continue,
        };
        all.push(Difference {
            owner: claim.owner,
            from: Side::Outside,
            address: claim.address.clone(),
            summary,
            cause: reach.cause.clone().filter(|_| !reach.open),
        });
    }
}

/// It answers where it is not published.
fn wider(port: &PublishedPort, all: &mut Vec<Difference>) {
    let Some(bound) = port.asked.bound else {
        return;
    };
    for reach in port
        .reach
        .iter()
        .filter(|r| r.open && r.from == Side::Outside && !port.direct.contains(&r.ip))
    {
        let by = reach.by.as_deref().unwrap_or("a link");
        // The loopback address itself, asked for by a neighbour.
        let summary = match (bound.is_loopback(), reach.ip == bound) {
            (false, true) => continue,
            (true, _) => format!(
                "{} is published on {bound} only, but who is behind {by} reaches it at {}.",
                capital(&name(port)),
                reach.address
            ),
            (false, false) => format!(
                "{} is published on {bound} only, but answers at {} too.",
                capital(&name(port)),
                reach.address
            ),
        };
        all.push(Difference {
            owner: port.owner,
            from: Side::Outside,
            address: reach.address.clone(),
            summary,
            cause: None,
        });
    }
}

/// It does not answer where it is published; once for each cause.
fn narrower(port: &PublishedPort, all: &mut Vec<Difference>) {
    let meant = |r: &&Reach| match r.from {
        Side::Loopback => port.asked.bound.is_none_or(|b| b.is_loopback()) && port.is_wharfs(),
        // What others' rules do for the host's own packets is their affair.
        Side::Host => is_meant(port, r.ip) && port.is_wharfs(),
        Side::Outside => is_meant(port, r.ip) && !r.ip.is_loopback(),
        Side::Network | Side::Sibling => false,
    };
    let meant: Vec<&Reach> = port.reach.iter().filter(meant).collect();
    let nobody = !meant.is_empty() && meant.iter().all(|r| r.cause.is_some());
    let mut told: Vec<(String, String)> = Vec::new();
    for reach in meant {
        let Some(cause) = &reach.cause else {
            continue;
        };
        // A program that does not answer is told where that leaves nobody.
        let program = of_program(cause.code);
        let key = (format!("{:?}", cause.code), cause.object.clone());
        if program && !nobody || told.contains(&key) {
            continue;
        }
        told.push(key);
        let who = if nobody {
            "nobody reaches it"
        } else {
            match reach.from {
                Side::Outside => "it is not reached from outside",
                _ => "the host does not reach it",
            }
        };
        all.push(Difference {
            owner: port.owner,
            from: reach.from,
            address: reach.address.clone(),
            summary: format!(
                "{} is published at {}, but {who}: {}",
                capital(&name(port)),
                reach.address,
                cause.summary
            ),
            cause: Some(cause.clone()),
        });
    }
}

/// It is published at an address that the host does not have.
fn at_nobodys(state: &ObservedState, port: &PublishedPort) -> Option<Difference> {
    let ip = port.asked.bound.filter(|_| port.is_wharfs())?;
    let cause = nobodys(state, ip).filter(|_| port.asked.serves(Family::of(ip)))?;
    let address = outlook::show_end(ip, port.asked.port);
    Some(Difference {
        owner: port.owner,
        from: Side::Outside,
        summary: format!(
            "{} is published at {address}, but nobody reaches it: {}",
            capital(&name(port)),
            cause.summary
        ),
        address,
        cause: Some(cause),
    })
}

impl PublishedPort {
    fn is_wharfs(&self) -> bool {
        self.owner == Owner::Wharf
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}
