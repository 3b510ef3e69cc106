//! What wharf's own rules say about networks and published ports, for a store that was lost.

use std::io;
use std::net::IpAddr;

use wharf_core::addr;
use wharf_core::compile::Unforwarded;
use wharf_core::name::{IfName, NetworkName};
use wharf_core::nft::Table;
use wharf_core::publish::{PortMapping, PortRange, Protocol};
use wharf_nft::expr::MetaKey;
use wharf_nft::{Data, Element, Expr, Family, NfSocket, Rule, SetRef, Verdict};

use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::netlink::nft_apply::to_io;

/// Length of a field in a key of several.
const WORD: usize = 4;

/// A network as the rules know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its bridge.
    pub bridge: IfName,
    /// No way out and none in.
    pub internal: bool,
    /// Its containers may talk to each other.
    pub icc: bool,
    /// It lets in other networks that do.
    pub open: bool,
    /// How many rules narrow the use of the host's services, if any do.
    pub host_rules: Option<usize>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The container's address.
    pub addr: IpAddr,
    /// The mapping.
    pub mapping: PortMapping,
}

fn elements(nft: &mut NfSocket, name: &str) -> io::Result<Vec<Element>> {
    let set = SetRef::new(Family::Inet, Table::NAME, name);
    match nft.dump_elements(&set) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        other => other.map_err(to_io),
    }
}

/// The interface name that a key of a set is.
pub(crate) fn link_name(key: &[u8]) -> Option<IfName> {
    let text = String::from_utf8_lossy(key);
    text.trim_end_matches('\0').parse().ok()
}

impl NetlinkKernel {
    /// The networks in wharf's tables.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_networks(&mut self) -> io::Result<Vec<OwnNetwork>> {
        let nft = self.nf()?;
        let names = |all: Vec<Element>| -> Vec<IfName> {
            all.iter().filter_map(|e| link_name(&e.key)).collect()
        };
        let (internal, open) = (
            names(elements(nft, "forward_out")?),
            names(elements(nft, "open")?),
        );
        let chains: Vec<String> = nft
            .dump_chains()
            .map_err(to_io)?
            .into_iter()
            .filter(|c| c.table == Table::NAME)
            .map(|c| c.name)
            .collect();
        let mut found = Vec::new();
        for element in elements(nft, "raw_in")? {
            let Some(Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) = &element.data
            else {
                continue;
            };
            let network = chain
                .strip_prefix("net-")
                .and_then(|c| c.strip_suffix("-raw"));
            let parsed = network.and_then(|n| n.parse::<NetworkName>().ok());
            let (Some(network), Some(bridge)) = (parsed, link_name(&element.key)) else {
                continue;
            };
            let host = format!("net-{network}-host");
            let host_rules = if chains.contains(&host) {
                let rules = nft.dump_chain_rules(Family::Inet, Table::NAME, &host);
                Some(rules.map_err(to_io)?.len())
            } else {
                None
            };
            found.push(OwnNetwork {
                internal: internal.contains(&bridge),
                icc: !chains.contains(&format!("net-{network}-apart")),
                open: open.contains(&bridge),
                host_rules,
                name: network,
                bridge,
            });
        }
        Ok(found)
    }

    /// The published ports in wharf's tables. What is published for both families is there twice.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_ports(&mut self) -> io::Result<Vec<Published>> {
        let nft = self.nf()?;
        let mut found = Vec::new();
        for v6 in [false, true] {
            for kind in ["publish", "range"] {
                for bound in [false, true] {
                    let set = format!(
                        "{kind}{}{}",
                        if v6 { 6 } else { 4 },
                        if bound { "_host" } else { "" }
                    );
                    for element in elements(nft, &set)? {
                        found.extend(published(&element, v6, bound));
                    }
                }
            }
        }
        Ok(found)
    }

    /// What wharf's rules hold back since it was not forwarded before wharf turned that on; `None` if nothing.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_transit(&mut self) -> io::Result<Option<Unforwarded>> {
        let nft = self.nf()?;
        let links = elements(nft, "host_links")?;
        let mut held = Unforwarded {
            links: links.iter().filter_map(|e| link_name(&e.key)).collect(),
            families: Vec::new(),
            wanted: Vec::new(),
            routing: Vec::new(),
        };
        let rules = match nft.dump_chain_rules(Family::Inet, Table::NAME, "transit") {
            Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
            other => other.map_err(to_io)?,
        };
        for rule in &rules {
            let families = families_of(rule);
            match verdict_of(rule) {
                Some(Verdict::Drop) if asks(rule, "host_links") => held.families = families,
                Some(Verdict::Accept) => {
                    let link = compared(rule, MetaKey::IifName).and_then(link_name);
                    let own = families.into_iter().zip(link);
                    held.routing.extend(own);
                }
                _ => {}
            }
        }
        Ok((!held.families.is_empty()).then_some(held))
    }

    /// The prefixes of networks, by their first address.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_subnets(&mut self) -> io::Result<Vec<IpAddr>> {
        self.own_prefixes(["inside4", "inside6"])
    }

    /// The prefixes whose sources are masqueraded, by their first address.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn own_masqueraded(&mut self) -> io::Result<Vec<IpAddr>> {
        self.own_prefixes(["masquerade4", "masquerade6"])
    }

    fn own_prefixes(&mut self, sets: [&str; 2]) -> io::Result<Vec<IpAddr>> {
        let nft = self.nf()?;
        let mut found = Vec::new();
        for set in sets {
            let starts = elements(nft, set)?;
            let starts = starts.iter().filter(|e| !e.is_interval_end());
            found.extend(starts.filter_map(|e| address(&e.key)));
        }
        Ok(found)
    }
}

/// What a rule compares with this.
fn compared(rule: &Rule, key: MetaKey) -> Option<&[u8]> {
    let loads = |e: &Expr| matches!(e, Expr::Meta(m) if m.key == key);
    let at = rule.exprs.iter().position(loads)?;
    match rule.exprs.get(at + 1)? {
        Expr::Cmp(cmp) => Some(&cmp.data),
        _ => None,
    }
}

/// The families of whose packets a rule is.
fn families_of(rule: &Rule) -> Vec<addr::Family> {
    let number = |family: addr::Family| match family {
        addr::Family::V4 => libc::AF_INET,
        addr::Family::V6 => libc::AF_INET6,
    };
    let only = compared(rule, MetaKey::NfProto);
    let is_of = |f: &addr::Family| only.is_none_or(|is| is == [number(*f) as u8]);
    addr::Family::BOTH.into_iter().filter(is_of).collect()
}

fn asks(rule: &Rule, set: &str) -> bool {
    let of_set = |e: &Expr| matches!(e, Expr::Lookup(l) if l.set == set);
    rule.exprs.iter().any(of_set)
}

/// What becomes of a packet by a rule.
pub(crate) fn verdict_of(rule: &Rule) -> Option<&Verdict> {
    rule.exprs.iter().find_map(|e| match e {
        Expr::Immediate(i) => match &i.data {
            Data::Verdict(verdict) => Some(verdict),
            Data::Value(_) => None,
        },
        _ => None,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

fn published(element: &Element, v6: bool, bound: bool) -> Option<Published> {
    let length = if v6 { 16 } else { 4 };
    let skip = if bound { length } else { 0 };
    let ports = |key: &[u8]| port(key.get(skip + WORD..)?);
    let first = ports(&element.key)?;
    let last = element.key_end.as_deref().and_then(ports).unwrap_or(first);
    let number = *element.key.get(skip)?;
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| p.number() == number)?;
    let Some(Data::Value(data)) = &element.data else {
        return None;
    };
    let host = PortRange::new(first, last)?;
    // Without a port of its own the number stays.
    let container = match data.get(length..).and_then(port) {
        Some(inside) => PortRange::new(inside, inside)?,
        None => host,
    };
    Some(Published {
        addr: address(data.get(..length)?)?,
        mapping: PortMapping {
            host_ip: bound.then(|| address(element.key.get(..length)?)).flatten(),
            host,
            container,
            protocol,
        },
    })
}
