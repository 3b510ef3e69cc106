//! Links, their settings, and bridge ports as commands of `ip`, `bridge` and `tc`.

use super::{ip, netns_name, quote, quote_path};
use crate::extras::Traits;
use crate::model::{FIRST_VLAN, Link, LinkKind, Netns, PORT_GROUPS, Port};
use crate::name::IfName;

/// The kernel gives each end of a cable one queue by itself only for the end that is not asked about; both
/// are named, since more queues cost memory and time to make.
pub(super) fn add(link: &Link) -> String {
    if let LinkKind::Macvlan { parent, mode } = &link.kind {
        return macvlan_add(link, parent, mode.as_str());
    }
    let mut text = format!("{} link add name {}", ip(&link.netns), quote(&link.name));
    let mut word = |w: String| {
        text.push(' ');
        text.push_str(&w);
    };
    if link.up {
        word("up".to_owned());
    }
    if let Some(mtu) = link.mtu.filter(|_| link.bridge_mtu().is_none()) {
        word(format!("mtu {mtu}"));
    }
    if let Some(mac) = link.mac {
        word(format!("address {mac}"));
    }
    if matches!(link.kind, LinkKind::Veth { .. }) {
        word("numtxqueues 1 numrxqueues 1".to_owned());
    }
    if link.group != 0 {
        word(format!("group {:#x}", link.group));
    }
    if let Some(master) = &link.master {
        word(format!("master {}", quote(master)));
    }
    match &link.kind {
        LinkKind::Bridge => word("type bridge".to_owned()),
        LinkKind::Macvlan { .. } => {}
        LinkKind::Ifb => word("type ifb".to_owned()),
        LinkKind::Veth {
            peer,
            peer_netns,
            peer_mac,
        } => {
            word(format!("type veth peer name {}", quote(peer)));
            if let Some(mtu) = link.mtu {
                word(format!("mtu {mtu}"));
            }
            if let Some(mac) = peer_mac {
                word(format!("address {mac}"));
            }
            word("numtxqueues 1 numrxqueues 1".to_owned());
            if *peer_netns != link.netns {
                word(peer_place(peer_netns));
            }
        }
    }
    text
}

/// A sub-interface is made beside its parent and put into its namespace at once.
fn macvlan_add(link: &Link, parent: &IfName, mode: &str) -> String {
    let mut text = format!(
        "ip link add link {} name {}",
        quote(parent),
        quote(&link.name)
    );
    if let Some(mtu) = link.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(mac) = link.mac {
        text += &format!(" address {mac}");
    }
    if link.netns != Netns::Host {
        text += &format!(" {}", peer_place(&link.netns));
    }
    text + &format!(" type macvlan mode {mode}")
}

/// What can be changed of a link that is there.
pub(super) fn set(link: &Link) -> String {
    let mut text = format!("{} link set dev {}", ip(&link.netns), quote(&link.name));
    if let Some(mtu) = link.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(mac) = link.mac {
        text += &format!(" address {mac}");
    }
    text += &format!(" group {:#x}", link.group);
    if let Some(master) = &link.master {
        text += &format!(" master {}", quote(master));
    }
    if link.up {
        text += " up";
    }
    text
}

/// `netns` of a cable's other end; the shell itself is in the host's namespace.
fn peer_place(netns: &Netns) -> String {
    match netns {
        Netns::Host => "netns $$".to_owned(),
        Netns::Path(path) => match netns_name(path) {
            Some(name) => format!("netns {}", quote(name)),
            None => format!("netns {}", quote_path(path)),
        },
    }
}

pub(super) fn port_set(port: &Port) -> String {
    let on = |yes| if yes { "on" } else { "off" };
    let link = quote(&port.link);
    let groups = match port.locked {
        true => format!(" type bridge_slave group_fwd_mask {PORT_GROUPS:#x}"),
        false => String::new(),
    };
    let vlan = port.vlan.map(|id| {
        // Only then is the port no longer in the bridge's first VLAN.
        let leave = match id {
            FIRST_VLAN => String::new(),
            _ => format!("bridge vlan del dev {link} vid {FIRST_VLAN}\n"),
        };
        format!("bridge vlan add dev {link} vid {id} pvid untagged\n{leave}")
    });
    let unnumbered = if port.ipv6 { " addrgenmode none" } else { "" };
    let text = format!(
        "bridge link set dev {link} locked {} learning {} hairpin {} isolated {}\nip link set dev {link} up{unnumbered} alias {}{groups}",
        on(port.locked),
        on(port.learning),
        on(port.hairpin),
        on(port.isolated),
        quote(&port.alias),
    );
    vlan.unwrap_or_default() + &text
}

pub(super) fn detour(from: &IfName, by: &IfName) -> String {
    let (from, by) = (quote(from), quote(by));
    format!(
        "tc qdisc add dev {from} ingress\ntc filter add dev {from} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev {by}"
    )
}

pub(super) fn traits(netns: &Netns, link: &IfName, traits: &Traits) -> String {
    let on = |yes| if yes { "on" } else { "off" };
    let mut text = format!("{} link set dev {}", ip(netns), quote(link));
    if let Some(promisc) = traits.promisc {
        text += &format!(" promisc {}", on(promisc));
    }
    if let Some(allmulti) = traits.allmulti {
        text += &format!(" allmulticast {}", on(allmulti));
    }
    if let Some(length) = traits.tx_queue {
        text += &format!(" txqueuelen {length}");
    }
    if let Some(mac) = traits.mac {
        text += &format!(" address {mac}");
    }
    if let Some(mtu) = traits.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(arp) = traits.arp {
        text += &format!(" arp {}", on(arp));
    }
    if let Some(stp) = traits.stp {
        text += &format!(" type bridge stp_state {}", u8::from(stp));
    }
    text
}
