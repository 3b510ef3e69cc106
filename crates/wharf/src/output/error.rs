//! A failure as its reader sees it: what failed, why, the command that shows it, what was undone, what to do.

use std::io;
use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};
use wharf_core::op::Op;
use wharf_core::{ErrorKind, render};
use wharf_engine::api::{ObjectName, Unmended};
use wharf_engine::error::EngineError;
use wharf_engine::kernel::OpError;
use wharf_engine::process::ProcessError;

/// A failure, ready to be printed; in a box, since it travels through every result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(Box<Report>);

/// What is printed of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The coarse kind.
    pub kind: ErrorKind,
    /// What failed.
    pub message: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
    /// The command that does the same and shows the same failure.
    pub command: Option<String>,
    /// What was taken back.
    pub undone: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// What was asked for and is not there.
    pub missing: Option<ObjectName>,
    status: Option<u8>,
    broken_pipe: bool,
}

impl Deref for CommandError {
    type Target = Report;
    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for CommandError {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl CommandError {
    /// A failure of a kind, with its one sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Report {
            kind,
            message: message.into(),
            causes: Vec::new(),
            command: None,
            undone: None,
            hint: None,
            missing: None,
            status: None,
            broken_pipe: false,
        }))
    }

    /// Arguments that are well-formed each but not together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A fault of wharf itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The standard output cannot be written.
    pub fn output(error: &io::Error) -> Self {
        let mut failure = Self::new(ErrorKind::Internal, "cannot write the output")
            .cause(os_text(&error.to_string()));
        if error.kind() == io::ErrorKind::BrokenPipe {
            failure.broken_pipe = true;
            failure.status = Some(0);
        }
        failure
    }

    /// The same with a cause behind the others.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a note on what was taken back.
    pub fn undone(mut self, undone: impl Into<String>) -> Self {
        self.undone = Some(undone.into());
        self
    }

    /// The same with an exit status of its own; a closed pipe keeps its.
    pub fn status(mut self, status: u8) -> Self {
        if !self.broken_pipe {
            self.status = Some(status);
        }
        self
    }

    /// The exit status it ends the command with.
    pub fn exit_status(&self) -> u8 {
        self.status.unwrap_or_else(|| self.kind.exit_status())
    }

    /// Whether the reader of the output has gone away, which is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// The lines for people.
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            text += &format!("  caused by: {}\n", indent(cause));
        }
        if let Some(command) = &self.command {
            text += &format!("  command:   {}\n", indent(command));
        }
        if let Some(undone) = &self.undone {
            text += &format!("  undone:    {}\n", indent(undone));
        }
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        text
    }

    /// The object for programs, on one line.
    pub fn json(&self) -> Value {
        json!({"error": {
            "kind": self.kind.as_str(),
            "message": self.message,
            "causes": self.causes,
            "command": self.command,
            "undone": self.undone,
            "hint": self.hint,
        }})
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        let mut failure = Self::new(error.kind(), error.to_string());
        failure.hint = error.hint();
        if let EngineError::NotFound(object) = &error {
            failure.missing = Some(object.clone());
        }
        if let Some(op) = error.failed_op() {
            failure.causes.push(op_cause(op));
            failure.command = Some(render::command(&op.op));
        }
        if let EngineError::Plan { error, .. } = &error {
            let left: Vec<String> = error
                .left
                .iter()
                .map(|l| format!("`{}`: {}", render::command(&l.op), op_cause(l)))
                .collect();
            failure.undone = Some(undone_text(error.undone, error.done, &left));
        } else if let Some((undone, done)) = error.undone() {
            failure.undone = Some(undone_text(undone, done, &[]));
        }
        if let EngineError::Left { left, .. } = &error {
            let cause = |l: &Unmended| match left.len() {
                1 => op_cause(&l.error),
                _ => format!("{}: {}", l.whose, op_cause(&l.error)),
            };
            failure.causes.extend(left.iter().map(cause));
            let commands = left.iter().map(|l| render::command(&l.error.op));
            failure.command = Some(commands.collect::<Vec<_>>().join("\n"));
        }
        failure
    }
}

impl From<ProcessError> for CommandError {
    fn from(error: ProcessError) -> Self {
        let (kind, hint) = match &error {
            ProcessError::EmptyCommand | ProcessError::NulByte { .. } => (ErrorKind::Usage, None),
            ProcessError::CommandNotFound { .. } => (
                ErrorKind::NotFound,
                Some("the container sees the host's files: check the command's name and PATH"),
            ),
            ProcessError::NotExecutable { .. } => (ErrorKind::Config, None),
            _ => (ErrorKind::Kernel, None),
        };
        let status = u8::try_from(error.exit_code()).unwrap_or(125);
        let mut failure = Self::new(kind, os_text(&error.to_string())).status(status);
        failure.hint = hint.map(str::to_owned);
        failure
    }
}

/// `3 of 3 earlier steps; the host is as before`, or what is left.
fn undone_text(undone: usize, done: usize, left: &[String]) -> String {
    if done == 0 && left.is_empty() {
        return "nothing had been changed".to_owned();
    }
    let steps = if done == 1 { "step" } else { "steps" };
    let mut text = format!("{undone} of {done} earlier {steps}");
    if left.is_empty() && undone == done {
        text += "; the host is as before";
    } else {
        text += "; left behind:";
        for line in left {
            text += &format!("\n{line}");
        }
    }
    text
}

/// The kernel's own words, and the error number's name: `kernel refused: Address already assigned (EEXIST)`.
pub fn op_cause(error: &OpError) -> String {
    let Some(errno) = Some(error.errno).filter(|n| *n != 0) else {
        return error.to_string();
    };
    let taken = match &*error.op {
        Op::LinkAdd(link) if errno == libc::EEXIST => {
            Some(format!("an interface `{}` exists already", link.name))
        }
        _ => None,
    };
    let words = error
        .detail
        .clone()
        .or(taken)
        .unwrap_or_else(|| os_text(&io::Error::from_raw_os_error(errno).to_string()));
    match errno_name(errno) {
        Some(name) => format!("kernel refused: {words} ({name})"),
        None => format!("kernel refused: {words} (errno {errno})"),
    }
}

/// The text of an operating system error without the standard library's ` (os error N)`.
pub fn os_text(text: &str) -> String {
    match text.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words.to_owned(),
        _ => text.to_owned(),
    }
}

/// Further lines of a text stand under its first.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n             ")
}

/// The names of the error numbers that netlink, mounts and namespaces answer with (`errno(3)`).
fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ERANGE => "ERANGE",
        libc::ELOOP => "ELOOP",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ENODATA => "ENODATA",
        libc::EPROTO => "EPROTO",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENOBUFS => "ENOBUFS",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EALREADY => "EALREADY",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::model::Netns;
    use wharf_core::op::Op;
    use wharf_engine::kernel::PlanError;

    fn refused(errno: i32, detail: Option<&str>) -> OpError {
        OpError {
            op: Box::new(Op::AddrAdd {
                netns: Netns::Host,
                link: "wharf0".parse().unwrap(),
                addr: "10.88.0.1/16".parse().unwrap(),
            }),
            netns: Netns::Host,
            errno,
            detail: detail.map(str::to_owned),
        }
    }

    fn plan_error(done: usize, undone: usize, left: Vec<OpError>) -> EngineError {
        EngineError::Plan {
            verb: "create network `blue`".to_owned(),
            error: Box::new(PlanError {
                error: refused(libc::EEXIST, Some("Address already assigned")),
                done,
                undone,
                left,
            }),
        }
    }

    #[test]
    fn a_refusal_has_all_the_lines() {
        let mut error = CommandError::from(plan_error(3, 3, Vec::new()));
        error.command = Some("ip addr add 10.88.0.1/16 dev wharf0".to_owned());
        error.hint = Some("choose another subnet".to_owned());
        assert_eq!(
            error.text(),
            "\
error: cannot create network `blue`
  caused by: kernel refused: Address already assigned (EEXIST)
  command:   ip addr add 10.88.0.1/16 dev wharf0
  undone:    3 of 3 earlier steps; the host is as before
hint: choose another subnet
"
        );
        assert_eq!(error.exit_status(), 1);
    }

    #[test]
    fn what_is_left_is_said() {
        let mut error = CommandError::from(plan_error(2, 1, vec![refused(libc::EBUSY, None)]));
        let undone = error.undone.take().unwrap();
        assert!(
            undone.starts_with("1 of 2 earlier steps; left behind:\n`"),
            "{undone}"
        );
        assert!(
            undone.ends_with("kernel refused: Device or resource busy (EBUSY)"),
            "{undone}"
        );
    }

    #[test]
    fn nothing_done_nothing_undone() {
        let error = CommandError::from(plan_error(0, 0, Vec::new()));
        assert_eq!(error.undone.as_deref(), Some("nothing had been changed"));
    }

    #[test]
    fn json_has_every_key() {
        let error = CommandError::usage("no");
        assert_eq!(
            error.json().to_string(),
            r#"{"error":{"kind":"usage","message":"no","causes":[],"command":null,"undone":null,"hint":null}}"#
        );
        assert_eq!(error.exit_status(), 2);
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let error = CommandError::output(&io::Error::from_raw_os_error(libc::EPIPE));
        assert!(error.is_broken_pipe());
        assert_eq!(error.status(125).exit_status(), 0);
    }

    #[test]
    fn further_lines_are_indented() {
        let mut error = CommandError::internal("no");
        error.command = Some("nft -f - <<E\nadd table\nE".to_owned());
        assert_eq!(
            error.text(),
            "error: no\n  command:   nft -f - <<E\n             add table\n             E\n"
        );
    }
}
