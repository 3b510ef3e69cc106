//! Named network namespaces, with `ip netns` as the witness.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use wharf_engine::process::netns::{self, NetnsError, NetnsStep};

use crate::support::{host_state, output, private, read};

/// How many mount points end so. The real host's may lie beneath: compare with before.
fn mounted(path: &str) -> usize {
    let point = format!(" {path} ");
    read("/proc/self/mountinfo").matches(&point).count()
}

fn names() -> Vec<String> {
    let list = output(&["ip", "netns", "list"]);
    let mut names: Vec<_> = list
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn ip_netns_sees_what_was_created() {
    private(|| {
        let before = netns::current().expect("namespace").inode();
        let mounts_before = mounted("/run/netns");
        let made = netns::create("web").expect("made");
        assert_eq!(netns::current().expect("namespace").inode(), before);
        assert_ne!(made.inode(), before);
        assert_eq!(
            netns::netns_inode(Path::new("/run/netns/web")),
            Ok(made.inode())
        );
        assert_eq!(names(), ["web"]);
        let inside = output(&[
            "ip",
            "netns",
            "exec",
            "web",
            "readlink",
            "/proc/self/ns/net",
        ]);
        assert_eq!(inside.trim_end(), format!("net:[{}]", made.inode()));
        let mode = fs::metadata("/run/netns")
            .expect("directory")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
        let mounts = read("/proc/self/mountinfo");
        let last = mounts.lines().rfind(|line| line.contains(" /run/netns "));
        assert!(
            last.is_some_and(|line| line.contains(" shared:")),
            "{last:?}"
        );

        output(&["ip", "netns", "add", "theirs"]);
        assert_eq!(
            netns::create("theirs").map(|_| ()),
            Err(NetnsError::Exists("theirs".into()))
        );
        netns::create("third").expect("made");
        assert_eq!(names(), ["theirs", "third", "web"]);
        assert_eq!(
            mounted("/run/netns"),
            mounts_before + 1,
            "mounted on itself once"
        );
        output(&["ip", "netns", "delete", "third"]);
        netns::delete("theirs").expect("deleted");
        assert_eq!(names(), ["web"]);
    });
}

#[test]
fn delete_is_idempotent_and_leaves_nothing() {
    private(|| {
        netns::delete("never").expect("no directory is no error");
        netns::create("first").expect("made");
        let before = host_state();
        drop(netns::create("web").expect("made"));
        netns::delete("web").expect("deleted");
        netns::delete("web").expect("deleted again");
        assert_eq!(host_state(), before);
        assert_eq!(names(), ["first"]);
    });
}

#[test]
fn a_leftover_file_is_used_and_a_foreign_file_is_not() {
    private(|| {
        netns::create("first").expect("made");
        fs::write("/run/netns/web", "").expect("a creation that was killed half way");
        let leftover = PathBuf::from("/run/netns/web");
        assert_eq!(
            netns::open(&leftover).map(|_| ()),
            Err(NetnsError::NotNamespace(leftover.clone()))
        );
        let made = netns::create("web").expect("made");
        assert_eq!(netns::netns_inode(&leftover), Ok(made.inode()));

        fs::write("/run/netns/notes", "somebody's").expect("written");
        assert_eq!(
            netns::create("notes").map(|_| ()),
            Err(NetnsError::Exists("notes".into()))
        );
        assert_eq!(read("/run/netns/notes"), "somebody's");
        fs::write("/run/netns/stale", "").expect("written");
        netns::delete("stale").expect("deleted");
        assert!(!fs::exists("/run/netns/stale").expect("looked"));
    });
}

#[test]
fn many_at_once_make_each_name_once() {
    private(|| {
        let mounts_before = mounted("/run/netns");
        let made: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|i| scope.spawn(move || netns::create(&format!("n{}", i % 4))))
                .collect();
            threads
                .into_iter()
                .map(|thread| match thread.join().expect("no panic") {
                    Ok(_) => 1,
                    Err(NetnsError::Exists(_)) => 0,
                    Err(other) => panic!("{other}"),
                })
                .sum()
        });
        assert_eq!(made, 4);
        assert_eq!(names(), ["n0", "n1", "n2", "n3"]);
        assert_eq!(mounted("/run/netns"), mounts_before + 1);
        for name in ["n0", "n1", "n2", "n3"] {
            assert_eq!(mounted(&format!("/run/netns/{name}")), 1);
        }
    });
}

#[test]
fn what_is_no_network_namespace_is_called_by_its_name() {
    private(|| {
        let error = |path: &str| netns::open(Path::new(path)).expect_err("must fail");
        assert_eq!(
            error("/run/nobody"),
            NetnsError::NotFound("/run/nobody".into())
        );
        assert_eq!(
            error("/etc/hosts"),
            NetnsError::NotNamespace("/etc/hosts".into())
        );
        assert_eq!(error("/run"), NetnsError::NotNamespace("/run".into()));
        let path = PathBuf::from("/proc/self/ns/mnt");
        let kind = libc::CLONE_NEWNS;
        assert_eq!(
            error("/proc/self/ns/mnt"),
            NetnsError::WrongKind { path, kind }
        );
        for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            let invalid = NetnsError::InvalidName(name.into());
            assert_eq!(netns::create(name).expect_err("must fail"), invalid);
            assert_eq!(netns::delete(name), Err(invalid));
        }
    });
}

#[test]
fn the_guard_brings_the_thread_back() {
    private(|| {
        let home = netns::current().expect("namespace").inode();
        let other = netns::create("web").expect("made");
        let guard = netns::enter(other.as_fd()).expect("entered");
        assert_eq!(netns::current().expect("namespace").inode(), other.inode());
        drop(guard);
        assert_eq!(netns::current().expect("namespace").inode(), home);
        let file = fs::File::open("/etc/hosts").expect("a file");
        match netns::enter(file.as_fd()) {
            Err(NetnsError::System { step, errno, .. }) => {
                assert_eq!((step, errno.0), (NetnsStep::Enter, libc::EINVAL));
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Not a benchmark; it keeps a gross slowdown (a process started, a wait for a grace period) from going unnoticed.
#[test]
fn creation_is_quick() {
    private(|| {
        netns::create("first").expect("made");
        let mut times: Vec<_> = (0..20)
            .map(|i| {
                let start = std::time::Instant::now();
                netns::create(&format!("n{i}")).expect("made");
                start.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("netns::create: median {:?}, best {:?}", times[10], times[0]);
        assert!(times[0].as_millis() < 50, "{times:?}");
    });
}
