//! What a rule may ask about: metadata, conntrack, routing.

use std::net::IpAddr;

use super::bytes::{ethertype, octets};
use super::machine::{Machine, Step, World};
use crate::addr::Family;
use crate::trace::env::{Env, Layer};
use crate::trace::packet::Packet;
use crate::trace::ruleset::{Ct, FibResult, Hook, Meta, RegByte};
use crate::trace::state::{Link, Tuple};

/// `IFNAMSIZ`.
const NAME: usize = 16;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;
/// `NFT_META_SECPATH`: the walked packet came by no IPsec.
const SECPATH: u32 = 25;

/// `NFT_META_TIME_NS`, `NFT_META_TIME_DAY`, `NFT_META_TIME_HOUR`; all of them in UTC, as `nft` translates them.
const TIME_NS: u32 = 30;
const TIME_DAY: u32 = 31;
const TIME_HOUR: u32 = 32;

const FIB_SADDR: u32 = 1;
const FIB_MARK: u32 = 4;
const FIB_IIF: u32 = 8;
const FIB_OIF: u32 = 16;
const FIB_PRESENT: u32 = 32;
/// `RTN_LOCAL`.
const LOCAL: u8 = 2;

impl<'a> Machine<'a> {
    pub fn read_meta(&mut self, world: &World<'_, 'a>, dreg: RegByte, key: Meta) -> Step<'a> {
        let env = world.env;
        let bytes = match key {
            Meta::Mark if self.dark_mark.0 => None,
            Meta::Mark => Some(self.packet.mark.to_ne_bytes().to_vec()),
            Meta::Length => Some(self.length(env).to_ne_bytes().to_vec()),
            Meta::Protocol => Some(ethertype(&self.packet).to_be_bytes().to_vec()),
            Meta::NfProto => Some(vec![nfproto(&self.packet)]),
            Meta::L4Proto if self.packet.arp.is_some() => return Step::Break,
            Meta::L4Proto => Some(vec![self.packet.protocol()]),
            Meta::Iif => Some(index(env.iif)),
            Meta::Oif => Some(index(env.oif)),
            Meta::IifName => Some(name(env.iif)),
            Meta::OifName => Some(name(env.oif)),
            Meta::PktType => pkt_type(env, &self.packet).map(|t| vec![t]),
            Meta::SkUid | Meta::SkGid if !env.local => return Step::Break,
            Meta::SkUid | Meta::SkGid => Some(vec![0; 4]),
            Meta::Other(SECPATH) => Some(vec![0]),
            Meta::Other(key) => clock(env.space.now, key),
            _ => match link_meta(env, key) {
                None => return Step::Break,
                bytes => bytes,
            },
        };
        match bytes {
            Some(bytes) => self.regs.store(dreg, &bytes),
            None => self.regs.forget(dreg, 4, false),
        }
        Step::Go
    }

    /// Of a frame that leaves a device the Ethernet header counts.
    fn length(&self, env: &Env<'_>) -> u32 {
        let header = if env.hook == Hook::Egress { 14 } else { 0 };
        self.packet.len.saturating_add(header)
    }

    /// `ct state`: without a connection it is untracked or invalid.
    pub fn ct_state(&self, world: &World<'_, 'a>) -> u32 {
        match (self.tracked(world), self.ct.state & 0x40) {
            (true, _) => self.ct.state,
            (false, 0) => 1,
            (false, untracked) => untracked,
        }
    }

    pub fn read_ct(
        &mut self,
        world: &World<'_, 'a>,
        dreg: RegByte,
        key: Ct,
        reply: Option<bool>,
    ) -> Step<'a> {
        if key == Ct::State {
            let state = self.ct_state(world);
            self.regs.store(dreg, &state.to_ne_bytes());
            return Step::Go;
        }
        if !self.tracked(world) {
            return Step::Break;
        }
        let tuple: &Tuple = if reply == Some(true) {
            &self.ct.reply
        } else {
            &self.ct.original
        };
        let bytes = match key {
            Ct::Direction => vec![u8::from(self.ct.reply_direction)],
            Ct::Status => self.ct.status.to_ne_bytes().to_vec(),
            Ct::Mark if !self.dark_mark.1 => self.ct.mark.to_ne_bytes().to_vec(),
            Ct::L3Proto => vec![nfproto(&self.packet)],
            Ct::Protocol => vec![tuple.protocol],
            Ct::Src => octets(tuple.src),
            Ct::Dst => octets(tuple.dst),
            Ct::ProtoSrc => tuple.sport.to_be_bytes().to_vec(),
            Ct::ProtoDst => tuple.dport.to_be_bytes().to_vec(),
            Ct::Zone => self.ct.zone.to_ne_bytes().to_vec(),
            Ct::State | Ct::Mark | Ct::ZoneOf { .. } | Ct::Other(_) => {
                self.regs.forget(dreg, NAME, false);
                return Step::Go;
            }
        };
        self.regs.store(dreg, &bytes);
        Step::Go
    }

    pub fn read_fib(
        &mut self,
        world: &World<'_, 'a>,
        dreg: RegByte,
        result: FibResult,
        flags: u32,
    ) -> Step<'a> {
        let env = world.env;
        let source = flags & FIB_SADDR != 0;
        let (to, from) = if source {
            (self.packet.src, self.packet.dst)
        } else {
            (self.packet.dst, self.packet.src)
        };
        let device = match flags & (FIB_IIF | FIB_OIF) {
            FIB_IIF => env.iif,
            FIB_OIF => env.oif,
            _ => None,
        };
        if result == FibResult::AddrType {
            let kind = env.fib.addr_type(to, device.map(|l| l.index));
            self.regs.store(dreg, &u32::from(kind).to_ne_bytes());
            return Step::Go;
        }
        let mark = if flags & FIB_MARK != 0 {
            self.packet.mark
        } else {
            0
        };
        let oif = fib_oif(env, to, from, mark, device);
        if flags & FIB_PRESENT != 0 {
            self.regs.store(dreg, &[u8::from(oif.is_some())]);
        } else if result == FibResult::Oif {
            let oif = oif.unwrap_or(0);
            self.regs.store(dreg, &oif.to_ne_bytes());
        } else {
            let link = oif.and_then(|i| env.space.link(i));
            self.regs.store(dreg, &name(link));
        }
        Step::Go
    }
}

/// The link that a reverse (or forward) lookup gives, as the kernel answers rules: nothing for this host's own addresses;
/// before routing, loopback answers for itself.
pub(super) fn fib_oif(
    env: &Env<'_>,
    to: IpAddr,
    from: IpAddr,
    mark: u32,
    device: Option<&Link>,
) -> Option<u32> {
    if let Some(lo) = env
        .iif
        .filter(|l| l.loopback && env.hook == Hook::Prerouting)
    {
        return Some(lo.index);
    }
    if env.fib.addr_type(to, None) == LOCAL {
        return None;
    }
    let from = (!from.is_multicast() && !from.is_unspecified()).then_some(from);
    let via = device.map(|l| l.index);
    env.fib.oif(to, from, mark, via)
}

/// `meta pkttype`; `None` where the hardware address that tells it is not known.
pub(super) fn pkt_type(env: &Env<'_>, packet: &Packet) -> Option<u8> {
    if packet.dst.is_multicast() {
        return Some(2);
    }
    if packet.dst.is_ipv4() && env.fib.addr_type(packet.dst, None) == 3 {
        return Some(1);
    }
    let routed = env.layer == Layer::Ip || env.local || env.hook == Hook::Input;
    let Some(port) = env.iif.filter(|l| !routed && l.mac.is_some()) else {
        return Some(0);
    };
    let to = packet.dst_mac?;
    Some(if port.mac == Some(to) { 0 } else { 3 })
}

pub(super) fn nfproto(packet: &Packet) -> u8 {
    match packet.family() {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn index(link: Option<&Link>) -> Vec<u8> {
    link.map_or(0, |l| l.index).to_ne_bytes().to_vec()
}

fn name(link: Option<&Link>) -> Vec<u8> {
    link.map_or_else(|| vec![0; NAME], |l| padded(&l.name))
}

fn padded(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(NAME, 0);
    bytes
}

/// What needs a link; `None` without one.
fn link_meta(env: &Env<'_>, key: Meta) -> Option<Vec<u8>> {
    let bridge = |port: Option<&Link>| -> Option<Vec<u8>> {
        let master = env.space.link(port?.master?)?;
        let is_bridge = master.kind.as_deref() == Some("bridge");
        is_bridge.then(|| padded(&master.name))
    };
    Some(match key {
        // At egress both are the device's, though no link is told that the packet came in by.
        Meta::IifType if env.hook == Hook::Egress => hardware(env.oif?).to_ne_bytes().to_vec(),
        Meta::IifType => hardware(env.iif?).to_ne_bytes().to_vec(),
        Meta::OifType => hardware(env.oif?).to_ne_bytes().to_vec(),
        Meta::IifKind => padded(env.iif?.kind.as_deref()?),
        Meta::OifKind => padded(env.oif?.kind.as_deref()?),
        Meta::IifGroup => env.iif?.group.to_ne_bytes().to_vec(),
        Meta::OifGroup => env.oif?.group.to_ne_bytes().to_vec(),
        Meta::BridgeIifName => bridge(env.iif)?,
        Meta::BridgeOifName => bridge(env.oif)?,
        _ => return None,
    })
}

/// `ARPHRD_*`, as far as the link's kind tells it.
fn hardware(link: &Link) -> u16 {
    match link.kind.as_deref() {
        _ if link.loopback => ARPHRD_LOOPBACK,
        Some("tun" | "wireguard") if link.mac.is_none() => ARPHRD_NONE,
        _ => ARPHRD_ETHER,
    }
}

/// What rules are told of the time; `now` in nanoseconds.
fn clock(now: u64, key: u32) -> Option<Vec<u8>> {
    const DAY: u64 = 86_400;
    if now == 0 {
        return None;
    }
    let seconds = now / 1_000_000_000;
    // The first of January 1970 was a Thursday; Sunday is 0.
    let weekday = u8::try_from((seconds / DAY + 4) % 7).ok()?;
    match key {
        TIME_NS => Some(now.to_ne_bytes().to_vec()),
        TIME_DAY => Some(vec![weekday]),
        TIME_HOUR => Some(u32::try_from(seconds % DAY).ok()?.to_ne_bytes().to_vec()),
        _ => None,
    }
}
