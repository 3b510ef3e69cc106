//! Several faults at once: the first met is the cause, the others follow.

use wharf_core::trace::L4::Tcp;

use crate::build::*;

/// What stacks up is told in the order in which the packet meets it.
#[test]
fn all_of_them_in_order() {
    let mut w = World::demo();
    let c1 = w.id("c1");
    w.del_routes(c1, "default");
    w.set(HOST, "net.ipv4.ip_forward", 0);
    w.state.spaces[HOST].ruleset.chains.clear();
    w.forward_policy_drop();
    let report = w.ask("c1", "192.0.2.50", Tcp, 80);
    assert_eq!(line(&report), "dropped no-route c1 192.0.2.50");
    assert_eq!(
        crate::build::also(&report),
        [
            "forwarding-disabled",
            "firewall-policy",
            "not-listening",
            "no-masquerade"
        ]
    );
}
