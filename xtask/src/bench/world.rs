//! The bench's own namespaces: a private place, hosts in it with an outside each, and containers.
//!
//! All of it hangs on this process: when it ends, however it ends, the mount namespace goes, with it the
//! last references to the network namespaces, and with those every link and rule.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Result;
use crate::netlink::{Batch, Socket};
use crate::{rt, sys};

/// Scratch directory of the bench, on its own tmpfs.
pub const SCRATCH: &str = "/run/bench";
/// The machine's cgroups, which a new `/sys` hides.
pub const CGROUPS: &str = "/run/bench/cgroup";
/// Where named namespaces are, for `ip -n`.
const NETNS: &str = "/run/netns";

/// The subnet of the network under test, on every host.
pub const SUBNET: &str = "10.100.0.0/16";
/// Length of its prefix.
pub const PREFIX: u8 = 16;
/// Its gateway: the bridge's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// The host's own address, as the outside sees it.
pub const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// An address beyond the uplink.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LOOPBACK: u32 = 1;

/// Proof that this process is in namespaces of its own.
pub struct World {
    hosts: AtomicU32,
}

/// A host: a namespace with an uplink to an outside of its own.
pub struct Host {
    /// Its number; part of the names of what belongs to it.
    pub id: u32,
    /// The namespace in which the engine works.
    pub netns: File,
    /// The namespace beyond the uplink.
    pub outside: File,
}

/// A container: a named namespace, empty but for `lo`.
pub struct Container {
    /// Name, unique among all hosts; the namespace has it too.
    pub name: String,
    /// File of the namespace.
    pub netns: String,
    /// The host's end of the veth pair, for engines that do not choose it themselves.
    pub host_if: String,
    /// Address, likewise.
    pub address: Ipv4Addr,
}

impl World {
    /// Moves this process into new namespaces with its own `/run`.
    pub fn enter() -> io::Result<Self> {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        sys::unshare(true)?;
        sys::mount("none", "/", "none", private)?;
        sys::mount("run", "/run", "tmpfs", 0)?;
        fs::create_dir(NETNS)?;
        fs::create_dir_all(CGROUPS)?;
        // Only dockerd needs them.
        drop(sys::mount(
            "/sys/fs/cgroup",
            CGROUPS,
            "none",
            libc::MS_BIND | libc::MS_REC,
        ));
        // What /sys shows of the network belongs to the namespace that mounted it. Not vital.
        drop(sys::mount("sysfs", "/sys", "sysfs", 0));
        sys::adopt_orphans()?;
        Ok(Self {
            hosts: AtomicU32::new(0),
        })
    }

    /// A new host, with forwarding off and no network yet.
    pub fn host(&self) -> io::Result<Host> {
        let id = self.hosts.fetch_add(1, Ordering::Relaxed);
        let (netns, outside) = (
            named_netns(&format!("host{id}"))?,
            named_netns(&format!("outside{id}"))?,
        );
        sys::inside(netns.as_fd(), || uplink(&outside))??;
        sys::inside(outside.as_fd(), || configure("eth0", OUTSIDE))??;
        Ok(Host { id, netns, outside })
    }
}

impl Host {
    /// The namespaces of containers `first` to `end` - 1 of this host.
    pub fn containers(&self, first: u32, end: u32) -> io::Result<Vec<Container>> {
        (first..end).map(|number| self.container(number)).collect()
    }

    /// The namespace of container `number`.
    pub fn container(&self, number: u32) -> io::Result<Container> {
        let name = format!("h{}c{number}", self.id);
        named_netns(&name)?;
        let first_address = u32::from(GATEWAY) + 255;
        Ok(Container {
            netns: format!("{NETNS}/{name}"),
            host_if: format!("v{number}"),
            address: Ipv4Addr::from(first_address + number),
            name,
        })
    }

    /// A directory of this host's own, for an engine's state.
    pub fn directory(&self, kind: &str) -> String {
        format!("{SCRATCH}/host{}/{kind}", self.id)
    }
}

/// What a program prints that is run on `host`; its failure is an error with what it said.
pub fn output_of(host: &Host, command: &mut Command) -> Result<String> {
    let output = sys::inside(host.netns.as_fd(), || command.output())??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let program = command.get_program().display();
        return Err(format!("`{program}` failed ({}): {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Container {
    /// Opens the namespace.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.netns)
    }
}

/// `ip netns add NAME`
fn named_netns(name: &str) -> io::Result<File> {
    let home = sys::current_netns()?;
    let path = format!("{NETNS}/{name}");
    File::create(&path)?;
    sys::unshare(false)?;
    let bound = sys::mount("/proc/thread-self/ns/net", &path, "none", libc::MS_BIND);
    sys::enter(home.as_fd())?;
    bound?;
    File::open(&path)
}

/// A veth pair from the current namespace to `outside`, with the host's address.
fn uplink(outside: &File) -> io::Result<()> {
    let mut batch = Batch::new();
    let veth = rt::Veth {
        name: "up0",
        master: None,
        group: 0,
        peer: "eth0",
        peer_netns: outside.as_fd(),
    };
    rt::veth_add(&mut batch, &veth);
    Socket::route()?.request(&batch)?;
    configure("up0", UPLINK)?;
    let mut batch = Batch::new();
    rt::default_route_add(&mut batch, sys::link_index("up0")?, OUTSIDE);
    Socket::route()?.request(&batch)
}

fn configure(link: &str, address: Ipv4Addr) -> io::Result<()> {
    let index = sys::link_index(link)?;
    let mut batch = Batch::new();
    rt::link_up(&mut batch, LOOPBACK);
    rt::link_up(&mut batch, index);
    rt::addr_add(&mut batch, index, address, 24);
    Socket::route()?.request(&batch)
}
