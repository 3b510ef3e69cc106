//! How the packet is known again, whatever is translated on its way: by the sequence number of a SYN, by what an echo or
//! a datagram carries. What answers it is known by the same, except a datagram, which is known by its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_core::trace::L4;
use wharf_core::trace::seen::{Header, Leg};

/// Length of the mark that an echo or a datagram carries at its beginning.
pub(super) const MARK: usize = 12;
/// Bytes of an echo after its header, as `ping` sends them.
const ECHO: usize = 56;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// ICMP errors about a packet.
pub(super) const ERRORS4: [u8; 5] = [3, 4, 5, 11, 12];
/// ICMPv6 errors about a packet.
pub(super) const ERRORS6: [u8; 4] = [1, 2, 3, 4];
/// ICMPv6 neighbour solicitation and advertisement.
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// The packet as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) l4: L4,
    pub(super) to: IpAddr,
    /// The port asked for; 0 for an echo.
    pub(super) port: u16,
    /// The sender's port, or the identifier of the echo.
    pub(super) own: u16,
    /// The first sequence number of TCP.
    pub(super) first: u32,
    pub(super) mark: [u8; MARK],
}

impl Flow {
    /// A flow told apart by `random`; the sender's port comes later.
    pub(super) fn new(l4: L4, to: IpAddr, port: u16, random: u64) -> Self {
        let letters = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut mark = *b"wharf-------";
        for (i, byte) in mark.iter_mut().skip(5).enumerate() {
            *byte = letters[(random >> (5 * i)) as usize % 32];
        }
        Self {
            l4,
            to,
            port,
            own: (random >> 40) as u16,
            // 0 would mean that the kernel is to choose.
            first: (random as u32) | 1,
            mark,
        }
    }

    /// What an echo or a datagram carries.
    pub(super) fn payload(&self) -> Vec<u8> {
        let mut all = self.mark.to_vec();
        if self.l4 == L4::Icmp {
            all.resize(ECHO, b'.');
        }
        all
    }

    pub(super) fn v6(&self) -> bool {
        self.to.is_ipv6()
    }

    pub(super) fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Icmp if self.v6() => ICMP6,
            L4::Icmp => ICMP,
            L4::Tcp => TCP,
            L4::Udp => UDP,
        }
    }

    /// What an IP packet is of this flow, and what it bears. Answers to datagrams are only known by their port here.
    pub(super) fn classify(&self, ip: &[u8]) -> Option<(Leg, Header)> {
        let (src, dst, protocol, rest) = split(ip)?;
        if src.is_ipv6() != self.v6() {
            return None;
        }
        self.of_transport(src, dst, protocol, rest)
    }

    /// The same from the two headers apart, of which the second may be cut off.
    pub(super) fn of_headers(&self, network: &[u8], transport: &[u8]) -> Option<(Leg, Header)> {
        let (src, dst, protocol, _) = split(network)?;
        if src.is_ipv6() != self.v6() {
            return None;
        }
        self.of_transport(src, dst, protocol, transport)
    }

    fn of_transport(
        &self,
        src: IpAddr,
        dst: IpAddr,
        protocol: u8,
        rest: &[u8],
    ) -> Option<(Leg, Header)> {
        let bare = Header {
            src,
            dst,
            sport: 0,
            dport: 0,
        };
        if self.is_error(protocol, rest) {
            return self.quotes(rest.get(8..)?).then_some((Leg::Error, bare));
        }
        if protocol != self.protocol() {
            return None;
        }
        if self.l4 == L4::Icmp {
            let leg = match rest.first()? {
                8 | 128 => Leg::Question,
                0 | 129 => Leg::Answer,
                _ => return None,
            };
            return (rest.get(8..8 + MARK)? == self.mark).then_some((leg, bare));
        }
        let header = Header {
            sport: short(rest, 0)?,
            dport: short(rest, 2)?,
            ..bare
        };
        let leg = match self.l4 {
            L4::Tcp => self.segment(rest)?,
            _ if rest.get(8..8 + MARK) == Some(&self.mark) && header.dport != self.own => {
                Leg::Question
            }
            _ if header.dport == self.own => Leg::Answer,
            _ => return None,
        };
        Some((leg, header))
    }

    fn segment(&self, rest: &[u8]) -> Option<Leg> {
        const SYN: u8 = 2;
        const ACK: u8 = 16;
        let flags = *rest.get(13)?;
        if word(rest, 4)? == self.first && flags & (SYN | ACK) == SYN {
            Some(Leg::Question)
        } else if flags & ACK != 0 && word(rest, 8)? == self.first.wrapping_add(1) {
            Some(Leg::Answer)
        } else {
            None
        }
    }

    fn is_error(&self, protocol: u8, rest: &[u8]) -> bool {
        let kind = rest.first().copied().unwrap_or_default();
        match self.v6() {
            false => protocol == ICMP && ERRORS4.contains(&kind),
            true => protocol == ICMP6 && ERRORS6.contains(&kind),
        }
    }

    /// Whether what an ICMP error quotes is the packet. A quote that is cut off before that is told counts.
    fn quotes(&self, quote: &[u8]) -> bool {
        // The header of IPv4 may be cut off behind its protocol; that of IPv6 is too long for any guess.
        if quote.len() < 20 {
            return quote.get(9).is_some_and(|p| *p == self.protocol()) || self.v6();
        }
        let Some((_, _, protocol, rest)) = split(quote) else {
            return self.v6() && quote.len() < 40;
        };
        if protocol != self.protocol() {
            return false;
        }
        match (self.l4, rest.get(8..8 + MARK)) {
            (L4::Tcp, _) => word(rest, 4) == Some(self.first),
            (_, Some(mark)) => mark == self.mark,
            (L4::Udp, None) => short(rest, 0) == Some(self.own),
            (L4::Icmp, None) => short(rest, 4) == Some(self.own),
        }
    }
}

/// Type and code of an ICMP error in words.
pub(super) fn refusal(ip: &[u8]) -> String {
    let Some((src, _, _, rest)) = split(ip) else {
        return "an ICMP error".to_owned();
    };
    let (kind, code) = (
        rest.first().copied().unwrap_or_default(),
        rest.get(1).copied().unwrap_or_default(),
    );
    let text = match (src.is_ipv4(), kind, code) {
        (true, 3, 0) => "net unreachable",
        (true, 3, 1) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 4) | (false, 2, _) => "packet too big",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "administratively prohibited",
        (true, 5, _) => "redirect",
        (true, 11, _) | (false, 3, _) => "time exceeded",
        (false, 1, 0) => "no route",
        (false, 1, 2) => "beyond scope",
        (false, 1, 3) => "address unreachable",
        (false, 1, 5) => "source address refused",
        (false, 1, 6) => "route rejects",
        _ => return format!("ICMP error {kind}/{code}"),
    };
    format!("ICMP {text}")
}

/// A redirect tells of a better way; the packet goes on.
pub(super) fn is_redirect(ip: &[u8]) -> bool {
    split(ip).is_some_and(|(src, _, _, rest)| src.is_ipv4() && rest.first() == Some(&5))
}

/// Who is asked for or tells of itself, in ARP or neighbour discovery: the address, and whether it is an answer.
pub(super) fn neighbour(protocol: u16, bytes: &[u8]) -> Option<(IpAddr, bool)> {
    const ARP: u16 = 0x806;
    if protocol == ARP {
        // IPv4 over Ethernet: the sender's address is at 14, the target's at 24.
        let v4 = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        };
        return match short(bytes, 6)? {
            1 => Some((v4(24)?, false)),
            2 => Some((v4(14)?, true)),
            _ => None,
        };
    }
    let (src, _, protocol, rest) = split(bytes)?;
    if src.is_ipv4() || protocol != ICMP6 {
        return None;
    }
    let target: [u8; 16] = rest.get(8..24)?.try_into().ok()?;
    match *rest.first()? {
        SOLICITATION => Some((Ipv6Addr::from(target).into(), false)),
        ADVERTISEMENT => Some((Ipv6Addr::from(target).into(), true)),
        _ => None,
    }
}

/// Source, destination, protocol and what follows the IP header; nothing of later fragments.
fn split(ip: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match ip.first()? >> 4 {
        4 => {
            let len = usize::from(ip[0] & 15) * 4;
            let addr = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            if short(ip, 6)? & 0x1fff != 0 {
                return None;
            }
            let rest = ip.get(len..).unwrap_or_default();
            Some((addr(12)?, addr(16)?, ip[9], rest))
        }
        6 => {
            let addr = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            let rest = ip.get(40..).unwrap_or_default();
            Some((addr(8)?, addr(24)?, *ip.get(6)?, rest))
        }
        _ => None,
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(l4: L4) -> Flow {
        let mut flow = Flow::new(l4, "10.0.0.2".parse().unwrap(), 80, 0x1234_5678_9abc_def0);
        flow.own = 40000;
        flow
    }

    fn v4(protocol: u8, src: [u8; 4], dst: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let mut ip = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        ip[12..16].copy_from_slice(&src);
        ip[16..20].copy_from_slice(&dst);
        ip.extend(rest);
        ip
    }

    fn tcp(sport: u16, dport: u16, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
        let mut s = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        s.extend(seq.to_be_bytes());
        s.extend(ack.to_be_bytes());
        s.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        s
    }

    const ME: [u8; 4] = [10, 0, 0, 1];
    const YOU: [u8; 4] = [10, 0, 0, 2];

    #[test]
    fn a_connection_is_known_by_its_sequence_number() {
        let f = flow(L4::Tcp);
        // Translated ports do not matter.
        let leg = |ip: &[u8]| f.classify(ip).map(|(leg, _)| leg);
        let syn = v4(6, ME, YOU, &tcp(9, 8080, f.first, 0, 2));
        assert_eq!(leg(&syn), Some(Leg::Question));
        let answer = v4(6, YOU, ME, &tcp(8080, 9, 77, f.first.wrapping_add(1), 0x12));
        assert_eq!(leg(&answer), Some(Leg::Answer));
        let reset = v4(6, YOU, ME, &tcp(8080, 9, 0, f.first.wrapping_add(1), 0x14));
        assert_eq!(leg(&reset), Some(Leg::Answer));
        let other = v4(6, ME, YOU, &tcp(9, 8080, f.first.wrapping_add(9), 0, 2));
        assert_eq!(leg(&other), None);
        let mut error = vec![3, 13, 0, 0, 0, 0, 0, 0];
        error.extend(&syn);
        let error = v4(1, YOU, ME, &error);
        assert_eq!(leg(&error), Some(Leg::Error));
        assert_eq!(refusal(&error), "ICMP administratively prohibited");
        let mut strange = vec![3, 1, 0, 0, 0, 0, 0, 0];
        strange.extend(&other);
        assert_eq!(leg(&v4(1, YOU, ME, &strange)), None);
    }

    #[test]
    fn an_echo_and_a_datagram_are_known_by_what_they_carry() {
        let f = flow(L4::Icmp);
        let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
        echo.extend(f.payload());
        assert_eq!(f.payload().len(), 56);
        let asked = v4(1, ME, YOU, &echo);
        assert_eq!(f.classify(&asked).unwrap().0, Leg::Question);
        echo[0] = 0;
        assert_eq!(f.classify(&v4(1, YOU, ME, &echo)).unwrap().0, Leg::Answer);
        echo[9] ^= 1;
        assert_eq!(f.classify(&v4(1, YOU, ME, &echo)), None);
        let f = flow(L4::Udp);
        let mut sent = [40000_u16, 53].map(u16::to_be_bytes).concat();
        sent.extend([0, 20, 0, 0]);
        sent.extend(f.payload());
        let (leg, header) = f.classify(&v4(17, ME, YOU, &sent)).unwrap();
        assert_eq!(
            (leg, header.sport, header.dport),
            (Leg::Question, 40000, 53)
        );
        let mut back = [53_u16, 40000].map(u16::to_be_bytes).concat();
        back.extend([0, 9, 0, 0, 1]);
        assert_eq!(f.classify(&v4(17, YOU, ME, &back)).unwrap().0, Leg::Answer);
    }

    #[test]
    fn neighbours_that_are_asked_for() {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
        arp.extend([2, 0, 0, 0, 0, 1]);
        arp.extend(ME);
        arp.extend([0; 6]);
        arp.extend(YOU);
        assert_eq!(neighbour(0x806, &arp), Some((IpAddr::from(YOU), false)));
        arp[7] = 2;
        assert_eq!(neighbour(0x806, &arp), Some((IpAddr::from(ME), true)));
    }

    #[test]
    fn any_bytes_are_taken() {
        let flows = [flow(L4::Tcp), flow(L4::Udp), flow(L4::Icmp)];
        for len in 0..80 {
            for first in [0x45, 0x4f, 0x60, 0] {
                let mut bytes = vec![1; len];
                if let Some(b) = bytes.first_mut() {
                    *b = first;
                }
                for f in &flows {
                    let _ = f.classify(&bytes);
                }
                let _ = (neighbour(0x806, &bytes), neighbour(0x86dd, &bytes));
                let _ = refusal(&bytes);
            }
        }
    }
}
