//! Programs in the background, their monitor, and those that join them.

use std::fs;
use std::time::Duration;

use wharf_engine::process::liveness::members;
use wharf_engine::process::netns::netns_inode;
use wharf_engine::process::{ExitStatus, LogTarget};

use crate::support::{
    container, eventually, fork, host_state, in_web, kill, lines, private, read, stat_field, wait,
};

fn log() -> LogTarget {
    LogTarget::Files {
        stdout: "/run/log".into(),
        stderr: "/run/log".into(),
    }
}

#[test]
fn the_callback_learns_the_status_after_the_caller_lets_go() {
    private(|| {
        let process = in_web("echo out; echo err >&2; cat; exit 9");
        let started = process
            .spawn_detached(&log(), |status| {
                fs::write("/run/status", format!("{status:?}\n")).expect("written");
            })
            .expect("started");
        eventually("the program has ended", || !started.id().is_alive());
        std::thread::sleep(Duration::from_millis(50));
        assert!(started.monitor().is_alive());
        assert_eq!(
            read("/run/status"),
            "",
            "not while the caller holds it back"
        );
        let monitor = started.monitor();
        drop(started);
        let status = format!("{:?}", ExitStatus::Exited(9));
        assert_eq!(lines("/run/status", 1), [status]);
        eventually("the monitor has ended", || !monitor.is_alive());
        assert_eq!(read("/run/log"), "out\nerr\n");
    });
}

#[test]
fn the_monitor_holds_nothing_and_hears_no_hangup() {
    private(|| {
        let process =
            in_web("echo ready; trap 'echo hup; exit 2' HUP; while :; do sleep 0.01; done");
        let started = process
            .spawn_detached(&log(), |status| {
                fs::write("/run/status", format!("{}\n", status.code())).expect("written");
            })
            .expect("started");
        let (program, monitor) = (started.id(), started.monitor());
        drop(started);
        lines("/run/log", 1);

        let mut open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", monitor.pid))
            .expect("descriptors")
            .map(|fd| {
                fs::read_link(fd.expect("fd").path())
                    .expect("link")
                    .display()
                    .to_string()
            })
            .collect();
        open.sort();
        assert_eq!(open[..3], ["/dev/null"; 3], "{open:?}");
        let rest: Vec<_> = open[3..]
            .iter()
            .filter(|fd| !fd.starts_with("anon_inode"))
            .collect();
        assert_eq!(rest.len(), 1, "one pipe, from the caller: {open:?}");
        let cwd = fs::read_link(format!("/proc/{}/cwd", monitor.pid)).expect("cwd");
        assert_eq!(cwd.to_str(), Some("/"));

        let (session, terminal) = (stat_field(program, 6), stat_field(program, 7));
        assert_eq!(session, program.pid.to_string(), "a session of its own");
        assert_eq!(terminal, "0");
        assert_eq!(stat_field(program, 4), monitor.pid.to_string());
        let me = std::process::id().to_string();
        assert_eq!(
            stat_field(monitor, 4),
            me,
            "an orphan, given to the subreaper"
        );
        assert_ne!(stat_field(monitor, 6), monitor.pid.to_string());

        kill(monitor.pid, libc::SIGHUP);
        std::thread::sleep(Duration::from_millis(50));
        assert!(monitor.is_alive() && program.is_alive());
        kill(program.pid, libc::SIGHUP);
        assert_eq!(lines("/run/status", 1), ["2"], "the program does hear it");
        assert_eq!(lines("/run/log", 2), ["ready", "hup"]);
    });
}

#[test]
fn the_program_outlives_its_caller_and_the_monitor_passes_signals_on() {
    private(|| {
        in_web("");
        let caller = fork(|| {
            let started = in_web("exec sleep 60")
                .spawn_detached(&LogTarget::Null, |status| {
                    fs::write("/run/status", format!("{}\n", status.code())).expect("written");
                })
                .expect("started");
            fs::write("/run/monitor", format!("{}\n", started.monitor().pid)).expect("written");
            drop(started);
            kill(std::process::id(), libc::SIGKILL);
        });
        assert_eq!(wait(caller), 137);
        let monitor: u32 = lines("/run/monitor", 1)[0].parse().expect("a pid");
        let inode = netns_inode("/run/netns/web".as_ref()).expect("namespace");
        assert_eq!(members(inode).len(), 1);
        kill(monitor, libc::SIGTERM);
        assert_eq!(lines("/run/status", 1), ["143"]);
        assert_eq!(members(inode), []);
    });
}

/// Its caller had no time to write down that it started: nobody would know of the program.
#[test]
fn the_program_ends_with_a_caller_that_was_killed_before_it_let_go() {
    private(|| {
        in_web("");
        let caller = fork(|| {
            let _started = in_web("exec sleep 60")
                .spawn_detached(&LogTarget::Null, |status| {
                    fs::write("/run/status", format!("{}\n", status.code())).expect("written");
                })
                .expect("started");
            kill(std::process::id(), libc::SIGKILL);
        });
        assert_eq!(wait(caller), 137);
        assert_eq!(lines("/run/status", 1), ["137"]);
        let inode = netns_inode("/run/netns/web".as_ref()).expect("namespace");
        assert_eq!(members(inode), []);
    });
}

#[test]
fn a_failed_start_is_told_and_runs_no_callback() {
    private(|| {
        in_web("");
        let before = host_state();
        let callback = |_| fs::write("/run/status", "ran\n").expect("written");
        let failure = container(&["no-such-program"])
            .spawn_detached(&LogTarget::Null, callback)
            .expect_err("must not start");
        assert_eq!(failure.exit_code(), 127);
        let mut process = container(&["true"]);
        process.cwd = Some("/no/such/directory".into());
        let failure = process
            .spawn_detached(&LogTarget::Null, callback)
            .expect_err("must not start");
        assert_eq!(failure.exit_code(), 125);
        let target = LogTarget::Files {
            stdout: "/no/such/log".into(),
            stderr: "/no/such/log".into(),
        };
        let failure = container(&["true"])
            .spawn_detached(&target, callback)
            .expect_err("must not start");
        assert!(
            failure
                .to_string()
                .starts_with("cannot open the log (/no/such/log)"),
            "{failure}"
        );
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(host_state(), before);
    });
}

#[test]
fn exec_joins_the_first_program_and_works_without_it() {
    private(|| {
        let mut first = in_web(
            "mkdir /run/inside && mount -t tmpfs inside /run/inside && echo x > /run/inside/mark
            echo ready; exec sleep 60",
        );
        first.hostname = "first".into();
        let first = first.spawn_detached(&log(), |_| ()).expect("started");
        lines("/run/log", 1);
        assert!(
            !fs::exists("/run/inside/mark").expect("looked"),
            "its mount is its own"
        );

        let script = "test -e /run/inside/mark; echo $? $(cat /proc/sys/kernel/hostname) $(grep -c db /etc/hosts) \
            $(readlink /proc/self/ns/net) $(pwd) >> /run/out";
        let mut second = in_web(script);
        second.join = Some(first.id());
        assert_eq!(
            second
                .spawn()
                .expect("started")
                .wait()
                .expect("waited")
                .code(),
            0
        );
        first
            .id()
            .kill_and_wait(Duration::from_secs(5))
            .expect("ended");
        let alone = second.spawn().expect("started");
        assert_eq!(alone.wait().expect("waited").code(), 0);

        let netns = netns_inode("/run/netns/web".as_ref()).expect("namespace");
        let cwd = std::env::current_dir().expect("cwd");
        let rest = format!("1 net:[{netns}] {}", cwd.display());
        assert_eq!(
            lines("/run/out", 2),
            [format!("0 first {rest}"), format!("1 web {rest}")]
        );
    });
}
