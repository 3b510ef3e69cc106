//! Routes and policy rules as `ip` prints them.

use ipnet::IpNet;

use crate::addr::Family;
use crate::trace::state::{NextHop, PolicyRule, Route, RouteKind, RuleAction, Space};

use super::route::{DEFAULT, LOCAL, MAIN};

/// A prefix as `ip route` prints it.
pub(super) fn show_prefix(net: IpNet) -> String {
    let whole = Family::of_net(net).bits();
    match net.prefix_len() {
        0 => "default".to_owned(),
        n if n == whole => net.addr().to_string(),
        _ => net.to_string(),
    }
}

/// A route as `ip route` prints its beginning.
pub(super) fn show_route(space: &Space, route: &Route, hop: Option<&NextHop>) -> String {
    let kind = match route.kind {
        RouteKind::Unicast | RouteKind::Other(_) => "",
        RouteKind::Local => "local ",
        RouteKind::Broadcast => "broadcast ",
        RouteKind::Anycast => "anycast ",
        RouteKind::Multicast => "multicast ",
        RouteKind::Blackhole => "blackhole ",
        RouteKind::Unreachable => "unreachable ",
        RouteKind::Prohibit => "prohibit ",
        RouteKind::Throw => "throw ",
    };
    let mut text = format!("{kind}{}", show_prefix(route.dst));
    let refuses = matches!(
        route.kind,
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw
    );
    if let Some(id) = route.nexthop {
        text += &format!(" nhid {id}");
    }
    if let Some(hop) = hop.or(route.hops.first()).filter(|_| !refuses) {
        if let Some(via) = hop.via {
            text += &format!(" via {via}");
        }
        if let Some(link) = hop.link.and_then(|i| space.link(i)) {
            text += &format!(" dev {}", link.name);
        }
        if hop.onlink {
            text += " onlink";
        }
    }
    if !matches!(route.table, MAIN | LOCAL | 0) {
        text += &format!(" table {}", route.table);
    }
    // IPv6 gives every route a metric; its usual ones say nothing.
    let usual = route.dst.addr().is_ipv6() && matches!(route.metric, 256 | 1024);
    if !refuses && route.metric != 0 && route.metric != u32::MAX && !usual {
        text += &format!(" metric {}", route.metric);
    }
    text
}

/// As much of a route's text as `ip route del` takes: beside an object it wants no next hop.
pub(super) fn deletable(text: &str) -> String {
    let Some((dst, rest)) = text.split_once(" nhid ") else {
        return text.to_owned();
    };
    let words: Vec<&str> = rest.split(' ').collect();
    let mut all = format!("{dst} nhid {}", words[0]);
    for pair in words[1..].windows(2) {
        if let [word @ ("table" | "metric"), value] = pair {
            all += &format!(" {word} {value}");
        }
    }
    all
}

/// A policy rule as `ip rule` prints it.
pub(super) fn show_rule(rule: &PolicyRule) -> String {
    let mut text = format!("{}: ", rule.priority);
    if rule.invert {
        text += "not ";
    }
    text += &format!("from {}", rule.src.map_or("all".to_owned(), show_prefix));
    if let Some(dst) = rule.dst {
        text += &format!(" to {}", show_prefix(dst));
    }
    if let Some((value, mask)) = rule.mark {
        text += &match mask {
            u32::MAX => format!(" fwmark {value:#x}"),
            _ => format!(" fwmark {value:#x}/{mask:#x}"),
        };
    }
    for (word, name) in [("iif", &rule.iif), ("oif", &rule.oif)] {
        if let Some(name) = name {
            text += &format!(" {word} {name}");
        }
    }
    if let Some(number) = rule.ip_proto {
        text += &match number {
            1 => " ipproto icmp".to_owned(),
            6 => " ipproto tcp".to_owned(),
            17 => " ipproto udp".to_owned(),
            58 => " ipproto ipv6-icmp".to_owned(),
            n => format!(" ipproto {n}"),
        };
    }
    for (word, ports) in [("sport", rule.sport), ("dport", rule.dport)] {
        text += &match ports {
            Some((a, b)) if a == b => format!(" {word} {a}"),
            Some((a, b)) => format!(" {word} {a}-{b}"),
            None => String::new(),
        };
    }
    if let Some((first, last)) = rule.uids {
        text += &format!(" uidrange {first}-{last}");
    }
    text += &match rule.action {
        RuleAction::Table(MAIN) => " lookup main".to_owned(),
        RuleAction::Table(LOCAL) => " lookup local".to_owned(),
        RuleAction::Table(DEFAULT) => " lookup default".to_owned(),
        RuleAction::Table(n) => format!(" lookup {n}"),
        RuleAction::Goto(n) => format!(" goto {n}"),
        RuleAction::Nop => " nop".to_owned(),
        RuleAction::Blackhole => " blackhole".to_owned(),
        RuleAction::Unreachable => " unreachable".to_owned(),
        RuleAction::Prohibit => " prohibit".to_owned(),
        RuleAction::Other(n) => format!(" action {n}"),
    };
    if let Some(most) = rule.suppress {
        text += &format!(" suppress_prefixlength {most}");
    }
    if let Some(group) = rule.suppress_group {
        text += &format!(" suppress_ifgroup {group}");
    }
    text
}
