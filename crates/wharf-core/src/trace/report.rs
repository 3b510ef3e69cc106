//! The answer, in the shape of `wharf trace --json`.

use serde::Serialize;

use crate::trace::packet::L4;

/// What becomes of the packet and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It arrives, and the answer comes back.
    Delivered,
    /// It vanishes.
    Dropped,
    /// Somebody refuses it and says so.
    Rejected,
    /// It arrives, and the answer does not come back.
    Unanswered,
    /// It cannot be told.
    Unknown,
}

/// Who owns what is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// wharf.
    Wharf,
    /// Docker.
    Docker,
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
    /// libvirt.
    Libvirt,
    /// Kubernetes and its CNI plugins.
    Kubernetes,
    /// Podman and Netavark.
    Podman,
    /// The administrator, by hand or by a tool that is not known.
    User,
    /// The kernel by itself.
    Kernel,
}

macro_rules! codes {
    ($( $(#[$m:meta])* $name:ident ),* $(,)?) => {
        /// The causes that can be named.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Code { $( $(#[$m])* $name ),* }

        impl Code {
            /// All of them.
            pub const ALL: &[Code] = &[ $( Code::$name ),* ];
        }
    };
}

codes! {
    /// An interface on the path is administratively down.
    LinkDown,
    /// Its peer is down or gone.
    NoCarrier,
    /// A container's host-side veth has no master, or another bridge.
    NotOnBridge,
    /// The bridge is down.
    BridgeDown,
    /// STP state, port isolation, learning or flood off, a locked port.
    BridgePortBlocked,
    /// Two interfaces on the segment own the address.
    DuplicateAddress,
    /// Two ports on the segment use one MAC address.
    DuplicateMac,
    /// Nobody answers ARP or ND for the next hop.
    NeighbourUnreachable,
    /// A neighbour entry points at the wrong MAC address.
    NeighbourWrong,
    /// The source has no address of that family.
    NoAddress,
    /// Nobody at the end of the path owns the address.
    NoSuchDestination,
    /// A namespace has no route to the destination.
    NoRoute,
    /// Two routes to one prefix, or an address in two places.
    RouteConflict,
    /// The next hop is not the gateway of the segment, or not on it.
    WrongGateway,
    /// An on-link prefix too wide or too narrow.
    WrongPrefixLength,
    /// A blackhole, unreachable, prohibit or throw route.
    RouteRejects,
    /// An `ip rule` sends it to another table or rejects it.
    PolicyRule,
    /// Forwarding is off.
    ForwardingDisabled,
    /// `rp_filter` drops it.
    ReversePathFilter,
    /// A loopback or otherwise impossible address on the wire.
    MartianAddress,
    /// The far side has no route back.
    NoReturnRoute,
    /// A private source leaves untranslated.
    NoMasquerade,
    /// A loop, or a TTL too small.
    TtlExpired,
    /// `disable_ipv6`, or an address that failed or waits for duplicate detection.
    Ipv6Disabled,
    /// Too large for a link.
    MtuExceeded,
    /// wharf's default deny: no mapping for that port.
    NotPublished,
    /// wharf keeps these networks or containers apart.
    NetworkIsolation,
    /// The network is internal.
    InternalNetwork,
    /// wharf's port or source guard.
    SpoofGuard,
    /// A rule of another table drops or rejects it.
    FirewallRule,
    /// A base chain's policy drops it.
    FirewallPolicy,
    /// Bridged traffic is judged by IP-level rules because `bridge-nf-call-*` is 1, and dropped there.
    BridgeNetfilter,
    /// Another mapping or listener takes the port first, or the mapping points at nobody.
    PublishShadowed,
    /// An old conntrack entry steers the flow wrongly.
    ConntrackStale,
    /// The conntrack table is full.
    ConntrackFull,
    /// A tc filter, action, eBPF or XDP program drops it.
    TrafficControl,
    /// Nothing listens on that port at the destination.
    NotListening,
    /// Something listens, but on another address, family or protocol.
    ListeningElsewhere,
    /// The listener's queue is full.
    AcceptQueueFull,
    /// Echo requests are ignored by a sysctl.
    EchoIgnored,
    /// No source port is left for translation.
    PortsExhausted,
    /// Packet rules of wharf are missing, or not as the store says.
    RulesChanged,
}

/// One thing that stops the packet or its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What it is.
    pub code: Code,
    /// Where: a container's name, `host`, or a path.
    pub netns: String,
    /// The object to blame, as its own tool prints it.
    pub object: String,
    /// Whose it is.
    pub owner: Owner,
    /// One sentence a newcomer understands.
    pub summary: String,
    /// What was read or seen, with the command that shows it.
    pub evidence: Vec<String>,
    /// Commands that mend it.
    pub fix: Vec<String>,
}

/// What happens to the packet at one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HopVerdict {
    /// It goes on.
    Pass,
    /// It ends.
    Drop,
    /// It is refused.
    Reject,
    /// Its addresses or ports are changed.
    Translate,
    /// It cannot be told.
    Unknown,
}

/// One station of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Where.
    pub netns: String,
    /// What happens there: `source`, `route`, `neighbour`, `output`, `bridge`, `prerouting`, `forward`, `input`,
    /// `postrouting`, `socket`, …
    pub stage: String,
    /// The object that decided.
    pub object: String,
    /// What it did.
    pub detail: String,
    /// With what result.
    pub verdict: HopVerdict,
    /// On the way back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reply: bool,
}

/// One end of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// As it was asked for: a container's name, `host`, `outside`, an address, a path.
    pub name: String,
    /// The namespace, where it is on this host.
    pub netns: Option<String>,
    /// The address used.
    pub address: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// From.
    pub source: End,
    /// To.
    pub destination: End,
    /// With.
    pub protocol: L4,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The first thing that stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What would bite next.
    pub also: Vec<Cause>,
    /// The way.
    pub hops: Vec<Hop>,
    /// What a live probe sent and saw, in sentences; empty if none was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<String>,
    /// What could not be read or decided, and where a live probe saw something else than the state suggested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The cause is on one of several ways of the same route, and another one is whole.
    #[serde(skip)]
    pub some_pass: bool,
}
