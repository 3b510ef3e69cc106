//! Rules and elements of wharf's that somebody inserted, deleted or changed: whatever packets meet then, the cause is that.

use crate::bases::*;
use crate::cases;

const SERVES: &str = "web:80/tcp web:81/tcp cache:80/tcp host:9000/tcp outside:80/tcp";

cases! {
    inserted_where_packets_are_passed_on: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft insert rule inet wharf forward drop",
        ask: "web 192.0.2.50:80",
        says: "dropped rules-changed host chain inet wharf forward",
        owner: "wharf",
    }
    inserted_into_a_networks_guard: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft insert rule inet wharf net-front-raw drop",
        ask: "web 192.0.2.50:80",
        says: "dropped rules-changed host chain inet wharf net-front-raw",
        owner: "wharf",
    }
    inserted_into_the_guard_of_ports: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft insert rule bridge wharf ports drop",
        ask: "web 192.0.2.50:80",
        says: "dropped rules-changed host chain bridge wharf ports",
        owner: "wharf",
    }
    inserted_where_the_host_is_reached: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft insert rule inet wharf host tcp dport 9000 reject",
        ask: "web 10.88.1.1:9000",
        says: "rejected rules-changed host chain inet wharf host",
        owner: "wharf",
    }
    no_bridge_of_wharfs_any_more: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft delete element inet wharf bridges '{ \"wharf-front\" }'",
        ask: "web 192.0.2.50:80",
        says: "dropped rules-changed host an element of set inet wharf bridges",
        owner: "wharf",
    }
    nobody_at_the_port: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft delete element bridge wharf guard4 \"{ $(ip netns exec web cat /sys/class/net/eth0/address) . 10.88.1.11 }\"",
        ask: "web 192.0.2.50:80",
        says: "dropped rules-changed host an element of set bridge wharf guard4",
        owner: "wharf",
    }
    no_rule_for_what_is_published: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft delete rule inet wharf net-front-in handle $(nft -a list chain inet wharf net-front-in | sed -n 's/.*ct status dnat accept # handle //p')",
        ask: "outside 10.0.2.2:8080",
        says: "dropped rules-changed host chain inet wharf net-front-in",
        owner: "wharf",
    }
    a_published_port_leads_elsewhere: {
        on: &[WHARF], serves: "web:80/tcp outside:80/tcp",
        breaks: "nft 'delete element inet wharf publish4 { tcp . 8080 }; add element inet wharf publish4 { tcp . 8080 : 10.88.1.11 . 81 }'",
        ask: "outside 10.0.2.2:8080",
        says: "rejected rules-changed host an element of set inet wharf publish4",
        owner: "wharf",
    }
    loopback_is_not_translated: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft delete element inet wharf nat_in '{ \"wharf-front\" }'",
        ask: "host 127.0.0.1:8080",
        says: "dropped rules-changed host an element of set inet wharf nat_in",
        owner: "wharf",
    }
    // What is not on the way is not the cause.
    a_rule_of_another_network: {
        on: &[WHARF], serves: SERVES,
        breaks: "nft insert rule inet wharf net-back-raw drop; ip -n web link set eth0 address 02:de:ad:be:ef:01; ip -n web neigh flush dev eth0",
        ask: "web 192.0.2.50:80",
        says: "dropped spoof-guard host *",
        owner: "wharf",
    }
}
