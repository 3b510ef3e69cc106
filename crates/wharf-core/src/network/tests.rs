use super::*;
use crate::compile;

fn request(name: &str) -> NetworkRequest {
    NetworkRequest::new(name.parse().unwrap())
}

fn host() -> HostFacts {
    HostFacts {
        id: [7; 32],
        now: 1,
        egress_mtu: Some(1450),
        ..HostFacts::default()
    }
}

#[test]
fn everything_left_open() {
    let spec = resolve(&request("blue"), &[], &host()).unwrap();
    assert_eq!(spec.bridge.as_str(), "br-070707070707");
    assert_eq!(spec.subnets[0].subnet.to_string(), "10.201.0.0/22");
    assert_eq!(spec.subnets[0].gateway.to_string(), "10.201.0.1");
    assert_eq!(
        (spec.mtu, spec.icc, spec.masquerade, spec.has_v6()),
        (1450, true, true, false)
    );
    assert_eq!(
        resolve(&request("default"), &[], &host())
            .unwrap()
            .bridge
            .as_str(),
        "wharf0"
    );
}

#[test]
fn families_follow_the_subnets_and_the_flag() {
    let families = |subnets: &[&str], ipv6: bool| {
        let mut r = request("n");
        r.subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        r.ipv6 = ipv6.then_some(true);
        resolve(&r, &[], &host())
            .unwrap()
            .subnets
            .iter()
            .map(Subnet::family)
            .collect::<Vec<_>>()
    };
    assert_eq!(families(&[], false), [Family::V4]);
    assert_eq!(families(&[], true), [Family::V4, Family::V6]);
    assert_eq!(families(&["fd00::/64"], false), [Family::V6]);
    assert_eq!(families(&["fd00::/64"], true), [Family::V4, Family::V6]);
    assert_eq!(families(&["10.1.0.0/16"], true), [Family::V4, Family::V6]);
}

#[test]
fn refuses_what_cannot_be() {
    let with = |edit: &dyn Fn(&mut NetworkRequest)| {
        let mut r = request("n");
        edit(&mut r);
        resolve(&r, &[], &host()).unwrap_err()
    };
    let net = |t: &str| t.parse::<IpNet>().unwrap();
    assert!(matches!(
        with(&|r| r.subnets = vec![net("172.18.0.5/16")]),
        NetworkError::HostBits { .. }
    ));
    for unfit in [
        "10.0.0.0/31",
        "127.0.0.0/16",
        "169.254.0.0/16",
        "224.0.0.0/8",
        "fe80::/64",
        "ff00::/16",
        "0.0.0.0/0",
        "255.0.0.0/8",
    ] {
        assert!(
            matches!(
                with(&|r| r.subnets = vec![net(unfit)]),
                NetworkError::Unfit(..)
            ),
            "{unfit}"
        );
    }
    let mut reserved = request("blue");
    reserved.subnets = vec![net("240.10.0.0/16")];
    assert!(resolve(&reserved, &[], &host()).is_ok());
    assert!(matches!(
        with(&|r| r.gateways = vec!["1.2.3.4".parse().unwrap()]),
        NetworkError::Outside { .. }
    ));
    assert!(matches!(
        with(&|r| {
            r.subnets = vec![net("10.1.0.0/24")];
            r.gateways = vec!["10.1.0.255".parse().unwrap()]
        }),
        NetworkError::GatewayUnfit(..)
    ));
    let option = |r: &mut NetworkRequest, key: &str, value: &str| {
        r.options.insert(key.to_owned(), value.to_owned());
    };
    assert!(matches!(
        with(&|r| {
            r.ipv6 = Some(false);
            r.subnets = vec![net("fd00::/64")];
        }),
        NetworkError::Contradiction(_)
    ));
    for (key, value) in [("mtu", "1300"), ("icc", "false"), ("ip-masq", "0")] {
        let twice = with(&|r| {
            (r.mtu, r.icc, r.masquerade) = (Some(1400), Some(true), Some(true));
            option(r, key, value);
        });
        assert!(matches!(twice, NetworkError::Contradiction(_)), "{key}");
    }
    assert!(matches!(
        with(&|r| r.mtu = Some(67)),
        NetworkError::Mtu { min: 68, .. }
    ));
    assert!(matches!(
        with(&|r| {
            r.ipv6 = Some(true);
            r.mtu = Some(1279)
        }),
        NetworkError::Mtu { min: 1280, .. }
    ));
    assert!(matches!(
        with(&|r| r.subnets = vec![net("10.1.0.0/24"), net("10.2.0.0/24")]),
        NetworkError::TwoSubnets(Family::V4)
    ));
}

#[test]
fn overlaps_are_named() {
    let mut r = request("a");
    r.subnets = vec!["10.1.0.0/16".parse().unwrap()];
    let a = resolve(&r, &[], &host()).unwrap();
    let mut r = request("b");
    r.subnets = vec!["10.1.2.0/24".parse().unwrap()];
    let b = resolve(
        &r,
        std::slice::from_ref(&a),
        &HostFacts {
            id: [8; 32],
            ..host()
        },
    );
    assert_eq!(
        b.unwrap_err().to_string(),
        "subnet 10.1.2.0/24 overlaps 10.1.0.0/16 of network `a`"
    );
}

#[test]
fn a_link_of_the_host_is_used_where_it_is() {
    let net = |t: &str| t.parse::<IpNet>().unwrap();
    let mut facts = host();
    facts.interfaces = vec!["lan0".parse().unwrap(), "up0".parse().unwrap()];
    facts.egress = Some("up0".parse().unwrap());
    facts.on_link = vec![(net("10.1.0.0/24"), "lan0".parse().unwrap())];
    let mut r = request("lan");
    r.subnets = vec![net("10.1.0.0/24")];
    r.driver = Driver::Unmanaged;
    assert_eq!(resolve(&r, &[], &facts), Err(NetworkError::NoLink));
    r.bridge = Some("lan1".parse().unwrap());
    assert!(matches!(
        resolve(&r, &[], &facts),
        Err(NetworkError::LinkMissing(_))
    ));
    r.bridge = Some("lan0".parse().unwrap());
    let lan = resolve(&r, &[], &facts).unwrap();
    assert!(!lan.is_managed() && compile::network(&lan).is_empty());
    r.name = "again".parse().unwrap();
    assert!(
        resolve(&r, std::slice::from_ref(&lan), &facts).is_ok(),
        "several share a link"
    );
    r.driver = Driver::Macvlan(MacvlanMode::Bridge);
    r.bridge = None;
    assert_eq!(resolve(&r, &[lan], &facts).unwrap().bridge.as_str(), "up0");
}

#[test]
fn another_owners_network() {
    let net = |t: &str| t.parse::<IpNet>().unwrap();
    let mut r = request("theirs");
    r.owner = "netavark".to_owned();
    r.kind = NetworkKind::Numbered;
    r.id = Some("5".repeat(64));
    r.subnets = vec![net("10.1.0.0/24"), net("10.2.0.0/24")];
    let spec = resolve(&r, &[], &host()).unwrap();
    assert!(spec.is_transient());
    assert_eq!(
        (spec.id.as_str(), spec.subnets.len()),
        ("5".repeat(64).as_str(), 2)
    );
    r.subnets = vec![net("10.1.0.0/24"), net("10.1.0.0/16")];
    assert!(matches!(
        resolve(&r, &[], &host()),
        Err(NetworkError::Unfit(..))
    ));
    r.subnets.clear();
    let spec = resolve(&r, &[], &host()).unwrap();
    assert!(spec.subnets.is_empty());
    let raw = format!("{:?}", compile::network(&spec));
    assert!(
        !raw.contains("raw_in"),
        "no addresses to compare with: {raw}"
    );
}

#[test]
fn a_stored_network_without_owner_is_the_commands() {
    let spec = resolve(&request("old"), &[], &host()).unwrap();
    let text = serde_json::to_value(&spec).unwrap();
    let mut old = text.clone();
    for key in ["owner", "driver"] {
        old.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(serde_json::from_value::<NetworkSpec>(old).unwrap(), spec);
}

/// An option for a family that a network does not have would be for nothing.
#[test]
fn options_of_a_family_need_it() {
    let resolved = |subnet: &str, options: &[(&str, &str)]| {
        let mut request = NetworkRequest::new("n".parse().unwrap());
        request.subnets = vec![subnet.parse().unwrap()];
        let options = options.iter();
        request.options = options
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        resolve(&request, &[], &HostFacts::default())
    };
    let (v4, v6) = ("10.1.0.0/24", "fd00:1::/64");
    let prefix = "com.docker.network.bridge.";
    for (key, value, only) in [
        ("outbound_addr4", "192.0.2.1", v4),
        ("com.docker.network.host_ipv4", "192.0.2.1", v4),
        (&format!("{prefix}host_binding_ipv4"), "127.0.0.1", v4),
        (&format!("{prefix}gateway_mode_ipv4"), "routed", v4),
        (&format!("{prefix}inhibit_ipv4"), "true", v4),
        ("outbound_addr6", "2001:db8::1", v6),
        ("com.docker.network.host_ipv6", "2001:db8::1", v6),
        (&format!("{prefix}gateway_mode_ipv6"), "routed", v6),
    ] {
        let other = if only == v4 { v6 } else { v4 };
        assert!(resolved(only, &[(key, value)]).is_ok(), "{key}");
        let error = resolved(other, &[(key, value)]).unwrap_err();
        let family = if only == v4 { "IPv4" } else { "IPv6" };
        let text =
            format!("network option `{key}` is for {family}, which the network does not have");
        assert_eq!(error.to_string(), text);
        assert!(error.hint().unwrap().contains(family));
    }
    // What is so anyway may be said.
    for (key, value) in [
        ("host_binding_ipv4", "0.0.0.0"),
        ("inhibit_ipv4", "false"),
        ("gateway_mode_ipv4", "nat"),
    ] {
        assert!(
            resolved(v6, &[(&format!("{prefix}{key}"), value)]).is_ok(),
            "{key}"
        );
    }
}
