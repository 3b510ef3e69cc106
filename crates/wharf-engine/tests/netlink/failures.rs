//! What is told when something goes wrong, and what is left then.

use wharf_core::diff::diff;
use wharf_core::model::{Link, LinkKind, Netns, RouteMore};
use wharf_core::nft::{Change, Object, Table};
use wharf_core::op::{Op, RouteOp};
use wharf_core::publish::Protocol;
use wharf_engine::kernel::netlink::NetlinkKernel;
use wharf_engine::kernel::{Kernel, execute};

use super::attach::{OUTSIDE, desired};
use super::{alone, sh};

fn bridge(name: &str) -> Op {
    Op::LinkAdd(Link {
        netns: Netns::Host,
        name: name.parse().unwrap(),
        kind: LinkKind::Bridge,
        mac: None,
        mtu: None,
        master: None,
        group: 0,
        up: false,
    })
}

fn addr(link: &str, addr: &str) -> Op {
    Op::AddrAdd {
        netns: Netns::Host,
        link: link.parse().unwrap(),
        addr: addr.parse().unwrap(),
    }
}

fn up(link: &str, up: bool) -> Op {
    Op::LinkUp {
        netns: Netns::Host,
        link: link.parse().unwrap(),
        up,
    }
}

fn del(link: &str) -> Op {
    Op::LinkDel {
        netns: Netns::Host,
        link: link.parse().unwrap(),
    }
}

fn sysctl(key: &str, value: &str) -> Op {
    Op::SysctlSet {
        netns: Netns::Host,
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn what_was_sent_together_is_told_truly() {
    if !alone() {
        return;
    }
    let ops = [
        bridge("br0"),
        addr("br0", "10.0.0.1/24"),
        addr("br0", "10.0.0.1/24"),
        up("br0", true),
        sysctl("net/ipv4/conf/br0/forwarding", "1"),
        bridge("br1"),
    ];
    let mut kernel = NetlinkKernel::new();
    let error = kernel.apply(&ops.iter().collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.applied, [true, true, false, true, false, false]);
    assert_eq!(error.error.errno, libc::EEXIST);
    assert_eq!(*error.error.op, ops[2]);
    let links = sh("ip -o link; ip -o addr");
    assert!(links.contains("br0") && links.contains("10.0.0.1/24"));
    assert!(links.contains(",UP"), "{links}");
    assert!(!links.contains("br1"), "{links}");

    let lost = [addr("nowhere", "10.0.0.2/24")];
    let error = kernel.apply(&lost.iter().collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.error.errno, libc::ENODEV);
    assert!(
        error.error.to_string().contains("no link nowhere"),
        "{}",
        error.error
    );

    let far = [Op::RouteAdd(RouteOp {
        netns: Netns::Host,
        dst: "10.9.0.0/16".parse().unwrap(),
        via: Some("192.0.2.1".parse().unwrap()),
        more: RouteMore::default(),
        link: "br0".parse().unwrap(),
        metric: None,
        replace: false,
    })];
    let error = kernel.apply(&far.iter().collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.error.errno, libc::ENETUNREACH);
    assert!(
        error.error.to_string().contains("gateway"),
        "{}",
        error.error
    );

    let odd = [sysctl("net/ipv4/conf/br0/nothing", "1")];
    let error = kernel.apply(&odd.iter().collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.error.errno, libc::ENOENT);
}

#[test]
fn removing_what_is_not_there_succeeds() {
    if !alone() {
        return;
    }
    let plan = diff(&[], &desired(), "");
    let ops: Vec<&Op> = plan.steps.iter().map(|s| &s.op).collect();
    let mut kernel = NetlinkKernel::new();
    kernel.apply(&ops).unwrap();
    sh("ip link add br0 type bridge");
    let (link, ip) = ("br0".parse().unwrap(), "10.0.0.1".parse().unwrap());
    let mac = "02:00:00:00:00:01".parse().unwrap();
    let gone = Netns::Path("/run/netns/gone".into());
    let route = |netns: &Netns| {
        Op::RouteDel(RouteOp {
            netns: netns.clone(),
            dst: "10.9.0.0/16".parse().unwrap(),
            via: Some(ip),
            more: RouteMore::default(),
            link: "br0".parse().unwrap(),
            metric: None,
            replace: false,
        })
    };
    let ops = [
        Op::AddrDel {
            netns: Netns::Host,
            link: "br0".parse().unwrap(),
            addr: "10.0.0.1/24".parse().unwrap(),
        },
        Op::NeighDel {
            link: "br0".parse().unwrap(),
            addr: ip,
        },
        Op::FdbDel { link, mac },
        route(&Netns::Host),
        route(&gone),
        Op::LinkDel {
            netns: gone.clone(),
            link: "eth0".parse().unwrap(),
        },
        Op::LinkUp {
            netns: gone,
            link: "eth0".parse().unwrap(),
            up: false,
        },
        up("nothing", false),
        Op::Nft(vec![
            Change::Del(Object::Table(Table::Inet)),
            Change::Add(Object::Table(Table::Bridge)),
        ]),
        Op::NetnsDel("/run/netns/gone".into()),
        Op::ConntrackFlush {
            protocol: Protocol::Udp,
            host_ip: None,
            first: 53,
            last: 60,
        },
    ];
    kernel.apply(&ops.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(sh("nft list tables").trim(), "table bridge wharf");
}

#[test]
fn links_are_gone_when_deletion_returns() {
    if !alone() {
        return;
    }
    for wait in [false, true] {
        let mut kernel = NetlinkKernel::new();
        kernel.wait_for_deletions(wait);
        for count in [1, 2, 30] {
            let names: Vec<String> = (0..count).map(|n| format!("br{n}")).collect();
            let make: Vec<Op> = names.iter().map(|n| bridge(n)).collect();
            let mut remove: Vec<Op> = names.iter().map(|n| del(n)).collect();
            remove.insert(1, del("nothing"));
            kernel.apply(&make.iter().collect::<Vec<_>>()).unwrap();
            kernel.apply(&remove.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(sh("ip -o link | wc -l").trim(), "1");
        }
        let ops = [Op::LinkDel {
            netns: Netns::Host,
            link: wharf_core::name::IfName::loopback(),
        }];
        let error = kernel.apply(&ops.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error.error.errno, libc::EOPNOTSUPP, "{}", error.error);
        assert_eq!(error.applied, [false]);
    }
}

#[test]
fn a_plan_that_fails_in_the_middle_leaves_nothing() {
    if !alone() {
        return;
    }
    sh(OUTSIDE);
    let look = || {
        sh(
            "ip -o link; ip -o addr | sed 's/tentative *//; s/valid_lft.*//'; ip netns; nft list ruleset",
        )
    };
    let before = look();
    let mut plan = diff(&desired(), &[], "");
    let at = plan.steps.len() - 2;
    plan.steps[at].op = addr("nowhere", "10.0.0.1/24");
    let mut kernel = NetlinkKernel::new();
    let error = execute(&mut kernel, &plan).unwrap_err();
    assert!(error.left.is_empty(), "{:?}", error.left);
    assert_eq!(error.done, at);
    assert_eq!(error.undone, error.done);
    drop(kernel);
    assert_eq!(before, look());
}
