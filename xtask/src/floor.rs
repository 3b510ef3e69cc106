//! The floor: what plugging in one container costs when nothing is done but the needed netlink messages.
//!
//! No state, no locks, no checks, no guards, no undo. It is a yardstick, not a tool.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use crate::netlink::{Batch, Socket};
use crate::nft::{self, Publish};
use crate::{rt, sys};

/// The step that failed, and why.
#[derive(Debug)]
pub struct FloorError {
    step: &'static str,
    source: io::Error,
}

impl std::fmt::Display for FloorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.source)
    }
}

impl std::error::Error for FloorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

type Result<T, E = FloorError> = std::result::Result<T, E>;

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T> {
        self.map_err(|source| FloorError { step, source })
    }
}

/// One address with the length of its network's prefix.
#[derive(Clone, Copy, Debug)]
pub struct Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// How a container is plugged in.
pub struct Attach<'a> {
    /// The bridge.
    pub bridge: &'a str,
    /// File of the container's namespace.
    pub netns: &'a str,
    /// Name of the host's end.
    pub host_if: &'a str,
    /// Address of the container's `eth0`.
    pub address: Cidr,
    /// Default gateway.
    pub gateway: Ipv4Addr,
    /// Published ports.
    pub ports: &'a [Publish],
    /// No IPv6 link-local address at the host's end.
    pub addr_gen_none: bool,
    /// IPv6 off in the container.
    pub no_ipv6_inside: bool,
}

/// What `detach` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The kernel's answer, which comes after an RCU barrier.
    Answered,
    /// The announcement that the link is gone; a child waits for the answer.
    Announced,
}

/// `network-add`: bridge, gateway address, forwarding, and the nf_tables table if `nat`.
pub fn network_add(bridge: &str, gateway: Cidr, nat: bool) -> Result<()> {
    let route = Socket::route().step("open rtnetlink")?;
    let [a, b, c, d] = gateway.address.octets();
    let mut batch = Batch::new();
    rt::bridge_add(&mut batch, bridge, [0x02, 0x42, a, b, c, d]);
    route.request(&batch).step("make the bridge")?;

    let index = sys::link_index(bridge).step("find the bridge")?;
    let mut batch = Batch::new();
    rt::link_group(&mut batch, index, index);
    rt::addr_add(&mut batch, index, gateway.address, gateway.prefix);
    route.request(&batch).step("set up the bridge")?;

    fs::write("/proc/sys/net/ipv4/ip_forward", "1").step("turn forwarding on")?;
    if nat {
        let netfilter = Socket::netfilter().step("open nfnetlink")?;
        let table =
            nft::transaction(|b| nft::table_add(b, bridge, gateway.address, gateway.prefix));
        netfilter.request(&table).step("load the table")?;
    }
    Ok(())
}

/// `network-del`: bridge and containers in one group deletion, and the table.
pub fn network_del(bridge: &str) -> Result<()> {
    let route = Socket::route().step("open rtnetlink")?;
    let netfilter = Socket::netfilter().step("open nfnetlink")?;
    let index = sys::link_index(bridge).step("find the bridge")?;
    netfilter
        .request(&nft::transaction(nft::table_del))
        .step("delete the table")?;
    let mut batch = Batch::new();
    rt::link_del_group(&mut batch, index);
    route.request(&batch).step("delete the links")
}

/// `attach`: three sends. The sockets stay open until the end, so that no close delays the work.
pub fn attach(wish: &Attach<'_>) -> Result<()> {
    let route = Socket::route().step("open rtnetlink")?;
    let netfilter = match wish.ports {
        [] => None,
        _ => Some(Socket::netfilter().step("open nfnetlink")?),
    };
    let netns = File::open(wish.netns).step("open the container's namespace")?;
    let bridge = sys::link_index(wish.bridge).step("find the bridge")?;

    let mut batch = Batch::new();
    let veth = rt::Veth {
        name: wish.host_if,
        master: Some(bridge),
        group: bridge,
        peer: "eth0",
        peer_netns: netns.as_fd(),
    };
    rt::veth_add(&mut batch, &veth);
    if wish.addr_gen_none {
        rt::addr_gen_none(&mut batch, wish.host_if);
    }
    route.request(&batch).step("make the veth pair")?;
    sys::inside(netns.as_fd(), || container_side(wish))
        .step("enter the container's namespace")??;
    if let Some(netfilter) = netfilter {
        let publish = nft::transaction(|b| nft::elements_add(b, wish.ports, wish.address.address));
        netfilter.allow_large_sends_for(wish.ports.len())?;
        netfilter.request(&publish).step("publish the ports")?;
    }
    Ok(())
}

fn container_side(wish: &Attach<'_>) -> Result<()> {
    const LOOPBACK: u32 = 1;
    let route = Socket::route().step("open rtnetlink in the container")?;
    let eth0 = sys::link_index("eth0").step("find eth0")?;
    if wish.no_ipv6_inside {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").step("turn IPv6 off")?;
    }
    let mut batch = Batch::new();
    rt::link_up(&mut batch, LOOPBACK);
    rt::link_up(&mut batch, eth0);
    rt::addr_add(&mut batch, eth0, wish.address.address, wish.address.prefix);
    rt::default_route_add(&mut batch, eth0, wish.gateway);
    route.request(&batch).step("configure eth0")
}

/// `publish`: more ports of an attached container.
pub fn publish(address: Ipv4Addr, ports: &[Publish]) -> Result<()> {
    let netfilter = Socket::netfilter().step("open nfnetlink")?;
    netfilter.allow_large_sends_for(ports.len())?;
    let elements = nft::transaction(|b| nft::elements_add(b, ports, address));
    netfilter.request(&elements).step("publish the ports")
}

/// `detach`: two sends.
pub fn detach(host_if: &str, ports: &[Publish], until: Until) -> Result<()> {
    let index = sys::link_index(host_if).step("find the link")?;
    // Held until the process ends: closing it after a deletion waits for a grace period, which
    // had better pass at the same time as the link's.
    let netfilter = match ports {
        [] => None,
        _ => Some(Socket::netfilter().step("open nfnetlink")?),
    };
    if let Some(netfilter) = &netfilter {
        netfilter.allow_large_sends_for(ports.len())?;
        let withdraw = nft::transaction(|b| nft::elements_del(b, ports));
        netfilter.request(&withdraw).step("withdraw the ports")?;
    }
    match until {
        Until::Answered => delete_link(index),
        Until::Announced => delete_link_announced(index),
    }
}

fn delete_link(index: u32) -> Result<()> {
    let route = Socket::route().step("open rtnetlink")?;
    let mut batch = Batch::new();
    rt::link_del(&mut batch, index);
    route.request(&batch).step("delete the link")
}

/// Returns when the kernel has said that the link is gone. A child asks for it, and sits out the barrier
/// and the close of the nf_tables socket, which it has inherited.
///
/// Where too many links go at once to hear of each, the link itself is asked after.
fn delete_link_announced(index: u32) -> Result<()> {
    let monitor = Socket::link_monitor().step("listen for links")?;
    let (mut failure, mut report) = io::pipe().step("make a pipe")?;
    if sys::fork().step("start the child")? {
        drop(failure);
        sys::detach_from_caller();
        if let Err(error) = delete_link(index) {
            let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
            // Nobody else can be told.
            drop(report.write_all(&errno.to_ne_bytes()));
        }
        std::process::exit(0);
    }
    drop(report);
    let mut gone = false;
    while !gone {
        if sys::wait_readable(monitor.as_fd(), failure.as_fd()).step("wait for the announcement")? {
            return child_ended(&mut failure);
        }
        let heard = monitor.receive(|kind, _, payload| {
            gone |= rt::announces_end_of(index, kind, payload);
            Ok(())
        });
        match heard {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                gone |= sys::link_name(index).is_err();
            }
            other => other.step("hear the announcement")?,
        }
    }
    Ok(())
}

/// The child has closed the pipe: it had its answer before we saw the announcement, or it failed.
fn child_ended(failure: &mut io::PipeReader) -> Result<()> {
    let mut errno = [0; 4];
    match failure.read(&mut errno).step("hear from the child")? {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))).step("delete the link"),
    }
}

impl Socket {
    /// A transaction of many elements is one send; make room for it.
    fn allow_large_sends_for(&self, elements: usize) -> Result<()> {
        const FIT_BY_DEFAULT: usize = 1000;
        if elements <= FIT_BY_DEFAULT {
            return Ok(());
        }
        self.allow_large_sends().step("enlarge the send buffer")
    }
}
