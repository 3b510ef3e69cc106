//! What the program sees of the file system, and that the host keeps its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use wharf_engine::process::{Errno, Step, Warning};

use crate::support::{
    become_unprivileged, host_state, in_web, lines, mount, output, private, read,
};

/// An `/etc` as systemd-resolved leaves it.
fn etc_with_resolved() {
    mount(Some("tmpfs"), "/etc", 0);
    fs::create_dir_all("/run/systemd/resolve").expect("directory");
    fs::write(
        "/run/systemd/resolve/stub-resolv.conf",
        "nameserver 127.0.0.53\n",
    )
    .expect("written");
    symlink(
        "../run/systemd/resolve/stub-resolv.conf",
        "/etc/resolv.conf",
    )
    .expect("link");
    fs::write("/etc/hosts", "127.0.0.1 host\n").expect("written");
}

#[test]
fn the_container_has_its_own_name_and_files_and_the_host_keeps_its_own() {
    private(|| {
        etc_with_resolved();
        let mut process = in_web(
            "cat /proc/sys/kernel/hostname /etc/hosts /etc/resolv.conf > /run/out
             stat -c %a /etc/hosts >> /run/out
             ls -a /etc >> /run/out
             echo changed >> /etc/hosts && tail -n 1 /etc/hosts >> /run/out",
        );
        process.resolv_conf = Some("nameserver 10.9.9.1\n".into());
        fs::write("/run/out", "").expect("written");
        let before = host_state();
        // SAFETY: takes no pointers.
        unsafe { libc::umask(0o077) };

        let running = process.spawn().expect("started");
        let warnings: Vec<_> = running
            .warnings()
            .iter()
            .filter(|warning| warning.step != Step::Sysfs)
            .cloned()
            .collect();
        assert_eq!(running.wait().expect("waited").code(), 0);

        // This host has no /etc/hostname to cover.
        let skipped = Warning {
            step: Step::CoverFile,
            path: Some(PathBuf::from("/etc/hostname")),
            errno: Errno(libc::ENOENT),
        };
        assert_eq!(warnings, [skipped]);
        assert_eq!(
            read("/run/out"),
            "web\n127.0.0.1 localhost\n10.9.9.9 db\nnameserver 10.9.9.1\n644\n.\n..\nhosts\nresolv.conf\nchanged\n"
        );
        assert_eq!(host_state(), before);
        assert_eq!(read("/etc/resolv.conf"), "nameserver 127.0.0.53\n");
        let link = fs::read_link("/etc/resolv.conf").expect("still a link");
        assert_eq!(
            link.to_str(),
            Some("../run/systemd/resolve/stub-resolv.conf")
        );
    });
}

#[test]
fn a_link_that_leads_nowhere_is_left_alone() {
    private(|| {
        etc_with_resolved();
        fs::write("/etc/hostname", "host\n").expect("written");
        fs::remove_file("/run/systemd/resolve/stub-resolv.conf").expect("removed");
        let mut process = in_web("cat /etc/hostname > /run/out");
        process.resolv_conf = Some(String::new());
        let running = process.spawn().expect("started");
        assert!(running.warnings().contains(&Warning {
            step: Step::CoverFile,
            path: Some(PathBuf::from("/etc/resolv.conf")),
            errno: Errno(libc::ENOENT),
        }));
        assert_eq!(running.wait().expect("waited").code(), 0);
        assert_eq!(read("/run/out"), "web\n");
    });
}

#[test]
fn sysfs_shows_the_containers_interfaces_and_keeps_control_groups() {
    private(|| {
        let process = in_web("ls /sys/class/net > /run/out; ls /sys/fs/cgroup > /run/cgroup");
        output(&[
            "ip",
            "-n",
            "web",
            "link",
            "add",
            "only-here",
            "type",
            "bridge",
        ]);
        let cgroup = output(&["ls", "/sys/fs/cgroup"]);
        let running = process.spawn().expect("started");
        let left_out = running.warnings().iter().any(|w| w.step == Step::Sysfs);
        assert_eq!(running.wait().expect("waited").code(), 0);
        assert_eq!(read("/run/cgroup"), cgroup);
        if left_out {
            eprintln!("SKIPPED: no sysfs mount permitted here");
            return;
        }
        assert!(lines("/run/out", 1).contains(&"only-here".to_owned()));
    });
}

#[test]
fn without_root_the_rest_still_works() {
    private(|| {
        if !become_unprivileged() {
            eprintln!("SKIPPED: no user namespaces here");
            return;
        }
        mount(Some("tmpfs"), "/run", 0);
        let script = "cat /proc/sys/kernel/hostname /etc/hosts > /run/out; exit 6";
        let running = in_web(script).spawn().expect("started");
        assert_eq!(running.wait().expect("waited").code(), 6);
        assert_eq!(read("/run/out"), "web\n127.0.0.1 localhost\n10.9.9.9 db\n");
    });
}

#[test]
fn the_container_keeps_no_other_namespace_alive() {
    private(|| {
        wharf_engine::process::netns::create("t-other").expect("made");
        let script = "echo ready > /run/ready; while test ! -e /run/stop; do sleep 0.01; done
            grep -c /run/netns/t- /proc/self/mountinfo > /run/out";
        let started = in_web(script)
            .spawn_detached(&Default::default(), |_| ())
            .expect("started");
        lines("/run/ready", 1);
        wharf_engine::process::netns::create("t-later").expect("made");
        fs::write("/run/stop", "").expect("written");
        drop(started);
        assert_eq!(lines("/run/out", 1), ["0"]);
    });
}
