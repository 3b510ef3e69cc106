//! Packet rules of all tools, read into the form that the core evaluates.

pub mod ipset;
pub mod legacy;
pub mod owner;
mod sockopt;
pub mod xtables;
