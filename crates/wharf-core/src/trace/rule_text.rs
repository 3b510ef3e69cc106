//! The text of a rule, made when somebody wants to read it: of ten thousand rules a question shows a few.

use std::fmt;
use std::sync::Arc;

/// Tells the text of rules by their number.
pub trait Texts: Send + Sync {
    /// The text of one.
    fn text(&self, rule: usize) -> String;
}

/// A rule as its own tool prints it, or what makes that text.
#[derive(Clone)]
pub struct RuleText(Kind);

#[derive(Clone)]
enum Kind {
    Made(String),
    Later(Arc<dyn Texts>, usize),
}

impl RuleText {
    /// The text that `texts` has for a rule.
    #[must_use]
    pub fn later(texts: Arc<dyn Texts>, rule: usize) -> Self {
        Self(Kind::Later(texts, rule))
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> String {
        match &self.0 {
            Kind::Made(text) => text.clone(),
            Kind::Later(texts, rule) => texts.text(*rule),
        }
    }
}

impl From<String> for RuleText {
    fn from(text: String) -> Self {
        Self(Kind::Made(text))
    }
}

impl From<&str> for RuleText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Default for RuleText {
    fn default() -> Self {
        String::new().into()
    }
}

/// Two are equal if they read the same.
impl PartialEq for RuleText {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RuleText {}

impl fmt::Display for RuleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.get())
    }
}

impl fmt::Debug for RuleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
