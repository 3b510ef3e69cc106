//! Nobody answers for the next hop on its link: why.

use std::net::IpAddr;

use crate::network::NetworkSpec;
use crate::trace::query::Target;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{HOST, Place, SpaceId};

use super::fault::Fault;
use super::host::six;
use super::neighbour::asks_with;
use super::owner::{self, holders, meant_for};
use super::route::{self};
use super::rules::object;
use super::segment::{Segment, is_bridge, last};
use super::show::deletable;
use super::{Arrival, Emit, Enter, Step, Walk};

impl<'a> Walk<'a> {
    /// Blames what keeps the next hop from answering, and goes on as if it did.
    pub(super) fn missing(&mut self, emit: Emit<'a>, seg: &Segment) -> Step<'a> {
        let own = self.space(emit.space).addrs.iter();
        let mut own = own.filter(|a| a.link == emit.link && emit.space != HOST);
        if let Some(fault) = own.find_map(|a| self.bridge_gone(a.net.addr())) {
            self.blame(Verdict::Dropped, "neighbour", fault);
            return Step::End(Arrival::Lost);
        }
        if self.blame_loose(&emit) {
            return Step::End(Arrival::Lost);
        }
        let all = holders(self.state, emit.next);
        // A namespace that hangs together with this one by nothing is not where the packet could have gone.
        let asked = |id| matches!(self.query.target, Target::Space(to) if to == id);
        let near = all.iter().copied().find(|p| {
            p.space != emit.space
                && (asked(p.space) || owner::linked(self.state, emit.space, p.space))
        });
        let (fault, step) = match near {
            Some(owner) => self.elsewhere(&emit, seg, owner),
            None => self.nobody(&emit, seg),
        };
        let port = (fault.code == Code::NotOnBridge)
            .then(|| self.space(fault.space).link_named(&fault.object))
            .flatten();
        let port = port.map(|link| Place {
            space: fault.space,
            index: link.index,
        });
        self.blame(Verdict::Dropped, "neighbour", fault);
        // Plugged in again it may still be shut.
        if let Some(port) = port.filter(|p| self.state.link(*p).is_some_and(|l| !l.up)) {
            let fault = self.link_down(port);
            self.blame(Verdict::Dropped, "link", fault);
        }
        step
    }

    pub(super) fn link_name(&self, place: Place) -> String {
        self.state
            .link(place)
            .map_or("?".to_owned(), |l| l.name.clone())
    }

    /// As if the frame had reached that link.
    fn as_if(&self, emit: &Emit<'a>, place: Place) -> Step<'a> {
        Step::Enter(Enter {
            place,
            port: None,
            packet: emit.packet.clone(),
        })
    }

    /// Somebody has the address, but does not answer here.
    fn elsewhere(&mut self, emit: &Emit<'a>, seg: &Segment, owner: Place) -> (Fault, Step<'a>) {
        let on = seg.way_to(owner).cloned();
        if let Some(way) = on {
            let fault = self.mute(emit, owner);
            let step = self.arrive_by(emit, &way);
            return (fault, step);
        }
        if let Some(fault) = self.off_bridge(emit, seg, owner) {
            return (fault, self.as_if(emit, owner));
        }
        if let Some(fault) = self.stacked_apart(emit, owner) {
            return (fault, self.as_if(emit, owner));
        }
        let here = Place {
            space: emit.space,
            index: emit.link,
        };
        if let Some((fault, step)) = self.competing(emit, here, owner) {
            return (fault, step);
        }
        if emit.gateway {
            let right = self.right_gateway(emit);
            let fault = self.wrong_gateway(emit.space, &emit.text, emit.packet.dst, right);
            return (fault, self.by_gateway(emit, right));
        }
        let right = self.right_gateway(emit);
        (
            self.too_wide(emit, Some(owner)),
            self.by_gateway(emit, right),
        )
    }

    /// A link on which ARP was switched off.
    pub(super) fn arp_off(&self, place: Place) -> Fault {
        let (space, name) = (self.space(place.space), self.link_name(place));
        let what = format!(
            "{name} in {} neither asks nor answers for addresses (ARP is off).",
            space.name
        );
        Fault::new(Code::NeighbourUnreachable, place.space, name.clone(), what)
            .owner(owner::of_link(self.state, place))
            .evidence(format!("{}ip link show {name}: NOARP", space.enter))
            .fix(format!("{}ip link set {name} arp on", space.enter))
    }

    /// Nobody has an IPv6 address, and somebody on the segment was told to have none.
    fn switched_off(&self, emit: &Emit<'a>, seg: &Segment) -> Option<Fault> {
        let addr = emit.next;
        let ends = seg
            .stations
            .iter()
            .map(last)
            .filter(|p| p.space != emit.space);
        let wanted: Vec<Place> = match self.query.target {
            Target::Space(id) if !emit.gateway && !self.reply => {
                ends.filter(|p| p.space == id).collect()
            }
            _ if emit.gateway => ends.filter(|p| self.is_router(p.space, addr)).collect(),
            _ => ends.collect(),
        };
        let (place, fault) = wanted.iter().find_map(|p| {
            let fault = self.disabled_on(p.space, &self.link_name(*p))?;
            Some((*p, fault))
        })?;
        let len = self
            .space(emit.space)
            .addrs
            .iter()
            .find(|a| a.net.contains(&addr));
        let net = len.map_or(128, |a| a.net.prefix_len());
        let enter = &self.space(place.space).enter;
        Some(fault.fix(format!(
            "{enter}ip addr replace {addr}/{net} dev {} nodad",
            self.link_name(place)
        )))
    }

    /// It is on the segment and has the address, but says nothing.
    fn mute(&self, emit: &Emit<'a>, owner: Place) -> Fault {
        let (addr, space) = (emit.next, self.space(owner.space));
        let name = self.link_name(owner);
        let waits = space
            .addrs
            .iter()
            .find(|a| a.net.addr() == addr && (a.tentative || a.dad_failed));
        if let Some(a) = waits {
            return self.address_waits(owner.space, a);
        }
        let proto = asks_with(addr);
        let what = format!(
            "{name} in {} has {addr}, but does not answer {proto}.",
            space.name
        );
        let fault = Fault::new(Code::NeighbourUnreachable, owner.space, name.clone(), what);
        if self.state.link(owner).is_some_and(|l| l.noarp) {
            return self.arp_off(owner);
        }
        if let Some(link) = self.state.link(owner).filter(|_| !self.hears(owner, emit)) {
            return self.reverse_path(owner.space, link, &self.asks(emit), None);
        }
        let sysctl = format!("net.ipv4.conf.{}.arp_ignore", route::sysctl_name(&name));
        fault
            .evidence(format!(
                "{}sysctl {sysctl} net.ipv4.conf.all.arp_ignore",
                space.enter
            ))
            .fix(format!(
                "{}sysctl -w {sysctl}=0 net.ipv4.conf.all.arp_ignore=0",
                space.enter
            ))
    }

    /// One of the two cables is not where the other is.
    fn off_bridge(&self, emit: &Emit<'a>, seg: &Segment, owner: Place) -> Option<Fault> {
        let bridges = seg.bridges(self.state);
        let sender = Place {
            space: emit.space,
            index: emit.link,
        };
        let far = self.state.link(owner).and_then(|l| l.peer);
        let near = self.state.link(sender).and_then(|l| l.peer);
        // The owner's cable ends in a space with the sender's bridge.
        if let (Some(port), Some(bridge)) = (far, bridges.first())
            && port.space == bridge.space
            && !self.has_address(port, emit.next)
        {
            let master = self.state.link(port)?.master;
            let foreign = |m: u32| {
                let other = Place {
                    space: port.space,
                    index: m,
                };
                self.prefixes_of(other, emit.next)
            };
            // A cable between their bridges is more likely to be out than the owner's own.
            if let Some(fault) = master.and_then(|m| self.joint(port.space, bridge.index, m)) {
                return Some(fault);
            }
            if master.is_none_or(|m| m != bridge.index && !foreign(m)) {
                return Some(self.not_on_bridge(port, *bridge));
            }
        }
        // The sender's own cable: the address is on a bridge, or behind one.
        let port = near.filter(|p| !self.has_address(*p, emit.packet.src))?;
        if self.state.link(port)?.master.is_some() {
            return None;
        }
        let target = if self.state.link(owner).is_some_and(is_bridge) {
            Some(owner)
        } else {
            far.and_then(|p| {
                let index = self.state.link(p)?.master?;
                Some(Place {
                    space: p.space,
                    index,
                })
            })
        };
        let bridge = target.filter(|b| b.space == port.space)?;
        Some(self.not_on_bridge(port, bridge))
    }

    /// A cable of which one end is in one of two bridges, and the other end in none, though nobody has it for anything.
    fn joint(&self, id: SpaceId, one: u32, other: u32) -> Option<Fault> {
        let at = |index| Place { space: id, index };
        self.space(id).links.iter().find_map(|loose| {
            let plugged = loose.peer.filter(|p| p.space == id)?;
            let master = self.state.link(plugged)?.master?;
            let missing = match master {
                m if m == one => other,
                m if m == other => one,
                _ => return None,
            };
            let mut addrs = self.space(id).addrs.iter();
            let used =
                loose.master.is_some() || addrs.any(|a| a.link == loose.index && a.scope == 0);
            (!used && one != other).then(|| self.not_on_bridge(at(loose.index), at(missing)))
        })
    }

    fn has_address(&self, place: Place, like: IpAddr) -> bool {
        let all = self.space(place.space).addrs.iter();
        all.into_iter()
            .any(|a| a.link == place.index && route::same_family(a.net, like) && a.scope == 0)
    }

    /// Whether a link's own prefix holds an address.
    fn prefixes_of(&self, place: Place, addr: IpAddr) -> bool {
        let all = self.space(place.space).addrs.iter();
        all.into_iter()
            .any(|a| a.link == place.index && a.net.contains(&addr))
    }

    pub(super) fn not_on_bridge(&self, port: Place, bridge: Place) -> Fault {
        let space = self.space(port.space);
        let (name, target) = (self.link_name(port), self.link_name(bridge));
        let master = self.state.link(port).and_then(|l| l.master);
        let other = master.and_then(|m| space.link(m)).map(|l| l.name.as_str());
        let seen = match other {
            Some(other) => format!("master {other}"),
            None => "no master".to_owned(),
        };
        let what = match other {
            Some(other) => format!("{name} is plugged into {other}, not into {target}."),
            None => format!("{name} is plugged into no bridge; it belongs to {target}."),
        };
        Fault::new(Code::NotOnBridge, port.space, name.clone(), what)
            .owner(owner::of_link(self.state, port))
            .evidence(format!("{}ip link show {name}: {seen}", space.enter))
            .evidence(format!("{}bridge link show", space.enter))
            .fix(format!("{}ip link set {name} master {target}", space.enter))
    }

    /// Nobody has the address.
    fn nobody(&mut self, emit: &Emit<'a>, seg: &Segment) -> (Fault, Step<'a>) {
        let end = Step::End(Arrival::Lost);
        if emit.next.is_ipv6()
            && let Some(fault) = self.switched_off(emit, seg)
        {
            return (fault, end);
        }
        if emit.gateway {
            let right = self.right_gateway(emit);
            let fault = match (emit.rule, right) {
                (Some(rule), _) => {
                    let how = format!("which sends it to {}, and nobody is there", emit.next);
                    self.policy(emit.space, rule, &how)
                }
                (None, Some(_)) => {
                    self.wrong_gateway(emit.space, &emit.text, emit.packet.dst, right)
                }
                (None, None) => self.gateway_gone(emit, seg),
            };
            return (fault, self.by_gateway(emit, right));
        }
        if let Some(fault) = self.lost_gateway_address(emit.next) {
            return (fault, end);
        }
        if let Some((id, link)) = meant_for(self.state, emit.next) {
            return (self.address_gone(id, &link, emit.next), end);
        }
        let covered = self.space(emit.space).addrs.iter().any(|a| {
            a.link == emit.link && (a.net.contains(&emit.next) || a.peer == Some(emit.next))
        });
        let right = self.right_gateway(emit);
        if !covered && right.is_some() {
            // A route says that it is on the link, and no address of the link does.
            let fault = self.wrong_gateway(emit.space, &emit.text, emit.packet.dst, right);
            return (fault, self.by_gateway(emit, right));
        }
        let other = || self.has_other_route(emit.space, &emit.text, emit.packet.dst);
        if !covered && emit.rule.is_none() && other() {
            return (self.led_astray(emit), end);
        }
        if self.narrower(emit, seg) {
            let right = self.right_gateway(emit);
            return (self.too_wide(emit, None), self.by_gateway(emit, right));
        }
        let space = self.space(emit.space);
        let (addr, six) = (emit.next, six(emit.next));
        let dev = self.link_name(Place {
            space: emit.space,
            index: emit.link,
        });
        let what = format!(
            "Nobody on the segment of {dev} in {} has {addr}.",
            space.name
        );
        let fault = Fault::new(Code::NoSuchDestination, emit.space, addr.to_string(), what)
            .evidence(format!(
                "{}ip {six}neigh show {addr} dev {dev}",
                space.enter
            ))
            .evidence(format!("no namespace on the segment has {addr}"))
            .fixes(self.give(addr, seg, emit));
        (fault, end)
    }

    /// A route says that an address is on a link whose own addresses say nothing of it, and another one leads elsewhere.
    fn led_astray(&self, emit: &Emit<'a>) -> Fault {
        let (enter, text, six) = (&self.space(emit.space).enter, &emit.text, six(emit.next));
        let what = format!(
            "The route {text} says that {} is there, and nobody has it; another route leads elsewhere.",
            emit.next
        );
        Fault::new(Code::RouteConflict, emit.space, text.clone(), what)
            .evidence(format!("{enter}ip {six}route get {}: {text}", emit.next))
            .evidence(format!("no namespace on the segment has {}", emit.next))
            .fix(format!("{enter}ip {six}route del {}", deletable(text)))
    }

    /// Who of the segment may be meant: a namespace that was asked for, or the only one there.
    fn give(&self, addr: IpAddr, seg: &Segment, emit: &Emit<'a>) -> Vec<String> {
        let six = six(addr);
        let near = self.space(emit.space).addrs.iter();
        let len = near
            .into_iter()
            .find(|a| a.net.contains(&addr))
            .map_or(32, |a| a.net.prefix_len());
        let mut ends = seg
            .stations
            .iter()
            .map(last)
            .filter(|p| p.space != emit.space && !self.is_router(p.space, addr));
        match (ends.next(), ends.next()) {
            // What a container has beside its own addresses does not pass its port.
            (Some(only), None) if self.guarded_container(only.space) => vec!["wharf ps".to_owned()],
            (Some(only), None) => vec![format!(
                "{}ip addr add {addr}/{len} dev {}",
                self.space(only.space).enter,
                self.link_name(only)
            )],
            _ => vec![format!(
                "{}ip {six}neigh show {addr}",
                self.space(emit.space).enter
            )],
        }
    }

    fn guarded_container(&self, id: SpaceId) -> bool {
        let name = self.space(id).container.as_deref();
        let found = name.and_then(|n| self.container(n));
        found.is_some_and(|c| {
            let mut nets = c.attachments.iter().map(|a| a.network.as_str());
            nets.any(|n| self.network(n).is_some_and(NetworkSpec::is_managed))
        })
    }

    /// A translation leads to an address that nobody has.
    pub(super) fn dangling(&self) -> Option<Fault> {
        let (id, rule, addr) = self.dnat.as_ref()?;
        if self.reply || !holders(self.state, *addr).is_empty() {
            return None;
        }
        let space = self.space(*id);
        let shown = object(rule);
        let what = format!("{shown} sends the port to {addr}, which nobody has any more.");
        let fault = Fault::new(Code::PublishShadowed, *id, shown, what)
            .owner(rule.owner)
            .evidence(format!("{}nft -a list ruleset: {}", space.enter, rule.text))
            .evidence(format!(
                "{}ip neigh show {addr}: nobody answers",
                space.enter
            ));
        // Where the space's own port is sent elsewhere it is published; what was meant for others should go there.
        let published = self
            .dnat_at
            .as_ref()
            .is_none_or(|(_, before)| route::is_local(space, before.dst));
        let right = self
            .now_at(*addr)
            .filter(|_| published && rule.text.contains(&addr.to_string()));
        Some(match (rule.owner, rule.handle) {
            (_, Some(_)) if let Some(right) = right => {
                fault.fixes(super::rules::rewritten(space, rule, *addr, right))
            }
            (crate::trace::report::Owner::Wharf, _) => fault.fix("wharf repair"),
            (_, Some(_)) => fault.fix(super::rules::removed(space, rule)),
            (_, None) => fault.fix(format!("{}nft -a list ruleset", space.enter)),
        })
    }

    /// Where the program went that an old address was for: the only one of the segment that takes such packets.
    fn now_at(&self, old: IpAddr) -> Option<IpAddr> {
        let (at, _, _) = self.dnat.as_ref()?;
        let port = self
            .current
            .get(at)
            .and_then(|i| self.tracked.get(at)?.get(*i))
            .map(|ct| ct.reply.sport)?;
        let near: Vec<ipnet::IpNet> = self.space(*at).addrs.iter().map(|a| a.net).collect();
        let mut found = Vec::new();
        for (id, space) in self
            .state
            .spaces
            .iter()
            .enumerate()
            .filter(|(id, _)| id != at)
        {
            for a in super::ends::addresses(space, crate::addr::Family::of(old)) {
                let addr = a.net.addr();
                let beside = near.iter().any(|n| n.contains(&addr) && n.contains(&old));
                let takes = space.sockets.iter().any(|s| {
                    s.protocol == self.query.l4
                        && s.port == port
                        && (s.addr == addr || s.addr.is_unspecified())
                });
                if beside && takes && !found.contains(&(id, addr)) {
                    found.push((id, addr));
                }
            }
        }
        let first = found.first().copied()?;
        found
            .iter()
            .all(|(id, _)| *id == first.0)
            .then_some(first.1)
    }

    fn address_gone(&self, id: SpaceId, link: &str, addr: IpAddr) -> Fault {
        let space = self.space(id);
        if addr.is_ipv6()
            && let Some(fault) = self.disabled_on(id, link)
        {
            return fault;
        }
        let what = format!("{} lost the address {addr} that wharf gave it.", space.name);
        super::ends::wharf(Fault::new(
            Code::NoSuchDestination,
            id,
            addr.to_string(),
            what,
        ))
        .evidence(format!("{}ip addr show dev {link}: no {addr}", space.enter))
        .fixes(match (self.given(id, addr), space.link_named(link)) {
            (Some(net), Some(l)) => {
                self.readdress(id, l.index, Some(net), crate::addr::Family::of(addr))
            }
            _ => vec!["wharf repair".to_owned()],
        })
    }

    /// An address with its prefix as wharf gave it to a container.
    fn given(&self, id: SpaceId, addr: IpAddr) -> Option<ipnet::IpNet> {
        let container = self.container(self.space(id).container.as_deref()?)?;
        let all = container.attachments.iter().flat_map(|a| &a.addresses);
        all.into_iter().copied().find(|n| n.addr() == addr)
    }

    /// Where nothing at all is behind the link, the link itself tells why.
    pub(super) fn check_first_leg(&mut self, place: Place, alone: bool) {
        let Some(link) = self.state.link(place) else {
            return;
        };
        if !link.up {
            let fault = self.link_down(place);
            self.blame(Verdict::Dropped, "link", fault);
        } else if alone && !link.carrier && !is_bridge(link) {
            let fault = self.no_carrier(place);
            self.blame(Verdict::Dropped, "link", fault);
        }
    }
}
