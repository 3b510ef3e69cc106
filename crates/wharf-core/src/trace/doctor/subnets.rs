//! Prefixes that container networks share with others: other engines' bridges, VPNs, routes.
//!
//! What packets meet of it is found by walking them (`promises`); this finds what is still to come.

use ipnet::IpNet;

use crate::addr::{Family, overlap};
use crate::network::NetworkSpec;
use crate::trace::report::{Code, Owner};
use crate::trace::state::{Link, Route, RouteKind};
use crate::trace::walk::outlook;

use super::Severity::{Error, Info, Warning};
use super::{Finding, Findings, HostCode, Kind, Scene, Severity, links};

/// The table of local addresses.
const LOCAL: u32 = 255;
/// `rtm_protocol` of wharf's routes.
const WHARF: u8 = 119;
/// Prefixes this short stand for "everything", as a VPN that takes all has them.
const EVERYTHING: u8 = 7;

/// Another prefix, and where it is.
struct Other<'a> {
    net: IpNet,
    link: &'a Link,
    /// It is the prefix of an address, or a route to what is on the link.
    on_link: bool,
    /// What takes it away.
    remove: String,
    /// What shows it.
    seen: String,
}

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    let others = others(scene);
    // On another program's network the addresses are that program's, by whichever links it leads to them.
    let own = scene.state.networks.iter().filter(|n| !n.adopted);
    for net in own {
        let renamed = scene.renamed_bridge(net).map(|l| l.index);
        for subnet in &net.subnets {
            for other in &others {
                let own =
                    other.link.name == net.bridge.as_str() || Some(other.link.index) == renamed;
                if !own && overlap(subnet.subnet, other.net) {
                    found.add(collision(scene, net, subnet.subnet, other));
                }
            }
        }
    }
}

fn others<'a>(scene: &Scene<'a>) -> Vec<Other<'a>> {
    let host = scene.host();
    let mut all: Vec<Other<'a>> = Vec::new();
    for addr in host.addrs.iter().filter(|a| a.scope == 0) {
        let Some(link) = host.link(addr.link).filter(|l| !l.loopback) else {
            continue;
        };
        all.push(Other {
            net: addr.net.trunc(),
            link,
            on_link: true,
            remove: format!("ip addr del {} dev {}", addr.net, link.name),
            seen: format!("ip addr show dev {}: {}", link.name, addr.net),
        });
    }
    let asked = |table: u32| {
        let mut rules = host.rules.iter();
        table == 254 || rules.any(|r| r.action == crate::trace::state::RuleAction::Table(table))
    };
    for route in host.routes.iter().filter(|r| is_plain(r) && asked(r.table)) {
        let mut hops = route.hops.iter();
        let Some((hop, link)) = hops.find_map(|h| Some((h, host.link(h.link?)?))) else {
            continue;
        };
        let known = |o: &Other| o.net == route.dst.trunc() && o.link.index == link.index;
        if link.loopback || all.iter().any(known) {
            continue;
        }
        let six = if Family::of_net(route.dst) == Family::V6 {
            "-6 "
        } else {
            ""
        };
        let shown = outlook::show_route(host, route);
        all.push(Other {
            net: route.dst.trunc(),
            link,
            on_link: hop.via.is_none(),
            remove: format!("ip {six}route del {shown}"),
            seen: format!("ip {six}route show: {shown}"),
        });
    }
    all
}

fn is_plain(route: &Route) -> bool {
    let wide = route.dst.prefix_len() <= EVERYTHING;
    route.kind == RouteKind::Unicast && route.table != LOCAL && route.protocol != WHARF && !wide
}

fn collision(scene: &Scene, net: &NetworkSpec, subnet: IpNet, other: &Other) -> Finding {
    let dev = other.link.name.as_str();
    let owner = links::owner(scene, other.link.index);
    let taken: Vec<String> = scene
        .of_net(net)
        .filter(|m| {
            let mut own = m.attachment.addresses.iter();
            own.any(|a| other.net.contains(&a.addr()))
        })
        .map(|m| m.name().to_owned())
        .collect();
    let inside = subnet.contains(&other.net);
    let severity = severity(inside, other, &taken, subnet);
    let what = match (inside, other.net == subnet) {
        (_, true) => format!(
            "The network {} and {dev} have the same prefix, {subnet}.",
            net.name
        ),
        (true, _) => format!(
            "{} of the network {} is at {dev} as well.",
            other.net, net.name
        ),
        (false, _) => format!(
            "{subnet} of the network {} is cut out of {}, which is at {dev}: hosts there with such addresses are not reached.",
            net.name, other.net
        ),
    };
    // Where it takes packets away it is what `trace` finds as well.
    let code = match severity {
        Error => Kind::from(Code::RouteConflict),
        _ => HostCode::SubnetCollision.into(),
    };
    let mut finding = Finding::new(
        severity,
        code,
        "host",
        match inside {
            true => format!("{} dev {dev}", other.net),
            false => format!("{} dev {dev} ({})", other.net, net.name),
        },
        what,
    )
    .owner(owner)
    .evidence(other.seen.clone())
    .evidence(format!("wharf network inspect {}: {subnet}", net.name));
    if !taken.is_empty() && inside {
        finding = finding.evidence(format!("addresses there: {}", taken.join(", ")));
    }
    if owner == Owner::User && inside {
        return finding.fix(other.remove.clone());
    }
    finding.fix = move_away(scene, net);
    finding
}

fn severity(inside: bool, other: &Other, taken: &[String], subnet: IpNet) -> Severity {
    let narrower = other.net.prefix_len() > subnet.prefix_len();
    match (inside, other.on_link) {
        (true, _) if narrower && !taken.is_empty() => Error,
        (true, _) | (false, true) => Warning,
        // A route to a wider prefix by a gateway leaves the narrower one alone.
        (false, false) => Info,
    }
}

/// Commands that bring a network's containers to another one, whose subnet is free.
fn move_away(scene: &Scene, net: &NetworkSpec) -> Vec<String> {
    let (old, new) = (&net.name, format!("{}-moved", net.name));
    let six = if net.has_v6() { " --ipv6" } else { "" };
    let mut all = vec![format!("wharf network create {new}{six}")];
    for member in scene.of_net(net) {
        let name = member.name();
        all.push(format!("wharf network connect {new} {name}"));
        all.push(format!("wharf network disconnect {old} {name}"));
    }
    all.push(format!("wharf network rm {old}"));
    all
}
