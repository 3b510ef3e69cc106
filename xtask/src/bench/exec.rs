//! `exec`: programs executed, processes made and messages sent by one attach and one detach.

use std::fs;

use serde_json::json;

use super::engines::{self, Arm, Call, FloorKind};
use super::measure::{rest, timed};
use super::report::Section;
use super::world::SCRATCH;
use super::{Context, Result};

const TRACE: &str = "/run/bench/strace";

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    executed: usize,
    processes: usize,
    sends: usize,
}

/// `exec`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    if !engines::installed("strace") {
        return Err("strace is not installed".into());
    }
    let mut arms: Vec<Arm> = engines::wharf(context)?.into_iter().collect();
    arms.push(engines::floor(context, FloorKind::Plain)?);
    arms.extend(engines::script(context)?);

    let columns = [
        "engine",
        "",
        "programs executed",
        "processes and threads made",
        "messages sent",
    ];
    let mut section = Section::new("exec", "counts, one published port", &columns);
    let ports = ["8080:80".to_owned()];
    for arm in &arms {
        let label = arm.engine.label();
        context.progress(&format!("exec: {label}"));
        timed(&arm.host, &arm.engine.network_add())?;
        let container = arm.host.container(0)?;
        for (verb, call) in [
            ("attach", arm.engine.attach(&container, &ports)),
            ("detach", arm.engine.detach(&container, &ports)),
        ] {
            let counts = traced(arm, &call)?;
            rest(context);
            let Counts {
                executed,
                processes,
                sends,
            } = counts;
            let cells = vec![
                label.to_owned(),
                verb.to_owned(),
                executed.to_string(),
                processes.to_string(),
                sends.to_string(),
            ];
            let data = json!({
                "engine": label, "verb": verb, "executed": executed, "processes": processes, "sends": sends,
            });
            section.row(cells, data);
            if label == "wharf" {
                section.goal(
                    format!("programs executed by {verb} beside wharf itself"),
                    executed as f64 - 1.0,
                    0.0,
                );
            }
        }
    }
    section.note("the first program executed is the engine itself");
    Ok(vec![section])
}

fn traced(arm: &Arm, call: &Call) -> Result<Counts> {
    let calls = "trace=execve,execveat,clone,clone3,fork,vfork,sendto,sendmsg,sendmmsg";
    let mut args: Vec<String> = ["-f", "-qq", "-e", calls, "-o", TRACE]
        .into_iter()
        .map(str::to_owned)
        .collect();
    args.push(call.program.display().to_string());
    args.extend(call.args.iter().cloned());
    timed(
        &arm.host,
        &Call {
            program: "strace".into(),
            args,
            env: call.env.clone(),
            ..Call::default()
        },
    )?;
    debug_assert!(TRACE.starts_with(SCRATCH));
    let trace = fs::read_to_string(TRACE)?;
    Ok(count(&trace))
}

/// A call that was interrupted in the log by another process has its name and `(` only once.
fn count(trace: &str) -> Counts {
    let mut counts = Counts::default();
    for line in trace.lines() {
        let call = line
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.split_once('('));
        match call.map(|(name, _)| name) {
            // A search along the PATH fails with ENOENT until it finds the program.
            Some("execve" | "execveat") if !line.contains("ENOENT") => counts.executed += 1,
            Some("clone" | "clone3" | "fork" | "vfork") => counts.processes += 1,
            Some("sendto" | "sendmsg" | "sendmmsg") => counts.sends += 1,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn interrupted_calls_count_once() {
        let trace = "\
10 execve(\"/bin/sh\", [\"sh\"], 0x7ff) = 0
10 vfork( <unfinished ...>
11 execve(\"/usr/local/bin/ip\", [\"ip\"], 0x7ff) = -1 ENOENT (No such file or directory)
11 execve(\"/usr/bin/ip\", [\"ip\"], 0x7ff <unfinished ...>
10 <... vfork resumed>) = 11
11 <... execve resumed>) = 0
11 sendto(3, [{nlmsg_len=20}], 20, 0, NULL, 0) = 20
";
        let counts = count(trace);
        assert_eq!((counts.executed, counts.processes, counts.sends), (2, 1, 1));
    }
}
