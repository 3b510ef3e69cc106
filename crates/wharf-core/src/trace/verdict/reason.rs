//! The kernel's reasons for a drop (`enum skb_drop_reason`) that name a cause by themselves.

use crate::trace::report::{Cause, Code, Owner};
use crate::trace::seen::Dropped;
use crate::trace::state::Place;

use super::facts::Facts;

/// A reason as a cause; `None` where the reason only tells that there was a drop.
pub(super) fn cause(facts: &Facts<'_>, dropped: &Dropped) -> Option<Cause> {
    let place = dropped.place?;
    let space = facts.state.spaces.get(place.space)?;
    let link = facts.state.link(place)?;
    let (name, enter) = (link.name.as_str(), space.enter.as_str());
    let (code, object, what, fix) = match dropped.reason.as_str() {
        "TC_INGRESS" | "TC_EGRESS" | "XDP" => {
            return Some(traffic_control(facts, place, &dropped.reason));
        }
        "IP_RPFILTER" => (
            Code::ReversePathFilter,
            format!("net.ipv4.conf.{name}.rp_filter"),
            format!("The reverse path filter of {name} takes no packet from that source."),
            match facts.state.own_bridge(place) {
                // There it keeps packets in that wharf's rules did not let pass.
                true => "wharf repair".to_owned(),
                false => format!("{enter}sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
            },
        ),
        "IP_OUTNOROUTES" | "IP_INNOROUTES" => (
            Code::NoRoute,
            facts
                .last(dropped.leg)
                .map_or(String::new(), |f| f.header.dst.to_string()),
            format!("{} has no route for it.", space.name),
            format!("{enter}ip route show"),
        ),
        "IP_LOCALNET" | "IP_LOCAL_SOURCE" | "IP_INVALID_SOURCE" | "IP_INVALID_DEST" => (
            Code::MartianAddress,
            format!("net.ipv4.conf.{name}.route_localnet"),
            format!("Its addresses are impossible on {name}."),
            format!("{enter}sysctl net.ipv4.conf.{name}.log_martians"),
        ),
        "XFRM_POLICY" => (
            Code::FirewallRule,
            "ip xfrm policy".to_owned(),
            format!("A policy of IPsec in {} does not let it pass.", space.name),
            format!("{enter}ip xfrm policy"),
        ),
        "IPV6DISABLED" => (
            Code::Ipv6Disabled,
            format!("net.ipv6.conf.{name}.disable_ipv6"),
            format!("IPv6 is switched off on {name}."),
            format!("{enter}sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"),
        ),
        "PKT_TOO_BIG" => (
            Code::MtuExceeded,
            name.to_owned(),
            format!("It is too large for a link behind {name}."),
            format!("{enter}ip link show dev {name}"),
        ),
        "BRIDGE_INGRESS_STP_STATE" => (
            Code::BridgePortBlocked,
            name.to_owned(),
            format!("The bridge port {name} does not forward."),
            format!("{enter}bridge link set dev {name} state 3"),
        ),
        "TCP_LISTEN_OVERFLOW" => (
            Code::AcceptQueueFull,
            facts
                .last(dropped.leg)
                .map_or(String::new(), |f| format!("{}/tcp", f.header.dport)),
            "The queue of the listener is full.".to_owned(),
            format!("{enter}ss -ltn"),
        ),
        "NEIGH_FAILED" | "NEIGH_DEAD" | "NEIGH_CREATEFAIL" => (
            Code::NeighbourUnreachable,
            facts
                .last(dropped.leg)
                .map_or(String::new(), |f| format!("{} dev {name}", f.header.dst)),
            format!("The next hop does not answer on {name}."),
            format!("{enter}ip neigh show dev {name}"),
        ),
        "OTHERHOST" if facts.is_meant(place.space) => (
            Code::NeighbourWrong,
            name.to_owned(),
            format!("It came in by {name} for another machine's hardware address."),
            format!("{enter}ip link show dev {name}"),
        ),
        _ => return None,
    };
    let function = dropped.function.as_deref();
    let at = function.map_or(String::new(), |f| format!(" in {f}"));
    Some(Cause {
        code,
        netns: space.name.clone(),
        object,
        owner: Owner::User,
        summary: what,
        evidence: vec![format!(
            "the kernel gave {} as its reason for the drop{at}",
            dropped.reason
        )],
        fix: vec![fix],
    })
}

/// Whether what the kernel's reason suggests is also what it says for another cause.
pub(super) fn covers(reason: Code, cause: Code) -> bool {
    use Code::{
        BridgeDown, BridgePortBlocked, DuplicateAddress, DuplicateMac, ForwardingDisabled,
        Ipv6Disabled, LinkDown, MartianAddress, NeighbourUnreachable, NeighbourWrong, NoAddress,
        NoCarrier, NoMasquerade, NoReturnRoute, NoRoute, NoSuchDestination, NotOnBridge,
        PolicyRule, PublishShadowed, ReversePathFilter, RouteConflict, RouteRejects, TtlExpired,
        WrongGateway, WrongPrefixLength,
    };
    match reason {
        _ if reason == cause => true,
        BridgePortBlocked => matches!(cause, BridgeDown | LinkDown | NoCarrier),
        NeighbourUnreachable => matches!(
            cause,
            LinkDown
                | NoCarrier
                | NotOnBridge
                | BridgeDown
                | BridgePortBlocked
                | DuplicateAddress
                | DuplicateMac
                | NoSuchDestination
                | WrongGateway
                | WrongPrefixLength
                | RouteConflict
                | PolicyRule
                | PublishShadowed
                | Ipv6Disabled
        ),
        NoRoute => matches!(
            cause,
            NeighbourUnreachable
                | NoSuchDestination
                | PublishShadowed
                | RouteRejects
                | PolicyRule
                | WrongPrefixLength
                | RouteConflict
                | NoReturnRoute
                | NoAddress
                | LinkDown
                | Ipv6Disabled
                | ForwardingDisabled
                | WrongGateway
        ),
        MartianAddress => matches!(
            cause,
            DuplicateAddress
                | RouteConflict
                | NoMasquerade
                | NoReturnRoute
                | PublishShadowed
                | TtlExpired
        ),
        ReversePathFilter => matches!(
            cause,
            RouteConflict
                | RouteRejects
                | PolicyRule
                | NoRoute
                | NoSuchDestination
                | MartianAddress
                | NoMasquerade
                | NoReturnRoute
        ),
        NeighbourWrong => matches!(
            cause,
            BridgePortBlocked
                | DuplicateMac
                | DuplicateAddress
                | NotOnBridge
                // Without ARP frames go out for the sender's own address.
                | NeighbourUnreachable
        ),
        _ => false,
    }
}

/// A tc filter, an action or a program.
pub(super) fn traffic_control(facts: &Facts<'_>, place: Place, what: &str) -> Cause {
    let space = &facts.state.spaces[place.space];
    let link = facts.state.link(place);
    let name = link.map_or("", |l| l.name.as_str());
    let xdp = what.to_lowercase().contains("xdp");
    let (way, ingress) = match what {
        "TC_EGRESS" => ("egress", false),
        _ => ("ingress", true),
    };
    let read = link.and_then(|l| l.tc.iter().find(|t| t.ingress == ingress));
    let object = match (xdp, read) {
        (true, _) => format!("{name} xdp"),
        (false, Some(tc)) => tc.text.clone(),
        (false, None) => format!("tc {way} dev {name}"),
    };
    let enter = &space.enter;
    let (show, fix) = match xdp {
        // Such a program is no filter, and `tc` does not list it.
        false if read.is_none() => (
            format!("{enter}bpftool net show dev {name}"),
            format!("{enter}bpftool net detach tcx_{way} dev {name}"),
        ),
        true => (
            format!("{enter}ip link show dev {name}"),
            format!("{enter}ip link set dev {name} xdp off"),
        ),
        false => (
            format!("{enter}tc filter show dev {name} {way}"),
            format!("{enter}tc filter del dev {name} {way}"),
        ),
    };
    let what = match xdp {
        true => "An XDP program".to_owned(),
        false => format!("A tc filter or program on the {way} side"),
    };
    Cause {
        code: Code::TrafficControl,
        netns: space.name.clone(),
        summary: format!("{what} of {name} drops it: it was seen there, and not after."),
        object,
        owner: Owner::User,
        evidence: vec![show],
        fix: vec![fix],
    }
}
