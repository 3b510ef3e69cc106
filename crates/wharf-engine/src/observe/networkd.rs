//! Whether systemd-networkd takes wharf's links and routing rules for its own to set up. What it does not know of a link
//! that it manages it takes away (systemd.network(5)), and of routing rules and routes too, unless it is told not to
//! (networkd.conf(5)).

use std::fs;
use std::path::Path;

use super::sysctl_files::by_name;

/// What networkd tells of links, a file for each by its number; it is there while networkd runs.
const LINKS: &str = "run/systemd/netif/links";
const CONFIG: &str = "etc/systemd/networkd.conf";
/// Of two files with one name, that of the earlier directory counts.
const DROP_INS: [&str; 4] = [
    "etc/systemd/networkd.conf.d",
    "run/systemd/networkd.conf.d",
    "usr/local/lib/systemd/networkd.conf.d",
    "usr/lib/systemd/networkd.conf.d",
];
/// What keeps it from removing what it did not make.
const KEEPS: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];

/// Whether networkd manages the link of this number.
pub(crate) fn manages(root: &Path, index: u32) -> bool {
    let text = fs::read_to_string(root.join(LINKS).join(index.to_string()));
    let state = text.unwrap_or_default();
    let mut states = state.lines().filter_map(|l| l.strip_prefix("ADMIN_STATE="));
    states.next().is_some_and(|state| state != "unmanaged")
}

/// Whether networkd runs and removes routing rules or routes that it did not make.
pub(crate) fn removes_rules(root: &Path) -> bool {
    let files = std::iter::once(root.join(CONFIG)).chain(by_name(root, &DROP_INS));
    let text: String = files
        .map(|file| fs::read_to_string(file).unwrap_or_default() + "\n")
        .collect();
    let keeps = |name: &str| {
        let mut settings = text.lines().filter_map(|line| line.split_once('='));
        let last = settings.rfind(|(key, _)| key.trim() == name);
        last.is_some_and(|(_, value)| ["no", "false", "off", "0"].contains(&value.trim()))
    };
    root.join(LINKS).exists() && !KEEPS.iter().all(|name| keeps(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_testkit::TempDir;

    #[test]
    fn links_and_configuration_are_read() {
        let root = TempDir::new();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            root.write(name, text);
        };
        assert!(!removes_rules(root.path()), "it does not run");
        write(
            "run/systemd/netif/links/3",
            "# private\nADMIN_STATE=configuring\n",
        );
        write("run/systemd/netif/links/4", "ADMIN_STATE=unmanaged\n");
        assert!(manages(root.path(), 3));
        assert!(!manages(root.path(), 4));
        assert!(!manages(root.path(), 5));
        assert!(removes_rules(root.path()));
        write(
            "usr/lib/systemd/networkd.conf.d/50-wharf.conf",
            "[Network]\nManageForeignRoutes=no\n",
        );
        assert!(removes_rules(root.path()), "only routes are left alone");
        write(
            "etc/systemd/networkd.conf.d/50-wharf.conf",
            "[Network]\nManageForeignRoutingPolicyRules = no\nManageForeignRoutes=false\n",
        );
        assert!(!removes_rules(root.path()));
        write(
            "etc/systemd/networkd.conf.d/60-more.conf",
            "[Network]\nManageForeignRoutes=yes\n",
        );
        assert!(removes_rules(root.path()), "the last one counts");
    }
}
