//! Drivers that are programs of their own, in Podman's plugin directories.
//!
//! A plugin reads one object and answers with one, or with `{"error": …}` and a failing status.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::error::Failure;
use super::input::Input;
use super::status::Status;

/// A driver's program, with one network.
pub struct Plugin {
    program: PathBuf,
    network: Value,
    options: Value,
}

/// The program of a driver: the first of its name in the directories.
pub fn program(dirs: &[PathBuf], driver: &str) -> Result<PathBuf, Failure> {
    if dirs.is_empty() {
        return Err(Failure::new("plugin directory not provided"));
    }
    let name_only = Path::new(driver)
        .file_name()
        .is_some_and(|name| name == driver);
    let found = dirs
        .iter()
        .map(|dir| dir.join(driver))
        .find(|path| path.is_file());
    found.filter(|_| name_only).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Failure::new(format!(
            "failed to find driver or plugin {driver:?} in {}",
            dirs.join(", ")
        ))
    })
}

/// The plugin of a network's driver.
pub fn find(
    dirs: &[PathBuf],
    driver: &str,
    network: &Value,
    options: &Value,
) -> Result<Plugin, Failure> {
    Ok(Plugin {
        program: program(dirs, driver)?,
        network: network.clone(),
        options: options.clone(),
    })
}

impl Plugin {
    /// Puts the container on the network.
    pub fn setup(&self, netns: &Path, input: &Input) -> Result<Status, Failure> {
        let answer = self.call("setup", netns, input)?;
        serde_json::from_str(&answer)
            .map_err(|e| Failure::new(format!("plugin {}: {e}", self.program.display())))
    }

    /// Takes the container off the network.
    pub fn teardown(&self, netns: &Path, input: &Input) -> Result<(), Failure> {
        self.call("teardown", netns, input).map(|_| ())
    }

    fn call(&self, verb: &str, netns: &Path, input: &Input) -> Result<String, Failure> {
        let ports: Vec<Value> = input
            .port_mappings
            .iter()
            .flatten()
            .map(|p| {
                json!({
                    "host_ip": p.host_ip,
                    "container_port": p.container_port,
                    "host_port": p.host_port,
                    "range": p.range,
                    "protocol": p.protocol,
                })
            })
            .collect();
        let text = json!({
            "container_id": input.container_id,
            "container_name": input.container_name,
            "port_mappings": if input.port_mappings.is_some() { json!(ports) } else { Value::Null },
            "network": self.network,
            "network_options": self.options,
        });
        run(&self.program, &[verb.as_ref(), netns.as_os_str()], &text)
    }
}

/// Runs a plugin's command with an object to read; what it printed.
pub fn run(program: &Path, args: &[&std::ffi::OsStr], input: &Value) -> Result<String, Failure> {
    let name = program.file_name().unwrap_or_default();
    let failed = |text: &str| Failure::new(format!("plugin {name:?} failed: {text}"));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e.to_string()))?;
    // A plugin that does not care to read closes its end.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.to_string().as_bytes());
    }
    let out = child
        .wait_with_output()
        .map_err(|e| failed(&e.to_string()))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    let said = serde_json::from_str::<Value>(&text).ok();
    let said = said.as_ref().and_then(|v| v["error"].as_str());
    let status = match out.status.code() {
        Some(code) => format!("exit code {code}"),
        None => out.status.to_string(),
    };
    Err(failed(&match said {
        Some(said) => format!("{status}, message: {said}"),
        None => status,
    }))
}
