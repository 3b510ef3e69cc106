//! The explainer's walk over states made by hand: one case per cause, healthy odd paths, and random states.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod build;
mod causes_host;
mod causes_link;
mod examples;
mod healthy;
mod random;
mod wharf_tables;
