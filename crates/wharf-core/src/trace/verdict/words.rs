//! What a probe sent and saw, in sentences.

use std::net::{IpAddr, SocketAddr};

use crate::trace::report::{Report, Verdict};
use crate::trace::seen::{Act, Frame, Leg, Outcome};

use super::facts::Facts;

/// The most places that are listed.
const MOST: usize = 16;

/// The probe in one sentence.
pub(super) fn summary(facts: &Facts<'_>) -> String {
    let seen = facts.seen;
    let mut text = format!("{}: {}", seen.sent, ending(facts));
    let answered = facts
        .last(Leg::Answer)
        .filter(|_| seen.outcome == Outcome::Silent);
    if let Some(frame) = answered {
        text += &format!("; its answer was last seen {}", place(facts, frame));
    } else if let Some(frame) = facts.last(Leg::Question)
        && seen.outcome != Outcome::Answered
    {
        text += &format!("; it was last seen {}", place(facts, frame));
    } else if matches!(seen.outcome, Outcome::Silent) && !seen.watched.is_empty() {
        text += "; it was seen on no link";
    }
    if let (Outcome::Silent, Some(last)) = (&seen.outcome, seen.drops.last()) {
        text += &format!("; the kernel's reason for the drop is {}", last.reason);
    }
    text
}

fn ending(facts: &Facts<'_>) -> String {
    match &facts.seen.outcome {
        Outcome::Answered => format!("answered within {} ms", facts.seen.waited.max(1)),
        Outcome::Refused { by: Some(by), how } => format!("{by} refused it with {how}"),
        Outcome::Refused { by: None, how } => format!("it was refused: {how}"),
        Outcome::NotSent(why) => format!("it could not be sent: {why}"),
        Outcome::Silent => format!("no answer within {} ms", facts.seen.waited),
    }
}

fn place(facts: &Facts<'_>, frame: &Frame) -> String {
    let link = facts.state.link(frame.place);
    let name = link.map_or_else(|| format!("link {}", frame.place.index), |l| l.name.clone());
    let way = if frame.out { "leaving" } else { "coming in" };
    format!("{way} by {name} in {}", facts.name(frame.place.space))
}

/// All of it: what was sent and came of it, where it was seen, which rules stopped it, what the kernel said.
pub(super) fn story(facts: &Facts<'_>) -> Vec<String> {
    let mut all = vec![summary(facts)];
    for (leg, what) in [
        (Leg::Question, "the packet"),
        (Leg::Answer, "the answer"),
        (Leg::Error, "the ICMP error"),
    ] {
        let mut places: Vec<String> = Vec::new();
        for place in facts.frames(leg).map(|f| place(facts, f)) {
            // The same once more is seen at the same places.
            if !places.contains(&place) {
                places.push(place);
            }
        }
        if places.len() > MOST {
            places.truncate(MOST);
            places.push("and so on".to_owned());
        }
        if !places.is_empty() {
            all.push(format!("{what} was seen {}", places.join(", ")));
        }
    }
    for tracked in &facts.seen.tracked {
        let leaves = tracked.reply.turned();
        if leaves != tracked.original {
            all.push(format!(
                "{} translated {} -> {} to {} -> {}",
                facts.name(tracked.space),
                end(tracked.original.src, tracked.original.sport),
                end(tracked.original.dst, tracked.original.dport),
                end(leaves.src, leaves.sport),
                end(leaves.dst, leaves.dport)
            ));
        }
    }
    for judged in facts.seen.rules.iter().filter(|j| j.act == Act::Stopped) {
        let by = match judged.handle {
            Some(handle) => format!("rule {handle}"),
            None => "the policy".to_owned(),
        };
        all.push(format!(
            "{by} of {} {} in {} stopped {}",
            judged.table,
            judged.chain,
            facts.name(judged.space),
            match judged.leg {
                Leg::Question => "the packet",
                Leg::Answer => "the answer",
                Leg::Error => "the ICMP error",
            }
        ));
    }
    let lost = facts.seen.outcome != Outcome::Answered;
    for dropped in facts.seen.drops.iter().filter(|_| lost) {
        let at = dropped.function.as_deref();
        let at = at.map_or(String::new(), |f| format!(" in {f}"));
        let what = match dropped.leg {
            Leg::Question => "the packet",
            Leg::Answer => "the answer",
            Leg::Error => "the ICMP error",
        };
        all.push(format!("the kernel dropped {what}{at}: {}", dropped.reason));
    }
    all.dedup();
    all
}

/// An address, with the port if there is one.
fn end(addr: IpAddr, port: u16) -> String {
    match port {
        0 => addr.to_string(),
        _ => SocketAddr::new(addr, port).to_string(),
    }
}

/// What the state suggested.
pub(super) fn suggested(report: &Report) -> String {
    let verdict = match report.verdict {
        Verdict::Delivered => "that it is delivered",
        Verdict::Dropped => "that it is dropped",
        Verdict::Rejected => "that it is rejected",
        Verdict::Unanswered => "that it is not answered",
        Verdict::Unknown => "nothing certain",
    };
    match &report.cause {
        Some(cause) => format!("{verdict} in {}: {}", cause.netns, cause.summary),
        None => verdict.to_owned(),
    }
}
