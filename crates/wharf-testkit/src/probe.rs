//! One attempt to reach something, from inside a network namespace.

use crate::netns::Netns;
use crate::{sctp, sys};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Long enough for an answer that must come, even on a busy machine.
pub const PATIENT: Duration = Duration::from_secs(3);
/// Long enough to believe that no answer will come.
pub const BRIEF: Duration = Duration::from_millis(400);

/// What a probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request; the port is ignored.
    Ping,
    /// An INIT chunk, over a raw socket.
    Sctp,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An [`Echo`](crate::Echo) answered: its name, and the source it saw.
    Reached {
        /// The name of the server.
        by: String,
        /// The source address the server saw.
        source: IpAddr,
    },
    /// Something answered that does not say who it is (a ping).
    Replied,
    /// Refused by the other side (RST, or port unreachable).
    Refused,
    /// Refused on the way: no route, prohibited, or an ICMP error.
    Unreachable,
    /// Nothing came.
    Timeout,
    /// Something else went wrong.
    Failed(String),
}

impl Answer {
    /// Whether the packet got there and back.
    pub fn reached(&self) -> bool {
        matches!(self, Self::Reached { .. } | Self::Replied)
    }

    /// Who answered.
    pub fn by(&self) -> Option<&str> {
        if let Self::Reached { by, .. } = self {
            Some(by)
        } else {
            None
        }
    }

    /// The source the server saw.
    pub fn source(&self) -> Option<IpAddr> {
        if let Self::Reached { source, .. } = self {
            Some(*source)
        } else {
            None
        }
    }

    fn parse(text: &str) -> Self {
        let parsed = text
            .trim_end()
            .rsplit_once(' ')
            .and_then(|(by, source)| Some((by, source.parse().ok()?)));
        match parsed {
            Some((by, source)) => Self::Reached {
                by: by.into(),
                source,
            },
            None => Self::Failed(format!("an answer nobody expects: {text:?}")),
        }
    }

    fn from_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Self::Refused,
            Some(
                libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPERM | libc::EINVAL,
            ) => Self::Unreachable,
            Some(libc::EAGAIN | libc::ETIMEDOUT | libc::EINPROGRESS) => Self::Timeout,
            None if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached { by, source } => write!(f, "reached {by}, which saw {source}"),
            Self::Replied => f.write_str("reached"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Timeout => f.write_str("timeout"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Tries to reach `to` from `netns`.
pub fn probe(netns: &Netns, protocol: Protocol, to: SocketAddr, limit: Duration) -> Answer {
    let attempt = move || match protocol {
        Protocol::Tcp => tcp(to, limit),
        Protocol::Udp => udp(to, limit),
        Protocol::Ping => ping(to.ip(), limit),
        Protocol::Sctp => sctp::init(to, limit),
    };
    netns
        .run(attempt)
        .unwrap_or_else(|error| Answer::from_error(&error))
}

impl Netns {
    /// Connects to a TCP server and waits for its answer.
    pub fn tcp(&self, to: IpAddr, port: u16) -> Answer {
        probe(self, Protocol::Tcp, SocketAddr::new(to, port), PATIENT)
    }

    /// Sends a datagram and waits for its answer.
    pub fn udp(&self, to: IpAddr, port: u16) -> Answer {
        probe(self, Protocol::Udp, SocketAddr::new(to, port), PATIENT)
    }

    /// As [`Netns::tcp`], where no answer is expected.
    pub fn tcp_brief(&self, to: IpAddr, port: u16) -> Answer {
        probe(self, Protocol::Tcp, SocketAddr::new(to, port), BRIEF)
    }

    /// As [`Netns::udp`], where no answer is expected.
    pub fn udp_brief(&self, to: IpAddr, port: u16) -> Answer {
        probe(self, Protocol::Udp, SocketAddr::new(to, port), BRIEF)
    }

    /// Pings.
    pub fn ping(&self, to: IpAddr) -> Answer {
        probe(self, Protocol::Ping, SocketAddr::new(to, 0), PATIENT)
    }

    /// Pings where no answer is expected.
    pub fn ping_brief(&self, to: IpAddr) -> Answer {
        probe(self, Protocol::Ping, SocketAddr::new(to, 0), BRIEF)
    }
}

fn tcp(to: SocketAddr, limit: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Err(error) if text.is_empty() => Err(error),
        _ => Ok(Answer::parse(&text)),
    }
}

fn udp(to: SocketAddr, limit: Duration) -> io::Result<Answer> {
    let local: IpAddr = if to.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        [0, 0, 0, 0].into()
    };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(to)?;
    let mut buffer = [0; 2048];
    let count = ask(&socket, b"who?", &mut buffer, limit, |_| true)?;
    Ok(Answer::parse(&String::from_utf8_lossy(&buffer[..count])))
}

fn ping(to: IpAddr, limit: Duration) -> io::Result<Answer> {
    let v6 = to.is_ipv6();
    let (protocol, request, reply) = if v6 {
        (libc::IPPROTO_ICMPV6, 128, 129)
    } else {
        (libc::IPPROTO_ICMP, 8, 0)
    };
    let socket = sys::raw_ip(v6, protocol)?;
    sys::report_errors(&socket, v6)?;
    socket.connect((to, 0))?;
    let id = crate::frame::random_bytes::<4>();
    let mut message = vec![request, 0, 0, 0, id[0], id[1], id[2], id[3]];
    if !v6 {
        let sum = crate::frame::checksum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let header = if v6 { 0 } else { 20 };
    let ours = |packet: &[u8]| {
        packet.get(header) == Some(&reply) && packet.get(header + 4..header + 8) == Some(&id[..])
    };
    ask(&socket, &message, &mut [0; 2048], limit, ours)?;
    Ok(Answer::Replied)
}

/// Sends `message`, again every 300 ms, until a datagram arrives that `ours` accepts.
pub(crate) fn ask(
    socket: &UdpSocket,
    message: &[u8],
    buffer: &mut [u8],
    limit: Duration,
    ours: impl Fn(&[u8]) -> bool,
) -> io::Result<usize> {
    let end = Instant::now() + limit;
    let mut again = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if now >= again {
            socket.send(message)?;
            again = now + Duration::from_millis(300);
        }
        let wait = again
            .min(end)
            .saturating_duration_since(now)
            .max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait))?;
        match socket.recv(buffer) {
            Ok(count) if ours(&buffer[..count]) => return Ok(count),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
