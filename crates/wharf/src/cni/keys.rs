//! Keys as programs in Go read them: whatever their case. containerd writes `HostPort` and `RangeStart`, since its types
//! do not say otherwise, and an empty text for an address that nobody gave.

use serde_json::{Map, Value};

/// Every key that is read, in its proper case.
const KNOWN: &[&str] = &[
    "address",
    "addresses",
    "advmss",
    "aliases",
    "allmulti",
    "args",
    "backend",
    "bandwidth",
    "bridge",
    "cni",
    "cniVersion",
    "conditionsV4",
    "conditionsV6",
    "containerPort",
    "dataDir",
    "disableContainerInterface",
    "dns",
    "domain",
    "dst",
    "egressBurst",
    "egressRate",
    "externalSetMarkChain",
    "firewalldZone",
    "forceAddress",
    "gateway",
    "gw",
    "hairpinMode",
    "hostIP",
    "hostPort",
    "ingressBurst",
    "ingressPolicy",
    "ingressRate",
    "ipMasq",
    "ipRanges",
    "ipam",
    "ips",
    "iptablesAdminChainName",
    "ipv6",
    "isDefaultGateway",
    "isGateway",
    "mac",
    "markMasqBit",
    "masqAll",
    "mtu",
    "name",
    "nameservers",
    "options",
    "portIsolation",
    "portMappings",
    "prevResult",
    "priority",
    "promisc",
    "promiscMode",
    "protocol",
    "rangeEnd",
    "rangeStart",
    "ranges",
    "resolvConf",
    "routes",
    "runtimeConfig",
    "scope",
    "search",
    "searches",
    "servers",
    "shapedSubnets",
    "snat",
    "subnet",
    "sysctl",
    "table",
    "txQLen",
    "type",
    "unshapedSubnets",
    "vlan",
    "vlanTrunk",
];

/// Keys whose values have keys of their own making, or are read as results are.
const APART: [&str; 3] = ["aliases", "prevResult", "sysctl"];

/// Addresses that may be left out.
const ADDRESSES: [&str; 4] = ["gateway", "gw", "rangeEnd", "rangeStart"];

/// Gives known keys their proper case, within lists and objects too. One that is written properly goes before others.
pub fn fold(map: &mut Map<String, Value>) {
    let is_known = |key: &String| KNOWN.contains(&key.as_str());
    let (proper, others): (Vec<_>, Vec<_>) = std::mem::take(map)
        .into_iter()
        .partition(|(k, _)| is_known(k));
    map.extend(proper);
    for (key, value) in others {
        let known = KNOWN.iter().find(|k| k.eq_ignore_ascii_case(&key));
        let key = known.map_or(key, |k| (*k).to_owned());
        map.entry(key).or_insert(value);
    }
    map.retain(|key, value| !(ADDRESSES.contains(&key.as_str()) && value == ""));
    for (key, value) in map.iter_mut() {
        if !APART.contains(&key.as_str()) {
            fold_within(value);
        }
    }
}

fn fold_within(value: &mut Value) {
    match value {
        Value::Object(inner) => fold(inner),
        Value::Array(all) => all.iter_mut().for_each(fold_within),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folded(value: Value) -> Value {
        let Value::Object(mut map) = value else {
            panic!("not an object")
        };
        fold(&mut map);
        Value::Object(map)
    }

    #[test]
    fn whatever_the_case() {
        assert_eq!(
            folded(
                json!({"runtimeConfig": {"portMappings": [{"HostPort": 80, "HostIP": ""}],
                "ipRanges": [[{"Subnet": "10.0.0.0/24", "RangeStart": "", "GATEWAY": ""}]]}})
            ),
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "hostIP": ""}],
                "ipRanges": [[{"subnet": "10.0.0.0/24"}]]}})
        );
        assert_eq!(
            folded(json!({"MTU": 1, "mtu": 2, "IsGateway": true, "Own": {"Mac": "x"}})),
            json!({"mtu": 2, "isGateway": true, "Own": {"mac": "x"}})
        );
    }

    #[test]
    fn names_of_others_stay() {
        let own =
            json!({"aliases": {"MTU": ["web"]}, "sysctl": {"NET": "1"}, "prevResult": {"IPs": []}});
        assert_eq!(folded(own.clone()), own);
    }

    #[test]
    fn each_is_known_once() {
        let mut sorted: Vec<_> = KNOWN.iter().map(|k| k.to_ascii_lowercase()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), KNOWN.len());
    }
}
