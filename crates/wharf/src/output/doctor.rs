//! Findings as their reader sees them: the worst first, each with what shows it and what mends it.

use wharf_core::trace::doctor::{Finding, Severity};

use super::trace::{object, word, wrap};

/// The whole text.
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        one(&mut out, finding);
        out.push('\n');
    }
    out += &sum(findings);
    out
}

fn one(out: &mut String, finding: &Finding) {
    let severity = word(&finding.severity);
    let code = word(&finding.code);
    let head = format!("{code} in {}: {}", finding.netns, finding.summary);
    wrap(out, &format!("{severity}: "), "  ", &head);
    object(out, &finding.object, finding.owner);
    for line in &finding.evidence {
        wrap(out, "  seen: ", "    ", line);
    }
    for line in &finding.fix {
        *out += &format!("  fix: {line}\n");
    }
}

fn sum(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings == 0 {
        return "nothing is wrong\n".to_owned();
    }
    let many = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    format!("{}, {}\n", many(errors, "error"), many(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use wharf_core::trace::Owner;

    use super::*;
    use wharf_core::trace::Code;

    #[test]
    fn the_worst_with_its_fix() {
        let summary =
            "The host passes no IPv4 packets on for containers of the network with the long name.";
        let found = [Finding::new(
            Severity::Error,
            Code::ForwardingDisabled,
            "host",
            "net.ipv4.ip_forward",
            summary,
        )
        .owner(Owner::Kernel)
        .evidence("sysctl net.ipv4.ip_forward: 0")
        .fix("sysctl -w net.ipv4.ip_forward=1")];
        assert_eq!(
            text(&found),
            "error: forwarding-disabled in host: The host passes no IPv4 packets on for\n  \
             containers of the network with the long name.\n  \
             object: net.ipv4.ip_forward (of kernel)\n  \
             seen: sysctl net.ipv4.ip_forward: 0\n  \
             fix: sysctl -w net.ipv4.ip_forward=1\n\n\
             1 error, 0 warnings\n"
        );
        assert_eq!(text(&[]), "nothing is wrong\n");
    }
}
