//! One change of `apply` or `destroy`: a verb of the engine, and the command that does the same.

use std::collections::BTreeMap;

use wharf_core::attach::{AttachRequest, Place};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::NetworkRequest;
use wharf_core::publish::PortMapping;
use wharf_core::render::quote;
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest, Note};
use wharf_engine::engine::{Engine, Update};
use wharf_engine::error::EngineError;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `wharf network create`
    NetworkCreate(NetworkRequest),
    /// `wharf network update`
    NetworkLabels(NetworkName, Labels),
    /// `wharf network rm`
    NetworkRemove(Vec<NetworkName>, bool),
    /// `wharf create`
    Create(ContainerRequest),
    /// `wharf rm`
    Remove(Vec<ContainerName>, bool),
    /// `wharf network connect`
    Connect(AttachRequest, ContainerName),
    /// `wharf network disconnect`
    Disconnect(NetworkName, ContainerName),
    /// `wharf update`
    Arrange(ContainerName, Vec<Place>),
    /// `wharf update`
    Labels(ContainerName, Labels),
    /// `wharf port add`
    PortAdd(ContainerName, PortMapping),
    /// `wharf port rm`
    PortRemove(ContainerName, PortMapping),
}

/// Labels as they are, and as they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// As they are.
    pub from: BTreeMap<String, String>,
    /// As they are to be.
    pub to: BTreeMap<String, String>,
}

/// A change with the way back and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What is done.
    pub change: Change,
    /// By what it is taken back, in order; nothing if it cannot be.
    pub undo: Vec<Change>,
    /// Why it is done.
    pub because: String,
}

impl Change {
    /// Makes the change.
    ///
    /// # Errors
    /// The engine's; then nothing of this change is left.
    pub fn apply(&self, engine: &mut Engine) -> Result<Vec<Note>, EngineError> {
        let mode = Mode::Apply;
        Ok(match self {
            Self::NetworkCreate(request) => engine.network_create(request, mode)?.notes,
            Self::NetworkLabels(name, labels) => {
                engine.network_update(name, &labels.to, mode)?.notes
            }
            Self::NetworkRemove(names, force) => engine.network_remove(names, *force, mode)?.notes,
            Self::Create(request) => engine.create(request, mode)?.notes,
            Self::Remove(names, force) => engine.remove(names, *force, mode)?.notes,
            Self::Connect(request, name) => engine.connect(request, name, mode)?.notes,
            Self::Disconnect(network, name) => engine.disconnect(network, name, mode)?.notes,
            Self::Arrange(name, places) => engine.update(name, &arranged(places), mode)?.notes,
            Self::Labels(name, labels) => engine.update(name, &labelled(labels), mode)?.notes,
            Self::PortAdd(name, port) => engine.port_add(name, &[(*port).into()], mode)?.notes,
            Self::PortRemove(name, port) => engine.port_remove(name, &[*port], mode)?.notes,
        })
    }

    /// The change's name in JSON.
    pub fn op(&self) -> &'static str {
        match self {
            Self::NetworkCreate(_) => "network create",
            Self::NetworkLabels(..) => "network update",
            Self::NetworkRemove(..) => "network remove",
            Self::Create(_) => "container create",
            Self::Remove(..) => "container remove",
            Self::Connect(..) => "network connect",
            Self::Disconnect(..) => "network disconnect",
            Self::Arrange(..) | Self::Labels(..) => "container update",
            Self::PortAdd(..) => "port add",
            Self::PortRemove(..) => "port remove",
        }
    }

    /// The command that does the same.
    pub fn command(&self) -> String {
        let words = match self {
            Self::NetworkCreate(request) => network_create(request),
            Self::NetworkLabels(name, labels) => {
                labels.options(words(&["network", "update", name.as_str()]))
            }
            Self::NetworkRemove(names, force) => {
                remove(&["network", "rm"], *force, names.iter().map(|n| n.as_str()))
            }
            Self::Create(request) => create(request),
            Self::Remove(names, force) => remove(&["rm"], *force, names.iter().map(|n| n.as_str())),
            Self::Connect(request, name) => {
                let network = attach_text(request);
                words(&["network", "connect", &network, name.as_str()])
            }
            Self::Disconnect(network, name) => {
                words(&["network", "disconnect", network.as_str(), name.as_str()])
            }
            Self::Arrange(name, places) => {
                let mut all = words(&["update", name.as_str()]);
                let texts = places.iter().map(place_text);
                all.extend(texts.flat_map(|text| ["--network".to_owned(), text]));
                all
            }
            Self::Labels(name, labels) => labels.options(words(&["update", name.as_str()])),
            Self::PortAdd(name, port) => words(&["port", "add", name.as_str(), &port.to_string()]),
            Self::PortRemove(name, port) => {
                words(&["port", "rm", name.as_str(), &port.to_string()])
            }
        };
        let quoted: Vec<String> = words.iter().map(|w| quote(w).to_string()).collect();
        format!("wharf {}", quoted.join(" "))
    }
}

impl Labels {
    /// The same backwards.
    pub fn back(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
        }
    }

    /// A command with the options that change the labels.
    fn options(&self, mut all: Vec<String>) -> Vec<String> {
        let new = self
            .to
            .iter()
            .filter(|(k, v)| self.from.get(*k) != Some(*v));
        all.extend(new.flat_map(|(k, v)| ["--label-add".to_owned(), format!("{k}={v}")]));
        let gone = self.from.keys().filter(|k| !self.to.contains_key(*k));
        all.extend(gone.flat_map(|k| ["--label-rm".to_owned(), k.clone()]));
        all
    }
}

fn arranged(places: &[Place]) -> Update {
    Update {
        places: Some(places.to_vec()),
        labels: None,
    }
}

fn labelled(labels: &Labels) -> Update {
    Update {
        places: None,
        labels: Some(labels.to.clone()),
    }
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

fn remove<'a>(verb: &[&str], force: bool, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all = words(verb);
    if force {
        all.push("-f".to_owned());
    }
    all.extend(names.map(str::to_owned));
    all
}

fn network_create(request: &NetworkRequest) -> Vec<String> {
    let mut all = words(&["network", "create", request.name.as_str()]);
    let mut option = |name: &str, value: String| all.extend([format!("--{name}"), value]);
    for subnet in &request.subnets {
        option("subnet", subnet.to_string());
    }
    for gateway in &request.gateways {
        option("gateway", gateway.to_string());
    }
    for range in &request.ip_ranges {
        option("ip-range", range.to_string());
    }
    if let Some(bridge) = &request.bridge {
        option("bridge", bridge.to_string());
    }
    if let Some(mtu) = request.mtu {
        option("mtu", mtu.to_string());
    }
    for (key, value) in &request.labels {
        option("label", format!("{key}={value}"));
    }
    for (key, value) in &request.options {
        option("opt", format!("{key}={value}"));
    }
    let flags = [
        ("ipv4", request.ipv4),
        ("ipv6", request.ipv6),
        ("internal", request.internal.then_some(true)),
        ("icc", request.icc),
        ("masquerade", request.masquerade),
    ];
    for (name, value) in flags {
        all.extend(value.map(|value| format!("--{name}={value}")));
    }
    all
}

fn create(request: &ContainerRequest) -> Vec<String> {
    let mut all = words(&["create", request.name.as_str()]);
    let mut option = |name: &str, value: String| all.extend([format!("--{name}"), value]);
    match &request.netns {
        NetnsRequest::New => {}
        NetnsRequest::Path(path) => option("netns", path.display().to_string()),
        NetnsRequest::Pid(pid) => option("pid", pid.to_string()),
    }
    for network in &request.networks {
        option("network", attach_text(network));
    }
    for port in &request.ports {
        option("publish", port.to_string());
    }
    for (key, value) in &request.labels {
        option("label", format!("{key}={value}"));
    }
    all
}

/// A place in the order of networks, as `wharf update --network` takes it.
fn place_text(place: &Place) -> String {
    let mut request = AttachRequest::new(place.network.clone());
    request.gw_priority = place.gw_priority;
    request.aliases.clone_from(&place.aliases);
    attach_text(&request)
}

/// An attachment in full, as `--network` takes it.
fn attach_text(request: &AttachRequest) -> String {
    let mut options: Vec<String> = request.ips.iter().map(|ip| format!("ip={ip}")).collect();
    options.extend(request.mac.map(|mac| format!("mac={mac}")));
    let name = |key, name: &_| format!("{key}={name}");
    options.extend(request.interface.as_ref().map(|i| name("interface", i)));
    options.extend(
        request
            .host_interface
            .as_ref()
            .map(|i| name("host-interface", i)),
    );
    if request.gw_priority != 0 {
        options.push(format!("gw-priority={}", request.gw_priority));
    }
    options.extend(request.aliases.iter().map(|alias| format!("alias={alias}")));
    if options.is_empty() {
        request.network.to_string()
    } else {
        format!("{}:{}", request.network, options.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_with_everything() {
        let mut request = NetworkRequest::new("blue".parse().unwrap());
        request.subnets = vec!["172.18.0.0/16".parse().unwrap()];
        request.icc = Some(false);
        request.ipv6 = Some(true);
        request.labels.insert("team".to_owned(), "a b".to_owned());
        assert_eq!(
            Change::NetworkCreate(request).command(),
            "wharf network create blue --subnet 172.18.0.0/16 --label 'team=a b' --ipv6=true --icc=false"
        );
    }

    #[test]
    fn labels_that_change_are_named() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let labels = Labels {
            from: map(&[("a", "1"), ("b", "1"), ("c", "1")]),
            to: map(&[("a", "1"), ("b", "2"), ("d", "x y")]),
        };
        let change = |labels| Change::Labels("web".parse().unwrap(), labels).command();
        let back = change(labels.back());
        assert_eq!(
            change(labels),
            "wharf update web --label-add b=2 --label-add 'd=x y' --label-rm c"
        );
        assert_eq!(
            back,
            "wharf update web --label-add b=1 --label-add c=1 --label-rm d"
        );
    }

    #[test]
    fn an_attachment_reads_back() {
        let text = "blue:ip=10.0.0.2,mac=02:00:00:00:00:01,interface=net0,gw-priority=5,alias=db";
        let request: AttachRequest = text.parse().unwrap();
        assert_eq!(attach_text(&request), text);
        assert_eq!(
            attach_text(&AttachRequest::new("red".parse().unwrap())),
            "red"
        );
    }
}
