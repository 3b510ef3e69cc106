//! Sysctls, by their files.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where they are.
const ROOT: &str = "/proc/sys";

/// Whether the kernel has IPv6 at all.
///
/// Not asked of `/proc/sys/net/ipv6`: the names in `/proc/sys/net` of all namespaces are in one chain of the kernel's
/// cache of names, which grows with each container.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

/// Whether rules for routed packets are asked about bridged frames too (`br_netfilter`), of either family.
pub fn bridged_as_routed() -> bool {
    ["iptables", "ip6tables"].iter().any(|tables| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{tables}");
        fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
    })
}

/// Sets a value in the thread's namespace and makes sure that it stayed. Whether it did: one that nothing depends on may
/// be out of reach.
pub(super) fn set(key: &str, value: &str) -> io::Result<bool> {
    let now = match write(key, value) {
        Err(error)
            if error.raw_os_error() == Some(libc::ENOENT)
                && turns_ipv6_off(key, value)
                && !has_ipv6() =>
        {
            return Ok(true);
        }
        Err(_) if is_out_of_reach(key, value) => return Ok(false),
        other => other?,
    };
    if now.split_whitespace().eq(value.split_whitespace()) {
        return Ok(true);
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

/// Whether a setting is a second line of defence, or saves time, and cannot be written here: as it is, it is no damage.
pub(crate) fn is_out_of_reach(key: &str, value: &str) -> bool {
    let denied = |e: io::Error| e.raw_os_error() == Some(libc::EROFS);
    let open = || OpenOptions::new().write(true).open(format!("{ROOT}/{key}"));
    is_spare(key, value) && open().err().is_some_and(denied)
}

/// What the packet rules do as well (redirects, sources, IPv6 of a network that has none), and what only saves waiting.
/// Not here: forwarding, `accept_ra` and `route_localnet`, without which a network does not work or is not closed.
fn is_spare(key: &str, value: &str) -> bool {
    let parts: Vec<&str> = key.split('/').collect();
    let ["net", "ipv4" | "ipv6", "conf" | "neigh", link, name] = parts.as_slice() else {
        return false;
    };
    let spare = [
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        ("mcast_solicit", "0"),
        ("rp_filter", "1"),
        ("src_valid_mark", "1"),
        ("disable_ipv6", "1"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("addr_gen_mode", "1"),
        ("router_solicitations", "0"),
        ("arp_notify", "1"),
        ("ndisc_notify", "1"),
    ];
    !["all", "default"].contains(link) && spare.contains(&(*name, value))
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
    fn what_safety_needs_is_not_spare() {
        assert!(is_spare("net/ipv4/conf/br0/accept_redirects", "0"));
        assert!(is_spare("net/ipv6/conf/br0/disable_ipv6", "1"));
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/br0/forwarding", "1"),
            ("net/ipv4/conf/br0/route_localnet", "0"),
            ("net/ipv4/conf/all/accept_redirects", "0"),
            ("net/ipv6/conf/br0/accept_ra", "0"),
            ("net/ipv6/conf/br0/disable_ipv6", "0"),
        ] {
            assert!(!is_spare(key, value), "{key}");
        }
    }

    #[test]
    fn without_ipv6_only_turning_it_off_is_fine() {
        assert!(turns_ipv6_off("net/ipv6/conf/br0/disable_ipv6", "1"));
        assert!(!turns_ipv6_off("net/ipv6/conf/br0/disable_ipv6", "0"));
        assert!(turns_ipv6_off("net/ipv6/conf/br0/accept_ra", "0"));
        assert!(!turns_ipv6_off("net/ipv6/conf/all/forwarding", "1"));
        assert!(!turns_ipv6_off("net/ipv4/conf/br0/accept_redirects", "0"));
    }
}
