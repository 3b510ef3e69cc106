//! A file that changes bit by bit: each difference is shown, made with the least change, and taken back on failure; and a
//! file that goes.

use std::net::SocketAddr;

use crate::attacks_flood::{connection, converse};
use crate::common::*;
use wharf_testkit::{Answer, Echo, Host, Snapshot, addr, require};

#[track_caller]
fn plan(host: &Host, file: &str) -> String {
    host.w(&format!("plan {file}")).ok().stdout
}

/// Applies a file; a second time there is nothing to do.
#[track_caller]
fn apply(host: &Host, file: &str) -> String {
    let out = host.w(&format!("apply {file}")).ok().stdout;
    let again = plan(host, file);
    assert!(again.contains("nothing to do"), "{out}\n{again}");
    out
}

#[track_caller]
fn carries(host: &Host, name: &str, v6: bool) -> String {
    let family = if v6 { "-6" } else { "-4" };
    let route = host
        .container(name)
        .ip(&format!("{family} route show default"));
    let dev = route.split("dev ").nth(1).and_then(|r| r.split(' ').next());
    dev.unwrap_or_else(|| panic!("{route:?}")).to_owned()
}

fn networks(networks: &str, more: &str) -> String {
    format!(
        "[networks.a]\n{}\n[networks.b]\n{}\n[containers.c]\nnetworks = {networks}\nports = ['8080:80']\n{more}",
        "subnets = ['10.88.1.0/24', 'fd00:88:1::/64']",
        "subnets = ['10.88.2.0/24', 'fd00:88:2::/64']"
    )
}

/// The first network has the default route and the ports; who changes the order changes these, and no cable.
#[test]
fn the_order_of_networks_follows_the_file() {
    require!();
    let host = host();
    let write = |nets: &str, more: &str| host.dir().write("t.toml", &networks(nets, more));
    apply(
        &host,
        &write("['a', 'b']", "[containers.d]\nnetworks = ['b']\n"),
    );
    let (c, d) = (host.container("c"), host.container("d"));
    let _server = Echo::tcp(&c, "c", 80);
    let dial = SocketAddr::new(address_of(&host, "c", false), 7000);
    let mut stays = connection(host.netns(), &c, dial, dial);
    let before = (host.inspect("c"), c.interfaces());
    let first = |dev: &str, subnet: &str| {
        for v6 in [false, true] {
            assert_eq!(carries(&host, "c", v6), dev);
        }
        let published = host.sh("nft list map inet wharf publish4");
        assert!(published.contains(&format!(": {subnet}")), "{published}");
        assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c"));
        assert_eq!(host.outside().tcp(addr::HOST6, 8080).by(), Some("c"));
        assert_eq!(c.ping(addr::OUTSIDE4), Answer::Replied);
        assert_eq!(d.ping(addr::OUTSIDE4), Answer::Replied);
    };
    first("eth0", "10.88.1.");
    let file = write("['b', 'a']", "[containers.d]\nnetworks = ['b']\n");
    let shown = plan(&host, &file);
    assert!(shown.contains("order `b`, `a`"), "{shown}");
    assert!(
        shown.contains("wharf update c --network b --network a"),
        "{shown}"
    );
    apply(&host, &file);
    first("eth1", "10.88.2.");
    converse(&mut stays);
    let (is, was) = (host.inspect("c"), before.0);
    for key in ["addresses", "mac", "host_interface"] {
        assert_eq!(
            is["networks"][0][key], was["networks"][1][key],
            "{key} stays"
        );
    }
    assert_eq!(c.interfaces(), before.1);
    // The same by the command that the plan shows, and by priorities.
    host.w("update c --network a --network b").ok();
    first("eth0", "10.88.1.");
    apply(
        &host,
        &write(
            "['a', 'b:gw-priority=1']",
            "[containers.d]\nnetworks = ['b']\n",
        ),
    );
    first("eth1", "10.88.2.");
    assert_eq!(c.interfaces(), before.1);
    converse(&mut stays);
    // What is taken back is the order as well, also of networks that were left meanwhile.
    apply(&host, &write("['b', 'a']", ""));
    let (with, kept) = (Snapshot::of(&host), host.inspect("c"));
    let fails = "[containers.z]\nports = ['203.0.113.7:99:99']\n";
    for nets in [
        "['a', 'b']",
        "['b:ip=10.88.2.77', 'a']",
        "['a:ip=10.88.1.77', 'b']",
        "['a']",
    ] {
        let out = host.w(&format!("apply {}", write(nets, fails)));
        out.fails(1).says("the host is as before");
        assert_eq!(carries(&host, "c", false), "eth1", "{nets}");
        if nets == "['a', 'b']" {
            with.assert_same(&host, nets);
        }
        for key in ["addresses", "mac", "host_interface", "default_route"] {
            for n in [0, 1] {
                let is = host.inspect("c");
                assert_eq!(
                    is["networks"][n][key], kept["networks"][n][key],
                    "{nets} {key}"
                );
            }
        }
        assert!(
            plan(&host, &write("['b', 'a']", "")).contains("nothing to do"),
            "{nets}"
        );
    }
    // A network that comes back is where the file has it.
    apply(&host, &write("['b:ip=10.88.2.77', 'a']", ""));
    first("eth1", "10.88.2.");
    converse(&mut stays);
}

#[test]
fn an_order_that_is_none_is_refused() {
    require!();
    let host = host();
    apply(
        &host,
        &host.dir().write("t.toml", &networks("['a', 'b']", "")),
    );
    let with = Snapshot::of(&host);
    for (args, said) in [
        ("--network b", "on network `a` too, which is not named"),
        ("--network a --network a", "network `a` is named twice"),
        ("--network a --network b --network x", "not on network `x`"),
        (
            "--network a --network b:ip=10.88.2.9",
            "only gw-priority and alias",
        ),
        ("", "nothing is asked for"),
    ] {
        let out = host.w(&format!("update c {args}"));
        assert_ne!(out.code, Some(0), "{args}");
        out.says(said);
    }
    host.w("update x --label-add a=b")
        .fails(1)
        .says("no such container");
    with.assert_same(&host, "what was refused");
    let shown = host.w("update c --network b --network a --dry-run").ok();
    assert!(
        shown.stdout.contains("ip -n c route replace default"),
        "{}",
        shown.stdout
    );
    with.assert_same(&host, "a dry run");
}

#[test]
fn labels_follow_the_file() {
    require!();
    let host = host();
    let write = |network: &str, container: &str| {
        let text = format!(
            "[networks.a]\nlabels = {network}\n[containers.c]\nnetworks = ['a']\nlabels = {container}\n"
        );
        host.dir().write("t.toml", &text)
    };
    apply(&host, &write("{ x = '1', y = '1' }", "{ x = '1' }"));
    let (with, c) = (Snapshot::of(&host), host.inspect("c"));
    let file = write("{ y = '2' }", "{ z = 'a b' }");
    let shown = plan(&host, &file);
    for command in [
        "wharf network update a --label-add y=2 --label-rm x",
        "wharf update c --label-add 'z=a b' --label-rm x",
    ] {
        assert!(shown.contains(command), "{shown}");
    }
    apply(&host, &file);
    with.assert_same(&host, "labels are names only");
    assert_eq!(host.inspect("c")["networks"], c["networks"]);
    assert_eq!(names(&host.w("ps --json --filter label=z").json()), ["c"]);
    let labels = || host.inspect_network("a")["labels"].to_string();
    assert_eq!(labels(), r#"{"y":"2"}"#);
    // Taken back with the rest.
    let text = std::fs::read_to_string(write("{}", "{}")).expect("the file");
    let file = host.dir().write(
        "u.toml",
        &(text + "[containers.z]\nports = ['203.0.113.7:99:99']\n"),
    );
    host.w(&format!("apply {file}"))
        .fails(1)
        .says("the host is as before");
    assert_eq!(labels(), r#"{"y":"2"}"#);
    assert_eq!(names(&host.w("ps --json --filter label=z").json()), ["c"]);
    // By command, and through a reboot.
    host.w("network update a -l k=v --label-rm y").ok();
    assert_eq!(labels(), r#"{"k":"v"}"#);
    let host = host.reboot();
    assert_eq!(
        host.inspect_network("a")["labels"].to_string(),
        r#"{"k":"v"}"#
    );
}

/// Whatever can be refused is refused before anything goes.
#[test]
fn a_destroy_that_is_refused_changes_nothing() {
    require!();
    let host = host();
    let text = networks("['a']", "[containers.d]\nnetworks = ['b']\n");
    let file = host.dir().write("t.toml", &text);
    apply(&host, &file);
    let refused = |what: &str, said: &str| {
        let with = Snapshot::of(&host);
        host.w(&format!("destroy {file} --dry-run"))
            .fails(1)
            .says(said);
        host.w(&format!("destroy {file}")).fails(1).says(said);
        with.assert_same(&host, what);
    };
    host.w("create other --network a").ok();
    refused(
        "somebody else is on a network",
        "network `a` is in use by `other`",
    );
    host.w("rm other").ok();
    host.w("rm d").ok();
    host.w("run -d --name d --network b -- sleep 1000").ok();
    refused("a program runs", "container `d` is running");
    host.w("rm -f d").ok();
    let with = Snapshot::of(&host);
    let command = host
        .command("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    let command = command.args([WHARF, "destroy", &file]);
    command.run().fails(1).says("wharf needs the capability");
    with.assert_same(&host, "privileges are missing");
    host.w(&format!("destroy {file}")).ok();
}

/// Names that a container engine brought are not the file's.
#[test]
fn what_another_front_end_made_is_not_the_files() {
    require!();
    let host = host();
    host.sh("ip netns add cni-c");
    let conf = r#"{"cniVersion":"1.0.0","name":"lab","type":"wharf","ipam":{"ranges":[[{"subnet":"10.88.9.0/24"}]]}}"#;
    host.command(WHARF)
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "theirs")
        .env("CNI_NETNS", "/run/netns/cni-c")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .input(conf)
        .run()
        .ok();
    let theirs = names(&host.w("ps --json").json()).remove(0);
    let network = names(&host.w("network ls --json").json()).remove(0);
    let with = Snapshot::of(&host);
    for text in [
        format!("[containers.'{theirs}']\n"),
        format!("[networks.'{network}']\n"),
    ] {
        let file = host.dir().write("t.toml", &text);
        for verb in ["plan", "apply", "destroy", "destroy -f"] {
            host.w(&format!("{verb} {file}")).fails(1).says("is cni's");
        }
    }
    host.w(&format!("network update {network} -l a=b"))
        .fails(1)
        .says("is cni's");
    with.assert_same(&host, "what was refused");
}

/// What fails keeps nothing else from going, and is told at the end.
#[test]
fn a_destroy_goes_on_and_says_what_is_left() {
    require!();
    let host = host();
    let file = host
        .dir()
        .write("t.toml", &networks("['a', 'b']", "[networks.z]\n"));
    apply(&host, &file);
    // Somebody's rule holds on to the chains of one network, which is neither the first nor the last to go.
    host.sh("nft 'add chain inet wharf own; add rule inet wharf own jump net-b-in'");
    let out = host.w(&format!("destroy {file}")).fails(1);
    let out = out.says("could not remove network `b`; everything else is removed");
    assert!(out.stderr.contains("EBUSY"), "{}", out.transcript());
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
}
