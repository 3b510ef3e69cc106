//! Who reaches which published port now, and who claims otherwise.
//!
//! Every port is asked for from every side, by walking a packet over the rules of all tools; the firewalls' own opinion
//! is what they do with such a packet to the host itself. Where both differ, or where a mapping is wider or narrower
//! than it says, is a difference.
//!
//! Of a range the first port stands for all. Not here: programs of the host that listen, since they are not published.

mod by_rules;
mod differs;
mod foreign;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};

use crate::addr::Family;
use crate::attach::Phase;
use crate::publish::PortMapping;
use crate::trace::doctor::{of_program, walked};
use crate::trace::env::Ending;
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Cause, Code, Owner, Report, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{HOST, ObservedState, SpaceId};
use crate::trace::walk::outlook::{self, At};
use crate::trace::{L4, Tracer};

pub use differs::Difference;

/// The most addresses of the host that are asked, by family.
const MOST_ADDRESSES: usize = 16;

/// All published ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// wharf's first, in the order of containers, then others'.
    pub ports: Vec<PublishedPort>,
}

/// A published port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedPort {
    /// The container, where it is known.
    pub container: Option<String>,
    /// Who publishes it.
    pub owner: Owner,
    /// The host address; empty for any.
    pub host_ip: String,
    /// `8080` or `8000-8010`.
    pub host_port: String,
    /// Alike, inside.
    pub container_port: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The container's own addresses, in families in which it answers there, untranslated, and not at the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<IpAddr>,
    /// Who reaches it.
    pub reach: Vec<Reach>,
    /// What firewalls say of it.
    pub claims: Vec<Claim>,
    /// Where it is not as somebody says.
    pub differs: Vec<Difference>,
    /// The rule that publishes it, where it is not wharf's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip)]
    asked: Asked,
}

impl PublishedPort {
    /// Whether the host translates it, in one family at least.
    pub fn is_translated(&self) -> bool {
        let asked = self.asked;
        let mut served = Family::BOTH.into_iter().filter(|f| asked.serves(*f));
        served.any(|f| asked.direct(f).is_none())
    }
}

/// What is asked about a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    l4: Option<L4>,
    port: u16,
    bound: Option<IpAddr>,
    /// The container's own address, where that answers instead of the host's, and the port there.
    direct: [Option<IpAddr>; 2],
    inside: u16,
    families: [bool; 2],
    space: Option<SpaceId>,
}

impl Asked {
    fn serves(&self, family: Family) -> bool {
        self.families[usize::from(family == Family::V6)]
    }

    fn direct(&self, family: Family) -> Option<IpAddr> {
        self.direct[usize::from(family == Family::V6)]
    }
}

/// Side where a port is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The host, at its loopback address.
    Loopback,
    /// The host, at another address.
    Host,
    /// Beyond a link of the host.
    Outside,
    /// A container of another network.
    Network,
    /// Another container of the same network.
    Sibling,
}

impl Side {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Host => "host",
            Self::Outside => "outside",
            Self::Network => "network",
            Self::Sibling => "sibling",
        }
    }
}

impl Serialize for Side {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether one side reaches a port at one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Side where.
    pub from: Side,
    /// The address and port that is asked.
    pub address: String,
    /// The link of the host by which the asker comes in, or the container that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// The network lets it through, even if no program answers.
    pub open: bool,
    /// What stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(skip)]
    ip: IpAddr,
}

/// What a firewall says about a port of the host, as it would be without the mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Whose rule says so.
    pub owner: Owner,
    /// The address and port.
    pub address: String,
    /// The port is open to the outside there.
    pub open: bool,
    /// The rule or policy.
    pub rule: String,
    /// It is a rule, not what holds for everything else.
    #[serde(skip)]
    explicit: bool,
    #[serde(skip)]
    ip: IpAddr,
}

/// What stops the packet on its way; what the program at its end does is not asked.
pub(super) fn closed_by(report: &Report) -> Option<&Cause> {
    let program = |c: &&Cause| {
        matches!(
            c.code,
            Code::NotListening | Code::ListeningElsewhere | Code::AcceptQueueFull
        )
    };
    let all = report.cause.iter().chain(&report.also);
    all.into_iter()
        .find(|c| !program(c) && c.code != Code::MtuExceeded)
}

/// Addresses that outside clients can ask, with their links: those of no container network.
pub(super) fn outside_addresses(state: &ObservedState, family: Family) -> Vec<(u32, IpAddr)> {
    let host = state.host();
    let bridge = |index: u32| {
        let name = host.link(index).map_or("", |l| l.name.as_str());
        state.networks.iter().any(|n| n.bridge.as_str() == name)
    };
    let ups = outlook::uplinks(state, family);
    let mut all: Vec<(u32, IpAddr)> = outlook::addresses(host, family)
        .filter(|a| !bridge(a.link) && ups.contains(&a.link))
        .map(|a| (a.link, a.net.addr()))
        .collect();
    all.sort_by_key(|(link, _)| ups.iter().position(|u| u == link));
    all.truncate(MOST_ADDRESSES);
    all
}

/// Asks for every published port from every side.
pub fn exposure(state: &ObservedState) -> Exposure {
    if state.spaces.is_empty() {
        return Exposure { ports: Vec::new() };
    }
    let tracer = Tracer::new(state);
    let mut ports = published(state);
    ports.extend(foreign::published(state));
    for port in &mut ports {
        let asked = port.asked;
        for family in Family::BOTH.into_iter().filter(|f| asked.serves(*f)) {
            let Some(l4) = asked.l4 else {
                continue;
            };
            let look = Look {
                state,
                tracer: &tracer,
                asked,
                rule: port.rule.as_deref(),
                l4,
                family,
            };
            if let Some(ip) = asked.direct(family) {
                look.reach_directly(ip, &mut port.reach);
                continue;
            }
            look.reach(&mut port.reach);
            look.claims(&mut port.claims);
        }
        port.differs = differs::all(state, port);
    }
    Exposure { ports }
}

/// The mappings of wharf's containers.
fn published(state: &ObservedState) -> Vec<PublishedPort> {
    let mut all = Vec::new();
    for container in &state.containers {
        let name = container.name.as_str();
        let has = |family: Family| {
            let mut joined = container.attachments.iter();
            joined.any(|a| {
                let mut nets = state.networks.iter();
                let internal = nets.any(|n| n.name == a.network && n.internal);
                a.phase == Phase::Active && a.address(family).is_some() && !internal
            })
        };
        let translated = state.published(container);
        let direct = state.direct(container);
        for given in &container.ports {
            // Its network may bind it.
            let same = |m: &&PortMapping| {
                let numbers = |m: &PortMapping| (m.host, m.container, m.protocol);
                numbers(m) == numbers(given)
                    && (given.host_ip.is_none() || m.host_ip == given.host_ip)
            };
            let at = |family: Family| {
                let mut all = direct.iter();
                let of_family = |ip: &IpAddr| Family::of(*ip) == family;
                let found = all.find(|(m, ip, _)| same(&m) && of_family(ip));
                found.map(|(_, ip, _)| *ip)
            };
            let own = Family::BOTH.map(at);
            let mapping = translated.iter().map(|(_, m)| m).find(same);
            let mapping = mapping.unwrap_or(given);
            let bound = mapping.bound_to();
            let serves = |f: Family| mapping.serves(f) && has(f);
            all.push(PublishedPort {
                container: Some(name.to_owned()),
                owner: Owner::Wharf,
                host_ip: mapping.host_ip.map_or(String::new(), |ip| ip.to_string()),
                host_port: mapping.host.to_string(),
                container_port: mapping.container.to_string(),
                protocol: mapping.protocol.as_str().to_owned(),
                direct: own.into_iter().flatten().collect(),
                reach: Vec::new(),
                claims: Vec::new(),
                differs: Vec::new(),
                rule: None,
                asked: Asked {
                    l4: walked(mapping.protocol),
                    port: mapping.host.first(),
                    bound,
                    direct: own,
                    inside: mapping.container.first(),
                    families: [serves(Family::V4), serves(Family::V6)],
                    space: state.container_space(name),
                },
            });
        }
    }
    all
}

/// One port in one family.
struct Look<'a> {
    state: &'a ObservedState,
    tracer: &'a Tracer<'a>,
    asked: Asked,
    /// The rule that publishes it, where others do.
    rule: Option<&'a str>,
    l4: L4,
    family: Family,
}

impl Look<'_> {
    fn query(&self, source: Source, target: Target) -> Query {
        Query {
            source,
            target,
            l4: self.l4,
            port: self.asked.port,
        }
    }

    fn ask(&self, from: Side, by: Option<String>, source: Source, ip: IpAddr) -> Reach {
        let report = self.tracer.trace(&self.query(source, Target::Address(ip)));
        self.reached(from, by, ip, report)
    }

    fn reached(&self, from: Side, by: Option<String>, ip: IpAddr, mut report: Report) -> Reach {
        let taken = self.as_published(&mut report);
        let unknown = report.verdict == Verdict::Unknown;
        let arrived = taken || self.arrived(&report);
        let open = closed_by(&report).is_none() && !unknown && arrived;
        let kept = report.cause.as_ref().is_some_and(|c| !of_program(c.code));
        if let Some(rule) = self.rule.filter(|_| !arrived && !kept) {
            report.cause = foreign::shadowed(self.state, rule, self.l4, ip, self.asked.port);
        }
        Reach {
            from,
            address: outlook::show_end(ip, self.asked.port),
            by,
            verdict: report.verdict,
            open,
            cause: report.cause,
            ip,
        }
    }

    /// That a rule takes the port from wharf's mapping stops nobody who asks for what the rule publishes. Whether it did.
    fn as_published(&self, report: &mut Report) -> bool {
        let own = |c: &Cause| {
            let rest = self.rule.and_then(|rule| rule.strip_prefix(&c.object));
            c.code == Code::PublishShadowed && rest.is_some_and(|text| text.starts_with(": "))
        };
        if !report.cause.as_ref().is_some_and(own) {
            return false;
        }
        report.cause = (!report.also.is_empty()).then(|| report.also.remove(0));
        if report.cause.is_none() {
            report.verdict = Verdict::Delivered;
        }
        report.cause.is_none()
    }

    /// It came to who publishes the port, not to a program of the host or to somebody else.
    fn arrived(&self, report: &Report) -> bool {
        let Some(space) = self.asked.space else {
            return true;
        };
        let refused = report.cause.as_ref().map(|c| c.netns.as_str());
        let mut way = report.hops.iter().filter(|h| !h.reply);
        let taken = way.rfind(|h| h.stage == "socket").map(|h| h.netns.as_str());
        refused.or(taken) == Some(self.state.spaces[space].name.as_str())
    }

    fn loopback(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    fn reach(&self, all: &mut Vec<Reach>) {
        let host = || Source::Space(HOST, None);
        let addresses = outside_addresses(self.state, self.family);
        // ::1 cannot be translated by the kernel, and wharf does not promise it.
        if self.family == Family::V4 {
            let ip = self.asked.bound.filter(IpAddr::is_loopback);
            let ip = ip.unwrap_or_else(|| self.loopback());
            all.push(self.ask(Side::Loopback, None, host(), ip));
        }
        let elsewhere = self.asked.bound.filter(|ip| {
            let listed = addresses.iter().any(|(_, a)| a == ip);
            !ip.is_loopback() && !listed && outlook::is_local(self.state.host(), *ip)
        });
        for ip in addresses.iter().map(|(_, ip)| *ip).chain(elsewhere) {
            all.push(self.ask(Side::Host, None, host(), ip));
        }
        for (link, ip) in &addresses {
            let by = self.state.host().link(*link).map(|l| l.name.clone());
            all.push(self.ask(Side::Outside, by, self.client(*link), *ip));
        }
        self.loopback_by_wire(&addresses, all);
        let target = addresses.first().map(|(_, ip)| *ip);
        let ip = self.asked.bound.filter(|ip| !ip.is_loopback()).or(target);
        if let Some(ip) = ip {
            self.containers(ip, all);
        }
    }

    /// As [`Look::reach`], where the container answers at its own address.
    fn reach_directly(mut self, ip: IpAddr, all: &mut Vec<Reach>) {
        self.asked.port = self.asked.inside;
        all.push(self.ask(Side::Host, None, Source::Space(HOST, None), ip));
        let mut links: Vec<u32> = Vec::new();
        for (link, _) in outside_addresses(self.state, self.family) {
            if !links.contains(&link) {
                links.push(link);
                let by = self.state.host().link(link).map(|l| l.name.clone());
                all.push(self.ask(Side::Outside, by, self.client(link), ip));
            }
        }
        self.containers(ip, all);
    }

    /// A client on the far side of a link: one by the default route where that is the link, else a neighbour.
    fn client(&self, link: u32) -> Source {
        let host = self.state.host();
        let carries = host.routes.iter().any(|r| {
            r.dst.prefix_len() == 0
                && Family::of_net(r.dst) == self.family
                && r.hops.iter().any(|h| h.link == Some(link))
        });
        if carries {
            return Source::Outside(None);
        }
        Source::Outside(self.neighbour(link))
    }

    /// An address of somebody else on a link of the host.
    fn neighbour(&self, link: u32) -> Option<IpAddr> {
        let host = self.state.host();
        let own = outlook::addresses(host, self.family).find(|a| a.link == link)?;
        let place = crate::trace::state::Place {
            space: HOST,
            index: link,
        };
        let read = outlook::stations(self.state, place)
            .into_iter()
            .find_map(|p| {
                let space = &self.state.spaces[p.space];
                let mut near = outlook::addresses(space, self.family);
                near.find(|a| a.link == p.index && own.net.contains(&a.net.addr()))
            });
        // The first address of an IPv6 prefix is that of its routers.
        let any = || {
            let mut hosts = own.net.hosts().take(4);
            hosts.find(|h| *h != own.net.network() && !outlook::is_local(host, *h))
        };
        read.map(|a| a.net.addr()).or_else(any)
    }

    /// A neighbour may send what nobody else can: a packet to a loopback address.
    fn loopback_by_wire(&self, addresses: &[(u32, IpAddr)], all: &mut Vec<Reach>) {
        let Some(ip) = self
            .asked
            .bound
            .filter(|ip| ip.is_loopback() && ip.is_ipv4())
        else {
            return;
        };
        let mut links: Vec<u32> = addresses.iter().map(|(link, _)| *link).collect();
        links.dedup();
        for link in links {
            let Some(near) = self.neighbour(link) else {
                continue;
            };
            let by = self.state.host().link(link).map(|l| l.name.clone());
            let query = self.query(Source::Outside(Some(near)), Target::Address(ip));
            let report = outlook::by_wire(self.tracer, &query, link);
            all.push(self.reached(Side::Outside, by, ip, report));
        }
    }

    /// One container of each network, the publishing one apart.
    fn containers(&self, ip: IpAddr, all: &mut Vec<Reach>) {
        let state = self.state;
        let mut joined: Vec<&str> = Vec::new();
        for net in &state.networks {
            let on = |space: Option<SpaceId>| {
                let name = space.and_then(|id| state.spaces[id].container.as_deref());
                let mut own = state.containers.iter();
                own.any(|c| Some(c.name.as_str()) == name && c.attachment(&net.name).is_some())
            };
            if on(self.asked.space) {
                joined.push(net.name.as_str());
            }
        }
        for net in &state.networks {
            let asker = state.containers.iter().find_map(|c| {
                let a = c.attachment(&net.name)?;
                let carries = a.default_routes.contains(&self.family);
                let id = state.container_space(c.name.as_str())?;
                (carries && Some(id) != self.asked.space).then_some((c, id, a))
            });
            let Some((container, id, a)) = asker else {
                continue;
            };
            let from = match joined.contains(&net.name.as_str()) {
                true => Side::Sibling,
                false => Side::Network,
            };
            let src = a.address(self.family).map(|n| n.addr());
            let by = Some(container.name.to_string());
            all.push(self.ask(from, by, Source::Space(id, src), ip));
        }
    }

    /// What the rules of INPUT do with such a packet: that is what a firewall shows as its opinion.
    fn claims(&self, all: &mut Vec<Claim>) {
        for (link, ip) in outside_addresses(self.state, self.family) {
            let at = At {
                hook: Hook::Input,
                iif: Some(link),
                oif: None,
            };
            let src = outlook::stranger(self.state, self.family);
            let query = self.query(Source::Outside(None), Target::Address(ip));
            let judged = outlook::judge(self.tracer, &query, at, src, ip);
            let Some(blame) = judged.blame.filter(|b| b.owner != Owner::Wharf) else {
                continue;
            };
            let open = match judged.ending {
                Ending::Accept => true,
                Ending::Drop | Ending::Reject => false,
                Ending::Unknown => continue,
            };
            let text = match blame.handle {
                Some(_) => format!("{}: {}", outlook::shown(&blame), blame.text),
                None => format!("{}: policy", outlook::shown(&blame)),
            };
            all.push(Claim {
                owner: blame.owner,
                address: outlook::show_end(ip, self.asked.port),
                open,
                rule: text,
                explicit: blame.handle.is_some(),
                ip,
            });
        }
    }
}
