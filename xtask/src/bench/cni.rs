//! The Container Network Interface: wharf and the reference plugins, run as libcni runs plugins.
//!
//! `ADD` goes along the list, each plugin gets the result of the one before; the last result is kept, and at
//! `DEL` all plugins get it, in the opposite order.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::engines::{self, Arm, BRIDGE, Call, Engine};
use super::netavark::pairs;
use super::world::{Container, GATEWAY, Host, SCRATCH, SUBNET};
use super::{Context, Result};

/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
/// The list that Podman came with before Netavark; containerd's guides have the first two or three of it.
const CHAIN: [&str; 4] = ["bridge", "portmap", "firewall", "tuning"];

/// wharf as a plugin on a new host; `None` without a binary.
pub fn wharf(context: &Context) -> Result<Option<Arm>> {
    let Some(program) = &context.wharf else {
        return Ok(None);
    };
    let host = context.world.host()?;
    let path = helper(program, "wharf")?;
    let env = engines::wharf_env(context, &host)?;
    let wharf = Some(program.clone());
    arm(host, WHARF_LABEL, path, &["wharf"], env, wharf).map(Some)
}

/// The reference plugins on a new host; `None` where they are not installed.
pub fn reference(context: &Context) -> Result<Option<Arm>> {
    let there = |plugin: &&str| Path::new(REFERENCE).join(plugin).exists();
    if !(CHAIN.iter().all(there) && there(&"host-local")) {
        return Ok(None);
    }
    let host = context.world.host()?;
    arm(
        host,
        REFERENCE_LABEL,
        REFERENCE.into(),
        &CHAIN,
        Vec::new(),
        None,
    )
    .map(Some)
}

/// How the reference plugins are called in tables.
pub const REFERENCE_LABEL: &str = "CNI chain (Debian)";
/// How wharf is called in that role.
pub const WHARF_LABEL: &str = "wharf (CNI)";

/// A directory with wharf under the name by which a caller looks for it.
pub fn helper(program: &Path, name: &str) -> Result<PathBuf> {
    let directory = Path::new(SCRATCH).join("bin");
    fs::create_dir_all(&directory)?;
    let link = directory.join(name);
    if !link.exists() {
        symlink(program, link)?;
    }
    Ok(directory)
}

fn arm(
    host: Host,
    label: &'static str,
    path: PathBuf,
    plugins: &'static [&'static str],
    env: Vec<(&'static str, String)>,
    wharf: Option<PathBuf>,
) -> Result<Arm> {
    let (leases, results) = (host.directory("leases"), host.directory("results"));
    fs::create_dir_all(&results)?;
    let engine = Cni {
        label,
        path,
        plugins,
        leases,
        results,
        env,
        wharf,
    };
    Ok(Arm {
        engine: Box::new(engine),
        host,
    })
}

struct Cni {
    label: &'static str,
    /// Where the plugins are.
    path: PathBuf,
    plugins: &'static [&'static str],
    /// host-local's `dataDir`.
    leases: String,
    /// The runtime's cache.
    results: String,
    env: Vec<(&'static str, String)>,
    /// The program that can tell what is there, if it is wharf.
    wharf: Option<PathBuf>,
}

impl Cni {
    /// The plugin's part of the list, as the runtime hands it over.
    fn config(&self, plugin: &str, ports: &[String]) -> Value {
        let mut config = match plugin {
            "wharf" | "bridge" => json!({
                "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": self.leases,
                    "ranges": [[{ "subnet": SUBNET, "gateway": GATEWAY.to_string() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }),
            "firewall" => json!({ "backend": "iptables" }),
            _ => json!({}),
        };
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!(BRIDGE);
        config["type"] = json!(plugin);
        if ["wharf", "portmap"].contains(&plugin) {
            let mappings: Vec<Value> = pairs(ports)
                .map(|(host, inside)| json!({ "hostPort": host, "containerPort": inside, "protocol": "tcp" }))
                .collect();
            config["capabilities"] = json!({ "portMappings": true });
            config["runtimeConfig"] = json!({ "portMappings": mappings });
        }
        config
    }

    fn plugin(&self, verb: &str, plugin: &str, container: &Container, ports: &[String]) -> Call {
        let mut env = vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", container.name.clone()),
            ("CNI_NETNS", container.netns.clone()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", self.path.display().to_string()),
        ];
        env.extend(self.env.iter().cloned());
        Call {
            program: self.path.join(plugin),
            env,
            stdin: Some(self.config(plugin, ports)),
            ..Call::default()
        }
    }

    /// All plugins' calls, the first with the others behind it.
    fn along(&self, verb: &str, container: &Container, ports: &[String]) -> Call {
        let calls = self
            .plugins
            .iter()
            .map(|plugin| self.plugin(verb, plugin, container, ports));
        let mut calls: Vec<Call> = calls.collect();
        if verb == "DEL" {
            calls.reverse();
        }
        let link = |behind: Option<Call>, call: Call| {
            Some(Call {
                next: behind.map(Box::new),
                ..call
            })
        };
        let first = calls.into_iter().rev().fold(None, link);
        first.expect("a list has a plugin")
    }

    fn result(&self, container: &Container) -> PathBuf {
        Path::new(&self.results).join(&container.name)
    }
}

impl Engine for Cni {
    fn label(&self) -> &'static str {
        self.label
    }

    fn network_add(&self) -> Call {
        // The first container makes the network.
        Call {
            program: "true".into(),
            ..Call::default()
        }
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        Call {
            keep: Some(self.result(container)),
            ..self.along("ADD", container, ports)
        }
    }

    fn attach_at(&self, container: &Container, ports: &[String]) -> Call {
        let mut call = self.attach(container, ports);
        if let Some(config) = &mut call.stdin {
            config["args"] = json!({ "cni": { "ips": [container.address.to_string()] } });
        }
        call
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        Call {
            previous: Some(self.result(container)),
            ..self.along("DEL", container, ports)
        }
    }

    /// Leases: a file each, named after the address, beside a lock and a hint.
    fn books(&self, host: &Host) -> Result<Vec<String>> {
        if let Some(program) = &self.wharf {
            return engines::wharf_ps(host, program, &self.env);
        }
        let mut leases = Vec::new();
        for entry in fs::read_dir(Path::new(&self.leases).join(BRIDGE))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "lock" && !name.starts_with("last_reserved_ip") {
                leases.push(name);
            }
        }
        Ok(leases)
    }
}
