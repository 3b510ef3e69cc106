//! The answer from the state and what a live probe saw, together: where they agree the cause is the state's, with the
//! probe as evidence; where they differ the probe is right, and the difference is said.
//!
//! ```text
//! Report (from the state) + Seen ── join ──> Report
//! ```
//!
//! Not here: walking (`walk`), sending and capturing (the engine's `probe::live`).

mod answerer;
mod facts;
mod reason;
mod words;

use crate::trace::query::Query;
use crate::trace::report::{Cause, Code, Hop, HopVerdict, Owner, Report, Verdict};
use crate::trace::seen::{Leg, Seen};
use crate::trace::state::ObservedState;

use facts::{Facts, Finding};

/// What the state suggested and a probe saw, as one answer.
pub fn join(state: &ObservedState, query: &Query, report: Report, seen: &Seen) -> Report {
    let facts = Facts::new(state, query, &report, seen);
    let mut join = Join {
        line: words::summary(&facts),
        suggested: words::suggested(&report),
        facts,
        report,
    };
    join.report.probe = words::story(&join.facts);
    join.report.notes.extend(seen.unable.iter().cloned());
    join.decide();
    join.report
}

/// An answer in the making.
struct Join<'a> {
    facts: Facts<'a>,
    report: Report,
    /// The probe in one sentence.
    line: String,
    /// What the state suggested, in words.
    suggested: String,
}

impl Join<'_> {
    fn decide(&mut self) {
        match self.facts.finding() {
            Finding::Delivered => self.delivered(),
            Finding::Rule(rule, verdict) => {
                let stage = rule.stage;
                self.named(rule.cause, verdict, stage);
            }
            Finding::Reason(cause, verdict) if self.explains(&cause, verdict) => self.agree(),
            Finding::Reason(cause, Verdict::Unanswered)
                if self.was_remembered() && self.covers(&cause) =>
            {
                self.agree();
                self.report.verdict = Verdict::Unanswered;
            }
            // A source that no answer finds is one that the far side may refuse at once.
            Finding::Reason(cause, Verdict::Dropped)
                if self.report.verdict == Verdict::Unanswered
                    && matches!(cause.code, Code::MartianAddress | Code::ReversePathFilter)
                    && self.covers(&cause) =>
            {
                self.agree();
                self.report.verdict = Verdict::Dropped;
            }
            Finding::Reason(cause, verdict) => self.named(cause, verdict, "probe"),
            Finding::Refused { at_once } => self.refused(at_once),
            Finding::Taken => self.taken(),
            Finding::Unanswered => match (self.report.verdict, self.facts.guess(Leg::Answer)) {
                (Verdict::Unanswered, _) => self.agree(),
                (_, Some(cause)) => self.named(cause, Verdict::Unanswered, "probe"),
                _ if let Some(cause) = answerer::strange(&self.facts) => {
                    self.named(cause, Verdict::Unanswered, "socket");
                }
                _ if self.refuses_at_end() => self.agree(),
                _ if self.was_remembered() => {
                    self.agree();
                    self.report.verdict = Verdict::Unanswered;
                }
                _ => self.unknown(),
            },
            Finding::Ignored => self.ignored(),
            Finding::Beyond => match self.report.verdict {
                Verdict::Unanswered => self.agree(),
                Verdict::Dropped | Verdict::Rejected => self.keep_unless_past(),
                Verdict::Delivered | Verdict::Unknown => self.unknown(),
            },
            Finding::Lost => self.lost(),
            Finding::Nothing => {}
        }
    }

    /// Whether the state's cause is why the kernel gave its reason, which is a coarser word for it.
    fn explains(&self, reason: &Cause, verdict: Verdict) -> bool {
        let stops = |v: Verdict| matches!(v, Verdict::Dropped | Verdict::Rejected);
        let alike = self.report.verdict == verdict || stops(self.report.verdict) && stops(verdict);
        alike && self.covers(reason)
    }

    fn covers(&self, reason: &Cause) -> bool {
        let cause = self.report.cause.as_ref();
        cause.is_some_and(|c| reason::covers(reason.code, c.code))
    }

    /// Whether the state's cause is a neighbour that nobody would find now, but whose hardware address is remembered yet,
    /// or serves by chance: a bridge bears that of one of its ports.
    fn was_remembered(&self) -> bool {
        let cause = self.report.cause.as_ref();
        cause.is_some_and(|c| {
            matches!(
                c.code,
                Code::NeighbourUnreachable
                    | Code::NoSuchDestination
                    | Code::WrongGateway
                    | Code::NotOnBridge
                    | Code::NoAddress
            )
        })
    }

    /// The state was right.
    fn agree(&mut self) {
        if let Some(cause) = &mut self.report.cause {
            cause.evidence.push(format!("probe: {}", self.line));
        }
    }

    /// It was not.
    fn differ(&mut self) {
        let note = format!(
            "the state suggested {}; the probe saw: {}",
            self.suggested, self.line
        );
        self.report.notes.push(note);
    }

    /// What the probe saw has no name.
    fn unknown(&mut self) {
        if self.report.verdict == Verdict::Unknown && self.report.cause.is_none() {
            self.report.notes.push(format!("the probe: {}", self.line));
            return;
        }
        self.differ();
        self.passed_by();
        self.report.verdict = Verdict::Unknown;
        self.report.cause = None;
    }

    fn delivered(&mut self) {
        if self.report.verdict == Verdict::Delivered {
            return;
        }
        let cause = self.report.cause.take();
        self.passed_by();
        match cause {
            // The packet that was sent is small: what is said of large ones stays true.
            Some(large) if large.code == Code::MtuExceeded => self.report.also.insert(0, large),
            // This one took another way than those that get lost.
            Some(other) if self.report.some_pass => self.report.also.insert(0, other),
            _ if self.report.verdict != Verdict::Unknown => self.differ(),
            _ => {}
        }
        self.report.verdict = Verdict::Delivered;
    }

    /// Stations that the state said would stop the packet, and did not.
    fn passed_by(&mut self) {
        for hop in &mut self.report.hops {
            if matches!(hop.verdict, HopVerdict::Drop | HopVerdict::Reject) {
                hop.verdict = HopVerdict::Unknown;
                hop.detail.push_str(" (the probe saw otherwise)");
            }
        }
    }

    /// Something that has a name stopped the packet or its answer.
    fn named(&mut self, cause: Cause, verdict: Verdict, stage: &str) {
        if let Some(suggested) = &self.report.cause
            && same(suggested, &cause)
        {
            self.agree();
            if self.report.verdict == Verdict::Unknown {
                self.report.verdict = verdict;
            }
            return;
        }
        // What refuses comes before what its answer meets.
        if verdict == Verdict::Unanswered && self.refuses_at_end() {
            self.agree();
            if !self.report.also.iter().any(|c| same(c, &cause)) {
                self.report.also.insert(0, cause);
            }
            return;
        }
        let next = self.report.also.iter().position(|c| same(c, &cause));
        if self.report.verdict != Verdict::Unknown || self.report.cause.is_some() {
            self.differ();
        }
        let mut cause = match next {
            Some(at) => self.report.also.remove(at),
            None => cause,
        };
        cause.evidence.push(format!("probe: {}", self.line));
        self.passed_by();
        self.report.hops.push(Hop {
            netns: cause.netns.clone(),
            stage: stage.to_owned(),
            object: cause.object.clone(),
            detail: "the probe was stopped here".to_owned(),
            verdict: match verdict {
                Verdict::Rejected => HopVerdict::Reject,
                _ => HopVerdict::Drop,
            },
            reply: verdict == Verdict::Unanswered,
        });
        self.report.cause = Some(cause);
        self.report.verdict = verdict;
    }

    /// Whether the state's cause is what the packet meets where it arrived.
    fn refuses_at_end(&self) -> bool {
        let cause = self.report.cause.as_ref();
        cause.is_some_and(|c| self.facts.is_end(&c.netns) && of_the_end(c.code))
    }

    fn refused(&mut self, at_once: bool) {
        let stopped = matches!(self.report.verdict, Verdict::Dropped | Verdict::Rejected);
        let past = self
            .report
            .cause
            .as_ref()
            .is_some_and(|c| self.facts.past(c));
        if stopped && !past {
            self.agree();
            // That a neighbour is silent the sender's kernel says sooner or later, and the packet is lost all the same.
            if !at_once && !self.facts.is_silence() {
                self.report.verdict = Verdict::Rejected;
            }
            return;
        }
        if self.promote(Verdict::Rejected) {
            return;
        }
        match self.facts.refuser() {
            Some(cause) if cause.code == Code::TtlExpired => {
                self.named(cause, Verdict::Dropped, "forward");
            }
            Some(cause) => self.named(cause, Verdict::Rejected, "socket"),
            None => self.unknown(),
        }
    }

    /// A datagram arrived, and nobody said that it was not welcome.
    fn taken(&mut self) {
        let at_end = self
            .report
            .cause
            .as_ref()
            .is_none_or(|c| self.facts.is_end(&c.netns));
        match self.report.verdict {
            Verdict::Delivered => {}
            Verdict::Unanswered => self.agree(),
            Verdict::Dropped | Verdict::Rejected if at_end => self.agree(),
            _ => {
                if !self.promote(Verdict::Dropped) {
                    self.delivered();
                }
            }
        }
    }

    /// It arrived, and no answer was made.
    fn ignored(&mut self) {
        let at_end = self
            .report
            .cause
            .as_ref()
            .is_some_and(|c| self.facts.is_end(&c.netns));
        if at_end || self.report.verdict == Verdict::Unanswered {
            self.agree();
        } else if !self.promote(Verdict::Dropped) {
            self.unknown();
        }
    }

    fn lost(&mut self) {
        if matches!(self.report.verdict, Verdict::Dropped | Verdict::Rejected) {
            self.keep_unless_past();
            return;
        }
        match self.facts.guess(Leg::Question) {
            Some(cause) if cause.code == Code::NeighbourUnreachable && self.silences() => {
                self.agree();
                self.report.verdict = Verdict::Dropped;
            }
            Some(cause) => self.named(cause, Verdict::Dropped, "probe"),
            None => self.unknown(),
        }
    }

    /// Whether what the state says of the answer keeps the neighbour's answer back, too.
    fn silences(&self) -> bool {
        let cause = self.report.cause.as_ref();
        self.report.verdict == Verdict::Unanswered
            && cause.is_some_and(|c| {
                matches!(
                    c.code,
                    Code::TrafficControl
                        | Code::BridgePortBlocked
                        | Code::SpoofGuard
                        | Code::NotOnBridge
                        | Code::BridgeDown
                        | Code::DuplicateMac
                )
            })
    }

    fn keep_unless_past(&mut self) {
        let past = self
            .report
            .cause
            .as_ref()
            .is_some_and(|c| self.facts.past(c));
        if !past {
            self.agree();
        } else if !self.promote(Verdict::Dropped) {
            match self.facts.guess(Leg::Question) {
                Some(cause) => self.named(cause, Verdict::Dropped, "probe"),
                None => self.unknown(),
            }
        }
    }

    /// The packet went past what the state named first: what comes next stops it, if it is known.
    fn promote(&mut self, verdict: Verdict) -> bool {
        let next =
            self.report.also.iter().position(|c| {
                self.facts.is_end(&c.netns) && of_the_end(c.code) && !self.facts.past(c)
            });
        let Some(next) = next else {
            return false;
        };
        self.differ();
        self.passed_by();
        let mut cause = self.report.also.remove(next);
        cause.evidence.push(format!("probe: {}", self.line));
        self.report.cause = Some(cause);
        self.report.verdict = verdict;
        true
    }
}

/// What is to blame where the packet arrives.
fn of_the_end(code: Code) -> bool {
    matches!(
        code,
        Code::NotListening
            | Code::ListeningElsewhere
            | Code::AcceptQueueFull
            | Code::EchoIgnored
            | Code::FirewallRule
            | Code::FirewallPolicy
    )
}

/// Whether two causes blame the same.
fn same(state: &Cause, probe: &Cause) -> bool {
    if state.netns != probe.netns {
        return false;
    }
    let named = |c: &Cause| c.evidence.iter().any(|e| e.contains(&probe.object));
    (state.code, &state.object) == (probe.code, &probe.object)
        // What wharf keeps is told by its network or container, not by its rule.
        || state.owner == Owner::Wharf && probe.owner == Owner::Wharf
        || state.code == probe.code && !facts::by_rules(state.code)
        || facts::by_rules(probe.code) && !probe.object.is_empty() && named(state)
}
