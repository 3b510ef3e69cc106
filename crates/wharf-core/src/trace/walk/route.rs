//! Routing as the kernel does it: policy rules, tables, prefixes, metrics, next hops. Pure lookups in one space.
//!
//! Not here: what becomes of a packet without a route (`host`), whether the next hop is there (`neighbour`).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::trace::packet::Packet;
use crate::trace::state::{Link, NextHop, PolicyRule, Route, RouteKind, RuleAction, Space};

/// `RT_TABLE_LOCAL`, `RT_TABLE_MAIN`, `RT_TABLE_DEFAULT`.
pub(super) const LOCAL: u32 = 255;
pub(super) const MAIN: u32 = 254;
pub(super) const DEFAULT: u32 = 253;

/// A question to the routing of a space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'p> {
    pub dst: IpAddr,
    pub src: Option<IpAddr>,
    pub mark: u32,
    /// The incoming link; `None` for packets of the space's own making.
    pub iif: Option<&'p Link>,
    pub oif: Option<u32>,
    pub protocol: u8,
    pub sport: u16,
    pub dport: u16,
    pub tos: u8,
    /// Which of several ways of one route is taken; the kernel draws it by a hash of addresses and ports.
    pub way: usize,
}

impl<'p> Ask<'p> {
    /// For a packet.
    pub fn of(packet: &Packet, iif: Option<&'p Link>) -> Self {
        Self {
            dst: packet.dst,
            src: Some(packet.src).filter(|a| !a.is_unspecified()),
            mark: packet.mark,
            iif,
            oif: None,
            protocol: packet.protocol(),
            sport: packet.sport,
            dport: packet.dport,
            tos: packet.tos,
            way: 0,
        }
    }

    /// For the way back to the packet's source, as the reverse path filter asks.
    pub fn back(packet: &Packet) -> Self {
        Self {
            dst: packet.src,
            src: Some(packet.dst),
            mark: 0,
            iif: None,
            oif: None,
            protocol: packet.protocol(),
            sport: packet.dport,
            dport: packet.sport,
            tos: packet.tos,
            way: 0,
        }
    }

    /// For an address alone.
    pub fn to(dst: IpAddr) -> Self {
        Self {
            dst,
            src: None,
            mark: 0,
            iif: None,
            oif: None,
            protocol: 0,
            sport: 0,
            dport: 0,
            tos: 0,
            way: 0,
        }
    }
}

/// A route that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub route: &'a Route,
    /// The way taken; none for a local route without a link.
    pub hop: Option<&'a NextHop>,
    /// The policy rule, where it is not one of the three every space has.
    pub rule: Option<&'a PolicyRule>,
    /// Other ways of the same route that would serve too.
    pub others: usize,
}

/// What refuses the packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refuser<'a> {
    Route(&'a Route, Option<&'a PolicyRule>),
    Rule(&'a PolicyRule),
}

/// The answer of a lookup.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Route(Chosen<'a>),
    Refused(Refuser<'a>),
    Nothing,
}

/// What is treated as absent, since it was blamed already.
#[derive(Debug, Clone, Default)]
pub(super) struct Skip<'a> {
    pub routes: Vec<&'a Route>,
    pub rules: Vec<&'a PolicyRule>,
}

impl<'a> Skip<'a> {
    fn route(&self, route: &Route) -> bool {
        self.routes.iter().any(|r| std::ptr::eq(*r, route))
    }

    fn rule(&self, rule: &PolicyRule) -> bool {
        self.rules.iter().any(|r| std::ptr::eq(*r, rule))
    }
}

/// Asks the policy rules one after the other.
pub(super) fn lookup<'a>(space: &'a Space, ask: &Ask, skip: &Skip<'a>) -> Found<'a> {
    let family = Family::of(ask.dst);
    let mut rules: Vec<&PolicyRule> = space.rules.iter().filter(|r| r.family == family).collect();
    if rules.is_empty() {
        for table in [LOCAL, MAIN, DEFAULT] {
            match in_table(space, ask, table, None, skip) {
                Found::Nothing => {}
                found => return found,
            }
        }
        return Found::Nothing;
    }
    rules.sort_by_key(|r| r.priority);
    // The kernel passes over one that leads to no rule.
    let leads = |to: u32| rules.iter().any(|r| r.priority == to);
    let mut from = 0;
    for rule in &rules {
        let rule = *rule;
        if rule.priority < from || skip.rule(rule) || !selects(space, rule, ask) {
            continue;
        }
        let custom = Some(rule).filter(|r| !is_usual(r));
        let found = match rule.action {
            _ if rule.l3mdev => match vrf_table(space, ask) {
                Some(table) => in_table(space, ask, table, None, skip),
                None => continue,
            },
            RuleAction::Table(table) => in_table(space, ask, table, custom, skip),
            RuleAction::Goto(to) if leads(to) => {
                from = to;
                continue;
            }
            RuleAction::Goto(_) | RuleAction::Nop | RuleAction::Other(_) => continue,
            RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
                return Found::Refused(Refuser::Rule(rule));
            }
        };
        match found {
            Found::Nothing => {}
            Found::Route(c) if suppressed(space, rule, &c) => {}
            found => return found,
        }
    }
    Found::Nothing
}

fn suppressed(space: &Space, rule: &PolicyRule, chosen: &Chosen) -> bool {
    let link = || space.link(chosen.hop?.link?);
    let short = |most| u32::from(chosen.route.dst.prefix_len()) <= most;
    rule.suppress.is_some_and(short)
        || rule
            .suppress_group
            .is_some_and(|group| link().is_some_and(|l| l.group == group))
}

/// One of the rules every namespace starts with.
fn is_usual(rule: &PolicyRule) -> bool {
    let plain = rule.src.is_none()
        && rule.dst.is_none()
        && rule.iif.is_none()
        && rule.oif.is_none()
        && rule.mark.is_none()
        && !rule.invert;
    plain && matches!(rule.action, RuleAction::Table(LOCAL | MAIN | DEFAULT)) || rule.l3mdev
}

fn vrf_table(space: &Space, ask: &Ask) -> Option<u32> {
    let master = |l: &Link| {
        l.vrf_table
            .or_else(|| space.link(l.master?).and_then(|m| m.vrf_table))
    };
    ask.oif
        .and_then(|i| space.link(i))
        .and_then(master)
        .or_else(|| ask.iif.and_then(master))
}

fn selects(space: &Space, rule: &PolicyRule, ask: &Ask) -> bool {
    let within = |net: Option<IpNet>, addr: Option<IpAddr>| match (net, addr) {
        (None, _) => true,
        (Some(net), Some(addr)) => net.contains(&addr),
        (Some(net), None) => net.prefix_len() == 0,
    };
    let port =
        |range: Option<(u16, u16)>, port: u16| range.is_none_or(|(a, b)| (a..=b).contains(&port));
    let iif = ask.iif.map_or("lo", |l| l.name.as_str());
    let oif = ask.oif.and_then(|i| space.link(i)).map(|l| l.name.as_str());
    let holds = within(rule.src, ask.src)
        && within(rule.dst, Some(ask.dst))
        && rule.iif.as_deref().is_none_or(|n| n == iif)
        && rule.oif.as_deref().is_none_or(|n| Some(n) == oif)
        && rule.mark.is_none_or(|(v, m)| ask.mark & m == v & m)
        && (rule.tos == 0 || rule.tos == ask.tos)
        && rule.ip_proto.is_none_or(|p| p == ask.protocol)
        && port(rule.sport, ask.sport)
        && port(rule.dport, ask.dport)
        // Where a packet came by a tunnel, that is not followed.
        && !rule.tunnel
        // The asking program is taken to be root's, whose uid is 0.
        && rule.uids.is_none_or(|(a, _)| a == 0);
    holds != rule.invert
}

fn in_table<'a>(
    space: &'a Space,
    ask: &Ask,
    table: u32,
    rule: Option<&'a PolicyRule>,
    skip: &Skip<'a>,
) -> Found<'a> {
    let mut fitting: Vec<&Route> = space
        .routes
        .iter()
        .filter(|r| r.table == table && same_family(r.dst, ask.dst) && r.dst.contains(&ask.dst))
        .filter(|r| !skip.route(r) && (r.tos == 0 || r.tos == ask.tos))
        .filter(|r| match (r.from, ask.src) {
            (Some(from), Some(src)) => from.contains(&src),
            (Some(from), None) => from.prefix_len() == 0,
            (None, _) => true,
        })
        // What older kernels list as the last of all IPv6 routes says only that there is none.
        .filter(|r| !(r.metric == u32::MAX && r.kind == RouteKind::Unreachable))
        .collect();
    // Stable: among equals the first one listed is the one the kernel takes.
    fitting.sort_by_key(|r| (u8::MAX - r.dst.prefix_len(), u8::MAX - r.tos, r.metric));
    for route in fitting {
        match route.kind {
            RouteKind::Throw => return Found::Nothing,
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => {
                return Found::Refused(Refuser::Route(route, rule));
            }
            _ => {}
        }
        let usable: Vec<&NextHop> = route
            .hops
            .iter()
            .filter(|h| alive(space, h) && ask.oif.is_none_or(|o| h.link == Some(o)))
            .collect();
        let local = !matches!(route.kind, RouteKind::Unicast | RouteKind::Other(_));
        if usable.is_empty() && !(local && (route.hops.is_empty() || ask.oif.is_none())) {
            continue;
        }
        return Found::Route(Chosen {
            route,
            hop: usable
                .get(ask.way % usable.len().max(1))
                .copied()
                .or(route.hops.first()),
            rule,
            others: usable.len().saturating_sub(1),
        });
    }
    Found::Nothing
}

/// Whether a next hop is taken. A link without carrier serves unless told otherwise.
fn alive(space: &Space, hop: &NextHop) -> bool {
    let Some(link) = hop.link.and_then(|i| space.link(i)) else {
        return !hop.dead;
    };
    if !hop.dead {
        return true;
    }
    let set = |scope: &str| {
        ["ipv4", "ipv6"].iter().any(|f| {
            let name = format!("net.{f}.conf.{scope}.ignore_routes_with_linkdown");
            space.sysctl(&name) == Some(1)
        })
    };
    link.up && !set("all") && !set(&sysctl_name(&link.name))
}

/// A link's name as a part of a sysctl's.
pub(super) fn sysctl_name(link: &str) -> String {
    link.replace('.', "/")
}

pub(super) fn same_family(net: IpNet, addr: IpAddr) -> bool {
    Family::of_net(net) == Family::of(addr)
}

/// Whether the space takes packets to this address as its own.
pub(super) fn is_local(space: &Space, addr: IpAddr) -> bool {
    has_local_route(space, addr)
        || super::source::usable_addresses(space).any(|a| a.net.addr() == addr)
}

/// Whether the table `local` leads an address to the space itself.
pub(super) fn has_local_route(space: &Space, addr: IpAddr) -> bool {
    space.routes.iter().any(|r| {
        r.table == LOCAL
            && matches!(r.kind, RouteKind::Local | RouteKind::Anycast)
            && same_family(r.dst, addr)
            && r.dst.contains(&addr)
    })
}

/// The route of the main table, whatever the policy rules say.
pub(super) fn in_main<'a>(space: &'a Space, ask: &Ask) -> Option<&'a Route> {
    match in_table(space, ask, MAIN, None, &Skip::default()) {
        Found::Route(chosen) => Some(chosen.route),
        _ => None,
    }
}
