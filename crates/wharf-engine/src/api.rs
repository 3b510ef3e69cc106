//! What the verbs of the engine take and give.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use wharf_core::attach::{AttachRequest, ClientKey};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::NetworkSpec;
use wharf_core::plan::Plan;
use wharf_core::publish::{PortMapping, PortRequest};

use crate::kernel::OpError;

/// Whether a change is made or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Make it.
    Apply,
    /// Say what would be done; nothing changes.
    DryRun,
}

/// Where wharf keeps what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Networks: survives a reboot.
    pub state: PathBuf,
    /// Attachments, leases, ports: a reboot clears it.
    pub run: PathBuf,
}

impl Default for Dirs {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/wharf"),
            run: PathBuf::from("/run/wharf"),
        }
    }
}

/// The namespace a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetnsRequest {
    /// A new one at `/run/netns/NAME`.
    New,
    /// The one at this path, which stays its owner's.
    Path(PathBuf),
    /// The one of this process.
    Pid(i32),
}

/// A container asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The name.
    pub name: ContainerName,
    /// What its owner knows it by; 64 random hexadecimal digits unless given.
    pub id: Option<String>,
    /// The front end: `cli`, `cni`, `netavark`.
    pub owner: String,
    /// By what its client knows it, if that is not the name.
    pub client: Option<ClientKey>,
    /// Its namespace.
    pub netns: NetnsRequest,
    /// Its networks, in order; the default network when empty.
    pub networks: Vec<AttachRequest>,
    /// Its published ports.
    pub ports: Vec<PortRequest>,
    /// The owner holds the host's ports and addresses itself: sockets on them are its own.
    pub ports_held: bool,
    /// Labels, kept and shown.
    pub labels: BTreeMap<String, String>,
    /// The command that will run in it, for showing.
    pub command: Vec<String>,
    /// It goes with that command, also if nobody is left to see it end.
    pub transient: bool,
}

/// A network and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// The network.
    pub spec: NetworkSpec,
    /// The containers on it, by name.
    pub containers: Vec<ContainerName>,
}

/// Something the user should know about a change that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Ports of a container that only has internal networks answer to nobody.
    PortsIgnored(ContainerName),
    /// A port of a container answers to nobody: none of its networks carries that family.
    PortUnserved(ContainerName, PortMapping),
    /// A port of the host that was left to be chosen, and what became of it.
    PortChosen(PortRequest, PortMapping),
    /// A network's containers go out with an address that the host does not have.
    ForeignSource(NetworkName, IpAddr),
    /// Another tool's chain drops forwarded packets unless told otherwise, and wharf has no door there.
    ForwardPolicyDrop {
        /// As its tool prints it: `ip filter FORWARD`.
        chain: String,
        /// The commands that let wharf's traffic pass.
        fix: Vec<String>,
    },
    /// Another tool lets wharf's traffic pass because wharf told it so, and forgets that when it is reloaded.
    DoorForNow {
        /// Its name.
        tool: String,
        /// The commands that make it last.
        fix: Vec<String>,
    },
    /// Forwarding was not turned off again, since other bridges need it.
    ForwardingLeftOn {
        /// Those bridges.
        bridges: Vec<String>,
        /// Of Docker's, those whose unpublished ports nobody guards then.
        open: Vec<String>,
        /// The commands that close them.
        fix: Vec<String>,
    },
    /// Forwarding was not turned off again, since the host's files turn it on at boot.
    ForwardingConfigured {
        /// The sysctl.
        sysctl: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// A kernel feature is missing, and what that means.
    MissingFeature(String),
    /// Work that a dead process had left was finished or undone.
    Recovered(String),
    /// Two containers have one address: it was handed out again while the store was lost.
    AddressShared {
        /// The address.
        addr: IpAddr,
        /// On which network.
        network: NetworkName,
        /// Whose it stays, and who needs another.
        containers: [String; 2],
    },
}

/// What a verb did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    /// The result.
    pub value: T,
    /// The steps made, or that would be made; empty when everything was so already.
    pub plan: Plan,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// One thing that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: `link wharf0`, `chain inet wharf forward`, `container web`.
    pub object: String,
    /// How it was found: `missing`, `different`, or why it was taken for nobody's.
    pub was: String,
}

/// What could not be mended, and why.
#[derive(Debug, Clone)]
pub struct Unmended {
    /// Whose it is: ``container `web` ``, ``network `blue` ``, `the host`.
    pub whose: String,
    /// The first operation that was refused.
    pub error: OpError,
}

/// What a repair came to.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// What was not as it should be, and is now; in a dry run, would be.
    pub mended: Vec<Finding>,
    /// What is still not as it should be, by owner.
    pub left: Vec<Unmended>,
}

/// A network's name or a container's, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectName {
    /// A network.
    Network(NetworkName),
    /// A container.
    Container(ContainerName),
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network `{name}`"),
            Self::Container(name) => write!(f, "container `{name}`"),
        }
    }
}
