//! What holds when the packet rules are gone: policy routing, which no flush of nftables removes.
//!
//! Packets that go to or come from a network of wharf get a mark in the last moment before they are routed. As long as
//! the rules are there, every such packet has it, and the routing of marked packets is as everywhere. A packet without
//! the mark has not been judged: the table [`TABLE`] has no way for it.
//!
//! In IPv4 a packet's source is looked up as well (`rp_filter`, RFC 3704), with the packet's mark (`src_valid_mark`):
//! that closes the way out of a bridge, and the way to the host's 127.0.0.0/8. In IPv6, where the kernel does not look
//! up sources, a rule per bridge does it.
//!
//! Not held: what the bridge passes from port to port, and what is for the host itself.

use ipnet::IpNet;

use crate::addr::Family;
use crate::model::{Netns, PolicyRule, Resource, RuleAction};
use crate::network::NetworkSpec;

/// The routing table without ways.
pub const TABLE: u32 = 119;
/// The mark of packets that the rules have seen.
pub const MARK_SEEN: u32 = 1 << 29;

/// Before the rules of most other tools, behind the kernel's own for local addresses (0).
const FIRST: u32 = 110;
/// Where packets go on that nothing holds.
const ONWARD: u32 = FIRST + 9;

/// The rules that are there once.
pub fn shared(families: &[Family]) -> Vec<Resource> {
    families.iter().flat_map(|f| of_family(*f)).collect()
}

/// In the order of making: nothing is held before there is a way past it.
fn of_family(family: Family) -> Vec<Resource> {
    let rule = |at: u32, action| PolicyRule {
        netns: Netns::Host,
        family,
        priority: FIRST + at,
        from: None,
        iif: None,
        mark: None,
        action,
    };
    let mut all = vec![
        rule(9, RuleAction::Nop),
        PolicyRule {
            mark: Some(MARK_SEEN),
            ..rule(0, RuleAction::Goto(ONWARD))
        },
        PolicyRule {
            iif: Some(crate::name::IfName::loopback()),
            ..rule(2, RuleAction::Goto(ONWARD))
        },
        rule(3, RuleAction::Lookup(TABLE)),
    ];
    if family == Family::V4 {
        // The host's own loopback addresses speak to containers by published ports only, and those are marked.
        let loopback: IpNet = "127.0.0.0/8".parse().expect("a constant prefix");
        all.push(PolicyRule {
            from: Some(loopback),
            ..rule(1, RuleAction::Lookup(TABLE))
        });
    }
    all.into_iter().map(Resource::Rule).collect()
}

/// What a network adds.
pub fn network(net: &NetworkSpec) -> Vec<Resource> {
    let mut all: Vec<Resource> = net
        .subnets
        .iter()
        .map(|s| Resource::Blackhole {
            dst: s.subnet,
            table: TABLE,
        })
        .collect();
    if net.has_v6() {
        all.push(Resource::Rule(PolicyRule {
            netns: Netns::Host,
            family: Family::V6,
            priority: FIRST + 4,
            from: None,
            iif: Some(net.bridge.clone()),
            mark: None,
            action: RuleAction::Blackhole,
        }));
    }
    all
}

/// The settings of a bridge by which sources are looked up, where its network's addresses lead back to it.
pub fn bridge_settings(net: &NetworkSpec) -> &'static [(&'static str, &'static str)] {
    if net.subnet(Family::V4).is_some() && net.has_gateway_address(Family::V4) {
        &[("rp_filter", "1"), ("src_valid_mark", "1")]
    } else {
        &[]
    }
}
