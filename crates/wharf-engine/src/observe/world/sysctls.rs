//! Sysctls that hold for a whole namespace, by their files. Those of interfaces come with the links.

use std::collections::BTreeMap;
use std::io;

use wharf_core::trace::state::Unread;

/// Paths below `/proc/sys/net`. A kernel lacks some; that is no fault.
const NAMES: &[&str] = &[
    "ipv4/ip_forward",
    "ipv4/ip_default_ttl",
    "ipv4/ip_local_port_range",
    "ipv4/ip_local_reserved_ports",
    "ipv4/ip_nonlocal_bind",
    "ipv4/ip_forward_use_pmtu",
    "ipv4/ip_no_pmtu_disc",
    "ipv4/fwmark_reflect",
    "ipv4/icmp_echo_ignore_all",
    "ipv4/icmp_echo_ignore_broadcasts",
    "ipv4/tcp_l3mdev_accept",
    "ipv4/udp_l3mdev_accept",
    "ipv4/raw_l3mdev_accept",
    "ipv4/conf/all/forwarding",
    "ipv4/conf/all/mc_forwarding",
    "ipv4/conf/all/rp_filter",
    "ipv4/conf/all/route_localnet",
    "ipv4/conf/all/accept_local",
    "ipv4/conf/all/accept_source_route",
    "ipv4/conf/all/arp_ignore",
    "ipv4/conf/all/arp_announce",
    "ipv4/conf/all/arp_filter",
    "ipv4/conf/all/proxy_arp",
    "ipv4/conf/all/disable_policy",
    "ipv4/conf/all/disable_xfrm",
    "ipv4/conf/all/src_valid_mark",
    "ipv4/conf/all/ignore_routes_with_linkdown",
    "ipv4/conf/default/forwarding",
    "ipv4/conf/default/rp_filter",
    "ipv6/bindv6only",
    "ipv6/ip_nonlocal_bind",
    "ipv6/fwmark_reflect",
    "ipv6/icmp/echo_ignore_all",
    "ipv6/icmp/echo_ignore_anycast",
    "ipv6/icmp/echo_ignore_multicast",
    "ipv6/conf/all/forwarding",
    "ipv6/conf/all/disable_ipv6",
    "ipv6/conf/all/accept_ra",
    "ipv6/conf/all/proxy_ndp",
    "ipv6/conf/all/mc_forwarding",
    "ipv6/conf/all/ignore_routes_with_linkdown",
    "ipv6/conf/default/forwarding",
    "ipv6/conf/default/disable_ipv6",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-arptables",
    "bridge/bridge-nf-filter-vlan-tagged",
    "bridge/bridge-nf-pass-vlan-input-dev",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_tcp_loose",
];

/// Reads them all in the thread's namespace.
pub(super) fn read(netns: &str, into: &mut BTreeMap<String, String>, unread: &mut Vec<Unread>) {
    for name in NAMES {
        let dotted = format!("net.{}", name.replace('/', "."));
        match std::fs::read_to_string(format!("/proc/sys/net/{name}")) {
            Ok(value) => {
                into.insert(dotted, value.trim().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unread.push(Unread {
                netns: netns.to_owned(),
                what: format!("sysctl {dotted}"),
                why: error.to_string(),
            }),
        }
    }
}

/// Whether bridges ask for hardware addresses that they do not know.
pub(super) fn of_bridges<'a>(
    names: impl Iterator<Item = &'a str>,
    into: &mut BTreeMap<String, String>,
) {
    for name in names {
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/neigh/{name}/mcast_solicit");
            // Without IPv6 there is none.
            if let Ok(value) = std::fs::read_to_string(path) {
                let link = name.replace('.', "/");
                let key = format!("net.{family}.neigh.{link}.mcast_solicit");
                into.insert(key, value.trim().to_owned());
            }
        }
    }
}
