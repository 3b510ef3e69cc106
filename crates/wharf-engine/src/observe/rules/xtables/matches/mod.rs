//! Matches by name.

mod bytes;
mod flow;
mod header6;
mod packet;
mod ports;
mod rate;
mod route;

pub use route::{interface, interface_text, set_directions};

use super::info::Info;
use super::text::{Decoded, quoted};

use wharf_core::trace::ruleset::Expr;

/// Decodes a match; `None` if it is not known or too short.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "comment" => Some(comment(info)),
        "tcp" | "udp" | "sctp" | "dccp" | "multiport" | "icmp" | "icmp6" | "ah" | "esp"
        | "ipcomp" => ports::decode(name, info),
        "conntrack" | "state" | "mark" | "connmark" | "connlabel" | "helper" | "socket" => {
            flow::decode(name, info)
        }
        "limit" | "hashlimit" | "recent" | "statistic" | "connlimit" | "connbytes" | "time"
        | "quota" | "cpu" | "cluster" => rate::decode(name, info),
        "addrtype" | "physdev" | "rpfilter" | "devgroup" | "realm" | "policy" | "set" => {
            route::decode(name, info)
        }
        "iprange" | "pkttype" | "length" | "ttl" | "hl" | "mac" | "owner" | "dscp" | "tos"
        | "ecn" | "tcpmss" | "cgroup" => packet::decode(name, info),
        "string" | "u32" | "bpf" => bytes::decode(name, info),
        "frag" | "rt" | "hbh" | "dst" | "mh" | "srh" | "eui64" | "ipv6header" => {
            header6::decode(name, info)
        }
        _ => None,
    }
}

fn comment(info: &Info<'_>) -> Decoded {
    let mut out = Decoded::of_match("comment");
    let text = super::info::text(info.bytes);
    out.opt(false, "--comment", quoted(&text));
    out.push(Expr::Nothing);
    out
}
