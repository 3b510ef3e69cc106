//! Published ports as their reader sees them: who reaches each, what firewalls say, and where that differs.

use wharf_core::trace::Verdict;
use wharf_core::trace::exposure::{Exposure, PublishedPort, Reach};

use super::trace::{owner, word, wrap};

/// The whole text.
pub fn text(exposure: &Exposure) -> String {
    if exposure.ports.is_empty() {
        return "no port is published\n".to_owned();
    }
    let mut out = String::new();
    for port in &exposure.ports {
        one(&mut out, port);
        out.push('\n');
    }
    let differ = exposure.ports.iter().filter(|p| !p.differs.is_empty());
    out += &match differ.count() {
        0 => "all ports are as their mappings and the firewalls say\n".to_owned(),
        1 => "1 port differs from what is said of it\n".to_owned(),
        n => format!("{n} ports differ from what is said of them\n"),
    };
    out
}

/// Where it is published, in the host's addresses and its own.
fn place(port: &PublishedPort) -> String {
    let at = match port.host_ip.as_str() {
        "" => "every address".to_owned(),
        ip => ip.to_owned(),
    };
    let inside = &port.container_port;
    let translated = format!(
        "port {}/{} at {at} to port {inside}",
        port.host_port, port.protocol
    );
    let own: Vec<String> = port.direct.iter().map(ToString::to_string).collect();
    if own.is_empty() {
        return translated;
    }
    let own = own.join(" and ");
    match port.is_translated() {
        true => format!("{translated}, and port {inside} at its own address {own}"),
        false => format!(
            "port {inside}/{} at its own address {own}, untranslated",
            port.protocol
        ),
    }
}

fn one(out: &mut String, port: &PublishedPort) {
    let name = port.container.as_deref().unwrap_or("?");
    let head = format!("{name}: {} (by {})", place(port), owner(port.owner));
    wrap(out, "", "  ", &head);
    if let Some(rule) = &port.rule {
        wrap(out, "  rule: ", "    ", rule);
    }
    let width = port.reach.iter().map(|r| who(r).chars().count()).max();
    let long = port.reach.iter().map(|r| r.address.len()).max();
    let (width, long) = (width.unwrap_or(0), long.unwrap_or(0));
    for reach in &port.reach {
        let first = format!("  {:width$}  {:long$}  ", who(reach), reach.address);
        let more = " ".repeat(first.chars().count().min(40));
        wrap(out, &first, &more, &how(reach));
    }
    if port.reach.is_empty() {
        *out += "  this protocol is not followed\n";
    }
    for claim in &port.claims {
        let says = if claim.open { "opens" } else { "closes" };
        let line = format!(
            "{} {says} {}: {}",
            owner(claim.owner),
            claim.address,
            claim.rule
        );
        wrap(out, "  firewall: ", "    ", &line);
    }
    for difference in &port.differs {
        wrap(out, "  differs: ", "    ", &difference.summary);
        for fix in difference.cause.iter().flat_map(|c| &c.fix) {
            *out += &format!("    fix: {fix}\n");
        }
    }
}

fn who(reach: &Reach) -> String {
    match &reach.by {
        Some(by) => format!("{} {by}", reach.from.as_str()),
        None => reach.from.as_str().to_owned(),
    }
}

fn how(reach: &Reach) -> String {
    let code = reach.cause.as_ref().map(|c| word(&c.code));
    match (reach.verdict, reach.open, code) {
        (Verdict::Delivered, true, _) => "reached".to_owned(),
        // Whoever has the port there.
        (Verdict::Delivered, false, _) => "reaches another".to_owned(),
        (_, true, Some(code)) => format!("open ({code})"),
        (_, true, None) => "open".to_owned(),
        (Verdict::Unknown, _, _) => "unknown".to_owned(),
        (_, false, Some(code)) => format!("closed ({code})"),
        (_, false, None) => "closed".to_owned(),
    }
}
