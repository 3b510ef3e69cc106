//! Bad input of every kind: exit status 1 or 2, one clear message, the same as JSON, and nothing changed.

use crate::common::*;
use wharf_testkit::{Host, Output, Snapshot, require};

const KINDS: [&str; 9] = [
    "usage",
    "config",
    "not_found",
    "conflict",
    "permission",
    "unsupported",
    "retry",
    "kernel",
    "internal",
];

/// What each bad command must have in common; `word` is what the reader needs to see to know what was wrong.
#[track_caller]
pub fn refused(got: &Output, word: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("{why}: {}\n", got.transcript()));
    let lower = got.stderr.to_lowercase();
    if !matches!(got.code, Some(1 | 2)) {
        return fail("exit status should be 1 or 2");
    }
    if !lower.contains(&word.to_lowercase()) {
        return fail(&format!("the message should contain {word:?}"));
    }
    if lower.contains("panicked") || lower.contains("backtrace") {
        return fail("a panic is no message");
    }
    if lower.matches("error:").count() != 1 {
        return fail("there should be one message");
    }
    if !got.stdout.is_empty() {
        return fail("errors belong on stderr");
    }
    Ok(())
}

/// Runs each line as it is and with `--json`, lists all that misbehave, and compares the host.
#[track_caller]
pub fn all_refused(host: &Host, cases: &[(&str, &str)]) {
    let before = Snapshot::of(host);
    let kept = known(host);
    let mut wrong = Vec::new();
    for (line, word) in cases {
        // `~` stands for an empty word, `_` for a blank.
        let args: Vec<String> = line
            .split_whitespace()
            .map(|arg| {
                if arg == "~" {
                    String::new()
                } else {
                    if arg.contains('.') {
                        arg.to_owned()
                    } else {
                        arg.replace('_', " ")
                    }
                }
            })
            .collect();
        let got = host.wharf(&args);
        wrong.extend(refused(&got, word).err());
        let at = args
            .iter()
            .position(|arg| arg == "--")
            .unwrap_or(args.len());
        let with_json = [&args[..at], &["--json".into()], &args[at..]].concat();
        let got = host.wharf(&with_json);
        if let Err(why) = json_shape(&got) {
            wrong.push(format!("{why}: {}\n", got.transcript()));
        }
        let difference = before.difference(&Snapshot::of(host));
        if !difference.is_empty() || known(host) != kept {
            wrong.push(format!(
                "`wharf {line}` changed the host or the state:\n{difference}\n"
            ));
            break;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} misbehave:\n\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn known(host: &Host) -> [String; 2] {
    ["ps --json", "network ls --json"].map(|line| host.w(line).ok().stdout)
}

fn json_shape(got: &Output) -> Result<(), String> {
    let value: serde_json::Value = serde_json::from_str(got.stderr.trim())
        .map_err(|e| format!("stderr is not one JSON object ({e})"))?;
    let error = &value["error"];
    let kind = error["kind"].as_str().unwrap_or_default().to_lowercase();
    if !KINDS.contains(&kind.as_str()) && kind != "notfound" {
        return Err(format!("error.kind is {kind:?}"));
    }
    if error["message"].as_str().unwrap_or_default().is_empty() {
        return Err("error.message is missing".into());
    }
    let causes = &error["causes"];
    if !causes.is_array() {
        return Err(format!("error.causes should be a list, is {causes}"));
    }
    Ok(())
}

#[test]
fn wrong_usage() {
    require!();
    let host = host();
    for line in [
        "frobnicate",
        "network",
        "network frobnicate",
        "create",
        "rm",
        "exec",
        "run",
        "network create",
        "inspect",
        "network connect A",
        "port add",
        "create c1 --no-such-option",
        "apply",
        "network create A --mtu",
    ] {
        host.w(line).fails(2);
    }
    for line in ["--help", "network --help", "run --help", "--version"] {
        assert!(!host.w(line).ok().stdout.is_empty());
    }
}

#[test]
fn bad_names() {
    require!();
    let host = host();
    let long = "x".repeat(64);
    let long_link = "bridgenamewith16";
    let lines = [
        "network create ../x",
        "network create a/b",
        "network create ~",
        "network create .",
        "network create a_b",
        "network create ä",
        "network create .hidden",
        "create ../x",
        "create a/b",
        "create ~",
        "create a_b",
        "create ..",
        "network create N --bridge br/0",
        "network create N --bridge a_b",
        "network create N --bridge ~",
        "network create N --bridge .",
        "network create N --bridge br:0",
        "network create N --bridge br%d",
        "network create N --bridge lo",
        "network create N --bridge all",
        "network create N --label =x",
        "network create N --subnet 172.030.0.0/24",
        "create c --network default:alias=~",
        "create c --network default:alias=a_b",
        "run --name a/b -- true",
        "run --hostname a:b -- true",
        "run -e =x -- true",
    ];
    let mut cases: Vec<(String, &str)> = lines.map(|line| (line.to_owned(), "")).to_vec();
    cases.push((format!("network create {long}"), "63"));
    cases.push((format!("create {long}"), "63"));
    cases.push((format!("network create N --bridge {long_link}"), "15"));
    let cases: Vec<_> = cases
        .iter()
        .map(|(line, word)| (line.as_str(), *word))
        .collect();
    let (runs, others): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .partition(|(line, _)| line.starts_with("run"));
    all_refused(&host, &others);
    for (line, _) in runs {
        let code = host.w(line).code;
        assert!(
            matches!(code, Some(1 | 2 | 125)),
            "`{line}` ended with {code:?}"
        );
    }
}

#[test]
fn bad_addresses_and_prefixes() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    all_refused(
        &host,
        &[
            ("network create N --subnet 10.88.9.0", "10.88.9.0"),
            ("network create N --subnet 10.88.9.0/33", "10.88.9.0/33"),
            ("network create N --subnet 10.88.9.5/24", "10.88.9.0/24"),
            ("network create N --subnet 300.1.1.0/24", "300.1.1.0"),
            ("network create N --subnet 10.88.9.0/32", "10.88.9.0/32"),
            ("network create N --subnet 127.0.0.0/24", "127.0.0.0/24"),
            ("network create N --subnet 224.0.0.0/24", "224.0.0.0/24"),
            ("network create N --subnet 0.0.0.0/0", "0.0.0.0/0"),
            ("network create N --subnet fe80::/64", "fe80::/64"),
            ("network create N --subnet ff02::/64", "ff02::/64"),
            ("network create N --subnet ::/0", "::/0"),
            (
                "network create N --subnet 10.88.9.0/24 --subnet 10.88.10.0/24",
                "subnet",
            ),
            ("network create N --subnet 10.88.1.128/25", "A"),
            ("network create N --subnet 10.0.2.0/24", "up0"),
            (
                "network create N --subnet 10.88.9.0/24 --gateway 10.99.0.1",
                "10.99.0.1",
            ),
            (
                "network create N --subnet 10.88.9.0/24 --gateway 10.88.9.0",
                "10.88.9.0",
            ),
            (
                "network create N --subnet 10.88.9.0/24 --gateway 10.88.9.255",
                "10.88.9.255",
            ),
            ("network create N --subnet 10.88.9.0/24 --gateway x", "x"),
            (
                "network create N --subnet 10.88.9.0/24 --ip-range 10.99.0.0/28",
                "10.99.0.0/28",
            ),
            (
                "network create N --subnet 10.88.9.0/24 --ip-range 10.88.9.0/16",
                "10.88",
            ),
            ("create c1 --network A --ip 10.99.0.1", "10.99.0.1"),
            ("create c1 --network A --ip 10.88.1.0", "10.88.1.0"),
            ("create c1 --network A --ip 10.88.1.1", "10.88.1.1"),
            ("create c1 --network A --ip 10.88.1.255", "10.88.1.255"),
            ("create c1 --network A --ip 10.88.1.256", "10.88.1.256"),
            (
                "create c1 --network A --ip 10.88.1.11 --ip 10.88.1.12",
                "10.88.1.1",
            ),
            ("create c1 --network A:ip=x", "x"),
            ("create c1 --network A:mac=zz", "zz"),
            (
                "create c1 --network A:mac=01:00:5e:00:00:01",
                "01:00:5e:00:00:01",
            ),
            (
                "create c1 --network A:mac=00:00:00:00:00:00",
                "00:00:00:00:00:00",
            ),
            ("create c1 --network A:colour=red", "colour"),
            ("create c1 --network A --network A", "A"),
        ],
    );
}

#[test]
fn bad_ports() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c0", "A", 1, 11, "");
    let specs = [
        "x",
        "::80",
        "x:80",
        "8080:x",
        "8080:",
        "0:80",
        "8080:0",
        "65536:80",
        "8080:65536",
        "-1:80",
        "8080:80/icmp",
        "8080:80/",
        "8000-8010:80-81",
        "8010-8000:80-90",
        "8000-:80",
        "1.2.3:8080:80",
        "10.0.2.2:8080:80:90",
        "::1:8080:80",
        "[::1:8080:80",
        "~",
        "8080:80/tcp/udp",
        "+80:80",
        "08080a:80",
    ];
    let mut lines = Vec::new();
    for spec in specs {
        lines.push(format!("create c1 --network A -p {spec}"));
        lines.push(format!("port add c0 {spec}"));
    }
    let cases: Vec<_> = lines.iter().map(|line| (line.as_str(), "")).collect();
    all_refused(&host, &cases);
}

#[test]
fn bad_numbers_and_options() {
    require!();
    let host = host();
    all_refused(
        &host,
        &[
            ("network create N --mtu 0", "mtu"),
            ("network create N --mtu 67", "67"),
            ("network create N --mtu 1279 --ipv6", "1279"),
            ("network create N --mtu 65536", "65536"),
            ("network create N --mtu -1", "-1"),
            ("network create N --mtu many", "many"),
            ("network create N --icc=perhaps", "perhaps"),
            ("network create N --masquerade=perhaps", "perhaps"),
            ("network create N -o no-such-option=1", "no-such-option"),
            (
                "network create N -o com.docker.network.bridge.enable_icc=perhaps",
                "perhaps",
            ),
            ("network create N -o host-access=some", "some"),
            ("network create N -o mtu=x", "x"),
            ("network create N -o metric=x", "x"),
            (
                "network create N -o com.docker.network.bridge.gateway_mode_ipv4=isolated",
                "internal",
            ),
            (
                "network create N -o com.docker.network.bridge.host_binding_ipv4=fe80::1",
                "fe80::1",
            ),
            (
                "network create N --bridge wharf-n -o com.docker.network.bridge.name=wharf-m",
                "wharf-m",
            ),
        ],
    );
}

#[test]
fn unknown_things() {
    require!();
    let host = host();
    network(&host, "A", 1, "");
    container(&host, "c1", "A", 1, 11, "");
    all_refused(
        &host,
        &[
            ("inspect nobody", "nobody"),
            ("rm nobody", "nobody"),
            ("network inspect nowhere", "nowhere"),
            ("network rm nowhere", "nowhere"),
            ("network connect nowhere c1", "nowhere"),
            ("network connect A nobody", "nobody"),
            ("network disconnect A nobody", "nobody"),
            ("network disconnect nowhere c1", "nowhere"),
            ("create c2 --network nowhere", "nowhere"),
            ("port add nobody 8080:80", "nobody"),
            ("port rm nobody 8080:80", "nobody"),
            ("port rm c1 8080:80", "8080"),
            ("port ls nobody", "nobody"),
            (
                "create c2 --netns /run/netns/gone --network A",
                "/run/netns/gone",
            ),
            ("create c2 --netns /etc/passwd --network A", "/etc/passwd"),
            ("create c2 --pid 999999 --network A", "999999"),
            ("create c2 --pid 0 --network A", "0"),
            ("create c2 --netns /run/netns/c1 --pid 1 --network A", ""),
            ("create c2 --netns /proc/1/ns/net --network A", ""),
            (
                "create c2 --netns /proc/1/ns/mnt --network A",
                "/proc/1/ns/mnt",
            ),
        ],
    );
}

#[test]
fn bad_files() {
    require!();
    let host = host();
    let dir = host.dir();
    let files = [
        (dir.write("broken.toml", "[networks.a\nsubnets = ["), "line"),
        (dir.write("broken.yaml", "networks: [a: {"), "line"),
        (
            dir.write("unknown.toml", "[networks.a]\ncolour = \"red\"\n"),
            "colour",
        ),
        (
            dir.write("types.toml", "[networks.a]\nmtu = \"large\"\n"),
            "mtu",
        ),
        (
            dir.write(
                "subnet.toml",
                "[networks.a]\nsubnets = [\"10.88.9.5/24\"]\n",
            ),
            "10.88.9",
        ),
        (
            dir.write("nowhere.toml", "[containers.c]\nnetworks = [\"nowhere\"]\n"),
            "nowhere",
        ),
        (dir.write("strange.txt", "networks"), "strange.txt"),
        (format!("{}/gone.toml", dir.path().display()), "gone.toml"),
        (dir.path().display().to_string(), ""),
    ];
    let mut lines = Vec::new();
    for (file, word) in &files {
        for verb in ["plan", "apply", "destroy"] {
            // What is not there is destroyed already.
            if verb == "destroy" && file.ends_with("nowhere.toml") {
                continue;
            }
            lines.push((format!("{verb} {}", file.replace('_', "-")), *word));
        }
    }
    let cases: Vec<_> = lines
        .iter()
        .map(|(line, word)| (line.as_str(), *word))
        .collect();
    all_refused(&host, &cases);
}

/// What is said twice is called so, and changes nothing.
#[test]
fn what_is_given_twice_is_called_so() {
    require!();
    let host = host();
    network(&host, "a", 1, "");
    host.w("create c --network a -p 81:81").ok();
    let before = Snapshot::of(&host);
    for (line, said) in [
        (
            "create x --network a --network a",
            "network `a` is named twice",
        ),
        (
            "create x --network a --net a:ip=10.88.1.9",
            "network `a` is named twice",
        ),
        (
            "run --network a --network a -- true",
            "network `a` is named twice",
        ),
        (
            "create x --network a -p 80:80 -p 80:80",
            "port mapping 80:80/tcp is given twice",
        ),
        (
            "create x --network a -p 80:80 -p 80:90",
            "port mappings 80:80/tcp and 80:90/tcp exclude each other",
        ),
        (
            "port add c 80:80 80:80",
            "port mapping 80:80/tcp is given twice",
        ),
        (
            "create x --network a --ip 10.88.1.9 --ip 10.88.1.10",
            "one address per family at most",
        ),
        (
            "network create x --subnet 10.9.0.0/24 --subnet 10.9.0.0/24",
            "one IPv4 subnet at most",
        ),
    ] {
        let out = host.w(line);
        assert_ne!(out.code, Some(0), "{line}");
        out.says(said);
        before.assert_same(&host, line);
    }
    // A name twice is one name.
    host.w("port rm c 81:81 81:81").ok();
    host.w("rm c c").ok();
    host.w("network rm a a").ok();
}
