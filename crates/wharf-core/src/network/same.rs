//! Whether a network that is there is the one a client describes again.

use std::collections::BTreeMap;

use crate::network::{IPV6_MIN_MTU, NetworkKind, NetworkRequest, NetworkSpec};

/// How a network differs from a description of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// What cannot be changed while containers are on it, in words.
    pub fixed: Vec<String>,
    /// Subnets that it does not have yet, with their place in the request.
    pub missing: Vec<usize>,
}

impl Differences {
    /// It is the same.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.missing.is_empty()
    }
}

/// Compares a network with a description; what the description leaves open is no difference. With `whole` the
/// description made the network; without, only what it says expressly counts.
pub fn differences(spec: &NetworkSpec, request: &NetworkRequest, whole: bool) -> Differences {
    let (mut fixed, mut missing) = (Vec::new(), Vec::new());
    let mut differs = |what: &str, is: String, wanted: String| {
        fixed.push(format!("{what} is {is}, {wanted} is asked for"));
    };
    if let Some(bridge) = &request.bridge
        && *bridge != spec.bridge
    {
        differs("the bridge", spec.bridge.to_string(), bridge.to_string());
    }
    if let Some(mtu) = request.mtu
        && mtu != spec.mtu
    {
        differs("the MTU", spec.mtu.to_string(), mtu.to_string());
    }
    let adopted = request.kind == NetworkKind::Adopted;
    if adopted != spec.adopted {
        let whose = |adopted| {
            if adopted {
                "another program's"
            } else {
                "wharf's"
            }
        };
        differs(
            "its bridge",
            whose(spec.adopted).to_owned(),
            whose(adopted).to_owned(),
        );
    }
    if whole {
        for (what, is, wanted) in settings(spec, request) {
            if is != wanted {
                differs(what, is, wanted);
            }
        }
    }
    for gateway in &request.gateways {
        let own = spec.subnets.iter().find(|s| s.subnet.contains(gateway));
        if let Some(own) = own.filter(|s| s.gateway != *gateway) {
            differs("the gateway", own.gateway.to_string(), gateway.to_string());
        }
    }
    for (at, subnet) in request.subnets.iter().enumerate() {
        if spec.subnets.iter().any(|s| s.subnet == *subnet) {
            continue;
        }
        // Who is on it has no IPv6 and stays so; whether anybody can have it is for the MTU to say.
        let no_v6 = subnet.addr().is_ipv6() && spec.mtu < IPV6_MIN_MTU;
        if !spec.adopted && (no_v6 || spec.subnets.is_empty()) {
            let all: Vec<_> = spec.subnets.iter().map(|s| s.subnet.to_string()).collect();
            differs("the subnet", all.join(" "), subnet.to_string());
        } else {
            missing.push(at);
        }
    }
    Differences { fixed, missing }
}

/// What a description says by leaving it out, too.
fn settings(spec: &NetworkSpec, request: &NetworkRequest) -> [(&'static str, String, String); 4] {
    let text = |options: &BTreeMap<String, String>| {
        let all: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("`{}`", all.join(" "))
    };
    let flag = |on: bool| on.to_string();
    let icc = request.icc.unwrap_or(true);
    let masquerade = request.masquerade.unwrap_or(true);
    [
        ("internal", flag(spec.internal), flag(request.internal)),
        ("icc", flag(spec.icc), flag(icc)),
        ("masquerade", flag(spec.masquerade), flag(masquerade)),
        ("the options", text(&spec.options), text(&request.options)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{HostFacts, grow, resolve};

    fn request(subnets: &[&str]) -> NetworkRequest {
        let mut request = NetworkRequest::new("n".parse().unwrap());
        request.kind = NetworkKind::Numbered;
        request.subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        request
    }

    fn made(request: &NetworkRequest) -> NetworkSpec {
        resolve(request, &[], &HostFacts::default()).unwrap()
    }

    #[test]
    fn the_same_again_is_no_difference() {
        let mut wanted = request(&["10.1.0.0/24", "10.2.0.0/24", "fd00::/64"]);
        wanted.masquerade = Some(false);
        wanted.options = [("hairpin".to_owned(), "true".to_owned())].into();
        assert!(differences(&made(&wanted), &wanted, true).is_empty());
        let bare = request(&[]);
        assert!(differences(&made(&bare), &bare, true).is_empty());
    }

    #[test]
    fn further_subnets_of_a_family_are_missing_and_the_rest_is_fixed() {
        let spec = made(&request(&["10.1.0.0/24"]));
        let more = request(&["10.1.0.0/24", "10.2.0.0/24"]);
        let found = differences(&spec, &more, true);
        assert_eq!((found.fixed.len(), found.missing), (0, vec![1]));
        let further = request(&["10.2.0.0/24"]);
        let grown = grow(&spec, &further, &[], &HostFacts::default()).unwrap();
        assert!(differences(&grown, &more, true).is_empty());
        assert_eq!(grown.bridge_mac, spec.bridge_mac);
        let both = request(&["10.1.0.0/24", "fd00::/64"]);
        let found = differences(&spec, &both, true);
        assert_eq!((found.fixed.len(), found.missing), (0, vec![1]));
        let mut small = request(&["10.1.0.0/24"]);
        small.mtu = Some(1000);
        let spec_of_small = made(&small);
        small.subnets = both.subnets;
        let found = differences(&spec_of_small, &small, true);
        assert_eq!(found.fixed.len(), 1, "no IPv6 with so small packets");
        for edit in [
            (|r| r.bridge = Some("br9".parse().unwrap())) as fn(&mut NetworkRequest),
            |r| r.mtu = Some(1400),
            |r| r.internal = true,
            |r| r.icc = Some(false),
            |r| r.masquerade = Some(false),
            |r| r.kind = NetworkKind::Adopted,
            |r| r.gateways = vec!["10.1.0.9".parse().unwrap()],
        ] {
            let mut other = request(&["10.1.0.0/24"]);
            edit(&mut other);
            let found = differences(&spec, &other, true);
            assert_eq!(found.fixed.len(), 1, "{other:?}: {found:?}");
        }
    }

    #[test]
    fn a_users_own_network_is_only_asked_for_what_is_said() {
        let mut users = request(&["10.1.0.0/24"]);
        users.internal = true;
        users.options = [("isolate".to_owned(), "false".to_owned())].into();
        let spec = made(&users);
        assert!(differences(&spec, &request(&[]), false).is_empty());
        assert!(!differences(&spec, &request(&[]), true).is_empty());
    }
}
