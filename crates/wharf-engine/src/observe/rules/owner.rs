//! Whose chains are. The core tells by their names; this is where the engine finds it.

pub use wharf_core::trace::owner::{assign, by_chain, by_table, of};
