//! What a runtime says in the environment.

use std::path::PathBuf;

use wharf_core::attach::ClientKey;
use wharf_core::name::IfName;

use super::error::{CniError, Done, code};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Compare.
    Check,
    /// Remove what is not valid any more.
    Gc,
    /// Say whether `ADD` would work.
    Status,
    /// Say which versions there are.
    Version,
}

impl Verb {
    /// As the runtime writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is to be done.
    pub verb: Verb,
    /// The container, for those verbs that are about one.
    pub container: String,
    /// The namespace's path as it was given; may be empty for `DEL`.
    pub netns: String,
    /// The interface.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
}

impl Call {
    /// Reads the environment.
    ///
    /// # Errors
    /// An unknown verb; a variable that is missing or bad.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Done<Self> {
        let text = |key: &str| get(key).unwrap_or_default();
        let command = text("CNI_COMMAND");
        let bad = |msg: String| CniError::new(code::ENVIRONMENT, msg);
        let verbs = [
            Verb::Add,
            Verb::Del,
            Verb::Check,
            Verb::Gc,
            Verb::Status,
            Verb::Version,
        ];
        let verb = verbs.into_iter().find(|v| v.as_str() == command);
        let verb = verb.ok_or_else(|| bad(format!("unknown CNI_COMMAND: {command}")))?;
        let call = Self {
            verb,
            container: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            ifname: text("CNI_IFNAME"),
            args: args(&text("CNI_ARGS")),
            path: std::env::split_paths(&text("CNI_PATH"))
                .filter(|p| !p.as_os_str().is_empty())
                .collect(),
        };
        if matches!(verb, Verb::Add | Verb::Del | Verb::Check) {
            call.check()?;
        }
        Ok(call)
    }

    fn check(&self) -> Done<()> {
        let bad = |msg: String| CniError::new(code::ENVIRONMENT, msg);
        let needed = [
            ("CNI_CONTAINERID", &self.container, true),
            ("CNI_NETNS", &self.netns, self.verb != Verb::Del),
            ("CNI_IFNAME", &self.ifname, true),
        ];
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(_, value, needed)| *needed && value.is_empty())
            .map(|(name, ..)| *name)
            .collect();
        if !missing.is_empty() {
            let all = missing.join(",");
            return Err(bad(format!("required env variables [{all}] missing")));
        }
        if !is_identifier(&self.container) {
            let msg = "invalid characters in CNI_CONTAINERID".to_owned();
            return Err(bad(msg).with(self.container.as_str()));
        }
        if self.ifname.parse::<IfName>().is_err() {
            let msg = "CNI_IFNAME is not an interface name that a container can have".to_owned();
            return Err(bad(msg).with(self.ifname.as_str()));
        }
        if self.netns.contains('\0') {
            return Err(bad("invalid characters in CNI_NETNS".to_owned()));
        }
        Ok(())
    }

    /// The value of an argument in `CNI_ARGS`.
    pub fn arg(&self, key: &str) -> Option<&str> {
        let found = self.args.iter().rev().find(|(k, _)| k == key);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// By what the runtime knows this attachment.
    pub fn key(&self, network: &str) -> ClientKey {
        ClientKey {
            network: network.to_owned(),
            container: self.container.clone(),
            interface: self.ifname.clone(),
        }
    }
}

/// `K=V;K=V`; what has no `=` is passed over.
fn args(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Done<Call> {
        let get = |key: &str| {
            let found = pairs.iter().find(|(k, _)| *k == key);
            found.map(|(_, v)| (*v).to_owned())
        };
        Call::read(get)
    }

    #[test]
    fn what_is_missing_or_bad_is_code_4() {
        let full = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IP=10.0.0.5;IgnoreUnknown=1;FOO"),
        ];
        let call = read(&full).unwrap();
        assert_eq!(call.arg("IP"), Some("10.0.0.5"));
        assert_eq!(call.arg("FOO"), None);
        let with = |key: &str, value: &'static str| {
            let changed = full.map(|(k, v)| (k, if k == key { value } else { v }));
            read(&changed).unwrap_err()
        };
        for (key, value) in [
            ("CNI_COMMAND", "FROB"),
            ("CNI_COMMAND", "add"),
            ("CNI_CONTAINERID", "-bad/"),
            ("CNI_CONTAINERID", ""),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", ".."),
            ("CNI_NETNS", ""),
        ] {
            assert_eq!(with(key, value).code, 4, "{key}={value}");
        }
        let del = full.map(|(k, v)| match k {
            "CNI_COMMAND" => (k, "DEL"),
            "CNI_NETNS" => (k, ""),
            _ => (k, v),
        });
        assert_eq!(read(&del).unwrap().verb, Verb::Del);
        assert_eq!(read(&[("CNI_COMMAND", "GC")]).unwrap().verb, Verb::Gc);
    }
}
