//! dockerd on a host of its own, asked at its HTTP interface to connect running containers to a network and to
//! disconnect them, which publishes their ports and withdraws them.
//!
//! The daemon and its containers live in a PID namespace that ends with this process.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::engines::{Arm, BRIDGE, Call, Engine, installed};
use super::netavark::pairs;
use super::world::{CGROUPS, Container, GATEWAY, Host, SUBNET};
use super::{Context, Result};
use crate::{http, sys};

/// How it is called in tables.
pub const LABEL: &str = "dockerd (API)";
const IMAGE: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(60);
/// `$0` is the directory of the cgroups; what follows is the daemon.
const START: &str = r#"mount --rbind "$0" /sys/fs/cgroup && exec "$@""#;

/// How the host's own connections to published ports get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// As Docker comes: a process for each port.
    Userland,
    /// By rules only.
    None,
}

/// dockerd on a new host; `None` where it is not installed.
pub fn reference(context: &Context, proxy: Proxy) -> Result<Option<Arm>> {
    if !installed("dockerd") {
        return Ok(None);
    }
    let host = context.world.host()?;
    let daemon = Daemon::start(&host, proxy)?;
    daemon.import()?;
    let ask = context.floor.with_file_name("ask");
    Ok(Some(Arm {
        engine: Box::new(Docker { ask, daemon }),
        host,
    }))
}

struct Docker {
    ask: PathBuf,
    daemon: Daemon,
}

impl Docker {
    fn call(&self, path: &str, body: Value) -> Call {
        Call {
            program: self.ask.clone(),
            args: vec![
                self.daemon.socket.display().to_string(),
                "POST".to_owned(),
                path.to_owned(),
            ],
            stdin: Some(body),
            ..Call::default()
        }
    }
}

impl Engine for Docker {
    fn label(&self) -> &'static str {
        LABEL
    }

    fn network_add(&self) -> Call {
        let body = json!({
            "Name": BRIDGE, "Driver": "bridge",
            "IPAM": { "Config": [{ "Subnet": SUBNET, "Gateway": GATEWAY.to_string() }] },
            "Options": { "com.docker.network.bridge.name": BRIDGE },
        });
        self.call("/networks/create", body)
    }

    fn prepare(&self, container: &Container, ports: &[String]) -> Result<()> {
        let mut bound = Map::new();
        for (host, inside) in pairs(ports) {
            let all = bound.entry(format!("{inside}/tcp")).or_insert(json!([]));
            let all = all.as_array_mut().ok_or("made as an array above")?;
            all.push(json!({ "HostPort": host.to_string() }));
        }
        let exposed = bound.keys().map(|port| (port.clone(), json!({})));
        let body = json!({
            "Image": IMAGE, "Cmd": ["/bin/sleep", "infinity"],
            "ExposedPorts": exposed.collect::<Map<_, _>>(),
            "HostConfig": { "PortBindings": bound, "NetworkMode": BRIDGE, "CgroupParent": self.daemon.cgroup },
        });
        let name = &container.name;
        self.daemon
            .post(&format!("/containers/create?name={name}"), &body)?;
        // A body that nobody reads would break the connection when it is closed.
        self.daemon
            .ask("POST", &format!("/containers/{name}/start"))?;
        let leave = json!({ "Container": name });
        self.daemon
            .post(&format!("/networks/{BRIDGE}/disconnect"), &leave)
    }

    fn netns(&self, container: &Container) -> Result<File> {
        let path = format!("/containers/{}/json", container.name);
        let about: Value = serde_json::from_str(&self.daemon.ask("GET", &path)?)?;
        let key = about["NetworkSettings"]["SandboxKey"].as_str();
        let key = key.ok_or("dockerd does not tell where a namespace is")?;
        Ok(File::open(
            self.daemon.root()?.join(key.trim_start_matches('/')),
        )?)
    }

    fn attach(&self, container: &Container, _: &[String]) -> Call {
        let path = format!("/networks/{BRIDGE}/connect");
        self.call(&path, json!({ "Container": container.name }))
    }

    fn attach_at(&self, container: &Container, _: &[String]) -> Call {
        let path = format!("/networks/{BRIDGE}/connect");
        let at = json!({ "IPAMConfig": { "IPv4Address": container.address.to_string() } });
        self.call(
            &path,
            json!({ "Container": container.name, "EndpointConfig": at }),
        )
    }

    fn detach(&self, container: &Container, _: &[String]) -> Call {
        let path = format!("/networks/{BRIDGE}/disconnect");
        self.call(&path, json!({ "Container": container.name }))
    }
}

/// The daemon; it ends with this, and so do its containers.
struct Daemon {
    child: Child,
    socket: PathBuf,
    directory: PathBuf,
    /// Below the root of every hierarchy.
    cgroup: String,
}

impl Daemon {
    /// Returns when the daemon answers.
    fn start(host: &Host, proxy: Proxy) -> Result<Self> {
        let directory = PathBuf::from(host.directory("docker"));
        fs::create_dir_all(&directory)?;
        let within = |name: &str| directory.join(name).display().to_string();
        let log = File::create(within("log"))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid"])
            .args(["--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", START, CGROUPS, "dockerd", "--bridge=none"])
            .args(["--storage-driver", "vfs"])
            .arg(format!("--userland-proxy={}", proxy == Proxy::Userland))
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--data-root", &within("data")])
            .args(["--exec-root", &within("exec")])
            .args(["--pidfile", &within("pid")])
            .args(["--host", &format!("unix://{}", within("socket"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = sys::inside(host.netns.as_fd(), || command.spawn())??;
        let mut daemon = Self {
            child,
            socket: directory.join("socket"),
            directory,
            cgroup: format!("/wharf-bench-{}", std::process::id()),
        };
        let begun = Instant::now();
        while daemon.ask("GET", "/_ping").is_err() {
            if daemon.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("dockerd does not start: {}", daemon.last_words()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    fn ask(&self, method: &str, path: &str) -> Result<String> {
        let answer = http::ask(&self.socket, method, path, "text/plain", &[]);
        Ok(answer.map_err(|e| format!("dockerd: {method} {path}: {e}"))?)
    }

    fn post(&self, path: &str, body: &Value) -> Result<()> {
        let (kind, body) = ("application/json", body.to_string());
        let answer = http::ask(&self.socket, "POST", path, kind, body.as_bytes());
        answer.map_err(|e| format!("dockerd: POST {path}: {e}"))?;
        Ok(())
    }

    /// The first process of the daemon's PID namespace, as it is called out here.
    fn init(&self) -> Result<i32> {
        let child = self.child.id();
        let below = fs::read_to_string(format!("/proc/{child}/task/{child}/children"))?;
        let first = below.split_whitespace().next();
        Ok(first.ok_or("dockerd has ended")?.parse()?)
    }

    /// The daemon's view of the file system.
    fn root(&self) -> Result<PathBuf> {
        Ok(format!("/proc/{}/root", self.init()?).into())
    }

    /// An image of one program, with what it needs to start.
    fn import(&self) -> Result<()> {
        let program = "/bin/sleep";
        let listed = Command::new("ldd").arg(program).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let needed = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        let files = std::iter::once(program).chain(needed);
        let archive = Command::new("tar")
            .args(["--create", "--dereference", "--directory", "/"])
            .args(files.map(|file| file.trim_start_matches('/')))
            .output()?;
        if !archive.status.success() {
            return Err(format!("tar: {}", String::from_utf8_lossy(&archive.stderr)).into());
        }
        let path = format!("/images/create?fromSrc=-&repo={IMAGE}");
        http::ask(
            &self.socket,
            "POST",
            &path,
            "application/x-tar",
            &archive.stdout,
        )
        .map_err(|e| format!("dockerd: no image: {e}"))?;
        Ok(())
    }

    /// Ends the containers, so that their cgroups are empty.
    fn end_containers(&self) -> Result<()> {
        let all: Value = serde_json::from_str(&self.ask("GET", "/containers/json?all=1")?)?;
        let all = all.as_array().into_iter().flatten();
        for id in all.filter_map(|container| container["Id"].as_str()) {
            self.ask("DELETE", &format!("/containers/{id}?force=1"))?;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Whatever fails here, the processes end with their PID namespace.
        drop(self.end_containers());
        match self.init() {
            // All processes of its namespace end with the first, and `unshare` when that is waited for.
            Ok(init) => drop(sys::kill(init)),
            Err(_) => drop(self.child.kill()),
        }
        drop(self.child.wait());
        let parent = self.cgroup.trim_start_matches('/');
        let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
        let roots = hierarchies
            .map(|entry| entry.path())
            .chain([CGROUPS.into()]);
        roots.for_each(|root| remove_cgroups(&root.join(parent)));
    }
}

/// Removes a cgroup and those in it, where they are empty.
fn remove_cgroups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    drop(fs::remove_dir(group));
}
