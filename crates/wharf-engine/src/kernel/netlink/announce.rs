//! A container's new cable, made ready for the first packet and told to the neighbours.
//!
//! The kernel tells neighbours of an interface's addresses when it comes up, if `arp_notify` and `ndisc_notify` say so
//! (`inetdev_event` in `net/ipv4/devinet.c`, `ndisc_netdev_event` in `net/ipv6/ndisc.c`). But a bridge lets a port's
//! frames pass only after the kernel has noticed the carrier, a moment later and on a busy machine a long one: the words
//! would be lost, and so would the first packets to the container. So the carrier is settled first, which a question
//! about it does, and then the hardware address is set to what it is: at that the kernel tells again.

use wharf_core::addr::Mac;
use wharf_core::model::{Link, LinkKind, Netns};
use wharf_core::name::IfName;
use wharf_core::op::Op;

use super::{NetlinkKernel, message};

/// What of the operations concerns one container's new interface.
struct News<'a> {
    /// The cable's end on the host, if it is a cable.
    host: Option<&'a IfName>,
    netns: &'a Netns,
    name: &'a IfName,
    mac: Mac,
}

/// Announces the container interfaces that these operations made and brought up. The container works without; nothing
/// here is worth failing for.
pub(super) fn all(kernel: &mut NetlinkKernel, ops: &[&Op]) {
    let news: Vec<News> = ops.iter().filter_map(|op| new_link(op)).collect();
    let up = |n: &News| {
        let is = |op: &&Op| matches!(op, Op::LinkUp { netns, link, up: true } if netns == n.netns && link == n.name);
        ops.iter().any(is)
    };
    let told = |n: &News| {
        let is = |op: &&Op| match op {
            Op::SysctlSet { netns, key, value } => {
                netns == n.netns && value == "1" && notifies(key, n.name)
            }
            _ => false,
        };
        ops.iter().any(is)
    };
    for n in news.iter().filter(|n| up(n)) {
        if let Some(host) = n.host {
            let _ = kernel.rt(&Netns::Host).and_then(|rt| rt.carrier(host));
        }
        if told(n) {
            let again = vec![message::link_address(n.name, n.mac)];
            let _ = kernel.rt(n.netns).and_then(|rt| rt.exchange(again));
        }
    }
}

fn new_link(op: &Op) -> Option<News<'_>> {
    let Op::LinkAdd(Link { name, kind, .. }) = op else {
        return None;
    };
    match kind {
        LinkKind::Veth {
            peer,
            peer_netns,
            peer_mac,
        } if *peer_netns != Netns::Host => Some(News {
            host: Some(name),
            netns: peer_netns,
            name: peer,
            mac: (*peer_mac)?,
        }),
        // What goes out by the parent goes out at once: the kernel's own words are enough.
        _ => None,
    }
}

/// Whether a setting is one of those that make the kernel tell of a link.
fn notifies(key: &str, link: &IfName) -> bool {
    let mut parts = key.rsplit('/');
    let name = parts.next();
    matches!(name, Some("arp_notify" | "ndisc_notify")) && parts.next() == Some(link.as_str())
}
