//! A container's place on its networks: what was asked for and what it became.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Mac, MacError};
use crate::extras::Extras;
use crate::ipam::Pool;
use crate::model::RouteMore;
use crate::name::{ContainerName, HostName, IfName, NameError, NetworkName};
use crate::network::NetworkSpec;
use crate::publish::PortMapping;

/// One network asked for: `NET[:ip=A,mac=M,interface=NAME,…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// The network.
    pub network: NetworkName,
    /// Addresses asked for, one per family at most.
    pub ips: Vec<IpAddr>,
    /// The container interface's MAC address.
    pub mac: Option<Mac>,
    /// The container interface's name; the first free `eth0`, `eth1`, … unless given.
    pub interface: Option<IfName>,
    /// The host end's name; made up unless given.
    pub host_interface: Option<IfName>,
    /// The network with the highest number carries the default route; 0 unless given.
    pub gw_priority: i32,
    /// Further names of the container on this network.
    pub aliases: Vec<String>,
    /// Where its addresses come from.
    pub addressing: Addressing,
    /// Routes by this attachment, beside the default route the network may offer. One that has neither gateway nor
    /// scope goes by the gateway of its family.
    pub routes: Vec<RouteSpec>,
    /// Limits and settings.
    pub extras: Box<Extras>,
}

/// Where the addresses of an attachment come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Addressing {
    /// One of each of the network's subnets.
    #[default]
    Subnets,
    /// One of each set of pools; the pools of a set are tried in order.
    Pools {
        /// The sets.
        sets: Vec<Vec<Pool>>,
        /// A directory in which another program keeps a file for each address that it has handed out.
        reserved_in: Option<PathBuf>,
    },
    /// Somebody else chose them: addresses with prefix lengths, and the gateway of each.
    Given(Vec<(IpNet, Option<IpAddr>)>),
}

/// A route of a container by one of its interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The destination.
    pub dst: IpNet,
    /// The gateway; a route without is to the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The metric, if not the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// What few routes have.
    #[serde(default)]
    pub more: RouteMore,
}

impl RouteSpec {
    /// A default route of the table that is asked when none is named.
    pub fn is_usual_default(&self) -> bool {
        self.dst.prefix_len() == 0 && self.more.table.is_none()
    }
}

impl AttachRequest {
    /// A request that leaves everything open.
    pub fn new(network: NetworkName) -> Self {
        Self {
            network,
            ips: Vec::new(),
            mac: None,
            interface: None,
            host_interface: None,
            gw_priority: 0,
            aliases: Vec::new(),
            addressing: Addressing::Subnets,
            routes: Vec::new(),
            extras: Box::default(),
        }
    }
}

/// Why a text is not an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachTextError {
    /// The name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A MAC address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// An unknown key.
    #[error(
        "`{0}` is not an attachment option: ip, ip6, mac, interface, host-interface, gw-priority or alias"
    )]
    Key(String),
    /// An address or number.
    #[error("`{key}={value}`: {expected} is expected")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

impl FromStr for AttachRequest {
    type Err = AttachTextError;

    /// `NET`, Podman's `NET:ip=…,mac=…` and Docker's `name=NET,ip=…`.
    fn from_str(text: &str) -> Result<Self, AttachTextError> {
        let (name, options) = match text.split_once(':') {
            Some((name, options)) => (name, options),
            None => match text.strip_prefix("name=") {
                Some(rest) => rest.split_once(',').unwrap_or((rest, "")),
                None => (text, ""),
            },
        };
        let mut request = Self::new(name.parse()?);
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            request.set(key, value)?;
        }
        Ok(request)
    }
}

impl AttachRequest {
    fn set(&mut self, key: &str, value: &str) -> Result<(), AttachTextError> {
        let bad = |expected| AttachTextError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match key {
            "ip" | "ip6" => self.ips.push(value.parse().map_err(|_| bad("an address"))?),
            "mac" | "mac-address" => self.mac = Some(value.parse()?),
            "interface" | "interface_name" => self.interface = Some(value.parse()?),
            "host-interface" | "host_interface_name" => self.host_interface = Some(value.parse()?),
            "gw-priority" => self.gw_priority = value.parse().map_err(|_| bad("a whole number"))?,
            "alias" => self.aliases.push(value.parse::<HostName>()?.into()),
            _ => return Err(AttachTextError::Key(key.to_owned())),
        }
        Ok(())
    }
}

impl fmt::Display for AttachRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network)?;
        let mut sep = ':';
        for ip in &self.ips {
            write!(f, "{sep}ip={ip}")?;
            sep = ',';
        }
        Ok(())
    }
}

/// How far an attachment has come. Only `Active` ones are complete; the others belong to a process at work,
/// or to one that died and whose work the next call finishes or undoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being made.
    Joining,
    /// In place.
    Active,
    /// Being removed.
    Leaving,
}

/// One container on one network, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkName,
    /// The interface in the container.
    pub interface: IfName,
    /// The host's end of the cable.
    pub host_interface: IfName,
    /// The container interface's MAC address.
    pub mac: Mac,
    /// Addresses with the subnets' prefix lengths, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// The gateways of the subnets, in the same order.
    pub gateways: Vec<IpAddr>,
    /// Families whose default route this attachment carries.
    pub default_routes: Vec<Family>,
    /// The choice of default route: higher first, then the order of joining.
    pub gw_priority: i32,
    /// Further names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Routes beside the default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// The table of routes for what comes from its addresses, where the container has a default route by another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_table: Option<u32>,
    /// Limits and settings.
    #[serde(default, skip_serializing_if = "no_extras")]
    pub extras: Box<Extras>,
    /// Whether neighbours may know an address of it at another hardware address, and are told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announce: bool,
    /// How far it has come.
    pub phase: Phase,
}

#[expect(clippy::borrowed_box, reason = "serde passes the field as it is")]
fn no_extras(extras: &Box<Extras>) -> bool {
    extras.is_empty()
}

impl Attachment {
    /// The address of a family.
    pub fn address(&self, family: Family) -> Option<IpNet> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of_net(*a) == family)
    }

    /// Its place, and its further names.
    pub fn place(&self) -> Place {
        Place {
            network: self.network.clone(),
            gw_priority: self.gw_priority,
            aliases: self.aliases.clone(),
        }
    }

    /// Whether a default route of the container goes by it.
    pub fn leads_out(&self) -> bool {
        !self.default_routes.is_empty() || self.routes.iter().any(|r| r.dst.prefix_len() == 0)
    }
}

/// A network namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNetns {
    /// Where it is found.
    pub path: PathBuf,
    /// Device and inode number of the namespace, by which it is known again.
    pub identity: Option<(u64, u64)>,
    /// wharf made it, and removes it.
    pub made_by_wharf: bool,
}

/// A process, known beyond the reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The process id.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks between boot and the start of the process.
    pub start_time: u64,
}

/// By what the client that asked for a container knows it: a client that speaks of one interface at a time, by
/// its own names for the network and the container, which may be longer than wharf's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientKey {
    /// The client's name of the network; empty if the record was made again from the kernel, which does not tell.
    pub network: String,
    /// The client's name of the container.
    pub container: String,
    /// The interface in the container.
    pub interface: String,
}

impl ClientKey {
    /// Whether only the client can say what its names are.
    pub fn is_made_again(&self) -> bool {
        self.network.is_empty()
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The name.
    pub name: ContainerName,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The front end that made it: `cli`, `cni`, `netavark`.
    pub owner: String,
    /// By what its client knows it, if that is not the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientKey>,
    /// Its namespace.
    pub netns: ContainerNetns,
    /// Its first process, if wharf started one.
    pub process: Option<ProcessRef>,
    /// What that process left behind: its exit status.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// The command wharf started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// It goes with that process (`run --rm`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transient: bool,
    /// Its attachments, in the order of joining.
    pub attachments: Vec<Attachment>,
    /// Its published ports.
    pub ports: Vec<PortMapping>,
    /// Labels, kept and shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: u64,
}

impl Container {
    /// The attachment to a network.
    pub fn attachment(&self, network: &NetworkName) -> Option<&Attachment> {
        self.attachments.iter().find(|a| a.network == *network)
    }

    /// The attachment that serves published ports of a family: the one with the default route, since
    /// answers leave by it; without one the first on a network that is not internal.
    pub fn port_carrier(
        &self,
        family: Family,
        internal: impl Fn(&NetworkName) -> bool,
    ) -> Option<&Attachment> {
        let usable = |a: &&Attachment| {
            a.phase != Phase::Leaving && a.address(family).is_some() && !internal(&a.network)
        };
        let by_default = self
            .attachments
            .iter()
            .filter(usable)
            .find(|a| a.default_routes.contains(&family));
        by_default.or_else(|| self.attachments.iter().find(usable))
    }

    /// Puts the newest attachment before those whose interfaces have a higher number. Who leaves a network and comes back
    /// gets the free interface, and is where he was: the default route does not depend on who changed what, in which order.
    pub fn put_last_in_place(&mut self) {
        let Some(newest) = self.attachments.pop() else {
            return;
        };
        let at = place_among(
            &newest.interface,
            self.attachments.iter().map(|a| &a.interface),
        );
        self.attachments.insert(at, newest);
    }

    /// The places of its attachments, in order.
    pub fn places(&self) -> Vec<Place> {
        self.attachments.iter().map(Attachment::place).collect()
    }

    /// Puts its attachments in the order of `places`, which names each of its networks once; or the first network that is
    /// named twice, is not one of its own, or is not named.
    ///
    /// # Errors
    /// That network.
    pub fn arrange(&mut self, places: &[Place]) -> Result<(), Misplaced> {
        let mut left = std::mem::take(&mut self.attachments);
        for place in places {
            let at = left.iter().position(|a| a.network == place.network);
            let Some(at) = at else {
                let name = place.network.clone();
                let twice = self.attachment(&name).is_some();
                self.attachments.append(&mut left);
                return Err(match twice {
                    true => Misplaced::Twice(name),
                    false => Misplaced::NotAttached(name),
                });
            };
            self.attachments.push(Attachment {
                gw_priority: place.gw_priority,
                aliases: place.aliases.clone(),
                ..left.remove(at)
            });
        }
        match left.first().map(|a| a.network.clone()) {
            None => Ok(()),
            Some(name) => {
                self.attachments.append(&mut left);
                Err(Misplaced::Missing(name))
            }
        }
    }
}

/// Where the newest of several interfaces belongs.
pub fn place_among<'a>(newest: &IfName, others: impl Iterator<Item = &'a IfName>) -> usize {
    let is_behind = |other: &IfName| match (numbered(other), numbered(newest)) {
        (Some((prefix, number)), Some((same, lower))) => prefix == same && number > lower,
        _ => false,
    };
    let mut count = 0;
    for (at, other) in others.enumerate() {
        if is_behind(other) {
            return at;
        }
        count = at + 1;
    }
    count
}

/// What of an attachment changes without the cable: its place among the container's networks, and its further names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The network.
    pub network: NetworkName,
    /// The choice of default route: higher first, then the order.
    pub gw_priority: i32,
    /// Further names.
    pub aliases: Vec<String>,
}

/// Why an order of networks is not a container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// This network is named twice.
    Twice(NetworkName),
    /// The container is not on this network.
    NotAttached(NetworkName),
    /// The container is on this network, which is not named.
    Missing(NetworkName),
}

/// A name's digits at the end, and what is before them: `eth1` is 1 of `eth`.
fn numbered(name: &IfName) -> Option<(&str, u32)> {
    let name = name.as_str();
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    Some((prefix, name[prefix.len()..].parse().ok()?))
}

/// Gives each family's default route to one attachment: the highest priority, then the earliest.
///
/// `networks` answers for the attachments' networks; an attachment whose network it does not know, or that
/// is leaving, carries none.
pub fn assign_default_routes<'a>(
    attachments: &mut [Attachment],
    networks: impl Fn(&NetworkName) -> Option<&'a NetworkSpec>,
) {
    for attachment in attachments.iter_mut() {
        attachment.default_routes.clear();
    }
    for family in Family::BOTH {
        let mut best: Option<usize> = None;
        for (at, attachment) in attachments.iter().enumerate() {
            let offers = attachment.phase != Phase::Leaving
                && attachment.address(family).is_some()
                && networks(&attachment.network).is_some_and(|n| n.offers_default_route(family));
            if offers && best.is_none_or(|b| attachment.gw_priority > attachments[b].gw_priority) {
                best = Some(at);
            }
        }
        if let Some(at) = best {
            attachments[at].default_routes.push(family);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_podmans_and_dockers_form() {
        let a: AttachRequest =
            "blue:ip=10.0.0.5,ip=fd00::5,mac=02:00:00:00:00:01,interface=net1,gw-priority=-1"
                .parse()
                .unwrap();
        assert_eq!(a.network.as_str(), "blue");
        assert_eq!(a.ips.len(), 2);
        assert_eq!(a.interface.unwrap().as_str(), "net1");
        assert_eq!(a.gw_priority, -1);
        let b: AttachRequest = "name=blue,ip=10.0.0.5".parse().unwrap();
        assert_eq!((b.network.as_str(), b.ips.len()), ("blue", 1));
        for bad in [
            "",
            ":ip=1.2.3.4",
            "blue:ip=x",
            "blue:colour=red",
            "blue:ip",
            "b/lue",
        ] {
            assert!(
                bad.parse::<AttachRequest>().is_err(),
                "{bad:?} was accepted"
            );
        }
    }
}
