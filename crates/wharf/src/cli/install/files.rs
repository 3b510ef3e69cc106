//! Changes to files: shown as commands, or made and taken back when a later one fails.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wharf_core::ErrorKind;
use wharf_engine::api::Mode;

use crate::cli::{Context, Done};
use crate::output::error::CommandError;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A directory is made, with those above it.
    Directory(PathBuf),
    /// A link is made: where, and to what.
    Link(PathBuf, PathBuf),
    /// A link is given another target: where, the new one, the old one.
    Relink(PathBuf, PathBuf, PathBuf),
    /// A file is written.
    Write(PathBuf, String),
    /// A link, or a file of this text, is removed.
    Remove(PathBuf, Option<String>),
    /// An empty directory is removed.
    RemoveDir(PathBuf),
}

/// Changes in order, each with its reason; and what stays, with the reason.
#[derive(Debug, Default)]
pub struct Changes {
    steps: Vec<(Change, &'static str)>,
    kept: Vec<(PathBuf, &'static str)>,
}

/// What is at the place of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A link that wharf made, or may have.
    Ours,
    /// Something else.
    Other,
}

/// Whether a link leads to a program named wharf, or is one of those that wharf puts beside.
pub fn wharfs_link(link: &Path, beside: &[(PathBuf, PathBuf)]) -> Found {
    match fs::read_link(link) {
        Ok(target) => {
            let named = target.file_name().is_some_and(|n| n == "wharf");
            let is_beside = beside.iter().any(|(l, t)| l == link && *t == target);
            match named || is_beside || fs::canonicalize(link).ok() == std::env::current_exe().ok()
            {
                true => Found::Ours,
                false => Found::Other,
            }
        }
        Err(_) if link.symlink_metadata().is_err() => Found::Nothing,
        Err(_) => Found::Other,
    }
}

impl Changes {
    /// A further change.
    pub fn push(&mut self, change: Change, because: &'static str) {
        self.steps.push((change, because));
    }

    /// Something that stays.
    pub fn keep(&mut self, path: &Path, because: &'static str) {
        self.kept.push((path.to_owned(), because));
    }

    /// A directory, if it is not there.
    pub fn directory(&mut self, path: &Path) {
        let planned = self
            .steps
            .iter()
            .any(|(c, _)| matches!(c, Change::Directory(p) if p == path));
        if !path.is_dir() && !planned {
            self.push(Change::Directory(path.to_owned()), "it is not there yet");
        }
    }

    /// A link.
    ///
    /// # Errors
    /// Something is there that is no link of wharf's.
    pub fn link(
        &mut self,
        link: &Path,
        target: &Path,
        because: &'static str,
    ) -> Result<(), CommandError> {
        let old = fs::read_link(link).ok();
        if old.as_deref() == Some(target) || (link.exists() && link == target) {
            self.keep(link, "it is there already");
            return Ok(());
        }
        let beside = [(link.to_owned(), old.clone().unwrap_or_default())];
        let beside = if target.ends_with("aardvark-dns") {
            &beside[..]
        } else {
            &[]
        };
        match (wharfs_link(link, beside), old) {
            (Found::Nothing, _) => {
                self.push(Change::Link(link.to_owned(), target.to_owned()), because)
            }
            (Found::Ours, Some(old)) => {
                self.push(
                    Change::Relink(link.to_owned(), target.to_owned(), old),
                    because,
                );
            }
            _ => {
                let msg = format!("`{}` exists already and is not wharf's", link.display());
                return Err(CommandError::new(ErrorKind::Conflict, msg)
                    .hint("choose another directory with --dir, or move it away"));
            }
        }
        Ok(())
    }

    /// Whether nothing but what these changes remove is in a directory.
    pub fn empties(&self, dir: &Path) -> bool {
        let removed = |path: PathBuf| {
            let mut all = self.steps.iter();
            all.any(|(c, _)| matches!(c, Change::Remove(p, _) if *p == path))
        };
        fs::read_dir(dir).is_ok_and(|all| all.filter_map(Result::ok).all(|e| removed(e.path())))
    }

    /// Shows the changes, or makes them and says what was done.
    ///
    /// # Errors
    /// A change failed; those before it were taken back.
    pub fn finish(self, ctx: &Context, mode: Mode) -> Done {
        if mode == Mode::Apply {
            self.make()?;
        }
        if ctx.printer.json() {
            ctx.printer.value(&self.json(mode))?;
        } else {
            ctx.printer.text(&self.text(mode))?;
        }
        Ok(0)
    }

    fn make(&self) -> Result<(), CommandError> {
        for (at, (change, _)) in self.steps.iter().enumerate() {
            let Err(error) = change.make() else { continue };
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                _ => ErrorKind::Kernel,
            };
            let mut failure = CommandError::new(kind, format!("cannot {}", change.verb()))
                .cause(crate::output::error::os_text(&error.to_string()));
            failure.command = Some(change.command());
            let undone = self.steps[..at]
                .iter()
                .rev()
                .filter(|(c, _)| c.undo().is_some_and(|u| u.make().is_ok()))
                .count();
            return Err(match at {
                0 => failure,
                _ => failure.undone(format!("{undone} of {at} earlier steps")),
            });
        }
        Ok(())
    }

    fn text(&self, mode: Mode) -> String {
        let mut text = String::new();
        for (change, because) in &self.steps {
            text += &match mode {
                Mode::Apply => format!("{}\n", change.done()),
                Mode::DryRun => format!("# {because}\n{}\n", change.command()),
            };
        }
        for (path, because) in &self.kept {
            let mark = if mode == Mode::DryRun { "# " } else { "" };
            text += &format!("{mark}kept {}: {because}\n", path.display());
        }
        if text.is_empty() {
            text += "nothing to do\n";
        }
        text
    }

    fn json(&self, mode: Mode) -> Value {
        let step = |(change, because): &(Change, &str)| {
            let undo: Vec<String> = change.undo().iter().map(Change::command).collect();
            json!({"op": change.op(), "command": change.command(), "because": because, "undo": undo})
        };
        let steps: Vec<Value> = self.steps.iter().map(step).collect();
        let kept: Vec<Value> = self
            .kept
            .iter()
            .map(|(p, b)| json!({"path": p, "because": b}))
            .collect();
        match mode {
            Mode::Apply => json!({"done": steps, "kept": kept}),
            Mode::DryRun => json!({"steps": steps, "kept": kept}),
        }
    }
}

impl Change {
    fn make(&self) -> io::Result<()> {
        match self {
            Self::Directory(path) => fs::create_dir_all(path),
            Self::Link(link, target) => symlink(target, link),
            Self::Relink(link, target, _) => {
                // In one step, so that there is no moment without.
                let beside = link.with_extension("wharf-new");
                symlink(target, &beside)?;
                fs::rename(&beside, link).inspect_err(|_| drop(fs::remove_file(&beside)))
            }
            Self::Write(path, text) => {
                let mut file = fs::OpenOptions::new();
                let file = file.write(true).create_new(true).mode(0o644);
                file.open(path)?.write_all(text.as_bytes())
            }
            Self::Remove(path, _) => fs::remove_file(path),
            Self::RemoveDir(path) => fs::remove_dir(path),
        }
    }

    /// The way back; a link that was removed leads to wharf again by `install`.
    fn undo(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::Directory(path) => Self::RemoveDir(path),
            Self::Link(link, _) => Self::Remove(link, None),
            Self::Relink(link, target, old) => Self::Relink(link, old, target),
            Self::Write(path, text) => Self::Remove(path, Some(text)),
            Self::Remove(path, Some(text)) => Self::Write(path, text),
            Self::Remove(_, None) => return None,
            Self::RemoveDir(path) => Self::Directory(path),
        })
    }

    fn op(&self) -> &'static str {
        match self {
            Self::Directory(_) => "dir add",
            Self::Link(..) => "symlink add",
            Self::Relink(..) => "symlink replace",
            Self::Write(..) => "file add",
            Self::Remove(..) => "file del",
            Self::RemoveDir(_) => "dir del",
        }
    }

    fn verb(&self) -> String {
        match self {
            Self::Directory(path) => format!("make directory {}", path.display()),
            Self::Link(link, _) | Self::Relink(link, ..) => format!("link {}", link.display()),
            Self::Write(path, _) => format!("write {}", path.display()),
            Self::Remove(path, _) => format!("remove {}", path.display()),
            Self::RemoveDir(path) => format!("remove directory {}", path.display()),
        }
    }

    fn done(&self) -> String {
        match self {
            Self::Directory(path) => format!("made {}", path.display()),
            Self::Link(link, target) | Self::Relink(link, target, _) => {
                format!("linked {} to {}", link.display(), target.display())
            }
            Self::Write(path, _) => format!("wrote {}", path.display()),
            Self::Remove(path, _) | Self::RemoveDir(path) => format!("removed {}", path.display()),
        }
    }

    fn command(&self) -> String {
        match self {
            Self::Directory(path) => format!("mkdir -p {}", quoted(path)),
            Self::Link(link, target) => format!("ln -s {} {}", quoted(target), quoted(link)),
            Self::Relink(link, target, _) => format!("ln -sfn {} {}", quoted(target), quoted(link)),
            Self::Write(path, text) => format!("cat >{} <<'END'\n{text}END", quoted(path)),
            Self::Remove(path, _) => format!("rm {}", quoted(path)),
            Self::RemoveDir(path) => format!("rmdir {}", quoted(path)),
        }
    }
}

/// As a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
