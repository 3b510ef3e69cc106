//! `wharf trace` with a real packet: what it meets, what cannot be read, and that nothing stays of it.

use crate::common::*;
use serde_json::Value;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use wharf_testkit::{DropProgram, Echo, Host, Snapshot, Sniffer, addr, eventually, require, skip};

/// The longest a trace may take where nothing answers, with room for a busy machine.
const SILENT: Duration = Duration::from_secs(4);

/// A network with two containers, and a second one.
fn stage() -> Host {
    let host = host();
    network(&host, "front", 1, "");
    container(&host, "web", "front", 1, 11, "-p 8080:80");
    container(&host, "cache", "front", 1, 12, "");
    host
}

/// Traces, and gives verdict, cause and the whole report.
#[track_caller]
fn trace(host: &Host, line: &str) -> (String, String, Value) {
    let out = host.w(&format!("trace {line} --json"));
    let report: Value = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
    assert!(out.took < SILENT, "{line} took {:?}", out.took);
    let verdict = text(&report, "verdict");
    let status = if verdict == "delivered" { 0 } else { 1 };
    out.exits(status);
    let code = report["cause"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (verdict, code, report)
}

/// Whether the report tells of a packet that was sent.
fn probed(report: &Value) -> bool {
    report["probe"].as_array().is_some_and(|p| !p.is_empty())
}

/// Whether the evidence of the cause has it.
fn shown_by_probe(report: &Value) -> bool {
    let evidence = texts(report, "cause/evidence");
    evidence.iter().any(|line| line.starts_with("probe: "))
}

fn forward(host: &Host, rule: &str) {
    host.sh(&format!(
        "nft 'add table inet other
         add chain inet other f {{ type filter hook forward priority 0; }}
         flush chain inet other f
         add rule inet other f {rule}'"
    ));
}

fn no_forward(host: &Host) {
    host.sh("nft delete table inet other");
}

#[test]
fn what_arrives_is_answered() {
    require!();
    let host = stage();
    let web = host.container("web");
    let _services = [
        Echo::tcp(&web, "web", 80),
        Echo::udp(&web, "web", 53),
        Echo::udp(host.netns(), "host", 53),
        Echo::tcp(host.outside(), "outside", 80),
    ];
    let before = Snapshot::of(&host);
    for line in [
        "cache web",
        "cache web:80",
        "cache web:53/udp",
        "cache fd00:88:1::11",
        "cache [fd00:88:1::11]:80",
        "cache [fd00:88:1::11]:53/udp",
        "cache host:8080",
        "cache 10.0.2.2:53/udp",
        "host web:80",
        "host fd00:88:1::11",
        "web web:80",
        "web 192.0.2.50",
        "web 2001:db8::50",
        "web 192.0.2.50:80",
    ] {
        let (verdict, _, report) = trace(&host, line);
        assert_eq!(verdict, "delivered", "{line}: {report:#}");
        let probe = texts(&report, "probe");
        assert!(probe[0].contains(": answered within "), "{line}: {probe:?}");
        let notes = report["notes"].to_string();
        assert!(!notes.contains("the state suggested"), "{line}: {notes}");
    }
    let (_, _, report) = trace(&host, "web 192.0.2.50:80");
    let told = texts(&report, "probe").join("\n");
    assert!(told.contains("host translated 10.88.1.11:"), "{told}");
    assert!(told.contains(" to 10.0.2.2:"), "{told}");
    before.assert_same(&host, "traces of what arrives");
    let tracked = host.command("conntrack").args(["-L"]).run().stdout;
    let own = |line: &&str| line.contains("dport=80 ") || line.contains("icmp");
    let left: Vec<&str> = tracked.lines().filter(own).collect();
    assert!(left.is_empty(), "connections stay: {left:#?}");
}

#[test]
fn a_datagram_that_nobody_answers_is_delivered_all_the_same() {
    require!();
    let host = stage();
    let web = host.container("web");
    let silent = web.run(|| UdpSocket::bind("[::]:514")).expect("a socket");
    silent
        .set_read_timeout(Some(Duration::from_secs(3)))
        .expect("timeout");
    for line in ["cache web:514/udp", "cache [fd00:88:1::11]:514/udp"] {
        let (verdict, _, report) = trace(&host, line);
        assert_eq!(verdict, "delivered", "{line}: {report:#}");
        assert!(probed(&report), "{line}: {report:#}");
        let mut buffer = [0; 64];
        let got = silent.recv(&mut buffer).expect("it arrived");
        assert_eq!(&buffer[..5], b"wharf", "{line}");
        assert_eq!(got, 12, "{line}");
    }
}

#[test]
fn what_is_refused_is_rejected() {
    require!();
    let host = stage();
    for (line, code) in [
        ("cache web:81", "not-listening"),
        ("cache web:81/udp", "not-listening"),
        ("cache [fd00:88:1::11]:81", "not-listening"),
        ("cache [fd00:88:1::11]:81/udp", "not-listening"),
        // That nobody listens beyond the uplink no state tells.
        ("web 192.0.2.50:81", "not-listening"),
        ("web [2001:db8::50]:81", "not-listening"),
    ] {
        let (verdict, said, report) = trace(&host, line);
        let got = (verdict.as_str(), said.as_str());
        assert_eq!(got, ("rejected", code), "{line}: {report:#}");
        assert!(shown_by_probe(&report), "{line}: {report:#}");
    }
}

#[test]
fn rules_that_stop_it_are_met() {
    require!();
    let host = stage();
    let _server = Echo::tcp(host.outside(), "outside", 80);
    let _service = Echo::udp(host.outside(), "outside", 53);
    for (rule, line, verdict) in [
        ("meta l4proto icmp drop", "web 192.0.2.50", "dropped"),
        ("meta l4proto ipv6-icmp drop", "web 2001:db8::50", "dropped"),
        ("tcp dport 80 drop", "web 192.0.2.50:80", "dropped"),
        ("tcp dport 80 drop", "web [2001:db8::50]:80", "dropped"),
        ("udp dport 53 drop", "web 192.0.2.50:53/udp", "dropped"),
        ("udp dport 53 drop", "web [2001:db8::50]:53/udp", "dropped"),
        ("udp dport 53 reject", "web 192.0.2.50:53/udp", "rejected"),
        (
            "tcp dport 80 reject with tcp reset",
            "web [2001:db8::50]:80",
            "rejected",
        ),
        ("tcp sport 80 drop", "web 192.0.2.50:80", "unanswered"),
        (
            "udp sport 53 drop",
            "web [2001:db8::50]:53/udp",
            "unanswered",
        ),
        ("icmp type echo-reply drop", "web 192.0.2.50", "unanswered"),
        // What depends on the processor or on luck no state tells.
        ("meta cpu < 4096 drop", "web 192.0.2.50", "dropped"),
        (
            "numgen random mod 1 < 1 drop",
            "web 192.0.2.50:80",
            "dropped",
        ),
        (
            "tcp sport 80 numgen random mod 1 < 1 drop",
            "web [2001:db8::50]:80",
            "unanswered",
        ),
    ] {
        forward(&host, rule);
        let before = Snapshot::of(&host);
        let (said, code, report) = trace(&host, line);
        let got = (said.as_str(), code.as_str());
        assert_eq!(got, (verdict, "firewall-rule"), "{rule}: {report:#}");
        let object = text(&report, "cause/object");
        assert!(object.starts_with("inet other f handle "), "{object}");
        assert!(shown_by_probe(&report), "{rule}: {report:#}");
        before.assert_same(&host, rule);
        no_forward(&host);
    }
}

#[test]
fn a_rule_that_seems_to_stop_it_and_does_not() {
    require!();
    let host = stage();
    forward(&host, "meta cpu > 4095 drop");
    let (verdict, _, report) = trace(&host, "web 192.0.2.50");
    assert_eq!(verdict, "delivered", "{report:#}");
    no_forward(&host);
}

#[test]
fn programs_that_nobody_can_read_are_found() {
    require!();
    let host = stage();
    let _server = Echo::tcp(&host.container("web"), "web", 80);
    // Neighbours are known, or else the program would stop the question for them first.
    assert_eq!(trace(&host, "web 192.0.2.50").0, "delivered");
    assert_eq!(trace(&host, "cache web:80").0, "delivered");
    let veth = text(&host.inspect("web"), "networks/0/host_interface");
    let program = match DropProgram::ingress(host.netns(), &veth) {
        Ok(program) => program,
        Err(error) => return skip::skipped(&format!("no program on a link: {error}")),
    };
    let (verdict, code, report) = trace(&host, "web 192.0.2.50");
    assert_eq!(
        (verdict.as_str(), code.as_str()),
        ("dropped", "traffic-control"),
        "{report:#}"
    );
    assert!(text(&report, "cause/object").contains(&veth), "{report:#}");
    let notes = texts(&report, "notes");
    let differs = |note: &String| note.contains("the state suggested that it is delivered");
    assert!(notes.iter().any(differs), "{notes:#?}");
    let (verdict, code, report) = trace(&host, "cache web:80");
    assert_eq!(
        (verdict.as_str(), code.as_str()),
        ("unanswered", "traffic-control"),
        "{report:#}"
    );
    drop(program);
    assert_eq!(trace(&host, "cache web:80").0, "delivered");
    let program = DropProgram::egress(host.netns(), "up0").expect("as before");
    let (verdict, code, report) = trace(&host, "web 192.0.2.50");
    assert_eq!(
        (verdict.as_str(), code.as_str()),
        ("dropped", "traffic-control"),
        "{report:#}"
    );
    drop(program);
}

#[test]
fn what_is_beyond_the_uplink_is_not_guessed() {
    require!();
    let host = stage();
    for line in ["web 192.0.2.99", "web 192.0.2.99:80", "web 2001:db8::99"] {
        let (verdict, code, report) = trace(&host, line);
        assert_eq!(
            (verdict.as_str(), code.as_str()),
            ("unknown", ""),
            "{line}: {report:#}"
        );
        let notes = texts(&report, "notes").join("\n");
        assert!(
            notes.contains("last seen leaving by up0"),
            "{line}: {notes}"
        );
    }
}

#[test]
fn offline_sends_nothing_and_a_probe_little() {
    require!();
    let host = stage();
    let veth = text(&host.inspect("cache"), "networks/0/host_interface");
    let sniffer = Sniffer::start(host.netns(), &veth);
    for line in ["cache web", "cache web:80", "cache web:81/udp"] {
        host.w(&format!("trace {line} --offline --json"));
    }
    // Source and destination of an IPv4 packet.
    let way = [at(false, 1, 12), at(false, 1, 11)].map(octets).concat();
    assert_eq!(sniffer.count(&way), 0, "offline sends nothing");
    host.w("trace cache web:81/udp --json").exits(1);
    sniffer.wait_for("the datagram", b"wharf");
    // On a machine that is busy the refusal may come after a second one.
    assert!((1..=2).contains(&sniffer.count(b"wharf")));
    // Nothing answers: the same once more.
    host.sh("ip netns exec web nft 'add table ip t; add chain ip t i { type filter hook prerouting priority -500; }; add rule ip t i udp dport 82 accept; add rule ip t i udp dport 83 drop'");
    let silent = ["cache 192.0.2.99:82/udp", "cache web:83/udp"];
    for line in silent {
        let before = sniffer.count(b"wharf");
        host.w(&format!("trace {line} --json"));
        let sent = sniffer.count(b"wharf") - before;
        assert!((1..=3).contains(&sent), "{line}: {sent}");
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[test]
fn nothing_stays_whenever_it_ends() {
    require!();
    let host = stage();
    let before = Snapshot::of(&host);
    let tables = || host.sh("nft list tables; ip netns exec web nft list tables");
    let quiet = tables();
    let mut met = 0;
    for round in 0..24 {
        let signal = [libc::SIGKILL, libc::SIGINT, libc::SIGTERM][round % 3];
        let line = ["web 192.0.2.99", "web 192.0.2.99:80", "cache web"][round / 3 % 3];
        let mut running = host.w_spawn(&format!("trace {line} --json"));
        // Any moment: before the rule, with it, after it.
        std::thread::sleep(Duration::from_millis(17 * round as u64));
        met += usize::from(tables().contains("wharf-trace-"));
        running.signal(signal);
        drop(running);
        eventually("the rule is gone", || (tables() == quiet).then_some(()));
    }
    assert!(met > 0, "the rule was never there");
    before.assert_same(&host, "traces that were ended");
    assert_eq!(trace(&host, "web 192.0.2.50").0, "delivered");
    before.assert_same(&host, "the next one");
}

#[test]
fn many_at_once_do_not_mind_each_other() {
    require!();
    let host = stage();
    let _server = Echo::tcp(&host.container("web"), "web", 80);
    let lines = ["cache web", "cache web:80", "web 192.0.2.50", "host web:80"];
    let running: Vec<_> = lines
        .iter()
        .map(|line| (line, host.w_spawn(&format!("trace {line} --json"))))
        .collect();
    for (line, one) in running {
        let report = one.wait().exits(0).json();
        assert_eq!(text(&report, "verdict"), "delivered", "{line}");
        assert!(probed(&report), "{line}");
    }
}

#[test]
fn from_elsewhere_nothing_is_sent() {
    require!();
    let host = stage();
    let _server = Echo::tcp(&host.container("web"), "web", 80);
    let (verdict, _, report) = trace(&host, "outside host:8080");
    assert_eq!(verdict, "delivered", "{report:#}");
    assert!(!probed(&report), "{report:#}");
    let reached = host.outside().tcp(addr::HOST4, 8080).reached();
    assert!(reached);
}
