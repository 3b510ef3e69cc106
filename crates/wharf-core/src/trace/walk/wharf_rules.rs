//! wharf's own tables: which of its promises a rule keeps, and which wharf command changes it.
//!
//! The names are those of `compile::base` and `compile::rules`.

use std::net::{IpAddr, Ipv6Addr};

use crate::addr::{Family, Mac};
use crate::network::NetworkSpec;
use crate::trace::env::Blame;
use crate::trace::packet::Packet;
use crate::trace::report::{Code, Owner};
use crate::trace::ruleset::{Hook, TableFamily};
use crate::trace::state::{HOST, Place, SpaceId};

use super::Walk;
use super::fault::Fault;
use super::hooks::{Site, Sort};
use super::resolve::solicited;
use super::route;
use super::rules::{family_word, object};

/// What wharf gave a container.
struct Given {
    space: SpaceId,
    link: String,
    mac: Option<Mac>,
    nets: Vec<ipnet::IpNet>,
}

impl<'a> Walk<'a> {
    /// What a drop inside wharf's tables means.
    pub(super) fn fault_of_wharf(&self, site: Site, blame: &Blame, packet: &Packet) -> Fault {
        let base = Fault::new(Code::FirewallRule, site.space, object(blame), String::new())
            .owner(Owner::Wharf)
            .evidence(format!(
                "nft -a list chain {} wharf {}: {}",
                family_word(blame.family),
                blame.chain,
                blame.text
            ));
        if blame.family == TableFamily::Bridge && !blame.chain.ends_with("-apart") {
            return self.guarded(site, base, packet, true);
        }
        // A verdict map decides by itself: its rule is in the base chain.
        let part = blame.chain.strip_prefix("net-").and_then(|rest| {
            let (net, part) = rest.rsplit_once('-')?;
            Some((self.network(net)?, part))
        });
        match (part, blame.chain.as_str()) {
            (Some((net, "apart")), _) => self.icc_off(base, net, packet),
            (Some((net, "out")), _) => internal(base, net, packet, self.name_of(packet.src)),
            (Some((net, "in")), _) => self.inward(site, base, net, packet),
            (Some((net, "host")), _) => narrowed(base, net, packet, self.name_of(packet.src)),
            (Some((_, "raw")), _) | (None, "raw") => self.guarded(site, base, packet, false),
            (None, "forward") => self.guarded(site, base, packet, false),
            (None, "host") if self.is_gateway(packet.dst) => self.gateway_closed(base, packet),
            (None, "host") => self.guarded(site, base, packet, false),
            (None, "to_docker") => docker_unpublished(base, packet),
            (None, "transit") if blame.text.contains("@unguarded") => {
                docker_unpublished(base, packet)
            }
            (None, "transit") => transit(base, packet),
            _ => {
                let what = format!("wharf's rule stops it: {}", blame.text);
                renamed(base, Code::FirewallRule, what).fix("wharf repair")
            }
        }
    }

    pub(super) fn network(&self, name: &str) -> Option<&'a NetworkSpec> {
        self.state.networks.iter().find(|n| n.name.as_str() == name)
    }

    /// The network of a bridge.
    pub(super) fn network_of_bridge(&self, index: Option<u32>) -> Option<&'a NetworkSpec> {
        let link = self.space(HOST).link(index?)?;
        let mut bridges = self.state.networks.iter().filter(|n| n.is_managed());
        bridges.find(|n| n.bridge.as_str() == link.name)
    }

    fn is_gateway(&self, addr: IpAddr) -> bool {
        let own = self.state.networks.iter().filter(|n| n.is_managed());
        own.flat_map(|n| &n.subnets).any(|s| s.gateway == addr)
    }

    /// The wharf container that has, or was given, an address.
    pub(super) fn name_of(&self, addr: IpAddr) -> Option<String> {
        let all = self.state.containers.iter();
        all.into_iter()
            .find(|c| {
                c.attachments
                    .iter()
                    .any(|a| a.addresses.iter().any(|n| n.addr() == addr))
            })
            .map(|c| c.name.to_string())
    }

    /// The container that is asked for at such a multicast address.
    fn name_of_asked(&self, group: Ipv6Addr) -> Option<String> {
        let asked = |net: &ipnet::IpNet| match net.addr() {
            IpAddr::V6(addr) => solicited(addr) == group,
            IpAddr::V4(_) => false,
        };
        let mut all = self.state.containers.iter();
        let found = all.find(|c| c.attachments.iter().any(|a| a.addresses.iter().any(asked)));
        found.map(|c| c.name.to_string())
    }

    fn guarded(&self, site: Site, base: Fault, packet: &Packet, at_port: bool) -> Fault {
        let space = self.space(site.space);
        if let Some(loose) = self.unplugged(site).filter(|_| !at_port) {
            return loose;
        }
        let port = site.port_in.or(site.iif).and_then(|i| space.link(i));
        let name = port.map_or("this link", |l| l.name.as_str());
        let mac = packet
            .src_mac
            .map_or(String::new(), |m| format!(" and MAC address {m}"));
        let what = if at_port {
            format!(
                "wharf's guard of {name} knows no container there with the address {}{mac}.",
                packet.src
            )
        } else {
            format!(
                "wharf takes no packet from {} to {} in by {name}.",
                packet.src, packet.dst
            )
        };
        let mut fault = renamed(base, Code::SpoofGuard, what);
        let here = site.port_in.or(site.iif).and_then(|i| self.container_at(i));
        if let Some(given) = here {
            fault = self.as_given(fault, &given, packet);
        } else {
            fault = fault.fix("wharf repair");
        }
        fault
    }

    /// The packet came in by a container's cable itself, which is not plugged into its network's bridge.
    fn unplugged(&self, site: Site) -> Option<Fault> {
        let host = self.space(HOST);
        let link = host.link(site.iif.filter(|_| site.space == HOST)?)?;
        let mut joined = self.state.containers.iter().flat_map(|c| &c.attachments);
        let own = joined.find(|a| a.host_interface.as_str() == link.name)?;
        let net = self.network(own.network.as_str());
        let bridge = host.link_named(net.filter(|n| n.is_managed())?.bridge.as_str())?;
        let at = |index| Place { space: HOST, index };
        let loose = link.master != Some(bridge.index);
        loose.then(|| self.not_on_bridge(at(link.index), at(bridge.index)))
    }

    /// Evidence and advice: the container is to have the addresses it was given.
    fn as_given(&self, fault: Fault, given: &Given, packet: &Packet) -> Fault {
        let Given {
            space,
            link,
            mac,
            nets,
        } = given;
        let (enter, own) = (&self.space(*space).enter, self.space(*space));
        let mut fault = fault;
        let (now, index) = own.link_named(link).map_or((None, 0), |l| (l.mac, l.index));
        if let (Some(mac), true) = (mac, now != *mac) {
            fault = fault
                .evidence(format!("{enter}ip link show {link}: wharf gave it {mac}"))
                .fix(format!("{enter}ip link set {link} address {mac}"));
        }
        let wanted = nets.iter().find(|n| route::same_family(**n, packet.src));
        let Some(wanted) = wanted.filter(|n| n.addr() != packet.src) else {
            return fault;
        };
        fault = fault.evidence(format!(
            "{enter}ip addr show dev {link}: wharf gave it {wanted}"
        ));
        let false_one = own
            .addrs
            .iter()
            .find(|a| a.net.addr() == packet.src && a.link == index);
        if let Some(a) = false_one {
            fault = fault.fix(format!("{enter}ip addr del {} dev {link}", a.net));
        }
        let nodad = if wanted.addr().is_ipv6() {
            " nodad"
        } else {
            ""
        };
        fault = fault.fix(format!("{enter}ip addr replace {wanted} dev {link}{nodad}"));
        // The routes by the false address went with it.
        let family = crate::addr::Family::of(packet.src);
        let gateway = self.state.networks.iter().find_map(|n| {
            let own = n
                .subnets
                .iter()
                .find(|s| s.subnet.contains(&wanted.addr()))?;
            Some(own.gateway).filter(|g| crate::addr::Family::of(*g) == family)
        });
        match gateway {
            Some(via) => fault.fix(format!(
                "{enter}ip {}route replace default via {via}",
                super::host::six(via)
            )),
            None => fault,
        }
    }

    /// The fix for a port that was locked to what wharf gave the container there.
    pub(super) fn as_given_at(&self, port: u32, fault: Fault, packet: &Packet) -> Fault {
        match self.container_at(port) {
            Some(given) => {
                let fault = Fault {
                    fix: Vec::new(),
                    ..fault
                };
                self.as_given(fault, &given, packet)
            }
            None => fault,
        }
    }

    /// The container behind a port, and what it was given.
    fn container_at(&self, port: u32) -> Option<Given> {
        let name = &self.space(HOST).link(port)?.name;
        let (c, a) = self.state.containers.iter().find_map(|c| {
            let a = c.attachments.iter();
            let a = a.into_iter().find(|a| a.host_interface.as_str() == name)?;
            Some((c, a))
        })?;
        let space = self.state.container_space(c.name.as_str())?;
        Some(Given {
            space,
            link: a.interface.to_string(),
            mac: Some(a.mac),
            nets: a.addresses.clone(),
        })
    }

    pub(super) fn icc_off(&self, base: Fault, net: &NetworkSpec, packet: &Packet) -> Fault {
        let name = &net.name;
        let to = match packet.dst {
            IpAddr::V6(dst) if dst.is_multicast() => self.name_of_asked(dst),
            dst => self.name_of(dst),
        };
        let what =
            format!("Containers of the network {name} may not talk to each other (icc is off).");
        let mut fault = renamed(base, Code::NetworkIsolation, what)
            .evidence(format!("wharf network inspect {name}: icc false"));
        if let (Some(to), Some(from)) = (to, self.name_of(packet.src)) {
            fault = fault
                .fix(format!("wharf network create {name}-shared"))
                .fix(format!("wharf network connect {name}-shared {from}"))
                .fix(format!("wharf network connect {name}-shared {to}"));
        } else {
            // A frame for somebody else came to a container: the switch was led astray.
            fault = fault.fix("wharf repair");
        }
        fault
    }

    fn inward(&self, site: Site, base: Fault, net: &NetworkSpec, packet: &Packet) -> Fault {
        let from = self.network_of_bridge(site.iif);
        let own = from.is_some_and(|f| f.name == net.name) || site.sort == Sort::Bridged;
        if own {
            return self.icc_off(base, net, packet);
        }
        if net.internal {
            return internal(base, net, packet, self.name_of(packet.dst));
        }
        let target = self
            .name_of(packet.dst)
            .unwrap_or_else(|| packet.dst.to_string());
        if let Some(from) = from {
            let what = format!(
                "wharf keeps the networks {} and {} apart, and {target} is on {}.",
                from.name, net.name, net.name
            );
            let mut fault = renamed(base, Code::NetworkIsolation, what)
                .evidence(format!("wharf network inspect {} {}", from.name, net.name));
            if let Some(client) = self.name_of(packet.src) {
                fault = fault.fix(format!("wharf network connect {} {client}", net.name));
            }
            return fault;
        }
        if let Some(fault) = self.published_and_shut(site, &base, packet, &target) {
            return fault;
        }
        match self.state.container_space(&target) {
            Some(id) => self.not_published(id, packet.dst),
            None => {
                let what = format!(
                    "{} of the network {} is not published.",
                    packet.dst, net.name
                );
                renamed(base, Code::NotPublished, what).fix("wharf repair")
            }
        }
    }

    /// What wharf's own mapping led there is published, and its rules are to let it in.
    fn published_and_shut(
        &self,
        site: Site,
        base: &Fault,
        packet: &Packet,
        target: &str,
    ) -> Option<Fault> {
        let (at, rule, to) = self.dnat.as_ref()?;
        let ours = rule.owner == Owner::Wharf && *at == site.space && *to == packet.dst;
        let local = route::is_local(self.space(site.space), packet.src);
        if !ours || local || site.hook != Hook::Forward {
            return None;
        }
        let what = format!(
            "wharf's rules translate the port that {target} publishes, and do not let it in: one of them is not as wharf made it."
        );
        Some(renamed(base.clone(), Code::RulesChanged, what).fix("wharf repair"))
    }

    fn gateway_closed(&self, base: Fault, packet: &Packet) -> Fault {
        let what = format!(
            "{} is the gateway of a container network, and closed to everybody outside of it.",
            packet.dst
        );
        let fault = renamed(base, Code::NotPublished, what);
        match super::outside::host_address(self.state, packet.family()) {
            Some(addr) => fault
                .evidence(format!("the host is to be reached at {addr}"))
                .fix("ip addr show"),
            None => fault.fix("ip addr show"),
        }
    }
}

fn renamed(base: Fault, code: Code, what: String) -> Fault {
    Fault {
        code,
        summary: what,
        ..base
    }
}

/// Commands that put a container on a further network, by which it then goes out.
pub(super) fn moved(network: &str, options: &str, container: &str) -> Vec<String> {
    vec![
        format!("wharf network create {network}{options}"),
        format!("wharf network connect {network}:gw-priority=1 {container}"),
    ]
}

fn internal(base: Fault, net: &NetworkSpec, packet: &Packet, container: Option<String>) -> Fault {
    let name = &net.name;
    let what = format!(
        "The network {name} is internal: nothing leaves it and nobody comes in, so {} and {} do not meet.",
        packet.src, packet.dst
    );
    renamed(base, Code::InternalNetwork, what)
        .evidence(format!("wharf network inspect {name}: internal"))
        .fix(match container {
            Some(name) => format!("wharf network connect default {name}"),
            None => format!("wharf network inspect {name}"),
        })
}

fn narrowed(base: Fault, net: &NetworkSpec, packet: &Packet, container: Option<String>) -> Fault {
    let name = &net.name;
    let what = format!(
        "Containers of the network {name} may not use this service of the host ({}).",
        super::ends::show_end(packet.dst, packet.dport)
    );
    renamed(base, Code::NetworkIsolation, what)
        .evidence(format!("wharf network inspect {name}: host-access"))
        .fixes(match container {
            Some(container) => moved(&format!("{name}-open"), " -o host-access=all", &container),
            None => vec![format!("wharf network inspect {name}")],
        })
}

fn docker_unpublished(base: Fault, packet: &Packet) -> Fault {
    let what = format!(
        "{} is a container of Docker's: it is reached by the ports that Docker publishes, and at no other.",
        super::ends::show_end(packet.dst, packet.dport)
    );
    renamed(base, Code::NetworkIsolation, what)
        .evidence("nft list set inet wharf docker")
        .fix("docker ps --format '{{.Names}} {{.Ports}}'")
}

fn transit(base: Fault, packet: &Packet) -> Fault {
    let what = "wharf turned forwarding on for its own networks only; what the host did not forward before it still does not.";
    let sysctl = match Family::of(packet.src) {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    };
    // What the host's files turn on at boot is for everybody, now too.
    renamed(base, Code::ForwardingDisabled, what.to_owned())
        .evidence("nft list chain inet wharf transit")
        .fix(format!(
            "echo '{sysctl} = 1' >> /etc/sysctl.d/90-router.conf"
        ))
        .fix("wharf repair")
}
