//! Notes on a change that succeeded, as lines.

use serde_json::{Value, json};
use wharf_engine::api::Note;

/// The parts of a note: how grave, what kind, what to say, and the commands that mend it.
struct Parts {
    level: &'static str,
    kind: &'static str,
    message: String,
    fix: Vec<String>,
}

fn parts(note: &Note) -> Parts {
    let (level, kind, message, fix) = match note {
        Note::PortsIgnored(container) => (
            "warning",
            "ports_ignored",
            format!(
                "published ports of `{container}` answer to nobody: it is on internal networks only"
            ),
            Vec::new(),
        ),
        Note::PortUnserved(container, port) => (
            "warning",
            "port_unserved",
            format!(
                "`{port}` of `{container}` answers to nobody: {}",
                port.lacks()
            ),
            Vec::new(),
        ),
        Note::PortChosen(wanted, chosen) => (
            "note",
            "port_chosen",
            format!("{wanted} is published as {chosen}"),
            Vec::new(),
        ),
        Note::ForeignSource(network, addr) => (
            "warning",
            "foreign_source",
            format!(
                "containers of `{network}` go out as {addr}, which is no address of this host: answers come back only if \
                 that is routed here"
            ),
            Vec::new(),
        ),
        Note::ForwardPolicyDrop { chain, fix } => (
            "warning",
            "forward_policy_drop",
            format!(
                "`{chain}` drops forwarded packets, those of containers too; let them pass with"
            ),
            fix.clone(),
        ),
        Note::DoorForNow { tool, fix } => (
            "note",
            "door_for_now",
            format!("{tool} lets containers pass until it is reloaded; to make that last"),
            fix.clone(),
        ),
        Note::ForwardingLeftOn { bridges, open, fix } => {
            let stays = format!("forwarding stays on: {} may need it", bridges.join(", "));
            let (level, message) = match open.is_empty() {
                true => ("note", stays),
                false => (
                    "warning",
                    format!(
                        "{stays}; Docker found it on and so leaves ports of containers on {} open to all that are not \
                         published; to close them",
                        open.join(", ")
                    ),
                ),
            };
            (level, "forwarding_left_on", message, fix.clone())
        }
        Note::ForwardingConfigured { sysctl, file } => (
            "note",
            "forwarding_configured",
            format!("forwarding stays on: {} turns {sysctl} on", file.display()),
            Vec::new(),
        ),
        Note::MissingFeature(text) => ("warning", "missing_feature", text.clone(), Vec::new()),
        Note::Recovered(what) => (
            "note",
            "recovered",
            format!("left by a process that died, or by a lost store, and seen to: {what}"),
            Vec::new(),
        ),
        Note::AddressShared {
            addr,
            network,
            containers: [first, second],
        } => (
            "warning",
            "address_shared",
            format!(
                "`{first}` and `{second}` have {addr} on network `{network}`; have one of them made anew, or give it another"
            ),
            vec![
                format!("wharf network disconnect {network} {second}"),
                format!("wharf network connect {network} {second}"),
            ],
        ),
    };
    Parts {
        level,
        kind,
        message,
        fix,
    }
}

/// The lines for people; the commands of a fix are ready to be copied.
pub fn text(note: &Note) -> String {
    let parts = parts(note);
    let colon = if parts.fix.is_empty() { "" } else { ":" };
    let mut text = format!("{}: {}{colon}\n", parts.level, parts.message);
    for command in parts.fix {
        text += &format!("    {command}\n");
    }
    text
}

/// The object for programs, on one line.
pub fn json(note: &Note) -> Value {
    let parts = parts(note);
    json!({"note": {"kind": parts.kind, "message": parts.message, "fix": parts.fix}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_can_be_copied() {
        let note = Note::ForwardPolicyDrop {
            chain: "ip filter FORWARD".to_owned(),
            fix: vec!["iptables -I FORWARD -i wharf0 -j ACCEPT".to_owned()],
        };
        assert_eq!(
            text(&note),
            "warning: `ip filter FORWARD` drops forwarded packets, those of containers too; \
             let them pass with:\n    iptables -I FORWARD -i wharf0 -j ACCEPT\n"
        );
    }

    #[test]
    fn a_plain_note_is_one_line() {
        let note = Note::Recovered("container/web".to_owned());
        let said = text(&note);
        assert!(said.starts_with("note: left by"), "{said}");
        assert!(said.ends_with("seen to: container/web\n"), "{said}");
    }
}
