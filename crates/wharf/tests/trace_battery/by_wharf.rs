//! Networks that wharf made: what it keeps apart, and what broke in them.

use crate::bases::*;
use crate::cases;

/// The serving containers of [`WHARF`].
const SERVES: &str = "web:80/tcp web:81/tcp cache:80/tcp db:80/tcp db:53/udp host:5000/tcp outside:80/tcp outside:53/udp";

cases! {
    sound_between_containers: { on: &[WHARF], serves: SERVES, outside: "", ask: "cache web:80", traffic: "cache 10.88.1.11:80" }
    sound_six: { on: &[WHARF], serves: SERVES, outside: "", ask: "cache [fd00:88:1::11]:80" }
    sound_outside: { on: &[WHARF], serves: SERVES, ask: "web 192.0.2.50:53/udp" }
    sound_published: { on: &[WHARF], serves: SERVES, ask: "outside 10.0.2.2:8080" }
    sound_published_six: { on: &[WHARF], serves: SERVES, outside: "", ask: "outside [2001:db8:2::2]:8080" }
    sound_published_by_name: { on: &[WHARF], serves: SERVES, ask: "outside web:8080", traffic: "outside 10.0.2.2:8080" }
    sound_published_from_the_host: { on: &[WHARF], serves: SERVES, ask: "host 10.0.2.2:8080" }
    sound_published_from_loopback: { on: &[WHARF], serves: SERVES, ask: "host 127.0.0.1:8080" }
    sound_published_from_another_network: { on: &[WHARF], serves: SERVES, ask: "db 10.0.2.2:8080" }
    sound_published_to_itself: { on: &[WHARF], serves: SERVES, ask: "web 10.0.2.2:8080" }
    a_rule_that_cannot_be_judged_comes_first: {
        on: &[WHARF, "nft 'table ip z { chain p { type filter hook prerouting priority mangle;
                      iifname wharf-front tcp dport 80 tproxy to 127.0.0.1:5999; }; }'"],
        serves: SERVES,
        ask: "web 192.0.2.50:80",
        offline: "unknown",
    }
    nobody_is_told_to_take_an_address: {
        on: &["wharf network create lone --subnet 10.88.7.0/24; wharf create one --network lone; wharf create two --network lone"],
        serves: "two:80/tcp",
        ask: "one 10.88.7.99:80",
        says: "dropped no-such-destination one 10.88.7.99",
        no_fix: "nobody has the address",
    }
    turned_round_inside_the_bridge: {
        on: &[WHARF, "nft 'table bridge f { chain i { type filter hook input priority 0; tcp dport {80, 8080} drop; };
                      chain o { type filter hook output priority 0; tcp dport 80 drop; }; }'
                      ip xfrm policy setdefault fwd block"],
        serves: SERVES, bridge_nf_call: true,
        ask: "cache 10.0.2.2:8080",
    }
    turned_round_by_a_port_that_sends_nothing_back: {
        on: &[WHARF], serves: SERVES, bridge_nf_call: true,
        breaks: "for p in $(ip -br link show master wharf-front | cut -d@ -f1); do bridge link set dev $p hairpin off; done",
        ask: "web 10.0.2.2:8080",
        says: "dropped bridge-port-blocked host *",
        owner: "wharf",
    }
    turned_round_to_a_rule_of_bridges: {
        on: &[WHARF], serves: SERVES, bridge_nf_call: true,
        breaks: "nft 'table bridge f { chain f { type filter hook forward priority 0; tcp dport 80 drop; }; }'",
        ask: "cache 10.0.2.2:8080",
        says: "dropped firewall-rule host bridge f f handle *",
    }
    not_published_six: {
        on: &[WHARF], serves: SERVES, outside: "",
        ask: "outside [fd00:88:1::11]:81",
        says: "dropped|rejected not-published host *",
        owner: "wharf",
        then: "outside [2001:db8:2::2]:8081",
    }
    no_mapping_on_the_host: {
        on: &[WHARF], serves: "web:80/tcp web:8081/tcp",
        ask: "outside 10.0.2.2:8081",
        says: "rejected not-listening|not-published host *",
        no_fix: "nobody can tell which container was meant",
    }
    bridge_lost_its_address: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip addr del 10.88.1.1/24 dev wharf-front",
        ask: "outside 10.0.2.2:8080",
        says: "dropped route-conflict host 10.88.1.0/24 dev wharf-front",
        owner: "wharf",
    }
    bridge_lost_its_address_for_the_host: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip addr del 10.88.1.1/24 dev wharf-front",
        ask: "host 10.88.1.11:80",
        says: "dropped route-conflict host 10.88.1.0/24 dev wharf-front",
        owner: "wharf",
    }
    bridge_without_address: {
        on: &["wharf network create bare --subnet 10.88.4.0/24 --bridge br-bare -o com.docker.network.bridge.inhibit_ipv4=true
               wharf create d --network bare --ip 10.88.4.11 -p 8084:80"],
        serves: "d:80/tcp",
        ask: "host 10.88.4.11:80",
        says: "dropped route-conflict host 10.88.4.0/24 dev br-bare",
        owner: "wharf",
    }
    networks_apart: {
        on: &[WHARF], serves: SERVES,
        ask: "db web:80",
        traffic: "db 10.88.1.11:80",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
    }
    networks_apart_six: {
        on: &[WHARF], serves: SERVES,
        ask: "cache [fd00:88:2::11]:80",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
    }
    networks_apart_echo: {
        on: &[WHARF],
        ask: "cache db",
        traffic: "cache 10.88.2.11",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
    }
    containers_apart: {
        on: &["wharf network create quiet --subnet 10.88.3.0/24 --subnet fd00:88:3::/64 --icc false
               wharf create a --network quiet --ip 10.88.3.11 --ip fd00:88:3::11
               wharf create b --network quiet --ip 10.88.3.12 --ip fd00:88:3::12"],
        serves: "a:80/tcp b:80/tcp",
        ask: "a b:80",
        traffic: "a 10.88.3.12:80",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
        then: "sh:wharf trace a b:80 --offline --json | grep -q '\"verdict\": *\"delivered\"'",
    }
    published_though_containers_apart: {
        on: &["wharf network create quiet --subnet 10.88.3.0/24 --icc false
               wharf create a --network quiet --ip 10.88.3.11 -p 8088:80
               wharf create b --network quiet --ip 10.88.3.12"],
        serves: "a:80/tcp b:80/tcp",
        ask: "b 10.0.2.2:8088",
    }
    internal_to_the_outside: {
        on: &["wharf network create deep --subnet 10.88.4.0/24 --internal; wharf create d --network deep --ip 10.88.4.11"],
        serves: "outside:80/tcp",
        ask: "d 192.0.2.50:80",
        says: "dropped|rejected internal-network * *",
        owner: "wharf",
    }
    internal_from_the_outside: {
        on: &["wharf network create deep --subnet 10.88.4.0/24 --internal; wharf create d --network deep --ip 10.88.4.11"],
        outside: "",
        serves: "d:80/tcp",
        ask: "outside d:80",
        traffic: "outside 10.88.4.11:80",
        says: "dropped|rejected internal-network|not-published host *",
        owner: "wharf",
        no_fix: "the network is meant to be closed",
    }
    address_changed: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web addr del 10.88.1.11/24 dev eth0; ip -n web addr add 10.88.1.77/24 dev eth0; ip -n web route replace default via 10.88.1.1",
        ask: "web 192.0.2.50:80",
        says: "dropped spoof-guard host *",
        owner: "wharf",
    }
    mac_changed: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web link set eth0 address 02:de:ad:be:ef:01; ip -n web neigh flush dev eth0",
        ask: "web 192.0.2.50:80",
        says: "dropped spoof-guard host *",
        owner: "wharf",
    }
    address_lost: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web addr del 10.88.1.11/24 dev eth0; ip -n cache neigh flush dev eth0",
        ask: "cache web:80",
        traffic: "cache 10.88.1.11:80",
        says: "dropped no-such-destination|neighbour-unreachable web *",
    }
    cable_shut: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link set $(wharf inspect web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"networks\"][0][\"host_interface\"])') down",
        ask: "outside web:8080",
        traffic: "outside 10.0.2.2:8080",
        says: "dropped link-down host *",
        owner: "wharf",
    }
    bridge_shut: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link set wharf-front down",
        ask: "cache web:80",
        traffic: "cache 10.88.1.11:80",
        says: "dropped bridge-down host wharf-front",
        owner: "wharf",
    }
    cable_on_the_other_bridge: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link set $(wharf inspect web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"networks\"][0][\"host_interface\"])') master wharf-back",
        ask: "cache web:80",
        traffic: "cache 10.88.1.11:80",
        says: "dropped not-on-bridge host *",
        owner: "wharf",
    }
    default_route_lost: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web route del default",
        ask: "web 192.0.2.50:80",
        says: "dropped|rejected no-route web 192.0.2.50",
    }
    default_route_lost_published: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web route del default",
        ask: "outside web:80",
        traffic: "outside 10.0.2.2:8080",
        says: "unanswered no-return-route web *",
    }
    forwarding_off: {
        on: &[WHARF], serves: SERVES,
        breaks: "sysctl -qw net.ipv4.ip_forward=0",
        ask: "outside web:80",
        traffic: "outside 10.0.2.2:8080",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
    }
    shadowed_by_another_rule: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft 'table ip early { chain pre { type nat hook prerouting priority -150; tcp dport 8080 dnat to 10.88.2.11:80; }; }'",
        ask: "outside 10.0.2.2:8080",
        traffic: "sh:! nft list ruleset | grep -q 'dport 8080 dnat to 10.88.2.11'",
        says: "dropped|unanswered|delivered|rejected publish-shadowed host ip early pre handle 2",
        owner: "user",
    }
    foreign_drop_policy: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft 'table inet f { chain fw { type filter hook forward priority 10; policy drop; }; }'",
        ask: "cache 192.0.2.50:80",
        says: "dropped firewall-policy host inet f fw",
        owner: "user",
    }
    dnat_rules_gone: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft flush chain inet wharf nat-pre 2>/dev/null || nft delete table inet wharf",
        ask: "outside 10.0.2.2:8080",
        says: "dropped|rejected publish-shadowed|not-published|not-listening host *",
    }
    host_services_closed: {
        on: &["wharf network create shy --subnet 10.88.6.0/24 -o host-access=none; wharf create s --network shy --ip 10.88.6.11"],
        ask: "s 10.88.6.1:5000",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
        then: "s 10.0.2.2:5000",
    }
    not_masqueraded_as_asked: {
        on: &["wharf network create plain --subnet 10.88.7.0/24 --masquerade false; wharf create m --network plain --ip 10.88.7.11"],
        ask: "m 192.0.2.50:80",
        says: "unanswered no-return-route|no-masquerade host *",
        owner: "wharf",
    }
    published_on_loopback: { on: &["wharf network create front --subnet 10.88.1.0/24; wharf create web --network front --ip 10.88.1.11 -p 127.0.0.1:8080:80"], serves: "web:80/tcp", ask: "host 127.0.0.1:8080" }
    published_on_loopback_asked_by_name: {
        on: &["wharf network create front --subnet 10.88.1.0/24; wharf create web --network front --ip 10.88.1.11 -p 127.0.0.1:8080:80"],
        serves: "web:80/tcp",
        ask: "outside web:80",
        traffic: "outside 10.0.2.2:8080",
        says: "dropped|rejected not-published host *",
        owner: "wharf",
        then: "outside 10.0.2.2:8081",
    }
    no_six_on_the_network: {
        on: &["wharf network create four --subnet 10.88.8.0/24 --ipv6=false; wharf create f --network four --ip 10.88.8.11"],
        outside: "",
        ask: "f [2001:db8::50]:80",
        says: "dropped|rejected ipv6-disabled|no-address f *",
        owner: "wharf",
    }
    beside_a_network_by_hand: {
        on: &["
            ip link add br-x type bridge; ip addr add 172.18.0.1/16 dev br-x; ip link set br-x up; ip netns add hx
            ip link add vx type veth peer name eth0 netns hx; ip link set vx master br-x up; ip -n hx addr add 172.18.0.10/16 dev eth0; ip -n hx link set eth0 up
            ip -n hx route add default via 172.18.0.1
            nft 'table ip hand { chain post { type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/16 oifname up0 masquerade; }; }'", WHARF],
        ask: "/run/netns/hx 192.0.2.50:80",
        says: "dropped|rejected forwarding-disabled host *",
    }
    two_networks_outwards: {
        on: &[WHARF, "wharf network connect back web"],
        serves: "outside:80/tcp",
        ask: "web 192.0.2.50:80",
    }
    udp_published: {
        on: &["wharf network create front --subnet 10.88.1.0/24; wharf create dns --network front --ip 10.88.1.11 -p 5353:53/udp"],
        serves: "dns:53/udp",
        ask: "outside 10.0.2.2:5353/udp",
    }
    // Frames for a hardware address that nobody has are flooded: to the host's side of the siblings, too.
    gateway_pinned_elsewhere: {
        on: &[WHARF], serves: "host:5053/udp",
        breaks: "ip -n web neigh replace 10.88.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ask: "web 10.88.1.1:5053/udp",
        says: "dropped neighbour-wrong web 10.88.1.1 dev eth0 lladdr 02:00:00:00:00:99",
    }
    cable_off_the_bridge_outwards: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link set $(wharf inspect web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"networks\"][0][\"host_interface\"])') nomaster",
        ask: "web 192.0.2.50:80",
        says: "dropped not-on-bridge host *",
        owner: "wharf",
    }
    forwarding_entries_flushed: {
        on: &[WHARF], serves: SERVES,
        breaks: "bridge fdb flush dev wharf-front",
        ask: "web 192.0.2.50:80",
        says: "dropped spoof-guard host *",
        owner: "wharf",
        after_fix: "ip -n web neigh flush all",
    }
    forwarding_entry_deleted_for_the_host: {
        on: &[WHARF], serves: SERVES,
        breaks: "bridge fdb del $(ip netns exec web cat /sys/class/net/eth0/address) dev $(wharf inspect web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"networks\"][0][\"host_interface\"])') master",
        ask: "host 10.88.1.11",
        says: "unanswered spoof-guard host *",
        owner: "wharf",
    }
    mappings_flushed_from_loopback: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft flush map inet wharf publish4",
        ask: "host 127.0.0.1:8080",
        says: "dropped|rejected publish-shadowed host 127.0.0.1:8080",
        owner: "wharf",
    }
    routed_outwards: {
        on: &["wharf network create rt --subnet 172.24.0.0/16 -o com.docker.network.bridge.gateway_mode_ipv4=routed; wharf create r1 --network rt --ip 172.24.0.10"],
        ask: "r1 192.0.2.50:80",
        says: "unanswered no-return-route host 172.24.0.10",
        owner: "wharf",
    }
    containers_apart_six: {
        on: &["wharf network create quiet --subnet 10.88.3.0/24 --subnet fd00:88:3::/64 --icc false
               wharf create a --network quiet --ip 10.88.3.11 --ip fd00:88:3::11
               wharf create b --network quiet --ip 10.88.3.12 --ip fd00:88:3::12"],
        serves: "a:80/tcp b:80/tcp",
        ask: "a [fd00:88:3::12]:80",
        says: "dropped|rejected network-isolation host *",
        owner: "wharf",
        then: "sh:wharf trace a b:80 --offline --json | grep -q '\"verdict\": *\"delivered\"'",
    }
}
