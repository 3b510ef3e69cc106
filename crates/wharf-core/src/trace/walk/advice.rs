//! What advice needs to be commands: a free address of a segment, the gateway that was lost.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::trace::state::{Link, NeighbourState, Place, SpaceId};

use super::Walk;
use super::ends::addresses;
use super::host::six;
use super::owner::holders;
use super::route::{self, Ask};
use super::segment::{is_bridge, last, segment};

/// The most addresses of a segment that are looked at.
const MOST: usize = 4096;

impl<'a> Walk<'a> {
    /// Commands that give a space an address on one of its links, and a way out if it has none: the address it was
    /// meant to have, or a free one of the segment.
    pub(super) fn readdress(
        &self,
        id: SpaceId,
        link: u32,
        wish: Option<IpNet>,
        family: Family,
    ) -> Vec<String> {
        let space = self.space(id);
        let place = Place {
            space: id,
            index: link,
        };
        let dev = self.link_name(place);
        let router = self.prefix_near(place, family);
        let net = wish.or_else(|| self.free_address(router?));
        let Some(net) = net else {
            return Vec::new();
        };
        let (nodad, flag) = match family {
            Family::V6 => (" nodad", "-6 "),
            Family::V4 => ("", ""),
        };
        let mut all = vec![format!(
            "{}ip addr replace {net} dev {dev}{nodad}",
            space.enter
        )];
        let out = space.routes.iter().any(|r| {
            r.dst.prefix_len() == 0 && Family::of_net(r.dst) == family && !r.hops.is_empty()
        });
        if let Some(via) = router.filter(|_| !out && id != crate::trace::state::HOST) {
            all.push(format!(
                "{}ip {flag}route replace default via {}",
                space.enter,
                via.addr()
            ));
        }
        all
    }

    /// The address, with its prefix, of a router on the segment of a link.
    fn prefix_near(&self, place: Place, family: Family) -> Option<IpNet> {
        let seg = segment(self.state, place);
        let ends = seg
            .stations
            .iter()
            .map(last)
            .filter(|p| p.space != place.space);
        let mut found: Vec<(bool, IpNet)> = ends
            .flat_map(|p| {
                let router = self.is_router(p.space, family.any());
                addresses(self.space(p.space), family)
                    .filter(move |a| a.link == p.index)
                    .map(move |a| (!router, a.net))
            })
            .collect();
        found.sort_by_key(|(other, _)| *other);
        found
            .first()
            .filter(|(other, _)| !other)
            .map(|(_, net)| *net)
    }

    /// An address of a prefix that nobody has.
    fn free_address(&self, near: IpNet) -> Option<IpNet> {
        let taken = |a: &IpAddr| {
            !holders(self.state, *a).is_empty()
                || self.state.spaces.iter().any(|s| {
                    let known = s.neighbours.iter();
                    known.into_iter().any(|n| n.addr == *a && n.mac.is_some())
                })
        };
        let free = near.hosts().skip(1).take(MOST).find(|a| !taken(a))?;
        IpNet::new(free, near.prefix_len()).ok()
    }

    /// The router beyond a wire that was not read: the neighbour there, or by custom the first address of the prefix.
    pub(super) fn lost_gateway(&self, id: SpaceId, dst: IpAddr) -> Option<(u32, IpAddr)> {
        let space = self.space(id);
        let family = Family::of(dst);
        let outward = |l: &Link| !l.loopback && !is_bridge(l) && l.peer.is_none();
        // Of several, nobody can tell which leads out.
        let all = space
            .links
            .iter()
            .filter(|l| outward(l) && l.master.is_none());
        if all.count() > 1 {
            return None;
        }
        let wires = || addresses(space, family).filter(|a| space.link(a.link).is_some_and(outward));
        let neighbour = wires().find_map(|a| {
            let known = space.neighbours.iter().filter(|n| {
                n.link == a.link
                    && a.net.contains(&n.addr)
                    && n.mac.is_some()
                    && !matches!(n.state, NeighbourState::Failed | NeighbourState::Incomplete)
            });
            let first = known.into_iter().map(|n| n.addr).min()?;
            Some((a.link, first))
        });
        neighbour.or_else(|| {
            let a = wires().next()?;
            let first = a.net.hosts().find(|h| *h != a.net.network())?;
            (first != a.net.addr()).then_some((a.link, first))
        })
    }

    /// The command that makes a default route again.
    pub(super) fn default_route(&self, id: SpaceId, via: IpAddr) -> String {
        let space = self.space(id);
        // A gateway that there is no way to is taken by no route.
        if space.container.is_some() && route::in_main(space, &Ask::to(via)).is_none() {
            return "wharf repair".to_owned();
        }
        format!(
            "{}ip {}route add default via {via}",
            self.space(id).enter,
            six(via)
        )
    }
}
