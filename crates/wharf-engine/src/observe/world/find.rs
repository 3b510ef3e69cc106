//! Who is meant: from the words of a command to a namespace or an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wharf_core::attach::Container;
use wharf_core::trace::query::{Source, Target};
use wharf_core::trace::state::{HOST, ObservedState, SpaceId};

use super::Ask;
use crate::process::netns::{self, NetnsError};

/// One end of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The host.
    Host,
    /// A namespace.
    Space {
        /// As reports name it.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// An address, wherever that is.
    Address(IpAddr),
    /// Somebody beyond the uplink.
    Outside(Option<IpAddr>),
}

/// Why nobody in particular is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing is called that.
    #[error("there is no container, namespace or address `{text}`")]
    Unknown {
        /// What was given.
        text: String,
        /// What may have been meant.
        near: Vec<String>,
    },
    /// Several are.
    #[error("`{text}` may be {}", choices.join(" or "))]
    Ambiguous {
        /// What was given.
        text: String,
        /// What it may be.
        choices: Vec<String>,
    },
    /// What follows `outside:` is no address.
    #[error("`{0}` is not an address: `outside:ADDRESS` is expected")]
    Outside(String),
    /// A link-local address with its link.
    #[error(
        "`{0}` means one link only, and trace chooses the link by the routes: give an address that is routed, or the name of who has it"
    )]
    Zone(String),
    /// There is no such process.
    #[error("there is no process {0}")]
    Process(i32),
    /// What is at the path is no network namespace, or may not be opened.
    #[error("{0}")]
    Namespace(NetnsError),
    /// The namespace was found, but could not be read.
    #[error("the namespace of `{0}` could not be read")]
    Unread(String),
}

/// Finds who is meant by `text`: a container's name, `host`, `outside`, `outside:ADDRESS`, an address, the path of a
/// namespace, a process id, or a name that `ip netns` knows.
///
/// # Errors
/// Nobody is meant, or several are.
pub fn find(text: &str, containers: &[Container]) -> Result<Endpoint, FindError> {
    let container = containers.iter().find(|c| c.name.as_str() == text);
    if container.is_none() {
        match text {
            "host" => return Ok(Endpoint::Host),
            "outside" => return Ok(Endpoint::Outside(None)),
            _ => {}
        }
    }
    if let Some(addr) = text.strip_prefix("outside:") {
        let addr = address(addr).ok_or_else(|| FindError::Outside(addr.to_owned()))?;
        return Ok(Endpoint::Outside(Some(addr)));
    }
    if let Some(addr) = address(text) {
        return Ok(Endpoint::Address(addr));
    }
    let zoned = text.trim_matches(['[', ']']).split_once('%');
    if zoned.is_some_and(|(addr, _)| address(addr).is_some()) {
        return Err(FindError::Zone(text.to_owned()));
    }
    if text.contains('/') {
        return at_path(Path::new(text), text);
    }
    let named = netns::path(text).ok();
    let named = named.filter(|path| netns::open(path).is_ok());
    let process = text.parse::<i32>().ok().filter(|pid| *pid > 0);
    match (container, named) {
        (Some(container), named) => whose(text, container, named.as_deref(), process),
        (None, Some(path)) => Ok(Endpoint::Space {
            name: path.display().to_string(),
            path,
        }),
        (None, None) => match process {
            Some(pid) => of_process(pid),
            None => Err(FindError::Unknown {
                text: text.to_owned(),
                near: near(text, containers),
            }),
        },
    }
}

/// A container, unless something else bears its name.
fn whose(
    text: &str,
    container: &Container,
    named: Option<&Path>,
    process: Option<i32>,
) -> Result<Endpoint, FindError> {
    let path = &container.netns.path;
    let mut choices = vec![format!("the container at {}", path.display())];
    match text {
        "host" => choices.push("this host".to_owned()),
        "outside" => choices.push("a client beyond the uplink".to_owned()),
        _ => {}
    }
    let other = named.filter(|named| inode(named) != inode(path));
    choices.extend(other.map(|named| format!("the namespace {}", named.display())));
    let process = process.map(|pid| format!("/proc/{pid}/ns/net"));
    let process = process.filter(|p| inode(Path::new(p)).is_some_and(|i| Some(i) != inode(path)));
    choices.extend(process.map(|p| format!("the process at {p}")));
    if choices.len() > 1 {
        return Err(FindError::Ambiguous {
            text: text.to_owned(),
            choices,
        });
    }
    Ok(Endpoint::Space {
        name: text.to_owned(),
        path: path.clone(),
    })
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.ino())
}

fn at_path(path: &Path, name: &str) -> Result<Endpoint, FindError> {
    netns::open(path).map_err(FindError::Namespace)?;
    Ok(Endpoint::Space {
        name: name.to_owned(),
        path: path.to_owned(),
    })
}

fn of_process(pid: i32) -> Result<Endpoint, FindError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    match at_path(&path, &path.display().to_string()) {
        Err(FindError::Namespace(NetnsError::NotFound(_))) => Err(FindError::Process(pid)),
        other => other,
    }
}

/// Names that differ by a slip of the fingers.
fn near(text: &str, containers: &[Container]) -> Vec<String> {
    let mut names: BTreeSet<String> = ["host".to_owned(), "outside".to_owned()].into();
    names.extend(containers.iter().map(|c| c.name.to_string()));
    if let Ok(entries) = std::fs::read_dir(netns::DIRECTORY) {
        let entries = entries.flatten().map(|e| e.file_name());
        names.extend(entries.filter_map(|n| n.into_string().ok()));
    }
    let most = match text.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    let mut found: Vec<(usize, String)> = names
        .into_iter()
        .map(|name| (distance(text, &name), name))
        .filter(|(distance, _)| *distance <= most)
        .collect();
    found.sort();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// How many letters must be changed, added, left out or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (
        a.to_lowercase().chars().collect(),
        b.to_lowercase().chars().collect(),
    );
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j - 1] + change)
                .min(rows[i - 1][j] + 1)
                .min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The source a walk starts from.
///
/// # Errors
/// The namespace was not read.
pub fn source(state: &ObservedState, end: &Endpoint) -> Result<Source, FindError> {
    Ok(match end {
        Endpoint::Host => Source::Space(HOST, None),
        Endpoint::Space { name, path } => Source::Space(space(state, name, path)?, None),
        Endpoint::Outside(addr) => Source::Outside(*addr),
        Endpoint::Address(addr) => match owner(state, *addr) {
            Some(space) => Source::Space(space, Some(*addr)),
            None => Source::Outside(Some(*addr)),
        },
    })
}

/// The target of a walk.
///
/// # Errors
/// The namespace was not read.
pub fn target(state: &ObservedState, end: &Endpoint) -> Result<Target, FindError> {
    Ok(match end {
        Endpoint::Host => Target::Space(HOST),
        Endpoint::Space { name, path } => Target::Space(space(state, name, path)?),
        Endpoint::Outside(addr) => Target::Outside(*addr),
        Endpoint::Address(addr) => Target::Address(*addr),
    })
}

fn space(state: &ObservedState, name: &str, path: &Path) -> Result<SpaceId, FindError> {
    let found = inode(path).and_then(|i| state.spaces.iter().position(|s| s.inode == i));
    found.ok_or_else(|| FindError::Unread(name.to_owned()))
}

/// Where a namespace that was read is; `None` for the host, and for one that is not there any more.
#[must_use]
pub fn path(ask: &Ask, state: &ObservedState, id: SpaceId) -> Option<PathBuf> {
    let space = state.spaces.get(id).filter(|_| id != HOST)?;
    let wanted = ask.wanted.iter().map(|w| w.path.clone());
    let containers = ask.containers.iter().map(|c| c.netns.path.clone());
    wanted
        .chain(containers)
        .chain([PathBuf::from(&space.name)])
        .find(|path| inode(path) == Some(space.inode))
}

/// The first namespace that owns an address; loopback addresses are everybody's, and so the host's.
fn owner(state: &ObservedState, addr: IpAddr) -> Option<SpaceId> {
    if addr.is_loopback() {
        return Some(HOST);
    }
    let owns = |s: &wharf_core::trace::Space| s.addrs.iter().any(|a| a.net.addr() == addr);
    state.spaces.iter().position(owns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_fingers() {
        assert_eq!(distance("web", "web"), 0);
        assert_eq!(distance("ouside", "outside"), 1);
        assert_eq!(distance("hots", "host"), 1);
        assert_eq!(distance("db", "web"), 2);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn words_and_addresses() {
        let found = |text: &str| find(text, &[]);
        assert_eq!(found("host"), Ok(Endpoint::Host));
        assert_eq!(found("outside"), Ok(Endpoint::Outside(None)));
        let two = "10.0.2.2".parse().ok();
        assert_eq!(found("outside:10.0.2.2"), Ok(Endpoint::Outside(two)));
        assert_eq!(found("outside:x"), Err(FindError::Outside("x".to_owned())));
        for text in ["fd00::1", "[fd00::1]"] {
            let addr = "fd00::1".parse().expect("an address");
            assert_eq!(found(text), Ok(Endpoint::Address(addr)));
        }
    }

    #[test]
    fn who_is_not_there_may_have_been_misspelt() {
        let Err(FindError::Unknown { near, .. }) = find("ouside", &[]) else {
            panic!("somebody is called `ouside`");
        };
        assert_eq!(near, ["outside"]);
        assert_eq!(
            find("/nowhere/at/all", &[]),
            Err(FindError::Namespace(NetnsError::NotFound(
                "/nowhere/at/all".into()
            )))
        );
        assert_eq!(find("2147483647", &[]), Err(FindError::Process(i32::MAX)));
    }
}
