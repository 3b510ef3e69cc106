//! What can go wrong with a verb of the engine.

use std::net::IpAddr;
use std::path::PathBuf;

use wharf_core::ErrorKind;
use wharf_core::addr::Family;
use wharf_core::model::LinkKind;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::NetworkError;
use wharf_core::op::Op;
use wharf_core::publish::{PortMapping, PortRange, PortRequest};

use crate::api::{ObjectName, Unmended};
use crate::kernel::{OpError, PlanError};

/// Why a verb failed. Nothing changed, unless `Plan` says what is left.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such network or container.
    #[error("no such {0}")]
    NotFound(ObjectName),
    /// The container's name is in use.
    #[error("{0} exists already")]
    Exists(ObjectName),
    /// The network cannot be as asked for.
    #[error("cannot create network `{name}`: {error}")]
    Network {
        /// The network.
        name: NetworkName,
        /// Why.
        error: NetworkError,
    },
    /// The network is not as its client describes it, and cannot be changed.
    #[error("network `{network}` is otherwise: {}", .differences.join("; "))]
    NetworkDiffers {
        /// The network.
        network: NetworkName,
        /// What differs.
        differences: Vec<String>,
    },
    /// Containers are on the network.
    #[error("network `{network}` is in use by {}", names(.containers))]
    NetworkInUse {
        /// The network.
        network: NetworkName,
        /// Who.
        containers: Vec<ContainerName>,
    },
    /// Another process is making or removing it.
    #[error("{0} is being changed by another process")]
    Busy(ObjectName),
    /// The container is on the network already.
    #[error("container `{container}` is on network `{network}` already")]
    Attached {
        /// The container.
        container: ContainerName,
        /// The network.
        network: NetworkName,
    },
    /// The container is not on the network.
    #[error("container `{container}` is not on network `{network}`")]
    NotAttached {
        /// The container.
        container: ContainerName,
        /// The network.
        network: NetworkName,
    },
    /// A network is named twice for one container.
    #[error("network `{0}` is named twice")]
    NetworkTwice(NetworkName),
    /// An order of networks in which one is not named.
    #[error("container `{container}` is on network `{network}` too, which is not named")]
    NetworkUnnamed {
        /// The container.
        container: ContainerName,
        /// The network.
        network: NetworkName,
    },
    /// Another front end made it.
    #[error("{object} is {owner}'s")]
    Anothers {
        /// What.
        object: ObjectName,
        /// Whose.
        owner: String,
    },
    /// An address is another container's or the gateway's.
    #[error("address {addr} on network `{network}` is taken by {by}")]
    AddressTaken {
        /// The address.
        addr: IpAddr,
        /// The network.
        network: NetworkName,
        /// Whose it is: "container `web`", "the gateway".
        by: String,
    },
    /// An address asked for that the network cannot give.
    #[error("address {addr} cannot be had on network `{network}`: {why}")]
    AddressUnfit {
        /// The address.
        addr: IpAddr,
        /// The network.
        network: NetworkName,
        /// Why.
        why: String,
    },
    /// A hardware address is another container's.
    #[error("MAC address {mac} on network `{network}` is container `{by}`'s")]
    MacTaken {
        /// The hardware address.
        mac: wharf_core::addr::Mac,
        /// The network.
        network: NetworkName,
        /// Whose it is.
        by: ContainerName,
    },
    /// A hardware address is the bridge's: nobody would reach the gateway any more.
    #[error("MAC address {mac} is that of network `{network}` itself")]
    MacOfNetwork {
        /// The hardware address.
        mac: wharf_core::addr::Mac,
        /// The network.
        network: NetworkName,
    },
    /// Every address is taken.
    #[error("network `{network}` has no free address in {}", places(.pool, .ranges))]
    PoolEmpty {
        /// The network.
        network: NetworkName,
        /// Where addresses come from.
        pool: ipnet::IpNet,
        /// First and last of the ranges they come from, where they are not the whole of `pool`.
        ranges: Vec<(std::net::IpAddr, std::net::IpAddr)>,
    },
    /// Another container has the port.
    #[error("host port {wanted} is published by container `{by}` already ({theirs})")]
    PortTaken {
        /// Asked for.
        wanted: PortMapping,
        /// The holder.
        by: ContainerName,
        /// Its mapping.
        theirs: PortMapping,
    },
    /// A process of the host listens on the port.
    #[error("host port {wanted} is in use: a process of the host listens on {listener}")]
    PortListening {
        /// Asked for.
        wanted: PortMapping,
        /// Where it listens.
        listener: std::net::SocketAddr,
    },
    /// All ports of which one was to be chosen have somebody.
    #[error("no port of the host is free for {wanted}: all of {among} are taken")]
    NoFreePort {
        /// Asked for.
        wanted: PortRequest,
        /// Where it was looked for.
        among: PortRange,
    },
    /// A port mapping asked for twice in one call.
    #[error("{}", clash(.0, .1))]
    PortsClash(PortMapping, PortMapping),
    /// Ports of which none would answer anybody.
    #[error("container `{container}` cannot publish {mapping}: {}", .mapping.lacks())]
    PortUnserved {
        /// The container.
        container: ContainerName,
        /// The first of them, as its network binds it.
        mapping: PortMapping,
    },
    /// A mapping bound to an address the host does not have.
    #[error("cannot publish {wanted}: {addr} is not an address of this host")]
    HostIpMissing {
        /// Asked for.
        wanted: PortMapping,
        /// The address.
        addr: IpAddr,
    },
    /// The container has no such mapping.
    #[error("container `{container}` does not publish {mapping}")]
    PortNotFound {
        /// The container.
        container: ContainerName,
        /// The mapping.
        mapping: PortMapping,
    },
    /// An interface name is taken in the container.
    #[error("interface `{interface}` exists already in {netns}")]
    InterfaceTaken {
        /// The interface.
        interface: IfName,
        /// Where.
        netns: PathBuf,
    },
    /// The path is no network namespace, or is gone.
    #[error("{why}")]
    NotANetns {
        /// The path.
        path: PathBuf,
        /// What is there instead, with the path or the process.
        why: String,
    },
    /// The namespace is wharf's own or has a container already.
    #[error("{path} cannot be a container's namespace: {why}")]
    NetnsUnfit {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The container's process runs.
    #[error("container `{0}` is running")]
    Running(ContainerName),
    /// A plan's step failed.
    #[error("cannot {verb}")]
    Plan {
        /// What was being done: "attach container `web` to network `blue`".
        verb: String,
        /// What failed, and what was taken back.
        #[source]
        error: Box<PlanError>,
    },
    /// The kernel refused some of what was to be done; the rest is done.
    #[error("cannot {verb} {}", owners(.left))]
    Left {
        /// What was being done: "mend".
        verb: String,
        /// What is left, by owner.
        left: Vec<Unmended>,
    },
    /// Something was asked of the kernel that it refused.
    #[error("cannot {verb}: {detail}")]
    System {
        /// What was being done.
        verb: String,
        /// errno's text, or more.
        detail: String,
        /// errno, or 0.
        errno: i32,
    },
    /// Not enough privileges.
    #[error("wharf needs the capability CAP_NET_ADMIN and CAP_SYS_ADMIN in this namespace")]
    Privileges,
    /// A store is not what it was when it was written.
    #[error("the store in {path} is damaged: {why}")]
    StoreDamaged {
        /// The directory.
        path: PathBuf,
        /// What can be seen.
        why: &'static str,
    },
    /// The store cannot be used.
    #[error("cannot use the store in {path}: {detail}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// What to do where sysctls cannot be written, as in many containers.
const READ_ONLY: &str = "/proc/sys is mounted read-only here: set it beforehand (for new links under `default`), remount it with `mount -o remount,rw /proc/sys`, or run wharf where it is writable";

fn places(pool: &ipnet::IpNet, ranges: &[(std::net::IpAddr, std::net::IpAddr)]) -> String {
    let text = |(first, last): &(_, _)| format!("{first}-{last}");
    match ranges {
        [] => pool.to_string(),
        all => all.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

/// What a kernel lacks that does not know an operation.
fn missing_feature(op: &Op) -> Option<&'static str> {
    match op {
        Op::PortSet(port) if port.vlan.is_some() => Some(
            "this kernel's bridges cannot filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING): leave the option `vlan` out",
        ),
        Op::LinkAdd(link) if matches!(link.kind, LinkKind::Macvlan { .. }) => {
            Some("this kernel has no macvlan (CONFIG_MACVLAN): use a bridge network")
        }
        _ => None,
    }
}

fn clash(one: &PortMapping, other: &PortMapping) -> String {
    match one == other {
        true => format!("port mapping {one} is given twice"),
        false => format!("port mappings {one} and {other} exclude each other"),
    }
}

fn owners(left: &[Unmended]) -> String {
    let owners: Vec<&str> = left.iter().map(|l| l.whose.as_str()).collect();
    owners.join(", ")
}

fn names(containers: &[ContainerName]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = containers
        .iter()
        .take(SHOWN)
        .map(|c| format!("`{c}`"))
        .collect();
    if containers.len() > SHOWN {
        text.push(format!("{} more", containers.len() - SHOWN));
    }
    text.join(", ")
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for PlanError {}

impl EngineError {
    /// The coarse kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NotAttached { .. } | Self::PortNotFound { .. } => {
                ErrorKind::NotFound
            }
            Self::Exists(_)
            | Self::NetworkInUse { .. }
            | Self::NetworkDiffers { .. }
            | Self::Attached { .. }
            | Self::Anothers { .. }
            | Self::AddressTaken { .. }
            | Self::MacTaken { .. }
            | Self::MacOfNetwork { .. }
            | Self::PoolEmpty { .. }
            | Self::PortTaken { .. }
            | Self::PortListening { .. }
            | Self::NoFreePort { .. }
            | Self::InterfaceTaken { .. }
            | Self::Running(_) => ErrorKind::Conflict,
            Self::PortUnserved { .. } | Self::NetworkTwice(_) | Self::NetworkUnnamed { .. } => {
                ErrorKind::Usage
            }
            Self::Busy(_) => ErrorKind::Retry,
            Self::Network { error, .. } => error.kind(),
            Self::AddressUnfit { .. }
            | Self::PortsClash(..)
            | Self::HostIpMissing { .. }
            | Self::NotANetns { .. }
            | Self::NetnsUnfit { .. } => ErrorKind::Config,
            Self::Plan { error, .. } => error.error.kind(),
            Self::Left { left, .. } => match left.first() {
                Some(first) => first.error.kind(),
                None => ErrorKind::Kernel,
            },
            Self::System {
                errno: libc::EPERM | libc::EACCES,
                ..
            }
            | Self::Privileges => ErrorKind::Permission,
            Self::System { .. } => ErrorKind::Kernel,
            Self::Store { .. } | Self::StoreDamaged { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(ObjectName::Network(name)) if matches!(name.as_str(), "none" | "host" | "bridge") => {
                "wharf has no such modes: without --network a container is on `default`; `wharf network create --internal` makes one without a way out".to_owned()
            }
            Self::NotFound(ObjectName::Network(_)) => "`wharf network ls` lists the networks".to_owned(),
            Self::NotFound(ObjectName::Container(_)) => "`wharf ps` lists the containers".to_owned(),
            Self::Exists(ObjectName::Container(name)) => format!("choose another name, or remove it with `wharf rm -f {name}`"),
            Self::Network { error, .. } => return error.hint(),
            Self::NetworkUnnamed { .. } => "name all its networks, in the order in which they are to be".to_owned(),
            Self::Anothers { object: ObjectName::Network(_), .. } => "who made it defines it; choose another name".to_owned(),
            Self::Anothers { object: ObjectName::Container(name), .. } => format!("choose another name; `wharf rm -f {name}` removes it all the same"),
            Self::NetworkDiffers { network, .. } => format!("remove its containers first (`wharf network inspect {network}` lists them), or give the network another name"),
            Self::NetworkInUse { network, .. } => {
                format!("remove the containers or disconnect them: `wharf network disconnect {network} NAME`; or use `wharf network rm -f {network}`")
            }
            Self::PortTaken { by, theirs, .. } => format!("choose another host port, or `wharf port rm {by} {theirs}`"),
            Self::PortListening { wanted, .. } => {
                format!("`ss -lnp sport = :{}` shows the process; choose another host port or host address", wanted.host.first())
            }
            Self::NoFreePort { .. } => {
                "`wharf port ls` shows what containers publish, `ss -ln` where the host listens".to_owned()
            }
            Self::InterfaceTaken { .. } => {
                "choose another name: `--network NET:interface=NAME`".to_owned()
            }
            Self::PortUnserved { mapping, .. } => match mapping.host_ip {
                Some(ip) => format!("publish at an address of another family, or put the container on a network with {}", Family::of(ip)),
                None => "put the container on a bridge network that has addresses".to_owned(),
            },
            Self::HostIpMissing { .. } => "`ip addr` shows the host's addresses".to_owned(),
            Self::PortNotFound { container, .. } => format!("`wharf port ls {container}` lists its ports"),
            Self::Running(name) => format!("end its program first, or use `wharf rm -f {name}`"),
            Self::System { errno: libc::EROFS, .. } => READ_ONLY.to_owned(),
            Self::Plan { error, .. } if error.error.errno == libc::EROFS => match &*error.error.op {
                Op::SysctlSet { key, value, .. } => {
                    format!("{} has to be {value}, and {READ_ONLY}", key.replace('/', "."))
                }
                _ => READ_ONLY.to_owned(),
            },
            Self::Plan { error, .. } if error.error.errno == libc::EOPNOTSUPP => {
                return missing_feature(&error.error.op).map(str::to_owned);
            }
            Self::Left { .. } => "everything else that was found is done; `wharf doctor` tells what stands in the way".to_owned(),
            Self::Privileges => "run it as root, or in a namespace of your own: `unshare -Urnm`".to_owned(),
            Self::PoolEmpty { network, ranges, .. } if !ranges.is_empty() => {
                format!("remove containers from `{network}`, or widen its ranges")
            }
            Self::PoolEmpty { network, .. } => format!("remove containers from `{network}`, or use a network with a wider subnet"),
            Self::StoreDamaged { .. } => "`wharf repair --rebuild` puts it aside and makes it again from the kernel".to_owned(),
            Self::Store { .. } => "check the directory's owner and free space; WHARF_STATE_DIR and WHARF_RUN_DIR choose others".to_owned(),
            _ => return None,
        })
    }

    /// The operation that the kernel refused, if it was one.
    pub fn failed_op(&self) -> Option<&OpError> {
        match self {
            Self::Plan { error, .. } => Some(&error.error),
            _ => None,
        }
    }

    /// How many earlier steps there were and how many of them were taken back.
    pub fn undone(&self) -> Option<(usize, usize)> {
        match self {
            Self::Plan { error, .. } => Some((error.undone, error.done)),
            _ => None,
        }
    }
}
