//! Whose a table, chain or rule is, told by the names that tools give theirs.
//!
//! Not here: whose a link or route is.

use crate::nft;
use crate::trace::report::Owner;
use crate::trace::ruleset::{Base, Chain, Expr, Hook, Rule, RuleVerdict, TableFamily};

/// Chains and what begins their names.
const CHAINS: &[(&str, Owner)] = &[
    ("DOCKER", Owner::Docker),
    ("ufw-", Owner::Ufw),
    ("ufw6-", Owner::Ufw),
    ("LIBVIRT_", Owner::Libvirt),
    ("libvirt-", Owner::Libvirt),
    ("KUBE-", Owner::Kubernetes),
    ("cali-", Owner::Kubernetes),
    ("CNI-", Owner::Kubernetes),
    ("CILIUM", Owner::Kubernetes),
    ("OLD_CILIUM", Owner::Kubernetes),
    ("FLANNEL-", Owner::Kubernetes),
    ("WEAVE", Owner::Kubernetes),
    ("NETAVARK", Owner::Podman),
    ("PODMAN", Owner::Podman),
];

/// Tables that are one tool's alone.
const TABLES: &[(&str, Owner)] = &[
    ("docker-bridges", Owner::Docker),
    ("firewalld", Owner::Firewalld),
    ("libvirt_network", Owner::Libvirt),
    ("kube-proxy", Owner::Kubernetes),
    ("calico", Owner::Kubernetes),
    ("cilium", Owner::Kubernetes),
    ("netavark", Owner::Podman),
];

/// What firewalld calls its chains in the tables that it shares, where it uses iptables.
const FIREWALLD_ENDS: &[&str] = &["_ZONES", "_ZONES_SOURCE", "_direct"];
const FIREWALLD_ZONES: &[&str] = &["IN_", "FWDI_", "FWDO_", "FWD_", "PRE_", "POST_", "OUT_"];

/// Where Docker lets the administrator put rules.
const DOCKER_USER: &str = "DOCKER-USER";

/// The owner that the name of a table tells; wharf's are told by their family too.
#[must_use]
pub fn by_table(table: &str) -> Option<Owner> {
    let found = TABLES.iter().find(|(name, _)| *name == table);
    found.map(|(_, owner)| *owner)
}

/// The owner that the name of a chain tells.
#[must_use]
pub fn by_chain(chain: &str) -> Option<Owner> {
    if FIREWALLD_ENDS.iter().any(|end| chain.ends_with(end)) {
        return Some(Owner::Firewalld);
    }
    let found = CHAINS.iter().find(|(start, _)| chain.starts_with(start));
    found.map(|(_, owner)| *owner)
}

/// What the chains of one table tell of each other.
#[derive(Debug, Clone, Copy, Default)]
struct Table {
    docker: bool,
    ufw: bool,
    /// What ufw does with what it does not decide, in its own words: to drop.
    ufw_drops_forward: bool,
    firewalld: bool,
}

impl Table {
    fn see(&mut self, chain: &Chain) {
        match by_chain(&chain.name) {
            Some(Owner::Docker) => self.docker = true,
            Some(Owner::Ufw) => self.ufw = true,
            Some(Owner::Firewalld) => self.firewalld = true,
            _ => {}
        }
        let policy = ["ufw-skip-to-policy-forward", "ufw6-skip-to-policy-forward"];
        if policy.contains(&chain.name.as_str()) {
            let mut exprs = chain.rules.iter().flat_map(|r| &r.exprs);
            self.ufw_drops_forward = exprs.any(|e| *e == Expr::Verdict(RuleVerdict::Drop));
        }
    }

    /// Who set the policy of a base chain that several tools share.
    fn of_policy(self, base: &Base) -> Owner {
        if !base.drops {
            return Owner::User;
        }
        match base.hook {
            // Both drop what is forwarded; ufw keeps on record whether it does.
            Hook::Forward if self.docker && self.ufw => {
                if self.ufw_drops_forward {
                    Owner::Ufw
                } else {
                    Owner::Docker
                }
            }
            Hook::Forward if self.docker => Owner::Docker,
            Hook::Forward | Hook::Input | Hook::Output if self.ufw => Owner::Ufw,
            _ if self.firewalld => Owner::Firewalld,
            _ => Owner::User,
        }
    }

    fn of(self, chain: &Chain) -> Owner {
        if is_wharf(chain) {
            return Owner::Wharf;
        }
        let known = by_table(&chain.table).or_else(|| by_chain(&chain.name));
        if let Some(owner) = known {
            return owner;
        }
        let zone = FIREWALLD_ZONES.iter().any(|s| chain.name.starts_with(s));
        match &chain.base {
            Some(base) if shared(chain) => self.of_policy(base),
            None if self.firewalld && zone => Owner::Firewalld,
            _ => Owner::User,
        }
    }
}

/// In wharf's own tables, which are of two families.
fn is_wharf(chain: &Chain) -> bool {
    let family = match chain.family {
        TableFamily::Inet => nft::Table::Inet,
        TableFamily::Bridge => nft::Table::Bridge,
        _ => return false,
    };
    nft::Table::ALL.contains(&family) && chain.table == nft::Table::NAME
}

/// A base chain that iptables makes, in which all tools have rules.
fn shared(chain: &Chain) -> bool {
    let tables = ["filter", "nat", "mangle", "raw", "security"];
    matches!(chain.family, TableFamily::Ip | TableFamily::Ip6)
        && chain.base.is_some()
        && tables.contains(&chain.table.as_str())
}

/// The owner of a chain; for a base chain that drops what no rule decided, of this policy. `all` has at least the
/// chains of its table.
#[must_use]
pub fn of(chain: &Chain, all: &[Chain]) -> Owner {
    let mut table = Table::default();
    for other in all.iter().filter(|other| same_table(chain, other)) {
        table.see(other);
    }
    table.of(chain)
}

fn same_table(a: &Chain, b: &Chain) -> bool {
    a.backend == b.backend && a.family == b.family && a.table == b.table
}

/// Sets the owner of all chains.
pub fn assign(chains: &mut [Chain]) {
    let mut tables: Vec<(usize, Table)> = Vec::new();
    let mut place = Vec::with_capacity(chains.len());
    for (at, chain) in chains.iter().enumerate() {
        let known = tables
            .iter()
            .position(|(first, _)| same_table(chain, &chains[*first]));
        let known = known.unwrap_or_else(|| {
            tables.push((at, Table::default()));
            tables.len() - 1
        });
        tables[known].1.see(chain);
        place.push(known);
    }
    for (chain, table) in chains.iter_mut().zip(place) {
        chain.owner = tables[table].1.of(chain);
    }
}

impl Chain {
    /// Whose a rule of this chain is: in base chains that all tools share, by where it jumps to and what its comment
    /// says, and else the administrator's; in other chains as the chain.
    #[must_use]
    pub fn owner_of(&self, rule: &Rule) -> Owner {
        if self.name == DOCKER_USER {
            return Owner::User;
        }
        if !shared(self) {
            return self.owner;
        }
        let jump = rule.exprs.iter().find_map(|e| match e {
            Expr::Verdict(RuleVerdict::Jump(to) | RuleVerdict::Goto(to)) => by_chain(to),
            _ => None,
        });
        jump.or_else(|| by_comment(rule.comment.as_deref()?))
            .unwrap_or(Owner::User)
    }
}

/// Comments by which tools know their rules again, by how they begin.
const COMMENTS: &[(&str, Owner)] = &[
    ("cali:", Owner::Kubernetes),
    ("kubernetes ", Owner::Kubernetes),
    ("cilium", Owner::Kubernetes),
    ("flanneld ", Owner::Kubernetes),
    ("netavark ", Owner::Podman),
];

fn by_comment(comment: &str) -> Option<Owner> {
    let found = COMMENTS
        .iter()
        .find(|(start, _)| comment.starts_with(start));
    found.map(|(_, owner)| *owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::ruleset::{Backend, ChainKind};

    fn chain(table: &str, name: &str, hook: Option<Hook>, drops: bool) -> Chain {
        let base = |hook| Base {
            hook,
            priority: 0,
            kind: ChainKind::Filter,
            drops,
            devices: Vec::new(),
        };
        Chain {
            backend: Backend::Nft,
            family: TableFamily::Ip,
            table: table.to_owned(),
            name: name.to_owned(),
            base: hook.map(base),
            rules: Vec::new(),
            owner: Owner::Kernel,
        }
    }

    fn rule(verdict: RuleVerdict, comment: Option<&str>) -> Rule {
        Rule {
            handle: 1,
            exprs: vec![Expr::Nothing, Expr::Verdict(verdict)],
            comment: comment.map(str::to_owned),
            text: "".into(),
        }
    }

    /// A filter table with the policies to drop, and chains of these names beside.
    fn filter(names: &[&str]) -> Vec<Chain> {
        let mut chains = vec![
            chain("filter", "INPUT", Some(Hook::Input), true),
            chain("filter", "FORWARD", Some(Hook::Forward), true),
            chain("filter", "OUTPUT", Some(Hook::Output), false),
        ];
        chains.extend(names.iter().map(|n| chain("filter", n, None, false)));
        chains
    }

    fn owners(chains: &[Chain]) -> Vec<Owner> {
        let mut assigned = chains.to_vec();
        assign(&mut assigned);
        let owners: Vec<Owner> = assigned.iter().map(|c| c.owner).collect();
        let each: Vec<Owner> = chains.iter().map(|c| of(c, chains)).collect();
        assert_eq!(owners, each);
        owners
    }

    #[test]
    fn who_set_a_policy_is_told_by_the_chains_beside_it() {
        use Owner::{Docker, Firewalld, Ufw, User};
        assert_eq!(owners(&filter(&["mine"])), [User, User, User, User]);
        let docker = filter(&["DOCKER-FORWARD"]);
        assert_eq!(owners(&docker), [User, Docker, User, Docker]);
        let ufw = filter(&["ufw-before-input"]);
        assert_eq!(owners(&ufw), [Ufw, Ufw, User, Ufw]);
        let zones = filter(&["FORWARD_IN_ZONES", "FWDI_public"]);
        let all = [Firewalld, Firewalld, User, Firewalld, Firewalld];
        assert_eq!(owners(&zones), all);
    }

    #[test]
    fn of_docker_and_ufw_the_one_that_drops_is_named() {
        let mut both = filter(&["DOCKER", "ufw-skip-to-policy-forward"]);
        both[4].rules = vec![rule(RuleVerdict::Accept, None)];
        assert_eq!(owners(&both)[..2], [Owner::Ufw, Owner::Docker]);
        both[4].rules = vec![rule(RuleVerdict::Drop, None)];
        assert_eq!(owners(&both)[..2], [Owner::Ufw, Owner::Ufw]);
    }

    #[test]
    fn chains_of_another_table_tell_nothing() {
        let mut chains = filter(&[]);
        chains.push(chain("nat", "DOCKER", None, false));
        assert_eq!(owners(&chains)[1], Owner::User);
        chains[3].table = "filter".to_owned();
        chains[3].backend = Backend::Legacy;
        assert_eq!(owners(&chains)[1], Owner::User);
    }

    #[test]
    fn a_table_of_a_tool_is_whole_that_tools() {
        for (table, owner) in [
            ("wharf", Owner::User),
            ("docker-bridges", Owner::Docker),
            ("firewalld", Owner::Firewalld),
            ("libvirt_network", Owner::Libvirt),
            ("netavark", Owner::Podman),
            ("kube-proxy", Owner::Kubernetes),
            ("f", Owner::User),
        ] {
            let chains = [chain(table, "forward", Some(Hook::Forward), true)];
            assert_eq!(owners(&chains), [owner], "{table}");
        }
        let mut own = chain("wharf", "forward", Some(Hook::Forward), true);
        own.family = TableFamily::Inet;
        assert_eq!(owners(&[own]), [Owner::Wharf]);
    }

    #[test]
    fn a_rule_in_a_shared_chain_is_whose_it_jumps_to() {
        let mut chains = filter(&["DOCKER-USER", "ufw-user-input"]);
        assign(&mut chains);
        let of = |n: usize, verdict, comment| chains[n].owner_of(&rule(verdict, comment));
        let drop = || RuleVerdict::Drop;
        assert_eq!(of(1, drop(), None), Owner::User);
        let jump = RuleVerdict::Jump("ufw-before-forward".to_owned());
        assert_eq!(of(1, jump, None), Owner::Ufw);
        let cali = Some("cali:wUHhoiAYhphO9Mso");
        assert_eq!(of(1, drop(), cali), Owner::Kubernetes);
        assert_eq!(of(3, drop(), None), Owner::User, "DOCKER-USER");
        assert_eq!(of(4, drop(), None), Owner::Ufw);
    }
}
