//! Names of containers and networks for the shells' completion: the scripts ask with the words that are typed, and get the
//! names that may come next. The words of the command line itself are the scripts' own.

use std::any::TypeId;

use clap::{Arg, Args, Command};
use wharf_core::attach::AttachRequest;
use wharf_core::name::{ContainerName, NetworkName};

use super::{Context, Done, manual};
use crate::output::error::CommandError;

#[derive(Debug, Args)]
pub struct NamesArgs {
    /// The words behind `wharf`, up to the one that is being typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What a place in the command line takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Containers,
    Networks,
    /// Where a packet starts or goes.
    Ends,
}

/// Prints the names that may stand behind these words; ends with 1 where none may.
pub fn names(args: &NamesArgs, ctx: &Context) -> Done {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let Some(kind) = kind(&manual::built(), &words) else {
        return Ok(1);
    };
    let mut names = all(kind, ctx)?;
    names.retain(|name| !words.contains(&name.as_str()));
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    ctx.printer.text(&text)?;
    Ok(0)
}

fn all(kind: Kind, ctx: &Context) -> Result<Vec<String>, CommandError> {
    let mut engine = ctx.engine()?;
    if kind == Kind::Networks {
        let views = engine.networks()?;
        return Ok(views.iter().map(|v| v.spec.name.to_string()).collect());
    }
    let containers = engine.containers()?;
    let mut names: Vec<String> = containers.iter().map(|c| c.name.to_string()).collect();
    if kind == Kind::Ends {
        names.extend(["host".to_owned(), "outside".to_owned()]);
    }
    Ok(names)
}

/// What comes behind these words.
fn kind(tree: &Command, words: &[&str]) -> Option<Kind> {
    let mut command = tree;
    let mut place = 0;
    let mut value_of: Option<&Arg> = None;
    for word in words {
        if value_of.take().is_some() {
            continue;
        }
        if *word == "--" {
            // From here on it is another program's command line.
            return None;
        }
        if let Some(long) = word.strip_prefix("--") {
            value_of = option(command, |arg| names_long(arg, long)).filter(|_| !long.contains('='));
        } else if let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            value_of = open_letter(command, letters);
        } else if let Some(next) = command.find_subcommand(word).filter(|_| place == 0) {
            command = next;
        } else {
            place += 1;
        }
    }
    let arg = value_of.or_else(|| positional(command, place))?;
    of_argument(command, arg)
}

/// The last of several letters, if it still waits for its value.
fn open_letter<'c>(command: &'c Command, letters: &str) -> Option<&'c Arg> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let found = option(command, |arg| {
            arg.get_short_and_visible_aliases()
                .is_some_and(|all| all.contains(&letter))
        });
        if found.is_some() {
            return found.filter(|_| rest.as_str().is_empty());
        }
    }
    None
}

/// The option that takes a value and that `is` knows.
fn option(command: &Command, is: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    let takes_next = |arg: &&Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
    command
        .get_arguments()
        .filter(takes_next)
        .find(|arg| is(arg))
}

fn names_long(arg: &Arg, word: &str) -> bool {
    let word = word.split('=').next().unwrap_or(word);
    arg.get_long() == Some(word) || arg.get_all_aliases().is_some_and(|all| all.contains(&word))
}

/// The argument at a place; the last may be given again.
fn positional(command: &Command, place: usize) -> Option<&Arg> {
    let all: Vec<&Arg> = command.get_positionals().collect();
    let last = all.last().filter(|arg| {
        arg.get_num_args().is_some_and(|n| n.max_values() > 1)
            || matches!(arg.get_action(), clap::ArgAction::Append)
    });
    all.get(place).or(last).copied()
}

fn of_argument(command: &Command, arg: &Arg) -> Option<Kind> {
    let new = matches!(command.get_name(), "create" | "run") && arg.get_id() == "name";
    let is = |id: TypeId| arg.get_value_parser().type_id() == id;
    if new {
        // It is to be a new one.
        None
    } else if command.get_name() == "trace" && arg.is_positional() {
        Some(Kind::Ends)
    } else if is(TypeId::of::<ContainerName>()) {
        Some(Kind::Containers)
    } else if is(TypeId::of::<NetworkName>()) || is(TypeId::of::<AttachRequest>()) {
        Some(Kind::Networks)
    } else {
        None
    }
}

/// Has a shell's script ask for names before it completes words.
pub fn with_names(script: &str, asks: Asks) -> String {
    match asks {
        Asks::First(start, question) => script.replacen(start, &format!("{start}{question}"), 1),
        Asks::Last(question, marks, asking) => {
            let lines = script.lines().map(|line| {
                let marked = marks.iter().any(|mark| line.contains(mark));
                format!("{line}{}\n", if marked { asking } else { "" })
            });
            lines.collect::<String>() + question
        }
        Asks::Never => script.to_owned(),
    }
}

/// How a script asks for names: in the beginning of its function, or by lines of its own.
#[derive(Debug, Clone, Copy)]
pub enum Asks {
    /// Behind this line, these lines.
    First(&'static str, &'static str),
    /// Behind all; and this behind the lines with one of these marks, of options that take names.
    Last(&'static str, &'static [&'static str], &'static str),
    /// It does not.
    Never,
}

/// For bash.
pub const BASH: Asks = Asks::First(
    "_wharf() {\n",
    r#"    if [[ "$2" != -* ]]; then
        local names
        if names=$("$1" names -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null); then
            COMPREPLY=( $(compgen -W "${names}" -- "$2") )
            return 0
        fi
    fi
"#,
);

/// For zsh.
pub const ZSH: Asks = Asks::First(
    "_wharf() {\n",
    r#"    if [[ $PREFIX != -* ]]; then
        local names
        if names=$(${(Q)words[1]} names -- "${(@Q)words[2,CURRENT-1]}" 2>/dev/null); then
            compadd -- ${(f)names}
            return
        fi
    fi
"#,
);

/// For fish.
pub const FISH: Asks = Asks::Last(
    r#"
function __fish_wharf_names
    set -l words (commandline -opc)
    $words[1] names -- $words[2..-1] 2>/dev/null
end
complete -c wharf -n "__fish_wharf_names >/dev/null" -f -a "(__fish_wharf_names)"
"#,
    &[" -l network "],
    r#" -f -a "(__fish_wharf_names)""#,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_takes_what_its_argument_is() {
        let tree = manual::built();
        for (line, wanted) in [
            ("", None),
            ("rm", Some(Kind::Containers)),
            ("rm -f a b", Some(Kind::Containers)),
            ("remove a", Some(Kind::Containers)),
            ("inspect", Some(Kind::Containers)),
            ("exec", Some(Kind::Containers)),
            ("exec -e A=B -w /tmp", Some(Kind::Containers)),
            ("exec -w", None),
            ("exec a", None),
            ("exec a --", None),
            ("create", None),
            ("create c", None),
            ("create c --network", Some(Kind::Networks)),
            ("create c --net", Some(Kind::Networks)),
            ("create c --network=a", None),
            ("create c -l", None),
            ("run --name", None),
            ("run --rm --network a --network", Some(Kind::Networks)),
            ("run --network a --", None),
            ("update c --network", Some(Kind::Networks)),
            ("port add", Some(Kind::Containers)),
            ("port add a", None),
            ("port ls", Some(Kind::Containers)),
            ("network", None),
            ("network create", None),
            ("network rm", Some(Kind::Networks)),
            ("net inspect a", Some(Kind::Networks)),
            ("--json network connect", Some(Kind::Networks)),
            ("network connect a", Some(Kind::Containers)),
            ("network connect --ip 10.0.0.1 a", Some(Kind::Containers)),
            ("network connect a b", None),
            ("network disconnect a", Some(Kind::Containers)),
            ("trace", Some(Kind::Ends)),
            ("trace a", Some(Kind::Ends)),
            ("trace a b", None),
            ("apply", None),
            ("ps", None),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(kind(&tree, &words), wanted, "{line}");
        }
    }

    #[test]
    fn the_scripts_ask() {
        for (asks, shell) in [
            (BASH, clap_complete::Shell::Bash),
            (ZSH, clap_complete::Shell::Zsh),
            (FISH, clap_complete::Shell::Fish),
        ] {
            let script = manual::script(shell);
            assert_eq!(script.matches(" names -- ").count(), 1, "{asks:?}");
        }
    }
}
