//! A file against what is there, so that applying it twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::addr::Family;
use crate::attach::{AttachRequest, Attachment, Container, Phase, Place, place_among};
use crate::name::{IfName, NetworkName};
use crate::network::{DEFAULT_NETWORK, NetworkRequest, NetworkSpec};
use crate::options::NetworkOptions;
use crate::publish::PortMapping;
use crate::topology::ContainerSpec;

/// How the labels begin that wharf itself gives.
const OWN_LABELS: &str = "wharf.";

/// Something of a network that is not as asked for. Networks do not change: it would have to be made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkDifference {
    /// The key in the file.
    pub key: &'static str,
    /// What is asked for.
    pub wanted: String,
    /// What there is.
    pub found: String,
}

/// What would make a container as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerChange {
    /// It is to have another namespace: it must be removed and made anew.
    Netns(PathBuf),
    /// Publish no longer.
    PortRemove(PortMapping),
    /// Leave a network. When it is to be on it again as it was, its networks have this order, unless that comes by itself.
    Disconnect(NetworkName, Option<Vec<Place>>),
    /// Join a network; behind a [`Self::Disconnect`] from the same, join it differently.
    Connect(AttachRequest),
    /// Have the networks in another order, with other priorities or names.
    Arrange {
        /// As it is then.
        from: Vec<Place>,
        /// As it is to be.
        to: Vec<Place>,
    },
    /// Publish.
    PortAdd(PortMapping),
    /// Have these labels.
    Labels(BTreeMap<String, String>),
}

/// The labels asked for, and those that wharf itself gave.
pub fn with_own(
    wanted: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let own = found
        .iter()
        .filter(|(name, _)| name.starts_with(OWN_LABELS));
    let own = own.map(|(name, value)| (name.clone(), value.clone()));
    wanted.clone().into_iter().chain(own).collect()
}

/// Whether a network is as asked for.
pub fn network_matches(request: &NetworkRequest, spec: &NetworkSpec) -> bool {
    network_differences(request, spec).is_empty()
}

/// In what a network is not as asked for.
///
/// What wharf chooses where a file leaves it open is not compared: subnets, gateways, the bridge's name, the MTU. The rest
/// has a value where a file is silent, and is compared with that.
pub fn network_differences(request: &NetworkRequest, spec: &NetworkSpec) -> Vec<NetworkDifference> {
    let mut all = placed(request, spec);
    let mut compare = |key, wanted: Option<String>, found: String| {
        if let Some(wanted) = wanted.filter(|w| *w != found) {
            all.push(NetworkDifference { key, wanted, found });
        }
    };
    let text = |b: bool| b.to_string();
    let bridge = request.bridge.as_ref().map(ToString::to_string);
    compare("bridge", bridge, spec.bridge.to_string());
    compare(
        "mtu",
        request.mtu.map(|m| m.to_string()),
        spec.mtu.to_string(),
    );
    for (key, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        let found = spec.subnet(family).is_some();
        compare(key, Some(text(request.has(family))), text(found));
    }
    compare(
        "internal",
        Some(text(request.internal)),
        text(spec.internal),
    );
    let settings = NetworkOptions::parse(&request.options).unwrap_or_default();
    let icc = request.icc.or(settings.icc).unwrap_or(true);
    compare("icc", Some(text(icc)), text(spec.icc));
    let masquerade = request.masquerade.or(settings.masquerade).unwrap_or(true);
    compare("masquerade", Some(text(masquerade)), text(spec.masquerade));
    let by_name = !settings.means_the_same(&spec.settings);
    for (key, wanted, found) in [
        ("labels", &request.labels, &spec.labels),
        ("options", &request.options, &spec.options),
    ] {
        if key == "options" && !by_name {
            continue;
        }
        let own = found.keys().filter(|name| !name.starts_with(OWN_LABELS));
        let names: BTreeSet<&String> = wanted.keys().chain(own).collect();
        for name in names {
            let pair = |v: &String| format!("{name}={v}");
            let [wanted, found] = [wanted, found].map(|all| all.get(name).map(pair));
            compare(
                key,
                Some(wanted.unwrap_or_default()),
                found.unwrap_or_default(),
            );
        }
    }
    all
}

/// Subnets, gateways and ranges: each one given must be there.
fn placed(request: &NetworkRequest, spec: &NetworkSpec) -> Vec<NetworkDifference> {
    let list = |all: Vec<String>| all.join(", ");
    let mut differences = Vec::new();
    let mut compare = |key, wanted: Vec<String>, found: Vec<String>| {
        for one in wanted {
            if !found.contains(&one) {
                differences.push(NetworkDifference {
                    key,
                    wanted: one,
                    found: list(found.clone()),
                });
            }
        }
    };
    let subnets = spec.subnets.iter();
    compare(
        "subnet",
        request.subnets.iter().map(ToString::to_string).collect(),
        subnets.clone().map(|s| s.subnet.to_string()).collect(),
    );
    compare(
        "gateway",
        request.gateways.iter().map(ToString::to_string).collect(),
        subnets.clone().map(|s| s.gateway.to_string()).collect(),
    );
    let mut wanted: Vec<IpNet> = request.ip_ranges.iter().map(|r| r.trunc()).collect();
    let mut found: Vec<IpNet> = subnets.filter_map(|s| s.ip_range).collect();
    wanted.sort();
    found.sort();
    if wanted != found {
        let text = |all: Vec<IpNet>| list(all.iter().map(ToString::to_string).collect());
        differences.push(NetworkDifference {
            key: "ip-range",
            wanted: text(wanted),
            found: text(found),
        });
    }
    differences
}

/// What would make `container` as `spec` asks for, in the order in which to do it; empty when it is so.
///
/// Its networks and ports are to be those of the file and no others; of each attachment, what the file leaves
/// open is not compared. `prefix` is how the interfaces of a network are called.
pub fn container_changes<'a>(
    spec: &ContainerSpec,
    container: &Container,
    prefix: impl Fn(&NetworkName) -> Option<&'a str>,
) -> Vec<ContainerChange> {
    if let Some(path) = &spec.netns
        && *path != container.netns.path
    {
        return vec![ContainerChange::Netns(path.clone())];
    }
    let default = match spec.networks.is_empty() {
        true => DEFAULT_NETWORK.parse().ok().map(AttachRequest::new),
        false => None,
    };
    let wanted: Vec<&AttachRequest> = spec.networks.iter().chain(&default).collect();
    let mut changes: Vec<ContainerChange> = container
        .ports
        .iter()
        .filter(|p| !spec.ports.contains(p))
        .map(|p| ContainerChange::PortRemove(*p))
        .collect();
    changes.extend(network_changes(&wanted, container, prefix));
    changes.extend(
        spec.ports
            .iter()
            .filter(|p| !container.ports.contains(p))
            .map(|p| ContainerChange::PortAdd(*p)),
    );
    let labels = with_own(&spec.labels, &container.labels);
    if labels != container.labels {
        changes.push(ContainerChange::Labels(labels));
    }
    changes
}

fn network_changes<'a>(
    wanted: &[&AttachRequest],
    container: &Container,
    prefix: impl Fn(&NetworkName) -> Option<&'a str>,
) -> Vec<ContainerChange> {
    let stays = |a: &Attachment| {
        let request = wanted.iter().find(|r| r.network == a.network);
        request.is_some_and(|r| attachment_matches(r, a))
    };
    let mut changes = Vec::new();
    let mut row = Row::of(container);
    for a in container.attachments.iter().filter(|a| !stays(a)) {
        let was = row.places();
        row.0.retain(|(_, place)| place.network != a.network);
        let mut back = row.clone();
        back.join(a.interface.clone(), a.place());
        let network = a.network.clone();
        let order = (back.places() != was).then_some(was);
        changes.push(ContainerChange::Disconnect(network, order));
    }
    let mut sure = true;
    for request in wanted {
        if container.attachment(&request.network).is_some_and(stays) {
            continue;
        }
        let name = row.free_name(request, prefix(&request.network).unwrap_or("eth"));
        let place = Place {
            network: request.network.clone(),
            gw_priority: request.gw_priority,
            aliases: request.aliases.clone(),
        };
        // Others' interfaces in an adopted namespace, which are not known here, can only put it further behind.
        let known = container.netns.made_by_wharf || request.interface.is_some();
        sure &= row.join(name, place) || known;
        changes.push(ContainerChange::Connect((*request).clone()));
    }
    let from = row.places();
    let to: Vec<Place> = wanted.iter().map(|r| row.wanted(r)).collect();
    if from != to || !sure {
        changes.push(ContainerChange::Arrange { from, to });
    }
    changes
}

/// A container's networks in their order, with the names of the interfaces, by which the order comes about.
#[derive(Clone)]
struct Row(Vec<(IfName, Place)>);

impl Row {
    fn of(container: &Container) -> Self {
        let all = container.attachments.iter();
        Self(all.map(|a| (a.interface.clone(), a.place())).collect())
    }

    fn places(&self) -> Vec<Place> {
        self.0.iter().map(|(_, place)| place.clone()).collect()
    }

    /// The interface that is asked for, or the first that is free.
    fn free_name(&self, request: &AttachRequest, prefix: &str) -> IfName {
        let taken = |name: &IfName| self.0.iter().any(|(other, _)| other == name);
        let names = (0..=self.0.len()).filter_map(|n| format!("{prefix}{n}").parse().ok());
        let free = || names.into_iter().find(|name| !taken(name));
        let asked = request.interface.clone().or_else(free);
        asked.unwrap_or_else(IfName::loopback)
    }

    /// Puts a network where it belongs; whether that is at the end.
    fn join(&mut self, name: IfName, place: Place) -> bool {
        let at = place_among(&name, self.0.iter().map(|(other, _)| other));
        let last = at == self.0.len();
        self.0.insert(at, (name, place));
        last
    }

    /// What a request makes of a place; further names are a set.
    fn wanted(&self, request: &AttachRequest) -> Place {
        let names = |all: &[String]| all.iter().cloned().collect::<BTreeSet<_>>();
        let is = self
            .0
            .iter()
            .map(|(_, place)| place)
            .find(|p| p.network == request.network);
        let same = is.filter(|p| names(&p.aliases) == names(&request.aliases));
        Place {
            network: request.network.clone(),
            gw_priority: request.gw_priority,
            aliases: same.map_or(&request.aliases, |p| &p.aliases).clone(),
        }
    }
}

/// Whether a cable is as asked for. Its addresses, its MAC address and the names of its interfaces are wharf's choice
/// where they are left open.
fn attachment_matches(request: &AttachRequest, a: &Attachment) -> bool {
    let holds = |ip| a.addresses.iter().any(|net| net.addr() == ip);
    a.phase == Phase::Active
        && request.ips.iter().all(|ip| holds(*ip))
        && request.mac.is_none_or(|mac| mac == a.mac)
        && request.interface.as_ref().is_none_or(|i| *i == a.interface)
        && request
            .host_interface
            .as_ref()
            .is_none_or(|i| *i == a.host_interface)
}
