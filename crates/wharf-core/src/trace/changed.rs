//! Packet rules of wharf that are not as the store says: where one of them is on a packet's way, it comes before what
//! the walk made of the rules as they are, and the advice is to mend it.
//!
//! Not here: comparing the kernel with the store, which the engine does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::nft::{Chain, Data, Element, Field, Object};
use crate::publish::PortRange;
use crate::trace::packet::L4;
use crate::trace::report::{Cause, Code, HopVerdict, Owner, Report};
use crate::trace::state::ObservedState;

/// A packet rule that is not as the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// As it should be.
    pub object: Object,
    /// `missing` or `different`.
    pub was: &'static str,
}

/// What a packet meets by which a rule is known to concern it.
#[derive(Debug, Default)]
pub(super) struct Passing {
    containers: BTreeSet<String>,
    /// Networks' names, and those of the host's links.
    networks: BTreeSet<String>,
    links: BTreeSet<String>,
    addrs: Vec<IpAddr>,
    ports: Vec<u16>,
    l4: Option<L4>,
}

impl Passing {
    /// A question to a port.
    pub(super) fn to(l4: L4, ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            l4: Some(l4),
            ..Self::default()
        }
    }

    fn of(state: &ObservedState, report: &Report) -> Self {
        let ends = [&report.source, &report.destination];
        let port = report.destination.port;
        let mut passing = Self::to(report.protocol, port.as_slice());
        for end in ends {
            let addr: Option<IpAddr> = end.address.as_deref().and_then(|a| a.parse().ok());
            passing.addrs.extend(addr);
        }
        let ends = ends.into_iter().filter_map(|e| e.netns.as_deref());
        let hops = report.hops.iter().map(|h| h.netns.as_str());
        let causes = report.cause.iter().map(|c| c.netns.as_str());
        for name in ends.chain(hops).chain(causes) {
            passing.by(state, name);
        }
        for container in &state.containers {
            let mut own = container.attachments.iter().flat_map(|a| &a.addresses);
            let asked = own.any(|a| passing.addrs.contains(&a.addr()));
            let published = state.published(container);
            let mut ports = published.iter().map(|(_, m)| m);
            let leads = ports.any(|m| {
                let same = super::doctor::walked(m.protocol) == passing.l4;
                same && port.is_some_and(|p| (m.host.first()..=m.host.last()).contains(&p))
            });
            if asked || leads {
                passing.by(state, container.name.as_str());
            }
        }
        passing
    }

    /// With an address.
    pub(super) fn at(mut self, addr: IpAddr) -> Self {
        self.addrs.push(addr);
        self
    }

    /// By a container, if that is one.
    pub(super) fn by(&mut self, state: &ObservedState, name: &str) {
        let mut all = state.containers.iter();
        let Some(container) = all.find(|c| c.name.as_str() == name) else {
            return;
        };
        if !self.containers.insert(name.to_owned()) {
            return;
        }
        for joined in &container.attachments {
            self.networks.insert(joined.network.to_string());
            self.links.insert(joined.host_interface.to_string());
            self.addrs.extend(joined.addresses.iter().map(|a| a.addr()));
            let net = state.networks.iter().find(|n| n.name == joined.network);
            self.links.extend(net.map(|n| n.bridge.to_string()));
        }
    }

    fn meets(&self, object: &Object) -> bool {
        match object {
            Object::Table(_) | Object::Set(_) => true,
            Object::Chain(chain) => self.comes_by(chain),
            Object::Element(element) => self.asks_for(element),
        }
    }

    /// Chains of other networks are not on the way.
    fn comes_by(&self, chain: &Chain) -> bool {
        let of_network = chain.name.strip_prefix("net-");
        let network = of_network.and_then(|rest| rest.rsplit_once('-'));
        network.is_none_or(|(name, _)| self.networks.contains(name))
    }

    fn asks_for(&self, element: &Element) -> bool {
        if element.key.iter().all(|f| self.fits(f)) {
            return true;
        }
        // A published port may be asked for by the container's name and own port.
        let Some(Data::Fields(to)) = &element.data else {
            return false;
        };
        let own = |f: &Field| matches!(f, Field::Addr(_) | Field::Ports(_));
        of_translation(element) && to.iter().any(own) && to.iter().all(|f| self.fits(f))
    }

    fn fits(&self, field: &Field) -> bool {
        let within = |r: &PortRange| {
            let mut ports = self.ports.iter();
            ports.any(|p| (r.first()..=r.last()).contains(p))
        };
        match field {
            Field::Name(name) => self.links.contains(name.as_str()),
            Field::Addr(addr) => self.addrs.contains(addr),
            Field::Net(net) => self.addrs.iter().any(|a| net.contains(a)),
            Field::Mac(_) => true,
            Field::Proto(protocol) => {
                let asked = super::doctor::walked(*protocol);
                asked.is_some() && asked == self.l4
            }
            Field::Ports(range) => within(range),
        }
    }
}

/// Whether an element says where a published port leads.
fn of_translation(element: &Element) -> bool {
    ["publish", "range"]
        .iter()
        .any(|s| element.set.starts_with(s))
}

/// Whether such a cause may follow from rules that are not as they should be.
pub(super) fn may_follow(cause: &Cause) -> bool {
    let ours = cause.owner == Owner::Wharf;
    match cause.code {
        Code::SpoofGuard
        | Code::RulesChanged
        | Code::NotPublished
        | Code::NetworkIsolation
        | Code::InternalNetwork
        | Code::NoMasquerade
        | Code::NoReturnRoute
        | Code::MartianAddress
        | Code::BridgeNetfilter => true,
        // Where the mapping is missed already there is nothing to add.
        Code::PublishShadowed => ours && cause.fix != ["wharf repair"],
        Code::FirewallRule | Code::FirewallPolicy | Code::ForwardingDisabled => ours,
        code => of_place(code),
    }
}

/// What is said of the place to which a translation leads.
fn of_place(code: Code) -> bool {
    matches!(
        code,
        Code::NotListening
            | Code::ListeningElsewhere
            | Code::NoSuchDestination
            | Code::NeighbourUnreachable
    )
}

/// Whether a cause may follow from such a rule: where a packet comes to, and which source it bears, only translation
/// says.
fn is_why(code: Code, object: &Object) -> bool {
    let (name, whole) = match object {
        Object::Element(e) => (e.set.as_str(), false),
        Object::Chain(chain) => (chain.name.as_str(), false),
        Object::Table(_) | Object::Set(_) => ("", true),
    };
    let leads = || name.starts_with("publish") || name.starts_with("range");
    match code {
        _ if of_place(code) => leads(),
        Code::NoMasquerade | Code::NoReturnRoute | Code::MartianAddress => {
            let source = ["masquerade", "snat", "nat", "seen"];
            whole || leads() || source.iter().any(|word| name.contains(word))
        }
        _ => true,
    }
}

/// Whether rules that are not as they should be could be why.
pub fn is_of_rules(report: &Report) -> bool {
    report.cause.as_ref().is_some_and(may_follow)
}

/// Puts the changed rules that the packet meets in the place of what follows from them.
pub fn settle(state: &ObservedState, report: &mut Report, changed: &[Changed]) {
    let passing = Passing::of(state, report);
    let instead = report.cause.as_ref();
    let Some(cause) = instead.and_then(|c| behind(c, &passing, changed)) else {
        return;
    };
    if let Some(was) = report.cause.replace(cause.clone()) {
        let stops = |v| matches!(v, HopVerdict::Drop | HopVerdict::Reject);
        let told = |h: &&mut crate::trace::report::Hop| stops(h.verdict) && h.object == was.object;
        if let Some(hop) = report.hops.iter_mut().rfind(told) {
            hop.detail.clone_from(&cause.summary);
        }
    }
    report.also.retain(|c| !may_follow(c));
}

/// The changed rule behind a cause.
pub(super) fn behind(cause: &Cause, passing: &Passing, changed: &[Changed]) -> Option<Cause> {
    if !may_follow(cause) {
        return None;
    }
    let fits = |c: &&Changed| is_why(cause.code, &c.object) && passing.meets(&c.object);
    let all: Vec<&Changed> = changed.iter().filter(fits).collect();
    // The chain that stopped it is to blame before others.
    let named = all.iter().find(|c| stopped_by(c, cause));
    let first = named.or(all.first())?;
    let object = describe(&first.object);
    let mut evidence: Vec<String> = Vec::new();
    for one in &all {
        evidence.push(format!("{}: {}", listed(&one.object), one.was));
    }
    evidence.truncate(MOST);
    if named.is_some() {
        let stops = |e: &&String| e.starts_with("nft -a list chain ");
        evidence.extend(cause.evidence.iter().find(stops).cloned());
    }
    evidence.push("wharf repair --dry-run".to_owned());
    evidence.extend(cause.evidence.iter().filter(|e| of_probe(e)).cloned());
    Some(Cause {
        code: Code::RulesChanged,
        netns: "host".to_owned(),
        summary: format!("A packet rule of wharf is not as wharf made it: {object}."),
        object,
        owner: Owner::Wharf,
        evidence,
        fix: vec!["wharf repair".to_owned()],
    })
}

/// The most changes that are shown.
const MOST: usize = 8;

fn of_probe(evidence: &str) -> bool {
    evidence.starts_with("probe: ")
}

/// Whether the cause names the chain.
fn stopped_by(changed: &Changed, cause: &Cause) -> bool {
    let Object::Chain(chain) = &changed.object else {
        return false;
    };
    let name = format!("{} wharf {}", chain.table.family(), chain.name);
    let rest = cause.object.strip_prefix(&name);
    let by_object = rest.is_some_and(|r| r.is_empty() || r.starts_with(' '));
    let by_list = |e: &String| e.contains(&format!("list chain {name}:"));
    by_object || cause.evidence.iter().any(by_list)
}

fn describe(object: &Object) -> String {
    match object {
        Object::Table(table) => format!("table {} wharf", table.family()),
        Object::Set(set) => format!("set {} wharf {}", set.table.family(), set.name),
        Object::Chain(chain) => format!("chain {} wharf {}", chain.table.family(), chain.name),
        Object::Element(e) => format!("an element of set {} wharf {}", e.table.family(), e.set),
    }
}

/// The command that shows it.
fn listed(object: &Object) -> String {
    match object {
        Object::Element(e) => {
            let kind = if e.data.is_some() { "map" } else { "set" };
            format!("nft list {kind} {} wharf {}", e.table.family(), e.set)
        }
        other => format!("nft list {}", describe(other)),
    }
}
