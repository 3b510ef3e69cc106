//! What the crate writes, as `nft list ruleset` reads it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod common;

use common::{assert_same, nft_list, private_netns};
use wharf_nft::expr::{Bits, CmpOp, CtKey, Fib, FibResult, MetaKey, PayloadBase, Reject};
use wharf_nft::*;

const INET: Family = Family::Inet;

/// A port publishing table, as small as it can be.
fn publish_table(batch: &mut Batch) {
    let publish = Set::map(
        INET,
        "wharf",
        "publish4",
        &DataType::concat(&[DataType::inet_proto(), DataType::inet_service()]),
        &DataType::concat(&[DataType::ipv4_addr(), DataType::inet_service()]),
    )
    .with_intervals()
    .with_comment("published ports");
    let guard = Set::new(INET, "wharf", "guard", &DataType::ipv4_addr()).with_intervals();
    let net = Set::map(
        INET,
        "wharf",
        "from",
        &DataType::ifname(),
        &DataType::verdict(),
    );
    let mark = Set::new(INET, "wharf", "marks", &DataType::mark());
    let pairs = Set::new(
        INET,
        "wharf",
        "pairs",
        &DataType::concat(&[DataType::ifname(), DataType::ether_addr()]),
    );
    batch
        .add_table(&Table::new(INET, "wharf").with_comment("container networks"))
        .add_set(&publish)
        .add_set(&guard)
        .add_set(&net)
        .add_set(&mark)
        .add_set(&pairs)
        .add_chain(&Chain::new(INET, "wharf", "net1").with_comment("network one"))
        .add_chain(&Chain::new(INET, "wharf", "fwd").with_base(
            ChainType::Filter,
            Hook::Forward,
            0,
            Policy::Drop,
        ))
        .add_chain(&Chain::new(INET, "wharf", "pre").with_base(
            ChainType::Nat,
            Hook::Prerouting,
            -100,
            Policy::Accept,
        ))
        .add_chain(&Chain::new(INET, "wharf", "post").with_base(
            ChainType::Nat,
            Hook::Postrouting,
            100,
            Policy::Accept,
        ));
    let port = |p: u16| [6, 0, 0, 0, p.to_be_bytes()[0], p.to_be_bytes()[1], 0, 0];
    let to = |p: u16| vec![172, 18, 0, 10, p.to_be_bytes()[0], p.to_be_bytes()[1], 0, 0];
    let mut ports: Vec<Element> = Element::range(&publish, port(8080), port(8080))
        .with_data(to(80))
        .into_iter()
        .collect();
    ports.extend(
        Element::range(&publish, port(9000), port(9010))
            .with_data(to(9000))
            .with_comment("range"),
    );
    let mut nets: Vec<Element> = Element::prefix(&guard, [10, 0, 0, 0], 8)
        .with_comment("ten")
        .into_iter()
        .collect();
    nets.extend(Element::range(&guard, [11, 0, 0, 0], [11, 0, 0, 7]));
    nets.extend(Element::prefix(&guard, [255, 0, 0, 0], 8));
    let mut name = [0; 16];
    name[..5].copy_from_slice(b"wharf");
    let jump = Element::new(name)
        .with_data(Verdict::Jump("net1".to_owned()))
        .with_comment("its chain");
    let mut pair = name.to_vec();
    pair.extend([2, 0, 0, 0, 0, 1, 0, 0]);
    batch
        .add_elements(&(&publish).into(), &ports)
        .add_elements(&(&guard).into(), &nets)
        .add_elements(&(&net).into(), &[jump])
        .add_elements(&(&mark).into(), &[Element::new(0x10_u32.to_ne_bytes())])
        .add_elements(&(&pairs).into(), &[Element::new(pair)]);
    publish_rules(batch);
}

fn publish_rules(batch: &mut Batch) {
    let rule = |chain: &str, exprs: Vec<Expr>| Rule::new(INET, "wharf", chain, exprs);
    let (r1, port) = (Reg::R1, Reg::slot(1).unwrap());
    let ip = || {
        vec![
            Expr::meta(MetaKey::NfProto, Reg::R1),
            Expr::cmp(Reg::R1, CmpOp::Eq, [2]),
        ]
    };
    let mut local = ip();
    local.extend([
        Expr::fib(FibResult::AddrType, Fib::DADDR, r1),
        Expr::cmp(r1, CmpOp::Eq, 2_u32.to_ne_bytes()),
        Expr::meta(MetaKey::L4Proto, r1),
        Expr::payload(PayloadBase::Transport, 2, 2, port),
        Expr::lookup_map("publish4", r1, r1),
        Expr::dnat(Family::Ip, r1, Some(port)),
    ]);
    let mut guard = ip();
    guard.extend([
        Expr::payload(PayloadBase::Network, 16, 4, r1),
        Expr::lookup("guard", r1),
        Expr::counter(),
        Expr::verdict(Verdict::Drop),
    ]);
    batch
        .add_rule(&rule("pre", local).with_comment("published"))
        .add_rule(&rule(
            "fwd",
            vec![
                Expr::ct(CtKey::State, None, r1),
                Expr::mask(r1, 6_u32.to_ne_bytes()),
                Expr::cmp(r1, CmpOp::Neq, 0_u32.to_ne_bytes()),
                Expr::verdict(Verdict::Accept),
            ],
        ))
        .add_rule(&rule("fwd", guard))
        .add_rule(&rule(
            "fwd",
            vec![
                Expr::meta(MetaKey::OifName, r1),
                Expr::lookup_map("from", r1, Reg::VERDICT),
            ],
        ))
        .insert_rule(&rule(
            "net1",
            vec![Expr::reject_icmpx(Reject::ICMPX_ADMIN_PROHIBITED)],
        ))
        .add_rule(&rule("post", vec![Expr::masquerade(Bits(0))]));
}

const PUBLISH: &str = r#"
table inet wharf {
    comment "container networks"
    map publish4 {
        type inet_proto . inet_service : ipv4_addr . inet_service
        flags interval
        comment "published ports"
        elements = { tcp . 8080 : 172.18.0.10 . 80,
                 tcp . 9000-9010 comment "range" : 172.18.0.10 . 9000 }
    }
    set guard {
        type ipv4_addr
        flags interval
        elements = { 10.0.0.0/8 comment "ten", 11.0.0.0/29,
                 255.0.0.0/8 }
    }
    map from {
        type ifname : verdict
        elements = { "wharf" comment "its chain" : jump net1 }
    }
    set marks {
        type mark
        elements = { 0x00000010 }
    }
    set pairs {
        type ifname . ether_addr
        elements = { "wharf" . 02:00:00:00:00:01 }
    }
    chain net1 {
        comment "network one"
        reject with icmpx admin-prohibited
    }
    chain fwd {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip daddr @guard counter drop
        oifname vmap @from
    }
    chain pre {
        type nat hook prerouting priority dstnat; policy accept;
        meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish4 comment "published"
    }
    chain post {
        type nat hook postrouting priority srcnat; policy accept;
        masquerade
    }
}
"#;

#[test]
fn nft_reads_what_was_written() {
    if !private_netns() {
        return;
    }
    let mut batch = Batch::new();
    publish_table(&mut batch);
    NfSocket::open().unwrap().commit(&batch).unwrap();
    assert_same(&nft_list(), PUBLISH);
}

#[test]
fn a_range_is_removed_by_what_made_it() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let set = Set::new(INET, "t", "s", &DataType::inet_service()).with_intervals();
    let name = SetRef::from(&set);
    let range = |a: u16, b: u16| {
        Element::range(&set, a.to_be_bytes(), b.to_be_bytes())
            .into_iter()
            .collect::<Vec<_>>()
    };
    let mut batch = Batch::new();
    batch.add_table(&Table::new(INET, "t")).add_set(&set);
    for (a, b) in [(100, 199), (200, 299), (80, 80), (300, 300), (65000, 65535)] {
        batch.create_elements(&name, &range(a, b));
    }
    socket.commit(&batch).unwrap();
    let mut batch = Batch::new();
    batch
        .del_elements(&name, &range(200, 299))
        .del_elements(&name, &range(80, 80));
    socket.commit(&batch).unwrap();
    let elements = socket.dump_elements(&name).unwrap();
    let found: Vec<_> = intervals(&set, &elements)
        .into_iter()
        .map(|(a, b, _)| (a.to_vec(), b))
        .collect();
    let pair = |a: u16, b: u16| (a.to_be_bytes().to_vec(), b.to_be_bytes().to_vec());
    assert_eq!(found, [pair(100, 199), pair(300, 300), pair(65000, 65535)]);
    assert!(
        nft_list().contains("elements = { 100-199, 300, 65000-65535 }"),
        "{}",
        nft_list()
    );
}

#[test]
fn sixty_thousand_elements_in_one_transaction() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let key = DataType::concat(&[DataType::ipv4_addr(), DataType::inet_service()]);
    let set = Set::new(INET, "t", "many", &key);
    let element = |i: u32| {
        Element::new([&i.to_be_bytes()[..], &[0, 80, 0, 0]].concat()).with_comment("a comment")
    };
    let elements: Vec<Element> = (0..60_000).map(element).collect();
    let mut batch = Batch::new();
    batch
        .add_table(&Table::new(INET, "t"))
        .add_set(&set)
        .add_elements(&(&set).into(), &elements);
    let start = std::time::Instant::now();
    match socket.commit(&batch) {
        Ok(()) => {}
        Err(NftError::TooLarge { bytes }) => {
            return println!("SKIPPED: not privileged to send {bytes} bytes at once");
        }
        Err(error) => panic!("{error}"),
    }
    println!("{} messages, commit {:?}", batch.len(), start.elapsed());
    let mut read = socket.dump_elements(&(&set).into()).unwrap();
    read.sort_by(|a, b| a.key.cmp(&b.key));
    for (got, wanted) in read.iter().zip(&elements) {
        assert_eq!(got, wanted);
    }
    assert_eq!(read.len(), elements.len());
}

#[test]
fn errors_name_the_message_and_the_kernels_reason() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let mut batch = Batch::new();
    let set = SetRef::new(INET, "wharf", "missing");
    batch
        .add_table(&Table::new(INET, "wharf"))
        .add_elements(&set, &[Element::new([1, 2, 3, 4])]);
    let error = socket.commit(&batch).unwrap_err();
    let NftError::Refused {
        index,
        label,
        errno,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (*index, label.as_str(), *errno),
        (Some(1), "add element inet wharf missing", libc::ENOENT)
    );
    assert_eq!(
        error.to_string(),
        "cannot add element inet wharf missing: No such file or directory (os error 2)"
    );
    assert_eq!(nft_list(), "", "nothing of a refused batch stays");
    let mut batch = Batch::new();
    batch.add_chain(&Chain::new(Family::Arp, "t", "c").with_base(
        ChainType::Filter,
        Hook::Forward,
        0,
        Policy::Accept,
    ));
    assert!(matches!(
        socket.commit(&batch),
        Err(NftError::Unencodable { index: 0, .. })
    ));
    let mut batch = Batch::new();
    batch.add_table(&Table::new(INET, "x".repeat(300)));
    let error = socket.commit(&batch).unwrap_err();
    let NftError::Refused {
        index: Some(0),
        errno,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(errno, libc::ERANGE);
    assert!(
        socket.generation().is_ok(),
        "the socket is still in step after errors"
    );
}

#[test]
fn a_stale_generation_is_told_apart() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let old = socket.generation().unwrap();
    let mut batch = Batch::new();
    batch
        .add_table(&Table::new(INET, "one"))
        .expect_generation(old);
    socket.commit(&batch).unwrap();
    let error = socket.commit(&batch).unwrap_err();
    assert!(
        matches!(error, NftError::StaleGeneration { expected } if expected == old),
        "{error:?}"
    );
    batch.expect_generation(socket.generation().unwrap());
    socket.commit(&batch).unwrap();
    let mut check = Batch::new();
    check.expect_generation(old);
    assert!(matches!(
        socket.commit(&check),
        Err(NftError::StaleGeneration { .. })
    ));
}

#[test]
fn destroy_is_content_with_nothing_there() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let set = SetRef::new(INET, "t", "s");
    let mut batch = Batch::new();
    batch
        .destroy_table(INET, "none")
        .add_table(&Table::new(INET, "t"))
        .destroy_chain(INET, "t", "c")
        .destroy_set(&set);
    match socket.commit(&batch) {
        Err(NftError::Refused {
            errno: libc::EINVAL,
            ..
        }) => println!("SKIPPED: kernel before 6.3"),
        other => other.unwrap(),
    }
    let mut batch = Batch::new();
    batch.del_table(INET, "none");
    assert_eq!(
        socket.commit(&batch).unwrap_err().errno(),
        Some(libc::ENOENT)
    );
}

#[test]
fn netdev_chains_and_positions() {
    if !private_netns() {
        return;
    }
    let mut socket = NfSocket::open().unwrap();
    let mut batch = Batch::new();
    let mut chain = Chain::new(Family::Netdev, "n", "in").with_base(
        ChainType::Filter,
        Hook::Ingress,
        -5,
        Policy::Accept,
    );
    chain.base.as_mut().unwrap().devices = vec!["lo".to_owned()];
    let rule = |v| {
        Rule::new(
            Family::Netdev,
            "n",
            "in",
            vec![Expr::counter(), Expr::verdict(v)],
        )
    };
    batch
        .add_table(&Table::new(Family::Netdev, "n"))
        .add_chain(&chain)
        .add_rule(&rule(Verdict::Drop));
    socket.commit(&batch).unwrap();
    let first = socket.dump_rules().unwrap()[0].handle;
    let mut batch = Batch::new();
    batch
        .insert_rule(&Rule {
            position: first,
            ..rule(Verdict::Accept)
        })
        .add_rule(&rule(Verdict::Continue));
    socket.commit(&batch).unwrap();
    let wanted = "table netdev n {\nchain in {\ntype filter hook ingress device \"lo\" priority filter - 5; policy accept;
        counter accept\ncounter drop\ncounter continue\n}\n}";
    assert_same(&nft_list(), wanted);
    let mut batch = Batch::new();
    batch
        .del_rule(Family::Netdev, "n", "in", first.unwrap())
        .flush_chain(Family::Netdev, "n", "in");
    batch.del_chain(Family::Netdev, "n", "in");
    socket.commit(&batch).unwrap();
    assert_same(&nft_list(), "table netdev n {\n}");
}
