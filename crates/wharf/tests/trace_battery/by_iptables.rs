//! Rules of iptables in both of its forms, ip6tables, and the chains of ufw and of other tools.

use crate::bases::*;
use crate::cases;

cases! {
    forward_policy: {
        on: &[BRIDGE, MASQUERADE_IPTABLES],
        breaks: "iptables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-policy host ip filter FORWARD",
    }
    forward_policy_legacy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -P FORWARD DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-policy host ip filter FORWARD",
    }
    forward_policy_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip6tables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 [2001:db8::50]:80",
        says: "dropped firewall-policy host ip6 filter FORWARD",
    }
    input_rule: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A INPUT -i br-demo -p tcp --dport 5000 -j DROP",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-rule host ip filter INPUT handle *",
    }
    input_rule_legacy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -A INPUT -p icmp -j ACCEPT; iptables-legacy -A INPUT -i br-demo -p tcp -m tcp --dport 5000 -j REJECT --reject-with tcp-reset",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "rejected firewall-rule host ip filter INPUT rule 2 | -A INPUT -i br-demo -p tcp -m tcp --dport 5000 -j REJECT --reject-with tcp-reset",
    }
    multiport: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -p tcp -m multiport --dports 22,80,443 -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    multiport_legacy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -A FORWARD -p tcp -m multiport --dports 22,80:90,443 -m comment --comment 'no web' -j DROP",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter FORWARD rule 1",
    }
    conntrack_state: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -m conntrack --ctstate NEW -i br-demo -j REJECT",
        ask: "/run/netns/c1 192.0.2.50",
        says: "rejected firewall-rule host ip filter FORWARD handle *",
    }
    addrtype: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -t raw -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 5000 -j DROP",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-rule host ip raw PREROUTING handle *",
    }
    security_table: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "nft 'table ip security { chain FORWARD { type filter hook forward priority security; ip protocol icmp drop; }; }'",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip security FORWARD handle 2",
    }
    range: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-nft -A FORWARD -m iprange --src-range 172.18.0.5-172.18.0.15 -j DROP",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter FORWARD handle *",
    }
    own_chain_legacy: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "iptables-legacy -N block; iptables-legacy -A block -d 192.0.2.0/24 -j DROP; iptables-legacy -A FORWARD -i br-demo -g block",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-rule host ip filter block rule 1",
    }
    in_the_container: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 iptables-legacy -A INPUT -p tcp --dport 80 -j DROP",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped firewall-rule /run/netns/c2 ip filter INPUT rule 1",
    }
    in_the_container_six: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip netns exec c2 ip6tables-nft -A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "rejected firewall-rule /run/netns/c2 ip6 filter INPUT handle *",
    }
    bridged_by_the_new_form: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "iptables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 172.18.0.20:80",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
    }
    bridged_six: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "ip6tables-nft -A FORWARD -p tcp --dport 80 -j DROP",
        ask: "/run/netns/c1 [fd00:18::20]:80",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-ip6tables",
    }
    bridged_by_nft: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 0; policy drop; }; }'",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
    }
    bridged_by_port: {
        on: &[BRIDGE, MASQUERADE],
        bridge_nf_call: true,
        breaks: "iptables-legacy -A FORWARD -m physdev --physdev-in veth-c1 --physdev-is-bridged -j DROP",
        ask: "/run/netns/c1 172.18.0.20",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
    }
    ufw_input: {
        on: &[BRIDGE, MASQUERADE, UFW],
        breaks: "iptables-nft -P INPUT DROP",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "dropped firewall-policy host ip filter INPUT",
        owner: "ufw",
    }
    ufw_reject: {
        on: &[BRIDGE, MASQUERADE, UFW],
        breaks: "iptables-nft -A ufw-user-input -p tcp --dport 5000 -j REJECT",
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "rejected firewall-rule host ip filter ufw-user-input handle *",
        owner: "ufw",
    }
    ufw_forward: {
        on: &[BRIDGE, MASQUERADE, UFW],
        breaks: "iptables-nft -P FORWARD DROP",
        ask: "/run/netns/c1 192.0.2.50",
        says: "dropped firewall-policy host ip filter FORWARD",
        owner: "ufw",
    }
    snat_to_a_strange_address: {
        on: &[BRIDGE, "iptables-nft -t nat -A POSTROUTING -s 172.18.0.0/16 -o up0 -j MASQUERADE"],
        breaks: "iptables-nft -t nat -F POSTROUTING; iptables-nft -t nat -A POSTROUTING -s 172.18.0.0/16 -o up0 -j SNAT --to-source 203.0.113.77",
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered no-masquerade|no-return-route host *",
    }
    masquerade_comes_too_late: {
        on: &[BRIDGE, "iptables-nft -t nat -A POSTROUTING -s 172.18.0.0/16 -o up0 -j MASQUERADE"],
        breaks: "iptables-nft -t nat -I POSTROUTING -s 172.18.0.0/16 -j ACCEPT",
        ask: "/run/netns/c1 192.0.2.50",
        says: "unanswered no-masquerade host up0 | *",
    }
    published_to_a_gone_address: {
        on: &[BRIDGE, MASQUERADE, "iptables-nft -t nat -A PREROUTING -i up0 -p tcp --dport 8080 -j DNAT --to-destination 172.18.0.20:80"],
        breaks: "ip -n c2 addr del 172.18.0.20/16 dev eth0; ip -n c2 addr add 172.18.0.40/16 dev eth0; ip -n c2 route add default via 172.18.0.1",
        ask: "outside 10.0.2.2:8080",
        says: "dropped publish-shadowed host ip nat PREROUTING handle *",
    }
    published_to_a_gone_address_legacy: {
        on: &[BRIDGE, MASQUERADE, "iptables-legacy -t nat -A PREROUTING -i up0 -p udp --dport 8053 -j DNAT --to-destination 172.18.0.20:53"],
        breaks: "ip -n c2 addr del 172.18.0.20/16 dev eth0; ip -n c2 addr add 172.18.0.40/16 dev eth0; ip -n c2 route add default via 172.18.0.1
                 conntrack -D -p udp >/dev/null 2>&1 || true",
        ask: "outside 10.0.2.2:8053/udp",
        says: "dropped publish-shadowed host ip nat PREROUTING rule 1",
    }
}

/// The chains that `ufw enable` makes, as far as they matter.
const UFW: &str = "
    iptables-nft-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
:ufw-not-local - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j RETURN
-A ufw-not-local -j DROP
COMMIT
END";
