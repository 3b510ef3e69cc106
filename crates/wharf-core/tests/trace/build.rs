//! States for the walker, built as an administrator would build the network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use wharf_core::addr::{Family, Mac};
use wharf_core::trace::ruleset::{
    Backend, Base, Chain, ChainKind, Expr, Hook, Match, NatArg, NatKind, Rule, RuleVerdict,
    TableFamily,
};
use wharf_core::trace::state::Place;
use wharf_core::trace::state::{
    Address, Bridge, Link, NextHop, PolicyRule, Port, Route, RouteKind, RuleAction, Socket,
};
use wharf_core::trace::{
    L4, ObservedState, Owner, Query, Report, Source, Space, SpaceId, Target, trace,
};

pub const HOST: SpaceId = 0;

#[derive(Clone)]
pub struct World {
    pub state: ObservedState,
    macs: u8,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    match text {
        "default" => "0.0.0.0/0".parse().unwrap(),
        "default6" => "::/0".parse().unwrap(),
        _ => text.parse().unwrap_or_else(|_| IpNet::from(ip(text))),
    }
}

impl World {
    /// A host with nothing but loopback.
    pub fn empty() -> Self {
        let mut w = Self {
            state: ObservedState::default(),
            macs: 0,
        };
        w.space("host", "");
        w.set(HOST, "net.ipv4.ip_forward", 1);
        w.set(HOST, "net.ipv6.conf.all.forwarding", 1);
        w
    }

    /// The examples' host: `br-demo` with c1 and c2, and `up0` to the outside, which owns 192.0.2.50; masquerade.
    pub fn demo() -> Self {
        let mut w = Self::empty();
        w.bridge(HOST, "br-demo");
        w.addr(HOST, "br-demo", "172.18.0.1/16");
        w.addr(HOST, "br-demo", "fd00:18::1/64");
        w.container("c1", "br-demo", &["172.18.0.10/16", "fd00:18::10/64"]);
        w.container("c2", "br-demo", &["172.18.0.20/16", "fd00:18::20/64"]);
        let out = w.space("/run/netns/outside", "ip netns exec outside ");
        w.cable(HOST, "up0", out, "eth0");
        for (space, link, addr) in [
            (HOST, "up0", "10.0.2.2/24"),
            (HOST, "up0", "fd00:2::2/64"),
            (out, "eth0", "10.0.2.1/24"),
            (out, "eth0", "fd00:2::1/64"),
            (out, "lo", "192.0.2.50/32"),
            (out, "lo", "2001:db8::50/128"),
        ] {
            w.addr(space, link, addr);
        }
        w.route(HOST, "default", Some("10.0.2.1"), "up0");
        w.route(HOST, "default6", Some("fd00:2::1"), "up0");
        w.masquerade();
        w
    }

    pub fn masquerade(&mut self) {
        for (family, src) in [
            (TableFamily::Ip, "172.18.0.0/16"),
            (TableFamily::Ip6, "fd00:18::/64"),
        ] {
            let chain = self.chain(HOST, family, "masq", "post", Hook::Postrouting, 100, false);
            chain.base.as_mut().unwrap().kind = ChainKind::Nat;
            rule(
                chain,
                vec![
                    matches(src_in(src)),
                    matches(oif("up0")),
                    nat(NatKind::Masquerade, None, None),
                ],
                "oifname up0 masquerade",
            );
        }
    }

    pub fn outside(&self) -> SpaceId {
        self.id("/run/netns/outside")
    }

    pub fn id(&self, name: &str) -> SpaceId {
        let full = format!("/run/netns/{name}");
        let found = self
            .state
            .spaces
            .iter()
            .position(|s| s.name == name || s.name == full);
        found.unwrap_or_else(|| panic!("no space {name}"))
    }

    pub fn space(&mut self, name: &str, enter: &str) -> SpaceId {
        let id = self.state.spaces.len();
        self.state.spaces.push(Space {
            name: name.to_owned(),
            enter: enter.to_owned(),
            inode: 4_026_531_840 + id as u64,
            full: true,
            sysctls: BTreeMap::new(),
            ..Space::default()
        });
        for family in Family::BOTH {
            for (priority, table) in [(0, 255), (32766, 254), (32767, 253)] {
                let usual = policy(family, priority, RuleAction::Table(table));
                self.state.spaces[id].rules.push(usual);
            }
        }
        let lo = self.link(id, "lo", None);
        let link = self.get(id, "lo");
        (link.loopback, link.mtu, link.mac) = (true, 65536, None);
        assert_eq!(lo, 1);
        self.addr(id, "lo", "127.0.0.1/8");
        self.addr(id, "lo", "::1/128");
        id
    }

    pub fn link(&mut self, space: SpaceId, name: &str, kind: Option<&str>) -> u32 {
        let index = self.state.spaces[space]
            .links
            .iter()
            .map(|l| l.index)
            .max()
            .unwrap_or(0)
            + 1;
        self.macs += 1;
        self.state.spaces[space].links.push(Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            mac: Some(Mac([2, 0, 0, 0, space as u8, self.macs])),
            mtu: 1500,
            up: true,
            carrier: true,
            ..Link::default()
        });
        index
    }

    pub fn get(&mut self, space: SpaceId, name: &str) -> &mut Link {
        let links = &mut self.state.spaces[space].links;
        let found = links.iter_mut().find(|l| l.name == name);
        found.unwrap_or_else(|| panic!("no link {name}"))
    }

    pub fn index(&self, space: SpaceId, name: &str) -> u32 {
        self.state.spaces[space].link_named(name).unwrap().index
    }

    pub fn bridge(&mut self, space: SpaceId, name: &str) {
        self.link(space, name, Some("bridge"));
        self.get(space, name).bridge = Some(Bridge::default());
    }

    pub fn cable(&mut self, a: SpaceId, a_name: &str, b: SpaceId, b_name: &str) {
        let ai = self.link(a, a_name, Some("veth"));
        let bi = self.link(b, b_name, Some("veth"));
        self.get(a, a_name).peer = Some(Place {
            space: b,
            index: bi,
        });
        self.get(b, b_name).peer = Some(Place {
            space: a,
            index: ai,
        });
    }

    pub fn plug(&mut self, space: SpaceId, port: &str, bridge: &str) {
        let master = self.index(space, bridge);
        let link = self.get(space, port);
        link.master = Some(master);
        link.port = Some(Port {
            state: 3,
            learning: true,
            flood: true,
            mcast_flood: true,
            bcast_flood: true,
            pvid: Some(1),
            vlans: vec![(1, true)],
            ..Port::default()
        });
    }

    /// A namespace on a bridge, with a default route by the bridge's addresses.
    pub fn container(&mut self, name: &str, bridge: &str, addrs: &[&str]) -> SpaceId {
        let id = self.space(
            &format!("/run/netns/{name}"),
            &format!("ip netns exec {name} "),
        );
        let port = format!("veth-{name}");
        self.cable(HOST, &port, id, "eth0");
        self.plug(HOST, &port, bridge);
        for addr in addrs {
            self.addr(id, "eth0", addr);
            let own = net(addr);
            let gateway = self.state.spaces[HOST]
                .addrs
                .iter()
                .map(|a| a.net)
                .find(|a| own.contains(&a.addr()));
            if let Some(via) = gateway.map(|g| g.addr().to_string()) {
                let dst = if own.addr().is_ipv4() {
                    "default"
                } else {
                    "default6"
                };
                self.route(id, dst, Some(&via), "eth0");
            }
        }
        id
    }

    /// An address, with the routes that the kernel makes for it.
    pub fn addr(&mut self, space: SpaceId, link: &str, addr: &str) {
        let (index, own) = (self.index(space, link), net(addr));
        let s = &mut self.state.spaces[space];
        s.addrs.push(Address {
            link: index,
            net: own,
            peer: None,
            tentative: false,
            dad_failed: false,
            deprecated: false,
            scope: if own.addr().is_loopback() { 254 } else { 0 },
        });
        let host = IpNet::from(own.addr());
        let local = if link == "lo" && own.prefix_len() == 8 {
            own.trunc()
        } else {
            host
        };
        s.routes.push(Route {
            prefsrc: own.addr().is_ipv4().then(|| own.addr()),
            ..plain(local, RouteKind::Local, 255, index)
        });
        if own.prefix_len() < Family::of_net(own).bits() && link != "lo" {
            s.routes.push(Route {
                prefsrc: own.addr().is_ipv4().then(|| own.addr()),
                ..plain(own.trunc(), RouteKind::Unicast, 254, index)
            });
        }
    }

    /// Takes an address and its routes away.
    pub fn del_addr(&mut self, space: SpaceId, addr: &str) {
        let own = net(addr);
        let s = &mut self.state.spaces[space];
        s.addrs.retain(|a| a.net != own);
        s.routes.retain(|r| r.dst != IpNet::from(own.addr()));
        s.routes.retain(|r| r.dst != own.trunc() || r.protocol != 2);
    }

    pub fn route(&mut self, space: SpaceId, dst: &str, via: Option<&str>, link: &str) {
        let index = self.index(space, link);
        let mut route = plain(net(dst), RouteKind::Unicast, 254, index);
        route.hops[0].via = via.map(ip);
        route.protocol = 3;
        self.state.spaces[space].routes.push(route);
    }

    pub fn refuse(&mut self, space: SpaceId, kind: RouteKind, dst: &str) {
        let mut route = plain(net(dst), kind, 254, 0);
        route.hops.clear();
        self.state.spaces[space].routes.push(route);
    }

    pub fn del_routes(&mut self, space: SpaceId, dst: &str) {
        let dst = net(dst);
        self.state.spaces[space].routes.retain(|r| r.dst != dst);
    }

    pub fn set(&mut self, space: SpaceId, name: &str, value: i64) {
        self.state.spaces[space]
            .sysctls
            .insert(name.to_owned(), value.to_string());
    }

    pub fn listen(&mut self, space: &str, protocol: L4, addr: &str, port: u16) -> &mut Socket {
        let id = self.id(space);
        let all = &mut self.state.spaces[id].sockets;
        all.push(Socket {
            protocol,
            addr: ip(addr),
            port,
            v6only: false,
            link: None,
            queue: 0,
            backlog: 128,
            remote: None,
        });
        all.last_mut().unwrap()
    }

    #[expect(clippy::too_many_arguments, reason = "a chain is named by all of them")]
    pub fn chain(
        &mut self,
        space: SpaceId,
        family: TableFamily,
        table: &str,
        name: &str,
        hook: Hook,
        priority: i32,
        drops: bool,
    ) -> &mut Chain {
        let all = &mut self.state.spaces[space].ruleset.chains;
        all.push(Chain {
            backend: Backend::Nft,
            family,
            table: table.to_owned(),
            name: name.to_owned(),
            base: Some(Base {
                hook,
                priority,
                kind: ChainKind::Filter,
                drops,
                devices: Vec::new(),
            }),
            rules: Vec::new(),
            owner: Owner::User,
        });
        all.last_mut().unwrap()
    }

    /// The host's `iptables -P FORWARD DROP`.
    pub fn forward_policy_drop(&mut self) -> &mut Chain {
        self.chain(
            HOST,
            TableFamily::Ip,
            "filter",
            "FORWARD",
            Hook::Forward,
            0,
            true,
        )
    }

    pub fn source(&self, text: &str) -> Source {
        match text.split_once(':') {
            _ if text == "outside" => Source::Outside(None),
            Some(("outside", addr)) => Source::Outside(Some(ip(addr))),
            _ => Source::Space(self.id(text), None),
        }
    }

    pub fn target(&self, text: &str) -> Target {
        match text.parse() {
            Ok(addr) => Target::Address(addr),
            Err(_) if text == "outside" => Target::Outside(None),
            Err(_) => Target::Space(self.id(text)),
        }
    }

    /// Asks: `ask("c1", "172.18.0.20", Tcp, 80)`.
    pub fn ask(&self, src: &str, dst: &str, l4: L4, port: u16) -> Report {
        let query = Query {
            source: self.source(src),
            target: self.target(dst),
            l4,
            port,
        };
        trace(&self.state, &query)
    }
}

fn plain(dst: IpNet, kind: RouteKind, table: u32, link: u32) -> Route {
    Route {
        dst,
        kind,
        table,
        hops: vec![NextHop {
            via: None,
            link: Some(link),
            onlink: false,
            dead: false,
        }],
        prefsrc: None,
        metric: 0,
        protocol: 2,
        scope: 0,
        tos: 0,
        mtu: None,
        from: None,
        nexthop: None,
    }
}

pub fn policy(family: Family, priority: u32, action: RuleAction) -> PolicyRule {
    PolicyRule {
        family,
        priority,
        invert: false,
        src: None,
        dst: None,
        iif: None,
        oif: None,
        mark: None,
        tos: 0,
        ip_proto: None,
        sport: None,
        dport: None,
        uids: None,
        l3mdev: false,
        suppress: None,
        suppress_group: None,
        tunnel: false,
        action,
        protocol: 0,
    }
}

/// Adds a rule with the next handle.
pub fn rule<'c>(chain: &'c mut Chain, exprs: Vec<Expr>, text: &str) -> &'c mut Rule {
    let handle = chain.rules.iter().map(|r| r.handle).max().unwrap_or(1) + 1;
    chain.rules.push(Rule {
        handle,
        exprs,
        comment: None,
        text: text.into(),
    });
    chain.rules.last_mut().unwrap()
}

pub fn matches(test: Match) -> Expr {
    Expr::Match {
        test,
        invert: false,
    }
}

pub fn src_in(prefix: &str) -> Match {
    let n = net(prefix);
    Match::Src(n.network(), n.netmask())
}

pub fn oif(name: &str) -> Match {
    Match::Oif(name.to_owned(), false)
}

pub fn drops() -> Expr {
    Expr::Verdict(RuleVerdict::Drop)
}

pub fn accepts() -> Expr {
    Expr::Verdict(RuleVerdict::Accept)
}

pub fn nat(kind: NatKind, addr: Option<&str>, port: Option<u16>) -> Expr {
    Expr::Nat {
        kind,
        addr: addr.map(|a| NatArg::Addr(ip(a))),
        port: port.map(NatArg::Port),
    }
}

/// A report in one line, for comparing: `dropped link-down host veth-c2`.
pub fn line(report: &Report) -> String {
    let word = |v: serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let verdict = word(serde_json::to_value(report.verdict).unwrap());
    match &report.cause {
        None => verdict,
        Some(c) => {
            let code = word(serde_json::to_value(c.code).unwrap());
            let netns = c.netns.trim_start_matches("/run/netns/");
            format!("{verdict} {code} {netns} {}", c.object)
        }
    }
}

/// The codes in `also`.
pub fn also(report: &Report) -> Vec<String> {
    let word = |c| {
        serde_json::to_value(c)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    report.also.iter().map(|c| word(c.code)).collect()
}

/// One question to a changed demo host, and the answer.
pub struct Case {
    pub name: &'static str,
    pub change: fn(&mut World),
    pub ask: (&'static str, &'static str, L4, u16),
    pub says: &'static str,
}

/// Asks all, and shows every wrong answer whole.
pub fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let mut world = World::demo();
        (case.change)(&mut world);
        let (src, dst, l4, port) = case.ask;
        let report = world.ask(src, dst, l4, port);
        if line(&report) != case.says {
            wrong.push(format!(
                "{}: {} and not {}\n{report:#?}",
                case.name,
                line(&report),
                case.says
            ));
            continue;
        }
        let complete = report
            .cause
            .iter()
            .chain(&report.also)
            .all(|c| !c.evidence.is_empty() && !c.fix.is_empty() && !c.summary.is_empty());
        if !complete {
            wrong.push(format!(
                "{}: a cause without evidence or fix\n{report:#?}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
