//! Thousands of frames put together at random, by a container: whatever arrives anywhere tells no lie, and nothing arrives
//! on another network.

use crate::common::*;
use crate::liar::bridge_nf_values;
use crate::size;
use std::net::IpAddr;
use wharf_testkit::disguise::{self, DESTINATION, FRAGMENT, HOP_BY_HOP, SERVICE_VLAN, VLAN};
use wharf_testkit::frame::{self, BROADCAST, Mac};
use wharf_testkit::{Host, Sniffer, Wire, require};

const OWN: [&str; 2] = ["10.88.1.66", "fd00:88:1::66"];
const SOURCES: [&[&str]; 2] = [
    &[
        "10.88.1.11",
        "10.88.1.1",
        "10.88.2.11",
        "10.0.2.2",
        "192.0.2.50",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "10.88.1.255",
        "169.254.1.1",
        "198.51.100.7",
    ],
    &[
        "fd00:88:1::11",
        "fd00:88:1::1",
        "fd00:88:2::11",
        "2001:db8::50",
        "::1",
        "::",
        "::ffff:10.88.1.66",
        "::10.88.1.66",
        "2002:a58:142::1",
        "2001:0:a58:142::1",
        "ff02::1",
        "fe80::1",
        "fd00:88:1::",
    ],
];
const TARGETS: [&[&str]; 2] = [
    &[
        "10.88.1.11",
        "10.88.1.11",
        "192.0.2.50",
        "10.88.1.1",
        "10.88.2.11",
        "10.88.2.1",
        "10.88.3.11",
        "10.0.2.2",
        "127.0.0.1",
        "255.255.255.255",
        "224.0.0.251",
        "10.88.1.255",
        "10.88.2.255",
        "10.88.3.255",
        "0.0.0.0",
        "240.0.0.1",
    ],
    &[
        "fd00:88:1::11",
        "fd00:88:1::11",
        "2001:db8::50",
        "fd00:88:1::1",
        "fd00:88:2::11",
        "fd00:88:3::11",
        "fd00:88:2::1",
        "2001:db8:2::2",
        "::1",
        "ff02::1",
        "ff02::fb",
        "ff05::1",
        "::ffff:10.88.2.11",
        "::ffff:127.0.0.1",
        "2002:a58:20b::1",
        "fd00:88:2::",
        "fe80::1",
    ],
];
/// IGMP, IP in IP, IPv6 in IP, GRE, ICMP, ICMPv6, PIM, SCTP, and one nobody has.
const PROTOCOLS: [u8; 9] = [2, 4, 41, 47, 1, 58, 103, 132, 253];

/// Numbers that look random and can be had again (Marsaglia, "Xorshift RNGs").
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct Made {
    frame: Vec<u8>,
    /// From its own addresses, in no disguise that a bridge would see through otherwise.
    honest: bool,
    what: String,
}

/// The sender's hardware address, and those it sends to.
struct Macs {
    own: Mac,
    false_ones: [Mac; 4],
    to: Vec<Mac>,
}

fn make(n: usize, dice: &mut Dice, macs: &Macs) -> Made {
    let family = dice.below(2);
    let own = dice.one_in(3);
    let from = if own {
        OWN[family]
    } else {
        dice.of(SOURCES[family])
    };
    let to = dice.of(TARGETS[family]);
    let own_mac = !dice.one_in(4);
    let pair = (
        if own_mac {
            macs.own
        } else {
            dice.of(&macs.false_ones)
        },
        dice.of(&macs.to),
    );
    let mark = format!("mark-{n:06}!").into_bytes();
    let mut what = format!("{from} to {to}, {:02x?}", pair);
    let (from, to): (IpAddr, IpAddr) = (ip(from), ip(to));
    let mut frame = if dice.one_in(3) {
        let protocol = dice.of(&PROTOCOLS);
        what += &format!(", protocol {protocol}");
        // As ICMP it is an echo request, as IGMP and PIM nonsense.
        let payload = [
            &[if family == 1 { 128 } else { 8 }, 0, 0, 0, 0, 0, 0, 0],
            &*mark,
        ]
        .concat();
        frame::ip(pair, from, to, protocol, dice.of(&[1, 64, 255]), &payload)
    } else {
        let ports = dice.of(&[
            (9, 90),
            (9, 8090),
            (9, 7000),
            (67, 68),
            (547, 546),
            (68, 67),
        ]);
        what += &format!(", ports {ports:?}");
        frame::udp(pair, (from, ports.0), (to, ports.1), &mark)
    };
    if dice.one_in(3) {
        if family == 1 {
            let all = [HOP_BY_HOP, DESTINATION, FRAGMENT];
            let kinds: Vec<u8> = (0..1 + dice.below(3)).map(|_| dice.of(&all)).collect();
            what += &format!(", headers {kinds:?}");
            frame = disguise::with_headers(&frame, &kinds);
        } else {
            what += ", a source route";
            frame = disguise::with_options(&frame, &disguise::source_route([10, 88, 2, 11].into()));
        }
    }
    let wrapped = dice.one_in(4);
    if wrapped {
        let tags: [&[(u16, u16)]; 4] = [
            &[(VLAN, 5)],
            &[(VLAN, 0xe000)],
            &[(SERVICE_VLAN, 5), (VLAN, 0)],
            &[(VLAN, 0), (VLAN, 0)],
        ];
        let at = dice.below(5);
        what += &format!(", wrapping {at}");
        frame = tags.get(at).map_or_else(
            || disguise::snap(&frame),
            |tags| disguise::tagged(&frame, tags),
        );
    }
    Made {
        frame,
        honest: own && own_mac && !wrapped,
        what,
    }
}

/// Who hears, and whether anything may arrive there.
type Heard = (&'static str, bool, Sniffer);

/// Three networks; the liar is `evil` on the first.
fn scene(nf_call: bool) -> Host {
    let host = options().bridge_nf_call(nf_call).start();
    network(&host, "A", 1, "--bridge wharf-a");
    network(&host, "B", 2, "");
    network(&host, "I", 3, "--internal");
    container(&host, "evil", "A", 1, 66, "");
    container(&host, "victim", "A", 1, 11, "-p 8090:90/udp");
    container(&host, "b1", "B", 2, 11, "");
    container(&host, "i1", "I", 3, 11, "");
    let evil = host.container("evil");
    for v6 in [false, true] {
        assert!(evil.ping(at(v6, 1, 11)).reached() && evil.ping(at(v6, 1, 1)).reached());
    }
    host
}

/// Sends so many frames and waits until the last was heard.
fn send_all(host: &Host, heard: &[Heard], seed: u64, count: usize) -> Vec<Made> {
    let (own, bridge) = (
        host.container("evil").mac("eth0"),
        host.netns().mac("wharf-a"),
    );
    let victim = host.container("victim").mac("eth0");
    let (group, nodes) = ([0x01, 0x80, 0xc2, 0, 0, 2], [0x33, 0x33, 0, 0, 0, 1]);
    let macs = Macs {
        own,
        false_ones: [victim, bridge, [0x02, 0xba, 0xd0, 0, 0, 1], BROADCAST],
        to: vec![bridge, bridge, victim, BROADCAST, nodes, group],
    };
    let wire = Wire::open(&host.container("evil"), "eth0");
    let mut dice = Dice(seed);
    let made: Vec<Made> = (0..count).map(|n| make(n, &mut dice, &macs)).collect();
    for (n, one) in made.iter().enumerate() {
        wire.send(&one.frame);
        if n.is_multiple_of(50) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let (from, to) = ((at(false, 1, 66), 9), (at(false, 1, 11), 9));
    wire.send(&frame::udp((own, victim), from, to, b"the last"));
    heard[0].2.wait_for("the last frame", b"the last");
    made
}

/// The numbers of the frames whose mark was heard.
fn arrived(sniffer: &Sniffer) -> Vec<usize> {
    let all = sniffer.frames().concat();
    let marks = all.windows(12).filter_map(|w| {
        let number = w.strip_prefix(b"mark-")?.strip_suffix(b"!")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    });
    marks.collect()
}

fn hearers(host: &Host) -> [Heard; 5] {
    let inside = |name| Sniffer::start(&host.container(name), "eth0");
    [
        ("victim", true, inside("victim")),
        ("the host", true, Sniffer::start(host.netns(), "wharf-a")),
        ("outside", true, Sniffer::start(host.outside(), "down0")),
        ("b1", false, inside("b1")),
        ("i1", false, inside("i1")),
    ]
}

fn seed() -> u64 {
    u64::from_ne_bytes(frame::random_bytes::<8>()) | 1
}

#[test]
fn whatever_a_container_sends_tells_no_lie() {
    require!();
    let count = size("WHARF_STRAIN_FRAMES", 10_000);
    for nf_call in bridge_nf_values() {
        let (host, seed) = (scene(*nf_call), seed());
        let heard = hearers(&host);
        let made = send_all(&host, &heard, seed, count);
        for (name, may, sniffer) in &heard {
            let arrived = arrived(sniffer);
            for one in arrived.iter().map(|n| &made[*n]) {
                let what = format!("{} (seed {seed}, nf-call {nf_call})", one.what);
                assert!(*may && one.honest, "{name} heard {what}");
            }
            let number = arrived.len();
            eprintln!("{name}: {number} of {count} arrived");
            assert!(!may || number > count / 500, "{name} heard {number} only");
        }
    }
}

/// When the rules are gone siblings hear lies, but other networks hear nothing. The host itself is not closed then, and
/// answers whoever a frame says it comes from.
#[test]
fn nothing_a_container_sends_gets_to_other_networks_after_a_flush() {
    require!();
    let count = size("WHARF_STRAIN_FRAMES", 10_000);
    for nf_call in bridge_nf_values() {
        let (host, seed) = (scene(*nf_call), seed());
        let heard = hearers(&host);
        host.sh("nft flush ruleset");
        let made = send_all(&host, &heard, seed, count);
        assert!(arrived(&heard[0].2).len() > count / 100, "siblings hear it");
        for (name, _, sniffer) in heard.iter().filter(|(_, may, _)| !may) {
            let answered = |one: &&Made| {
                let own = ["10.88.2.11 to ", "fd00:88:2::11 to "];
                own.iter().any(|from| one.what.starts_with(from))
            };
            let arrived = arrived(sniffer);
            let bad = arrived.iter().map(|n| &made[*n]).find(|one| !answered(one));
            let what = bad.map(|one| &one.what);
            assert!(
                what.is_none(),
                "{name} heard {what:?} (seed {seed}, nf-call {nf_call})"
            );
        }
    }
}
