//! The explainer's walk over states made by hand: one case per cause, healthy odd paths, and random states.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod build;
mod causes_host;
mod causes_link;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod compiled;
mod doctor;
mod examples;
mod healthy;
mod in_order;
mod random;
mod verdict;
mod wharf_tables;
