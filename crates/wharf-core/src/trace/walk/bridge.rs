//! Inside a bridge: its ports, its forwarding table, its rules, and IP rules where br_netfilter calls them.

use crate::addr::Mac;
use crate::network::NetworkSpec;
use crate::trace::packet::Packet;
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{FdbEntry, HOST, Link, Neighbour, Place, Port};

use super::Walk;
use super::fault::Fault;
use super::hooks::{Site, Sort};
use super::owner;
use super::turned::Inside;

/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;

impl<'a> Walk<'a> {
    /// A frame inside a bridge: from a port or from the bridge's IP, to a port or to the bridge's IP.
    pub(super) fn bridged(
        &mut self,
        bridge: Place,
        input: Option<u32>,
        output: Option<u32>,
        packet: Packet,
    ) -> Packet {
        let space = self.space(bridge.space);
        let Some(link) = space.link(bridge.index) else {
            return packet;
        };
        if !link.up {
            let fault = self.link_down(bridge);
            self.blame(Verdict::Dropped, "bridge", fault);
        }
        let port = |i: Option<u32>| i.and_then(|i| space.link(i));
        if let (Some(inside), Some(out)) = (self.turned.take(), port(output)) {
            return self.turned_to(inside, out, packet);
        }
        if input.is_none() || output.is_none() {
            self.check_name(bridge, link);
        }
        if let Some(p) = port(input) {
            self.check_port_in(bridge, p, &packet);
        }
        if let Some(vlan) = self.vlan(link, port(input), port(output)) {
            self.blame(Verdict::Dropped, "bridge", vlan);
        }
        let shown = input.is_some() && self.calls_ip(link, bridge, &packet);
        let calls = shown && output.is_some();
        let mut site = Site::new(bridge.space, Hook::Prerouting, Sort::Bridge);
        // Where the frame leaves is not told before it is decided, nor where it came from after that.
        site.iif = input;
        let mut packet = packet;
        if input.is_some() {
            packet = self.rules(site, packet);
            if calls {
                packet = self.bridged_ip(bridge, Hook::Prerouting, input, None, packet);
            }
        } else {
            (site.hook, site.oif) = (Hook::Output, output);
            packet = self.rules(site, packet);
        }
        if let (Some(i), Some(o)) = (port(input), port(output)) {
            self.check_pair(bridge, i, o, &packet);
        }
        let name = |i: Option<u32>| port(i).map_or(space.name.as_str(), |l| l.name.as_str());
        let text = format!("from {} to {}", name(input), name(output));
        match (port(output), input) {
            (Some(o), _) => self.check_port_out(bridge, o, &packet),
            // IP rules see it first, and may turn it round.
            (None, Some(input)) if shown => {
                self.inside = Some(Inside::new(bridge, input, &packet));
                self.hop(bridge.space, "bridge", &link.name, &text);
                return packet;
            }
            (None, _) => self.check_upward(bridge, link, &packet),
        }
        let packet = self.decided(bridge, (input, output), calls, packet);
        self.hop(bridge.space, "bridge", &link.name, &text);
        packet
    }

    /// The rules of a bridge behind its decision where a frame goes, and those of IP where it `calls` them.
    pub(super) fn decided(
        &mut self,
        bridge: Place,
        (input, output): (Option<u32>, Option<u32>),
        calls: bool,
        packet: Packet,
    ) -> Packet {
        let mut site = Site::new(bridge.space, Hook::Forward, Sort::Bridge);
        (site.iif, site.oif) = (input, output);
        site.hook = match (input, output) {
            (_, None) => Hook::Input,
            (Some(_), Some(_)) => Hook::Forward,
            (None, Some(_)) => Hook::Postrouting,
        };
        let mut packet = self.rules(site, packet);
        if calls {
            packet = self.bridged_ip(bridge, Hook::Forward, input, output, packet);
        }
        if input.is_some() && output.is_some() {
            (site.hook, site.iif) = (Hook::Postrouting, None);
            packet = self.rules(site, packet);
            if calls {
                packet = self.bridged_ip(bridge, Hook::Postrouting, input, output, packet);
            }
        }
        packet
    }

    /// Rules and routing rules know a network's bridge by its name.
    fn check_name(&mut self, bridge: Place, link: &Link) {
        let host = self.space(HOST);
        let mut nets = self.state.networks.iter();
        let is = |n: &&NetworkSpec| {
            n.has_own_bridge()
                && link.mac == Some(n.bridge_mac)
                && host.link_named(n.bridge.as_str()).is_none()
        };
        let Some(net) = nets.find(|n| bridge.space == HOST && is(n)) else {
            return;
        };
        let (name, was) = (&link.name, &net.bridge);
        let what = format!(
            "The bridge {was} of the network {} was given another name, {name}: wharf's rules do not know it.",
            net.name
        );
        let fault = Fault::new(Code::NotOnBridge, HOST, was.to_string(), what)
            .owner(Owner::Wharf)
            .evidence(format!("ip link show {was}: does not exist"))
            .evidence(format!("ip link show {name}"))
            .fix(format!("ip link set {name} name {was}"))
            .fix("wharf repair");
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    fn bridged_ip(
        &mut self,
        bridge: Place,
        hook: Hook,
        input: Option<u32>,
        output: Option<u32>,
        packet: Packet,
    ) -> Packet {
        let mut site = Site::new(bridge.space, hook, Sort::Bridged);
        if hook != Hook::Postrouting {
            site.iif = Some(bridge.index);
        }
        if hook != Hook::Prerouting {
            site.oif = Some(bridge.index);
        }
        (site.port_in, site.port_out) = (input, output);
        self.rules(site, packet)
    }

    /// Whether br_netfilter shows frames of this bridge to IP rules.
    fn calls_ip(&self, link: &Link, bridge: Place, packet: &Packet) -> bool {
        let v4 = packet.dst.is_ipv4();
        let name = if v4 {
            "net.bridge.bridge-nf-call-iptables"
        } else {
            "net.bridge.bridge-nf-call-ip6tables"
        };
        let own = link
            .bridge
            .as_ref()
            .is_some_and(|b| if v4 { b.nf_call.0 } else { b.nf_call.1 });
        own || self.space(bridge.space).sysctl(name) == Some(1)
    }

    pub(super) fn blocked(
        &self,
        bridge: Place,
        port: &Link,
        what: String,
        seen: &str,
        fix: &str,
    ) -> Fault {
        let space = self.space(bridge.space);
        let place = Place {
            index: port.index,
            ..bridge
        };
        let name = &port.name;
        Fault::new(Code::BridgePortBlocked, bridge.space, name.clone(), what)
            .owner(owner::of_link(self.state, place))
            .evidence(format!(
                "{}bridge -d link show dev {name}: {seen}",
                space.enter
            ))
            .fix(format!("{}bridge link set dev {name} {fix}", space.enter))
    }

    /// The spanning tree state, where nothing simpler explains it.
    fn check_state(&mut self, bridge: Place, link: &Link, port: &Port) {
        let lower = self
            .space(bridge.space)
            .link(bridge.index)
            .is_some_and(|b| b.up);
        if port.state == FORWARDING || !link.up || !lower || port.state == 0 && !link.carrier {
            return;
        }
        let word = match port.state {
            0 => "disabled",
            1 => "listening",
            2 => "learning",
            _ => "blocking",
        };
        let what = format!("The bridge port {} is {word}, not forwarding.", link.name);
        let mut fault = self.blocked(bridge, link, what, &format!("state {word}"), "state 3");
        let master = self.space(bridge.space).link(bridge.index);
        if let Some(b) = master.filter(|b| b.bridge.as_ref().is_some_and(|b| b.stp)) {
            // The spanning tree's own decisions cannot be overruled port by port.
            let enter = &self.space(bridge.space).enter;
            fault.fix = vec![
                format!("{enter}ip link set {} type bridge stp_state 0", b.name),
                format!("{enter}ip link set {} down", link.name),
                format!("{enter}ip link set {} up", link.name),
            ];
        }
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    fn check_port_in(&mut self, bridge: Place, link: &Link, packet: &Packet) {
        let Some(port) = &link.port else {
            return;
        };
        self.check_state(bridge, link, port);
        let Some(mac) = packet.src_mac.filter(|_| port.locked) else {
            return;
        };
        let known = self
            .space(bridge.space)
            .fdb
            .iter()
            .any(|e| e.link == link.index && e.mac == mac && !e.own && !e.local);
        if known {
            return;
        }
        let what = format!(
            "The port {} is locked, and takes no frames from {mac}.",
            link.name
        );
        let mut fault = self.blocked(bridge, link, what, "locked on", "locked off");
        if fault.owner == Owner::Wharf {
            fault.code = Code::SpoofGuard;
            fault = self.as_given_at(link.index, fault, packet);
            // The container is as it should be, and the bridge does not know it.
            if fault.fix.is_empty() {
                fault = fault.fix("wharf repair");
            }
        }
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    pub(super) fn check_pair(
        &mut self,
        bridge: Place,
        input: &Link,
        output: &Link,
        packet: &Packet,
    ) {
        let isolated = |l: &Link| l.port.as_ref().is_some_and(|p| p.isolated);
        if !(isolated(input) && isolated(output)) {
            return;
        }
        let (a, b) = (&input.name, &output.name);
        let what = format!(
            "The ports {a} and {b} are both isolated, so that frames do not pass between them."
        );
        let mut fault = self.blocked(bridge, output, what, "isolated on", "isolated off");
        let net = self.network_of_bridge((bridge.space == HOST).then_some(bridge.index));
        if let Some(net) = net.filter(|net| !net.icc && fault.owner == Owner::Wharf) {
            fault.fix.clear();
            fault = self.icc_off(fault, net, packet);
        }
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    /// Does the bridge send the frame out by this port?
    pub(super) fn check_port_out(&mut self, bridge: Place, link: &Link, packet: &Packet) {
        let Some(port) = &link.port else {
            return;
        };
        self.check_state(bridge, link, port);
        let Some(mac) = packet.dst_mac else {
            return;
        };
        let space = self.space(bridge.space);
        let member = |i: u32| {
            space
                .link(i)
                .is_some_and(|l| l.master == Some(bridge.index))
        };
        let pinned = space
            .fdb
            .iter()
            .find(|e| e.mac == mac && e.fixed && !e.own && e.link != link.index && member(e.link));
        // The entry moves to the right port as soon as its owner speaks, unless the port does not learn.
        let heals = port.learning && !self.sender_knows(packet, mac);
        if let Some(entry) = pinned.filter(|_| !heals) {
            self.wrong_port(bridge, link, entry.link, mac);
            return;
        }
        let here = space
            .fdb
            .iter()
            .any(|e| e.mac == mac && e.link == link.index && !e.own);
        // Neighbour discovery is multicast, which a port may not be sent; a known neighbour is not asked for.
        if packet.dst.is_ipv6() && !port.mcast_flood && !self.sender_knows(packet, mac) {
            let what = format!(
                "Multicast is not sent to {}, so that neighbour discovery does not reach it.",
                link.name
            );
            let fault = self.blocked(bridge, link, what, "mcast_flood off", "mcast_flood on");
            self.blame(Verdict::Dropped, "bridge", fault);
            return;
        }
        // What a port may not be flooded with reaches it once its address is learned.
        if here || port.flood || port.learning && port.bcast_flood {
            let asks = !port.bcast_flood && packet.dst.is_ipv4();
            if !asks || self.sender_knows(packet, mac) {
                return;
            }
            let what = format!(
                "Broadcasts are not sent to {}, so that ARP does not reach it.",
                link.name
            );
            let fault = self.blocked(bridge, link, what, "bcast_flood off", "bcast_flood on");
            self.blame(Verdict::Dropped, "bridge", fault);
            return;
        }
        let (seen, fix) = if port.learning {
            ("flood off bcast_flood off", "flood on bcast_flood on")
        } else {
            ("learning off flood off", "learning on flood on")
        };
        let what = format!(
            "The bridge does not know that {mac} is behind {}, and may not flood it.",
            link.name
        );
        let fault = self.blocked(bridge, link, what, seen, fix);
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    /// Whether the bridge takes the frame as its own: a forwarding entry may send its MAC address to a port.
    pub(super) fn check_upward(&mut self, bridge: Place, link: &Link, packet: &Packet) {
        let space = self.space(bridge.space);
        let Some(mac) = packet.dst_mac.filter(|mac| link.mac == Some(*mac)) else {
            return;
        };
        let member = |i: u32| {
            let port = space.link(i);
            port.is_some_and(|l| l.master == Some(bridge.index))
        };
        let vlans = link.bridge.as_ref().is_some_and(|b| b.vlan_filtering);
        let counts = |e: &&FdbEntry| e.mac == mac && !e.own && (e.vlan.is_none() || vlans);
        let all = || space.fdb.iter().filter(counts);
        let (enter, br) = (&space.enter, &link.name);
        let again = format!("{enter}bridge fdb replace {mac} dev {br} self permanent");
        let fault = match all().find(|e| !e.local && member(e.link)) {
            Some(entry) => {
                let name = space.link(entry.link).map_or("?", |l| l.name.as_str());
                let shown = format!("{mac} dev {name} master {br}");
                let what =
                    format!("An entry of {br} sends {mac} to {name}, but it is its own address.");
                Fault::new(Code::BridgePortBlocked, bridge.space, shown.clone(), what)
                    .evidence(format!("{enter}bridge fdb show br {br}: {shown}"))
                    .fix(format!("{enter}bridge fdb del {mac} dev {name} master"))
            }
            // An empty table was not read.
            None if !link.promisc && !space.fdb.is_empty() && !all().any(|e| e.local) => {
                let what = format!(
                    "{br} does not know its own address {mac}, and takes no frames for it."
                );
                let shown = format!("{mac} dev {br}");
                Fault::new(Code::BridgePortBlocked, bridge.space, shown, what)
                    .evidence(format!("{enter}bridge fdb show br {br}: no {mac}"))
            }
            None => return,
        };
        self.blame(Verdict::Dropped, "bridge", fault.fix(again));
    }

    /// Whether the sender has the MAC address already, for packets of this family.
    fn sender_knows(&self, packet: &Packet, mac: Mac) -> bool {
        let all = self.state.spaces.iter().flat_map(|s| {
            let own = packet.src_mac;
            s.links
                .iter()
                .filter(move |l| l.mac == own && own.is_some())
                .flat_map(|l| s.neighbours.iter().filter(move |n| n.link == l.index))
        });
        let alike = |n: &Neighbour| n.addr.is_ipv4() == packet.dst.is_ipv4();
        all.into_iter().any(|n| n.mac == Some(mac) && alike(n))
    }

    fn wrong_port(&mut self, bridge: Place, right: &Link, wrong: u32, mac: Mac) {
        let space = self.space(bridge.space);
        let name = space.link(wrong).map_or("?", |l| l.name.as_str());
        let br = space.link(bridge.index).map_or("?", |l| l.name.as_str());
        let what = format!(
            "A fixed entry of {br} sends {mac} to {name}, but it is behind {}.",
            right.name
        );
        let shown = format!("{mac} dev {name} master {br}");
        let fault = Fault::new(Code::BridgePortBlocked, bridge.space, shown.clone(), what)
            .evidence(format!(
                "{}bridge fdb show br {br}: {shown} static",
                space.enter
            ))
            .fix(format!(
                "{}bridge fdb del {mac} dev {name} master",
                space.enter
            ));
        self.blame(Verdict::Dropped, "bridge", fault);
    }

    /// VLAN filtering: the frame enters untagged and must be allowed out.
    fn vlan<'s>(
        &self,
        bridge: &'s Link,
        input: Option<&'s Link>,
        output: Option<&'s Link>,
    ) -> Option<Fault> {
        if !bridge.bridge.as_ref().is_some_and(|b| b.vlan_filtering) {
            return None;
        }
        let (from, to) = (input.unwrap_or(bridge), output.unwrap_or(bridge));
        let place = |l: &Link| {
            self.state
                .spaces
                .iter()
                .position(|s| s.links.iter().any(|x| std::ptr::eq(x, l)))
        };
        // The bridge's own VLANs; none at all were not read.
        let vlans = |l: &'s Link| match (&l.bridge, &l.port) {
            (Some(b), _) if b.pvid.is_none() && b.vlans.is_empty() => None,
            (Some(b), _) => Some((b.pvid, &b.vlans)),
            (None, Some(p)) => Some((p.pvid, &p.vlans)),
            (None, None) => None,
        };
        let ((enters, _), (leaves, allowed)) = (vlans(from)?, vlans(to)?);
        let space = place(from)?;
        let enter = &self.space(space).enter;
        let (name, what, vid) = match enters {
            None => {
                let what = format!("{} takes no untagged frames (no PVID).", from.name);
                (&from.name, what, leaves.unwrap_or(1))
            }
            Some(v) if !allowed.iter().any(|(id, _)| *id == v) => {
                let what = format!("VLAN {v} of {} is not allowed at {}.", from.name, to.name);
                (&to.name, what, v)
            }
            Some(_) => return None,
        };
        let own = if *name == bridge.name { " self" } else { "" };
        Some(
            Fault::new(Code::BridgePortBlocked, space, name.clone(), what)
                .evidence(format!("{enter}bridge vlan show dev {name}"))
                .fix(format!(
                    "{enter}bridge vlan add dev {name} vid {vid} pvid untagged{own}"
                )),
        )
    }
}
