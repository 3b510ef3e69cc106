//! What fingers type that know Docker, Podman or Compose, where wharf has another word for it, or none.

use clap::Error;
use clap::error::{ContextKind, ContextValue};

/// Commands, and what to type instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["help"],
        "`wharf --help` lists the commands, `wharf COMMAND --help` shows one, `wharf man` all",
    ),
    (&["version", "info"], "`wharf --version` shows the version"),
    (
        &["stop", "kill"],
        "`wharf rm -f NAME` ends a container's program and removes the container",
    ),
    (
        &["start", "restart"],
        "`wharf run` starts a program in a new container, `wharf exec` one in a container that is there",
    ),
    (
        &["logs"],
        "`wharf inspect NAME` names the file with the output of a program in the background",
    ),
    (&["up"], "`wharf apply FILE` makes what a file describes"),
    (
        &["down"],
        "`wharf destroy FILE` removes what a file describes",
    ),
    (
        &["prune", "system"],
        "`wharf network prune` removes networks without containers, `wharf gc` what belongs to nobody",
    ),
    (
        &["connect", "disconnect"],
        "`wharf network connect NET NAME`, `wharf network disconnect NET NAME`",
    ),
    (
        &["container", "containers"],
        "`wharf ps` lists the containers",
    ),
    (&["networks"], "`wharf network ls` lists the networks"),
    (&["ports"], "`wharf port ls` lists the published ports"),
    (
        &["pull", "build", "images", "image", "volume"],
        "wharf does networks and processes only; programs see the host's files",
    ),
];

/// Options, and what to type instead.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &["--format"],
        "`--json` prints everything; `jq` picks from it",
    ),
    (
        &["-v", "--volume", "--mount", "--image"],
        "there are no images and volumes: programs see the host's files",
    ),
    (
        &["-P", "--publish-all"],
        "ports are published one by one: `-p HOSTPORT:PORT`",
    ),
    (&["--name"], "the name is an argument: it needs no option"),
    (&["--file"], "the file is an argument: it needs no option"),
    (
        &["-u", "--user", "--cap-add", "--cap-drop", "--privileged"],
        "programs run as you, with all your rights; `setpriv` or `su` narrow them",
    ),
    (
        &["--sysctl"],
        "`wharf exec NAME -- sysctl -w KEY=VALUE` sets one in a container",
    ),
    (
        &["--restart"],
        "wharf starts no program again; a systemd unit does",
    ),
    (
        &["-m", "--memory", "--cpus"],
        "there are no limits on CPU and memory; `systemd-run` sets them",
    ),
    (&["--entrypoint"], "the program is what stands behind `--`"),
    (
        &["--dns", "--add-host", "--network-alias", "--link"],
        "names come from `--network NET:alias=NAME` and the host's resolver",
    ),
];

/// Gives an error about an unknown word the tip that helps, where there is one.
pub fn tip(error: &mut Error) {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let known = |table: &[(&[&str], &'static str)], word: &str| {
        let mut rows = table.iter();
        rows.find_map(|(words, tip)| words.contains(&word).then_some(*tip))
    };
    let tip = match (
        word(ContextKind::InvalidSubcommand),
        word(ContextKind::InvalidArg),
    ) {
        (Some(command), _) => known(COMMANDS, &command),
        (None, Some(option)) => known(OPTIONS, option.split(['=', ' ']).next().unwrap_or("")),
        _ => None,
    };
    let Some(tip) = tip else {
        return without_hidden(error);
    };
    for kind in [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedCommand,
    ] {
        error.remove(kind);
    }
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

/// Commands that the help does not list are not what was meant.
fn without_hidden(error: &mut Error) {
    const HIDDEN: [&str; 3] = ["netavark", "docs", "names"];
    let Some(ContextValue::Strings(mut all)) = error.remove(ContextKind::SuggestedSubcommand)
    else {
        return;
    };
    all.retain(|name| !HIDDEN.contains(&name.as_str()));
    if !all.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(all));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn told(line: &str) -> String {
        let mut error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        tip(&mut error);
        error.render().to_string()
    }

    #[test]
    fn habits_are_answered() {
        for (line, said) in [
            ("wharf stop web", "tip: `wharf rm -f NAME` ends"),
            ("wharf help run", "tip: `wharf --help` lists"),
            ("wharf networks", "tip: `wharf network ls`"),
            ("wharf ps --format x", "tip: `--json` prints"),
            ("wharf inspect web --format=x", "tip: `--json` prints"),
            ("wharf create --name web", "tip: the name is an argument"),
            ("wharf run --user=me -- id", "with all your rights"),
            ("wharf run -P -- true", "one by one"),
            ("wharf run -v /a:/b -- true", "no images and volumes"),
            ("wharf networ ls", "subcommands exist: 'net', 'network'"),
        ] {
            let text = told(line);
            assert!(text.contains(said), "{line}\n{text}");
            assert_eq!(text.matches("tip:").count(), 1, "{line}\n{text}");
        }
    }
}
