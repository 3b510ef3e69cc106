//! The wrong link was chosen: another one of the sender leads to the destination.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{Place, Route, SpaceId};

use super::fault::Fault;
use super::host::six;
use super::owner::holders;
use super::route::{self, Ask, Found, Skip};
use super::segment::segment;
use super::show::{deletable, show_route};
use super::{Emit, Step, Walk};

impl<'a> Walk<'a> {
    /// Another link of the sender leads to the owner: the wrong one was chosen.
    pub(super) fn competing(
        &self,
        emit: &Emit<'a>,
        here: Place,
        owner: Place,
    ) -> Option<(Fault, Step<'a>)> {
        let space = self.space(emit.space);
        let right = space.links.iter().find(|l| {
            let place = Place {
                space: emit.space,
                index: l.index,
            };
            let covers = space
                .addrs
                .iter()
                .any(|a| a.link == l.index && a.net.contains(&emit.next));
            place != here
                && !l.loopback
                && l.master.is_none()
                && (covers || self.routed_by(emit, l.index))
                && segment(self.state, place).way_to(owner).is_some()
        })?;
        let out = self.on_link(emit.space, right.index, emit.next);
        let step = Step::Emit(Emit {
            link: out.link,
            next: out.next,
            gateway: false,
            text: out.text,
            rule: None,
            ..emit.clone()
        });
        let (addr, name, six) = (emit.next, &right.name, six(emit.next));
        if let Some(rule) = emit.rule {
            let how = format!(
                "which sends it by {}, but {addr} is behind {name}",
                emit.text
            );
            return Some((self.policy(emit.space, rule, &how), step));
        }
        let what = format!(
            "{addr} is behind {name}, but the route {} of {} comes first.",
            emit.text, space.name
        );
        let whole = Family::of(addr).bits();
        let covers_rightly = |r: &Route| {
            r.dst.contains(&addr)
                && r.hops
                    .iter()
                    .any(|h| h.link == Some(right.index) && h.via.is_none())
        };
        let fault = Fault::new(Code::RouteConflict, emit.space, emit.text.clone(), what)
            .evidence(format!(
                "{}ip {six}route get {addr}: {}",
                space.enter, emit.text
            ))
            .evidence(format!("{}ip {six}route show match {addr}", space.enter))
            .fix(if self.is_made(emit, covers_rightly) {
                format!("{}ip {six}route del {}", space.enter, deletable(&emit.text))
            } else {
                format!(
                    "{}ip {six}route replace {addr}/{whole} dev {name}",
                    space.enter
                )
            });
        Some((fault, step))
    }

    /// Whether the route taken is one that somebody made, and without it one that is `right` would be taken.
    fn is_made(&self, emit: &Emit<'a>, right: impl Fn(&Route) -> bool) -> bool {
        /// `RTPROT_KERNEL`.
        const KERNEL: u8 = 2;
        let space = self.space(emit.space);
        let routes = || space.routes.iter().filter(|r| r.table == route::MAIN);
        let taken = routes().find(|r| {
            r.dst.contains(&emit.next)
                && r.hops
                    .iter()
                    .any(|h| show_route(space, r, Some(h)) == emit.text)
        });
        taken.is_some_and(|t| {
            t.protocol != KERNEL && routes().any(|r| !std::ptr::eq(r, t) && right(r))
        })
    }

    pub(super) fn routed_by(&self, emit: &Emit<'a>, link: u32) -> bool {
        self.space(emit.space).routes.iter().any(|r| {
            r.dst.contains(&emit.next)
                && r.dst.prefix_len() > 0
                && r.hops
                    .iter()
                    .any(|h| h.link == Some(link) && h.via.is_none())
        })
    }

    /// A packet is about to leave by a wire, but its destination is on this host.
    pub(super) fn wrong_exit(&mut self, emit: &Emit<'a>, place: Place) -> Option<Step<'a>> {
        let (fault, step) = self.nearer(emit, place)?;
        self.blame(Verdict::Dropped, "route", fault);
        Some(step)
    }

    /// The destination is on another link of the sender, and the route does not know.
    pub(super) fn nearer(&self, emit: &Emit<'a>, place: Place) -> Option<(Fault, Step<'a>)> {
        let dst = emit.packet.dst;
        let all = holders(self.state, dst);
        let owner = all.iter().copied().find(|p| p.space != emit.space)?;
        let direct = Emit {
            next: dst,
            ..emit.clone()
        };
        self.competing(&direct, place, owner)
            .or_else(|| self.too_narrow(&direct, owner))
    }

    /// A link of the sender reaches the owner, but its prefix does not hold the address.
    pub(super) fn too_narrow(&self, emit: &Emit<'a>, owner: Place) -> Option<(Fault, Step<'a>)> {
        let space = self.space(emit.space);
        let link = space.links.iter().find(|l| {
            let place = Place {
                space: emit.space,
                index: l.index,
            };
            !l.loopback && l.master.is_none() && segment(self.state, place).way_to(owner).is_some()
        })?;
        let out = self.on_link(emit.space, link.index, emit.next);
        let step = Step::Emit(Emit {
            link: out.link,
            next: out.next,
            gateway: false,
            text: out.text,
            rule: None,
            ..emit.clone()
        });
        let far = self.space(owner.space).addrs.iter();
        let far = far.into_iter().find(|a| a.net.addr() == emit.next)?;
        let own = space.addrs.iter();
        let own = own
            .into_iter()
            .find(|a| a.link == link.index && far.net.contains(&a.net.addr()));
        let (dev, addr) = (&link.name, emit.next);
        let fault = match own {
            Some(own) => {
                let shown = format!("{} dev {dev}", own.net);
                let what = format!(
                    "The prefix of {shown} does not hold {addr}, which is on that segment."
                );
                let net = format!("{}/{}", own.net.addr(), far.net.prefix_len());
                Fault::new(Code::WrongPrefixLength, emit.space, shown.clone(), what)
                    .evidence(format!("{}ip route get {addr}: {}", space.enter, emit.text))
                    .fix(format!("{}ip addr add {net} dev {dev}", space.enter))
                    .fix(format!("{}ip addr del {} dev {dev}", space.enter, own.net))
            }
            None => {
                let what = format!(
                    "{} has no route to {addr}, which is behind {dev}.",
                    space.name
                );
                Fault::new(Code::NoRoute, emit.space, addr.to_string(), what)
                    .evidence(format!("{}ip route get {addr}: {}", space.enter, emit.text))
                    .fix(format!(
                        "{}ip route add {} dev {dev}",
                        space.enter,
                        far.net.trunc()
                    ))
            }
        };
        Some((fault, step))
    }

    /// The lookup that leads to an address, for a space.
    pub(super) fn leads(&self, id: SpaceId, dst: IpAddr) -> Option<u32> {
        match route::lookup(self.space(id), &Ask::to(dst), &Skip::default()) {
            Found::Route(c) => c.hop.and_then(|h| h.link),
            _ => None,
        }
    }
}
