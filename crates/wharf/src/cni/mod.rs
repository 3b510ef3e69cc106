//! The CNI plugin: `wharf` as container runtimes call it, by the Container Network Interface specification 1.1.0.
//!
//! The call comes in the environment and a JSON object on the standard input; the answer is a JSON object on the
//! standard output. Here it is read, turned into the engine's requests, and their outcome into an answer. Not here:
//! anything that decides or changes something.

mod add;
mod call;
mod chained;
mod check;
mod config;
mod del;
mod delegate;
mod error;
mod extras;
mod ipam;
mod keys;
mod names;
mod network;
mod pattern;
mod result;

use std::io::{Read, Write};

use serde_json::{Value, json};
use wharf_core::ErrorKind;
use wharf_engine::api::Note;
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;

use crate::cli::Context;
use crate::output::{Printer, note};
use call::{Call, Verb};
use config::Input;
use error::{CniError, Done, code};
use result::{VERSIONS, Version};

/// The most that is read of the standard input.
const INPUT_MAX: u64 = 16 << 20;

/// Whether the surroundings are those of a plugin: a command in the environment and no arguments.
pub fn is_called() -> bool {
    std::env::var_os("CNI_COMMAND").is_some() && std::env::args_os().len() <= 1
}

/// Answers one call, and gives the exit status.
pub fn main() -> u8 {
    std::panic::set_hook(Box::new(|info| {
        let error = CniError::new(code::FAILED, "a fault of wharf").with(info.to_string());
        let _ = print(&error.json(Version::NEWEST.as_str()));
    }));
    let mut text = Vec::new();
    match answer(&mut text) {
        Ok(None) => 0,
        Ok(Some(value)) => match print(&value) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(error) => {
            let _ = print(&error.json(config::version_of(&text)));
            1
        }
    }
}

fn print(value: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// Free text, for the runtime's log.
fn remark(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn remarks(notes: &[Note]) {
    for n in notes {
        remark(&note::text(n));
    }
}

fn answer(text: &mut Vec<u8>) -> Done<Option<Value>> {
    let call = Call::read(|key| std::env::var(key).ok())?;
    let read = std::io::stdin().lock().take(INPUT_MAX).read_to_end(text);
    if call.verb == Verb::Version {
        return Ok(Some(versions(text)));
    }
    read.map_err(|e| {
        CniError::new(code::IO, "cannot read the standard input").with(e.to_string())
    })?;
    let input = Input::read(text.clone())?;
    let oldest = match call.verb {
        Verb::Check => Version::CHECK,
        Verb::Gc | Verb::Status => Version::GC,
        _ => Version::INTERFACES,
    };
    if input.version < oldest && !matches!(call.verb, Verb::Add | Verb::Del) {
        let msg = format!("{} needs version {}", call.verb.as_str(), oldest.as_str());
        return Err(CniError::new(code::VERSION, msg).with(format!(
            "the configuration is of version {}",
            input.version.as_str()
        )));
    }
    if numbers_for_another(&input)? {
        return match call.verb {
            Verb::Del | Verb::Gc => Ok(None),
            _ => {
                let why = "wharf numbers the containers of its own networks, and attaches them";
                Err(CniError::unsupported("ipam.type", "`wharf`", why))
            }
        };
    }
    match call.verb {
        Verb::Add => add::add(&call, &input).map(Some),
        Verb::Del => del::del(&call, &input).map(|()| None),
        Verb::Check => check::check(&call, &input).map(|()| None),
        Verb::Gc => del::gc(&call, &input).map(|()| None),
        Verb::Status => status(&call, &input).map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// Whether another plugin calls wharf for addresses: the configuration is that plugin's.
fn numbers_for_another(input: &Input) -> Done<bool> {
    let own = crate::called_as();
    let numbers = [own.as_str(), "wharf"].contains(&ipam::plugin(&input.config)?);
    let plugin = input.config.plugin.as_str();
    Ok(numbers && !["", "wharf", own.as_str()].contains(&plugin))
}

/// The versions there are. The input may be anything, even nothing.
fn versions(text: &[u8]) -> Value {
    let asked: Option<Value> = serde_json::from_slice(text).ok();
    let asked = asked.as_ref().and_then(|v| v["cniVersion"].as_str());
    let version = asked.filter(|v| !v.is_empty());
    json!({
        "cniVersion": version.unwrap_or(Version::NEWEST.as_str()),
        "supportedVersions": VERSIONS,
    })
}

/// Opens the engine where the environment says.
fn engine() -> Result<Engine, EngineError> {
    let ctx = Context::new(Printer::new(false));
    let mut engine = Engine::open(&ctx.dirs)?;
    remarks(&engine.take_notes());
    Ok(engine)
}

fn status(call: &Call, input: &Input) -> Done<()> {
    input.config.check()?;
    let ipam = ipam::read(call, input)?;
    engine().map_err(|error| {
        let number = match error.kind() {
            ErrorKind::Retry => code::RETRY,
            _ => code::NOT_AVAILABLE,
        };
        CniError {
            code: number,
            ..error.into()
        }
    })?;
    match ipam {
        ipam::Ipam::Plugin(name) => delegate::run(call, input, &name).map(|_| ()),
        _ => Ok(()),
    }
}
