//! A trace as its reader sees it: the way drawn station by station, and last what is to blame, what shows it, and what
//! mends it.

use wharf_core::trace::report::{Cause, End, Hop, HopVerdict, Owner, Report, Verdict};
use wharf_core::trace::{L4, report};

/// Columns of the text; commands are never broken.
const WIDTH: usize = 80;
/// Where the details of a station begin.
const DETAIL: usize = 17;

/// The whole text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    wrap(&mut out, "", "  ", &heading(report));
    out.push('\n');
    way(&mut out, report);
    out.push('\n');
    wrap(&mut out, "", "  ", &verdict(report));
    // A cause has it among its evidence.
    if let (None, Some(line)) = (&report.cause, report.probe.first()) {
        wrap(&mut out, "probe: ", "       ", line);
    }
    for note in &report.notes {
        wrap(&mut out, "note: ", "      ", note);
    }
    for cause in &report.also {
        let line = format!("{} in {}: {}", code(cause), cause.netns, cause.summary);
        wrap(&mut out, "also: ", "      ", &line);
    }
    if let Some(cause) = &report.cause {
        out.push('\n');
        blame(&mut out, cause);
    }
    out
}

fn heading(report: &Report) -> String {
    let what = match (report.protocol, report.destination.port) {
        (L4::Icmp, _) => "an echo".to_owned(),
        (L4::Tcp, port) => format!("a TCP connection{}", to_port(port)),
        (L4::Udp, port) => format!("a UDP datagram{}", to_port(port)),
    };
    let (from, to) = (end(&report.source), end(&report.destination));
    format!("{what} from {from} to {to}")
}

fn to_port(port: Option<u16>) -> String {
    port.map(|port| format!(" to port {port}"))
        .unwrap_or_default()
}

/// A name, with the address where that is not the name.
fn end(end: &End) -> String {
    match &end.address {
        Some(address) if *address != end.name => format!("{} ({address})", end.name),
        _ => end.name.clone(),
    }
}

/// The stations, under the namespaces they are in.
fn way(out: &mut String, report: &Report) {
    let mut before: Option<&Hop> = None;
    for hop in &report.hops {
        let back = hop.reply && before.is_none_or(|b| !b.reply);
        if back {
            *out += "\nthe answer\n";
        }
        match before {
            Some(b) if b.netns == hop.netns && !back => {}
            None => *out += &format!("{}\n", hop.netns),
            Some(_) if back => *out += &format!("{}\n", hop.netns),
            Some(_) => *out += &format!("  v\n{}\n", hop.netns),
        }
        station(out, hop);
        before = Some(hop);
    }
    if report.hops.is_empty() {
        *out += "nothing of the way is known\n";
    }
}

/// One station: its mark, its stage, the object, and below it what that did.
fn station(out: &mut String, hop: &Hop) {
    let mark = match hop.verdict {
        HopVerdict::Pass => '|',
        HopVerdict::Translate => '~',
        HopVerdict::Drop | HopVerdict::Reject => 'X',
        HopVerdict::Unknown => '?',
    };
    let first = format!("  {mark}  {:11} ", hop.stage);
    let more = format!("  |{}", " ".repeat(DETAIL - 3));
    match hop.object.is_empty() {
        true => wrap(out, &first, &more, &hop.detail),
        false => {
            wrap(out, &first, &more, &hop.object);
            if !hop.detail.is_empty() {
                wrap(out, &more, &more, &hop.detail);
            }
        }
    }
}

fn verdict(report: &Report) -> String {
    let text = match report.verdict {
        Verdict::Delivered => "delivered: it arrives, and the answer comes back",
        Verdict::Dropped => "dropped: it does not arrive, and nobody is told",
        Verdict::Rejected => "rejected: it does not arrive, and the sender is told",
        Verdict::Unanswered => "unanswered: it arrives, but the answer does not come back",
        Verdict::Unknown => "unknown: what was read does not tell",
    };
    text.to_owned()
}

/// The object to blame, and whose it is.
pub(super) fn object(out: &mut String, object: &str, whose: Owner) {
    let whose = match whose {
        Owner::User => String::new(),
        other => format!(" (of {})", owner(other)),
    };
    wrap(out, "  object: ", "    ", &format!("{object}{whose}"));
}

/// What is to blame: the last lines.
fn blame(out: &mut String, cause: &Cause) {
    let head = format!("{} in {}: {}", code(cause), cause.netns, cause.summary);
    wrap(out, "cause: ", "  ", &head);
    if !cause.object.is_empty() {
        object(out, &cause.object, cause.owner);
    }
    if !cause.evidence.is_empty() {
        *out += "evidence:\n";
        for line in &cause.evidence {
            wrap(out, "  ", "    ", line);
        }
    }
    if !cause.fix.is_empty() {
        *out += "fix:\n";
        for line in &cause.fix {
            *out += &format!("  {line}\n");
        }
    }
}

/// The cause's code, as in JSON.
fn code(cause: &Cause) -> String {
    word(&cause.code)
}

pub(super) fn owner(owner: report::Owner) -> String {
    word(&owner)
}

/// A value that is one word in JSON.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Adds text that is broken between words; a word longer than a line stays whole.
pub(super) fn wrap(out: &mut String, first: &str, more: &str, text: &str) {
    let mut start = first;
    for line in text.lines() {
        let mut row = start.to_owned();
        let mut fresh = true;
        for word in line.split(' ') {
            let long = row.chars().count() + 1 + word.chars().count() > WIDTH;
            if !fresh && long {
                *out += row.trim_end();
                out.push('\n');
                row = more.to_owned();
                fresh = true;
            }
            if !fresh {
                row.push(' ');
            }
            row += word;
            fresh = false;
        }
        *out += row.trim_end();
        out.push('\n');
        start = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::trace::Code;

    fn hop(netns: &str, stage: &str, object: &str, detail: &str, verdict: HopVerdict) -> Hop {
        Hop {
            netns: netns.to_owned(),
            stage: stage.to_owned(),
            object: object.to_owned(),
            detail: detail.to_owned(),
            verdict,
            reply: false,
        }
    }

    fn end(name: &str, address: &str, port: Option<u16>) -> End {
        End {
            name: name.to_owned(),
            netns: Some(name.to_owned()),
            address: Some(address.to_owned()),
            port,
        }
    }

    fn delivered() -> Report {
        let pass = HopVerdict::Pass;
        let mut answer = hop("web", "route", "10.88.1.0/24 dev eth0", "on the link", pass);
        answer.reply = true;
        Report {
            source: end("outside", "192.0.2.50", None),
            destination: end("web", "10.88.1.10", Some(80)),
            protocol: L4::Tcp,
            verdict: Verdict::Delivered,
            cause: None,
            also: Vec::new(),
            hops: vec![
                hop("outside", "source", "", "192.0.2.50 comes in by up0", pass),
                hop(
                    "host",
                    "prerouting",
                    "inet wharf dnat",
                    "10.0.2.2:8080 becomes 10.88.1.10:80",
                    HopVerdict::Translate,
                ),
                hop("host", "forward", "inet wharf forward", "", pass),
                hop("web", "socket", "0.0.0.0:80", "listens", pass),
                answer,
            ],
            probe: Vec::new(),
            notes: Vec::new(),
            some_pass: false,
        }
    }

    fn dropped() -> Report {
        let pass = HopVerdict::Pass;
        Report {
            source: end("web", "10.88.1.10", None),
            destination: end("db", "10.88.2.10", Some(5432)),
            protocol: L4::Tcp,
            verdict: Verdict::Dropped,
            cause: Some(Cause {
                code: Code::FirewallRule,
                netns: "host".to_owned(),
                object: "ip filter FORWARD handle 7".to_owned(),
                owner: Owner::Docker,
                summary: "A rule of the table `ip filter` drops every packet from the bridge br-front that goes to another bridge.".to_owned(),
                evidence: vec![
                    "nft -a list chain ip filter FORWARD: iifname \"br-front\" oifname != \"br-front\" counter packets 3 bytes 180 drop # handle 7".to_owned(),
                ],
                fix: vec![
                    "iptables -I DOCKER-USER -i br-front -o br-back -m comment --comment \"let web reach db\" -j ACCEPT".to_owned(),
                ],
            }),
            also: vec![Cause {
                code: Code::NotListening,
                netns: "db".to_owned(),
                object: "tcp port 5432".to_owned(),
                owner: Owner::User,
                summary: "Nothing listens on TCP port 5432.".to_owned(),
                evidence: Vec::new(),
                fix: Vec::new(),
            }],
            hops: vec![
                hop("web", "route", "default via 10.88.1.1 dev eth0", "", pass),
                hop(
                    "web",
                    "neighbour",
                    "10.88.1.1 dev eth0 lladdr 02:42:00:00:00:01 REACHABLE",
                    "",
                    pass,
                ),
                hop(
                    "host",
                    "forward",
                    "ip filter FORWARD handle 7",
                    "iifname \"br-front\" oifname != \"br-front\" counter packets 3 bytes 180 drop",
                    HopVerdict::Drop,
                ),
            ],
            probe: Vec::new(),
            notes: vec!["the connections of host were not read: Operation not permitted".to_owned()],
            some_pass: false,
        }
    }

    #[test]
    fn the_way_and_what_broke_it() {
        assert_eq!(text(&dropped()), include_str!("trace_dropped.txt"));
    }

    #[test]
    fn the_way_there_and_back() {
        assert_eq!(text(&delivered()), include_str!("trace_delivered.txt"));
    }

    #[test]
    fn every_line_that_is_no_command_fits() {
        let all = text(&dropped());
        let (way, fix) = all.split_once("fix:\n").expect("there is a fix");
        assert!(way.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(fix.lines().any(|line| line.len() > WIDTH), "it is whole");
    }

    #[test]
    fn nothing_at_all() {
        let mut report = delivered();
        report.hops.clear();
        report.protocol = L4::Icmp;
        report.verdict = Verdict::Unknown;
        assert_eq!(
            text(&report),
            "an echo from outside (192.0.2.50) to web (10.88.1.10)\n\n\
             nothing of the way is known\n\n\
             unknown: what was read does not tell\n"
        );
    }
}
