//! Readable names for containers that were given none.

use std::hash::{BuildHasher, RandomState};

use wharf_core::name::ContainerName;

use crate::output::error::CommandError;

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "cosy", "crisp", "early", "fair", "fleet", "fresh",
    "gentle", "golden", "handy", "happy", "keen", "kind", "light", "lively", "lucky", "mellow",
    "neat", "noble", "proud", "quick", "quiet", "ready", "rosy", "steady", "sunny", "swift",
    "warm",
];
const NOUNS: [&str; 32] = [
    "anchor", "bay", "beacon", "boat", "brig", "buoy", "canoe", "cargo", "cove", "crane", "dinghy",
    "dock", "ferry", "gull", "harbor", "heron", "isle", "jetty", "keel", "kite", "lagoon", "mast",
    "oar", "pearl", "pier", "quay", "reef", "sail", "sloop", "tide", "tug", "wave",
];

/// A random name; `attempt` counts from 0, and later attempts have more to choose from.
///
/// # Errors
/// None that a test has not ruled out.
pub fn random(attempt: u32) -> Result<ContainerName, CommandError> {
    let bits = RandomState::new().hash_one(attempt);
    named(bits, attempt > 0)
        .parse()
        .map_err(|error| CommandError::internal(format!("{error}")))
}

fn named(bits: u64, numbered: bool) -> String {
    let pick = |words: &[&'static str; 32], shift: u32| {
        let at = usize::try_from((bits >> shift) & 31).unwrap_or(0);
        words[at]
    };
    let name = format!("{}-{}", pick(&ADJECTIVES, 0), pick(&NOUNS, 5));
    if numbered {
        format!("{name}-{:04x}", (bits >> 10) & 0xffff)
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one() {
        for bits in 0..1024 {
            assert!(named(bits, false).parse::<ContainerName>().is_ok());
            assert!(named(bits, true).parse::<ContainerName>().is_ok());
        }
        assert_ne!(random(1).unwrap(), random(1).unwrap());
    }
}
