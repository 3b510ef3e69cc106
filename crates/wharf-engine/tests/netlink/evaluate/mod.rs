//! The evaluator against the kernel: rulesets that `nft` and `iptables` load, real packets through them, and what the
//! evaluator says of the same packets with the rules as they were dumped.
//!
//! `a` and `b` are namespaces on either side of the host. A table of this test's own, last at every hook, notes mark,
//! addresses and ports of each packet that comes through; source ports tell the packets apart.

mod cases;
mod text;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::trace::env::{CtState, Ending, Env, Fib, Layer, Run};
use wharf_core::trace::eval::Rules;
use wharf_core::trace::ruleset::{Hook, Ruleset};
use wharf_core::trace::state::{Address, Link, Space, Tuple};
use wharf_core::trace::{L4, Packet};
use wharf_engine::observe::rules;
use wharf_nft::conntrack::{Conntrack, ConntrackFilter};

use super::{alone, sh};
use witness::{HOOKS, Pass};

const SETUP: &str = "
mkdir -p /run/netns; ip netns add a; ip netns add b
for n in a b; do
    ip link add v$n type veth peer name eth0 netns $n
    ip link set v$n up; ip -n $n link set eth0 up; ip -n $n link set lo up
done
ip addr add 10.0.1.1/24 dev va; ip addr add fd00:1::1/64 dev va nodad
ip addr add 10.0.2.1/24 dev vb; ip addr add 10.0.2.9/24 dev vb; ip addr add fd00:2::1/64 dev vb nodad
ip -n a addr add 10.0.1.2/24 dev eth0; ip -n a addr add fd00:1::2/64 dev eth0 nodad
ip -n b addr add 10.0.2.2/24 dev eth0; ip -n b addr add fd00:2::2/64 dev eth0 nodad
ip -n a route add default via 10.0.1.1; ip -n a route add default via fd00:1::1
ip -n b route add default via 10.0.2.1; ip -n b route add default via fd00:2::1
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link set va address 02:00:00:00:01:01; ip -n a link set eth0 address 02:00:00:00:01:02
for t in 10.0.2.2 10.0.2.3 fd00:2::2; do
    ip neigh replace $t dev vb lladdr $(ip netns exec b cat /sys/class/net/eth0/address)
done
for t in 10.0.1.1 fd00:1::1; do ip -n a neigh replace $t dev eth0 lladdr 02:00:00:00:01:01; done
for t in 10.0.1.2 fd00:1::2; do ip neigh replace $t dev va lladdr 02:00:00:00:01:02; done
ip netns exec b nft 'add table inet d; add chain inet d p { type filter hook prerouting priority -300; policy drop; }'
";

/// What is sent: from `a` or from the host, with what, to where.
const SENT: &[(bool, L4, &str, u16)] = &[
    (true, L4::Udp, "10.0.2.2", 53),
    (true, L4::Tcp, "10.0.2.2", 80),
    (true, L4::Tcp, "10.0.2.2", 8080),
    (true, L4::Icmp, "10.0.2.2", 0),
    (true, L4::Udp, "10.0.1.1", 53),
    (true, L4::Tcp, "10.0.1.1", 22),
    (true, L4::Tcp, "fd00:2::2", 80),
    (true, L4::Udp, "fd00:2::2", 53),
    (true, L4::Udp, "fd00:1::1", 53),
    (false, L4::Udp, "10.0.2.2", 53),
    (false, L4::Tcp, "10.0.2.2", 80),
    (false, L4::Tcp, "fd00:2::2", 80),
];

/// The first packet's source port.
const PORT: u16 = 40000;

fn packets() -> Vec<(bool, Packet)> {
    let all = SENT.iter().zip(PORT..);
    let packet = |((from_a, l4, dst, dport), sport): (&(bool, L4, &str, u16), u16)| {
        let dst: IpAddr = dst.parse().unwrap();
        let src = match (from_a, dst.is_ipv4()) {
            (true, true) => "10.0.1.2",
            (true, false) => "fd00:1::2",
            (false, true) => "10.0.2.1",
            (false, false) => "fd00:2::1",
        };
        let ip = if dst.is_ipv4() { 20 } else { 40 };
        let above = match l4 {
            L4::Tcp => 40,
            L4::Udp => 12,
            L4::Icmp => 8,
        };
        let mac = |last| Some(wharf_core::addr::Mac([2, 0, 0, 0, 1, last]));
        let packet = Packet {
            src: src.parse().unwrap(),
            dst,
            l4: *l4,
            sport,
            dport: *dport,
            reply: false,
            ttl: 64,
            len: ip + above,
            mark: 0,
            tos: 0,
            src_mac: mac(2),
            dst_mac: mac(1),
            arp: None,
        };
        (*from_a, packet)
    };
    all.map(packet).collect()
}

/// Sends one side's packets, all at once.
fn send(from_a: bool) {
    let sent: Vec<String> = packets()
        .iter()
        .filter(|(a, _)| *a == from_a)
        .map(|(_, p)| {
            format!(
                "({:?},{:?},{},{})",
                format!("{:?}", p.l4),
                p.dst.to_string(),
                p.dport,
                p.sport
            )
        })
        .collect();
    let program = format!(
        "
import socket as s, struct
for kind, dst, dport, sport in [{}]:
    f = s.AF_INET6 if ':' in dst else s.AF_INET
    try:
        if kind == 'Icmp':
            k = s.socket(f, s.SOCK_RAW, s.IPPROTO_ICMP)
            head = [8 << 8, 0, sport, 1]
            sum = ~((head[0] + sport + 1) % 65535) & 65535
            k.sendto(struct.pack('!HHHH', head[0], sum, sport, 1), (dst, 0))
            continue
        k = s.socket(f, s.SOCK_STREAM if kind == 'Tcp' else s.SOCK_DGRAM)
        k.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)
        k.bind(('::' if ':' in dst else '0.0.0.0', sport))
        if kind == 'Tcp':
            k.setblocking(False)
            k.connect_ex((dst, dport))
        else:
            k.sendto(b'ping', (dst, dport))
    except PermissionError:
        pass # what a rule drops on its way out
",
        sent.join(",")
    );
    let inside = if from_a { "ip netns exec a " } else { "" };
    sh(&format!(
        "timeout 10 {inside}python3 - <<'EOF'\n{program}\nEOF"
    ));
}

struct Routes;

impl Fib for Routes {
    fn addr_type(&self, addr: IpAddr, link: Option<u32>) -> u8 {
        let space = space();
        let local = |a: &Address| a.net.addr() == addr && link.is_none_or(|l| l == a.link);
        match addr {
            _ if space.addrs.iter().any(local) => 2,
            _ if addr.is_multicast() => 5,
            _ => 1,
        }
    }
    fn oif(&self, to: IpAddr, _: Option<IpAddr>, _: u32, via: Option<u32>) -> Option<u32> {
        let space = space();
        let on = space.addrs.iter().find(|a| a.net.contains(&to));
        on.map(|a| a.link).filter(|l| via.is_none_or(|v| v == *l))
    }
    fn has_socket(&self, _: &Packet) -> bool {
        false
    }
}

fn space() -> Space {
    let link = |index, name: &str| Link {
        index,
        name: name.to_owned(),
        kind: Some("veth".to_owned()),
        ..Link::default()
    };
    let addr = |link, net: &str| Address {
        link,
        net: net.parse::<IpNet>().unwrap(),
        peer: None,
        tentative: false,
        dad_failed: false,
        deprecated: false,
        scope: 0,
    };
    Space {
        links: vec![link(2, "va"), link(3, "vb")],
        addrs: vec![
            addr(2, "10.0.1.1/24"),
            addr(2, "fd00:1::1/64"),
            addr(3, "10.0.2.1/24"),
            addr(3, "10.0.2.9/24"),
            addr(3, "fd00:2::1/64"),
        ],
        ..Space::default()
    }
}

/// The hooks a packet passes, as far as it comes, with what each said.
fn walk(rules: &Rules<'_>, from_a: bool, mut packet: Packet) -> Vec<(Hook, Run)> {
    let space = space();
    let original = Tuple {
        src: packet.src,
        dst: packet.dst,
        protocol: packet.protocol(),
        sport: packet.sport,
        dport: packet.dport,
    };
    let mut ct = CtState {
        state: 8,
        status: 0,
        reply_direction: false,
        reply: Tuple {
            src: original.dst,
            dst: original.src,
            sport: original.dport,
            dport: original.sport,
            ..original.clone()
        },
        original,
        mark: 0,
        zone: 0,
        reply_zone: 0,
    };
    let (iif, oif) = (from_a.then(|| &space.links[0]), Some(&space.links[1]));
    let mut next = Some(if from_a {
        Hook::Prerouting
    } else {
        Hook::Output
    });
    let mut runs = Vec::new();
    while let Some(hook) = next {
        let env = Env {
            space: &space,
            hook,
            layer: Layer::Ip,
            iif,
            oif: oif.filter(|_| !matches!(hook, Hook::Prerouting | Hook::Input)),
            port_in: None,
            port_out: None,
            local: !from_a,
            fib: &Routes,
        };
        let run = rules.run(&env, packet, &mut ct);
        packet = run.packet.clone();
        let local = Routes.addr_type(packet.dst, None) == 2;
        next = match hook {
            _ if run.ending != Ending::Accept => None,
            Hook::Prerouting if local => Some(Hook::Input),
            Hook::Prerouting => {
                packet.ttl -= 1;
                Some(Hook::Forward)
            }
            Hook::Forward | Hook::Output => Some(Hook::Postrouting),
            _ => None,
        };
        runs.push((hook, run));
    }
    runs
}

/// Compares; the number of rules that decided.
fn check(name: &str, load: &str) -> usize {
    sh("nft flush ruleset");
    let mut socket = wharf_nft::NfSocket::open().unwrap();
    witness::install(&mut socket);
    sh(load);
    let loaded = socket.ruleset().unwrap();
    let lowered: Ruleset = rules::ruleset(loaded);
    let evaluator = Rules::new(&lowered);
    let mut expected: BTreeMap<Hook, BTreeSet<Pass>> = BTreeMap::new();
    let mut blamed = BTreeSet::new();
    for (from_a, packet) in packets() {
        let port = packet.sport;
        for (hook, run) in walk(&evaluator, from_a, packet) {
            assert_ne!(
                run.ending,
                Ending::Unknown,
                "{name}: {port} at {hook:?}: {run:?}"
            );
            if run.ending == Ending::Accept {
                expected
                    .entry(hook)
                    .or_default()
                    .insert(Pass::of(&run.packet));
            }
            blamed.extend(run.blame.and_then(|b| Some((b.table, b.chain, b.handle?))));
        }
    }
    // Only the first packet of a connection is translated by rules; the last case had the same ports.
    let mut conntrack = Conntrack::open().unwrap();
    for family in [wharf_nft::Family::Ip, wharf_nft::Family::Ip6] {
        conntrack.flush(&ConntrackFilter::new(family)).unwrap();
    }
    send(true);
    send(false);
    let mut seen = BTreeMap::new();
    // Packets go through at once; the rest is for a busy machine.
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        seen = witness::read(&mut socket);
        if seen == expected {
            break;
        }
    }
    for hook in HOOKS {
        assert_eq!(
            seen.get(&hook),
            expected.get(&hook),
            "{name} at {hook:?}: kernel, evaluator"
        );
    }
    let counted = witness::counted(&socket.ruleset().unwrap());
    let missing: Vec<_> = blamed.difference(&counted).collect();
    assert!(
        missing.is_empty(),
        "{name}: {missing:?} did not see a packet"
    );
    blamed.len()
}

#[test]
fn the_evaluator_and_the_kernel_agree() {
    if !alone() {
        return;
    }
    sh(SETUP);
    assert_eq!(check("nothing", ":"), 0);
    let mut deciding = 0;
    for (name, text) in cases::NFT {
        deciding += check(name, &format!("nft -f - <<'EOF'\n{text}\nEOF"));
    }
    for (name, commands) in cases::IPTABLES {
        deciding += check(name, commands);
    }
    assert!(deciding >= 25, "{deciding}");
}
