//! Docker's bridges. wharf lets its own pass at Docker's chain for users' rules, and so past what Docker would say of
//! them: what Docker keeps everybody from, wharf keeps its containers from.
//!
//! Which bridges are Docker's its rules tell, in `ip filter` and `ip6 filter` and in the old iptables' tables; those of its
//! nftables backend judge by themselves.

use std::collections::BTreeSet;

use wharf_core::addr::Family;
use wharf_core::compile::Docker;
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::IfName;
use wharf_core::nft::{Field, Object};
use wharf_core::plan::Plan;
use wharf_nft::expr::{CmpOp, MetaKey};
use wharf_nft::{Chain, Expr, Family as NftFamily, NfSocket, NftError, Rule, SetRef, Verdict};

use crate::api::Finding;
use crate::engine::Engine;
use crate::engine::foreign::{foreign_chains, refuses};
use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::netlink::door::FILTER;
use crate::observe::xtables::{self, Target};
use crate::observe::{link_name, verdict_of};

/// The set of links between which nothing is forwarded.
const HELD: &str = "host_links";
/// Where Docker's rules for its bridges begin, and how its chains are called.
const DOCKER: &str = "DOCKER";
/// Its chain for users' rules, which says nothing of Docker.
const USERS: &str = "DOCKER-USER";
/// Here it drops what comes from other bridges of its own.
const AMONG_ITS_OWN: &str = "DOCKER-ISOLATION-STAGE-2";

impl Engine {
    /// Has wharf's rules know Docker's bridges as they are now. What fails here is found by `repair`.
    pub(super) fn learn_of_docker(&mut self) {
        let plan = self.docker_plan();
        self.carry_out_all(&plan);
    }

    /// What has wharf's rules know Docker's bridges.
    pub(super) fn docker_plan(&mut self) -> Plan {
        let wanted = docker(&mut self.kernel);
        // Where Docker is not, nothing is to be done; what is left of it goes with `repair`.
        if wanted.bridges.is_empty() {
            return Plan::default();
        }
        let there = known(&mut self.kernel);
        let mut plan = diff(&wanted.elements(), &there, "Docker's bridges");
        // Where the store cannot be read, `repair` says so.
        let held = self.host_links().ok().flatten().unwrap_or_default();
        let given = given(&mut self.kernel, &wanted, &held);
        plan.append(diff(&[], &given, "Docker forwards for its bridges"));
        plan
    }
}

/// Docker's bridges by its rules; none where those cannot be read.
pub(super) fn docker(kernel: &mut NetlinkKernel) -> Docker {
    let read = kernel.nftables().and_then(read);
    let mut found = read.unwrap_or_default();
    for family in Family::BOTH {
        read_xtables(family, &mut found);
    }
    if !found.bridges.is_empty() {
        // A bridge of the host's own that Docker shares is the way out.
        let ways_out = ways_out(kernel);
        found.bridges.retain(|name| !ways_out.contains(name));
        found.unguarded.retain(|(_, name)| !ways_out.contains(name));
    }
    found
}

/// What wharf's sets hold of Docker's bridges.
pub(super) fn known(kernel: &mut NetlinkKernel) -> Vec<Resource> {
    elements(kernel, &Docker::SETS)
}

/// Bridges that wharf's rules hold back, and that Docker took over: `held` are those that are still to be held back.
pub(super) fn given(kernel: &mut NetlinkKernel, docker: &Docker, held: &[IfName]) -> Vec<Resource> {
    let mut there = elements(kernel, &[HELD]);
    let given = docker.bridges.iter().filter(|link| !held.contains(link));
    let given: Vec<Resource> = given.map(|link| Docker::element(HELD, link)).collect();
    there.retain(|element| given.contains(element));
    there
}

fn elements(kernel: &mut NetlinkKernel, sets: &[&'static str]) -> Vec<Resource> {
    let Ok(nft) = kernel.nftables() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for name in sets {
        let set = SetRef::new(NftFamily::Inet, wharf_core::nft::Table::NAME, *name);
        let elements = nft.dump_elements(&set).unwrap_or_default();
        let links = elements.iter().filter_map(|e| link_name(&e.key));
        all.extend(links.map(|link| Docker::element(name, &link)));
    }
    all
}

/// What is wrong with what the rules are told of a bridge.
pub(super) fn told_wrong(element: &Resource, was: &str) -> Finding {
    let link = match element {
        Resource::Nft(Object::Element(e)) => match e.key.first() {
            Some(Field::Name(link)) => link.as_str(),
            _ => "",
        },
        _ => "",
    };
    Finding {
        object: format!("Docker's bridge {link}"),
        was: was.to_owned(),
    }
}

fn read(nft: &mut NfSocket) -> Result<Docker, NftError> {
    let chains = foreign_chains(nft)?;
    let mut found = Docker::default();
    for (of, family) in [(NftFamily::Ip, Family::V4), (NftFamily::Ip6, Family::V6)] {
        let filter = |c: &&Chain| c.family == of && c.table == FILTER;
        if !chains.iter().filter(filter).any(|c| c.name == DOCKER) {
            continue;
        }
        let mut of_family = Seen::default();
        let mut open = true;
        for chain in chains.iter().filter(filter) {
            let forward = chain.name == "FORWARD";
            open &= !forward || !refuses(nft, chain)?;
            if !forward && !is_dockers(&chain.name) {
                continue;
            }
            for rule in nft.dump_chain_rules(of, FILTER, &chain.name)? {
                let Some(link) = out_by(&rule) else { continue };
                match verdict_of(&rule) {
                    Some(Verdict::Jump(to)) if to == DOCKER => of_family.asked(link),
                    Some(Verdict::Drop) if !forward => of_family.dropped(&chain.name, link),
                    _ => {}
                }
            }
        }
        of_family.join(&mut found, family, open);
    }
    Ok(found)
}

/// The same in the old iptables' table, which nftables does not show.
fn read_xtables(family: Family, found: &mut Docker) {
    let Some(filter) = xtables::filter(family) else {
        return;
    };
    let mut of_family = Seen::default();
    for rule in filter.outward {
        let Ok(link) = rule.link.parse() else {
            continue;
        };
        match rule.target {
            Target::Chain(to) if to == DOCKER => of_family.asked(link),
            Target::Drop if is_dockers(&rule.chain) => of_family.dropped(&rule.chain, link),
            _ => {}
        }
    }
    of_family.join(found, family, !filter.forward_drops);
}

/// Whether it is one of Docker's own chains.
fn is_dockers(chain: &str) -> bool {
    chain.starts_with(DOCKER) && chain != USERS
}

/// Whether Docker has its rules in the old iptables' table.
pub(super) fn is_in_xtables(family: Family) -> bool {
    xtables::filter(family).is_some_and(|f| f.chains.iter().any(|c| c == DOCKER))
}

/// What one family's rules say.
#[derive(Default)]
struct Seen {
    bridges: BTreeSet<IfName>,
    guarded: BTreeSet<IfName>,
}

impl Seen {
    /// What goes there is judged by Docker.
    fn asked(&mut self, link: IfName) {
        self.bridges.insert(link);
    }

    fn dropped(&mut self, chain: &str, link: IfName) {
        if chain != AMONG_ITS_OWN {
            self.guarded.insert(link.clone());
        }
        self.bridges.insert(link);
    }

    /// `open`: what no rule drops passes.
    fn join(self, found: &mut Docker, family: Family, open: bool) {
        let unguarded = self.bridges.difference(&self.guarded).filter(|_| open);
        let unguarded = unguarded.map(|link| (family, link.clone()));
        found.unguarded.extend(unguarded);
        found.bridges.extend(self.bridges);
    }
}

/// The link that a rule is about by which packets leave.
fn out_by(rule: &Rule) -> Option<IfName> {
    let loads = |e: &Expr| matches!(e, Expr::Meta(m) if m.key == MetaKey::OifName);
    let at = rule.exprs.iter().position(loads)?;
    match rule.exprs.get(at + 1)? {
        // Without a final zero it is the beginning of names.
        Expr::Cmp(cmp) if cmp.op == CmpOp::Eq && cmp.data.ends_with(&[0]) => link_name(&cmp.data),
        _ => None,
    }
}

/// The links that default routes lead over.
fn ways_out(kernel: &mut NetlinkKernel) -> BTreeSet<IfName> {
    let routes = kernel.routes(&Netns::Host).unwrap_or_default();
    let out: Vec<u32> = routes
        .iter()
        .filter(|r| r.dst.prefix_len() == 0)
        .filter_map(|r| r.oif)
        .collect();
    let links = kernel.links(&Netns::Host).unwrap_or_default();
    let links = links.iter().filter(|l| out.contains(&l.index));
    links.filter_map(|l| l.name.parse().ok()).collect()
}
