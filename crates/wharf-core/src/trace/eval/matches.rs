//! Matches of xtables.

use std::net::IpAddr;

use super::bytes::{icmp_code, icmp_type, tcp_flags};
use super::machine::{Machine, Step, World};
use super::read::{fib_oif, nfproto, pkt_type};
use super::step::{limit, test as decided};
use crate::addr::to_number;
use crate::trace::env::Env;
use crate::trace::packet::{L4, Packet};
use crate::trace::ruleset::{Cmp, Match};
use crate::trace::state::Link;

/// `RTN_UNICAST`, `RTN_LOCAL`.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
/// In an ICMP match: any type.
const ANY_TYPE: u8 = 0xff;

/// What a match says.
enum Says {
    /// Whether it holds, before inversion.
    Holds(bool),
    /// It does not hold, inverted or not: there is nothing to compare with.
    Never,
    /// Nobody can tell.
    Unknown,
}

impl From<bool> for Says {
    fn from(holds: bool) -> Self {
        Self::Holds(holds)
    }
}

impl<'a> Machine<'a> {
    pub fn matches(&mut self, world: &World<'_, 'a>, test: &Match, invert: bool) -> Step<'a> {
        if let Match::Maybe(_) = test {
            return limit(!invert);
        }
        match self.says(world, test) {
            Says::Holds(holds) => decided(Some(holds != invert)),
            Says::Never => Step::Break,
            Says::Unknown => decided(None),
        }
    }

    fn says(&self, world: &World<'_, 'a>, test: &Match) -> Says {
        let (packet, env) = (&self.packet, world.env);
        match test {
            Match::Src(addr, mask) => masked(packet.src, *addr, *mask).into(),
            Match::Dst(addr, mask) => masked(packet.dst, *addr, *mask).into(),
            Match::Iif(name, prefix) => named(env.iif, name, *prefix).into(),
            Match::Oif(name, prefix) => named(env.oif, name, *prefix).into(),
            Match::Proto(proto) => (*proto == 0 || packet.protocol() == *proto).into(),
            Match::NfProto(proto) => (nfproto(packet) == *proto).into(),
            Match::Sport(..) | Match::Dport(..) | Match::Multiport { .. } => self.ports(test),
            Match::TcpFlags(..) | Match::IcmpType(..) => self.transport(test),
            Match::CtState(..)
            | Match::CtStatus(..)
            | Match::CtAddr(..)
            | Match::CtPort(..)
            | Match::CtDirReply(..)
            | Match::CtProto(..)
            | Match::Connmark(..) => self.conntrack(world, test),
            Match::Mark(value, mask) => match self.dark_mark.0 && *mask != 0 {
                true => Says::Unknown,
                false => (packet.mark & mask == *value).into(),
            },
            Match::AddrType { .. } => addr_type(env, packet, test).into(),
            Match::Physdev { .. } => physdev(env, test).into(),
            Match::IpRange(src, first, last) => {
                let addr = if *src { packet.src } else { packet.dst };
                // Addresses of different families are ordered too, but do not match.
                (addr.is_ipv4() == first.is_ipv4() && (*first..=*last).contains(&addr)).into()
            }
            Match::PktType(kind) => match pkt_type(env, packet) {
                Some(is) => (is == *kind).into(),
                None => Says::Unknown,
            },
            Match::Length(from, to) => (u32::from(*from)..=u32::from(*to))
                .contains(&packet.len)
                .into(),
            Match::Ttl(op, ttl) => compare(*op, packet.ttl, *ttl).into(),
            Match::MacSource(_) if env.local => Says::Never,
            Match::MacSource(mac) => match packet.src_mac {
                Some(is) => (is.0 == *mac).into(),
                None => Says::Unknown,
            },
            Match::OwnerUid(from, _) | Match::OwnerGid(from, _) => (env.local && *from == 0).into(),
            Match::RpFilter { loose, mark } => self.rpfilter(env, *loose, *mark).into(),
            Match::Socket => env.fib.has_socket(packet).into(),
            Match::Ipset(_) | Match::Opaque(_) | Match::Maybe(_) => Says::Unknown,
        }
    }

    fn ports(&self, test: &Match) -> Says {
        let (sport, dport) = (self.packet.sport, self.packet.dport);
        if self.packet.l4 == L4::Icmp {
            return Says::Never;
        }
        let inside = |port: u16, (from, to): (u16, u16)| (from..=to).contains(&port);
        match test {
            Match::Sport(from, to) => inside(sport, (*from, *to)),
            Match::Dport(from, to) => inside(dport, (*from, *to)),
            Match::Multiport { src, dst, ports } => ports
                .iter()
                .any(|p| (*src && inside(sport, *p)) || (*dst && inside(dport, *p))),
            _ => false,
        }
        .into()
    }

    fn transport(&self, test: &Match) -> Says {
        match (test, self.packet.l4) {
            (Match::TcpFlags(mask, comp), L4::Tcp) => {
                (tcp_flags(&self.packet) & mask == *comp).into()
            }
            (Match::IcmpType(kind, first, last), L4::Icmp) => {
                let any = *kind == ANY_TYPE && self.packet.dst.is_ipv4();
                let code = (*first..=*last).contains(&icmp_code(&self.packet));
                (any || (*kind == icmp_type(&self.packet) && code)).into()
            }
            _ => Says::Never,
        }
    }

    fn conntrack(&self, world: &World<'_, 'a>, test: &Match) -> Says {
        if let Match::CtState(mask) = test {
            let mut state = self.ct_state(world);
            if self.tracked(world) {
                // 0x20 is "translated destination", which is 0x100 in the mask; 0x10 the source, 0x200.
                state |= (self.ct.status & 0x20) << 3 | (self.ct.status & 0x10) << 5;
            }
            return (state & mask != 0).into();
        }
        if !self.tracked(world) {
            return Says::Never;
        }
        let ct = &self.ct;
        let tuple = |reply: bool| if reply { &ct.reply } else { &ct.original };
        match test {
            Match::CtStatus(0) => (ct.status == 0).into(),
            Match::CtStatus(mask) => (ct.status & mask != 0).into(),
            Match::CtAddr(reply, dst, addr, mask) => {
                let tuple = tuple(*reply);
                masked(if *dst { tuple.dst } else { tuple.src }, *addr, *mask).into()
            }
            Match::CtPort(reply, dst, from, to) => {
                let tuple = tuple(*reply);
                let port = if *dst { tuple.dport } else { tuple.sport };
                (*from..=*to).contains(&port).into()
            }
            Match::CtDirReply(reply) => (ct.reply_direction == *reply).into(),
            Match::CtProto(proto) => (ct.original.protocol == *proto).into(),
            Match::Connmark(value, mask) if !self.dark_mark.1 || *mask == 0 => {
                (ct.mark & mask == *value).into()
            }
            _ => Says::Unknown,
        }
    }

    /// Whether the source would be reached by the link the packet came by.
    fn rpfilter(&self, env: &Env<'_>, loose: bool, mark: bool) -> bool {
        let Some(iif) = env.iif else {
            return true;
        };
        if iif.loopback {
            return true;
        }
        let (src, dst) = (self.packet.src, self.packet.dst);
        let mark = if mark { self.packet.mark } else { 0 };
        let device = (!loose).then_some(iif);
        match env.fib.addr_type(src, None) {
            LOCAL => false,
            UNICAST => {
                fib_oif(env, src, dst, mark, device).is_some_and(|oif| loose || oif == iif.index)
            }
            _ => false,
        }
    }
}

fn masked(addr: IpAddr, want: IpAddr, mask: IpAddr) -> bool {
    let same = addr.is_ipv4() == want.is_ipv4() && want.is_ipv4() == mask.is_ipv4();
    same && (to_number(addr) ^ to_number(want)) & to_number(mask) == 0
}

/// Where there is no link its name is empty.
fn named(link: Option<&Link>, want: &str, prefix: bool) -> bool {
    let name = link.map_or("", |l| l.name.as_str());
    if prefix {
        name.starts_with(want)
    } else {
        name == want
    }
}

fn compare(op: Cmp, a: u8, b: u8) -> bool {
    match op {
        Cmp::Eq => a == b,
        Cmp::Ne => a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
    }
}

fn addr_type(env: &Env<'_>, packet: &Packet, test: &Match) -> bool {
    let Match::AddrType {
        src,
        types,
        limit_iif,
        limit_oif,
    } = test
    else {
        return false;
    };
    let addr = if *src { packet.src } else { packet.dst };
    let link = match (limit_iif, limit_oif) {
        (true, _) => env.iif,
        (_, true) => env.oif,
        _ => None,
    };
    let kind = env.fib.addr_type(addr, link.map(|l| l.index));
    types.checked_shr(u32::from(kind)).unwrap_or(0) & 1 == 1
}

fn physdev(env: &Env<'_>, test: &Match) -> bool {
    let Match::Physdev {
        iif,
        oif,
        is_in,
        is_out,
        is_bridged,
    } = test
    else {
        return false;
    };
    let port = |want: &Option<(String, bool)>, link: Option<&Link>| match want {
        Some((name, prefix)) => named(link, name, *prefix),
        None => true,
    };
    let is = |want: &Option<bool>, has: bool| want.is_none_or(|w| w == has);
    let (port_in, port_out) = (env.port_in, env.port_out);
    port(iif, port_in)
        && port(oif, port_out)
        && is(is_in, port_in.is_some())
        && is(is_out, port_out.is_some())
        && is(is_bridged, port_in.is_some() && port_out.is_some())
}
