//! Programs in containers: `run` and `exec`.
//!
//! `run` is one change: when the program cannot be started, its container goes as well.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use wharf_core::attach::{Container, ProcessRef};
use wharf_core::name::{ContainerName, HostName};
use wharf_engine::api::{ContainerRequest, Dirs, Mode, NetnsRequest};
use wharf_engine::engine::Engine;
use wharf_engine::error::EngineError;
use wharf_engine::process::{ContainerProcess, ExitStatus, LogTarget, ProcessId, Warning};

use super::args::{AttachArgs, ChangeArgs};
use super::container::OWNER;
use super::{Context, Done, files, names};
use crate::output::error::{CommandError, os_text};
use crate::output::json::{ContainerJson, running};

/// The exit status when it was wharf that failed, and not the program.
const WHARF_FAILED: u8 = 125;
/// How often another random name is tried when one is taken.
const NAME_ATTEMPTS: u32 = 16;

/// What `run` and `exec` have in common.
#[derive(Debug, Args)]
pub struct ProgramArgs {
    /// Leave the program running in the background
    #[arg(short, long)]
    detach: bool,

    /// Set an environment variable, or pass on the caller's (may be given again)
    ///
    /// The program has the caller's whole environment, since it runs on the caller's file system.
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<OsString>,

    /// Working directory of the program
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<PathBuf>,

    /// Accepted for habit's sake: the program always has the caller's input
    #[arg(short, long, hide = true)]
    interactive: bool,

    /// Accepted for habit's sake: the program always has the caller's terminal
    #[arg(short, long, hide = true)]
    tty: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of the container; a random one if not given
    #[arg(short, long, value_parser = ContainerName::given)]
    name: Option<ContainerName>,

    /// Host name that the program sees; the container's name if not given
    #[arg(long)]
    hostname: Option<HostName>,

    /// Remove the container when the program has ended
    #[arg(long)]
    rm: bool,

    #[command(flatten)]
    attach: AttachArgs,

    #[command(flatten)]
    program: ProgramArgs,

    #[command(flatten)]
    change: ChangeArgs,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    program: ProgramArgs,

    /// The container
    name: ContainerName,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs a program in a new container.
pub fn run(args: RunArgs, ctx: &Context) -> Done {
    run_all(args, ctx).map_err(as_wharfs_own)
}

/// Runs a further program in a container.
pub fn exec(args: ExecArgs, ctx: &Context) -> Done {
    exec_all(args, ctx).map_err(as_wharfs_own)
}

/// A failure that is not the program's: 125, unless the start itself said 126 or 127.
fn as_wharfs_own(error: CommandError) -> CommandError {
    match error.exit_status() {
        126 | 127 => error,
        _ => error.status(WHARF_FAILED),
    }
}

fn run_all(args: RunArgs, ctx: &Context) -> Done {
    let mode = args.change.mode();
    let mut engine = ctx.engine()?;
    let made_default = engine.makes_default(&args.attach.requests()?)?;
    let Some(container) = create(&args, &mut engine, mode, ctx)? else {
        return Ok(0);
    };
    let started = engine
        .containers()
        .map_err(CommandError::from)
        .and_then(|all| {
            // The store must be closed before the fork: a copy of it would not be usable.
            drop(engine);
            start(&args, &container, &all, ctx)
        });
    match started {
        Ok(status) => Ok(status),
        Err(error) if error.is_broken_pipe() => Err(error),
        Err(error) => Err(give_up(&container.name, made_default, error, ctx)),
    }
}

/// Makes the container; `None` after a dry run.
fn create(
    args: &RunArgs,
    engine: &mut Engine,
    mode: Mode,
    ctx: &Context,
) -> Result<Option<Container>, CommandError> {
    let networks = args.attach.requests()?;
    let command: Vec<String> = args
        .command
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut attempt = 0;
    loop {
        let request = ContainerRequest {
            name: match &args.name {
                Some(name) => name.clone(),
                None => names::random(attempt)?,
            },
            owner: OWNER.to_owned(),
            client: None,
            netns: NetnsRequest::New,
            networks: networks.clone(),
            ports: args.attach.ports.clone(),
            id: None,
            ports_held: false,
            labels: args.attach.labels(),
            command: command.clone(),
            transient: args.rm,
        };
        match engine.create(&request, mode) {
            Err(EngineError::Exists(_)) if args.name.is_none() && attempt < NAME_ATTEMPTS => {
                attempt += 1;
            }
            result => return ctx.outcome(result?, mode),
        }
    }
}

fn start(args: &RunArgs, container: &Container, all: &[Container], ctx: &Context) -> Done {
    let hostname = args
        .hostname
        .as_ref()
        .map_or(container.name.as_str(), HostName::as_str);
    let mut program = program(&args.program, container, hostname, all);
    program.argv.clone_from(&args.command);
    if args.program.detach {
        start_detached(args, &program, container, ctx)
    } else {
        start_foreground(args, &program, container, ctx)
    }
}

fn start_foreground(
    args: &RunArgs,
    program: &ContainerProcess,
    container: &Container,
    ctx: &Context,
) -> Done {
    let child = program.spawn()?;
    warn(child.warnings(), ctx);
    let process = process_ref(child.id());
    ctx.engine()?
        .set_process(&container.name, Some(process), None)?;
    let status = child.wait()?;
    if let Err(error) = record_end(&ctx.dirs, container, status, args.rm) {
        ctx.printer.error(&CommandError::from(error));
    }
    Ok(exit_status(status))
}

fn start_detached(
    args: &RunArgs,
    program: &ContainerProcess,
    container: &Container,
    ctx: &Context,
) -> Done {
    let log = open_log(&container.name, ctx)?;
    let (dirs, own, rm) = (ctx.dirs.clone(), container.clone(), args.rm);
    let child = program.spawn_detached(&log, move |status| {
        // Nobody is there to be told; the next call mends what is left.
        let _ = record_end(&dirs, &own, status, rm);
    })?;
    warn(child.warnings(), ctx);
    let process = process_ref(child.id());
    let recorded = ctx.engine().and_then(|mut engine| {
        engine.set_process(&container.name, Some(process), None)?;
        Ok(engine)
    });
    let mut engine = match recorded {
        Ok(engine) => engine,
        Err(error) => {
            child.abandon();
            return Err(error);
        }
    };
    if ctx.printer.json() {
        let container = engine.container(&container.name)?;
        ctx.printer.value(&ContainerJson::from(&container))?;
    } else {
        ctx.printer.line(&container.name)?;
    }
    Ok(0)
}

/// Records how the program ended, or removes its container.
///
/// Somebody else may have removed it, and made another of the same name meanwhile.
fn record_end(
    dirs: &Dirs,
    container: &Container,
    status: ExitStatus,
    rm: bool,
) -> Result<(), EngineError> {
    let name = &container.name;
    let mut engine = Engine::open(dirs)?;
    match engine.container(name) {
        Ok(there) if there.id == container.id => {}
        Ok(_) | Err(EngineError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    if rm {
        engine.remove(std::slice::from_ref(name), true, Mode::Apply)?;
        files::forget_log(dirs, name);
        Ok(())
    } else {
        engine.set_process(name, None, Some(status.code()))
    }
}

/// Removes the container of a program that did not start, and adds to the error how that went.
fn give_up(
    name: &ContainerName,
    made_default: bool,
    error: CommandError,
    ctx: &Context,
) -> CommandError {
    let removed = Engine::open(&ctx.dirs).and_then(|mut engine| {
        engine.remove(std::slice::from_ref(name), true, Mode::Apply)?;
        if made_default {
            engine.forget_default();
        }
        Ok(())
    });
    files::forget_log(&ctx.dirs, name);
    match removed {
        Ok(()) => error.undone(format!("container `{name}` is removed again")),
        Err(failure) => error
            .undone(format!("container `{name}` is left behind: {failure}"))
            .hint(format!("`wharf rm -f {name}` removes it")),
    }
}

fn exec_all(args: ExecArgs, ctx: &Context) -> Done {
    let mut engine = ctx.engine()?;
    let container = engine.container(&args.name)?;
    let all = engine.containers()?;
    drop(engine);
    let mut program = program(&args.program, &container, container.name.as_str(), &all);
    program.argv = args.command;
    program.join = running(&container).and_then(process_id);
    if args.program.detach {
        let log = open_log(&container.name, ctx)?;
        let child = program.spawn_detached(&log, |_| {})?;
        warn(child.warnings(), ctx);
        return Ok(0);
    }
    let child = program.spawn()?;
    warn(child.warnings(), ctx);
    Ok(exit_status(child.wait()?))
}

/// The program's surroundings; its command is still to be set.
fn program(
    args: &ProgramArgs,
    container: &Container,
    hostname: &str,
    all: &[Container],
) -> ContainerProcess {
    ContainerProcess {
        netns: container.netns.path.clone(),
        hostname: hostname.to_owned(),
        hosts: files::hosts(container, hostname, all),
        resolv_conf: Some(files::resolv_conf(container)),
        env: environment(std::env::vars_os().collect(), &args.env),
        cwd: args.workdir.clone(),
        ..ContainerProcess::default()
    }
}

/// `KEY=VALUE` or `KEY`.
fn variable(text: OsString) -> Result<OsString, &'static str> {
    match text.as_encoded_bytes().first() {
        None | Some(b'=') => Err("a variable has a name: KEY or KEY=VALUE is expected"),
        Some(_) => Ok(text),
    }
}

/// The caller's environment with the changes asked for.
fn environment(
    callers: Vec<(OsString, OsString)>,
    changes: &[OsString],
) -> Vec<(OsString, OsString)> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut env = callers;
    for change in changes {
        let bytes = change.as_bytes();
        // A name alone passes on the caller's value, which is there already.
        let Some(at) = bytes.iter().position(|b| *b == b'=') else {
            continue;
        };
        let key = OsString::from_vec(bytes[..at].to_vec());
        env.retain(|(name, _)| *name != key);
        env.push((key, OsString::from_vec(bytes[at + 1..].to_vec())));
    }
    env
}

/// The log of a program in the background; both streams go to one file.
fn open_log(name: &ContainerName, ctx: &Context) -> Result<LogTarget, CommandError> {
    let path = files::log(&ctx.dirs, name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            CommandError::internal(format!("cannot make {}", folder.display()))
                .cause(os_text(&error.to_string()))
        })?;
    }
    Ok(LogTarget::Files {
        stdout: path.clone(),
        stderr: path,
    })
}

fn warn(warnings: &[Warning], ctx: &Context) {
    for warning in warnings {
        let path = match &warning.path {
            Some(path) => format!(" ({})", path.display()),
            None => String::new(),
        };
        let why = os_text(&warning.errno.to_string());
        ctx.printer
            .warning(&format!("cannot {}{path}: {why}", warning.step));
    }
}

fn process_ref(id: ProcessId) -> ProcessRef {
    ProcessRef {
        pid: id.pid.cast_signed(),
        start_time: id.start_time,
    }
}

fn process_id(process: ProcessRef) -> Option<ProcessId> {
    Some(ProcessId {
        pid: u32::try_from(process.pid).ok()?,
        start_time: process.start_time,
    })
}

fn exit_status(status: ExitStatus) -> u8 {
    u8::try_from(status.code()).unwrap_or(WHARF_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_callers_with_changes() {
        let callers = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
        let changes = ["A=x=y".into(), "B".into(), "C=".into()];
        let env = environment(callers, &changes);
        assert_eq!(
            env,
            [
                ("B".into(), "2".into()),
                ("A".into(), "x=y".into()),
                ("C".into(), OsString::new()),
            ]
        );
    }

    #[test]
    fn a_failure_before_the_start_is_125() {
        let status = |error| as_wharfs_own(error).exit_status();
        assert_eq!(status(CommandError::usage("no")), 125);
        assert_eq!(status(CommandError::internal("no").status(127)), 127);
    }
}
