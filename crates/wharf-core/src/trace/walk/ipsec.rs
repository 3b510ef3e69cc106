//! Policies of IPsec (`ip xfrm policy`): what they block, and what only goes on transformed.

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{IpsecDir, IpsecPolicy, Space, SpaceId};

use super::Walk;
use super::fault::Fault;

impl Walk<'_> {
    /// A packet that came in, as policies see it: with the addresses that its connection's packets have when they come,
    /// whatever they were translated to since.
    pub(super) fn as_it_came(&self, id: SpaceId, packet: &Packet) -> Packet {
        let ct = self.connection(id, packet);
        let tuple = if ct.reply_direction {
            ct.reply
        } else {
            ct.original
        };
        Packet {
            src: tuple.src,
            dst: tuple.dst,
            sport: tuple.sport,
            dport: tuple.dport,
            ..packet.clone()
        }
    }

    /// The policy that a packet meets: where it ends (`link` is where it came in), is passed on, or leaves (by `link`).
    pub(super) fn ipsec(&mut self, id: SpaceId, dir: IpsecDir, link: u32, packet: &Packet) {
        let space = self.space(id);
        if space.link(link).is_some_and(|l| l.loopback) {
            return;
        }
        let Some(policy) = first(space, dir, link, packet) else {
            return;
        };
        let shown = show(policy);
        if policy.blocks {
            let what = format!("A policy of IPsec in {} blocks it: {shown}.", space.name);
            let fault = Fault::new(Code::FirewallRule, id, shown.clone(), what)
                .evidence(format!(
                    "{}ip xfrm policy: {shown} action block",
                    space.enter
                ))
                .fix(format!("{}ip xfrm policy delete {shown}", space.enter));
            self.blame(Verdict::Dropped, "ipsec", fault);
        } else if policy.transforms {
            self.unknown = true;
            let name = &space.name;
            self.note(format!(
                "{name}: by ip xfrm policy {shown} it only passes encrypted, and what becomes of it then cannot be told"
            ));
        }
    }
}

/// The first of the policies that fit.
fn first<'s>(
    space: &'s Space,
    dir: IpsecDir,
    link: u32,
    packet: &Packet,
) -> Option<&'s IpsecPolicy> {
    let ports = match packet.l4 {
        L4::Icmp => (0, 0),
        L4::Tcp | L4::Udp => (packet.sport, packet.dport),
    };
    let within = |(value, mask): (u16, u16), port: u16| port & mask == value & mask;
    let all = space.ipsec.iter().filter(|p| {
        p.dir == dir
            && p.src.contains(&packet.src)
            && p.dst.contains(&packet.dst)
            && (p.protocol == 0 || p.protocol == packet.protocol())
            && (p.link == 0 || p.link == link)
            && within(p.sport, ports.0)
            && within(p.dport, ports.1)
    });
    all.min_by_key(|p| p.priority)
}

/// As `ip xfrm policy delete` takes it.
fn show(policy: &IpsecPolicy) -> String {
    let mut text = format!("src {} dst {}", policy.src, policy.dst);
    match policy.protocol {
        0 => {}
        6 => text += " proto tcp",
        17 => text += " proto udp",
        other => text += &format!(" proto {other}"),
    }
    for (word, (value, mask)) in [("sport", policy.sport), ("dport", policy.dport)] {
        if mask != 0 {
            text += &format!(" {word} {value}");
        }
    }
    let dir = match policy.dir {
        IpsecDir::In => "in",
        IpsecDir::Out => "out",
        IpsecDir::Forward => "fwd",
    };
    text + " dir " + dir
}
