//! A container that is ready before its port is: while it is being connected, it raises its interface and lies.

use crate::common::*;
use std::process::{Command, Stdio};
use wharf_testkit::skip::Need;
use wharf_testkit::{Netns, require};

/// Raises every interface that appears, and sends on it as somebody else, until its input ends.
const EAGER: &str = r#"
import fcntl, select, socket, struct, sys, threading
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
frame = bytes.fromhex(sys.argv[1])
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"eth1", 0x1043))
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("eth1", 0))
        for _ in range(200):
            raw.send(frame)
    except OSError:
        pass
"#;

fn eager(netns: &Netns, frame: &[u8]) -> std::process::Child {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let child = Command::new("nsenter")
        .arg(format!("--net={}", netns.path()))
        .args(["python3", "-c", EAGER, &hex])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("nsenter");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    child
}

#[test]
fn who_is_connected_gets_no_moment_without_guard() {
    require!(Need::Program("nsenter"), Need::Program("python3"));
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    network(&host, "B", 2, "");
    container(&host, "victim", "A", 1, 11, "");
    container(&host, "evil", "B", 2, 66, "");
    let (evil, victim) = (host.container("evil"), host.container("victim"));
    let mac = victim.mac("eth0");
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    let frame = wharf_testkit::frame::udp(
        (mac, host.netns().mac("wharf-a")),
        (at(false, 1, 11), 9),
        (at(false, 1, 1), 9),
        b"in the victim's name",
    );
    let place = || host.sh(&format!("bridge fdb show br wharf-a | grep {text}"));
    let before = place();
    let mut child = eager(&evil, &frame);
    for round in 0..20 {
        host.w(&format!("network connect A evil {}", ips(1, 66)))
            .ok();
        assert_eq!(place(), before, "the victim's address moved, round {round}");
        assert!(victim.ping(at(false, 1, 1)).reached());
        host.w("network disconnect A evil").ok();
    }
    drop(child.stdin.take());
    child.wait().expect("it ends with its input");
}
