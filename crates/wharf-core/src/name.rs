//! Names as types, checked once at the edge.
//!
//! One kind of name cannot be passed for another:
//!
//! ```compile_fail
//! use wharf_core::name::{ContainerName, NetworkName};
//! fn attach(_: &ContainerName, _: &NetworkName) {}
//! let network: NetworkName = "blue".parse().unwrap();
//! let container: ContainerName = "web".parse().unwrap();
//! attach(&network, &container);
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An interface name the kernel would refuse, or that no tool could address.
    #[error(
        "`{0}` is not an interface name: 1 to 15 bytes, no `/`, `:`, `%`, white space or control character, not `.` or `..`, `all`, `default` or `lo`"
    )]
    Interface(String),
    /// A network's, container's or host's name outside `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}`.
    #[error(
        "`{text}` is not a {what} name: it starts with a letter or digit, goes on with letters, digits, `_`, `.` or `-`, and has 63 characters at most"
    )]
    Object {
        /// "network", "container" or "host".
        what: &'static str,
        /// What was given.
        text: String,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a network interface: 1 to 15 bytes (`IFNAMSIZ` less the final zero, `linux/if.h`), as
    /// `dev_valid_name` in the kernel allows, without `%` (a pattern to the kernel) and without the names
    /// that mean something else under `/proc/sys/net`.
    IfName,
    check_interface
);
name_type!(
    /// The name of a network.
    NetworkName,
    |text| check_object("network", text, MOST)
);
name_type!(
    /// The name of a container.
    ContainerName,
    // A client's names, such as the 64 digits of a runtime's id, are longer than those that users may give.
    |text| check_object("container", text, 128)
);

name_type!(
    /// The name of a host: what a container is called inside, and by others beside its own name. Lines of `/etc/hosts` are
    /// made of them.
    HostName,
    |text| check_object("host", text, MOST)
);

fn check_interface(text: &str) -> Result<(), NameError> {
    // Quotes and backslashes cannot be written in nft's strings.
    let bad =
        |c: char| matches!(c, '/' | ':' | '%' | '"' | '\\') || c.is_whitespace() || c.is_control();
    let reserved = matches!(text, "" | "." | ".." | "all" | "default" | "lo");
    if reserved || text.len() > 15 || text.starts_with('-') || text.chars().any(bad) {
        return Err(NameError::Interface(text.to_owned()));
    }
    Ok(())
}

/// The longest name a user may give.
const MOST: usize = 63;

fn check_object(what: &'static str, text: &str, most: usize) -> Result<(), NameError> {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !first || !rest || text.len() > most {
        return Err(NameError::Object {
            what,
            text: text.to_owned(),
        });
    }
    Ok(())
}

impl ContainerName {
    /// A name that a user gives to a new container.
    ///
    /// # Errors
    /// It is none, or longer than a user's may be.
    pub fn given(text: &str) -> Result<Self, NameError> {
        check_object("container", text, MOST)?;
        text.parse()
    }
}

impl IfName {
    /// The loopback interface, which users may not name but wharf must raise.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for good in ["eth0", "wharf0", "a", "br-1234567890ab", "veth.12_x"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "sixteen-bytes-xx",
            "all",
            "lo",
            "eth%d",
            "-x",
            "a\u{7}",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn object_names() {
        for good in ["web", "0", "My_net.1-x", &"a".repeat(63)] {
            assert!(good.parse::<NetworkName>().is_ok(), "{good:?} was refused");
            assert!(
                good.parse::<ContainerName>().is_ok(),
                "{good:?} was refused"
            );
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a/b",
            "../x",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?} was accepted");
        }
    }
}
