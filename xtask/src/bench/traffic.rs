//! Traffic between namespaces: an echo server, a sink, and the clients that count.
//!
//! Both ends are threads of this process, bound to one processor, and a rate counts per second of the processor
//! time that the process takes: both ends and the path between them, and nothing of what else the machine does.
//! Servers live in threads that end with the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// Where the echo server listens.
pub const ECHO: u16 = 8000;
/// Where the sink listens.
pub const SINK: u16 = 8001;
const CPU: usize = 0;
const BUFFER: usize = 128 * 1024;

/// Starts both servers in `netns`. They serve one connection at a time.
pub fn serve(netns: &File) -> io::Result<()> {
    for (port, reply) in [(ECHO, true), (SINK, false)] {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let listener = sys::inside(netns.as_fd(), listen)??;
        thread::spawn(move || {
            sys::pin_to_cpu(CPU).expect("the first processor exists");
            let mut buffer = vec![0; BUFFER];
            // A broken connection is the client's way to end; on with the next.
            for connection in listener.incoming().flatten() {
                drop(converse(connection, &mut buffer, reply));
            }
        });
    }
    Ok(())
}

fn converse(mut connection: TcpStream, buffer: &mut [u8], reply: bool) -> io::Result<()> {
    connection.set_nodelay(true)?;
    loop {
        let length = connection.read(buffer)?;
        if length == 0 {
            return Ok(());
        }
        if reply {
            connection.write_all(&buffer[..length])?;
        }
    }
}

/// What a client counts.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// New connections per second: connect, one byte each way, reset.
    Connections,
    /// Round trips per second, of one byte on an open connection.
    RoundTrips,
    /// Gigabits per second on an open connection.
    Throughput,
}

/// Puts `load` on `to` from `netns` for about `time`, and tells the rate per second of processor time.
pub fn rate(netns: &File, to: SocketAddrV4, load: Load, time: Duration) -> io::Result<f64> {
    let client = || -> io::Result<f64> {
        sys::pin_to_cpu(CPU)?;
        sys::enter(netns.as_fd())?;
        match load {
            Load::Connections => per_second(time, || connect(to)),
            Load::RoundTrips => {
                let mut connection = open(to)?;
                per_second(time, || ping(&mut connection))
            }
            Load::Throughput => {
                let mut connection = open(to)?;
                let buffer = vec![0; BUFFER];
                let buffers = per_second(time, || connection.write_all(&buffer))?;
                Ok(buffers * BUFFER as f64 * 8.0 / 1e9)
            }
        }
    };
    // A thread of its own: its processor and its namespace must not be ours afterwards.
    thread::scope(|scope| scope.spawn(client).join())
        .unwrap_or_else(|_| Err(io::Error::other("client panicked")))
}

fn per_second(time: Duration, mut once: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    let used = sys::processor_time()?;
    let mut count = 0u32;
    while start.elapsed() < time {
        once()?;
        count += 1;
    }
    let used = sys::processor_time()?.saturating_sub(used);
    Ok(f64::from(count) / used.as_secs_f64())
}

fn open(to: SocketAddrV4) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let connection = TcpStream::connect_timeout(&to.into(), PATIENCE)
        .map_err(|e| io::Error::new(e.kind(), format!("no connection to {to}: {e}")))?;
    connection.set_nodelay(true)?;
    sys::unpaced(connection.as_fd())?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn ping(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])
}

fn connect(to: SocketAddrV4) -> io::Result<()> {
    let mut connection = TcpStream::connect(to)?;
    ping(&mut connection)?;
    sys::reset_on_close(connection.as_fd())
}
