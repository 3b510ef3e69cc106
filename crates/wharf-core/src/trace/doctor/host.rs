//! The host itself: forwarding, connection tracking, ports, switches that silence echoes, traffic control.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::{Code, Owner};
use crate::trace::ruleset::Hook;
use crate::trace::state::{Flow, HOST, Link, Place, Space, SpaceId, TcDrop};
use crate::trace::walk::outlook;

use super::Severity::{Error, Info, Warning};
use super::{Finding, Findings, Scene, host_place};

/// `IPS_DST_NAT` (`linux/netfilter/nf_conntrack_common.h`).
const DST_NAT: u32 = 1 << 5;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Parts of a hundred from which a table counts as nearly full.
const NEARLY: u64 = 90;

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    forwarding(scene, found);
    bridge_netfilter(scene, found);
    no_way_out(scene, found);
    stale(scene, found);
    let concerned = scene.members.iter().map(|m| m.id).chain([HOST]);
    let mut seen: Vec<SpaceId> = Vec::new();
    for id in concerned {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let space = &scene.state.spaces[id];
        tables(space, found);
        echoes(space, id == HOST, found);
        for link in own_links(scene, id) {
            traffic_control(scene, id, link, found);
        }
    }
}

/// Links of a space that traffic of containers passes.
fn own_links<'a>(scene: &Scene<'a>, id: SpaceId) -> Vec<&'a Link> {
    let space = &scene.state.spaces[id];
    if id != HOST {
        return space.links.iter().filter(|l| !l.loopback).collect();
    }
    let mut all: Vec<&Link> = scene.members.iter().filter_map(|m| m.cable).collect();
    all.extend(scene.state.networks.iter().filter_map(|n| scene.bridge(n)));
    let defaults = space.routes.iter().filter(|r| r.dst.prefix_len() == 0);
    let ways = defaults.flat_map(|r| r.hops.iter().filter_map(|h| space.link(h.link?)));
    for link in ways {
        if !all.iter().any(|l| l.index == link.index) {
            all.push(link);
        }
    }
    all
}

fn forwarding(scene: &Scene, found: &mut Findings) {
    let host = scene.host();
    for net in scene.state.networks.iter().filter(|n| !n.internal) {
        let Some(bridge) = scene.bridge(net) else {
            continue;
        };
        for family in Family::BOTH {
            if net.subnet(family).is_none() || !net.has_gateway_address(family) {
                continue;
            }
            let (all, own) = match family {
                Family::V4 => (
                    "net.ipv4.ip_forward".to_owned(),
                    Some(format!(
                        "net.ipv4.conf.{}.forwarding",
                        outlook::sysctl_name(bridge)
                    )),
                ),
                Family::V6 => ("net.ipv6.conf.all.forwarding".to_owned(), None),
            };
            let off = |name: &String| host.sysctl(name) == Some(0);
            let off = [Some(all), own].into_iter().flatten().find(off);
            let Some(name) = off else {
                continue;
            };
            let what = format!(
                "The host passes no {family} packets on for containers of {}: {name} is 0.",
                net.name
            );
            found.add(
                Finding::new(Error, Code::ForwardingDisabled, "host", name.clone(), what)
                    .evidence(format!("sysctl {name}: 0"))
                    .fix(format!("sysctl -w {name}=1")),
            );
        }
    }
}

/// A host may be alone; containers then reach what is near only.
fn no_way_out(scene: &Scene, found: &mut Findings) {
    let nets = scene.state.networks.iter();
    let used = nets.filter(|n| !n.internal && scene.bridge(n).is_some());
    let four = used.filter(|n| n.subnet(Family::V4).is_some()).count();
    if four == 0 || super::promises::leads_out(scene, Family::V4) {
        return;
    }
    let what = "The host has no default route: containers reach what is near only.";
    found.add(
        Finding::new(Info, Code::NoRoute, "host", "default", what)
            .evidence("ip route show default: nothing"),
    );
}

/// Frames inside bridges are shown to IP rules, and these drop what no rule accepts.
fn bridge_netfilter(scene: &Scene, found: &mut Findings) {
    let host = scene.host();
    let name = "net.bridge.bridge-nf-call-iptables";
    let mut chains = host.ruleset.chains.iter();
    let strict = chains.find(|c| {
        let base = c.base.as_ref();
        c.owner != Owner::Wharf && base.is_some_and(|b| b.hook == Hook::Forward && b.drops)
    });
    let Some(chain) = strict.filter(|_| host.sysctl(name) == Some(1)) else {
        return;
    };
    let what = format!(
        "Frames inside bridges are judged by IP rules ({name} is 1), and the policy of {} {} is to drop.",
        chain.table, chain.name
    );
    found.add(
        Finding::new(Info, Code::BridgeNetfilter, "host", name, what)
            .owner(chain.owner)
            .evidence(format!("sysctl {name}: 1"))
            .fix(format!("sysctl -w {name}=0")),
    );
}

/// Connections that go where nobody is any more, or that began before their port was published.
fn stale(scene: &Scene, found: &mut Findings) {
    let host = scene.host();
    for flow in &host.flows {
        let (asked, answers) = (&flow.original, &flow.reply);
        let translated = flow.status & DST_NAT != 0;
        let nobody = translated && in_subnet(scene, answers.src) && !has(scene, answers.src);
        let before = asked.protocol == UDP && !translated && published(scene, flow);
        // One that is ending is nobody's any more.
        let ends = asked.protocol == TCP && !flow.text.contains("ESTABLISHED");
        if ends || !nobody && !before {
            continue;
        }
        let end = outlook::show_end(asked.dst, asked.dport);
        let what = match nobody {
            true => format!(
                "A tracked connection still takes {end} to {}, which nobody has.",
                answers.src
            ),
            false => format!(
                "A tracked connection keeps {end} on the host, since it is older than the published port."
            ),
        };
        let word = if asked.protocol == UDP { "udp" } else { "tcp" };
        found.add(
            Finding::new(
                Warning,
                Code::ConntrackStale,
                "host",
                flow.text.clone(),
                what,
            )
            .evidence(format!("conntrack -L: {}", flow.text))
            .fix(format!(
                "conntrack -D -p {word} -d {} --dport {}",
                asked.dst, asked.dport
            )),
        );
    }
}

fn in_subnet(scene: &Scene, addr: IpAddr) -> bool {
    let mut subnets = scene.state.networks.iter().flat_map(|n| &n.subnets);
    subnets.any(|s| s.subnet.contains(&addr) && s.gateway != addr)
}

fn has(scene: &Scene, addr: IpAddr) -> bool {
    let mut spaces = scene.state.spaces.iter();
    spaces.any(|s| s.addrs.iter().any(|a| a.net.addr() == addr))
}

/// Whether somebody publishes the port that a connection asked the host for.
fn published(scene: &Scene, flow: &Flow) -> bool {
    let asked = &flow.original;
    if !outlook::is_local(scene.host(), asked.dst) || outlook::is_local(scene.host(), asked.src) {
        return false;
    }
    let state = scene.state;
    let mut all = state.containers.iter().flat_map(|c| state.published(c));
    all.any(|(family, m)| {
        m.protocol.number() == asked.protocol
            && family == Family::of(asked.dst)
            && m.bound_to().is_none_or(|ip| ip == asked.dst)
            && (m.host.first()..=m.host.last()).contains(&asked.dport)
    })
}

/// Tables of the kernel that are full, or nearly.
fn tables(space: &Space, found: &mut Findings) {
    let enter = &space.enter;
    if let Some((count, most)) = space.conntrack.filter(|(_, most)| *most > 0)
        && u64::from(count) * 100 >= u64::from(most) * NEARLY
    {
        let full = count >= most;
        let name = "net.netfilter.nf_conntrack_max";
        let how = if full { "full" } else { "nearly full" };
        let what = format!(
            "The table of connections of {} is {how}: {count} of {most}; new ones are dropped when it is full.",
            space.name
        );
        let severity = if full { Error } else { Warning };
        found.add(
            Finding::new(severity, Code::ConntrackFull, &space.name, name, what)
                .owner(Owner::Kernel)
                .evidence(format!(
                    "{enter}sysctl net.netfilter.nf_conntrack_count: {count}"
                ))
                // The limit is the machine's, and set outside of containers.
                .fix(format!(
                    "sysctl -w {name}={}",
                    u64::from(most.max(32_768)) * 2
                )),
        );
    }
    let (first, last) = outlook::port_range(space);
    let most = u64::from(last - first) + 1;
    if u64::from(space.ports_in_use) * 100 >= most * NEARLY {
        let name = "net.ipv4.ip_local_port_range";
        let full = u64::from(space.ports_in_use) >= most;
        let what = format!(
            "{} of the {most} ports of {} for outgoing connections are in use.",
            space.ports_in_use, space.name
        );
        let severity = if full { Error } else { Warning };
        found.add(
            Finding::new(severity, Code::PortsExhausted, &space.name, name, what)
                .evidence(format!("{enter}sysctl {name}: {first} {last}"))
                .fix(format!("{enter}sysctl -w {name}=\"1024 65535\"")),
        );
    }
    for socket in space
        .sockets
        .iter()
        .filter(|s| s.backlog > 0 && s.queue > s.backlog)
    {
        let end = outlook::show_end(socket.addr, socket.port);
        let what = format!(
            "The program that listens on {end} in {} does not take its connections: {} wait, {} may.",
            space.name, socket.queue, socket.backlog
        );
        found.add(
            Finding::new(Warning, Code::AcceptQueueFull, &space.name, end, what)
                .evidence(format!("{enter}ss -tln sport = :{}", socket.port))
                .fix("restart the program that listens, or give it a longer queue"),
        );
    }
}

fn echoes(space: &Space, host: bool, found: &mut Findings) {
    for name in [
        "net.ipv4.icmp_echo_ignore_all",
        "net.ipv6.icmp.echo_ignore_all",
    ] {
        if space.sysctl(name) != Some(1) {
            continue;
        }
        // On a host that is a wish of many administrators.
        let severity = if host { Info } else { Warning };
        let what = format!("{} answers no pings.", space.name);
        found.add(
            Finding::new(severity, Code::EchoIgnored, &space.name, name, what)
                .evidence(format!("{}sysctl {name}: 1", space.enter))
                .fix(format!("{}sysctl -w {name}=0", space.enter)),
        );
    }
}

/// What drops packets below IP.
fn traffic_control(scene: &Scene, id: SpaceId, link: &Link, found: &mut Findings) {
    let (space, name) = (&scene.state.spaces[id], &link.name);
    let enter = &space.enter;
    for tc in &link.tc {
        let some = match &tc.drops {
            Some(TcDrop::All) => "every packet",
            Some(TcDrop::Ethertype(_) | TcDrop::Matching { .. } | TcDrop::Program { .. }) => {
                "some packets"
            }
            Some(TcDrop::Larger(_)) | None => continue,
        };
        let (show, undo) = match (tc.text.starts_with("qdisc"), tc.ingress) {
            (true, _) => ("qdisc show", format!("qdisc del dev {name} root")),
            (false, true) => (
                "filter show ingress",
                format!("filter del dev {name} ingress"),
            ),
            (false, false) => (
                "filter show egress",
                format!("filter del dev {name} egress"),
            ),
        };
        let what = format!("Traffic control at {name} in {} drops {some}.", space.name);
        found.add(
            Finding::new(
                Warning,
                Code::TrafficControl,
                &space.name,
                tc.text.clone(),
                what,
            )
            .evidence(format!("{enter}tc {show} dev {name}: {}", tc.text))
            .fix(format!("{enter}tc {undo}")),
        );
    }
    if link.xdp {
        let place = if id == HOST {
            host_place(link.index)
        } else {
            Place {
                space: id,
                index: link.index,
            }
        };
        let what = format!(
            "An XDP program at {name} in {} decides about every packet.",
            space.name
        );
        found.add(
            Finding::new(
                Info,
                Code::TrafficControl,
                &space.name,
                format!("{name} xdp"),
                what,
            )
            .owner(outlook::owner_of(scene.state, place))
            .evidence(format!("{enter}ip -details link show {name}: xdp"))
            .fix(format!("{enter}ip link set {name} xdp off")),
        );
    }
}
