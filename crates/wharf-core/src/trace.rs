//! The explainer: where a packet goes on this host, and what stops it.
//!
//! ```text
//! ObservedState (every namespace on the way) + Query ── walk ──> Report { verdict, cause, also, hops }
//! ```
//!
//! * `state`: what was read of links, addresses, routes, rules, neighbours, sysctls, sockets and flows;
//! * `ruleset`: nftables and iptables rules in one form that can be evaluated;
//! * `env`, `eval`: what the rules of one hook are given, and what they do with the packet;
//! * `packet`, `query`: what is sent, and what was asked;
//! * `owner`: whose a chain or rule is;
//! * `walk`: the way of the packet and of its answer;
//! * `seen`, `verdict`: what a live probe saw, and what follows from it together with the state;
//! * `report`: the answer, as `wharf trace --json` prints it;
//! * `changed`: rules of wharf that are not as the store says, before what follows from them;
//! * `doctor`: what is wrong with the whole host, without a question about a flow;
//! * `exposure`: who reaches which published port, and who claims otherwise.
//!
//! Not here: reading (the engine's `observe`), sending real packets (its `probe`), layout of text (the command).

pub mod changed;
pub mod doctor;
pub mod env;
pub mod eval;
pub mod exposure;
pub mod owner;
pub mod packet;
pub mod query;
pub mod report;
mod rule_text;
pub mod ruleset;
pub mod seen;
pub mod state;
pub mod verdict;
mod walk;

pub use packet::{L4, Packet};
pub use query::{Query, Source, Target};
pub use report::{Cause, Code, Hop, HopVerdict, Owner, Report, Verdict};
pub use state::{ObservedState, Space, SpaceId};
pub use walk::{Tracer, trace, unread_ends};
