//! Routes and rules of policy routing as commands of `ip`.

use ipnet::IpNet;

use super::{ip, quote};
use crate::addr::Family;
use crate::model::{Hop, PolicyRule, RuleAction};
use crate::op::RouteOp;

pub(super) fn route(verb: &str, r: &RouteOp) -> String {
    let (dst, dev) = (destination(r.dst), quote(&r.link));
    let way = match r.hop {
        Hop::Via(gateway) if r.more.any_link => format!("{dst} via {gateway}"),
        Hop::Via(gateway) => format!("{dst} via {gateway} dev {dev}"),
        Hop::Link => format!("{dst} dev {dev}"),
        hop => format!("{} {dst}", hop.refusal().unwrap_or_default()),
    };
    let protocol = crate::model::ROUTE_PROTOCOL;
    let mut text = format!("{} route {verb} {way} proto {protocol}", ip(&r.netns));
    let scope = r.more.scope.map(u32::from);
    for (word, value) in [
        ("scope", scope),
        ("table", r.more.table),
        ("metric", r.metric),
        ("mtu", r.more.mtu),
        ("advmss", r.more.advmss),
    ] {
        if let Some(value) = value {
            text += &format!(" {word} {value}");
        }
    }
    text
}

pub(super) fn rule(verb: &str, r: &PolicyRule) -> String {
    let family = match r.family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let mut text = format!(
        "{} {family} rule {verb} priority {}",
        ip(&r.netns),
        r.priority
    );
    if let Some(from) = r.from {
        text += &format!(" from {from}");
    }
    if let Some(mark) = r.mark {
        text += &format!(" fwmark {mark:#x}/{mark:#x}");
    }
    if let Some(iif) = &r.iif {
        text += &format!(" iif {}", quote(iif));
    }
    text += &match r.action {
        RuleAction::Goto(to) => format!(" goto {to}"),
        RuleAction::Lookup(table) => format!(" lookup {table}"),
        RuleAction::Nop => " nop".to_owned(),
        RuleAction::Blackhole => " blackhole".to_owned(),
    };
    text + &format!(" protocol {}", crate::model::ROUTE_PROTOCOL)
}

fn destination(dst: IpNet) -> String {
    match dst.prefix_len() {
        0 => "default".to_owned(),
        _ => dst.to_string(),
    }
}
