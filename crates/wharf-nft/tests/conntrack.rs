//! Connection tracking: entries made by the `conntrack` tool, read and removed by the crate.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod common;

use common::{nft_load, private_netns, run};
use std::net::IpAddr;
use wharf_nft::conntrack::{Conntrack, ConntrackFilter, Entry, Flushed, Tuple};
use wharf_nft::{Family, NftError};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace in which connections are tracked, with four entries.
fn tracked() -> Option<Conntrack> {
    if !private_netns() {
        return None;
    }
    nft_load(
        "table inet t {\nchain c {\ntype filter hook output priority 0;\nct state new accept\n}\n}",
    );
    let insert = |args: &str| {
        run(
            "conntrack",
            &format!("-I -t 500 {args}").split(' ').collect::<Vec<_>>(),
            "",
        );
    };
    insert(
        "-s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1000 --dport 80 --state ESTABLISHED -u SEEN_REPLY -m 7",
    );
    insert("-s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1001 --dport 53 --dst-nat 172.18.0.10:5353");
    insert("-s 10.0.0.9 -d 10.0.0.2 -p udp --sport 1002 --dport 53");
    insert("-s fd00::1 -d fd00::2 -p udp --sport 1000 --dport 53");
    Some(Conntrack::open().unwrap())
}

#[test]
fn entries_are_read() {
    let Some(mut ct) = tracked() else { return };
    assert_eq!(ct.count().unwrap(), 4);
    let entries = ct.dump().unwrap();
    let tcp: &Entry = entries.iter().find(|e| e.orig.proto == TCP).unwrap();
    assert_eq!(
        tcp.orig,
        Tuple::ports(TCP, (ip("10.0.0.1"), 1000), (ip("10.0.0.2"), 80))
    );
    assert_eq!(
        tcp.reply,
        Tuple::ports(TCP, (ip("10.0.0.2"), 80), (ip("10.0.0.1"), 1000))
    );
    assert_eq!((tcp.mark, tcp.tcp_state), (Some(7), Some(3)));
    assert!(tcp.status & Entry::SEEN_REPLY != 0 && tcp.timeout.is_some() && tcp.id.is_some());
    let nat = entries
        .iter()
        .find(|e| e.status & Entry::DST_NAT != 0)
        .unwrap();
    assert_eq!(
        (nat.reply.src, nat.reply.sport),
        (ip("172.18.0.10"), Some(5353))
    );
    assert_eq!(
        entries.iter().filter(|e| e.family == Family::Ip6).count(),
        1
    );
}

#[test]
fn one_entry_is_deleted_by_its_tuple_and_id() {
    let Some(mut ct) = tracked() else { return };
    let entry = ct
        .dump()
        .unwrap()
        .into_iter()
        .find(|e| e.family == Family::Ip6)
        .unwrap();
    assert!(
        !ct.delete(&entry.orig, entry.id.map(|id| id ^ 1)).unwrap(),
        "another id is another connection"
    );
    assert!(ct.delete(&entry.orig, entry.id).unwrap());
    assert!(!ct.delete(&entry.orig, entry.id).unwrap());
    assert_eq!(ct.count().unwrap(), 3);
}

#[test]
fn a_filter_selects_exactly() {
    let Some(mut ct) = tracked() else { return };
    let all = ConntrackFilter::new(Family::Ip);
    let cases = [
        (
            ConntrackFilter {
                orig_dst: Some(ip("10.0.0.2")),
                ..all.clone()
            },
            3,
        ),
        (
            ConntrackFilter {
                proto: Some(UDP),
                ..all.clone()
            },
            2,
        ),
        (
            ConntrackFilter {
                proto: Some(UDP),
                orig_dport: Some(53),
                orig_dst: Some(ip("10.0.0.2")),
                ..all.clone()
            },
            2,
        ),
        (
            ConntrackFilter {
                reply_src: Some(ip("172.18.0.10")),
                ..all.clone()
            },
            1,
        ),
        (
            ConntrackFilter {
                proto: Some(UDP),
                reply_sport: Some(5353),
                ..all.clone()
            },
            1,
        ),
        (
            ConntrackFilter {
                proto: Some(TCP),
                orig_dport: Some(53),
                ..all.clone()
            },
            0,
        ),
        (
            ConntrackFilter {
                mark: Some((7, 0xff)),
                ..all.clone()
            },
            1,
        ),
        (
            ConntrackFilter {
                status: Some(Entry::DST_NAT),
                ..all.clone()
            },
            1,
        ),
        (ConntrackFilter::new(Family::Ip6), 1),
        (all, 3),
    ];
    for (filter, wanted) in cases {
        assert_eq!(
            ct.dump_matching(&filter).unwrap().len(),
            wanted,
            "{filter:?}"
        );
    }
    let bad = ConntrackFilter {
        orig_dport: Some(53),
        ..ConntrackFilter::new(Family::Ip)
    };
    assert!(matches!(ct.flush(&bad), Err(NftError::Filter(_))));
    assert_eq!(ct.count().unwrap(), 4);
}

#[test]
fn flush_removes_what_the_filter_selects_and_nothing_else() {
    let Some(mut ct) = tracked() else { return };
    let udp = ConntrackFilter {
        proto: Some(UDP),
        orig_dport: Some(53),
        orig_dst: Some(ip("10.0.0.2")),
        reply_src: Some(ip("172.18.0.10")),
        ..ConntrackFilter::new(Family::Ip)
    };
    let how = ct.flush(&udp).unwrap();
    println!("flush: {how:?}");
    assert_eq!(ct.count().unwrap(), 3);
    assert_eq!(
        ct.flush(&ConntrackFilter {
            status: Some(Entry::DST_NAT),
            ..udp.clone()
        })
        .unwrap(),
        match how {
            Flushed::InKernel => Flushed::InKernel,
            Flushed::OneByOne(_) => Flushed::OneByOne(0),
        }
    );
    assert_eq!(ct.count().unwrap(), 3);
    let mark = ConntrackFilter {
        mark: Some((7, 0xff)),
        ..ConntrackFilter::new(Family::Ip)
    };
    ct.flush(&mark).unwrap();
    assert_eq!(ct.count().unwrap(), 2);
    ct.flush(&ConntrackFilter::new(Family::Ip)).unwrap();
    assert_eq!(
        ct.dump()
            .unwrap()
            .iter()
            .map(|e| e.family)
            .collect::<Vec<_>>(),
        [Family::Ip6]
    );
    ct.flush_one_by_one(&ConntrackFilter::new(Family::Ip6))
        .unwrap();
    assert_eq!(ct.count().unwrap(), 0);
}

#[test]
fn an_ipv6_address_selects_what_has_it_and_not_the_rest() {
    let Some(mut ct) = tracked() else { return };
    run(
        "conntrack",
        &"-I -t 500 -s fd00::1 -d fd00::3 -p udp --sport 1000 --dport 53"
            .split(' ')
            .collect::<Vec<_>>(),
        "",
    );
    let to = |addr: &str| ConntrackFilter {
        proto: Some(UDP),
        orig_dst: Some(ip(addr)),
        orig_dport: Some(53),
        ..ConntrackFilter::new(Family::Ip6)
    };
    assert_eq!(ct.dump_matching(&to("fd00::3")).unwrap().len(), 1);
    assert_eq!(ct.dump_matching(&to("fd00::4")).unwrap().len(), 0);
    ct.flush(&to("fd00::4")).unwrap();
    assert_eq!(ct.count().unwrap(), 5);
    ct.flush(&to("fd00::3")).unwrap();
    let left = ct
        .dump_matching(&ConntrackFilter::new(Family::Ip6))
        .unwrap();
    let left: Vec<_> = left.iter().map(|e| e.orig.dst).collect();
    assert_eq!(left, [ip("fd00::2")]);
}
