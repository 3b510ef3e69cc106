//! The attacks that the guards are tested with do succeed against a host without guards: a test that sees nothing arrive
//! would else prove nothing.

use std::net::{IpAddr, Ipv6Addr};
use wharf_testkit::disguise::{self, DESTINATION, HOP_BY_HOP, VLAN};
use wharf_testkit::frame::{self, Arp, BROADCAST, Mac};
use wharf_testkit::{Echo, Host, HostOptions, Netns, Sniffer, Wire, addr, eventually, require};

const BRIDGE: &str = "
    ip link add br0 type bridge
    ip addr add 10.88.1.1/24 dev br0
    ip -6 addr add fd00:88:1::1/64 dev br0 nodad
    ip link set br0 up
    for n in 11 66; do
        ip netns add c$n
        ip link add v$n type veth peer name eth0 netns c$n
        ip link set v$n master br0 up
        ip -n c$n addr add 10.88.1.$n/24 dev eth0
        ip -n c$n -6 addr add fd00:88:1::$n/64 dev eth0 nodad
        ip -n c$n link set lo up
        ip -n c$n link set eth0 up
        ip -n c$n route add default via 10.88.1.1
    done
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
";

fn unguarded() -> (Host, Netns, Netns) {
    let host = HostOptions::new("/bin/false").neighbour().start();
    host.sh(BRIDGE);
    let (evil, victim) = (host.container("c66"), host.container("c11"));
    for (from, to) in [
        (&evil, "10.88.1.11"),
        (&evil, "fd00:88:1::11"),
        (&victim, "10.88.1.1"),
        (&victim, "fd00:88:1::1"),
    ] {
        assert!(from.ping(ip(to)).reached());
    }
    (host, evil, victim)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

#[test]
fn services_on_the_hosts_loopback_are_reached_from_the_wire_and_from_a_container() {
    require!();
    let (host, evil, _) = unguarded();
    host.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    let _secret = Echo::tcp_at(host.netns(), "secret", ip("127.0.0.1"), 9999);
    host.neighbour().give_loopback_away("10.0.3.2", "10.0.3.1");
    assert_eq!(
        host.neighbour().tcp(ip("127.0.0.1"), 9999).by(),
        Some("secret")
    );
    evil.give_loopback_away("10.88.1.1", "10.88.1.66");
    assert_eq!(evil.tcp(ip("127.0.0.1"), 9999).by(), Some("secret"));
}

#[test]
fn containers_are_reached_directly_and_the_host_routes_for_everybody() {
    require!();
    let (host, _, victim) = unguarded();
    let _web = Echo::tcp(&victim, "victim", 81);
    assert_eq!(
        host.outside().tcp(ip("10.88.1.11"), 81).by(),
        Some("victim")
    );
    let _far = Echo::tcp(host.outside(), "outside", 80);
    assert_eq!(
        host.neighbour().tcp(addr::OUTSIDE4, 80).by(),
        Some("outside")
    );
    assert_eq!(
        host.neighbour().tcp(addr::OUTSIDE6, 80).by(),
        Some("outside")
    );
}

#[test]
fn lies_about_addresses_are_heard_and_believed() {
    require!();
    let (host, evil, victim) = unguarded();
    let (evil_mac, victim_mac): (Mac, Mac) = (evil.mac("eth0"), victim.mac("eth0"));
    let (wire, heard) = (Wire::open(&evil, "eth0"), Sniffer::start(&victim, "eth0"));
    let outside = Sniffer::start(host.outside(), "down0");
    let gateway = "10.88.1.1".parse().expect("an address");

    let lie = Arp {
        frame_from: evil_mac,
        frame_to: BROADCAST,
        operation: 2,
        sender: evil_mac,
        sender_ip: gateway,
        target_ip: "10.88.1.11".parse().expect("an address"),
    };
    let mac = evil_mac.map(|byte| format!("{byte:02x}")).join(":");
    eventually("the victim takes the attacker for its gateway", || {
        wire.send(&frame::arp(&lie));
        victim
            .ip("neigh show 10.88.1.1")
            .contains(&mac)
            .then_some(())
    });
    let lie = frame::neighbour_advertisement(
        (evil_mac, victim_mac),
        v6("fd00:88:1::66"),
        v6("fd00:88:1::11"),
        v6("fd00:88:1::1"),
        evil_mac,
    );
    eventually("in IPv6 as well", || {
        wire.send(&lie);
        victim
            .ip("-6 neigh show fd00:88:1::1")
            .contains(&mac)
            .then_some(())
    });

    let false_mac = [2, 0xba, 0xd0, 0, 0, 1];
    let to = (ip("10.88.1.11"), 9);
    wire.send(&frame::udp(
        (false_mac, victim_mac),
        (ip("10.88.1.66"), 9),
        to,
        b"false mac",
    ));
    heard.wait_for("a false source MAC", b"false mac");
    wire.send(&frame::udp(
        (evil_mac, victim_mac),
        (ip("198.51.100.9"), 9),
        to,
        b"false source",
    ));
    heard.wait_for("a false source address", b"false source");
    let macs = (evil_mac, host.netns().mac("br0"));
    wire.send(&frame::udp(
        macs,
        (ip("198.51.100.9"), 9),
        (addr::OUTSIDE4, 9),
        b"false source, out",
    ));
    outside.wait_for("a false source address outside", b"false source, out");
    let everybody = ip("255.255.255.255");
    wire.send(&frame::udp(
        (evil_mac, BROADCAST),
        (ip("10.88.1.66"), 67),
        (everybody, 68),
        b"an offer",
    ));
    heard.wait_for("a false DHCP offer", b"an offer");
}

#[test]
fn a_router_advertisement_moves_host_and_sibling() {
    require!();
    let (host, evil, victim) = unguarded();
    host.sh("sysctl -qw net.ipv6.conf.br0.accept_ra=2");
    let mac = evil.mac("eth0");
    let wire = Wire::open(&evil, "eth0");
    let lie = frame::router_advertisement(mac, frame::link_local(mac), v6("2001:db8:bad::"));
    for netns in [host.netns(), &victim] {
        eventually("a route by advertisement", || {
            wire.send(&lie);
            netns
                .ip("-6 route show")
                .contains("2001:db8:bad::/64")
                .then_some(())
        });
    }
}

/// In disguise as well: what [`disguise`] makes is taken by the kernel for what it is.
#[test]
fn disguised_lies_are_heard_and_believed() {
    require!();
    let (host, evil, victim) = unguarded();
    let macs = (evil.mac("eth0"), victim.mac("eth0"));
    let (wire, heard) = (Wire::open(&evil, "eth0"), Sniffer::start(&victim, "eth0"));
    let (own, other, foreign) = (ip("10.88.1.66"), ip("10.88.1.11"), ip("198.51.100.9"));
    let false_one = |text: &str| frame::udp(macs, (foreign, 9), (other, 9), text.as_bytes());
    wire.send(&disguise::tagged(&false_one("in a tag"), &[(VLAN, 5)]));
    heard.wait_for("a false source in a VLAN tag", b"in a tag");
    let bpdu = disguise::bpdu(macs.0);
    wire.send(&bpdu);
    heard.wait_for("a BPDU", &bpdu[17..40]);
    let option = disguise::source_route([10, 88, 1, 1].into());
    wire.send(&disguise::with_options(&false_one("with options"), &option));
    heard.wait_for("a false source with options", b"with options");

    let server = Echo::udp(&victim, "victim", 68);
    let offer = frame::udp(macs, (own, 12345), (other, 68), b"an offer in pieces");
    let pieces = disguise::fragments4(&offer, 8);
    let server6 = Echo::udp(&victim, "victim", 546);
    let ends = (ip("fd00:88:1::66"), ip("fd00:88:1::11"));
    let offer6 = frame::udp(macs, (ends.0, 9), (ends.1, 546), b"an advertise in pieces");
    let pieces6 = disguise::fragments6(&offer6, &[], 8);
    let behind = disguise::with_headers(&offer6, &[HOP_BY_HOP, DESTINATION]);
    [&pieces[..], &pieces6[..], &[behind]]
        .concat()
        .iter()
        .for_each(|frame| wire.send(frame));
    eventually("all are put together and served", || {
        ((server.served(), server6.served()) == (1, 2)).then_some(())
    });

    let lie = frame::router_advertisement(macs.0, frame::link_local(macs.0), v6("2001:db8:bad::"));
    eventually("a router behind extension headers", || {
        wire.send(&disguise::with_headers(&lie, &[HOP_BY_HOP, DESTINATION]));
        victim
            .ip("-6 route show")
            .contains("2001:db8:bad::/64")
            .then_some(())
    });
    let service = Echo::udp(host.netns(), "host", 7000);
    let group = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
    wire.send(&frame::udp(
        (macs.0, group),
        (foreign, 9),
        (addr::HOST4, 7000),
        b"by a group",
    ));
    eventually("the host's service is reached past the bridge", || {
        (service.served() == 1).then_some(())
    });
}
