//! What may be typed, and that the reference says so.

use clap::{CommandFactory, Parser};

use super::lazy::Lazy;
use super::{Cli, Command, manual, usage_error};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn debug(line: &str) -> String {
    match parse(line) {
        Ok(cli) => format!("{:?}", cli.command),
        Err(error) => panic!("{line}: {error}"),
    }
}

#[test]
fn the_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn habits_are_understood() {
    for line in [
        "wharf run --rm -it -n web --net blue:ip=10.0.0.2 -p 8080:80 -e A=1 -w / --hostname h -- sh -c true",
        "wharf run -d --name web --network blue --network red --publish 80:80/udp python3 -m http.server --bind",
        "wharf create web --network=blue --ip 10.0.0.2 --ip fd00::2 -p 127.0.0.1:80:80",
        "wharf create web --netns /run/netns/x",
        "wharf create web --pid 12 --dry-run --json",
        "wharf exec web -- ip addr",
        "wharf exec -d web sleep 1",
        "wharf ps",
        "wharf ls --json",
        "wharf --json inspect a b",
        "wharf rm -f a b",
        "wharf network create blue --subnet 10.0.0.0/24 --gateway 10.0.0.1 --ip-range 10.0.0.128/25 \
         --bridge br0 --mtu 1400 --ipv6 --internal --icc=false --masquerade false -l a=b --label c -o isolate=false",
        "wharf network create --internal blue",
        "wharf network list",
        "wharf network remove blue",
        "wharf network rm -f blue red",
        "wharf network prune -f",
        "wharf network connect --ip 10.0.0.2 blue web",
        "wharf network disconnect blue web",
        "wharf port add web 80:80 443:443",
        "wharf port rm web 80:80",
        "wharf port ls",
        "wharf port list web",
        "wharf plan -",
        "wharf apply topo.toml --dry-run",
        "wharf destroy topo.yaml",
        "wharf trace web db:5432",
        "wharf trace outside host:8080/tcp --offline --json",
        "wharf trace host [fd00::1]:53/udp",
        "wharf tour --step",
        "wharf completions bash",
        "wharf man",
    ] {
        debug(line);
    }
}

#[test]
fn a_program_keeps_its_own_options() {
    let text = debug("wharf run python3 -m http.server --json -d");
    assert!(text.contains(r#""http.server", "--json", "-d"]"#), "{text}");
    assert!(text.contains("detach: false"), "{text}");
    let text = debug("wharf exec web ip -4 addr");
    assert!(text.contains(r#"["ip", "-4", "addr"]"#), "{text}");
    let text = debug("wharf exec web -- ip -4 addr");
    assert!(text.contains(r#"["ip", "-4", "addr"]"#), "{text}");
}

#[test]
fn booleans_take_both_forms() {
    for line in [
        "wharf network create blue --icc=false",
        "wharf network create blue --icc false",
        "wharf network create --icc=0 blue",
    ] {
        assert!(debug(line).contains("icc: Some(false)"), "{line}");
    }
    assert!(debug("wharf network create --internal blue").contains("internal: true"));
    assert!(debug("wharf network create blue --internal=false").contains("internal: false"));
    assert!(debug("wharf network create blue").contains("ipv6: None"));
}

#[test]
fn an_address_alone_is_on_the_default_network() {
    let Ok(Cli {
        command: Command::Create(Lazy(args)),
        ..
    }) = parse("wharf create web --ip 10.0.0.2")
    else {
        panic!("not a create");
    };
    assert_eq!(args.name.as_str(), "web");
    let requests = args.attach.requests().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].to_string(), "default:ip=10.0.0.2");
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "wharf",
        "wharf bogus",
        "wharf run",
        "wharf create",
        "wharf create -bad",
        "wharf create a/b",
        "wharf create web --pid 0",
        "wharf create web --pid 1 --netns /x",
        "wharf create web -p x",
        "wharf create web -p 0:80",
        "wharf create web -p 80-81:80-82",
        "wharf port rm web 80",
        "wharf create web --ip 10.0.0.256",
        "wharf create web --network blue:colour=red",
        "wharf network create blue --subnet 10.0.0.0/33",
        "wharf network create blue --mtu -1",
        "wharf network create blue --bridge a-name-that-is-too-long",
        "wharf network create blue --label =x",
        "wharf network create blue --driver overlay",
        "wharf inspect",
        "wharf rm",
        "wharf port add web",
        "wharf completions cmd",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn wrong_usage_as_json_has_message_and_hint() {
    let text = parse("wharf ps --jsn").unwrap_err().render().to_string();
    let error = usage_error(&text);
    assert_eq!(error.message, "unexpected argument '--jsn' found");
    assert!(error.hint.is_some());
    assert_eq!(error.exit_status(), 2);
    let text = parse("wharf create").unwrap_err().render().to_string();
    assert_eq!(
        usage_error(&text).message,
        "the following required arguments were not provided: <NAME>"
    );
}

/// `wharf docs > docs/cli.md` makes it anew.
#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == manual::reference(),
        "docs/cli.md is out of date: make it anew with `wharf docs > docs/cli.md`"
    );
}
