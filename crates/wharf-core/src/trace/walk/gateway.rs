//! Gateways and on-link prefixes: is the next hop the router of its segment, and does the prefix fit the segment?

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::Code;
use crate::trace::state::{Address, HOST, Place, SpaceId};

use super::fault::Fault;
use super::host::six;
use super::neighbour::asks_with;
use super::route;
use super::segment::{Segment, is_bridge, last, segment};
use super::show::deletable;
use super::source;
use super::{Arrival, Emit, Step, Walk};

impl<'a> Walk<'a> {
    pub(super) fn gateway_gone(&self, emit: &Emit<'a>, seg: &Segment) -> Fault {
        let space = self.space(emit.space);
        let (via, six) = (emit.next, six(emit.next));
        let dev = self.link_name(Place {
            space: emit.space,
            index: emit.link,
        });
        let what = format!(
            "Nobody answers {} for the gateway {via} of {}.",
            asks_with(via),
            space.name
        );
        let mut fault = Fault::new(
            Code::NeighbourUnreachable,
            emit.space,
            format!("{via} dev {dev}"),
            what,
        )
        .evidence(format!("{}ip {six}neigh show {via}", space.enter))
        .evidence(format!("no namespace on the segment has {via}"));
        let far = seg
            .stations
            .iter()
            .map(last)
            .find(|p| p.space != emit.space);
        let bridge = seg.bridges(self.state).first().copied();
        let Some(router) = bridge.or(far) else {
            return fault.fix(format!(
                "{}ip {six}route del {}",
                space.enter,
                deletable(&emit.text)
            ));
        };
        let len = space
            .addrs
            .iter()
            .find(|a| a.net.contains(&via))
            .map_or(Family::of(via).bits(), |a| a.net.prefix_len());
        fault = fault.fix(format!(
            "{}ip addr add {via}/{len} dev {}",
            self.space(router.space).enter,
            self.link_name(router)
        ));
        fault
    }

    /// The next hop is not the router of its segment.
    pub(super) fn wrong_gateway(
        &self,
        id: SpaceId,
        text: &str,
        dst: IpAddr,
        right: Option<IpAddr>,
    ) -> Fault {
        let (space, six) = (self.space(id), six(dst));
        let instead = right.map_or(String::new(), |r| format!("; {r} is"));
        let what = format!(
            "The gateway of {} is no router of its segment ({text}){instead}.",
            space.name
        );
        let fault = Fault::new(Code::WrongGateway, id, text, what)
            .evidence(format!("{}ip {six}route get {dst}: {text}", space.enter));
        let words = text.split(" via").next().unwrap_or("default");
        let prefix = words.split(" dev").next().unwrap_or(words);
        // Beside an object no gateway is taken.
        let prefix = prefix.split(" nhid").next().unwrap_or(prefix);
        let metric = text
            .split_once(" metric ")
            .map_or(String::new(), |(_, m)| format!(" metric {m}"));
        match right {
            Some(r) => fault.fix(format!(
                "{}ip {six}route replace {prefix} via {r}{metric}",
                space.enter
            )),
            None => fault.fix(format!(
                "{}ip {six}route del {}",
                space.enter,
                deletable(text)
            )),
        }
    }

    /// The router that should have been asked.
    pub(super) fn right_gateway(&self, emit: &Emit<'a>) -> Option<IpAddr> {
        let all = self.space(emit.space).addrs.iter();
        all.into_iter()
            .filter(|a| a.link == emit.link && route::same_family(a.net, emit.next))
            .find_map(|a| self.router_near(emit.space, a))
            .filter(|r| *r != emit.next)
    }

    /// The address of a router on the segment of one of a space's addresses.
    pub(super) fn router_near(&self, id: SpaceId, own: &Address) -> Option<IpAddr> {
        let seg = segment(
            self.state,
            Place {
                space: id,
                index: own.link,
            },
        );
        let mut found: Vec<(bool, IpAddr)> = Vec::new();
        let mut others: Vec<IpAddr> = Vec::new();
        // A container is never the host's router: it would be given everything.
        let inner = |p: &Place| id == HOST && self.space(p.space).container.is_some();
        let near = seg.stations.iter().map(last).filter(|p| p.space != id);
        for place in near.filter(|p| !inner(p)) {
            let all = source::usable_addresses(self.space(place.space));
            let fit = all.filter(|a| a.link == place.index && own.net.contains(&a.net.addr()));
            if !self.is_router(place.space, own.net.addr()) {
                others.extend(fit.map(|a| a.net.addr()));
                continue;
            }
            found.extend(fit.map(|a| (place.space != HOST, a.net.addr())));
        }
        found.sort_by_key(|(other, _)| *other);
        // The host's one neighbour on its uplink is where it sends what it does not know; who hangs on its bridge is not.
        let bridge = self.space(id).link(own.link).is_some_and(is_bridge);
        let lone = id == HOST && !bridge && others.len() == 1;
        let lone = others.first().filter(|_| lone);
        found.first().map(|(_, a)| *a).or(lone.copied())
    }

    pub(super) fn by_gateway(&self, emit: &Emit<'a>, right: Option<IpAddr>) -> Step<'a> {
        match right {
            Some(next) if next != emit.next => Step::Emit(Emit {
                next,
                gateway: true,
                rule: None,
                ..emit.clone()
            }),
            _ => Step::End(Arrival::Lost),
        }
    }

    /// Others on the segment have a prefix that does not hold the address.
    pub(super) fn narrower(&self, emit: &Emit<'a>, seg: &Segment) -> bool {
        let all = self.space(emit.space).addrs.iter();
        let own = all
            .into_iter()
            .find(|a| a.link == emit.link && a.net.contains(&emit.next));
        let Some(own) = own else {
            return false;
        };
        seg.stations
            .iter()
            .map(last)
            .filter(|p| p.space != emit.space)
            .any(|p| {
                self.space(p.space).addrs.iter().any(|a| {
                    a.link == p.index
                        && own.net.contains(&a.net.addr())
                        && a.net.prefix_len() > own.net.prefix_len()
                        && a.net.prefix_len() < Family::of(emit.next).bits()
                        && !a.net.contains(&emit.next)
                })
            })
    }

    /// The sender takes the address to be on its link, and it is not.
    pub(super) fn too_wide(&self, emit: &Emit<'a>, owner: Option<Place>) -> Fault {
        let space = self.space(emit.space);
        let dev = self.link_name(Place {
            space: emit.space,
            index: emit.link,
        });
        let all = space.addrs.iter();
        let own = all
            .into_iter()
            .find(|a| a.link == emit.link && a.net.contains(&emit.next));
        let shown = own.map_or(emit.text.clone(), |a| format!("{} dev {dev}", a.net));
        let wher = owner.map_or(String::new(), |o| {
            format!(
                "; it is at {} in {}",
                self.link_name(o),
                self.space(o.space).name
            )
        });
        let what = format!(
            "{} takes {} to be on its link ({shown}){wher}.",
            space.name, emit.next
        );
        let fault = Fault::new(Code::WrongPrefixLength, emit.space, shown.clone(), what).evidence(
            format!("{}ip route get {}: {}", space.enter, emit.next, emit.text),
        );
        let Some(own) = own else {
            return fault.fix(format!(
                "{}ip route del {}",
                space.enter,
                deletable(&emit.text)
            ));
        };
        let len = self.common_length(emit, own.net.prefix_len());
        if let (true, Some(via)) = (len == own.net.prefix_len(), self.right_gateway(emit)) {
            // Both segments have this prefix: only a route of its own leads over.
            let (six, bits) = (six(emit.next), Family::of(emit.next).bits());
            return fault.fix(format!(
                "{}ip {six}route add {}/{bits} via {via}",
                space.enter, emit.next
            ));
        }
        let (six, nodad) = if own.net.addr().is_ipv6() {
            ("-6 ", " nodad")
        } else {
            ("", "")
        };
        let fault = fault
            .fix(format!("{}ip addr del {} dev {dev}", space.enter, own.net))
            .fix(format!(
                "{}ip addr add {}/{len} dev {dev}{nodad}",
                space.enter,
                own.net.addr()
            ));
        match self.right_gateway(emit) {
            Some(via) => fault.fix(format!(
                "{}ip {six}route replace default via {via}",
                space.enter
            )),
            None => fault,
        }
    }

    /// The prefix length that others on the segment use.
    pub(super) fn common_length(&self, emit: &Emit<'a>, wide: u8) -> u8 {
        let seg = segment(
            self.state,
            Place {
                space: emit.space,
                index: emit.link,
            },
        );
        let others = seg
            .stations
            .iter()
            .map(last)
            .filter(|p| p.space != emit.space);
        let mut lengths = others.flat_map(|p| {
            let all = self.space(p.space).addrs.iter();
            all.filter(move |a| a.link == p.index && route::same_family(a.net, emit.next))
                .map(|a| a.net.prefix_len())
        });
        lengths.find(|l| *l > wide).unwrap_or(wide)
    }
}
