//! Private hosts, traffic probes and fault injection for the tests of wharf.
//!
//! * [`Host`]: a machine of its own (network, mount, process and UTS namespace) with an uplink to an
//!   [outside](Host::outside); dropping it ends every process in it and leaves nothing.
//! * [`Output`] and [`Running`]: commands inside such a host, with a readable transcript when they misbehave.
//! * [`probe`]: echo servers and clients in Rust; a client reports who answered and which source the server saw.
//! * [`frame`], [`Wire`] and [`Sniffer`]: raw frames, for what a hostile neighbour or container would send.
//! * [`disguise`]: the same behind tags, options and extension headers, or in pieces.
//! * [`Snapshot`]: everything wharf could leave behind on a host, and a readable difference of two of them.
//! * [`skip`]: SKIPPED with a reason, which is a failure where `CI` is set.
//!
//! The kit never looks at wharf's own code: its witnesses are `ip`, `nft`, `ping`, `curl` and the traffic itself.
//! Run it as root, or as anybody else under `unshare -Urnm`.

mod command;
pub mod disguise;
mod echo;
pub mod frame;
mod host;
mod matrix;
mod netns;
mod options;
pub mod probe;
mod sctp;
pub mod skip;
mod snapshot;
mod sys;
mod temp;
mod wait;
mod wire;

pub use command::{HostCommand, Output, Running};
pub use echo::Echo;
pub use host::{Host, addr};
pub use matrix::{Matrix, Want};
pub use netns::Netns;
pub use options::{ForwardPolicy, HostOptions};
pub use probe::{Answer, Protocol, probe};
pub use sctp::SctpEcho;
pub use snapshot::{Difference, Snapshot};
pub use temp::TempDir;
pub use wait::{eventually, eventually_within};
pub use wire::{Flood, Sniffer, Wire};
