//! Differences between what should be and what is, in words.

use std::collections::{BTreeMap, HashMap, HashSet};

use wharf_core::model::{Hop, Netns, Resource, ResourceKey};
use wharf_core::nft::{Object, Table};
use wharf_core::trace::changed::Changed;

use crate::api::Finding;

/// Puts into words what differs; of elements only how many, by set.
pub(super) fn compare(wanted: &[Resource], there: &[Resource], findings: &mut Vec<Finding>) {
    let there: HashMap<ResourceKey, &Resource> = there.iter().map(|r| (r.key(), r)).collect();
    let mut elements: BTreeMap<String, usize> = BTreeMap::new();
    let lost: HashSet<Table> = Table::ALL
        .into_iter()
        .filter(|t| !there.contains_key(&ResourceKey::Table(*t)))
        .collect();
    for resource in wanted {
        // What was in a table that is gone is not named besides.
        let of_lost = resource.lives_in().iter().any(|key| match key {
            ResourceKey::Table(table) => lost.contains(table),
            _ => false,
        });
        if of_lost {
            continue;
        }
        let was = match there.get(&resource.key()) {
            Some(is) if *is == resource => continue,
            Some(_) => "different",
            None => "missing",
        };
        if let Resource::Nft(Object::Element(e)) = resource {
            let set = format!("{} wharf {}", e.table.family(), e.set);
            *elements.entry(set).or_default() += 1;
            continue;
        }
        findings.push(Finding {
            object: describe(resource),
            was: was.to_owned(),
        });
    }
    findings.extend(elements.into_iter().map(|(set, count)| Finding {
        object: match count {
            1 => format!("an element of set {set}"),
            _ => format!("{count} elements of set {set}"),
        },
        was: "missing".to_owned(),
    }));
}

/// The packet rules that are not as they should be.
pub(super) fn changed<'r>(
    wanted: impl Iterator<Item = &'r Resource>,
    there: &[Resource],
) -> Vec<Changed> {
    let there: HashMap<ResourceKey, &Resource> = there.iter().map(|r| (r.key(), r)).collect();
    let differs = |resource: &Resource| match (resource, there.get(&resource.key())) {
        (Resource::Nft(_), Some(is)) if *is == resource => None,
        (Resource::Nft(object), is) => Some(Changed {
            object: object.clone(),
            was: if is.is_some() { "different" } else { "missing" },
        }),
        _ => None,
    };
    wanted.filter_map(differs).collect()
}

pub(super) fn describe(resource: &Resource) -> String {
    let place = |netns: &Netns| match netns {
        Netns::Host => String::new(),
        Netns::Path(path) => format!(" in {}", path.display()),
    };
    match resource {
        Resource::Netns(path) => format!("namespace {}", path.display()),
        Resource::Link(link) => format!("link {}", link.name),
        Resource::Port(port) => format!("port settings of {}", port.link),
        Resource::Up { netns, link } => format!("link {link} up{}", place(netns)),
        Resource::Addr { netns, link, addr } => format!("address {addr} on {link}{}", place(netns)),
        Resource::Route {
            netns,
            dst,
            hop,
            link,
            ..
        } => {
            let way = match hop {
                Hop::Via(gateway) => format!("via {gateway}"),
                Hop::Link => format!("dev {link}"),
                Hop::Blackhole | Hop::Unreachable | Hop::Prohibit => {
                    hop.refusal().unwrap_or_default().to_owned()
                }
            };
            format!("route {dst} {way}{}", place(netns))
        }
        Resource::Shaper { link, .. } => format!("limit of {link}"),
        Resource::Detour { from, by } => format!("way round of {from} by {by}"),
        Resource::Traits { netns, link, .. } => format!("settings of {link}{}", place(netns)),
        Resource::Rule(rule) => format!(
            "{} routing rule {}{}",
            rule.family,
            rule.priority,
            place(&rule.netns)
        ),
        Resource::Blackhole { dst, table } => format!("blackhole {dst} in table {table}"),
        Resource::Neigh { link, addr, .. } => format!("neighbour {addr} on {link}"),
        Resource::Fdb { link, mac } => format!("forwarding entry {mac} of {link}"),
        Resource::Sysctl { netns, key, .. } => {
            format!("sysctl {}{}", key.replace('/', "."), place(netns))
        }
        Resource::Nft(Object::Table(table)) => format!("table {} wharf", table.family()),
        Resource::Nft(Object::Set(set)) => format!("set {} wharf {}", set.table.family(), set.name),
        Resource::Nft(Object::Chain(chain)) => {
            format!("chain {} wharf {}", chain.table.family(), chain.name)
        }
        Resource::Nft(Object::Element(e)) => {
            format!("an element of set {} wharf {}", e.table.family(), e.set)
        }
    }
}
