//! What the state suggests and what a probe saw, as one answer.

use wharf_core::trace::L4::{Icmp, Tcp, Udp};
use wharf_core::trace::ruleset::{Hook, TableFamily};
use wharf_core::trace::seen::{
    Act, Asked, Dropped, Frame, Header, Judged, Leg, Outcome, Seen, Tracked,
};
use wharf_core::trace::state::{Place, TrafficControl};
use wharf_core::trace::verdict::join;
use wharf_core::trace::{L4, Query, Report, Verdict, trace};

use crate::build::{HOST, World, drops, ip, line, rule};

const C1: &str = "172.18.0.10";
const C2: &str = "172.18.0.20";

/// A probe of one's own making.
struct Probe<'w> {
    world: &'w World,
    seen: Seen,
    header: Header,
}

impl<'w> Probe<'w> {
    fn new(world: &'w World, to: &str, dport: u16, outcome: Outcome) -> Self {
        let all: Vec<usize> = ["host", "c1", "c2"].map(|n| world.id(n)).to_vec();
        Self {
            world,
            header: Header {
                src: ip(C1),
                dst: ip(to),
                sport: if dport == 0 { 0 } else { 40000 },
                dport,
            },
            seen: Seen {
                sent: "one packet".to_owned(),
                waited: 900,
                outcome,
                frames: Vec::new(),
                rules: Vec::new(),
                drops: Vec::new(),
                tracked: Vec::new(),
                asked: Vec::new(),
                watched: all.clone(),
                followed: all,
                unable: Vec::new(),
            },
        }
    }

    fn place(&self, space: &str, link: &str) -> Place {
        let space = self.world.id(space);
        Place {
            space,
            index: self.world.index(space, link),
        }
    }

    /// `c1 eth0 >` is out by a link, `host veth-c1 <` in by it; `=` before it is the answer.
    fn on(mut self, places: &str) -> Self {
        for text in places.split(',') {
            let words: Vec<&str> = text.split_whitespace().collect();
            let (answer, words) = match words.as_slice() {
                ["=", rest @ ..] => (true, rest),
                rest => (false, rest),
            };
            let (leg, header) = match answer {
                true => (Leg::Answer, self.header.turned()),
                false => (Leg::Question, self.header),
            };
            self.seen.frames.push(Frame {
                place: self.place(words[0], words[1]),
                out: words[2] == ">",
                foreign: false,
                leg,
                header,
            });
        }
        self
    }

    fn stopped(mut self, leg: Leg, handle: Option<u64>) -> Self {
        self.seen.rules.push(Judged {
            space: HOST,
            family: TableFamily::Inet,
            table: "f".to_owned(),
            chain: "fwd".to_owned(),
            base: "fwd".to_owned(),
            handle,
            act: Act::Stopped,
            leg,
            header: self.header,
            iif: None,
            oif: None,
        });
        self
    }

    fn reason(mut self, space: &str, link: &str, reason: &str) -> Self {
        let place = Some(self.place(space, link));
        self.seen.drops.push(Dropped {
            place,
            leg: Leg::Question,
            reason: reason.to_owned(),
            function: None,
        });
        self
    }

    fn asks(&self, l4: L4) -> (Report, Query) {
        let query = Query {
            source: self.world.source("c1"),
            target: self.world.target(&self.header.dst.to_string()),
            l4,
            port: self.header.dport,
        };
        (trace(&self.world.state, &query), query)
    }

    /// What the state says, and both together.
    fn answer(&self, l4: L4) -> (String, Report) {
        let (report, query) = self.asks(l4);
        let before = line(&report);
        (before, join(&self.world.state, &query, report, &self.seen))
    }
}

fn refused(how: &str, by: &str) -> Outcome {
    Outcome::Refused {
        by: Some(ip(by)),
        how: how.to_owned(),
    }
}

/// The host's rules: one that drops, if asked for.
fn with_rule(world: &mut World) {
    let chain = world.chain(HOST, TableFamily::Inet, "f", "fwd", Hook::Forward, 0, false);
    rule(chain, vec![drops()], "drop").handle = 4;
}

fn evidence(report: &Report) -> bool {
    let cause = report.cause.as_ref().expect("a cause");
    cause.evidence.iter().any(|e| e.starts_with("probe: "))
}

const OUT: &str = "c1 eth0 >, host veth-c1 <, host br-demo <";
const ARRIVED: &str = "c1 eth0 >, host veth-c1 <, host veth-c2 >, c2 eth0 <";

#[test]
fn both_say_the_same() {
    let mut w = World::demo();
    w.listen("c2", Tcp, "0.0.0.0", 80);
    let p = Probe::new(&w, C2, 80, Outcome::Answered).on(ARRIVED);
    let (before, report) = p.answer(Tcp);
    assert_eq!(
        (before.as_str(), line(&report).as_str()),
        ("delivered", "delivered")
    );
    assert!(report.notes.is_empty() && !report.probe.is_empty());
    let p = Probe::new(&w, C2, 81, refused("a TCP reset", C2)).on(ARRIVED);
    let (before, report) = p.answer(Tcp);
    assert_eq!(before, "rejected not-listening c2 81/tcp");
    assert_eq!(line(&report), before);
    assert!(evidence(&report) && report.notes.is_empty());
    with_rule(&mut w);
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let p = p.stopped(Leg::Question, Some(4));
    let (before, report) = p.answer(Icmp);
    assert_eq!(before, "dropped firewall-rule host inet f fwd handle 4");
    assert_eq!(line(&report), before);
    assert!(evidence(&report) && report.notes.is_empty());
}

#[test]
fn a_rule_that_the_state_did_not_show() {
    let w = World::demo();
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let (before, report) = p.stopped(Leg::Question, Some(9)).answer(Icmp);
    assert_eq!(before, "delivered");
    assert_eq!(
        line(&report),
        "dropped firewall-rule host inet f fwd handle 9"
    );
    assert!(report.notes[0].starts_with("the state suggested that it is delivered; "));
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let (_, report) = p.stopped(Leg::Answer, None).answer(Icmp);
    assert_eq!(line(&report), "unanswered firewall-policy host inet f fwd");
    let p = Probe::new(
        &w,
        "192.0.2.50",
        0,
        refused("ICMP host unreachable", "172.18.0.1"),
    );
    let (_, report) = p.on(OUT).stopped(Leg::Question, Some(9)).answer(Icmp);
    assert_eq!(report.verdict, Verdict::Rejected);
}

#[test]
fn what_passes_is_not_to_blame() {
    let mut w = World::demo();
    with_rule(&mut w);
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Answered).on(OUT);
    let (before, report) = p.answer(Icmp);
    assert_eq!(before, "dropped firewall-rule host inet f fwd handle 4");
    assert_eq!(line(&report), "delivered");
    assert!(report.notes[0].contains("the state suggested that it is dropped in host"));
    // It went past the rule, and what is beyond is not known.
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let (_, report) = p.on("host up0 >").answer(Icmp);
    assert_eq!(line(&report), "unknown");
    // It arrived, and what comes next was known.
    let mut w = World::demo();
    w.set(HOST, "net.ipv4.ip_forward", 0);
    w.set(w.outside(), "net.ipv4.icmp_echo_ignore_all", 1);
    let mut p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    p.seen.watched.push(w.outside());
    let p = p.on("host up0 >, outside eth0 <");
    let (before, report) = p.answer(Icmp);
    assert_eq!(
        before,
        "dropped forwarding-disabled host net.ipv4.ip_forward"
    );
    let says = "dropped echo-ignored outside net.ipv4.icmp_echo_ignore_all";
    assert_eq!(line(&report), says);
}

#[test]
fn silence_is_judged_by_where_it_began() {
    let mut w = World::demo();
    w.listen("c2", Udp, "0.0.0.0", 53);
    // A datagram needs no answer.
    let p = Probe::new(&w, C2, 53, Outcome::Silent).on(ARRIVED);
    assert_eq!(line(&p.answer(Udp).1), "delivered");
    // An echo does.
    let p = Probe::new(&w, C2, 0, Outcome::Silent).on(ARRIVED);
    assert_eq!(line(&p.answer(Icmp).1), "unknown");
    // The answer got lost.
    let p = Probe::new(&w, C2, 0, Outcome::Silent).on(ARRIVED);
    let (_, report) = p.on("= c2 eth0 >, = host veth-c2 <").answer(Icmp);
    assert_eq!(line(&report), "unknown");
    assert!(report.notes[0].contains("its answer was last seen coming in by veth-c2 in host"));
    // Beyond the uplink.
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let (_, report) = p.on("host up0 >").answer(Icmp);
    assert_eq!(line(&report), "unknown");
    // Nothing could be watched: the state has to do.
    let mut p = Probe::new(&w, C2, 0, Outcome::Silent);
    p.seen.watched.clear();
    assert_eq!(line(&p.answer(Icmp).1), "delivered");
}

#[test]
fn what_nobody_could_read() {
    let mut w = World::demo();
    w.get(HOST, "veth-c1").tc.push(TrafficControl {
        ingress: true,
        text: "filter protocol all bpf".to_owned(),
        drops: None,
    });
    let lost = |w| Probe::new(w, C2, 0, Outcome::Silent).on("c1 eth0 >, host veth-c1 <");
    let says = "dropped traffic-control host filter protocol all bpf";
    assert_eq!(line(&lost(&w).answer(Icmp).1), says);
    // It came to the rules: then it was not that.
    let mut entered = lost(&w).stopped(Leg::Question, Some(1));
    entered.seen.rules[0].act = Act::Entered;
    assert_eq!(line(&entered.answer(Icmp).1), "unknown");
    let w = World::demo();
    let says = "dropped traffic-control host tc ingress dev veth-c1";
    let p = lost(&w).reason("host", "veth-c1", "TC_INGRESS");
    assert_eq!(line(&p.answer(Icmp).1), says);
    let p = Probe::new(&w, "192.0.2.50", 0, Outcome::Silent).on(OUT);
    let p = p.reason("host", "br-demo", "IP_RPFILTER");
    let says = "dropped reverse-path-filter host net.ipv4.conf.br-demo.rp_filter";
    assert_eq!(line(&p.answer(Icmp).1), says);
    // A reason that names nothing is only told.
    let p = lost(&w).reason("host", "veth-c1", "NETFILTER_DROP");
    let (_, report) = p.answer(Icmp);
    assert_eq!(line(&report), "unknown");
    assert!(report.notes[0].ends_with("the kernel's reason for the drop is NETFILTER_DROP"));
    let mut p = Probe::new(&w, C2, 0, Outcome::Silent);
    p.seen.asked.push(Asked {
        place: p.place("c1", "eth0"),
        addr: ip(C2),
        answered: false,
    });
    let says = "dropped neighbour-unreachable c1 172.18.0.20 dev eth0";
    assert_eq!(line(&p.answer(Icmp).1), says);
    // What others look for meanwhile has nothing to do with it.
    p.seen.asked[0].place = p.place("c2", "eth0");
    assert_eq!(line(&p.answer(Icmp).1), "unknown");
    // What a bridge floods by another port is answered elsewhere.
    let mut p = lost(&w);
    p.seen.asked.push(Asked {
        place: p.place("host", "veth-c2"),
        addr: ip("172.18.0.1"),
        answered: false,
    });
    assert_eq!(line(&p.answer(Icmp).1), "unknown");
}

#[test]
fn a_connection_tells_where_it_went() {
    let mut w = World::demo();
    w.listen("host", Udp, "0.0.0.0", 53);
    let here = "c1 eth0 >, host veth-c1 <, host br-demo <";
    let mut p = Probe::new(&w, "172.18.0.1", 53, Outcome::Silent).on(here);
    assert_eq!(line(&p.answer(Udp).1), "delivered");
    // A translation that no state told of sent it away.
    let reply = Header {
        src: ip(C2),
        ..p.header.turned()
    };
    p.seen.tracked.push(Tracked {
        space: HOST,
        original: p.header,
        reply,
        answered: false,
    });
    let (_, report) = p.answer(Udp);
    assert_eq!(line(&report), "unknown");
    let says =
        "host translated 172.18.0.10:40000 -> 172.18.0.1:53 to 172.18.0.10:40000 -> 172.18.0.20:53";
    assert!(
        report.probe.iter().any(|l| l == says),
        "{:#?}",
        report.probe
    );
}

#[test]
fn refusals() {
    let mut w = World::demo();
    w.listen("c2", Tcp, "0.0.0.0", 80);
    // The listener ended meanwhile.
    let p = Probe::new(&w, C2, 80, refused("a TCP reset", C2)).on(ARRIVED);
    let (before, report) = p.answer(Tcp);
    assert_eq!(before, "delivered");
    assert_eq!(line(&report), "rejected not-listening c2 80/tcp");
    // Some router says so: that names no cause.
    let p = Probe::new(&w, C2, 80, refused("ICMP host unreachable", "172.18.0.9"));
    assert_eq!(line(&p.on(OUT).answer(Tcp).1), "unknown");
    // The namespace itself has no way.
    let c1 = w.id("c1");
    w.del_routes(c1, "default");
    let why = "Network is unreachable".to_owned();
    let p = Probe::new(&w, "192.0.2.50", 80, Outcome::NotSent(why));
    let (before, report) = p.answer(Tcp);
    assert!(before.contains("no-route c1"), "{before}");
    assert_eq!(line(&report), before);
    assert!(evidence(&report));
}

#[test]
fn a_refusal_whose_answer_is_stopped_stays_one() {
    let w = World::demo();
    let p = Probe::new(&w, C2, 81, Outcome::Silent).on(ARRIVED);
    let p = p.on("= c2 eth0 >").stopped(Leg::Answer, Some(9));
    let (_, report) = p.answer(Tcp);
    assert_eq!(line(&report), "rejected not-listening c2 81/tcp");
    assert_eq!(crate::build::also(&report), ["firewall-rule"]);
}
