//! `trace`: would this packet arrive, and if not, what is to blame?

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use wharf_core::ErrorKind;
use wharf_core::trace::{
    L4, ObservedState, Query, Report, Source, Verdict, changed, trace, unread_ends, verdict,
};
use wharf_engine::error::EngineError;
use wharf_engine::observe::world::{self, Ask, FindError};
use wharf_engine::probe::live;
use wharf_engine::process::netns::NetnsError;

use super::{Context, Done};
use crate::output::error::CommandError;
use crate::output::trace as output;

/// How often more is read, where the way leads further than was thought.
const READINGS: usize = 3;

#[derive(Debug, Args)]
#[command(after_help = "\
SRC and DST are a container's name, `host`, `outside` (a client beyond the uplink, `outside:ADDRESS`
to choose which), an address, the path of a network namespace, a name `ip netns` knows, or a process id.
Without a port an ICMP echo is asked about. An IPv6 address with a port is written [fd00::1]:80.

From a namespace of this host one real packet of that kind is sent and followed; --offline sends none.
A connection is broken off at once; a datagram carries twelve letters that begin with `wharf`.

Exit status: 0 delivered, 1 not delivered, 2 wrong usage.")]
pub struct TraceArgs {
    /// Where the packet starts
    #[arg(value_name = "SRC")]
    source: String,

    /// Where it is to go
    #[arg(value_name = "DST[:PORT[/tcp|udp]]")]
    destination: Destination,

    /// Only read the state of the host; send nothing
    #[arg(long)]
    offline: bool,
}

/// `DST[:PORT[/tcp|udp]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    name: String,
    l4: L4,
    port: u16,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, l4) = match text.rsplit_once('/') {
            Some((rest, word)) if !rest.is_empty() && !rest.contains('/') => {
                (rest, Some(protocol(word)?))
            }
            // The end of a path is only a protocol where a port stands before it.
            Some((rest, word)) => match (protocol(word), split_port(rest)?.1) {
                (Ok(l4), Some(_)) => (rest, Some(l4)),
                _ => (text, None),
            },
            None => (text, None),
        };
        let (name, port) = split_port(rest)?;
        let (l4, port) = match (l4, port) {
            (l4, Some(port)) => (l4.unwrap_or(L4::Tcp), port),
            (None, None) => (L4::Icmp, 0),
            (Some(_), None) => {
                return Err("a protocol needs a port: DST:PORT/tcp or DST:PORT/udp".to_owned());
            }
        };
        if name.is_empty() {
            return Err("a name or an address is expected before the port".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            l4,
            port,
        })
    }
}

fn protocol(word: &str) -> Result<L4, String> {
    match word {
        "tcp" => Ok(L4::Tcp),
        "udp" => Ok(L4::Udp),
        _ => Err(format!("`{word}` is not a protocol: tcp or udp")),
    }
}

/// What stands before the last colon and the port after it; an address keeps its colons.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let bare = text.strip_prefix("outside:").unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() || text.ends_with(']') {
        return Ok((text, None));
    }
    if bare.starts_with('[') && !bare.contains(']') {
        return Err(format!("`{text}` has no `]`: [ADDRESS] or [ADDRESS]:PORT"));
    }
    match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => match port.parse() {
            Ok(0) | Err(_) => Err(format!("`{port}` is not a port: 1 to 65535")),
            Ok(port) => Ok((name, Some(port))),
        },
        _ => Ok((text, None)),
    }
}

pub fn run(args: &TraceArgs, ctx: &Context) -> Done {
    let mut ask = known(ctx)?;
    let source = world::find(&args.source, &ask.containers).map_err(failure)?;
    let target = world::find(&args.destination.name, &ask.containers).map_err(failure)?;
    ask.about(&source);
    ask.about(&target);
    ask.about_port(args.destination.l4, args.destination.port);
    let mut state = world::world(&ask);
    let mut query = Query {
        source: world::source(&state, &source).map_err(failure)?,
        target: world::target(&state, &target).map_err(failure)?,
        l4: args.destination.l4,
        port: args.destination.port,
    };
    let mut report = trace(&state, &query);
    // The way may lead into a namespace that nobody asked about.
    for _ in 0..READINGS {
        let missed = match report.verdict {
            Verdict::Unknown => unread_ends(&state, &query),
            _ => Vec::new(),
        };
        if missed.is_empty() {
            break;
        }
        ask.addrs.extend(missed);
        state = world::world(&ask);
        query = Query {
            source: world::source(&state, &source).map_err(failure)?,
            target: world::target(&state, &target).map_err(failure)?,
            ..query
        };
        report = trace(&state, &query);
    }
    if !args.offline {
        report = probed(&ask, &state, &query, report, ctx);
    }
    told_by_rules(&state, &mut report, ctx);
    // The process ends now; to free ten thousand rules one by one would take a tenth of the time that the answer took.
    std::mem::forget(state);
    if ctx.printer.json() {
        ctx.printer.value(&report)?;
    } else {
        ctx.printer.text(&output::text(&report))?;
    }
    Ok(u8::from(report.verdict != Verdict::Delivered))
}

/// The report together with what a real packet met. Where none can be sent the state has to do.
fn probed(
    ask: &Ask,
    state: &ObservedState,
    query: &Query,
    mut report: Report,
    ctx: &Context,
) -> Report {
    if !matches!(query.source, Source::Space(_, _)) {
        return report;
    }
    let waiting = || {
        ctx.printer
            .progress("waiting for an answer, a second at most")
    };
    let path = |id| world::path(ask, state, id);
    match live::probe(state, query, &report, path, waiting) {
        Ok(seen) => verdict::join(state, query, report, &seen),
        Err(why) => {
            report.notes.push(format!("no packet was sent: {why}"));
            report
        }
    }
}

/// Where wharf's own rules are not as it made them, what follows from that is not the cause.
fn told_by_rules(state: &ObservedState, report: &mut Report, ctx: &Context) {
    if !changed::is_of_rules(report) || state.networks.is_empty() {
        return;
    }
    let rules = ctx.engine().and_then(|mut e| Ok(e.changed_rules()?));
    match rules {
        Ok(rules) => changed::settle(state, report, &rules),
        Err(error) => report.notes.push(format!(
            "whether wharf's rules are as it made them could not be read: {}",
            error.text().trim_end()
        )),
    }
}

/// What wharf knows; without privileges nothing, and the rest is explained all the same.
pub(super) fn known(ctx: &Context) -> Result<Ask, CommandError> {
    let privileges = CommandError::from(EngineError::Privileges).kind;
    match ctx.engine() {
        Ok(mut engine) => Ok(engine.ask()?),
        Err(error) if error.kind == privileges => {
            ctx.printer.warning(
                "without privileges wharf's own networks and containers are not known, nor what is in other namespaces",
            );
            Ok(Ask {
                processes: true,
                ..Ask::default()
            })
        }
        Err(error) => Err(error),
    }
}

fn failure(error: FindError) -> CommandError {
    let kind = match &error {
        FindError::Unknown { .. } | FindError::Process(_) => ErrorKind::NotFound,
        FindError::Namespace(NetnsError::NotFound(_)) => ErrorKind::NotFound,
        FindError::Ambiguous { .. } => ErrorKind::Conflict,
        FindError::Outside(_) | FindError::Zone(_) => ErrorKind::Usage,
        FindError::Namespace(NetnsError::System { errno, .. })
            if matches!(errno.0, libc::EACCES | libc::EPERM) =>
        {
            ErrorKind::Permission
        }
        FindError::Namespace(_) => ErrorKind::Config,
        FindError::Unread(_) => ErrorKind::Permission,
    };
    let failure = CommandError::new(kind, error.to_string());
    match error {
        FindError::Unknown { near, .. } if !near.is_empty() => {
            failure.hint(format!("did you mean `{}`?", near.join("` or `")))
        }
        FindError::Unknown { .. } => failure.hint(
            "`wharf ps` lists the containers; `host`, `outside`, an address, a path and a process id are understood too",
        ),
        FindError::Ambiguous { .. } => failure.hint("give the path of the namespace instead"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, L4, u16) {
        let d: Destination = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        (d.name, d.l4, d.port)
    }

    #[test]
    fn destinations() {
        for (text, name, l4, port) in [
            ("web", "web", L4::Icmp, 0),
            ("web:80", "web", L4::Tcp, 80),
            ("web:53/udp", "web", L4::Udp, 53),
            ("10.0.0.1", "10.0.0.1", L4::Icmp, 0),
            ("10.0.0.1:80/tcp", "10.0.0.1", L4::Tcp, 80),
            ("fd00::1", "fd00::1", L4::Icmp, 0),
            ("fd00::1:80", "fd00::1:80", L4::Icmp, 0),
            ("[fd00::1]", "[fd00::1]", L4::Icmp, 0),
            ("[fd00::1]:80", "[fd00::1]", L4::Tcp, 80),
            ("outside", "outside", L4::Icmp, 0),
            ("outside:80", "outside", L4::Tcp, 80),
            ("outside:10.0.2.2", "outside:10.0.2.2", L4::Icmp, 0),
            ("outside:10.0.2.2:80", "outside:10.0.2.2", L4::Tcp, 80),
            ("outside:fd00::1", "outside:fd00::1", L4::Icmp, 0),
            ("outside:[fd00::1]:80/udp", "outside:[fd00::1]", L4::Udp, 80),
            ("/run/netns/a", "/run/netns/a", L4::Icmp, 0),
            ("/run/netns/tcp", "/run/netns/tcp", L4::Icmp, 0),
            ("/run/netns/a:80", "/run/netns/a", L4::Tcp, 80),
            ("/run/netns/a:80/udp", "/run/netns/a", L4::Udp, 80),
            ("17:80", "17", L4::Tcp, 80),
        ] {
            assert_eq!(read(text), (name.to_owned(), l4, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_destination() {
        for text in [
            "web:0",
            "web:65536",
            "web/udp",
            "web:80/sctp",
            ":80",
            "web:80/",
            "[::1",
            "outside:[fd00::1",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_fingers_is_answered_with_a_hint() {
        let error = failure(FindError::Unknown {
            text: "wbe".to_owned(),
            near: vec!["web".to_owned()],
        });
        assert_eq!(
            error.text(),
            "error: there is no container, namespace or address `wbe`\nhint: did you mean `web`?\n"
        );
    }
}
