//! The pure core of wharf: it decides, and touches nothing.
//!
//! ```text
//! request ── resolve ──> intent ── compile ──> desired state ── diff ── observed state
//!                                                               │
//!                                            plan = steps { op, undo, because } ── render ──> commands
//! ```
//!
//! Not here: sockets, files, clocks, the environment. `clippy.toml` bans them; what a decision needs to
//! know comes in as a value.

pub mod addr;
pub mod attach;
pub mod compile;
pub mod diff;
pub mod error;
pub mod extras;
pub mod ipam;
pub mod model;
pub mod name;
pub mod nearest;
pub mod network;
pub mod nft;
pub mod op;
pub mod options;
pub mod plan;
pub mod publish;
pub mod render;
pub mod topology;
pub mod trace;

pub use error::ErrorKind;
