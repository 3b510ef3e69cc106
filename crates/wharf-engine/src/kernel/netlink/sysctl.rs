//! Sysctls, by their files.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where they are.
const ROOT: &str = "/proc/sys";

/// Whether the kernel has IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    // Not below /proc/sys: there all namespaces' directories of one name are gone through one by one.
    Path::new("/proc/self/net/if_inet6").exists()
}

/// Sets a value in the thread's namespace and makes sure that it stayed.
pub(super) fn set(key: &str, value: &str) -> io::Result<()> {
    let now = match write(key, value) {
        Err(error)
            if error.raw_os_error() == Some(libc::ENOENT)
                && turns_ipv6_off(key, value)
                && !has_ipv6() =>
        {
            return Ok(());
        }
        other => other?,
    };
    if now.split_whitespace().eq(value.split_whitespace()) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{key} was set to {value}, but is {}",
        now.trim_end()
    )))
}

/// Writes a value and reads it back. The file is opened once: finding it is most of the work.
/// Where sysctls cannot be written, what they are is told instead: it may be as asked for.
fn write(key: &str, value: &str) -> io::Result<String> {
    /// More than any value that is set.
    const LONGEST: usize = 256;
    let path = format!("{ROOT}/{key}");
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
            let now = std::fs::read_to_string(&path)?;
            let same = now.split_whitespace().eq(value.split_whitespace());
            return if same { Ok(now) } else { Err(error) };
        }
        file => file?,
    };
    file.write_all_at(value.as_bytes(), 0)?;
    let mut buffer = [0; LONGEST];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The value in the thread's namespace, without the line's end.
pub(crate) fn get(key: &str) -> io::Result<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/{key}"))?;
    Ok(text.trim_end().to_owned())
}

/// What a kernel without IPv6 does by itself.
fn turns_ipv6_off(key: &str, value: &str) -> bool {
    let off = if key.ends_with("/disable_ipv6") {
        "1"
    } else {
        "0"
    };
    key.starts_with("net/ipv6/") && value == off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_only_turning_it_off_is_fine() {
        assert!(turns_ipv6_off("net/ipv6/conf/br0/disable_ipv6", "1"));
        assert!(!turns_ipv6_off("net/ipv6/conf/br0/disable_ipv6", "0"));
        assert!(turns_ipv6_off("net/ipv6/conf/br0/accept_ra", "0"));
        assert!(!turns_ipv6_off("net/ipv6/conf/all/forwarding", "1"));
        assert!(!turns_ipv6_off("net/ipv4/conf/br0/accept_redirects", "0"));
    }
}
