//! The guard of bridge ports: what a container may claim about itself.
//!
//! A port's own source MAC is checked by the bridge (`locked`, a static entry); here it is bound to the addresses that go
//! with it, in IPv4, ARP and IPv6, and what only routers and servers say is dropped. Frames with VLAN tags are of none of
//! these types. TCP comes first in every chain, for it is what must be fast, and TCP of IPv4 is let through before anything
//! is asked about the port: `guard4` has what containers may say, and the lock keeps each to its own.

use crate::model::PORT_GROUP;
use crate::nft::build::{is, not, rule, saddr, within};
use crate::nft::{Action, Chain, Hook, Key, Match, Rule, Table, Test, Value};

use super::base::{chain, goto, jump, net};

/// Before `NF_BR_PRI_FILTER_BRIDGED` (-200), and before br_netfilter (0).
const PRIORITY: i32 = -250;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const PIM: u8 = 103;
/// Reserved (IANA): where nothing matches it, the kernel does not know the protocol.
const NO_PROTOCOL: u8 = 255;

fn l4(proto: u8) -> Match {
    is(Key::L4Proto, Value::U8(proto))
}

fn ether(proto: u16) -> Match {
    is(Key::EtherType, Value::U16(proto))
}

fn icmpv6(kind: u8) -> Match {
    is(Key::Icmpv6Type, Value::U8(kind))
}

fn drop(matches: impl IntoIterator<Item = Match>) -> Rule {
    rule(matches, Action::Drop)
}

fn accept(matches: impl IntoIterator<Item = Match>) -> Rule {
    rule(matches, Action::Accept)
}

fn own4() -> Match {
    within(&[Key::EtherSaddr, Key::IpSaddr], "guard4")
}

fn guarded(keys: [Key; 2]) -> Match {
    within(&keys, "guard6")
}

fn unguarded(keys: [Key; 2]) -> Match {
    Match {
        keys: keys.to_vec(),
        test: Test::NotIn("guard6"),
    }
}

/// Chains that are called come before those that call them.
pub(super) fn chains() -> Vec<Chain> {
    let ours = Match {
        keys: vec![Key::IifGroup],
        test: Test::Masked {
            mask: !1,
            value: PORT_GROUP,
        },
    };
    let chain = |name, rules| chain(Table::Bridge, name, None, rules);
    vec![
        chain("guard_ip", ip()),
        chain("guard_asks", asks()),
        chain("guard_answers", answers()),
        chain("guard_icmpv6", of_routers()),
        chain("guard_ip6", ip6()),
        chain("guard", by_type()),
        super::base::chain(
            Table::Bridge,
            "ports",
            Some((false, Hook::Prerouting, PRIORITY)),
            vec![
                accept([ether(0x0800), l4(TCP), own4()]),
                rule([ours], goto("guard")),
            ],
        ),
    ]
}

fn by_type() -> Vec<Rule> {
    vec![
        rule([ether(0x0800), own4()], goto("guard_ip")),
        accept([
            ether(0x0806),
            is(Key::ArpHtype, Value::U16(1)),
            is(Key::ArpPtype, Value::U16(0x0800)),
            within(&[Key::ArpSaddrEther, Key::ArpSaddrIp], "guard4"),
        ]),
        rule([ether(0x86dd)], goto("guard_ip6")),
        drop([]),
    ]
}

/// What only servers and routers say: answers of DHCP servers, which may come from any port (RFC 2131, 4.1); redirects and
/// router advertisements (RFC 792, RFC 1256); questions about groups (RFC 3376), and by which bridges find multicast
/// routers (RFC 4286, RFC 7761).
fn ip() -> Vec<Rule> {
    vec![
        drop([l4(UDP), is(Key::ThDport, Value::U16(68))]),
        accept([l4(UDP)]),
        drop([l4(ICMP), is(Key::IcmpType, Value::U8(5))]),
        drop([l4(ICMP), is(Key::IcmpType, Value::U8(9))]),
        drop([l4(IGMP), is(Key::IgmpType, Value::U8(0x11))]),
        drop([l4(IGMP), is(Key::IgmpType, Value::U8(0x30))]),
        drop([l4(PIM)]),
        accept([]),
    ]
}

fn ip6() -> Vec<Rule> {
    let own = || guarded([Key::EtherSaddr, Key::Ip6Saddr]);
    vec![
        accept([l4(TCP), own()]),
        rule([l4(ICMPV6)], jump("guard_icmpv6")),
        drop([l4(UDP), is(Key::ThDport, Value::U16(546))]),
        drop([l4(PIM)]),
        // Where the protocol is not known, its header may be in another fragment (RFC 7112).
        accept([not(Key::L4Proto, Value::U8(NO_PROTOCOL)), own()]),
        // Before it has an address a host reports its groups.
        accept([saddr(net("::/128")), icmpv6(143)]),
        drop([]),
    ]
}

/// The same for ICMPv6 (RFC 4861, RFC 2710, RFC 4286); neighbour discovery has chains of its own.
fn of_routers() -> Vec<Rule> {
    vec![
        // Nobody answers solicitations of routers here; by their hardware address the host would be told a lie.
        drop([icmpv6(133)]),
        drop([icmpv6(134)]),
        drop([icmpv6(137)]),
        drop([icmpv6(130)]),
        drop([icmpv6(151)]),
        rule([icmpv6(135)], goto("guard_asks")),
        rule([icmpv6(136)], goto("guard_answers")),
    ]
}

/// Neighbour discovery has no extension headers and comes in one piece (RFC 6980): what is checked is what is read.
fn bare() -> Rule {
    drop([not(Key::Ip6NextHeader, Value::U8(ICMPV6))])
}

/// Solicitations: who has no address yet asks for his own; others give their own hardware address, or none.
fn asks() -> Vec<Rule> {
    let unspecified = || saddr(net("::/128"));
    vec![
        bare(),
        accept([unspecified(), guarded([Key::EtherSaddr, Key::NdTarget])]),
        drop([unspecified()]),
        drop([not(Key::NdOption, Value::U16(0x0101))]),
        drop([unguarded([Key::NdLinkAddr, Key::Ip6SaddrBare])]),
    ]
}

/// Advertisements: for own addresses, with the own hardware address or none.
fn answers() -> Vec<Rule> {
    vec![
        bare(),
        drop([unguarded([Key::EtherSaddr, Key::NdTarget])]),
        drop([not(Key::NdOption, Value::U16(0x0201))]),
        drop([unguarded([Key::NdLinkAddr, Key::NdTarget])]),
    ]
}
