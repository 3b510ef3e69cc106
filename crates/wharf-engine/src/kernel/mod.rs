//! Applying operations to a kernel.
//!
//! [`Kernel`] is the one door. Behind it are `netlink` (the real one), `script` (the commands an
//! administrator would type, run by a shell) and `fake` (in memory, can fail at any operation).

#[cfg(any(test, feature = "script"))]
pub mod fake;
pub mod netlink;
#[cfg(any(test, feature = "script"))]
pub mod script;

use wharf_core::ErrorKind;
use wharf_core::model::Netns;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct OpError {
    /// The operation.
    pub op: Box<Op>,
    /// Where it was applied.
    pub netns: Netns,
    /// The kernel's error number, or 0 if it was not the kernel that refused.
    pub errno: i32,
    /// The kernel's own words (extended ack), or what else was found.
    pub detail: Option<String>,
}

impl OpError {
    fn text(&self) -> String {
        let what = match self.errno {
            0 => String::new(),
            n => std::io::Error::from_raw_os_error(n).to_string(),
        };
        match &self.detail {
            Some(detail) if what.is_empty() => detail.clone(),
            Some(detail) => format!("kernel refused: {detail} ({what})"),
            None => format!("kernel refused: {what}"),
        }
    }

    /// The coarse kind.
    pub fn kind(&self) -> ErrorKind {
        match self.errno {
            libc::EPERM | libc::EACCES => ErrorKind::Permission,
            libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => ErrorKind::Unsupported,
            libc::EAGAIN | libc::EINTR | libc::EBUSY => ErrorKind::Retry,
            _ => ErrorKind::Kernel,
        }
    }
}

/// A batch of operations that did not all succeed.
#[derive(Debug, Clone)]
pub struct ApplyError {
    /// The first failure.
    pub error: OpError,
    /// For each operation of the batch, whether it took effect.
    pub applied: Vec<bool>,
}

/// Something that operations are applied to.
pub trait Kernel {
    /// Applies the operations in order. Removing what is not there succeeds.
    ///
    /// # Errors
    /// The first operation that failed, and which of the others took effect: an implementation may have
    /// sent several together.
    fn apply(&mut self, ops: &[&Op]) -> Result<(), ApplyError>;
}

/// A plan that failed.
#[derive(Debug, Clone)]
pub struct PlanError {
    /// What failed.
    pub error: OpError,
    /// Steps that had taken effect.
    pub done: usize,
    /// Steps of those that were taken back.
    pub undone: usize,
    /// What could not be taken back, with the reason.
    pub left: Vec<OpError>,
}

/// Carries out a plan; when a step fails, the steps before it are taken back in reverse order.
///
/// # Errors
/// What failed, and what became of the steps before it.
pub fn execute(kernel: &mut dyn Kernel, plan: &Plan) -> Result<(), Box<PlanError>> {
    let ops: Vec<&Op> = plan.steps.iter().map(|s| &s.op).collect();
    let Err(failure) = kernel.apply(&ops) else {
        return Ok(());
    };
    let done: Vec<_> = plan
        .steps
        .iter()
        .zip(&failure.applied)
        .filter(|(_, applied)| **applied)
        .map(|(s, _)| s)
        .collect();
    let mut error = PlanError {
        error: failure.error,
        done: done.len(),
        undone: 0,
        left: Vec::new(),
    };
    for step in done.iter().rev() {
        match &step.undo {
            Undo::Irreversible(_) => error.undone += 1,
            Undo::Ops(ops) => match kernel.apply(&ops.iter().collect::<Vec<_>>()) {
                Ok(()) => error.undone += 1,
                Err(failure) => error.left.push(failure.error),
            },
        }
    }
    Err(Box::new(error))
}
