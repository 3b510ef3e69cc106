//! A host of one's own: fresh network and mount namespaces with an empty `/run`, also without root.

use std::ffi::CString;
use std::io::Error;
use std::path::Path;

/// Moves this process into namespaces of its own. Without root a user namespace comes first, in which the
/// caller is root. To be called before any thread is started.
///
/// # Errors
/// The system does not allow it; nothing has changed then, or the process is of no more use.
pub fn enter() -> Result<(), Error> {
    // SAFETY: plain system calls without pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let user = if uid == 0 { 0 } else { libc::CLONE_NEWUSER };
    // SAFETY: a plain system call; the process has one thread.
    if unsafe { libc::unshare(user | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWUTS) }
        != 0
    {
        return Err(Error::last_os_error());
    }
    if user != 0 {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        libc::MS_NOSUID | libc::MS_NODEV,
    )?;
    // /sys shows the links of the namespace it was mounted in; without a new one only that view is missing.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), 0);
    std::fs::create_dir_all(Path::new("/run/netns"))
}

fn mount(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
) -> Result<(), Error> {
    let text = |t: &str| CString::new(t).expect("a constant without zero bytes");
    let (source, target, kind) = (source.map(text), text(target), kind.map(text));
    let pointer = |t: &Option<CString>| t.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
    // SAFETY: the strings live until the call returns; a null source or type is allowed where the flags
    // need none.
    let done = unsafe {
        libc::mount(
            pointer(&source),
            target.as_ptr(),
            pointer(&kind),
            flags,
            std::ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}
