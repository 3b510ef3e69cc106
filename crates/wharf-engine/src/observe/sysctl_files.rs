//! What the host's files say that sysctls should be: those that systemd-sysctl and `sysctl --system` read, in their order
//! (sysctl.d(5), sysctl(8)). Not for: how sysctls are now.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Of two files with one name, that of the earlier directory counts.
const DIRECTORIES: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
/// Read last.
const LAST: &str = "etc/sysctl.conf";

/// A value, and the file that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// As it is written.
    pub value: String,
    /// The file.
    pub file: PathBuf,
}

/// What the files below `root` say of a sysctl that has these names (paths below `/proc/sys`); `None` if they say nothing.
pub fn said(root: &Path, names: &[&str]) -> Option<Said> {
    let (mut exact, mut by_pattern) = (None, None);
    for file in files(root) {
        // One that cannot be read says nothing, as for those who read it at boot.
        let text = fs::read(&file).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((key, value)) = setting(line) else {
                continue;
            };
            let said = Some(Said {
                value,
                file: file.clone(),
            });
            if names.contains(&key.as_str()) {
                exact = said;
            } else if names.iter().any(|name| matches(&key, name)) {
                by_pattern = said;
            }
        }
    }
    // A name that is written out counts more than a pattern, wherever either stands.
    exact.or(by_pattern)
}

/// The files, the last one to be believed most.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = by_name(root, &DIRECTORIES);
    files.push(root.join(LAST));
    files
}

/// The `.conf` files of directories below `root` by their names; an earlier directory's file hides those of its name.
pub(super) fn by_name(root: &Path, directories: &[&str]) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for directory in directories.iter().rev() {
        let entries = fs::read_dir(root.join(directory)).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        for path in paths.filter(|p| p.extension().is_some_and(|e| e == "conf")) {
            by_name.insert(path.file_name().map(ToOwned::to_owned), path);
        }
    }
    by_name.into_values().collect()
}

/// The name that a line sets, as a path, and the value. A dash before it means that errors do not matter.
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let key = key.trim().trim_start_matches('-');
    // With dots between the parts, a slash is a dot in a name.
    let swapped = key
        .find(['.', '/'])
        .is_some_and(|at| key[at..].starts_with('.'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let key = match swapped {
        true => key.chars().map(swap).collect(),
        false => key.to_owned(),
    };
    Some((key, value.trim().to_owned()))
}

/// Whether a pattern with asterisks means a name; an asterisk stands for one part of a path, or for some of it.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(before) else {
        return false;
    };
    let part = name.find('/').unwrap_or(name.len());
    (0..=part).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_testkit::TempDir;

    const NAMES: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"];

    /// What files say, each a path and a text, and which of them says it.
    fn said_by(files: &[(&str, &str)]) -> Option<(String, String)> {
        let root = TempDir::new();
        for (name, text) in files {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            root.write(name, text);
        }
        let said = said(root.path(), &NAMES)?;
        let file = said.file.strip_prefix(root.path()).unwrap();
        Some((said.value, file.display().to_string()))
    }

    fn value(text: &str) -> Option<String> {
        said_by(&[("etc/sysctl.d/x.conf", text)]).map(|(value, _)| value)
    }

    #[test]
    fn lines_are_read_as_sysctl_reads_them() {
        for text in [
            "net.ipv4.ip_forward=1",
            "  net/ipv4/ip_forward = 1  ",
            "-net.ipv4.ip_forward = 1\nnet.ipv4.conf.eth0.forwarding = 0",
            "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.forwarding = 1",
            "net.ipv4.conf.*.forwarding = 1",
            "net/ipv4/conf/a*/forwarding = 1",
            "net.ipv4.* = 1",
            "net.ipv4.ip_forward = 1\nnet.ipv4.ip_f* = 0",
        ] {
            assert_eq!(value(text).as_deref(), Some("1"), "{text}");
        }
        for text in [
            "",
            "# net.ipv4.ip_forward = 1",
            ";net.ipv4.ip_forward = 1",
            "net.ipv4.ip_forward",
            "net.ipv4.ip_forward_use_pmtu = 1",
            "net.* = 1",
            "net.ipv6.conf.all.forwarding = 1",
            "net.ipv4.conf.all/forwarding = 1",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_file_by_name_is_believed_and_hides_those_of_its_name() {
        let (on, off) = ("net.ipv4.ip_forward = 1", "net.ipv4.ip_forward = 0");
        let said = |files: &[(&str, &str)]| said_by(files).unwrap();
        let is = |value: &str, file: &str| (value.to_owned(), file.to_owned());
        let vendor = ("usr/lib/sysctl.d/50-a.conf", on);
        let local = ("etc/sysctl.d/40-a.conf", off);
        assert_eq!(said(&[vendor, local]), is("1", vendor.0));
        let hides = ("etc/sysctl.d/50-a.conf", off);
        assert_eq!(said(&[vendor, hides]), is("0", hides.0));
        assert_eq!(said_by(&[vendor, ("run/sysctl.d/50-a.conf", "")]), None);
        let last = ("etc/sysctl.conf", off);
        assert_eq!(said(&[vendor, last]), is("0", last.0));
        assert_eq!(said_by(&[("etc/sysctl.d/README", on)]), None);
    }
}
