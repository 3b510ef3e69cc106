//! Translations that rules make for the first packet of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::bytes::addr as address;
use super::machine::{DST_NAT_DONE, Machine, Made, SRC_NAT_DONE, Step, World, source_side};
use crate::addr::{Family, from_number, to_number};
use crate::trace::env::{Ending, Env};
use crate::trace::packet::L4;
use crate::trace::ruleset::{Hook, NatArg, NatKind, RegByte};
use crate::trace::state::{Address, Link, Space};

const SRC_NAT: u32 = 0x10;
const DST_NAT: u32 = 0x20;

/// Something to choose from.
#[derive(Clone, Copy)]
struct Choice<T> {
    first: T,
    last: T,
}

/// What to translate to.
struct To {
    source: bool,
    how: &'static str,
    addr: Option<Choice<IpAddr>>,
    /// The host part is kept.
    prefix: bool,
    port: Option<Choice<u16>>,
}

impl<'a> Machine<'a> {
    /// Translates, and ends the base chain as the kernel does.
    pub fn translate(
        &mut self,
        world: &World<'_, 'a>,
        kind: &NatKind,
        addr: Option<&NatArg>,
        port: Option<&NatArg>,
    ) -> Step<'a> {
        let env = world.env;
        let source = source_side(env.hook);
        // A register that is not known: where to cannot be told.
        let (Ok(given), Ok(port)) = (self.addr_arg(addr), self.port_arg(env.hook, port)) else {
            return Step::End(Ending::Unknown);
        };
        let one = |addr: Option<IpAddr>| addr.map(|a| Choice { first: a, last: a });
        let (source, how, addr, prefix) = match kind {
            NatKind::Source => (true, "snat", given, false),
            NatKind::Destination => (false, "dnat", given, false),
            NatKind::Masquerade => {
                let own = own_source(env, self.packet.dst);
                (true, "masquerade", one(own), false)
            }
            NatKind::Redirect => {
                let own = own_destination(env, self.packet.dst);
                (false, "redirect", one(own), false)
            }
            NatKind::Netmap(net) => {
                let ends = Choice {
                    first: net.network(),
                    last: net.broadcast(),
                };
                (source, "netmap", Some(ends), true)
            }
            NatKind::Prefix { source } => (*source, "netmap", given, true),
        };
        let own = matches!(kind, NatKind::Masquerade | NatKind::Redirect);
        if own && addr.is_none() {
            return Step::End(Ending::Drop);
        }
        self.apply_nat(
            world,
            To {
                source,
                how,
                addr,
                prefix,
                port,
            },
        );
        Step::Accept
    }

    fn apply_nat(&mut self, world: &World<'_, 'a>, to: To) {
        let old = if to.source {
            (self.packet.src, self.packet.sport)
        } else {
            (self.packet.dst, self.packet.dport)
        };
        let addr = match to.addr {
            Some(range) if Family::of(range.first) == Family::of(old.0) => {
                self.choose_addr(world, &to, range, old.0)
            }
            _ => old.0,
        };
        let port = match to.port {
            Some(range) if self.packet.l4 != L4::Icmp => {
                self.choose_port(world, to.source, range, old.1)
            }
            _ => old.1,
        };
        self.ct.status |= if to.source {
            SRC_NAT_DONE
        } else {
            DST_NAT_DONE
        };
        if (addr, port) == old {
            return;
        }
        let port_changed = (port != old.1).then_some(port);
        if to.source {
            self.ct.status |= SRC_NAT;
            (self.packet.src, self.packet.sport) = (addr, port);
            self.ct.reply.dst = addr;
            self.ct.reply.dport = port_changed.unwrap_or(self.ct.reply.dport);
        } else {
            self.ct.status |= DST_NAT;
            (self.packet.dst, self.packet.dport) = (addr, port);
            self.ct.reply.src = addr;
            self.ct.reply.sport = port_changed.unwrap_or(self.ct.reply.sport);
        }
        self.changed();
        let site = self.site(world);
        self.translations.push(Made {
            source: to.source,
            addr,
            port: port_changed,
            how: to.how,
            site,
        });
    }

    /// The kernel keeps a source that is in the range, and else chooses by a hash of the addresses.
    fn choose_addr(
        &mut self,
        world: &World<'_, 'a>,
        to: &To,
        range: Choice<IpAddr>,
        old: IpAddr,
    ) -> IpAddr {
        if to.prefix {
            return mapped(old, range);
        }
        let within = (range.first..=range.last).contains(&old);
        if range.first == range.last || (to.source && within) {
            return if within { old } else { range.first };
        }
        self.vague.push(self.site(world));
        range.first
    }

    /// The kernel keeps a port that is in the range and free.
    fn choose_port(
        &mut self,
        world: &World<'_, 'a>,
        source: bool,
        range: Choice<u16>,
        old: u16,
    ) -> u16 {
        if (range.first..=range.last).contains(&old) {
            return old;
        }
        if !source && range.first != range.last {
            self.vague.push(self.site(world));
        }
        range.first
    }

    /// Whether a program listens where a transparent proxy is expected; `None` where it cannot be told.
    pub fn has_proxy(&self, world: &World<'_, 'a>, port: Option<&NatArg>) -> Option<bool> {
        let port = self.port_arg(world.env.hook, port).ok()?;
        let port = port.map_or(self.packet.dport, |choice| choice.first);
        let protocol = self.packet.l4;
        let mut sockets = world.env.space.sockets.iter();
        Some(sockets.any(|s| s.protocol == protocol && s.port == port))
    }

    fn addr_arg(&self, arg: Option<&NatArg>) -> Result<Option<Choice<IpAddr>>, ()> {
        let len = match self.packet.family() {
            Family::V4 => 4,
            Family::V6 => 16,
        };
        let read = |reg: RegByte| -> Result<IpAddr, ()> {
            let key = self.regs.key(reg, len);
            if !key.known() {
                return Err(());
            }
            address(key.bits).ok_or(())
        };
        let (first, last) = match arg {
            None => return Ok(None),
            Some(NatArg::Reg(reg)) => (read(*reg)?, read(*reg)?),
            Some(NatArg::Regs(from, to)) => (read(*from)?, read(*to)?),
            Some(NatArg::Addr(addr)) => (*addr, *addr),
            Some(NatArg::Addrs(from, to)) => (*from, *to),
            Some(NatArg::Port(_) | NatArg::Ports(..) | NatArg::PortShift { .. }) => return Err(()),
        };
        Ok(Some(Choice { first, last }))
    }

    fn port_arg(&self, hook: Hook, arg: Option<&NatArg>) -> Result<Option<Choice<u16>>, ()> {
        let read = |reg: RegByte| -> Result<u16, ()> {
            let key = self.regs.key(reg, 2);
            if !key.known() {
                return Err(());
            }
            key.bits.try_into().map(u16::from_be_bytes).map_err(|_| ())
        };
        let (first, last) = match arg {
            None => return Ok(None),
            Some(NatArg::Reg(reg)) => (read(*reg)?, read(*reg)?),
            Some(NatArg::Regs(from, to)) => (read(*from)?, read(*to)?),
            Some(NatArg::Port(port)) => (*port, *port),
            Some(NatArg::Ports(from, to)) => (*from, *to),
            Some(NatArg::PortShift { first, last, base }) => {
                let old = if source_side(hook) {
                    self.packet.sport
                } else {
                    self.packet.dport
                };
                let port = shifted(old, *first, *last, *base);
                (port, port)
            }
            Some(NatArg::Addr(_) | NatArg::Addrs(..)) => return Err(()),
        };
        Ok(Some(Choice { first, last }))
    }
}

/// As the kernel counts, with 16 bits (`nf_nat_core.c`).
fn shifted(old: u16, first: u16, last: u16, base: u16) -> u16 {
    let size = u32::from(last.wrapping_sub(first)) + 1;
    let place = u32::from(old.wrapping_sub(base)) % size;
    first.wrapping_add(place as u16)
}

/// The address in the prefix that begins and ends so, with the host part of `old`.
fn mapped(old: IpAddr, range: Choice<IpAddr>) -> IpAddr {
    let (first, last) = (to_number(range.first), to_number(range.last));
    let host = first ^ last;
    from_number(Family::of(old), (to_number(old) & host) | (first & !host))
}

/// The source address that masquerading takes: of the outgoing link's primary addresses the one next to the next hop, else
/// the first; another link's where it has none.
fn own_source(env: &Env<'_>, dst: IpAddr) -> Option<IpAddr> {
    let oif = env.oif?;
    let hop = next_hop(env.space, oif, dst);
    let on = |a: &&Address| a.link == oif.index;
    let usable = |a: &&Address| a.scope == 0 && usable(a, dst);
    let mut own = env.space.addrs.iter().filter(on).filter(usable);
    let first = own.clone().next();
    let near = own.find(|a| a.net.contains(&hop));
    let other = || env.space.addrs.iter().find(usable);
    near.or(first).or_else(other).map(|a| a.net.addr())
}

/// Where a route by this link sends the packet.
fn next_hop(space: &Space, oif: &Link, dst: IpAddr) -> IpAddr {
    let candidates = space.routes.iter().filter(|r| r.dst.contains(&dst));
    let hops = candidates.flat_map(|r| r.hops.iter().map(move |h| (r, h)));
    let best = hops
        .filter(|(_, h)| h.link == Some(oif.index))
        .max_by_key(|(r, _)| (r.dst.prefix_len(), std::cmp::Reverse(r.metric)));
    best.and_then(|(_, h)| h.via).unwrap_or(dst)
}

/// The address of this host that redirecting takes.
fn own_destination(env: &Env<'_>, dst: IpAddr) -> Option<IpAddr> {
    let family = Family::of(dst);
    if env.hook == Hook::Output {
        return Some(match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let iif = env.iif?;
    let mut own = env.space.addrs.iter();
    own.find(|a| a.link == iif.index && usable(a, dst))
        .map(|a| a.net.addr())
}

/// Whether an address may stand for this host towards `dst`: of its family, checked for duplicates, and link-local only for
/// link-local ones.
fn usable(address: &Address, dst: IpAddr) -> bool {
    let local = |addr: IpAddr| match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let net: IpNet = address.net;
    Family::of_net(net) == Family::of(dst)
        && !address.tentative
        && !address.dad_failed
        && local(net.addr()) == local(dst)
}
