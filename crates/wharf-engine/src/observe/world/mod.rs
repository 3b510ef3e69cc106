//! The whole way of a packet, read in one pass: what `wharf_core::trace` looks at.
//!
//! The host and the namespaces asked about are read fully, and so are those a veth pair joins to them, up to a limit;
//! of all others only links and addresses, since an address may be there twice. What cannot be read is said in
//! [`ObservedState::unread`] and is never an error of the whole.
//!
//! Not here: deciding anything (the core), and reading for changes (`crate::observe`).

mod addrs;
mod aside;
mod attrs;
mod find;
mod flows;
mod full;
mod ipsec;
mod links;
mod neighbours;
mod peers;
mod policy;
mod routes;
mod sockets;
mod spaces;
mod sysctls;
mod tc;
mod tc_filter;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use wharf_core::attach::Container;
use wharf_core::network::NetworkSpec;
use wharf_core::publish::{PortMapping, PortRange, Protocol};
use wharf_core::trace::L4;
use wharf_core::trace::report::Owner;
use wharf_core::trace::state::{HOST, ObservedState, Space, SpaceId, Unread};

use crate::kernel::netlink::socket::Rt;
use crate::process::netns;
use aside::Aside;
use spaces::Known;

pub use find::{Endpoint, FindError, find, path, source, target};

/// The most namespaces that are read fully because they lie beside one that is.
const BESIDE: usize = 16;
/// The most that are read fully because packets may be routed through them.
const MOST_FULL: usize = 64;
/// How often a list is read that changes meanwhile.
const ATTEMPTS: usize = 2;

/// A namespace that must be read fully.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// As reports are to name it.
    pub name: String,
    /// Where it is: `/run/netns/NAME`, `/proc/PID/ns/net`, `/proc/self/fd/N`.
    pub path: PathBuf,
}

/// What is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Read fully besides the host.
    pub wanted: Vec<Wanted>,
    /// Addresses in question: tracked connections with them are read, and who owns one is read fully.
    pub addrs: Vec<IpAddr>,
    /// Read all containers fully, and all tracked connections of the host while these are few.
    pub all: bool,
    /// Look for namespaces that have no name, but processes.
    pub processes: bool,
    /// The networks wharf knows.
    pub networks: Vec<NetworkSpec>,
    /// The containers wharf knows.
    pub containers: Vec<Container>,
}

impl Ask {
    /// Adds the containers that publish a port of the host.
    pub fn about_port(&mut self, protocol: L4, port: u16) {
        let asked = PortRange::new(port, port);
        let serves = |mapping: &PortMapping| {
            let protocol = match mapping.protocol {
                Protocol::Tcp => protocol == L4::Tcp,
                Protocol::Udp => protocol == L4::Udp,
                Protocol::Sctp => false,
            };
            protocol && asked.is_some_and(|port| mapping.host.overlaps(port))
        };
        for container in self
            .containers
            .iter()
            .filter(|c| c.ports.iter().any(serves))
        {
            self.wanted.push(Wanted {
                name: container.name.to_string(),
                path: container.netns.path.clone(),
            });
        }
    }

    /// Asks for everything: the whole host, and every container.
    #[must_use]
    pub fn about_all(mut self) -> Self {
        let all = self.containers.iter().map(|container| Wanted {
            name: container.name.to_string(),
            path: container.netns.path.clone(),
        });
        self.wanted.extend(all);
        self.all = true;
        self
    }

    /// Adds an end of the question.
    pub fn about(&mut self, end: &Endpoint) {
        match end {
            Endpoint::Space { name, path } => self.wanted.push(Wanted {
                name: name.clone(),
                path: path.clone(),
            }),
            Endpoint::Address(addr) | Endpoint::Outside(Some(addr)) => self.addrs.push(*addr),
            Endpoint::Host | Endpoint::Outside(None) => {}
        }
    }
}

/// Reads what was asked for, from the namespace of the calling thread, which is the host's.
#[must_use]
pub fn world(ask: &Ask) -> ObservedState {
    // Half of the time goes into the host's packet rules and tracked connections.
    let rules = Aside::begin(full::dump);
    let mut unread = Vec::new();
    let mut known = spaces::known(ask, &mut unread);
    for one in &mut known {
        if let Err(error) = look(one, &mut unread) {
            unread.push(self::unread(&one.space.name, "links and addresses", error));
        }
    }
    peers::resolve(&mut known);
    let mut chosen = choose(&known, ask);
    let flows = match ask.all {
        true => flows::Wanted::All,
        false => flows::Wanted::Of(concerned(&known, ask)),
    };
    let of_host = flows.clone();
    let tracked = Aside::begin(move || flows::read(&of_host));
    let flows = if ask.all {
        flows::Wanted::Nothing
    } else {
        flows
    };
    let mut fresh = chosen.clone();
    while let Some(at) = fresh.pop_first() {
        full::read(&mut known[at], &mut unread);
        if at != HOST {
            full::rules_and_flows(&mut known[at], &flows, &mut unread);
        }
        for router in routers(&known, at) {
            if chosen.len() < MOST_FULL && chosen.insert(router) {
                fresh.insert(router);
            }
        }
    }
    full::take(&mut known[HOST], tracked.end(), rules.end(), &mut unread);
    let spaces: Vec<Space> = known.into_iter().map(finish).collect();
    ObservedState {
        tools: tools(&spaces[HOST]),
        programs: programs(),
        spaces,
        networks: ask.networks.clone(),
        containers: ask.containers.clone(),
        unread,
    }
}

/// Links and addresses of a namespace.
fn look(one: &mut Known, unread: &mut Vec<Unread>) -> io::Result<()> {
    let mut rt = {
        let _guard = one.enter()?;
        Rt::open()?
    };
    let name = &one.space.name;
    one.rows = list(&mut rt, links::GET, &links::question(), links::read)
        .unwrap_or_note(name, "links", unread);
    one.space.addrs = list(&mut rt, addrs::GET, &[0; addrs::HEADER], addrs::read).unwrap_or_note(
        name,
        "addresses",
        unread,
    );
    one.rt = Some(rt);
    Ok(())
}

/// Moves the links to where they belong.
fn finish(one: Known) -> Space {
    let mut space = one.space;
    for row in one.rows {
        if space.full {
            space.sysctls.extend(row.sysctls);
        }
        space.links.push(row.link);
    }
    space
}

/// Which are read fully.
fn choose(known: &[Known], ask: &Ask) -> BTreeSet<SpaceId> {
    let mut chosen = BTreeSet::from([HOST]);
    for wanted in &ask.wanted {
        let inode = netns::netns_inode(&wanted.path).ok();
        chosen.extend(known.iter().position(|k| Some(k.space.inode) == inode));
    }
    let owns = |k: &Known| {
        let mut own = k.space.addrs.iter().map(|a| a.net.addr());
        own.any(|a| ask.addrs.contains(&a))
    };
    chosen.extend((0..known.len()).filter(|at| owns(&known[*at])));
    let mut left = BESIDE;
    let mut fresh: Vec<SpaceId> = chosen.iter().copied().collect();
    while let Some(at) = fresh.pop() {
        // A link with addresses of its own is rather on the way than a port of a bridge.
        let mut rows: Vec<_> = known[at].rows.iter().collect();
        rows.sort_by_key(|row| row.link.master.is_some());
        for place in rows.iter().filter_map(|row| row.link.peer) {
            let other = &known[place.space].space;
            if left == 0 || other.container.is_some() || !chosen.insert(place.space) {
                continue;
            }
            left -= 1;
            fresh.insert(0, place.space);
        }
    }
    chosen
}

/// The namespaces that are gateways of one that was read.
fn routers(known: &[Known], at: SpaceId) -> Vec<SpaceId> {
    let routes = known[at].space.routes.iter();
    let ways: BTreeSet<IpAddr> = routes
        .flat_map(|route| route.hops.iter().filter_map(|hop| hop.via))
        .filter(|via| !matches!(via, IpAddr::V6(six) if six.is_unicast_link_local()))
        .collect();
    let owns = |k: &Known| k.space.addrs.iter().any(|a| ways.contains(&a.net.addr()));
    let all = known.iter().enumerate();
    all.filter(|(_, k)| owns(k)).map(|(id, _)| id).collect()
}

/// The addresses whose connections are of interest: those asked for, and those of the namespaces asked about.
fn concerned(known: &[Known], ask: &Ask) -> Vec<IpAddr> {
    let mut addrs: BTreeSet<IpAddr> = ask.addrs.iter().copied().collect();
    for wanted in &ask.wanted {
        let inode = netns::netns_inode(&wanted.path).ok();
        let spaces = known.iter().filter(|k| Some(k.space.inode) == inode);
        let own = spaces.flat_map(|k| k.space.addrs.iter().map(|a| a.net.addr()));
        addrs.extend(own.filter(|a| !a.is_loopback()));
    }
    addrs.into_iter().collect()
}

/// Other tools, by the chains and links they make.
fn tools(host: &Space) -> Vec<Owner> {
    let chains = host.ruleset.chains.iter().map(|c| c.owner);
    let mut tools: BTreeSet<Owner> = chains
        .filter(|o| !matches!(o, Owner::Wharf | Owner::User | Owner::Kernel))
        .collect();
    for link in &host.links {
        let name = link.name.as_str();
        let owner = match () {
            () if name == "docker0" || name == "docker_gwbridge" => Owner::Docker,
            () if name.starts_with("virbr") => Owner::Libvirt,
            () if name.starts_with("podman") => Owner::Podman,
            () if ["cni0", "flannel.1", "kube-ipvs0", "cilium_host"].contains(&name)
                || name.starts_with("cali") =>
            {
                Owner::Kubernetes
            }
            () => continue,
        };
        tools.insert(owner);
    }
    tools.into_iter().collect()
}

/// Programs that advice may name, as far as they are in charge: chains in a tool's shape may be somebody else's work,
/// and what is installed may be switched off.
fn programs() -> Vec<&'static str> {
    let ufw = std::fs::read_to_string("/etc/ufw/ufw.conf");
    let ufw = ufw.is_ok_and(|text| text.lines().any(|line| line.trim() == "ENABLED=yes"));
    // Its service keeps no pid file; the directory is there from its first start on.
    let firewalld = ["/run/firewalld.pid", "/run/firewalld"];
    let firewalld = firewalld.iter().any(|path| Path::new(path).exists());
    let all = [("ufw", ufw), ("firewall-cmd", firewalld)];
    let in_charge = all.into_iter().filter(|(_, is)| *is);
    in_charge.map(|(name, _)| name).collect()
}

/// A note of what could not be read.
fn unread(netns: &str, what: &str, why: impl Display) -> Unread {
    Unread {
        netns: netns.to_owned(),
        what: what.to_owned(),
        why: why.to_string(),
    }
}

/// A list, and whether it changed while it was read.
struct List<T> {
    items: Vec<T>,
    torn: bool,
}

/// Reads a list; once more if it changed meanwhile.
fn list<T>(
    rt: &mut Rt,
    kind: u16,
    question: &[u8],
    mut read: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<List<T>> {
    let mut list = List {
        items: Vec::new(),
        torn: true,
    };
    for _ in 0..ATTEMPTS {
        list.items.clear();
        list.torn = rt.dump_raw(kind, question, |_, body| list.items.extend(read(body)))?;
        if !list.torn {
            break;
        }
    }
    Ok(list)
}

/// What could be read, with a note of what could not.
trait OrNote<T> {
    fn unwrap_or_note(self, netns: &str, what: &str, unread: &mut Vec<Unread>) -> Vec<T>;
}

impl<T> OrNote<T> for io::Result<List<T>> {
    fn unwrap_or_note(self, netns: &str, what: &str, notes: &mut Vec<Unread>) -> Vec<T> {
        match self {
            Ok(list) => {
                if list.torn {
                    let why = "they changed while they were read, twice";
                    notes.push(unread(netns, what, why));
                }
                list.items
            }
            Err(error) => {
                notes.push(unread(netns, what, error));
                Vec::new()
            }
        }
    }
}
