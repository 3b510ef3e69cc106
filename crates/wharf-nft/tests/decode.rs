//! What `nft` and `iptables` load, as the crate reads it; and read, removed, written again, it must list the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod common;

use common::{assert_same, load_corpus, nft_list, nft_load, private_netns, run};
use wharf_nft::expr::*;
use wharf_nft::*;

/// A batch that makes `ruleset` again after its tables are deleted.
fn replay(ruleset: &Ruleset) -> Batch {
    let mut batch = Batch::new();
    for table in &ruleset.tables {
        batch.del_table(table.family, &table.name).add_table(table);
    }
    for object in &ruleset.objects {
        batch.add_object(object);
    }
    for (set, _) in &ruleset.sets {
        batch.add_set(set);
    }
    for chain in &ruleset.chains {
        batch.add_chain(chain);
    }
    for (set, elements) in &ruleset.sets {
        batch.add_elements(&set.into(), elements);
    }
    // The kernel takes rules of an anonymous chain only until a rule jumps to it.
    let anonymous = |r: &&Rule| {
        ruleset
            .chain(r.family, &r.table, &r.chain)
            .is_some_and(|c| c.flags.has(ChainFlags::BINDING))
    };
    let (first, then): (Vec<_>, Vec<_>) = ruleset.rules.iter().partition(anonymous);
    for rule in first.into_iter().chain(then) {
        batch.add_rule(&Rule {
            position: None,
            compat: rule.infer_compat(),
            ..rule.clone()
        });
    }
    batch
}

/// Without what differs each time it is loaded.
fn stable(mut ruleset: Ruleset) -> Ruleset {
    ruleset.generation = 0;
    ruleset.tables.iter_mut().for_each(|t| t.handle = None);
    ruleset.chains.iter_mut().for_each(|c| c.handle = None);
    ruleset.objects.iter_mut().for_each(|o| o.handle = None);
    for rule in &mut ruleset.rules {
        (rule.handle, rule.position) = (None, None);
    }
    for (set, elements) in &mut ruleset.sets {
        set.handle = None;
        elements.sort_by(|a, b| (&a.key, a.flags.0).cmp(&(&b.key, b.flags.0)));
    }
    ruleset
}

#[track_caller]
fn assert_survives() {
    let mut socket = NfSocket::open().unwrap();
    let (before, listed) = (socket.ruleset().unwrap(), nft_list());
    let unknown = before
        .rules
        .iter()
        .flat_map(|r| &r.exprs)
        .find(|e| matches!(e, Expr::Unknown { .. }));
    assert!(unknown.is_none(), "not decoded: {unknown:?}");
    socket.commit(&replay(&before)).unwrap();
    assert_same(&nft_list(), &listed);
    assert_eq!(stable(socket.ruleset().unwrap()), stable(before));
}

#[test]
fn everything_survives_being_read_and_written() {
    if !private_netns() {
        return;
    }
    load_corpus();
    assert_survives();
}

#[test]
fn published_ports_are_read_as_they_are_meant() {
    if !private_netns() {
        return;
    }
    load_corpus();
    let mut socket = NfSocket::open().unwrap();
    // meta nfproto ipv4 dnat ip to meta l4proto . th dport map @to, which nft 1.0.6 prints but does not take.
    let (r1, port) = (Reg::R1, Reg::slot(1).unwrap());
    let dnat = vec![
        Expr::meta(MetaKey::NfProto, r1),
        Expr::cmp(r1, CmpOp::Eq, [2]),
        Expr::meta(MetaKey::L4Proto, r1),
        Expr::payload(PayloadBase::Transport, 2, 2, port),
        Expr::lookup_map("to", r1, r1),
        Expr::dnat(Family::Ip, r1, Some(port)),
    ];
    let mut batch = Batch::new();
    batch.insert_rule(
        &Rule::new(Family::Inet, "wharf", "pre", dnat.clone()).with_comment("published"),
    );
    socket.commit(&batch).unwrap();
    let ruleset = socket.ruleset().unwrap();
    let rule = ruleset
        .rules_of(Family::Inet, "wharf", "pre")
        .next()
        .unwrap();
    assert_eq!(rule.comment().as_deref(), Some("published"));
    assert_eq!(rule.exprs[..5], dnat[..5]);
    let Expr::Nat(nat) = &rule.exprs[5] else {
        panic!("{rule:?}")
    };
    assert_eq!(
        (nat.kind, nat.addr_min, nat.proto_min),
        (NatType::Dnat, Some(r1), Some(port))
    );
    println!("what the kernel adds to dnat: {nat:?}");
    let (map, elements) = ruleset.set(Family::Inet, "wharf", "to").unwrap();
    assert_eq!(map.interval_style(), IntervalStyle::KeyEnd);
    assert_eq!(map.fields, [1, 2]);
    let mut ranges = intervals(map, elements);
    ranges.sort_by_key(|(first, ..)| first.to_vec());
    let (first, last, element) = &ranges[1];
    assert_eq!(
        (*first, last.as_slice()),
        (
            &[17, 0, 0, 0, 3, 232, 0, 0][..],
            &[17, 0, 0, 0, 7, 208, 0, 0][..]
        )
    );
    assert_eq!(
        element.data,
        Some(Data::Value(vec![10, 0, 0, 2, 3, 232, 0, 0]))
    );
    let (nets, elements) = ruleset.set(Family::Inet, "wharf", "nets").unwrap();
    let ranges: Vec<_> = intervals(nets, elements)
        .into_iter()
        .map(|(a, b, _)| (a.to_vec(), b))
        .collect();
    assert_eq!(
        ranges,
        [
            (vec![0, 0, 0, 0], vec![0, 255, 255, 255]),
            (vec![10, 0, 0, 0], vec![10, 255, 255, 255]),
            (vec![192, 168, 0, 1], vec![192, 168, 0, 9]),
            (vec![224, 0, 0, 0], vec![255, 255, 255, 255]),
        ]
    );
    assert_eq!(nets.comment().as_deref(), Some("ranges"));
    let chain = ruleset
        .chain(Family::Ip, "four", "f")
        .unwrap()
        .base
        .as_ref()
        .unwrap();
    assert_eq!(
        (chain.hook, chain.priority, chain.policy),
        (Hook::Forward, -5, Policy::Drop)
    );
    let verdicts = &ruleset.set(Family::Inet, "wharf", "verdicts").unwrap().1;
    assert!(
        verdicts
            .iter()
            .any(|e| e.data == Some(Verdict::Jump("sub".to_owned()).into()))
    );
}

#[test]
fn iptables_rules_survive() {
    if !private_netns() {
        return;
    }
    for line in [
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp -m multiport --dports 80,443,8000:8010 -m comment --comment web -j ACCEPT",
        "-A INPUT -m mark --mark 0x1/0xff -j MARK --set-mark 0x10",
        "-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
        "-t nat -A POSTROUTING -s 10.0.0.0/8 ! -o wharf0 -j MASQUERADE",
        "-A INPUT -p tcp --syn -m limit --limit 5/min -j LOG --log-prefix iptables:",
        "-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable",
        "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        run("iptables-nft", &args, "");
    }
    let six = "-A FORWARD -m conntrack --ctstate NEW -m addrtype --dst-type UNICAST -p tcp -m multiport --ports 1,2 -j DROP";
    run("ip6tables-nft", &six.split(' ').collect::<Vec<_>>(), "");
    let rules = NfSocket::open().unwrap().dump_rules().unwrap();
    let find = |name: &str| {
        let exprs = rules.iter().flat_map(|r| &r.exprs);
        exprs
            .filter_map(|e| {
                if let Expr::Match(m) = e {
                    Some(m)
                } else {
                    None
                }
            })
            .find(|m| m.name == name)
    };
    for name in ["addrtype", "conntrack", "multiport", "physdev"] {
        assert!(find(name).is_some_and(|m| !m.info.0.is_empty()), "{name}");
    }
    let before = run("iptables-nft-save", &[], "") + &run("ip6tables-nft-save", &[], "");
    assert_survives();
    let without_dates = |s: &str| {
        s.lines()
            .filter(|l| !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let after = run("iptables-nft-save", &[], "") + &run("ip6tables-nft-save", &[], "");
    assert_same(&without_dates(&after), &without_dates(&before));
}

#[test]
fn a_ruleset_is_read_at_one_generation_while_others_write() {
    if !private_netns() {
        return;
    }
    let mut writer = NfSocket::open().unwrap();
    let mut reader = NfSocket::open().unwrap();
    let family = Family::Inet;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::spawn(move || {
        for n in 0_u32.. {
            if seen.load(std::sync::atomic::Ordering::Relaxed) {
                return n;
            }
            let mut batch = Batch::new();
            batch
                .add_table(&Table::new(family, "t"))
                .del_table(family, "t")
                .add_table(&Table::new(family, "t"));
            for name in ["a", "b"] {
                let set = Set::new(family, "t", name, &DataType::mark());
                batch
                    .add_set(&set)
                    .add_elements(&(&set).into(), &[Element::new(n.to_ne_bytes())]);
            }
            writer.commit(&batch).unwrap();
            // Mostly busy, with a moment now and then in which a busy machine gets through.
            let pause = if n % 8 == 7 { 20_000 } else { 500 };
            std::thread::sleep(std::time::Duration::from_micros(pause));
        }
        0
    });
    let (mut good, mut unsettled) = (0, 0);
    // On a busy machine the writer may begin when all has been read.
    for _ in 0..2000 {
        if reader.generation().is_ok_and(|now| now > 1) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for _ in 0..200 {
        match reader.ruleset() {
            Ok(ruleset) if ruleset.sets.is_empty() => {}
            Ok(ruleset) => {
                assert_eq!(
                    ruleset.sets[0].1, ruleset.sets[1].1,
                    "two sets of different generations"
                );
                good += 1;
            }
            Err(NftError::Unsettled) => unsettled += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    println!(
        "{good} read, {unsettled} gave up, {} writes",
        thread.join().unwrap()
    );
    assert!(good > 0);
    nft_load("flush ruleset");
}
