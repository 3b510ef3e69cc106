//! Published ports beside the host's own: programs whose port was taken from them, firewalls that believe a port closed.

use crate::addr::Family;
use crate::publish::PortMapping;
use crate::trace::env::{Blame, Ending};
use crate::trace::exposure::{closed_by, outside_addresses};
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Code, Owner};
use crate::trace::ruleset::Hook;
use crate::trace::walk::outlook::{self, At};

use super::Severity::{Info, Warning};
use super::promises::walked;
use super::{Finding, Findings, HostCode, Scene};

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for container in &scene.state.containers {
        let name = container.name.as_str();
        let published = scene.state.published(container);
        for (at, (family, mapping)) in published.iter().enumerate() {
            let known = published[..at].iter().any(|(_, other)| other == mapping);
            if !known {
                listener(scene, name, mapping, found);
            }
            bypass(scene, name, mapping, *family, found);
        }
    }
}

/// A program on the host that gets nothing, since its port is published.
fn listener(scene: &Scene, name: &str, mapping: &PortMapping, found: &mut Findings) {
    let Some(l4) = walked(mapping.protocol) else {
        return;
    };
    for socket in &scene.host().sockets {
        let within = (mapping.host.first()..=mapping.host.last()).contains(&socket.port);
        let family = Family::of(socket.addr);
        let bound = mapping.bound_to();
        let meets = match bound {
            // Only what both answer to is taken away.
            None => mapping.serves(family) && !socket.addr.is_loopback(),
            Some(ip) => {
                socket.addr == ip || socket.addr.is_unspecified() && Family::of(ip) == family
            }
        };
        if socket.protocol != l4 || !within || !meets || socket.remote.is_some() {
            continue;
        }
        let end = outlook::show_end(socket.addr, socket.port);
        let what = format!(
            "A program of the host listens on {end}, but that port is published for {name}, which gets the packets."
        );
        let word = mapping.protocol.as_str();
        let flag = if word == "udp" { "-uln" } else { "-tln" };
        found.add(
            Finding::new(
                Warning,
                Code::PublishShadowed,
                "host",
                format!("{end}/{word}"),
                what,
            )
            .evidence(format!("ss {flag} sport = :{}", socket.port))
            .evidence(format!("wharf port ls {name}"))
            .fix(format!("wharf port rm {name} {mapping}")),
        );
    }
}

/// The host's firewall says that the port is closed, and does not see its packets.
fn bypass(scene: &Scene, name: &str, mapping: &PortMapping, family: Family, found: &mut Findings) {
    let Some(l4) = walked(mapping.protocol) else {
        return;
    };
    if mapping.bound_to().is_some_and(|ip| ip.is_loopback()) {
        return;
    }
    let state = scene.state;
    let port = mapping.host.first();
    let query = Query {
        source: Source::Outside(None),
        target: Target::Outside(None),
        l4,
        port,
    };
    let fits = |addr: &std::net::IpAddr| mapping.bound_to().is_none_or(|ip| ip == *addr);
    for (link, addr) in outside_addresses(state, family)
        .into_iter()
        .filter(|(_, a)| fits(a))
    {
        let at = At {
            hook: Hook::Input,
            iif: Some(link),
            oif: None,
        };
        let src = outlook::stranger(state, family);
        let judged = outlook::judge(&scene.tracer, &query, at, src, addr);
        let Some(blame) = judged.blame.filter(|b| b.owner != Owner::Wharf) else {
            continue;
        };
        if !matches!(judged.ending, Ending::Drop | Ending::Reject) {
            continue;
        }
        // What is stopped on its way to the container bypasses nobody.
        let asked = Query {
            target: Target::Address(addr),
            ..query.clone()
        };
        if closed_by(&scene.tracer.trace(&asked)).is_some() {
            continue;
        }
        let finding = passed_by(name, mapping, &blame);
        found.add(finding.owner(blame.owner));
        break;
    }
}

/// A rule that says so is contradicted; a policy closes everything, and nobody wrote down that it means this port.
fn passed_by(name: &str, mapping: &PortMapping, blame: &Blame) -> Finding {
    let shown = outlook::shown(blame);
    let (port, word) = (mapping.host.first(), mapping.protocol.as_str());
    let code = HostCode::FirewallBypassed;
    if blame.handle.is_none() {
        let what =
            "The firewall closes what no rule opens, but published ports go past it and are open.";
        return Finding::new(Info, code, "host", shown, what)
            .evidence(format!("port {port}/{word} is published for {name}"))
            .evidence("wharf exposure");
    }
    let what = format!(
        "A rule of the firewall closes port {port}/{word} of the host, but it is published for {name} and open."
    );
    let spec = format!("127.0.0.1:{}:{}/{word}", mapping.host, mapping.container);
    Finding::new(Warning, code, "host", shown, what)
        .evidence(format!("nft -a list ruleset: {}", blame.text))
        .evidence(format!("wharf port ls {name}: {mapping}"))
        .fix(format!("wharf port rm {name} {mapping}"))
        .fix(format!("wharf port add {name} {spec}"))
}
