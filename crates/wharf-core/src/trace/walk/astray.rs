//! Routes by which a space keeps what is meant for others: to loopback, or as if an address were its own.

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{Route, RouteKind, SpaceId};

use super::Walk;
use super::ends::show_end;
use super::fault::Fault;
use super::host::{Out, six};
use super::owner;
use super::owner::holders;
use super::show::{deletable, show_route};
use super::socket::takes;

/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;

impl<'a> Walk<'a> {
    /// A route that sends to loopback what is not the space's own: it comes to nobody.
    pub(super) fn by_loopback(&self, id: SpaceId, out: &Out<'a>, packet: &Packet) -> Fault {
        let (space, text, dst) = (self.space(id), &out.text, packet.dst);
        let what = format!(
            "The route {text} keeps packets to {dst} in {}, which is not its address.",
            space.name
        );
        let (enter, six) = (&space.enter, six(dst));
        Fault::new(Code::RouteConflict, id, text.clone(), what)
            .evidence(format!("{enter}ip {six}route get {dst}: {text}"))
            .fix(format!("{enter}ip {six}route del {}", deletable(text)))
    }

    /// A route that somebody made has the space take an address that another one has.
    pub(super) fn kept_by_route(
        &self,
        id: SpaceId,
        iif: u32,
        packet: &Packet,
    ) -> Option<(Verdict, Fault)> {
        let (space, dst) = (self.space(id), packet.dst);
        if dst.is_loopback() || space.addrs.iter().any(|a| a.net.addr() == dst) {
            return None;
        }
        let keeps = |r: &&Route| {
            let kind = matches!(r.kind, RouteKind::Local | RouteKind::Broadcast);
            kind && r.protocol != KERNEL && r.dst.contains(&dst)
        };
        let made = space.routes.iter().filter(keeps);
        let made = made.max_by_key(|r| r.dst.prefix_len())?;
        let right = holders(self.state, dst)
            .into_iter()
            .find(|p| p.space != id)?;
        let broadcast = made.kind == RouteKind::Broadcast;
        let served = packet.l4 == L4::Icmp || takes(space, packet, Some(iif)).is_some();
        if served && !broadcast {
            return None;
        }
        let text = show_route(space, made, None);
        let (enter, six) = (&space.enter, six(dst));
        let what = format!(
            "The route {text} has {} take {}, which is an address of {}.",
            space.name,
            show_end(dst, packet.dport),
            self.space(right.space).name
        );
        let fault = Fault::new(Code::RouteConflict, id, text.clone(), what)
            .owner(owner::of_route(made))
            .evidence(format!("{enter}ip {six}route show table all: {text}"))
            .evidence(format!(
                "{}ip addr show dev {}: {dst}",
                self.space(right.space).enter,
                self.link_name(right)
            ))
            .fix(format!("{enter}ip {six}route del {}", deletable(&text)));
        let verdict = match broadcast {
            true => Verdict::Dropped,
            false => Verdict::Rejected,
        };
        Some((verdict, fault))
    }
}
