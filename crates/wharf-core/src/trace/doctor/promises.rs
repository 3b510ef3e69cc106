//! What wharf promises, walked as `trace` does it: containers reach the outside and each other, the host reaches them,
//! and published ports are reached. What stops one of these packets is a finding.

use std::net::IpAddr;

use crate::addr::Family;
use crate::options::GatewayMode;
use crate::publish::{PortMapping, Protocol};
use crate::trace::L4;
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Cause, Code, Owner, Report, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::HOST;
use crate::trace::walk::outlook::{self, At};

use super::Severity::{Error, Info, Warning};
use super::{Finding, Findings, Member, Scene};

/// What a container asks the outside for: any of them will do.
const ASKED: [(L4, u16); 3] = [(L4::Tcp, 443), (L4::Udp, 53), (L4::Icmp, 0)];
/// A port that is asked where no answer is needed but that somebody refuses.
const ANY_PORT: u16 = 80;

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for member in &scene.members {
        for family in Family::BOTH {
            let known = scene.is_broken(member, found);
            if !known && member.attachment.address(family).is_some() {
                outward(scene, member, family, found);
                from_host(scene, member, family, found);
                sibling(scene, member, family, found);
            }
        }
    }
    for net in &scene.state.networks {
        for family in Family::BOTH {
            empty(scene, net, family, found);
        }
    }
    for container in &scene.state.containers {
        for (family, mapping) in scene.state.published(container) {
            port(scene, container.name.as_str(), &mapping, family, found);
        }
    }
}

/// What a program or its lack does, which is no matter of the network.
pub(in crate::trace) fn of_program(code: Code) -> bool {
    matches!(
        code,
        Code::NotListening | Code::ListeningElsewhere | Code::AcceptQueueFull | Code::EchoIgnored
    )
}

fn of_firewall(code: Code) -> bool {
    matches!(code, Code::FirewallRule | Code::FirewallPolicy)
}

/// The command that shows it.
fn shown(from: &str, to: &str, l4: L4, port: u16) -> String {
    let bare = to.contains(':').then(|| format!("[{to}]"));
    let to = bare.as_deref().unwrap_or(to);
    match l4 {
        L4::Icmp => format!("wharf trace {from} {to}"),
        L4::Tcp => format!("wharf trace {from} {to}:{port}"),
        L4::Udp => format!("wharf trace {from} {to}:{port}/udp"),
    }
}

/// The first cause of a report, and of the others those that do not follow from it.
fn causes(report: Report) -> impl Iterator<Item = Cause> {
    let apart = |cause: &Cause| {
        matches!(
            cause.code,
            Code::FirewallRule
                | Code::FirewallPolicy
                | Code::BridgeNetfilter
                | Code::RouteRejects
                | Code::TrafficControl
                | Code::MtuExceeded
        )
    };
    report
        .cause
        .into_iter()
        .chain(report.also.into_iter().filter(apart))
}

fn is_forward(scene: &Scene, object: &str) -> bool {
    let mut chains = scene.host().ruleset.chains.iter();
    chains.any(|c| {
        let hook = c.base.as_ref().map(|b| b.hook);
        hook == Some(Hook::Forward) && object.ends_with(&format!(" {} {}", c.table, c.name))
    })
}

/// What lets the networks of wharf through a policy, whichever way the packet went that met it.
fn widen(scene: &Scene, cause: &mut Cause) {
    if cause.code != Code::FirewallPolicy {
        return;
    }
    let bridges = || {
        let nets = scene.state.networks.iter();
        nets.filter(|n| scene.bridge(n).is_some())
            .map(|n| n.bridge.as_str())
    };
    let first = cause.fix.first().cloned().unwrap_or_default();
    let both = |a: &dyn Fn(&str) -> String, b: &dyn Fn(&str) -> String| {
        bridges()
            .flat_map(|br| [a(br), b(br)])
            .collect::<Vec<String>>()
    };
    let chain = cause
        .object
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    let insert = format!("nft insert rule {}", cause.object);
    cause.fix = match first.split_once(" -I ") {
        Some((tool, rest))
            if ["DOCKER-USER", &chain].iter().any(|at| {
                ["-i", "-o"]
                    .iter()
                    .any(|way| rest.starts_with(&format!("{at} {way} ")))
            }) =>
        {
            let at = rest.split(' ').next().unwrap_or_default();
            both(&|br| format!("{tool} -I {at} -i {br} -j ACCEPT"), &|br| {
                format!("{tool} -I {at} -o {br} -j ACCEPT")
            })
        }
        _ if first.starts_with("ufw route ") => {
            both(&|br| format!("ufw route allow in on {br}"), &|br| {
                format!("ufw route allow out on {br}")
            })
        }
        _ if first.starts_with(&insert) && is_forward(scene, &cause.object) => {
            both(&|br| format!("{insert} iifname {br} accept"), &|br| {
                format!("{insert} oifname {br} accept")
            })
        }
        _ => return,
    };
}

/// Puts down what stopped a promised packet. `counts` says of each cause whether and how much.
fn put_down(
    scene: &Scene,
    report: Report,
    command: &str,
    found: &mut Findings,
    counts: impl Fn(&Cause) -> Option<super::Severity>,
) {
    for mut cause in causes(report) {
        // By looking at the segment it was found already, with its remedy.
        let twice = matches!(
            cause.code,
            Code::DuplicateAddress
                | Code::DuplicateMac
                | Code::NeighbourWrong
                | Code::RouteConflict
        );
        if twice && found.knows(cause.code, &cause.netns) {
            continue;
        }
        if let Some(severity) = counts(&cause) {
            widen(scene, &mut cause);
            let mut finding = Finding::of(cause, severity);
            finding.evidence.push(command.to_owned());
            found.add(finding);
        }
    }
}

pub(super) fn leads_out(scene: &Scene, family: Family) -> bool {
    outlook::leads_out(scene.host(), family)
}

/// A container reaches the outside by the network that carries its default route.
fn outward(scene: &Scene, member: &Member, family: Family, found: &mut Findings) {
    let (net, who) = (member.net, member.name());
    let carries = member.attachment.default_routes.contains(&family);
    let to = outlook::stranger(scene.state, family);
    if !carries || net.internal || !leads_out(scene, family) {
        return;
    }
    let src = member.attachment.address(family).map(|n| n.addr());
    let ask = |l4, port| Query {
        source: Source::Space(member.id, src),
        target: Target::Outside(None),
        l4,
        port,
    };
    let mut first: Option<Report> = None;
    for (l4, port) in ASKED {
        let report = scene.tracer.trace(&ask(l4, port));
        let firewall = report.cause.as_ref().is_some_and(|c| of_firewall(c.code));
        let fails = first.get_or_insert(report);
        if !firewall {
            // Whatever it is, it is not the choice of an administrator; or another way is open.
            let chosen = fails.cause.as_ref().is_some_and(|c| of_firewall(c.code));
            if chosen {
                return;
            }
            break;
        }
    }
    let Some(report) = first else {
        return;
    };
    let command = shown(who, &to.to_string(), L4::Tcp, 443);
    let translated = net.masquerade && net.settings.gateway_mode(family) == GatewayMode::Nat;
    put_down(scene, report, &command, found, |cause| {
        let ours = is_ours(scene, &cause.netns);
        match cause.code {
            code if of_program(code) => None,
            // Cables and bridges were compared already.
            Code::MtuExceeded if cause.owner == Owner::Wharf || cause.netns != "host" => None,
            Code::MtuExceeded => Some(Warning),
            // Without masquerade the way back is others' to provide.
            Code::NoMasquerade | Code::NoReturnRoute if !translated && ours => Some(Info),
            Code::NoReturnRoute | Code::NoRoute if !ours => (!translated).then_some(Warning),
            _ => ours.then_some(Error),
        }
    });
}

/// A namespace that is the host's, or a container's.
fn is_ours(scene: &Scene, netns: &str) -> bool {
    netns == scene.host().name || scene.members.iter().any(|m| m.name() == netns)
}

/// The host reaches its containers; its own firewall may be of another opinion.
fn from_host(scene: &Scene, member: &Member, family: Family, found: &mut Findings) {
    let has_gateway = member.net.has_gateway_address(family);
    let Some(addr) = member.attachment.address(family).filter(|_| has_gateway) else {
        return;
    };
    let query = Query {
        source: Source::Space(HOST, None),
        target: Target::Address(addr.addr()),
        l4: L4::Tcp,
        port: ANY_PORT,
    };
    let command = shown("host", member.name(), L4::Tcp, ANY_PORT);
    put_down(
        scene,
        scene.tracer.trace(&query),
        &command,
        found,
        |cause| {
            let theirs = of_program(cause.code) || of_firewall(cause.code);
            match cause.code {
                _ if theirs => None,
                Code::MtuExceeded => None,
                _ => is_ours(scene, &cause.netns).then_some(Error),
            }
        },
    );
}

/// A container reaches the next one of its network.
fn sibling(scene: &Scene, member: &Member, family: Family, found: &mut Findings) {
    if !member.net.icc {
        return;
    }
    let all: Vec<&Member> = scene
        .of_net(member.net)
        .filter(|m| m.attachment.address(family).is_some() && !scene.is_broken(m, found))
        .collect();
    let here = all.iter().position(|m| m.id == member.id);
    let Some(next) = here.and_then(|at| all.get((at + 1) % all.len())) else {
        return;
    };
    let Some(addr) = next
        .attachment
        .address(family)
        .filter(|_| next.id != member.id)
    else {
        return;
    };
    let query = Query {
        source: Source::Space(member.id, None),
        target: Target::Address(addr.addr()),
        l4: L4::Tcp,
        port: ANY_PORT,
    };
    let command = shown(member.name(), next.name(), L4::Tcp, ANY_PORT);
    put_down(
        scene,
        scene.tracer.trace(&query),
        &command,
        found,
        |cause| {
            let inside = cause.netns != scene.host().name;
            match cause.code {
                code if of_program(code) => None,
                // What a container's own rules refuse is its own choice.
                code if of_firewall(code) && inside => Some(Info),
                Code::MtuExceeded => None,
                _ => is_ours(scene, &cause.netns).then_some(Error),
            }
        },
    );
}

/// A network without containers: would the host's rules let one out?
fn empty(scene: &Scene, net: &crate::network::NetworkSpec, family: Family, found: &mut Findings) {
    let (Some(bridge), Some(subnet)) = (scene.bridge(net), net.subnet(family)) else {
        return;
    };
    if net.internal || scene.of_net(net).next().is_some() || !leads_out(scene, family) {
        return;
    }
    let mut hosts = subnet.subnet.hosts();
    let Some(src) = hosts.find(|h| *h != subnet.gateway) else {
        return;
    };
    let oif = outlook::uplinks(scene.state, family).first().copied();
    let at = At {
        hook: Hook::Forward,
        iif: Some(bridge.index),
        oif,
    };
    let to = outlook::stranger(scene.state, family);
    let mut stopped: Vec<Cause> = Vec::new();
    for (l4, port) in ASKED {
        let query = Query {
            source: Source::Space(HOST, None),
            target: Target::Address(to),
            l4,
            port,
        };
        match outlook::judge(&scene.tracer, &query, at, src, to).cause {
            Some(cause) if cause.owner != Owner::Wharf => stopped.push(cause),
            _ => return,
        }
    }
    if let Some(cause) = stopped.into_iter().next() {
        let mut cause = cause;
        widen(scene, &mut cause);
        let mut finding = Finding::of(cause, Error);
        finding
            .evidence
            .push(format!("no container of {} would reach {to}", net.name));
        found.add(finding);
    }
}

/// The protocol as the walk has it; SCTP it has not.
pub(in crate::trace) fn walked(protocol: Protocol) -> Option<L4> {
    match protocol {
        Protocol::Tcp => Some(L4::Tcp),
        Protocol::Udp => Some(L4::Udp),
        Protocol::Sctp => None,
    }
}

/// A published port is reached from outside, or from the host where it is bound to loopback.
fn port(scene: &Scene, name: &str, mapping: &PortMapping, family: Family, found: &mut Findings) {
    let Some(l4) = walked(mapping.protocol) else {
        return;
    };
    let port = mapping.host.first();
    let Some((source, from, addr)) = asker(scene, mapping, family) else {
        return;
    };
    let id = scene.state.container_space(name);
    let carried = scene
        .members
        .iter()
        .any(|m| m.name() == name && m.attachment.address(family).is_some() && !m.net.internal);
    let of_name = |m: &&Member| m.name() == name;
    let mut own = scene.members.iter().filter(of_name);
    if id.is_none() || !carried || own.any(|m| scene.is_broken(m, found)) {
        return;
    }
    let query = Query {
        source,
        target: Target::Address(addr),
        l4,
        port,
    };
    let report = scene.tracer.trace(&query);
    if report.verdict == Verdict::Delivered && report.also.is_empty() {
        return;
    }
    let routed = leads_out(scene, family);
    let command = shown(from, &addr.to_string(), l4, port);
    put_down(scene, report, &command, found, |cause| match cause.code {
        // A program that is not there yet will come.
        Code::NotListening => Some(Info),
        // A program that serves one family only is usual; one that serves itself only is a slip.
        Code::ListeningElsewhere if !on_loopback(&cause.object) => Some(Info),
        Code::ListeningElsewhere | Code::AcceptQueueFull => Some(Warning),
        Code::EchoIgnored | Code::MtuExceeded => None,
        // Without a default route there are no clients beyond it.
        Code::NoRoute | Code::NoReturnRoute | Code::ReversePathFilter if !routed => None,
        _ => is_ours(scene, &cause.netns).then_some(Error),
    });
}

fn on_loopback(end: &str) -> bool {
    end.starts_with("127.") || end.starts_with("[::1]")
}

/// Who is to reach a mapping, and at which address.
fn asker(
    scene: &Scene,
    mapping: &PortMapping,
    family: Family,
) -> Option<(Source, &'static str, IpAddr)> {
    if let Some(ip) = mapping.bound_to() {
        return match ip.is_loopback() {
            true => Some((Source::Space(HOST, None), "host", ip)),
            // An address that the host does not have now may come.
            false => outlook::is_local(scene.host(), ip).then_some((
                Source::Outside(None),
                "outside",
                ip,
            )),
        };
    }
    let host = scene.host();
    let up = outlook::uplinks(scene.state, family);
    let own = up
        .iter()
        .find_map(|index| outlook::addresses(host, family).find(|a| a.link == *index));
    Some((Source::Outside(None), "outside", own?.net.addr()))
}
