//! Other tools' policies on forwarded packets.
//!
//! A base chain of another tool that drops by policy drops wharf's packets too, whatever wharf's own chains
//! say. Docker keeps a door for others, the chain `DOCKER-USER`: there wharf lets its bridges pass (what may
//! go to them is still decided in wharf's own chain). Where there is no door, the user is told by name.

use wharf_core::addr::Family;
use wharf_core::network::NetworkSpec;
use wharf_nft::expr::{CmpOp, MetaKey, Reg};
use wharf_nft::{Batch, Chain, Expr, Hook, NfSocket, NftError, Policy, Rule, Verdict};

use crate::api::Note;
use crate::engine::Engine;

/// Docker's chain for users' rules, in `ip filter` and `ip6 filter`.
const DOOR: &str = "DOCKER-USER";
const FILTER: &str = "filter";

impl Engine {
    /// Lets a network's bridge pass at other tools' doors. What fails here shows in [`Engine::closed_doors`].
    pub(super) fn open_doors(&mut self, net: &NetworkSpec) {
        if net.is_managed() {
            let _ = self.try_open_doors(net);
        }
    }

    fn try_open_doors(&mut self, net: &NetworkSpec) -> Result<(), NftError> {
        let nft = self.kernel.nftables()?;
        let chains = nft.dump_chains()?;
        let mut batch = Batch::new();
        for chain in chains.iter().filter(|c| is_door(c) && concerns(c, net)) {
            let there = nft.dump_chain_rules(chain.family, &chain.table, &chain.name)?;
            for rule in door_rules(chain, net) {
                if !there.iter().any(|r| same(r, &rule)) {
                    batch.insert_rule(&rule);
                }
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            nft.commit(&batch)
        }
    }

    /// Takes a network's rules out of other tools' doors again.
    pub(super) fn close_doors(&mut self, net: &NetworkSpec) {
        if net.is_managed() {
            let _ = self.try_close_doors(net);
        }
    }

    fn try_close_doors(&mut self, net: &NetworkSpec) -> Result<(), NftError> {
        let nft = self.kernel.nftables()?;
        let chains = nft.dump_chains()?;
        let mut batch = Batch::new();
        for chain in chains.iter().filter(|c| is_door(c)) {
            let ours = door_rules(chain, net);
            for rule in nft.dump_chain_rules(chain.family, &chain.table, &chain.name)? {
                if let Some(handle) = rule.handle.filter(|_| ours.iter().any(|o| same(&rule, o))) {
                    batch.del_rule(chain.family, &chain.table, &chain.name, handle);
                }
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            nft.commit(&batch)
        }
    }

    /// Base chains that will drop a network's packets, with what mends it. Opens doors that appeared since the
    /// network was made.
    pub(super) fn closed_doors(&mut self, net: &NetworkSpec) -> Vec<Note> {
        if net.internal || !net.is_managed() {
            return Vec::new();
        }
        let Ok(chains) = self.kernel.nftables().and_then(foreign_chains) else {
            return Vec::new();
        };
        let closed: Vec<&Chain> = chains
            .iter()
            .filter(|c| drops_forwarded(c) && concerns(c, net))
            .collect();
        if closed.is_empty() {
            return Vec::new();
        }
        self.open_doors(net);
        let has_door = |c: &Chain| {
            c.table == FILTER && chains.iter().any(|d| is_door(d) && d.family == c.family)
        };
        closed
            .into_iter()
            .filter(|c| !has_door(c))
            .map(|c| note(c, net))
            .collect()
    }
}

/// All chains, if there is any table but wharf's: a list of tables is short.
fn foreign_chains(nft: &mut NfSocket) -> Result<Vec<Chain>, NftError> {
    let ours = wharf_core::nft::Table::NAME;
    if nft.dump_tables()?.iter().all(|t| t.name == ours) {
        return Ok(Vec::new());
    }
    nft.dump_chains()
}

fn is_door(chain: &Chain) -> bool {
    chain.table == FILTER
        && chain.name == DOOR
        && matches!(chain.family, wharf_nft::Family::Ip | wharf_nft::Family::Ip6)
}

fn drops_forwarded(chain: &Chain) -> bool {
    chain.table != wharf_core::nft::Table::NAME
        && chain
            .base
            .as_ref()
            .is_some_and(|b| b.hook == Hook::Forward && b.policy == Policy::Drop)
        && matches!(
            chain.family,
            wharf_nft::Family::Ip | wharf_nft::Family::Ip6 | wharf_nft::Family::Inet
        )
}

/// Whether the chain sees packets of a family the network has.
fn concerns(chain: &Chain, net: &NetworkSpec) -> bool {
    match chain.family {
        wharf_nft::Family::Ip => net.subnet(Family::V4).is_some(),
        wharf_nft::Family::Ip6 => net.subnet(Family::V6).is_some(),
        _ => true,
    }
}

/// `-i BRIDGE -j ACCEPT` and `-o BRIDGE -j ACCEPT`, in the form iptables-nft writes and reads: names are
/// compared with their final zero, and every rule counts.
fn door_rules(chain: &Chain, net: &NetworkSpec) -> [Rule; 2] {
    let mut name = net.bridge.as_str().as_bytes().to_vec();
    name.push(0);
    [MetaKey::IifName, MetaKey::OifName].map(|key| {
        let exprs = vec![
            Expr::meta(key, Reg::R1),
            Expr::cmp(Reg::R1, CmpOp::Eq, name.clone()),
            Expr::counter(),
            Expr::verdict(Verdict::Accept),
        ];
        Rule::new(
            chain.family,
            chain.table.as_str(),
            chain.name.as_str(),
            exprs,
        )
    })
}

/// Whether two rules do the same, counters apart.
fn same(a: &Rule, b: &Rule) -> bool {
    let plain = |rule: &Rule| {
        rule.exprs
            .iter()
            .filter(|e| !matches!(e, Expr::Counter(_)))
            .cloned()
            .collect::<Vec<_>>()
    };
    plain(a) == plain(b)
}

fn note(chain: &Chain, net: &NetworkSpec) -> Note {
    let bridge = &net.bridge;
    let fix =
        |dir: &str, word: &str| match (chain.family, chain.table.as_str(), chain.name.as_str()) {
            (wharf_nft::Family::Ip, FILTER, "FORWARD") => {
                format!("iptables -I FORWARD -{dir} {bridge} -j ACCEPT")
            }
            (wharf_nft::Family::Ip6, FILTER, "FORWARD") => {
                format!("ip6tables -I FORWARD -{dir} {bridge} -j ACCEPT")
            }
            (family, table, name) => {
                format!("nft insert rule {family} {table} {name} {word} {bridge} accept")
            }
        };
    Note::ForwardPolicyDrop {
        chain: format!("{} {} {}", chain.family, chain.table, chain.name),
        fix: vec![fix("i", "iifname"), fix("o", "oifname")],
    }
}
