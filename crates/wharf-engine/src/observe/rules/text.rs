//! x
use super::Dump;
pub fn rule<'a>(_dump: &Dump<'a>, _rule: &'a wharf_nft::Rule) -> String {
    String::new()
}
