//! What stops a packet, on the way to becoming a [`Cause`].

use crate::trace::report::{Cause, Code, Owner};
use crate::trace::state::SpaceId;

/// A cause in the making.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub code: Code,
    pub space: SpaceId,
    pub object: String,
    pub owner: Owner,
    pub summary: String,
    pub evidence: Vec<String>,
    pub fix: Vec<String>,
}

impl Fault {
    pub fn new(
        code: Code,
        space: SpaceId,
        object: impl Into<String>,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            code,
            space,
            object: object.into(),
            owner: Owner::User,
            summary: summary.into(),
            evidence: Vec::new(),
            fix: Vec::new(),
        }
    }

    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    pub fn evidence(mut self, text: impl Into<String>) -> Self {
        self.evidence.push(text.into());
        self
    }

    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }

    pub fn fixes(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.fix.extend(commands);
        self
    }

    pub fn cause(&self, netns: &str) -> Cause {
        Cause {
            code: self.code,
            netns: netns.to_owned(),
            object: self.object.clone(),
            owner: self.owner,
            summary: self.summary.clone(),
            evidence: self.evidence.clone(),
            fix: self.fix.clone(),
        }
    }
}
