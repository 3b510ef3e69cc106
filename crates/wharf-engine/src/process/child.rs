//! From the fork to the program: what is prepared before, and what the child does.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::{Errno, ProcessError, Step, Warning};
use super::mounts::{self, Cover};
use super::netns::{self, Netns};
use super::wire::Report;
use super::{ContainerProcess, ProcessId, signals, sys, wire};

/// Docker's, for an environment without `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a child needs, checked and opened while the caller can still be told.
#[derive(Debug)]
pub(super) struct Plan {
    netns: Netns,
    place: Place,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// The paths to try, in order.
    candidates: Vec<CString>,
    /// The command was given as a path, not looked up.
    by_path: bool,
    cwd: Option<CString>,
    /// Standard input, output and error, if not the caller's.
    pub stdio: Option<[OwnedFd; 3]>,
}

#[derive(Debug)]
enum Place {
    /// New mount and UTS namespaces.
    Own {
        hostname: String,
        covers: Vec<Cover>,
    },
    /// Those of another process.
    Joined {
        mounts: OwnedFd,
        uts: OwnedFd,
        /// The caller's directory there, if it exists there.
        cwd: Option<CString>,
    },
}

/// How a child stands to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// It dies with this parent.
    DiesWith(libc::pid_t),
    /// It has a session of its own and outlives everybody.
    Free,
}

fn c_string(what: &'static str, value: &OsStr) -> Result<CString, ProcessError> {
    CString::new(value.as_bytes()).map_err(|_| ProcessError::NulByte {
        what,
        value: value.to_owned(),
    })
}

/// Where the command may be. With a slash in it, exactly there.
fn candidates(command: &OsStr, path: Option<&OsStr>) -> Vec<OsString> {
    if command.as_bytes().contains(&b'/') {
        return vec![command.to_owned()];
    }
    path.unwrap_or(OsStr::new(DEFAULT_PATH))
        .as_bytes()
        .split(|&b| b == b':')
        .map(|directory| {
            // An empty element is the working directory.
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            let mut full = OsStr::from_bytes(directory).to_owned();
            full.push("/");
            full.push(command);
            full
        })
        .collect()
}

impl Plan {
    pub(super) fn new(process: &ContainerProcess) -> Result<Self, ProcessError> {
        let command = process.argv.first().ok_or(ProcessError::EmptyCommand)?;
        let path = process.env.iter().rfind(|(name, _)| name == "PATH");
        let tries = if command.is_empty() {
            Vec::new()
        } else {
            candidates(command, path.map(|(_, value)| value.as_os_str()))
        };
        let env = process.env.iter().map(|(name, value)| {
            let mut entry = name.clone();
            entry.push("=");
            entry.push(value);
            c_string("an environment variable", &entry)
        });
        let argv = process.argv.iter().map(|a| c_string("an argument", a));
        Ok(Self {
            netns: netns::open(&process.netns)?,
            place: Place::new(process)?,
            argv: argv.collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            candidates: tries
                .iter()
                .map(|p| c_string("the command", p))
                .collect::<Result<_, _>>()?,
            by_path: command.as_bytes().contains(&b'/'),
            cwd: process
                .cwd
                .as_ref()
                .map(|cwd| c_string("the working directory", cwd.as_os_str()))
                .transpose()?,
            stdio: None,
        })
    }

    /// Turns a child's report into the caller's result.
    pub(super) fn judge(&self, report: Report) -> Result<Vec<Warning>, ProcessError> {
        let Some(Warning { step, path, errno }) = report.failure else {
            return Ok(report.warnings);
        };
        if step != Step::Exec {
            return Err(ProcessError::Setup { step, path, errno });
        }
        let command = self.argv.first().map_or_else(OsString::new, |command| {
            OsStr::from_bytes(command.to_bytes()).to_owned()
        });
        Err(match errno.0 {
            libc::ENOENT | libc::ENOTDIR => ProcessError::CommandNotFound { command, errno },
            _ => ProcessError::NotExecutable { command, errno },
        })
    }

    /// The child's whole life before the program. Call it with all signals blocked.
    pub(super) fn become_program(&self, tie: Tie, report: BorrowedFd<'_>) -> ! {
        let run = AssertUnwindSafe(|| match self.prepare(tie, report) {
            Ok(()) => plain(Step::Exec)(self.exec()),
            Err(failure) => failure,
        });
        // A panic must not run on into the copy of the caller.
        let failure = catch_unwind(run).unwrap_or_else(|_| plain(Step::Exec)(Errno(libc::EIO)));
        wire::send_failure(report, &failure);
        sys::exit_now(125)
    }

    fn prepare(&self, tie: Tie, report: BorrowedFd<'_>) -> Result<(), Warning> {
        match tie {
            Tie::Free => sys::setsid().map_err(plain(Step::Session))?,
            Tie::DiesWith(_) => {}
        }
        if let Some(stdio) = &self.stdio {
            for (fd, target) in stdio.iter().zip(0..) {
                sys::dup2(fd.as_fd(), target).map_err(plain(Step::Log))?;
            }
        }
        sys::setns(self.netns.as_fd(), libc::CLONE_NEWNET).map_err(plain(Step::EnterNetns))?;
        self.place.enter(&mut |w| wire::send_warning(report, &w))?;
        if let Some(cwd) = &self.cwd {
            sys::chdir(cwd).map_err(|errno| Warning {
                step: Step::WorkingDirectory,
                path: Some(OsStr::from_bytes(cwd.to_bytes()).into()),
                errno,
            })?;
        }
        sys::close_others_on_exec();
        if let Tie::DiesWith(parent) = tie {
            // Last, because changes of credentials undo it. SIGKILL: the caller was killed and nobody is left to ask.
            sys::die_with_parent(libc::SIGKILL).map_err(plain(Step::Signals))?;
            if sys::getppid() != parent {
                // Too late, it is dead already.
                sys::exit_now(125);
            }
        }
        signals::reset_for_program().map_err(plain(Step::Signals))
    }

    /// Returns only if no candidate could be executed, with the most telling reason.
    fn exec(&self) -> Errno {
        let mut reason = Errno(libc::ENOENT);
        for path in &self.candidates {
            match sys::execve(path, &self.argv, &self.env) {
                Errno(libc::ENOENT | libc::ENOTDIR) => {}
                // There, but not for us: perhaps a later directory has another. A directory in PATH that we may not
                // look into, or one with the command's name, has nothing.
                Errno(libc::EACCES) => {
                    if self.by_path || is_file(path) {
                        reason = Errno(libc::EACCES);
                    }
                }
                other => return other,
            }
        }
        reason
    }
}

fn is_file(path: &CStr) -> bool {
    std::fs::metadata(OsStr::from_bytes(path.to_bytes())).is_ok_and(|found| found.is_file())
}

impl Place {
    fn new(process: &ContainerProcess) -> Result<Self, ProcessError> {
        if let Some(joined) = process.join.map(Self::of).transpose()?.flatten() {
            return Ok(joined);
        }
        let mut covers = vec![
            Cover {
                target: c"/etc/hosts",
                content: process.hosts.clone(),
            },
            Cover {
                target: c"/etc/hostname",
                content: format!("{}\n", process.hostname),
            },
        ];
        covers.extend(process.resolv_conf.clone().map(|content| Cover {
            target: c"/etc/resolv.conf",
            content,
        }));
        Ok(Self::Own {
            hostname: process.hostname.clone(),
            covers,
        })
    }

    /// The namespaces of a process, or `None` if it has ended.
    fn of(id: ProcessId) -> Result<Option<Self>, ProcessError> {
        let open = |kind: &str| {
            let path = CString::new(format!("/proc/{}/ns/{kind}", id.pid)).unwrap_or_default();
            sys::open(&path, libc::O_RDONLY, 0)
        };
        let opened = open("mnt").and_then(|mounts| Ok((mounts, open("uts")?)));
        // Looked at after opening: alive now, so the number was not somebody else's before.
        if !id.is_alive() {
            return Ok(None);
        }
        let (mounts, uts) = opened.map_err(ProcessError::at(Step::Join))?;
        let cwd = std::env::current_dir()
            .ok()
            .and_then(|cwd| CString::new(cwd.as_os_str().as_bytes()).ok());
        Ok(Some(Self::Joined { mounts, uts, cwd }))
    }

    fn enter(&self, warn: &mut dyn FnMut(Warning)) -> Result<(), Warning> {
        match self {
            Self::Own { hostname, covers } => {
                mounts::separate(hostname)?;
                mounts::cover(covers, warn)?;
                mounts::fresh_sysfs(warn);
            }
            Self::Joined { mounts, uts, cwd } => {
                sys::setns(uts.as_fd(), libc::CLONE_NEWUTS).map_err(plain(Step::Join))?;
                // This puts the process into the root directory.
                sys::setns(mounts.as_fd(), libc::CLONE_NEWNS).map_err(plain(Step::Join))?;
                if let Some(cwd) = cwd {
                    let _ = sys::chdir(cwd);
                }
            }
        }
        Ok(())
    }
}

pub(super) fn plain(step: Step) -> impl Fn(Errno) -> Warning {
    move |errno| Warning {
        step,
        path: None,
        errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_looked_up_like_a_shell_does() {
        let tried = |command: &str, path: Option<&str>| {
            candidates(OsStr::new(command), path.map(OsStr::new))
        };
        assert_eq!(tried("./a", Some("/bin")), ["./a"]);
        assert_eq!(tried("a", Some("/x::/y")), ["/x/a", "./a", "/y/a"]);
        assert_eq!(tried("a", None).last(), Some(&"/bin/a".into()));
    }
}
