//! Matches of xtables, each with a value that holds and one that does not; inverted the other way round.

use wharf_core::trace::packet::L4;
use wharf_core::trace::ruleset::{Cmp, Expr, Hook, Match};

use super::{Case, ip, packet6};

fn says(case: &mut Case, test: &Match, invert: bool) -> bool {
    let test = test.clone();
    case.holds(&[Expr::Match { test, invert }])
}

/// The first of each holds, the second does not.
fn check(case: &mut Case, pairs: &[(Match, Match)]) {
    for (yes, no) in pairs {
        assert!(says(case, yes, false), "{yes:?}");
        assert!(!says(case, yes, true), "! {yes:?}");
        assert!(!says(case, no, false), "{no:?}");
        assert!(says(case, no, true), "! {no:?}");
    }
}

#[test]
fn addresses_links_and_protocols() {
    let case = &mut Case::at(Hook::Forward);
    let net = |a: &str, m: &str| (ip(a), ip(m));
    let (inside, mask) = net("10.0.0.0", "255.255.255.0");
    let name = str::to_owned;
    check(
        case,
        &[
            (Match::Src(inside, mask), Match::Dst(inside, mask)),
            (
                Match::Dst(ip("203.0.113.5"), ip("255.255.255.255")),
                Match::Src(ip("fd00::"), ip("::")),
            ),
            (
                Match::Iif(name("br0"), false),
                Match::Iif(name("br"), false),
            ),
            (Match::Iif(name("br"), true), Match::Iif(name("eth"), true)),
            (
                Match::Oif(name("eth0"), false),
                Match::Oif(name("br0"), false),
            ),
            (Match::Proto(6), Match::Proto(17)),
            (Match::NfProto(2), Match::NfProto(10)),
            (
                Match::IpRange(true, ip("10.0.0.2"), ip("10.0.0.3")),
                Match::IpRange(false, ip("10.0.0.2"), ip("10.0.0.3")),
            ),
            (Match::PktType(0), Match::PktType(2)),
            (Match::Length(60, 60), Match::Length(0, 59)),
            (Match::Ttl(Cmp::Eq, 64), Match::Ttl(Cmp::Ne, 64)),
            (Match::Ttl(Cmp::Lt, 65), Match::Ttl(Cmp::Gt, 64)),
            (
                Match::MacSource([2, 0, 0, 0, 0, 9]),
                Match::MacSource([2; 6]),
            ),
            (
                Match::RpFilter {
                    loose: false,
                    mark: false,
                },
                Match::Socket,
            ),
        ],
    );
    let local = &mut Case::at(Hook::Output);
    check(
        local,
        &[
            (Match::OwnerUid(0, 0), Match::OwnerUid(1, 9)),
            (
                Match::Iif(String::new(), true),
                Match::Iif(name("br0"), false),
            ),
        ],
    );
    for invert in [false, true] {
        assert!(!says(local, &Match::MacSource([2; 6]), invert));
    }
}

#[test]
fn ports_flags_and_types() {
    let case = &mut Case::at(Hook::Forward);
    let multiport = |src, dst, ports: &[(u16, u16)]| Match::Multiport {
        src,
        dst,
        ports: ports.to_vec(),
    };
    check(
        case,
        &[
            (Match::Sport(40000, 40000), Match::Sport(0, 39999)),
            (Match::Dport(80, 90), Match::Dport(81, 90)),
            (
                multiport(false, true, &[(22, 22), (80, 81)]),
                multiport(false, true, &[(40000, 40000)]),
            ),
            (
                multiport(true, true, &[(40000, 40000)]),
                multiport(true, false, &[(80, 80)]),
            ),
            (Match::TcpFlags(0x17, 0x02), Match::TcpFlags(0x17, 0x12)),
        ],
    );
    case.packet.reply = true;
    assert!(says(case, &Match::TcpFlags(0x17, 0x12), false));
    case.packet.dport = 22;
    assert!(says(case, &Match::Socket, false));
    (case.packet.l4, case.packet.dport) = (L4::Icmp, 0);
    check(
        case,
        &[(Match::IcmpType(0, 0, 255), Match::IcmpType(8, 0, 255))],
    );
    assert!(says(case, &Match::IcmpType(255, 0, 255), false));
    assert!(!says(case, &Match::Dport(0, 65535), false));
    let six = &mut Case::with(Hook::Forward, packet6());
    (six.packet.l4, six.packet.dport) = (L4::Icmp, 0);
    check(
        six,
        &[(Match::IcmpType(128, 0, 0), Match::IcmpType(128, 1, 1))],
    );
}

#[test]
fn conntrack_and_marks() {
    let case = &mut Case::at(Hook::Forward);
    case.packet.mark = 0x15;
    (case.ct.mark, case.ct.status) = (0x25, 0x20);
    let host = ip("255.255.255.255");
    check(
        case,
        &[
            (Match::CtState(8 | 2), Match::CtState(2 | 4)),
            (Match::CtState(0x100), Match::CtState(0x200)),
            (Match::CtStatus(0x20), Match::CtStatus(0)),
            (
                Match::CtAddr(false, true, ip("203.0.113.5"), host),
                Match::CtAddr(true, true, ip("203.0.113.5"), host),
            ),
            (
                Match::CtPort(false, true, 80, 80),
                Match::CtPort(true, true, 80, 80),
            ),
            (Match::CtDirReply(false), Match::CtDirReply(true)),
            (Match::CtProto(6), Match::CtProto(17)),
            (Match::Mark(0x5, 0xf), Match::Mark(0x6, 0xf)),
            (Match::Connmark(0x20, 0xf0), Match::Connmark(0x20, 0xff)),
        ],
    );
    case.ct.state = 0x40;
    assert!(says(case, &Match::CtState(0x40), false));
    for invert in [false, true] {
        assert!(!says(case, &Match::CtStatus(0x20), invert), "no connection");
        assert!(!says(case, &Match::Connmark(0x25, 0xff), invert));
    }
}

#[test]
fn address_types_and_bridge_ports() {
    let kind = |src, types, limit_iif| Match::AddrType {
        src,
        types,
        limit_iif,
        limit_oif: false,
    };
    let case = &mut Case::at(Hook::Prerouting);
    case.packet.dst = ip("192.0.2.1");
    check(
        case,
        &[
            (kind(false, 1 << 2, false), kind(true, 1 << 2, false)),
            (
                kind(false, 1 << 1 | 1 << 2, false),
                kind(false, 1 << 2, true),
            ),
        ],
    );
    let port = |iif: Option<&str>, is_in, is_bridged| Match::Physdev {
        iif: iif.map(|n| (n.to_owned(), false)),
        oif: None,
        is_in,
        is_out: None,
        is_bridged,
    };
    let case = &mut Case::at(Hook::Forward);
    case.ports = (4, 0);
    check(
        case,
        &[
            (
                port(Some("veth1"), None, None),
                port(Some("veth2"), None, None),
            ),
            (
                port(None, Some(true), Some(false)),
                port(None, Some(false), None),
            ),
        ],
    );
    case.ports = (4, 4);
    assert!(says(case, &port(None, None, Some(true)), false));
    case.ports = (0, 0);
    assert!(!says(case, &port(Some("veth1"), None, None), false));
}

#[test]
fn reverse_paths() {
    let strict = Match::RpFilter {
        loose: false,
        mark: true,
    };
    let loose = Match::RpFilter {
        loose: true,
        mark: true,
    };
    let case = &mut Case::at(Hook::Prerouting);
    case.iif = 2;
    assert!(!says(case, &strict, false) && says(case, &loose, false));
    case.packet.mark = 99;
    assert!(!says(case, &loose, false), "no route with this mark");
    case.packet.src = ip("192.0.2.1");
    assert!(!says(case, &loose, false), "an address of this host");
    case.iif = 1;
    assert!(says(case, &strict, false), "loopback");
}
