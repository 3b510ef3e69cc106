//! Links with their settings as veth, bridge and port, and the sysctls the kernel tells along with them.
//!
//! The per-interface sysctls come out of the same dump (`IFLA_INET_CONF`): on a host with a hundred containers the files
//! would be more than a thousand. Places of peers are found by `peers`.

use wharf_core::trace::state::{Bridge, Link, Port};

use super::attrs::{Attrs, byte, mac, short, text, word};

/// `RTM_GETLINK`.
pub(super) const GET: u16 = 18;
/// `sizeof(struct ifinfomsg)`.
const HEADER: usize = 16;
/// `AF_BRIDGE`.
const AF_BRIDGE: u8 = 7;
/// `IFLA_EXT_MASK` and its bits `RTEXT_FILTER_SKIP_STATS`, `RTEXT_FILTER_BRVLAN`.
const EXT_MASK: u16 = 29;
const SKIP_STATS: u32 = 8;
const BRVLAN: u32 = 2;

/// Sysctls of `net.ipv4.conf.IF`, with their place in the array (`IPV4_DEVCONF_*`, from 1).
const CONF4: &[(usize, &str)] = &[
    (1, "forwarding"),
    (2, "mc_forwarding"),
    (3, "proxy_arp"),
    (8, "rp_filter"),
    (9, "accept_source_route"),
    (13, "arp_filter"),
    (15, "disable_xfrm"),
    (16, "disable_policy"),
    (18, "arp_announce"),
    (19, "arp_ignore"),
    (23, "accept_local"),
    (24, "src_valid_mark"),
    (25, "proxy_arp_pvlan"),
    (26, "route_localnet"),
    (29, "ignore_routes_with_linkdown"),
    (32, "bc_forwarding"),
];

/// Sysctls of `net.ipv6.conf.IF`, with their place in the array (`DEVCONF_*`, from 0).
const CONF6: &[(usize, &str)] = &[
    (0, "forwarding"),
    (1, "hop_limit"),
    (3, "accept_ra"),
    (22, "proxy_ndp"),
    (25, "mc_forwarding"),
    (26, "disable_ipv6"),
    (27, "accept_dad"),
    (39, "ignore_routes_with_linkdown"),
    (48, "disable_policy"),
];

/// A link, and what is needed to find its other end.
#[derive(Default)]
pub(super) struct Row {
    pub(super) link: Link,
    /// `IFLA_LINK`.
    pub(super) iflink: Option<u32>,
    /// `IFLA_LINK_NETNSID`: that link is in another namespace, known here by this number.
    pub(super) nsid: Option<i32>,
    /// Its sysctls: name and value.
    pub(super) sysctls: Vec<(String, String)>,
}

/// The question for all links.
pub(super) fn question() -> Vec<u8> {
    ask(0, SKIP_STATS)
}

/// The question for the VLANs of bridges and their ports.
pub(super) fn vlan_question() -> Vec<u8> {
    ask(AF_BRIDGE, BRVLAN)
}

fn ask(family: u8, mask: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    body[0] = family;
    body.extend(8_u16.to_ne_bytes());
    body.extend(EXT_MASK.to_ne_bytes());
    body.extend(mask.to_ne_bytes());
    body
}

/// Reads an `RTM_NEWLINK`.
pub(super) fn read(body: &[u8]) -> Option<Row> {
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    const NOARP: u32 = 0x80;
    const PROMISC: u32 = 0x100;
    const LOWER_UP: u32 = 0x1_0000;
    if body.len() < HEADER || body[0] == AF_BRIDGE {
        return None;
    }
    let flags = word(body, 8);
    let has = |bit| flags & bit != 0;
    let link = Link {
        index: word(body, 4),
        up: has(UP),
        carrier: has(LOWER_UP),
        noarp: has(NOARP),
        loopback: has(LOOPBACK),
        promisc: has(PROMISC),
        ..Link::default()
    };
    let mut row = Row {
        link,
        ..Row::default()
    };
    let mut conf = Attrs(&[]);
    for (kind, value) in Attrs::after(body, HEADER) {
        let link = &mut row.link;
        match kind {
            1 => link.mac = mac(value).filter(|_| !has(LOOPBACK)),
            3 => link.name = text(value),
            4 => link.mtu = word(value, 0),
            5 => row.iflink = Some(word(value, 0)).filter(|i| *i != 0),
            10 => link.master = Some(word(value, 0)),
            18 => info(Attrs(value), link),
            20 => link.alias = Some(text(value)),
            26 => conf = Attrs(value),
            27 => link.group = word(value, 0),
            30 => link.promisc |= word(value, 0) != 0,
            37 => row.nsid = Some(word(value, 0).cast_signed()).filter(|n| *n >= 0),
            // IFLA_XDP: IFLA_XDP_ATTACHED
            43 => link.xdp = Attrs(value).get(2).is_some_and(|v| byte(v, 0) != 0),
            _ => {}
        }
    }
    if row.link.loopback {
        row.link.kind = Some("lo".to_owned());
    }
    row.sysctls = sysctls(&row.link.name, conf);
    Some(row)
}

/// `IFLA_LINKINFO`.
fn info(attrs: Attrs<'_>, link: &mut Link) {
    let (data, slave) = (attrs.nested(2), attrs.nested(5));
    link.kind = attrs.get(1).map(text);
    if link.kind.as_deref() == Some("bridge") {
        let flag = |kind| data.get(kind).is_some_and(|v| byte(v, 0) != 0);
        link.bridge = Some(Bridge {
            stp: data.get(5).is_some_and(|v| word(v, 0) != 0),
            vlan_filtering: flag(7),
            nf_call: (flag(36), flag(37)),
            ..Bridge::default()
        });
    }
    // IFLA_VLAN_ID, IFLA_VXLAN_ID, IFLA_MACVLAN_MODE and IFLA_VRF_TABLE are all the first of their kind.
    match (link.kind.as_deref(), data.get(1)) {
        (Some("vlan"), Some(id)) => link.vlan = Some(short(id, 0)),
        (Some("vxlan"), Some(id)) => link.vni = Some(word(id, 0)),
        (Some("macvlan" | "macvtap"), Some(mode)) => link.macvlan = Some(word(mode, 0)),
        (Some("vrf"), Some(table)) => link.vrf_table = Some(word(table, 0)),
        _ => {}
    }
    if attrs.get(4).map(text).as_deref() == Some("bridge") {
        link.port = Some(port(slave));
    }
}

/// `IFLA_BRPORT_*`.
fn port(attrs: Attrs<'_>) -> Port {
    // What an old kernel does not tell is as it was before there was a choice.
    let flag = |kind, old| attrs.get(kind).map_or(old, |v| byte(v, 0) != 0);
    Port {
        state: attrs.get(1).map_or(0, |v| byte(v, 0)),
        hairpin: flag(4, false),
        learning: flag(8, true),
        flood: flag(9, true),
        proxy_arp: flag(10, false),
        mcast_flood: flag(27, true),
        bcast_flood: flag(30, true),
        neigh_suppress: flag(32, false),
        isolated: flag(33, false),
        locked: flag(39, false),
        pvid: None,
        vlans: Vec::new(),
    }
}

/// `IFLA_AF_SPEC`: the arrays of settings of both families.
fn sysctls(name: &str, spec: Attrs<'_>) -> Vec<(String, String)> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let name = name.replace('.', "/");
    let four = spec.nested(AF_INET).get(1).unwrap_or_default();
    let six = spec.nested(AF_INET6).get(2).unwrap_or_default();
    let value = |array: &[u8], at: usize| {
        let bytes = array.get(at * 4..at * 4 + 4)?;
        Some(word(bytes, 0).cast_signed().to_string())
    };
    let four = CONF4.iter().filter_map(|(at, key)| {
        Some((format!("net.ipv4.conf.{name}.{key}"), value(four, at - 1)?))
    });
    let six = CONF6
        .iter()
        .filter_map(|(at, key)| Some((format!("net.ipv6.conf.{name}.{key}"), value(six, *at)?)));
    four.chain(six).collect()
}

/// The VLANs of one bridge or port.
pub(super) struct Vlans {
    /// The link's index.
    pub(super) link: u32,
    /// `PVID`.
    pub(super) pvid: Option<u16>,
    /// Numbers, and whether they leave untagged.
    pub(super) list: Vec<(u16, bool)>,
}

/// Reads an answer to [`vlan_question`].
pub(super) fn read_vlans(body: &[u8]) -> Option<Vlans> {
    const PVID: u16 = 2;
    const UNTAGGED: u16 = 4;
    if body.len() < HEADER || body[0] != AF_BRIDGE {
        return None;
    }
    let mut vlans = Vlans {
        link: word(body, 4),
        pvid: None,
        list: Vec::new(),
    };
    // IFLA_AF_SPEC with IFLA_BRIDGE_VLAN_INFO
    for (_, value) in Attrs::after(body, HEADER)
        .nested(26)
        .filter(|(k, _)| *k == 2)
    {
        let (flags, vid) = (short(value, 0), short(value, 2));
        vlans.list.push((vid, flags & UNTAGGED != 0));
        if flags & PVID != 0 {
            vlans.pvid = Some(vid);
        }
    }
    Some(vlans)
}

#[cfg(test)]
mod tests {
    use super::super::attrs::attr;
    use super::*;

    #[test]
    fn vlans_of_a_port() {
        // `bridge vlan add vid 10 dev X pvid untagged`, `bridge vlan add vid 20 dev X`
        let vlan =
            |flags: u16, vid: u16| attr(2, &[flags.to_ne_bytes(), vid.to_ne_bytes()].concat());
        let mut body = vec![0; HEADER];
        (body[0], body[4]) = (AF_BRIDGE, 9);
        body.extend(attr(26, &[vlan(6, 10), vlan(0, 20)].concat()));
        let vlans = read_vlans(&body).expect("an answer");
        assert_eq!((vlans.link, vlans.pvid), (9, Some(10)));
        assert_eq!(vlans.list, [(10, true), (20, false)]);
        assert!(read(&body).is_none(), "it is no link");
    }

    #[test]
    fn a_program_of_xdp_is_seen() {
        for attached in [0, 2] {
            let mut body = vec![0; HEADER];
            body.extend(attr(3, b"x0\0"));
            body.extend(attr(43, &attr(2, &[attached])));
            let row = read(&body).expect("a link");
            assert_eq!(
                (row.link.name.as_str(), row.link.xdp),
                ("x0", attached != 0)
            );
        }
    }
}
