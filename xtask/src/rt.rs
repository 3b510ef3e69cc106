//! The few rtnetlink messages the floor and the benches need, added to a [`Batch`].

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::Batch;

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
const UP: u32 = libc::IFF_UP as u32;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// A new veth pair: the host's end, and the container's end born in its namespace.
pub struct Veth<'a> {
    /// Name of the end in the namespace of the socket.
    pub name: &'a str,
    /// Bridge that the host's end joins, by index.
    pub master: Option<u32>,
    /// Group for deletion in bulk; 0 is the kernel's default.
    pub group: u32,
    /// Name of the other end.
    pub peer: &'a str,
    /// Namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// One queue at each end: with more the driver makes one per CPU, and shrinking them waits for RCU.
fn one_queue(batch: &mut Batch) {
    batch
        .attr_u32(libc::IFLA_NUM_TX_QUEUES, 1)
        .attr_u32(libc::IFLA_NUM_RX_QUEUES, 1);
}

/// `ip link add NAME address MAC up type bridge`
pub fn bridge_add(batch: &mut Batch, name: &str, mac: [u8; 6]) {
    batch
        .message(libc::RTM_NEWLINK, CREATE, &link_header(0, UP))
        .attr_str(libc::IFLA_IFNAME, name)
        .attr(libc::IFLA_ADDRESS, &mac)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.attr_str(INFO_KIND, "bridge");
        });
}

/// `ip link add NAME master BRIDGE up … type veth peer name PEER netns NETNS …`, in one message.
/// The peer cannot be created up: the driver refuses to open it before the pair is tied.
pub fn veth_add(batch: &mut Batch, veth: &Veth<'_>) {
    batch
        .message(libc::RTM_NEWLINK, CREATE, &link_header(0, UP))
        .attr_str(libc::IFLA_IFNAME, veth.name);
    if let Some(master) = veth.master {
        batch.attr_u32(libc::IFLA_MASTER, master);
    }
    batch.attr_u32(libc::IFLA_GROUP, veth.group);
    one_queue(batch);
    batch.nested(libc::IFLA_LINKINFO, |info| {
        info.attr_str(INFO_KIND, "veth").nested(INFO_DATA, |data| {
            data.nested(VETH_PEER, |peer| {
                peer.raw(&link_header(0, 0))
                    .attr_str(libc::IFLA_IFNAME, veth.peer)
                    .attr(
                        libc::IFLA_NET_NS_FD,
                        &veth.peer_netns.as_raw_fd().to_ne_bytes(),
                    );
                one_queue(peer);
            });
        });
    });
}

/// `ip link set NAME addrgenmode none`: no IPv6 link-local address, so no chatter from this end.
pub fn addr_gen_none(batch: &mut Batch, name: &str) {
    batch
        .message(libc::RTM_SETLINK, libc::NLM_F_ACK, &link_header(0, 0))
        .attr_str(libc::IFLA_IFNAME, name)
        .nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET6 as u16, |inet6| {
                inet6.attr(INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
            });
        });
}

/// `ip link set dev #INDEX group GROUP`
pub fn link_group(batch: &mut Batch, index: u32, group: u32) {
    batch
        .message(libc::RTM_SETLINK, libc::NLM_F_ACK, &link_header(index, 0))
        .attr_u32(libc::IFLA_GROUP, group);
}

/// `ip link set dev #INDEX up`
pub fn link_up(batch: &mut Batch, index: u32) {
    batch.message(libc::RTM_SETLINK, libc::NLM_F_ACK, &link_header(index, UP));
}

/// `ip link del dev #INDEX`
pub fn link_del(batch: &mut Batch, index: u32) {
    batch.message(libc::RTM_DELLINK, libc::NLM_F_ACK, &link_header(index, 0));
}

/// `ip link del group GROUP`: one wait for all of its members.
pub fn link_del_group(batch: &mut Batch, group: u32) {
    batch
        .message(libc::RTM_DELLINK, libc::NLM_F_ACK, &link_header(0, 0))
        .attr_u32(libc::IFLA_GROUP, group);
}

/// `ip addr add ADDRESS/PREFIX dev #INDEX`
pub fn addr_add(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8) {
    let mut header = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    batch
        .message(libc::RTM_NEWADDR, CREATE, &header)
        .attr(libc::IFA_LOCAL, &address.octets())
        .attr(libc::IFA_ADDRESS, &address.octets());
}

/// `ip route add default via GATEWAY dev #INDEX`
pub fn default_route_add(batch: &mut Batch, index: u32, gateway: Ipv4Addr) {
    let mut header = [0; 12];
    header[0] = libc::AF_INET as u8;
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = libc::RTPROT_BOOT;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = libc::RTN_UNICAST;
    batch
        .message(libc::RTM_NEWROUTE, CREATE, &header)
        .attr(libc::RTA_GATEWAY, &gateway.octets())
        .attr_u32(libc::RTA_OIF, index);
}

/// Whether a message says that link `index` is gone. A bridge says the same of a port that merely
/// leaves it, but with its own address family.
pub fn announces_end_of(index: u32, kind: u16, payload: &[u8]) -> bool {
    kind == libc::RTM_DELLINK
        && payload.first() == Some(&(libc::AF_UNSPEC as u8))
        && payload.get(4..8) == Some(&index.to_ne_bytes()[..])
}
