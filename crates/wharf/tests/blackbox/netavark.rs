//! The protocol between Podman and Netavark, by the messages that Podman really sent and the answers it got.
//!
//! `tests/netavark/*.json` holds them: what stood on the standard input, and what came back.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::*;
use serde_json::{Value, json};
use wharf_testkit::{Answer, Echo, Host, Output, Snapshot, addr, require};

/// A message that Podman sent, and the answer.
pub fn message(name: &str) -> (Value, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/netavark/{name}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut message: Value = serde_json::from_str(&text).unwrap();
    (message["stdin"].take(), message["stdout"].take())
}

/// Where Podman would look for the program.
pub fn helpers(host: &Host) -> PathBuf {
    let dir = host.dir().path().join("helpers");
    std::fs::create_dir_all(&dir).unwrap();
    let program = std::env::var("WHARF_BIN").unwrap_or_else(|_| WHARF.to_owned());
    // It may be there from an earlier call.
    let _ = symlink(program, dir.join("netavark"));
    dir
}

/// Calls the program as Podman does, with this name server.
pub fn call_with(host: &Host, aardvark: &str, args: &[&str], input: &Value) -> Output {
    let config = host.dir().path().join("networks");
    std::fs::create_dir_all(&config).unwrap();
    host.command(helpers(host).join("netavark").to_str().unwrap())
        .arg("--config")
        .arg(&config)
        .arg("--rootless=false")
        .arg(format!("--aardvark-binary={aardvark}"))
        .args(args)
        .env("RUST_LOG", "netavark=warn")
        .input(&format!("{input}\n"))
        .run()
}

/// Calls the program as Podman does where there is no name server.
pub fn call(host: &Host, args: &[&str], input: &Value) -> Output {
    call_with(host, "", args, input)
}

/// Puts a container into a namespace; the answer.
#[track_caller]
pub fn setup(host: &Host, netns: &str, input: &Value) -> Value {
    let out = call(host, &["setup", &format!("/run/netns/{netns}")], input);
    assert_eq!(out.stderr, "", "Podman's user would see it");
    out.json()
}

/// Takes it out again, which succeeds silently.
#[track_caller]
pub fn teardown(host: &Host, netns: &str, input: &Value) {
    let out = call(host, &["teardown", &format!("/run/netns/{netns}")], input).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
}

/// A failure's text: the only thing in the only object on the standard output.
#[track_caller]
pub fn refused(out: Output) -> String {
    assert_eq!(out.code, Some(1), "{}", out.transcript());
    assert_eq!(out.stderr, "", "{}", out.transcript());
    let object: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(object.as_object().unwrap().len(), 1, "{object}");
    text(&object, "error")
}

/// Empty namespaces, as Podman makes them.
pub fn namespaces(host: &Host, names: &[&str]) {
    for name in names {
        host.sh(&format!("ip netns add {name}"));
    }
}

/// A bridge network, number `net`.
pub fn bridge(name: &str, net: u8) -> Value {
    json!({
        "name": name,
        "id": format!("{net:064x}"),
        "driver": "bridge",
        "network_interface": format!("podman{net}"),
        "subnets": [
            {"subnet": format!("10.88.{net}.0/24"), "gateway": format!("10.88.{net}.1")},
            {"subnet": format!("fd00:88:{net}::/64"), "gateway": format!("fd00:88:{net}::1")},
        ],
        "ipv6_enabled": true,
        "internal": false,
        "dns_enabled": false,
        "ipam_options": {"driver": "host-local"},
    })
}

/// A container at address `n` of these networks.
pub fn input(name: &str, n: u8, networks: &[Value]) -> Value {
    let mut input = json!({
        "container_id": format!("{n:064x}"),
        "container_name": name,
        "networks": {},
        "network_info": {},
    });
    for (at, network) in networks.iter().enumerate() {
        let key = text(network, "name");
        let subnets = network["subnets"].as_array().cloned().unwrap_or_default();
        let ips: Vec<String> = subnets
            .iter()
            .map(|s| {
                let subnet = text(s, "subnet");
                let prefix = subnet.split('/').next().unwrap();
                format!("{}{n}", prefix.strip_suffix('0').unwrap_or(prefix))
            })
            .collect();
        input["networks"][&key] = json!({
            "static_ips": ips,
            "interface_name": format!("eth{at}"),
        });
        input["network_info"][&key] = network.clone();
    }
    input
}

/// With one published TCP port.
pub fn publish(input: &Value, host_ip: &str, host: u16, container: u16) -> Value {
    let mut input = input.clone();
    input["port_mappings"] = json!([{
        "host_ip": host_ip, "host_port": host, "container_port": container, "range": 1, "protocol": "tcp",
    }]);
    input
}

/// Without what is random, and without name service where none was asked for.
fn comparable(mut answer: Value, dns: bool) -> Value {
    for network in answer.as_object_mut().unwrap().values_mut() {
        for interface in network["interfaces"].as_object_mut().unwrap().values_mut() {
            let mac = interface["mac_address"].take();
            assert_eq!(mac.as_str().unwrap().split(':').count(), 6, "{mac}");
        }
        if !dns {
            network["dns_server_ips"] = json!([]);
            network["dns_search_domains"] = json!([]);
        }
    }
    answer
}

#[test]
fn podmans_messages_get_the_answers_podman_knows() {
    require!();
    let host = host();
    namespaces(&host, &["p1", "p2", "p3", "p4", "p9"]);
    let before = Snapshot::of(&host);
    let insides = ["p1", "p2", "p3", "p4", "p9"].map(|n| host.container(n));
    let inside_before = insides.each_ref().map(Snapshot::of_netns);
    let calls = [
        ("p1", "run-default"),
        ("p2", "run-ports"),
        ("p3", "run-two-networks"),
        ("p2", "connect"),
        ("p4", "run-internal"),
        ("p9", "run-no-addresses"),
    ];
    for (netns, name) in calls {
        let (input, expected) = message(name);
        let answer = setup(&host, netns, &input);
        assert_eq!(
            comparable(answer, false),
            comparable(expected, false),
            "{name}"
        );
    }
    assert_eq!(insides[2].interfaces(), ["lo", "eth0", "foo0"]);
    assert_eq!(insides[2].mac("foo0"), [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
    assert_eq!(
        insides[1].ping(ip("10.90.7.7")),
        Answer::Replied,
        "over the network joined later"
    );
    assert!(
        insides[0].ping_brief(ip("10.89.0.2")) != Answer::Replied,
        "networks are apart"
    );
    let mtu = insides[2].ip("link show dev eth0");
    assert!(mtu.contains("mtu 1400"), "{mtu}");

    let p2 = host.inspect("p2");
    assert_eq!(text(&p2, "owner"), "netavark");
    assert!(text(&p2, "id").starts_with("071e263ad16b"));
    assert_eq!(text(&p2, "networks/1/interface"), "eth1");
    assert!(host.w("ps").ok().stdout.contains("netavark"));
    assert_eq!(text(&host.inspect_network("pn2"), "owner"), "netavark");

    for (netns, name) in calls.iter().rev() {
        teardown(&host, netns, &message(name).0);
    }
    for (inside, before) in insides.iter().zip(&inside_before) {
        let difference = before
            .difference(&Snapshot::of_netns(inside))
            .lines()
            .join("\n");
        // Loopback is raised, and stays so.
        assert!(
            !difference.contains("eth"),
            "{}: {difference}",
            inside.name()
        );
    }
    before.assert_same(&host, "six calls of setup, and teardown");
}

#[test]
fn a_list_of_networks_is_taken_like_an_object() {
    require!();
    let host = host();
    namespaces(&host, &["p3"]);
    let (input, expected) = message("run-two-networks-list");
    let before = Snapshot::of(&host);
    let answer = setup(&host, "p3", &input);
    assert_eq!(
        comparable(answer, false)["pn2"]["interfaces"],
        comparable(expected, false)["pn2"]["interfaces"]
    );
    let inside = host.container("p3");
    let routes = inside.ip("route show default");
    assert!(
        routes.contains("via 10.89.0.1 dev foo0"),
        "the first listed: {routes}"
    );
    teardown(&host, "p3", &input);
    before.assert_same(&host, "a list of networks");
}

#[test]
fn published_ports_answer_while_podman_holds_them() {
    require!();
    let host = host();
    namespaces(&host, &["p2"]);
    // As Podman does, so that nobody else takes it.
    let mut holder = host
        .command("python3")
        .args(["-c", "import socket,time\ns=socket.socket(); s.bind(('',8080)); s.listen()\nprint(1,flush=True); time.sleep(600)"])
        .spawn();
    wharf_testkit::eventually("the port is held", || {
        (!holder.stdout().is_empty()).then_some(())
    });
    let before = Snapshot::of(&host);
    let (input, _) = message("run-ports");
    setup(&host, "p2", &input);
    let p2 = host.container("p2");
    let _servers = (
        Echo::many(
            &p2,
            "p2",
            wharf_testkit::Protocol::Tcp,
            &[80, 81, 83, 7000, 7001, 7002],
        ),
        Echo::udp(&p2, "p2", 90),
    );
    for port in [8080, 8081, 7000, 7001, 7002] {
        assert_eq!(
            host.outside().tcp(addr::HOST4, port).by(),
            Some("p2"),
            "{port}"
        );
        assert_eq!(
            host.netns().tcp(ip("127.0.0.1"), port).by(),
            Some("p2"),
            "{port}"
        );
    }
    assert_eq!(host.netns().udp(ip("127.0.0.1"), 9090).by(), Some("p2"));
    assert!(!host.outside().udp_brief(addr::HOST4, 9090).reached());
    assert!(
        !host.outside().tcp_brief(ip("10.89.0.2"), 80).reached(),
        "not directly"
    );
    assert_eq!(p2.ping(addr::OUTSIDE4), Answer::Replied);
    teardown(&host, "p2", &input);
    before.assert_same(&host, "published ports");
    assert!(holder.is_running());
}

#[test]
fn teardown_takes_what_is_there_and_is_content_with_what_is_gone() {
    require!();
    let host = host();
    let (one, two) = (bridge("one", 1), bridge("two", 2));
    let before = Snapshot::of(&host);
    let both = publish(&input("a", 10, &[one.clone(), two.clone()]), "", 8080, 80);
    let only_two = publish(&input("a", 10, std::slice::from_ref(&two)), "", 8080, 80);
    for damage in [
        "ip netns del a",
        "ip -n a link del eth0",
        "nft flush ruleset",
        "ip link del podman1",
        "rm -r /run/wharf",
    ] {
        namespaces(&host, &["a"]);
        setup(&host, "a", &both);
        host.sh(damage);
        teardown(&host, "a", &both);
        teardown(&host, "a", &both);
        host.sh("ip netns del a 2>/dev/null || true");
        if damage.contains("wharf") {
            // What nobody knows any more is taken over by whoever needs it next.
            namespaces(&host, &["a"]);
            setup(&host, "a", &both);
            teardown(&host, "a", &both);
            host.sh("ip netns del a");
        }
        before.assert_same(&host, &format!("teardown after `{damage}`"));
    }
    namespaces(&host, &["a"]);
    setup(&host, "a", &both);
    teardown(&host, "a", &only_two);
    assert_eq!(host.container("a").interfaces(), ["lo", "eth0"]);
    assert!(!host.netns().interfaces().contains(&"podman2".to_owned()));
    let _web = Echo::tcp(&host.container("a"), "a", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("a"));
    teardown(&host, "a", &both);
    host.sh("ip netns del a");
    before.assert_same(&host, "one network after the other");
}

/// The networks that go with their last container are in the dry run, and with the last of them the host's part.
#[test]
fn a_dry_run_shows_that_networks_go_with_their_last_container() {
    require!();
    let host = host();
    let (one, two) = (bridge("one", 1), bridge("two", 2));
    let both = publish(&input("a", 10, &[one, two]), "", 8080, 80);
    namespaces(&host, &["a"]);
    let before = Snapshot::of(&host);
    setup(&host, "a", &both);
    let script = host.w("rm -f a --dry-run").ok().stdout;
    for part in ["podman1", "podman2", "delete table inet wharf"] {
        assert!(script.contains(part), "{part}:\n{script}");
    }
    host.w("rm -f a").ok();
    before.assert_same(&host, &script);
}

#[test]
fn a_container_that_ended_without_teardown_starts_again() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let input = publish(&input("a", 10, &[bridge("one", 1)]), "", 8080, 80);
    namespaces(&host, &["old", "new"]);
    setup(&host, "old", &input);
    for damage in ["true", "ip netns del new"] {
        host.sh(damage);
        let netns = if damage == "true" { "new" } else { "newer" };
        setup(&host, netns, &input);
        let inside = host.container(netns);
        let _web = Echo::tcp(&inside, netns, 80);
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some(netns));
        assert_eq!(names(&host.w("ps --json").json()), ["a"]);
        if netns == "new" {
            namespaces(&host, &["newer"]);
            assert_eq!(host.container("old").interfaces(), ["lo"]);
        }
    }
    teardown(&host, "newer", &input);
    host.sh("ip netns del old; ip netns del newer");
    before.assert_same(&host, "two restarts");
}

#[test]
fn a_call_that_is_killed_is_made_good_by_the_next() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let config = host.dir().path().join("networks");
    std::fs::create_dir_all(&config).unwrap();
    let input = publish(
        &input("a", 10, &[bridge("one", 1), bridge("two", 2)]),
        "",
        8080,
        80,
    );
    let program = helpers(&host).join("netavark");
    let spawn = |verb: &str| {
        host.command(program.to_str().unwrap())
            .arg("--config")
            .arg(&config)
            .args(["--aardvark-binary=", verb, "/run/netns/a"])
            .input(&input.to_string())
            .spawn()
    };
    let before = Snapshot::of(&host);
    let whole = ["setup", "teardown"].map(|verb| spawn(verb).wait().ok().took);
    let mut killed = 0;
    for n in 0..24 {
        for (verb, took) in ["setup", "teardown"].iter().zip(whole) {
            let mut running = spawn(verb);
            std::thread::sleep(took * n / 24);
            killed += i32::from(running.is_running());
            running.signal(9);
            let _ = running.wait();
        }
        teardown(&host, "a", &input);
        if n % 6 == 0 {
            setup(&host, "a", &input);
            teardown(&host, "a", &input);
        }
        before.assert_same(&host, &format!("round {n}"));
    }
    assert!(killed > 8, "too fast to be killed: {killed}");
}

#[test]
fn commands_and_versions() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let version = call(&host, &["version"], &Value::Null).json();
    let protocol = concat!("2.1.0+wharf.", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&version, "version"), protocol);
    assert!(text(&version, "build_time").starts_with("20"), "{version}");
    assert_eq!(text(&version, "default_fw_driver"), "nftables");
    let line = call(&host, &["--version"], &Value::Null).ok().stdout;
    assert!(line.starts_with("netavark "), "{line}");
    let wrong = call(&host, &["bogus"], &Value::Null).fails(2);
    assert_eq!(wrong.stdout, "");
    call(&host, &["setup"], &Value::Null).fails(2);
    call(&host, &["firewall-reload"], &Value::Null).ok();
    before.assert_same(&host, "nothing to reload");
    // Nobody is asked for that network's names: as newer Netavark has it, nothing is to do.
    let update = ["update", "pn1", "--network-dns-servers", "8.8.8.8"];
    call(&host, &update, &Value::Null).ok();
    host.w("netavark version").ok();

    let file = host.dir().write(
        "input.json",
        &input("a", 10, &[bridge("one", 1)]).to_string(),
    );
    namespaces(&host, &["a"]);
    for verb in ["setup", "teardown"] {
        call(
            &host,
            &[verb, "/run/netns/a", "--file", &file],
            &Value::Null,
        )
        .ok();
    }
}

#[test]
fn networks_and_containers_of_the_command_stay_out_of_it() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    network(&host, "one", 7, "");
    container(&host, "web", "one", 7, 11, "-p 9090:80");
    let before = Snapshot::of(&host);
    let theirs = publish(&input("web", 10, &[bridge("one", 1)]), "", 8080, 80);
    setup(&host, "a", &theirs);
    let all = names(&host.w("ps --json").json());
    assert_eq!(
        all,
        ["web".to_owned(), format!("web.{}", "0".repeat(12))],
        "both have a name"
    );
    assert_eq!(texts(&host.inspect_network("one"), "containers"), ["web"]);
    let web = host.container("web");
    let a = host.container("a");
    let _servers = (Echo::tcp(&web, "cli", 80), Echo::tcp(&a, "podman", 80));
    for v6 in [false, true] {
        assert_eq!(host.outside().tcp(addr::host(v6), 9090).by(), Some("cli"));
        assert_eq!(
            host.outside().tcp(addr::host(v6), 8080).by(),
            Some("podman")
        );
        assert_eq!(
            web.tcp_brief(at(v6, 1, 10), 80),
            a.tcp_brief(at(v6, 7, 11), 80),
            "apart"
        );
        assert!(!web.tcp_brief(at(v6, 1, 10), 80).reached());
    }
    teardown(&host, "a", &theirs);
    teardown(&host, "a", &theirs);
    before.assert_same(&host, "Podman beside the command");
    assert_eq!(host.outside().tcp(addr::HOST4, 9090).by(), Some("cli"));
    let taken = refused(call(
        &host,
        &["setup", "/run/netns/a"],
        &publish(&input("b", 10, &[bridge("two", 1)]), "", 9090, 80),
    ));
    assert!(taken.contains("9090"), "{taken}");
    before.assert_same(&host, "a port that is taken");
}

#[test]
fn many_at_once() {
    require!();
    const COUNT: u8 = 12;
    let host = host();
    let before = Snapshot::of(&host);
    let inputs: Vec<Value> = (0..COUNT)
        .map(|n| {
            input(
                &format!("c{n}"),
                10 + n,
                &[bridge("one", 1), bridge("two", 2)],
            )
        })
        .collect();
    for n in 0..COUNT {
        namespaces(&host, &[&format!("n{n}")]);
    }
    // Networks come with the first and go with the last, over and over.
    std::thread::scope(|scope| {
        for (n, input) in inputs.iter().enumerate() {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..3 {
                    setup(host, &format!("n{n}"), input);
                    teardown(host, &format!("n{n}"), input);
                }
            });
        }
    });
    for n in 0..COUNT {
        host.sh(&format!("ip netns del n{n}"));
    }
    before.assert_same(&host, "many at once");
}

#[test]
fn create_completes_a_definition_as_podman_expects() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netavark/create.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 5);
    let random = |answer: &mut Value| {
        answer["created"].take();
        for subnet in answer["subnets"].as_array_mut().into_iter().flatten() {
            if text(subnet, "subnet").starts_with("fd") {
                assert!(text(subnet, "subnet").ends_with("::/64"), "{subnet}");
                assert!(text(subnet, "gateway").ends_with("::1"), "{subnet}");
                *subnet = json!("random");
            }
        }
    };
    for case in cases {
        let what = text(case, "case");
        let out = call(&host, &["create"], &case["stdin"]);
        assert_eq!(
            out.code.map(i64::from),
            case["exit"].as_i64(),
            "{what}: {}",
            out.transcript()
        );
        let mut answer: Value = serde_json::from_str(&out.stdout).unwrap();
        let mut expected = case["stdout"].clone();
        random(&mut answer);
        random(&mut expected);
        assert_eq!(answer, expected, "{what}");
    }
    before.assert_same(&host, "definitions only");
}
