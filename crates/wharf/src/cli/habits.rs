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

/// What means something else behind some commands: the command, the words (any, if there are none), what to type instead.
const BEHIND: &[(&str, &[&str], &str)] = &[
    ("wharf", &["-v"], "`wharf --version` shows the version"),
    (
        "wharf ps",
        &["--name"],
        "`--filter name=PART` picks by name",
    ),
    (
        "wharf network ls",
        &["--name"],
        "`--filter name=PART` picks by name",
    ),
    (
        "wharf ps",
        &["--label"],
        "`--filter label=KEY=VALUE` picks by label",
    ),
    (
        "wharf network ls",
        &["--label"],
        "`--filter label=KEY=VALUE` picks by label",
    ),
    (
        "wharf port",
        &[],
        "`wharf port ls NAME` lists the published ports of a container",
    ),
];

/// What is told of a word behind a command; the command is known by how it is used.
fn behind(error: &Error, word: &str) -> Option<&'static str> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return None;
    };
    let usage = usage.to_string();
    let words = usage.split_whitespace().skip_while(|w| *w == "Usage:");
    let command: Vec<&str> = words
        .take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let command = command.join(" ");
    let mut rows = BEHIND.iter();
    rows.find_map(|(at, words, tip)| {
        (*at == command && (words.is_empty() || words.contains(&word))).then_some(*tip)
    })
}

/// Gives an error about an unknown word the tip that helps, where there is one.
pub fn tip(error: &mut Error) {
    without_values(error);
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
        (Some(command), _) => known(COMMANDS, &command).or_else(|| {
            // A slip of the finger is told by its suggestion.
            let slip = error.get(ContextKind::SuggestedSubcommand).is_some();
            behind(error, &command).filter(|_| !slip)
        }),
        (None, Some(option)) => {
            let option = option.split(['=', ' ']).next().unwrap_or("");
            behind(error, option).or_else(|| known(OPTIONS, option))
        }
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

/// That a word could be a value helps where anything may be one: in the program's own arguments.
fn without_values(error: &mut Error) {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let any = usage.is_some_and(|text| text.contains("<CMD>"));
    let told = error.get(ContextKind::Suggested).map(ToString::to_string);
    if !any && told.is_some_and(|text| text.contains("as a value")) {
        error.remove(ContextKind::Suggested);
    }
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
            ("wharf -v", "tip: `wharf --version` shows"),
            ("wharf ps --name web", "tip: `--filter name=PART`"),
            ("wharf network ls --label=a", "tip: `--filter label=KEY"),
            ("wharf port web", "tip: `wharf port ls NAME` lists"),
            ("wharf port lss", "subcommands exist: 'list', 'ls'"),
            ("wharf networ ls", "subcommands exist: 'net', 'network'"),
        ] {
            let text = told(line);
            assert!(text.contains(said), "{line}\n{text}");
            assert_eq!(text.matches("tip:").count(), 1, "{line}\n{text}");
        }
        let text = told("wharf create x --expose 80");
        assert!(!text.contains("tip:"), "{text}");
        assert!(told("wharf run --expose 80").contains("-- --expose"));
    }
}
