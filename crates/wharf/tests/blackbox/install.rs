//! `wharf install`: found by container engines, and gone again.

use crate::cni_runtime::*;
use crate::common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use wharf_testkit::{Echo, addr, require};

fn listing(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .map(|entries| {
            entries
                .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                .collect()
        })
        .unwrap_or_default();
    all.sort();
    all
}

#[test]
fn a_cni_runtime_finds_it() {
    require!();
    let host = host();
    let (bin, conf) = (
        host.dir().path().join("opt/cni bin"),
        host.dir().path().join("net.d"),
    );
    let (bin_text, conf_text) = (bin.display().to_string(), conf.display().to_string());
    let call = |verb: &str, more: &[&str]| {
        let mut args = vec![verb, "cni", "--dir", &bin_text, "--conf-dir", &conf_text];
        args.extend(more);
        host.wharf(&args)
    };
    let shown = call("install", &["--dry-run"]).ok().stdout;
    assert!(
        shown.contains("ln -s") && !bin.exists() && !conf.exists(),
        "{shown}"
    );
    let steps = call("install", &["--dry-run", "--json"]).json();
    assert_eq!(steps["steps"].as_array().map(Vec::len), Some(4), "{steps}");
    // The commands shown do the same.
    host.sh(&shown);
    assert_eq!(listing(&conf), ["10-wharf.conflist"]);
    let by_hand = fs::read_to_string(conf.join("10-wharf.conflist")).expect("the sample");
    call("uninstall", &[]).ok();
    assert_eq!((listing(&bin), listing(&conf)), (vec![], vec![]));
    let said = call("install", &[]).ok().stdout;
    assert!(said.contains("linked") && said.contains("wrote"), "{said}");
    assert_eq!(
        fs::read_to_string(conf.join("10-wharf.conflist")).expect("the sample"),
        by_hand
    );
    let again = call("install", &[]).ok().stdout;
    assert!(
        again.contains("kept") && !again.contains("wrote"),
        "{again}"
    );
    // A runtime uses what it finds.
    let mut runtime = Runtime::new(&host);
    runtime.path = bin_text.clone();
    let list: Value = serde_json::from_str(&by_hand).expect("JSON");
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    runtime.netns("c1");
    let result = runtime.add(&list, "c1", "eth0", &ports).expect("ADD");
    assert!(
        text(&result, "ips/0/address").starts_with("10."),
        "{result}"
    );
    let _web = Echo::tcp(&host.container("c1"), "c1", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("c1"));
    let _out = Echo::tcp(host.outside(), "out", 90);
    assert!(host.container("c1").tcp(addr::OUTSIDE4, 90).reached());
    runtime.check(&list, "c1", "eth0", &ports).expect("CHECK");
    runtime.del(&list, "c1", "eth0", &ports).expect("DEL");
    // What somebody changed stays; so does what is not wharf's.
    fs::write(conf.join("10-wharf.conflist"), "{}").expect("changed");
    let said = call("uninstall", &[]).ok().stdout;
    assert!(said.contains("kept"), "{said}");
    assert_eq!(
        (listing(&bin), listing(&conf)),
        (vec![], vec!["10-wharf.conflist".to_owned()])
    );
    fs::write(bin.join("wharf"), "another program").expect("another program");
    let error = call("install", &["--json"]).error();
    assert_eq!(text(&error, "kind"), "conflict");
}

#[test]
fn podman_finds_it() {
    require!();
    let host = host();
    let (bin, conf) = (
        host.dir().path().join("helpers"),
        host.dir().path().join("containers.conf.d"),
    );
    let (bin_text, conf_text) = (bin.display().to_string(), conf.display().to_string());
    let call = |verb: &str| {
        host.wharf(&[
            verb,
            "netavark",
            "--dir",
            &bin_text,
            "--conf-dir",
            &conf_text,
        ])
    };
    call("install").ok();
    assert!(fs::read_link(bin.join("netavark")).is_ok_and(|to| to.ends_with("wharf")));
    let text = fs::read_to_string(conf.join("50-wharf.conf")).expect("the snippet");
    assert!(
        text.contains(&format!("helper_binaries_dir = [\"{bin_text}\"")),
        "{text}"
    );
    assert!(text.contains("/usr/lib/podman"), "{text}");
    let has_dns = [
        "/usr/local/libexec/podman",
        "/usr/local/lib/podman",
        "/usr/libexec/podman",
        "/usr/lib/podman",
    ]
    .iter()
    .any(|dir| Path::new(dir).join("aardvark-dns").is_file());
    assert_eq!(bin.join("aardvark-dns").exists(), has_dns);
    call("uninstall").ok();
    assert!(!bin.exists(), "wharf's own directory");
    assert!(listing(&conf).is_empty());
    let said = call("uninstall").ok().stdout;
    assert_eq!(said, "nothing to do\n");
}
