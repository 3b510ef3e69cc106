//! Sets that rules name by number.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::model::Netns;
use wharf_core::trace::ruleset::{Expr, Match};
use wharf_engine::kernel::netlink::NetlinkKernel;

use super::{alone, sh};

/// An attribute, padded to four bytes.
fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut out = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Makes a set as `ipset create NAME hash:ip,port` does: `IPSET_CMD_CREATE` (2) of nfnetlink's subsystem 6.
fn create(name: &str) {
    const NESTED: u16 = 0x8000;
    let text = |s: &str| [s.as_bytes(), &[0]].concat();
    let body = [
        vec![2, 0, 0, 0],
        attr(1, &[6]),
        attr(2, &text(name)),
        attr(3, &text("hash:ip,port")),
        attr(4, &[1]),
        attr(5, &[2]),
        attr(7 | NESTED, &[]),
    ]
    .concat();
    // NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE.
    let flags = 0x605_u16.to_ne_bytes();
    let kind = 0x602_u16.to_ne_bytes();
    let len = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
    let message = [&len[..], &kind, &flags, &[0; 8], &body].concat();
    // SAFETY: socket takes no pointers; the descriptor is new and owned by nobody else.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_NETFILTER,
        );
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let fd = socket.as_raw_fd();
    let mut answer = [0_u8; 512];
    // SAFETY: both buffers live until the calls return, and are as long as is said.
    let got = unsafe {
        libc::send(fd, message.as_ptr().cast(), message.len(), 0);
        libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    assert!(got >= 20, "{got}");
    let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
    assert_eq!(error, 0, "{}", io::Error::from_raw_os_error(-error));
}

#[test]
fn a_set_is_called_by_its_name() {
    if !alone() {
        return;
    }
    create("first");
    create("blocked");
    sh("iptables-legacy -A FORWARD -m set ! --match-set blocked src,dst -j DROP
        iptables-legacy -A FORWARD -m set --match-set first dst,dst --return-nomatch ! --update-counters --packets-gt 5 ! --bytes-eq 7
        iptables-legacy -A FORWARD -j SET --add-set first src,src --exist --timeout 9 --del-set blocked dst,dst
        iptables-legacy -t mangle -A FORWARD -j SET --map-set first src,src --map-mark --map-queue");
    let mut kernel = NetlinkKernel::new();
    let chains = kernel.legacy_rules(&Netns::Host).unwrap();
    let mut ours = Vec::new();
    for chain in &chains {
        for rule in &chain.rules {
            ours.push(format!("-A {} {}", chain.name, rule.text));
        }
    }
    ours.sort();
    let saved = sh("iptables-legacy-save | grep ^-A | sort");
    assert_eq!(ours, saved.lines().collect::<Vec<_>>());
    let filter = chains
        .iter()
        .find(|c| c.table == "filter" && c.name == "FORWARD")
        .unwrap();
    let test = Match::Ipset("blocked".to_owned());
    let blocked = Expr::Match { test, invert: true };
    assert_eq!(filter.rules[0].exprs[0], blocked);
    assert_eq!(filter.rules[2].exprs, [Expr::Nothing]);
}
