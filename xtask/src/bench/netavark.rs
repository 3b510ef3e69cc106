//! Netavark's protocol, as Podman speaks it: wharf under that name, and Netavark itself.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::engines::{self, Arm, BRIDGE, Call, Engine};
use super::world::{Container, GATEWAY, Host, SUBNET};
use super::{Context, Result, cni};

const NETAVARK: &str = "/usr/lib/podman/netavark";
/// How Netavark itself is called in tables.
pub const REFERENCE_LABEL: &str = "netavark (Debian)";
/// How wharf is called in that role.
pub const WHARF_LABEL: &str = "wharf (netavark)";

/// wharf in Netavark's place on a new host; `None` without a binary.
pub fn wharf(context: &Context) -> Result<Option<Arm>> {
    let Some(program) = &context.wharf else {
        return Ok(None);
    };
    let host = context.world.host()?;
    let engine = Netavark {
        label: WHARF_LABEL,
        program: cni::helper(program, "netavark")?.join("netavark"),
        state: host.directory("netavark"),
        env: engines::wharf_env(context, &host)?,
        wharf: Some(program.clone()),
    };
    Ok(Some(Arm {
        engine: Box::new(engine),
        host,
    }))
}

/// Netavark itself on a new host; `None` where it is not installed.
pub fn reference(context: &Context) -> Result<Option<Arm>> {
    if !Path::new(NETAVARK).exists() {
        return Ok(None);
    }
    let host = context.world.host()?;
    let engine = Netavark {
        label: REFERENCE_LABEL,
        program: NETAVARK.into(),
        state: host.directory("netavark"),
        env: Vec::new(),
        wharf: None,
    };
    Ok(Some(Arm {
        engine: Box::new(engine),
        host,
    }))
}

/// `HOST:CONTAINER` as two numbers.
pub fn pairs(ports: &[String]) -> impl Iterator<Item = (u16, u16)> + '_ {
    ports.iter().filter_map(|spec| {
        let (host, container) = spec.split_once(':')?;
        Some((host.parse().ok()?, container.parse().ok()?))
    })
}

/// What Podman calls.
struct Netavark {
    label: &'static str,
    program: PathBuf,
    /// Where it keeps what it needs for reloading its rules.
    state: String,
    env: Vec<(&'static str, String)>,
    /// The program that can tell what is there, if it is wharf.
    wharf: Option<PathBuf>,
}

impl Netavark {
    fn call(&self, command: &str, container: &Container, ports: &[String]) -> Call {
        let mappings: Vec<Value> = pairs(ports)
            .map(|(host, inside)| {
                json!({
                    "host_ip": "", "host_port": host, "container_port": inside, "range": 1, "protocol": "tcp",
                })
            })
            .collect();
        let mut networks = Map::new();
        let address = container.address.to_string();
        networks.insert(
            BRIDGE.into(),
            json!({ "interface_name": "eth0", "static_ips": [address] }),
        );
        let stdin = json!({
            "container_id": container.name, "container_name": container.name,
            "networks": networks, "port_mappings": mappings,
            "network_info": { BRIDGE: {
                "name": BRIDGE, "id": "ab".repeat(32), "driver": "bridge", "network_interface": BRIDGE,
                "subnets": [{ "subnet": SUBNET, "gateway": GATEWAY.to_string() }],
                "ipv6_enabled": false, "internal": false, "dns_enabled": false,
                "ipam_options": { "driver": "host-local" },
            } },
        });
        let args = ["--config", &self.state, command, &container.netns]
            .map(str::to_owned)
            .to_vec();
        Call {
            program: self.program.clone(),
            args,
            env: self.env.clone(),
            stdin: Some(stdin),
            ..Call::default()
        }
    }
}

impl Engine for Netavark {
    fn label(&self) -> &'static str {
        self.label
    }

    fn network_add(&self) -> Call {
        Call {
            program: "mkdir".into(),
            args: vec!["-p".into(), self.state.clone()],
            ..Call::default()
        }
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        self.call("setup", container, ports)
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        self.call("teardown", container, ports)
    }

    fn books(&self, host: &Host) -> Result<Vec<String>> {
        match &self.wharf {
            Some(program) => engines::wharf_ps(host, program, &self.env),
            None => Ok(Vec::new()),
        }
    }
}
