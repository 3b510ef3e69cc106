//! xtables matches and targets: the blobs that iptables leaves in the kernel, decoded.
//!
//! iptables-nft puts what nftables has no words for into `match` and `target` expressions; iptables-legacy has nothing
//! else. Both hold the same structures (`include/uapi/linux/netfilter/xt_*.h` and kin), told apart by name and revision.
//! A blob that is not known, or too short, becomes an opaque match or target that carries its name.
//!
//! Not here: reading rules (`legacy`, and the native side), running packets through them (the core).

mod ebt;
mod info;
mod matches;
mod nat;
mod saved;
mod targets;
mod text;

use wharf_core::trace::ruleset::{Expr, TableFamily};

use self::info::Info;
pub use self::info::SetNames;
pub(crate) use self::info::text as c_string;
pub(crate) use self::matches::{interface, interface_text};
pub use self::saved::as_saved;
pub(crate) use self::targets::standard;
pub use self::text::Decoded;
pub(crate) use self::text::{network, protocol};

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
    // What ebtables and arptables call by the same names has other structures there.
    let decoded = match family {
        TableFamily::Bridge => ebt::decode_match(name, &info),
        TableFamily::Arp => None,
        _ => matches::decode(name, &info),
    };
    decoded.unwrap_or_else(|| Decoded::of_match(name).more().opaque())
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
    let decoded = match family {
        TableFamily::Bridge => ebt::decode_target(name, &info),
        TableFamily::Arp => None,
        _ => targets::decode(name, &info),
    };
    decoded.unwrap_or_else(|| Decoded::of_target(name).more().opaque_target())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use wharf_core::trace::ruleset::Match;

    const MATCHES: &[&str] = &[
        "comment",
        "tcp",
        "udp",
        "sctp",
        "dccp",
        "multiport",
        "icmp",
        "icmp6",
        "ah",
        "esp",
        "ipcomp",
        "conntrack",
        "state",
        "mark",
        "connmark",
        "connlabel",
        "helper",
        "socket",
        "limit",
        "hashlimit",
        "recent",
        "statistic",
        "connlimit",
        "connbytes",
        "time",
        "quota",
        "cpu",
        "cluster",
        "addrtype",
        "physdev",
        "rpfilter",
        "devgroup",
        "realm",
        "policy",
        "set",
        "iprange",
        "pkttype",
        "length",
        "ttl",
        "hl",
        "mac",
        "owner",
        "dscp",
        "tos",
        "ecn",
        "tcpmss",
        "cgroup",
        "string",
        "u32",
        "bpf",
        "frag",
        "rt",
        "hbh",
        "dst",
        "mh",
        "srh",
        "eui64",
        "ipv6header",
        "osf",
        "ip",
        "ip6",
        "mark_m",
        "arp",
        "",
    ];

    const TARGETS: &[&str] = &[
        "REJECT",
        "DNAT",
        "SNAT",
        "MASQUERADE",
        "REDIRECT",
        "NETMAP",
        "DNPT",
        "SNPT",
        "MARK",
        "CONNMARK",
        "LOG",
        "NFLOG",
        "NFQUEUE",
        "CT",
        "TPROXY",
        "TTL",
        "HL",
        "SET",
        "ERROR",
        "NOTRACK",
        "TRACE",
        "TCPMSS",
        "CHECKSUM",
        "DSCP",
        "TOS",
        "ECN",
        "TCPOPTSTRIP",
        "AUDIT",
        "CLASSIFY",
        "TEE",
        "IDLETIMER",
        "RATEEST",
        "SECMARK",
        "SYNPROXY",
        "HMARK",
        "mark",
        "dnat",
        "snat",
        "log",
        "redirect",
        "",
    ];

    const FAMILIES: &[TableFamily] = &[
        TableFamily::Ip,
        TableFamily::Ip6,
        TableFamily::Inet,
        TableFamily::Arp,
        TableFamily::Bridge,
        TableFamily::Netdev,
    ];

    /// Decodes the bytes as everything there is.
    fn all(rev: u32, bytes: &[u8], mut see: impl FnMut(&str, Decoded)) {
        let none = SetNames::new();
        for family in FAMILIES {
            for name in MATCHES {
                see(name, decode_match(name, rev, bytes, *family, &none));
            }
            for name in TARGETS {
                see(name, decode_target(name, rev, bytes, *family, &none));
            }
        }
    }

    /// Bytes of any length, of which few are set, or many.
    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(0_u8), 1 => any::<u8>(), 1 => Just(1), 1 => Just(0xff)];
        let any = || prop::collection::vec(any::<u8>(), 0..2100);
        prop_oneof![prop::collection::vec(byte, 0..2100), any()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_bytes_are_decoded_or_named(rev in 0_u32..6, bytes in garbage()) {
            all(rev, &bytes, |name, decoded| {
                let begins = |letter| decoded.text.starts_with(&format!("{letter} {name}"));
                let other_name = [" state", " NOTRACK"].iter().any(|n| decoded.text.contains(n));
                // ebtables has options without `-m`, and may have none at all.
                let bare = decoded.text.is_empty() || decoded.text.starts_with("--");
                assert!(begins("-m") || begins("-j") || other_name || bare, "{name}: {}", decoded.text);
            });
        }
    }

    #[test]
    fn what_is_too_short_is_opaque_and_keeps_its_name() {
        all(1, &[], |name, decoded| {
            let whole = [
                "comment", "eui64", "NOTRACK", "TRACE", "ERROR", "RATEEST", "SECMARK", "log",
                "redirect",
            ];
            if whole.contains(&name) {
                return;
            }
            let opaque = match &decoded.exprs[..] {
                [Expr::Opaque(text)] => text.contains(name),
                [Expr::Match { test, .. }] => {
                    matches!(test, Match::Opaque(text) if text.contains(name))
                }
                _ => false,
            };
            assert!(opaque, "{name}: {decoded:?}");
        });
    }

    #[test]
    fn a_match_of_ebtables_is_not_taken_for_one_of_iptables() {
        let limit = lower_match("limit", 0, &[0; 40], TableFamily::Bridge);
        let text = "-m limit ...".to_owned();
        let test = Match::Opaque(text);
        assert_eq!(
            limit,
            [Expr::Match {
                test,
                invert: false
            }]
        );
    }

    #[test]
    fn an_ipset_is_named_where_its_name_is_known() {
        let info = [7, 0, 2, 0b10, 0, 0, 0, 0];
        let names = SetNames::from([(7, "blocked".to_owned())]);
        let decoded = decode_match("set", 1, &info, TableFamily::Ip, &names);
        assert_eq!(decoded.text, "-m set --match-set blocked src,dst");
        let text = text_of_match("set", 1, &info, TableFamily::Ip);
        assert_eq!(text, "-m set --match-set #7 src,dst");
    }
}
