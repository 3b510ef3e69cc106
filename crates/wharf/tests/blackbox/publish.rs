//! Published ports: forms, ranges, host addresses, protocols, changes on a running container.

use crate::common::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use wharf_testkit::skip::Need;
use wharf_testkit::{
    Answer, Echo, Matrix, Protocol, SctpEcho, Snapshot, Want, addr, eventually, require,
};

#[test]
fn a_port_bound_to_one_host_address_answers_only_there() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(
        &host,
        "a1",
        "A",
        1,
        11,
        "-p 10.0.2.2:8080:80 -p [2001:db8:2::2]:8081:80",
    );
    container(&host, "a2", "A", 1, 12, "-p 10.0.2.3:8080:80");
    let _servers = ["a1", "a2"].map(|name| Echo::tcp(&host.container(name), name, 80));
    let mut m = Matrix::new();
    for from in [host.outside(), host.netns(), &host.container("a1")] {
        m.tcp("a1's address", from, addr::HOST4, 8080, Want::Reach("a1"));
        m.tcp(
            "same port, a2's address",
            from,
            addr::HOST4_B,
            8080,
            Want::Reach("a2"),
        );
        m.tcp("IPv6 address", from, addr::HOST6, 8081, Want::Reach("a1"));
        m.tcp("bound to IPv4 only", from, addr::HOST6, 8080, Want::Refused);
        m.tcp("bound to IPv6 only", from, addr::HOST4, 8081, Want::Refused);
    }
    m.tcp(
        "not on loopback",
        host.netns(),
        ip("127.0.0.1"),
        8080,
        Want::Refused,
    );
    m.check();
}

#[test]
fn an_address_added_later_answers_as_well() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    host.sh("ip addr add 10.0.2.77/24 dev up0");
    assert_eq!(host.outside().tcp(ip("10.0.2.77"), 8080).by(), Some("a1"));
}

#[test]
fn host_binding_option_is_the_address_of_ports_that_name_none() {
    require!();
    let host = host();
    network(
        &host,
        "A",
        1,
        "-o com.docker.network.bridge.host_binding_ipv4=10.0.2.3",
    );
    container(&host, "a1", "A", 1, 11, "-p 8080:80 -p 10.0.2.2:8081:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4_B, 8080).by(), Some("a1"));
    assert_eq!(host.outside().tcp(addr::HOST4, 8080), Answer::Refused);
    assert_eq!(host.outside().tcp(addr::HOST4, 8081).by(), Some("a1"));
}

#[test]
fn a_range_maps_each_port_to_its_own_and_is_one_element() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(
        &host,
        "a1",
        "A",
        1,
        11,
        "-p 8000-8999:8000-8999 -p 9000-9002:80-82/udp",
    );
    let a1 = host.container("a1");
    let _tcp = [8000u16, 8500, 8999]
        .map(|port| Echo::tcp(&a1, if port == 8500 { "middle" } else { "edge" }, port));
    let _udp =
        [("u80", 80), ("u81", 81), ("u82", 82)].map(|(name, port)| Echo::udp(&a1, name, port));
    let mut m = Matrix::new();
    for v6 in [false, true] {
        let (out, here) = (host.outside(), addr::host(v6));
        m.tcp("first", out, here, 8000, Want::Reach("edge"));
        m.tcp("middle", out, here, 8500, Want::Reach("middle"));
        m.tcp("last", out, here, 8999, Want::Reach("edge"));
        m.tcp("before", out, here, 7999, Want::Refused);
        m.tcp("behind", out, here, 9000, Want::Refused);
        m.udp("shifted, first", out, here, 9000, Want::Reach("u80"));
        m.udp("shifted, middle", out, here, 9001, Want::Reach("u81"));
        m.udp("shifted, last", out, here, 9002, Want::Reach("u82"));
        m.tcp(
            "from the host",
            host.netns(),
            here,
            8500,
            Want::Reach("middle"),
        );
        m.tcp("from itself", &a1, here, 8500, Want::Reach("middle"));
    }
    m.check();
    let rules = Snapshot::of(&host).nft().to_owned();
    let mentions = rules.matches("8500").count();
    assert_eq!(mentions, 0, "a range is not spelled out:\n{rules}");
    assert!(
        rules.lines().count() < 500,
        "a thousand ports make {} lines of rules",
        rules.lines().count()
    );
}

#[test]
fn sctp_is_published_and_translated() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8095:95/sctp");
    container(&host, "a2", "A", 1, 12, "");
    let _a1 = SctpEcho::new(&host.container("a1"), "a1", 95);
    let mut m = Matrix::new();
    for v6 in [false, true] {
        let source = if v6 { addr::ROUTER6 } else { addr::ROUTER4 };
        m.sctp(
            "outside",
            host.outside(),
            addr::host(v6),
            8095,
            Want::ReachAs("a1", source),
        );
        m.sctp(
            "sibling",
            &host.container("a2"),
            addr::host(v6),
            8095,
            Want::ReachAs("a1", at(v6, 1, 1)),
        );
        m.sctp(
            "sibling, direct",
            &host.container("a2"),
            at(v6, 1, 11),
            95,
            Want::ReachAs("a1", at(v6, 1, 12)),
        );
        m.add(
            "the same number in TCP",
            host.outside(),
            Protocol::Tcp,
            (addr::host(v6), 8095),
            Want::Refused,
        );
        m.sctp("directly", host.outside(), at(v6, 1, 11), 95, Want::No);
    }
    m.check();
}

#[test]
fn ports_come_and_go_on_a_running_container() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    let before = Snapshot::of(&host);
    host.w("port add a1 8081:80 127.0.0.1:8082:80").ok();
    for v6 in [false, true] {
        assert_eq!(host.outside().tcp(addr::host(v6), 8081).by(), Some("a1"));
    }
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8082).by(), Some("a1"));
    let listed = host.w("port ls a1").ok();
    for part in ["8080", "8081", "8082", "127.0.0.1"] {
        assert!(
            listed.stdout.contains(part),
            "{part}: {}",
            listed.transcript()
        );
    }
    assert_eq!(
        host.inspect("a1")["ports"].as_array().map(Vec::len),
        Some(3)
    );
    let all = host.w("port ls --json").json();
    assert!(all.to_string().contains("8081"), "{all}");
    host.w("port rm a1 8081:80 127.0.0.1:8082:80").ok();
    assert_eq!(host.outside().tcp(addr::HOST4, 8081), Answer::Refused);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("a1"),
        "the other port stays"
    );
    before.assert_same(&host, "port add and port rm");
    host.w("port rm a1 8081:80").fails(1);
}

#[test]
fn route_localnet_only_while_a_port_needs_it() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let on = || {
        let text = host.netns().run(|| {
            let dirs = std::fs::read_dir("/proc/sys/net/ipv4/conf").expect("sysctls");
            let read =
                |dir: std::fs::DirEntry| std::fs::read_to_string(dir.path().join("route_localnet"));
            dirs.flatten()
                .filter_map(|dir| read(dir).ok())
                .collect::<String>()
        });
        text.contains('1')
    };
    container(&host, "a1", "A", 1, 11, "-p 10.0.2.2:8080:80");
    assert!(!on(), "nothing is published on loopback");
    host.w("port add a1 127.0.0.1:8082:80").ok();
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8082).by(), Some("a1"));
    host.w("port rm a1 127.0.0.1:8082:80").ok();
    assert!(!on(), "it is not needed any more");
}

#[test]
fn loopback_mapping_in_ipv6_answers_or_is_refused_at_once() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    let made = host.w(&format!(
        "create a1 --network A {} -p [::1]:8082:82",
        ips(1, 11)
    ));
    if made.code == Some(0) {
        let _server = Echo::tcp(&host.container("a1"), "a1", 82);
        let answer = host.netns().tcp_brief(ip("::1"), 8082);
        assert!(
            answer.by() == Some("a1") || answer == Answer::Refused,
            "{answer}"
        );
    } else {
        assert!(matches!(made.code, Some(1 | 2)), "{}", made.transcript());
        made.says("::1");
    }
}

#[test]
fn an_established_connection_ends_or_lives_but_never_moves() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let _servers = ["a1", "a2"].map(|name| Echo::tcp(&host.container(name), name, 80));
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
    for _ in 0..5 {
        host.w("port rm a1 8080:80").ok();
        assert_eq!(host.outside().tcp(addr::HOST4, 8080), Answer::Refused);
        host.w("port add a2 8080:80").ok();
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a2"));
        host.w("port rm a2 8080:80").ok();
        host.w("port add a1 8080:80").ok();
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a1"));
    }
}

/// A container on two networks answers whoever comes by its port from either, and its changes leave others' ports alone.
#[test]
fn ports_of_a_container_on_two_networks() {
    require!();
    let host = host();
    for (name, net) in [("m", 1), ("n", 2)] {
        network(&host, name, net, "");
    }
    container(&host, "e", "n", 2, 11, "-p 8080:80");
    host.w("create c --network m --network n -p 8082:80 -p 8083:83/udp")
        .ok();
    container(&host, "s", "n", 2, 12, "");
    let _e = Echo::tcp(&host.container("e"), "e", 80);
    let _c = Echo::tcp(&host.container("c"), "c", 80);
    let _u = Echo::udp(&host.container("c"), "c", 83);
    let sibling = host.container("s");
    for at in [addr::HOST4, addr::HOST6] {
        assert_eq!(sibling.tcp(at, 8082).by(), Some("c"));
        assert_eq!(sibling.udp(at, 8083).by(), Some("c"));
    }
    let loopback = || {
        host.netns()
            .tcp(ip("127.0.0.1"), 8080)
            .by()
            .map(str::to_owned)
    };
    assert_eq!(loopback().as_deref(), Some("e"));
    for change in [
        "port add c 8090:90",
        "port rm c 8090:90",
        "network disconnect n c",
    ] {
        host.w(change).ok();
        assert_eq!(loopback().as_deref(), Some("e"), "{change}");
    }
    let plan = host.w("repair --dry-run --json").ok().json();
    assert_eq!(plan["steps"], serde_json::json!([]));
}

/// Two containers on networks without IPv4 may have one hardware address: one goes, and the other is guarded still.
#[test]
fn link_local_addresses_that_two_have_stay_with_the_other() {
    require!();
    let host = host();
    for (name, subnet) in [("one", "fd81::/64"), ("two", "fd82::/64")] {
        host.w(&format!(
            "network create {name} --ipv4=false --subnet {subnet}"
        ))
        .ok();
    }
    host.w("create x --network one").ok();
    host.w("create y --network two").ok();
    host.w("rm y").ok();
    let plan = host.w("repair --dry-run --json").ok().json();
    assert_eq!(plan["steps"], serde_json::json!([]));
    host.w("rm x").ok();
    assert!(!host.sh("nft list set bridge wharf guard6").contains("fe80"));
}

/// A port at an address of a family that no network of the container carries would answer nobody: it is refused, or, where
/// others are published beside it, named.
#[test]
fn a_port_that_would_answer_nobody_is_not_silently_taken() {
    require!();
    let host = host();
    for (name, more) in [
        ("four", "--subnet 10.88.1.0/24"),
        ("six", "--subnet fd00:88:2::/64"),
        ("in", "--subnet 10.88.3.0/24 --internal"),
    ] {
        host.w(&format!("network create {name} {more}")).ok();
    }
    host.w("create there --network six").ok();
    let before = Snapshot::of(&host);
    let v4 = format!("{}:8080:80", addr::HOST4);
    for (line, family) in [
        (format!("create c --network six -p {v4}"), "IPv4"),
        ("create c --network six -p 0.0.0.0:8080:80".into(), "IPv4"),
        ("create c --network four -p [::]:8080:80".into(), "IPv6"),
        (format!("port add there {v4}"), "IPv4"),
    ] {
        host.w(&line)
            .fails(2)
            .says(&format!("has no {family} address"));
        before.assert_same(&host, &line);
    }
    host.w(&format!("run --network six -p {v4} -- true"))
        .fails(125)
        .says("has no IPv4 address");
    let file = format!(
        "[networks.x]\nsubnet = \"fd00:88:9::/64\"\n[containers.y]\nnetworks = [\"x\"]\nports = [\"{v4}\"]\n"
    );
    let file = host.dir().write("t.toml", &file);
    host.w(&format!("apply {file}"))
        .fails(2)
        .says("has no IPv4 address");
    before.assert_same(&host, "what was refused");

    host.w(&format!("create part --network six -p {v4} -p 8081:80"))
        .ok()
        .says("warning: `10.0.2.2:8080:80/tcp` of `part` answers to nobody");
    let noted = host
        .w("--json create two --network four -p [::]:8082:80 -p 8083:80")
        .ok();
    assert!(
        noted.stderr.contains(r#""kind":"port_unserved""#),
        "{}",
        noted.transcript()
    );
    let plain = host.w("create both --network four -p 8084:80").ok();
    assert_eq!(plain.stderr, "", "every family that there is");
    // Docker takes ports of internal networks, and publishes none of them.
    host.w("create quiet --network in -p 8085:80")
        .ok()
        .says("internal networks only");
    host.w("port add quiet 8086:80")
        .ok()
        .says("internal networks only");
    // One that leaves the network that carried its port.
    host.w("create both6 --network four --network six -p 0.0.0.0:8087:80")
        .ok();
    host.w("network disconnect four both6")
        .ok()
        .says("answers to nobody");
}

/// Connection tracking has forgotten the flow, and takes no other in its middle: it was not the host that was spoken to, and
/// its refusal would end the connection.
#[test]
fn packets_of_no_flow_end_no_connection() {
    require!(Need::Program("conntrack"));
    let host = host();
    network(&host, "A", 1, "");
    container(
        &host,
        "a1",
        "A",
        1,
        11,
        "-p 8080:80 -p 8000-8001:8000-8001 -p 10.0.2.2:90:90",
    );
    let a1 = host.container("a1");
    for (asked, port) in [(8080, 80), (8001, 8001), (90, 90)] {
        let server = a1.run(|| TcpListener::bind(("0.0.0.0", port)).expect("listen"));
        let dial = || TcpStream::connect((addr::HOST4, asked)).expect("connect");
        let mut client = host.outside().run(dial);
        let (mut served, _) = server.accept().expect("accept");
        host.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0; conntrack -F");
        client.write_all(b"x").expect("send");
        client
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("set a timeout");
        let heard = client.read(&mut [0; 1]);
        let quiet = heard.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(quiet, "{asked}: the client was told something");
        // What is sent again is taken for the middle of a flow.
        host.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1");
        let mut byte = [0; 1];
        served.read_exact(&mut byte).expect("the connection lives");
    }
}

/// The address that a flow was translated to is given up: its next packets go to what is left.
#[test]
fn udp_clients_follow_when_a_network_is_left() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    network(&host, "B", 2, "");
    container(&host, "c", "A", 1, 11, "-p 5000:50/udp");
    host.w("network connect B c --ip 10.88.2.11").ok();
    let c = host.container("c");
    let _server = Echo::udp(&c, "c", 50);
    let client = host.outside().run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 7777)).expect("bind");
        socket.connect((addr::HOST4, 5000)).expect("connect");
        let wait = Some(Duration::from_millis(300));
        socket.set_read_timeout(wait).expect("set a timeout");
        socket
    });
    let answers = || {
        let _ = client.send(b"who?");
        client.recv(&mut [0; 64]).ok()
    };
    eventually("the first network carries it", answers);
    host.w("network disconnect A c").ok();
    eventually("the second does", answers);
}

/// Docker's `-p 80`, `-p 127.0.0.1::81` and `-p 8000-8002:80`: the host's port is chosen, told, and nobody else's.
#[test]
fn host_ports_that_are_left_to_wharf() {
    require!();
    let host = host();
    network(&host, "n", 1, "");
    host.netns()
        .sh("sysctl -qw net.ipv4.ip_local_port_range='40000 40003'");
    let _listener = Echo::tcp(host.netns(), "host", 40001);
    container(&host, "a", "n", 1, 11, "-p 40000:1");
    host.w("create b --network n -p 80 -p 127.0.0.1::81/udp")
        .says("note: 80/tcp is published as 40002:80/tcp")
        .ok();
    let ports = |name: &str| -> Vec<String> {
        let listed = host.w(&format!("port ls {name} --json")).json();
        let all = listed.as_array().unwrap().iter();
        let text = |p: &serde_json::Value, key: &str| p[key].as_str().unwrap().to_owned();
        all.map(|p| format!("{}:{}", text(p, "host_ip"), text(p, "host_port")))
            .collect()
    };
    // UDP's ports are others than TCP's.
    assert_eq!(ports("b"), [":40002", "127.0.0.1:40000"]);
    let _web = Echo::tcp(&host.container("b"), "b", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 40002).by(), Some("b"));
    host.w("port add a 40000-40003:9").ok();
    assert_eq!(ports("a"), [":40000", ":40003"]);
    let before = Snapshot::of(&host);
    for line in ["create c --network n -p 5", "port add a 40000-40003:9"] {
        host.w(line)
            .fails(1)
            .says("/tcp: all of 40000-40003 are taken");
    }
    before.assert_same(&host, "no port is free");
    host.w("rm b").ok();
    let plan = host.w("create c --network n -p 5 --dry-run").ok();
    assert!(plan.stdout.contains("40002"), "{}", plan.stdout);
}

/// Who is named twice goes once, and takes nothing with it that others need.
#[test]
fn a_container_named_twice_is_removed_once() {
    require!();
    let host = host();
    network(&host, "A", 1, "--bridge wharf-a");
    container(&host, "gone", "A", 1, 11, "-p 8081:80");
    container(&host, "kept", "A", 1, 12, "-p 8080:80");
    let _web = Echo::tcp(&host.container("kept"), "kept", 80);
    let removed = host.w("rm gone gone").ok();
    assert_eq!(
        removed.stdout.lines().count(),
        1,
        "{}",
        removed.transcript()
    );
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("kept"));
    host.w("network rm -f A A").ok();
}
