//! `wharf doctor` and `wharf exposure` where wharf's own rules, or the host's addresses that it was told of, were changed.

use crate::common::*;
use crate::doctor::{faults, mend, stage};
use serde_json::Value;
use wharf_testkit::{Echo, require};

#[test]
fn what_follows_from_changed_rules_is_not_advised() {
    require!();
    let host = stage();
    let web = host.container("web");
    let _server = Echo::tcp(&web, "web", 80);
    for breaks in [
        "nft delete element inet wharf nat_in '{ \"br-front\" }'",
        "nft delete rule inet wharf net-front-in handle $(nft -a list chain inet wharf net-front-in | sed -n 's/.*ct status dnat accept # handle //p')",
    ] {
        host.sh(breaks);
        let found = faults(&host);
        assert!(
            found.iter().any(|f| f["code"] == "rules-changed"),
            "{breaks}: {found:#?}"
        );
        for finding in &found {
            assert_eq!(texts(finding, "fix"), ["wharf repair"], "{breaks}");
        }
        let out = host.w("exposure --json").exits(1);
        assert!(out.stdout.contains("rules-changed"), "{breaks}");
        for other in ["route_localnet", "wharf port add"] {
            assert!(!out.stdout.contains(other), "{breaks}: {}", out.stdout);
        }
        mend(&host, &found);
        assert!(faults(&host).is_empty(), "{breaks}");
        host.w("exposure").exits(0);
    }
}

#[test]
fn an_address_that_the_host_lost_is_told() {
    require!();
    let host = host();
    host.sh("ip addr add 10.0.2.9/24 dev up0");
    network(&host, "A", 1, "-o com.docker.network.host_ipv4=10.0.2.9");
    container(&host, "a1", "A", 1, 11, "-p 10.0.2.9:99:80");
    let _server = Echo::tcp(&host.container("a1"), "a1", 80);
    host.w("doctor").exits(0);
    host.w("exposure").exits(0);
    host.sh("ip addr del 10.0.2.9/24 dev up0");
    let found = faults(&host);
    let named = |f: &&Value| f["code"] == "no-such-destination" && f["object"] == "10.0.2.9";
    assert!(found.iter().any(|f| named(&f)), "{found:#?}");
    let shown = host.w("exposure --json").exits(1).stdout;
    assert!(shown.contains("nobody reaches it"), "{shown}");
    mend(&host, &found);
    assert!(faults(&host).is_empty());
    host.w("exposure").exits(0);
}
