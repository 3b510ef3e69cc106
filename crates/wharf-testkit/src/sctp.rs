//! The two first packets of an SCTP association, over raw sockets: enough to see that a port is published.

use crate::frame;
use crate::netns::Netns;
use crate::probe::{Answer, ask};
use crate::sys::{self, AnyAddress};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const IPPROTO_SCTP: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// Answers every INIT to its port with an INIT ACK that carries `NAME SOURCE` as its cookie. It stops when dropped.
pub struct SctpEcho {
    stop: Arc<AtomicBool>,
}

impl SctpEcho {
    /// Starts one, for IPv4 and for IPv6.
    #[track_caller]
    pub fn new(netns: &Netns, name: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for v6 in [false, true] {
            let socket = netns
                .run(|| sys::raw_ip(v6, IPPROTO_SCTP))
                .expect("raw SCTP socket");
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("timeout");
            let socket = sys::AnyAddress::new(socket, v6).expect("socket option");
            let (stop, name) = (stop.clone(), name.to_owned());
            thread::spawn(move || serve(&socket, v6, &name, port, &stop));
        }
        Self { stop }
    }
}

impl Drop for SctpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &AnyAddress, v6: bool, name: &str, port: u16, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((count, peer)) = socket.receive(&mut buffer) else {
            continue;
        };
        let packet = &buffer[if v6 { 0 } else { 20 }..count];
        if packet.len() < 32 || packet[2..4] != port.to_be_bytes() || packet[12] != INIT {
            continue;
        }
        let client = u16::from_be_bytes([packet[0], packet[1]]);
        let tag = [packet[16], packet[17], packet[18], packet[19]];
        let cookie = format!("{name} {}", peer.ip);
        let _ = socket.answer(
            &message(port, client, tag, INIT_ACK, cookie.as_bytes()),
            peer,
        );
    }
}

/// Sends an INIT and waits for the INIT ACK.
pub(crate) fn init(to: SocketAddr, limit: Duration) -> io::Result<Answer> {
    let socket = sys::raw_ip(to.is_ipv6(), IPPROTO_SCTP)?;
    sys::report_errors(&socket, to.is_ipv6())?;
    socket.connect(SocketAddr::new(to.ip(), 0))?;
    let [high, low] = frame::random_bytes::<2>();
    let from = u16::from_be_bytes([high, low]) | 0x8000;
    let header = if to.is_ipv6() { 0 } else { 20 };
    let ours = |packet: &[u8]| {
        packet.len() >= header + 36
            && packet[header + 2..header + 4] == from.to_be_bytes()
            && packet[header..header + 2] == to.port().to_be_bytes()
            && packet[header + 12] == INIT_ACK
    };
    let mut buffer = [0; 2048];
    let count = ask(
        &socket,
        &message(from, to.port(), [0; 4], INIT, b""),
        &mut buffer,
        limit,
        ours,
    )?;
    let cookie = &buffer[header + 36..count];
    let text = String::from_utf8_lossy(cookie);
    let (by, source) = text
        .trim_end_matches('\0')
        .rsplit_once(' ')
        .unwrap_or_default();
    match source.parse() {
        Ok(source) => Ok(Answer::Reached {
            by: by.into(),
            source,
        }),
        Err(_) => Ok(Answer::Failed(format!(
            "an INIT ACK of somebody else: {text:?}"
        ))),
    }
}

fn message(from: u16, to: u16, verification: [u8; 4], kind: u8, cookie: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend([0x11, 0x22, 0x33, 0x44]); // initiate tag
    body.extend(65536u32.to_be_bytes()); // receiver window
    body.extend([0, 1, 0, 1]); // streams out and in
    body.extend([0, 0, 0, 1]); // first sequence number
    if !cookie.is_empty() {
        body.extend(7u16.to_be_bytes()); // parameter: state cookie
        body.extend((4 + cookie.len() as u16).to_be_bytes());
        body.extend(cookie);
    }
    let length = 4 + body.len() as u16;
    body.resize(body.len().next_multiple_of(4), 0);
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(verification);
    packet.extend([0; 4]); // checksum
    packet.extend([kind, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend(body);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    };
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_of_the_usual_check_string() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
