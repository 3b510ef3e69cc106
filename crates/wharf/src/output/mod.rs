//! Everything the command says: results on the standard output, all else on the standard error.
//!
//! One [`Printer`] per process. Colour is not used, so `NO_COLOR` holds by itself.

pub mod doctor;
pub mod error;
pub mod exposure;
pub mod json;
pub mod note;
mod plan;
pub mod table;
pub mod trace;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use wharf_engine::api::Note;

use error::CommandError;

/// Where the command prints.
pub struct Printer {
    json: bool,
}

impl Printer {
    /// A printer of text, or of JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Prints text that ends with a line end, as a result.
    ///
    /// # Errors
    /// The standard output is closed ([`CommandError::is_broken_pipe`]) or full.
    pub fn text(&self, text: &str) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| CommandError::output(&error))
    }

    /// Prints one line as a result.
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn line(&self, text: impl std::fmt::Display) -> Result<(), CommandError> {
        self.text(&format!("{text}\n"))
    }

    /// Prints a value as JSON, as a result.
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn value(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|error| CommandError::internal(format!("cannot write JSON: {error}")))?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints help that nobody asked for.
    pub fn help(&self, text: &str) {
        self.aside(text);
    }

    /// Prints an error; a closed pipe is not worth a word.
    pub fn error(&self, error: &CommandError) {
        if error.is_broken_pipe() {
            return;
        }
        if self.json {
            self.aside(&format!("{}\n", error.json()));
        } else {
            self.aside(&error.text());
        }
    }

    /// Prints what the user should know of a change that succeeded.
    pub fn notes(&self, notes: &[Note]) {
        for note in notes {
            if self.json {
                self.aside(&format!("{}\n", note::json(note)));
            } else {
                self.aside(&note::text(note));
            }
        }
    }

    /// Prints a warning of the command's own.
    pub fn warning(&self, text: &str) {
        if self.json {
            let value = serde_json::json!({"note": {"kind": "warning", "message": text}});
            self.aside(&format!("{value}\n"));
        } else {
            self.aside(&format!("warning: {text}\n"));
        }
    }

    /// Prints how far a longer change has come, for somebody who is watching.
    pub fn progress(&self, text: &str) {
        if !self.json && io::stderr().is_terminal() {
            self.aside(&format!("{text}\n"));
        }
    }

    /// The standard error; when that is closed there is nobody to tell.
    fn aside(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}
