//! `plan`, `apply`, `destroy`: a whole topology in a file.

use crate::common::*;
use wharf_testkit::{Answer, Echo, Host, Snapshot, addr, require};

const TOML: &str = r#"
[networks.front]
subnets = ["10.88.1.0/24", "fd00:88:1::/64"]
bridge = "wharf-f"

[networks.back]
subnets = ["10.88.2.0/24"]
internal = true

[containers.web]
ports = ["8080:80"]
networks = ["front:ip=10.88.1.11", "back"]

[containers.db]
networks = ["back:ip=10.88.2.12"]
"#;

const YAML: &str = "
networks:
  front:
    subnets: [10.88.1.0/24, 'fd00:88:1::/64']
    bridge: wharf-f
  back:
    subnets: [10.88.2.0/24]
    internal: true
containers:
  web:
    ports: ['8080:80']
    networks: ['front:ip=10.88.1.11', back]
  db:
    networks: ['back:ip=10.88.2.12']
";

#[track_caller]
fn steps(host: &Host, file: &str) -> usize {
    let plan = host.w(&format!("plan {file} --json")).json();
    plan["steps"]
        .as_array()
        .unwrap_or_else(|| panic!("no `steps` in {plan:#}"))
        .len()
}

#[track_caller]
fn check_traffic(host: &Host) {
    let (web, db) = (host.container("web"), host.container("db"));
    let _servers = (Echo::tcp(&web, "web", 80), Echo::tcp(&db, "db", 5432));
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    assert_eq!(web.tcp(at(false, 2, 12), 5432).by(), Some("db"));
    assert!(!db.tcp_brief(addr::OUTSIDE4, 80).reached());
}

#[test]
fn apply_is_idempotent_and_destroy_removes_all() {
    require!();
    for (name, text) in [("t.toml", TOML), ("t.yaml", YAML)] {
        let host = host();
        let file = host.dir().write(name, text);
        let before = Snapshot::of(&host);
        assert!(steps(&host, &file) > 0, "{name}");
        let shown = host.w(&format!("plan {file}")).ok().stdout;
        assert!(
            shown.contains("front") || shown.contains("wharf-f"),
            "the plan says what it would do:\n{shown}"
        );
        before.assert_same(&host, "plan");

        host.w(&format!("apply {file}")).ok();
        check_traffic(&host);
        let with = Snapshot::of(&host);
        assert_eq!(steps(&host, &file), 0, "a second plan is empty ({name})");
        host.w(&format!("apply {file}")).ok();
        with.assert_same(&host, "a second apply");

        host.w(&format!("destroy {file}")).ok();
        before.assert_same(&host, "destroy");
        host.w(&format!("destroy {file}")).ok();
        assert_eq!(
            names(&host.w("network ls --json").json()),
            Vec::<String>::new()
        );
    }
}

#[test]
fn toml_and_yaml_mean_the_same() {
    require!();
    let host = host();
    let (toml, yaml) = (
        host.dir().write("t.toml", TOML),
        host.dir().write("t.yaml", YAML),
    );
    host.w(&format!("apply {toml}")).ok();
    assert_eq!(steps(&host, &yaml), 0);
}

#[test]
fn apply_shows_the_difference_and_makes_only_that() {
    require!();
    let host = host();
    let file = host.dir().write("t.toml", TOML);
    host.w(&format!("apply {file}")).ok();
    let web = host.container("web");
    let changed =
        TOML.replace("8080:80", "8081:80") + "\n[containers.cache]\nnetworks = [\"back\"]\n";
    let file = host.dir().write("t.toml", &changed);
    let count = steps(&host, &file);
    assert!(count > 0);
    let shown = host.w(&format!("apply {file}")).ok();
    assert!(
        (shown.stdout.clone() + &shown.stderr).contains("cache"),
        "{}",
        shown.transcript()
    );
    let _web = Echo::tcp(&web, "web", 80);
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8081).by(),
        Some("web"),
        "the same namespace, another port"
    );
    assert!(!host.outside().tcp_brief(addr::HOST4, 8080).reached());
    assert_eq!(names(&host.w("ps --json").json()), ["cache", "db", "web"]);
    assert_eq!(steps(&host, &file), 0);
}

/// Every key of a file counts, also one that was dropped; a second apply has nothing to do.
#[test]
fn what_a_file_no_longer_says_is_changed_or_refused() {
    require!();
    let host = host();
    let base = "[networks.a]\nsubnet = \"10.88.1.0/24\"\nipv6 = true\nlabels = { l = \"m\" }\n\
                options = { isolate = \"false\" }\n[networks.b]\n[containers.c]\nports = [\"8080:80\"]\n\
                networks = { a = { gw-priority = 5, aliases = [\"x\"] }, b = { gw-priority = 3 } }\n";
    let file = host.dir().write("t.toml", base);
    host.w(&format!("apply {file}")).ok();
    let c = host.container("c");
    let default = |dev: &str| {
        let routes = c.ip("-4 route show default");
        assert!(routes.contains(&format!("dev {dev}")), "{routes}");
    };
    default("eth0");
    for (from, to) in [
        ("gw-priority = 5, ", "gw-priority = 0, "),
        ("gw-priority = 0, ", ""),
        ("aliases = [\"x\"]", ""),
        ("ports = [\"8080:80\"]\n", ""),
    ] {
        let text = std::fs::read_to_string(&file).expect("the file");
        assert!(text.contains(from), "{from}");
        host.dir().write("t.toml", &text.replacen(from, to, 1));
        let same = (from, to) == ("gw-priority = 0, ", "");
        assert_eq!(steps(&host, &file) == 0, same, "{from} -> {to}");
        host.w(&format!("apply {file}")).ok();
        assert_eq!(steps(&host, &file), 0, "{from} -> {to}, a second time");
        default("eth1");
    }
    let kept = std::fs::read_to_string(&file).expect("the file");
    let before = Snapshot::of(&host);
    let edits = [
        ("ipv6 = true\n", "ipv6 is true, and false is asked for"),
        ("isolate = \"false\"", "options is isolate=false, and none"),
    ];
    for (dropped, said) in edits {
        host.dir().write("t.toml", &kept.replace(dropped, ""));
        host.w(&format!("plan {file}")).fails(1).says(said);
        host.w(&format!("apply {file}")).fails(1).says(said);
    }
    before.assert_same(&host, "what was refused");
    // With nobody on it the network is made anew.
    host.w("rm -f c").ok();
    for (dropped, _) in edits {
        let nets = kept.split("[containers").next().unwrap_or_default();
        host.dir().write("t.toml", &nets.replace(dropped, ""));
        assert_eq!(steps(&host, &file), 2, "{dropped}");
        host.w(&format!("apply {file}")).ok();
        assert_eq!(steps(&host, &file), 0, "{dropped}");
        host.dir().write("t.toml", nets);
        host.w(&format!("apply {file}")).ok();
    }
}

#[test]
fn a_topology_that_cannot_be_leaves_nothing() {
    require!();
    let host = host();
    let text = TOML.to_owned() + "\n[containers.late]\nnetworks = [\"front:ip=10.88.1.11\"]\n";
    let file = host.dir().write("t.toml", &text);
    let before = Snapshot::of(&host);
    host.w(&format!("apply {file}")).fails(1).says("10.88.1.11");
    before.assert_same(&host, "an apply that failed");
    assert_eq!(
        names(&host.w("network ls --json").json()),
        Vec::<String>::new()
    );
}

#[test]
fn completions_and_man_page_name_the_commands() {
    require!();
    let host = host();
    for shell in ["bash", "zsh", "fish"] {
        let script = host.w(&format!("completions {shell}")).ok().stdout;
        // What the help does not list.
        assert!(!script.contains("netavark as"), "{shell}");
        assert!(!script.contains("reference of the command line"), "{shell}");
        if shell == "bash" {
            assert!(!script.contains("wharf,docs)"));
        }
        for word in ["network", "disconnect", "wharf"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    host.command("bash")
        .arg("-n")
        .input(&host.w("completions bash").ok().stdout)
        .run()
        .ok();
    let page = host.w("man").ok().stdout;
    assert!(page.contains(".TH") || page.contains("NAME"), "{page}");
}

/// What a container's way out is depends on the file, not on what was changed to get there, or was taken back.
#[test]
fn the_default_route_is_that_of_the_file() {
    require!();
    let host = host();
    let write = |blue: &str, more: &str| {
        let text = format!(
            "[networks.blue]\nsubnet = \"10.70.0.0/24\"\n[networks.green]\nsubnet = \"10.71.0.0/24\"\n\
             [containers.a]\nnetworks = [\"{blue}\", \"green\"]\nports = [\"80:80\"]\n{more}"
        );
        host.dir().write("net.toml", &text)
    };
    let way_out = || {
        let route = host.container("a").ip("route show default");
        assert!(route.contains("via 10.70.0.1 dev eth0"), "{route}");
        let published = host.sh("nft list map inet wharf publish4");
        assert!(published.contains(": 10.70.0."), "{published}");
    };
    let file = write("blue", "");
    host.w(&format!("apply {file}")).ok();
    way_out();
    host.w(&format!("apply {}", write("blue:ip=10.70.0.50", "")))
        .ok();
    way_out();
    // Something else fails: all of it is taken back.
    let file = write(
        "blue:ip=10.70.0.60",
        "[containers.z]\nports = [\"203.0.113.7:99:99\"]\n",
    );
    let out = host.w(&format!("apply {file}"));
    assert_eq!(out.code, Some(1), "{}", out.transcript());
    way_out();
    assert_eq!(host.container("a").addresses("eth0"), [ip("10.70.0.50")]);
}

/// A container whose namespace somebody deleted is made anew, as it is in the file.
#[test]
fn a_container_whose_namespace_is_gone_is_made_anew() {
    require!();
    let host = host();
    let text = "[networks.blue]\nsubnet = \"10.70.0.0/24\"\n[containers.a]\nnetworks = [\"blue\"]\nports = [\"80:80\"]\n";
    let file = host.dir().write("net.toml", text);
    host.w(&format!("apply {file}")).ok();
    host.sh("ip netns del a");
    let plan = host.w(&format!("plan {file}")).ok().stdout;
    assert!(plan.contains("its namespace is gone"), "{plan}");
    host.w(&format!("apply {file}")).ok();
    assert_eq!(host.container("a").ping(ip("10.70.0.1")), Answer::Replied);
    let plan = host.w(&format!("plan {file}")).ok().stdout;
    assert!(plan.contains("nothing to do"), "{plan}");
}
