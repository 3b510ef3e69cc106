//! Packet rules on the way: each hook is run, and what it says becomes hops, notes and causes.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::env::{Blame, CtState, Ending, Env, Fib, Layer, Run, Translation};
use crate::trace::eval::{lookup, run_hook};
use crate::trace::packet::Packet;
use crate::trace::report::{Code, HopVerdict, Verdict};
use crate::trace::ruleset::{Hook, Ruleset, TableFamily};
use crate::trace::state::{RouteKind, Space, SpaceId};

use super::Walk;
use super::conntrack::{NEW, UNTRACKED};
use super::fault::Fault;
use super::route::{self, Ask, Found, Refuser, Skip};
use super::socket;

/// How often a hook is run again without the rule that was blamed.
const MOST_RUNS: usize = 6;

/// Which rules are run, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// IP rules, for a packet in the IP stack.
    Ip,
    /// IP rules, for a frame that a bridge passes on (br_netfilter).
    Bridged,
    /// Bridge rules.
    Bridge,
    /// Rules for ARP.
    Arp,
    /// Rules of one device.
    Device,
}

/// Where the packet is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub space: SpaceId,
    pub hook: Hook,
    pub sort: Sort,
    pub iif: Option<u32>,
    pub oif: Option<u32>,
    pub port_in: Option<u32>,
    pub port_out: Option<u32>,
    pub local: bool,
}

impl Site {
    pub fn new(space: SpaceId, hook: Hook, sort: Sort) -> Self {
        Self {
            space,
            hook,
            sort,
            iif: None,
            oif: None,
            port_in: None,
            port_out: None,
            local: false,
        }
    }

    fn of_ip(self) -> bool {
        matches!(self.sort, Sort::Ip | Sort::Bridged)
    }

    /// Where conntrack looks a packet up.
    fn is_entry(self) -> bool {
        self.of_ip() && matches!(self.hook, Hook::Prerouting | Hook::Output)
    }
}

/// Routing as rules ask for it.
struct SpaceFib<'s>(&'s Space);

impl Fib for SpaceFib<'_> {
    fn addr_type(&self, addr: IpAddr, link: Option<u32>) -> u8 {
        let on = |r: &&crate::trace::state::Route| {
            link.is_none_or(|l| r.hops.iter().any(|h| h.link == Some(l)))
        };
        let local = self
            .0
            .routes
            .iter()
            .filter(|r| r.table == 255 && route::same_family(r.dst, addr))
            .filter(|r| r.dst.contains(&addr))
            .filter(on)
            .max_by_key(|r| r.dst.prefix_len());
        match local.map(|r| r.kind) {
            Some(RouteKind::Local) => 2,
            Some(RouteKind::Broadcast) => 3,
            Some(RouteKind::Anycast) => 4,
            Some(RouteKind::Multicast) => 5,
            _ if addr.is_multicast() => 5,
            _ => 1,
        }
    }

    fn oif(&self, to: IpAddr, from: Option<IpAddr>, mark: u32, via: Option<u32>) -> Option<u32> {
        let mut ask = Ask::to(to);
        (ask.src, ask.mark, ask.oif) = (from, mark, via);
        match route::lookup(self.0, &ask, &Skip::default()) {
            Found::Route(chosen) => chosen.hop.and_then(|h| h.link),
            Found::Refused(Refuser::Route(..) | Refuser::Rule(_)) | Found::Nothing => None,
        }
    }

    fn has_socket(&self, packet: &Packet) -> bool {
        socket::takes(self.0, packet, None).is_some()
    }
}

/// Whether any base chain would see the packet.
fn concerns(rules: &Ruleset, site: Site, family: Family) -> bool {
    rules.chains.iter().any(|c| {
        let base = c.base.as_ref().is_some_and(|b| b.hook == site.hook);
        base && match (site.sort, c.family) {
            (Sort::Ip | Sort::Bridged, TableFamily::Inet) => true,
            (Sort::Ip | Sort::Bridged, TableFamily::Ip) => family == Family::V4,
            (Sort::Ip | Sort::Bridged, TableFamily::Ip6) => family == Family::V6,
            (Sort::Bridge, TableFamily::Bridge) => true,
            (Sort::Device, TableFamily::Netdev | TableFamily::Inet) => true,
            _ => false,
        }
    })
}

impl<'a> Walk<'a> {
    /// Runs the rules of one hook; the packet comes out as it goes on.
    pub(super) fn rules(&mut self, site: Site, packet: Packet) -> Packet {
        let space = self.space(site.space);
        // A packet over loopback keeps the connection that it got where it was made.
        let again = site
            .iif
            .and_then(|i| space.link(i))
            .is_some_and(|l| l.loopback);
        if site.is_entry() && !(site.hook == Hook::Prerouting && again) {
            self.track(site.space, &packet);
        }
        let mut out = packet;
        for _ in 0..MOST_RUNS {
            let rules = self.mended.get(&site.space).unwrap_or(&space.ruleset);
            let mut ct = self.connection(site.space, &out);
            if !concerns(rules, site, out.family()) {
                if site.is_entry() && ct.reply_direction && ct.reply_zone != 0 {
                    // No rule puts the answer into the zone of the question.
                    let zones = (ct.zone, ct.reply_zone);
                    (ct.zone, ct.reply_zone) = (0, 0);
                    lookup::found(&mut ct, zones, &out);
                    self.keep(site.space, site.hook, ct);
                }
                break;
            }
            let run = self.evaluate(site, out.clone(), &mut ct, rules);
            for maybe in &run.maybe {
                let text = format!("{}: {} may also decide", space.name, show(maybe));
                self.note(text);
            }
            match (run.ending, &run.blame) {
                (Ending::Drop | Ending::Reject, Some(blame)) => {
                    let verdict = if run.ending == Ending::Drop {
                        Verdict::Dropped
                    } else {
                        Verdict::Rejected
                    };
                    let fault = self.fault_of_rule(site, blame, &run.packet);
                    self.blame(verdict, hook_name(site.hook), fault);
                    if !self.mend(site.space, &blame.clone()) {
                        break;
                    }
                }
                _ => {
                    out = self.accepted(site, out, run, ct);
                    break;
                }
            }
        }
        if site.of_ip() {
            self.after(site, &mut out);
        }
        out
    }

    pub(super) fn evaluate(
        &self,
        site: Site,
        packet: Packet,
        ct: &mut CtState,
        rules: &Ruleset,
    ) -> Run {
        let space = self.space(site.space);
        let link = |i: Option<u32>| i.and_then(|i| space.link(i));
        let device = match site.hook {
            Hook::Egress => link(site.oif),
            _ => link(site.iif),
        };
        let layer = match site.sort {
            Sort::Ip | Sort::Bridged => Layer::Ip,
            Sort::Bridge => Layer::Bridge,
            Sort::Arp => Layer::Arp,
            Sort::Device => Layer::Device(device.map_or("", |l| l.name.as_str())),
        };
        let fib = SpaceFib(space);
        let env = Env {
            space,
            hook: site.hook,
            layer,
            iif: link(site.iif),
            oif: link(site.oif),
            port_in: link(site.port_in),
            port_out: link(site.port_out),
            local: site.local,
            fib: &fib,
        };
        if std::ptr::eq(rules, &raw const space.ruleset) {
            return self.whole.run(site.space, &env, packet, ct);
        }
        run_hook(&env, packet, ct, rules)
    }

    fn accepted(&mut self, site: Site, before: Packet, run: Run, ct: CtState) -> Packet {
        if run.ending == Ending::Unknown {
            self.unknown = true;
            let rule = run.blame.as_ref().map_or("a rule".to_owned(), show);
            let name = &self.space(site.space).name;
            self.note(format!("{name}: {rule} decides, and cannot be evaluated"));
        }
        for t in &run.translations {
            self.show_translation(site.space, t);
            if t.source {
                self.snat = Some((site.space, t.rule.clone(), t.addr));
            } else {
                self.dnat = Some((site.space, t.rule.clone(), t.addr));
                self.dnat_at = Some((site, before.clone()));
            }
        }
        if run.packet.ttl != before.ttl {
            let word = |b: &&Blame| {
                let text = b.text.to_lowercase();
                ["ttl", "hoplimit", "hl-set", "hl-dec"]
                    .iter()
                    .any(|w| text.contains(w))
            };
            let by = run.seen.iter().rev().find(word).or(run.seen.last());
            self.ttl_by = by.map(|rule| (site, rule.clone()));
        }
        if ct.zone != 0 || ct.reply_zone != 0 {
            let word = |b: &&Blame| b.text.to_lowercase().contains("zone");
            let by = run.seen.iter().rev().find(word);
            let by = by.map(|rule| (site.space, rule.clone()));
            self.zoned_by
                .extend(by.filter(|by| !self.zoned_by.contains(by)));
        }
        if ct.state & UNTRACKED != 0 && !self.reply {
            let word = |b: &&Blame| b.text.to_lowercase().contains("notrack");
            let by = run.seen.iter().find(word);
            let by = by.map(|rule| (site.space, rule.clone()));
            self.untracked_by = self.untracked_by.take().or(by);
        }
        if let Some(blame) = &run.blame {
            self.hop(site.space, hook_name(site.hook), &show(blame), "accepts");
        }
        if site.of_ip() {
            self.keep(site.space, site.hook, ct);
        }
        run.packet
    }

    /// What conntrack does besides the rules.
    fn after(&mut self, site: Site, packet: &mut Packet) {
        let ct = self.connection(site.space, packet);
        if site.is_entry() {
            self.check_full(site.space, &ct);
        }
        if site.hook != Hook::Forward {
            self.check_stale(site.space, site.hook, &ct);
        }
        if ct.state & NEW != 0 && ct.state & UNTRACKED == 0 {
            self.keep(site.space, site.hook, ct);
        }
        self.translate_back(site.space, site.hook, packet);
    }

    fn show_translation(&mut self, space: SpaceId, t: &Translation) {
        let to = match t.port {
            Some(port) => super::ends::show_end(t.addr, port),
            None => t.addr.to_string(),
        };
        let end = if t.source { "source" } else { "destination" };
        let text = format!("{}: the {end} becomes {to}", t.how);
        self.translated(space, &show(&t.rule), &text);
        self.check_ports(space, t);
    }

    pub(super) fn translated(&mut self, space: SpaceId, object: &str, text: &str) {
        self.hop_with(space, "nat", object, text, HopVerdict::Translate);
    }

    /// A translation to a narrow range of ports may have none left.
    fn check_ports(&mut self, space: SpaceId, t: &Translation) {
        if !t.source || self.query.l4 == crate::trace::packet::L4::Icmp {
            return;
        }
        let s = self.space(space);
        let (first, last) = port_range(&t.rule.text).unwrap_or((1024, u16::MAX));
        let Some(ct) = self
            .current
            .get(&space)
            .and_then(|i| self.tracked.get(&space)?.get(*i))
        else {
            return;
        };
        let (far, port, protocol) = (ct.original.dst, ct.original.dport, ct.original.protocol);
        let taken: std::collections::BTreeSet<u16> = s
            .flows
            .iter()
            // A connection that has ended gives way.
            .filter(|f| !f.text.contains("TIME_WAIT") && !f.text.contains(" CLOSE "))
            .map(|f| &f.reply)
            .filter(|r| r.dst == t.addr && r.protocol == protocol)
            .filter(|r| (r.src, r.sport) == (far, port) && (first..=last).contains(&r.dport))
            .map(|r| r.dport)
            .collect();
        if taken.len() < usize::from(last - first) + 1 {
            return;
        }
        let fault = Fault::new(
            Code::PortsExhausted,
            space,
            show(&t.rule),
            format!(
                "All source ports {first}-{last} of {} towards {far} are taken.",
                t.addr
            ),
        )
        .owner(t.rule.owner)
        .evidence(format!("{}conntrack -L: {} flows", s.enter, taken.len()))
        .fixes(self.more_ports(s, &t.rule, far, (first, last)));
        self.blame(Verdict::Dropped, "nat", fault);
    }

    /// Commands that let a rule translate to any port; where its range is not found, that make room.
    fn more_ports(&self, s: &Space, rule: &Blame, far: IpAddr, range: (u16, u16)) -> Vec<String> {
        let (first, last) = range;
        let one = format!(":{first}");
        let narrow = [format!("{first}-{last}"), one];
        let found = narrow.iter().find(|n| rule.text.contains(n.as_str()));
        match found {
            Some(n) if n.starts_with(':') => super::rules::replaced(s, rule, n, ":1024-65535"),
            Some(n) => super::rules::replaced(s, rule, n, "1024-65535"),
            None => vec![format!("{}conntrack -D -d {far}", s.enter)],
        }
    }

    /// Takes a rule that was blamed out of what later packets see; false if it is not found.
    fn mend(&mut self, space: SpaceId, blame: &Blame) -> bool {
        let original = &self.space(space).ruleset;
        let rules = self.mended.entry(space).or_insert_with(|| original.clone());
        without(rules, blame)
    }
}

/// Takes a rule out, or a policy; false if it is not there.
pub(super) fn without(rules: &mut Ruleset, blame: &Blame) -> bool {
    let chain = rules.chains.iter_mut().find(|c| {
        (c.backend, c.family) == (blame.backend, blame.family)
            && c.table == blame.table
            && c.name == blame.chain
    });
    let Some(chain) = chain else {
        return false;
    };
    match (blame.handle, &mut chain.base) {
        (Some(handle), _) => {
            let before = chain.rules.len();
            chain.rules.retain(|r| r.handle != handle);
            chain.rules.len() < before
        }
        (None, Some(base)) => std::mem::replace(&mut base.drops, false),
        (None, None) => false,
    }
}

/// `:5000-5001` or `to-ports`-like ranges in a rule's text.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let last = text.rsplit([':', ' ']).find_map(|part| {
        let (a, b) = part.split_once('-')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    });
    last.filter(|(a, b): &(u16, u16)| a <= b)
}

pub(super) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// A rule or a base chain, as its tool names it.
pub(super) fn show(blame: &Blame) -> String {
    super::rules::object(blame)
}
