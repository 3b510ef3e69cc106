//! What others do to networks of wharf, where the obvious advice would do harm: make a container the host's router,
//! loosen the filter that keeps packets in, take away an address that wharf gave.

use crate::bases::*;
use crate::cases;

const SERVES: &str = "web:80/tcp cache:80/tcp host:5000/tcp outside:80/tcp";

cases! {
    flushed_rules_are_not_the_filters_fault: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft flush ruleset",
        ask: "web 192.0.2.50:80",
        says: "dropped policy-rule host *",
        owner: "wharf",
    }
    a_blackhole_on_the_way_back_to_a_container: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip route add blackhole 10.88.1.11",
        ask: "web 192.0.2.50:80",
        says: "dropped route-rejects host blackhole 10.88.1.11",
    }
    a_throw_route_for_a_container: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip route add throw 10.88.1.11",
        ask: "web 192.0.2.50:80",
        says: "dropped route-rejects host throw 10.88.1.11",
    }
    marked_packets_go_past_the_main_table: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip rule add fwmark 0x20000000/0x20000000 goto 32767 priority 105",
        ask: "web 192.0.2.50:80",
        says: "dropped|rejected policy-rule host 105: *",
    }
    a_bridge_that_was_deleted: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link del wharf-front",
        ask: "web 192.0.2.50:80",
        says: "dropped not-on-bridge host wharf-front",
        owner: "wharf",
    }
    a_bridge_that_was_deleted_for_siblings: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link del wharf-front",
        ask: "web cache:80",
        traffic: "web 10.88.1.12:80",
        says: "dropped not-on-bridge host wharf-front",
        owner: "wharf",
    }
    a_bridge_that_was_deleted_for_the_host: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip link del wharf-front",
        ask: "host 10.88.1.11:80",
        says: "dropped not-on-bridge host wharf-front",
        owner: "wharf",
    }
    the_gateways_address_is_nobody_elses: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip addr del 10.88.1.1/24 dev wharf-front",
        ask: "cache 10.88.1.1:5000",
        says: "dropped no-such-destination host 10.88.1.1",
        owner: "wharf",
    }
    a_containers_address_on_the_bridge: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip addr add 10.88.1.11/24 dev wharf-front",
        ask: "web 192.0.2.50:80",
        says: "dropped duplicate-address host 10.88.1.11/24 dev wharf-front",
    }
    an_entry_that_wharf_made_is_wrong: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip neigh replace 10.88.1.11 lladdr 02:00:00:00:00:98 dev wharf-front nud permanent",
        ask: "host 10.88.1.11:80",
        says: "dropped neighbour-wrong host *",
    }
    an_entry_that_wharf_made_is_gone: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -6 neigh del fd00:88:1::11 dev wharf-front",
        ask: "host [fd00:88:1::11]:80",
        says: "dropped neighbour-unreachable host fd00:88:1::11 dev wharf-front",
        owner: "wharf",
    }
    a_container_without_routes: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web route flush dev eth0",
        ask: "web 192.0.2.50:80",
        says: "dropped|rejected no-route web 192.0.2.50",
    }
    a_container_without_its_table_local: {
        on: &[WHARF], serves: SERVES,
        breaks: "ip -n web route flush table local",
        ask: "web 192.0.2.50:80",
        says: "unanswered no-route web local 10.88.1.11 dev eth0",
    }
    the_uplink_is_down_beside_another: {
        on: &[WHARF], serves: SERVES, neighbour: true,
        breaks: "ip link set up0 down",
        ask: "web 192.0.2.50:80",
        says: "dropped|rejected link-down host up0",
        no_fix: "the default route went with the link",
    }
    no_container_is_the_hosts_router: {
        on: &[WHARF, "wharf rm -f cache"], serves: "web:80/tcp outside:80/tcp",
        breaks: "ip addr flush dev up0",
        ask: "web 192.0.2.50:80",
        says: "dropped|rejected no-route host 192.0.2.50",
        no_fix: "nobody can tell which address it had",
    }
}
