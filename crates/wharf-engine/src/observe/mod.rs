//! Reading the kernel: links, addresses, routes, sysctls, who listens.
//!
//! Not on the way of an attach: that goes by what the store knows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo as LinkInfoAttribute, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use wharf_core::addr::Mac;
use wharf_core::model::Netns;
use wharf_core::name::IfName;
use wharf_core::op::Op;
use wharf_core::publish::{PortRange, Protocol};
use wharf_nft::NfSocket;

use crate::kernel::OpError;
use crate::kernel::netlink::NetlinkKernel;

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkInfo {
    /// The number.
    pub index: u32,
    /// The name.
    pub name: String,
    /// `bridge`, `veth`, …; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The MAC address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// The number of the bridge it is a port of.
    pub master: Option<u32>,
    /// The alias.
    pub alias: Option<String>,
    /// Administratively up.
    pub up: bool,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The destination.
    pub dst: IpNet,
    /// The table.
    pub table: u32,
    /// The number of the link it leads to.
    pub oif: Option<u32>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// The protocol number.
    pub protocol: u8,
}

impl NetlinkKernel {
    /// The links of a namespace.
    ///
    /// # Errors
    /// The namespace is gone, or the kernel's.
    pub fn links(&mut self, netns: &Netns) -> Result<Vec<LinkInfo>, OpError> {
        let messages = self.dump(netns, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let link = |m| match m {
            RouteNetlinkMessage::NewLink(link) => Some(link_info(&link)),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(link).collect())
    }

    /// One link of a namespace.
    ///
    /// # Errors
    /// As [`NetlinkKernel::links`].
    pub fn link(&mut self, netns: &Netns, name: &IfName) -> Result<Option<LinkInfo>, OpError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_string()));
        let got = self
            .rt(netns)
            .and_then(|rt| rt.get(RouteNetlinkMessage::GetLink(message)));
        match got.map_err(|e| read_error(netns, &e))? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link_info(&link))),
            _ => Ok(None),
        }
    }

    /// The addresses of a namespace with the numbers of their links.
    ///
    /// # Errors
    /// As [`NetlinkKernel::links`].
    pub fn addrs(&mut self, netns: &Netns) -> Result<Vec<(u32, IpNet)>, OpError> {
        let messages = self.dump(
            netns,
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        )?;
        let addr = |m| match m {
            RouteNetlinkMessage::NewAddress(a) => addr_info(&a),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(addr).collect())
    }

    /// The routes of a namespace, of all tables.
    ///
    /// # Errors
    /// As [`NetlinkKernel::links`].
    pub fn routes(&mut self, netns: &Netns) -> Result<Vec<RouteInfo>, OpError> {
        let messages = self.dump(
            netns,
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
        )?;
        let route = |m| match m {
            RouteNetlinkMessage::NewRoute(r) => route_info(&r),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(route).collect())
    }

    /// The MTU of the link that carries the host's default route; IPv4's if there are both.
    pub fn default_route_mtu(&mut self) -> Option<u32> {
        const MAIN: u32 = 254;
        let routes = self.routes(&Netns::Host).ok()?;
        let mut defaults: Vec<_> = routes
            .iter()
            .filter(|r| r.dst.prefix_len() == 0 && r.table == MAIN && r.gateway.is_some())
            .collect();
        defaults.sort_by_key(|r| r.dst.addr().is_ipv6());
        let oif = defaults.first()?.oif?;
        self.links(&Netns::Host)
            .ok()?
            .into_iter()
            .find(|l| l.index == oif)
            .map(|l| l.mtu)
    }

    /// The value of a sysctl, by its path below `/proc/sys`.
    pub fn sysctl(&mut self, netns: &Netns, key: &str) -> Option<String> {
        let path = format!("/proc/sys/{key}");
        let text = self.inside(netns, || std::fs::read_to_string(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A process of the host that would be robbed of a port: it listens on one of `ports` at an address that the
    /// mapping covers.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn listener_on(
        &mut self,
        protocol: Protocol,
        ports: PortRange,
        host_ip: Option<IpAddr>,
    ) -> Result<Option<SocketAddr>, OpError> {
        let files: &[&str] = match protocol {
            Protocol::Tcp => &["tcp", "tcp6"],
            Protocol::Udp => &["udp", "udp6"],
            Protocol::Sctp => &[],
        };
        for file in files {
            let table = match std::fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
                Ok(table) => table,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(read_error(&Netns::Host, &e)),
            };
            let found = table.lines().skip(1).filter_map(listener).find(|at| {
                (ports.first()..=ports.last()).contains(&at.port()) && covers(host_ip, at.ip())
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The socket to nftables, for reading other tools' rules and entering those they invite.
    pub fn nftables(&mut self) -> Result<&mut NfSocket, wharf_nft::NftError> {
        self.nf().map_err(|source| wharf_nft::NftError::Socket {
            action: "open",
            source,
        })
    }

    fn dump(
        &mut self,
        netns: &Netns,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, OpError> {
        self.rt(netns)
            .and_then(|rt| rt.dump(&message))
            .map_err(|e| read_error(netns, &e))
    }
}

/// Reading is not an operation of a plan; the nearest one gives the error its place.
fn read_error(netns: &Netns, error: &io::Error) -> OpError {
    OpError {
        op: Box::new(Op::Nft(Vec::new())),
        netns: netns.clone(),
        errno: error.raw_os_error().unwrap_or(0),
        detail: error.raw_os_error().is_none().then(|| error.to_string()),
    }
}

fn link_info(message: &LinkMessage) -> LinkInfo {
    let mut info = LinkInfo {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..LinkInfo::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Address(mac) => {
                info.mac = <[u8; 6]>::try_from(mac.as_slice()).ok().map(Mac)
            }
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Controller(index) => info.master = Some(*index),
            LinkAttribute::IfAlias(alias) => info.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => info.kind = infos.iter().find_map(kind),
            _ => {}
        }
    }
    info
}

fn kind(info: &LinkInfoAttribute) -> Option<String> {
    match info {
        LinkInfoAttribute::Kind(InfoKind::Other(name)) => Some(name.clone()),
        LinkInfoAttribute::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn addr_info(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => local = local.or(Some(*addr)),
            _ => {}
        }
    }
    Some((
        message.header.index,
        IpNet::new(local?, message.header.prefix_len).ok()?,
    ))
}

fn route_info(message: &RouteMessage) -> Option<RouteInfo> {
    let plain = |addr: &RouteAddress| match addr {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut info = RouteInfo {
        dst: IpNet::new(any, message.header.destination_prefix_length).ok()?,
        table: u32::from(message.header.table),
        oif: None,
        gateway: None,
        protocol: u8::from(message.header.protocol),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => {
                info.dst =
                    IpNet::new(plain(addr)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(addr) => info.gateway = plain(addr),
            RouteAttribute::Oif(index) => info.oif = Some(*index),
            RouteAttribute::Table(table) => info.table = *table,
            _ => {}
        }
    }
    Some(info)
}

/// The local address of a line of `/proc/net/tcp` or `udp` that listens: state 0A (LISTEN), or 07 (unconnected UDP).
fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != "0A" && state != "07" {
        return None;
    }
    let (addr, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Addresses are printed as words of four bytes in host order.
    let words: Vec<u32> = (0..addr.len() / 8)
        .filter_map(|i| u32::from_str_radix(addr.get(i * 8..i * 8 + 8)?, 16).ok())
        .collect();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether a mapping on `host_ip` takes packets from somebody who listens at `at`.
fn covers(host_ip: Option<IpAddr>, at: IpAddr) -> bool {
    match host_ip {
        None => true,
        // A listener on :: also takes IPv4.
        Some(ip) if ip.is_unspecified() => {
            ip.is_ipv4() == at.is_ipv4() || at == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        }
        Some(ip) => ip == at || (at.is_unspecified() && (at.is_ipv6() || ip.is_ipv4())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_net() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        assert_eq!(listener(v4), Some("127.0.0.1:8080".parse().unwrap()));
        let v6 = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0 0";
        assert_eq!(listener(v6), Some("[::]:80".parse().unwrap()));
        let established =
            "   0: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000 0 0 1";
        assert_eq!(listener(established), None);
    }

    #[test]
    fn a_mapping_covers_its_addresses() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        assert!(covers(None, ip("10.0.0.1")));
        assert!(covers(Some(ip("10.0.0.1")), ip("0.0.0.0")));
        assert!(covers(Some(ip("10.0.0.1")), ip("::")));
        assert!(!covers(Some(ip("10.0.0.1")), ip("10.0.0.2")));
        assert!(!covers(Some(ip("fd00::1")), ip("0.0.0.0")));
    }
}
