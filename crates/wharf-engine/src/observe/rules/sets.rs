//! Sets and maps.

use wharf_core::trace::ruleset::{Element, Set};
use wharf_nft::{ElementFlags, intervals};

/// A set with its elements; `None` if its table's family is not known.
pub fn lower((set, elements): &(wharf_nft::Set, Vec<wharf_nft::Element>)) -> Option<Set> {
    let catch_all = |e: &&wharf_nft::Element| e.flags.has(ElementFlags::CATCHALL);
    let element = |(from, to, element): (&[u8], Vec<u8>, &wharf_nft::Element)| Element {
        from: from.to_vec(),
        to: (to != from).then_some(to),
        value: element.data.as_ref().map(super::value),
    };
    let fields = if set.fields.is_empty() {
        vec![set.key_len]
    } else {
        set.fields.clone()
    };
    let default = elements.iter().find(catch_all);
    Some(Set {
        family: super::table_family(set.family)?,
        table: set.table.clone(),
        name: set.name.clone(),
        fields,
        elements: intervals(set, elements).into_iter().map(element).collect(),
        default: default.map(|e| e.data.as_ref().map(super::value)),
        partial: false,
    })
}
