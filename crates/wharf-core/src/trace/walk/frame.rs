//! A frame's way through links: are they up, does a tc filter or a program take it, does it fit.

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{Link, Place, TcDrop, TrafficControl};

use super::Walk;
use super::fault::Fault;
use super::hooks::{Site, Sort};
use super::owner;
use super::program;
use super::segment::{Leg, Way, is_bridge};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// `TC_ACT_SHOT`.
const SHOT: u32 = 2;

impl<'a> Walk<'a> {
    /// Takes a frame along a way; it comes out as rules on the way left it.
    pub(super) fn cross(&mut self, way: &Way, packet: Packet) -> Packet {
        let mut packet = packet;
        for (at, leg) in way.iter().enumerate() {
            self.check_link(*leg, &packet);
            let Some(link) = self.state.link(leg.place) else {
                continue;
            };
            // The first link's rules on the way out and the last one's on the way in belong to the IP of their spaces.
            if link.master.is_some() && !leg.out {
                packet = self.at_device(*leg, packet);
            }
            let next = way.get(at + 1);
            let same = next.filter(|n| n.place.space == leg.place.space).copied();
            let bridge = link
                .master
                .map(|index| Place { index, ..leg.place })
                .filter(|b| self.state.link(*b).is_some_and(is_bridge));
            match (bridge, same) {
                // In by a port: to another port, or to the bridge's own IP.
                (Some(bridge), Some(next)) if !leg.out => {
                    let out = (next.place != bridge).then_some(next.place.index);
                    packet = self.bridged(bridge, Some(leg.place.index), out, packet);
                }
                // From the bridge's own IP to a port.
                (None, Some(next)) if leg.out && is_bridge(link) => {
                    packet = self.bridged(leg.place, None, Some(next.place.index), packet);
                }
                _ => {}
            }
            if let Some(out) = same.filter(|n| n.out)
                && self
                    .state
                    .link(out.place)
                    .is_some_and(|l| l.master.is_some())
            {
                packet = self.at_device(out, packet);
            }
        }
        packet
    }

    /// Rules of a bridge's port.
    fn at_device(&mut self, leg: Leg, packet: Packet) -> Packet {
        let mut site = Site::new(leg.place.space, Hook::Ingress, Sort::Device);
        if leg.out {
            site.hook = Hook::Egress;
            site.oif = Some(leg.place.index);
        } else {
            site.iif = Some(leg.place.index);
        }
        self.rules(site, packet)
    }

    fn check_link(&mut self, leg: Leg, packet: &Packet) {
        let Some(link) = self.state.link(leg.place) else {
            return;
        };
        if !link.up {
            let fault = self.link_down(leg.place);
            self.blame(Verdict::Dropped, "link", fault);
        } else if !link.carrier && !is_bridge(link) && !link.loopback {
            // With its other end read, that end tells why.
            let peer = link.peer.and_then(|p| self.state.link(p));
            if peer.is_none()
                && link
                    .kind
                    .as_deref()
                    .is_none_or(|k| matches!(k, "veth" | "tun"))
            {
                let fault = self.no_carrier(leg.place);
                self.blame(Verdict::Dropped, "link", fault);
            }
        }
        for tc in link.tc.iter().filter(|t| t.ingress != leg.out) {
            self.check_tc(leg.place, link, tc, packet);
        }
        if link.xdp && !leg.out {
            let name = &link.name;
            let space = self.space(leg.place.space);
            let what = format!(
                "An XDP program at {name} decides about every packet, and what it does cannot be read."
            );
            let fault = Fault::new(
                Code::TrafficControl,
                leg.place.space,
                format!("{name} xdp"),
                what,
            )
            .evidence(format!("{}ip -details link show {name}: xdp", space.enter))
            .fix(format!("{}ip link set {name} xdp off", space.enter))
            .fix(format!("{}ip link set {name} xdpgeneric off", space.enter));
            self.blame(Verdict::Unknown, "link", fault);
        }
        self.check_fits(leg, link);
    }

    pub(super) fn no_carrier(&self, place: Place) -> Fault {
        let space = self.space(place.space);
        let name = self.state.link(place).map_or("?", |l| l.name.as_str());
        let what = format!(
            "{name} in {} has no carrier: its other end is down or gone.",
            space.name
        );
        Fault::new(Code::NoCarrier, place.space, name, what)
            .owner(owner::of_link(self.state, place))
            .evidence(format!("{}ip link show {name}: NO-CARRIER", space.enter))
            .fix(format!("{}ip -details link show {name}", space.enter))
    }

    /// A program decides whose instructions cannot be read.
    fn undecided(&mut self, place: Place, link: &Link, tc: &TrafficControl) {
        let (space, name) = (self.space(place.space), &link.name);
        let (list, undo) = filter_commands(name, tc);
        let what = format!(
            "A BPF program at {name} in {} decides about every packet, and what it does cannot be read.",
            space.name
        );
        let fault = Fault::new(Code::TrafficControl, place.space, tc.text.clone(), what)
            .evidence(format!("{}{list}: {}", space.enter, tc.text))
            .fix(format!("{}{undo}", space.enter));
        self.blame(Verdict::Unknown, "link", fault);
    }

    fn check_tc(&mut self, place: Place, link: &Link, tc: &TrafficControl, packet: &Packet) {
        let space = self.space(place.space);
        let drops = match &tc.drops {
            None => {
                let text = format!(
                    "{}: tc at {} may drop it: {}",
                    space.name, link.name, tc.text
                );
                self.note(text);
                return;
            }
            Some(TcDrop::All) => true,
            Some(TcDrop::Ethertype(e)) => is_type(*e, packet),
            Some(TcDrop::Larger(most)) => packet.len > *most,
            Some(TcDrop::Program { ethertype, .. }) if !is_type(*ethertype, packet) => false,
            Some(TcDrop::Program { ops, .. }) => {
                let mut frame = Vec::with_capacity(128);
                for mac in [packet.dst_mac, packet.src_mac] {
                    frame.extend(mac.map_or([0; 6], |m| m.0));
                }
                let kind: u16 = if packet.dst.is_ipv4() { 0x0800 } else { 0x86dd };
                frame.extend(kind.to_be_bytes());
                frame.extend(header(packet));
                let whole = frame.len().max(ETHERNET + packet.len as usize);
                frame.resize(whole, 0);
                match program::run(ops, &frame) {
                    Some(verdict) => verdict == SHOT,
                    None => return self.undecided(place, link, tc),
                }
            }
            Some(TcDrop::Matching { ethertype, words }) => {
                let bytes = header(packet);
                is_type(*ethertype, packet)
                    && words.iter().all(|(offset, mask, value)| {
                        word(&bytes, *offset as usize).is_some_and(|w| w & mask == value & mask)
                    })
            }
        };
        if !drops {
            return;
        }
        let name = &link.name;
        let (list, undo) = if tc.text.starts_with("qdisc") {
            (
                format!("tc qdisc show dev {name}"),
                format!("tc qdisc del dev {name} root"),
            )
        } else {
            filter_commands(name, tc)
        };
        let what = format!("Traffic control at {name} in {} drops it.", space.name);
        let fault = Fault::new(Code::TrafficControl, place.space, tc.text.clone(), what)
            .evidence(format!("{}{list}: {}", space.enter, tc.text))
            .fix(format!("{}{undo}", space.enter));
        self.blame(Verdict::Dropped, "link", fault);
    }
}

/// What shows and what removes a filter.
fn filter_commands(name: &str, tc: &TrafficControl) -> (String, String) {
    let side = if tc.ingress { "ingress" } else { "egress" };
    let mut words = tc.text.split(' ').skip_while(|w| *w != "pref").skip(1);
    let pref = words.next().map_or(String::new(), |n| format!(" pref {n}"));
    (
        format!("tc filter show dev {name} {side}"),
        format!("tc filter del dev {name} {side}{pref}"),
    )
}

/// `ETH_P_ALL` is 3.
fn is_type(ethertype: u16, packet: &Packet) -> bool {
    match ethertype {
        0 | 3 => true,
        0x0800 => packet.dst.is_ipv4(),
        0x86dd => packet.dst.is_ipv6(),
        _ => false,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// The IP header and the first words of what follows, as a filter sees them.
fn header(packet: &Packet) -> Vec<u8> {
    let mut all = Vec::with_capacity(60);
    match (packet.src, packet.dst) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            let len = u16::try_from(packet.len).unwrap_or(u16::MAX).to_be_bytes();
            all.extend([0x45, packet.tos, len[0], len[1], 0, 0, 0x40, 0]);
            all.extend([packet.ttl, packet.protocol(), 0, 0]);
            all.extend(src.octets());
            all.extend(dst.octets());
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            let len = u16::try_from(packet.len.saturating_sub(40)).unwrap_or(u16::MAX);
            all.extend([0x60, 0, 0, 0]);
            all.extend(len.to_be_bytes());
            all.extend([packet.protocol(), packet.ttl]);
            all.extend(src.octets());
            all.extend(dst.octets());
        }
        _ => return all,
    }
    if packet.l4 == L4::Icmp {
        let kind = match (packet.dst.is_ipv4(), packet.reply) {
            (true, false) => 8,
            (true, true) => 0,
            (false, false) => 128,
            (false, true) => 129,
        };
        all.extend([kind, 0, 0, 0]);
        all.extend(packet.sport.to_be_bytes());
        all.extend([0, 1]);
    } else {
        all.extend(packet.sport.to_be_bytes());
        all.extend(packet.dport.to_be_bytes());
    }
    all
}
