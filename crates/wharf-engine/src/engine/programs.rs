//! Programs in containers, which end with them.
//!
//! Not for namespaces that somebody else made: what lives there is his.

use std::collections::BTreeSet;
use std::time::Duration;

use wharf_core::attach::Container;

use crate::engine::identity;
use crate::error::EngineError;
use crate::process::liveness::{self, KillError};

/// How long the program that wharf started has to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often to look for what others have started meanwhile.
const ROUNDS: u32 = 5;

/// Ends what runs in containers that are removed: the program that wharf started is asked first; by force, what it and
/// others started there in the namespace is ended at once.
///
/// # Errors
/// A process does not end.
pub(super) fn end(containers: &[Container], force: bool) -> Result<(), EngineError> {
    for container in containers {
        if let Some(process) = container.process.filter(|p| identity::lives(*p)) {
            let pid = process.pid as u32;
            let ended = liveness::kill_and_wait(pid, process.start_time, PATIENCE);
            ended.map_err(|e| failed(&format!("of container `{}`", container.name), e))?;
        }
    }
    let made = containers.iter().filter(|c| c.netns.made_by_wharf && force);
    let made = made.filter(|c| identity::namespace_lives(c));
    let spaces: BTreeSet<u64> = made
        .filter_map(|c| c.netns.identity.map(|(_, inode)| inode))
        .collect();
    if spaces.is_empty() {
        return Ok(());
    }
    for _ in 0..ROUNDS {
        let mut left = liveness::members_of(&spaces);
        left.retain(|process| process.pid != std::process::id());
        if left.is_empty() {
            break;
        }
        for process in left {
            let ended = process.kill_and_wait(Duration::ZERO);
            ended.map_err(|e| failed("in a container", e))?;
        }
    }
    Ok(())
}

fn failed(whose: &str, error: KillError) -> EngineError {
    let (KillError::Refused { pid, .. } | KillError::StillThere { pid }) = error;
    EngineError::System {
        verb: format!("end process {pid} {whose}"),
        detail: error.to_string(),
        errno: 0,
    }
}
