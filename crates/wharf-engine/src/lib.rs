//! See Cargo.toml.

pub mod process;
