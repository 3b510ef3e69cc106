//! One case: made, broken, asked about, judged, mended.

use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use wharf_testkit::{Answer, Echo, Host, HostCommand, HostOptions, Netns, Protocol, probe};

use crate::remains::{nothing_left, remains};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Long enough to believe that no answer will come.
const BRIEF: Duration = Duration::from_millis(700);

/// A question that nobody answers takes no longer, with as much again for a machine that has other work.
const LONGEST: Duration = Duration::from_millis(3000);

/// A case; what is empty is not wanted.
#[derive(Clone, Copy)]
pub struct Case {
    /// Makes the network: scripts run on the host, one after the other.
    pub on: &'static [&'static str],
    /// What listens: `NAMESPACE:PORT/tcp`, with `@ADDRESS` after it for one address only.
    pub serves: &'static str,
    /// A script on the host that breaks it. Before it traffic passes, unless it was never meant to.
    pub breaks: &'static str,
    /// What is asked: SRC and DST.
    pub ask: &'static str,
    /// The right answer: `VERDICT CODE NETNS OBJECT`, each with `|` between what is equally right (` | ` for objects),
    /// or `delivered`. A `*` at an end stands for anything.
    pub says: &'static str,
    /// The right answer from the state alone, where it takes a packet to know better: its verdict.
    pub offline: &'static str,
    /// Codes that `also` must have.
    pub also: &'static [&'static str],
    /// Who must be the owner.
    pub owner: &'static str,
    /// The traffic: SRC and DST as in `ask` with an address, or `sh:` and a script on the host that ends well if it
    /// passes. Where it is empty `ask` is meant.
    pub traffic: &'static str,
    /// The traffic once it is mended, where that is another.
    pub then: &'static str,
    /// Why no command can mend it.
    pub no_fix: &'static str,
    /// A script to be run between the advice and the traffic, such as what an administrator cannot be told.
    pub after_fix: &'static str,
    /// The host forwards nothing unless told to, and its kernel has `bridge-nf-call-*` at 1.
    pub bridge_nf_call: bool,
    /// There is a second machine, on `up1`.
    pub neighbour: bool,
    /// A script beyond the uplink.
    pub outside: &'static str,
}

/// What most cases have in common.
pub const CASE: Case = Case {
    on: &[],
    serves: "c2:80/tcp c2:53/udp host:5000/tcp host:5053/udp outside:80/tcp outside:53/udp",
    breaks: "",
    ask: "",
    says: "delivered",
    offline: "",
    also: &[],
    owner: "",
    traffic: "",
    then: "",
    no_fix: "",
    after_fix: "",
    bridge_nf_call: false,
    neighbour: false,
    outside: "ip route del default; ip -6 route del default",
};

/// One test per case.
#[macro_export]
macro_rules! cases {
    ($( $name:ident: { $($field:ident: $value:expr),* $(,)? } )*) => {
        $(
            #[test]
            fn $name() {
                wharf_testkit::require!();
                $crate::case::judge(&$crate::case::Case { $($field: $value,)* ..$crate::case::CASE });
            }
        )*
    };
}

/// Makes, breaks, asks, judges and mends.
#[track_caller]
pub fn judge(case: &Case) {
    let mut options = HostOptions::new(WHARF).bridge_nf_call(case.bridge_nf_call);
    if case.neighbour {
        options = options.neighbour();
    }
    let host = options.start();
    if !case.outside.is_empty() {
        host.outside().sh(case.outside);
    }
    for script in case.on {
        sh(&host, script);
    }
    let _servers: Vec<Echo> = case
        .serves
        .split_whitespace()
        .filter_map(|server| serve(&host, server))
        .collect();
    let traffic = if case.traffic.is_empty() {
        case.ask
    } else {
        case.traffic
    };
    let then = if case.then.is_empty() {
        traffic
    } else {
        case.then
    };
    let passes = || passes(&host, traffic);
    if case.says == "delivered" {
        sh(&host, case.breaks);
        assert!(passes(), "not sound at all");
        for way in WAYS {
            let report = ask(&host, case, way);
            assert_eq!(report["verdict"], "delivered", "{way:?}: {report:#}");
            assert!(report["cause"].is_null(), "{way:?}: {report:#}");
        }
        return;
    }
    if !case.breaks.is_empty() {
        assert!(passes(), "broken before it is broken");
        sh(&host, case.breaks);
    }
    assert!(!passes(), "nothing is broken");
    let report = ask(&host, case, Way::Offline);
    if case.says == "delivered but" {
        // Ordinary packets arrive; others do not, and that is said.
        let mut first = report.clone();
        let fixes: Vec<_> = first["also"].as_array().into_iter().flatten().collect();
        let fixes = fixes
            .iter()
            .flat_map(|cause| cause["fix"].as_array().cloned().unwrap_or_default());
        first["cause"]["fix"] = fixes.collect();
        first["cause"]["code"] = report["also"][0]["code"].clone();
        assert!(
            report["verdict"] == "delivered" && first["cause"]["code"] == case.also[0],
            "{report:#}"
        );
        return mend(&host, case, first, passes);
    }
    let report = if case.offline.is_empty() {
        answer(case, &report);
        answer(case, &ask(&host, case, Way::Live));
        report
    } else {
        assert_eq!(report["verdict"], case.offline, "{report:#}");
        let seen = ask(&host, case, Way::Live);
        answer(case, &seen);
        seen
    };
    assert!(!passes(), "mended by the question");
    if case.no_fix.is_empty() {
        mend(&host, case, report, || self::passes(&host, then));
    }
}

/// What is said is what is right.
#[track_caller]
fn answer(case: &Case, report: &Value) {
    let mut words = case.says.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (verdict, code, netns, object) = (next(), next(), next(), next());
    // Where only some packets are lost this one may have arrived.
    let cause = match report["verdict"] == "delivered" {
        true => &report["also"][0],
        false => &report["cause"],
    };
    let is = |value: &Value, wanted: &str, between: &str| {
        let text = value.as_str().unwrap_or_default();
        wanted
            .split(between)
            .any(|one| match one.strip_suffix('*') {
                Some(start) => text.starts_with(start),
                None => one == text,
            })
    };
    let right = is(&report["verdict"], verdict, "|")
        && is(&cause["code"], code, "|")
        && is(&cause["netns"], netns, "|")
        && is(&cause["object"], object, " | ");
    assert!(right, "not `{}`: {report:#}", case.says);
    for text in ["summary", "owner", "object"] {
        assert!(
            cause[text].as_str().is_some_and(|t| !t.is_empty()),
            "{report:#}"
        );
    }
    for list in ["evidence", "fix"] {
        assert!(
            cause[list].as_array().is_some_and(|l| !l.is_empty()),
            "no {list}: {report:#}"
        );
    }
    assert!(
        case.owner.is_empty() || cause["owner"] == case.owner,
        "owner: {report:#}"
    );
    let also: Vec<_> = report["also"]
        .as_array()
        .map(|list| {
            list.iter()
                .filter_map(|cause| cause["code"].as_str())
                .collect()
        })
        .unwrap_or_default();
    for code in case.also {
        assert!(also.contains(code), "no {code} in {also:?}: {report:#}");
    }
}

/// Follows the advice for the cause and, where that is not all of it, for what would bite next.
#[track_caller]
fn mend(host: &Host, case: &Case, report: Value, passes: impl Fn() -> bool) {
    let mut done = Vec::new();
    let others = report["also"].as_array().into_iter().flatten();
    for cause in std::iter::once(&report["cause"]).chain(others) {
        for fix in cause["fix"].as_array().into_iter().flatten() {
            let fix = fix.as_str().unwrap_or_default();
            let out = shell(host, fix).run();
            done.push(fix.to_owned());
            let ended = out.code == Some(0);
            assert!(
                ended,
                "`{fix}` fails after {done:?}: {}\n{report:#}",
                out.transcript()
            );
        }
        sh(host, case.after_fix);
        if passes() {
            // Where other traffic shows that it is mended the question stays what it was.
            if !case.then.is_empty() {
                return;
            }
            for way in WAYS {
                let after = ask(host, case, way);
                assert_eq!(
                    after["verdict"], "delivered",
                    "{way:?} after {done:?}: {after:#}\nbefore: {report:#}"
                );
            }
            return;
        }
    }
    panic!("not mended by {done:?}: {report:#}");
}

/// A script on the host that finds `wharf` in its path.
fn shell(host: &Host, script: &str) -> HostCommand {
    let dir = Path::new(WHARF).parent().unwrap_or(Path::new(""));
    let path = std::env::var("PATH").unwrap_or_default();
    let command = host.command("sh").args(["-euc", script]);
    command.env("PATH", format!("{}:{path}", dir.display()))
}

#[track_caller]
fn sh(host: &Host, script: &str) {
    if !script.is_empty() {
        shell(host, script).run().ok();
    }
}

/// Both ways of knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Offline,
    /// With a packet, where one can be sent from this host.
    Live,
}

const WAYS: [Way; 2] = [Way::Offline, Way::Live];

/// The report. Nothing may be left behind by the question, and it may not take long.
#[track_caller]
fn ask(host: &Host, case: &Case, way: Way) -> Value {
    let mut words = vec!["trace", "--json"];
    words.extend(case.ask.split_whitespace());
    if way == Way::Offline {
        words.push("--offline");
    }
    let before = (way == Way::Live).then(|| remains(host));
    let began = Instant::now();
    let out = host.wharf(&words);
    let took = began.elapsed();
    let report = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", out.transcript()));
    assert!(took < LONGEST, "{way:?} took {took:?}: {report:#}");
    if let Some(before) = before {
        nothing_left(&before, &remains(host));
    }
    report
}

/// A server, unless its namespace is not there.
#[track_caller]
fn serve(host: &Host, text: &str) -> Option<Echo> {
    let (text, at) = text.split_once('@').unwrap_or((text, ""));
    let (place, port) = text.rsplit_once(':').expect("NAMESPACE:PORT");
    let (port, protocol) = port.split_once('/').expect("PORT/PROTOCOL");
    let port = port.parse().expect("a port");
    let named = !matches!(place, "host" | "outside" | "neighbour");
    if named && !host.path(&format!("/run/netns/{place}")).exists() {
        return None;
    }
    let netns = space(host, place);
    let at = if at.is_empty() { "::" } else { at };
    let at: IpAddr = at.parse().expect("an address");
    Some(match protocol {
        "tcp" => Echo::tcp_at(&netns, place, at, port),
        _ => Echo::udp_at(&netns, place, at, port),
    })
}

#[track_caller]
fn space(host: &Host, name: &str) -> Netns {
    let name = name.strip_prefix("/run/netns/").unwrap_or(name);
    match name {
        "host" => host.netns().clone(),
        "neighbour" => host.neighbour().clone(),
        _ if name == "outside" || name.starts_with("outside:") => host.outside().clone(),
        _ => host.container(name),
    }
}

/// Whether the traffic passes; what is expected to is given more time.
#[track_caller]
fn passes(host: &Host, traffic: &str) -> bool {
    if let Some(script) = traffic.strip_prefix("sh:") {
        return shell(host, script).run().code == Some(0);
    }
    let (from, to) = traffic.split_once(' ').expect("SRC DST");
    let from = space(host, from);
    let (to, protocol) = address(to);
    let answer = || probe(&from, protocol, to, BRIEF);
    match answer() {
        Answer::Timeout => answer().reached(),
        other => other.reached(),
    }
}

/// `ADDRESS`, `ADDRESS:PORT[/udp]` or `[ADDRESS]:PORT[/udp]`.
#[track_caller]
fn address(text: &str) -> (SocketAddr, Protocol) {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return (SocketAddr::new(ip, 0), Protocol::Ping);
    }
    let (text, protocol) = match text.split_once('/') {
        Some((text, "udp")) => (text, Protocol::Udp),
        Some((text, _)) => (text, Protocol::Tcp),
        None => (text, Protocol::Tcp),
    };
    let to = text
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address"));
    (to, protocol)
}
