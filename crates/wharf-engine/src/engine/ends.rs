//! Where cables end, and whose namespace is whose.
//!
//! The host's end of a cable says both: the kernel, which link of which namespace is at the other end; its alias, whose it is
//! and whether wharf made the namespace of that name. Numbers and names of links inside, and marks there, are the
//! container's to choose.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use wharf_core::attach::Attachment;
use wharf_core::model::{Netns, PolicyRule};
use wharf_core::name::{ContainerName, IfName};
use wharf_core::network::NetworkSpec;

use crate::engine::Networks;
use crate::engine::claims::{Port, Said};
use crate::engine::gc::{CableMark, Space, cable_mark};
use crate::kernel::netlink::NetlinkKernel;
use crate::observe::{LinkInfo, RouteInfo};
use crate::process::netns;

/// A cable of a container on a network.
pub(super) struct End<'a> {
    /// The host's end.
    pub(super) cable: &'a LinkInfo,
    /// What its alias says.
    pub(super) mark: CableMark,
    /// The network.
    pub(super) net: &'a NetworkSpec,
    /// The other end, where that can be looked at.
    pub(super) far: Option<(&'a Space, &'a LinkInfo)>,
}

/// A container's namespace.
pub(super) struct Home<'a> {
    pub(super) space: &'a Space,
    pub(super) path: PathBuf,
    pub(super) made_by_wharf: bool,
}

/// What is set in a namespace.
#[derive(Default)]
pub(super) struct Inside {
    pub(super) addrs: Vec<(u32, IpNet)>,
    pub(super) routes: Vec<RouteInfo>,
    pub(super) rules: Vec<PolicyRule>,
}

/// The other end of a cable, if it is in this namespace.
pub(super) fn end_in<'s>(space: &'s Space, cable: &LinkInfo) -> Option<&'s LinkInfo> {
    if cable.kind.as_deref() != Some("veth") || cable.peer_space.is_none() {
        return None;
    }
    let is_it = |l: &&LinkInfo| Some(l.index) == cable.peer;
    let same = space.number == cable.peer_space;
    space.links.iter().find(is_it).filter(|_| same)
}

/// The cables on these networks, in the order in which they were made. Of two that say the same, the second says nothing.
pub(super) fn ends<'a>(
    links: &'a [LinkInfo],
    spaces: &'a [Space],
    nets: &'a Networks,
) -> Vec<End<'a>> {
    let mut all: Vec<End> = Vec::new();
    let mut cables: Vec<&LinkInfo> = links.iter().collect();
    cables.sort_by_key(|l| l.index);
    for cable in cables {
        let Some(mark) = cable_mark(cable) else {
            continue;
        };
        let Some(net) = nets.get(&mark.network) else {
            continue;
        };
        let same =
            |e: &End| (&e.mark.container, &e.mark.network) == (&mark.container, &mark.network);
        if all.iter().any(same) {
            continue;
        }
        let far = spaces.iter().find_map(|s| Some((s, end_in(s, cable)?)));
        all.push(End {
            cable,
            mark,
            net,
            far,
        });
    }
    all
}

/// The namespaces of the containers that cables are of. One that wharf made has the container's name; of others, one that
/// has a name on the host, or the first.
pub(super) fn homes<'a>(
    ends: &[End<'a>],
    spaces: &'a [Space],
) -> BTreeMap<ContainerName, Home<'a>> {
    let mut homes = BTreeMap::new();
    for end in ends {
        let name = &end.mark.container;
        if homes.contains_key(name) {
            continue;
        }
        let own = ends.iter().filter(|e| e.mark.container == *name);
        let found: Vec<&Space> = own.filter_map(|e| e.far.map(|(s, _)| s)).collect();
        let made = (!end.mark.adopted)
            .then(|| named(name, spaces, !found.is_empty()))
            .flatten();
        let home = made.or_else(|| {
            let is_named = |s: &&&Space| s.path.starts_with(netns::DIRECTORY);
            let space = found.iter().find(is_named).or(found.first())?;
            Some(Home {
                space,
                path: space.path.clone(),
                made_by_wharf: false,
            })
        });
        homes.extend(home.map(|home| (name.clone(), home)));
    }
    homes
}

/// The namespace that wharf made for a container of this name. Somebody may have made another in its place: one without
/// the mark is it only if the host has numbered it, as it does where a cable once ended, and the container lives.
fn named<'a>(name: &ContainerName, spaces: &'a [Space], lives: bool) -> Option<Home<'a>> {
    let path = Path::new(netns::DIRECTORY).join(name.as_str());
    let inode = netns::netns_inode(&path).ok()?;
    let space = spaces.iter().find(|s| s.inode == inode)?;
    let is_it = space.made_by_wharf || lives && space.number.is_some();
    is_it.then_some(Home {
        space,
        path,
        made_by_wharf: true,
    })
}

/// What is set in the namespaces that cables end in, by their numbers. Of one that cannot be looked into, nothing: it has its
/// say no more, and keeps nobody else from what is his.
pub(super) fn insides(kernel: &mut NetlinkKernel, ends: &[End]) -> HashMap<u64, Inside> {
    let mut all = HashMap::new();
    for (space, _) in ends.iter().filter_map(|e| e.far) {
        all.entry(space.inode).or_insert_with(|| {
            let place = Netns::Path(space.path.clone());
            Inside {
                addrs: kernel.addrs(&place).unwrap_or_default(),
                routes: kernel.routes(&place).unwrap_or_default(),
                rules: kernel.rules(&place).unwrap_or_default(),
            }
        });
    }
    all
}

/// The ports at which cables end, as claims are settled.
pub(super) fn ports<'a>(
    ends: &'a [End],
    links: &[LinkInfo],
    insides: &HashMap<u64, Inside>,
) -> Vec<Port<'a>> {
    let port = |end: &'a End| {
        let bridge = links.iter().find(|l| l.name == end.net.bridge.as_str());
        let said = end.far.map(|(space, link)| Said {
            mac: link.mac,
            addresses: insides.get(&space.inode).map_or_else(Vec::new, |inside| {
                let own = inside
                    .addrs
                    .iter()
                    .filter(|(index, _)| *index == link.index);
                own.map(|(_, net)| *net).collect()
            }),
        });
        Port {
            net: end.net,
            index: end.cable.index,
            bridge: bridge.map(|l| l.index),
            said: said.unwrap_or_default(),
        }
    };
    ends.iter().map(port).collect()
}

/// A name for a container's interface: its own, unless that cannot be or is another's.
pub(super) fn interface(link: Option<&LinkInfo>, others: &[Attachment]) -> Option<IfName> {
    const MOST: u32 = 1024;
    let free = |name: &IfName| others.iter().all(|a| a.interface != *name);
    let own = link.and_then(|l| l.name.parse().ok());
    let own = own.filter(|name| *name != IfName::loopback());
    let mut names = (0..MOST).filter_map(|n| format!("eth{n}").parse().ok());
    own.filter(free).or_else(|| names.find(free))
}
