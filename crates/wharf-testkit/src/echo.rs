//! Servers that answer with their name and the address they saw, over TCP and UDP.

use crate::netns::Netns;
use crate::probe::Protocol;
use crate::sys;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// A server that answers every TCP connection, or every datagram, with `NAME SOURCE`. It stops when dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    listener: Option<Arc<TcpListener>>,
}

impl Echo {
    /// A TCP server on all addresses.
    #[track_caller]
    pub fn tcp(netns: &Netns, name: &str, port: u16) -> Self {
        Self::tcp_at(netns, name, everywhere(), port)
    }

    /// A UDP server on all addresses.
    #[track_caller]
    pub fn udp(netns: &Netns, name: &str, port: u16) -> Self {
        Self::udp_at(netns, name, everywhere(), port)
    }

    /// Servers on all addresses, one per port.
    #[track_caller]
    pub fn many(netns: &Netns, name: &str, protocol: Protocol, ports: &[u16]) -> Vec<Self> {
        let start = |port: &u16| match protocol {
            Protocol::Tcp => Self::tcp(netns, name, *port),
            Protocol::Udp => Self::udp(netns, name, *port),
            other => panic!("no server for {other:?}"),
        };
        ports.iter().map(start).collect()
    }

    /// A TCP server on one address.
    #[track_caller]
    pub fn tcp_at(netns: &Netns, name: &str, address: IpAddr, port: u16) -> Self {
        let listener = netns.run(|| TcpListener::bind(SocketAddr::new(address, port)));
        let listener = Arc::new(
            listener.unwrap_or_else(|e| panic!("listen at {address} port {port} in {name}: {e}")),
        );
        let echo = Self::with(Some(listener.clone()));
        let (stop, served, name) = (echo.stop.clone(), echo.served.clone(), name.to_owned());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, peer)) = listener.accept() else {
                    continue;
                };
                served.fetch_add(1, Ordering::Relaxed);
                // The client may be gone already.
                let _ = writeln!(stream, "{name} {}", peer.ip().to_canonical());
            }
        });
        echo
    }

    /// A UDP server on one address.
    #[track_caller]
    pub fn udp_at(netns: &Netns, name: &str, address: IpAddr, port: u16) -> Self {
        let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(address, port)));
        let socket = socket.unwrap_or_else(|e| panic!("bind {address} port {port} in {name}: {e}"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("timeout");
        let socket = sys::AnyAddress::new(socket, address.is_ipv6()).expect("socket option");
        let echo = Self::with(None);
        let (stop, served, name) = (echo.stop.clone(), echo.served.clone(), name.to_owned());
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, peer)) = socket.receive(&mut buffer) else {
                    continue;
                };
                served.fetch_add(1, Ordering::Relaxed);
                let _ = socket.answer(format!("{name} {}\n", peer.ip).as_bytes(), peer);
            }
        });
        echo
    }

    fn with(listener: Option<Arc<TcpListener>>) -> Self {
        Self {
            stop: Arc::default(),
            served: Arc::default(),
            listener,
        }
    }

    /// How many connections or datagrams it has seen.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            sys::stop_listening(listener.as_raw_fd());
        }
    }
}

fn everywhere() -> IpAddr {
    if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}
