//! Address management left to another plugin: the one program that is started here.
//!
//! It gets the same environment and the same input, and its words on the standard error pass through.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::call::{Call, Verb};
use super::config::{Input, without_nulls_within};
use super::error::{CniError, Done, code};
use super::result::Outcome;

/// Runs an address plugin with the verb of this call; what it answered, if anything.
///
/// # Errors
/// It is not there, or failed: then its own error.
pub fn run(call: &Call, input: &Input, name: &str) -> Done<Option<Value>> {
    read(&run_as(call, input, name, call.verb)?, name)
}

/// Runs an address plugin for addresses.
///
/// # Errors
/// As [`run`]; its answer is no result: then it is told to take back what it may have given.
pub fn add(call: &Call, input: &Input, name: &str) -> Done<Outcome> {
    let said = run_as(call, input, name, call.verb)?;
    let nothing = || {
        CniError::new(
            code::DECODE,
            format!("address plugin `{name}` answered nothing"),
        )
    };
    let answer = read(&said, name).and_then(|answer| answer.ok_or_else(nothing));
    let result = answer.and_then(|mut value| {
        without_nulls_within(&mut value);
        Outcome::parse(&value)
    });
    if result.is_err() {
        give_back(call, input, name);
    }
    result
}

/// Takes an `ADD` back, as far as that goes.
pub fn give_back(call: &Call, input: &Input, name: &str) {
    if let Err(error) = run_as(call, input, name, Verb::Del) {
        super::remark(&format!(
            "address plugin `{name}` on the way back: {}\n",
            error.msg
        ));
    }
}

/// The answer of a plugin that succeeded.
fn read(said: &[u8], name: &str) -> Done<Option<Value>> {
    if said.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(said).map(Some).map_err(|e| {
        let msg = format!("address plugin `{name}` answered no JSON");
        CniError::new(code::DECODE, msg).with(e.to_string())
    })
}

/// What it wrote on its standard output.
fn run_as(call: &Call, input: &Input, name: &str, verb: Verb) -> Done<Vec<u8>> {
    let path = find(call, name)?;
    let failed = |what: &str, e: std::io::Error| {
        CniError::new(code::IO, format!("cannot {what} address plugin `{name}`"))
            .with(format!("{}: {e}", path.display()))
    };
    let mut child = Command::new(&path)
        .env("CNI_COMMAND", verb.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("run", e))?;
    let text = input.text.clone();
    let stdin = child.stdin.take();
    // Written beside reading: neither side may have to wait for the other's pipe to be emptied.
    let writer = std::thread::spawn(move || {
        // A plugin need not read its input.
        stdin.map(|mut pipe| pipe.write_all(&text))
    });
    let output = child
        .wait_with_output()
        .map_err(|e| failed("wait for", e))?;
    let _ = writer.join();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let number = said["code"].as_u64().and_then(|c| u32::try_from(c).ok());
    let msg = match text("msg") {
        empty if empty.is_empty() => format!("it ended with {}", output.status),
        msg => msg,
    };
    Err(CniError {
        code: number.unwrap_or(code::FAILED),
        msg: format!("address plugin `{name}`: {msg}"),
        details: text("details"),
    })
}

fn find(call: &Call, name: &str) -> Done<PathBuf> {
    let found = call
        .path
        .iter()
        .map(|dir| dir.join(name))
        .find(|p| p.is_file());
    found.ok_or_else(|| {
        let all: Vec<String> = call.path.iter().map(|p| p.display().to_string()).collect();
        CniError::config(format!("address plugin `{name}` is not in CNI_PATH"))
            .with(format!("CNI_PATH is `{}`", all.join(":")))
    })
}
