//! The contestants: each turns "plug this container in" into the one process that does it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::world::{Container, GATEWAY, Host, PREFIX, SCRATCH, SUBNET};
use super::{Context, Result};

/// Name of the bridge, and of wharf's network.
pub const BRIDGE: &str = "br0";

/// One process to start.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Additions to its environment.
    pub env: Vec<(&'static str, String)>,
    /// Its standard input; with [`Call::next`], the next one gets this one's output as `prevResult`.
    pub stdin: Option<Value>,
    /// Where the output of the last process is kept.
    pub keep: Option<PathBuf>,
    /// A kept output, which all of the chain get as `prevResult` instead.
    pub previous: Option<PathBuf>,
    /// The process that completes the work: CNI is a chain of plugins.
    pub next: Option<Box<Call>>,
}

/// Something that can plug containers into a network.
pub trait Engine: Sync {
    /// Name in the tables.
    fn label(&self) -> &'static str;
    /// Makes the network; not timed.
    fn network_add(&self) -> Call;
    /// Removes the network and `containers`, as that engine does it best; nothing where that is not measured.
    fn network_del(&self, _: &[Container], _: &dyn Fn(usize) -> Vec<String>) -> Vec<Call> {
        Vec::new()
    }
    /// What has to be there before `container` can be plugged in with `ports`; not timed.
    fn prepare(&self, _: &Container, _: &[String]) -> Result<()> {
        Ok(())
    }
    /// The namespace of `container`: the bench's own, but for engines that make one themselves.
    fn netns(&self, container: &Container) -> Result<File> {
        Ok(container.open()?)
    }
    /// Plugs `container` in and publishes `ports`, each `HOST:CONTAINER` or `FIRST-LAST:FIRST-LAST`.
    fn attach(&self, container: &Container, ports: &[String]) -> Call;
    /// Publishes more `ports` of an attached container, if that engine can.
    fn publish(&self, _: &Container, _: &[String]) -> Option<Call> {
        None
    }
    /// Plugs `container` in at its own address.
    fn attach_at(&self, container: &Container, ports: &[String]) -> Call {
        self.attach(container, ports)
    }
    /// Takes it away.
    fn detach(&self, container: &Container, ports: &[String]) -> Call;
    /// What the engine's own books say of containers, one item a line; nothing where it keeps none.
    fn books(&self, _: &Host) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// An engine on a host of its own, so that the rules of one do not slow another.
pub struct Arm {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Its host.
    pub host: Host,
}

/// How the floor treats IPv6, and what its detach waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloorKind {
    /// IPv6 as the kernel sets it up; detach returns at the announcement.
    Plain,
    /// No link-local address at the host's end, IPv6 off in the container, as on wharf's IPv4 networks.
    Quiet,
    /// Like `Plain`, but detach waits for the kernel's answer.
    Waiting,
    /// Like `Quiet`, but without nf_tables: the plain bridge.
    BridgeOnly,
}

/// wharf on a new host; `None` without a binary.
pub fn wharf(context: &Context) -> Result<Option<Arm>> {
    let Some(program) = &context.wharf else {
        return Ok(None);
    };
    let host = context.world.host()?;
    let env = wharf_env(context, &host)?;
    Ok(Some(Arm {
        engine: Box::new(Wharf {
            program: program.clone(),
            env,
        }),
        host,
    }))
}

/// The environment that keeps wharf's state on `host` to itself.
pub fn wharf_env(context: &Context, host: &Host) -> Result<Vec<(&'static str, String)>> {
    let state = match &context.state_dir {
        Some(directory) => directory
            .join(format!("host{}", host.id))
            .display()
            .to_string(),
        None => host.directory("state"),
    };
    let run = host.directory("run");
    fs::create_dir_all(&state)?;
    fs::create_dir_all(&run)?;
    Ok(vec![("WHARF_STATE_DIR", state), ("WHARF_RUN_DIR", run)])
}

/// The names of the containers that wharf knows of, whoever made them.
pub fn wharf_ps(
    host: &Host,
    program: &Path,
    env: &[(&'static str, String)],
) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    command
        .args(["ps", "--all", "--json"])
        .envs(env.iter().map(|(key, value)| (key, value)));
    let text = super::world::output_of(host, &mut command)?;
    let list: Value = serde_json::from_str(&text)?;
    let names = list.as_array().into_iter().flatten();
    Ok(names.map(|item| item["name"].to_string()).collect())
}

/// The floor program on a new host.
pub fn floor(context: &Context, kind: FloorKind) -> Result<Arm> {
    let engine = Floor {
        program: context.floor.clone(),
        kind,
    };
    Ok(Arm {
        engine: Box::new(engine),
        host: context.world.host()?,
    })
}

/// The shell script on a new host; `None` without `ip` and `iptables`.
pub fn script(context: &Context) -> Result<Option<Arm>> {
    if !(installed("ip") && installed("iptables")) {
        eprintln!("bench: ip or iptables is not installed: measuring without the script");
        return Ok(None);
    }
    for (name, text) in [
        ("network.sh", include_str!("network.sh")),
        ("attach.sh", include_str!("attach.sh")),
        ("detach.sh", include_str!("detach.sh")),
    ] {
        fs::write(format!("{SCRATCH}/{name}"), text)?;
    }
    Ok(Some(Arm {
        engine: Box::new(Script),
        host: context.world.host()?,
    }))
}

/// Whether a program is on the PATH.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn call(program: &str, args: impl IntoIterator<Item = String>) -> Call {
    Call {
        program: program.into(),
        args: args.into_iter().collect(),
        ..Call::default()
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

/// The command line of the product.
struct Wharf {
    program: PathBuf,
    env: Vec<(&'static str, String)>,
}

impl Wharf {
    fn call(&self, args: impl IntoIterator<Item = String>) -> Call {
        Call {
            program: self.program.clone(),
            args: args.into_iter().collect(),
            env: self.env.clone(),
            ..Call::default()
        }
    }
}

impl Engine for Wharf {
    fn label(&self) -> &'static str {
        "wharf"
    }

    fn network_add(&self) -> Call {
        self.call(words(&format!(
            "network create {BRIDGE} --subnet {SUBNET} --gateway {GATEWAY} --bridge {BRIDGE}"
        )))
    }

    fn network_del(&self, containers: &[Container], _: &dyn Fn(usize) -> Vec<String>) -> Vec<Call> {
        let names = containers.iter().map(|container| container.name.clone());
        vec![
            self.call(words("rm -f").chain(names)),
            self.call(words(&format!("network rm {BRIDGE}"))),
        ]
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        let Container { name, netns, .. } = container;
        let create = format!("create {name} --netns {netns} --network {BRIDGE}");
        self.call(
            words(&create).chain(
                ports
                    .iter()
                    .flat_map(|port| ["-p".to_owned(), port.clone()]),
            ),
        )
    }

    fn publish(&self, container: &Container, ports: &[String]) -> Option<Call> {
        Some(self.call(words(&format!("port add {}", container.name)).chain(ports.iter().cloned())))
    }

    fn attach_at(&self, container: &Container, ports: &[String]) -> Call {
        let mut call = self.attach(container, ports);
        call.args
            .extend(words(&format!("--ip {}", container.address)));
        call
    }

    fn detach(&self, container: &Container, _: &[String]) -> Call {
        self.call(words(&format!("rm -f {}", container.name)))
    }

    fn books(&self, host: &Host) -> Result<Vec<String>> {
        wharf_ps(host, &self.program, &self.env)
    }
}

/// The floor program.
struct Floor {
    program: PathBuf,
    kind: FloorKind,
}

impl Floor {
    fn call(&self, words_before: &str, ports: &[String], flags: &str) -> Call {
        let args = words(words_before)
            .chain(ports.iter().cloned())
            .chain(words(flags))
            .collect();
        Call {
            program: self.program.clone(),
            args,
            ..Call::default()
        }
    }
}

impl Engine for Floor {
    fn label(&self) -> &'static str {
        match self.kind {
            FloorKind::Plain => "floor",
            FloorKind::Quiet => "floor, IPv6 quiet",
            FloorKind::Waiting => "floor, waiting",
            FloorKind::BridgeOnly => "plain bridge",
        }
    }

    fn network_add(&self) -> Call {
        let flags = if self.kind == FloorKind::BridgeOnly {
            "--no-nat"
        } else {
            ""
        };
        self.call(
            &format!("network-add {BRIDGE} {GATEWAY}/{PREFIX}"),
            &[],
            flags,
        )
    }

    fn network_del(&self, _: &[Container], _: &dyn Fn(usize) -> Vec<String>) -> Vec<Call> {
        vec![self.call(&format!("network-del {BRIDGE}"), &[], "")]
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        let Container {
            netns,
            host_if,
            address,
            ..
        } = container;
        let quiet = matches!(self.kind, FloorKind::Quiet | FloorKind::BridgeOnly);
        let flags = if quiet {
            "--addr-gen-none --no-ipv6-inside"
        } else {
            ""
        };
        let words = format!("attach {BRIDGE} {netns} {host_if} {address}/{PREFIX} {GATEWAY}");
        self.call(&words, ports, flags)
    }

    fn publish(&self, container: &Container, ports: &[String]) -> Option<Call> {
        Some(self.call(&format!("publish {}", container.address), ports, ""))
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        let flags = if self.kind == FloorKind::Waiting {
            "--wait"
        } else {
            "--announce"
        };
        self.call(&format!("detach {}", container.host_if), ports, flags)
    }
}

/// What a tutorial would have one type.
struct Script;

impl Engine for Script {
    fn label(&self) -> &'static str {
        "script (ip, iptables)"
    }

    fn network_add(&self) -> Call {
        call(
            "sh",
            words(&format!(
                "{SCRATCH}/network.sh {BRIDGE} {GATEWAY}/{PREFIX} {SUBNET}"
            )),
        )
    }

    fn network_del(
        &self,
        containers: &[Container],
        ports: &dyn Fn(usize) -> Vec<String>,
    ) -> Vec<Call> {
        let each = containers
            .iter()
            .enumerate()
            .map(|(n, container)| self.detach(container, &ports(n)));
        let bridge = [
            call("ip", words(&format!("link del {BRIDGE}"))),
            call("iptables", words("-F FORWARD")),
            call("iptables", words("-t nat -F POSTROUTING")),
        ];
        each.chain(bridge).collect()
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        let Container {
            name,
            host_if,
            address,
            ..
        } = container;
        let fixed =
            format!("{SCRATCH}/attach.sh {BRIDGE} {name} {host_if} {address} {PREFIX} {GATEWAY}");
        call("sh", words(&fixed).chain(ports.iter().cloned()))
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        let Container {
            host_if, address, ..
        } = container;
        let fixed = format!("{SCRATCH}/detach.sh {BRIDGE} {host_if} {address}");
        call("sh", words(&fixed).chain(ports.iter().cloned()))
    }
}
