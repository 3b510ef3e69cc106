//! Rules at work, on rulesets made by hand: each instruction, each kind of match, chains, translations and doubts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bytes;
mod chains;
mod doubts;
mod matches;
mod nat;
mod random;
mod reads;
mod sets;

use std::net::IpAddr;

use wharf_core::trace::env::{CtState, Env, Fib, Layer, Run};
use wharf_core::trace::eval::run_hook;
use wharf_core::trace::report::Owner;
use wharf_core::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Cmp, Expr, Hook, Rule, RuleVerdict, Ruleset, Set, TableFamily,
};
use wharf_core::trace::state::{Address, Link, NextHop, Route, RouteKind, Space, Tuple};
use wharf_core::trace::{L4, Packet};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `eth0` (2) to the outside with two addresses, `br0` (3) with port `veth1` (4), `lo` (1).
fn space() -> Space {
    let link = |index, name: &str, kind: Option<&str>| Link {
        index,
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        mac: Some(wharf_core::addr::Mac([2, 0, 0, 0, 0, index as u8])),
        group: index * 10,
        loopback: name == "lo",
        master: (name == "veth1").then_some(3),
        ..Link::default()
    };
    let addr = |link, net: &str, scope| Address {
        link,
        net: net.parse().unwrap(),
        peer: None,
        tentative: false,
        dad_failed: false,
        deprecated: false,
        scope,
    };
    Space {
        name: "host".to_owned(),
        links: vec![
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "br0", Some("bridge")),
            link(4, "veth1", Some("veth")),
        ],
        addrs: vec![
            addr(1, "127.0.0.1/8", 254),
            addr(2, "192.0.2.1/24", 0),
            addr(2, "198.51.100.1/24", 0),
            addr(2, "fe80::2/64", 253),
            addr(2, "2001:db8::2/64", 0),
            addr(3, "10.0.0.1/24", 0),
            addr(3, "fd00::1/64", 0),
        ],
        routes: vec![Route {
            dst: "0.0.0.0/0".parse().unwrap(),
            kind: RouteKind::Unicast,
            table: 254,
            hops: vec![NextHop {
                via: Some(ip("198.51.100.254")),
                link: Some(2),
                onlink: false,
                dead: false,
            }],
            prefsrc: None,
            metric: 0,
            protocol: 4,
            scope: 0,
            tos: 0,
            mtu: None,
            from: None,
            nexthop: None,
        }],
        ..Space::default()
    }
}

/// 10.0.0.0/24 is behind `br0`, the host has its own addresses, all else is behind `eth0`.
struct Routes;

impl Fib for Routes {
    fn addr_type(&self, addr: IpAddr, link: Option<u32>) -> u8 {
        let own = space().addrs;
        let local = own
            .iter()
            .any(|a| a.net.addr() == addr && link.is_none_or(|l| l == a.link));
        match addr {
            _ if local => 2,
            IpAddr::V4(v4) if v4.is_broadcast() => 3,
            _ if addr.is_multicast() => 5,
            _ => 1,
        }
    }
    fn oif(&self, to: IpAddr, _: Option<IpAddr>, mark: u32, via: Option<u32>) -> Option<u32> {
        let inside: ipnet::IpNet = "10.0.0.0/24".parse().unwrap();
        let oif = if inside.contains(&to) { 3 } else { 2 };
        (mark != 99 && via.is_none_or(|v| v == oif)).then_some(oif)
    }
    fn has_socket(&self, packet: &Packet) -> bool {
        packet.dport == 22
    }
}

/// From a container to the outside: TCP, port 80.
fn packet() -> Packet {
    Packet {
        src: ip("10.0.0.2"),
        dst: ip("203.0.113.5"),
        l4: L4::Tcp,
        sport: 40000,
        dport: 80,
        reply: false,
        ttl: 64,
        len: 60,
        mark: 0,
        tos: 0x10,
        src_mac: Some(wharf_core::addr::Mac([2, 0, 0, 0, 0, 9])),
        dst_mac: Some(wharf_core::addr::Mac([2, 0, 0, 0, 0, 3])),
        arp: None,
    }
}

fn packet6() -> Packet {
    Packet {
        src: ip("fd00::2"),
        dst: ip("2001:db8:1::5"),
        len: 80,
        ..packet()
    }
}

/// A new connection.
fn fresh(packet: &Packet) -> CtState {
    let original = Tuple {
        src: packet.src,
        dst: packet.dst,
        protocol: packet.protocol(),
        sport: packet.sport,
        dport: packet.dport,
    };
    CtState {
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
    }
}

/// What is run: a packet at a hook, forwarded from `br0` to `eth0` unless changed.
struct Case {
    space: Space,
    hook: Hook,
    layer: Layer<'static>,
    iif: u32,
    oif: u32,
    ports: (u32, u32),
    local: bool,
    packet: Packet,
    ct: CtState,
}

impl Case {
    fn at(hook: Hook) -> Self {
        Self::with(hook, packet())
    }

    fn with(hook: Hook, packet: Packet) -> Self {
        let incoming = matches!(hook, Hook::Prerouting | Hook::Input | Hook::Ingress);
        Self {
            space: space(),
            hook,
            layer: Layer::Ip,
            iif: if hook == Hook::Output { 0 } else { 3 },
            oif: if incoming { 0 } else { 2 },
            ports: (0, 0),
            local: hook == Hook::Output,
            ct: fresh(&packet),
            packet,
        }
    }

    fn run(&mut self, ruleset: &Ruleset) -> Run {
        let env = Env {
            space: &self.space,
            hook: self.hook,
            layer: self.layer,
            iif: self.space.link(self.iif),
            oif: self.space.link(self.oif),
            port_in: self.space.link(self.ports.0),
            port_out: self.space.link(self.ports.1),
            local: self.local,
            fib: &Routes,
        };
        run_hook(&env, self.packet.clone(), &mut self.ct, ruleset)
    }

    /// Whether a rule of these instructions would take effect.
    fn holds(&mut self, exprs: &[Expr]) -> bool {
        self.holds_with(exprs, Vec::new())
    }

    fn holds_with(&mut self, exprs: &[Expr], sets: Vec<Set>) -> bool {
        let mut exprs = exprs.to_vec();
        exprs.push(Expr::Verdict(RuleVerdict::Drop));
        let ruleset = Ruleset {
            chains: vec![base(self.hook, 0, vec![rule(1, exprs)])],
            sets,
            dormant: Vec::new(),
        };
        let run = self.run(&ruleset);
        assert!(run.maybe.is_empty(), "in doubt: {run:?}");
        run.ending == wharf_core::trace::env::Ending::Drop
    }
}

fn rule(handle: u64, exprs: Vec<Expr>) -> Rule {
    Rule {
        handle,
        exprs,
        comment: None,
        text: format!("rule {handle}").into(),
    }
}

/// A base chain of `inet t`, policy accept.
fn base(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(Base {
            hook,
            priority,
            kind: ChainKind::Filter,
            drops: false,
            devices: Vec::new(),
        }),
        ..chain(&format!("base{priority}"), rules)
    }
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        backend: Backend::Nft,
        family: TableFamily::Inet,
        table: "t".to_owned(),
        name: name.to_owned(),
        base: None,
        rules,
        owner: Owner::User,
    }
}

fn rules(chains: Vec<Chain>) -> Ruleset {
    Ruleset {
        chains,
        ..Ruleset::default()
    }
}

fn eq(data: impl Into<Vec<u8>>) -> Expr {
    cmp(Cmp::Eq, data)
}

fn cmp(op: Cmp, data: impl Into<Vec<u8>>) -> Expr {
    Expr::Cmp {
        sreg: 0,
        op,
        data: data.into(),
    }
}

fn verdict(verdict: RuleVerdict) -> Expr {
    Expr::Verdict(verdict)
}

fn jump(to: &str) -> Expr {
    Expr::Verdict(RuleVerdict::Jump(to.to_owned()))
}

/// Handles of the named rules.
fn handles(blames: &[wharf_core::trace::env::Blame]) -> Vec<u64> {
    blames.iter().map(|b| b.handle.unwrap()).collect()
}
