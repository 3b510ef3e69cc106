//! What the instructions of rules hold, for those that decide most. The rules come by way of the kernel.

use wharf_core::trace::ruleset::{
    Cmp, Expr, Header, Match, NatArg, NatKind, RuleVerdict, TableFamily,
};
use wharf_engine::observe::rules::legacy;

use super::{alone, sh};

/// Writes one rule into a fresh chain and reads its instructions back.
fn exprs(program: &str, table: &str, chain: &str, rule: &str) -> Vec<Expr> {
    sh(&format!(
        "{program} -t {table} -F; {program} -t {table} -A {chain} {rule}"
    ));
    let family = match program {
        "ip6tables-legacy" => TableFamily::Ip6,
        _ => TableFamily::Ip,
    };
    let chains = legacy::read().unwrap();
    let here = chains
        .iter()
        .find(|c| c.family == family && c.table == table && c.name == chain);
    here.unwrap().rules[0].exprs.clone()
}

fn v4(rule: &str) -> Vec<Expr> {
    exprs("iptables-legacy", "filter", "FORWARD", rule)
}

fn nat4(chain: &str, rule: &str) -> Vec<Expr> {
    exprs("iptables-legacy", "nat", chain, rule)
}

fn is(test: Match) -> Expr {
    let invert = false;
    Expr::Match { test, invert }
}

fn not(test: Match) -> Expr {
    let invert = true;
    Expr::Match { test, invert }
}

#[test]
fn addresses_interfaces_and_ports() {
    if !alone() {
        return;
    }
    let ip = |s: &str| s.parse().unwrap();
    let drop = Expr::Verdict(RuleVerdict::Drop);
    assert_eq!(
        v4("-s 10.0.0.0/8 ! -d 192.0.2.7 -i eth0 ! -o br+ -p tcp --dport 80 -j DROP"),
        [
            is(Match::Src(ip("10.0.0.0"), ip("255.0.0.0"))),
            not(Match::Dst(ip("192.0.2.7"), ip("255.255.255.255"))),
            is(Match::Iif("eth0".to_owned(), false)),
            not(Match::Oif("br".to_owned(), true)),
            is(Match::Proto(6)),
            is(Match::Dport(80, 80)),
            drop.clone(),
        ]
    );
    let ports = vec![(53, 53), (8000, 8010), (9, 9)];
    let (src, dst) = (false, true);
    assert_eq!(
        v4("-p udp -m multiport ! --dports 53,8000:8010,9 -j DROP"),
        [
            is(Match::Proto(17)),
            not(Match::Multiport { src, dst, ports }),
            drop.clone()
        ]
    );
    assert_eq!(
        v4("-p tcp --syn -m tcp ! --sport :1023"),
        [
            is(Match::Proto(6)),
            is(Match::TcpFlags(0x17, 2)),
            not(Match::Sport(0, 1023)),
        ]
    );
    assert_eq!(
        v4("-p icmp --icmp-type echo-request -j DROP"),
        [is(Match::Proto(1)), is(Match::IcmpType(8, 0, 255)), drop]
    );
    assert_eq!(v4("-p icmp --icmp-type any"), [is(Match::Proto(1))]);
    let six = exprs(
        "ip6tables-legacy",
        "filter",
        "INPUT",
        "-s 2001:db8::/32 -p icmpv6 --icmpv6-type 135 -j REJECT",
    );
    assert_eq!(
        six,
        [
            is(Match::Src(ip("2001:db8::"), ip("ffff:ffff::"))),
            is(Match::Proto(58)),
            is(Match::IcmpType(135, 0, 255)),
            Expr::Reject { reset: false },
        ]
    );
}

#[test]
fn connections_and_marks() {
    if !alone() {
        return;
    }
    let ip = |s: &str| s.parse().unwrap();
    for (rule, expr) in [
        (
            "-m conntrack --ctstate ESTABLISHED,RELATED",
            is(Match::CtState(6)),
        ),
        (
            "-m conntrack ! --ctstate INVALID,UNTRACKED",
            not(Match::CtState(65)),
        ),
        ("-m conntrack --ctstate DNAT", is(Match::CtState(0x100))),
        ("-m conntrack --ctstate SNAT", is(Match::CtState(0x200))),
        ("-m state --state NEW", is(Match::CtState(8))),
        ("-m conntrack --ctstatus CONFIRMED", is(Match::CtStatus(8))),
        ("-m conntrack --ctdir REPLY", is(Match::CtDirReply(true))),
        ("-m conntrack ! --ctproto 6", not(Match::CtProto(6))),
        (
            "-m conntrack --ctorigdst 10.0.0.0/8",
            is(Match::CtAddr(false, true, ip("10.0.0.0"), ip("255.0.0.0"))),
        ),
        (
            "-p tcp -m conntrack ! --ctreplsrcport 80:90",
            not(Match::CtPort(true, false, 80, 90)),
        ),
        ("-m mark --mark 0x10/0xff", is(Match::Mark(0x10, 0xff))),
        ("-m connmark ! --mark 5", not(Match::Connmark(5, u32::MAX))),
    ] {
        assert_eq!(v4(rule).last(), Some(&expr), "{rule}");
    }
    let mangle = |rule| exprs("iptables-legacy", "mangle", "PREROUTING", rule);
    let mask = 0xff;
    assert_eq!(
        mangle("-j MARK --set-mark 0x5/0xff"),
        [Expr::SetMark { value: 5, mask }]
    );
    let (save, restore) = (false, true);
    assert_eq!(
        mangle("-j CONNMARK --restore-mark --mask 0xff"),
        [Expr::SetConnmark {
            value: 0,
            mask,
            save,
            restore
        }]
    );
    let opaque = mangle("-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff00");
    assert!(matches!(&opaque[..], [Expr::Opaque(_)]), "{opaque:?}");
    let raw = exprs("iptables-legacy", "raw", "PREROUTING", "-j CT --notrack");
    assert_eq!(raw, [Expr::Notrack]);
}

#[test]
fn routes_bridge_ports_and_chance() {
    if !alone() {
        return;
    }
    let local = |src, limit_iif| Match::AddrType {
        src,
        types: 1 << 2,
        limit_iif,
        limit_oif: false,
    };
    let rule = v4("-m addrtype ! --src-type LOCAL --dst-type LOCAL");
    assert_eq!(rule, [not(local(true, false)), is(local(false, false))]);
    let rule = exprs(
        "iptables-legacy",
        "filter",
        "INPUT",
        "-m addrtype --dst-type LOCAL --limit-iface-in",
    );
    assert_eq!(rule, [is(local(false, true))]);
    let port = |iif: Option<&str>, is_in, is_bridged| Match::Physdev {
        iif: iif.map(|name| (name.to_owned(), true)),
        oif: None,
        is_in,
        is_out: None,
        is_bridged,
    };
    assert_eq!(
        v4("-m physdev ! --physdev-is-in ! --physdev-in eth+ --physdev-is-bridged"),
        [
            is(port(None, Some(false), None)),
            not(port(Some("eth"), None, None)),
            is(port(None, None, Some(true))),
        ]
    );
    for (rule, holds) in [
        ("-m limit --limit 5/min", true),
        (
            "-m hashlimit --hashlimit-upto 5/min --hashlimit-name a",
            true,
        ),
        (
            "-m hashlimit --hashlimit-above 5/min --hashlimit-name b",
            false,
        ),
        ("-m recent --update --seconds 60 --hitcount 4", false),
        ("-m recent ! --rcheck", true),
        ("-m connlimit --connlimit-above 10", false),
        ("-m connlimit --connlimit-upto 10", true),
        ("-m quota ! --quota 7", false),
        (
            "-m connbytes --connbytes 1000: --connbytes-mode bytes --connbytes-dir both",
            false,
        ),
    ] {
        let invert = !holds;
        let test = Match::Maybe(rule_text(rule));
        assert_eq!(
            v4(rule).last(),
            Some(&Expr::Match { test, invert }),
            "{rule}"
        );
    }
    assert_eq!(v4("-m recent --set"), [Expr::Nothing]);
    let time = v4("-m bpf --bytecode '1,6 0 0 1'");
    let text = "-m bpf --bytecode \"1,6 0 0 1\"".to_owned();
    assert_eq!(time, [is(Match::Opaque(text))]);
}

/// As iptables-save prints the one rule of the chain.
fn rule_text(rule: &str) -> String {
    sh(&format!(
        "iptables-legacy -F; iptables-legacy -A FORWARD {rule}; \
         iptables-legacy -S FORWARD | sed -n 's/^-A FORWARD //p'"
    ))
    .trim_end()
    .to_owned()
}

#[test]
fn translations() {
    if !alone() {
        return;
    }
    let ip = |s: &str| s.parse().unwrap();
    let to = |kind, addr, port| Expr::Nat { kind, addr, port };
    let tcp = |rule: &str| {
        nat4(
            "PREROUTING",
            &format!("-p tcp -j DNAT --to-destination {rule}"),
        )
    };
    let dnat = |addr, port| [is(Match::Proto(6)), to(NatKind::Destination, addr, port)];
    let one = Some(NatArg::Addr(ip("10.0.0.1")));
    assert_eq!(
        tcp("10.0.0.1:80"),
        dnat(one.clone(), Some(NatArg::Port(80)))
    );
    assert_eq!(tcp("10.0.0.1"), dnat(one.clone(), None));
    assert_eq!(tcp(":81-90"), dnat(None, Some(NatArg::Ports(81, 90))));
    let several = Some(NatArg::Addrs(ip("10.0.0.1"), ip("10.0.0.3")));
    assert_eq!(tcp("10.0.0.1-10.0.0.3"), dnat(several, None));
    let shift = NatArg::PortShift {
        first: 5000,
        last: 5010,
        base: 8000,
    };
    assert_eq!(tcp("10.0.0.1:5000-5010/8000"), dnat(one, Some(shift)));
    let source = NatArg::Addr(ip("192.0.2.1"));
    assert_eq!(
        nat4("POSTROUTING", "-j SNAT --to-source 192.0.2.1"),
        [to(NatKind::Source, Some(source), None)]
    );
    assert_eq!(
        nat4("POSTROUTING", "-j MASQUERADE"),
        [to(NatKind::Masquerade, None, None)]
    );
    assert_eq!(
        nat4("PREROUTING", "-p tcp -j REDIRECT --to-ports 3128").last(),
        Some(&to(NatKind::Redirect, None, Some(NatArg::Port(3128))))
    );
    let net = "10.1.2.0/24".parse().unwrap();
    assert_eq!(
        nat4("PREROUTING", "-j NETMAP --to 10.1.2.0/24"),
        [to(NatKind::Netmap(net), None, None)]
    );
    let six = exprs(
        "ip6tables-legacy",
        "nat",
        "PREROUTING",
        "-p tcp -j DNAT --to-destination [2001:db8::1]:80",
    );
    let addr = Some(NatArg::Addr(ip("2001:db8::1")));
    let kind = NatKind::Destination;
    assert_eq!(six[1], to(kind, addr, Some(NatArg::Port(80))));
}

#[test]
fn bits_of_the_header_and_ends() {
    if !alone() {
        return;
    }
    let (header, dreg, sreg) = (Header::Network, 0, 0);
    let dscp = |offset, len, mask, op, data| {
        let xor = vec![0; len as usize];
        [
            Expr::Payload {
                dreg,
                header,
                offset,
                len,
            },
            Expr::Bitwise {
                sreg,
                dreg,
                mask,
                xor,
            },
            Expr::Cmp { sreg, op, data },
        ]
    };
    assert_eq!(
        v4("-m dscp ! --dscp 0x2e"),
        dscp(1, 1, vec![0xfc], Cmp::Ne, vec![0xb8])
    );
    assert_eq!(
        exprs("ip6tables-legacy", "filter", "INPUT", "-m dscp --dscp 0x2e"),
        dscp(0, 2, vec![0x0f, 0xc0], Cmp::Eq, vec![0x0b, 0x80])
    );
    let reset = true;
    assert_eq!(
        v4("-p tcp -j REJECT --reject-with tcp-reset")[1],
        Expr::Reject { reset }
    );
    let queue = |bypass| [Expr::Verdict(RuleVerdict::Queue(bypass))];
    assert_eq!(v4("-j NFQUEUE --queue-num 3"), queue(false));
    assert_eq!(v4("-j NFQUEUE --queue-bypass"), queue(true));
    assert_eq!(v4("-j LOG"), [Expr::Nothing]);
}
