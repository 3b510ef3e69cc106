//! Rules in the shape that firewalld, Netavark's nft driver and a router's zones give them.

use crate::bases::*;
use crate::cases;

const FIREWALLD: &str = "
    nft -f - <<'END'
    table inet firewalld {
        chain filter_INPUT {
            type filter hook input priority filter + 10
            ct state { established, related } accept
            iifname lo accept
            icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
            jump filter_INPUT_ZONES
            reject with icmpx admin-prohibited
        }
        chain filter_FORWARD {
            type filter hook forward priority filter + 10
            ct state { established, related } accept
            ct status dnat accept
            jump filter_FORWARD_ZONES
            reject with icmpx admin-prohibited
        }
        chain filter_INPUT_ZONES { iifname br-demo goto filter_IN_containers; goto filter_IN_public; }
        chain filter_FORWARD_ZONES { iifname br-two goto filter_FWD_trusted; }
        chain filter_IN_containers { tcp dport 22 accept; icmp type echo-request accept; }
        chain filter_IN_public { tcp dport 22 accept; }
        chain filter_FWD_trusted { accept; }
    }
END";

const NETAVARK_NFT: &str = "
    nft -f - <<'END'
    table inet netavark {
        chain FORWARD {
            type filter hook forward priority filter
            ct state invalid drop
            jump NETAVARK-ISOLATION-1
        }
        chain POSTROUTING {
            type nat hook postrouting priority srcnat
            meta mark & 0x00002000 == 0x00002000 masquerade
            ip saddr 172.18.0.0/16 jump nv_demo_nm
        }
        chain PREROUTING {
            type nat hook prerouting priority dstnat
            fib daddr type local jump NETAVARK-HOSTPORT-DNAT
        }
        chain OUTPUT {
            type nat hook output priority -100
            fib daddr type local jump NETAVARK-HOSTPORT-DNAT
        }
        chain NETAVARK-HOSTPORT-DNAT { tcp dport 8080 jump nv_demo_dnat; }
        chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
        chain nv_demo_dnat {
            ip saddr 172.18.0.0/16 tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK
            ip saddr 127.0.0.1 tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK
            tcp dport 8080 dnat ip to 172.18.0.20:80
        }
        chain nv_demo_nm { ip daddr 172.18.0.0/16 accept; ip daddr != 224.0.0.0/4 masquerade; }
        chain NETAVARK-ISOLATION-1 { iifname br-demo oifname != br-demo jump NETAVARK-ISOLATION-2; }
        chain NETAVARK-ISOLATION-2 { oifname br-two drop; }
    }
END";

cases! {
    firewalld_echo_to_the_host: { on: &[BRIDGE, MASQUERADE, FIREWALLD], ask: "/run/netns/c1 172.18.0.1" }
    firewalld_trusted_zone: { on: &[BRIDGE, SECOND_BRIDGE, FIREWALLD], ask: "/run/netns/c3 172.18.0.20:80" }
    firewalld_published: { on: &[BRIDGE, MASQUERADE, PUBLISH, FIREWALLD], ask: "outside 10.0.2.2:8080" }
    firewalld_rejects_what_is_passed_on: {
        on: &[BRIDGE, MASQUERADE],
        breaks: FIREWALLD,
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "rejected firewall-rule host inet firewalld filter_FORWARD handle *",
        owner: "firewalld",
    }
    firewalld_rejects_what_is_for_the_host: {
        on: &[BRIDGE, MASQUERADE],
        breaks: FIREWALLD,
        ask: "/run/netns/c1 172.18.0.1:5000",
        says: "rejected firewall-rule host inet firewalld filter_INPUT handle *",
        owner: "firewalld",
    }
    netavark_by_nft: { on: &[BRIDGE, NETAVARK_NFT], ask: "/run/netns/c1 192.0.2.50:53/udp" }
    netavark_by_nft_published: { on: &[BRIDGE, NETAVARK_NFT], ask: "outside 10.0.2.2:8080" }
    netavark_by_nft_published_to_its_neighbour: { on: &[BRIDGE, NETAVARK_NFT], ask: "/run/netns/c1 10.0.2.2:8080" }
    netavark_by_nft_published_to_itself: { on: &[BRIDGE, NETAVARK_NFT], ask: "/run/netns/c2 10.0.2.2:8080" }
    netavark_by_nft_keeps_networks_apart: {
        on: &[BRIDGE, SECOND_BRIDGE],
        serves: "c3:80/tcp",
        breaks: NETAVARK_NFT,
        ask: "/run/netns/c1 172.19.0.10:80",
        says: "dropped firewall-rule host inet netavark NETAVARK-ISOLATION-2 handle *",
    }
    netavark_by_nft_without_its_mark: {
        on: &[BRIDGE, NETAVARK_NFT],
        breaks: "nft flush chain inet netavark NETAVARK-HOSTPORT-SETMARK",
        ask: "/run/netns/c1 10.0.2.2:8080",
        says: "unanswered no-masquerade host br-demo",
    }
    // What keeps the answer back keeps back the gateway's answer to the question for it.
    no_room_in_the_queue_for_arp: {
        on: &[BRIDGE, MASQUERADE],
        breaks: "ip -n c1 neigh flush dev eth0; tc qdisc add dev br-demo root pfifo limit 0",
        ask: "/run/netns/c1 192.0.2.50:80",
        says: "dropped|unanswered traffic-control host qdisc pfifo *",
    }
}
