//! Policies of IPsec (`ip xfrm policy`): what they block, and what only goes on transformed.

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{IpsecDir, IpsecPolicy, Link, Space, SpaceId};

use super::Walk;
use super::fault::Fault;
use super::hooks::Site;
use super::host::six;

/// Where a packet is when policies are asked about it.
#[derive(Debug, Clone, Copy)]
struct At {
    space: SpaceId,
    dir: IpsecDir,
    /// The link that it came in by, if it did.
    came: Option<u32>,
    /// The link that it leaves by; of what stays, the loopback.
    leaves: Option<u32>,
}

impl Walk<'_> {
    /// Where a packet ends or is passed on: policies see it with the addresses that its connection's packets have when they
    /// come, whatever they were translated to since.
    fn ipsec_of_what_came(&mut self, at: At, packet: &Packet) {
        let ct = self.connection(at.space, packet);
        let tuple = if ct.reply_direction {
            ct.reply
        } else {
            ct.original
        };
        let came = Packet {
            src: tuple.src,
            dst: tuple.dst,
            sport: tuple.sport,
            dport: tuple.dport,
            ..packet.clone()
        };
        self.ipsec(at, &came);
    }

    /// The link that what stays in a space goes on by: the loopback, or that of the VRF it came in by.
    fn stays_by(&self, id: SpaceId, link: &Link) -> Option<u32> {
        let space = self.space(id);
        let above = link.master.and_then(|m| space.link(m));
        let above = above.filter(|l| l.kind.as_deref() == Some("vrf"));
        let own = || space.links.iter().find(|l| l.loopback);
        above.or_else(own).map(|l| l.index)
    }

    /// A packet for the space itself.
    pub(super) fn ipsec_arriving(&mut self, id: SpaceId, link: &Link, packet: &Packet) {
        let at = At {
            space: id,
            dir: IpsecDir::In,
            came: Some(link.index),
            leaves: self.stays_by(id, link),
        };
        self.ipsec_of_what_came(at, packet);
    }

    /// A packet that is passed on: as it came, and as it is to leave.
    pub(super) fn ipsec_passing(&mut self, site: Site, packet: &Packet) {
        let at = At {
            space: site.space,
            dir: IpsecDir::Forward,
            came: site.iif,
            leaves: site.oif,
        };
        self.ipsec_of_what_came(at, packet);
        self.ipsec_leaving(site, None, packet);
    }

    /// A packet that leaves is asked about when its way is known, and again when rules changed its addresses.
    pub(super) fn ipsec_leaving(&mut self, site: Site, before: Option<&Packet>, packet: &Packet) {
        let ends = |p: &Packet| match p.l4 {
            L4::Icmp => (p.src, p.dst, 0, 0),
            L4::Tcp | L4::Udp => (p.src, p.dst, p.sport, p.dport),
        };
        if before.is_some_and(|b| ends(b) == ends(packet)) {
            return;
        }
        let at = At {
            space: site.space,
            dir: IpsecDir::Out,
            // What is translated is asked about as if it were made here.
            came: site.iif.filter(|_| before.is_none()),
            leaves: site.oif,
        };
        self.ipsec(at, packet);
    }

    /// The policy that a packet meets.
    fn ipsec(&mut self, at: At, packet: &Packet) {
        let space = self.space(at.space);
        let link = |i: Option<u32>| i.and_then(|i| space.link(i));
        let (came, leaves) = (link(at.came), link(at.leaves));
        // Where IPv4 asks no policies.
        let off = |l: Option<&Link>, what: &str| {
            packet.dst.is_ipv4() && l.is_some_and(|l| self.either(at.space, &l.name, what))
        };
        let passes = match at.dir {
            IpsecDir::Out => off(leaves, "disable_xfrm"),
            IpsecDir::In | IpsecDir::Forward => off(came, "disable_policy"),
        };
        if passes && (at.dir != IpsecDir::Out || came.is_some()) {
            return;
        }
        match first(space, at, packet).filter(|_| !passes) {
            Some(policy) if policy.blocks => {
                let fault = blocked(space, at.space, policy);
                self.blame(Verdict::Dropped, "ipsec", fault);
            }
            Some(policy) if policy.transforms => {
                self.unknown = true;
                let (name, shown) = (&space.name, show(space, policy));
                self.note(format!(
                    "{name}: by ip xfrm policy {shown} it only passes encrypted, and what becomes of it then cannot be told"
                ));
            }
            Some(_) => {}
            // What the space sends to itself is let out.
            None if at.dir == IpsecDir::Out && leaves.is_some_and(|l| l.loopback) => {}
            None if space.ipsec.closed.contains(&at.dir) => {
                let fault = closed(space, at, packet);
                self.blame(Verdict::Dropped, "ipsec", fault);
            }
            None => {}
        }
    }
}

fn blocked(space: &Space, id: SpaceId, policy: &IpsecPolicy) -> Fault {
    let shown = show(space, policy);
    let enter = &space.enter;
    let what = format!("A policy of IPsec in {} blocks it: {shown}.", space.name);
    Fault::new(Code::FirewallRule, id, shown.clone(), what)
        .evidence(format!("{enter}ip xfrm policy: {shown} action block"))
        .fix(format!("{enter}ip xfrm policy delete {shown}"))
}

fn closed(space: &Space, at: At, packet: &Packet) -> Fault {
    let (dir, enter, name) = (word(at.dir), &space.enter, &space.name);
    let what = format!(
        "IPsec in {name} blocks every packet ({dir}) that no policy of its own lets pass, and there is none for this one."
    );
    let six = six(packet.dst);
    Fault::new(
        Code::FirewallPolicy,
        at.space,
        format!("ip xfrm policy default {dir} block"),
        what,
    )
    .evidence(format!("{enter}ip xfrm policy getdefault: {dir}: block"))
    .evidence(format!("{enter}ip {six}xfrm policy list dir {dir}"))
    .fix(format!("{enter}ip xfrm policy setdefault {dir} accept"))
}

/// The first of the policies that fit.
fn first<'s>(space: &'s Space, at: At, packet: &Packet) -> Option<&'s IpsecPolicy> {
    // Type and code of ICMP stand for ports.
    let ports = match (packet.l4, packet.dst.is_ipv4()) {
        (L4::Icmp, true) => (if packet.reply { 0 } else { 8 }, 0),
        (L4::Icmp, false) => (if packet.reply { 129 } else { 128 }, 0),
        (L4::Tcp | L4::Udp, _) => (packet.sport, packet.dport),
    };
    let within = |(value, mask): (u16, u16), port: u16| port & mask == value & mask;
    let all = space.ipsec.policies.iter().filter(|p| {
        p.dir == at.dir
            && p.src.contains(&packet.src)
            && p.dst.contains(&packet.dst)
            && (p.protocol == 0 || p.protocol == packet.protocol())
            && (p.link == 0 || at.leaves == Some(p.link))
            && packet.mark & p.mark.1 == p.mark.0
            && within(p.sport, ports.0)
            && within(p.dport, ports.1)
    });
    all.min_by_key(|p| p.priority)
}

fn word(dir: IpsecDir) -> &'static str {
    match dir {
        IpsecDir::In => "in",
        IpsecDir::Out => "out",
        IpsecDir::Forward => "fwd",
    }
}

/// As `ip xfrm policy delete` takes it.
fn show(space: &Space, policy: &IpsecPolicy) -> String {
    let mut text = format!("src {} dst {}", policy.src, policy.dst);
    if let Some(link) = space.link(policy.link) {
        text += &format!(" dev {}", link.name);
    }
    let words = match policy.protocol {
        1 | 58 => ["type", "code"],
        _ => ["sport", "dport"],
    };
    match policy.protocol {
        0 => {}
        1 => text += " proto icmp",
        6 => text += " proto tcp",
        17 => text += " proto udp",
        58 => text += " proto ipv6-icmp",
        other => text += &format!(" proto {other}"),
    }
    for (word, (value, mask)) in words.into_iter().zip([policy.sport, policy.dport]) {
        if mask != 0 {
            text += &format!(" {word} {value}");
        }
    }
    text += " dir ";
    text += word(policy.dir);
    if policy.mark != (0, 0) {
        text += &format!(" mark {} mask {}", policy.mark.0, policy.mark.1);
    }
    text
}
