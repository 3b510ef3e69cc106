//! Full-size packets: where they vanish although small ones pass.
//!
//! A router tells the sender that a packet is too large; a bridge, and a cable whose other end is narrower, do not.

use crate::trace::packet::L4;
use crate::trace::report::Code;
use crate::trace::state::{Link, Place};

use super::Walk;
use super::fault::Fault;
use super::owner;
use super::reply::Arrived;
use super::segment::{Leg, is_bridge};

/// What the kernel allows above a link's MTU where frames are passed on: a VLAN tag (`is_skb_forwardable`).
const SLACK: u32 = 4;

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
        if let (Some(place), Some(l)) = (sent, sent.and_then(|p| self.state.link(p))) {
            let enter = &self.space(place.space).enter;
            fault = fault
                .evidence(format!("{enter}ip link show {}: mtu {}", l.name, l.mtu))
                .fix(format!("{enter}ip link set {} mtu {mtu}", l.name));
        }
        if sent.is_none() || link.kind.as_deref() != Some("vxlan") {
            fault = fault.fix(format!("{}ip link set {name} mtu {full}", space.enter));
        }
        self.narrow.push((limit, fault));
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
