//! Docker's containers stay as Docker has them: what its own rules keep everybody from is neither for wharf's containers nor,
//! where wharf turned forwarding on before Docker did, for anybody.

use std::collections::BTreeSet;

use super::base::{self, link_in, set};
use crate::addr::Family;
use crate::model::Resource;
use crate::name::IfName;
use crate::nft::build::{is, rule, translated, within};
use crate::nft::{Action, Chain, FieldType, Key, Match, Rule, Set, Table, Test, Value};

/// Docker's bridges, of which its own rules speak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Docker {
    /// All of them: wharf's containers reach there what is published.
    pub bridges: BTreeSet<IfName>,
    /// Those whose unpublished ports are closed to nobody, as Docker found forwarding turned on.
    pub unguarded: BTreeSet<(Family, IfName)>,
}

impl Docker {
    /// The sets that tell the rules about Docker's bridges.
    pub const SETS: [&'static str; 3] = ["docker", unguarded(Family::V4), unguarded(Family::V6)];

    /// The elements of those sets.
    pub fn elements(&self) -> Vec<Resource> {
        let all = self.bridges.iter().map(|name| link_in("docker", name));
        let open = self.unguarded.iter();
        all.chain(open.map(|(family, name)| link_in(unguarded(*family), name)))
            .collect()
    }

    /// The element of one of [`Self::SETS`] that a link is.
    pub fn element(set: &str, name: &IfName) -> Resource {
        link_in(set, name)
    }
}

/// The set of Docker's bridges to which Docker's own rules let everybody.
const fn unguarded(family: Family) -> &'static str {
    match family {
        Family::V4 => "unguarded4",
        Family::V6 => "unguarded6",
    }
}

pub(super) fn sets() -> impl Iterator<Item = Set> {
    let links = |name| set(Table::Inet, name, &[FieldType::IfName], &[], false);
    Docker::SETS.into_iter().map(links)
}

/// What wharf's containers start towards Docker's: only what Docker published.
pub(super) fn chain() -> Chain {
    let rules = vec![
        rule([translated()], Action::Return),
        rule([within(&[Key::IifName], "bridges")], Action::Drop),
    ];
    base::chain(Table::Inet, "to_docker", None, rules)
}

/// Docker keeps everybody from its containers' unpublished ports by a policy, and sets that only if it was the one that
/// turned forwarding on.
pub(super) fn transit(held: &[Family]) -> impl Iterator<Item = Rule> {
    let drops = held.iter().map(|family| {
        let of = is(Key::NfProto, Value::Family(*family));
        let elsewhere = Match {
            keys: vec![Key::IifName],
            test: Test::NotIn("docker"),
        };
        let to = within(&[Key::OifName], unguarded(*family));
        rule([of, elsewhere, to], Action::Drop)
    });
    std::iter::once(rule([translated()], Action::Return)).chain(drops)
}
