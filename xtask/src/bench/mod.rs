//! `cargo xtask bench`: wharf beside the floor program and a shell script of `ip` and `iptables`.
//!
//! Everything happens in namespaces that the bench makes for itself, and that end with it. Figures of one
//! run may be compared with each other, not with those of another run or machine; so every goal is a ratio.
//! A missed goal is printed and never fails the run: this is a measurement, not a test.

mod connect;
mod engines;
mod exec;
mod guards;
mod lifecycle;
mod measure;
mod network_rm;
mod peers;
mod report;
mod scale;
mod traffic;
mod world;

use std::error::Error;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use report::Section;
use world::World;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The text of `--help`.
const USAGE: &str = "\
usage: cargo xtask bench [BENCH]… [--rounds N] [--pause MS] [--quick] [--state-dir DIR] [--json]

benches (all of them when none is named):
  attach      an existing namespace onto an existing network with one published port, and off again;
              beside the CNI plugins and Netavark too, where Debian's packages have put them
  ports       the same with 1 port, 20 ports and a range of 20
  scale       the same with 0, 100, 500 and 1000 containers attached already
  network-rm  a network with 100 containers, all of it removed
  connect     new connections per second through the last of 10,000 published ports
  guards      throughput and round trips beside a plain bridge
  exec        programs executed and netlink sends, counted with strace

options:
  --rounds N       rounds that count, per bench (default 25)
  --pause MS       rest after every attach and detach (default 25, at least 5)
  --quick          few rounds, small sizes: a look, not a measurement
  --state-dir DIR  where wharf keeps its durable state (default: a tmpfs of the bench's own)
  --json           JSON on stdout instead of Markdown

Build first: cargo build --release -p wharf -p xtask. $WHARF names another wharf binary.
Needs root (or `unshare -Urnm`), and ip, iptables and strace for some rows.";

type Bench = fn(&Context) -> Result<Section>;

const BENCHES: [(&str, Bench); 7] = [
    ("attach", lifecycle::attach),
    ("ports", lifecycle::ports),
    ("scale", scale::run),
    ("network-rm", network_rm::run),
    ("connect", connect::run),
    ("guards", guards::run),
    ("exec", exec::run),
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
}

impl Context {
    /// Says what is being done, when somebody is watching.
    fn progress(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
        }
    }
}

#[derive(Default)]
struct Options {
    benches: Vec<(&'static str, Bench)>,
    rounds: Option<usize>,
    pause: Option<u64>,
    quick: bool,
    json: bool,
    state_dir: Option<PathBuf>,
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
    let options = match parse(arguments) {
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

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(number(value()?)?),
            "--pause" => options.pause = Some(number(value()?)?),
            "--state-dir" => options.state_dir = Some(value()?.into()),
            "all" => options.benches.extend(BENCHES),
            name => match BENCHES.iter().find(|(known, _)| *known == name) {
                Some(bench) => options.benches.push(*bench),
                None => return Err(format!("no such bench or option: {name}")),
            },
        }
    }
    if options.benches.is_empty() {
        options.benches.extend(BENCHES);
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

/// False when a bench could not be run at all.
fn run(options: Options) -> Result<bool> {
    let (floor, wharf) = binaries()?;
    if wharf.is_none() {
        eprintln!(
            "bench: no wharf binary (cargo build --release -p wharf, or set WHARF): measuring without it"
        );
    }
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
    };
    let mut complete = true;
    let mut sections = Vec::new();
    for (name, bench) in options.benches {
        match bench(&context) {
            Ok(section) => {
                context.progress("");
                if !options.json {
                    print(&section.markdown());
                }
                sections.push(section);
            }
            Err(error) => {
                context.progress("");
                eprintln!("bench: {name}: {error}");
                complete = false;
            }
        }
    }
    if let Some(directory) = &context.state_dir {
        // Nothing is there if wharf was not measured.
        drop(std::fs::remove_dir_all(directory));
    }
    if options.json {
        print(&report::json(&sections));
    }
    Ok(complete)
}

/// Writes to stdout. A reader that has gone away is no failure: the measurement is done all the same.
fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// The floor program and, if it is there, wharf: release builds, wherever this program itself lies.
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
    Ok((floor, wharf))
}
