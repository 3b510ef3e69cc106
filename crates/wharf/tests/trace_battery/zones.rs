//! Connections that rules have looked up in zones of their own, on both sides or on one.

use crate::bases::*;
use crate::cases;

/// Connection zones by an nft table of that name.
macro_rules! zone {
    ($rules:literal) => {
        concat!(
            "nft 'table ip z { chain pre { type filter hook prerouting priority raw; ",
            $rules,
            "; }; }'; conntrack -F 2>/dev/null"
        )
    };
}

/// A stateful filter between the bridge and the rest.
const STATEFUL: &str = "nft 'table ip stateful { chain fw { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname br-two accept; }; }'";

cases! {
    question_in_a_zone: {
        on: &[BRIDGE, MASQUERADE],
        breaks: zone!("iifname br-demo ct zone set 5"),
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host ip z pre handle *",
    }
    question_in_a_zone_echo: {
        on: &[BRIDGE, MASQUERADE],
        breaks: zone!("iifname br-demo ct zone set 5"),
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered firewall-rule host ip z pre handle *",
    }
    question_in_a_zone_udp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: zone!("iifname br-demo ct zone set 5"),
        ask: "/run/netns/c1 192.0.2.50:53/udp",
        says: "unanswered firewall-rule host ip z pre handle *",
    }
    answer_in_another_zone: {
        on: &[BRIDGE, MASQUERADE],
        breaks: zone!("iifname br-demo ct zone set 5; iifname up0 ct zone set 6"),
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host ip z pre handle *",
    }
    published_question_in_a_zone: {
        on: &[BRIDGE, MASQUERADE, PUBLISH],
        breaks: zone!("iifname up0 ct zone set 5"),
        ask: "outside 10.0.2.2:8080",
        says: "unanswered firewall-rule host ip z pre handle *",
    }
    question_in_a_zone_by_iptables: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -t raw -A PREROUTING -i br-demo -j CT --zone 5; conntrack -F 2>/dev/null",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host ip raw PREROUTING handle *",
    }
    stateful_filter_and_a_zone_for_questions: {
        on: &[BRIDGE, SECOND_BRIDGE, STATEFUL],
        breaks: zone!("iifname br-two ct zone set 5"),
        ask: "/run/netns/c3 172.18.0.20:80",
        says: "unanswered firewall-policy host ip stateful fw",
        // The policy may stay, if answers are known for what they are.
        then: "/run/netns/c3 172.18.0.20:80",
    }
    one_zone_both_ways: {
        on: &[BRIDGE, MASQUERADE, zone!("iifname { br-demo, up0 } ct zone set 5")],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    one_zone_both_ways_published: {
        on: &[BRIDGE, MASQUERADE, PUBLISH, zone!("iifname { br-demo, up0 } ct zone set 5")],
        ask: "outside 10.0.2.2:8080",
    }
    zone_for_one_direction: {
        on: &[BRIDGE, MASQUERADE, zone!("iifname br-demo ct original zone set 5")],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    zone_for_one_direction_by_iptables: {
        on: &[BRIDGE, MASQUERADE, "iptables-nft -t raw -A PREROUTING -i br-demo -j CT --zone-orig 5"],
        ask: "/run/netns/c1 192.0.2.50:53/udp",
    }
    zone_on_one_side_and_no_translation: {
        on: &[BRIDGE, SECOND_BRIDGE, zone!("iifname br-two ct zone set 5")],
        ask: "/run/netns/c3 172.18.0.20:80",
    }
    zone_of_the_mark: {
        on: &[BRIDGE, MASQUERADE, "
            iptables-nft -t raw -A PREROUTING -i br-demo -j MARK --set-mark 7
            iptables-nft -t raw -A PREROUTING -i up0 -j MARK --set-mark 7
            iptables-nft -t raw -A PREROUTING -j CT --zone mark"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
}
