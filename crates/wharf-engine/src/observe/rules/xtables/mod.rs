//! xtables matches and targets: the blobs that iptables leaves in the kernel, decoded.
//!
//! iptables-nft puts what nftables has no words for into `match` and `target` expressions; iptables-legacy has nothing
//! else. Both hold the same structures (`include/uapi/linux/netfilter/xt_*.h` and kin), told apart by name and revision.
//! A blob that is not known, or too short, becomes an opaque match or target that carries its name.
//!
//! Not here: reading rules (`legacy`, and the native side), running packets through them (the core).

mod info;
mod matches;
mod nat;
mod targets;
mod text;

use wharf_core::trace::ruleset::{Expr, TableFamily};

use self::info::Info;
pub use self::info::SetNames;
pub(crate) use self::info::text as c_string;
pub(crate) use self::matches::{interface, interface_text};
pub(crate) use self::targets::standard;
pub use self::text::Decoded;
pub(crate) use self::text::mask as mask_text;

/// What ebtables and arptables call by the same names has other structures there.
fn known(family: TableFamily) -> bool {
    !matches!(family, TableFamily::Bridge | TableFamily::Arp)
}

/// Decodes a match. `sets` has the names of the ipsets, as far as they are known.
pub fn decode_match(
    name: &str,
    rev: u32,
    bytes: &[u8],
    family: TableFamily,
    sets: &SetNames,
) -> Decoded {
    let info = Info {
        rev,
        bytes,
        family,
        sets,
    };
    let decoded = known(family).then(|| matches::decode(name, &info));
    let unknown = || Decoded::of_match(name).more().opaque();
    decoded.flatten().unwrap_or_else(unknown)
}

/// Decodes a target. `sets` has the names of the ipsets, as far as they are known.
pub fn decode_target(
    name: &str,
    rev: u32,
    bytes: &[u8],
    family: TableFamily,
    sets: &SetNames,
) -> Decoded {
    let info = Info {
        rev,
        bytes,
        family,
        sets,
    };
    let decoded = known(family).then(|| targets::decode(name, &info));
    let unknown = || Decoded::of_target(name).more().opaque_target();
    decoded.flatten().unwrap_or_else(unknown)
}

/// A match as instructions.
pub fn lower_match(name: &str, rev: u32, info: &[u8], family: TableFamily) -> Vec<Expr> {
    decode_match(name, rev, info, family, &SetNames::new()).exprs
}

/// A target as instructions.
pub fn lower_target(name: &str, rev: u32, info: &[u8], family: TableFamily) -> Vec<Expr> {
    decode_target(name, rev, info, family, &SetNames::new()).exprs
}

/// A match as iptables-save prints it: `-m tcp --dport 80`.
pub fn text_of_match(name: &str, rev: u32, info: &[u8], family: TableFamily) -> String {
    decode_match(name, rev, info, family, &SetNames::new()).text
}

/// A target as iptables-save prints it: `-j DNAT --to-destination 10.0.0.1:80`.
pub fn text_of_target(name: &str, rev: u32, info: &[u8], family: TableFamily) -> String {
    decode_target(name, rev, info, family, &SetNames::new()).text
}

/// The text of a `comment` match.
pub fn comment(name: &str, info: &[u8]) -> Option<String> {
    (name == "comment").then(|| info::text(info))
}
