//! A kernel by way of commands: each operation as an administrator would type it, run by `sh` or only kept.
//!
//! For tests, where it stands beside the real kernel, and for showing. The engine itself starts no program.

use std::process::Command;

use wharf_core::model::Netns;
use wharf_core::op::Op;
use wharf_core::render;

use super::{ApplyError, Kernel, OpError};

/// Runs or keeps the commands of operations, in the namespace of the calling thread.
#[derive(Debug, Clone, Default)]
pub struct ScriptKernel {
    /// The commands so far, in order.
    pub commands: Vec<String>,
    run: bool,
}

impl ScriptKernel {
    /// Runs each command.
    pub fn running() -> Self {
        Self {
            run: true,
            ..Self::default()
        }
    }

    /// Keeps the commands and runs none.
    pub fn collecting() -> Self {
        Self::default()
    }

    fn one(&mut self, op: &Op) -> Result<(), OpError> {
        let command = render::command(op);
        self.commands.push(command.clone());
        if !self.run {
            return Ok(());
        }
        let error = |detail: String| OpError {
            op: Box::new(op.clone()),
            netns: Netns::Host,
            errno: 0,
            detail: Some(detail),
        };
        let out = Command::new("sh")
            .args(["-ec", &command])
            .output()
            .map_err(|e| error(format!("sh: {e}")))?;
        if out.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&out.stderr);
        if removes(op) && absent(&text) {
            return Ok(());
        }
        Err(error(text.trim().to_owned()))
    }
}

impl Kernel for ScriptKernel {
    fn apply(&mut self, ops: &[&Op]) -> Result<(), ApplyError> {
        for (at, op) in ops.iter().enumerate() {
            if let Err(error) = self.one(op) {
                let applied = (0..ops.len()).map(|n| n < at).collect();
                return Err(ApplyError { error, applied });
            }
        }
        Ok(())
    }
}

/// Removing what is not there is no failure. A transaction of nftables is all or nothing, so one that removes
/// several objects is not counted here.
fn removes(op: &Op) -> bool {
    match op {
        Op::NetnsDel(_)
        | Op::LinkDel { .. }
        | Op::AddrDel { .. }
        | Op::RouteDel(_)
        | Op::NeighDel { .. }
        | Op::FdbDel { .. } => true,
        Op::Nft(changes) => matches!(changes.as_slice(), [wharf_core::nft::Change::Del(_)]),
        _ => false,
    }
}

/// What iproute2, bridge and nft say of a thing that is not there.
fn absent(stderr: &str) -> bool {
    [
        "No such file or directory",
        "No such process",
        "No such device",
        "Cannot find device",
        "Cannot assign requested address",
    ]
    .iter()
    .any(|words| stderr.contains(words))
}
