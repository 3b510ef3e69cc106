//! Both ends of the question: which addresses and which port, and where the packet starts.

use std::net::{IpAddr, Ipv4Addr};

use crate::addr::Family;
use crate::trace::packet::{L4, Packet};
use crate::trace::query::{Query, Source, Target};
use crate::trace::report::{Code, End, Owner, Report, Verdict};
use crate::trace::state::{Address, HOST, ObservedState, Place, Space, SpaceId};

use super::fault::Fault;
use super::route::{self, Ask, Found, Refuser, Skip};
use super::source;
use super::{Arrival, Enter, Step, Walk, outside};

/// Both ends, and the first step.
#[derive(Debug, Clone)]
pub(super) struct Ends<'a> {
    pub source: End,
    pub destination: End,
    pub start: Option<Step<'a>>,
    /// The packet as it is sent.
    pub packet: Option<Packet>,
    /// Where it is sent, if that was read.
    pub from: Option<SpaceId>,
    /// Where it is to arrive, if a namespace was asked for.
    pub to: Option<SpaceId>,
    /// The first cause is before any way: only the socket is looked at.
    pub stays: bool,
}

/// What can be said where not even the host was read.
pub(super) fn nothing_read(query: &Query) -> Report {
    let end = || End {
        name: String::new(),
        netns: None,
        address: None,
        port: None,
    };
    Report {
        source: end(),
        destination: end(),
        protocol: query.l4,
        verdict: Verdict::Unknown,
        cause: None,
        also: Vec::new(),
        hops: Vec::new(),
        probe: Vec::new(),
        notes: vec!["no namespace was read".to_owned()],
        some_pass: false,
    }
}

/// Whether the asked port is a host port that the asked namespace publishes.
pub(super) fn publishes(state: &ObservedState, query: &Query) -> bool {
    let Target::Space(id) = query.target else {
        return false;
    };
    outside::published(state, id, query).is_some_and(|(_, port)| port == query.port)
}

/// Links that may carry addresses of a family, loopback apart.
pub(super) fn addresses(space: &Space, family: Family) -> impl Iterator<Item = &Address> {
    source::usable_addresses(space).filter(move |a| {
        Family::of_net(a.net) == family && !a.net.addr().is_loopback() && a.scope == 0
    })
}

impl<'a> Walk<'a> {
    /// Chooses addresses and makes the packet.
    pub(super) fn ends(&mut self, published: bool) -> Ends<'a> {
        let query = self.query;
        let mut ends = Ends {
            source: self.end_of_source(),
            destination: self.end_of_target(),
            start: None,
            packet: None,
            from: None,
            to: match query.target {
                Target::Space(id) if id < self.state.spaces.len() => Some(id),
                _ => None,
            },
            stays: false,
        };
        if let Source::Space(id, _) = query.source
            && id >= self.state.spaces.len()
        {
            self.unknown = true;
            return ends;
        }
        let Some((dst, port)) = self.destination(published, &mut ends) else {
            return ends;
        };
        ends.destination.address = Some(dst.to_string());
        ends.destination.port = Some(port).filter(|p| *p != 0);
        if dst == IpAddr::V4(Ipv4Addr::BROADCAST) {
            self.unknown = true;
            self.note(format!(
                "{dst} is everybody on the link, and whether anybody answers cannot be told"
            ));
        }
        match query.source {
            Source::Space(id, asked) => {
                let Some(src) = self.source(id, asked, dst) else {
                    return ends;
                };
                ends.from = Some(id);
                self.begin(&mut ends, id, src, dst, port);
            }
            Source::Outside(asked) => {
                let read = outside::client(self.state, asked, dst);
                if let Some((id, src)) = read.filter(|_| self.wire.is_none()) {
                    ends.from = Some(id);
                    ends.source.netns = Some(self.space(id).name.clone());
                    self.begin(&mut ends, id, src, dst, port);
                } else {
                    self.begin_unread(&mut ends, asked, dst, port);
                }
            }
        }
        ends
    }

    fn begin(&mut self, ends: &mut Ends<'a>, id: SpaceId, src: IpAddr, dst: IpAddr, port: u16) {
        self.origin = Some(id);
        ends.source.address = Some(src.to_string());
        let packet = self.packet(id, src, dst, port);
        ends.packet = Some(packet.clone());
        if ends.stays {
            ends.start = self.stay(ends.to, packet);
            return;
        }
        let text = format!("{} to {}", show_end(src, packet.sport), show_end(dst, port));
        self.hop(id, "source", &src.to_string(), &text);
        if packet.l4 != L4::Icmp && src.is_ipv4() {
            self.local_ports(id);
        }
        ends.start = Some(self.originate(id, packet));
    }

    /// A client whose namespace was not read: its packet comes in by the uplink.
    fn begin_unread(&mut self, ends: &mut Ends<'a>, src: Option<IpAddr>, dst: IpAddr, port: u16) {
        let family = Family::of(dst);
        let src = src.unwrap_or_else(|| outside::stranger(self.state, family));
        ends.source.address = Some(src.to_string());
        let packet = self.packet(HOST, src, dst, port);
        ends.packet = Some(packet.clone());
        if ends.stays {
            ends.start = self.stay(ends.to, packet);
            return;
        }
        match self.wire.or_else(|| outside::entrance(self.state, dst)) {
            Some(index) => {
                self.full = self.state.host().link(index).map_or(0, |l| l.mtu);
                let place = Place { space: HOST, index };
                ends.start = Some(Step::Enter(Enter {
                    place,
                    port: None,
                    packet,
                }));
            }
            None => {
                let fault = Fault::new(
                    Code::NoRoute,
                    HOST,
                    src.to_string(),
                    "The host has no link to the outside.",
                )
                .evidence("ip addr show: no address but on bridges")
                .fix("ip addr show");
                self.blame(Verdict::Dropped, "route", fault);
            }
        }
    }

    fn stay(&self, to: Option<SpaceId>, packet: Packet) -> Option<Step<'a>> {
        let space = to?;
        let dst = packet.dst;
        let iif = self
            .space(space)
            .addrs
            .iter()
            .find(|a| a.net.addr() == dst)?
            .link;
        Some(Step::End(Arrival::Local { space, iif, packet }))
    }

    /// A packet as this space sends it.
    pub(super) fn packet(&self, space: SpaceId, src: IpAddr, dst: IpAddr, dport: u16) -> Packet {
        let l4 = self.query.l4;
        let (lowest, highest) = port_range(self.space(space));
        let v4 = dst.is_ipv4();
        Packet {
            src,
            dst,
            l4,
            sport: match l4 {
                L4::Icmp => 1,
                _ => lowest + (highest - lowest) / 2,
            },
            dport,
            reply: false,
            ttl: self.first_ttl(space, dst),
            len: match (l4, v4) {
                (L4::Icmp, true) => 84,
                (L4::Icmp, false) => 104,
                (_, true) => 60,
                (_, false) => 80,
            },
            mark: 0,
            tos: 0,
            src_mac: None,
            dst_mac: None,
            arp: None,
        }
    }

    /// The TTL of a packet that a space sends to `dst`: for IPv6 the outgoing link says.
    pub(super) fn first_ttl(&self, id: SpaceId, dst: IpAddr) -> u8 {
        let space = self.space(id);
        let link = self.leads(id, dst).and_then(|l| space.link(l));
        let own = link.filter(|_| dst.is_ipv6()).and_then(|l| {
            let name = format!("net.ipv6.conf.{}.hop_limit", route::sysctl_name(&l.name));
            u8::try_from(space.sysctl(&name)?).ok()
        });
        own.filter(|n| *n > 0)
            .unwrap_or_else(|| default_ttl(space, dst.is_ipv4()))
    }

    /// The source address, as asked for or as the kernel chooses it.
    fn source(&mut self, id: SpaceId, asked: Option<IpAddr>, dst: IpAddr) -> Option<IpAddr> {
        let space = self.space(id);
        let family = Family::of(dst);
        let found = match asked {
            Some(addr) if route::is_local(space, addr) && Family::of(addr) == family => Some(addr),
            Some(_) => None,
            None => pick_source(space, dst),
        };
        let narrow = found.is_some_and(|src| asked.is_none() && self.beyond_scope(id, src, dst));
        if found.is_some() && !narrow {
            return found;
        }
        let fault = self.without_address(id, asked, family);
        self.blame(Verdict::Dropped, "source", fault);
        None
    }

    /// A link-local source goes no further than its link (RFC 4007).
    fn beyond_scope(&self, id: SpaceId, src: IpAddr, dst: IpAddr) -> bool {
        let local = |a: IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let found = route::lookup(self.space(id), &Ask::to(dst), &Skip::default());
        local(src)
            && !local(dst)
            && matches!(found, Found::Route(c) if c.hop.is_some_and(|h| h.via.is_some()))
    }

    /// The destination address and port.
    fn destination(&mut self, published: bool, ends: &mut Ends<'a>) -> Option<(IpAddr, u16)> {
        let port = self.query.port;
        match self.query.target {
            Target::Address(addr) | Target::Outside(Some(addr)) => Some((addr, port)),
            Target::Outside(None) => {
                let family = match self.query.source {
                    Source::Space(id, asked) => self.family_of(id, asked),
                    Source::Outside(_) => Family::V4,
                };
                Some((outside::server(self.state, family), port))
            }
            Target::Space(id) if id >= self.state.spaces.len() => {
                self.unknown = true;
                None
            }
            Target::Space(id) => match self.query.source {
                Source::Space(_, _) if published => {
                    outside::published(self.state, id, self.query).or(Some((HOST_ANY, port)))
                }
                Source::Space(from, asked) => self.target(from, asked, id).map(|a| (a, port)),
                Source::Outside(asked) => self.target_from_outside(asked, id, ends),
            },
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&'a crate::attach::Container> {
        self.state
            .containers
            .iter()
            .find(|c| c.name.as_str() == name)
    }

    fn end_of_source(&self) -> End {
        let (name, netns) = match self.query.source {
            Source::Space(id, _) => self.named(id),
            Source::Outside(_) => ("outside".to_owned(), None),
        };
        End {
            name,
            netns,
            address: None,
            port: None,
        }
    }

    fn end_of_target(&self) -> End {
        let (name, netns) = match self.query.target {
            Target::Space(id) => self.named(id),
            Target::Outside(_) => ("outside".to_owned(), None),
            Target::Address(addr) => (addr.to_string(), None),
        };
        End {
            name,
            netns,
            address: None,
            port: Some(self.query.port).filter(|p| *p != 0),
        }
    }

    fn named(&self, id: SpaceId) -> (String, Option<String>) {
        let name = self.state.spaces.get(id).map(|s| s.name.clone());
        (name.clone().unwrap_or_default(), name)
    }
}

const HOST_ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The address the kernel would send from. Routes that refuse are met later.
pub(super) fn pick_source(space: &Space, dst: IpAddr) -> Option<IpAddr> {
    let mut skip = Skip::default();
    for _ in 0..8 {
        match route::lookup(space, &Ask::to(dst), &skip) {
            Found::Route(chosen) => {
                if let Some(src) = source::choose_source(space, &chosen, dst) {
                    return Some(src);
                }
                break;
            }
            Found::Refused(Refuser::Route(r, _)) => skip.routes.push(r),
            Found::Refused(Refuser::Rule(r)) => skip.rules.push(r),
            Found::Nothing => break,
        }
    }
    addresses(space, Family::of(dst))
        .next()
        .map(|a| a.net.addr())
}

/// `net.ipv4.ip_local_port_range`, or what the kernel starts with.
pub(super) fn port_range(space: &Space) -> (u16, u16) {
    let text = space.sysctls.get("net.ipv4.ip_local_port_range");
    let mut ports = text
        .into_iter()
        .flat_map(|t| t.split_whitespace())
        .filter_map(|p| p.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(a), Some(b)) if a <= b => (a, b),
        _ => (32768, 60999),
    }
}

/// The TTL a space gives its packets.
pub(super) fn default_ttl(space: &Space, v4: bool) -> u8 {
    let name = if v4 {
        "net.ipv4.ip_default_ttl"
    } else {
        "net.ipv6.conf.all.hop_limit"
    };
    let set = space.sysctl(name).and_then(|n| u8::try_from(n).ok());
    set.filter(|n| *n > 0).unwrap_or(64)
}

/// An address with a port, as `ss` prints it.
pub(super) fn show_end(addr: IpAddr, port: u16) -> String {
    match (addr, port) {
        (_, 0) => addr.to_string(),
        (IpAddr::V4(v4), _) => format!("{v4}:{port}"),
        (IpAddr::V6(v6), _) => format!("[{v6}]:{port}"),
    }
}

/// For the owner of what wharf keeps apart before any packet is sent.
pub(super) fn wharf(fault: Fault) -> Fault {
    fault.owner(Owner::Wharf)
}
