//! What kind of host a test wants.

use crate::host::Host;

/// What another tool (Docker, ufw, an administrator) decided about forwarded packets, in the iptables tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// There are no iptables tables.
    Untouched,
    /// FORWARD exists, with policy ACCEPT.
    Accept,
    /// FORWARD has policy DROP, and no chain is meant for others.
    Drop,
    /// FORWARD has policy DROP and begins with a jump to DOCKER-USER, as Docker leaves it.
    DropWithDockerUser,
}

/// The choices; [`HostOptions::start`] makes the host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    pub(crate) wharf: String,
    pub(crate) bridge_nf_call: bool,
    pub(crate) forward: ForwardPolicy,
    pub(crate) ip_forward: bool,
    pub(crate) neighbour: bool,
    pub(crate) uplink_mtu: u32,
}

impl HostOptions {
    /// A host with `ip_forward` 0, `bridge-nf-call-*` 0, no firewall, and the given `wharf` program (the test has its
    /// path in `CARGO_BIN_EXE_wharf`; the environment variable `WHARF_BIN` names another one to try).
    pub fn new(wharf: &str) -> Self {
        Self {
            wharf: std::env::var("WHARF_BIN").unwrap_or_else(|_| wharf.into()),
            bridge_nf_call: false,
            forward: ForwardPolicy::Untouched,
            ip_forward: false,
            neighbour: false,
            uplink_mtu: 1500,
        }
    }

    /// `net.bridge.bridge-nf-call-{iptables,ip6tables,arptables}`.
    pub fn bridge_nf_call(mut self, on: bool) -> Self {
        self.bridge_nf_call = on;
        self
    }

    /// What another tool did to FORWARD.
    pub fn forward(mut self, policy: ForwardPolicy) -> Self {
        self.forward = policy;
        self
    }

    /// Whether the host forwards already.
    pub fn ip_forward(mut self, on: bool) -> Self {
        self.ip_forward = on;
        self
    }

    /// Adds a second machine on a link of its own, [`Host::neighbour`].
    pub fn neighbour(mut self) -> Self {
        self.neighbour = true;
        self
    }

    /// The MTU of the uplink.
    pub fn uplink_mtu(mut self, mtu: u32) -> Self {
        self.uplink_mtu = mtu;
        self
    }

    /// Makes the host.
    pub fn start(self) -> Host {
        Host::start(self)
    }
}
