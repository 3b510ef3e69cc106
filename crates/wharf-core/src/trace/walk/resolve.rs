//! Asking for a neighbour: do rules let the question and its answer through (ARP, neighbour discovery)?
//!
//! Not here: who would answer (`neighbour`), and what a bridge port does with broadcasts (`bridge`).

use std::net::{IpAddr, Ipv6Addr};

use crate::trace::env::{CtState, Ending};
use crate::trace::packet::{L4, Packet};
use crate::trace::report::Verdict;
use crate::trace::ruleset::{Hook, TableFamily};
use crate::trace::state::Place;

use super::conntrack::UNTRACKED;
use super::hooks::{Site, Sort, hook_name};
use super::segment::{Way, is_bridge, last};
use super::{Emit, Walk};

/// `ARPOP_REQUEST`, `ARPOP_REPLY`.
const ARP: (u16, u16) = (1, 2);
/// Neighbour solicitation and advertisement, as type and code.
const DISCOVERY: (u16, u16) = (135 << 8, 136 << 8);

impl<'a> Walk<'a> {
    /// The question and its answer meet rules, unless the sender knows its neighbour already.
    pub(super) fn check_resolution(&mut self, emit: &Emit<'a>, way: &Way) {
        let (from, to) = (
            Place {
                space: emit.space,
                index: emit.link,
            },
            last(way),
        );
        if self.known(emit).is_some() || self.resolved.contains(&(to, from)) {
            return;
        }
        if !self.has_such_rules(way, emit.next.is_ipv6()) {
            return;
        }
        self.resolved.push((from, to));
        let question = self.question(emit, way, false);
        let mut back: Way = way.clone();
        back.reverse();
        for leg in &mut back {
            leg.out = !leg.out;
        }
        let answer = self.question(emit, way, true);
        if !self.pass_along(way, question) {
            return;
        }
        self.pass_along(&back, answer);
    }

    /// Whether anything on the way has rules that see such packets.
    fn has_such_rules(&self, way: &Way, v6: bool) -> bool {
        way.iter().any(|leg| {
            let rules = &self.space(leg.place.space).ruleset;
            rules.chains.iter().any(|c| {
                c.base.is_some()
                    && match c.family {
                        TableFamily::Arp => !v6,
                        TableFamily::Ip6 | TableFamily::Inet => v6,
                        TableFamily::Bridge | TableFamily::Netdev => true,
                        TableFamily::Ip => false,
                    }
            })
        })
    }

    fn question(&self, emit: &Emit<'a>, way: &Way, answer: bool) -> Packet {
        let from = Place {
            space: emit.space,
            index: emit.link,
        };
        let mac = |p: Place| self.state.link(p).and_then(|l| l.mac);
        let own = self
            .space(emit.space)
            .addrs
            .iter()
            .find(|a| a.link == emit.link && a.net.contains(&emit.next))
            .map_or(emit.packet.src, |a| a.net.addr());
        let v6 = emit.next.is_ipv6();
        let (op, kind) = (
            if answer { ARP.1 } else { ARP.0 },
            if answer { DISCOVERY.1 } else { DISCOVERY.0 },
        );
        let (src, dst) = match (answer, emit.next) {
            (true, next) => (next, own),
            (false, IpAddr::V6(next)) => (own, solicited(next).into()),
            (false, next) => (own, next),
        };
        let (near, far) = (mac(from), mac(last(way)));
        Packet {
            src,
            dst,
            l4: L4::Icmp,
            sport: 0,
            dport: if v6 { kind } else { 0 },
            reply: false,
            ttl: 255,
            len: if v6 { 72 } else { 28 },
            mark: 0,
            tos: 0,
            src_mac: if answer { far } else { near },
            dst_mac: if answer { near } else { None },
            arp: (!v6).then_some(op),
        }
    }

    /// Whether rules let it pass along a way; what stops it is blamed.
    fn pass_along(&mut self, way: &Way, packet: Packet) -> bool {
        let (Some(first), Some(end)) = (way.first(), way.last()) else {
            return true;
        };
        let v6 = packet.dst.is_ipv6();
        let sort = if v6 { Sort::Ip } else { Sort::Arp };
        let mut sites = Vec::new();
        let mut out = Site::new(first.place.space, Hook::Output, sort);
        (out.oif, out.local) = (Some(first.place.index), true);
        sites.push(out);
        if v6 {
            sites.push(Site {
                hook: Hook::Postrouting,
                ..out
            });
        }
        for (at, leg) in way.iter().enumerate() {
            let mut device = Site::new(leg.place.space, Hook::Egress, Sort::Device);
            if leg.out {
                device.oif = Some(leg.place.index);
            } else {
                device.hook = Hook::Ingress;
                device.iif = Some(leg.place.index);
            }
            sites.push(device);
            let next = way.get(at + 1).filter(|n| n.place.space == leg.place.space);
            let Some(next) = next else {
                continue;
            };
            let (link, after) = (self.state.link(leg.place), self.state.link(next.place));
            let ported =
                |l: Option<&crate::trace::state::Link>| l.is_some_and(|l| l.master.is_some());
            let mut frame = Site::new(leg.place.space, Hook::Prerouting, Sort::Bridge);
            if ported(link) && (ported(after) || after.is_some_and(is_bridge)) {
                frame.iif = Some(leg.place.index);
                sites.push(frame);
                frame.oif = ported(after).then_some(next.place.index);
                frame.hook = if ported(after) {
                    Hook::Forward
                } else {
                    Hook::Input
                };
                sites.push(frame);
            } else if link.is_some_and(is_bridge) {
                frame.oif = Some(next.place.index);
                frame.hook = Hook::Output;
                sites.push(frame);
            }
            if frame.oif.is_some() {
                sites.push(Site {
                    hook: Hook::Postrouting,
                    iif: None,
                    ..frame
                });
            }
        }
        let mut into = Site::new(end.place.space, Hook::Prerouting, sort);
        into.iif = Some(end.place.index);
        if v6 {
            sites.push(into);
        }
        sites.push(Site {
            hook: Hook::Input,
            ..into
        });
        sites.into_iter().all(|site| self.lets_pass(site, &packet))
    }

    fn lets_pass(&mut self, site: Site, packet: &Packet) -> bool {
        let mut ct = CtState::begun(packet);
        ct.state = UNTRACKED;
        let space = self.space(site.space);
        let rules = self.mended.get(&site.space).unwrap_or(&space.ruleset);
        let run = self.evaluate(site, packet.clone(), &mut ct, rules);
        let (Ending::Drop | Ending::Reject, Some(blame)) = (run.ending, run.blame) else {
            return true;
        };
        let fault = self.fault_of_rule(site, &blame, packet);
        self.blame(Verdict::Dropped, hook_name(site.hook), fault);
        false
    }
}

/// The multicast address at which an address is asked for (RFC 4291, 2.7.1).
pub(super) fn solicited(addr: Ipv6Addr) -> Ipv6Addr {
    let last = u128::from(addr) & 0xff_ffff;
    Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000 | last)
}
