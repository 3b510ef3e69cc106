//! A private host: a forked process with its own mount, network and UTS namespaces and an empty `/run`.

use std::ffi::{CString, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use wharf_engine::process::{ContainerProcess, ProcessId, netns};

const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;

/// Runs a test in a private host of its own, in a process with one thread. Not root: in a user namespace.
///
/// At the end no process that the test started may be left.
pub fn private(test: impl FnOnce()) {
    // SAFETY: takes no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let pid = fork(|| {
        // SAFETY: takes no pointers.
        if unsafe { libc::unshare(NAMESPACES) } != 0 && !user_namespace(uid, gid) {
            eprintln!("SKIPPED: neither root nor user namespaces");
            return;
        }
        // SAFETY: this option takes a number; orphans of the test come to this process.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        mount(None, "/", libc::MS_PRIVATE | libc::MS_REC);
        mount(Some("tmpfs"), "/run", 0);
        test();
        eventually("every process has ended", || {
            // SAFETY: a null status is allowed.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
            // SAFETY: as above.
            unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) == -1 }
        });
    });
    assert_eq!(wait(pid), 0, "the private host's test failed, see above");
}

fn user_namespace(uid: u32, gid: u32) -> bool {
    // SAFETY: takes no pointers.
    (unsafe { libc::unshare(libc::CLONE_NEWUSER | NAMESPACES) }) == 0
        && fs::write("/proc/self/setgroups", "deny").is_ok()
        && fs::write("/proc/self/uid_map", format!("0 {uid} 1")).is_ok()
        && fs::write("/proc/self/gid_map", format!("0 {gid} 1")).is_ok()
}

/// In the private host: go on as root of a user namespace inside it.
pub fn become_unprivileged() -> bool {
    // SAFETY: takes no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    user_namespace(uid, gid)
}

/// Mounts a file system of this kind, or changes a mount's propagation.
pub fn mount(kind: Option<&str>, target: &str, flags: libc::c_ulong) {
    let kind = kind.map(|kind| CString::new(kind).expect("no NUL byte"));
    let kind = kind.as_ref().map_or(std::ptr::null(), |k| k.as_ptr());
    let path = CString::new(target).expect("no NUL byte");
    // SAFETY: all pointers are null or NUL-terminated strings that live on.
    let done = unsafe { libc::mount(kind, path.as_ptr(), kind, flags, std::ptr::null()) };
    assert_eq!(
        done,
        0,
        "mount {target}: {}",
        std::io::Error::last_os_error()
    );
}

/// A child that does something and ends; a panic is told on stderr.
pub fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child never returns from here.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid > 0 {
        return pid;
    }
    std::panic::set_hook(Box::new(|info| {
        let text = format!("{info}\n");
        // SAFETY: pointer and length are those of a live string.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    // SAFETY: does not return.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

/// Waits for a child; its exit code, or 128 and the signal.
pub fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is ours to write.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

/// Sends a signal to a process that the test knows.
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: takes no pointers.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

/// Waits until something holds, for ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A namespace `web`, and a shell script to be run in it.
pub fn in_web(script: &str) -> ContainerProcess {
    if !Path::new("/run/netns/web").exists() {
        netns::create("web").expect("a namespace");
    }
    let mut process = container(&["/bin/sh", "-c", script]);
    process.hostname = "web".into();
    process.hosts = "127.0.0.1 localhost\n10.9.9.9 db\n".into();
    process
}

/// A command in the namespace `web`.
pub fn container(argv: &[&str]) -> ContainerProcess {
    ContainerProcess {
        netns: "/run/netns/web".into(),
        hostname: "web".into(),
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        ..ContainerProcess::default()
    }
}

/// Standard output of a command that succeeds.
pub fn output(argv: &[&str]) -> String {
    let out = Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .expect(argv[0]);
    assert!(out.status.success(), "{argv:?}: {out:?}");
    String::from_utf8(out.stdout).expect("text")
}

/// A file's content, or nothing.
pub fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
pub struct HostState {
    mounts: String,
    hostname: String,
    hosts: String,
    netns: u64,
    run: Vec<String>,
}

/// Looks at the private host.
pub fn host_state() -> HostState {
    let mut run: Vec<String> = fs::read_dir("/run")
        .expect("/run")
        .map(|entry| entry.expect("entry").path().display().to_string())
        .collect();
    run.sort();
    HostState {
        mounts: read("/proc/self/mountinfo"),
        hostname: read("/proc/sys/kernel/hostname"),
        hosts: read("/etc/hosts"),
        netns: netns::current().expect("namespace").inode(),
        run,
    }
}

/// Waits for a file to hold this many lines, and returns them.
pub fn lines(path: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in {path}"), || {
        read(path).lines().count() >= count
    });
    read(path).lines().map(str::to_owned).collect()
}

/// A field of `/proc/PID/stat`, numbered as in proc(5).
pub fn stat_field(id: ProcessId, field: usize) -> String {
    let stat = read(&format!("/proc/{}/stat", id.pid));
    let rest = &stat[stat.rfind(')').expect("a name") + 2..];
    rest.split(' ').nth(field - 3).expect("field").to_owned()
}
