//! The kernel side of wharf: what the core decided is done here, and remembered.
//!
//! * [`kernel`]: operations applied, by netlink, by commands, or in memory.
//! * `store`: what wharf knows, in LMDB; `engine`: the verbs of the command, each one transaction.
//!
//! Not here: command lines, printing, exit statuses.

pub mod api;
pub mod engine;
pub mod error;
mod failpoint;
pub mod kernel;
pub mod observe;
pub mod private;
pub mod probe;
pub mod process;
pub mod store;
