//! Forwarding: turned on for networks, held back for everybody else, and turned off again.
//!
//! What was not forwarded before wharf turned it on stays so, unless the administrator wants it: who has forwarding in the
//! files that sysctls are set from at boot (`observe/sysctl_files.rs`) has a router. Then nothing is held back, and
//! forwarding stays on. The files are read whenever rules are compiled or forwarding would be turned off; when they no
//! longer say so, all is as if they never had.

use std::collections::BTreeSet;
use std::path::Path;

use wharf_core::addr::Family;
use wharf_core::compile::Unforwarded;
use wharf_core::model::Netns;
use wharf_core::name::IfName;
use wharf_core::network::NetworkSpec;

use crate::api::Note;
use crate::engine::Engine;
use crate::engine::docker::{docker, is_in_xtables};
use crate::engine::host::{HostPart, failed, key};
use crate::error::EngineError;
use crate::observe::LinkInfo;
use crate::observe::sysctl_files::{Said, said};

/// The sysctl that makes a host a router.
pub(super) fn forwarding(family: Family) -> &'static str {
    match family {
        Family::V4 => "net/ipv4/ip_forward",
        Family::V6 => "net/ipv6/conf/all/forwarding",
    }
}

/// A change of a sysctl that wharf gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Borrowed {
    pub(super) key: String,
    pub(super) was: String,
    pub(super) value: String,
    /// What the kernel changes along with it, and what that was.
    pub(super) along: Vec<(String, String)>,
}

/// The links there were when wharf turned forwarding on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostLinks {
    pub(super) all: Vec<IfName>,
    /// Of these, Docker's bridges that had addresses: Docker had them, and did not have forwarding.
    pub(super) shut: Vec<IfName>,
}

impl HostLinks {
    /// Those between which nothing is forwarded: not bridges that Docker took over afterwards, for Docker turns forwarding
    /// on itself where it is not.
    fn held(self, docker: &BTreeSet<IfName>) -> Vec<IfName> {
        let Self { mut all, shut } = self;
        all.retain(|link| shut.contains(link) || !docker.contains(link));
        all
    }
}

/// The family that a sysctl is about.
pub(super) fn family_of(key: &str) -> Family {
    match key.starts_with("net/ipv6/") {
        true => Family::V6,
        false => Family::V4,
    }
}

/// What the administrator's files say of forwarding, if they turn it on.
pub(super) fn is_router(family: Family) -> Option<Said> {
    let names: &[&str] = match family {
        Family::V4 => &[forwarding(family), "net/ipv4/conf/all/forwarding"],
        Family::V6 => &[forwarding(family)],
    };
    let said = said(Path::new("/"), names)?;
    let on = said.value.parse::<i32>().is_ok_and(|value| value != 0);
    on.then_some(said)
}

/// The sysctl that a link's own forwarding is.
pub(super) fn own_forwarding(family: Family, link: &IfName) -> String {
    let dir = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("net/{dir}/conf/{link}/forwarding")
}

/// The link whose own forwarding a sysctl is.
fn routes_alone(key: &str) -> Option<(Family, IfName)> {
    let rest = key.strip_suffix("/forwarding")?;
    let (family, name) = match rest.strip_prefix("net/ipv4/conf/") {
        Some(name) => (Family::V4, name),
        None => (Family::V6, rest.strip_prefix("net/ipv6/conf/")?),
    };
    let all = ["all", "default"].contains(&name);
    let name = name.parse().ok().filter(|_| !all)?;
    Some((family, name))
}

/// Whether a sysctl is one of those that turn forwarding on and off for the host.
pub(super) fn is_forwarding(key: &str) -> bool {
    Family::BOTH.map(forwarding).contains(&key)
}

impl Engine {
    /// Sysctls that must change for a network to have a way out. Turning IPv6 forwarding on makes a host deaf
    /// to router advertisements, unless it is told to hear them all the same (`accept_ra` 2,
    /// Documentation/networking/ip-sysctl.rst).
    pub(super) fn borrow_forwarding(
        &mut self,
        net: &NetworkSpec,
    ) -> Result<Vec<Borrowed>, EngineError> {
        let mut borrowed = Vec::new();
        if net.internal {
            return Ok(borrowed);
        }
        for family in net.subnets.iter().map(|s| s.family()) {
            let sysctl = forwarding(family);
            if self.sysctl(sysctl).as_deref() != Some("0") {
                continue;
            }
            if family == Family::V6 {
                for key in self.accept_ra_keys()? {
                    if self.sysctl(&key).as_deref() == Some("1") {
                        borrowed.push(Borrowed {
                            key,
                            was: "1".to_owned(),
                            value: "2".to_owned(),
                            along: Vec::new(),
                        });
                    }
                }
            }
            borrowed.push(Borrowed {
                key: sysctl.to_owned(),
                was: "0".to_owned(),
                value: "1".to_owned(),
                along: self.changed_along(family)?,
            });
        }
        Ok(borrowed)
    }

    /// What is not as it was when forwarding has been turned on and off again: single links, and those to come, are like
    /// all then, and redirects are believed again (`inet_forward_change`, `addrconf_forward_change`).
    fn changed_along(&mut self, family: Family) -> Result<Vec<(String, String)>, EngineError> {
        let dir = match family {
            Family::V4 => "net/ipv4/conf",
            Family::V6 => "net/ipv6/conf",
        };
        let mut links = self.foreign_links()?;
        links.push(IfName::loopback());
        links.dedup();
        let single = links.iter().map(|link| own_forwarding(family, link));
        let redirects = (family == Family::V4).then(|| format!("{dir}/all/accept_redirects"));
        let others = single
            .chain([format!("{dir}/default/forwarding")])
            .map(|key| (key, "1"))
            .chain(redirects.map(|key| (key, "0")));
        let mut along = Vec::new();
        for (key, unlike) in others {
            if self.sysctl(&key).as_deref() == Some(unlike) {
                along.push((key, unlike.to_owned()));
            }
        }
        Ok(along)
    }

    /// `accept_ra` of the links a router may be heard on: not loopback, not wharf's bridges, not ports of bridges.
    pub(super) fn accept_ra_keys(&mut self) -> Result<Vec<String>, EngineError> {
        let foreign = self.foreign_links()?;
        let links = self
            .kernel
            .links(&Netns::Host)
            .map_err(|e| failed("list links", &e))?;
        let heard = links.into_iter().filter(|l| l.master.is_none());
        let names = heard
            .filter_map(|l| l.name.parse::<IfName>().ok())
            .filter(|name| foreign.contains(name));
        Ok(names
            .map(|name| format!("net/ipv6/conf/{name}/accept_ra"))
            .collect())
    }

    /// What is to be known when forwarding stays on for others' bridges. Docker drops by policy what it does not know
    /// only if it turned forwarding on itself.
    fn left_on(&mut self, family: Family, needed_by: &[IfName]) -> Note {
        let unguarded = docker(&mut self.kernel).unguarded.into_iter();
        let open = unguarded.filter(|(of, _)| *of == family);
        let open: Vec<String> = open.map(|(_, link)| link.to_string()).collect();
        let program = match family {
            Family::V6 => "ip6tables",
            Family::V4 => "iptables",
        };
        let legacy = match is_in_xtables(family) {
            true => "-legacy",
            false => "",
        };
        let fix = (!open.is_empty()).then(|| format!("{program}{legacy} -P FORWARD DROP"));
        Note::ForwardingLeftOn {
            bridges: needed_by.iter().map(IfName::to_string).collect(),
            open,
            fix: fix.into_iter().collect(),
        }
    }

    /// What is held back, with what is about to be turned on.
    pub(super) fn held(&mut self, part: &HostPart) -> Result<Option<Unforwarded>, EngineError> {
        let links = match &part.host_links {
            Some(links) => Some(self.held_of(links.clone())),
            None => self.host_links()?,
        };
        let Some(links) = links else {
            return Ok(None);
        };
        let known = self.borrowed_sysctls()?.into_iter().map(|(key, _)| key);
        let new = part.borrowed.iter().flat_map(|b| {
            let along = b.along.iter().map(|(key, _)| key.clone());
            along.chain([b.key.clone()])
        });
        let keys: BTreeSet<String> = known.chain(new).collect();
        let families = Family::BOTH.into_iter();
        let families: Vec<Family> = families.filter(|f| keys.contains(forwarding(*f))).collect();
        if families.is_empty() {
            return Ok(None);
        }
        let wanted = families.iter().filter(|f| is_router(**f).is_some());
        Ok(Some(Unforwarded {
            links,
            wanted: wanted.copied().collect(),
            families,
            routing: keys.iter().filter_map(|key| routes_alone(key)).collect(),
        }))
    }

    /// The links that there are now, when forwarding is about to be turned on for `families`.
    pub(super) fn links_before(&mut self, families: &[Family]) -> Result<HostLinks, EngineError> {
        let all = self.foreign_links()?;
        let docker = docker(&mut self.kernel).bridges;
        let mut shut: Vec<IfName> = Vec::new();
        for family in families {
            shut.extend(self.bridges_with(*family)?);
        }
        shut.retain(|link| docker.contains(link));
        shut.sort();
        shut.dedup();
        Ok(HostLinks { all, shut })
    }

    /// The links there were when wharf turned forwarding on, and that are held back for it.
    pub(super) fn host_links(&mut self) -> Result<Option<Vec<IfName>>, EngineError> {
        let known = self.links_known()?;
        Ok(known.map(|links| self.held_of(links)))
    }

    fn held_of(&mut self, links: HostLinks) -> Vec<IfName> {
        let docker = docker(&mut self.kernel).bridges;
        links.held(&docker)
    }

    pub(super) fn links_known(&self) -> Result<Option<HostLinks>, EngineError> {
        let names = |text: &str| -> Vec<IfName> {
            let names = text.split_whitespace();
            names.filter_map(|name| name.parse().ok()).collect()
        };
        self.run.read(|txn| {
            let Some(all) = self.run.meta.get(txn, key::HOST_LINKS)? else {
                return Ok(None);
            };
            let shut = self.run.meta.get(txn, key::SHUT)?.unwrap_or_default();
            Ok(Some(HostLinks {
                all: names(all),
                shut: names(shut),
            }))
        })
    }

    /// Why forwarding stays on in each family though the last network goes. Nothing where it goes off.
    pub(super) fn stays_on(&mut self, family: Family) -> Result<Option<Note>, EngineError> {
        if let Some(said) = is_router(family) {
            return Ok(Some(Note::ForwardingConfigured {
                sysctl: forwarding(family).replace('/', "."),
                file: said.file,
            }));
        }
        let needed_by = self.other_bridges(family)?;
        if needed_by.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.left_on(family, &needed_by)))
    }

    /// Bridges that appeared since wharf turned forwarding on, are not wharf's, and have an address: their owner found it on.
    fn other_bridges(&mut self, family: Family) -> Result<Vec<IfName>, EngineError> {
        let Some(known) = self.host_links()? else {
            return Ok(Vec::new());
        };
        let mut bridges = self.bridges_with(family)?;
        bridges.retain(|name| !known.contains(name));
        Ok(bridges)
    }

    /// Bridges that are not wharf's and have an address, other than one that the kernel gave.
    fn bridges_with(&mut self, family: Family) -> Result<Vec<IfName>, EngineError> {
        let own = self.own_bridges()?;
        let links = self.kernel.links(&Netns::Host);
        let links = links.map_err(|e| failed("list links", &e))?;
        let addrs = self.kernel.addrs(&Netns::Host);
        let addrs = addrs.map_err(|e| failed("list the host's addresses", &e))?;
        let of_family = |addr: &ipnet::IpNet| match addr {
            ipnet::IpNet::V4(_) => family == Family::V4,
            ipnet::IpNet::V6(net) => family == Family::V6 && !net.addr().is_unicast_link_local(),
        };
        let is_own = |l: &LinkInfo| {
            let mut own = own.iter();
            own.any(|(name, mac)| l.name == name.as_str() || l.mac == Some(*mac))
        };
        let has = |l: &LinkInfo| addrs.iter().any(|(at, a)| *at == l.index && of_family(a));
        let bridges = links
            .iter()
            .filter(|l| l.kind.as_deref() == Some("bridge") && !is_own(l) && has(l));
        Ok(bridges.filter_map(|l| l.name.parse().ok()).collect())
    }
}
