//! Frames that br_netfilter turns round: their destination was translated to somebody on the bridge that they came to, and
//! they go on inside it, past the host's IP (`br_nf_pre_routing_finish`).

use std::net::IpAddr;

use crate::addr::Mac;
use crate::trace::packet::Packet;
use crate::trace::report::Verdict;
use crate::trace::ruleset::Hook;
use crate::trace::state::{Link, Place, RouteKind};

use super::hooks::{Site, Sort};
use super::route::Found;
use super::{Passed, Walk};

/// A frame that came to a bridge by a port, and is still inside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inside {
    bridge: Place,
    port: u32,
    mac: Option<Mac>,
    /// Its source before rules on its way out.
    src: IpAddr,
}

impl Inside {
    pub(super) fn new(bridge: Place, port: u32, packet: &Packet) -> Self {
        Self {
            bridge,
            port,
            mac: packet.src_mac,
            src: packet.src,
        }
    }
}

impl<'a> Walk<'a> {
    /// A frame whose addresses IP rules have seen: it goes up to the bridge's own IP, or is turned round.
    pub(super) fn turn(&mut self, before: &Packet, packet: Packet, found: &Found<'_>) -> Packet {
        self.turned = None;
        let Some(inside) = self.inside.take() else {
            return packet;
        };
        let back = match found {
            Found::Route(c) if c.route.kind == RouteKind::Unicast => {
                c.hop.and_then(|h| h.link) == Some(inside.bridge.index)
            }
            _ => false,
        };
        if back && before.dst != packet.dst {
            self.turned = Some(Inside {
                src: packet.src,
                ..inside
            });
            return packet;
        }
        self.go_up(inside, packet)
    }

    /// What waited to go up, where it is not asked whether it turns.
    pub(super) fn let_up(&mut self, packet: Packet) -> Packet {
        match self.inside.take() {
            Some(inside) => self.go_up(inside, packet),
            None => packet,
        }
    }

    fn go_up(&mut self, inside: Inside, packet: Packet) -> Packet {
        let bridge = inside.bridge;
        if let Some(link) = self.space(bridge.space).link(bridge.index) {
            self.check_upward(bridge, link, &packet);
        }
        let mut site = Site::new(bridge.space, Hook::Input, Sort::Bridge);
        site.iif = Some(inside.port);
        self.rules(site, packet)
    }

    /// A frame that was turned round, to the port behind which its new destination is.
    pub(super) fn turned_to(&mut self, inside: Inside, output: &Link, packet: Packet) -> Packet {
        let bridge = inside.bridge;
        let space = self.space(bridge.space);
        let Some(input) = space.link(inside.port) else {
            return packet;
        };
        let mut packet = packet;
        if input.index == output.index && input.port.as_ref().is_some_and(|p| !p.hairpin) {
            let what = format!(
                "The port {} does not send frames back by where they came, and with bridge-nf-call on, what is translated to its own container does not leave the bridge.",
                input.name
            );
            let fault = self.blocked(bridge, input, what, "hairpin off", "hairpin on");
            self.blame(Verdict::Dropped, "bridge", fault);
        }
        self.check_pair(bridge, input, output, &packet);
        // The bridge's IP asks for its new destination; the frame stays the sender's.
        self.check_port_out(bridge, output, &packet);
        packet.src_mac = inside.mac;
        let ports = (Some(inside.port), Some(output.index));
        packet = self.decided(bridge, ports, true, packet);
        self.passed.push(Passed {
            space: bridge.space,
            iif: bridge.index,
            oif: bridge.index,
            gateway: false,
            src: inside.src,
            translated: packet.src != inside.src,
        });
        let text = format!("turned round, from {} to {}", input.name, output.name);
        let name = space.link(bridge.index).map_or("?", |l| l.name.as_str());
        self.hop(bridge.space, "bridge", name, &text);
        packet
    }
}
