//! Completions, manual page and reference, all made from the one tree of commands.

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Context, Done, complete};
use crate::output::error::CommandError;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub fn completions(args: &CompletionsArgs, ctx: &Context) -> Done {
    ctx.printer.text(&script(args.shell))?;
    Ok(0)
}

/// The completion script for a shell.
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), "wharf", &mut script);
    let asks = match shell {
        Shell::Bash => complete::BASH,
        Shell::Zsh => complete::ZSH,
        Shell::Fish => complete::FISH,
        _ => complete::Asks::Never,
    };
    complete::with_names(&String::from_utf8_lossy(&script), asks)
}

/// The commands that the help lists.
fn shown() -> Command {
    let tree = Cli::command();
    let listed = tree.get_subcommands().filter(|c| !c.is_hide_set());
    Command::new("wharf")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(tree.get_arguments().cloned())
        .subcommands(listed.cloned())
}

/// One page: the command, then each of its commands as a section of its own.
pub fn man(ctx: &Context) -> Done {
    let mut page = Vec::new();
    let tree = built();
    let failed =
        |error: std::io::Error| CommandError::internal(format!("cannot render the page: {error}"));
    clap_mangen::Man::new(tree.clone())
        .render(&mut page)
        .map_err(failed)?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    for command in leaves(&tree) {
        let mut part = Vec::new();
        let man = clap_mangen::Man::new(command.clone());
        man.render_synopsis_section(&mut part).map_err(failed)?;
        man.render_description_section(&mut part).map_err(failed)?;
        man.render_options_section(&mut part).map_err(failed)?;
        text += &section(&command, &String::from_utf8_lossy(&part));
    }
    ctx.printer.text(&text)?;
    Ok(0)
}

/// A command's sections as subsections below its name.
fn section(command: &Command, part: &str) -> String {
    let name = command.get_bin_name().unwrap_or_default().to_uppercase();
    let mut text = format!(".SH \"{name}\"\n");
    for line in part.lines() {
        match line.strip_prefix(".SH ") {
            Some("SYNOPSIS" | "DESCRIPTION") => text += ".PP\n",
            Some(heading) => text += &format!(".SS {heading}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    text
}

pub fn docs(ctx: &Context) -> Done {
    ctx.printer.text(&reference())?;
    Ok(0)
}

/// `docs/cli.md`: the help of every command.
pub fn reference() -> String {
    let tree = built();
    let mut text = String::from(
        "# The command line of wharf\n\n\
         Made by `wharf docs` from the help texts; a test compares it.\n",
    );
    for command in std::iter::once(tree.clone()).chain(leaves(&tree)) {
        let name = command.get_bin_name().unwrap_or("wharf").to_owned();
        let help = command.clone().term_width(100).render_long_help();
        text += &format!(
            "\n## `{name}`\n\n```text\n{}\n```\n",
            tidy(&help.to_string())
        );
    }
    text
}

/// Without white space at line ends.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// The whole tree of commands, with all their arguments.
pub fn built() -> Command {
    let mut tree = Cli::command().version(env!("CARGO_PKG_VERSION"));
    tree.build();
    tree
}

/// All commands that are not hidden and have no further ones, in order.
fn leaves(tree: &Command) -> Vec<Command> {
    let visible = tree.get_subcommands().filter(|c| !c.is_hide_set());
    visible
        .flat_map(|command| {
            if command.has_subcommands() {
                leaves(command)
            } else {
                vec![command.clone()]
            }
        })
        .collect()
}
