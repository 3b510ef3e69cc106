//! Bridges, cables and interfaces of containers: are they there, up, plugged in, and do they have their addresses?

use crate::addr::Family;
use crate::attach::Container;
use crate::network::NetworkSpec;
use crate::trace::report::{Code, Owner};
use crate::trace::state::{Link, RouteKind};
use crate::trace::walk::outlook;

use super::Severity::{Error, Warning};
use super::{Finding, Findings, HostCode, Member, Scene, host_place};

/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for net in &scene.state.networks {
        let name = net.bridge.as_str();
        let used = scene.of_net(net).next().is_some();
        match scene.bridge(net) {
            Some(link) if !link.up => found.add(
                of_wharf(Finding::new(
                    Error,
                    Code::BridgeDown,
                    "host",
                    name,
                    format!("The bridge {name} of the network {} is down.", net.name),
                ))
                .evidence(format!("ip link show {name}: no UP"))
                .fix(format!("ip link set {name} up"))
                .fix("wharf repair"),
            ),
            Some(link) if link.noarp => found.add(
                of_wharf(Finding::new(
                    Error,
                    Code::NeighbourUnreachable,
                    "host",
                    name,
                    format!("{name} in host neither asks nor answers for addresses (ARP is off)."),
                ))
                .evidence(format!("ip link show {name}: NOARP"))
                .fix(format!("ip link set {name} arp on"))
                .fix("wharf repair"),
            ),
            None if scene.renamed_bridge(net).is_some() => {
                let what = format!("The bridge {name} of the network {}", net.name);
                found.add(renamed(name, scene.renamed_bridge(net), what));
            }
            // After a reboot a bridge is made when somebody needs it.
            None if used => found.add(
                of_wharf(Finding::new(
                    Error,
                    Code::NotOnBridge,
                    "host",
                    name,
                    format!("The bridge {name} of the network {} is gone.", net.name),
                ))
                .evidence(format!("ip link show {name}: does not exist"))
                .fix("wharf repair"),
            ),
            _ => {}
        }
    }
    for net in scene.state.networks.iter().filter(|n| n.has_own_bridge()) {
        swallowed(scene, net, found);
    }
    for container in &scene.state.containers {
        let name = container.name.as_str();
        let state = scene.state;
        // Several attachments of one namespace may be containers of their own (CNI), of which it bears one's name.
        let there = |other: &Container| {
            other.netns.path == container.netns.path
                && state.container_space(other.name.as_str()).is_some()
        };
        if !state.containers.iter().any(there) {
            let path = container.netns.path.display();
            let what = format!("The namespace of {name} is not at {path} any more.");
            found.add(
                of_wharf(Finding::new(
                    Warning,
                    HostCode::Leftover,
                    "host",
                    format!("container {name}"),
                    what,
                ))
                .evidence(format!("ls {path}"))
                .fix(format!("wharf rm -f {name}")),
            );
        }
    }
    for member in &scene.members {
        cable(scene, member, found);
        interface(scene, member, found);
    }
}

fn of_wharf(finding: Finding) -> Finding {
    finding.owner(Owner::Wharf)
}

/// A link of the host's that somebody plugged into a network's bridge: what comes in by it does not get to its addresses.
fn swallowed(scene: &Scene, net: &NetworkSpec, found: &mut Findings) {
    let host = scene.host();
    let Some(bridge) = scene.bridge(net) else {
        return;
    };
    for link in host.links.iter().filter(|l| l.master == Some(bridge.index)) {
        let mut own = host.addrs.iter();
        let Some(addr) = own.find(|a| a.link == link.index && a.scope == 0) else {
            continue;
        };
        let (name, into) = (&link.name, &bridge.name);
        let what = format!(
            "{name}, which has the host's address {}, is plugged into {into}, the bridge of the network {}: the host does not get its packets.",
            addr.net.addr(),
            net.name
        );
        found.add(
            Finding::new(Error, Code::NotOnBridge, "host", name, what)
                .evidence(format!("ip link show {name}: master {into}"))
                .evidence(format!("ip addr show dev {name}: {}", addr.net))
                .fix(format!("ip link set {name} nomaster")),
        );
    }
}

/// A link that is there under another name. Rules and settings go by names.
fn renamed(name: &str, link: Option<&Link>, what: String) -> Finding {
    let is = link.map_or("", |l| l.name.as_str());
    let what = format!("{what} was given another name, {is}.");
    of_wharf(Finding::new(Error, Code::NotOnBridge, "host", name, what))
        .evidence(format!("ip link show {name}: does not exist"))
        .evidence(format!("ip link show {is}"))
        .fix(format!("ip link set {is} name {name}"))
        .fix("wharf repair")
}

/// The host's end.
fn cable(scene: &Scene, member: &Member, found: &mut Findings) {
    let name = member.attachment.host_interface.as_str();
    let (who, net) = (member.name(), &member.net.name);
    let Some(link) = member.cable else {
        if let link @ Some(_) = scene.renamed_cable(member) {
            let what = format!("The cable {name} of {who} to the network {net}");
            found.add(renamed(name, link, what));
            return;
        }
        let what = format!("The cable {name} of {who} to the network {net} is gone.");
        found.add(
            of_wharf(Finding::new(Error, Code::NoCarrier, "host", name, what))
                .evidence(format!("ip link show {name}: does not exist"))
                .fix("wharf repair"),
        );
        return;
    };
    if !link.up {
        let what = format!("{name}, the cable of {who} to the network {net}, is down.");
        found.add(
            of_wharf(Finding::new(Error, Code::LinkDown, "host", name, what))
                .evidence(format!("ip link show {name}: no UP"))
                .fix(format!("ip link set {name} up"))
                .fix("wharf repair"),
        );
    }
    let Some(bridge) = scene.bridge(member.net) else {
        return;
    };
    // Another program's cable may lead to no bridge, and the network stands for the cable itself.
    if bridge.index == link.index {
        return;
    }
    if link.master != Some(bridge.index) {
        let other = link.master.and_then(|m| scene.host().link(m));
        let seen = other.map_or("no master".to_owned(), |o| format!("master {}", o.name));
        let what = format!(
            "{name}, the cable of {who}, is not plugged into {} ({seen}).",
            bridge.name
        );
        found.add(
            of_wharf(Finding::new(Error, Code::NotOnBridge, "host", name, what))
                .evidence(format!("ip link show {name}: {seen}"))
                .fix(format!("ip link set {name} master {}", bridge.name))
                .fix("wharf repair"),
        );
        return;
    }
    port(scene, member, link, found);
}

/// How the bridge treats the cable.
fn port(scene: &Scene, member: &Member, link: &Link, found: &mut Findings) {
    let Some(port) = &link.port else {
        return;
    };
    let name = &link.name;
    let bridge_up = scene.bridge(member.net).is_some_and(|b| b.up);
    if port.state != FORWARDING && link.up && link.carrier && bridge_up {
        let word = ["disabled", "listening", "learning", "", "blocking"];
        let word = word.get(usize::from(port.state)).copied().unwrap_or("?");
        let what = format!("The bridge port {name} of {} is {word}.", member.name());
        // The spanning tree's own decisions cannot be overruled port by port.
        let bridge = scene.bridge(member.net);
        let tree = bridge.filter(|b| b.bridge.as_ref().is_some_and(|s| s.stp));
        let unblock = match tree {
            Some(bridge) => format!("ip link set {} type bridge stp_state 0", bridge.name),
            None => format!("bridge link set dev {name} state 3"),
        };
        found.add(
            of_wharf(Finding::new(
                Error,
                Code::BridgePortBlocked,
                "host",
                name,
                what,
            ))
            .evidence(format!("bridge -d link show dev {name}: state {word}"))
            .fix(unblock)
            .fix("wharf repair"),
        );
    }
    if port.isolated && member.net.icc {
        let isolated = |m: &&Member| {
            let port = m.cable.and_then(|l| l.port.as_ref());
            port.is_some_and(|p| p.isolated)
        };
        let alone = scene.of_net(member.net).filter(isolated).count() == 1;
        let what = format!(
            "The bridge port {name} of {} is isolated: it does not reach other isolated ports of {}.",
            member.name(),
            member.net.bridge
        );
        let severity = if alone { Warning } else { Error };
        found.add(
            of_wharf(Finding::new(
                severity,
                Code::BridgePortBlocked,
                "host",
                name,
                what,
            ))
            .evidence(format!("bridge -d link show dev {name}: isolated on"))
            .fix(format!("bridge link set dev {name} isolated off")),
        );
    }
}

/// The container's end.
fn interface(scene: &Scene, member: &Member, found: &mut Findings) {
    let (space, who) = (member.space, member.name());
    let name = member.attachment.interface.as_str();
    let enter = &space.enter;
    if let Some(lo) = space.links.iter().find(|l| l.loopback && !l.up) {
        let what = format!("The loopback of {who} is down: it does not reach itself.");
        found.add(
            Finding::new(Warning, Code::LinkDown, who, lo.name.clone(), what)
                .evidence(format!("{enter}ip link show {}: no UP", lo.name))
                .fix(format!("{enter}ip link set {} up", lo.name)),
        );
    }
    let Some(link) = member.link else {
        if let Some(cable) = member.cable {
            found.add(lost_interface(member, cable));
        }
        return;
    };
    if !link.up && member.net.settings.interfaces_down {
        // Whoever asked for it sets it up, and gives it what it needs.
        return;
    }
    if !link.up {
        let what = format!("{name} in {who} is down.");
        // With the link its routes went.
        found.add(
            of_wharf(Finding::new(Error, Code::LinkDown, who, name, what))
                .evidence(format!("{enter}ip link show {name}: no UP"))
                .fix(format!("{enter}ip link set {name} up"))
                .fix("wharf repair"),
        );
        return;
    }
    hardware(member, link, found);
    addresses(member, link, found);
    gateways(scene, member, link, found);
}

/// What is inside is its owner's to name and to move away: `wharf repair` leaves it alone.
fn lost_interface(member: &Member, cable: &Link) -> Finding {
    let (who, enter) = (member.name(), &member.space.enter);
    let name = member.attachment.interface.as_str();
    let inside = cable.peer.filter(|peer| peer.space == member.id);
    let inside = inside.and_then(|peer| member.space.link(peer.index));
    let new = |what: String| {
        Finding::new(Error, Code::NoAddress, who, name, what)
            .evidence(format!("{enter}ip link show {name}: does not exist"))
    };
    match inside {
        Some(link) => {
            let is = &link.name;
            // Kernels before 6.2 rename links only while they are down; with that go its routes.
            new(format!("The interface {name} of {who} has the name {is}."))
                .evidence(format!("{enter}ip link show {is}"))
                .fix(format!("{enter}ip link set {is} down"))
                .fix(format!("{enter}ip link set {is} name {name}"))
                .fix(format!("{enter}ip link set {name} up"))
                .fix("wharf repair")
        }
        None => {
            let net = &member.net.name;
            let own = member.attachment.addresses.iter();
            let own: String = own.map(|a| format!(" --ip {}", a.addr())).collect();
            new(format!(
                "The interface {name} of {who} is not there any more."
            ))
            .fix(format!("wharf network disconnect {net} {who}"))
            .fix(format!("wharf network connect{own} {net} {who}"))
        }
    }
}

/// The hardware address that wharf gave; frames from another one are not taken. On another program's bridge they are.
fn hardware(member: &Member, link: &Link, found: &mut Findings) {
    if member.net.adopted {
        return;
    }
    let (right, enter) = (member.attachment.mac, &member.space.enter);
    let Some(mac) = link.mac.filter(|mac| *mac != right) else {
        return;
    };
    let (who, name) = (member.name(), &link.name);
    let what = format!("{name} in {who} has the MAC address {mac}; wharf gave it {right}.");
    found.add(
        Finding::new(Error, Code::SpoofGuard, who, name.clone(), what)
            .evidence(format!("{enter}ip link show {name}: {mac}"))
            .fix(format!("{enter}ip link set {name} address {right}")),
    );
}

fn addresses(member: &Member, link: &Link, found: &mut Findings) {
    let (space, who) = (member.space, member.name());
    let (name, enter) = (&link.name, &space.enter);
    for net in &member.attachment.addresses {
        let family = Family::of_net(*net);
        let has = space
            .addrs
            .iter()
            .find(|a| a.link == link.index && a.net.addr() == net.addr());
        let off = format!("net.ipv6.conf.{}.disable_ipv6", outlook::sysctl_name(link));
        if family == Family::V6 && space.sysctl(&off) == Some(1) {
            let what = format!("IPv6 is switched off on {name} in {who}.");
            found.add(
                Finding::new(Error, Code::Ipv6Disabled, who, off.clone(), what)
                    .evidence(format!("{enter}sysctl {off}: 1"))
                    .fix(format!("{enter}sysctl -w {off}=0"))
                    .fix("wharf repair"),
            );
            continue;
        }
        let show = format!("{enter}ip addr show dev {name}");
        match has {
            None => {
                let what = format!("{who} lost the address {} that wharf gave it.", net.addr());
                found.add(
                    of_wharf(Finding::new(
                        Error,
                        Code::NoAddress,
                        who,
                        net.to_string(),
                        what,
                    ))
                    .evidence(format!("{show}: no {net}"))
                    .fix(format!("{enter}ip addr add {net} dev {name}"))
                    .fix("wharf repair"),
                );
            }
            Some(a) if a.dad_failed => {
                let what = format!("{who} may not use {}: another host has it.", net.addr());
                found.add(
                    Finding::new(Error, Code::Ipv6Disabled, who, net.to_string(), what)
                        .evidence(format!("{show}: dadfailed"))
                        .fix(format!("{enter}ip addr del {net} dev {name}"))
                        .fix(format!("{enter}ip addr add {net} dev {name} nodad")),
                );
            }
            Some(a) if a.net.prefix_len() != net.prefix_len() => {
                let what = format!("{name} in {who} has the prefix of {}, not of {net}.", a.net);
                found.add(
                    Finding::new(Error, Code::WrongPrefixLength, who, a.net.to_string(), what)
                        .evidence(format!("{show}: {}", a.net))
                        .fix(format!("{enter}ip addr del {} dev {name}", a.net))
                        .fix(format!("{enter}ip addr add {net} dev {name}"))
                        .fix("wharf repair"),
                );
            }
            Some(_) => {}
        }
    }
}

/// The default routes that wharf gave.
fn gateways(scene: &Scene, member: &Member, link: &Link, found: &mut Findings) {
    let (space, who) = (member.space, member.name());
    let enter = &space.enter;
    if !space.full || member.space.routes.is_empty() && space.addrs.is_empty() {
        return;
    }
    for family in &member.attachment.default_routes {
        let gateway = member.attachment.gateways.iter();
        let Some(gateway) = gateway.into_iter().find(|g| Family::of(**g) == *family) else {
            continue;
        };
        // `0.0.0.0/1` and `128.0.0.0/1` do as well.
        let leads = space.routes.iter().any(|r| {
            Family::of_net(r.dst) == *family
                && r.dst.prefix_len() <= 1
                && r.kind == RouteKind::Unicast
        });
        let six = if *family == Family::V6 { "-6 " } else { "" };
        if leads || scene.state.unread.iter().any(|u| u.netns == who) {
            continue;
        }
        let what =
            format!("{who} has no default route for {family}: it reaches its own network only.");
        found.add(
            Finding::new(Error, Code::NoRoute, who, "default", what)
                .evidence(format!("{enter}ip {six}route show default: nothing"))
                .fix(format!(
                    "{enter}ip {six}route replace default via {gateway} dev {}",
                    link.name
                ))
                .fix("wharf repair"),
        );
    }
}

/// Whose a link of the host is.
pub(super) fn owner(scene: &Scene, index: u32) -> Owner {
    outlook::owner_of(scene.state, host_place(index))
}
