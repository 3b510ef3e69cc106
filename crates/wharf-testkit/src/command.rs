//! Programs inside a host or a network namespace, with a transcript when they misbehave.

use crate::sys::{self, HostFds};
use crate::wait::eventually_within;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

enum Place {
    Host(HostFds),
    Net(Arc<OwnedFd>),
}

/// A program to be started in a host or in a network namespace.
pub struct HostCommand {
    command: Command,
    place: Place,
    shown: String,
    input: Vec<u8>,
    limit: Duration,
}

impl HostCommand {
    pub(crate) fn in_host(program: &str, fds: HostFds, host: &str) -> Self {
        Self::new(program, Place::Host(fds), host)
    }

    pub(crate) fn in_net(program: &str, net: Arc<OwnedFd>, name: &str) -> Self {
        Self::new(program, Place::Net(net), name)
    }

    fn new(program: &str, place: Place, name: &str) -> Self {
        let shown = format!("[{name}] {}", program.rsplit('/').next().unwrap_or(program));
        Self {
            command: Command::new(program),
            place,
            shown,
            input: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let shown = arg.as_ref().to_string_lossy();
        let plain = !shown.is_empty() && !shown.contains([' ', '\n', '"', '\'', '$', ';']);
        self.shown += &if plain {
            format!(" {shown}")
        } else {
            format!(" {shown:?}")
        };
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, HostCommand::arg)
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Gives it something to read.
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.into();
        self
    }

    /// Ends it, as a failure of the test, when it takes longer.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it and waits.
    #[track_caller]
    pub fn run(self) -> Output {
        let limit = self.limit;
        self.spawn().wait_within(limit)
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let (reader, writer) = sys::pipe().expect("pipe");
        let in_host = matches!(self.place, Place::Host(_));
        match &self.place {
            Place::Host(fds) => {
                sys::start_in_host(&mut self.command, fds.clone(), writer.as_raw_fd())
            }
            Place::Net(net) => sys::start_in_net(&mut self.command, net.clone()),
        }
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        drop(writer);
        let mut pid = child.id() as i32;
        if in_host {
            let mut bytes = [0; 4];
            File::from(reader)
                .read_exact(&mut bytes)
                .expect("the pid of the program");
            pid = i32::from_ne_bytes(bytes);
        }
        let mut stdin = child.stdin.take().expect("piped");
        let input = std::mem::take(&mut self.input);
        thread::spawn(move || stdin.write_all(&input));
        let stdout = Stream::collect(child.stdout.take().expect("piped"));
        let stderr = Stream::collect(child.stderr.take().expect("piped"));
        Running {
            child,
            pid,
            shown: self.shown,
            stdout,
            stderr,
            started: Instant::now(),
            done: false,
        }
    }
}

struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Stream {
    fn collect(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = bytes.clone();
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = source.read(&mut chunk) {
                sink.lock()
                    .expect("no panic while locked")
                    .extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic while locked")).into_owned()
    }
}

/// A program that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    pid: i32,
    shown: String,
    stdout: Stream,
    stderr: Stream,
    started: Instant,
    done: bool,
}

impl Running {
    /// Its pid as the host it runs in sees it.
    pub fn host_pid(&self) -> i32 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let last = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
        last.unwrap_or_else(|| panic!("{} has ended\n{}", self.shown, self.stderr.text()))
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: i32) {
        if self.is_running() {
            let _ = sys::kill(self.pid, signal);
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_within(LIMIT)
    }

    /// Waits for its end, which must come soon enough.
    #[track_caller]
    pub fn wait_within(mut self, limit: Duration) -> Output {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if start.elapsed() > limit {
                let (out, err) = (self.stdout(), self.stderr());
                panic!(
                    "{}\nstill runs after {limit:?}\nstdout: {out}\nstderr: {err}",
                    self.shown
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        self.done = true;
        let took = self.started.elapsed();
        let what = format!(
            "{}: it has ended but something it started keeps its output open",
            self.shown
        );
        eventually_within(Duration::from_secs(3), &what, || {
            (self.stdout.reader.is_finished() && self.stderr.reader.is_finished()).then_some(())
        });
        Output {
            shown: self.shown.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done && self.is_running() {
            self.signal(libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    shown: String,
    /// Its exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Output {
    /// Command, status and both outputs, for messages.
    pub fn transcript(&self) -> String {
        let ended = match (self.code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        format!(
            "{}\n{ended}\n-- stdout\n{}\n-- stderr\n{}",
            self.shown,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }

    /// Must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(
            self.code == Some(0),
            "should have succeeded: {}",
            self.transcript()
        );
        self
    }

    /// Must have ended with this status, with something on standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "should have ended with status {code}: {}",
            self.transcript()
        );
        assert!(
            !self.stderr.trim().is_empty(),
            "should have said why: {}",
            self.transcript()
        );
        self
    }

    /// Must have ended with this status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "should have ended with status {code}: {}",
            self.transcript()
        );
        self
    }

    /// Standard error must contain the text, in any case.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(found, "stderr should say {text:?}: {}", self.transcript());
        self
    }

    /// Must have succeeded; its output as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let this = self.ok();
        serde_json::from_str(&this.stdout)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", this.transcript()))
    }

    /// Must have failed; the `error` object of its standard error.
    #[track_caller]
    pub fn error(self) -> Value {
        assert!(
            self.code != Some(0),
            "should have failed: {}",
            self.transcript()
        );
        let start = self.stderr.find('{').unwrap_or_default();
        let value: Value = serde_json::from_str(&self.stderr[start..])
            .unwrap_or_else(|e| panic!("no JSON error ({e}): {}", self.transcript()));
        assert!(
            value["error"].is_object(),
            "no object `error`: {}",
            self.transcript()
        );
        value["error"].clone()
    }
}
