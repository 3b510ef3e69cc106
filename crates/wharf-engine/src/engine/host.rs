//! What networks share on the host: base rules, sysctls (`forwarding.rs`), and giving both back.

use std::collections::BTreeSet;

use wharf_core::addr::{Family, Mac};
use wharf_core::compile::{self, Unforwarded};
use wharf_core::diff::diff;
use wharf_core::model::{Netns, Resource};
use wharf_core::name::IfName;
use wharf_core::network::NetworkSpec;
use wharf_core::nft::{Change, Object, Table};
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};

use crate::engine::Engine;
use crate::engine::forwarding::{
    Borrowed, HostLinks, family_of, forwarding, is_forwarding, own_forwarding,
};
use crate::error::EngineError;
use crate::kernel::netlink::{bridged_as_routed, has_ipv6};

/// What the run store remembers of the host, under these keys.
pub(super) mod key {
    /// The base rules are in place.
    pub const BASE: &str = "base";
    /// The links there were when wharf turned forwarding on, with spaces between.
    pub const HOST_LINKS: &str = "host-links";
    /// Of these, Docker's bridges that were closed then.
    pub const SHUT: &str = "docker-shut";
    /// Sysctls that wharf changed: this, then the path. The value is what it was.
    pub const SYSCTL: &str = "sysctl/";
}

/// What must be done to the host before a network can be.
#[derive(Debug, Default)]
pub(super) struct HostPart {
    pub(super) plan: Plan,
    pub(super) borrowed: Vec<Borrowed>,
    pub(super) host_links: Option<HostLinks>,
    taken_over: bool,
}

impl HostPart {
    /// What this and a further network need together.
    pub(super) fn and(&self, further: &Self) -> Self {
        let steps = [&self.plan, &further.plan]
            .map(|p| p.steps.clone())
            .concat();
        Self {
            plan: Plan { steps },
            borrowed: [self.borrowed.as_slice(), &further.borrowed].concat(),
            host_links: self.host_links.clone().or(further.host_links.clone()),
            taken_over: self.taken_over || further.taken_over,
        }
    }

    /// The sysctls as they should be.
    pub(super) fn sysctls(&self) -> Vec<Resource> {
        let one = |b: &Borrowed| Resource::Sysctl {
            netns: Netns::Host,
            key: b.key.clone(),
            value: b.value.clone(),
            link: None,
        };
        self.borrowed.iter().map(one).collect()
    }
}

/// What keeps forbidden what is forbidden when the rules are gone.
pub(super) fn backstop() -> Vec<Resource> {
    let families: &[Family] = if has_ipv6() {
        &Family::BOTH
    } else {
        &[Family::V4]
    };
    compile::backstop::shared(families)
}

/// What of the host decides how ports are made. Only where containers may not talk to each other does it.
pub(super) fn learn_of_host<'a>(nets: impl Iterator<Item = &'a mut NetworkSpec>) {
    let mut known = None;
    for net in nets.filter(|net| !net.icc) {
        net.bridged_as_routed = *known.get_or_insert_with(bridged_as_routed);
    }
}

/// The rules that all networks share, with those that hold back other flows.
pub(super) fn shared_rules(held: Option<&Unforwarded>) -> Vec<Resource> {
    let transit = compile::transit(held);
    let keys: BTreeSet<_> = transit.iter().map(Resource::key).collect();
    let mut all: Vec<Resource> = compile::base()
        .into_iter()
        .filter(|r| !keys.contains(&r.key()))
        .collect();
    // The transit chain is called by the forward chain, so it stands where it stood in the base.
    let at = all
        .iter()
        .position(|r| matches!(r, Resource::Nft(Object::Chain(_))))
        .unwrap_or(all.len());
    all.splice(at..at, transit);
    all
}

impl Engine {
    /// The base rules if they are missing, and forwarding where a network needs it. Rules come first: while
    /// forwarding is on, flows that were not forwarded before stay so.
    pub(super) fn prepare_host(&mut self, net: &NetworkSpec) -> Result<HostPart, EngineError> {
        self.prepare_host_after(&HostPart::default(), net)
    }

    /// As [`Engine::prepare_host`], where `done` has been done to the host and is not in the store.
    pub(super) fn prepare_host_after(
        &mut self,
        done: &HostPart,
        net: &NetworkSpec,
    ) -> Result<HostPart, EngineError> {
        if !net.is_managed() {
            return Ok(HostPart::default());
        }
        let base_there = self.base_is_there()? || !done.plan.is_empty();
        let known_links = done.host_links.is_some() || self.links_known()?.is_some();
        let mut borrowed = self.borrow_forwarding(net)?;
        borrowed.retain(|b| !done.borrowed.contains(b));
        let mut part = HostPart {
            borrowed,
            ..HostPart::default()
        };
        let turned_on = part.borrowed.iter().filter(|b| is_forwarding(&b.key));
        let turned_on: Vec<Family> = turned_on.map(|b| family_of(&b.key)).collect();
        if !known_links && !turned_on.is_empty() {
            part.host_links = Some(self.links_before(&turned_on)?);
        }
        let (before, held) = (self.held(done)?, self.held(&done.and(&part))?);
        if base_there {
            if held != before {
                part.plan = diff(
                    &compile::transit(held.as_ref()),
                    &compile::transit(before.as_ref()),
                    "forwarding is turned on: other flows stay as they were",
                );
            }
        } else {
            let mut all = shared_rules(held.as_ref());
            all.extend(backstop());
            part.plan = diff(&all, &[], "the rules all networks share are not there yet");
        }
        for b in &part.borrowed {
            let set = |value: &str| Op::SysctlSet {
                netns: Netns::Host,
                key: b.key.clone(),
                value: value.to_owned(),
            };
            let along = b.along.iter().map(|(key, was)| Op::SysctlSet {
                netns: Netns::Host,
                key: key.clone(),
                value: was.clone(),
            });
            part.plan.push(
                set(&b.value),
                Undo::Ops(std::iter::once(set(&b.was)).chain(along).collect()),
                "the host is the containers' router",
            );
        }
        Ok(part)
    }

    /// Whether the base rules are there. While no network is up, nobody makes them again that were flushed.
    fn base_is_there(&mut self) -> Result<bool, EngineError> {
        let (recorded, used) = self.run.read(|txn| {
            let recorded = self.run.meta.get(txn, key::BASE)?.is_some();
            let mut used = false;
            for item in self.run.networks.iter(txn)? {
                used |= item?.1.spec.is_managed();
            }
            Ok((recorded, used))
        })?;
        Ok(recorded && (used || self.has_own_tables()))
    }

    /// Remembers what [`Engine::prepare_host`] changed.
    pub(super) fn record_host(&self, txn: &mut heed::RwTxn, part: &HostPart) -> heed::Result<()> {
        if !part.plan.is_empty() || part.taken_over {
            self.run.meta.put(txn, key::BASE, "1")?;
        }
        if let Some(links) = &part.host_links {
            for (key, links) in [(key::HOST_LINKS, &links.all), (key::SHUT, &links.shut)] {
                let text: Vec<&str> = links.iter().map(IfName::as_str).collect();
                self.run.meta.put(txn, key, &text.join(" "))?;
            }
        }
        for b in &part.borrowed {
            let own = std::iter::once((&b.key, &b.was));
            for (key, was) in own.chain(b.along.iter().map(|(key, was)| (key, was))) {
                let name = format!("{}{key}", key::SYSCTL);
                self.run.meta.put(txn, &name, was)?;
            }
        }
        Ok(())
    }

    /// As [`Engine::record_host`], but what is remembered already stays: it is older.
    pub(super) fn record_host_anew(
        &self,
        txn: &mut heed::RwTxn,
        part: &HostPart,
    ) -> heed::Result<()> {
        let mut new = HostPart::default();
        for b in &part.borrowed {
            let key = format!("{}{}", key::SYSCTL, b.key);
            if self.run.meta.get(txn, &key)?.is_none() {
                new.borrowed.push(b.clone());
            }
        }
        if self.run.meta.get(txn, key::HOST_LINKS)?.is_none() {
            new.host_links.clone_from(&part.host_links);
        }
        self.record_host(txn, &new)
    }

    /// Remembers, of a host whose store was lost, what the kernel tells: what was not forwarded when wharf turned
    /// forwarding on, and which links it told to hear routers all the same.
    pub(super) fn record_taken_over(
        &self,
        txn: &mut heed::RwTxn,
        held: Option<&Unforwarded>,
        links: Option<HostLinks>,
        heard: &[String],
    ) -> heed::Result<()> {
        let along = |family: &Family| {
            let routing = held.iter().flat_map(|h| &h.routing);
            let own = routing.filter(|(of, _)| of == family);
            own.map(|(_, link)| (own_forwarding(*family, link), "1".to_owned()))
                .collect()
        };
        let borrow = |family: &Family| Borrowed {
            key: forwarding(*family).to_owned(),
            was: "0".to_owned(),
            value: "1".to_owned(),
            along: along(family),
        };
        let hear = |key: &String| Borrowed {
            key: key.clone(),
            was: "1".to_owned(),
            value: "2".to_owned(),
            along: Vec::new(),
        };
        let part = HostPart {
            plan: Plan::default(),
            borrowed: held
                .iter()
                .flat_map(|h| &h.families)
                .map(borrow)
                .chain(heard.iter().map(hear))
                .collect(),
            host_links: links,
            taken_over: true,
        };
        self.record_host(txn, &part)
    }

    /// What the networks need of the host beyond rules and do not have: sysctls that somebody changed since.
    pub(super) fn host_needs(&mut self, nets: &[NetworkSpec]) -> Result<HostPart, EngineError> {
        let mut all = HostPart::default();
        for net in nets {
            let part = self.prepare_host(net)?;
            all.host_links = all.host_links.or(part.host_links);
            for b in part.borrowed {
                if !all.borrowed.contains(&b) {
                    all.borrowed.push(b);
                }
            }
        }
        Ok(all)
    }

    /// What is left to do when the last network goes: the tables, and every sysctl as it was.
    pub(super) fn release_host(&mut self) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        let because = "the last network is gone";
        let mut stays = Vec::new();
        for (sysctl, was) in self.borrowed_sysctls()? {
            let family = family_of(&sysctl);
            if is_forwarding(&sysctl)
                && let Some(note) = self.stays_on(family)?
            {
                self.notes.push(note);
                stays.push(family);
            }
            // What goes with forwarding stays with it: the host would be deaf to routers.
            if stays.contains(&family) {
                continue;
            }
            let Some(is) = self.sysctl(&sysctl) else {
                continue;
            };
            // What changes along is right only until forwarding is turned off.
            let along = !is_forwarding(&sysctl) && !sysctl.ends_with("accept_ra");
            if is != was || along {
                let set = |value: String| Op::SysctlSet {
                    netns: Netns::Host,
                    key: sysctl.clone(),
                    value,
                };
                plan.push(set(was), Undo::Ops(vec![set(is)]), because);
            }
        }
        plan.append(diff(&[], &backstop(), because));
        let del = Table::ALL
            .into_iter()
            .map(|t| Change::Del(Object::Table(t)))
            .collect();
        plan.push(
            Op::Nft(del),
            Undo::Irreversible("`wharf repair` makes them again"),
            because,
        );
        Ok(plan)
    }

    /// Forgets what [`Engine::release_host`] gave back.
    pub(super) fn forget_host(&self, txn: &mut heed::RwTxn) -> heed::Result<()> {
        self.run.meta.delete(txn, key::BASE)?;
        self.run.meta.delete(txn, key::HOST_LINKS)?;
        self.run.meta.delete(txn, key::SHUT)?;
        let keys: Vec<String> = self
            .run
            .meta
            .prefix_iter(txn, key::SYSCTL)?
            .map(|item| item.map(|(k, _)| k.to_owned()))
            .collect::<heed::Result<_>>()?;
        for key in keys {
            self.run.meta.delete(txn, &key)?;
        }
        Ok(())
    }

    pub(super) fn borrowed_sysctls(&self) -> Result<Vec<(String, String)>, EngineError> {
        self.run.read(|txn| {
            let all = self.run.meta.prefix_iter(txn, key::SYSCTL)?;
            // Forwarding first: while it is on, `accept_ra` 1 would be deaf, and it changes others along.
            let mut all: Vec<(String, String)> = all
                .map(|item| item.map(|(k, v)| (k[key::SYSCTL.len()..].to_owned(), v.to_owned())))
                .collect::<heed::Result<_>>()?;
            all.sort_by_key(|(k, _)| !is_forwarding(k));
            Ok(all)
        })
    }

    /// A sysctl of the host; `None` if there is none of that name.
    pub(super) fn sysctl(&mut self, key: &str) -> Option<String> {
        self.kernel.sysctl(&Netns::Host, key).ok().flatten()
    }

    /// The bridges of networks, by name and hardware address: somebody may have given them other names.
    pub(super) fn own_bridges(&self) -> Result<Vec<(IfName, Mac)>, EngineError> {
        self.run.read(|txn| {
            let mut own = Vec::new();
            for item in self.run.networks.iter(txn)? {
                let spec = item?.1.spec;
                own.extend(spec.is_managed().then_some((spec.bridge, spec.bridge_mac)));
            }
            Ok(own)
        })
    }

    /// The host's links, loopback and wharf's bridges apart.
    pub(super) fn foreign_links(&mut self) -> Result<Vec<IfName>, EngineError> {
        let own = self.own_bridges()?;
        let links = self
            .kernel
            .links(&Netns::Host)
            .map_err(|e| failed("list links", &e))?;
        Ok(links
            .into_iter()
            .filter_map(|l| l.name.parse().ok())
            .filter(|name| !own.iter().any(|(own, _)| own == name))
            .collect())
    }
}

/// An error of something read from the kernel.
pub(super) fn failed(verb: &str, error: &std::io::Error) -> EngineError {
    let errno = error.raw_os_error().unwrap_or(0);
    EngineError::System {
        verb: verb.to_owned(),
        detail: error.to_string(),
        errno,
    }
}

/// An error of an operation outside a plan.
pub(super) fn failed_op(verb: &str, error: &crate::kernel::OpError) -> EngineError {
    EngineError::System {
        verb: verb.to_owned(),
        detail: error.to_string(),
        errno: error.errno,
    }
}
