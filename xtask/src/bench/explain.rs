//! `explain`: how long `wharf trace`, `doctor` and `exposure` take on a host with a hundred containers, without and with
//! ten thousand rules of other programs.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::process::Command;

use serde_json::json;

use super::engines::{self, Arm, Call};
use super::measure::{Cost, Summary, timed};
use super::report::Section;
use super::traffic::{self, ECHO};
use super::world::{Container, OUTSIDE, SCRATCH, output_of};
use super::{Context, Result};
use crate::sys;

const RULES: u32 = 10_000;

/// A question, and how many milliseconds its answer may take.
struct Question {
    what: &'static str,
    /// What follows the program's name.
    words: String,
    limit: Option<f64>,
}

/// `explain`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let (Some(arm), Some(program)) = (engines::wharf(context)?, &context.wharf) else {
        return Ok(Vec::new());
    };
    let count = if context.quick { 20 } else { 100 };
    timed(&arm.host, &arm.engine.network_add())?;
    let containers = arm.host.containers(0, count)?;
    for (container, number) in containers.iter().zip(0..) {
        context.progress(&format!("explain: container {number} of {count}"));
        let port = format!("{}:{ECHO}", 10_000 + number);
        timed(&arm.host, &arm.engine.attach(container, &[port]))?;
    }
    traffic::serve(&containers[1].open()?)?;
    silence_outside(&arm)?;

    let columns = ["foreign rules", "question", "ms", "ms of processor"];
    let title = format!("questions about a host with {count} containers");
    let mut section = Section::new("explain", "questions about a whole host", &columns);
    section.note(title);
    let env = engines::wharf_env(context, &arm.host)?;
    for rules in [0, RULES] {
        if rules > 0 {
            foreign_rules(&arm)?;
        }
        for question in questions(&containers) {
            context.progress(&format!("explain: {rules} rules, {}", question.what));
            let call = ask(program, &env, &question.words);
            let costs: Vec<Cost> = (0..context.rounds.min(10))
                .map(|_| timed(&arm.host, &call))
                .collect::<Result<_>>()?;
            add_row(&mut section, rules, &question, &costs);
        }
    }
    section.note("a shell's start is included, which takes it that the answer may be no");
    section.note("limits are milliseconds, not ratios: a person waits for the answer");
    Ok(vec![section])
}

fn questions(containers: &[Container]) -> [Question; 5] {
    let [from, to] = [&containers[0].name, &containers[1].name];
    let question = |what, words, limit| Question { what, words, limit };
    [
        question(
            "trace --offline, delivered",
            format!("trace --offline {from} {to}:{ECHO}"),
            Some(100.0),
        ),
        question(
            "trace, answered",
            format!("trace {from} {to}:{ECHO}"),
            Some(300.0),
        ),
        question(
            "trace, nothing answers",
            format!("trace {from} {OUTSIDE}:81"),
            Some(1500.0),
        ),
        question("doctor", "doctor".to_owned(), None),
        question("exposure", "exposure".to_owned(), None),
    ]
}

/// The command; 1 is an answer, too.
fn ask(program: &std::path::Path, env: &[(&'static str, String)], words: &str) -> Call {
    let script = format!("{} {words} --json || [ $? = 1 ]", program.display());
    Call {
        program: "sh".into(),
        args: vec!["-c".to_owned(), script],
        env: env.to_vec(),
        ..Call::default()
    }
}

/// Nobody beyond the uplink answers.
fn silence_outside(arm: &Arm) -> Result<()> {
    let rules =
        "table inet silent { chain in { type filter hook input priority 0; policy drop; }\n}\n";
    let path = format!("{SCRATCH}/silent.nft");
    fs::write(&path, rules)?;
    let status = sys::inside(arm.host.outside.as_fd(), || {
        Command::new("nft").args(["-f", &path]).status()
    })??;
    if status.success() {
        Ok(())
    } else {
        Err("nft could not silence the outside".into())
    }
}

/// Rules of a program that knows nothing of wharf, all of which a forwarded packet passes.
fn foreign_rules(arm: &Arm) -> Result<()> {
    let mut text = String::from(
        "table ip foreign { chain forward { type filter hook forward priority 10; policy accept;\n",
    );
    for n in 0..RULES {
        let (high, low) = (n / 250, n % 250);
        writeln!(
            text,
            "ip saddr 198.18.{high}.{low} tcp dport {} drop",
            n + 1
        )
        .expect("a String takes all");
    }
    text += "}\n}\n";
    let path = format!("{SCRATCH}/foreign.nft");
    fs::write(&path, text)?;
    output_of(&arm.host, Command::new("nft").args(["-f", &path])).map(|_| ())
}

fn add_row(section: &mut Section, rules: u32, question: &Question, costs: &[Cost]) {
    let (wall, cpu) = (Summary::wall(costs), Summary::cpu(costs));
    let what = question.what;
    if let Some(limit) = question.limit {
        let goal = format!("{what}, {rules} foreign rules: ms");
        section.goal(goal, wall.median, limit);
    }
    section.row(
        vec![
            rules.to_string(),
            what.to_owned(),
            wall.text(1),
            cpu.text(1),
        ],
        json!({ "foreign_rules": rules, "question": what, "ms": wall.json(), "cpu_ms": cpu.json() }),
    );
}
