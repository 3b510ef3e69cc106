//! A plan: steps in order, each with the way back and its reason.

use crate::op::Op;

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// By these operations, in order.
    Ops(Vec<Op>),
    /// Not at all, and why that is no harm.
    Irreversible(&'static str),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// How it is taken back.
    pub undo: Undo,
    /// Why it is done.
    pub because: String,
}

/// Steps in order; an empty plan means that everything is so already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds a step.
    pub fn push(&mut self, op: Op, undo: Undo, because: impl Into<String>) {
        self.steps.push(Step {
            op,
            undo,
            because: because.into(),
        });
    }

    /// Adds another plan's steps behind.
    pub fn append(&mut self, mut other: Plan) {
        self.steps.append(&mut other.steps);
    }
}
