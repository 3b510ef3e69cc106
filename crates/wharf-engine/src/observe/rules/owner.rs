//! Whose a chain is.

use wharf_core::nft::Table;
use wharf_core::trace::report::Owner;

/// The owner of a chain, by its table.
pub fn of(chain: &wharf_nft::Chain) -> Owner {
    let family = chain.family.to_string();
    let own = |table: &Table| chain.table == Table::NAME && table.family() == family;
    if Table::ALL.iter().any(own) {
        Owner::Wharf
    } else {
        Owner::User
    }
}
