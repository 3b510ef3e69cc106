//! Errors as the protocol has them: a number, a short text, a long one.

use serde_json::{Value, json};
use wharf_core::ErrorKind;
use wharf_engine::error::EngineError;

use crate::output::error::CommandError;

/// The numbers of the specification (section "Error"), and wharf's own from 100 on.
pub mod code {
    /// Incompatible version.
    pub const VERSION: u32 = 1;
    /// A field that wharf does not support.
    pub const UNSUPPORTED: u32 = 2;
    /// The environment.
    pub const ENVIRONMENT: u32 = 4;
    /// Input and output.
    pub const IO: u32 = 5;
    /// Not JSON.
    pub const DECODE: u32 = 6;
    /// The configuration.
    pub const CONFIG: u32 = 7;
    /// The namespace (libcni's own number).
    pub const NETNS: u32 = 8;
    /// Trying again may succeed.
    pub const RETRY: u32 = 11;
    /// `STATUS`: not available.
    pub const NOT_AVAILABLE: u32 = 50;
    /// The kernel refused, or a fault of wharf.
    pub const FAILED: u32 = 100;
    /// Something asked for is somebody's.
    pub const CONFLICT: u32 = 101;
    /// Something is not as it was made.
    pub const CHANGED: u32 = 102;
    /// Not enough privileges.
    pub const PERMISSION: u32 = 103;
}

/// An error to be told to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// The number.
    pub code: u32,
    /// What is wrong.
    pub msg: String,
    /// More of it.
    pub details: String,
}

/// What a call gives.
pub type Done<T> = Result<T, CniError>;

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// A configuration that cannot be.
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(code::CONFIG, msg)
    }

    /// A key that means something wharf does not do.
    pub fn unsupported(key: &str, value: impl std::fmt::Display, why: &str) -> Self {
        Self::new(
            code::UNSUPPORTED,
            format!("`{key}`: {value} is not supported"),
        )
        .with(why)
    }

    /// The same with details.
    pub fn with(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// As the protocol has it.
    pub fn json(&self, version: &str) -> Value {
        let mut value = json!({"cniVersion": version, "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            value["details"] = Value::from(self.details.as_str());
        }
        value
    }
}

impl From<EngineError> for CniError {
    fn from(error: EngineError) -> Self {
        let number = match &error {
            EngineError::NotANetns { .. } | EngineError::NetnsUnfit { .. } => code::NETNS,
            EngineError::Store { .. } => code::IO,
            _ => match error.kind() {
                ErrorKind::Usage | ErrorKind::Config | ErrorKind::NotFound => code::CONFIG,
                ErrorKind::Conflict => code::CONFLICT,
                ErrorKind::Permission => code::PERMISSION,
                ErrorKind::Unsupported => code::UNSUPPORTED,
                ErrorKind::Retry => code::RETRY,
                ErrorKind::Kernel | ErrorKind::Internal => code::FAILED,
            },
        };
        let known = known_words(&error);
        let report = CommandError::from(error);
        let mut details: Vec<String> = report.causes.clone();
        details.extend(report.command.as_ref().map(|c| format!("command: {c}")));
        details.extend(report.undone.as_ref().map(|u| format!("undone: {u}")));
        // Advice about the command line's options is none for a configuration.
        let hint = report.hint.as_ref().filter(|h| !h.contains("--"));
        details.extend(hint.map(|h| format!("hint: {h}")));
        match known {
            None => Self::new(number, report.message.clone()).with(details.join("; ")),
            Some(known) => {
                details.insert(0, report.message.clone());
                Self::new(number, known).with(details.join("; "))
            }
        }
    }
}

/// What the reference plugins say, for failures by which runtimes and their users go.
fn known_words(error: &EngineError) -> Option<String> {
    match error {
        EngineError::PoolEmpty { pool, ranges, .. } => {
            let whole = [wharf_core::ipam::usable(*pool)];
            let ranges = match ranges.as_slice() {
                [] => &whole,
                ranges => ranges,
            };
            let text = |(first, last): &(_, _)| format!("{first}-{last}");
            let all: Vec<String> = ranges.iter().map(text).collect();
            let all = all.join(",");
            Some(format!("no IP addresses available in range set: {all}"))
        }
        EngineError::InterfaceTaken { interface, .. } => Some(format!(
            "container veth name provided ({interface}) already exists"
        )),
        _ => None,
    }
}
