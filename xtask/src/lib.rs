//! What the two programs of this crate share: `xtask`, which runs the benches and lays out wharf's functions, and
//! `floor`, which is the yardstick: the fewest netlink messages that plug in one container, and nothing else.
//!
//! Nothing here is part of wharf, and none of it uses wharf's own crates: a yardstick made of the measured
//! code would hide that code's cost.

pub mod bench;
#[cfg(target_arch = "x86_64")]
pub mod entries;
pub mod floor;
pub mod http;
#[cfg(target_arch = "x86_64")]
pub mod layout;
pub mod netlink;
pub mod nft;
pub mod rt;
pub mod sys;
