//! A file against what is there, so that applying it twice changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::addr::Family;
use crate::attach::{AttachRequest, Attachment, Container, Phase};
use crate::name::NetworkName;
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
    /// Leave a network.
    Disconnect(NetworkName),
    /// Join a network; behind a [`Self::Disconnect`] from the same, join it differently.
    Connect(AttachRequest),
    /// Publish.
    PortAdd(PortMapping),
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
/// open is not compared.
pub fn container_changes(spec: &ContainerSpec, container: &Container) -> Vec<ContainerChange> {
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
    let stays = |a: &Attachment| {
        let request = wanted.iter().find(|r| r.network == a.network);
        request.is_some_and(|r| attachment_matches(r, a))
    };
    let mut changes: Vec<ContainerChange> = container
        .ports
        .iter()
        .filter(|p| !spec.ports.contains(p))
        .map(|p| ContainerChange::PortRemove(*p))
        .collect();
    changes.extend(
        container
            .attachments
            .iter()
            .filter(|a| !stays(a))
            .map(|a| ContainerChange::Disconnect(a.network.clone())),
    );
    changes.extend(
        wanted
            .iter()
            .filter(|r| !container.attachment(&r.network).is_some_and(stays))
            .map(|r| ContainerChange::Connect((*r).clone())),
    );
    changes.extend(
        spec.ports
            .iter()
            .filter(|p| !container.ports.contains(p))
            .map(|p| ContainerChange::PortAdd(*p)),
    );
    changes
}

/// Whether an attachment is as asked for. Its addresses, its MAC address and the names of its interfaces are wharf's choice
/// where they are left open; priority 0 and no further names are what is given when nothing is.
fn attachment_matches(request: &AttachRequest, a: &Attachment) -> bool {
    let holds = |ip| a.addresses.iter().any(|net| net.addr() == ip);
    let names = |all: &[String]| all.iter().cloned().collect::<BTreeSet<_>>();
    a.phase == Phase::Active
        && request.ips.iter().all(|ip| holds(*ip))
        && request.mac.is_none_or(|mac| mac == a.mac)
        && request.interface.as_ref().is_none_or(|i| *i == a.interface)
        && request
            .host_interface
            .as_ref()
            .is_none_or(|i| *i == a.host_interface)
        && request.gw_priority == a.gw_priority
        && names(&request.aliases) == names(&a.aliases)
}
