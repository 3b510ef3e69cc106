//! The commands of whole plans are taken by `sh`, iproute2, nft and sysctl, in namespaces of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the tests run programs and say when they cannot"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::op::Op;
use wharf_core::publish::Protocol;
use wharf_core::render::{command, script};

const TOPOLOGY: &str = r#"
[networks.blue]
subnet = ["172.18.0.0/16", "fd00:18::/64"]
bridge = "b$(false)'x"
[networks.apart]
icc = false
bridge = "br.7"
options = { metric = "50" }
[containers.web]
networks = ["blue", "apart:host-interface=v.1;x"]
ports = ["5005:5000", "8000-8010:8000-8010"]
[containers.db]
networks = ["apart:interface=up"]
netns = "/run/other/db"
"#;

fn private(commands: &str) -> Option<(bool, String)> {
    let enter = ["-Urnm", "sh", "-ec"];
    let ready = "mount -t tmpfs tmpfs /run && mkdir /run/netns /run/other && nft list ruleset && ip netns add probe && ip netns exec probe sysctl -qw net.ipv4.ip_forward=1 && ip netns del probe";
    let can = Command::new("unshare")
        .args(enter)
        .arg(ready)
        .output()
        .is_ok_and(|o| o.status.success());
    if !can {
        println!("SKIPPED: no private namespaces with ip, nft and sysctl here");
        return None;
    }
    let mut child = Command::new("unshare")
        .args(enter)
        .arg(format!("{ready}\nsh -ex"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(commands.as_bytes()).unwrap();
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Some((out.status.success(), text))
}

#[test]
fn plans_run_there_and_back() {
    let mut all = compile::base();
    all.extend(common::state(toml::from_str(TOPOLOGY).unwrap()));
    let adopted = command(&Op::NetnsAdd("/run/other/db".into()));
    let given_back = command(&Op::NetnsDel("/run/other/db".into()));
    let flush = command(&Op::ConntrackFlush {
        protocol: Protocol::Tcp,
        host_ip: None,
        first: 8000,
        last: 8001,
    });
    let commands = [
        "ip netns list\n".to_owned(),
        adopted + "\n",
        script(&diff(&all, &[], "test")),
        "ip -n web -o addr\nip -n web route\nip -o link\nbridge -d link\n".to_owned(),
        "nsenter --net=/run/other/db ip -o link\n".to_owned(),
        flush + "\n",
        script(&diff(&[], &all, "test")),
        "echo LEFT; ip -o link | grep -cv ' lo:' || true; nft list ruleset | grep -c . || true\n"
            .to_owned(),
        given_back + "\n",
    ]
    .concat();
    let Some((ok, text)) = private(&commands) else {
        return;
    };
    assert!(ok, "{text}");
    assert!(text.contains("LEFT\n0\n0\n"), "{text}");
    for part in [
        "172.18.0.2/16",
        "default via 172.18.0.1 dev eth0 proto 119",
        "locked on",
        "wharf:web:blue",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}
