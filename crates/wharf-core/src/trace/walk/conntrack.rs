//! Connections as each space tracks them: found at the entry, translated back for answers, and old ones in the way.

use crate::trace::env::CtState;
use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Owner, Verdict};
use crate::trace::ruleset::Hook;
use crate::trace::state::{Flow, SpaceId, Tuple};

use super::Walk;
use super::fault::Fault;
use super::owner::holders;
use super::route::is_local;
use super::rules::{object, removed};

const ESTABLISHED: u32 = 2;
pub(super) const NEW: u32 = 8;
pub(super) const UNTRACKED: u32 = 64;
/// `IPS_*`.
const SEEN_REPLY: u32 = 2;
const CONFIRMED: u32 = 8;
const SRC_NAT: u32 = 0x10;
const DST_NAT: u32 = 0x20;
const SRC_NAT_DONE: u32 = 0x80;
const DST_NAT_DONE: u32 = 0x100;

impl Walk<'_> {
    /// Looks a packet up that enters the space or is made there.
    pub(super) fn track(&mut self, space: SpaceId, packet: &Packet) {
        let seen = Tuple::of(packet);
        let all = self.tracked.entry(space).or_default();
        let found = all.iter_mut().position(|ct| {
            if ct.reply == seen && packet.reply {
                ct.state = ESTABLISHED;
                ct.status |= SEEN_REPLY | CONFIRMED;
                ct.reply_direction = true;
                return true;
            }
            ct.original == seen
        });
        let index = found.unwrap_or_else(|| {
            all.push(CtState::begun(packet));
            all.len() - 1
        });
        self.current.insert(space, index);
    }

    /// What the space's rules are told about the packet.
    pub(super) fn connection(&self, space: SpaceId, packet: &Packet) -> CtState {
        self.current
            .get(&space)
            .and_then(|i| self.tracked.get(&space)?.get(*i))
            .cloned()
            .unwrap_or_else(|| CtState::begun(packet))
    }

    /// Keeps what rules did to the connection, and that nothing translates it any more at this place.
    pub(super) fn keep(&mut self, space: SpaceId, hook: Hook, mut ct: CtState) {
        if ct.state & NEW != 0 && ct.state & UNTRACKED == 0 {
            ct.status |= match hook {
                Hook::Prerouting | Hook::Output => DST_NAT_DONE,
                Hook::Postrouting | Hook::Input => SRC_NAT_DONE,
                _ => 0,
            };
        }
        let Some((index, all)) = self
            .current
            .get_mut(&space)
            .zip(self.tracked.get_mut(&space))
        else {
            return;
        };
        match all.get_mut(*index) {
            // It is not the answer it was taken for.
            Some(slot) if slot.reply_direction && !ct.reply_direction => {
                *index = all.len();
                all.push(ct);
            }
            Some(slot) => *slot = ct,
            None => {}
        }
    }

    /// Answers are translated back: the destination where they come in, the source where they go out.
    pub(super) fn translate_back(&mut self, space: SpaceId, hook: Hook, packet: &mut Packet) {
        let ct = self.connection(space, packet);
        if !ct.reply_direction || ct.state & UNTRACKED != 0 {
            return;
        }
        // Rules behind nat have seen it translated already.
        let (mut src, mut dst) = (packet.src, packet.dst);
        match hook {
            Hook::Prerouting | Hook::Output if ct.status & SRC_NAT != 0 => {
                dst = ct.reply.dst;
                packet.dst = ct.original.src;
                if packet.l4 != L4::Icmp {
                    packet.dport = ct.original.sport;
                }
            }
            Hook::Postrouting | Hook::Input if ct.status & DST_NAT != 0 => {
                src = ct.reply.src;
                packet.src = ct.original.dst;
                if packet.l4 != L4::Icmp {
                    packet.sport = ct.original.dport;
                }
            }
            _ => return,
        }
        let text = format!("{src} -> {dst} becomes {} -> {}", packet.src, packet.dst);
        self.translated(space, "conntrack", &text);
    }

    /// The answer was not known for one, since it was looked up in another zone than the question.
    pub(super) fn in_another_zone(&self) -> Option<Fault> {
        let (at, rule) = self.zoned_by.first()?;
        let known = self.tracked.get(at)?;
        let strange = |ct: &CtState| {
            known
                .iter()
                .any(|other| other.reply == ct.original && other.reply_zone != ct.reply_zone)
        };
        if !known.iter().any(strange) {
            return None;
        }
        let space = self.space(*at);
        let what = format!(
            "{} has connections looked up in a zone of their own in one direction only: the answer is not known for one, and is not translated back.",
            object(rule)
        );
        let fault = Fault::new(Code::FirewallRule, *at, object(rule), what)
            .owner(rule.owner)
            .evidence(format!("{}: {}", object(rule), rule.text))
            .evidence(format!("{}conntrack -L: zone=", space.enter));
        let rules = self.zoned_by.iter().filter(|(space, _)| space == at);
        Some(fault.fixes(rules.map(|(_, rule)| removed(space, rule))))
    }

    /// New connections are not taken when the table is full.
    pub(super) fn check_full(&mut self, space: SpaceId, ct: &CtState) {
        let s = self.space(space);
        let Some((count, most)) = s.conntrack else {
            return;
        };
        if most == 0 || count < most || ct.state & NEW == 0 || ct.state & UNTRACKED != 0 {
            return;
        }
        let name = "net.netfilter.nf_conntrack_max";
        let fault = Fault::new(
            Code::ConntrackFull,
            space,
            name,
            format!(
                "{} tracks as many connections as it may, and drops new ones.",
                s.name
            ),
        )
        .evidence(format!(
            "{}sysctl net.netfilter.nf_conntrack_count {name}: {count} of {most}",
            s.enter
        ))
        .fix(format!(
            "sysctl -w {name}={}",
            u64::from(most.max(count)) * 2
        ));
        self.blame(Verdict::Dropped, "conntrack", fault);
    }

    /// Whether the sender uses a port again: it is open, or a fixed one.
    fn sends_again(&self, port: u16) -> bool {
        let Some(space) = self.origin.map(|id| self.space(id)) else {
            return true;
        };
        let (lowest, highest) = super::ends::port_range(space);
        let open = space
            .sockets
            .iter()
            .any(|s| s.port == port && s.protocol == crate::trace::packet::L4::Udp);
        open || !(lowest..=highest).contains(&port)
    }

    /// An older entry of the same flow that was translated otherwise keeps steering it.
    pub(super) fn check_stale(&mut self, space: SpaceId, hook: Hook, ct: &CtState) {
        if self.reply || ct.state & NEW == 0 || ct.original.protocol != 17 {
            return;
        }
        let s = self.space(space);
        let same = |f: &&Flow| {
            let (a, b) = (&f.original, &ct.original);
            // A sender that is not about to use the old port again is not steered by it.
            (a.src, a.dst, a.dport, a.protocol) == (b.src, b.dst, b.dport, b.protocol)
                && self.sends_again(a.sport)
        };
        let wrong = |f: &&Flow| match hook {
            Hook::Prerouting | Hook::Output => {
                (f.reply.src, f.reply.sport) != (ct.reply.src, ct.reply.sport)
            }
            _ => {
                f.reply.dst != ct.reply.dst
                    && (f.reply.dst == f.original.src || !is_local(s, f.reply.dst))
            }
        };
        let Some(flow) = s.flows.iter().filter(same).find(wrong) else {
            return;
        };
        let (old, new) = match hook {
            Hook::Prerouting | Hook::Output => (flow.reply.src, ct.reply.src),
            _ => (flow.reply.dst, ct.reply.dst),
        };
        let gone = if holders(self.state, old).is_empty() {
            ", which nobody has"
        } else {
            ""
        };
        let t = &flow.original;
        let text = if flow.text.is_empty() {
            format!(
                "udp src={} dst={} sport={} dport={}",
                t.src, t.dst, t.sport, t.dport
            )
        } else {
            flow.text.clone()
        };
        let fault = Fault::new(
            Code::ConntrackStale,
            space,
            text.clone(),
            format!(
                "An old connection entry steers the flow by {old}{gone}; the rules now say {new}."
            ),
        )
        .owner(Owner::Kernel)
        .evidence(format!("{}conntrack -L -p udp: {text}", s.enter))
        .fix(format!(
            "{}conntrack -D -p udp -s {} -d {} --dport {}",
            s.enter, t.src, t.dst, t.dport
        ));
        self.blame(Verdict::Dropped, "conntrack", fault);
    }
}
