//! Trying whether a packet arrives: an echo, a connection, a service to connect to.
//!
//! Every function works in a network namespace given by path, on a thread of its own; nothing waits longer
//! than it is told to.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::netns;

mod icmp;
pub mod live;

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It arrived and was answered; with the address the far side saw, if it told.
    Reached(Option<IpAddr>),
    /// Somebody said no, at once.
    Refused,
    /// The kernel or a router said that there is no way.
    Unreachable(String),
    /// Nobody answered.
    Silent,
}

impl Answer {
    /// Whether it was answered.
    pub fn is_reached(&self) -> bool {
        matches!(self, Self::Reached(_))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reached(None) => f.write_str("answered"),
            Self::Reached(Some(seen)) => write!(f, "answered; the server saw {seen}"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable(why) => f.write_str(&why.to_lowercase()),
            Self::Silent => f.write_str("no answer"),
        }
    }
}

/// Runs `f` in the namespace at `path`, or in the own one.
pub fn within<T: Send>(path: Option<&Path>, f: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    let Some(path) = path else { return Ok(f()) };
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let target = netns::open(path).map_err(std::io::Error::other)?;
            let _back =
                netns::enter(std::os::fd::AsFd::as_fd(&target)).map_err(std::io::Error::other)?;
            Ok(f())
        });
        work.join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the probe's thread panicked")))
    })
}

/// Sends ICMP echoes to `to` until one is answered or `patience` is over.
pub fn ping(from: Option<&Path>, to: IpAddr, patience: Duration) -> Answer {
    within(from, || icmp::ping(to, patience)).unwrap_or_else(|e| Answer::Unreachable(e.to_string()))
}

/// Connects to `to` and reads what the service says; [`Service`] says which address it sees.
pub fn connect(from: Option<&Path>, to: SocketAddr, patience: Duration) -> Answer {
    within(from, || try_connect(to, patience))
        .unwrap_or_else(|e| Answer::Unreachable(e.to_string()))
}

fn try_connect(to: SocketAddr, patience: Duration) -> Answer {
    let mut stream = match TcpStream::connect_timeout(&to, patience) {
        Ok(stream) => stream,
        Err(e) => return refusal(&e),
    };
    let mut text = String::new();
    let _ = stream.set_read_timeout(Some(patience));
    match stream.read_to_string(&mut text) {
        Ok(_) => Answer::Reached(text.trim().parse().ok()),
        Err(_) => Answer::Silent,
    }
}

fn refusal(e: &std::io::Error) -> Answer {
    match e.raw_os_error() {
        Some(libc::ECONNREFUSED) => Answer::Refused,
        _ if matches!(
            e.kind(),
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock
        ) =>
        {
            Answer::Silent
        }
        Some(errno) => Answer::Unreachable(text_of(errno)),
        None => Answer::Unreachable(e.to_string()),
    }
}

/// The system's text for an error number, without the number.
fn text_of(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// A TCP service that tells each client the address it sees; ends when dropped.
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Listens in the namespace at `path` on `port`, on every address of both families.
    ///
    /// # Errors
    /// The namespace cannot be entered or the port is taken.
    pub fn start(path: &Path, port: u16) -> std::io::Result<Self> {
        const PAUSE: Duration = Duration::from_millis(5);
        let path: PathBuf = path.to_owned();
        let listener = within(Some(&path), || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        })??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, peer)) => {
                        let _ = writeln!(stream, "{}", peer.ip().to_canonical());
                    }
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks again until `good` or `patience` is over; the last answer.
pub fn until(
    patience: Duration,
    mut ask: impl FnMut() -> Answer,
    good: impl Fn(&Answer) -> bool,
) -> Answer {
    let end = Instant::now() + patience;
    loop {
        let answer = ask();
        if good(&answer) || Instant::now() >= end {
            return answer;
        }
    }
}
