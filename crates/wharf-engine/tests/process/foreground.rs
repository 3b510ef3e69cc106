//! Exit status, signals and the terminal.

use std::ffi::CString;
use std::fs;
use std::time::Duration;

use wharf_engine::process::liveness::{Ending, kill_and_wait};
use wharf_engine::process::netns::NetnsError;
use wharf_engine::process::{ContainerProcess, Errno, ExitStatus, ProcessError, Step};

use crate::support::{
    container, eventually, fork, host_state, in_web, kill, lines, private, read, wait,
};

fn status_of(process: &ContainerProcess) -> ExitStatus {
    process
        .spawn()
        .expect("started")
        .wait()
        .expect("waited for")
}

fn failure_of(process: &ContainerProcess) -> ProcessError {
    process.spawn().expect_err("must not start")
}

#[test]
fn the_programs_own_status_comes_back() {
    private(|| {
        assert_eq!(status_of(&in_web("exit 0")).code(), 0);
        assert_eq!(status_of(&in_web("exit 3")), ExitStatus::Exited(3));
        let killed = status_of(&in_web("kill -KILL $$"));
        assert_eq!(killed, ExitStatus::Killed(9));
        assert_eq!(killed.code(), 137);
        assert_eq!(status_of(&in_web("kill -TERM $$")).code(), 143);
    });
}

#[test]
fn a_failed_start_has_dockers_exit_code_and_leaves_nothing() {
    private(|| {
        in_web("");
        fs::write("/run/text", "not a program").expect("file");
        let before = host_state();

        let missing = failure_of(&container(&["no-such-program"]));
        assert!(
            matches!(missing, ProcessError::CommandNotFound { .. }),
            "{missing}"
        );
        assert_eq!(missing.to_string(), "command not found: no-such-program");
        assert_eq!(missing.exit_code(), 127);
        assert_eq!(
            failure_of(&container(&["/no/such/program"])).exit_code(),
            127
        );
        assert_eq!(failure_of(&container(&[""])).exit_code(), 127);

        assert_eq!(failure_of(&container(&["/run"])).exit_code(), 126);
        let text = failure_of(&container(&["/run/text"]));
        let errno = Errno(libc::EACCES);
        let command = "/run/text".into();
        assert_eq!(text, ProcessError::NotExecutable { command, errno });
        assert_eq!(text.exit_code(), 126);

        // Looked up: a file that may not be executed is one, a directory of that name is none.
        let mut looked_up = container(&["text"]);
        looked_up.env = vec![("PATH".into(), "/nowhere:/run:/bin".into())];
        assert_eq!(failure_of(&looked_up).exit_code(), 126);
        looked_up.argv = vec!["netns".into()];
        assert_eq!(failure_of(&looked_up).exit_code(), 127);

        assert_eq!(failure_of(&container(&[])), ProcessError::EmptyCommand);
        let mut process = container(&["true"]);
        process.cwd = Some("/no/such/directory".into());
        let cwd = failure_of(&process);
        assert_eq!(cwd.exit_code(), 125);
        let expected = ProcessError::Setup {
            step: Step::WorkingDirectory,
            path: process.cwd,
            errno: Errno(libc::ENOENT),
        };
        assert_eq!(cwd, expected);
        let mut process = container(&["true"]);
        process.netns = "/run/netns/nobody".into();
        let expected = ProcessError::Netns(NetnsError::NotFound(process.netns.clone()));
        assert_eq!(failure_of(&process), expected);
        assert_eq!(expected.exit_code(), 125);
        let mut process = container(&["true"]);
        process.hostname = "x".repeat(65);
        let expected = ProcessError::Setup {
            step: Step::Hostname,
            path: None,
            errno: Errno(libc::EINVAL),
        };
        assert_eq!(failure_of(&process), expected);

        assert_eq!(host_state(), before);
    });
}

/// Notes every signal in `/run/got`; ends on SIGTERM with status 7.
const NOTES_SIGNALS: &str = "
    for s in HUP INT QUIT USR1 USR2 WINCH; do trap \"echo $s >> /run/got\" $s; done
    trap 'exit 7' TERM
    echo ready > /run/ready
    while :; do sleep 0.01; done";

#[test]
fn signals_reach_the_program_once() {
    private(|| {
        let all = [
            ("HUP", libc::SIGHUP),
            ("INT", libc::SIGINT),
            ("QUIT", libc::SIGQUIT),
            ("USR1", libc::SIGUSR1),
            ("USR2", libc::SIGUSR2),
            ("WINCH", libc::SIGWINCH),
        ];
        let me = std::process::id();
        let process = in_web(NOTES_SIGNALS);
        let sender = fork(|| {
            lines("/run/ready", 1);
            for (number, (_, signal)) in all.iter().enumerate() {
                kill(me, *signal);
                lines("/run/got", number + 1);
            }
            std::thread::sleep(Duration::from_millis(100));
            kill(me, libc::SIGTERM);
        });
        assert_eq!(status_of(&process), ExitStatus::Exited(7));
        assert_eq!(wait(sender), 0);
        let got = read("/run/got");
        assert_eq!(got.lines().collect::<Vec<_>>(), all.map(|(name, _)| name));
    });
}

#[test]
fn a_signal_between_start_and_wait_is_not_lost() {
    private(|| {
        for _ in 0..20 {
            let running = in_web("exec sleep 60").spawn().expect("started");
            kill(std::process::id(), libc::SIGTERM);
            let status = running.wait().expect("waited for");
            assert_eq!(status, ExitStatus::Killed(libc::SIGTERM));
        }
    });
}

#[test]
fn inherited_signal_settings_do_not_reach_the_program() {
    private(|| {
        // SAFETY: ignoring a signal installs no function.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let process = in_web("grep -E 'Sig(Ign|Blk)' /proc/self/status > /run/out; exit 4");
        assert_eq!(status_of(&process), ExitStatus::Exited(4));
        for line in read("/run/out").lines() {
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
        // SAFETY: as above; back to what the support code needs.
        let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        assert_eq!(before, libc::SIG_IGN, "put back after the program's end");
    });
}

#[test]
fn descriptors_do_not_reach_the_program() {
    private(|| {
        let file = fs::File::create("/run/secret").expect("file");
        // SAFETY: takes no pointers; 57 is nobody's.
        let copy = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), 57) };
        assert_eq!(copy, 57, "a descriptor that stays open on exec");
        assert_eq!(status_of(&in_web("test ! -e /proc/$$/fd/57")).code(), 0);
    });
}

/// Leads a new session on a new terminal; returns the terminal's other end.
fn new_terminal() -> i32 {
    // SAFETY: plain calls on descriptors we own; `name` has room for what `ptsname_r` writes.
    unsafe {
        let main = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert!(main >= 0 && libc::unlockpt(main) == 0);
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(main, name.as_mut_ptr(), name.len()), 0);
        assert!(libc::setsid() > 0);
        let end = libc::open(name.as_ptr(), libc::O_RDWR);
        assert!(end >= 0, "the first terminal opened is the session's");
        assert_eq!(libc::dup2(end, 0), 0);
        main
    }
}

fn press(terminal: i32, key: u8) {
    // SAFETY: one byte from a live variable.
    let written = unsafe { libc::write(terminal, (&raw const key).cast(), 1) };
    assert_eq!(written, 1);
}

#[test]
fn ctrl_c_reaches_the_program_once() {
    private(|| {
        in_web("");
        let terminal = CString::new("/dev/ptmx").expect("name");
        // SAFETY: NUL-terminated.
        if unsafe { libc::access(terminal.as_ptr(), libc::R_OK | libc::W_OK) } != 0 {
            eprintln!("SKIPPED: no pseudo-terminals here");
            return;
        }
        let session = fork(|| {
            let terminal = new_terminal();
            let me = std::process::id();
            let typist = fork(|| {
                // SAFETY: takes no pointers; out of the terminal's reach.
                unsafe { libc::setsid() };
                lines("/run/ready", 1);
                press(terminal, 3);
                lines("/run/got", 1);
                press(terminal, 28);
                lines("/run/got", 2);
                std::thread::sleep(Duration::from_millis(200));
                kill(me, libc::SIGTERM);
            });
            assert_eq!(status_of(&in_web(NOTES_SIGNALS)), ExitStatus::Exited(7));
            assert_eq!(wait(typist), 0);
        });
        assert_eq!(wait(session), 0);
        assert_eq!(read("/run/got"), "INT\nQUIT\n");
    });
}

#[test]
fn ctrl_z_stops_the_caller_and_continuing_it_continues_the_program() {
    private(|| {
        in_web("");
        let program = "echo $$ > /run/ready; kill -TSTP $$; exit 5";
        let caller = fork(|| {
            // An orphaned group (its parent in another session) would not stop; ours is not orphaned.
            // SAFETY: takes no pointers.
            unsafe { libc::setpgid(0, 0) };
            assert_eq!(status_of(&in_web(program)), ExitStatus::Exited(5));
        });
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        let seen = unsafe { libc::waitpid(caller, &mut status, libc::WUNTRACED) };
        assert_eq!(seen, caller);
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        kill(caller.unsigned_abs(), libc::SIGCONT);
        assert_eq!(wait(caller), 0);
    });
}

#[test]
fn a_killed_caller_takes_the_program_with_it() {
    private(|| {
        in_web("");
        let caller = fork(|| {
            status_of(&in_web("echo $$ > /run/ready; exec sleep 60"));
        });
        let program: u32 = lines("/run/ready", 1)[0].parse().expect("a pid");
        kill(caller.unsigned_abs(), libc::SIGKILL);
        assert_eq!(wait(caller), 137);
        eventually("the program is gone", || {
            // SAFETY: a null status is allowed; it is ours to collect now.
            unsafe {
                libc::waitpid(program.cast_signed(), std::ptr::null_mut(), libc::WNOHANG) != 0
            }
        });
    });
}

#[test]
fn a_dropped_program_is_killed() {
    private(|| {
        let running = in_web("exec sleep 60").spawn().expect("started");
        let id = running.id();
        assert!(id.is_alive());
        drop(running);
        assert!(!id.is_alive());
    });
}

#[test]
fn a_deaf_process_is_killed_after_the_time() {
    private(|| {
        let log = Default::default();
        let deaf = in_web("trap '' TERM; echo x > /run/ready; while :; do sleep 0.05; done")
            .spawn_detached(&log, |_| ())
            .expect("started");
        lines("/run/ready", 1);
        let id = deaf.id();
        let time = Duration::from_millis(100);
        assert_eq!(
            kill_and_wait(id.pid, id.start_time + 1, time),
            Ok(Ending::AlreadyGone)
        );
        assert!(id.is_alive(), "another process's number kills nobody");
        assert_eq!(
            kill_and_wait(id.pid, id.start_time, time),
            Ok(Ending::Killed)
        );
        assert_eq!(
            kill_and_wait(id.pid, id.start_time, time),
            Ok(Ending::AlreadyGone)
        );
        assert!(!id.is_alive());

        let polite = in_web("exec sleep 60")
            .spawn_detached(&log, |_| ())
            .expect("started");
        kill(polite.id().pid, libc::SIGSTOP);
        let time = Duration::from_secs(5);
        assert_eq!(polite.id().kill_and_wait(time), Ok(Ending::Terminated));
    });
}
