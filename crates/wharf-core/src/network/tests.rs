use super::*;

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
        r.ipv6 = ipv6;
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
        "240.0.0.0/8",
    ] {
        assert!(
            matches!(
                with(&|r| r.subnets = vec![net(unfit)]),
                NetworkError::Unfit(..)
            ),
            "{unfit}"
        );
    }
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
    assert!(matches!(
        with(&|r| r.mtu = Some(67)),
        NetworkError::Mtu { min: 68, .. }
    ));
    assert!(matches!(
        with(&|r| {
            r.ipv6 = true;
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
