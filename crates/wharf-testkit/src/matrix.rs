//! Many probes at once, and all deviations in one table.

use crate::netns::Netns;
use crate::probe::{Answer, BRIEF, PATIENT, Protocol, probe};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What a probe should end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// The server of this name answers.
    Reach(&'static str),
    /// The server of this name answers and saw this source.
    ReachAs(&'static str, IpAddr),
    /// An answer to a ping.
    Reply,
    /// Refused by a reset or its like, at once.
    Refused,
    /// Refused in any way, at once.
    RefusedFast,
    /// Not reached, in whatever way.
    No,
    /// The server of this name answers, or the attempt is refused at once.
    ReachOrRefused(&'static str),
}

impl Want {
    fn is_met(&self, answer: &Answer) -> bool {
        let fast = matches!(answer, Answer::Refused | Answer::Unreachable);
        match self {
            Self::Reach(name) => answer.by() == Some(name),
            Self::ReachAs(name, source) => {
                answer.by() == Some(name) && answer.source() == Some(*source)
            }
            Self::Reply => *answer == Answer::Replied,
            Self::Refused => *answer == Answer::Refused,
            Self::RefusedFast => fast,
            Self::No => fast || *answer == Answer::Timeout,
            Self::ReachOrRefused(name) => fast || answer.by() == Some(name),
        }
    }

    fn is_patient(&self) -> bool {
        *self != Self::No
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach(name) => write!(f, "reach {name}"),
            Self::ReachAs(name, source) => write!(f, "reach {name} as {source}"),
            Self::Reply => f.write_str("reach"),
            Self::Refused => f.write_str("refused"),
            Self::RefusedFast => f.write_str("refused at once"),
            Self::No => f.write_str("not reach"),
            Self::ReachOrRefused(name) => write!(f, "reach {name}, or refused at once"),
        }
    }
}

struct Case {
    label: String,
    from: Netns,
    protocol: Protocol,
    to: SocketAddr,
    want: Want,
}

/// A list of probes, each with what should come of it.
#[derive(Default)]
pub struct Matrix {
    cases: Vec<Case>,
}

impl Matrix {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a probe; `label` is what the reader of a failure sees first.
    pub fn add(
        &mut self,
        label: &str,
        from: &Netns,
        protocol: Protocol,
        to: (IpAddr, u16),
        want: Want,
    ) {
        let (label, from, to) = (label.to_owned(), from.clone(), to.into());
        self.cases.push(Case {
            label,
            from,
            protocol,
            to,
            want,
        });
    }

    /// Adds a TCP probe.
    pub fn tcp(&mut self, label: &str, from: &Netns, to: IpAddr, port: u16, want: Want) {
        self.add(label, from, Protocol::Tcp, (to, port), want);
    }

    /// Adds a UDP probe.
    pub fn udp(&mut self, label: &str, from: &Netns, to: IpAddr, port: u16, want: Want) {
        self.add(label, from, Protocol::Udp, (to, port), want);
    }

    /// Adds a ping.
    pub fn ping(&mut self, label: &str, from: &Netns, to: IpAddr, want: Want) {
        self.add(label, from, Protocol::Ping, (to, 0), want);
    }

    /// Adds an SCTP probe.
    pub fn sctp(&mut self, label: &str, from: &Netns, to: IpAddr, port: u16, want: Want) {
        self.add(label, from, Protocol::Sctp, (to, port), want);
    }

    /// How many probes there are.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Sends all probes, several at a time, and returns the deviations, one line each.
    pub fn deviations(&self) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        let work = || {
            while let Some(case) = self.cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let limit = if case.want.is_patient() {
                    PATIENT
                } else {
                    BRIEF
                };
                let answer = probe(&case.from, case.protocol, case.to, limit);
                if !case.want.is_met(&answer) {
                    let line = format!(
                        "{:<44} {:>9} → {:<28} {:<36} but {answer}",
                        case.label,
                        case.from.name(),
                        format!("{:?} {}", case.protocol, case.to).to_lowercase(),
                        case.want.to_string(),
                    );
                    found.lock().expect("no panic while locked").push(line);
                }
            }
        };
        thread::scope(|scope| (0..self.len().min(24)).for_each(|_| _ = scope.spawn(work)));
        let mut found = found.into_inner().expect("no panic while locked");
        found.sort();
        found
    }

    /// Sends all probes; panics with the list of deviations if there are any.
    #[track_caller]
    pub fn check(&self) {
        let found = self.deviations();
        let (wrong, all) = (found.len(), self.len());
        assert!(
            found.is_empty(),
            "{wrong} of {all} probes did not end as they should:\n{}",
            found.join("\n")
        );
    }
}
