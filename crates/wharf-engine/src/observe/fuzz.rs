//! Whatever the kernel, or somebody in its place, sends: it is read or passed over.
//!
//! The inputs in `__fuzz__` beside this file are dumps of links, addresses, routes and neighbours, and an iptables table.

use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage as Message;
use wharf_core::addr::Family;

use super::{address, link_info, route, xtables};
use crate::kernel::netlink::socket::messages;

const TIME: Duration = Duration::from_secs(3);

#[test]
fn any_rtnetlink_message_is_read_or_passed_over() {
    bolero::check!()
        .with_iterations(20_000)
        .with_test_time(TIME)
        .for_each(|bytes: &[u8]| {
            for message in messages(bytes) {
                let _ = (message.error(), message.gone());
                match message.decode() {
                    Some(Message::NewLink(link)) => _ = link_info(&link),
                    Some(Message::NewAddress(found)) => _ = address(&found),
                    Some(Message::NewRoute(found)) => _ = route(&found),
                    _ => {}
                }
            }
        });
}

#[test]
fn any_table_of_the_old_iptables_is_read() {
    bolero::check!()
        .with_iterations(20_000)
        .with_test_time(TIME)
        .for_each(|bytes: &[u8]| {
            for family in Family::BOTH {
                let found = xtables::parse(family, bytes, 0);
                assert!(found.links.len() <= bytes.len() / 32 && found.chains.len() <= bytes.len());
            }
        });
}
