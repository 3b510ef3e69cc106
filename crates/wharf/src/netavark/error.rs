//! A failure as Podman reads it: `{"error": "text"}` on the standard output, and nothing else in it.

use std::fmt;

use wharf_core::ErrorKind;
use wharf_core::network::NetworkError;
use wharf_engine::error::EngineError;

use crate::output::error::CommandError;

/// A failure, in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Several failures as one.
    pub fn all(mut failures: Vec<Self>) -> Result<(), Self> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => {
                let lines = failures.iter().map(|f| format!("\n\t- {f}"));
                Err(Self(format!(
                    "netavark encountered multiple errors:{}",
                    lines.collect::<String>()
                )))
            }
        }
    }

    /// The line for Podman.
    pub fn json(&self) -> String {
        serde_json::json!({"error": self.0}).to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What failed and why. Podman shows one text, so what to do about it stands behind; the command line's advice for its
/// own arguments is none for Podman's.
impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let foreign = match &error {
            EngineError::Network {
                error: NetworkError::BridgeTaken(bridge),
                ..
            } => Some(format!(
                " (if Netavark made it: `ip link del {bridge}` when no container is on it any more)"
            )),
            _ => None,
        };
        // As Netavark says it: clients look for these words.
        if let EngineError::InterfaceTaken { interface, .. } = &error {
            return Self(format!(
                "create veth pair: interface {interface} already exists on container namespace: Netlink error: File exists (os error 17)"
            ));
        }
        let report = CommandError::from(error);
        let mut text = report.message.clone();
        for cause in &report.causes {
            text += &format!(": {cause}");
        }
        let own_arguments = matches!(
            report.kind,
            ErrorKind::Usage | ErrorKind::Config | ErrorKind::Conflict | ErrorKind::NotFound
        );
        if let Some(hint) = report.hint.as_ref().filter(|_| !own_arguments) {
            text += &format!(" ({hint})");
        }
        Self(text + &foreign.unwrap_or_default())
    }
}
