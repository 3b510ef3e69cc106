//! What Podman's user sees on the standard error: as much as `RUST_LOG` asks for.

use std::io::Write;

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is not as asked for.
    Warn,
    /// What is done.
    Info,
}

/// Prints a line, if lines of this level are asked for.
pub fn say(level: Level, text: &str) {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    if wanted(&asked).is_some_and(|most| level <= most) {
        let name = match level {
            Level::Warn => "WARN ",
            Level::Info => "INFO ",
        };
        let _ = writeln!(std::io::stderr(), "[{name} netavark] {text}");
    }
}

/// `LEVEL` or `netavark=LEVEL`, with commas between; the last that concerns this program.
fn wanted(asked: &str) -> Option<Level> {
    let mut parts = asked
        .split(',')
        .filter_map(|part| match part.split_once('=') {
            Some(("netavark" | "wharf", level)) => Some(level),
            Some(_) => None,
            None => Some(part),
        });
    match parts.next_back()?.trim().to_ascii_lowercase().as_str() {
        "warn" => Some(Level::Warn),
        "info" | "debug" | "trace" => Some(Level::Info),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(wanted("netavark=warn"), Some(Level::Warn));
        assert_eq!(wanted("error,netavark=debug"), Some(Level::Info));
        assert_eq!(wanted("info,netavark=error"), None);
        assert_eq!(wanted("aardvark=trace"), None);
        assert_eq!(wanted(""), None);
    }
}
