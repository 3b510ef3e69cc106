//! The last station: is the packet taken? Echo settings, listeners and their queues.

use std::net::{IpAddr, Ipv6Addr};

use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Verdict};
use crate::trace::state::{Socket, Space, SpaceId};

use super::Walk;
use super::ends::{pick_source, show_end};
use super::fault::Fault;

/// The socket that takes a packet, the most particular one first; `iif` is the link it came by.
pub(super) fn takes<'s>(space: &'s Space, packet: &Packet, iif: Option<u32>) -> Option<&'s Socket> {
    space
        .sockets
        .iter()
        .filter(|s| s.protocol == packet.l4 && s.port == packet.dport && packet.l4 != L4::Icmp)
        .filter(|s| addressed(s, packet.dst))
        .filter(|s| s.link.is_none() || iif.is_none() || s.link == iif)
        .filter(|s| {
            s.remote
                .is_none_or(|(addr, port)| (addr, port) == (packet.src, packet.sport))
        })
        .max_by_key(|s| {
            (
                s.remote.is_some(),
                s.link.is_some(),
                !s.addr.is_unspecified(),
            )
        })
}

/// Whether a socket's address covers a destination. `::` also takes IPv4 unless it was told not to (RFC 3493, 5.3).
fn addressed(socket: &Socket, dst: IpAddr) -> bool {
    match (socket.addr, dst) {
        (IpAddr::V6(a), IpAddr::V4(d)) => {
            !socket.v6only
                && (a == Ipv6Addr::UNSPECIFIED
                    || a.to_ipv4_mapped()
                        .is_some_and(|m| m == d || m.is_unspecified()))
        }
        (a, d) => a == d || (a.is_unspecified() && a.is_ipv4() == d.is_ipv4()),
    }
}

/// What a space listens on, for people.
fn listening(space: &Space, l4: L4) -> String {
    let mut all: Vec<String> = space
        .sockets
        .iter()
        .filter(|s| s.protocol == l4 && s.remote.is_none())
        .map(|s| show_end(s.addr, s.port))
        .collect();
    all.truncate(8);
    match all.is_empty() {
        true => "nothing".to_owned(),
        false => all.join(", "),
    }
}

/// A program that listens where it was asked and passes on to the listener, which itself stays as it is. Between
/// protocols there is none.
fn relay(space: &Space, socket: &Socket, packet: &Packet) -> Option<String> {
    if socket.protocol != packet.l4 || socket.link.is_some() {
        return None;
    }
    let word = match packet.l4 {
        L4::Tcp => "TCP",
        L4::Udp => "UDP",
        L4::Icmp => return None,
    };
    let form = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => ('4', v4.to_string()),
        IpAddr::V6(v6) => ('6', format!("[{v6}]")),
    };
    let to = match socket.addr {
        IpAddr::V6(any) if any.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(any) if any.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        addr => addr,
    };
    let ((here, bind), (there, target)) = (form(packet.dst), form(to));
    let port = packet.dport;
    Some(format!(
        "{}setsid -f socat {word}{here}-LISTEN:{port},bind={bind},fork,reuseaddr {word}{there}:{target}:{port} </dev/null >/dev/null 2>&1",
        space.enter
    ))
}

fn word(l4: L4) -> &'static str {
    match l4 {
        L4::Icmp => "icmp",
        L4::Tcp => "tcp",
        L4::Udp => "udp",
    }
}

impl Walk<'_> {
    /// The packet has come to the space it is for.
    pub(super) fn socket(&mut self, id: SpaceId, iif: u32, packet: &Packet) {
        if packet.l4 == L4::Icmp {
            return self.echo(id, packet);
        }
        let space = self.space(id);
        let shown = show_end(packet.dst, packet.dport);
        let over = space
            .link(iif)
            .filter(|l| !l.loopback || packet.dst.is_loopback());
        match takes(space, packet, over.map(|l| l.index)) {
            Some(s) if s.protocol == L4::Tcp && s.queue > s.backlog => {
                let object = show_end(s.addr, s.port);
                let what = format!(
                    "The listener at {object} has {} connections waiting, more than the {} it allows.",
                    s.queue, s.backlog
                );
                let fault = Fault::new(Code::AcceptQueueFull, id, object, what)
                    .evidence(format!(
                        "{}ss -ltn sport = :{}: Recv-Q {} Send-Q {}",
                        space.enter, s.port, s.queue, s.backlog
                    ))
                    .fix(format!("{}ss -ltnp sport = :{}", space.enter, s.port));
                self.blame(Verdict::Dropped, "socket", fault);
            }
            Some(s) => {
                if s.protocol == L4::Udp && s.addr.is_unspecified() && s.remote.is_none() {
                    self.note_other_source(id, packet);
                }
                let text = format!("takes {shown}");
                self.hop(id, "socket", &show_end(s.addr, s.port), &text);
            }
            None if self.unread(id, "sockets") => {
                self.note(format!("the sockets of {} were not read", space.name));
                self.unknown = true;
            }
            None => {
                let fault = match self.taken_before(id) {
                    Some(fault) => fault,
                    None => self.unheard(id, packet, over.map(|l| l.index)),
                };
                self.blame(Verdict::Rejected, "socket", fault);
            }
        }
    }

    /// A program that answers from a socket bound to all addresses answers from the one nearest to the client, unless it
    /// takes care (`IP_PKTINFO`).
    fn note_other_source(&mut self, id: SpaceId, packet: &Packet) {
        let space = self.space(id);
        let Some(src) = pick_source(space, packet.src).filter(|s| *s != packet.dst) else {
            return;
        };
        self.note(format!(
            "the program in {} listens on all addresses: unless it takes care, it answers from {src} instead of {}",
            space.name, packet.dst
        ));
    }

    /// Nothing takes it: does something listen elsewhere?
    fn unheard(&self, id: SpaceId, packet: &Packet, iif: Option<u32>) -> Fault {
        let space = self.space(id);
        let (proto, port) = (word(packet.l4), packet.dport);
        let asked = show_end(packet.dst, port);
        let flag = if packet.l4 == L4::Udp { "-lun" } else { "-ltn" };
        let list = format!("{}ss {flag}", space.enter);
        let seen = format!("{list} sport = :{port}");
        let mut near: Vec<&Socket> = space
            .sockets
            .iter()
            .filter(|s| s.port == port && s.remote.is_none() && s.protocol != L4::Icmp)
            .collect();
        near.sort_by_key(|s| {
            (
                s.protocol != packet.l4,
                s.addr.is_ipv4() != packet.dst.is_ipv4(),
            )
        });
        let Some(socket) = near.first() else {
            if let Some(fault) = self.published_directly(id, packet) {
                return fault;
            }
            let what = format!("Nothing in {} listens on {proto} port {port}.", space.name);
            return Fault::new(Code::NotListening, id, format!("{port}/{proto}"), what)
                .evidence(format!("{seen}: nothing"))
                .evidence(format!(
                    "{}: {}",
                    list.trim_end(),
                    listening(space, packet.l4)
                ))
                // What is to be started only its owner knows; this shows what runs.
                .fix(format!("{list}p"));
        };
        let mut object = show_end(socket.addr, port);
        let relay = relay(space, socket, packet).unwrap_or_else(|| format!("{list}p"));
        let what = if socket.protocol != packet.l4 {
            let other = word(socket.protocol);
            object = format!("{object}/{other}");
            format!(
                "{} listens on port {port} with {other}, not with {proto}.",
                space.name
            )
        } else if socket.link.is_some() && addressed(socket, packet.dst) && socket.link != iif {
            let name = socket
                .link
                .and_then(|l| space.link(l))
                .map_or("?", |l| &l.name);
            format!(
                "The listener at {object} is bound to {name}, and the packet came by another link."
            )
        } else {
            format!(
                "{} listens on {object} only, and {asked} was asked for.",
                space.name
            )
        };
        Fault::new(Code::ListeningElsewhere, id, object.clone(), what)
            .evidence(format!("{seen}: {object}"))
            .fix(relay)
    }

    /// Sysctls that let echo requests go unanswered.
    fn echo(&mut self, id: SpaceId, packet: &Packet) {
        let space = self.space(id);
        let names: &[(&str, bool)] = if packet.dst.is_ipv4() {
            let many = packet.dst.is_multicast() || is_broadcast(space, packet.dst);
            &[
                ("net.ipv4.icmp_echo_ignore_all", true),
                ("net.ipv4.icmp_echo_ignore_broadcasts", many),
            ]
        } else {
            &[
                ("net.ipv6.icmp.echo_ignore_all", true),
                (
                    "net.ipv6.icmp.echo_ignore_multicast",
                    packet.dst.is_multicast(),
                ),
            ]
        };
        for (name, applies) in names {
            if *applies && space.sysctl(name).is_some_and(|v| v != 0) {
                let what = format!("{} is told not to answer echo requests.", space.name);
                let fault = Fault::new(Code::EchoIgnored, id, *name, what)
                    .evidence(format!("{}sysctl {name}: 1", space.enter))
                    .fix(format!("{}sysctl -w {name}=0", space.enter));
                self.blame(Verdict::Dropped, "socket", fault);
                return;
            }
        }
        self.hop(id, "socket", &packet.dst.to_string(), "answers the echo");
    }
}

fn is_broadcast(space: &Space, dst: IpAddr) -> bool {
    space.routes.iter().any(|r| {
        r.kind == crate::trace::state::RouteKind::Broadcast
            && r.dst.addr() == dst
            && r.dst.prefix_len() == 32
    })
}
