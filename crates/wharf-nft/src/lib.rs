//! nf_tables and conntrack over netlink, without any helper program.
//!
//! The crate speaks the kernel's own words (`linux/netfilter/nf_tables.h`): a [`Batch`] collects changes and
//! [`NfSocket::commit`] hands them over as one atomic transaction; [`NfSocket::ruleset`] reads everything back,
//! typed; [`NfSocket::recv_trace`] follows single packets; [`conntrack`] lists and flushes tracked connections.
//!
//! It is not a rule compiler: a [`Rule`] is the list of expressions the kernel runs, nothing is derived or optimised.
//! All calls block. A socket belongs to the network namespace in which it was opened, whoever uses it later.

mod batch;
mod chain;
pub mod conntrack;
mod dump;
mod element;
mod error;
pub mod expr;
#[cfg(test)]
mod fuzz;
mod msg;
mod object;
mod rule;
mod set;
mod set_codec;
mod socket;
mod table;
mod trace;
mod transport;
mod types;
mod undecoded;
mod userdata;
mod verdict;
mod wire;

pub use batch::{Batch, SetRef};
pub use chain::{BaseChain, Chain, ChainFlags, ChainType, Policy};
pub use dump::Ruleset;
pub use element::{Element, ElementFlags, Interval, intervals};
pub use error::NftError;
pub use expr::{Expr, Reg};
pub use object::{Object, ObjectKind};
pub use rule::{Compat, Rule};
pub use set::{DataType, IntervalStyle, Set, SetFlags};
pub use socket::NfSocket;
pub use table::{Table, TableFlags};
pub use trace::{CtTrace, TraceEvent, TraceKind};
pub use types::{Family, Hook};
pub use undecoded::Undecoded;
pub use userdata::Userdata;
pub use verdict::{Data, Verdict};
pub use wire::Malformed;
