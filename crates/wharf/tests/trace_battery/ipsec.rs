//! Policies of IPsec: those that block, in each direction and before and after translation, and those for others.

use crate::bases::*;
use crate::cases;

cases! {
    ipsec_blocks_what_is_passed_on: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 action block",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd",
    }
    ipsec_blocks_one_port_on_the_way_out: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy add dir out src 172.18.0.0/16 dst 192.0.2.0/24 proto tcp dport 80 action block priority 7",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host src 172.18.0.0/16 dst 192.0.2.0/24 proto tcp dport 80 dir out",
    }
    ipsec_spares_other_ports: {
        on: &[BRIDGE, MASQUERADE, "ip xfrm policy add dir out src 172.18.0.0/16 dst 192.0.2.0/24 proto tcp dport 81 action block
            ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action block"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    ipsec_blocks_what_arrives_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 ip xfrm policy add dir in src fd00:18::/64 dst fd00:18::20/128 action block",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped firewall-rule /run/netns/c2 src fd00:18::/64 dst fd00:18::20/128 dir in",
    }
    ipsec_first_by_priority: {
        on: &[BRIDGE, MASQUERADE, "ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 action block priority 9
            ip xfrm policy add dir fwd src 172.18.0.0/16 dst 0.0.0.0/0 action allow priority 3
            ip xfrm policy add dir fwd src 0.0.0.0/0 dst 10.0.2.2/32 action allow priority 3"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    ipsec_blocks_translated_sources: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy add dir out src 10.0.2.2/32 dst 192.0.2.50/32 action block",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host src 10.0.2.2/32 dst 192.0.2.50/32 dir out",
    }
    ipsec_blocks_answers_to_translated_sources: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy add dir out src 192.0.2.0/24 dst 172.18.0.10/32 action block",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "unanswered firewall-rule host src 192.0.2.0/24 dst 172.18.0.10/32 dir out",
    }
    ipsec_blocks_questions_of_echo: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy add dir out src 172.18.0.0/16 dst 192.0.2.0/24 proto icmp type 8 code 0 action block",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host src 172.18.0.0/16 dst 192.0.2.0/24 proto icmp type 8 code 0 dir out",
    }
    ipsec_blocks_marked_ones: {
        on: &[BRIDGE, MASQUERADE, "nft 'table ip m { chain p { type filter hook prerouting priority mangle; tcp dport 80 meta mark set 7; }; }'"],
        breaks: "ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 dev up0 mark 7 mask 15 action block",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host src 0.0.0.0/0 dst 0.0.0.0/0 dev up0 dir fwd mark 7 mask 15",
    }
    ipsec_is_for_others: {
        on: &[BRIDGE, MASQUERADE, "ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 mark 7 action block
            ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 if_id 7 action block
            ip xfrm policy add dir fwd src 0.0.0.0/0 dst 172.18.0.0/24 proto tcp tmpl proto esp mode transport level use
            ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 dev br-demo action block"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    ipsec_is_off_for_links: {
        on: &[BRIDGE, MASQUERADE, "ip xfrm policy add dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 action block
            sysctl -qw net.ipv4.conf.br-demo.disable_policy=1 net.ipv4.conf.all.disable_policy=1"],
        ask: "/run/netns/c1 192.0.2.50:80",
    }
    ipsec_lets_nothing_by: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy setdefault fwd block",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-policy host ip xfrm policy default fwd block",
    }
    ipsec_lets_nothing_in: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip xfrm policy setdefault in block",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-policy host ip xfrm policy default in block",
    }
    ipsec_lets_nothing_out: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c1 ip xfrm policy setdefault out block",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-policy /run/netns/c1 ip xfrm policy default out block",
    }
}
