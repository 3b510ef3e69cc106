//! Tests that cannot run here say so; where `CI` is set that is a failure.

use crate::sys;
use std::env;
use std::path::Path;

/// Says that the test is skipped and why. Panics where the environment variable `CI` is set: there, everything a test
/// needs is meant to be present.
#[track_caller]
pub fn skipped(reason: &str) {
    assert!(
        env::var_os("CI").is_none(),
        "SKIPPED where nothing may be: {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}

/// What a test needs beyond a kernel with namespaces. `Err` is the reason to skip.
pub fn require(needs: &[Need]) -> Result<(), String> {
    needs.iter().try_for_each(|need| need.check())
}

/// One thing a test may need.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// Root, or a user namespace in which we are root.
    Root,
    /// A program in the path.
    Program(&'static str),
    /// The sysctls of br_netfilter, in each network namespace.
    BridgeNetfilter,
    /// SCTP sockets (raw SCTP packets need nothing).
    SctpSockets,
    /// IPv6.
    Ipv6,
}

impl Need {
    fn check(self) -> Result<(), String> {
        let (met, reason) = match self {
            Self::Root => (
                sys::euid() == 0,
                "not root: run the tests under `unshare -Urnm`".into(),
            ),
            Self::Program(name) => (
                has_program(name),
                format!("the program `{name}` is not installed"),
            ),
            Self::BridgeNetfilter => (
                Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
                "no br_netfilter: `modprobe br_netfilter`".into(),
            ),
            Self::SctpSockets => (
                sys::has_sctp_sockets(),
                "the kernel has no SCTP sockets".into(),
            ),
            Self::Ipv6 => (
                Path::new("/proc/sys/net/ipv6").exists(),
                "the kernel has no IPv6".into(),
            ),
        };
        if met { Ok(()) } else { Err(reason) }
    }
}

fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// Returns from the calling test, as SKIPPED, unless all needs are met.
#[macro_export]
macro_rules! require {
    ($($need:expr),* $(,)?) => {
        if let Err(reason) = $crate::skip::require(&[$crate::skip::Need::Root, $($need),*]) {
            return $crate::skip::skipped(&reason);
        }
    };
}
