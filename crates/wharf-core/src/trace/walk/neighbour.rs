//! The next hop on a link: who answers for its address, and where the frame really goes.

use std::net::IpAddr;

use crate::addr::{Family, Mac};
use crate::trace::packet::Packet;
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{HOST, Link, Neighbour, NeighbourState, Place, SpaceId};

use super::fault::Fault;

use super::host::six;
use super::owner;
use super::reverse_path::reverse_path_holds;
use super::route::{self, Ask, Found, Skip, sysctl_name};
use super::segment::{Segment, Way, is_bridge, last};
use super::source;
use super::{Arrival, Emit, Enter, Step, Walk};

/// Kinds of links that have no neighbours.
const TUNNELS: [&str; 9] = [
    "tun",
    "wireguard",
    "ipip",
    "gre",
    "sit",
    "ip6tnl",
    "ip6gre",
    "vti",
    "ppp",
];

impl<'a> Walk<'a> {
    /// A frame leaves a space.
    pub(super) fn emit(&mut self, emit: Emit<'a>) -> Step<'a> {
        let place = Place {
            space: emit.space,
            index: emit.link,
        };
        let Some(link) = self.space(emit.space).link(emit.link) else {
            self.note(format!("the link of the route {} was not read", emit.text));
            self.unknown = true;
            return Step::End(Arrival::Lost);
        };
        if let Some(fault) = self.taken_by_bridge(place) {
            self.blame(Verdict::Dropped, "link", fault);
        }
        let seg = self.whole.segment(place);
        let tunnel = link.kind.as_deref().is_some_and(|k| TUNNELS.contains(&k));
        let answering: Vec<Way> = seg
            .stations
            .iter()
            .filter(|w| last(w) != place && last(w).space != emit.space)
            .filter(|w| self.answers(last(w), emit.next, &emit))
            .cloned()
            .collect();
        if answering.is_empty() {
            if let Some(way) = seg.open.first() {
                return self.leave(emit, place, way);
            }
            if tunnel && let Some(way) = seg.stations.first() {
                return self.arrive_by(&emit, way);
            }
            let first = seg.stations.first().map(|w| w.len());
            self.check_first_leg(place, first.is_none());
            return self.missing(emit, &seg);
        }
        if emit.gateway
            && self.diverted.is_none()
            && let Some((fault, _)) = self.nearer(&emit, place)
        {
            self.diverted = Some((emit.space, fault));
        }
        if let Some(fault) = self.asks_nobody(&emit, link) {
            self.blame(Verdict::Dropped, "neighbour", fault);
        }
        let way = self.choose(&emit, link, &seg, &answering);
        self.arrive_by(&emit, &way)
    }

    /// A bridge that asks for no addresses, and does not know this one.
    fn asks_nobody(&self, emit: &Emit<'a>, link: &Link) -> Option<Fault> {
        let (space, next, six) = (self.space(emit.space), emit.next, six(emit.next));
        let family = if next.is_ipv4() { "ipv4" } else { "ipv6" };
        let asks = format!(
            "net.{family}.neigh.{}.mcast_solicit",
            sysctl_name(&link.name)
        );
        if space.sysctl(&asks) != Some(0) || link.kind.as_deref() != Some("bridge") {
            return None;
        }
        let mut known = space.neighbours.iter().filter(|n| {
            let failed = matches!(n.state, NeighbourState::Failed | NeighbourState::Incomplete);
            n.link == link.index && n.addr == next && n.mac.is_some() && !failed
        });
        if known.next().is_some() {
            return None;
        }
        let dev = &link.name;
        let what = format!(
            "{dev} in {} asks nobody for hardware addresses, and has no entry for {next}.",
            space.name
        );
        let object = format!("{next} dev {dev}");
        let fault = Fault::new(Code::NeighbourUnreachable, emit.space, object, what)
            .evidence(format!(
                "{}ip {six}neigh show {next} dev {dev}",
                space.enter
            ))
            .evidence(format!("{}sysctl {asks}: 0", space.enter));
        Some(match owner::meant_for(self.state, next) {
            Some(_) => super::ends::wharf(fault).fix("wharf repair"),
            None => fault.fix(format!("{}sysctl -w {asks}=3", space.enter)),
        })
    }

    /// By a wire whose other end was not read.
    fn leave(&mut self, emit: Emit<'a>, place: Place, way: &Way) -> Step<'a> {
        if let Some(step) = self.wrong_exit(&emit, place) {
            return step;
        }
        // The kernel's own entries for such a link bear the link's address, and lead nowhere.
        let known = self.known(&emit);
        let known = known.is_some_and(|n| n.state == NeighbourState::Permanent);
        let wired = |l: &Link| l.mac.is_some() && matches!(l.kind.as_deref(), None | Some("veth"));
        let link = self.state.link(place);
        if !known && link.is_some_and(|l| l.noarp && wired(l)) {
            let fault = self.arp_off(place);
            self.blame(Verdict::Dropped, "neighbour", fault);
        } else if let Some(fault) = self.asked_in_vain(&emit, place) {
            self.blame(Verdict::Dropped, "neighbour", fault);
        }
        // A translated packet that goes back out where it came from was meant for somebody who was here.
        let back = self
            .passed
            .last()
            .is_some_and(|p| (p.space, p.iif) == (place.space, place.index));
        if back
            && is_private(emit.packet.dst)
            && emit.gateway
            && let Some(fault) = self.dangling()
        {
            self.blame(Verdict::Dropped, "route", fault);
            return Step::End(Arrival::Lost);
        }
        let packet = self.cross(way, emit.packet);
        let name = self
            .state
            .link(place)
            .map_or(String::new(), |l| l.name.clone());
        let detail = format!("to {}", emit.next);
        self.hop(place.space, "outside", &name, &detail);
        Step::End(Arrival::Outside {
            from: place,
            packet,
        })
    }

    /// The kernel asked for the next hop beyond an unread wire, and nobody answered.
    fn asked_in_vain(&self, emit: &Emit<'a>, place: Place) -> Option<Fault> {
        let space = self.space(emit.space);
        let link = self.state.link(place).filter(|l| l.up && l.carrier)?;
        let entry = space
            .neighbours
            .iter()
            .find(|n| n.link == place.index && n.addr == emit.next && !n.proxy)?;
        if !matches!(
            entry.state,
            NeighbourState::Failed | NeighbourState::Incomplete
        ) {
            return None;
        }
        let (next, six, dev) = (emit.next, six(emit.next), &link.name);
        if let Some(rule) = emit.rule {
            let how = format!("which sends it to {next}, and nobody answers there");
            return Some(self.policy(emit.space, rule, &how));
        }
        let proto = asks_with(next);
        let what = format!(
            "Nobody answers {proto} for {next} on {dev} in {}.",
            space.name
        );
        let seen = format!("{}ip {six}neigh show {next} dev {dev}: FAILED", space.enter);
        if !emit.gateway {
            return Some(
                Fault::new(Code::NoSuchDestination, emit.space, next.to_string(), what)
                    .evidence(seen)
                    .fix(format!(
                        "{}ip {six}neigh flush {next} dev {dev}",
                        space.enter
                    )),
            );
        }
        let other = self
            .lost_gateway(emit.space, next)
            .filter(|(_, via)| *via != next);
        let fault = match other {
            Some((_, via)) => {
                let fault = self.wrong_gateway(emit.space, &emit.text, emit.packet.dst, Some(via));
                Fault {
                    summary: what,
                    ..fault
                }
            }
            None => Fault::new(
                Code::NeighbourUnreachable,
                emit.space,
                format!("{next} dev {dev}"),
                what,
            )
            .fix(format!(
                "{}ip {six}neigh flush {next} dev {dev}",
                space.enter
            )),
        };
        Some(fault.evidence(seen))
    }

    /// Along a way to the link at its end.
    pub(super) fn arrive_by(&mut self, emit: &Emit<'a>, way: &Way) -> Step<'a> {
        let place = Place {
            space: emit.space,
            index: emit.link,
        };
        let mut packet = emit.packet.clone();
        packet.src_mac = self.state.link(place).and_then(|l| l.mac);
        packet.dst_mac = self.state.link(last(way)).and_then(|l| l.mac);
        let mut packet = self.cross(way, packet);
        self.sender = emit.gateway.then(|| (emit.space, emit.text.clone(), place));
        let end = last(way);
        let port = way
            .len()
            .checked_sub(2)
            .map(|i| way[i].place)
            .filter(|p| p.space == end.space && self.state.link(end).is_some_and(is_bridge));
        if port.is_none() {
            packet = self.let_up(packet);
        }
        Step::Enter(Enter {
            place: end,
            port: port.map(|p| p.index),
            packet,
        })
    }

    /// Whether a link answers ARP or neighbour solicitations for an address.
    fn answers(&self, place: Place, next: IpAddr, emit: &Emit<'a>) -> bool {
        let space = self.space(place.space);
        let Some(link) = space.link(place.index).filter(|l| !l.noarp) else {
            return false;
        };
        let on_link =
            source::usable_addresses(space).any(|a| a.link == link.index && a.net.addr() == next);
        let proxy = space
            .neighbours
            .iter()
            .any(|n| n.proxy && n.addr == next && n.link == link.index);
        if next.is_ipv6() {
            let name = |l: &str| format!("net.ipv6.conf.{l}.proxy_ndp");
            let on = [name("all"), name(&sysctl_name(&link.name))];
            return on_link || proxy && on.iter().any(|n| space.sysctl(n) == Some(1));
        }
        let ignore = ["all".to_owned(), sysctl_name(&link.name)]
            .iter()
            .filter_map(|l| space.sysctl(&format!("net.ipv4.conf.{l}.arp_ignore")))
            .max()
            .unwrap_or(0);
        if on_link {
            // Whoever has a sure entry does not ask.
            let sure = self.known(emit).filter(|n| n.mac == link.mac);
            return sure.is_some_and(|n| pinned(n) || n.state == NeighbourState::Reachable)
                || ignore != 8 && (!space.full || self.hears(place, emit));
        }
        if !space.full {
            return false;
        }
        if route::is_local(space, next) && !next.is_loopback() {
            // Any link answers for any address of the space, if the asking address may come in there.
            return ignore == 0 && reverse_path_holds(space, link, &asking(emit), None);
        }
        proxy || self.proxies(place.space, link, next)
    }

    /// Whether the reverse path filter of a link lets the question for its own address in.
    pub(super) fn hears(&self, place: Place, emit: &Emit<'a>) -> bool {
        let space = self.space(place.space);
        let link = space.link(place.index);
        link.is_none_or(|link| reverse_path_holds(space, link, &self.asks(emit), None))
    }

    /// The packet by which the sender asks, with the address that it has on the link.
    pub(super) fn asks(&self, emit: &Emit<'a>) -> Packet {
        let mut packet = asking(emit);
        let sender = self.space(emit.space);
        let mut near = sender.addrs.iter();
        let near = near.find(|a| a.link == emit.link && a.net.contains(&emit.next));
        if let Some(own) = near.filter(|_| !route::is_local(sender, packet.src)) {
            packet.src = own.net.addr();
        }
        packet
    }

    /// `proxy_arp`: it answers for what it would send on by another link.
    fn proxies(&self, id: SpaceId, link: &Link, next: IpAddr) -> bool {
        if !self.either(id, &link.name, "proxy_arp") || !self.routes(id, next) {
            return false;
        }
        let found = route::lookup(self.space(id), &Ask::to(next), &Skip::default());
        match found {
            Found::Route(c) => c.hop.is_some_and(|h| h.link != Some(link.index)),
            _ => false,
        }
    }

    /// The entry for the next hop, if the kernel would use it without asking.
    pub(super) fn known(&self, emit: &Emit<'a>) -> Option<&'a Neighbour> {
        use NeighbourState::{Delay, NoArp, Permanent, Probe, Reachable, Stale};
        self.space(emit.space).neighbours.iter().find(|n| {
            n.link == emit.link
                && n.addr == emit.next
                && !n.proxy
                && n.mac.is_some()
                && matches!(
                    n.state,
                    Permanent | NoArp | Reachable | Stale | Delay | Probe
                )
        })
    }

    /// Which of those that answer gets the frame, and whether that is right.
    fn choose(&mut self, emit: &Emit<'a>, link: &Link, seg: &Segment, answering: &[Way]) -> Way {
        let macs: Vec<Option<Mac>> = answering
            .iter()
            .map(|w| self.state.link(last(w)).and_then(|l| l.mac))
            .collect();
        let owns = |w: &&Way| {
            let end = last(w);
            let addrs = self.space(end.space).addrs.iter();
            addrs
                .into_iter()
                .any(|a| a.link == end.index && a.net.addr() == emit.next)
        };
        let wanted = match self.query.target {
            crate::trace::query::Target::Space(id) if !self.reply => Some(id),
            _ if self.reply => self.origin,
            _ => None,
        };
        let owners: Vec<&Way> = answering.iter().filter(owns).collect();
        let by_wish = owners.iter().find(|w| Some(last(w).space) == wanted);
        let best: Way = (*by_wish.or(owners.first()).unwrap_or(&&answering[0])).clone();
        if let Some(other) = owners.iter().find(|w| last(w).space != last(&best).space) {
            let six = six(emit.next);
            let fault = self
                .duplicate(emit.next, last(&best), last(other))
                .fix(format!(
                    "{}ip {six}neigh flush to {}",
                    self.space(emit.space).enter,
                    emit.next
                ));
            self.blame(Verdict::Dropped, "neighbour", fault);
        } else if link.noarp && link.peer.is_some() {
            let place = Place {
                space: emit.space,
                index: emit.link,
            };
            let fault = self.arp_off(place);
            self.blame(Verdict::Dropped, "neighbour", fault);
        } else if let Some(entry) = self.known(emit)
            && !macs.contains(&entry.mac)
            && macs.iter().all(Option::is_some)
            && !self.will_ask_again(entry, last(&best))
        {
            let right = self.state.link(last(&best)).and_then(|l| l.mac);
            let fault = self.wrong_entry(emit, link, entry, right, last(&best));
            if !pinned(entry) {
                self.learned.push(fault.object.clone());
            }
            self.blame(Verdict::Dropped, "neighbour", fault);
        }
        self.check_same_mac(emit, seg, &best);
        self.check_resolution(emit, &best);
        let end = last(&best);
        let text = format!(
            "{} at {} in {}",
            self.state
                .link(end)
                .and_then(|l| l.mac)
                .map_or("no MAC address".to_owned(), |m| m.to_string()),
            self.state.link(end).map_or("?", |l| l.name.as_str()),
            self.space(end.space).name
        );
        self.hop(emit.space, "neighbour", &emit.next.to_string(), &text);
        best
    }

    /// An entry that was learned while the cable was in another switch of the same host is soon given up.
    fn will_ask_again(&self, entry: &Neighbour, best: Place) -> bool {
        let links = self.space(best.space).links.iter();
        !pinned(entry)
            && links
                .into_iter()
                .any(|l| l.mac == entry.mac && is_bridge(l))
    }

    pub(super) fn duplicate(&self, addr: IpAddr, right: Place, other: Place) -> Fault {
        let given = owner::meant_for(self.state, addr).map(|(id, _)| id);
        let (right, other) = match given {
            Some(id) if id == other.space && id != right.space => (other, right),
            _ => (right, other),
        };
        let name = |p: Place| {
            let link = self.state.link(p).map_or("?", |l| l.name.as_str());
            format!("{link} in {}", self.space(p.space).name)
        };
        let (space, link) = (self.space(other.space), self.state.link(other));
        let net = space
            .addrs
            .iter()
            .find(|a| a.net.addr() == addr)
            .map(|a| a.net);
        let shown = net.map_or(addr.to_string(), |n| n.to_string());
        let dev = link.map_or("?", |l| l.name.as_str());
        let what = format!(
            "Two interfaces on the segment have {addr}: {} and {}.",
            name(right),
            name(other)
        );
        Fault::new(
            Code::DuplicateAddress,
            other.space,
            format!("{shown} dev {dev}"),
            what,
        )
        .owner(owner::of_link(self.state, other))
        .evidence(format!(
            "{}ip addr show: {shown}",
            self.space(right.space).enter
        ))
        .evidence(format!("{}ip addr show dev {dev}: {shown}", space.enter))
        .fix(format!("{}ip addr del {shown} dev {dev}", space.enter))
    }

    fn wrong_entry(
        &self,
        emit: &Emit<'a>,
        link: &Link,
        entry: &Neighbour,
        right: Option<Mac>,
        place: Place,
    ) -> Fault {
        let space = self.space(emit.space);
        let (addr, dev, six) = (entry.addr, &link.name, six(entry.addr));
        let mac = entry.mac.map_or(String::new(), |m| m.to_string());
        let shown = format!("{addr} dev {dev} lladdr {mac}");
        let right = right.map_or("?".to_owned(), |m| m.to_string());
        let kind = if pinned(entry) {
            "pinned to"
        } else {
            "believed to be at"
        };
        let what = format!(
            "{addr} is {kind} {mac} in {}, but it is at {right} ({}).",
            space.name,
            self.space(place.space).name
        );
        Fault::new(Code::NeighbourWrong, emit.space, shown.clone(), what)
            .evidence(format!("{}ip {six}neigh show: {shown}", space.enter))
            .evidence(format!(
                "{}ip link show {}: {right}",
                self.space(place.space).enter,
                self.state.link(place).map_or("?", |l| l.name.as_str())
            ))
            .fix(
                if emit.space == HOST && owner::meant_for(self.state, addr).is_some() {
                    // The entry is wharf's, and nobody would be asked without it.
                    "wharf repair".to_owned()
                } else {
                    format!("{}ip {six}neigh del {addr} dev {dev}", space.enter)
                },
            )
    }

    /// Another port with the same MAC address takes the frames.
    fn check_same_mac(&mut self, emit: &Emit<'a>, seg: &Segment, way: &Way) {
        let end = last(way);
        let Some(mac) = self.state.link(end).and_then(|l| l.mac) else {
            return;
        };
        let sender = Place {
            space: emit.space,
            index: emit.link,
        };
        let shares = |p: Place| {
            self.state.link(p).is_some_and(|l| {
                let stacked = matches!(l.kind.as_deref(), Some("ipvlan" | "vlan" | "bond"));
                l.mac == Some(mac) && !stacked
            })
        };
        let bridged = !seg.bridges(self.state).is_empty();
        let ends = seg.stations.iter().map(last).chain([sender]);
        let ports = way.iter().map(|l| l.place).filter(|p| {
            let port = self.state.link(*p).and_then(|l| l.master).is_some();
            port && p.space != end.space
        });
        let other = ends
            .filter(|p| p.space != end.space)
            .chain(ports)
            .find(|p| *p != end && shares(*p));
        let ipvlan = self.state.link(end).and_then(|l| l.kind.as_deref()) == Some("ipvlan");
        let Some(other) = other.filter(|_| bridged && !ipvlan) else {
            return;
        };
        let space = self.space(other.space);
        let dev = self.state.link(other).map_or("?", |l| l.name.as_str());
        let what = format!(
            "{dev} in {} and {} in {} use one MAC address, {mac}; the bridge sends to whoever spoke last.",
            space.name,
            self.state.link(end).map_or("?", |l| l.name.as_str()),
            self.space(end.space).name
        );
        let fault = Fault::new(
            Code::DuplicateMac,
            other.space,
            format!("{dev} {mac}"),
            what,
        )
        .owner(owner::of_link(self.state, other))
        .evidence(format!("{}ip link show {dev}: {mac}", space.enter))
        .fix(format!(
            "{}ip link set {dev} address {}",
            space.enter,
            fresh(mac)
        ));
        self.blame(Verdict::Dropped, "neighbour", fault);
    }
}

/// The packet by which the sender asks for its neighbour: with its own address.
fn asking(emit: &Emit<'_>) -> Packet {
    let mut packet = emit.packet.clone();
    packet.dst = emit.next;
    packet
}

/// Whether somebody set the entry, so that the kernel never asks again.
fn pinned(entry: &Neighbour) -> bool {
    matches!(
        entry.state,
        NeighbourState::Permanent | NeighbourState::NoArp
    )
}

/// A MAC address that differs.
fn fresh(mac: Mac) -> Mac {
    let mut bytes = mac.0;
    bytes[0] = (bytes[0] | 2) & !1;
    bytes[5] ^= 0x55;
    Mac(bytes)
}

/// Whether an address is of the kind that is not routed between organisations (RFC 1918, RFC 6598, RFC 4193).
pub(super) fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || a == 100 && (64..128).contains(&b)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The family's neighbour protocol.
pub(super) fn asks_with(addr: IpAddr) -> &'static str {
    match Family::of(addr) {
        Family::V4 => "ARP",
        Family::V6 => "neighbour discovery",
    }
}
