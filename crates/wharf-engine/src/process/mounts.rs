//! The container's view of the file system: the host's, with a few files of its own over it.
//!
//! Everything here happens in a mount namespace that ends with the program; nothing is written to the host's files.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{Errno, Step, Warning};
use super::sys;

/// A file of the host, and what the container sees in its place.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub target: &'static CStr,
    pub content: String,
}

const QUIET: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const ETC: &CStr = c"/etc";
const SYS: &CStr = c"/sys";

fn path_of(path: &CStr) -> PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())).to_owned()
}

fn event(step: Step, path: &CStr, errno: Errno) -> Warning {
    Warning {
        step,
        path: Some(path_of(path)),
        errno,
    }
}

/// New mount and UTS namespaces for the calling process, which must have one thread.
pub(super) fn separate(hostname: &str) -> Result<(), Warning> {
    let plain = |step| {
        move |errno| Warning {
            step,
            path: None,
            errno,
        }
    };
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS).map_err(plain(Step::NewNamespaces))?;
    // "Slave": nothing gets out, as with "private", but what the host unmounts goes away here as well. A private copy
    // would keep it busy for as long as the program runs; with another container's namespace file, its veth pair.
    sys::mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC, None)
        .map_err(plain(Step::Propagation))?;
    // Other containers' names are not this one's business, and each of its copies would make adding one slower.
    let _ = sys::detach_mount(c"/run/netns");
    sys::sethostname(hostname.as_bytes()).map_err(plain(Step::Hostname))
}

/// Puts the contents over the files. What cannot be covered is told to `warn` and left as the host has it.
///
/// The contents are in a small tmpfs. It is mounted on `/etc`, which must exist for there to be anything to do, only as
/// long as its files are bound to their places; those keep it alive afterwards. Targets are opened first, since
/// they lie beneath it, and by descriptor since `/etc/resolv.conf` tends to be a symbolic link.
pub(super) fn cover(covers: &[Cover], warn: &mut dyn FnMut(Warning)) -> Result<(), Warning> {
    let mut targets: Vec<(&Cover, OwnedFd)> = Vec::new();
    for cover in covers {
        match sys::open(cover.target, libc::O_PATH, 0) {
            Ok(fd) => targets.push((cover, fd)),
            Err(errno) => warn(event(Step::CoverFile, cover.target, errno)),
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    let bytes: usize = covers.iter().map(|cover| cover.content.len()).sum();
    // Room to edit the files inside, as Docker allows.
    let options = CString::new(format!("mode=755,size={}", bytes + (1 << 20))).unwrap_or_default();
    if let Err(errno) = sys::mount(Some(c"wharf"), ETC, Some(c"tmpfs"), QUIET, Some(&options)) {
        for (cover, _) in targets {
            warn(event(Step::CoverFile, cover.target, errno));
        }
        return Ok(());
    }
    for (number, (cover, target)) in targets.iter().enumerate() {
        if let Err(errno) = cover_one(number, &cover.content, target) {
            warn(event(Step::CoverFile, cover.target, errno));
        }
    }
    // Not a warning: with it in place the program would have no /etc.
    sys::detach_mount(ETC).map_err(|errno| event(Step::CoverFile, ETC, errno))
}

fn cover_one(number: usize, content: &str, target: &OwnedFd) -> Result<(), Errno> {
    let source = format!("/etc/{number}");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&source)?;
        file.write_all(content.as_bytes())?;
        // Whatever the caller's umask: programs run by other users read these files.
        file.set_permissions(PermissionsExt::from_mode(0o644))
    };
    write().map_err(|error| Errno::from_io(&error))?;
    bind(&source, &by_descriptor(target), 0)
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn bind(source: &str, target: &str, flags: libc::c_ulong) -> Result<(), Errno> {
    let invalid = |_| Errno(libc::EINVAL);
    let (source, target) = (
        CString::new(source).map_err(invalid)?,
        CString::new(target).map_err(invalid)?,
    );
    sys::mount(Some(&source), &target, None, libc::MS_BIND | flags, None)
}

/// Mounts a `/sys` that shows the interfaces of the network namespace the process is in.
///
/// What the host has mounted inside its `/sys` (control groups, above all) is carried over.
pub(super) fn fresh_sysfs(warn: &mut dyn FnMut(Warning)) {
    let inner: Vec<(String, OwnedFd)> = mounts_inside_sys()
        .into_iter()
        .filter_map(|path| {
            let name = CString::new(path.clone()).ok()?;
            Some((path, sys::open(&name, libc::O_PATH, 0).ok()?))
        })
        .collect();
    let read_only = if sys::is_read_only(SYS) {
        libc::MS_RDONLY
    } else {
        0
    };
    if let Err(errno) = sys::mount(Some(c"sysfs"), SYS, Some(c"sysfs"), QUIET | read_only, None) {
        warn(event(Step::Sysfs, SYS, errno));
        return;
    }
    for (path, fd) in inner {
        // The mount point may be of another file system's making and not be there now; then it is missing inside.
        let _ = bind(&by_descriptor(&fd), &path, libc::MS_REC);
    }
}

/// The outermost mount points below `/sys`.
fn mounts_inside_sys() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    outermost_below_sys(&table)
}

fn outermost_below_sys(mountinfo: &str) -> Vec<String> {
    let mut points: Vec<&str> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with("/sys/"))
        .collect();
    points.sort_unstable();
    let mut out: Vec<String> = Vec::new();
    for point in points {
        let inside = |outer: &String| {
            point
                .strip_prefix(outer.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !out.iter().any(inside) {
            out.push(point.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_mounts_are_carried_over() {
        let table = "\
22 1 0:20 / /sys rw - sysfs sysfs rw
30 22 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:6 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw
32 22 0:7 / /sys/fs/cgroup-other rw - tmpfs x rw
33 22 0:8 / /sys/kernel/debug rw - debugfs debugfs rw
34 1 0:9 / /system rw - tmpfs x rw
";
        assert_eq!(
            outermost_below_sys(table),
            [
                "/sys/fs/cgroup",
                "/sys/fs/cgroup-other",
                "/sys/kernel/debug"
            ]
        );
    }
}
