//! Sending and catching whole frames on an interface.

use crate::netns::Netns;
use crate::sys;
use crate::wait::eventually_within;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An interface to send frames on, past everything the sender's own stack would check.
pub struct Wire(UdpSocket);

impl Wire {
    /// Opens an interface of a namespace.
    #[track_caller]
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let socket = netns.run(|| sys::packet_socket(interface));
        Self(socket.unwrap_or_else(|error| panic!("packet socket on {interface}: {error}")))
    }

    /// Sends one frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame).expect("send a frame");
    }
}

/// Collects the frames that arrive at an interface.
pub struct Sniffer {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Sniffer {
    /// Starts to collect; frames sent by this interface's own host are not seen.
    #[track_caller]
    pub fn start(netns: &Netns, interface: &str) -> Self {
        let socket = netns.run(|| sys::packet_socket(interface));
        let socket = socket.unwrap_or_else(|error| panic!("packet socket on {interface}: {error}"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("timeout");
        let sniffer = Self {
            frames: Arc::default(),
            stop: Arc::default(),
        };
        let (frames, stop) = (sniffer.frames.clone(), sniffer.stop.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                let Ok(count) = socket.recv(&mut buffer) else {
                    continue;
                };
                frames
                    .lock()
                    .expect("no panic while locked")
                    .push(buffer[..count].to_vec());
            }
        });
        sniffer
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().expect("no panic while locked").clone()
    }

    /// The number of frames so far that contain these bytes.
    pub fn count(&self, bytes: &[u8]) -> usize {
        let contains = |frame: &&Vec<u8>| frame.windows(bytes.len()).any(|window| window == bytes);
        self.frames
            .lock()
            .expect("no panic while locked")
            .iter()
            .filter(contains)
            .count()
    }

    /// Waits for a frame that contains these bytes.
    #[track_caller]
    pub fn wait_for(&self, what: &str, bytes: &[u8]) {
        eventually_within(Duration::from_secs(3), what, || {
            (self.count(bytes) > 0).then_some(())
        });
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends datagrams as fast as it can until dropped; errors are counted as not sent.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Flood {
    /// Starts to send `payload` to `to`.
    #[track_caller]
    pub fn start(netns: &Netns, to: SocketAddr, payload: &[u8]) -> Self {
        let local = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = netns.run(|| UdpSocket::bind(local)).expect("socket");
        let flood = Self {
            stop: Arc::default(),
            sent: Arc::default(),
        };
        let (stop, sent, payload) = (flood.stop.clone(), flood.sent.clone(), payload.to_vec());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match socket.send_to(&payload, to) {
                    Ok(_) => _ = sent.fetch_add(1, Ordering::Relaxed),
                    Err(_) => thread::yield_now(),
                }
            }
        });
        flood
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
