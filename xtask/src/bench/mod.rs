//! `cargo xtask bench`: wharf beside the floor program and a shell script of `ip` and `iptables`.
//!
//! Everything happens in namespaces that the bench makes for itself, and that end with it. Figures of one
//! run may be compared with each other, not with those of another run or machine; so every goal is a ratio.
//! A missed goal is printed and never fails the run: this is a measurement, not a test.

mod chart;
mod cni;
mod connect;
mod datapath;
mod docker;
mod document;
mod engines;
mod exec;
mod explain;
mod guards;
mod leftovers;
mod lifecycle;
mod measure;
mod netavark;
mod network_rm;
mod options;
mod peers;
mod report;
mod scale;
mod storms;
mod svg;
mod traffic;
pub(crate) mod world;

use std::error::Error;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use document::Setting;
use options::{Options, USAGE};
use report::Section;
use world::World;

pub(crate) type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

type Bench = fn(&Context) -> Result<Vec<Section>>;

/// What leaves few namespaces behind comes first: `trace` and `doctor` look into all that there are.
const BENCHES: [(&str, Bench); 11] = [
    ("attach", lifecycle::attach),
    ("ports", lifecycle::ports),
    ("explain", explain::run),
    ("guards", guards::run),
    ("datapath", datapath::run),
    ("exec", exec::run),
    ("network-rm", network_rm::run),
    ("connect", connect::run),
    ("scale", scale::run),
    ("storms", storms::run),
    ("peers", peers::run),
];

/// What every bench gets to know.
struct Context {
    world: World,
    /// The wharf binary, if there is one.
    wharf: Option<PathBuf>,
    floor: PathBuf,
    rounds: usize,
    pause: Duration,
    quick: bool,
    state_dir: Option<PathBuf>,
    /// How many are attached already in `peers`, smallest first.
    attached: Option<Vec<u32>>,
    /// When something was last said to a stderr that is no terminal.
    said: Mutex<Option<Instant>>,
}

impl Context {
    /// Says what is being done: all of it on a terminal, a line now and then elsewhere.
    fn progress(&self, what: &str) {
        const NOW_AND_THEN: Duration = Duration::from_secs(20);
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !what.is_empty() && said.is_none_or(|then| then.elapsed() > NOW_AND_THEN) {
            eprintln!("{what}");
            *said = Some(Instant::now());
        }
    }
}

/// Runs the benches that `arguments` name.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments
        .iter()
        .any(|word| word == "--help" || word == "-h")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False when a bench could not be run at all.
fn run(options: Options) -> Result<bool> {
    let (floor, wharf) = binaries()?;
    if wharf.is_none() {
        eprintln!(
            "bench: no wharf binary (cargo build --release -p wharf, or set WHARF): measuring without it"
        );
    }
    let report = options
        .report
        .as_deref()
        .map(report_directory)
        .transpose()?;
    let world =
        World::enter().map_err(|e| format!("cannot make private namespaces (not root?): {e}"))?;
    let context = Context {
        world,
        wharf,
        floor,
        rounds: options
            .rounds
            .unwrap_or(if options.quick { 5 } else { 25 })
            .max(1),
        pause: Duration::from_millis(options.pause.unwrap_or(25).max(5)),
        quick: options.quick,
        state_dir: options
            .state_dir
            .map(|dir| dir.join(format!("wharf-bench-{}", std::process::id()))),
        attached: options.attached,
        said: Mutex::default(),
    };
    let mut setting = Setting::of(&context);
    let show = !options.json && report.is_none();
    let sections = measure_all(&context, &options.benches, &mut setting, show);
    if let Some(directory) = &context.state_dir {
        // Nothing is there if wharf was not measured.
        drop(std::fs::remove_dir_all(directory));
    }
    if options.json {
        print(&document::json(&setting, &sections));
    }
    if let Some(directory) = report {
        let path = document::write(&directory, &setting, &sections)?;
        eprintln!("bench: {}", path.display());
    }
    Ok(setting.complete())
}

/// All benches, one after the other. One that cannot be run is told, and the others go on.
fn measure_all(
    context: &Context,
    benches: &[(&'static str, Bench)],
    setting: &mut Setting,
    show: bool,
) -> Vec<Section> {
    let mut sections = Vec::new();
    for (name, bench) in benches {
        let begun = Instant::now();
        let outcome = bench(context);
        context.progress("");
        match outcome {
            Ok(more) => {
                if show {
                    more.iter().for_each(|section| print(&section.markdown()));
                }
                sections.extend(more);
                setting.took(name, begun.elapsed());
            }
            Err(error) => {
                eprintln!("bench: {name}: {error}");
                setting.failed(name, &error.to_string());
            }
        }
    }
    sections
}

/// Where the report goes, made and with its full name: the run's own `/run` hides what lies there.
fn report_directory(path: &Path) -> Result<PathBuf> {
    let tell = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(path).map_err(tell)?;
    let full = path.canonicalize().map_err(tell)?;
    if full.starts_with("/run") || full.starts_with("/sys") {
        return Err(format!("{}: not below /run or /sys", full.display()).into());
    }
    Ok(full)
}

/// Writes to stdout. A reader that has gone away is no failure: the measurement is done all the same.
fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// The floor program and, if it is there, wharf: release builds, wherever this program itself lies, each as a copy in
/// `bench` beside them. What a linker has just written lies page by page in the page cache, a file that was copied, as
/// an installed program is, in larger pieces, and each call feels the difference (attach: a sixth).
fn binaries() -> Result<(PathBuf, Option<PathBuf>)> {
    let own = std::env::current_exe()?;
    let target = own
        .parent()
        .and_then(Path::parent)
        .ok_or("this program lies in no target directory")?;
    let release = target.join("release");
    let floor = release.join("floor");
    if !floor.exists() {
        let path = floor.display();
        return Err(format!("{path} is missing: cargo build --release -p xtask").into());
    }
    let wharf = match std::env::var_os("WHARF") {
        Some(path) => Some(
            std::fs::canonicalize(&path).map_err(|e| format!("WHARF={}: {e}", path.display()))?,
        ),
        None => Some(release.join("wharf")).filter(|path| path.exists()),
    };
    let copies = target.join("bench");
    std::fs::create_dir_all(&copies)?;
    let wharf = wharf.map(|path| copied(&path, &copies.join("wharf")));
    Ok((copied(&floor, &copies.join("floor"))?, wharf.transpose()?))
}

/// Copies a program, to a new file: the one before may still run.
fn copied(program: &Path, copy: &Path) -> Result<PathBuf> {
    let partial = copy.with_extension(std::process::id().to_string());
    std::fs::copy(program, &partial)?;
    std::fs::rename(&partial, copy)?;
    Ok(copy.to_owned())
}
