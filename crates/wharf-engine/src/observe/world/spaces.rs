//! Which namespaces there are: the host's, those asked about, wharf's containers, named ones, Docker's, and those of
//! running processes.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wharf_core::trace::state::{Space, Unread};

use super::links::Row;
use super::{Ask, unread};
use crate::kernel::netlink::{netns, socket::Rt};
use crate::process::netns as named;

/// Where tools keep namespaces by name.
const DIRECTORIES: [&str; 3] = [named::DIRECTORY, "/var/run/netns", "/run/docker/netns"];
/// The most that are looked at; further ones are reported.
const MOST: usize = 1024;
/// The most processes whose namespaces are looked at, and the most namespaces found that way.
const PROCESSES: usize = 4096;
const OF_PROCESSES: usize = 128;

/// A namespace and the way into it.
pub(super) struct Known {
    /// What was read.
    pub(super) space: Space,
    /// The open namespace; the host is where we are.
    pub(super) door: Option<named::Netns>,
    /// Its rtnetlink socket.
    pub(super) rt: Option<Rt>,
    /// Its links, with what finds their other ends.
    pub(super) rows: Vec<Row>,
}

impl Known {
    /// The thread goes in until the guard is dropped.
    pub(super) fn enter(&self) -> io::Result<Option<named::Guard>> {
        self.door.as_ref().map(netns::enter).transpose()
    }
}

/// What stands before a command that is to run in the namespace at a path.
pub(crate) fn enter_text(path: &Path) -> String {
    match name_of(path) {
        Some(name) => format!("ip netns exec {name} "),
        None => format!("nsenter --net={} ", path.display()),
    }
}

/// The name under which `ip netns` knows a path.
fn name_of(path: &Path) -> Option<&str> {
    let named = [named::DIRECTORY, "/var/run/netns"];
    path.parent()
        .filter(|parent| named.iter().any(|d| Path::new(d) == *parent))
        .and_then(|_| path.file_name()?.to_str())
}

struct Search<'a> {
    known: Vec<Known>,
    seen: HashMap<u64, usize>,
    unread: &'a mut Vec<Unread>,
}

/// All that are known, each once; the host is the first.
pub(super) fn known(ask: &Ask, unread: &mut Vec<Unread>) -> Vec<Known> {
    let inode = named::current().map_or(0, |netns| netns.inode());
    let host = Known {
        space: Space {
            name: "host".to_owned(),
            inode,
            ..Space::default()
        },
        door: None,
        rt: None,
        rows: Vec::new(),
    };
    let mut search = Search {
        known: vec![host],
        seen: HashMap::from([(inode, 0)]),
        unread,
    };
    search.containers(ask);
    for wanted in &ask.wanted {
        search.add(&wanted.path, &wanted.name, true);
    }
    for directory in DIRECTORIES {
        search.directory(Path::new(directory));
    }
    if ask.processes {
        search.processes();
    }
    search.known
}

impl Search<'_> {
    fn containers(&mut self, ask: &Ask) {
        for container in &ask.containers {
            let name = container.name.as_str();
            let Some(at) = self.add(&container.netns.path, name, true) else {
                continue;
            };
            let space = &mut self.known[at].space;
            let other = container.netns.identity.map(|(_, inode)| inode);
            if other.is_some_and(|inode| inode != space.inode) {
                let path = container.netns.path.display().to_string();
                space.name.clone_from(&path);
                let why = format!("{path} is another namespace than the container was made with");
                self.unread
                    .push(unread(name, "the container's namespace", why));
            } else if at != 0 {
                space.container = Some(name.to_owned());
            }
        }
    }

    /// Opens what is at a path; `None` if that is no namespace or cannot be opened.
    fn add(&mut self, path: &Path, name: &str, asked: bool) -> Option<usize> {
        let door = match named::open(path) {
            Ok(door) => door,
            // What somebody left in a directory of names is nobody's business.
            Err(named::NetnsError::NotFound(_) | named::NetnsError::NotNamespace(_)) if !asked => {
                return None;
            }
            Err(error) => {
                self.unread.push(unread(name, "the namespace", error));
                return None;
            }
        };
        if let Some(at) = self.seen.get(&door.inode()) {
            return Some(*at);
        }
        if self.known.len() >= MOST {
            let why = format!("{MOST} others were looked at");
            self.unread.push(unread(name, "the namespace", why));
            return None;
        }
        let at = self.known.len();
        self.seen.insert(door.inode(), at);
        self.known.push(Known {
            space: Space {
                name: name.to_owned(),
                enter: enter_text(path),
                inode: door.inode(),
                ..Space::default()
            },
            door: Some(door),
            rt: None,
            rows: Vec::new(),
        });
        Some(at)
    }

    fn directory(&mut self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            // Two names of one namespace are told apart without opening it.
            let inode = std::fs::metadata(&path).map_or(0, |m| m.ino());
            if !self.seen.contains_key(&inode) {
                self.add(&path, &path.display().to_string(), false);
            }
        }
    }

    /// Namespaces that have no name, but processes.
    fn processes(&mut self) {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return;
        };
        let is_process = |name: &std::ffi::OsStr| {
            name.to_str()
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut left = OF_PROCESSES;
        let names = entries.flatten().map(|entry| entry.file_name());
        for name in names.filter(|n| is_process(n)).take(PROCESSES) {
            let path = Path::new("/proc").join(name).join("ns/net");
            // Gone, or another user's.
            let Ok(inode) = std::fs::metadata(&path).map(|m| m.ino()) else {
                continue;
            };
            if self.seen.contains_key(&inode) {
                continue;
            }
            if left == 0 {
                let why = format!("{OF_PROCESSES} others without a name were looked at");
                self.unread
                    .push(unread("host", "further namespaces of processes", why));
                return;
            }
            left -= 1;
            self.add(&path, &path.display().to_string(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_namespace_is_entered_by_name() {
        let text = |path: &str| enter_text(Path::new(path));
        assert_eq!(text("/run/netns/c1"), "ip netns exec c1 ");
        assert_eq!(text("/var/run/netns/c1"), "ip netns exec c1 ");
        assert_eq!(
            text("/run/docker/netns/c1"),
            "nsenter --net=/run/docker/netns/c1 "
        );
        assert_eq!(text("/proc/17/ns/net"), "nsenter --net=/proc/17/ns/net ");
    }
}
