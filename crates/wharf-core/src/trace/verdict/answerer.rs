//! An answer from another address than was asked: it came back, and the asker does not take it.

use std::net::IpAddr;

use crate::trace::packet::L4;
use crate::trace::report::{Cause, Code, Owner};
use crate::trace::seen::Leg;
use crate::trace::state::Space;

use super::facts::Facts;

/// The program that answers a datagram as somebody else: it listens on all addresses, and leaves it to the kernel from
/// which of them it answers.
pub(super) fn strange(facts: &Facts<'_>) -> Option<Cause> {
    if facts.query.l4 != L4::Udp {
        return None;
    }
    let asked = facts.frames(Leg::Question).next()?.header;
    let arrived = facts.last(Leg::Question)?.header;
    let answer = facts.last(Leg::Answer).filter(|f| !f.out)?.header;
    let place = facts.arrived?;
    let space = facts.state.spaces.get(place.space)?;
    let own = |addr: IpAddr| space.addrs.iter().any(|a| a.net.addr() == addr);
    // It came back to the asker, from the port that was asked, and from an address of the space that was.
    let back = answer.dst == asked.src && answer.sport == asked.dport && answer.src != asked.dst;
    if !back || !own(answer.src) {
        return None;
    }
    let object = match answer.src {
        IpAddr::V4(_) => format!("0.0.0.0:{}", arrived.dport),
        IpAddr::V6(_) => format!("[::]:{}", arrived.dport),
    };
    Some(Cause {
        code: Code::ListeningElsewhere,
        netns: facts.name(place.space).to_owned(),
        owner: Owner::User,
        summary: format!(
            "The program at {object} was asked at {} and answers from {}, which the asker does not take for an answer.",
            asked.dst, answer.src
        ),
        evidence: vec![format!(
            "{}ss -lunp sport = :{}",
            space.enter, arrived.dport
        )],
        fix: translated(space, arrived.dst, answer.src, arrived.dport),
        object,
    })
}

/// Commands after which the program is asked at the address it answers from, and its answers are translated back.
fn translated(space: &Space, asked: IpAddr, answers: IpAddr, port: u16) -> Vec<String> {
    let family = if asked.is_ipv4() { "ip" } else { "ip6" };
    let enter = &space.enter;
    let chain = "{ type nat hook prerouting priority -100; }";
    vec![
        format!("{enter}nft add table {family} answers"),
        format!("{enter}nft 'add chain {family} answers prerouting {chain}'"),
        format!(
            "{enter}nft add rule {family} answers prerouting {family} daddr {asked} udp dport {port} dnat to {answers}"
        ),
    ]
}
