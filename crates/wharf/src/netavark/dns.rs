//! The name server: files that say who has which name, and the program that reads them.
//!
//! One file per network with a container on it: the addresses to listen on, then a line per container. The program
//! reads all of them again at SIGHUP, and ends by itself when none is left.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf_engine::engine::Engine;

use super::error::Failure;
use super::input::{Input, Network};
use super::setup::Wanted;
use super::status::Status;
use super::{Call, log};

/// The port of name servers.
pub const DNS: u16 = 53;
/// Where names of containers are found.
pub const SEARCH_DOMAIN: &str = "dns.podman";
/// Behind the name of an internal network's file: the program then forwards nothing.
const INTERNAL: &str = "%int";

/// The lists of a call: which networks have a name server, and what is written for it.
#[derive(Default)]
pub struct Servers {
    networks: BTreeMap<String, Entry>,
    given: Vec<IpAddr>,
}

struct Entry {
    file: String,
    listen: Vec<IpAddr>,
    upstream: Vec<IpAddr>,
    names: Vec<String>,
}

fn file_name(network: &Network) -> String {
    let suffix = if network.internal { INTERNAL } else { "" };
    format!("{}{suffix}", network.name)
}

/// The name server's program, if there is one and the network asks for names.
fn program<'c>(call: &'c Call, network: &Network) -> Option<&'c Path> {
    let served = network.dns_enabled && network.driver == "bridge" && network.ipam() != "none";
    let program = call.aardvark.as_deref().filter(|_| served)?;
    // As Netavark: what is there and no program is an error when it is started.
    program.exists().then_some(program)
}

/// Which of the networks have a name server.
pub fn servers(
    call: &Call,
    wanted: &[Wanted],
    input: &Input,
    engine: &mut Engine,
) -> Result<Servers, Failure> {
    let mut networks = BTreeMap::new();
    for w in wanted
        .iter()
        .filter(|w| program(call, &w.network).is_some())
    {
        let listen = listens_at(&w.network, engine)?;
        if let Some(loops) = input
            .dns_servers
            .iter()
            .flatten()
            .find(|ip| listen.contains(ip))
        {
            return Err(Failure::new(format!(
                "network {}: DNS server {loops} is its gateway, which would cause aardvark-dns to forward queries to itself",
                w.network.name
            )));
        }
        let usable = |name: &String| !name.is_empty() && !name.contains([' ', ',', '\n']);
        let odd = w.options.aliases.iter().flatten();
        for name in odd.filter(|n| !n.is_empty() && !usable(n)) {
            let text = format!("invalid network alias {name:?}: it is not served");
            log::say(log::Level::Warn, &text);
        }
        let aliases = w.options.aliases.iter().flatten();
        let names = std::iter::once(&input.container_name)
            .chain(aliases)
            .filter(|n| usable(n));
        let entry = Entry {
            file: file_name(&w.network),
            listen,
            upstream: w.network.network_dns_servers.clone().unwrap_or_default(),
            names: names.cloned().collect(),
        };
        networks.insert(w.network.name.clone(), entry);
    }
    Ok(Servers {
        networks,
        given: input.dns_servers.clone().unwrap_or_default(),
    })
}

/// The gateways; on somebody else's bridge what addresses it has, since the gateway may be another machine.
fn listens_at(network: &Network, engine: &mut Engine) -> Result<Vec<IpAddr>, Failure> {
    if network.option("mode") != Some("unmanaged") {
        let subnets = network.subnets.iter().flatten();
        return Ok(subnets.filter_map(|s| s.gateway).collect());
    }
    let bridge = network.network_interface.as_deref().unwrap_or_default();
    let found = match bridge.parse() {
        Ok(name) => engine.host_addresses(&name)?,
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return Err(Failure::new(format!(
            "bridge '{bridge}' in unmanaged mode has no usable IP addresses. Aardvark-dns requires at least one address (should not be an IPv6 link-local address) to bind to. Please add an IP address or disable DNS for this network (--disable-dns)."
        )));
    }
    Ok(found)
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(",")
}

impl Servers {
    /// Where a network's containers ask for names, and whether they find each other.
    pub fn for_network(&self, name: &str) -> (Vec<IpAddr>, bool) {
        match self.networks.get(name) {
            Some(entry) => (entry.listen.clone(), true),
            None => (self.given.clone(), false),
        }
    }

    /// Writes the container's names, and sees to it that the program knows them.
    pub fn add(
        &self,
        call: &Call,
        input: &Input,
        answers: &BTreeMap<&str, Status>,
    ) -> Result<(), Failure> {
        if self.networks.is_empty() {
            return Ok(());
        }
        let files = Files::lock(call)?;
        if files.is_empty() {
            files.await_end(call);
        }
        for (name, entry) in &self.networks {
            let Some(status) = answers.get(name.as_str()) else {
                continue;
            };
            let addresses = status.interfaces.values().flat_map(|i| &i.subnets);
            let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
                addresses.map(|a| a.ipnet.addr()).partition(IpAddr::is_ipv4);
            let mut line = format!(
                "{} {} {} {}",
                input.container_id,
                list(v4),
                list(v6),
                list(&entry.names)
            );
            if !self.given.is_empty() {
                line += &format!(" {}", list(&self.given));
            }
            files.add(entry, &input.container_id, &line)?;
        }
        files.notify(call)
    }
}

/// Takes the container's names out of the files of its networks.
pub fn remove(call: &Call, input: &Input, wanted: &[Wanted]) -> Result<(), Failure> {
    let served: Vec<_> = wanted
        .iter()
        .filter(|w| w.network.dns_enabled && w.network.driver == "bridge")
        .collect();
    let there = call
        .config
        .as_ref()
        .is_some_and(|dir| dir.join("aardvark-dns").is_dir());
    if served.is_empty() || !there {
        return Ok(());
    }
    let files = Files::lock(call)?;
    let mut changed = false;
    for w in served {
        // As other versions name it, too.
        for file in [
            w.network.name.clone(),
            format!("{}{INTERNAL}", w.network.name),
        ] {
            changed |= files.remove(&file, &input.container_id)?;
        }
    }
    if changed { files.notify(call) } else { Ok(()) }
}

/// Changes the name servers in a network's file.
pub fn update(call: &Call, network: &str, servers: Option<&str>) -> Result<(), Failure> {
    let Some(servers) = servers else {
        return Ok(());
    };
    // Without the file nobody is asked for this network's names.
    let nothing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let texts = servers.split(',').map(str::trim).filter(|s| !s.is_empty());
    let parsed: Result<Vec<IpAddr>, _> = texts
        .map(|text| {
            text.parse()
                .map_err(|_| Failure::new(format!("unable to parse ip {text}")))
        })
        .collect();
    let parsed = parsed?;
    let files = Files::lock(call)?;
    let what = "unable to modify network dns servers";
    let found = [network.to_owned(), format!("{network}{INTERNAL}")]
        .into_iter()
        .map(|name| files.dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| files.dir.join(network));
    let text = match fs::read_to_string(&found) {
        Err(e) if nothing(&e) => return Ok(()),
        read => read.map_err(|e| Failure::new(format!("{what}: IO error: {e}")))?,
    };
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let listen = first.split(' ').next().unwrap_or_default();
    files.write(&found, &first_line(listen, &parsed), rest)?;
    files.notify(call)
}

fn first_line(listen: &str, upstream: &[IpAddr]) -> String {
    match upstream {
        [] => listen.to_owned(),
        _ => format!("{listen} {}", list(upstream)),
    }
}

/// The files, while nobody else changes them.
struct Files {
    dir: PathBuf,
    _lock: File,
}

impl Files {
    fn lock(call: &Call) -> Result<Self, Failure> {
        let config = call.config()?;
        let dir = config.join("aardvark-dns");
        let failed = |e: io::Error| Failure::new(format!("aardvark-dns: {}: {e}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(config.join("aardvark.lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { dir, _lock: lock })
    }

    /// A file is there whole or not at all: the program may read at any moment.
    fn write(&self, path: &Path, first: &str, rest: &str) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("aardvark-dns: {}: {e}", path.display()));
        // Beside the directory, of which the program takes every file for a network.
        let new = self.dir.with_extension("new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(format!("{first}\n{rest}").as_bytes())
            .map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    }

    fn add(&self, entry: &Entry, id: &str, line: &str) -> Result<(), Failure> {
        let path = self.dir.join(&entry.file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let others: String = lines_of_others(&text, id).collect();
        let first = first_line(&list(&entry.listen), &entry.upstream);
        // The servers of a running network may have been changed since.
        let first = text
            .lines()
            .next()
            .filter(|_| !others.is_empty())
            .unwrap_or(&first);
        self.write(&path, first, &format!("{others}{line}\n"))
    }

    fn remove(&self, file: &str, id: &str) -> Result<bool, Failure> {
        let path = self.dir.join(file);
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(false);
        };
        let others: String = lines_of_others(&text, id).collect();
        let first = text.lines().next().unwrap_or_default();
        if others.is_empty() {
            let failed =
                |e: io::Error| Failure::new(format!("aardvark-dns: {}: {e}", path.display()));
            fs::remove_file(&path).map_err(failed)?;
        } else {
            self.write(&path, first, &others)?;
        }
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.into_iter().all(|e| e.file_name() == "aardvark.pid")
    }

    /// The number of the program's process, if it runs.
    fn server(&self, call: &Call) -> Option<i32> {
        let text = fs::read_to_string(self.dir.join("aardvark.pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        is_server(call, pid).then_some(pid)
    }

    /// Without files the program is about to end, and would not read new ones.
    fn await_end(&self, call: &Call) {
        const ROUNDS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(5);
        for _ in 0..ROUNDS {
            if self.server(call).is_none() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Tells the program to read again; starts it where it does not run.
    fn notify(&self, call: &Call) -> Result<(), Failure> {
        if let Some(pid) = self.server(call)
            && wharf_engine::process::hang_up(pid)
        {
            return Ok(());
        }
        if self.is_empty() {
            return Ok(());
        }
        match call.aardvark.as_deref().filter(|path| path.exists()) {
            Some(program) => self.start(call, program),
            None => Ok(()),
        }
    }

    /// The program returns when it listens; it goes on in the background.
    fn start(&self, call: &Call, program: &Path) -> Result<(), Failure> {
        let mut command = match systemd_run() {
            Some(systemd) => {
                let mut command = Command::new(systemd);
                command.args(["-q", "--scope"]);
                if call.rootless {
                    command.arg("--user");
                }
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let port = port().to_string();
        let status = command
            .arg("--config")
            .arg(&self.dir)
            .args(["-p", &port, "run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let failed = |text: String| {
            Failure::new(format!(
                "error while applying dns entries: aardvark-dns failed to start: {text}"
            ))
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("{} ended with {status}", program.display()))),
            Err(error) => Err(failed(format!("{}: {error}", program.display()))),
        }
    }
}

/// Where Podman wants the name server to listen.
pub fn port() -> u16 {
    let given = std::env::var("NETAVARK_DNS_PORT").ok();
    let given = given.and_then(|text| text.parse().ok());
    given.filter(|port| *port != 0).unwrap_or(DNS)
}

/// The number in the file may be another program's by now, or a dead one's that nobody has waited for.
fn is_server(call: &Call, pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `PID (NAME) STATE …`
    let parts = stat
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(") "));
    let Some((name, _)) = parts.filter(|(_, state)| !state.starts_with(['Z', 'X'])) else {
        return false;
    };
    let given = call.aardvark.as_deref().and_then(Path::file_name);
    let given = given.map(|n| n.to_string_lossy().chars().take(15).collect::<String>());
    name == "aardvark-dns" || given.is_some_and(|given| given == name)
}

/// On a host run by systemd the server gets a scope of its own, else it would end with the service that asked.
fn systemd_run() -> Option<PathBuf> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("systemd-run"))
        .find(|program| program.is_file())
}

/// The lines of the other containers.
fn lines_of_others<'t>(text: &'t str, id: &'t str) -> impl Iterator<Item = String> + 't {
    text.lines()
        .skip(1)
        .filter(move |line| line.split(' ').next() != Some(id) && !line.is_empty())
        .map(|line| format!("{line}\n"))
}
