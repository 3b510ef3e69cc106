//! Many at once, for long, and while they change: load, moments in which a packet could slip through, deaths.
//!
//! `WHARF_STRAIN_CONTAINERS`, `WHARF_STRAIN_CYCLES`, `WHARF_STRAIN_PORTS`, `WHARF_STRAIN_ROUNDS` and `WHARF_STRAIN_FRAMES`
//! change the sizes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../blackbox/cni_runtime.rs"]
mod cni_runtime;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../blackbox/common.rs"]
mod common;
mod frames;
mod fronts;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../blackbox/liar.rs"]
mod liar;
mod load;
mod podman;
mod soak;
mod windows;

/// A size from the environment, else the usual one.
pub fn size(name: &str, usual: usize) -> usize {
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |n| {
        n.parse().unwrap_or_else(|_| panic!("{name}={n}"))
    })
}
