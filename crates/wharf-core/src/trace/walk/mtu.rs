//! Full-size packets: where they vanish although small ones pass.
//!
//! A router tells the sender that a packet is too large; a bridge, and a cable whose other end is narrower, do not.

use crate::trace::env::{Blame, CtState, Ending};
use crate::trace::packet::{L4, Packet};
use crate::trace::report::Code;
use crate::trace::ruleset::Hook;
use crate::trace::state::{Link, Place, SpaceId};

use super::Walk;
use super::arrival::Arrived;
use super::fault::Fault;
use super::hooks::{Site, Sort};
use super::host::Out;
use super::owner;
use super::route;
use super::rules::object;
use super::segment::{Leg, is_bridge};
use super::source;

/// What the kernel allows above a link's MTU where frames are passed on: a VLAN tag (`is_skb_forwardable`).
const SLACK: u32 = 4;
/// The state bit of `related`.
const RELATED: u32 = 4;

impl<'a> Walk<'a> {
    /// Notes a link that a full-size packet does not pass. The sending link itself was asked by routing.
    pub(super) fn check_fits(&mut self, leg: Leg, link: &Link) {
        let cable = link.kind.as_deref() == Some("veth");
        let passed_on = leg.out && link.master.is_some();
        let limit = link.mtu.saturating_add(SLACK);
        if self.full <= limit || is_bridge(link) || link.loopback || link.mtu == 0 {
            return;
        }
        if !(passed_on || cable && !leg.out) {
            return;
        }
        let space = self.space(leg.place.space);
        let (name, mtu, full) = (&link.name, link.mtu, self.full);
        let what = format!(
            "Packets of {full} bytes do not pass {name} in {}, whose MTU is {mtu}, and nobody tells the sender.",
            space.name
        );
        let mut fault = Fault::new(Code::MtuExceeded, leg.place.space, name.clone(), what)
            .owner(owner::of_link(self.state, leg.place))
            .evidence(format!("{}ip link show {name}: mtu {mtu}", space.enter));
        let sent = self.sent_by.map(|(space, index)| Place { space, index });
        let mut widen = format!("{}ip link set {name} mtu {full}", space.enter);
        if let (Some(place), Some(l)) = (sent, sent.and_then(|p| self.state.link(p))) {
            let enter = &self.space(place.space).enter;
            fault = fault.evidence(format!("{enter}ip link show {}: mtu {}", l.name, l.mtu));
            // What a tunnel can carry is settled by what is below it.
            if link.kind.as_deref() == Some("vxlan") {
                widen = format!("{enter}ip link set {} mtu {mtu}", l.name);
            }
        }
        fault = fault.fix(widen);
        self.narrow.push((limit, fault));
    }

    /// A router tells the sender that a packet is too large (RFC 1191, RFC 8201): do rules let it?
    pub(super) fn check_too_big(
        &mut self,
        id: SpaceId,
        back: &Link,
        out: &Out<'a>,
        packet: &Packet,
    ) {
        let space = self.space(id);
        let near = source::usable_addresses(space)
            .find(|a| a.link == back.index && route::same_family(a.net, packet.src));
        let Some(own) = near else {
            return;
        };
        let v4 = packet.src.is_ipv4();
        let error = Packet {
            src: own.net.addr(),
            dst: packet.src,
            l4: L4::Icmp,
            // Fragmentation needed, packet too big.
            dport: if v4 { 0x0304 } else { 0x0200 },
            ttl: 64,
            len: if v4 { 96 } else { 1280 },
            ..packet.clone()
        };
        let mut sites = vec![
            (id, Hook::Output, None, Some(back.index)),
            (id, Hook::Postrouting, None, Some(back.index)),
        ];
        let last = if self.reply {
            self.replier
        } else {
            self.origin
        };
        if let (Some(end), Some((at, link))) = (last, self.sent_by)
            && end == at
        {
            sites.push((end, Hook::Prerouting, Some(link), None));
            sites.push((end, Hook::Input, Some(link), None));
        }
        let stopped = sites.into_iter().find_map(|(space, hook, iif, oif)| {
            let mut site = Site::new(space, hook, Sort::Ip);
            (site.iif, site.oif, site.local) = (iif, oif, iif.is_none());
            let mut ct = CtState::begun(&error);
            ct.state = RELATED;
            let rules = &self.space(space).ruleset;
            let run = self.evaluate(site, error.clone(), &mut ct, rules);
            let ends = matches!(run.ending, Ending::Drop | Ending::Reject);
            run.blame.filter(|_| ends).map(|b| (site, b))
        });
        if let Some((site, rule)) = stopped {
            let fault = self.untold(id, out, site, &rule, &error);
            self.narrow.push((out.mtu, fault));
        }
    }

    fn untold(
        &self,
        id: SpaceId,
        out: &Out<'a>,
        site: Site,
        rule: &Blame,
        error: &Packet,
    ) -> Fault {
        let space = self.space(id);
        let (mtu, full) = (out.mtu, self.full);
        let name = space.link(out.link).map_or("?", |l| l.name.as_str());
        let shown = object(rule);
        let what = format!(
            "Packets of {full} bytes do not fit {name} ({mtu} bytes), and {shown} drops the message that would tell the sender."
        );
        let by_rule = self.fault_of_rule(site, rule, error);
        Fault::new(Code::MtuExceeded, site.space, shown, what)
            .owner(rule.owner)
            .evidence(format!("{}ip link show {name}: mtu {mtu}", space.enter))
            .evidence(by_rule.evidence.join("; "))
            .fixes(by_rule.fix)
    }

    /// Both ends of a TCP connection keep to the smaller of their MTUs (RFC 9293, 3.7.1).
    pub(super) fn judge_size(&mut self, arrived: &Option<Arrived>) {
        let Some(Arrived::In { space, iif, .. }) = arrived else {
            return;
        };
        if self.query.l4 != L4::Tcp {
            return;
        }
        let far = self.space(*space).link(*iif).map_or(u32::MAX, |l| l.mtu);
        self.narrow.retain(|(limit, _)| far > *limit);
    }
}
