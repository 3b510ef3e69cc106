//! Links that are not where frames would find them: cables whose bridge is gone, a link with addresses that was plugged
//! into a bridge.

use std::net::IpAddr;

use crate::addr::Family;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{Address, Link, Place, SpaceId};

use super::fault::Fault;
use super::owner;
use super::route;
use super::segment::is_bridge;
use super::{Emit, Walk};

impl<'a> Walk<'a> {
    /// Blames the missing bridge, where the sender's cable and that of another with its prefix are in none.
    pub(super) fn blame_loose(&mut self, emit: &Emit<'a>) -> bool {
        let Some((port, fault)) = self.without_bridge(emit) else {
            return false;
        };
        // Plugged in again it would still be shut.
        if self.state.link(port).is_some_and(|l| !l.up) {
            let shut = self.link_down(port);
            self.blame(Verdict::Dropped, "link", shut);
        }
        self.blame(Verdict::Dropped, "neighbour", fault);
        true
    }

    fn without_bridge(&self, emit: &Emit<'a>) -> Option<(Place, Fault)> {
        let sender = Place {
            space: emit.space,
            index: emit.link,
        };
        let port = self.state.link(sender)?.peer?;
        let mut own = self.space(emit.space).addrs.iter();
        let own = own.find(|a| a.link == emit.link && a.net.contains(&emit.next))?;
        let near = self.state.link(port)?;
        let single = own.net.prefix_len() + 1 >= Family::of_net(own.net).bits();
        if port.space == emit.space || single || !self.is_loose(port, near, own) {
            return None;
        }
        let space = self.space(port.space);
        let behind = |l: &&Link| {
            let peer = l.peer.filter(|p| *p != sender && p.space != port.space);
            peer.is_some_and(|p| self.is_of(p, own))
        };
        let others: Vec<&Link> = space.links.iter().filter(behind).collect();
        let at = |l: &Link| Place {
            space: port.space,
            index: l.index,
        };
        // Where one of them is on a bridge, or a bridge has the prefix, it is only this cable that was pulled out.
        let bridged = |l: &Link| is_bridge(l) && self.is_of(at(l), own);
        let there = others.iter().any(|l| !self.is_loose(at(l), l, own));
        if others.is_empty() || there || space.links.iter().any(bridged) {
            return None;
        }
        let cables: Vec<&Link> = std::iter::once(near).chain(others).collect();
        Some((port, self.bridge_missing(emit, port.space, own, &cables)))
    }

    /// In no bridge, and used for nothing else.
    fn is_loose(&self, place: Place, link: &Link, like: &Address) -> bool {
        let space = self.space(place.space);
        let same = |addr: IpAddr| route::same_family(like.net, addr);
        let mut addrs = space.addrs.iter();
        let addressed = addrs.any(|a| a.link == place.index && a.scope == 0 && same(a.net.addr()));
        let mut routes = space.routes.iter();
        let routed = routes.any(|r| {
            let by = r.hops.iter().any(|h| h.link == Some(place.index));
            by && same(r.dst.addr()) && r.dst.prefix_len() > 0 && like.net.contains(&r.dst)
        });
        let proxies =
            like.net.addr().is_ipv4() && self.either(place.space, &link.name, "proxy_arp");
        space.full && link.master.is_none() && !addressed && !routed && !proxies
    }

    /// A link with an address of the prefix.
    fn is_of(&self, place: Place, own: &Address) -> bool {
        let mut all = self.space(place.space).addrs.iter();
        all.any(|a| a.link == place.index && own.net.contains(&a.net.addr()))
    }

    /// The bridge that held cables together is gone, and with it the gateway's address.
    fn bridge_missing(
        &self,
        emit: &Emit<'a>,
        id: SpaceId,
        own: &Address,
        cables: &[&Link],
    ) -> Fault {
        let space = self.space(id);
        let enter = &space.enter;
        let names: Vec<&str> = cables.iter().map(|l| l.name.as_str()).collect();
        let mut free = (0..).map(|n| format!("br{n}"));
        let bridge = free.find(|n| space.link_named(n).is_none());
        let bridge = bridge.unwrap_or_default();
        let (first, prefix) = (names[0], own.net.trunc());
        let what = format!(
            "{first} is plugged into no bridge, and neither are the other cables of {prefix} ({}): their bridge is gone.",
            names[1..].join(", ")
        );
        let place = Place {
            space: id,
            index: cables[0].index,
        };
        let mut fault = Fault::new(Code::NotOnBridge, id, first, what)
            .owner(owner::of_link(self.state, place))
            .evidence(format!("{enter}ip link show {first}: no master"))
            .evidence(format!("{enter}bridge link show"))
            .fix(format!("{enter}ip link add {bridge} type bridge"));
        for (via, len) in self.gateways(emit) {
            let nodad = if via.is_ipv6() { " nodad" } else { "" };
            fault = fault.fix(format!(
                "{enter}ip addr add {via}/{len} dev {bridge}{nodad}"
            ));
        }
        fault = fault.fix(format!("{enter}ip link set {bridge} up"));
        let plug = names
            .iter()
            .map(|name| format!("{enter}ip link set {name} master {bridge} up"));
        fault.fixes(plug)
    }

    /// The sender's gateways on the link, which nobody has.
    fn gateways(&self, emit: &Emit<'a>) -> Vec<(IpAddr, u8)> {
        let space = self.space(emit.space);
        let mut all: Vec<(IpAddr, u8)> = Vec::new();
        let hops = space.routes.iter().flat_map(|r| &r.hops);
        for via in hops
            .filter(|h| h.link == Some(emit.link))
            .filter_map(|h| h.via)
        {
            let mut own = space.addrs.iter();
            let own = own.find(|a| a.link == emit.link && a.net.contains(&via) && a.scope == 0);
            let known = all.iter().any(|(other, _)| *other == via);
            if let Some(own) = own.filter(|_| !known && owner::holders(self.state, via).is_empty())
            {
                all.push((via, own.net.prefix_len()));
            }
        }
        all
    }

    /// A link with addresses that is a port of a bridge: what comes in by it is the bridge's.
    pub(super) fn taken_by_bridge(&self, place: Place) -> Option<Fault> {
        let space = self.space(place.space);
        let link = self.state.link(place).filter(|l| !l.loopback)?;
        let bridge = space.link(link.master?).filter(|l| is_bridge(l))?;
        let mut addrs = space.addrs.iter();
        let own = addrs.find(|a| a.link == place.index && a.scope == 0)?;
        let (name, master, enter) = (&link.name, &bridge.name, &space.enter);
        let what = format!(
            "{name} in {} was plugged into the bridge {master}, which gets all that comes in by it, answers for {} too.",
            space.name,
            own.net.addr()
        );
        Some(
            Fault::new(Code::NotOnBridge, place.space, name.clone(), what)
                .owner(owner::of_link(self.state, place))
                .evidence(format!("{enter}ip link show {name}: master {master}"))
                .evidence(format!("{enter}ip addr show dev {name}: {}", own.net))
                .fix(format!("{enter}ip link set {name} nomaster")),
        )
    }
}
