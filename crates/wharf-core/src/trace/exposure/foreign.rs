//! Ports that others publish: rules of Docker, of CNI plugins, or made by hand, that translate a port of the host to an
//! address elsewhere. The rules are asked for every port number that stands in them.

use std::net::{IpAddr, Ipv4Addr};

use crate::addr::Family;
use crate::publish::PortMapping;
use crate::trace::env::Blame;
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Cause, Code, Owner};
use crate::trace::ruleset::{Expr, Hook, Match, Ruleset, TableFamily};
use crate::trace::state::{HOST, ObservedState};
use crate::trace::walk::outlook::{self, At};
use crate::trace::{L4, Tracer};

use super::{Asked, PublishedPort, outside_addresses};

/// The most port numbers that are tried.
const MOST: usize = 512;

/// One answer of the rules.
struct Hit {
    l4: L4,
    port: u16,
    at: IpAddr,
    to: (IpAddr, u16),
    rule: Blame,
}

pub(super) fn published(state: &ObservedState) -> Vec<PublishedPort> {
    let rules = &state.host().ruleset;
    if !translates(rules) {
        return Vec::new();
    }
    // What wharf's own mappings take first is published all the same.
    let others = without_wharf(state);
    let tracer = Tracer::new(&others);
    let mut hits: Vec<Hit> = Vec::new();
    for port in ports(rules) {
        for l4 in [L4::Tcp, L4::Udp] {
            hits.extend(asked(state, &tracer, l4, port));
        }
    }
    let mut all: Vec<PublishedPort> = Vec::new();
    let mut done: Vec<(L4, u16, (IpAddr, u16))> = Vec::new();
    for hit in &hits {
        let key = (hit.l4, hit.port, hit.to);
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let alike: Vec<&Hit> = hits
            .iter()
            .filter(|h| (h.l4, h.port, h.to) == key)
            .collect();
        all.extend(entries(state, hit, &alike));
    }
    all
}

fn without_wharf(state: &ObservedState) -> ObservedState {
    let mut others = state.clone();
    if let Some(host) = others.spaces.get_mut(HOST) {
        let rules = &mut host.ruleset;
        rules.chains.retain(|c| !is_wharf(c.family, &c.table));
        rules.sets.retain(|s| !is_wharf(s.family, &s.table));
    }
    others
}

/// A mapping of wharf's that takes what the rule of somebody else publishes as well.
pub(super) fn shadowed(
    state: &ObservedState,
    rule: &str,
    l4: L4,
    ip: IpAddr,
    port: u16,
) -> Option<Cause> {
    let family = Family::of(ip);
    let fits = |(of, m): &(Family, PortMapping)| {
        *of == family
            && m.protocol.number() == l4.number(family)
            && m.bound_to().is_none_or(|bound| bound == ip)
            && (m.host.first()..=m.host.last()).contains(&port)
    };
    let (name, mapping) = state.containers.iter().find_map(|c| {
        let (_, mapping) = state.published(c).into_iter().find(fits)?;
        Some((&c.name, mapping))
    })?;
    let shown = outlook::show_end(ip, port);
    Some(Cause {
        code: Code::PublishShadowed,
        netns: state.host().name.clone(),
        object: shown.clone(),
        owner: Owner::Wharf,
        summary: format!("wharf's mapping to {name} takes {shown} before that rule sees it."),
        evidence: vec![
            format!("wharf port ls {name}: {mapping}"),
            format!("nft -a list ruleset: {rule}"),
        ],
        fix: vec![format!("wharf port rm {name} {mapping}")],
    })
}

/// One entry for all addresses, or one for each that answers.
fn entries(state: &ObservedState, hit: &Hit, alike: &[&Hit]) -> Vec<PublishedPort> {
    let family = Family::of(hit.at);
    let outer = outside_addresses(state, family);
    let everywhere = outer.iter().all(|(_, a)| alike.iter().any(|h| h.at == *a));
    if everywhere && !outer.is_empty() {
        return vec![entry(state, hit, None)];
    }
    let one = |h: &&&Hit| !h.at.is_loopback() || alike.len() == 1;
    alike
        .iter()
        .filter(one)
        .map(|h| entry(state, h, Some(h.at)))
        .collect()
}

fn entry(state: &ObservedState, hit: &Hit, bound: Option<IpAddr>) -> PublishedPort {
    let (to, inner) = hit.to;
    let mut spaces = state.spaces.iter().enumerate();
    let owner = spaces.find(|(id, s)| *id != HOST && s.addrs.iter().any(|a| a.net.addr() == to));
    let family = Family::of(hit.at);
    let any = if family == Family::V4 {
        "0.0.0.0"
    } else {
        "::"
    };
    PublishedPort {
        container: Some(owner.map_or(to.to_string(), |(_, s)| s.name.clone())),
        owner: hit.rule.owner,
        host_ip: bound.map_or(any.to_owned(), |ip| ip.to_string()),
        host_port: hit.port.to_string(),
        container_port: inner.to_string(),
        protocol: if hit.l4 == L4::Udp { "udp" } else { "tcp" }.to_owned(),
        direct: Vec::new(),
        reach: Vec::new(),
        claims: Vec::new(),
        differs: Vec::new(),
        rule: Some(format!("{}: {}", outlook::shown(&hit.rule), hit.rule.text)),
        asked: Asked {
            l4: Some(hit.l4),
            port: hit.port,
            bound,
            direct: [None; 2],
            inside: inner,
            families: [family == Family::V4, family == Family::V6],
            space: owner.map(|(id, _)| id),
        },
    }
}

/// Where a port of the host's addresses is translated to, by others than wharf.
fn asked(state: &ObservedState, tracer: &Tracer, l4: L4, port: u16) -> Vec<Hit> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let src = outlook::stranger(state, family);
        let outer = outside_addresses(state, family);
        let mut sides: Vec<(At, IpAddr, IpAddr)> = Vec::new();
        for (link, ip) in outer {
            let at = At {
                hook: Hook::Prerouting,
                iif: Some(link),
                oif: None,
            };
            sides.push((at, src, ip));
        }
        if family == Family::V4 {
            let ip: IpAddr = Ipv4Addr::LOCALHOST.into();
            let lo = state.host().links.iter().find(|l| l.loopback);
            let at = At {
                hook: Hook::Output,
                iif: None,
                oif: lo.map(|l| l.index),
            };
            sides.push((at, ip, ip));
        }
        for (at, src, ip) in sides {
            let query = Query {
                source: Source::Outside(None),
                target: Target::Address(ip),
                l4,
                port,
            };
            let judged = outlook::judge(tracer, &query, at, src, ip);
            let Some(rule) = judged.translated.filter(|b| b.owner != Owner::Wharf) else {
                continue;
            };
            let to = (judged.packet.dst, judged.packet.dport);
            // A redirection to the host itself publishes nobody's port.
            if to.0 != ip && !outlook::is_local(state.host(), to.0) {
                all.push(Hit {
                    l4,
                    port,
                    at: ip,
                    to,
                    rule,
                });
            }
        }
    }
    all
}

fn is_wharf(family: TableFamily, table: &str) -> bool {
    table == crate::nft::Table::NAME && matches!(family, TableFamily::Inet | TableFamily::Bridge)
}

/// Whether anybody but wharf translates at all.
fn translates(rules: &Ruleset) -> bool {
    let chains = rules.chains.iter();
    chains
        .filter(|c| !is_wharf(c.family, &c.table))
        .flat_map(|c| &c.rules)
        .flat_map(|r| &r.exprs)
        .any(|e| matches!(e, Expr::Nat { .. }))
}

/// Numbers in others' rules and sets that may be ports.
fn ports(rules: &Ruleset) -> Vec<u16> {
    let two = |b: &[u8]| b.try_into().ok().map(u16::from_be_bytes);
    let mut all: Vec<u16> = Vec::new();
    let mut add = |port: u16| {
        if port != 0 && all.len() < MOST && !all.contains(&port) {
            all.push(port);
        }
    };
    let chains = rules.chains.iter();
    let others = chains.filter(|c| !is_wharf(c.family, &c.table));
    for expr in others.flat_map(|c| &c.rules).flat_map(|r| &r.exprs) {
        match expr {
            Expr::Match {
                test: Match::Dport(first, _),
                ..
            } => add(*first),
            Expr::Match {
                test: Match::Multiport { ports, .. },
                ..
            } => ports.iter().for_each(|(first, _)| add(*first)),
            Expr::Cmp { data, .. } => two(data).into_iter().for_each(&mut add),
            Expr::Range { from, .. } => two(from).into_iter().for_each(&mut add),
            _ => {}
        }
    }
    for set in rules.sets.iter().filter(|s| !is_wharf(s.family, &s.table)) {
        let several = set.fields.len() > 1;
        let mut at = 0;
        let place = set.fields.iter().find_map(|len| {
            let here = at;
            at += if several { len.div_ceil(4) * 4 } else { *len };
            (*len == 2).then_some(here as usize)
        });
        let Some(place) = place else {
            continue;
        };
        let keys = set
            .elements
            .iter()
            .filter_map(|e| e.from.get(place..place + 2));
        keys.filter_map(two).for_each(&mut add);
    }
    all
}
