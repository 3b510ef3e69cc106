//! What can go wrong, with the kernel's own words.

use std::fmt;
use std::io;

use crate::wire::Malformed;

/// A failure of a netlink call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The socket itself failed.
    #[error("netlink socket: cannot {action}")]
    Socket {
        /// What was tried, such as `open`.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel refused one message; nothing of the batch was applied.
    #[error("cannot {label}: {}", Refusal(*errno, ext_ack.as_deref()))]
    Refused {
        /// Position in the batch, from 0; `None` if the batch as a whole was refused.
        index: Option<usize>,
        /// What the message was, such as `add element inet wharf publish4`.
        label: String,
        /// The error number, positive.
        errno: i32,
        /// The kernel's extended acknowledgement.
        ext_ack: Option<String>,
    },
    /// The ruleset changed since the generation the batch expects (`ERESTART`); read it again and retry.
    #[error("ruleset changed: generation {expected} is no longer current")]
    StaleGeneration {
        /// The generation given to `Batch::expect_generation`.
        expected: u32,
    },
    /// The batch is larger than the send buffer may become here (unprivileged socket).
    #[error("transaction of {bytes} bytes is larger than the socket's send buffer may be")]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
    },
    /// A message cannot be expressed: an attribute would pass 64 KB, or the family has no such hook.
    #[error("cannot {label}: {reason}")]
    Unencodable {
        /// Position in the batch, from 0.
        index: usize,
        /// What the message was.
        label: String,
        /// Why.
        reason: &'static str,
    },
    /// The kernel's answer could not be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A conntrack filter that cannot be meant.
    #[error("conntrack filter: {0}")]
    Filter(&'static str),
    /// The ruleset changed during each of several attempts to read it.
    #[error("ruleset kept changing while it was read")]
    Unsettled,
    /// The kernel did not answer.
    #[error("no answer from the kernel to: {label}")]
    NoAnswer {
        /// What was asked.
        label: String,
    },
}

impl NftError {
    /// The error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { source, .. } => source.raw_os_error(),
            Self::StaleGeneration { .. } => Some(libc::ERESTART),
            _ => None,
        }
    }

    pub(crate) fn socket(action: &'static str) -> Self {
        Self::Socket {
            action,
            source: io::Error::last_os_error(),
        }
    }
}

/// Prints errno and the kernel's text.
struct Refusal<'a>(i32, Option<&'a str>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.0);
        match self.1 {
            Some(text) => write!(f, "{text} ({error})"),
            None => write!(f, "{error}"),
        }
    }
}
