//! The coarse kinds of failure. Each module has a typed error of its own; a kind chooses the exit status
//! and is what each protocol's error shape is made from.

use serde::{Deserialize, Serialize};

/// What sort of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command line itself is wrong.
    Usage,
    /// A value given by the user is not acceptable: a name, an address, a file.
    Config,
    /// The thing named does not exist.
    NotFound,
    /// The thing wanted is taken: a name, an address, a port, a bridge.
    Conflict,
    /// The process may not do this.
    Permission,
    /// The kernel, or wharf, has no such feature.
    Unsupported,
    /// Somebody else was in the way; trying again may succeed.
    Retry,
    /// The kernel refused an operation.
    Kernel,
    /// A fault of wharf itself.
    Internal,
}

impl ErrorKind {
    /// The exit status of the command: 2 for wrong usage, 1 for everything else.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Usage => 2,
            _ => 1,
        }
    }

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Config => "config",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Permission => "permission",
            Self::Unsupported => "unsupported",
            Self::Retry => "retry",
            Self::Kernel => "kernel",
            Self::Internal => "internal",
        }
    }
}
