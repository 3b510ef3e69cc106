//! Timing of whole processes, and what is made of the figures.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engines::{Arm, Call};
use super::world::{Container, Host, SCRATCH};
use super::{Context, Result};
use crate::sys;

/// What one process cost, from its start until it was waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Wall clock.
    pub wall: Duration,
    /// Processor time of the process and of what it waited for, not of children it left behind.
    pub cpu: Duration,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// A call that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What it cost, with all that followed it.
    pub cost: Cost,
    /// What the last process printed, where it was asked something on its standard input.
    pub output: String,
}

/// Runs `call`, and what follows it, in the host's namespace; only the processes' own time counts.
/// A failure is an error with what the process said.
pub fn timed(host: &Host, call: &Call) -> Result<Cost> {
    done(host, call).map(|done| done.cost)
}

/// Like [`timed`], with what was answered.
pub fn done(host: &Host, call: &Call) -> Result<Done> {
    let kept = match &call.previous {
        // Nothing is kept of a call that failed.
        Some(path) => fs::read_to_string(path).ok(),
        None => None,
    };
    let mut total = timed_once(host, call, kept.as_deref())?;
    let mut next = &call.next;
    while let Some(call) = next {
        let previous = kept.as_deref().unwrap_or(&total.output);
        let more = timed_once(host, call, Some(previous))?;
        total = Done {
            cost: total.cost + more.cost,
            output: more.output,
        };
        next = &call.next;
    }
    if let Some(path) = &call.keep {
        fs::write(path, &total.output)?;
    }
    Ok(total)
}

/// The scratch files of one process: its input, its output, its complaints. They go with this.
struct Streams {
    number: u32,
}

impl Streams {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { number }
    }

    fn path(&self, name: &str) -> String {
        format!("{SCRATCH}/{name}.{}", self.number)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for name in ["stdin", "stdout", "stderr"] {
            // Not every process has all of them.
            drop(fs::remove_file(self.path(name)));
        }
    }
}

/// One process. What it prints is kept only where it was asked something on its standard input.
fn timed_once(host: &Host, call: &Call, previous: Option<&str>) -> Result<Done> {
    let streams = Streams::new();
    let [input, output, complaints] = ["stdin", "stdout", "stderr"].map(|name| streams.path(name));
    let mut command = Command::new(&call.program);
    command
        .args(&call.args)
        .envs(call.env.iter().map(|(key, value)| (key, value)));
    command.stdin(match &call.stdin {
        None => Stdio::null(),
        Some(text) => {
            fs::write(&input, with_previous(text, previous)?)?;
            File::open(&input)?.into()
        }
    });
    command.stdout(match &call.stdin {
        None => Stdio::null(),
        Some(_) => File::create(&output)?.into(),
    });
    command.stderr(File::create(&complaints)?);
    let (ended, wall) = sys::inside(host.netns.as_fd(), || {
        let start = Instant::now();
        let child = command.spawn()?;
        let ended = sys::wait_with_usage(&child)?;
        std::io::Result::Ok((ended, start.elapsed()))
    })??;
    let output = match &call.stdin {
        None => String::new(),
        Some(_) => fs::read_to_string(output)?,
    };
    if ended.status != Some(0) {
        let said = fs::read_to_string(&complaints).unwrap_or_default();
        let words: String = call.args.join(" ").chars().take(200).collect();
        let program = call.program.display();
        // CNI plugins and Netavark complain on the standard output.
        let said = format!("{} {}", said.trim(), output.trim());
        return Err(format!("`{program} {words}` failed ({:?}): {said}", ended.status).into());
    }
    let cost = Cost {
        wall,
        cpu: ended.cpu,
    };
    Ok(Done { cost, output })
}

/// The input of a CNI plugin, with the result of the one before it unless there is one already.
fn with_previous(input: &Value, previous: Option<&str>) -> Result<String> {
    let mut input = input.clone();
    if let Some(previous) = previous.filter(|text| !text.trim().is_empty()) {
        input["prevResult"] = serde_json::from_str(previous)?;
    }
    Ok(input.to_string())
}

/// Rests, so that what the last process left for the kernel to do does not slow the next one: closing an
/// nfnetlink socket waits for deletions that are still settling, whoever made them.
pub fn rest(context: &Context) {
    thread::sleep(context.pause);
    sys::collect_orphans();
}

/// The costs of plugging in and of taking away.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// Attach.
    pub up: Vec<Cost>,
    /// Detach.
    pub down: Vec<Cost>,
}

/// One contestant in [`alternate`]: where, what, with which ports.
pub struct Entry<'a> {
    /// The engine and its host.
    pub arm: &'a Arm,
    /// The container that comes and goes.
    pub container: &'a Container,
    /// The ports it publishes.
    pub ports: Vec<String>,
}

/// Lets the entries take turns at attach and detach, and drops the first two rounds (the first, if quick).
pub fn alternate(context: &Context, what: &str, entries: &[Entry<'_>]) -> Result<Vec<Cycle>> {
    alternate_rounds(context, what, entries, context.rounds)
}

/// [`alternate`] with `rounds` that count.
pub fn alternate_rounds(
    context: &Context,
    what: &str,
    entries: &[Entry<'_>],
    rounds: usize,
) -> Result<Vec<Cycle>> {
    let warm_up = if context.quick { 1 } else { 2 };
    let mut cycles = vec![Cycle::default(); entries.len()];
    for round in 0..rounds + warm_up {
        context.progress(&format!(
            "{what}: round {} of {}",
            round + 1,
            rounds + warm_up
        ));
        for turn in 0..entries.len() {
            // Nobody always comes after the same neighbour.
            let place = if round % 2 == 0 {
                turn
            } else {
                entries.len() - 1 - turn
            };
            let Entry {
                arm,
                container,
                ports,
            } = &entries[place];
            let up = timed(&arm.host, &arm.engine.attach(container, ports))?;
            rest(context);
            let down = timed(&arm.host, &arm.engine.detach(container, ports))?;
            rest(context);
            if round >= warm_up {
                cycles[place].up.push(up);
                cycles[place].down.push(down);
            }
        }
    }
    Ok(cycles)
}

/// The middle of some figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// A quarter of them is below.
    pub q1: f64,
    /// Half of them is below.
    pub median: f64,
    /// Three quarters are below.
    pub q3: f64,
    /// How many there were.
    pub n: usize,
}

impl Summary {
    /// Sums up `values`; zeroes when there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let Some(last) = values.len().checked_sub(1) else {
            return Self::default();
        };
        let at = |part: f64| {
            let place = part * last as f64;
            let (low, high) = (
                values[place.floor() as usize],
                values[place.ceil() as usize],
            );
            low + (high - low) * place.fract()
        };
        Self {
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            n: values.len(),
        }
    }

    /// Wall clock, in milliseconds.
    pub fn wall(costs: &[Cost]) -> Self {
        Self::of(
            costs
                .iter()
                .map(|cost| cost.wall.as_secs_f64() * 1e3)
                .collect(),
        )
    }

    /// Processor time, in milliseconds.
    pub fn cpu(costs: &[Cost]) -> Self {
        Self::of(
            costs
                .iter()
                .map(|cost| cost.cpu.as_secs_f64() * 1e3)
                .collect(),
        )
    }

    /// `median (q1–q3)`
    pub fn text(&self, digits: usize) -> String {
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.q1, self.q3
        )
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "q1": self.q1, "q3": self.q3, "n": self.n })
    }
}

/// Figures that were taken in turns, each divided by its neighbour of the same round: what both suffered
/// from others' load drops out.
pub fn paired_ratio(of: &[f64], to: &[f64]) -> Summary {
    Summary::of(of.iter().zip(to).map(|(a, b)| a / b).collect())
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn quartiles_are_interpolated() {
        let summary = Summary::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((summary.q1, summary.median, summary.q3), (1.75, 2.5, 3.25));
    }

    #[test]
    fn no_figures_are_zero() {
        assert_eq!(Summary::of(Vec::new()).n, 0);
    }
}
